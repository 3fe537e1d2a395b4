/* SPDX-License-Identifier: MIT */
#include "pool.h"

#include <string.h>

#include "check.h"

void pool_init(struct pool *pool, struct arena *arena, const char *what, size_t block_count, size_t block_bytes)
{
    size_t rounded = (block_bytes + ARENA_ALIGN_BYTES - 1) / ARENA_ALIGN_BYTES * ARENA_ALIGN_BYTES;
    CHECK(rounded >= sizeof(void *));
    *pool = (struct pool){.block_bytes = rounded, .block_count = block_count};
    pool->memory = arena_take(arena, what, block_count, rounded);
    if (arena_measuring(arena)) {
        return;
    }
    for (size_t index = block_count; index-- > 0;) {
        void *block = pool->memory + index * rounded;
        memcpy(block, &pool->free_head, sizeof pool->free_head);
        pool->free_head = block;
    }
}

void *pool_take(struct pool *pool)
{
    void *block = pool->free_head;
    if (block == NULL) {
        pool->refused_count++;
        return NULL;
    }
    memcpy(&pool->free_head, block, sizeof pool->free_head);
    pool->used_count++;
    if (pool->used_count > pool->peak_count) {
        pool->peak_count = pool->used_count;
    }
    return block;
}

void pool_give(struct pool *pool, void *block)
{
    uint8_t *bytes = block;
    CHECK(bytes >= pool->memory && bytes < pool->memory + pool->block_count * pool->block_bytes);
    CHECK((size_t)(bytes - pool->memory) % pool->block_bytes == 0);
    CHECK(pool->used_count > 0);
    memcpy(block, &pool->free_head, sizeof pool->free_head);
    pool->free_head = block;
    pool->used_count--;
}
