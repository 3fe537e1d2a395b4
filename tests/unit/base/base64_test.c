/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base64.h"
#include "guard_page.h"

/* RFC 4648 section 10, and all 64 digits. */
static const struct {
    const char *data;
    size_t data_bytes;
    const char *text;
} pairs[] = {
    {"", 0, ""},
    {"f", 1, "Zg=="},
    {"fo", 2, "Zm8="},
    {"foo", 3, "Zm9v"},
    {"foob", 4, "Zm9vYg=="},
    {"fooba", 5, "Zm9vYmE="},
    {"foobar", 6, "Zm9vYmFy"},
    {"\x00\x10\x83\x10\x51\x87\x20\x92\x8b\x30\xd3\x8f\x41\x14\x93\x51\x55\x97\x61\x96\x9b\x71\xd7\x9f"
     "\x82\x18\xa3\x92\x59\xa7\xa2\x9a\xab\xb2\xdb\xaf\xc3\x1c\xb3\xd3\x5d\xb7\xe3\x9e\xbb\xf3\xdf\xbf",
     48, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"},
};

static void test_known_pairs_both_ways(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char text[80];
        uint8_t data[80];
        size_t text_bytes = strlen(pairs[i].text);
        assert_int_equal(BASE64_TEXT_BYTES(pairs[i].data_bytes), text_bytes);
        memset(text, '#', sizeof text);
        base64_encode(span_of(pairs[i].data, pairs[i].data_bytes), text);
        assert_memory_equal(text, pairs[i].text, text_bytes);
        assert_int_equal(text[text_bytes], '#');
        memset(data, '#', sizeof data);
        assert_true(base64_decode(span_text(pairs[i].text), data, pairs[i].data_bytes));
        assert_memory_equal(data, pairs[i].data, pairs[i].data_bytes);
        assert_int_equal(data[pairs[i].data_bytes], '#');
    }
}

static void test_all_lengths_round_trip_at_the_edge_of_memory(void **state)
{
    (void)state;
    enum { LENGTH_MAX = 100 };
    struct guard_page in;
    struct guard_page out;
    guard_page_open(&in, 2 * LENGTH_MAX);
    guard_page_open(&out, 2 * LENGTH_MAX);
    uint8_t source[LENGTH_MAX];
    for (size_t at = 0; at < sizeof source; at++) {
        source[at] = (uint8_t)(at * 167 + 13);
    }
    for (size_t bytes = 0; bytes <= LENGTH_MAX; bytes++) {
        size_t text_bytes = BASE64_TEXT_BYTES(bytes);
        char *text = (char *)out.end - text_bytes;
        base64_encode(span_of(guard_page_put(&in, source, bytes), bytes), text);
        const uint8_t *moved = guard_page_put(&in, text, text_bytes);
        uint8_t *data = out.end - bytes;
        assert_true(base64_decode(span_of(moved, text_bytes), data, bytes));
        assert_memory_equal(data, source, bytes);
        assert_false(base64_decode(span_of(moved, text_bytes), source, bytes + 1));
        if (bytes > 0) {
            assert_false(base64_decode(span_of(moved, text_bytes), source, bytes - 1));
            assert_false(base64_decode(span_of(moved + 1, text_bytes - 1), source, bytes));
        }
    }
    guard_page_close(&in);
    guard_page_close(&out);
}

static void assert_refused(const char *text, size_t data_bytes)
{
    uint8_t data[64];
    assert_false(base64_decode(span_text(text), data, data_bytes));
}

static void test_refuses_what_is_not_canonical(void **state)
{
    (void)state;
    assert_refused("", 1);
    assert_refused("Zg=", 1);
    assert_refused("Zg", 1);
    assert_refused("Zg==", 2);
    assert_refused("Zg==", 3);
    /* Unused bits, each alone. */
    assert_refused("Zh==", 1);
    assert_refused("Zi==", 1);
    assert_refused("Zk==", 1);
    assert_refused("Zo==", 1);
    assert_refused("Zm9=", 2);
    assert_refused("Zm+=", 2);
    assert_refused("Zm8=", 1);
    assert_refused("Zm9v", 2);
    assert_refused("Z===", 1);
    assert_refused("====", 1);
    assert_refused("====", 0);
    assert_refused("Zg=A", 1);
    assert_refused("Zm=v", 2);
    assert_refused("Zm==", 3);
    assert_refused("Zm9vZm9v", 3);
    assert_refused(" Zm9", 3);
    assert_refused("Zm9v\n", 3);
    assert_refused("Zm-_", 3); /* the alphabet for URLs */
}

static void test_refuses_every_foreign_byte_at_every_place(void **state)
{
    (void)state;
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t data[8];
    for (unsigned byte = 0; byte < 256; byte++) {
        bool digit = byte != 0 && strchr(alphabet, (int)byte) != NULL;
        for (size_t place = 0; place < 8; place++) {
            char text[] = "AAAAAAAA";
            text[place] = (char)byte;
            assert_int_equal(base64_decode(span_of(text, 8), data, 6), digit);
        }
        for (size_t place = 0; place < 3; place++) {
            char text[] = "AAA=";
            text[place] = (char)byte;
            if (place == 2 && digit) {
                continue; /* its unused bits decide, above */
            }
            assert_int_equal(base64_decode(span_of(text, 4), data, 2), digit);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_pairs_both_ways),
        cmocka_unit_test(test_all_lengths_round_trip_at_the_edge_of_memory),
        cmocka_unit_test(test_refuses_what_is_not_canonical),
        cmocka_unit_test(test_refuses_every_foreign_byte_at_every_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
