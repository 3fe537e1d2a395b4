/* SPDX-License-Identifier: MIT */
/* Kills, power cuts and disks that fail, in the middle of it. */
#define _XOPEN_SOURCE 700
#include "outbox_spool_case.h"
#include "spool_format.h"

static void the_next_start_sends_what_was_accepted(void **state)
{
    (void)state;
    struct test *test = make();
    break_broker(test);
    take(test, 80);
    rig_pass(&test->rig, 1000, 50);
    take(test, 400);
    rig_settle(&test->rig);
    assert_int_equal(test->accepted_count, 480);
    die(test, FAULTY_CUT_LOSES);
    take(test, 30); /* of the new start: they go behind */
    mend_broker(test);
    finish(test);
    assert_int_equal(test->queued_count, 510);
    assert_int_equal(test->rig.broker.publish_count, 510);
    assert_int_equal(rig_log_count(&test->rig, "cause=\"an earlier start left them\""), 1);
    end(test);
}

static void killed_again_and_again_while_it_drains(void **state)
{
    (void)state;
    static const enum faulty_cut cuts[] = {FAULTY_CUT_KEEPS, FAULTY_CUT_LOSES, FAULTY_CUT_TEARS};
    struct test *test = make();
    break_broker(test);
    take(test, 80);
    rig_pass(&test->rig, 1000, 50);
    take(test, 900);
    rig_settle(&test->rig);
    mend_broker(test);
    for (int i = 0; i < 25; i++) {
        for (int turn = 0; turn < 3 + i * 2; turn++) {
            rig_pass(&test->rig, 20, 20);
            if (turn % 4 == 0) {
                (void)take_one(test);
            }
        }
        die(test, cuts[i % 3]);
    }
    finish(test);
    end(test);
}

/* A disk whose syncs fail is no full spool: drop-oldest drops nothing of what was accepted. */
static void a_failing_disk_drops_nothing(void **state)
{
    (void)state;
    struct test *test = make_with(16);
    rig_pass(&test->rig, 1000, 50);
    break_broker(test);
    test->spool.drops_oldest = true;
    die(test, FAULTY_CUT_KEEPS);
    rig_pass(&test->rig, 1000, 50);
    take(test, 200);
    rig_settle(&test->rig);
    assert_int_equal(test->accepted_count, 200);
    faulty_fail(&test->faulty, FAULTY_SYNC, 0, UINT64_MAX, "Input/output error");
    while (take_one(test)) { /* until memory is full, and clients are told so */
    }
    rig_pass(&test->rig, UINT64_C(20) * 60 * 1000, 1000);
    assert_true(outbox_spool_counters(test->rig.outbox)->write_failure_count > 2 * 16);
    assert_int_equal(test->rejected_count, 0);
    assert_int_equal(test->accepted_count, 200);
    faulty_heal(&test->faulty);
    mend_broker(test);
    finish(test);
    assert_int_equal(test->queued_count, test->taken);
    end(test);
}

static void a_message_keeps_its_made_id_and_its_queue(void **state)
{
    (void)state;
    struct test *test = make();
    break_broker(test);
    const struct outbox_message message = {.client_id = span_text("dev-7"),
                                           .type = span_text("text"),
                                           .content = span_text("\"x\""),
                                           .received_wall_ms = 1795449192123,
                                           .queue_index = 1};
    char made[OUTBOX_ID_BYTES_MAX + 1] = "dev-7:";
    struct text text = text_in(made, sizeof made - 1);
    text.used_bytes = 6;
    outbox_write_id(test->rig.outbox, &text, 1);
    made[text.used_bytes] = '\0';
    assert_int_equal(outbox_take(test->rig.outbox, &message, test->rig.now_ms), OUTBOX_TAKEN);
    /* No receipt by id comes for it, so the rest of the test's ledger does not know it. */
    outbox_secure(test->rig.outbox);
    test->faulty.is_held = true;
    (void)outbox_turn(test->rig.outbox, test->rig.now_ms);
    faulty_work(&test->faulty);
    test->faulty.is_held = false;
    struct outbox *outbox = test->rig.outbox;
    amqp_link_close(outbox_link(outbox), test->rig.now_ms);
    amqp_link_close(outbox_link(outbox), test->rig.now_ms);
    faulty_cut_power(&test->faulty, FAULTY_CUT_LOSES);
    amqp_link_release(outbox_link(outbox));
    free(test->memory);
    test->queues[1] = span_text("other"); /* ROUTES changed meanwhile */
    assert_true(make_outbox(test));
    test->rig.broker.acks = false;
    mend_broker(test);
    outbox_start(test->rig.outbox, test->rig.now_ms);
    for (int i = 0; i < 100 && test->rig.broker.publish_count == 0; i++) {
        rig_settle(&test->rig);
        rig_pass(&test->rig, 100, 50);
    }
    const struct fake_publish *publish = &test->rig.broker.publishes[0];
    assert_string_equal(publish->message_id, made);
    assert_string_equal(publish->routing_key, "voice");
    assert_int_equal(publish->timestamp_s, 1795449192);
    assert_int_equal(test->rig.broker.passive_count % 3, 0); /* the third queue is declared too */
    assert_int_equal(rig_log_count(&test->rig, "event=queue_of_spool queue=voice"), 1);
    /* A receipt of the processor finds it, as one of no connection that there is. */
    struct outbox_origin origin;
    uint64_t number;
    struct span ref = span_text(publish->correlation_id);
    assert_int_equal(outbox_settle(test->rig.outbox, span_text("dev-8"), ref, &origin, &number), OUTBOX_REF_FOREIGN);
    assert_false(outbox_empty(test->rig.outbox));
    test->is_without_id = true;
    assert_int_equal(outbox_settle(test->rig.outbox, span_text("dev-7"), ref, &origin, &number), OUTBOX_REF_OURS);
    assert_true(outbox_empty(test->rig.outbox));
    assert_int_equal(origin.session_generation, 0);
    assert_int_equal(number, 0);
    end(test);
}

/* A start that finds 300 messages of an earlier one on its disk, more than it has room for in memory; no broker. */
static struct test *make_with_earlier(void)
{
    struct test *test = make();
    break_broker(test);
    take(test, 300);
    rig_pass(&test->rig, 1000, 50);
    die(test, FAULTY_CUT_LOSES);
    return test;
}

/* The broker got some of them from the start that was killed, and the processor's word on those comes before their
 * second copies are confirmed, or even sent: `queued` is told first, once. */
static void the_processors_word_on_what_an_earlier_start_sent(void **state)
{
    (void)state;
    struct test *test = make_with_earlier();
    take(test, 3);
    rig_settle(&test->rig);
    struct outbox *outbox = test->rig.outbox;
    test->seen[1] = 1; /* in the queue, by the start before */
    outbox_settle_earlier(outbox, span_text("c1"), span_text("1"));
    assert_int_equal(test->ledger[1].queued, 1);
    test->rig.broker.acks = false;
    mend_broker(test);
    for (int i = 0; i < 100 && test->rig.broker.publish_count < 32; i++) {
        rig_pass(&test->rig, 100, 50);
    }
    outbox_settle_earlier(outbox, span_text("c2"), span_text("2")); /* on its way */
    assert_int_equal(test->ledger[2].queued, 1);
    assert_int_equal(test->queued_count, 2);
    outbox_settle_earlier(outbox, span_text("c1"), span_text("1"));
    outbox_settle_earlier(outbox, span_text("c1"), span_text("2"));       /* another client's */
    outbox_settle_earlier(outbox, span_text("c0"), span_of(NULL, 0));     /* of no id */
    outbox_settle_earlier(outbox, span_text("c1"), span_text("nothing")); /* never here */
    outbox_settle_earlier(outbox, span_text("c1"), span_text("301"));     /* this start's own has a ref of its own */
    assert_int_equal(test->queued_count, 2);
    fake_broker_ack(&test->rig.broker, 0, true);
    test->rig.broker.acks = true;
    finish(test);
    assert_int_equal(test->queued_count, 303);
    assert_int_equal(test->rig.broker.publish_count, 302);
    end(test);
}

/* The same for those that have no room in memory yet: `queued` would come after the processor's word, so it is left
 * out. */
static void the_processors_word_on_what_is_still_on_the_disk(void **state)
{
    (void)state;
    struct test *test = make_with_earlier();
    rig_settle(&test->rig);
    struct outbox *outbox = test->rig.outbox;
    outbox_settle_earlier(outbox, span_text("c2"), span_text("200"));
    outbox_settle_earlier(outbox, span_text("c2"), span_text("299"));
    outbox_settle_earlier(outbox, span_text("c1"), span_text("201")); /* another client's */
    take(test, 3);
    test->ledger[200].queued = 1;
    test->ledger[299].queued = 1;
    mend_broker(test);
    finish(test);
    assert_int_equal(test->queued_told_count, 301);
    assert_int_equal(test->rig.broker.publish_count, 303);
    /* Of a message of this start's own nothing is left out, whatever id it has. */
    outbox_settle_earlier(outbox, span_text("c0"), span_text("303"));
    take(test, 1);
    finish(test);
    assert_int_equal(test->queued_told_count, 302);
    end(test);
}

/* What is on the disk alone is waiting all the same. */
static void the_age_of_what_cannot_be_read_yet(void **state)
{
    (void)state;
    struct test *test = make_with_earlier();
    faulty_fail(&test->faulty, FAULTY_READ, 0, UINT64_MAX, "Input/output error");
    rig_pass(&test->rig, 3000, 100);
    assert_int_equal(outbox_counters(test->rig.outbox)->depth_bytes, 0);
    assert_in_range(outbox_oldest_ms(test->rig.outbox, test->rig.now_ms), 2000, 3000);
    faulty_heal(&test->faulty);
    mend_broker(test);
    finish(test);
    assert_int_equal(outbox_oldest_ms(test->rig.outbox, test->rig.now_ms), 0);
    end(test);
}

/* Its checksum is right, and it is none of our messages. */
static void what_is_whole_and_no_message_is_lost(void **state)
{
    (void)state;
    struct test *test = make();
    break_broker(test);
    take(test, 3);
    rig_pass(&test->rig, 1000, 50);
    assert_int_equal(test->accepted_count, 3);
    char path[160];
    uint8_t segment[SEGMENT_BYTES];
    (void)snprintf(path, sizeof path, "%s/00000.segment", test->directory);
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    assert_int_equal(fread(segment, 1, sizeof segment, file), sizeof segment);
    struct spool_header header;
    assert_int_equal(spool_header_read(segment, SEGMENT_BYTES, &header), SPOOL_HEADER_VALID);
    uint8_t *record = segment + SPOOL_SEGMENT_HEADER_BYTES;
    size_t payload_bytes = spool_record_payload(record).bytes;
    memset(record + SPOOL_RECORD_HEADER_BYTES, 0xff, payload_bytes);
    (void)spool_record_write(record, header.first_sequence, payload_bytes);
    spool_record_bind(record, header.salt);
    rewind(file);
    assert_int_equal(fwrite(segment, 1, sizeof segment, file), sizeof segment);
    assert_int_equal(fclose(file), 0);
    die(test, FAULTY_CUT_KEEPS);
    test->ledger[0].rejected = 2;
    mend_broker(test);
    finish(test);
    assert_int_equal(test->queued_count, 2);
    assert_int_equal(outbox_spool_counters(test->rig.outbox)->lost_count, 1);
    assert_int_equal(rig_log_count(&test->rig, "event=spool_lost first=1 last=1 messages=1 cause=\"it is whole and no "
                                               "message"),
                     1);
    end(test);
}

/* It spoke of more than are remembered: of none it is known that it did not. */
static void the_processors_word_on_too_many(void **state)
{
    (void)state;
    struct test *test = make_with_earlier();
    rig_settle(&test->rig);
    outbox_settle_earlier(test->rig.outbox, span_text("c2"), span_text("299"));
    for (int i = 0; i < 64 + SPOOL_MARK_MESSAGES; i++) {
        outbox_settle_earlier(test->rig.outbox, span_text("c1"), span_text("stored long ago"));
    }
    take(test, 3);
    mend_broker(test);
    for (uint32_t n = 0; n < 300; n++) {
        test->ledger[n].queued = 1;
    }
    finish(test);
    assert_int_equal(test->queued_told_count, 3); /* this start's own */
    assert_int_equal(test->rig.broker.publish_count, 303);
    end(test);
}

/* In memory, but so far behind that it is not looked for: the same as on the disk. */
static void the_processors_word_on_what_is_far_behind(void **state)
{
    (void)state;
    enum { EARLIER = 64 + SPOOL_MARK_MESSAGES + 200 };
    struct test *test = make();
    break_broker(test);
    take(test, EARLIER);
    rig_pass(&test->rig, 1000, 50);
    test->window_messages = 2 * EARLIER;
    die(test, FAULTY_CUT_LOSES);
    rig_settle(&test->rig);
    struct outbox *outbox = test->rig.outbox;
    assert_int_equal(outbox_spool_counters(outbox)->unread_count, 0);
    uint32_t far = EARLIER - 1;
    char id[16];
    char client[16];
    (void)snprintf(id, sizeof id, "%u", far);
    (void)snprintf(client, sizeof client, "c%u", far % CLIENTS);
    outbox_settle_earlier(outbox, span_text(client), span_text(id));
    assert_int_equal(test->queued_told_count, 0);
    test->ledger[far].queued = 1;
    mend_broker(test);
    finish(test);
    assert_int_equal(test->queued_told_count, EARLIER - 1);
    end(test);
}

static void a_failing_disk_accepts_nothing_and_loses_nothing(void **state)
{
    (void)state;
    struct test *test = make();
    rig_pass(&test->rig, 1000, 50);
    break_broker(test);
    faulty_fail(&test->faulty, FAULTY_SYNC, 0, UINT64_MAX, "Input/output error");
    take(test, 60);
    rig_pass(&test->rig, 20000, 100);
    assert_int_equal(test->accepted_count, 0);
    assert_true(outbox_spool_counters(test->rig.outbox)->is_failing);
    faulty_heal(&test->faulty);
    rig_pass(&test->rig, 31000, 100);
    assert_int_equal(test->accepted_count, 60);
    faulty_fail(&test->faulty, FAULTY_SYNC, 0, UINT64_MAX, "Input/output error");
    take(test, 30);
    rig_pass(&test->rig, 2000, 100);
    assert_int_equal(test->accepted_count, 60);
    mend_broker(test); /* the broker is back before the disk is */
    finish(test);
    assert_int_equal(test->queued_count, 90);
    assert_int_equal(test->accepted_count, 60);
    faulty_heal(&test->faulty);
    end(test);
}

/* While writes fail messages are taken as long as memory has room, and no longer; then the disk is well again, and the
 * clients that were told to wait are heard. */
static void a_failing_disk_is_pressure_once_memory_is_full(void **state)
{
    (void)state;
    struct test *test = make();
    rig_pass(&test->rig, 1000, 50);
    break_broker(test);
    faulty_fail(&test->faulty, FAULTY_WRITE, 0, UINT64_MAX, "No space left on device");
    while (take_one(test)) {
        rig_pass(&test->rig, 10, 10);
    }
    assert_in_range(test->taken, WINDOW_MESSAGES, WINDOW_MESSAGES + 64 * 1024 / 250);
    assert_true(outbox_counters(test->rig.outbox)->refused_count > 0);
    rig_pass(&test->rig, 60000, 500);
    assert_int_equal(test->accepted_count, 0);
    assert_int_equal(test->room_count, 0);
    uint64_t failures = outbox_spool_counters(test->rig.outbox)->write_failure_count;
    assert_in_range(failures, 5, 10);
    assert_int_equal(rig_log_count(&test->rig, "event=spool_write_failed"), failures);
    assert_int_equal(rig_log_count(&test->rig, "reason=\"No space left on device\""), failures);
    assert_int_equal(rig_log_count(&test->rig, "remedy=\"see to the disk"), failures);
    faulty_heal(&test->faulty);
    rig_pass(&test->rig, 31000, 500);
    assert_int_equal(test->accepted_count, test->taken);
    assert_int_equal(test->room_count, 1);
    assert_true(take_one(test));
    die(test, FAULTY_CUT_LOSES);
    mend_broker(test);
    finish(test);
    assert_int_equal(test->queued_count, test->taken - 1);
    end(test);
}

/* At the end of the program what is not confirmed goes to the disk, without waiting for anything. */
static void what_is_secured_outlives_the_end(void **state)
{
    (void)state;
    struct test *test = make();
    rig_pass(&test->rig, 1000, 50);
    assert_true(outbox_is_secure(test->rig.outbox));
    test->rig.broker.acks = false;
    take(test, 40);
    rig_settle(&test->rig);
    assert_false(outbox_is_secure(test->rig.outbox));
    outbox_secure(test->rig.outbox);
    rig_settle(&test->rig);
    assert_true(outbox_is_secure(test->rig.outbox));
    assert_int_equal(test->accepted_count, 40);
    die(test, FAULTY_CUT_LOSES);
    test->rig.broker.acks = true;
    finish(test);
    assert_int_equal(test->queued_count, 40);
    end(test);
}

/* All of it at once: a broker that comes and goes, a disk that fails, kills and power cuts. */
static void anything_may_happen(void **state)
{
    (void)state;
    static const enum faulty_cut cuts[] = {FAULTY_CUT_KEEPS, FAULTY_CUT_LOSES, FAULTY_CUT_TEARS};
    for (unsigned seed = 1; seed <= 6; seed++) {
        struct test *test = make();
        srand(seed);
        for (int step = 0; step < 700; step++) {
            int dice = rand() % 100;
            if (dice < 45) {
                for (int i = rand() % 12; i > 0 && test->rig.broker.publish_count < FAKE_PUBLISHES_MAX - 4000; i--) {
                    (void)take_one(test);
                }
            } else if (dice < 75) {
                rig_pass(&test->rig, (uint64_t)(rand() % 400), 50);
            } else if (dice < 83) {
                rig_settle(&test->rig);
            } else if (dice < 87) {
                break_broker(test);
            } else if (dice < 92) {
                mend_broker(test);
            } else if (dice < 95) {
                faulty_fail(&test->faulty, rand() % 2 == 0 ? FAULTY_SYNC : FAULTY_WRITE, (uint64_t)(rand() % 3),
                            1 + (uint64_t)(rand() % 3), "Input/output error");
            } else if (dice < 97 && test->rig.broker.publish_count < FAKE_PUBLISHES_MAX - 4000) {
                die(test, cuts[rand() % 3]);
            }
            check_order(test);
        }
        faulty_heal(&test->faulty);
        mend_broker(test);
        rig_pass(&test->rig, 31000, 500);
        finish(test);
        end(test);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_start_sends_what_was_accepted),
        cmocka_unit_test(killed_again_and_again_while_it_drains),
        cmocka_unit_test(a_failing_disk_drops_nothing),
        cmocka_unit_test(a_message_keeps_its_made_id_and_its_queue),
        cmocka_unit_test(the_processors_word_on_what_an_earlier_start_sent),
        cmocka_unit_test(the_processors_word_on_what_is_still_on_the_disk),
        cmocka_unit_test(the_age_of_what_cannot_be_read_yet),
        cmocka_unit_test(what_is_whole_and_no_message_is_lost),
        cmocka_unit_test(the_processors_word_on_too_many),
        cmocka_unit_test(the_processors_word_on_what_is_far_behind),
        cmocka_unit_test(a_failing_disk_accepts_nothing_and_loses_nothing),
        cmocka_unit_test(a_failing_disk_is_pressure_once_memory_is_full),
        cmocka_unit_test(what_is_secured_outlives_the_end),
        cmocka_unit_test(anything_may_happen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
