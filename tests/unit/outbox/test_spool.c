/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "spool_format.h"
#include "spool_rig.h"

/* The spool's life without faults. Segments hold about forty messages. */
enum { SEGMENT_BYTES = 4096, SEGMENTS = 8 };

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

static void restart(struct spool_rig *rig)
{
    spool_rig_stop(rig);
    assert_true(spool_rig_start(rig));
}

static void restart_killed(struct spool_rig *rig)
{
    spool_rig_kill(rig);
    assert_true(spool_rig_start(rig));
}

static void nothing_is_written_for_nothing(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t message;
    uint64_t sequence;
    uint64_t changes = rig->faulty.change_count;
    spool_rig_settle(rig);
    assert_false(spool_rig_read(rig, &message, &sequence));
    restart(rig);
    assert_int_equal(rig->faulty.counts[FAULTY_WRITE], 0);
    assert_int_equal(rig->faulty.counts[FAULTY_SYNC], 0);
    assert_true(rig->faulty.change_count > changes); /* the folder was looked after again */
    assert_int_equal(spool_counters(rig->spool)->segment_free_count, SEGMENTS);
}

/* The mark that was written when all was released is not synced; the stop sees to it. */
static void a_stop_leaves_nothing_in_doubt(void **state)
{
    struct spool_rig *rig = *state;
    spool_rig_append_many(rig, 10);
    spool_rig_settle(rig);
    spool_rig_drain(rig);
    spool_rig_settle(rig);
    uint64_t syncs = rig->faulty.counts[FAULTY_SYNC];
    spool_rig_stop(rig);
    assert_int_equal(rig->faulty.counts[FAULTY_SYNC], syncs + 1);
    faulty_cut_power(&rig->faulty, FAULTY_CUT_LOSES);
    assert_true(spool_rig_start(rig));
    assert_int_equal(spool_message_count(rig->spool), 0);
    assert_int_equal(spool_own_sequence(rig->spool), 11);
}

static void a_start_says_how_many_wait(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t message;
    uint64_t sequence;
    spool_rig_append_many(rig, 10);
    spool_rig_settle(rig);
    for (int i = 0; i < 8; i++) {
        assert_true(spool_rig_read(rig, &message, &sequence));
        spool_release(rig->spool, sequence);
    }
    spool_rig_append_many(rig, 1); /* at its head rides the mark, in the middle of the messages */
    spool_rig_settle(rig);
    restart_killed(rig);
    assert_int_equal(spool_rig_log_count(rig, "event=spool_opened directory="), 2);
    assert_int_equal(spool_rig_log_count(rig, "messages=3 next=12 released=8"), 1);
    spool_rig_expect(rig, 8, 10);
}

static void what_a_turn_brought_is_one_write_and_one_sync(void **state)
{
    struct spool_rig *rig = *state;
    spool_rig_append_many(rig, 10);
    assert_int_equal(rig->synced_count, 0);
    spool_rig_turn(rig);
    assert_int_equal(rig->synced_count, 10);
    assert_int_equal(rig->faulty.counts[FAULTY_SYNC], 1);
    assert_int_equal(spool_counters(rig->spool)->write_count, 1);
    spool_rig_append_many(rig, 1);
    spool_rig_settle(rig);
    assert_int_equal(rig->synced_count, 11);
    assert_int_equal(rig->faulty.counts[FAULTY_SYNC], 2);
}

static void what_comes_during_a_write_is_the_next_one(void **state)
{
    struct spool_rig *rig = *state;
    spool_rig_append_many(rig, 3);
    (void)spool_turn(rig->spool, rig->now_ms);
    spool_rig_append_many(rig, 4); /* the job of the first three is out */
    (void)spool_turn(rig->spool, rig->now_ms);
    assert_int_equal(rig->faulty.job_count, 1);
    faulty_work(&rig->faulty);
    assert_int_equal(rig->synced_count, 0); /* not before the loop heard of it */
    assert_true(spool_on_job(rig->spool, rig->faulty.port.finished_job(NULL), rig->now_ms));
    assert_int_equal(rig->synced_count, 3);
    spool_rig_settle(rig);
    assert_int_equal(rig->synced_count, 7);
    assert_int_equal(rig->faulty.counts[FAULTY_SYNC], 2);
}

static void messages_come_back_in_order(void **state)
{
    struct spool_rig *rig = *state;
    spool_rig_append_many(rig, 200);
    spool_rig_settle(rig);
    spool_rig_expect(rig, 0, 199);
    assert_int_equal(spool_counters(rig->spool)->message_count, 0);
}

static void they_come_back_before_they_are_written(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t message;
    uint64_t sequence;
    spool_rig_append_many(rig, 5);
    (void)spool_turn(rig->spool, rig->now_ms); /* being written */
    spool_rig_append_many(rig, 5);             /* not yet */
    for (uint64_t i = 0; i < 10; i++) {
        assert_true(spool_rig_read(rig, &message, &sequence));
        assert_int_equal(message, i);
    }
    assert_false(spool_rig_read(rig, &message, &sequence));
    assert_int_equal(rig->faulty.counts[FAULTY_READ], 0);
}

/* The reader walks from the disk into what is being written and what waits, and is overtaken by the writes. */
static void the_reader_crosses_from_the_disk_to_memory(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t message;
    uint64_t sequence;
    uint64_t read_count = 0;
    for (int round = 0; round < 400; round++) {
        for (int i = 0; i < round % 4; i++) {
            (void)spool_rig_append(rig);
        }
        if (round % 3 == 0) {
            spool_rig_turn(rig);
        } else if (round % 3 == 1) {
            (void)spool_turn(rig->spool, rig->now_ms);
        }
        for (int i = 0; i < round % 5 - 1 && spool_rig_read(rig, &message, &sequence); i++) {
            assert_int_equal(message, read_count++);
            spool_release(rig->spool, sequence);
        }
    }
    while (spool_rig_read(rig, &message, &sequence)) {
        assert_int_equal(message, read_count++);
    }
    assert_int_equal(read_count, rig->appended_count);
    assert_true(read_count > 300);
}

static void what_was_not_released_is_there_after_a_restart(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t message;
    uint64_t sequence;
    spool_rig_append_many(rig, 100);
    spool_rig_settle(rig);
    for (int i = 0; i < 30; i++) {
        assert_true(spool_rig_read(rig, &message, &sequence));
    }
    spool_release(rig->spool, sequence);
    for (int i = 0; i < 20; i++) {
        assert_true(spool_rig_read(rig, &message, &sequence)); /* read, but not released */
    }
    restart(rig);
    assert_int_equal(rig->found_count, 70);
    assert_true(spool_own_sequence(rig->spool) == 101);
    spool_rig_append_many(rig, 50);
    spool_rig_expect(rig, 30, 149);
    restart(rig);
    spool_rig_expect(rig, 1, 0);
}

static void a_kill_keeps_what_was_synced(void **state)
{
    struct spool_rig *rig = *state;
    spool_rig_append_many(rig, 60);
    spool_rig_settle(rig);
    restart_killed(rig);
    spool_rig_append_many(rig, 60);
    spool_rig_settle(rig);
    restart_killed(rig);
    spool_rig_expect(rig, 0, 119);
    restart(rig); /* in good order, so that the release is marked */
    spool_rig_expect(rig, 1, 0);
}

/* Restarts with something left each time must not use up the segments. */
static void many_restarts_share_a_segment(void **state)
{
    struct spool_rig *rig = *state;
    for (int start = 0; start < 60; start++) {
        spool_rig_append_many(rig, 1);
        spool_rig_settle(rig);
        restart_killed(rig);
    }
    assert_true(spool_counters(rig->spool)->segment_free_count >= SEGMENTS - 3);
    spool_rig_expect(rig, 0, 59);
}

static void segments_are_used_again(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t first = 0;
    for (int round = 0; round < 60; round++) {
        spool_rig_append_many(rig, 100);
        spool_rig_settle(rig);
        if (round % 7 == 3) {
            restart(rig);
        }
        spool_rig_expect(rig, first, first + 99);
        first += 100;
        if (round % 7 == 5) {
            restart(rig);
        }
    }
    assert_true(spool_counters(rig->spool)->segment_free_count >= SEGMENTS - 1);
    assert_int_equal(spool_rig_log_count(rig, "spool_lost"), 0);
    assert_int_equal(spool_rig_log_count(rig, "spool_damaged"), 0);
    assert_int_equal(spool_rig_log_count(rig, "spool_tail_cut"), 0);
}

static void the_disk_is_never_more_than_the_setting(void **state)
{
    struct spool_rig *rig = *state;
    while (spool_has_room(rig->spool, SPOOL_RECORD_BYTES(RIG_PAYLOAD_MAX))) {
        assert_true(spool_rig_append(rig));
        spool_rig_settle(rig);
    }
    uint64_t held = rig->appended_count;
    assert_int_equal(rig->synced_count, held); /* room that was promised was there */
    assert_true(held > 250);
    assert_true(spool_is_filling(rig->spool));
    /* Room comes back by release, a segment at a time. */
    uint64_t message;
    uint64_t sequence;
    uint64_t released = 0;
    while (!spool_has_room(rig->spool, SPOOL_RECORD_BYTES(RIG_PAYLOAD_MAX))) {
        assert_true(spool_rig_read(rig, &message, &sequence));
        spool_release(rig->spool, sequence);
        released++;
    }
    assert_in_range(released, 10, 60);
    spool_rig_expect(rig, released, held - 1);
    restart(rig);
    assert_int_equal(spool_counters(rig->spool)->segment_free_count, SEGMENTS);
}

/* Beyond what has_room promised, the stage takes what it can hold; it is written when a segment becomes free. */
static void what_does_not_fit_waits_in_memory(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t message;
    uint64_t sequence;
    while (spool_rig_append(rig)) {
        spool_rig_settle(rig);
    }
    assert_true(rig->synced_count < rig->appended_count);
    for (uint64_t i = 0; i < 100; i++) {
        assert_true(spool_rig_read(rig, &message, &sequence));
        spool_release(rig->spool, sequence);
    }
    spool_rig_settle(rig);
    assert_int_equal(rig->synced_count, rig->appended_count);
    restart(rig);
    spool_rig_expect(rig, 100, rig->appended_count - 1);
}

static void releases_are_marked_now_and_then(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t message;
    uint64_t sequence;
    spool_rig_append_many(rig, 200);
    spool_rig_settle(rig);
    uint64_t writes = spool_counters(rig->spool)->write_count;
    for (int i = 0; i < 150; i++) {
        assert_true(spool_rig_read(rig, &message, &sequence));
        spool_release(rig->spool, sequence);
        spool_rig_settle(rig);
    }
    assert_int_equal(spool_counters(rig->spool)->write_count, writes);
    spool_rig_append_many(rig, 1); /* the mark rides along */
    spool_rig_settle(rig);
    assert_int_equal(spool_counters(rig->spool)->write_count, writes + 1);
    restart_killed(rig);
    spool_rig_expect(rig, 150, 200);
    uint64_t syncs = rig->faulty.counts[FAULTY_SYNC];
    spool_rig_settle(rig); /* all is released: marked at once, not synced */
    assert_int_equal(rig->faulty.counts[FAULTY_SYNC], syncs);
    restart_killed(rig);
    spool_rig_expect(rig, 1, 0);
}

static void a_mark_is_written_after_so_many(void **state)
{
    struct spool_rig *rig = *state;
    spool_rig_stop(rig);
    rig->options.bytes_max = 64 * SEGMENT_BYTES;
    assert_true(spool_rig_start(rig));
    uint64_t message;
    uint64_t sequence;
    spool_rig_append_many(rig, SPOOL_MARK_MESSAGES + 100);
    spool_rig_settle(rig);
    uint64_t writes = spool_counters(rig->spool)->write_count;
    for (int i = 0; i < SPOOL_MARK_MESSAGES; i++) {
        assert_true(spool_rig_read(rig, &message, &sequence));
        spool_release(rig->spool, sequence);
    }
    spool_rig_settle(rig);
    assert_int_equal(spool_counters(rig->spool)->write_count, writes + 1);
    restart_killed(rig);
    spool_rig_expect(rig, SPOOL_MARK_MESSAGES, SPOOL_MARK_MESSAGES + 99);
}

/* Confirmed before the disk had them: they are not written, and no gap is made of that. */
static void what_was_released_before_it_was_written_is_not(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t message;
    uint64_t sequence;
    spool_rig_append_many(rig, 10);
    spool_rig_settle(rig);
    spool_rig_expect(rig, 0, 9);
    spool_rig_append_many(rig, 20);
    for (int i = 0; i < 15; i++) {
        assert_true(spool_rig_read(rig, &message, &sequence));
    }
    spool_release(rig->spool, sequence);
    spool_rig_settle(rig);
    assert_int_equal(rig->synced_count, 15);
    assert_false(rig->is_synced[24]);
    assert_true(rig->is_synced[25]);
    restart_killed(rig);
    spool_rig_expect(rig, 25, 29);
    assert_int_equal(spool_rig_log_count(rig, "spool_lost"), 0);
}

/* As a window does that has them in memory. */
static void passing_all_reads_on_behind(void **state)
{
    struct spool_rig *rig = *state;
    for (int round = 0; round < 50; round++) {
        uint64_t first = rig->appended_count;
        spool_rig_append_many(rig, 3);
        spool_pass_all(rig->spool);
        spool_rig_append_many(rig, 2);
        if (round % 2 == 0) {
            spool_rig_settle(rig);
        }
        spool_rig_expect(rig, first + 3, first + 4);
    }
}

/* The stage is a ring. When what was written last ended exactly at the ring's end, all of it is free again. */
static void an_emptied_stage_is_all_room(void **state)
{
    enum { RECORD_BYTES = 128, RECORDS = 4096 / RECORD_BYTES };
    struct spool_rig *rig = *state;
    rig->payload_bytes = RECORD_BYTES - SPOOL_RECORD_HEADER_BYTES;
    assert_int_equal(rig->options.stage_bytes, RECORDS * RECORD_BYTES);
    for (size_t out = 1; out < RECORDS; out++) {
        spool_rig_append_many(rig, out);
        (void)spool_turn(rig->spool, rig->now_ms); /* they are on their way to the disk when the others come */
        spool_rig_append_many(rig, RECORDS - out);
        assert_int_equal(spool_counters(rig->spool)->stage_used_bytes, rig->options.stage_bytes);
        spool_rig_settle(rig);
        assert_int_equal(spool_counters(rig->spool)->unsynced_count, 0);
        assert_int_equal(spool_counters(rig->spool)->stage_used_bytes, 0);
        assert_true(spool_has_room(rig->spool, RECORD_BYTES));
        spool_rig_drain(rig);
    }
}

static void the_longest_message_fits(void **state)
{
    enum { LONGEST_BYTES = SEGMENT_BYTES - SPOOL_SEGMENT_HEADER_BYTES - 2 * SPOOL_RECORD_HEADER_BYTES };
    struct spool_rig *rig = *state;
    uint64_t message;
    uint64_t sequence;
    spool_rig_stop(rig);
    rig->payload_bytes = LONGEST_BYTES;
    rig->options.payload_bytes_max = LONGEST_BYTES;
    rig->options.stage_bytes = 2 * SEGMENT_BYTES;
    assert_true(spool_rig_start(rig));
    spool_rig_append_many(rig, 2);
    spool_rig_settle(rig);
    assert_int_equal(rig->synced_count, 2);
    restart(rig);
    assert_true(spool_rig_read(rig, &message, &sequence) && message == 0);
    assert_true(spool_rig_read(rig, &message, &sequence) && message == 1);
    spool_rig_kill(rig);
    rig->options.payload_bytes_max = RIG_PAYLOAD_MAX;
    rig->options.stage_bytes = 4096;
    assert_false(spool_rig_start(rig)); /* and is not forgotten when the setting became smaller */
    assert_non_null(strstr(rig->error, "MAX_MESSAGE_BYTES"));
    char bytes[24];
    (void)snprintf(bytes, sizeof bytes, "a message of %d ", LONGEST_BYTES);
    assert_non_null(strstr(rig->error, bytes));
    rig->options.payload_bytes_max = LONGEST_BYTES;
    rig->options.stage_bytes = 2 * SEGMENT_BYTES;
    assert_true(spool_rig_start(rig));
    spool_rig_expect(rig, 0, 1);
}

int main(void)
{
#define with_rig(test) cmocka_unit_test_setup_teardown(test, open_rig, close_rig)
    const struct CMUnitTest tests[] = {
        with_rig(nothing_is_written_for_nothing),
        with_rig(a_stop_leaves_nothing_in_doubt),
        with_rig(a_start_says_how_many_wait),
        with_rig(what_a_turn_brought_is_one_write_and_one_sync),
        with_rig(what_comes_during_a_write_is_the_next_one),
        with_rig(messages_come_back_in_order),
        with_rig(they_come_back_before_they_are_written),
        with_rig(the_reader_crosses_from_the_disk_to_memory),
        with_rig(what_was_not_released_is_there_after_a_restart),
        with_rig(a_kill_keeps_what_was_synced),
        with_rig(many_restarts_share_a_segment),
        with_rig(segments_are_used_again),
        with_rig(the_disk_is_never_more_than_the_setting),
        with_rig(what_does_not_fit_waits_in_memory),
        with_rig(releases_are_marked_now_and_then),
        with_rig(a_mark_is_written_after_so_many),
        with_rig(what_was_released_before_it_was_written_is_not),
        with_rig(passing_all_reads_on_behind),
        with_rig(an_emptied_stage_is_all_room),
        with_rig(the_longest_message_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
