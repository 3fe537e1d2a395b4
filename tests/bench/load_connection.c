/* SPDX-License-Identifier: MIT */
/* One client: connect, upgrade, then frames. Everything a turn brings is read with one receive into a buffer all
 * clients share; what is left of an incomplete frame waits in the client's carry. Messages that a receive made due go
 * out in one send. A receipt is told by its first and last bytes, and only its `seq` is parsed. */
#include "load.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OPCODE_TEXT = 1, OPCODE_CLOSE = 8, OPCODE_PING = 9, OPCODE_PONG = 10, CONTROL_PAYLOAD_BYTES = 125 };

void load_frame_make(struct load *load, const struct bench_message *message)
{
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    if (message->bytes < FRAME_PAYLOAD_MIN_BYTES || message->bytes > UINT16_MAX) {
        bench_die("messages of %d to %d bytes only", FRAME_PAYLOAD_MIN_BYTES, UINT16_MAX);
    }
    memcpy(load->mask, mask, sizeof mask);
    load->frame_bytes = FRAME_HEADER_BYTES + message->bytes;
    load->frame = bench_memory(1, load->frame_bytes);
    load->frame[0] = 0x80 | OPCODE_TEXT;
    load->frame[1] = 0x80 | 126;
    load->frame[2] = (uint8_t)(message->bytes >> 8);
    load->frame[3] = (uint8_t)message->bytes;
    memcpy(load->frame + 4, mask, sizeof mask);
    for (size_t i = 0; i < message->bytes; i++) {
        load->frame[FRAME_HEADER_BYTES + i] = (uint8_t)message->data[i] ^ mask[i % 4];
    }
    load->digits_offset = FRAME_HEADER_BYTES + message->digits_offset;
}

static void watch(const struct load *load, struct client *client, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(load->epoll, operation, client->fd, &event) != 0) {
        bench_die("epoll_ctl: %s", strerror(errno));
    }
}

void client_connect(struct load *load, struct client *client)
{
    client->fd = bench_connect(load->port, client->index);
    client->state = CLIENT_CONNECTING;
    load->connecting_count++;
    watch(load, client, EPOLL_CTL_ADD, EPOLLOUT);
}

static void client_end(struct load *load, struct client *client)
{
    (void)close(client->fd);
    client->fd = -1;
    client->state = CLIENT_CLOSED;
    load_client_ended(load, client);
}

/* The peer has gone: in the storm an end like any other, in every other run a failure of what is measured. */
static void client_lost(struct load *load, struct client *client, const char *what)
{
    if (load->storm_count == 0) {
        bench_die("client %u of %u lost its connection: %s; last error message: %s", client->index, load->client_count,
                  what, load->first_error);
    }
    client_end(load, client);
}

static void send_small(struct load *load, struct client *client, const void *data, size_t bytes)
{
    if (send(client->fd, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)bytes) {
        client_lost(load, client, "a small send did not go out whole");
    }
}

static void send_control(struct load *load, struct client *client, uint8_t opcode, const uint8_t *payload, size_t bytes)
{
    uint8_t frame[6 + CONTROL_PAYLOAD_BYTES];
    frame[0] = (uint8_t)(0x80 | opcode);
    frame[1] = (uint8_t)(0x80 | bytes);
    memcpy(frame + 2, load->mask, 4);
    for (size_t i = 0; i < bytes; i++) {
        frame[6 + i] = payload[i] ^ load->mask[i % 4];
    }
    send_small(load, client, frame, 6 + bytes);
}

static void client_go(struct load *load, struct client *client)
{
    switch ((enum storm_way)(client->index % STORM_WAYS)) {
    case STORM_CLOSE_FRAME:
        client->state = CLIENT_CLOSING;
        send_control(load, client, OPCODE_CLOSE, (const uint8_t[]){0x03, 0xe8}, 2);
        return;
    case STORM_END_OF_STREAM:
    case STORM_HALF_HANDSHAKE:
        break;
    case STORM_RESET: {
        struct linger linger = {.l_onoff = 1, .l_linger = 0};
        (void)setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        break;
    }
    case STORM_WAYS:
        bench_die("no such way");
    }
    client_end(load, client);
}

static void client_upgrade(struct load *load, struct client *client)
{
    int error = 0;
    socklen_t error_bytes = sizeof error;
    (void)getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &error_bytes);
    if (error != 0) {
        bench_die("connect to port %u: %s", load->port, strerror(error));
    }
    watch(load, client, EPOLL_CTL_MOD, EPOLLIN);
    client->state = CLIENT_HANDSHAKE;
    if (load->raw) {
        client->state = CLIENT_OPEN;
        load_client_open(load, client);
        return;
    }
    char request[512];
    int bytes = snprintf(request, sizeof request,
                         "GET /%s-%u?receipts=%s HTTP/1.1\r\nHost: localhost:%u\r\nUpgrade: websocket\r\n"
                         "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                         "Sec-WebSocket-Version: 13\r\n\r\n",
                         load->run, client->index, load->receipts, load->port);
    if (bytes >= (int)sizeof request) {
        bench_die("the run's name is too long");
    }
    if (load->storm_count > 0 && client->index % STORM_WAYS == STORM_HALF_HANDSHAKE) {
        send_small(load, client, request, (size_t)bytes / 2);
        client_go(load, client);
        return;
    }
    send_small(load, client, request, (size_t)bytes);
}

uint64_t client_intended_ns(const struct load *load, const struct client *client, uint64_t number)
{
    if (load->rate > 0) {
        double turn = (double)number * (double)load->active_count + (double)client->index;
        return load->schedule_ns + bench_due_ns(turn, load->interval_ns, load->grid_ns);
    }
    return client->sent_ns[number % load->window];
}

static void record(const struct load *load, struct histogram *histogram, const struct client *client, uint64_t seq,
                   uint64_t now_ns)
{
    if (seq == 0 || seq > client->sent_count) {
        bench_die("a receipt for seq %llu, but client %u sent %llu", (unsigned long long)seq, client->index,
                  (unsigned long long)client->sent_count);
    }
    uint64_t intended_ns = client_intended_ns(load, client, seq - 1);
    bool inside = load->rate > 0 ? intended_ns >= load->begin_ns && intended_ns < load->end_ns : load->measuring;
    if (inside) {
        histogram_add(histogram, now_ns > intended_ns ? now_ns - intended_ns : 0);
    }
}

static bool starts(const uint8_t *data, size_t bytes, const char *with, size_t with_bytes)
{
    return bytes >= with_bytes && memcmp(data, with, with_bytes) == 0;
}

static void take_receipt(struct load *load, struct client *client, const uint8_t *data, size_t bytes, size_t at,
                         uint64_t now_ns)
{
    uint64_t seq = 0;
    for (; at < bytes && data[at] >= '0' && data[at] <= '9'; at++) {
        seq = seq * 10 + (uint64_t)(data[at] - '0');
    }
    const uint8_t *end = data + bytes;
    if (memcmp(end - 9, "\"queued\"}", 9) == 0) {
        load->counters.queued++;
        record(load, &load->queued, client, seq, now_ns);
        client->answered_count += load->until == UNTIL_QUEUED ? 1 : 0;
    } else if (memcmp(end - 9, "\"stored\"}", 9) == 0) {
        load->counters.stored++;
        record(load, &load->stored, client, seq, now_ns);
        client->answered_count += load->until == UNTIL_STORED ? 1 : 0;
    } else if (memcmp(end - 11, "\"accepted\"}", 11) == 0) {
        load->counters.accepted++;
        record(load, &load->accepted, client, seq, now_ns);
        client->answered_count += load->until == UNTIL_ACCEPTED ? 1 : 0;
    } else {
        load->counters.refused++;
    }
}

static void take_text(struct load *load, struct client *client, const uint8_t *data, size_t bytes, uint64_t now_ns)
{
    static const char receipt[] = "{\"type\":\"receipt\",\"seq\":";
    if (bytes > 40 && starts(data, bytes, receipt, sizeof receipt - 1)) {
        take_receipt(load, client, data, bytes, sizeof receipt - 1, now_ns);
    } else if (starts(data, bytes, "{\"type\":\"connected\"", 19)) {
        client->state = CLIENT_OPEN;
        load_client_open(load, client);
        if (load->storm_count > 0) {
            client_go(load, client);
        }
    } else if (starts(data, bytes, "{\"type\":\"busy\"", 14)) {
        load->counters.busy++;
    } else {
        load->counters.errors++;
        if (load->first_error[0] == '\0') {
            (void)snprintf(load->first_error, sizeof load->first_error, "%.*s", (int)bytes, (const char *)data);
        }
    }
}

/* Takes one frame from the front; 0 when it is not whole yet. */
static size_t take_frame(struct load *load, struct client *client, const uint8_t *data, size_t bytes, uint64_t now_ns)
{
    if (bytes < 2) {
        return 0;
    }
    size_t header_bytes = 2;
    size_t payload_bytes = data[1];
    if (payload_bytes == 126) {
        if (bytes < 4) {
            return 0;
        }
        header_bytes = 4;
        payload_bytes = (size_t)data[2] << 8 | data[3];
    }
    if (payload_bytes > CARRY_BYTES - 4 || data[1] > 126) {
        bench_die("the gateway sent a frame larger than expected here, or a masked one");
    }
    if (bytes < header_bytes + payload_bytes) {
        return 0;
    }
    const uint8_t *payload = data + header_bytes;
    switch (data[0]) {
    case 0x80 | OPCODE_TEXT:
        take_text(load, client, payload, payload_bytes, now_ns);
        break;
    case 0x80 | OPCODE_PING:
        load->counters.pings++;
        send_control(load, client, OPCODE_PONG, payload, payload_bytes);
        break;
    case 0x80 | OPCODE_CLOSE:
        client_lost(load, client, "the gateway closed it");
        break;
    default:
        bench_die("an unexpected frame: first byte 0x%02x", data[0]);
    }
    return header_bytes + payload_bytes;
}

/* Takes the response of the upgrade from the front; 0 when it is not whole yet. */
static size_t take_response(struct client *client, const uint8_t *data, size_t bytes)
{
    for (size_t i = 3; i < bytes; i++) {
        if (memcmp(data + i - 3, "\r\n\r\n", 4) == 0) {
            if (!starts(data, bytes, "HTTP/1.1 101 ", 13)) {
                bench_die("the upgrade was refused: %.*s", (int)i, (const char *)data);
            }
            client->state = CLIENT_GREETING;
            return i + 1;
        }
    }
    return 0;
}

static void take_bytes(struct load *load, struct client *client, const uint8_t *data, size_t bytes, uint64_t now_ns)
{
    size_t at = 0;
    while (at < bytes && client->state != CLIENT_CLOSED) {
        size_t taken = client->state == CLIENT_HANDSHAKE ? take_response(client, data + at, bytes - at)
                                                         : take_frame(load, client, data + at, bytes - at, now_ns);
        if (taken == 0) {
            break;
        }
        at += taken;
    }
    client->carry_bytes = (uint32_t)(bytes - at);
    if (client->carry_bytes > CARRY_BYTES) {
        bench_die("the gateway sent more than %d bytes that make no frame", CARRY_BYTES);
    }
    memcpy(client->carry, data + at, client->carry_bytes);
}

static void take_echo(struct load *load, struct client *client, size_t bytes, uint64_t now_ns)
{
    client->echoed_bytes += bytes;
    for (; client->echoed_bytes >= load->frame_bytes; client->echoed_bytes -= load->frame_bytes) {
        load->counters.queued++;
        record(load, &load->queued, client, ++client->answered_count, now_ns);
    }
}

static void client_receive(struct load *load, struct client *client)
{
    uint8_t *fresh = load->receive_buffer + CARRY_BYTES;
    ssize_t received = recv(client->fd, fresh, RECEIVE_BYTES, MSG_DONTWAIT);
    if (received <= 0) {
        if (received < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        client_lost(load, client, received == 0 ? "end of stream" : strerror(errno));
        return;
    }
    uint64_t now_ns = bench_now_ns();
    if (load->raw) {
        take_echo(load, client, (size_t)received, now_ns);
    } else {
        uint8_t *data = fresh - client->carry_bytes;
        memcpy(data, client->carry, client->carry_bytes);
        take_bytes(load, client, data, client->carry_bytes + (size_t)received, now_ns);
    }
    if (load->sending && load->rate <= 0 && client->active) {
        uint64_t out_count = client->sent_count + client->owed_count - client->answered_count;
        if (out_count < load->window) {
            client_send(load, client, load->window - out_count);
        }
    }
}

/* What the socket took of `bytes`; watches for room when it did not take all. */
static size_t push(struct load *load, struct client *client, const uint8_t *data, size_t bytes)
{
    ssize_t sent = send(client->fd, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        client_lost(load, client, strerror(errno));
    }
    size_t taken = sent > 0 ? (size_t)sent : 0;
    bool full = taken < bytes;
    if (full != client->watching_write && client->state == CLIENT_OPEN) {
        client->watching_write = full;
        watch(load, client, EPOLL_CTL_MOD, full ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
    return taken;
}

/* Appends the client's next message to the send buffer. */
static void build_frame(struct load *load, struct client *client, uint8_t *at, uint64_t now_ns)
{
    memcpy(at, load->frame, load->frame_bytes);
    char digits[BENCH_ID_DIGITS];
    bench_digits(digits, client->sent_count + 1);
    for (size_t i = 0; i < BENCH_ID_DIGITS; i++) {
        size_t offset = load->digits_offset + i;
        at[offset] = (uint8_t)digits[i] ^ load->mask[(offset - FRAME_HEADER_BYTES) % 4];
    }
    if (load->rate <= 0) {
        client->sent_ns[client->sent_count % load->window] = now_ns;
    }
    client->sent_count++;
    load->counters.sent++;
}

static void client_push(struct load *load, struct client *client)
{
    if (client->tail_bytes > 0) {
        size_t taken = push(load, client, client->tail, client->tail_bytes);
        client->tail_bytes -= (uint32_t)taken;
        memmove(client->tail, client->tail + taken, client->tail_bytes);
    }
    uint64_t now_ns = load->rate > 0 ? 0 : bench_now_ns();
    while (client->tail_bytes == 0 && client->owed_count > 0 && client->state == CLIENT_OPEN) {
        size_t used = 0;
        for (; client->owed_count > 0 && used + load->frame_bytes <= SEND_BYTES; client->owed_count--) {
            build_frame(load, client, load->send_buffer + used, now_ns);
            used += load->frame_bytes;
        }
        size_t taken = push(load, client, load->send_buffer, used);
        if (taken < used) {
            /* Whole frames behind the one in the tail are owed again, as if they had not been built. */
            size_t left = used - taken;
            size_t whole_count = left / load->frame_bytes;
            client->tail_bytes = (uint32_t)(left % load->frame_bytes);
            memcpy(client->tail, load->send_buffer + taken, client->tail_bytes);
            client->owed_count += whole_count;
            client->sent_count -= whole_count;
            load->counters.sent -= whole_count;
            return;
        }
    }
}

void client_send(struct load *load, struct client *client, uint64_t count)
{
    client->owed_count += count;
    if (!client->watching_write) {
        client_push(load, client);
    }
}

void client_event(struct load *load, struct client *client, uint32_t events)
{
    if (client->state == CLIENT_CONNECTING) {
        client_upgrade(load, client);
        return;
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
        client_receive(load, client);
    }
    if ((events & EPOLLOUT) != 0 && client->state == CLIENT_OPEN) {
        client_push(load, client);
    }
}
