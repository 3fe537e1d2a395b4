/* SPDX-License-Identifier: MIT */
/* Buffers are lent to connections whose input is cut. When the pool is empty the one that has been partial for
 * longest pays: the first of the partial list, which is kept in the order of borrowing. */
#include "connection.h"

#include "check.h"

size_t buffer_tail_offset(const struct server *server)
{
    size_t message_bytes = message_buffer_bytes(server->options.message_bytes_max);
    size_t header_bytes = server->options.header_bytes_max;
    return message_bytes > header_bytes ? message_bytes : header_bytes;
}

uint8_t *buffer_of(const struct server *server, const struct connection *connection)
{
    if (connection->buffer == CONNECTION_NONE) {
        return NULL;
    }
    return server->buffers.memory + (size_t)connection->buffer * server->buffers.block_bytes;
}

void buffer_shield(struct server *server, struct connection *connection)
{
    if (connection_has(connection, CONNECTION_PARTIAL)) {
        connection_remove(server, &server->partial, connection);
        connection_clear(connection, CONNECTION_PARTIAL);
    }
    if (connection_has(connection, CONNECTION_SILENT)) {
        connection_remove(server, &server->silent, connection);
        connection_clear(connection, CONNECTION_SILENT);
    }
}

/* Takes the buffer of the connection that has been partial for longest, and ends that connection. */
static bool evict(struct server *server, struct connection *heir)
{
    struct connection *loser = connection_first(server, &server->partial);
    if (loser == NULL) {
        return false;
    }
    CHECK(loser != heir);
    buffer_shield(server, loser);
    heir->buffer = loser->buffer;
    loser->buffer = CONNECTION_NONE;
    server->counters.evicted++;
    struct span reason = span_text("Too slow while others wait.");
    if (loser->state == CONNECTION_HANDSHAKE) {
        closing_refuse(server, loser, SERVER_REFUSED_TIMEOUT, HANDSHAKE_STATUS_TIMEOUT, reason);
    } else {
        closing_finish(server, loser, CONNECTION_EVICTED, FRAME_CLOSE_TRY_AGAIN_LATER, reason);
    }
    return true;
}

bool buffer_borrow(struct server *server, struct connection *connection, bool may_evict)
{
    if (connection->buffer == CONNECTION_NONE) {
        uint8_t *block = pool_take(&server->buffers);
        if (block != NULL) {
            connection->buffer = (uint32_t)((size_t)(block - server->buffers.memory) / server->buffers.block_bytes);
        } else if (!may_evict || !evict(server, connection)) {
            return false;
        }
        if (connection->state == CONNECTION_DEAD) {
            return true; /* it held the most chunks, and telling the other one took them; the flush gives the buffer
                            back */
        }
    }
    if (!connection_has(connection, CONNECTION_WAITING) && !connection_has(connection, CONNECTION_PARTIAL)) {
        buffer_shield(server, connection);
        connection_append(server, &server->partial, connection);
        connection_set(connection, CONNECTION_PARTIAL);
    }
    return true;
}

void buffer_return(struct server *server, struct connection *connection)
{
    buffer_shield(server, connection);
    if (connection->buffer != CONNECTION_NONE) {
        pool_give(&server->buffers, buffer_of(server, connection));
        connection->buffer = CONNECTION_NONE;
    }
}
