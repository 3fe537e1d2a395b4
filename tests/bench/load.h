/* SPDX-License-Identifier: MIT */
/* The load generator: many WebSocket clients of the gateway in one thread, costing as little CPU as they can, because
 * they share the machine with what they measure. `--raw` makes them plain TCP clients of an echo of the same bytes.
 *
 * Invariant: a client's frames all have the same length and the same mask, so a frame is a copy of one template with
 * nine digits patched in; a receipt is matched to its send by `seq`. Memory: taken at start. Thread: one. */
#ifndef POSTERN_BENCH_LOAD_H
#define POSTERN_BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench.h"
#include "histogram.h"

enum {
    CARRY_BYTES = 1024,           /* the largest frame the gateway may send a client here */
    RECEIVE_BYTES = 256 * 1024,   /* one receive */
    SEND_BYTES = 64 * 1024,       /* one send */
    FRAME_HEADER_BYTES = 8,       /* opcode, 126, 16-bit length, mask */
    FRAME_PAYLOAD_MIN_BYTES = 126 /* below, the header would be shorter */
};

enum client_state {
    CLIENT_NEW,
    CLIENT_CONNECTING,
    CLIENT_HANDSHAKE, /* request sent */
    CLIENT_GREETING,  /* upgraded, waits for "connected" */
    CLIENT_OPEN,
    CLIENT_CLOSING, /* storm: close frame sent, waits for the end */
    CLIENT_CLOSED
};

/* How a client of the storm goes, in turn. */
enum storm_way { STORM_CLOSE_FRAME, STORM_END_OF_STREAM, STORM_RESET, STORM_HALF_HANDSHAKE, STORM_WAYS };

struct client {
    int fd;
    uint32_t index;
    enum client_state state;
    bool active;         /* sends messages */
    bool opened;         /* was usable once */
    bool watching_write; /* the socket was full */
    uint32_t carry_bytes;
    uint32_t tail_bytes;
    uint64_t sent_count;     /* frames handed to the socket, the last perhaps in part */
    uint64_t owed_count;     /* frames due but held back by a full socket */
    uint64_t answered_count; /* receipts that open the window again */
    uint64_t echoed_bytes;   /* raw: of the frame being echoed */
    uint8_t *carry;          /* the beginning of a frame that is not whole yet */
    uint8_t *tail;           /* the rest of a frame that did not fit the socket */
    uint64_t *sent_ns;       /* closed loop: when a message was sent, by seq modulo window */
};

struct counters {
    uint64_t sent;
    uint64_t queued;
    uint64_t stored;
    uint64_t accepted;
    uint64_t refused; /* receipts `rejected` and `dead` */
    uint64_t errors;
    uint64_t busy;
    uint64_t pings;
};

/* The receipt that opens the window again, and that is waited for at the end. */
enum load_until { UNTIL_QUEUED, UNTIL_STORED, UNTIL_ACCEPTED };

struct load {
    /* Options. */
    unsigned port;
    uint32_t active_count;
    uint32_t idle_count;
    uint32_t window;
    double rate; /* messages a second; 0 is closed loop */
    bool raw;
    enum load_until until;
    const char *run;
    const char *receipts;
    uint32_t storm_count;

    /* The frame. */
    uint8_t *frame;
    size_t frame_bytes;
    size_t digits_offset; /* in the frame */
    uint8_t mask[4];

    int epoll;
    struct client *clients;
    uint32_t client_count;
    uint32_t open_count;
    uint32_t connecting_count;
    uint32_t next_connect; /* index of the next client to connect */
    uint32_t ended_count;  /* storm */

    bool sending;      /* closed loop: answers are followed by new messages */
    bool measuring;    /* inside the measured interval */
    uint64_t begin_ns; /* the measured interval */
    uint64_t end_ns;
    uint64_t schedule_ns; /* open loop: intended time of message 0 */
    double interval_ns;
    uint64_t grid_ns;

    struct counters counters;
    struct histogram queued;
    struct histogram stored;
    struct histogram accepted;
    char first_error[CARRY_BYTES];
    uint8_t *receive_buffer; /* CARRY_BYTES in front, RECEIVE_BYTES behind */
    uint8_t *send_buffer;
};

/* Builds the template of the frame from the message. */
void load_frame_make(struct load *load, const struct bench_message *message);

/* Opens the client's connection; the rest follows from its events. */
void client_connect(struct load *load, struct client *client);

/* Handles what epoll said of this client. */
void client_event(struct load *load, struct client *client, uint32_t events);

/* Sends `count` messages more, now or when the socket takes them. */
void client_send(struct load *load, struct client *client, uint64_t count);

/* Called by a client that has just become usable, and by one of the storm that has gone. */
void load_client_open(struct load *load, struct client *client);
void load_client_ended(struct load *load, struct client *client);

/* When message `number` (from 0) of this client was intended (open loop) or sent (closed loop). */
uint64_t client_intended_ns(const struct load *load, const struct client *client, uint64_t number);

#endif
