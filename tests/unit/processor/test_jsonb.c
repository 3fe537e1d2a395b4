/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "json.h"
#include "jsonb.h"

/* Each of these was tried on PostgreSQL 15: SELECT '…'::jsonb. */
static void numbers_that_postgresql_holds(void **state)
{
    (void)state;
    static const char *const numbers[] = {
        "0",
        "-0",
        "1.5",
        "1e3",
        "1E+3",
        "-12.25e-3",
        "1e131071",
        "9e131071",
        "12e131070",
        "0.1e131072",
        "0.001e131074",
        "0e999999",
        "1e-16383",
        "0e-16383",
        "1.5e-16382",
        "-1e131071",
        "0.0e1000000",
        "0e1073741822",
        "123456789012345678901234567890",
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (!jsonb_number_fits(span_text(numbers[i]))) {
            fail_msg("%s is refused", numbers[i]);
        }
    }
}

static void numbers_that_postgresql_refuses(void **state)
{
    (void)state;
    static const char *const numbers[] = {
        "1e131072",
        "-1e131072",
        "10e131071",
        "0.01e131074",
        "1e-16384",
        "1.5e-16383",
        "0e-16384",
        "1e999999",
        "1e99999999999999999999",
        "1e-99999999999999999999",
        "0e9999999999",
        "0e1073741823",
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (jsonb_number_fits(span_text(numbers[i]))) {
            fail_msg("%s is let through", numbers[i]);
        }
    }
}

static void long_digits_count_too(void **state)
{
    (void)state;
    static char digits[140001];
    memset(digits, '7', sizeof digits);
    assert_true(jsonb_number_fits(span_of(digits, 131072)));
    assert_false(jsonb_number_fits(span_of(digits, 131073)));
    digits[1] = '.';
    assert_true(jsonb_number_fits(span_of(digits, 2 + 16383)));
    assert_false(jsonb_number_fits(span_of(digits, 2 + 16384)));
}

static void a_value_is_searched_whole_and_nothing_beside_it(void **state)
{
    (void)state;
    static const struct siphash_key key = {{1, 2}};
    static const struct {
        const char *text;
        bool fits;
    } rows[] = {
        {"{\"content\":[1,{\"deep\":[2,1e9]}]}", true},
        {"{\"content\":[1,{\"deep\":[2,1e900000]}]}", false},
        {"{\"content\":\"1e900000\"}", true},
        {"[[1],1e900000]", false},
        {"1E900000", false},
    };
    struct arena arena;
    struct json json;
    arena_measure(&arena);
    json_init(&json, &arena, 4096, &key);
    const size_t bytes = arena.used_bytes;
    void *const memory = aligned_alloc(ARENA_ALIGN_BYTES, (bytes + ARENA_ALIGN_BYTES - 1) & ~(size_t)63);
    memset(memory, 0, bytes);
    arena_begin(&arena, memory, bytes);
    json_init(&json, &arena, 4096, &key);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(json_parse(&json, span_text(rows[i].text)), JSON_OK);
        assert_int_equal(jsonb_numbers_fit(&json, 0), rows[i].fits);
    }
    assert_int_equal(json_parse(&json, span_text("[1e900000,[1,[2]],3,1e900000]")), JSON_OK);
    const size_t first = json_first(&json, 0);
    assert_false(jsonb_numbers_fit(&json, first));
    assert_true(jsonb_numbers_fit(&json, json_next(&json, first)));
    assert_true(jsonb_numbers_fit(&json, json_next(&json, json_next(&json, first))));
    free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_that_postgresql_holds),
        cmocka_unit_test(numbers_that_postgresql_refuses),
        cmocka_unit_test(long_digits_count_too),
        cmocka_unit_test(a_value_is_searched_whole_and_nothing_beside_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
