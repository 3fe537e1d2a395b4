/* SPDX-License-Identifier: MIT */
/* Many timers, each added, moved and removed in O(1): a hashed wheel.
 *
 * Time is cut into ticks of tick_ms. A timer stands in the slot of the first tick that begins at or after its due
 * time, modulo the number of slots; one that is due later than the wheel is long stays where it is while the hand
 * passes, until its own round. So a timer never fires early, and at most tick_ms late (one added when its time has
 * come already: at the next tick).
 *
 * Invariant: every linked timer is in exactly one slot or among the due ones; a slot's bit is set exactly while the
 * slot holds one. Memory: the slots come from the arena, a timer is the owner's and must stay in place while it is
 * scheduled. Thread: its owner's. Times are in the owner's one monotonic clock. */
#ifndef POSTERN_BASE_TIMER_WHEEL_H
#define POSTERN_BASE_TIMER_WHEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "list.h"

/* One timer, part of what it times; zero when not scheduled. */
struct timer_node {
    struct list_node link;
    uint64_t due_ms;
};

/* The struct that holds a timer. */
#define TIMER_OWNER(timer, type, member) LIST_OWNER(&(timer)->link, type, member.link) /* NOLINT: a member path */

enum { TIMER_WHEEL_SLOTS_MAX = 65536 };
#define TIMER_WHEEL_NEVER UINT64_MAX

struct timer_wheel {
    struct list *slots;
    uint64_t *occupied; /* a bit a slot */
    struct list due;    /* taken from their slots, not yet handed out */
    size_t slot_count;
    size_t count; /* scheduled timers, the due ones included */
    uint64_t tick_ms;
    uint64_t tick; /* the last one whose slot was emptied */
};

/* slot_count: a power of two from 64 to TIMER_WHEEL_SLOTS_MAX. The wheel is cheapest when slot_count x tick_ms is
 * longer than most timers. */
void timer_wheel_init(struct timer_wheel *wheel, struct arena *arena, size_t slot_count, uint32_t tick_ms,
                      uint64_t now_ms);

/* Schedules a timer, or moves one that is scheduled. A due_ms of TIMER_WHEEL_NEVER is not a time. */
void timer_wheel_add(struct timer_wheel *wheel, struct timer_node *timer, uint64_t due_ms);

/* Takes a timer out; nothing happens to one that is not scheduled. */
void timer_wheel_remove(struct timer_wheel *wheel, struct timer_node *timer);

static inline bool timer_scheduled(const struct timer_node *timer)
{
    return list_linked(&timer->link);
}

/* Hands out the timers whose time has come, one a call, roughly in the order of their due times; NULL when there is
 * no more. The one handed out is no longer scheduled. Between calls any timer may be added or removed; one added
 * now is never handed out before the next tick, so a loop over this ends. */
struct timer_node *timer_wheel_expired(struct timer_wheel *wheel, uint64_t now_ms);

/* When to call timer_wheel_expired next: never later than the first timer fires, possibly earlier (for a timer of a
 * later round); 0 when some are due now; TIMER_WHEEL_NEVER when none is scheduled. */
uint64_t timer_wheel_next_ms(const struct timer_wheel *wheel);

#endif
