/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "aborts.h"
#include "arena.h"
#include "guard_page.h"
#include "json.h"
#include "receipt.h"

static _Alignas(ARENA_ALIGN_BYTES) uint8_t memory[2 * 1024 * 1024];
static char buffer[RECEIPT_BATCH_BYTES];
static struct guard_page guard;
static struct json json;

static void assert_span(struct span span, const char *text)
{
    if (!span_is(span, text)) {
        fail_msg("'%.*s', not '%s'", (int)span.bytes, (const char *)span.data, text);
    }
}

static void names_and_statuses_belong_together(void **state)
{
    (void)state;
    static const char *const names[] = {"accepted", "queued", "stored", "rejected", "dead"};
    for (int index = 0; index < RECEIPT_STATUS_COUNT; index++) {
        enum receipt_status status = RECEIPT_ACCEPTED;
        assert_string_equal(receipt_status_name((enum receipt_status)index), names[index]);
        assert_true(receipt_status_from(span_text(names[index]), &status));
        assert_int_equal(status, index);
    }
    enum receipt_status untouched = RECEIPT_STORED;
    assert_false(receipt_status_from(span_text("Stored"), &untouched));
    assert_false(receipt_status_from(span_text(""), &untouched));
    assert_false(receipt_status_from(span_text("storedx"), &untouched));
    assert_int_equal(untouched, RECEIPT_STORED);
}

static void a_batch_reads_as_it_was_written(void **state)
{
    (void)state;
    struct receipt_batch batch;
    receipt_batch_begin(&batch, buffer, sizeof buffer);
    const struct receipt stored = {
        .client_id = SPAN("dev-7"), .id = SPAN("m1"), .ref = SPAN("r~1"), .status = RECEIPT_STORED};
    const struct receipt rejected = {.client_id = SPAN("dev-8"),
                                     .status = RECEIPT_REJECTED,
                                     .code = SPAN("rejected_by_rule"),
                                     .reason = SPAN("outside_hours")};
    assert_true(receipt_batch_add(&batch, &stored));
    assert_true(receipt_batch_add(&batch, &rejected));
    assert_int_equal(batch.count, 2);
    struct span body = receipt_batch_end(&batch);
    assert_span(body, "{\"receipts\":[{\"client_id\":\"dev-7\",\"id\":\"m1\",\"ref\":\"r~1\",\"status\":\"stored\"},"
                      "{\"client_id\":\"dev-8\",\"status\":\"rejected\",\"code\":\"rejected_by_rule\","
                      "\"reason\":\"outside_hours\"}]}");
    struct receipt_reader reader;
    struct receipt read;
    receipt_reader_begin(&reader, span_of(guard_page_put(&guard, body.data, body.bytes), body.bytes));
    assert_int_equal(receipt_read(&reader, &read), RECEIPT_READ_ONE);
    assert_span(read.client_id, "dev-7");
    assert_span(read.id, "m1");
    assert_span(read.ref, "r~1");
    assert_int_equal(read.status, RECEIPT_STORED);
    assert_int_equal(read.code.bytes + read.reason.bytes, 0);
    assert_int_equal(receipt_read(&reader, &read), RECEIPT_READ_ONE);
    assert_span(read.client_id, "dev-8");
    assert_int_equal(read.id.bytes + read.ref.bytes, 0);
    assert_int_equal(read.status, RECEIPT_REJECTED);
    assert_span(read.code, "rejected_by_rule");
    assert_span(read.reason, "outside_hours");
    assert_int_equal(receipt_read(&reader, &read), RECEIPT_READ_END);
    assert_int_equal(receipt_read(&reader, &read), RECEIPT_READ_END);
}

static void an_empty_batch_is_one(void **state)
{
    (void)state;
    struct receipt_batch batch;
    struct receipt_reader reader;
    struct receipt read;
    receipt_batch_begin(&batch, buffer, sizeof buffer);
    struct span body = receipt_batch_end(&batch);
    assert_span(body, "{\"receipts\":[]}");
    receipt_reader_begin(&reader, body);
    assert_int_equal(receipt_read(&reader, &read), RECEIPT_READ_END);
}

static void a_full_batch_stays_whole(void **state)
{
    (void)state;
    for (size_t capacity = RECEIPT_ONE_BYTES_MAX; capacity < RECEIPT_ONE_BYTES_MAX + 120; capacity++) {
        struct receipt_batch batch;
        size_t added = 0;
        receipt_batch_begin(&batch, buffer, capacity);
        const struct receipt one = {
            .client_id = SPAN("client"), .id = SPAN("message"), .ref = SPAN("reference"), .status = RECEIPT_STORED};
        while (receipt_batch_add(&batch, &one)) {
            added++;
        }
        assert_int_equal(batch.count, added);
        struct span body = receipt_batch_end(&batch);
        assert_true(body.bytes <= capacity && capacity - body.bytes < 100);
        struct receipt_reader reader;
        struct receipt read;
        size_t count = 0;
        receipt_reader_begin(&reader, span_of(guard_page_put(&guard, body.data, body.bytes), body.bytes));
        while (receipt_read(&reader, &read) == RECEIPT_READ_ONE) {
            count++;
        }
        assert_int_equal(count, added);
        assert_int_equal(receipt_read(&reader, &read), RECEIPT_READ_END);
        assert_int_equal(json_parse(&json, body), JSON_OK);
    }
}

static void the_longest_receipt_fits_alone(void **state)
{
    (void)state;
    char longest[512];
    memset(longest, 'a', sizeof longest);
    const struct receipt receipt = {.client_id = span_of(longest, 64),
                                    .id = span_of(longest, 64),
                                    .ref = span_of(longest, RECEIPT_REF_BYTES_MAX),
                                    .status = RECEIPT_ACCEPTED,
                                    .code = span_of(longest, RECEIPT_CODE_BYTES_MAX),
                                    .reason = span_of(longest, sizeof longest)};
    struct receipt_batch batch;
    receipt_batch_begin(&batch, buffer, RECEIPT_ONE_BYTES_MAX);
    assert_true(receipt_batch_add(&batch, &receipt));
    struct span body = receipt_batch_end(&batch);
    struct receipt_reader reader;
    struct receipt read;
    receipt_reader_begin(&reader, body);
    assert_int_equal(receipt_read(&reader, &read), RECEIPT_READ_ONE);
    assert_int_equal(read.ref.bytes, RECEIPT_REF_BYTES_MAX);
    assert_int_equal(read.reason.bytes, RECEIPT_REASON_BYTES_MAX);
    assert_int_equal(receipt_read(&reader, &read), RECEIPT_READ_END);
}

static void reasons_and_refs_are_made_plain(void **state)
{
    (void)state;
    struct receipt_batch batch;
    struct receipt receipt = {.client_id = SPAN("a"),
                              .ref = SPAN("bad\"ref"),
                              .status = RECEIPT_DEAD,
                              .reason = SPAN("violates \"x\\y\"\n\xc3\xa9")};
    char long_ref[RECEIPT_REF_BYTES_MAX + 1];
    memset(long_ref, 'r', sizeof long_ref);
    receipt_batch_begin(&batch, buffer, sizeof buffer);
    assert_true(receipt_batch_add(&batch, &receipt));
    receipt.ref = span_of(long_ref, sizeof long_ref);
    receipt.reason.bytes = 0;
    assert_true(receipt_batch_add(&batch, &receipt));
    assert_span(receipt_batch_end(&batch), "{\"receipts\":[{\"client_id\":\"a\",\"status\":\"dead\",\"reason\":"
                                           "\"violates 'x?y'???\"},{\"client_id\":\"a\",\"status\":\"dead\"}]}");
}

static void bad_client_id(void *argument)
{
    const struct receipt receipt = {.client_id = SPAN("a\"b"), .status = RECEIPT_STORED};
    (void)receipt_batch_add(argument, &receipt);
}

static void bad_code(void *argument)
{
    const struct receipt receipt = {.client_id = SPAN("a"), .status = RECEIPT_DEAD, .code = SPAN("Not a word")};
    (void)receipt_batch_add(argument, &receipt);
}

static void wrong_parts_end_the_program(void **state)
{
    (void)state;
    struct receipt_batch batch;
    receipt_batch_begin(&batch, buffer, sizeof buffer);
    assert_true(aborts(bad_client_id, &batch));
    assert_true(aborts(bad_code, &batch));
}

/* How a batch is read: how many receipts, and whether it ends well. */
static enum receipt_read read_all(const void *data, size_t bytes, size_t *count)
{
    struct receipt_reader reader;
    struct receipt read;
    receipt_reader_begin(&reader, span_of(guard_page_put(&guard, data, bytes), bytes));
    *count = 0;
    enum receipt_read result = receipt_read(&reader, &read);
    for (; result == RECEIPT_READ_ONE; result = receipt_read(&reader, &read)) {
        (*count)++;
    }
    assert_true(reader.offset <= bytes);
    return result;
}

static void batches_are_judged(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int count; /* receipts; -1 minus those that came before the mistake when wrong */
    } cases[] = {
        {" { \"receipts\" : [ { \"status\" : \"stored\" , \"client_id\" : \"a\" } ] } ", 1},
        {"{\"receipts\":[{\"status\":\"dead\",\"new\":\"x\",\"client_id\":\"a\",\"newer\":\"\",\"newer\":\"\"}]}", 1},
        {"{\"receipts\":[{\"client_id\":\"a\",\"status\":\"stored\",\"ref\":\"\",\"code\":\"\",\"reason\":\"\"}]}", 1},
        {"", -1},
        {"{}", -1},
        {"[]", -1},
        {"{\"receipt\":[]}", -1},
        {"{\"receipts\":[]", -1},
        {"{\"receipts\":[]}x", -1},
        {"{\"receipts\":[],\"more\":1}", -1},
        {"{\"receipts\":[{}]}", -1},
        {"{\"receipts\":[{\"client_id\":\"a\"}]}", -1},
        {"{\"receipts\":[{\"status\":\"stored\"}]}", -1},
        {"{\"receipts\":[{\"client_id\":\"a\",\"status\":\"gone\"}]}", -1},
        {"{\"receipts\":[{\"client_id\":\"a b\",\"status\":\"stored\"}]}", -1},
        {"{\"receipts\":[{\"client_id\":\"\",\"status\":\"stored\"}]}", -1},
        {"{\"receipts\":[{\"client_id\":\"a\",\"client_id\":\"a\",\"status\":\"stored\"}]}", -1},
        {"{\"receipts\":[{\"client_id\":\"a\",\"status\":\"stored\",\"status\":\"dead\"}]}", -1},
        {"{\"receipts\":[{\"client_id\":\"a\",\"status\":\"stored\",\"id\":\"\"}]}", -1},
        {"{\"receipts\":[{\"client_id\":\"a\",\"status\":\"stored\",\"id\":7}]}", -1},
        {"{\"receipts\":[{\"client_id\":\"a\",\"status\":\"stored\",\"new\":7}]}", -1},
        {"{\"receipts\":[{\"client_id\":\"a\",\"status\":\"stored\",\"code\":\"No\"}]}", -1},
        {"{\"receipts\":[{\"client_id\":\"\\u0061\",\"status\":\"stored\"}]}", -1},
        {"{\"receipts\":[{\"client_id\":\"a\",\"status\":\"stored\",\"reason\":\"a\nb\"}]}", -1},
        {"{\"receipts\":[{\"client_id\":\"a\",\"status\":\"stored\",\"reason\":\"\xc3\xa9\"}]}", -1},
        {"{\"receipts\":[{\"client_id\":\"a\",\"status\":\"stored\",}]}", -1},
        {"{\"receipts\":[{\"client_id\":\"a\",\"status\":\"stored\"},]}", -2},
        {"{\"receipts\":[{\"client_id\":\"a\",\"status\":\"stored\"}{}]}", -2},
        {"{\"receipts\":[{\"client_id\":\"a\",\"status\":\"stored\"}}", -2},
        {"{\"receipts\":[{\"client_id\":\"a\",\"status\":\"stored\"}]]", -2},
        {"{\"receipts\":[{\"client_id\":\"a\",\"status\":\"stored\"},{\"client_id\":\"b\",\"status\":\"x\"}]}", -2},
        {"{\"receipts\":[,{\"client_id\":\"a\",\"status\":\"stored\"}]}", -1},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        size_t count;
        enum receipt_read result = read_all(cases[index].text, strlen(cases[index].text), &count);
        int found = result == RECEIPT_READ_END ? (int)count : -1 - (int)count;
        if (found != cases[index].count) {
            fail_msg("%s: %d", cases[index].text, found);
        }
    }
}

/* Every change of one byte: what the reader takes, json.c takes too. (Only an unknown name given twice is not JSON for
 * json.c alone, and one byte cannot make that here.) */
static void the_reader_takes_only_json(void **state)
{
    (void)state;
    static const char batch[] = "{\"receipts\":[{\"client_id\":\"dev-7\",\"id\":\"m1\",\"ref\":\"1.2\",\"status\":"
                                "\"stored\"},{\"client_id\":\"d\","
                                "\"status\":\"rejected\",\"code\":\"late\",\"reason\":\"outside_hours\"}]}";
    enum { BATCH_BYTES = sizeof batch - 1 };
    size_t taken = 0;
    for (size_t at = 0; at < BATCH_BYTES; at++) {
        for (unsigned byte = 0; byte < 256; byte++) {
            char changed[BATCH_BYTES];
            memcpy(changed, batch, BATCH_BYTES);
            changed[at] = (char)byte;
            size_t count;
            if (read_all(changed, BATCH_BYTES, &count) == RECEIPT_READ_END) {
                taken++;
                assert_int_equal(json_parse(&json, span_of(changed, BATCH_BYTES)), JSON_OK);
            }
        }
        size_t count;
        assert_int_equal(read_all(batch, at, &count), RECEIPT_READ_BAD);
    }
    assert_true(taken > BATCH_BYTES);
}

static int open_all(void **state)
{
    (void)state;
    struct arena arena;
    const struct siphash_key key = {{5, 6}};
    guard_page_open(&guard, RECEIPT_BATCH_BYTES);
    arena_begin(&arena, memory, sizeof memory);
    json_init(&json, &arena, RECEIPT_BATCH_BYTES, &key);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    guard_page_close(&guard);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_statuses_belong_together),
        cmocka_unit_test(a_batch_reads_as_it_was_written),
        cmocka_unit_test(an_empty_batch_is_one),
        cmocka_unit_test(a_full_batch_stays_whole),
        cmocka_unit_test(the_longest_receipt_fits_alone),
        cmocka_unit_test(reasons_and_refs_are_made_plain),
        cmocka_unit_test(wrong_parts_end_the_program),
        cmocka_unit_test(batches_are_judged),
        cmocka_unit_test(the_reader_takes_only_json),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
