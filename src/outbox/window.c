/* SPDX-License-Identifier: MIT */
/* Method: entries in a ring of a power of two, found by sequence; records lie whole in the byte ring, so the end of the
 * ring may stay unused when a record does not fit there. A tag's slot holds its sequence and not its entry, so that a
 * confirm of a message that has left meanwhile (settled by sequence) finds nothing and does no harm. */
#include "window.h"

#include "arena.h"
#include "check.h"
#include "number.h"

void window_init(struct window *window, struct arena *arena, uint32_t entry_count_max, size_t bytes_max,
                 size_t record_bytes_max, uint32_t in_flight_max)
{
    uint64_t entry_count = number_power_of_two(entry_count_max);
    uint64_t tag_count = number_power_of_two(in_flight_max);
    struct window_entry *entries =
        arena_take(arena, "outbox, a message's entry", (size_t)entry_count, sizeof(struct window_entry));
    uint8_t *bytes = arena_take(arena, "outbox, messages", 1, bytes_max);
    uint64_t *tags = arena_take(arena, "outbox, a delivery tag", (size_t)tag_count, sizeof(uint64_t));
    if (arena_measuring(arena)) {
        return;
    }
    CHECK(bytes_max >= 2 * record_bytes_max);
    *window = (struct window){.entries = entries,
                              .entry_mask = entry_count - 1,
                              .entry_count_max = entry_count_max,
                              .front_sequence = 1,
                              .publish_sequence = 1,
                              .take_sequence = 1,
                              .bytes = bytes,
                              .bytes_max = bytes_max,
                              .record_bytes_max = record_bytes_max,
                              .tags = tags,
                              .tag_mask = tag_count - 1,
                              .oldest_tag = 1,
                              .next_tag = 1};
}

static struct window_entry *at(const struct window *window, uint64_t sequence)
{
    return &window->entries[sequence & window->entry_mask];
}

size_t window_bytes(const struct window *window)
{
    if (window_depth(window) == 0) {
        return 0;
    }
    return window->end > window->start ? window->end - window->start : window->bytes_max - window->start + window->end;
}

bool window_has_room(const struct window *window, size_t count, size_t bytes)
{
    /* At the end of the ring less than one record may be lost. */
    size_t left = window->bytes_max - window_bytes(window);
    size_t lost = window->record_bytes_max;
    return window_depth(window) + count <= window->entry_count_max && left >= lost && left - lost >= bytes;
}

uint8_t *window_reserve(struct window *window, size_t bytes)
{
    CHECK(bytes <= window->record_bytes_max);
    if (window_depth(window) == window->entry_count_max) {
        return NULL;
    }
    if (window_depth(window) == 0) {
        window->start = 0;
        window->end = 0;
        return window->bytes;
    }
    if (window->end <= window->start) {
        return window->start - window->end >= bytes ? window->bytes + window->end : NULL;
    }
    if (window->bytes_max - window->end >= bytes) {
        return window->bytes + window->end;
    }
    if (window->start >= bytes) {
        window->end = 0;
        return window->bytes;
    }
    return NULL;
}

void window_push(struct window *window, const struct window_entry *entry)
{
    struct window_entry *joined = at(window, window->take_sequence);
    *joined = *entry;
    joined->record_start = window->end;
    joined->is_published = false;
    joined->is_confirmed = false;
    window->end += entry->record_bytes;
    CHECK(window->end <= window->bytes_max && entry->record_bytes > 0);
    window->take_sequence++;
}

const struct window_entry *window_next(struct window *window)
{
    while (window->publish_sequence < window->take_sequence && at(window, window->publish_sequence)->is_confirmed) {
        window->publish_sequence++;
    }
    return window->publish_sequence < window->take_sequence ? at(window, window->publish_sequence) : NULL;
}

struct span window_record(const struct window *window, const struct window_entry *entry)
{
    return span_of(window->bytes + entry->record_start, entry->record_bytes);
}

bool window_published(struct window *window, uint64_t tag)
{
    CHECK(tag == window->next_tag && window_in_flight(window) <= window->tag_mask);
    struct window_entry *entry = at(window, window->publish_sequence);
    bool is_repeat = entry->is_published;
    entry->is_published = true;
    window->tags[tag & window->tag_mask] = window->publish_sequence;
    window->next_tag++;
    window->publish_sequence++;
    return is_repeat;
}

/* Lets what is confirmed leave from the front. */
static void release(struct window *window)
{
    while (window->front_sequence < window->take_sequence && at(window, window->front_sequence)->is_confirmed) {
        window->front_sequence++;
    }
    if (window->front_sequence < window->take_sequence) {
        window->start = at(window, window->front_sequence)->record_start;
    }
    if (window->publish_sequence < window->front_sequence) {
        window->publish_sequence = window->front_sequence;
    }
}

static bool is_here(const struct window *window, uint64_t sequence)
{
    return sequence >= window->front_sequence && sequence < window->take_sequence;
}

static void confirm(struct window *window, uint64_t sequence, window_on_confirmed *on_confirmed, void *context)
{
    if (!is_here(window, sequence)) {
        return;
    }
    struct window_entry *entry = at(window, sequence);
    if (entry->is_published && !entry->is_confirmed) {
        entry->is_confirmed = true;
        on_confirmed(context, window, entry);
    }
}

/* Takes the sequence out of a tag's slot; 0 when it was decided before. */
static uint64_t decide(struct window *window, uint64_t tag)
{
    uint64_t *slot = &window->tags[tag & window->tag_mask];
    uint64_t sequence = *slot;
    *slot = 0;
    return sequence;
}

static void advance_tags(struct window *window)
{
    while (window->oldest_tag < window->next_tag && window->tags[window->oldest_tag & window->tag_mask] == 0) {
        window->oldest_tag++;
    }
}

size_t window_ack(struct window *window, uint64_t tag, bool multiple, window_on_confirmed *on_confirmed, void *context)
{
    size_t decided = 0;
    if (tag < window->oldest_tag || tag >= window->next_tag) {
        return 0;
    }
    for (uint64_t each = multiple ? window->oldest_tag : tag; each <= tag; each++) {
        uint64_t sequence = decide(window, each);
        if (sequence != 0) {
            decided++;
            confirm(window, sequence, on_confirmed, context);
        }
    }
    advance_tags(window);
    release(window);
    return decided;
}

size_t window_nack(struct window *window, uint64_t tag, bool multiple)
{
    size_t decided = 0;
    if (tag < window->oldest_tag || tag >= window->next_tag) {
        return 0;
    }
    for (uint64_t each = multiple ? window->oldest_tag : tag; each <= tag; each++) {
        decided += decide(window, each) != 0;
    }
    advance_tags(window);
    return decided;
}

void window_settle(struct window *window, uint64_t sequence, window_on_confirmed *on_confirmed, void *context)
{
    confirm(window, sequence, on_confirmed, context);
    release(window);
}

void window_drop(struct window *window)
{
    CHECK(window_depth(window) > 0);
    at(window, window->front_sequence)->is_confirmed = true;
    release(window);
}

void window_rewind(struct window *window)
{
    window->publish_sequence = window->front_sequence;
}

void window_forget_tags(struct window *window)
{
    for (uint64_t tag = window->oldest_tag; tag < window->next_tag; tag++) {
        decide(window, tag);
    }
    window->oldest_tag = 1;
    window->next_tag = 1;
}

struct window_entry *window_find(const struct window *window, uint64_t sequence)
{
    return is_here(window, sequence) ? at(window, sequence) : NULL;
}

struct window_entry *window_find_number(const struct window *window, uint64_t number)
{
    uint64_t low = window->front_sequence;
    uint64_t high = window->take_sequence;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (at(window, middle)->number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < window->take_sequence && at(window, low)->number == number ? at(window, low) : NULL;
}

uint64_t window_sequence(const struct window *window, const struct window_entry *entry)
{
    uint64_t index = (uint64_t)(entry - window->entries);
    return window->front_sequence + ((index - window->front_sequence) & window->entry_mask);
}

const struct window_entry *window_front(const struct window *window)
{
    return window_depth(window) == 0 ? NULL : at(window, window->front_sequence);
}
