/* SPDX-License-Identifier: MIT */
/* Method: a small state machine around one socket. Whatever goes wrong is noted by amqp_wire_fail and carried out at
 * one place, drop(), when no handler is running: close, tell, and plan the next attempt. An attempt that failed before
 * it was established leads at once to the next address or broker that this round has not tried; a whole round, and a
 * loss of an established connection, cost a backoff. The backoff is forgotten only after proof of health (a confirm, a
 * delivery, or half a minute of life), so that a topology that cannot be, or a link that flaps before it did any good,
 * is tried ever less. What was told in the log is told again in growing intervals until a connection lived half a
 * minute, so that a link that flaps does not fill it. */
#include "amqp_wire.h"

#include "arena.h"
#include "check.h"
#include "log.h"
#include "number.h"
#include "text.h"

enum {
    BACKOFF_BASE_MS = 100,
    BACKOFF_MAX_MS = 10000,
    ESTABLISH_MS = 10000,    /* TCP and handshake together */
    STEADY_AFTER_MS = 30000, /* of life: then the next failure is news again */
    RESOLVE_RETRY_MS = 100,  /* when the worker takes no more jobs */
    RECEIVES_MAX = 4         /* of one event, so that a flood on one link cannot starve the loop */
};

static const uint8_t PROTOCOL_HEADER[8] = {'A', 'M', 'Q', 'P', 0, 0, 9, 1};
static const uint8_t HEARTBEAT[8] = {AMQP_HEARTBEAT_FRAME, 0, 0, 0, 0, 0, 0, AMQP_WIRE_FRAME_END};

static const bool MOVES[][AMQP_WIRE_OPEN + 1] = {
    [AMQP_WIRE_DOWN] = {[AMQP_WIRE_WAITING] = true},
    [AMQP_WIRE_WAITING] = {[AMQP_WIRE_RESOLVING] = true, [AMQP_WIRE_CONNECTING] = true, [AMQP_WIRE_DOWN] = true},
    [AMQP_WIRE_RESOLVING] = {[AMQP_WIRE_CONNECTING] = true, [AMQP_WIRE_WAITING] = true, [AMQP_WIRE_DOWN] = true},
    [AMQP_WIRE_CONNECTING] = {[AMQP_WIRE_OPEN] = true, [AMQP_WIRE_WAITING] = true, [AMQP_WIRE_DOWN] = true},
    [AMQP_WIRE_OPEN] = {[AMQP_WIRE_WAITING] = true, [AMQP_WIRE_DOWN] = true},
};

static void move(struct amqp_wire *wire, enum amqp_wire_state to)
{
    CHECK(MOVES[wire->state][to]);
    wire->state = to;
}

void amqp_wire_init(struct amqp_wire *wire, struct arena *arena, struct port *port, struct log *log,
                    const struct amqp_wire_options *options, const struct amqp_wire_handler *handler, void *context)
{
    uint8_t *in = arena_take(arena, "AMQP link, receiving", 1, AMQP_WIRE_IN_BYTES);
    uint8_t *out = arena_take(arena, "AMQP link, sending", 1, options->out_bytes);
    if (arena_measuring(arena)) {
        return;
    }
    *wire = (struct amqp_wire){.port = port,
                               .log = log,
                               .options = *options,
                               .handler = handler,
                               .context = context,
                               .state = AMQP_WIRE_DOWN,
                               .socket = PORT_NONE,
                               .in = in,
                               .out = out};
    CHECK(options->brokers->count >= 1 && options->brokers->count <= AMQP_BROKERS_MAX);
    backoff_init(&wire->backoff, BACKOFF_BASE_MS, BACKOFF_MAX_MS);
}

const struct amqp_broker *amqp_wire_broker(const struct amqp_wire *wire)
{
    return &wire->options.brokers->at[wire->broker_index];
}

static const char *port_error(const struct amqp_wire *wire)
{
    return wire->port->error_text(wire->port->context);
}

void amqp_wire_fail(struct amqp_wire *wire, const char *cause, struct span detail, const char *remedy)
{
    if (wire->is_failed || wire->state == AMQP_WIRE_DOWN || wire->state == AMQP_WIRE_WAITING) {
        return;
    }
    wire->is_failed = true;
    wire->cause = cause;
    wire->remedy = remedy;
    wire->detail_bytes = detail.bytes < sizeof wire->detail ? detail.bytes : sizeof wire->detail;
    if (wire->detail_bytes > 0) {
        memcpy(wire->detail, detail.data, wire->detail_bytes);
    }
}

void amqp_wire_stop(struct amqp_wire *wire)
{
    wire->is_stopping = wire->state != AMQP_WIRE_DOWN;
}

void amqp_wire_make_last(struct amqp_wire *wire)
{
    wire->is_last = true;
}

/* Where the next attempt goes, and after which wait. */
static uint32_t plan_next_ms(struct amqp_wire *wire)
{
    size_t broker_count = wire->options.brokers->count;
    if (!wire->is_established && wire->address_index + 1 < wire->address_count) {
        wire->address_index++;
        return 0;
    }
    wire->address_count = 0;
    wire->broker_index = (wire->broker_index + 1) % broker_count;
    wire->tried_count++;
    if (!wire->is_established && wire->tried_count < broker_count) {
        return 0;
    }
    wire->tried_count = 0;
    uint64_t random = 0;
    wire->port->random(wire->port->context, &random, sizeof random);
    return backoff_next_ms(&wire->backoff, random);
}

static void log_address(struct amqp_wire *wire, const struct amqp_broker *broker, struct text *text)
{
    text_string(text, broker->host);
    text_char(text, ':');
    text_u64(text, broker->port);
    if (wire->address_index < wire->address_count) {
        char address[PORT_ADDRESS_TEXT_BYTES];
        wire->port->format_address(wire->port->context, &wire->addresses[wire->address_index], address);
        if (!span_is(text_span(text), address)) {
            text_string(text, " (");
            text_string(text, address);
            text_string(text, ")");
        }
    }
}

static void log_failure(struct amqp_wire *wire, size_t broker_index, struct span where, uint32_t retry_ms)
{
    struct span detail = span_of(wire->detail, wire->detail_bytes);
    uint32_t times = repeats_due(&wire->repeats, wire->cause, broker_index, detail);
    if (times == 0) {
        return;
    }
    log_event(wire->log, LOG_WARN, wire->is_established ? "amqp_lost" : "amqp_connect_failed",
              LOG_TEXT("link", wire->options.role), LOG_SPAN("broker", where), LOG_TEXT("stage", wire->stage),
              LOG_TEXT("cause", wire->cause), LOG_SPAN("detail", detail), LOG_TEXT("remedy", wire->remedy),
              LOG_U64("times", times), LOG_U64("retry_ms", retry_ms));
}

/* Carries out a failure or a stop. The handler hears of it once all is settled, so that it may look. */
static void drop(struct amqp_wire *wire)
{
    if (wire->socket != PORT_NONE) {
        wire->port->watch_remove(wire->port->context, wire->socket);
        wire->port->close_socket(wire->port->context, wire->socket);
        wire->socket = PORT_NONE;
    }
    if (wire->is_stopping || wire->is_last) {
        move(wire, AMQP_WIRE_DOWN);
    } else {
        char where_buffer[AMQP_HOST_BYTES_MAX + 80];
        struct text where = text_in(where_buffer, sizeof where_buffer);
        size_t broker_index = wire->broker_index;
        log_address(wire, amqp_wire_broker(wire), &where);
        wire->counters.lost_count += wire->is_established;
        wire->counters.failure_count += !wire->is_established;
        uint32_t retry_ms = plan_next_ms(wire);
        log_failure(wire, broker_index, text_span(&where), retry_ms);
        move(wire, AMQP_WIRE_WAITING);
        wire->due_ms = wire->now_ms + retry_ms;
    }
    wire->is_failed = false;
    wire->is_stopping = false;
    wire->is_established = false;
    wire->in_bytes = 0;
    wire->out_start = 0;
    wire->out_end = 0;
    wire->handler->on_down(wire->context);
}

static void settle(struct amqp_wire *wire)
{
    if (wire->is_failed || wire->is_stopping) {
        drop(wire);
    }
}

static void watch(struct amqp_wire *wire)
{
    uint32_t wanted = wire->state == AMQP_WIRE_CONNECTING ? PORT_WRITE
                      : wire->is_writable                 ? PORT_READ
                                                          : PORT_READ | PORT_WRITE;
    if (wanted != wire->interest) {
        wire->interest = wanted;
        wire->port->watch_change(wire->port->context, wire->socket, wanted);
    }
}

static void opened(struct amqp_wire *wire)
{
    move(wire, AMQP_WIRE_OPEN);
    wire->stage = "waiting for the broker's greeting";
    wire->frame_bytes_max = AMQP_FRAME_BYTES_MAX;
    wire->heartbeat_ms = 0;
    wire->has_spoken = false;
    wire->is_healthy = false;
    wire->is_steady = false;
    wire->is_writable = true;
    wire->received_ms = wire->now_ms;
    wire->sent_ms = wire->now_ms;
    watch(wire);
    uint8_t *at = amqp_wire_reserve(wire, sizeof PROTOCOL_HEADER);
    CHECK(at != NULL); /* the buffer is empty on a new connection */
    memcpy(at, PROTOCOL_HEADER, sizeof PROTOCOL_HEADER);
    amqp_wire_commit(wire, sizeof PROTOCOL_HEADER);
    wire->handler->on_open(wire->context);
}

static void connect_address(struct amqp_wire *wire)
{
    static const char REMEDY[] = "see that RabbitMQ runs there; check host and port in RABBITMQ_URL";
    move(wire, AMQP_WIRE_CONNECTING);
    wire->stage = "connecting";
    wire->due_ms = wire->now_ms + ESTABLISH_MS;
    enum port_result result =
        wire->port->connect(wire->port->context, &wire->addresses[wire->address_index], &wire->socket);
    if (result != PORT_OK && result != PORT_AGAIN) {
        wire->socket = PORT_NONE;
        amqp_wire_fail(wire, "no connection", span_text(port_error(wire)), REMEDY);
        return;
    }
    wire->interest = PORT_WRITE;
    if (wire->port->watch_add(wire->port->context, wire->socket, PORT_WRITE, wire->options.token) != PORT_OK) {
        wire->port->close_socket(wire->port->context, wire->socket);
        wire->socket = PORT_NONE;
        amqp_wire_fail(wire, "the poller takes no more sockets", span_text(port_error(wire)), "lower MAX_CONNECTIONS");
    }
}

static void run_resolve(struct port_job *job)
{
    struct amqp_wire *wire = job->context;
    const struct amqp_broker *broker = &wire->options.brokers->at[wire->job_broker_index];
    wire->job_address_count = wire->port->resolve(wire->port->context, broker->host, broker->port, wire->job_addresses,
                                                  AMQP_WIRE_ADDRESSES_MAX);
    struct text error = text_in(wire->job_error, sizeof wire->job_error - 1);
    if (wire->job_address_count == 0) {
        text_string(&error, port_error(wire));
    }
    wire->job_error[error.used_bytes] = '\0';
}

/* The next attempt: the known address, a numeric host, or a lookup on the worker. */
static void attempt(struct amqp_wire *wire)
{
    const struct amqp_broker *broker = amqp_wire_broker(wire);
    if (wire->address_index < wire->address_count) {
        connect_address(wire);
        return;
    }
    wire->address_index = 0;
    if (wire->port->parse_address(wire->port->context, broker->host, broker->port, &wire->addresses[0])) {
        wire->address_count = 1;
        connect_address(wire);
        return;
    }
    if (!wire->job_is_out) {
        wire->job = (struct port_job){.run = run_resolve, .context = wire, .lane = PORT_LANE_NAMES};
        wire->job_broker_index = wire->broker_index;
        wire->job_is_out = wire->port->submit_job(wire->port->context, &wire->job);
        if (!wire->job_is_out) {
            wire->due_ms = wire->now_ms + RESOLVE_RETRY_MS;
            return;
        }
    }
    move(wire, AMQP_WIRE_RESOLVING);
    wire->stage = "looking the host's name up";
}

bool amqp_wire_on_job(struct amqp_wire *wire, const struct port_job *job, uint64_t now_ms)
{
    if (job != &wire->job) {
        return false;
    }
    wire->now_ms = now_ms;
    wire->job_is_out = false;
    if (wire->state != AMQP_WIRE_RESOLVING) {
        return true; /* stopped meanwhile */
    }
    if (wire->job_broker_index != wire->broker_index) {
        move(wire, AMQP_WIRE_WAITING); /* the answer is that of a start before this one */
        wire->due_ms = now_ms;
    } else if (wire->job_address_count == 0) {
        amqp_wire_fail(wire, "the host's name has no address", span_text(wire->job_error),
                       "check the host in RABBITMQ_URL and this machine's DNS");
    } else {
        memcpy(wire->addresses, wire->job_addresses, sizeof wire->addresses);
        wire->address_count = wire->job_address_count;
        connect_address(wire);
    }
    settle(wire);
    return true;
}

void amqp_wire_start(struct amqp_wire *wire, uint64_t now_ms)
{
    move(wire, AMQP_WIRE_WAITING);
    wire->now_ms = now_ms;
    wire->due_ms = now_ms;
    wire->address_count = 0;
    wire->tried_count = 0;
    wire->is_last = false;
}

/* What a peer that is no AMQP 0-9-1 broker says first. */
static void refuse_greeting(struct amqp_wire *wire)
{
    if (wire->in[0] == 'A') {
        if (wire->in_bytes < sizeof PROTOCOL_HEADER) {
            return;
        }
        char offer[32];
        struct text text = text_in(offer, sizeof offer);
        text_string(&text, "it offers ");
        for (size_t i = 5; i < sizeof PROTOCOL_HEADER; i++) {
            text_u64(&text, wire->in[i]);
            text_string(&text, i < sizeof PROTOCOL_HEADER - 1 ? "-" : "");
        }
        amqp_wire_fail(wire, "the broker refuses AMQP 0-9-1", text_span(&text),
                       "use a RabbitMQ that speaks AMQP 0-9-1, or its port for it");
        return;
    }
    size_t shown = wire->in_bytes < 24 ? wire->in_bytes : 24;
    amqp_wire_fail(wire, "what answers there does not speak AMQP 0-9-1", span_of(wire->in, shown),
                   "check the port in RABBITMQ_URL (RabbitMQ's is 5672, without TLS)");
}

/* Cuts the input into frames. What is left is the beginning of one. */
static void parse(struct amqp_wire *wire)
{
    size_t at = 0;
    if (!wire->has_spoken) {
        if (wire->in[0] != AMQP_METHOD_FRAME) {
            refuse_greeting(wire);
            return;
        }
        wire->has_spoken = true;
    }
    while (!wire->is_failed && !wire->is_stopping && wire->in_bytes - at >= AMQP_FRAME_HEADER_BYTES) {
        const uint8_t *frame = wire->in + at;
        uint16_t channel = (uint16_t)(frame[1] << 8 | frame[2]);
        size_t bytes = (size_t)frame[3] << 24 | (size_t)frame[4] << 16 | (size_t)frame[5] << 8 | (size_t)frame[6];
        size_t bytes_min = frame[0] == AMQP_METHOD_FRAME ? 4 : frame[0] == AMQP_HEADER_FRAME ? 14 : 0;
        bool is_known = frame[0] == AMQP_METHOD_FRAME || frame[0] == AMQP_HEADER_FRAME || frame[0] == AMQP_BODY_FRAME ||
                        frame[0] == AMQP_HEARTBEAT_FRAME;
        if (!is_known || channel > 1 || bytes > wire->frame_bytes_max - AMQP_FRAME_OVERHEAD_BYTES ||
            bytes < bytes_min) {
            amqp_wire_fail(wire, "the broker sent a frame that cannot be", span_of(frame, AMQP_FRAME_HEADER_BYTES),
                           "see what stands between here and the broker");
            return;
        }
        if (wire->in_bytes - at < bytes + AMQP_FRAME_OVERHEAD_BYTES) {
            break;
        }
        if (frame[AMQP_FRAME_HEADER_BYTES + bytes] != AMQP_WIRE_FRAME_END) {
            amqp_wire_fail(wire, "the broker sent a frame without its end", span_of(frame, AMQP_FRAME_HEADER_BYTES),
                           "see what stands between here and the broker");
            return;
        }
        if (frame[0] != AMQP_HEARTBEAT_FRAME) {
            wire->handler->on_frame(wire->context, (enum amqp_frame_type)frame[0], channel,
                                    span_of(frame + AMQP_FRAME_HEADER_BYTES, bytes));
        }
        at += bytes + AMQP_FRAME_OVERHEAD_BYTES;
    }
    wire->in_bytes -= at;
    if (at > 0 && wire->in_bytes > 0) {
        memmove(wire->in, wire->in + at, wire->in_bytes);
    }
}

static void receive(struct amqp_wire *wire)
{
    for (size_t i = 0; i < RECEIVES_MAX && !wire->is_failed && !wire->is_stopping; i++) {
        size_t room = AMQP_WIRE_IN_BYTES - wire->in_bytes;
        size_t received = 0;
        switch (wire->port->receive(wire->port->context, wire->socket, wire->in + wire->in_bytes, room, &received)) {
        case PORT_OK:
            wire->received_ms = wire->now_ms;
            wire->counters.received_bytes += received;
            wire->in_bytes += received;
            parse(wire);
            if (received < room) {
                return;
            }
            break;
        case PORT_AGAIN:
            return;
        case PORT_CLOSED:
            amqp_wire_fail(wire, "the broker closed the connection without a word", span_of(NULL, 0),
                           wire->is_established ? "see the broker's log and the network"
                           : wire->has_spoken   ? "see the broker's log: wrong user, password or vhost, or a shutdown"
                                                : "check the port in RABBITMQ_URL (RabbitMQ's is 5672, without TLS)");
            return;
        case PORT_FAILED:
            amqp_wire_fail(wire, "the connection broke", span_text(port_error(wire)),
                           "see the broker's log and the network");
            return;
        }
    }
}

static void finish_connect(struct amqp_wire *wire)
{
    switch (wire->port->connected(wire->port->context, wire->socket)) {
    case PORT_OK:
        opened(wire);
        break;
    case PORT_AGAIN:
        break;
    case PORT_CLOSED:
    case PORT_FAILED:
        amqp_wire_fail(wire, "no connection", span_text(port_error(wire)),
                       "see that RabbitMQ runs there; check host and port in RABBITMQ_URL");
        break;
    }
}

static void send_out(struct amqp_wire *wire)
{
    size_t waiting = wire->out_end - wire->out_start;
    if (wire->state != AMQP_WIRE_OPEN || waiting == 0 || !wire->is_writable || wire->is_failed) {
        return;
    }
    size_t sent = 0;
    enum port_result result =
        wire->port->send(wire->port->context, wire->socket, wire->out + wire->out_start, waiting, &sent);
    wire->counters.send_count++;
    if (result == PORT_CLOSED || result == PORT_FAILED) {
        /* The peer may have said why before it went: what it said is read first. */
        receive(wire);
        amqp_wire_fail(wire, "the connection broke", span_text(port_error(wire)),
                       "see the broker's log and the network");
        return;
    }
    if (result == PORT_OK) {
        wire->sent_ms = wire->now_ms;
        wire->counters.sent_bytes += sent;
        wire->out_start += sent;
    }
    if (wire->out_start == wire->out_end) {
        wire->out_start = 0;
        wire->out_end = 0;
    }
    wire->is_writable = wire->out_end == 0;
    watch(wire);
}

void amqp_wire_send_now(struct amqp_wire *wire)
{
    size_t sent = 0;
    (void)wire->port->send(wire->port->context, wire->socket, wire->out + wire->out_start,
                           wire->out_end - wire->out_start, &sent);
    wire->out_start += sent;
    wire->counters.sent_bytes += sent;
    wire->counters.send_count++;
}

void amqp_wire_on_event(struct amqp_wire *wire, uint32_t ready, uint64_t now_ms)
{
    wire->now_ms = now_ms;
    if (wire->state == AMQP_WIRE_CONNECTING) {
        finish_connect(wire);
    } else if (wire->state == AMQP_WIRE_OPEN) {
        if (ready & PORT_WRITE) {
            wire->is_writable = true;
        }
        if (ready & (PORT_READ | PORT_HANGUP)) {
            receive(wire);
        }
    }
    send_out(wire);
    settle(wire);
}

void amqp_wire_flush(struct amqp_wire *wire, uint64_t now_ms)
{
    wire->now_ms = now_ms;
    send_out(wire);
    settle(wire);
}

uint8_t *amqp_wire_reserve(struct amqp_wire *wire, size_t bytes)
{
    CHECK(bytes <= wire->options.out_bytes);
    if (wire->options.out_bytes - wire->out_end < bytes && wire->out_start > 0) {
        memmove(wire->out, wire->out + wire->out_start, wire->out_end - wire->out_start);
        wire->out_end -= wire->out_start;
        wire->out_start = 0;
    }
    if (wire->options.out_bytes - wire->out_end < bytes) {
        wire->counters.full_count++;
        return NULL;
    }
    return wire->out + wire->out_end;
}

void amqp_wire_commit(struct amqp_wire *wire, size_t bytes)
{
    wire->out_end += bytes;
    CHECK(wire->out_end <= wire->options.out_bytes);
    size_t waiting = wire->out_end - wire->out_start;
    if (waiting > wire->counters.peak_bytes) {
        wire->counters.peak_bytes = waiting;
    }
}

void amqp_wire_tune(struct amqp_wire *wire, uint32_t frame_bytes_max, uint32_t heartbeat_s)
{
    CHECK(frame_bytes_max >= AMQP_FRAME_BYTES_MIN && frame_bytes_max <= AMQP_FRAME_BYTES_MAX);
    wire->frame_bytes_max = frame_bytes_max;
    wire->heartbeat_ms = heartbeat_s * 1000;
}

void amqp_wire_established(struct amqp_wire *wire)
{
    if (!wire->is_established) {
        wire->is_established = true;
        wire->tried_count = 0;
        wire->connected_count++;
        wire->steady_due_ms = wire->now_ms + STEADY_AFTER_MS;
    }
}

void amqp_wire_healthy(struct amqp_wire *wire)
{
    if (!wire->is_healthy) {
        wire->is_healthy = true;
        backoff_reset(&wire->backoff);
    }
}

/* Silence, heartbeats and deadlines of an open connection. */
static uint64_t tick_open(struct amqp_wire *wire)
{
    uint64_t next = UINT64_MAX;
    if (!wire->is_established) {
        if (wire->now_ms >= wire->due_ms) {
            amqp_wire_fail(wire, "the broker does not answer in time", span_of(NULL, 0),
                           wire->has_spoken ? "see the broker's log and load"
                                            : "check the port in RABBITMQ_URL; see whether the broker hangs");
        }
        next = wire->due_ms;
    } else if (!wire->is_steady) {
        if (wire->now_ms >= wire->steady_due_ms) {
            wire->is_steady = true;
            wire->connected_count = 0;
            wire->repeats = (struct repeats){.next = 0};
            amqp_wire_healthy(wire);
        } else {
            next = wire->steady_due_ms;
        }
    }
    if (wire->heartbeat_ms > 0) {
        uint64_t dead_ms = wire->received_ms + 2 * (uint64_t)wire->heartbeat_ms;
        uint64_t beat_ms = wire->sent_ms + wire->heartbeat_ms / 2;
        if (wire->now_ms >= dead_ms) {
            amqp_wire_fail(wire, "the broker is silent for two heartbeats", span_of(NULL, 0),
                           "see the network, and whether the broker hangs");
        }
        if (wire->now_ms >= beat_ms) {
            /* With bytes still waiting for the socket, a heartbeat behind them would tell nothing more. */
            uint8_t *at = wire->out_start == wire->out_end ? amqp_wire_reserve(wire, sizeof HEARTBEAT) : NULL;
            if (at != NULL) {
                memcpy(at, HEARTBEAT, sizeof HEARTBEAT);
                amqp_wire_commit(wire, sizeof HEARTBEAT);
            }
            wire->sent_ms = wire->now_ms;
            beat_ms = wire->now_ms + wire->heartbeat_ms / 2;
            send_out(wire);
        }
        next = number_smaller(next, number_smaller(dead_ms, beat_ms));
    }
    return next;
}

uint64_t amqp_wire_tick(struct amqp_wire *wire, uint64_t now_ms)
{
    wire->now_ms = now_ms;
    settle(wire); /* what was asked outside of a handler */
    if (wire->state == AMQP_WIRE_WAITING && now_ms >= wire->due_ms) {
        attempt(wire);
        settle(wire);
    }
    uint64_t next = UINT64_MAX;
    switch (wire->state) {
    case AMQP_WIRE_DOWN:
    case AMQP_WIRE_RESOLVING:
        break;
    case AMQP_WIRE_WAITING:
        next = wire->due_ms;
        break;
    case AMQP_WIRE_CONNECTING:
        if (now_ms >= wire->due_ms) {
            amqp_wire_fail(wire, "no answer to the connect", span_of(NULL, 0),
                           "check host and port in RABBITMQ_URL, and firewalls on the way");
        }
        next = wire->due_ms;
        break;
    case AMQP_WIRE_OPEN:
        next = tick_open(wire);
        break;
    }
    if (wire->is_failed || wire->is_stopping) {
        settle(wire);
        next = wire->state == AMQP_WIRE_WAITING ? wire->due_ms : UINT64_MAX;
    }
    return next;
}
