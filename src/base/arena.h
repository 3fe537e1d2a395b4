/* SPDX-License-Identifier: MIT */
/* The one block that all memory of a program comes from, carved in a fixed order at start and never given back.
 *
 * Invariant: the same calls, made with the same settings, carve the same rows. So a program carves twice: once
 * without memory, which only measures (every take returns NULL and the rows are the memory table), and once for
 * real in a block of exactly that size. Memory: belongs to whoever gave the block. Thread: any one, at start. */
#ifndef POSTERN_BASE_ARENA_H
#define POSTERN_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ARENA_ROWS_MAX = 64, ARENA_ALIGN_BYTES = 64 };

/* One line of the memory table. */
struct arena_row {
    const char *what; /* static text */
    size_t count;
    size_t bytes_each;
    size_t bytes; /* count x bytes_each, rounded up to ARENA_ALIGN_BYTES */
};

struct arena {
    uint8_t *memory; /* NULL while measuring */
    size_t capacity_bytes;
    size_t used_bytes;
    size_t row_count;
    struct arena_row rows[ARENA_ROWS_MAX];
};

/* Starts an arena that only measures. */
void arena_measure(struct arena *arena);

/* Starts an arena over `memory`, which is zeroed, aligned to ARENA_ALIGN_BYTES and holds `capacity_bytes`. */
void arena_begin(struct arena *arena, void *memory, size_t capacity_bytes);

/* Takes count x bytes_each zeroed bytes, aligned to ARENA_ALIGN_BYTES. NULL while measuring; never NULL otherwise
 * (taking more than was measured is a mistake and ends the program). */
void *arena_take(struct arena *arena, const char *what, size_t count, size_t bytes_each);

/* True while the arena only measures: the caller returns after its takes, before it touches anything. */
bool arena_measuring(const struct arena *arena);

#endif
