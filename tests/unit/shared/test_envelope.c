/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "arena.h"
#include "envelope.h"
#include "guard_page.h"
#include "json.h"
#include "text.h"

static _Alignas(ARENA_ALIGN_BYTES) uint8_t memory[128 * 1024];
static struct guard_page guard;
static struct json json;

static struct span put(const char *text)
{
    return span_of(guard_page_put(&guard, text, strlen(text)), strlen(text));
}

static void assert_span(struct span span, const char *text)
{
    if (!span_is(span, text)) {
        fail_msg("'%.*s', not '%s'", (int)span.bytes, (const char *)span.data, text);
    }
}

static void good_messages_are_taken_apart(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *type;
        const char *content; /* NULL: none */
        const char *id;
    } cases[] = {
        {"{\"type\":\"text\",\"content\":\"hello\",\"id\":\"m1\"}", "text", "\"hello\"", "m1"},
        {"{\"content\":{\"a\" : [1, 2] },\"type\":\"voice\"}", "voice", "{\"a\" : [1, 2] }", ""},
        {" { \"id\" : \"a b~!\" , \"type\" : \"a-z_0.9\" , \"content\" :  null } ", "a-z_0.9", "null", "a b~!"},
        {"{\"type\":\"ping\"}", "ping", NULL, ""},
        {"{\"type\":\"text\",\"content\":\"\\u0041\\ud83d\\ude00\"}", "text", "\"\\u0041\\ud83d\\ude00\"", ""},
        {"{\"\\u0074ype\":\"te\\u0078t\",\"c\\u006fntent\":1.50,\"\\u0069d\":\"\\u006d1\"}", "text", "1.50", "m1"},
        {"{\"type\":\"text\",\"content\":-0,\"other\":{\"type\":1},\"ID\":5,\"seq\":[1]}", "text", "-0", ""},
        {"{\"type\":\"text\",\"content\":\"\\u0000\"}", "text", "\"\\u0000\"", ""},
        {"{\"type\":\"text\",\"content\":\"\xd0\xb6\"}", "text", "\"\xd0\xb6\"", ""},
        {"{\"type\":\"aaaaaaaaaabbbbbbbbbbccccccccccdd\",\"content\":\"\"}", "aaaaaaaaaabbbbbbbbbbccccccccccdd", "\"\"",
         ""},
        {"{\"type\":\"t\",\"content\":0,\"id\":\"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggg\"}",
         "t", "0", "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggg"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        struct envelope envelope;
        assert_int_equal(envelope_parse(&json, put(cases[index].text), &envelope), ENVELOPE_OK);
        assert_span(envelope.type, cases[index].type);
        assert_span(envelope.id, cases[index].id);
        assert_int_equal(envelope.has_content, cases[index].content != NULL);
        if (cases[index].content != NULL) {
            assert_span(envelope.content, cases[index].content);
        }
    }
}

static void bad_messages_are_refused_by_code(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *code;
        const char *type; /* what is still known */
        const char *id;
    } cases[] = {
        {"", "bad_json", "", ""},
        {"hello", "bad_json", "", ""},
        {"{\"type\":\"text\",\"content\":1,}", "bad_json", "", ""},
        {"{\"type\":\"text\",\"type\":\"text\",\"content\":1}", "bad_json", "", ""},
        {"{\"type\":\"text\",\"t\\u0079pe\":\"text\",\"content\":1}", "bad_json", "", ""},
        {"[]", "bad_message", "", ""},
        {"\"text\"", "bad_message", "", ""},
        {"null", "bad_message", "", ""},
        {"[{\"type\":\"text\",\"content\":1}]", "bad_message", "", ""},
        {"{}", "bad_type", "", ""},
        {"{\"content\":1,\"id\":\"m1\"}", "bad_type", "", "m1"},
        {"{\"type\":1,\"content\":1,\"id\":\"m1\"}", "bad_type", "", "m1"},
        {"{\"type\":null,\"content\":1}", "bad_type", "", ""},
        {"{\"type\":\"\",\"content\":1}", "bad_type", "", ""},
        {"{\"type\":\"Text\",\"content\":1}", "bad_type", "", ""},
        {"{\"type\":\"te xt\",\"content\":1}", "bad_type", "", ""},
        {"{\"type\":\"te\\u0000xt\",\"content\":1}", "bad_type", "", ""},
        {"{\"type\":\"t\xc3\xa9xt\",\"content\":1}", "bad_type", "", ""},
        {"{\"type\":\"*\",\"content\":1}", "bad_type", "", ""},
        {"{\"type\":\"aaaaaaaaaabbbbbbbbbbccccccccccddd\",\"content\":1}", "bad_type", "", ""},
        {"{\"type\":[\"text\"],\"content\":1}", "bad_type", "", ""},
        {"{\"type\":\"text\",\"content\":1,\"id\":7}", "bad_id", "text", ""},
        {"{\"type\":\"text\",\"content\":1,\"id\":null}", "bad_id", "text", ""},
        {"{\"type\":\"text\",\"content\":1,\"id\":\"\"}", "bad_id", "text", ""},
        {"{\"type\":\"text\",\"content\":1,\"id\":\"a\\\"b\"}", "bad_id", "text", ""},
        {"{\"type\":\"text\",\"content\":1,\"id\":\"a\\\\b\"}", "bad_id", "text", ""},
        {"{\"type\":\"text\",\"content\":1,\"id\":\"a\\nb\"}", "bad_id", "text", ""},
        {"{\"type\":\"text\",\"content\":1,\"id\":\"a\x7f\"}", "bad_id", "text", ""},
        {"{\"type\":\"text\",\"content\":1,\"id\":\"\xc3\xa9\"}", "bad_id", "text", ""},
        {"{\"type\":\"text\",\"id\":\"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggggg\"}", "bad_id",
         "text", ""},
        {"{\"id\":0,\"type\":0}", "bad_type", "", ""},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        struct envelope envelope;
        enum envelope_error error = envelope_parse(&json, put(cases[index].text), &envelope);
        if (strcmp(envelope_error_code(error), cases[index].code) != 0) {
            fail_msg("%s: %s", cases[index].text, envelope_error_code(error));
        }
        assert_span(envelope.type, cases[index].type);
        assert_span(envelope.id, cases[index].id);
    }
}

static void a_written_body_reads_the_same(void **state)
{
    (void)state;
    char buffer[512];
    struct text text = text_in(buffer, sizeof buffer);
    struct envelope_body body = {
        .client_id = SPAN("dev-7"),
        .type = SPAN("text"),
        .content = SPAN("{\"a\": [1,2]}"),
        .id = SPAN("m1"),
        .gateway = SPAN("gw-1"),
        .received_unix_ms = 1795418471839,
        .has_received_at = true,
    };
    envelope_write_body(&text, &body);
    assert_false(text.truncated);
    static const char expected[] =
        "{\"client_id\":\"dev-7\",\"type\":\"text\",\"content\":{\"a\": [1,2]},\"id\":\"m1\","
        "\"gateway\":\"gw-1\",\"received_at\":\"2026-11-23T07:21:11.839Z\"}";
    assert_span(text_span(&text), expected);
    struct envelope_body read;
    assert_int_equal(envelope_parse_body(&json, text_span(&text), &read), ENVELOPE_OK);
    assert_span(read.client_id, "dev-7");
    assert_span(read.type, "text");
    assert_span(read.content, "{\"a\": [1,2]}");
    assert_span(read.id, "m1");
    assert_span(read.gateway, "gw-1");
    assert_true(read.has_received_at && read.received_unix_ms == 1795418471839);

    body.id.bytes = 0;
    body.gateway.bytes = 0;
    body.has_received_at = false;
    text = text_in(buffer, sizeof buffer);
    envelope_write_body(&text, &body);
    assert_span(text_span(&text), "{\"client_id\":\"dev-7\",\"type\":\"text\",\"content\":{\"a\": [1,2]}}");
    assert_int_equal(envelope_parse_body(&json, text_span(&text), &read), ENVELOPE_OK);
    assert_int_equal(read.id.bytes + read.gateway.bytes, 0);
    assert_false(read.has_received_at);
}

static void the_longest_body_has_the_length_it_may_have(void **state)
{
    (void)state;
    char longest[64];
    memset(longest, 'a', sizeof longest);
    const struct envelope_body body = {
        .client_id = span_of(longest, CLIENT_ID_BYTES_MAX),
        .type = span_of(longest, MESSAGE_TYPE_BYTES_MAX),
        .content = SPAN("12345"),
        .id = span_of(longest, MESSAGE_ID_BYTES_MAX),
        .gateway = span_of(longest, GATEWAY_ID_BYTES_MAX),
        .received_unix_ms = 0,
        .has_received_at = true,
    };
    char buffer[ENVELOPE_BODY_OVERHEAD_BYTES_MAX + 5];
    struct text text = text_in(buffer, sizeof buffer);
    envelope_write_body(&text, &body);
    assert_false(text.truncated);
    assert_int_equal(text.used_bytes, sizeof buffer);
    text = text_in(buffer, sizeof buffer - 1);
    envelope_write_body(&text, &body);
    assert_true(text.truncated);
}

static void bodies_are_judged(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum envelope_error error;
    } cases[] = {
        {"{\"client_id\":\"a\",\"type\":\"text\",\"content\":null}", ENVELOPE_OK},
        {"{\"content\":[],\"other\":\"\\u0000\",\"type\":\"text\",\"client_id\":\"A.z_~-9\"}", ENVELOPE_OK},
        {"{\"client_id\":\"a\",\"type\":\"text\",\"content\":1,\"gateway\":\"GW.1_x-2\"}", ENVELOPE_OK},
        {"", ENVELOPE_BAD_JSON},
        {"{\"client_id\":\"a\"", ENVELOPE_BAD_JSON},
        {"7", ENVELOPE_BAD_MESSAGE},
        {"{}", ENVELOPE_BAD_TYPE},
        {"{\"type\":\"text\",\"content\":1}", ENVELOPE_BAD_CLIENT_ID},
        {"{\"client_id\":7,\"type\":\"text\",\"content\":1}", ENVELOPE_BAD_CLIENT_ID},
        {"{\"client_id\":\"a/b\",\"type\":\"text\",\"content\":1}", ENVELOPE_BAD_CLIENT_ID},
        {"{\"client_id\":\"a#\",\"type\":\"text\",\"content\":1}", ENVELOPE_BAD_CLIENT_ID},
        {"{\"client_id\":\"\",\"type\":\"text\",\"content\":1}", ENVELOPE_BAD_CLIENT_ID},
        {"{\"client_id\":\"a\",\"content\":1}", ENVELOPE_BAD_TYPE},
        {"{\"client_id\":\"a\",\"type\":\"TEXT\",\"content\":1}", ENVELOPE_BAD_TYPE},
        {"{\"client_id\":\"a\",\"type\":\"text\"}", ENVELOPE_BAD_CONTENT},
        {"{\"client_id\":\"a\",\"type\":\"text\",\"content\":1,\"id\":\"\"}", ENVELOPE_BAD_ID},
        {"{\"client_id\":\"a\",\"type\":\"text\",\"content\":1,\"gateway\":\"\"}", ENVELOPE_BAD_GATEWAY},
        {"{\"client_id\":\"a\",\"type\":\"text\",\"content\":1,\"gateway\":\"g w\"}", ENVELOPE_BAD_GATEWAY},
        {"{\"client_id\":\"a\",\"type\":\"text\",\"content\":1,\"gateway\":null}", ENVELOPE_BAD_GATEWAY},
        {"{\"client_id\":\"a\",\"type\":\"text\",\"content\":1,\"received_at\":1}", ENVELOPE_BAD_RECEIVED_AT},
        {"{\"client_id\":\"a\",\"type\":\"text\",\"content\":\"x\\u0000\"}", ENVELOPE_NUL_CONTENT},
        {"{\"client_id\":\"a\",\"type\":\"text\",\"content\":[{\"\\u0000\":1}]}", ENVELOPE_NUL_CONTENT},
        {"{\"client_id\":\"a\",\"type\":\"text\",\"content\":\"\\\\u0000\"}", ENVELOPE_OK},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        struct envelope_body body;
        enum envelope_error error = envelope_parse_body(&json, put(cases[index].text), &body);
        if (error != cases[index].error) {
            fail_msg("%s: %s", cases[index].text, envelope_error_code(error));
        }
    }
}

static void times_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *time;
        int64_t unix_ms; /* -1: wrong */
    } cases[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"1970-01-01T00:00:00.001Z", 1},
        {"1970-01-01T00:00:00.9999Z", 999},
        {"1970-01-01T00:00:00.1Z", 100},
        {"1970-01-01t00:00:01z", 1000},
        {"2026-11-23T07:21:11.839Z", 1795418471839},
        {"2026-11-23T09:21:11.839+02:00", 1795418471839},
        {"2026-11-22T19:51:11.839123456-11:30", 1795418471839},
        {"2000-02-29T12:00:00Z", 951825600000},
        {"2016-12-31T23:59:60Z", 1483228800000},
        {"2100-03-01T00:00:00Z", 4107542400000},
        {"9999-12-31T23:59:59.999Z", 253402300799999},
        {"1970-01-01T00:00:00+00:01", -1},
        {"9999-12-31T23:59:59-00:01", -1},
        {"1969-12-31T23:59:59Z", -1},
        {"10000-01-01T00:00:00Z", -1},
        {"2026-02-29T00:00:00Z", -1},
        {"2100-02-29T00:00:00Z", -1},
        {"2026-13-01T00:00:00Z", -1},
        {"2026-00-01T00:00:00Z", -1},
        {"2026-01-00T00:00:00Z", -1},
        {"2026-04-31T00:00:00Z", -1},
        {"2026-01-01T24:00:00Z", -1},
        {"2026-01-01T00:60:00Z", -1},
        {"2026-01-01T00:00:61Z", -1},
        {"2026-01-01 00:00:00Z", -1},
        {"2026-01-01T00:00:00", -1},
        {"2026-01-01T00:00:00.Z", -1},
        {"2026-01-01T00:00:00,5Z", -1},
        {"2026-01-01T00:00:00Zx", -1},
        {"2026-01-01T00:00:00+0200", -1},
        {"2026-01-01T00:00:00+24:00", -1},
        {"2026-01-01T00:00:00+02:60", -1},
        {"2026-01-01T00:00Z", -1},
        {"2026-1-1T00:00:00Z", -1},
        {"2026-01-01", -1},
        {"+026-01-01T00:00:00Z", -1},
        {"", -1},
        {"now", -1},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        char text[256];
        (void)snprintf(text, sizeof text, "{\"client_id\":\"a\",\"type\":\"t\",\"content\":1,\"received_at\":\"%s\"}",
                       cases[index].time);
        struct envelope_body body;
        enum envelope_error error = envelope_parse_body(&json, put(text), &body);
        bool good = cases[index].unix_ms >= 0;
        if (error != (good ? ENVELOPE_OK : ENVELOPE_BAD_RECEIVED_AT) || body.has_received_at != good ||
            (good && body.received_unix_ms != cases[index].unix_ms)) {
            fail_msg("%s: %s, %lld", cases[index].time, envelope_error_code(error), (long long)body.received_unix_ms);
        }
    }
}

/* Writer and reader of times against each other, over four centuries of days. */
static void times_come_back(void **state)
{
    (void)state;
    for (int64_t unix_ms = 0; unix_ms < INT64_C(13000000000000); unix_ms += 86400000 * 3 + 3723004) {
        char buffer[256];
        struct text text = text_in(buffer, sizeof buffer);
        const struct envelope_body body = {.client_id = SPAN("a"),
                                           .type = SPAN("t"),
                                           .content = SPAN("1"),
                                           .received_unix_ms = unix_ms,
                                           .has_received_at = true};
        envelope_write_body(&text, &body);
        struct envelope_body read;
        assert_int_equal(envelope_parse_body(&json, text_span(&text), &read), ENVELOPE_OK);
        assert_true(read.received_unix_ms == unix_ms);
    }
}

static void forms_are_exact(void **state)
{
    (void)state;
    for (unsigned byte = 0; byte < 256; byte++) {
        uint8_t one = (uint8_t)byte;
        struct span text = span_of(guard_page_put(&guard, &one, 1), 1);
        bool digit = byte >= '0' && byte <= '9';
        bool lower = byte >= 'a' && byte <= 'z';
        bool upper = byte >= 'A' && byte <= 'Z';
        bool joint = byte == '.' || byte == '_' || byte == '-';
        assert_int_equal(client_id_valid(text), digit || lower || upper || joint || byte == '~');
        assert_int_equal(gateway_id_valid(text), digit || lower || upper || joint);
        assert_int_equal(message_type_valid(text), digit || lower || joint);
        assert_int_equal(message_id_valid(text), byte >= ' ' && byte <= '~' && byte != '"' && byte != '\\');
    }
    static const struct {
        bool (*form)(struct span);
        size_t bytes_max;
    } forms[] = {{client_id_valid, 64}, {gateway_id_valid, 63}, {message_type_valid, 32}, {message_id_valid, 64}};
    char longest[65];
    memset(longest, 'a', sizeof longest);
    for (size_t index = 0; index < 4; index++) {
        assert_false(forms[index].form(span_of(longest, 0)));
        assert_true(forms[index].form(span_of(longest, forms[index].bytes_max)));
        assert_false(forms[index].form(span_of(longest, forms[index].bytes_max + 1)));
    }
}

static void descriptions_name_the_place(void **state)
{
    (void)state;
    char buffer[ENVELOPE_DESCRIPTION_BYTES_MAX];
    struct envelope envelope;
    struct text text = text_in(buffer, sizeof buffer);
    envelope_describe(&text, envelope_parse(&json, put("{\"a\":1,\"a\":2}"), &envelope), &json);
    assert_span(text_span(&text), "not JSON: a member's name is given twice, at byte 7");
    for (int error = ENVELOPE_OK; error <= ENVELOPE_NUL_CONTENT; error++) {
        text = text_in(buffer, sizeof buffer);
        envelope_describe(&text, (enum envelope_error)error, &json);
        assert_false(text.truncated);
        for (size_t at = 0; at < text.used_bytes; at++) {
            assert_true(buffer[at] >= ' ' && buffer[at] <= '~' && buffer[at] != '"' && buffer[at] != '\\');
        }
    }
}

static int open_all(void **state)
{
    (void)state;
    struct arena arena;
    const struct siphash_key key = {{3, 4}};
    guard_page_open(&guard, 4096);
    arena_begin(&arena, memory, sizeof memory);
    json_init(&json, &arena, 4096, &key);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    guard_page_close(&guard);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_messages_are_taken_apart),
        cmocka_unit_test(bad_messages_are_refused_by_code),
        cmocka_unit_test(a_written_body_reads_the_same),
        cmocka_unit_test(the_longest_body_has_the_length_it_may_have),
        cmocka_unit_test(bodies_are_judged),
        cmocka_unit_test(times_are_read),
        cmocka_unit_test(times_come_back),
        cmocka_unit_test(forms_are_exact),
        cmocka_unit_test(descriptions_name_the_place),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
