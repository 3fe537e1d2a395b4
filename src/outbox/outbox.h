/* SPDX-License-Identifier: MIT */
/* Everything between "taken" and "queued": the gateway hands a message over once and hears when the broker has it.
 *
 * The outbox owns the publishing link. Messages wait in memory in the order they were taken, are published with a
 * window of unconfirmed ones, and leave when the broker confirmed them. A lost link, a nack or a returned message
 * leads to a replay from the oldest unconfirmed one, in order, before anything new: a message may reach its queue
 * twice, but never after a later one of the same client, and is never forgotten. While the broker cannot take messages,
 * or takes them too slowly, they go to the spool on the disk, and outlive the gateway (flow.h).
 *
 * Invariant: a taken message is in the outbox until on_receipt said RECEIPT_QUEUED for it, or RECEIPT_REJECTED where
 * the rule of a full spool drops it; exactly one of these, once. RECEIPT_ACCEPTED may come before it, when the message
 * is on the disk for good. Memory: from the arena, fixed; when it is full, and the disk, taking is refused and on_room
 * says when it is worth trying again. Thread: the loop's. Handlers must not call back into the outbox, but for
 * outbox_has_room and _take. */
#ifndef POSTERN_OUTBOX_OUTBOX_H
#define POSTERN_OUTBOX_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amqp_link.h"
#include "limits.h"
#include "receipt.h"
#include "span.h"

struct arena;
struct log;
struct port;
struct port_job;
struct spool_counters;
struct text;
struct outbox;

enum {
    OUTBOX_QUEUES_MAX = 16,
    /* What a message takes in memory and on the disk beyond its content, at most: the body's envelope, and queue, ids,
     * type and record around it. */
    OUTBOX_OVERHEAD_BYTES_MAX = 896,
    OUTBOX_REF_BYTES_MAX = 80,
    OUTBOX_ID_BYTES_MAX = GATEWAY_ID_BYTES_MAX + 48
};

/* Where a message came from; given back with its receipts, opaque to the outbox. */
struct outbox_origin {
    uint32_t session_index;
    uint32_t session_generation;
    uint32_t seq; /* of the message within its connection */
};

/* The spans are the caller's; outbox_take copies what they name. */
struct outbox_message {
    struct span client_id;
    struct span id; /* the client's own; may be empty */
    struct span type;
    struct span content; /* raw JSON */
    int64_t received_wall_ms;
    uint8_t queue_index; /* in options.queues */
    struct outbox_origin origin;
};

/* Of the messages on the disk. */
enum outbox_spool_state {
    OUTBOX_SPOOL_EMPTY,   /* there are none, or there is no spool */
    OUTBOX_SPOOL_WAITING, /* the broker takes none */
    OUTBOX_SPOOL_DRAINING
};

enum outbox_taken {
    OUTBOX_TAKEN,
    OUTBOX_FULL /* nothing was taken; on_room follows when there is room again */
};

/* The spans are the outbox's, and live for the call of on_receipt: copy what is to stay. */
struct outbox_receipt {
    struct span client_id;
    struct span id;   /* empty if the client gave none */
    struct span name; /* the id it goes by: the client's, or the one that was made for it */
    struct span queue;
    struct outbox_origin origin; /* of an earlier start's message: none that there is */
    enum receipt_status status;  /* RECEIPT_ACCEPTED, RECEIPT_QUEUED or RECEIPT_REJECTED */
    struct span code;            /* with RECEIPT_REJECTED */
    struct span reason;          /* likewise */
};

struct outbox_handler {
    void (*on_receipt)(void *context, const struct outbox_receipt *receipt);
    /* There is room again, after outbox_take or outbox_has_room said there was none: a good part of the window is free,
     * or of the spool. Called from outbox_turn, once for all refusals before it. */
    void (*on_room)(void *context);
};

/* Where messages go that the broker cannot take. */
struct outbox_spool {
    const char *directory; /* SPOOL_DIR */
    uint64_t bytes_max;    /* SPOOL_MAX_BYTES; with outbox_spool_room_bytes of at least twice the stage */
    uint32_t segment_bytes;
    size_t stage_bytes; /* of memory for what is on its way to the disk; at least one read of a client */
    bool drops_oldest;  /* when it is full: SPOOL_FULL=drop-oldest */
};

struct outbox_options {
    const char *program;    /* "postern-gateway" */
    const char *gateway_id; /* 1 to GATEWAY_ID_BYTES_MAX bytes */
    const struct amqp_brokers *brokers;
    uint32_t heartbeat_s;
    uint64_t token;            /* the poller's, for outbox_on_event */
    const struct span *queues; /* names, at most OUTBOX_QUEUES_MAX */
    size_t queue_count;
    const char *queue_type;           /* of those that have to be created: "quorum" or "classic" */
    uint32_t message_count_max;       /* OUTBOX_MESSAGES */
    size_t bytes_max;                 /* OUTBOX_BYTES, at least four times content_bytes_max + overhead */
    size_t content_bytes_max;         /* the longest content: MAX_MESSAGE_BYTES */
    uint32_t window_count_max;        /* PUBLISH_WINDOW */
    const struct outbox_spool *spool; /* NULL: none */
};

/* For metrics and readiness. */
struct outbox_counters {
    uint64_t taken_count;
    uint64_t taken_bytes;     /* of these, as records of the spool */
    uint64_t refused_count;   /* outbox_take found it full */
    uint64_t published_count; /* repeats included */
    uint64_t replayed_count;  /* of these, repeats */
    uint64_t confirmed_count; /* messages, not frames */
    uint64_t nacked_count;
    uint64_t returned_count;
    uint64_t relinked_count; /* connections given up because of returns or of nothing but nacks */
    uint64_t accepted_count; /* messages that were told to be on the disk */
    uint64_t dropped_count;  /* because the spool was full */
    uint64_t depth_count;    /* messages in the outbox now, those on the disk too */
    uint64_t depth_peak_count;
    size_t depth_bytes;       /* in memory */
    uint32_t in_flight_count; /* published and undecided */
    uint32_t window_count;    /* how many may be, now */
    enum outbox_spool_state spool_state;
};

/* Takes the outbox with its link from `arena`. NULL while the arena measures, never otherwise. All that is pointed at
 * stays alive. */
struct outbox *outbox_init(struct arena *arena, struct port *port, struct log *log,
                           const struct outbox_options *options, const struct outbox_handler *handler, void *context);

/* Bytes of records that surely fit such a spool's disk, whatever their lengths. */
uint64_t outbox_spool_room_bytes(const struct outbox_spool *spool, size_t content_bytes_max);

/* How many messages a spool holds when all are of this size: of content, and of queue, client id, type and id, which
 * spans of that length stand for. */
uint64_t outbox_spool_messages(const struct outbox_spool *spool, const struct outbox_message *like, struct span queue,
                               struct span gateway_id);

/* Opens the spool and finds what an earlier start left in it; blocks. False: `error` says in one line why it cannot be.
 * Before anything is taken. */
bool outbox_open(struct outbox *outbox, struct text *error);

/* Gives back what the codec of the link allocated, and the spool's folder. After outbox_closed; the outbox is dead
 * after it. */
void outbox_release(struct outbox *outbox);

/* Begins to connect. */
void outbox_start(struct outbox *outbox, uint64_t now_ms);

/* The link's events, as in amqp_link.h. */
void outbox_on_event(struct outbox *outbox, uint32_t ready, uint64_t now_ms);
bool outbox_on_job(struct outbox *outbox, const struct port_job *job, uint64_t now_ms);

/* At the end of each turn of the loop: publishes what the window lets out, sends it with one send, does what is due,
 * and calls on_room where that is due. Returns when the next turn is due at the latest (UINT64_MAX: by events). */
uint64_t outbox_turn(struct outbox *outbox, uint64_t now_ms);

/* May message_count messages of content_bytes of content in all be taken? For a socket that is only read when all
 * that one read can bring has a place. False counts as being refused: on_room follows. */
bool outbox_has_room(struct outbox *outbox, size_t message_count, size_t content_bytes);

enum outbox_taken outbox_take(struct outbox *outbox, const struct outbox_message *message, uint64_t now_ms);

/* The id a message goes by where its client gave none, in the broker and in both programs' logs: gateway's id, boot,
 * and the outbox's own number of the message. At most OUTBOX_ID_BYTES_MAX. */
void outbox_write_id(const struct outbox *outbox, struct text *text, uint64_t number);

/* A receipt from the processor names the message by its ref (the AMQP correlation id that outbox gave). */
enum outbox_ref {
    OUTBOX_REF_OURS,   /* of this start: `origin` says where it came from, `number` which it was (0: an earlier
                        * start's, whose id is not known) */
    OUTBOX_REF_FOREIGN /* of an earlier start, no ref of ours, or another client's: only the client's id is known */
};

/* Reads a ref that came back for a client. A message that is still here and is not that client's is left alone and
 * the ref logged, because whoever handed it back mixed something up. If the message is still unconfirmed (the
 * processor's word overtook the broker's confirm), the message is known to have been in the queue: its RECEIPT_QUEUED
 * goes out by on_receipt before this returns and it will not be published again. So a caller that then tells the client
 * `stored` never goes backwards. */
enum outbox_ref outbox_settle(struct outbox *outbox, struct span client_id, struct span ref,
                              struct outbox_origin *origin, uint64_t *number);

/* The processor's word on a message whose ref is foreign. An earlier start may have sent that message and been killed
 * before the confirm; then it is here once more, among the oldest, and the processor speaks of the copy that was sent
 * first. If it is among the first in memory, its RECEIPT_QUEUED goes out before this returns, as above; if it may be
 * behind them, it will have none; and once more were spoken of than are remembered (window_count_max and a thousand),
 * none of an earlier start has one. `id`: the client's own. */
void outbox_settle_earlier(struct outbox *outbox, struct span client_id, struct span id);

/* Nothing is waiting or undecided: all that was taken is confirmed. */
bool outbox_empty(const struct outbox *outbox);

/* What is not confirmed goes to the disk at once from now on; and whether all of it is there. Without a spool only an
 * empty outbox is secure. */
void outbox_secure(struct outbox *outbox);
bool outbox_is_secure(const struct outbox *outbox);

/* Age of the oldest unconfirmed message, 0 when empty. It grows without an error when a quorum is lost. */
uint64_t outbox_oldest_ms(const struct outbox *outbox, uint64_t now_ms);

/* The link is up, the queues are there and the broker is not in an alarm. */
bool outbox_ready(const struct outbox *outbox);

/* Closes the link and the spool in good order; outbox_closed says when that is done. */
void outbox_close(struct outbox *outbox, uint64_t now_ms);
bool outbox_closed(const struct outbox *outbox);

const struct outbox_counters *outbox_counters(struct outbox *outbox);
/* NULL without a spool. */
const struct spool_counters *outbox_spool_counters(struct outbox *outbox);
struct amqp_link *outbox_link(struct outbox *outbox);

#endif
