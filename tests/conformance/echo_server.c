/* SPDX-License-Identifier: MIT */
/* Sends every message back: the net and websocket rooms and nothing else, for conformance suites to be pointed at.
 *
 *     echo_server [--port N] [--poller poll|epoll]
 *
 * Listens on 127.0.0.1 and prints the port as its first line. Messages of up to 16 MiB. A client that does not read
 * its echoes is closed with 1008. SIGTERM and SIGINT end it; it says how many buffers and chunks were still lent. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "check.h"
#include "decimal.h"
#include "frame.h"
#include "port_posix.h"
#include "server.h"

enum {
    CONNECTION_MAX = 256,
    MESSAGE_BYTES_MAX = 16 * 1024 * 1024,
    SEND_QUEUE_BYTES = 2 * MESSAGE_BYTES_MAX + 64 * 1024,
    CHUNK_BYTES = 64 * 1024,
    HANDSHAKE_TIMEOUT_MS = 6000,
    EVENT_MAX = 256
};

struct options {
    uint16_t port;
    enum port_posix_poller poller;
};

static uint16_t on_request(void *context, struct connection_handle connection, const struct handshake_request *request,
                           struct span *reason)
{
    (void)context;
    (void)connection;
    if (span_is(request->path, "/refused")) {
        *reason = span_text("This path is refused.");
        return 403;
    }
    return HANDSHAKE_STATUS_SWITCHING;
}

static void on_open(void *context, struct connection_handle connection, const struct handshake_request *request)
{
    (void)context;
    (void)connection;
    (void)request;
}

static bool readable(void *context, struct connection_handle connection)
{
    (void)context;
    (void)connection;
    return true;
}

static void on_message(void *context, struct connection_handle connection, uint8_t *data, size_t bytes, bool is_binary)
{
    struct server *server = context;
    struct span echo = span_of(data, bytes);
    enum connection_result result = is_binary ? connection_send_binary(server, connection, &echo, 1)
                                              : connection_send_text(server, connection, &echo, 1);
    switch (result) {
    case CONNECTION_OK:
    case CONNECTION_GONE:
        break;
    case CONNECTION_FULL:
        connection_close(server, connection, FRAME_CLOSE_POLICY, span_text("You do not read your echoes."));
        break;
    }
}

static void on_closed(void *context, struct connection_handle connection, enum connection_cause cause, uint16_t code)
{
    (void)context;
    (void)connection;
    (void)cause;
    (void)code;
}

static bool read_options(int argument_count, char **arguments, struct options *options)
{
    *options = (struct options){.port = 0, .poller = PORT_POSIX_AUTO};
    for (int index = 1; index + 1 < argument_count; index += 2) {
        struct span name = span_text(arguments[index]);
        struct span value = span_text(arguments[index + 1]);
        uint64_t number;
        if (span_is(name, "--port") && decimal_parse(value, 0, UINT16_MAX, &number)) {
            options->port = (uint16_t)number;
        } else if (span_is(name, "--poller") && span_is(value, "poll")) {
            options->poller = PORT_POSIX_POLL;
        } else if (span_is(name, "--poller") && span_is(value, "epoll")) {
            options->poller = PORT_POSIX_EPOLL;
        } else {
            return false;
        }
    }
    return argument_count % 2 == 1;
}

static uint64_t now_ms(const struct port *port)
{
    return port->now_ns(port->context) / 1000000;
}

static void start(struct server *server, const struct port *port)
{
    static const struct server_handler handler = {.on_request = on_request,
                                                  .on_open = on_open,
                                                  .readable = readable,
                                                  .on_message = on_message,
                                                  .on_closed = on_closed};
    const struct server_options options = {.port = port,
                                           .connection_max = CONNECTION_MAX,
                                           .buffer_count = 6,
                                           .message_bytes_max = MESSAGE_BYTES_MAX,
                                           .chunk_count = 1024 + SERVER_CHUNKS_RESERVED,
                                           .chunk_bytes = CHUNK_BYTES,
                                           .send_queue_bytes = SEND_QUEUE_BYTES,
                                           .handshake_timeout_ms = HANDSHAKE_TIMEOUT_MS};
    struct arena arena;
    arena_measure(&arena);
    server_init(server, &arena, &options, &handler, server, now_ms(port));
    size_t bytes = arena.used_bytes;
    void *memory = port->memory(port->context, bytes);
    CHECK(memory != NULL);
    arena_begin(&arena, memory, bytes);
    server_init(server, &arena, &options, &handler, server, now_ms(port));
}

static void serve(struct server *server, const struct port *port)
{
    struct port_event events[EVENT_MAX];
    while ((port->signals(port->context) & PORT_SIGNAL_STOP) == 0) {
        uint64_t due_ms = server_next_ms(server);
        uint64_t before_ms = now_ms(port);
        int64_t timeout_ms = due_ms == TIMER_WHEEL_NEVER ? -1 : due_ms <= before_ms ? 0 : (int64_t)(due_ms - before_ms);
        size_t count = port->wait(port->context, events, EVENT_MAX, timeout_ms);
        uint64_t turn_ms = now_ms(port);
        for (size_t index = 0; index < count; index++) {
            server_on_event(server, &events[index], turn_ms);
        }
        server_tick(server, turn_ms);
        server_flush(server, turn_ms);
    }
}

int main(int argument_count, char **arguments)
{
    static struct server server;
    struct options options;
    struct port port;
    struct port_address address;
    if (!read_options(argument_count, arguments, &options)) {
        (void)fprintf(stderr, "usage: echo_server [--port N] [--poller poll|epoll]\n");
        return 2;
    }
    if (!port_posix_open(&port,
                         &(struct port_posix_options){.poller = options.poller, .watch_max = CONNECTION_MAX + 1})) {
        (void)fprintf(stderr, "echo_server: %s\n", port.error_text(port.context));
        return 1;
    }
    start(&server, &port);
    CHECK(port.parse_address(port.context, "127.0.0.1", options.port, &address));
    if (!server_listen(&server, &address) || !server_local_address(&server, &address)) {
        (void)fprintf(stderr, "echo_server: %s\n", port.error_text(port.context));
        return 1;
    }
    (void)printf("%u\n", (unsigned)address.port);
    (void)fflush(stdout);
    serve(&server, &port);
    (void)printf("buffers %zu chunks %zu open %u\n", server.buffers.used_count, server.chunks.used_count,
                 (unsigned)server.open_count);
    server_stop_accepting(&server);
    port_posix_close(&port);
    return 0;
}
