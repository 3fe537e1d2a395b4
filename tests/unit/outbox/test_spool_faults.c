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

/* Storage that fails while the spool runs, and power that goes after any operation. Segments hold about twenty
 * messages. */
enum { SEGMENT_BYTES = 2048, SEGMENTS = 8 };

static const char EIO_TEXT[] = "Input/output error";
static const char ENOSPC_TEXT[] = "No space left on device";

static int open_rig(void **state)
{
    static struct spool_rig rig;
    spool_rig_open(&rig, SEGMENT_BYTES, SEGMENTS, 7);
    *state = &rig;
    return spool_rig_start(&rig) ? 0 : -1;
}

static int close_rig(void **state)
{
    spool_rig_close(*state);
    return 0;
}

static void pass(struct spool_rig *rig, uint64_t ms)
{
    rig->now_ms += ms;
    spool_rig_settle(rig);
}

/* After a restart that nobody announced, all that was said to be synced is there, once, and in order; and nothing that
 * was never appended. */
static void assert_whole_after(struct spool_rig *rig, enum faulty_cut cut)
{
    uint64_t message;
    uint64_t sequence;
    uint64_t next = 0;
    spool_rig_cut_power(rig, cut);
    assert_true(spool_rig_start(rig));
    while (spool_rig_read(rig, &message, &sequence)) {
        for (; next < message; next++) {
            assert_true(!rig->is_synced[next] || next < rig->done_count);
        }
        assert_int_equal(next, message);
        next++;
    }
    for (; next < rig->appended_count; next++) {
        assert_true(!rig->is_synced[next] || next < rig->done_count);
    }
}

static void a_failed_write_is_not_told_as_synced(void **state)
{
    struct spool_rig *rig = *state;
    spool_rig_append_many(rig, 5);
    spool_rig_settle(rig);
    faulty_fail(&rig->faulty, FAULTY_WRITE, 0, 1, ENOSPC_TEXT);
    spool_rig_append_many(rig, 5);
    spool_rig_settle(rig);
    assert_int_equal(rig->synced_count, 5);
    assert_true(spool_counters(rig->spool)->is_failing);
    assert_int_equal(spool_counters(rig->spool)->write_failure_count, 1);
    assert_int_equal(spool_rig_log_count(rig, "event=spool_write_failed"), 1);
    assert_int_equal(spool_rig_log_count(
                         rig, "reason=\"No space left on device\" messages=5 retry_ms=1000 remedy=\"see to the disk"),
                     1);
    assert_int_equal(spool_turn(rig->spool, rig->now_ms), rig->now_ms + 1000);
    pass(rig, 999);
    assert_int_equal(rig->synced_count, 5);
    pass(rig, 1);
    assert_int_equal(rig->synced_count, 10);
    assert_false(spool_counters(rig->spool)->is_failing);
    assert_int_equal(spool_rig_log_count(rig, "event=spool_write_recovered"), 1);
    assert_whole_after(rig, FAULTY_CUT_LOSES);
    assert_int_equal(spool_rig_log_count(rig, "spool_lost"), 0);
}

/* A sync that failed is not tried again where it failed: what it lost is lost there, whatever a second sync says. */
static void a_failed_sync_is_not_believed_later(void **state)
{
    struct spool_rig *rig = *state;
    spool_rig_append_many(rig, 5);
    spool_rig_settle(rig);
    faulty_fail(&rig->faulty, FAULTY_SYNC, 0, 1, EIO_TEXT);
    spool_rig_append_many(rig, 5);
    spool_rig_settle(rig);
    assert_int_equal(rig->synced_count, 5);
    uint32_t free_count = spool_counters(rig->spool)->segment_free_count;
    pass(rig, 1000);
    assert_int_equal(rig->synced_count, 10);
    assert_int_equal(spool_counters(rig->spool)->segment_free_count, free_count - 1); /* another segment */
    assert_whole_after(rig, FAULTY_CUT_LOSES);
    spool_rig_append_many(rig, 5);
    spool_rig_settle(rig);
    assert_whole_after(rig, FAULTY_CUT_LOSES);
    assert_int_equal(spool_rig_log_count(rig, "spool_lost"), 0);
}

static void a_write_that_is_cut_short(void **state)
{
    struct spool_rig *rig = *state;
    for (size_t written = 0; written < 400; written += 13) {
        spool_rig_append_many(rig, 4);
        faulty_fail(&rig->faulty, FAULTY_WRITE, written % 2, 1, EIO_TEXT);
        rig->faulty.rules[FAULTY_WRITE].written_bytes = written;
        spool_rig_settle(rig);
        assert_true(rig->synced_count < rig->appended_count);
        spool_rig_append_many(rig, 2);
        pass(rig, 1000);
        assert_int_equal(rig->synced_count, rig->appended_count);
        if (written % 3 == 0) {
            assert_whole_after(rig, FAULTY_CUT_LOSES);
        }
        spool_rig_drain(rig);
    }
    assert_int_equal(spool_rig_log_count(rig, "spool_lost"), 0);
}

static void the_pause_doubles_up_to_its_bound(void **state)
{
    struct spool_rig *rig = *state;
    static const uint64_t waits_ms[] = {1000, 2000, 4000, 8000, 16000, 30000, 30000};
    faulty_fail(&rig->faulty, FAULTY_SYNC, 0, UINT64_MAX, EIO_TEXT);
    spool_rig_append_many(rig, 1);
    spool_rig_settle(rig);
    for (size_t i = 0; i < sizeof waits_ms / sizeof waits_ms[0]; i++) {
        assert_int_equal(spool_counters(rig->spool)->write_failure_count, i + 1);
        pass(rig, waits_ms[i] - 1);
        assert_int_equal(spool_counters(rig->spool)->write_failure_count, i + 1);
        pass(rig, 1);
    }
    faulty_heal(&rig->faulty);
    pass(rig, 30000);
    assert_int_equal(rig->synced_count, 1);
    faulty_fail(&rig->faulty, FAULTY_SYNC, 0, 1, EIO_TEXT);
    spool_rig_append_many(rig, 1);
    spool_rig_settle(rig);
    pass(rig, 1000); /* and begins anew */
    assert_int_equal(rig->synced_count, 2);
}

/* More failures than segments: those that failed are tried again when there is no other, and are room as before. */
static void when_all_segments_have_failed(void **state)
{
    struct spool_rig *rig = *state;
    faulty_fail(&rig->faulty, FAULTY_SYNC, 0, 3 * SEGMENTS, EIO_TEXT);
    spool_rig_append_many(rig, 3);
    spool_rig_settle(rig);
    for (int round = 0; round < 3 * SEGMENTS; round++) {
        assert_true(spool_has_room(rig->spool, SPOOL_RECORD_BYTES(RIG_PAYLOAD_MAX)));
        assert_false(spool_is_filling(rig->spool));
        assert_int_equal(spool_counters(rig->spool)->segment_free_count, SEGMENTS);
        assert_int_equal(rig->synced_count, 0);
        pass(rig, 30000);
    }
    assert_int_equal(rig->synced_count, 3);
    assert_true(spool_has_room(rig->spool, SPOOL_RECORD_BYTES(RIG_PAYLOAD_MAX)));
    assert_whole_after(rig, FAULTY_CUT_LOSES);
}

static void messages_are_taken_while_writes_fail(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t message;
    uint64_t sequence;
    faulty_fail(&rig->faulty, FAULTY_WRITE, 0, UINT64_MAX, EIO_TEXT);
    while (spool_rig_append(rig)) {
        spool_rig_turn(rig);
    }
    assert_in_range(rig->appended_count, 20, 60);
    assert_int_equal(rig->synced_count, 0);
    /* They can be read and released as ever: the broker may be back before the disk is. */
    for (uint64_t i = 0; i < 10; i++) {
        assert_true(spool_rig_read(rig, &message, &sequence));
        assert_int_equal(message, i);
        spool_release(rig->spool, sequence);
    }
    spool_rig_turn(rig);
    uint64_t before = rig->appended_count;
    assert_true(spool_rig_append(rig)); /* and what was released makes room */
    assert_int_equal(rig->appended_count, before + 1);
    faulty_heal(&rig->faulty);
    pass(rig, 1000);
    assert_int_equal(rig->synced_count, rig->appended_count - 10);
    assert_true(spool_rig_append(rig));
    spool_rig_settle(rig);
    spool_rig_cut_power(rig, FAULTY_CUT_LOSES);
    assert_true(spool_rig_start(rig));
    spool_rig_expect(rig, 10, rig->appended_count - 1);
}

static void a_segment_that_cannot_be_opened(void **state)
{
    struct spool_rig *rig = *state;
    faulty_fail(&rig->faulty, FAULTY_OPEN, 0, 1, "Too many open files");
    spool_rig_append_many(rig, 3);
    spool_rig_settle(rig);
    assert_int_equal(rig->synced_count, 0);
    assert_int_equal(spool_rig_log_count(rig, "reason=\"Too many open files\""), 1);
    pass(rig, 1000);
    assert_int_equal(rig->synced_count, 3);
    spool_rig_append_many(rig, 30);
    spool_rig_settle(rig);
    faulty_fail(&rig->faulty, FAULTY_OPEN, 0, 1, "Too many open files"); /* and for reading */
    uint64_t message;
    uint64_t sequence;
    assert_true(spool_rig_read(rig, &message, &sequence));
    assert_int_equal(message, 0); /* a second later */
    assert_int_equal(spool_counters(rig->spool)->lost_count, 0);
    assert_int_equal(spool_rig_log_count(rig, "event=spool_unreadable"), 1);
}

static void a_mark_that_cannot_be_written(void **state)
{
    struct spool_rig *rig = *state;
    spool_rig_append_many(rig, 10);
    spool_rig_settle(rig);
    faulty_fail(&rig->faulty, FAULTY_WRITE, 0, 1, EIO_TEXT);
    spool_rig_expect(rig, 0, 9);
    spool_rig_settle(rig);
    assert_int_equal(spool_counters(rig->spool)->write_failure_count, 1);
    pass(rig, 1000);
    spool_rig_cut_power(rig, FAULTY_CUT_KEEPS);
    assert_true(spool_rig_start(rig));
    spool_rig_expect(rig, 1, 0); /* it stands in the next segment's header */
}

/* A story with all there is in it. It ends early when the power does. */
static void tell_story(struct spool_rig *rig)
{
    uint64_t message;
    uint64_t sequence;
    for (int round = 0; round < 14 && !faulty_is_dead(&rig->faulty); round++) {
        for (int i = 0; i < 3 + round % 5 && spool_rig_append(rig); i++) {
        }
        spool_rig_turn(rig);
        (void)spool_rig_append(rig);
        (void)spool_turn(rig->spool, rig->now_ms);
        (void)spool_rig_append(rig);
        spool_rig_settle(rig);
        for (int i = 0; i < round && spool_rig_read(rig, &message, &sequence); i++) {
            if (faulty_is_dead(&rig->faulty)) {
                return; /* nothing is delivered by a machine without power */
            }
            spool_rig_release(rig, message);
        }
    }
}

static void power_goes_after_every_operation(void **state)
{
    static const enum faulty_cut cuts[] = {FAULTY_CUT_KEEPS, FAULTY_CUT_LOSES, FAULTY_CUT_TEARS, FAULTY_CUT_TEARS};
    (void)state;
    size_t count = 0;
    for (uint64_t operation = 1;; operation++) {
        bool is_over = false;
        for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
            static struct spool_rig rig;
            spool_rig_open(&rig, SEGMENT_BYTES, 4, operation * 10 + i + 1);
            rig.options.stage_bytes = 2048;
            rig.faulty.power_until = operation;
            if (spool_rig_start(&rig)) {
                tell_story(&rig);
                is_over = !faulty_is_dead(&rig.faulty);
                assert_whole_after(&rig, cuts[i]);
            } else {
                assert_true(faulty_is_dead(&rig.faulty));
                faulty_cut_power(&rig.faulty, cuts[i]);
                assert_true(spool_rig_start(&rig));
            }
            /* And the story goes on as if nothing had been, up to a second cut. */
            rig.faulty.power_until = rig.faulty.change_count + 1 + operation % 37;
            tell_story(&rig);
            assert_whole_after(&rig, cuts[i]);
            spool_rig_stop(&rig);
            rig.spool = NULL;
            spool_rig_close(&rig);
            count++;
        }
        if (is_over) {
            break;
        }
    }
    assert_true(count > 400);
}

/* A write failed, its header never reached the disk and some of its records did; the same messages were written again
 * into the next segment. What is left of the first is no reason to lose any of them. */
static void what_a_failed_write_left(void **state)
{
    struct spool_rig *rig = *state;
    static uint8_t bytes[SEGMENT_BYTES];
    uint64_t message;
    uint64_t sequence;
    faulty_fail(&rig->faulty, FAULTY_SYNC, 0, 1, EIO_TEXT);
    spool_rig_append_many(rig, 30);
    spool_rig_settle(rig);
    pass(rig, SPOOL_RETRY_MS_MIN);
    assert_int_equal(rig->synced_count, 30);
    spool_rig_kill(rig);
    assert_int_equal(spool_rig_load(rig, 1, bytes, sizeof bytes), sizeof bytes);
    memset(bytes, 0, SPOOL_SEGMENT_HEADER_BYTES + 40); /* the header, and the first record's */
    memset(bytes + 600, 0, 100);
    spool_rig_save(rig, 0, bytes, sizeof bytes);
    assert_true(spool_rig_start(rig));
    assert_int_equal(spool_rig_log_count(rig, "event=spool_header_damaged segment=0"), 1);
    for (uint64_t expected = 0; expected < 30; expected++) {
        assert_true(spool_rig_read(rig, &message, &sequence));
        assert_int_equal(message, expected);
    }
    assert_false(spool_rig_read(rig, &message, &sequence));
    assert_int_equal(spool_counters(rig->spool)->lost_count, 0);
}

/* Anything, in any order, with everything failing now and then; power cuts and kills between. */
static void a_long_and_unlucky_life(void **state)
{
    struct spool_rig *rig = *state;
    uint64_t random = 4711;
    uint64_t message;
    uint64_t sequence;
    uint64_t cut_count = 0;
    for (int step = 0; step < 12000; step++) {
        random = random * 6364136223846793005U + 1442695040888963407U;
        unsigned dice = (unsigned)(random >> 33) % 1000;
        if (dice < 400) {
            (void)spool_rig_append(rig);
        } else if (dice < 600) {
            spool_rig_turn(rig);
        } else if (dice < 650) {
            (void)spool_turn(rig->spool, rig->now_ms);
        } else if (dice < 900) {
            struct span payload;
            if (spool_peek(rig->spool, &sequence, &payload) == SPOOL_NEXT_MESSAGE) {
                message = spool_rig_message_of(rig, payload);
                spool_pass(rig->spool);
                if (dice % 3 != 0) {
                    spool_rig_release(rig, message);
                }
            }
        } else if (dice < 960) {
            enum faulty_operation operation = dice % 3 == 0 ? FAULTY_SYNC : FAULTY_WRITE;
            faulty_fail(&rig->faulty, operation, dice % 4, 1 + dice % 2, EIO_TEXT);
            rig->faulty.rules[FAULTY_WRITE].written_bytes = dice * 7 % 500;
        } else if (dice < 990) {
            rig->now_ms += 1000;
        } else {
            static const enum faulty_cut cuts[] = {FAULTY_CUT_KEEPS, FAULTY_CUT_LOSES, FAULTY_CUT_TEARS};
            assert_whole_after(rig, cuts[dice % 3]);
            cut_count++;
            spool_rig_kill(rig);
            assert_true(spool_rig_start(rig));
        }
    }
    assert_true(cut_count > 50);
    assert_true(rig->appended_count > 2000);
}

/* Killed after a write and before its sync, started, and then the power goes: what the start found is there as long
 * as what came behind it is. */
static void what_a_start_has_found_stays_found(void **state)
{
    static const enum faulty_cut cuts[] = {FAULTY_CUT_LOSES, FAULTY_CUT_TEARS};
    (void)state;
    size_t left_unsynced_count = 0;
    for (uint64_t round = 0; round < 200; round++) {
        static struct spool_rig rig;
        spool_rig_open(&rig, SEGMENT_BYTES, SEGMENTS, round + 1);
        assert_true(spool_rig_start(&rig));
        spool_rig_append_many(&rig, 10 + (size_t)(round / 2 % 12));
        spool_rig_settle(&rig);
        uint64_t synced_count = rig.synced_count;
        spool_rig_append_many(&rig, 4);
        rig.faulty.power_until = rig.faulty.change_count + 1 + round % 5;
        spool_rig_turn(&rig);
        spool_rig_kill(&rig);
        assert_true(spool_rig_start(&rig));
        uint64_t found_count = rig.found_count;
        left_unsynced_count += found_count > synced_count;
        spool_rig_append_many(&rig, 12);
        spool_rig_settle(&rig);
        spool_rig_cut_power(&rig, cuts[round % 2]);
        assert_true(spool_rig_start(&rig));
        uint64_t message;
        uint64_t sequence;
        for (uint64_t expected = 0; expected < found_count; expected++) {
            assert_true(spool_rig_read(&rig, &message, &sequence));
            assert_int_equal(message, expected);
        }
        assert_int_equal(spool_rig_log_count(&rig, "event=spool_lost"), 0);
        spool_rig_close(&rig);
    }
    assert_true(left_unsynced_count > 50);
}

/* A batch has a bound of its own, so that a start with a smaller stage writes all again that may be in doubt. */
static void a_large_batch_is_secured_by_a_start_with_a_small_stage(void **state)
{
    enum { BATCH = SPOOL_BATCH_BYTES / SPOOL_RECORD_BYTES(RIG_PAYLOAD_MAX) };
    (void)state;
    static struct spool_rig rig;
    spool_rig_open(&rig, 4 * 1024 * 1024, 4, 1);
    size_t small_bytes = rig.options.stage_bytes;
    rig.options.stage_bytes = 2 * 1024 * 1024;
    rig.payload_bytes = RIG_PAYLOAD_MAX;
    assert_true(spool_rig_start(&rig));
    spool_rig_append_many(&rig, BATCH + 100);
    spool_rig_turn(&rig);
    assert_int_equal(rig.synced_count, BATCH);
    spool_rig_settle(&rig);
    spool_rig_append_many(&rig, BATCH);
    rig.faulty.power_until = rig.faulty.change_count + 2; /* its records and the end, and no sync */
    spool_rig_turn(&rig);
    spool_rig_kill(&rig);
    rig.options.stage_bytes = small_bytes;
    uint64_t written_before = rig.faulty.written_bytes;
    assert_true(spool_rig_start(&rig));
    assert_int_equal(rig.found_count, 2 * BATCH + 100);
    assert_true(rig.faulty.written_bytes - written_before >= BATCH * SPOOL_RECORD_BYTES(RIG_PAYLOAD_MAX));
    spool_rig_expect(&rig, 0, 2 * BATCH + 99);
    spool_rig_close(&rig);
}

/* Its write failed and its records went into another segment, with the same sequences. The system may have its header
 * in memory alone; without one its records would count again. */
static void what_a_failed_write_began_is_secured_too(void **state)
{
    (void)state;
    size_t superseded_count = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        static struct spool_rig rig;
        spool_rig_open(&rig, SEGMENT_BYTES, SEGMENTS, seed);
        assert_true(spool_rig_start(&rig));
        faulty_fail(&rig.faulty, FAULTY_SYNC, 0, 1, EIO_TEXT);
        spool_rig_append_many(&rig, 5);
        spool_rig_settle(&rig);
        pass(&rig, 1000);
        assert_int_equal(rig.synced_count, 5);
        uint8_t bytes[SEGMENT_BYTES];
        assert_int_equal(spool_rig_load(&rig, 0, bytes, sizeof bytes), SEGMENT_BYTES);
        bool has_header = !spool_is_zero(bytes, SPOOL_SEGMENT_HEADER_BYTES);
        spool_rig_kill(&rig);
        uint64_t sync_count = rig.faulty.counts[FAULTY_SYNC];
        assert_true(spool_rig_start(&rig));
        assert_int_equal(rig.faulty.counts[FAULTY_SYNC] - sync_count, has_header ? 2 : 1);
        superseded_count += has_header;
        spool_rig_expect(&rig, 0, 4);
        spool_rig_close(&rig);
    }
    assert_true(superseded_count > 5);
}

static void a_segment_that_cannot_be_secured_is_not_written_on(void **state)
{
    struct spool_rig *rig = *state;
    spool_rig_append_many(rig, 5);
    spool_rig_settle(rig);
    spool_rig_kill(rig);
    faulty_fail(&rig->faulty, FAULTY_WRITE, 0, 1, ENOSPC_TEXT);
    assert_true(spool_rig_start(rig));
    assert_int_equal(spool_rig_log_count(rig, "event=spool_unsynced path="), 1);
    assert_int_equal(rig->found_count, 5);
    spool_rig_append_many(rig, 5);
    spool_rig_settle(rig);
    uint8_t bytes[SEGMENT_BYTES];
    assert_int_equal(spool_rig_load(rig, 1, bytes, sizeof bytes), SEGMENT_BYTES);
    assert_false(spool_is_zero(bytes, SPOOL_SEGMENT_HEADER_BYTES));
    spool_rig_expect(rig, 0, 9);
}

int main(void)
{
#define with_rig(test) cmocka_unit_test_setup_teardown(test, open_rig, close_rig)
    const struct CMUnitTest tests[] = {
        with_rig(a_failed_write_is_not_told_as_synced),
        with_rig(a_failed_sync_is_not_believed_later),
        with_rig(a_write_that_is_cut_short),
        with_rig(the_pause_doubles_up_to_its_bound),
        with_rig(when_all_segments_have_failed),
        with_rig(messages_are_taken_while_writes_fail),
        with_rig(a_segment_that_cannot_be_opened),
        with_rig(a_mark_that_cannot_be_written),
        with_rig(what_a_failed_write_left),
        cmocka_unit_test(power_goes_after_every_operation),
        cmocka_unit_test(what_a_start_has_found_stays_found),
        cmocka_unit_test(what_a_failed_write_began_is_secured_too),
        cmocka_unit_test(a_large_batch_is_secured_by_a_start_with_a_small_stage),
        with_rig(a_segment_that_cannot_be_secured_is_not_written_on),
        with_rig(a_long_and_unlucky_life),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
