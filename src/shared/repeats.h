/* SPDX-License-Identifier: MIT */
/* What failed how often, so that the same failure does not fill the log: it is told the first time, then at 2, 4, 8 ...
 * repeats, also when several failures take turns. When more kinds occur than there are places, the one longest known is
 * forgotten and will be news again.
 *
 * Invariant: none. Memory: the caller's, zeroed. Thread: any one. */
#ifndef POSTERN_SHARED_REPEATS_H
#define POSTERN_SHARED_REPEATS_H

#include <stddef.h>
#include <stdint.h>

#include "span.h"

enum { REPEATS_MAX = 16 };

struct repeats {
    uint32_t hashes[REPEATS_MAX];
    uint32_t counts[REPEATS_MAX];
    size_t next; /* the place to be forgotten first */
};

/* Counts a failure, named by a text, a number and a detail. Returns how often it was if it is to be told now, else 0.
 */
uint32_t repeats_due(struct repeats *repeats, const char *what, uint64_t number, struct span detail);

#endif
