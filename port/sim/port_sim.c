/* SPDX-License-Identifier: MIT */
/* The machine itself: its calls, its end, and the hash over all that was noted. */
#include "port_sim.h"

#include <stdio.h>
#include <string.h>

#include "sim_inside.h"

/* FNV-1a. */
#define HASH_START UINT64_C(14695981039346656037)
#define HASH_PRIME UINT64_C(1099511628211)

void sim_enter(struct sim *sim)
{
    if (sim->calls_left > 0 && --sim->calls_left == 0) {
        sim->is_on_worker = false;
        sim->handler->on_crash(sim->context);
    }
}

enum port_result sim_fail(struct sim *sim, const char *error)
{
    sim->error = error;
    return PORT_FAILED;
}

void sim_misuse(struct sim *sim, const char *what)
{
    sim->handler->on_misuse(sim->context, what);
}

/* ---- the trace ---- */

void sim_note_bytes(struct sim *sim, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        sim->hash = (sim->hash ^ bytes[i]) * HASH_PRIME;
    }
}

static void note_number(struct sim *sim, uint64_t number)
{
    for (size_t i = 0; i < 8; i++) {
        sim->hash = (sim->hash ^ (uint8_t)(number >> (8 * i))) * HASH_PRIME;
    }
}

void sim_note(struct sim *sim, const char *what, uint64_t a, uint64_t b)
{
    note_number(sim, sim->now_ns);
    sim_note_bytes(sim, (const uint8_t *)what, strlen(what));
    note_number(sim, a);
    note_number(sim, b);
    sim->handler->on_note(sim->context, what, a, b);
}

uint64_t sim_hash(const struct sim *sim)
{
    return sim->hash;
}

/* ---- the port's plain functions ---- */

static void *give_memory(void *context, size_t bytes)
{
    struct sim *sim = context;
    sim_enter(sim);
    if (bytes > sim->memory_bytes) {
        return NULL;
    }
    memset(sim->memory, 0, bytes);
    return sim->memory;
}

static void heap(void *context, struct port_heap *heap)
{
    (void)context;
    *heap = (struct port_heap){0};
}

static bool seal(void *context)
{
    return sim_fail(context, "a simulated machine has no seal") == PORT_OK;
}

static bool reserve_handles(void *context, size_t count)
{
    sim_enter(context);
    return count > 0;
}

static const char *error_text(void *context)
{
    const struct sim *sim = context;
    return sim->error;
}

static uint32_t signals(void *context)
{
    struct sim *sim = context;
    sim_enter(sim);
    uint32_t seen = sim->signals;
    sim->signals = 0;
    return seen;
}

static size_t print(void *context, const void *data, size_t bytes)
{
    (void)context;
    (void)data;
    return bytes;
}

static void format_address(void *context, const struct port_address *address, char text[PORT_ADDRESS_TEXT_BYTES])
{
    (void)context;
    (void)snprintf(text, PORT_ADDRESS_TEXT_BYTES, "%u.%u.%u.%u:%u", address->bytes[0], address->bytes[1],
                   address->bytes[2], address->bytes[3], address->port);
}

static bool parse_address(void *context, const char *host, uint16_t port, struct port_address *address)
{
    (void)context;
    *address = (struct port_address){.port = port};
    size_t part = 0;
    uint32_t value = 0;
    size_t digits = 0;
    for (const char *at = host;; at++) {
        if (*at >= '0' && *at <= '9' && digits < 3) {
            value = value * 10 + (uint32_t)(*at - '0');
            digits++;
        } else if ((*at == '.' || *at == '\0') && digits > 0 && part < 4 && value < 256) {
            address->bytes[part++] = (uint8_t)value;
            value = 0;
            digits = 0;
            if (*at == '\0') {
                return part == 4;
            }
        } else {
            return false;
        }
    }
}

static void host_name(void *context, char *buffer, size_t capacity_bytes)
{
    (void)context;
    (void)snprintf(buffer, capacity_bytes, "box");
}

/* ---- the machine ---- */

size_t sim_memory_bytes(void)
{
    return sizeof(struct sim);
}

/* splitmix64, so that seeds that are neighbours have nothing in common. Never zero. */
static uint64_t mixed(uint64_t seed)
{
    uint64_t value = seed * UINT64_C(0x9E3779B97F4A7C15);
    value = (value ^ (value >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94D049BB133111EB);
    value ^= value >> 31;
    return value == 0 ? 1 : value;
}

/* The disk's pages are zeroed when they are taken, and a stream's bytes are never read before they were written, so
 * that a new run costs little. */
struct sim *sim_begin(void *memory, uint64_t seed, const struct sim_handler *handler, void *context)
{
    struct sim *sim = memory;
    sim->port = (struct port){.context = sim,
                              .memory = give_memory,
                              .heap = heap,
                              .seal = seal,
                              .reserve_handles = reserve_handles,
                              .error_text = error_text,
                              .signals = signals,
                              .print = print,
                              .format_address = format_address,
                              .parse_address = parse_address,
                              .host_name = host_name};
    sim_clock_functions(&sim->port);
    sim_net_functions(&sim->port);
    sim_file_functions(&sim->port);
    sim_worker_functions(&sim->port);
    sim->handler = handler;
    sim->context = context;
    sim->weather = (struct sim_weather){0};
    sim->random[0] = mixed(2 * seed + 1);
    sim->random[1] = mixed(2 * seed + 2);
    sim->hash = HASH_START;
    sim->error = "";
    sim->calls_left = 0;
    sim->is_blocking_allowed = true;
    sim->is_on_worker = false;
    sim->unreadable_count = 0;
    sim->signals = 0;
    sim->is_woken = false;
    sim->memory = NULL;
    sim->memory_bytes = 0;
    sim->now_ns = SIM_S;
    sim->wall_shift_ms = 0;
    sim->next_order = 0;
    sim->event_count = 0;
    for (size_t i = 0; i < SIM_LINKS_MAX; i++) {
        sim->links[i].state = SIM_LINK_FREE;
        sim->links[i].generation = 0;
    }
    sim->link_end = 0;
    sim->is_listening = false;
    sim->is_listener_watched = false;
    memset(sim->lanes, 0, sizeof sim->lanes);
    sim->finished_count = 0;
    sim->worker_generation = 0;
    sim_disk_begin(sim);
    return sim;
}

struct port *sim_port(struct sim *sim)
{
    return &sim->port;
}

struct sim_weather *sim_weather(struct sim *sim)
{
    return &sim->weather;
}

void sim_give_memory(struct sim *sim, void *memory, size_t bytes)
{
    sim->memory = memory;
    sim->memory_bytes = bytes;
}

void sim_signal(struct sim *sim, uint32_t signals_sent)
{
    sim->signals |= signals_sent;
}

void sim_crash_after(struct sim *sim, uint64_t calls)
{
    sim->calls_left = calls;
}

void sim_allow_blocking(struct sim *sim, bool is_allowed)
{
    sim->is_blocking_allowed = is_allowed;
}

void sim_end_machine(struct sim *sim, enum sim_death death)
{
    sim_note(sim, death == SIM_KILLED ? "machine: the gateway is killed" : "machine: power is cut", 0, 0);
    sim->calls_left = 0;
    sim->signals = 0;
    sim->is_woken = false;
    sim->is_on_worker = false;
    sim->is_blocking_allowed = true;
    sim->unreadable_count = 0;
    sim_net_end(sim, death);
    sim_worker_end(sim);
    sim_disk_end(sim, death);
}
