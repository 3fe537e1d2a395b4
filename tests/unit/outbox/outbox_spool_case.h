/* SPDX-License-Identifier: MIT */
/* An outbox with a spool on the rig: the broker is the fake one, the disk fails when it is told to, the clock is the
 * test's; a ledger of what each message was told, and what must hold when all is over. */
#ifndef POSTERN_TESTS_OUTBOX_SPOOL_CASE_H
#define POSTERN_TESTS_OUTBOX_SPOOL_CASE_H

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
    uint32_t window_messages;
    void *memory;
    struct span queues[2];
    uint32_t taken;
    struct ledger ledger[MESSAGES];
    uint32_t accepted_count;
    uint32_t queued_count;
    uint32_t queued_told_count; /* once more after a start counts too */
    uint32_t rejected_count;
    uint32_t room_count;
    size_t published_before; /* publishes of the broker that were checked */
    uint8_t seen[MESSAGES];  /* in the broker's queue */
    uint32_t last_seen[CLIENTS];
    bool is_restarted;  /* messages of earlier starts are about */
    bool is_without_id; /* the one message there is has none */
};

static inline uint32_t number_in(struct span id)
{
    char text[24] = "";
    assert_true(id.bytes > 0 && id.bytes < sizeof text);
    memcpy(text, id.data, id.bytes);
    return (uint32_t)strtoul(text, NULL, 10);
}

/* Never backwards: accepted, then queued or rejected, each once in a start. */
static inline void on_receipt(void *context, const struct outbox_receipt *receipt)
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
        test->queued_told_count++;
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

static inline void on_room(void *context)
{
    struct test *test = context;
    test->room_count++;
}

static const struct outbox_handler HANDLER = {on_receipt, on_room};

static inline bool make_outbox(struct test *test)
{
    const struct outbox_options options = {.program = "postern-gateway",
                                           .gateway_id = "gw-1",
                                           .brokers = &test->rig.brokers,
                                           .heartbeat_s = 5,
                                           .token = RIG_TOKEN,
                                           .queues = test->queues,
                                           .queue_count = 2,
                                           .queue_type = "quorum",
                                           .message_count_max = test->window_messages,
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

static inline struct test *make_with(uint32_t segments)
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
    test->window_messages = WINDOW_MESSAGES;
    test->rig.broker.acks = true;
    assert_true(make_outbox(test));
    outbox_start(test->rig.outbox, test->rig.now_ms);
    return test;
}

static inline struct test *make(void)
{
    return make_with(SEGMENTS);
}

static inline int remove_one(const char *path, const struct stat *status, int kind, struct FTW *position)
{
    (void)status;
    (void)kind;
    (void)position;
    return remove(path);
}

static inline void end(struct test *test)
{
    rig_close(&test->rig);
    faulty_files_close(&test->faulty);
    (void)nftw(test->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(test->memory);
    free(test);
}

/* The process is gone at once, or the machine's power is; then a new gateway on the same folder. */
static inline void die(struct test *test, enum faulty_cut cut)
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

static inline bool take_to(struct test *test, uint8_t queue_index, size_t content_bytes)
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

static inline bool take_one(struct test *test)
{
    return take_to(test, 0, 1 + test->taken * 7 % 60);
}

static inline void take(struct test *test, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        assert_true(take_one(test));
        if (i % 20 == 19) {
            rig_turn(&test->rig);
        }
    }
}

static inline void break_broker(struct test *test)
{
    fake_broker_reset(&test->rig.broker);
    test->rig.broker.is_deaf = true;
    rig_settle(&test->rig);
}

static inline void mend_broker(struct test *test)
{
    test->rig.broker.is_deaf = false;
}

/* First occurrences of each client's messages come in order, and none was never sent. */
static inline void check_order(struct test *test)
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

static inline bool is_over(struct test *test)
{
    return outbox_empty(test->rig.outbox);
}

static inline void finish(struct test *test)
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

#endif
