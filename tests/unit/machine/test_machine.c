/* SPDX-License-Identifier: MIT */
/* What the build promises on every architecture, 32-bit ones above all: offsets and times of 64 bits. */
#define _POSIX_C_SOURCE 200809L

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>

static void files_may_be_larger_than_2_gib(void **state)
{
    (void)state;
    struct stat status;
    assert_int_equal(sizeof(off_t), 8);
    assert_int_equal(sizeof status.st_size, 8);
}

static void times_go_beyond_2038(void **state)
{
    (void)state;
    struct timespec instant;
    struct timeval interval;
    assert_int_equal(sizeof(time_t), 8);
    assert_int_equal(sizeof instant.tv_sec, 8);
    assert_int_equal(sizeof interval.tv_sec, 8);

    struct tm parts;
    instant.tv_sec = INT64_C(4102444800); /* 2100-01-01T00:00:00Z */
    assert_non_null(gmtime_r(&instant.tv_sec, &parts));
    assert_int_equal(parts.tm_year, 200);
}

static void the_clock_tells_a_time_of_64_bits(void **state)
{
    (void)state;
    struct timespec now;
    assert_int_equal(clock_gettime(CLOCK_REALTIME, &now), 0);
    assert_true(now.tv_sec > INT64_C(1700000000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_may_be_larger_than_2_gib),
        cmocka_unit_test(times_go_beyond_2038),
        cmocka_unit_test(the_clock_tells_a_time_of_64_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
