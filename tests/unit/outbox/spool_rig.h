/* SPDX-License-Identifier: MIT */
/* What the tests of the spool stand on: a spool in a folder of its own, over storage that fails when it is told to, and
 * a ledger of what was appended and what was said to be synced. Message k has a payload of its own, of which both can
 * be told: that it is the k-th, and that each of its bytes is right. */
#ifndef POSTERN_TESTS_SPOOL_RIG_H
#define POSTERN_TESTS_SPOOL_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "faulty_files.h"
#include "log.h"
#include "spool.h"

enum { RIG_MESSAGES_MAX = 100000, RIG_PAYLOAD_MAX = 400 };

struct spool_rig {
    struct port real;
    struct faulty_files faulty;
    struct log log;
    struct arena arena;
    void *memory;
    char folder[64]; /* holds the log and the spool's folder */
    char directory[96];
    char error[256];
    struct spool_options options;
    size_t payload_bytes; /* of every message; 0: they vary */
    struct spool *spool;
    uint64_t now_ms;
    uint64_t found_count;
    /* The ledger. */
    uint64_t appended_count;                         /* messages 0 .. appended_count - 1 */
    uint64_t sequences[RIG_MESSAGES_MAX];            /* by message */
    uint64_t messages_by_sequence[RIG_MESSAGES_MAX]; /* the last one that had it, and one; 0: none */
    bool is_synced[RIG_MESSAGES_MAX];
    uint64_t synced_count;
    uint64_t synced_sequence; /* the last that was told */
    uint64_t done_count;      /* messages below it were released */
};

/* Small segments, so that few messages fill many. */
void spool_rig_open(struct spool_rig *rig, uint32_t segment_bytes, uint32_t segment_count, uint64_t seed);
void spool_rig_close(struct spool_rig *rig);

/* Opens the spool on what is in the folder; false when it refuses (the rig's `error` says why). */
bool spool_rig_start(struct spool_rig *rig);
/* Lets the spool go, in good order or not. */
void spool_rig_stop(struct spool_rig *rig);
void spool_rig_kill(struct spool_rig *rig);
void spool_rig_cut_power(struct spool_rig *rig, enum faulty_cut cut);

/* Appends the next message; false when there is no room. */
bool spool_rig_append(struct spool_rig *rig);
void spool_rig_append_many(struct spool_rig *rig, size_t count);
/* One turn: the spool's, the worker's, and the jobs back. */
void spool_rig_turn(struct spool_rig *rig);
/* Turns until nothing is to be done, the clock standing still. */
void spool_rig_settle(struct spool_rig *rig);

/* The message in a payload; ends the test if it is none, or a byte is wrong. */
uint64_t spool_rig_message_of(const struct spool_rig *rig, struct span payload);
/* Reads one message, turning as long as it is on its way; false: none is left. */
bool spool_rig_read(struct spool_rig *rig, uint64_t *message, uint64_t *sequence);
/* Reads all that is left, and releases it. */
void spool_rig_drain(struct spool_rig *rig);
/* Releases up to and including a message that was read. */
void spool_rig_release(struct spool_rig *rig, uint64_t message);
/* Reads all that is left, which must be messages first .. last in this order, and releases it. */
void spool_rig_expect(struct spool_rig *rig, uint64_t first, uint64_t last);

/* How often the log holds `text`. */
size_t spool_rig_log_count(struct spool_rig *rig, const char *text);
/* Empties it, between two starts. */
void spool_rig_forget_log(struct spool_rig *rig);

/* A segment's file: read and written behind the spool's back. */
size_t spool_rig_load(const struct spool_rig *rig, uint32_t index, uint8_t *bytes, size_t bytes_max);
void spool_rig_save(const struct spool_rig *rig, uint32_t index, const uint8_t *bytes, size_t bytes_count);
void spool_rig_path(const struct spool_rig *rig, uint32_t index, char path[160]);

#endif
