/* SPDX-License-Identifier: MIT */
/* Damages inside the segments; those of the folder and of whole files are in test_spool_folder.c. */
#define _POSIX_C_SOURCE 200809L
#include "spool_case.h"

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

/* What is too long for the setting now, and was released, is no reason to refuse; also where the mark stands behind it.
 */
static void too_long_and_released(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    uint64_t message;
    uint64_t sequence;
    spool_rig_append_many(rig, 3); /* message 0 is a long one */
    spool_rig_settle(rig);
    assert_true(spool_rig_read(rig, &message, &sequence));
    spool_release(rig->spool, sequence);
    spool_rig_append_many(rig, 1); /* the mark rides at its head */
    spool_rig_settle(rig);
    spool_rig_kill(rig);
    rig->options.payload_bytes_max = 200;
    assert_true(spool_rig_start(rig));
    assert_int_equal(read_all(rig, &missing), 3);
    rig->options.payload_bytes_max = RIG_PAYLOAD_MAX;
    spool_rig_kill(rig);
    assert_true(spool_rig_start(rig));
    assert_well(rig);
}

/* What is too long for the setting now is not forgotten, also where the segment's header is lost. */
static void too_long_under_a_damaged_header(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    uint8_t bytes[SEGMENT_BYTES];
    fill(rig, 1); /* message 0 is a long one */
    (void)spool_rig_load(rig, 0, bytes, sizeof bytes);
    bytes[HEADER - 1] ^= 1;
    spool_rig_save(rig, 0, bytes, sizeof bytes);
    rig->options.payload_bytes_max = 100;
    assert_false(spool_rig_start(rig));
    assert_non_null(strstr(rig->error, "MAX_MESSAGE_BYTES"));
    rig->options.payload_bytes_max = RIG_PAYLOAD_MAX;
    assert_true(spool_rig_start(rig));
    assert_int_equal(read_all(rig, &missing), 1);
}

/* What another segment has counts there alone, and so it is not too long either. */
static void too_long_and_elsewhere(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    uint8_t bytes[SEGMENT_BYTES] = {0};
    rig->payload_bytes = 100;
    fill(rig, 3);
    memset(bytes, 0x3C, HEADER);
    (void)spool_record_write(bytes + HEADER, rig->sequences[1], 300);
    spool_record_bind(bytes + HEADER, 5);
    spool_rig_save(rig, 1, bytes, sizeof bytes);
    rig->options.payload_bytes_max = 200;
    assert_true(spool_rig_start(rig));
    assert_int_equal(spool_rig_log_count(rig, "event=spool_header_damaged segment=1"), 1);
    assert_int_equal(read_all(rig, &missing), 3);
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
        with_rig(too_long_and_released),
        with_rig(too_long_under_a_damaged_header),
        with_rig(too_long_and_elsewhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
