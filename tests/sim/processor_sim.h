/* SPDX-License-Identifier: MIT */
/* The simulated processor, and a backend: what is in the queues is stored or refused, and the gateway told; now and
 * then some of it is told twice, as after a crash of a processor. */
#ifndef POSTERN_TESTS_SIM_PROCESSOR_SIM_H
#define POSTERN_TESTS_SIM_PROCESSOR_SIM_H

#include <stdint.h>

struct world;

struct processor_sim {
    uint32_t done_count; /* of the broker's entries */
    uint32_t told_count; /* messages of a backend, numbered from 1 */
};

void processor_sim_begin(struct world *world);
/* A backend publishes a message for a client; its number. */
uint32_t processor_sim_call(struct world *world, uint32_t client);

#endif
