/* SPDX-License-Identifier: MIT */
/* A fixed number of equal blocks, lent and given back.
 *
 * Invariant: used + free = count. Taking and giving are O(1) and never fail but by exhaustion, which is counted.
 * Memory: the caller's, from the arena; the free list lives in the free blocks. Thread: its owner's. */
#ifndef POSTERN_BASE_POOL_H
#define POSTERN_BASE_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "arena.h"

struct pool {
    uint8_t *memory;
    void *free_head;
    size_t block_bytes; /* at least sizeof(void *), a multiple of ARENA_ALIGN_BYTES */
    size_t block_count;
    size_t used_count;
    size_t peak_count;
    uint64_t refused_count; /* takes that found nothing */
};

/* Carves the pool from `arena` (as the row `what`); block_bytes is rounded up to ARENA_ALIGN_BYTES. While the arena
 * measures, the pool must not be used. */
void pool_init(struct pool *pool, struct arena *arena, const char *what, size_t block_count, size_t block_bytes);

/* A block with undefined contents, or NULL when all are lent. */
void *pool_take(struct pool *pool);

/* Gives back a block that pool_take gave, once. */
void pool_give(struct pool *pool, void *block);

#endif
