/* SPDX-License-Identifier: MIT */
/* Every way a connection ends, as moves of its state. What a handler could notice (on_closed, the buffer its data lies
 * in) is left to server_flush; what is decided here is what the peer still gets, and until when it may take its time.
 *
 * A stream is ended in three steps, so that our last bytes are not lost to a reset: all is sent, our side is shut,
 * and what the peer still sends is read and thrown away until it ends its side or the time is up. */
#include "connection.h"

#include "check.h"
#include "utf8.h"

enum { REASON_BYTES_MAX = WEBSOCKET_CONTROL_BYTES_MAX - 2, REFUSED_STATUS_NONE = 0 };

static void set_deadline(struct server *server, struct connection *connection)
{
    timer_wheel_add(&server->wheel, &connection->timer, server->now_ms + server->options.close_timeout_ms);
}

/* An open connection ends: the owner will hear of it. */
static void leave_open(struct server *server, struct connection *connection, enum connection_cause cause, uint16_t code)
{
    receive_abandon(server, connection);
    connection->end.closed.code = code;
    connection->end.closed.cause = (uint8_t)cause;
    connection_set(connection, CONNECTION_CLOSED_DUE);
    connection_mark_dirty(server, connection);
    server->open_count--;
    server->counters.closed[cause]++;
}

static void leave_handshake(struct server *server, struct connection *connection, enum server_refusal refusal,
                            uint16_t status, struct span reason)
{
    buffer_shield(server, connection);
    connection_mark_dirty(server, connection);
    server->counters.refused[refusal]++;
    if (server->handler.on_refused != NULL) {
        struct port_address peer = connection_peer(server, connection_handle_of(server, connection));
        server->in_handler = true;
        server->handler.on_refused(server->context, &peer, refusal, status, reason);
        server->in_handler = false;
    }
}

static void queue_close(struct server *server, struct connection *connection, uint16_t code, struct span reason)
{
    uint8_t code_bytes[2] = {(uint8_t)(code >> 8), (uint8_t)code};
    if (reason.bytes > REASON_BYTES_MAX) {
        reason.bytes = utf8_valid_bytes(span_of(reason.data, REASON_BYTES_MAX));
    }
    struct span parts[2] = {span_of(code_bytes, sizeof code_bytes), reason};
    size_t part_count = code == FRAME_CLOSE_NO_STATUS ? 0 : 2;
    /* Without a chunk even in the reserve the peer has to do without the frame; the stream ends all the same. */
    (void)send_queue_frame(server, connection, FRAME_CLOSE, parts, part_count, true);
}

void closing_refuse(struct server *server, struct connection *connection, enum server_refusal refusal, uint16_t status,
                    struct span reason)
{
    char response[HANDSHAKE_RESPONSE_BYTES_MAX];
    struct text out = text_in(response, sizeof response);
    handshake_write_refusal(&out, status, reason);
    CHECK(!out.truncated);
    (void)send_queue_plain(server, connection, text_span(&out));
    connection_move(connection, CONNECTION_LINGERING);
    set_deadline(server, connection);
    leave_handshake(server, connection, refusal, status, reason);
    connection_append(server, &server->ending, connection);
}

void closing_begin(struct server *server, struct connection *connection, uint16_t code, struct span reason)
{
    connection_move(connection, CONNECTION_CLOSING);
    queue_close(server, connection, code, reason);
    set_deadline(server, connection);
    leave_open(server, connection, CONNECTION_BY_OWNER, code);
    connection_append(server, &server->ending, connection);
}

void closing_finish(struct server *server, struct connection *connection, enum connection_cause cause, uint16_t code,
                    struct span reason)
{
    connection_move(connection, CONNECTION_LINGERING);
    queue_close(server, connection, code, reason);
    set_deadline(server, connection);
    leave_open(server, connection, cause, code);
    connection_append(server, &server->ending, connection);
}

void closing_linger(struct server *server, struct connection *connection)
{
    connection_move(connection, CONNECTION_LINGERING);
    set_deadline(server, connection);
    connection_mark_dirty(server, connection);
}

void closing_peer_ended(struct server *server, struct connection *connection)
{
    switch ((enum connection_state)connection->state) {
    case CONNECTION_HANDSHAKE:
    case CONNECTION_OPEN:
        closing_kill(server, connection);
        return;
    case CONNECTION_CLOSING:
        closing_linger(server, connection);
        break;
    case CONNECTION_LINGERING:
        connection_mark_dirty(server, connection);
        break;
    case CONNECTION_FREE:
    case CONNECTION_DEAD:
    case CONNECTION_STATE_COUNT:
        CHECK(false);
    }
    connection_set(connection, CONNECTION_PEER_ENDED);
}

/* The socket is closed now; `cause` and `code` are those of a connection that was open. */
static void end_now(struct server *server, struct connection *connection, enum connection_cause cause, uint16_t code)
{
    enum connection_state from = (enum connection_state)connection->state;
    connection_move(connection, CONNECTION_DEAD);
    timer_wheel_remove(&server->wheel, &connection->timer);
    server->port->watch_remove(server->port->context, connection->socket);
    server->port->close_socket(server->port->context, connection->socket);
    connection->socket = PORT_NONE;
    send_queue_drop(server, connection);
    connection_mark_dirty(server, connection);
    if (from == CONNECTION_OPEN) {
        leave_open(server, connection, cause, code);
    } else if (from == CONNECTION_HANDSHAKE) {
        leave_handshake(server, connection, SERVER_REFUSED_LOST, REFUSED_STATUS_NONE, span_text("The peer went away."));
    } else {
        connection_remove(server, &server->ending, connection);
    }
}

void closing_cut_off(struct server *server, struct connection *connection)
{
    end_now(server, connection, CONNECTION_HOARDING, FRAME_CLOSE_POLICY);
}

void closing_kill(struct server *server, struct connection *connection)
{
    end_now(server, connection, CONNECTION_LOST, FRAME_CLOSE_ABNORMAL);
}
