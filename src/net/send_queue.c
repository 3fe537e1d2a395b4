/* SPDX-License-Identifier: MIT */
/* What is written to a connection is copied into a chain of chunks and goes out in server_flush. A chain of several
 * small chunks is gathered into one scratch buffer first, because copying is far cheaper than another call into the
 * system. When the chunks run short, what can be sent is sent before the turn ends; losses seen then are only noted,
 * because a handler may be running. If that is not enough, others pay: of the connections whose sockets take no more
 * (the stalled ones) the one that holds the most ends.
 *
 * The stalled ones stand in a list in the order in which their sockets last took something, so one timer watches over
 * all of them. The list runs through the first chunk of each chain: connections that hold none pay nothing for it. */
#include "connection.h"

#include <string.h>

#include "check.h"

struct chunk {
    uint32_t next;
    uint32_t begin; /* first byte not sent */
    uint32_t end;
    uint32_t pong_bytes; /* of a pong that stands whole at the end of this chunk and of the chain; 0: none does */
    /* Of the first chunk of a stalled connection: */
    uint32_t owner;
    uint32_t stalled_ms; /* when the socket last took something, the lower half */
    uint32_t older;      /* first chunks */
    uint32_t newer;
    uint8_t data[];
};

enum { GATHER_BELOW_BYTES = 16384 };

static struct chunk *chunk_at(const struct server *server, uint32_t index)
{
    return (struct chunk *)(void *)(server->chunks.memory + (size_t)index * server->chunks.block_bytes);
}

static size_t chunk_capacity(const struct server *server)
{
    return server->chunks.block_bytes - offsetof(struct chunk, data);
}

static void stall_begin(struct server *server, struct connection *connection)
{
    struct server_list *stalled = &server->stalled;
    struct chunk *chunk = chunk_at(server, connection->send_first);
    chunk->owner = connection_index(server, connection);
    chunk->stalled_ms = (uint32_t)server->now_ms;
    chunk->older = stalled->last;
    chunk->newer = CONNECTION_NONE;
    if (stalled->last == CONNECTION_NONE) {
        stalled->first = connection->send_first;
        timer_wheel_add(&server->wheel, &server->stall_timer, server->now_ms + server->options.stall_timeout_ms);
    } else {
        chunk_at(server, stalled->last)->newer = connection->send_first;
    }
    stalled->last = connection->send_first;
    stalled->count++;
    connection_set(connection, CONNECTION_STALLED);
}

static void stall_end(struct server *server, struct connection *connection)
{
    struct server_list *stalled = &server->stalled;
    const struct chunk *chunk = chunk_at(server, connection->send_first);
    if (chunk->older == CONNECTION_NONE) {
        stalled->first = chunk->newer;
    } else {
        chunk_at(server, chunk->older)->newer = chunk->newer;
    }
    if (chunk->newer == CONNECTION_NONE) {
        stalled->last = chunk->older;
    } else {
        chunk_at(server, chunk->newer)->older = chunk->older;
    }
    stalled->count--;
    connection_clear(connection, CONNECTION_STALLED);
    if (stalled->count == 0) {
        timer_wheel_remove(&server->wheel, &server->stall_timer);
    }
}

void send_queue_check_stalled(struct server *server)
{
    while (server->stalled.count > 0) {
        const struct chunk *first = chunk_at(server, server->stalled.first);
        uint32_t stalled_for_ms = (uint32_t)server->now_ms - first->stalled_ms;
        if (stalled_for_ms < server->options.stall_timeout_ms) {
            timer_wheel_add(&server->wheel, &server->stall_timer,
                            server->now_ms + server->options.stall_timeout_ms - stalled_for_ms);
            return;
        }
        struct connection *connection = &server->connections[first->owner];
        if (!connection_has(connection, CONNECTION_BLOCKED)) { /* it has become writable in this turn */
            if (!send_queue_push(server, connection)) {
                closing_kill(server, connection);
            }
        } else if (connection->state != CONNECTION_OPEN) {
            closing_kill(server, connection);
        } else {
            stall_end(server, connection); /* from now on it has the time of any closing one */
            stall_begin(server, connection);
            closing_finish(server, connection, CONNECTION_SLOW, FRAME_CLOSE_POLICY,
                           span_text("you do not read what is sent to you"));
        }
    }
}

/* The stalled connection for which the most waits, of several the one stalled for longest. NULL: none is stalled. */
static struct connection *greatest_stalled(const struct server *server)
{
    struct connection *greatest = NULL;
    for (uint32_t index = server->stalled.first; index != CONNECTION_NONE;) {
        const struct chunk *chunk = chunk_at(server, index);
        struct connection *connection = &server->connections[chunk->owner];
        if (greatest == NULL || connection->send_bytes > greatest->send_bytes) {
            greatest = connection;
        }
        index = chunk->newer;
    }
    return greatest;
}

/* How many chunks have to be free so that `bytes` more fit, with the reserve left alone unless it is for the last
 * word. */
static size_t chunks_needed(const struct server *server, const struct connection *connection, size_t bytes,
                            bool is_last_word)
{
    size_t capacity = chunk_capacity(server);
    size_t room = 0;
    if (connection->send_last != CONNECTION_NONE) {
        room = capacity - chunk_at(server, connection->send_last)->end;
    }
    if (bytes <= room) {
        return 0;
    }
    return (bytes - room + capacity - 1) / capacity + (is_last_word ? 0 : SERVER_CHUNKS_RESERVED);
}

static bool chunks_suffice(const struct server *server, const struct connection *connection, size_t bytes,
                           bool is_last_word)
{
    return chunks_needed(server, connection, bytes, is_last_word) <=
           server->chunks.block_count - server->chunks.used_count;
}

/* Those who do not read make room, unless the connection itself is the one for which the most waits. */
static bool free_chunks(struct server *server, struct connection *connection, size_t bytes, bool is_last_word)
{
    if (chunks_needed(server, connection, bytes, is_last_word) > server->chunks.block_count) {
        return false;
    }
    while (!chunks_suffice(server, connection, bytes, is_last_word)) {
        struct connection *greatest = greatest_stalled(server);
        if (greatest == NULL || greatest == connection) {
            return false;
        }
        closing_cut_off(server, greatest);
    }
    return true;
}

/* Sends before the turn ends. What nobody will get makes room at once. */
static void push_early(struct server *server, struct connection *connection)
{
    if (!connection_has(connection, CONNECTION_SEND_FAILED) && !send_queue_push(server, connection)) {
        connection_set(connection, CONNECTION_SEND_FAILED);
        send_queue_drop(server, connection);
        connection_mark_dirty(server, connection);
    }
}

static void push_all(struct server *server)
{
    for (uint32_t index = server->dirty.first; index != CONNECTION_NONE;) {
        struct connection *connection = &server->connections[index];
        index = connection->dirty_next;
        push_early(server, connection);
    }
}

static bool fits_the_cap(const struct server *server, const struct connection *connection, size_t bytes)
{
    return connection->send_bytes + bytes <= server->options.send_queue_bytes;
}

static bool make_room(struct server *server, struct connection *connection, size_t bytes, bool is_last_word)
{
    if (chunks_suffice(server, connection, bytes, is_last_word)) {
        return true;
    }
    push_all(server);
    if (chunks_suffice(server, connection, bytes, is_last_word) ||
        free_chunks(server, connection, bytes, is_last_word)) {
        return true;
    }
    server->chunks.refused_count++;
    return false;
}

/* There is room (make_room). */
static void append(struct server *server, struct connection *connection, struct span bytes)
{
    size_t capacity = chunk_capacity(server);
    connection->send_bytes += (uint32_t)bytes.bytes;
    while (bytes.bytes > 0) {
        struct chunk *last = NULL;
        if (connection->send_last != CONNECTION_NONE) {
            last = chunk_at(server, connection->send_last);
        }
        if (last == NULL || last->end == capacity) {
            struct chunk *added = pool_take(&server->chunks);
            CHECK(added != NULL);
            *added = (struct chunk){.next = CONNECTION_NONE};
            size_t offset = (size_t)((uint8_t *)added - server->chunks.memory);
            uint32_t index = (uint32_t)(offset / server->chunks.block_bytes);
            if (last == NULL) {
                connection->send_first = index;
            } else {
                last->next = index;
            }
            connection->send_last = index;
            last = added;
        }
        last->pong_bytes = 0;
        size_t room = capacity - last->end;
        size_t taken = bytes.bytes < room ? bytes.bytes : room;
        memcpy(last->data + last->end, bytes.data, taken);
        last->end += (uint32_t)taken;
        bytes = span_of(bytes.data + taken, bytes.bytes - taken);
    }
}

bool send_queue_frame(struct server *server, struct connection *connection, enum frame_opcode opcode,
                      const struct span *parts, size_t part_count, bool is_last_word)
{
    size_t payload_bytes = 0;
    for (size_t index = 0; index < part_count; index++) {
        payload_bytes += parts[index].bytes;
    }
    if (payload_bytes > UINT32_MAX / 2) {
        return false;
    }
    uint8_t header[FRAME_SEND_HEADER_BYTES_MAX];
    size_t header_bytes = frame_write_header(header, opcode, true, payload_bytes);
    if (!is_last_word && !fits_the_cap(server, connection, header_bytes + payload_bytes)) {
        push_early(server, connection);
        if (!fits_the_cap(server, connection, header_bytes + payload_bytes)) {
            return false;
        }
    }
    if (!make_room(server, connection, header_bytes + payload_bytes, is_last_word)) {
        return false;
    }
    append(server, connection, span_of(header, header_bytes));
    for (size_t index = 0; index < part_count; index++) {
        append(server, connection, parts[index]);
    }
    connection_mark_dirty(server, connection);
    return true;
}

/* The unsent pong at the end of the chain gives its place to one of `bytes` bytes, if it can hold it. */
static void take_back_pong(struct server *server, struct connection *connection, size_t bytes)
{
    if (connection->send_last == CONNECTION_NONE) {
        return;
    }
    struct chunk *last = chunk_at(server, connection->send_last);
    bool is_unsent = last->pong_bytes > 0 && last->end - last->begin >= last->pong_bytes;
    if (is_unsent && bytes <= chunk_capacity(server) - last->end + last->pong_bytes) {
        last->end -= last->pong_bytes;
        connection->send_bytes -= last->pong_bytes;
    }
}

void send_queue_pong(struct server *server, struct connection *connection, struct span payload)
{
    uint8_t frame[FRAME_SEND_HEADER_BYTES_MAX + WEBSOCKET_CONTROL_BYTES_MAX];
    size_t bytes = frame_write_header(frame, FRAME_PONG, true, payload.bytes);
    if (payload.bytes > 0) {
        memcpy(frame + bytes, payload.data, payload.bytes);
    }
    bytes += payload.bytes;
    if (connection->send_bytes + bytes > chunk_capacity(server)) {
        push_early(server, connection); /* so that it is known whether the peer reads */
    }
    if (connection_has(connection, CONNECTION_BLOCKED)) {
        take_back_pong(server, connection, bytes);
    }
    if (!make_room(server, connection, bytes, false)) {
        return;
    }
    append(server, connection, span_of(frame, bytes));
    struct chunk *last = chunk_at(server, connection->send_last);
    last->pong_bytes = last->end >= bytes ? (uint32_t)bytes : 0;
    connection_mark_dirty(server, connection);
}

bool send_queue_plain(struct server *server, struct connection *connection, struct span bytes)
{
    if (!make_room(server, connection, bytes.bytes, true)) {
        return false;
    }
    append(server, connection, bytes);
    connection_mark_dirty(server, connection);
    return true;
}

/* Takes `bytes` bytes off the front of the chain. */
static void consume(struct server *server, struct connection *connection, size_t bytes)
{
    connection->send_bytes -= (uint32_t)bytes;
    while (bytes > 0) {
        struct chunk *first = chunk_at(server, connection->send_first);
        size_t held = first->end - first->begin;
        if (bytes < held) {
            first->begin += (uint32_t)bytes;
            return;
        }
        bytes -= held;
        connection->send_first = first->next;
        if (first->next == CONNECTION_NONE) {
            connection->send_last = CONNECTION_NONE;
        }
        pool_give(&server->chunks, first);
    }
}

/* What one send can take: the first chunk, or several gathered. */
static struct span next_bytes(struct server *server, const struct connection *connection)
{
    const struct chunk *chunk = chunk_at(server, connection->send_first);
    size_t held = chunk->end - chunk->begin;
    if (chunk->next == CONNECTION_NONE || held >= GATHER_BELOW_BYTES) {
        return span_of(chunk->data + chunk->begin, held);
    }
    size_t gathered = 0;
    for (;;) {
        held = chunk->end - chunk->begin;
        size_t room = SERVER_SEND_BYTES - gathered;
        size_t taken = held < room ? held : room;
        memcpy(server->send_scratch + gathered, chunk->data + chunk->begin, taken);
        gathered += taken;
        if (chunk->next == CONNECTION_NONE || gathered == SERVER_SEND_BYTES) {
            return span_of(server->send_scratch, gathered);
        }
        chunk = chunk_at(server, chunk->next);
    }
}

bool send_queue_push(struct server *server, struct connection *connection)
{
    const struct port *port = server->port;
    while (connection->send_bytes > 0 && !connection_has(connection, CONNECTION_BLOCKED)) {
        struct span bytes = next_bytes(server, connection);
        size_t sent_bytes = 0;
        server->counters.sends++;
        enum port_result result = port->send(port->context, connection->socket, bytes.data, bytes.bytes, &sent_bytes);
        switch (result) {
        case PORT_OK:
            server->counters.bytes_sent += sent_bytes;
            if (connection_has(connection, CONNECTION_STALLED)) {
                stall_end(server, connection);
            }
            consume(server, connection, sent_bytes);
            if (sent_bytes < bytes.bytes) {
                connection_set(connection, CONNECTION_BLOCKED);
            }
            break;
        case PORT_AGAIN:
            connection_set(connection, CONNECTION_BLOCKED);
            break;
        case PORT_CLOSED:
        case PORT_FAILED:
            return false;
        }
    }
    if (connection->send_bytes > 0 && !connection_has(connection, CONNECTION_STALLED)) {
        stall_begin(server, connection);
    }
    return true;
}

void send_queue_drop(struct server *server, struct connection *connection)
{
    if (connection_has(connection, CONNECTION_STALLED)) {
        stall_end(server, connection);
    }
    consume(server, connection, connection->send_bytes);
}
