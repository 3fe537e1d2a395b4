/* SPDX-License-Identifier: MIT */
#include "net_fixture.h"

#include "connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

static enum port_posix_poller group_poller;
static struct net *current; /* of the port's wrapped functions */
static struct port real;

__attribute__((format(printf, 2, 3))) static void note(struct net *net, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int count = vsnprintf(net->transcript + net->transcript_bytes, NET_TRANSCRIPT_BYTES - net->transcript_bytes, format,
                          arguments);
    va_end(arguments);
    assert_true(count >= 0);
    net->transcript_bytes += (size_t)count;
    assert_true(net->transcript_bytes < NET_TRANSCRIPT_BYTES);
}

static uint16_t on_request(void *context, struct connection_handle connection, const struct handshake_request *request,
                           struct span *reason)
{
    struct net *net = context;
    note(net, "request %u %.*s\n", connection.index, (int)request->path.bytes, (const char *)request->path.data);
    if (span_is(request->path, "/refused")) {
        *reason = span_text("Not you.");
        return 503;
    }
    return 101;
}

static void on_open(void *context, struct connection_handle connection, const struct handshake_request *request)
{
    struct net *net = context;
    note(net, "open %u %.*s\n", connection.index, (int)request->path.bytes, (const char *)request->path.data);
    net->last = connection;
    if (net->in_open != NULL) {
        net->in_open(net, connection);
    }
}

static bool readable(void *context, struct connection_handle connection)
{
    struct net *net = context;
    if (net->in_readable != NULL) {
        net->in_readable(net, connection);
    }
    return net->readable;
}

static void on_pressure(void *context, struct connection_handle connection)
{
    note(context, "pressure %u\n", connection.index);
}

static void on_message(void *context, struct connection_handle connection, uint8_t *data, size_t bytes, bool is_binary)
{
    struct net *net = context;
    note(net, "%s %u %.*s\n", is_binary ? "binary" : "text", connection.index, bytes > 40 ? 40 : (int)bytes,
         (const char *)data);
    if (net->echo) {
        struct span parts[2] = {span_text("echo "), span_of(data, bytes)};
        assert_int_equal(connection_send_text(&net->server, connection, parts, 2), CONNECTION_OK);
    }
    if (net->in_message != NULL) {
        net->in_message(net, connection, data, bytes);
    }
    memset(data, 'z', bytes); /* the owner's to change */
}

static void on_timer(void *context, struct connection_handle connection)
{
    struct net *net = context;
    note(net, "timer %u\n", connection.index);
    if (net->in_timer != NULL) {
        net->in_timer(net, connection);
    }
}

static void on_closed(void *context, struct connection_handle connection, enum connection_cause cause, uint16_t code)
{
    static const char *const names[] = {"peer", "owner", "broken", "lost", "evicted", "slow", "hoarding"};
    struct net *net = context;
    note(net, "closed %u %s %u\n", connection.index, names[cause], code);
    if (net->in_closed != NULL) {
        net->in_closed(net, connection);
    }
}

static void on_refused(void *context, const struct port_address *peer, enum server_refusal refusal, uint16_t status,
                       struct span reason)
{
    assert_int_not_equal(peer->port, 0);
    assert_true(reason.bytes > 0 && refusal < SERVER_REFUSAL_COUNT);
    note(context, "refused %u\n", status);
}

static bool is_deaf(port_socket socket)
{
    for (size_t index = 0; index < current->deaf_count; index++) {
        if (current->deaf[index] == socket) {
            return true;
        }
    }
    return false;
}

static void watch_change(void *context, port_socket socket, uint32_t interest)
{
    current->interest_changes++;
    real.watch_change(context, socket, is_deaf(socket) ? interest & ~(uint32_t)PORT_WRITE : interest);
}

static enum port_result send_to_who_hears(void *context, port_socket socket, const void *data, size_t bytes,
                                          size_t *sent_bytes)
{
    return is_deaf(socket) ? PORT_AGAIN : real.send(context, socket, data, bytes, sent_bytes);
}

void net_deafen(struct net *net, struct connection_handle connection)
{
    assert_true(net->deaf_count < NET_DEAF_MAX);
    net->deaf[net->deaf_count++] = net->server.connections[connection.index].socket;
}

void net_hear_again(struct net *net)
{
    size_t count = net->deaf_count;
    net->deaf_count = 0;
    for (size_t index = 0; index < count; index++) {
        real.watch_change(real.context, net->deaf[index], PORT_READ | PORT_WRITE);
    }
    net_settle(net);
}

static enum port_result accept_or_fail(void *context, port_socket listener, port_socket *socket,
                                       struct port_address *peer)
{
    return current->accept_fails ? PORT_FAILED : real.accept(context, listener, socket, peer);
}

static uint64_t now_ms(struct net *net)
{
    return 1000000 + net->added_ms;
}

struct server_options net_options(void)
{
    return (struct server_options){.token_tag = NET_TAG,
                                   .connection_max = 8,
                                   .buffer_count = 4,
                                   .message_bytes_max = 4096,
                                   .chunk_count = 64 + SERVER_CHUNKS_RESERVED,
                                   .chunk_bytes = 512,
                                   .send_queue_bytes = 16384};
}

void net_open(struct net *net, struct server_options options)
{
    static const struct server_handler handler = {on_request, on_open,  readable,  on_pressure,
                                                  on_message, on_timer, on_closed, on_refused};
    *net = (struct net){.readable = true};
    current = net;
    assert_true(port_posix_open(&net->port, &(struct port_posix_options){.poller = group_poller, .watch_max = 4096}));
    real = net->port;
    net->port.watch_change = watch_change;
    net->port.accept = accept_or_fail;
    net->port.send = send_to_who_hears;
    options.port = &net->port;
    struct arena arena;
    arena_measure(&arena);
    server_init(&net->server, &arena, &options, &handler, net, now_ms(net));
    size_t bytes = arena.used_bytes;
    arena_begin(&arena, net->port.memory(net->port.context, bytes), bytes);
    server_init(&net->server, &arena, &options, &handler, net, now_ms(net));
    assert_int_equal(arena.used_bytes, bytes);
    assert_true(net->port.parse_address(net->port.context, "127.0.0.1", 0, &net->address));
    assert_true(server_listen(&net->server, &net->address));
    assert_true(server_local_address(&net->server, &net->address));
    assert_int_not_equal(net->address.port, 0);
}

void net_close(struct net *net)
{
    NET_UNTIL(net, net->server.connection_count == 0);
    assert_int_equal(net->server.open_count, 0);
    assert_int_equal(net->server.buffers.used_count, 0);
    assert_int_equal(net->server.chunks.used_count, 0);
    assert_int_equal(net->server.silent.count, 0);
    assert_int_equal(net->server.waiting.count, 0);
    assert_int_equal(net->server.partial.count, 0);
    assert_int_equal(net->server.stalled.count, 0);
    assert_int_equal(net->server.dirty.count, 0);
    assert_int_equal(server_next_ms(&net->server), TIMER_WHEEL_NEVER);
    const struct server_counters *counters = &net->server.counters;
    uint64_t ended = 0;
    uint64_t refused = 0;
    for (size_t index = 0; index < CONNECTION_CAUSE_COUNT; index++) {
        ended += counters->closed[index];
    }
    for (size_t index = 0; index < SERVER_REFUSAL_COUNT; index++) {
        refused += counters->refused[index];
    }
    assert_int_equal(counters->opened, ended);
    assert_int_equal(counters->accepted, counters->opened + refused);
    server_stop_accepting(&net->server);
    port_posix_close(&net->port);
}

static size_t turn(struct net *net)
{
    struct port_event events[64];
    size_t count = net->port.wait(net->port.context, events, 64, 1);
    uint64_t now = now_ms(net);
    for (size_t index = 0; index < count; index++) {
        assert_int_equal(events[index].token >> 56, NET_TAG);
        server_on_event(&net->server, &events[index], now);
    }
    server_tick(&net->server, now);
    server_flush(&net->server, now);
    return count;
}

void net_turn(struct net *net)
{
    (void)turn(net);
}

void net_settle(struct net *net)
{
    for (size_t idle = 0; idle < 5;) {
        idle = turn(net) == 0 ? idle + 1 : 0;
    }
}

void net_later(struct net *net, uint64_t ms)
{
    net->added_ms += ms;
    net_turn(net);
}

const char *net_events(struct net *net)
{
    static char events[NET_TRANSCRIPT_BYTES];
    memcpy(events, net->transcript, net->transcript_bytes);
    events[net->transcript_bytes] = '\0';
    net->transcript_bytes = 0;
    return events;
}

int client_connect(struct net *net)
{
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(client >= 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(net->address.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(client, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(fcntl(client, F_SETFL, O_NONBLOCK), 0);
    int on = 1;
    assert_int_equal(setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
    return client;
}

int client_open(struct net *net)
{
    static const char request[] = "GET /dev HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    int client = client_connect(net);
    client_send(net, client, request, sizeof request - 1);
    static const char response[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                   "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    client_expect(net, client, response, sizeof response - 1);
    return client;
}

void client_send(struct net *net, int client, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    for (size_t turns = 0; bytes > 0; turns++) {
        ssize_t sent = send(client, at, bytes, MSG_NOSIGNAL);
        assert_true(sent > 0 || errno == EAGAIN);
        assert_true(turns < 5000);
        if (sent > 0) {
            at += sent;
            bytes -= (size_t)sent;
        } else {
            net_turn(net);
        }
    }
}

size_t client_frame(uint8_t *out, uint8_t first, const void *payload, size_t bytes)
{
    static const uint8_t mask[4] = {0x5a, 0x01, 0xff, 0x80};
    size_t header_bytes = frame_write_header(out, FRAME_TEXT, true, bytes);
    out[0] = first;
    out[1] |= 0x80;
    memcpy(out + header_bytes, mask, sizeof mask);
    memcpy(out + header_bytes + 4, payload, bytes);
    frame_unmask(out + header_bytes + 4, bytes, mask);
    return header_bytes + 4 + bytes;
}

void client_send_text(struct net *net, int client, const char *text)
{
    uint8_t frame[1024];
    client_send(net, client, frame, client_frame(frame, 0x81, text, strlen(text)));
}

long client_read(int client, void *buffer, size_t capacity)
{
    ssize_t count = recv(client, buffer, capacity, 0);
    if (count > 0) {
        return count;
    }
    return count < 0 && errno == EAGAIN ? 0 : -1;
}

static void read_exactly(struct net *net, int client, uint8_t *to, size_t bytes)
{
    size_t had = 0;
    for (size_t turns = 0; had < bytes; turns++) {
        long count = client_read(client, to + had, bytes - had);
        assert_true(count >= 0);
        assert_true(turns < 5000);
        had += (size_t)count;
        if (count == 0) {
            net_turn(net);
        }
    }
}

void client_expect(struct net *net, int client, const void *data, size_t bytes)
{
    static uint8_t got[65536];
    assert_true(bytes <= sizeof got);
    read_exactly(net, client, got, bytes);
    assert_memory_equal(got, data, bytes);
}

void client_expect_text(struct net *net, int client, const char *text)
{
    uint8_t header[FRAME_SEND_HEADER_BYTES_MAX];
    size_t header_bytes = frame_write_header(header, FRAME_TEXT, true, strlen(text));
    client_expect(net, client, header, header_bytes);
    client_expect(net, client, text, strlen(text));
}

void client_expect_close(struct net *net, int client, uint16_t code)
{
    uint8_t frame[4];
    uint8_t reason[125];
    read_exactly(net, client, frame, 2);
    assert_int_equal(frame[0], 0x88);
    assert_true(frame[1] >= 2);
    read_exactly(net, client, frame + 2, 2);
    assert_int_equal(frame[2] << 8 | frame[3], code);
    read_exactly(net, client, reason, frame[1] - 2u);
}

void client_expect_end(struct net *net, int client)
{
    uint8_t byte;
    for (size_t turns = 0; turns < 5000; turns++) {
        ssize_t count = recv(client, &byte, 1, 0);
        assert_true(count <= 0);
        if (count == 0) {
            return;
        }
        assert_int_equal(errno, EAGAIN); /* not a reset */
        net_turn(net);
    }
    fail();
}

void client_close(int client)
{
    (void)close(client);
}

void client_reset(int client)
{
    struct linger linger = {1, 0};
    assert_int_equal(setsockopt(client, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    (void)close(client);
}

int net_run(const char *name, const struct CMUnitTest *tests, size_t test_count)
{
    char group[64];
    int failed = 0;
#ifdef __linux__
    static const enum port_posix_poller pollers[] = {PORT_POSIX_POLL, PORT_POSIX_EPOLL};
#else
    static const enum port_posix_poller pollers[] = {PORT_POSIX_POLL};
#endif
    for (size_t index = 0; index < sizeof pollers / sizeof pollers[0]; index++) {
        group_poller = pollers[index];
        (void)snprintf(group, sizeof group, "%s on %s", name, index == 0 ? "poll" : "epoll");
        failed += _cmocka_run_group_tests(group, tests, test_count, NULL, NULL);
    }
    return failed;
}
