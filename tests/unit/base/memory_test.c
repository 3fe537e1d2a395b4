/* SPDX-License-Identifier: MIT */
/* Arena, pool, list, span and check: what all memory of the program stands on. */
#include <setjmp.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "aborts.h"
#include "arena.h"
#include "check.h"
#include "list.h"
#include "pool.h"
#include "span.h"

enum { BLOCK_BYTES = 4096 };

static alignas(ARENA_ALIGN_BYTES) uint8_t block[BLOCK_BYTES];

static void two_rows(struct arena *arena, void **first, void **second)
{
    *first = arena_take(arena, "first", 3, 10);
    *second = arena_take(arena, "second", 2, 64);
}

static void test_arena_measures_then_carves_the_same(void **state)
{
    (void)state;
    struct arena measured;
    void *first = block;
    void *second = block;
    arena_measure(&measured);
    assert_true(arena_measuring(&measured));
    two_rows(&measured, &first, &second);
    assert_null(first);
    assert_null(second);
    assert_int_equal(measured.used_bytes, 64 + 128);
    assert_int_equal(measured.row_count, 2);
    assert_string_equal(measured.rows[0].what, "first");
    assert_int_equal(measured.rows[0].count, 3);
    assert_int_equal(measured.rows[0].bytes_each, 10);
    assert_int_equal(measured.rows[0].bytes, 64);
    assert_int_equal(measured.rows[1].bytes, 128);

    struct arena carved;
    arena_begin(&carved, block, measured.used_bytes);
    assert_false(arena_measuring(&carved));
    two_rows(&carved, &first, &second);
    assert_ptr_equal(first, block);
    assert_ptr_equal(second, block + 64);
    assert_int_equal(carved.used_bytes, measured.used_bytes);
}

static void take_too_much(void *argument)
{
    (void)argument;
    struct arena arena;
    arena_begin(&arena, block, 128);
    (void)arena_take(&arena, "fits", 2, 64);
    (void)arena_take(&arena, "does not", 1, 1);
}

static void take_what_overflows(void *argument)
{
    (void)argument;
    struct arena arena;
    arena_measure(&arena);
    (void)arena_take(&arena, "too many", SIZE_MAX / 2, 3);
}

static void begin_unaligned(void *argument)
{
    (void)argument;
    struct arena arena;
    arena_begin(&arena, block + 8, 128);
}

static void test_arena_mistakes_end_the_program(void **state)
{
    (void)state;
    assert_true(aborts(take_too_much, NULL));
    assert_true(aborts(take_what_overflows, NULL));
    assert_true(aborts(begin_unaligned, NULL));
}

static void test_pool_lends_each_block_once(void **state)
{
    (void)state;
    enum { COUNT = 5 };
    struct arena arena;
    struct pool pool;
    arena_begin(&arena, block, sizeof block);
    pool_init(&pool, &arena, "pool", COUNT, 40);
    assert_int_equal(pool.block_bytes, 64);
    uint8_t *taken[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        taken[i] = pool_take(&pool);
        assert_non_null(taken[i]);
        assert_int_equal((uintptr_t)taken[i] % ARENA_ALIGN_BYTES, 0);
        memset(taken[i], (int)i, pool.block_bytes);
    }
    assert_null(pool_take(&pool));
    assert_int_equal(pool.refused_count, 1);
    for (size_t i = 0; i < COUNT; i++) {
        for (size_t at = 0; at < pool.block_bytes; at++) {
            assert_int_equal(taken[i][at], i); /* no two blocks overlap */
        }
    }
    assert_int_equal(pool.used_count, COUNT);
    pool_give(&pool, taken[3]);
    pool_give(&pool, taken[0]);
    assert_int_equal(pool.used_count, 3);
    assert_ptr_equal(pool_take(&pool), taken[0]);
    assert_ptr_equal(pool_take(&pool), taken[3]);
    assert_int_equal(pool.peak_count, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        pool_give(&pool, taken[i]);
    }
    assert_int_equal(pool.used_count, 0);
}

static void test_pool_measures_as_it_carves(void **state)
{
    (void)state;
    struct arena measured;
    struct pool pool;
    arena_measure(&measured);
    pool_init(&pool, &measured, "pool", 7, 65);
    assert_int_equal(measured.used_bytes, 7 * 128);
}

static void give_a_strangers_block(void *pool)
{
    uint8_t stranger[64];
    pool_give(pool, stranger);
}

static void give_the_middle(void *pool)
{
    pool_give(pool, (uint8_t *)pool_take(pool) + 1);
}

static void give_to_a_full_pool(void *pool)
{
    void *taken = pool_take(pool);
    pool_give(pool, taken);
    pool_give(pool, taken);
}

static void test_pool_mistakes_end_the_program(void **state)
{
    (void)state;
    struct arena arena;
    struct pool pool;
    arena_begin(&arena, block, sizeof block);
    pool_init(&pool, &arena, "pool", 2, 64);
    assert_true(aborts(give_a_strangers_block, &pool));
    assert_true(aborts(give_the_middle, &pool));
    assert_true(aborts(give_to_a_full_pool, &pool));
}

struct member {
    int value;
    struct list_node link;
};

static void assert_list(const struct list *list, const int *values, size_t count)
{
    struct list_node *node = list->head.next;
    for (size_t i = 0; i < count; i++, node = node->next) {
        assert_ptr_not_equal(node, &list->head);
        assert_ptr_equal(node->next->previous, node);
        assert_int_equal(LIST_OWNER(node, struct member, link)->value, values[i]);
    }
    assert_ptr_equal(node, &list->head);
}

static void test_list_keeps_order_and_links(void **state)
{
    (void)state;
    struct list list;
    struct member members[3] = {{1, {0}}, {2, {0}}, {3, {0}}};
    list_init(&list);
    assert_true(list_empty(&list));
    assert_null(list_first(&list));
    for (size_t i = 0; i < 3; i++) {
        assert_false(list_linked(&members[i].link));
        list_append(&list, &members[i].link);
        assert_true(list_linked(&members[i].link));
    }
    assert_list(&list, (int[]){1, 2, 3}, 3);
    assert_ptr_equal(LIST_OWNER(list_first(&list), struct member, link), &members[0]);
    list_remove(&members[1].link);
    assert_false(list_linked(&members[1].link));
    assert_list(&list, (int[]){1, 3}, 2);
    list_remove(&members[1].link); /* nothing happens */
    list_append(&list, &members[1].link);
    assert_list(&list, (int[]){1, 3, 2}, 3);
    for (size_t i = 0; i < 3; i++) {
        list_remove(&members[i].link);
    }
    assert_true(list_empty(&list));
}

static void test_span_compares_bytes(void **state)
{
    (void)state;
    static const struct span constant = SPAN("ab");
    assert_true(span_is(constant, "ab"));
    assert_false(span_is(constant, "abc"));
    assert_false(span_is(constant, "a"));
    assert_false(span_is(constant, "ac"));
    assert_true(span_equal(span_of("a\0b", 3), span_of("a\0b", 3)));
    assert_false(span_equal(span_of("a\0b", 3), span_of("a\0c", 3)));
    assert_true(span_equal(span_of(NULL, 0), span_text("")));
}

static void fail_a_check(void *argument)
{
    CHECK(argument != NULL);
}

static void test_check_ends_only_what_is_wrong(void **state)
{
    (void)state;
    int right = 0;
    assert_true(aborts(fail_a_check, NULL));
    assert_false(aborts(fail_a_check, &right));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arena_measures_then_carves_the_same),
        cmocka_unit_test(test_arena_mistakes_end_the_program),
        cmocka_unit_test(test_pool_lends_each_block_once),
        cmocka_unit_test(test_pool_measures_as_it_carves),
        cmocka_unit_test(test_pool_mistakes_end_the_program),
        cmocka_unit_test(test_list_keeps_order_and_links),
        cmocka_unit_test(test_span_compares_bytes),
        cmocka_unit_test(test_check_ends_only_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
