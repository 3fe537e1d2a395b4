/* SPDX-License-Identifier: MIT */
/* From the window to the broker: the publishing link, the queues it needs, and the rules of publishing.
 *
 * A new channel starts with 32 unconfirmed messages and doubles that with each confirm. A nack stops publishing until
 * all in flight is decided and 100 ms have passed; then it begins anew at the oldest unconfirmed message, and for ten
 * seconds there is one message in flight: of several, a queue that is full may refuse one and take a later one. One
 * second of nothing but nacks, five seconds in which not all in flight is decided after a nack, and a returned message
 * (its queue is gone), lead to a new connection, which declares the queues again. While the broker is in an alarm
 * nothing is published, and these times do not run, because it reads nothing that it could decide on.
 *
 * Invariant: messages are published in the order of their sequences; one that was not confirmed is published again
 * before any later one that was not. Errors: nothing here fails. What goes wrong with the link or the broker is logged
 * and tried again, for ever, by the link (amqp_link.h) and the rules above; no message leaves the window by it. Memory:
 * the link's, from the arena. Thread: the loop's. */
#ifndef POSTERN_OUTBOX_UPLINK_H
#define POSTERN_OUTBOX_UPLINK_H

#include "amqp_link.h"
#include "amqp_topology.h"
#include "limits.h"
#include "outbox.h"
#include "repeats.h"
#include "window.h"

enum {
    UPLINK_BOOT_BYTES = 16,
    UPLINK_MESSAGE_ID_BYTES_MAX = 255,
    UPLINK_OTHER_QUEUES_MAX = 16 /* that the spool holds messages for, and that ROUTES does not name */
};

struct uplink {
    struct amqp_link *link;
    struct amqp_topology topology;
    struct amqp_step steps[OUTBOX_QUEUES_MAX + UPLINK_OTHER_QUEUES_MAX];
    size_t step_count;
    uint8_t other_queues[UPLINK_OTHER_QUEUES_MAX][QUEUE_NAME_BYTES_MAX];
    struct log *log;
    struct outbox_options options;
    struct outbox_counters *counters;
    struct window *window;
    window_on_confirmed *on_confirmed;
    void *context;
    char boot[UPLINK_BOOT_BYTES]; /* this start's name, of 0-9 a-z */
    size_t boot_bytes;
    char reply_to[sizeof("gateway.") + GATEWAY_ID_BYTES_MAX];
    struct repeats told;
    uint64_t now_ms;
    uint64_t nacked_since_ms;  /* the first nack since the last ack; 0: none */
    uint64_t replay_due_ms;    /* 0: publishing goes on */
    uint64_t careful_until_ms; /* since a nack: one message in flight */
    uint64_t undecided_ms;     /* with replay_due_ms: when it is no longer waited for what is in flight */
    uint32_t window_count;
    bool is_ready; /* the queues are there */
};

/* While the arena measures, the uplink must not be used. */
void uplink_init(struct uplink *uplink, struct arena *arena, struct port *port, struct log *log,
                 const struct outbox_options *options, struct window *window, struct outbox_counters *counters,
                 window_on_confirmed *on_confirmed, void *context);

/* A message of an earlier start goes to this queue: it is to be there too. Before the start. */
void uplink_add_queue(struct uplink *uplink, struct span name);

/* Begins to connect. */
void uplink_start(struct uplink *uplink, uint64_t now_ms);

/* Publishes and sends what may go, does what is due; returns when it wants to be called again at the latest. */
uint64_t uplink_turn(struct uplink *uplink, uint64_t now_ms);

/* The id made for a message whose client gave none. */
void uplink_write_id(const struct uplink *uplink, struct text *text, uint64_t number);

/* The ref of a message, and back: false for one of another start. */
void uplink_write_ref(const struct uplink *uplink, struct text *text, uint64_t number,
                      const struct outbox_origin *origin);
bool uplink_read_ref(const struct uplink *uplink, struct span ref, uint64_t *number, struct outbox_origin *origin);

#endif
