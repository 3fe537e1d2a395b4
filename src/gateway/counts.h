/* SPDX-License-Identifier: MIT */
/* What the gateway's wiring counts for metrics, beside what each part counts for itself. Counting is adding: no call,
 * no clock. Memory: the gateway's struct. Thread: the loop's. */
#ifndef POSTERN_GATEWAY_COUNTS_H
#define POSTERN_GATEWAY_COUNTS_H

#include <stdint.h>

#include "envelope.h"
#include "metrics.h"
#include "receipt.h"
#include "routes.h"

/* How far a message of a client has come. */
enum counts_stage {
    COUNTS_TAKEN,
    COUNTS_ACCEPTED, /* on the disk */
    COUNTS_QUEUED,   /* confirmed by the broker */
    COUNTS_DROPPED,  /* the spool was full, and SPOOL_FULL is drop-oldest */
    COUNTS_STAGE_COUNT
};

/* Refusals beyond those of the handshake itself (server.h). */
enum counts_refusal {
    COUNTS_BAD_CLIENT_ID,
    COUNTS_BAD_RECEIPTS, /* the URL's receipts= */
    COUNTS_RESTARTING,
    COUNTS_ALREADY_CONNECTED,
    COUNTS_MAX_CONNECTIONS,
    COUNTS_REFUSAL_COUNT
};

enum { COUNTS_ROUTE_OTHER = ROUTES_QUEUES_MAX, COUNTS_ERRORS = ENVELOPE_NUL_CONTENT + 1 };

struct counts {
    uint64_t messages[ROUTES_QUEUES_MAX + 1][COUNTS_STAGE_COUNT]; /* by queue; the last: that ROUTES does not name */
    uint64_t bad_messages[COUNTS_ERRORS];                         /* by enum envelope_error */
    uint64_t unknown_types;
    uint64_t refused[COUNTS_REFUSAL_COUNT];
    uint64_t receipts[RECEIPT_STATUS_COUNT];
    uint64_t receipts_unheard; /* whose client is not here */
    uint64_t down_delivered;   /* backends' messages */
    uint64_t down_refused;     /* that a client cannot be sent */
    uint64_t down_lost;        /* whose client was closing */
    uint64_t busy_ms;          /* in episodes of pressure that are over */
    struct metrics_histogram turn_ns;
};

#endif
