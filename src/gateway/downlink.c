/* SPDX-License-Identifier: MIT */
/* The topology is declared anew on each channel; then what is wanted is asked in two queues. Sessions that want a
 * binding stand in a list through their own records, so there is no bound to overflow; clients that left have no
 * record any more and stand in a ring of names, as long as the session table, whose overflow costs a stale binding
 * until its next message.
 *
 * What is consumed for a client that is not here is acknowledged and lost: kept back unacknowledged it would fill the
 * prefetch and hold up everybody's receipts. Right after a start nobody is here yet, and the queue may hold what came
 * while there was no gateway. So consuming begins a grace after the start and not with the first client, because the
 * others are on their way; and not later, because receipts of those who are here must not wait for ever. A queue that
 * had to be created holds nothing and is consumed at once. After an outage of the broker there is no grace: the clients
 * stayed. */
#include "downlink.h"

#include <string.h>

#include "check.h"
#include "number.h"
#include "text.h"

static const struct span exchange = SPAN("postern.downlink");
static const struct span client_prefix = SPAN("client.");
static const struct span receipts_type = SPAN("receipts");
static const struct span consumer_tag = SPAN("downlink");

enum { ROUTING_KEY_BYTES_MAX = sizeof("client.") - 1 + CLIENT_ID_BYTES_MAX };

static void list_append_session(struct downlink *downlink, struct session *session)
{
    uint32_t index = session_index(downlink->sessions, session);
    session->link_previous = downlink->wanted_last;
    session->link_next = SESSION_NONE;
    if (downlink->wanted_last == SESSION_NONE) {
        downlink->wanted_first = index;
    } else {
        session_at(downlink->sessions, downlink->wanted_last)->link_next = index;
    }
    downlink->wanted_last = index;
    session->binding = SESSION_BINDING_WANTED;
}

static void list_remove_session(struct downlink *downlink, struct session *session)
{
    CHECK(session->binding == SESSION_BINDING_WANTED);
    if (session->link_previous == SESSION_NONE) {
        downlink->wanted_first = session->link_next;
    } else {
        session_at(downlink->sessions, session->link_previous)->link_next = session->link_next;
    }
    if (session->link_next == SESSION_NONE) {
        downlink->wanted_last = session->link_previous;
    } else {
        session_at(downlink->sessions, session->link_next)->link_previous = session->link_previous;
    }
    session->link_previous = SESSION_NONE;
    session->link_next = SESSION_NONE;
    session->binding = SESSION_BINDING_NONE;
}

static void want_unbind(struct downlink *downlink, struct span client_id)
{
    if (downlink->unbind_count > 0) {
        uint32_t last = (downlink->unbind_first + downlink->unbind_count - 1) % downlink->unbind_capacity;
        const struct downlink_unbind *newest = &downlink->unbinds[last];
        // A burst for one client who is gone asks once.
        if (span_equal(span_of(newest->client_id, newest->client_id_bytes), client_id)) {
            return;
        }
    }
    if (downlink->unbind_count == downlink->unbind_capacity) {
        return;
    }
    uint32_t at = (downlink->unbind_first + downlink->unbind_count++) % downlink->unbind_capacity;
    memcpy(downlink->unbinds[at].client_id, client_id.data, client_id.bytes);
    downlink->unbinds[at].client_id_bytes = (uint8_t)client_id.bytes;
}

void downlink_client_came(struct downlink *downlink, struct session *session)
{
    CHECK(session->binding == SESSION_BINDING_NONE);
    list_append_session(downlink, session);
}

void downlink_client_left(struct downlink *downlink, struct session *session)
{
    switch ((enum session_binding)session->binding) {
    case SESSION_BINDING_NONE:
        break;
    case SESSION_BINDING_WANTED:
        list_remove_session(downlink, session);
        // The broker may still hold the binding of an earlier channel; one unbind too many does no harm.
        want_unbind(downlink, session_client_id(session));
        break;
    case SESSION_BINDING_SENT:
        session->binding = SESSION_BINDING_NONE;
        want_unbind(downlink, session_client_id(session));
        break;
    }
}

static struct span routing_key_of(struct span client_id, uint8_t buffer[ROUTING_KEY_BYTES_MAX])
{
    memcpy(buffer, client_prefix.data, client_prefix.bytes);
    memcpy(buffer + client_prefix.bytes, client_id.data, client_id.bytes);
    return span_of(buffer, client_prefix.bytes + client_id.bytes);
}

/* Asks the broker for what is wanted, as far as the bound and the out buffer allow. */
static void ask(struct downlink *downlink)
{
    struct span queue = span_text(downlink->queue_name);
    uint8_t buffer[ROUTING_KEY_BYTES_MAX];
    while (downlink->wanted_first != SESSION_NONE && downlink->outstanding_count < DOWNLINK_OUTSTANDING_MAX) {
        struct session *session = session_at(downlink->sessions, downlink->wanted_first);
        struct span key = routing_key_of(session_client_id(session), buffer);
        if (!amqp_link_queue_bind(downlink->link, queue, exchange, key)) {
            return;
        }
        list_remove_session(downlink, session);
        session->binding = SESSION_BINDING_SENT;
        downlink->outstanding_count++;
    }
    while (downlink->unbind_count > 0 && downlink->outstanding_count < DOWNLINK_OUTSTANDING_MAX) {
        const struct downlink_unbind *unbind = &downlink->unbinds[downlink->unbind_first];
        struct span client_id = span_of(unbind->client_id, unbind->client_id_bytes);
        if (session_find(downlink->sessions, client_id) == NULL) { /* else it came back, and is bound again */
            if (!amqp_link_queue_unbind(downlink->link, queue, exchange, routing_key_of(client_id, buffer))) {
                return;
            }
            downlink->outstanding_count++;
        }
        downlink->unbind_first = (downlink->unbind_first + 1) % downlink->unbind_capacity;
        downlink->unbind_count--;
    }
}

/* Nothing that was asked or delivered on the old channel counts any more. */
static void forget_channel(struct downlink *downlink)
{
    downlink->standing = false;
    downlink->consumer_asked = false;
    downlink->consuming = false;
    downlink->outstanding_count = 0;
    downlink->handed_tag = 0;
    downlink->acked_tag = 0;
    for (uint32_t index = 0; index < downlink->sessions->capacity; index++) {
        struct session *session = &downlink->sessions->sessions[index];
        if (session_in_use(session) && session->binding == SESSION_BINDING_SENT) {
            list_append_session(downlink, session);
        }
    }
}

static void on_channel(void *context)
{
    struct downlink *downlink = context;
    amqp_topology_on_channel(&downlink->topology);
}

static void settle(struct downlink *downlink)
{
    if (!downlink->settled) {
        downlink->settled = true;
        downlink->handler.on_settled(downlink->context);
    }
}

static void note_consumers(struct downlink *downlink, uint32_t count)
{
    if (count <= 1) {
        downlink->crowded_count = 0;
    } else if (downlink->crowded_count < DOWNLINK_CROWDED_TIMES &&
               ++downlink->crowded_count == DOWNLINK_CROWDED_TIMES) {
        log_event(downlink->log, LOG_WARN, "gateway_id_shared", LOG_TEXT("queue", downlink->queue_name),
                  LOG_U64("consumers", count),
                  LOG_TEXT("remedy",
                           "give each gateway a GATEWAY_ID of its own: another one takes receipts and messages "
                           "that are for clients here"));
    }
}

static void on_reply(void *context, const struct amqp_reply *reply)
{
    struct downlink *downlink = context;
    switch (amqp_topology_on_reply(&downlink->topology, reply)) {
    case AMQP_TOPOLOGY_DONE:
        downlink->standing = true;
        settle(downlink);
        return;
    case AMQP_TOPOLOGY_PENDING:
    case AMQP_TOPOLOGY_FAILED: // said of closed channels alone
        return;
    case AMQP_TOPOLOGY_IDLE:
        break;
    }
    if (amqp_topology_on_reply(&downlink->consumer, reply) == AMQP_TOPOLOGY_DONE) {
        downlink->consuming = true;
        downlink->count_due_ms = 0;
        log_event(downlink->log, LOG_INFO, "downlink_up", LOG_TEXT("queue", downlink->queue_name));
        return;
    }
    switch (reply->kind) {
    case AMQP_REPLY_BOUND:
    case AMQP_REPLY_UNBOUND:
        CHECK(downlink->outstanding_count > 0);
        downlink->outstanding_count--;
        break;
    case AMQP_REPLY_CANCELLED:
        amqp_link_reconnect(downlink->link, "the broker cancelled the consumer: its queue is gone", NULL);
        break;
    case AMQP_REPLY_QUEUE_DECLARED:
        note_consumers(downlink, reply->consumer_count);
        break;
    case AMQP_REPLY_EXCHANGE_DECLARED:
    case AMQP_REPLY_QOS:
    case AMQP_REPLY_CONSUMING:
        break;
    }
}

static void on_channel_closed(void *context, uint16_t code, struct span text)
{
    struct downlink *downlink = context;
    struct amqp_topology *asked = downlink->standing ? &downlink->consumer : &downlink->topology;
    forget_channel(downlink);
    switch (amqp_topology_on_channel_closed(asked, code, text)) {
    case AMQP_TOPOLOGY_PENDING: // there is no such queue
        downlink->hold_until_ms = 0;
        break;
    case AMQP_TOPOLOGY_FAILED:
        settle(downlink);
        break;
    case AMQP_TOPOLOGY_DONE:
    case AMQP_TOPOLOGY_IDLE: // it is logged
        break;
    }
}

static void on_down(void *context)
{
    forget_channel(context);
}

/* For a client that is not here; its binding is left from an earlier time. */
static void drop_stale(struct downlink *downlink, struct span client_id)
{
    downlink->absent_count++;
    uint32_t times = repeats_due(&downlink->told, "client_absent", 0, span_of(NULL, 0));
    if (times > 0) {
        log_event(downlink->log, LOG_INFO, "downlink_client_absent", LOG_SPAN("client", client_id),
                  LOG_U64("times", times));
    } else if (log_messages(downlink->log)) {
        log_event(downlink->log, LOG_DEBUG, "downlink_client_absent", LOG_SPAN("client", client_id));
    }
    if (client_id.bytes >= 1 && client_id.bytes <= CLIENT_ID_BYTES_MAX) {
        want_unbind(downlink, client_id);
    }
}

static void on_delivery(void *context, const struct amqp_message *message)
{
    struct downlink *downlink = context;
    downlink->handed_tag = message->tag;
    if (message->oversized) {
        log_event(downlink->log, LOG_WARN, "downlink_message_too_large", LOG_SPAN("key", message->routing_key),
                  LOG_U64("bytes", message->body_bytes));
        return;
    }
    if (span_equal(message->type, receipts_type)) {
        downlink->handler.on_receipts(downlink->context, message->body);
        return;
    }
    struct span key = message->routing_key;
    if (key.bytes <= client_prefix.bytes || !span_equal(span_of(key.data, client_prefix.bytes), client_prefix)) {
        log_event(downlink->log, LOG_WARN, "downlink_message_unknown", LOG_SPAN("key", key),
                  LOG_SPAN("type", message->type));
        return;
    }
    struct span client_id = span_of(key.data + client_prefix.bytes, key.bytes - client_prefix.bytes);
    struct session *session = session_find(downlink->sessions, client_id);
    if (session == NULL) {
        drop_stale(downlink, client_id);
        return;
    }
    downlink->handler.on_message(downlink->context, session, message->body);
}

static void prepare_steps(struct downlink *downlink)
{
    struct amqp_queue queue = {
        .name = span_text(downlink->queue_name),
        .type = "classic",
        .expires_ms = DOWNLINK_EXPIRES_MS,
        .message_ttl_ms = DOWNLINK_MESSAGE_TTL_MS,
        .length_max = DOWNLINK_LENGTH_MAX,
        .overflow = "drop-head",
    };
    const struct amqp_step steps[DOWNLINK_STEPS] = {
        {.kind = AMQP_STEP_EXCHANGE, .exchange = exchange, .exchange_type = "topic"},
        {.kind = AMQP_STEP_QUEUE, .queue = queue},
        {.kind = AMQP_STEP_BIND, .queue = queue, .exchange = exchange, .routing_key = span_text(downlink->gateway_key)},
        {.kind = AMQP_STEP_QOS, .prefetch_count = DOWNLINK_PREFETCH},
    };
    memcpy(downlink->steps, steps, sizeof steps);
    downlink->consumer_step =
        (struct amqp_step){.kind = AMQP_STEP_CONSUME, .queue = queue, .consumer_tag = consumer_tag};
}

static void write_name(char name[DOWNLINK_NAME_BYTES_MAX], const char *prefix, const char *gateway_id)
{
    struct text text = text_in(name, DOWNLINK_NAME_BYTES_MAX - 1);
    text_string(&text, prefix);
    text_string(&text, gateway_id);
    CHECK(!text.truncated);
    name[text.used_bytes] = '\0';
}

void downlink_init(struct downlink *downlink, struct arena *arena, struct port *port, struct log *log,
                   struct session_table *sessions, const struct downlink_options *options,
                   const struct downlink_handler *handler, void *context)
{
    static const struct amqp_link_handler link_handler = {
        .on_channel = on_channel,
        .on_reply = on_reply,
        .on_channel_closed = on_channel_closed,
        .on_delivery = on_delivery,
        .on_down = on_down,
    };
    *downlink = (struct downlink){
        .log = log,
        .sessions = sessions,
        .handler = *handler,
        .context = context,
        .wanted_first = SESSION_NONE,
        .wanted_last = SESSION_NONE,
        .unbind_capacity = sessions->capacity,
        .count_wait_ms = (uint64_t)options->heartbeat_s * 1000 * DOWNLINK_COUNT_HEARTBEATS,
    };
    downlink->unbinds = arena_take(arena, "clients to unbind", downlink->unbind_capacity, sizeof *downlink->unbinds);
    const struct amqp_link_options link_options = {
        .program = options->program,
        .instance = options->gateway_id,
        .role = "consume",
        .brokers = options->brokers,
        .heartbeat_s = options->heartbeat_s,
        .token = options->token,
        .out_bytes = AMQP_LINK_OUT_BYTES_MIN,
        .body_bytes_max = options->message_bytes_max,
    };
    downlink->link = amqp_link_init(arena, port, log, &link_options, &link_handler, downlink);
    if (arena_measuring(arena)) {
        return;
    }
    write_name(downlink->queue_name, "postern.gateway.", options->gateway_id);
    write_name(downlink->gateway_key, "gateway.", options->gateway_id);
    prepare_steps(downlink);
    amqp_topology_init(&downlink->topology, downlink->link, log, downlink->steps, DOWNLINK_STEPS);
    amqp_topology_init(&downlink->consumer, downlink->link, log, &downlink->consumer_step, 1);
}

void downlink_start(struct downlink *downlink, uint64_t now_ms)
{
    downlink->hold_until_ms = now_ms + DOWNLINK_GRACE_MS;
    amqp_link_start(downlink->link, now_ms);
}

void downlink_on_event(struct downlink *downlink, uint32_t ready, uint64_t now_ms)
{
    amqp_link_on_event(downlink->link, ready, now_ms);
}

bool downlink_on_job(struct downlink *downlink, const struct port_job *job, uint64_t now_ms)
{
    return amqp_link_on_job(downlink->link, job, now_ms);
}

static void acknowledge(struct downlink *downlink)
{
    if (downlink->handed_tag > downlink->acked_tag && amqp_link_ack(downlink->link, downlink->handed_tag, true)) {
        downlink->acked_tag = downlink->handed_tag;
    }
}

/* Begins to consume when it may; returns when to ask again at the latest. */
static uint64_t consume(struct downlink *downlink, uint64_t now_ms)
{
    if (!downlink->standing || downlink->consumer_asked) {
        return UINT64_MAX;
    }
    if (now_ms < downlink->hold_until_ms) {
        return downlink->hold_until_ms;
    }
    downlink->consumer_asked = true;
    amqp_topology_on_channel(&downlink->consumer);
    return UINT64_MAX;
}

/* Asks how many consume the queue, when it is time; returns when to ask again at the latest. */
static uint64_t count_consumers(struct downlink *downlink, uint64_t now_ms)
{
    if (!downlink->consuming) {
        return UINT64_MAX;
    }
    bool is_new = downlink->count_due_ms == 0;
    if (!is_new && now_ms >= downlink->count_due_ms) {
        const struct amqp_queue queue = {.name = span_text(downlink->queue_name)};
        (void)amqp_link_queue_declare(downlink->link, &queue, true); /* where there is no room now, the next time */
    }
    if (is_new || now_ms >= downlink->count_due_ms) {
        downlink->count_due_ms = now_ms + downlink->count_wait_ms;
    }
    return downlink->count_due_ms;
}

uint64_t downlink_turn(struct downlink *downlink, uint64_t now_ms)
{
    uint64_t due_ms = number_smaller(consume(downlink, now_ms), count_consumers(downlink, now_ms));
    acknowledge(downlink);
    if (downlink->standing) {
        ask(downlink);
    }
    amqp_link_flush(downlink->link, now_ms);
    return number_smaller(due_ms, amqp_link_tick(downlink->link, now_ms)); /* of what the flush left */
}

bool downlink_is_shared(const struct downlink *downlink)
{
    return downlink->crowded_count >= DOWNLINK_CROWDED_TIMES;
}

void downlink_close(struct downlink *downlink, uint64_t now_ms)
{
    acknowledge(downlink);
    downlink->hold_until_ms = UINT64_MAX;
    amqp_link_close(downlink->link, now_ms);
}

bool downlink_closed(const struct downlink *downlink)
{
    return amqp_link_state(downlink->link) == AMQP_LINK_DOWN;
}

void downlink_release(struct downlink *downlink)
{
    amqp_link_release(downlink->link);
}
