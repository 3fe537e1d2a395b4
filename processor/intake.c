/* SPDX-License-Identifier: MIT */
/* One stretch of the byte ring holds all of a delivery: headers (they need alignment, so first), body, properties, and
 * room for the names. The message is parsed in that copy; names are copied out of the parser once more, because it may
 * have decoded them into memory of its own. */
#include "intake.h"

#include "arena.h"
#include "check.h"
#include "envelope.h"
#include "json.h"
#include "jsonb.h"
#include "text.h"
#include "utf8.h"

#define TO(state) (1u << (state))
static const unsigned moves[DELIVERY_STATE_COUNT] = {
    [DELIVERY_PENDING] = TO(DELIVERY_DEAD) | TO(DELIVERY_STORED) | TO(DELIVERY_REJECTED) | TO(DELIVERY_DROPPED),
    [DELIVERY_DEAD] = TO(DELIVERY_HANDED) | TO(DELIVERY_DROPPED),
    [DELIVERY_HANDED] = 0,
    [DELIVERY_STORED] = 0,
    [DELIVERY_REJECTED] = 0,
    [DELIVERY_DROPPED] = 0,
};

void delivery_move(struct delivery *delivery, enum delivery_state state)
{
    CHECK((moves[delivery->state] & TO(state)) != 0);
    delivery->state = state;
}

void delivery_condemn(struct delivery *delivery, const char *code, struct span detail)
{
    delivery_move(delivery, DELIVERY_DEAD);
    delivery->code = code;
    delivery->detail_bytes = detail.bytes < INTAKE_DETAIL_BYTES_MAX ? detail.bytes : INTAKE_DETAIL_BYTES_MAX;
    if (delivery->detail_bytes > 0) {
        memcpy(delivery->detail, detail.data, delivery->detail_bytes);
    }
}

void intake_init(struct intake *intake, struct arena *arena, size_t delivery_max, size_t byte_count, struct span prefix)
{
    CHECK(delivery_max > 0 && prefix.bytes > 0 && prefix.bytes <= INTAKE_PREFIX_BYTES_MAX);
    size_t capacity = 1;
    while (capacity < delivery_max) {
        capacity *= 2;
    }
    intake->deliveries = arena_take(arena, "intake: deliveries", capacity, sizeof *intake->deliveries);
    byte_ring_init(&intake->bytes, arena, "intake: messages", byte_count);
    intake->capacity = capacity;
    intake->delivery_max = delivery_max;
    intake->first = 0;
    intake->end = 0;
    intake->prefix = prefix;
    intake->made_count = 0;
}

/* Properties are AMQP short strings of up to 255 bytes; a header's name too, its text is counted with the body by
 * whoever bounds the frame it stands in. */
enum { PROPERTY_COUNT = 6, SHORT_STRING_BYTES_MAX = 255, HEADER_TEXTS_BYTES_MAX = 16384 };

size_t intake_bytes_min(size_t body_bytes_max)
{
    return body_bytes_max + INTAKE_NAMES_BYTES + (size_t)PROPERTY_COUNT * SHORT_STRING_BYTES_MAX +
           AMQP_HEADERS_MAX * sizeof(struct amqp_header) + HEADER_TEXTS_BYTES_MAX;
}

static size_t message_bytes(const struct amqp_message *message)
{
    size_t bytes = INTAKE_NAMES_BYTES + message->body.bytes + message->content_type.bytes +
                   message->correlation_id.bytes + message->reply_to.bytes + message->message_id.bytes +
                   message->type.bytes + message->app_id.bytes;
    for (size_t i = 0; i < message->header_count; i++) {
        bytes += sizeof(struct amqp_header) + message->headers[i].name.bytes + message->headers[i].text.bytes;
    }
    return bytes;
}

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

static void copy_message(struct delivery *delivery, const struct amqp_message *message, uint8_t **to)
{
    struct amqp_header *const headers = (struct amqp_header *)(void *)*to;
    *to += message->header_count * sizeof *headers;
    for (size_t i = 0; i < message->header_count; i++) {
        headers[i] = message->headers[i];
        headers[i].name = keep(to, message->headers[i].name);
        headers[i].text = keep(to, message->headers[i].text);
    }
    delivery->headers = headers;
    delivery->header_count = message->header_count;
    delivery->body = keep(to, message->body);
    delivery->body_bytes = message->oversized ? message->body_bytes : message->body.bytes;
    delivery->content_type = keep(to, message->content_type);
    delivery->correlation_id = keep(to, message->correlation_id);
    delivery->reply_to = keep(to, message->reply_to);
    delivery->property_id = keep(to, message->message_id);
    delivery->property_type = keep(to, message->type);
    delivery->app_id = keep(to, message->app_id);
    delivery->timestamp_s = message->timestamp_s;
}

/* What the AMQP message_id says beyond "{client_id}:"; nothing when it is no text the database can hold. */
static struct span property_message_id(const struct delivery *delivery)
{
    struct span id = delivery->property_id;
    const size_t client_bytes = delivery->client_id.bytes;
    CHECK(client_bytes > 0);
    if (id.bytes > client_bytes + 1 && id.data[client_bytes] == ':' &&
        memcmp(id.data, delivery->client_id.data, client_bytes) == 0) {
        id = span_of(id.data + client_bytes + 1, id.bytes - client_bytes - 1);
    }
    if (id.bytes == 0 || memchr(id.data, 0, id.bytes) != NULL || !utf8_valid(id)) {
        return span_of(NULL, 0);
    }
    return id;
}

static struct span make_id(struct intake *intake, uint8_t **to)
{
    struct text text = text_in(*to, INTAKE_MADE_ID_BYTES_MAX);
    text_bytes(&text, intake->prefix);
    text_u64(&text, ++intake->made_count);
    CHECK(!text.truncated);
    *to += text.used_bytes;
    return text_span(&text);
}

static void read_message(struct intake *intake, struct delivery *delivery, struct json *json, uint8_t **to)
{
    if (delivery->body_bytes > delivery->body.bytes) {
        delivery_condemn(delivery, "too_large", span_text("the body is longer than any message can be"));
        return;
    }
    struct envelope_body body;
    const enum envelope_error error = envelope_parse_body(json, delivery->body, &body);
    if (error != ENVELOPE_BAD_JSON && error != ENVELOPE_BAD_MESSAGE) {
        delivery->client_id = keep(to, body.client_id);
        delivery->type = keep(to, body.type);
        delivery->client_message_id = keep(to, body.id);
    }
    delivery->message_id = delivery->client_message_id;
    if (delivery->message_id.bytes == 0 && delivery->client_id.bytes > 0) {
        delivery->message_id = property_message_id(delivery);
    }
    if (error != ENVELOPE_OK) {
        char sentence[ENVELOPE_DESCRIPTION_BYTES_MAX];
        struct text text = text_in(sentence, sizeof sentence);
        envelope_describe(&text, error, json);
        delivery_condemn(delivery, envelope_error_code(error), text_span(&text));
        return;
    }
    if (!jsonb_numbers_fit(json, json_member(json, 0, "content"))) {
        delivery_condemn(delivery, "number_out_of_range",
                         span_text("content holds a number that the database cannot hold"));
        return;
    }
    delivery->content = body.content;
    delivery->gateway = keep(to, body.gateway);
    delivery->received_unix_ms = body.received_unix_ms;
    delivery->has_received_at = body.has_received_at;
    if (delivery->message_id.bytes == 0) {
        delivery->message_id = make_id(intake, to);
    }
}

struct delivery *intake_take(struct intake *intake, const struct amqp_message *message, struct json *json,
                             uint64_t now_ms)
{
    if (intake_count(intake) == intake->delivery_max) {
        return NULL;
    }
    uint8_t *to = byte_ring_take(&intake->bytes, message_bytes(message));
    if (to == NULL) {
        return NULL;
    }
    struct delivery *const delivery = &intake->deliveries[intake->end & (intake->capacity - 1)];
    intake->end++;
    memset(delivery, 0, offsetof(struct delivery, detail));
    delivery->detail_bytes = 0;
    delivery->tag = message->tag;
    delivery->mark = intake->bytes.head;
    delivery->came_ms = now_ms;
    delivery->state = DELIVERY_PENDING;
    copy_message(delivery, message, &to);
    read_message(intake, delivery, json, &to);
    return delivery;
}

struct delivery *intake_at(struct intake *intake, uint64_t sequence)
{
    CHECK(sequence >= intake->first && sequence < intake->end);
    return &intake->deliveries[sequence & (intake->capacity - 1)];
}

void intake_pop(struct intake *intake)
{
    byte_ring_release(&intake->bytes, intake_at(intake, intake->first)->mark);
    intake->first++;
}

void intake_cut(struct intake *intake, uint64_t sequence)
{
    CHECK(sequence >= intake->first && sequence <= intake->end);
    if (sequence == intake->end) {
        return;
    }
    intake->end = sequence;
    byte_ring_rewind(&intake->bytes,
                     sequence == intake->first ? intake->bytes.tail : intake_at(intake, sequence - 1)->mark);
}
