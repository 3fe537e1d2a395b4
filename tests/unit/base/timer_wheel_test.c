/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "aborts.h"
#include "timer_wheel.h"

enum { MEMORY_BYTES = 65536, SLOTS = 64, TICK_MS = 10, START_MS = 123456 };

static alignas(ARENA_ALIGN_BYTES) uint8_t memory[MEMORY_BYTES];

static void start(struct timer_wheel *wheel, size_t slot_count, uint32_t tick_ms, uint64_t now_ms)
{
    struct arena arena;
    memset(memory, 0, sizeof memory);
    arena_begin(&arena, memory, sizeof memory);
    timer_wheel_init(wheel, &arena, slot_count, tick_ms, now_ms);
}

static void test_takes_the_memory_it_measured(void **state)
{
    (void)state;
    struct arena measured;
    struct arena carved;
    struct timer_wheel wheel;
    arena_measure(&measured);
    timer_wheel_init(&wheel, &measured, 256, 100, 0);
    assert_int_equal(measured.used_bytes, 256 * sizeof(struct list) + 64);
    arena_begin(&carved, memory, measured.used_bytes);
    timer_wheel_init(&wheel, &carved, 256, 100, 0);
    assert_int_equal(carved.used_bytes, measured.used_bytes);
}

static void test_an_empty_wheel_has_nothing_to_wait_for(void **state)
{
    (void)state;
    struct timer_wheel wheel;
    start(&wheel, SLOTS, TICK_MS, START_MS);
    assert_true(timer_wheel_next_ms(&wheel) == TIMER_WHEEL_NEVER);
    assert_null(timer_wheel_expired(&wheel, START_MS + 1000000));
    assert_true(timer_wheel_next_ms(&wheel) == TIMER_WHEEL_NEVER);
}

static void test_one_timer_fires_once_in_its_tick(void **state)
{
    (void)state;
    for (uint64_t delay_ms = 1; delay_ms < 3000; delay_ms++) { /* several rounds of the wheel */
        struct timer_wheel wheel;
        struct timer_node timer = {0};
        start(&wheel, SLOTS, TICK_MS, START_MS);
        timer_wheel_add(&wheel, &timer, START_MS + delay_ms);
        assert_true(timer_scheduled(&timer));
        uint64_t now_ms = START_MS;
        while (timer_scheduled(&timer)) {
            uint64_t next_ms = timer_wheel_next_ms(&wheel);
            assert_true(next_ms > now_ms);
            assert_null(timer_wheel_expired(&wheel, next_ms - 1));
            now_ms = next_ms;
            if (timer_wheel_expired(&wheel, now_ms) == &timer) {
                assert_false(timer_scheduled(&timer));
            }
        }
        assert_true(now_ms >= START_MS + delay_ms);
        assert_true(now_ms < START_MS + delay_ms + TICK_MS);
        assert_null(timer_wheel_expired(&wheel, now_ms + 100000));
        assert_int_equal(wheel.count, 0);
    }
}

static void test_a_time_that_has_come_already_fires_at_the_next_tick(void **state)
{
    (void)state;
    struct timer_wheel wheel;
    struct timer_node past = {0};
    struct timer_node now = {0};
    start(&wheel, SLOTS, TICK_MS, START_MS);
    timer_wheel_add(&wheel, &past, 0);
    timer_wheel_add(&wheel, &now, START_MS);
    uint64_t next_ms = timer_wheel_next_ms(&wheel);
    assert_true(next_ms > START_MS && next_ms <= START_MS + TICK_MS);
    assert_null(timer_wheel_expired(&wheel, next_ms - 1));
    assert_ptr_equal(timer_wheel_expired(&wheel, next_ms), &past);
    assert_true(timer_wheel_next_ms(&wheel) == 0);
    assert_ptr_equal(timer_wheel_expired(&wheel, next_ms), &now);
    assert_null(timer_wheel_expired(&wheel, next_ms));
}

static void test_a_timer_set_again_while_handed_out_waits_for_the_next_tick(void **state)
{
    (void)state;
    struct timer_wheel wheel;
    struct timer_node timer = {0};
    start(&wheel, SLOTS, TICK_MS, START_MS);
    timer_wheel_add(&wheel, &timer, START_MS);
    uint64_t now_ms = START_MS + 500;
    int fired = 0;
    while (timer_wheel_expired(&wheel, now_ms) != NULL) {
        assert_int_equal(++fired, 1);
        timer_wheel_add(&wheel, &timer, now_ms);
    }
    assert_int_equal(fired, 1);
    assert_ptr_equal(timer_wheel_expired(&wheel, now_ms + TICK_MS), &timer);
}

static void test_removing_and_moving(void **state)
{
    (void)state;
    struct timer_wheel wheel;
    struct timer_node timers[3] = {0};
    start(&wheel, SLOTS, TICK_MS, START_MS);
    timer_wheel_remove(&wheel, &timers[0]); /* not scheduled: nothing */
    for (size_t i = 0; i < 3; i++) {
        timer_wheel_add(&wheel, &timers[i], START_MS + 100);
    }
    assert_int_equal(wheel.count, 3);
    timer_wheel_remove(&wheel, &timers[1]);
    timer_wheel_remove(&wheel, &timers[1]);
    assert_int_equal(wheel.count, 2);
    timer_wheel_add(&wheel, &timers[2], START_MS + 5000); /* moved */
    assert_int_equal(wheel.count, 2);
    assert_ptr_equal(timer_wheel_expired(&wheel, START_MS + 200), &timers[0]);
    assert_null(timer_wheel_expired(&wheel, START_MS + 200));
    assert_ptr_equal(timer_wheel_expired(&wheel, START_MS + 6000), &timers[2]);
    assert_true(timer_wheel_next_ms(&wheel) == TIMER_WHEEL_NEVER);
}

static void test_what_was_removed_is_not_waited_for(void **state)
{
    (void)state;
    struct timer_wheel wheel;
    struct timer_node early = {0};
    struct timer_node late = {0};
    start(&wheel, SLOTS, TICK_MS, START_MS);
    timer_wheel_add(&wheel, &early, START_MS + 100);
    timer_wheel_add(&wheel, &late, START_MS + 500);
    assert_true(timer_wheel_next_ms(&wheel) < START_MS + 100 + TICK_MS);
    timer_wheel_remove(&wheel, &early);
    assert_true(timer_wheel_next_ms(&wheel) >= START_MS + 500);
}

static void test_a_due_timer_can_be_removed_before_it_is_handed_out(void **state)
{
    (void)state;
    struct timer_wheel wheel;
    struct timer_node timers[3] = {0};
    start(&wheel, SLOTS, TICK_MS, START_MS);
    for (size_t i = 0; i < 3; i++) {
        timer_wheel_add(&wheel, &timers[i], START_MS + 50);
    }
    assert_ptr_equal(timer_wheel_expired(&wheel, START_MS + 100), &timers[0]);
    timer_wheel_remove(&wheel, &timers[1]);
    timer_wheel_add(&wheel, &timers[2], START_MS + 400);
    assert_null(timer_wheel_expired(&wheel, START_MS + 100));
    assert_int_equal(wheel.count, 1);
    assert_true(timer_wheel_next_ms(&wheel) >= START_MS + 400 &&
                timer_wheel_next_ms(&wheel) < START_MS + 400 + TICK_MS);
    assert_ptr_equal(timer_wheel_expired(&wheel, START_MS + 500), &timers[2]);
}

static void test_a_long_sleep_loses_nothing(void **state)
{
    (void)state;
    enum { COUNT = 500 };
    struct timer_wheel wheel;
    static struct timer_node timers[COUNT];
    memset(timers, 0, sizeof timers);
    start(&wheel, SLOTS, TICK_MS, START_MS);
    for (size_t i = 0; i < COUNT; i++) {
        timer_wheel_add(&wheel, &timers[i], START_MS + i * 37);
    }
    uint64_t now_ms = START_MS + 250 * 37 + TICK_MS;
    size_t fired = 0;
    for (struct timer_node *timer; (timer = timer_wheel_expired(&wheel, now_ms)) != NULL; fired++) {
        assert_true(timer->due_ms <= now_ms);
    }
    assert_true(fired >= 251);
    assert_int_equal(wheel.count, COUNT - fired);
    now_ms = UINT64_MAX / 2; /* years */
    for (; timer_wheel_expired(&wheel, now_ms) != NULL; fired++) {
    }
    assert_int_equal(fired, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        assert_false(timer_scheduled(&timers[i]));
    }
}

static void test_the_far_future(void **state)
{
    (void)state;
    struct timer_wheel wheel;
    struct timer_node timer = {0};
    start(&wheel, SLOTS, TICK_MS, START_MS);
    timer_wheel_add(&wheel, &timer, TIMER_WHEEL_NEVER - 1);
    assert_null(timer_wheel_expired(&wheel, START_MS + 1000000));
    assert_true(timer_scheduled(&timer));
    timer_wheel_remove(&wheel, &timer);
    assert_int_equal(wheel.count, 0);
    assert_true(timer_wheel_next_ms(&wheel) == TIMER_WHEEL_NEVER);
}

static uint32_t random_state;

static uint32_t random_below(uint32_t limit)
{
    random_state = random_state * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)(random_state >> 8) * limit >> 24);
}

enum { MODEL_TIMERS = 60 };

struct model {
    struct timer_wheel wheel;
    struct timer_node timers[MODEL_TIMERS];
    uint64_t due_ms[MODEL_TIMERS];   /* 0: not scheduled */
    uint64_t added_ms[MODEL_TIMERS]; /* when */
    uint64_t now_ms;
    uint32_t tick_ms;
};

/* What is due by `ms` at the latest, by the header's promise: a tick after its time, or after it was added. */
static bool overdue(const struct model *model, size_t index)
{
    uint64_t from_ms = model->due_ms[index] > model->added_ms[index] ? model->due_ms[index] : model->added_ms[index];
    return model->due_ms[index] != 0 && from_ms + model->tick_ms <= model->now_ms;
}

static void model_step(struct model *model)
{
    size_t index = random_below(MODEL_TIMERS);
    switch (random_below(4)) {
    case 0:
    case 1:
        model->added_ms[index] = model->now_ms;
        model->due_ms[index] = model->now_ms + random_below(random_below(2) == 0 ? 300 : 20000) + 1;
        if (random_below(10) == 0) {
            model->due_ms[index] = model->now_ms - random_below(1000);
        }
        timer_wheel_add(&model->wheel, &model->timers[index], model->due_ms[index]);
        break;
    case 2:
        timer_wheel_remove(&model->wheel, &model->timers[index]);
        model->due_ms[index] = 0;
        break;
    default:
        model->now_ms += random_below(random_below(20) == 0 ? 5000 : 60);
        for (struct timer_node *timer; (timer = timer_wheel_expired(&model->wheel, model->now_ms)) != NULL;) {
            size_t fired = (size_t)(timer - model->timers);
            assert_true(fired < MODEL_TIMERS);
            assert_true(model->due_ms[fired] != 0 && model->due_ms[fired] <= model->now_ms);
            model->due_ms[fired] = 0;
        }
        for (size_t i = 0; i < MODEL_TIMERS; i++) {
            assert_false(overdue(model, i));
        }
    }
    size_t scheduled = 0;
    for (size_t i = 0; i < MODEL_TIMERS; i++) {
        assert_int_equal(timer_scheduled(&model->timers[i]), model->due_ms[i] != 0);
        scheduled += model->due_ms[i] != 0;
        if (model->due_ms[i] > model->now_ms) {
            assert_true(timer_wheel_next_ms(&model->wheel) < model->due_ms[i] + model->tick_ms);
        }
    }
    assert_int_equal(model->wheel.count, scheduled);
    assert_int_equal(timer_wheel_next_ms(&model->wheel) == TIMER_WHEEL_NEVER, scheduled == 0);
}

static void test_against_a_plain_list(void **state)
{
    (void)state;
    static const struct {
        size_t slot_count;
        uint32_t tick_ms;
    } shapes[] = {{64, 1}, {64, 10}, {128, 7}, {1024, 20}};
    for (size_t shape = 0; shape < sizeof shapes / sizeof *shapes; shape++) {
        struct model model = {.now_ms = START_MS, .tick_ms = shapes[shape].tick_ms};
        random_state = 1 + (uint32_t)shape;
        start(&model.wheel, shapes[shape].slot_count, model.tick_ms, model.now_ms);
        for (int step = 0; step < 20000; step++) {
            model_step(&model);
        }
    }
}

static void not_a_power_of_two(void *argument)
{
    struct timer_wheel wheel;
    (void)argument;
    start(&wheel, 96, TICK_MS, 0);
}

static void add_never(void *wheel)
{
    struct timer_node timer = {0};
    timer_wheel_add(wheel, &timer, TIMER_WHEEL_NEVER);
}

static void test_mistakes_end_the_program(void **state)
{
    (void)state;
    struct timer_wheel wheel;
    start(&wheel, SLOTS, TICK_MS, START_MS);
    assert_true(aborts(not_a_power_of_two, NULL));
    assert_true(aborts(add_never, &wheel));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_takes_the_memory_it_measured),
        cmocka_unit_test(test_an_empty_wheel_has_nothing_to_wait_for),
        cmocka_unit_test(test_one_timer_fires_once_in_its_tick),
        cmocka_unit_test(test_a_time_that_has_come_already_fires_at_the_next_tick),
        cmocka_unit_test(test_a_timer_set_again_while_handed_out_waits_for_the_next_tick),
        cmocka_unit_test(test_removing_and_moving),
        cmocka_unit_test(test_what_was_removed_is_not_waited_for),
        cmocka_unit_test(test_a_due_timer_can_be_removed_before_it_is_handed_out),
        cmocka_unit_test(test_a_long_sleep_loses_nothing),
        cmocka_unit_test(test_the_far_future),
        cmocka_unit_test(test_against_a_plain_list),
        cmocka_unit_test(test_mistakes_end_the_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
