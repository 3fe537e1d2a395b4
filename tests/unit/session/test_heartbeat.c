/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "heartbeat.h"

static const struct heartbeat_settings settings = {.interval_ms = 30000, .timeout_ms = 10000};

static void expect(struct heartbeat *heartbeat, uint64_t receive_ms, uint64_t now_ms, enum heartbeat_action action,
                   uint64_t due_ms)
{
    struct heartbeat_decision decision = heartbeat_decide(heartbeat, &settings, receive_ms, now_ms);
    assert_int_equal(decision.action, action);
    if (action != HEARTBEAT_TIMED_OUT) {
        assert_int_equal(decision.due_ms, due_ms);
    }
}

static void waits_from_the_last_byte(void **state)
{
    (void)state;
    struct heartbeat heartbeat;
    heartbeat_reset(&heartbeat, 1000);
    expect(&heartbeat, 1000, 1000, HEARTBEAT_WAIT, 31000);
    expect(&heartbeat, 20000, 31000, HEARTBEAT_WAIT, 50000);
    expect(&heartbeat, 20000, 49999, HEARTBEAT_WAIT, 50000);
    expect(&heartbeat, 20000, 50000, HEARTBEAT_PING, 60000);
}

static void ends_without_an_answer(void **state)
{
    (void)state;
    struct heartbeat heartbeat;
    heartbeat_reset(&heartbeat, 0);
    expect(&heartbeat, 0, 30000, HEARTBEAT_PING, 40000);
    expect(&heartbeat, 0, 39999, HEARTBEAT_WAIT, 40000);
    expect(&heartbeat, 0, 40000, HEARTBEAT_TIMED_OUT, 0);
}

static void any_byte_is_an_answer(void **state)
{
    (void)state;
    struct heartbeat heartbeat;
    heartbeat_reset(&heartbeat, 0);
    expect(&heartbeat, 0, 30000, HEARTBEAT_PING, 40000);
    expect(&heartbeat, 30500, 40000, HEARTBEAT_WAIT, 60500);
    expect(&heartbeat, 30500, 60500, HEARTBEAT_PING, 70500);
    expect(&heartbeat, 60500, 70500, HEARTBEAT_WAIT, 90500);
}

static void a_late_loop_costs_the_client_nothing(void **state)
{
    (void)state;
    struct heartbeat heartbeat;
    heartbeat_reset(&heartbeat, 0);
    // Due at 30,000 but seen at 45,000: the client still has its whole timeout to answer.
    expect(&heartbeat, 0, 45000, HEARTBEAT_PING, 55000);
    expect(&heartbeat, 0, 54999, HEARTBEAT_WAIT, 55000);
}

static void time_it_was_not_read_does_not_count(void **state)
{
    (void)state;
    struct heartbeat heartbeat;
    heartbeat_reset(&heartbeat, 0);
    expect(&heartbeat, 0, 30000, HEARTBEAT_PING, 40000);
    heartbeat_reset(&heartbeat, 100000);
    expect(&heartbeat, 0, 100000, HEARTBEAT_WAIT, 130000);
    expect(&heartbeat, 0, 130000, HEARTBEAT_PING, 140000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_from_the_last_byte),
        cmocka_unit_test(ends_without_an_answer),
        cmocka_unit_test(any_byte_is_an_answer),
        cmocka_unit_test(a_late_loop_costs_the_client_nothing),
        cmocka_unit_test(time_it_was_not_read_does_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
