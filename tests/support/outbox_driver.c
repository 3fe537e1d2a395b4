/* SPDX-License-Identifier: MIT */
/* Publishes numbered messages through the real outbox, over the real port, to a real broker, so that faults of the
 * broker can be tried while it does:
 *
 *     outbox_driver --url amqp://… --count 20000 --clients 10 --rate 2000 [--queue messages] [--type quorum]
 *         [--bytes 200] [--heartbeat 5] [--window 1024] [--messages 8192] [--seconds 120] [--log FILE]
 *         [--spool FOLDER] [--spool-bytes 268435456]
 *
 * Message k is of client "c{k mod clients}", with the id and content k, so that whoever reads the queue can tell
 * losses, repeats and order. Once a second, and at the end, a line tells where it stands. Exit code 0: each message
 * got its receipt exactly once.
 *
 * With a spool and without a broker it measures what the disk takes: `accepted`, a line a second. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "amqp_url.h"
#include "arena.h"
#include "log.h"
#include "outbox.h"
#include "port.h"
#include "port_posix.h"
#include "spool_format.h"
#include "text.h"

enum { TOKEN = 7, BYTES_MAX = 65536, BATCH_MAX = 256 };

struct driver {
    struct port port;
    struct log log;
    struct amqp_brokers brokers;
    struct outbox *outbox;
    uint8_t *receipts; /* by message: how many */
    uint64_t queued_count;
    uint64_t accepted_count;
    uint64_t wrong_count; /* receipts given twice, or for what was never taken */
    uint64_t taken_count;
    const char *url;
    const char *queue;
    const char *type;
    const char *log_path;
    uint64_t count;
    uint64_t clients;
    uint64_t rate;
    uint64_t content_bytes;
    uint64_t heartbeat_s;
    uint64_t window;
    uint64_t messages;
    uint64_t seconds;
    const char *spool_directory;
    uint64_t spool_bytes;
};

static void on_receipt(void *context, const struct outbox_receipt *receipt)
{
    struct driver *driver = context;
    char text[24] = {0};
    if (receipt->status == RECEIPT_ACCEPTED) {
        driver->accepted_count++;
        return;
    }
    memcpy(text, receipt->id.data, receipt->id.bytes < sizeof text ? receipt->id.bytes : sizeof text - 1);
    uint64_t number = strtoull(text, NULL, 10);
    if (number >= driver->taken_count || driver->receipts[number] != 0 || receipt->status != RECEIPT_QUEUED ||
        receipt->origin.seq != (uint32_t)number) {
        driver->wrong_count++;
        return;
    }
    driver->receipts[number] = 1;
    driver->queued_count++;
}

static bool take(struct driver *driver, uint64_t now_ms)
{
    static char content_buffer[BYTES_MAX];
    static char client_buffer[24];
    static char id_buffer[24];
    struct text content = text_in(content_buffer, sizeof content_buffer);
    struct text client = text_in(client_buffer, sizeof client_buffer);
    struct text id = text_in(id_buffer, sizeof id_buffer);
    text_string(&content, "{\"n\":");
    text_u64(&content, driver->taken_count);
    text_string(&content, ",\"fill\":\"");
    while (content.used_bytes + 2 < driver->content_bytes) {
        text_char(&content, 'x');
    }
    text_string(&content, "\"}");
    text_char(&client, 'c');
    text_u64(&client, driver->taken_count % driver->clients);
    text_u64(&id, driver->taken_count);
    const struct outbox_message message = {.client_id = text_span(&client),
                                           .id = text_span(&id),
                                           .type = span_text("text"),
                                           .content = text_span(&content),
                                           .received_wall_ms = driver->port.wall_ms(driver->port.context),
                                           .origin = {.seq = (uint32_t)driver->taken_count}};
    if (outbox_take(driver->outbox, &message, now_ms) != OUTBOX_TAKEN) {
        return false;
    }
    driver->taken_count++;
    return true;
}

static void report(struct driver *driver, const char *what, uint64_t now_ms)
{
    const struct outbox_counters *outbox = outbox_counters(driver->outbox);
    const struct amqp_link_counters *link = amqp_link_counters(outbox_link(driver->outbox));
    printf("%s taken=%llu accepted=%llu queued=%llu wrong=%llu depth=%llu oldest_ms=%llu published=%llu replayed=%llu "
           "nacked=%llu "
           "returned=%llu relinked=%llu connects=%llu failures=%llu downs=%llu blocked_ms=%llu sends=%llu window=%u "
           "cpu_us=%.2f state=%s\n",
           what, (unsigned long long)driver->taken_count, (unsigned long long)driver->accepted_count,
           (unsigned long long)driver->queued_count, (unsigned long long)driver->wrong_count,
           (unsigned long long)outbox->depth_count, (unsigned long long)outbox_oldest_ms(driver->outbox, now_ms),
           (unsigned long long)outbox->published_count, (unsigned long long)outbox->replayed_count,
           (unsigned long long)outbox->nacked_count, (unsigned long long)outbox->returned_count,
           (unsigned long long)outbox->relinked_count, (unsigned long long)link->connect_count,
           (unsigned long long)link->connect_failure_count, (unsigned long long)link->down_count,
           (unsigned long long)link->blocked_ms, (unsigned long long)link->send_count, outbox->window_count,
           driver->queued_count == 0 ? 0.0
                                     : (double)clock() * 1e6 / (double)CLOCKS_PER_SEC / (double)driver->queued_count,
           amqp_link_state_name(amqp_link_state(outbox_link(driver->outbox))));
    fflush(stdout);
}

static uint64_t now(struct driver *driver)
{
    return driver->port.now_ns(driver->port.context) / 1000000;
}

/* One turn of a loop like the gateway's. */
static void turn(struct driver *driver, uint64_t start_ms, bool may_take)
{
    uint64_t now_ms = now(driver);
    uint64_t due_count = driver->rate == 0 ? driver->count : (now_ms - start_ms) * driver->rate / 1000;
    for (size_t i = 0; may_take && i < BATCH_MAX && driver->taken_count < driver->count; i++) {
        if (driver->taken_count >= due_count || !take(driver, now_ms)) {
            break;
        }
    }
    uint64_t due_ms = outbox_turn(driver->outbox, now_ms);
    log_flush(&driver->log);
    bool is_idle = driver->taken_count == driver->count || driver->taken_count >= due_count ||
                   !outbox_has_room(driver->outbox, 1, (size_t)driver->content_bytes);
    int64_t timeout_ms = due_ms <= now_ms || !is_idle ? 0 : due_ms - now_ms < 5 ? (int64_t)(due_ms - now_ms) : 5;
    struct port_event events[8];
    size_t count = driver->port.wait(driver->port.context, events, 8, timeout_ms);
    now_ms = now(driver);
    for (size_t i = 0; i < count; i++) {
        outbox_on_event(driver->outbox, events[i].ready, now_ms);
    }
    for (struct port_job *job = driver->port.finished_job(driver->port.context); job != NULL;
         job = driver->port.finished_job(driver->port.context)) {
        (void)outbox_on_job(driver->outbox, job, now_ms);
    }
}

static int run(struct driver *driver)
{
    char buffer[256];
    struct text error = text_in(buffer, sizeof buffer);
    if (!outbox_open(driver->outbox, &error)) {
        fprintf(stderr, "outbox_driver: %.*s\n", (int)error.used_bytes, buffer);
        return 2;
    }
    uint64_t start_ms = now(driver);
    uint64_t told_ms = start_ms;
    outbox_start(driver->outbox, start_ms);
    while (driver->queued_count < driver->count && now(driver) - start_ms < driver->seconds * 1000) {
        turn(driver, start_ms, true);
        if (now(driver) - told_ms >= 1000) {
            told_ms = now(driver);
            report(driver, "now", told_ms);
        }
    }
    report(driver, "end", now(driver));
    bool is_whole = driver->queued_count == driver->count && driver->wrong_count == 0 && outbox_empty(driver->outbox);
    outbox_close(driver->outbox, now(driver));
    while (!outbox_closed(driver->outbox)) {
        turn(driver, start_ms, false);
    }
    outbox_release(driver->outbox);
    log_close(&driver->log);
    return is_whole ? 0 : 1;
}

static void carve(struct driver *driver, struct arena *arena)
{
    static struct span queue;
    static const struct outbox_handler handler = {.on_receipt = on_receipt};
    queue = span_text(driver->queue);
    const struct log_options log = {.path = driver->log_path,
                                    .level = LOG_DEBUG,
                                    .file_bytes_max = 64 * 1024 * 1024,
                                    .file_count = 2,
                                    .copy_stdout = true};
    static struct outbox_spool spool;
    spool = (struct outbox_spool){.directory = driver->spool_directory,
                                  .bytes_max = driver->spool_bytes,
                                  .segment_bytes = SPOOL_SEGMENT_BYTES,
                                  .stage_bytes = 4 * 1024 * 1024};
    const struct outbox_options options = {.program = "outbox-driver",
                                           .gateway_id = "driver",
                                           .brokers = &driver->brokers,
                                           .heartbeat_s = (uint32_t)driver->heartbeat_s,
                                           .token = TOKEN,
                                           .queues = &queue,
                                           .queue_count = 1,
                                           .queue_type = driver->type,
                                           .message_count_max = (uint32_t)driver->messages,
                                           .bytes_max = 16 * 1024 * 1024,
                                           .content_bytes_max = BYTES_MAX,
                                           .window_count_max = (uint32_t)driver->window,
                                           .spool = driver->spool_directory != NULL ? &spool : NULL};
    log_open(&driver->log, &driver->port, arena, &log);
    driver->receipts = arena_take(arena, "receipts", (size_t)driver->count, 1);
    driver->outbox = outbox_init(arena, &driver->port, &driver->log, &options, &handler, driver);
}

static bool read_options(struct driver *driver, int count, char **words)
{
    struct {
        const char *name;
        const char **text;
        uint64_t *number;
    } options[] = {{"--url", &driver->url, NULL},
                   {"--queue", &driver->queue, NULL},
                   {"--type", &driver->type, NULL},
                   {"--log", &driver->log_path, NULL},
                   {"--spool", &driver->spool_directory, NULL},
                   {"--spool-bytes", NULL, &driver->spool_bytes},
                   {"--count", NULL, &driver->count},
                   {"--clients", NULL, &driver->clients},
                   {"--rate", NULL, &driver->rate},
                   {"--bytes", NULL, &driver->content_bytes},
                   {"--heartbeat", NULL, &driver->heartbeat_s},
                   {"--window", NULL, &driver->window},
                   {"--messages", NULL, &driver->messages},
                   {"--seconds", NULL, &driver->seconds}};
    for (int i = 1; i < count; i += 2) {
        bool is_known = false;
        for (size_t j = 0; j < sizeof options / sizeof options[0] && i + 1 < count; j++) {
            if (strcmp(words[i], options[j].name) == 0) {
                is_known = true;
                if (options[j].text != NULL) {
                    *options[j].text = words[i + 1];
                } else {
                    *options[j].number = strtoull(words[i + 1], NULL, 10);
                }
            }
        }
        if (!is_known) {
            fprintf(stderr, "outbox_driver: %s is not known or lacks its value\n", words[i]);
            return false;
        }
    }
    return driver->url != NULL && driver->count > 0 && driver->clients > 0;
}

int main(int count, char **words)
{
    static struct driver driver = {.queue = "messages",
                                   .type = "quorum",
                                   .log_path = "/dev/null",
                                   .count = 1000,
                                   .clients = 10,
                                   .content_bytes = 200,
                                   .heartbeat_s = 5,
                                   .window = 1024,
                                   .messages = 8192,
                                   .seconds = 120,
                                   .spool_bytes = 256 * 1024 * 1024};
    const struct port_posix_options port = {.poller = PORT_POSIX_AUTO, .watch_max = 4};
    size_t offset = 0;
    if (!read_options(&driver, count, words)) {
        return 2;
    }
    enum amqp_url_error error = amqp_url_parse(span_text(driver.url), &driver.brokers, &offset);
    if (error != AMQP_URL_OK || !port_posix_open(&driver.port, &port)) {
        fprintf(stderr, "outbox_driver: %s\n", amqp_url_error_text(error));
        return 2;
    }
    struct arena arena;
    arena_measure(&arena);
    carve(&driver, &arena);
    size_t bytes = arena.used_bytes;
    arena_begin(&arena, driver.port.memory(driver.port.context, bytes), bytes);
    carve(&driver, &arena);
    int code = run(&driver);
    port_posix_close(&driver.port);
    return code;
}
