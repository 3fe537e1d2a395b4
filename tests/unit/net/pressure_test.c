/* SPDX-License-Identifier: MIT */
/* When the owner has no room, when peers do not read, when buffers and chunks run out. */
#include "net_fixture.h"

#include <sys/socket.h>

static void send_ping(struct net *net, int client, const char *payload)
{
    uint8_t frame[256];
    client_send(net, client, frame, client_frame(frame, 0x89, payload, strlen(payload)));
}

static void expect_pong(struct net *net, int client, const char *payload)
{
    uint8_t header[2] = {0x8a, (uint8_t)strlen(payload)};
    client_expect(net, client, header, 2);
    client_expect(net, client, payload, strlen(payload));
}

static void test_held_until_there_is_room(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int client = client_open(&net);
    (void)net_events(&net);
    net.readable = false;
    /* Control frames are answered, and said once: pressure. */
    send_ping(&net, client, "one");
    expect_pong(&net, client, "one");
    send_ping(&net, client, "two");
    expect_pong(&net, client, "two");
    assert_string_equal(net_events(&net), "pressure 0\n");
    assert_false(connection_is_paused(&net.server, net.last));
    assert_int_equal(net.server.buffers.used_count, 0);
    /* The first data message is held, with what came right behind it; more is not read. */
    uint8_t frames[1024];
    size_t bytes = client_frame(frames, 0x89, "three", 5);
    bytes += client_frame(frames + bytes, 0x81, "first", 5);
    bytes += client_frame(frames + bytes, 0x89, "four", 4);
    bytes += client_frame(frames + bytes, 0x82, "second", 6);
    bytes += client_frame(frames + bytes, 0x01, "thi", 3);
    client_send(&net, client, frames, bytes);
    expect_pong(&net, client, "three");
    net_settle(&net);
    assert_true(connection_is_paused(&net.server, net.last));
    assert_int_equal(net.server.buffers.used_count, 1);
    bytes = client_frame(frames, 0x80, "rd", 2);
    client_send(&net, client, frames, bytes);
    client_send_text(&net, client, "fourth");
    uint64_t receives = net.server.counters.receives;
    net_settle(&net);
    assert_int_equal(net.server.counters.receives, receives);
    /* No room yet: nothing moves. */
    server_resume(&net.server, net.server.now_ms);
    net_settle(&net);
    assert_string_equal(net_events(&net), "");
    net_later(&net, 60000); /* silence of which the peer is not accused afterwards */
    net.readable = true;
    server_resume(&net.server, net.server.now_ms);
    assert_int_equal(connection_last_receive_ms(&net.server, net.last), net.server.now_ms);
    assert_string_equal(net_events(&net), "text 0 first\nbinary 0 second\n");
    assert_false(connection_is_paused(&net.server, net.last));
    NET_UNTIL(&net, net.server.counters.messages_received == 4);
    assert_string_equal(net_events(&net), "text 0 third\ntext 0 fourth\n");
    expect_pong(&net, client, "four");
    assert_int_equal(net.server.buffers.used_count, 0);
    client_close(client);
    net_close(&net);
}

static void test_resumed_in_order_of_waiting(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int clients[3];
    for (int index = 0; index < 3; index++) {
        clients[index] = client_open(&net);
    }
    (void)net_events(&net);
    net.readable = false;
    static const int order[3] = {2, 0, 1};
    for (int index = 0; index < 3; index++) {
        client_send_text(&net, clients[order[index]], "held");
        NET_UNTIL(&net, net.server.waiting.count == (uint32_t)index + 1);
    }
    assert_string_equal(net_events(&net), "pressure 2\npressure 0\npressure 1\n");
    net_settle(&net);
    net.readable = true;
    server_resume(&net.server, net.server.now_ms);
    assert_string_equal(net_events(&net), "text 2 held\ntext 0 held\ntext 1 held\n");
    /* A second wait is said anew. */
    net.readable = false;
    client_send_text(&net, clients[0], "again");
    NET_UNTIL(&net, net.server.waiting.count == 1);
    assert_string_equal(net_events(&net), "pressure 0\n");
    net.readable = true;
    net_settle(&net);
    server_resume(&net.server, net.server.now_ms);
    assert_string_equal(net_events(&net), "text 0 again\n");
    for (int index = 0; index < 3; index++) {
        client_close(clients[index]);
    }
    net_close(&net);
}

static size_t room_count;

static void count_room(struct net *net, struct connection_handle connection)
{
    (void)connection;
    net->readable = room_count > 0;
    room_count -= room_count > 0 ? 1 : 0;
}

static void test_resume_stops_where_room_ends(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int clients[3];
    for (int index = 0; index < 3; index++) {
        clients[index] = client_open(&net);
    }
    net.readable = false;
    for (int index = 0; index < 3; index++) {
        client_send_text(&net, clients[index], "held");
        NET_UNTIL(&net, net.server.waiting.count == (uint32_t)index + 1);
    }
    net_settle(&net);
    (void)net_events(&net);
    net.in_readable = count_room;
    room_count = 2;
    server_resume(&net.server, net.server.now_ms);
    assert_string_equal(net_events(&net), "text 0 held\ntext 1 held\n");
    assert_int_equal(net.server.waiting.count, 1);
    room_count = 100;
    server_resume(&net.server, net.server.now_ms);
    assert_string_equal(net_events(&net), "text 2 held\n");
    for (int index = 0; index < 3; index++) {
        client_close(clients[index]);
    }
    net_close(&net);
}

/* Under pressure the rest of a large message comes in small pieces, into the buffer it has. */
static void test_pressure_within_a_message(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int client = client_open(&net);
    (void)net_events(&net);
    uint8_t payload[4096];
    uint8_t frame[8192];
    memset(payload, 'm', sizeof payload);
    size_t bytes = client_frame(frame, 0x82, payload, sizeof payload);
    client_send(&net, client, frame, 100);
    NET_UNTIL(&net, net.server.partial.count == 1);
    net.readable = false;
    client_send(&net, client, frame + 100, 100);
    NET_UNTIL(&net, net.server.waiting.count == 1);
    assert_int_equal(net.server.partial.count, 0); /* it may not be evicted for being slow now */
    net.readable = true;
    server_resume(&net.server, net.server.now_ms);
    assert_int_equal(net.server.partial.count, 1);
    net.readable = false;
    bytes += client_frame(frame + bytes, 0x81, "next", 4);
    client_send(&net, client, frame + 200, bytes - 200);
    NET_UNTIL(&net, connection_is_paused(&net.server, net.last));
    assert_int_equal(net.server.partial.count, 0);
    assert_string_equal(net_events(&net), "pressure 0\npressure 0\n");
    net.readable = true;
    server_resume(&net.server, net.server.now_ms);
    assert_string_equal(net_events(&net), "binary 0 mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm\ntext 0 next\n");
    assert_int_equal(net.server.counters.message_bytes_received, 4100);
    client_close(client);
    net_close(&net);
}

static void test_waiting_without_a_buffer(void **state)
{
    (void)state;
    struct net net;
    struct server_options options = net_options();
    options.buffer_count = 1;
    net_open(&net, options);
    int clients[2] = {client_open(&net), client_open(&net)};
    (void)net_events(&net);
    net.readable = false;
    client_send_text(&net, clients[0], "holds the buffer");
    NET_UNTIL(&net, net.server.buffers.used_count == 1);
    client_send_text(&net, clients[1], "has none");
    NET_UNTIL(&net, connection_is_paused(&net.server, net.last));
    net_settle(&net); /* it would not rest if the poller still watched it */
    assert_string_equal(net_events(&net), "pressure 0\npressure 1\n");
    net.readable = true;
    server_resume(&net.server, net.server.now_ms);
    net_settle(&net);
    assert_string_equal(net_events(&net), "text 0 holds the buffer\ntext 1 has none\n");
    client_close(clients[0]);
    client_close(clients[1]);
    net_close(&net);
}

static void test_pressure_right_behind_the_handshake(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    net.readable = false;
    int client = client_connect(&net);
    static const char request[] = "GET /dev HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    uint8_t data[1024];
    memcpy(data, request, sizeof request - 1);
    size_t bytes = sizeof request - 1;
    bytes += client_frame(data + bytes, 0x81, "early", 5);
    bytes += client_frame(data + bytes, 0x81, "bird", 4);
    client_send(&net, client, data, bytes);
    NET_UNTIL(&net, net.server.waiting.count == 1);
    assert_string_equal(net_events(&net), "request 0 /dev\nopen 0 /dev\npressure 0\n");
    net.readable = true;
    server_resume(&net.server, net.server.now_ms);
    assert_string_equal(net_events(&net), "text 0 early\ntext 0 bird\n");
    client_close(client);
    net_close(&net);
}

static void test_peer_that_leaves_while_held(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int client = client_open(&net);
    (void)net_events(&net);
    net.readable = false;
    client_send_text(&net, client, "held");
    NET_UNTIL(&net, net.server.buffers.used_count == 1);
    client_reset(client);
    NET_UNTIL(&net, net.server.open_count == 0);
    assert_string_equal(net_events(&net), "pressure 0\nclosed 0 lost 1006\n");
    net.readable = true;
    server_resume(&net.server, net.server.now_ms);
    assert_string_equal(net_events(&net), "");
    net_close(&net);
}

/* It has said all it had to say and ended its side: nothing of that is lost, and then it is gone. */
static void test_peer_that_ends_its_side_while_held(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int client = client_open(&net);
    (void)net_events(&net);
    net.readable = false;
    client_send_text(&net, client, "held");
    NET_UNTIL(&net, connection_is_paused(&net.server, net.last));
    client_send_text(&net, client, "waits in the network");
    client_send_text(&net, client, "and this too");
    assert_int_equal(shutdown(client, SHUT_WR), 0);
    net_settle(&net);
    assert_string_equal(net_events(&net), "pressure 0\n");
    net.readable = true;
    server_resume(&net.server, net.server.now_ms);
    NET_UNTIL(&net, net.server.open_count == 0);
    assert_string_equal(net_events(&net),
                        "text 0 held\ntext 0 waits in the network\ntext 0 and this too\nclosed 0 lost 1006\n");
    client_close(client);
    net_close(&net);
}

/* The owner closes a connection that is held: what is behind the held message is skipped frame by frame. */
static void test_closing_while_held(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int client = client_open(&net);
    (void)net_events(&net);
    net.readable = false;
    uint8_t frames[256];
    size_t bytes = client_frame(frames, 0x81, "held", 4);
    size_t second_at = bytes;
    bytes += client_frame(frames + bytes, 0x81, "never given", 11);
    client_send(&net, client, frames, second_at + 5);
    NET_UNTIL(&net, net.server.buffers.used_count == 1);
    connection_close(&net.server, net.last, 1012, span_text("restart"));
    client_expect_close(&net, client, 1012);
    assert_int_equal(net.server.buffers.used_count, 0);
    client_send(&net, client, frames + second_at + 5, bytes - second_at - 5);
    net_settle(&net);
    uint8_t byte;
    assert_int_equal(client_read(client, &byte, 1), 0); /* no end yet: the peer's close frame is awaited */
    client_send(&net, client, frames, client_frame(frames, 0x88, "\x03\xf4", 2));
    client_expect_end(&net, client);
    assert_string_equal(net_events(&net), "pressure 0\nclosed 0 owner 1012\n");
    client_close(client);
    net_close(&net);
}

static void test_peer_that_never_reads(void **state)
{
    (void)state;
    struct net net;
    struct server_options options = net_options();
    options.send_queue_bytes = 16384;
    net_open(&net, options);
    int client = client_open(&net);
    (void)net_events(&net);
    static char payload[1000];
    memset(payload, 'p', sizeof payload);
    struct span part = span_of(payload, sizeof payload);
    enum connection_result result = CONNECTION_OK;
    size_t sent = 0;
    while (result == CONNECTION_OK) {
        assert_true(sent++ < 100000);
        result = connection_send_text(&net.server, net.last, &part, 1);
        if (sent % 8 == 0) {
            net_turn(&net);
        }
    }
    assert_int_equal(result, CONNECTION_FULL);
    assert_int_equal(net.server.counters.sends_full, 1);
    part.bytes = 1;
    while (connection_send_text(&net.server, net.last, &part, 1) == CONNECTION_OK) {
    }
    assert_true(connection_queued_bytes(&net.server, net.last) > 16384 - 3);
    assert_true(net.interest_changes <= 2 + sent / 8);
    /* A close frame finds its place even so; the time to read it is bounded. */
    uint32_t queued_bytes = connection_queued_bytes(&net.server, net.last);
    connection_close(&net.server, net.last, 1008, span_text("slow"));
    assert_int_equal(connection_queued_bytes(&net.server, net.last), queued_bytes + 2 + 2 + 4);
    net_turn(&net);
    assert_string_equal(net_events(&net), "closed 0 owner 1008\n");
    net_settle(&net);
    assert_int_equal(net.server.connection_count, 1);
    net_later(&net, 2100);
    assert_int_equal(net.server.connection_count, 0);
    client_close(client);
    net_close(&net);
}

/* Writes to a connection whose peer does not read until so many bytes wait for it. */
static void fill_queue(struct net *net, struct connection_handle connection, uint32_t bytes)
{
    static const char payload[400];
    struct span part = span_of(payload, sizeof payload);
    while (connection_queued_bytes(&net->server, connection) < bytes) {
        assert_int_equal(connection_send_text(&net->server, connection, &part, 1), CONNECTION_OK);
        net_turn(net);
    }
}

/* Pings of every length from a peer that does not read: what waits for it does not grow, and the latest is answered. */
static void test_only_the_latest_ping_waits_for_its_answer(void **state)
{
    (void)state;
    for (uint32_t before_bytes = 0; before_bytes < 480; before_bytes += 7) { /* of something else, that waits already */
        struct net net;
        net_open(&net, net_options());
        int client = client_open(&net);
        net_deafen(&net, net.last);
        static const char other[480];
        struct span part = span_of(other, before_bytes);
        assert_int_equal(connection_send_text(&net.server, net.last, &part, 1), CONNECTION_OK);
        char payload[126];
        for (uint64_t count = 0; count < 125; count++) {
            memset(payload, 'p', count);
            payload[count] = '\0';
            send_ping(&net, client, payload);
            NET_UNTIL(&net, net.server.counters.pings_received == count + 1);
            assert_true(net.server.chunks.used_count <= 2);
        }
        send_ping(&net, client, "the latest");
        NET_UNTIL(&net, net.server.counters.pings_received == 126);
        net_hear_again(&net);
        uint8_t received[2048];
        long count = client_read(client, received, sizeof received);
        assert_in_range(count, before_bytes + 2 + 12, before_bytes + 4 + 12 + 127);
        assert_memory_equal(received + count - 12, "\x8a\x0athe latest", 12);
        /* Who reads gets each. */
        for (size_t index = 0; index < 20; index++) {
            send_ping(&net, client, "and on");
        }
        for (size_t index = 0; index < 20; index++) {
            expect_pong(&net, client, "and on");
        }
        assert_int_equal(net.server.chunks.used_count, 0);
        client_close(client);
        net_close(&net);
    }
}

static void test_who_takes_nothing_for_long_is_closed(void **state)
{
    (void)state;
    struct net net;
    net_open(&net, net_options());
    int clients[2] = {client_open(&net), 0};
    struct connection_handle late = net.last;
    clients[1] = client_open(&net);
    (void)net_events(&net);
    net_deafen(&net, late);
    fill_queue(&net, late, 1000);
    net_later(&net, 4000);
    net_hear_again(&net); /* in time */
    assert_int_equal(server_next_ms(&net.server), TIMER_WHEEL_NEVER);
    net_deafen(&net, late);
    fill_queue(&net, late, 1000);
    net_later(&net, 4000);
    net_deafen(&net, net.last);
    fill_queue(&net, net.last, 1000);
    net_later(&net, 5900);
    assert_string_equal(net_events(&net), "");
    net_later(&net, 200);
    assert_string_equal(net_events(&net), "closed 0 slow 1008\n");
    /* Who reads then is told why. */
    uint8_t received[8192];
    net_hear_again(&net);
    long count = client_read(clients[0], received, sizeof received);
    static const char reason[] = "you do not read what is sent to you";
    assert_true(count > 37);
    assert_memory_equal(received + count - 39, "\x88\x25\x03\xf0", 4);
    assert_memory_equal(received + count - 35, reason, 35);
    net_later(&net, 2200);
    assert_int_equal(net.server.connection_count, 1);
    client_close(clients[0]);
    client_close(clients[1]);
    net_close(&net);
}

/* Who does not read does not read that either, and is gone when the time of a closing one is over. */
static void test_who_takes_nothing_is_gone_in_the_end(void **state)
{
    (void)state;
    struct net net;
    struct server_options options = net_options();
    options.stall_timeout_ms = 1000;
    options.close_timeout_ms = 5000;
    net_open(&net, options);
    int client = client_open(&net);
    (void)net_events(&net);
    net_deafen(&net, net.last);
    fill_queue(&net, net.last, 1000);
    net_later(&net, 1100);
    assert_string_equal(net_events(&net), "closed 0 slow 1008\n");
    assert_int_equal(net.server.connection_count, 1);
    net_later(&net, 1100);
    assert_int_equal(net.server.connection_count, 0);
    client_close(client);
    net_close(&net);
}

/* All chunks are lent to peers that do not read: the greediest of them pays, and nobody else. */
static void test_chunks_lent_to_the_deaf_come_back(void **state)
{
    (void)state;
    struct net net;
    struct server_options options = net_options();
    options.chunk_count = SERVER_CHUNKS_RESERVED + 16;
    net_open(&net, options);
    int clients[3];
    struct connection_handle connections[3];
    for (int index = 0; index < 3; index++) {
        clients[index] = client_open(&net);
        connections[index] = net.last;
    }
    (void)net_events(&net);
    net_deafen(&net, connections[0]);
    net_deafen(&net, connections[1]);
    fill_queue(&net, connections[0], 2400);
    while (net.server.chunks.used_count < 16) {
        fill_queue(&net, connections[1], connection_queued_bytes(&net.server, connections[1]) + 1);
    }
    /* The innocent one is served. */
    struct span part = span_text("here is your answer");
    assert_int_equal(connection_send_text(&net.server, connections[2], &part, 1), CONNECTION_OK);
    assert_false(connection_is_open(&net.server, connections[1]));
    assert_string_equal(net_events(&net), "");
    client_expect_text(&net, clients[2], "here is your answer");
    assert_string_equal(net_events(&net), "closed 1 hoarding 1008\n");
    /* Who has the most itself is told that it is full. */
    static const char payload[400];
    part = span_of(payload, sizeof payload);
    enum connection_result result = CONNECTION_OK;
    while (result == CONNECTION_OK) {
        result = connection_send_text(&net.server, connections[0], &part, 1);
        net_turn(&net);
    }
    assert_int_equal(result, CONNECTION_FULL);
    assert_true(connection_is_open(&net.server, connections[0]));
    assert_true(net.server.chunks.used_count >= 15);
    /* A newcomer is let in even so. */
    client_close(client_open(&net));
    for (int index = 0; index < 3; index++) {
        client_close(clients[index]);
    }
    net_close(&net);
}

static void write_much_to_the_other(struct net *net, struct connection_handle connection)
{
    (void)connection;
    static const char payload[3000];
    struct span part = span_of(payload, sizeof payload);
    net->in_closed = NULL;
    assert_int_equal(connection_send_text(&net->server, net->other, &part, 1), CONNECTION_OK);
}

/* The one that is cut off is the very one whose end is being told. */
static void test_cut_off_while_its_end_is_told(void **state)
{
    (void)state;
    struct net net;
    struct server_options options = net_options();
    options.chunk_count = SERVER_CHUNKS_RESERVED + 8;
    net_open(&net, options);
    int clients[2] = {client_open(&net), 0};
    net.other = net.last;
    clients[1] = client_open(&net);
    (void)net_events(&net);
    net_deafen(&net, net.last);
    fill_queue(&net, net.last, 2000);
    net.in_closed = write_much_to_the_other;
    connection_close(&net.server, net.last, 4000, span_text("enough"));
    net_turn(&net);
    assert_string_equal(net_events(&net), "closed 1 owner 4000\n");
    assert_int_equal(net.server.connection_count, 1);
    assert_int_equal(net.server.vacant.count, 7);
    client_close(clients[0]);
    client_close(clients[1]);
    net_close(&net);
}

/* A peer that reads late gets everything, in order. */
static void test_peer_that_reads_late(void **state)
{
    (void)state;
    struct net net;
    struct server_options options = net_options();
    options.chunk_count = 4096;
    options.send_queue_bytes = 1024 * 1024;
    net_open(&net, options);
    int client = client_open(&net);
    char text[256];
    uint32_t count = 0;
    while (connection_queued_bytes(&net.server, net.last) < 500000) {
        (void)snprintf(text, sizeof text, "%0200u", count++);
        struct span parts[3] = {span_of(text, 7), span_of(NULL, 0), span_of(text + 7, 193)};
        assert_int_equal(connection_send_text(&net.server, net.last, parts, 3), CONNECTION_OK);
        if (count % 64 == 0) {
            net_turn(&net);
        }
    }
    for (uint32_t index = 0; index < count; index++) {
        (void)snprintf(text, sizeof text, "%0200u", index);
        client_expect_text(&net, client, text);
    }
    net_settle(&net);
    assert_int_equal(net.server.chunks.used_count, 0);
    client_close(client);
    net_close(&net);
}

/* More is written in a turn than there are chunks: it is sent early, and nobody is told FULL. */
static void test_chunks_run_short_within_a_turn(void **state)
{
    (void)state;
    struct net net;
    struct server_options options = net_options();
    options.chunk_count = SERVER_CHUNKS_RESERVED + 4;
    net_open(&net, options);
    int clients[2] = {client_open(&net), 0};
    struct connection_handle first = net.last;
    clients[1] = client_open(&net);
    char payload[300];
    memset(payload, 'c', sizeof payload);
    payload[299] = '\0';
    struct span part = span_of(payload, sizeof payload - 1);
    for (int index = 0; index < 20; index++) {
        assert_int_equal(connection_send_text(&net.server, first, &part, 1), CONNECTION_OK);
        assert_int_equal(connection_send_text(&net.server, net.last, &part, 1), CONNECTION_OK);
    }
    assert_true(net.server.chunks.peak_count <= 4);
    for (int index = 0; index < 20; index++) {
        client_expect_text(&net, clients[0], payload);
        client_expect_text(&net, clients[1], payload);
    }
    /* What can never fit is refused whole. */
    static uint8_t huge[4096];
    part = span_of(huge, sizeof huge);
    assert_int_equal(connection_send_binary(&net.server, first, &part, 1), CONNECTION_FULL);
    net_settle(&net);
    assert_int_equal(net.server.chunks.used_count, 0);
    client_close(clients[0]);
    client_close(clients[1]);
    net_close(&net);
}

/* The chunks of one who is gone, as an early send shows, are there for the others in the same turn. */
static void test_chunks_of_one_who_is_gone_come_back_within_a_turn(void **state)
{
    (void)state;
    struct net net;
    struct server_options options = net_options();
    options.chunk_count = SERVER_CHUNKS_RESERVED + 4;
    net_open(&net, options);
    int gone = client_open(&net);
    struct connection_handle first = net.last;
    int client = client_open(&net);
    (void)net_events(&net);
    char payload[300];
    memset(payload, 'c', sizeof payload);
    payload[299] = '\0';
    struct span part = span_of(payload, sizeof payload - 1);
    while (net.server.chunks.used_count < 4) {
        assert_int_equal(connection_send_text(&net.server, first, &part, 1), CONNECTION_OK);
    }
    client_reset(gone);
    for (int index = 0; index < 3; index++) {
        assert_int_equal(connection_send_text(&net.server, net.last, &part, 1), CONNECTION_OK);
    }
    for (int index = 0; index < 3; index++) {
        client_expect_text(&net, client, payload);
    }
    assert_string_equal(net_events(&net), "closed 0 lost 1006\n");
    client_close(client);
    net_close(&net);
}

/* More is written in a turn than a connection's queue holds, to a peer that reads. */
static void test_queue_runs_full_within_a_turn(void **state)
{
    (void)state;
    struct net net;
    struct server_options options = net_options();
    options.send_queue_bytes = 1000;
    net_open(&net, options);
    int client = client_open(&net);
    struct span part =
        span_text("a tenth of what the queue can hold, and not a byte more, so that it is full after ten of "
                  "them");
    for (int index = 0; index < 100; index++) {
        assert_int_equal(connection_send_text(&net.server, net.last, &part, 1), CONNECTION_OK);
        assert_true(connection_queued_bytes(&net.server, net.last) <= 1000);
    }
    for (int index = 0; index < 100; index++) {
        char text[128];
        (void)snprintf(text, sizeof text, "%.*s", (int)part.bytes, (const char *)part.data);
        client_expect_text(&net, client, text);
    }
    client_close(client);
    net_close(&net);
}

static void test_oldest_partial_gives_way(void **state)
{
    (void)state;
    struct net net;
    struct server_options options = net_options();
    options.buffer_count = 2;
    net_open(&net, options);
    uint8_t half[64];
    size_t bytes = client_frame(half, 0x01, "half", 4);
    int header = client_connect(&net);
    client_send(&net, header, "GET /a HT", 9);
    NET_UNTIL(&net, net.server.buffers.used_count == 1);
    int first = client_open(&net);
    client_send(&net, first, half, bytes);
    NET_UNTIL(&net, net.server.buffers.used_count == 2);
    int second = client_open(&net);
    (void)net_events(&net);
    client_send(&net, second, half, bytes);
    NET_UNTIL(&net, net.server.counters.evicted == 1);
    assert_string_equal(net_events(&net), "refused 408\n");
    client_expect(&net, header, "HTTP/1.1 408 Request Timeout\r\n", 30);
    int third = client_open(&net);
    (void)net_events(&net);
    client_send(&net, third, half, bytes);
    client_expect_close(&net, first, 1013);
    client_expect_end(&net, first);
    assert_string_equal(net_events(&net), "closed 1 evicted 1013\n");
    /* The survivors' messages are whole. */
    bytes = client_frame(half, 0x80, " and half", 9);
    client_send(&net, third, half, bytes);
    client_send(&net, second, half, bytes);
    NET_UNTIL(&net, net.server.counters.messages_received == 2);
    assert_non_null(strstr(net_events(&net), "half and half\n"));
    client_close(header);
    client_close(first);
    client_close(second);
    client_close(third);
    net_close(&net);
}

/* Who needs a buffer has another one closed, whose close frame needs a chunk; and who has the most chunks of those who
 * do not read, and is cut off for it, is he himself. */
static void test_cut_off_by_its_own_need_for_a_buffer(void **state)
{
    (void)state;
    static struct net net;
    struct server_options options = net_options();
    options.connection_max = 64;
    options.buffer_count = 1;
    options.chunk_count = SERVER_CHUNKS_RESERVED + 4;
    net_open(&net, options);
    const struct pool *chunks = &net.server.chunks;
    int greedy = client_open(&net);
    net_deafen(&net, net.last);
    char fill[400];
    memset(fill, 'f', sizeof fill);
    struct span part = span_of(fill, sizeof fill);
    while (connection_send_text(&net.server, net.last, &part, 1) == CONNECTION_OK) {
    }
    int slow = client_open(&net);
    int other = client_open(&net);
    int clients[64];
    int count = 0;
    while (chunks->used_count < chunks->block_count) { /* the reserve goes into close frames */
        assert_true(count < 60);
        clients[count++] = client_open(&net);
        net_deafen(&net, net.last);
        connection_close(&net.server, net.last, 1008, span_text("x"));
        net_settle(&net);
    }
    assert_int_equal(chunks->used_count, chunks->block_count);
    uint8_t frame[256];
    size_t bytes = client_frame(frame, 0x81, "0123456789012345678901234567890123456789", 40) - 5;
    client_send(&net, slow, frame, bytes);
    net_settle(&net);
    assert_int_equal(net.server.partial.count, 1);
    (void)net_events(&net);
    assert_int_equal(send(greedy, frame, bytes, 0), (ssize_t)bytes);
    assert_int_equal(send(other, frame, bytes, 0), (ssize_t)bytes); /* in the same turn: it needs the buffer too */
    for (int turn = 0; turn < 4; turn++) {
        net_turn(&net);
    }
    net_settle(&net);
    assert_non_null(strstr(net_events(&net), "closed 0 hoarding 1008\n"));
    client_close(greedy);
    client_close(slow);
    client_close(other);
    while (count > 0) {
        client_close(clients[--count]);
    }
    net_later(&net, 60000); /* those who took no close frame */
    net_close(&net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_held_until_there_is_room),
        cmocka_unit_test(test_resumed_in_order_of_waiting),
        cmocka_unit_test(test_resume_stops_where_room_ends),
        cmocka_unit_test(test_pressure_within_a_message),
        cmocka_unit_test(test_waiting_without_a_buffer),
        cmocka_unit_test(test_pressure_right_behind_the_handshake),
        cmocka_unit_test(test_peer_that_leaves_while_held),
        cmocka_unit_test(test_peer_that_ends_its_side_while_held),
        cmocka_unit_test(test_closing_while_held),
        cmocka_unit_test(test_peer_that_never_reads),
        cmocka_unit_test(test_only_the_latest_ping_waits_for_its_answer),
        cmocka_unit_test(test_who_takes_nothing_for_long_is_closed),
        cmocka_unit_test(test_who_takes_nothing_is_gone_in_the_end),
        cmocka_unit_test(test_chunks_lent_to_the_deaf_come_back),
        cmocka_unit_test(test_cut_off_while_its_end_is_told),
        cmocka_unit_test(test_peer_that_reads_late),
        cmocka_unit_test(test_chunks_run_short_within_a_turn),
        cmocka_unit_test(test_chunks_of_one_who_is_gone_come_back_within_a_turn),
        cmocka_unit_test(test_queue_runs_full_within_a_turn),
        cmocka_unit_test(test_oldest_partial_gives_way),
        cmocka_unit_test(test_cut_off_by_its_own_need_for_a_buffer),
    };
    return net_run("pressure", tests, sizeof tests / sizeof tests[0]);
}
