/* SPDX-License-Identifier: MIT */
/* A piece knows its own size and the piece before it, so that both neighbours are found at once; a free one keeps the
 * links of its list in its first two words. Sizes are counted in units of HEAP_ALIGN_BYTES: up to 15 units each has a
 * list of its own (level 0), and level n holds 2^(n+3) to 2^(n+4) - 1 units. A search begins at the list all of whose
 * pieces are large enough, so the first piece found will do. The row ends with a used piece of no size. */
#include "heap.h"

#include <stdbool.h>
#include <string.h>

#include "check.h"

struct heap_piece {
    struct heap_piece *before;    /* NULL: the first */
    size_t bytes_and_free;        /* without the header; the lowest bit: it is free */
    struct heap_piece *list_next; /* of a free piece only: the user's memory begins here */
    struct heap_piece *list_previous;
};

enum { FREE_BIT = 1, LISTS_LOG = 4, PIECE_BYTES_MIN = HEAP_ALIGN_BYTES };

_Static_assert(offsetof(struct heap_piece, list_next) == HEAP_HEADER_BYTES, "the links lie in the user's memory");
_Static_assert(HEAP_HEADER_BYTES % HEAP_ALIGN_BYTES == 0, "a header keeps the alignment");
_Static_assert(HEAP_LISTS == 1 << LISTS_LOG, "the shift and the count agree");
_Static_assert(HEAP_BYTES_MAX / HEAP_ALIGN_BYTES < 1 << (HEAP_LEVELS + 3), "the last level holds the largest piece");

struct place {
    uint32_t level;
    uint32_t list;
};

static size_t piece_bytes(const struct heap_piece *piece)
{
    return piece->bytes_and_free & ~(size_t)FREE_BIT;
}

static bool piece_is_free(const struct heap_piece *piece)
{
    return (piece->bytes_and_free & FREE_BIT) != 0;
}

static uint8_t *piece_memory(struct heap_piece *piece)
{
    return (uint8_t *)piece + HEAP_HEADER_BYTES;
}

static struct heap_piece *piece_at(uint8_t *address)
{
    return (struct heap_piece *)(void *)address;
}

static struct heap_piece *piece_after(struct heap_piece *piece)
{
    return piece_at(piece_memory(piece) + piece_bytes(piece));
}

static uint32_t highest_bit(size_t value)
{
    return 31 - (uint32_t)__builtin_clz((uint32_t)value);
}

static struct place place_of(size_t bytes)
{
    size_t units = bytes / HEAP_ALIGN_BYTES;
    if (units < HEAP_LISTS) {
        return (struct place){0, (uint32_t)units};
    }
    uint32_t high = highest_bit(units);
    return (struct place){high - LISTS_LOG + 1, (uint32_t)(units >> (high - LISTS_LOG)) - HEAP_LISTS};
}

static void list_put(struct heap *heap, struct heap_piece *piece, size_t bytes)
{
    struct place place = place_of(bytes);
    struct heap_piece **head = &heap->lists[place.level][place.list];
    piece->bytes_and_free = bytes | FREE_BIT;
    piece->list_previous = NULL;
    piece->list_next = *head;
    if (*head != NULL) {
        (*head)->list_previous = piece;
    }
    *head = piece;
    heap->list_bits[place.level] |= UINT32_C(1) << place.list;
    heap->level_bits |= UINT32_C(1) << place.level;
}

/* Out of its list; the piece is neither free nor counted as used until the caller has made it the one or the other. */
static void list_remove(struct heap *heap, struct heap_piece *piece)
{
    struct place place = place_of(piece_bytes(piece));
    if (piece->list_next != NULL) {
        piece->list_next->list_previous = piece->list_previous;
    }
    if (piece->list_previous != NULL) {
        piece->list_previous->list_next = piece->list_next;
    } else {
        heap->lists[place.level][place.list] = piece->list_next;
        if (piece->list_next == NULL) {
            heap->list_bits[place.level] &= ~(UINT32_C(1) << place.list);
            if (heap->list_bits[place.level] == 0) {
                heap->level_bits &= ~(UINT32_C(1) << place.level);
            }
        }
    }
    piece->bytes_and_free = piece_bytes(piece);
}

void heap_init(struct heap *heap, void *memory, size_t bytes)
{
    CHECK((uintptr_t)memory % HEAP_ALIGN_BYTES == 0 && bytes >= 256 && bytes <= HEAP_BYTES_MAX);
    memset(heap, 0, sizeof *heap);
    heap->memory = memory;
    heap->capacity_bytes = bytes / HEAP_ALIGN_BYTES * HEAP_ALIGN_BYTES - HEAP_HEADER_BYTES; /* without the last one */
    struct heap_piece *first = piece_at(memory);
    first->before = NULL;
    list_put(heap, first, heap->capacity_bytes - HEAP_HEADER_BYTES);
    struct heap_piece *last = piece_after(first);
    last->before = first;
    last->bytes_and_free = 0;
}

/* Cuts what is beyond `bytes` off a piece that is in no list, and makes that free. */
static void cut(struct heap *heap, struct heap_piece *piece, size_t bytes)
{
    size_t rest = piece_bytes(piece) - bytes;
    if (rest < HEAP_HEADER_BYTES + PIECE_BYTES_MIN) {
        return;
    }
    struct heap_piece *after = piece_after(piece);
    piece->bytes_and_free = bytes;
    struct heap_piece *second = piece_after(piece);
    second->before = piece;
    rest -= HEAP_HEADER_BYTES;
    if (piece_is_free(after)) {
        list_remove(heap, after);
        rest += HEAP_HEADER_BYTES + piece_bytes(after);
        after = piece_after(after);
    }
    after->before = second;
    list_put(heap, second, rest);
}

/* The smallest of the lists that will do; NULL when all are empty. */
static struct heap_piece *find(const struct heap *heap, size_t bytes)
{
    size_t units = bytes / HEAP_ALIGN_BYTES;
    if (units >= HEAP_LISTS) {
        units += ((size_t)1 << (highest_bit(units) - LISTS_LOG)) - 1;
    }
    struct place place = place_of(units * HEAP_ALIGN_BYTES);
    uint32_t lists = heap->list_bits[place.level] & (UINT32_MAX << place.list);
    if (lists == 0) {
        uint32_t levels = place.level + 1 < HEAP_LEVELS ? heap->level_bits & (UINT32_MAX << (place.level + 1)) : 0;
        if (levels == 0) {
            return NULL;
        }
        place.level = (uint32_t)__builtin_ctz(levels);
        lists = heap->list_bits[place.level];
    }
    return heap->lists[place.level][__builtin_ctz(lists)];
}

/* Rounds up to what a piece may have; 0 when it is more than there ever is. */
static size_t rounded(const struct heap *heap, size_t bytes)
{
    if (bytes > heap->capacity_bytes) {
        return 0;
    }
    bytes = (bytes + HEAP_ALIGN_BYTES - 1) / HEAP_ALIGN_BYTES * HEAP_ALIGN_BYTES;
    return bytes < PIECE_BYTES_MIN ? PIECE_BYTES_MIN : bytes;
}

static void count_used(struct heap *heap, struct heap_piece *piece)
{
    heap->used_bytes += HEAP_HEADER_BYTES + piece_bytes(piece);
    if (heap->used_bytes > heap->peak_bytes) {
        heap->peak_bytes = heap->used_bytes;
    }
}

static void *refuse(struct heap *heap)
{
    heap->refused_count++;
    return NULL;
}

/* Leaves the front of a piece free, so that the memory of what is returned is aligned. The front has to hold a piece
 * of its own; the caller asked for enough. */
static struct heap_piece *align_up(struct heap *heap, struct heap_piece *piece, size_t alignment)
{
    uintptr_t start = (uintptr_t)piece_memory(piece);
    size_t front = (alignment - start % alignment) % alignment;
    if (front == 0) {
        return piece;
    }
    if (front < HEAP_HEADER_BYTES + PIECE_BYTES_MIN) {
        front += alignment;
    }
    struct heap_piece *after = piece_after(piece);
    struct heap_piece *aligned = piece_at((uint8_t *)piece + front);
    aligned->bytes_and_free = piece_bytes(piece) - front;
    aligned->before = piece;
    after->before = aligned;
    list_put(heap, piece, front - HEAP_HEADER_BYTES); /* its own neighbour before is used: it was one piece */
    return aligned;
}

void *heap_take(struct heap *heap, size_t alignment, size_t bytes)
{
    CHECK(alignment > 0 && (alignment & (alignment - 1)) == 0);
    size_t wanted = rounded(heap, bytes);
    size_t searched = wanted;
    if (alignment > HEAP_ALIGN_BYTES) {
        searched = wanted > 0 && alignment <= heap->capacity_bytes
                       ? rounded(heap, wanted + alignment + HEAP_HEADER_BYTES + PIECE_BYTES_MIN)
                       : 0;
    }
    struct heap_piece *piece = searched > 0 ? find(heap, searched) : NULL;
    if (piece == NULL) {
        return refuse(heap);
    }
    list_remove(heap, piece);
    piece = align_up(heap, piece, alignment);
    cut(heap, piece, wanted);
    count_used(heap, piece);
    return piece_memory(piece);
}

/* The used piece whose memory this is. */
static struct heap_piece *piece_of(const struct heap *heap, const void *memory)
{
    uintptr_t offset = (uintptr_t)memory - (uintptr_t)heap->memory;
    CHECK(offset >= HEAP_HEADER_BYTES && offset < heap->capacity_bytes && offset % HEAP_ALIGN_BYTES == 0);
    struct heap_piece *piece = piece_at(heap->memory + (offset - HEAP_HEADER_BYTES));
    CHECK(!piece_is_free(piece) && piece_bytes(piece) >= PIECE_BYTES_MIN &&
          piece_bytes(piece) <= heap->capacity_bytes - offset && piece_after(piece)->before == piece);
    return piece;
}

void heap_give(struct heap *heap, void *memory)
{
    struct heap_piece *piece = piece_of(heap, memory);
    struct heap_piece *after = piece_after(piece);
    size_t bytes = piece_bytes(piece);
    heap->used_bytes -= HEAP_HEADER_BYTES + bytes;
    piece->bytes_and_free |= FREE_BIT; /* where it is joined to the one before, its header stays behind as this */
    if (piece_is_free(after)) {
        list_remove(heap, after);
        bytes += HEAP_HEADER_BYTES + piece_bytes(after);
        after = piece_after(after);
    }
    if (piece->before != NULL && piece_is_free(piece->before)) {
        piece = piece->before;
        list_remove(heap, piece);
        bytes += HEAP_HEADER_BYTES + piece_bytes(piece);
    }
    after->before = piece;
    list_put(heap, piece, bytes);
}

void *heap_resize(struct heap *heap, void *memory, size_t bytes)
{
    struct heap_piece *piece = piece_of(heap, memory);
    size_t wanted = rounded(heap, bytes);
    size_t had = piece_bytes(piece);
    if (wanted == 0) {
        return refuse(heap);
    }
    struct heap_piece *after = piece_after(piece);
    size_t reach = had + (piece_is_free(after) ? HEAP_HEADER_BYTES + piece_bytes(after) : 0);
    if (wanted > reach) {
        void *moved = heap_take(heap, HEAP_ALIGN_BYTES, bytes);
        if (moved != NULL) {
            memcpy(moved, memory, had);
            heap_give(heap, memory);
        }
        return moved;
    }
    heap->used_bytes -= HEAP_HEADER_BYTES + had;
    if (wanted > had) {
        list_remove(heap, after);
        piece->bytes_and_free = reach;
        piece_after(piece)->before = piece;
    }
    cut(heap, piece, wanted);
    count_used(heap, piece);
    return memory;
}

size_t heap_usable_bytes(const struct heap *heap, const void *memory)
{
    return piece_bytes(piece_of(heap, memory));
}
