/* SPDX-License-Identifier: MIT */
/* The conversation: frames in, frames out. What a client may not say ends the run, because the gateway may not say it.
 */
#include <string.h>

#include "amqp_bytes.h"
#include "world.h"

enum { FRAME_HEAD_BYTES = 7, FRAME_AROUND_BYTES = 8, CHANNEL = 1 };

/* ---- writing ---- */

static void say_frame(struct world *world, struct broker_link *at, uint8_t type, uint16_t channel, struct span payload)
{
    uint8_t head[FRAME_HEAD_BYTES] = {
        type, 0, (uint8_t)channel, 0, 0, (uint8_t)(payload.bytes >> 8), (uint8_t)payload.bytes};
    static const uint8_t end = AMQP_BYTES_END;
    broker_write(world, at, head, sizeof head);
    broker_write(world, at, payload.data, payload.bytes);
    broker_write(world, at, &end, 1);
}

static struct amqp_writer method(uint16_t class_number, uint16_t method_number)
{
    struct amqp_writer writer;
    writer.used = 0;
    amqp_write(&writer, class_number, 2);
    amqp_write(&writer, method_number, 2);
    return writer;
}

static void say(struct world *world, struct broker_link *at, uint16_t channel, const struct amqp_writer *writer)
{
    say_frame(world, at, AMQP_BYTES_METHOD, channel, span_of(writer->bytes, writer->used));
}

/* A method without arguments, or with zeros only. */
static void say_ok(struct world *world, struct broker_link *at, uint16_t channel, uint16_t class_number,
                   uint16_t method_number, size_t zero_bytes)
{
    struct amqp_writer writer = method(class_number, method_number);
    amqp_write(&writer, 0, zero_bytes);
    say(world, at, channel, &writer);
}

void broker_say_ack(struct world *world, struct broker_link *at, uint64_t tag, bool is_multiple, bool is_ack)
{
    struct amqp_writer writer = method(60, is_ack ? 80 : 120);
    amqp_write(&writer, tag, 8);
    amqp_write(&writer, is_multiple, 1);
    say(world, at, CHANNEL, &writer);
}

void broker_say_blocked(struct world *world, struct broker_link *at, bool is_blocked)
{
    struct amqp_writer writer = method(10, is_blocked ? 60 : 61);
    if (is_blocked) {
        amqp_write_short(&writer, span_text("low on memory"));
    }
    say(world, at, 0, &writer);
    if (is_blocked) {
        at->blocked_position = at->out_position;
    } else {
        at->unblocked_position = at->out_position;
    }
}

void broker_say_close(struct world *world, struct broker_link *at)
{
    struct amqp_writer writer = method(10, 50);
    amqp_write(&writer, 320, 2);
    amqp_write_short(&writer, span_text("CONNECTION_FORCED - broker forced connection closure"));
    amqp_write(&writer, 0, 4);
    say(world, at, 0, &writer);
    at->phase = BROKER_CLOSING;
}

void broker_say_channel_close(struct world *world, struct broker_link *at, uint16_t code, const char *text)
{
    struct amqp_writer writer = method(20, 40);
    amqp_write(&writer, code, 2);
    amqp_write_short(&writer, span_text(text));
    amqp_write(&writer, 0, 4);
    say(world, at, CHANNEL, &writer);
    at->has_channel = false;
    at->is_channel_closing = true;
    at->is_consuming = false;
    at->unacked_count = 0;
}

void broker_say_cancel(struct world *world, struct broker_link *at)
{
    struct amqp_writer writer = method(60, 30);
    amqp_write_short(&writer, span_text("downlink"));
    amqp_write(&writer, 1, 1);
    say(world, at, CHANNEL, &writer);
    at->is_consuming = false;
}

void broker_say_heartbeat(struct world *world, struct broker_link *at)
{
    say_frame(world, at, AMQP_BYTES_HEARTBEAT, 0, span_of(NULL, 0));
}

static void say_content(struct world *world, struct broker_link *at, bool is_receipts, struct span body)
{
    struct amqp_writer header = {.used = 0};
    amqp_write(&header, 60, 2);
    amqp_write(&header, 0, 2);
    amqp_write(&header, body.bytes, 8);
    amqp_write(&header, 0x8000 | (is_receipts ? 0x0020 : 0), 2); /* content_type, type */
    amqp_write_short(&header, span_text("application/json"));
    if (is_receipts) {
        amqp_write_short(&header, span_text("receipts"));
    }
    say_frame(world, at, AMQP_BYTES_HEADER, CHANNEL, span_of(header.bytes, header.used));
    while (body.bytes > 0) {
        size_t piece =
            sim_chance(world->sim, SIM_ALWAYS / 4) ? (size_t)sim_between(world->sim, 1, body.bytes) : body.bytes;
        say_frame(world, at, AMQP_BYTES_BODY, CHANNEL, span_of(body.data, piece));
        body = span_of(body.data + piece, body.bytes - piece);
    }
}

void broker_say_return(struct world *world, struct broker_link *at, struct span queue, struct span body)
{
    struct amqp_writer writer = method(60, 50);
    amqp_write(&writer, 312, 2);
    amqp_write_short(&writer, span_text("NO_ROUTE"));
    amqp_write_short(&writer, span_text(""));
    amqp_write_short(&writer, queue);
    say(world, at, CHANNEL, &writer);
    say_content(world, at, false, body);
}

void broker_deliver(struct world *world, struct broker_link *at)
{
    struct broker *broker = &world->broker;
    while (at->is_consuming && at->unacked_count < broker->down_count && at->unacked_count < at->prefetch &&
           at->out_bytes < BROKER_OUT_FULL) {
        const struct broker_down *down = &broker->downs[(broker->down_first + at->unacked_count) % BROKER_DOWN_MAX];
        struct amqp_writer writer = method(60, 60);
        amqp_write_short(&writer, span_text("downlink"));
        amqp_write(&writer, ++at->delivered_tag, 8);
        amqp_write(&writer, 0, 1);
        amqp_write_short(&writer, span_text("postern.downlink"));
        amqp_write_short(&writer, span_text(down->key));
        say(world, at, CHANNEL, &writer);
        say_content(world, at, down->is_receipts, span_of(down->body, down->bytes));
        at->unacked_count++;
    }
}

/* ---- reading ---- */

static void begin_channel(struct broker_link *at)
{
    at->has_channel = true;
    at->confirms = false;
    at->next_tag = 1;
    at->oldest_tag = 1;
    at->way_tag = 1;
    at->is_consuming = false;
    at->delivered_tag = 0;
    at->acked_tag = 0;
    at->unacked_count = 0;
    at->prefetch = 1;
}

static uint32_t find_queue(struct span name)
{
    for (uint32_t i = 0; i < PLAN_QUEUES; i++) {
        if (span_is(name, ledger_queue_name(i))) {
            return i;
        }
    }
    return PLAN_QUEUES;
}

static void on_declare(struct world *world, struct broker_link *at, struct amqp_reader *reader)
{
    struct broker *broker = &world->broker;
    (void)amqp_read(reader, 2);
    struct span name = amqp_read_short(reader);
    uint8_t bits = (uint8_t)amqp_read(reader, 1);
    bool is_passive = (bits & 1) != 0;
    uint32_t queue = find_queue(name);
    bool is_ours = span_is(name, "postern.gateway.gw");
    if ((bits & ~3U) != 0 || (queue == PLAN_QUEUES && !is_ours)) {
        world_fail(world, "the queue %.*s is declared, with the bits %u", (int)name.bytes, (const char *)name.data,
                   bits);
    }
    bool *has = is_ours ? &broker->has_gateway_queue : &broker->has_queue[queue];
    if (is_passive && !*has) {
        broker_say_channel_close(world, at, 404, "NOT_FOUND - no queue in vhost '/'");
        return;
    }
    *has = true;
    struct amqp_writer writer = method(50, 11);
    amqp_write_short(&writer, name);
    amqp_write(&writer, is_ours ? broker->down_count : 0, 4);
    amqp_write(&writer, 0, 4);
    say(world, at, CHANNEL, &writer);
}

static void on_bind(struct world *world, struct broker_link *at, struct amqp_reader *reader, bool is_bind)
{
    struct broker *broker = &world->broker;
    (void)amqp_read(reader, 2);
    struct span queue = amqp_read_short(reader);
    struct span exchange = amqp_read_short(reader);
    struct span key = amqp_read_short(reader);
    if (!span_is(queue, "postern.gateway.gw") || !span_is(exchange, "postern.downlink")) {
        world_fail(world, "a binding of %.*s", (int)queue.bytes, (const char *)queue.data);
    }
    if (!broker->has_gateway_queue && is_bind) {
        broker_say_channel_close(world, at, 404, "NOT_FOUND - no queue in vhost '/'");
        return;
    }
    if (span_is(key, "gateway.gw")) {
        broker->is_gateway_bound = is_bind;
    }
    for (uint32_t i = 0; i < PLAN_CLIENTS_MAX; i++) {
        char name[BROKER_KEY_BYTES];
        (void)snprintf(name, sizeof name, "client.c%u", (unsigned)i);
        if (span_is(key, name)) {
            sim_note(world->sim, is_bind ? "broker: binds" : "broker: unbinds", i, at->link);
            broker->is_bound[i] = is_bind;
        }
    }
    say_ok(world, at, CHANNEL, 50, is_bind ? 21 : 51, 0);
}

static void on_consume(struct world *world, struct broker_link *at, struct amqp_reader *reader)
{
    (void)amqp_read(reader, 2);
    struct span queue = amqp_read_short(reader);
    struct span tag = amqp_read_short(reader);
    if (!span_is(queue, "postern.gateway.gw")) {
        world_fail(world, "%.*s is consumed", (int)queue.bytes, (const char *)queue.data);
    }
    if (!world->broker.has_gateway_queue) {
        broker_say_channel_close(world, at, 404, "NOT_FOUND - no queue in vhost '/'");
        return;
    }
    struct amqp_writer writer = method(60, 21);
    amqp_write_short(&writer, tag);
    say(world, at, CHANNEL, &writer);
    for (size_t i = 0; i < BROKER_LINKS_MAX; i++) { /* one consumer at a time: an older connection is a dead one */
        world->broker.links[i].is_consuming = false;
        world->broker.links[i].unacked_count = 0;
    }
    at->is_consuming = true;
    broker_deliver(world, at);
}

static void on_ack(struct world *world, struct broker_link *at, struct amqp_reader *reader)
{
    struct broker *broker = &world->broker;
    uint64_t tag = amqp_read(reader, 8);
    bool is_multiple = amqp_read(reader, 1) != 0;
    if (tag <= at->acked_tag || tag > at->delivered_tag || !is_multiple) {
        world_fail(world, "a delivery is acknowledged that is not open: %u", (unsigned)tag);
    }
    uint32_t count = (uint32_t)(tag - at->acked_tag);
    at->acked_tag = tag;
    count = count < at->unacked_count ? count : at->unacked_count;
    at->unacked_count -= count;
    broker->down_first = (broker->down_first + count) % BROKER_DOWN_MAX;
    broker->down_count -= count;
    broker_deliver(world, at);
}

static void on_publish(struct world *world, struct broker_link *at, struct span payload)
{
    CHECK(payload.bytes < sizeof at->content_buffer / 2);
    memcpy(at->content_buffer, payload.data, payload.bytes);
    at->content_used = payload.bytes;
    struct amqp_reader reader = {span_of(at->content_buffer + 4, payload.bytes - 4), false};
    (void)amqp_read(&reader, 2);
    struct span exchange = amqp_read_short(&reader);
    at->publish = (struct ledger_publish){.link = at->generation, .known_bytes = at->in_known.at_least};
    at->publish.queue = amqp_read_short(&reader);
    at->publish.is_mandatory = (amqp_read(&reader, 1) & 1) != 0;
    at->content_part = 1;
    if (exchange.bytes != 0 || reader.is_bad || !at->confirms) {
        world_fail(world, "a publish that cannot be");
    }
    bool may_be_over = at->unblocked_position > at->blocked_position && at->in_known.at_most >= at->unblocked_position;
    if (at->blocked_position > 0 && at->in_known.at_least >= at->blocked_position && !may_be_over) {
        world_fail(world, "the gateway publishes although it has read that the broker is in an alarm");
    }
}

static bool on_connection_method(struct world *world, struct broker_link *at, uint16_t number,
                                 struct amqp_reader *reader)
{
    switch (number) {
    case 11: { /* start-ok */
        struct amqp_writer writer = method(10, 30);
        amqp_write(&writer, 2047, 2);
        amqp_write(&writer, sim_chance(world->sim, SIM_ALWAYS / 2) ? 4096 : BROKER_FRAME_MAX, 4);
        amqp_write(&writer, 60, 2);
        say(world, at, 0, &writer);
        at->phase = BROKER_TUNE_OK;
        return true;
    }
    case 31: /* tune-ok */
        (void)amqp_read(reader, 6);
        at->heartbeat_s = (uint32_t)amqp_read(reader, 2);
        broker_beat(world, at);
        at->phase = BROKER_OPEN;
        return true;
    case 40: /* open */
        say_ok(world, at, 0, 10, 41, 1);
        at->phase = BROKER_CONNECTED;
        if (world->broker.is_blocked) {
            broker_say_blocked(world, at, true);
        }
        return true;
    case 50: /* close */
        say_ok(world, at, 0, 10, 51, 0);
        broker_flush(world, at);
        broker_end_link(world, at, false);
        return false;
    case 51: /* close-ok */
        broker_end_link(world, at, false);
        return false;
    default:
        world_fail(world, "connection method %u", number);
    }
}

static void on_channel_method(struct world *world, struct broker_link *at, uint32_t id, struct span payload)
{
    struct amqp_reader reader = {span_of(payload.data + 4, payload.bytes - 4), false};
    switch (id) {
    case AMQP_METHOD_ID(20, 10):
        begin_channel(at);
        say_ok(world, at, CHANNEL, 20, 11, 4);
        break;
    case AMQP_METHOD_ID(20, 41): /* close-ok */
        at->is_channel_closing = false;
        break;
    case AMQP_METHOD_ID(85, 10):
        at->confirms = true;
        say_ok(world, at, CHANNEL, 85, 11, 0);
        break;
    case AMQP_METHOD_ID(40, 10):
        say_ok(world, at, CHANNEL, 40, 11, 0);
        break;
    case AMQP_METHOD_ID(50, 10):
        on_declare(world, at, &reader);
        break;
    case AMQP_METHOD_ID(50, 20):
        on_bind(world, at, &reader, true);
        break;
    case AMQP_METHOD_ID(50, 50):
        on_bind(world, at, &reader, false);
        break;
    case AMQP_METHOD_ID(60, 10):
        (void)amqp_read(&reader, 4);
        at->prefetch = (uint32_t)amqp_read(&reader, 2);
        say_ok(world, at, CHANNEL, 60, 11, 0);
        break;
    case AMQP_METHOD_ID(60, 20):
        on_consume(world, at, &reader);
        break;
    case AMQP_METHOD_ID(60, 40):
        on_publish(world, at, payload);
        break;
    case AMQP_METHOD_ID(60, 80):
        on_ack(world, at, &reader);
        break;
    default:
        world_fail(world, "class %u, method %u", (unsigned)(id >> 16), (unsigned)(id & 0xFFFF));
    }
    if (reader.is_bad) {
        world_fail(world, "a method that is too short: class %u, method %u", (unsigned)(id >> 16),
                   (unsigned)(id & 0xFFFF));
    }
}

static void on_header(struct world *world, struct broker_link *at, struct span payload)
{
    uint8_t *kept = at->content_buffer + at->content_used;
    CHECK(at->content_used + payload.bytes <= sizeof at->content_buffer);
    memcpy(kept, payload.data, payload.bytes);
    struct amqp_reader reader = {span_of(kept, payload.bytes), false};
    (void)amqp_read(&reader, 4);
    at->body_want = (size_t)amqp_read(&reader, 8);
    at->body_bytes = 0;
    uint16_t flags = (uint16_t)amqp_read(&reader, 2);
    at->publish.content_type = (flags & 0x8000) != 0 ? amqp_read_short(&reader) : span_of(NULL, 0);
    at->publish.is_persistent = (flags & 0x1000) != 0 && amqp_read(&reader, 1) == 2;
    at->publish.correlation_id = (flags & 0x0400) != 0 ? amqp_read_short(&reader) : span_of(NULL, 0);
    at->publish.reply_to = (flags & 0x0200) != 0 ? amqp_read_short(&reader) : span_of(NULL, 0);
    at->publish.message_id = (flags & 0x0080) != 0 ? amqp_read_short(&reader) : span_of(NULL, 0);
    at->publish.timestamp_s = (flags & 0x0040) != 0 ? amqp_read(&reader, 8) : 0;
    at->publish.type = (flags & 0x0020) != 0 ? amqp_read_short(&reader) : span_of(NULL, 0);
    at->publish.app_id = (flags & 0x0008) != 0 ? amqp_read_short(&reader) : span_of(NULL, 0);
    if ((flags & 0x6917) != 0 || reader.is_bad || reader.rest.bytes != 0 || at->body_want == 0 ||
        at->body_want > sizeof at->body) {
        world_fail(world, "a message's header that cannot be");
    }
    at->content_part = 2;
}

static void on_body(struct world *world, struct broker_link *at, struct span payload)
{
    if (at->body_bytes + payload.bytes > at->body_want) {
        world_fail(world, "a body that is longer than announced");
    }
    memcpy(at->body + at->body_bytes, payload.data, payload.bytes);
    at->body_bytes += payload.bytes;
    if (at->body_bytes == at->body_want) {
        at->publish.body = span_of(at->body, at->body_bytes);
        at->content_part = 0;
        broker_take(world, at);
    }
}

static bool on_frame(struct world *world, struct broker_link *at, uint8_t type, uint16_t channel, struct span payload)
{
    bool is_on_channel = channel == CHANNEL;
    if (type == AMQP_BYTES_HEARTBEAT) {
        return true;
    }
    if (type == AMQP_BYTES_METHOD && payload.bytes >= 4 && at->content_part == 0) {
        uint32_t id = (uint32_t)payload.data[0] << 24 | (uint32_t)payload.data[1] << 16 |
                      (uint32_t)payload.data[2] << 8 | payload.data[3];
        if (id >> 16 == 10) {
            struct amqp_reader reader = {span_of(payload.data + 4, payload.bytes - 4), false};
            return on_connection_method(world, at, (uint16_t)id, &reader);
        }
        /* What was sent before our close of the channel or the connection was read is passed over. */
        bool is_heard = at->phase == BROKER_CONNECTED && (!at->is_channel_closing || id == AMQP_METHOD_ID(20, 41));
        if (is_heard) {
            on_channel_method(world, at, id, payload);
        }
        return true;
    }
    if (at->phase != BROKER_CONNECTED || at->is_channel_closing) {
        return true;
    }
    if (type == AMQP_BYTES_HEADER && is_on_channel && at->content_part == 1 && payload.bytes >= 14) {
        on_header(world, at, payload);
    } else if (type == AMQP_BYTES_BODY && is_on_channel && at->content_part == 2) {
        on_body(world, at, payload);
    } else {
        world_fail(world, "a frame of type %u that cannot come now", type);
    }
    return true;
}

static void greet(struct world *world, struct broker_link *at)
{
    struct amqp_writer writer = method(10, 10);
    amqp_write(&writer, 0, 1);
    amqp_write(&writer, 9, 1);
    struct amqp_writer table = {.used = 0};
    amqp_write_short(&table, span_text("version"));
    amqp_write(&table, 'S', 1);
    amqp_write_long(&table, span_text("simulated"));
    amqp_write_long(&writer, span_of(table.bytes, table.used));
    amqp_write_long(&writer, span_text("PLAIN AMQPLAIN"));
    amqp_write_long(&writer, span_text("en_US"));
    say(world, at, 0, &writer);
    at->phase = BROKER_START_OK;
}

bool broker_talk(struct world *world, struct broker_link *at)
{
    size_t used = 0;
    if (at->phase == BROKER_HEADER) {
        if (at->in_bytes < 8) {
            return true;
        }
        if (memcmp(at->in, "AMQP\0\0\x09\x01", 8) != 0) {
            world_fail(world, "the protocol header is wrong");
        }
        used = 8;
        greet(world, at);
    }
    while (at->in_bytes - used >= FRAME_AROUND_BYTES) {
        const uint8_t *frame = at->in + used;
        size_t bytes = (size_t)frame[3] << 24 | (size_t)frame[4] << 16 | (size_t)frame[5] << 8 | frame[6];
        if (bytes + FRAME_AROUND_BYTES > BROKER_FRAME_MAX || frame[1] != 0 || frame[2] > CHANNEL) {
            world_fail(world, "a frame of %u bytes on channel %u", (unsigned)bytes, frame[2]);
        }
        if (at->in_bytes - used < bytes + FRAME_AROUND_BYTES) {
            break;
        }
        if (frame[FRAME_HEAD_BYTES + bytes] != AMQP_BYTES_END) {
            world_fail(world, "a frame without its end");
        }
        if (!on_frame(world, at, frame[0], frame[2], span_of(frame + FRAME_HEAD_BYTES, bytes))) {
            return false;
        }
        used += bytes + FRAME_AROUND_BYTES;
        at->in_known = at->piece_known;
    }
    at->in_bytes -= used;
    memmove(at->in, at->in + used, at->in_bytes);
    return true;
}
