/* SPDX-License-Identifier: MIT */
#include "broker_case.h"
#include "outgoing.h"

static struct {
    struct broker_case base;
    struct outgoing outgoing;
    size_t dead_count;
    uint64_t dead_tag;
    char dead_client[16];
    bool refuses; /* on_dead finds no room */
} test;

static bool on_dead(void *context, const struct outgoing_dead *dead)
{
    (void)context;
    if (test.refuses) {
        return false;
    }
    test.dead_count++;
    test.dead_tag = dead->tag;
    (void)snprintf(test.dead_client, sizeof test.dead_client, "%.*s", (int)dead->client_id.bytes,
                   (const char *)dead->client_id.data);
    return true;
}

static void make(struct broker_case *base, struct arena *arena)
{
    static const struct outgoing_handler handler = {.on_dead = on_dead};
    const struct outgoing_options options = {.instance = "one",
                                             .brokers = &base->brokers,
                                             .heartbeat_s = 10,
                                             .token = CASE_TOKEN,
                                             .dead_queue = SPAN("messages.dead"),
                                             .queue_type = "quorum",
                                             .message_bytes_max = CASE_BODY_BYTES_MAX};
    outgoing_init(&test.outgoing, arena, &base->port, &base->log, &options, &handler);
    base->link = test.outgoing.link;
}

static void turn(struct broker_case *base)
{
    outgoing_settle(&test.outgoing);
    (void)outgoing_send(&test.outgoing, base->now_ms);
}

static void on_event(struct broker_case *base, uint32_t ready)
{
    outgoing_on_event(&test.outgoing, ready, base->now_ms);
}

static int set_up(void **state)
{
    (void)state;
    memset(&test, 0, sizeof test);
    test.base.turn = turn;
    test.base.on_event = on_event;
    case_open(&test.base, make);
    amqp_link_start(test.base.link, test.base.now_ms);
    case_settle(&test.base);
    assert_true(test.outgoing.is_ready);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    case_close(&test.base);
    return 0;
}

static const struct fake_publish *publish_at(size_t index)
{
    assert_true(index < test.base.broker.publish_count);
    return &test.base.broker.publishes[index];
}

/* From memory that is gone afterwards. */
static bool letter(uint64_t tag)
{
    char body[] = "garbage";
    char client[] = "dev-7";
    const struct amqp_header header = {.name = SPAN("colour"), .kind = AMQP_HEADER_TEXT, .text = SPAN("red")};
    const struct amqp_publish message = {
        .body = span_text(body), .message_id = SPAN("dev-7:m1"), .headers = &header, .header_count = 1};
    const struct outgoing_dead dead = {.tag = tag, .client_id = span_text(client), .code = "bad_json"};
    const bool is_taken = outgoing_dead_letter(&test.outgoing, &message, &dead);
    memset(body, '!', sizeof body);
    memset(client, '!', sizeof client);
    return is_taken;
}

static void receipts_are_sent_again_after_a_lost_link(void **state)
{
    (void)state;
    outgoing_receipts(&test.outgoing, span_text("gateway.gw-1"), span_text("{\"receipts\":[1]}"), 1);
    outgoing_receipts(&test.outgoing, span_text("gateway.gw-2"), span_text("{\"receipts\":[2]}"), 1);
    case_settle(&test.base);
    assert_int_equal(test.base.broker.publish_count, 2);
    fake_broker_ack(&test.base.broker, 1, false);
    case_settle(&test.base);
    fake_broker_reset(&test.base.broker);
    case_settle(&test.base);
    assert_int_equal(outgoing_count(&test.outgoing), 1);
    case_pass(&test.base, 10000);
    assert_int_equal(test.base.broker.connection_count, 2);
    assert_int_equal(test.base.broker.publish_count, 3); /* what was confirmed is not repeated */
    const struct fake_publish *const again = publish_at(2);
    assert_string_equal(again->exchange, "postern.downlink");
    assert_string_equal(again->routing_key, "gateway.gw-2");
    assert_string_equal(again->body, "{\"receipts\":[2]}");
    assert_true(again->is_persistent && !again->is_mandatory);
    fake_broker_ack(&test.base.broker, again->tag, false);
    case_settle(&test.base);
    assert_int_equal(outgoing_count(&test.outgoing), 0);
}

static void a_dead_letter_settles_its_delivery_only_when_confirmed(void **state)
{
    (void)state;
    assert_true(letter(41));
    case_settle(&test.base);
    const struct fake_publish *const first = publish_at(0);
    assert_string_equal(first->routing_key, "messages.dead");
    assert_string_equal(first->exchange, "");
    assert_string_equal(first->body, "garbage");
    assert_string_equal(first->message_id, "dev-7:m1");
    assert_true(first->is_persistent && first->is_mandatory);
    case_pass(&test.base, 1000);
    assert_int_equal(test.dead_count, 0);
    assert_int_equal(outgoing_lowest_tag(&test.outgoing), 41);
    fake_broker_ack(&test.base.broker, 1, false);
    case_settle(&test.base);
    assert_int_equal(test.dead_count, 1);
    assert_int_equal(test.dead_tag, 41);
    assert_string_equal(test.dead_client, "dev-7");
    assert_int_equal(outgoing_lowest_tag(&test.outgoing), UINT64_MAX);
    assert_int_equal(outgoing_count(&test.outgoing), 0);
}

static void a_dead_letter_survives_nacks_and_lost_links(void **state)
{
    (void)state;
    assert_true(letter(41));
    case_settle(&test.base);
    fake_broker_nack(&test.base.broker, 1, false);
    case_settle(&test.base);
    assert_int_equal(test.base.broker.publish_count, 1); /* not at once */
    case_pass(&test.base, 200);
    assert_int_equal(test.base.broker.publish_count, 2);
    fake_broker_reset(&test.base.broker);
    case_settle(&test.base);
    case_pass(&test.base, 10000);
    assert_int_equal(test.base.broker.publish_count, 3);
    assert_int_equal(test.dead_count, 0);
    fake_broker_ack(&test.base.broker, publish_at(2)->tag, true);
    case_settle(&test.base);
    assert_int_equal(test.dead_count, 1);
}

/* A returned message is acked too, which means nothing: the queue is declared again, and the letter sent again. */
static void a_returned_dead_letter_is_not_safe(void **state)
{
    (void)state;
    assert_true(letter(41));
    case_settle(&test.base);
    test.base.broker.queue_exists = false;
    fake_broker_return(&test.base.broker, publish_at(0));
    fake_broker_ack(&test.base.broker, 1, false);
    case_settle(&test.base);
    assert_int_equal(test.dead_count, 0);
    case_pass(&test.base, 10000);
    assert_int_equal(test.base.broker.create_count, 1);
    assert_int_equal(test.base.broker.publish_count, 2);
    assert_int_equal(test.dead_count, 0);
    fake_broker_ack(&test.base.broker, publish_at(1)->tag, false);
    case_settle(&test.base);
    assert_int_equal(test.dead_count, 1);
}

static void a_delivery_that_cannot_be_settled_now_is_settled_later(void **state)
{
    (void)state;
    test.refuses = true;
    test.base.broker.acks = true;
    assert_true(letter(41));
    assert_true(letter(42));
    case_settle(&test.base);
    assert_int_equal(test.dead_count, 0);
    assert_int_equal(outgoing_lowest_tag(&test.outgoing), 41);
    outgoing_forget_tags(&test.outgoing); /* its channel is lost meanwhile */
    test.refuses = false;
    case_settle(&test.base);
    assert_int_equal(test.dead_count, 2);
    assert_int_equal(test.dead_tag, 0);
    assert_int_equal(test.base.broker.publish_count, 2);
}

/* Their messages come again, with new dead letters: in an alarm each loss of the consuming channel would add one. */
static void unsent_dead_letters_are_left_out_when_their_channel_is_lost(void **state)
{
    (void)state;
    assert_true(letter(41));
    case_settle(&test.base);
    assert_int_equal(test.base.broker.publish_count, 1);
    fake_broker_blocked(&test.base.broker, true);
    case_settle(&test.base);
    assert_true(letter(42));
    outgoing_receipts(&test.outgoing, span_text("gateway.gw-1"), span_text("{}"), 1);
    outgoing_forget_tags(&test.outgoing);
    case_settle(&test.base);
    assert_true(letter(1)); /* on the next channel */
    test.base.broker.acks = true;
    fake_broker_ack(&test.base.broker, publish_at(0)->tag, false);
    fake_broker_blocked(&test.base.broker, false);
    case_settle(&test.base);
    assert_int_equal(test.base.broker.publish_count, 3);
    assert_int_equal(test.dead_count, 2);
    assert_int_equal(test.dead_tag, 1);
    assert_int_equal(outgoing_count(&test.outgoing), 0);
    assert_int_equal(byte_ring_used_bytes(&test.outgoing.dead_letters.bytes), 0);
}

static void nothing_flows_while_the_broker_does_not_confirm(void **state)
{
    (void)state;
    size_t count = 0;
    for (; outgoing_flows(&test.outgoing); count++) {
        outgoing_receipts(&test.outgoing, span_text("gateway.gw-1"), span_text("{}"), 1);
    }
    assert_int_equal(test.outgoing.dropped_count, 0);
    case_settle(&test.base);
    assert_int_equal(test.base.broker.publish_count, count); /* they are sent all the same */
    assert_false(outgoing_flows(&test.outgoing));
    fake_broker_ack(&test.base.broker, 1, false);
    case_settle(&test.base);
    assert_true(outgoing_flows(&test.outgoing));
}

static void receipts_give_way_to_dead_letters(void **state)
{
    (void)state;
    static char body[100000];
    memset(body, 'r', sizeof body);
    fake_broker_blocked(&test.base.broker, true);
    case_settle(&test.base);
    while (test.outgoing.dropped_count == 0) {
        outgoing_receipts(&test.outgoing, span_text("gateway.gw-1"), span_of(body, sizeof body), 1);
    }
    assert_true(letter(41));
    case_settle(&test.base);
    assert_int_equal(test.base.broker.publish_count, 0); /* in an alarm nothing is published */
    test.base.broker.acks = true;
    fake_broker_blocked(&test.base.broker, false);
    case_settle(&test.base);
    assert_int_equal(test.dead_count, 1);
    assert_int_equal(outgoing_count(&test.outgoing), 0);
}

static void receipts_have_room_beside_all_dead_letters_that_fit(void **state)
{
    (void)state;
    size_t letter_count = 0;
    while (letter(41 + letter_count)) {
        letter_count++;
    }
    outgoing_receipts(&test.outgoing, span_text("gateway.gw-1"), span_text("{}"), 1);
    assert_int_equal(test.outgoing.dropped_count, 0);
    test.base.broker.acks = true;
    case_settle(&test.base);
    assert_int_equal(test.dead_count, letter_count);
    assert_int_equal(test.base.broker.publish_count, letter_count + 1);
    assert_int_equal(outgoing_count(&test.outgoing), 0);
}

/* Acks all receipts that came, and the dead letters never (is_nacking: nacks them). */
static void answer_receipts(size_t *answered_count, bool is_nacking)
{
    for (; *answered_count < test.base.broker.publish_count; (*answered_count)++) {
        const struct fake_publish *const publish = publish_at(*answered_count);
        if (strcmp(publish->routing_key, "messages.dead") != 0) {
            fake_broker_ack(&test.base.broker, publish->tag, false);
        } else if (is_nacking) {
            fake_broker_nack(&test.base.broker, publish->tag, false);
        }
    }
    case_settle(&test.base);
}

/* The queue of dead letters is full, and then without a leader; that of the receipts is not. */
static void receipts_go_past_a_dead_letter_that_the_broker_does_not_take(void **state)
{
    (void)state;
    size_t answered_count = 0;
    assert_true(letter(41));
    for (int i = 0; i < 20; i++) {
        for (int j = 0; j < OUTGOING_ITEMS_EACH / 8; j++) {
            outgoing_receipts(&test.outgoing, span_text("gateway.gw-1"), span_text("{}"), 1);
        }
        case_pass(&test.base, 100);
        answer_receipts(&answered_count, i < 10);
    }
    assert_int_equal(test.outgoing.dropped_count, 0);
    assert_int_equal(outgoing_count(&test.outgoing), 1);
    assert_int_equal(outgoing_lowest_tag(&test.outgoing), 41);
    assert_int_equal(test.base.broker.connection_count, 1);
    fake_broker_ack(&test.base.broker, test.base.broker.next_tag - 1, true);
    case_settle(&test.base);
    assert_int_equal(test.dead_count, 1);
}

/* Each new connection is time in which no receipt goes out. */
static void a_letter_that_is_nacked_without_end_costs_few_connections(void **state)
{
    (void)state;
    size_t answered_count = 0;
    assert_true(letter(41));
    for (int i = 0; i < 150; i++) {
        case_pass(&test.base, 100);
        answer_receipts(&answered_count, true);
    }
    assert_in_range(test.base.broker.connection_count, 2, 3);
    assert_int_equal(outgoing_count(&test.outgoing), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(receipts_are_sent_again_after_a_lost_link),
        TEST(a_dead_letter_settles_its_delivery_only_when_confirmed),
        TEST(a_dead_letter_survives_nacks_and_lost_links),
        TEST(a_returned_dead_letter_is_not_safe),
        TEST(a_delivery_that_cannot_be_settled_now_is_settled_later),
        TEST(unsent_dead_letters_are_left_out_when_their_channel_is_lost),
        TEST(nothing_flows_while_the_broker_does_not_confirm),
        TEST(receipts_give_way_to_dead_letters),
        TEST(receipts_have_room_beside_all_dead_letters_that_fit),
        TEST(receipts_go_past_a_dead_letter_that_the_broker_does_not_take),
        TEST(a_letter_that_is_nacked_without_end_costs_few_connections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
