/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "arena.h"
#include "column.h"

static _Alignas(ARENA_ALIGN_BYTES) uint8_t memory[1024];

static struct column column_of(size_t capacity_bytes, uint32_t element_type)
{
    struct arena arena;
    struct column column;
    memset(memory, 0xee, sizeof memory);
    arena_begin(&arena, memory, sizeof memory);
    column_init(&column, &arena, "test", capacity_bytes, element_type);
    return column;
}

#define ASSERT_BYTES(column, literal)                                                                                  \
    do {                                                                                                               \
        assert_int_equal((column).used_bytes, sizeof(literal) - 1);                                                    \
        assert_memory_equal((column).data, literal, sizeof(literal) - 1);                                              \
    } while (0)

/* The bytes are what PostgreSQL 15 sends for `COPY (SELECT ARRAY['a','bcd']) TO STDOUT (FORMAT binary)`. */
static void text_is_an_array_in_the_binary_format(void **state)
{
    (void)state;
    struct column column = column_of(256, COLUMN_TEXT);
    assert_true(column_add_text(&column, span_text("a")));
    assert_true(column_add_text(&column, span_text("bcd")));
    column_end(&column);
    ASSERT_BYTES(column, "\0\0\0\1\0\0\0\0\0\0\0\x19\0\0\0\2\0\0\0\1"
                         "\0\0\0\1a\0\0\0\3bcd");
}

static void a_null_sets_the_flag_and_an_empty_text_is_none(void **state)
{
    (void)state;
    struct column column = column_of(256, COLUMN_TEXT);
    assert_true(column_add_text(&column, span_of(NULL, 0)));
    assert_true(column_add_null(&column));
    column_end(&column);
    ASSERT_BYTES(column, "\0\0\0\1\0\0\0\1\0\0\0\x19\0\0\0\2\0\0\0\1"
                         "\0\0\0\0\xff\xff\xff\xff");
    column_begin(&column);
    assert_true(column_add_text(&column, span_text("z")));
    column_end(&column);
    ASSERT_BYTES(column, "\0\0\0\1\0\0\0\0\0\0\0\x19\0\0\0\1\0\0\0\1"
                         "\0\0\0\1z");
}

static void jsonb_has_its_version_before_the_text(void **state)
{
    (void)state;
    struct column column = column_of(256, COLUMN_JSONB);
    assert_true(column_add_jsonb(&column, span_text("{}")));
    column_end(&column);
    ASSERT_BYTES(column, "\0\0\0\1\0\0\0\0\0\0\x0e\xda\0\0\0\1\0\0\0\1"
                         "\0\0\0\3\1{}");
}

static void times_count_microseconds_from_2000(void **state)
{
    (void)state;
    struct column column = column_of(256, COLUMN_TIMESTAMPTZ);
    assert_true(column_add_time(&column, INT64_C(946684800000)));
    assert_true(column_add_time(&column, INT64_C(946684800001)));
    assert_true(column_add_time(&column, INT64_C(946684799999)));
    assert_true(column_add_time(&column, INT64_C(253402300799999))); /* the end of the year 9999 */
    column_end(&column);
    ASSERT_BYTES(column, "\0\0\0\1\0\0\0\0\0\0\x04\xa0\0\0\0\4\0\0\0\1"
                         "\0\0\0\x08\0\0\0\0\0\0\0\0"
                         "\0\0\0\x08\0\0\0\0\0\0\x03\xe8"
                         "\0\0\0\x08\xff\xff\xff\xff\xff\xff\xfc\x18"
                         "\0\0\0\x08\x03\x80\xe7\x0b\x91\x3b\x7c\x18");
}

/* Filled to the last byte, and not one beyond. */
static void what_does_not_fit_is_left_out_whole(void **state)
{
    (void)state;
    enum { CAPACITY = COLUMN_HEADER_BYTES + 2 * (COLUMN_ELEMENT_BYTES + 5) };
    struct column column = column_of(CAPACITY, COLUMN_TEXT);
    assert_true(column_add_text(&column, span_text("12345")));
    assert_false(column_add_text(&column, span_text("123456")));
    assert_int_equal(column.count, 1);
    assert_true(column_add_text(&column, span_text("12345")));
    assert_int_equal(column.used_bytes, CAPACITY);
    assert_false(column_add_text(&column, span_of(NULL, 0)));
    assert_false(column_add_null(&column));
    assert_int_equal(memory[CAPACITY], 0xee);

    struct column json = column_of(COLUMN_HEADER_BYTES + COLUMN_ELEMENT_BYTES + 2, COLUMN_JSONB);
    assert_false(column_add_jsonb(&json, span_text("{}")));
    assert_true(column_add_jsonb(&json, span_text("1")));

    struct column time = column_of(COLUMN_HEADER_BYTES + COLUMN_ELEMENT_BYTES + 7, COLUMN_TIMESTAMPTZ);
    assert_false(column_add_time(&time, 0));
    assert_int_equal(time.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_an_array_in_the_binary_format),
        cmocka_unit_test(a_null_sets_the_flag_and_an_empty_text_is_none),
        cmocka_unit_test(jsonb_has_its_version_before_the_text),
        cmocka_unit_test(times_count_microseconds_from_2000),
        cmocka_unit_test(what_does_not_fit_is_left_out_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
