/* SPDX-License-Identifier: MIT */
/* What the tests of link and outbox stand on: a real port, a log in a file, an arena, a fake broker, and a clock that
 * only the test moves. */
#ifndef POSTERN_TESTS_RIG_H
#define POSTERN_TESTS_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amqp_link.h"
#include "arena.h"
#include "fake_broker.h"
#include "faulty_files.h"
#include "log.h"
#include "outbox.h"
#include "port.h"

enum { RIG_TOKEN = 11 };

struct rig {
    struct port port;
    struct log log;
    char log_path[64];
    struct arena arena;
    void *memory;
    struct fake_broker broker;
    struct amqp_brokers brokers;
    uint64_t now_ms;
    struct faulty_files *faulty; /* NULL, or what runs the jobs */
    struct amqp_link *link;
    struct outbox *outbox;
};

/* Opens all but link and outbox; the brokers' list names the fake one. */
void rig_open(struct rig *rig);
/* Closes the link or outbox in good order, and all else. */
void rig_close(struct rig *rig);

void rig_make_link(struct rig *rig, const struct amqp_link_options *options, const struct amqp_link_handler *handler,
                   void *context);
void rig_make_outbox(struct rig *rig, const struct outbox_options *options, const struct outbox_handler *handler,
                     void *context);

/* One turn of program and broker, without waiting. */
void rig_turn(struct rig *rig);

/* Turns until condition(context) holds, the clock standing still; false after very many. */
bool rig_until(struct rig *rig, bool (*condition)(void *context), void *context);

/* Turns while the clock moves by `ms`, in steps of at most step_ms. */
void rig_pass(struct rig *rig, uint64_t ms, uint64_t step_ms);

/* Turns until nothing happens for some milliseconds, the clock standing still: all that is under way arrives. */
void rig_settle(struct rig *rig);

/* How often the log holds `text`. */
size_t rig_log_count(struct rig *rig, const char *text);

#endif
