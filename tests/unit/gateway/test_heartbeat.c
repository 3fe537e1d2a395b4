/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "table_top.h"

/* Silence, in both modes. The clock is pushed, not waited for. */

static void a_silent_client_is_asked_and_then_closed(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    struct client *client = client_join(table, "dev-7");
    table->clock_ms += 29000;
    assert_int_equal(client_peek(client).opcode, 0);
    table->clock_ms += 1200;
    assert_int_equal(client_read(client).opcode, 9);
    table->clock_ms += 9000;
    assert_int_equal(client_peek(client).opcode, 0);
    table->clock_ms += 1200;
    client_expect_close(client, 1001);
    client_close(client);
    table_top_close(table);
}

static void an_answer_keeps_it(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    struct client *client = client_join(table, "dev-7");
    for (int round = 0; round < 3; round++) {
        table->clock_ms += 30200;
        assert_int_equal(client_read(client).opcode, 9);
        client_send_frame(client, 10, "", 0);
        assert_int_equal(client_peek(client).opcode, 0);
        table->clock_ms += 10200;
        assert_int_equal(client_peek(client).opcode, 0);
        table->clock_ms += 10000;
    }
    client_close(client);
    table_top_close(table);
}

static void message_mode(struct settings *settings)
{
    settings->heartbeat_mode = SETTINGS_HEARTBEAT_MESSAGE;
}

static void older_clients_are_asked_in_a_message(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(message_mode);
    struct client *client = client_join(table, "dev-7");
    table->clock_ms += 30200;
    client_expect(client, "{\"type\":\"ping\"}");
    client_say(client, "{\"type\":\"pong\"}");
    assert_int_equal(client_peek(client).opcode, 0);
    table->clock_ms += 10200;
    assert_int_equal(client_peek(client).opcode, 0);
    table->clock_ms += 20000;
    client_expect(client, "{\"type\":\"ping\"}");
    table->clock_ms += 10200;
    client_expect_close(client, 1001);
    client_close(client);
    table_top_close(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_silent_client_is_asked_and_then_closed),
        cmocka_unit_test(an_answer_keeps_it),
        cmocka_unit_test(older_clients_are_asked_in_a_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
