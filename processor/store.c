/* SPDX-License-Identifier: MIT */
/* The store's life: finding the database, preparing the statements, a batch's way, and what each failure means. The
 * connection itself is store_postgres.
 *
 * A batch is one statement, and so one transaction: INSERT ... SELECT FROM unnest of binary arrays, joined with
 * message_types, ON CONFLICT DO NOTHING; in the batch's order, which the join by itself does not keep, so that `id`
 * follows the order of each client's messages. A type's window is held against the time at which the gateway took the
 * message, in the session's TimeZone (what a cast to time does): an outage that delays a message does not make it late.
 * It answers with two numbers, how many rows it inserted and how many of
 * those as `rejected`. Nearly always the first is the batch's size and the second is zero, and all is said. Otherwise
 * a second statement reads which rows of the batch stand as `rejected`. It has to be a statement of its own: a row
 * that another processor committed while ours ran makes our insert skip it, but is not in our insert's snapshot.
 *
 * `./dev bench --only statements` measures other ways, with 500 rows a batch. COPY into a temporary table and INSERT
 * SELECT from there is about as fast as unnest, and takes three round trips. More batches at the database at once store
 * more where cores are free, but on several connections a client's messages would lose their order, and behind one
 * another on one connection (a fifth more) a batch that is refused or undecided takes those behind it along. So: one
 * batch at the database while the next one gathers; who needs more runs several processors. */
#include "store.h"

#include "arena.h"
#include "backoff.h"
#include "check.h"
#include "column.h"
#include "log.h"
#include "port.h"
#include "repeats.h"
#include "store_postgres.h"
#include "store_target.h"
#include "text.h"

enum {
    BACKOFF_BASE_MS = 100,
    BACKOFF_MAX_MS = 5000,
    CONNECT_MS = 10000,   /* for one address, TCP, TLS and login together */
    STATEMENT_MS = 20000, /* the server gives a statement up after this */
    ANSWER_MS = 30000,    /* and we the server */
    REMIND_MS = 30000,    /* how often a cause that stays the same is logged again */
    COLUMN_COUNT = 6,
    INSERT_NUMBERS = 2,
    SHORT_TEXT_BYTES = 256 /* the longest of the texts beside the content: an AMQP short string */
};

static const char setup_sql[] = "SET statement_timeout = 20000";
_Static_assert(STATEMENT_MS == 20000 && ANSWER_MS > STATEMENT_MS, "the server gives up first");

static const char insert_sql[] =
    "WITH inserted AS ("
    "INSERT INTO messages (client_id, message_id, type, content, gateway, received_at, status) "
    "SELECT b.client_id, b.message_id, b.type, b.content, b.gateway, b.received_at, "
    "CASE WHEN t.type IS NULL THEN 'stored' "
    "WHEN t.accepts_from <= t.accepts_until AND c.clock >= t.accepts_from AND c.clock < t.accepts_until THEN 'stored' "
    "WHEN t.accepts_from > t.accepts_until AND (c.clock >= t.accepts_from OR c.clock < t.accepts_until) THEN 'stored' "
    "ELSE 'rejected' END "
    "FROM unnest($1::text[], $2::text[], $3::text[], $4::jsonb[], $5::text[], $6::timestamptz[]) WITH ORDINALITY "
    "AS b (client_id, message_id, type, content, gateway, received_at, ordinal) "
    "CROSS JOIN LATERAL (SELECT coalesce(b.received_at, now())::time) AS c (clock) "
    "LEFT JOIN message_types t ON t.type = b.type "
    "ORDER BY b.ordinal "
    "ON CONFLICT (client_id, message_id) DO NOTHING RETURNING status) "
    "SELECT count(*), count(*) FILTER (WHERE status = 'rejected') FROM inserted";

static const char lookup_sql[] =
    "SELECT b.ordinal FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS b (client_id, message_id, ordinal) "
    "JOIN messages m ON m.client_id = b.client_id AND m.message_id = b.message_id "
    "WHERE m.status = 'rejected' ORDER BY b.ordinal";

static const uint32_t column_types[COLUMN_COUNT] = {COLUMN_TEXT_ARRAY,  COLUMN_TEXT_ARRAY, COLUMN_TEXT_ARRAY,
                                                    COLUMN_JSONB_ARRAY, COLUMN_TEXT_ARRAY, COLUMN_TIMESTAMPTZ_ARRAY};
static const uint32_t element_types[COLUMN_COUNT] = {COLUMN_TEXT,  COLUMN_TEXT, COLUMN_TEXT,
                                                     COLUMN_JSONB, COLUMN_TEXT, COLUMN_TIMESTAMPTZ};
enum { CLIENT_ID, MESSAGE_ID, TYPE, CONTENT, GATEWAY, RECEIVED_AT, LOOKUP_COLUMN_COUNT = TYPE };

enum state {
    STATE_CLOSED,     /* not started, or ended for good */
    STATE_WAITING,    /* until the backoff ends */
    STATE_RESOLVING,  /* a host's name, on the worker */
    STATE_CONNECTING, /* one address of it */
    STATE_SETTING,    /* SET sent */
    STATE_PREPARING,  /* PREPARE of the insert sent */
    STATE_PREPARING_LOOKUP,
    STATE_READY,      /* no statement out */
    STATE_INSERTING,  /* a batch sent */
    STATE_LOOKING_UP, /* it is committed; which of its rows are rejected? */
    STATE_PAUSED,     /* connected; the batch is sent again after the backoff */
    STATE_COUNT
};

#define TO(state) (UINT32_C(1) << (state))
static const uint32_t moves[STATE_COUNT] = {
    [STATE_CLOSED] = TO(STATE_RESOLVING),
    [STATE_WAITING] = TO(STATE_RESOLVING) | TO(STATE_CLOSED),
    [STATE_RESOLVING] = TO(STATE_CONNECTING) | TO(STATE_WAITING) | TO(STATE_CLOSED),
    [STATE_CONNECTING] = TO(STATE_SETTING) | TO(STATE_RESOLVING) | TO(STATE_WAITING) | TO(STATE_CLOSED),
    [STATE_SETTING] = TO(STATE_PREPARING) | TO(STATE_WAITING) | TO(STATE_CLOSED),
    [STATE_PREPARING] = TO(STATE_PREPARING_LOOKUP) | TO(STATE_WAITING) | TO(STATE_CLOSED),
    [STATE_PREPARING_LOOKUP] = TO(STATE_READY) | TO(STATE_WAITING) | TO(STATE_CLOSED),
    [STATE_READY] = TO(STATE_INSERTING) | TO(STATE_WAITING) | TO(STATE_CLOSED),
    [STATE_INSERTING] =
        TO(STATE_READY) | TO(STATE_LOOKING_UP) | TO(STATE_PAUSED) | TO(STATE_WAITING) | TO(STATE_CLOSED),
    [STATE_LOOKING_UP] = TO(STATE_READY) | TO(STATE_PAUSED) | TO(STATE_WAITING) | TO(STATE_CLOSED),
    [STATE_PAUSED] = TO(STATE_INSERTING) | TO(STATE_WAITING) | TO(STATE_CLOSED),
};

/* The states with a connection that has been prepared. */
static const uint32_t up_states = TO(STATE_READY) | TO(STATE_INSERTING) | TO(STATE_LOOKING_UP) | TO(STATE_PAUSED);

struct store {
    struct port *port;
    struct log *log;
    struct store_options options;
    struct store_handler handler;
    void *context;

    enum state state;
    uint64_t now_ms; /* of the running entry */
    uint64_t due_ms; /* of the state: its deadline, or its end */
    struct backoff backoff;
    struct store_target target;
    struct port_job resolve_job; /* while it is out, the target is the worker's */
    struct store_postgres postgres;

    struct column columns[COLUMN_COUNT];
    size_t row_count;
    bool has_batch; /* submitted and undecided */
    uint32_t *rejected;
    size_t rejected_count;
    size_t inserted_count;
    size_t inserted_rejected_count;

    char logged_cause[STORE_CAUSE_BYTES]; /* what the log was last told */
    uint64_t logged_ms;
    bool was_unreachable; /* and the log knows */
    struct repeats told;  /* losses of a connection and failed attempts, since a batch was last stored */
};

static void move(struct store *store, enum state to)
{
    CHECK((moves[store->state] & TO(to)) != 0);
    store->state = to;
}

bool store_up(const struct store *store)
{
    return (up_states & TO(store->state)) != 0;
}

bool store_idle(const struct store *store)
{
    return !store->has_batch;
}

bool store_url_valid(const char *url, char *error, size_t error_bytes)
{
    struct store_target target;
    return store_postgres_read_url(url, &target, error, error_bytes);
}

struct store *store_init(struct arena *arena, struct port *port, struct log *log, const struct store_options *options,
                         const struct store_handler *handler, void *context)
{
    const size_t row_count_max = options->row_count_max;
    const size_t number_max = row_count_max > INSERT_NUMBERS ? row_count_max : INSERT_NUMBERS;
    const size_t short_bytes = COLUMN_HEADER_BYTES + row_count_max * (COLUMN_ELEMENT_BYTES + SHORT_TEXT_BYTES);
    const size_t content_bytes =
        COLUMN_HEADER_BYTES + options->content_bytes_max + row_count_max * (COLUMN_ELEMENT_BYTES + COLUMN_JSONB_BYTES);
    struct store *const store = arena_take(arena, "store", 1, sizeof *store);
    uint32_t *const rejected = arena_take(arena, "store: rejected rows", row_count_max, sizeof *rejected);
    uint64_t *const numbers = arena_take(arena, "store: answers", number_max, sizeof *numbers);
    struct column columns[COLUMN_COUNT];
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        column_init(&columns[i], arena, i == CONTENT ? "store: contents" : "store: columns",
                    i == CONTENT ? content_bytes : short_bytes, element_types[i]);
    }
    if (arena_measuring(arena)) {
        return NULL;
    }
    *store = (struct store){.port = port,
                            .log = log,
                            .options = *options,
                            .handler = *handler,
                            .context = context,
                            .due_ms = UINT64_MAX,
                            .rejected = rejected};
    memcpy(store->columns, columns, sizeof columns);
    backoff_init(&store->backoff, BACKOFF_BASE_MS, BACKOFF_MAX_MS);
    store_postgres_init(&store->postgres, port, options->token, numbers, number_max);
    char error[STORE_URL_ERROR_BYTES];
    CHECK(store_postgres_read_url(options->url, &store->target, error, sizeof error)); /* store_url_valid said so */
    return store;
}

/* ---- Connecting ---- */

static uint32_t backoff_ms(struct store *store)
{
    uint64_t random;
    store->port->random(store->port->context, &random, sizeof random);
    return backoff_next_ms(&store->backoff, random);
}

static bool is_schema_missing(const struct store *store)
{
    return store->postgres.failed && store->postgres.kind == SQLSTATE_SCHEMA;
}

static void remember_logged(struct store *store)
{
    memcpy(store->logged_cause, store->postgres.cause, sizeof store->logged_cause);
    store->logged_ms = store->now_ms;
    store->was_unreachable = true;
}

static const char *remedy(const struct store *store)
{
    return store->postgres.failed
               ? "the user of DATABASE_URL needs SELECT and INSERT on messages and SELECT on message_types (GRANT), on "
                 "a "
                 "server that is no standby and has free disk"
               : "see that PostgreSQL runs there; check DATABASE_URL: host, port, user, password, database";
}

static void log_unreachable(struct store *store)
{
    const char *const cause = store->postgres.cause;
    if (strcmp(cause, store->logged_cause) == 0 && store->now_ms - store->logged_ms < REMIND_MS) {
        return;
    }
    remember_logged(store);
    if (is_schema_missing(store)) {
        log_event(store->log, LOG_ERROR, "database_not_migrated", LOG_TEXT("cause", cause),
                  LOG_TEXT("remedy", "alembic upgrade head"));
    } else {
        log_event(store->log, LOG_WARN, "database_unreachable", LOG_TEXT("cause", cause),
                  LOG_TEXT("remedy", remedy(store)));
    }
}

static void wait_again(struct store *store)
{
    move(store, STATE_WAITING);
    store->due_ms = store->now_ms + backoff_ms(store);
}

static void resolve_on_worker(struct port_job *job)
{
    struct store *const store = job->context;
    store_target_resolve(&store->target, store->port);
}

/* What is not the connection's doing. */
static void set_cause(struct store *store, const char *first, const char *second)
{
    struct text cause = text_in(store->postgres.cause, sizeof store->postgres.cause - 1);
    text_string(&cause, first);
    text_string(&cause, second);
    store->postgres.cause[cause.used_bytes] = '\0';
    store->postgres.failed = false;
}

static void connect_address(struct store *store);

/* The present host; when all were tried, the wait before the next round. */
static void connect_host(struct store *store)
{
    const struct store_host *const host = store_target_host(&store->target);
    if (host == NULL) {
        wait_again(store);
        return;
    }
    if (store->state != STATE_RESOLVING) {
        move(store, STATE_RESOLVING);
    }
    store->due_ms = UINT64_MAX;
    if (host->by_libpq) {
        store_target_resolve(&store->target, store->port);
        connect_address(store);
        return;
    }
    store->resolve_job = (struct port_job){.run = resolve_on_worker, .context = store, .lane = PORT_LANE_NAMES};
    if (!store->port->submit_job(store->port->context, &store->resolve_job)) {
        set_cause(store, "the worker has too many jobs", "");
        wait_again(store);
    }
}

/* The connection came to nothing: log why, and on to the next address, host, or round. */
static void connect_failed(struct store *store)
{
    store_postgres_close(&store->postgres);
    log_unreachable(store);
    if (store_target_next(&store->target)) {
        connect_address(store);
    } else {
        connect_host(store);
    }
}

static void connect_address(struct store *store)
{
    if (store->state != STATE_CONNECTING) {
        move(store, STATE_CONNECTING);
    }
    store->due_ms = store->now_ms + CONNECT_MS;
    if (!store_postgres_connect(&store->postgres, store->options.url, &store->target)) {
        connect_failed(store);
    }
}

/* ---- Statements ---- */

/* A server that takes connections and refuses every batch is told of ever less, and its coming back with it. */
static void log_down(struct store *store)
{
    const uint32_t times = repeats_due(&store->told, "down", 0, span_text(store->postgres.cause));
    if (times > 0) {
        log_event(store->log, LOG_WARN, "database_down", LOG_TEXT("cause", store->postgres.cause),
                  LOG_TEXT("remedy", remedy(store)), LOG_U64("times", times));
        remember_logged(store);
    }
}

/* An established connection is of no use any more. */
static void lose(struct store *store)
{
    const bool was_up = store_up(store);
    store_postgres_close(&store->postgres);
    if (was_up && !is_schema_missing(store)) {
        log_down(store);
    } else {
        log_unreachable(store);
    }
    wait_again(store);
    if (was_up) {
        store->handler.on_down(store->context);
    }
}

/* After a call that began a statement. */
static void started(struct store *store, bool is_sent, enum state next)
{
    if (!is_sent) {
        lose(store);
        return;
    }
    move(store, next);
    store->due_ms = store->now_ms + ANSWER_MS;
}

static void send_batch(struct store *store)
{
    store->rejected_count = 0;
    started(store, store_postgres_execute(&store->postgres, "insert", store->columns, COLUMN_COUNT), STATE_INSERTING);
}

static void become_ready(struct store *store)
{
    move(store, STATE_READY);
    store->due_ms = UINT64_MAX;
}

static void go_up(struct store *store)
{
    become_ready(store);
    if (store->was_unreachable || store->logged_ms == 0) {
        log_event(store->log, LOG_INFO, "database_up", LOG_TEXT("host", store_postgres_host(&store->postgres)),
                  LOG_TEXT("port", store_postgres_port(&store->postgres)),
                  LOG_TEXT("database", store_postgres_database(&store->postgres)));
    }
    store->was_unreachable = false;
    store->logged_cause[0] = '\0';
    store->logged_ms = store->now_ms;
    store->handler.on_up(store->context);
    if (store->has_batch) {
        send_batch(store);
    }
}

static void decide(struct store *store, enum store_outcome outcome)
{
    become_ready(store);
    store->has_batch = false;
    backoff_reset(&store->backoff);
    if (outcome == STORE_STORED) {
        store->told = (struct repeats){.next = 0};
    }
    const struct store_result result = {.outcome = outcome,
                                        .rejected = store->rejected,
                                        .rejected_count = store->rejected_count,
                                        .inserted_count = store->inserted_count,
                                        .inserted_rejected_count = store->inserted_rejected_count,
                                        .message = store->postgres.cause};
    store->handler.on_result(store->context, &result);
}

/* The same may pass in a moment; what took too long, in smaller parts. */
static void attempt_failed(struct store *store)
{
    const uint32_t times = repeats_due(&store->told, "busy", 0, span_text(store->postgres.cause));
    if (times > 0) {
        log_event(store->log, LOG_WARN, "database_busy", LOG_TEXT("cause", store->postgres.cause),
                  LOG_TEXT("remedy", "the batch is tried again by itself; if this goes on, see who holds the lock, or "
                                     "what makes the database slow"),
                  LOG_U64("times", times));
    }
    if (store->postgres.kind == SQLSTATE_TIMEOUT && store->row_count > 1) {
        decide(store, STORE_TIMEOUT);
        return;
    }
    move(store, STATE_PAUSED);
    store->due_ms = store->now_ms + backoff_ms(store);
}

static void insert_done(struct store *store)
{
    const struct store_postgres *const postgres = &store->postgres;
    if (!postgres->failed) {
        CHECK(postgres->number_count == INSERT_NUMBERS);
        store->inserted_count += (size_t)postgres->numbers[0];
        store->inserted_rejected_count += (size_t)postgres->numbers[1];
        const bool all_inserted = postgres->numbers[0] == store->row_count && postgres->numbers[1] == 0;
        if (all_inserted) {
            decide(store, STORE_STORED);
        } else {
            started(store, store_postgres_execute(&store->postgres, "lookup", store->columns, LOOKUP_COLUMN_COUNT),
                    STATE_LOOKING_UP);
        }
        return;
    }
    switch (postgres->kind) {
    case SQLSTATE_DATA:
        decide(store, STORE_BAD_DATA);
        break;
    case SQLSTATE_CONSTRAINT:
        decide(store, STORE_BAD_ROW);
        break;
    case SQLSTATE_CONTENTION:
    case SQLSTATE_TIMEOUT:
        attempt_failed(store);
        break;
    case SQLSTATE_SCHEMA:
    case SQLSTATE_OTHER:
        lose(store);
        break;
    }
}

static void lookup_done(struct store *store)
{
    const struct store_postgres *const postgres = &store->postgres;
    if (!postgres->failed) {
        for (size_t i = 0; i < postgres->number_count; i++) {
            store->rejected[store->rejected_count++] = (uint32_t)(postgres->numbers[i] - 1); /* ordinals start at 1 */
        }
        decide(store, STORE_STORED);
    } else if (postgres->kind == SQLSTATE_CONTENTION || postgres->kind == SQLSTATE_TIMEOUT) {
        attempt_failed(store);
    } else {
        lose(store); /* the rows are stored: whatever is wrong, it is not they */
    }
}

/* The running statement is answered whole. */
static void on_answer(struct store *store)
{
    struct store_postgres *const postgres = &store->postgres;
    switch (store->state) {
    case STATE_SETTING:
    case STATE_PREPARING:
    case STATE_PREPARING_LOOKUP:
        if (postgres->failed) {
            lose(store);
        } else if (store->state == STATE_SETTING) {
            started(store, store_postgres_prepare(postgres, "insert", insert_sql, column_types, COLUMN_COUNT),
                    STATE_PREPARING);
        } else if (store->state == STATE_PREPARING) {
            started(store, store_postgres_prepare(postgres, "lookup", lookup_sql, column_types, LOOKUP_COLUMN_COUNT),
                    STATE_PREPARING_LOOKUP);
        } else {
            go_up(store);
        }
        break;
    case STATE_INSERTING:
        insert_done(store);
        break;
    case STATE_LOOKING_UP:
        lookup_done(store);
        break;
    case STATE_CLOSED:
    case STATE_WAITING:
    case STATE_RESOLVING:
    case STATE_CONNECTING:
    case STATE_READY:
    case STATE_PAUSED:
    case STATE_COUNT:
        CHECK(false);
    }
}

/* ---- The face ---- */

void store_start(struct store *store, uint64_t now_ms)
{
    store->now_ms = now_ms;
    store_target_rewind(&store->target);
    connect_host(store);
}

void store_on_event(struct store *store, uint64_t now_ms)
{
    store->now_ms = now_ms;
    if (store->postgres.connection == NULL) {
        return; /* an event that was reported with the one that ended the connection */
    }
    switch (store_postgres_on_event(&store->postgres)) {
    case STORE_POSTGRES_NOTHING:
        break;
    case STORE_POSTGRES_CONNECTED:
        started(store, store_postgres_run(&store->postgres, setup_sql), STATE_SETTING);
        break;
    case STORE_POSTGRES_ANSWERED:
        on_answer(store);
        break;
    case STORE_POSTGRES_LOST:
        if (store->state == STATE_CONNECTING) {
            connect_failed(store);
        } else {
            lose(store);
        }
        break;
    }
}

bool store_on_job(struct store *store, const struct port_job *job, uint64_t now_ms)
{
    if (job != &store->resolve_job) {
        return false;
    }
    store->now_ms = now_ms;
    if (store->state != STATE_RESOLVING) {
        return true; /* closed meanwhile */
    }
    if (store->target.address_count > 0) {
        connect_address(store);
        return true;
    }
    char host[STORE_HOST_BYTES_MAX + sizeof ": "];
    (void)snprintf(host, sizeof host, "%s: ", store_target_host(&store->target)->name);
    set_cause(store, host, store->target.error);
    connect_failed(store);
    return true;
}

static void on_due(struct store *store)
{
    switch (store->state) {
    case STATE_WAITING:
        store_target_rewind(&store->target);
        connect_host(store);
        break;
    case STATE_CONNECTING:
        set_cause(store, "no answer to the connect", "");
        connect_failed(store);
        break;
    case STATE_SETTING:
    case STATE_PREPARING:
    case STATE_PREPARING_LOOKUP:
    case STATE_INSERTING:
    case STATE_LOOKING_UP:
        set_cause(store, "no answer to a statement", "");
        lose(store);
        break;
    case STATE_PAUSED:
        send_batch(store);
        break;
    case STATE_CLOSED:
    case STATE_RESOLVING:
    case STATE_READY:
    case STATE_COUNT:
        CHECK(false);
    }
}

uint64_t store_tick(struct store *store, uint64_t now_ms)
{
    store->now_ms = now_ms;
    if (now_ms >= store->due_ms) {
        on_due(store);
    }
    return store->due_ms;
}

void store_close(struct store *store)
{
    if (store->state == STATE_CLOSED) {
        return;
    }
    store_postgres_close(&store->postgres);
    move(store, STATE_CLOSED);
    store->due_ms = UINT64_MAX;
}

void store_begin(struct store *store)
{
    CHECK(!store->has_batch);
    store->row_count = 0;
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        column_begin(&store->columns[i]);
    }
}

bool store_add(struct store *store, const struct store_row *row)
{
    CHECK(!store->has_batch && store->row_count < store->options.row_count_max);
    if (!column_add_jsonb(&store->columns[CONTENT], row->content)) {
        return false;
    }
    struct column *const columns = store->columns;
    const bool added = column_add_text(&columns[CLIENT_ID], row->client_id) &&
                       column_add_text(&columns[MESSAGE_ID], row->message_id) &&
                       column_add_text(&columns[TYPE], row->type) &&
                       (row->gateway.bytes > 0 ? column_add_text(&columns[GATEWAY], row->gateway)
                                               : column_add_null(&columns[GATEWAY])) &&
                       (row->has_received_at ? column_add_time(&columns[RECEIVED_AT], row->received_unix_ms)
                                             : column_add_null(&columns[RECEIVED_AT]));
    CHECK(added); /* each of them has room for row_count_max of the longest */
    store->row_count++;
    return true;
}

void store_submit(struct store *store, uint64_t now_ms)
{
    CHECK(!store->has_batch && store->row_count > 0);
    store->now_ms = now_ms;
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        column_end(&store->columns[i]);
    }
    store->has_batch = true;
    store->inserted_count = 0;
    store->inserted_rejected_count = 0;
    if (store->state == STATE_READY) {
        send_batch(store);
    }
}

void store_forget(struct store *store)
{
    CHECK(!store_up(store));
    store->has_batch = false;
}
