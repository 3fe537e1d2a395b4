/* SPDX-License-Identifier: MIT */
/* Method: a turn publishes from the window into the link's out buffer until the window of unconfirmed messages is full,
 * then sends once; if the out buffer was the limit and the socket took all of it, it goes on, a few rounds a turn. All
 * that comes back (confirms, nacks, returns) is bookkeeping in the window and takes effect in the next turn. */
#include "uplink.h"

#include "arena.h"
#include "check.h"
#include "decimal.h"
#include "log.h"
#include "number.h"
#include "parcel.h"
#include "port.h"
#include "text.h"

enum {
    WINDOW_FIRST_COUNT = 32,
    REPLAY_AFTER_MS = 100,
    ONLY_NACKS_MS = 1000,
    /* How long after a nack messages go one by one: of several in flight one may be refused and a later one taken. */
    CAREFUL_MS = 10000,
    /* Longer than the election of a quorum queue's new leader, which decides what hangs; what is not decided then may
     * hang as long as the queue lacks its majority, and all other queues' messages with it. */
    UNDECIDED_MS = 5000,
    OUT_BYTES_MIN = 256 * 1024,
    FRAMES_BYTES_MAX = 4096, /* around one message: its properties and frames */
    ROUNDS_MAX = 4,
    REF_NUMBERS = 4 /* behind the boot's name */
};

static const char ONLY_NACKS[] = "for a second the broker took nothing: a queue is full and set to reject "
                                 "(x-overflow), or its leader is away";
static const char UNDECIDED[] = "five seconds after a nack the broker had still not decided on other messages: a "
                                "quorum queue may lack its majority";
static const char RETURNED[] = "a message came back: its queue is gone; it is declared again";

/* ---- names ---- */

static void write_base36(struct text *text, uint64_t value, size_t digits_min)
{
    char digits[16];
    size_t used = sizeof digits;
    do {
        digits[--used] = "0123456789abcdefghijklmnopqrstuvwxyz"[value % 36];
        value /= 36;
    } while (used > 0 && (value > 0 || sizeof digits - used < digits_min));
    text_bytes(text, span_of(digits + used, sizeof digits - used));
}

/* The wall clock alone may repeat: a box without a battery for its clock starts where it stopped. */
static void name_boot(struct uplink *uplink, struct port *port)
{
    uint64_t random = 0;
    port->random(port->context, &random, sizeof random);
    int64_t wall_ms = port->wall_ms(port->context);
    struct text boot = text_in(uplink->boot, sizeof uplink->boot);
    write_base36(&boot, wall_ms > 0 ? (uint64_t)wall_ms : 0, 1);
    write_base36(&boot, random % 2176782336U, 6); /* 36^6 */
    uplink->boot_bytes = boot.used_bytes;
}

void uplink_write_ref(const struct uplink *uplink, struct text *text, uint64_t number,
                      const struct outbox_origin *origin)
{
    const uint64_t parts[REF_NUMBERS] = {number, origin->session_index, origin->session_generation, origin->seq};
    text_bytes(text, span_of(uplink->boot, uplink->boot_bytes));
    for (size_t i = 0; i < REF_NUMBERS; i++) {
        text_char(text, '.');
        text_u64(text, parts[i]);
    }
}

bool uplink_read_ref(const struct uplink *uplink, struct span ref, uint64_t *number, struct outbox_origin *origin)
{
    static const uint64_t MAX[REF_NUMBERS] = {UINT64_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX};
    uint64_t parts[REF_NUMBERS];
    size_t boot_bytes = uplink->boot_bytes;
    if (ref.bytes <= boot_bytes || !span_equal(span_of(ref.data, boot_bytes), span_of(uplink->boot, boot_bytes))) {
        return false;
    }
    size_t start = boot_bytes;
    for (size_t i = 0; i < REF_NUMBERS; i++) {
        if (start >= ref.bytes || ref.data[start] != '.') {
            return false;
        }
        size_t end = ++start;
        while (end < ref.bytes && ref.data[end] != '.') {
            end++;
        }
        if (!decimal_parse(span_of(ref.data + start, end - start), 0, MAX[i], &parts[i])) {
            return false;
        }
        start = end;
    }
    *number = parts[0];
    *origin = (struct outbox_origin){(uint32_t)parts[1], (uint32_t)parts[2], (uint32_t)parts[3]};
    return start == ref.bytes;
}

void uplink_write_id(const struct uplink *uplink, struct text *text, uint64_t number)
{
    text_string(text, uplink->options.gateway_id);
    text_char(text, '-');
    text_bytes(text, span_of(uplink->boot, uplink->boot_bytes));
    text_char(text, '-');
    text_u64(text, number);
}

/* ---- publishing ---- */

static void log_published(struct uplink *uplink, const struct parcel *parcel, bool is_repeat)
{
    log_event(uplink->log, LOG_INFO, "message_published", LOG_SPAN("client", parcel->client_id),
              LOG_SPAN("id", parcel->id), LOG_SPAN("queue", parcel->queue), LOG_U64("again", is_repeat));
}

static bool publish(struct uplink *uplink, const struct window_entry *entry)
{
    static const struct span CONTENT_TYPE = SPAN("application/json");
    static const struct span APP_ID = SPAN("postern");
    struct window *window = uplink->window;
    struct parcel parcel;
    char ref_buffer[OUTBOX_REF_BYTES_MAX];
    char id_buffer[UPLINK_MESSAGE_ID_BYTES_MAX];
    struct text ref = text_in(ref_buffer, sizeof ref_buffer);
    struct text message_id = text_in(id_buffer, sizeof id_buffer);
    CHECK(parcel_open(window_record(window, entry), &parcel));
    uplink_write_ref(uplink, &ref, entry->number, &parcel.origin);
    text_bytes(&message_id, parcel.client_id);
    text_char(&message_id, ':');
    text_bytes(&message_id, parcel.id);
    const struct amqp_publish message = {
        .routing_key = parcel.queue,
        .body = parcel.body,
        .content_type = CONTENT_TYPE,
        .correlation_id = text_span(&ref),
        .reply_to = span_text(uplink->reply_to),
        .message_id = text_span(&message_id),
        .type = parcel.type,
        .app_id = APP_ID,
        .timestamp_s = (uint64_t)(parcel.received_wall_ms / 1000),
        .mandatory = true,
        .persistent = true,
    };
    uint64_t tag = amqp_link_publish(uplink->link, &message);
    if (tag == 0) {
        return false;
    }
    bool is_repeat = window_published(window, tag);
    uplink->counters->published_count++;
    uplink->counters->replayed_count += is_repeat;
    if (log_messages(uplink->log)) {
        log_published(uplink, &parcel, is_repeat);
    }
    return true;
}

/* True: the out buffer was what stopped it. */
static bool pump(struct uplink *uplink)
{
    bool is_open = uplink->is_ready && amqp_link_state(uplink->link) == AMQP_LINK_READY; /* not closing */
    if (!is_open || uplink->replay_due_ms != 0 || amqp_link_blocked(uplink->link)) {
        return false;
    }
    while (window_in_flight(uplink->window) < uplink->window_count) {
        const struct window_entry *entry = window_next(uplink->window);
        if (entry == NULL) {
            return false;
        }
        if (!publish(uplink, entry)) {
            return true;
        }
    }
    return false;
}

static void relink(struct uplink *uplink, const char *cause, const char *remedy)
{
    uplink->is_ready = false;
    uplink->counters->relinked_count++;
    amqp_link_reconnect(uplink->link, cause, remedy);
}

/* Goes back to the oldest unconfirmed message once the nacks' pause is over and nothing is undecided. Returns when it
 * is to be asked again at the latest; the end of an alarm is an event. */
static uint64_t replay(struct uplink *uplink)
{
    uint64_t next = UINT64_MAX;
    if (amqp_link_blocked(uplink->link)) {
        return next;
    }
    if (window_depth(uplink->window) == 0) {
        uplink->nacked_since_ms = 0; /* what was refused has left: the processor spoke of it, or it was dropped */
    }
    if (uplink->nacked_since_ms != 0) {
        uint64_t give_up_ms = uplink->nacked_since_ms + ONLY_NACKS_MS;
        if (uplink->now_ms >= give_up_ms) {
            uplink->nacked_since_ms = 0;
            relink(uplink, ONLY_NACKS, AMQP_LINK_NACKS_REMEDY);
            return next;
        }
        next = give_up_ms;
    }
    if (uplink->replay_due_ms != 0) {
        if (uplink->now_ms < uplink->replay_due_ms) {
            next = number_smaller(next, uplink->replay_due_ms);
        } else if (window_in_flight(uplink->window) == 0) {
            uplink->replay_due_ms = 0;
            window_rewind(uplink->window);
        } else if (uplink->now_ms >= uplink->undecided_ms) {
            uplink->replay_due_ms = 0;
            relink(uplink, UNDECIDED, AMQP_LINK_NACKS_REMEDY);
        } else {
            next = number_smaller(next, uplink->undecided_ms);
        }
    }
    return next;
}

uint64_t uplink_turn(struct uplink *uplink, uint64_t now_ms)
{
    uplink->now_ms = now_ms;
    uint64_t next = replay(uplink);
    for (size_t round = 0; round < ROUNDS_MAX; round++) {
        bool is_stopped = pump(uplink);
        amqp_link_flush(uplink->link, now_ms);
        if (!is_stopped || amqp_link_out_bytes(uplink->link) > 0) {
            break; /* all is out, or the socket's readiness wakes us */
        }
        next = now_ms;
    }
    /* Last, because a send can lose the connection, and when the next one is due is known only then. */
    return number_smaller(next, amqp_link_tick(uplink->link, now_ms));
}

/* ---- what the link tells ---- */

static void on_channel(void *context)
{
    struct uplink *uplink = context;
    uint32_t first = uplink->now_ms < uplink->careful_until_ms ? 1 : WINDOW_FIRST_COUNT;
    uplink->window_count = first < uplink->options.window_count_max ? first : uplink->options.window_count_max;
    amqp_topology_on_channel(&uplink->topology);
}

static void on_reply(void *context, const struct amqp_reply *reply)
{
    struct uplink *uplink = context;
    uplink->is_ready = uplink->is_ready || amqp_topology_on_reply(&uplink->topology, reply) == AMQP_TOPOLOGY_DONE;
}

static void begin_anew(struct uplink *uplink)
{
    uplink->is_ready = false;
    uplink->nacked_since_ms = 0;
    uplink->replay_due_ms = 0;
    window_forget_tags(uplink->window);
    window_rewind(uplink->window);
}

static void on_channel_closed(void *context, uint16_t code, struct span text)
{
    struct uplink *uplink = context;
    begin_anew(uplink);
    (void)amqp_topology_on_channel_closed(&uplink->topology, code, text);
}

static void on_down(void *context)
{
    struct uplink *uplink = context;
    begin_anew(uplink);
}

/* From now on, because the one before counted time in which the broker could not decide anything. */
static void begin_pause(struct uplink *uplink)
{
    uplink->replay_due_ms = uplink->now_ms + REPLAY_AFTER_MS;
    uplink->undecided_ms = uplink->now_ms + UNDECIDED_MS;
}

static void on_blocked(void *context, bool is_blocked, struct span reason)
{
    struct uplink *uplink = context;
    (void)reason;
    if (is_blocked) {
        return;
    }
    if (uplink->nacked_since_ms != 0) {
        uplink->nacked_since_ms = uplink->now_ms;
    }
    if (uplink->replay_due_ms != 0) {
        begin_pause(uplink);
    }
}

static void on_confirm(void *context, uint64_t tag, bool multiple, bool is_ack)
{
    struct uplink *uplink = context;
    if (is_ack) {
        if (window_ack(uplink->window, tag, multiple, uplink->on_confirmed, uplink->context) == 0) {
            return;
        }
        uplink->nacked_since_ms = 0;
        uint32_t doubled = uplink->now_ms < uplink->careful_until_ms ? 1 : uplink->window_count * 2;
        uplink->window_count = doubled < uplink->options.window_count_max ? doubled : uplink->options.window_count_max;
        return;
    }
    uplink->counters->nacked_count += window_nack(uplink->window, tag, multiple);
    if (uplink->nacked_since_ms == 0) {
        uplink->nacked_since_ms = uplink->now_ms;
    }
    uplink->careful_until_ms = uplink->now_ms + CAREFUL_MS;
    uplink->window_count = 1;
    if (uplink->replay_due_ms == 0) {
        begin_pause(uplink);
    }
}

static void on_return(void *context, uint16_t code, struct span text, const struct amqp_message *message)
{
    struct uplink *uplink = context;
    uplink->counters->returned_count++;
    uint32_t times = repeats_due(&uplink->told, "returned", code, message->routing_key);
    if (times > 0) {
        log_event(uplink->log, LOG_WARN, "message_returned", LOG_SPAN("message_id", message->message_id),
                  LOG_SPAN("queue", message->routing_key), LOG_U64("code", code), LOG_SPAN("cause", text),
                  LOG_TEXT("remedy", "its queue is declared again and the message sent again; see who deleted it"),
                  LOG_U64("times", times));
    }
    relink(uplink, RETURNED, NULL);
}

static const struct amqp_link_handler LINK_HANDLER = {.on_channel = on_channel,
                                                      .on_reply = on_reply,
                                                      .on_channel_closed = on_channel_closed,
                                                      .on_confirm = on_confirm,
                                                      .on_return = on_return,
                                                      .on_blocked = on_blocked,
                                                      .on_down = on_down};

static void add_step(struct uplink *uplink, struct span queue)
{
    uplink->steps[uplink->step_count++] =
        (struct amqp_step){.kind = AMQP_STEP_QUEUE, .queue = {.name = queue, .type = uplink->options.queue_type}};
}

void uplink_init(struct uplink *uplink, struct arena *arena, struct port *port, struct log *log,
                 const struct outbox_options *options, struct window *window, struct outbox_counters *counters,
                 window_on_confirmed *on_confirmed, void *context)
{
    CHECK(options->queue_count >= 1 && options->queue_count <= OUTBOX_QUEUES_MAX && options->window_count_max >= 1);
    size_t out_bytes = 2 * (options->content_bytes_max + OUTBOX_OVERHEAD_BYTES_MAX + FRAMES_BYTES_MAX);
    const struct amqp_link_options link_options = {
        .program = options->program,
        .instance = options->gateway_id,
        .role = "publish",
        .brokers = options->brokers,
        .heartbeat_s = options->heartbeat_s,
        .token = options->token,
        .out_bytes = out_bytes > OUT_BYTES_MIN ? out_bytes : OUT_BYTES_MIN,
        .confirms = true,
    };
    struct amqp_link *link = amqp_link_init(arena, port, log, &link_options, &LINK_HANDLER, uplink);
    if (arena_measuring(arena)) {
        return;
    }
    *uplink = (struct uplink){.link = link,
                              .log = log,
                              .options = *options,
                              .counters = counters,
                              .window = window,
                              .on_confirmed = on_confirmed,
                              .context = context};
    for (size_t i = 0; i < options->queue_count; i++) {
        add_step(uplink, options->queues[i]);
    }
    name_boot(uplink, port);
    struct text reply_to = text_in(uplink->reply_to, sizeof uplink->reply_to - 1);
    text_string(&reply_to, "gateway.");
    text_string(&reply_to, options->gateway_id);
    CHECK(!reply_to.truncated);
}

void uplink_add_queue(struct uplink *uplink, struct span name)
{
    for (size_t i = 0; i < uplink->step_count; i++) {
        if (span_equal(uplink->steps[i].queue.name, name)) {
            return;
        }
    }
    size_t other_count = uplink->step_count - uplink->options.queue_count;
    if (other_count == UPLINK_OTHER_QUEUES_MAX) {
        return; /* it is published to all the same, and created by whoever reads it */
    }
    memcpy(uplink->other_queues[other_count], name.data, name.bytes);
    add_step(uplink, span_of(uplink->other_queues[other_count], name.bytes));
    log_event(uplink->log, LOG_INFO, "queue_of_spool", LOG_SPAN("queue", name),
              LOG_TEXT("cause", "an earlier start left messages for a queue that ROUTES no longer names"));
}

void uplink_start(struct uplink *uplink, uint64_t now_ms)
{
    amqp_topology_init(&uplink->topology, uplink->link, uplink->log, uplink->steps, uplink->step_count);
    uplink->now_ms = now_ms;
    amqp_link_start(uplink->link, now_ms);
}
