/* SPDX-License-Identifier: MIT */
/* What a client does, and when. client_talk.c has what is said on a connection. */
#include "client.h"

#include <string.h>

#include "world.h"

enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, CONNS_EACH_MAX = 3, FINALS = 3, FINALS_AFTER_S = 60 };

static uint64_t name_of(const struct world *world, const struct conn *conn)
{
    return (uint64_t)conn->generation << 32 | (uint64_t)(conn - world->clients.conns);
}

static struct conn *named(struct world *world, uint64_t name)
{
    struct conn *conn = &world->clients.conns[(uint32_t)name];
    return conn->state != CONN_FREE && conn->generation == (uint32_t)(name >> 32) ? conn : NULL;
}

static uint32_t index_of(const struct world *world, const struct conn *conn)
{
    return (uint32_t)(conn - world->clients.conns);
}

static struct conn *conn_of(struct world *world, uint32_t client)
{
    uint32_t index = world->clients.each[client].conn;
    return index == UINT32_MAX ? NULL : &world->clients.conns[index];
}

/* ---- the life of a connection ---- */

static void connect_client(struct world *world, uint32_t client)
{
    struct conn *conn = NULL;
    uint32_t present_count = 0;
    for (size_t i = 0; i < CLIENT_CONNS_MAX; i++) {
        struct conn *each = &world->clients.conns[i];
        present_count += each->state != CONN_FREE && each->client == client;
        conn = each->state == CONN_FREE ? each : conn;
    }
    if (conn == NULL || present_count >= CONNS_EACH_MAX) {
        return;
    }
    uint32_t link = sim_connect(world->sim);
    if (link == UINT32_MAX) {
        return;
    }
    uint32_t generation = conn->generation + 1;
    memset(conn, 0, offsetof(struct conn, submissions));
    conn->generation = generation;
    conn->state = CONN_CONNECTING;
    conn->link = link;
    conn->client = client;
    memcpy(conn->wants, world->clients.each[client].wants, sizeof conn->wants);
    conn->heard_ns = sim_now_ns(world->sim);
    conn->life = world->life;
    world->clients.each[client].twin = index_of(world, conn);
    door_open(world, link);
    sim_note(world->sim, "client: connects", client, link);
}

void conn_end(struct world *world, struct conn *conn, bool is_reset)
{
    struct one_client *each = &world->clients.each[conn->client];
    sim_note(world->sim, "client: ends its connection", conn->client, conn->link);
    if (is_reset) {
        sim_reset(world->sim, conn->link);
    } else {
        sim_close(world->sim, conn->link);
    }
    conn->state = CONN_FREE;
    conn->generation++;
    each->conn = each->conn == index_of(world, conn) ? UINT32_MAX : each->conn;
    each->twin = each->twin == index_of(world, conn) ? UINT32_MAX : each->twin;
}

void conn_greeted(struct world *world, struct conn *conn)
{
    struct one_client *each = &world->clients.each[conn->client];
    sim_note(world->sim, "client: is greeted", conn->client, conn->link);
    conn->state = CONN_GREETED;
    each->called_number = 0; /* a call can be lost with the connection it came to */
    each->conn = index_of(world, conn);
    each->twin = UINT32_MAX;
    each->resend = 1;
}

void conn_refused(struct world *world, struct conn *conn)
{
    struct one_client *each = &world->clients.each[conn->client];
    sim_note(world->sim, "client: is refused", conn->client, conn->link);
    conn->was_refused = true;
    each->twin = each->twin == index_of(world, conn) ? UINT32_MAX : each->twin;
}

bool clients_on_news(struct world *world, uint32_t link, enum sim_news news)
{
    struct conn *conn = NULL;
    for (size_t i = 0; i < CLIENT_CONNS_MAX; i++) {
        if (world->clients.conns[i].state != CONN_FREE && world->clients.conns[i].link == link) {
            conn = &world->clients.conns[i];
        }
    }
    if (conn == NULL) {
        return false;
    }
    uint64_t name = name_of(world, conn);
    switch (news) {
    case SIM_OPENED:
        conn_ask(world, conn);
        break;
    case SIM_REFUSED: {
        struct one_client *each = &world->clients.each[conn->client];
        conn->state = CONN_FREE;
        each->twin = each->twin == index_of(world, conn) ? UINT32_MAX : each->twin;
        break;
    }
    case SIM_READABLE:
        conn_read(world, conn);
        break;
    case SIM_WRITABLE:
        conn_flush(world, conn);
        break;
    case SIM_ENDED:
    case SIM_RESET:
        conn->is_slow = false;
        conn_read(world, conn);
        if (named(world, name) != NULL) {
            conn_end(world, conn, news == SIM_RESET);
        }
        break;
    }
    return true;
}

/* ---- sending ---- */

static bool can_send(const struct conn *conn)
{
    return conn != NULL && conn->state == CONN_GREETED && !conn->has_ended && conn->out_bytes < CLIENT_OUT_FULL &&
           conn->submission_count + 8 < CLIENT_SUBMISSIONS_MAX;
}

static void submit(struct world *world, struct conn *conn, uint32_t index)
{
    char text[LEDGER_TEXT_BYTES];
    size_t bytes = ledger_write(world, index, text);
    ledger_submit(world, index);
    conn->submissions[conn->submission_count++] =
        (struct submission){.index = (uint16_t)index, .verdict = LEDGER_STATUS_COUNT};
    sim_note(world->sim, "client: sends message", conn->client, world->ledger.messages[index].number);
    conn_say(world, conn, TEXT, text, bytes);
}

static bool is_heard_of(const struct one_client *each)
{
    return each->wants[LEDGER_QUEUED] || each->wants[LEDGER_STORED];
}

/* The next message to be sent again; false when there is none. Who hears of nothing learns otherwise what arrived. */
static bool resend(struct world *world, struct conn *conn)
{
    struct one_client *each = &world->clients.each[conn->client];
    while (each->resend <= world->ledger.numbers[conn->client]) {
        uint32_t number = each->resend++;
        uint32_t index = world->ledger.indexes[conn->client][number];
        const struct ledger_message *message = &world->ledger.messages[index];
        bool is_there = each->is_settled[number] || message->is_dropped ||
                        (!is_heard_of(each) && message->enqueued_count > 0) ||
                        (message->was_told[LEDGER_ACCEPTED] && sim_chance(world->sim, SIM_ALWAYS / 2));
        bool was_on_this = false;
        for (uint32_t i = 0; i < conn->submission_count && !is_there; i++) {
            was_on_this = was_on_this || conn->submissions[i].index == index;
        }
        if (message->has_id && !is_there && !was_on_this) {
            submit(world, conn, index);
            return true;
        }
    }
    return false;
}

static void talk_nonsense(struct world *world, struct conn *conn)
{
    static const char *const texts[] = {"{\"type\":\"text\"}", "{\"type\":\"nobody\",\"content\":1}", "[1]",
                                        "{\"type\":", "{\"type\":\"text\",\"content\":1,\"id\":\"\"}"};
    const char *text = texts[sim_between(world->sim, 0, sizeof texts / sizeof texts[0] - 1)];
    conn->submissions[conn->submission_count++] = (struct submission){.index = LEDGER_NONE, .wants_error = true};
    conn_say(world, conn, TEXT, text, strlen(text));
}

static void send_some(struct world *world, struct conn *conn)
{
    uint64_t count = sim_magnitude(world->sim, 1, world->plan.burst_max);
    for (; count > 0 && can_send(conn); count--) {
        if (resend(world, conn)) {
            continue;
        }
        if (sim_chance(world->sim, world->plan.nonsense_ppm)) {
            talk_nonsense(world, conn);
        } else if (sim_chance(world->sim, SIM_ALWAYS / 20)) {
            static const char ping[] = "{\"type\":\"ping\"}";
            conn->submissions[conn->submission_count++] = (struct submission){.index = LEDGER_NONE};
            conn_say(world, conn, TEXT, ping, sizeof ping - 1);
        } else if (world->ledger.message_count < world->plan.message_max) {
            submit(world, conn, ledger_create(world, conn->client));
        }
    }
}

/* ---- leaving ---- */

static void leave(struct world *world, struct conn *conn)
{
    static const uint8_t normal[2] = {0x03, 0xE8};
    struct one_client *each = &world->clients.each[conn->client];
    each->conn = UINT32_MAX;
    switch (sim_between(world->sim, 0, 5)) {
    case 0:
        if (conn->out_bytes + 64 < CLIENT_OUT_BYTES && !conn->has_ended) {
            conn_say(world, conn, CLOSE, normal, sizeof normal);
        }
        conn->state = CONN_LEAVING;
        break;
    case 1:
        sim_finish(world->sim, conn->link);
        conn->state = CONN_LEAVING;
        break;
    case 2:
        conn_end(world, conn, true);
        break;
    case 3:
        conn_end(world, conn, false);
        break;
    case 4: /* its machine takes what comes, and the program there hangs */
        sim_note(world->sim, "client: hangs", conn->client, conn->link);
        conn->is_slow = true;
        conn->is_hung = true;
        break;
    default:
        sim_note(world->sim, "client: its connection is cut", conn->client, conn->link);
        sim_cut(world->sim, conn->link);
        conn->is_cut = true;
        each->conn = index_of(world, conn); /* it does not know */
        break;
    }
}

static void read_again(void *context, uint64_t name)
{
    struct world *world = context;
    struct conn *conn = named(world, name);
    if (conn != NULL && !conn->is_hung) {
        conn->is_slow = false;
        conn_read(world, conn);
    }
}

static void become_slow(struct world *world, struct conn *conn)
{
    conn->is_slow = true;
    sim_at(world->sim, sim_now_ns(world->sim) + sim_magnitude(world->sim, 10 * SIM_MS, 100 * SIM_S), read_again, world,
           name_of(world, conn));
}

/* Who hears nothing for longer than the gateway's heartbeat allows is alone. */
static void give_up_dead(struct world *world, uint32_t client)
{
    uint64_t patience_ns = (world->settings.heartbeat_interval_s + world->settings.heartbeat_timeout_s + 20) * SIM_S;
    for (size_t i = 0; i < CLIENT_CONNS_MAX; i++) {
        struct conn *conn = &world->clients.conns[i];
        bool is_his = conn->state != CONN_FREE && conn->client == client;
        uint64_t limit_ns = conn->state == CONN_GREETED ? patience_ns : 10 * SIM_S;
        if (conn->is_hung && conn->is_cut) { /* nobody can tell it that it is over */
            limit_ns = 0;
        }
        if (is_his && (!conn->is_slow || limit_ns == 0) && sim_now_ns(world->sim) - conn->heard_ns > limit_ns) {
            conn_end(world, conn, true);
        }
    }
}

/* A connection on which so much was sent that no more can be remembered. */
static void give_up_full(struct world *world, uint32_t client)
{
    struct conn *conn = conn_of(world, client);
    if (conn != NULL && conn->submission_count + 16 >= CLIENT_SUBMISSIONS_MAX) {
        conn_end(world, conn, false);
    }
}

/* ---- what comes next ---- */

static void act_in_storm(struct world *world, uint32_t client)
{
    struct one_client *each = &world->clients.each[client];
    struct conn *conn = conn_of(world, client);
    if (conn == NULL) {
        if (each->twin == UINT32_MAX) {
            connect_client(world, client);
        }
    } else if (sim_chance(world->sim, world->plan.leave_ppm)) {
        leave(world, conn);
    } else if (sim_chance(world->sim, world->plan.slow_ppm)) {
        become_slow(world, conn);
    } else if (each->twin == UINT32_MAX && sim_chance(world->sim, world->plan.twin_ppm)) {
        connect_client(world, client); /* it sends nothing until it knows which one lives */
    } else if (each->twin == UINT32_MAX && can_send(conn)) {
        send_some(world, conn);
    }
}

static void act_in_calm(struct world *world, uint32_t client)
{
    struct one_client *each = &world->clients.each[client];
    struct conn *conn = conn_of(world, client);
    if (each->has_left) {
        return;
    }
    if (conn == NULL || (conn->has_ended && each->twin == UINT32_MAX)) {
        if (each->twin == UINT32_MAX) {
            connect_client(world, client);
        }
        return;
    }
    while (can_send(conn) && resend(world, conn)) {
    }
    /* Not before receipts surely have a way: what the processor says while the gateway's queue is gone is lost. */
    bool is_time = sim_now_ns(world->sim) - world->part_ns > FINALS_AFTER_S * SIM_S;
    if (can_send(conn) && each->final_first == 0 && is_time) {
        each->final_first = world->ledger.numbers[client] + 1;
        for (size_t i = 0; i < FINALS; i++) {
            submit(world, conn, ledger_create(world, client));
        }
    }
    if (can_send(conn) && each->final_first != 0 && each->called_number == 0) {
        each->called_number = processor_sim_call(world, client);
    }
}

static void tick_in_storm(void *context, uint64_t client)
{
    struct world *world = context;
    if (world_is_stormy(world)) {
        give_up_dead(world, (uint32_t)client);
        give_up_full(world, (uint32_t)client);
        act_in_storm(world, (uint32_t)client);
        sim_at(world->sim,
               sim_now_ns(world->sim) + sim_magnitude(world->sim, world->plan.client_ns_min, world->plan.client_ns_max),
               tick_in_storm, world, client);
    }
}

static void tick_in_calm(void *context, uint64_t client)
{
    struct world *world = context;
    give_up_dead(world, (uint32_t)client);
    give_up_full(world, (uint32_t)client);
    if (world->part == WORLD_CALM) {
        act_in_calm(world, (uint32_t)client);
    }
    sim_at(world->sim, sim_now_ns(world->sim) + SIM_S, tick_in_calm, world, client);
}

/* ---- the whole of them ---- */

void clients_begin(struct world *world)
{
    static const bool wants[4][LEDGER_STATUS_COUNT] = {
        {false, true, true}, {true, true, true}, {false, false, true}, {false}};
    for (size_t i = 0; i < CLIENT_CONNS_MAX; i++) {
        world->clients.conns[i].state = CONN_FREE;
        world->clients.conns[i].generation = 0;
    }
    for (uint32_t i = 0; i < PLAN_CLIENTS_MAX; i++) {
        struct one_client *each = &world->clients.each[i];
        memset(each, 0, sizeof *each);
        each->conn = UINT32_MAX;
        each->twin = UINT32_MAX;
        each->resend = 1;
        uint64_t kind = sim_between(world->sim, 0, 9);
        memcpy(each->wants, wants[kind < 4 ? 0 : kind < 8 ? 1 : kind - 6], sizeof each->wants);
        if (i < world->plan.client_count) {
            sim_at(world->sim, sim_now_ns(world->sim) + sim_magnitude(world->sim, SIM_MS, 3 * SIM_S), tick_in_storm,
                   world, i);
        }
    }
}

void clients_bury_hung(struct world *world)
{
    for (size_t i = 0; i < CLIENT_CONNS_MAX; i++) {
        if (world->clients.conns[i].state != CONN_FREE && world->clients.conns[i].is_hung) {
            conn_end(world, &world->clients.conns[i], true);
        }
    }
}

void clients_calm(struct world *world)
{
    for (uint32_t i = 0; i < world->plan.client_count; i++) {
        sim_at(world->sim, sim_now_ns(world->sim) + i * SIM_MS, tick_in_calm, world, i);
    }
    for (size_t i = 0; i < CLIENT_CONNS_MAX; i++) {
        struct conn *conn = &world->clients.conns[i];
        if (conn->state != CONN_FREE && conn->is_slow && !conn->is_hung) {
            read_again(world, name_of(world, conn));
        }
    }
    /* Those for whom there is no room stay away. */
    for (uint32_t i = world->settings.max_connections; i < world->plan.client_count; i++) {
        world->clients.each[i].has_left = true;
    }
    for (size_t i = 0; i < CLIENT_CONNS_MAX; i++) {
        struct conn *conn = &world->clients.conns[i];
        if (conn->state != CONN_FREE && world->clients.each[conn->client].has_left) {
            conn_end(world, conn, false);
        }
    }
}

/* What is due on a connection and did not come; LEDGER_STATUS_COUNT: nothing. */
static enum ledger_status missing_on(const struct world *world, const struct conn *conn, uint32_t *seq)
{
    const struct one_client *each = &world->clients.each[conn->client];
    for (uint32_t i = 0; i < conn->submission_count; i++) {
        const struct submission *own = &conn->submissions[i];
        *seq = i + 1;
        if (own->index == LEDGER_NONE) {
            if (own->wants_error && !own->has_error) {
                return LEDGER_REJECTED;
            }
            continue;
        }
        const struct ledger_message *message = &world->ledger.messages[own->index];
        bool is_dropped = own->was_told[LEDGER_REJECTED];
        bool is_final = each->final_first > 0 && message->number >= each->final_first;
        bool has_end = own->was_told[LEDGER_STORED] || is_dropped || own->was_told[LEDGER_DEAD];
        if (conn->wants[LEDGER_QUEUED] && !own->was_told[LEDGER_QUEUED] && !is_dropped) {
            return LEDGER_QUEUED;
        }
        if (message->enqueued_count == 0 && !message->is_dropped) {
            return LEDGER_QUEUED;
        }
        if (is_final && conn->wants[LEDGER_STORED] && !has_end) {
            return LEDGER_STORED;
        }
    }
    return LEDGER_STATUS_COUNT;
}

/* All with an id that a client sent are in their queues, unless a rule dropped them. */
static uint32_t missing_number(const struct world *world, uint32_t client)
{
    for (uint32_t number = 1; number <= world->ledger.numbers[client]; number++) {
        const struct ledger_message *message = &world->ledger.messages[world->ledger.indexes[client][number]];
        if (message->has_id && message->enqueued_count == 0 && !message->is_dropped) {
            return number;
        }
    }
    return 0;
}

bool clients_are_served(struct world *world)
{
    for (uint32_t i = 0; i < world->plan.client_count; i++) {
        const struct conn *conn = conn_of(world, i);
        uint32_t seq;
        if (!world->clients.each[i].has_left &&
            (conn == NULL || conn->state != CONN_GREETED || conn->has_ended ||
             world->clients.each[i].final_first == 0 || !world->clients.each[i].was_called ||
             missing_on(world, conn, &seq) != LEDGER_STATUS_COUNT || missing_number(world, i) != 0)) {
            return false;
        }
    }
    return true;
}

void clients_check_served(struct world *world)
{
    for (uint32_t i = 0; i < world->plan.client_count; i++) {
        const struct conn *conn = conn_of(world, i);
        uint32_t seq = 0;
        if (world->clients.each[i].has_left) {
            continue;
        }
        if (conn == NULL || conn->state != CONN_GREETED || conn->has_ended) {
            world_fail(world, "c%u is not let in, though all is well", (unsigned)i);
        }
        enum ledger_status missing = missing_on(world, conn, &seq);
        if (missing != LEDGER_STATUS_COUNT) {
            world_fail(world, "c%u waits in vain for its message %u to be %s", (unsigned)i, (unsigned)seq,
                       ledger_status_name(missing));
        }
        if (missing_number(world, i) != 0) {
            world_fail(world, "message %u of c%u, sent again, is in no queue", (unsigned)missing_number(world, i),
                       (unsigned)i);
        }
        if (world->clients.each[i].final_first == 0) {
            world_fail(world, "c%u could not send its last messages", (unsigned)i);
        }
        if (!world->clients.each[i].was_called) {
            world_fail(world, "c%u did not get what a backend sent to it", (unsigned)i);
        }
    }
}

void clients_leave(struct world *world)
{
    static const uint8_t normal[2] = {0x03, 0xE8};
    for (size_t i = 0; i < CLIENT_CONNS_MAX; i++) {
        struct conn *conn = &world->clients.conns[i];
        if (conn->state == CONN_GREETED && !conn->has_ended && !conn->is_hung &&
            sim_chance(world->sim, SIM_ALWAYS / 2)) {
            conn_say(world, conn, CLOSE, normal, sizeof normal);
            conn->state = CONN_LEAVING;
        } else if (conn->state != CONN_FREE) {
            conn_end(world, conn, sim_chance(world->sim, SIM_ALWAYS / 2));
        }
    }
}

bool clients_are_gone(const struct world *world)
{
    for (size_t i = 0; i < CLIENT_CONNS_MAX; i++) {
        if (world->clients.conns[i].state != CONN_FREE) {
            return false;
        }
    }
    return true;
}
