/* SPDX-License-Identifier: MIT */
/* ASCII is passed over sixteen bytes at a time, and wider characters whole where all their bytes are there. What is
 * left, characters cut by the end of a piece and bad ones, goes byte by byte: a lead byte says how many bytes follow
 * and from what range the first of them must come (RFC 3629 section 4: that range is what shuts out overlong forms,
 * surrogates and what is above U+10FFFF); the others come from 80 to BF. */
#include "utf8.h"

#include <string.h>

/* How many leading bytes are ASCII. */
static size_t ascii_bytes(const uint8_t *data, size_t bytes)
{
    const uint64_t highs = UINT64_C(0x8080808080808080);
    size_t at = 0;
    while (bytes - at >= 16) {
        uint64_t words[2];
        memcpy(words, data + at, sizeof words);
        if (((words[0] | words[1]) & highs) != 0) {
            break;
        }
        at += 16;
    }
    while (at < bytes && data[at] < 0x80) {
        at++;
    }
    return at;
}

/* Begins a character with its lead byte, which is not ASCII. False when none begins so. */
static bool lead(struct utf8 *utf8, uint8_t byte)
{
    uint8_t pending = 0;
    uint8_t min = 0x80;
    uint8_t max = 0xBF;
    if (byte < 0xC2) {
        return false; /* a stray continuation, or C0 and C1, which only begin overlong forms */
    }
    if (byte < 0xE0) {
        pending = 1;
    } else if (byte < 0xF0) {
        pending = 2;
        if (byte == 0xE0) {
            min = 0xA0;
        } else if (byte == 0xED) {
            max = 0x9F;
        }
    } else if (byte < 0xF5) {
        pending = 3;
        if (byte == 0xF0) {
            min = 0x90;
        } else if (byte == 0xF4) {
            max = 0x8F;
        }
    } else {
        return false;
    }
    *utf8 = (struct utf8){pending, min, max, false};
    return true;
}

static bool continues(uint8_t byte)
{
    return (byte & 0xC0) == 0x80;
}

/* The length of the good character of two to four bytes at `at`, of which four can be read; 0 when it is none. */
static size_t wide_bytes(const uint8_t *at)
{
    uint32_t first = at[0];
    if (!continues(at[1])) {
        return 0;
    }
    if (first < 0xE0) {
        return first >= 0xC2 ? 2 : 0;
    }
    uint32_t first_two = first << 8 | at[1];
    if (!continues(at[2])) {
        return 0;
    }
    if (first < 0xF0) {
        bool overlong = first_two < 0xE0A0;
        bool surrogate = first_two >= 0xEDA0 && first_two <= 0xEDBF;
        return overlong || surrogate ? 0 : 3;
    }
    return continues(at[3]) && first_two >= 0xF090 && first_two <= 0xF48F ? 4 : 0;
}

/* How many leading bytes are good characters, as far as one can tell without leaving the bytes. */
static size_t good_bytes(const uint8_t *data, size_t bytes)
{
    size_t at = 0;
    do {
        at += ascii_bytes(data + at, bytes - at);
        size_t wide = 0;
        do {
            at += wide;
            wide = bytes - at >= 4 && data[at] >= 0x80 ? wide_bytes(data + at) : 0;
        } while (wide != 0);
    } while (at < bytes && data[at] < 0x80);
    return at;
}

/* Feeds the bytes and returns how many of them lie before the last place where a character ended (0 when none of this
 * piece did). */
static size_t scan(struct utf8 *utf8, const uint8_t *data, size_t bytes)
{
    struct utf8 state = *utf8;
    size_t at = 0;
    size_t boundary = 0;
    while (at < bytes) {
        if (state.pending_bytes == 0) {
            at += good_bytes(data + at, bytes - at);
            boundary = at;
            if (at == bytes) {
                break;
            }
            if (!lead(&state, data[at])) {
                state.failed = true;
                break;
            }
            at++;
        } else {
            uint8_t byte = data[at];
            if (byte < state.next_min || byte > state.next_max) {
                state.failed = true;
                break;
            }
            state.next_min = 0x80;
            state.next_max = 0xBF;
            state.pending_bytes--;
            at++;
            if (state.pending_bytes == 0) {
                boundary = at;
            }
        }
    }
    *utf8 = state;
    return boundary;
}

bool utf8_feed(struct utf8 *utf8, const uint8_t *data, size_t bytes)
{
    if (utf8->failed) {
        return false;
    }
    (void)scan(utf8, data, bytes);
    return !utf8->failed;
}

bool utf8_valid(struct span bytes)
{
    struct utf8 utf8;
    utf8_init(&utf8);
    return utf8_feed(&utf8, bytes.data, bytes.bytes) && utf8_complete(&utf8);
}

size_t utf8_valid_bytes(struct span bytes)
{
    struct utf8 utf8;
    utf8_init(&utf8);
    return scan(&utf8, bytes.data, bytes.bytes);
}
