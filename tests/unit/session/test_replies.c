/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "replies.h"

static char buffer[REPLY_BYTES_MAX];

static void expect(const struct text *text, const char *json)
{
    assert_false(text->truncated);
    assert_int_equal(text->used_bytes, strlen(json));
    assert_memory_equal(text->data, json, text->used_bytes);
}

static struct text fresh(void)
{
    return text_in(buffer, sizeof buffer);
}

static struct span span_max(char character, size_t bytes)
{
    static char all[1024];
    memset(all, character, sizeof all);
    assert_true(bytes <= sizeof all);
    return span_of(all, bytes);
}

static void greetings_and_short_replies(void **state)
{
    (void)state;
    struct text text = fresh();
    reply_connected(&text, span_text("dev-7"), 30, 16384);
    expect(&text, "{\"type\":\"connected\",\"message\":\"Connected\",\"client_id\":\"dev-7\",\"heartbeat\":30,"
                  "\"max_message_bytes\":16384}");
    text = fresh();
    reply_busy(&text, 500);
    expect(&text, "{\"type\":\"busy\",\"retry_after_ms\":500}");
    text = fresh();
    reply_ping(&text);
    expect(&text, "{\"type\":\"ping\"}");
    text = fresh();
    reply_pong(&text);
    expect(&text, "{\"type\":\"pong\"}");
}

static void receipts_leave_out_what_is_not_known(void **state)
{
    (void)state;
    struct span none = span_of(NULL, 0);
    struct text text = fresh();
    reply_receipt(&text, 12, span_text("m1"), RECEIPT_QUEUED, none, none);
    expect(&text, "{\"type\":\"receipt\",\"seq\":12,\"id\":\"m1\",\"status\":\"queued\"}");
    text = fresh();
    reply_receipt(&text, 12, none, RECEIPT_STORED, none, none);
    expect(&text, "{\"type\":\"receipt\",\"seq\":12,\"status\":\"stored\"}");
    text = fresh();
    reply_receipt(&text, 0, span_text("m1"), RECEIPT_REJECTED, span_text("rejected"), span_text("outside_hours"));
    expect(&text, "{\"type\":\"receipt\",\"id\":\"m1\",\"status\":\"rejected\",\"code\":\"rejected\","
                  "\"reason\":\"outside_hours\"}");
}

static void errors_are_escaped(void **state)
{
    (void)state;
    struct text text = fresh();
    reply_error(&text, 3, span_of(NULL, 0), span_text("bad_json"), span_text("a \"quote\"\n"));
    expect(&text, "{\"type\":\"error\",\"seq\":3,\"code\":\"bad_json\",\"error\":\"a \\\"quote\\\"\\n\"}");
    text = fresh();
    reply_error(&text, 0, span_of(NULL, 0), span_text("already_connected"), span_text("Already connected"));
    expect(&text, "{\"type\":\"error\",\"code\":\"already_connected\",\"error\":\"Already connected\"}");
}

static void the_largest_fit(void **state)
{
    (void)state;
    struct span id = span_max('i', MESSAGE_ID_BYTES_MAX);
    struct text text = fresh();
    reply_receipt(&text, UINT32_MAX, id, RECEIPT_REJECTED, span_max('\x01', 1024), span_max('\x01', 1024));
    assert_false(text.truncated);
    assert_int_equal(text.data[text.used_bytes - 1], '}');
    text = fresh();
    reply_error(&text, UINT32_MAX, id, span_max('\x01', 1024), span_max('\x01', 1024));
    assert_false(text.truncated);
    text = fresh();
    reply_connected(&text, span_max('c', CLIENT_ID_BYTES_MAX), UINT64_MAX, UINT64_MAX);
    assert_false(text.truncated);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greetings_and_short_replies),
        cmocka_unit_test(receipts_leave_out_what_is_not_known),
        cmocka_unit_test(errors_are_escaped),
        cmocka_unit_test(the_largest_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
