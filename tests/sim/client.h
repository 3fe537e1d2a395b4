/* SPDX-License-Identifier: MIT */
/* The simulated WebSocket clients. Each has an id and sends messages, numbered; it reads slowly, leaves in every way
 * there is, comes back, connects twice, talks nonsense. After it came back it sends again, in order and before anything
 * new, those of its messages with an id of which it does not know that they are in their queue.
 *
 * What a connection is told is judged here as far as the connection alone can tell (receipts by their seq,
 * never backwards, a final one never after another kind of final one; `accepted`, `queued` and `dropped` once; each
 * message on a connection that lives to the end has its receipts), and by the ledger. */
#ifndef POSTERN_TESTS_SIM_CLIENT_H
#define POSTERN_TESTS_SIM_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ledger.h"
#include "port_sim.h"

struct world;

enum {
    CLIENT_CONNS_MAX = 48,
    CLIENT_SUBMISSIONS_MAX = 2048, /* of one connection */
    CLIENT_IN_BYTES = 16384,
    CLIENT_OUT_BYTES = 65536,
    CLIENT_OUT_FULL = 32768
};

enum conn_state { CONN_FREE, CONN_CONNECTING, CONN_ASKING, CONN_UPGRADED, CONN_GREETED, CONN_LEAVING };

/* A message on a connection, in the order sent: its seq is its place, from 1. */
struct submission {
    uint16_t index;   /* LEDGER_NONE: no message that is taken */
    bool wants_error; /* nonsense */
    bool has_error;
    bool was_told[LEDGER_STATUS_COUNT];
    bool was_dropped;           /* by the gateway; then was_told[LEDGER_REJECTED] is set too, */
    bool may_be_sent;           /* and it was said that it may have been sent before */
    enum ledger_status verdict; /* the processor's word that came; LEDGER_STATUS_COUNT: none did */
};

struct conn {
    enum conn_state state;
    uint32_t link;
    uint32_t generation;
    uint32_t client;
    bool wants[LEDGER_STATUS_COUNT]; /* receipts */
    bool is_slow;
    bool is_hung; /* slow for ever, and forgotten */
    bool is_cut;
    bool was_refused;
    bool is_flush_due;
    bool has_ended; /* the gateway said goodbye, or its stream ended */
    uint32_t life;  /* of the gateway, when the connection was asked for: it is of this one or a later one */
    uint64_t heard_ns;
    uint8_t told_by_id[LEDGER_NUMBERS_MAX]; /* the latest status + 1 of a message that another connection brought */
    uint32_t submission_count;
    size_t in_bytes;
    size_t out_bytes;
    struct submission submissions[CLIENT_SUBMISSIONS_MAX];
    uint8_t in[CLIENT_IN_BYTES];
    uint8_t out[CLIENT_OUT_BYTES];
};

struct one_client {
    uint32_t conn;   /* the one it sends on; UINT32_MAX: none */
    uint32_t twin;   /* a newcomer that is not greeted yet */
    uint32_t resend; /* the next number to be looked at for sending again */
    bool wants[LEDGER_STATUS_COUNT];
    bool is_settled[LEDGER_NUMBERS_MAX]; /* by number: known to be in its queue, or ended */
    uint32_t final_first;                /* the messages of the calm: number of the first; 0: not sent */
    bool has_left;
    uint32_t called_number; /* the backend's message of the calm; 0: not sent */
    bool was_called;        /* it came */
};

struct clients {
    struct conn conns[CLIENT_CONNS_MAX];
    struct one_client each[PLAN_CLIENTS_MAX];
};

void clients_begin(struct world *world);
/* False: the link is none of a client's. */
bool clients_on_news(struct world *world, uint32_t link, enum sim_news news);
/* The gateway is gone: nobody will tell those who hang. */
void clients_bury_hung(struct world *world);
/* The calm has begun: everybody reads, stays, and sends a few last messages. */
void clients_calm(struct world *world);
/* Everybody is connected, and has all the receipts that are due. */
bool clients_are_served(struct world *world);
/* Says who is not. */
void clients_check_served(struct world *world);
/* Everybody leaves in good order. */
void clients_leave(struct world *world);
/* No connection is left. */
bool clients_are_gone(const struct world *world);

/* ---- between client.c and client_talk.c ---- */

void conn_read(struct world *world, struct conn *conn);
void conn_flush(struct world *world, struct conn *conn);
void conn_ask(struct world *world, struct conn *conn);
/* Puts a frame out, perhaps in fragments. */
void conn_say(struct world *world, struct conn *conn, uint8_t opcode, const void *data, size_t bytes);
/* The connection is over for the client; what it knows is kept. */
void conn_end(struct world *world, struct conn *conn, bool is_reset);
void conn_greeted(struct world *world, struct conn *conn);
void conn_refused(struct world *world, struct conn *conn);

#endif
