/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "table_top.h"

/* Who is let in, and who is not. */

static void everyone_is_greeted(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    struct client *client = client_open(table, "/dev-7");
    assert_int_equal(client_status(client), 101);
    client_expect(client, "{\"type\":\"connected\",\"message\":\"Connected\",\"client_id\":\"dev-7\",\"heartbeat\":30,"
                          "\"max_message_bytes\":16384}");
    assert_int_equal(table->gateway.sessions.count, 1);
    client_close(client);
    table_top_close(table);
}

static void bad_paths_are_refused_before_the_upgrade(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "/",
        "/a/b",
        "/a%20b",
        "/a+b",
        "//",
        "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "/a?receipts=",
        "/a?receipts=all",
        "/a?receipts=none,queued",
    };
    struct table_top *table = table_top_open(NULL);
    for (size_t index = 0; index < sizeof wrong / sizeof wrong[0]; index++) {
        struct client *client = client_open(table, wrong[index]);
        assert_int_equal(client_status(client), 400);
        client_close(client);
    }
    struct client *client = client_open(table, "/A.z_0~-?x=1&receipts=stored%2Cqueued");
    assert_int_equal(client_status(client), 101);
    client_close(client);
    table_top_close(table);
}

static void a_second_connection_is_refused(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    struct client *first = client_join(table, "dev-7");
    struct client *second = client_open(table, "/dev-7");
    assert_int_equal(client_status(second), 101);
    client_expect(second, "{\"type\":\"error\",\"code\":\"already_connected\",\"error\":\"Already connected\"}");
    client_expect_close(second, 4009);
    client_say(first, "{\"type\":\"ping\"}");
    client_expect(first, "{\"type\":\"pong\"}");
    client_close(second);
    // Once the first has gone, the id is free.
    client_close(first);
    while (table->gateway.sessions.count > 0) {
        (void)table_top_turn(table);
    }
    client_close(client_join(table, "dev-7"));
    table_top_close(table);
}

static void three_clients(struct settings *settings)
{
    settings->max_connections = 3;
}

static void beyond_the_limit_the_refusal_is_said(void **state)
{
    (void)state;
    enum { LATE_COUNT = 10 };
    struct table_top *table = table_top_open(three_clients);
    struct client *inside[3];
    for (int index = 0; index < 3; index++) {
        char name[8];
        (void)snprintf(name, sizeof name, "c%d", index);
        inside[index] = client_join(table, name);
    }
    struct client *late[LATE_COUNT];
    for (int index = 0; index < LATE_COUNT; index++) {
        late[index] = client_open(table, "/late");
        assert_int_equal(client_status(late[index]), 101);
        client_expect(late[index],
                      "{\"type\":\"error\",\"code\":\"max_connections\",\"error\":\"Max connections reached\"}");
        client_expect_close(late[index], 1013);
    }
    assert_int_equal(table->gateway.sessions.count, 3);
    for (int index = 0; index < LATE_COUNT; index++) {
        client_close(late[index]);
    }
    client_close(inside[0]);
    while (table->gateway.sessions.count > 2) {
        (void)table_top_turn(table);
    }
    client_close(client_join(table, "late"));
    client_close(inside[1]);
    client_close(inside[2]);
    table_top_close(table);
}

static void a_crowd_is_refused_without_waiting_for_its_answers(void **state)
{
    (void)state;
    enum { CROWD = 200 };
    struct table_top *table = table_top_open(three_clients);
    struct client *inside[3];
    for (int index = 0; index < 3; index++) {
        char name[8];
        (void)snprintf(name, sizeof name, "c%d", index);
        inside[index] = client_join(table, name);
    }
    // All come at once, many times as many as there are records, and none of them ever answers a close.
    static struct client *crowd[CROWD];
    for (int index = 0; index < CROWD; index++) {
        crowd[index] = client_open(table, "/late");
    }
    for (int index = 0; index < CROWD; index++) {
        assert_int_equal(client_status(crowd[index]), 101);
        client_expect(crowd[index],
                      "{\"type\":\"error\",\"code\":\"max_connections\",\"error\":\"Max connections reached\"}");
        client_expect_close(crowd[index], 1013);
    }
    assert_true(table->gateway.server.counters.hurried > 0);
    for (int index = 0; index < 3; index++) {
        client_say(inside[index], "{\"type\":\"ping\"}");
        client_expect(inside[index], "{\"type\":\"pong\"}");
        client_close(inside[index]);
    }
    for (int index = 0; index < CROWD; index++) {
        client_close(crowd[index]);
    }
    table_top_close(table);
}

static void takeover(struct settings *settings)
{
    settings->session_policy = SETTINGS_SESSION_TAKEOVER;
}

static void takeover_closes_the_older_and_its_late_end_harms_nobody(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(takeover);
    struct client *first = client_join(table, "dev-7");
    struct client *second = client_join(table, "dev-7");
    client_expect_close(first, 4010);
    client_close(first);
    for (int turn = 0; turn < 10; turn++) {
        (void)table_top_turn(table);
    }
    assert_int_equal(table->gateway.sessions.count, 1);
    client_say(second, "{\"type\":\"ping\"}");
    client_expect(second, "{\"type\":\"pong\"}");
    client_close(second);
    table_top_close(table);
}

static void takeover_stale(struct settings *settings)
{
    settings->session_policy = SETTINGS_SESSION_TAKEOVER_STALE;
    settings->heartbeat_timeout_s = 600;
}

static void takeover_stale_spares_the_lively(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(takeover_stale);
    struct client *first = client_join(table, "dev-7");
    struct client *second = client_open(table, "/dev-7");
    assert_int_equal(client_status(second), 101);
    assert_non_null(strstr(client_read(second).text, "already_connected"));
    client_close(second);
    table->clock_ms += 31000;
    second = client_join(table, "dev-7");
    assert_int_equal(client_read(first).opcode, 9); // its silence had been noticed
    client_expect_close(first, 4010);
    client_close(first);
    client_close(second);
    table_top_close(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everyone_is_greeted),
        cmocka_unit_test(bad_paths_are_refused_before_the_upgrade),
        cmocka_unit_test(a_second_connection_is_refused),
        cmocka_unit_test(beyond_the_limit_the_refusal_is_said),
        cmocka_unit_test(a_crowd_is_refused_without_waiting_for_its_answers),
        cmocka_unit_test(takeover_closes_the_older_and_its_late_end_harms_nobody),
        cmocka_unit_test(takeover_stale_spares_the_lively),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
