/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "table_top.h"

/* The outbox full: there is no broker, so nothing ever leaves it. */

enum { OUTBOX_MESSAGES = 200 };

static const char busy[] = "{\"type\":\"busy\",\"retry_after_ms\":500}";

static void small_outbox(struct settings *settings)
{
    settings->outbox_messages = OUTBOX_MESSAGES;
}

/* Fills the outbox until the gateway stops reading the client; returns how many messages were sent. */
static int fill(struct table_top *table, struct client *client)
{
    for (int count = 1;; count++) {
        assert_true(count <= 2 * OUTBOX_MESSAGES);
        client_say(client, "{\"type\":\"text\",\"content\":\"x\"}");
        struct frame frame = client_peek(client);
        if (frame.opcode != 0) {
            assert_string_equal(frame.text, busy);
            assert_true(outbox_counters(table->gateway.outbox)->depth_count <= OUTBOX_MESSAGES);
            return count;
        }
    }
}

static void a_client_is_told_once_and_read_no_more(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(small_outbox);
    struct client *client = client_join(table, "dev-7");
    int sent_count = fill(table, client);
    uint64_t taken_count = outbox_counters(table->gateway.outbox)->taken_count;
    assert_true(taken_count < (uint64_t)sent_count);
    // Much more than fits: none of it is taken, none is lost by a crash, and nothing more is said.
    for (int count = 0; count < 1000; count++) {
        client_say(client, "{\"type\":\"text\",\"content\":\"x\"}");
    }
    assert_int_equal(client_peek(client).opcode, 0);
    assert_int_equal(outbox_counters(table->gateway.outbox)->taken_count, taken_count);
    client_close(client);
    table_top_close(table);
}

static void control_frames_still_work(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(small_outbox);
    struct client *filler = client_join(table, "filler");
    struct client *other = client_join(table, "other");
    (void)fill(table, filler);
    client_send_frame(other, 9, "alive?", 6);
    struct frame frame = client_read(other);
    if (frame.opcode == 1) {
        assert_string_equal(frame.text, busy);
        frame = client_read(other);
    }
    assert_int_equal(frame.opcode, 10);
    assert_string_equal(frame.text, "alive?");
    client_close(filler);
    client_close(other);
    table_top_close(table);
}

static void a_burst_never_overruns_the_outbox(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(small_outbox);
    struct client *clients[10];
    for (int index = 0; index < 10; index++) {
        char name[8];
        (void)snprintf(name, sizeof name, "c%d", index);
        clients[index] = client_join(table, name);
    }
    // The shortest message there is, many in one read, from everybody at once.
    static const char message[] = "{\"type\":\"text\",\"content\":0}";
    static uint8_t burst[500 * (sizeof message + 5)];
    size_t bytes = 0;
    for (int count = 0; count < 500; count++) {
        static const uint8_t header[] = {0x81, 0x80 | (sizeof message - 1), 0, 0, 0, 0};
        memcpy(burst + bytes, header, sizeof header);
        memcpy(burst + bytes + sizeof header, message, sizeof message - 1);
        bytes += sizeof header + sizeof message - 1;
    }
    for (int index = 0; index < 10; index++) {
        assert_int_equal(client_try_send(clients[index], burst, bytes), bytes);
    }
    for (int index = 0; index < 10; index++) {
        client_expect(clients[index], busy);
    }
    assert_in_range(outbox_counters(table->gateway.outbox)->taken_count, OUTBOX_MESSAGES / 4, OUTBOX_MESSAGES);
    assert_int_equal(outbox_counters(table->gateway.outbox)->depth_count,
                     outbox_counters(table->gateway.outbox)->taken_count);
    for (int index = 0; index < 10; index++) {
        client_close(clients[index]);
    }
    table_top_close(table);
}

static void silence_under_pressure_is_not_the_clients(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(small_outbox);
    struct client *client = client_join(table, "dev-7");
    (void)fill(table, client);
    // It is asked, which finds out who is gone; that its answers are not read is not its fault.
    for (int count = 0; count < 5; count++) {
        table->clock_ms += 31000;
        assert_int_equal(client_read(client).opcode, 9);
        client_send_frame(client, 10, "", 0);
        assert_int_equal(client_peek(client).opcode, 0);
    }
    assert_int_equal(table->gateway.sessions.count, 1);
    client_close(client);
    table_top_close(table);
}

static void small_outbox_that_lets_the_stale_be_taken_over(struct settings *settings)
{
    small_outbox(settings);
    settings->session_policy = SETTINGS_SESSION_TAKEOVER_STALE;
}

/* Who is not read cannot be heard: after HEARTBEAT_INTERVAL the newcomer is believed. */
static void who_is_not_read_for_long_can_be_taken_over(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(small_outbox_that_lets_the_stale_be_taken_over);
    struct client *older = client_join(table, "dev-7");
    (void)fill(table, older);
    table->clock_ms += 29000;
    struct client *early = client_open(table, "/dev-7");
    assert_int_equal(client_status(early), 101);
    client_expect(early, "{\"type\":\"error\",\"code\":\"already_connected\",\"error\":\"Already connected\"}");
    client_expect_close(early, 4009);
    table->clock_ms += 1500;
    struct client *newer = client_join(table, "dev-7");
    struct frame frame = client_read(older);
    if (frame.opcode == 9) {
        frame = client_read(older);
    }
    assert_int_equal(frame.code, 4010);
    assert_int_equal(table->gateway.sessions.count, 1);
    client_close(older);
    client_close(early);
    client_close(newer);
    table_top_close(table);
}

static void who_leaves_while_not_read_frees_its_place(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(small_outbox);
    struct client *client = client_join(table, "dev-7");
    (void)fill(table, client);
    client_close(client);
    table->clock_ms += 31000; // it is asked then, and its machine says that there is no such connection any more
    while (table->gateway.sessions.count > 0) {
        (void)table_top_turn(table);
    }
    client_close(client_join(table, "dev-7"));
    table_top_close(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_is_told_once_and_read_no_more),
        cmocka_unit_test(control_frames_still_work),
        cmocka_unit_test(a_burst_never_overruns_the_outbox),
        cmocka_unit_test(silence_under_pressure_is_not_the_clients),
        cmocka_unit_test(who_is_not_read_for_long_can_be_taken_over),
        cmocka_unit_test(who_leaves_while_not_read_frees_its_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
