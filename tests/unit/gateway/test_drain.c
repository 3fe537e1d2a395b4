/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "table_top.h"

/* SIGTERM. */

enum { CLIENT_COUNT = 10 };

static enum gateway_turned turn_until_over(struct table_top *table)
{
    enum gateway_turned turned;
    int turn_count = 0;
    do {
        turned = table_top_turn(table);
        table->clock_ms += 10;
        assert_true(turn_count++ < 5000);
    } while (turned == GATEWAY_TURN_ON);
    return turned;
}

static void clients_are_closed_one_after_another(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    struct client *clients[CLIENT_COUNT];
    for (int index = 0; index < CLIENT_COUNT; index++) {
        char name[8];
        (void)snprintf(name, sizeof name, "c%d", index);
        clients[index] = client_join(table, name);
    }
    struct client *late = client_connect(table);
    (void)table_top_turn(table);
    table->signals = PORT_SIGNAL_STOP;
    (void)table_top_turn(table);
    table->clock_ms += table->settings.drain_ms / 2;
    for (int turn = 0; turn < 5; turn++) {
        (void)table_top_turn(table);
    }
    // Half of the time has passed, and so half of them are told, give or take the one at the border.
    uint32_t open_count = table->gateway.server.open_count;
    assert_in_range(open_count, CLIENT_COUNT / 2 - 1, CLIENT_COUNT / 2);
    static const char request[] = "GET /late HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    client_send_raw(late, request, sizeof request - 1);
    assert_int_equal(client_status(late), 503);
    client_close(late);
    assert_int_equal(turn_until_over(table), GATEWAY_DRAINED);
    for (int index = 0; index < CLIENT_COUNT; index++) {
        client_expect_close(clients[index], 1012);
        client_close(clients[index]);
    }
    table_top_close(table);
}

static void nobody_there_ends_at_once(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    table->signals = PORT_SIGNAL_STOP;
    int turn_count = 0;
    while (table_top_turn(table) == GATEWAY_TURN_ON) {
        assert_true(turn_count++ < 100);
    }
    table_top_close(table);
}

static void at_once(struct settings *settings)
{
    settings->drain_ms = 0;
}

/* The last client's end is the last thing it waits for, and comes within a turn: no time passes behind it. */
static void it_ends_with_the_last_client(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(at_once);
    struct client *client = client_join(table, "a");
    table->signals = PORT_SIGNAL_STOP;
    client_expect_close(client, 1012);
    client_send_frame(client, 8, "\x03\xf4", 2);
    client_close(client);
    enum gateway_turned turned = GATEWAY_TURN_ON;
    for (int turn = 0; turn < 100 && table->gateway.server.connection_count > 0; turn++) {
        assert_int_equal(turned, GATEWAY_TURN_ON);
        turned = table_top_turn(table);
    }
    assert_int_equal(table->gateway.server.connection_count, 0);
    assert_int_equal(turned, GATEWAY_DRAINED);
    table_top_close(table);
}

static void without_a_broker_it_ends_all_the_same(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    struct client *client = client_join(table, "a");
    client_say(client, "{\"type\":\"text\",\"content\":1}");
    assert_int_equal(client_peek(client).opcode, 0);
    assert_int_equal(outbox_counters(table->gateway.outbox)->depth_count, 1);
    table->signals = PORT_SIGNAL_STOP;
    assert_int_equal(turn_until_over(table), GATEWAY_DRAINED);
    client_expect_close(client, 1012);
    client_close(client);
    table_top_close(table);
}

static void nothing_more_is_taken_while_it_drains(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    struct client *first = client_join(table, "a");
    struct client *client = client_join(table, "b");
    table->signals = PORT_SIGNAL_STOP;
    (void)table_top_turn(table);
    client_say(client, "{\"type\":\"text\",\"content\":1}");
    assert_int_equal(client_peek(client).opcode, 0);
    assert_int_equal(outbox_counters(table->gateway.outbox)->taken_count, 0);
    assert_int_equal(turn_until_over(table), GATEWAY_DRAINED);
    client_close(first);
    client_close(client);
    table_top_close(table);
}

static void a_second_signal_ends_it_at_once(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    struct client *first = client_join(table, "a");
    struct client *client = client_join(table, "b");
    table->signals = PORT_SIGNAL_STOP;
    assert_int_equal(table_top_turn(table), GATEWAY_TURN_ON);
    table->signals = PORT_SIGNAL_STOP;
    assert_int_equal(gateway_run(&table->gateway), PROGRAM_EXIT_FAILED);
    // Nothing is closed in good order after it, so its last words must have been written.
    table->gateway.log.buffer_bytes = 0;
    assert_int_equal(table_top_log_count(table, "event=stopped_at_once"), 1);
    assert_int_equal(table_top_log_count(table, "event=gateway_stopped"), 1);
    client_close(first);
    client_close(client);
    table_top_close(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clients_are_closed_one_after_another),
        cmocka_unit_test(nobody_there_ends_at_once),
        cmocka_unit_test(it_ends_with_the_last_client),
        cmocka_unit_test(without_a_broker_it_ends_all_the_same),
        cmocka_unit_test(nothing_more_is_taken_while_it_drains),
        cmocka_unit_test(a_second_signal_ends_it_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
