/* SPDX-License-Identifier: MIT */
/* Time and chance. Events lie in a heap, by time and then by the order in which they were asked for, so that two at the
 * same time always run in the same order. */
#include "sim_inside.h"

/* ---- chance: xorshift64*, whose state is never zero ---- */

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

uint64_t sim_random(struct sim *sim)
{
    return next_random(&sim->random[0]);
}

uint64_t sim_between(struct sim *sim, uint64_t low, uint64_t high)
{
    CHECK(low <= high);
    uint64_t count = high - low + 1;
    return count == 0 ? sim_random(sim) : low + sim_random(sim) % count;
}

uint64_t sim_magnitude(struct sim *sim, uint64_t low, uint64_t high)
{
    CHECK(low <= high);
    uint64_t doublings = 0;
    while (doublings < 63 && ((low + 1) << (doublings + 1)) - 1 <= high) {
        doublings++;
    }
    uint64_t chosen = sim_between(sim, 0, doublings);
    uint64_t from = ((low + 1) << chosen) - 1;
    uint64_t to = ((low + 1) << (chosen + 1)) - 2;
    return sim_between(sim, from, to < high ? to : high);
}

bool sim_chance(struct sim *sim, uint32_t ppm)
{
    return ppm > 0 && sim_between(sim, 1, SIM_ALWAYS) <= ppm;
}

static void fill_random(void *context, void *buffer, size_t bytes)
{
    struct sim *sim = context;
    uint8_t *at = buffer;
    sim_enter(sim);
    for (size_t i = 0; i < bytes; i++) {
        at[i] = (uint8_t)(next_random(&sim->random[1]) >> 56);
    }
}

/* ---- events ---- */

static bool is_before(const struct sim_event *a, const struct sim_event *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->order < b->order;
}

void sim_at(struct sim *sim, uint64_t due_ns, void (*run)(void *context, uint64_t argument), void *context,
            uint64_t argument)
{
    CHECK(sim->event_count < SIM_EVENTS_MAX);
    struct sim_event event = {due_ns < sim->now_ns ? sim->now_ns : due_ns, sim->next_order++, run, context, argument};
    size_t at = sim->event_count++;
    while (at > 0 && is_before(&event, &sim->events[(at - 1) / 2])) {
        sim->events[at] = sim->events[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    sim->events[at] = event;
}

static struct sim_event pop(struct sim *sim)
{
    struct sim_event first = sim->events[0];
    struct sim_event moved = sim->events[--sim->event_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child + 1 < sim->event_count && is_before(&sim->events[child + 1], &sim->events[child])) {
            child++;
        }
        if (child >= sim->event_count || !is_before(&sim->events[child], &moved)) {
            break;
        }
        sim->events[at] = sim->events[child];
        at = child;
    }
    sim->events[at] = moved;
    return first;
}

bool sim_step(struct sim *sim, uint64_t until_ns)
{
    if (sim->event_count == 0 || sim->events[0].due_ns > until_ns) {
        return false;
    }
    struct sim_event event = pop(sim);
    sim->now_ns = event.due_ns > sim->now_ns ? event.due_ns : sim->now_ns;
    event.run(event.context, event.argument);
    return true;
}

void sim_run_due(struct sim *sim)
{
    while (sim_step(sim, sim->now_ns)) {
    }
}

void sim_pass(struct sim *sim, uint64_t until_ns)
{
    while (sim_step(sim, until_ns)) {
    }
    sim->now_ns = until_ns > sim->now_ns ? until_ns : sim->now_ns;
}

/* ---- the program's clock, and its waiting ---- */

uint64_t sim_now_ns(const struct sim *sim)
{
    return sim->now_ns;
}

void sim_shift_wall(struct sim *sim, int64_t shift_ms)
{
    sim->wall_shift_ms += shift_ms;
}

static uint64_t now_ns(void *context)
{
    struct sim *sim = context;
    sim_enter(sim);
    return sim->now_ns;
}

static int64_t wall_ms(void *context)
{
    struct sim *sim = context;
    sim_enter(sim);
    return INT64_C(1795449192000) + (int64_t)(sim->now_ns / SIM_MS) + sim->wall_shift_ms;
}

static bool is_roused(const struct sim *sim)
{
    return sim->is_woken || sim->signals != 0 || sim->finished_count > 0;
}

static size_t wait_for_events(void *context, struct port_event *events, size_t event_max, int64_t timeout_ms)
{
    struct sim *sim = context;
    sim_enter(sim);
    sim->handler->on_turn(sim->context);
    bool stalls = sim_chance(sim, sim->weather.stall_ppm);
    sim->now_ns += stalls ? sim_magnitude(sim, SIM_MS, sim->weather.stall_ns_max) : sim_between(sim, 1000, 50000);
    sim_run_due(sim);
    uint64_t until_ns = timeout_ms < 0 ? UINT64_MAX : sim->now_ns + (uint64_t)timeout_ms * SIM_MS;
    size_t count = sim_ready(sim, events, event_max);
    while (count == 0 && !is_roused(sim)) {
        if (!sim_step(sim, until_ns)) {
            CHECK(until_ns != UINT64_MAX);
            sim->now_ns = until_ns;
            break;
        }
        sim_run_due(sim);
        count = sim_ready(sim, events, event_max);
    }
    sim->is_woken = false;
    return count;
}

static void wake(void *context)
{
    struct sim *sim = context;
    sim->is_woken = true;
}

void sim_clock_functions(struct port *port)
{
    port->now_ns = now_ns;
    port->wall_ms = wall_ms;
    port->random = fill_random;
    port->wait = wait_for_events;
    port->wake = wake;
}
