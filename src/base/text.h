/* SPDX-License-Identifier: MIT */
/* Writes text into a buffer of fixed size without ever passing its end.
 *
 * Invariant: used <= capacity. A piece that does not fit is left out whole and `truncated` stays set, so that a
 * caller appends all it has and asks once. No terminator is written. Memory: the caller's. Thread: any one. */
#ifndef POSTERN_BASE_TEXT_H
#define POSTERN_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "span.h"

struct text {
    char *data;
    size_t capacity_bytes;
    size_t used_bytes;
    bool truncated;
};

static inline struct text text_in(void *buffer, size_t capacity_bytes)
{
    return (struct text){(char *)buffer, capacity_bytes, 0, false};
}

static inline struct span text_span(const struct text *text)
{
    return span_of(text->data, text->used_bytes);
}

void text_bytes(struct text *text, struct span bytes);
void text_string(struct text *text, const char *string);
void text_char(struct text *text, char character);
void text_u64(struct text *text, uint64_t value);
void text_i64(struct text *text, int64_t value);

/* Unix time in ms as RFC 3339 in UTC: 2026-11-23T07:21:11.839Z. Years 1970 to 9999. */
void text_rfc3339(struct text *text, int64_t unix_ms);

/* The bytes as a JSON string with its quotes (RFC 8259 section 7); bytes that are not UTF-8 become U+FFFD. */
void text_json_string(struct text *text, struct span bytes);

#endif
