/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "port_fixture.h"

static size_t wait_ms(struct port *port, int64_t timeout_ms)
{
    struct port_event event;
    return port->wait(port->context, &event, 1, timeout_ms);
}

static uint64_t elapsed_ms(struct port *port, uint64_t since_ns)
{
    return (port->now_ns(port->context) - since_ns) / 1000000;
}

static void test_signals_are_told_once(void **state)
{
    struct port *port = *state;
    assert_int_equal(port->signals(port->context), 0);
    raise(SIGTERM);
    assert_int_equal(port->signals(port->context), PORT_SIGNAL_STOP);
    assert_int_equal(port->signals(port->context), 0);
    raise(SIGINT);
    assert_int_equal(port->signals(port->context), PORT_SIGNAL_STOP);
    raise(SIGHUP);
    assert_int_equal(port->signals(port->context), PORT_SIGNAL_REOPEN);
    raise(SIGHUP);
    raise(SIGHUP);
    raise(SIGTERM);
    assert_int_equal(port->signals(port->context), PORT_SIGNAL_STOP | PORT_SIGNAL_REOPEN);
    assert_int_equal(port->signals(port->context), 0);
}

static void test_a_signal_before_the_wait_ends_it_at_once(void **state)
{
    struct port *port = *state;
    uint64_t start_ns = port->now_ns(port->context);
    raise(SIGHUP);
    assert_int_equal(wait_ms(port, PATIENCE_MS), 0);
    assert_true(elapsed_ms(port, start_ns) < PATIENCE_MS);
    assert_int_equal(port->signals(port->context), PORT_SIGNAL_REOPEN);
    start_ns = port->now_ns(port->context);
    assert_int_equal(wait_ms(port, 30), 0);
    assert_true(elapsed_ms(port, start_ns) >= 30); /* and only that wait */
}

/* Another process signals while we wait, again and again, each time only after the last was seen. */
static void test_no_signal_is_lost_around_a_wait(void **state)
{
    enum { ROUNDS = 300 };
    struct port *port = *state;
    int seen[2];
    assert_int_equal(pipe(seen), 0);
    pid_t parent = getpid();
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char byte;
        close(seen[1]);
        for (int i = 0; i < ROUNDS; i++) {
            const struct timespec pause = {0, i % 5 == 0 ? 2000000 : 0};
            nanosleep(&pause, NULL);
            if (kill(parent, SIGHUP) != 0 || read(seen[0], &byte, 1) != 1) {
                _exit(1);
            }
        }
        _exit(0);
    }
    close(seen[0]);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t start_ns = port->now_ns(port->context);
        while (port->signals(port->context) == 0) {
            assert_int_equal(wait_ms(port, PATIENCE_MS), 0);
            assert_true(elapsed_ms(port, start_ns) < PATIENCE_MS);
        }
        assert_int_equal(write(seen[1], "", 1), 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(seen[1]);
}

static void test_a_broken_pipe_is_only_an_error(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    close(ends[0]);
    assert_int_equal(write(ends[1], "x", 1), -1);
    assert_int_equal(errno, EPIPE);
    close(ends[1]);
}

static void test_signals_go_to_the_first_port_and_are_given_back(void **state)
{
    struct port *port = *state;
    const struct port_posix_options options = {.poller = PORT_POSIX_POLL, .watch_max = 4};
    struct port second;
    struct sigaction action;
    assert_true(port_posix_open(&second, &options));
    raise(SIGTERM);
    assert_int_equal(second.signals(second.context), 0);
    assert_int_equal(port->signals(port->context), PORT_SIGNAL_STOP);
    port_posix_close(&second); /* which does not touch what it never had */
    raise(SIGTERM);
    assert_int_equal(port->signals(port->context), PORT_SIGNAL_STOP);
    close_port(state);
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGPIPE};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        assert_int_equal(sigaction(numbers[i], NULL, &action), 0);
        assert_true(action.sa_handler == SIG_DFL);
    }
    assert_int_equal(open_port(state), 0);
    port = *state;
    raise(SIGINT);
    assert_int_equal(port->signals(port->context), PORT_SIGNAL_STOP);
}

static void test_a_deferred_signal_waits_for_the_port_that_takes_it(void **state)
{
    const struct port_posix_options options = {.poller = PORT_POSIX_POLL, .watch_max = 4, .defers_signals = true};
    struct port early;
    assert_true(port_posix_open(&early, &options));
    raise(SIGTERM);
    assert_int_equal(early.signals(early.context), 0);
    port_posix_close(&early);
    raise(SIGHUP);
    assert_int_equal(open_port(state), 0);
    struct port *port = *state;
    assert_int_equal(port->signals(port->context), PORT_SIGNAL_STOP | PORT_SIGNAL_REOPEN);
    raise(SIGTERM);
    assert_int_equal(port->signals(port->context), PORT_SIGNAL_STOP);
    close_port(state);
}

#define with_port(test) cmocka_unit_test_setup_teardown(test, open_port, close_port)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_port(test_signals_are_told_once),
        with_port(test_a_signal_before_the_wait_ends_it_at_once),
        with_port(test_no_signal_is_lost_around_a_wait),
        with_port(test_a_broken_pipe_is_only_an_error),
        cmocka_unit_test(test_a_deferred_signal_waits_for_the_port_that_takes_it),
        with_port(test_signals_go_to_the_first_port_and_are_given_back),
    };
    return run_on_each_poller(tests, sizeof tests / sizeof *tests);
}
