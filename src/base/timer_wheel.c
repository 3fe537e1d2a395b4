/* SPDX-License-Identifier: MIT */
/* The hand moves tick by tick over the slots and takes the timers whose round has come into the list of due ones, from
 * which they are handed out. A bit a slot finds the next slot that holds anything, a word of 64 slots at a time. */
#include "timer_wheel.h"

#include "check.h"

enum { SLOTS_PER_WORD = 64 };

static size_t word_of(size_t slot)
{
    return slot / SLOTS_PER_WORD;
}

static uint64_t bit_of(size_t slot)
{
    return UINT64_C(1) << slot % SLOTS_PER_WORD;
}

void timer_wheel_init(struct timer_wheel *wheel, struct arena *arena, size_t slot_count, uint32_t tick_ms,
                      uint64_t now_ms)
{
    CHECK(slot_count >= SLOTS_PER_WORD && slot_count <= TIMER_WHEEL_SLOTS_MAX);
    CHECK((slot_count & (slot_count - 1)) == 0);
    CHECK(tick_ms > 0);
    *wheel = (struct timer_wheel){.slot_count = slot_count, .tick_ms = tick_ms, .tick = now_ms / tick_ms};
    list_init(&wheel->due);
    wheel->slots = arena_take(arena, "timer wheel", slot_count, sizeof *wheel->slots);
    wheel->occupied = arena_take(arena, "timer wheel, occupied slots", slot_count / SLOTS_PER_WORD, sizeof(uint64_t));
    if (arena_measuring(arena)) {
        return;
    }
    for (size_t slot = 0; slot < slot_count; slot++) {
        list_init(&wheel->slots[slot]);
    }
}

void timer_wheel_add(struct timer_wheel *wheel, struct timer_node *timer, uint64_t due_ms)
{
    CHECK(due_ms != TIMER_WHEEL_NEVER);
    timer_wheel_remove(wheel, timer);
    uint64_t tick = due_ms / wheel->tick_ms + (due_ms % wheel->tick_ms != 0);
    if (tick <= wheel->tick) {
        tick = wheel->tick + 1;
    }
    size_t slot = (size_t)(tick & (wheel->slot_count - 1));
    timer->due_ms = due_ms;
    list_append(&wheel->slots[slot], &timer->link);
    wheel->occupied[word_of(slot)] |= bit_of(slot);
    wheel->count++;
}

void timer_wheel_remove(struct timer_wheel *wheel, struct timer_node *timer)
{
    if (!timer_scheduled(timer)) {
        return;
    }
    CHECK(wheel->count > 0);
    struct list_node *neighbour = timer->link.previous;
    bool alone = neighbour == timer->link.next; /* so that neighbour is the list's head */
    list_remove(&timer->link);
    wheel->count--;
    if (alone && neighbour != &wheel->due.head) {
        size_t slot = (size_t)(LIST_OWNER(neighbour, struct list, head) - wheel->slots);
        wheel->occupied[word_of(slot)] &= ~bit_of(slot);
    }
}

/* Takes from one slot what is due at until_ms. */
static void collect(struct timer_wheel *wheel, size_t slot, uint64_t until_ms)
{
    struct list *list = &wheel->slots[slot];
    struct list_node *node = list->head.next;
    while (node != &list->head) {
        struct list_node *next = node->next;
        struct timer_node *timer = LIST_OWNER(node, struct timer_node, link);
        if (timer->due_ms <= until_ms) {
            list_remove(node);
            list_append(&wheel->due, node);
        }
        node = next;
    }
    if (list_empty(list)) {
        wheel->occupied[word_of(slot)] &= ~bit_of(slot);
    }
}

static void advance(struct timer_wheel *wheel, uint64_t now_ms)
{
    uint64_t tick = now_ms / wheel->tick_ms;
    if (tick <= wheel->tick) {
        return;
    }
    uint64_t steps = tick - wheel->tick;
    if (steps > wheel->slot_count) {
        steps = wheel->slot_count;
    }
    for (uint64_t step = 1; step <= steps; step++) {
        size_t slot = (size_t)((wheel->tick + step) & (wheel->slot_count - 1));
        if ((wheel->occupied[word_of(slot)] & bit_of(slot)) != 0) {
            collect(wheel, slot, tick * wheel->tick_ms);
        }
    }
    wheel->tick = tick;
}

struct timer_node *timer_wheel_expired(struct timer_wheel *wheel, uint64_t now_ms)
{
    if (list_empty(&wheel->due)) {
        advance(wheel, now_ms);
    }
    struct list_node *node = list_first(&wheel->due);
    if (node == NULL) {
        return NULL;
    }
    list_remove(node);
    wheel->count--;
    return LIST_OWNER(node, struct timer_node, link);
}

uint64_t timer_wheel_next_ms(const struct timer_wheel *wheel)
{
    if (!list_empty(&wheel->due)) {
        return 0;
    }
    if (wheel->count == 0) {
        return TIMER_WHEEL_NEVER;
    }
    size_t word_count = wheel->slot_count / SLOTS_PER_WORD;
    size_t first = (size_t)((wheel->tick + 1) & (wheel->slot_count - 1));
    /* The first word is looked at twice: above `first` at the start, below it at the end. */
    size_t word = word_of(first);
    uint64_t bits = wheel->occupied[word] & ~(bit_of(first) - 1);
    for (size_t step = 0; bits == 0; step++) {
        CHECK(step < word_count);
        word = (word + 1) % word_count;
        bits = wheel->occupied[word];
    }
    size_t slot = word * SLOTS_PER_WORD + (size_t)__builtin_ctzll(bits);
    uint64_t distance = (slot - first) & (wheel->slot_count - 1);
    return (wheel->tick + 1 + distance) * wheel->tick_ms;
}
