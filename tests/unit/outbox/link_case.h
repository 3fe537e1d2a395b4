/* SPDX-License-Identifier: MIT */
/* A link on the rig, with a topology where the test wants one, and what it told its owner. */
#ifndef POSTERN_TESTS_LINK_CASE_H
#define POSTERN_TESTS_LINK_CASE_H

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

static inline uint32_t sum_of(const uint8_t *data, size_t bytes)
{
    uint32_t sum = 1;
    for (size_t i = 0; i < bytes; i++) {
        sum = sum * 31 + data[i];
    }
    return sum;
}

static inline void on_channel(void *context)
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

static inline void on_reply(void *context, const struct amqp_reply *reply)
{
    struct test *test = context;
    test->cancel_count += reply->kind == AMQP_REPLY_CANCELLED;
    if (test->uses_topology && amqp_topology_on_reply(&test->topology, reply) == AMQP_TOPOLOGY_DONE) {
        test->is_done = true;
    }
}

static inline void on_channel_closed(void *context, uint16_t code, struct span text)
{
    struct test *test = context;
    test->is_wrong = test->is_wrong || !test->is_open;
    test->is_open = false;
    test->closed_count++;
    if (test->uses_topology && amqp_topology_on_channel_closed(&test->topology, code, text) == AMQP_TOPOLOGY_FAILED) {
        test->failed_count++;
    }
}

static inline void on_down(void *context)
{
    struct test *test = context;
    test->is_wrong = test->is_wrong || !test->is_open;
    test->is_open = false;
    test->is_done = false;
    test->down_count++;
}

static inline void on_confirm(void *context, uint64_t tag, bool multiple, bool is_ack)
{
    struct test *test = context;
    (void)multiple;
    (void)is_ack;
    test->confirm_count++;
    test->last_tag = tag;
}

static inline void on_return(void *context, uint16_t code, struct span text, const struct amqp_message *message)
{
    struct test *test = context;
    (void)code;
    (void)text;
    test->return_count++;
    test->is_wrong = test->is_wrong || message->tag != 0;
}

static inline void check_properties(const struct amqp_message *message)
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

static inline void on_delivery(void *context, const struct amqp_message *message)
{
    struct test *test = context;
    test->delivery_count++;
    test->oversized_count += message->oversized;
    test->last_tag = message->tag;
    test->body_bytes = message->body_bytes;
    test->body_sum = sum_of(message->body.data, message->body.bytes);
    if (test->keeps_body) {
        check_properties(message);
        assert_int_equal(message->oversized ? BODY_MAX : message->body_bytes, message->body.bytes);
    }
}

static const struct amqp_link_handler HANDLER = {.on_channel = on_channel,
                                                 .on_reply = on_reply,
                                                 .on_channel_closed = on_channel_closed,
                                                 .on_confirm = on_confirm,
                                                 .on_return = on_return,
                                                 .on_delivery = on_delivery,
                                                 .on_down = on_down};

static inline void make_link(struct test *test, size_t out_bytes, bool confirms)
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

static inline struct test *make(void)
{
    struct test *test = calloc(1, sizeof *test);
    rig_open(&test->rig);
    make_link(test, AMQP_LINK_OUT_BYTES_MIN, true);
    return test;
}

static inline void use_topology(struct test *test)
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

static inline bool is_open(void *context)
{
    struct test *test = context;
    return test->uses_topology ? test->is_done : test->is_open;
}

static inline void start(struct test *test)
{
    amqp_link_start(test->rig.link, test->rig.now_ms);
    assert_true(rig_until(&test->rig, is_open, test));
}

static inline void end(struct test *test)
{
    rig_close(&test->rig);
    assert_false(test->is_wrong);
    assert_false(test->is_open);
    free(test);
}

#endif
