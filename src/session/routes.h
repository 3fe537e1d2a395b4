/* SPDX-License-Identifier: MIT */
/* Where a message of a given type goes: to a handler in the gateway, to a queue, or nowhere.
 *
 * Read once at start from the setting ROUTES, "text,voice,video -> messages; alarm -> alarms; * -> rest": rules split
 * by ';', each a list of types and one queue. `*` names the queue for every type that no rule names. The handlers'
 * own types cannot be routed. Fixed after start. Memory: the struct itself. Thread: any one. */
#ifndef POSTERN_SESSION_ROUTES_H
#define POSTERN_SESSION_ROUTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "limits.h"
#include "span.h"
#include "text.h"

enum {
    ROUTES_TYPES_MAX = 64,  /* a table of 128 one-byte slots stays sparse */
    ROUTES_QUEUES_MAX = 16, /* each is declared at every connect to the broker */
    ROUTES_SLOTS = 128
};

enum route_target {
    ROUTE_QUEUE,  /* to queue `queue_index` */
    ROUTE_PING,   /* answered with a pong */
    ROUTE_PONG,   /* taken as life, and no more */
    ROUTE_UNKNOWN /* no rule */
};

struct route {
    enum route_target target;
    uint16_t queue_index;
};

struct routes {
    struct {
        uint8_t name[MESSAGE_TYPE_BYTES_MAX];
        uint8_t name_bytes;
        struct route route;
    } types[ROUTES_TYPES_MAX];
    struct {
        char name[QUEUE_NAME_BYTES_MAX + 1]; /* terminated */
        uint8_t name_bytes;
    } queues[ROUTES_QUEUES_MAX];
    size_t type_count;
    size_t queue_count;
    struct route otherwise;
    uint8_t slots[ROUTES_SLOTS]; /* open addressing: index into types plus one, 0 is empty */
};

/* Parses the setting. False, with the cause as a sentence in `error`, when it breaks the rules: an empty list, a type
 * outside `a-z 0-9 _ . -`, a queue's name that is empty, over 255 bytes, with blanks, or of the broker's own
 * ("amq."), the same type twice, a handler's type, or too many of either. */
bool routes_parse(struct routes *routes, struct span setting, struct text *error);

struct route routes_find(const struct routes *routes, struct span type);

/* The name of queue `index`, terminated after its end; and back, queue_count for a name that is none of them. */
struct span routes_queue(const struct routes *routes, size_t index);
size_t routes_queue_index(const struct routes *routes, struct span name);

#endif
