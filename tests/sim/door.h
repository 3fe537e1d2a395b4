/* SPDX-License-Identifier: MIT */
/* What the gateway does at its own door, seen where its bytes leave: who was greeted and not let go, so that at the end
 * of each turn there is at most one connection a client id, and no more than MAX_CONNECTIONS. */
#ifndef POSTERN_TESTS_SIM_DOOR_H
#define POSTERN_TESTS_SIM_DOOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct world;

enum { DOOR_LINKS_MAX = 96, DOOR_HEAD_BYTES = 96 };

struct door_link {
    bool is_client;
    bool is_upgraded;
    bool is_greeted;
    bool has_bye;
    uint32_t client;
    uint32_t newlines;             /* of the HTTP answer's end, seen in a row */
    uint8_t head[DOOR_HEAD_BYTES]; /* of the present frame */
    size_t head_bytes;
    uint64_t frame_left; /* bytes of the present frame that did not come */
};

struct door {
    struct door_link links[DOOR_LINKS_MAX];
};

void door_begin(struct door *door);
/* A client's connect: the link's bytes are watched from here. */
void door_open(struct world *world, uint32_t link);
void door_sent(struct world *world, uint32_t link, const uint8_t *data, size_t bytes);
void door_closed(struct world *world, uint32_t link);
void door_turn(struct world *world);

#endif
