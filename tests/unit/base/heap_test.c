/* SPDX-License-Identifier: MIT */
/* The allocator against a model: a list of what was given out, each piece filled with a pattern of its own. */
#include <setjmp.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "aborts.h"
#include "heap.h"

enum { BLOCK_BYTES = 256 * 1024, PIECES_MAX = 600, STEPS = 300000 };

static alignas(64) uint8_t block[BLOCK_BYTES + 64]; /* what lies behind must stay as it was */
static struct heap heap;

struct piece {
    uint8_t *memory;
    size_t bytes;
    uint8_t pattern;
};

struct model {
    struct piece pieces[PIECES_MAX];
    size_t count;
    uint64_t refused;
    size_t peak_bytes;
    uint64_t random;
};

static uint32_t random_below(struct model *model, uint32_t bound)
{
    model->random ^= model->random << 13; /* xorshift64 */
    model->random ^= model->random >> 7;
    model->random ^= model->random << 17;
    return (uint32_t)(model->random >> 32) % bound;
}

/* Small ones mostly, as libraries ask for, and now and then a large one. */
static size_t random_bytes(struct model *model)
{
    uint32_t bound = UINT32_C(1) << (4 + random_below(model, random_below(model, 20) == 0 ? 13 : 8));
    return random_below(model, bound);
}

static void fill(struct piece *piece)
{
    if (piece->bytes > 0) {
        memset(piece->memory, piece->pattern, piece->bytes);
    }
}

static void assert_intact(const struct piece *piece, size_t bytes)
{
    for (size_t at = 0; at < bytes; at++) {
        if (piece->memory[at] != piece->pattern) {
            fail_msg("byte %zu of a piece of %zu was changed", at, piece->bytes);
        }
    }
}

static int by_address(const void *left, const void *right)
{
    const struct piece *a = left;
    const struct piece *b = right;
    return a->memory < b->memory ? -1 : a->memory > b->memory;
}

/* The largest gap between the model's pieces, as memory without a header. */
static size_t largest_gap(const struct model *model)
{
    static struct piece sorted[PIECES_MAX];
    memcpy(sorted, model->pieces, model->count * sizeof *sorted);
    qsort(sorted, model->count, sizeof *sorted, by_address);
    uint8_t *end = block;
    size_t largest = 0;
    for (size_t index = 0; index <= model->count; index++) {
        uint8_t *start = index < model->count ? sorted[index].memory - HEAP_HEADER_BYTES : block + heap.capacity_bytes;
        assert_true(start >= end); /* no two pieces overlap */
        size_t gap = (size_t)(start - end);
        largest = gap > largest ? gap : largest;
        end = index < model->count ? sorted[index].memory + heap_usable_bytes(&heap, sorted[index].memory) : NULL;
    }
    return largest < HEAP_HEADER_BYTES ? 0 : largest - HEAP_HEADER_BYTES;
}

static void assert_rightly_refused(struct model *model, size_t bytes, size_t alignment)
{
    model->refused++;
    assert_true(heap.refused_count == model->refused);
    size_t needed = bytes + (alignment > HEAP_ALIGN_BYTES ? alignment + HEAP_HEADER_BYTES + HEAP_ALIGN_BYTES : 0);
    assert_true(largest_gap(model) < needed + needed / 16 + (size_t)2 * HEAP_ALIGN_BYTES);
}

static void assert_sums(struct model *model)
{
    size_t sum = 0;
    for (size_t index = 0; index < model->count; index++) {
        size_t usable = heap_usable_bytes(&heap, model->pieces[index].memory);
        assert_true(usable >= model->pieces[index].bytes && usable % HEAP_ALIGN_BYTES == 0);
        sum += HEAP_HEADER_BYTES + usable;
    }
    assert_int_equal(heap.used_bytes, sum);
    model->peak_bytes = sum > model->peak_bytes ? sum : model->peak_bytes;
    assert_true(heap.peak_bytes >= model->peak_bytes && heap.peak_bytes <= heap.capacity_bytes);
}

static void step_take(struct model *model)
{
    size_t alignment = random_below(model, 4) == 0 ? (size_t)1 << random_below(model, 13) : HEAP_ALIGN_BYTES;
    struct piece *piece = &model->pieces[model->count];
    piece->bytes = random_bytes(model);
    piece->pattern = (uint8_t)random_below(model, 256);
    piece->memory = heap_take(&heap, alignment, piece->bytes);
    if (piece->memory == NULL) {
        assert_rightly_refused(model, piece->bytes, alignment);
        return;
    }
    assert_int_equal((uintptr_t)piece->memory % alignment, 0);
    assert_int_equal((uintptr_t)piece->memory % HEAP_ALIGN_BYTES, 0);
    assert_true(piece->memory >= block && piece->memory + piece->bytes <= block + heap.capacity_bytes);
    fill(piece);
    model->count++;
}

static void step_give(struct model *model)
{
    struct piece *piece = &model->pieces[random_below(model, (uint32_t)model->count)];
    assert_intact(piece, piece->bytes);
    heap_give(&heap, piece->memory);
    *piece = model->pieces[--model->count];
}

static void step_resize(struct model *model)
{
    struct piece *piece = &model->pieces[random_below(model, (uint32_t)model->count)];
    size_t bytes = random_bytes(model);
    uint8_t *memory = heap_resize(&heap, piece->memory, bytes);
    if (memory == NULL) {
        assert_intact(piece, piece->bytes);
        assert_rightly_refused(model, bytes, 1);
        return;
    }
    piece->memory = memory;
    assert_intact(piece, bytes < piece->bytes ? bytes : piece->bytes);
    piece->bytes = bytes;
    fill(piece);
}

static void test_agrees_with_a_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        static struct model model;
        memset(&model, 0, sizeof model);
        model.random = seed * UINT64_C(0x9E3779B97F4A7C15);
        memset(block, 0xEE, sizeof block);
        heap_init(&heap, block, BLOCK_BYTES);
        for (int step = 0; step < STEPS / 4; step++) {
            uint32_t dice = random_below(&model, 100);
            uint32_t goal = (uint32_t)(step / 5000 % 2 == 0 ? 60 : 40); /* it fills, then empties, again and again */
            if (model.count == 0 || (dice < goal && model.count < PIECES_MAX)) {
                step_take(&model);
            } else if (dice < 90) {
                step_give(&model);
            } else {
                step_resize(&model);
            }
            if (step % 64 == 0) {
                assert_sums(&model);
            }
        }
        assert_true(model.refused > 0);
        while (model.count > 0) {
            step_give(&model);
        }
        assert_int_equal(heap.used_bytes, 0);
        uint8_t *whole = heap_take(&heap, 1, heap.capacity_bytes / 17 * 16); /* all has grown together again */
        assert_non_null(whole);
        heap_give(&heap, whole);
        for (size_t at = BLOCK_BYTES; at < sizeof block; at++) {
            assert_int_equal(block[at], 0xEE);
        }
    }
}

static void test_grows_where_it_stands_if_it_can(void **state)
{
    (void)state;
    heap_init(&heap, block, BLOCK_BYTES);
    uint8_t *first = heap_take(&heap, 1, 100);
    uint8_t *second = heap_take(&heap, 1, 100);
    uint8_t *third = heap_take(&heap, 1, 100);
    memset(first, 7, 100);
    heap_give(&heap, second);
    size_t used = heap.used_bytes;
    assert_ptr_equal(heap_resize(&heap, first, 150), first);
    assert_true(heap.used_bytes > used);
    uint8_t *moved = heap_resize(&heap, first, 1000);
    assert_true(moved > third);
    for (size_t at = 0; at < 100; at++) {
        assert_int_equal(moved[at], 7);
    }
    assert_ptr_equal(heap_resize(&heap, moved, 10), moved);
    heap_give(&heap, third);
    heap_give(&heap, moved);
    assert_int_equal(heap.used_bytes, 0);
}

static void test_no_size_is_too_odd(void **state)
{
    (void)state;
    heap_init(&heap, block, BLOCK_BYTES);
    assert_null(heap_take(&heap, 1, SIZE_MAX));
    assert_null(heap_take(&heap, 1, SIZE_MAX - HEAP_ALIGN_BYTES));
    assert_null(heap_take(&heap, SIZE_MAX / 2 + 1, 1));
    assert_null(heap_take(&heap, 64, heap.capacity_bytes));
    assert_null(heap_take(&heap, 1, heap.capacity_bytes));
    uint8_t *nothing = heap_take(&heap, 1, 0);
    uint8_t *again = heap_take(&heap, 1, 0);
    assert_non_null(nothing);
    assert_non_null(again);
    assert_ptr_not_equal(nothing, again);
    assert_null(heap_resize(&heap, again, SIZE_MAX));
    assert_int_equal(heap.refused_count, 6);
    heap_give(&heap, again);
    heap_give(&heap, nothing);
    assert_int_equal(heap.used_bytes, 0);
}

static void give_twice(void *argument)
{
    uint8_t *piece = heap_take(&heap, 1, 100);
    if (argument != NULL) {
        (void)heap_take(&heap, 1, 100); /* a neighbour, so that what is given back stands alone */
    }
    heap_give(&heap, piece);
    heap_give(&heap, piece);
}

static void give_what_is_not_ours(void *argument)
{
    heap_give(&heap, argument);
}

static void write_beyond(void *argument)
{
    (void)argument;
    uint8_t *piece = heap_take(&heap, 1, 96);
    (void)heap_take(&heap, 1, 96);
    memset(piece, 0xFF, 96 + HEAP_HEADER_BYTES);
    heap_give(&heap, piece);
}

static void test_mistakes_end_the_program(void **state)
{
    (void)state;
    heap_init(&heap, block, BLOCK_BYTES);
    static uint8_t other[64];
    assert_true(aborts(give_twice, NULL));
    assert_true(aborts(give_twice, block));
    assert_true(aborts(give_what_is_not_ours, other));
    assert_true(aborts(give_what_is_not_ours, block));
    assert_true(aborts(give_what_is_not_ours, block + (size_t)1000 * HEAP_ALIGN_BYTES + 1));
    assert_true(aborts(write_beyond, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agrees_with_a_model),
        cmocka_unit_test(test_grows_where_it_stands_if_it_can),
        cmocka_unit_test(test_no_size_is_too_odd),
        cmocka_unit_test(test_mistakes_end_the_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
