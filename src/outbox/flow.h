/* SPDX-License-Identifier: MIT */
/* Which way a message goes to the window: straight through memory, or over the disk.
 *
 * The window holds the oldest messages, the spool the later ones; together they are one queue, in the order in which
 * messages were taken. Through memory a message is in the window at once. If it then is not confirmed in time, or the
 * gateway ends, a copy of it goes to the spool (it is spilled), in the same order. When the window is full and all of
 * it was spilled, messages go over the disk: into the spool alone, from where the window is filled again as it empties.
 * Once the spool is read to its end, the way is through memory again. So while the broker is well, and keeps up, the
 * disk is not touched; and what comes new is always behind what came before.
 *
 * Invariants: numbers rise along the queue; a message of the spool that was read is in the window or was confirmed or
 * dropped; what leaves the window's front is released in the spool. Memory: the spool's, from the arena. Thread: the
 * loop's. */
#ifndef POSTERN_OUTBOX_FLOW_H
#define POSTERN_OUTBOX_FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "outbox.h"
#include "span.h"
#include "spool.h"
#include "window.h"

enum {
    /* How long the oldest message may wait without any confirm before it is spilled: while the link is down or the
     * broker in an alarm, and while all seems well. A short reconnect costs no write. */
    FLOW_DOWN_MS = 500,
    FLOW_STALLED_MS = 2000,

    FLOW_TELL_MS = 10000, /* while the spool drains, the log says so often how much is left */

    FLOW_DROPS_MAX = 256 /* in a turn, so that the log can tell of each */
};

/* The parcels (parcel.h) are the flow's, and live for the call: copy what is to stay. The handler stays alive as long
 * as the flow. */
struct flow_handler {
    /* A message that an earlier start left on the disk, or a few that it had released; in any order, from flow_open. */
    void (*on_found)(void *context, struct span parcel);
    /* A message that is not confirmed is on the disk for good. */
    void (*on_accepted)(void *context, struct span parcel);
    /* The oldest message leaves because the spool is full. may_be_sent: the broker may have it, though no confirm said
     * so. */
    void (*on_dropped)(void *context, struct span parcel, bool may_be_sent);
};

enum flow_route { FLOW_THROUGH_MEMORY, FLOW_OVER_DISK };

struct flow {
    struct port *port;
    struct log *log;
    struct window *window;
    struct spool *spool; /* NULL: there is none, and all goes through memory */
    const struct flow_handler *handler;
    void *context;
    bool drops_oldest;
    size_t stage_bytes;

    enum flow_route route;
    uint64_t next_number;       /* of the next message that is taken */
    uint64_t number_offset;     /* over the disk: a message's number less its spool sequence */
    uint64_t spilled_sequence;  /* the window's: those below it are in the spool, or confirmed */
    uint64_t accepted_sequence; /* the window's: where the search for the next one to be told begins */
    uint64_t progress_ms;       /* the last confirm, or when the window's first message came */
    size_t refused_bytes;       /* of the last request that found no room */
    uint64_t dropped_count;
    uint64_t accepted_count;
    struct {
        uint64_t ms;
        uint64_t sequence;
        uint64_t accepted_count;
        uint64_t dropped_count;
    } begun;          /* when the spool got its first message: the time, which it was, and the counters */
    uint64_t tell_ms; /* while it drains: when the log is to say again how much is left */
    bool is_begun;
    bool is_draining; /* it has messages, and the broker takes them */
    bool is_spilling;
    bool is_securing;
    bool is_short; /* the window had no room for someone, and not all of it could be spilled at once */
};

/* `spool` is NULL for none. While the arena measures, the flow must not be used. */
void flow_init(struct flow *flow, struct arena *arena, struct port *port, struct log *log,
               const struct outbox_spool *spool, size_t parcel_bytes_max, struct window *window,
               const struct flow_handler *handler, void *context);

/* Opens the spool; see spool_open. */
bool flow_open(struct flow *flow, struct text *error);

/* Will `count` messages of so many bytes in all, OUTBOX_OVERHEAD_BYTES_MAX for each included, find room? The promise
 * holds until the next turn. */
bool flow_has_room(struct flow *flow, size_t count, size_t bytes);
/* After a refusal: is it worth trying again? */
bool flow_is_roomy(const struct flow *flow);

/* Where to put a parcel of at most parcel_bytes, or NULL; then it joins the queue with the number next_number. */
uint8_t *flow_reserve(struct flow *flow, size_t parcel_bytes);
void flow_push(struct flow *flow, size_t parcel_bytes, uint64_t now_ms);

/* A confirm came. */
static inline void flow_confirmed(struct flow *flow, uint64_t now_ms)
{
    flow->progress_ms = now_ms;
}

/* Moves what is to be moved. `is_well`: the broker takes messages, as far as is known. Returns when it wants to be
 * called again at the latest. */
uint64_t flow_turn(struct flow *flow, uint64_t now_ms, bool is_well);
bool flow_on_job(struct flow *flow, const struct port_job *job, uint64_t now_ms);

/* Nothing is waiting or undecided. */
bool flow_is_empty(const struct flow *flow);
/* Age of the oldest message, 0 when empty. As long as it is on the disk alone: for how long the spool has had any. */
uint64_t flow_oldest_ms(const struct flow *flow, uint64_t now_ms);
/* From now on all that is not confirmed is spilled at once. */
void flow_secure(struct flow *flow);
/* Whatever is not confirmed is on the disk. */
bool flow_is_secure(const struct flow *flow);

void flow_close(struct flow *flow);
bool flow_is_closed(const struct flow *flow);
void flow_release(struct flow *flow);

#endif
