/* SPDX-License-Identifier: MIT */
/* Small arithmetic that several rooms need.
 *
 * Memory: none. Thread: any. */
#ifndef POSTERN_BASE_NUMBER_H
#define POSTERN_BASE_NUMBER_H

#include <stdint.h>

static inline uint64_t number_smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t number_larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* The smallest power of two that is at least `count`; count is at most 2^63. */
static inline uint64_t number_power_of_two(uint64_t count)
{
    uint64_t power = 1;
    while (power < count) {
        power *= 2;
    }
    return power;
}

#endif
