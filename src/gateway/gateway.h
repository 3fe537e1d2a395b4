/* SPDX-License-Identifier: MIT */
/* The gateway: wires clients (net, session), the outbox and the downlink together, and turns the loop.
 *
 * It knows no operating system: all effects go through the port it is given, so that it runs the same over a real
 * machine and inside a test. Invariants: a message is taken only when the outbox has a place for it, because a
 * connection is only read when all that one read can bring has one; what a turn wrote leaves in the same turn, and what
 * its end wrote (the drain) in the next one, which comes at once. Memory: fixed, from the arena, at gateway_init; the
 * struct itself is the caller's. Thread: the loop's. */
#ifndef POSTERN_GATEWAY_GATEWAY_H
#define POSTERN_GATEWAY_GATEWAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "admin.h"
#include "amqp_url.h"
#include "arena.h"
#include "counts.h"
#include "downlink.h"
#include "drain.h"
#include "heartbeat.h"
#include "json.h"
#include "log.h"
#include "outbox.h"
#include "port.h"
#include "program.h"
#include "reports.h"
#include "routes.h"
#include "server.h"
#include "session.h"
#include "settings.h"
#include "text.h"

enum {
    /* Events taken from the poller in one turn: enough to fill a publish with many clients' messages, and few enough
     * that a turn stays short. */
    GATEWAY_EVENTS_MAX = 256,

    /* Connections beyond MAX_CONNECTIONS, so that one who is refused can be told why while others are still closing
     * after theirs. */
    GATEWAY_SPARE_CONNECTIONS = 16,

    /* Files and sockets beside the clients' and these: listener, two links, log, poller, wake-up, standard streams,
     * and what a resolver opens. */
    GATEWAY_SPARE_HANDLES = 32,

    /* One read of a client: what a socket holds of a fast one. Smaller where the outbox is small. */
    GATEWAY_READ_BYTES_MAX = 65536,

    /* A client's request for the upgrade. */
    GATEWAY_HEADER_BYTES_MAX = 8192,

    /* Partial messages, partial handshakes and messages held under pressure share buffers: as many as connections,
     * within this budget, and some in any case. */
    GATEWAY_BUFFERS_BYTES = 8 * 1024 * 1024,
    GATEWAY_BUFFERS_MIN = 64,

    /* Send queues share chunks: one for each connection, because one turn can have a word for everybody, and this
     * much besides (or one full queue, where that is more) for those who read slowly. */
    GATEWAY_CHUNK_BYTES = 1024,
    GATEWAY_SLOW_BYTES = 4 * 1024 * 1024,

    /* One connection to the broker publishes, one consumes. */
    GATEWAY_LINK_COUNT = 2,

    /* The longest sleep of the loop. Nothing depends on it; it bounds the harm of a time not foreseen. */
    GATEWAY_WAIT_MS_MAX = 60000
};

enum gateway_turned {
    GATEWAY_TURN_ON,  /* go on */
    GATEWAY_DRAINED,  /* told to stop, and done with all there was */
    GATEWAY_CUT_SHORT /* told to stop a second time */
};

struct gateway {
    struct port *port;
    const struct settings *settings;
    struct log log;

    /* Fixed by the settings (gateway_configure). */
    struct routes routes;
    struct amqp_brokers brokers;
    struct span queues[ROUTES_QUEUES_MAX];
    struct outbox_spool spool;
    struct heartbeat_settings heartbeat;
    uint32_t read_bytes;         /* of one read of a client */
    size_t read_message_count;   /* that it can bring at most */
    size_t read_content_bytes;   /* likewise */
    size_t downlink_message_max; /* bytes of a backend's message that a client can be sent */

    struct session_table sessions;
    struct server server;
    struct outbox *outbox;
    struct downlink downlink;
    struct drain drain;
    struct json json;
    struct admin admin;
    struct reports reports;
    struct counts counts;
    size_t arena_bytes;

    uint64_t due_ms;  /* when the next turn has something to do without an event */
    uint64_t turn_ns; /* when the present turn began; 0: there was none yet */
    uint64_t now_ms;  /* monotonic, taken once a turn */
    int64_t wall_ms;
    uint64_t start_ms;
    int64_t start_wall_ms;
    bool heard_all;               /* what was ready when the wait ended is among its events */
    uint32_t timers_held;         /* turns in a row that had not, and in which no client's timer fired */
    bool room_came;               /* the outbox has room again: clients are to be resumed in this turn */
    uint64_t pressure_since_ms;   /* of the present episode; 0: none */
    uint64_t pressure_told_count; /* clients that were told to wait in it */
    struct port_event events[GATEWAY_EVENTS_MAX];
};

/* Reads what the settings say beyond their types: routes, broker list, sizes. False: `error` holds one line. The
 * settings stay alive. */
bool gateway_configure(struct gateway *gateway, const struct settings *settings, struct text *error);

/* Takes all memory from `arena`, opens the log, and sets everything up; after gateway_configure, once measuring and
 * once for real. `port` stays alive. */
void gateway_init(struct gateway *gateway, struct arena *arena, struct port *port);

/* Opens the spool, listens, and begins to connect to the broker. False: `error` holds one line that names the setting.
 */
bool gateway_listen(struct gateway *gateway, struct text *error);

/* One turn of the loop: waits, at most until something is due, and does all there is to do. */
enum gateway_turned gateway_turn(struct gateway *gateway);

/* Turns until it is told to stop and has drained, or is told again. */
enum program_exit gateway_run(struct gateway *gateway);

/* Gives back what the AMQP library allocated, and closes the log: before gateway_listen succeeded, or after it drained.
 * The gateway is dead after it. */
void gateway_release(struct gateway *gateway);

/* How many messages of so many bytes of content the spool holds, from clients with ids of common length; 0: there is
 * none. After gateway_configure. */
uint64_t gateway_spool_messages(const struct gateway *gateway, uint32_t content_bytes);

/* Sockets that are watched at once, for the port; and how many may be open. */
size_t gateway_watch_max(const struct settings *settings);

#endif
