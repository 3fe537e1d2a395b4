/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "crc32c.h"
#include "guard_page.h"

enum { LONG_BYTES = 300 };

static void fill(uint8_t *data, size_t bytes, uint8_t first, int step)
{
    for (size_t i = 0; i < bytes; i++) {
        data[i] = (uint8_t)(first + (int)i * step);
    }
}

/* RFC 3720 appendix B.4, and the check value of the catalogue of parametrised CRC algorithms. */
static void test_known_values(void **state)
{
    (void)state;
    static const uint8_t read_pdu[48] = {
        0x01, 0xc0, 0, 0,    0, 0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 4, 0,
        0,    0,    0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 2,    0, 0, 0, 0, 0, 0, 0,
    };
    uint8_t data[32];
    assert_int_equal(crc32c(span_of(NULL, 0)), 0);
    assert_int_equal(crc32c(span_text("123456789")), 0xE3069283);
    fill(data, sizeof data, 0, 0);
    assert_int_equal(crc32c(span_of(data, sizeof data)), 0x8A9136AA);
    fill(data, sizeof data, 0xFF, 0);
    assert_int_equal(crc32c(span_of(data, sizeof data)), 0x62A8AB43);
    fill(data, sizeof data, 0, 1);
    assert_int_equal(crc32c(span_of(data, sizeof data)), 0x46DD794E);
    fill(data, sizeof data, 31, -1);
    assert_int_equal(crc32c(span_of(data, sizeof data)), 0x113FDB5C);
    assert_int_equal(crc32c(span_of(read_pdu, sizeof read_pdu)), 0xD9963A56);
}

/* The polynomial division, a bit at a time. */
static uint32_t divide(const uint8_t *data, size_t bytes)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78 : 0);
        }
    }
    return ~crc;
}

/* Every byte value at every place of a step goes through every table. */
static void test_every_table_entry_is_the_division(void **state)
{
    (void)state;
    uint8_t data[8];
    for (size_t place = 0; place < sizeof data; place++) {
        for (unsigned value = 0; value < 256; value++) {
            memset(data, 0x5A, sizeof data);
            data[place] = (uint8_t)value;
            assert_int_equal(crc32c(span_of(data, sizeof data)), divide(data, sizeof data));
        }
    }
}

static void test_every_length_at_every_alignment(void **state)
{
    (void)state;
    uint8_t data[LONG_BYTES + 8];
    struct guard_page guard;
    guard_page_open(&guard, sizeof data);
    fill(data, sizeof data, 3, 7);
    for (size_t bytes = 0; bytes <= LONG_BYTES; bytes++) {
        uint32_t expected = divide(data, bytes);
        for (size_t shift = 0; shift < 8; shift++) {
            memmove(data + shift, data + (shift == 0 ? 0 : shift - 1), bytes);
            assert_int_equal(crc32c(span_of(data + shift, bytes)), expected);
        }
        fill(data, sizeof data, 3, 7);
        const uint8_t *at_the_guard = guard_page_put(&guard, data, bytes);
        assert_int_equal(crc32c(span_of(at_the_guard, bytes)), expected);
    }
    guard_page_close(&guard);
}

static void test_pieces_make_the_whole(void **state)
{
    (void)state;
    uint8_t data[64];
    fill(data, sizeof data, 200, 13);
    uint32_t whole = crc32c(span_of(data, sizeof data));
    for (size_t cut = 0; cut <= sizeof data; cut++) {
        uint32_t crc = crc32c_extend(0, span_of(data, cut));
        assert_int_equal(crc32c_extend(crc, span_of(data + cut, sizeof data - cut)), whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_values),
        cmocka_unit_test(test_every_table_entry_is_the_division),
        cmocka_unit_test(test_every_length_at_every_alignment),
        cmocka_unit_test(test_pieces_make_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
