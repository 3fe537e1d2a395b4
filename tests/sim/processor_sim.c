/* SPDX-License-Identifier: MIT */
#include "processor_sim.h"

#include <string.h>

#include "world.h"

enum { BATCH_MAX = 8 };

static enum ledger_status judge(struct world *world)
{
    uint64_t chance = sim_between(world->sim, 0, 19);
    return chance == 0 ? LEDGER_REJECTED : chance == 1 ? LEDGER_DEAD : LEDGER_STORED;
}

/* Writes one receipt; the bytes. */
static size_t write_receipt(struct world *world, const struct broker_entry *entry, char *text)
{
    const struct ledger_message *message = &world->ledger.messages[entry->index];
    ledger_processed(world, entry->index, judge(world));
    size_t used = (size_t)sprintf(text, "{\"client_id\":\"c%u\",", message->client);
    if (message->has_id) {
        used += (size_t)sprintf(text + used, "\"id\":\"m%u\",", (unsigned)message->number);
    }
    used += (size_t)sprintf(text + used, "\"ref\":\"%s\",\"status\":\"%s\"", entry->ref,
                            ledger_status_name(message->verdict));
    if (message->verdict != LEDGER_STORED) {
        used += (size_t)sprintf(text + used, ",\"code\":\"outside_hours\",\"reason\":\"outside hours\"");
    }
    text[used++] = '}';
    return used;
}

static void tell(struct world *world, uint32_t first, uint32_t count)
{
    char body[BROKER_DOWN_BYTES];
    size_t used = (size_t)sprintf(body, "{\"receipts\":[");
    for (uint32_t i = 0; i < count; i++) {
        body[used] = ',';
        used += i > 0;
        used += write_receipt(world, &world->broker.entries[first + i], body + used);
    }
    used += (size_t)sprintf(body + used, "]}");
    broker_publish_down(world, "gateway.gw", true, span_of(body, used));
}

static void work(void *context, uint64_t argument)
{
    struct world *world = context;
    struct processor_sim *processor = &world->processor;
    (void)argument;
    uint32_t waiting = world->broker.entry_count - processor->done_count;
    bool is_calm = !world_is_stormy(world);
    if (waiting > 0 && !world->broker.is_down) {
        uint32_t count = (uint32_t)sim_between(world->sim, 1, waiting < BATCH_MAX ? waiting : BATCH_MAX);
        tell(world, processor->done_count, count);
        processor->done_count += count;
        if (!is_calm && sim_chance(world->sim, SIM_ALWAYS / 20)) {
            processor->done_count -= (uint32_t)sim_between(world->sim, 0, count); /* its acks were lost */
        }
    }
    uint64_t pause_ns = waiting > BATCH_MAX
                            ? world->plan.processor_ns_min
                            : sim_magnitude(world->sim, world->plan.processor_ns_min, world->plan.processor_ns_max);
    sim_at(world->sim, sim_now_ns(world->sim) + pause_ns, work, world, 0);
}

uint32_t processor_sim_call(struct world *world, uint32_t client)
{
    char key[BROKER_KEY_BYTES];
    char body[64];
    uint32_t number = ++world->processor.told_count;
    (void)snprintf(key, sizeof key, "client.c%u", (unsigned)client);
    (void)snprintf(body, sizeof body, "{\"b\":%u,\"to\":\"c%u\"}", (unsigned)number, (unsigned)client);
    broker_publish_down(world, key, false, span_text(body));
    return number;
}

static void call(void *context, uint64_t argument)
{
    struct world *world = context;
    (void)argument;
    if (world_is_stormy(world)) {
        (void)processor_sim_call(world, (uint32_t)sim_between(world->sim, 0, world->plan.client_count - 1));
        sim_at(world->sim, sim_now_ns(world->sim) + sim_magnitude(world->sim, SIM_MS, 2 * world->plan.backend_ns), call,
               world, 0);
    }
}

void processor_sim_begin(struct world *world)
{
    world->processor = (struct processor_sim){0};
    sim_at(world->sim, SIM_S, work, world, 0);
    if (world->plan.backend_ns > 0) {
        call(world, 0);
    }
}
