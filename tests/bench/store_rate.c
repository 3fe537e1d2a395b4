/* SPDX-License-Identifier: MIT */
/* What PostgreSQL takes by the processor's own statement when no broker is in front of it: the processor's store, fed
 * with full batches as fast as it decides them. Beside COPY (rows.c) it tells what the statement costs; beside the
 * processor, what everything else does. */
#include "arena.h"
#include "bench.h"
#include "log.h"
#include "port.h"
#include "port_posix.h"
#include "store.h"

#include <string.h>

enum { TOKEN = 1, WATCH_MAX = 4, EVENT_MAX = 4, GIVE_UP_SECONDS = 20, LOG_FILE_BYTES = 1 << 20 };

struct feed {
    struct port port;
    struct log log;
    struct store *store;
    struct bench_message message;
    const char *client_id;
    size_t batch_rows;
    uint64_t made_count;
    uint64_t stored_count;
};

static uint64_t feed_now_ms(const struct feed *feed)
{
    return feed->port.now_ns(feed->port.context) / 1000000;
}

static void submit(struct feed *feed)
{
    store_begin(feed->store);
    for (size_t i = 0; i < feed->batch_rows; i++) {
        bench_digits(feed->message.data + feed->message.digits_offset, ++feed->made_count);
        struct store_row row = {
            .client_id = span_text(feed->client_id),
            .message_id = span_of(feed->message.data + feed->message.id_offset, feed->message.id_bytes),
            .type = span_text("text"),
            .content = span_of(feed->message.data + feed->message.content_offset, feed->message.content_bytes),
            .gateway = span_text("gw-22000"),
            .received_unix_ms = feed->port.wall_ms(feed->port.context),
            .has_received_at = true,
        };
        if (!store_add(feed->store, &row)) {
            bench_die("a batch of %zu rows does not fit the store", feed->batch_rows);
        }
    }
    store_submit(feed->store, feed_now_ms(feed));
}

static void on_result(void *context, const struct store_result *result)
{
    struct feed *feed = context;
    if (result->outcome != STORE_STORED) {
        bench_die("the store refused a batch: %s", result->message);
    }
    feed->stored_count += feed->batch_rows;
}

static void on_change(void *context)
{
    (void)context;
}

static void turn(struct feed *feed, uint64_t until_ms)
{
    uint64_t due_ms = store_tick(feed->store, feed_now_ms(feed));
    due_ms = due_ms < until_ms ? due_ms : until_ms;
    uint64_t now_ms = feed_now_ms(feed);
    struct port_event events[EVENT_MAX];
    size_t count =
        feed->port.wait(feed->port.context, events, EVENT_MAX, due_ms > now_ms ? (int64_t)(due_ms - now_ms) : 0);
    for (size_t i = 0; i < count; i++) {
        store_on_event(feed->store, feed_now_ms(feed));
    }
    for (struct port_job *job; (job = feed->port.finished_job(feed->port.context)) != NULL;) {
        (void)store_on_job(feed->store, job, feed_now_ms(feed));
    }
    log_flush(&feed->log);
}

/* The same takes twice: once to measure, once for real. */
static void carve(struct feed *feed, struct arena *arena, const char *url, const char *log_path)
{
    static const struct store_handler handler = {.on_up = on_change, .on_down = on_change, .on_result = on_result};
    struct log_options log_options = {
        .path = log_path, .level = LOG_INFO, .file_bytes_max = LOG_FILE_BYTES, .file_count = 2};
    struct store_options options = {.url = url,
                                    .token = TOKEN,
                                    .row_count_max = feed->batch_rows,
                                    .content_bytes_max = feed->batch_rows * feed->message.bytes};
    log_open(&feed->log, &feed->port, arena, &log_options);
    feed->store = store_init(arena, &feed->port, &feed->log, &options, &handler, feed);
}

int main(int argc, char **argv)
{
    static struct feed feed = {.client_id = "bare-17"};
    double seconds = 3;
    double bytes = 128;
    double batch = 500;
    const char *url = NULL;
    const char *run = "bare";
    const char *log_path = "store_rate.log";
    const struct bench_option options[] = {
        {"url", &url, NULL},      {"seconds", NULL, &seconds},
        {"bytes", NULL, &bytes}, /* of the client's message whose row is stored */
        {"batch", NULL, &batch}, /* rows a statement */
        {"run", &run, NULL},     /* begins the ids: another one for each run */
        {"log", &log_path, NULL},
    };
    bench_options(argc, argv, options, sizeof options / sizeof options[0]);
    feed.batch_rows = (size_t)batch;
    if (url == NULL || feed.batch_rows == 0) {
        bench_die("--url is needed, and --batch begins at 1");
    }
    bench_message_make(&feed.message, "text", run, (size_t)bytes);
    struct port_posix_options port_options = {.poller = PORT_POSIX_POLL, .watch_max = WATCH_MAX};
    if (!port_posix_open(&feed.port, &port_options)) {
        bench_die("%s", feed.port.error_text(feed.port.context));
    }
    static struct arena arena;
    arena_measure(&arena);
    carve(&feed, &arena, url, log_path);
    size_t arena_bytes = arena.used_bytes;
    arena_begin(&arena, feed.port.memory(feed.port.context, arena_bytes), arena_bytes);
    carve(&feed, &arena, url, log_path);

    store_start(feed.store, feed_now_ms(&feed));
    uint64_t give_up_ms = feed_now_ms(&feed) + (uint64_t)GIVE_UP_SECONDS * 1000;
    while (!store_up(feed.store)) {
        turn(&feed, give_up_ms);
        if (feed_now_ms(&feed) >= give_up_ms) {
            bench_die("the store did not connect within %d s; %s says why", GIVE_UP_SECONDS, log_path);
        }
    }
    struct bench_watch watch;
    bench_watch_self(&watch);
    bench_watch_begin(&watch);
    uint64_t begin_ns = bench_now_ns();
    uint64_t end_ms = feed_now_ms(&feed) + (uint64_t)(seconds * 1000);
    while (feed_now_ms(&feed) < end_ms || !store_idle(feed.store)) {
        if (store_idle(feed.store)) {
            submit(&feed);
        }
        turn(&feed, end_ms + (uint64_t)GIVE_UP_SECONDS * 1000);
    }
    double took = (double)(bench_now_ns() - begin_ns) / 1e9;
    bench_watch_end(&watch);
    (void)printf("{\"seconds\":%.6f,\"rows\":%llu,\"rows_rate\":%.1f,\"own_cpu_us\":%.1f}\n", took,
                 (unsigned long long)feed.stored_count, (double)feed.stored_count / took,
                 (double)watch.used_ns[0] / 1000.0);
    store_close(feed.store);
    return 0;
}
