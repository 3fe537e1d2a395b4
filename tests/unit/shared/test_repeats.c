/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "repeats.h"

static void test_the_same_is_told_ever_less(void **state)
{
    (void)state;
    struct repeats repeats = {.next = 0};
    size_t told = 0;
    for (uint32_t i = 1; i <= 1000; i++) {
        uint32_t times = repeats_due(&repeats, "lost", 1, span_text("reset"));
        assert_true(times == 0 || times == i);
        told += times > 0;
    }
    assert_int_equal(told, 10); /* 1, 2, 4 ... 512 */
}

static void test_failures_that_take_turns_are_counted_each(void **state)
{
    (void)state;
    struct repeats repeats = {.next = 0};
    size_t told = 0;
    for (uint32_t i = 0; i < 400; i++) {
        told += repeats_due(&repeats, i % 2 == 0 ? "lost" : "refused", i % 3, span_text("x")) > 0;
    }
    assert_in_range(told, 6 * 6, 6 * 8);
    assert_int_equal(repeats_due(&repeats, "lost", 1, span_text("y")), 1);
    assert_int_equal(repeats_due(&repeats, "lost", 7, span_of(NULL, 0)), 1);
}

static void test_the_longest_known_is_forgotten(void **state)
{
    (void)state;
    struct repeats repeats = {.next = 0};
    for (uint64_t i = 0; i < REPEATS_MAX; i++) {
        assert_int_equal(repeats_due(&repeats, "lost", i, span_text("x")), 1);
    }
    assert_int_equal(repeats_due(&repeats, "lost", 0, span_text("x")), 2);
    assert_int_equal(repeats_due(&repeats, "lost", REPEATS_MAX, span_text("x")), 1);
    assert_int_equal(repeats_due(&repeats, "lost", 0, span_text("x")), 1);
    assert_int_equal(repeats_due(&repeats, "lost", 2, span_text("x")), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_same_is_told_ever_less),
        cmocka_unit_test(test_failures_that_take_turns_are_counted_each),
        cmocka_unit_test(test_the_longest_known_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
