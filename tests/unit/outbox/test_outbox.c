/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rig.h"
#include "text.h"

enum { MESSAGES = 512, CONTENT_MAX = 16384, RECEIPTS_MAX = 20000, HEARTBEAT_S = 5 };

struct test {
    struct rig rig;
    uint32_t taken;
    uint32_t receipts[RECEIPTS_MAX]; /* by seq */
    size_t receipt_count;
    size_t room_count;
    uint32_t wanted;  /* receipts, for is_queued */
    size_t published; /* for has_published */
};

static void on_receipt(void *context, const struct outbox_receipt *receipt)
{
    struct test *test = context;
    assert_int_equal(receipt->status, RECEIPT_QUEUED);
    assert_true(receipt->origin.seq < RECEIPTS_MAX);
    assert_int_equal(receipt->origin.session_index, receipt->origin.seq + 1);
    assert_int_equal(receipt->origin.session_generation, receipt->origin.seq + 2);
    char client[16];
    snprintf(client, sizeof client, "c%u", receipt->origin.seq % 3);
    assert_true(span_is(receipt->client_id, client));
    test->receipts[receipt->origin.seq]++;
    test->receipt_count++;
}

static void on_room(void *context)
{
    struct test *test = context;
    test->room_count++;
}

static const struct outbox_handler HANDLER = {on_receipt, on_room};
static struct span QUEUES[] = {SPAN("messages"), SPAN("voice")};

static struct test *make(uint32_t message_count, uint32_t window, size_t bytes)
{
    struct test *test = calloc(1, sizeof *test);
    rig_open(&test->rig);
    const struct outbox_options options = {.program = "postern-gateway",
                                           .gateway_id = "gw-1",
                                           .brokers = &test->rig.brokers,
                                           .heartbeat_s = HEARTBEAT_S,
                                           .token = RIG_TOKEN,
                                           .queues = QUEUES,
                                           .queue_count = 2,
                                           .queue_type = "quorum",
                                           .message_count_max = message_count,
                                           .bytes_max = bytes,
                                           .content_bytes_max = CONTENT_MAX,
                                           .window_count_max = window};
    rig_make_outbox(&test->rig, &options, &HANDLER, test);
    return test;
}

static bool is_ready(void *context)
{
    struct test *test = context;
    return outbox_ready(test->rig.outbox);
}

static bool is_queued(void *context)
{
    struct test *test = context;
    return test->receipt_count >= test->wanted;
}

static bool has_published(void *context)
{
    struct test *test = context;
    return test->rig.broker.publish_count >= test->published;
}

static void start(struct test *test)
{
    outbox_start(test->rig.outbox, test->rig.now_ms);
    assert_true(rig_until(&test->rig, is_ready, test));
}

static void end(struct test *test)
{
    rig_close(&test->rig);
    free(test);
}

/* Message n of client c{n mod 3}, with id n unless told otherwise. */
static enum outbox_taken take_as(struct test *test, bool has_id, const char *content)
{
    char client[16];
    char id[16];
    uint32_t n = test->taken;
    snprintf(client, sizeof client, "c%u", n % 3);
    snprintf(id, sizeof id, "%u", n);
    const struct outbox_message message = {.client_id = span_text(client),
                                           .id = has_id ? span_text(id) : span_of(NULL, 0),
                                           .type = span_text("text"),
                                           .content = span_text(content),
                                           .received_wall_ms = 1795449192123,
                                           .queue_index = 0,
                                           .origin = {n + 1, n + 2, n}};
    enum outbox_taken taken = outbox_take(test->rig.outbox, &message, test->rig.now_ms);
    test->taken += taken == OUTBOX_TAKEN;
    return taken;
}

static void take(struct test *test, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(take_as(test, true, "{\"a\":1}"), OUTBOX_TAKEN);
    }
}

/* A receipt's ref as it comes back for a client. */
static enum outbox_ref settle(struct test *test, const char *client, const char *ref, struct outbox_origin *origin)
{
    uint64_t sequence;
    return outbox_settle(test->rig.outbox, span_text(client), span_text(ref), origin, &sequence);
}

static uint32_t number_of(const struct fake_publish *publish)
{
    return (uint32_t)strtoul(strchr(publish->message_id, ':') + 1, NULL, 10);
}

/* First occurrences per client in order, and everything taken is there. */
static void check_queue(struct test *test)
{
    static uint8_t seen[RECEIPTS_MAX];
    uint32_t last[3] = {0};
    memset(seen, 0, sizeof seen);
    for (size_t i = 0; i < test->rig.broker.publish_count; i++) {
        uint32_t n = number_of(&test->rig.broker.publishes[i]);
        assert_true(n < test->taken);
        if (!seen[n]) {
            assert_true(n == n % 3 || last[n % 3] < n);
            last[n % 3] = n;
            seen[n] = 1;
        }
    }
    for (uint32_t n = 0; n < test->taken; n++) {
        assert_int_equal(seen[n], 1);
    }
}

static void check_receipts(struct test *test)
{
    for (uint32_t n = 0; n < test->taken; n++) {
        assert_int_equal(test->receipts[n], 1);
    }
    assert_int_equal(test->receipt_count, test->taken);
    assert_true(outbox_empty(test->rig.outbox));
    assert_int_equal(outbox_counters(test->rig.outbox)->depth_bytes, 0);
}

/* Turns and time until all is queued; the broker acks. */
static void finish(struct test *test)
{
    test->rig.broker.acks = true;
    test->wanted = test->taken;
    for (size_t i = 0; i < 200 && !is_queued(test); i++) {
        rig_settle(&test->rig);
        rig_pass(&test->rig, 200, 100);
    }
    check_receipts(test);
    check_queue(test);
}

static void test_a_message_is_published_as_the_contract_says(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    assert_int_equal(take_as(test, true, "{\"a\": [1, 2]}"), OUTBOX_TAKEN);
    assert_int_equal(take_as(test, false, "\"x\""), OUTBOX_TAKEN);
    test->published = 2;
    assert_true(rig_until(&test->rig, has_published, test));
    const struct fake_publish *first = &test->rig.broker.publishes[0];
    assert_string_equal(first->exchange, "");
    assert_string_equal(first->routing_key, "messages");
    assert_string_equal(first->message_id, "c0:0");
    assert_string_equal(first->type, "text");
    assert_string_equal(first->content_type, "application/json");
    assert_string_equal(first->app_id, "postern");
    assert_string_equal(first->reply_to, "gateway.gw-1");
    assert_int_equal(first->timestamp_s, 1795449192);
    assert_true(first->is_mandatory && first->is_persistent);
    assert_string_equal(first->body, "{\"client_id\":\"c0\",\"type\":\"text\",\"content\":{\"a\": [1, 2]},\"id\":\"0\","
                                     "\"gateway\":\"gw-1\",\"received_at\":\"2026-11-23T15:53:12.123Z\"}");
    const struct fake_publish *second = &test->rig.broker.publishes[1];
    assert_memory_equal(second->message_id, "c1:gw-1-", 8);
    assert_null(strstr(second->body, "\"id\""));
    assert_string_equal(test->rig.broker.connection_name, "postern-gateway gw-1 publish");
    assert_int_equal(test->rig.broker.agreed_heartbeat, HEARTBEAT_S);
    assert_int_equal(test->rig.broker.passive_count, 2);
    assert_int_equal(test->receipt_count, 0);
    fake_broker_ack(&test->rig.broker, 2, true);
    test->wanted = 2;
    assert_true(rig_until(&test->rig, is_queued, test));
    check_receipts(test);
    end(test);
}

static int64_t stopped_clock(void *context)
{
    (void)context;
    return 1795449192123;
}

/* Also when the clock starts again where it stopped, as on a box without a battery for it. */
static void test_two_starts_never_make_the_same_message_id(void **state)
{
    (void)state;
    char first[256] = "";
    for (size_t i = 0; i < 2; i++) {
        struct test *test = make(MESSAGES, 64, 1 << 20);
        test->rig.port.wall_ms = stopped_clock;
        start(test);
        test->published = 1;
        assert_int_equal(take_as(test, false, "1"), OUTBOX_TAKEN);
        assert_true(rig_until(&test->rig, has_published, test));
        assert_string_not_equal(first, test->rig.broker.publishes[0].message_id);
        strcpy(first, test->rig.broker.publishes[0].message_id);
        end(test);
    }
}

static void test_acks_come_singly_out_of_order_and_in_multiples(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 20);
    test->published = 20;
    assert_true(rig_until(&test->rig, has_published, test));
    fake_broker_ack(&test->rig.broker, 7, false);
    fake_broker_ack(&test->rig.broker, 3, false);
    rig_settle(&test->rig);
    assert_int_equal(test->receipt_count, 2);
    assert_int_equal(test->receipts[6] + test->receipts[2], 2);
    assert_int_equal(outbox_counters(test->rig.outbox)->depth_count, 20);
    fake_broker_ack(&test->rig.broker, 5, true);
    fake_broker_ack(&test->rig.broker, 5, true);
    fake_broker_ack(&test->rig.broker, 4, false);
    rig_settle(&test->rig);
    assert_int_equal(test->receipt_count, 6);
    assert_int_equal(outbox_counters(test->rig.outbox)->depth_count, 15);
    fake_broker_ack(&test->rig.broker, 0, true); /* all so far */
    rig_settle(&test->rig);
    check_receipts(test);
    assert_int_equal(test->rig.broker.publish_count, 20);
    end(test);
}

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

static void test_the_window_starts_small_and_doubles(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 100, 1 << 20);
    start(test);
    take(test, 300);
    rig_settle(&test->rig);
    assert_int_equal(test->rig.broker.publish_count, 32);
    fake_broker_ack(&test->rig.broker, 32, true);
    rig_settle(&test->rig);
    assert_int_equal(test->rig.broker.publish_count, 32 + 64);
    fake_broker_ack(&test->rig.broker, 33, false);
    rig_settle(&test->rig);
    assert_int_equal(test->rig.broker.publish_count, 33 + 100);
    assert_int_equal(outbox_counters(test->rig.outbox)->in_flight_count, 100);
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
    assert_int_equal(test->rig.broker.publish_count, 16);
    assert_int_equal(number_of(&test->rig.broker.publishes[10]), 3);
    assert_int_equal(number_of(&test->rig.broker.publishes[11]), 10);
    assert_int_equal(outbox_counters(test->rig.outbox)->replayed_count, 1);
    assert_int_equal(test->rig.broker.connection_count, 1);
    for (uint64_t tag = 11; tag <= 16; tag++) {
        fake_broker_ack(&test->rig.broker, tag, false);
    }
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
    assert_int_equal(test->rig.broker.publish_count, 4);
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
    assert_int_equal(test->rig.broker.publish_count, 20);
    assert_int_equal(number_of(&test->rig.broker.publishes[10]), 0);
    fake_broker_ack(&test->rig.broker, 10, true);
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

static void test_a_message_without_an_id_goes_by_one_name_in_all_logs(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    test->rig.log.options.messages = true;
    start(test);
    assert_int_equal(take_as(test, true, "1"), OUTBOX_TAKEN);
    assert_int_equal(take_as(test, false, "2"), OUTBOX_TAKEN);
    test->published = 2;
    assert_true(rig_until(&test->rig, has_published, test));
    const char *made = strchr(test->rig.broker.publishes[1].message_id, ':') + 1;
    char line[512];
    char id[OUTBOX_ID_BYTES_MAX];
    struct text text = text_in(id, sizeof id);
    outbox_write_id(test->rig.outbox, &text, 2);
    assert_true(span_is(text_span(&text), made));
    snprintf(line, sizeof line, "event=message_taken client=c1 id=%s seq=1 type=text", made);
    assert_int_equal(rig_log_count(&test->rig, line), 1);
    snprintf(line, sizeof line, "event=message_published client=c1 id=%s queue=messages", made);
    assert_int_equal(rig_log_count(&test->rig, line), 1);
    assert_int_equal(rig_log_count(&test->rig, "event=message_taken client=c0 id=0 seq=0"), 1);
    assert_int_equal(rig_log_count(&test->rig, "event=message_published client=c0 id=0 queue=messages"), 1);
    fake_broker_ack(&test->rig.broker, 2, true);
    test->wanted = 2;
    assert_true(rig_until(&test->rig, is_queued, test));
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

static void test_full_means_full_and_room_is_told(void **state)
{
    (void)state;
    struct test *test = make(100, 64, 1 << 20);
    start(test);
    take(test, 100);
    assert_int_equal(test->room_count, 0);
    assert_int_equal(take_as(test, true, "1"), OUTBOX_FULL);
    assert_false(outbox_has_room(test->rig.outbox, 1, 1));
    assert_int_equal(outbox_counters(test->rig.outbox)->refused_count, 1);
    rig_settle(&test->rig);
    fake_broker_ack(&test->rig.broker, 20, true);
    rig_settle(&test->rig);
    assert_int_equal(test->room_count, 0);
    assert_true(outbox_has_room(test->rig.outbox, 20, 20));
    fake_broker_ack(&test->rig.broker, 25, true);
    rig_settle(&test->rig);
    assert_int_equal(test->room_count, 1);
    rig_settle(&test->rig);
    assert_int_equal(test->room_count, 1);
    finish(test);
    end(test);
}

/* Whatever the sizes, and however the ring lies: what was promised can be taken. */
static void test_room_that_was_promised_is_there(void **state)
{
    (void)state;
    static char content[CONTENT_MAX + 1];
    struct test *test = make(64, 64, 4 * (CONTENT_MAX + OUTBOX_OVERHEAD_BYTES_MAX));
    test->rig.broker.acks = true;
    start(test);
    srand(7);
    size_t promised = 0;
    for (size_t round = 0; round < 600; round++) {
        size_t count = 1 + (size_t)rand() % 6;
        size_t bytes = 0;
        size_t sizes[6];
        for (size_t i = 0; i < count; i++) {
            sizes[i] = rand() % 4 == 0 ? (size_t)rand() % CONTENT_MAX : 2 + (size_t)rand() % 900;
            bytes += sizes[i];
        }
        if (outbox_has_room(test->rig.outbox, count, bytes)) {
            promised++;
            for (size_t i = 0; i < count; i++) {
                memset(content, '7', sizes[i]);
                content[sizes[i]] = '\0';
                assert_int_equal(take_as(test, true, content), OUTBOX_TAKEN);
            }
        }
        if (rand() % 3 == 0) {
            rig_turn(&test->rig);
        }
    }
    assert_true(promised > 100);
    finish(test);
    end(test);
}

static void test_the_processors_word_may_overtake_the_confirm(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 8);
    test->published = 8;
    assert_true(rig_until(&test->rig, has_published, test));
    struct outbox_origin origin = {0, 0, 0};
    const char *ref = test->rig.broker.publishes[4].correlation_id;
    assert_int_equal(settle(test, "c1", ref, &origin), OUTBOX_REF_OURS);
    assert_int_equal(origin.session_index, 5);
    assert_int_equal(origin.session_generation, 6);
    assert_int_equal(origin.seq, 4);
    assert_int_equal(test->receipts[4], 1);
    assert_int_equal(settle(test, "c1", ref, &origin), OUTBOX_REF_OURS);
    assert_int_equal(test->receipts[4], 1);
    fake_broker_ack(&test->rig.broker, 8, true);
    rig_settle(&test->rig);
    check_receipts(test);
    assert_int_equal(settle(test, "c1", ref, &origin), OUTBOX_REF_OURS);
    check_receipts(test);
    end(test);
}

static void test_a_settled_message_is_not_published_again(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 3);
    test->published = 3;
    assert_true(rig_until(&test->rig, has_published, test));
    struct outbox_origin origin;
    (void)settle(test, "c0", test->rig.broker.publishes[0].correlation_id, &origin);
    (void)settle(test, "c1", test->rig.broker.publishes[1].correlation_id, &origin);
    fake_broker_reset(&test->rig.broker);
    rig_settle(&test->rig);
    rig_pass(&test->rig, 200, 100);
    finish(test);
    assert_int_equal(test->rig.broker.publish_count, 4);
    end(test);
}

static void test_foreign_and_broken_refs_are_told_apart(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 2);
    test->published = 2;
    assert_true(rig_until(&test->rig, has_published, test));
    const char *ref = test->rig.broker.publishes[0].correlation_id;
    struct outbox_origin origin;
    assert_true(strlen(ref) <= OUTBOX_REF_BYTES_MAX);
    for (size_t cut = 0; cut < strlen(ref) - 1; cut++) {
        char shorter[512];
        snprintf(shorter, sizeof shorter, "%.*s", (int)cut, ref);
        assert_int_equal(settle(test, "c0", shorter, &origin), OUTBOX_REF_FOREIGN);
    }
    const char *endings[] = {".1.0.0.0.0",        ".1.0.0",  ".01.0.0.0", ".1.0.0.", ".-1.0.0.0",
                             ".1.4294967296.0.0", ".1,0.0.0"};
    size_t boot = (size_t)(strchr(ref, '.') - ref);
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        char broken[512];
        snprintf(broken, sizeof broken, "%.*s%s", (int)boot, ref, endings[i]);
        assert_int_equal(settle(test, "c0", broken, &origin), OUTBOX_REF_FOREIGN);
    }
    char other[512];
    snprintf(other, sizeof other, "%s", ref);
    other[0] = other[0] == 'a' ? 'b' : 'a';
    assert_int_equal(settle(test, "c0", other, &origin), OUTBOX_REF_FOREIGN);
    /* Ours, but of a message never taken, or not published yet: settles nothing. */
    snprintf(other, sizeof other, "%.*s.999.1.2.0", (int)boot, ref);
    assert_int_equal(settle(test, "c0", other, &origin), OUTBOX_REF_OURS);
    take(test, 1);
    snprintf(other, sizeof other, "%.*s.3.3.4.2", (int)boot, ref);
    assert_int_equal(settle(test, "c2", other, &origin), OUTBOX_REF_OURS);
    assert_int_equal(test->receipt_count, 0);
    fake_broker_ack(&test->rig.broker, 2, true);
    finish(test);
    end(test);
}

static void test_a_ref_settles_nothing_for_another_client(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 2);
    test->published = 2;
    assert_true(rig_until(&test->rig, has_published, test));
    struct outbox_origin origin;
    const char *ref = test->rig.broker.publishes[1].correlation_id;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(settle(test, "c0", ref, &origin), OUTBOX_REF_FOREIGN);
    }
    assert_int_equal(test->receipt_count, 0);
    assert_int_equal(outbox_counters(test->rig.outbox)->depth_count, 2);
    assert_int_equal(rig_log_count(&test->rig, "level=warn event=receipt_ref_mismatch client=c0"),
                     2); /* the 1st, 2nd */
    assert_int_equal(settle(test, "c1", ref, &origin), OUTBOX_REF_OURS);
    assert_int_equal(test->receipts[1], 1);
    fake_broker_ack(&test->rig.broker, 2, true);
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

static void test_closing_says_goodbye(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 5);
    rig_settle(&test->rig);
    fake_broker_ack(&test->rig.broker, 5, true);
    rig_settle(&test->rig);
    assert_true(outbox_empty(test->rig.outbox));
    outbox_close(test->rig.outbox, test->rig.now_ms);
    assert_false(outbox_closed(test->rig.outbox));
    rig_settle(&test->rig);
    assert_true(outbox_closed(test->rig.outbox));
    assert_int_equal(test->rig.broker.close_count, 1);
    assert_int_equal(rig_log_count(&test->rig, "level=warn"), 0);
    end(test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_message_is_published_as_the_contract_says),
        cmocka_unit_test(test_two_starts_never_make_the_same_message_id),
        cmocka_unit_test(test_acks_come_singly_out_of_order_and_in_multiples),
        cmocka_unit_test(test_an_ack_of_what_was_never_published_ends_the_connection),
        cmocka_unit_test(test_the_window_starts_small_and_doubles),
        cmocka_unit_test(test_a_nack_waits_for_what_is_in_flight_and_replays_in_order),
        cmocka_unit_test(test_a_nack_pauses_for_a_tenth_of_a_second),
        cmocka_unit_test(test_a_second_of_nothing_but_nacks_leads_to_a_new_connection),
        cmocka_unit_test(test_nacks_with_acks_between_are_waited_for),
        cmocka_unit_test(test_a_returned_message_is_not_confirmed_by_its_ack),
        cmocka_unit_test(test_a_lost_link_leads_to_a_replay_in_order),
        cmocka_unit_test(test_a_closed_channel_is_opened_again_and_replayed),
        cmocka_unit_test(test_nothing_is_published_in_an_alarm),
        cmocka_unit_test(test_silence_of_two_heartbeats_is_death),
        cmocka_unit_test(test_a_link_that_flaps_is_tried_ever_less_and_stores_no_storm),
        cmocka_unit_test(test_full_means_full_and_room_is_told),
        cmocka_unit_test(test_room_that_was_promised_is_there),
        cmocka_unit_test(test_the_processors_word_may_overtake_the_confirm),
        cmocka_unit_test(test_a_settled_message_is_not_published_again),
        cmocka_unit_test(test_foreign_and_broken_refs_are_told_apart),
        cmocka_unit_test(test_a_ref_settles_nothing_for_another_client),
        cmocka_unit_test(test_what_hangs_after_a_nack_is_given_up),
        cmocka_unit_test(test_an_alarm_stops_the_clock_of_nacks),
        cmocka_unit_test(test_a_message_without_an_id_goes_by_one_name_in_all_logs),
        cmocka_unit_test(test_messages_taken_while_the_broker_is_away_wait_in_order),
        cmocka_unit_test(test_a_storm_of_faults_loses_nothing),
        cmocka_unit_test(test_closing_says_goodbye),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
