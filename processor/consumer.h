/* SPDX-License-Identifier: MIT */
/* Takes messages from the queue into the intake, and settles them.
 *
 * Consuming is switched on and off (consumer_want): off means that the consumer is cancelled, so that messages stay in
 * RabbitMQ, for others too. It begins only with an empty intake, so that no more than the prefetch is ever unsettled.
 *
 * Invariant: a delivery whose tag is not 0 belongs to the open channel. Memory: from the arena. Thread: the loop's. */
#ifndef POSTERN_PROCESSOR_CONSUMER_H
#define POSTERN_PROCESSOR_CONSUMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amqp_link.h"
#include "amqp_topology.h"
#include "intake.h"
#include "json.h"
#include "siphash.h"

struct arena;
struct log;
struct port;

enum { CONSUMER_STEPS = 2, CONSUMER_TAG_BYTES = sizeof("postern-") + 20 };

enum consumer_state {
    CONSUMER_AWAY,       /* no channel, or its queue is not declared yet */
    CONSUMER_IDLE,       /* could consume */
    CONSUMER_ASKED,      /* basic.consume sent */
    CONSUMER_ON,         /* deliveries come */
    CONSUMER_CANCELLING, /* basic.cancel sent, deliveries still come */
    CONSUMER_STATE_COUNT
};

struct consumer_handler {
    /* The channel is gone, and with it what was unsettled: it will be delivered again. All tags are 0 now. */
    void (*on_lost)(void *context);
    void *context;
};

struct consumer {
    struct amqp_link *link;
    struct log *log;
    struct amqp_topology topology;
    struct amqp_step steps[CONSUMER_STEPS];
    struct consumer_handler handler;
    enum consumer_state state;
    bool wanted;
    bool overflowed; /* a delivery found no room: off until the intake is empty */
    uint64_t consume_count;
    char tag[CONSUMER_TAG_BYTES]; /* of the last consume */
    struct intake intake;
    struct json json;
    uint64_t held_tag;   /* the lowest delivery that is kept unsettled; UINT64_MAX: none */
    uint64_t dead_count; /* deliveries that came in DELIVERY_DEAD, ever */
    uint64_t now_ms;     /* of the running entry */
};

struct consumer_options {
    const char *instance;
    const struct amqp_brokers *brokers;
    uint32_t heartbeat_s;
    uint64_t token;
    struct span queue; /* stays alive */
    const char *queue_type;
    uint16_t prefetch;
    size_t body_bytes_max;
    size_t intake_bytes;
    struct span id_prefix;       /* see intake.h; stays alive */
    struct siphash_key hash_key; /* random and secret */
};

/* Makes its own link ("consume"), which the caller starts, feeds with events and flushes. */
void consumer_init(struct consumer *consumer, struct arena *arena, struct port *port, struct log *log,
                   const struct consumer_options *options, const struct consumer_handler *handler);

/* The poller reported the link's token. */
void consumer_on_event(struct consumer *consumer, uint32_t ready, uint64_t now_ms);

/* Whether messages are wanted; takes effect with consumer_turn. */
void consumer_want(struct consumer *consumer, bool wanted);

/* Once a turn, after the events: acknowledges what is stored at the intake's front and lets it go, then switches
 * consuming on or off. `floor_tag`: the lowest tag that is still to be settled elsewhere, which "all up to here" must
 * not reach (UINT64_MAX: none). */
void consumer_turn(struct consumer *consumer, uint64_t floor_tag);

/* Acknowledges one delivery that has left the intake. False: no room now. */
bool consumer_ack(struct consumer *consumer, uint64_t tag);

/* Gives all that is undecided back to the queue and empties the intake. False when not all could be said now: call
 * again. */
bool consumer_give_back(struct consumer *consumer);

/* True when nothing is being delivered: cancelled, or no channel. */
static inline bool consumer_silent(const struct consumer *consumer)
{
    return consumer->state == CONSUMER_AWAY || consumer->state == CONSUMER_IDLE;
}

#endif
