/* SPDX-License-Identifier: MIT */
/* A broker that sends what it likes. The link must tell the same and write the same however its bytes arrive and
 * however few of ours the socket takes; every frame it writes is whole; a channel that was told open is told closed
 * once; nothing is confirmed that was not published. A delivery goes through the processor's intake, and what is wrong
 * with it comes back as a dead letter that the link can write.
 *
 * Input: the cuts; the options; after how many bytes (times 16, 255: never) the link is closed by us; then what the
 * broker sends, behind a good greeting if the options say so. */
#include <string.h>

#include "amqp_headers.h"
#include "amqp_link.h"
#include "amqp_model.h"
#include "amqp_topology.h"
#include "arena.h"
#include "dead_letter.h"
#include "envelope.h"
#include "fuzz.h"
#include "fuzz_port.h"
#include "intake.h"
#include "json.h"
#include "log.h"

enum {
    OPTION_GREETED = 1,
    OPTION_CONFIRMS = 2,
    OPTION_TOPOLOGY = 4,
    OPTION_LARGE_BODY = 8,
    OPTION_DEAD_LETTERS = 16,
    OPTION_ENDS_CLOSED = 32,
    OPTION_ENDS_FAILED = 64,
    OPTION_SLOW_SOCKET = 128
};

enum {
    SOCKET = 7,
    CLOSE_NEVER = 255,
    CLOSE_UNIT_BYTES = 16,
    OUT_BYTES = 96 * 1024,
    BODY_SMALL_BYTES = 40,
    BODY_LARGE_BYTES = 2000,
    STREAM_BYTES_MAX = FUZZ_INPUT_BYTES_MAX + 512,
    SENT_BYTES_MAX = 256 * 1024,
    STEPS = 5
};
#define NOW_MS UINT64_C(1000)

enum noted { CHANNEL, REPLY, CHANNEL_CLOSED, CONFIRM, RETURN, DELIVERY, BLOCKED, DOWN, PART, TAKEN, STATE };

static const struct amqp_step steps[STEPS] = {
    {.kind = AMQP_STEP_EXCHANGE, .exchange = SPAN("postern.downlink"), .exchange_type = "topic"},
    {.kind = AMQP_STEP_QUEUE,
     .queue = {.name = SPAN("q"), .type = "classic", .expires_ms = 1, .overflow = "drop-head"}},
    {.kind = AMQP_STEP_BIND,
     .queue = {.name = SPAN("q")},
     .exchange = SPAN("postern.downlink"),
     .routing_key = SPAN("gateway.gw-1")},
    {.kind = AMQP_STEP_QOS, .prefetch_count = 100},
    {.kind = AMQP_STEP_CONSUME, .queue = {.name = SPAN("q")}, .consumer_tag = SPAN("t")}};

/* What was written to the socket. */
struct sent {
    size_t used_bytes;
    uint8_t bytes[SENT_BYTES_MAX];
};

/* One run over the stream. */
struct talk {
    uint8_t options;
    struct port port;
    struct log log;
    struct amqp_link *link;
    struct amqp_topology topology;
    struct intake intake;
    struct json json;
    struct fuzz_trace *trace;
    struct sent *sent;
    struct span stream;  /* all of it */
    size_t read_bytes;   /* of it, by the model */
    struct span arrived; /* and not received yet */
    bool is_over;        /* nothing will arrive any more */
    bool is_slow;
    bool is_connected; /* the socket is open */
    bool is_open;      /* the channel, as it was told */
    uint64_t published_tag;
};

/* ---- the socket ---- */

static enum port_result begin_connect(void *context, const struct port_address *address, port_socket *socket)
{
    struct talk *talk = context;
    (void)address;
    CHECK(!talk->is_connected);
    talk->is_connected = true;
    *socket = SOCKET;
    return PORT_OK;
}

static enum port_result end_connect(void *context, port_socket socket)
{
    (void)context;
    CHECK(socket == SOCKET);
    return PORT_OK;
}

static enum port_result receive_bytes(void *context, port_socket socket, void *buffer, size_t bytes,
                                      size_t *received_bytes)
{
    struct talk *talk = context;
    CHECK(socket == SOCKET && talk->is_connected && bytes > 0);
    struct span piece = fuzz_take(&talk->arrived, bytes);
    if (piece.bytes > 0) {
        memcpy(buffer, piece.data, piece.bytes);
        *received_bytes = piece.bytes;
        return PORT_OK;
    }
    if (talk->is_over && (talk->options & OPTION_ENDS_CLOSED) != 0) {
        return PORT_CLOSED;
    }
    return talk->is_over && (talk->options & OPTION_ENDS_FAILED) != 0 ? PORT_FAILED : PORT_AGAIN;
}

static enum port_result send_bytes(void *context, port_socket socket, const void *data, size_t bytes,
                                   size_t *sent_bytes)
{
    enum { SLOW_BYTES = 5 };
    struct talk *talk = context;
    struct sent *sent = talk->sent;
    CHECK(socket == SOCKET && talk->is_connected && bytes > 0);
    size_t taken = talk->is_slow && bytes > SLOW_BYTES ? SLOW_BYTES : bytes;
    CHECK(taken <= sizeof sent->bytes - sent->used_bytes);
    memcpy(sent->bytes + sent->used_bytes, data, taken);
    sent->used_bytes += taken;
    *sent_bytes = taken;
    return PORT_OK;
}

static void close_socket(void *context, port_socket socket)
{
    struct talk *talk = context;
    CHECK(socket == SOCKET && talk->is_connected);
    talk->is_connected = false;
}

static enum port_result watch_add(void *context, port_socket socket, uint32_t interest, uint64_t token)
{
    (void)context;
    (void)interest;
    (void)token;
    CHECK(socket == SOCKET);
    return PORT_OK;
}

static void watch_change(void *context, port_socket socket, uint32_t interest)
{
    (void)context;
    (void)interest;
    CHECK(socket == SOCKET);
}

static void watch_remove(void *context, port_socket socket)
{
    watch_change(context, socket, 0);
}

static bool parse_address(void *context, const char *host, uint16_t port, struct port_address *address)
{
    (void)context;
    (void)host;
    *address = (struct port_address){.bytes = {127, 0, 0, 1}, .port = port};
    return true;
}

static void format_address(void *context, const struct port_address *address, char text[PORT_ADDRESS_TEXT_BYTES])
{
    static const char known[] = "127.0.0.1:5672";
    (void)context;
    (void)address;
    memcpy(text, known, sizeof known);
}

/* ---- the owner ---- */

static void publish(struct talk *talk)
{
    const struct amqp_header header = {.name = SPAN("n"), .kind = AMQP_HEADER_INTEGER, .integer = 7};
    const struct amqp_publish message = {.routing_key = SPAN("messages"),
                                         .body = SPAN("{}"),
                                         .message_id = SPAN("dev-7:m1"),
                                         .headers = &header,
                                         .header_count = 1,
                                         .mandatory = true,
                                         .persistent = true};
    uint64_t tag = amqp_link_publish(talk->link, &message);
    CHECK(tag == 0 || tag == talk->published_tag + 1);
    talk->published_tag = tag == 0 ? talk->published_tag : tag;
}

static void begin_work(struct talk *talk)
{
    if ((talk->options & OPTION_CONFIRMS) != 0) {
        publish(talk);
        publish(talk);
    }
}

static void on_channel(void *context)
{
    struct talk *talk = context;
    CHECK(!talk->is_open);
    talk->is_open = true;
    talk->published_tag = 0;
    fuzz_note(talk->trace, CHANNEL, 0, span_of(NULL, 0));
    if ((talk->options & OPTION_TOPOLOGY) != 0) {
        amqp_topology_on_channel(&talk->topology);
    } else {
        begin_work(talk);
    }
}

static void on_reply(void *context, const struct amqp_reply *reply)
{
    struct talk *talk = context;
    CHECK(talk->is_open);
    fuzz_note(talk->trace, REPLY, (uint64_t)reply->kind << 32 ^ reply->message_count ^ reply->consumer_count,
              reply->name);
    if ((talk->options & OPTION_TOPOLOGY) != 0 &&
        amqp_topology_on_reply(&talk->topology, reply) == AMQP_TOPOLOGY_DONE) {
        begin_work(talk);
    }
}

static void on_channel_closed(void *context, uint16_t code, struct span text)
{
    struct talk *talk = context;
    CHECK(talk->is_open);
    talk->is_open = false;
    fuzz_note(talk->trace, CHANNEL_CLOSED, code, text);
    if ((talk->options & OPTION_TOPOLOGY) != 0) {
        (void)amqp_topology_on_channel_closed(&talk->topology, code, text);
    }
}

static void on_confirm(void *context, uint64_t tag, bool multiple, bool is_ack)
{
    struct talk *talk = context;
    CHECK(talk->is_open && tag <= talk->published_tag);
    fuzz_note(talk->trace, CONFIRM, tag << 2 | (multiple ? 2U : 0U) | (is_ack ? 1U : 0U), span_of(NULL, 0));
}

static bool are_headers_equal(const struct amqp_message *message, struct span table)
{
    struct amqp_header header;
    size_t at = 0;
    for (size_t i = 0; i < message->header_count; i++) {
        const struct amqp_header *got = &message->headers[i];
        if (!amqp_model_header(table, &at, &header) || header.kind != got->kind || header.integer != got->integer ||
            !span_equal(header.name, got->name) || !span_equal(header.text, got->text)) {
            return false;
        }
    }
    return message->header_count == AMQP_HEADERS_MAX || !amqp_model_header(table, &at, &header);
}

static bool is_equal(const struct amqp_message *message, const struct amqp_model_message *expected)
{
    return message->tag == expected->tag && message->redelivered == expected->redelivered &&
           message->timestamp_s == expected->timestamp_s && message->body_bytes == expected->body_bytes &&
           span_equal(message->exchange, expected->exchange) &&
           span_equal(message->routing_key, expected->routing_key) &&
           span_equal(message->content_type, expected->content_type) &&
           span_equal(message->correlation_id, expected->correlation_id) &&
           span_equal(message->reply_to, expected->reply_to) && span_equal(message->message_id, expected->message_id) &&
           span_equal(message->type, expected->type) && span_equal(message->app_id, expected->app_id) &&
           span_equal(message->body, span_of(expected->kept, message->body.bytes)) &&
           are_headers_equal(message, expected->headers);
}

/* The message is the model's next one; those that came while nobody listened are passed over. */
static void check_message(struct talk *talk, bool is_return, const struct amqp_message *message)
{
    static struct amqp_model_message expected;
    do {
        CHECK(amqp_model_next(talk->stream, &talk->read_bytes, &expected));
    } while (expected.is_return != is_return || !is_equal(message, &expected));
}

static void note_message(struct talk *talk, enum noted what, const struct amqp_message *message)
{
    const struct span parts[] = {message->exchange,       message->routing_key, message->content_type,
                                 message->correlation_id, message->reply_to,    message->message_id,
                                 message->type,           message->app_id};
    size_t body_bytes_max = (talk->options & OPTION_LARGE_BODY) != 0 ? BODY_LARGE_BYTES : BODY_SMALL_BYTES;
    CHECK(message->oversized == (message->body_bytes > body_bytes_max));
    CHECK(message->body.bytes == (message->oversized ? body_bytes_max : message->body_bytes));
    CHECK(message->header_count <= AMQP_HEADERS_MAX);
    check_message(talk, what == RETURN, message);
    fuzz_note(talk->trace, what, message->tag ^ message->body_bytes << 32, message->body);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        CHECK(parts[i].bytes <= UINT8_MAX);
        fuzz_note(talk->trace, PART, message->timestamp_s, parts[i]);
    }
    for (size_t i = 0; i < message->header_count; i++) {
        const struct amqp_header *header = &message->headers[i];
        fuzz_note(talk->trace, PART, header->kind, header->name);
        fuzz_note(talk->trace, PART, (uint64_t)header->integer, header->text);
    }
}

static void on_return(void *context, uint16_t code, struct span text, const struct amqp_message *message)
{
    struct talk *talk = context;
    CHECK(talk->is_open && message->tag == 0);
    fuzz_note(talk->trace, RETURN, code, text);
    note_message(talk, RETURN, message);
}

/* As the processor does it: what cannot be stored is published where the dead letters are. */
static void take_in(struct talk *talk, const struct amqp_message *message)
{
    struct amqp_header headers[DEAD_LETTER_HEADERS_MAX];
    struct amqp_publish letter;
    struct delivery *delivery = intake_take(&talk->intake, message, &talk->json, NOW_MS);
    CHECK(delivery != NULL); /* an empty intake takes any message */
    fuzz_note(talk->trace, TAKEN, delivery->state, delivery->message_id);
    if (delivery->state == DELIVERY_DEAD) {
        dead_letter_make(delivery, NOW_MS / 1000, &letter, headers);
        letter.routing_key = span_text("messages.dead");
        letter.mandatory = true;
        uint64_t tag = amqp_link_publish(talk->link, &letter);
        talk->published_tag = tag == 0 ? talk->published_tag : tag;
    } else {
        CHECK(client_id_valid(delivery->client_id) && message_type_valid(delivery->type));
        CHECK(delivery->content.bytes > 0 && delivery->message_id.bytes > 0 && delivery->message_id.bytes <= UINT8_MAX);
    }
    intake_pop(&talk->intake);
}

static void on_delivery(void *context, const struct amqp_message *message)
{
    struct talk *talk = context;
    CHECK(talk->is_open);
    note_message(talk, DELIVERY, message);
    if ((talk->options & OPTION_DEAD_LETTERS) != 0) {
        take_in(talk, message);
    }
    (void)amqp_link_ack(talk->link, message->tag, false);
}

static void on_blocked(void *context, bool is_blocked, struct span reason)
{
    struct talk *talk = context;
    CHECK(talk->is_open && amqp_link_blocked(talk->link) == is_blocked);
    fuzz_note(talk->trace, BLOCKED, is_blocked, reason);
}

static void on_down(void *context)
{
    struct talk *talk = context;
    CHECK(talk->is_open);
    talk->is_open = false;
    fuzz_note(talk->trace, DOWN, 0, span_of(NULL, 0));
}

static const struct amqp_link_handler handler = {.on_channel = on_channel,
                                                 .on_reply = on_reply,
                                                 .on_channel_closed = on_channel_closed,
                                                 .on_confirm = on_confirm,
                                                 .on_return = on_return,
                                                 .on_delivery = on_delivery,
                                                 .on_blocked = on_blocked,
                                                 .on_down = on_down};

/* ---- a run ---- */

static void begin_talk(struct talk *talk, uint8_t options, struct fuzz_trace *trace, struct sent *sent)
{
    static _Alignas(ARENA_ALIGN_BYTES) uint8_t memory[512 * 1024];
    static struct arena arena;
    static const struct siphash_key key = {{1, 2}};
    static const struct amqp_brokers brokers = {
        .count = 1, .at = {{.port = 5672, .host = "127.0.0.1", .user = "guest", .password = "guest", .vhost = "/"}}};
    const struct log_options log = {
        .path = "log", .level = LOG_DEBUG, .file_bytes_max = 2 * LOG_LINE_BYTES_MAX, .file_count = 2};
    const struct amqp_link_options link = {.program = "fuzz",
                                           .instance = "one",
                                           .role = "both",
                                           .brokers = &brokers,
                                           .heartbeat_s = 10,
                                           .out_bytes = OUT_BYTES,
                                           .body_bytes_max =
                                               (options & OPTION_LARGE_BODY) != 0 ? BODY_LARGE_BYTES : BODY_SMALL_BYTES,
                                           .confirms = (options & OPTION_CONFIRMS) != 0};
    memset(memory, 0, arena.used_bytes); /* of the run before */
    arena_begin(&arena, memory, sizeof memory);
    fuzz_port_seed = 1;
    *talk = (struct talk){.options = options, .port = fuzz_port(), .trace = trace, .sent = sent};
    talk->port.context = talk;
    talk->port.connect = begin_connect;
    talk->port.connected = end_connect;
    talk->port.receive = receive_bytes;
    talk->port.send = send_bytes;
    talk->port.close_socket = close_socket;
    talk->port.watch_add = watch_add;
    talk->port.watch_change = watch_change;
    talk->port.watch_remove = watch_remove;
    talk->port.parse_address = parse_address;
    talk->port.format_address = format_address;
    fuzz_trace_begin(trace);
    sent->used_bytes = 0;
    log_open(&talk->log, &talk->port, &arena, &log);
    talk->link = amqp_link_init(&arena, &talk->port, &talk->log, &link, &handler, talk);
    amqp_topology_init(&talk->topology, talk->link, &talk->log, steps, STEPS);
    json_init(&talk->json, &arena, BODY_LARGE_BYTES, &key);
    intake_init(&talk->intake, &arena, 1, intake_bytes_min(BODY_LARGE_BYTES), span_text("made-"));
}

static void connect_it(struct talk *talk)
{
    amqp_link_start(talk->link, NOW_MS);
    (void)amqp_link_tick(talk->link, NOW_MS);
    amqp_link_on_event(talk->link, PORT_WRITE, NOW_MS);
    amqp_link_flush(talk->link, NOW_MS);
    CHECK(amqp_link_state(talk->link) == AMQP_LINK_STARTING);
}

/* What waits for a slow socket goes out. */
static void drain(struct talk *talk)
{
    while (talk->is_connected && amqp_link_out_bytes(talk->link) > 0) {
        amqp_link_on_event(talk->link, PORT_WRITE, NOW_MS);
    }
}

static void hear(struct talk *talk, struct span stream, struct fuzz_cuts cuts)
{
    while (stream.bytes > 0 && talk->is_connected) {
        talk->arrived = fuzz_take(&stream, fuzz_cut(&cuts, stream.bytes));
        amqp_link_on_event(talk->link, PORT_READ | PORT_WRITE, NOW_MS);
        CHECK(talk->arrived.bytes == 0 || !talk->is_connected);
        amqp_link_flush(talk->link, NOW_MS);
        (void)amqp_link_tick(talk->link, NOW_MS);
    }
    drain(talk);
}

/* The whole run; true when the link was well to its end. */
static bool run(struct talk *talk, struct span stream, size_t close_at, struct fuzz_cuts cuts)
{
    talk->stream = stream;
    connect_it(talk);
    hear(talk, fuzz_take(&stream, close_at), cuts);
    bool is_closed = stream.bytes > 0 && talk->is_connected;
    if (is_closed) {
        amqp_link_close(talk->link, NOW_MS);
        drain(talk);
        hear(talk, stream, cuts);
    }
    bool is_well = talk->is_connected;
    talk->is_over = true;
    if (talk->is_connected) {
        amqp_link_on_event(talk->link, PORT_READ, NOW_MS);
    }
    enum amqp_link_state state = amqp_link_state(talk->link);
    fuzz_note(talk->trace, STATE, state, span_of(NULL, 0));
    CHECK(talk->is_open || state != AMQP_LINK_READY);
    CHECK(!talk->is_open || state == AMQP_LINK_READY || state == AMQP_LINK_CLOSING);
    if (state != AMQP_LINK_DOWN && state != AMQP_LINK_CLOSING) {
        amqp_link_close(talk->link, NOW_MS);
        drain(talk);
    }
    (void)amqp_link_tick(talk->link, NOW_MS + 60000); /* nobody answers the close */
    CHECK(amqp_link_state(talk->link) == AMQP_LINK_DOWN && !talk->is_open && !talk->is_connected);
    amqp_link_release(talk->link);
    log_close(&talk->log);
    return is_well;
}

/* Whole frames behind the protocol's header. */
static void check_sent(const struct sent *sent)
{
    size_t at = 8;
    CHECK(sent->used_bytes >= 8 && memcmp(sent->bytes, "AMQP\0\0\x09\x01", 8) == 0);
    while (at < sent->used_bytes) {
        const uint8_t *frame = sent->bytes + at;
        CHECK(sent->used_bytes - at >= 8);
        size_t payload_bytes =
            (size_t)frame[3] << 24 | (size_t)frame[4] << 16 | (size_t)frame[5] << 8 | (size_t)frame[6];
        CHECK((frame[0] >= 1 && frame[0] <= 3) || frame[0] == 8);
        CHECK(frame[1] == 0 && frame[2] <= 1 && payload_bytes <= 16384 - 8);
        CHECK(sent->used_bytes - at >= payload_bytes + 8 && frame[payload_bytes + 7] == 0xCE);
        at += payload_bytes + 8;
    }
}

/* ---- the stream ---- */

static void put(uint8_t *stream, size_t *bytes, uint8_t type, uint8_t channel, struct span payload)
{
    const uint8_t head[7] = {type, 0, channel, 0, 0, (uint8_t)(payload.bytes >> 8), (uint8_t)payload.bytes};
    memcpy(stream + *bytes, head, sizeof head);
    memcpy(stream + *bytes + sizeof head, payload.data, payload.bytes);
    *bytes += sizeof head + payload.bytes;
    stream[(*bytes)++] = 0xCE;
}

/* connection.start, tune, open-ok, channel.open-ok and, where it will be asked for, confirm.select-ok. */
static size_t put_greeting(uint8_t *stream, uint8_t options)
{
    static const struct span start = SPAN("\0\12\0\12\0\11\0\0\0\21\7versionS\0\0\0\0043.10\0\0\0\5PLAIN\0\0\0\5en_US");
    static const struct span tune = SPAN("\0\12\0\36\7\377\0\2\0\0\0\74");
    static const struct span open_ok = SPAN("\0\12\0\51\0");
    static const struct span channel_ok = SPAN("\0\24\0\13\0\0\0\0");
    static const struct span confirm_ok = SPAN("\0\125\0\13");
    size_t bytes = 0;
    put(stream, &bytes, 1, 0, start);
    put(stream, &bytes, 1, 0, tune);
    put(stream, &bytes, 1, 0, open_ok);
    put(stream, &bytes, 1, 1, channel_ok);
    if ((options & OPTION_CONFIRMS) != 0) {
        put(stream, &bytes, 1, 1, confirm_ok);
    }
    return bytes;
}

/* Any bytes as a content's properties, and as a table of headers: both are read within what they are given. */
static void check_properties(struct span bytes)
{
    static uint8_t copy[FUZZ_INPUT_BYTES_MAX];
    struct amqp_header headers[AMQP_HEADERS_MAX];
    struct span rest;
    struct span table;
    size_t count;
    struct span given = span_of(fuzz_guarded(bytes), bytes.bytes);
    if (amqp_headers_split(given, copy, &rest, &table)) {
        CHECK(rest.data == copy && rest.bytes + table.bytes <= bytes.bytes);
        CHECK(table.bytes == 0 || table.data == copy + rest.bytes);
    }
    (void)amqp_headers_read(given, headers, &count);
    CHECK(count <= AMQP_HEADERS_MAX);
    for (size_t i = 0; i < count; i++) {
        CHECK(headers[i].name.data + headers[i].name.bytes <= given.data + given.bytes);
        CHECK(headers[i].text.bytes == 0 || headers[i].text.data + headers[i].text.bytes <= given.data + given.bytes);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct talk talk;
    static struct fuzz_trace traces[2];
    static struct sent sents[2];
    static uint8_t stream[STREAM_BYTES_MAX];
    struct span input = fuzz_input(data, bytes);
    struct fuzz_cuts cuts = fuzz_take_cuts(&input);
    uint8_t options = fuzz_byte(&input);
    uint8_t close_at = fuzz_byte(&input);
    check_properties(input);
    size_t greeting_bytes = (options & OPTION_GREETED) != 0 ? put_greeting(stream, options) : 0;
    size_t stream_bytes = greeting_bytes + input.bytes;
    if (input.bytes > 0) {
        memcpy(stream + greeting_bytes, input.data, input.bytes);
    }
    size_t close_bytes = close_at == CLOSE_NEVER ? stream_bytes : greeting_bytes + (size_t)close_at * CLOSE_UNIT_BYTES;

    begin_talk(&talk, options, &traces[0], &sents[0]);
    bool is_well = run(&talk, span_of(stream, stream_bytes), close_bytes, fuzz_whole);
    check_sent(&sents[0]);
    const struct fuzz_cuts ways[] = {fuzz_single, cuts};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        begin_talk(&talk, options, &traces[1], &sents[1]);
        talk.is_slow = i == 1 && (options & OPTION_SLOW_SOCKET) != 0;
        CHECK(run(&talk, span_of(stream, stream_bytes), close_bytes, ways[i]) == is_well);
        fuzz_expect_same(&traces[0], &traces[1]);
        size_t common = sents[0].used_bytes < sents[1].used_bytes ? sents[0].used_bytes : sents[1].used_bytes;
        CHECK(memcmp(sents[0].bytes, sents[1].bytes, common) == 0);
        CHECK(!is_well || sents[0].used_bytes == sents[1].used_bytes); /* a failure drops what waits to be sent */
        if (!talk.is_slow) {
            check_sent(&sents[1]);
        }
    }
    return 0;
}
