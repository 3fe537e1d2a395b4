/* SPDX-License-Identifier: MIT */
/* The memory table of --plan: the rows of an arena that measured, and what the program takes beside it. Memory: the
 * caller's. Thread: any one, at start. */
#ifndef POSTERN_SHARED_PLAN_H
#define POSTERN_SHARED_PLAN_H

#include <stddef.h>

#include "arena.h"
#include "text.h"

enum {
    PLAN_BYTES_MAX = 16384, /* of the written table */
    PLAN_PARTS_MAX = 8
};

/* A row that is not the arena's. */
struct plan_part {
    const char *what; /* static text */
    size_t count;
    size_t bytes_each;
};

struct plan {
    const struct arena *arena;
    struct plan_part parts[PLAN_PARTS_MAX];
    size_t part_count;
};

/* Begins a plan with the arena's rows; the arena stays alive. */
void plan_begin(struct plan *plan, const struct arena *arena);

void plan_add(struct plan *plan, const char *what, size_t count, size_t bytes_each);

/* The sum of all rows. */
size_t plan_total_bytes(const struct plan *plan);

/* What the spool holds, as lines behind the table: message_count messages of message_bytes of content each, and for how
 * many minutes that is enough at each of the rates (messages a second). */
void plan_write_spool(struct text *text, uint64_t message_count, uint32_t message_bytes, const uint64_t *rates,
                      size_t rate_count);

/* Writes the table: what, how many, bytes each, bytes in all, and the total. */
void plan_write(const struct plan *plan, struct text *text);

#endif
