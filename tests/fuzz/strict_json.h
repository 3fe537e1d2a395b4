/* SPDX-License-Identifier: MIT */
/* A second reading of strict JSON (shared/json.h says what that is), for comparison: by recursion, a character after
 * another, without a care for speed, and with nothing in common with json.c.
 *
 * Memory: static. Thread: one. */
#ifndef POSTERN_TESTS_STRICT_JSON_H
#define POSTERN_TESTS_STRICT_JSON_H

#include <stdbool.h>

#include "fuzz.h"

/* What the trace holds of a value, in the order of the text; strings (names too) with their characters as data, numbers
 * and words as they stand, containers at their end with their count of children and their text. */
enum strict_json_note {
    STRICT_JSON_OBJECT,
    STRICT_JSON_ARRAY,
    STRICT_JSON_STRING, /* its number: its bytes in the text, quotes included */
    STRICT_JSON_OTHER
};

enum strict_json_verdict {
    STRICT_JSON_RIGHT,
    STRICT_JSON_DUPLICATE, /* right, but for a member that is given twice */
    STRICT_JSON_WRONG
};

/* The verdict; `trace` (may be NULL) has the values of what is right, and has_nul tells whether a string holds U+0000.
 */
enum strict_json_verdict strict_json(struct span text, struct fuzz_trace *trace, bool *has_nul);

#endif
