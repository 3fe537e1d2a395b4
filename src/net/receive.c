/* SPDX-License-Identifier: MIT */
/* One read an event, into a scratch buffer that all connections share: what is whole is handled where it lies, and
 * only what is cut is carried over, in a borrowed buffer. Under pressure reads are small, so that what comes behind
 * a message that must be held fits into the tail of the buffer that holds it. */
#include "connection.h"

#include <string.h>

#include "check.h"

/* Reads up to `capacity` bytes. False when there is nothing to handle; the connection may have ended then. */
static bool read_some(struct server *server, struct connection *connection, uint8_t *to, size_t capacity,
                      bool is_hangup, size_t *bytes)
{
    const struct port *port = server->port;
    *bytes = 0;
    server->counters.receives++;
    switch (port->receive(port->context, connection->socket, to, capacity, bytes)) {
    case PORT_OK:
        server->counters.bytes_received += *bytes;
        connection->last_receive_ms = (uint32_t)server->now_ms;
        return true;
    case PORT_AGAIN:
        if (is_hangup) {
            closing_kill(server, connection);
        }
        return false;
    case PORT_CLOSED:
        closing_peer_ended(server, connection);
        return false;
    case PORT_FAILED:
        closing_kill(server, connection);
        return false;
    }
    return false;
}

static bool ask_readable(struct server *server, struct connection *connection)
{
    server->in_handler = true;
    bool readable = server->handler.readable(server->context, connection_handle_of(server, connection));
    server->in_handler = false;
    return readable;
}

/* The connection has begun to close while more of its input is at hand. */
static void handle_leftover(struct server *server, struct connection *connection, struct message_input *input)
{
    if (connection->state == CONNECTION_CLOSING && message_discard(&connection->input.reader, input)) {
        closing_linger(server, connection);
    }
}

static void deliver(struct server *server, struct connection *connection, uint8_t *data, size_t bytes, bool is_binary)
{
    server->counters.messages_received++;
    server->counters.message_bytes_received += bytes;
    server->in_handler = true;
    server->handler.on_message(server->context, connection_handle_of(server, connection), data, bytes, is_binary);
    server->in_handler = false;
    if (connection->buffer != CONNECTION_NONE && connection->state == CONNECTION_OPEN &&
        !message_wants_buffer(&connection->input.reader)) {
        buffer_return(server, connection);
    }
}

static void start_waiting(struct server *server, struct connection *connection)
{
    buffer_shield(server, connection);
    connection_append(server, &server->waiting, connection);
    connection_set(connection, CONNECTION_WAITING);
    server->counters.pressures++;
    if (server->handler.on_pressure != NULL) {
        server->in_handler = true;
        server->handler.on_pressure(server->context, connection_handle_of(server, connection));
        server->in_handler = false;
    }
}

static void pause_reading(struct server *server, struct connection *connection)
{
    connection_set(connection, CONNECTION_PAUSED);
    connection_update_interest(server, connection);
}

/* Without a buffer to carry it in, input that was read already cannot be kept. */
static void end_for_want_of_buffer(struct server *server, struct connection *connection)
{
    closing_finish(server, connection, CONNECTION_EVICTED, FRAME_CLOSE_TRY_AGAIN_LATER,
                   span_text("No buffer is left."));
}

/* Keeps a whole message, and the input behind it, in the connection's buffer. */
static void hold(struct server *server, struct connection *connection, const struct message_event *message,
                 const struct message_input *rest)
{
    CHECK(rest->bytes <= SERVER_PIECE_BYTES);
    if (!buffer_borrow(server, connection, false)) {
        end_for_want_of_buffer(server, connection);
        return;
    }
    uint8_t *buffer = buffer_of(server, connection);
    if (message->bytes > 0) {
        memmove(buffer, message->data, message->bytes);
    }
    if (rest->bytes > 0) {
        memmove(buffer + buffer_tail_offset(server), rest->data, rest->bytes);
    }
    connection->end.held_bytes = (uint32_t)message->bytes;
    connection->rest_bytes = (uint16_t)rest->bytes;
    connection_set(connection, CONNECTION_HELD);
    connection_clear(connection, CONNECTION_HELD_BINARY);
    if (message->kind == MESSAGE_BINARY) {
        connection_set(connection, CONNECTION_HELD_BINARY);
    }
    pause_reading(server, connection);
}

static void answer_ping(struct server *server, struct connection *connection, const struct message_event *ping)
{
    server->counters.pings_received++;
    send_queue_pong(server, connection, span_of(ping->data, ping->bytes));
}

/* Handles input that lies outside the connection's buffer. */
static void handle_input(struct server *server, struct connection *connection, uint8_t *data, size_t bytes)
{
    struct message_input input = {data, bytes};
    while (connection->state == CONNECTION_OPEN) {
        struct message_event event = message_next(&connection->input.reader, &input, buffer_of(server, connection),
                                                  server->options.message_bytes_max);
        switch (event.kind) {
        case MESSAGE_MORE:
            if (connection->buffer != CONNECTION_NONE && !message_wants_buffer(&connection->input.reader)) {
                buffer_return(server, connection);
            }
            return;
        case MESSAGE_BUFFER:
            if (!buffer_borrow(server, connection, !connection_has(connection, CONNECTION_WAITING))) {
                end_for_want_of_buffer(server, connection);
            }
            break;
        case MESSAGE_TEXT:
        case MESSAGE_BINARY:
            if (connection_has(connection, CONNECTION_WAITING)) {
                hold(server, connection, &event, &input);
                return;
            }
            deliver(server, connection, event.data, event.bytes, event.kind == MESSAGE_BINARY);
            break;
        case MESSAGE_PING:
            answer_ping(server, connection, &event);
            break;
        case MESSAGE_PONG:
            break;
        case MESSAGE_CLOSE:
            closing_finish(server, connection, CONNECTION_BY_PEER, event.code, span_of(NULL, 0));
            break;
        case MESSAGE_FAILED:
            closing_finish(server, connection, CONNECTION_BROKEN, event.code, span_text(event.reason));
            break;
        }
    }
    handle_leftover(server, connection, &input);
}

/* A whole, valid request: asks the owner, and opens the connection. `rest` is what came behind the header. */
static void open_connection(struct server *server, struct connection *connection,
                            const struct handshake_request *request, struct span rest)
{
    struct connection_handle handle = connection_handle_of(server, connection);
    struct span reason = span_of(NULL, 0);
    server->in_handler = true;
    uint16_t status = server->handler.on_request(server->context, handle, request, &reason);
    server->in_handler = false;
    if (status != HANDSHAKE_STATUS_SWITCHING) {
        closing_refuse(server, connection, SERVER_REFUSED_BY_OWNER, status, reason);
        return;
    }
    char response[HANDSHAKE_RESPONSE_BYTES_MAX];
    struct text out = text_in(response, sizeof response);
    handshake_write_accept(&out, request->key);
    CHECK(!out.truncated);
    if (!send_queue_plain(server, connection, text_span(&out))) {
        closing_kill(server, connection);
        return;
    }
    timer_wheel_remove(&server->wheel, &connection->timer);
    connection_move(connection, CONNECTION_OPEN);
    connection->input.reader = (struct message_reader){.state = 0};
    server->open_count++;
    server->counters.opened++;
    server->in_handler = true;
    server->handler.on_open(server->context, handle, request);
    server->in_handler = false;
    if (rest.bytes > 0) {
        memmove(server->read_scratch, rest.data, rest.bytes);
    }
    buffer_return(server, connection);
    if (rest.bytes > 0 && connection->state == CONNECTION_OPEN && !ask_readable(server, connection)) {
        start_waiting(server, connection);
    }
    handle_input(server, connection, server->read_scratch, rest.bytes);
}

static void handle_header(struct server *server, struct connection *connection, struct span header, struct span rest)
{
    struct handshake_request request;
    struct handshake_refusal refusal;
    if (!handshake_parse(header, &request, &refusal)) {
        bool is_plain = refusal.status == HANDSHAKE_STATUS_UPGRADE_REQUIRED;
        closing_refuse(server, connection, is_plain ? SERVER_REFUSED_NOT_WEBSOCKET : SERVER_REFUSED_BAD_REQUEST,
                       refusal.status, span_text(refusal.reason));
    } else if (rest.bytes > SERVER_PIECE_BYTES) {
        closing_refuse(server, connection, SERVER_REFUSED_BAD_REQUEST, HANDSHAKE_STATUS_BAD_REQUEST,
                       span_text("Too much was sent before the handshake's answer."));
    } else {
        open_connection(server, connection, &request, rest);
    }
}

/* Keeps a header that is not whole yet. */
static void keep_header(struct server *server, struct connection *connection, struct span header)
{
    if (connection->buffer != CONNECTION_NONE) {
        return;
    }
    if (!buffer_borrow(server, connection, true)) {
        closing_refuse(server, connection, SERVER_REFUSED_TIMEOUT, HANDSHAKE_STATUS_TIMEOUT,
                       span_text("No buffer is left."));
        return;
    }
    memcpy(buffer_of(server, connection), header.data, header.bytes);
}

static void read_handshake(struct server *server, struct connection *connection, bool is_hangup)
{
    struct http_scan *scan = &connection->input.scan;
    size_t had_bytes = scan->scanned_bytes;
    uint8_t *header = connection->buffer == CONNECTION_NONE ? server->read_scratch : buffer_of(server, connection);
    size_t bytes;
    if (!read_some(server, connection, header + had_bytes, server->options.header_bytes_max - had_bytes, is_hangup,
                   &bytes)) {
        return;
    }
    struct span input = span_of(header, had_bytes + bytes);
    switch (http_scan(scan, input, server->options.header_bytes_max)) {
    case HTTP_MORE:
        keep_header(server, connection, input);
        break;
    case HTTP_WHOLE:
        handle_header(server, connection, span_of(header, scan->scanned_bytes),
                      span_of(header + scan->scanned_bytes, input.bytes - scan->scanned_bytes));
        break;
    case HTTP_TOO_LONG:
        closing_refuse(server, connection, SERVER_REFUSED_HEADER_TOO_LARGE, HANDSHAKE_STATUS_HEADER_TOO_LARGE,
                       span_text("The request's header is too long."));
        break;
    case HTTP_GARBAGE:
        closing_refuse(server, connection, SERVER_REFUSED_BAD_REQUEST, HANDSHAKE_STATUS_BAD_REQUEST,
                       span_text("This is not an HTTP request."));
        break;
    }
}

static void read_open(struct server *server, struct connection *connection, bool is_hangup)
{
    if (!connection_has(connection, CONNECTION_WAITING) && !ask_readable(server, connection)) {
        if (connection->state == CONNECTION_OPEN) {
            start_waiting(server, connection);
        }
    }
    if (connection->state != CONNECTION_OPEN) {
        return; /* a handler closed it: what it sent is read when it is ready again */
    }
    bool is_waiting = connection_has(connection, CONNECTION_WAITING);
    if (is_waiting && connection->buffer == CONNECTION_NONE &&
        server->buffers.used_count == server->buffers.block_count) {
        pause_reading(server, connection);
        return;
    }
    size_t bytes;
    size_t capacity = is_waiting ? SERVER_PIECE_BYTES : server->options.read_bytes;
    if (read_some(server, connection, server->read_scratch, capacity, is_hangup, &bytes)) {
        handle_input(server, connection, server->read_scratch, bytes);
    }
}

static void read_to_discard(struct server *server, struct connection *connection, bool is_hangup)
{
    size_t bytes;
    if (read_some(server, connection, server->read_scratch, server->options.read_bytes, is_hangup, &bytes)) {
        struct message_input input = {server->read_scratch, bytes};
        handle_leftover(server, connection, &input);
    }
}

void receive_ready(struct server *server, struct connection *connection, bool is_hangup)
{
    switch ((enum connection_state)connection->state) {
    case CONNECTION_HANDSHAKE:
        read_handshake(server, connection, is_hangup);
        break;
    case CONNECTION_OPEN:
        read_open(server, connection, is_hangup);
        break;
    case CONNECTION_CLOSING:
    case CONNECTION_LINGERING:
        read_to_discard(server, connection, is_hangup);
        break;
    case CONNECTION_FREE:
    case CONNECTION_DEAD:
    case CONNECTION_STATE_COUNT:
        CHECK(false);
    }
}

static void stop_waiting(struct server *server, struct connection *connection)
{
    connection_remove(server, &server->waiting, connection);
    connection_clear(connection, CONNECTION_WAITING | CONNECTION_PAUSED);
}

static void resume(struct server *server, struct connection *connection)
{
    if (connection_has(connection, CONNECTION_PAUSED)) {
        connection->last_receive_ms = (uint32_t)server->now_ms; /* what silence there was is not known */
    }
    stop_waiting(server, connection);
    if (connection_has(connection, CONNECTION_HELD)) {
        uint8_t *buffer = buffer_of(server, connection);
        size_t rest_bytes = connection->rest_bytes;
        memcpy(server->read_scratch, buffer + buffer_tail_offset(server), rest_bytes);
        connection_clear(connection, CONNECTION_HELD);
        deliver(server, connection, buffer, connection->end.held_bytes,
                connection_has(connection, CONNECTION_HELD_BINARY));
        handle_input(server, connection, server->read_scratch, rest_bytes);
    } else if (connection->buffer != CONNECTION_NONE) {
        (void)buffer_borrow(server, connection, false); /* it has one: this puts it among the partial ones again */
    }
    connection_update_interest(server, connection);
}

bool receive_may_resume(struct server *server, struct connection *connection)
{
    if (!ask_readable(server, connection)) {
        return false;
    }
    if (connection_has(connection, CONNECTION_WAITING)) { /* else the handler closed it */
        resume(server, connection);
    }
    return true;
}

void receive_abandon(struct server *server, struct connection *connection)
{
    buffer_shield(server, connection);
    if (connection_has(connection, CONNECTION_WAITING)) {
        stop_waiting(server, connection);
    }
    if (connection_has(connection, CONNECTION_HELD)) {
        connection_clear(connection, CONNECTION_HELD);
        struct message_input rest = {buffer_of(server, connection) + buffer_tail_offset(server),
                                     connection->rest_bytes};
        handle_leftover(server, connection, &rest);
    }
}
