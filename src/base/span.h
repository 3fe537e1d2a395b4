/* SPDX-License-Identifier: MIT */
/* Bytes that someone else owns: a pointer and a length, passed by value. An empty span may have a null pointer.
 *
 * Invariant: a span never outlives what it points into. Memory: none. Thread: that of the bytes. */
#ifndef POSTERN_BASE_SPAN_H
#define POSTERN_BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct span {
    const uint8_t *data;
    size_t bytes;
};

/* A string literal without its terminator, also as a constant initializer. */
#define SPAN(literal)                                                                                                  \
    {                                                                                                                  \
        (const uint8_t *)("" literal), sizeof(literal) - 1                                                             \
    }

static inline struct span span_of(const void *data, size_t bytes)
{
    return (struct span){(const uint8_t *)data, bytes};
}

static inline struct span span_text(const char *text)
{
    return (struct span){(const uint8_t *)text, strlen(text)};
}

static inline bool span_equal(struct span a, struct span b)
{
    return a.bytes == b.bytes && (a.bytes == 0 || memcmp(a.data, b.data, a.bytes) == 0);
}

static inline bool span_is(struct span a, const char *text)
{
    return span_equal(a, span_text(text));
}

#endif
