/* SPDX-License-Identifier: MIT */
/* Events, timers and the end of a turn. A token names a record and the low bits of its generation, so that an event of
 * a connection that ended earlier in the turn finds nobody. All that a turn changed is in the dirty queue, and
 * server_flush settles one record after the other until it is empty: it says on_closed, sends, shuts, frees. */
#include "server.h"

#include <string.h>

#include "check.h"
#include "connection.h"

enum {
    DEFAULT_HEADER_BYTES = 8192,
    DEFAULT_READ_BYTES = 65536,
    DEFAULT_CHUNK_BYTES = 2048,
    DEFAULT_ACCEPT_MAX = 64,
    DEFAULT_HANDSHAKE_TIMEOUT_MS = 10000,
    DEFAULT_CLOSE_TIMEOUT_MS = 2000,
    DEFAULT_STALL_TIMEOUT_MS = 10000,
    CHUNK_BYTES_MIN = 512, /* an HTTP answer or a close frame fits into one */
    ACCEPT_PAUSE_MS = 100,
    DISPLACE_AFTER_MS = 100, /* an honest client's request is there by then */
    WHEEL_SLOTS = 1024,
    WHEEL_TICK_MS = 50
};

static void set_defaults(struct server_options *options)
{
    const struct {
        uint32_t *option;
        uint32_t value;
    } defaults[] = {{&options->header_bytes_max, DEFAULT_HEADER_BYTES},
                    {&options->read_bytes, DEFAULT_READ_BYTES},
                    {&options->chunk_bytes, DEFAULT_CHUNK_BYTES},
                    {&options->accept_max, DEFAULT_ACCEPT_MAX},
                    {&options->handshake_timeout_ms, DEFAULT_HANDSHAKE_TIMEOUT_MS},
                    {&options->close_timeout_ms, DEFAULT_CLOSE_TIMEOUT_MS},
                    {&options->stall_timeout_ms, DEFAULT_STALL_TIMEOUT_MS}};
    for (size_t index = 0; index < sizeof defaults / sizeof defaults[0]; index++) {
        if (*defaults[index].option == 0) {
            *defaults[index].option = defaults[index].value;
        }
    }
    CHECK(options->port != NULL);
    CHECK(options->connection_max > 0 && options->connection_max <= SERVER_CONNECTIONS_MAX);
    CHECK(options->buffer_count > 0);
    CHECK(options->message_bytes_max > 0 && options->message_bytes_max <= UINT32_MAX / 4);
    CHECK(options->header_bytes_max >= SERVER_PIECE_BYTES && options->header_bytes_max <= UINT16_MAX);
    CHECK(options->read_bytes >= SERVER_PIECE_BYTES);
    CHECK(options->chunk_count > SERVER_CHUNKS_RESERVED && options->chunk_bytes >= CHUNK_BYTES_MIN);
    CHECK(options->send_queue_bytes <= UINT32_MAX / 2);
}

void server_init(struct server *server, struct arena *arena, const struct server_options *options,
                 const struct server_handler *handler, void *context, uint64_t now_ms)
{
    CHECK(handler->on_request != NULL && handler->on_open != NULL && handler->readable != NULL);
    CHECK(handler->on_message != NULL && handler->on_closed != NULL);
    *server = (struct server){.options = *options, .handler = *handler, .context = context, .now_ms = now_ms};
    set_defaults(&server->options);
    options = &server->options;
    server->port = options->port;
    server->listener = PORT_NONE;
    server->connections = arena_take(arena, "connection records", options->connection_max, sizeof(struct connection));
    pool_init(&server->buffers, arena, "buffers for partial and held messages", options->buffer_count,
              buffer_tail_offset(server) + SERVER_PIECE_BYTES);
    pool_init(&server->chunks, arena, "chunks of the send queues", options->chunk_count, options->chunk_bytes);
    /* A handshake is read into it too. */
    size_t scratch_bytes =
        options->read_bytes > options->header_bytes_max ? options->read_bytes : options->header_bytes_max;
    server->read_scratch = arena_take(arena, "bytes of one read", 1, scratch_bytes);
    server->send_scratch = arena_take(arena, "bytes of one send", 1, SERVER_SEND_BYTES);
    timer_wheel_init(&server->wheel, arena, WHEEL_SLOTS, WHEEL_TICK_MS, now_ms);
    if (arena_measuring(arena)) {
        return;
    }
    connection_table_init(server);
}

static uint64_t listener_token(const struct server *server)
{
    return (uint64_t)server->options.token_tag << TOKEN_TAG_SHIFT | CONNECTION_NONE;
}

bool server_listen(struct server *server, const struct port_address *address)
{
    const struct port *port = server->port;
    CHECK(server->listener == PORT_NONE);
    port_socket listener;
    if (port->listen(port->context, address, &listener) != PORT_OK) {
        return false;
    }
    if (port->watch_add(port->context, listener, PORT_READ, listener_token(server)) != PORT_OK) {
        port->close_socket(port->context, listener);
        return false;
    }
    server->listener = listener;
    server->accepting = true;
    return true;
}

bool server_local_address(const struct server *server, struct port_address *address)
{
    const struct port *port = server->port;
    return server->listener != PORT_NONE && port->local_address(port->context, server->listener, address) == PORT_OK;
}

void server_stop_accepting(struct server *server)
{
    const struct port *port = server->port;
    if (server->listener == PORT_NONE) {
        return;
    }
    timer_wheel_remove(&server->wheel, &server->accept_timer);
    timer_wheel_remove(&server->wheel, &server->displace_timer);
    port->watch_remove(port->context, server->listener);
    port->close_socket(port->context, server->listener);
    server->listener = PORT_NONE;
    server->accepting = false;
}

static void pause_accepting(struct server *server)
{
    server->accepting = false;
    server->port->watch_change(server->port->context, server->listener, 0);
}

/* Of those closing that have been sent all they get, the one closing for longest; NULL when there is none. */
static struct connection *first_to_hurry(const struct server *server)
{
    struct connection *connection = connection_first(server, &server->ending);
    while (connection != NULL && connection->send_bytes > 0) {
        connection = connection_next(server, connection);
    }
    return connection;
}

/* The one that has been in its handshake for longest, those who have said nothing first; NULL when there is none. */
static struct connection *oldest_handshake(const struct server *server)
{
    struct connection *connection = connection_first(server, &server->silent);
    if (connection != NULL) {
        return connection;
    }
    connection = connection_first(server, &server->partial);
    while (connection != NULL && connection->state != CONNECTION_HANDSHAKE) {
        connection = connection_next(server, connection);
    }
    return connection;
}

/* From when on a handshake may be displaced. Its timer tells when it began. */
static uint64_t displaceable_ms(const struct server *server, const struct connection *connection)
{
    return connection->timer.due_ms - server->options.handshake_timeout_ms + DISPLACE_AFTER_MS;
}

static bool can_make_room(const struct server *server)
{
    if (server->vacant.count > 0 || first_to_hurry(server) != NULL) {
        return true;
    }
    const struct connection *oldest = oldest_handshake(server);
    return oldest != NULL && displaceable_ms(server, oldest) <= server->now_ms;
}

/* Accepts again, unless there is a reason not to: no listener, a pause that is not over, or no record to be had. Then
 * the time is set at which there may be one without an event: when a handshake has become old enough. */
static void resume_accepting(struct server *server)
{
    if (server->listener == PORT_NONE || server->accepting || timer_scheduled(&server->accept_timer)) {
        return;
    }
    if (can_make_room(server)) {
        timer_wheel_remove(&server->wheel, &server->displace_timer);
        server->accepting = true;
        server->port->watch_change(server->port->context, server->listener, PORT_READ);
        return;
    }
    const struct connection *oldest = oldest_handshake(server);
    if (oldest != NULL) {
        timer_wheel_add(&server->wheel, &server->displace_timer, displaceable_ms(server, oldest));
    }
}

/* Out of handles or memory: the newcomers stay in the listener's queue for a while. */
static void accept_later(struct server *server)
{
    server->counters.accept_failed++;
    pause_accepting(server);
    timer_wheel_add(&server->wheel, &server->accept_timer, server->now_ms + ACCEPT_PAUSE_MS);
}

static bool admit(struct server *server, port_socket socket, const struct port_address *peer)
{
    const struct port *port = server->port;
    struct connection *connection = connection_take(server);
    CHECK(connection != NULL);
    if (port->watch_add(port->context, socket, PORT_READ, connection_token(server, connection)) != PORT_OK) {
        port->close_socket(port->context, socket);
        connection_discard(server, connection);
        return false;
    }
    connection->socket = socket;
    connection_set(connection, CONNECTION_READ_WATCHED | (peer->v6 ? (uint32_t)CONNECTION_PEER_V6 : 0));
    memcpy(connection->peer_bytes, peer->bytes, sizeof connection->peer_bytes);
    connection->peer_port = peer->port;
    connection_append(server, &server->silent, connection);
    connection_set(connection, CONNECTION_SILENT);
    timer_wheel_add(&server->wheel, &connection->timer, server->now_ms + server->options.handshake_timeout_ms);
    if (server->options.patience_ms > 0) {
        port->set_patience(port->context, socket, server->options.patience_ms);
    }
    server->counters.accepted++;
    return true;
}

/* The oldest handshake makes room, unless its request turns out to be there. Who is answered 408 is sent that in the
 * next flush and can be hurried then. */
static void displace_one(struct server *server)
{
    struct connection *connection = oldest_handshake(server);
    if (connection == NULL || displaceable_ms(server, connection) > server->now_ms) {
        return;
    }
    receive_ready(server, connection, false);
    if (connection->state == CONNECTION_HANDSHAKE) {
        server->counters.displaced++;
        closing_refuse(server, connection, SERVER_REFUSED_TIMEOUT, HANDSHAKE_STATUS_TIMEOUT,
                       span_text("Too slow while others wait."));
    }
}

/* All records are in use and somebody waits: the closing ones to whom all is sent make room, longest first, or else a
 * handshake. Records are free after the next flush. */
static void make_room(struct server *server)
{
    struct connection *connection = first_to_hurry(server);
    if (connection == NULL) {
        displace_one(server);
    }
    for (uint32_t count = 0; count < server->options.accept_max && connection != NULL; count++) {
        server->counters.hurried++;
        closing_kill(server, connection);
        connection = first_to_hurry(server);
    }
}

static void accept_some(struct server *server)
{
    const struct port *port = server->port;
    if (server->vacant.count == 0) {
        make_room(server);
        pause_accepting(server);
        return;
    }
    for (uint32_t count = 0; count < server->options.accept_max && server->vacant.count > 0; count++) {
        port_socket socket;
        struct port_address peer;
        switch (port->accept(port->context, server->listener, &socket, &peer)) {
        case PORT_OK:
            if (!admit(server, socket, &peer)) {
                accept_later(server);
                return;
            }
            break;
        case PORT_AGAIN:
            return;
        case PORT_CLOSED:
        case PORT_FAILED:
            accept_later(server);
            return;
        }
    }
}

void server_on_event(struct server *server, const struct port_event *event, uint64_t now_ms)
{
    CHECK(!server->in_handler);
    server->now_ms = now_ms;
    uint32_t index = (uint32_t)event->token;
    if (index == CONNECTION_NONE) {
        if (server->accepting) {
            accept_some(server);
        }
        return;
    }
    CHECK(index < server->options.connection_max);
    struct connection *connection = &server->connections[index];
    if (connection->socket == PORT_NONE || connection_token(server, connection) != event->token) {
        return;
    }
    bool is_hangup = (event->ready & PORT_HANGUP) != 0;
    if ((event->ready & PORT_WRITE) != 0) {
        connection_clear(connection, CONNECTION_BLOCKED);
        connection_mark_dirty(server, connection);
    }
    if (connection_reads(connection)) {
        if ((event->ready & (PORT_READ | PORT_HANGUP)) != 0) {
            receive_ready(server, connection, is_hangup);
        }
    } else if (is_hangup) {
        closing_kill(server, connection);
    }
}

static void on_due(struct server *server, struct connection *connection)
{
    switch ((enum connection_state)connection->state) {
    case CONNECTION_HANDSHAKE:
        closing_refuse(server, connection, SERVER_REFUSED_TIMEOUT, HANDSHAKE_STATUS_TIMEOUT,
                       span_text("The handshake took too long."));
        break;
    case CONNECTION_OPEN:
        if (server->handler.on_timer != NULL) {
            server->in_handler = true;
            server->handler.on_timer(server->context, connection_handle_of(server, connection));
            server->in_handler = false;
        }
        break;
    case CONNECTION_CLOSING:
    case CONNECTION_LINGERING:
        closing_kill(server, connection);
        break;
    case CONNECTION_FREE:
    case CONNECTION_DEAD:
    case CONNECTION_STATE_COUNT:
        CHECK(false);
    }
}

void server_tick(struct server *server, uint64_t now_ms)
{
    CHECK(!server->in_handler);
    server->now_ms = now_ms;
    struct timer_node *timer = timer_wheel_expired(&server->wheel, now_ms);
    for (; timer != NULL; timer = timer_wheel_expired(&server->wheel, now_ms)) {
        if (timer == &server->accept_timer || timer == &server->displace_timer) {
            resume_accepting(server);
        } else if (timer == &server->stall_timer) {
            send_queue_check_stalled(server);
        } else {
            on_due(server, TIMER_OWNER(timer, struct connection, timer));
        }
    }
}

uint64_t server_next_ms(const struct server *server)
{
    return server->dirty.count > 0 ? server->now_ms : timer_wheel_next_ms(&server->wheel);
}

void server_resume(struct server *server, uint64_t now_ms)
{
    CHECK(!server->in_handler);
    server->now_ms = now_ms;
    for (;;) {
        struct connection *connection = connection_first(server, &server->waiting);
        if (connection == NULL || !receive_may_resume(server, connection)) {
            return;
        }
    }
}

/* Brings one dirty record to rest. It may become dirty again. */
static void settle(struct server *server, struct connection *connection)
{
    if (connection_has(connection, CONNECTION_CLOSED_DUE)) {
        connection_clear(connection, CONNECTION_CLOSED_DUE);
        server->in_handler = true;
        server->handler.on_closed(server->context, connection_handle_of(server, connection),
                                  (enum connection_cause)connection->end.closed.cause, connection->end.closed.code);
        server->in_handler = false;
    }
    if (connection->state >= CONNECTION_CLOSING) {
        buffer_return(server, connection);
    }
    if (connection_has(connection, CONNECTION_DIRTY)) {
        return; /* it was cut off by what its own on_closed wrote to others: it comes up again */
    }
    if (connection->state == CONNECTION_DEAD) {
        connection_give(server, connection);
        return;
    }
    if (connection_has(connection, CONNECTION_SEND_FAILED) || !send_queue_push(server, connection)) {
        closing_kill(server, connection);
        return;
    }
    if (connection->state == CONNECTION_LINGERING && connection->send_bytes == 0) {
        if (connection_has(connection, CONNECTION_PEER_ENDED)) {
            closing_kill(server, connection);
            return;
        }
        if (!connection_has(connection, CONNECTION_SHUT)) {
            connection_set(connection, CONNECTION_SHUT);
            server->port->shutdown_send(server->port->context, connection->socket);
        }
    }
    connection_update_interest(server, connection);
}

void server_flush(struct server *server, uint64_t now_ms)
{
    CHECK(!server->in_handler);
    server->now_ms = now_ms;
    struct connection *connection = connection_pop_dirty(server);
    for (; connection != NULL; connection = connection_pop_dirty(server)) {
        settle(server, connection);
    }
    resume_accepting(server);
}
