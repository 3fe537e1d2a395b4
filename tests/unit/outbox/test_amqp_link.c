/* SPDX-License-Identifier: MIT */
/* What goes well, and its limits. */
#include "link_case.h"

static void test_a_topology_is_declared_bound_and_consumed(void **state)
{
    (void)state;
    struct test *test = make();
    use_topology(test);
    start(test);
    assert_int_equal(test->rig.broker.passive_count, 1);
    assert_int_equal(test->rig.broker.create_count, 0);
    assert_int_equal(test->rig.broker.bind_count, 1);
    assert_int_equal(test->rig.broker.consume_count, 1);
    assert_int_equal(amqp_link_state(test->rig.link), AMQP_LINK_READY);
    /* Answers to the owner's own methods are not the topology's. */
    struct span name = SPAN("x");
    assert_true(amqp_link_queue_bind(test->rig.link, name, name, name));
    rig_settle(&test->rig);
    assert_int_equal(test->rig.broker.bind_count, 2);
    end(test);
}

static void test_a_missing_queue_is_created(void **state)
{
    (void)state;
    struct test *test = make();
    use_topology(test);
    test->rig.broker.queue_exists = false;
    start(test);
    assert_int_equal(test->rig.broker.create_count, 1);
    assert_string_equal(test->rig.broker.created_type, "classic");
    assert_int_equal(test->closed_count, 1);
    assert_int_equal(test->rig.broker.connection_count, 1);
    assert_int_equal(rig_log_count(&test->rig, "level=warn"), 0);
    assert_int_equal(rig_log_count(&test->rig, "event=amqp_queue_created queue=postern.gateway.gw-1"), 1);
    /* It is gone again: created again. */
    test->rig.broker.queue_exists = false;
    fake_broker_reset(&test->rig.broker);
    rig_settle(&test->rig);
    rig_pass(&test->rig, 200, 100);
    assert_true(rig_until(&test->rig, is_open, test));
    assert_int_equal(test->rig.broker.create_count, 2);
    end(test);
}

static void test_a_queue_someone_else_just_created_is_used_as_it_is(void **state)
{
    (void)state;
    struct test *test = make();
    use_topology(test);
    test->rig.broker.queue_exists = false;
    test->rig.broker.create_code = 406;
    start(test);
    assert_int_equal(test->rig.broker.create_count, 1);
    assert_int_equal(test->rig.broker.connection_count, 1);
    assert_int_equal(test->failed_count, 0);
    end(test);
}

static void test_deliveries_come_whole_however_they_are_cut(void **state)
{
    (void)state;
    static uint8_t body[BODY_MAX];
    static const size_t sizes[] = {0, 1, 200, 4000, 16376, 16377, 50000, BODY_MAX};
    static const size_t chunks[] = {0, 1000, 7, 1};
    for (size_t i = 0; i < sizeof body; i++) {
        body[i] = (uint8_t)(i * 7 + i / 251);
    }
    struct test *test = make();
    test->keeps_body = true;
    use_topology(test);
    start(test);
    uint64_t tag = 0;
    for (size_t chunk = 0; chunk < 4; chunk++) {
        test->rig.broker.chunk_bytes = chunks[chunk];
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && (chunks[chunk] == 0 || sizes[i] < 5000); i++) {
            for (size_t frame = 16376; frame > 50; frame /= 10) {
                fake_broker_deliver(&test->rig.broker, ++tag, "client.dev-7", body, sizes[i], frame);
                rig_settle(&test->rig);
                assert_int_equal(test->delivery_count, tag);
                assert_int_equal(test->last_tag, tag);
                assert_int_equal(test->body_bytes, sizes[i]);
                assert_int_equal(test->body_sum, sum_of(body, sizes[i]));
            }
        }
    }
    assert_true(amqp_link_ack(test->rig.link, tag, true));
    rig_settle(&test->rig);
    assert_int_equal(test->rig.broker.acked_tag, tag);
    assert_true(test->rig.broker.acked_multiple);
    end(test);
}

static void test_many_deliveries_in_one_read_are_all_told(void **state)
{
    (void)state;
    struct test *test = make();
    test->keeps_body = true;
    use_topology(test);
    start(test);
    for (uint64_t tag = 1; tag <= 2000; tag++) {
        fake_broker_deliver(&test->rig.broker, tag, "client.dev-7", "{\"a\":1}", 7, 100);
    }
    rig_settle(&test->rig);
    assert_int_equal(test->delivery_count, 2000);
    end(test);
}

static void test_of_a_body_over_the_limit_the_beginning_is_reported(void **state)
{
    (void)state;
    static uint8_t body[BODY_MAX + 20000];
    for (size_t i = 0; i < sizeof body; i++) {
        body[i] = (uint8_t)(i * 7 >> 3);
    }
    struct test *test = make();
    test->keeps_body = true;
    use_topology(test);
    start(test);
    static const size_t sizes[] = {BODY_MAX + 1, BODY_MAX + 20000};
    for (size_t i = 0; i < 2; i++) {
        fake_broker_deliver(&test->rig.broker, i + 1, "client.dev-7", body, sizes[i], 16000);
        rig_settle(&test->rig);
        assert_int_equal(test->delivery_count, i + 1);
        assert_int_equal(test->oversized_count, i + 1);
        assert_int_equal(test->body_bytes, sizes[i]);
        assert_int_equal(test->body_sum, sum_of(body, BODY_MAX));
    }
    fake_broker_deliver(&test->rig.broker, 3, "client.dev-7", body, 10, 16000);
    rig_settle(&test->rig);
    assert_int_equal(test->delivery_count, 3);
    assert_int_equal(test->body_sum, sum_of(body, 10));
    assert_int_equal(amqp_link_counters(test->rig.link)->oversized_count, 2);
    end(test);
}

static void test_a_cancelled_consumer_is_told(void **state)
{
    (void)state;
    struct test *test = make();
    use_topology(test);
    start(test);
    fake_broker_cancel(&test->rig.broker, "tag");
    rig_settle(&test->rig);
    assert_int_equal(test->cancel_count, 1);
    end(test);
}

static const struct amqp_publish *message_of(size_t body_bytes)
{
    static uint8_t body[BODY_MAX];
    static struct amqp_publish message;
    static const struct amqp_header headers[] = {
        {.name = SPAN("reason"), .kind = AMQP_HEADER_TEXT, .text = SPAN("bad json")},
        {.name = SPAN("first-failure"), .kind = AMQP_HEADER_TIMESTAMP, .integer = 1795449192},
        {.name = SPAN("count"), .kind = AMQP_HEADER_INTEGER, .integer = -3}};
    memset(body, 'b', sizeof body);
    message = (struct amqp_publish){.routing_key = SPAN("messages.dead"),
                                    .body = span_of(body, body_bytes),
                                    .message_id = SPAN("dev-7:m1"),
                                    .headers = headers,
                                    .header_count = 3,
                                    .persistent = true};
    return &message;
}

static void test_large_bodies_are_cut_to_the_agreed_frame(void **state)
{
    (void)state;
    static const uint32_t frames[] = {4096, 16384, 131072, 0};
    static const uint32_t agreed[] = {4096, 16384, 16384, 16384};
    for (size_t i = 0; i < 4; i++) {
        struct test *test = make();
        test->rig.broker.frame_max = frames[i];
        start(test);
        assert_int_equal(test->rig.broker.agreed_frame_max, agreed[i]);
        size_t sizes[] = {0, 1, agreed[i] - 9, agreed[i] - 8, agreed[i] - 7, 40000};
        for (size_t j = 0; j < 6; j++) {
            assert_int_equal(amqp_link_publish(test->rig.link, message_of(sizes[j])), j + 1);
            rig_settle(&test->rig);
            assert_int_equal(test->rig.broker.publish_count, j + 1);
            const struct fake_publish *got = &test->rig.broker.publishes[j];
            assert_int_equal(got->got_bytes, sizes[j]);
            assert_int_equal(got->frame_count, (sizes[j] + agreed[i] - 9) / (agreed[i] - 8));
            assert_string_equal(got->message_id, "dev-7:m1");
        }
        assert_int_equal(test->rig.broker.frame_bytes_peak, agreed[i]);
        end(test);
    }
}

static void test_a_full_out_buffer_takes_all_of_a_message_or_nothing(void **state)
{
    (void)state;
    struct test *test = make();
    start(test);
    size_t taken = 0;
    while (amqp_link_publish(test->rig.link, message_of(5000)) != 0) {
        taken++;
    }
    assert_in_range(taken, 12, 13);
    assert_true(amqp_link_out_bytes(test->rig.link) > AMQP_LINK_OUT_BYTES_MIN - 5300);
    size_t before = amqp_link_out_bytes(test->rig.link);
    assert_int_equal(amqp_link_publish(test->rig.link, message_of(5000)), 0);
    assert_int_equal(amqp_link_out_bytes(test->rig.link), before);
    assert_int_equal(amqp_link_counters(test->rig.link)->out_full_count, 2);
    rig_settle(&test->rig);
    assert_int_equal(test->rig.broker.publish_count, taken);
    assert_int_equal(amqp_link_publish(test->rig.link, message_of(5000)), taken + 1);
    end(test);
}

/* A broker that does not read is waited for by the poller, not by sending again and again. */
static void test_a_socket_that_takes_nothing_is_waited_for(void **state)
{
    (void)state;
    struct test *test = make();
    start(test);
    test->rig.broker.is_deaf = true;
    size_t taken = 0;
    for (size_t i = 0; i < 3000; i++) {
        taken += amqp_link_publish(test->rig.link, message_of(20000)) != 0;
        rig_turn(&test->rig);
    }
    assert_true(amqp_link_out_bytes(test->rig.link) > 0);
    uint64_t sends = amqp_link_counters(test->rig.link)->send_count;
    rig_settle(&test->rig);
    assert_true(amqp_link_counters(test->rig.link)->send_count <= sends + 1);
    test->rig.broker.is_deaf = false;
    rig_settle(&test->rig);
    assert_int_equal(test->rig.broker.publish_count, taken);
    assert_int_equal(amqp_link_out_bytes(test->rig.link), 0);
    end(test);
}

static void publish_too_much(void *argument)
{
    (void)amqp_link_publish(argument, message_of(AMQP_LINK_OUT_BYTES_MIN));
}

static void test_a_message_beyond_the_out_buffer_is_a_mistake(void **state)
{
    (void)state;
    struct test *test = make();
    start(test);
    assert_true(aborts(publish_too_much, test->rig.link));
    end(test);
}

static void test_nothing_is_written_without_a_channel(void **state)
{
    (void)state;
    struct test *test = make();
    struct span name = SPAN("x");
    assert_int_equal(amqp_link_publish(test->rig.link, message_of(1)), 0);
    assert_false(amqp_link_ack(test->rig.link, 1, false));
    assert_false(amqp_link_qos(test->rig.link, 1));
    start(test);
    amqp_link_reconnect(test->rig.link, "the test wants so", NULL);
    assert_int_equal(amqp_link_publish(test->rig.link, message_of(1)), 0);
    assert_false(amqp_link_consume(test->rig.link, name, name));
    rig_settle(&test->rig);
    assert_int_equal(test->down_count, 1);
    assert_int_equal(rig_log_count(&test->rig, "cause=\"the test wants so\""), 1);
    end(test);
}

static void test_the_list_of_brokers_is_tried_at_once(void **state)
{
    (void)state;
    struct test *test = make();
    test->rig.brokers.count = 3;
    test->rig.brokers.at[2] = test->rig.brokers.at[0];
    struct amqp_broker *first = &test->rig.brokers.at[0];
    struct amqp_broker *second = &test->rig.brokers.at[1];
    first->port = 1;
    *second = *first;
    strcpy(second->host, "localhost"); /* a name: looked up on the worker */
    amqp_link_start(test->rig.link, test->rig.now_ms);
    assert_true(rig_until(&test->rig, is_open, test)); /* the clock stands still: no backoff between them */
    assert_in_range(amqp_link_counters(test->rig.link)->connect_failure_count, 2, 3);
    end(test);
}

static void test_a_link_is_started_again_after_a_close(void **state)
{
    (void)state;
    struct test *test = make();
    start(test);
    for (size_t i = 0; i < 3; i++) {
        amqp_link_close(test->rig.link, test->rig.now_ms);
        assert_int_equal(amqp_link_state(test->rig.link), AMQP_LINK_CLOSING);
        rig_settle(&test->rig);
        assert_int_equal(amqp_link_state(test->rig.link), AMQP_LINK_DOWN);
        assert_int_equal(test->rig.broker.close_count, i + 1);
        start(test);
    }
    /* A connection that breaks while it is being closed is not made again. */
    amqp_link_close(test->rig.link, test->rig.now_ms);
    fake_broker_reset(&test->rig.broker);
    rig_settle(&test->rig);
    assert_int_equal(amqp_link_state(test->rig.link), AMQP_LINK_DOWN);
    rig_pass(&test->rig, 60000, 1000);
    assert_int_equal(test->rig.broker.connection_count, 4);
    /* One that breaks after a new start is. */
    start(test);
    fake_broker_reset(&test->rig.broker);
    rig_settle(&test->rig);
    rig_pass(&test->rig, 200, 100);
    assert_true(rig_until(&test->rig, is_open, test));
    amqp_link_close(test->rig.link, test->rig.now_ms);
    rig_settle(&test->rig);
    /* A broker that does not answer is not waited for longer than five seconds. */
    start(test);
    test->rig.broker.is_deaf = true;
    amqp_link_close(test->rig.link, test->rig.now_ms);
    rig_pass(&test->rig, 4900, 700);
    assert_int_equal(amqp_link_state(test->rig.link), AMQP_LINK_CLOSING);
    rig_pass(&test->rig, 200, 100);
    assert_int_equal(amqp_link_state(test->rig.link), AMQP_LINK_DOWN);
    end(test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_topology_is_declared_bound_and_consumed),
        cmocka_unit_test(test_a_missing_queue_is_created),
        cmocka_unit_test(test_a_queue_someone_else_just_created_is_used_as_it_is),
        cmocka_unit_test(test_deliveries_come_whole_however_they_are_cut),
        cmocka_unit_test(test_many_deliveries_in_one_read_are_all_told),
        cmocka_unit_test(test_of_a_body_over_the_limit_the_beginning_is_reported),
        cmocka_unit_test(test_a_cancelled_consumer_is_told),
        cmocka_unit_test(test_large_bodies_are_cut_to_the_agreed_frame),
        cmocka_unit_test(test_a_full_out_buffer_takes_all_of_a_message_or_nothing),
        cmocka_unit_test(test_a_socket_that_takes_nothing_is_waited_for),
        cmocka_unit_test(test_a_message_beyond_the_out_buffer_is_a_mistake),
        cmocka_unit_test(test_nothing_is_written_without_a_channel),
        cmocka_unit_test(test_the_list_of_brokers_is_tried_at_once),
        cmocka_unit_test(test_a_link_is_started_again_after_a_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
