/* SPDX-License-Identifier: MIT */
/* What became of a message, and the batch in which the processor tells a gateway.
 *
 * One AMQP message to the gateway's routing key (content_type application/json, type `receipts`) carries many:
 * {"receipts":[{"client_id":"dev-7","id":"m1","ref":"…","status":"stored"},{…,"status":"rejected","code":"…",
 * "reason":"…"}]}. Every value is a string of printable ASCII without quotes or backslashes, so that neither side
 * decodes or escapes anything.
 *
 * Invariant: what the writer makes, the reader reads; a batch is at most RECEIPT_BATCH_BYTES. Memory: the caller's
 * buffers; spans that are read point into the body. Thread: any one. */
#ifndef POSTERN_SHARED_RECEIPT_H
#define POSTERN_SHARED_RECEIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "span.h"
#include "text.h"

enum {
    RECEIPT_BATCH_BYTES = 128 * 1024,

    /* What a receipt's parts may hold, in bytes. `ref` is an AMQP short string. */
    RECEIPT_REF_BYTES_MAX = 255,
    RECEIPT_CODE_BYTES_MAX = 32,
    RECEIPT_REASON_BYTES_MAX = 200,
};

/* In the order in which a message goes through them; the last two end it. */
enum receipt_status { RECEIPT_ACCEPTED, RECEIPT_QUEUED, RECEIPT_STORED, RECEIPT_REJECTED, RECEIPT_DEAD };
enum { RECEIPT_STATUS_COUNT = RECEIPT_DEAD + 1 };

struct receipt {
    struct span client_id;
    struct span id;  /* empty: the client gave none */
    struct span ref; /* the correlation_id that came with the message, as it is; may be empty */
    enum receipt_status status;
    struct span code;   /* with rejected and dead: a word of a-z 0-9 _; may be empty */
    struct span reason; /* with rejected and dead: a word or a sentence; may be empty */
};

/* "accepted", "queued", … */
const char *receipt_status_name(enum receipt_status status);
bool receipt_status_from(struct span name, enum receipt_status *status);

/* Writing. */
struct receipt_batch {
    struct text text;
    size_t count;
};

/* Starts a batch in `buffer` (at least RECEIPT_ONE_BYTES_MAX; RECEIPT_BATCH_BYTES is what a gateway takes). */
void receipt_batch_begin(struct receipt_batch *batch, void *buffer, size_t capacity_bytes);

/* Adds one; false when the batch is full, which is then unchanged. client_id and id must be valid (envelope.h), code a
 * word. A reason that is too long is cut, and its bytes that are not allowed become '?' (quotes become '). A ref that
 * is too long or holds such bytes is left out: no ref of a gateway does. */
bool receipt_batch_add(struct receipt_batch *batch, const struct receipt *receipt);

/* Ends the batch and gives the body, which lies in the buffer. */
struct span receipt_batch_end(struct receipt_batch *batch);

enum {
    RECEIPT_ONE_BYTES_MAX = 1024 /* more than the longest receipt with the batch's frame around it */
};

/* Reading: strict about the members it knows, in any order; other members are skipped if they are strings. */
struct receipt_reader {
    struct span body;
    size_t offset; /* after RECEIPT_READ_BAD: where it is wrong */
    uint32_t state;
};

enum receipt_read {
    RECEIPT_READ_ONE, /* a receipt was read */
    RECEIPT_READ_END, /* the batch ended as it should */
    RECEIPT_READ_BAD  /* not a batch; the rest is unread, and what was read before is good */
};

void receipt_reader_begin(struct receipt_reader *reader, struct span body);
enum receipt_read receipt_read(struct receipt_reader *reader, struct receipt *out);

#endif
