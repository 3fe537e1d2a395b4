/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "decimal.h"
#include "guard_page.h"

static struct guard_page guard;

static bool parse(const char *text, uint64_t min, uint64_t max, uint64_t *value)
{
    size_t bytes = strlen(text);
    return decimal_parse(span_of(guard_page_put(&guard, text, bytes), bytes), min, max, value);
}

static void assert_value(const char *text, uint64_t expected)
{
    uint64_t value = ~expected;
    assert_true(parse(text, 0, UINT64_MAX, &value));
    assert_true(value == expected);
}

static void assert_refused(const char *text, uint64_t min, uint64_t max)
{
    uint64_t value = 4711;
    assert_false(parse(text, min, max, &value));
    assert_true(value == 4711);
}

static void test_reads_numbers(void **state)
{
    (void)state;
    assert_value("0", 0);
    assert_value("7", 7);
    assert_value("10", 10);
    assert_value("4294967296", UINT64_C(4294967296));
    assert_value("18446744073709551615", UINT64_MAX);
}

static void test_keeps_to_the_range(void **state)
{
    (void)state;
    uint64_t value = 0;
    assert_true(parse("5", 5, 5, &value));
    assert_true(value == 5);
    assert_refused("4", 5, 10);
    assert_refused("11", 5, 10);
    assert_true(parse("10", 5, 10, &value));
    assert_refused("18446744073709551616", 0, UINT64_MAX);
    assert_refused("18446744073709551620", 0, UINT64_MAX);
    assert_refused("99999999999999999999", 0, UINT64_MAX);
    assert_refused("184467440737095516150", 0, UINT64_MAX);
    assert_refused("1000000000000000000000000000000000000000000000", 0, UINT64_MAX);
}

static void test_refuses_what_is_not_a_plain_number(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",    "-1",  "+1", " 1", "1 ",    "1\n", "01", "00",   "1.0",
                                        "1e3", "0x1", "a",  "1a", "1,000", "/",   ":",  "\xB2", "1_0"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_refused(wrong[i], 0, UINT64_MAX);
    }
    uint64_t value = 4711;
    assert_false(decimal_parse(span_of("1\0", 2), 0, 10, &value));
    assert_false(decimal_parse(span_of(NULL, 0), 0, 10, &value));
    assert_true(value == 4711);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_numbers),
        cmocka_unit_test(test_keeps_to_the_range),
        cmocka_unit_test(test_refuses_what_is_not_a_plain_number),
    };
    guard_page_open(&guard, 64);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    guard_page_close(&guard);
    return failed;
}
