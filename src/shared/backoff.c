/* SPDX-License-Identifier: MIT */
/* The ceiling doubles from base_ms to max_ms; a wait is uniform below it, taken from the random number's high bits by
 * a multiplication, which favours no wait. */
#include "backoff.h"

#include "check.h"

void backoff_init(struct backoff *backoff, uint32_t base_ms, uint32_t max_ms)
{
    CHECK(base_ms >= 1 && base_ms <= max_ms);
    *backoff = (struct backoff){base_ms, max_ms, base_ms};
}

uint32_t backoff_next_ms(struct backoff *backoff, uint64_t random)
{
    uint32_t ceiling_ms = backoff->ceiling_ms;
    backoff->ceiling_ms = ceiling_ms > backoff->max_ms / 2 ? backoff->max_ms : ceiling_ms * 2;
    return 1 + (uint32_t)(((random >> 32) * ceiling_ms) >> 32);
}

void backoff_reset(struct backoff *backoff)
{
    backoff->ceiling_ms = backoff->base_ms;
}
