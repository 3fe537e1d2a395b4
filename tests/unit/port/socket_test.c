/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "aborts.h"
#include "port_fixture.h"

static void assert_stream_options(port_socket socket)
{
    int no_delay = 0;
    socklen_t bytes = sizeof no_delay;
    assert_true((fcntl(socket, F_GETFL) & O_NONBLOCK) != 0);
    assert_true((fcntl(socket, F_GETFD) & FD_CLOEXEC) != 0);
    assert_int_equal(getsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &no_delay, &bytes), 0);
    assert_true(no_delay != 0);
}

/* Closing with unread bytes or with this option sends a reset. */
static void close_with_reset(struct port *port, port_socket socket)
{
    const struct linger linger = {.l_onoff = 1, .l_linger = 0};
    assert_int_equal(setsockopt(socket, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    port->close_socket(port->context, socket);
}

static void test_connects_both_ways(void **state)
{
    struct port *port = *state;
    struct port_address address;
    struct port_address peer;
    port_socket listener = listen_loopback(port, &address);
    port_socket client = PORT_NONE;
    port_socket server = PORT_NONE;
    assert_int_equal(port->accept(port->context, listener, &server, &peer), PORT_AGAIN);
    assert_int_equal(port->connect(port->context, &address, &client), PORT_OK);
    assert_int_equal(wait_ready(port, listener, PORT_READ), PORT_READ);
    assert_int_equal(port->accept(port->context, listener, &server, &peer), PORT_OK);
    assert_int_equal(port->accept(port->context, listener, &server, &peer), PORT_AGAIN);
    assert_int_equal(wait_ready(port, client, PORT_WRITE), PORT_WRITE);
    assert_int_equal(port->connected(port->context, client), PORT_OK);
    struct port_address local;
    assert_int_equal(port->local_address(port->context, client, &local), PORT_OK);
    assert_memory_equal(peer.bytes, "\x7F\x00\x00\x01", 4);
    assert_false(peer.v6);
    assert_int_equal(peer.port, local.port);
    assert_stream_options(client);
    assert_stream_options(server);
    assert_true((fcntl(listener, F_GETFD) & FD_CLOEXEC) != 0);
    close_pair(port, (struct pair){client, server});
    port->close_socket(port->context, listener);
}

struct stream {
    struct port *port;
    struct pair pair;
    port_socket listener;
};

static struct stream open_stream(struct port *port)
{
    struct stream stream = {.port = port};
    struct port_address address;
    stream.listener = listen_loopback(port, &address);
    stream.pair = connect_pair(port, stream.listener, &address);
    return stream;
}

static void close_stream(struct stream *stream)
{
    close_pair(stream->port, stream->pair);
    stream->port->close_socket(stream->port->context, stream->listener);
}

static void test_bytes_arrive_in_order(void **state)
{
    struct port *port = *state;
    struct stream stream = open_stream(port);
    char buffer[16];
    size_t bytes = 99;
    assert_int_equal(port->receive(port->context, stream.pair.server, buffer, sizeof buffer, &bytes), PORT_AGAIN);
    assert_int_equal(bytes, 0);
    assert_int_equal(port->send(port->context, stream.pair.client, "hello", 5, &bytes), PORT_OK);
    assert_int_equal(bytes, 5);
    assert_int_equal(wait_ready(port, stream.pair.server, PORT_READ), PORT_READ);
    assert_int_equal(port->receive(port->context, stream.pair.server, buffer, 3, &bytes), PORT_OK);
    assert_int_equal(bytes, 3);
    assert_int_equal(port->receive(port->context, stream.pair.server, buffer + 3, 13, &bytes), PORT_OK);
    assert_int_equal(bytes, 2);
    assert_memory_equal(buffer, "hello", 5);
    close_stream(&stream);
}

/* A sender that is faster than its reader is told to wait, and nothing is lost. */
static void test_a_full_socket_says_again(void **state)
{
    struct port *port = *state;
    struct stream stream = open_stream(port);
    static uint8_t chunk[100000];
    uint64_t sent_total = 0;
    uint64_t received_total = 0;
    size_t bytes = 0;
    enum port_result result;
    for (size_t at = 0; at < sizeof chunk; at++) {
        chunk[at] = (uint8_t)(at % 251);
    }
    while ((result = port->send(port->context, stream.pair.client, chunk + sent_total % 251, 50000, &bytes)) ==
           PORT_OK) {
        assert_true(bytes > 0 && bytes <= 50000);
        sent_total += bytes;
    }
    assert_int_equal(result, PORT_AGAIN);
    port->shutdown_send(port->context, stream.pair.client);
    static uint8_t buffer[65536];
    for (;;) {
        result = port->receive(port->context, stream.pair.server, buffer, sizeof buffer, &bytes);
        if (result == PORT_AGAIN) {
            assert_int_equal(wait_ready(port, stream.pair.server, PORT_READ), PORT_READ);
            continue;
        }
        if (result != PORT_OK) {
            break;
        }
        assert_memory_equal(buffer, chunk + received_total % 251, bytes);
        received_total += bytes;
    }
    assert_int_equal(result, PORT_CLOSED);
    assert_true(received_total == sent_total);
    close_stream(&stream);
}

static void test_half_a_close(void **state)
{
    struct port *port = *state;
    struct stream stream = open_stream(port);
    char buffer[16];
    size_t bytes = 0;
    port->shutdown_send(port->context, stream.pair.client);
    assert_int_equal(wait_ready(port, stream.pair.server, PORT_READ), PORT_READ);
    assert_int_equal(port->receive(port->context, stream.pair.server, buffer, sizeof buffer, &bytes), PORT_CLOSED);
    assert_int_equal(port->send(port->context, stream.pair.server, "still", 5, &bytes), PORT_OK);
    assert_int_equal(wait_ready(port, stream.pair.client, PORT_READ), PORT_READ);
    assert_int_equal(port->receive(port->context, stream.pair.client, buffer, sizeof buffer, &bytes), PORT_OK);
    assert_memory_equal(buffer, "still", 5);
    close_stream(&stream);
}

/* What a peer sent before it ended its side waits for whoever does not read yet, and so does the end. */
static void test_half_a_close_is_no_hangup(void **state)
{
    struct port *port = *state;
    struct stream stream = open_stream(port);
    struct port_event event = {0, 0};
    char buffer[16];
    size_t bytes = 0;
    assert_int_equal(port->watch_add(port->context, stream.pair.server, 0, 3), PORT_OK);
    assert_int_equal(port->send(port->context, stream.pair.client, "last", 4, &bytes), PORT_OK);
    port->shutdown_send(port->context, stream.pair.client);
    assert_int_equal(port->wait(port->context, &event, 1, 100), 0);
    port->watch_change(port->context, stream.pair.server, PORT_READ);
    assert_int_equal(wait_some(port, &event, 1), 1);
    assert_int_equal(event.ready, PORT_READ);
    assert_int_equal(port->receive(port->context, stream.pair.server, buffer, sizeof buffer, &bytes), PORT_OK);
    assert_int_equal(bytes, 4);
    assert_int_equal(port->receive(port->context, stream.pair.server, buffer, sizeof buffer, &bytes), PORT_CLOSED);
    port->watch_change(port->context, stream.pair.server, 0);
    assert_int_equal(port->wait(port->context, &event, 1, 0), 0);
    close_with_reset(port, stream.pair.client);
    assert_int_equal(wait_some(port, &event, 1), 1);
    assert_int_equal(event.ready, PORT_HANGUP);
    port->watch_remove(port->context, stream.pair.server);
    port->close_socket(port->context, stream.pair.server);
    port->close_socket(port->context, stream.listener);
}

#ifdef TCP_USER_TIMEOUT
/* The peer's program stands still: its machine takes no more, and nothing else would tell. */
static void test_patience_ends(void **state)
{
    struct port *port = *state;
    struct stream stream = open_stream(port);
    static const char bytes[65536];
    struct port_event event = {0, 0};
    size_t sent_bytes = 0;
    while (port->send(port->context, stream.pair.server, bytes, sizeof bytes, &sent_bytes) == PORT_OK) {
    }
    port->set_patience(port->context, stream.pair.server, 400);
    assert_int_equal(port->watch_add(port->context, stream.pair.server, 0, 3), PORT_OK);
    assert_int_equal(wait_some(port, &event, 1), 1);
    assert_int_equal(event.ready, PORT_HANGUP);
    assert_int_equal(port->send(port->context, stream.pair.server, "x", 1, &sent_bytes), PORT_FAILED);
    assert_string_equal(port->error_text(port->context), "send: Connection timed out");
    port->watch_remove(port->context, stream.pair.server);
    close_stream(&stream);
}
#endif

static void test_a_reset_is_a_failure_with_a_reason(void **state)
{
    struct port *port = *state;
    struct stream stream = open_stream(port);
    char buffer[16];
    size_t bytes = 0;
    close_with_reset(port, stream.pair.client);
    assert_int_equal(wait_ready(port, stream.pair.server, PORT_READ), PORT_READ | PORT_HANGUP);
    assert_int_equal(port->receive(port->context, stream.pair.server, buffer, sizeof buffer, &bytes), PORT_FAILED);
    assert_string_equal(port->error_text(port->context), "receive: Connection reset by peer");
    assert_int_equal(port->send(port->context, stream.pair.server, "x", 1, &bytes), PORT_FAILED);
    assert_string_equal(port->error_text(port->context), "send: Broken pipe"); /* and no signal ended the test */
    port->close_socket(port->context, stream.pair.server);
    port->close_socket(port->context, stream.listener);
}

static void test_a_refused_connect_says_so(void **state)
{
    struct port *port = *state;
    struct port_address address;
    port_socket listener = listen_loopback(port, &address);
    port->close_socket(port->context, listener); /* so that nobody listens there */
    port_socket client = PORT_NONE;
    assert_int_equal(port->connect(port->context, &address, &client), PORT_OK);
    assert_true((wait_ready(port, client, PORT_WRITE) & PORT_WRITE) != 0);
    assert_int_equal(port->connected(port->context, client), PORT_FAILED);
    assert_string_equal(port->error_text(port->context), "connect: Connection refused");
    port->close_socket(port->context, client);
}

/* A listener whose queue is full answers nobody for a while. */
static void test_an_undecided_connect_is_not_connected(void **state)
{
    enum { CLIENTS = 4 };
    struct port *port = *state;
    struct port_address address;
    struct sockaddr_in native = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    port_socket clients[CLIENTS];
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&native, sizeof native), 0);
    assert_int_equal(listen(listener, 0), 0);
    assert_int_equal(port->local_address(port->context, listener, &address), PORT_OK);
    for (size_t i = 0; i < CLIENTS; i++) {
        assert_int_equal(port->connect(port->context, &address, &clients[i]), PORT_OK);
    }
    assert_int_equal(wait_ready(port, clients[0], PORT_WRITE), PORT_WRITE);
    assert_int_equal(port->connected(port->context, clients[0]), PORT_OK);
    assert_int_equal(port->connected(port->context, clients[CLIENTS - 1]), PORT_AGAIN);
    for (size_t i = 0; i < CLIENTS; i++) {
        port->close_socket(port->context, clients[i]);
    }
    close(listener);
}

static void test_a_taken_port_is_refused(void **state)
{
    struct port *port = *state;
    struct port_address address;
    port_socket listener = listen_loopback(port, &address);
    port_socket second = PORT_NONE;
    assert_int_equal(port->listen(port->context, &address, &second), PORT_FAILED);
    assert_string_equal(port->error_text(port->context), "bind: Address already in use");
    assert_int_equal(second, PORT_NONE);
    port->close_socket(port->context, listener);
}

/* Connections of the last run that linger do not keep the port. */
static void test_a_port_can_be_taken_again_at_once(void **state)
{
    struct port *port = *state;
    struct port_address address;
    port_socket listener = listen_loopback(port, &address);
    struct pair pair = connect_pair(port, listener, &address);
    port->close_socket(port->context, pair.server); /* this side closes first: it lingers */
    char byte;
    size_t bytes;
    assert_int_equal(wait_ready(port, pair.client, PORT_READ), PORT_READ);
    assert_int_equal(port->receive(port->context, pair.client, &byte, 1, &bytes), PORT_CLOSED);
    port->close_socket(port->context, pair.client);
    port->close_socket(port->context, listener);
    assert_int_equal(port->listen(port->context, &address, &listener), PORT_OK);
    port->close_socket(port->context, listener);
}

/* With no handle left, accept fails, the newcomer waits, and is taken as soon as there is one again. */
static void test_accept_without_a_handle_keeps_the_newcomer(void **state)
{
    struct port *port = *state;
    struct port_address address;
    struct port_address peer;
    port_socket listener = listen_loopback(port, &address);
    port_socket client = PORT_NONE;
    port_socket server = PORT_NONE;
    struct rlimit before;
    assert_int_equal(port->connect(port->context, &address, &client), PORT_OK);
    assert_int_equal(wait_ready(port, listener, PORT_READ), PORT_READ);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit none = {0, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    enum port_result results[2];
    for (size_t i = 0; i < 2; i++) {
        results[i] = port->accept(port->context, listener, &server, &peer);
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(results[0], PORT_FAILED);
    assert_int_equal(results[1], PORT_FAILED);
    assert_string_equal(port->error_text(port->context), "accept: Too many open files");
    assert_int_equal(port->accept(port->context, listener, &server, &peer), PORT_OK);
    close_pair(port, (struct pair){client, server});
    port->close_socket(port->context, listener);
}

static void test_a_newcomer_that_gave_up_does_not_stop_the_next(void **state)
{
    struct port *port = *state;
    struct port_address address;
    struct port_address peer;
    port_socket listener = listen_loopback(port, &address);
    port_socket quitter = PORT_NONE;
    port_socket client = PORT_NONE;
    assert_int_equal(port->connect(port->context, &address, &quitter), PORT_OK);
    assert_int_equal(wait_ready(port, quitter, PORT_WRITE), PORT_WRITE);
    close_with_reset(port, quitter);
    assert_int_equal(port->connect(port->context, &address, &client), PORT_OK);
    assert_int_equal(wait_ready(port, client, PORT_WRITE), PORT_WRITE);
    assert_int_equal(wait_ready(port, listener, PORT_READ), PORT_READ);
    struct port_address local;
    assert_int_equal(port->local_address(port->context, client, &local), PORT_OK);
    bool found = false;
    port_socket server = PORT_NONE;
    while (port->accept(port->context, listener, &server, &peer) == PORT_OK) {
        found = found || peer.port == local.port;
        port->close_socket(port->context, server);
    }
    assert_true(found);
    port->close_socket(port->context, client);
    port->close_socket(port->context, listener);
}

static void test_a_listener_for_both_shows_ipv4_as_what_it_is(void **state)
{
    struct port *port = *state;
    struct port_address any;
    struct port_address bound;
    struct port_address address;
    struct port_address peer;
    port_socket listener = PORT_NONE;
    port_socket client = PORT_NONE;
    port_socket server = PORT_NONE;
    assert_true(port->parse_address(port->context, "::", 0, &any));
    if (port->listen(port->context, &any, &listener) != PORT_OK) {
        print_message("no IPv6 here: %s\n", port->error_text(port->context));
        skip();
    }
    assert_int_equal(port->local_address(port->context, listener, &bound), PORT_OK);
    assert_true(port->parse_address(port->context, "127.0.0.1", bound.port, &address));
    assert_int_equal(port->connect(port->context, &address, &client), PORT_OK);
    assert_int_equal(wait_ready(port, listener, PORT_READ), PORT_READ);
    assert_int_equal(port->accept(port->context, listener, &server, &peer), PORT_OK);
    assert_false(peer.v6);
    assert_memory_equal(peer.bytes, "\x7F\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", 16);
    close_pair(port, (struct pair){client, server});
    struct sockaddr_in6 native = {
        .sin6_family = AF_INET6, .sin6_port = htons(bound.port), .sin6_addr = in6addr_loopback};
    client = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(client, (struct sockaddr *)&native, sizeof native), 0);
    assert_int_equal(port->accept(port->context, listener, &server, &peer), PORT_OK);
    assert_true(peer.v6);
    assert_memory_equal(peer.bytes, &in6addr_loopback, 16);
    close_pair(port, (struct pair){client, server});
    assert_true(port->parse_address(port->context, "::1", bound.port, &address));
    struct pair pair = connect_pair(port, listener, &address);
    close_pair(port, pair);
    port->close_socket(port->context, listener);
}

static void close_a_watched_socket(void *argument)
{
    struct stream *stream = argument;
    struct port *port = stream->port;
    (void)port->watch_add(port->context, stream->pair.client, PORT_READ, 1);
    port->close_socket(port->context, stream->pair.client);
}

static void receive_nothing(void *argument)
{
    struct stream *stream = argument;
    struct port *port = stream->port;
    char byte;
    size_t bytes;
    (void)port->receive(port->context, stream->pair.client, &byte, 0, &bytes);
}

static void test_mistakes_end_the_program(void **state)
{
    struct port *port = *state;
    struct stream stream = open_stream(port);
    assert_true(aborts(close_a_watched_socket, &stream));
    assert_true(aborts(receive_nothing, &stream));
    close_stream(&stream);
}

#define with_port(test) cmocka_unit_test_setup_teardown(test, open_port, close_port)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_port(test_connects_both_ways),
        with_port(test_bytes_arrive_in_order),
        with_port(test_a_full_socket_says_again),
        with_port(test_half_a_close),
        with_port(test_half_a_close_is_no_hangup),
#ifdef TCP_USER_TIMEOUT
        with_port(test_patience_ends),
#endif
        with_port(test_a_reset_is_a_failure_with_a_reason),
        with_port(test_a_refused_connect_says_so),
        with_port(test_an_undecided_connect_is_not_connected),
        with_port(test_a_taken_port_is_refused),
        with_port(test_a_port_can_be_taken_again_at_once),
        with_port(test_accept_without_a_handle_keeps_the_newcomer),
        with_port(test_a_newcomer_that_gave_up_does_not_stop_the_next),
        with_port(test_a_listener_for_both_shows_ipv4_as_what_it_is),
        with_port(test_mistakes_end_the_program),
    };
    return run_on_each_poller(tests, sizeof tests / sizeof *tests);
}
