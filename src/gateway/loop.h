/* SPDX-License-Identifier: MIT */
/* The order of one turn, and whose an event is. The functions are declared in gateway.h.
 *
 * Invariant: each watched socket's token carries its owner's tag. Memory: none. Thread: the loop's. */
#ifndef POSTERN_GATEWAY_LOOP_H
#define POSTERN_GATEWAY_LOOP_H

#include <stdint.h>

/* The highest byte of a poller's token. */
enum { LOOP_TAG_SERVER = 1, LOOP_TAG_OUTBOX = 2, LOOP_TAG_DOWNLINK = 3, LOOP_TAG_ADMIN = 4 };

enum { LOOP_LINK_WATCHES = 3 }; /* the two links' sockets and the listener */

static inline uint64_t loop_token(uint8_t tag)
{
    return (uint64_t)tag << 56;
}

#endif
