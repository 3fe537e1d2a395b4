/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "crc32c.h"
#include "little_endian.h"
#include "spool_format.h"

/* The bytes, without files: a segment of a kilobyte, damaged in every way there is. */
enum { SEGMENT_BYTES = 1536, PAYLOAD_MAX = 300, RECORDS_MAX = 64 };

static const uint64_t SALT = 0x8877665544332211;

struct segment {
    uint8_t bytes[SEGMENT_BYTES];
    size_t used_bytes;
    uint64_t first_sequence;
    uint64_t salt;
    size_t count;
    struct {
        size_t offset;
        size_t bytes;
        uint64_t sequence;
        bool is_mark;
    } records[RECORDS_MAX];
};

static uint8_t letter(uint64_t sequence, size_t at)
{
    return (uint8_t)('A' + (sequence * 5 + at) % 57);
}

static void add_message(struct segment *segment, uint64_t sequence, size_t payload_bytes)
{
    uint8_t *record = segment->bytes + segment->used_bytes;
    for (size_t at = 0; at < payload_bytes; at++) {
        record[SPOOL_RECORD_HEADER_BYTES + at] = letter(sequence, at);
    }
    size_t bytes = spool_record_write(record, sequence, payload_bytes);
    spool_record_bind(record, segment->salt);
    assert_int_equal(bytes, SPOOL_RECORD_BYTES(payload_bytes));
    segment->records[segment->count].offset = segment->used_bytes;
    segment->records[segment->count].bytes = bytes;
    segment->records[segment->count++].sequence = sequence;
    segment->used_bytes += bytes;
}

static void add_mark(struct segment *segment, uint64_t released)
{
    spool_mark_write(segment->bytes + segment->used_bytes, segment->salt, released);
    segment->records[segment->count].offset = segment->used_bytes;
    segment->records[segment->count].bytes = SPOOL_RECORD_HEADER_BYTES;
    segment->records[segment->count].is_mark = true;
    segment->records[segment->count++].sequence = released;
    segment->used_bytes += SPOOL_RECORD_HEADER_BYTES;
}

static struct segment begin_with(uint64_t first_sequence, uint64_t salt)
{
    struct segment segment = {.used_bytes = SPOOL_SEGMENT_HEADER_BYTES, .first_sequence = first_sequence, .salt = salt};
    const struct spool_header header = {.version = SPOOL_VERSION,
                                        .segment_bytes = SEGMENT_BYTES,
                                        .number = 3,
                                        .first_sequence = first_sequence,
                                        .released = first_sequence - 1,
                                        .salt = salt};
    spool_header_write(segment.bytes, &header);
    return segment;
}

static struct segment begin(uint64_t first_sequence)
{
    return begin_with(first_sequence, SALT);
}

/* Ten messages, of all lengths around a multiple of eight, and two marks. */
static struct segment make(uint64_t first_sequence)
{
    struct segment segment = begin(first_sequence);
    for (uint64_t i = 0; i < 10; i++) {
        add_message(&segment, first_sequence + i, 1 + i * 7 % 23);
        if (i == 3 || i == 7) {
            add_mark(&segment, first_sequence + i - 1);
        }
    }
    return segment;
}

struct found {
    size_t message_count;
    size_t mark_count;
    size_t hole_count;
    uint64_t sequences[RECORDS_MAX];
    uint64_t mark;
    size_t too_long_count;
    struct spool_scan scan;
};

/* Walks through the segment, which is brought in pieces of at most piece_bytes; every message that is found is judged
 * byte by byte. */
static struct found walk(const struct segment *segment, size_t piece_bytes, uint64_t sequence_end)
{
    struct found found = {0};
    struct spool_record record;
    uint32_t offset = SPOOL_SEGMENT_HEADER_BYTES;
    uint8_t *piece = NULL; /* of exactly its bytes, so that a read beyond it is seen */
    size_t bytes = 0;
    const struct spool_header header = {
        .first_sequence = segment->first_sequence, .released = segment->first_sequence - 1, .salt = segment->salt};
    spool_scan_begin(&found.scan, SEGMENT_BYTES, PAYLOAD_MAX, &header, sequence_end);
    for (;;) {
        switch (spool_scan_next(&found.scan, offset, span_of(piece, bytes), &record)) {
        case SPOOL_FOUND_MESSAGE:
            for (size_t at = 0; at < record.payload.bytes; at++) {
                assert_int_equal(record.payload.data[at], letter(record.sequence, at));
            }
            found.hole_count += record.is_behind_hole;
            found.sequences[found.message_count++] = record.sequence;
            break;
        case SPOOL_FOUND_MARK:
            found.hole_count += record.is_behind_hole;
            found.mark = record.sequence;
            found.mark_count++;
            break;
        case SPOOL_FOUND_TOO_LONG:
            found.too_long_count++;
            break;
        case SPOOL_FOUND_MORE: {
            size_t left = SEGMENT_BYTES - found.scan.offset;
            assert_true(piece == NULL || found.scan.offset > offset || bytes == 0); /* it gets on */
            offset = found.scan.offset;
            bytes = left < piece_bytes ? left : piece_bytes;
            free(piece);
            piece = malloc(bytes);
            memcpy(piece, segment->bytes + offset, bytes);
            break;
        }
        case SPOOL_FOUND_END:
            free(piece);
            return found;
        }
    }
}

static struct found walk_whole(const struct segment *segment)
{
    return walk(segment, SEGMENT_BYTES, UINT64_MAX);
}

static void all_is_found(void **state)
{
    (void)state;
    const struct segment segment = make(100);
    for (size_t piece = SPOOL_RECORD_BYTES(PAYLOAD_MAX); piece <= SEGMENT_BYTES; piece += 1) {
        struct found found = walk(&segment, piece, UINT64_MAX);
        assert_int_equal(found.message_count, 10);
        assert_int_equal(found.mark_count, 2);
        assert_int_equal(found.hole_count, 0);
        assert_int_equal(found.mark, 106);
        assert_int_equal(found.scan.tail_offset, segment.used_bytes);
        assert_true(found.scan.is_tail_clean);
        for (uint64_t i = 0; i < 10; i++) {
            assert_int_equal(found.sequences[i], 100 + i);
        }
    }
}

static void the_bytes_are_as_the_document_says(void **state)
{
    (void)state;
    static const uint8_t head[] = {'P',  'O',  'S', 'T', 'E',  'R',  'N',  0xFF, 1,    0,    0,    0,
                                   0x00, 0x06, 0,   0,   3,    0,    0,    0,    0,    0,    0,    0,
                                   7,    0,    0,   0,   0,    0,    0,    0,    6,    0,    0,    0,
                                   0,    0,    0,   0,   0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88};
    static const uint8_t message[] = {0xFF, 'm', 's', 'g', 3,    0,    0,    0,    7,    0,    0,    0,
                                      0,    0,   0,   0,   0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88};
    static const uint8_t mark[] = {0xFF, 'r', 'e',  'l',  0,    0,    0,    0,    9,    0,    0, 0, 0, 0,
                                   0,    0,   0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 0, 0, 0};
    struct segment segment = begin(7);
    add_message(&segment, 7, 3);
    add_mark(&segment, 9);
    assert_memory_equal(segment.bytes, head, sizeof head);
    assert_true(spool_is_zero(segment.bytes + sizeof head, 12));
    assert_int_equal(load_u32(segment.bytes + 60), crc32c(span_of(segment.bytes, 60)));
    const uint8_t *record = segment.bytes + 64;
    assert_memory_equal(record, message, sizeof message);
    assert_int_equal(load_u32(record + 24), crc32c(span_of(record + 32, 3)));
    assert_int_equal(load_u32(record + 28), crc32c(span_of(record, 28)));
    assert_true(spool_is_zero(record + 35, 5));
    assert_memory_equal(record + 40, mark, sizeof mark);
    assert_int_equal(load_u32(record + 68), crc32c(span_of(record + 40, 28)));
    assert_int_equal(load_u64(record + 8), 7);
    assert_int_equal(spool_record_payload(record).bytes, 3);
}

/* Each bit that is flipped costs at most the record it stands in, and that shows: as a hole, or as an end that is not
 * clean. */
static void every_flipped_bit(void **state)
{
    (void)state;
    const struct segment whole = make(100);
    for (size_t record = 0; record < whole.count; record++) {
        for (size_t bit = 0; bit < whole.records[record].bytes * 8; bit++) {
            struct segment flipped = whole;
            flipped.bytes[whole.records[record].offset + bit / 8] ^= (uint8_t)(1U << bit % 8);
            struct found found = walk_whole(&flipped);
            size_t lost = 12 - found.message_count - found.mark_count;
            assert_in_range(lost, 0, 1);
            bool is_padding =
                bit / 8 >= SPOOL_RECORD_HEADER_BYTES && !whole.records[record].is_mark &&
                bit / 8 >= SPOOL_RECORD_HEADER_BYTES + 1 + (whole.records[record].sequence - 100) * 7 % 23;
            assert_int_equal(lost, is_padding ? 0 : 1);
            bool is_last = record == whole.count - 1;
            assert_int_equal(found.hole_count, lost == 1 && !is_last);
            assert_int_equal(found.scan.is_tail_clean, lost == 0 || !is_last);
            for (size_t i = 0, expected = 100; i < found.message_count; i++, expected++) {
                if (lost == 1 && !whole.records[record].is_mark && expected == whole.records[record].sequence) {
                    expected++;
                }
                assert_int_equal(found.sequences[i], expected);
            }
        }
    }
}

static void every_flipped_bit_of_the_header(void **state)
{
    (void)state;
    const struct segment whole = make(100);
    struct spool_header header;
    assert_int_equal(spool_header_read(whole.bytes, SEGMENT_BYTES, &header), SPOOL_HEADER_VALID);
    assert_true(header.number == 3 && header.first_sequence == 100 && header.released == 99);
    for (size_t bit = 0; bit < SPOOL_SEGMENT_HEADER_BYTES * 8; bit++) {
        struct segment flipped = whole;
        flipped.bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
        assert_int_equal(spool_header_read(flipped.bytes, SEGMENT_BYTES, &header), SPOOL_HEADER_DAMAGED);
    }
}

static void other_headers(void **state)
{
    (void)state;
    uint8_t bytes[SPOOL_SEGMENT_HEADER_BYTES] = {0};
    struct spool_header header;
    assert_int_equal(spool_header_read(bytes, SEGMENT_BYTES, &header), SPOOL_HEADER_UNUSED);
    static const struct {
        struct spool_header header;
        enum spool_header_kind kind;
    } cases[] = {{{1, SEGMENT_BYTES, 1, 1, 0, 1}, SPOOL_HEADER_VALID},
                 {{2, SEGMENT_BYTES, 1, 1, 0, 1}, SPOOL_HEADER_OTHER_VERSION},
                 {{1, SEGMENT_BYTES * 2, 1, 1, 0, 1}, SPOOL_HEADER_OTHER_VERSION},
                 {{1, SEGMENT_BYTES, 0, 1, 0, 1}, SPOOL_HEADER_DAMAGED},
                 {{1, SEGMENT_BYTES, 1, 0, 0, 1}, SPOOL_HEADER_DAMAGED},
                 {{1, SEGMENT_BYTES, 1, 5, 5, 1}, SPOOL_HEADER_DAMAGED},
                 {{1, SEGMENT_BYTES, 1, 6, 5, 0}, SPOOL_HEADER_DAMAGED},
                 {{1, SEGMENT_BYTES, 1, 6, 5, 1}, SPOOL_HEADER_VALID}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        spool_header_write(bytes, &cases[i].header);
        assert_int_equal(spool_header_read(bytes, SEGMENT_BYTES, &header), cases[i].kind);
    }
}

/* What stood before the cut is found; what stands behind it, be it zeros, ones, or an older life, is not. */
static void every_cut(void **state)
{
    (void)state;
    const struct segment whole = make(100);
    struct segment older = begin(20);
    while (older.used_bytes + 64 < SEGMENT_BYTES) {
        add_message(&older, 20 + older.count, 9 + older.count % 9);
        if (older.count == 11) {
            add_mark(&older, 25);
        }
    }
    for (int rest = 0; rest < 3; rest++) {
        for (size_t cut = SPOOL_SEGMENT_HEADER_BYTES; cut <= whole.used_bytes; cut++) {
            struct segment torn = whole;
            memset(torn.bytes + cut, rest == 1 ? 0xFF : 0, SEGMENT_BYTES - cut);
            if (rest == 2) {
                memcpy(torn.bytes + cut, older.bytes + cut, SEGMENT_BYTES - cut);
            }
            struct found found = walk_whole(&torn);
            size_t expected = 0;
            size_t end = SPOOL_SEGMENT_HEADER_BYTES;
            while (expected < whole.count && end + whole.records[expected].bytes <= cut) {
                end += whole.records[expected++].bytes;
            }
            /* Of a record only the padding may be cut. */
            bool is_padding = expected < whole.count && !whole.records[expected].is_mark &&
                              cut >= end + SPOOL_RECORD_HEADER_BYTES + spool_record_payload(whole.bytes + end).bytes;
            size_t count = found.message_count + found.mark_count;
            assert_int_equal(count, expected + is_padding);
            assert_int_equal(found.hole_count, 0);
            if (rest == 0 && cut == end) {
                assert_true(found.scan.is_tail_clean);
            }
            if (!is_padding && (rest == 1 || cut > end)) {
                assert_false(found.scan.is_tail_clean);
            }
        }
    }
}

/* What a power cut left of a use whose header never reached the disk has sequences that fit: it was written last. */
static void an_earlier_use_is_no_part_of_this_one(void **state)
{
    (void)state;
    struct segment earlier = begin_with(100, SALT + 1);
    while (earlier.used_bytes + 64 < SEGMENT_BYTES) {
        add_message(&earlier, 100 + earlier.count, 9 + earlier.count % 9);
        if (earlier.count == 20) {
            add_mark(&earlier, 140);
        }
    }
    const struct segment whole = make(100);
    for (size_t cut = SPOOL_SEGMENT_HEADER_BYTES; cut <= whole.used_bytes; cut += SPOOL_RECORD_ALIGN_BYTES) {
        struct segment torn = whole;
        memcpy(torn.bytes + cut, earlier.bytes + cut, SEGMENT_BYTES - cut);
        struct found found = walk_whole(&torn);
        assert_true(found.message_count <= 10 && found.mark < 140);
        for (size_t i = 0; i < found.message_count; i++) {
            assert_int_equal(found.sequences[i], 100 + i);
        }
        assert_int_equal(found.hole_count, 0);
        torn.salt = 0; /* the segment's header is damaged: its first record says which use it is */
        size_t count = found.message_count;
        found = walk_whole(&torn);
        assert_int_equal(found.message_count,
                         cut < whole.records[0].bytes + SPOOL_SEGMENT_HEADER_BYTES ? found.message_count : count);
    }
    struct segment nobodys = begin_with(100, 0);
    add_message(&nobodys, 100, 8);
    assert_int_equal(walk_whole(&nobodys).message_count, 0);
}

/* A hole of any place and length: zeros, or noise. */
static void every_hole(void **state)
{
    (void)state;
    const struct segment whole = make(100);
    uint32_t noise = 12345;
    for (size_t from = SPOOL_SEGMENT_HEADER_BYTES; from < whole.used_bytes; from += 3) {
        for (size_t bytes = 1; from + bytes <= whole.used_bytes; bytes += 5) {
            struct segment holed = whole;
            for (size_t at = from; at < from + bytes; at++) {
                noise = noise * 1664525 + 1013904223;
                holed.bytes[at] = bytes % 2 == 0 ? 0 : (uint8_t)(noise >> 24);
            }
            struct found found = walk_whole(&holed);
            size_t touched = 0;
            for (size_t i = 0; i < whole.count; i++) {
                size_t end = whole.records[i].offset + whole.records[i].bytes;
                touched += whole.records[i].offset < from + bytes && from < end;
            }
            assert_true(found.message_count + found.mark_count >= whole.count - touched);
            assert_true(found.hole_count <= 1);
        }
    }
}

static void what_the_next_segment_has_is_left_to_it(void **state)
{
    (void)state;
    const struct segment segment = make(100);
    struct found found = walk(&segment, SEGMENT_BYTES, 106);
    assert_int_equal(found.message_count, 6);
    assert_int_equal(found.sequences[5], 105);
    assert_int_equal(walk(&segment, SEGMENT_BYTES, 100).message_count, 0);
    assert_int_equal(walk(&segment, SEGMENT_BYTES, 110).message_count, 10);
}

static void sequences_only_rise(void **state)
{
    (void)state;
    struct segment segment = begin(100);
    static const uint64_t sequences[] = {99, 100, 100, 105, 104, 106};
    static const uint64_t expected[] = {100, 105, 106};
    for (size_t i = 0; i < sizeof sequences / sizeof sequences[0]; i++) {
        add_message(&segment, sequences[i], 8);
    }
    struct found found = walk_whole(&segment);
    assert_int_equal(found.message_count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(found.sequences[i], expected[i]);
    }
    struct segment marks = begin(100);
    add_mark(&marks, 99); /* the header says that already */
    add_mark(&marks, 120);
    add_mark(&marks, 120);
    add_mark(&marks, 119);
    add_mark(&marks, 121);
    found = walk_whole(&marks);
    assert_int_equal(found.mark_count, 2);
    assert_int_equal(found.mark, 121);
}

static void lengths_are_believed_only_within_bounds(void **state)
{
    (void)state;
    struct segment segment = begin(100);
    add_message(&segment, 100, PAYLOAD_MAX);
    add_message(&segment, 101, PAYLOAD_MAX + 1); /* more than the caller has memory for */
    add_message(&segment, 102, 10);
    struct found found = walk_whole(&segment);
    assert_int_equal(found.message_count, 2);
    assert_int_equal(found.too_long_count, 1);
    static const uint32_t lengths[] = {0, SEGMENT_BYTES - 64 - 32 + 1, SPOOL_PAYLOAD_BYTES_MAX + 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        struct segment lying = begin(100);
        add_message(&lying, 100, 8);
        uint8_t *record = lying.bytes + 64;
        store_u32(record + 4, lengths[i]);
        store_u32(record + 24, crc32c(span_of(NULL, 0)));
        spool_record_bind(record, SALT);
        found = walk_whole(&lying);
        assert_int_equal(found.message_count + found.too_long_count, 0);
    }
    struct segment mark = begin(100);
    add_mark(&mark, 120);
    store_u32(mark.bytes + 68, 8);
    spool_record_bind(mark.bytes + 64, SALT);
    assert_int_equal(walk_whole(&mark).mark_count, 0);
}

static void a_full_segment_needs_no_end(void **state)
{
    (void)state;
    for (size_t left = 0; left <= 40; left += 8) {
        struct segment segment = begin(100);
        size_t rest = SEGMENT_BYTES - SPOOL_SEGMENT_HEADER_BYTES - left;
        for (uint64_t sequence = 100; rest > 0; sequence++) {
            size_t bytes = rest >= 2 * PAYLOAD_MAX ? 200 : rest > PAYLOAD_MAX ? 104 : rest;
            add_message(&segment, sequence, bytes - SPOOL_RECORD_HEADER_BYTES);
            rest -= bytes;
        }
        memset(segment.bytes + segment.used_bytes, 0xEE, left);
        struct found found = walk_whole(&segment);
        assert_int_equal(found.message_count, segment.count);
        assert_int_equal(found.scan.tail_offset, SEGMENT_BYTES - left);
        assert_int_equal(found.scan.is_tail_clean, left < SPOOL_END_BYTES);
    }
}

/* Nothing that random bytes hold is a record, and nothing of it is read too far. */
static void noise_is_no_record(void **state)
{
    (void)state;
    uint32_t noise = 1;
    for (int round = 0; round < 2000; round++) {
        struct segment segment = begin(1);
        for (size_t at = SPOOL_SEGMENT_HEADER_BYTES; at < SEGMENT_BYTES; at++) {
            noise = noise * 1664525 + 1013904223;
            segment.bytes[at] = (uint8_t)(noise >> 24);
            if (at % 8 < 4 && round % 2 == 0) {
                segment.bytes[at] = "\xFFmsg"[at % 8];
            }
        }
        struct found found = walk(&segment, SPOOL_RECORD_BYTES(PAYLOAD_MAX), UINT64_MAX);
        assert_int_equal(found.message_count + found.mark_count, 0);
        assert_false(found.scan.is_tail_clean);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_is_found),
        cmocka_unit_test(the_bytes_are_as_the_document_says),
        cmocka_unit_test(every_flipped_bit),
        cmocka_unit_test(every_flipped_bit_of_the_header),
        cmocka_unit_test(other_headers),
        cmocka_unit_test(every_cut),
        cmocka_unit_test(an_earlier_use_is_no_part_of_this_one),
        cmocka_unit_test(every_hole),
        cmocka_unit_test(what_the_next_segment_has_is_left_to_it),
        cmocka_unit_test(sequences_only_rise),
        cmocka_unit_test(lengths_are_believed_only_within_bounds),
        cmocka_unit_test(a_full_segment_needs_no_end),
        cmocka_unit_test(noise_is_no_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
