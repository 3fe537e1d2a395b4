/* SPDX-License-Identifier: MIT */
/* Method: one step is asked, its answer leads to the next. A 404 to a passive declare marks the step as one to create,
 * a 406 to the creation (someone else was quicker, with other arguments) takes the mark back, so the queue that is
 * there is used. Each channel that opens begins with the first step: what exists already costs one round trip. */
#include "amqp_topology.h"

#include "check.h"
#include "log.h"

enum {
    REPLY_ACCESS_REFUSED = 403, /* AMQP 0-9-1's reply codes */
    REPLY_NOT_FOUND = 404,
    REPLY_RESOURCE_LOCKED = 405,
    REPLY_PRECONDITION_FAILED = 406,
    RACES_MAX = 3 /* creations lost to others, in a row */
};

static const char FAILED[] = "what it needs on the broker cannot be had";

void amqp_topology_init(struct amqp_topology *topology, struct amqp_link *link, struct log *log,
                        const struct amqp_step *steps, size_t step_count)
{
    CHECK(step_count >= 1 && step_count <= AMQP_STEPS_MAX);
    *topology = (struct amqp_topology){
        .link = link, .log = log, .steps = steps, .step_count = step_count, .step_index = step_count};
}

static uint64_t bit(size_t step_index)
{
    return (uint64_t)1 << step_index;
}

static bool is_done(const struct amqp_topology *topology)
{
    return topology->step_index == topology->step_count;
}

static bool ask(struct amqp_topology *topology)
{
    const struct amqp_step *step = &topology->steps[topology->step_index];
    struct amqp_link *link = topology->link;
    switch (step->kind) {
    case AMQP_STEP_QUEUE:
        return amqp_link_queue_declare(link, &step->queue, !(topology->create_mask & bit(topology->step_index)));
    case AMQP_STEP_EXCHANGE:
        return amqp_link_exchange_declare(link, step->exchange, step->exchange_type, false);
    case AMQP_STEP_BIND:
        return amqp_link_queue_bind(link, step->queue.name, step->exchange, step->routing_key);
    case AMQP_STEP_QOS:
        return amqp_link_qos(link, step->prefetch_count);
    case AMQP_STEP_CONSUME:
        return amqp_link_consume(link, step->queue.name, step->consumer_tag);
    }
    return false;
}

static void ask_or_give_up(struct amqp_topology *topology)
{
    if (!ask(topology)) { /* an out buffer full on a fresh channel: nothing is read there */
        amqp_link_reconnect(topology->link, FAILED, NULL);
    }
}

void amqp_topology_on_channel(struct amqp_topology *topology)
{
    topology->step_index = 0;
    ask_or_give_up(topology);
}

static enum amqp_reply_kind answer_to(enum amqp_step_kind kind)
{
    switch (kind) {
    case AMQP_STEP_QUEUE:
        return AMQP_REPLY_QUEUE_DECLARED;
    case AMQP_STEP_EXCHANGE:
        return AMQP_REPLY_EXCHANGE_DECLARED;
    case AMQP_STEP_BIND:
        return AMQP_REPLY_BOUND;
    case AMQP_STEP_QOS:
        return AMQP_REPLY_QOS;
    case AMQP_STEP_CONSUME:
        return AMQP_REPLY_CONSUMING;
    }
    return AMQP_REPLY_QUEUE_DECLARED;
}

enum amqp_topology_status amqp_topology_on_reply(struct amqp_topology *topology, const struct amqp_reply *reply)
{
    if (is_done(topology) || reply->kind != answer_to(topology->steps[topology->step_index].kind)) {
        return AMQP_TOPOLOGY_IDLE;
    }
    if (topology->create_mask & bit(topology->step_index)) {
        topology->create_mask &= ~bit(topology->step_index);
        log_event(topology->log, LOG_INFO, "amqp_queue_created", LOG_SPAN("queue", reply->name),
                  LOG_TEXT("type", topology->steps[topology->step_index].queue.type));
    }
    topology->step_index++;
    if (is_done(topology)) {
        topology->race_count = 0;
        return AMQP_TOPOLOGY_DONE;
    }
    ask_or_give_up(topology);
    return AMQP_TOPOLOGY_PENDING;
}

static const char *step_name(enum amqp_step_kind kind)
{
    switch (kind) {
    case AMQP_STEP_QUEUE:
        return "declare queue";
    case AMQP_STEP_EXCHANGE:
        return "declare exchange";
    case AMQP_STEP_BIND:
        return "bind queue";
    case AMQP_STEP_QOS:
        return "set prefetch";
    case AMQP_STEP_CONSUME:
        return "consume";
    }
    return "";
}

static const char *remedy_for(const struct amqp_step *step, uint16_t code)
{
    switch (code) {
    case REPLY_ACCESS_REFUSED:
        return "give the user of RABBITMQ_URL rights on it: rabbitmqctl set_permissions";
    case REPLY_NOT_FOUND:
        return "see that the node which holds the queue is up (a quorum queue: most of its nodes)";
    case REPLY_RESOURCE_LOCKED:
        return "another connection holds the queue for itself (exclusive): end that program or delete the queue";
    case REPLY_PRECONDITION_FAILED:
        return step->kind == AMQP_STEP_EXCHANGE
                   ? "an exchange of this name but another type or durability is there: delete it"
                   : "see the broker's log";
    default:
        return "see the broker's log";
    }
}

static void log_failure(struct amqp_topology *topology, const struct amqp_step *step, uint16_t code, struct span text)
{
    uint32_t times = repeats_due(&topology->told, step_name(step->kind), code, text);
    if (times == 0) {
        return;
    }
    struct span name = step->kind == AMQP_STEP_EXCHANGE ? step->exchange : step->queue.name;
    log_event(topology->log, LOG_ERROR, "amqp_topology_failed", LOG_TEXT("step", step_name(step->kind)),
              LOG_SPAN("name", name), LOG_U64("code", code), LOG_SPAN("cause", text),
              LOG_TEXT("remedy", remedy_for(step, code)), LOG_U64("times", times));
}

enum amqp_topology_status amqp_topology_on_channel_closed(struct amqp_topology *topology, uint16_t code,
                                                          struct span text)
{
    if (is_done(topology)) {
        uint32_t times = repeats_due(&topology->told, "channel closed", code, text);
        if (times > 0) {
            log_event(topology->log, LOG_WARN, "amqp_channel_closed", LOG_U64("code", code), LOG_SPAN("cause", text),
                      LOG_TEXT("remedy", code == REPLY_ACCESS_REFUSED
                                             ? "give the user of RABBITMQ_URL the right to write (rabbitmqctl "
                                               "set_permissions); it is opened again"
                                             : "it is opened again; see the broker's log"),
                      LOG_U64("times", times));
        }
        return AMQP_TOPOLOGY_IDLE;
    }
    const struct amqp_step *step = &topology->steps[topology->step_index];
    uint64_t mark = bit(topology->step_index);
    bool is_creating = (topology->create_mask & mark) != 0;
    if (step->kind == AMQP_STEP_QUEUE && code == REPLY_NOT_FOUND && !is_creating) {
        topology->create_mask |= mark;
        return AMQP_TOPOLOGY_PENDING;
    }
    topology->create_mask &= ~mark;
    if (is_creating && code == REPLY_PRECONDITION_FAILED && topology->race_count < RACES_MAX) {
        topology->race_count++;
        return AMQP_TOPOLOGY_PENDING;
    }
    topology->race_count = 0;
    log_failure(topology, step, code, text);
    topology->step_index = topology->step_count;
    amqp_link_reconnect(topology->link, FAILED, NULL);
    return AMQP_TOPOLOGY_FAILED;
}
