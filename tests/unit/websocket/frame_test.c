/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "frame.h"
#include "guard_page.h"

static struct guard_page guard;

static int open_guard(void **state)
{
    (void)state;
    guard_page_open(&guard, 4096);
    return 0;
}

static int close_guard(void **state)
{
    (void)state;
    guard_page_close(&guard);
    return 0;
}

/* Reads the header from bytes that end at the guard. */
static bool read_header(const char *bytes, size_t count, struct frame_header *header)
{
    struct span input = span_of(guard_page_put(&guard, bytes, count), count);
    assert_int_equal(frame_header_bytes(input), count);
    return frame_read_header(input, header);
}

static void test_examples_of_rfc_6455(void **state)
{
    (void)state;
    struct frame_header header;
    /* section 5.7 */
    assert_true(read_header("\x81\x05", 2, &header));
    assert_int_equal(header.opcode, FRAME_TEXT);
    assert_true(header.is_final && !header.is_masked);
    assert_int_equal(header.payload_bytes, 5);

    assert_true(read_header("\x81\x85\x37\xfa\x21\x3d", 6, &header));
    assert_true(header.is_final && header.is_masked);
    uint8_t *payload = guard_page_put(&guard, "\x7f\x9f\x4d\x51\x58", 5);
    frame_unmask(payload, 5, header.mask);
    assert_memory_equal(payload, "Hello", 5);

    assert_true(read_header("\x01\x03", 2, &header));
    assert_true(!header.is_final && header.opcode == FRAME_TEXT);
    assert_true(read_header("\x80\x02", 2, &header));
    assert_true(header.is_final && header.opcode == FRAME_CONTINUATION);
    assert_true(read_header("\x89\x05", 2, &header));
    assert_int_equal(header.opcode, FRAME_PING);
    assert_true(read_header("\x8a\x85\x37\xfa\x21\x3d", 6, &header));
    assert_int_equal(header.opcode, FRAME_PONG);
    assert_true(read_header("\x82\x7e\x01\x00", 4, &header));
    assert_int_equal(header.payload_bytes, 256);
    assert_true(read_header("\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", 10, &header));
    assert_int_equal(header.payload_bytes, 65536);
}

static void test_header_length_is_known_from_two_bytes(void **state)
{
    (void)state;
    for (unsigned second = 0; second < 256; second++) {
        const uint8_t bytes[2] = {0x82, (uint8_t)second};
        size_t expected = 2 + ((second & 0x80) != 0 ? 4u : 0u);
        expected += (second & 0x7f) == 126 ? 2 : (second & 0x7f) == 127 ? 8 : 0;
        for (size_t count = 0; count < 2; count++) {
            assert_int_equal(frame_header_bytes(span_of(guard_page_put(&guard, bytes, count), count)), 2);
        }
        assert_int_equal(frame_header_bytes(span_of(guard_page_put(&guard, bytes, 2), 2)), expected);
    }
}

static void test_bits_and_opcodes(void **state)
{
    (void)state;
    for (unsigned first = 0; first < 256; first++) {
        const char bytes[2] = {(char)first, 0};
        struct frame_header header;
        assert_true(read_header(bytes, 2, &header));
        assert_int_equal(header.opcode, first & 15);
        assert_int_equal(header.reserved_bits, first >> 4 & 7);
        assert_int_equal(header.is_final, first >> 7);
    }
}

static void test_lengths_not_in_their_shortest_form(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t count;
        bool is_valid;
    } rows[] = {
        {"\x82\x7e\x00\x7d", 4, false},
        {"\x82\x7e\x00\x7e", 4, true},
        {"\x82\x7e\xff\xff", 4, true},
        {"\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", 10, false},
        {"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", 10, true},
        {"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", 10, true},
        {"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", 10, false},
    };
    for (size_t index = 0; index < sizeof rows / sizeof rows[0]; index++) {
        struct frame_header header;
        assert_int_equal(read_header(rows[index].bytes, rows[index].count, &header), rows[index].is_valid);
    }
}

static void test_headers_written_can_be_read(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {0, 1, 125, 126, 127, 65535, 65536, 65537, 16777216, INT64_MAX};
    for (size_t index = 0; index < sizeof sizes / sizeof sizes[0]; index++) {
        uint8_t bytes[FRAME_SEND_HEADER_BYTES_MAX];
        struct frame_header header;
        size_t count = frame_write_header(bytes, FRAME_BINARY, true, sizes[index]);
        assert_true(read_header((char *)bytes, count, &header));
        assert_int_equal(header.payload_bytes, sizes[index]);
        assert_int_equal(header.opcode, FRAME_BINARY);
        assert_int_equal(header.header_bytes, count);
        assert_true(header.is_final && !header.is_masked && header.reserved_bits == 0);
    }
}

/* Every length at every alignment, ending at the guard, and what lies before stays as it is. */
static void test_unmask_touches_its_bytes_only(void **state)
{
    (void)state;
    static const uint8_t mask[4] = {0x12, 0x80, 0xff, 0x01};
    for (size_t bytes = 0; bytes < 100; bytes++) {
        for (size_t behind = 0; behind < 9; behind++) {
            uint8_t plain[128];
            for (size_t index = 0; index < sizeof plain; index++) {
                plain[index] = (uint8_t)(index * 7 + bytes);
            }
            size_t before = 8;
            uint8_t *data = guard_page_put(&guard, plain, before + bytes + behind);
            frame_unmask(data + before, bytes, mask);
            assert_memory_equal(data, plain, before);
            for (size_t index = 0; index < bytes; index++) {
                assert_int_equal(data[before + index], plain[before + index] ^ mask[index % 4]);
            }
            assert_memory_equal(data + before + bytes, plain + before + bytes, behind);
        }
    }
}

static void test_unmask_in_pieces(void **state)
{
    (void)state;
    for (size_t first = 0; first <= 40; first++) {
        uint8_t whole[40];
        uint8_t pieces[40];
        memset(whole, 0x55, sizeof whole);
        memset(pieces, 0x55, sizeof pieces);
        uint8_t mask[4] = {1, 2, 3, 4};
        frame_unmask(whole, sizeof whole, mask);
        frame_unmask(pieces, first, mask);
        frame_turn_mask(mask, first);
        frame_unmask(pieces + first, sizeof pieces - first, mask);
        assert_memory_equal(whole, pieces, sizeof whole);
    }
}

static void test_close_codes(void **state)
{
    (void)state;
    size_t valid_count = 0;
    for (uint32_t code = 0; code <= UINT16_MAX; code++) {
        valid_count += frame_close_code_valid((uint16_t)code) ? 1 : 0;
    }
    assert_int_equal(valid_count, 4 + 8 + 2000);
    static const uint16_t valid[] = {1000, 1003, 1007, 1011, 1012, 1014, 3000, 4999};
    static const uint16_t invalid[] = {0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535};
    for (size_t index = 0; index < sizeof valid / sizeof valid[0]; index++) {
        assert_true(frame_close_code_valid(valid[index]));
    }
    for (size_t index = 0; index < sizeof invalid / sizeof invalid[0]; index++) {
        assert_false(frame_close_code_valid(invalid[index]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples_of_rfc_6455),
        cmocka_unit_test(test_header_length_is_known_from_two_bytes),
        cmocka_unit_test(test_bits_and_opcodes),
        cmocka_unit_test(test_lengths_not_in_their_shortest_form),
        cmocka_unit_test(test_headers_written_can_be_read),
        cmocka_unit_test(test_unmask_touches_its_bytes_only),
        cmocka_unit_test(test_unmask_in_pieces),
        cmocka_unit_test(test_close_codes),
    };
    return cmocka_run_group_tests(tests, open_guard, close_guard);
}
