/* SPDX-License-Identifier: MIT */
/* The leaves of JSON: strings, numbers and words, passed over byte by byte; json.c's part that knows no tokens.
 *
 * Invariant: at <= bytes; after an error `at` is the place of the error. Memory: the caller's. Thread: any one. */
#ifndef POSTERN_SHARED_JSON_SCAN_H
#define POSTERN_SHARED_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "json.h"

struct json_scan {
    const uint8_t *data;
    size_t bytes;
    size_t at;
    bool escaped; /* the last string held an escape */
    bool has_nul; /* some string held \u0000 */
};

/* From a string's opening quote to behind its closing one. */
enum json_error json_scan_string(struct json_scan *scan);

/* Whether eight bytes are ASCII, and neither control characters nor quotes nor backslashes. */
static inline bool json_word_plain(uint64_t word)
{
    const uint64_t ones = 0x0101010101010101U;
    uint64_t quote = word ^ (ones * '"');
    uint64_t backslash = word ^ (ones * '\\');
    uint64_t found = word | (word - ones * 0x20) | (quote - ones) | (backslash - ones);
    return (found & (ones * 0x80)) == 0;
}

/* True, and behind it, when the string that begins at scan->at ends with the quote at `end` and holds nothing but
 * ASCII without escapes or control characters; else nothing happens. scan->at < end < scan->bytes. */
static inline bool json_scan_plain(struct json_scan *scan, size_t end)
{
    size_t at = scan->at + 1;
    uint64_t word;
    while (end - at >= 8) {
        memcpy(&word, scan->data + at, 8);
        if (!json_word_plain(word)) {
            return false;
        }
        at += 8;
    }
    if (at < end) {
        /* The rest, filled up to a word with blanks. */
        memset(&word, ' ', 8);
        memcpy(&word, scan->data + at, end - at);
        if (!json_word_plain(word)) {
            return false;
        }
    }
    if (scan->data[end] != '"') {
        return false;
    }
    scan->at = end + 1;
    return true;
}

/* From the first byte of a number (a digit or '-') or of a word (t, f, n) to behind its last. */
enum json_error json_scan_primitive(struct json_scan *scan);

void json_scan_blanks(struct json_scan *scan);

/* Decodes what stands between the quotes of a string that json_scan_string found right. Writes at most `bytes` bytes
 * to `to` and returns how many. */
size_t json_decode(const uint8_t *from, size_t bytes, char *to);

#endif
