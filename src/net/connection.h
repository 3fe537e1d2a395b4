/* SPDX-License-Identifier: MIT */
/* What the files of this room share: the connection's record, its life, the lists it stands in. Not for owners, who
 * know connections by handle (server.h).
 *
 * Invariants: a record is in at most one of the lists vacant, silent, waiting, partial and ending (those that are
 * closing or lingering), and besides that at most once in dirty. It has a buffer only while a handshake, a message or a
 * held message is in it, or until the flush after its connection ended. Memory: the table and all lists are in the
 * records. Thread: the loop's. */
#ifndef POSTERN_NET_CONNECTION_H
#define POSTERN_NET_CONNECTION_H

#include "http.h"
#include "message.h"
#include "server.h"

/* connection.c holds the table of allowed moves. */
enum connection_state {
    CONNECTION_FREE,
    CONNECTION_HANDSHAKE, /* the request is not whole */
    CONNECTION_OPEN,
    CONNECTION_CLOSING,   /* our close frame is on its way, the peer's is awaited */
    CONNECTION_LINGERING, /* nothing is awaited but the end of the peer's stream, so that our last bytes arrive */
    CONNECTION_DEAD,      /* the socket is closed; the record is freed in server_flush */
    CONNECTION_STATE_COUNT
};

enum {
    CONNECTION_READ_WATCHED = 1 << 0, /* the interest the poller has */
    CONNECTION_WRITE_WATCHED = 1 << 1,
    CONNECTION_BLOCKED = 1 << 2, /* the socket took less than was sent, and has not become writable since */
    CONNECTION_DIRTY = 1 << 3,
    CONNECTION_WAITING = 1 << 4, /* in the waiting list: read in pieces */
    CONNECTION_PAUSED = 1 << 5,  /* waiting and not read: a message is held, or no buffer was left */
    CONNECTION_HELD = 1 << 6,
    CONNECTION_HELD_BINARY = 1 << 7,
    CONNECTION_PARTIAL = 1 << 8,    /* in the partial list */
    CONNECTION_CLOSED_DUE = 1 << 9, /* on_closed is to be said */
    CONNECTION_SHUT = 1 << 10,      /* our side of the stream is ended */
    CONNECTION_PEER_ENDED = 1 << 11,
    CONNECTION_SEND_FAILED = 1 << 12, /* seen while a handler ran; acted upon in server_flush */
    CONNECTION_PEER_V6 = 1 << 13,
    CONNECTION_SILENT = 1 << 14, /* in the silent list */
    CONNECTION_STALLED = 1 << 15 /* in the stalled list: bytes wait, and its socket takes none */
};

#define CONNECTION_NONE UINT32_MAX /* no record, no chunk, no buffer */

/* A poller's token: tag, low bits of the generation, index. */
enum { TOKEN_GENERATION_SHIFT = 32, TOKEN_GENERATION_MASK = 0xffffff, TOKEN_TAG_SHIFT = 56 };

struct connection {
    struct timer_node timer;
    union {
        struct message_reader reader;
        struct http_scan scan; /* in the handshake */
    } input;
    union {
        uint32_t held_bytes; /* of the message held */
        struct {
            uint16_t code;
            uint8_t cause;
        } closed; /* once it began to close */
    } end;
    uint8_t peer_bytes[16];
    uint16_t peer_port;
    uint16_t rest_bytes; /* input behind a held message, in the buffer's tail */
    uint16_t flags;
    uint8_t state;
    port_socket socket;
    uint32_t generation;
    uint32_t user_index;
    uint32_t last_receive_ms; /* the lower half of the time */
    uint32_t previous;
    uint32_t next;
    uint32_t dirty_next;
    uint32_t send_first; /* chunks */
    uint32_t send_last;
    uint32_t send_bytes;
    uint32_t buffer;
};

_Static_assert(sizeof(struct connection) <= 128, "with the owner's record an idle client costs at most 256 bytes");

/* connection.c: records and lists */

static inline uint32_t connection_index(const struct server *server, const struct connection *connection)
{
    return (uint32_t)(connection - server->connections);
}

static inline struct connection_handle connection_handle_of(const struct server *server,
                                                            const struct connection *connection)
{
    return (struct connection_handle){connection_index(server, connection), connection->generation};
}

static inline bool connection_has(const struct connection *connection, uint32_t flags)
{
    return (connection->flags & flags) == flags;
}

static inline void connection_set(struct connection *connection, uint32_t flags)
{
    connection->flags = (uint16_t)(connection->flags | flags);
}

static inline void connection_clear(struct connection *connection, uint32_t flags)
{
    connection->flags = (uint16_t)(connection->flags & ~flags);
}

void connection_table_init(struct server *server);
/* The record a handle names, whatever its state; NULL when it is gone. */
struct connection *connection_find(const struct server *server, struct connection_handle handle);
void connection_move(struct connection *connection, enum connection_state to);
struct connection *connection_take(struct server *server); /* NULL: all in use; else in its handshake */
void connection_give(struct server *server, struct connection *connection);    /* a dead one */
void connection_discard(struct server *server, struct connection *connection); /* one that never got a socket */
struct connection *connection_first(const struct server *server, const struct server_list *list);
/* The one behind it in its list. */
struct connection *connection_next(const struct server *server, const struct connection *connection);
void connection_append(struct server *server, struct server_list *list, struct connection *connection);
void connection_remove(struct server *server, struct server_list *list, struct connection *connection);
/* Has server_flush look at it. */
void connection_mark_dirty(struct server *server, struct connection *connection);
struct connection *connection_pop_dirty(struct server *server);
/* Whether its state and flags want it to be read. */
bool connection_reads(const struct connection *connection);
/* Tells the poller what the connection's state and flags want, if that changed. */
void connection_update_interest(struct server *server, struct connection *connection);
uint64_t connection_token(const struct server *server, const struct connection *connection);

/* buffers.c: partial and held input */

/* A buffer holds, from its start: a message (or a handshake's header), a control frame's payload, and from here on
 * the input behind a held message. */
size_t buffer_tail_offset(const struct server *server);
/* The connection's buffer, NULL when it has none. */
uint8_t *buffer_of(const struct server *server, const struct connection *connection);
/* Sees to it that the connection has a buffer, and the turn of being evicted where it may be. False: none was left. */
bool buffer_borrow(struct server *server, struct connection *connection, bool may_evict);
/* Takes the connection out of those that may be evicted or displaced. */
void buffer_shield(struct server *server, struct connection *connection);
/* Gives the buffer back, if there is one. */
void buffer_return(struct server *server, struct connection *connection);

/* send_queue.c */

/* Queues one frame, or the bytes of an HTTP answer. All or nothing; false when it does not fit. is_last_word: a close
 * frame, which like an HTTP answer may use the reserved chunks and pass send_queue_bytes. */
bool send_queue_frame(struct server *server, struct connection *connection, enum frame_opcode opcode,
                      const struct span *parts, size_t part_count, bool is_last_word);
bool send_queue_plain(struct server *server, struct connection *connection, struct span bytes);
/* Answers a ping. To a peer that does not read, only the latest is answered (RFC 6455 section 5.5.3); so pongs are not
 * counted into send_queue_bytes. */
void send_queue_pong(struct server *server, struct connection *connection, struct span payload);
/* Ends those whose sockets took nothing for stall_timeout_ms: called when stall_timer is due. */
void send_queue_check_stalled(struct server *server);
/* Sends what the socket takes. False: the connection is lost. */
bool send_queue_push(struct server *server, struct connection *connection);
void send_queue_drop(struct server *server, struct connection *connection);

/* closing.c: every way a connection ends */

/* Answers a handshake with a status of 400 and more. */
void closing_refuse(struct server *server, struct connection *connection, enum server_refusal refusal, uint16_t status,
                    struct span reason);
/* We close: a close frame, then the peer's is awaited. */
void closing_begin(struct server *server, struct connection *connection, uint16_t code, struct span reason);
/* We close and expect nothing sensible any more, or the peer closed: a close frame, then the end. */
void closing_finish(struct server *server, struct connection *connection, enum connection_cause cause, uint16_t code,
                    struct span reason);
/* The peer's part of the closing handshake is over. */
void closing_linger(struct server *server, struct connection *connection);
/* The peer ended its stream. */
void closing_peer_ended(struct server *server, struct connection *connection);
/* All chunks are lent, and the most to this one: its stream ends in the middle, without a word. */
void closing_cut_off(struct server *server, struct connection *connection);
/* The stream is dead, or its time is up. */
void closing_kill(struct server *server, struct connection *connection);

/* receive.c */

/* The socket is readable: reads once. is_hangup: and it will never be writable again. */
void receive_ready(struct server *server, struct connection *connection, bool is_hangup);
/* Asks whether the first of the waiting list may be read again, and if so does. */
bool receive_may_resume(struct server *server, struct connection *connection);
/* The connection leaves the open state: it waits no more, and what is held is dropped. */
void receive_abandon(struct server *server, struct connection *connection);

#endif
