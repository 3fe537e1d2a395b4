/* SPDX-License-Identifier: MIT */
#include "plan.h"

#include <stdio.h>

static uint32_t chosen(struct sim *sim, const uint32_t *values, size_t count)
{
    return values[sim_between(sim, 0, count - 1)];
}

#define CHOSEN(sim, ...)                                                                                               \
    chosen(sim, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

/* A fault that is there in so many of a hundred runs, and then strikes with a chance up to max_ppm. */
static uint32_t maybe(struct sim *sim, uint32_t percent, uint32_t max_ppm)
{
    bool is_there = sim_between(sim, 0, 99) < percent;
    uint32_t ppm = (uint32_t)sim_magnitude(sim, 1, max_ppm);
    return is_there ? ppm : 0;
}

static uint64_t maybe_ns(struct sim *sim, uint32_t percent, uint64_t min_ns, uint64_t max_ns)
{
    bool is_there = sim_between(sim, 0, 99) < percent;
    uint64_t ns = sim_magnitude(sim, min_ns, max_ns);
    return is_there ? ns : 0;
}

static void draw_settings(struct plan *plan, struct sim *sim, struct settings *settings)
{
    settings->admin_port = 0; /* nobody in this world asks for these pages */
    settings->max_connections = plan->client_count;
    if (plan->client_count > 1 && sim_chance(sim, SIM_ALWAYS / 8)) {
        settings->max_connections--;
    }
    settings->max_message_bytes = CHOSEN(sim, 256, 512, 1024, 2048);
    settings->handshake_timeout_ms = (uint32_t)sim_between(sim, 1000, 10000);
    settings->heartbeat_interval_s = (uint32_t)sim_between(sim, 2, 30);
    settings->heartbeat_timeout_s = (uint32_t)sim_between(sim, 2, 10);
    settings->heartbeat_mode = sim_chance(sim, SIM_ALWAYS / 4) ? SETTINGS_HEARTBEAT_MESSAGE : SETTINGS_HEARTBEAT_PING;
    settings->session_policy = (enum settings_session_policy)sim_between(sim, 0, 2);
    plan->reads_for_messages = CHOSEN(sim, 64, 64, 128, 256);
    plan->outbox_messages = plan->reads_for_messages * CHOSEN(sim, 1, 1, 4, 16);
    plan->stage_divisor = CHOSEN(sim, 1, 2);
    settings->outbox_bytes = 256 * UINT64_C(1024);
    settings->publish_window = CHOSEN(sim, 1, 4, 20, 100, 1024);
    settings->send_queue_bytes = CHOSEN(sim, 4096, 8192, 65536);
    settings->drain_ms = CHOSEN(sim, 0, 500, 5000);
    settings->amqp_heartbeat_s = (uint32_t)sim_between(sim, 1, 20);
    settings->queue_type = sim_chance(sim, SIM_ALWAYS / 2) ? SETTINGS_QUEUE_CLASSIC : SETTINGS_QUEUE_QUORUM;
    settings->log_messages = sim_chance(sim, SIM_ALWAYS / 8);
    settings->spool_max_bytes = plan->has_spool ? UINT64_C(64) << 20 : 0;
    settings->spool_full = plan->drops_oldest ? SETTINGS_SPOOL_DROP_OLDEST : SETTINGS_SPOOL_BUSY;
}

static void draw_clients(struct plan *plan, struct sim *sim, const struct settings *settings)
{
    uint64_t actions = sim_magnitude(sim, 20, 400);
    uint64_t mean_ns = plan->storm_ns / actions;
    plan->client_ns_min = mean_ns / 200 + 1;
    plan->client_ns_max = 5 * mean_ns;
    plan->burst_max = CHOSEN(sim, 1, 3, 10, 40, 80);
    plan->message_max = (uint32_t)sim_magnitude(sim, 100, 2000);
    plan->pad_max = settings->max_message_bytes - 100;
    plan->pad_min = sim_chance(sim, SIM_ALWAYS / 4) ? plan->pad_max / 2 : 0;
    plan->anonymous_ppm = plan->drops_oldest ? 0 : CHOSEN(sim, 0, 100000, 500000);
    plan->leave_ppm = maybe(sim, 70, 200000);
    plan->slow_ppm = maybe(sim, 40, 100000);
    plan->twin_ppm = maybe(sim, 40, 100000);
    plan->nonsense_ppm = maybe(sim, 30, 50000);
    plan->chunk_ppm = maybe(sim, 50, 800000);
}

static void draw_broker(struct plan *plan, struct sim *sim)
{
    plan->broker_fault_ns = maybe_ns(sim, 80, plan->storm_ns / 40, plan->storm_ns / 2);
    plan->outage_ns_max = sim_magnitude(sim, SIM_S, plan->storm_ns);
    plan->confirm_ns_min = 10 * SIM_US;
    plan->confirm_ns_max = sim_magnitude(sim, SIM_MS, 5 * SIM_S);
    plan->nack_ppm = maybe(sim, 30, 100000);
    plan->single_ppm = CHOSEN(sim, 0, 200000, 1000000);
    plan->processor_ns_min = SIM_MS;
    plan->processor_ns_max = sim_magnitude(sim, 10 * SIM_MS, 20 * SIM_S);
    plan->backend_ns = maybe_ns(sim, 40, plan->storm_ns / 100, plan->storm_ns / 10);
}

static void draw_weather(struct plan *plan, struct sim *sim)
{
    plan->weather = (struct sim_weather){
        .delay_ns_min = 10 * SIM_US,
        .delay_ns_max = sim_magnitude(sim, 100 * SIM_US, 500 * SIM_MS),
        .partial_ppm = maybe(sim, 60, 500000),
        .connect_fails_ppm = maybe(sim, 20, 300000),
        .accept_fails_ppm = maybe(sim, 20, 300000),
        .write_fails_ppm = maybe(sim, 25, 100000),
        .sync_fails_ppm = maybe(sim, 25, 100000),
        .read_fails_ppm = maybe(sim, 20, 300000),
        .folder_fails_ppm = maybe(sim, 15, 30000),
        .job_ns_min = 10 * SIM_US,
        .job_ns_max = sim_magnitude(sim, 100 * SIM_US, 3 * SIM_S),
        .stall_ppm = maybe(sim, 20, 20000),
        .stall_ns_max = sim_magnitude(sim, 2 * SIM_MS, 20 * SIM_S),
        .resolve_fails_ppm = maybe(sim, 20, 300000),
    };
}

void plan_draw(struct plan *plan, struct sim *sim, struct settings *settings)
{
    *plan = (struct plan){0};
    plan->storm_ns = sim_magnitude(sim, 20 * SIM_S, 3600 * SIM_S);
    plan->client_count = (uint32_t)sim_between(sim, 1, PLAN_CLIENTS_MAX);
    plan->has_spool = !sim_chance(sim, SIM_ALWAYS / 10);
    plan->drops_oldest = plan->has_spool && sim_chance(sim, SIM_ALWAYS / 8);
    draw_settings(plan, sim, settings);
    draw_clients(plan, sim, settings);
    draw_broker(plan, sim);
    plan->crash_ns = maybe_ns(sim, 60, plan->storm_ns / 20, plan->storm_ns);
    plan->power_ppm = CHOSEN(sim, 0, 500000, 1000000);
    plan->stop_ns = maybe_ns(sim, 25, plan->storm_ns / 4, plan->storm_ns);
    plan->segment_bytes = CHOSEN(sim, 8192, 16384, 16384, 65536);
    plan->segment_count = (uint32_t)sim_between(sim, 0, 8); /* beyond the least */
    plan->resizes_spool = sim_chance(sim, SIM_ALWAYS / 5);
    draw_weather(plan, sim);
}

void plan_calm(struct plan *plan, struct sim *sim)
{
    plan->chunk_ppm = 0;
    plan->nack_ppm = 0;
    plan->confirm_ns_max = 5 * SIM_MS;
    plan->processor_ns_max = 100 * SIM_MS;
    plan->crash_ns = 0;
    plan->stop_ns = 0;
    plan->weather = (struct sim_weather){
        .delay_ns_min = 10 * SIM_US, .delay_ns_max = SIM_MS, .job_ns_min = 10 * SIM_US, .job_ns_max = SIM_MS};
    *sim_weather(sim) = plan->weather;
}
