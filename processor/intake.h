/* SPDX-License-Identifier: MIT */
/* The deliveries that are unsettled, in the order they came: a copy of each message with its properties, what was
 * read from it, and what has become of it.
 *
 * A delivery is named by its sequence, which counts from the program's start; those present are first to end - 1. Only
 * the first can leave. So a batch is a range of sequences, and "acknowledge all up to here" follows from the front.
 *
 * Invariant: a present delivery's spans point into the intake's own bytes, or are empty. Memory: from the arena.
 * Thread: the loop's. */
#ifndef POSTERN_PROCESSOR_INTAKE_H
#define POSTERN_PROCESSOR_INTAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amqp_link.h"
#include "byte_ring.h"
#include "limits.h"
#include "span.h"

struct arena;
struct json;

enum {
    INTAKE_DETAIL_BYTES_MAX = 200, /* of a sentence about what is wrong */

    /* The id made for a message that has none. */
    INTAKE_PREFIX_BYTES_MAX = 32,
    INTAKE_MADE_ID_BYTES_MAX = INTAKE_PREFIX_BYTES_MAX + 20,

    /* What a delivery takes beside its body: the names that were read, and the properties and headers that came. */
    INTAKE_NAMES_BYTES = CLIENT_ID_BYTES_MAX + MESSAGE_TYPE_BYTES_MAX + MESSAGE_ID_BYTES_MAX + GATEWAY_ID_BYTES_MAX +
                         INTAKE_MADE_ID_BYTES_MAX
};

enum delivery_state {
    DELIVERY_PENDING,  /* to be stored, or being stored */
    DELIVERY_DEAD,     /* to be handed to the dead letters: code and detail say why */
    DELIVERY_HANDED,   /* the dead letters have it, and settle it */
    DELIVERY_STORED,   /* committed: to be acknowledged */
    DELIVERY_REJECTED, /* the same, and its status is `rejected` */
    DELIVERY_DROPPED,  /* its channel is gone before it was decided: it will be delivered again */
    DELIVERY_STATE_COUNT
};

struct delivery {
    uint64_t tag;  /* the channel's; 0: that channel is closed, nothing is to be settled any more */
    uint64_t mark; /* the end of its bytes */
    uint64_t came_ms;
    enum delivery_state state;

    /* As it came. */
    struct span body;
    uint64_t body_bytes; /* of the whole; more than body.bytes: it is too long, and only its beginning is here */
    struct span content_type;
    struct span correlation_id;
    struct span reply_to;
    struct span property_id;
    struct span property_type;
    struct span app_id;
    uint64_t timestamp_s;
    const struct amqp_header *headers;
    size_t header_count;

    /* As it was read; empty where it could not be. */
    struct span client_id;
    struct span client_message_id; /* the client's own id; empty: it gave none */
    struct span message_id;        /* what it is stored under, and what logs call it */
    struct span type;
    struct span content;
    struct span gateway;
    int64_t received_unix_ms;
    bool has_received_at;

    /* Of a dead one. */
    const char *code; /* static: a word */
    char detail[INTAKE_DETAIL_BYTES_MAX];
    size_t detail_bytes;
};

struct intake {
    struct delivery *deliveries; /* a power of two of them */
    size_t capacity;
    size_t delivery_max;
    uint64_t first;
    uint64_t end;
    struct byte_ring bytes;
    struct span prefix; /* of the ids it makes */
    uint64_t made_count;
};

/* Room for delivery_max deliveries with `byte_count` bytes in all, of which each has a body of at most
 * body_bytes_max. `prefix` (1 to INTAKE_PREFIX_BYTES_MAX printable bytes, which stay alive) is different for every
 * start of a processor; made ids begin with it. */
void intake_init(struct intake *intake, struct arena *arena, size_t delivery_max, size_t byte_count,
                 struct span prefix);

/* What intake_init needs at least, so that an empty intake takes any message of that body. */
size_t intake_bytes_min(size_t body_bytes_max);

/* Copies and reads a message: the new last delivery, DELIVERY_PENDING or DELIVERY_DEAD. NULL when there is no room.
 * The message's identity is (client_id, message_id): the body's id; without one the AMQP message_id, from which a
 * leading "{client_id}:" is cut; without that either one made here, and then a message that is delivered again is
 * stored again. */
struct delivery *intake_take(struct intake *intake, const struct amqp_message *message, struct json *json,
                             uint64_t now_ms);

/* A present delivery. */
struct delivery *intake_at(struct intake *intake, uint64_t sequence);

/* Lets the first delivery go. */
void intake_pop(struct intake *intake);

/* Lets all deliveries from `sequence` on go. */
void intake_cut(struct intake *intake, uint64_t sequence);

/* PENDING to DEAD. `detail` is cut to INTAKE_DETAIL_BYTES_MAX. */
void delivery_condemn(struct delivery *delivery, const char *code, struct span detail);

/* To any other state, as the table in intake.c allows. */
void delivery_move(struct delivery *delivery, enum delivery_state state);

static inline size_t intake_count(const struct intake *intake)
{
    return (size_t)(intake->end - intake->first);
}

#endif
