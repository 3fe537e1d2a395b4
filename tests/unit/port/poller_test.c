/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "aborts.h"
#include "port_fixture.h"

/* Local socket pairs: what is tested here is the watching. */
static struct pair local_pair(void)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    return (struct pair){ends[0], ends[1]};
}

static void put_byte(port_socket socket)
{
    assert_int_equal(send(socket, "x", 1, 0), 1);
}

static void take_byte(port_socket socket)
{
    char byte;
    assert_int_equal(recv(socket, &byte, 1, 0), 1);
}

static void add(struct port *port, port_socket socket, uint32_t interest, uint64_t token)
{
    assert_int_equal(port->watch_add(port->context, socket, interest, token), PORT_OK);
}

/* What one wait says about one watched socket; 0: nothing. */
static uint32_t ready_now(struct port *port, uint64_t token)
{
    struct port_event events[WATCH_MAX];
    size_t count = port->wait(port->context, events, WATCH_MAX, 0);
    for (size_t i = 0; i < count; i++) {
        if (events[i].token == token) {
            return events[i].ready;
        }
    }
    return 0;
}

static void test_a_wait_ends_after_its_time(void **state)
{
    struct port *port = *state;
    struct port_event event;
    uint64_t start_ns = port->now_ns(port->context);
    assert_int_equal(port->wait(port->context, &event, 1, 0), 0);
    assert_int_equal(port->wait(port->context, &event, 1, 25), 0);
    assert_true(port->now_ns(port->context) - start_ns >= 25000000);
}

static void test_ready_says_what_was_asked(void **state)
{
    struct port *port = *state;
    struct pair pair = local_pair();
    add(port, pair.server, 0, UINT64_MAX);
    assert_int_equal(ready_now(port, UINT64_MAX), 0);
    port->watch_change(port->context, pair.server, PORT_READ);
    assert_int_equal(ready_now(port, UINT64_MAX), 0);
    port->watch_change(port->context, pair.server, PORT_READ | PORT_WRITE);
    assert_int_equal(ready_now(port, UINT64_MAX), PORT_WRITE);
    put_byte(pair.client);
    assert_int_equal(ready_now(port, UINT64_MAX), PORT_READ | PORT_WRITE);
    port->watch_change(port->context, pair.server, PORT_READ);
    assert_int_equal(ready_now(port, UINT64_MAX), PORT_READ);
    assert_int_equal(ready_now(port, UINT64_MAX), PORT_READ); /* as long as it is so */
    port->watch_change(port->context, pair.server, 0);
    assert_int_equal(ready_now(port, UINT64_MAX), 0);
    port->watch_change(port->context, pair.server, PORT_READ);
    take_byte(pair.server);
    assert_int_equal(ready_now(port, UINT64_MAX), 0);
    port->watch_remove(port->context, pair.server);
    close_pair(port, pair);
}

static void test_hangup_is_told_unasked(void **state)
{
    struct port *port = *state;
    struct pair pair = local_pair();
    add(port, pair.server, 0, 5);
    port->close_socket(port->context, pair.client);
    assert_int_equal(ready_now(port, 5), PORT_HANGUP);
    port->watch_change(port->context, pair.server, PORT_READ);
    assert_int_equal(ready_now(port, 5), PORT_READ | PORT_HANGUP);
    port->watch_remove(port->context, pair.server);
    assert_int_equal(ready_now(port, 5), 0);
    port->close_socket(port->context, pair.server);
}

static void test_what_was_removed_is_silent_and_can_come_again(void **state)
{
    struct port *port = *state;
    struct pair pair = local_pair();
    put_byte(pair.client);
    add(port, pair.server, PORT_READ, 1);
    port->watch_remove(port->context, pair.server);
    assert_int_equal(ready_now(port, 1), 0);
    add(port, pair.server, PORT_READ, 2);
    assert_int_equal(ready_now(port, 1), 0);
    assert_int_equal(ready_now(port, 2), PORT_READ);
    port->watch_remove(port->context, pair.server);
    close_pair(port, pair);
}

/* A library may close a descriptor of its own before we hear of it. */
static void test_a_descriptor_closed_behind_our_back_can_be_removed(void **state)
{
    struct port *port = *state;
    struct pair pair = local_pair();
    add(port, pair.server, PORT_READ, 1);
    assert_int_equal(close(pair.server), 0);
    port->watch_remove(port->context, pair.server);
    assert_int_equal(ready_now(port, 1), 0);
    struct pair next = local_pair(); /* takes the same number */
    assert_int_equal(next.client, pair.server);
    put_byte(next.server);
    add(port, next.client, PORT_READ, 2);
    assert_int_equal(ready_now(port, 2), PORT_READ);
    port->watch_remove(port->context, next.client);
    close_pair(port, next);
    port->close_socket(port->context, pair.client);
}

static void test_no_more_are_watched_than_promised(void **state)
{
    (void)state;
    const struct port_posix_options options = {.poller = PORT_POSIX_AUTO, .watch_max = 2};
    struct port port;
    struct pair pairs[2] = {local_pair(), local_pair()};
    assert_true(port_posix_open(&port, &options));
    add(&port, pairs[0].client, PORT_READ, 1);
    add(&port, pairs[0].server, PORT_READ, 2);
    assert_int_equal(port.watch_add(port.context, pairs[1].client, PORT_READ, 3), PORT_FAILED);
    assert_string_equal(port.error_text(port.context), "watch: more sockets than the poller was made for");
    port.watch_remove(port.context, pairs[0].client);
    add(&port, pairs[1].client, PORT_READ, 3);
    port.watch_remove(port.context, pairs[1].client);
    port.watch_remove(port.context, pairs[0].server);
    close_pair(&port, pairs[0]);
    close_pair(&port, pairs[1]);
    port_posix_close(&port);
}

/* With room for one event a wait, each of the ready ones has its turn. */
static void test_none_starves(void **state)
{
    enum { COUNT = 5 };
    struct port *port = *state;
    struct pair pairs[COUNT];
    int turns[COUNT] = {0};
    for (size_t i = 0; i < COUNT; i++) {
        pairs[i] = local_pair();
        put_byte(pairs[i].client);
        add(port, pairs[i].server, PORT_READ, i);
    }
    for (int wait = 0; wait < 3 * COUNT; wait++) {
        struct port_event event;
        assert_int_equal(port->wait(port->context, &event, 1, PATIENCE_MS), 1);
        assert_true(event.token < COUNT);
        turns[event.token]++;
    }
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(turns[i], 3);
        port->watch_remove(port->context, pairs[i].server);
        close_pair(port, pairs[i]);
    }
}

static uint32_t random_state;

static uint32_t random_below(uint32_t limit)
{
    random_state = random_state * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)(random_state >> 8) * limit >> 24);
}

/* Sockets come and go, interests change, bytes come and are read; every wait tells exactly what is so. */
static void test_against_a_plain_table(void **state)
{
    enum { COUNT = 100, STEPS = 20000 };
    struct port *port = *state;
    static struct {
        struct pair pair;
        bool watched;
        bool byte_there;
        uint32_t interest;
        uint64_t token;
    } entries[COUNT];
    memset(entries, 0, sizeof entries);
    random_state = 7;
    for (size_t i = 0; i < COUNT; i++) {
        entries[i].pair = local_pair();
    }
    for (uint64_t step = 0; step < STEPS; step++) {
        size_t i = random_below(COUNT);
        port_socket socket = entries[i].pair.server;
        switch (random_below(5)) {
        case 0:
            if (!entries[i].watched) {
                entries[i].watched = true;
                entries[i].interest = random_below(4);
                entries[i].token = step << 8 | i;
                add(port, socket, entries[i].interest, entries[i].token);
            }
            break;
        case 1:
            if (entries[i].watched) {
                entries[i].watched = false;
                port->watch_remove(port->context, socket);
            }
            break;
        case 2:
            if (entries[i].watched) {
                entries[i].interest = random_below(4);
                port->watch_change(port->context, socket, entries[i].interest);
            }
            break;
        case 3:
            if (entries[i].byte_there) {
                take_byte(socket);
            } else {
                put_byte(entries[i].pair.client);
            }
            entries[i].byte_there = !entries[i].byte_there;
            break;
        default: {
            struct port_event events[COUNT + 1];
            uint32_t told[COUNT] = {0};
            size_t count = port->wait(port->context, events, COUNT + 1, 0);
            for (size_t at = 0; at < count; at++) {
                size_t index = events[at].token & 0xFF;
                assert_true(index < COUNT && events[at].token == entries[index].token);
                assert_int_equal(told[index], 0);
                told[index] = events[at].ready;
            }
            for (size_t index = 0; index < COUNT; index++) {
                uint32_t so = (entries[index].byte_there ? PORT_READ : 0) | PORT_WRITE;
                assert_int_equal(told[index], entries[index].watched ? so & entries[index].interest : 0);
            }
        }
        }
    }
    for (size_t i = 0; i < COUNT; i++) {
        if (entries[i].watched) {
            port->watch_remove(port->context, entries[i].pair.server);
        }
        close_pair(port, entries[i].pair);
    }
}

/* More are ready at once than one look of the poller takes. */
static void test_a_crowd_is_told_in_a_few_waits(void **state)
{
    enum { COUNT = 400 };
    struct port *port = *state;
    static struct pair pairs[COUNT];
    static bool told[COUNT];
    memset(told, 0, sizeof told);
    assert_true(port->reserve_handles(port->context, 2 * COUNT + 64));
    for (size_t i = 0; i < COUNT; i++) {
        pairs[i] = local_pair();
        put_byte(pairs[i].client);
        add(port, pairs[i].server, PORT_READ, i);
    }
    size_t told_count = 0;
    for (int wait = 0; wait < 2; wait++) {
        static struct port_event events[COUNT + 1];
        size_t count = port->wait(port->context, events, COUNT + 1, 0);
        for (size_t at = 0; at < count; at++) {
            told_count += !told[events[at].token];
            told[events[at].token] = true;
            port->watch_change(port->context, pairs[events[at].token].server, 0);
        }
    }
    assert_int_equal(told_count, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        port->watch_remove(port->context, pairs[i].server);
        close_pair(port, pairs[i]);
    }
}

static void test_a_wake_ends_one_wait(void **state)
{
    struct port *port = *state;
    struct port_event event;
    port->wake(port->context);
    port->wake(port->context);
    uint64_t start_ns = port->now_ns(port->context);
    assert_int_equal(port->wait(port->context, &event, 1, PATIENCE_MS), 0);
    assert_true((port->now_ns(port->context) - start_ns) / 1000000 < PATIENCE_MS);
    start_ns = port->now_ns(port->context);
    assert_int_equal(port->wait(port->context, &event, 1, 30), 0);
    assert_true(port->now_ns(port->context) - start_ns >= 30000000);
}

static void test_a_wake_does_not_hide_events(void **state)
{
    struct port *port = *state;
    struct pair pair = local_pair();
    put_byte(pair.client);
    add(port, pair.server, PORT_READ, 9);
    port->wake(port->context);
    struct port_event event;
    assert_int_equal(wait_some(port, &event, 1), 1); /* a wait that only told the wake may come before */
    assert_int_equal(event.token, 9);
    port->watch_remove(port->context, pair.server);
    close_pair(port, pair);
}

enum { WAKES = 200000 };

struct waker {
    struct port *port;
    atomic_uint published;
    atomic_uint seen;
};

/* Publishes, wakes, and goes on only when the loop has seen it: one lost wake-up and both stand still. */
static void *wake_again_and_again(void *argument)
{
    struct waker *waker = argument;
    for (unsigned i = 1; i <= WAKES / 10; i++) {
        atomic_store(&waker->published, i);
        waker->port->wake(waker->port->context);
        while (i % 100 != 0 && atomic_load(&waker->seen) < i) {
        }
    }
    for (unsigned i = WAKES / 10 + 1; i <= WAKES; i++) { /* and now without waiting */
        atomic_store(&waker->published, i);
        waker->port->wake(waker->port->context);
    }
    return NULL;
}

static void test_no_wake_is_lost(void **state)
{
    struct waker waker = {.port = *state};
    struct port *port = waker.port;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wake_again_and_again, &waker), 0);
    while (atomic_load(&waker.seen) < WAKES) {
        struct port_event event;
        uint64_t start_ns = port->now_ns(port->context);
        assert_int_equal(port->wait(port->context, &event, 1, PATIENCE_MS), 0);
        assert_true((port->now_ns(port->context) - start_ns) / 1000000 < PATIENCE_MS);
        atomic_store(&waker.seen, atomic_load(&waker.published));
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
}

struct mistake {
    struct port *port;
    port_socket socket;
};

static void watch_twice(void *argument)
{
    struct mistake *mistake = argument;
    add(mistake->port, mistake->socket, PORT_READ, 1);
    (void)mistake->port->watch_add(mistake->port->context, mistake->socket, PORT_READ, 2);
}

static void change_what_is_not_watched(void *argument)
{
    struct mistake *mistake = argument;
    mistake->port->watch_change(mistake->port->context, mistake->socket, PORT_READ);
}

static void remove_what_is_not_watched(void *argument)
{
    struct mistake *mistake = argument;
    mistake->port->watch_remove(mistake->port->context, mistake->socket);
}

static void test_mistakes_end_the_program(void **state)
{
    struct pair pair = local_pair();
    struct mistake mistake = {*state, pair.client};
    assert_true(aborts(watch_twice, &mistake));
    assert_true(aborts(change_what_is_not_watched, &mistake));
    assert_true(aborts(remove_what_is_not_watched, &mistake));
    close_pair(*state, pair);
}

#define with_port(test) cmocka_unit_test_setup_teardown(test, open_port, close_port)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_port(test_a_wait_ends_after_its_time),
        with_port(test_ready_says_what_was_asked),
        with_port(test_hangup_is_told_unasked),
        with_port(test_what_was_removed_is_silent_and_can_come_again),
        with_port(test_a_descriptor_closed_behind_our_back_can_be_removed),
        with_port(test_no_more_are_watched_than_promised),
        with_port(test_none_starves),
        with_port(test_against_a_plain_table),
        with_port(test_a_crowd_is_told_in_a_few_waits),
        with_port(test_a_wake_ends_one_wait),
        with_port(test_a_wake_does_not_hide_events),
        with_port(test_no_wake_is_lost),
        with_port(test_mistakes_end_the_program),
    };
    return run_on_each_poller(tests, sizeof tests / sizeof *tests);
}
