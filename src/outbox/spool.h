/* SPDX-License-Identifier: MIT */
/* A queue of messages on the disk (doc/spool-format.md): appended at one end, read and released at the other, in the
 * order of their sequences.
 *
 * What is appended waits in memory (the stage) and goes to the disk in batches: one write and one sync in the worker,
 * and what comes meanwhile is the next batch. on_synced tells, in order, what is on the disk for good. Reading gives
 * each message once, from the disk or, where it still is there, from the stage. A message stays on the disk until it
 * is released; then a later start will not find it again (or finds it again, if it crashed soon after).
 *
 * A write or a sync that fails is never told as synced: the batch stays in the stage and is written anew, after a
 * while, into another segment.
 *
 * Invariants: released < read <= next and synced < next; nothing in the folder is made, removed or grown after
 * spool_open. Memory: from the arena, fixed. Thread: the loop's; it is told of finished jobs. Handlers must not call
 * back into the spool, but for what only asks. */
#ifndef POSTERN_OUTBOX_SPOOL_H
#define POSTERN_OUTBOX_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "span.h"

struct arena;
struct log;
struct port;
struct port_job;
struct spool;
struct text;

enum {
    SPOOL_SEGMENTS_MIN = 4, /* of bytes_max: one to write, one to read, and something between */
    SPOOL_SEGMENTS_MAX = 2048,
    SPOOL_DIRECTORY_BYTES_MAX = 255,
    SPOOL_MARK_MESSAGES = 1024, /* released messages after which a mark is written by itself */
    SPOOL_RETRY_MS_MIN = 1000,
    SPOOL_RETRY_MS_MAX = 30000
};

struct spool_options {
    const char *directory;    /* at most SPOOL_DIRECTORY_BYTES_MAX bytes */
    uint64_t bytes_max;       /* SPOOL_SEGMENTS_MIN to _MAX segments */
    uint32_t segment_bytes;   /* SPOOL_SEGMENT_BYTES; at least two records */
    size_t payload_bytes_max; /* of one message */
    size_t stage_bytes;       /* at least two records */
};

struct spool_handler {
    /* A message that an earlier start left behind, or a few that it had released; in any order, from spool_open. */
    void (*on_found)(void *context, struct span payload);
    /* A message is on the disk for good; in order, once each. The payload lives for the call. */
    void (*on_synced)(void *context, uint64_t sequence, struct span payload);
};

/* For metrics and readiness. */
struct spool_counters {
    uint64_t appended_count;
    uint64_t synced_count;
    uint64_t lost_count;  /* messages that were damaged on the disk, or gone with a file */
    uint64_t write_count; /* batches and marks */
    uint64_t written_bytes;
    uint64_t write_failure_count;
    uint64_t unreadable_bytes; /* while running */
    uint64_t message_count;    /* not released */
    uint64_t unread_count;     /* of these, not read */
    uint64_t unsynced_count;   /* of these, not on the disk yet */
    uint64_t used_bytes;       /* of bytes_max: what stands in segments with messages that are not released */
    uint32_t segment_count;
    uint32_t segment_free_count;
    size_t stage_used_bytes;
    size_t stage_peak_bytes;
    bool is_failing; /* the last write failed */
};

/* Takes the spool from `arena`. NULL while the arena measures, never otherwise. All that is pointed at stays alive. */
struct spool *spool_init(struct arena *arena, struct port *port, struct log *log, const struct spool_options *options,
                         const struct spool_handler *handler, void *context);

/* Opens the folder and finds what is in it; blocks. False: `error` says in one line what is the matter (another
 * gateway has the folder, another version wrote it, it cannot be made, read or written, a message in it is too long for
 * payload_bytes_max), and no message was touched. */
bool spool_open(struct spool *spool, struct text *error);

/* Submits what is to be written or read; returns when it wants to be called again at the latest. */
uint64_t spool_turn(struct spool *spool, uint64_t now_ms);
/* A job came back from the worker: true if it was the spool's. */
bool spool_on_job(struct spool *spool, const struct port_job *job, uint64_t now_ms);

/* May records of so many bytes in all (SPOOL_RECORD_BYTES of each payload) surely be appended, to the stage and from
 * there to the disk? */
bool spool_has_room(const struct spool *spool, size_t record_bytes);
/* The disk alone, behind what is in the stage. Within a promise of spool_has_room the stage takes each record. */
bool spool_disk_has_room(const struct spool *spool, size_t record_bytes);
/* The disk might not have room for another full stage: it is time to release. What is on the disk, that is: the stage
 * gives its room back by itself. */
bool spool_is_filling(const struct spool *spool);
/* It was appended (0: never), and the sync has come back. */
bool spool_is_on_disk(const struct spool *spool, uint64_t sequence);

/* Where to put a payload of at most payload_bytes; NULL while the stage is full. Then the message is appended by
 * saying how many bytes it has; the sequence is returned. */
uint8_t *spool_reserve(struct spool *spool, size_t payload_bytes);
uint64_t spool_append(struct spool *spool, size_t payload_bytes);

/* The next message to be read. */
enum spool_next {
    SPOOL_NEXT_MESSAGE,
    SPOOL_NEXT_LATER, /* it is being read from the disk */
    SPOOL_NEXT_NONE   /* all was read */
};
/* The payload lives until spool_pass or the next append. Messages that cannot be read are passed over, logged and
 * counted. */
enum spool_next spool_peek(struct spool *spool, uint64_t *sequence, struct span *payload);
void spool_pass(struct spool *spool);
/* As spool_pass, for one that is of no use: logged and counted as lost, with the cause. */
void spool_pass_lost(struct spool *spool, const char *cause);
/* All that was appended so far counts as read. */
void spool_pass_all(struct spool *spool);

/* All up to and including `sequence` are done with; those that were read. */
void spool_release(struct spool *spool, uint64_t sequence);

uint64_t spool_unread_count(const struct spool *spool);
/* Those that are not released. */
uint64_t spool_message_count(const struct spool *spool);
/* The first sequence that is not released, was not read, was appended by this start. */
uint64_t spool_unreleased_sequence(const struct spool *spool);
uint64_t spool_read_sequence(const struct spool *spool);
uint64_t spool_own_sequence(const struct spool *spool);

/* From now on what was released is marked at once, and synced; spool_is_closed says when that is done and nothing is
 * being written or read. Of no use while writes fail: then it says so at once. */
void spool_close(struct spool *spool);
bool spool_is_closed(const struct spool *spool);
/* Closes the files and gives up the lock; the spool is dead after it. What the worker still has at a disk that does not
 * answer stays open until the process ends, and the lock with it. */
void spool_release_files(struct spool *spool);

/* Looks at each segment; for a turn of the loop there is spool_message_count. */
const struct spool_counters *spool_counters(struct spool *spool);

#endif
