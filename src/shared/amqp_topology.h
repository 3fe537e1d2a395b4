/* SPDX-License-Identifier: MIT */
/* What a channel needs before it is of use (queues, exchanges, bindings, prefetch, consumers), as a list of steps done
 * one after another each time the channel opens.
 *
 * A queue is first declared passively: one that exists is used as it is, whatever its arguments; one that does not is
 * then created durable with the arguments of the step. (The broker answers a passive declare of a missing queue by
 * closing the channel; the link opens it again and the steps start over, this time creating.)
 *
 * Invariant: DONE and FAILED are reached once for each amqp_topology_on_channel. After FAILED (logged with cause and
 * remedy) the link is already told to reconnect, so the steps are tried again after its backoff. Memory: the
 * caller's; the steps stay alive. Thread: the loop's. */
#ifndef POSTERN_SHARED_AMQP_TOPOLOGY_H
#define POSTERN_SHARED_AMQP_TOPOLOGY_H

#include <stddef.h>
#include <stdint.h>

#include "amqp_link.h"
#include "repeats.h"

enum { AMQP_STEPS_MAX = 64 }; /* one bit each says "create it" */

enum amqp_step_kind { AMQP_STEP_QUEUE, AMQP_STEP_EXCHANGE, AMQP_STEP_BIND, AMQP_STEP_QOS, AMQP_STEP_CONSUME };

struct amqp_step {
    enum amqp_step_kind kind;
    uint16_t prefetch_count;   /* QOS */
    struct amqp_queue queue;   /* QUEUE: all of it; BIND, CONSUME: its name */
    struct span exchange;      /* EXCHANGE, BIND */
    const char *exchange_type; /* EXCHANGE: "topic"; durable */
    struct span routing_key;   /* BIND */
    struct span consumer_tag;  /* CONSUME */
};

enum amqp_topology_status {
    AMQP_TOPOLOGY_PENDING, /* an answer is awaited */
    AMQP_TOPOLOGY_DONE,    /* this answer was the last */
    AMQP_TOPOLOGY_FAILED,  /* logged; the link reconnects */
    AMQP_TOPOLOGY_IDLE     /* the steps were done before: the event is not ours but the owner's */
};

struct amqp_topology {
    struct amqp_link *link;
    struct log *log;
    const struct amqp_step *steps;
    size_t step_count;
    size_t step_index;    /* the one whose answer is awaited; step_count: none */
    uint64_t create_mask; /* by step: it does not exist, create it */
    uint32_t race_count;  /* creations that another was quicker with, in a row */
    struct repeats told;
};

/* step_count is 1 to AMQP_STEPS_MAX. */
void amqp_topology_init(struct amqp_topology *topology, struct amqp_link *link, struct log *log,
                        const struct amqp_step *steps, size_t step_count);

/* From the handler's on_channel: begins with the first step. */
void amqp_topology_on_channel(struct amqp_topology *topology);

/* From the handler's on_reply. Answers that come after DONE (the owner's own binds) give IDLE. */
enum amqp_topology_status amqp_topology_on_reply(struct amqp_topology *topology, const struct amqp_reply *reply);

/* From the handler's on_channel_closed: PENDING when the steps go on with the next channel, FAILED when they cannot,
 * IDLE when all had been done (something the owner did closed the channel). */
enum amqp_topology_status amqp_topology_on_channel_closed(struct amqp_topology *topology, uint16_t code,
                                                          struct span text);

#endif
