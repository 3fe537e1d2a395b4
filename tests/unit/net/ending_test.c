/* SPDX-License-Identifier: MIT */
/* Every way a connection ends, from within callbacks too. */
#include "aborts.h"
#include "net_fixture.h"

static void close_self(struct net *net, struct connection_handle connection, const uint8_t *data, size_t bytes)
{
    uint8_t before[64];
    assert_true(bytes <= sizeof before);
    memcpy(before, data, bytes);
    connection_close(&net->server, connection, 4000, span_text("enough"));
    connection_close(&net->server, connection, 4001, span_text("twice"));
    assert_memory_equal(data, before, bytes); /* still ours until we return */
    assert_false(connection_is_open(&net->server, connection));
    struct span part = span_text("too late");
    assert_int_equal(connection_send_text(&net->server, connection, &part, 1), CONNECTION_GONE);
    assert_null(strstr(net->transcript, "closed"));
}

static void test_closing_oneself_in_on_message(void **state)
{
    (void)state;
    for (size_t cut = 0; cut < 2; cut++) { /* the message in the read, and in a buffer */
        struct net net;
        net_open(&net, net_options());
        net.in_message = close_self;
        int client = client_open(&net);
        uint8_t frames[256];
        size_t bytes = client_frame(frames, 0x81, "stop", 4);
        bytes += client_frame(frames + bytes, 0x81, "never given", 11);
        size_t at = 0;
        if (cut == 1) {
            client_send(&net, client, frames, 8);
            NET_UNTIL(&net, net.server.buffers.used_count == 1);
            at = 8;
        }
        client_send(&net, client, frames + at, bytes - at);
        client_expect_close(&net, client, 4000);
        assert_string_equal(net_events(&net), "request 0 /dev\nopen 0 /dev\ntext 0 stop\nclosed 0 owner 4000\n");
        assert_int_equal(net.server.buffers.used_count, 0);
        client_send(&net, client, frames, client_frame(frames, 0x88, "\x0f\xa0", 2));
        client_expect_end(&net, client);
        assert_string_equal(net_events(&net), "");
        client_close(client);
        net_close(&net);
    }
}

static void close_other(struct net *net, struct connection_handle connection, const uint8_t *data, size_t bytes)
{
    (void)connection;
    (void)data;
    (void)bytes;
    connection_close(&net->server, net->other, 4010, span_text("taken over"));
}

/* The other one has half a message in a buffer, and an event of its own in the same turn. */
static void test_closing_another_in_on_message(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    net.in_message = close_other;
    int other = client_open(&net);
    net.other = net.last;
    int client = client_open(&net);
    (void)net_events(&net);
    uint8_t frame[64];
    size_t bytes = client_frame(frame, 0x81, "half", 4);
    client_send(&net, other, frame, bytes - 1);
    NET_UNTIL(&net, net.server.buffers.used_count == 1);
    client_send(&net, client, frame, bytes);
    client_send(&net, other, frame + bytes - 1, 1);
    NET_UNTIL(&net, net.server.open_count == 1);
    assert_non_null(strstr(net_events(&net), "closed 0 owner 4010\n"));
    client_expect_close(&net, other, 4010);
    assert_int_equal(net.server.buffers.used_count, 0);
    client_close(other);
    client_close(client);
    net_close(&net);
}

static void refuse_in_open(struct net *net, struct connection_handle connection)
{
    struct span part = span_text("already connected");
    assert_int_equal(connection_send_text(&net->server, connection, &part, 1), CONNECTION_OK);
    connection_close(&net->server, connection, 4009, span_text("already connected"));
}

static void test_refusal_after_the_upgrade(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    net.in_open = refuse_in_open;
    int client = client_open(&net);
    client_expect_text(&net, client, "already connected");
    client_expect_close(&net, client, 4009);
    assert_string_equal(net_events(&net), "request 0 /dev\nopen 0 /dev\nclosed 0 owner 4009\n");
    uint8_t frame[16];
    client_send(&net, client, frame, client_frame(frame, 0x88, "\x0f\xa9", 2));
    client_expect_end(&net, client);
    client_close(client);
    net_close(&net);
}

static void test_refusal_before_the_upgrade(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int client = client_connect(&net);
    static const char request[] = "GET /refused HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    client_send(&net, client, request, sizeof request - 1);
    static const char answer[] = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: text/plain\r\n"
                                 "Content-Length: 9\r\n\r\nNot you.\n";
    client_expect(&net, client, answer, sizeof answer - 1);
    client_expect_end(&net, client);
    assert_string_equal(net_events(&net), "request 0 /refused\nrefused 503\n");
    assert_int_equal(net.server.counters.refused[SERVER_REFUSED_BY_OWNER], 1);
    client_close(client);
    net_close(&net);
}

/* The peer is still sending when it is refused: its answer must not be lost to a reset. */
static void test_refusal_reaches_a_peer_that_is_still_sending(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int client = client_connect(&net);
    client_send(&net, client, "GET /", 5);
    char body[20000];
    memset(body, 'a', sizeof body);
    client_send(&net, client, body, sizeof body);
    NET_UNTIL(&net, net.server.counters.refused[SERVER_REFUSED_HEADER_TOO_LARGE] == 1);
    client_send(&net, client, body, sizeof body);
    static const char answer[] = "HTTP/1.1 431 Request Header Fields Too Large\r\n";
    client_expect(&net, client, answer, sizeof answer - 1);
    char rest[512];
    long count = 0;
    while (count >= 0) {
        net_turn(&net);
        count = client_read(client, rest, sizeof rest);
    }
    client_close(client);
    net_close(&net);
}

static void test_handshake_timeout(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int silent = client_connect(&net);
    int half = client_connect(&net);
    client_send(&net, half, "GET / HTTP/1.1\r\nHo", 18);
    NET_UNTIL(&net, net.server.buffers.used_count == 1);
    net_later(&net, 9000);
    assert_string_equal(net_events(&net), "");
    net_later(&net, 1200);
    assert_string_equal(net_events(&net), "refused 408\nrefused 408\n");
    client_expect(&net, silent, "HTTP/1.1 408 Request Timeout\r\n", 30);
    client_expect(&net, half, "HTTP/1.1 408 Request Timeout\r\n", 30);
    assert_int_equal(net.server.buffers.used_count, 0);
    /* They do not hang up: the patience with that is bounded. */
    assert_int_equal(net.server.connection_count, 2);
    net_later(&net, 2200);
    assert_int_equal(net.server.connection_count, 0);
    client_close(silent);
    client_close(half);
    net_close(&net);
}

static void test_peer_that_does_not_answer_the_close(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    net.echo = true;
    int client = client_open(&net);
    (void)net_events(&net);
    connection_close(&net.server, net.last, 1001, span_of(NULL, 0));
    client_expect_close(&net, client, 1001);
    client_send_text(&net, client, "not a close");
    net_settle(&net);
    assert_string_equal(net_events(&net), "closed 0 owner 1001\n");
    assert_int_equal(net.server.connection_count, 1);
    net_later(&net, 2200);
    assert_int_equal(net.server.connection_count, 0);
    client_close(client);
    net_close(&net);
}

static void test_peer_that_ends_its_stream_after_the_close(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int client = client_open(&net);
    connection_close(&net.server, net.last, 1001, span_of(NULL, 0));
    client_close(client);
    NET_UNTIL(&net, net.server.connection_count == 0);
    assert_non_null(strstr(net_events(&net), "closed 0 owner 1001\n"));
    net_close(&net);
}

/* Resets in every state. */
static void test_resets(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int client = client_connect(&net);
    client_send(&net, client, "GET", 3);
    NET_UNTIL(&net, net.server.buffers.used_count == 1);
    client_reset(client);
    NET_UNTIL(&net, net.server.connection_count == 0);
    assert_string_equal(net_events(&net), "refused 0\n");

    client = client_open(&net);
    uint8_t frame[64];
    client_send(&net, client, frame, client_frame(frame, 0x01, "half", 4));
    NET_UNTIL(&net, net.server.buffers.used_count == 1);
    client_reset(client);
    NET_UNTIL(&net, net.server.connection_count == 0);
    assert_non_null(strstr(net_events(&net), "closed 1 lost 1006\n"));

    client = client_open(&net);
    (void)net_events(&net);
    connection_close(&net.server, net.last, 1000, span_of(NULL, 0));
    client_reset(client);
    NET_UNTIL(&net, net.server.connection_count == 0);
    assert_string_equal(net_events(&net), "closed 2 owner 1000\n");

    client = client_open(&net);
    client_send(&net, client, "\xff\xff", 2);
    client_expect_close(&net, client, 1002);
    client_reset(client);
    NET_UNTIL(&net, net.server.connection_count == 0);
    assert_non_null(strstr(net_events(&net), "closed 3 broken 1002\n"));
    net_close(&net);
}

static struct connection_handle seen_closed;

static void write_in_closed(struct net *net, struct connection_handle connection)
{
    seen_closed = connection;
    assert_int_equal(connection_user_index(&net->server, connection), 41);
    assert_int_not_equal(connection_peer(&net->server, connection).port, 0);
    struct span part = span_text("your friend left");
    assert_int_equal(connection_send_text(&net->server, connection, &part, 1), CONNECTION_GONE);
    assert_int_equal(connection_send_text(&net->server, net->other, &part, 1), CONNECTION_OK);
    net->in_closed = NULL;
    connection_close(&net->server, net->other, 4002, span_text("and so do you"));
}

static void test_calls_from_on_closed(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int other = client_open(&net);
    net.other = net.last;
    int client = client_open(&net);
    connection_set_user_index(&net.server, net.last, 41);
    net.in_closed = write_in_closed;
    (void)net_events(&net);
    client_close(client);
    client_expect_text(&net, other, "your friend left");
    client_expect_close(&net, other, 4002);
    assert_true(connection_handle_equal(seen_closed, net.last));
    assert_string_equal(net_events(&net), "closed 1 lost 1006\nclosed 0 owner 4002\n");
    client_close(other);
    net_close(&net);
}

static void close_in_timer(struct net *net, struct connection_handle connection)
{
    connection_close(&net->server, connection, 1001, span_text("silent"));
    connection_set_timer(&net->server, connection, 0);
}

static void test_closing_in_on_timer(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    net.in_timer = close_in_timer;
    int client = client_open(&net);
    (void)net_events(&net);
    connection_set_timer(&net.server, net.last, net.server.now_ms + 100);
    net_later(&net, 300);
    assert_string_equal(net_events(&net), "timer 0\nclosed 0 owner 1001\n");
    client_expect_close(&net, client, 1001);
    client_close(client);
    net_close(&net);
}

static void close_in_readable(struct net *net, struct connection_handle connection)
{
    net->in_readable = NULL;
    connection_close(&net->server, connection, 4003, span_of(NULL, 0));
}

static void test_closing_in_readable(void **state)
{
    (void)state;
    for (size_t held = 0; held < 2; held++) {
        struct net net;
        net_open(&net, net_options());
        int client = client_open(&net);
        (void)net_events(&net);
        net.readable = false;
        if (held == 1) {
            client_send_text(&net, client, "held");
            NET_UNTIL(&net, net.server.buffers.used_count == 1);
        }
        net.in_readable = close_in_readable;
        if (held == 1) {
            server_resume(&net.server, net.server.now_ms);
        } else {
            client_send_text(&net, client, "never given");
        }
        client_expect_close(&net, client, 4003);
        assert_string_equal(net_events(&net),
                            held == 1 ? "pressure 0\nclosed 0 owner 4003\n" : "closed 0 owner 4003\n");
        client_close(client);
        net_close(&net);
    }
}

/* A reason too long for its frame is cut where a character ends. */
static void test_long_reason(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int client = client_open(&net);
    char reason[200];
    memset(reason, 'r', sizeof reason);
    memcpy(reason + 122, "\xc3\xbc", 2);
    connection_close(&net.server, net.last, 1000, span_of(reason, sizeof reason));
    char frame[126] = "\x88\x7c\x03\xe8";
    memset(frame + 4, 'r', 122);
    client_expect(&net, client, frame, 126);
    client_close(client);
    net_close(&net);
}

/* A failed peer gets its close frame and the end of the stream, though it goes on sending. */
static void test_broken_peer_that_goes_on_sending(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int client = client_open(&net);
    uint8_t frames[64];
    size_t bytes = client_frame(frames, 0x81, "\xff", 1);
    client_send(&net, client, frames, bytes);
    for (int index = 0; index < 50; index++) {
        client_send_text(&net, client, "more");
        net_turn(&net);
    }
    client_expect_close(&net, client, 1007);
    client_expect_end(&net, client);
    assert_non_null(strstr(net_events(&net), "closed 0 broken 1007\n"));
    client_close(client);
    net_close(&net);
}

static void test_many_come_and_go(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    net.echo = true;
    for (int index = 0; index < 200; index++) {
        int client = client_open(&net);
        client_send_text(&net, client, "hi");
        if (index % 3 == 0) {
            client_expect_text(&net, client, "echo hi");
        }
        if (index % 2 == 0) {
            client_reset(client);
        } else {
            client_close(client);
        }
        (void)net_events(&net);
    }
    net_close(&net);
}

/* A port may say only that it is over. */
static void test_hangup_without_data(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int client = client_open(&net);
    (void)net_events(&net);
    struct port_event event = {(uint64_t)NET_TAG << 56 | (uint64_t)net.last.generation << 32 | net.last.index,
                               PORT_HANGUP};
    server_on_event(&net.server, &event, net.server.now_ms);
    server_flush(&net.server, net.server.now_ms);
    assert_string_equal(net_events(&net), "closed 0 lost 1006\n");
    client_close(client);
    net_close(&net);
}

static void flush_in_handler(void *argument)
{
    struct net *net = argument;
    server_flush(&net->server, 0);
}

static void resume_in_handler(void *argument)
{
    struct net *net = argument;
    server_resume(&net->server, 0);
}

static bool checked;

static void try_forbidden_calls(struct net *net, struct connection_handle connection, const uint8_t *data, size_t bytes)
{
    (void)connection;
    (void)data;
    (void)bytes;
    checked = aborts(flush_in_handler, net) && aborts(resume_in_handler, net);
}

static void test_what_handlers_may_not_call(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    net.in_message = try_forbidden_calls;
    int client = client_open(&net);
    client_send_text(&net, client, "x");
    NET_UNTIL(&net, net.server.counters.messages_received == 1);
    assert_true(checked);
    client_close(client);
    net_close(&net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_closing_oneself_in_on_message),
        cmocka_unit_test(test_closing_another_in_on_message),
        cmocka_unit_test(test_refusal_after_the_upgrade),
        cmocka_unit_test(test_refusal_before_the_upgrade),
        cmocka_unit_test(test_refusal_reaches_a_peer_that_is_still_sending),
        cmocka_unit_test(test_handshake_timeout),
        cmocka_unit_test(test_peer_that_does_not_answer_the_close),
        cmocka_unit_test(test_peer_that_ends_its_stream_after_the_close),
        cmocka_unit_test(test_resets),
        cmocka_unit_test(test_calls_from_on_closed),
        cmocka_unit_test(test_closing_in_on_timer),
        cmocka_unit_test(test_closing_in_readable),
        cmocka_unit_test(test_long_reason),
        cmocka_unit_test(test_broken_peer_that_goes_on_sending),
        cmocka_unit_test(test_many_come_and_go),
        cmocka_unit_test(test_hangup_without_data),
        cmocka_unit_test(test_what_handlers_may_not_call),
    };
    return net_run("ending", tests, sizeof tests / sizeof tests[0]);
}
