/* SPDX-License-Identifier: MIT */
/* A WebSocket server over a port: listener, connection table, input, timers and send queues. It knows frames and
 * handles, not what a message means; its owner is told through `struct server_handler`.
 *
 * A turn of the owner's loop:
 *     count = port->wait(..., server_next_ms(server) bounds the timeout)
 *     for each event whose token is the server's: server_on_event(server, event, now_ms)
 *     server_tick(server, now_ms)
 *     server_flush(server, now_ms)           last: whatever was written in this turn goes out in one send a connection
 *
 * Invariants.
 * - A connection is named by a handle: index and generation. A handle stays harmless for ever: once its connection is
 *   gone every call with it does nothing and says so. An index is used anew only after the server_flush of the turn
 *   in which its connection ended.
 * - Handlers may call any connection_ function on any connection, their own included, from inside any callback.
 *   They may not call server_on_event, server_tick, server_flush or server_resume there.
 * - on_closed comes exactly once for each on_open, and only from server_flush: never from inside a connection_
 *   function or another callback. From the moment a connection begins to close (by either side) nothing can be sent on
 *   it and no other callback comes.
 * - Data given to a handler is good until the handler returns, even if it closes the connection; its bytes may be
 *   changed.
 * - No work is done for idle connections: no call but server_next scans the table. An idle connection holds no
 *   buffer. At rest all buffers and chunks are back in their pools.
 * - A message that on_message was given is never given again; one that was not given because the connection ended is
 *   gone, as after any lost connection.
 *
 * Pressure. Before it reads a connection the server asks `readable`: may everything that one read can bring be taken?
 * One read brings at most read_bytes of messages, and the end of one message of up to message_bytes_max that began
 * earlier. If not, the connection is put at the end of the waiting list, on_pressure is called once, and from then
 * on the server reads the connection in pieces of at most SERVER_PIECE_BYTES, so that control frames are still
 * answered, until a data message is whole: that one is held, and the connection is not read any more (see
 * connection_is_paused). server_resume gives held messages out, first come first served, and reads on.
 *
 * Buffers. A partial handshake, a partial message and a held message borrow a buffer from one pool. When a connection
 * needs one and all are lent, the one that has been partial for longest (held ones excepted) is closed with 1013, or
 * 408 in its handshake, and its buffer changes hands: so slow senders cannot starve the others. With buffer_count =
 * connection_max this never happens.
 *
 * Peers that do not read. What waits for one is bounded by send_queue_bytes (and one pong) and by time: when its socket
 * took nothing for stall_timeout_ms, it is closed with 1008. When all chunks are lent, the one for which the most waits
 * is cut off, not the one who happens to be written to. So who does not read harms nobody else.
 *
 * A full table. When all records are in use and somebody waits at the door, those closing for longest whose last bytes
 * are sent end without their peer's answer; when there is none, the one that has been in its handshake for longest (and
 * for 100 ms at least) is answered 408, unless its request turns out to be there. So a crowd that has to be refused is
 * refused at the pace of the loop, and who connects and says nothing takes the place of others of that kind only.
 *
 * Memory: all from the arena at init. Thread: the loop's. Time: now_ms is the port's monotonic clock in ms, as read by
 * the owner once a turn. */
#ifndef POSTERN_NET_SERVER_H
#define POSTERN_NET_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "handshake.h"
#include "pool.h"
#include "port.h"
#include "span.h"
#include "timer_wheel.h"

struct connection; /* one record of the table, at most 128 bytes */

/* Names a connection. All zero names none. */
struct connection_handle {
    uint32_t index;
    uint32_t generation; /* from 1 */
};

static inline bool connection_handle_equal(struct connection_handle a, struct connection_handle b)
{
    return a.index == b.index && a.generation == b.generation;
}

enum {
    SERVER_PIECE_BYTES = 1024,        /* of one read under pressure; and what may come ahead of a handshake's answer */
    SERVER_SEND_BYTES = 65536,        /* gathered for one send, when many small pieces are waiting */
    SERVER_CONNECTIONS_MAX = 1 << 20, /* ceiling of connection_max */
    SERVER_USER_NONE = -1             /* a connection's user index before it is set, as (uint32_t) */
};

enum connection_result {
    CONNECTION_OK,
    CONNECTION_FULL, /* the peer does not read: send_queue_bytes are waiting, or all chunks are lent and the most of
                      * them to this one, although what could be sent was sent just now. Nothing of it was queued. The
                      * owner closes the connection, or drops what it wanted to say */
    CONNECTION_GONE  /* closed, closing, or never was; on_closed has come or is about to */
};

/* Why an open connection ended. */
enum connection_cause {
    CONNECTION_BY_PEER,  /* the peer sent a close frame; code: theirs, 1005 when it had none */
    CONNECTION_BY_OWNER, /* connection_close; code: the one given */
    CONNECTION_BROKEN,   /* the peer broke the protocol; code: 1002, 1007 or 1009, sent to it */
    CONNECTION_LOST,     /* the stream ended or failed without a close frame; code: 1006 */
    CONNECTION_EVICTED,  /* its buffer was needed elsewhere; code: 1013, sent to it */
    CONNECTION_SLOW, /* its socket took nothing for stall_timeout_ms; code: 1008, queued behind what it did not read */
    CONNECTION_HOARDING, /* all chunks were lent, the most of them to it, and it did not read; code: 1008, which it
                          * could not be sent */
    CONNECTION_CAUSE_COUNT
};

/* Why a connection never opened. */
enum server_refusal {
    SERVER_REFUSED_BAD_REQUEST,      /* 400: no HTTP, or not as RFC 6455 wants it */
    SERVER_REFUSED_NOT_WEBSOCKET,    /* 426 */
    SERVER_REFUSED_HEADER_TOO_LARGE, /* 431 */
    SERVER_REFUSED_TIMEOUT,  /* 408: handshake_timeout_ms passed, or its buffer or record was needed elsewhere */
    SERVER_REFUSED_BY_OWNER, /* on_request gave another status than 101 */
    SERVER_REFUSED_LOST,     /* the peer went away before its handshake was whole */
    SERVER_REFUSAL_COUNT
};

/* What the owner is told, and asked. All but on_pressure, on_timer and on_refused must be given. `context` is the one
 * of server_init. */
struct server_handler {
    /* A valid request for an upgrade. Returns 101 to take it, or the HTTP status to refuse it with (then `reason`, if
     * set, is the answer's body: static text). The handle is valid; nothing can be sent yet. Its user index may be
     * set. */
    uint16_t (*on_request)(void *context, struct connection_handle connection, const struct handshake_request *request,
                           struct span *reason);
    /* The connection is open: messages can be sent. Comes right after on_request returned 101. */
    void (*on_open)(void *context, struct connection_handle connection, const struct handshake_request *request);
    /* May everything be taken that one read can bring (see above)? Asked before each read, so it must be quick. */
    bool (*readable)(void *context, struct connection_handle connection);
    /* The connection has begun to wait: once for each time it does. */
    void (*on_pressure)(void *context, struct connection_handle connection);
    /* A whole message; text is valid UTF-8. */
    void (*on_message)(void *context, struct connection_handle connection, uint8_t *data, size_t bytes, bool is_binary);
    /* The time given to connection_set_timer has come. */
    void (*on_timer)(void *context, struct connection_handle connection);
    /* An open connection has ended. Its user index and peer can still be asked for; the handle is dead after this. */
    void (*on_closed)(void *context, struct connection_handle connection, enum connection_cause cause, uint16_t code);
    /* A connection ended before it opened; `status` is what it was answered with (0: nothing). For the log. May come
     * from any server_ function that takes now_ms, and must not call connection_ functions. */
    void (*on_refused)(void *context, const struct port_address *peer, enum server_refusal refusal, uint16_t status,
                       struct span reason);
};

struct server_options {
    const struct port *port;
    uint8_t token_tag;             /* the highest byte of every token the server watches with; the owner sorts by it */
    uint32_t connection_max;       /* records: open, in handshake and closing ones together */
    uint32_t buffer_count;         /* for partial and held messages and partial handshakes */
    uint32_t message_bytes_max;    /* a longer message is refused with 1009 */
    uint32_t header_bytes_max;     /* of a request, 0: 8192 */
    uint32_t read_bytes;           /* of one read, at least header_bytes_max and SERVER_PIECE_BYTES, 0: 65536 */
    uint32_t chunk_count;          /* of the send queues; must be more than SERVER_CHUNKS_RESERVED */
    uint32_t chunk_bytes;          /* each, 0: 2048 */
    uint32_t send_queue_bytes;     /* per connection; its frames' headers count */
    uint32_t accept_max;           /* connections a turn, 0: 64 */
    uint32_t handshake_timeout_ms; /* 0: 10000 */
    uint32_t stall_timeout_ms;     /* for a socket to take something of what waits, 0: 10000 */
    uint32_t patience_ms;          /* for a peer's machine to take what was sent (port.h), 0: as the system has it */
    uint32_t close_timeout_ms;     /* for the peer's close frame after ours, and again for its end of stream, 0: 2000 */
};

enum { SERVER_CHUNKS_RESERVED = 32 }; /* of chunk_count, kept for closes and HTTP answers */

/* Since the start; for metrics. */
struct server_counters {
    uint64_t accepted;
    uint64_t accept_failed; /* out of handles or memory: accepting stops for 100 ms */
    uint64_t refused[SERVER_REFUSAL_COUNT];
    uint64_t opened;
    uint64_t closed[CONNECTION_CAUSE_COUNT];
    uint64_t messages_received;
    uint64_t message_bytes_received; /* payload of these */
    uint64_t pings_received;
    uint64_t bytes_received; /* from sockets */
    uint64_t messages_sent;
    uint64_t bytes_sent; /* to sockets */
    uint64_t sends;      /* calls */
    uint64_t receives;   /* calls */
    uint64_t sends_full; /* CONNECTION_FULL said */
    uint64_t pressures;  /* connections that began to wait */
    uint64_t hurried;    /* closing ones ended early, because the table was full and somebody waited */
    uint64_t displaced;  /* handshakes ended early, likewise */
    uint64_t evicted;    /* buffers taken from partial senders, open or in handshake */
};

/* Heads of lists of connections, by index. */
struct server_list {
    uint32_t first;
    uint32_t last;
    uint32_t count;
};

/* Private, but for: counters, buffers and chunks (pools: used, peak, refused), connection_count, open_count. */
struct server {
    const struct port *port;
    struct server_handler handler;
    void *context;
    struct server_options options;
    struct server_counters counters;
    struct connection *connections;
    struct pool buffers;
    struct pool chunks;
    struct timer_wheel wheel;
    struct timer_node accept_timer;   /* until accepting is tried again */
    struct timer_node displace_timer; /* until somebody who waits may take the place of a handshake */
    struct timer_node stall_timer;    /* scheduled while some are stalled, for the first of them at the latest */
    struct server_list vacant;
    struct server_list silent;  /* in their handshake, of which nothing is kept yet, longest first */
    struct server_list waiting; /* under pressure, in order */
    struct server_list partial; /* holders of a buffer that may be evicted, longest first */
    struct server_list ending;  /* closing, longest first */
    struct server_list stalled; /* by first chunk: bytes wait and the socket takes none, longest first (send_queue.c) */
    struct server_list dirty;   /* something is to be done in server_flush */
    uint8_t *read_scratch;
    uint8_t *send_scratch;
    uint64_t now_ms;
    uint32_t connection_count; /* records in use */
    uint32_t open_count;       /* of these, open */
    port_socket listener;
    bool accepting; /* the listener is being watched */
    bool in_handler;
};

/* Takes all memory from `arena`; while the arena measures, nothing else. The options are copied and checked (a wrong
 * one is a programmer's mistake), the handler and what it points at too; `options.port` stays the owner's. */
void server_init(struct server *server, struct arena *arena, const struct server_options *options,
                 const struct server_handler *handler, void *context, uint64_t now_ms);

/* Listens; false when the port could not (port's error_text says why). */
bool server_listen(struct server *server, const struct port_address *address);

/* The address listened on, with the port that was chosen for port 0. */
bool server_local_address(const struct server *server, struct port_address *address);

/* Closes the listener; connections stay. Harmless when not listening. */
void server_stop_accepting(struct server *server);

/* Handles one event of the poller whose token carries the server's tag. */
void server_on_event(struct server *server, const struct port_event *event, uint64_t now_ms);

/* Fires the timers that are due. */
void server_tick(struct server *server, uint64_t now_ms);

/* Ends the turn: says on_closed where it is due, sends what was written, frees the records of ended connections. */
void server_flush(struct server *server, uint64_t now_ms);

/* When the next turn must come at the latest, in the same clock; TIMER_WHEEL_NEVER when nothing is due. What was
 * written after server_flush is due at once. */
uint64_t server_next_ms(const struct server *server);

/* There may be room again: gives out held messages and reads on, in the order of waiting, each connection while
 * `readable` says so; stops at the first that it refuses. O(connections resumed). */
void server_resume(struct server *server, uint64_t now_ms);

/* The first open connection after `after` (the zero handle: from the start) in the table's order; the zero handle
 * when there is no more. For closing all, spread over time: it is O(table) over a whole walk. */
struct connection_handle server_next(const struct server *server, struct connection_handle after);

/* Queues a text (valid UTF-8: the caller's duty) or binary message made of `part_count` parts. Copied; goes out at
 * server_flush. */
enum connection_result connection_send_text(struct server *server, struct connection_handle handle,
                                            const struct span *parts, size_t part_count);
enum connection_result connection_send_binary(struct server *server, struct connection_handle handle,
                                              const struct span *parts, size_t part_count);

/* Queues a ping without payload. */
enum connection_result connection_ping(struct server *server, struct connection_handle handle);

/* Begins the closing handshake: what was queued goes out first, then a close frame with `code` (one that may stand on
 * the wire) and `reason` (UTF-8, cut to 123 bytes at a character). on_closed follows with CONNECTION_BY_OWNER. The
 * peer has close_timeout_ms to answer. Harmless when the connection is gone or closing. */
void connection_close(struct server *server, struct connection_handle handle, uint16_t code, struct span reason);

/* Calls on_timer once at due_ms or up to 100 ms later; replaces an earlier time. Only for open connections. A cheap
 * heartbeat does not move its timer at each message, it looks at connection_last_receive_ms when the timer fires. */
void connection_set_timer(struct server *server, struct connection_handle handle, uint64_t due_ms);

/* True while the handle names an open connection. */
bool connection_is_open(const struct server *server, struct connection_handle connection);

/* True while pressure keeps the server from reading it: its silence then says nothing about the peer, and an answer to
 * a ping cannot be heard. That its machine is gone, or knows nothing of the connection any more, shows when something
 * is sent to it (see patience_ms). */
bool connection_is_paused(const struct server *server, struct connection_handle connection);

/* When bytes last arrived from it, or when it was read again after a pause, whichever is later (at first: when it was
 * accepted); 0 for a dead handle. */
uint64_t connection_last_receive_ms(const struct server *server, struct connection_handle handle);

/* Bytes queued and not yet taken by the socket. */
uint32_t connection_queued_bytes(const struct server *server, struct connection_handle handle);

/* An index of the owner's, to find its own record by; (uint32_t)SERVER_USER_NONE before it is set and for a dead
 * handle. */
uint32_t connection_user_index(const struct server *server, struct connection_handle handle);
void connection_set_user_index(struct server *server, struct connection_handle handle, uint32_t user_index);

/* The peer's address; all zero for a dead handle. */
struct port_address connection_peer(const struct server *server, struct connection_handle handle);

#endif
