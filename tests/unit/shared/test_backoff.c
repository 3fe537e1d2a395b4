/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "aborts.h"
#include "backoff.h"

static void ceiling_doubles_up_to_the_maximum(void **state)
{
    (void)state;
    static const uint32_t ceilings[] = {100, 200, 400, 800, 1600, 3000, 3000, 3000};
    struct backoff backoff;
    backoff_init(&backoff, 100, 3000);
    for (size_t attempt = 0; attempt < sizeof ceilings / sizeof ceilings[0]; attempt++) {
        assert_int_equal(backoff_next_ms(&backoff, UINT64_MAX), ceilings[attempt]);
    }
    backoff_reset(&backoff);
    assert_int_equal(backoff_next_ms(&backoff, UINT64_MAX), 100);
    assert_int_equal(backoff_next_ms(&backoff, 0), 1);
    assert_int_equal(backoff_next_ms(&backoff, UINT64_MAX), 400);
}

static void jitter_is_full_and_even(void **state)
{
    (void)state;
    unsigned seen[10] = {0};
    struct backoff backoff;
    backoff_init(&backoff, 10, 10);
    for (uint64_t draw = 0; draw < 10000; draw++) {
        uint32_t wait_ms = backoff_next_ms(&backoff, draw * (UINT64_MAX / 10000));
        assert_in_range(wait_ms, 1, 10);
        seen[wait_ms - 1]++;
    }
    for (size_t value = 0; value < 10; value++) {
        assert_in_range(seen[value], 998, 1002);
    }
}

static void largest_values_do_not_overflow(void **state)
{
    (void)state;
    struct backoff backoff;
    backoff_init(&backoff, 1, UINT32_MAX);
    uint32_t wait_ms = 0;
    for (int attempt = 0; attempt < 40; attempt++) {
        uint32_t before_ms = wait_ms;
        wait_ms = backoff_next_ms(&backoff, UINT64_MAX);
        assert_true(wait_ms >= before_ms);
    }
    assert_true(wait_ms == UINT32_MAX);
}

static void no_base(void *argument)
{
    backoff_init(argument, 0, 10);
}

static void base_beyond_maximum(void *argument)
{
    backoff_init(argument, 11, 10);
}

static void wrong_bounds_end_the_program(void **state)
{
    (void)state;
    struct backoff backoff;
    assert_true(aborts(no_base, &backoff));
    assert_true(aborts(base_beyond_maximum, &backoff));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ceiling_doubles_up_to_the_maximum),
        cmocka_unit_test(jitter_is_full_and_even),
        cmocka_unit_test(largest_values_do_not_overflow),
        cmocka_unit_test(wrong_bounds_end_the_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
