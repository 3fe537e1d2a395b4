/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "receipt_groups.h"

static struct {
    struct receipt_groups groups;
    void *memory;
    size_t batch_count;
    size_t receipt_count;
    char last_reply_to[REPLY_TO_BYTES_MAX + 1];
    char first_body[2048]; /* cut */
} test;

static void on_send(void *context, struct span reply_to, struct span body, size_t count)
{
    size_t found = 0;
    assert_ptr_equal(context, &test);
    assert_true(body.bytes <= RECEIPT_BATCH_BYTES);
    memcpy(test.last_reply_to, reply_to.data, reply_to.bytes);
    test.last_reply_to[reply_to.bytes] = '\0';
    if (test.batch_count++ == 0) {
        (void)snprintf(test.first_body, sizeof test.first_body, "%.*s", (int)body.bytes, (const char *)body.data);
    }
    struct receipt_reader reader;
    struct receipt receipt;
    receipt_reader_begin(&reader, body);
    enum receipt_read read;
    while ((read = receipt_read(&reader, &receipt)) == RECEIPT_READ_ONE) {
        /* Each carries the gateway it is for as its ref: none goes astray. */
        assert_int_equal(receipt.ref.bytes, reply_to.bytes);
        assert_memory_equal(receipt.ref.data, reply_to.data, reply_to.bytes);
        test.receipt_count++;
        found++;
    }
    assert_int_equal(found, count);
    assert_int_equal(read, RECEIPT_READ_END);
}

static int set_up(void **state)
{
    (void)state;
    struct arena arena;
    memset(&test, 0, sizeof test);
    arena_measure(&arena);
    receipt_groups_init(&test.groups, &arena, on_send, &test);
    test.memory = aligned_alloc(ARENA_ALIGN_BYTES, arena.used_bytes);
    const size_t bytes = arena.used_bytes;
    arena_begin(&arena, test.memory, bytes);
    receipt_groups_init(&test.groups, &arena, on_send, &test);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(test.memory);
    return 0;
}

static void add(const char *gateway, const char *id)
{
    const struct receipt receipt = {
        .client_id = SPAN("dev-7"), .id = span_text(id), .ref = span_text(gateway), .status = RECEIPT_STORED};
    receipt_groups_add(&test.groups, span_text(gateway), &receipt);
}

static void one_gateway_gets_one_message(void **state)
{
    (void)state;
    add("gateway.gw-1", "m1");
    add("gateway.gw-1", "m2");
    assert_int_equal(test.batch_count, 0);
    receipt_groups_flush(&test.groups);
    assert_int_equal(test.batch_count, 1);
    assert_string_equal(test.last_reply_to, "gateway.gw-1");
    assert_string_equal(
        test.first_body,
        "{\"receipts\":[{\"client_id\":\"dev-7\",\"id\":\"m1\",\"ref\":\"gateway.gw-1\",\"status\":\"stored\"},"
        "{\"client_id\":\"dev-7\",\"id\":\"m2\",\"ref\":\"gateway.gw-1\",\"status\":\"stored\"}]}");
    receipt_groups_flush(&test.groups);
    assert_int_equal(test.batch_count, 1);
}

static void each_gateway_gets_its_own(void **state)
{
    (void)state;
    for (int i = 0; i < 90; i++) {
        add(i % 3 == 0 ? "gateway.a" : i % 3 == 1 ? "gateway.b" : "gateway.ab", "m");
    }
    receipt_groups_flush(&test.groups);
    assert_int_equal(test.batch_count, 3);
    assert_int_equal(test.receipt_count, 90);
}

static void more_gateways_than_groups_lose_nothing(void **state)
{
    (void)state;
    char name[32];
    for (int i = 0; i < 1000; i++) {
        (void)snprintf(name, sizeof name, "gateway.%d", i % (3 * RECEIPT_GROUPS));
        add(name, "m");
    }
    receipt_groups_flush(&test.groups);
    assert_int_equal(test.receipt_count, 1000);
}

static void a_full_message_is_followed_by_another(void **state)
{
    (void)state;
    for (int i = 0; i < 10000; i++) {
        add("gateway.gw-1", "0123456789012345678901234567890123456789");
    }
    receipt_groups_flush(&test.groups);
    assert_int_equal(test.receipt_count, 10000);
    assert_true(test.batch_count > 5);
    assert_true(test.batch_count < 20);
}

/* A client's address on the same exchange, a reply queue of someone else, nothing at all. */
static void only_gateways_are_told(void **state)
{
    (void)state;
    add("client.dev-7", "m");
    add("amq.rabbitmq.reply-to", "m");
    add("gateway.", "m");
    add("", "m");
    char longest[REPLY_TO_BYTES_MAX + 2] = "gateway.";
    memset(longest + 8, 'x', sizeof longest - 9);
    add(longest, "m");
    receipt_groups_flush(&test.groups);
    assert_int_equal(test.batch_count, 0);
    longest[REPLY_TO_BYTES_MAX] = '\0';
    add(longest, "m");
    receipt_groups_flush(&test.groups);
    assert_int_equal(test.receipt_count, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_gateway_gets_one_message),
        TEST(each_gateway_gets_its_own),
        TEST(more_gateways_than_groups_lose_nothing),
        TEST(a_full_message_is_followed_by_another),
        TEST(only_gateways_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
