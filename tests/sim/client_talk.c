/* SPDX-License-Identifier: MIT */
/* What a client says and hears: the handshake, masked frames, and the gateway's texts. */
#include <string.h>

#include "world.h"

enum { TEXT = 1, CLOSE = 8, PING = 9, PONG = 10, CONTROL_BYTES_MAX = 125 };

/* ---- saying ---- */

static void put(struct conn *conn, const void *data, size_t bytes)
{
    CHECK(conn->out_bytes + bytes <= CLIENT_OUT_BYTES);
    memcpy(conn->out + conn->out_bytes, data, bytes);
    conn->out_bytes += bytes;
}

static void on_flush_due(void *context, uint64_t name)
{
    struct world *world = context;
    struct conn *conn = &world->clients.conns[(uint32_t)name];
    if (conn->state != CONN_FREE && conn->generation == (uint32_t)(name >> 32)) {
        conn->is_flush_due = false;
        conn_flush(world, conn);
    }
}

/* Sends what there is, or a piece of it and the rest a little later. */
void conn_flush(struct world *world, struct conn *conn)
{
    if (conn->out_bytes == 0 || conn->is_flush_due || conn->is_hung || conn->state == CONN_FREE ||
        conn->state == CONN_CONNECTING) {
        return;
    }
    bool is_piece = sim_chance(world->sim, world->plan.chunk_ppm);
    size_t bytes = is_piece ? (size_t)sim_magnitude(world->sim, 1, conn->out_bytes) : conn->out_bytes;
    size_t sent = sim_send(world->sim, conn->link, conn->out, bytes);
    conn->out_bytes -= sent;
    memmove(conn->out, conn->out + sent, conn->out_bytes);
    if (is_piece && conn->out_bytes > 0) {
        conn->is_flush_due = true;
        sim_at(world->sim, sim_now_ns(world->sim) + sim_magnitude(world->sim, 1, 20 * SIM_MS), on_flush_due, world,
               (uint64_t)conn->generation << 32 | (uint64_t)(conn - world->clients.conns));
    }
}

static void put_frame(struct world *world, struct conn *conn, uint8_t first, const uint8_t *data, size_t bytes)
{
    uint8_t head[8] = {first, (uint8_t)(0x80 | (bytes < 126 ? bytes : 126)), (uint8_t)(bytes >> 8), (uint8_t)bytes};
    uint64_t random = sim_random(world->sim);
    uint8_t mask[4] = {(uint8_t)random, (uint8_t)(random >> 8), (uint8_t)(random >> 16), (uint8_t)(random >> 24)};
    put(conn, head, bytes < 126 ? 2 : 4);
    put(conn, mask, sizeof mask);
    CHECK(conn->out_bytes + bytes <= CLIENT_OUT_BYTES);
    for (size_t i = 0; i < bytes; i++) {
        conn->out[conn->out_bytes++] = data[i] ^ mask[i % 4];
    }
}

void conn_say(struct world *world, struct conn *conn, uint8_t opcode, const void *data, size_t bytes)
{
    const uint8_t *rest = data;
    uint8_t first = opcode;
    while (opcode == TEXT && bytes > 1 && sim_chance(world->sim, world->plan.chunk_ppm / 4)) {
        size_t piece = (size_t)sim_between(world->sim, 0, bytes - 1);
        put_frame(world, conn, first, rest, piece);
        rest += piece;
        bytes -= piece;
        first = 0;
        if (sim_chance(world->sim, SIM_ALWAYS / 8)) {
            put_frame(world, conn, 0x80 | PING, (const uint8_t *)"between", 7);
        }
    }
    put_frame(world, conn, 0x80 | first, rest, bytes);
    conn_flush(world, conn);
}

void conn_ask(struct world *world, struct conn *conn)
{
    static const char *const masks[] = {"?receipts=queued,stored", "", "?receipts=stored", "?receipts=none"};
    const bool *wants = conn->wants;
    size_t mask = wants[LEDGER_ACCEPTED] ? 1 : wants[LEDGER_QUEUED] ? 0 : wants[LEDGER_STORED] ? 2 : 3;
    char request[256];
    int bytes = snprintf(request, sizeof request,
                         "GET /c%u%s HTTP/1.1\r\nHost: box\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                         (unsigned)conn->client, masks[mask]);
    put(conn, request, (size_t)bytes);
    conn->state = CONN_ASKING;
    conn_flush(world, conn);
}

/* ---- hearing ---- */

/* The value of a member whose name is unlike any part of another's; empty: it is not there. */
static struct span member(struct span text, const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i + length < text.bytes; i++) {
        if (memcmp(text.data + i, name, length) == 0) {
            const uint8_t *start = text.data + i + length;
            size_t left = text.bytes - i - length;
            bool is_text = *start == '"';
            size_t from = is_text ? 1 : 0;
            size_t to = from;
            while (to < left && (is_text ? start[to] != '"' : start[to] >= '0' && start[to] <= '9')) {
                to++;
            }
            return span_of(start + from, to - from);
        }
    }
    return span_of(NULL, 0);
}

static uint32_t number_of(struct span digits)
{
    uint32_t number = 0;
    for (size_t i = 0; i < digits.bytes && i < 9; i++) {
        number = number * 10 + (uint32_t)(digits.data[i] - '0');
    }
    return number;
}

static bool status_of(struct span name, enum ledger_status *status)
{
    for (unsigned i = 0; i < LEDGER_STATUS_COUNT; i++) {
        if (span_is(name, ledger_status_name((enum ledger_status)i))) {
            *status = (enum ledger_status)i;
            return true;
        }
    }
    return false;
}

/* What the gateway says of a message that it dropped; the processor too says `rejected`, with other codes. */
enum drop { DROP_NONE, DROP_UNSENT, DROP_MAYBE_SENT };

static enum drop drop_of(enum ledger_status status, struct span code, struct span reason)
{
    static const char unsent[] = "the gateway's disk is full and this was the oldest message";
    if (status != LEDGER_REJECTED || !span_is(code, "dropped")) {
        return DROP_NONE;
    }
    return span_is(reason, unsent) ? DROP_UNSENT : DROP_MAYBE_SENT;
}

/* What may follow what on one connection (doc/protocol.md): `accepted`, then `queued`, each once; then the processor's
 * word, and no other one than that, but perhaps again. `dropped` comes once and instead of all others, and the
 * processor's word follows only where it was said that the message may have been sent. */
static void judge_progress(struct world *world, const struct conn *conn, struct submission *own,
                           enum ledger_status status, enum drop drop)
{
    bool has_end = own->verdict != LEDGER_STATUS_COUNT || own->was_dropped;
    bool is_good;
    if (status == LEDGER_ACCEPTED) {
        is_good = !own->was_told[LEDGER_ACCEPTED] && !own->was_told[LEDGER_QUEUED] && !has_end;
    } else if (status == LEDGER_QUEUED || drop != DROP_NONE) {
        is_good = !own->was_told[LEDGER_QUEUED] && !has_end;
    } else {
        is_good =
            (own->verdict == LEDGER_STATUS_COUNT || own->verdict == status) && (!own->was_dropped || own->may_be_sent);
    }
    if (!is_good) {
        const char *before = own->was_dropped                      ? "dropped"
                             : own->verdict != LEDGER_STATUS_COUNT ? ledger_status_name(own->verdict)
                             : own->was_told[LEDGER_QUEUED]        ? "queued"
                                                                   : "accepted";
        world_fail(world, "c%u is told of its message %u that it is %s, after it was told %s", (unsigned)conn->client,
                   (unsigned)(own - conn->submissions) + 1, drop == DROP_NONE ? ledger_status_name(status) : "dropped",
                   before);
    }
    own->was_told[status] = true;
    own->was_dropped = own->was_dropped || drop != DROP_NONE;
    own->may_be_sent = own->may_be_sent || drop == DROP_MAYBE_SENT;
    own->verdict = status >= LEDGER_STORED && drop == DROP_NONE ? status : own->verdict;
}

/* By seq: this connection's own. */
static uint32_t judge_own(struct world *world, struct conn *conn, uint32_t seq, struct span id,
                          enum ledger_status status, enum drop drop)
{
    if (seq == 0 || seq > conn->submission_count) {
        world_fail(world, "c%u gets a receipt for its message %u and has sent %u", (unsigned)conn->client,
                   (unsigned)seq, (unsigned)conn->submission_count);
    }
    struct submission *own = &conn->submissions[seq - 1];
    if (own->index == LEDGER_NONE ||
        (world->ledger.messages[own->index].has_id && ledger_find(world, conn->client, id) != own->index) ||
        (!world->ledger.messages[own->index].has_id && id.bytes > 0)) {
        world_fail(world, "c%u gets a receipt with seq %u and the id %.*s, which do not belong together",
                   (unsigned)conn->client, (unsigned)seq, (int)id.bytes, (const char *)id.data);
    }
    judge_progress(world, conn, own, status, drop);
    return own->index;
}

/* By id: of an earlier connection's message. Where it was sent several times, receipts of several may come. */
static uint32_t judge_earlier(struct world *world, struct conn *conn, struct span id, enum ledger_status status)
{
    uint32_t index = ledger_find(world, conn->client, id);
    const struct ledger_message *message = &world->ledger.messages[index == LEDGER_NONE ? 0 : index];
    if (index != LEDGER_NONE && message->submission_count == 1) {
        uint8_t before = conn->told_by_id[message->number];
        if (status < LEDGER_STORED && before > (uint8_t)status) {
            world_fail(world, "c%u is told of its earlier message %.*s that it is %s, after it was told %s",
                       (unsigned)conn->client, (int)id.bytes, (const char *)id.data, ledger_status_name(status),
                       ledger_status_name((enum ledger_status)(before - 1)));
        }
        conn->told_by_id[message->number] = (uint8_t)(status + 1);
    }
    return index;
}

static void on_receipt(struct world *world, struct conn *conn, struct span text)
{
    struct span id = member(text, "\"id\":");
    struct span seq = member(text, "\"seq\":");
    struct span name = member(text, "\"status\":");
    enum ledger_status status;
    if (!status_of(name, &status)) {
        world_fail(world, "a receipt of the status %.*s", (int)name.bytes, (const char *)name.data);
    }
    if (!conn->wants[status] && status < LEDGER_REJECTED) {
        world_fail(world, "c%u is told %.*s and did not ask for it", (unsigned)conn->client, (int)name.bytes,
                   (const char *)name.data);
    }
    struct span code = member(text, "\"code\":");
    enum drop drop = drop_of(status, code, member(text, "\"reason\":"));
    uint32_t index = seq.bytes > 0 ? judge_own(world, conn, number_of(seq), id, status, drop)
                                   : judge_earlier(world, conn, id, status);
    if (index == LEDGER_NONE) {
        world_fail(world, "c%u gets a receipt for what it never sent: %.*s", (unsigned)conn->client, (int)text.bytes,
                   (const char *)text.data);
    }
    sim_note(world->sim, ledger_status_name(status), conn->client, world->ledger.messages[index].number);
    ledger_told(world, index, status, code, conn->life);
    if (status >= LEDGER_QUEUED) {
        world->clients.each[conn->client].is_settled[world->ledger.messages[index].number] = true;
    }
}

static void on_error(struct world *world, struct conn *conn, struct span text)
{
    uint32_t seq = number_of(member(text, "\"seq\":"));
    struct span code = member(text, "\"code\":");
    if (span_is(code, "already_connected") || span_is(code, "max_connections")) {
        conn_refused(world, conn);
        return;
    }
    if (seq == 0 || seq > conn->submission_count || !conn->submissions[seq - 1].wants_error ||
        conn->submissions[seq - 1].has_error) {
        world_fail(world, "c%u gets an error for a good message: %.*s", (unsigned)conn->client, (int)text.bytes,
                   (const char *)text.data);
    }
    conn->submissions[seq - 1].has_error = true;
}

static void on_text(struct world *world, struct conn *conn, struct span text)
{
    struct span type = member(text, "\"type\":");
    if (conn->state == CONN_UPGRADED && span_is(type, "connected")) {
        char id[8];
        (void)snprintf(id, sizeof id, "c%u", (unsigned)conn->client);
        if (!span_is(member(text, "\"client_id\":"), id)) {
            world_fail(world, "%s is greeted as another", id);
        }
        conn_greeted(world, conn);
    } else if (span_is(type, "receipt")) {
        on_receipt(world, conn, text);
    } else if (span_is(type, "error")) {
        on_error(world, conn, text);
    } else if (span_is(type, "ping")) {
        static const char pong[] = "{\"type\":\"pong\"}";
        if (!conn->has_ended && conn->submission_count < CLIENT_SUBMISSIONS_MAX) {
            conn->submissions[conn->submission_count++] = (struct submission){.index = LEDGER_NONE};
            conn_say(world, conn, TEXT, pong, sizeof pong - 1);
        }
    } else if (span_is(type, "busy") || span_is(type, "pong")) {
        sim_note(world->sim, "client: is told to wait, or pong", conn->client, 0);
    } else {
        char to[8];
        (void)snprintf(to, sizeof to, "c%u", (unsigned)conn->client);
        uint32_t number = number_of(member(text, "\"b\":"));
        if (number == 0 || number > world->processor.told_count || !span_is(member(text, "\"to\":"), to)) {
            world_fail(world, "c%u gets what nobody sent to it: %.*s", (unsigned)conn->client, (int)text.bytes,
                       (const char *)text.data);
        }
        struct one_client *each = &world->clients.each[conn->client];
        each->was_called = each->was_called || number == each->called_number;
    }
}

static void on_frame(struct world *world, struct conn *conn, uint8_t first, const uint8_t *data, size_t bytes)
{
    if ((first & 0xF0) != 0x80) {
        world_fail(world, "c%u gets a frame with the bits %u", (unsigned)conn->client, first);
    }
    switch (first & 15) {
    case TEXT:
        on_text(world, conn, span_of(data, bytes));
        break;
    case CLOSE:
        sim_note(world->sim, "client: is let go, with the code", conn->client,
                 bytes >= 2 ? (uint64_t)(data[0] << 8 | data[1]) : 0);
        if (conn->state != CONN_LEAVING && !conn->has_ended) {
            conn_say(world, conn, CLOSE, data, bytes < 2 ? bytes : 2);
        }
        conn->has_ended = true;
        break;
    case PING:
        if (!conn->has_ended && bytes <= CONTROL_BYTES_MAX) {
            conn_say(world, conn, PONG, data, bytes);
        }
        break;
    case PONG:
        break;
    default:
        world_fail(world, "c%u gets a frame of the kind %u", (unsigned)conn->client, first & 15U);
    }
}

/* The answer to the handshake; true when it is whole. */
static bool take_answer(struct world *world, struct conn *conn, size_t *used)
{
    static const char status[] = "HTTP/1.1 101 ";
    static const char accept[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    struct span in = span_of(conn->in, conn->in_bytes);
    for (size_t i = 0; i + 4 <= in.bytes; i++) {
        if (memcmp(in.data + i, "\r\n\r\n", 4) != 0) {
            continue;
        }
        *used = i + 4;
        if (memcmp(in.data, status, sizeof status - 1) != 0) {
            conn->has_ended = true; /* 503 while it drains, 408 when we were slow */
            return true;
        }
        bool has_accept = false;
        for (size_t j = 0; j + sizeof accept - 1 <= i && !has_accept; j++) {
            has_accept = memcmp(in.data + j, accept, sizeof accept - 1) == 0;
        }
        if (!has_accept) {
            world_fail(world, "the handshake's answer has not the right Sec-WebSocket-Accept");
        }
        conn->state = CONN_UPGRADED;
        return true;
    }
    return false;
}

/* Handles what is whole in `in`; the bytes used. The connection may end meanwhile. */
static size_t take_frames(struct world *world, struct conn *conn)
{
    size_t used = 0;
    uint32_t generation = conn->generation;
    if (conn->state == CONN_ASKING && (!take_answer(world, conn, &used) || conn->has_ended)) {
        return used;
    }
    while (conn->in_bytes - used >= 2) {
        const uint8_t *frame = conn->in + used;
        size_t bytes = frame[1];
        size_t header_bytes = 2;
        if (bytes == 126) {
            header_bytes = 4;
            bytes = conn->in_bytes - used >= 4 ? (size_t)(frame[2] << 8 | frame[3]) : CLIENT_IN_BYTES;
        }
        if (conn->in_bytes - used < header_bytes + bytes) {
            break;
        }
        on_frame(world, conn, frame[0], frame + header_bytes, bytes);
        if (conn->state == CONN_FREE || conn->generation != generation) {
            return 0;
        }
        used += header_bytes + bytes;
    }
    return used;
}

void conn_read(struct world *world, struct conn *conn)
{
    uint32_t generation = conn->generation;
    while (conn->state != CONN_FREE && conn->generation == generation && !conn->is_slow) {
        size_t got = sim_receive(world->sim, conn->link, conn->in + conn->in_bytes, CLIENT_IN_BYTES - conn->in_bytes);
        if (got == 0) {
            return;
        }
        conn->heard_ns = sim_now_ns(world->sim);
        conn->in_bytes += got;
        size_t used = take_frames(world, conn);
        if (conn->state == CONN_FREE || conn->generation != generation) {
            return;
        }
        conn->in_bytes -= used;
        memmove(conn->in, conn->in + used, conn->in_bytes);
    }
}
