/* SPDX-License-Identifier: MIT */
/* From an outage to the drain, and the bounds of memory and disk. */
#define _XOPEN_SOURCE 700
#include "outbox_spool_case.h"

static void while_the_broker_is_well_the_disk_is_not_touched(void **state)
{
    (void)state;
    struct test *test = make();
    rig_pass(&test->rig, 1000, 50);
    for (int i = 0; i < 50; i++) {
        take(test, 60);
        rig_settle(&test->rig);
        rig_pass(&test->rig, 100, 50);
    }
    assert_int_equal(test->queued_count, 3000);
    assert_int_equal(test->faulty.counts[FAULTY_WRITE], 0);
    assert_int_equal(test->faulty.counts[FAULTY_SYNC], 0);
    assert_int_equal(test->accepted_count, 0);
    finish(test);
    end(test);
}

static void a_short_break_costs_no_write(void **state)
{
    (void)state;
    struct test *test = make();
    rig_pass(&test->rig, 1000, 50);
    test->rig.broker.acks = false;
    take(test, 30);
    rig_settle(&test->rig);
    fake_broker_reset(&test->rig.broker);
    rig_pass(&test->rig, FLOW_DOWN_MS - 10, 10);
    assert_int_equal(test->faulty.counts[FAULTY_WRITE], 0);
    test->rig.broker.acks = true;
    finish(test);
    end(test);
}

static void in_an_outage_messages_are_accepted_and_then_drained(void **state)
{
    (void)state;
    struct test *test = make();
    rig_pass(&test->rig, 1000, 50);
    break_broker(test);
    take(test, 50);
    rig_pass(&test->rig, FLOW_DOWN_MS - 100, 50);
    assert_int_equal(test->accepted_count, 0);
    rig_pass(&test->rig, 200, 50);
    assert_int_equal(test->accepted_count, 50);
    take(test, 20); /* and these at once */
    rig_settle(&test->rig);
    assert_int_equal(test->accepted_count, 70);
    assert_int_equal(outbox_spool_counters(test->rig.outbox)->message_count, 70);
    assert_true(outbox_spool_counters(test->rig.outbox)->used_bytes > 70 * 200);
    assert_int_equal(outbox_counters(test->rig.outbox)->spool_state, OUTBOX_SPOOL_WAITING);
    assert_true(outbox_oldest_ms(test->rig.outbox, test->rig.now_ms) >= FLOW_DOWN_MS + 100);
    assert_int_equal(rig_log_count(&test->rig, "event=spool_begin messages=50 cause=\"the broker takes no messages\""),
                     1);
    assert_int_equal(rig_log_count(&test->rig, "event=spool_draining"), 0);
    mend_broker(test);
    finish(test);
    assert_int_equal(test->queued_count, 70);
    assert_int_equal(rig_log_count(&test->rig, "event=spool_draining messages="), 1);
    assert_int_equal(rig_log_count(&test->rig, "event=spool_drained accepted=70 dropped=0"), 1);
    assert_int_equal(outbox_counters(test->rig.outbox)->spool_state, OUTBOX_SPOOL_EMPTY);
    assert_int_equal(outbox_spool_counters(test->rig.outbox)->used_bytes, 0);
    assert_int_equal(test->faulty.counts[FAULTY_READ], 0); /* they were in memory all the time */
    /* And then the disk is left alone again. */
    uint64_t writes = test->faulty.counts[FAULTY_WRITE];
    take(test, 80);
    finish(test);
    assert_int_equal(test->faulty.counts[FAULTY_WRITE], writes);
    assert_int_equal(test->accepted_count, 70);
    end(test);
}

static void more_than_memory_holds_goes_over_the_disk(void **state)
{
    (void)state;
    struct test *test = make();
    rig_pass(&test->rig, 1000, 50);
    break_broker(test);
    rig_pass(&test->rig, 1000, 50);
    take(test, 1200); /* twelve windows full */
    rig_settle(&test->rig);
    assert_int_equal(test->accepted_count, 1200);
    assert_int_equal(outbox_counters(test->rig.outbox)->depth_count, 1200);
    mend_broker(test);
    uint64_t begin_ms = test->rig.now_ms;
    while (test->queued_count < 600) { /* new ones come in while it drains, behind the others */
        take(test, 3);
        rig_pass(&test->rig, 20, 10);
    }
    /* The messages say of themselves to be of a day long ago: the wall's clock was wrong when they came. */
    assert_true(outbox_oldest_ms(test->rig.outbox, test->rig.now_ms) <= test->rig.now_ms - begin_ms + 1000);
    finish(test);
    assert_int_equal(test->queued_count, test->taken);
    uint64_t writes = test->faulty.counts[FAULTY_WRITE];
    take(test, 50);
    finish(test);
    assert_int_equal(test->faulty.counts[FAULTY_WRITE], writes); /* through memory again */
    end(test);
}

/* The window holds more bytes than can be on their way to the disk at once: it is spilled in parts. */
static void all_of_an_outage_is_accepted_however_large(void **state)
{
    (void)state;
    struct test *test = make();
    rig_pass(&test->rig, 1000, 50);
    break_broker(test);
    uint32_t refused_count = 0;
    while (test->taken < 300) {
        if (!take_to(test, 0, CONTENT_MAX)) {
            refused_count++;
            rig_settle(&test->rig);
        }
    }
    rig_pass(&test->rig, 1000, 50);
    assert_true(refused_count > 0);
    assert_int_equal(test->accepted_count, 300);
    assert_int_equal(outbox_spool_counters(test->rig.outbox)->message_count, 300);
    mend_broker(test);
    finish(test);
    end(test);
}

/* A drain that takes its time says now and then how much is left, in the log and in the counters. */
static void what_is_left_of_a_drain_is_shown(void **state)
{
    (void)state;
    struct test *test = make();
    break_broker(test);
    rig_pass(&test->rig, 1000, 50);
    take(test, 1000);
    rig_settle(&test->rig);
    test->rig.broker.acks = false;
    mend_broker(test);
    uint64_t left = 1000;
    uint64_t bytes = outbox_spool_counters(test->rig.outbox)->used_bytes;
    for (uint64_t acked = 0; left > 100;) {
        rig_pass(&test->rig, 200, 50);
        if (acked < test->rig.broker.publish_count) {
            acked += acked + 4 < test->rig.broker.publish_count ? 4 : 1;
            fake_broker_ack(&test->rig.broker, acked, true);
            rig_settle(&test->rig);
        }
        const struct spool_counters *spool = outbox_spool_counters(test->rig.outbox);
        assert_true(spool->message_count <= left && spool->used_bytes <= bytes);
        assert_true(acked == 0 || outbox_counters(test->rig.outbox)->spool_state == OUTBOX_SPOOL_DRAINING);
        left = spool->message_count;
        bytes = spool->used_bytes;
    }
    assert_true(bytes < (uint64_t)SEGMENTS * SEGMENT_BYTES / 2);
    assert_in_range(rig_log_count(&test->rig, "event=spool_draining"), 3, 30);
    fake_broker_ack(&test->rig.broker, 0, true);
    test->rig.broker.acks = true;
    finish(test);
    end(test);
}

/* Messages that come without a pause must not keep the way over the disk for ever. */
static void it_catches_up_with_a_steady_stream(void **state)
{
    (void)state;
    struct test *test = make();
    break_broker(test);
    rig_pass(&test->rig, 1000, 50);
    take(test, 500);
    rig_settle(&test->rig);
    mend_broker(test);
    uint64_t writes = 0;
    int quiet_turns = 0;
    for (int i = 0; i < 3000 && quiet_turns < 300; i++) {
        take(test, 2);
        rig_pass(&test->rig, 10, 10);
        quiet_turns = test->faulty.counts[FAULTY_WRITE] == writes ? quiet_turns + 1 : 0;
        writes = test->faulty.counts[FAULTY_WRITE];
    }
    assert_int_equal(quiet_turns, 300);
    finish(test);
    end(test);
}

static void an_alarm_spills_too(void **state)
{
    (void)state;
    struct test *test = make();
    rig_pass(&test->rig, 1000, 50);
    fake_broker_blocked(&test->rig.broker, true);
    rig_settle(&test->rig);
    take(test, 10);
    rig_pass(&test->rig, FLOW_DOWN_MS + 100, 50);
    assert_int_equal(test->accepted_count, 10);
    assert_int_equal(test->rig.broker.publish_count, 0);
    fake_broker_blocked(&test->rig.broker, false);
    finish(test);
    end(test);
}

static void a_broker_that_says_nothing_spills_too(void **state)
{
    (void)state;
    struct test *test = make();
    rig_pass(&test->rig, 1000, 50);
    test->rig.broker.acks = false;
    take(test, 10);
    rig_pass(&test->rig, FLOW_STALLED_MS - 100, 50);
    assert_int_equal(test->rig.broker.publish_count, 10);
    assert_int_equal(test->accepted_count, 0);
    rig_pass(&test->rig, 200, 50);
    assert_int_equal(test->accepted_count, 10);
    fake_broker_ack(&test->rig.broker, 10, true);
    rig_settle(&test->rig);
    assert_int_equal(test->queued_count, 10);
    finish(test);
    end(test);
}

static void slower_than_the_window_goes_over_the_disk(void **state)
{
    (void)state;
    struct test *test = make();
    rig_pass(&test->rig, 1000, 50);
    test->rig.broker.acks = false;
    uint64_t acked = 0;
    for (int i = 0; i < 200; i++) {
        take(test, 5);
        rig_settle(&test->rig);
        if (i % 3 == 0 && acked < test->rig.broker.publish_count) {
            fake_broker_ack(&test->rig.broker, ++acked, false);
        }
        rig_pass(&test->rig, 10, 10);
    }
    assert_true(test->accepted_count > 500);
    assert_true(outbox_counters(test->rig.outbox)->depth_count > 900);
    fake_broker_ack(&test->rig.broker, 0, true); /* all so far */
    test->rig.broker.acks = true;
    finish(test);
    end(test);
}

/* A confirm that comes while the sync is under way: `queued` was said, `accepted` is not said after it. */
static void accepted_never_comes_after_queued(void **state)
{
    (void)state;
    struct test *test = make();
    rig_pass(&test->rig, 1000, 50);
    test->rig.broker.acks = false;
    take(test, 20);
    rig_pass(&test->rig, FLOW_STALLED_MS - 50, 50);
    test->faulty.is_held = true;
    rig_pass(&test->rig, 100, 50);
    assert_int_equal(test->faulty.job_count, 1); /* the write is out */
    fake_broker_ack(&test->rig.broker, 3, false);
    fake_broker_ack(&test->rig.broker, 7, false);
    fake_broker_ack(&test->rig.broker, 1, false);
    rig_settle(&test->rig);
    assert_int_equal(test->queued_count, 3);
    test->faulty.is_held = false;
    rig_settle(&test->rig);
    assert_int_equal(test->accepted_count, 17);
    fake_broker_ack(&test->rig.broker, 20, true);
    finish(test);
    end(test);
}

static void a_full_spool_drops_the_oldest(void **state)
{
    (void)state;
    struct test *test = make();
    rig_pass(&test->rig, 1000, 50);
    break_broker(test);
    test->spool.drops_oldest = true;
    die(test, FAULTY_CUT_KEEPS);
    uint32_t full_count = 0;
    for (uint32_t i = 0; i < 6000; i++) {
        if (!take_one(test)) {
            full_count++;
        }
        if (i % 20 == 19) {
            rig_settle(&test->rig);
        }
        if (i == 100) {
            rig_pass(&test->rig, 1000, 50);
        }
    }
    assert_int_equal(full_count, 0);
    assert_true(test->rejected_count > 2000);
    assert_int_equal(outbox_counters(test->rig.outbox)->dropped_count, test->rejected_count);
    assert_int_equal(rig_log_count(&test->rig, "event=message_dropped client=c0 id=0 "), 1);
    assert_int_equal(rig_log_count(&test->rig, "event=message_dropped"), test->rejected_count);
    for (uint32_t n = 0; n < test->rejected_count; n++) {
        assert_int_equal(test->ledger[n].rejected, 1); /* the oldest, without a gap */
    }
    die(test, FAULTY_CUT_LOSES); /* and they stay away */
    mend_broker(test);
    finish(test);
    assert_true(test->rig.broker.publish_count > 1000);
    assert_int_equal(test->seen[0], 0);
    end(test);
}

/* It confirms steadily, and less than comes: a window that is much larger than what is on its way to the disk at once
 * goes there part by part, and what follows over it. */
static void a_slow_broker_is_no_pressure_while_the_disk_has_room(void **state)
{
    (void)state;
    enum { WINDOW = 400 };
    struct test *test = make();
    rig_pass(&test->rig, 1000, 50);
    break_broker(test);
    test->spool.stage_bytes = 8000;
    test->window_messages = WINDOW;
    die(test, FAULTY_CUT_KEEPS);
    test->rig.broker.acks = false;
    mend_broker(test);
    rig_pass(&test->rig, 1000, 50);
    uint64_t acked_tag = 0;
    uint32_t told_count = test->room_count; /* who was refused waits to be told */
    for (int i = 0; i < 400; i++) {
        for (int k = 0; k < 3 && test->room_count >= told_count; k++) {
            told_count = test->room_count + !take_one(test);
        }
        rig_pass(&test->rig, 100, 50);
        if (i % 10 == 9 && test->rig.broker.publish_count > acked_tag) {
            fake_broker_ack(&test->rig.broker, ++acked_tag, false);
        }
    }
    assert_true(test->taken > 2 * WINDOW);
    assert_true(acked_tag > 30);
    fake_broker_ack(&test->rig.broker, 0, true);
    test->rig.broker.acks = true;
    finish(test);
    end(test);
}

/* A promise holds for each message of it, wherever the end of the stage's ring falls. */
static void what_was_promised_is_taken(void **state)
{
    (void)state;
    struct test *test = make();
    uint64_t random = 1;
    uint32_t refused_count = 0;
    rig_pass(&test->rig, 1000, 50);
    break_broker(test);
    test->spool.stage_bytes = 8000;
    die(test, FAULTY_CUT_KEEPS);
    while (test->taken < 2 * WINDOW_MESSAGES) { /* then the way is over the disk */
        (void)take_one(test);
        rig_settle(&test->rig);
    }
    for (uint32_t round = 0; round < 2000 && test->taken < 1200; round++) {
        random = random * 6364136223846793005ULL + 1442695040888963407ULL;
        uint32_t long_bytes = 200 + (uint32_t)(random >> 40) % (CONTENT_MAX - 200);
        uint32_t count = 2 + (uint32_t)(random >> 33) % 2;
        if (outbox_has_room(test->rig.outbox, count, long_bytes + count - 1)) {
            assert_true(take_to(test, 0, long_bytes));
            for (uint32_t i = 1; i < count; i++) {
                assert_true(take_to(test, 0, 1));
            }
        } else {
            refused_count++;
        }
        test->rig.faulty->is_held = random >> 60 < 8;
        rig_turn(&test->rig);
    }
    assert_true(refused_count > 50);
    test->rig.faulty->is_held = false;
    mend_broker(test);
    finish(test);
    end(test);
}

/* What is only on its way to the disk takes no room there: dropping it would make none. */
static void what_is_not_on_the_disk_is_not_dropped(void **state)
{
    (void)state;
    enum { ON_DISK = 20 };
    struct test *test = make_with(9); /* hardly more than two stages */
    rig_pass(&test->rig, 1000, 50);
    test->spool.drops_oldest = true;
    test->window_messages = 1000;
    die(test, FAULTY_CUT_KEEPS);
    break_broker(test);
    take(test, ON_DISK);
    rig_pass(&test->rig, FLOW_DOWN_MS + 100, 50);
    assert_int_equal(test->accepted_count, ON_DISK);
    for (int i = 0; i < 400; i++) {
        assert_true(take_one(test)); /* in one turn: more than the stage holds */
    }
    rig_turn(&test->rig);
    assert_in_range(test->rejected_count, 1, ON_DISK);
    mend_broker(test);
    finish(test);
    end(test);
}

static void a_full_spool_takes_no_more_until_it_drains(void **state)
{
    (void)state;
    struct test *test = make();
    rig_pass(&test->rig, 1000, 50);
    break_broker(test);
    rig_pass(&test->rig, 1000, 50);
    while (outbox_has_room(test->rig.outbox, 4, 4 * 60)) {
        for (int i = 0; i < 4; i++) {
            assert_true(take_one(test)); /* promised */
        }
        rig_settle(&test->rig);
    }
    assert_true(test->taken > 1500);
    assert_int_equal(test->accepted_count, test->taken);
    rig_pass(&test->rig, 5000, 100);
    assert_int_equal(test->room_count, 0);
    assert_int_equal(test->rejected_count, 0);
    mend_broker(test);
    for (int i = 0; i < 1000 && test->room_count == 0; i++) {
        rig_pass(&test->rig, 50, 50);
        rig_settle(&test->rig);
    }
    assert_int_equal(test->room_count, 1);
    assert_true(outbox_has_room(test->rig.outbox, 4, 4 * 60));
    finish(test);
    end(test);
}

static void room_that_was_promised_is_there(void **state)
{
    (void)state;
    struct test *test = make_with(12);
    size_t promised = 0;
    size_t refused = 0;
    srand(11);
    for (int round = 0; round < 1500 && test->rig.broker.publish_count < FAKE_PUBLISHES_MAX - 2500; round++) {
        size_t count = 1 + (size_t)rand() % 6;
        size_t sizes[6];
        size_t bytes = 0;
        for (size_t i = 0; i < count; i++) {
            sizes[i] = rand() % 5 == 0 ? 1 + (size_t)rand() % (CONTENT_MAX - 1) : 1 + (size_t)rand() % 50;
            bytes += sizes[i];
        }
        if (outbox_has_room(test->rig.outbox, count, bytes)) {
            promised++;
            for (size_t i = 0; i < count; i++) {
                assert_true(take_to(test, 0, sizes[i]));
            }
        } else {
            refused++;
        }
        if (rand() % 3 == 0) {
            rig_turn(&test->rig);
        }
        if (round % 300 == 50) {
            break_broker(test);
        } else if (round % 300 == 270) {
            mend_broker(test);
            rig_pass(&test->rig, 2000, 100);
        }
        if (round % 50 == 0) {
            rig_pass(&test->rig, 300, 100);
        }
    }
    assert_true(promised > 400);
    assert_true(refused > 10);
    mend_broker(test);
    finish(test);
    end(test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(while_the_broker_is_well_the_disk_is_not_touched),
        cmocka_unit_test(a_short_break_costs_no_write),
        cmocka_unit_test(in_an_outage_messages_are_accepted_and_then_drained),
        cmocka_unit_test(more_than_memory_holds_goes_over_the_disk),
        cmocka_unit_test(all_of_an_outage_is_accepted_however_large),
        cmocka_unit_test(what_is_left_of_a_drain_is_shown),
        cmocka_unit_test(it_catches_up_with_a_steady_stream),
        cmocka_unit_test(an_alarm_spills_too),
        cmocka_unit_test(a_broker_that_says_nothing_spills_too),
        cmocka_unit_test(slower_than_the_window_goes_over_the_disk),
        cmocka_unit_test(accepted_never_comes_after_queued),
        cmocka_unit_test(a_full_spool_drops_the_oldest),
        cmocka_unit_test(a_slow_broker_is_no_pressure_while_the_disk_has_room),
        cmocka_unit_test(what_was_promised_is_taken),
        cmocka_unit_test(what_is_not_on_the_disk_is_not_dropped),
        cmocka_unit_test(a_full_spool_takes_no_more_until_it_drains),
        cmocka_unit_test(room_that_was_promised_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
