/* SPDX-License-Identifier: MIT */
#include "amqp_model.h"

#include <string.h>

enum { FRAME_METHOD = 1, FRAME_HEADER = 2, FRAME_BODY = 3, FRAME_HEAD_BYTES = 7, FRAME_END = 0xCE };
enum { DELIVER = 60 << 16 | 60, RETURN = 60 << 16 | 50, CHANNEL_CLOSE = 20 << 16 | 40 };

/* What is left to be read; bad once it was asked for more. */
struct rest {
    struct span bytes;
    bool is_bad;
};

static struct span take(struct rest *rest, size_t bytes)
{
    rest->is_bad = rest->is_bad || bytes > rest->bytes.bytes;
    return rest->is_bad ? span_of(NULL, 0) : fuzz_take(&rest->bytes, bytes);
}

static uint64_t take_number(struct rest *rest, size_t bytes)
{
    struct span taken = take(rest, bytes);
    uint64_t number = 0;
    for (size_t i = 0; i < taken.bytes; i++) {
        number = number * 256 + taken.data[i];
    }
    return number;
}

static struct span take_short(struct rest *rest)
{
    return take(rest, (size_t)take_number(rest, 1));
}

/* ---- frames ---- */

struct model_frame {
    unsigned type;
    struct rest payload;
};

static bool next_frame(struct span stream, size_t *at, struct model_frame *frame)
{
    struct rest rest = {span_of(stream.data + *at, stream.bytes - *at), false};
    frame->type = (unsigned)take_number(&rest, 1);
    (void)take_number(&rest, 2);
    frame->payload = (struct rest){take(&rest, (size_t)take_number(&rest, 4)), false};
    bool is_whole = take_number(&rest, 1) == FRAME_END && !rest.is_bad;
    *at = is_whole ? stream.bytes - rest.bytes.bytes : stream.bytes;
    return is_whole;
}

/* ---- a message's parts ---- */

static bool read_method(struct rest payload, struct amqp_model_message *message)
{
    uint64_t id = take_number(&payload, 4);
    message->is_return = id == RETURN;
    message->tag = 0;
    message->redelivered = false;
    message->text = span_of(NULL, 0);
    if (id == DELIVER) {
        (void)take_short(&payload); /* the consumer's tag */
        message->tag = take_number(&payload, 8);
        message->redelivered = take_number(&payload, 1) % 2 != 0;
    } else if (id == RETURN) {
        message->code = (uint16_t)take_number(&payload, 2);
        message->text = take_short(&payload);
    }
    message->exchange = take_short(&payload);
    message->routing_key = take_short(&payload);
    return !payload.is_bad;
}

static struct span property(struct rest *payload, uint64_t flags, unsigned flag)
{
    return (flags & flag) != 0 ? take_short(payload) : span_of(NULL, 0);
}

static bool read_properties(struct rest payload, struct amqp_model_message *message)
{
    (void)take_number(&payload, 4); /* class and weight */
    message->body_bytes = take_number(&payload, 8);
    uint64_t flags = take_number(&payload, 2);
    message->content_type = property(&payload, flags, 0x8000);
    (void)property(&payload, flags, 0x4000);
    size_t table_bytes = (flags & 0x2000) != 0 ? (size_t)take_number(&payload, 4) : 0;
    message->headers = take(&payload, table_bytes);
    (void)take(&payload, ((flags & 0x1000) != 0 ? 1U : 0U) + ((flags & 0x0800) != 0 ? 1U : 0U));
    message->correlation_id = property(&payload, flags, 0x0400);
    message->reply_to = property(&payload, flags, 0x0200);
    (void)property(&payload, flags, 0x0100);
    message->message_id = property(&payload, flags, 0x0080);
    message->timestamp_s = (flags & 0x0040) != 0 ? take_number(&payload, 8) : 0;
    message->type = property(&payload, flags, 0x0020);
    (void)property(&payload, flags, 0x0010);
    message->app_id = property(&payload, flags, 0x0008);
    message->kept_bytes = 0;
    return !payload.is_bad;
}

static bool keep_body(struct span body, struct amqp_model_message *message)
{
    if (body.bytes > message->body_bytes - message->kept_bytes) {
        return false;
    }
    CHECK(body.bytes <= sizeof message->kept - message->kept_bytes);
    if (body.bytes > 0) {
        memcpy(message->kept + message->kept_bytes, body.data, body.bytes);
    }
    message->kept_bytes += body.bytes;
    return true;
}

bool amqp_model_next(struct span stream, size_t *at, struct amqp_model_message *message)
{
    enum { NOTHING, METHOD_READ, HEADER_READ } state = NOTHING;
    struct model_frame frame;
    while (next_frame(stream, at, &frame)) {
        struct rest id_of = frame.payload;
        uint64_t id = frame.type == FRAME_METHOD ? take_number(&id_of, 4) : 0;
        if (id == DELIVER || id == RETURN) {
            state = read_method(frame.payload, message) ? METHOD_READ : NOTHING;
        } else if (id == CHANNEL_CLOSE) {
            state = NOTHING;
        } else if (frame.type == FRAME_HEADER && state == METHOD_READ) {
            state = read_properties(frame.payload, message) ? HEADER_READ : NOTHING;
        } else if (frame.type == FRAME_BODY && state == HEADER_READ) {
            state = keep_body(frame.payload.bytes, message) ? HEADER_READ : NOTHING;
        }
        if (state == HEADER_READ && message->kept_bytes == message->body_bytes) {
            return true;
        }
    }
    return false;
}

/* ---- headers ---- */

/* The bytes of a value of that kind; for those with a length in front, SIZE_MAX. */
static size_t kind_bytes(uint64_t kind)
{
    static const char kinds[] = "VtbBsuIifDlLdT";
    static const uint8_t bytes[] = {0, 1, 1, 1, 2, 2, 4, 4, 4, 5, 8, 8, 8, 8};
    const char *found = kind == 0 ? NULL : strchr(kinds, (int)kind);
    return found == NULL ? SIZE_MAX : bytes[found - kinds];
}

bool amqp_model_header(struct span table, size_t *at, struct amqp_header *header)
{
    while (*at < table.bytes) {
        struct rest rest = {span_of(table.data + *at, table.bytes - *at), false};
        *header = (struct amqp_header){.name = take_short(&rest)};
        uint64_t kind = take_number(&rest, 1);
        size_t bytes = kind_bytes(kind);
        struct rest value = {take(&rest, bytes == SIZE_MAX ? (size_t)take_number(&rest, 4) : bytes), false};
        CHECK(!rest.is_bad); /* the link took it */
        *at = table.bytes - rest.bytes.bytes;
        if (kind == 'S' || kind == 'x') {
            header->kind = AMQP_HEADER_TEXT;
            header->text = value.bytes;
            return true;
        }
        if (kind == 'T' || (kind > 0 && strchr("bBsuIil", (int)kind) != NULL)) {
            CHECK(bytes >= 1 && bytes <= 8);
            uint64_t number = take_number(&value, bytes);
            uint64_t top = strchr("bsIl", (int)kind) != NULL ? UINT64_C(1) << (8 * bytes - 1) : 0;
            header->kind = kind == 'T' ? AMQP_HEADER_TIMESTAMP : AMQP_HEADER_INTEGER;
            header->integer = (int64_t)((number ^ top) - top);
            return true;
        }
    }
    return false;
}
