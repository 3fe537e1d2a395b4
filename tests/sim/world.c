/* SPDX-License-Identifier: MIT */
/* The program's life: it is started as main.c starts it, turns until it crashes, is stopped, or the run is over, and is
 * started again on what the disk has kept. A crash leaves the gateway's code by longjmp from any of its calls. */
#include "world.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "amqp_link_inside.h"
#include "number.h"
#include "spool.h"

enum {
    MEMORY_BYTES = 48 * 1024 * 1024,
    ERROR_BYTES = 1024,
    TURNS_A_SECOND_MAX = 20000,
    PONG_BYTES_MAX = 2 + 125 /* the latest pong may wait beyond SEND_QUEUE_BYTES */
};

/* How long all may take to come right when nothing goes wrong any more: a dead connection is found by its heartbeat (up
 * to 40 s for clients and for the broker), the spool tries again after 30 s at the latest, the broker after 10 s. */
enum { CALM_LIMIT_S = 400, LEAVING_LIMIT_S = 150, STOP_LIMIT_S = 30 };

static const struct sim_handler handler;

/* ---- failing ---- */

void world_fail(struct world *world, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(world->failure, sizeof world->failure, format, arguments);
    va_end(arguments);
    world->is_failed = true;
    longjmp(world->failed, 1);
}

/* ---- the plan of deaths ---- */

static void note(struct world *world, const char *what)
{
    sim_note(world->sim, what, 0, 0);
}

static enum sim_death draw_death(struct world *world)
{
    return sim_chance(world->sim, world->plan.power_ppm) ? SIM_POWER_CUT : SIM_KILLED;
}

/* In one of the next calls; where the oldest are dropped at the end of a turn, when the log has told of it. */
static void crash_soon(struct world *world, uint64_t calls_max)
{
    uint64_t calls = sim_magnitude(world->sim, 1, calls_max);
    world->next_death = draw_death(world);
    if (world->plan.drops_oldest) {
        world->crashes_at_turn = true;
    } else {
        sim_crash_after(world->sim, calls);
    }
}

static void plan_death(struct world *world);

static void on_death_due(void *context, uint64_t number)
{
    struct world *world = context;
    if (world_is_stormy(world) && number == world->death_number) {
        if (world->is_gateway_up) {
            crash_soon(world, 2000);
        }
        plan_death(world);
    }
}

static void plan_death(struct world *world)
{
    if (world->plan.crash_ns > 0) {
        sim_at(world->sim, sim_now_ns(world->sim) + sim_magnitude(world->sim, 10 * SIM_MS, 3 * world->plan.crash_ns),
               on_death_due, world, ++world->death_number);
    }
}

static void on_stop_due(void *context, uint64_t argument)
{
    struct world *world = context;
    (void)argument;
    if (world_is_stormy(world)) {
        note(world, "machine: SIGTERM");
        sim_signal(world->sim,
                   sim_chance(world->sim, SIM_ALWAYS / 4) ? PORT_SIGNAL_STOP | PORT_SIGNAL_REOPEN : PORT_SIGNAL_STOP);
        sim_at(world->sim, sim_now_ns(world->sim) + sim_magnitude(world->sim, SIM_S, 2 * world->plan.stop_ns),
               on_stop_due, world, 0);
    }
}

static void on_wall_due(void *context, uint64_t argument)
{
    struct world *world = context;
    (void)argument;
    if (world_is_stormy(world)) {
        int64_t shift_ms = (int64_t)sim_magnitude(world->sim, 1, 7200000);
        sim_shift_wall(world->sim, sim_chance(world->sim, SIM_ALWAYS / 2) ? shift_ms : -shift_ms);
    }
}

/* ---- the parts of a run ---- */

static bool is_drained(struct world *world)
{
    if (!world->is_gateway_up || outbox_counters(world->gateway.outbox)->depth_count > 0) {
        return false;
    }
    const struct spool_counters *spool = outbox_spool_counters(world->gateway.outbox);
    return spool == NULL || spool->message_count == 0;
}

static bool are_pools_empty(const struct world *world)
{
    const struct gateway *gateway = &world->gateway;
    const struct outbox_counters *outbox = outbox_counters(gateway->outbox);
    const struct spool_counters *spool = outbox_spool_counters(gateway->outbox);
    return gateway->server.connection_count == 0 && gateway->server.buffers.used_count == 0 &&
           gateway->server.chunks.used_count == 0 && gateway->sessions.count == 0 && outbox->depth_count == 0 &&
           outbox->depth_bytes == 0 && outbox->in_flight_count == 0 && (spool == NULL || spool->stage_used_bytes == 0);
}

static void begin_part(struct world *world, enum world_part part)
{
    world->part = part;
    world->part_ns = sim_now_ns(world->sim);
    sim_note(world->sim, "run: part", part, 0);
}

static void begin_calm(void *context, uint64_t argument)
{
    struct world *world = context;
    (void)argument;
    begin_part(world, WORLD_CALM);
    plan_calm(&world->plan, world->sim);
    sim_crash_after(world->sim, 0);
    world->crashes_at_turn = false;
    broker_calm(world);
    clients_calm(world);
}

static void judge_calm(struct world *world, bool is_late)
{
    if (clients_are_served(world) && ledger_is_even(world) && is_drained(world)) {
        ledger_check_end(world);
        begin_part(world, WORLD_LEAVING);
        clients_leave(world);
    } else if (is_late) {
        if (!world->is_gateway_up) {
            world_fail(world, "the gateway does not start although all is well");
        }
        clients_check_served(world);
        ledger_check_end(world);
        world_fail(world, "the outbox is not drained: %u messages are left",
                   (unsigned)outbox_counters(world->gateway.outbox)->depth_count);
    }
}

static void judge_leaving(struct world *world, bool is_late)
{
    if (world->is_gateway_up && clients_are_gone(world) && are_pools_empty(world)) {
        begin_part(world, WORLD_OVER);
        sim_signal(world->sim, PORT_SIGNAL_STOP);
    } else if (is_late) {
        const struct gateway *gateway = &world->gateway;
        if (!world->is_gateway_up) {
            world_fail(world, "the gateway does not start although all is well");
        }
        const struct outbox_counters *outbox = outbox_counters(gateway->outbox);
        const struct spool_counters *spool = outbox_spool_counters(gateway->outbox);
        world_fail(world,
                   "everybody has left, and %u connections, %u buffers, %u chunks, %u sessions are in use, %u messages "
                   "(%u bytes) of the outbox, %u tags, %u bytes of the spool's stage",
                   gateway->server.connection_count, (unsigned)gateway->server.buffers.used_count,
                   (unsigned)gateway->server.chunks.used_count, (unsigned)gateway->sessions.count,
                   (unsigned)outbox->depth_count, (unsigned)outbox->depth_bytes, outbox->in_flight_count,
                   spool == NULL ? 0 : (unsigned)spool->stage_used_bytes);
    }
}

static void judge(void *context, uint64_t argument)
{
    struct world *world = context;
    (void)argument;
    uint64_t elapsed_ns = sim_now_ns(world->sim) - world->part_ns;
    switch (world->part) {
    case WORLD_STORM:
        break;
    case WORLD_CALM:
        judge_calm(world, elapsed_ns > CALM_LIMIT_S * SIM_S);
        break;
    case WORLD_LEAVING:
        judge_leaving(world, elapsed_ns > LEAVING_LIMIT_S * SIM_S);
        break;
    case WORLD_OVER:
        if (elapsed_ns > STOP_LIMIT_S * SIM_S) {
            world_fail(world, "SIGTERM does not end the gateway");
        }
        break;
    }
    sim_at(world->sim, sim_now_ns(world->sim) + SIM_S, judge, world, 0);
}

/* ---- what the machine tells ---- */

static enum sim_welcome on_connect(void *context, uint32_t link, const struct port_address *address)
{
    struct world *world = context;
    (void)address;
    door_closed(world, link);
    return broker_on_connect(world, link);
}

static void on_news(void *context, uint32_t link, enum sim_news news)
{
    struct world *world = context;
    if (!clients_on_news(world, link, news)) {
        (void)broker_on_news(world, link, news);
    }
}

static bool holds(const uint8_t *data, size_t bytes, const char *text)
{
    size_t length = strlen(text);
    for (size_t i = 0; i + length <= bytes; i++) {
        if (data[i] == (uint8_t)text[0] && memcmp(data + i, text, length) == 0) {
            return true;
        }
    }
    return false;
}

static void on_near_sent(void *context, uint32_t link, const uint8_t *data, size_t bytes)
{
    struct world *world = context;
    sim_note(world->sim, "gateway: sends", link, bytes);
    door_sent(world, link, data, bytes);
    /* The moment after a promise is the best one to be tempted. */
    if (world_is_stormy(world) && world->plan.crash_ns > 0 && world->door.links[link].is_client &&
        holds(data, bytes, "\"status\":\"accepted\"") && sim_chance(world->sim, SIM_ALWAYS / 50)) {
        crash_soon(world, 100);
    }
}

static void on_near_closed(void *context, uint32_t link)
{
    struct world *world = context;
    sim_note(world->sim, "gateway: closes", link, 0);
    door_closed(world, link);
}

static void on_crash(void *context)
{
    struct world *world = context;
    longjmp(world->crashed, 1);
}

/* What may wait in memory, by the gateway's own count. */
static void check_limits(struct world *world)
{
    struct gateway *gateway = &world->gateway;
    const struct outbox_counters *outbox = outbox_counters(gateway->outbox);
    const struct spool_counters *spool = outbox_spool_counters(gateway->outbox);
    uint64_t in_memory = outbox->depth_count - (spool == NULL ? 0 : spool->unread_count);
    if (in_memory > world->settings.outbox_messages || outbox->depth_bytes > world->settings.outbox_bytes) {
        world_fail(world, "%u messages (%u bytes) are in memory, and OUTBOX_MESSAGES is %u, OUTBOX_BYTES %u",
                   (unsigned)in_memory, (unsigned)outbox->depth_bytes, world->settings.outbox_messages,
                   (unsigned)world->settings.outbox_bytes);
    }
    struct connection_handle each = server_next(&gateway->server, (struct connection_handle){0});
    for (; each.generation != 0; each = server_next(&gateway->server, each)) {
        uint32_t bytes = connection_queued_bytes(&gateway->server, each);
        if (bytes > world->settings.send_queue_bytes + PONG_BYTES_MAX) {
            world_fail(world, "%u bytes wait for one client, and SEND_QUEUE_BYTES is %u", (unsigned)bytes,
                       world->settings.send_queue_bytes);
        }
    }
}

static void on_turn(void *context)
{
    struct world *world = context;
    world->counts.turns++;
    if (sim_now_ns(world->sim) - world->turns_at_ns > SIM_S) {
        world->turns_at_ns = sim_now_ns(world->sim);
        world->turns_then = world->counts.turns;
    } else if (world->counts.turns - world->turns_then > TURNS_A_SECOND_MAX) {
        world_fail(world, "the loop turns and turns and does nothing");
    }
    if (world->is_gateway_up) {
        door_turn(world);
        check_limits(world);
        if (sim_folder_bytes(world->sim, "spool") > world->spool_bytes_max) {
            world_fail(world, "the spool is larger than SPOOL_MAX_BYTES ever was");
        }
    }
    if (world->crashes_at_turn) {
        world->crashes_at_turn = false;
        on_crash(world);
    }
}

/* The log tells of each message that is dropped. */
static void read_log(struct world *world, struct span line)
{
    static const char dropped[] = "event=message_dropped client=c";
    if (!holds(line.data, line.bytes, dropped)) {
        return;
    }
    for (size_t i = 0; i + sizeof dropped + 5 < line.bytes; i++) {
        if (memcmp(line.data + i, dropped, sizeof dropped - 1) == 0) {
            const uint8_t *at = line.data + i + sizeof dropped - 1;
            const uint8_t *id = at + sizeof "0 id=" - 1;
            size_t bytes = 0;
            while (id + bytes < line.data + line.bytes && id[bytes] != ' ') {
                bytes++;
            }
            uint32_t index = ledger_find(world, (uint32_t)(at[0] - '0'), span_of(id, bytes));
            if (index == LEDGER_NONE) {
                world_fail(world, "the log tells that %.*s was dropped", (int)bytes, (const char *)id);
            }
            ledger_dropped(world, index);
        }
    }
}

static void on_log(void *context, const uint8_t *lines, size_t bytes)
{
    struct world *world = context;
    sim_note_bytes(world->sim, lines, bytes);
    for (size_t start = 0; start < bytes;) {
        size_t end = start;
        while (end < bytes && lines[end] != '\n') {
            end++;
        }
        if (world->trace != NULL) {
            (void)fprintf(world->trace, "%14.6f  log: %.*s\n", (double)sim_now_ns(world->sim) / 1e9, (int)(end - start),
                          (const char *)lines + start);
        }
        read_log(world, span_of(lines + start, end - start));
        start = end + 1;
    }
}

static void on_note(void *context, const char *what, uint64_t a, uint64_t b)
{
    struct world *world = context;
    if (world->trace != NULL) {
        (void)fprintf(world->trace, "%14.6f  %s %llu %llu\n", (double)sim_now_ns(world->sim) / 1e9, what,
                      (unsigned long long)a, (unsigned long long)b);
    }
}

static void on_misuse(void *context, const char *what)
{
    world_fail(context, "the port is misused: %s", what);
}

static const struct sim_handler handler = {.on_connect = on_connect,
                                           .on_news = on_news,
                                           .on_near_sent = on_near_sent,
                                           .on_near_closed = on_near_closed,
                                           .on_turn = on_turn,
                                           .on_log = on_log,
                                           .on_note = on_note,
                                           .on_crash = on_crash,
                                           .on_misuse = on_misuse};

/* ---- the gateway ---- */

static const char *lookup(void *context, const char *name)
{
    (void)context;
    return strcmp(name, "RABBITMQ_URL") == 0 ? "amqp://guest:guest@broker:5672,amqp://guest:guest@10.1.0.9:5672" : NULL;
}

static void load_settings(struct world *world)
{
    char buffer[SETTINGS_ERROR_BYTES_MAX];
    struct text error = text_in(buffer, sizeof buffer);
    const struct settings_sources sources = {
        .lookup = lookup, .port = sim_port(world->sim), .env_name = ".env", .host_name = "gw"};
    CHECK(settings_load(&world->settings, SETTINGS_GATEWAY, &sources, &error));
    (void)snprintf(world->settings.routes, sizeof world->settings.routes, "text -> messages; alarm -> alarms");
}

/* The oldest are dropped when there may be no room for another full stage. Then at least so many bytes of records are
 * kept: all that surely fits, but the oldest segment, of which one message is left, the stage, and the place behind the
 * record that was written last, where another may not fit. */
static uint64_t least_full_bytes(const struct world *world)
{
    const struct outbox_spool *spool = &world->gateway.spool;
    uint32_t message_max = world->settings.max_message_bytes;
    uint64_t segment_count = spool->bytes_max / spool->segment_bytes;
    uint64_t room_bytes = outbox_spool_room_bytes(spool, message_max) / segment_count * (segment_count - 1);
    uint64_t lost_bytes = spool->stage_bytes + message_max + OUTBOX_OVERHEAD_BYTES_MAX;
    return room_bytes > lost_bytes ? room_bytes - lost_bytes : 0;
}

/* Smaller segments, and a smaller stage, than a real spool's, so that a short run fills and reuses many. */
static void shrink_spool(struct world *world)
{
    struct outbox_spool *spool = &world->gateway.spool;
    uint32_t message_max = world->settings.max_message_bytes;
    if (spool->bytes_max == 0) {
        return;
    }
    spool->stage_bytes /= world->plan.stage_divisor;
    spool->segment_bytes = world->plan.segment_bytes;
    uint64_t least_bytes = SPOOL_SEGMENTS_MIN * (uint64_t)spool->segment_bytes;
    for (spool->bytes_max = least_bytes; outbox_spool_room_bytes(spool, message_max) < 2 * spool->stage_bytes;) {
        spool->bytes_max += spool->segment_bytes;
        if (spool->bytes_max / spool->segment_bytes > 40) {
            spool->segment_bytes *= 2;
            spool->bytes_max = SPOOL_SEGMENTS_MIN * (uint64_t)spool->segment_bytes;
        }
    }
    uint64_t more = world->plan.resizes_spool ? sim_between(world->sim, 0, 2 * (uint64_t)world->plan.segment_count)
                                              : world->plan.segment_count;
    spool->bytes_max += more * spool->segment_bytes;
    world->spool_bytes_max = number_larger(world->spool_bytes_max, spool->bytes_max);
    world->spool_full_bytes = least_full_bytes(world);
}

/* What the AMQP library allocated is given back when the program did not come to it. */
static void bury_gateway(struct world *world)
{
    struct gateway *gateway = &world->gateway;
    if (gateway->outbox != NULL) {
        amqp_codec_release(outbox_link(gateway->outbox)->codec);
    }
    if (gateway->downlink.link != NULL) {
        amqp_codec_release(gateway->downlink.link->codec);
    }
    gateway->outbox = NULL;
    gateway->downlink.link = NULL;
}

static bool start_gateway(struct world *world)
{
    struct gateway *gateway = &world->gateway;
    struct port *port = sim_port(world->sim);
    char buffer[ERROR_BYTES];
    struct text error = text_in(buffer, sizeof buffer);
    note(world, "machine: the gateway starts");
    world->life++;
    world->settings.outbox_messages = world->plan.reads_for_messages;
    if (!gateway_configure(gateway, &world->settings, &error)) {
        world_fail(world, "the plan's settings are refused: %.*s", (int)error.used_bytes, buffer);
    }
    world->settings.outbox_messages = world->plan.outbox_messages;
    shrink_spool(world);
    arena_measure(&world->arena);
    gateway_init(gateway, &world->arena, port);
    size_t bytes = world->arena.used_bytes;
    void *memory = port->memory(port->context, bytes);
    CHECK(memory != NULL);
    arena_begin(&world->arena, memory, bytes);
    gateway_init(gateway, &world->arena, port);
    if (gateway_listen(gateway, &error)) {
        return true;
    }
    if (world->plan.weather.folder_fails_ppm == 0 && world->plan.weather.read_fails_ppm == 0) {
        world_fail(world, "the start is refused: %.*s", (int)error.used_bytes, buffer);
    }
    note(world, "machine: the start is refused");
    world->counts.refused_starts++;
    gateway_release(gateway);
    gateway->outbox = NULL;
    gateway->downlink.link = NULL;
    return false;
}

/* One life of the program. How it ended. */
static enum sim_death live(struct world *world)
{
    if (setjmp(world->crashed) != 0) {
        world->counts.crashes++;
        bury_gateway(world);
        return world->next_death;
    }
    if (world_is_stormy(world) && world->plan.crash_ns > 0 && sim_chance(world->sim, SIM_ALWAYS / 8)) {
        crash_soon(world, 400); /* while it starts */
    }
    sim_allow_blocking(world->sim, true);
    if (!start_gateway(world)) {
        return SIM_KILLED;
    }
    sim_allow_blocking(world->sim, false);
    world->is_gateway_up = true;
    enum gateway_turned turned;
    do {
        turned = gateway_turn(&world->gateway);
    } while (turned == GATEWAY_TURN_ON);
    world->counts.stops++;
    sim_allow_blocking(world->sim, true);
    sim_crash_after(world->sim, 0);
    world->crashes_at_turn = false;
    if (turned == GATEWAY_DRAINED) {
        gateway_release(&world->gateway);
        world->gateway.outbox = NULL;
        world->gateway.downlink.link = NULL;
    } else {
        bury_gateway(world);
    }
    return sim_chance(world->sim, SIM_ALWAYS / 2) ? draw_death(world) : SIM_KILLED;
}

/* ---- a run ---- */

struct world *world_make(void)
{
    struct world *world = calloc(1, sizeof *world);
    CHECK(world != NULL);
    world->sim_memory = calloc(1, sim_memory_bytes());
    world->memory_bytes = MEMORY_BYTES;
    world->memory = aligned_alloc(4096, MEMORY_BYTES);
    CHECK(world->sim_memory != NULL && world->memory != NULL);
    return world;
}

static void begin(struct world *world, uint64_t seed)
{
    world->seed = seed;
    world->counts = (struct world_counts){0};
    world->sim = sim_begin(world->sim_memory, seed, &handler, world);
    world->part = WORLD_STORM;
    world->part_ns = 0;
    world->is_gateway_up = false;
    world->crashes_at_turn = false;
    world->life = 0;
    world->spool_bytes_max = 0;
    world->spool_full_bytes = 0;
    world->turns_at_ns = 0;
    world->turns_then = 0;
    load_settings(world);
    plan_draw(&world->plan, world->sim, &world->settings);
    *sim_weather(world->sim) = world->plan.weather;
    sim_give_memory(world->sim, world->memory, world->memory_bytes);
    ledger_begin(world);
    door_begin(&world->door);
    broker_begin(world);
    broker_storm(world);
    clients_begin(world);
    processor_sim_begin(world);
    plan_death(world);
    if (world->plan.stop_ns > 0) {
        sim_at(world->sim, sim_now_ns(world->sim) + sim_magnitude(world->sim, SIM_S, world->plan.stop_ns), on_stop_due,
               world, 0);
    }
    sim_at(world->sim, sim_now_ns(world->sim) + sim_between(world->sim, SIM_S, world->plan.storm_ns), on_wall_due,
           world, 0);
    sim_at(world->sim, sim_now_ns(world->sim) + world->plan.storm_ns, begin_calm, world, 0);
    sim_at(world->sim, sim_now_ns(world->sim) + SIM_S, judge, world, 0);
}

bool world_run(struct world *world, uint64_t seed, FILE *trace)
{
    world->trace = trace;
    world->is_failed = false;
    world->failure[0] = '\0';
    if (setjmp(world->failed) != 0) {
        bury_gateway(world);
        return false;
    }
    begin(world, seed);
    while (world->part != WORLD_OVER) {
        enum sim_death death = live(world);
        world->is_gateway_up = false;
        world->counts.power_cuts += death == SIM_POWER_CUT;
        sim_end_machine(world->sim, death);
        clients_bury_hung(world);
        if (death == SIM_POWER_CUT || world->plan.weather.write_fails_ppm + world->plan.weather.sync_fails_ppm > 0) {
            ledger_writes_were_torn(world);
        }
        if (world->part == WORLD_OVER) {
            break;
        }
        uint64_t pause_ns = world_is_stormy(world) ? sim_magnitude(world->sim, 10 * SIM_MS, 60 * SIM_S) : SIM_S;
        sim_pass(world->sim, sim_now_ns(world->sim) + pause_ns);
    }
    world->counts.virtual_s = sim_now_ns(world->sim) / SIM_S;
    return true;
}
