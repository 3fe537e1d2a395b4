/* SPDX-License-Identifier: MIT */
/* What the gateway says to a client: one JSON object a text frame, written into a buffer of
 * the caller's.
 *
 * Invariant: a buffer of REPLY_BYTES_MAX holds each of them. Memory: the caller's. Thread: any one. */
#ifndef POSTERN_SESSION_REPLIES_H
#define POSTERN_SESSION_REPLIES_H

#include <stdint.h>

#include "limits.h"
#include "receipt.h"
#include "span.h"
#include "text.h"

enum {
    /* Each byte of a reason takes at most six in JSON (\u001f); 256 more for the rest of the object. */
    REPLY_BYTES_MAX =
        6 * (RECEIPT_CODE_BYTES_MAX + RECEIPT_REASON_BYTES_MAX) + MESSAGE_ID_BYTES_MAX + CLIENT_ID_BYTES_MAX + 256
};

/* {"type":"connected","message":"Connected","client_id":…,"heartbeat":30,"max_message_bytes":16384} */
void reply_connected(struct text *text, struct span client_id, uint64_t heartbeat_s, uint64_t message_bytes_max);

/* {"type":"error","seq":12,"id":"m1","code":…,"error":…}; seq 0 and an empty id are left out. */
void reply_error(struct text *text, uint32_t seq, struct span id, struct span code, struct span sentence);

/* {"type":"receipt","seq":12,"id":"m1","status":…}, with "code" and "reason" where they are not empty; seq 0 and an
 * empty id are left out. */
void reply_receipt(struct text *text, uint32_t seq, struct span id, enum receipt_status status, struct span code,
                   struct span reason);

/* {"type":"busy","retry_after_ms":500} */
void reply_busy(struct text *text, uint32_t retry_after_ms);

void reply_ping(struct text *text); /* {"type":"ping"} */
void reply_pong(struct text *text); /* {"type":"pong"} */

#endif
