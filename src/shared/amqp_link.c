/* SPDX-License-Identifier: MIT */
/* Method: the bytes of AMQP methods and properties, by librabbitmq's encoders and decoders. Nothing else of it is used
 * (its connections block, and hold 280 kB each), and it never sees a frame whose length was not checked before.
 *
 * Methods are encoded straight into the wire's out buffer. What is decoded lies in one of librabbitmq's pools, which is
 * recycled when nothing points into it any more and so allocates a page once; strings point into the frame itself. */
#include <amqp.h>
#include <amqp_framing.h>

#include "amqp_link_inside.h"
#include "arena.h"
#include "check.h"

enum {
    METHOD_BYTES_MAX = 4096, /* of those we write, but for publishes and acks */
    ACK_BYTES_MAX = 32,
    POOL_PAGE_BYTES = 4096,
};

struct amqp_codec {
    amqp_pool_t pool;
};

static amqp_bytes_t bytes_of(struct span span)
{
    return (amqp_bytes_t){span.bytes, (void *)(uintptr_t)span.data};
}

static amqp_bytes_t bytes_text(const char *text)
{
    return bytes_of(span_text(text));
}

static struct span span_bytes(amqp_bytes_t bytes)
{
    return span_of(bytes.bytes, bytes.len);
}

struct amqp_codec *amqp_codec_init(struct arena *arena)
{
    struct amqp_codec *codec = arena_take(arena, "AMQP link, codec", 1, sizeof *codec);
    if (codec != NULL) {
        init_amqp_pool(&codec->pool, POOL_PAGE_BYTES);
    }
    return codec;
}

void amqp_codec_release(struct amqp_codec *codec)
{
    empty_amqp_pool(&codec->pool);
}

void amqp_codec_recycle(struct amqp_codec *codec)
{
    recycle_amqp_pool(&codec->pool);
}

static void put_u16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put_u32(uint8_t *at, uint32_t value)
{
    put_u16(at, (uint16_t)(value >> 16));
    put_u16(at + 2, (uint16_t)value);
}

static size_t put_frame(uint8_t *at, enum amqp_frame_type type, uint16_t channel, size_t payload_bytes)
{
    at[0] = (uint8_t)type;
    put_u16(at + 1, channel);
    put_u32(at + 3, (uint32_t)payload_bytes);
    at[AMQP_FRAME_HEADER_BYTES + payload_bytes] = AMQP_FRAME_END;
    return payload_bytes + AMQP_FRAME_OVERHEAD_BYTES;
}

/* A method frame at `at`, which has room for capacity_bytes; its size. What we encode is of our own making: that it
 * does not fit is a mistake. */
static size_t put_method(uint8_t *at, size_t capacity_bytes, uint16_t channel, amqp_method_number_t id, void *method)
{
    put_u32(at + AMQP_FRAME_HEADER_BYTES, id);
    amqp_bytes_t room = {capacity_bytes - AMQP_FRAME_OVERHEAD_BYTES - 4, at + AMQP_FRAME_HEADER_BYTES + 4};
    int encoded = amqp_encode_method(id, method, room);
    CHECK(encoded >= 0);
    return put_frame(at, AMQP_METHOD_FRAME, channel, (size_t)encoded + 4);
}

static bool write_method(struct amqp_link *link, size_t bytes_max, uint16_t channel, amqp_method_number_t id,
                         void *method)
{
    uint8_t *at = amqp_wire_reserve(&link->wire, bytes_max);
    if (at == NULL) {
        return false;
    }
    amqp_wire_commit(&link->wire, put_method(at, bytes_max, channel, id, method));
    return true;
}

static bool write_on_channel(struct amqp_link *link, amqp_method_number_t id, void *method)
{
    return amqp_link_can_write(link) && write_method(link, METHOD_BYTES_MAX, AMQP_CHANNEL, id, method);
}

static size_t short_string_bytes(struct span span)
{
    CHECK(span.bytes <= AMQP_SHORT_STRING_BYTES_MAX);
    return span.bytes + 1;
}

static void set_property(amqp_basic_properties_t *properties, amqp_bytes_t *field, amqp_flags_t flag, struct span value)
{
    if (value.bytes > 0) {
        CHECK(value.bytes <= AMQP_SHORT_STRING_BYTES_MAX);
        properties->_flags |= flag;
        *field = bytes_of(value);
    }
}

static size_t headers_bytes(const struct amqp_publish *message)
{
    size_t bytes = 4;
    CHECK(message->header_count <= AMQP_HEADERS_MAX);
    for (size_t i = 0; i < message->header_count; i++) {
        const struct amqp_header *header = &message->headers[i];
        bytes += short_string_bytes(header->name) + 1 + (header->kind == AMQP_HEADER_TEXT ? 4 + header->text.bytes : 8);
    }
    CHECK(bytes <= AMQP_PUBLISH_HEADERS_BYTES_MAX);
    return bytes;
}

static void set_headers(amqp_basic_properties_t *properties, amqp_table_entry_t entries[AMQP_HEADERS_MAX],
                        const struct amqp_publish *message)
{
    for (size_t i = 0; i < message->header_count; i++) {
        const struct amqp_header *header = &message->headers[i];
        entries[i].key = bytes_of(header->name);
        switch (header->kind) {
        case AMQP_HEADER_TEXT:
            entries[i].value.kind = AMQP_FIELD_KIND_UTF8;
            entries[i].value.value.bytes = bytes_of(header->text);
            break;
        case AMQP_HEADER_INTEGER:
            entries[i].value.kind = AMQP_FIELD_KIND_I64;
            entries[i].value.value.i64 = header->integer;
            break;
        case AMQP_HEADER_TIMESTAMP:
            entries[i].value.kind = AMQP_FIELD_KIND_TIMESTAMP;
            entries[i].value.value.u64 = (uint64_t)header->integer;
            break;
        }
    }
    properties->_flags |= AMQP_BASIC_HEADERS_FLAG;
    properties->headers = (amqp_table_t){(int)message->header_count, entries};
}

static size_t put_header_frame(uint8_t *at, size_t capacity_bytes, const struct amqp_publish *message)
{
    amqp_table_entry_t entries[AMQP_HEADERS_MAX];
    amqp_basic_properties_t properties;
    properties._flags = 0;
    set_property(&properties, &properties.content_type, AMQP_BASIC_CONTENT_TYPE_FLAG, message->content_type);
    set_property(&properties, &properties.correlation_id, AMQP_BASIC_CORRELATION_ID_FLAG, message->correlation_id);
    set_property(&properties, &properties.reply_to, AMQP_BASIC_REPLY_TO_FLAG, message->reply_to);
    set_property(&properties, &properties.message_id, AMQP_BASIC_MESSAGE_ID_FLAG, message->message_id);
    set_property(&properties, &properties.type, AMQP_BASIC_TYPE_FLAG, message->type);
    set_property(&properties, &properties.app_id, AMQP_BASIC_APP_ID_FLAG, message->app_id);
    if (message->persistent) {
        properties._flags |= AMQP_BASIC_DELIVERY_MODE_FLAG;
        properties.delivery_mode = AMQP_DELIVERY_PERSISTENT;
    }
    if (message->timestamp_s != 0) {
        properties._flags |= AMQP_BASIC_TIMESTAMP_FLAG;
        properties.timestamp = message->timestamp_s;
    }
    if (message->header_count > 0) {
        set_headers(&properties, entries, message);
    }
    uint8_t *payload = at + AMQP_FRAME_HEADER_BYTES;
    put_u32(payload, (uint32_t)AMQP_BASIC_CLASS << 16); /* and a weight of zero */
    put_u32(payload + 4, (uint32_t)((uint64_t)message->body.bytes >> 32));
    put_u32(payload + 8, (uint32_t)message->body.bytes);
    amqp_bytes_t room = {capacity_bytes - AMQP_FRAME_OVERHEAD_BYTES - 12, payload + 12};
    int encoded = amqp_encode_properties(AMQP_BASIC_CLASS, &properties, room);
    CHECK(encoded >= 0);
    return put_frame(at, AMQP_HEADER_FRAME, AMQP_CHANNEL, (size_t)encoded + 12);
}

static size_t put_body_frames(uint8_t *at, size_t chunk_bytes_max, struct span body)
{
    uint8_t *start = at;
    while (body.bytes > 0) {
        size_t chunk = body.bytes < chunk_bytes_max ? body.bytes : chunk_bytes_max;
        memcpy(at + AMQP_FRAME_HEADER_BYTES, body.data, chunk);
        at += put_frame(at, AMQP_BODY_FRAME, AMQP_CHANNEL, chunk);
        body = span_of(body.data + chunk, body.bytes - chunk);
    }
    return (size_t)(at - start);
}

uint64_t amqp_link_publish(struct amqp_link *link, const struct amqp_publish *message)
{
    if (!amqp_link_can_write(link)) {
        return 0;
    }
    size_t method_bytes = AMQP_FRAME_OVERHEAD_BYTES + 4 + 2 + short_string_bytes(message->exchange) +
                          short_string_bytes(message->routing_key) + 1;
    size_t header_bytes = AMQP_FRAME_OVERHEAD_BYTES + 12 + 2 + short_string_bytes(message->content_type) +
                          short_string_bytes(message->correlation_id) + short_string_bytes(message->reply_to) +
                          short_string_bytes(message->message_id) + short_string_bytes(message->type) +
                          short_string_bytes(message->app_id) + 1 + 8 + headers_bytes(message);
    size_t chunk_bytes_max = link->wire.frame_bytes_max - AMQP_FRAME_OVERHEAD_BYTES;
    size_t frames = message->body.bytes / chunk_bytes_max + 1;
    size_t body_bytes = message->body.bytes + frames * AMQP_FRAME_OVERHEAD_BYTES;
    uint8_t *at = amqp_wire_reserve(&link->wire, method_bytes + header_bytes + body_bytes);
    if (at == NULL) {
        return 0;
    }
    amqp_basic_publish_t method = {.ticket = 0,
                                   .exchange = bytes_of(message->exchange),
                                   .routing_key = bytes_of(message->routing_key),
                                   .mandatory = message->mandatory,
                                   .immediate = 0};
    size_t used = put_method(at, method_bytes, AMQP_CHANNEL, AMQP_BASIC_PUBLISH_METHOD, &method);
    used += put_header_frame(at + used, header_bytes, message);
    used += put_body_frames(at + used, chunk_bytes_max, message->body);
    amqp_wire_commit(&link->wire, used);
    link->counters.published_count++;
    return ++link->published_tag;
}

bool amqp_link_ack(struct amqp_link *link, uint64_t tag, bool multiple)
{
    amqp_basic_ack_t method = {.delivery_tag = tag, .multiple = multiple};
    return amqp_link_can_write(link) && write_method(link, ACK_BYTES_MAX, AMQP_CHANNEL, AMQP_BASIC_ACK_METHOD, &method);
}

static amqp_table_entry_t text_entry(const char *key, struct span value)
{
    amqp_table_entry_t entry = {.key = bytes_text(key)};
    entry.value.kind = AMQP_FIELD_KIND_UTF8;
    entry.value.value.bytes = bytes_of(value);
    return entry;
}

static amqp_table_entry_t integer_entry(const char *key, int64_t value)
{
    amqp_table_entry_t entry = {.key = bytes_text(key)};
    entry.value.kind = AMQP_FIELD_KIND_I64;
    entry.value.value.i64 = value;
    return entry;
}

static amqp_table_entry_t true_entry(const char *key)
{
    amqp_table_entry_t entry = {.key = bytes_text(key)};
    entry.value.kind = AMQP_FIELD_KIND_BOOLEAN;
    entry.value.value.boolean = 1;
    return entry;
}

bool amqp_link_queue_declare(struct amqp_link *link, const struct amqp_queue *queue, bool is_passive)
{
    amqp_table_entry_t entries[5];
    int count = 0;
    if (!is_passive && queue->type != NULL) {
        entries[count++] = text_entry("x-queue-type", span_text(queue->type));
    }
    if (!is_passive && queue->expires_ms > 0) {
        entries[count++] = integer_entry("x-expires", queue->expires_ms);
    }
    if (!is_passive && queue->message_ttl_ms > 0) {
        entries[count++] = integer_entry("x-message-ttl", queue->message_ttl_ms);
    }
    if (!is_passive && queue->length_max > 0) {
        entries[count++] = integer_entry("x-max-length", queue->length_max);
    }
    if (!is_passive && queue->overflow != NULL) {
        entries[count++] = text_entry("x-overflow", span_text(queue->overflow));
    }
    amqp_queue_declare_t method = {
        .queue = bytes_of(queue->name), .passive = is_passive, .durable = 1, .arguments = {count, entries}};
    return write_on_channel(link, AMQP_QUEUE_DECLARE_METHOD, &method);
}

bool amqp_link_exchange_declare(struct amqp_link *link, struct span name, const char *type, bool is_passive)
{
    amqp_exchange_declare_t method = {
        .exchange = bytes_of(name), .type = bytes_text(type), .passive = is_passive, .durable = 1};
    return write_on_channel(link, AMQP_EXCHANGE_DECLARE_METHOD, &method);
}

bool amqp_link_queue_bind(struct amqp_link *link, struct span queue, struct span exchange, struct span routing_key)
{
    amqp_queue_bind_t method = {
        .queue = bytes_of(queue), .exchange = bytes_of(exchange), .routing_key = bytes_of(routing_key)};
    return write_on_channel(link, AMQP_QUEUE_BIND_METHOD, &method);
}

bool amqp_link_queue_unbind(struct amqp_link *link, struct span queue, struct span exchange, struct span routing_key)
{
    amqp_queue_unbind_t method = {
        .queue = bytes_of(queue), .exchange = bytes_of(exchange), .routing_key = bytes_of(routing_key)};
    return write_on_channel(link, AMQP_QUEUE_UNBIND_METHOD, &method);
}

bool amqp_link_qos(struct amqp_link *link, uint16_t prefetch_count)
{
    amqp_basic_qos_t method = {.prefetch_count = prefetch_count};
    return write_on_channel(link, AMQP_BASIC_QOS_METHOD, &method);
}

bool amqp_link_consume(struct amqp_link *link, struct span queue, struct span consumer_tag)
{
    amqp_basic_consume_t method = {.queue = bytes_of(queue), .consumer_tag = bytes_of(consumer_tag)};
    return write_on_channel(link, AMQP_BASIC_CONSUME_METHOD, &method);
}

/* ---- the conversation's own methods ---- */

bool amqp_link_write_start_ok(struct amqp_link *link, struct span login, struct span connection_name)
{
    amqp_table_entry_t capabilities[] = {true_entry("authentication_failure_close"), true_entry("connection.blocked"),
                                         true_entry("basic.nack"), true_entry("publisher_confirms"),
                                         true_entry("consumer_cancel_notify")};
    amqp_table_entry_t properties[] = {text_entry("product", span_text(link->options.program)),
                                       text_entry("version", span_text(POSTERN_VERSION)),
                                       text_entry("connection_name", connection_name),
                                       {.key = bytes_text("capabilities")}};
    amqp_field_value_t *table = &properties[3].value;
    table->kind = AMQP_FIELD_KIND_TABLE;
    table->value.table = (amqp_table_t){(int)(sizeof capabilities / sizeof capabilities[0]), capabilities};
    amqp_connection_start_ok_t method = {
        .client_properties = {(int)(sizeof properties / sizeof properties[0]), properties},
        .mechanism = bytes_text("PLAIN"),
        .response = bytes_of(login),
        .locale = bytes_text("en_US")};
    return write_method(link, METHOD_BYTES_MAX, 0, AMQP_CONNECTION_START_OK_METHOD, &method);
}

bool amqp_link_write_tune_ok(struct amqp_link *link, uint32_t frame_bytes_max, uint16_t heartbeat_s)
{
    amqp_connection_tune_ok_t method = {
        .channel_max = AMQP_CHANNEL, .frame_max = frame_bytes_max, .heartbeat = heartbeat_s};
    return write_method(link, METHOD_BYTES_MAX, 0, AMQP_CONNECTION_TUNE_OK_METHOD, &method);
}

bool amqp_link_write_open(struct amqp_link *link, const char *vhost)
{
    amqp_connection_open_t method = {.virtual_host = bytes_text(vhost)};
    return write_method(link, METHOD_BYTES_MAX, 0, AMQP_CONNECTION_OPEN_METHOD, &method);
}

bool amqp_link_write_close(struct amqp_link *link)
{
    amqp_connection_close_t method = {.reply_code = AMQP_REPLY_SUCCESS, .reply_text = bytes_text("goodbye")};
    return write_method(link, METHOD_BYTES_MAX, 0, AMQP_CONNECTION_CLOSE_METHOD, &method);
}

bool amqp_link_write_close_ok(struct amqp_link *link)
{
    amqp_connection_close_ok_t method = {0};
    return write_method(link, METHOD_BYTES_MAX, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &method);
}

bool amqp_link_write_channel_open(struct amqp_link *link)
{
    amqp_channel_open_t method = {.out_of_band = amqp_empty_bytes};
    return write_method(link, METHOD_BYTES_MAX, AMQP_CHANNEL, AMQP_CHANNEL_OPEN_METHOD, &method);
}

bool amqp_link_write_channel_close_ok(struct amqp_link *link)
{
    amqp_channel_close_ok_t method = {0};
    return write_method(link, METHOD_BYTES_MAX, AMQP_CHANNEL, AMQP_CHANNEL_CLOSE_OK_METHOD, &method);
}

bool amqp_link_write_confirm_select(struct amqp_link *link)
{
    amqp_confirm_select_t method = {.nowait = 0};
    return write_method(link, METHOD_BYTES_MAX, AMQP_CHANNEL, AMQP_CONFIRM_SELECT_METHOD, &method);
}

bool amqp_link_write_cancel_ok(struct amqp_link *link, struct span consumer_tag)
{
    amqp_basic_cancel_ok_t method = {.consumer_tag = bytes_of(consumer_tag)};
    return write_method(link, METHOD_BYTES_MAX, AMQP_CHANNEL, AMQP_BASIC_CANCEL_OK_METHOD, &method);
}

/* ---- decoding ---- */

static struct span version_of(const amqp_table_t *properties)
{
    for (int i = 0; i < properties->num_entries; i++) {
        const amqp_table_entry_t *entry = &properties->entries[i];
        if (span_is(span_bytes(entry->key), "version") && entry->value.kind == AMQP_FIELD_KIND_UTF8) {
            return span_bytes(entry->value.value.bytes);
        }
    }
    return span_of(NULL, 0);
}

static void read_connection_method(const void *decoded, struct amqp_method *out)
{
    switch (out->id) {
    case AMQP_CONNECTION_START_METHOD: {
        const amqp_connection_start_t *start = decoded;
        out->kind = AMQP_METHOD_CONNECTION_START;
        out->text = span_bytes(start->mechanisms);
        out->name = version_of(&start->server_properties);
        break;
    }
    case AMQP_CONNECTION_TUNE_METHOD: {
        const amqp_connection_tune_t *tune = decoded;
        out->kind = AMQP_METHOD_CONNECTION_TUNE;
        out->frame_bytes_max = tune->frame_max;
        out->heartbeat_s = tune->heartbeat;
        break;
    }
    case AMQP_CONNECTION_OPEN_OK_METHOD:
        out->kind = AMQP_METHOD_CONNECTION_OPEN_OK;
        break;
    case AMQP_CONNECTION_CLOSE_METHOD: {
        const amqp_connection_close_t *close = decoded;
        out->kind = AMQP_METHOD_CONNECTION_CLOSE;
        out->code = close->reply_code;
        out->text = span_bytes(close->reply_text);
        break;
    }
    case AMQP_CONNECTION_CLOSE_OK_METHOD:
        out->kind = AMQP_METHOD_CONNECTION_CLOSE_OK;
        break;
    case AMQP_CONNECTION_BLOCKED_METHOD: {
        const amqp_connection_blocked_t *blocked = decoded;
        out->kind = AMQP_METHOD_CONNECTION_BLOCKED;
        out->text = span_bytes(blocked->reason);
        break;
    }
    case AMQP_CONNECTION_UNBLOCKED_METHOD:
        out->kind = AMQP_METHOD_CONNECTION_UNBLOCKED;
        break;
    default:
        break;
    }
}

static void read_answer(const void *decoded, struct amqp_method *out)
{
    switch (out->id) {
    case AMQP_CHANNEL_OPEN_OK_METHOD:
        out->kind = AMQP_METHOD_CHANNEL_OPEN_OK;
        break;
    case AMQP_CHANNEL_CLOSE_METHOD: {
        const amqp_channel_close_t *close = decoded;
        out->kind = AMQP_METHOD_CHANNEL_CLOSE;
        out->code = close->reply_code;
        out->text = span_bytes(close->reply_text);
        break;
    }
    case AMQP_CONFIRM_SELECT_OK_METHOD:
        out->kind = AMQP_METHOD_CONFIRM_OK;
        break;
    case AMQP_QUEUE_DECLARE_OK_METHOD: {
        const amqp_queue_declare_ok_t *ok = decoded;
        out->kind = AMQP_METHOD_QUEUE_DECLARE_OK;
        out->name = span_bytes(ok->queue);
        out->message_count = ok->message_count;
        out->consumer_count = ok->consumer_count;
        break;
    }
    case AMQP_EXCHANGE_DECLARE_OK_METHOD:
        out->kind = AMQP_METHOD_EXCHANGE_DECLARE_OK;
        break;
    case AMQP_QUEUE_BIND_OK_METHOD:
        out->kind = AMQP_METHOD_BIND_OK;
        break;
    case AMQP_QUEUE_UNBIND_OK_METHOD:
        out->kind = AMQP_METHOD_UNBIND_OK;
        break;
    case AMQP_BASIC_QOS_OK_METHOD:
        out->kind = AMQP_METHOD_QOS_OK;
        break;
    case AMQP_BASIC_CONSUME_OK_METHOD:
        out->kind = AMQP_METHOD_CONSUME_OK;
        out->name = span_bytes(((const amqp_basic_consume_ok_t *)decoded)->consumer_tag);
        break;
    case AMQP_BASIC_CANCEL_METHOD: {
        const amqp_basic_cancel_t *cancel = decoded;
        out->kind = AMQP_METHOD_CANCEL;
        out->name = span_bytes(cancel->consumer_tag);
        out->nowait = cancel->nowait != 0;
        break;
    }
    default:
        break;
    }
}

/* The methods that come with every message. */
static void read_basic_method(const void *decoded, struct amqp_method *out)
{
    switch (out->id) {
    case AMQP_BASIC_ACK_METHOD: {
        const amqp_basic_ack_t *ack = decoded;
        out->kind = AMQP_METHOD_ACK;
        out->tag = ack->delivery_tag;
        out->multiple = ack->multiple != 0;
        break;
    }
    case AMQP_BASIC_NACK_METHOD: {
        const amqp_basic_nack_t *nack = decoded;
        out->kind = AMQP_METHOD_NACK;
        out->tag = nack->delivery_tag;
        out->multiple = nack->multiple != 0;
        break;
    }
    case AMQP_BASIC_DELIVER_METHOD: {
        const amqp_basic_deliver_t *deliver = decoded;
        out->kind = AMQP_METHOD_DELIVER;
        out->tag = deliver->delivery_tag;
        out->redelivered = deliver->redelivered != 0;
        out->exchange = span_bytes(deliver->exchange);
        out->routing_key = span_bytes(deliver->routing_key);
        break;
    }
    case AMQP_BASIC_RETURN_METHOD: {
        const amqp_basic_return_t *returned = decoded;
        out->kind = AMQP_METHOD_RETURN;
        out->code = returned->reply_code;
        out->text = span_bytes(returned->reply_text);
        out->exchange = span_bytes(returned->exchange);
        out->routing_key = span_bytes(returned->routing_key);
        break;
    }
    default:
        read_answer(decoded, out);
        break;
    }
}

bool amqp_codec_method(struct amqp_codec *codec, struct span payload, struct amqp_method *method)
{
    const uint8_t *data = payload.data;
    method->id = (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
    method->kind = AMQP_METHOD_OTHER;
    void *decoded = NULL;
    if (amqp_decode_method(method->id, &codec->pool, bytes_of(span_of(data + 4, payload.bytes - 4)), &decoded) < 0) {
        return false;
    }
    if (method->id >> 16 == 10) {
        read_connection_method(decoded, method);
    } else {
        read_basic_method(decoded, method);
    }
    return true;
}

static struct span property(const amqp_basic_properties_t *properties, amqp_flags_t flag, amqp_bytes_t value)
{
    return properties->_flags & flag ? span_bytes(value) : span_of(NULL, 0);
}

static void read_properties(struct amqp_message *message, const amqp_basic_properties_t *properties)
{
    message->content_type = property(properties, AMQP_BASIC_CONTENT_TYPE_FLAG, properties->content_type);
    message->correlation_id = property(properties, AMQP_BASIC_CORRELATION_ID_FLAG, properties->correlation_id);
    message->reply_to = property(properties, AMQP_BASIC_REPLY_TO_FLAG, properties->reply_to);
    message->message_id = property(properties, AMQP_BASIC_MESSAGE_ID_FLAG, properties->message_id);
    message->type = property(properties, AMQP_BASIC_TYPE_FLAG, properties->type);
    message->app_id = property(properties, AMQP_BASIC_APP_ID_FLAG, properties->app_id);
    message->timestamp_s = properties->_flags & AMQP_BASIC_TIMESTAMP_FLAG ? properties->timestamp : 0;
}

bool amqp_codec_properties(struct amqp_codec *codec, struct span properties, struct amqp_message *message)
{
    void *decoded = NULL;
    if (amqp_decode_properties(AMQP_BASIC_CLASS, &codec->pool, bytes_of(properties), &decoded) < 0) {
        return false;
    }
    read_properties(message, decoded);
    return true;
}
