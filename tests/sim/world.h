/* SPDX-License-Identifier: MIT */
/* One simulated run: the real gateway over port/sim, a broker, a processor and clients around it, a plan of what goes
 * wrong, and a ledger that knows what must be true. All of it follows from the seed.
 *
 * A run has three parts. First everything happens that the plan allows: faults, crashes, restarts. Then all faults
 * stop, and within a bounded virtual time everything that was promised must have come true and every client be served.
 * Last the clients leave, the pools must be empty, and SIGTERM must end the gateway in good order. */
#ifndef POSTERN_TESTS_SIM_WORLD_H
#define POSTERN_TESTS_SIM_WORLD_H

#include <setjmp.h>
#include <stdio.h>

#include "broker.h"
#include "check.h"
#include "client.h"
#include "door.h"
#include "gateway.h"
#include "ledger.h"
#include "plan.h"
#include "port_sim.h"
#include "processor_sim.h"

enum world_part { WORLD_STORM, WORLD_CALM, WORLD_LEAVING, WORLD_OVER };

/* What a run was made of, so that one can see that faults happened. */
struct world_counts {
    uint64_t turns;
    uint64_t virtual_s;
    uint64_t messages;
    uint64_t enqueued;
    uint64_t crashes;
    uint64_t power_cuts;
    uint64_t stops;
    uint64_t refused_starts;
    uint64_t accepted_told;
    uint64_t queued_told;
    uint64_t stored_told;
};

struct world {
    struct sim *sim;
    uint64_t seed;
    struct plan plan;
    enum world_part part;
    uint64_t part_ns; /* when it began */
    struct settings settings;
    struct gateway gateway;
    uint32_t life;             /* the present start, or the last one; from 1 */
    uint64_t spool_bytes_max;  /* the most that any start had */
    uint64_t spool_full_bytes; /* of records: below it the present start's spool surely has room for another stage */
    struct arena arena;
    bool is_gateway_up;
    bool crashes_at_turn; /* at the end of the present one */
    enum sim_death next_death;
    uint64_t death_number; /* to tell planned deaths apart */
    jmp_buf crashed;
    jmp_buf failed;
    char failure[512];
    bool is_failed;
    FILE *trace; /* NULL: none */
    struct ledger ledger;
    struct broker broker;
    struct processor_sim processor;
    struct clients clients;
    struct door door;
    struct world_counts counts;
    uint64_t turns_at_ns; /* to see a loop that spins */
    uint64_t turns_then;
    uint8_t *memory; /* the gateway's */
    size_t memory_bytes;
    void *sim_memory;
};

/* Makes the record that runs share; it lives until the program ends. */
struct world *world_make(void);

/* Runs a seed to its end. False: it failed, and world->failure says how. */
bool world_run(struct world *world, uint64_t seed, FILE *trace);

/* The run has failed: says why, and does not return. */
_Noreturn void world_fail(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline bool world_is_stormy(const struct world *world)
{
    return world->part == WORLD_STORM;
}

#endif
