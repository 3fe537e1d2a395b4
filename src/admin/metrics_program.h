/* SPDX-License-Identifier: MIT */
/* The metrics that both programs have. Memory: the caller's. Thread: the loop's. */
#ifndef POSTERN_ADMIN_METRICS_PROGRAM_H
#define POSTERN_ADMIN_METRICS_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "receipt.h"

struct admin;
struct amqp_link;
struct log;
struct metrics;
struct metrics_histogram;

struct metrics_program {
    const char *name; /* "postern-gateway" */
    int64_t start_wall_ms;
    size_t arena_bytes;
    bool is_ready;
    const struct log *log;
    const struct admin *admin;
    const struct metrics_histogram *turn_ns; /* from metrics_turns */
    const uint64_t *receipts;                /* by status, RECEIPT_STATUS_COUNT of them */
    struct amqp_link *publish;
    struct amqp_link *consume;
};

/* An empty histogram for the time of a loop's turns. */
struct metrics_histogram metrics_turns(void);

void metrics_program(struct metrics *metrics, const struct metrics_program *program, uint64_t now_ms);

#endif
