/* SPDX-License-Identifier: MIT */
/* What a run is made of, drawn from the seed before anything happens: sizes, policies, and which faults strike how
 * often. Many runs leave most faults out, because what one fault does alone is easily hidden behind others. */
#ifndef POSTERN_TESTS_SIM_PLAN_H
#define POSTERN_TESTS_SIM_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "port_sim.h"
#include "settings.h"

enum { PLAN_CLIENTS_MAX = 8, PLAN_QUEUES = 2 };

struct plan {
    uint64_t storm_ns;
    uint32_t client_count;
    uint32_t message_max; /* of the whole storm */
    uint32_t pad_min;     /* bytes of a message's filling */
    uint32_t pad_max;
    bool has_spool;
    bool drops_oldest;
    uint32_t segment_bytes;
    uint32_t segment_count;
    bool resizes_spool; /* each start has another number of segments */
    uint32_t outbox_messages;
    uint32_t reads_for_messages; /* reads, and the spool's stage, are sized for an outbox of so many */
    uint32_t stage_divisor;

    /* Clients; the spans are the pauses between two things a client does. */
    uint64_t client_ns_min;
    uint64_t client_ns_max;
    uint32_t burst_max;
    uint32_t anonymous_ppm; /* messages without an id */
    uint32_t leave_ppm;
    uint32_t slow_ppm;
    uint32_t twin_ppm; /* a second connection with the same id */
    uint32_t nonsense_ppm;
    uint32_t chunk_ppm;

    /* Broker; pauses between two faults of it (0: none), and how long one lasts. */
    uint64_t broker_fault_ns;
    uint64_t outage_ns_max;
    uint64_t confirm_ns_min;
    uint64_t confirm_ns_max;
    uint32_t nack_ppm;
    uint32_t single_ppm; /* confirms one by one, in any order */

    /* Gateway; 0: none. */
    uint64_t crash_ns;
    uint32_t power_ppm; /* of crashes that are power cuts */
    uint64_t stop_ns;   /* SIGTERM and a new start */

    uint64_t processor_ns_min;
    uint64_t processor_ns_max;
    uint64_t backend_ns; /* between two messages of a backend */
    struct sim_weather weather;
};

void plan_draw(struct plan *plan, struct sim *sim, struct settings *settings);
/* All faults out, what is left is quick. */
void plan_calm(struct plan *plan, struct sim *sim);

#endif
