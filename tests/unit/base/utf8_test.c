/* SPDX-License-Identifier: MIT */
/* The judge here is a list: every prefix of every encoding of every scalar value, written down by the arithmetic of RFC
 * 3629 section 3 alone. Bytes are good exactly while they are in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "guard_page.h"
#include "utf8.h"

/* A bit for each prefix of one, two and three bytes that a character of more bytes can begin with. */
static uint8_t prefix1[256 / 8];
static uint8_t prefix2[65536 / 8];
static uint8_t prefix3[16777216 / 8];

static void mark(uint8_t *bits, uint32_t index)
{
    bits[index / 8] |= (uint8_t)(1 << index % 8);
}

static bool marked(const uint8_t *bits, uint32_t index)
{
    return (bits[index / 8] >> index % 8 & 1) != 0;
}

static size_t encode(uint32_t scalar, uint8_t out[4])
{
    if (scalar < 0x80) {
        out[0] = (uint8_t)scalar;
        return 1;
    }
    if (scalar < 0x800) {
        out[0] = (uint8_t)(0xC0 | scalar >> 6);
        out[1] = (uint8_t)(0x80 | (scalar & 63));
        return 2;
    }
    if (scalar < 0x10000) {
        out[0] = (uint8_t)(0xE0 | scalar >> 12);
        out[1] = (uint8_t)(0x80 | (scalar >> 6 & 63));
        out[2] = (uint8_t)(0x80 | (scalar & 63));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | scalar >> 18);
    out[1] = (uint8_t)(0x80 | (scalar >> 12 & 63));
    out[2] = (uint8_t)(0x80 | (scalar >> 6 & 63));
    out[3] = (uint8_t)(0x80 | (scalar & 63));
    return 4;
}

static bool is_scalar(uint32_t value)
{
    return value <= 0x10FFFF && !(value >= 0xD800 && value <= 0xDFFF);
}

static bool feed(struct utf8 *utf8, uint8_t byte)
{
    return utf8_feed(utf8, &byte, 1);
}

static int write_the_list(void **state)
{
    (void)state;
    for (uint32_t scalar = 0; scalar <= 0x10FFFF; scalar++) {
        uint8_t out[4];
        if (!is_scalar(scalar)) {
            continue;
        }
        size_t bytes = encode(scalar, out);
        uint32_t index = 0;
        for (size_t at = 0; at + 1 < bytes; at++) {
            index = index << 8 | out[at];
            mark(at == 0 ? prefix1 : at == 1 ? prefix2 : prefix3, index);
        }
    }
    return 0;
}

static void test_every_character_is_valid_whole_and_byte_by_byte(void **state)
{
    (void)state;
    for (uint32_t scalar = 0; scalar <= 0x10FFFF; scalar++) {
        uint8_t out[8] = {0};
        size_t bytes = encode(scalar, out);
        assert_int_equal(utf8_valid(span_of(out, bytes)), is_scalar(scalar));
        assert_int_equal(utf8_valid(span_of(out, sizeof out)), is_scalar(scalar)); /* with more behind it */
        struct utf8 utf8 = {0};
        bool good = true;
        for (size_t at = 0; at < bytes; at++) {
            good = feed(&utf8, out[at]);
            assert_true(utf8_complete(&utf8) == (good && at + 1 == bytes));
        }
        assert_int_equal(good, is_scalar(scalar));
    }
}

/* Every sequence that is good so far is followed by every byte. */
static void test_fails_at_the_first_bad_byte(void **state)
{
    (void)state;
    for (uint32_t a = 0; a < 256; a++) {
        struct utf8 first = {0};
        assert_int_equal(feed(&first, (uint8_t)a), a < 0x80 || marked(prefix1, a));
        if (!marked(prefix1, a)) {
            continue;
        }
        for (uint32_t b = 0; b < 256; b++) {
            struct utf8 second = first;
            uint32_t two = a << 8 | b;
            bool ends = a >= 0xC2 && a <= 0xDF && b >= 0x80 && b <= 0xBF;
            assert_int_equal(feed(&second, (uint8_t)b), ends || marked(prefix2, two));
            assert_int_equal(utf8_complete(&second), ends);
            if (!marked(prefix2, two)) {
                continue;
            }
            for (uint32_t c = 0; c < 256; c++) {
                struct utf8 third = second;
                uint32_t three = two << 8 | c;
                ends = a < 0xF0 && c >= 0x80 && c <= 0xBF;
                assert_int_equal(feed(&third, (uint8_t)c), ends || marked(prefix3, three));
                assert_int_equal(utf8_complete(&third), ends);
                if (!marked(prefix3, three) || c % 16 != 0) {
                    continue;
                }
                for (uint32_t d = 0; d < 256; d++) {
                    struct utf8 fourth = third;
                    ends = d >= 0x80 && d <= 0xBF;
                    assert_int_equal(feed(&fourth, (uint8_t)d), ends);
                    assert_int_equal(utf8_complete(&fourth), ends);
                }
            }
        }
    }
}

/* Characters that lie whole in a piece are judged whole; byte by byte, which is judged above, must agree. */
static void test_whole_pieces_agree_with_single_bytes(void **state)
{
    (void)state;
    static const uint8_t edges[] = {0x00, 0x7F, 0x80, 0x9F, 0xA0, 0xBF, 0xC0, 0xE2, 0xFF};
    enum { EDGES = sizeof edges };
    for (unsigned a = 0x80; a < 256; a++) {
        for (unsigned b = 0; b < 256; b++) {
            for (size_t c = 0; c < EDGES; c++) {
                for (size_t d = 0; d < EDGES; d++) {
                    const uint8_t text[] = {(uint8_t)a, (uint8_t)b, edges[c], edges[d], 'x', 'x', 'x', 'x'};
                    struct utf8 utf8 = {0};
                    size_t good = 0;
                    for (size_t at = 0; at < sizeof text && feed(&utf8, text[at]); at++) {
                        good = utf8_complete(&utf8) ? at + 1 : good;
                    }
                    if (utf8_valid_bytes(span_of(text, sizeof text)) != good) {
                        fail_msg("%02x %02x %02x %02x", a, b, edges[c], edges[d]);
                    }
                }
            }
        }
    }
}

static void test_stays_failed(void **state)
{
    (void)state;
    struct utf8 utf8;
    utf8_init(&utf8);
    assert_true(utf8_feed(&utf8, NULL, 0));
    assert_false(feed(&utf8, 0xFF));
    assert_false(feed(&utf8, 'a'));
    assert_false(utf8_feed(&utf8, NULL, 0));
    assert_false(utf8_complete(&utf8));
}

static void test_a_cut_character_is_not_complete(void **state)
{
    (void)state;
    static const uint8_t smile[] = {0xF0, 0x9F, 0x98, 0x80};
    for (size_t bytes = 1; bytes < sizeof smile; bytes++) {
        struct utf8 utf8 = {0};
        assert_true(utf8_feed(&utf8, smile, bytes));
        assert_false(utf8_complete(&utf8));
        assert_false(utf8_valid(span_of(smile, bytes)));
        assert_int_equal(utf8_valid_bytes(span_of(smile, bytes)), 0);
        assert_true(utf8_feed(&utf8, smile + bytes, sizeof smile - bytes));
        assert_true(utf8_complete(&utf8));
    }
}

/* One bad or wide thing at every place of texts of every length, ended by an unreadable page, fed in every two pieces.
 */
static void test_no_word_hides_a_byte(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        bool valid;
    } things[] = {
        {"\xC3\xBC", true},
        {"\xE2\x82\xAC", true},
        {"\xF0\x9F\x98\x80", true},
        {"\x7F", true},
        {"\x80", false},
        {"\xFF", false},
        {"\xC0\xAF", false},
        {"\xED\xA0\x80", false},
        {"\xC3x", false},
        {"\xF4\x90\x80\x80", false},
    };
    enum { LENGTH_MAX = 40 };
    struct guard_page guard;
    guard_page_open(&guard, LENGTH_MAX);
    for (size_t thing = 0; thing < sizeof things / sizeof *things; thing++) {
        size_t thing_bytes = strlen(things[thing].bytes);
        for (size_t bytes = thing_bytes; bytes <= LENGTH_MAX; bytes++) {
            for (size_t place = 0; place + thing_bytes <= bytes; place++) {
                uint8_t in[LENGTH_MAX];
                memset(in, 'x', sizeof in);
                memcpy(in + place, things[thing].bytes, thing_bytes);
                const uint8_t *text = guard_page_put(&guard, in, bytes);
                assert_int_equal(utf8_valid(span_of(text, bytes)), things[thing].valid);
                assert_int_equal(utf8_valid_bytes(span_of(text, bytes)), things[thing].valid ? bytes : place);
                for (size_t cut = 0; cut <= bytes; cut++) {
                    struct utf8 utf8 = {0};
                    bool good = utf8_feed(&utf8, text, cut) && utf8_feed(&utf8, text + cut, bytes - cut);
                    assert_int_equal(good && utf8_complete(&utf8), things[thing].valid);
                }
            }
        }
    }
    guard_page_close(&guard);
}

static void test_state_is_four_bytes(void **state)
{
    (void)state;
    assert_int_equal(sizeof(struct utf8), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_character_is_valid_whole_and_byte_by_byte),
        cmocka_unit_test(test_fails_at_the_first_bad_byte),
        cmocka_unit_test(test_whole_pieces_agree_with_single_bytes),
        cmocka_unit_test(test_stays_failed),
        cmocka_unit_test(test_a_cut_character_is_not_complete),
        cmocka_unit_test(test_no_word_hides_a_byte),
        cmocka_unit_test(test_state_is_four_bytes),
    };
    return cmocka_run_group_tests(tests, write_the_list, NULL);
}
