/* SPDX-License-Identifier: MIT */
/* Method: amqp_wire gives frames, amqp_link.c decodes them, and here is what they lead to: the handshake, the channel
 * that is opened again when the broker closes it, contents, and the owner's handler.
 *
 * A content is a method (deliver, return), a header and bodies. Method and header are copied aside, since the input
 * buffer moves under them; a body that came in one frame is handed out where it lies, others are gathered, and of those
 * that are too long for that the beginning. */
#include "amqp_headers.h"
#include "amqp_link_inside.h"
#include "arena.h"
#include "check.h"
#include "log.h"
#include "text.h"

enum {
    CONTENT_METHOD_BYTES_MAX = 1024, /* deliver and return: at most three short strings */
    CHANNEL_CLOSES_MAX = 24, /* in a row (one for each queue that is missing), before the connection is given up */
    CLOSE_MS = 5000,
    REPLY_ACCESS_REFUSED = 403, /* AMQP 0-9-1's reply codes */
    REPLY_INVALID_PATH = 402,
    REPLY_CONNECTION_FORCED = 320,
    REPLY_RESOURCE_ERROR = 506,
    REPLY_NOT_ALLOWED = 530,
};

static const bool MOVES[AMQP_PHASE_COUNT][AMQP_PHASE_COUNT] = {
    [AMQP_PHASE_NONE] = {[AMQP_PHASE_STARTING] = true},
    [AMQP_PHASE_STARTING] = {[AMQP_PHASE_TUNING] = true, [AMQP_PHASE_NONE] = true},
    [AMQP_PHASE_TUNING] = {[AMQP_PHASE_OPENING] = true, [AMQP_PHASE_NONE] = true},
    [AMQP_PHASE_OPENING] = {[AMQP_PHASE_CHANNEL] = true, [AMQP_PHASE_NONE] = true},
    [AMQP_PHASE_CHANNEL] =
        {[AMQP_PHASE_CONFIRM] = true, [AMQP_PHASE_READY] = true, [AMQP_PHASE_CHANNEL] = true, [AMQP_PHASE_NONE] = true},
    [AMQP_PHASE_CONFIRM] = {[AMQP_PHASE_READY] = true, [AMQP_PHASE_CHANNEL] = true, [AMQP_PHASE_NONE] = true},
    [AMQP_PHASE_READY] = {[AMQP_PHASE_CHANNEL] = true, [AMQP_PHASE_CLOSING] = true, [AMQP_PHASE_NONE] = true},
    [AMQP_PHASE_CLOSING] = {[AMQP_PHASE_NONE] = true},
};

/* What the wire's log line says the link was at. */
static const char *const STAGES[AMQP_PHASE_COUNT] = {
    [AMQP_PHASE_NONE] = "connecting",
    [AMQP_PHASE_STARTING] = "waiting for the broker's greeting",
    [AMQP_PHASE_TUNING] = "logging in",
    [AMQP_PHASE_OPENING] = "opening the vhost",
    [AMQP_PHASE_CHANNEL] = "opening the channel",
    [AMQP_PHASE_CONFIRM] = "asking for confirms",
    [AMQP_PHASE_READY] = "at work",
    [AMQP_PHASE_CLOSING] = "closing",
};

static void move(struct amqp_link *link, enum amqp_phase to)
{
    CHECK(MOVES[link->phase][to]);
    link->phase = to;
    link->wire.stage = STAGES[to];
}

static void fail(struct amqp_link *link, const char *cause, struct span detail, const char *remedy)
{
    amqp_wire_fail(&link->wire, cause, detail, remedy);
}

static void healthy(struct amqp_link *link)
{
    link->channel_closes = 0;
    amqp_wire_healthy(&link->wire);
}

/* For the few methods that keep the conversation going: an out buffer so full that they do not fit means a broker that
 * has read nothing for long. */
static void must(struct amqp_link *link, bool is_written)
{
    if (!is_written) {
        fail(link, "the broker does not read what we send", span_of(NULL, 0), "see the broker's log and load");
    }
}

bool amqp_link_can_write(const struct amqp_link *link)
{
    return link->phase == AMQP_PHASE_READY && !link->wire.is_failed && !link->wire.is_stopping;
}

/* ---- the handshake ---- */

static bool list_has(struct span list, const char *word)
{
    struct span wanted = span_text(word);
    for (size_t i = 0; i + wanted.bytes <= list.bytes; i++) {
        bool starts = i == 0 || list.data[i - 1] == ' ';
        bool ends = i + wanted.bytes == list.bytes || list.data[i + wanted.bytes] == ' ';
        if (starts && ends && memcmp(list.data + i, wanted.data, wanted.bytes) == 0) {
            return true;
        }
    }
    return false;
}

static void on_start(struct amqp_link *link, const struct amqp_method *start)
{
    if (!list_has(start->text, "PLAIN")) {
        fail(link, "the broker takes no login by password (PLAIN)", start->text,
             "set auth_mechanisms in rabbitmq.conf");
        return;
    }
    struct text version = text_in(link->version, sizeof link->version - 1);
    text_bytes(&version, start->name);
    link->version[version.used_bytes] = '\0';
    const struct amqp_broker *broker = amqp_wire_broker(&link->wire);
    char login_buffer[2 + AMQP_USER_BYTES_MAX + AMQP_PASSWORD_BYTES_MAX];
    struct text login = text_in(login_buffer, sizeof login_buffer);
    text_char(&login, '\0');
    text_string(&login, broker->user);
    text_char(&login, '\0');
    text_string(&login, broker->password);
    char name_buffer[256];
    struct text name = text_in(name_buffer, sizeof name_buffer);
    text_string(&name, link->options.program);
    text_char(&name, ' ');
    text_string(&name, link->options.instance);
    text_char(&name, ' ');
    text_string(&name, link->options.role);
    must(link, amqp_link_write_start_ok(link, text_span(&login), text_span(&name)));
    move(link, AMQP_PHASE_TUNING);
}

static void open_channel(struct amqp_link *link)
{
    must(link, amqp_link_write_channel_open(link));
    move(link, AMQP_PHASE_CHANNEL);
}

static void on_tune(struct amqp_link *link, const struct amqp_method *tune)
{
    uint32_t frame_bytes_max = tune->frame_bytes_max;
    if (frame_bytes_max == 0 || frame_bytes_max > AMQP_FRAME_BYTES_MAX) {
        frame_bytes_max = AMQP_FRAME_BYTES_MAX;
    }
    if (frame_bytes_max < AMQP_FRAME_BYTES_MIN) {
        fail(link, "the broker asks for frames smaller than AMQP allows", span_of(NULL, 0),
             "set frame_max in rabbitmq.conf to 4096 at least");
        return;
    }
    uint32_t heartbeat_s = link->options.heartbeat_s;
    if (heartbeat_s == 0 || (tune->heartbeat_s != 0 && tune->heartbeat_s < heartbeat_s)) {
        heartbeat_s = tune->heartbeat_s;
    }
    amqp_wire_tune(&link->wire, frame_bytes_max, heartbeat_s);
    must(link, amqp_link_write_tune_ok(link, frame_bytes_max, (uint16_t)heartbeat_s));
    must(link, amqp_link_write_open(link, amqp_wire_broker(&link->wire)->vhost));
    move(link, AMQP_PHASE_OPENING);
}

static void ready(struct amqp_link *link)
{
    move(link, AMQP_PHASE_READY);
    if (!link->wire.is_established) {
        amqp_wire_established(&link->wire);
        link->counters.connect_count++;
        uint32_t times = link->wire.connected_count;
        if ((times & (times - 1)) == 0) {
            log_event(link->log, LOG_INFO, "amqp_connected", LOG_TEXT("link", link->options.role),
                      LOG_TEXT("broker", amqp_wire_broker(&link->wire)->host),
                      LOG_U64("port", amqp_wire_broker(&link->wire)->port),
                      LOG_TEXT("vhost", amqp_wire_broker(&link->wire)->vhost), LOG_TEXT("version", link->version),
                      LOG_U64("heartbeat", link->wire.heartbeat_ms / 1000), LOG_U64("times", times));
        }
    }
    link->published_tag = 0;
    link->is_channel_open = true;
    if (link->handler->on_channel != NULL) {
        link->handler->on_channel(link->context);
    }
}

static void on_channel_opened(struct amqp_link *link)
{
    if (link->options.confirms) {
        must(link, amqp_link_write_confirm_select(link));
        move(link, AMQP_PHASE_CONFIRM);
    } else {
        ready(link);
    }
}

/* ---- closing, by either side ---- */

static const char *close_remedy(uint16_t code, enum amqp_phase phase)
{
    switch (code) {
    case REPLY_ACCESS_REFUSED:
        return phase == AMQP_PHASE_TUNING
                   ? "check user and password in RABBITMQ_URL (guest may log in from the broker's "
                     "own machine only)"
                   : "give the user rights on the vhost: rabbitmqctl set_permissions";
    case REPLY_NOT_ALLOWED:
        return "check the vhost in RABBITMQ_URL, make it with rabbitmqctl add_vhost, and give the user rights on it "
               "with rabbitmqctl set_permissions";
    case REPLY_INVALID_PATH:
        return "check the vhost in RABBITMQ_URL";
    case REPLY_CONNECTION_FORCED:
        return "the broker is being stopped or someone closed this connection; it is tried again";
    case REPLY_RESOURCE_ERROR:
        return "see the broker's log and its limits";
    default:
        return "see the broker's log";
    }
}

static void on_connection_close(struct amqp_link *link, const struct amqp_method *close)
{
    char detail_buffer[AMQP_WIRE_DETAIL_BYTES];
    struct text detail = text_in(detail_buffer, sizeof detail_buffer);
    struct span said = close->text;
    text_u64(&detail, close->code);
    text_char(&detail, ' ');
    text_bytes(&detail, span_of(said.data, said.bytes < 180 ? said.bytes : 180));
    if (amqp_link_write_close_ok(link)) {
        amqp_wire_send_now(&link->wire);
    }
    bool is_login = link->phase == AMQP_PHASE_TUNING && close->code == REPLY_ACCESS_REFUSED;
    fail(link, is_login ? "the broker refuses the login" : "the broker closed the connection", text_span(&detail),
         close_remedy(close->code, link->phase));
}

static void forget_content(struct amqp_link *link)
{
    link->content_part = AMQP_CONTENT_NONE;
    link->content_bytes = 0;
    amqp_codec_recycle(link->codec);
}

/* The method's text points into the input, not into the pool. */
static void on_channel_close(struct amqp_link *link, uint16_t code, struct span text)
{
    forget_content(link);
    must(link, amqp_link_write_channel_close_ok(link));
    link->counters.channel_closed_count++;
    link->channel_closes++;
    bool was_open = link->is_channel_open;
    link->is_channel_open = false;
    if (link->channel_closes >= CHANNEL_CLOSES_MAX) {
        link->channel_closes = 0;
        fail(link, "the broker closes the channel again and again", text, close_remedy(code, link->phase));
    } else {
        open_channel(link);
    }
    if (was_open && link->handler->on_channel_closed != NULL) {
        link->handler->on_channel_closed(link->context, code, text);
    }
}

static uint64_t end_block(struct amqp_link *link)
{
    uint64_t blocked_ms = link->is_blocked ? link->wire.now_ms - link->blocked_since_ms : 0;
    link->is_blocked = false;
    link->counters.blocked_ms += blocked_ms;
    return blocked_ms;
}

static void on_blocked(struct amqp_link *link, bool is_blocked, struct span reason)
{
    if (is_blocked == link->is_blocked) {
        return;
    }
    if (is_blocked) {
        link->is_blocked = true;
        link->counters.blocked_count++;
        link->blocked_since_ms = link->wire.now_ms;
        log_event(link->log, LOG_WARN, "amqp_blocked", LOG_TEXT("link", link->options.role), LOG_SPAN("reason", reason),
                  LOG_TEXT("remedy", "free memory or disk on the broker; publishing goes on by itself"));
    } else {
        uint64_t blocked_ms = end_block(link);
        log_event(link->log, LOG_INFO, "amqp_unblocked", LOG_TEXT("link", link->options.role),
                  LOG_U64("blocked_ms", blocked_ms));
    }
    if (link->is_channel_open && link->handler->on_blocked != NULL) {
        link->handler->on_blocked(link->context, is_blocked, reason);
    }
}

/* ---- contents ---- */

static void unexpected(struct amqp_link *link, uint32_t id)
{
    char detail_buffer[48];
    struct text detail = text_in(detail_buffer, sizeof detail_buffer);
    text_string(&detail, "class ");
    text_u64(&detail, id >> 16);
    text_string(&detail, ", method ");
    text_u64(&detail, id & 0xFFFF);
    fail(link, "the broker sent what cannot come now", text_span(&detail), "see the broker's log and version");
}

static void undecodable(struct amqp_link *link)
{
    fail(link, "the broker sent what cannot be decoded", span_of(NULL, 0), "see the broker's log and version");
}

/* Moves a span from the input to the kept copy of it. */
static struct span moved(struct span span, struct span from, struct span to)
{
    return span.bytes == 0 ? span : span_of(to.data + (span.data - from.data), span.bytes);
}

static void begin_content(struct amqp_link *link, const struct amqp_method *method, struct span payload)
{
    if (link->content_part != AMQP_CONTENT_NONE || payload.bytes > CONTENT_METHOD_BYTES_MAX) {
        unexpected(link, method->id);
        return;
    }
    struct span kept = span_of(link->content_buffer, payload.bytes);
    memcpy(link->content_buffer, payload.data, payload.bytes);
    link->content_bytes = payload.bytes;
    bool is_return = method->kind == AMQP_METHOD_RETURN;
    link->content_is_return = is_return;
    link->return_code = is_return ? method->code : 0;
    link->return_text = is_return ? moved(method->text, payload, kept) : span_of(NULL, 0);
    link->message.tag = is_return ? 0 : method->tag;
    link->message.redelivered = !is_return && method->redelivered;
    link->message.exchange = moved(method->exchange, payload, kept);
    link->message.routing_key = moved(method->routing_key, payload, kept);
    link->content_part = AMQP_CONTENT_HEADER;
}

static void finish_content(struct amqp_link *link, struct span body)
{
    struct amqp_message *message = &link->message;
    message->body = body;
    link->content_part = AMQP_CONTENT_NONE;
    if (link->phase != AMQP_PHASE_READY) {
        /* closing: nobody is listening any more */
    } else if (link->content_is_return) {
        link->counters.returned_count++;
        if (link->handler->on_return != NULL) {
            link->handler->on_return(link->context, link->return_code, link->return_text, message);
        }
    } else {
        link->counters.delivered_count++;
        link->counters.oversized_count += message->oversized;
        healthy(link);
        if (link->handler->on_delivery != NULL) {
            link->handler->on_delivery(link->context, message);
        }
    }
    forget_content(link);
}

static void on_header(struct amqp_link *link, struct span payload)
{
    uint32_t class_id = (uint32_t)payload.data[0] << 8 | payload.data[1];
    if (link->content_part != AMQP_CONTENT_HEADER || class_id != AMQP_CONTENT_CLASS) {
        unexpected(link, class_id << 16);
        return;
    }
    uint64_t body_bytes = 0;
    for (size_t i = 4; i < 12; i++) {
        body_bytes = body_bytes << 8 | payload.data[i];
    }
    struct span properties = span_of(payload.data + 12, payload.bytes - 12);
    struct span rest;
    struct span table;
    struct amqp_message *message = &link->message;
    uint8_t *kept = link->content_buffer + link->content_bytes;
    link->content_bytes += properties.bytes;
    if (!amqp_headers_split(properties, kept, &rest, &table) || !amqp_codec_properties(link->codec, rest, message) ||
        !amqp_headers_read(table, message->headers, &message->header_count)) {
        undecodable(link);
        return;
    }
    link->message.body_bytes = body_bytes;
    link->message.oversized = body_bytes > link->options.body_bytes_max;
    link->body_left_bytes = body_bytes;
    link->body_bytes = 0;
    link->content_part = AMQP_CONTENT_BODY;
    if (body_bytes == 0) {
        finish_content(link, span_of(NULL, 0));
    }
}

static void on_body(struct amqp_link *link, struct span payload)
{
    if (link->content_part != AMQP_CONTENT_BODY || payload.bytes > link->body_left_bytes) {
        unexpected(link, (uint32_t)AMQP_CONTENT_CLASS << 16);
        return;
    }
    link->body_left_bytes -= payload.bytes;
    if (payload.bytes == link->message.body_bytes && !link->message.oversized) {
        finish_content(link, payload);
        return;
    }
    size_t room = link->options.body_bytes_max - link->body_bytes;
    size_t kept = payload.bytes < room ? payload.bytes : room;
    if (kept > 0) {
        memcpy(link->body_buffer + link->body_bytes, payload.data, kept);
        link->body_bytes += kept;
    }
    if (link->body_left_bytes == 0) {
        finish_content(link, span_of(link->body_buffer, link->body_bytes));
    }
}

/* ---- methods ---- */

static void reply(struct amqp_link *link, enum amqp_reply_kind kind, const struct amqp_method *method)
{
    struct amqp_reply reply = {kind, method->name, method->message_count, method->consumer_count};
    if (link->phase == AMQP_PHASE_READY && link->handler->on_reply != NULL) {
        link->handler->on_reply(link->context, &reply);
    }
}

static void confirm(struct amqp_link *link, uint64_t tag, bool multiple, bool is_ack)
{
    if (link->phase != AMQP_PHASE_READY) {
        return;
    }
    if (tag > link->published_tag) {
        fail(link, "the broker confirms what was not published", span_of(NULL, 0), "see the broker's log and version");
        return;
    }
    if (tag == 0 && multiple) {
        tag = link->published_tag; /* AMQP 0-9-1: all so far */
    }
    link->counters.acked_frame_count += is_ack;
    link->counters.nacked_frame_count += !is_ack;
    if (is_ack) {
        healthy(link);
    }
    if (link->handler->on_confirm != NULL) {
        link->handler->on_confirm(link->context, tag, multiple, is_ack);
    }
}

static void on_cancel(struct amqp_link *link, const struct amqp_method *cancel)
{
    if (!cancel->nowait) {
        must(link, amqp_link_write_cancel_ok(link, cancel->name));
    }
    reply(link, AMQP_REPLY_CANCELLED, cancel);
}

/* In which phase a step of the handshake may come. */
static bool in_phase(struct amqp_link *link, enum amqp_phase phase, const struct amqp_method *method)
{
    if (link->phase != phase) {
        unexpected(link, method->id);
    }
    return link->phase == phase;
}

static void dispatch(struct amqp_link *link, const struct amqp_method *method, struct span payload)
{
    switch (method->kind) {
    case AMQP_METHOD_CONNECTION_START:
        if (in_phase(link, AMQP_PHASE_STARTING, method)) {
            on_start(link, method);
        }
        break;
    case AMQP_METHOD_CONNECTION_TUNE:
        if (in_phase(link, AMQP_PHASE_TUNING, method)) {
            on_tune(link, method);
        }
        break;
    case AMQP_METHOD_CONNECTION_OPEN_OK:
        if (in_phase(link, AMQP_PHASE_OPENING, method)) {
            open_channel(link);
        }
        break;
    case AMQP_METHOD_CONNECTION_CLOSE:
        on_connection_close(link, method);
        break;
    case AMQP_METHOD_CONNECTION_CLOSE_OK:
        if (in_phase(link, AMQP_PHASE_CLOSING, method)) {
            amqp_wire_stop(&link->wire);
        }
        break;
    case AMQP_METHOD_CONNECTION_BLOCKED:
        on_blocked(link, true, method->text);
        break;
    case AMQP_METHOD_CONNECTION_UNBLOCKED:
        on_blocked(link, false, span_of(NULL, 0));
        break;
    case AMQP_METHOD_CHANNEL_OPEN_OK:
        if (in_phase(link, AMQP_PHASE_CHANNEL, method)) {
            on_channel_opened(link);
        }
        break;
    case AMQP_METHOD_CONFIRM_OK:
        if (in_phase(link, AMQP_PHASE_CONFIRM, method)) {
            ready(link);
        }
        break;
    case AMQP_METHOD_CHANNEL_CLOSE:
        if (link->phase >= AMQP_PHASE_CHANNEL && link->phase <= AMQP_PHASE_READY) {
            on_channel_close(link, method->code, method->text);
        } else if (link->phase != AMQP_PHASE_CLOSING) {
            unexpected(link, method->id);
        }
        break;
    case AMQP_METHOD_QUEUE_DECLARE_OK:
        reply(link, AMQP_REPLY_QUEUE_DECLARED, method);
        break;
    case AMQP_METHOD_EXCHANGE_DECLARE_OK:
        reply(link, AMQP_REPLY_EXCHANGE_DECLARED, method);
        break;
    case AMQP_METHOD_BIND_OK:
        reply(link, AMQP_REPLY_BOUND, method);
        break;
    case AMQP_METHOD_UNBIND_OK:
        reply(link, AMQP_REPLY_UNBOUND, method);
        break;
    case AMQP_METHOD_QOS_OK:
        reply(link, AMQP_REPLY_QOS, method);
        break;
    case AMQP_METHOD_CONSUME_OK:
        reply(link, AMQP_REPLY_CONSUMING, method);
        break;
    case AMQP_METHOD_CANCEL:
        on_cancel(link, method);
        break;
    case AMQP_METHOD_ACK:
        confirm(link, method->tag, method->multiple, true);
        break;
    case AMQP_METHOD_NACK:
        confirm(link, method->tag, method->multiple, false);
        break;
    case AMQP_METHOD_DELIVER:
    case AMQP_METHOD_RETURN:
        begin_content(link, method, payload);
        break;
    case AMQP_METHOD_OTHER:
        unexpected(link, method->id);
        break;
    }
}

static void on_method(struct amqp_link *link, uint16_t channel, struct span payload)
{
    struct amqp_method method = {.kind = AMQP_METHOD_OTHER};
    if (!amqp_codec_method(link->codec, payload, &method)) {
        undecodable(link);
        return;
    }
    bool is_of_connection = method.kind <= AMQP_METHOD_CONNECTION_UNBLOCKED;
    if (is_of_connection != (channel == 0)) {
        unexpected(link, method.id);
        return;
    }
    dispatch(link, &method, payload);
    if (link->content_part == AMQP_CONTENT_NONE) {
        amqp_codec_recycle(link->codec);
    }
}

/* ---- the wire's events ---- */

static void wire_on_open(void *context)
{
    struct amqp_link *link = context;
    move(link, AMQP_PHASE_STARTING);
}

static void wire_on_frame(void *context, enum amqp_frame_type type, uint16_t channel, struct span payload)
{
    struct amqp_link *link = context;
    switch (type) {
    case AMQP_METHOD_FRAME:
        on_method(link, channel, payload);
        break;
    case AMQP_HEADER_FRAME:
        on_header(link, payload);
        break;
    case AMQP_BODY_FRAME:
        on_body(link, payload);
        break;
    case AMQP_HEARTBEAT_FRAME:
        break;
    }
}

static void wire_on_down(void *context)
{
    struct amqp_link *link = context;
    forget_content(link);
    end_block(link);
    link->phase = AMQP_PHASE_NONE;
    link->channel_closes = 0;
    bool was_open = link->is_channel_open;
    link->is_channel_open = false;
    if (was_open && link->handler->on_down != NULL) {
        link->handler->on_down(link->context);
    }
}

static const struct amqp_wire_handler WIRE_HANDLER = {wire_on_open, wire_on_frame, wire_on_down};

/* ---- the life of a link ---- */

struct amqp_link *amqp_link_init(struct arena *arena, struct port *port, struct log *log,
                                 const struct amqp_link_options *options, const struct amqp_link_handler *handler,
                                 void *context)
{
    CHECK(options->out_bytes >= AMQP_LINK_OUT_BYTES_MIN);
    struct amqp_link *link = arena_take(arena, "AMQP link", 1, sizeof *link);
    struct amqp_codec *codec = amqp_codec_init(arena);
    uint8_t *content =
        arena_take(arena, "AMQP link, a content's header", 1, CONTENT_METHOD_BYTES_MAX + AMQP_FRAME_BYTES_MAX);
    uint8_t *body = NULL;
    if (options->body_bytes_max > 0) {
        body = arena_take(arena, "AMQP link, a content's body", 1, options->body_bytes_max);
    }
    struct amqp_wire unused;
    struct amqp_wire_options wire = {options->role, options->brokers, options->token, options->out_bytes};
    amqp_wire_init(link == NULL ? &unused : &link->wire, arena, port, log, &wire, &WIRE_HANDLER, link);
    if (link == NULL) {
        return NULL; /* the arena measures */
    }
    link->log = log;
    link->options = *options;
    link->handler = handler;
    link->context = context;
    link->codec = codec;
    link->content_buffer = content;
    link->body_buffer = body;
    return link;
}

void amqp_link_release(struct amqp_link *link)
{
    CHECK(link->wire.state == AMQP_WIRE_DOWN);
    amqp_codec_release(link->codec);
}

void amqp_link_start(struct amqp_link *link, uint64_t now_ms)
{
    amqp_wire_start(&link->wire, now_ms);
}

void amqp_link_on_event(struct amqp_link *link, uint32_t ready_bits, uint64_t now_ms)
{
    amqp_wire_on_event(&link->wire, ready_bits, now_ms);
}

bool amqp_link_on_job(struct amqp_link *link, const struct port_job *job, uint64_t now_ms)
{
    return amqp_wire_on_job(&link->wire, job, now_ms);
}

void amqp_link_flush(struct amqp_link *link, uint64_t now_ms)
{
    amqp_wire_flush(&link->wire, now_ms);
}

uint64_t amqp_link_tick(struct amqp_link *link, uint64_t now_ms)
{
    if (link->phase == AMQP_PHASE_CLOSING && now_ms >= link->close_due_ms) {
        amqp_wire_stop(&link->wire);
    }
    uint64_t next = amqp_wire_tick(&link->wire, now_ms);
    return link->phase == AMQP_PHASE_CLOSING && link->close_due_ms < next ? link->close_due_ms : next;
}

const char AMQP_LINK_NACKS_REMEDY[] = "see the queues (rabbitmqctl list_queues name messages; rabbitmq-queues "
                                      "quorum_status NAME): one that is full needs room, one without a leader the "
                                      "nodes that hold it; nothing is lost";

void amqp_link_reconnect(struct amqp_link *link, const char *cause, const char *remedy)
{
    fail(link, cause, span_of(NULL, 0), remedy != NULL ? remedy : "it connects again by itself");
}

void amqp_link_close(struct amqp_link *link, uint64_t now_ms)
{
    if (amqp_link_can_write(link) && amqp_link_write_close(link)) {
        move(link, AMQP_PHASE_CLOSING);
        amqp_wire_make_last(&link->wire);
        link->close_due_ms = now_ms + CLOSE_MS;
    } else {
        amqp_wire_stop(&link->wire);
    }
    amqp_wire_flush(&link->wire, now_ms);
}

enum amqp_link_state amqp_link_state(const struct amqp_link *link)
{
    static const enum amqp_link_state PHASES[AMQP_PHASE_COUNT] = {
        [AMQP_PHASE_NONE] = AMQP_LINK_CONNECTING, [AMQP_PHASE_STARTING] = AMQP_LINK_STARTING,
        [AMQP_PHASE_TUNING] = AMQP_LINK_TUNING,   [AMQP_PHASE_OPENING] = AMQP_LINK_OPENING,
        [AMQP_PHASE_CHANNEL] = AMQP_LINK_CHANNEL, [AMQP_PHASE_CONFIRM] = AMQP_LINK_CONFIRM,
        [AMQP_PHASE_READY] = AMQP_LINK_READY,     [AMQP_PHASE_CLOSING] = AMQP_LINK_CLOSING,
    };
    switch (link->wire.state) {
    case AMQP_WIRE_DOWN:
        return AMQP_LINK_DOWN;
    case AMQP_WIRE_WAITING:
        return AMQP_LINK_WAITING;
    case AMQP_WIRE_RESOLVING:
        return AMQP_LINK_RESOLVING;
    case AMQP_WIRE_CONNECTING:
    case AMQP_WIRE_OPEN:
        break;
    }
    return PHASES[link->phase];
}

const char *amqp_link_state_name(enum amqp_link_state state)
{
    static const char *const NAMES[] = {
        [AMQP_LINK_DOWN] = "down",           [AMQP_LINK_WAITING] = "waiting",
        [AMQP_LINK_RESOLVING] = "resolving", [AMQP_LINK_CONNECTING] = "connecting",
        [AMQP_LINK_STARTING] = "starting",   [AMQP_LINK_TUNING] = "tuning",
        [AMQP_LINK_OPENING] = "opening",     [AMQP_LINK_CHANNEL] = "channel",
        [AMQP_LINK_CONFIRM] = "confirm",     [AMQP_LINK_READY] = "ready",
        [AMQP_LINK_CLOSING] = "closing",
    };
    return NAMES[state];
}

bool amqp_link_blocked(const struct amqp_link *link)
{
    return link->is_blocked;
}

uint64_t amqp_link_blocked_ms(const struct amqp_link *link, uint64_t now_ms)
{
    return link->counters.blocked_ms + (link->is_blocked ? now_ms - link->blocked_since_ms : 0);
}

const struct amqp_link_counters *amqp_link_counters(struct amqp_link *link)
{
    const struct amqp_wire_counters *wire = &link->wire.counters;
    link->counters.connect_failure_count = wire->failure_count;
    link->counters.down_count = wire->lost_count;
    link->counters.received_bytes = wire->received_bytes;
    link->counters.sent_bytes = wire->sent_bytes;
    link->counters.send_count = wire->send_count;
    link->counters.out_full_count = wire->full_count;
    link->counters.out_peak_bytes = wire->peak_bytes;
    return &link->counters;
}

size_t amqp_link_out_bytes(const struct amqp_link *link)
{
    return link->wire.out_end - link->wire.out_start;
}
