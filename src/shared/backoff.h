/* SPDX-License-Identifier: MIT */
/* How long to wait before the next attempt: exponential, with full jitter, so that many who lost the same peer do not
 * come back at once.
 *
 * Invariant: each wait is between 1 and min(max_ms, base_ms x 2^attempts) ms. Memory: the caller's. Thread: any one. */
#ifndef POSTERN_SHARED_BACKOFF_H
#define POSTERN_SHARED_BACKOFF_H

#include <stdint.h>

struct backoff {
    uint32_t base_ms;
    uint32_t max_ms;
    uint32_t ceiling_ms; /* of the next wait */
};

/* 1 <= base_ms <= max_ms. */
void backoff_init(struct backoff *backoff, uint32_t base_ms, uint32_t max_ms);

/* The wait before the next attempt, in ms; `random` is any 64 uniform random bits. */
uint32_t backoff_next_ms(struct backoff *backoff, uint64_t random);

/* After proof of health: the next wait is short again. */
void backoff_reset(struct backoff *backoff);

#endif
