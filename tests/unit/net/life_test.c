/* SPDX-License-Identifier: MIT */
/* From accept to messages: tables, handles, turns, timers, accept storms. */
#include "net_fixture.h"

#include <arpa/inet.h>
#include <sys/socket.h>

static void test_open_talk_leave(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    net.echo = true;
    int client = client_open(&net);
    assert_string_equal(net_events(&net), "request 0 /dev\nopen 0 /dev\n");
    assert_true(connection_is_open(&net.server, net.last));
    assert_int_equal(connection_user_index(&net.server, net.last), (uint32_t)SERVER_USER_NONE);
    connection_set_user_index(&net.server, net.last, 77);
    assert_int_equal(connection_user_index(&net.server, net.last), 77);
    struct sockaddr_in own;
    socklen_t own_bytes = sizeof own;
    assert_int_equal(getsockname(client, (struct sockaddr *)&own, &own_bytes), 0);
    struct port_address peer = connection_peer(&net.server, net.last);
    assert_memory_equal(peer.bytes, "\x7f\0\0\1", 4);
    assert_int_equal(peer.port, ntohs(own.sin_port));
    client_send_text(&net, client, "hello");
    client_expect_text(&net, client, "echo hello");
    assert_string_equal(net_events(&net), "text 0 hello\n");
    uint8_t close_frame[16];
    client_send(&net, client, close_frame, client_frame(close_frame, 0x88, "\x0f\xa1", 2));
    client_expect_close(&net, client, 4001);
    client_expect_end(&net, client);
    assert_int_equal(net.server.connection_count, 1); /* it ended its side in order, and waits for ours */
    assert_string_equal(net_events(&net), "closed 0 peer 4001\n");
    assert_false(connection_is_open(&net.server, net.last));
    client_close(client);
    net_close(&net);
}

/* What performance rests on: one read and one send a turn, and no word to the poller. */
static void test_many_messages_in_one_turn(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    net.echo = true;
    int client = client_open(&net);
    net_settle(&net);
    struct server_counters before = net.server.counters;
    size_t changes_before = net.interest_changes;
    uint8_t frames[4096];
    size_t bytes = 0;
    for (int index = 0; index < 16; index++) {
        char text[100];
        (void)snprintf(text, sizeof text, "message %d, long enough that all the echoes take several chunks to hold",
                       index);
        bytes += client_frame(frames + bytes, 0x81, text, strlen(text));
    }
    client_send(&net, client, frames, bytes);
    NET_UNTIL(&net, net.server.counters.messages_received == before.messages_received + 16);
    assert_int_equal(net.server.counters.receives, before.receives + 1);
    assert_int_equal(net.server.counters.sends, before.sends + 1);
    assert_int_equal(net.server.counters.messages_sent, before.messages_sent + 16);
    assert_int_equal(net.interest_changes, changes_before);
    assert_int_equal(net.server.buffers.peak_count, 0);
    for (int index = 0; index < 16; index++) {
        char text[100];
        (void)snprintf(text, sizeof text,
                       "echo message %d, long enough that all the echoes take several chunks to hold", index);
        client_expect_text(&net, client, text);
    }
    client_close(client);
    net_close(&net);
}

static void test_partial_input_borrows_a_buffer(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int client = client_open(&net);
    uint8_t frame[64];
    size_t bytes = client_frame(frame, 0x81, "0123456789", 10);
    for (size_t at = 0; at < bytes; at++) {
        client_send(&net, client, frame + at, 1);
        net_settle(&net);
        assert_int_equal(net.server.buffers.used_count, at >= 6 && at < bytes - 1 ? 1 : 0);
    }
    assert_string_equal(net_events(&net), "request 0 /dev\nopen 0 /dev\ntext 0 0123456789\n");
    assert_int_equal(net.server.buffers.peak_count, 1);
    client_close(client);
    net_close(&net);
}

static void test_handles_outlive_their_connection(void **state)
{
    (void)state;
    struct net net;
    struct server_options options = net_options();
    options.connection_max = 1;
    net_open(&net, options);
    int first = client_open(&net);
    struct connection_handle old = net.last;
    client_close(first);
    NET_UNTIL(&net, net.server.connection_count == 0);
    int second = client_open(&net);
    assert_int_equal(net.last.index, old.index);
    assert_int_not_equal(net.last.generation, old.generation);
    /* Late calls for the old one do nothing to the new one. */
    connection_close(&net.server, old, 1000, span_text("late"));
    connection_set_user_index(&net.server, old, 5);
    connection_set_timer(&net.server, old, 0);
    struct span part = span_text("late");
    assert_int_equal(connection_send_text(&net.server, old, &part, 1), CONNECTION_GONE);
    assert_int_equal(connection_ping(&net.server, old), CONNECTION_GONE);
    assert_int_equal(connection_user_index(&net.server, net.last), (uint32_t)SERVER_USER_NONE);
    assert_int_equal(connection_last_receive_ms(&net.server, old), 0);
    assert_false(connection_is_open(&net.server, (struct connection_handle){0, 0}));
    assert_false(connection_is_open(&net.server, (struct connection_handle){1000, 1}));
    net.echo = true;
    (void)net_events(&net);
    client_send_text(&net, second, "alive");
    client_expect_text(&net, second, "echo alive");
    assert_string_equal(net_events(&net), "text 0 alive\n");
    client_close(second);
    net_close(&net);
}

/* An event that was already on its way when its connection ended finds nobody. */
static void test_stale_events(void **state)
{
    (void)state;
    struct net net;
    struct server_options options = net_options();
    options.connection_max = 1;
    net_open(&net, options);
    int first = client_open(&net);
    struct connection_handle old = net.last;
    client_close(first);
    NET_UNTIL(&net, net.server.connection_count == 0);
    int second = client_open(&net);
    (void)net_events(&net);
    struct port_event stale = {(uint64_t)NET_TAG << 56 | (uint64_t)old.generation << 32 | old.index,
                               PORT_READ | PORT_WRITE | PORT_HANGUP};
    uint64_t receives = net.server.counters.receives;
    server_on_event(&net.server, &stale, net.server.now_ms);
    assert_int_equal(net.server.counters.receives, receives);
    assert_true(connection_is_open(&net.server, net.last));
    client_close(second);
    net_close(&net);
}

static void test_timers(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int client = client_open(&net);
    (void)net_events(&net);
    assert_int_equal(server_next_ms(&net.server), TIMER_WHEEL_NEVER); /* the handshake's is gone */
    uint64_t start_ms = net.server.now_ms;
    connection_set_timer(&net.server, net.last, start_ms + 30000);
    assert_true(server_next_ms(&net.server) <= start_ms + 30100);
    net_later(&net, 29000);
    assert_string_equal(net_events(&net), "");
    net_later(&net, 1100);
    assert_string_equal(net_events(&net), "timer 0\n");
    net_later(&net, 60000);
    assert_string_equal(net_events(&net), "");
    client_close(client);
    net_close(&net);
}

static void test_last_receive(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    net.echo = true;
    net.added_ms = UINT32_MAX - 5000; /* the lower half of the clock is about to turn over */
    int client = client_open(&net);
    uint64_t opened_ms = connection_last_receive_ms(&net.server, net.last);
    assert_true(opened_ms <= net.server.now_ms && opened_ms + 1000 > net.server.now_ms);
    net_later(&net, 100000);
    assert_int_equal(connection_last_receive_ms(&net.server, net.last), opened_ms);
    client_send_text(&net, client, "x");
    client_expect_text(&net, client, "echo x");
    assert_true(connection_last_receive_ms(&net.server, net.last) >= opened_ms + 100000);
    client_close(client);
    net_close(&net);
}

/* The next turn sends it, and must not be slept away. */
static void test_what_is_written_behind_the_flush_is_due_at_once(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int client = client_open(&net);
    assert_int_equal(server_next_ms(&net.server), TIMER_WHEEL_NEVER);
    struct span part = span_text("late");
    assert_int_equal(connection_send_text(&net.server, net.last, &part, 1), CONNECTION_OK);
    assert_true(server_next_ms(&net.server) <= net.server.now_ms);
    net_turn(&net);
    client_expect_text(&net, client, "late");
    assert_int_equal(server_next_ms(&net.server), TIMER_WHEEL_NEVER);
    client_close(client);
    net_close(&net);
}

static void test_full_table_leaves_newcomers_in_the_queue(void **state)
{
    (void)state;
    struct net net;
    struct server_options options = net_options();
    options.connection_max = 2;
    net_open(&net, options);
    net.echo = true;
    int clients[2] = {client_open(&net), client_open(&net)};
    int third = client_connect(&net);
    net_settle(&net);
    assert_int_equal(net.server.connection_count, 2);
    assert_false(net.server.accepting); /* or the poller would not rest */
    client_close(clients[0]);
    NET_UNTIL(&net, net.server.counters.accepted == 3);
    client_send_text(&net, clients[1], "neighbour");
    client_expect_text(&net, clients[1], "echo neighbour");
    client_close(clients[1]);
    client_close(third);
    net_close(&net);
}

/* Who connects and says nothing, or half of it, takes up no place for which somebody waits. */
static void test_handshakes_make_room_in_a_full_table(void **state)
{
    (void)state;
    struct net net;
    struct server_options options = net_options();
    options.connection_max = 3;
    net_open(&net, options);
    int inside = client_open(&net);
    int half = client_connect(&net);
    client_send(&net, half, "GET /half HT", 12);
    NET_UNTIL(&net, net.server.partial.count == 1);
    int silent = client_connect(&net);
    NET_UNTIL(&net, net.server.connection_count == 3);
    net_settle(&net); /* nobody waits: nothing happens */
    assert_int_equal(net.server.counters.displaced, 0);
    int newcomers[3] = {client_connect(&net), 0, 0};
    net_settle(&net); /* everybody has a moment to say what it wants */
    assert_int_equal(net.server.counters.displaced, 0);
    net_later(&net, 150);
    NET_UNTIL(&net, net.server.counters.accepted == 4);
    client_close(newcomers[0]);
    for (int index = 0; index < 2; index++) {
        newcomers[index] = client_open(&net);
    }
    client_expect(&net, silent, "HTTP/1.1 408 Request Timeout\r\n", 30);
    client_expect(&net, half, "HTTP/1.1 408 Request Timeout\r\n", 30);
    assert_int_equal(net.server.counters.displaced, 2);
    assert_int_equal(net.server.open_count, 3);
    /* Those who are open are not displaced, so the next one waits. */
    newcomers[2] = client_connect(&net);
    net_settle(&net);
    assert_int_equal(net.server.open_count, 3);
    assert_false(net.server.accepting);
    client_close(inside);
    client_close(silent);
    client_close(half);
    for (int index = 0; index < 3; index++) {
        client_close(newcomers[index]);
    }
    net_close(&net);
}

/* The one whose place somebody waits for opens in time: then it is the next one's place. */
static void test_who_waits_for_a_place_is_not_forgotten(void **state)
{
    (void)state;
    struct net net;
    struct server_options options = net_options();
    options.connection_max = 2;
    net_open(&net, options);
    int first = client_connect(&net);
    NET_UNTIL(&net, net.server.connection_count == 1);
    net_later(&net, 90);
    int second = client_connect(&net);
    NET_UNTIL(&net, net.server.connection_count == 2);
    int newcomer = client_connect(&net);
    NET_UNTIL(&net, !net.server.accepting);
    static const char request[] = "GET /first HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    client_send(&net, first, request, sizeof request - 1);
    NET_UNTIL(&net, net.server.open_count == 1);
    net_later(&net, 60); /* the first one's time: the second is too young */
    net_settle(&net);
    assert_int_equal(net.server.counters.accepted, 2);
    uint64_t wait_ms = server_next_ms(&net.server) - net.server.now_ms;
    assert_in_range(wait_ms, 1, 100);
    net_later(&net, wait_ms);
    NET_UNTIL(&net, net.server.counters.accepted == 3);
    assert_int_equal(net.server.counters.displaced, 1);
    client_expect(&net, second, "HTTP/1.1 408 Request Timeout\r\n", 30);
    client_close(first);
    client_close(second);
    client_close(newcomer);
    net_close(&net);
}

/* The door is looked at before the one inside, whose request has come: it is served and not displaced. */
static void test_a_request_that_has_come_is_not_displaced(void **state)
{
    (void)state;
    struct net net;
    struct server_options options = net_options();
    options.connection_max = 1;
    net_open(&net, options);
    int first = client_connect(&net);
    NET_UNTIL(&net, net.server.connection_count == 1);
    net_later(&net, 150);
    static const char request[] = "GET /first HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    client_send(&net, first, request, sizeof request - 1);
    int second = client_connect(&net);
    assert_true(net.server.accepting);
    struct port_event door = {(uint64_t)NET_TAG << 56 | UINT32_MAX, PORT_READ};
    server_on_event(&net.server, &door, net.server.now_ms);
    server_flush(&net.server, net.server.now_ms);
    assert_string_equal(net_events(&net), "request 0 /first\nopen 0 /first\n");
    client_expect(&net, first, "HTTP/1.1 101 ", 13);
    client_close(first);
    NET_UNTIL(&net, net.server.counters.accepted == 2);
    assert_int_equal(net.server.counters.displaced, 0);
    client_close(second);
    net_close(&net);
}

static void test_storm(void **state)
{
    (void)state;
    struct net net;
    struct server_options options = net_options();
    options.connection_max = 400;
    options.accept_max = 16;
    net_open(&net, options);
    int clients[120];
    for (int index = 0; index < 120; index++) {
        clients[index] = client_connect(&net);
    }
    net_turn(&net);
    assert_int_equal(net.server.connection_count, 16); /* bounded a turn */
    NET_UNTIL(&net, net.server.connection_count == 120);
    assert_int_equal(net.server.buffers.used_count, 0);
    for (int index = 0; index < 120; index++) {
        if (index % 2 == 0) {
            client_reset(clients[index]);
        } else {
            client_close(clients[index]);
        }
    }
    NET_UNTIL(&net, net.server.connection_count == 0);
    assert_int_equal(net.server.counters.refused[SERVER_REFUSED_LOST], 120);
    net_close(&net);
}

static void test_out_of_handles(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    net.accept_fails = true;
    int client = client_connect(&net);
    NET_UNTIL(&net, net.server.counters.accept_failed == 1);
    net_settle(&net);
    assert_int_equal(net.server.counters.accept_failed, 1); /* it does not spin */
    assert_true(server_next_ms(&net.server) != TIMER_WHEEL_NEVER);
    net_later(&net, 200);
    NET_UNTIL(&net, net.server.counters.accept_failed == 2);
    net.accept_fails = false;
    net_later(&net, 200);
    NET_UNTIL(&net, net.server.counters.accepted == 1);
    client_close(client);
    net_close(&net);
}

static void test_walk_over_open_connections(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int clients[3] = {client_open(&net), client_open(&net), client_open(&net)};
    int half = client_connect(&net);
    net_settle(&net);
    assert_int_equal(net.server.connection_count, 4);
    size_t count = 0;
    struct connection_handle at = server_next(&net.server, (struct connection_handle){0, 0});
    for (; at.generation != 0; at = server_next(&net.server, at)) {
        connection_close(&net.server, at, 1012, span_text("restart"));
        count++;
    }
    assert_int_equal(count, 3);
    server_stop_accepting(&net.server);
    server_stop_accepting(&net.server);
    for (int index = 0; index < 3; index++) {
        client_expect_close(&net, clients[index], 1012);
        client_close(clients[index]);
    }
    client_close(half);
    NET_UNTIL(&net, net.server.connection_count == 0);
    assert_null(strstr(net_events(&net), "lost"));
    net_close(&net);
}

static void test_two_servers_cannot_listen_on_one_port(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    static struct net second;
    second = net;
    second.server.listener = PORT_NONE;
    assert_false(server_listen(&second.server, &net.address));
    assert_true(strlen(net.port.error_text(net.port.context)) > 0);
    net_close(&net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_talk_leave),
        cmocka_unit_test(test_many_messages_in_one_turn),
        cmocka_unit_test(test_partial_input_borrows_a_buffer),
        cmocka_unit_test(test_handles_outlive_their_connection),
        cmocka_unit_test(test_stale_events),
        cmocka_unit_test(test_timers),
        cmocka_unit_test(test_last_receive),
        cmocka_unit_test(test_what_is_written_behind_the_flush_is_due_at_once),
        cmocka_unit_test(test_full_table_leaves_newcomers_in_the_queue),
        cmocka_unit_test(test_handshakes_make_room_in_a_full_table),
        cmocka_unit_test(test_who_waits_for_a_place_is_not_forgotten),
        cmocka_unit_test(test_a_request_that_has_come_is_not_displaced),
        cmocka_unit_test(test_storm),
        cmocka_unit_test(test_out_of_handles),
        cmocka_unit_test(test_walk_over_open_connections),
        cmocka_unit_test(test_two_servers_cannot_listen_on_one_port),
    };
    return net_run("life", tests, sizeof tests / sizeof tests[0]);
}
