/* SPDX-License-Identifier: MIT */
/* One connection to RabbitMQ with one channel (AMQP 0-9-1), inside the program's loop: it never blocks.
 *
 * The link finds a broker of the list, connects, logs in, opens the channel and keeps all of that alive: heartbeats,
 * a closed channel is opened again, a lost connection is made again after a backoff with jitter. Its owner hears of
 * it through the handler, declares what it needs in on_channel (amqp_topology does that), and publishes or consumes.
 *
 * What is written lands in the out buffer; amqp_link_flush sends it, once a turn, for all that was written. A call
 * that finds too little room there writes nothing and says so (false, or tag 0): try again after the next
 * amqp_link_on_event. The same answer comes while no channel is open.
 *
 * Invariants: between on_channel and the next on_channel_closed or on_down the channel is open; every on_channel is
 * followed by exactly one of the two; delivery tags, of publishes and of deliveries, start at 1 with each on_channel.
 * Spans handed to the handler are dead when it returns. The handler may call everything of this header but
 * amqp_link_start, _on_event, _on_job, _tick, _flush and _close, and is called from the last five of these alone.
 * Memory: from the arena, fixed; librabbitmq, which is the codec, allocates AMQP_LINK_LIBRARY_BYTES beside it, at the
 * first connect. Thread: the loop's. */
#ifndef POSTERN_SHARED_AMQP_LINK_H
#define POSTERN_SHARED_AMQP_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amqp_url.h"
#include "span.h"

struct arena;
struct log;
struct port;
struct port_job;
struct amqp_link;

/* The state of the link; AMQP_LINK_READY alone means that the channel is open. */
enum amqp_link_state {
    AMQP_LINK_DOWN,       /* not started, or closed in good order */
    AMQP_LINK_WAITING,    /* until the backoff ends */
    AMQP_LINK_RESOLVING,  /* the broker's name, on the worker */
    AMQP_LINK_CONNECTING, /* TCP */
    AMQP_LINK_STARTING,   /* AMQP: our header is out, connection.start awaited */
    AMQP_LINK_TUNING,     /* login sent, connection.tune awaited */
    AMQP_LINK_OPENING,    /* vhost asked for */
    AMQP_LINK_CHANNEL,    /* channel.open (again) */
    AMQP_LINK_CONFIRM,    /* confirm.select */
    AMQP_LINK_READY,
    AMQP_LINK_CLOSING /* connection.close sent */
};
const char *amqp_link_state_name(enum amqp_link_state state);

enum {
    AMQP_HEADERS_MAX = 16, /* headers of one message that are read; more are left out */
    AMQP_LINK_OUT_BYTES_MIN = 65536,
    /* What librabbitmq allocates for one link, at most: a page for decoded methods, and while the broker greets us the
     * tables in which it tells its properties (measured: 5.4 kB). */
    AMQP_LINK_LIBRARY_BYTES = 8192,
    AMQP_PUBLISH_HEADERS_BYTES_MAX = 2048 /* of one message's headers together, names and types included */
};

/* A header of a message: text, an integer, or Unix time in seconds. Others are not reported. */
enum amqp_header_kind { AMQP_HEADER_TEXT, AMQP_HEADER_INTEGER, AMQP_HEADER_TIMESTAMP };
struct amqp_header {
    struct span name;
    enum amqp_header_kind kind;
    struct span text;
    int64_t integer;
};

/* A message to publish. Empty properties are left out. The spans need only live for the call. */
struct amqp_publish {
    struct span exchange; /* empty: the default exchange, where the routing key is the queue's name */
    struct span routing_key;
    struct span body;
    struct span content_type;
    struct span correlation_id;
    struct span reply_to;
    struct span message_id;
    struct span type;
    struct span app_id;
    uint64_t timestamp_s; /* Unix time; 0: left out */
    const struct amqp_header *headers;
    size_t header_count;
    bool mandatory;  /* comes back by on_return when no queue takes it */
    bool persistent; /* delivery mode 2 */
};

/* A message that came: a delivery, or one of ours that is returned. */
struct amqp_message {
    uint64_t tag; /* to acknowledge; 0 for a returned one */
    struct span exchange;
    struct span routing_key;
    struct span body;
    uint64_t body_bytes; /* as announced: more than body.bytes when oversized */
    struct span content_type;
    struct span correlation_id;
    struct span reply_to;
    struct span message_id;
    struct span type;
    struct span app_id;
    uint64_t timestamp_s; /* 0: none */
    struct amqp_header headers[AMQP_HEADERS_MAX];
    size_t header_count;
    bool redelivered;
    bool oversized; /* longer than body_bytes_max: `body` is its first body_bytes_max bytes */
};

/* What the broker answered to a method below. */
enum amqp_reply_kind {
    AMQP_REPLY_QUEUE_DECLARED,
    AMQP_REPLY_EXCHANGE_DECLARED,
    AMQP_REPLY_BOUND,
    AMQP_REPLY_UNBOUND,
    AMQP_REPLY_QOS,
    AMQP_REPLY_CONSUMING,
    AMQP_REPLY_CANCELLED /* the consumed queue is gone: nobody asked for it */
};
struct amqp_reply {
    enum amqp_reply_kind kind;
    struct span name;        /* of a declare the queue, of a consume or a cancel the consumer tag; else empty */
    uint32_t message_count;  /* of a queue declare */
    uint32_t consumer_count; /* likewise */
};

/* What the owner hears; any may be NULL. The context is the one of amqp_link_init. */
struct amqp_link_handler {
    /* The channel is open (and in confirm mode where asked for): declare, then publish or consume. */
    void (*on_channel)(void *context);
    void (*on_reply)(void *context, const struct amqp_reply *reply);
    /* The broker closed the channel (404 no such queue, 406 other arguments, ...); it is being opened again. What
     * was unconfirmed or unacknowledged is undecided. */
    void (*on_channel_closed)(void *context, uint16_t code, struct span text);
    /* A confirm of publishes: the one of `tag`, or with `multiple` all undecided up to it. */
    void (*on_confirm)(void *context, uint64_t tag, bool multiple, bool is_ack);
    /* A mandatory message that no queue took; its (meaningless) ack follows. */
    void (*on_return)(void *context, uint16_t code, struct span text, const struct amqp_message *message);
    void (*on_delivery)(void *context, const struct amqp_message *message);
    /* The broker is in an alarm and reads no publishes (true), or is out of it again. */
    void (*on_blocked)(void *context, bool is_blocked, struct span reason);
    /* The connection is gone, after an on_channel. The link logs the cause and connects again by itself. */
    void (*on_down)(void *context);
};

struct amqp_link_options {
    const char *program;                /* "postern-gateway", as the broker's management shows it */
    const char *instance;               /* which one of them: the gateway's id */
    const char *role;                   /* "publish", "consume", "receipts": in the connection's name and in the log */
    const struct amqp_brokers *brokers; /* stays alive */
    uint32_t heartbeat_s;               /* asked for; a smaller one of the broker counts. 0: the broker's */
    uint64_t token;                     /* the poller's, for amqp_link_on_event */
    size_t out_bytes;      /* at least AMQP_LINK_OUT_BYTES_MIN and the largest message with 1 KiB for its frames */
    size_t body_bytes_max; /* of what is consumed; 0: nothing is */
    bool confirms;
};

/* For metrics; all but the last lines only grow. */
struct amqp_link_counters {
    uint64_t connect_count;         /* channels opened on a new connection */
    uint64_t connect_failure_count; /* attempts that came to nothing */
    uint64_t down_count;            /* connections lost after that */
    uint64_t channel_closed_count;
    uint64_t published_count;
    uint64_t acked_frame_count; /* confirm frames, each for one message or many */
    uint64_t nacked_frame_count;
    uint64_t returned_count;
    uint64_t delivered_count;
    uint64_t oversized_count;
    uint64_t received_bytes;
    uint64_t sent_bytes;
    uint64_t send_count; /* calls of the port's send */
    uint64_t blocked_count;
    uint64_t blocked_ms;     /* in alarms that are over */
    uint64_t out_full_count; /* calls that found too little room */
    size_t out_peak_bytes;
};

/* Takes the link and its buffers from `arena`. Returns NULL while the arena measures, never otherwise. Port, log,
 * handler and what the options point at stay alive. */
struct amqp_link *amqp_link_init(struct arena *arena, struct port *port, struct log *log,
                                 const struct amqp_link_options *options, const struct amqp_link_handler *handler,
                                 void *context);

/* Gives back what librabbitmq allocated. From AMQP_LINK_DOWN; the link is dead after it. */
void amqp_link_release(struct amqp_link *link);

/* Begins to connect (from AMQP_LINK_DOWN). */
void amqp_link_start(struct amqp_link *link, uint64_t now_ms);

/* The poller reported our token. `ready` is PORT_READ | PORT_WRITE | PORT_HANGUP. */
void amqp_link_on_event(struct amqp_link *link, uint32_t ready, uint64_t now_ms);

/* A job came back from the worker: true if it was this link's (it resolves names there). */
bool amqp_link_on_job(struct amqp_link *link, const struct port_job *job, uint64_t now_ms);

/* Does what is due (backoff, deadlines, heartbeats). Returns when the next thing is due, UINT64_MAX if nothing. */
uint64_t amqp_link_tick(struct amqp_link *link, uint64_t now_ms);

/* Sends what was written, with one send; what the socket does not take goes out when it is writable. */
void amqp_link_flush(struct amqp_link *link, uint64_t now_ms);

/* The remedy where a broker takes nothing and says only nacks. */
extern const char AMQP_LINK_NACKS_REMEDY[];

/* Gives this connection up and makes a new one after the backoff: for an owner who sees that the channel is of no
 * use (nothing but nacks, a topology that cannot be). `cause` and `remedy` are static texts for the log; a remedy of
 * NULL: the new connection is one. Takes effect when the running handler has returned; nothing more is reported before
 * on_down. */
void amqp_link_reconnect(struct amqp_link *link, const char *cause, const char *remedy);

/* Closes in good order: what was written goes out, then connection.close; AMQP_LINK_DOWN follows with the broker's
 * answer, or after five seconds. In any other state than READY the link is down at once. */
void amqp_link_close(struct amqp_link *link, uint64_t now_ms);

enum amqp_link_state amqp_link_state(const struct amqp_link *link);
bool amqp_link_blocked(const struct amqp_link *link);
/* How long the broker was in alarms, the present one too. */
uint64_t amqp_link_blocked_ms(const struct amqp_link *link, uint64_t now_ms);
const struct amqp_link_counters *amqp_link_counters(struct amqp_link *link);
/* What still waits in the out buffer. */
size_t amqp_link_out_bytes(const struct amqp_link *link);

/* Publishes: all of it lands in the out buffer, or nothing. Returns the delivery tag for on_confirm; 0: no room now,
 * or no channel. A message larger than the whole out buffer is a mistake and ends the program. */
uint64_t amqp_link_publish(struct amqp_link *link, const struct amqp_publish *message);

/* Settles deliveries: the one of `tag`, or with `multiple` all unsettled up to it. */
bool amqp_link_ack(struct amqp_link *link, uint64_t tag, bool multiple);

/* A durable, non-exclusive queue. Arguments that are zero or NULL are left out. */
struct amqp_queue {
    struct span name;
    const char *type;        /* x-queue-type: "quorum", "classic" */
    uint32_t expires_ms;     /* x-expires: unused for so long, it is deleted */
    uint32_t message_ttl_ms; /* x-message-ttl */
    uint32_t length_max;     /* x-max-length, in messages */
    const char *overflow;    /* x-overflow: "drop-head", "reject-publish" */
};

/* Methods the broker answers by on_reply, in the order asked (or closes the channel). False: no room, no channel. */
bool amqp_link_queue_declare(struct amqp_link *link, const struct amqp_queue *queue, bool is_passive);
bool amqp_link_exchange_declare(struct amqp_link *link, struct span name, const char *type, bool is_passive);
bool amqp_link_queue_bind(struct amqp_link *link, struct span queue, struct span exchange, struct span routing_key);
bool amqp_link_queue_unbind(struct amqp_link *link, struct span queue, struct span exchange, struct span routing_key);
bool amqp_link_qos(struct amqp_link *link, uint16_t prefetch_count);
bool amqp_link_consume(struct amqp_link *link, struct span queue, struct span consumer_tag);

#endif
