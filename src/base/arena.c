/* SPDX-License-Identifier: MIT */
#include "arena.h"

#include <string.h>

#include "check.h"

void arena_measure(struct arena *arena)
{
    memset(arena, 0, sizeof *arena);
}

void arena_begin(struct arena *arena, void *memory, size_t capacity_bytes)
{
    CHECK(memory != NULL && (uintptr_t)memory % ARENA_ALIGN_BYTES == 0);
    memset(arena, 0, sizeof *arena);
    arena->memory = memory;
    arena->capacity_bytes = capacity_bytes;
}

bool arena_measuring(const struct arena *arena)
{
    return arena->memory == NULL;
}

void *arena_take(struct arena *arena, const char *what, size_t count, size_t bytes_each)
{
    CHECK(arena->row_count < ARENA_ROWS_MAX);
    CHECK(bytes_each > 0 && count <= (SIZE_MAX / 2 - arena->used_bytes) / bytes_each);
    size_t bytes = (count * bytes_each + ARENA_ALIGN_BYTES - 1) / ARENA_ALIGN_BYTES * ARENA_ALIGN_BYTES;
    arena->rows[arena->row_count++] = (struct arena_row){what, count, bytes_each, bytes};
    size_t at = arena->used_bytes;
    arena->used_bytes += bytes;
    if (arena_measuring(arena)) {
        return NULL;
    }
    CHECK(arena->used_bytes <= arena->capacity_bytes);
    return arena->memory + at;
}
