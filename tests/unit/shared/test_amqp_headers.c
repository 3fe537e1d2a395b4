/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "amqp_headers.h"
#include "guard_page.h"

/* One entry of each kind, its value in the middle of others. */
static const char TABLE[] = "\6reasonS\0\0\0\10bad json"
                            "\1tt\1"
                            "\2i8b\xf9"
                            "\2u8B\xf9"
                            "\3i16s\xff\xfe"
                            "\3u16u\xff\xfe"
                            "\3i32I\xff\xff\xff\xfd"
                            "\3u32i\xff\xff\xff\xfd"
                            "\3i64l\xff\xff\xff\xff\xff\xff\xff\xfc"
                            "\1ff\0\0\0\0"
                            "\1dd\0\0\0\0\0\0\0\0"
                            "\3decD\2\0\0\0\1"
                            "\4voidV"
                            "\5tableF\0\0\0\7\1xF\0\0\0\0"
                            "\5arrayA\0\0\0\2t\1"
                            "\5bytesx\0\0\0\2\0\1"
                            "\0T\0\0\0\0\x6b\4\xd1\x28";

static struct span table_of_all(void)
{
    return span_of(TABLE, sizeof TABLE - 1);
}

static void test_each_kind_is_read_or_stepped_over(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum amqp_header_kind kind;
        int64_t integer;
        const char *text;
    } rows[] = {{"reason", AMQP_HEADER_TEXT, 0, "bad json"},  {"i8", AMQP_HEADER_INTEGER, -7, ""},
                {"u8", AMQP_HEADER_INTEGER, 0xf9, ""},        {"i16", AMQP_HEADER_INTEGER, -2, ""},
                {"u16", AMQP_HEADER_INTEGER, 0xfffe, ""},     {"i32", AMQP_HEADER_INTEGER, -3, ""},
                {"u32", AMQP_HEADER_INTEGER, 0xfffffffd, ""}, {"i64", AMQP_HEADER_INTEGER, -4, ""}};
    struct amqp_header headers[AMQP_HEADERS_MAX];
    size_t count = 0;
    assert_true(amqp_headers_read(table_of_all(), headers, &count));
    assert_int_equal(count, 10);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_true(span_is(headers[i].name, rows[i].name));
        assert_int_equal(headers[i].kind, rows[i].kind);
        assert_int_equal(headers[i].integer, rows[i].integer);
        assert_true(span_is(headers[i].text, rows[i].text));
    }
    assert_true(span_is(headers[8].name, "bytes") && headers[8].text.bytes == 2);
    assert_int_equal(headers[9].name.bytes, 0);
    assert_int_equal(headers[9].kind, AMQP_HEADER_TIMESTAMP);
    assert_int_equal(headers[9].integer, 1795477800);
}

static void test_more_than_there_is_room_for_are_passed_over(void **state)
{
    (void)state;
    uint8_t table[40 * 4];
    struct amqp_header headers[AMQP_HEADERS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < 40; i++) {
        memcpy(table + 4 * i, "\1ab\5", 4);
    }
    assert_true(amqp_headers_read(span_of(table, sizeof table), headers, &count));
    assert_int_equal(count, AMQP_HEADERS_MAX);
}

/* Cut anywhere but between entries, it is malformed; nothing is read beyond the end. */
static void test_a_cut_table_is_malformed(void **state)
{
    (void)state;
    struct guard_page guard;
    guard_page_open(&guard, sizeof TABLE);
    size_t whole = 0;
    for (size_t cut = 0; cut <= sizeof TABLE - 1; cut++) {
        struct amqp_header headers[AMQP_HEADERS_MAX];
        size_t count = 0;
        whole += amqp_headers_read(span_of(guard_page_put(&guard, TABLE, cut), cut), headers, &count);
    }
    assert_int_equal(whole, 18); /* before each of 17 entries, and behind the last */
    guard_page_close(&guard);
}

static void test_unknown_kinds_are_malformed(void **state)
{
    (void)state;
    static const char known[] = "VtbBsuIifDlLdTSxAF";
    for (unsigned kind = 0; kind < 256; kind++) {
        uint8_t table[16] = {1, 'a', (uint8_t)kind};
        bool is_known = kind != 0 && strchr(known, (int)kind) != NULL;
        bool is_read = false;
        for (size_t bytes = 3; bytes <= sizeof table && !is_read; bytes++) {
            struct amqp_header headers[AMQP_HEADERS_MAX];
            size_t count = 0;
            is_read = amqp_headers_read(span_of(table, bytes), headers, &count);
        }
        assert_int_equal(is_read, is_known);
    }
}

static void test_lengths_beyond_the_end_are_malformed(void **state)
{
    (void)state;
    static const char *const tables[] = {"\1aS\0\0\0\2x", "\1aS\377\377\377\377x", "\1aF\177\377\377\377", "\5aS"};
    static const size_t bytes[] = {8, 8, 7, 3};
    for (size_t i = 0; i < 4; i++) {
        struct amqp_header headers[AMQP_HEADERS_MAX];
        size_t count = 0;
        assert_false(amqp_headers_read(span_of(tables[i], bytes[i]), headers, &count));
    }
}

static void test_headers_are_taken_out_of_the_properties(void **state)
{
    (void)state;
    static const char all[] = "\xf0\0\4json\4gzip\0\0\0\4\1ab\5\2";
    uint8_t copy[64];
    struct span rest;
    struct span table;
    assert_true(amqp_headers_split(span_of(all, sizeof all - 1), copy, &rest, &table));
    assert_true(span_equal(rest, span_of("\xd0\0\4json\4gzip\2", 13)));
    assert_true(span_equal(table, span_of("\1ab\5", 4)));
    assert_true(amqp_headers_split(span_of("\x90\0\4json\2", 8), copy, &rest, &table));
    assert_true(span_equal(rest, span_of("\x90\0\4json\2", 8)));
    assert_int_equal(table.bytes, 0);
    assert_true(amqp_headers_split(span_of("\x20\0\0\0\0\0", 6), copy, &rest, &table));
    assert_true(span_equal(rest, span_of("\0\0", 2)));
    assert_int_equal(table.bytes, 0);
}

static void test_malformed_properties_are_refused_at_every_cut(void **state)
{
    (void)state;
    static const char all[] = "\xe0\0\4json\4gzip\0\0\0\4\1ab\5";
    struct guard_page guard;
    guard_page_open(&guard, sizeof all);
    for (size_t cut = 0; cut < sizeof all - 1; cut++) {
        uint8_t copy[64];
        struct span rest;
        struct span table;
        assert_false(amqp_headers_split(span_of(guard_page_put(&guard, all, cut), cut), copy, &rest, &table));
    }
    uint8_t copy[64];
    struct span rest;
    struct span table;
    assert_false(amqp_headers_split(span_of("\0\1\0\0", 4), copy, &rest, &table)); /* more flags than there are */
    guard_page_close(&guard);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind_is_read_or_stepped_over),
        cmocka_unit_test(test_more_than_there_is_room_for_are_passed_over),
        cmocka_unit_test(test_a_cut_table_is_malformed),
        cmocka_unit_test(test_unknown_kinds_are_malformed),
        cmocka_unit_test(test_lengths_beyond_the_end_are_malformed),
        cmocka_unit_test(test_headers_are_taken_out_of_the_properties),
        cmocka_unit_test(test_malformed_properties_are_refused_at_every_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
