/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "answers.h"
#include "table_top.h"

/* What comes from the broker's side, handed to the gateway as the downlink would. */

static void receipts(struct table_top *table, const char *body)
{
    answers_downlink_handler.on_receipts(&table->gateway, span_text(body));
}

static void queued(struct table_top *table, const char *client_id, const char *id, const struct session *session,
                   uint32_t seq)
{
    struct session_handle handle = {0};
    if (session != NULL) {
        handle = session_handle_of(&table->gateway.sessions, session);
    }
    char buffer[OUTBOX_ID_BYTES_MAX];
    struct text made = text_in(buffer, sizeof buffer);
    outbox_write_id(table->gateway.outbox, &made, seq);
    const struct outbox_receipt receipt = {
        .client_id = span_text(client_id),
        .id = span_text(id),
        .name = id[0] != '\0' ? span_text(id) : text_span(&made),
        .origin = {.session_index = handle.index, .session_generation = handle.generation, .seq = seq},
        .status = RECEIPT_QUEUED,
    };
    answers_outbox_handler.on_receipt(&table->gateway, &receipt);
}

static struct session *session_named(struct table_top *table, const char *client_id)
{
    return session_find(&table->gateway.sessions, span_text(client_id));
}

static void a_receipt_finds_its_connection(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    struct client *client = client_join(table, "dev-7");
    queued(table, "dev-7", "m1", session_named(table, "dev-7"), 12);
    client_expect(client, "{\"type\":\"receipt\",\"seq\":12,\"id\":\"m1\",\"status\":\"queued\"}");
    queued(table, "dev-7", "", session_named(table, "dev-7"), 13);
    client_expect(client, "{\"type\":\"receipt\",\"seq\":13,\"status\":\"queued\"}");
    client_close(client);
    table_top_close(table);
}

static void after_a_reconnect_it_finds_the_client_by_name(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    struct client *client = client_join(table, "dev-7");
    struct session before = *session_named(table, "dev-7");
    client_close(client);
    while (table->gateway.sessions.count > 0) {
        (void)table_top_turn(table);
    }
    // Nobody there: it goes nowhere.
    receipts(table, "{\"receipts\":[{\"client_id\":\"dev-7\",\"id\":\"m0\",\"ref\":\"\",\"status\":\"stored\"}]}");
    client = client_join(table, "dev-7");
    struct session *session = session_named(table, "dev-7");
    assert_int_not_equal(session->generation, before.generation);
    const struct outbox_receipt old = {
        .client_id = span_text("dev-7"),
        .id = span_text("m1"),
        .origin = {.session_index = session_index(&table->gateway.sessions, session),
                   .session_generation = before.generation,
                   .seq = 4},
        .status = RECEIPT_QUEUED,
    };
    answers_outbox_handler.on_receipt(&table->gateway, &old);
    client_expect(client, "{\"type\":\"receipt\",\"id\":\"m1\",\"status\":\"queued\"}");
    // Without an id nobody could tell what it is for.
    struct outbox_receipt nameless = old;
    nameless.id = span_of(NULL, 0);
    answers_outbox_handler.on_receipt(&table->gateway, &nameless);
    assert_int_equal(client_peek(client).opcode, 0);
    client_close(client);
    table_top_close(table);
}

static void a_batch_reaches_each_client(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    struct client *a = client_join(table, "a");
    struct client *b = client_join(table, "b");
    receipts(table, "{\"receipts\":[{\"client_id\":\"a\",\"id\":\"m1\",\"ref\":\"old\",\"status\":\"stored\"},"
                    "{\"client_id\":\"b\",\"id\":\"m2\",\"ref\":\"\",\"status\":\"rejected\",\"code\":\"rejected\","
                    "\"reason\":\"outside_hours\"},"
                    "{\"client_id\":\"nobody\",\"id\":\"m3\",\"ref\":\"\",\"status\":\"stored\"}]}");
    client_expect(a, "{\"type\":\"receipt\",\"id\":\"m1\",\"status\":\"stored\"}");
    client_expect(b, "{\"type\":\"receipt\",\"id\":\"m2\",\"status\":\"rejected\",\"code\":\"rejected\","
                     "\"reason\":\"outside_hours\"}");
    receipts(table, "not a batch");
    assert_int_equal(client_peek(a).opcode, 0);
    client_close(a);
    client_close(b);
    table_top_close(table);
}

static void a_processor_says_nothing_of_what_was_before_it(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    struct client *client = client_open(table, "/a?receipts=accepted,queued,stored");
    assert_int_equal(client_status(client), 101);
    assert_int_equal(client_read(client).opcode, 1);
    receipts(table, "{\"receipts\":[{\"client_id\":\"a\",\"id\":\"m1\",\"ref\":\"\",\"status\":\"stored\"},"
                    "{\"client_id\":\"a\",\"id\":\"m1\",\"ref\":\"\",\"status\":\"queued\"},"
                    "{\"client_id\":\"a\",\"id\":\"m1\",\"ref\":\"\",\"status\":\"accepted\"},"
                    "{\"client_id\":\"a\",\"id\":\"m2\",\"ref\":\"\",\"status\":\"stored\"}]}");
    client_expect(client, "{\"type\":\"receipt\",\"id\":\"m1\",\"status\":\"stored\"}");
    client_expect(client, "{\"type\":\"receipt\",\"id\":\"m2\",\"status\":\"stored\"}");
    assert_int_equal(table_top_log_count(table, "level=warn event=receipts_refused receipts=2"), 1);
    client_close(client);
    table_top_close(table);
}

static void log_each(struct settings *settings)
{
    settings->log_messages = true;
}

static void stages_are_logged_by_the_name_the_broker_knows(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(log_each);
    struct client *client = client_join(table, "dev-7");
    queued(table, "dev-7", "m1", session_named(table, "dev-7"), 12);
    queued(table, "dev-7", "", session_named(table, "dev-7"), 13);
    char id[OUTBOX_ID_BYTES_MAX + 1] = "";
    char line[256];
    struct text made = text_in(id, sizeof id - 1);
    outbox_write_id(table->gateway.outbox, &made, 13);
    (void)snprintf(line, sizeof line, "event=message_queued client=dev-7 id=%s seq=13\n", id);
    assert_int_equal(table_top_log_count(table, line), 1);
    assert_int_equal(table_top_log_count(table, "event=message_queued client=dev-7 id=m1 seq=12\n"), 1);
    client_close(client);
    table_top_close(table);
}

static void only_what_was_asked_for_is_sent(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    struct client *client = client_open(table, "/a?receipts=none");
    assert_int_equal(client_status(client), 101);
    assert_int_equal(client_read(client).opcode, 1);
    queued(table, "a", "m1", session_named(table, "a"), 1);
    receipts(table, "{\"receipts\":[{\"client_id\":\"a\",\"id\":\"m1\",\"ref\":\"\",\"status\":\"stored\"},"
                    "{\"client_id\":\"a\",\"id\":\"m2\",\"ref\":\"\",\"status\":\"dead\",\"reason\":\"x\"}]}");
    client_expect(client, "{\"type\":\"receipt\",\"id\":\"m2\",\"status\":\"dead\",\"reason\":\"x\"}");
    client_close(client);
    table_top_close(table);
}

static void a_ref_is_believed_only_for_its_own_client(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    struct client *a = client_join(table, "a");
    struct client *b = client_join(table, "b");
    queued(table, "b", "m1", session_named(table, "a"), 1);
    client_expect(b, "{\"type\":\"receipt\",\"id\":\"m1\",\"status\":\"queued\"}");
    assert_int_equal(client_peek(a).opcode, 0);
    client_close(a);
    client_close(b);
    table_top_close(table);
}

static void backend_messages_go_as_they_are(void **state)
{
    (void)state;
    static char large[20000];
    struct table_top *table = table_top_open(NULL);
    struct client *client = client_join(table, "a");
    static const char *const wrong[] = {"", "x", "[1]", "{\"a\":1,}", "\"a\"", "{\"a\":\"\xff\"}"};
    for (size_t index = 0; index < sizeof wrong / sizeof wrong[0]; index++) {
        answers_downlink_handler.on_message(&table->gateway, session_named(table, "a"), span_text(wrong[index]));
    }
    memset(large, ' ', sizeof large);
    large[0] = '{';
    large[sizeof large - 1] = '}';
    answers_downlink_handler.on_message(&table->gateway, session_named(table, "a"), span_of(large, sizeof large));
    static const char right[] = " { \"do\" : [ \"open\" ] } ";
    answers_downlink_handler.on_message(&table->gateway, session_named(table, "a"), span_text(right));
    client_expect(client, right);
    client_close(client);
    table_top_close(table);
}

static void many_receipts_in_one_turn_are_no_slowness(void **state)
{
    (void)state;
    enum { COUNT = 3000 }; // several times what a send queue holds
    struct table_top *table = table_top_open(NULL);
    struct client *client = client_join(table, "a");
    for (uint32_t seq = 1; seq <= COUNT; seq++) {
        queued(table, "a", "an-id-of-some-length-that-makes-it-long", session_named(table, "a"), seq);
    }
    for (int count = 0; count < COUNT; count++) {
        assert_int_equal(client_read(client).opcode, 1);
    }
    client_close(client);
    table_top_close(table);
}

static void who_does_not_read_is_closed(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    struct client *slow = client_join(table, "slow");
    struct client *other = client_join(table, "other");
    static char body[8000];
    memset(body, ' ', sizeof body);
    body[0] = '{';
    body[sizeof body - 1] = '}';
    int count = 0;
    while (session_named(table, "slow") != NULL) {
        answers_downlink_handler.on_message(&table->gateway, session_named(table, "slow"), span_of(body, sizeof body));
        (void)table_top_turn(table);
        assert_true(count++ < 10000);
    }
    client_say(other, "{\"type\":\"ping\"}");
    client_expect(other, "{\"type\":\"pong\"}");
    client_close(slow);
    client_close(other);
    table_top_close(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_receipt_finds_its_connection),
        cmocka_unit_test(after_a_reconnect_it_finds_the_client_by_name),
        cmocka_unit_test(a_batch_reaches_each_client),
        cmocka_unit_test(a_processor_says_nothing_of_what_was_before_it),
        cmocka_unit_test(stages_are_logged_by_the_name_the_broker_knows),
        cmocka_unit_test(only_what_was_asked_for_is_sent),
        cmocka_unit_test(a_ref_is_believed_only_for_its_own_client),
        cmocka_unit_test(backend_messages_go_as_they_are),
        cmocka_unit_test(many_receipts_in_one_turn_are_no_slowness),
        cmocka_unit_test(who_does_not_read_is_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
