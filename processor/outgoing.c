/* SPDX-License-Identifier: MIT */
/* Receipts and dead letters stand in a queue each, because they can be held up apart: the queue of dead letters may be
 * full, or have lost its leader, while receipts are confirmed. A queue's items and their bytes are two rings that are
 * released together from the front. There are few items (one for each batch and gateway), so a confirm simply looks
 * through them. What is to be published goes out receipts first, so that dead letters which are nacked and sent again
 * without end cannot keep them from a slow link.
 *
 * A mandatory dead letter that comes back found no queue: someone deleted it. The connection is then made anew, which
 * declares the queue again and drops the meaningless ack that follows a return. A broker that answers with nothing but
 * nacks for a second gets a new connection too (a channel can be stuck in that after a cluster's failover). When that
 * changes nothing, the next one comes much later, because receipts wait while it is made. */
#include "outgoing.h"

#include "arena.h"
#include "check.h"
#include "log.h"
#include "number.h"

enum {
    RETRY_MS = 100,
    NACKS_ONLY_MS = 1000,
    NACKS_ONLY_GROWTH = 8,
    NACKS_ONLY_MS_MAX = 512000,
    DROPPED_LOG_MS = 10000,
    DEAD_LETTERS_LONGEST = 3, /* room for so many of the longest, and for the ring's unused end once more */
    RECEIPTS_CROWDED = OUTGOING_ITEMS_EACH / 2, /* so many unconfirmed: the broker does not keep up */
    OUT_SLACK_BYTES = 65536
};

#define DOWNLINK_EXCHANGE "postern.downlink"

static struct outgoing_item *item_at(const struct outgoing_queue *queue, uint64_t sequence)
{
    return &queue->items[sequence & (OUTGOING_ITEMS_EACH - 1)];
}

/* ---- The link's events ---- */

static void on_channel(void *context)
{
    struct outgoing *const outgoing = context;
    outgoing->nacked_since_ms = UINT64_MAX;
    amqp_topology_on_channel(&outgoing->topology);
}

static void unsend_queue(struct outgoing_queue *queue)
{
    for (uint64_t i = queue->first; i < queue->end; i++) {
        item_at(queue, i)->publish_tag = 0;
    }
}

/* What was out is undecided: all of it is published again. */
static void unsend(struct outgoing *outgoing)
{
    outgoing->is_ready = false;
    unsend_queue(&outgoing->receipts);
    unsend_queue(&outgoing->dead_letters);
}

static void on_reply(void *context, const struct amqp_reply *reply)
{
    struct outgoing *const outgoing = context;
    switch (amqp_topology_on_reply(&outgoing->topology, reply)) {
    case AMQP_TOPOLOGY_DONE:
        outgoing->is_ready = true;
        break;
    case AMQP_TOPOLOGY_PENDING:
    case AMQP_TOPOLOGY_FAILED:
    case AMQP_TOPOLOGY_IDLE:
        break;
    }
}

static void on_channel_closed(void *context, uint16_t code, struct span text)
{
    struct outgoing *const outgoing = context;
    unsend(outgoing);
    (void)amqp_topology_on_channel_closed(&outgoing->topology, code, text);
}

static void on_down(void *context)
{
    unsend(context);
}

static void release_first(struct outgoing_queue *queue)
{
    byte_ring_release(&queue->bytes, item_at(queue, queue->first)->mark);
    queue->first++;
}

static void confirm(struct outgoing_queue *queue, uint64_t tag, bool multiple, bool is_ack, uint64_t now_ms)
{
    for (uint64_t i = queue->first; i < queue->end; i++) {
        struct outgoing_item *const item = item_at(queue, i);
        if (item->done || item->publish_tag == 0 || (multiple ? item->publish_tag > tag : item->publish_tag != tag)) {
            continue;
        }
        item->done = is_ack;
        if (!is_ack) {
            item->publish_tag = 0;
            item->retry_ms = now_ms + RETRY_MS;
        }
    }
}

static void on_confirm(void *context, uint64_t tag, bool multiple, bool is_ack)
{
    struct outgoing *const outgoing = context;
    confirm(&outgoing->receipts, tag, multiple, is_ack, outgoing->now_ms);
    confirm(&outgoing->dead_letters, tag, multiple, is_ack, outgoing->now_ms);
    while (outgoing->receipts.first < outgoing->receipts.end &&
           item_at(&outgoing->receipts, outgoing->receipts.first)->done) {
        release_first(&outgoing->receipts);
    }
    if (is_ack) {
        outgoing->nacked_since_ms = UINT64_MAX;
        outgoing->nacks_only_ms = NACKS_ONLY_MS;
    } else if (outgoing->nacked_since_ms == UINT64_MAX) {
        outgoing->nacked_since_ms = outgoing->now_ms;
    } else if (outgoing->now_ms - outgoing->nacked_since_ms >= outgoing->nacks_only_ms) {
        outgoing->nacks_only_ms = number_smaller(outgoing->nacks_only_ms * NACKS_ONLY_GROWTH, NACKS_ONLY_MS_MAX);
        amqp_link_reconnect(outgoing->link, "nothing but nacks for a while", AMQP_LINK_NACKS_REMEDY);
    }
}

static void on_return(void *context, uint16_t code, struct span text, const struct amqp_message *message)
{
    struct outgoing *const outgoing = context;
    log_event(outgoing->log, LOG_WARN, "dead_letter_returned", LOG_U64("code", code), LOG_SPAN("cause", text),
              LOG_SPAN("queue", message->routing_key));
    amqp_link_reconnect(outgoing->link, "the dead letters' queue is gone", NULL);
}

static const struct amqp_link_handler link_handler = {.on_channel = on_channel,
                                                      .on_reply = on_reply,
                                                      .on_channel_closed = on_channel_closed,
                                                      .on_confirm = on_confirm,
                                                      .on_return = on_return,
                                                      .on_down = on_down};

static void init_queue(struct outgoing_queue *queue, struct arena *arena, size_t bytes)
{
    queue->items = arena_take(arena, "outgoing: items", OUTGOING_ITEMS_EACH, sizeof *queue->items);
    byte_ring_init(&queue->bytes, arena, "outgoing: messages", bytes);
}

void outgoing_init(struct outgoing *outgoing, struct arena *arena, struct port *port, struct log *log,
                   const struct outgoing_options *options, const struct outgoing_handler *handler)
{
    *outgoing = (struct outgoing){
        .log = log, .handler = *handler, .nacked_since_ms = UINT64_MAX, .nacks_only_ms = NACKS_ONLY_MS};
    init_queue(&outgoing->receipts, arena, OUTGOING_RECEIPTS_BYTES);
    init_queue(&outgoing->dead_letters, arena, (DEAD_LETTERS_LONGEST + 1) * options->message_bytes_max);
    const struct amqp_link_options link_options = {.program = "postern-processor",
                                                   .instance = options->instance,
                                                   .role = "publish",
                                                   .brokers = options->brokers,
                                                   .heartbeat_s = options->heartbeat_s,
                                                   .token = options->token,
                                                   .out_bytes = AMQP_LINK_OUT_BYTES_MIN + options->message_bytes_max +
                                                                OUT_SLACK_BYTES,
                                                   .confirms = true};
    outgoing->link = amqp_link_init(arena, port, log, &link_options, &link_handler, outgoing);
    if (arena_measuring(arena)) {
        return;
    }
    outgoing->steps[0] = (struct amqp_step){.kind = AMQP_STEP_QUEUE,
                                            .queue = {.name = options->dead_queue, .type = options->queue_type}};
    outgoing->steps[1] =
        (struct amqp_step){.kind = AMQP_STEP_EXCHANGE, .exchange = SPAN(DOWNLINK_EXCHANGE), .exchange_type = "topic"};
    amqp_topology_init(&outgoing->topology, outgoing->link, log, outgoing->steps, OUTGOING_STEPS);
}

void outgoing_on_event(struct outgoing *outgoing, uint32_t ready, uint64_t now_ms)
{
    outgoing->now_ms = now_ms;
    amqp_link_on_event(outgoing->link, ready, now_ms);
}

/* ---- Taking ---- */

static struct span keep(uint8_t **to, struct span bytes)
{
    if (bytes.bytes == 0) {
        return span_of(NULL, 0);
    }
    memcpy(*to, bytes.data, bytes.bytes);
    const struct span kept = span_of(*to, bytes.bytes);
    *to += bytes.bytes;
    return kept;
}

static size_t total_bytes(const struct amqp_publish *message, const struct outgoing_dead *dead)
{
    size_t bytes = message->routing_key.bytes + message->body.bytes + message->content_type.bytes +
                   message->correlation_id.bytes + message->reply_to.bytes + message->message_id.bytes +
                   message->type.bytes + message->app_id.bytes;
    for (size_t i = 0; i < message->header_count; i++) {
        bytes += sizeof(struct amqp_header) + message->headers[i].name.bytes + message->headers[i].text.bytes;
    }
    return bytes + dead->client_id.bytes + dead->id.bytes + dead->ref.bytes + dead->reply_to.bytes + dead->reason.bytes;
}

/* The exchange's name is the one span that stays the caller's: it is static. */
static bool add(struct outgoing_queue *queue, const struct amqp_publish *message, const struct outgoing_dead *dead)
{
    if (queue->end - queue->first == OUTGOING_ITEMS_EACH) {
        return false;
    }
    uint8_t *to = byte_ring_take(&queue->bytes, total_bytes(message, dead));
    if (to == NULL) {
        return false;
    }
    struct outgoing_item *const item = item_at(queue, queue->end++);
    *item = (struct outgoing_item){.message = *message, .dead = *dead, .mark = queue->bytes.head};
    struct amqp_publish *const kept = &item->message;
    struct amqp_header *const headers = (struct amqp_header *)(void *)to;
    to += message->header_count * sizeof *headers;
    for (size_t i = 0; i < message->header_count; i++) {
        headers[i] = message->headers[i];
        headers[i].name = keep(&to, message->headers[i].name);
        headers[i].text = keep(&to, message->headers[i].text);
    }
    kept->headers = headers;
    kept->routing_key = keep(&to, message->routing_key);
    kept->body = keep(&to, message->body);
    kept->content_type = keep(&to, message->content_type);
    kept->correlation_id = keep(&to, message->correlation_id);
    kept->reply_to = keep(&to, message->reply_to);
    kept->message_id = keep(&to, message->message_id);
    kept->type = keep(&to, message->type);
    kept->app_id = keep(&to, message->app_id);
    item->dead.client_id = keep(&to, dead->client_id);
    item->dead.id = keep(&to, dead->id);
    item->dead.ref = keep(&to, dead->ref);
    item->dead.reply_to = keep(&to, dead->reply_to);
    item->dead.reason = keep(&to, dead->reason);
    return true;
}

void outgoing_receipts(struct outgoing *outgoing, struct span reply_to, struct span body, size_t count)
{
    const struct amqp_publish message = {.exchange = SPAN(DOWNLINK_EXCHANGE),
                                         .routing_key = reply_to,
                                         .body = body,
                                         .content_type = SPAN("application/json"),
                                         .type = SPAN("receipts"),
                                         .app_id = SPAN("postern"),
                                         .persistent = true};
    const struct outgoing_dead nobody = {.tag = 0};
    if (!add(&outgoing->receipts, &message, &nobody)) {
        outgoing->dropped_count += count;
    }
}

bool outgoing_dead_letter(struct outgoing *outgoing, const struct amqp_publish *message,
                          const struct outgoing_dead *dead)
{
    struct amqp_publish letter = *message;
    letter.exchange = span_of(NULL, 0);
    letter.routing_key = outgoing->steps[0].queue.name;
    letter.mandatory = true;
    letter.persistent = true;
    return add(&outgoing->dead_letters, &letter, dead);
}

/* ---- Sending and settling ---- */

static bool can_publish(const struct outgoing *outgoing)
{
    return outgoing->is_ready && !amqp_link_blocked(outgoing->link);
}

bool outgoing_flows(const struct outgoing *outgoing)
{
    return can_publish(outgoing) && outgoing->receipts.end - outgoing->receipts.first < RECEIPTS_CROWDED;
}

/* Publishes what is unsent. False: no room in the out buffer, before the link's next event. `next_ms` becomes the time
 * of the next that is to be sent again, if that is earlier. */
static bool send_queue(struct outgoing *outgoing, struct outgoing_queue *queue, uint64_t *next_ms)
{
    for (uint64_t i = queue->first; i < queue->end; i++) {
        struct outgoing_item *const item = item_at(queue, i);
        if (item->done || item->publish_tag != 0) {
            continue;
        }
        if (item->retry_ms > outgoing->now_ms) {
            *next_ms = number_smaller(*next_ms, item->retry_ms);
            continue;
        }
        item->publish_tag = amqp_link_publish(outgoing->link, &item->message);
        if (item->publish_tag == 0) {
            return false;
        }
    }
    return true;
}

static void log_dropped(struct outgoing *outgoing, uint64_t now_ms)
{
    const uint64_t fresh_count = outgoing->dropped_count - outgoing->dropped_logged_count;
    if (fresh_count == 0 ||
        (outgoing->dropped_logged_count > 0 && now_ms - outgoing->dropped_logged_ms < DROPPED_LOG_MS)) {
        return;
    }
    outgoing->dropped_logged_count = outgoing->dropped_count;
    outgoing->dropped_logged_ms = now_ms;
    log_event(outgoing->log, LOG_WARN, "receipts_dropped", LOG_U64("receipts", fresh_count),
              LOG_TEXT("cause", amqp_link_blocked(outgoing->link) ? "the broker takes no publishes (alarm)"
                                                                  : "the broker does not confirm in time"),
              LOG_TEXT("remedy",
                       "the rows are stored; a client that sends its message again, with the same id, is told. "
                       "See RabbitMQ's memory and disk"));
}

void outgoing_settle(struct outgoing *outgoing)
{
    struct outgoing_queue *const letters = &outgoing->dead_letters;
    while (letters->first < letters->end) {
        const struct outgoing_item *const item = item_at(letters, letters->first);
        if (!item->done ||
            (!item->is_abandoned && !outgoing->handler.on_dead(outgoing->handler.context, &item->dead))) {
            return;
        }
        release_first(letters);
    }
}

uint64_t outgoing_send(struct outgoing *outgoing, uint64_t now_ms)
{
    uint64_t next_ms = UINT64_MAX;
    outgoing->now_ms = now_ms;
    log_dropped(outgoing, now_ms);
    if (can_publish(outgoing) && send_queue(outgoing, &outgoing->receipts, &next_ms)) {
        (void)send_queue(outgoing, &outgoing->dead_letters, &next_ms);
    }
    return next_ms;
}

void outgoing_forget_tags(struct outgoing *outgoing)
{
    struct outgoing_queue *const letters = &outgoing->dead_letters;
    for (uint64_t i = letters->first; i < letters->end; i++) {
        struct outgoing_item *const item = item_at(letters, i);
        if (item->dead.tag != 0 && !item->done && item->publish_tag == 0) {
            item->is_abandoned = true;
            item->done = true;
        }
        item->dead.tag = 0;
    }
}

uint64_t outgoing_lowest_tag(const struct outgoing *outgoing)
{
    const struct outgoing_queue *const letters = &outgoing->dead_letters;
    uint64_t lowest = UINT64_MAX;
    for (uint64_t i = letters->first; i < letters->end; i++) {
        const uint64_t tag = item_at(letters, i)->dead.tag;
        if (tag != 0 && tag < lowest) {
            lowest = tag;
        }
    }
    return lowest;
}
