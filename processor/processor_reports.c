/* SPDX-License-Identifier: MIT */
/* The pages, and readiness: a processor is ready while it can take messages and store them. */
#include "processor_reports.h"

#include "metrics.h"
#include "metrics_program.h"
#include "processor.h"
#include "readiness.h"
#include "store.h"

static uint16_t write_health(void *context, struct text *page)
{
    (void)context;
    text_string(page, "ok\n");
    return 200;
}

static void find(struct processor *processor, struct readiness *readiness)
{
    readiness_begin(readiness);
    if (processor->stopping) {
        readiness_say(readiness, "stopping", true, "the processor was told to stop, and takes no more messages");
    }
    if (processor->closing) {
        return; /* nothing is asked of the others any more */
    }
    if (!store_up(processor->store)) {
        struct text sentence = readiness_add(readiness, "database_away", true);
        text_string(&sentence, "the database has been away for ");
        text_u64(&sentence, (processor->now_ms - processor->store_down_ms) / 1000);
        text_string(&sentence, " s");
        readiness_end(readiness, &sentence);
    } else if (processor->consumer.state != CONSUMER_ON && processor->consumer.state != CONSUMER_DEAF) {
        readiness_say(readiness, "broker_away", true, "RabbitMQ gives no messages: nothing is being consumed");
    } else if (consumer_stuck(&processor->consumer, processor->now_ms)) {
        readiness_say(readiness, "dead_letters_stuck", true,
                      "RabbitMQ takes no dead letters, and they fill what may be in hand: nothing is being consumed");
    }
    if (amqp_link_blocked(processor->outgoing.link)) {
        readiness_say(readiness, "broker_blocked", false, "RabbitMQ is in an alarm: receipts and dead letters wait");
    } else if (!processor->outgoing.is_ready) {
        readiness_say(readiness, "publish_away", false,
                      "receipts and dead letters wait: there is no connection to publish on");
    }
    if (processor->log.failing) {
        readiness_say(readiness, "log_failing", false, "the log's file cannot be written; standard error says why");
    }
}

static uint16_t write_readiness(void *context, struct text *page)
{
    struct readiness readiness;
    find(context, &readiness);
    return readiness_page(&readiness, page);
}

/* ---- Metrics ---- */

static void add(struct metrics *metrics, uint64_t value, const char *label, const char *label_value)
{
    metrics_add(metrics, value, METRICS_LABEL(label, span_text(label_value)));
}

static void write_rows(struct metrics *metrics, const struct tally *tally)
{
    metrics_begin(metrics, "postern_rows_total", METRICS_COUNTER,
                  "Messages found in the table after a commit: new ones by their status, and repeats.");
    add(metrics, tally->rows_stored, "outcome", "stored");
    add(metrics, tally->rows_rejected, "outcome", "rejected");
    add(metrics, tally->rows_repeated, "outcome", "repeated");
    metrics_histogram(metrics, "postern_batch_rows", "Rows of the batches that were committed.", &tally->batch_rows);
    metrics_histogram(metrics, "postern_insert_seconds", "How long a batch was with the database until it was decided.",
                      &tally->insert_ns);
    metrics_count(metrics, "postern_batches_refused_total",
                  "Batches that the database refused for their data; they are halved until the message is found.",
                  tally->batches_refused);
    metrics_histogram(metrics, "postern_lag_seconds",
                      "From the moment a gateway took a message until its row was committed, by both machines' clocks.",
                      &tally->lag_ms);
    metrics_begin(metrics, "postern_dead_letters_total", METRICS_COUNTER,
                  "Messages handed to the dead letters, by reason.");
    for (size_t index = 0; index < TALLY_REASONS; index++) {
        add(metrics, tally->dead[index], "reason", tally_reason(index));
    }
}

static void write_in_hand(struct metrics *metrics, struct processor *processor)
{
    struct intake *const intake = &processor->consumer.intake;
    const size_t count = intake_count(intake);
    metrics_gauge(metrics, "postern_intake_messages", "Messages in hand, not yet settled.", count);
    metrics_gauge(metrics, "postern_intake_max_messages", "How many messages may be in hand: PROCESSOR_PREFETCH.",
                  processor->settings->processor_prefetch);
    metrics_gauge(metrics, "postern_intake_bytes", "Bytes of the messages in hand.",
                  byte_ring_used_bytes(&intake->bytes));
    metrics_gauge(metrics, "postern_intake_max_bytes", "How many bytes the messages in hand may have.",
                  intake->bytes.capacity_bytes);
    metrics_gauge_ms(metrics, "postern_intake_oldest_seconds", "How long the oldest message in hand has been there.",
                     count == 0 ? 0 : processor->now_ms - intake_at(intake, intake->first)->came_ms);
    metrics_gauge(metrics, "postern_outgoing_messages",
                  "Receipts' messages and dead letters that RabbitMQ has not confirmed.",
                  outgoing_count(&processor->outgoing));
    metrics_count(metrics, "postern_outgoing_dropped_total",
                  "Receipts that were dropped, because RabbitMQ confirmed none for too long.",
                  processor->outgoing.dropped_count);
}

static void write_database(struct metrics *metrics, const struct processor *processor)
{
    metrics_gauge(metrics, "postern_database_up", "1 while the connection to PostgreSQL is up.",
                  store_up(processor->store) ? 1 : 0);
    metrics_count(metrics, "postern_database_connects_total", "Connections to PostgreSQL that came up.",
                  processor->tally.database_connects);
    metrics_count(metrics, "postern_database_losses_total", "Connections to PostgreSQL that were up and were lost.",
                  processor->tally.database_losses);
}

static uint16_t write_metrics(void *context, struct text *page)
{
    struct processor *const processor = context;
    struct metrics metrics = {.out = page};
    struct readiness readiness;
    find(processor, &readiness);
    const struct metrics_program program = {
        .name = "postern-processor",
        .start_wall_ms = processor->start_wall_ms,
        .arena_bytes = processor->arena_bytes,
        .is_ready = readiness_is_ready(&readiness),
        .log = &processor->log,
        .admin = &processor->admin,
        .turn_ns = &processor->tally.turn_ns,
        .receipts = processor->tally.receipts,
        .publish = processor->outgoing.link,
        .consume = processor->consumer.link,
    };
    metrics_program(&metrics, &program, processor->now_ms);
    write_rows(&metrics, &processor->tally);
    write_in_hand(&metrics, processor);
    write_database(&metrics, processor);
    return 200;
}

static const struct admin_page pages[] = {
    {.path = "/",
     .content_type = "text/plain; charset=utf-8",
     .constant = SPAN("postern-processor " POSTERN_VERSION "\n/healthz\n/readyz\n/metrics\n")},
    {.path = "/healthz", .content_type = "text/plain; charset=utf-8", .write = write_health},
    {.path = "/readyz", .content_type = "application/json", .write = write_readiness},
    {.path = "/metrics", .content_type = "text/plain; version=0.0.4; charset=utf-8", .write = write_metrics},
};

void processor_reports_init(struct processor *processor, struct arena *arena, uint64_t token)
{
    const struct admin_options options = {
        .port = processor->port,
        .log = &processor->log,
        .pages = pages,
        .page_count = sizeof pages / sizeof pages[0],
        .context = processor,
        .token = token,
    };
    tally_init(&processor->tally);
    admin_init(&processor->admin, arena, &options, processor->settings->admin_port > 0);
}
