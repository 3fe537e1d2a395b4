/* SPDX-License-Identifier: MIT */
/* Reads what log, links and admin pages count for themselves. */
#include "metrics_program.h"

#include "admin.h"
#include "amqp_link.h"
#include "log.h"
#include "metrics.h"

struct metrics_histogram metrics_turns(void)
{
    static const uint64_t bounds_ns[] = {50000,    100000,   250000,   500000,    1000000,   2500000,   5000000,
                                         10000000, 25000000, 50000000, 100000000, 250000000, 1000000000};
    return (struct metrics_histogram){
        .bounds = bounds_ns, .bound_count = sizeof bounds_ns / sizeof bounds_ns[0], .digits = METRICS_NS};
}

static void write_log(struct metrics *metrics, const struct log *log)
{
    metrics_begin(metrics, "postern_log_lines_total", METRICS_COUNTER, "Lines of the log, by level.");
    for (enum log_level level = LOG_ERROR; level <= LOG_DEBUG; level++) {
        metrics_add(metrics, log->line_counts[level], METRICS_LABEL("level", span_text(log_level_name(level))));
    }
    metrics_count(metrics, "postern_log_lost_lines_total", "Lines that the log's file could not take.",
                  log->lost_total);
}

static void write_admin(struct metrics *metrics, const struct admin *admin)
{
    metrics_begin(metrics, "postern_admin_answers_total", METRICS_COUNTER, "Answers of the admin pages, by status.");
    for (enum admin_status status = ADMIN_OK; status < ADMIN_STATUS_COUNT; status++) {
        char buffer[8];
        struct text code = text_in(buffer, sizeof buffer);
        text_u64(&code, admin_status_code(status));
        metrics_add(metrics, admin->answers[status], METRICS_LABEL("status", text_span(&code)));
    }
    metrics_count(metrics, "postern_admin_evictions_total",
                  "Connections to the admin pages that gave their place to a newer one.", admin->evicted_count);
}

static void write_pair(struct metrics *metrics, const char *name, enum metrics_kind kind, const char *help,
                       unsigned digits, uint64_t publish, uint64_t consume)
{
    metrics_begin(metrics, name, kind, help);
    metrics_unit(metrics, digits);
    metrics_add(metrics, publish, METRICS_LABEL("link", span_text("publish")));
    metrics_add(metrics, consume, METRICS_LABEL("link", span_text("consume")));
}

static void write_links(struct metrics *metrics, const struct metrics_program *program, uint64_t now_ms)
{
    struct amqp_link *publish = program->publish;
    struct amqp_link *consume = program->consume;
    const struct amqp_link_counters *out = amqp_link_counters(publish);
    const struct amqp_link_counters *in = amqp_link_counters(consume);
    write_pair(metrics, "postern_link_up", METRICS_GAUGE, "1 while the connection to RabbitMQ is up.", METRICS_WHOLE,
               amqp_link_state(publish) == AMQP_LINK_READY, amqp_link_state(consume) == AMQP_LINK_READY);
    write_pair(metrics, "postern_link_blocked", METRICS_GAUGE,
               "1 while RabbitMQ is in an alarm and takes nothing on this connection.", METRICS_WHOLE,
               amqp_link_blocked(publish), amqp_link_blocked(consume));
    write_pair(metrics, "postern_link_blocked_seconds_total", METRICS_COUNTER, "Time that RabbitMQ spent in alarms.",
               METRICS_MS, amqp_link_blocked_ms(publish, now_ms), amqp_link_blocked_ms(consume, now_ms));
    write_pair(metrics, "postern_link_connects_total", METRICS_COUNTER, "Connections to RabbitMQ that came up.",
               METRICS_WHOLE, out->connect_count, in->connect_count);
    write_pair(metrics, "postern_link_connect_failures_total", METRICS_COUNTER,
               "Attempts to connect to RabbitMQ that came to nothing.", METRICS_WHOLE, out->connect_failure_count,
               in->connect_failure_count);
    write_pair(metrics, "postern_link_losses_total", METRICS_COUNTER,
               "Connections to RabbitMQ that were up and were lost.", METRICS_WHOLE, out->down_count, in->down_count);
    write_pair(metrics, "postern_link_channel_closes_total", METRICS_COUNTER, "Channels that RabbitMQ closed.",
               METRICS_WHOLE, out->channel_closed_count, in->channel_closed_count);
    write_pair(metrics, "postern_link_received_bytes_total", METRICS_COUNTER, "Bytes from RabbitMQ.", METRICS_WHOLE,
               out->received_bytes, in->received_bytes);
    write_pair(metrics, "postern_link_sent_bytes_total", METRICS_COUNTER, "Bytes to RabbitMQ.", METRICS_WHOLE,
               out->sent_bytes, in->sent_bytes);
}

void metrics_program(struct metrics *metrics, const struct metrics_program *program, uint64_t now_ms)
{
    metrics_begin(metrics, "postern_build_info", METRICS_GAUGE, "Always 1; the labels say what runs.");
    metrics_add(metrics, 1, METRICS_LABEL("program", span_text(program->name)),
                METRICS_LABEL("version", span_text(POSTERN_VERSION)));
    metrics_gauge_ms(metrics, "postern_start_time_seconds", "When the program started, in Unix time.",
                     program->start_wall_ms > 0 ? (uint64_t)program->start_wall_ms : 0);
    metrics_gauge(metrics, "postern_ready", "1 while /readyz says that the program is ready.",
                  program->is_ready ? 1 : 0);
    metrics_gauge(metrics, "postern_arena_bytes",
                  "The block of memory that was taken at the start; our own code uses no other.", program->arena_bytes);
    metrics_histogram(metrics, "postern_loop_turn_seconds",
                      "How long a turn of the loop worked, its waiting for events not counted.", program->turn_ns);
    metrics_begin(metrics, "postern_receipts_total", METRICS_COUNTER,
                  "Receipts that became true, by status; one that comes again counts again.");
    for (enum receipt_status status = RECEIPT_ACCEPTED; status <= RECEIPT_DEAD; status++) {
        metrics_add(metrics, program->receipts[status],
                    METRICS_LABEL("status", span_text(receipt_status_name(status))));
    }
    write_links(metrics, program, now_ms);
    write_log(metrics, program->log);
    write_admin(metrics, program->admin);
}
