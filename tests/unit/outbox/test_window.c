/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "arena.h"
#include "window.h"

enum { ENTRIES = 50, RECORD_MAX = 300, BYTES = 2000, IN_FLIGHT = 16, MEMORY = 1 << 16, SEQUENCES = 20000 };

/* What the window should be, kept the plain way. */
struct model {
    struct window window;
    void *memory;
    bool confirmed[SEQUENCES];
    size_t record_bytes[SEQUENCES];
    uint64_t tag_sequence[SEQUENCES]; /* of the present channel; 0: decided */
    uint64_t taken;                   /* sequences 1 to taken */
    uint64_t tag;                     /* tags 1 to tag */
    uint64_t confirmed_count;
};

static void on_confirmed(void *context, struct window *window, const struct window_entry *entry)
{
    struct model *model = context;
    uint64_t sequence = entry->number / 3;
    assert_true(sequence >= 1 && sequence <= model->taken);
    assert_false(model->confirmed[sequence]);
    model->confirmed[sequence] = true;
    model->confirmed_count++;
    assert_int_equal(window_record(window, entry).data[0], (uint8_t)sequence);
}

static struct model *make(void)
{
    struct model *model = calloc(1, sizeof *model);
    void *memory = aligned_alloc(ARENA_ALIGN_BYTES, MEMORY);
    assert_non_null(memory);
    memset(memory, 0, MEMORY);
    struct arena arena;
    struct window unused;
    arena_measure(&arena);
    window_init(&unused, &arena, ENTRIES, BYTES, RECORD_MAX, IN_FLIGHT);
    size_t bytes = arena.used_bytes;
    model->memory = memory;
    arena_begin(&arena, memory, bytes);
    window_init(&model->window, &arena, ENTRIES, BYTES, RECORD_MAX, IN_FLIGHT);
    assert_int_equal(arena.used_bytes, bytes);
    return model;
}

static void end(struct model *model)
{
    free(model->memory);
    free(model);
}

/* All bytes of a record tell whose it is, so that one that is written over is seen. */
static void push(struct model *model, size_t bytes)
{
    uint8_t *at = window_reserve(&model->window, bytes);
    assert_non_null(at);
    uint64_t sequence = ++model->taken;
    memset(at, (int)(uint8_t)sequence, bytes);
    const struct window_entry entry = {.record_bytes = bytes, .number = sequence * 3};
    window_push(&model->window, &entry);
    model->record_bytes[sequence] = bytes;
}

static void check(struct model *model)
{
    uint64_t front = 1;
    while (front <= model->taken && model->confirmed[front]) {
        front++;
    }
    assert_int_equal(model->window.front_sequence, front);
    assert_int_equal(window_depth(&model->window), model->taken + 1 - front);
    size_t bytes = 0;
    for (uint64_t sequence = front; sequence <= model->taken; sequence++) {
        const struct window_entry *entry = &model->window.entries[sequence & model->window.entry_mask];
        struct span record = window_record(&model->window, entry);
        assert_int_equal(record.bytes, model->record_bytes[sequence]);
        for (size_t i = 0; i < record.bytes; i++) {
            assert_int_equal(record.data[i], (uint8_t)sequence);
        }
        assert_ptr_equal(window_find_number(&model->window, sequence * 3), entry);
        assert_null(window_find_number(&model->window, sequence * 3 + 1));
        bytes += model->record_bytes[sequence];
    }
    assert_true(window_bytes(&model->window) >= bytes && window_bytes(&model->window) <= bytes + RECORD_MAX);
    assert_true(model->window.publish_sequence >= front && model->window.publish_sequence <= model->taken + 1);
    assert_true(window_in_flight(&model->window) <= IN_FLIGHT);
}

static void publish(struct model *model)
{
    const struct window_entry *entry = window_next(&model->window);
    if (entry == NULL || window_in_flight(&model->window) == IN_FLIGHT) {
        return;
    }
    uint64_t sequence = entry->number / 3;
    assert_false(model->confirmed[sequence]);
    model->tag++;
    model->tag_sequence[model->tag] = sequence;
    assert_int_equal(model->window.publish_sequence, sequence);
    (void)window_published(&model->window, model->tag);
}

static void decide(struct model *model, bool is_ack)
{
    if (model->tag == 0) {
        return;
    }
    uint64_t tag = model->tag - (uint64_t)rand() % (model->tag < 20 ? model->tag : 20);
    bool multiple = rand() % 4 == 0;
    size_t expected = 0;
    for (uint64_t each = multiple ? 1 : tag; each <= tag; each++) {
        expected += model->tag_sequence[each] != 0;
        model->tag_sequence[each] = 0;
    }
    size_t decided = is_ack ? window_ack(&model->window, tag, multiple, on_confirmed, model)
                            : window_nack(&model->window, tag, multiple);
    assert_int_equal(decided, expected);
}

static void new_channel(struct model *model)
{
    window_forget_tags(&model->window);
    window_rewind(&model->window);
    memset(model->tag_sequence, 0, sizeof model->tag_sequence);
    model->tag = 0;
}

static void test_it_does_what_the_plain_model_does(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 20; seed++) {
        struct model *model = make();
        srand(seed);
        for (size_t round = 0; round < 3000; round++) {
            int dice = rand() % 100;
            if (dice < 40) {
                size_t bytes = 2 + (size_t)rand() % (RECORD_MAX - 1);
                if (window_has_room(&model->window, 1, bytes)) {
                    push(model, bytes);
                }
            } else if (dice < 70) {
                publish(model);
            } else if (dice < 90) {
                decide(model, true);
            } else if (dice < 94) {
                decide(model, false);
            } else if (dice < 96) {
                window_settle(&model->window, 1 + (uint64_t)rand() % (model->taken + 2), on_confirmed, model);
            } else if (dice < 98) {
                window_rewind(&model->window);
            } else if (dice < 99) {
                new_channel(model);
            } else if (window_depth(&model->window) > 0) {
                model->confirmed[model->window.front_sequence] = true; /* gone, without a word */
                model->confirmed_count++;
                window_drop(&model->window);
            }
            check(model);
        }
        new_channel(model);
        while (window_depth(&model->window) > 0) {
            publish(model);
            decide(model, true);
            check(model);
        }
        assert_int_equal(model->confirmed_count, model->taken);
        assert_true(model->taken > 200);
        assert_int_equal(window_bytes(&model->window), 0);
        end(model);
    }
}

/* Promised is promised, wherever the ring's end lies and whatever the sizes. */
static void test_promised_room_is_there(void **state)
{
    (void)state;
    struct model *model = make();
    size_t promised = 0;
    srand(5);
    for (size_t round = 0; round < 20000 && model->taken < SEQUENCES - 20; round++) {
        size_t sizes[8];
        size_t count = 1 + (size_t)rand() % 8;
        size_t bytes = 0;
        for (size_t i = 0; i < count; i++) {
            sizes[i] = rand() % 2 == 0 ? RECORD_MAX : 2 + (size_t)rand() % (RECORD_MAX - 2);
            bytes += sizes[i];
        }
        if (window_has_room(&model->window, count, bytes)) {
            promised++;
            for (size_t i = 0; i < count; i++) {
                push(model, sizes[i]);
            }
        }
        new_channel(model);
        for (size_t i = (size_t)rand() % 4; i > 0; i--) {
            publish(model);
        }
        if (model->tag > 0) {
            (void)window_ack(&model->window, model->tag, true, on_confirmed, model);
        }
        check(model);
    }
    assert_true(promised > 500);
    end(model);
}

static void test_it_fills_to_its_counts_and_no_further(void **state)
{
    (void)state;
    struct model *model = make();
    for (size_t i = 0; i < ENTRIES; i++) {
        assert_true(window_has_room(&model->window, 1, 2));
        push(model, 2);
    }
    assert_false(window_has_room(&model->window, 1, 2));
    assert_null(window_reserve(&model->window, 2));
    for (size_t i = 0; i < IN_FLIGHT + 5; i++) {
        publish(model);
    }
    assert_int_equal(window_in_flight(&model->window), IN_FLIGHT);
    assert_int_equal(window_ack(&model->window, 1, false, on_confirmed, model), 1);
    assert_true(window_has_room(&model->window, 1, 2));
    end(model);
}

/* The last byte before the oldest record may be used, and the next one not. */
static void test_a_ring_filled_to_the_last_byte_is_full(void **state)
{
    (void)state;
    struct model *model = make();
    for (size_t i = 0; i < 10; i++) {
        push(model, 200);
    }
    assert_null(window_reserve(&model->window, 2));
    for (size_t i = 0; i < 5; i++) {
        publish(model);
    }
    (void)window_ack(&model->window, 5, true, on_confirmed, model);
    for (size_t i = 0; i < 5; i++) {
        push(model, 200);
        check(model);
    }
    assert_int_equal(window_bytes(&model->window), BYTES);
    assert_null(window_reserve(&model->window, 2));
    assert_false(window_has_room(&model->window, 1, 2));
    end(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_does_what_the_plain_model_does),
        cmocka_unit_test(test_promised_room_is_there),
        cmocka_unit_test(test_it_fills_to_its_counts_and_no_further),
        cmocka_unit_test(test_a_ring_filled_to_the_last_byte_is_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
