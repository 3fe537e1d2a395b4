/* SPDX-License-Identifier: MIT */
/* Which receipts a client asked for, with `?receipts=accepted,queued,stored` or `?receipts=none` in its URL.
 * `rejected` and `dead` always come and have no bit. Memory: none. Thread: any one. */
#ifndef POSTERN_SESSION_RECEIPTS_H
#define POSTERN_SESSION_RECEIPTS_H

#include <stdbool.h>
#include <stdint.h>

#include "receipt.h"
#include "span.h"

enum {
    RECEIPTS_ACCEPTED = 1u << RECEIPT_ACCEPTED,
    RECEIPTS_QUEUED = 1u << RECEIPT_QUEUED,
    RECEIPTS_STORED = 1u << RECEIPT_STORED,
    /* Where the URL says nothing. `accepted` exists only while the broker cannot take the message. */
    RECEIPTS_DEFAULT = RECEIPTS_ACCEPTED | RECEIPTS_QUEUED | RECEIPTS_STORED
};

/* Reads the query of the URL (what follows '?', raw; may be empty): '&' between parameters, of which all but the last
 * `receipts` are ignored; its commas may be percent-encoded, as browsers do. False when it names anything else than
 * the three, or `none` beside another. */
bool receipts_parse(struct span query, uint8_t *mask);

/* Whether a receipt with that status is to be sent. */
static inline bool receipts_want(uint8_t mask, enum receipt_status status)
{
    return status == RECEIPT_REJECTED || status == RECEIPT_DEAD || (mask & 1u << status) != 0;
}

#endif
