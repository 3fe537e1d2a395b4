/* SPDX-License-Identifier: MIT */
/* The broker's connections, its disk and its troubles. broker_talk.c has what is said. */
#include "broker.h"

#include <string.h>

#include "world.h"

/* ---- links ---- */

static uint64_t name_of(const struct broker *broker, const struct broker_link *at)
{
    return (uint64_t)at->generation << 32 | (uint64_t)(at - broker->links);
}

static struct broker_link *named(struct broker *broker, uint64_t name)
{
    struct broker_link *at = &broker->links[(uint32_t)name];
    return at->in_use && at->generation == (uint32_t)(name >> 32) ? at : NULL;
}

static struct broker_link *find_link(struct broker *broker, uint32_t link)
{
    for (size_t i = 0; i < BROKER_LINKS_MAX; i++) {
        if (broker->links[i].in_use && broker->links[i].link == link) {
            return &broker->links[i];
        }
    }
    return NULL;
}

void broker_write(struct world *world, struct broker_link *at, const uint8_t *bytes, size_t count)
{
    (void)world;
    CHECK(at->out_bytes + count <= BROKER_OUT_BYTES);
    if (count > 0) {
        memcpy(at->out + at->out_bytes, bytes, count);
    }
    at->out_bytes += count;
    at->out_position += count;
}

void broker_flush(struct world *world, struct broker_link *at)
{
    if (world->broker.is_hanging || at->out_bytes == 0) {
        return;
    }
    size_t sent = sim_send(world->sim, at->link, at->out, at->out_bytes);
    at->out_bytes -= sent;
    memmove(at->out, at->out + sent, at->out_bytes);
    if (sent > 0) {
        at->sent_ns = sim_now_ns(world->sim);
    }
}

/* ---- from a publish to its confirm ---- */

static struct broker_publish *of_tag(struct broker_link *at, uint64_t tag)
{
    return &at->undecided[tag % BROKER_UNDECIDED_MAX];
}

/* Brings some of what is on its way to the disk, in order. */
static void store(struct world *world, struct broker_link *at, uint64_t count)
{
    struct broker *broker = &world->broker;
    for (; count > 0 && at->way_tag < at->next_tag; count--, at->way_tag++) {
        struct broker_publish *publish = of_tag(at, at->way_tag);
        if (publish->fate != BROKER_ON_ITS_WAY) {
            continue;
        }
        publish->fate = BROKER_THERE;
        CHECK(broker->entry_count < BROKER_QUEUE_MAX);
        struct broker_entry *entry = &broker->entries[broker->entry_count++];
        entry->index = publish->index;
        memcpy(entry->ref, publish->ref, sizeof entry->ref);
        ledger_enqueued(world, publish->index);
    }
}

static void decide(struct broker_link *at, uint64_t tag)
{
    of_tag(at, tag)->fate = BROKER_DECIDED;
    while (at->oldest_tag < at->next_tag && of_tag(at, at->oldest_tag)->fate == BROKER_DECIDED) {
        at->oldest_tag++;
    }
}

static void say_nack(struct world *world, struct broker_link *at, uint64_t tag)
{
    broker_say_ack(world, at, tag, false, false);
    ledger_refused(world, of_tag(at, tag)->index, at->generation, at->out_position);
    decide(at, tag);
}

/* One ack for all up to somewhere within what is there without a hole. */
static bool confirm_many(struct world *world, struct broker_link *at)
{
    uint64_t end = at->oldest_tag;
    while (end < at->next_tag && (of_tag(at, end)->fate == BROKER_THERE || of_tag(at, end)->fate == BROKER_DECIDED)) {
        end++;
    }
    if (end == at->oldest_tag) {
        return false;
    }
    uint64_t last = sim_between(world->sim, at->oldest_tag, end - 1);
    broker_say_ack(world, at, last, true, true);
    for (uint64_t tag = at->oldest_tag; tag <= last; tag++) {
        if (of_tag(at, tag)->fate == BROKER_THERE) {
            ledger_confirmed(world, of_tag(at, tag)->index, at->generation, at->out_position);
        }
        of_tag(at, tag)->fate = BROKER_DECIDED;
    }
    decide(at, last);
    return true;
}

static void confirm_some(struct world *world, struct broker_link *at)
{
    if (sim_chance(world->sim, world->plan.single_ppm) || !confirm_many(world, at)) {
        for (uint64_t tag = at->oldest_tag; tag < at->next_tag && at->out_bytes < BROKER_OUT_FULL; tag++) {
            bool is_now = sim_chance(world->sim, SIM_ALWAYS / 2);
            if (of_tag(at, tag)->fate == BROKER_THERE && is_now) {
                broker_say_ack(world, at, tag, false, true);
                ledger_confirmed(world, of_tag(at, tag)->index, at->generation, at->out_position);
                decide(at, tag);
            } else if (of_tag(at, tag)->fate == BROKER_REFUSED && is_now) {
                say_nack(world, at, tag);
            }
        }
    }
}

static void on_confirm_due(void *context, uint64_t name)
{
    struct world *world = context;
    struct broker_link *at = named(&world->broker, name);
    if (at == NULL) {
        return;
    }
    at->is_confirm_due = false;
    if (!world->broker.is_hanging && !world->broker.is_stuck && at->has_channel) {
        store(world, at, sim_magnitude(world->sim, 1, BROKER_UNDECIDED_MAX));
        confirm_some(world, at);
        broker_flush(world, at);
    }
    broker_plan_confirm(world, at);
}

void broker_plan_confirm(struct world *world, struct broker_link *at)
{
    if (!at->is_confirm_due && at->has_channel && at->oldest_tag < at->next_tag) {
        at->is_confirm_due = true;
        sim_at(world->sim,
               sim_now_ns(world->sim) +
                   sim_magnitude(world->sim, world->plan.confirm_ns_min, world->plan.confirm_ns_max),
               on_confirm_due, world, name_of(&world->broker, at));
    }
}

/* A queue's order is that of arrival: what came on other connections before this one is in it first. */
static void store_others(struct world *world, const struct broker_link *at)
{
    for (size_t i = 0; i < BROKER_LINKS_MAX; i++) {
        struct broker_link *other = &world->broker.links[i];
        if (other->in_use && other != at && other->has_channel && other->confirms) {
            store(world, other, BROKER_UNDECIDED_MAX);
        }
    }
}

void broker_take(struct world *world, struct broker_link *at)
{
    struct broker *broker = &world->broker;
    store_others(world, at);
    uint32_t index = ledger_recognize(world, &at->publish);
    uint64_t tag = at->next_tag++;
    struct broker_publish *publish = of_tag(at, tag);
    uint64_t in_flight = at->next_tag - at->oldest_tag;
    CHECK(in_flight <= BROKER_UNDECIDED_MAX);
    if (in_flight > world->settings.publish_window) {
        world_fail(world, "%u publishes are in flight, and PUBLISH_WINDOW is %u", (unsigned)in_flight,
                   world->settings.publish_window);
    }
    publish->index = (uint16_t)index;
    size_t ref_bytes = at->publish.correlation_id.bytes;
    CHECK(ref_bytes < sizeof publish->ref);
    memset(publish->ref, 0, sizeof publish->ref);
    memcpy(publish->ref, at->publish.correlation_id.data, ref_bytes);
    sim_note(world->sim, "broker: a publish comes", index, tag);
    if (!broker->has_queue[world->ledger.messages[index].queue]) {
        broker_say_return(world, at, at->publish.queue, at->publish.body);
        ledger_refused(world, index, at->generation, at->out_position);
        publish->fate = BROKER_DECIDED;
        broker_say_ack(world, at, tag, false, true);
        decide(at, tag);
    } else if (sim_chance(world->sim, world->plan.nack_ppm)) {
        publish->fate = BROKER_REFUSED;
        ledger_refused(world, index, at->generation, UINT64_MAX);
    } else {
        publish->fate = BROKER_ON_ITS_WAY;
        ledger_taken(world, index);
    }
    broker_plan_confirm(world, at);
}

/* ---- the life of a link ---- */

/* What came before the end is kept up to somewhere. */
static void settle_way(struct world *world, struct broker_link *at)
{
    if (at->has_channel && at->confirms && at->way_tag < at->next_tag) {
        store(world, at, sim_between(world->sim, 0, at->next_tag - at->way_tag));
    }
}

void broker_end_link(struct world *world, struct broker_link *at, bool is_reset)
{
    settle_way(world, at);
    ledger_read(world, at->generation, sim_near_read_bytes(world->sim, at->link));
    at->in_use = false;
    if (is_reset) {
        sim_reset(world->sim, at->link);
    } else {
        sim_close(world->sim, at->link);
    }
}

void broker_tell_read(struct world *world)
{
    for (size_t i = 0; i < BROKER_LINKS_MAX; i++) {
        const struct broker_link *at = &world->broker.links[i];
        if (at->in_use) {
            ledger_read(world, at->generation, sim_near_read_bytes(world->sim, at->link));
        }
    }
}

static void beat(void *context, uint64_t name)
{
    struct world *world = context;
    struct broker_link *at = named(&world->broker, name);
    if (at == NULL) {
        return;
    }
    uint64_t now_ns = sim_now_ns(world->sim);
    uint64_t beat_ns = at->heartbeat_s * SIM_S / 2;
    bool is_unheard = world->broker.is_hanging || world->broker.is_blocked;
    if (!is_unheard && now_ns - at->received_ns > 5 * beat_ns) {
        broker_end_link(world, at, true);
        return;
    }
    if (!world->broker.is_hanging && at->phase == BROKER_CONNECTED && now_ns - at->sent_ns >= beat_ns &&
        at->out_bytes == 0) {
        broker_say_heartbeat(world, at);
        broker_flush(world, at);
    }
    sim_at(world->sim, now_ns + beat_ns, beat, world, name);
}

void broker_beat(struct world *world, struct broker_link *at)
{
    beat(world, name_of(&world->broker, at));
}

enum sim_welcome broker_on_connect(struct world *world, uint32_t link)
{
    struct broker *broker = &world->broker;
    if (broker->is_silent || broker->is_down) {
        return broker->is_silent ? SIM_IGNORE : SIM_REFUSE;
    }
    for (size_t i = 0; i < BROKER_LINKS_MAX; i++) {
        struct broker_link *at = &broker->links[i];
        if (!at->in_use) {
            uint32_t generation = ++broker->generation;
            memset(at, 0, offsetof(struct broker_link, in));
            at->in_bytes = 0;
            at->out_bytes = 0;
            at->out_position = 0;
            at->content_part = 0;
            at->is_confirm_due = false;
            at->blocked_position = 0;
            at->unblocked_position = 0;
            at->is_consuming = false;
            at->unacked_count = 0;
            at->in_use = true;
            at->link = link;
            at->generation = generation;
            at->received_ns = sim_now_ns(world->sim);
            at->sent_ns = at->received_ns;
            return SIM_TAKE;
        }
    }
    return SIM_REFUSE;
}

static void read_all(struct world *world, struct broker_link *at)
{
    struct broker *broker = &world->broker;
    uint64_t name = name_of(broker, at);
    bool is_alarmed = broker->is_blocked && at->confirms; /* it reads from no connection that publishes */
    while (!broker->is_hanging && !is_alarmed && at->out_bytes < BROKER_OUT_FULL) {
        struct broker_knowledge known;
        sim_knowledge(world->sim, at->link, &known.at_least, &known.at_most);
        size_t got = sim_receive(world->sim, at->link, at->in + at->in_bytes, BROKER_FRAME_MAX - at->in_bytes);
        if (got == 0) {
            break;
        }
        at->piece_known = known;
        at->in_known = at->in_bytes == 0 ? known : at->in_known;
        at->in_bytes += got;
        at->received_ns = sim_now_ns(world->sim);
        if (!broker_talk(world, at) || (at = named(broker, name)) == NULL) {
            return;
        }
    }
    broker_flush(world, at);
}

bool broker_on_news(struct world *world, uint32_t link, enum sim_news news)
{
    struct broker_link *at = find_link(&world->broker, link);
    if (at == NULL) {
        return false;
    }
    uint64_t name = name_of(&world->broker, at);
    switch (news) {
    case SIM_READABLE:
        read_all(world, at);
        break;
    case SIM_WRITABLE:
        broker_flush(world, at);
        broker_deliver(world, at);
        broker_flush(world, at);
        break;
    case SIM_ENDED:
    case SIM_RESET:
        read_all(world, at);
        if (named(&world->broker, name) != NULL) {
            broker_end_link(world, at, news == SIM_RESET);
        }
        break;
    case SIM_OPENED:
    case SIM_REFUSED:
        break;
    }
    return true;
}

/* ---- messages to the gateway ---- */

void broker_publish_down(struct world *world, const char *key, bool is_receipts, struct span body)
{
    struct broker *broker = &world->broker;
    bool is_routed = broker->has_gateway_queue &&
                     (is_receipts ? broker->is_gateway_bound : broker->is_bound[(key[8] - '0') % PLAN_CLIENTS_MAX]);
    CHECK(body.bytes <= BROKER_DOWN_BYTES);
    if (!is_routed || broker->down_count == BROKER_DOWN_MAX) {
        return;
    }
    struct broker_down *down = &broker->downs[(broker->down_first + broker->down_count++) % BROKER_DOWN_MAX];
    (void)snprintf(down->key, sizeof down->key, "%s", key);
    down->is_receipts = is_receipts;
    down->bytes = (uint16_t)body.bytes;
    memcpy(down->body, body.data, body.bytes);
    for (size_t i = 0; i < BROKER_LINKS_MAX; i++) {
        struct broker_link *at = &broker->links[i];
        if (at->in_use && at->is_consuming && !broker->is_hanging) {
            broker_deliver(world, at);
            broker_flush(world, at);
        }
    }
}

/* ---- troubles ---- */

/* In the order in which they came. */
static void each_link(struct world *world, void (*act)(struct world *world, struct broker_link *at))
{
    uint32_t end = world->broker.generation;
    for (uint32_t done = 0; done < end;) {
        struct broker_link *next = NULL;
        for (size_t i = 0; i < BROKER_LINKS_MAX; i++) {
            struct broker_link *at = &world->broker.links[i];
            if (at->in_use && at->generation > done && (next == NULL || at->generation < next->generation)) {
                next = at;
            }
        }
        if (next == NULL) {
            return;
        }
        done = next->generation;
        act(world, next);
    }
}

static void end_one(struct world *world, struct broker_link *at)
{
    broker_end_link(world, at, sim_chance(world->sim, SIM_ALWAYS / 2));
}

static void maybe_end_one(struct world *world, struct broker_link *at)
{
    if (sim_chance(world->sim, SIM_ALWAYS / 2)) {
        end_one(world, at);
    }
}

static void maybe_cut_one(struct world *world, struct broker_link *at)
{
    if (sim_chance(world->sim, SIM_ALWAYS / 2)) {
        sim_cut(world->sim, at->link);
    }
}

static void wake_one(struct world *world, struct broker_link *at)
{
    read_all(world, at);
}

static void block_one(struct world *world, struct broker_link *at)
{
    if (at->phase == BROKER_CONNECTED) {
        broker_say_blocked(world, at, world->broker.is_blocked);
        broker_flush(world, at);
    }
}

static void close_one(struct world *world, struct broker_link *at)
{
    if (at->phase == BROKER_CONNECTED) {
        settle_way(world, at);
        at->has_channel = false;
        broker_say_close(world, at);
        broker_flush(world, at);
    }
}

static void close_channel_of_one(struct world *world, struct broker_link *at)
{
    if (at->phase == BROKER_CONNECTED && at->has_channel && at->content_part == 0) {
        settle_way(world, at);
        broker_say_channel_close(world, at, 541, "INTERNAL_ERROR");
        broker_flush(world, at);
    }
}

static void cancel_one(struct world *world, struct broker_link *at)
{
    if (at->is_consuming) {
        broker_say_cancel(world, at);
        broker_flush(world, at);
    }
}

static void end_fault(void *context, uint64_t number)
{
    struct world *world = context;
    struct broker *broker = &world->broker;
    if (number != broker->fault_number) {
        return;
    }
    sim_note(world->sim, "broker: well again", 0, 0);
    broker->is_down = false;
    broker->is_silent = false;
    broker->is_stuck = false;
    if (broker->is_hanging) {
        broker->is_hanging = false;
        each_link(world, wake_one);
    }
    if (broker->is_blocked) {
        broker->is_blocked = false;
        each_link(world, block_one);
        each_link(world, wake_one);
    }
}

/* A fault with an end of its own. */
static void begin_fault(struct world *world, bool *what)
{
    *what = true;
    uint64_t lasts_ns = sim_magnitude(world->sim, 10 * SIM_MS, world->plan.outage_ns_max);
    sim_at(world->sim, sim_now_ns(world->sim) + lasts_ns, end_fault, world, world->broker.fault_number);
}

static void forget_gateway_queue(struct broker *broker)
{
    broker->has_gateway_queue = false;
    broker->is_gateway_bound = false;
    memset(broker->is_bound, 0, sizeof broker->is_bound);
    broker->down_count = 0;
    for (size_t i = 0; i < BROKER_LINKS_MAX; i++) {
        broker->links[i].unacked_count = 0;
    }
}

static void strike(struct world *world)
{
    struct broker *broker = &world->broker;
    uint64_t kind = sim_between(world->sim, 0, 10);
    sim_note(world->sim, "broker: trouble of kind", kind, 0);
    switch (kind) {
    case 0:
    case 1:
        each_link(world, end_one);
        begin_fault(world, &broker->is_down);
        break;
    case 2:
        each_link(world, maybe_end_one);
        break;
    case 3:
        each_link(world, maybe_cut_one);
        break;
    case 4:
        begin_fault(world, &broker->is_hanging);
        break;
    case 5:
        begin_fault(world, &broker->is_blocked);
        each_link(world, block_one);
        break;
    case 6:
        begin_fault(world, &broker->is_stuck);
        break;
    case 7:
        each_link(world, close_one);
        break;
    case 8:
        each_link(world, maybe_end_one);
        begin_fault(world, &broker->is_silent);
        break;
    case 9:
        broker->has_queue[sim_between(world->sim, 0, PLAN_QUEUES - 1)] = false;
        each_link(world, cancel_one);
        if (sim_chance(world->sim, SIM_ALWAYS / 2)) {
            forget_gateway_queue(broker);
        }
        break;
    default:
        each_link(world, close_channel_of_one);
        break;
    }
}

static void on_trouble(void *context, uint64_t argument)
{
    struct world *world = context;
    (void)argument;
    struct broker *broker = &world->broker;
    if (!world_is_stormy(world)) {
        return;
    }
    if (!broker->is_down && !broker->is_hanging && !broker->is_blocked && !broker->is_stuck && !broker->is_silent) {
        broker->fault_number++;
        strike(world);
    }
    sim_at(world->sim, sim_now_ns(world->sim) + sim_magnitude(world->sim, SIM_MS, 2 * world->plan.broker_fault_ns),
           on_trouble, world, 0);
}

void broker_begin(struct world *world)
{
    struct broker *broker = &world->broker;
    for (size_t i = 0; i < BROKER_LINKS_MAX; i++) {
        broker->links[i].in_use = false;
    }
    memset(broker, 0, offsetof(struct broker, links));
    broker->entry_count = 0;
    broker->down_first = 0;
    broker->down_count = 0;
    for (size_t i = 0; i < PLAN_QUEUES; i++) {
        broker->has_queue[i] = sim_chance(world->sim, SIM_ALWAYS / 2);
    }
}

void broker_storm(struct world *world)
{
    if (world->plan.broker_fault_ns > 0) {
        broker_begin(world);
        world->broker.is_down = sim_chance(world->sim, SIM_ALWAYS / 4);
        if (world->broker.is_down) {
            world->broker.fault_number = 1;
            begin_fault(world, &world->broker.is_down);
        }
        on_trouble(world, 0);
    }
}

void broker_calm(struct world *world)
{
    world->broker.fault_number++;
    if (world->plan.broker_fault_ns > 0 && sim_chance(world->sim, SIM_ALWAYS / 4)) {
        each_link(world, maybe_cut_one); /* nobody is told, and all must come right all the same */
    }
    end_fault(world, world->broker.fault_number);
}
