/* SPDX-License-Identifier: MIT */
/* Deliveries of a channel have rising tags and stand in the intake in that order, so what is settled at its front is
 * acknowledged with one `multiple` up to its last tag. Where a dead letter with a lower tag is still open, or has no
 * room to be sent, single acks go past it: a broker in an alarm confirms no dead letters, and must be relieved of
 * stored messages all the same.
 *
 * A delivery that finds no room in the intake (its messages are unusually long, or many are dead letters in the
 * making) makes the consumer deaf: it and all that follow are left unsettled. Once everything in hand is finished and
 * the queue has taken the acks, the connection is closed and made again, and they are delivered again, in order. The
 * next one asks only for as many at a time as had room: else a backlog of long messages would be handed out and taken
 * back again and again, and each time counts as a delivery, of which RabbitMQ may allow a message few. A round in which
 * they took half of the room at most lets the number double, on one more connection, because it cannot be changed on
 * this.
 *
 * A dead letter that the broker does not take (it is in an alarm, or the queue of dead letters is full or without a
 * leader) is in hand for as long. A consumer that has nothing else in hand, and gets nothing more because it is deaf or
 * has as many as it asked for, is patient for a while. Then it ends the connection all the same if the next one will
 * bring it anything: a deaf one if this one did (else the same dead letters would fill it at once), another one if it
 * can ask for more.
 * It is more patient each time, because each time counts as a delivery of those messages, and may make their letters
 * twice. */
#include "consumer.h"

#include "arena.h"
#include "check.h"
#include "log.h"
#include "number.h"

#define TO(state) (1u << (state))
static const unsigned moves[CONSUMER_STATE_COUNT] = {
    [CONSUMER_PARKED] = TO(CONSUMER_AWAY),
    [CONSUMER_AWAY] = TO(CONSUMER_IDLE) | TO(CONSUMER_AWAY) | TO(CONSUMER_PARTING),
    [CONSUMER_IDLE] = TO(CONSUMER_ASKED) | TO(CONSUMER_AWAY) | TO(CONSUMER_PARTING),
    [CONSUMER_ASKED] = TO(CONSUMER_ON) | TO(CONSUMER_AWAY) | TO(CONSUMER_PARTING),
    [CONSUMER_ON] = TO(CONSUMER_DEAF) | TO(CONSUMER_AWAY) | TO(CONSUMER_PARTING),
    [CONSUMER_DEAF] = TO(CONSUMER_AWAY) | TO(CONSUMER_PARTING),
    [CONSUMER_PARTING] = TO(CONSUMER_PARKED),
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
    if (consumer->state != CONSUMER_PARTING) {
        move(consumer, CONSUMER_AWAY);
    }
    for (uint64_t i = consumer->intake.first; i < consumer->intake.end; i++) {
        intake_at(&consumer->intake, i)->tag = 0;
    }
    consumer->ack_burst = 0;
    consumer->taken_count = 0;
    consumer->unsettled_count = 0;
    consumer->round_begin = 0;
    consumer->peak_bytes = 0;
    consumer->handler.on_lost(consumer->handler.context);
}

static void on_own_reply(struct consumer *consumer, const struct amqp_reply *reply)
{
    switch (reply->kind) {
    case AMQP_REPLY_CONSUMING:
        if (consumer->state == CONSUMER_ASKED) {
            move(consumer, CONSUMER_ON);
            log_event(consumer->log, LOG_INFO, "consuming",
                      LOG_SPAN("queue", consumer->steps[CONSUMER_STEP_QUEUE].queue.name),
                      LOG_U64("prefetch", consumer->steps[CONSUMER_STEP_QOS].prefetch_count));
        }
        if (consumer->state == CONSUMER_ON && !consumer->wanted) {
            move(consumer, CONSUMER_DEAF); /* asked before the stop, or before the database was gone */
        }
        break;
    case AMQP_REPLY_CANCELLED:
        amqp_link_reconnect(consumer->link, "the queue was deleted, or its node is gone", NULL);
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
        if (consumer->state == CONSUMER_AWAY) {
            move(consumer, CONSUMER_IDLE);
        }
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
    (void)amqp_topology_on_channel_closed(&consumer->topology, code, text);
}

static void on_down(void *context)
{
    lose(context);
}

/* As many as had room: those that are acknowledged already, but stand behind one that is not, and the dead letters that
 * are out, which count for RabbitMQ. */
static uint16_t fitting_count(struct consumer *consumer)
{
    uint64_t count = consumer->unsettled_count;
    for (uint64_t i = consumer->intake.first; i < consumer->intake.end; i++) {
        count += intake_at(&consumer->intake, i)->tag == 0 ? 1 : 0;
    }
    return (uint16_t)number_smaller(number_larger(count, 1), consumer->prefetch_max);
}

static void on_delivery(void *context, const struct amqp_message *message)
{
    struct consumer *const consumer = context;
    if (consumer->state != CONSUMER_ON) {
        return;
    }
    const struct delivery *const delivery = intake_take(&consumer->intake, message, &consumer->json, consumer->now_ms);
    if (delivery == NULL) {
        consumer->steps[CONSUMER_STEP_QOS].prefetch_count = fitting_count(consumer);
        move(consumer, CONSUMER_DEAF);
        return;
    }
    consumer->peak_bytes = number_larger(consumer->peak_bytes, byte_ring_used_bytes(&consumer->intake.bytes));
    consumer->taken_count++;
    consumer->unsettled_count++;
    if (delivery->state == DELIVERY_DEAD) {
        consumer->dead_count++;
    }
}

static const struct amqp_link_handler link_handler = {.on_channel = on_channel,
                                                      .on_reply = on_reply,
                                                      .on_channel_closed = on_channel_closed,
                                                      .on_delivery = on_delivery,
                                                      .on_down = on_down};

enum {
    SETTLE_FRAME_BYTES = 32,   /* an ack with room to spare; every delivery can be settled singly at once */
    ACKS_KEPT_BACK_NEVER = 32, /* so many on their way: rabbit_fifo_client's soft limit */
    ACKS_TAKEN_MS = 500,       /* a commit of the queue, also on a slow disk: with it, all that is kept back goes out */
    PATIENCE_MS = 5000,        /* with dead letters that the broker does not take */
    PATIENCE_MS_MAX = 320000,
    ROUND_PREFETCHES = 4 /* deliveries of a round, in times the prefetch */
};

void consumer_init(struct consumer *consumer, struct arena *arena, struct port *port, struct log *log,
                   const struct consumer_options *options, const struct consumer_handler *handler)
{
    *consumer = (struct consumer){.log = log,
                                  .handler = *handler,
                                  .prefetch_max = options->prefetch,
                                  .stuck_ms = UINT64_MAX,
                                  .patience_ms = PATIENCE_MS};
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
    consumer->steps[CONSUMER_STEP_QUEUE] =
        (struct amqp_step){.kind = AMQP_STEP_QUEUE, .queue = {.name = options->queue, .type = options->queue_type}};
    consumer->steps[CONSUMER_STEP_QOS] = (struct amqp_step){.kind = AMQP_STEP_QOS, .prefetch_count = options->prefetch};
    amqp_topology_init(&consumer->topology, consumer->link, log, consumer->steps, CONSUMER_STEPS);
}

void consumer_on_event(struct consumer *consumer, uint32_t ready, uint64_t now_ms)
{
    consumer->now_ms = now_ms;
    amqp_link_on_event(consumer->link, ready, now_ms);
}

void consumer_start(struct consumer *consumer, uint64_t now_ms)
{
    consumer->now_ms = now_ms;
    move(consumer, CONSUMER_AWAY);
    amqp_link_start(consumer->link, now_ms);
}

void consumer_want(struct consumer *consumer, bool wanted)
{
    consumer->wanted = wanted;
}

void consumer_finish(struct consumer *consumer)
{
    consumer->wanted = false;
    if (consumer->state == CONSUMER_ON) {
        move(consumer, CONSUMER_DEAF);
    }
}

void consumer_part(struct consumer *consumer, uint64_t now_ms)
{
    if (consumer->state != CONSUMER_PARKED && consumer->state != CONSUMER_PARTING) {
        move(consumer, CONSUMER_PARTING);
        amqp_link_close(consumer->link, now_ms);
    }
}

/* One ack for `count` deliveries, of which `tag` is the last. */
static bool ack(struct consumer *consumer, uint64_t tag, size_t count, bool multiple)
{
    CHECK(count <= consumer->unsettled_count);
    if (!amqp_link_ack(consumer->link, tag, multiple)) {
        return false;
    }
    consumer->unsettled_count -= count;
    if (consumer->now_ms - consumer->ack_ms >= ACKS_TAKEN_MS) {
        consumer->ack_burst = 0;
    }
    consumer->ack_burst++;
    consumer->ack_ms = consumer->now_ms;
    return true;
}

uint64_t consumer_acks_taken_ms(const struct consumer *consumer)
{
    return consumer->ack_burst > ACKS_KEPT_BACK_NEVER ? consumer->ack_ms + ACKS_TAKEN_MS : 0;
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
    size_t count = 0;
    uint64_t sequence = intake->first;
    for (; sequence < intake->end; sequence++) {
        const struct delivery *const delivery = intake_at(intake, sequence);
        if (!is_settled(delivery) || (needs_ack(delivery) && delivery->tag >= floor_tag)) {
            break;
        }
        if (needs_ack(delivery)) {
            last_tag = delivery->tag;
            count++;
        }
    }
    if (count > 0 && !ack(consumer, last_tag, count, true)) {
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
    for (uint64_t sequence = intake->first; sequence < intake->end; sequence++) {
        struct delivery *const delivery = intake_at(intake, sequence);
        if (delivery->state == DELIVERY_PENDING) {
            return;
        }
        if (needs_ack(delivery)) {
            if (!ack(consumer, delivery->tag, 1, false)) {
                return;
            }
            delivery->tag = 0;
        }
        if (sequence == intake->first && is_settled(delivery)) {
            intake_pop(intake);
        }
    }
}

/* Nothing more comes, and all that is in hand are dead letters: those that are out, and those that have no room. */
static bool is_stuck(struct consumer *consumer)
{
    struct intake *const intake = &consumer->intake;
    if ((consumer->state != CONSUMER_DEAF && !consumer_full(consumer)) || !consumer->wanted ||
        consumer->unsettled_count == 0) {
        return false;
    }
    for (uint64_t i = intake->first; i < intake->end; i++) {
        if (intake_at(intake, i)->state == DELIVERY_PENDING || needs_ack(intake_at(intake, i))) {
            return false;
        }
    }
    return true;
}

static bool has_less_than_allowed(const struct consumer *consumer)
{
    return consumer->steps[CONSUMER_STEP_QOS].prefetch_count < consumer->prefetch_max;
}

/* On the next connection. */
static void ask_for_more(struct consumer *consumer)
{
    uint16_t *const count = &consumer->steps[CONSUMER_STEP_QOS].prefetch_count;
    *count = (uint16_t)number_smaller(2 * (uint64_t)*count, consumer->prefetch_max);
}

/* Returns when its patience ends. */
static uint64_t heed_stuck(struct consumer *consumer, uint64_t now_ms)
{
    if (!is_stuck(consumer)) {
        consumer->stuck_ms = UINT64_MAX;
        return UINT64_MAX;
    }
    if (consumer->stuck_ms == UINT64_MAX) {
        consumer->stuck_ms = now_ms;
        consumer->patient_until_ms = now_ms + consumer->patience_ms;
    }
    if (now_ms < consumer->patient_until_ms) {
        return consumer->patient_until_ms;
    }
    log_event(consumer->log, LOG_WARN, "dead_letters_stuck", LOG_U64("count", consumer->unsettled_count),
              LOG_TEXT("cause", "the broker takes no dead letters, and they fill what may be in hand"),
              LOG_TEXT("remedy", "see whether the queue of dead letters is full or has lost its leader, and RabbitMQ's "
                                 "memory and disk"));
    consumer->patience_ms = number_smaller(2 * consumer->patience_ms, PATIENCE_MS_MAX);
    consumer->patient_until_ms = now_ms + consumer->patience_ms;
    const bool is_deaf = consumer->state == CONSUMER_DEAF;
    if (is_deaf ? consumer->taken_count == consumer->unsettled_count : !has_less_than_allowed(consumer)) {
        return consumer->patient_until_ms;
    }
    if (!is_deaf) {
        ask_for_more(consumer);
    }
    consumer_part(consumer, now_ms);
    return UINT64_MAX;
}

/* Long messages have made it ask for less than it may: have they come to an end? It would not end the connection for
 * that while a dead letter is out, which would then be made twice. */
static void heed_round(struct consumer *consumer, uint64_t floor_tag)
{
    const uint64_t round = (uint64_t)ROUND_PREFETCHES * consumer->steps[CONSUMER_STEP_QOS].prefetch_count;
    if (!has_less_than_allowed(consumer) || consumer->taken_count - consumer->round_begin < round) {
        return;
    }
    if (consumer->peak_bytes <= consumer->intake.bytes.capacity_bytes / 2 && floor_tag == UINT64_MAX) {
        ask_for_more(consumer);
        move(consumer, CONSUMER_DEAF);
    }
    consumer->round_begin = consumer->taken_count;
    consumer->peak_bytes = 0;
}

uint64_t consumer_turn(struct consumer *consumer, uint64_t floor_tag, uint64_t now_ms)
{
    static const struct span tag = SPAN("postern");
    consumer->now_ms = now_ms;
    if (consumer->ack_burst > 0 && amqp_link_out_bytes(consumer->link) > 0) {
        consumer->ack_ms = now_ms; /* they have not left yet */
    }
    if (settle_many(consumer, floor_tag)) {
        settle_singly(consumer);
    }
    uint64_t due_ms = heed_stuck(consumer, now_ms);
    if (consumer->state == CONSUMER_ON && consumer->wanted) {
        heed_round(consumer, floor_tag);
    }
    const bool is_empty = intake_count(&consumer->intake) == 0;
    switch (consumer->state) {
    case CONSUMER_IDLE:
        if (consumer->wanted && is_empty &&
            amqp_link_consume(consumer->link, consumer->steps[CONSUMER_STEP_QUEUE].queue.name, tag)) {
            move(consumer, CONSUMER_ASKED);
        }
        break;
    case CONSUMER_DEAF:
        if (consumer->wanted && is_empty && floor_tag == UINT64_MAX) {
            due_ms = consumer_acks_taken_ms(consumer);
            if (due_ms <= now_ms) {
                consumer_part(consumer, now_ms);
                due_ms = UINT64_MAX;
            }
        }
        break;
    case CONSUMER_PARTING:
    case CONSUMER_PARKED:
    case CONSUMER_AWAY:
    case CONSUMER_ASKED:
    case CONSUMER_ON:
    case CONSUMER_STATE_COUNT:
        break;
    }
    /* The end of one connection and the start of the next in the same turn: no event would bring another one. */
    if (consumer->state == CONSUMER_PARTING && amqp_link_state(consumer->link) == AMQP_LINK_DOWN) {
        move(consumer, CONSUMER_PARKED);
    }
    if (consumer->state == CONSUMER_PARKED && consumer->wanted) {
        consumer_start(consumer, now_ms);
    }
    return due_ms;
}

bool consumer_ack(struct consumer *consumer, uint64_t tag, uint64_t now_ms)
{
    consumer->now_ms = now_ms;
    if (!ack(consumer, tag, 1, false)) {
        return false;
    }
    consumer->stuck_ms = UINT64_MAX; /* the broker takes dead letters */
    consumer->patience_ms = PATIENCE_MS;
    return true;
}
