/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "table_top.h"

/* What messages are answered; what is taken lies in the outbox, because there is no broker. */

static void expect_error(struct client *client, const char *seq_and_id, const char *code)
{
    struct frame frame = client_read(client);
    assert_int_equal(frame.opcode, 1);
    static const char begin[] = "{\"type\":\"error\",";
    assert_memory_equal(frame.text, begin, sizeof begin - 1);
    assert_memory_equal(frame.text + sizeof begin - 1, seq_and_id, strlen(seq_and_id));
    assert_non_null(strstr(frame.text, code));
}

static void messages_are_taken_in_silence(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    struct client *client = client_join(table, "dev-7");
    client_say(client, "{\"type\":\"text\",\"content\":\"hello\"}");
    client_say(client, "{\"id\":\"m2\",\"content\":{\"a\":[1,2]},\"type\":\"voice\",\"more\":1}");
    client_say(client, "{\"type\":\"pong\"}");
    client_say(client, "{\"type\":\"ping\"}");
    client_expect(client, "{\"type\":\"pong\"}");
    assert_int_equal(outbox_counters(table->gateway.outbox)->taken_count, 2);
    client_close(client);
    table_top_close(table);
}

static void errors_name_the_message_and_the_cause(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    struct client *client = client_join(table, "dev-7");
    client_say(client, "{\"type\":\"text\",}");
    expect_error(client, "\"seq\":1,\"code\":", "\"bad_json\"");
    client_say(client, "[1]");
    expect_error(client, "\"seq\":2,\"code\":", "\"bad_message\"");
    client_say(client, "{\"type\":\"TEXT\",\"content\":1,\"id\":\"m3\"}");
    expect_error(client, "\"seq\":3,\"id\":\"m3\",\"code\":", "\"bad_type\"");
    client_say(client, "{\"type\":\"text\",\"id\":\"m4\"}");
    expect_error(client, "\"seq\":4,\"id\":\"m4\",\"code\":", "\"bad_content\"");
    client_say(client, "{\"type\":\"text\",\"content\":1,\"id\":7}");
    expect_error(client, "\"seq\":5,\"code\":", "\"bad_id\"");
    client_say(client, "{\"type\":\"smoke\",\"content\":1,\"id\":\"m6\"}");
    expect_error(client, "\"seq\":6,\"id\":\"m6\",\"code\":", "\"unknown_type\"");
    client_say(client, "{\"type\":\"text\",\"content\":1}");
    client_say(client, "{\"type\":\"smoke\"}");
    expect_error(client, "\"seq\":8,\"code\":", "\"unknown_type\"");
    assert_int_equal(outbox_counters(table->gateway.outbox)->taken_count, 1);
    client_close(client);
    table_top_close(table);
}

static void ten_errors_in_a_minute_are_too_many(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    struct client *client = client_join(table, "dev-7");
    for (int count = 0; count < 9; count++) {
        client_say(client, "x");
        assert_int_equal(client_read(client).opcode, 1);
    }
    table->clock_ms += 61000;
    for (int count = 0; count < 9; count++) {
        client_say(client, "x");
        struct frame frame = client_read(client);
        // The heartbeat may ask in between, because the clock jumped.
        assert_int_equal((frame.opcode == 9 ? client_read(client) : frame).opcode, 1);
    }
    client_say(client, "x");
    assert_int_equal(client_read(client).opcode, 1);
    client_expect_close(client, 1008);
    client_close(client);
    table_top_close(table);
}

static void binary_and_too_long_messages_end_it(void **state)
{
    (void)state;
    static char large[20000];
    struct table_top *table = table_top_open(NULL);
    struct client *client = client_join(table, "a");
    client_send_frame(client, 2, "x", 1);
    client_expect_close(client, 1003);
    client_close(client);
    client = client_join(table, "b");
    memset(large, 'x', sizeof large);
    client_send_frame(client, 1, large, sizeof large);
    client_expect_close(client, 1009);
    client_close(client);
    client = client_join(table, "c");
    client_send_frame(client, 1, "\xff", 1);
    client_expect_close(client, 1007);
    client_close(client);
    table_top_close(table);
}

static void other_routes(struct settings *settings)
{
    strcpy(settings->routes, "alarm -> alarms; * -> rest");
}

static void routes_decide(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(other_routes);
    struct client *client = client_join(table, "dev-7");
    client_say(client, "{\"type\":\"alarm\",\"content\":1}");
    client_say(client, "{\"type\":\"whatever\",\"content\":1}");
    client_say(client, "{\"type\":\"ping\"}");
    client_expect(client, "{\"type\":\"pong\"}");
    assert_int_equal(outbox_counters(table->gateway.outbox)->taken_count, 2);
    client_close(client);
    table_top_close(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_are_taken_in_silence),
        cmocka_unit_test(errors_name_the_message_and_the_cause),
        cmocka_unit_test(ten_errors_in_a_minute_are_too_many),
        cmocka_unit_test(binary_and_too_long_messages_end_it),
        cmocka_unit_test(routes_decide),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
