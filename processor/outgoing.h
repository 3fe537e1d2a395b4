/* SPDX-License-Identifier: MIT */
/* What the processor publishes, receipts and dead letters, kept until the broker has confirmed it.
 *
 * Everything is copied here first and published by outgoing_send, each kind in order; after a lost link or a nack it is
 * published again. A dead letter that is confirmed settles its delivery (the handler hears of it). Each of the two
 * kinds has room of its own, and neither waits for the other's confirms. A dead letter that finds no room waits;
 * receipts that find none are dropped and counted, because a broker in an alarm takes no publishes but must be relieved
 * of messages all the same.
 *
 * Invariant: a kind's items leave in order; each is unsent (publish_tag 0), out, or done. Memory: from the arena.
 * Thread: the loop's. */
#ifndef POSTERN_PROCESSOR_OUTGOING_H
#define POSTERN_PROCESSOR_OUTGOING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amqp_link.h"
#include "amqp_topology.h"
#include "byte_ring.h"

struct arena;
struct log;
struct port;

enum {
    OUTGOING_ITEMS_EACH = 512,         /* messages of receipts, and as many dead letters; a power of two */
    OUTGOING_RECEIPTS_BYTES = 4194304, /* some 30,000 receipts: a minute at 500 a second without the broker */
    OUTGOING_STEPS = 2
};

/* What a dead letter's confirm brings about. */
struct outgoing_dead {
    uint64_t tag;          /* of the delivery; 0: none, or its channel is gone */
    struct span client_id; /* empty: unknown, nobody can be told */
    struct span id;        /* the client's own, or empty */
    struct span ref;
    struct span reply_to;
    struct span reason;
    const char *code; /* static */
};

struct outgoing_item {
    struct amqp_publish message;
    struct outgoing_dead dead;
    bool is_abandoned; /* done without being published: its message will come again */
    bool done;
    uint64_t publish_tag;
    uint64_t retry_ms; /* after a nack: not before */
    uint64_t mark;
};

struct outgoing_handler {
    /* The dead letter is safe. False: no room to settle its delivery now, call again next turn. */
    bool (*on_dead)(void *context, const struct outgoing_dead *dead);
    void *context;
};

/* Of one kind. */
struct outgoing_queue {
    struct outgoing_item *items;
    uint64_t first;
    uint64_t end;
    struct byte_ring bytes;
};

struct outgoing {
    struct amqp_link *link;
    struct log *log;
    struct amqp_topology topology;
    struct amqp_step steps[OUTGOING_STEPS];
    struct outgoing_handler handler;
    struct outgoing_queue receipts;
    struct outgoing_queue dead_letters;
    bool is_ready;            /* queue and exchange are declared */
    uint64_t nacked_since_ms; /* UINT64_MAX: the last answer was an ack */
    uint64_t nacks_only_ms;   /* after so long a time of that: a new connection */
    uint64_t dropped_count;   /* receipts, ever */
    uint64_t dropped_logged_count;
    uint64_t dropped_logged_ms;
    uint64_t now_ms; /* of the running entry */
};

struct outgoing_options {
    const char *instance;
    const struct amqp_brokers *brokers;
    uint32_t heartbeat_s;
    uint64_t token;
    struct span dead_queue; /* stays alive */
    const char *queue_type;
    size_t message_bytes_max; /* the largest dead letter, properties and all */
};

/* Makes its own link ("publish"), which the caller starts, feeds with events and flushes. */
void outgoing_init(struct outgoing *outgoing, struct arena *arena, struct port *port, struct log *log,
                   const struct outgoing_options *options, const struct outgoing_handler *handler);

/* The poller reported the link's token. */
void outgoing_on_event(struct outgoing *outgoing, uint32_t ready, uint64_t now_ms);

/* So many receipts in one body, for the gateway of that routing key. Dropped when there is no room. */
void outgoing_receipts(struct outgoing *outgoing, struct span reply_to, struct span body, size_t count);

/* Does the broker take publishes, and confirm them? While it does not, receipts are better gathered: in full bodies
 * more find room. */
bool outgoing_flows(const struct outgoing *outgoing);

/* A dead letter; `message` names everything but the exchange, routing key and flags. False: no room now. */
bool outgoing_dead_letter(struct outgoing *outgoing, const struct amqp_publish *message,
                          const struct outgoing_dead *dead);

/* Settles the dead letters that are confirmed, which makes room for others. */
void outgoing_settle(struct outgoing *outgoing);

/* Publishes what is unsent. Returns when to call again at the latest. */
uint64_t outgoing_send(struct outgoing *outgoing, uint64_t now_ms);

/* The consuming channel is gone: no dead letter has a delivery to settle any more. Each of their messages comes again,
 * so those that are not published yet are left to that. */
void outgoing_forget_tags(struct outgoing *outgoing);

/* The lowest tag that a dead letter has still to settle; UINT64_MAX when there is none. */
uint64_t outgoing_lowest_tag(const struct outgoing *outgoing);

/* Messages of receipts and dead letters that are not settled. */
static inline uint64_t outgoing_count(const struct outgoing *outgoing)
{
    return outgoing->receipts.end - outgoing->receipts.first + outgoing->dead_letters.end -
           outgoing->dead_letters.first;
}

#endif
