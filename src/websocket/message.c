/* SPDX-License-Identifier: MIT */
/* Two states: before a frame's header is whole, and within its payload. A header is read straight from the range, or
 * gathered in the reader when the range ends within it; its first two bytes are judged as soon as each is there. A
 * payload that lies whole in the range is used there, unless it continues a message that stands in the buffer;
 * everything else is moved to the buffer as it comes, unmasked and, for text, checked on the way. Control frames have
 * a place of their own behind the message's, because they come between its fragments. */
#include "message.h"

#include <string.h>

#include "check.h"
#include "span.h"

enum {
    READER_IN_FRAME = 1, /* the header is read, payload is due (perhaps of 0 bytes) */
    READER_FINAL = 2,    /* that frame ends its message */
    READER_ENDED = 4     /* MESSAGE_CLOSE or MESSAGE_FAILED was given */
};

static struct message_event event_of(enum message_event_kind kind, uint8_t *data, size_t bytes)
{
    return (struct message_event){.kind = kind, .data = data, .bytes = bytes};
}

static struct message_event fail(struct message_reader *reader, uint16_t code, const char *reason)
{
    reader->state = READER_ENDED;
    reader->message_bytes = 0;
    reader->control_used_bytes = 0;
    return (struct message_event){.kind = MESSAGE_FAILED, .code = code, .reason = reason};
}

/* What is wrong with a header's first byte, seen in its place among frames; NULL when nothing. */
static const char *first_byte_error(const struct message_reader *reader, uint8_t first)
{
    bool is_final = (first & 0x80) != 0;
    if ((first & 0x70) != 0) {
        return "reserved bits are set";
    }
    switch (first & 0x0f) {
    case FRAME_CONTINUATION:
        return reader->message_opcode == 0 ? "nothing to continue" : NULL;
    case FRAME_TEXT:
    case FRAME_BINARY:
        return reader->message_opcode != 0 ? "a new message before the last one ended" : NULL;
    case FRAME_CLOSE:
    case FRAME_PING:
    case FRAME_PONG:
        return is_final ? NULL : "a fragmented control frame";
    default:
        return "a reserved opcode";
    }
}

static const char *second_byte_error(uint8_t first, uint8_t second)
{
    if ((second & 0x80) == 0) {
        return "a frame without mask";
    }
    if ((first & 0x0f) >= FRAME_CONTROL_OPCODE_MIN && (second & 0x7f) > WEBSOCKET_CONTROL_BYTES_MAX) {
        return "a control frame longer than 125 bytes";
    }
    return NULL;
}

static const char *header_error(const struct message_reader *reader, const uint8_t *header, size_t bytes)
{
    const char *error = first_byte_error(reader, header[0]);
    if (error == NULL && bytes >= 2) {
        error = second_byte_error(header[0], header[1]);
    }
    return error;
}

/* Enters the payload of the frame whose whole, judged header stands at `bytes`. */
static struct message_event begin_frame(struct message_reader *reader, struct span bytes, size_t message_bytes_max)
{
    struct frame_header header;
    if (!frame_read_header(bytes, &header)) {
        return fail(reader, FRAME_CLOSE_PROTOCOL_ERROR, "a length not in its shortest form");
    }
    bool is_control = header.opcode >= FRAME_CONTROL_OPCODE_MIN;
    if (!is_control && header.payload_bytes > message_bytes_max - reader->message_bytes) {
        return fail(reader, FRAME_CLOSE_TOO_BIG, "the message is too long");
    }
    if (header.opcode == FRAME_TEXT || header.opcode == FRAME_BINARY) {
        reader->message_opcode = header.opcode;
    }
    reader->header_used_bytes = 0;
    reader->part.frame.left_bytes = (uint32_t)header.payload_bytes;
    memcpy(reader->part.frame.mask, header.mask, FRAME_MASK_BYTES);
    reader->frame_opcode = header.opcode;
    reader->state = READER_IN_FRAME | (header.is_final ? READER_FINAL : 0);
    return event_of(MESSAGE_MORE, NULL, 0);
}

static void eat(struct message_input *input, size_t bytes)
{
    input->data += bytes;
    input->bytes -= bytes;
}

/* Gathers a header, whole or as much of it as there is, and judges its first bytes. True: it is whole. */
static bool gather_header(struct message_reader *reader, struct message_input *input, struct span *header_out,
                          const char **error)
{
    struct span whole = span_of(input->data, input->bytes);
    size_t eaten = 0;
    if (reader->header_used_bytes == 0 && input->bytes >= 2 && input->bytes >= frame_header_bytes(whole)) {
        eaten = frame_header_bytes(whole);
    } else {
        uint8_t *header = reader->part.header;
        size_t used = reader->header_used_bytes;
        while (used < frame_header_bytes(span_of(header, used)) && eaten < input->bytes) {
            header[used++] = input->data[eaten++];
        }
        reader->header_used_bytes = (uint8_t)used;
        whole = span_of(header, used);
    }
    eat(input, eaten);
    *header_out = whole;
    *error = whole.bytes == 0 ? NULL : header_error(reader, whole.data, whole.bytes);
    return whole.bytes >= 2 && whole.bytes >= frame_header_bytes(whole);
}

/* MESSAGE_MORE: go on, or wait when not in a frame. */
static struct message_event take_header(struct message_reader *reader, struct message_input *input,
                                        size_t message_bytes_max)
{
    struct span header;
    const char *error;
    bool is_whole = gather_header(reader, input, &header, &error);
    if (error != NULL) {
        return fail(reader, FRAME_CLOSE_PROTOCOL_ERROR, error);
    }
    return is_whole ? begin_frame(reader, header, message_bytes_max) : event_of(MESSAGE_MORE, NULL, 0);
}

static struct message_event close_event(struct message_reader *reader, uint8_t *data, size_t bytes)
{
    struct message_event event = event_of(MESSAGE_CLOSE, data, 0);
    event.code = FRAME_CLOSE_NO_STATUS;
    if (bytes == 1) {
        return fail(reader, FRAME_CLOSE_PROTOCOL_ERROR, "a close frame of one byte");
    }
    if (bytes >= 2) {
        event.code = (uint16_t)(data[0] << 8 | data[1]);
        event.data = data + 2;
        event.bytes = bytes - 2;
        if (!frame_close_code_valid(event.code)) {
            return fail(reader, FRAME_CLOSE_PROTOCOL_ERROR, "a close code that may not be sent");
        }
        if (!utf8_valid(span_of(event.data, event.bytes))) {
            return fail(reader, FRAME_CLOSE_INVALID_DATA, "a close reason that is not UTF-8");
        }
    }
    reader->state = READER_ENDED;
    reader->message_bytes = 0;
    return event;
}

static struct message_event take_control(struct message_reader *reader, struct message_input *input, uint8_t *place)
{
    uint32_t *left = &reader->part.frame.left_bytes;
    uint8_t *mask = reader->part.frame.mask;
    uint8_t *data = input->data;
    size_t bytes = *left;
    if (reader->control_used_bytes == 0 && input->bytes >= bytes) {
        frame_unmask(data, bytes, mask);
        eat(input, bytes);
    } else {
        if (input->bytes == 0) {
            return event_of(MESSAGE_MORE, NULL, 0);
        }
        if (place == NULL) {
            return event_of(MESSAGE_BUFFER, NULL, 0);
        }
        size_t taken = input->bytes < bytes ? input->bytes : bytes;
        uint8_t *to = place + reader->control_used_bytes;
        memcpy(to, input->data, taken);
        frame_unmask(to, taken, mask);
        frame_turn_mask(mask, taken);
        eat(input, taken);
        reader->control_used_bytes = (uint8_t)(reader->control_used_bytes + taken);
        *left -= (uint32_t)taken;
        if (*left > 0) {
            return event_of(MESSAGE_MORE, NULL, 0);
        }
        data = place;
        bytes = reader->control_used_bytes;
    }
    reader->state = 0;
    reader->control_used_bytes = 0;
    if (reader->frame_opcode == FRAME_CLOSE) {
        return close_event(reader, data, bytes);
    }
    return event_of(reader->frame_opcode == FRAME_PING ? MESSAGE_PING : MESSAGE_PONG, data, bytes);
}

/* Ends a message whose payload is whole. */
static struct message_event end_message(struct message_reader *reader, uint8_t *data, size_t bytes)
{
    bool is_text = reader->message_opcode == FRAME_TEXT;
    if (is_text && !utf8_complete(&reader->utf8)) {
        return fail(reader, FRAME_CLOSE_INVALID_DATA, "text that ends within a character");
    }
    reader->state = 0;
    reader->message_opcode = 0;
    reader->message_bytes = 0;
    return event_of(is_text ? MESSAGE_TEXT : MESSAGE_BINARY, data, bytes);
}

static bool text_feed(struct message_reader *reader, const uint8_t *data, size_t bytes)
{
    return reader->message_opcode != FRAME_TEXT || utf8_feed(&reader->utf8, data, bytes);
}

/* MESSAGE_MORE: go on, or wait when still in the frame. */
static struct message_event take_data(struct message_reader *reader, struct message_input *input, uint8_t *buffer)
{
    uint32_t *left = &reader->part.frame.left_bytes;
    uint8_t *mask = reader->part.frame.mask;
    bool is_final = (reader->state & READER_FINAL) != 0;
    size_t taken = input->bytes < *left ? input->bytes : *left;
    uint8_t *data = input->data;
    bool in_place = is_final && reader->message_bytes == 0 && taken == *left;
    if (!in_place && taken > 0) {
        if (buffer == NULL) {
            return event_of(MESSAGE_BUFFER, NULL, 0);
        }
        data = buffer + reader->message_bytes;
        memcpy(data, input->data, taken);
    }
    frame_unmask(data, taken, mask);
    eat(input, taken);
    if (!text_feed(reader, data, taken)) {
        return fail(reader, FRAME_CLOSE_INVALID_DATA, "text that is not UTF-8");
    }
    if (in_place) {
        return end_message(reader, data, taken);
    }
    frame_turn_mask(mask, taken);
    reader->message_bytes += (uint32_t)taken;
    *left -= (uint32_t)taken;
    if (*left > 0) {
        return event_of(MESSAGE_MORE, NULL, 0);
    }
    if (is_final) {
        return end_message(reader, buffer, reader->message_bytes);
    }
    reader->state = 0;
    return event_of(MESSAGE_MORE, NULL, 0);
}

struct message_event message_next(struct message_reader *reader, struct message_input *input, uint8_t *buffer,
                                  size_t message_bytes_max)
{
    CHECK(message_bytes_max <= UINT32_MAX / 2);
    CHECK(buffer != NULL || !message_wants_buffer(reader));
    for (;;) {
        CHECK((reader->state & READER_ENDED) == 0);
        struct message_event event;
        bool was_in_frame = (reader->state & READER_IN_FRAME) != 0;
        if (!was_in_frame) {
            event = take_header(reader, input, message_bytes_max);
        } else if (reader->frame_opcode >= FRAME_CONTROL_OPCODE_MIN) {
            event = take_control(reader, input, buffer == NULL ? NULL : buffer + message_bytes_max);
        } else {
            event = take_data(reader, input, buffer);
        }
        if (event.kind != MESSAGE_MORE) {
            return event;
        }
        bool is_in_frame = (reader->state & READER_IN_FRAME) != 0;
        if (input->bytes == 0 && !(is_in_frame && !was_in_frame)) {
            return event;
        }
    }
}

bool message_discard(struct message_reader *reader, struct message_input *input)
{
    reader->message_bytes = 0;
    reader->control_used_bytes = 0;
    while ((reader->state & READER_ENDED) == 0) {
        if ((reader->state & READER_IN_FRAME) == 0) {
            struct span header;
            const char *error;
            bool is_whole = gather_header(reader, input, &header, &error);
            if (error == NULL && !is_whole) {
                return false;
            }
            if (error != NULL || begin_frame(reader, header, UINT32_MAX / 2).kind == MESSAGE_FAILED) {
                break;
            }
        }
        if (reader->frame_opcode == FRAME_CLOSE) {
            break;
        }
        size_t left = reader->part.frame.left_bytes;
        size_t eaten = input->bytes < left ? input->bytes : left;
        eat(input, eaten);
        reader->part.frame.left_bytes = (uint32_t)(left - eaten);
        if (eaten < left) {
            return false;
        }
        bool ends_message = reader->frame_opcode < FRAME_CONTROL_OPCODE_MIN && (reader->state & READER_FINAL) != 0;
        reader->message_opcode = ends_message ? 0 : reader->message_opcode;
        reader->state = 0;
    }
    reader->state = READER_ENDED;
    return true;
}

bool message_wants_buffer(const struct message_reader *reader)
{
    return reader->message_bytes > 0 || reader->control_used_bytes > 0;
}
