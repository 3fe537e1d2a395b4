/* SPDX-License-Identifier: MIT */
/* What RabbitMQ takes with confirms when nothing is in front of it: one connection, one channel, librabbitmq as the
 * codec over an own non-blocking socket, one send for all messages that are due. The bodies and properties are those
 * the gateway publishes. The limit that the gateway's throughput and latency are put beside.
 *
 * Closed loop: --in-flight messages are unconfirmed at any time. Open loop: message i is due at start + i / rate, and
 * its latency counts from then. The queue must exist; it is not declared here. */
#define _GNU_SOURCE
#include "bench.h"
#include "histogram.h"

#include <amqp.h>
#include <amqp_framing.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

enum {
    OUT_BYTES = 256 * 1024,
    IN_BYTES = 128 * 1024,
    FRAME_MAX = 131072,
    FRAME_EXTRA_BYTES = 8, /* type, channel, length; end mark */
    PROPERTIES_BYTES_MAX = 512,
    WAIT_SECONDS_MAX = 15
};

enum { FRAME_METHOD = 1, FRAME_HEADER = 2, FRAME_BODY = 3, FRAME_END = 0xce };

struct publisher {
    int fd;
    amqp_connection_state_t codec;
    bool ready; /* in confirm mode */
    uint8_t out[OUT_BYTES];
    size_t out_bytes;
    uint8_t in[IN_BYTES];

    const char *user;
    const char *password;
    const char *vhost;
    const char *queue;

    char *body;
    size_t body_bytes;
    size_t body_digits_offset;
    char *message_id;
    size_t message_id_bytes;
    size_t message_id_digits_offset;
    amqp_basic_properties_t properties;

    double rate;
    double interval_ns;
    uint64_t grid_ns;
    uint64_t schedule_ns;
    uint64_t begin_ns;
    uint64_t end_ns;
    bool measuring;
    uint64_t slot_count; /* of the two below; more than can be unconfirmed */
    uint64_t *sent_ns;   /* by tag modulo slot_count */
    bool *confirmed;     /* likewise */
    uint64_t published_count;
    uint64_t front_count; /* all tags up to it are confirmed */
    uint64_t confirmed_count;
    struct histogram latency;
};

static void put_u32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> (24 - 8 * i));
    }
}

/* Writes a frame's head and end around a payload that stands at out + 7 already; returns the frame's length. */
static size_t frame_close(uint8_t *out, uint8_t type, uint16_t channel, size_t payload_bytes)
{
    out[0] = type;
    out[1] = (uint8_t)(channel >> 8);
    out[2] = (uint8_t)channel;
    put_u32(out + 3, (uint32_t)payload_bytes);
    out[7 + payload_bytes] = FRAME_END;
    return payload_bytes + FRAME_EXTRA_BYTES;
}

static void write_method(struct publisher *publisher, uint16_t channel, amqp_method_number_t id, void *decoded)
{
    uint8_t *out = publisher->out + publisher->out_bytes;
    put_u32(out + 7, id);
    amqp_bytes_t arguments = {.len = OUT_BYTES - publisher->out_bytes - FRAME_EXTRA_BYTES - 4, .bytes = out + 11};
    int bytes = amqp_encode_method(id, decoded, arguments);
    if (bytes < 0) {
        bench_die("encode method %08x: %s", id, amqp_error_string2(bytes));
    }
    publisher->out_bytes += frame_close(out, FRAME_METHOD, channel, (size_t)bytes + 4);
}

static void flush(struct publisher *publisher)
{
    if (publisher->out_bytes == 0) {
        return;
    }
    ssize_t sent = send(publisher->fd, publisher->out, publisher->out_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        bench_die("send to RabbitMQ: %s", strerror(errno));
    }
    if (sent > 0) {
        publisher->out_bytes -= (size_t)sent;
        memmove(publisher->out, publisher->out + sent, publisher->out_bytes);
    }
}

static bool publish_one(struct publisher *publisher)
{
    if (OUT_BYTES - publisher->out_bytes < publisher->body_bytes + PROPERTIES_BYTES_MAX + 256) {
        return false;
    }
    uint64_t tag = publisher->published_count + 1;
    bench_digits(publisher->body + publisher->body_digits_offset, tag);
    bench_digits(publisher->message_id + publisher->message_id_digits_offset, tag);
    amqp_basic_publish_t method = {
        .exchange = amqp_empty_bytes, .routing_key = amqp_cstring_bytes(publisher->queue), .mandatory = 1};
    write_method(publisher, 1, AMQP_BASIC_PUBLISH_METHOD, &method);

    uint8_t *out = publisher->out + publisher->out_bytes;
    memset(out + 7, 0, 12);
    out[8] = AMQP_BASIC_CLASS;
    put_u32(out + 15, (uint32_t)publisher->body_bytes);
    amqp_bytes_t room = {.len = PROPERTIES_BYTES_MAX, .bytes = out + 19};
    int bytes = amqp_encode_properties(AMQP_BASIC_CLASS, &publisher->properties, room);
    if (bytes < 0) {
        bench_die("encode properties: %s", amqp_error_string2(bytes));
    }
    out += frame_close(out, FRAME_HEADER, 1, (size_t)bytes + 12);
    memcpy(out + 7, publisher->body, publisher->body_bytes);
    out += frame_close(out, FRAME_BODY, 1, publisher->body_bytes);
    publisher->out_bytes = (size_t)(out - publisher->out);
    publisher->published_count = tag;
    return true;
}

static uint64_t intended_ns(const struct publisher *publisher, uint64_t tag)
{
    if (publisher->rate > 0) {
        return publisher->schedule_ns + bench_due_ns((double)(tag - 1), publisher->interval_ns, publisher->grid_ns);
    }
    return publisher->sent_ns[tag % publisher->slot_count];
}

static void confirm_one(struct publisher *publisher, uint64_t tag, uint64_t now_ns)
{
    bool *confirmed = &publisher->confirmed[tag % publisher->slot_count];
    if (*confirmed) {
        return;
    }
    *confirmed = true;
    publisher->confirmed_count++;
    uint64_t start_ns = intended_ns(publisher, tag);
    bool inside =
        publisher->rate > 0 ? start_ns >= publisher->begin_ns && start_ns < publisher->end_ns : publisher->measuring;
    if (inside) {
        histogram_add(&publisher->latency, now_ns > start_ns ? now_ns - start_ns : 0);
    }
}

static void on_ack(struct publisher *publisher, const amqp_basic_ack_t *ack, uint64_t now_ns)
{
    if (ack->delivery_tag > publisher->published_count) {
        bench_die("RabbitMQ confirmed what was not published");
    }
    if (ack->multiple) {
        for (uint64_t tag = publisher->front_count + 1; tag <= ack->delivery_tag; tag++) {
            confirm_one(publisher, tag, now_ns);
        }
    } else {
        confirm_one(publisher, ack->delivery_tag, now_ns);
    }
    while (publisher->front_count < publisher->published_count &&
           publisher->confirmed[(publisher->front_count + 1) % publisher->slot_count]) {
        publisher->front_count++;
        publisher->confirmed[publisher->front_count % publisher->slot_count] = false;
    }
}

static void on_start(struct publisher *publisher)
{
    static char response[256];
    size_t user_bytes = strlen(publisher->user);
    size_t password_bytes = strlen(publisher->password);
    if (user_bytes + password_bytes + 2 > sizeof response) {
        bench_die("the user's name and password are too long");
    }
    memcpy(response + 1, publisher->user, user_bytes);
    memcpy(response + 2 + user_bytes, publisher->password, password_bytes);
    amqp_connection_start_ok_t ok = {.client_properties = amqp_empty_table,
                                     .mechanism = amqp_cstring_bytes("PLAIN"),
                                     .response = {.len = user_bytes + password_bytes + 2, .bytes = response},
                                     .locale = amqp_cstring_bytes("en_US")};
    write_method(publisher, 0, AMQP_CONNECTION_START_OK_METHOD, &ok);
}

static void on_tune(struct publisher *publisher, const amqp_connection_tune_t *tune)
{
    uint32_t frame_max = tune->frame_max > 0 && tune->frame_max < FRAME_MAX ? tune->frame_max : FRAME_MAX;
    amqp_connection_tune_ok_t ok = {.channel_max = 1, .frame_max = frame_max, .heartbeat = 0};
    amqp_maybe_release_buffers(publisher->codec);
    (void)amqp_tune_connection(publisher->codec, 1, (int)frame_max, 0);
    write_method(publisher, 0, AMQP_CONNECTION_TUNE_OK_METHOD, &ok);
    amqp_connection_open_t open = {.virtual_host = amqp_cstring_bytes(publisher->vhost), .insist = 1};
    write_method(publisher, 0, AMQP_CONNECTION_OPEN_METHOD, &open);
}

static void on_method(struct publisher *publisher, const amqp_method_t *method, uint64_t now_ns)
{
    switch (method->id) {
    case AMQP_BASIC_ACK_METHOD:
        on_ack(publisher, method->decoded, now_ns);
        return;
    case AMQP_CONNECTION_START_METHOD:
        on_start(publisher);
        return;
    case AMQP_CONNECTION_TUNE_METHOD:
        on_tune(publisher, method->decoded);
        return;
    case AMQP_CONNECTION_OPEN_OK_METHOD: {
        amqp_channel_open_t open = {.out_of_band = amqp_empty_bytes};
        write_method(publisher, 1, AMQP_CHANNEL_OPEN_METHOD, &open);
        return;
    }
    case AMQP_CHANNEL_OPEN_OK_METHOD: {
        amqp_confirm_select_t select = {.nowait = 0};
        write_method(publisher, 1, AMQP_CONFIRM_SELECT_METHOD, &select);
        return;
    }
    case AMQP_CONFIRM_SELECT_OK_METHOD:
        publisher->ready = true;
        return;
    default:
        bench_die("unexpected from RabbitMQ: %s", amqp_method_name(method->id));
    }
}

/* Sends what is due, waits for at most until due_ns, and takes what came. */
static void turn(struct publisher *publisher, uint64_t due_ns)
{
    flush(publisher);
    uint64_t now_ns = bench_now_ns();
    uint64_t wait_ns = due_ns > now_ns ? due_ns - now_ns : 0;
    struct timespec wait = {.tv_sec = (time_t)(wait_ns / BENCH_SECOND_NS),
                            .tv_nsec = (long)(wait_ns % BENCH_SECOND_NS)};
    struct pollfd watched = {.fd = publisher->fd, .events = publisher->out_bytes > 0 ? POLLIN | POLLOUT : POLLIN};
    if (ppoll(&watched, 1, &wait, NULL) <= 0 || (watched.revents & ~POLLOUT) == 0) {
        return;
    }
    ssize_t received = recv(publisher->fd, publisher->in, sizeof publisher->in, MSG_DONTWAIT);
    if (received <= 0) {
        if (received < 0 && errno == EAGAIN) {
            return;
        }
        bench_die("RabbitMQ closed the connection");
    }
    now_ns = bench_now_ns();
    amqp_bytes_t left = {.len = (size_t)received, .bytes = publisher->in};
    while (left.len > 0) {
        amqp_frame_t frame;
        int used = amqp_handle_input(publisher->codec, left, &frame);
        if (used < 0) {
            bench_die("bad bytes from RabbitMQ: %s", amqp_error_string2(used));
        }
        left.bytes = (uint8_t *)left.bytes + used;
        left.len -= (size_t)used;
        if (frame.frame_type == FRAME_METHOD) {
            on_method(publisher, &frame.payload.method, now_ns);
            amqp_maybe_release_buffers_on_channel(publisher->codec, frame.channel);
        }
    }
}

static void publisher_connect(struct publisher *publisher, unsigned port)
{
    publisher->fd = bench_connect(port, 0);
    publisher->codec = amqp_new_connection();
    memcpy(publisher->out, "AMQP\0\0\x09\x01", 8);
    publisher->out_bytes = 8;
    struct pollfd watched = {.fd = publisher->fd, .events = POLLOUT};
    (void)poll(&watched, 1, WAIT_SECONDS_MAX * 1000);
    uint64_t give_up_ns = bench_now_ns() + (uint64_t)WAIT_SECONDS_MAX * BENCH_SECOND_NS;
    while (!publisher->ready) {
        turn(publisher, give_up_ns);
        if (bench_now_ns() >= give_up_ns) {
            bench_die("RabbitMQ did not let us in within %d s", WAIT_SECONDS_MAX);
        }
    }
}

/* The body and the properties as the gateway makes them of a client's message. */
static void publisher_prepare(struct publisher *publisher, const char *type, const char *run, size_t message_bytes)
{
    static char correlation_id[] = "s3m9k2x-00000000-17-4-1234567";
    struct bench_message message;
    bench_message_make(&message, type, run, message_bytes);
    size_t capacity = message_bytes + 512;
    publisher->body = bench_memory(1, capacity);
    int head =
        snprintf(publisher->body, capacity, "{\"client_id\":\"%s-17\",\"type\":\"%s\",\"content\":%.*s,\"id\":\"", run,
                 type, (int)message.content_bytes, message.data + message.content_offset);
    int all = head + snprintf(publisher->body + head, capacity - (size_t)head,
                              "%.*s\",\"gateway\":\"gw-22000\",\"received_at\":\"2026-11-23T07:21:11.839Z\"}",
                              (int)message.id_bytes, message.data + message.id_offset);
    publisher->body_bytes = (size_t)all;
    publisher->body_digits_offset = (size_t)head + message.id_bytes - BENCH_ID_DIGITS;
    publisher->message_id = bench_memory(1, 256);
    int id = snprintf(publisher->message_id, 256, "%s-17:%.*s", run, (int)message.id_bytes,
                      message.data + message.id_offset);
    publisher->message_id_bytes = (size_t)id;
    publisher->message_id_digits_offset = (size_t)id - BENCH_ID_DIGITS;
    publisher->properties = (amqp_basic_properties_t){
        ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_CORRELATION_ID_FLAG |
                  AMQP_BASIC_REPLY_TO_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_TIMESTAMP_FLAG |
                  AMQP_BASIC_TYPE_FLAG | AMQP_BASIC_APP_ID_FLAG,
        .content_type = amqp_cstring_bytes("application/json"),
        .delivery_mode = 2,
        .correlation_id = amqp_cstring_bytes(correlation_id),
        .reply_to = amqp_cstring_bytes("gateway.gw-22000"),
        .message_id = {.len = publisher->message_id_bytes, .bytes = publisher->message_id},
        .timestamp = (uint64_t)time(NULL),
        .type = amqp_cstring_bytes(type),
        .app_id = amqp_cstring_bytes("postern"),
    };
}

struct interval {
    uint64_t confirmed_begin;
    uint64_t confirmed_end;
    uint64_t begin_ns;
    uint64_t end_ns;
    struct bench_watch watch;
    struct timespec own_begin;
    struct timespec own_end;
};

static void measure_begin(struct publisher *publisher, struct interval *interval)
{
    histogram_reset(&publisher->latency);
    publisher->measuring = true;
    interval->confirmed_begin = publisher->confirmed_count;
    bench_watch_begin(&interval->watch);
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &interval->own_begin);
    interval->begin_ns = bench_now_ns();
}

static void measure_end(struct publisher *publisher, struct interval *interval)
{
    interval->end_ns = bench_now_ns();
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &interval->own_end);
    bench_watch_end(&interval->watch);
    interval->confirmed_end = publisher->confirmed_count;
    publisher->measuring = false;
}

static void run_closed(struct publisher *publisher, uint64_t in_flight, struct interval *interval)
{
    bool begun = false;
    while (bench_now_ns() < publisher->end_ns) {
        uint64_t now_ns = bench_now_ns();
        if (!begun && now_ns >= publisher->begin_ns) {
            begun = true;
            measure_begin(publisher, interval);
        }
        while (publisher->published_count - publisher->confirmed_count < in_flight &&
               publisher->published_count - publisher->front_count < publisher->slot_count - 1 &&
               publish_one(publisher)) {
            publisher->sent_ns[publisher->published_count % publisher->slot_count] = now_ns;
        }
        turn(publisher, begun ? publisher->end_ns : publisher->begin_ns);
    }
    measure_end(publisher, interval);
}

static void run_open(struct publisher *publisher, struct interval *interval)
{
    bool begun = false;
    uint64_t due_ns = publisher->schedule_ns;
    while (due_ns < publisher->end_ns) {
        uint64_t now_ns = bench_now_ns();
        if (!begun && now_ns >= publisher->begin_ns) {
            begun = true;
            measure_begin(publisher, interval);
        }
        while (due_ns <= now_ns && due_ns < publisher->end_ns) {
            if (publisher->published_count - publisher->front_count >= publisher->slot_count - 1) {
                bench_die("RabbitMQ is so far behind the rate that %llu messages are unconfirmed",
                          (unsigned long long)publisher->slot_count);
            }
            if (!publish_one(publisher)) {
                break;
            }
            due_ns = intended_ns(publisher, publisher->published_count + 1);
        }
        turn(publisher, due_ns);
    }
    measure_end(publisher, interval);
}

static void print(const struct publisher *publisher, const struct interval *interval)
{
    double seconds = (double)(interval->end_ns - interval->begin_ns) / 1e9;
    uint64_t confirmed = interval->confirmed_end - interval->confirmed_begin;
    double own_us = (double)(interval->own_end.tv_sec - interval->own_begin.tv_sec) * 1e6 +
                    (double)(interval->own_end.tv_nsec - interval->own_begin.tv_nsec) / 1e3;
    (void)printf("{\"seconds\":%.6f,\"body_bytes\":%zu,\"published\":%llu,\"queued\":%llu,\"queued_rate\":%.1f,"
                 "\"unanswered\":%llu,\"latency_us\":{\"queued\":",
                 seconds, publisher->body_bytes, (unsigned long long)publisher->published_count,
                 (unsigned long long)confirmed, (double)confirmed / seconds,
                 (unsigned long long)(publisher->published_count - publisher->confirmed_count));
    histogram_print(&publisher->latency, stdout);
    (void)printf("},\"own_cpu_us\":%.1f,\"cpu_us\":", own_us);
    bench_watch_print(&interval->watch, stdout);
    (void)puts("}");
}

int main(int argc, char **argv)
{
    static struct publisher publisher = {.user = "guest", .password = "guest", .vhost = "/"};
    static struct interval interval;
    double port = 5672;
    double in_flight = 1024;
    double seconds = 5;
    double warmup = 1;
    double bytes = 128;
    double grid_us = 0;
    const char *type = "text";
    const char *run = "bare";
    const char *watch = NULL;
    const struct bench_option options[] = {
        {"port", NULL, &port},
        {"user", &publisher.user, NULL},
        {"password", &publisher.password, NULL},
        {"vhost", &publisher.vhost, NULL},
        {"queue", &publisher.queue, NULL},
        {"in-flight", NULL, &in_flight}, /* closed loop: unconfirmed at any time */
        {"rate", NULL, &publisher.rate}, /* open loop: messages a second */
        {"grid-us", NULL, &grid_us},     /* open loop: messages are due together at multiples of it */
        {"seconds", NULL, &seconds},     /* measured */
        {"warmup", NULL, &warmup},       /* published before, not measured */
        {"bytes", NULL, &bytes},         /* of the client's message whose body is published */
        {"type", &type, NULL},           /* of the messages */
        {"run", &run, NULL},             /* begins the ids */
        {"watch", &watch, NULL},         /* processes whose CPU time is printed */
    };
    bench_options(argc, argv, options, sizeof options / sizeof options[0]);
    if (publisher.queue == NULL || in_flight < 1) {
        bench_die("--queue is needed, and --in-flight begins at 1");
    }
    publisher.grid_ns = (uint64_t)(grid_us * 1000);
    publisher_prepare(&publisher, type, run, (size_t)bytes);
    /* Open loop: as many may be unconfirmed as ten seconds bring. */
    publisher.slot_count = publisher.rate > 0 ? (uint64_t)(publisher.rate * 10) + 1024 : (uint64_t)in_flight * 4;
    publisher.sent_ns = bench_memory((size_t)publisher.slot_count, sizeof *publisher.sent_ns);
    publisher.confirmed = bench_memory((size_t)publisher.slot_count, sizeof *publisher.confirmed);
    bench_watch_open(&interval.watch, watch);
    (void)prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    publisher_connect(&publisher, (unsigned)port);

    publisher.schedule_ns = bench_now_ns() + BENCH_SECOND_NS / 100;
    publisher.begin_ns = publisher.schedule_ns + (uint64_t)(warmup * 1e9);
    publisher.end_ns = publisher.begin_ns + (uint64_t)(seconds * 1e9);
    if (publisher.rate > 0) {
        publisher.interval_ns = 1e9 / publisher.rate;
        run_open(&publisher, &interval);
    } else {
        run_closed(&publisher, (uint64_t)in_flight, &interval);
    }
    uint64_t give_up_ns = bench_now_ns() + (uint64_t)WAIT_SECONDS_MAX * BENCH_SECOND_NS;
    while (publisher.confirmed_count < publisher.published_count && bench_now_ns() < give_up_ns) {
        turn(&publisher, give_up_ns);
    }
    print(&publisher, &interval);
    return 0;
}
