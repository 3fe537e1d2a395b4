/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE /* accept4 */
#include "fake_broker.h"

#include <amqp.h>
#include <amqp_framing.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAYLOAD_MAX = 16384 };

static void need(bool condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "fake broker: %s: %s\n", what, strerror(errno));
        abort();
    }
}

void fake_broker_open(struct fake_broker *broker)
{
    memset(broker, 0, sizeof *broker);
    broker->queue_exists = true;
    broker->delivery_type = "receipts";
    broker->frame_max = 131072;
    broker->heartbeat = 60;
    broker->socket = -1;
    broker->publishes = calloc(FAKE_PUBLISHES_MAX, sizeof *broker->publishes);
    broker->out_max = 4 * 1024 * 1024;
    broker->out = malloc(broker->out_max);
    need(broker->publishes != NULL && broker->out != NULL, "memory");
    broker->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    need(broker->listener >= 0 && bind(broker->listener, (struct sockaddr *)&address, sizeof address) == 0 &&
             listen(broker->listener, 8) == 0 &&
             getsockname(broker->listener, (struct sockaddr *)&address, &bytes) == 0,
         "listen");
    broker->port = ntohs(address.sin_port);
}

void fake_broker_drop(struct fake_broker *broker)
{
    if (broker->socket >= 0) {
        close(broker->socket);
        broker->socket = -1;
        if (broker->in_content) {
            free(broker->publishes[broker->publish_count].body);
            broker->publishes[broker->publish_count].body = NULL;
            broker->in_content = false;
        }
        amqp_destroy_connection(broker->codec);
        broker->codec = NULL;
    }
}

void fake_broker_reset(struct fake_broker *broker)
{
    if (broker->socket >= 0) {
        struct linger linger = {.l_onoff = 1, .l_linger = 0};
        setsockopt(broker->socket, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        fake_broker_drop(broker);
    }
}

void fake_broker_end(struct fake_broker *broker)
{
    fake_broker_drop(broker);
    close(broker->listener);
    for (size_t i = 0; i < broker->publish_count; i++) {
        free(broker->publishes[i].body);
    }
    free(broker->publishes);
    free(broker->out);
}

bool fake_broker_connected(const struct fake_broker *broker)
{
    return broker->socket >= 0;
}

/* ---- writing ---- */

void fake_broker_raw(struct fake_broker *broker, const void *bytes, size_t count)
{
    need(broker->out_bytes + count <= broker->out_max, "too much to write");
    memcpy(broker->out + broker->out_bytes, bytes, count);
    broker->out_bytes += count;
}

static void frame(struct fake_broker *broker, uint8_t type, uint16_t channel, const void *payload, size_t bytes)
{
    const uint8_t head[7] = {type,
                             (uint8_t)(channel >> 8),
                             (uint8_t)channel,
                             (uint8_t)(bytes >> 24),
                             (uint8_t)(bytes >> 16),
                             (uint8_t)(bytes >> 8),
                             (uint8_t)bytes};
    const uint8_t end = 0xCE;
    fake_broker_raw(broker, head, sizeof head);
    fake_broker_raw(broker, payload, bytes);
    fake_broker_raw(broker, &end, 1);
}

static void method(struct fake_broker *broker, uint16_t channel, amqp_method_number_t id, void *decoded)
{
    uint8_t payload[PAYLOAD_MAX] = {(uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};
    int encoded = amqp_encode_method(id, decoded, (amqp_bytes_t){sizeof payload - 4, payload + 4});
    need(encoded >= 0, "encode a method");
    frame(broker, AMQP_FRAME_METHOD, channel, payload, (size_t)encoded + 4);
}

static void contents(struct fake_broker *broker, amqp_basic_properties_t *properties, const char *body, size_t bytes,
                     size_t frame_bytes)
{
    uint8_t payload[PAYLOAD_MAX] = {0, 60, 0, 0};
    for (size_t i = 0; i < 8; i++) {
        payload[4 + i] = (uint8_t)((uint64_t)bytes >> (56 - 8 * i));
    }
    int encoded = amqp_encode_properties(60, properties, (amqp_bytes_t){sizeof payload - 12, payload + 12});
    need(encoded >= 0, "encode properties");
    frame(broker, AMQP_FRAME_HEADER, 1, payload, (size_t)encoded + 12);
    for (size_t at = 0; at < bytes; at += frame_bytes) {
        frame(broker, AMQP_FRAME_BODY, 1, body + at, bytes - at < frame_bytes ? bytes - at : frame_bytes);
    }
}

void fake_broker_ack(struct fake_broker *broker, uint64_t tag, bool multiple)
{
    amqp_basic_ack_t ack = {tag, multiple};
    method(broker, 1, AMQP_BASIC_ACK_METHOD, &ack);
}

void fake_broker_nack(struct fake_broker *broker, uint64_t tag, bool multiple)
{
    amqp_basic_nack_t nack = {tag, multiple, 0};
    method(broker, 1, AMQP_BASIC_NACK_METHOD, &nack);
}

static void set(amqp_basic_properties_t *properties, amqp_bytes_t *field, amqp_flags_t flag, const char *text)
{
    properties->_flags |= flag;
    *field = amqp_cstring_bytes(text);
}

void fake_broker_return(struct fake_broker *broker, const struct fake_publish *publish)
{
    amqp_basic_return_t returned = {312, amqp_cstring_bytes("NO_ROUTE"), amqp_cstring_bytes(publish->exchange),
                                    amqp_cstring_bytes(publish->routing_key)};
    method(broker, 1, AMQP_BASIC_RETURN_METHOD, &returned);
    amqp_basic_properties_t properties = {0};
    set(&properties, &properties.message_id, AMQP_BASIC_MESSAGE_ID_FLAG, publish->message_id);
    set(&properties, &properties.correlation_id, AMQP_BASIC_CORRELATION_ID_FLAG, publish->correlation_id);
    contents(broker, &properties, publish->body, publish->got_bytes, 4000);
}

void fake_broker_deliver(struct fake_broker *broker, uint64_t tag, const char *routing_key, const void *body,
                         size_t body_bytes, size_t frame_bytes)
{
    amqp_basic_deliver_t deliver = {amqp_cstring_bytes("tag"), tag, 1, amqp_cstring_bytes("postern.downlink"),
                                    amqp_cstring_bytes(routing_key)};
    method(broker, 1, AMQP_BASIC_DELIVER_METHOD, &deliver);
    amqp_table_entry_t inner = {.key = amqp_cstring_bytes("x"), .value = {.kind = AMQP_FIELD_KIND_VOID}};
    amqp_table_entry_t headers[4] = {{.key = amqp_cstring_bytes("reason")},
                                     {.key = amqp_cstring_bytes("count")},
                                     {.key = amqp_cstring_bytes("first-failure")},
                                     {.key = amqp_cstring_bytes("odd")}};
    headers[0].value.kind = AMQP_FIELD_KIND_UTF8;
    headers[0].value.value.bytes = amqp_cstring_bytes("bad \"json\"");
    headers[1].value.kind = AMQP_FIELD_KIND_I32;
    headers[1].value.value.i32 = -7;
    headers[2].value.kind = AMQP_FIELD_KIND_TIMESTAMP;
    headers[2].value.value.u64 = 1795449192;
    headers[3].value.kind = AMQP_FIELD_KIND_TABLE;
    headers[3].value.value.table = (amqp_table_t){1, &inner};
    amqp_basic_properties_t properties = {0};
    set(&properties, &properties.content_type, AMQP_BASIC_CONTENT_TYPE_FLAG, "application/json");
    set(&properties, &properties.correlation_id, AMQP_BASIC_CORRELATION_ID_FLAG, "ref-1");
    set(&properties, &properties.reply_to, AMQP_BASIC_REPLY_TO_FLAG, "gateway.gw-1");
    set(&properties, &properties.message_id, AMQP_BASIC_MESSAGE_ID_FLAG, "dev-7:m1");
    set(&properties, &properties.type, AMQP_BASIC_TYPE_FLAG, broker->delivery_type);
    set(&properties, &properties.app_id, AMQP_BASIC_APP_ID_FLAG, "postern");
    properties._flags |= AMQP_BASIC_TIMESTAMP_FLAG | AMQP_BASIC_HEADERS_FLAG;
    properties.timestamp = 1795449000;
    properties.headers = (amqp_table_t){4, headers};
    contents(broker, &properties, body, body_bytes, frame_bytes);
}

void fake_broker_blocked(struct fake_broker *broker, bool is_blocked)
{
    amqp_connection_blocked_t blocked = {amqp_cstring_bytes("low on memory")};
    amqp_connection_unblocked_t unblocked = {0};
    method(broker, 0, is_blocked ? AMQP_CONNECTION_BLOCKED_METHOD : AMQP_CONNECTION_UNBLOCKED_METHOD,
           is_blocked ? (void *)&blocked : (void *)&unblocked);
}

void fake_broker_close_channel(struct fake_broker *broker, uint16_t code, const char *text)
{
    amqp_channel_close_t close_method = {code, amqp_cstring_bytes(text), 0, 0};
    method(broker, 1, AMQP_CHANNEL_CLOSE_METHOD, &close_method);
}

void fake_broker_close_connection(struct fake_broker *broker, uint16_t code, const char *text)
{
    amqp_connection_close_t close_method = {code, amqp_cstring_bytes(text), 0, 0};
    method(broker, 0, AMQP_CONNECTION_CLOSE_METHOD, &close_method);
}

void fake_broker_cancel(struct fake_broker *broker, const char *consumer_tag)
{
    amqp_basic_cancel_t cancel = {amqp_cstring_bytes(consumer_tag), 1};
    method(broker, 1, AMQP_BASIC_CANCEL_METHOD, &cancel);
}

/* ---- reading ---- */

static void keep(char text[256], amqp_bytes_t bytes)
{
    size_t count = bytes.len < 255 ? bytes.len : 255;
    if (count > 0) {
        memcpy(text, bytes.bytes, count);
    }
    text[count] = '\0';
}

static void greet(struct fake_broker *broker)
{
    amqp_table_entry_t version = {.key = amqp_cstring_bytes("version")};
    version.value.kind = AMQP_FIELD_KIND_UTF8;
    version.value.value.bytes = amqp_cstring_bytes("fake");
    amqp_connection_start_t start = {
        0, 9, {1, &version}, amqp_cstring_bytes("AMQPLAIN PLAIN"), amqp_cstring_bytes("en_US")};
    if (broker->greeting != NULL) {
        fake_broker_raw(broker, broker->greeting, broker->greeting_bytes);
    } else {
        method(broker, 0, AMQP_CONNECTION_START_METHOD, &start);
    }
}

static void on_start_ok(struct fake_broker *broker, const amqp_connection_start_ok_t *ok)
{
    for (int i = 0; i < ok->client_properties.num_entries; i++) {
        const amqp_table_entry_t *entry = &ok->client_properties.entries[i];
        if (entry->key.len == 15 && memcmp(entry->key.bytes, "connection_name", 15) == 0) {
            keep(broker->connection_name, entry->value.value.bytes);
        }
    }
    amqp_connection_tune_t tune = {2047, broker->frame_max, broker->heartbeat};
    if (broker->login_code != 0) {
        fake_broker_close_connection(broker, broker->login_code, "ACCESS_REFUSED - Login was refused");
    } else {
        method(broker, 0, AMQP_CONNECTION_TUNE_METHOD, &tune);
    }
}

static void on_declare(struct fake_broker *broker, const amqp_queue_declare_t *declare)
{
    amqp_queue_declare_ok_t ok = {declare->queue, 3, 1};
    if (declare->passive) {
        broker->passive_count++;
        if (!broker->queue_exists) {
            fake_broker_close_channel(broker, 404, "NOT_FOUND - no queue");
            return;
        }
    } else {
        broker->create_count++;
        for (int i = 0; i < declare->arguments.num_entries; i++) {
            const amqp_table_entry_t *entry = &declare->arguments.entries[i];
            if (entry->key.len == 12 && memcmp(entry->key.bytes, "x-queue-type", 12) == 0) {
                snprintf(broker->created_type, sizeof broker->created_type, "%.*s", (int)entry->value.value.bytes.len,
                         (const char *)entry->value.value.bytes.bytes);
            }
        }
        if (broker->create_code != 0) {
            fake_broker_close_channel(broker, broker->create_code, "PRECONDITION_FAILED - inequivalent arg");
            broker->queue_exists = broker->create_code == 406;
            return;
        }
        broker->queue_exists = true;
    }
    method(broker, 1, AMQP_QUEUE_DECLARE_OK_METHOD, &ok);
}

static void on_method(struct fake_broker *broker, uint16_t channel, amqp_method_number_t id, void *decoded)
{
    union {
        amqp_connection_open_ok_t open;
        amqp_connection_close_ok_t close;
        amqp_channel_open_ok_t channel;
        amqp_channel_close_ok_t channel_close;
        amqp_confirm_select_ok_t confirm;
        amqp_exchange_declare_ok_t exchange;
        amqp_queue_bind_ok_t bind;
        amqp_queue_unbind_ok_t unbind;
        amqp_basic_qos_ok_t qos;
        amqp_basic_consume_ok_t consume;
    } ok = {{{0, NULL}}};
    (void)channel;
    switch (id) {
    case AMQP_CONNECTION_START_OK_METHOD:
        on_start_ok(broker, decoded);
        break;
    case AMQP_CONNECTION_TUNE_OK_METHOD: {
        const amqp_connection_tune_ok_t *tune = decoded;
        broker->agreed_heartbeat = tune->heartbeat;
        broker->agreed_frame_max = tune->frame_max;
        break;
    }
    case AMQP_CONNECTION_OPEN_METHOD:
        if (broker->vhost_code != 0) {
            fake_broker_close_connection(broker, broker->vhost_code, "NOT_ALLOWED - vhost nope not found");
        } else {
            method(broker, 0, AMQP_CONNECTION_OPEN_OK_METHOD, &ok);
        }
        break;
    case AMQP_CONNECTION_CLOSE_METHOD:
        broker->close_count++;
        method(broker, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &ok);
        break;
    case AMQP_CHANNEL_OPEN_METHOD:
        broker->channel_count++;
        broker->next_tag = 1;
        method(broker, 1, AMQP_CHANNEL_OPEN_OK_METHOD, &ok);
        break;
    case AMQP_CONFIRM_SELECT_METHOD:
        method(broker, 1, AMQP_CONFIRM_SELECT_OK_METHOD, &ok);
        break;
    case AMQP_QUEUE_DECLARE_METHOD:
        on_declare(broker, decoded);
        break;
    case AMQP_EXCHANGE_DECLARE_METHOD:
        method(broker, 1, AMQP_EXCHANGE_DECLARE_OK_METHOD, &ok);
        break;
    case AMQP_QUEUE_BIND_METHOD:
        broker->bind_count++;
        method(broker, 1, AMQP_QUEUE_BIND_OK_METHOD, &ok);
        break;
    case AMQP_QUEUE_UNBIND_METHOD:
        broker->unbind_count++;
        method(broker, 1, AMQP_QUEUE_UNBIND_OK_METHOD, &ok);
        break;
    case AMQP_BASIC_QOS_METHOD:
        broker->prefetch = ((amqp_basic_qos_t *)decoded)->prefetch_count;
        method(broker, 1, AMQP_BASIC_QOS_OK_METHOD, &ok);
        break;
    case AMQP_BASIC_CONSUME_METHOD:
        broker->consume_count++;
        if (broker->consume_code != 0) {
            fake_broker_close_channel(broker, broker->consume_code, "ACCESS_REFUSED - no read access");
            break;
        }
        ok.consume.consumer_tag = ((amqp_basic_consume_t *)decoded)->consumer_tag;
        method(broker, 1, AMQP_BASIC_CONSUME_OK_METHOD, &ok);
        break;
    case AMQP_BASIC_ACK_METHOD:
        broker->acked_tag = ((amqp_basic_ack_t *)decoded)->delivery_tag;
        broker->acked_multiple = ((amqp_basic_ack_t *)decoded)->multiple != 0;
        break;
    case AMQP_BASIC_PUBLISH_METHOD: {
        const amqp_basic_publish_t *publish = decoded;
        need(broker->publish_count < FAKE_PUBLISHES_MAX, "too many publishes");
        struct fake_publish *kept = &broker->publishes[broker->publish_count];
        memset(kept, 0, sizeof *kept);
        keep(kept->exchange, publish->exchange);
        keep(kept->routing_key, publish->routing_key);
        kept->is_mandatory = publish->mandatory != 0;
        kept->tag = broker->next_tag++;
        broker->in_content = true;
        break;
    }
    default:
        break;
    }
}

static void finish_publish(struct fake_broker *broker)
{
    struct fake_publish *publish = &broker->publishes[broker->publish_count];
    if (publish->got_bytes == publish->body_bytes) {
        broker->publish_count++;
        broker->in_content = false;
        if (broker->acks) {
            fake_broker_ack(broker, publish->tag, false);
        }
    }
}

static void on_properties(struct fake_broker *broker, uint64_t body_bytes, const amqp_basic_properties_t *properties)
{
    struct fake_publish *publish = &broker->publishes[broker->publish_count];
    /* What has no flag was not sent, and is not set. */
    amqp_flags_t flags = properties->_flags;
    keep(publish->message_id, flags & AMQP_BASIC_MESSAGE_ID_FLAG ? properties->message_id : amqp_empty_bytes);
    keep(publish->correlation_id,
         flags & AMQP_BASIC_CORRELATION_ID_FLAG ? properties->correlation_id : amqp_empty_bytes);
    keep(publish->reply_to, flags & AMQP_BASIC_REPLY_TO_FLAG ? properties->reply_to : amqp_empty_bytes);
    keep(publish->type, flags & AMQP_BASIC_TYPE_FLAG ? properties->type : amqp_empty_bytes);
    keep(publish->app_id, flags & AMQP_BASIC_APP_ID_FLAG ? properties->app_id : amqp_empty_bytes);
    keep(publish->content_type, flags & AMQP_BASIC_CONTENT_TYPE_FLAG ? properties->content_type : amqp_empty_bytes);
    publish->timestamp_s = flags & AMQP_BASIC_TIMESTAMP_FLAG ? properties->timestamp : 0;
    publish->is_persistent = flags & AMQP_BASIC_DELIVERY_MODE_FLAG && properties->delivery_mode == 2;
    publish->body_bytes = body_bytes;
    publish->body = malloc(body_bytes + 1);
    need(publish->body != NULL, "memory");
    publish->body[0] = '\0';
    finish_publish(broker);
}

static void on_body(struct fake_broker *broker, amqp_bytes_t fragment)
{
    struct fake_publish *publish = &broker->publishes[broker->publish_count];
    need(publish->got_bytes + fragment.len <= publish->body_bytes, "a body longer than announced");
    memcpy(publish->body + publish->got_bytes, fragment.bytes, fragment.len);
    publish->got_bytes += fragment.len;
    publish->body[publish->got_bytes] = '\0';
    publish->frame_count++;
    finish_publish(broker);
}

static void on_bytes(struct fake_broker *broker, uint8_t *bytes, size_t count)
{
    while (count > 0 && broker->header_bytes < 8) {
        need(*bytes == (uint8_t) "AMQP\0\0\x09\x01"[broker->header_bytes], "the protocol header");
        broker->header_bytes++;
        bytes++;
        count--;
        if (broker->header_bytes == 8 && !broker->is_silent) {
            greet(broker);
        }
    }
    while (count > 0) {
        amqp_frame_t decoded;
        int used = amqp_handle_input(broker->codec, (amqp_bytes_t){count, bytes}, &decoded);
        need(used >= 0, "the client sent a frame that librabbitmq cannot read");
        bytes += used;
        count -= (size_t)used;
        if (decoded.frame_type == AMQP_FRAME_METHOD) {
            on_method(broker, decoded.channel, decoded.payload.method.id, decoded.payload.method.decoded);
        } else if (decoded.frame_type == AMQP_FRAME_HEADER) {
            on_properties(broker, decoded.payload.properties.body_size, decoded.payload.properties.decoded);
        } else if (decoded.frame_type == AMQP_FRAME_BODY) {
            size_t frame_bytes = decoded.payload.body_fragment.len + 8;
            broker->frame_bytes_peak = frame_bytes > broker->frame_bytes_peak ? frame_bytes : broker->frame_bytes_peak;
            on_body(broker, decoded.payload.body_fragment);
        } else if (decoded.frame_type == AMQP_FRAME_HEARTBEAT) {
            broker->heartbeat_count++;
        }
        if (decoded.frame_type != 0 && !broker->in_content) {
            amqp_maybe_release_buffers(broker->codec);
        }
    }
}

/* True: something was written. */
static bool flush(struct fake_broker *broker)
{
    size_t before = broker->written_bytes;
    size_t count = broker->out_bytes;
    if (broker->chunk_bytes != 0 && count > broker->chunk_bytes) {
        count = broker->chunk_bytes;
    }
    if (broker->reset_at_bytes != 0 && broker->written_bytes + count > broker->reset_at_bytes) {
        count = broker->reset_at_bytes - broker->written_bytes;
    }
    if (count > 0) {
        ssize_t sent = send(broker->socket, broker->out, count, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) {
            fake_broker_drop(broker);
            return true;
        }
        size_t gone = sent < 0 ? 0 : (size_t)sent;
        memmove(broker->out, broker->out + gone, broker->out_bytes - gone);
        broker->out_bytes -= gone;
        broker->written_bytes += gone;
    }
    if (broker->reset_at_bytes != 0 && broker->written_bytes >= broker->reset_at_bytes) {
        fake_broker_reset(broker);
        return true;
    }
    return broker->written_bytes > before;
}

bool fake_broker_step(struct fake_broker *broker)
{
    bool is_busy = false;
    if (broker->is_deaf) {
        return false;
    }
    if (broker->socket < 0) {
        broker->socket = accept4(broker->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (broker->socket >= 0) {
            int one = 1;
            setsockopt(broker->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            broker->codec = amqp_new_connection();
            broker->connection_count++;
            is_busy = true;
            broker->header_bytes = 0;
            broker->out_bytes = 0;
            broker->written_bytes = 0;
            broker->in_content = false;
        }
    }
    if (broker->socket < 0) {
        return false;
    }
    static uint8_t buffer[65536];
    for (size_t i = 0; i < 64; i++) {
        ssize_t got = recv(broker->socket, buffer, sizeof buffer, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN)) {
            fake_broker_drop(broker);
            return true;
        }
        if (got < 0) {
            break;
        }
        is_busy = true;
        on_bytes(broker, buffer, (size_t)got);
    }
    return flush(broker) || is_busy;
}
