/* SPDX-License-Identifier: MIT */
/* The orderly end after SIGTERM.
 *
 * From the first moment nobody new is let in and nothing more is taken from those who are here, so that all that was
 * taken can be confirmed by the broker and told to its clients. Then the clients are closed with 1012, evenly spread
 * over what DRAIN_MS leaves, so that they do not all come back elsewhere at once; what is still unconfirmed is put on
 * the disk, or without a spool gets a last chance; the links are closed in good order. Memory: none. Thread: the
 * loop's. */
#ifndef POSTERN_GATEWAY_DRAIN_H
#define POSTERN_GATEWAY_DRAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "server.h"

struct gateway;

enum {
    /* The part of DRAIN_MS given to confirms before the first client is closed. */
    DRAIN_CONFIRM_PART = 4,

    /* After all clients were told: for what the broker did not confirm yet, and then for the closing handshakes. With
     * the default DRAIN_MS all of it stays within the ten seconds that supervisors commonly give. */
    DRAIN_FLUSH_MS = 2000,
    DRAIN_CLOSE_MS = 2000
};

enum drain_state {
    DRAIN_IDLE,       /* nobody asked to stop */
    DRAIN_CONFIRMING, /* clients hear their last receipts */
    DRAIN_TELLING,    /* clients are closed one after another */
    DRAIN_FLUSHING,   /* the outbox gets its last chance */
    DRAIN_CLOSING,    /* links and connections close */
    DRAIN_DONE,
    DRAIN_STATE_COUNT
};

struct drain {
    enum drain_state state;
    bool secured; /* the outbox was told to, while clients can still hear of it */
    uint64_t begin_ms;
    uint64_t state_ms; /* since when it is in this state */
    uint64_t tell_ms;  /* the time over which clients are closed */
    uint32_t tell_count;
    uint32_t told_count;
    struct connection_handle last;
};

static inline bool drain_running(const struct drain *drain)
{
    return drain->state != DRAIN_IDLE;
}

/* SIGTERM came. */
void drain_begin(struct gateway *gateway);

/* Does what is due; last in a turn, so that nothing it waits for comes unseen behind it. Returns when to call it next
 * at the latest; UINT64_MAX while nobody asked to stop. */
uint64_t drain_turn(struct gateway *gateway);

#endif
