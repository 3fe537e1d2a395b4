/* SPDX-License-Identifier: MIT */
/* The table is an array of records; the free, silent, waiting, partial and ending ones are in lists linked by index,
 * the dirty ones in a queue of their own. A generation counts up each time a record is taken, so that a handle names
 * one connection for ever (it would take four thousand million connections on one record to come around). */
#include "connection.h"

#include <string.h>

#include "check.h"

static const bool moves[CONNECTION_STATE_COUNT][CONNECTION_STATE_COUNT] = {
    [CONNECTION_FREE] = {[CONNECTION_HANDSHAKE] = true},
    [CONNECTION_HANDSHAKE] =
        {[CONNECTION_OPEN] = true, [CONNECTION_LINGERING] = true, [CONNECTION_DEAD] = true, [CONNECTION_FREE] = true},
    [CONNECTION_OPEN] = {[CONNECTION_CLOSING] = true, [CONNECTION_LINGERING] = true, [CONNECTION_DEAD] = true},
    [CONNECTION_CLOSING] = {[CONNECTION_LINGERING] = true, [CONNECTION_DEAD] = true},
    [CONNECTION_LINGERING] = {[CONNECTION_DEAD] = true},
    [CONNECTION_DEAD] = {[CONNECTION_FREE] = true},
};

void connection_move(struct connection *connection, enum connection_state to)
{
    CHECK(moves[connection->state][to]);
    connection->state = (uint8_t)to;
}

static void list_clear(struct server_list *list)
{
    *list = (struct server_list){CONNECTION_NONE, CONNECTION_NONE, 0};
}

void connection_table_init(struct server *server)
{
    list_clear(&server->vacant);
    list_clear(&server->silent);
    list_clear(&server->stalled);
    list_clear(&server->waiting);
    list_clear(&server->partial);
    list_clear(&server->ending);
    list_clear(&server->dirty);
    for (uint32_t index = 0; index < server->options.connection_max; index++) {
        connection_append(server, &server->vacant, &server->connections[index]);
    }
}

struct connection *connection_first(const struct server *server, const struct server_list *list)
{
    return list->first == CONNECTION_NONE ? NULL : &server->connections[list->first];
}

struct connection *connection_next(const struct server *server, const struct connection *connection)
{
    return connection->next == CONNECTION_NONE ? NULL : &server->connections[connection->next];
}

void connection_append(struct server *server, struct server_list *list, struct connection *connection)
{
    uint32_t index = connection_index(server, connection);
    connection->previous = list->last;
    connection->next = CONNECTION_NONE;
    if (list->last == CONNECTION_NONE) {
        list->first = index;
    } else {
        server->connections[list->last].next = index;
    }
    list->last = index;
    list->count++;
}

void connection_remove(struct server *server, struct server_list *list, struct connection *connection)
{
    CHECK(list->count > 0);
    if (connection->previous == CONNECTION_NONE) {
        list->first = connection->next;
    } else {
        server->connections[connection->previous].next = connection->next;
    }
    if (connection->next == CONNECTION_NONE) {
        list->last = connection->previous;
    } else {
        server->connections[connection->next].previous = connection->previous;
    }
    list->count--;
}

void connection_mark_dirty(struct server *server, struct connection *connection)
{
    if (connection_has(connection, CONNECTION_DIRTY)) {
        return;
    }
    uint32_t index = connection_index(server, connection);
    connection_set(connection, CONNECTION_DIRTY);
    connection->dirty_next = CONNECTION_NONE;
    if (server->dirty.last == CONNECTION_NONE) {
        server->dirty.first = index;
    } else {
        server->connections[server->dirty.last].dirty_next = index;
    }
    server->dirty.last = index;
    server->dirty.count++;
}

struct connection *connection_pop_dirty(struct server *server)
{
    struct connection *connection = connection_first(server, &server->dirty);
    if (connection == NULL) {
        return NULL;
    }
    server->dirty.first = connection->dirty_next;
    if (server->dirty.first == CONNECTION_NONE) {
        server->dirty.last = CONNECTION_NONE;
    }
    server->dirty.count--;
    connection_clear(connection, CONNECTION_DIRTY);
    return connection;
}

struct connection *connection_take(struct server *server)
{
    struct connection *connection = connection_first(server, &server->vacant);
    if (connection == NULL) {
        return NULL;
    }
    connection_remove(server, &server->vacant, connection);
    uint32_t generation = connection->generation == UINT32_MAX ? 1 : connection->generation + 1;
    *connection = (struct connection){.generation = generation,
                                      .socket = PORT_NONE,
                                      .user_index = (uint32_t)SERVER_USER_NONE,
                                      .last_receive_ms = (uint32_t)server->now_ms,
                                      .send_first = CONNECTION_NONE,
                                      .send_last = CONNECTION_NONE,
                                      .buffer = CONNECTION_NONE};
    connection_move(connection, CONNECTION_HANDSHAKE);
    server->connection_count++;
    return connection;
}

void connection_give(struct server *server, struct connection *connection)
{
    CHECK(connection->buffer == CONNECTION_NONE && connection->send_first == CONNECTION_NONE);
    CHECK(!timer_scheduled(&connection->timer));
    CHECK(!connection_has(connection, CONNECTION_WAITING) && !connection_has(connection, CONNECTION_PARTIAL));
    CHECK(!connection_has(connection, CONNECTION_SILENT));
    connection_move(connection, CONNECTION_FREE);
    connection_append(server, &server->vacant, connection);
    server->connection_count--;
}

void connection_discard(struct server *server, struct connection *connection)
{
    CHECK(connection->socket == PORT_NONE && connection->state == CONNECTION_HANDSHAKE);
    connection_give(server, connection);
}

struct connection *connection_find(const struct server *server, struct connection_handle handle)
{
    if (handle.index >= server->options.connection_max) {
        return NULL;
    }
    struct connection *connection = &server->connections[handle.index];
    bool is_named = connection->generation == handle.generation && connection->state != CONNECTION_FREE;
    return is_named ? connection : NULL;
}

uint64_t connection_token(const struct server *server, const struct connection *connection)
{
    return (uint64_t)server->options.token_tag << TOKEN_TAG_SHIFT |
           (uint64_t)(connection->generation & TOKEN_GENERATION_MASK) << TOKEN_GENERATION_SHIFT |
           connection_index(server, connection);
}

bool connection_reads(const struct connection *connection)
{
    switch ((enum connection_state)connection->state) {
    case CONNECTION_HANDSHAKE:
        return true;
    case CONNECTION_OPEN:
        return !connection_has(connection, CONNECTION_PAUSED);
    case CONNECTION_CLOSING:
    case CONNECTION_LINGERING:
        return !connection_has(connection, CONNECTION_PEER_ENDED);
    case CONNECTION_FREE:
    case CONNECTION_DEAD:
    case CONNECTION_STATE_COUNT:
        break;
    }
    return false;
}

void connection_update_interest(struct server *server, struct connection *connection)
{
    if (connection->socket == PORT_NONE) {
        return;
    }
    uint32_t wanted = connection_reads(connection) ? CONNECTION_READ_WATCHED : 0;
    if (connection_has(connection, CONNECTION_BLOCKED)) {
        wanted |= CONNECTION_WRITE_WATCHED;
    }
    uint32_t mask = CONNECTION_READ_WATCHED | CONNECTION_WRITE_WATCHED;
    if ((connection->flags & mask) == wanted) {
        return;
    }
    connection_clear(connection, mask);
    connection_set(connection, wanted);
    const struct port *port = server->port;
    port->watch_change(port->context, connection->socket,
                       ((wanted & CONNECTION_READ_WATCHED) != 0 ? (uint32_t)PORT_READ : 0) |
                           ((wanted & CONNECTION_WRITE_WATCHED) != 0 ? (uint32_t)PORT_WRITE : 0));
}

/* The open connection a handle names, or NULL. */
static struct connection *find_open(const struct server *server, struct connection_handle handle)
{
    struct connection *connection = connection_find(server, handle);
    return connection != NULL && connection->state == CONNECTION_OPEN ? connection : NULL;
}

static enum connection_result send_message(struct server *server, struct connection_handle handle,
                                           enum frame_opcode opcode, const struct span *parts, size_t part_count)
{
    struct connection *connection = find_open(server, handle);
    if (connection == NULL) {
        return CONNECTION_GONE;
    }
    if (!send_queue_frame(server, connection, opcode, parts, part_count, false)) {
        server->counters.sends_full++;
        return CONNECTION_FULL;
    }
    return CONNECTION_OK;
}

enum connection_result connection_send_text(struct server *server, struct connection_handle handle,
                                            const struct span *parts, size_t part_count)
{
    enum connection_result result = send_message(server, handle, FRAME_TEXT, parts, part_count);
    server->counters.messages_sent += result == CONNECTION_OK ? 1 : 0;
    return result;
}

enum connection_result connection_send_binary(struct server *server, struct connection_handle handle,
                                              const struct span *parts, size_t part_count)
{
    enum connection_result result = send_message(server, handle, FRAME_BINARY, parts, part_count);
    server->counters.messages_sent += result == CONNECTION_OK ? 1 : 0;
    return result;
}

enum connection_result connection_ping(struct server *server, struct connection_handle handle)
{
    return send_message(server, handle, FRAME_PING, NULL, 0);
}

void connection_close(struct server *server, struct connection_handle handle, uint16_t code, struct span reason)
{
    struct connection *connection = find_open(server, handle);
    CHECK(frame_close_code_valid(code));
    if (connection != NULL) {
        closing_begin(server, connection, code, reason);
    }
}

void connection_set_timer(struct server *server, struct connection_handle handle, uint64_t due_ms)
{
    struct connection *connection = find_open(server, handle);
    if (connection != NULL) {
        timer_wheel_add(&server->wheel, &connection->timer, due_ms);
    }
}

bool connection_is_open(const struct server *server, struct connection_handle handle)
{
    return find_open(server, handle) != NULL;
}

bool connection_is_paused(const struct server *server, struct connection_handle handle)
{
    const struct connection *connection = find_open(server, handle);
    return connection != NULL && connection_has(connection, CONNECTION_PAUSED);
}

uint64_t connection_last_receive_ms(const struct server *server, struct connection_handle handle)
{
    const struct connection *connection = connection_find(server, handle);
    return connection == NULL ? 0 : server->now_ms - (uint32_t)((uint32_t)server->now_ms - connection->last_receive_ms);
}

uint32_t connection_queued_bytes(const struct server *server, struct connection_handle handle)
{
    const struct connection *connection = connection_find(server, handle);
    return connection == NULL ? 0 : connection->send_bytes;
}

uint32_t connection_user_index(const struct server *server, struct connection_handle handle)
{
    const struct connection *connection = connection_find(server, handle);
    return connection == NULL ? (uint32_t)SERVER_USER_NONE : connection->user_index;
}

void connection_set_user_index(struct server *server, struct connection_handle handle, uint32_t user_index)
{
    struct connection *connection = connection_find(server, handle);
    if (connection != NULL) {
        connection->user_index = user_index;
    }
}

struct port_address connection_peer(const struct server *server, struct connection_handle handle)
{
    struct port_address peer = {.v6 = false};
    const struct connection *connection = connection_find(server, handle);
    if (connection != NULL) {
        memcpy(peer.bytes, connection->peer_bytes, sizeof peer.bytes);
        peer.port = connection->peer_port;
        peer.v6 = connection_has(connection, CONNECTION_PEER_V6);
    }
    return peer;
}

struct connection_handle server_next(const struct server *server, struct connection_handle after)
{
    uint32_t index = after.generation == 0 ? 0 : after.index + 1;
    for (; index < server->options.connection_max; index++) {
        if (server->connections[index].state == CONNECTION_OPEN) {
            return connection_handle_of(server, &server->connections[index]);
        }
    }
    return (struct connection_handle){0, 0};
}
