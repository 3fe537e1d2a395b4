/* SPDX-License-Identifier: MIT */
/* The opening handshake of a WebSocket, the server's side (RFC 6455 section 4.2, over RFC 9112): reads a request,
 * writes the answer. Bytes in, values out: no socket, no clock.
 *
 * `http_scan` (http.h) says when the header is whole or can no longer become one; `handshake_parse` then reads it in
 * one pass.
 *
 * Memory: the caller's; the spans of a request point into the header it gave. Thread: any. */
#ifndef POSTERN_WEBSOCKET_HANDSHAKE_H
#define POSTERN_WEBSOCKET_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "span.h"
#include "text.h"

enum {
    HANDSHAKE_KEY_BYTES = 24,           /* Sec-WebSocket-Key: 16 bytes in base64 */
    HANDSHAKE_ACCEPT_BYTES = 28,        /* Sec-WebSocket-Accept: a SHA-1 in base64 */
    HANDSHAKE_RESPONSE_BYTES_MAX = 384, /* room for every response written here */
    HANDSHAKE_REASON_BYTES_MAX = 120    /* a refusal's sentence beyond this is cut */
};

/* The HTTP statuses the handshake itself answers with. Owners may refuse with others (handshake_write_refusal). */
enum {
    HANDSHAKE_STATUS_SWITCHING = 101,
    HANDSHAKE_STATUS_BAD_REQUEST = 400,
    HANDSHAKE_STATUS_TIMEOUT = 408,
    HANDSHAKE_STATUS_UPGRADE_REQUIRED = 426,
    HANDSHAKE_STATUS_HEADER_TOO_LARGE = 431
};

/* A client's request for an upgrade, whole and valid. Spans are as sent: nothing is percent-decoded. */
struct handshake_request {
    struct span path;  /* from the '/' on, without the query; at least one byte */
    struct span query; /* without the '?'; empty when there is none */
    struct span key;   /* Sec-WebSocket-Key, HANDSHAKE_KEY_BYTES of it */
};

/* Why a request was refused: the status to answer and one static sentence for the body and the log. */
struct handshake_refusal {
    uint16_t status;
    const char *reason;
};

/* Reads a whole header as http_scan measured it. True: `request` is a valid upgrade to WebSocket version 13.
 * False: `refusal` says why: 426 for well-formed HTTP that asks for no WebSocket or for another version of it, 400
 * for all else. */
bool handshake_parse(struct span header, struct handshake_request *request, struct handshake_refusal *refusal);

/* Writes the 101 response. */
void handshake_write_accept(struct text *out, struct span key);

/* Writes a whole HTTP response with Connection: close and the reason as its text body; 426 names the version we
 * speak (RFC 6455 section 4.4). An empty reason stands for the status's own phrase; characters that are not
 * printable ASCII are left out of it. */
void handshake_write_refusal(struct text *out, uint16_t status, struct span reason);

#endif
