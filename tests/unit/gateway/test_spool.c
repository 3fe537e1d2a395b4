/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "spool.h"
#include "table_top.h"

/* There is no broker, and so everything goes to the disk: the real one, synced by the real worker. */

static void with_spool(struct settings *settings)
{
    settings->spool_max_bytes = 64 * 1024 * 1024;
}

static void with_small_window(struct settings *settings)
{
    with_spool(settings);
    settings->outbox_messages = 200;
}

/* Turns until the outbox has told of so many messages that they are on the disk. */
static void turn_until_accepted(struct table_top *table, uint64_t count)
{
    uint64_t end_ms = table_top_real_ms(table) + TABLE_TOP_PATIENCE_MS;
    for (int turn = 0; outbox_counters(table->gateway.outbox)->accepted_count < count; turn++) {
        assert_true(table_top_real_ms(table) < end_ms);
        (void)table_top_turn(table);
        table->clock_ms += turn % 100 == 0 ? 1 : 0;
    }
}

static void say(struct client *client, int number)
{
    char text[96];
    (void)snprintf(text, sizeof text, "{\"type\":\"text\",\"content\":%d,\"id\":\"m%d\"}", number, number);
    client_say(client, text);
}

static void a_client_hears_accepted(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(with_spool);
    struct client *client = client_join(table, "dev-7");
    say(client, 1);
    assert_int_equal(client_peek(client).opcode, 0); // not before it is time
    table->clock_ms += 1000;
    client_expect(client, "{\"type\":\"receipt\",\"seq\":1,\"id\":\"m1\",\"status\":\"accepted\"}");
    client_say(client, "{\"type\":\"text\",\"content\":2}");
    client_expect(client, "{\"type\":\"receipt\",\"seq\":2,\"status\":\"accepted\"}");
    client_close(client);
    table_top_close(table);
}

static void who_does_not_want_it_does_not_hear_it(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(with_spool);
    struct client *client = client_open(table, "/dev-7?receipts=queued,stored");
    assert_int_equal(client_status(client), 101);
    assert_int_equal(client_read(client).opcode, 1);
    say(client, 1);
    assert_int_equal(client_peek(client).opcode, 0);
    table->clock_ms += 1000;
    turn_until_accepted(table, 1);
    assert_int_equal(client_peek(client).opcode, 0);
    client_close(client);
    table_top_close(table);
}

/* Many more than the window holds, no faster than the disk takes them: nobody is told to wait. */
static void an_outage_is_no_pressure(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(with_small_window);
    struct client *client = client_join(table, "dev-7");
    for (int number = 1; number <= 1000; number++) {
        say(client, number);
        (void)table_top_turn(table);
        if (number % 40 == 0) {
            turn_until_accepted(table, (uint64_t)number);
        }
    }
    for (int number = 1; number <= 1000; number++) {
        char text[96];
        (void)snprintf(text, sizeof text, "{\"type\":\"receipt\",\"seq\":%d,\"id\":\"m%d\",\"status\":\"accepted\"}",
                       number, number);
        client_expect(client, text);
    }
    assert_int_equal(outbox_counters(table->gateway.outbox)->depth_count, 1000);
    assert_int_equal(table_top_log_count(table, "event=busy_begin"), 0);
    client_close(client);
    table_top_close(table);
}

static void what_is_left_at_the_end_is_there_at_the_next_start(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(with_small_window);
    struct client *client = client_join(table, "dev-7");
    for (int number = 1; number <= 300; number++) {
        say(client, number);
        (void)table_top_turn(table);
    }
    while (outbox_counters(table->gateway.outbox)->taken_count < 300) {
        (void)table_top_turn(table);
    }
    table->signals = PORT_SIGNAL_STOP;
    enum gateway_turned turned;
    do {
        turned = table_top_turn(table);
        table->clock_ms += table->gateway.drain.state == DRAIN_CLOSING; // the disk has had its time by then
    } while (turned == GATEWAY_TURN_ON);
    assert_int_equal(turned, GATEWAY_DRAINED);
    assert_int_equal(table_top_log_count(table, "event=drain_kept messages=300"), 1);
    assert_int_equal(table_top_log_count(table, "event=drain_unconfirmed"), 0);
    char folder[64];
    (void)snprintf(folder, sizeof folder, "%s", table->folder);
    client_close(client);
    table->keeps_folder = true;
    table_top_close(table);
    table = table_top_open_in(folder, with_small_window);
    assert_int_equal(outbox_counters(table->gateway.outbox)->depth_count, 300);
    assert_int_equal(table_top_log_count(table, "event=spool_opened"), 2);
    client = client_join(table, "dev-7"); // and what comes now is behind it
    say(client, 301);
    client_expect(client, "{\"type\":\"receipt\",\"seq\":1,\"id\":\"m301\",\"status\":\"accepted\"}");
    assert_int_equal(outbox_counters(table->gateway.outbox)->depth_count, 301);
    client_close(client);
    table_top_close(table);
}

/* What waits in memory for the outage to last goes to the disk as soon as it is told to stop, and not when the time for
 * confirms is over. */
static void who_is_to_leave_hears_accepted_first(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(with_spool);
    struct client *client = client_join(table, "dev-7");
    say(client, 1);
    assert_int_equal(client_peek(client).opcode, 0);
    table->signals = PORT_SIGNAL_STOP;
    (void)table_top_turn(table);
    assert_true(table->gateway.due_ms <= table->gateway.now_ms);
    client_expect(client, "{\"type\":\"receipt\",\"seq\":1,\"id\":\"m1\",\"status\":\"accepted\"}");
    client_expect_close(client, 1012);
    client_close(client);
    table_top_close(table);
}

static void a_second_gateway_is_refused_the_folder(void **state)
{
    (void)state;
    static struct gateway second;
    struct table_top *table = table_top_open(with_spool);
    char buffer[1024];
    struct text error = text_in(buffer, sizeof buffer - 1);
    struct arena arena;
    assert_true(gateway_configure(&second, &table->settings, &error));
    arena_measure(&arena);
    gateway_init(&second, &arena, &table->port);
    size_t bytes = arena.used_bytes;
    arena_begin(&arena, table->port.memory(table->port.context, bytes), bytes);
    gateway_init(&second, &arena, &table->port);
    assert_false(gateway_listen(&second, &error));
    buffer[error.used_bytes] = '\0';
    assert_non_null(strstr(buffer, "SPOOL_DIR="));
    assert_non_null(strstr(buffer, "another gateway is using this folder"));
    gateway_release(&second);
    table_top_close(table);
}

static void a_spool_that_is_too_small_is_refused(void **state)
{
    (void)state;
    static struct gateway gateway;
    struct table_top *table = table_top_open(NULL);
    char buffer[1024];
    struct text error = text_in(buffer, sizeof buffer - 1);
    table->settings.spool_max_bytes = 4 * 1024 * 1024;
    assert_false(gateway_configure(&gateway, &table->settings, &error));
    buffer[error.used_bytes] = '\0';
    const char *least = strstr(buffer, "at least ");
    assert_non_null(strstr(buffer, "SPOOL_MAX_BYTES=4194304"));
    assert_non_null(least);
    unsigned long long bytes = 0;
    assert_int_equal(sscanf(least, "at least %llu", &bytes), 1);
    error = text_in(buffer, sizeof buffer - 1);
    table->settings.spool_max_bytes = bytes; // what it asks for is enough
    assert_true(gateway_configure(&gateway, &table->settings, &error));
    table->settings.max_message_bytes = 1024 * 1024;
    table->settings.outbox_bytes = 64 * 1024 * 1024;
    table->settings.spool_max_bytes = 64 * 1024 * 1024; // the largest messages and the default go together
    assert_true(gateway_configure(&gateway, &table->settings, &error));
    table_top_close(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_hears_accepted),
        cmocka_unit_test(who_does_not_want_it_does_not_hear_it),
        cmocka_unit_test(an_outage_is_no_pressure),
        cmocka_unit_test(what_is_left_at_the_end_is_there_at_the_next_start),
        cmocka_unit_test(who_is_to_leave_hears_accepted_first),
        cmocka_unit_test(a_second_gateway_is_refused_the_folder),
        cmocka_unit_test(a_spool_that_is_too_small_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
