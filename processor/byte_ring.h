/* SPDX-License-Identifier: MIT */
/* Bytes lent in pieces, each in one stretch, and given back in the order they were taken.
 *
 * Positions count all bytes ever taken (with those skipped at the ring's end), so a position names a place once and
 * for all: what lies before it can be given back, what lies behind it taken back.
 *
 * Invariant: tail <= head <= tail + capacity_bytes. Memory: from the arena. Thread: the loop's. */
#ifndef POSTERN_PROCESSOR_BYTE_RING_H
#define POSTERN_PROCESSOR_BYTE_RING_H

#include <stddef.h>
#include <stdint.h>

struct arena;

struct byte_ring {
    uint8_t *data;
    size_t capacity_bytes;
    uint64_t head;
    uint64_t tail;
};

enum { BYTE_RING_ALIGN_BYTES = 8 }; /* of each piece */

void byte_ring_init(struct byte_ring *ring, struct arena *arena, const char *what, size_t capacity_bytes);

/* A stretch of `bytes` bytes (at least 1) with undefined contents; NULL when there is no room now. A piece of at most
 * capacity_bytes always fits into an empty ring. `head` is its end. */
uint8_t *byte_ring_take(struct byte_ring *ring, size_t bytes);

/* Gives back all before `position`, which is the end of a piece. */
void byte_ring_release(struct byte_ring *ring, uint64_t position);

/* Takes back all from `position` on: the end of the last piece that stays, or the tail. */
void byte_ring_rewind(struct byte_ring *ring, uint64_t position);

static inline size_t byte_ring_used_bytes(const struct byte_ring *ring)
{
    return (size_t)(ring->head - ring->tail);
}

#endif
