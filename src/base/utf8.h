/* SPDX-License-Identifier: MIT */
/* Tells whether bytes are UTF-8 (RFC 3629), in pieces of any size.
 *
 * Invariant: what was fed so far is a prefix of valid UTF-8, or `failed` is set for good. The first byte that no
 * valid text can hold at its place fails, even when its character is not whole yet: overlong forms, surrogates and
 * what lies above U+10FFFF fail at the byte that makes them so. Memory: the caller's, 4 bytes, zero at the start.
 * Thread: any one. */
#ifndef POSTERN_BASE_UTF8_H
#define POSTERN_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "span.h"

struct utf8 {
    uint8_t pending_bytes; /* of the character begun; 0 between characters */
    uint8_t next_min;      /* range of the next byte while one is pending */
    uint8_t next_max;
    bool failed;
};

static inline void utf8_init(struct utf8 *utf8)
{
    *utf8 = (struct utf8){0, 0, 0, false};
}

/* Takes the next bytes. False as soon as they cannot belong to valid UTF-8, and ever after. */
bool utf8_feed(struct utf8 *utf8, const uint8_t *data, size_t bytes);

/* True when the text may end here: nothing failed and no character is cut. */
static inline bool utf8_complete(const struct utf8 *utf8)
{
    return !utf8->failed && utf8->pending_bytes == 0;
}

/* True when the bytes are UTF-8, whole. */
bool utf8_valid(struct span bytes);

/* How many leading bytes are whole, valid characters: bytes.bytes when all are. */
size_t utf8_valid_bytes(struct span bytes);

#endif
