/* SPDX-License-Identifier: MIT */
/* A second reading of the messages in a broker's stream (AMQP 0-9-1 sections 2.3.5 and 4.2), for comparison: the whole
 * stream is there, and what is read is left where it lies, but for bodies.
 *
 * Memory: the caller's. Thread: any one. */
#ifndef POSTERN_TESTS_AMQP_MODEL_H
#define POSTERN_TESTS_AMQP_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amqp_link.h"
#include "fuzz.h"

struct amqp_model_message {
    bool is_return;
    uint16_t code; /* of a return */
    struct span text;
    bool redelivered;
    uint64_t tag;
    struct span exchange;
    struct span routing_key;
    struct span content_type;
    struct span correlation_id;
    struct span reply_to;
    struct span message_id;
    struct span type;
    struct span app_id;
    uint64_t timestamp_s;
    struct span headers; /* the table, without its length */
    uint64_t body_bytes;
    size_t kept_bytes;
    uint8_t kept[2 * FUZZ_INPUT_BYTES_MAX];
};

/* Reads the next message that is whole and stands at or behind *at, which goes behind it. False: there is none. */
bool amqp_model_next(struct span stream, size_t *at, struct amqp_model_message *message);

/* The table's entry behind *at that is a text, an integer or a time. False: there is none. */
bool amqp_model_header(struct span table, size_t *at, struct amqp_header *header);

#endif
