/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

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

static struct table_top *stopped_table;

static size_t wait_that_was_stopped(void *context, struct port_event *events, size_t event_max, int64_t timeout_ms)
{
    (void)context;
    (void)events;
    (void)event_max;
    (void)timeout_ms;
    stopped_table->port.wait = stopped_table->real.wait;
    stopped_table->clock_ms += 10200;
    return 0; // a signal ended it
}

static void who_answers_a_stopped_process_is_heard(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    struct client *client = client_join(table, "dev-7");
    table->clock_ms += 30200;
    assert_int_equal(client_read(client).opcode, 9);
    client_send_frame(client, 10, "", 0);
    stopped_table = table;
    table->port.wait = wait_that_was_stopped;
    assert_int_equal(client_peek(client).opcode, 0);
    assert_int_equal(table->gateway.server.open_count, 1);
    client_close(client);
    table_top_close(table);
}

/* More than one wait tells of. */
enum { CROWD_COUNT = GATEWAY_EVENTS_MAX + 60 };

static void with_a_crowd(struct settings *settings)
{
    settings->max_connections = CROWD_COUNT + 1;
}

static void join_crowd(struct table_top *table, struct client *crowd[CROWD_COUNT])
{
    for (int index = 0; index < CROWD_COUNT; index++) {
        char name[8];
        (void)snprintf(name, sizeof name, "c%d", index);
        crowd[index] = client_join(table, name);
    }
}

static void close_crowd(struct client *crowd[CROWD_COUNT])
{
    for (int index = 0; index < CROWD_COUNT; index++) {
        client_close(crowd[index]);
    }
}

static void a_late_loop_reads_all_answers_before_it_judges(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(with_a_crowd);
    struct client *crowd[CROWD_COUNT];
    join_crowd(table, crowd);
    table->clock_ms += 30200;
    for (int index = 0; index < CROWD_COUNT; index++) {
        assert_int_equal(client_read(crowd[index]).opcode, 9);
    }
    for (int index = 0; index < CROWD_COUNT; index++) {
        client_send_frame(crowd[index], 10, "", 0);
    }
    table->clock_ms += 10200;
    for (int turn = 0; turn < 10; turn++) {
        (void)table_top_turn(table);
    }
    assert_int_equal(table->gateway.server.open_count, CROWD_COUNT);
    close_crowd(crowd);
    table_top_close(table);
}

static void time_goes_on_for_a_gateway_that_is_busy_without_end(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(with_a_crowd);
    struct client *crowd[CROWD_COUNT];
    join_crowd(table, crowd);
    struct client *silent = client_join(table, "dev-7");
    table->clock_ms += 30200;
    for (int turn = 0; turn < 4; turn++) {
        for (int index = 0; index < CROWD_COUNT; index++) {
            client_send_frame(crowd[index], 9, "", 0);
        }
        (void)table_top_turn(table);
    }
    uint8_t ping[2];
    assert_int_equal(recv(silent->socket, ping, sizeof ping, 0), 2);
    assert_int_equal(ping[0], 0x89);
    client_close(silent);
    close_crowd(crowd);
    table_top_close(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_silent_client_is_asked_and_then_closed),
        cmocka_unit_test(an_answer_keeps_it),
        cmocka_unit_test(older_clients_are_asked_in_a_message),
        cmocka_unit_test(who_answers_a_stopped_process_is_heard),
        cmocka_unit_test(a_late_loop_reads_all_answers_before_it_judges),
        cmocka_unit_test(time_goes_on_for_a_gateway_that_is_busy_without_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
