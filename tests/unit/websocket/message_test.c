/* SPDX-License-Identifier: MIT */
/* Streams of frames are fed whole, at every split point, and byte by byte, each piece ending at an unreadable page,
 * with the buffer ending at another; the events are written down as text and must be the same each time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "guard_page.h"
#include "message.h"

enum { MESSAGE_BYTES_MAX = 300, STREAM_BYTES_MAX = 4096, TRANSCRIPT_BYTES = 8192 };

static struct guard_page input_guard;
static struct guard_page buffer_guard;

static int open_guards(void **state)
{
    (void)state;
    guard_page_open(&input_guard, STREAM_BYTES_MAX);
    guard_page_open(&buffer_guard, STREAM_BYTES_MAX);
    return 0;
}

static int close_guards(void **state)
{
    (void)state;
    guard_page_close(&input_guard);
    guard_page_close(&buffer_guard);
    return 0;
}

struct stream {
    uint8_t data[STREAM_BYTES_MAX];
    size_t bytes;
};

static void add_raw(struct stream *stream, const void *data, size_t bytes)
{
    assert_true(stream->bytes + bytes <= sizeof stream->data);
    memcpy(stream->data + stream->bytes, data, bytes);
    stream->bytes += bytes;
}

/* A client's frame; the mask differs from frame to frame. */
static void add_frame(struct stream *stream, uint8_t first, const char *payload, size_t bytes)
{
    uint8_t header[FRAME_HEADER_BYTES_MAX];
    size_t header_bytes = frame_write_header(header, FRAME_CONTINUATION, false, bytes);
    header[0] = first;
    header[1] |= 0x80;
    add_raw(stream, header, header_bytes);
    uint8_t mask[4] = {(uint8_t)(stream->bytes * 31 + 1), 0xa5, (uint8_t)stream->bytes, 0x7f};
    add_raw(stream, mask, sizeof mask);
    uint8_t *at = stream->data + stream->bytes;
    add_raw(stream, payload, bytes);
    frame_unmask(at, bytes, mask);
}

static void add_text_frame(struct stream *stream, uint8_t first, const char *payload)
{
    add_frame(stream, first, payload, strlen(payload));
}

/* Feeds a reader and writes down what it says. */
struct feeder {
    struct message_reader reader;
    char transcript[TRANSCRIPT_BYTES];
    size_t transcript_bytes;
    size_t eaten_bytes; /* when it ended */
    bool has_buffer;
    bool ended;
};

static void note(struct feeder *feeder, const char *what, unsigned code, const uint8_t *data, size_t bytes)
{
    int count = snprintf(feeder->transcript + feeder->transcript_bytes, TRANSCRIPT_BYTES - feeder->transcript_bytes,
                         "%s %u %zu:%.*s\n", what, code, bytes, (int)bytes, (const char *)data);
    assert_true(count > 0);
    feeder->transcript_bytes += (size_t)count;
    assert_true(feeder->transcript_bytes < TRANSCRIPT_BYTES);
}

static void feed(struct feeder *feeder, const uint8_t *data, size_t bytes)
{
    static const char *const names[] = {
        [MESSAGE_TEXT] = "text", [MESSAGE_BINARY] = "binary", [MESSAGE_PING] = "ping",
        [MESSAGE_PONG] = "pong", [MESSAGE_CLOSE] = "close",   [MESSAGE_FAILED] = "failed"};
    uint8_t *buffer = buffer_guard.end - message_buffer_bytes(MESSAGE_BYTES_MAX);
    struct message_input input = {guard_page_put(&input_guard, data, bytes), bytes};
    while (!feeder->ended) {
        struct message_event event =
            message_next(&feeder->reader, &input, feeder->has_buffer ? buffer : NULL, MESSAGE_BYTES_MAX);
        if (event.kind == MESSAGE_MORE) {
            assert_int_equal(input.bytes, 0);
            feeder->has_buffer = message_wants_buffer(&feeder->reader);
            break;
        }
        if (event.kind == MESSAGE_BUFFER) {
            assert_false(feeder->has_buffer);
            feeder->has_buffer = true;
            memset(buffer, 0xee, message_buffer_bytes(MESSAGE_BYTES_MAX));
            continue;
        }
        note(feeder, names[event.kind], event.code, event.data, event.bytes);
        if (event.kind == MESSAGE_FAILED) {
            assert_non_null(event.reason);
        }
        feeder->ended = event.kind == MESSAGE_FAILED || event.kind == MESSAGE_CLOSE;
    }
    feeder->eaten_bytes += bytes - input.bytes;
}

/* The transcript of the stream, the same however it is cut. */
static const char *events_of(const struct stream *stream)
{
    static struct feeder whole;
    whole = (struct feeder){.has_buffer = false};
    feed(&whole, stream->data, stream->bytes);
    for (size_t first = 0; first <= stream->bytes; first++) {
        static struct feeder cut;
        cut = (struct feeder){.has_buffer = false};
        feed(&cut, stream->data, first);
        feed(&cut, stream->data + first, stream->bytes - first);
        assert_string_equal(cut.transcript, whole.transcript);
    }
    for (size_t step = 1; step <= 5; step++) {
        static struct feeder cut;
        cut = (struct feeder){.has_buffer = false};
        for (size_t at = 0; at < stream->bytes; at += step) {
            size_t left = stream->bytes - at;
            feed(&cut, stream->data + at, left < step ? left : step);
        }
        assert_string_equal(cut.transcript, whole.transcript);
        assert_int_equal(cut.ended, whole.ended);
    }
    return whole.transcript;
}

/* How many bytes of the stream it takes until the reader refuses it. */
static size_t refused_after(const struct stream *stream)
{
    static struct feeder feeder;
    feeder = (struct feeder){.has_buffer = false};
    for (size_t at = 0; at < stream->bytes; at++) {
        feed(&feeder, stream->data + at, 1);
        if (feeder.ended) {
            assert_non_null(strstr(feeder.transcript, "failed"));
            return at + 1;
        }
    }
    fail();
    return 0;
}

static void test_messages(void **state)
{
    (void)state;
    struct stream stream = {.bytes = 0};
    add_text_frame(&stream, 0x81, "Hello");
    add_frame(&stream, 0x82, "", 0);
    add_text_frame(&stream, 0x81,
                   "gr\xc3\xbc\xc3\x9f"
                   "e");
    add_frame(&stream, 0x82, "\xff\xfe", 2);
    assert_string_equal(events_of(&stream), "text 0 5:Hello\nbinary 0 0:\ntext 0 7:gr\xc3\xbc\xc3\x9f"
                                            "e\nbinary 0 2:\xff\xfe\n");
}

static void test_lengths_of_all_forms(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 124, 125, 126, 127, 255, 256, MESSAGE_BYTES_MAX};
    for (size_t index = 0; index < sizeof sizes / sizeof sizes[0]; index++) {
        struct stream stream = {.bytes = 0};
        char payload[MESSAGE_BYTES_MAX];
        memset(payload, 'x', sizeof payload);
        add_frame(&stream, 0x81, payload, sizes[index]);
        add_text_frame(&stream, 0x81, "next");
        char expected[2 * MESSAGE_BYTES_MAX];
        (void)snprintf(expected, sizeof expected, "text 0 %zu:%.*s\ntext 0 4:next\n", sizes[index], (int)sizes[index],
                       payload);
        assert_string_equal(events_of(&stream), expected);
    }
}

static void test_fragments_with_control_frames_between(void **state)
{
    (void)state;
    struct stream stream = {.bytes = 0};
    add_text_frame(&stream, 0x01, "one \xe2\x82");
    add_text_frame(&stream, 0x89, "are you there?");
    add_text_frame(&stream, 0x00, "\xac");
    add_frame(&stream, 0x00, "", 0);
    add_frame(&stream, 0x8a, "", 0);
    add_text_frame(&stream, 0x80, " two");
    add_text_frame(&stream, 0x02, "b");
    add_frame(&stream, 0x80, "", 0);
    add_frame(&stream, 0x88,
              "\x03\xe8"
              "bye",
              5);
    assert_string_equal(events_of(&stream), "ping 0 14:are you there?\npong 0 0:\ntext 0 11:one \xe2\x82\xac two\n"
                                            "binary 0 1:b\nclose 1000 3:bye\n");
}

static void test_longest_message_with_longest_ping(void **state)
{
    (void)state;
    struct stream stream = {.bytes = 0};
    char payload[MESSAGE_BYTES_MAX];
    memset(payload, 'm', sizeof payload);
    add_frame(&stream, 0x02, payload, MESSAGE_BYTES_MAX - 1);
    add_frame(&stream, 0x89, payload, WEBSOCKET_CONTROL_BYTES_MAX);
    add_frame(&stream, 0x80, payload, 1);
    const char *events = events_of(&stream);
    assert_memory_equal(events, "ping 0 125:mmm", 14);
    assert_non_null(strstr(events, "binary 0 300:mmm"));
}

static void test_close_frames(void **state)
{
    (void)state;
    static const struct {
        const char *payload;
        size_t bytes;
        const char *events;
    } rows[] = {
        {"", 0, "close 1005 0:\n"},
        {"\x03", 1, "failed 1002 0:\n"},
        {"\x03\xe9", 2, "close 1001 0:\n"},
        {"\x03\xec", 2, "failed 1002 0:\n"},
        {"\x03\xe8\xc3", 3, "failed 1007 0:\n"},
        {"\x0f\xa0\xc3\xbc", 4, "close 4000 2:\xc3\xbc\n"},
    };
    for (size_t index = 0; index < sizeof rows / sizeof rows[0]; index++) {
        struct stream stream = {.bytes = 0};
        add_frame(&stream, 0x88, rows[index].payload, rows[index].bytes);
        assert_string_equal(events_of(&stream), rows[index].events);
    }
}

static void test_refused_at_the_first_byte_that_shows_it(void **state)
{
    (void)state;
    char long_payload[MESSAGE_BYTES_MAX + 1];
    memset(long_payload, 'x', sizeof long_payload);
    static const struct {
        const char *before; /* a text fragment sent first, when not NULL */
        uint8_t first;
        const char *payload;
        size_t bytes;
        const char *events;
        size_t refused_after_bytes; /* of the second frame */
    } rows[] = {
        {NULL, 0xc1, "x", 1, "failed 1002 0:\n", 1}, /* a reserved bit */
        {NULL, 0x91, "x", 1, "failed 1002 0:\n", 1},
        {NULL, 0x83, "x", 1, "failed 1002 0:\n", 1}, /* reserved opcodes */
        {NULL, 0x8b, "x", 1, "failed 1002 0:\n", 1},
        {NULL, 0x80, "x", 1, "failed 1002 0:\n", 1},   /* nothing to continue */
        {"open", 0x81, "x", 1, "failed 1002 0:\n", 1}, /* a message within another */
        {"open", 0x82, "x", 1, "failed 1002 0:\n", 1},
        {NULL, 0x09, "x", 1, "failed 1002 0:\n", 1}, /* a fragmented ping */
        {NULL, 0x81,
         "a\xff"
         "b",
         3, "failed 1007 0:\n", 8},                                       /* bad UTF-8, within a frame */
        {"\xe2\x82", 0x80, "\xac\xed\xa0\x80", 4, "failed 1007 0:\n", 9}, /* a surrogate, in a later fragment */
        {"\xe2", 0x80, "", 0, "failed 1007 0:\n", 6},                     /* a character that is never whole */
    };
    for (size_t index = 0; index < sizeof rows / sizeof rows[0]; index++) {
        struct stream stream = {.bytes = 0};
        if (rows[index].before != NULL) {
            add_text_frame(&stream, 0x01, rows[index].before);
        }
        size_t before_bytes = stream.bytes;
        add_frame(&stream, rows[index].first, rows[index].payload, rows[index].bytes);
        assert_string_equal(events_of(&stream), rows[index].events);
        assert_int_equal(refused_after(&stream), before_bytes + rows[index].refused_after_bytes);
    }
    struct stream stream = {.bytes = 0};
    add_frame(&stream, 0x82, long_payload, sizeof long_payload);
    assert_string_equal(events_of(&stream), "failed 1009 0:\n");
    assert_int_equal(refused_after(&stream), 8); /* its header: 2, 2 of length, 4 of mask */
    stream.bytes = 0;
    add_frame(&stream, 0x02, long_payload, MESSAGE_BYTES_MAX);
    add_frame(&stream, 0x80, long_payload, 1);
    assert_string_equal(events_of(&stream), "failed 1009 0:\n");
    assert_int_equal(refused_after(&stream), stream.bytes - 1);
}

static void test_headers_refused_raw(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t count;
        size_t refused_after_bytes;
    } rows[] = {
        {"\x81\x05Hello", 7, 2},                    /* no mask */
        {"\x89\xfe\x00\x7e", 4, 2},                 /* a long ping */
        {"\x88\xff", 2, 2},                         /* a very long close */
        {"\x82\xfe\x00\x7d\x01\x02\x03\x04", 8, 8}, /* 125 in 16 bits */
        {"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x01\x01\x02\x03\x04", 14, 14},
    };
    for (size_t index = 0; index < sizeof rows / sizeof rows[0]; index++) {
        struct stream stream = {.bytes = 0};
        add_raw(&stream, rows[index].bytes, rows[index].count);
        assert_string_equal(events_of(&stream), "failed 1002 0:\n");
        assert_int_equal(refused_after(&stream), rows[index].refused_after_bytes);
    }
}

/* A message that lies whole in the read is used there, and no buffer is asked for. */
static void test_whole_messages_are_not_copied(void **state)
{
    (void)state;
    struct stream stream = {.bytes = 0};
    for (int index = 0; index < 16; index++) {
        add_text_frame(&stream, 0x81, "{\"type\":\"text\",\"content\":1}");
    }
    struct message_reader reader = {.state = 0};
    uint8_t *data = guard_page_put(&input_guard, stream.data, stream.bytes);
    struct message_input input = {data, stream.bytes};
    for (int index = 0; index < 16; index++) {
        struct message_event event = message_next(&reader, &input, NULL, MESSAGE_BYTES_MAX);
        assert_int_equal(event.kind, MESSAGE_TEXT);
        assert_ptr_equal(event.data + event.bytes, input.data);
        assert_memory_equal(event.data, "{\"type\":\"text\"", 14);
    }
    assert_int_equal(message_next(&reader, &input, NULL, MESSAGE_BYTES_MAX).kind, MESSAGE_MORE);
}

static void test_when_a_buffer_is_wanted(void **state)
{
    (void)state;
    struct stream stream = {.bytes = 0};
    add_text_frame(&stream, 0x81, "Hello");
    struct message_reader reader = {.state = 0};
    uint8_t buffer[MESSAGE_BYTES_MAX + WEBSOCKET_CONTROL_BYTES_MAX];
    /* The header, in two pieces, needs none. */
    for (size_t at = 0; at < 6; at += 3) {
        struct message_input input = {stream.data + at, 3};
        assert_int_equal(message_next(&reader, &input, NULL, MESSAGE_BYTES_MAX).kind, MESSAGE_MORE);
        assert_false(message_wants_buffer(&reader));
    }
    struct message_input input = {stream.data + 6, 2};
    assert_int_equal(message_next(&reader, &input, NULL, MESSAGE_BYTES_MAX).kind, MESSAGE_BUFFER);
    assert_int_equal(input.bytes, 2);
    assert_int_equal(message_next(&reader, &input, buffer, MESSAGE_BYTES_MAX).kind, MESSAGE_MORE);
    assert_true(message_wants_buffer(&reader));
    input = (struct message_input){stream.data + 8, 3};
    struct message_event event = message_next(&reader, &input, buffer, MESSAGE_BYTES_MAX);
    assert_int_equal(event.kind, MESSAGE_TEXT);
    assert_ptr_equal(event.data, buffer);
    assert_memory_equal(event.data, "Hello", 5);
    assert_false(message_wants_buffer(&reader));
}

/* After our own close: only the peer's close frame, or its breaking the protocol, matters. */
static void test_discard(void **state)
{
    (void)state;
    struct stream stream = {.bytes = 0};
    add_text_frame(&stream, 0x01, "fragment");
    add_text_frame(&stream, 0x89, "ping");
    add_text_frame(&stream, 0x80, "\xff, not even text");
    add_text_frame(&stream, 0x82, "more");
    size_t close_at = stream.bytes;
    add_frame(&stream, 0x88, "\x03\xe8", 2);
    for (size_t handled = 0; handled <= close_at; handled++) {
        for (size_t step = 1; step < 8; step++) {
            /* Some of it came before the close was ours. */
            static struct feeder feeder;
            feeder = (struct feeder){.has_buffer = false};
            feed(&feeder, stream.data, handled);
            if (feeder.ended) {
                return; /* the bad text was reached */
            }
            bool done = false;
            size_t at = handled;
            while (!done && at < stream.bytes) {
                size_t bytes = stream.bytes - at < step ? stream.bytes - at : step;
                struct message_input input = {guard_page_put(&input_guard, stream.data + at, bytes), bytes};
                done = message_discard(&feeder.reader, &input);
                assert_false(message_wants_buffer(&feeder.reader));
                at += bytes - input.bytes;
            }
            assert_true(done);
            assert_int_equal(at, close_at + 6); /* the header is enough */
        }
    }
    fail();
}

static void test_discard_of_garbage(void **state)
{
    (void)state;
    struct message_reader reader = {.state = 0};
    uint8_t garbage[] = "GET / HTTP/1.1";
    struct message_input input = {garbage, sizeof garbage};
    assert_true(message_discard(&reader, &input));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_lengths_of_all_forms),
        cmocka_unit_test(test_fragments_with_control_frames_between),
        cmocka_unit_test(test_longest_message_with_longest_ping),
        cmocka_unit_test(test_close_frames),
        cmocka_unit_test(test_refused_at_the_first_byte_that_shows_it),
        cmocka_unit_test(test_headers_refused_raw),
        cmocka_unit_test(test_whole_messages_are_not_copied),
        cmocka_unit_test(test_when_a_buffer_is_wanted),
        cmocka_unit_test(test_discard),
        cmocka_unit_test(test_discard_of_garbage),
    };
    return cmocka_run_group_tests(tests, open_guards, close_guards);
}
