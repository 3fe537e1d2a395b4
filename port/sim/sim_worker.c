/* SPDX-License-Identifier: MIT */
/* A lane's worker runs one job after another, each at one moment of virtual time that lies somewhere between its
 * submission and its return. What a job does is seen by the disk and by a crash alone, so a moment is as good as a
 * while. */
#include <string.h>

#include "sim_inside.h"

/* An event's argument: the life of the machine, and the lane. */
static uint64_t name_of(const struct sim *sim, enum port_lane lane)
{
    return (uint64_t)sim->worker_generation << 32 | (uint64_t)lane;
}

static struct sim_lane *named(struct sim *sim, uint64_t name)
{
    return (uint32_t)(name >> 32) == sim->worker_generation ? &sim->lanes[(uint32_t)name] : NULL;
}

static uint64_t later(struct sim *sim)
{
    return sim->now_ns + sim_magnitude(sim, sim->weather.job_ns_min, sim->weather.job_ns_max);
}

static struct port_job *take_first(struct port_job **jobs, size_t *count)
{
    struct port_job *first = jobs[0];
    --*count;
    for (size_t i = 0; i < *count; i++) {
        jobs[i] = jobs[i + 1];
    }
    return first;
}

static void work(void *context, uint64_t name);

static void hand_back(void *context, uint64_t name)
{
    struct sim *sim = context;
    struct sim_lane *lane = named(sim, name);
    if (lane == NULL) {
        return;
    }
    sim->finished[sim->finished_count++] = take_first(lane->jobs, &lane->job_count);
    if (lane->job_count > 0) {
        sim_at(sim, later(sim), work, sim, name);
    }
}

static void work(void *context, uint64_t name)
{
    struct sim *sim = context;
    struct sim_lane *lane = named(sim, name);
    if (lane != NULL) {
        sim->is_on_worker = true;
        lane->jobs[0]->run(lane->jobs[0]);
        sim->is_on_worker = false;
        sim_at(sim, later(sim), hand_back, sim, name);
    }
}

static bool submit_job(void *context, struct port_job *job)
{
    struct sim *sim = context;
    sim_enter(sim);
    CHECK(job->lane < PORT_LANE_COUNT);
    struct sim_lane *lane = &sim->lanes[job->lane];
    if (lane->out_count == PORT_JOBS_MAX) {
        return false;
    }
    for (size_t i = 0; i < lane->job_count; i++) {
        if (lane->jobs[i] == job) {
            sim_misuse(sim, "a job is submitted that is out already");
        }
    }
    lane->jobs[lane->job_count++] = job;
    lane->out_count++;
    if (lane->job_count == 1) {
        sim_at(sim, later(sim), work, sim, name_of(sim, job->lane));
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
    struct port_job *job = take_first(sim->finished, &sim->finished_count);
    sim->lanes[job->lane].out_count--;
    return job;
}

static size_t resolve(void *context, const char *host, uint16_t port, struct port_address *addresses,
                      size_t address_max)
{
    struct sim *sim = context;
    sim_enter(sim);
    if (!sim->is_on_worker) {
        sim_misuse(sim, "a name is looked up outside of a worker");
    }
    if (sim_chance(sim, sim->weather.resolve_fails_ppm)) {
        (void)sim_fail(sim, "no name server answers");
        return 0;
    }
    size_t count = (size_t)sim_between(sim, 1, address_max < 2 ? address_max : 2);
    for (size_t i = 0; i < count; i++) {
        addresses[i] = (struct port_address){.bytes = {10, 1, (uint8_t)strlen(host), (uint8_t)(i + 1)}, .port = port};
    }
    return count;
}

void sim_worker_end(struct sim *sim)
{
    sim->worker_generation++;
    memset(sim->lanes, 0, sizeof sim->lanes);
    sim->finished_count = 0;
}

void sim_worker_functions(struct port *port)
{
    port->submit_job = submit_job;
    port->finished_job = finished_job;
    port->resolve = resolve;
}
