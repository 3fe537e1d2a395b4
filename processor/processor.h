/* SPDX-License-Identifier: MIT */
/* The message processor: takes messages from RabbitMQ, stores them in PostgreSQL in batches, and tells each gateway
 * what became of its messages.
 *
 * Invariants: a message is acknowledged only when its row is committed, or when its dead letter is confirmed; a receipt
 * is published only after that is true. Any end of the program, of a link or of the database leaves each message either
 * acknowledged or in the queue; at worst it is delivered again, and then found stored, or dead-lettered once more.
 *
 * Memory: from the arena, fixed; libpq allocates its own. Thread: the loop's. */
#ifndef POSTERN_PROCESSOR_PROCESSOR_H
#define POSTERN_PROCESSOR_PROCESSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "admin.h"
#include "amqp_url.h"
#include "consumer.h"
#include "intake.h"
#include "limits.h"
#include "log.h"
#include "outgoing.h"
#include "program.h"
#include "receipt_groups.h"
#include "settings.h"
#include "tally.h"

struct arena;
struct port;
struct store;

enum {
    PROCESSOR_LINK_COUNT = 2,
    PROCESSOR_WATCHES = 3 + ADMIN_WATCHES, /* sockets: two links, the database, and the admin pages */

    /* A body in the queue, in bytes: the longest a gateway can be set to take, with its frame. The JSON parser costs
     * twelve times as much. */
    PROCESSOR_BODY_BYTES_MAX = 1024 * 1024 + 1024,

    /* What one statement carries at most in contents; beyond it a batch is cut short. libpq holds it a second time. */
    PROCESSOR_BATCH_BYTES = 4 * 1024 * 1024,

    /* Room for messages of this length for the whole prefetch, up to the ceiling: the longest that a gateway takes with
     * its default MAX_MESSAGE_BYTES, and 1 KiB for the envelope, names and properties. When longer ones fill it,
     * consuming pauses until all of it is stored, and goes on with fewer at a time. */
    PROCESSOR_MESSAGE_BYTES_USUAL = 16 * 1024 + 1024,
    PROCESSOR_INTAKE_BYTES_MAX = 64 * 1024 * 1024,

    PROCESSOR_DEAD_SUFFIX_BYTES = sizeof(".dead") - 1,
    PROCESSOR_INSTANCE_BYTES = 96,

    /* Halving a batch of 2^n messages down to one leaves at most n + 1 ranges to do. */
    PROCESSOR_RANGES_MAX = 32
};

/* Deliveries from `from` up to, not including, `to`. */
struct processor_range {
    uint64_t from;
    uint64_t to;
};

struct processor {
    struct port *port;
    const struct settings *settings;
    struct log log;
    struct amqp_brokers brokers;
    struct store *store;
    struct consumer consumer;
    struct outgoing outgoing;
    struct receipt_groups receipts;
    struct admin admin;
    struct tally tally;
    size_t arena_bytes;
    int64_t start_wall_ms;
    char dead_queue[QUEUE_NAME_BYTES_MAX + PROCESSOR_DEAD_SUFFIX_BYTES + 1];
    char id_prefix[INTAKE_PREFIX_BYTES_MAX + 1];
    char instance[PROCESSOR_INSTANCE_BYTES];

    struct processor_range ranges[PROCESSOR_RANGES_MAX]; /* to be stored; the last first */
    size_t range_count;
    struct processor_range current; /* at the store, while that is not idle */
    uint64_t *rows;                 /* the sequences of its rows */
    size_t row_count;
    uint64_t next; /* the first delivery that is in no range yet */
    uint64_t submitted_ns;
    uint64_t handed_dead_count; /* deliveries that came dead and were looked at */
    bool has_dead;              /* there may be deliveries to hand to the dead letters */
    bool tags_lost;             /* the channel was lost since the last turn */
    uint64_t turn_ns;           /* when the present turn began */
    uint64_t now_ms;
    uint64_t store_down_ms; /* since when no batch was decided, for the store went down; UINT64_MAX: it does its work */

    bool stopping;
    bool closing;
    uint64_t stop_due_ms;
};

/* Says whether all settings can be used together; if not, `error` (terminated) is one line. */
bool processor_check(const struct settings *settings, char *error, size_t error_bytes);

/* Takes everything from `arena`; returns right after that while it measures. Opens the log. The settings were
 * checked, and stay alive, as does the port. */
void processor_init(struct processor *processor, struct arena *arena, struct port *port,
                    const struct settings *settings);

/* Listens for the admin pages, if there are to be any. False: `error` (terminated) is one line. */
bool processor_listen(struct processor *processor, char *error, size_t error_bytes);

/* Turns the loop until the program is told to stop. PROGRAM_EXIT_FAILED: told twice; nothing is closed. */
enum program_exit processor_run(struct processor *processor);

/* After PROGRAM_EXIT_OK: gives back what is not the arena's, and closes the log. */
void processor_release(struct processor *processor);

#endif
