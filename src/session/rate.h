/* SPDX-License-Identifier: MIT */
/* Counts a client's errors: the tenth within a minute is one too many.
 *
 * Exact over a sliding minute, to the second: the times of the last nine are kept as the gaps between them.
 * Zeroed is empty. Memory: the caller's, 16 bytes. Thread: any one. */
#ifndef POSTERN_SESSION_RATE_H
#define POSTERN_SESSION_RATE_H

#include <stdbool.h>
#include <stdint.h>

enum { RATE_ERRORS_MAX = 10, RATE_WINDOW_S = 60 };

struct rate {
    uint32_t last_s;
    uint8_t count; /* errors known of, at most RATE_ERRORS_MAX - 1 */
    uint8_t next;  /* where the next gap goes */
    uint8_t gaps_s[RATE_ERRORS_MAX - 2];
};

/* Notes an error at now_ms (monotonic). True when it is the tenth within the last minute. */
bool rate_error(struct rate *rate, uint64_t now_ms);

#endif
