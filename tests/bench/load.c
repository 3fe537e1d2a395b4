/* SPDX-License-Identifier: MIT */
/* The phases of a run: connect everybody (idle clients last), settle, send for a while unmeasured, measure, then wait
 * for the receipts still due. In the closed loop each answer is followed by a new message. In the open loop message
 * i is due at start + i / rate on client i mod count, whatever became of the earlier ones, and its latency counts from
 * then. The storm is a phase of its own: clients come, are greeted and go in turn in the ways of enum storm_way. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

enum {
    CONNECTING_MAX = 256,
    EVENTS_MAX = 512,
    CONNECT_SECONDS_MAX = 60,
    DRAIN_SECONDS_MAX = 15,
    LATE_SENDS_MAX = 256 /* messages sent between two looks at the sockets when the schedule is behind */
};

static void connect_more(struct load *load)
{
    while (load->connecting_count < CONNECTING_MAX && load->next_connect < load->client_count) {
        client_connect(load, &load->clients[load->next_connect++]);
    }
}

void load_client_open(struct load *load, struct client *client)
{
    client->opened = true;
    load->open_count++;
    load->connecting_count--;
}

void load_client_ended(struct load *load, struct client *client)
{
    load->ended_count++;
    load->connecting_count -= client->opened ? 0 : 1;
}

/* Handles what is ready; waits for it until due_ns at most. */
static void turn(struct load *load, uint64_t due_ns)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t now_ns = bench_now_ns();
    uint64_t wait_ns = due_ns > now_ns ? due_ns - now_ns : 0;
    struct timespec wait = {.tv_sec = (time_t)(wait_ns / BENCH_SECOND_NS),
                            .tv_nsec = (long)(wait_ns % BENCH_SECOND_NS)};
    int count = epoll_pwait2(load->epoll, events, EVENTS_MAX, &wait, NULL);
    if (count < 0 && errno != EINTR) {
        bench_die("epoll_pwait2: %s", strerror(errno));
    }
    for (int i = 0; i < count; i++) {
        client_event(load, events[i].data.ptr, events[i].events);
    }
}

static void turns_until(struct load *load, uint64_t due_ns)
{
    while (bench_now_ns() < due_ns) {
        turn(load, due_ns);
    }
}

static void connect_all(struct load *load)
{
    uint64_t give_up_ns = bench_now_ns() + (uint64_t)CONNECT_SECONDS_MAX * BENCH_SECOND_NS;
    while (load->open_count < load->client_count) {
        connect_more(load);
        turn(load, give_up_ns);
        if (bench_now_ns() >= give_up_ns) {
            bench_die("only %u of %u clients were connected after %d s", load->open_count, load->client_count,
                      CONNECT_SECONDS_MAX);
        }
    }
}

static uint64_t clients_outstanding(const struct load *load)
{
    const struct counters *counters = &load->counters;
    switch (load->until) {
    case UNTIL_QUEUED:
        return counters->sent - counters->queued;
    case UNTIL_STORED:
        return counters->sent - counters->stored;
    case UNTIL_ACCEPTED:
        return counters->sent - counters->accepted;
    }
    return 0;
}

struct interval {
    struct counters begin;
    struct counters end;
    double seconds;
    struct bench_watch watch;
    uint64_t own_ns;
};

static uint64_t own_cpu_ns(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * BENCH_SECOND_NS + (uint64_t)time.tv_nsec;
}

static void measure_begin(struct load *load, struct interval *interval)
{
    histogram_reset(&load->queued);
    histogram_reset(&load->stored);
    histogram_reset(&load->accepted);
    load->measuring = true;
    interval->begin = load->counters;
    interval->own_ns = own_cpu_ns();
    bench_watch_begin(&interval->watch);
    interval->seconds = (double)bench_now_ns();
}

static void measure_end(struct load *load, struct interval *interval)
{
    bench_watch_end(&interval->watch);
    interval->seconds = ((double)bench_now_ns() - interval->seconds) / 1e9;
    interval->own_ns = own_cpu_ns() - interval->own_ns;
    interval->end = load->counters;
    load->measuring = false;
}

static void drain(struct load *load)
{
    uint64_t give_up_ns = bench_now_ns() + (uint64_t)DRAIN_SECONDS_MAX * BENCH_SECOND_NS;
    while (clients_outstanding(load) > 0 && bench_now_ns() < give_up_ns) {
        turn(load, give_up_ns);
    }
}

static void run_closed(struct load *load, double warmup, double seconds, struct interval *interval)
{
    load->sending = true;
    for (uint32_t i = 0; i < load->active_count; i++) {
        client_send(load, &load->clients[i], load->window);
    }
    turns_until(load, bench_now_ns() + (uint64_t)(warmup * 1e9));
    measure_begin(load, interval);
    turns_until(load, bench_now_ns() + (uint64_t)(seconds * 1e9));
    measure_end(load, interval);
    load->sending = false;
}

static void run_open(struct load *load, double warmup, double seconds, struct interval *interval)
{
    load->interval_ns = 1e9 / load->rate;
    load->schedule_ns = bench_now_ns() + BENCH_SECOND_NS / 100;
    load->begin_ns = load->schedule_ns + (uint64_t)(warmup * 1e9);
    load->end_ns = load->begin_ns + (uint64_t)(seconds * 1e9);
    uint64_t number = 0;
    uint64_t due_ns = load->schedule_ns;
    while (due_ns < load->end_ns) {
        uint64_t now_ns = bench_now_ns();
        if (!load->measuring && now_ns >= load->begin_ns) {
            measure_begin(load, interval);
        }
        for (int i = 0; i < LATE_SENDS_MAX && due_ns <= now_ns && due_ns < load->end_ns; i++) {
            client_send(load, &load->clients[number % load->active_count], 1);
            number++;
            due_ns = load->schedule_ns + bench_due_ns((double)number, load->interval_ns, load->grid_ns);
        }
        turn(load, due_ns);
    }
    measure_end(load, interval);
}

static void run_storm(struct load *load, struct interval *interval)
{
    uint64_t give_up_ns = bench_now_ns() + (uint64_t)CONNECT_SECONDS_MAX * BENCH_SECOND_NS;
    measure_begin(load, interval);
    while (load->ended_count < load->client_count) {
        connect_more(load);
        turn(load, give_up_ns);
        if (bench_now_ns() >= give_up_ns) {
            bench_die("only %u of %u clients of the storm had gone after %d s", load->ended_count, load->client_count,
                      CONNECT_SECONDS_MAX);
        }
    }
    measure_end(load, interval);
}

static void clients_make(struct load *load)
{
    load->client_count = load->storm_count > 0 ? load->storm_count : load->active_count + load->idle_count;
    load->clients = bench_memory(load->client_count, sizeof *load->clients);
    for (uint32_t i = 0; i < load->client_count; i++) {
        struct client *client = &load->clients[i];
        client->index = i;
        client->active = load->storm_count == 0 && i < load->active_count;
        client->carry = bench_memory(1, CARRY_BYTES);
        if (client->active) {
            client->tail = bench_memory(1, load->frame_bytes);
            client->sent_ns = bench_memory(load->rate > 0 ? 0 : load->window, sizeof *client->sent_ns);
        }
    }
    load->receive_buffer = bench_memory(1, CARRY_BYTES + RECEIVE_BYTES);
    load->send_buffer = bench_memory(1, SEND_BYTES);
    struct rlimit files;
    (void)getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < (rlim_t)load->client_count + 16) {
        bench_die("%u clients need more open files than this machine allows", load->client_count);
    }
}

static void print_error_text(const char *text)
{
    (void)putchar('"');
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\') {
            (void)putchar('\\');
        }
        (void)putchar(*text >= ' ' && *text <= '~' ? *text : '?');
    }
    (void)putchar('"');
}

static void print(const struct load *load, const struct interval *interval)
{
    const struct counters *begin = &interval->begin;
    const struct counters *end = &interval->end;
    const struct counters *all = &load->counters;
    (void)printf("{\"seconds\":%.6f,\"clients\":%u,\"frame_bytes\":%zu", interval->seconds, load->open_count,
                 load->frame_bytes);
    (void)printf(",\"sent\":%llu,\"queued\":%llu,\"stored\":%llu,\"accepted\":%llu",
                 (unsigned long long)(end->sent - begin->sent), (unsigned long long)(end->queued - begin->queued),
                 (unsigned long long)(end->stored - begin->stored),
                 (unsigned long long)(end->accepted - begin->accepted));
    (void)printf(",\"queued_rate\":%.1f,\"stored_rate\":%.1f,\"accepted_rate\":%.1f",
                 (double)(end->queued - begin->queued) / interval->seconds,
                 (double)(end->stored - begin->stored) / interval->seconds,
                 (double)(end->accepted - begin->accepted) / interval->seconds);
    (void)printf(",\"total\":{\"sent\":%llu,\"queued\":%llu,\"stored\":%llu,\"accepted\":%llu,\"refused\":%llu,"
                 "\"errors\":%llu,\"busy\":%llu,\"pings\":%llu,\"unanswered\":%llu}",
                 (unsigned long long)all->sent, (unsigned long long)all->queued, (unsigned long long)all->stored,
                 (unsigned long long)all->accepted, (unsigned long long)all->refused, (unsigned long long)all->errors,
                 (unsigned long long)all->busy, (unsigned long long)all->pings,
                 (unsigned long long)clients_outstanding(load));
    (void)printf(",\"latency_us\":{\"queued\":");
    histogram_print(&load->queued, stdout);
    (void)printf(",\"stored\":");
    histogram_print(&load->stored, stdout);
    (void)printf(",\"accepted\":");
    histogram_print(&load->accepted, stdout);
    (void)printf("},\"own_cpu_us\":%.1f,\"cpu_us\":", (double)interval->own_ns / 1000.0);
    bench_watch_print(&interval->watch, stdout);
    (void)printf(",\"first_error\":");
    print_error_text(load->first_error);
    (void)puts("}");
}

static enum load_until until_named(const char *name)
{
    static const char *const names[] = {
        [UNTIL_QUEUED] = "queued", [UNTIL_STORED] = "stored", [UNTIL_ACCEPTED] = "accepted"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) {
            return (enum load_until)i;
        }
    }
    bench_die("--until is queued, stored or accepted");
}

int main(int argc, char **argv)
{
    static struct load load;
    static struct interval interval;
    double port = 0;
    double connections = 100;
    double idle = 0;
    double window = 16;
    double seconds = 5;
    double warmup = 1;
    double settle = 0;
    double bytes = 128;
    double raw = 0;
    double storm = 0;
    double grid_us = 0;
    const char *type = "text";
    const char *until = "queued";
    const char *watch = NULL;
    load.run = "run";
    load.receipts = "queued";
    const struct bench_option options[] = {
        {"port", NULL, &port},
        {"connections", NULL, &connections}, /* that send */
        {"idle", NULL, &idle},               /* connections more that send nothing */
        {"window", NULL, &window},           /* closed loop: messages in flight on each connection */
        {"rate", NULL, &load.rate},          /* open loop: messages a second over all connections */
        {"grid-us", NULL, &grid_us},         /* open loop: messages are due together at multiples of it */
        {"seconds", NULL, &seconds},         /* measured */
        {"warmup", NULL, &warmup},           /* sent before, not measured */
        {"settle", NULL, &settle},           /* quiet time between connecting and sending */
        {"bytes", NULL, &bytes},             /* of a message's text */
        {"type", &type, NULL},               /* of the messages */
        {"run", &load.run, NULL},            /* begins client ids and message ids: another one for each run */
        {"receipts", &load.receipts, NULL},  /* as in the URL */
        {"until", &until, NULL},             /* the receipt that is waited for: queued, stored or accepted */
        {"watch", &watch, NULL},             /* processes whose CPU time is printed */
        {"raw", NULL, &raw},                 /* 1: no WebSocket, the peer echoes */
        {"storm", NULL, &storm},             /* clients that only come and go */
    };
    bench_options(argc, argv, options, sizeof options / sizeof options[0]);
    load.port = (unsigned)port;
    load.active_count = (uint32_t)connections;
    load.idle_count = (uint32_t)idle;
    load.window = (uint32_t)window;
    load.grid_ns = (uint64_t)(grid_us * 1000);
    load.raw = raw > 0;
    load.storm_count = (uint32_t)storm;
    load.until = until_named(until);
    if (load.active_count == 0 || load.window == 0) {
        bench_die("--connections and --window begin at 1");
    }

    struct bench_message message;
    bench_message_make(&message, type, load.run, (size_t)bytes);
    load_frame_make(&load, &message);
    clients_make(&load);
    bench_watch_open(&interval.watch, watch);
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    (void)prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);

    if (load.storm_count > 0) {
        run_storm(&load, &interval);
    } else {
        connect_all(&load);
        turns_until(&load, bench_now_ns() + (uint64_t)(settle * 1e9));
        if (load.rate > 0) {
            run_open(&load, warmup, seconds, &interval);
        } else {
            run_closed(&load, warmup, seconds, &interval);
        }
        drain(&load);
    }
    print(&load, &interval);
    return 0;
}
