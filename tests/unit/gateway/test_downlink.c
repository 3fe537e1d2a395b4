/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "fake_broker.h"
#include "table_top.h"

/* The downlink against a broker that does as the test says. It takes one connection, which is the downlink's: the
 * publishing one waits at its door. */

enum { TURNS_MAX = 20000 };

static struct fake_broker broker;

static void use_the_broker(struct settings *settings)
{
    (void)snprintf(settings->rabbitmq_url, sizeof settings->rabbitmq_url, "amqp://guest:guest@127.0.0.1:%u",
                   broker.port);
}

static void use_the_broker_and_log_each(struct settings *settings)
{
    use_the_broker(settings);
    settings->log_messages = true;
    settings->log_level = LOG_DEBUG;
}

static struct table_top *open_with(bool queue_exists, void (*change)(struct settings *settings))
{
    fake_broker_open(&broker);
    broker.queue_exists = queue_exists;
    broker.delivery_type = "";
    return table_top_open(change);
}

static void turns(struct table_top *table, int count)
{
    for (int turn = 0; turn < count; turn++) {
        (void)table_top_turn(table);
        (void)fake_broker_step(&broker);
    }
}

static void until(struct table_top *table, const size_t *count, size_t wanted)
{
    for (int turn = 0; *count < wanted; turn++) {
        turns(table, 1);
        assert_true(turn < TURNS_MAX);
    }
}

static void end(struct table_top *table)
{
    table->signals = PORT_SIGNAL_STOP;
    while (table_top_turn(table) == GATEWAY_TURN_ON) {
        (void)fake_broker_step(&broker);
        table->clock_ms += 5;
    }
    table_top_close(table);
    fake_broker_end(&broker);
}

static void who_left_is_unbound_in_the_same_turn(void **state)
{
    (void)state;
    struct table_top *table = open_with(false, use_the_broker);
    struct downlink *downlink = &table->gateway.downlink;
    until(table, &broker.consume_count, 1);
    struct client *client = client_join(table, "dev-7");
    until(table, &broker.bind_count, 2); /* the receipts' and the client's */
    turns(table, 20);
    assert_int_equal(downlink->outstanding_count, 0);
    client_close(client);
    while (table->gateway.sessions.count > 0) {
        (void)table_top_turn(table);
    }
    assert_int_equal(downlink->unbind_count, 0);
    assert_int_equal(downlink->outstanding_count, 1);
    until(table, &broker.unbind_count, 1);
    end(table);
}

static void what_waited_is_left_there_until_clients_had_time_to_come_back(void **state)
{
    (void)state;
    struct table_top *table = open_with(true, use_the_broker);
    until(table, &broker.bind_count, 1);
    struct client *client = client_join(table, "dev-7");
    until(table, &broker.bind_count, 2);
    table->clock_ms += DOWNLINK_GRACE_MS - 1000;
    turns(table, 100);
    assert_int_equal(broker.consume_count, 0);
    assert_true(table->gateway.due_ms <= table->gateway.now_ms + 1000);
    table->clock_ms += 1000;
    until(table, &broker.consume_count, 1);
    fake_broker_deliver(&broker, 1, "client.dev-7", "{\"n\":1}", 7, 4096);
    turns(table, 100);
    client_expect(client, "{\"n\":1}");
    // The clients stay while the broker is away: there is nobody to wait for.
    fake_broker_close_channel(&broker, 541, "INTERNAL_ERROR");
    until(table, &broker.consume_count, 2);
    client_close(client);
    end(table);
}

static void a_new_queue_is_consumed_at_once(void **state)
{
    (void)state;
    struct table_top *table = open_with(false, use_the_broker);
    until(table, &broker.consume_count, 1);
    assert_int_equal(broker.create_count, 1);
    end(table);
}

static void the_absent_do_not_flood_the_log(void **state)
{
    (void)state;
    struct table_top *table = open_with(false, use_the_broker);
    until(table, &broker.consume_count, 1);
    for (uint64_t tag = 1; tag <= 10; tag++) {
        char key[32];
        (void)snprintf(key, sizeof key, "client.gone-%u", (unsigned)tag);
        fake_broker_deliver(&broker, tag, key, "{}", 2, 4096);
    }
    turns(table, 100);
    assert_int_equal(broker.acked_tag, 10);
    assert_int_equal(table_top_log_count(table, "event=downlink_client_absent"), 4);
    assert_int_equal(table_top_log_count(table, "event=downlink_client_absent client=gone-1 times=1\n"), 1);
    assert_int_equal(table_top_log_count(table, "event=downlink_client_absent client=gone-8 times=8\n"), 1);
    end(table);

    table = open_with(false, use_the_broker_and_log_each);
    until(table, &broker.consume_count, 1);
    for (uint64_t tag = 1; tag <= 10; tag++) {
        fake_broker_deliver(&broker, tag, "client.gone", "{}", 2, 4096);
    }
    turns(table, 100);
    assert_int_equal(table_top_log_count(table, "event=downlink_client_absent client=gone"), 10);
    end(table);
}

static void a_closed_channel_is_told_once(void **state)
{
    (void)state;
    struct table_top *table = open_with(false, use_the_broker);
    until(table, &broker.consume_count, 1);
    fake_broker_close_channel(&broker, 541, "INTERNAL_ERROR - of the test");
    until(table, &broker.consume_count, 2);
    assert_int_equal(table_top_log_count(table, "INTERNAL_ERROR - of the test"), 1);
    end(table);
}

static void what_a_closed_channel_says_of_the_consumer_is_heard(void **state)
{
    (void)state;
    struct table_top *table = open_with(false, use_the_broker);
    until(table, &broker.consume_count, 1);
    broker.consume_code = 403;
    fake_broker_close_channel(&broker, 541, "INTERNAL_ERROR");
    until(table, &broker.consume_count, 2);
    turns(table, 100);
    assert_int_equal(table_top_log_count(table, "event=amqp_topology_failed step=consume"), 1);
    assert_int_equal(broker.consume_count, 2); /* tried again after the link's backoff only, and time stands still */
    end(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_left_is_unbound_in_the_same_turn),
        cmocka_unit_test(what_waited_is_left_there_until_clients_had_time_to_come_back),
        cmocka_unit_test(a_new_queue_is_consumed_at_once),
        cmocka_unit_test(the_absent_do_not_flood_the_log),
        cmocka_unit_test(a_closed_channel_is_told_once),
        cmocka_unit_test(what_a_closed_channel_says_of_the_consumer_is_heard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
