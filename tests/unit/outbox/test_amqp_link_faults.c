/* SPDX-License-Identifier: MIT */
/* What a broker, or what stands in its place, does to a link. */
#include "link_case.h"

static void test_a_topology_that_cannot_be_is_told_and_tried_ever_less(void **state)
{
    (void)state;
    struct test *test = make();
    use_topology(test);
    test->rig.broker.queue_exists = false;
    test->rig.broker.create_code = 403;
    amqp_link_start(test->rig.link, test->rig.now_ms);
    for (size_t i = 0; i < 600; i++) {
        rig_pass(&test->rig, 100, 100);
    }
    assert_in_range(test->failed_count, 4, 40);
    assert_in_range(test->failed_count, test->rig.broker.connection_count - 1, test->rig.broker.connection_count);
    assert_in_range(rig_log_count(&test->rig, "event=amqp_topology_failed step=\"declare queue\" "
                                              "name=postern.gateway.gw-1 code=403"),
                    3, 7);
    assert_in_range(rig_log_count(&test->rig, "rabbitmqctl set_permissions"), 3, 7);
    assert_in_range(rig_log_count(&test->rig, "\n"), 3, 30);
    test->rig.broker.create_code = 0;
    for (size_t i = 0; i < 300 && !test->is_done; i++) {
        rig_pass(&test->rig, 100, 100);
    }
    assert_true(test->is_done);
    end(test);
}

struct refusal {
    const char *greeting;
    size_t greeting_bytes;
    uint16_t login_code;
    uint16_t vhost_code;
    uint32_t frame_max;
    const char *told[2];
};

static void test_a_broker_that_refuses_is_told_with_cause_and_remedy(void **state)
{
    (void)state;
    static const struct refusal refusals[] = {
        {.login_code = 403, .told = {"cause=\"the broker refuses the login\"", "check user and password"}},
        {.vhost_code = 530, .told = {"530 NOT_ALLOWED - vhost nope not found", "rabbitmqctl add_vhost"}},
        {.greeting = "AMQP\0\1\0\0", .greeting_bytes = 8, .told = {"the broker refuses AMQP 0-9-1", "it offers 1-0-0"}},
        {.greeting = "HTTP/1.1 400 Bad Request\r\n\r\n",
         .greeting_bytes = 28,
         .told = {"does not speak AMQP 0-9-1", "HTTP/1.1 400"}},
        {.greeting = "\x15\x03\x01\x00\x02\x02\x16",
         .greeting_bytes = 7,
         .told = {"does not speak AMQP 0-9-1", "without TLS"}},
        {.greeting = "\x01\x00\x00\xff\xff\xff\xff\xce",
         .greeting_bytes = 8,
         .told = {"the broker sent a frame that cannot be", "amqp"}},
        {.greeting = "\x01\x00\x00\x00\x00\x00\x03\x00\x0a\x00\xce",
         .greeting_bytes = 11,
         .told = {"the broker sent a frame that cannot be", "amqp"}},
        {.greeting = "\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x1e\xcd",
         .greeting_bytes = 12,
         .told = {"the broker sent a frame without its end", "amqp"}},
        {.greeting = "\x01\x00\x00\x00\x00\x00\x04\x00\x63\x00\x63\xce",
         .greeting_bytes = 12,
         .told = {"the broker sent what cannot be decoded", "amqp"}},
        {.greeting = "\x01\x00\x00\x00\x00\x00\x06\x00\x0a\x00\x29\x00\x00\xce",
         .greeting_bytes = 14,
         .told = {"the broker sent what cannot come now", "class 10, method 41"}},
        {.frame_max = 1000, .told = {"the broker asks for frames smaller", "frame_max"}},
    };
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        const struct refusal *refusal = &refusals[i];
        struct test *test = make();
        test->rig.broker.greeting = refusal->greeting;
        test->rig.broker.greeting_bytes = refusal->greeting_bytes;
        test->rig.broker.login_code = refusal->login_code;
        test->rig.broker.vhost_code = refusal->vhost_code;
        test->rig.broker.frame_max = refusal->frame_max == 0 ? 131072 : refusal->frame_max;
        amqp_link_start(test->rig.link, test->rig.now_ms);
        rig_settle(&test->rig);
        if (rig_log_count(&test->rig, refusal->told[0]) != 1 || rig_log_count(&test->rig, refusal->told[1]) < 1) {
            fail_msg("refusal %zu is not told as it should", i);
        }
        assert_int_equal(test->open_count, 0);
        for (size_t second = 0; second < 60; second++) {
            rig_pass(&test->rig, 1000, 100);
        }
        assert_in_range(test->rig.broker.connection_count, 8, 60);
        assert_in_range(rig_log_count(&test->rig, "\n"), 3, 8);
        assert_in_range(amqp_link_counters(test->rig.link)->connect_failure_count,
                        test->rig.broker.connection_count - 1, test->rig.broker.connection_count);
        end(test);
    }
}

static void test_a_peer_that_says_nothing_is_left_after_ten_seconds(void **state)
{
    (void)state;
    struct test *test = make();
    test->rig.broker.is_silent = true;
    amqp_link_start(test->rig.link, test->rig.now_ms);
    rig_settle(&test->rig);
    assert_int_equal(amqp_link_state(test->rig.link), AMQP_LINK_STARTING);
    rig_pass(&test->rig, 9900, 300);
    assert_int_equal(rig_log_count(&test->rig, "level=warn"), 0);
    rig_pass(&test->rig, 200, 100);
    assert_int_equal(rig_log_count(&test->rig, "the broker does not answer in time"), 1);
    end(test);
}

static void test_an_unknown_name_is_told(void **state)
{
    (void)state;
    struct test *test = make();
    strcpy(test->rig.brokers.at[0].host, "no-such-host.invalid");
    amqp_link_start(test->rig.link, test->rig.now_ms);
    for (size_t i = 0; i < 10000 && rig_log_count(&test->rig, "the host's name has no address") == 0; i++) {
        rig_settle(&test->rig);
    }
    assert_int_equal(rig_log_count(&test->rig, "broker=no-such-host.invalid:"), 1);
    end(test);
}

/* Resets after every number of bytes the broker ever sends in a short life: handshake, topology, deliveries. */
static void test_a_reset_at_any_byte_harms_nothing(void **state)
{
    (void)state;
    struct test *test = make();
    use_topology(test);
    test->rig.broker.queue_exists = false;
    amqp_link_start(test->rig.link, test->rig.now_ms);
    size_t reset_at = 0;
    bool was_whole = false;
    while (!was_whole) {
        test->rig.broker.reset_at_bytes = ++reset_at;
        size_t connection = test->rig.broker.connection_count;
        while (test->rig.broker.connection_count == connection) {
            rig_pass(&test->rig, 10000, 10000);
        }
        rig_settle(&test->rig);
        if (test->is_done) {
            fake_broker_deliver(&test->rig.broker, 1, "client.dev-7", "0123456789", 10, 4);
            rig_settle(&test->rig);
        }
        was_whole = fake_broker_connected(&test->rig.broker);
        assert_false(test->is_wrong);
    }
    assert_true(reset_at > 400);
    assert_in_range(test->delivery_count, 1, 2); /* the last reset but one may have come behind all bytes */
    end(test);
}

/* A broker whose bytes are damaged somewhere: the link may give up the connection, and nothing else. */
static void test_damaged_frames_harm_nothing(void **state)
{
    (void)state;
    static char stream[64];
    struct test *test = make();
    amqp_link_start(test->rig.link, test->rig.now_ms);
    srand(3);
    for (size_t round = 0; round < 2000; round++) {
        if (!test->is_open) {
            rig_pass(&test->rig, 10000, 10000);
            assert_true(rig_until(&test->rig, is_open, test));
        }
        struct fake_broker *broker = &test->rig.broker;
        struct fake_publish sent = {.routing_key = "messages", .message_id = "a:1", .body = stream, .got_bytes = 9};
        fake_broker_deliver(broker, 5, "client.dev-7", "{\"a\":1}", 7, 3);
        fake_broker_ack(broker, 0, false);
        fake_broker_return(broker, &sent);
        fake_broker_cancel(broker, "tag");
        size_t flips = 1 + (size_t)rand() % 3;
        for (size_t i = 0; i < flips; i++) {
            broker->out[(size_t)rand() % broker->out_bytes] = rand() % 3 == 0 ? 0xff : (uint8_t)rand();
        }
        if (rand() % 4 == 0) {
            fake_broker_drop(broker);
        }
        for (size_t i = 0; i < 6; i++) {
            rig_turn(&test->rig);
        }
        if (fake_broker_connected(broker) && rand() % 2 == 0) {
            fake_broker_reset(broker); /* or the next round goes on in the middle of a frame */
            rig_turn(&test->rig);
        }
        assert_false(test->is_wrong);
    }
    assert_true(test->delivery_count > 100);
    assert_true(test->down_count > 1000);
    end(test);
}

/* Frames that are whole, in an order that cannot be. */
static void test_frames_out_of_order_end_the_connection(void **state)
{
    (void)state;
#define DELIVER "\1\0\1\0\0\0\x14\0\x3c\0\x3c\3tag\0\0\0\0\0\0\0\1\0\0\1q\xce"
#define HEADER "\2\0\1\0\0\0\x0e\0\x3c\0\0\0\0\0\0\0\0\0\5\0\0\xce"
#define BODY "\3\0\1\0\0\0\3abc\xce"
#define DECLARE_OK_OF_CHANNEL_0 "\1\0\0\0\0\0\x0d\0\x32\0\x0b\0\0\0\0\0\0\0\0\0\xce"
#define ROW(text)                                                                                                      \
    {                                                                                                                  \
        text, sizeof(text) - 1                                                                                         \
    }
    static const struct {
        const char *bytes;
        size_t count;
    } rows[] = {ROW(DELIVER DELIVER),
                ROW(HEADER),
                ROW(BODY),
                ROW(DELIVER BODY),
                ROW(DELIVER HEADER BODY BODY),
                ROW(DELIVER HEADER HEADER),
                ROW(DECLARE_OK_OF_CHANNEL_0)};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct test *test = make();
        start(test);
        fake_broker_raw(&test->rig.broker, rows[i].bytes, rows[i].count);
        rig_settle(&test->rig);
        if (rig_log_count(&test->rig, "the broker sent what cannot come now") != 1) {
            fail_msg("row %zu", i);
        }
        assert_int_equal(test->down_count, 1);
        assert_int_equal(test->delivery_count, 0);
        end(test);
    }
    /* The same frames in their order are a delivery: it is the order that was refused. */
    struct test *test = make();
    start(test);
    fake_broker_raw(&test->rig.broker, DELIVER HEADER BODY "\3\0\1\0\0\0\2de\xce",
                    sizeof(DELIVER HEADER BODY "\3\0\1\0\0\0\2de\xce") - 1);
    rig_settle(&test->rig);
    assert_int_equal(test->delivery_count, 1);
    assert_int_equal(test->body_sum, sum_of((const uint8_t *)"abcde", 5));
    end(test);
}

static void test_a_broker_that_closes_is_told_why(void **state)
{
    (void)state;
    struct test *test = make();
    start(test);
    fake_broker_close_connection(&test->rig.broker, 320, "CONNECTION_FORCED - broker forced connection closure");
    rig_settle(&test->rig);
    assert_int_equal(test->down_count, 1);
    assert_int_equal(rig_log_count(&test->rig, "event=amqp_lost link=consume"), 1);
    assert_int_equal(rig_log_count(&test->rig, "320 CONNECTION_FORCED"), 1);
    rig_pass(&test->rig, 200, 100);
    assert_true(rig_until(&test->rig, is_open, test));
    end(test);
}

static void test_a_channel_closed_without_end_costs_the_connection(void **state)
{
    (void)state;
    struct test *test = make();
    start(test);
    for (size_t i = 0; i < 100 && fake_broker_connected(&test->rig.broker); i++) {
        fake_broker_close_channel(&test->rig.broker, 404, "NOT_FOUND");
        rig_settle(&test->rig);
    }
    assert_in_range(test->closed_count, 20, 30);
    assert_int_equal(test->down_count, 0); /* the last close was told already */
    assert_int_equal(rig_log_count(&test->rig, "closes the channel again and again"), 1);
    end(test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_topology_that_cannot_be_is_told_and_tried_ever_less),
        cmocka_unit_test(test_a_broker_that_refuses_is_told_with_cause_and_remedy),
        cmocka_unit_test(test_a_peer_that_says_nothing_is_left_after_ten_seconds),
        cmocka_unit_test(test_an_unknown_name_is_told),
        cmocka_unit_test(test_a_reset_at_any_byte_harms_nothing),
        cmocka_unit_test(test_damaged_frames_harm_nothing),
        cmocka_unit_test(test_frames_out_of_order_end_the_connection),
        cmocka_unit_test(test_a_broker_that_closes_is_told_why),
        cmocka_unit_test(test_a_channel_closed_without_end_costs_the_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
