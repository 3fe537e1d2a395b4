/* SPDX-License-Identifier: MIT */
/* Messages out of a stream of frames. The events must be the same in one piece, byte by byte and as the input cuts it,
 * and those of a reading of RFC 6455 that has the whole stream before it. The pieces end at an unreadable page, and so
 * does the buffer, which is taken away whenever it may be.
 *
 * Input: the cuts; how long a message may be; after how many bytes (times 8) messages are only discarded, 255: never;
 * then the stream. A mask of zeros leaves a payload readable. */
#include <string.h>

#include "fuzz.h"
#include "guard_page.h"
#include "message.h"

enum { LENGTHS = 4, MESSAGE_BYTES_MAX = 2000, DISCARD_NEVER = 255, DISCARD_UNIT_BYTES = 8 };

static const size_t lengths[LENGTHS] = {10, 130, 300, MESSAGE_BYTES_MAX};
static struct guard_page buffer_guard;

/* ---- the reader ---- */

struct feeder {
    struct message_reader reader;
    struct fuzz_trace *trace;
    uint8_t *buffer;
    size_t message_bytes_max;
    bool has_buffer;
    bool is_ended;
};

static struct feeder feeder_of(struct fuzz_trace *trace, size_t message_bytes_max)
{
    if (buffer_guard.mapping == NULL) {
        guard_page_open(&buffer_guard, message_buffer_bytes(MESSAGE_BYTES_MAX));
    }
    fuzz_trace_begin(trace);
    return (struct feeder){.trace = trace,
                           .buffer = buffer_guard.end - message_buffer_bytes(message_bytes_max),
                           .message_bytes_max = message_bytes_max};
}

static void feed_piece(struct feeder *feeder, struct span piece)
{
    struct message_input input = {fuzz_guarded(piece), piece.bytes};
    while (!feeder->is_ended) {
        struct message_event event = message_next(&feeder->reader, &input, feeder->has_buffer ? feeder->buffer : NULL,
                                                  feeder->message_bytes_max);
        if (event.kind == MESSAGE_MORE) {
            CHECK(input.bytes == 0);
            feeder->has_buffer = message_wants_buffer(&feeder->reader);
            return;
        }
        if (event.kind == MESSAGE_BUFFER) {
            CHECK(!feeder->has_buffer);
            feeder->has_buffer = true;
            memset(feeder->buffer, 0xEE, message_buffer_bytes(feeder->message_bytes_max));
            continue;
        }
        CHECK(event.kind != MESSAGE_FAILED || event.reason != NULL);
        CHECK(event.bytes <= (event.kind == MESSAGE_TEXT || event.kind == MESSAGE_BINARY
                                  ? feeder->message_bytes_max
                                  : WEBSOCKET_CONTROL_BYTES_MAX));
        fuzz_note(feeder->trace, event.kind, event.code, span_of(event.data, event.bytes));
        feeder->is_ended = event.kind == MESSAGE_FAILED || event.kind == MESSAGE_CLOSE;
    }
}

static void feed(struct feeder *feeder, struct span stream, struct fuzz_cuts cuts)
{
    while (stream.bytes > 0 && !feeder->is_ended) {
        feed_piece(feeder, fuzz_take(&stream, fuzz_cut(&cuts, stream.bytes)));
    }
}

static bool discard(struct feeder *feeder, struct span stream, struct fuzz_cuts cuts)
{
    bool is_done = false;
    while (stream.bytes > 0 && !is_done) {
        struct span piece = fuzz_take(&stream, fuzz_cut(&cuts, stream.bytes));
        struct message_input input = {fuzz_guarded(piece), piece.bytes};
        is_done = message_discard(&feeder->reader, &input);
        CHECK(is_done || input.bytes == 0);
        CHECK(!message_wants_buffer(&feeder->reader));
    }
    return is_done;
}

/* ---- the other reading ---- */

struct model {
    struct fuzz_trace *trace;
    struct span stream; /* what is left of it */
    size_t message_bytes_max;
    unsigned opcode; /* of the open message; 0: none is open */
    size_t message_bytes;
    uint8_t message[FUZZ_INPUT_BYTES_MAX];
};

/* These say whether the reading goes on. */
static bool refuse(struct model *model, unsigned code)
{
    fuzz_note(model->trace, MESSAGE_FAILED, code, span_of(NULL, 0));
    return false;
}

static bool judge_close(struct model *model, struct span payload)
{
    if (payload.bytes == 0) {
        fuzz_note(model->trace, MESSAGE_CLOSE, FRAME_CLOSE_NO_STATUS, payload);
        return false;
    }
    unsigned code = payload.bytes == 1 ? 0 : payload.data[0] * 256U + payload.data[1];
    bool is_known = code >= 1000 && code <= 1014 && (code < 1004 || code > 1006);
    if (!is_known && (code < 3000 || code > 4999)) {
        return refuse(model, 1002);
    }
    struct span reason = span_of(payload.data + 2, payload.bytes - 2);
    if (fuzz_utf8(reason) != FUZZ_UTF8_WHOLE) {
        return refuse(model, 1007);
    }
    fuzz_note(model->trace, MESSAGE_CLOSE, code, reason);
    return false;
}

static bool judge_data(struct model *model, bool is_final, bool is_whole)
{
    struct span message = span_of(model->message, model->message_bytes);
    enum fuzz_utf8 utf8 = model->opcode == FRAME_TEXT ? fuzz_utf8(message) : FUZZ_UTF8_WHOLE;
    if (utf8 == FUZZ_UTF8_BAD || (is_whole && is_final && utf8 == FUZZ_UTF8_CUT)) {
        return refuse(model, 1007);
    }
    if (is_whole && is_final) {
        fuzz_note(model->trace, model->opcode == FRAME_TEXT ? MESSAGE_TEXT : MESSAGE_BINARY, 0, message);
        model->opcode = 0;
        model->message_bytes = 0;
    }
    return is_whole;
}

static bool take_payload(struct model *model, unsigned first, uint64_t length, const uint8_t mask[FRAME_MASK_BYTES])
{
    uint8_t control[WEBSOCKET_CONTROL_BYTES_MAX];
    unsigned opcode = first % 16;
    uint8_t *to = opcode >= 8 ? control : model->message + model->message_bytes;
    bool is_whole = length <= model->stream.bytes;
    struct span masked = fuzz_take(&model->stream, is_whole ? (size_t)length : model->stream.bytes);
    for (size_t at = 0; at < masked.bytes; at++) {
        to[at] = masked.data[at] ^ mask[at % FRAME_MASK_BYTES];
    }
    if (opcode < 8) {
        model->message_bytes += masked.bytes;
        model->opcode = opcode > 0 ? opcode : model->opcode;
        return judge_data(model, first >= 128, is_whole);
    }
    if (is_whole && opcode == FRAME_CLOSE) {
        return judge_close(model, span_of(control, masked.bytes));
    }
    if (is_whole) {
        fuzz_note(model->trace, opcode == FRAME_PING ? MESSAGE_PING : MESSAGE_PONG, 0, span_of(control, masked.bytes));
    }
    return is_whole;
}

static bool take_frame(struct model *model)
{
    if (model->stream.bytes == 0) {
        return false;
    }
    unsigned first = fuzz_byte(&model->stream);
    unsigned opcode = first % 16;
    bool is_control = opcode >= 8;
    bool is_known = opcode <= 2 || (opcode >= 8 && opcode <= 10);
    if (first / 16 % 8 != 0 || !is_known || (is_control && first < 128) ||
        (!is_control && (opcode == 0) != (model->opcode != 0))) {
        return refuse(model, 1002);
    }
    if (model->stream.bytes == 0) {
        return false;
    }
    unsigned second = fuzz_byte(&model->stream);
    if (second < 128 || (is_control && second - 128 > WEBSOCKET_CONTROL_BYTES_MAX)) {
        return refuse(model, 1002);
    }
    uint64_t length = second - 128;
    size_t field_bytes = length == 126 ? 2 : length == 127 ? 8 : 0;
    if (model->stream.bytes < field_bytes + FRAME_MASK_BYTES) {
        return false;
    }
    length = field_bytes == 0 ? length : 0;
    for (size_t i = 0; i < field_bytes; i++) {
        length = length * 256 + fuzz_byte(&model->stream);
    }
    if ((field_bytes == 2 && length < 126) || (field_bytes == 8 && (length < 65536 || length >> 63 != 0))) {
        return refuse(model, 1002);
    }
    if (!is_control && length + model->message_bytes > model->message_bytes_max) {
        return refuse(model, 1009);
    }
    struct span mask = fuzz_take(&model->stream, FRAME_MASK_BYTES);
    return take_payload(model, first, length, mask.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct fuzz_trace expected;
    static struct fuzz_trace got;
    static struct model model;
    struct span stream = fuzz_input(data, bytes);
    struct fuzz_cuts cuts = fuzz_take_cuts(&stream);
    size_t message_bytes_max = lengths[fuzz_byte(&stream) % LENGTHS];
    uint8_t discard_at = fuzz_byte(&stream);

    fuzz_trace_begin(&expected);
    model = (struct model){.trace = &expected, .stream = stream, .message_bytes_max = message_bytes_max};
    while (take_frame(&model)) {
    }
    const struct fuzz_cuts ways[] = {fuzz_whole, fuzz_single, cuts};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        struct feeder feeder = feeder_of(&got, message_bytes_max);
        feed(&feeder, stream, ways[i]);
        fuzz_expect_same(&expected, &got);
    }
    if (discard_at == DISCARD_NEVER) {
        return 0;
    }
    struct span begin = fuzz_take(&stream, (size_t)discard_at * DISCARD_UNIT_BYTES);
    struct feeder feeder = feeder_of(&got, message_bytes_max);
    feed(&feeder, begin, fuzz_whole);
    if (!feeder.is_ended) {
        struct feeder other = feeder;
        bool is_done = discard(&feeder, stream, fuzz_whole);
        CHECK(discard(&other, stream, cuts) == is_done);
    }
    return 0;
}
