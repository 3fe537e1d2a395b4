/* SPDX-License-Identifier: MIT */
/* The gaps are differences of whole seconds, so their sum is exact; one that does not fit a byte is over a minute
 * anyway. Nine known errors have eight gaps between them, and the tenth adds its own. */
#include "rate.h"

bool rate_error(struct rate *rate, uint64_t now_ms)
{
    enum { GAP_COUNT = RATE_ERRORS_MAX - 2 };
    uint32_t now_s = (uint32_t)(now_ms / 1000);
    if (rate->count == 0) {
        rate->count = 1;
        rate->last_s = now_s;
        return false;
    }
    uint32_t gap_s = now_s - rate->last_s;
    rate->last_s = now_s;
    bool full = rate->count == RATE_ERRORS_MAX - 1;
    if (full) {
        uint32_t span_s = gap_s < UINT8_MAX ? gap_s : UINT8_MAX;
        for (unsigned index = 0; index < GAP_COUNT; index++) {
            span_s += rate->gaps_s[index];
        }
        if (span_s < RATE_WINDOW_S) {
            return true;
        }
    } else {
        rate->count++;
    }
    rate->gaps_s[rate->next] = (uint8_t)(gap_s < UINT8_MAX ? gap_s : UINT8_MAX);
    rate->next = (uint8_t)((rate->next + 1) % GAP_COUNT);
    return false;
}
