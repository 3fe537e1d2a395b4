/* SPDX-License-Identifier: MIT */
/* The oldest messages that are not confirmed, in memory: a ring of entries, a ring of bytes behind them, and a mark for
 * every delivery tag that is undecided.
 *
 * Sequences number messages from 1 in the order they came here. front <= next to publish <= next to take. Confirms
 * come singly, out of order and in multiples, so each entry has its own mark, and entries leave from the front.
 *
 * Invariant: an entry's bytes stay where they are until it left; no entry leaves unconfirmed. Pure: it knows neither
 * link nor time. Memory: from the arena. Thread: its owner's. */
#ifndef POSTERN_OUTBOX_WINDOW_H
#define POSTERN_OUTBOX_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "span.h"

struct arena;

struct window_entry {
    size_t record_start; /* in the byte ring */
    size_t record_bytes;
    uint64_t number;         /* the outbox's; rises from entry to entry */
    uint64_t spool_sequence; /* 0: the spool does not have it */
    uint64_t taken_ms;
    bool is_published; /* at least once */
    bool is_confirmed;
};

struct window {
    struct window_entry *entries;
    uint64_t entry_mask;
    uint64_t entry_count_max;
    uint64_t front_sequence;
    uint64_t publish_sequence;
    uint64_t take_sequence;

    uint8_t *bytes;
    size_t bytes_max;
    size_t record_bytes_max;
    size_t start; /* of the front's record */
    size_t end;   /* where the next record goes */

    uint64_t *tags; /* the sequence a delivery tag stands for; 0: decided */
    uint64_t tag_mask;
    uint64_t oldest_tag; /* undecided; next_tag: none is */
    uint64_t next_tag;
};

/* What a confirm settled: called once for each message, before its entry leaves. */
typedef void window_on_confirmed(void *context, struct window *window, const struct window_entry *entry);

/* in_flight_max: delivery tags undecided at once. While the arena measures, the window must not be used. */
void window_init(struct window *window, struct arena *arena, uint32_t entry_count_max, size_t bytes_max,
                 size_t record_bytes_max, uint32_t in_flight_max);

static inline uint64_t window_depth(const struct window *window)
{
    return window->take_sequence - window->front_sequence;
}

static inline uint64_t window_in_flight(const struct window *window)
{
    return window->next_tag - window->oldest_tag;
}

/* Bytes between the first and the last record. */
size_t window_bytes(const struct window *window);

/* May `count` records of `bytes` in all be added, however they fall? */
bool window_has_room(const struct window *window, size_t count, size_t bytes);

/* Room for one record of at most `bytes`, or NULL. Then its entry joins the end: record_bytes says how many were used,
 * the caller fills in what is not about publishing. */
uint8_t *window_reserve(struct window *window, size_t bytes);
void window_push(struct window *window, const struct window_entry *entry);

/* The next message to publish, NULL if none; confirmed ones are passed over. Its record lives until it leaves. */
const struct window_entry *window_next(struct window *window);
struct span window_record(const struct window *window, const struct window_entry *entry);

/* What window_next gave was published under `tag`, the one after the last. True: not for the first time. */
bool window_published(struct window *window, uint64_t tag);

/* The broker's word on a tag, or with `multiple` on all undecided up to it. Returns how many messages it decided;
 * those that are acked are told and leave. Nacked ones stay, to be published again after window_rewind. */
size_t window_ack(struct window *window, uint64_t tag, bool multiple, window_on_confirmed *on_confirmed, void *context);
size_t window_nack(struct window *window, uint64_t tag, bool multiple);

/* The same as an ack, by sequence. Does nothing when the message has left, was confirmed or was never published. */
void window_settle(struct window *window, uint64_t sequence, window_on_confirmed *on_confirmed, void *context);

/* The oldest message leaves unconfirmed. */
void window_drop(struct window *window);

/* Publishing begins anew at the oldest unconfirmed message. */
void window_rewind(struct window *window);

/* A new channel: its tags begin at 1, and what was undecided on the last never will be. */
void window_forget_tags(struct window *window);

/* The message of a sequence, or of a number, while it is here, else NULL; and the sequence of an entry. */
struct window_entry *window_find(const struct window *window, uint64_t sequence);
struct window_entry *window_find_number(const struct window *window, uint64_t number);
uint64_t window_sequence(const struct window *window, const struct window_entry *entry);

/* The oldest message, NULL when empty. */
const struct window_entry *window_front(const struct window *window);

#endif
