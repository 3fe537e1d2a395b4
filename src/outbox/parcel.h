/* SPDX-License-Identifier: MIT */
/* A message packed with all that is needed to send it: the same bytes stand in the window and in the spool
 * (doc/spool-format.md, "A message's payload"), so that going from one to the other is a copy.
 *
 * Invariant: what parcel_pack wrote parcel_open reads back, part by part, and the parts fill the bytes exactly; nothing
 * in them points anywhere, so they may be moved. Pure. Memory: the caller's. Thread: any one. */
#ifndef POSTERN_OUTBOX_PARCEL_H
#define POSTERN_OUTBOX_PARCEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "outbox.h"
#include "span.h"

struct envelope_body;

enum { PARCEL_HEAD_BYTES = 32, PARCEL_ID_BYTES_MAX = 128 };

struct parcel {
    int64_t received_wall_ms;
    struct outbox_origin origin;
    struct span queue;
    struct span client_id;
    struct span type;
    struct span id; /* never empty */
    struct span body;
    bool is_id_made; /* by the gateway, because the client gave none */
};

/* Packs a message: `parcel` says all but the body, which is written by envelope_write_body. Returns the bytes used.
 * The parts keep to their limits. CHECKs that none is empty and that capacity_bytes is enough; the content's bytes
 * and OUTBOX_OVERHEAD_BYTES_MAX, less those of a record, always are. */
size_t parcel_pack(uint8_t *bytes, size_t capacity_bytes, const struct parcel *parcel,
                   const struct envelope_body *body);

/* The parts, which point into `bytes`. False when these are not a parcel. */
bool parcel_open(struct span bytes, struct parcel *parcel);

/* Of a parcel that an earlier start packed: its connection is none of this start's. */
void parcel_forget_origin(uint8_t *bytes);

/* The client's own id; empty if it gave none. */
static inline struct span parcel_given_id(const struct parcel *parcel)
{
    return parcel->is_id_made ? span_of(NULL, 0) : parcel->id;
}

#endif
