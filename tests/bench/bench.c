/* SPDX-License-Identifier: MIT */
/* CPU time of another process comes from its CPU-time clock (clock_getcpuclockid): exact at the moment of the call,
 * where /proc/PID/stat counts in ticks of ten milliseconds. */
#define _GNU_SOURCE
#include "bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

_Noreturn void bench_die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputc('\n', stderr);
    exit(1);
}

static const struct bench_option *option_named(const struct bench_option *options, size_t count, const char *argument)
{
    for (size_t i = 0; i < count; i++) {
        if (argument[0] == '-' && argument[1] == '-' && strcmp(&argument[2], options[i].name) == 0) {
            return &options[i];
        }
    }
    bench_die("unknown option %s", argument);
}

void bench_options(int argc, char **argv, const struct bench_option *options, size_t option_count)
{
    for (int i = 1; i < argc; i += 2) {
        const struct bench_option *option = option_named(options, option_count, argv[i]);
        if (i + 1 == argc) {
            bench_die("%s wants a value", argv[i]);
        }
        if (option->text != NULL) {
            *option->text = argv[i + 1];
            continue;
        }
        char *end = NULL;
        *option->number = strtod(argv[i + 1], &end);
        if (end == argv[i + 1] || *end != '\0' || *option->number < 0) {
            bench_die("%s wants a number, not %s", argv[i], argv[i + 1]);
        }
    }
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec time;
    if (clock_gettime(clock, &time) != 0) {
        bench_die("clock: %s (has a watched process ended?)", strerror(errno));
    }
    return (uint64_t)time.tv_sec * BENCH_SECOND_NS + (uint64_t)time.tv_nsec;
}

uint64_t bench_now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t bench_due_ns(double number, double interval_ns, uint64_t grid_ns)
{
    uint64_t due_ns = (uint64_t)(number * interval_ns);
    return grid_ns > 0 ? due_ns - due_ns % grid_ns : due_ns;
}

void *bench_memory(size_t count, size_t bytes_each)
{
    void *memory = calloc(count > 0 ? count : 1, bytes_each);
    if (memory == NULL) {
        bench_die("no memory for %zu x %zu bytes", count, bytes_each);
    }
    return memory;
}

int bench_connect(unsigned port, unsigned spread)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        bench_die("socket: %s", strerror(errno));
    }
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    struct sockaddr_in source = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + spread % 64)};
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)&source, sizeof source) != 0) {
        bench_die("bind: %s", strerror(errno));
    }
    if (connect(fd, (struct sockaddr *)&server, sizeof server) != 0 && errno != EINPROGRESS) {
        bench_die("connect to port %u: %s", port, strerror(errno));
    }
    return fd;
}

void bench_watch_open(struct bench_watch *watch, const char *pids)
{
    memset(watch, 0, sizeof *watch);
    for (const char *at = pids; at != NULL && *at != '\0';) {
        char *end = NULL;
        long pid = strtol(at, &end, 10);
        clockid_t clock;
        if (end == at || watch->count == BENCH_WATCH_MAX || clock_getcpuclockid((pid_t)pid, &clock) != 0) {
            bench_die("cannot watch the process at '%s'", at);
        }
        watch->pids[watch->count] = pid;
        watch->clocks[watch->count++] = clock;
        at = *end == ',' ? end + 1 : end;
    }
}

void bench_watch_self(struct bench_watch *watch)
{
    char pid[32];
    (void)snprintf(pid, sizeof pid, "%ld", (long)getpid());
    bench_watch_open(watch, pid);
}

void bench_watch_begin(struct bench_watch *watch)
{
    for (size_t i = 0; i < watch->count; i++) {
        watch->begin_ns[i] = clock_ns(watch->clocks[i]);
    }
}

void bench_watch_end(struct bench_watch *watch)
{
    for (size_t i = 0; i < watch->count; i++) {
        watch->used_ns[i] = clock_ns(watch->clocks[i]) - watch->begin_ns[i];
    }
}

void bench_watch_print(const struct bench_watch *watch, FILE *out)
{
    (void)fputc('{', out);
    for (size_t i = 0; i < watch->count; i++) {
        (void)fprintf(out, "%s\"%ld\":%.1f", i > 0 ? "," : "", watch->pids[i], (double)watch->used_ns[i] / 1000.0);
    }
    (void)fputc('}', out);
}

void bench_message_make(struct bench_message *message, const char *type, const char *run, size_t bytes)
{
    static const char open[] = "{\"unit\":\"kiosk\",\"level\":3,\"text\":\"";
    static const char words[] = "The quick brown fox jumps over the lazy dog, and then does it once more. ";
    char head[128];
    char tail[128];
    int head_bytes = snprintf(head, sizeof head, "{\"type\":\"%s\",\"content\":%s", type, open);
    int tail_bytes = snprintf(tail, sizeof tail, "\"},\"id\":\"%s-%0*d\"}", run, BENCH_ID_DIGITS, 0);
    size_t fixed = (size_t)head_bytes + (size_t)tail_bytes;
    if (head_bytes >= (int)sizeof head || tail_bytes >= (int)sizeof tail || bytes < fixed) {
        bench_die("a message of type %s needs at least %zu bytes", type, fixed);
    }
    message->data = bench_memory(1, bytes + 1);
    message->bytes = bytes;
    memcpy(message->data, head, (size_t)head_bytes);
    for (size_t i = 0; i < bytes - fixed; i++) {
        message->data[(size_t)head_bytes + i] = words[i % (sizeof words - 1)];
    }
    memcpy(message->data + bytes - (size_t)tail_bytes, tail, (size_t)tail_bytes);
    message->content_offset = (size_t)head_bytes - (sizeof open - 1);
    message->content_bytes = bytes - (size_t)tail_bytes + 2 - message->content_offset;
    message->id_bytes = strlen(run) + 1 + BENCH_ID_DIGITS;
    message->id_offset = bytes - 2 - message->id_bytes;
    message->digits_offset = bytes - 2 - BENCH_ID_DIGITS;
}

void bench_digits(char *nine, uint64_t value)
{
    for (int i = BENCH_ID_DIGITS - 1; i >= 0; i--) {
        nine[i] = (char)('0' + value % 10);
        value /= 10;
    }
}
