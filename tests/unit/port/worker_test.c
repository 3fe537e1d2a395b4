/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "port_fixture.h"

struct task {
    struct port_job job;
    struct port *port;
    pthread_t thread;
    uint64_t value;
    size_t address_count;
    struct port_address addresses[8];
    const char *host;
    char error[128];
};

static struct port_job *wait_finished(struct port *port)
{
    uint64_t until_ns = port->now_ns(port->context) + (uint64_t)PATIENCE_MS * 1000000;
    while (port->now_ns(port->context) < until_ns) {
        struct port_job *job = port->finished_job(port->context);
        if (job != NULL) {
            return job;
        }
        struct port_event event;
        assert_int_equal(port->wait(port->context, &event, 1, PATIENCE_MS), 0);
    }
    fail_msg("no job came back");
    return NULL;
}

static void run_square(struct port_job *job)
{
    struct task *task = job->context;
    task->thread = pthread_self();
    task->value = task->value * task->value;
}

static void test_a_job_runs_elsewhere_and_comes_back(void **state)
{
    struct port *port = *state;
    struct task task = {.value = 12, .thread = pthread_self()};
    task.job = (struct port_job){.run = run_square, .context = &task};
    assert_null(port->finished_job(port->context));
    assert_true(port->submit_job(port->context, &task.job));
    assert_ptr_equal(wait_finished(port), &task.job);
    assert_int_equal(task.value, 144);
    assert_false(pthread_equal(task.thread, pthread_self()));
    assert_null(port->finished_job(port->context));
}

static atomic_int gate;

static void run_behind_the_gate(struct port_job *job)
{
    (void)job;
    const struct timespec pause = {0, 1000000};
    while (atomic_load(&gate) == 0) {
        nanosleep(&pause, NULL);
    }
}

static void test_no_more_jobs_than_promised_are_out(void **state)
{
    struct port *port = *state;
    struct port_job jobs[PORT_JOBS_MAX + 1];
    for (size_t i = 0; i <= PORT_JOBS_MAX; i++) {
        jobs[i] = (struct port_job){.run = run_behind_the_gate, .context = NULL};
    }
    atomic_store(&gate, 0);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < PORT_JOBS_MAX; i++) {
            assert_true(port->submit_job(port->context, &jobs[i]));
        }
        assert_false(port->submit_job(port->context, &jobs[PORT_JOBS_MAX]));
        assert_null(round == 0 ? port->finished_job(port->context) : NULL);
        atomic_store(&gate, 1);
        for (size_t i = 0; i < PORT_JOBS_MAX; i++) {
            assert_ptr_equal(wait_finished(port), &jobs[i]); /* in order */
        }
    }
}

static void test_many_jobs_each_come_back_once_in_order(void **state)
{
    enum { TASKS = 8, ROUNDS = 20000 };
    struct port *port = *state;
    static struct task tasks[TASKS];
    size_t submitted = 0;
    for (size_t back = 0; back < ROUNDS; back++) {
        while (submitted < ROUNDS && submitted < back + TASKS) {
            struct task *task = &tasks[submitted % TASKS];
            task->job = (struct port_job){.run = run_square, .context = task};
            task->value = submitted;
            assert_true(port->submit_job(port->context, &task->job));
            submitted++;
        }
        struct task *task = &tasks[back % TASKS];
        assert_ptr_equal(wait_finished(port), &task->job);
        assert_true(task->value == (uint64_t)back * back);
    }
    assert_null(port->finished_job(port->context));
}

/* A name that does not resolve takes its time; the disk does not wait for it. */
static void test_one_lane_does_not_wait_for_the_other(void **state)
{
    struct port *port = *state;
    struct port_job names = {.run = run_behind_the_gate, .lane = PORT_LANE_NAMES};
    struct task task = {.value = 12};
    task.job = (struct port_job){.run = run_square, .context = &task, .lane = PORT_LANE_STORAGE};
    atomic_store(&gate, 0);
    assert_true(port->submit_job(port->context, &names));
    assert_true(port->submit_job(port->context, &task.job));
    assert_ptr_equal(wait_finished(port), &task.job);
    assert_null(port->finished_job(port->context));
    atomic_store(&gate, 1);
    assert_ptr_equal(wait_finished(port), &names);
}

static void run_deep(struct port_job *job)
{
    struct task *task = job->context;
    volatile uint8_t deep[160 * 1024]; /* more than the resolver takes */
    for (size_t at = 0; at < sizeof deep; at++) {
        deep[at] = (uint8_t)at;
    }
    uint64_t sum = 0;
    for (size_t at = 0; at < sizeof deep; at++) {
        sum += deep[at];
    }
    task->value = sum;
}

static void test_the_stack_is_deep_enough(void **state)
{
    struct port *port = *state;
    struct task task = {.value = 0};
    task.job = (struct port_job){.run = run_deep, .context = &task, .lane = PORT_LANE_NAMES};
    assert_true(port->submit_job(port->context, &task.job));
    assert_ptr_equal(wait_finished(port), &task.job);
    assert_true(task.value == (uint64_t)160 * 1024 / 256 * (255 * 128));
}

static void run_resolve(struct port_job *job)
{
    struct task *task = job->context;
    struct port *port = task->port;
    task->address_count = port->resolve(port->context, task->host, 5672, task->addresses, 8);
    if (task->address_count == 0) {
        strncat(task->error, port->error_text(port->context), sizeof task->error - 1);
    }
}

static void resolve(struct port *port, struct task *task, const char *host)
{
    *task = (struct task){.port = port, .host = host};
    task->job = (struct port_job){.run = run_resolve, .context = task, .lane = PORT_LANE_NAMES};
    assert_true(port->submit_job(port->context, &task->job));
    assert_ptr_equal(wait_finished(port), &task->job);
}

static void assert_resolved(struct port *port, const struct task *task, const char *expected, const char *or_expected)
{
    assert_true(task->address_count >= 1);
    for (size_t i = 0; i < task->address_count; i++) {
        char text[PORT_ADDRESS_TEXT_BYTES];
        port->format_address(port->context, &task->addresses[i], text);
        assert_true(strcmp(text, expected) == 0 || strcmp(text, or_expected) == 0);
    }
}

static void test_names_become_addresses(void **state)
{
    struct port *port = *state;
    struct task task;
    resolve(port, &task, "localhost");
    assert_resolved(port, &task, "127.0.0.1:5672", "[::1]:5672");
    resolve(port, &task, "192.0.2.7");
    assert_int_equal(task.address_count, 1);
    assert_resolved(port, &task, "192.0.2.7:5672", "");
    resolve(port, &task, "2001:db8::7");
    assert_int_equal(task.address_count, 1);
    assert_resolved(port, &task, "[2001:db8::7]:5672", "");
}

static void test_what_is_no_name_is_told_on_the_workers_side_only(void **state)
{
    struct port *port = *state;
    struct port_address address;
    port_socket socket = PORT_NONE;
    char before[128] = "";
    assert_true(port->parse_address(port->context, "192.0.2.1", 1, &address)); /* not an address of this machine */
    assert_int_equal(port->listen(port->context, &address, &socket), PORT_FAILED);
    strncat(before, port->error_text(port->context), sizeof before - 1);
    assert_string_equal(before, "bind: Cannot assign requested address");
    struct task task;
    resolve(port, &task, "not a name");
    assert_int_equal(task.address_count, 0);
    assert_memory_equal(task.error, "resolve: ", 9);
    assert_true(strlen(task.error) > 12);
    assert_string_equal(port->error_text(port->context), before);
}

static atomic_int begun_count;
static atomic_int late_count;

static void run_late(struct port_job *job)
{
    (void)atomic_fetch_add(&begun_count, 1);
    run_behind_the_gate(job);
    *(char *)job->context = 'x'; /* memory of the port's is still there */
    (void)atomic_fetch_add(&late_count, 1);
}

static void wait_for(atomic_int *count)
{
    const struct timespec pause = {0, 1000000};
    while (atomic_load(count) == 0) {
        nanosleep(&pause, NULL);
    }
}

/* As at the program's end, while a name does not resolve. */
static void test_closing_does_not_wait_for_a_job_that_hangs(void **state)
{
    struct port *port = *state;
    struct port_job *job = port->memory(port->context, sizeof *job);
    *job = (struct port_job){.run = run_late, .context = NULL};
    job->context = port->memory(port->context, 1);
    struct port_job waiting = {.run = run_late, .context = job->context};
    atomic_store(&gate, 0);
    atomic_store(&begun_count, 0);
    atomic_store(&late_count, 0);
    assert_true(port->submit_job(port->context, job));
    assert_true(port->submit_job(port->context, &waiting));
    wait_for(&begun_count);
    assert_false(port_posix_close(port));
    assert_null(port->context);
    assert_int_equal(atomic_load(&late_count), 0);
    assert_int_equal(open_port(state), 0); /* another is independent of it */
    port = *state;
    struct task task = {.value = 12};
    task.job = (struct port_job){.run = run_square, .context = &task};
    assert_true(port->submit_job(port->context, &task.job));
    assert_ptr_equal(wait_finished(port), &task.job);
    atomic_store(&gate, 1);
    wait_for(&late_count);
    nanosleep(&(const struct timespec){0, 50000000}, NULL);
    assert_int_equal(atomic_load(&late_count), 1); /* the one that waited is forgotten */
}

static void test_closing_waits_for_the_present_job(void **state)
{
    struct port *port = *state;
    struct port_job jobs[3];
    for (size_t i = 0; i < 3; i++) {
        jobs[i] = (struct port_job){.run = run_behind_the_gate, .context = NULL};
    }
    atomic_store(&gate, 1);
    for (size_t i = 0; i < 3; i++) {
        assert_true(port->submit_job(port->context, &jobs[i]));
    }
    close_port(state); /* jobs that did not run are forgotten */
    assert_int_equal(open_port(state), 0);
    port = *state;
    assert_null(port->finished_job(port->context));
}

/* One that has nothing to do ends at once, but the machine may hold it up: hence the tries. */
static void test_closing_ends_workers_that_rest(void **state)
{
    bool closed = false;
    for (int tries = 0; !closed && tries < 10; tries++) {
        closed = port_posix_close(*state);
        assert_int_equal(open_port(state), 0);
    }
    assert_true(closed);
}

#define with_port(test) cmocka_unit_test_setup_teardown(test, open_port, close_port)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_port(test_a_job_runs_elsewhere_and_comes_back),
        with_port(test_no_more_jobs_than_promised_are_out),
        with_port(test_many_jobs_each_come_back_once_in_order),
        with_port(test_one_lane_does_not_wait_for_the_other),
        with_port(test_the_stack_is_deep_enough),
        with_port(test_names_become_addresses),
        with_port(test_what_is_no_name_is_told_on_the_workers_side_only),
        with_port(test_closing_does_not_wait_for_a_job_that_hangs),
        with_port(test_closing_waits_for_the_present_job),
        with_port(test_closing_ends_workers_that_rest),
    };
    return run_on_each_poller(tests, sizeof tests / sizeof *tests);
}
