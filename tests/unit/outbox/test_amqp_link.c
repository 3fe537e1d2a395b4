/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "aborts.h"
#include "amqp_topology.h"
#include "rig.h"

enum { BODY_MAX = 100000, STEPS = 5 };

struct test {
    struct rig rig;
    struct amqp_topology topology;
    struct amqp_step steps[STEPS];
    bool uses_topology;
    bool is_open;    /* as the link told */
    bool is_done;    /* the topology */
    bool keeps_body; /* checks what is delivered */
    size_t open_count;
    size_t closed_count;
    size_t down_count;
    size_t failed_count; /* topologies */
    size_t delivery_count;
    size_t oversized_count;
    size_t cancel_count;
    size_t confirm_count;
    size_t return_count;
    uint64_t last_tag;
    uint64_t body_bytes;
    uint32_t body_sum;
    bool is_wrong;
};

static uint32_t sum_of(const uint8_t *data, size_t bytes)
{
    uint32_t sum = 1;
    for (size_t i = 0; i < bytes; i++) {
        sum = sum * 31 + data[i];
    }
    return sum;
}

static void on_channel(void *context)
{
    struct test *test = context;
    test->is_wrong = test->is_wrong || test->is_open;
    test->is_open = true;
    test->is_done = false;
    test->open_count++;
    if (test->uses_topology) {
        amqp_topology_on_channel(&test->topology);
    }
}

static void on_reply(void *context, const struct amqp_reply *reply)
{
    struct test *test = context;
    test->cancel_count += reply->kind == AMQP_REPLY_CANCELLED_BY_BROKER;
    if (test->uses_topology && amqp_topology_on_reply(&test->topology, reply) == AMQP_TOPOLOGY_DONE) {
        test->is_done = true;
    }
}

static void on_channel_closed(void *context, uint16_t code, struct span text)
{
    struct test *test = context;
    test->is_wrong = test->is_wrong || !test->is_open;
    test->is_open = false;
    test->closed_count++;
    if (test->uses_topology && amqp_topology_on_channel_closed(&test->topology, code, text) == AMQP_TOPOLOGY_FAILED) {
        test->failed_count++;
    }
}

static void on_down(void *context)
{
    struct test *test = context;
    test->is_wrong = test->is_wrong || !test->is_open;
    test->is_open = false;
    test->is_done = false;
    test->down_count++;
}

static void on_confirm(void *context, uint64_t tag, bool multiple, bool is_ack)
{
    struct test *test = context;
    (void)multiple;
    (void)is_ack;
    test->confirm_count++;
    test->last_tag = tag;
}

static void on_return(void *context, uint16_t code, struct span text, const struct amqp_message *message)
{
    struct test *test = context;
    (void)code;
    (void)text;
    test->return_count++;
    test->is_wrong = test->is_wrong || message->tag != 0;
}

static void check_properties(const struct amqp_message *message)
{
    assert_true(span_is(message->exchange, "postern.downlink"));
    assert_true(span_is(message->routing_key, "client.dev-7"));
    assert_true(span_is(message->content_type, "application/json"));
    assert_true(span_is(message->correlation_id, "ref-1"));
    assert_true(span_is(message->reply_to, "gateway.gw-1"));
    assert_true(span_is(message->message_id, "dev-7:m1"));
    assert_true(span_is(message->type, "receipts"));
    assert_true(span_is(message->app_id, "postern"));
    assert_int_equal(message->timestamp_s, 1795449000);
    assert_true(message->redelivered);
    assert_int_equal(message->header_count, 3);
    assert_true(span_is(message->headers[0].name, "reason"));
    assert_true(span_is(message->headers[0].text, "bad \"json\""));
    assert_int_equal(message->headers[1].kind, AMQP_HEADER_INTEGER);
    assert_int_equal(message->headers[1].integer, -7);
    assert_int_equal(message->headers[2].kind, AMQP_HEADER_TIMESTAMP);
    assert_int_equal(message->headers[2].integer, 1795449192);
}

static void on_delivery(void *context, const struct amqp_message *message)
{
    struct test *test = context;
    test->delivery_count++;
    test->oversized_count += message->oversized;
    test->last_tag = message->tag;
    test->body_bytes = message->body_bytes;
    test->body_sum = sum_of(message->body.data, message->body.bytes);
    if (test->keeps_body) {
        check_properties(message);
        assert_int_equal(message->oversized ? 0 : message->body_bytes, message->body.bytes);
    }
}

static const struct amqp_link_handler HANDLER = {.on_channel = on_channel,
                                                 .on_reply = on_reply,
                                                 .on_channel_closed = on_channel_closed,
                                                 .on_confirm = on_confirm,
                                                 .on_return = on_return,
                                                 .on_delivery = on_delivery,
                                                 .on_down = on_down};

static void make_link(struct test *test, size_t out_bytes, bool confirms)
{
    const struct amqp_link_options options = {.program = "postern-test",
                                              .instance = "one",
                                              .role = "consume",
                                              .brokers = &test->rig.brokers,
                                              .heartbeat_s = 10,
                                              .token = RIG_TOKEN,
                                              .out_bytes = out_bytes,
                                              .body_bytes_max = BODY_MAX,
                                              .confirms = confirms};
    rig_make_link(&test->rig, &options, &HANDLER, test);
}

static struct test *make(void)
{
    struct test *test = calloc(1, sizeof *test);
    rig_open(&test->rig);
    make_link(test, AMQP_LINK_OUT_BYTES_MIN, true);
    return test;
}

static void use_topology(struct test *test)
{
    const struct amqp_step steps[STEPS] = {
        {.kind = AMQP_STEP_QUEUE, .queue = {.name = SPAN("postern.gateway.gw-1"), .type = "classic", .expires_ms = 1}},
        {.kind = AMQP_STEP_EXCHANGE, .exchange = SPAN("postern.downlink"), .exchange_type = "topic"},
        {.kind = AMQP_STEP_BIND,
         .queue = {.name = SPAN("postern.gateway.gw-1")},
         .exchange = SPAN("postern.downlink"),
         .routing_key = SPAN("gateway.gw-1")},
        {.kind = AMQP_STEP_QOS, .prefetch_count = 100},
        {.kind = AMQP_STEP_CONSUME, .queue = {.name = SPAN("postern.gateway.gw-1")}, .consumer_tag = SPAN("tag")}};
    memcpy(test->steps, steps, sizeof steps);
    test->uses_topology = true;
    amqp_topology_init(&test->topology, test->rig.link, &test->rig.log, test->steps, STEPS);
}

static bool is_open(void *context)
{
    struct test *test = context;
    return test->uses_topology ? test->is_done : test->is_open;
}

static void start(struct test *test)
{
    amqp_link_start(test->rig.link, test->rig.now_ms);
    assert_true(rig_until(&test->rig, is_open, test));
}

static void end(struct test *test)
{
    rig_close(&test->rig);
    assert_false(test->is_wrong);
    assert_false(test->is_open);
    free(test);
}

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

static void test_a_body_over_the_limit_is_reported_without_it(void **state)
{
    (void)state;
    static uint8_t body[BODY_MAX + 1];
    struct test *test = make();
    test->keeps_body = true;
    use_topology(test);
    start(test);
    fake_broker_deliver(&test->rig.broker, 1, "client.dev-7", body, BODY_MAX + 1, 16000);
    fake_broker_deliver(&test->rig.broker, 2, "client.dev-7", body, 10, 16000);
    rig_settle(&test->rig);
    assert_int_equal(test->delivery_count, 2);
    assert_int_equal(test->oversized_count, 1);
    assert_int_equal(amqp_link_counters(test->rig.link)->oversized_count, 1);
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
    assert_true(amqp_link_out_room_bytes(test->rig.link) < 5300);
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
    amqp_link_reconnect(test->rig.link, "the test wants so");
    assert_int_equal(amqp_link_publish(test->rig.link, message_of(1)), 0);
    assert_false(amqp_link_consume(test->rig.link, name, name));
    rig_settle(&test->rig);
    assert_int_equal(test->down_count, 1);
    assert_int_equal(rig_log_count(&test->rig, "cause=\"the test wants so\""), 1);
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
        cmocka_unit_test(test_a_topology_that_cannot_be_is_told_and_tried_ever_less),
        cmocka_unit_test(test_deliveries_come_whole_however_they_are_cut),
        cmocka_unit_test(test_many_deliveries_in_one_read_are_all_told),
        cmocka_unit_test(test_a_body_over_the_limit_is_reported_without_it),
        cmocka_unit_test(test_a_cancelled_consumer_is_told),
        cmocka_unit_test(test_large_bodies_are_cut_to_the_agreed_frame),
        cmocka_unit_test(test_a_full_out_buffer_takes_all_of_a_message_or_nothing),
        cmocka_unit_test(test_a_socket_that_takes_nothing_is_waited_for),
        cmocka_unit_test(test_a_message_beyond_the_out_buffer_is_a_mistake),
        cmocka_unit_test(test_nothing_is_written_without_a_channel),
        cmocka_unit_test(test_a_broker_that_refuses_is_told_with_cause_and_remedy),
        cmocka_unit_test(test_a_peer_that_says_nothing_is_left_after_ten_seconds),
        cmocka_unit_test(test_the_list_of_brokers_is_tried_at_once),
        cmocka_unit_test(test_an_unknown_name_is_told),
        cmocka_unit_test(test_a_reset_at_any_byte_harms_nothing),
        cmocka_unit_test(test_damaged_frames_harm_nothing),
        cmocka_unit_test(test_frames_out_of_order_end_the_connection),
        cmocka_unit_test(test_a_broker_that_closes_is_told_why),
        cmocka_unit_test(test_a_channel_closed_without_end_costs_the_connection),
        cmocka_unit_test(test_a_link_is_started_again_after_a_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
