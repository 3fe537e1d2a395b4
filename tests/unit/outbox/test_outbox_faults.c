/* SPDX-License-Identifier: MIT */
/* What a broker does to an outbox. */
#include "outbox_case.h"

static void test_an_ack_of_what_was_never_published_ends_the_connection(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 3);
    test->published = 3;
    assert_true(rig_until(&test->rig, has_published, test));
    fake_broker_ack(&test->rig.broker, 99, true);
    rig_settle(&test->rig);
    assert_int_equal(test->receipt_count, 0);
    assert_int_equal(rig_log_count(&test->rig, "the broker confirms what was not published"), 1);
    finish(test);
    end(test);
}

static void test_a_nack_waits_for_what_is_in_flight_and_replays_in_order(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 10);
    test->published = 10;
    assert_true(rig_until(&test->rig, has_published, test));
    fake_broker_nack(&test->rig.broker, 4, false);
    rig_settle(&test->rig);
    take(test, 5); /* new ones must not overtake */
    rig_pass(&test->rig, 300, 50);
    assert_int_equal(test->rig.broker.publish_count, 10);
    fake_broker_ack(&test->rig.broker, 10, true);
    rig_settle(&test->rig);
    rig_pass(&test->rig, 10, 10);
    assert_int_equal(test->receipt_count, 9);
    for (uint32_t tag = 11; tag <= 16; tag++) { /* one by one, each when the last was taken */
        assert_int_equal(test->rig.broker.publish_count, tag);
        assert_int_equal(number_of(&test->rig.broker.publishes[tag - 1]), tag == 11 ? 3 : tag - 2);
        fake_broker_ack(&test->rig.broker, tag, false);
        rig_settle(&test->rig);
    }
    assert_int_equal(outbox_counters(test->rig.outbox)->replayed_count, 1);
    assert_int_equal(test->rig.broker.connection_count, 1);
    take(test, 8);
    rig_settle(&test->rig);
    assert_int_equal(test->rig.broker.publish_count, 17);
    rig_pass(&test->rig, 5000, 1000);
    fake_broker_ack(&test->rig.broker, 17, false);
    rig_settle(&test->rig);
    assert_int_equal(test->rig.broker.publish_count, 18);
    rig_pass(&test->rig, 5000, 1000);
    fake_broker_ack(&test->rig.broker, 18, false);
    rig_settle(&test->rig);
    assert_int_equal(test->rig.broker.publish_count, 20); /* ten seconds later two, and four with the next confirm */
    fake_broker_ack(&test->rig.broker, 19, false);
    rig_settle(&test->rig);
    assert_int_equal(test->rig.broker.publish_count, 23);
    fake_broker_ack(&test->rig.broker, 23, true);
    finish(test);
    end(test);
}

static void test_a_nack_pauses_for_a_tenth_of_a_second(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 2);
    test->published = 2;
    assert_true(rig_until(&test->rig, has_published, test));
    fake_broker_nack(&test->rig.broker, 2, true);
    rig_settle(&test->rig);
    rig_pass(&test->rig, 99, 33);
    assert_int_equal(test->rig.broker.publish_count, 2);
    rig_pass(&test->rig, 2, 1);
    rig_settle(&test->rig);
    assert_int_equal(test->rig.broker.publish_count, 3);
    fake_broker_ack(&test->rig.broker, 3, true);
    rig_settle(&test->rig);
    fake_broker_ack(&test->rig.broker, 4, true);
    finish(test);
    end(test);
}

static void test_a_second_of_nothing_but_nacks_leads_to_a_new_connection(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 5);
    size_t nacked = 0;
    for (size_t i = 0; i < 60 && test->rig.broker.connection_count == 1; i++) {
        rig_settle(&test->rig);
        while (nacked < test->rig.broker.publish_count && test->rig.broker.connection_count == 1) {
            fake_broker_nack(&test->rig.broker, test->rig.broker.publishes[nacked++].tag, false);
        }
        rig_settle(&test->rig);
        rig_pass(&test->rig, 50, 50);
    }
    assert_int_equal(test->rig.broker.connection_count, 2);
    assert_true(test->rig.now_ms >= 2000);
    assert_int_equal(outbox_counters(test->rig.outbox)->relinked_count, 1);
    assert_int_equal(test->receipt_count, 0);
    assert_int_equal(rig_log_count(&test->rig, "for a second the broker took nothing"), 1);
    assert_int_equal(rig_log_count(&test->rig, "rabbitmq-queues quorum_status"), 1);
    finish(test);
    end(test);
}

static void test_nacks_with_acks_between_are_waited_for(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    struct fake_broker *broker = &test->rig.broker;
    start(test);
    size_t decided = 0;
    take(test, 60);
    for (size_t i = 0; i < 40; i++) { /* four seconds: of what is published one in two is nacked */
        rig_settle(&test->rig);
        for (; decided < broker->publish_count; decided++) {
            if (decided % 2 == 0) {
                fake_broker_ack(broker, broker->publishes[decided].tag, false);
            } else {
                fake_broker_nack(broker, broker->publishes[decided].tag, false);
            }
        }
        rig_settle(&test->rig);
        rig_pass(&test->rig, 100, 50);
        if (outbox_empty(test->rig.outbox)) {
            take(test, 2);
        }
    }
    assert_int_equal(broker->connection_count, 1);
    assert_int_equal(outbox_counters(test->rig.outbox)->relinked_count, 0);
    assert_true(outbox_counters(test->rig.outbox)->nacked_count > 30);
    while (decided < broker->publish_count) {
        fake_broker_ack(broker, broker->publishes[decided++].tag, false);
    }
    finish(test);
    end(test);
}

/* In an alarm the broker reads no publishes, so its silence about them says nothing. */
static void test_an_alarm_stops_the_clock_of_nacks(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 3);
    test->published = 3;
    assert_true(rig_until(&test->rig, has_published, test));
    fake_broker_blocked(&test->rig.broker, true);
    fake_broker_nack(&test->rig.broker, 2, false);
    rig_settle(&test->rig);
    for (size_t i = 0; i < 8; i++) {
        rig_pass(&test->rig, 1000, 100);
        rig_settle(&test->rig);
    }
    assert_int_equal(test->rig.broker.connection_count, 1);
    fake_broker_blocked(&test->rig.broker, false);
    rig_settle(&test->rig);
    rig_pass(&test->rig, 900, 100);
    assert_int_equal(test->rig.broker.connection_count, 1);
    fake_broker_ack(&test->rig.broker, 3, true);
    rig_settle(&test->rig);
    rig_pass(&test->rig, 200, 100);
    assert_int_equal(test->rig.broker.publish_count, 4);
    fake_broker_ack(&test->rig.broker, 4, true);
    finish(test);
    assert_int_equal(test->rig.broker.connection_count, 1);
    assert_int_equal(outbox_counters(test->rig.outbox)->relinked_count, 0);
    end(test);
}

/* It was in the queue all the same, as after a leader's failover: nothing is left that would have to be taken. */
static void test_what_was_nacked_and_is_stored_costs_no_connection(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    struct outbox_origin origin;
    uint64_t number;
    start(test);
    take(test, 1);
    test->published = 1;
    assert_true(rig_until(&test->rig, has_published, test));
    fake_broker_nack(&test->rig.broker, 1, false);
    rig_settle(&test->rig);
    const struct fake_publish *publish = &test->rig.broker.publishes[0];
    struct span client = span_of(publish->message_id, (size_t)(strchr(publish->message_id, ':') - publish->message_id));
    assert_int_equal(outbox_settle(test->rig.outbox, client, span_text(publish->correlation_id), &origin, &number),
                     OUTBOX_REF_OURS);
    assert_true(outbox_empty(test->rig.outbox));
    rig_pass(&test->rig, 2000, 100);
    assert_int_equal(outbox_counters(test->rig.outbox)->relinked_count, 0);
    finish(test);
    end(test);
}

/* A quorum queue without its majority says neither yes nor no. */
static void test_what_hangs_after_a_nack_is_given_up(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 10);
    test->published = 10;
    assert_true(rig_until(&test->rig, has_published, test));
    fake_broker_nack(&test->rig.broker, 4, false);
    fake_broker_ack(&test->rig.broker, 3, false);
    rig_settle(&test->rig);
    take(test, 1);
    rig_pass(&test->rig, 4900, 100);
    assert_int_equal(test->rig.broker.connection_count, 1);
    assert_int_equal(test->rig.broker.publish_count, 10);
    rig_pass(&test->rig, 600, 100);
    rig_settle(&test->rig);
    assert_int_equal(test->rig.broker.connection_count, 2);
    assert_int_equal(outbox_counters(test->rig.outbox)->relinked_count, 1);
    assert_int_equal(rig_log_count(&test->rig, "the broker had still not decided"), 1);
    assert_int_equal(test->rig.broker.publish_count, 11); /* carefully */
    assert_int_equal(number_of(&test->rig.broker.publishes[10]), 0);
    fake_broker_ack(&test->rig.broker, 1, true);
    finish(test);
    end(test);
}

static void test_a_returned_message_is_not_confirmed_by_its_ack(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 6);
    test->published = 6;
    assert_true(rig_until(&test->rig, has_published, test));
    fake_broker_ack(&test->rig.broker, 1, false);
    rig_settle(&test->rig);
    fake_broker_return(&test->rig.broker, &test->rig.broker.publishes[1]);
    fake_broker_ack(&test->rig.broker, 6, true);
    test->rig.broker.queue_exists = false;
    rig_settle(&test->rig);
    assert_int_equal(test->receipt_count, 1);
    assert_int_equal(rig_log_count(&test->rig, "event=message_returned message_id=c1:1 queue=messages code=312"), 1);
    finish(test);
    assert_int_equal(test->rig.broker.connection_count, 2);
    assert_int_equal(test->rig.broker.create_count, 1);
    assert_string_equal(test->rig.broker.created_type, "quorum");
    assert_int_equal(outbox_counters(test->rig.outbox)->returned_count, 1);
    end(test);
}

static void test_a_lost_link_leads_to_a_replay_in_order(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 40);
    test->published = 32;
    assert_true(rig_until(&test->rig, has_published, test));
    fake_broker_ack(&test->rig.broker, 10, true);
    fake_broker_ack(&test->rig.broker, 20, false);
    rig_settle(&test->rig);
    fake_broker_reset(&test->rig.broker);
    size_t before = test->rig.broker.publish_count;
    rig_settle(&test->rig);
    take(test, 3);
    rig_pass(&test->rig, 200, 50);
    rig_settle(&test->rig);
    assert_int_equal(test->rig.broker.connection_count, 2);
    assert_int_equal(test->rig.broker.publish_count - before, 32); /* again slow */
    assert_int_equal(number_of(&test->rig.broker.publishes[before]), 10);
    assert_int_equal(number_of(&test->rig.broker.publishes[before + 9]), 20); /* 19 was confirmed */
    fake_broker_ack(&test->rig.broker, 32, true);
    finish(test);
    end(test);
}

static void test_a_closed_channel_is_opened_again_and_replayed(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 10);
    test->published = 10;
    assert_true(rig_until(&test->rig, has_published, test));
    fake_broker_close_channel(&test->rig.broker, 404, "NOT_FOUND - the queue died");
    rig_settle(&test->rig);
    assert_int_equal(test->rig.broker.connection_count, 1);
    assert_int_equal(test->rig.broker.channel_count, 2);
    assert_int_equal(test->rig.broker.publish_count, 20);
    fake_broker_ack(&test->rig.broker, 10, true);
    finish(test);
    end(test);
}

static void test_nothing_is_published_in_an_alarm(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    test->rig.broker.acks = true;
    start(test);
    fake_broker_blocked(&test->rig.broker, true);
    rig_settle(&test->rig);
    assert_false(outbox_ready(test->rig.outbox));
    take(test, 10);
    rig_pass(&test->rig, 3000, 500);
    assert_int_equal(test->rig.broker.publish_count, 0);
    fake_broker_blocked(&test->rig.broker, false);
    finish(test);
    assert_in_range(amqp_link_counters(outbox_link(test->rig.outbox))->blocked_ms, 3000, 4000);
    assert_int_equal(test->rig.broker.connection_count, 1);
    end(test);
}

static void test_silence_of_two_heartbeats_is_death(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 4);
    rig_settle(&test->rig);
    rig_pass(&test->rig, 9900, 500);
    assert_int_equal(test->rig.broker.connection_count, 1);
    assert_in_range(test->rig.broker.heartbeat_count, 3, 5); /* one each 2.5 s */
    rig_pass(&test->rig, 600, 100);
    rig_settle(&test->rig);
    assert_int_equal(test->rig.broker.connection_count, 2);
    assert_int_equal(rig_log_count(&test->rig, "the broker is silent for two heartbeats"), 1);
    finish(test);
    end(test);
}

static void test_a_link_that_flaps_is_tried_ever_less_and_stores_no_storm(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 1024, 1 << 20);
    start(test);
    take(test, 400);
    size_t most = 0;
    for (uint64_t passed = 0; passed < 60000; passed += 50) {
        size_t before = test->rig.broker.publish_count;
        rig_pass(&test->rig, 50, 50);
        size_t published = test->rig.broker.publish_count - before;
        most = published > most ? published : most;
        if (published > 0) {
            fake_broker_reset(&test->rig.broker);
        }
    }
    assert_in_range(test->rig.broker.connection_count, 8, 60);
    assert_true(most <= 64);
    assert_in_range(rig_log_count(&test->rig, "event=amqp_lost"), 3, 10);
    finish(test);
    end(test);
}

static void test_messages_taken_while_the_broker_is_away_wait_in_order(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    test->rig.broker.is_deaf = true;
    outbox_start(test->rig.outbox, test->rig.now_ms);
    take(test, 100);
    rig_pass(&test->rig, 5000, 500);
    assert_int_equal(outbox_oldest_ms(test->rig.outbox, test->rig.now_ms), 5000);
    take(test, 100);
    test->rig.broker.is_deaf = false;
    rig_pass(&test->rig, 20000, 1000);
    finish(test);
    end(test);
}

/* All that can go wrong, by dice: nothing is lost, nothing overtakes. Nacks are dealt like RabbitMQ does, with all that
 * follows nacked too. */
static void test_a_storm_of_faults_loses_nothing(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 12; seed++) {
        struct test *test = make(200, 64, 1 << 19);
        struct fake_broker *broker = &test->rig.broker;
        srand(seed);
        broker->chunk_bytes = seed % 3 == 0 ? 1 + (size_t)rand() % 40 : 0;
        outbox_start(test->rig.outbox, test->rig.now_ms);
        size_t first = 0; /* of the present connection's publishes */
        size_t connection = 0;
        for (size_t round = 0; round < 400; round++) {
            while (rand() % 3 != 0 && outbox_has_room(test->rig.outbox, 1, 32)) {
                take(test, 1);
            }
            rig_turn(&test->rig);
            if (broker->connection_count != connection) {
                connection = broker->connection_count;
                first = broker->publish_count;
            }
            int dice = rand() % 100;
            size_t out = broker->publish_count - first;
            if (!fake_broker_connected(broker)) {
                rig_pass(&test->rig, 100, 50);
            } else if (dice < 40 && out > 0) {
                fake_broker_ack(broker, broker->publishes[first + (size_t)rand() % out].tag, rand() % 2 == 0);
            } else if (dice < 44 && out > 0) {
                fake_broker_nack(broker, broker->publishes[broker->publish_count - 1].tag, true);
            } else if (dice < 46) {
                fake_broker_reset(broker);
            } else if (dice < 47 && out > 0) {
                fake_broker_return(broker, &broker->publishes[first + (size_t)rand() % out]);
            } else if (dice < 48) {
                fake_broker_close_connection(broker, 320, "CONNECTION_FORCED");
            } else if (dice < 50) {
                rig_pass(&test->rig, (uint64_t)rand() % 1500, 300);
            } else {
                rig_pass(&test->rig, 20, 20);
            }
        }
        if (fake_broker_connected(broker)) {
            fake_broker_reset(broker);
        }
        broker->chunk_bytes = 0;
        finish(test);
        end(test);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_ack_of_what_was_never_published_ends_the_connection),
        cmocka_unit_test(test_a_nack_waits_for_what_is_in_flight_and_replays_in_order),
        cmocka_unit_test(test_a_nack_pauses_for_a_tenth_of_a_second),
        cmocka_unit_test(test_a_second_of_nothing_but_nacks_leads_to_a_new_connection),
        cmocka_unit_test(test_nacks_with_acks_between_are_waited_for),
        cmocka_unit_test(test_an_alarm_stops_the_clock_of_nacks),
        cmocka_unit_test(test_what_was_nacked_and_is_stored_costs_no_connection),
        cmocka_unit_test(test_what_hangs_after_a_nack_is_given_up),
        cmocka_unit_test(test_a_returned_message_is_not_confirmed_by_its_ack),
        cmocka_unit_test(test_a_lost_link_leads_to_a_replay_in_order),
        cmocka_unit_test(test_a_closed_channel_is_opened_again_and_replayed),
        cmocka_unit_test(test_nothing_is_published_in_an_alarm),
        cmocka_unit_test(test_silence_of_two_heartbeats_is_death),
        cmocka_unit_test(test_a_link_that_flaps_is_tried_ever_less_and_stores_no_storm),
        cmocka_unit_test(test_messages_taken_while_the_broker_is_away_wait_in_order),
        cmocka_unit_test(test_a_storm_of_faults_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
