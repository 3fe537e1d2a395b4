/* SPDX-License-Identifier: MIT */
/* An array is: dimensions (1), has-null flag, element type, element count, lower bound (1), all 32 bits, big-endian;
 * then for each element its length (-1: null) and its bytes. A jsonb is a version byte (1) and the text; a
 * timestamptz is microseconds since 2000-01-01 UTC in 64 bits. */
#include "column.h"

#include "arena.h"
#include "check.h"

enum { JSONB_VERSION = 1 };
#define NULL_LENGTH UINT32_MAX
#define EPOCH_2000_UNIX_MS INT64_C(946684800000)

static void write_u32(uint8_t *to, uint32_t value)
{
    to[0] = (uint8_t)(value >> 24);
    to[1] = (uint8_t)(value >> 16);
    to[2] = (uint8_t)(value >> 8);
    to[3] = (uint8_t)value;
}

void column_init(struct column *column, struct arena *arena, const char *what, size_t capacity_bytes,
                 uint32_t element_type)
{
    CHECK(capacity_bytes >= COLUMN_HEADER_BYTES);
    column->data = arena_take(arena, what, 1, capacity_bytes);
    column->capacity_bytes = capacity_bytes;
    column->element_type = element_type;
    column_begin(column);
}

void column_begin(struct column *column)
{
    column->used_bytes = COLUMN_HEADER_BYTES;
    column->count = 0;
    column->has_null = false;
}

/* Room for an element of that length, its length written; NULL when it does not fit. */
static uint8_t *element(struct column *column, size_t bytes)
{
    if (bytes > INT32_MAX || column->capacity_bytes - column->used_bytes < COLUMN_ELEMENT_BYTES + bytes) {
        return NULL;
    }
    uint8_t *const at = column->data + column->used_bytes;
    write_u32(at, (uint32_t)bytes);
    column->used_bytes += COLUMN_ELEMENT_BYTES + bytes;
    column->count++;
    return at + COLUMN_ELEMENT_BYTES;
}

bool column_add_text(struct column *column, struct span text)
{
    CHECK(column->element_type == COLUMN_TEXT);
    uint8_t *const to = element(column, text.bytes);
    if (to == NULL) {
        return false;
    }
    if (text.bytes > 0) {
        memcpy(to, text.data, text.bytes);
    }
    return true;
}

bool column_add_jsonb(struct column *column, struct span json)
{
    CHECK(column->element_type == COLUMN_JSONB);
    uint8_t *const to = element(column, json.bytes + COLUMN_JSONB_BYTES);
    if (to == NULL) {
        return false;
    }
    to[0] = JSONB_VERSION;
    if (json.bytes > 0) {
        memcpy(to + COLUMN_JSONB_BYTES, json.data, json.bytes);
    }
    return true;
}

bool column_add_time(struct column *column, int64_t unix_ms)
{
    CHECK(column->element_type == COLUMN_TIMESTAMPTZ);
    uint8_t *const to = element(column, COLUMN_TIME_BYTES);
    if (to == NULL) {
        return false;
    }
    const uint64_t microseconds = (uint64_t)((unix_ms - EPOCH_2000_UNIX_MS) * 1000);
    write_u32(to, (uint32_t)(microseconds >> 32));
    write_u32(to + 4, (uint32_t)microseconds);
    return true;
}

bool column_add_null(struct column *column)
{
    if (column->capacity_bytes - column->used_bytes < COLUMN_ELEMENT_BYTES) {
        return false;
    }
    write_u32(column->data + column->used_bytes, NULL_LENGTH);
    column->used_bytes += COLUMN_ELEMENT_BYTES;
    column->count++;
    column->has_null = true;
    return true;
}

void column_end(struct column *column)
{
    CHECK(column->count > 0);
    write_u32(column->data, 1);
    write_u32(column->data + 4, column->has_null ? 1 : 0);
    write_u32(column->data + 8, column->element_type);
    write_u32(column->data + 12, column->count);
    write_u32(column->data + 16, 1);
}
