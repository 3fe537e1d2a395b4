/* SPDX-License-Identifier: MIT */
/* What the tests of consumer and outgoing stand on: a real port, a log in a file, an arena, a fake broker, and a clock
 * that only the test moves. One of the two at a time: the case's `turn` and `on_event` say which. */
#ifndef POSTERN_TESTS_BROKER_CASE_H
#define POSTERN_TESTS_BROKER_CASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "amqp_link.h"
#include "arena.h"
#include "fake_broker.h"
#include "log.h"
#include "port_posix.h"

enum { CASE_TOKEN = 7, CASE_BODY_BYTES_MAX = 65536, CASE_QUIET_TURNS = 4 };

struct broker_case {
    struct port port;
    struct log log;
    char log_path[64];
    struct arena arena;
    struct fake_broker broker;
    struct amqp_brokers brokers;
    uint64_t now_ms;
    struct amqp_link *link;
    void (*turn)(struct broker_case *self);
    void (*on_event)(struct broker_case *self, uint32_t ready);
};

/* `make` takes what the case is about from the arena; called twice, to measure and for real. */
static inline void case_open(struct broker_case *self, void (*make)(struct broker_case *self, struct arena *arena))
{
    const struct port_posix_options options = {.poller = PORT_POSIX_POLL, .watch_max = 4};
    assert_true(port_posix_open(&self->port, &options));
    fake_broker_open(&self->broker);
    self->brokers.count = 1;
    self->brokers.at[0] = (struct amqp_broker){
        .port = self->broker.port, .host = "127.0.0.1", .user = "guest", .password = "guest", .vhost = "/"};
    self->now_ms = 1000;
    (void)snprintf(self->log_path, sizeof self->log_path, "processor-%u.log", (unsigned)self->broker.port);
    const struct log_options log = {
        .path = self->log_path, .level = LOG_DEBUG, .file_bytes_max = 1024 * 1024, .file_count = 2};
    struct arena measure;
    arena_measure(&measure);
    log_open(&self->log, &self->port, &measure, &log);
    make(self, &measure);
    void *const memory = self->port.memory(self->port.context, measure.used_bytes);
    assert_non_null(memory);
    arena_begin(&self->arena, memory, measure.used_bytes);
    log_open(&self->log, &self->port, &self->arena, &log);
    make(self, &self->arena);
}

/* True: something happened on either side. */
static inline bool case_turn(struct broker_case *self)
{
    (void)amqp_link_tick(self->link, self->now_ms);
    self->turn(self);
    amqp_link_flush(self->link, self->now_ms);
    log_flush(&self->log);
    const bool is_busy = fake_broker_step(&self->broker);
    struct port_event events[4];
    const size_t count = self->port.wait(self->port.context, events, 4, 1);
    for (size_t i = 0; i < count; i++) {
        self->on_event(self, events[i].ready);
    }
    return is_busy || count > 0;
}

/* Until nothing happens any more, the clock standing still. */
static inline void case_settle(struct broker_case *self)
{
    for (int quiet = 0; quiet < CASE_QUIET_TURNS; quiet++) {
        if (case_turn(self)) {
            quiet = 0;
        }
    }
}

static inline void case_pass(struct broker_case *self, uint64_t ms)
{
    self->now_ms += ms;
    case_settle(self);
}

static inline void case_close(struct broker_case *self)
{
    amqp_link_close(self->link, self->now_ms);
    case_settle(self);
    self->now_ms += 6000;
    (void)amqp_link_tick(self->link, self->now_ms);
    assert_int_equal(amqp_link_state(self->link), AMQP_LINK_DOWN);
    amqp_link_release(self->link);
    fake_broker_end(&self->broker);
    log_close(&self->log);
    (void)remove(self->log_path);
    (void)port_posix_close(&self->port);
}

#endif
