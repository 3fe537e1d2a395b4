/* SPDX-License-Identifier: MIT */
/* An allocator over one fixed block, for libraries that want malloc; our own code takes its memory from the arena.
 *
 * Two-level segregated fit (Masmano, Ripoll, Crespo, Real: "TLSF: a new dynamic memory allocator for real-time
 * systems", ECRTS 2004): free blocks stand in lists by size, 16 lists to each power of two, and two words of bits say
 * which lists have any. So taking, giving back and growing in place cost a bounded number of steps, whatever was
 * taken before; neighbours that are free are always joined.
 *
 * Invariants: the block is a row of pieces without a gap, each with a header of two words; no two free pieces stand
 * side by side; used_bytes is the sum of the used pieces with their headers. A take is refused only when no free piece
 * is larger by a sixteenth than what is asked for. Memory: the caller's. Thread: one at a time. */
#ifndef POSTERN_BASE_HEAP_H
#define POSTERN_BASE_HEAP_H

#include <stddef.h>
#include <stdint.h>

enum {
    HEAP_ALIGN_BYTES = 2 * sizeof(void *), /* of all that is given out */
    HEAP_HEADER_BYTES = 2 * sizeof(void *),
    HEAP_BYTES_MAX = 256 * 1024 * 1024, /* of the whole block */
    HEAP_LISTS = 16,                    /* for each power of two */
    HEAP_LEVELS = 26
};

struct heap_piece;

struct heap {
    uint8_t *memory;
    size_t capacity_bytes; /* headers included */
    size_t used_bytes;     /* likewise */
    size_t peak_bytes;
    uint64_t refused_count; /* calls that got nothing */
    uint32_t level_bits;    /* levels that have a free piece */
    uint32_t list_bits[HEAP_LEVELS];
    struct heap_piece *lists[HEAP_LEVELS][HEAP_LISTS];
};

/* Starts a heap over `memory`, aligned to HEAP_ALIGN_BYTES, of `bytes`: at least 256, at most HEAP_BYTES_MAX. */
void heap_init(struct heap *heap, void *memory, size_t bytes);

/* At least `bytes` bytes (0 is taken for 1) with undefined contents, aligned to `alignment`, a power of two, and to
 * HEAP_ALIGN_BYTES in any case. NULL: there is no piece large enough, which is counted. */
void *heap_take(struct heap *heap, size_t alignment, size_t bytes);

/* Gives back what heap_take or heap_resize gave. Anything else, and a second time, is a mistake and ends the program.
 */
void heap_give(struct heap *heap, void *memory);

/* Makes a piece larger or smaller, where it stands if that can be, and keeps its contents up to the smaller size.
 * NULL: no room, counted; the old piece stays as it was. Alignment beyond HEAP_ALIGN_BYTES is lost by a move. */
void *heap_resize(struct heap *heap, void *memory, size_t bytes);

/* What the caller may use of a piece: at least what was asked for. */
size_t heap_usable_bytes(const struct heap *heap, const void *memory);

#endif
