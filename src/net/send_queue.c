/* SPDX-License-Identifier: MIT */
/* What is written to a connection is copied into a chain of chunks and goes out in server_flush. A chain of several
 * small chunks is gathered into one scratch buffer first, because copying is far cheaper than another call into the
 * system. When the chunks run short, what can be sent is sent before the turn ends; losses seen then are only noted,
 * because a handler may be running. */
#include "connection.h"

#include <string.h>

#include "check.h"

struct chunk {
    uint32_t next;
    uint32_t begin; /* first byte not sent */
    uint32_t end;
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

/* Whether `bytes` more fit into the chunks that are free, leaving the reserve alone unless it is for the last word. */
static bool chunks_suffice(const struct server *server, const struct connection *connection, size_t bytes,
                           bool is_last_word)
{
    size_t capacity = chunk_capacity(server);
    size_t room = 0;
    if (connection->send_last != CONNECTION_NONE) {
        room = capacity - chunk_at(server, connection->send_last)->end;
    }
    size_t needed = bytes <= room ? 0 : (bytes - room + capacity - 1) / capacity;
    size_t kept = is_last_word ? 0 : SERVER_CHUNKS_RESERVED;
    return needed == 0 || needed + kept <= server->chunks.block_count - server->chunks.used_count;
}

/* Sends before the turn ends. */
static void push_early(struct server *server, struct connection *connection)
{
    if (!connection_has(connection, CONNECTION_SEND_FAILED) && !send_queue_push(server, connection)) {
        connection_set(connection, CONNECTION_SEND_FAILED);
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
    if (!is_last_word && !fits_the_cap(server, connection, bytes)) {
        push_early(server, connection);
        if (!fits_the_cap(server, connection, bytes)) {
            return false;
        }
    }
    if (chunks_suffice(server, connection, bytes, is_last_word)) {
        return true;
    }
    push_all(server);
    if (chunks_suffice(server, connection, bytes, is_last_word)) {
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
    return true;
}

void send_queue_drop(struct server *server, struct connection *connection)
{
    consume(server, connection, connection->send_bytes);
}
