/* SPDX-License-Identifier: MIT */
/* What comes down to the clients: the consuming connection to RabbitMQ, its queue, and a binding for each client that
 * is here.
 *
 * The queue `postern.gateway.{GATEWAY_ID}` gets receipts under the key gateway.{GATEWAY_ID} and backend messages
 * under client.{client_id}. Each message is handed to the handler and acknowledged at the end of the turn, many with
 * one ack, so after it lies in its client's send queue.
 *
 * Invariants: on an open channel the broker is asked to bind every connected client, at most
 * DOWNLINK_OUTSTANDING_MAX questions at a time; binds go first, so that who is here does not wait for those who left,
 * and nobody who came back is unbound. A binding whose unbind was lost (a restart, a full ring) is unbound when
 * something arrives for a client that is not here. Now and then the queue's consumers are counted: another one is a
 * gateway with the same GATEWAY_ID, which takes every second message. What waited in the queue while there was no
 * gateway is left there until clients had DOWNLINK_GRACE_MS to come back. Memory: fixed, from the arena. Thread: the
 * loop's. */
#ifndef POSTERN_GATEWAY_DOWNLINK_H
#define POSTERN_GATEWAY_DOWNLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amqp_link.h"
#include "amqp_topology.h"
#include "arena.h"
#include "limits.h"
#include "log.h"
#include "port.h"
#include "repeats.h"
#include "session.h"
#include "span.h"

enum {
    DOWNLINK_STEPS = 4,

    /* Binds and unbinds asked and not yet answered: the broker does them one after another with a transaction each,
     * and acks wait behind them. */
    DOWNLINK_OUTSTANDING_MAX = 32,

    /* Unacknowledged deliveries: what a half-open connection can hold back. */
    DOWNLINK_PREFETCH = 100,

    /* After a start, before the first message is consumed: clients whose gateway went away try again within a second or
     * a few. */
    DOWNLINK_GRACE_MS = 5000,

    /* The consumers are counted every so many heartbeats: after two of them the broker has forgotten a link of ours
     * that was cut. So often in a row another one is a gateway. */
    DOWNLINK_COUNT_HEARTBEATS = 3,
    DOWNLINK_CROWDED_TIMES = 2,

    DOWNLINK_EXPIRES_MS = 3600000,     /* without a gateway for so long, the queue goes */
    DOWNLINK_MESSAGE_TTL_MS = 3600000, /* no message outlives the queue's patience */
    DOWNLINK_LENGTH_MAX = 100000,      /* the oldest are dropped beyond */

    DOWNLINK_NAME_BYTES_MAX = sizeof("postern.gateway.") + GATEWAY_ID_BYTES_MAX
};

struct downlink_handler {
    /* The queue stands, or cannot be had for now (which is logged): told once, at the first of either. What is
     * published before the queue stands may be answered before receipts have a place to go. */
    void (*on_settled)(void *context);
    /* A message for a client that is here; the body is as it came. */
    void (*on_message)(void *context, struct session *session, struct span body);
    /* A batch of receipts. */
    void (*on_receipts)(void *context, struct span body);
};

struct downlink_options {
    const char *program;    /* "postern-gateway" */
    const char *gateway_id; /* stays alive */
    const struct amqp_brokers *brokers;
    uint32_t heartbeat_s;
    uint64_t token; /* the poller's */
    size_t message_bytes_max;
};

/* A client whose binding is to be taken back. */
struct downlink_unbind {
    uint8_t client_id[CLIENT_ID_BYTES_MAX];
    uint8_t client_id_bytes;
};

struct downlink {
    struct amqp_link *link;
    struct log *log;
    struct session_table *sessions;
    struct downlink_handler handler;
    void *context;

    struct amqp_topology topology;
    struct amqp_step steps[DOWNLINK_STEPS];
    char queue_name[DOWNLINK_NAME_BYTES_MAX];
    char gateway_key[DOWNLINK_NAME_BYTES_MAX];
    struct amqp_topology consumer; /* the one step that follows, when it may */
    struct amqp_step consumer_step;
    bool standing;         /* the topology stands on the present channel */
    bool consumer_asked;   /* likewise */
    bool consuming;        /* likewise */
    uint64_t count_due_ms; /* with consuming: when the consumers are counted next */
    uint64_t count_wait_ms;
    uint32_t crowded_count; /* in a row there was another consumer */
    bool settled;           /* on_settled was told */
    uint64_t hold_until_ms; /* nothing is consumed before */
    struct repeats told;
    uint64_t absent_count; /* messages for clients that were not here */

    uint64_t handed_tag; /* the last delivery that was handed on */
    uint64_t acked_tag;
    uint32_t outstanding_count; /* binds and unbinds asked and not answered */

    uint32_t wanted_first; /* sessions with SESSION_BINDING_WANTED, by index, oldest first */
    uint32_t wanted_last;
    struct downlink_unbind *unbinds; /* a ring */
    uint32_t unbind_capacity;
    uint32_t unbind_first;
    uint32_t unbind_count;
};

/* Takes its memory; does nothing else while the arena measures. All that is pointed at stays alive. */
void downlink_init(struct downlink *downlink, struct arena *arena, struct port *port, struct log *log,
                   struct session_table *sessions, const struct downlink_options *options,
                   const struct downlink_handler *handler, void *context);

void downlink_start(struct downlink *downlink, uint64_t now_ms);

/* The link's events, as in amqp_link.h. */
void downlink_on_event(struct downlink *downlink, uint32_t ready, uint64_t now_ms);
bool downlink_on_job(struct downlink *downlink, const struct port_job *job, uint64_t now_ms);

/* At the end of each turn: acks, unbinds, binds, one send, and what is due. Returns when the next turn is due at the
 * latest. */
uint64_t downlink_turn(struct downlink *downlink, uint64_t now_ms);

/* A session began (with SESSION_BINDING_NONE; one that took over has its binding already), or is about to end. */
void downlink_client_came(struct downlink *downlink, struct session *session);
void downlink_client_left(struct downlink *downlink, struct session *session);

/* Another gateway consumes this one's queue. */
bool downlink_is_shared(const struct downlink *downlink);

/* Acknowledges and closes the link in good order; downlink_closed says when that is done. */
void downlink_close(struct downlink *downlink, uint64_t now_ms);
bool downlink_closed(const struct downlink *downlink);

/* Gives back what the AMQP library allocated; the downlink is dead after it. */
void downlink_release(struct downlink *downlink);

#endif
