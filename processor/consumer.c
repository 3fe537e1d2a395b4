/* SPDX-License-Identifier: MIT */
/* Deliveries of a channel have rising tags and stand in the intake in that order, so what is settled at its front is
 * acknowledged with one `multiple` up to its last tag. Where a dead letter (or a message kept unsettled) with a lower
 * tag is still open, single acks go past it: a broker in an alarm confirms no dead letters, and must be relieved of
 * stored messages all the same.
 *
 * Each consume has a consumer tag of its own: a quorum queue of RabbitMQ 3.10 crashes the channel when a tag is
 * cancelled and used again while messages are unsettled (rabbitmq-server #5927).
 *
 * A body longer than the link's buffer cannot be stored and cannot be dead-lettered either, for want of the body. It is
 * kept unsettled, so that it is lost in no case, and the log says so. */
#include "consumer.h"

#include <inttypes.h>

#include "arena.h"
#include "check.h"
#include "log.h"

#define TO(state) (1u << (state))
static const unsigned moves[CONSUMER_STATE_COUNT] = {
    [CONSUMER_AWAY] = TO(CONSUMER_IDLE) | TO(CONSUMER_AWAY),
    [CONSUMER_IDLE] = TO(CONSUMER_ASKED) | TO(CONSUMER_AWAY),
    [CONSUMER_ASKED] = TO(CONSUMER_ON) | TO(CONSUMER_AWAY),
    [CONSUMER_ON] = TO(CONSUMER_CANCELLING) | TO(CONSUMER_AWAY),
    [CONSUMER_CANCELLING] = TO(CONSUMER_IDLE) | TO(CONSUMER_AWAY),
};

static void move(struct consumer *consumer, enum consumer_state to)
{
    CHECK((moves[consumer->state] & TO(to)) != 0);
    consumer->state = to;
}

static void on_channel(void *context)
{
    struct consumer *const consumer = context;
    amqp_topology_on_channel(&consumer->topology);
}

/* What was delivered on the channel can no longer be settled. */
static void lose(struct consumer *consumer)
{
    move(consumer, CONSUMER_AWAY);
    consumer->held_tag = UINT64_MAX;
    for (uint64_t i = consumer->intake.first; i < consumer->intake.end; i++) {
        intake_at(&consumer->intake, i)->tag = 0;
    }
    consumer->handler.on_lost(consumer->handler.context);
}

static void on_own_reply(struct consumer *consumer, const struct amqp_reply *reply)
{
    switch (reply->kind) {
    case AMQP_REPLY_CONSUMING:
        move(consumer, CONSUMER_ON);
        log_event(consumer->log, LOG_INFO, "consuming", LOG_SPAN("queue", consumer->steps[0].queue.name));
        break;
    case AMQP_REPLY_CANCELLED:
        if (consumer->state == CONSUMER_CANCELLING) {
            move(consumer, CONSUMER_IDLE);
        }
        break;
    case AMQP_REPLY_CANCELLED_BY_BROKER:
        amqp_link_reconnect(consumer->link, "the queue was deleted, or its node is gone");
        break;
    case AMQP_REPLY_QUEUE_DECLARED:
    case AMQP_REPLY_EXCHANGE_DECLARED:
    case AMQP_REPLY_BOUND:
    case AMQP_REPLY_UNBOUND:
    case AMQP_REPLY_QOS:
        break;
    }
}

static void on_reply(void *context, const struct amqp_reply *reply)
{
    struct consumer *const consumer = context;
    switch (amqp_topology_on_reply(&consumer->topology, reply)) {
    case AMQP_TOPOLOGY_DONE:
        move(consumer, CONSUMER_IDLE);
        break;
    case AMQP_TOPOLOGY_IDLE:
        on_own_reply(consumer, reply);
        break;
    case AMQP_TOPOLOGY_PENDING:
    case AMQP_TOPOLOGY_FAILED:
        break;
    }
}

static void on_channel_closed(void *context, uint16_t code, struct span text)
{
    struct consumer *const consumer = context;
    lose(consumer);
    switch (amqp_topology_on_channel_closed(&consumer->topology, code, text)) {
    case AMQP_TOPOLOGY_IDLE:
        log_event(consumer->log, LOG_WARN, "consume_channel_closed", LOG_U64("code", code), LOG_SPAN("cause", text));
        break;
    case AMQP_TOPOLOGY_PENDING:
    case AMQP_TOPOLOGY_DONE:
    case AMQP_TOPOLOGY_FAILED:
        break;
    }
}

static void on_down(void *context)
{
    lose(context);
}

static void on_delivery(void *context, const struct amqp_message *message)
{
    struct consumer *const consumer = context;
    if (message->oversized) {
        if (message->tag < consumer->held_tag) {
            consumer->held_tag = message->tag;
        }
        log_event(consumer->log, LOG_ERROR, "message_too_long", LOG_U64("bytes", message->body_bytes),
                  LOG_SPAN("message_id", message->message_id),
                  LOG_TEXT("remedy", "it stays in the queue unacknowledged: take it out by hand"));
        return;
    }
    const struct delivery *const delivery = intake_take(&consumer->intake, message, &consumer->json, consumer->now_ms);
    if (delivery == NULL) {
        consumer->overflowed = true;
        if (!amqp_link_nack(consumer->link, message->tag, false, true)) {
            amqp_link_reconnect(consumer->link, "no room for messages, nor to say so");
        }
        return;
    }
    if (delivery->state == DELIVERY_DEAD) {
        consumer->dead_count++;
    }
}

static const struct amqp_link_handler link_handler = {.on_channel = on_channel,
                                                      .on_reply = on_reply,
                                                      .on_channel_closed = on_channel_closed,
                                                      .on_delivery = on_delivery,
                                                      .on_down = on_down};

/* An ack or nack frame with room to spare; every delivery can be settled singly at once. */
enum { SETTLE_FRAME_BYTES = 32 };

void consumer_init(struct consumer *consumer, struct arena *arena, struct port *port, struct log *log,
                   const struct consumer_options *options, const struct consumer_handler *handler)
{
    *consumer = (struct consumer){.log = log, .handler = *handler, .held_tag = UINT64_MAX};
    intake_init(&consumer->intake, arena, options->prefetch, options->intake_bytes, options->id_prefix);
    json_init(&consumer->json, arena, options->body_bytes_max, &options->hash_key);
    const struct amqp_link_options link_options = {.program = "postern-processor",
                                                   .instance = options->instance,
                                                   .role = "consume",
                                                   .brokers = options->brokers,
                                                   .heartbeat_s = options->heartbeat_s,
                                                   .token = options->token,
                                                   .out_bytes = AMQP_LINK_OUT_BYTES_MIN +
                                                                (size_t)options->prefetch * SETTLE_FRAME_BYTES,
                                                   .body_bytes_max = options->body_bytes_max};
    consumer->link = amqp_link_init(arena, port, log, &link_options, &link_handler, consumer);
    if (arena_measuring(arena)) {
        return;
    }
    consumer->steps[0] =
        (struct amqp_step){.kind = AMQP_STEP_QUEUE, .queue = {.name = options->queue, .type = options->queue_type}};
    consumer->steps[1] = (struct amqp_step){.kind = AMQP_STEP_QOS, .prefetch_count = options->prefetch};
    amqp_topology_init(&consumer->topology, consumer->link, log, consumer->steps, CONSUMER_STEPS);
}

void consumer_on_event(struct consumer *consumer, uint32_t ready, uint64_t now_ms)
{
    consumer->now_ms = now_ms;
    amqp_link_on_event(consumer->link, ready, now_ms);
}

void consumer_want(struct consumer *consumer, bool wanted)
{
    consumer->wanted = wanted;
}

static bool is_settled(const struct delivery *delivery)
{
    return delivery->state != DELIVERY_PENDING && delivery->state != DELIVERY_DEAD;
}

static bool needs_ack(const struct delivery *delivery)
{
    return delivery->tag != 0 && (delivery->state == DELIVERY_STORED || delivery->state == DELIVERY_REJECTED);
}

/* The settled front below the floor, with one ack. False: no room for it. */
static bool settle_many(struct consumer *consumer, uint64_t floor_tag)
{
    struct intake *const intake = &consumer->intake;
    uint64_t last_tag = 0;
    uint64_t sequence = intake->first;
    for (; sequence < intake->end; sequence++) {
        const struct delivery *const delivery = intake_at(intake, sequence);
        if (!is_settled(delivery) || (needs_ack(delivery) && delivery->tag >= floor_tag)) {
            break;
        }
        if (needs_ack(delivery)) {
            last_tag = delivery->tag;
        }
    }
    if (last_tag != 0 && !amqp_link_ack(consumer->link, last_tag, true)) {
        return false;
    }
    while (intake->first < sequence) {
        intake_pop(intake);
    }
    return true;
}

static void settle_singly(struct consumer *consumer)
{
    struct intake *const intake = &consumer->intake;
    while (intake_count(intake) > 0) {
        const struct delivery *const delivery = intake_at(intake, intake->first);
        if (!is_settled(delivery) || (needs_ack(delivery) && !amqp_link_ack(consumer->link, delivery->tag, false))) {
            return;
        }
        intake_pop(intake);
    }
}

static struct span consumer_tag(const struct consumer *consumer)
{
    return span_text(consumer->tag);
}

static bool begin_consuming(struct consumer *consumer)
{
    (void)snprintf(consumer->tag, sizeof consumer->tag, "postern-%" PRIu64, consumer->consume_count + 1);
    if (!amqp_link_consume(consumer->link, consumer->steps[0].queue.name, consumer_tag(consumer))) {
        return false;
    }
    consumer->consume_count++;
    return true;
}

static void switch_consuming(struct consumer *consumer)
{
    const bool is_empty = intake_count(&consumer->intake) == 0;
    switch (consumer->state) {
    case CONSUMER_IDLE:
        if (is_empty) {
            consumer->overflowed = false;
        }
        if (consumer->wanted && is_empty && begin_consuming(consumer)) {
            move(consumer, CONSUMER_ASKED);
        }
        break;
    case CONSUMER_ON:
        if ((!consumer->wanted || consumer->overflowed) && amqp_link_cancel(consumer->link, consumer_tag(consumer))) {
            move(consumer, CONSUMER_CANCELLING);
        }
        break;
    case CONSUMER_AWAY:
    case CONSUMER_ASKED:
    case CONSUMER_CANCELLING:
    case CONSUMER_STATE_COUNT:
        break;
    }
}

void consumer_turn(struct consumer *consumer, uint64_t floor_tag)
{
    const uint64_t lowest_tag = consumer->held_tag < floor_tag ? consumer->held_tag : floor_tag;
    if (settle_many(consumer, lowest_tag)) {
        settle_singly(consumer);
    }
    switch_consuming(consumer);
}

bool consumer_ack(struct consumer *consumer, uint64_t tag)
{
    return amqp_link_ack(consumer->link, tag, false);
}

bool consumer_give_back(struct consumer *consumer)
{
    struct intake *const intake = &consumer->intake;
    while (intake_count(intake) > 0) {
        const struct delivery *const delivery = intake_at(intake, intake->end - 1);
        if (delivery->tag != 0 && !is_settled(delivery) &&
            !amqp_link_nack(consumer->link, delivery->tag, false, true)) {
            return false;
        }
        if (needs_ack(delivery) && !amqp_link_ack(consumer->link, delivery->tag, false)) {
            return false;
        }
        intake_cut(intake, intake->end - 1);
    }
    return true;
}
