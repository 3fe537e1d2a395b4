/* SPDX-License-Identifier: MIT */
/* An outbox on the rig, messages for it, and what must hold when all is over. */
#ifndef POSTERN_TESTS_OUTBOX_CASE_H
#define POSTERN_TESTS_OUTBOX_CASE_H

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

static inline void on_receipt(void *context, const struct outbox_receipt *receipt)
{
    struct test *test = context;
    assert_int_equal(receipt->status, RECEIPT_QUEUED);
    assert_true(receipt->origin.seq < RECEIPTS_MAX);
    assert_int_equal(receipt->origin.session_index, receipt->origin.seq + 1);
    assert_int_equal(receipt->origin.session_generation, receipt->origin.seq + 2);
    char client[16];
    snprintf(client, sizeof client, "c%u", receipt->origin.seq % 3);
    assert_true(span_is(receipt->client_id, client));
    assert_true(receipt->id.bytes == 0 || span_equal(receipt->id, receipt->name));
    test->receipts[receipt->origin.seq]++;
    test->receipt_count++;
}

static inline void on_room(void *context)
{
    struct test *test = context;
    test->room_count++;
}

static const struct outbox_handler HANDLER = {on_receipt, on_room};
static struct span QUEUES[] = {SPAN("messages"), SPAN("voice")};

static inline struct test *make(uint32_t message_count, uint32_t window, size_t bytes)
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

static inline bool is_ready(void *context)
{
    struct test *test = context;
    return outbox_ready(test->rig.outbox);
}

static inline bool is_queued(void *context)
{
    struct test *test = context;
    return test->receipt_count >= test->wanted;
}

static inline bool has_published(void *context)
{
    struct test *test = context;
    return test->rig.broker.publish_count >= test->published;
}

static inline void start(struct test *test)
{
    outbox_start(test->rig.outbox, test->rig.now_ms);
    assert_true(rig_until(&test->rig, is_ready, test));
}

static inline void end(struct test *test)
{
    rig_close(&test->rig);
    free(test);
}

/* Message n of client c{n mod 3}, with id n unless told otherwise. */
static inline enum outbox_taken take_as(struct test *test, bool has_id, const char *content)
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

static inline void take(struct test *test, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(take_as(test, true, "{\"a\":1}"), OUTBOX_TAKEN);
    }
}

/* A receipt's ref as it comes back for a client. */
static inline enum outbox_ref settle(struct test *test, const char *client, const char *ref,
                                     struct outbox_origin *origin)
{
    uint64_t sequence;
    return outbox_settle(test->rig.outbox, span_text(client), span_text(ref), origin, &sequence);
}

static inline uint32_t number_of(const struct fake_publish *publish)
{
    return (uint32_t)strtoul(strchr(publish->message_id, ':') + 1, NULL, 10);
}

/* First occurrences per client in order, and everything taken is there. */
static inline void check_queue(struct test *test)
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

static inline void check_receipts(struct test *test)
{
    for (uint32_t n = 0; n < test->taken; n++) {
        assert_int_equal(test->receipts[n], 1);
    }
    assert_int_equal(test->receipt_count, test->taken);
    assert_true(outbox_empty(test->rig.outbox));
    assert_int_equal(outbox_counters(test->rig.outbox)->depth_bytes, 0);
}

/* Turns and time until all is queued; the broker acks. */
static inline void finish(struct test *test)
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

#endif
