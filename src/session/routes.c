/* SPDX-License-Identifier: MIT */
/* A small hash table over the types, half empty at most: one lookup a message, without a string compare that fails.
 * The keys come from the settings and not from clients, so a plain hash is enough. */
#include "routes.h"

#include <string.h>

#include "check.h"
#include "envelope.h"

_Static_assert(ROUTES_SLOTS >= 2 * ROUTES_TYPES_MAX, "probing ends soon, also for types that are not there");
_Static_assert(ROUTES_TYPES_MAX < UINT8_MAX, "a slot is one byte");

static uint32_t type_slot(struct span type)
{
    uint32_t hash = 2166136261u; // FNV-1a
    for (size_t index = 0; index < type.bytes; index++) {
        hash = (hash ^ type.data[index]) * 16777619u;
    }
    return (hash ^ hash >> 15) % ROUTES_SLOTS;
}

/* The slot that holds the type, or the empty one where it would go. */
static uint32_t find_slot(const struct routes *routes, struct span type)
{
    uint32_t slot = type_slot(type);
    while (routes->slots[slot] != 0) {
        size_t index = routes->slots[slot] - 1u;
        if (span_equal(span_of(routes->types[index].name, routes->types[index].name_bytes), type)) {
            break;
        }
        slot = (slot + 1) % ROUTES_SLOTS;
    }
    return slot;
}

struct route routes_find(const struct routes *routes, struct span type)
{
    if (type.bytes > MESSAGE_TYPE_BYTES_MAX) {
        return routes->otherwise;
    }
    uint8_t held = routes->slots[find_slot(routes, type)];
    return held == 0 ? routes->otherwise : routes->types[held - 1].route;
}

struct span routes_queue(const struct routes *routes, size_t index)
{
    CHECK(index < routes->queue_count);
    return span_of(routes->queues[index].name, routes->queues[index].name_bytes);
}

size_t routes_queue_index(const struct routes *routes, struct span name)
{
    size_t index = 0;
    while (index < routes->queue_count && !span_equal(routes_queue(routes, index), name)) {
        index++;
    }
    return index;
}

static struct span trimmed(struct span text)
{
    while (text.bytes > 0 && (text.data[0] == ' ' || text.data[0] == '\t')) {
        text.data++;
        text.bytes--;
    }
    while (text.bytes > 0 && (text.data[text.bytes - 1] == ' ' || text.data[text.bytes - 1] == '\t')) {
        text.bytes--;
    }
    return text;
}

/* Cuts off and returns what stands before the first `separator` (of one or two bytes); all when there is none. */
static struct span cut(struct span *rest, const char *separator, bool *found)
{
    size_t separator_bytes = strlen(separator);
    for (size_t at = 0; at + separator_bytes <= rest->bytes; at++) {
        if (memcmp(rest->data + at, separator, separator_bytes) == 0) {
            struct span before = span_of(rest->data, at);
            size_t after = at + separator_bytes;
            *rest = span_of(rest->data + after, rest->bytes - after);
            *found = true;
            return trimmed(before);
        }
    }
    struct span all = *rest;
    *rest = span_of(NULL, 0);
    *found = false;
    return trimmed(all);
}

static bool refuse(struct text *error, const char *before, struct span quoted, const char *after)
{
    text_string(error, before);
    text_char(error, '"');
    text_bytes(error, quoted);
    text_char(error, '"');
    text_string(error, after);
    return false;
}

static bool queue_valid(struct span queue)
{
    if (queue.bytes == 0 || queue.bytes > QUEUE_NAME_BYTES_MAX ||
        (queue.bytes >= 4 && memcmp(queue.data, "amq.", 4) == 0)) {
        return false;
    }
    for (size_t index = 0; index < queue.bytes; index++) {
        if (queue.data[index] <= ' ' || queue.data[index] == 0x7f) {
            return false;
        }
    }
    return true;
}

static bool add_type(struct routes *routes, struct span type, struct route route, struct text *error)
{
    if (span_is(type, "*")) {
        if (routes->otherwise.target != ROUTE_UNKNOWN) {
            return refuse(error, "the type ", type, " is routed twice");
        }
        routes->otherwise = route;
        return true;
    }
    if (!message_type_valid(type)) {
        return refuse(error, "the type ", type, " is not 1 to 32 of a-z 0-9 _ . -");
    }
    uint32_t slot = find_slot(routes, type);
    if (routes->slots[slot] != 0) {
        bool handled = routes->types[routes->slots[slot] - 1u].route.target != ROUTE_QUEUE;
        return refuse(error, "the type ", type, handled ? " is the gateway's own" : " is routed twice");
    }
    if (routes->type_count == ROUTES_TYPES_MAX) {
        return refuse(error, "too many types, at ", type, "");
    }
    size_t index = routes->type_count++;
    memcpy(routes->types[index].name, type.data, type.bytes);
    routes->types[index].name_bytes = (uint8_t)type.bytes;
    routes->types[index].route = route;
    routes->slots[slot] = (uint8_t)(index + 1);
    return true;
}

static bool add_queue(struct routes *routes, struct span queue, uint16_t *queue_index, struct text *error)
{
    if (!queue_valid(queue)) {
        return refuse(error, "the queue's name ", queue,
                      " is not 1 to 255 bytes without blanks, or begins with amq., which is the broker's own");
    }
    size_t index = routes_queue_index(routes, queue);
    *queue_index = (uint16_t)index;
    if (index < routes->queue_count) {
        return true;
    }
    if (index == ROUTES_QUEUES_MAX) {
        return refuse(error, "too many queues, at ", queue, "");
    }
    routes->queue_count++;
    memcpy(routes->queues[index].name, queue.data, queue.bytes);
    routes->queues[index].name[queue.bytes] = '\0';
    routes->queues[index].name_bytes = (uint8_t)queue.bytes;
    return true;
}

/* One rule, "type,type -> queue". */
static bool add_rule(struct routes *routes, struct span rule, struct text *error)
{
    bool arrow;
    struct span queue = rule;
    struct span types = cut(&queue, "->", &arrow);
    queue = trimmed(queue);
    if (!arrow) {
        return refuse(error, "the rule ", rule, " has no \"->\"");
    }
    struct route route = {ROUTE_QUEUE, 0};
    if (!add_queue(routes, queue, &route.queue_index, error)) {
        return false;
    }
    bool more = true;
    while (more) {
        if (!add_type(routes, cut(&types, ",", &more), route, error)) {
            return false;
        }
    }
    return true;
}

bool routes_parse(struct routes *routes, struct span setting, struct text *error)
{
    memset(routes, 0, sizeof *routes);
    routes->otherwise.target = ROUTE_UNKNOWN;
    CHECK(add_type(routes, span_text("ping"), (struct route){ROUTE_PING, 0}, error));
    CHECK(add_type(routes, span_text("pong"), (struct route){ROUTE_PONG, 0}, error));

    bool more = true;
    while (more) {
        struct span rule = cut(&setting, ";", &more);
        // A ';' at the end, or a blank rule between two, is harmless.
        if (rule.bytes > 0 && !add_rule(routes, rule, error)) {
            return false;
        }
    }
    if (routes->queue_count == 0) {
        text_string(error, "it routes no type to any queue");
        return false;
    }
    return true;
}
