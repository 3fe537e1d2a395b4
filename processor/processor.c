/* SPDX-License-Identifier: MIT */
/* One loop over the port's poller with three connections: one consumes, one publishes receipts and dead letters, one is
 * the database's. Deliveries gather in the intake while a batch is at the store; a batch is due when it is full or its
 * oldest message has waited long enough.
 *
 * When a batch is committed, its messages are acknowledged and its receipts published, in the same turn. The ack does
 * not wait for the receipts' confirms: when the broker is in an alarm it takes no publishes, and acks that waited for
 * them would keep the messages in the very memory it is short of. Instead the receipts are held until they are
 * confirmed and published again if need be, and they leave for the broker before the acks do, so that a processor that
 * dies here has rather sent a receipt twice than never. What remains: a broker that dies with a receipt unconfirmed
 * together with a processor that dies before it has sent it again. Then the client, which has seen `queued`, may send
 * the message again with its id and gets `stored`.
 *
 * When the database refuses a batch for its data, the batch is halved until the row is found: that one is
 * dead-lettered, the others are stored. It is halved too when the database does not get through with it in time.
 *
 * When the database is away, messages in hand are kept for a while, so that a restart of the database costs nothing;
 * the prefetch bounds them. Then the connection that consumes is closed, which gives them back to the queue, where
 * other processors find them, and made again when the database is there. */
#include "processor.h"

#include "arena.h"
#include "check.h"
#include "dead_letter.h"
#include "number.h"
#include "port.h"
#include "processor_reports.h"
#include "store.h"

enum {
    TOKEN_CONSUME = 1,
    TOKEN_PUBLISH,
    TOKEN_STORE,
    TOKEN_ADMIN, /* and those behind it */
    EVENTS_MAX = 16,
    GIVE_BACK_MS = 5000, /* the database is away for so long */
    STOP_MS = 4000,      /* what is in hand may take so long to finish; then the links have five seconds of their own */
    WAIT_MS_MAX = 60000
};

static struct delivery *delivery_at(struct processor *processor, uint64_t sequence)
{
    return intake_at(&processor->consumer.intake, sequence);
}

/* ---- What became of messages ---- */

static void tell(struct processor *processor, const struct delivery *delivery)
{
    const bool is_stored = delivery->state == DELIVERY_STORED;
    processor->tally.receipts[is_stored ? RECEIPT_STORED : RECEIPT_REJECTED]++;
    if (log_messages(&processor->log)) {
        log_event(&processor->log, LOG_INFO, is_stored ? "stored" : "rejected", LOG_SPAN("client", delivery->client_id),
                  LOG_SPAN("id", delivery->message_id));
    }
    struct receipt receipt = {.client_id = delivery->client_id,
                              .id = delivery->client_message_id,
                              .ref = delivery->correlation_id,
                              .status = is_stored ? RECEIPT_STORED : RECEIPT_REJECTED};
    if (!is_stored) {
        receipt.code = (struct span)SPAN("outside_hours");
        receipt.reason = (struct span)SPAN("outside_hours");
    }
    receipt_groups_add(&processor->receipts, delivery->reply_to, &receipt);
}

static void send_receipts(void *context, struct span reply_to, struct span body, size_t count)
{
    struct processor *const processor = context;
    outgoing_receipts(&processor->outgoing, reply_to, body, count);
}

/* A dead letter is safe with the broker: now its delivery can go, and the client can know. */
static bool on_dead(void *context, const struct outgoing_dead *dead)
{
    struct processor *const processor = context;
    if (dead->tag != 0 && !consumer_ack(&processor->consumer, dead->tag, processor->now_ms)) {
        return false;
    }
    processor->tally.receipts[RECEIPT_DEAD]++;
    if (dead->client_id.bytes == 0) {
        return true;
    }
    const struct receipt receipt = {.client_id = dead->client_id,
                                    .id = dead->id,
                                    .ref = dead->ref,
                                    .status = RECEIPT_DEAD,
                                    .code = span_text(dead->code),
                                    .reason = dead->reason};
    receipt_groups_add(&processor->receipts, dead->reply_to, &receipt);
    return true;
}

static bool hand_dead(struct processor *processor, struct delivery *delivery)
{
    struct amqp_header headers[DEAD_LETTER_HEADERS_MAX];
    struct amqp_publish letter;
    const int64_t wall_ms = processor->port->wall_ms(processor->port->context);
    dead_letter_make(delivery, (uint64_t)(wall_ms / 1000), &letter, headers);
    const struct span detail = span_of(delivery->detail, delivery->detail_bytes);
    const struct outgoing_dead dead = {.tag = delivery->tag,
                                       .client_id = delivery->client_id,
                                       .id = delivery->client_message_id,
                                       .ref = delivery->correlation_id,
                                       .reply_to = delivery->reply_to,
                                       .reason = detail,
                                       .code = delivery->code};
    if (!outgoing_dead_letter(&processor->outgoing, &letter, &dead)) {
        return false;
    }
    delivery_move(delivery, DELIVERY_HANDED);
    tally_dead(&processor->tally, delivery->code);
    log_event(&processor->log, LOG_WARN, "dead_letter", LOG_SPAN("client", delivery->client_id),
              LOG_SPAN("id", delivery->message_id), LOG_SPAN("message_id", delivery->property_id),
              LOG_TEXT("code", delivery->code), LOG_SPAN("reason", detail), LOG_U64("bytes", delivery->body_bytes),
              LOG_TEXT("queue", processor->dead_queue));
    return true;
}

static void hand_all_dead(struct processor *processor)
{
    if (!processor->has_dead && processor->consumer.dead_count == processor->handed_dead_count) {
        return;
    }
    const struct intake *const intake = &processor->consumer.intake;
    processor->has_dead = false;
    processor->handed_dead_count = processor->consumer.dead_count;
    for (uint64_t i = intake->first; i < intake->end; i++) {
        struct delivery *const delivery = delivery_at(processor, i);
        if (delivery->state == DELIVERY_DEAD && !hand_dead(processor, delivery)) {
            processor->has_dead = true; /* no room: again next turn */
            return;
        }
    }
}

/* ---- Batches ---- */

static void push_range(struct processor *processor, uint64_t from, uint64_t to)
{
    CHECK(processor->range_count < PROCESSOR_RANGES_MAX);
    processor->ranges[processor->range_count++] = (struct processor_range){from, to};
}

static uint64_t now_ns(const struct processor *processor)
{
    return processor->port->now_ns(processor->port->context);
}

static void count_stored(struct processor *processor, const struct store_result *result)
{
    struct tally *const tally = &processor->tally;
    const int64_t wall_ms = processor->port->wall_ms(processor->port->context);
    metrics_observe(&tally->batch_rows, processor->row_count);
    tally->rows_stored += result->inserted_count - result->inserted_rejected_count;
    tally->rows_rejected += result->inserted_rejected_count;
    tally->rows_repeated += processor->row_count - result->inserted_count;
    for (size_t i = 0; i < processor->row_count; i++) {
        const struct delivery *const delivery = delivery_at(processor, processor->rows[i]);
        if (delivery->has_received_at) {
            const int64_t lag_ms = wall_ms - delivery->received_unix_ms;
            metrics_observe(&tally->lag_ms, lag_ms > 0 ? (uint64_t)lag_ms : 0);
        }
    }
}

static void on_stored(struct processor *processor, const struct store_result *result)
{
    size_t rejected_index = 0;
    count_stored(processor, result);
    for (size_t i = 0; i < processor->row_count; i++) {
        struct delivery *const delivery = delivery_at(processor, processor->rows[i]);
        const bool is_rejected =
            rejected_index < result->rejected_count && result->rejected[rejected_index] == (uint32_t)i;
        rejected_index += is_rejected ? 1 : 0;
        delivery_move(delivery, is_rejected ? DELIVERY_REJECTED : DELIVERY_STORED);
        tell(processor, delivery);
    }
    log_event(&processor->log, LOG_DEBUG, "batch_stored", LOG_U64("rows", processor->row_count),
              LOG_U64("rejected", result->rejected_count),
              LOG_U64("ms", (now_ns(processor) - processor->submitted_ns) / 1000000));
}

/* The same again in two batches. */
static void halve(struct processor *processor)
{
    const uint64_t middle = processor->rows[processor->row_count / 2];
    push_range(processor, middle, processor->current.to);
    push_range(processor, processor->current.from, middle);
}

/* The row that is at fault, or two halves to find it. */
static void on_refused(struct processor *processor, const struct store_result *result)
{
    processor->tally.batches_refused++;
    if (processor->row_count > 1) {
        halve(processor);
        return;
    }
    struct delivery *const delivery = delivery_at(processor, processor->rows[0]);
    delivery_condemn(delivery, result->outcome == STORE_BAD_ROW ? "violates_constraint" : "bad_data",
                     span_text(result->message));
    processor->has_dead = true;
}

/* Those of the batch at the store whose channel is gone will come again: no more is done about them. */
static void drop_current(struct processor *processor)
{
    for (size_t i = 0; i < processor->row_count; i++) {
        delivery_move(delivery_at(processor, processor->rows[i]), DELIVERY_DROPPED);
    }
}

static void on_result(void *context, const struct store_result *result)
{
    struct processor *const processor = context;
    const bool is_stale = delivery_at(processor, processor->rows[0])->tag == 0;
    processor->store_down_ms = UINT64_MAX;
    metrics_observe(&processor->tally.insert_ns, now_ns(processor) - processor->submitted_ns);
    if (result->outcome == STORE_STORED) {
        on_stored(processor, result);
    } else if (is_stale) {
        drop_current(processor);
    } else if (result->outcome == STORE_TIMEOUT) {
        halve(processor); /* so that a database which is slow, but does something, gets it done */
    } else {
        on_refused(processor, result);
    }
    processor->row_count = 0;
}

/* Dead ones at a range's beginning may have left the intake before the range is looked at. */
static uint64_t present(const struct processor *processor, uint64_t sequence)
{
    const uint64_t first = processor->consumer.intake.first;
    return sequence > first ? sequence : first;
}

/* Sends the pending ones of the range, as many as fit. Returns where it ended. */
static uint64_t submit(struct processor *processor, struct processor_range range)
{
    store_begin(processor->store);
    processor->row_count = 0;
    uint64_t sequence = present(processor, range.from);
    for (; sequence < range.to && processor->row_count < processor->settings->processor_batch; sequence++) {
        const struct delivery *const delivery = delivery_at(processor, sequence);
        if (delivery->state != DELIVERY_PENDING) {
            continue;
        }
        const struct store_row row = {.client_id = delivery->client_id,
                                      .message_id = delivery->message_id,
                                      .type = delivery->type,
                                      .content = delivery->content,
                                      .gateway = delivery->gateway,
                                      .received_unix_ms = delivery->received_unix_ms,
                                      .has_received_at = delivery->has_received_at};
        if (!store_add(processor->store, &row)) {
            break;
        }
        processor->rows[processor->row_count++] = sequence;
    }
    processor->current = (struct processor_range){range.from, sequence};
    if (processor->row_count > 0) {
        processor->submitted_ns = now_ns(processor);
        store_submit(processor->store, processor->now_ms);
    }
    return sequence;
}

/* When what has gathered is due; UINT64_MAX: when more comes. */
static uint64_t batch_due_ms(struct processor *processor)
{
    const struct intake *const intake = &processor->consumer.intake;
    processor->next = present(processor, processor->next);
    if (processor->next == intake->end) {
        return UINT64_MAX;
    }
    const bool is_full = intake->end - processor->next >= processor->settings->processor_batch;
    if (is_full || processor->consumer.state != CONSUMER_ON || consumer_full(&processor->consumer)) {
        return processor->now_ms; /* waiting brings nothing more */
    }
    return delivery_at(processor, processor->next)->came_ms + processor->settings->processor_batch_ms;
}

static void feed_store(struct processor *processor)
{
    if (!store_up(processor->store)) {
        return;
    }
    while (store_idle(processor->store) && processor->range_count > 0) {
        const struct processor_range range = processor->ranges[--processor->range_count];
        CHECK(submit(processor, range) == range.to); /* a part of a batch fits where the batch did */
    }
    while (store_idle(processor->store) && batch_due_ms(processor) <= processor->now_ms) {
        processor->next = submit(processor, (struct processor_range){processor->next, processor->consumer.intake.end});
    }
}

/* ---- Trouble ---- */

static void on_up(void *context)
{
    struct processor *const processor = context;
    if (store_idle(processor->store)) {
        processor->store_down_ms = UINT64_MAX; /* else only the batch that waits can tell that it does its work */
    }
    processor->tally.database_connects++;
}

static void on_down(void *context)
{
    struct processor *const processor = context;
    if (processor->store_down_ms == UINT64_MAX) {
        processor->store_down_ms = processor->now_ms;
    }
    processor->tally.database_losses++;
}

static void on_lost(void *context)
{
    struct processor *const processor = context;
    processor->tags_lost = true;
}

/* The channel that delivered what is in the intake is gone, all of it will come again. Only the batch at the store is
 * kept, whose result still makes receipts. What came since is cut off with it: nothing can have come since, because
 * the turn ends before the new channel is open. */
static void drop_lost(struct processor *processor)
{
    if (!processor->tags_lost) {
        return;
    }
    struct intake *const intake = &processor->consumer.intake;
    processor->tags_lost = false;
    outgoing_forget_tags(&processor->outgoing);
    processor->range_count = 0;
    const uint64_t kept_to = store_idle(processor->store) ? intake->first : processor->current.to;
    intake_cut(intake, kept_to);
    for (uint64_t i = intake->first; i < intake->end; i++) {
        struct delivery *const delivery = delivery_at(processor, i);
        const bool is_at_store = i >= processor->current.from;
        if (delivery->state == DELIVERY_DEAD || (delivery->state == DELIVERY_PENDING && !is_at_store)) {
            delivery_move(delivery, DELIVERY_DROPPED);
        }
    }
    processor->next = intake->end;
}

/* The database has been away for long: its messages go back to the queue. */
static void give_back(struct processor *processor)
{
    const struct consumer *const consumer = &processor->consumer;
    const bool is_connected = consumer->state != CONSUMER_PARKED && consumer->state != CONSUMER_PARTING;
    if (store_up(processor->store) || !is_connected || processor->stopping ||
        processor->now_ms - processor->store_down_ms < GIVE_BACK_MS) {
        return;
    }
    log_event(&processor->log, LOG_INFO, "messages_given_back", LOG_U64("count", intake_count(&consumer->intake)),
              LOG_TEXT("cause", "the database is away"));
    if (!store_idle(processor->store)) {
        store_forget(processor->store);
        processor->row_count = 0;
    }
    consumer_part(&processor->consumer, processor->now_ms);
    /* A link that was down already has no loss to tell, and the batch that was at the store would stay. */
    on_lost(processor);
    drop_lost(processor);
}

/* ---- The loop ---- */

/* What is due at a time; returns the next such time. */
static uint64_t tick(struct processor *processor)
{
    const uint64_t now_ms = processor->now_ms;
    uint64_t due_ms = amqp_link_tick(processor->consumer.link, now_ms);
    due_ms = number_smaller(due_ms, amqp_link_tick(processor->outgoing.link, now_ms));
    due_ms = number_smaller(due_ms, admin_turn(&processor->admin, now_ms));
    return number_smaller(due_ms, store_tick(processor->store, now_ms));
}

/* While nothing flows they gather, but at the end there is no later. */
static void flush_receipts(struct processor *processor)
{
    if (outgoing_flows(&processor->outgoing) || processor->stopping) {
        receipt_groups_flush(&processor->receipts);
    }
}

/* Everything that follows from what has happened. */
static uint64_t turn(struct processor *processor)
{
    drop_lost(processor);
    give_back(processor);
    feed_store(processor);
    outgoing_settle(&processor->outgoing); /* first: it makes room for others, and receipts */
    hand_all_dead(processor);
    flush_receipts(processor);
    uint64_t due_ms = outgoing_send(&processor->outgoing, processor->now_ms);
    consumer_want(&processor->consumer, store_up(processor->store) && !processor->stopping);
    const uint64_t floor_tag = outgoing_lowest_tag(&processor->outgoing);
    due_ms = number_smaller(due_ms, consumer_turn(&processor->consumer, floor_tag, processor->now_ms));
    if (store_up(processor->store) && store_idle(processor->store)) {
        due_ms = number_smaller(due_ms, batch_due_ms(processor));
    }
    if (!store_up(processor->store) && processor->now_ms - processor->store_down_ms < GIVE_BACK_MS) {
        due_ms = number_smaller(due_ms, processor->store_down_ms + GIVE_BACK_MS);
    }
    return due_ms;
}

static void flush(struct processor *processor)
{
    amqp_link_flush(processor->outgoing.link, processor->now_ms); /* first: see above */
    amqp_link_flush(processor->consumer.link, processor->now_ms);
    log_flush(&processor->log);
}

static void read_clock(struct processor *processor)
{
    processor->turn_ns = now_ns(processor);
    processor->now_ms = processor->turn_ns / 1000000;
}

static void take_events(struct processor *processor, uint64_t due_ms)
{
    struct port *const port = processor->port;
    struct port_event events[EVENTS_MAX];
    const uint64_t now_ms = processor->now_ms;
    const uint64_t wait_ms = due_ms > now_ms ? number_smaller(due_ms - now_ms, WAIT_MS_MAX) : 0;
    metrics_observe(&processor->tally.turn_ns, now_ns(processor) - processor->turn_ns);
    const size_t count = port->wait(port->context, events, EVENTS_MAX, (int64_t)wait_ms);
    read_clock(processor);
    for (size_t i = 0; i < count; i++) {
        switch (events[i].token) {
        case TOKEN_CONSUME:
            consumer_on_event(&processor->consumer, events[i].ready, processor->now_ms);
            break;
        case TOKEN_PUBLISH:
            outgoing_on_event(&processor->outgoing, events[i].ready, processor->now_ms);
            break;
        case TOKEN_STORE:
            store_on_event(processor->store, processor->now_ms);
            break;
        default:
            admin_on_event(&processor->admin, events[i].token, processor->now_ms);
        }
    }
    const struct port_job *job;
    while ((job = port->finished_job(port->context)) != NULL) {
        const bool is_known = amqp_link_on_job(processor->consumer.link, job, processor->now_ms) ||
                              amqp_link_on_job(processor->outgoing.link, job, processor->now_ms) ||
                              store_on_job(processor->store, job, processor->now_ms);
        CHECK(is_known);
    }
}

/* Nothing is in hand that could still be finished. */
static bool is_drained(struct processor *processor)
{
    const bool is_undecided = intake_count(&processor->consumer.intake) > 0 && store_up(processor->store);
    return !is_undecided && outgoing_count(&processor->outgoing) == 0;
}

static void begin_closing(struct processor *processor)
{
    const uint64_t unpublished_count = outgoing_count(&processor->outgoing);
    if (!is_drained(processor)) {
        log_event(&processor->log, LOG_WARN, "drain_cut_short",
                  LOG_U64("left_in_queue", intake_count(&processor->consumer.intake)),
                  LOG_U64("unpublished", unpublished_count));
    }
    processor->closing = true;
    store_close(processor->store);
    consumer_part(&processor->consumer, processor->now_ms);
    amqp_link_close(processor->outgoing.link, processor->now_ms);
}

static bool is_closed(const struct processor *processor)
{
    return amqp_link_state(processor->consumer.link) == AMQP_LINK_DOWN &&
           amqp_link_state(processor->outgoing.link) == AMQP_LINK_DOWN;
}

/* Until when to wait for events. Asked last of all: a turn, a signal and a flush each start, close or lose
 * connections, whose times are not those of before. What the flush lost has no event to come, so it is at once. */
static uint64_t wait_until_ms(struct processor *processor, uint64_t due_ms)
{
    due_ms = number_smaller(due_ms, tick(processor));
    const bool is_pressing = processor->closing ? is_closed(processor) : processor->tags_lost;
    return is_pressing ? processor->now_ms : due_ms;
}

enum turned { TURN_ON, TURN_DRAINED, TURN_CUT_SHORT };

/* Signals, and the steps of stopping. */
static enum turned heed_signals(struct processor *processor, uint64_t *due_ms)
{
    const uint32_t signals = processor->port->signals(processor->port->context);
    if ((signals & PORT_SIGNAL_REOPEN) != 0) {
        log_reopen(&processor->log);
    }
    if ((signals & PORT_SIGNAL_STOP) != 0) {
        if (processor->stopping) {
            return TURN_CUT_SHORT;
        }
        log_event(&processor->log, LOG_INFO, "stopping", LOG_U64("in_hand", intake_count(&processor->consumer.intake)));
        processor->stopping = true;
        processor->stop_due_ms = processor->now_ms + STOP_MS;
        consumer_finish(&processor->consumer);
        *due_ms = processor->now_ms; /* one more turn at once, which sends what has gathered */
        return TURN_ON;
    }
    if (!processor->stopping) {
        return TURN_ON;
    }
    if (!processor->closing) {
        /* Once all is finished no ack is added, so that their time comes. */
        const uint64_t taken_ms = consumer_acks_taken_ms(&processor->consumer);
        const uint64_t close_ms = is_drained(processor) ? taken_ms : processor->stop_due_ms;
        *due_ms = number_smaller(*due_ms, close_ms);
        if (processor->now_ms >= close_ms) {
            begin_closing(processor);
        }
    }
    if (processor->closing && is_closed(processor)) {
        return TURN_DRAINED;
    }
    return TURN_ON;
}

enum program_exit processor_run(struct processor *processor)
{
    read_clock(processor);
    log_event(&processor->log, LOG_INFO, "started", LOG_TEXT("version", POSTERN_VERSION),
              LOG_TEXT("queue", processor->settings->processor_queue), LOG_TEXT("instance", processor->instance));
    processor->store_down_ms = processor->now_ms;
    store_start(processor->store, processor->now_ms);
    consumer_start(&processor->consumer, processor->now_ms);
    amqp_link_start(processor->outgoing.link, processor->now_ms);
    for (;;) {
        (void)tick(processor);
        uint64_t due_ms = processor->closing ? UINT64_MAX : turn(processor);
        switch (heed_signals(processor, &due_ms)) {
        case TURN_ON:
            flush(processor);
            take_events(processor, wait_until_ms(processor, due_ms));
            break;
        case TURN_DRAINED:
            log_event(&processor->log, LOG_INFO, "stopped");
            return PROGRAM_EXIT_OK;
        case TURN_CUT_SHORT:
            log_event(&processor->log, LOG_WARN, "stopped_at_once");
            log_flush(&processor->log);
            return PROGRAM_EXIT_FAILED;
        }
    }
}

bool processor_listen(struct processor *processor, char *error, size_t error_bytes)
{
    struct port *const port = processor->port;
    const struct settings *const settings = processor->settings;
    struct port_address address;
    char text[PORT_ADDRESS_TEXT_BYTES];
    if (settings->admin_port == 0) {
        return true;
    }
    CHECK(port->parse_address(port->context, settings->admin_address, (uint16_t)settings->admin_port, &address));
    if (!admin_listen(&processor->admin, &address)) {
        (void)snprintf(error, error_bytes,
                       "PROCESSOR_ADMIN_PORT=%u (PROCESSOR_ADMIN_ADDRESS=%s): cannot listen: %s; see that the address "
                       "is this machine's and that nothing else has the port",
                       (unsigned)settings->admin_port, settings->admin_address, port->error_text(port->context));
        return false;
    }
    port->format_address(port->context, &address, text);
    log_event(&processor->log, LOG_INFO, "admin_listening", LOG_TEXT("address", text));
    return true;
}

void processor_release(struct processor *processor)
{
    admin_close(&processor->admin);
    amqp_link_release(processor->consumer.link);
    amqp_link_release(processor->outgoing.link);
    log_close(&processor->log);
}

/* ---- The start ---- */

bool processor_check(const struct settings *settings, char *error, size_t error_bytes)
{
    char reason[STORE_URL_ERROR_BYTES];
    struct amqp_brokers brokers;
    const enum amqp_url_error url_error = amqp_url_parse(span_text(settings->rabbitmq_url), &brokers, NULL);
    if (url_error != AMQP_URL_OK) {
        (void)snprintf(error, error_bytes, "RABBITMQ_URL: %s", amqp_url_error_text(url_error));
    } else if (!store_url_valid(settings->database_url, reason, sizeof reason)) {
        (void)snprintf(error, error_bytes, "DATABASE_URL: %s", reason);
    } else if (strlen(settings->processor_queue) + PROCESSOR_DEAD_SUFFIX_BYTES > QUEUE_NAME_BYTES_MAX) {
        (void)snprintf(error, error_bytes, "PROCESSOR_QUEUE is too long: with .dead behind it, it must fit %d bytes",
                       QUEUE_NAME_BYTES_MAX);
    } else {
        return true;
    }
    return false;
}

static const char *queue_type(const struct settings *settings)
{
    return settings->queue_type == SETTINGS_QUEUE_QUORUM ? "quorum" : "classic";
}

static size_t intake_bytes(const struct settings *settings)
{
    const size_t usual = (size_t)settings->processor_prefetch * PROCESSOR_MESSAGE_BYTES_USUAL;
    const size_t least = 4 * intake_bytes_min(PROCESSOR_BODY_BYTES_MAX);
    const size_t bounded = usual < PROCESSOR_INTAKE_BYTES_MAX ? usual : PROCESSOR_INTAKE_BYTES_MAX;
    return bounded > least ? bounded : least;
}

/* Names that tell this start of this processor from all others. */
static void make_names(struct processor *processor)
{
    char host[64];
    uint64_t random;
    processor->port->host_name(processor->port->context, host, sizeof host);
    processor->port->random(processor->port->context, &random, sizeof random);
    (void)snprintf(processor->id_prefix, sizeof processor->id_prefix, "made-%016llx-", (unsigned long long)random);
    (void)snprintf(processor->instance, sizeof processor->instance, "%s-%04x", host, (unsigned)(random & 0xffff));
    (void)snprintf(processor->dead_queue, sizeof processor->dead_queue, "%s.dead",
                   processor->settings->processor_queue);
}

static void init_store(struct processor *processor, struct arena *arena)
{
    static const struct store_handler handler = {.on_up = on_up, .on_down = on_down, .on_result = on_result};
    const struct store_options options = {.url = processor->settings->database_url,
                                          .token = TOKEN_STORE,
                                          .row_count_max = processor->settings->processor_batch,
                                          .content_bytes_max = PROCESSOR_BATCH_BYTES};
    processor->store = store_init(arena, processor->port, &processor->log, &options, &handler, processor);
    processor->rows = arena_take(arena, "batch", processor->settings->processor_batch, sizeof *processor->rows);
}

static void init_consumer(struct processor *processor, struct arena *arena)
{
    const struct settings *const settings = processor->settings;
    struct consumer_options options = {.instance = processor->instance,
                                       .brokers = &processor->brokers,
                                       .heartbeat_s = settings->amqp_heartbeat_s,
                                       .token = TOKEN_CONSUME,
                                       .queue = span_text(settings->processor_queue),
                                       .queue_type = queue_type(settings),
                                       .prefetch = (uint16_t)settings->processor_prefetch,
                                       .body_bytes_max = PROCESSOR_BODY_BYTES_MAX,
                                       .intake_bytes = intake_bytes(settings),
                                       .id_prefix = span_text(processor->id_prefix)};
    processor->port->random(processor->port->context, &options.hash_key, sizeof options.hash_key);
    const struct consumer_handler handler = {on_lost, processor};
    consumer_init(&processor->consumer, arena, processor->port, &processor->log, &options, &handler);
}

static void init_outgoing(struct processor *processor, struct arena *arena)
{
    const struct settings *const settings = processor->settings;
    const struct outgoing_options options = {.instance = processor->instance,
                                             .brokers = &processor->brokers,
                                             .heartbeat_s = settings->amqp_heartbeat_s,
                                             .token = TOKEN_PUBLISH,
                                             .dead_queue = span_text(processor->dead_queue),
                                             .queue_type = queue_type(settings),
                                             .message_bytes_max = intake_bytes_min(PROCESSOR_BODY_BYTES_MAX)};
    const struct outgoing_handler handler = {on_dead, processor};
    outgoing_init(&processor->outgoing, arena, processor->port, &processor->log, &options, &handler);
}

void processor_init(struct processor *processor, struct arena *arena, struct port *port,
                    const struct settings *settings)
{
    *processor = (struct processor){.port = port, .settings = settings, .start_wall_ms = port->wall_ms(port->context)};
    const enum amqp_url_error error = amqp_url_parse(span_text(settings->rabbitmq_url), &processor->brokers, NULL);
    CHECK(error == AMQP_URL_OK); /* processor_check said so */
    make_names(processor);
    const struct log_options log_options = {.path = settings->log_file,
                                            .level = settings->log_level,
                                            .file_bytes_max = settings->log_max_bytes,
                                            .file_count = settings->log_files,
                                            .copy_stdout = settings->log_stdout,
                                            .messages = settings->log_messages};
    log_open(&processor->log, port, arena, &log_options);
    init_store(processor, arena);
    init_consumer(processor, arena);
    init_outgoing(processor, arena);
    receipt_groups_init(&processor->receipts, arena, send_receipts, processor);
    processor_reports_init(processor, arena, TOKEN_ADMIN);
    processor->arena_bytes = arena->used_bytes;
}
