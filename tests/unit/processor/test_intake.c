/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "dead_letter.h"
#include "envelope.h"
#include "intake.h"
#include "json.h"
#include "processor.h"
#include "text.h"

enum { DELIVERY_MAX = 5, BODY_BYTES_MAX = 4096 };

static struct {
    struct intake intake;
    struct json json;
    void *memory;
    size_t intake_bytes;
    size_t body_bytes_max;
} test;

static void carve(struct arena *arena)
{
    static const struct siphash_key key = {{1, 2}};
    intake_init(&test.intake, arena, DELIVERY_MAX, test.intake_bytes, span_text("made-"));
    json_init(&test.json, arena, test.body_bytes_max, &key);
}

static void open_intake(size_t intake_bytes, size_t body_bytes_max)
{
    test.intake_bytes = intake_bytes;
    test.body_bytes_max = body_bytes_max;
    struct arena arena;
    arena_measure(&arena);
    carve(&arena);
    const size_t bytes = (arena.used_bytes + ARENA_ALIGN_BYTES - 1) & ~(size_t)(ARENA_ALIGN_BYTES - 1);
    test.memory = aligned_alloc(ARENA_ALIGN_BYTES, bytes);
    memset(test.memory, 0, bytes);
    arena_begin(&arena, test.memory, bytes);
    carve(&arena);
}

static int set_up(void **state)
{
    (void)state;
    open_intake(2 * intake_bytes_min(BODY_BYTES_MAX), BODY_BYTES_MAX);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(test.memory);
    return 0;
}

/* Takes a message out of memory that is gone afterwards, as a link's buffer is. */
static struct delivery *take(const char *body, struct amqp_message message)
{
    const size_t bytes = strlen(body) + 1;
    char *const gone = malloc(bytes);
    memcpy(gone, body, bytes);
    static uint64_t tag;
    message.body = span_text(gone);
    message.tag = ++tag;
    struct delivery *const delivery = intake_take(&test.intake, &message, &test.json, 1000);
    memset(gone, '!', strlen(gone));
    free(gone);
    return delivery;
}

#define ASSERT_SPAN(span, text)                                                                                        \
    do {                                                                                                               \
        assert_int_equal((span).bytes, strlen(text));                                                                  \
        assert_memory_equal((span).bytes == 0 ? (const uint8_t *)"" : (span).data, text, strlen(text));                \
    } while (0)

static const struct amqp_header *header_of(const struct amqp_publish *letter, const char *name)
{
    const struct amqp_header *found = NULL;
    for (size_t i = 0; i < letter->header_count; i++) {
        if (span_is(letter->headers[i].name, name)) {
            assert_null(found);
            found = &letter->headers[i];
        }
    }
    return found;
}

static void a_gateways_message_is_read_whole(void **state)
{
    (void)state;
    const char *const body = "{\"client_id\":\"dev-7\",\"type\":\"text\",\"content\":{\"a\": 1 },\"id\":\"m1\","
                             "\"gateway\":\"gw-1\",\"received_at\":\"2026-11-23T07:21:11.839Z\"}";
    const struct delivery *const delivery =
        take(body, (struct amqp_message){
                       .message_id = SPAN("dev-7:m1"), .reply_to = SPAN("gateway.gw-1"), .correlation_id = SPAN("r1")});
    assert_int_equal(delivery->state, DELIVERY_PENDING);
    ASSERT_SPAN(delivery->client_id, "dev-7");
    ASSERT_SPAN(delivery->type, "text");
    ASSERT_SPAN(delivery->content, "{\"a\": 1 }");
    ASSERT_SPAN(delivery->client_message_id, "m1");
    ASSERT_SPAN(delivery->message_id, "m1");
    ASSERT_SPAN(delivery->gateway, "gw-1");
    ASSERT_SPAN(delivery->reply_to, "gateway.gw-1");
    ASSERT_SPAN(delivery->correlation_id, "r1");
    ASSERT_SPAN(delivery->body, body);
    assert_true(delivery->has_received_at);
    assert_int_equal(delivery->received_unix_ms, INT64_C(1795418471839));
}

/* Names with escapes are decoded into the parser's memory, which the next message overwrites. */
static void names_survive_the_next_message(void **state)
{
    (void)state;
    const struct delivery *const first =
        take("{\"client_id\":\"d\\u0065v\",\"type\":\"t\\u0065xt\",\"content\":1,\"id\":\"\\u006d1\"}",
             (struct amqp_message){.tag = 0});
    const struct delivery *const second =
        take("{\"client_id\":\"X\\u0058X\",\"type\":\"xx\\u0078x\",\"content\":2,\"id\":\"\\u00581\"}",
             (struct amqp_message){.tag = 0});
    assert_int_equal(second->state, DELIVERY_PENDING);
    ASSERT_SPAN(first->client_id, "dev");
    ASSERT_SPAN(first->type, "text");
    ASSERT_SPAN(first->message_id, "m1");
    ASSERT_SPAN(first->content, "1");
}

static void a_message_without_id_takes_the_one_of_its_properties(void **state)
{
    (void)state;
    static const char body[] = "{\"client_id\":\"dev-7\",\"type\":\"text\",\"content\":1}";
    static const struct {
        struct span property;
        const char *message_id;
    } rows[] = {
        {SPAN("dev-7:gw-1-2-3"), "gw-1-2-3"}, {SPAN("7f3a"), "7f3a"},   {SPAN("dev-8:m1"), "dev-8:m1"},
        {SPAN("dev-7:"), "dev-7:"},           {SPAN("dev-7"), "dev-7"}, {SPAN("dev-7:a:b"), "a:b"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct delivery *const delivery = take(body, (struct amqp_message){.message_id = rows[i].property});
        ASSERT_SPAN(delivery->message_id, rows[i].message_id);
        assert_int_equal(delivery->client_message_id.bytes, 0);
        intake_pop(&test.intake);
    }
}

/* Nothing that could be an id, or what is there is no text for the database: one is made, never twice the same. */
static void without_any_id_one_is_made(void **state)
{
    (void)state;
    static const char body[] = "{\"client_id\":\"dev-7\",\"type\":\"text\",\"content\":1}";
    const struct delivery *const first = take(body, (struct amqp_message){.tag = 0});
    const struct delivery *const second = take(body, (struct amqp_message){.message_id = SPAN("a\0b")});
    const struct delivery *const third = take(body, (struct amqp_message){.message_id = SPAN("a\xff")});
    ASSERT_SPAN(first->message_id, "made-1");
    ASSERT_SPAN(second->message_id, "made-2");
    ASSERT_SPAN(third->message_id, "made-3");
    assert_false(intake_at(&test.intake, test.intake.first)->has_received_at);
    assert_int_equal(intake_at(&test.intake, test.intake.first)->gateway.bytes, 0);
}

static void what_cannot_be_stored_is_dead_and_says_why(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        const char *code;
        const char *client_id;
        const char *id;
    } rows[] = {
        {"garbage", "bad_json", "", ""},
        {"", "bad_json", "", ""},
        {"[1]", "bad_message", "", ""},
        {"{\"type\":\"text\",\"content\":1,\"id\":\"m1\"}", "bad_client_id", "", "m1"},
        {"{\"client_id\":\"a b\",\"type\":\"text\",\"content\":1}", "bad_client_id", "", ""},
        {"{\"client_id\":\"dev-7\",\"content\":1,\"id\":\"m1\"}", "bad_type", "dev-7", "m1"},
        {"{\"client_id\":\"dev-7\",\"type\":\"text\",\"id\":\"m1\"}", "bad_content", "dev-7", "m1"},
        {"{\"client_id\":\"dev-7\",\"type\":\"text\",\"content\":\"\\u0000\",\"id\":\"m1\"}", "nul_content", "dev-7",
         "m1"},
        {"{\"client_id\":\"dev-7\",\"type\":\"text\",\"content\":[1e999999],\"id\":\"m1\"}", "number_out_of_range",
         "dev-7", "m1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct delivery *const delivery = take(rows[i].body, (struct amqp_message){.tag = 0});
        assert_int_equal(delivery->state, DELIVERY_DEAD);
        assert_string_equal(delivery->code, rows[i].code);
        assert_true(delivery->detail_bytes > 0);
        ASSERT_SPAN(delivery->client_id, rows[i].client_id);
        ASSERT_SPAN(delivery->client_message_id, rows[i].id);
        ASSERT_SPAN(delivery->body, rows[i].body);
        intake_pop(&test.intake);
    }
}

/* A dead message without an id of its client's is called by the same name as in the gateway's log. */
static void the_dead_have_a_name_too(void **state)
{
    (void)state;
    const struct delivery *const delivery = take("{\"client_id\":\"dev-7\",\"type\":\"text\",\"content\":\"\\u0000\"}",
                                                 (struct amqp_message){.message_id = SPAN("dev-7:gw-1-2-3")});
    assert_int_equal(delivery->state, DELIVERY_DEAD);
    ASSERT_SPAN(delivery->message_id, "gw-1-2-3");
    assert_int_equal(delivery->client_message_id.bytes, 0);
}

/* Only what is stored has to fit: a number that jsonb cannot hold in a member that nobody reads does no harm. */
static void only_the_contents_numbers_count(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{\"before\":1e999999,\"client_id\":\"dev-7\",\"type\":\"text\",\"content\":{\"a\":[1]}}",
        "{\"client_id\":\"dev-7\",\"type\":\"text\",\"content\":{\"a\":[1]},\"after\":[1e999999]}",
        "{\"client_id\":\"dev-7\",\"type\":\"text\",\"content\":2,\"after\":1e999999}",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        assert_int_equal(take(bodies[i], (struct amqp_message){.tag = 0})->state, DELIVERY_PENDING);
    }
}

/* What looks like a whole message is none: it is the beginning of a longer one. */
static void the_beginning_of_a_body_is_not_read(void **state)
{
    (void)state;
    static const char beginning[] = "{\"client_id\":\"dev-7\",\"type\":\"text\",\"content\":1}";
    struct amqp_message message = {.message_id = SPAN("dev-7:m1"), .body_bytes = 5000000, .oversized = true};
    message.header_count = 1;
    message.headers[0] = (struct amqp_header){SPAN("x-postern-body-bytes"), AMQP_HEADER_INTEGER, SPAN(""), 7};
    const struct delivery *const delivery = take(beginning, message);
    assert_int_equal(delivery->state, DELIVERY_DEAD);
    assert_string_equal(delivery->code, "too_large");
    assert_int_equal(delivery->client_id.bytes, 0);
    struct amqp_publish letter;
    struct amqp_header headers[DEAD_LETTER_HEADERS_MAX];
    dead_letter_make(delivery, 1, &letter, headers);
    ASSERT_SPAN(letter.body, beginning);
    ASSERT_SPAN(letter.message_id, "dev-7:m1");
    assert_int_equal(letter.header_count, 4);
    assert_int_equal(header_of(&letter, "x-postern-body-bytes")->integer, 5000000);
}

static void room_ends_with_the_deliveries(void **state)
{
    (void)state;
    static const char body[] = "{\"client_id\":\"dev-7\",\"type\":\"text\",\"content\":1,\"id\":\"m1\"}";
    for (int i = 0; i < DELIVERY_MAX; i++) {
        assert_non_null(take(body, (struct amqp_message){.tag = 0}));
    }
    assert_null(take(body, (struct amqp_message){.tag = 0}));
    intake_pop(&test.intake);
    assert_non_null(take(body, (struct amqp_message){.tag = 0}));
    assert_int_equal(intake_count(&test.intake), DELIVERY_MAX);
}

static void room_ends_with_the_bytes_and_comes_back(void **state)
{
    (void)state;
    static char body[BODY_BYTES_MAX + 1];
    memset(body, 'x', BODY_BYTES_MAX);
    size_t count = 0;
    for (int round = 0; round < 100; round++) {
        if (take(body, (struct amqp_message){.tag = 0}) == NULL) {
            intake_pop(&test.intake);
        } else {
            count++;
        }
    }
    assert_true(intake_count(&test.intake) < DELIVERY_MAX);
    assert_true(count > 50);
}

static void the_end_can_be_cut_off(void **state)
{
    (void)state;
    static const char body[] = "{\"client_id\":\"dev-7\",\"type\":\"text\",\"content\":1,\"id\":\"m1\"}";
    const uint64_t first = test.intake.first;
    for (int i = 0; i < 4; i++) {
        (void)take(body, (struct amqp_message){.tag = 0});
    }
    const uint64_t mark = intake_at(&test.intake, first + 1)->mark;
    intake_cut(&test.intake, first + 2);
    assert_int_equal(intake_count(&test.intake), 2);
    assert_int_equal(test.intake.bytes.head, mark);
    intake_cut(&test.intake, first);
    assert_int_equal(intake_count(&test.intake), 0);
    assert_int_equal(byte_ring_used_bytes(&test.intake.bytes), 0);
    assert_non_null(take(body, (struct amqp_message){.tag = 0}));
    ASSERT_SPAN(intake_at(&test.intake, first)->client_id, "dev-7");
}

static void a_dead_letter_is_the_message_with_three_headers(void **state)
{
    (void)state;
    struct amqp_message message = {.content_type = SPAN("application/json"),
                                   .correlation_id = SPAN("r1"),
                                   .reply_to = SPAN("gateway.gw-1"),
                                   .message_id = SPAN("dev-7:m1"),
                                   .type = SPAN("text"),
                                   .app_id = SPAN("postern"),
                                   .timestamp_s = 77,
                                   .header_count = 3};
    message.headers[0] = (struct amqp_header){SPAN("colour"), AMQP_HEADER_TEXT, SPAN("red"), 0};
    message.headers[1] = (struct amqp_header){SPAN("count"), AMQP_HEADER_INTEGER, SPAN(""), -5};
    message.headers[2] = (struct amqp_header){SPAN("x-delivery-count"), AMQP_HEADER_INTEGER, SPAN(""), 3};
    const struct delivery *const delivery = take("garbage", message);
    struct amqp_publish letter;
    struct amqp_header headers[DEAD_LETTER_HEADERS_MAX];
    dead_letter_make(delivery, 1795418471, &letter, headers);
    ASSERT_SPAN(letter.body, "garbage");
    ASSERT_SPAN(letter.content_type, "application/json");
    ASSERT_SPAN(letter.correlation_id, "r1");
    ASSERT_SPAN(letter.reply_to, "gateway.gw-1");
    ASSERT_SPAN(letter.message_id, "dev-7:m1");
    ASSERT_SPAN(letter.type, "text");
    ASSERT_SPAN(letter.app_id, "postern");
    assert_int_equal(letter.timestamp_s, 77);
    assert_int_equal(letter.header_count, 5);
    ASSERT_SPAN(header_of(&letter, "colour")->text, "red");
    assert_int_equal(header_of(&letter, "count")->integer, -5);
    ASSERT_SPAN(header_of(&letter, "x-postern-reason")->text, "bad_json");
    assert_true(header_of(&letter, "x-postern-detail")->text.bytes > 10);
    assert_int_equal(header_of(&letter, "x-postern-first-failure")->kind, AMQP_HEADER_TIMESTAMP);
    assert_int_equal(header_of(&letter, "x-postern-first-failure")->integer, 1795418471);
}

static void a_second_failure_keeps_the_time_of_the_first(void **state)
{
    (void)state;
    struct amqp_message message = {.header_count = 3};
    message.headers[0] = (struct amqp_header){SPAN("x-postern-reason"), AMQP_HEADER_TEXT, SPAN("old"), 0};
    message.headers[1] = (struct amqp_header){SPAN("x-postern-first-failure"), AMQP_HEADER_TIMESTAMP, SPAN(""), 12345};
    message.headers[2] = (struct amqp_header){SPAN("x-postern-detail"), AMQP_HEADER_TEXT, SPAN("old"), 0};
    struct amqp_publish letter;
    struct amqp_header headers[DEAD_LETTER_HEADERS_MAX];
    dead_letter_make(take("garbage", message), 99999, &letter, headers);
    assert_int_equal(letter.header_count, 3);
    ASSERT_SPAN(header_of(&letter, "x-postern-reason")->text, "bad_json");
    assert_int_equal(header_of(&letter, "x-postern-first-failure")->integer, 12345);
}

static void many_headers_leave_room_for_ours(void **state)
{
    (void)state;
    struct amqp_message message = {.header_count = AMQP_HEADERS_MAX};
    static const char names[AMQP_HEADERS_MAX + 1] = "abcdefghijklmnop";
    for (size_t i = 0; i < AMQP_HEADERS_MAX; i++) {
        message.headers[i] = (struct amqp_header){span_of(&names[i], 1), AMQP_HEADER_TEXT, SPAN("v"), 0};
    }
    struct amqp_publish letter;
    struct amqp_header headers[DEAD_LETTER_HEADERS_MAX];
    dead_letter_make(take("garbage", message), 1, &letter, headers);
    assert_int_equal(letter.header_count, AMQP_HEADERS_MAX);
    assert_non_null(header_of(&letter, "a"));
    assert_null(header_of(&letter, "p"));
    assert_int_equal(header_of(&letter, "x-postern-headers-lost")->integer, 4);
    assert_non_null(header_of(&letter, "x-postern-reason"));
    assert_non_null(header_of(&letter, "x-postern-first-failure"));
}

/* What the link publishes at most for headers is a bound of the frame; what comes has no such bound. */
static void long_headers_are_left_out(void **state)
{
    (void)state;
    static char text[12000];
    memset(text, 't', sizeof text);
    struct amqp_message message = {.header_count = 3};
    message.headers[1] = (struct amqp_header){SPAN("short"), AMQP_HEADER_TEXT, SPAN("value"), 0};
    message.headers[2] = (struct amqp_header){SPAN("count"), AMQP_HEADER_INTEGER, SPAN(""), 7};
    size_t kept_max = 0;
    for (size_t bytes = 1500; bytes <= sizeof text; bytes += bytes < 2200 ? 1 : 977) {
        message.headers[0] = (struct amqp_header){SPAN("long"), AMQP_HEADER_TEXT, span_of(text, bytes), 0};
        struct amqp_publish letter;
        struct amqp_header headers[DEAD_LETTER_HEADERS_MAX];
        dead_letter_make(take("garbage", message), 1, &letter, headers);
        size_t encoded = 4;
        for (size_t i = 0; i < letter.header_count; i++) {
            const struct amqp_header *const header = &letter.headers[i];
            encoded += header->name.bytes + 2 + (header->kind == AMQP_HEADER_TEXT ? 4 + header->text.bytes : 8);
        }
        assert_true(encoded <= AMQP_PUBLISH_HEADERS_BYTES_MAX);
        assert_non_null(header_of(&letter, "x-postern-reason"));
        const struct amqp_header *const lost = header_of(&letter, "x-postern-headers-lost");
        if (header_of(&letter, "long") != NULL) {
            kept_max = bytes;
            assert_true(lost == NULL || lost->integer < 3);
        } else {
            assert_int_equal(lost->integer, 1);
            assert_non_null(header_of(&letter, "short"));
            assert_int_equal(header_of(&letter, "count")->integer, 7);
        }
        intake_pop(&test.intake);
    }
    assert_in_range(kept_max, 1700, 1999);
}

static void a_long_detail_is_cut(void **state)
{
    (void)state;
    struct delivery *const delivery = take("{\"client_id\":\"dev-7\",\"type\":\"text\",\"content\":1,\"id\":\"m1\"}",
                                           (struct amqp_message){.tag = 0});
    char detail[3 * INTAKE_DETAIL_BYTES_MAX];
    memset(detail, 'd', sizeof detail);
    delivery_condemn(delivery, "bad_data", span_of(detail, sizeof detail));
    assert_int_equal(delivery->state, DELIVERY_DEAD);
    assert_int_equal(delivery->detail_bytes, INTAKE_DETAIL_BYTES_MAX);
}

/* The longest messages that a gateway takes with its default MAX_MESSAGE_BYTES, with the longest names, delivered once
 * before. */
static void the_usual_room_is_enough_for_the_whole_prefetch(void **state)
{
    enum { CONTENT_BYTES = 16384, REF_BYTES = 80 };
    static char name[CLIENT_ID_BYTES_MAX + 1 + MESSAGE_ID_BYTES_MAX];
    static char content[CONTENT_BYTES];
    static char bytes[CONTENT_BYTES + ENVELOPE_BODY_OVERHEAD_BYTES_MAX + 1];
    (void)tear_down(state);
    open_intake((size_t)DELIVERY_MAX * PROCESSOR_MESSAGE_BYTES_USUAL, sizeof bytes);
    memset(name, 'n', sizeof name);
    memset(content, 'c', sizeof content);
    content[0] = content[CONTENT_BYTES - 1] = '"';
    const struct envelope_body body = {.client_id = span_of(name, CLIENT_ID_BYTES_MAX),
                                       .type = span_of(name, MESSAGE_TYPE_BYTES_MAX),
                                       .content = span_of(content, sizeof content),
                                       .id = span_of(name, MESSAGE_ID_BYTES_MAX),
                                       .gateway = span_of(name, GATEWAY_ID_BYTES_MAX),
                                       .received_unix_ms = 1764000000000,
                                       .has_received_at = true};
    struct text text = text_in(bytes, sizeof bytes);
    envelope_write_body(&text, &body);
    assert_false(text.truncated);
    bytes[text.used_bytes] = 0;
    struct amqp_message message = {.content_type = SPAN("application/json"),
                                   .correlation_id = span_of(name, REF_BYTES),
                                   .reply_to = span_of(name, sizeof "gateway." - 1 + GATEWAY_ID_BYTES_MAX),
                                   .message_id = span_of(name, sizeof name),
                                   .type = span_of(name, MESSAGE_TYPE_BYTES_MAX),
                                   .app_id = SPAN("postern"),
                                   .header_count = 1};
    message.headers[0] = (struct amqp_header){.name = SPAN("x-delivery-count"), .kind = AMQP_HEADER_INTEGER};
    for (int i = 0; i < DELIVERY_MAX; i++) {
        const struct delivery *const delivery = take(bytes, message);
        assert_non_null(delivery);
        assert_int_equal(delivery->state, DELIVERY_PENDING);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_gateways_message_is_read_whole),
        TEST(names_survive_the_next_message),
        TEST(a_message_without_id_takes_the_one_of_its_properties),
        TEST(without_any_id_one_is_made),
        TEST(what_cannot_be_stored_is_dead_and_says_why),
        TEST(the_dead_have_a_name_too),
        TEST(only_the_contents_numbers_count),
        TEST(the_beginning_of_a_body_is_not_read),
        TEST(room_ends_with_the_deliveries),
        TEST(room_ends_with_the_bytes_and_comes_back),
        TEST(the_end_can_be_cut_off),
        TEST(a_dead_letter_is_the_message_with_three_headers),
        TEST(the_usual_room_is_enough_for_the_whole_prefetch),
        TEST(a_second_failure_keeps_the_time_of_the_first),
        TEST(many_headers_leave_room_for_ours),
        TEST(long_headers_are_left_out),
        TEST(a_long_detail_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
