/* SPDX-License-Identifier: MIT */
/* The outbox with its spool: from an outage to the drain, over kills, power cuts and full disks. The broker is the fake
 * one, the disk fails when it is told to, and the clock is the test's. */
#define _XOPEN_SOURCE 700
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "flow.h"
#include "rig.h"
#include "spool.h"
#include "text.h"

enum {
    MESSAGES = 20000,
    WINDOW_MESSAGES = 100,
    CONTENT_MAX = 1024,
    SEGMENT_BYTES = 16384,
    SEGMENTS = 40,
    MEMORY_BYTES = 4 * 1024 * 1024,
    CLIENTS = 3
};

struct ledger {
    uint8_t accepted;
    uint8_t queued;
    uint8_t rejected; /* 1: told so; 2: it may be gone */
};

struct test {
    struct rig rig;
    struct faulty_files faulty;
    char folder[64];
    char directory[96];
    struct outbox_spool spool;
    void *memory;
    struct span queues[2];
    uint32_t taken;
    struct ledger ledger[MESSAGES];
    uint32_t accepted_count;
    uint32_t queued_count;
    uint32_t rejected_count;
    uint32_t room_count;
    size_t published_before; /* publishes of the broker that were checked */
    uint8_t seen[MESSAGES];  /* in the broker's queue */
    uint32_t last_seen[CLIENTS];
    bool is_restarted;  /* messages of earlier starts are about */
    bool is_without_id; /* the one message there is has none */
};

static uint32_t number_in(struct span id)
{
    char text[24] = "";
    assert_true(id.bytes > 0 && id.bytes < sizeof text);
    memcpy(text, id.data, id.bytes);
    return (uint32_t)strtoul(text, NULL, 10);
}

/* Never backwards: accepted, then queued or rejected, each once in a start. */
static void on_receipt(void *context, const struct outbox_receipt *receipt)
{
    struct test *test = context;
    if (test->is_without_id) {
        assert_int_equal(receipt->id.bytes, 0);
        assert_memory_equal(receipt->name.data, "gw-1-", 5);
        return;
    }
    uint32_t n = number_in(receipt->id);
    assert_true(n < test->taken + 1);
    assert_true(span_equal(receipt->id, receipt->name));
    bool is_own = receipt->origin.session_generation != 0;
    assert_true(is_own || test->is_restarted);
    assert_true(!is_own || (receipt->origin.seq == n && receipt->origin.session_index == n + 1));
    struct ledger *ledger = &test->ledger[n];
    switch (receipt->status) {
    case RECEIPT_ACCEPTED:
        assert_true(is_own);
        assert_int_equal(ledger->accepted + ledger->queued + ledger->rejected, 0);
        ledger->accepted = 1;
        test->accepted_count++;
        break;
    case RECEIPT_QUEUED:
        assert_int_not_equal(ledger->rejected, 1);
        assert_true(ledger->queued == 0 || !is_own);
        test->queued_count += ledger->queued == 0;
        ledger->queued = 1;
        break;
    case RECEIPT_REJECTED:
        assert_int_equal(ledger->queued + ledger->rejected, 0);
        assert_true(span_is(receipt->code, "dropped"));
        assert_true(receipt->reason.bytes > 0);
        ledger->rejected = 1;
        test->rejected_count++;
        break;
    case RECEIPT_STORED:
    case RECEIPT_DEAD:
        fail();
    }
}

static void on_room(void *context)
{
    struct test *test = context;
    test->room_count++;
}

static const struct outbox_handler HANDLER = {on_receipt, on_room};

static bool make_outbox(struct test *test)
{
    const struct outbox_options options = {.program = "postern-gateway",
                                           .gateway_id = "gw-1",
                                           .brokers = &test->rig.brokers,
                                           .heartbeat_s = 5,
                                           .token = RIG_TOKEN,
                                           .queues = test->queues,
                                           .queue_count = 2,
                                           .queue_type = "quorum",
                                           .message_count_max = WINDOW_MESSAGES,
                                           .bytes_max = 1 << 20,
                                           .content_bytes_max = CONTENT_MAX,
                                           .window_count_max = 64,
                                           .spool = &test->spool};
    char buffer[256];
    struct text error = text_in(buffer, sizeof buffer);
    test->memory = aligned_alloc(4096, MEMORY_BYTES);
    memset(test->memory, 0, MEMORY_BYTES);
    arena_begin(&test->rig.arena, test->memory, MEMORY_BYTES);
    rig_make_outbox(&test->rig, &options, &HANDLER, test);
    return outbox_open(test->rig.outbox, &error);
}

static struct test *make_with(uint32_t segments)
{
    struct test *test = calloc(1, sizeof *test);
    rig_open(&test->rig);
    faulty_files_open(&test->faulty, &test->rig.port, 3);
    test->rig.port = test->faulty.port;
    test->rig.faulty = &test->faulty;
    (void)snprintf(test->folder, sizeof test->folder, "/tmp/postern-outbox-XXXXXX");
    assert_non_null(mkdtemp(test->folder));
    (void)snprintf(test->directory, sizeof test->directory, "%s/spool", test->folder);
    test->queues[0] = span_text("messages");
    test->queues[1] = span_text("voice");
    test->spool = (struct outbox_spool){.directory = test->directory,
                                        .bytes_max = segments * SEGMENT_BYTES,
                                        .segment_bytes = SEGMENT_BYTES,
                                        .stage_bytes = 64 * 1024};
    test->rig.broker.acks = true;
    assert_true(make_outbox(test));
    outbox_start(test->rig.outbox, test->rig.now_ms);
    return test;
}

static struct test *make(void)
{
    return make_with(SEGMENTS);
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *position)
{
    (void)status;
    (void)kind;
    (void)position;
    return remove(path);
}

static void end(struct test *test)
{
    rig_close(&test->rig);
    faulty_files_close(&test->faulty);
    (void)nftw(test->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(test->memory);
    free(test);
}

/* The process is gone at once, or the machine's power is; then a new gateway on the same folder. */
static void die(struct test *test, enum faulty_cut cut)
{
    struct outbox *outbox = test->rig.outbox;
    amqp_link_close(outbox_link(outbox), test->rig.now_ms);
    amqp_link_close(outbox_link(outbox), test->rig.now_ms);
    faulty_cut_power(&test->faulty, cut);
    amqp_link_release(outbox_link(outbox));
    free(test->memory);
    test->is_restarted = true;
    for (uint32_t n = 0; n < test->taken; n++) {
        /* What was neither accepted nor queued may be gone: its client sends it again, if it cares. */
        struct ledger *ledger = &test->ledger[n];
        if (ledger->accepted + ledger->queued + ledger->rejected == 0) {
            ledger->rejected = 2;
        }
    }
    assert_true(make_outbox(test));
    outbox_start(test->rig.outbox, test->rig.now_ms);
}

static bool take_to(struct test *test, uint8_t queue_index, size_t content_bytes)
{
    char client[16];
    char id[16];
    static char content[CONTENT_MAX];
    uint32_t n = test->taken;
    assert_true(n < MESSAGES);
    snprintf(client, sizeof client, "c%u", n % CLIENTS);
    snprintf(id, sizeof id, "%u", n);
    memset(content, '1', content_bytes);
    const struct outbox_message message = {.client_id = span_text(client),
                                           .id = span_text(id),
                                           .type = span_text("text"),
                                           .content = span_of(content, content_bytes),
                                           .received_wall_ms = 1795449192123,
                                           .queue_index = queue_index,
                                           .origin = {n + 1, 7, n}};
    if (outbox_take(test->rig.outbox, &message, test->rig.now_ms) != OUTBOX_TAKEN) {
        return false;
    }
    test->taken++;
    return true;
}

static bool take_one(struct test *test)
{
    return take_to(test, 0, 1 + test->taken * 7 % 60);
}

static void take(struct test *test, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        assert_true(take_one(test));
        if (i % 20 == 19) {
            rig_turn(&test->rig);
        }
    }
}

static void break_broker(struct test *test)
{
    fake_broker_reset(&test->rig.broker);
    test->rig.broker.is_deaf = true;
    rig_settle(&test->rig);
}

static void mend_broker(struct test *test)
{
    test->rig.broker.is_deaf = false;
}

/* First occurrences of each client's messages come in order, and none was never sent. */
static void check_order(struct test *test)
{
    for (; test->published_before < test->rig.broker.publish_count; test->published_before++) {
        const struct fake_publish *publish = &test->rig.broker.publishes[test->published_before];
        const char *id = strchr(publish->message_id, ':') + 1;
        uint32_t n = (uint32_t)strtoul(id, NULL, 10);
        char start[64];
        assert_true(n < test->taken);
        snprintf(start, sizeof start, "{\"client_id\":\"c%u\",\"type\":\"text\",\"content\":1", n % CLIENTS);
        assert_memory_equal(publish->body, start, strlen(start));
        assert_true(strstr(publish->body, "\"gateway\":\"gw-1\"") != NULL);
        if (!test->seen[n]) {
            assert_true(n < CLIENTS || test->last_seen[n % CLIENTS] < n);
            test->last_seen[n % CLIENTS] = n;
            test->seen[n] = 1;
        }
    }
}

static bool is_over(struct test *test)
{
    return outbox_empty(test->rig.outbox);
}

static void finish(struct test *test)
{
    for (int i = 0; i < 3000 && !is_over(test); i++) {
        rig_settle(&test->rig);
        rig_pass(&test->rig, 200, 50);
    }
    rig_settle(&test->rig);
    assert_true(is_over(test));
    check_order(test);
    for (uint32_t n = 0; n < test->taken; n++) {
        const struct ledger *ledger = &test->ledger[n];
        assert_true(ledger->queued + ledger->rejected == 1 || ledger->rejected == 2);
        assert_true(!ledger->queued || test->seen[n]);
    }
    assert_int_equal(outbox_spool_counters(test->rig.outbox)->message_count, 0);
    assert_int_equal(outbox_counters(test->rig.outbox)->depth_count, 0);
}

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
    assert_int_equal(rig_log_count(&test->rig, "event=spool_begin"), 1);
    mend_broker(test);
    finish(test);
    assert_int_equal(test->queued_count, 70);
    assert_int_equal(test->faulty.counts[FAULTY_READ], 0); /* they were in memory all the time */
    assert_int_equal(rig_log_count(&test->rig, "event=spool_drained"), 1);
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
    while (test->queued_count < 600) { /* new ones come in while it drains, behind the others */
        take(test, 3);
        rig_pass(&test->rig, 20, 10);
    }
    finish(test);
    assert_int_equal(test->queued_count, test->taken);
    uint64_t writes = test->faulty.counts[FAULTY_WRITE];
    take(test, 50);
    finish(test);
    assert_int_equal(test->faulty.counts[FAULTY_WRITE], writes); /* through memory again */
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
        cmocka_unit_test(while_the_broker_is_well_the_disk_is_not_touched),
        cmocka_unit_test(a_short_break_costs_no_write),
        cmocka_unit_test(in_an_outage_messages_are_accepted_and_then_drained),
        cmocka_unit_test(more_than_memory_holds_goes_over_the_disk),
        cmocka_unit_test(it_catches_up_with_a_steady_stream),
        cmocka_unit_test(an_alarm_spills_too),
        cmocka_unit_test(a_broker_that_says_nothing_spills_too),
        cmocka_unit_test(slower_than_the_window_goes_over_the_disk),
        cmocka_unit_test(accepted_never_comes_after_queued),
        cmocka_unit_test(the_next_start_sends_what_was_accepted),
        cmocka_unit_test(killed_again_and_again_while_it_drains),
        cmocka_unit_test(a_message_keeps_its_made_id_and_its_queue),
        cmocka_unit_test(a_full_spool_drops_the_oldest),
        cmocka_unit_test(a_full_spool_takes_no_more_until_it_drains),
        cmocka_unit_test(a_failing_disk_accepts_nothing_and_loses_nothing),
        cmocka_unit_test(what_is_secured_outlives_the_end),
        cmocka_unit_test(room_that_was_promised_is_there),
        cmocka_unit_test(anything_may_happen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
