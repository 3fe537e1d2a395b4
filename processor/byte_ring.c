/* SPDX-License-Identifier: MIT */
/* Head and tail only grow; the place in memory is their remainder. A piece that would pass the memory's end skips the
 * rest of it, and the skipped bytes count as taken. An empty ring starts over at the memory's beginning. */
#include "byte_ring.h"

#include "arena.h"
#include "check.h"

static size_t aligned(size_t bytes)
{
    return (bytes + BYTE_RING_ALIGN_BYTES - 1) / BYTE_RING_ALIGN_BYTES * BYTE_RING_ALIGN_BYTES;
}

void byte_ring_init(struct byte_ring *ring, struct arena *arena, const char *what, size_t capacity_bytes)
{
    ring->capacity_bytes = aligned(capacity_bytes);
    ring->data = arena_take(arena, what, 1, ring->capacity_bytes);
    ring->head = 0;
    ring->tail = 0;
}

uint8_t *byte_ring_take(struct byte_ring *ring, size_t bytes)
{
    CHECK(bytes > 0);
    if (bytes > ring->capacity_bytes) {
        return NULL;
    }
    const size_t wanted = aligned(bytes);
    size_t offset = (size_t)(ring->head % ring->capacity_bytes);
    size_t skipped = 0;
    if (ring->head == ring->tail && offset != 0) {
        ring->head += ring->capacity_bytes - offset;
        ring->tail = ring->head;
        offset = 0;
    } else if (offset + wanted > ring->capacity_bytes) {
        skipped = ring->capacity_bytes - offset;
        offset = 0;
    }
    if (byte_ring_used_bytes(ring) + skipped + wanted > ring->capacity_bytes) {
        return NULL;
    }
    ring->head += skipped + wanted;
    return ring->data + offset;
}

void byte_ring_release(struct byte_ring *ring, uint64_t position)
{
    CHECK(position >= ring->tail && position <= ring->head);
    ring->tail = position;
}

void byte_ring_rewind(struct byte_ring *ring, uint64_t position)
{
    CHECK(position >= ring->tail && position <= ring->head);
    ring->head = position;
}
