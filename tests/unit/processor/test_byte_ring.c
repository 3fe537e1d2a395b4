/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "arena.h"
#include "byte_ring.h"

static _Alignas(ARENA_ALIGN_BYTES) uint8_t memory[1024];

static struct byte_ring ring_of(size_t capacity_bytes)
{
    struct arena arena;
    struct byte_ring ring;
    memset(memory, 0, sizeof memory);
    arena_begin(&arena, memory, sizeof memory);
    byte_ring_init(&ring, &arena, "test", capacity_bytes);
    return ring;
}

static void a_piece_as_long_as_the_ring_fits_when_it_is_empty(void **state)
{
    (void)state;
    struct byte_ring ring = ring_of(64);
    assert_non_null(byte_ring_take(&ring, 24));
    const uint64_t mark = ring.head;
    assert_null(byte_ring_take(&ring, 64));
    byte_ring_release(&ring, mark);
    assert_ptr_equal(byte_ring_take(&ring, 64), ring.data);
    assert_null(byte_ring_take(&ring, 1));
    assert_null(byte_ring_take(&ring, 65));
}

static void pieces_lie_in_one_stretch_and_aligned(void **state)
{
    (void)state;
    struct byte_ring ring = ring_of(64);
    uint8_t *const first = byte_ring_take(&ring, 17);
    const uint64_t first_mark = ring.head;
    uint8_t *const second = byte_ring_take(&ring, 24);
    assert_ptr_equal(second, first + 24);
    byte_ring_release(&ring, first_mark);
    /* 16 bytes are left at the end and 24 at the beginning: 20 go to the beginning. */
    assert_ptr_equal(byte_ring_take(&ring, 20), ring.data);
    assert_int_equal(byte_ring_used_bytes(&ring), 64);
    assert_null(byte_ring_take(&ring, 1));
}

static void what_was_taken_last_can_be_taken_back(void **state)
{
    (void)state;
    struct byte_ring ring = ring_of(64);
    assert_non_null(byte_ring_take(&ring, 16));
    const uint64_t kept = ring.head;
    uint8_t *const second = byte_ring_take(&ring, 40);
    byte_ring_rewind(&ring, kept);
    assert_ptr_equal(byte_ring_take(&ring, 40), second);
    byte_ring_rewind(&ring, ring.tail);
    assert_int_equal(byte_ring_used_bytes(&ring), 0);
    assert_non_null(byte_ring_take(&ring, 64));
}

/* Marsaglia's xorshift: the same numbers on every machine. */
static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* Against the definition: pieces that are out never overlap, keep their bytes, and a piece is refused only when no
 * stretch between the ring's ends has room for it. */
static void agrees_with_a_model(void **state)
{
    (void)state;
    enum { CAPACITY = 256, OUT_MAX = 64, ROUNDS = 200000 };
    struct byte_ring ring = ring_of(CAPACITY);
    struct {
        uint8_t *data;
        size_t bytes;
        uint64_t mark;
        uint8_t fill;
    } out[OUT_MAX];
    size_t out_count = 0;
    size_t taken_count = 0;
    uint32_t random = 7;
    for (int round = 0; round < ROUNDS; round++) {
        const size_t bytes = 1 + next_random(&random) % 40;
        if (next_random(&random) % 2 == 0 && out_count < OUT_MAX) {
            uint8_t *const data = byte_ring_take(&ring, bytes);
            if (data == NULL) {
                assert_true(byte_ring_used_bytes(&ring) + bytes + 40 > CAPACITY);
                continue;
            }
            assert_true(data >= ring.data && data + bytes <= ring.data + CAPACITY);
            memset(data, round & 0xff, bytes);
            out[out_count].data = data;
            out[out_count].bytes = bytes;
            out[out_count].mark = ring.head;
            out[out_count++].fill = (uint8_t)(round & 0xff);
            taken_count++;
        } else if (out_count > 0) {
            for (size_t i = 0; i < out[0].bytes; i++) {
                assert_int_equal(out[0].data[i], out[0].fill);
            }
            byte_ring_release(&ring, out[0].mark);
            memmove(out, out + 1, --out_count * sizeof out[0]);
        }
    }
    assert_true(taken_count > ROUNDS / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_piece_as_long_as_the_ring_fits_when_it_is_empty),
        cmocka_unit_test(pieces_lie_in_one_stretch_and_aligned),
        cmocka_unit_test(what_was_taken_last_can_be_taken_back),
        cmocka_unit_test(agrees_with_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
