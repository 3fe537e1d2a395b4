/* SPDX-License-Identifier: MIT */
/* The worker runs one job after another, each at one moment of virtual time that lies somewhere between its submission
 * and its return. What a job does is seen by the disk and by a crash alone, so a moment is as good as a while. */
#include <string.h>

#include "sim_inside.h"

static void begin_next(struct sim *sim);

static uint64_t later(struct sim *sim)
{
    return sim->now_ns + sim_magnitude(sim, sim->weather.job_ns_min, sim->weather.job_ns_max);
}

static void hand_back(void *context, uint64_t generation)
{
    struct sim *sim = context;
    if (generation == sim->worker_generation) {
        sim->finished[sim->finished_count++] = sim->jobs[0];
        sim->job_count--;
        memmove(sim->jobs, sim->jobs + 1, sim->job_count * sizeof *sim->jobs);
        begin_next(sim);
    }
}

static void work(void *context, uint64_t generation)
{
    struct sim *sim = context;
    if (generation == sim->worker_generation) {
        sim->is_on_worker = true;
        sim->jobs[0]->run(sim->jobs[0]);
        sim->is_on_worker = false;
        sim_at(sim, later(sim), hand_back, sim, generation);
    }
}

static void begin_next(struct sim *sim)
{
    sim->is_working = sim->job_count > 0;
    if (sim->is_working) {
        sim_at(sim, later(sim), work, sim, sim->worker_generation);
    }
}

static bool submit_job(void *context, struct port_job *job)
{
    struct sim *sim = context;
    sim_enter(sim);
    if (sim->job_count + sim->finished_count == PORT_JOBS_MAX) {
        return false;
    }
    for (size_t i = 0; i < sim->job_count; i++) {
        if (sim->jobs[i] == job) {
            sim_misuse(sim, "a job is submitted that is out already");
        }
    }
    sim->jobs[sim->job_count++] = job;
    if (!sim->is_working) {
        begin_next(sim);
    }
    return true;
}

static struct port_job *finished_job(void *context)
{
    struct sim *sim = context;
    sim_enter(sim);
    if (sim->finished_count == 0) {
        return NULL;
    }
    struct port_job *job = sim->finished[0];
    sim->finished_count--;
    memmove(sim->finished, sim->finished + 1, sim->finished_count * sizeof *sim->finished);
    return job;
}

static size_t resolve(void *context, const char *host, uint16_t port, struct port_address *addresses,
                      size_t address_max)
{
    struct sim *sim = context;
    sim_enter(sim);
    if (!sim->is_on_worker) {
        sim_misuse(sim, "a name is looked up outside of the worker");
    }
    if (sim_chance(sim, sim->weather.resolve_fails_ppm)) {
        (void)sim_fail(sim, "no name server answers");
        return 0;
    }
    size_t count = sim_between(sim, 1, 2) < address_max ? (size_t)sim_between(sim, 1, 2) : 1;
    for (size_t i = 0; i < count; i++) {
        addresses[i] = (struct port_address){.bytes = {10, 1, (uint8_t)strlen(host), (uint8_t)(i + 1)}, .port = port};
    }
    return count;
}

void sim_worker_end(struct sim *sim)
{
    sim->worker_generation++;
    sim->job_count = 0;
    sim->finished_count = 0;
    sim->is_working = false;
}

void sim_worker_functions(struct port *port)
{
    port->submit_job = submit_job;
    port->finished_job = finished_job;
    port->resolve = resolve;
}
