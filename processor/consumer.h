/* SPDX-License-Identifier: MIT */
/* Takes messages from the queue into the intake, and settles them.
 *
 * Whatever ends it, messages that are not settled go back to the queue in their old order, because it is never the
 * consumer that is cancelled, but the connection that is closed. (RabbitMQ returns what is on its way to a cancelled
 * consumer message by message, behind later ones.)
 *
 * Acks take a while: RabbitMQ keeps those beyond 32 that its quorum queue has not taken yet back in the channel, and
 * forgets them when the connection ends, in good order or not; what they settled is delivered again. So who has
 * finished, and ends it, waits until consumer_acks_taken_ms.
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

enum { CONSUMER_STEP_QUEUE, CONSUMER_STEP_QOS, CONSUMER_STEPS };

enum {
    CONSUMER_STUCK_MS = 2000 /* dead letters that hold up consuming for so long are more than a delay */
};

enum consumer_state {
    CONSUMER_PARKED,  /* not connected, until messages are wanted */
    CONSUMER_AWAY,    /* no channel, or its queue is not declared yet */
    CONSUMER_IDLE,    /* could consume */
    CONSUMER_ASKED,   /* basic.consume sent */
    CONSUMER_ON,      /* deliveries come */
    CONSUMER_DEAF,    /* what still comes is left unsettled; what is in hand is finished */
    CONSUMER_PARTING, /* closing the connection */
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
    uint16_t prefetch_max;
    struct intake intake;
    struct json json;
    uint64_t dead_count;       /* deliveries that came in DELIVERY_DEAD, ever */
    uint64_t ack_ms;           /* of the last ack */
    uint64_t ack_burst;        /* acks up to it, without a pause between two */
    uint64_t taken_count;      /* deliveries of the present channel that the intake took */
    uint64_t unsettled_count;  /* and those of them that are not acknowledged, dead letters too */
    uint64_t round_begin;      /* the taken_count at which the present round began */
    uint64_t peak_bytes;       /* of the intake, in that round */
    uint64_t stuck_ms;         /* since when only dead letters are in hand and nothing more comes; UINT64_MAX: not so */
    uint64_t patient_until_ms; /* while that is so */
    uint64_t patience_ms;      /* the next time */
    uint64_t now_ms;           /* of the running entry */
};

struct consumer_options {
    const char *instance;
    const struct amqp_brokers *brokers;
    uint32_t heartbeat_s;
    uint64_t token;
    struct span queue; /* stays alive */
    const char *queue_type;
    uint16_t prefetch; /* at most */
    size_t body_bytes_max;
    size_t intake_bytes;
    struct span id_prefix;       /* see intake.h; stays alive */
    struct siphash_key hash_key; /* random and secret */
};

/* Makes its own link ("consume"), which the caller ticks and flushes. */
void consumer_init(struct consumer *consumer, struct arena *arena, struct port *port, struct log *log,
                   const struct consumer_options *options, const struct consumer_handler *handler);

/* Connects; consuming begins when messages are wanted, with an empty intake. */
void consumer_start(struct consumer *consumer, uint64_t now_ms);

/* The poller reported the link's token. */
void consumer_on_event(struct consumer *consumer, uint32_t ready, uint64_t now_ms);

/* Whether consuming may begin. Takes effect with consumer_turn, and ends nothing. */
void consumer_want(struct consumer *consumer, bool wanted);

/* Takes no more messages: for the program's end, after which consumer_part follows. */
void consumer_finish(struct consumer *consumer);

/* When the queue will have taken the acks that were given, in all likelihood; 0: they are too few to be kept back. */
uint64_t consumer_acks_taken_ms(const struct consumer *consumer);

/* Closes the connection, so that all that is unsettled goes back to the queue; on_lost follows. It connects again when
 * messages are wanted. */
void consumer_part(struct consumer *consumer, uint64_t now_ms);

/* Once a turn, after the events: acknowledges what is stored at the intake's front and lets it go, then begins or ends
 * what is due. `floor_tag`: the lowest tag that is still to be settled elsewhere, which "all up to here" must not
 * reach (UINT64_MAX: none). The link is to be ticked after it: it may have been started or closed. Returns when to call
 * again at the latest, UINT64_MAX: after an event. */
uint64_t consumer_turn(struct consumer *consumer, uint64_t floor_tag, uint64_t now_ms);

/* Acknowledges a delivery that has left the intake, because its dead letter is confirmed. False: no room now. */
bool consumer_ack(struct consumer *consumer, uint64_t tag, uint64_t now_ms);

/* RabbitMQ hands out no more before something is settled. */
static inline bool consumer_full(const struct consumer *consumer)
{
    return consumer->state == CONSUMER_ON &&
           consumer->unsettled_count >= consumer->steps[CONSUMER_STEP_QOS].prefetch_count;
}

/* Does the broker, which takes no dead letters, keep it from consuming? */
static inline bool consumer_stuck(const struct consumer *consumer, uint64_t now_ms)
{
    return consumer->stuck_ms != UINT64_MAX && now_ms - consumer->stuck_ms >= CONSUMER_STUCK_MS;
}

#endif
