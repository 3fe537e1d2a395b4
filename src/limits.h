/* SPDX-License-Identifier: MIT */
/* The ceilings that more than one room has to know, with unit, reason and what they cost in memory. What a user may
 * choose is a setting (shared/settings.h); what stands here is fixed by a protocol, by the product's contract or by a
 * type. A ceiling of one room alone stands in that room's header. */
#ifndef POSTERN_LIMITS_H
#define POSTERN_LIMITS_H

enum {
    /* A client's name in the URL, in bytes: fits a UUID, a serial number, a MAC address or a short URN. Stands in
     * each session record. */
    CLIENT_ID_BYTES_MAX = 64,

    /* A message's type and the client's own id for it, in bytes. They stand in each outbox entry. */
    MESSAGE_TYPE_BYTES_MAX = 32,
    MESSAGE_ID_BYTES_MAX = 64,

    /* The gateway's own name, in bytes: a DNS label, because it is a routing key and a part of a queue's name. */
    GATEWAY_ID_BYTES_MAX = 63,

    /* A queue's name, in bytes: AMQP 0-9-1's short string. */
    QUEUE_NAME_BYTES_MAX = 255,

    /* Objects and arrays within each other: deep enough for real data, small enough that no parser needs a stack. */
    JSON_DEPTH_MAX = 32,

    /* A WebSocket control frame's payload, in bytes (RFC 6455 section 5.5). */
    WEBSOCKET_CONTROL_BYTES_MAX = 125,
};

_Static_assert(MESSAGE_ID_BYTES_MAX + 1 + CLIENT_ID_BYTES_MAX <= 255, "message_id is an AMQP short string");

#endif
