/* SPDX-License-Identifier: MIT */
#include "rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "port_posix.h"

enum { TURNS_MAX = 20000, MEMORY_BYTES = 4 * 1024 * 1024, QUIET_TURNS = 4 };

static void need(bool condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "rig: %s\n", what);
        abort();
    }
}

void rig_open(struct rig *rig)
{
    static unsigned number;
    memset(rig, 0, sizeof *rig);
    const struct port_posix_options port = {.poller = PORT_POSIX_POLL, .watch_max = 8};
    need(port_posix_open(&rig->port, &port), "port");
    uint64_t random = 0;
    rig->port.random(rig->port.context, &random, sizeof random);
    snprintf(rig->log_path, sizeof rig->log_path, "rig-%llx-%u.log", (unsigned long long)random, number++);
    rig->memory = rig->port.memory(rig->port.context, MEMORY_BYTES);
    need(rig->memory != NULL, "memory");
    arena_begin(&rig->arena, rig->memory, MEMORY_BYTES);
    const struct log_options log = {
        .path = rig->log_path, .level = LOG_DEBUG, .file_bytes_max = 16 * 1024 * 1024, .file_count = 2};
    log_open(&rig->log, &rig->port, &rig->arena, &log);
    fake_broker_open(&rig->broker);
    rig->brokers.count = 1;
    rig->brokers.at[0] = (struct amqp_broker){
        .port = rig->broker.port, .host = "127.0.0.1", .user = "guest", .password = "guest", .vhost = "/"};
    rig->now_ms = 1000;
}

static bool is_down(void *context)
{
    struct rig *rig = context;
    return rig->outbox != NULL ? outbox_closed(rig->outbox) : amqp_link_state(rig->link) == AMQP_LINK_DOWN;
}

void rig_close(struct rig *rig)
{
    if (rig->outbox != NULL) {
        outbox_close(rig->outbox, rig->now_ms);
    } else if (rig->link != NULL) {
        amqp_link_close(rig->link, rig->now_ms);
    }
    if (rig->outbox != NULL || rig->link != NULL) {
        rig_settle(rig);
        rig_pass(rig, 6000, 1000);
        need(is_down(rig), "the link does not close");
    }
    if (rig->outbox != NULL) {
        outbox_release(rig->outbox);
    } else if (rig->link != NULL) {
        amqp_link_release(rig->link);
    }
    fake_broker_end(&rig->broker);
    log_close(&rig->log);
    remove(rig->log_path);
    port_posix_close(&rig->port);
}

void rig_make_link(struct rig *rig, const struct amqp_link_options *options, const struct amqp_link_handler *handler,
                   void *context)
{
    struct arena measure;
    arena_measure(&measure);
    need(amqp_link_init(&measure, &rig->port, &rig->log, options, handler, context) == NULL, "measuring");
    size_t before = rig->arena.used_bytes;
    rig->link = amqp_link_init(&rig->arena, &rig->port, &rig->log, options, handler, context);
    need(rig->arena.used_bytes - before == measure.used_bytes, "measured other than taken");
}

void rig_make_outbox(struct rig *rig, const struct outbox_options *options, const struct outbox_handler *handler,
                     void *context)
{
    struct arena measure;
    arena_measure(&measure);
    need(outbox_init(&measure, &rig->port, &rig->log, options, handler, context) == NULL, "measuring");
    size_t before = rig->arena.used_bytes;
    rig->outbox = outbox_init(&rig->arena, &rig->port, &rig->log, options, handler, context);
    need(rig->arena.used_bytes - before == measure.used_bytes, "measured other than taken");
}

/* True: something happened on either side. */
static bool turn(struct rig *rig, int64_t wait_ms)
{
    if (rig->outbox != NULL) {
        (void)outbox_turn(rig->outbox, rig->now_ms);
    } else {
        (void)amqp_link_tick(rig->link, rig->now_ms);
        amqp_link_flush(rig->link, rig->now_ms);
    }
    log_flush(&rig->log);
    bool is_busy = fake_broker_step(&rig->broker);
    if (rig->faulty != NULL && !rig->faulty->is_held) {
        is_busy = rig->faulty->job_count > 0 || is_busy;
        faulty_work(rig->faulty);
    }
    struct port_event events[4];
    size_t count = rig->port.wait(rig->port.context, events, 4, wait_ms);
    for (size_t i = 0; i < count; i++) {
        need(events[i].token == RIG_TOKEN, "token");
        if (rig->outbox != NULL) {
            outbox_on_event(rig->outbox, events[i].ready, rig->now_ms);
        } else {
            amqp_link_on_event(rig->link, events[i].ready, rig->now_ms);
        }
    }
    for (struct port_job *job = rig->port.finished_job(rig->port.context); job != NULL;
         job = rig->port.finished_job(rig->port.context)) {
        need(rig->outbox != NULL ? outbox_on_job(rig->outbox, job, rig->now_ms)
                                 : amqp_link_on_job(rig->link, job, rig->now_ms),
             "a job of nobody");
    }
    return is_busy || count > 0;
}

void rig_turn(struct rig *rig)
{
    (void)turn(rig, 0);
}

bool rig_until(struct rig *rig, bool (*condition)(void *context), void *context)
{
    for (size_t i = 0; i < TURNS_MAX; i++) {
        if (condition(context)) {
            return true;
        }
        (void)turn(rig, 1);
    }
    return false;
}

void rig_pass(struct rig *rig, uint64_t ms, uint64_t step_ms)
{
    while (ms > 0) {
        uint64_t step = ms < step_ms ? ms : step_ms;
        rig->now_ms += step;
        ms -= step;
        rig_turn(rig);
        rig_turn(rig);
    }
}

void rig_settle(struct rig *rig)
{
    for (size_t quiet = 0; quiet < QUIET_TURNS; quiet++) {
        if (turn(rig, 1)) {
            quiet = 0;
        }
    }
}

size_t rig_log_count(struct rig *rig, const char *text)
{
    static char content[4 * 1024 * 1024];
    log_flush(&rig->log);
    FILE *file = fopen(rig->log_path, "rb");
    need(file != NULL, "the log's file");
    size_t bytes = fread(content, 1, sizeof content - 1, file);
    fclose(file);
    content[bytes] = '\0';
    size_t found = 0;
    for (const char *at = strstr(content, text); at != NULL; at = strstr(at + 1, text)) {
        found++;
    }
    return found;
}
