/* SPDX-License-Identifier: MIT */
/* Clock, random bytes, memory, handles, and a start that the machine refuses. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "port_fixture.h"

static void test_monotonic_time_goes_on(void **state)
{
    struct port *port = *state;
    uint64_t last = port->now_ns(port->context);
    for (int i = 0; i < 10000; i++) {
        uint64_t now = port->now_ns(port->context);
        assert_true(now >= last);
        last = now;
    }
    const struct timespec pause = {0, 3000000};
    nanosleep(&pause, NULL);
    assert_true(port->now_ns(port->context) >= last + 3000000);
}

static void test_wall_time_is_unix_time_in_ms(void **state)
{
    struct port *port = *state;
    struct timespec before;
    struct timespec after;
    assert_int_equal(clock_gettime(CLOCK_REALTIME, &before), 0); /* time() is a tick behind */
    int64_t wall_ms = port->wall_ms(port->context);
    assert_int_equal(clock_gettime(CLOCK_REALTIME, &after), 0);
    assert_true(wall_ms / 1000 >= before.tv_sec - 1 && wall_ms / 1000 <= after.tv_sec);
}

static void test_random_fills_all_of_it_and_no_more(void **state)
{
    struct port *port = *state;
    static uint8_t bytes[3][5000];
    memset(bytes, 0, sizeof bytes);
    port->random(port->context, bytes[0], sizeof bytes[0]);
    port->random(port->context, bytes[1], sizeof bytes[1]);
    assert_memory_not_equal(bytes[0], bytes[1], sizeof bytes[0]);
    for (size_t at = 0; at + 16 <= sizeof bytes[0]; at += 16) {
        assert_memory_not_equal(bytes[0] + at, bytes[2], 16); /* no gap */
    }
    port->random(port->context, bytes[2], 0);
    port->random(port->context, bytes[2], 7);
    for (size_t at = 7; at < sizeof bytes[2]; at++) {
        assert_int_equal(bytes[2][at], 0);
    }
}

static void test_memory_is_zeroed_aligned_and_ours(void **state)
{
    struct port *port = *state;
    uint8_t *blocks[2];
    size_t bytes = 3 * 65536 + 5;
    for (size_t i = 0; i < 2; i++) {
        blocks[i] = port->memory(port->context, bytes);
        assert_non_null(blocks[i]);
        assert_int_equal((uintptr_t)blocks[i] % (size_t)sysconf(_SC_PAGESIZE), 0);
        for (size_t at = 0; at < bytes; at++) {
            assert_int_equal(blocks[i][at], 0);
        }
        memset(blocks[i], (int)i + 1, bytes);
    }
    assert_int_equal(blocks[0][bytes - 1], 1);
    assert_int_equal(blocks[1][0], 2);
}

static void test_too_much_memory_is_refused_with_a_reason(void **state)
{
    struct port *port = *state;
    assert_null(port->memory(port->context, SIZE_MAX - 65535));
    assert_string_equal(port->error_text(port->context), "memory: Cannot allocate memory");
}

static void test_handles_are_reserved_up_to_what_the_machine_allows(void **state)
{
    struct port *port = *state;
    struct rlimit before;
    struct rlimit after;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit low = {64, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    assert_true(port->reserve_handles(port->context, 10));
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &after), 0);
    assert_int_equal(after.rlim_cur, 64); /* enough as it was */
    assert_true(port->reserve_handles(port->context, 200));
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &after), 0);
    assert_true(after.rlim_cur >= 200);
    assert_int_equal(after.rlim_max, before.rlim_max);
    assert_false(port->reserve_handles(port->context, INT32_MAX));
    assert_non_null(strstr(port->error_text(port->context), "raise the limit of open files: "));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

static void test_the_host_name_fits(void **state)
{
    struct port *port = *state;
    char whole[300];
    char cut[3];
    memset(cut, '#', sizeof cut);
    port->host_name(port->context, whole, sizeof whole);
    assert_true(strlen(whole) > 0);
    port->host_name(port->context, cut, sizeof cut);
    assert_int_equal(cut[2], '\0');
    assert_memory_equal(cut, whole, strlen(whole) < 2 ? strlen(whole) : 2);
}

static void test_says_what_it_takes(void **state)
{
    (void)state;
    struct port_posix_options options = {.watch_max = 1000};
    size_t bytes = port_posix_memory_bytes(&options);
    options.watch_max = 101000;
    size_t more = port_posix_memory_bytes(&options) - bytes;
    assert_true(more > 20 * 100000 - 65536 && more < 20 * 100000 + 65536); /* whole pages */
    assert_true(bytes > 64 * 1024 && bytes < 512 * 1024);
}

/* Exit status 0 when opening with no handle left fails and says so, and closing what was opened does no harm. */
static int open_without_handles(void)
{
    const struct port_posix_options options = {.poller = PORT_POSIX_POLL, .watch_max = 8};
    const struct rlimit none = {0, 0};
    struct port port;
    if (setrlimit(RLIMIT_NOFILE, &none) != 0) {
        return 1;
    }
    if (port_posix_open(&port, &options)) {
        return 2;
    }
    int status = strcmp(port.error_text(port.context), "pipe: Too many open files") == 0 ? 0 : 3;
    port_posix_close(&port);
    return status;
}

static void test_a_refused_start_says_why(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(open_without_handles());
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_too_many_watches_to_hold_are_refused(void **state)
{
    (void)state;
    const struct port_posix_options options = {.watch_max = SIZE_MAX / 21}; /* of 20 bytes: nearly all there can be */
    struct port port;
    assert_false(port_posix_open(&port, &options));
    assert_non_null(strstr(port.error_text(port.context), "too little memory"));
    port_posix_close(&port);
}

static void test_auto_chooses_by_how_many_are_watched(void **state)
{
    (void)state;
    struct port_posix_options options = {.poller = PORT_POSIX_AUTO, .watch_max = PORT_POSIX_POLL_WATCHES};
    struct port port;
    assert_true(port_posix_open(&port, &options));
    assert_string_equal(port_posix_poller_name(&port), "poll");
    port_posix_close(&port);
    options.watch_max = PORT_POSIX_POLL_WATCHES + 1;
    assert_true(port_posix_open(&port, &options));
    assert_string_equal(port_posix_poller_name(&port), "epoll");
    port_posix_close(&port);
}

static int mapping_count(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    int lines = 0;
    for (int character; (character = getc(maps)) != EOF;) {
        lines += character == '\n';
    }
    assert_int_equal(fclose(maps), 0);
    return lines;
}

/* What a port took it gives back: descriptors and mappings. */
static void test_opening_and_closing_leaves_nothing(void **state)
{
    (void)state;
    int before = mapping_count();
    for (int i = 0; i < 200; i++) {
        const struct port_posix_options options = {.poller = i % 2 == 0 ? PORT_POSIX_POLL : PORT_POSIX_EPOLL,
                                                   .watch_max = 8};
        struct port port;
        assert_true(port_posix_open(&port, &options));
        assert_non_null(port.memory(port.context, 4096));
        port_posix_close(&port);
    }
    assert_true(mapping_count() < before + 50);
    int fd = dup(0);
    assert_true(fd >= 0 && fd < 100);
    close(fd);
}

#define with_port(test) cmocka_unit_test_setup_teardown(test, open_port, close_port)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_port(test_monotonic_time_goes_on),
        with_port(test_wall_time_is_unix_time_in_ms),
        with_port(test_random_fills_all_of_it_and_no_more),
        with_port(test_memory_is_zeroed_aligned_and_ours),
        with_port(test_too_much_memory_is_refused_with_a_reason),
        with_port(test_handles_are_reserved_up_to_what_the_machine_allows),
        with_port(test_the_host_name_fits),
        cmocka_unit_test(test_says_what_it_takes),
        cmocka_unit_test(test_a_refused_start_says_why),
        cmocka_unit_test(test_too_many_watches_to_hold_are_refused),
        cmocka_unit_test(test_auto_chooses_by_how_many_are_watched),
        cmocka_unit_test(test_opening_and_closing_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
