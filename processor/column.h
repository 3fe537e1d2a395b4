/* SPDX-License-Identifier: MIT */
/* One array parameter of a PostgreSQL statement in the binary format (array_recv, text_recv, jsonb_recv and
 * timestamptz_recv of the server say how): a column of a batch.
 *
 * Invariant: between column_begin and column_end each add appends one element whole, or returns false and nothing
 * has changed. Memory: from the arena. Thread: the loop's. */
#ifndef POSTERN_PROCESSOR_COLUMN_H
#define POSTERN_PROCESSOR_COLUMN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "span.h"

struct arena;

/* The server's numbers for the element types, and for arrays of them. */
enum {
    COLUMN_TEXT = 25,
    COLUMN_TEXT_ARRAY = 1009,
    COLUMN_JSONB = 3802,
    COLUMN_JSONB_ARRAY = 3807,
    COLUMN_TIMESTAMPTZ = 1184,
    COLUMN_TIMESTAMPTZ_ARRAY = 1185,
    COLUMN_INT8 = 20
};

/* What an array and each of its elements cost beyond the element's bytes. */
enum { COLUMN_HEADER_BYTES = 20, COLUMN_ELEMENT_BYTES = 4, COLUMN_JSONB_BYTES = 1, COLUMN_TIME_BYTES = 8 };

struct column {
    uint8_t *data;
    size_t capacity_bytes;
    size_t used_bytes;
    uint32_t element_type;
    uint32_t count;
    bool has_null;
};

/* `capacity_bytes` counts the header too. */
void column_init(struct column *column, struct arena *arena, const char *what, size_t capacity_bytes,
                 uint32_t element_type);

void column_begin(struct column *column);
bool column_add_text(struct column *column, struct span text);
bool column_add_jsonb(struct column *column, struct span json);
/* Unix time in ms. */
bool column_add_time(struct column *column, int64_t unix_ms);
bool column_add_null(struct column *column);

/* Completes the header; the array is data[0 .. used_bytes). At least one element was added. */
void column_end(struct column *column);

#endif
