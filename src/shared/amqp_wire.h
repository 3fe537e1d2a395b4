/* SPDX-License-Identifier: MIT */
/* The lower half of amqp_link, private to it: a stream of AMQP frames to one of the brokers, found and kept by itself.
 *
 * It resolves, connects, falls over to the next address and the next broker, waits a backoff with jitter, buffers what
 * is written, cuts what comes into frames, sends heartbeats and notices silence. It knows no AMQP method.
 *
 * Invariants: on_frame comes only between on_open and on_down, with a frame whose header, length and end were checked.
 * A failure, of the peer or declared by amqp_wire_fail, ends the connection when the running handler has returned.
 * Memory: two buffers from the arena. Thread: the loop's, but for the name lookup on the worker. */
#ifndef POSTERN_SHARED_AMQP_WIRE_H
#define POSTERN_SHARED_AMQP_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amqp_url.h"
#include "backoff.h"
#include "port.h"
#include "repeats.h"
#include "span.h"

struct arena;
struct log;

enum {
    /* The frame's ceiling we ask for, with its 7 bytes of header and its end byte. */
    AMQP_FRAME_BYTES_MAX = 16384,
    AMQP_FRAME_BYTES_MIN = 4096, /* no broker may ask for less (AMQP 0-9-1, section 4.2.3) */
    AMQP_FRAME_HEADER_BYTES = 7,
    AMQP_FRAME_OVERHEAD_BYTES = AMQP_FRAME_HEADER_BYTES + 1,
    AMQP_WIRE_FRAME_END = 0xCE,

    AMQP_WIRE_IN_BYTES = 65536,
    AMQP_WIRE_ADDRESSES_MAX = 8, /* of one name */
    AMQP_WIRE_DETAIL_BYTES = 200
};

enum amqp_frame_type { AMQP_METHOD_FRAME = 1, AMQP_HEADER_FRAME = 2, AMQP_BODY_FRAME = 3, AMQP_HEARTBEAT_FRAME = 8 };

enum amqp_wire_state { AMQP_WIRE_DOWN, AMQP_WIRE_WAITING, AMQP_WIRE_RESOLVING, AMQP_WIRE_CONNECTING, AMQP_WIRE_OPEN };

struct amqp_wire_handler {
    /* TCP is there and the protocol header is written. */
    void (*on_open)(void *context);
    void (*on_frame)(void *context, enum amqp_frame_type type, uint16_t channel, struct span payload);
    /* The connection is gone, or an attempt came to nothing. */
    void (*on_down)(void *context);
};

struct amqp_wire_options {
    const char *role;
    const struct amqp_brokers *brokers;
    uint64_t token;
    size_t out_bytes;
};

struct amqp_wire_counters {
    uint64_t failure_count; /* attempts that came to nothing */
    uint64_t lost_count;    /* established connections lost */
    uint64_t received_bytes;
    uint64_t sent_bytes;
    uint64_t send_count;
    uint64_t full_count;
    size_t peak_bytes;
};

struct amqp_wire {
    struct port *port;
    struct log *log;
    struct amqp_wire_options options;
    const struct amqp_wire_handler *handler;
    void *context;
    struct amqp_wire_counters counters;

    enum amqp_wire_state state;
    uint64_t now_ms; /* of the running call */
    uint64_t due_ms; /* WAITING: its end; until established: the deadline */
    uint64_t steady_due_ms;
    uint64_t received_ms;
    uint64_t sent_ms;
    uint32_t heartbeat_ms; /* 0: none agreed */
    uint32_t frame_bytes_max;
    bool is_established;
    bool is_healthy;  /* it proved its worth */
    bool is_steady;   /* it lived for a while */
    bool has_spoken;  /* the peer sent a frame */
    bool is_writable; /* the socket took all it was last given */
    bool is_failed;
    bool is_stopping;
    bool is_last;      /* no attempt follows this connection */
    const char *stage; /* static text for the log: what is being done, or awaited */
    const char *cause;
    const char *remedy;
    char detail[AMQP_WIRE_DETAIL_BYTES];
    size_t detail_bytes;

    struct backoff backoff;
    size_t broker_index;
    size_t tried_count; /* brokers tried in this round */
    size_t address_index;
    size_t address_count;
    struct port_address addresses[AMQP_WIRE_ADDRESSES_MAX];
    struct repeats repeats;
    uint32_t connected_count; /* since the last steady one */

    struct port_job job;
    bool job_is_out;
    size_t job_broker_index;
    size_t job_address_count;
    struct port_address job_addresses[AMQP_WIRE_ADDRESSES_MAX];
    char job_error[AMQP_WIRE_DETAIL_BYTES];

    port_socket socket;
    uint32_t interest;
    uint8_t *in;
    size_t in_bytes;
    uint8_t *out;
    size_t out_start;
    size_t out_end;
};

/* Takes both buffers. While the arena measures, the wire must not be used. */
void amqp_wire_init(struct amqp_wire *wire, struct arena *arena, struct port *port, struct log *log,
                    const struct amqp_wire_options *options, const struct amqp_wire_handler *handler, void *context);

void amqp_wire_start(struct amqp_wire *wire, uint64_t now_ms);
void amqp_wire_on_event(struct amqp_wire *wire, uint32_t ready, uint64_t now_ms);
bool amqp_wire_on_job(struct amqp_wire *wire, const struct port_job *job, uint64_t now_ms);
uint64_t amqp_wire_tick(struct amqp_wire *wire, uint64_t now_ms);
void amqp_wire_flush(struct amqp_wire *wire, uint64_t now_ms);

/* Ends the connection and makes another. Cause and remedy are static; the detail (may be empty) is copied. The first
 * failure of a connection counts. */
void amqp_wire_fail(struct amqp_wire *wire, const char *cause, struct span detail, const char *remedy);

/* Ends the connection, or any attempt at one, for good: the state becomes DOWN. */
void amqp_wire_stop(struct amqp_wire *wire);

/* Whatever ends the present connection, none follows: the state becomes DOWN. */
void amqp_wire_make_last(struct amqp_wire *wire);

/* What the broker and we agreed on. */
void amqp_wire_tune(struct amqp_wire *wire, uint32_t frame_bytes_max, uint32_t heartbeat_s);

/* The handshake is through (its deadline is off), and: the connection proved its worth (the backoff starts anew). */
void amqp_wire_established(struct amqp_wire *wire);
void amqp_wire_healthy(struct amqp_wire *wire);

/* From a handler that will fail the wire: sends what it wrote last, as far as the socket takes it now. */
void amqp_wire_send_now(struct amqp_wire *wire);

/* Room for `bytes` to write at, or NULL; and: that many of them were written. */
uint8_t *amqp_wire_reserve(struct amqp_wire *wire, size_t bytes);
void amqp_wire_commit(struct amqp_wire *wire, size_t bytes);

const struct amqp_broker *amqp_wire_broker(const struct amqp_wire *wire);

#endif
