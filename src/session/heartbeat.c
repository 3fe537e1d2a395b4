/* SPDX-License-Identifier: MIT */
/* Two states: quiet, and pinged. A byte received after the ping leads back to quiet; nothing else has to be told to
 * this module, so reading a message costs it nothing. */
#include "heartbeat.h"

void heartbeat_reset(struct heartbeat *heartbeat, uint64_t now_ms)
{
    *heartbeat = (struct heartbeat){.mark_ms = now_ms};
}

struct heartbeat_decision heartbeat_decide(struct heartbeat *heartbeat, const struct heartbeat_settings *settings,
                                           uint64_t receive_ms, uint64_t now_ms)
{
    // A byte in the very millisecond of the ping counts as an answer: the doubt is the client's.
    if (heartbeat->pinged && receive_ms >= heartbeat->mark_ms) {
        *heartbeat = (struct heartbeat){.mark_ms = receive_ms};
    }
    if (heartbeat->pinged) {
        uint64_t end_ms = heartbeat->mark_ms + settings->timeout_ms;
        return (struct heartbeat_decision){now_ms >= end_ms ? HEARTBEAT_TIMED_OUT : HEARTBEAT_WAIT, end_ms};
    }
    uint64_t from_ms = receive_ms > heartbeat->mark_ms ? receive_ms : heartbeat->mark_ms;
    if (now_ms < from_ms + settings->interval_ms) {
        return (struct heartbeat_decision){HEARTBEAT_WAIT, from_ms + settings->interval_ms};
    }
    *heartbeat = (struct heartbeat){.mark_ms = now_ms, .pinged = true};
    return (struct heartbeat_decision){HEARTBEAT_PING, now_ms + settings->timeout_ms};
}
