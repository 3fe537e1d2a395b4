/* SPDX-License-Identifier: MIT */
/* The clients' side: from an upgrade to a session, from a message to the outbox, heartbeats, pressure, and the end.
 *
 * Invariant: an admitted connection's user index is its session's index for exactly as long as it has one. A client
 * that does not read what it is sent is closed with 1008, never buffered without end or for ever. Memory: the
 * gateway's. Thread: the loop's. */
#ifndef POSTERN_GATEWAY_CLIENTS_H
#define POSTERN_GATEWAY_CLIENTS_H

#include <stdbool.h>

#include "server.h"
#include "session.h"
#include "span.h"

struct gateway;

enum {
    /* What a client is told to wait under pressure; it need not obey, it is not read meanwhile. */
    CLIENTS_RETRY_AFTER_MS = 500,

    CLIENTS_CLOSE_ALREADY_CONNECTED = 4009,
    CLIENTS_CLOSE_TAKEN_OVER = 4010
};

/* For server_init, with the gateway as context. */
extern const struct server_handler clients_handler;

/* Sends a text from outside the server's callbacks (a receipt, a backend's message). When its queue is full, although
 * all that its socket takes was sent, the client is closed as slow. False: it was not queued. */
bool clients_tell(struct gateway *gateway, const struct session *session, struct span text);

/* Resumes those who wait, as far as there is room. Outside of callbacks. */
void clients_resume(struct gateway *gateway);

/* Bounds of what one read of read_bytes of a client can bring (see clients.c). */
size_t clients_read_message_count(uint32_t read_bytes);
size_t clients_read_content_bytes(uint32_t read_bytes, uint32_t message_bytes_max);

#endif
