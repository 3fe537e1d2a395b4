/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "little_endian.h"
#include "spool_format.h"
#include "spool_rig.h"

/* A test for each row of the table of damages in doc/spool-format.md. Segments hold about twenty messages. */
enum { SEGMENT_BYTES = 2048, SEGMENTS = 8, RECORDS_MAX = 64, HEADER = SPOOL_SEGMENT_HEADER_BYTES };

static int open_rig(void **state)
{
    static struct spool_rig rig;
    spool_rig_open(&rig, SEGMENT_BYTES, SEGMENTS, 1);
    *state = &rig;
    return spool_rig_start(&rig) ? 0 : -1;
}

static int close_rig(void **state)
{
    spool_rig_close(*state);
    return 0;
}

/* `count` messages, synced, and the spool stopped. */
static void fill(struct spool_rig *rig, size_t count)
{
    spool_rig_append_many(rig, count);
    spool_rig_settle(rig);
    assert_int_equal(rig->synced_count, rig->appended_count);
    spool_rig_stop(rig);
}

struct record {
    uint32_t offset;
    uint32_t bytes;
    uint64_t sequence;
};

/* The messages' records in a segment; returns how many. */
static size_t find_records(const uint8_t *bytes, struct record records[RECORDS_MAX])
{
    struct spool_scan scan;
    struct spool_record found;
    size_t count = 0;
    struct spool_header header = {.first_sequence = 1};
    (void)spool_header_read(bytes, SEGMENT_BYTES, &header);
    spool_scan_begin(&scan, SEGMENT_BYTES, RIG_PAYLOAD_MAX, &header, UINT64_MAX);
    for (;;) {
        switch (spool_scan_next(&scan, 0, span_of(bytes, SEGMENT_BYTES), &found)) {
        case SPOOL_FOUND_MESSAGE:
            assert_true(count < RECORDS_MAX);
            records[count++] =
                (struct record){found.offset, (uint32_t)SPOOL_RECORD_BYTES(found.payload_bytes), found.sequence};
            break;
        case SPOOL_FOUND_MARK:
            break;
        case SPOOL_FOUND_END:
            return count;
        case SPOOL_FOUND_TOO_LONG:
        case SPOOL_FOUND_MORE:
            fail();
        }
    }
}

/* Reads all there is: right messages, in order, none twice. Returns how many; `missing` gets the first one that is not
 * there, SIZE_MAX if all are. */
static size_t read_all(struct spool_rig *rig, uint64_t *missing)
{
    uint64_t message;
    uint64_t sequence;
    uint64_t expected = 0;
    size_t count = 0;
    *missing = UINT64_MAX;
    while (spool_rig_read(rig, &message, &sequence)) {
        assert_true(message >= expected);
        if (message > expected && *missing == UINT64_MAX) {
            *missing = expected;
        }
        expected = message + 1;
        count++;
    }
    if (expected < rig->appended_count && *missing == UINT64_MAX) {
        *missing = expected;
    }
    return count;
}

static void assert_lost(struct spool_rig *rig, uint64_t first, uint64_t last)
{
    char text[96];
    (void)snprintf(text, sizeof text, "event=spool_lost first=%llu last=%llu", (unsigned long long)first,
                   (unsigned long long)last);
    assert_int_equal(spool_rig_log_count(rig, text), 1);
    assert_int_equal(spool_counters(rig->spool)->lost_count, last - first + 1);
}

/* The spool takes and gives back messages as ever. */
static void assert_well(struct spool_rig *rig)
{
    uint64_t message;
    uint64_t sequence;
    uint64_t first = rig->appended_count;
    while (spool_rig_read(rig, &message, &sequence)) {
        spool_release(rig->spool, sequence);
    }
    spool_rig_append_many(rig, 30);
    spool_rig_settle(rig);
    spool_rig_kill(rig);
    assert_true(spool_rig_start(rig));
    while (spool_rig_read(rig, &message, &sequence)) {
        if (message >= first) { /* what was released before may come again */
            assert_int_equal(message, first++);
        }
    }
    assert_int_equal(first, rig->appended_count);
}

static void empty_folder(void **state)
{
    struct spool_rig *rig = *state;
    char path[160];
    for (uint32_t index = 0; index < SEGMENTS; index++) {
        spool_rig_path(rig, index, path);
        assert_int_equal(access(path, F_OK), 0);
    }
    assert_int_equal(spool_rig_log_count(rig, "event=spool_opened"), 1);
    assert_int_equal(spool_rig_log_count(rig, "messages=0"), 1);
    assert_int_equal(spool_rig_log_count(rig, "level=warn"), 0);
    assert_well(rig);
}

/* The last batch cut at each of its bytes, before zeros and before noise. */
static void torn_tail(void **state)
{
    struct spool_rig *rig = *state;
    uint8_t whole[SEGMENT_BYTES];
    struct record records[RECORDS_MAX];
    fill(rig, 8);
    (void)spool_rig_load(rig, 0, whole, sizeof whole);
    size_t count = find_records(whole, records);
    assert_int_equal(count, 8);
    size_t end = records[7].offset + records[7].bytes;
    for (size_t cut = HEADER; cut < end; cut++) {
        uint8_t torn[SEGMENT_BYTES];
        uint64_t missing;
        memcpy(torn, whole, sizeof torn);
        memset(torn + cut, cut % 2 == 0 ? 0 : 0xB7, SEGMENT_BYTES - cut);
        spool_rig_save(rig, 0, torn, sizeof torn);
        assert_true(spool_rig_start(rig));
        size_t tells = spool_rig_log_count(rig, "spool_tail_cut");
        size_t found = read_all(rig, &missing);
        assert_true(found == 8 || cut < records[found].offset + records[found].bytes);
        assert_true(found == 0 || cut >= records[found - 1].offset + records[found - 1].bytes - 7); /* its padding */
        assert_int_equal(spool_counters(rig->spool)->lost_count, 0);
        spool_rig_kill(rig);
        assert_true(spool_rig_start(rig));
        bool is_clean = found == 8 || (cut % 2 == 0 && cut <= records[found].offset);
        assert_true(is_clean || spool_rig_log_count(rig, "spool_tail_cut") > tells);
        spool_rig_kill(rig);
        spool_rig_forget_log(rig);
    }
    assert_true(spool_rig_start(rig));
    assert_well(rig);
}

/* New messages go over what was cut. */
static void torn_tail_is_written_over(void **state)
{
    struct spool_rig *rig = *state;
    uint8_t bytes[SEGMENT_BYTES];
    struct record records[RECORDS_MAX];
    for (int round = 0; round < 5; round++) {
        uint64_t missing;
        uint64_t first = rig->appended_count;
        fill(rig, 3);
        (void)spool_rig_load(rig, 0, bytes, sizeof bytes);
        size_t count = find_records(bytes, records);
        bytes[records[count - 1].offset + 30] ^= 1;
        spool_rig_save(rig, 0, bytes, sizeof bytes);
        assert_true(spool_rig_start(rig));
        assert_int_equal(spool_counters(rig->spool)->segment_free_count, SEGMENTS - 1);
        assert_int_equal(spool_own_sequence(rig->spool), (uint64_t)round * 2 + 3);
        (void)read_all(rig, &missing);
        assert_int_equal(rig->appended_count, first + 3);
        spool_rig_kill(rig);
        assert_true(spool_rig_start(rig));
    }
    assert_int_equal(spool_rig_log_count(rig, "spool_damaged"), 0);
    assert_int_equal(spool_rig_log_count(rig, "spool_lost"), 0);
}

static void zeroed_tail(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    fill(rig, 8);
    assert_true(spool_rig_start(rig));
    assert_int_equal(read_all(rig, &missing), 8);
    assert_int_equal(spool_rig_log_count(rig, "level=warn"), 0);
    assert_well(rig);
}

/* Every segment is reused with fewer records than before, so that an older life stands behind each tail. */
static void old_records_behind_the_tail(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    for (int round = 0; round < 40; round++) {
        uint64_t first = rig->appended_count;
        spool_rig_append_many(rig, 17);
        spool_rig_settle(rig);
        spool_rig_expect(rig, first, first + 16);
    }
    uint64_t left = rig->appended_count;
    fill(rig, 23);
    assert_true(spool_rig_start(rig));
    assert_int_equal(rig->found_count, 23);
    assert_int_equal(read_all(rig, &missing), 23);
    assert_true(left > 600);
    assert_int_equal(spool_rig_log_count(rig, "level=warn"), 0);
    assert_int_equal(spool_rig_log_count(rig, "level=error"), 0);
}

/* Power goes while segments are begun: of their writes the records stay, the headers do not. Nobody was told of these
 * messages, and they do not come back behind those that get their sequences. */
static void records_without_their_header(void **state)
{
    struct spool_rig *rig = *state;
    uint8_t before[SEGMENTS][SEGMENT_BYTES];
    uint8_t after[SEGMENT_BYTES];
    for (int round = 0; round < 40; round++) {
        uint64_t first = rig->appended_count;
        spool_rig_append_many(rig, 17);
        spool_rig_settle(rig);
        spool_rig_expect(rig, first, first + 16);
    }
    for (size_t more = 1; more < 60; more++) {
        uint64_t message;
        uint64_t sequence;
        uint64_t first = rig->appended_count;
        for (uint32_t index = 0; index < SEGMENTS; index++) {
            (void)spool_rig_load(rig, index, before[index], SEGMENT_BYTES);
        }
        spool_rig_append_many(rig, 30);
        spool_rig_settle(rig);
        spool_rig_kill(rig);
        for (uint32_t index = 0; index < SEGMENTS; index++) {
            (void)spool_rig_load(rig, index, after, SEGMENT_BYTES);
            memcpy(after, before[index], HEADER);
            spool_rig_save(rig, index, after, SEGMENT_BYTES);
        }
        assert_true(spool_rig_start(rig));
        uint64_t kept = spool_counters(rig->spool)->message_count;
        assert_true(kept < 30);
        uint64_t next = rig->appended_count;
        spool_rig_append_many(rig, more);
        spool_rig_settle(rig);
        spool_rig_kill(rig);
        assert_true(spool_rig_start(rig));
        for (uint64_t expected = first; expected < rig->appended_count; expected++) {
            expected = expected == first + kept ? next : expected;
            assert_true(spool_rig_read(rig, &message, &sequence));
            assert_int_equal(message, expected);
            spool_release(rig->spool, sequence);
        }
        assert_false(spool_rig_read(rig, &message, &sequence));
        spool_rig_settle(rig);
    }
    assert_int_equal(spool_rig_log_count(rig, "spool_lost"), 0);
    assert_int_equal(spool_rig_log_count(rig, "spool_damaged"), 0);
}

static void flip_and_start(struct spool_rig *rig, uint32_t segment, size_t bit)
{
    uint8_t bytes[SEGMENT_BYTES];
    (void)spool_rig_load(rig, segment, bytes, sizeof bytes);
    bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
    spool_rig_save(rig, segment, bytes, sizeof bytes);
    assert_true(spool_rig_start(rig));
}

static void flipped_bit_in_a_payload(void **state)
{
    struct spool_rig *rig = *state;
    uint8_t bytes[SEGMENT_BYTES];
    struct record records[RECORDS_MAX];
    uint64_t missing;
    fill(rig, 60);
    (void)spool_rig_load(rig, 1, bytes, sizeof bytes);
    assert_true(find_records(bytes, records) > 5);
    flip_and_start(rig, 1, (records[4].offset + SPOOL_RECORD_HEADER_BYTES + 9) * 8);
    assert_int_equal(spool_rig_log_count(rig, "event=spool_damaged segment=1 places=1 messages=1"), 1);
    assert_int_equal(read_all(rig, &missing), 59);
    assert_int_equal(missing, records[4].sequence - 1);
    assert_lost(rig, records[4].sequence, records[4].sequence);
    assert_well(rig);
}

static void flipped_bit_in_a_record_header_and_holes(void **state)
{
    struct spool_rig *rig = *state;
    uint8_t whole[SEGMENT_BYTES];
    struct record records[RECORDS_MAX];
    uint64_t missing;
    fill(rig, 60);
    (void)spool_rig_load(rig, 1, whole, sizeof whole);
    assert_true(find_records(whole, records) > 9);
    flip_and_start(rig, 1, records[4].offset * 8 + 70);
    assert_int_equal(read_all(rig, &missing), 59);
    assert_lost(rig, records[4].sequence, records[4].sequence);
    spool_rig_kill(rig);
    /* Three records and the ends of their neighbours. */
    uint8_t holed[SEGMENT_BYTES];
    memcpy(holed, whole, sizeof holed);
    memset(holed + records[3].offset + 40, 0, records[7].offset + 3 - records[3].offset - 40);
    spool_rig_save(rig, 1, holed, sizeof holed);
    assert_true(spool_rig_start(rig));
    assert_int_equal(spool_rig_log_count(rig, "event=spool_damaged segment=1 places=1 messages=5"), 1);
    assert_int_equal(read_all(rig, &missing), 55);
    assert_lost(rig, records[3].sequence, records[7].sequence);
    assert_well(rig);
}

/* Any bit of the whole spool: at most one message is gone, and not without a word. */
static void any_flipped_bit(void **state)
{
    struct spool_rig *rig = *state;
    uint8_t whole[3][SEGMENT_BYTES];
    struct record records[RECORDS_MAX];
    fill(rig, 40);
    size_t used[3];
    for (uint32_t segment = 0; segment < 3; segment++) {
        (void)spool_rig_load(rig, segment, whole[segment], SEGMENT_BYTES);
        size_t count = find_records(whole[segment], records);
        used[segment] = count == 0 ? 0 : records[count - 1].offset + records[count - 1].bytes;
    }
    assert_true(used[0] > 0 && used[1] > 0);
    for (uint32_t segment = 0; segment < 3; segment++) {
        for (size_t bit = 0; bit < used[segment] * 8; bit += 11) {
            uint64_t missing;
            flip_and_start(rig, segment, bit);
            size_t count = read_all(rig, &missing);
            size_t tells = spool_rig_log_count(rig, "spool_lost") + spool_rig_log_count(rig, "spool_tail_cut");
            assert_true(count >= 39);
            assert_true(count == 40 || tells > 0);
            assert_true(bit >= (size_t)HEADER * 8 || count == 40);
            spool_rig_kill(rig);
            spool_rig_save(rig, segment, whole[segment], SEGMENT_BYTES);
            spool_rig_forget_log(rig);
        }
    }
    assert_true(spool_rig_start(rig));
    assert_well(rig);
}

static void damaged_segment_headers(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    fill(rig, 70);
    for (uint32_t segment = 0; segment < 4; segment++) {
        uint8_t bytes[SEGMENT_BYTES];
        (void)spool_rig_load(rig, segment, bytes, sizeof bytes);
        memset(bytes + segment * 16, 0x3C, 16);
        spool_rig_save(rig, segment, bytes, sizeof bytes);
        assert_true(spool_rig_start(rig));
        char text[64];
        (void)snprintf(text, sizeof text, "event=spool_header_damaged segment=%u", segment);
        assert_true(spool_rig_log_count(rig, text) > 0);
        assert_int_equal(read_all(rig, &missing), 70);
        spool_rig_kill(rig);
    }
    assert_true(spool_rig_start(rig)); /* all four at once */
    assert_int_equal(read_all(rig, &missing), 70);
    assert_well(rig);
}

/* A page of zeros over a header looks like a segment that was never used; its other pages tell. */
static void a_zeroed_header_page(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    uint8_t bytes[SEGMENT_BYTES];
    fill(rig, 60);
    (void)spool_rig_load(rig, 1, bytes, sizeof bytes);
    memset(bytes, 0, 512);
    spool_rig_save(rig, 1, bytes, sizeof bytes);
    assert_true(spool_rig_start(rig));
    assert_int_equal(spool_rig_log_count(rig, "event=spool_header_damaged segment=1"), 1);
    size_t count = read_all(rig, &missing);
    assert_in_range(count, 50, 59);
    assert_lost(rig, missing + 1, missing + 60 - count);
    assert_well(rig);
}

static void missing_segment_of_the_middle(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    char path[160];
    fill(rig, 70);
    spool_rig_path(rig, 1, path);
    assert_int_equal(remove(path), 0);
    assert_true(spool_rig_start(rig));
    assert_int_equal(spool_rig_log_count(rig, "event=spool_segment_missing segment=1"), 1);
    assert_int_equal(access(path, F_OK), 0); /* made again */
    size_t count = read_all(rig, &missing);
    assert_in_range(count, 40, 60);
    assert_lost(rig, missing + 1, missing + 70 - count);
    assert_well(rig);
}

static void missing_segment_at_the_front(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    char path[160];
    fill(rig, 70);
    spool_rig_path(rig, 0, path);
    assert_int_equal(remove(path), 0);
    assert_true(spool_rig_start(rig));
    size_t count = read_all(rig, &missing);
    assert_int_equal(missing, 0);
    assert_lost(rig, 1, 70 - count);
    assert_well(rig);
}

/* The newest: which sequences it had nobody knows, but that a file is missing is said. */
static void missing_segment_at_the_end(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    char path[160];
    uint8_t bytes[SEGMENT_BYTES];
    struct record records[RECORDS_MAX];
    fill(rig, 70);
    uint32_t newest = 0;
    while (spool_rig_load(rig, newest + 1, bytes, sizeof bytes) > 0 && !spool_is_zero(bytes, HEADER)) {
        newest++;
    }
    (void)spool_rig_load(rig, newest, bytes, sizeof bytes);
    size_t held = find_records(bytes, records);
    spool_rig_path(rig, newest, path);
    assert_int_equal(remove(path), 0);
    assert_true(spool_rig_start(rig));
    assert_int_equal(spool_rig_log_count(rig, "event=spool_segment_missing"), 1);
    assert_int_equal(read_all(rig, &missing), 70 - held);
    assert_well(rig);
}

static void all_segments_missing(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    char path[160];
    fill(rig, 70);
    for (uint32_t index = 0; index < SEGMENTS; index++) {
        spool_rig_path(rig, index, path);
        assert_int_equal(remove(path), 0);
    }
    assert_true(spool_rig_start(rig));
    assert_int_equal(read_all(rig, &missing), 0);
    assert_well(rig);
}

static void a_copied_segment(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    uint8_t bytes[SEGMENT_BYTES];
    fill(rig, 60);
    for (uint32_t index = 0; index < 3; index++) {
        (void)spool_rig_load(rig, index, bytes, sizeof bytes);
        spool_rig_save(rig, SEGMENTS - 1 - index, bytes, sizeof bytes);
    }
    assert_true(spool_rig_start(rig));
    assert_int_equal(read_all(rig, &missing), 60);
    assert_int_equal(spool_rig_log_count(rig, "spool_lost"), 0);
    assert_well(rig);
}

static void short_segments(void **state)
{
    struct spool_rig *rig = *state;
    char path[160];
    uint8_t whole[SEGMENT_BYTES];
    struct record records[RECORDS_MAX];
    fill(rig, 60);
    spool_rig_path(rig, 1, path);
    (void)spool_rig_load(rig, 1, whole, sizeof whole);
    size_t held = find_records(whole, records);
    static const size_t lengths[] = {0, 1, 63, 64, 65, 88, 500, 1000, SEGMENT_BYTES - 1};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        uint64_t missing;
        size_t kept = 0;
        while (kept < held && records[kept].offset + records[kept].bytes <= lengths[i]) {
            kept++;
        }
        spool_rig_save(rig, 1, whole, lengths[i]);
        assert_true(spool_rig_start(rig));
        assert_int_equal(spool_rig_log_count(rig, "event=spool_short_segment segment=1"), i + 1);
        assert_in_range(read_all(rig, &missing), 60 - held + kept, 60 - held + kept + 1); /* its padding may be cut */
        assert_int_equal(spool_counters(rig->spool)->segment_count, SEGMENTS);
        spool_rig_kill(rig);
        uint8_t again[SEGMENT_BYTES + 1];
        assert_int_equal(spool_rig_load(rig, 1, again, sizeof again), SEGMENT_BYTES);
    }
    assert_true(spool_rig_start(rig));
    assert_well(rig);
}

/* Reads that fail once at start: those of the headers, and those of the segments. */
static void unreadable_parts_at_start(void **state)
{
    struct spool_rig *rig = *state;
    fill(rig, 60);
    for (uint64_t skip = 0; skip < 14; skip++) {
        uint64_t missing;
        faulty_fail(&rig->faulty, FAULTY_READ, skip, 1, "Input/output error");
        assert_true(spool_rig_start(rig)); /* the second try at the same page is good */
        assert_int_equal(read_all(rig, &missing), 60);
        spool_rig_kill(rig);
        faulty_fail(&rig->faulty, FAULTY_READ, skip, 2, "Input/output error");
        assert_true(spool_rig_start(rig));
        assert_true(spool_rig_log_count(rig, "event=spool_unreadable") > 0);
        spool_rig_kill(rig);
    }
    assert_true(spool_rig_start(rig)); /* and all is there once the disk is well again */
    uint64_t missing;
    assert_int_equal(read_all(rig, &missing), 60);
    assert_well(rig);
}

static void unreadable_parts_while_reading(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    fill(rig, 60);
    assert_true(spool_rig_start(rig));
    faulty_fail(&rig->faulty, FAULTY_READ, 0, 2, "Input/output error");
    size_t count = read_all(rig, &missing);
    assert_true(count < 60);
    assert_int_equal(missing, 0);
    assert_int_equal(spool_rig_log_count(rig, "event=spool_unreadable"), 1);
    assert_int_equal(spool_rig_log_count(rig, "reason=\"Input/output error\""), 1);
    assert_lost(rig, 1, 60 - count);
    assert_true(spool_counters(rig->spool)->unreadable_bytes > 0);
    assert_well(rig);
}

/* A file that cannot be opened is left alone, its messages too: they are there again when it can be. */
static void unreadable_file(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    uint8_t before[SEGMENT_BYTES];
    uint8_t after[SEGMENT_BYTES];
    fill(rig, 70);
    for (uint32_t index = 0; index < 4; index++) {
        (void)spool_rig_load(rig, index, before, sizeof before);
        faulty_fail(&rig->faulty, FAULTY_OPEN, index, 1, "Permission denied");
        assert_true(spool_rig_start(rig));
        assert_int_equal(spool_rig_log_count(rig, "event=spool_unreadable"), index + 1);
        size_t count = read_all(rig, &missing);
        assert_true(count < 70);
        /* New messages do not get the sequences that stand in it. */
        assert_true(spool_own_sequence(rig->spool) > 70);
        spool_rig_kill(rig);
        (void)spool_rig_load(rig, index, after, sizeof after);
        assert_memory_equal(before, after, sizeof before);
    }
    assert_true(spool_rig_start(rig));
    assert_int_equal(read_all(rig, &missing), 70);
    assert_int_equal(spool_counters(rig->spool)->lost_count, 0);
}

static void unreadable_newest_file_and_new_messages(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    fill(rig, 25); /* segment 0 full, segment 1 begun */
    faulty_fail(&rig->faulty, FAULTY_OPEN, 1, 1, "Permission denied");
    assert_true(spool_rig_start(rig));
    spool_rig_append_many(rig, 10);
    spool_rig_settle(rig);
    spool_rig_kill(rig);
    assert_true(spool_rig_start(rig));
    assert_int_equal(read_all(rig, &missing), 35);
    /* The sequences that nobody ever had are not counted as losses of messages beyond those that are. */
    assert_int_equal(missing, UINT64_MAX);
}

static void wrong_version(void **state)
{
    struct spool_rig *rig = *state;
    uint8_t kept[3][SEGMENT_BYTES];
    fill(rig, 60);
    (void)spool_rig_load(rig, 1, kept[1], SEGMENT_BYTES);
    const struct spool_header other = {.version = 2,
                                       .segment_bytes = SEGMENT_BYTES,
                                       .number = load_u64(kept[1] + 16),
                                       .first_sequence = load_u64(kept[1] + 24),
                                       .salt = load_u64(kept[1] + 40)};
    uint8_t earlier[HEADER];
    memcpy(earlier, kept[1], HEADER);
    spool_header_write(kept[1], &other);
    spool_rig_save(rig, 1, kept[1], SEGMENT_BYTES);
    for (uint32_t index = 0; index < 3; index++) {
        (void)spool_rig_load(rig, index, kept[index], SEGMENT_BYTES);
    }
    assert_false(spool_rig_start(rig));
    assert_non_null(strstr(rig->error, "version 2"));
    for (uint32_t index = 0; index < 3; index++) { /* nothing was touched */
        uint8_t now[SEGMENT_BYTES];
        assert_int_equal(spool_rig_load(rig, index, now, sizeof now), SEGMENT_BYTES);
        assert_memory_equal(now, kept[index], sizeof now);
    }
    memcpy(kept[1], earlier, HEADER);
    spool_rig_save(rig, 1, kept[1], SEGMENT_BYTES);
    assert_true(spool_rig_start(rig)); /* the lock was given up */
    uint64_t missing;
    assert_int_equal(read_all(rig, &missing), 60);
}

static void other_segment_size(void **state)
{
    struct spool_rig *rig = *state;
    fill(rig, 10);
    rig->options.segment_bytes = 2 * SEGMENT_BYTES;
    assert_false(spool_rig_start(rig));
    assert_non_null(strstr(rig->error, "2048"));
    rig->options.segment_bytes = SEGMENT_BYTES;
    assert_true(spool_rig_start(rig));
    spool_rig_expect(rig, 0, 9);
}

static void foreign_files(void **state)
{
    struct spool_rig *rig = *state;
    static const char *const names[] = {"notes.txt", "00001.segment.old", "0001.segment", "99999.segment", "x"};
    char path[256];
    uint64_t missing;
    fill(rig, 10);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", rig->directory, names[i]);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        (void)fputs("mine", file);
        (void)fclose(file);
    }
    assert_true(spool_rig_start(rig));
    assert_int_equal(spool_rig_log_count(rig, "event=spool_foreign_file"), 1);
    assert_int_equal(spool_rig_log_count(rig, "files=5"), 1);
    assert_int_equal(read_all(rig, &missing), 10);
    assert_well(rig);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char text[8] = "";
        (void)snprintf(path, sizeof path, "%s/%s", rig->directory, names[i]);
        FILE *file = fopen(path, "r");
        assert_non_null(file);
        assert_non_null(fgets(text, sizeof text, file));
        assert_string_equal(text, "mine");
        (void)fclose(file);
    }
}

static void two_gateways_on_one_folder(void **state)
{
    struct spool_rig *rig = *state;
    port_file lock = PORT_NONE;
    char path[160];
    (void)snprintf(path, sizeof path, "%s/lock", rig->directory);
    assert_int_equal(rig->real.lock_file(rig->real.context, path, &lock), PORT_AGAIN); /* it holds it */
    spool_rig_stop(rig);
    assert_int_equal(rig->real.lock_file(rig->real.context, path, &lock), PORT_OK);
    assert_false(spool_rig_start(rig));
    assert_string_equal(rig->error, "another gateway is using this folder");
    rig->real.close_file(rig->real.context, lock);
    assert_true(spool_rig_start(rig));
}

static void too_little_space(void **state)
{
    struct spool_rig *rig = *state;
    char path[160];
    spool_rig_stop(rig);
    for (uint32_t index = 0; index < SEGMENTS; index++) {
        spool_rig_path(rig, index, path);
        assert_int_equal(remove(path), 0);
    }
    faulty_fail(&rig->faulty, FAULTY_PREALLOCATE, 3, UINT64_MAX, "No space left on device");
    assert_true(spool_rig_start(rig));
    assert_int_equal(spool_rig_log_count(rig, "event=spool_short segments=3 wanted=8 reason=\"No space left"), 1);
    assert_int_equal(spool_counters(rig->spool)->segment_free_count, 3);
    spool_rig_path(rig, 3, path);
    assert_int_equal(access(path, F_OK), -1); /* no half-made one stays */
    faulty_heal(&rig->faulty);
    assert_well(rig);
    assert_int_equal(spool_counters(rig->spool)->segment_count, SEGMENTS); /* and at the next start there are all */
    spool_rig_stop(rig);
    for (uint32_t index = 0; index < SEGMENTS; index++) {
        spool_rig_path(rig, index, path);
        assert_int_equal(remove(path), 0);
    }
    faulty_fail(&rig->faulty, FAULTY_PREALLOCATE, 1, UINT64_MAX, "No space left on device");
    assert_false(spool_rig_start(rig));
    assert_non_null(strstr(rig->error, "No space left on device"));
    faulty_heal(&rig->faulty);
    assert_true(spool_rig_start(rig));
}

static void fewer_segments_than_are_there(void **state)
{
    struct spool_rig *rig = *state;
    char path[160];
    fill(rig, 100);
    rig->options.bytes_max = 4 * SEGMENT_BYTES;
    assert_true(spool_rig_start(rig));
    assert_int_equal(spool_rig_log_count(rig, "event=spool_surplus"), 1);
    spool_rig_path(rig, 7, path);
    assert_int_equal(access(path, F_OK), -1); /* it held nothing */
    spool_rig_path(rig, 4, path);
    assert_int_equal(access(path, F_OK), 0);
    uint64_t message;
    uint64_t sequence;
    for (uint64_t expected = 0; expected < 100; expected++) {
        assert_true(spool_rig_read(rig, &message, &sequence));
        assert_int_equal(message, expected);
        spool_release(rig->spool, sequence);
    }
    spool_rig_append_many(rig, 20);
    spool_rig_stop(rig);
    assert_true(spool_rig_start(rig));
    assert_int_equal(access(path, F_OK), -1);
    spool_rig_expect(rig, 100, 119);
    spool_rig_stop(rig);
    rig->options.bytes_max = SEGMENTS * SEGMENT_BYTES; /* and back */
    assert_true(spool_rig_start(rig));
    assert_well(rig);
}

static void folders_that_cannot_be_used(void **state)
{
    struct spool_rig *rig = *state;
    char path[160];
    spool_rig_stop(rig);
    (void)snprintf(path, sizeof path, "%s/file", rig->folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fclose(file);
    rig->options.directory = path;
    assert_false(spool_rig_start(rig));
    assert_string_equal(rig->error, "the folder cannot be made: make directory: Not a directory");
    rig->options.directory = rig->directory;
    static const struct {
        enum faulty_operation operation;
        const char *text;
    } cases[] = {{FAULTY_LOCK, "the folder cannot be locked: Read-only file system"},
                 {FAULTY_LIST, "the folder cannot be read: Read-only file system"},
                 {FAULTY_SYNC_DIRECTORY, "the folder cannot be synced: Read-only file system"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        faulty_fail(&rig->faulty, cases[i].operation, 0, 1, "Read-only file system");
        assert_false(spool_rig_start(rig));
        assert_string_equal(rig->error, cases[i].text);
    }
    assert_true(spool_rig_start(rig));
}

int main(void)
{
#define with_rig(test) cmocka_unit_test_setup_teardown(test, open_rig, close_rig)
    const struct CMUnitTest tests[] = {
        with_rig(empty_folder),
        with_rig(torn_tail),
        with_rig(torn_tail_is_written_over),
        with_rig(zeroed_tail),
        with_rig(old_records_behind_the_tail),
        with_rig(records_without_their_header),
        with_rig(flipped_bit_in_a_payload),
        with_rig(flipped_bit_in_a_record_header_and_holes),
        with_rig(any_flipped_bit),
        with_rig(damaged_segment_headers),
        with_rig(a_zeroed_header_page),
        with_rig(missing_segment_of_the_middle),
        with_rig(missing_segment_at_the_front),
        with_rig(missing_segment_at_the_end),
        with_rig(all_segments_missing),
        with_rig(a_copied_segment),
        with_rig(short_segments),
        with_rig(unreadable_parts_at_start),
        with_rig(unreadable_parts_while_reading),
        with_rig(unreadable_file),
        with_rig(unreadable_newest_file_and_new_messages),
        with_rig(wrong_version),
        with_rig(other_segment_size),
        with_rig(foreign_files),
        with_rig(two_gateways_on_one_folder),
        with_rig(too_little_space),
        with_rig(fewer_segments_than_are_there),
        with_rig(folders_that_cannot_be_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
