/* SPDX-License-Identifier: MIT */
/* What goes well, and its limits. */
#include "outbox_case.h"

static void test_a_message_is_published_as_the_contract_says(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    assert_int_equal(take_as(test, true, "{\"a\": [1, 2]}"), OUTBOX_TAKEN);
    assert_int_equal(take_as(test, false, "\"x\""), OUTBOX_TAKEN);
    test->published = 2;
    assert_true(rig_until(&test->rig, has_published, test));
    const struct fake_publish *first = &test->rig.broker.publishes[0];
    assert_string_equal(first->exchange, "");
    assert_string_equal(first->routing_key, "messages");
    assert_string_equal(first->message_id, "c0:0");
    assert_string_equal(first->type, "text");
    assert_string_equal(first->content_type, "application/json");
    assert_string_equal(first->app_id, "postern");
    assert_string_equal(first->reply_to, "gateway.gw-1");
    assert_int_equal(first->timestamp_s, 1795449192);
    assert_true(first->is_mandatory && first->is_persistent);
    assert_string_equal(first->body, "{\"client_id\":\"c0\",\"type\":\"text\",\"content\":{\"a\": [1, 2]},\"id\":\"0\","
                                     "\"gateway\":\"gw-1\",\"received_at\":\"2026-11-23T15:53:12.123Z\"}");
    const struct fake_publish *second = &test->rig.broker.publishes[1];
    assert_memory_equal(second->message_id, "c1:gw-1-", 8);
    assert_null(strstr(second->body, "\"id\""));
    assert_string_equal(test->rig.broker.connection_name, "postern-gateway gw-1 publish");
    assert_int_equal(test->rig.broker.agreed_heartbeat, HEARTBEAT_S);
    assert_int_equal(test->rig.broker.passive_count, 2);
    assert_int_equal(test->receipt_count, 0);
    fake_broker_ack(&test->rig.broker, 2, true);
    test->wanted = 2;
    assert_true(rig_until(&test->rig, is_queued, test));
    check_receipts(test);
    end(test);
}

static int64_t stopped_clock(void *context)
{
    (void)context;
    return 1795449192123;
}

/* Also when the clock starts again where it stopped, as on a box without a battery for it. */
static void test_two_starts_never_make_the_same_message_id(void **state)
{
    (void)state;
    char first[256] = "";
    for (size_t i = 0; i < 2; i++) {
        struct test *test = make(MESSAGES, 64, 1 << 20);
        test->rig.port.wall_ms = stopped_clock;
        start(test);
        test->published = 1;
        assert_int_equal(take_as(test, false, "1"), OUTBOX_TAKEN);
        assert_true(rig_until(&test->rig, has_published, test));
        assert_string_not_equal(first, test->rig.broker.publishes[0].message_id);
        strcpy(first, test->rig.broker.publishes[0].message_id);
        end(test);
    }
}

static void test_acks_come_singly_out_of_order_and_in_multiples(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 20);
    test->published = 20;
    assert_true(rig_until(&test->rig, has_published, test));
    fake_broker_ack(&test->rig.broker, 7, false);
    fake_broker_ack(&test->rig.broker, 3, false);
    rig_settle(&test->rig);
    assert_int_equal(test->receipt_count, 2);
    assert_int_equal(test->receipts[6] + test->receipts[2], 2);
    assert_int_equal(outbox_counters(test->rig.outbox)->depth_count, 20);
    fake_broker_ack(&test->rig.broker, 5, true);
    fake_broker_ack(&test->rig.broker, 5, true);
    fake_broker_ack(&test->rig.broker, 4, false);
    rig_settle(&test->rig);
    assert_int_equal(test->receipt_count, 6);
    assert_int_equal(outbox_counters(test->rig.outbox)->depth_count, 15);
    fake_broker_ack(&test->rig.broker, 0, true); /* all so far */
    rig_settle(&test->rig);
    check_receipts(test);
    assert_int_equal(test->rig.broker.publish_count, 20);
    end(test);
}

static void test_the_window_starts_small_and_doubles(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 100, 1 << 20);
    start(test);
    take(test, 300);
    rig_settle(&test->rig);
    assert_int_equal(test->rig.broker.publish_count, 32);
    fake_broker_ack(&test->rig.broker, 32, true);
    rig_settle(&test->rig);
    assert_int_equal(test->rig.broker.publish_count, 32 + 64);
    fake_broker_ack(&test->rig.broker, 33, false);
    rig_settle(&test->rig);
    assert_int_equal(test->rig.broker.publish_count, 33 + 100);
    assert_int_equal(outbox_counters(test->rig.outbox)->in_flight_count, 100);
    finish(test);
    end(test);
}

static void test_a_message_without_an_id_goes_by_one_name_in_all_logs(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    test->rig.log.options.messages = true;
    start(test);
    assert_int_equal(take_as(test, true, "1"), OUTBOX_TAKEN);
    assert_int_equal(take_as(test, false, "2"), OUTBOX_TAKEN);
    test->published = 2;
    assert_true(rig_until(&test->rig, has_published, test));
    const char *made = strchr(test->rig.broker.publishes[1].message_id, ':') + 1;
    char line[512];
    char id[OUTBOX_ID_BYTES_MAX];
    struct text text = text_in(id, sizeof id);
    outbox_write_id(test->rig.outbox, &text, 2);
    assert_true(span_is(text_span(&text), made));
    snprintf(line, sizeof line, "event=message_taken client=c1 id=%s seq=1 type=text", made);
    assert_int_equal(rig_log_count(&test->rig, line), 1);
    snprintf(line, sizeof line, "event=message_published client=c1 id=%s queue=messages", made);
    assert_int_equal(rig_log_count(&test->rig, line), 1);
    assert_int_equal(rig_log_count(&test->rig, "event=message_taken client=c0 id=0 seq=0"), 1);
    assert_int_equal(rig_log_count(&test->rig, "event=message_published client=c0 id=0 queue=messages"), 1);
    fake_broker_ack(&test->rig.broker, 2, true);
    test->wanted = 2;
    assert_true(rig_until(&test->rig, is_queued, test));
    end(test);
}

static void test_full_means_full_and_room_is_told(void **state)
{
    (void)state;
    struct test *test = make(100, 64, 1 << 20);
    start(test);
    take(test, 100);
    assert_int_equal(test->room_count, 0);
    assert_int_equal(take_as(test, true, "1"), OUTBOX_FULL);
    assert_false(outbox_has_room(test->rig.outbox, 1, 1));
    assert_int_equal(outbox_counters(test->rig.outbox)->refused_count, 1);
    rig_settle(&test->rig);
    fake_broker_ack(&test->rig.broker, 20, true);
    rig_settle(&test->rig);
    assert_int_equal(test->room_count, 0);
    assert_true(outbox_has_room(test->rig.outbox, 20, 20));
    fake_broker_ack(&test->rig.broker, 25, true);
    rig_settle(&test->rig);
    assert_int_equal(test->room_count, 1);
    rig_settle(&test->rig);
    assert_int_equal(test->room_count, 1);
    finish(test);
    end(test);
}

/* Whatever the sizes, and however the ring lies: what was promised can be taken. */
static void test_room_that_was_promised_is_there(void **state)
{
    (void)state;
    static char content[CONTENT_MAX + 1];
    struct test *test = make(64, 64, 4 * (CONTENT_MAX + OUTBOX_OVERHEAD_BYTES_MAX));
    test->rig.broker.acks = true;
    start(test);
    srand(7);
    size_t promised = 0;
    for (size_t round = 0; round < 600; round++) {
        size_t count = 1 + (size_t)rand() % 6;
        size_t bytes = 0;
        size_t sizes[6];
        for (size_t i = 0; i < count; i++) {
            sizes[i] = rand() % 4 == 0 ? (size_t)rand() % CONTENT_MAX : 2 + (size_t)rand() % 900;
            bytes += sizes[i];
        }
        if (outbox_has_room(test->rig.outbox, count, bytes)) {
            promised++;
            for (size_t i = 0; i < count; i++) {
                memset(content, '7', sizes[i]);
                content[sizes[i]] = '\0';
                assert_int_equal(take_as(test, true, content), OUTBOX_TAKEN);
            }
        }
        if (rand() % 3 == 0) {
            rig_turn(&test->rig);
        }
    }
    assert_true(promised > 100);
    finish(test);
    end(test);
}

static void test_the_processors_word_may_overtake_the_confirm(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 8);
    test->published = 8;
    assert_true(rig_until(&test->rig, has_published, test));
    struct outbox_origin origin = {0, 0, 0};
    const char *ref = test->rig.broker.publishes[4].correlation_id;
    assert_int_equal(settle(test, "c1", ref, &origin), OUTBOX_REF_OURS);
    assert_int_equal(origin.session_index, 5);
    assert_int_equal(origin.session_generation, 6);
    assert_int_equal(origin.seq, 4);
    assert_int_equal(test->receipts[4], 1);
    assert_int_equal(settle(test, "c1", ref, &origin), OUTBOX_REF_OURS);
    assert_int_equal(test->receipts[4], 1);
    fake_broker_ack(&test->rig.broker, 8, true);
    rig_settle(&test->rig);
    check_receipts(test);
    assert_int_equal(settle(test, "c1", ref, &origin), OUTBOX_REF_OURS);
    check_receipts(test);
    end(test);
}

static void test_a_settled_message_is_not_published_again(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 3);
    test->published = 3;
    assert_true(rig_until(&test->rig, has_published, test));
    struct outbox_origin origin;
    (void)settle(test, "c0", test->rig.broker.publishes[0].correlation_id, &origin);
    (void)settle(test, "c1", test->rig.broker.publishes[1].correlation_id, &origin);
    fake_broker_reset(&test->rig.broker);
    rig_settle(&test->rig);
    rig_pass(&test->rig, 200, 100);
    finish(test);
    assert_int_equal(test->rig.broker.publish_count, 4);
    end(test);
}

static void test_foreign_and_broken_refs_are_told_apart(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 2);
    test->published = 2;
    assert_true(rig_until(&test->rig, has_published, test));
    const char *ref = test->rig.broker.publishes[0].correlation_id;
    struct outbox_origin origin;
    assert_true(strlen(ref) <= OUTBOX_REF_BYTES_MAX);
    for (size_t cut = 0; cut < strlen(ref) - 1; cut++) {
        char shorter[512];
        snprintf(shorter, sizeof shorter, "%.*s", (int)cut, ref);
        assert_int_equal(settle(test, "c0", shorter, &origin), OUTBOX_REF_FOREIGN);
    }
    const char *endings[] = {".1.0.0.0.0",        ".1.0.0",  ".01.0.0.0", ".1.0.0.", ".-1.0.0.0",
                             ".1.4294967296.0.0", ".1,0.0.0"};
    size_t boot = (size_t)(strchr(ref, '.') - ref);
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        char broken[512];
        snprintf(broken, sizeof broken, "%.*s%s", (int)boot, ref, endings[i]);
        assert_int_equal(settle(test, "c0", broken, &origin), OUTBOX_REF_FOREIGN);
    }
    char other[512];
    snprintf(other, sizeof other, "%s", ref);
    other[0] = other[0] == 'a' ? 'b' : 'a';
    assert_int_equal(settle(test, "c0", other, &origin), OUTBOX_REF_FOREIGN);
    /* Ours, but of a message never taken, or not published yet: settles nothing. */
    snprintf(other, sizeof other, "%.*s.999.1.2.0", (int)boot, ref);
    assert_int_equal(settle(test, "c0", other, &origin), OUTBOX_REF_OURS);
    take(test, 1);
    snprintf(other, sizeof other, "%.*s.3.3.4.2", (int)boot, ref);
    assert_int_equal(settle(test, "c2", other, &origin), OUTBOX_REF_OURS);
    assert_int_equal(test->receipt_count, 0);
    fake_broker_ack(&test->rig.broker, 2, true);
    finish(test);
    end(test);
}

static void test_a_ref_settles_nothing_for_another_client(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 2);
    test->published = 2;
    assert_true(rig_until(&test->rig, has_published, test));
    struct outbox_origin origin;
    const char *ref = test->rig.broker.publishes[1].correlation_id;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(settle(test, "c0", ref, &origin), OUTBOX_REF_FOREIGN);
    }
    assert_int_equal(test->receipt_count, 0);
    assert_int_equal(outbox_counters(test->rig.outbox)->depth_count, 2);
    assert_int_equal(rig_log_count(&test->rig, "level=warn event=receipt_ref_mismatch client=c0"),
                     2); /* the 1st, 2nd */
    assert_int_equal(settle(test, "c1", ref, &origin), OUTBOX_REF_OURS);
    assert_int_equal(test->receipts[1], 1);
    fake_broker_ack(&test->rig.broker, 2, true);
    finish(test);
    end(test);
}

static void test_closing_says_goodbye(void **state)
{
    (void)state;
    struct test *test = make(MESSAGES, 64, 1 << 20);
    start(test);
    take(test, 5);
    rig_settle(&test->rig);
    fake_broker_ack(&test->rig.broker, 5, true);
    rig_settle(&test->rig);
    assert_true(outbox_empty(test->rig.outbox));
    outbox_close(test->rig.outbox, test->rig.now_ms);
    assert_false(outbox_closed(test->rig.outbox));
    rig_settle(&test->rig);
    assert_true(outbox_closed(test->rig.outbox));
    assert_int_equal(test->rig.broker.close_count, 1);
    assert_int_equal(rig_log_count(&test->rig, "level=warn"), 0);
    end(test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_message_is_published_as_the_contract_says),
        cmocka_unit_test(test_two_starts_never_make_the_same_message_id),
        cmocka_unit_test(test_acks_come_singly_out_of_order_and_in_multiples),
        cmocka_unit_test(test_the_window_starts_small_and_doubles),
        cmocka_unit_test(test_a_message_without_an_id_goes_by_one_name_in_all_logs),
        cmocka_unit_test(test_full_means_full_and_room_is_told),
        cmocka_unit_test(test_room_that_was_promised_is_there),
        cmocka_unit_test(test_the_processors_word_may_overtake_the_confirm),
        cmocka_unit_test(test_a_settled_message_is_not_published_again),
        cmocka_unit_test(test_foreign_and_broken_refs_are_told_apart),
        cmocka_unit_test(test_a_ref_settles_nothing_for_another_client),
        cmocka_unit_test(test_closing_says_goodbye),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
