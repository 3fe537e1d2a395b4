/* SPDX-License-Identifier: MIT */
/* Gathers receipts by the gateway they go to, so that one message carries many.
 *
 * Invariant: each group in use has another reply_to and holds at least one receipt. Memory: from the arena. Thread:
 * the loop's. */
#ifndef POSTERN_PROCESSOR_RECEIPT_GROUPS_H
#define POSTERN_PROCESSOR_RECEIPT_GROUPS_H

#include <stddef.h>
#include <stdint.h>

#include "receipt.h"
#include "span.h"

struct arena;

enum {
    RECEIPT_GROUPS = 16, /* gateways at once; with more of them, messages carry fewer receipts */
    REPLY_TO_BYTES_MAX = 255
};

struct receipt_group {
    struct receipt_batch batch;
    uint8_t *buffer; /* RECEIPT_BATCH_BYTES */
    uint8_t reply_to[REPLY_TO_BYTES_MAX];
    size_t reply_to_bytes;
    size_t count; /* of receipts */
};

struct receipt_groups {
    struct receipt_group groups[RECEIPT_GROUPS];
    size_t used_count;
    void (*send)(void *context, struct span reply_to, struct span body, size_t count);
    void *context;
};

/* `send` gets each batch and how many receipts it holds; its spans are dead when it returns. */
void receipt_groups_init(struct receipt_groups *groups, struct arena *arena,
                         void (*send)(void *context, struct span reply_to, struct span body, size_t count),
                         void *context);

/* Adds a receipt. One without a reply_to, or whose reply_to is no gateway's ("gateway.…": all else on the downlink
 * is a client's address), has nobody to go to and is left out. */
void receipt_groups_add(struct receipt_groups *groups, struct span reply_to, const struct receipt *receipt);

/* Sends all that has gathered. */
void receipt_groups_flush(struct receipt_groups *groups);

#endif
