/* SPDX-License-Identifier: MIT */
/* The simulated RabbitMQ: connections that speak AMQP 0-9-1, durable queues, confirms in every form that the standard
 * allows, and everything that a broker in trouble does.
 *
 * A message that was received is at first on its way to the disk; it is in its queue (and in the ledger) from the
 * moment it is there, which is before its confirm is said. A crash, or a lost connection, keeps of what was on its way
 * the beginning, of any length: a queue never holds a message of a connection without those before it. What is in a
 * queue stays there. */
#ifndef POSTERN_TESTS_SIM_BROKER_H
#define POSTERN_TESTS_SIM_BROKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ledger.h"
#include "port_sim.h"
#include "span.h"

struct world;

enum {
    BROKER_LINKS_MAX = 16,
    BROKER_FRAME_MAX = 8192,
    BROKER_OUT_BYTES = 65536,
    BROKER_OUT_FULL = 49152, /* nothing is delivered or confirmed beyond */
    BROKER_UNDECIDED_MAX = 4096,
    BROKER_QUEUE_MAX = 32768, /* messages that came to the queues in a run, repeats included */
    BROKER_DOWN_MAX = 4096,
    BROKER_DOWN_BYTES = 2048,
    BROKER_KEY_BYTES = 80
};

enum broker_fate { BROKER_ON_ITS_WAY, BROKER_THERE, BROKER_REFUSED, BROKER_DECIDED };

struct broker_publish {
    uint16_t index; /* in the ledger */
    uint8_t fate;
    char ref[LEDGER_REF_BYTES];
};

/* In a queue, and waiting for the processor. */
struct broker_entry {
    uint16_t index;
    char ref[LEDGER_REF_BYTES];
};

/* In the gateway's queue. */
struct broker_down {
    char key[BROKER_KEY_BYTES];
    bool is_receipts;
    uint16_t bytes;
    uint8_t body[BROKER_DOWN_BYTES];
};

enum broker_phase { BROKER_HEADER, BROKER_START_OK, BROKER_TUNE_OK, BROKER_OPEN, BROKER_CONNECTED, BROKER_CLOSING };

/* What the gateway had read of our bytes when it made something. */
struct broker_knowledge {
    uint64_t at_least;
    uint64_t at_most;
};

struct broker_link {
    bool in_use;
    uint32_t link;
    uint32_t generation;
    enum broker_phase phase;
    bool has_channel;
    bool is_channel_closing; /* we closed it, and wait for the answer */
    bool confirms;
    uint32_t heartbeat_s;
    uint64_t received_ns;
    uint64_t sent_ns;

    uint8_t in[BROKER_FRAME_MAX];
    size_t in_bytes;
    struct broker_knowledge in_known;    /* of the frame that begins `in` */
    struct broker_knowledge piece_known; /* of the bytes that came last */
    uint8_t out[BROKER_OUT_BYTES];
    size_t out_bytes;
    uint64_t out_position; /* of all that was written, those in `out` too */

    /* The publish that is coming. */
    int content_part; /* 0: none, 1: header, 2: body */
    struct ledger_publish publish;
    uint8_t content_buffer[2048]; /* method and properties */
    size_t content_used;
    uint8_t body[LEDGER_TEXT_BYTES];
    size_t body_bytes;
    size_t body_want;

    struct broker_publish undecided[BROKER_UNDECIDED_MAX]; /* by tag, a ring */
    uint64_t next_tag;
    uint64_t oldest_tag; /* undecided */
    uint64_t way_tag;    /* the first that is on its way to the disk */
    bool is_confirm_due; /* an event is scheduled */

    uint64_t blocked_position; /* behind "blocked" in our bytes; 0: not said */
    uint64_t unblocked_position;

    bool is_consuming;
    uint32_t prefetch;
    uint64_t delivered_tag;
    uint64_t acked_tag;
    uint32_t unacked_count; /* the first of the gateway's queue, in order */
};

struct broker {
    bool is_down;    /* no connection is taken */
    bool is_hanging; /* it is stopped: nothing is read, written or decided */
    bool is_silent;  /* connects get no answer */
    bool is_blocked;
    bool is_stuck;         /* nothing is confirmed */
    uint32_t generation;   /* of the last connection */
    uint64_t fault_number; /* so that the end of an older fault does nothing */
    bool has_queue[PLAN_QUEUES];
    bool has_gateway_queue;
    bool is_bound[PLAN_CLIENTS_MAX];
    bool is_gateway_bound;
    struct broker_link links[BROKER_LINKS_MAX];
    struct broker_entry entries[BROKER_QUEUE_MAX];
    uint32_t entry_count;
    struct broker_down downs[BROKER_DOWN_MAX];
    uint32_t down_first;
    uint32_t down_count;
    uint32_t in_flight_peak;
};

void broker_begin(struct world *world);
enum sim_welcome broker_on_connect(struct world *world, uint32_t link);
/* False: the link is none of the broker's. */
bool broker_on_news(struct world *world, uint32_t link, enum sim_news news);
/* Begins to fault, as the plan says; and stops all faults. */
void broker_storm(struct world *world);
void broker_calm(struct world *world);

/* Tells the ledger how much of the broker's words the gateway has read. */
void broker_tell_read(struct world *world);

/* Somebody publishes to the topic exchange postern.downlink. */
void broker_publish_down(struct world *world, const char *key, bool is_receipts, struct span body);

/* ---- between broker.c and broker_talk.c ---- */

void broker_write(struct world *world, struct broker_link *at, const uint8_t *bytes, size_t count);
void broker_flush(struct world *world, struct broker_link *at);
void broker_end_link(struct world *world, struct broker_link *at, bool is_reset);
/* Handles the bytes in `in`; false when the connection ended. */
bool broker_talk(struct world *world, struct broker_link *at);
void broker_say_ack(struct world *world, struct broker_link *at, uint64_t tag, bool is_multiple, bool is_ack);
void broker_say_blocked(struct world *world, struct broker_link *at, bool is_blocked);
void broker_say_close(struct world *world, struct broker_link *at);
void broker_say_channel_close(struct world *world, struct broker_link *at, uint16_t code, const char *text);
void broker_say_cancel(struct world *world, struct broker_link *at);
void broker_say_heartbeat(struct world *world, struct broker_link *at);
void broker_deliver(struct world *world, struct broker_link *at);
/* Heartbeats begin. */
void broker_beat(struct world *world, struct broker_link *at);
/* A publish is whole. */
void broker_take(struct world *world, struct broker_link *at);
void broker_plan_confirm(struct world *world, struct broker_link *at);
void broker_say_return(struct world *world, struct broker_link *at, struct span queue, struct span body);

#endif
