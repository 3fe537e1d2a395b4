/* SPDX-License-Identifier: MIT */
/* A message's text is a function of its index and sizes, so that its bytes can be compared wherever they turn up. */
#include "ledger.h"

#include <stdio.h>
#include <string.h>

#include "world.h"

static const char *const queue_names[PLAN_QUEUES] = {"messages", "alarms"};
static const char *const type_names[PLAN_QUEUES] = {"text", "alarm"};

enum {
    TIME_BYTES = sizeof "2026-11-23T07:21:11.839Z" - 1,
    RECORD_AROUND_BYTES = 160 /* what a record on the disk has beyond the body, and a mark (doc/spool-format.md) */
};

const char *ledger_status_name(enum ledger_status status)
{
    static const char *const names[LEDGER_STATUS_COUNT] = {"accepted", "queued", "stored", "rejected", "dead"};
    return names[status];
}

const char *ledger_queue_name(uint32_t queue)
{
    return queue_names[queue];
}

/* Nothing happened that excuses a repeat. */
static bool is_undisturbed(const struct plan *plan)
{
    return plan->broker_fault_ns == 0 && plan->crash_ns == 0 && plan->stop_ns == 0 && plan->nack_ppm == 0 &&
           plan->weather.stall_ppm == 0;
}

void ledger_begin(struct world *world)
{
    struct ledger *ledger = &world->ledger;
    ledger->is_undisturbed = is_undisturbed(&world->plan);
    const struct sim_weather *weather = &world->plan.weather;
    ledger->is_disk_good = weather->write_fails_ppm + weather->sync_fails_ppm + weather->folder_fails_ppm == 0;
    ledger->message_count = 0;
    ledger->promised_count = 0;
    ledger->refused_count = 0;
    ledger->published_count = 0;
    memset(ledger->numbers, 0, sizeof ledger->numbers);
    memset(ledger->highest, 0, sizeof ledger->highest);
}

static struct ledger_message *at(struct world *world, uint32_t index)
{
    CHECK(index < world->ledger.message_count);
    return &world->ledger.messages[index];
}

uint32_t ledger_create(struct world *world, uint32_t client)
{
    struct ledger *ledger = &world->ledger;
    CHECK(ledger->message_count < LEDGER_MESSAGES_MAX);
    struct ledger_message *message = &ledger->messages[ledger->message_count];
    memset(message, 0, sizeof *message);
    message->client = (uint8_t)client;
    message->number = ++ledger->numbers[client];
    CHECK(message->number < LEDGER_NUMBERS_MAX);
    ledger->indexes[client][message->number] = (uint16_t)ledger->message_count;
    message->queue = (uint8_t)(sim_chance(world->sim, SIM_ALWAYS / 8) ? 1 : 0);
    message->has_id = !sim_chance(world->sim, world->plan.anonymous_ppm);
    message->pad_bytes = (uint32_t)sim_magnitude(world->sim, world->plan.pad_min, world->plan.pad_max);
    world->counts.messages++;
    return ledger->message_count++;
}

/* Text of every kind that JSON keeps byte for byte: escapes, other scripts, blanks. */
static size_t write_pad(uint32_t index, uint32_t bytes, char *text)
{
    static const char *const pieces[] = {"a",   "Z9", "\\n", "\xC3\xA9", "\\u20AC", " ", "{]", "\xF0\x9F\x98\x80",
                                         "\\\\"};
    size_t used = 0;
    uint32_t state = index * 2654435761U + 12345;
    while (used < bytes) {
        state = state * 1664525U + 1013904223U;
        const char *piece = pieces[(state >> 16) % (sizeof pieces / sizeof pieces[0])];
        memcpy(text + used, piece, strlen(piece));
        used += strlen(piece);
    }
    return used;
}

static size_t write_content(uint32_t index, const struct ledger_message *message, char *text)
{
    size_t used = (size_t)sprintf(text, "{\"m\":%u,\"p\":\"", (unsigned)index);
    used += write_pad(index, message->pad_bytes, text + used);
    used += (size_t)sprintf(text + used, "\"%s}", index % 3 == 0 ? " " : "");
    return used;
}

static size_t write_id(const struct ledger_message *message, char *text)
{
    return message->has_id ? (size_t)sprintf(text, ",\"id\":\"m%u\"", (unsigned)message->number) : 0;
}

size_t ledger_write(const struct world *world, uint32_t index, char text[LEDGER_TEXT_BYTES])
{
    const struct ledger_message *message = &world->ledger.messages[index];
    size_t used = (size_t)sprintf(text, "{\"type\":\"%s\",\"content\":", type_names[message->queue]);
    used += write_content(index, message, text + used);
    used += write_id(message, text + used);
    text[used++] = '}';
    return used;
}

void ledger_submit(struct world *world, uint32_t index)
{
    struct ledger_message *message = at(world, index);
    message->submission_count++;
}

uint32_t ledger_find(const struct world *world, uint32_t client, struct span id)
{
    const struct ledger *ledger = &world->ledger;
    uint32_t number = 0;
    for (size_t i = 1; i < id.bytes && i <= 5 && id.data[i] >= '0' && id.data[i] <= '9'; i++) {
        number = number * 10 + (uint32_t)(id.data[i] - '0');
    }
    char name[16];
    (void)snprintf(name, sizeof name, "m%u", (unsigned)number);
    if (number == 0 || number > ledger->numbers[client] || !span_is(id, name)) {
        return LEDGER_NONE;
    }
    uint32_t index = ledger->indexes[client][number];
    return ledger->messages[index].has_id ? index : LEDGER_NONE;
}

/* ---- what comes to the broker ---- */

static uint32_t read_index(struct span body)
{
    static const char mark[] = "\"content\":{\"m\":";
    for (size_t i = 0; i + sizeof mark < body.bytes; i++) {
        if (memcmp(body.data + i, mark, sizeof mark - 1) == 0) {
            uint32_t index = 0;
            for (i += sizeof mark - 1; i < body.bytes && body.data[i] >= '0' && body.data[i] <= '9' && index < 100000;
                 i++) {
                index = index * 10 + (uint32_t)(body.data[i] - '0');
            }
            return index;
        }
    }
    return UINT32_MAX;
}

/* A body up to its time, behind which two bytes come. */
static size_t write_body(uint32_t index, const struct ledger_message *message, char text[LEDGER_TEXT_BYTES])
{
    size_t used = (size_t)sprintf(text, "{\"client_id\":\"c%u\",\"type\":\"%s\",\"content\":", message->client,
                                  type_names[message->queue]);
    used += write_content(index, message, text + used);
    used += write_id(message, text + used);
    return used + (size_t)sprintf(text + used, ",\"gateway\":\"gw\",\"received_at\":\"");
}

static void check_body(struct world *world, uint32_t index, struct span body)
{
    const struct ledger_message *message = at(world, index);
    char text[LEDGER_TEXT_BYTES];
    size_t used = write_body(index, message, text);
    bool is_whole = body.bytes == used + TIME_BYTES + 2 && memcmp(body.data, text, used) == 0 &&
                    memcmp(body.data + used + TIME_BYTES, "\"}", 2) == 0;
    if (!is_whole) {
        world_fail(world, "message %u of c%u was altered: %.*s", (unsigned)message->number, message->client,
                   (int)body.bytes, (const char *)body.data);
    }
}

static void check_properties(struct world *world, uint32_t index, const struct ledger_publish *publish)
{
    struct ledger_message *message = at(world, index);
    char id[LEDGER_ID_BYTES];
    if (message->has_id) {
        (void)snprintf(id, sizeof id, "c%u:m%u", message->client, (unsigned)message->number);
        if (!span_is(publish->message_id, id)) {
            world_fail(world, "%s goes by the message_id %.*s", id, (int)publish->message_id.bytes,
                       (const char *)publish->message_id.data);
        }
    } else if (message->made_id[0] == '\0') {
        (void)snprintf(message->made_id, sizeof message->made_id, "%.*s", (int)publish->message_id.bytes,
                       (const char *)publish->message_id.data);
        for (uint32_t i = 0; i < world->ledger.message_count; i++) {
            if (i != index && strcmp(world->ledger.messages[i].made_id, message->made_id) == 0) {
                world_fail(world, "two messages go by the message_id %s", message->made_id);
            }
        }
    } else if (!span_is(publish->message_id, message->made_id)) {
        world_fail(world, "message %u of c%u goes by two message_ids", (unsigned)message->number, message->client);
    }
    if (!span_is(publish->queue, queue_names[message->queue]) || !span_is(publish->type, type_names[message->queue])) {
        world_fail(world, "message %u of c%u goes to the wrong queue", (unsigned)message->number, message->client);
    }
    if (!publish->is_persistent || !publish->is_mandatory || !span_is(publish->content_type, "application/json") ||
        !span_is(publish->app_id, "postern") || !span_is(publish->reply_to, "gateway.gw") ||
        publish->correlation_id.bytes == 0 || publish->timestamp_s == 0) {
        world_fail(world, "message %u of c%u lacks a property", (unsigned)message->number, message->client);
    }
}

static void excuse(struct ledger_message *message, uint32_t number)
{
    message->excused_number = number > message->excused_number ? number : message->excused_number;
}

/* Those before it that the broker refused on this connection: this one may overtake them if it was made before the
 * gateway knew. */
static void check_behind_refused(struct world *world, uint32_t index, const struct ledger_publish *publish)
{
    const struct ledger_message *message = at(world, index);
    for (uint32_t i = 0; i < world->ledger.message_count && world->ledger.refused_count > 0; i++) {
        struct ledger_message *before = &world->ledger.messages[i];
        if (before->is_refused && !before->is_dropped && before->client == message->client &&
            before->queue == message->queue && before->number < message->number &&
            before->refused_link == publish->link) {
            if (publish->known_bytes >= before->refused_position) {
                world_fail(world, "message %u of c%u was published although message %u before it had come back",
                           (unsigned)message->number, message->client, (unsigned)before->number);
            }
            excuse(before, message->number);
        }
    }
}

uint32_t ledger_recognize(struct world *world, const struct ledger_publish *publish)
{
    uint32_t index = read_index(publish->body);
    if (index >= world->ledger.message_count || at(world, index)->submission_count == 0) {
        world_fail(world, "this was never sent: %.*s", (int)publish->body.bytes, (const char *)publish->body.data);
    }
    check_body(world, index, publish->body);
    check_properties(world, index, publish);
    check_behind_refused(world, index, publish);
    if (at(world, index)->publish_order == 0) {
        at(world, index)->publish_order = ++world->ledger.published_count;
    }
    return index;
}

void ledger_refused(struct world *world, uint32_t index, uint32_t link, uint64_t position)
{
    struct ledger_message *message = at(world, index);
    if (message->enqueued_count == 0) {
        world->ledger.refused_count += !message->is_refused;
        message->is_refused = true;
        message->refused_link = link;
        message->refused_position = position;
    }
}

void ledger_taken(struct world *world, uint32_t index)
{
    struct ledger_message *message = at(world, index);
    world->ledger.refused_count -= message->is_refused;
    message->is_refused = false;
}

static bool is_promised(const struct ledger_message *message)
{
    return message->was_told[LEDGER_ACCEPTED] && !message->is_dropped && message->enqueued_count == 0;
}

void ledger_enqueued(struct world *world, uint32_t index)
{
    struct ledger_message *message = at(world, index);
    world->ledger.promised_count -= is_promised(message);
    world->counts.enqueued++;
    ledger_taken(world, index); /* of a message that was sent several times one is refused and another is not */
    if (message->enqueued_count++ > 0) {
        return;
    }
    sim_note(world->sim, "queue: has message", message->client, message->number);
    uint32_t *highest = &world->ledger.highest[message->client][message->queue];
    /* What was dropped and not marked as such on the disk comes again after a crash, and too late. */
    if (message->number<*highest && * highest> message->excused_number && !message->is_dropped) {
        world_fail(world, "message %u of c%u comes to its queue behind message %u", (unsigned)message->number,
                   message->client, (unsigned)*highest);
    }
    *highest = message->number > *highest ? message->number : *highest;
}

void ledger_confirmed(struct world *world, uint32_t index, uint32_t link, uint64_t position)
{
    struct ledger_message *message = at(world, index);
    message->confirm_link = link;
    message->confirm_position = position;
}

void ledger_read(struct world *world, uint32_t link, uint64_t bytes)
{
    for (uint32_t i = 0; i < world->ledger.message_count; i++) {
        struct ledger_message *message = &world->ledger.messages[i];
        if (message->confirm_link == link && message->confirm_position <= bytes) {
            message->confirm_link = 0;
            message->gone_count++;
        }
    }
}

void ledger_processed(struct world *world, uint32_t index, enum ledger_status verdict)
{
    struct ledger_message *message = at(world, index);
    if (!message->is_processed) {
        message->is_processed = true;
        message->verdict = verdict;
    }
}

void ledger_writes_were_torn(struct world *world)
{
    for (uint32_t i = 0; i < world->ledger.message_count; i++) {
        struct ledger_message *message = &world->ledger.messages[i];
        if (message->enqueued_count == 0 && !message->was_told[LEDGER_ACCEPTED]) {
            excuse(message, world->ledger.numbers[message->client]);
        }
    }
}

/* ---- what is told to clients ---- */

/* What the gateway can have at most, as records on the disk: all that was sent to it and is not known to be gone. And
 * what is gone and was published behind one of these: room comes back in order. */
static uint64_t held_bytes(struct world *world)
{
    uint64_t bytes = 0;
    char text[LEDGER_TEXT_BYTES];
    uint32_t first_held = UINT32_MAX;
    broker_tell_read(world);
    for (uint32_t i = 0; i < world->ledger.message_count; i++) {
        const struct ledger_message *message = &world->ledger.messages[i];
        if (message->submission_count > message->gone_count && message->publish_order > 0 &&
            message->publish_order < first_held) {
            first_held = message->publish_order;
        }
    }
    for (uint32_t i = 0; i < world->ledger.message_count; i++) {
        const struct ledger_message *message = &world->ledger.messages[i];
        bool is_held = message->submission_count > message->gone_count;
        if (is_held || message->publish_order > first_held) {
            bytes += (uint64_t)message->submission_count *
                     (write_body(i, message, text) + TIME_BYTES + 2 + RECORD_AROUND_BYTES);
        }
    }
    return bytes;
}

void ledger_dropped(struct world *world, uint32_t index)
{
    struct ledger_message *message = at(world, index);
    if (!world->plan.drops_oldest) {
        world_fail(world, "message %u of c%u was dropped against the rule", (unsigned)message->number, message->client);
    }
    if (message->submission_count == 1 && message->queued_life == world->life) {
        world_fail(world, "message %u of c%u was dropped after it was told to be queued", (unsigned)message->number,
                   message->client);
    }
    if (world->life == 1 && world->ledger.is_disk_good) {
        uint64_t bytes = held_bytes(world);
        if (bytes < world->spool_full_bytes) {
            world_fail(world,
                       "message %u of c%u was dropped when the gateway had at most %llu bytes, and the spool has "
                       "room for %llu",
                       (unsigned)message->number, message->client, (unsigned long long)bytes,
                       (unsigned long long)world->spool_full_bytes);
        }
    }
    message->gone_count++;
    world->ledger.promised_count -= is_promised(message);
    message->is_dropped = true;
}

void ledger_told(struct world *world, uint32_t index, enum ledger_status status, struct span code, uint32_t life)
{
    struct ledger_message *message = at(world, index);
    bool is_true = true;
    switch (status) {
    case LEDGER_ACCEPTED:
        is_true = world->plan.has_spool;
        break;
    case LEDGER_QUEUED:
        is_true = message->enqueued_count > 0;
        message->queued_life = life;
        world->counts.queued_told++;
        break;
    case LEDGER_REJECTED:
        if (span_is(code, "dropped")) {
            is_true = message->is_dropped;
            break;
        }
        is_true = message->is_processed && message->verdict == status;
        break;
    case LEDGER_STORED:
    case LEDGER_DEAD:
        is_true = message->is_processed && message->verdict == status;
        world->counts.stored_told++;
        break;
    case LEDGER_STATUS_COUNT:
        break;
    }
    if (!is_true) {
        world_fail(world, "message %u of c%u was told to be %s, which is not true", (unsigned)message->number,
                   message->client, ledger_status_name(status));
    }
    if (status == LEDGER_ACCEPTED) {
        bool was_promised = is_promised(message);
        message->was_told[status] = true;
        world->ledger.promised_count += is_promised(message) && !was_promised;
        world->counts.accepted_told++;
    }
    message->was_told[status] = true;
}

bool ledger_is_even(const struct world *world)
{
    return world->ledger.promised_count == 0;
}

void ledger_check_end(struct world *world)
{
    for (uint32_t i = 0; i < world->ledger.message_count && world->ledger.is_undisturbed; i++) {
        const struct ledger_message *message = &world->ledger.messages[i];
        if (message->enqueued_count > message->submission_count) {
            world_fail(world, "message %u of c%u was sent %u times and is %u times in its queue",
                       (unsigned)message->number, message->client, message->submission_count, message->enqueued_count);
        }
    }
    for (uint32_t i = 0; i < world->ledger.message_count; i++) {
        const struct ledger_message *message = &world->ledger.messages[i];
        if (is_promised(message)) {
            world_fail(world, "message %u of c%u was told to be accepted, and is lost", (unsigned)message->number,
                       message->client);
        }
    }
}
