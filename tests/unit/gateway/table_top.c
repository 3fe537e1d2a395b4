/* SPDX-License-Identifier: MIT */
#define _XOPEN_SOURCE 700
#include "table_top.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "port_posix.h"

static struct table_top *the_table; /* for the port's functions, whose context is the real port's */

static uint64_t pushed_now_ns(void *context)
{
    (void)context;
    return the_table->start_ns + the_table->clock_ms * 1000000;
}

static uint32_t given_signals(void *context)
{
    (void)context;
    uint32_t signals = the_table->signals;
    the_table->signals = 0;
    return signals;
}

static const char *no_environment(void *context, const char *name)
{
    (void)context;
    return strcmp(name, "RABBITMQ_URL") == 0 ? "amqp://127.0.0.1:1" : NULL;
}

static void load_settings(struct table_top *table)
{
    char buffer[SETTINGS_ERROR_BYTES_MAX];
    struct text error = text_in(buffer, sizeof buffer);
    struct port port;
    assert_true(port_posix_open(&port, &(struct port_posix_options){.poller = PORT_POSIX_POLL, .watch_max = 1}));
    const struct settings_sources sources = {
        .lookup = no_environment, .port = &port, .env_name = ".env", .host_name = "table"};
    assert_true(settings_load(&table->settings, SETTINGS_GATEWAY, &sources, &error));
    (void)port_posix_close(&port); // false where the machine held a worker up for longer than the port waits
    (void)snprintf(table->settings.listen_address, sizeof table->settings.listen_address, "127.0.0.1");
    table->settings.port = 0;
    table->settings.admin_port = 0;
    table->settings.max_connections = 20;
    (void)snprintf(table->settings.log_file, sizeof table->settings.log_file, "%s/websocket.log", table->folder);
    (void)snprintf(table->settings.spool_dir, sizeof table->settings.spool_dir, "%s/spool", table->folder);
    table->settings.spool_max_bytes = 0; // a test that wants a spool says so
}

struct table_top *table_top_open(void (*change)(struct settings *settings))
{
    char folder[] = "/tmp/postern-table-XXXXXX";
    assert_non_null(mkdtemp(folder));
    return table_top_open_in(folder, change);
}

struct table_top *table_top_open_in(const char *folder, void (*change)(struct settings *settings))
{
    struct table_top *table = calloc(1, sizeof *table);
    the_table = table;
    (void)snprintf(table->folder, sizeof table->folder, "%s", folder);
    load_settings(table);
    if (change != NULL) {
        change(&table->settings);
    }
    char buffer[1024];
    struct text error = text_in(buffer, sizeof buffer);
    assert_true(gateway_configure(&table->gateway, &table->settings, &error));

    const char *poller = getenv("POSTERN_TEST_POLLER");
    const struct port_posix_options options = {
        .poller = poller != NULL && strcmp(poller, "epoll") == 0 ? PORT_POSIX_EPOLL : PORT_POSIX_POLL,
        .watch_max = gateway_watch_max(&table->settings)};
    assert_true(port_posix_open(&table->real, &options));
    table->port = table->real;
    table->start_ns = table->real.now_ns(table->real.context);
    table->port.now_ns = pushed_now_ns;
    table->port.signals = given_signals;
    arena_measure(&table->arena);
    gateway_init(&table->gateway, &table->arena, &table->port);
    size_t bytes = table->arena.used_bytes;
    void *memory = table->port.memory(table->port.context, bytes);
    assert_non_null(memory);
    arena_begin(&table->arena, memory, bytes);
    gateway_init(&table->gateway, &table->arena, &table->port);
    assert_int_equal(table->arena.used_bytes, bytes);
    assert_true(gateway_listen(&table->gateway, &error));
    struct port_address address;
    assert_true(server_local_address(&table->gateway.server, &address));
    table->listen_port = address.port;
    return table;
}

enum gateway_turned table_top_turn(struct table_top *table)
{
    table->port.wake(table->port.context);
    return gateway_turn(&table->gateway);
}

uint64_t table_top_real_ms(const struct table_top *table)
{
    return table->real.now_ns(table->real.context) / 1000000;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *position)
{
    (void)status;
    (void)kind;
    (void)position;
    return remove(path);
}

void table_top_close(struct table_top *table)
{
    // What is still closing has its time; then everything that was lent must be back.
    table->clock_ms += 60000;
    uint64_t end_ms = table_top_real_ms(table) + TABLE_TOP_PATIENCE_MS;
    struct server *server = &table->gateway.server;
    while ((server->connection_count > 0 || table->gateway.sessions.count > 0) && table_top_real_ms(table) < end_ms) {
        (void)table_top_turn(table);
        table->clock_ms += 10;
    }
    assert_int_equal(table->gateway.sessions.count, 0);
    assert_int_equal(server->connection_count, 0);
    assert_int_equal(server->buffers.used_count, 0);
    assert_int_equal(server->chunks.used_count, 0);
    server_stop_accepting(server);
    outbox_close(table->gateway.outbox, table->gateway.now_ms);
    downlink_close(&table->gateway.downlink, table->gateway.now_ms);
    gateway_release(&table->gateway);
    port_posix_close(&table->real);
    if (!table->keeps_folder) {
        assert_int_equal(nftw(table->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
    }
    free(table);
}

size_t table_top_log_count(struct table_top *table, const char *text)
{
    static char content[1024 * 1024];
    char path[128];
    log_flush(&table->gateway.log);
    (void)snprintf(path, sizeof path, "%s/websocket.log", table->folder);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t bytes = fread(content, 1, sizeof content - 1, file);
    (void)fclose(file);
    content[bytes] = '\0';
    size_t count = 0;
    for (const char *at = strstr(content, text); at != NULL; at = strstr(at + 1, text)) {
        count++;
    }
    return count;
}

struct client *client_connect(struct table_top *table)
{
    struct client *client = calloc(1, sizeof *client);
    client->table = table;
    client->received = malloc(CLIENT_BUFFER_BYTES);
    client->socket = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(client->socket >= 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(table->listen_port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    // The listener's backlog takes it without the gateway's help.
    assert_int_equal(connect(client->socket, (const struct sockaddr *)&address, sizeof address), 0);
    assert_true(fcntl(client->socket, F_SETFL, O_NONBLOCK) >= 0);
    int on = 1; // each message arrives at once
    assert_int_equal(setsockopt(client->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
    return client;
}

size_t client_try_send(struct client *client, const void *data, size_t bytes)
{
    ssize_t sent = send(client->socket, data, bytes, MSG_NOSIGNAL);
    return sent < 0 ? 0 : (size_t)sent;
}

void client_send_raw(struct client *client, const void *data, size_t bytes)
{
    const uint8_t *next = data;
    uint64_t end_ms = table_top_real_ms(client->table) + TABLE_TOP_PATIENCE_MS;
    while (bytes > 0) {
        size_t sent = client_try_send(client, next, bytes);
        next += sent;
        bytes -= sent;
        if (sent == 0) {
            (void)table_top_turn(client->table);
            assert_true(table_top_real_ms(client->table) < end_ms);
        }
    }
}

struct client *client_open(struct table_top *table, const char *path)
{
    struct client *client = client_connect(table);
    char request[512];
    int bytes = snprintf(request, sizeof request,
                         "GET %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                         path);
    client_send_raw(client, request, (size_t)bytes);
    return client;
}

struct client *client_join(struct table_top *table, const char *client_id)
{
    char path[128];
    (void)snprintf(path, sizeof path, "/%s", client_id);
    struct client *client = client_open(table, path);
    assert_int_equal(client_status(client), 101);
    struct frame frame = client_read(client);
    assert_int_equal(frame.opcode, 1);
    assert_non_null(strstr(frame.text, "\"type\":\"connected\""));
    return client;
}

void client_send_frame(struct client *client, uint8_t opcode, const void *data, size_t bytes)
{
    static const uint8_t mask[4] = {1, 2, 3, 4};
    uint8_t header[8] = {(uint8_t)(0x80 | opcode)};
    size_t header_bytes = 2;
    assert_true(bytes < 65536);
    if (bytes < 126) {
        header[1] = (uint8_t)(0x80 | bytes);
    } else {
        header[1] = 0x80 | 126;
        header[2] = (uint8_t)(bytes >> 8);
        header[3] = (uint8_t)bytes;
        header_bytes = 4;
    }
    memcpy(header + header_bytes, mask, sizeof mask);
    uint8_t *frame = malloc(header_bytes + 4 + bytes);
    memcpy(frame, header, header_bytes + 4 > sizeof header ? sizeof header : header_bytes + 4);
    for (size_t index = 0; index < bytes; index++) {
        frame[header_bytes + 4 + index] = ((const uint8_t *)data)[index] ^ mask[index % 4];
    }
    client_send_raw(client, frame, header_bytes + 4 + bytes);
    free(frame);
}

void client_say(struct client *client, const char *text)
{
    client_send_frame(client, 1, text, strlen(text));
}

/* Reads what is there. */
static void gather(struct client *client)
{
    for (;;) {
        ssize_t got = recv(client->socket, client->received + client->received_bytes,
                           CLIENT_BUFFER_BYTES - client->received_bytes, 0);
        if (got > 0) {
            client->received_bytes += (size_t)got;
        } else {
            client->ended = client->ended || got == 0 || errno != EAGAIN;
            return;
        }
    }
}

static void consume(struct client *client, size_t bytes)
{
    memmove(client->received, client->received + bytes, client->received_bytes - bytes);
    client->received_bytes -= bytes;
}

/* A whole frame out of what was received. Its text lies behind the received bytes. */
static bool cut_frame(struct client *client, struct frame *frame)
{
    static char payload[CLIENT_BUFFER_BYTES];
    const uint8_t *data = client->received;
    if (client->received_bytes < 2) {
        return false;
    }
    size_t bytes = data[1];
    size_t header_bytes = 2;
    if (bytes == 126) {
        if (client->received_bytes < 4) {
            return false;
        }
        bytes = (size_t)(data[2] << 8 | data[3]);
        header_bytes = 4;
    }
    assert_true(bytes < 65536);
    if (client->received_bytes < header_bytes + bytes) {
        return false;
    }
    memcpy(payload, data + header_bytes, bytes);
    payload[bytes] = '\0';
    *frame = (struct frame){.opcode = data[0] & 15, .text = payload, .bytes = bytes};
    if (frame->opcode == 8 && bytes >= 2) {
        frame->code = (uint16_t)((uint8_t)payload[0] << 8 | (uint8_t)payload[1]);
    }
    consume(client, header_bytes + bytes);
    return true;
}

struct frame client_read(struct client *client)
{
    struct frame frame = {0};
    uint64_t end_ms = table_top_real_ms(client->table) + TABLE_TOP_PATIENCE_MS;
    gather(client);
    while (!cut_frame(client, &frame)) {
        if (client->ended) {
            return (struct frame){0};
        }
        (void)table_top_turn(client->table);
        gather(client);
        assert_true(table_top_real_ms(client->table) < end_ms);
    }
    return frame;
}

struct frame client_peek(struct client *client)
{
    struct frame frame = {0};
    for (int turn = 0; turn < 5; turn++) {
        (void)table_top_turn(client->table);
    }
    gather(client);
    (void)cut_frame(client, &frame);
    return frame;
}

void client_expect(struct client *client, const char *text)
{
    struct frame frame = client_read(client);
    assert_int_equal(frame.opcode, 1);
    assert_string_equal(frame.text, text);
}

void client_expect_close(struct client *client, uint16_t code)
{
    struct frame frame = client_read(client);
    assert_int_equal(frame.opcode, 8);
    assert_int_equal(frame.code, code);
}

int client_status(struct client *client)
{
    uint64_t end_ms = table_top_real_ms(client->table) + TABLE_TOP_PATIENCE_MS;
    for (;;) {
        gather(client);
        for (size_t at = 0; at + 4 <= client->received_bytes; at++) {
            if (memcmp(client->received + at, "\r\n\r\n", 4) == 0) {
                char status[4] = {0};
                memcpy(status, client->received + sizeof "HTTP/1.1 " - 1, 3);
                consume(client, at + 4);
                return atoi(status);
            }
        }
        if (client->ended) {
            return 0;
        }
        (void)table_top_turn(client->table);
        assert_true(table_top_real_ms(client->table) < end_ms);
    }
}

void client_close(struct client *client)
{
    (void)close(client->socket);
    free(client->received);
    free(client);
}
