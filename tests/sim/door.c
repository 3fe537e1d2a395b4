/* SPDX-License-Identifier: MIT */
/* A reader of the gateway's frames that keeps only the beginning of each. */
#include "door.h"

#include <string.h>

#include "world.h"

void door_begin(struct door *door)
{
    memset(door, 0, sizeof *door);
}

void door_open(struct world *world, uint32_t link)
{
    memset(&world->door.links[link], 0, sizeof world->door.links[link]);
    world->door.links[link].is_client = true;
}

void door_closed(struct world *world, uint32_t link)
{
    world->door.links[link].is_client = false;
}

static void on_frame(struct world *world, struct door_link *at, size_t header_bytes)
{
    static const char greeting[] = "{\"type\":\"connected\"";
    uint8_t opcode = at->head[0] & 15;
    at->has_bye = at->has_bye || opcode == 8;
    if (opcode == 1 && memcmp(at->head + header_bytes, greeting, sizeof greeting - 1) == 0) {
        const char *id = "\"client_id\":\"c";
        for (size_t i = header_bytes; i + 15 < at->head_bytes; i++) {
            if (memcmp(at->head + i, id, strlen(id)) == 0) {
                at->client = (uint32_t)(at->head[i + strlen(id)] - '0');
                at->is_greeted = true;
            }
        }
        if (!at->is_greeted || at->client >= world->plan.client_count) {
            world_fail(world, "somebody is greeted who is not there");
        }
    }
}

/* How many bytes of header the frame has; 0: not known yet. */
static size_t header_of(const struct door_link *at, uint64_t *payload_bytes)
{
    if (at->head_bytes < 2) {
        return 0;
    }
    uint8_t length = at->head[1] & 127;
    size_t header_bytes = length < 126 ? 2 : length == 126 ? 4 : 10;
    if (at->head_bytes < header_bytes) {
        return 0;
    }
    *payload_bytes = length;
    if (length >= 126) {
        *payload_bytes = 0;
        for (size_t i = 2; i < header_bytes; i++) {
            *payload_bytes = *payload_bytes << 8 | at->head[i];
        }
    }
    return header_bytes;
}

static void take_byte(struct world *world, struct door_link *at, uint8_t byte)
{
    if (!at->is_upgraded) {
        bool is_end = byte == '\n' || byte == '\r';
        at->newlines = is_end ? at->newlines + 1 : 0;
        at->is_upgraded = at->newlines == 4;
        return;
    }
    if (at->head_bytes < DOOR_HEAD_BYTES) {
        at->head[at->head_bytes] = byte;
    }
    at->head_bytes++;
    uint64_t payload_bytes = 0;
    size_t header_bytes = header_of(at, &payload_bytes);
    if (header_bytes > 0 && at->head_bytes == header_bytes + payload_bytes) {
        size_t whole_bytes = at->head_bytes;
        at->head_bytes = whole_bytes < DOOR_HEAD_BYTES ? whole_bytes : DOOR_HEAD_BYTES;
        on_frame(world, at, header_bytes);
        at->head_bytes = 0;
    }
}

void door_sent(struct world *world, uint32_t link, const uint8_t *data, size_t bytes)
{
    struct door_link *at = &world->door.links[link];
    for (size_t i = 0; at->is_client && i < bytes; i++) {
        take_byte(world, at, data[i]);
    }
}

void door_turn(struct world *world)
{
    uint32_t greeted_count = 0;
    uint32_t counts[PLAN_CLIENTS_MAX] = {0};
    for (uint32_t i = 0; i < DOOR_LINKS_MAX; i++) {
        const struct door_link *at = &world->door.links[i];
        /* A bye may be stuck behind what the client does not read. */
        bool is_in = at->is_client && at->is_greeted && !at->has_bye && !sim_near_is_stuffed(world->sim, i);
        greeted_count += is_in;
        if (is_in && ++counts[at->client] > 1) {
            world_fail(world, "c%u has two sessions", (unsigned)at->client);
        }
    }
    if (greeted_count > world->settings.max_connections) {
        world_fail(world, "%u clients are connected, and MAX_CONNECTIONS is %u", (unsigned)greeted_count,
                   world->settings.max_connections);
    }
}
