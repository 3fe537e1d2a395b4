/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rate.h"

static void the_tenth_in_a_minute_is_too_many(void **state)
{
    (void)state;
    struct rate rate = {0};
    for (int index = 1; index <= 9; index++) {
        assert_false(rate_error(&rate, 5000));
    }
    assert_true(rate_error(&rate, 5000));
}

static void slow_errors_are_forgiven_for_ever(void **state)
{
    (void)state;
    struct rate rate = {0};
    // Every 7 s: ten of them take 63 s.
    for (uint64_t index = 0; index < 1000; index++) {
        assert_false(rate_error(&rate, 1000 + index * 7000));
    }
}

static void the_minute_slides(void **state)
{
    (void)state;
    struct rate rate = {0};
    // Nine at second 50, and the tenth a minute later: the nine are forgotten, but count with those that follow.
    for (int index = 0; index < 9; index++) {
        assert_false(rate_error(&rate, 50000));
    }
    assert_false(rate_error(&rate, 110000));
    for (int index = 0; index < 8; index++) {
        assert_false(rate_error(&rate, 115000));
    }
    assert_true(rate_error(&rate, 169000));
}

static void a_long_peace_is_not_taken_for_a_short_one(void **state)
{
    (void)state;
    struct rate rate = {0};
    uint64_t now_ms = 0;
    // Gaps of 256 s, which a byte cannot hold.
    for (int index = 0; index < 100; index++) {
        assert_false(rate_error(&rate, now_ms));
        now_ms += 256000;
    }
}

/* Against the definition, with all times kept. */
static void agrees_with_a_model(void **state)
{
    (void)state;
    enum { STEPS = 20000 };
    static uint64_t times_s[STEPS];
    struct rate rate = {0};
    uint32_t random = 99;
    uint64_t now_ms = 0;
    int hits = 0;
    for (int step = 0; step < STEPS; step++) {
        random = random * 1664525u + 1013904223u;
        now_ms += (random >> 8) % 13400;
        times_s[step] = now_ms / 1000;
        bool expected = step >= 9 && times_s[step] - times_s[step - 9] < 60;
        bool told = rate_error(&rate, now_ms);
        assert_int_equal(told, expected);
        if (told) {
            // The connection ends here; the next has a count of its own.
            hits++;
            rate = (struct rate){0};
            now_ms += 1000000;
            for (int back = 0; back < 9 && back <= step; back++) {
                times_s[step - back] = 0;
            }
        }
    }
    assert_in_range(hits, 20, STEPS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tenth_in_a_minute_is_too_many),
        cmocka_unit_test(slow_errors_are_forgiven_for_ever),
        cmocka_unit_test(the_minute_slides),
        cmocka_unit_test(a_long_peace_is_not_taken_for_a_short_one),
        cmocka_unit_test(agrees_with_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
