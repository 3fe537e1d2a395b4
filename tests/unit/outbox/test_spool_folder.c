/* SPDX-License-Identifier: MIT */
/* Damages of the folder and of whole files: missing, copied, short, unreadable, foreign, of another version, in use by
 * another gateway; too little space. */
#define _POSIX_C_SOURCE 200809L
#include "spool_case.h"

/* Nothing was said of anything that is missing or damaged. */
static void assert_silent(struct spool_rig *rig)
{
    assert_int_equal(spool_rig_log_count(rig, "level=warn") + spool_rig_log_count(rig, "level=error"), 0);
    assert_int_equal(spool_counters(rig->spool)->lost_count, 0);
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

/* The number of the newest segment's file, and how many messages it holds. */
static uint32_t find_newest(struct spool_rig *rig, size_t *held_count)
{
    uint8_t bytes[SEGMENT_BYTES];
    struct record records[RECORDS_MAX];
    uint32_t newest = 0;
    while (spool_rig_load(rig, newest + 1, bytes, sizeof bytes) > 0 && !spool_is_zero(bytes, HEADER)) {
        newest++;
    }
    (void)spool_rig_load(rig, newest, bytes, sizeof bytes);
    *held_count = find_records(bytes, records);
    return newest;
}

/* From that file on none is there any more. */
static void remove_files_from(struct spool_rig *rig, uint32_t index)
{
    char path[160];
    for (; index < SEGMENTS; index++) {
        spool_rig_path(rig, index, path);
        assert_int_equal(remove(path), 0);
    }
}

/* The newest: which sequences it had nobody knows, but that a file is missing is said. */
static void missing_segment_at_the_end(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    char path[160];
    fill(rig, 70);
    size_t held;
    uint32_t newest = find_newest(rig, &held);
    spool_rig_path(rig, newest, path);
    assert_int_equal(remove(path), 0);
    assert_true(spool_rig_start(rig));
    assert_int_equal(spool_rig_log_count(rig, "event=spool_segment_missing"), 1);
    assert_int_equal(read_all(rig, &missing), 70 - held);
    assert_int_equal(spool_rig_log_count(rig, "spool_lost"), 0);
    assert_well(rig);
}

/* The newest, and all files with higher numbers: what is left looks like the folder of a smaller spool, so nobody can
 * know, and nothing is said. */
static void missing_segments_from_the_newest_on(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    char opened[64];
    fill(rig, 70);
    size_t held;
    uint32_t newest = find_newest(rig, &held);
    remove_files_from(rig, newest);
    spool_rig_forget_log(rig);
    assert_true(spool_rig_start(rig));
    (void)snprintf(opened, sizeof opened, "messages=%zu next=%zu released=0", 70 - held, 71 - held);
    assert_int_equal(spool_rig_log_count(rig, opened), 1);
    assert_int_equal(read_all(rig, &missing), 70 - held);
    assert_silent(rig);
    assert_well(rig);
}

/* As an empty folder: nothing tells that there ever was a message. */
static void all_segments_missing(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    fill(rig, 70);
    remove_files_from(rig, 0);
    spool_rig_forget_log(rig);
    assert_true(spool_rig_start(rig));
    assert_int_equal(spool_rig_log_count(rig, "messages=0 next=1 released=0"), 1);
    assert_int_equal(read_all(rig, &missing), 0);
    assert_silent(rig);
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

/* Of two files with the same header the one with the higher number counts, and alone: a message that is damaged in it
 * is lost, though the other has it. */
static void a_copied_segment_that_is_damaged(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    uint8_t whole[SEGMENT_BYTES];
    uint8_t damaged[SEGMENT_BYTES];
    struct record records[RECORDS_MAX];
    fill(rig, 60);
    (void)spool_rig_load(rig, 1, whole, sizeof whole);
    assert_true(find_records(whole, records) > 3);
    memcpy(damaged, whole, sizeof damaged);
    damaged[records[2].offset + SPOOL_RECORD_HEADER_BYTES] ^= 1;
    spool_rig_save(rig, 1, damaged, sizeof damaged);
    spool_rig_save(rig, SEGMENTS - 1, whole, sizeof whole);
    assert_true(spool_rig_start(rig));
    assert_int_equal(read_all(rig, &missing), 60);
    assert_silent(rig);
    spool_rig_kill(rig);
    spool_rig_save(rig, 1, whole, sizeof whole);
    spool_rig_save(rig, SEGMENTS - 1, damaged, sizeof damaged);
    assert_true(spool_rig_start(rig));
    assert_int_equal(read_all(rig, &missing), 59);
    assert_lost(rig, records[2].sequence, records[2].sequence);
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

/* Each read of a start that fails, together with the second try at its page: the start is refused, and nothing is
 * touched. Once the disk is well again all is there. */
static void unreadable_parts_at_start(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    uint8_t before[SEGMENTS][SEGMENT_BYTES];
    uint8_t after[SEGMENT_BYTES];
    fill(rig, 60);
    for (uint32_t index = 0; index < SEGMENTS; index++) {
        (void)spool_rig_load(rig, index, before[index], SEGMENT_BYTES);
    }
    uint64_t skip = 0;
    for (;; skip++) {
        faulty_fail(&rig->faulty, FAULTY_READ, skip, 2, "Input/output error");
        if (spool_rig_start(rig)) {
            break; /* it did not read so often */
        }
        assert_non_null(strstr(rig->error, ".segment cannot be read: Input/output error; see to "));
        for (uint32_t index = 0; index < SEGMENTS; index++) {
            (void)spool_rig_load(rig, index, after, sizeof after);
            assert_memory_equal(before[index], after, sizeof after);
        }
    }
    assert_in_range(skip, SEGMENTS + 3, 40); /* all headers, and the segments that hold something */
    faulty_heal(&rig->faulty);
    assert_int_equal(read_all(rig, &missing), 60);
    spool_rig_kill(rig);
    faulty_fail(&rig->faulty, FAULTY_READ, 0, 1, "Input/output error");
    assert_true(spool_rig_start(rig)); /* the second try at the page is good */
    assert_int_equal(read_all(rig, &missing), 60);
    assert_well(rig);
}

/* A disk that stumbles costs time, and no message. */
static void unreadable_for_a_while(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    fill(rig, 60);
    assert_true(spool_rig_start(rig));
    uint64_t start_ms = rig->now_ms;
    faulty_fail(&rig->faulty, FAULTY_READ, 0, 5,
                "Input/output error"); /* twice the piece and its page, once the piece */
    assert_int_equal(read_all(rig, &missing), 60);
    assert_in_range(rig->now_ms - start_ms, 3000, 3500);
    assert_int_equal(spool_rig_log_count(rig, "event=spool_unreadable"), 2);
    assert_int_equal(spool_rig_log_count(rig, "reason=\"Input/output error\" retry_ms=1000"), 1);
    assert_int_equal(spool_rig_log_count(rig, "reason=\"Input/output error\" retry_ms=2000"), 1);
    assert_int_equal(spool_counters(rig->spool)->unreadable_bytes, 0);
    assert_int_equal(spool_counters(rig->spool)->lost_count, 0);
    assert_well(rig);
}

/* One that is dead is given up after half a minute, and then does not stand in the way again. */
static void unreadable_for_good(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    fill(rig, 60);
    assert_true(spool_rig_start(rig));
    uint64_t start_ms = rig->now_ms;
    faulty_fail(&rig->faulty, FAULTY_READ, 0, UINT64_MAX, "Input/output error");
    assert_int_equal(read_all(rig, &missing), 0);
    assert_in_range(rig->now_ms - start_ms, 31000, 33000);
    assert_int_equal(spool_rig_log_count(rig, "retry_ms=16000"), 1);
    assert_true(spool_rig_log_count(rig, "retry_ms=0") >= 3);
    assert_int_equal(spool_counters(rig->spool)->lost_count, 60);
    assert_true(spool_counters(rig->spool)->unreadable_bytes > 0);
    faulty_heal(&rig->faulty);
    assert_well(rig);
}

static void a_file_that_goes_while_the_spool_runs(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    char path[160];
    fill(rig, 70);
    assert_true(spool_rig_start(rig));
    spool_rig_path(rig, 1, path);
    assert_int_equal(remove(path), 0);
    uint64_t start_ms = rig->now_ms;
    size_t count = read_all(rig, &missing);
    assert_in_range(count, 40, 60);
    assert_true(rig->now_ms - start_ms < 1000); /* nothing is waited for */
    assert_lost(rig, missing + 1, missing + 70 - count);
    assert_int_equal(spool_rig_log_count(rig, "reason=\"the file is gone\" retry_ms=0"), 1);
    assert_well(rig);
}

static void unreadable_file(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    char path[160];
    char moved[200];
    fill(rig, 70);
    for (uint64_t index = 0; index < SEGMENTS + 4; index++) { /* for its header, and for its messages */
        faulty_fail(&rig->faulty, FAULTY_OPEN, index, 1, "Permission denied");
        assert_false(spool_rig_start(rig));
        assert_non_null(strstr(rig->error, ".segment cannot be opened: Permission denied; see to "));
    }
    faulty_heal(&rig->faulty);
    spool_rig_path(rig, 1, path);
    (void)snprintf(moved, sizeof moved, "%s.away", path);
    assert_int_equal(rename(path, moved), 0); /* as the error says */
    assert_true(spool_rig_start(rig));
    size_t count = read_all(rig, &missing);
    assert_in_range(count, 40, 60);
    assert_lost(rig, missing + 1, missing + 70 - count);
    assert_well(rig);
}

/* A header of zeros, as of a segment that was never begun; but records stand behind it. */
static void a_segment_begins_with_zeros(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    uint8_t bytes[SEGMENT_BYTES];
    struct record records[RECORDS_MAX];
    fill(rig, 60);
    (void)spool_rig_load(rig, 1, bytes, sizeof bytes);
    size_t held = find_records(bytes, records);
    static const size_t zeros[] = {HEADER, 200, SEGMENT_BYTES / 2};
    for (size_t i = 0; i < sizeof zeros / sizeof zeros[0]; i++) {
        size_t gone = 0;
        while (records[gone].offset < zeros[i]) {
            gone++;
        }
        memset(bytes, 0, zeros[i]);
        spool_rig_save(rig, 1, bytes, sizeof bytes);
        assert_true(spool_rig_start(rig));
        assert_int_equal(spool_rig_log_count(rig, "event=spool_header_damaged segment=1"), i + 1);
        assert_int_equal(read_all(rig, &missing), 60 - gone);
        assert_int_equal(spool_counters(rig->spool)->lost_count, gone);
        spool_rig_kill(rig);
    }
    assert_true(held > 0 && spool_rig_start(rig));
    assert_well(rig);
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

/* The last gateway has to go while the disk does not answer: what it wrote may still come. */
static void the_lock_stays_while_a_write_is_out(void **state)
{
    struct spool_rig *rig = *state;
    port_file lock = PORT_NONE;
    char path[160];
    (void)snprintf(path, sizeof path, "%s/lock", rig->directory);
    (void)spool_rig_append(rig);
    (void)spool_turn(rig->spool, rig->now_ms);
    spool_release_files(rig->spool);
    assert_int_equal(rig->real.lock_file(rig->real.context, path, &lock), PORT_AGAIN);
    spool_rig_settle(rig);
    spool_release_files(rig->spool);
    assert_int_equal(rig->real.lock_file(rig->real.context, path, &lock), PORT_OK);
    rig->real.close_file(rig->real.context, lock);
    spool_rig_kill(rig);
    assert_true(spool_rig_start(rig));
    spool_rig_expect(rig, 0, 0);
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

/* What was released stays released, also where only a surplus file says so. */
static void fewer_segments_and_nothing_left_in_them(void **state)
{
    struct spool_rig *rig = *state;
    char path[160];
    spool_rig_append_many(rig, 100);
    spool_rig_settle(rig);
    spool_rig_drain(rig);
    spool_rig_stop(rig);
    rig->options.bytes_max = 4 * SEGMENT_BYTES;
    spool_rig_path(rig, 5, path); /* the newest */
    for (int start = 0; start < 3; start++) {
        assert_true(spool_rig_start(rig));
        assert_int_equal(spool_message_count(rig->spool), 0);
        assert_int_equal(spool_own_sequence(rig->spool), 101);
        assert_int_equal(access(path, F_OK), 0);
        spool_rig_stop(rig);
    }
    assert_true(spool_rig_start(rig));
    spool_rig_append_many(rig, 10);
    spool_rig_settle(rig);
    for (int start = 0; start < 2; start++) { /* another one says it now */
        spool_rig_kill(rig);
        assert_true(spool_rig_start(rig));
        assert_int_equal(access(path, F_OK), -1);
        spool_rig_expect(rig, 100, 109);
    }
    assert_well(rig);
}

/* A surplus segment is not made whole; it is read to where it ends, in the middle of the last record's padding. */
static void a_short_segment_among_the_surplus(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t missing;
    uint8_t bytes[SEGMENT_BYTES];
    struct record records[RECORDS_MAX] = {0};
    fill(rig, 100);
    for (uint32_t index = 4; spool_rig_load(rig, index, bytes, sizeof bytes) > 0 && !spool_is_zero(bytes, HEADER);
         index++) {
        size_t count = find_records(bytes, records);
        assert_true(count > 0);
        const struct record *last = &records[count > 0 ? count - 1 : 0];
        uint8_t *end = bytes + last->offset + last->bytes;
        while (end[-1] == 0) {
            end--;
        }
        spool_rig_save(rig, index, bytes, (size_t)(end - bytes));
    }
    rig->options.bytes_max = 4 * SEGMENT_BYTES;
    assert_true(spool_rig_start(rig));
    assert_true(spool_rig_log_count(rig, "event=spool_short_segment") > 0);
    assert_int_equal(read_all(rig, &missing), 100);
    assert_int_equal(spool_counters(rig->spool)->unreadable_bytes, 0);
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
        with_rig(missing_segment_of_the_middle),
        with_rig(missing_segment_at_the_front),
        with_rig(missing_segment_at_the_end),
        with_rig(missing_segments_from_the_newest_on),
        with_rig(all_segments_missing),
        with_rig(a_copied_segment),
        with_rig(a_copied_segment_that_is_damaged),
        with_rig(short_segments),
        with_rig(unreadable_parts_at_start),
        with_rig(unreadable_for_a_while),
        with_rig(unreadable_for_good),
        with_rig(a_file_that_goes_while_the_spool_runs),
        with_rig(unreadable_file),
        with_rig(a_segment_begins_with_zeros),
        with_rig(wrong_version),
        with_rig(other_segment_size),
        with_rig(foreign_files),
        with_rig(two_gateways_on_one_folder),
        with_rig(the_lock_stays_while_a_write_is_out),
        with_rig(too_little_space),
        with_rig(fewer_segments_than_are_there),
        with_rig(fewer_segments_and_nothing_left_in_them),
        with_rig(a_short_segment_among_the_surplus),
        with_rig(folders_that_cannot_be_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
