/* SPDX-License-Identifier: MIT */
/* What the processor counts for metrics, beside what its links and its log count for themselves. Memory: the
 * processor's struct. Thread: the loop's. */
#ifndef POSTERN_PROCESSOR_TALLY_H
#define POSTERN_PROCESSOR_TALLY_H

#include <stddef.h>
#include <stdint.h>

#include "envelope.h"
#include "metrics.h"
#include "receipt.h"

enum { TALLY_OTHER_REASONS = 4, TALLY_REASONS = ENVELOPE_NUL_CONTENT + TALLY_OTHER_REASONS };

struct tally {
    struct metrics_histogram batch_rows;
    struct metrics_histogram insert_ns; /* from the hand-over of a batch until it is decided */
    struct metrics_histogram lag_ms;    /* from a gateway's taking of a message until its row is committed */
    struct metrics_histogram turn_ns;
    uint64_t rows_stored; /* these three together: all rows of committed batches */
    uint64_t rows_rejected;
    uint64_t rows_repeated; /* that were in the table before */
    uint64_t batches_refused;
    uint64_t dead[TALLY_REASONS];
    uint64_t receipts[RECEIPT_STATUS_COUNT];
    uint64_t database_connects;
    uint64_t database_losses;
};

void tally_init(struct tally *tally);

/* A message was handed to the dead letters, with one of the codes that there are. */
void tally_dead(struct tally *tally, const char *code);

/* The code at a place in `dead`. */
const char *tally_reason(size_t index);

#endif
