/* SPDX-License-Identifier: MIT */
#include "broker_case.h"
#include "consumer.h"

enum { PREFETCH = 8, INTAKE_MESSAGES = 2 };

static struct {
    struct broker_case base;
    struct consumer consumer;
    uint64_t floor_tag;
    size_t lost_count;
} test;

static void on_lost(void *context)
{
    (void)context;
    test.lost_count++;
}

static void make(struct broker_case *base, struct arena *arena)
{
    static const struct consumer_handler handler = {.on_lost = on_lost};
    const struct consumer_options options = {.instance = "one",
                                             .brokers = &base->brokers,
                                             .heartbeat_s = 10,
                                             .token = CASE_TOKEN,
                                             .queue = SPAN("messages"),
                                             .queue_type = "quorum",
                                             .prefetch = PREFETCH,
                                             .body_bytes_max = CASE_BODY_BYTES_MAX,
                                             .intake_bytes = INTAKE_MESSAGES * intake_bytes_min(CASE_BODY_BYTES_MAX),
                                             .id_prefix = SPAN("made-"),
                                             .hash_key = {{1, 2}}};
    consumer_init(&test.consumer, arena, &base->port, &base->log, &options, &handler);
    base->link = test.consumer.link;
}

static void turn(struct broker_case *base)
{
    (void)consumer_turn(&test.consumer, test.floor_tag, base->now_ms);
}

static void on_event(struct broker_case *base, uint32_t ready)
{
    consumer_on_event(&test.consumer, ready, base->now_ms);
}

static int set_up(void **state)
{
    (void)state;
    memset(&test, 0, sizeof test);
    test.floor_tag = UINT64_MAX;
    test.base.turn = turn;
    test.base.on_event = on_event;
    case_open(&test.base, make);
    consumer_start(&test.consumer, test.base.now_ms);
    consumer_want(&test.consumer, true);
    case_settle(&test.base);
    assert_int_equal(test.consumer.state, CONSUMER_ON);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    consumer_want(&test.consumer, false);
    case_close(&test.base);
    return 0;
}

static void deliver(uint64_t tag, const char *body)
{
    fake_broker_deliver(&test.base.broker, tag, "messages", body, strlen(body), 16000);
    case_settle(&test.base);
}

#define GOOD "{\"client_id\":\"dev-7\",\"type\":\"text\",\"content\":1,\"id\":\"m1\"}"

static struct delivery *delivery_of(uint64_t tag)
{
    struct intake *const intake = &test.consumer.intake;
    for (uint64_t i = intake->first; i < intake->end; i++) {
        if (intake_at(intake, i)->tag == tag) {
            return intake_at(intake, i);
        }
    }
    fail_msg("no delivery %u", (unsigned)tag);
    return NULL;
}

static void only_what_is_stored_is_acknowledged(void **state)
{
    (void)state;
    for (uint64_t tag = 1; tag <= 4; tag++) {
        deliver(tag, GOOD);
    }
    assert_int_equal(intake_count(&test.consumer.intake), 4);
    assert_int_equal(test.base.broker.acked_tag, 0);
    delivery_move(delivery_of(1), DELIVERY_STORED);
    delivery_move(delivery_of(2), DELIVERY_REJECTED);
    delivery_move(delivery_of(4), DELIVERY_STORED);
    case_settle(&test.base);
    assert_int_equal(test.base.broker.acked_tag, 2);
    assert_true(test.base.broker.acked_multiple);
    delivery_move(delivery_of(3), DELIVERY_STORED);
    case_settle(&test.base);
    assert_int_equal(test.base.broker.acked_tag, 4);
    assert_int_equal(intake_count(&test.consumer.intake), 0);
}

/* "All up to here" would settle the dead letter too, which is not confirmed yet. */
static void acks_pass_by_an_open_dead_letter(void **state)
{
    (void)state;
    deliver(1, "garbage");
    deliver(2, GOOD);
    assert_int_equal(delivery_of(1)->state, DELIVERY_DEAD);
    assert_int_equal(test.consumer.dead_count, 1);
    delivery_move(delivery_of(2), DELIVERY_STORED);
    case_settle(&test.base); /* the dead one is not handed on yet */
    assert_int_equal(test.base.broker.acked_tag, 2);
    assert_false(test.base.broker.acked_multiple);
    assert_int_equal(intake_count(&test.consumer.intake), 2);
    deliver(3, GOOD);
    delivery_move(delivery_of(1), DELIVERY_HANDED);
    delivery_move(delivery_of(3), DELIVERY_STORED);
    test.floor_tag = 1;
    case_settle(&test.base);
    assert_int_equal(test.base.broker.acked_tag, 3);
    assert_false(test.base.broker.acked_multiple);
    assert_int_equal(intake_count(&test.consumer.intake), 0);
    assert_true(consumer_ack(&test.consumer, 1, test.base.now_ms));
    case_settle(&test.base);
    assert_int_equal(test.base.broker.acked_tag, 1);
    assert_false(test.base.broker.acked_multiple);
}

static void what_a_lost_channel_delivered_is_never_acknowledged(void **state)
{
    (void)state;
    deliver(1, GOOD);
    struct delivery *const delivery = delivery_of(1);
    fake_broker_close_channel(&test.base.broker, 406, "PRECONDITION_FAILED - delivery acknowledgement timed out");
    case_settle(&test.base);
    assert_int_equal(test.lost_count, 1);
    assert_int_equal(delivery->tag, 0);
    assert_int_equal(test.base.broker.consume_count, 1); /* not before the intake is empty */
    delivery_move(delivery, DELIVERY_STORED);
    case_settle(&test.base);
    assert_int_equal(test.base.broker.acked_tag, 0);
    assert_int_equal(test.base.broker.consume_count, 2);
    fake_broker_reset(&test.base.broker);
    case_settle(&test.base);
    assert_int_equal(test.lost_count, 2);
    case_pass(&test.base, 10000);
    assert_int_equal(test.consumer.state, CONSUMER_ON);
}

/* Only the beginning of it is here; it is dead, and settled as any other dead one. */
static void a_body_beyond_all_bounds_is_taken_in(void **state)
{
    (void)state;
    static char body[2 * CASE_BODY_BYTES_MAX + 1];
    memset(body, 'x', sizeof body - 1);
    deliver(1, body);
    deliver(2, GOOD);
    assert_int_equal(delivery_of(1)->state, DELIVERY_DEAD);
    assert_string_equal(delivery_of(1)->code, "too_large");
    assert_int_equal(delivery_of(1)->body.bytes, CASE_BODY_BYTES_MAX);
    assert_int_equal(delivery_of(1)->body_bytes, sizeof body - 1);
    assert_int_equal(delivery_of(2)->state, DELIVERY_PENDING);
}

/* What finds no room is left to a new connection; that one begins in the turn in which the old one is seen to end. */
static void a_full_intake_ends_in_a_new_connection(void **state)
{
    (void)state;
    for (uint64_t tag = 1; tag <= PREFETCH + 1; tag++) {
        deliver(tag, GOOD);
    }
    assert_int_equal(test.consumer.state, CONSUMER_DEAF);
    assert_int_equal(intake_count(&test.consumer.intake), PREFETCH);
    for (uint64_t tag = 1; tag <= PREFETCH; tag++) {
        delivery_move(delivery_of(tag), DELIVERY_STORED);
    }
    (void)consumer_turn(&test.consumer, UINT64_MAX, test.base.now_ms);
    assert_int_equal(test.consumer.state, CONSUMER_PARTING);
    for (int i = 0; i < 1000 && amqp_link_state(test.base.link) != AMQP_LINK_DOWN; i++) {
        amqp_link_flush(test.base.link, test.base.now_ms);
        (void)fake_broker_step(&test.base.broker);
        struct port_event event;
        if (test.base.port.wait(test.base.port.context, &event, 1, 1) > 0) {
            on_event(&test.base, event.ready);
        }
    }
    assert_int_equal(test.base.broker.acked_tag, PREFETCH);
    assert_int_equal(test.base.broker.close_count, 1);
    assert_int_equal(test.lost_count, 1);
    (void)consumer_turn(&test.consumer, UINT64_MAX, test.base.now_ms);
    assert_int_equal(test.consumer.state, CONSUMER_AWAY);
    assert_int_equal(amqp_link_state(test.base.link), AMQP_LINK_WAITING);
    case_settle(&test.base);
    assert_int_equal(test.consumer.state, CONSUMER_ON);
    assert_int_equal(test.base.broker.connection_count, 2);
}

/* More acks than RabbitMQ has on their way to the queue at once: they are given time before the connection ends. */
static void many_acks_are_waited_for_before_the_connection_ends(void **state)
{
    (void)state;
    uint64_t tag = 1;
    for (; tag <= 5 * PREFETCH; tag++) {
        deliver(tag, GOOD);
        delivery_move(delivery_of(tag), DELIVERY_STORED);
        case_settle(&test.base);
    }
    assert_int_equal(test.base.broker.acked_tag, 5 * PREFETCH);
    const uint64_t taken_ms = test.base.now_ms + 500;
    assert_int_equal(consumer_acks_taken_ms(&test.consumer), taken_ms);
    for (size_t i = 0; i <= PREFETCH; i++) {
        deliver(tag++, GOOD);
    }
    for (size_t i = 1; i <= PREFETCH; i++) {
        delivery_move(delivery_of(5 * PREFETCH + i), DELIVERY_STORED);
    }
    assert_int_equal(consumer_turn(&test.consumer, UINT64_MAX, test.base.now_ms), taken_ms);
    assert_int_equal(test.consumer.state, CONSUMER_DEAF);
    case_settle(&test.base);
    assert_int_equal(consumer_turn(&test.consumer, UINT64_MAX, taken_ms - 1), taken_ms);
    assert_int_equal(test.consumer.state, CONSUMER_DEAF);
    assert_int_equal(consumer_turn(&test.consumer, UINT64_MAX, taken_ms), UINT64_MAX);
    assert_int_equal(test.consumer.state, CONSUMER_PARTING);
    case_settle(&test.base);
    assert_int_equal(consumer_acks_taken_ms(&test.consumer), 0);
}

static void acks_with_pauses_between_them_are_not_waited_for(void **state)
{
    (void)state;
    for (uint64_t tag = 1; tag <= 5 * PREFETCH; tag++) {
        case_pass(&test.base, 500);
        deliver(tag, GOOD);
        delivery_move(delivery_of(tag), DELIVERY_STORED);
        case_settle(&test.base);
    }
    assert_int_equal(test.base.broker.acked_tag, 5 * PREFETCH);
    assert_int_equal(consumer_acks_taken_ms(&test.consumer), 0);
}

/* Parted while the broker hangs: its goodbye is waited for five seconds, then the next connection begins. */
static void parting_from_a_broker_that_hangs(void **state)
{
    (void)state;
    deliver(1, GOOD);
    consumer_part(&test.consumer, test.base.now_ms);
    amqp_link_flush(test.base.link, test.base.now_ms);
    assert_int_equal(test.consumer.state, CONSUMER_PARTING);
    const uint64_t due_ms = amqp_link_tick(test.base.link, test.base.now_ms);
    assert_true(due_ms > test.base.now_ms && due_ms <= test.base.now_ms + 5000);
    test.base.now_ms += 5000;
    (void)amqp_link_tick(test.base.link, test.base.now_ms);
    assert_int_equal(test.lost_count, 1);
    intake_cut(&test.consumer.intake, test.consumer.intake.first);
    (void)consumer_turn(&test.consumer, UINT64_MAX, test.base.now_ms);
    assert_int_equal(test.consumer.state, CONSUMER_AWAY);
    case_settle(&test.base);
    assert_int_equal(test.consumer.state, CONSUMER_ON);
}

/* The broker never confirms the dead letter; what lies behind it in the queue is consumed all the same. */
static void an_open_dead_letter_keeps_it_deaf_only_for_a_while(void **state)
{
    (void)state;
    deliver(1, "garbage");
    delivery_move(delivery_of(1), DELIVERY_HANDED);
    test.floor_tag = 1;
    case_settle(&test.base);
    for (uint64_t tag = 2; tag <= PREFETCH + 2; tag++) {
        deliver(tag, GOOD);
    }
    for (uint64_t tag = 2; tag <= PREFETCH + 1; tag++) {
        delivery_move(delivery_of(tag), DELIVERY_STORED);
    }
    case_settle(&test.base);
    assert_int_equal(intake_count(&test.consumer.intake), 0);
    case_pass(&test.base, 4999);
    assert_int_equal(test.consumer.state, CONSUMER_DEAF);
    assert_true(consumer_stuck(&test.consumer, test.base.now_ms));
    assert_int_equal(consumer_turn(&test.consumer, test.floor_tag, test.base.now_ms), test.base.now_ms + 1);
    test.floor_tag = UINT64_MAX; /* after the loss, which is told */
    case_pass(&test.base, 1);
    assert_int_equal(test.lost_count, 1);
    assert_int_equal(test.consumer.state, CONSUMER_ON);
    assert_int_equal(test.base.broker.connection_count, 2);
    assert_false(consumer_stuck(&test.consumer, test.base.now_ms));
}

/* It would be filled with the same ones again at once. */
static void dead_letters_alone_keep_it_deaf(void **state)
{
    (void)state;
    for (uint64_t tag = 1; tag <= PREFETCH + 1; tag++) {
        deliver(tag, "garbage");
    }
    assert_int_equal(test.consumer.state, CONSUMER_DEAF);
    for (int i = 0; i < 1000; i++) {
        test.base.now_ms += 1000;
        (void)consumer_turn(&test.consumer, test.floor_tag, test.base.now_ms);
    }
    assert_int_equal(test.consumer.state, CONSUMER_DEAF);
    assert_true(consumer_stuck(&test.consumer, test.base.now_ms));
    for (uint64_t tag = 1; tag <= PREFETCH; tag++) {
        delivery_move(delivery_of(tag), DELIVERY_HANDED);
        assert_true(consumer_ack(&test.consumer, tag, test.base.now_ms));
    }
    assert_false(consumer_stuck(&test.consumer, test.base.now_ms));
    (void)consumer_turn(&test.consumer, test.floor_tag, test.base.now_ms);
    assert_int_equal(test.consumer.state, CONSUMER_PARTING);
}

static uint64_t deliver_stored(uint64_t tag, const char *body)
{
    deliver(tag, body);
    delivery_move(delivery_of(tag), DELIVERY_STORED);
    case_settle(&test.base);
    return tag + 1;
}

/* INTAKE_MESSAGES find room at a time. */
static const char *long_message(void)
{
    static char body[CASE_BODY_BYTES_MAX + 1];
    memset(body, ' ', sizeof body - 1);
    memcpy(body, GOOD, sizeof GOOD - 1);
    return body;
}

/* As many as had room are asked for, and when there are short ones only, step by step more again. */
static void long_messages_make_it_ask_for_less_for_a_while(void **state)
{
    (void)state;
    assert_int_equal(test.base.broker.prefetch, PREFETCH);
    for (uint64_t tag = 1; tag <= INTAKE_MESSAGES + 1; tag++) {
        deliver(tag, long_message());
    }
    assert_int_equal(test.consumer.state, CONSUMER_DEAF);
    for (uint64_t tag = 1; tag <= INTAKE_MESSAGES; tag++) {
        delivery_move(delivery_of(tag), DELIVERY_STORED);
    }
    case_settle(&test.base);
    assert_int_equal(test.consumer.state, CONSUMER_ON);
    assert_int_equal(test.base.broker.prefetch, INTAKE_MESSAGES);
    uint64_t tag = 1;
    for (int i = 0; i < 5 * INTAKE_MESSAGES; i++) { /* one among them is too long for more */
        deliver(tag, i == 2 ? long_message() : GOOD);
        deliver(tag + 1, i == 2 ? long_message() : GOOD);
        delivery_move(delivery_of(tag++), DELIVERY_STORED);
        delivery_move(delivery_of(tag++), DELIVERY_STORED);
        case_settle(&test.base);
        if (test.base.broker.connection_count == 3) {
            break;
        }
    }
    assert_int_equal(tag, 1 + 2 * 4 * INTAKE_MESSAGES); /* after the second round */
    assert_int_equal(test.base.broker.prefetch, 2 * INTAKE_MESSAGES);
    case_pass(&test.base, 1000);
    tag = 1;
    while (test.base.broker.prefetch < PREFETCH) {
        tag = deliver_stored(tag, GOOD);
    }
    assert_int_equal(tag, 1 + 4 * 2 * INTAKE_MESSAGES);
    assert_int_equal(test.base.broker.connection_count, 4);
    case_pass(&test.base, 1000);
    tag = 1;
    for (int i = 0; i < 5 * PREFETCH; i++) {
        tag = deliver_stored(tag, GOOD);
    }
    assert_int_equal(test.base.broker.connection_count, 4);
}

/* Else dead letters that the broker does not take would be all that it is given. */
static void open_dead_letters_count_in_what_it_asks_for(void **state)
{
    (void)state;
    deliver(1, "garbage");
    delivery_move(delivery_of(1), DELIVERY_HANDED);
    test.floor_tag = 1;
    for (uint64_t tag = 2; tag <= INTAKE_MESSAGES + 2; tag++) {
        deliver(tag, long_message());
    }
    for (uint64_t tag = 2; tag <= INTAKE_MESSAGES + 1; tag++) {
        delivery_move(delivery_of(tag), DELIVERY_STORED);
    }
    case_settle(&test.base);
    test.floor_tag = UINT64_MAX; /* after the loss, which is told */
    case_pass(&test.base, 5000);
    assert_int_equal(test.base.broker.prefetch, INTAKE_MESSAGES + 1);
    for (uint64_t tag = 1; tag <= INTAKE_MESSAGES + 1; tag++) {
        deliver(tag, "garbage");
        delivery_move(delivery_of(tag), DELIVERY_HANDED);
    }
    test.floor_tag = 1;
    case_settle(&test.base);
    assert_int_equal(test.consumer.state, CONSUMER_ON);
    case_pass(&test.base, 9999);
    assert_int_equal(test.base.broker.connection_count, 2);
    assert_true(consumer_stuck(&test.consumer, test.base.now_ms));
    case_pass(&test.base, 1);
    assert_int_equal(test.base.broker.connection_count, 3);
    assert_int_equal(test.base.broker.prefetch, 2 * (INTAKE_MESSAGES + 1));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(only_what_is_stored_is_acknowledged),
        TEST(acks_pass_by_an_open_dead_letter),
        TEST(what_a_lost_channel_delivered_is_never_acknowledged),
        TEST(a_body_beyond_all_bounds_is_taken_in),
        TEST(a_full_intake_ends_in_a_new_connection),
        TEST(many_acks_are_waited_for_before_the_connection_ends),
        TEST(acks_with_pauses_between_them_are_not_waited_for),
        TEST(parting_from_a_broker_that_hangs),
        TEST(an_open_dead_letter_keeps_it_deaf_only_for_a_while),
        TEST(dead_letters_alone_keep_it_deaf),
        TEST(long_messages_make_it_ask_for_less_for_a_while),
        TEST(open_dead_letters_count_in_what_it_asks_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
