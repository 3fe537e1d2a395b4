/* SPDX-License-Identifier: MIT */
/* The store on PostgreSQL, through libpq's non-blocking calls; the only file that knows libpq.
 *
 * A batch is one statement, and so one transaction: INSERT ... SELECT FROM unnest of binary arrays, joined with
 * message_types, ON CONFLICT DO NOTHING; in the batch's order, which the join by itself does not keep, so that `id`
 * follows the order of each client's messages. It answers with two numbers, how many rows it inserted and how many of
 * those as `rejected`. Nearly always the first is the batch's size and the second is zero, and all is said. Otherwise
 * a second statement reads which rows of the batch stand as `rejected`. It has to be a statement of its own: a row
 * that another processor committed while ours ran makes our insert skip it, but is not in our insert's snapshot.
 *
 * Measured, 500 rows a batch: unnest is up to a third faster than COPY into a temporary table and INSERT SELECT from
 * there (COPY needs three round trips), and two batches in flight on the connection gain nothing, because the
 * server's work is what takes the time. So: one batch at the database while the next one gathers.
 *
 * libpq opens, changes and closes its socket within its calls. Therefore the socket is watched only between them: each
 * entry takes the watch off, and puts it back for what the socket is then. */
#include <libpq-fe.h>

#include "arena.h"
#include "backoff.h"
#include "check.h"
#include "column.h"
#include "log.h"
#include "port.h"
#include "sqlstate.h"
#include "store.h"
#include "store_target.h"
#include "text.h"

enum {
    BACKOFF_BASE_MS = 100,
    BACKOFF_MAX_MS = 5000,
    CONNECT_MS = 10000,   /* for one address, TCP, TLS and login together */
    STATEMENT_MS = 20000, /* the server gives a statement up after this */
    ANSWER_MS = 30000,    /* and we the server */
    REMIND_MS = 30000,    /* how often a cause that stays the same is logged again */
    CAUSE_BYTES = 256,
    COLUMN_COUNT = 6,
    SHORT_TEXT_BYTES = 256 /* the longest of the texts beside the content: an AMQP short string */
};

static const char setup_sql[] = "SET statement_timeout = 20000";
_Static_assert(STATEMENT_MS == 20000 && ANSWER_MS > STATEMENT_MS, "the server gives up first");

static const char insert_sql[] =
    "WITH inserted AS ("
    "INSERT INTO messages (client_id, message_id, type, content, gateway, received_at, status) "
    "SELECT b.client_id, b.message_id, b.type, b.content, b.gateway, b.received_at, "
    "CASE WHEN t.type IS NULL THEN 'stored' "
    "WHEN t.accepts_from <= t.accepts_until AND localtime >= t.accepts_from AND localtime < t.accepts_until THEN "
    "'stored' "
    "WHEN t.accepts_from > t.accepts_until AND (localtime >= t.accepts_from OR localtime < t.accepts_until) THEN "
    "'stored' "
    "ELSE 'rejected' END "
    "FROM unnest($1::text[], $2::text[], $3::text[], $4::jsonb[], $5::text[], $6::timestamptz[]) WITH ORDINALITY "
    "AS b (client_id, message_id, type, content, gateway, received_at, ordinal) "
    "LEFT JOIN message_types t ON t.type = b.type "
    "ORDER BY b.ordinal "
    "ON CONFLICT (client_id, message_id) DO NOTHING RETURNING status) "
    "SELECT count(*), count(*) FILTER (WHERE status = 'rejected') FROM inserted";

static const char lookup_sql[] =
    "SELECT b.ordinal FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS b (client_id, message_id, ordinal) "
    "JOIN messages m ON m.client_id = b.client_id AND m.message_id = b.message_id "
    "WHERE m.status = 'rejected' ORDER BY b.ordinal";

static const Oid column_types[COLUMN_COUNT] = {COLUMN_TEXT_ARRAY,  COLUMN_TEXT_ARRAY, COLUMN_TEXT_ARRAY,
                                               COLUMN_JSONB_ARRAY, COLUMN_TEXT_ARRAY, COLUMN_TIMESTAMPTZ_ARRAY};
enum { CLIENT_ID, MESSAGE_ID, TYPE, CONTENT, GATEWAY, RECEIVED_AT, LOOKUP_COLUMN_COUNT = TYPE };

enum state {
    STATE_CLOSED,     /* not started, or ended for good */
    STATE_WAITING,    /* until the backoff ends */
    STATE_RESOLVING,  /* a host's name, on the worker */
    STATE_CONNECTING, /* PQconnectPoll */
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

    PGconn *connection;
    port_socket watched; /* PORT_NONE: nothing */
    uint32_t interest;

    struct column columns[COLUMN_COUNT];
    size_t row_count;
    bool has_batch; /* submitted and undecided */
    uint32_t *rejected;
    size_t rejected_count;
    uint64_t inserted_count;
    uint64_t inserted_rejected_count;

    bool failed; /* the running statement; then: */
    enum sqlstate_kind failure;
    char cause[CAUSE_BYTES];        /* of the last failure, one line */
    char logged_cause[CAUSE_BYTES]; /* what the log was last told */
    uint64_t logged_ms;
    bool was_unreachable; /* and the log knows */
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

/* libpq's messages have several lines and end in a newline; ours have one. */
static void flatten(char *text)
{
    size_t to = 0;
    bool blank = true; /* none at the start, and never two */
    for (const char *from = text; *from != '\0'; from++) {
        const bool is_blank = *from == '\n' || *from == '\t' || *from == ' ' || *from == '\r';
        if (!is_blank) {
            text[to++] = *from;
        } else if (!blank) {
            text[to++] = ' ';
        }
        blank = is_blank;
    }
    while (to > 0 && text[to - 1] == ' ') {
        to--;
    }
    text[to] = '\0';
}

static void set_cause(struct store *store, const char *text)
{
    (void)snprintf(store->cause, sizeof store->cause, "%s", text);
    flatten(store->cause);
}

/* Passwords stand only in what libpq quotes of a URL. */
static void mask_quoted(char *text)
{
    char *open = strchr(text, '"');
    while (open != NULL) {
        char *const close = strchr(open + 1, '"');
        if (close == NULL) {
            return;
        }
        for (char *at = open + 1; at < close; at++) {
            *at = '*';
        }
        open = strchr(close + 1, '"');
    }
}

static const char *option_value(const PQconninfoOption *options, const char *keyword)
{
    for (; options->keyword != NULL; options++) {
        if (strcmp(options->keyword, keyword) == 0) {
            return options->val != NULL && options->val[0] != '\0' ? options->val : NULL;
        }
    }
    return NULL;
}

/* The hosts of the URL, or those that libpq takes from PGHOST and PGPORT. */
static bool read_target(struct store_target *target, const char *url, char *error, size_t error_bytes)
{
    if (strncmp(url, "postgresql://", 13) != 0 && strncmp(url, "postgres://", 11) != 0) {
        (void)snprintf(error, error_bytes, "it does not begin with postgresql://");
        return false;
    }
    char *message = NULL;
    PQconninfoOption *const options = PQconninfoParse(url, &message);
    if (options == NULL) {
        (void)snprintf(error, error_bytes, "%s", message == NULL ? "out of memory" : message);
        PQfreemem(message);
        flatten(error);
        mask_quoted(error);
        return false;
    }
    PQconninfoOption *const defaults = PQconndefaults();
    const char *host = option_value(options, "host");
    const char *port = option_value(options, "port");
    if (host == NULL && defaults != NULL) {
        host = option_value(defaults, "host");
    }
    if (port == NULL && defaults != NULL) {
        port = option_value(defaults, "port");
    }
    const bool good = store_target_init(target, host, port, option_value(options, "hostaddr") != NULL);
    PQconninfoFree(options);
    PQconninfoFree(defaults);
    if (!good) {
        (void)snprintf(error, error_bytes, "it must name up to %d hosts with ports of 1 to 65535", STORE_HOSTS_MAX);
    }
    return good;
}

bool store_url_valid(const char *url, char *error, size_t error_bytes)
{
    struct store_target target;
    return read_target(&target, url, error, error_bytes);
}

struct store *store_init(struct arena *arena, struct port *port, struct log *log, const struct store_options *options,
                         const struct store_handler *handler, void *context)
{
    struct store *const store = arena_take(arena, "store", 1, sizeof *store);
    uint32_t *const rejected = arena_take(arena, "store: rejected rows", options->row_count_max, sizeof *rejected);
    const size_t short_bytes = COLUMN_HEADER_BYTES + options->row_count_max * (COLUMN_ELEMENT_BYTES + SHORT_TEXT_BYTES);
    const size_t content_bytes = COLUMN_HEADER_BYTES + options->content_bytes_max +
                                 options->row_count_max * (COLUMN_ELEMENT_BYTES + COLUMN_JSONB_BYTES);
    const uint32_t element_types[COLUMN_COUNT] = {COLUMN_TEXT,  COLUMN_TEXT, COLUMN_TEXT,
                                                  COLUMN_JSONB, COLUMN_TEXT, COLUMN_TIMESTAMPTZ};
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
                            .watched = PORT_NONE,
                            .rejected = rejected};
    memcpy(store->columns, columns, sizeof columns);
    backoff_init(&store->backoff, BACKOFF_BASE_MS, BACKOFF_MAX_MS);
    char error[CAUSE_BYTES];
    CHECK(read_target(&store->target, options->url, error, sizeof error)); /* store_url_valid said so */
    return store;
}

/* ---- The watch ---- */

static void unwatch(struct store *store)
{
    if (store->watched == PORT_NONE) {
        return;
    }
    store->port->watch_remove(store->port->context, store->watched);
    store->watched = PORT_NONE;
}

static void watch(struct store *store)
{
    const int descriptor = store->connection == NULL ? -1 : PQsocket(store->connection);
    if (descriptor < 0) {
        return;
    }
    const enum port_result result =
        store->port->watch_add(store->port->context, descriptor, store->interest, store->options.token);
    CHECK(result == PORT_OK); /* the port was opened for all our sockets */
    store->watched = descriptor;
}

/* ---- Connecting ---- */

static uint32_t backoff_ms(struct store *store)
{
    uint64_t random;
    store->port->random(store->port->context, &random, sizeof random);
    return backoff_next_ms(&store->backoff, random);
}

static void remember_logged(struct store *store)
{
    (void)snprintf(store->logged_cause, sizeof store->logged_cause, "%s", store->cause);
    store->logged_ms = store->now_ms;
    store->was_unreachable = true;
}

static void log_unreachable(struct store *store)
{
    if (strcmp(store->cause, store->logged_cause) == 0 && store->now_ms - store->logged_ms < REMIND_MS) {
        return;
    }
    remember_logged(store);
    if (store->failed && store->failure == SQLSTATE_SCHEMA) {
        log_event(store->log, LOG_ERROR, "database_not_migrated", LOG_TEXT("cause", store->cause),
                  LOG_TEXT("remedy", "alembic upgrade head"));
    } else {
        log_event(store->log, LOG_WARN, "database_unreachable", LOG_TEXT("cause", store->cause));
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
    store->resolve_job = (struct port_job){resolve_on_worker, store};
    if (!store->port->submit_job(store->port->context, &store->resolve_job)) {
        set_cause(store, "the worker has too many jobs");
        wait_again(store);
    }
}

static void drop_connection(struct store *store)
{
    unwatch(store);
    PQfinish(store->connection);
    store->connection = NULL;
}

/* The connection came to nothing: log why, and on to the next address, host, or round. */
static void connect_failed(struct store *store)
{
    drop_connection(store);
    log_unreachable(store);
    if (store_target_next(&store->target)) {
        connect_address(store);
    } else {
        connect_host(store);
    }
}

static void ignore_notice(void *context, const char *message)
{
    (void)context;
    (void)message;
}

static void connect_address(struct store *store)
{
    const struct store_host *const host = store_target_host(&store->target);
    char address[PORT_ADDRESS_TEXT_BYTES] = "";
    char port[8] = "";
    if (!host->by_libpq) {
        store_target_address(&store->target, store->port, address);
        (void)snprintf(port, sizeof port, "%u", (unsigned)host->port);
    }
    const bool is_listed = host->name[0] != '\0' && store->target.host_count > 1;
    if (is_listed) {
        (void)snprintf(port, sizeof port, "%u", (unsigned)host->port);
    }
    /* What stands before dbname the URL may change; what stands after it, not. Empty values count as none. */
    const char *const keywords[] = {
        "fallback_application_name", "gssencmode", "dbname", "client_encoding", "host", "hostaddr", "port", NULL};
    const char *const values[] = {"postern-processor",
                                  "disable",
                                  store->options.url,
                                  "UTF8",
                                  !host->by_libpq || is_listed ? host->name : "",
                                  address,
                                  port,
                                  NULL};
    if (store->state != STATE_CONNECTING) {
        move(store, STATE_CONNECTING);
    }
    store->failed = false;
    store->due_ms = store->now_ms + CONNECT_MS;
    store->connection = PQconnectStartParams(keywords, values, 1);
    if (store->connection == NULL || PQstatus(store->connection) == CONNECTION_BAD) {
        set_cause(store, store->connection == NULL ? "out of memory" : PQerrorMessage(store->connection));
        connect_failed(store);
        return;
    }
    (void)PQsetNoticeProcessor(store->connection, ignore_notice, NULL);
    store->interest = PORT_WRITE; /* as PQconnectStart's manual says: as if PQconnectPoll had said WRITING */
    watch(store);
}

/* ---- Statements ---- */

/* An established connection is of no use any more. */
static void lose(struct store *store)
{
    const bool was_up = store_up(store);
    drop_connection(store);
    if (was_up && !(store->failed && store->failure == SQLSTATE_SCHEMA)) {
        log_event(store->log, LOG_WARN, "database_down", LOG_TEXT("cause", store->cause));
        remember_logged(store);
    } else {
        log_unreachable(store);
    }
    wait_again(store);
    if (was_up && store->handler.on_down != NULL) {
        store->handler.on_down(store->context);
    }
}

/* Sends what libpq holds. False when the connection is lost with it. */
static bool flush(struct store *store)
{
    const int left = PQflush(store->connection);
    store->interest = left > 0 ? PORT_READ | PORT_WRITE : PORT_READ;
    return left >= 0;
}

/* After a call that began a statement: true when it is on its way. */
static bool started(struct store *store, int sent, enum state next)
{
    store->failed = false;
    if (sent == 0 || !flush(store)) {
        set_cause(store, PQerrorMessage(store->connection));
        lose(store);
        return false;
    }
    move(store, next);
    store->due_ms = store->now_ms + ANSWER_MS;
    return true;
}

static int send_columns(struct store *store, const char *statement, size_t column_count)
{
    const char *values[COLUMN_COUNT];
    int lengths[COLUMN_COUNT];
    int formats[COLUMN_COUNT];
    for (size_t i = 0; i < column_count; i++) {
        values[i] = (const char *)store->columns[i].data;
        lengths[i] = (int)store->columns[i].used_bytes;
        formats[i] = 1;
    }
    return PQsendQueryPrepared(store->connection, statement, (int)column_count, values, lengths, formats, 1);
}

static void send_batch(struct store *store)
{
    store->inserted_count = 0;
    store->inserted_rejected_count = 0;
    store->rejected_count = 0;
    (void)started(store, send_columns(store, "insert", COLUMN_COUNT), STATE_INSERTING);
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
        log_event(store->log, LOG_INFO, "database_up", LOG_TEXT("host", PQhost(store->connection)),
                  LOG_TEXT("port", PQport(store->connection)), LOG_TEXT("database", PQdb(store->connection)));
    }
    store->was_unreachable = false;
    store->logged_cause[0] = '\0';
    store->logged_ms = store->now_ms;
    if (store->handler.on_up != NULL) {
        store->handler.on_up(store->context);
    }
    if (store->has_batch) {
        send_batch(store);
    }
}

static void decide(struct store *store, enum store_outcome outcome)
{
    if (store->state != STATE_READY) {
        become_ready(store);
    }
    store->has_batch = false;
    backoff_reset(&store->backoff);
    const struct store_result result = {outcome, store->rejected, store->rejected_count, store->cause};
    store->handler.on_result(store->context, &result);
}

static void batch_failed(struct store *store)
{
    switch (store->failure) {
    case SQLSTATE_DATA:
        decide(store, STORE_BAD_DATA);
        break;
    case SQLSTATE_CONSTRAINT:
        decide(store, STORE_BAD_ROW);
        break;
    case SQLSTATE_CONTENTION:
        log_event(store->log, LOG_WARN, "database_busy", LOG_TEXT("cause", store->cause));
        move(store, STATE_PAUSED);
        store->due_ms = store->now_ms + backoff_ms(store);
        break;
    case SQLSTATE_SCHEMA:
    case SQLSTATE_OTHER:
        lose(store);
        break;
    }
}

/* The running statement is answered whole. */
static void statement_done(struct store *store)
{
    switch (store->state) {
    case STATE_SETTING:
        if (store->failed) {
            lose(store);
        } else {
            (void)started(store, PQsendPrepare(store->connection, "insert", insert_sql, COLUMN_COUNT, column_types),
                          STATE_PREPARING);
        }
        break;
    case STATE_PREPARING:
        if (store->failed) {
            lose(store);
        } else {
            (void)started(store,
                          PQsendPrepare(store->connection, "lookup", lookup_sql, LOOKUP_COLUMN_COUNT, column_types),
                          STATE_PREPARING_LOOKUP);
        }
        break;
    case STATE_PREPARING_LOOKUP:
        if (store->failed) {
            lose(store);
        } else {
            go_up(store);
        }
        break;
    case STATE_INSERTING:
        if (store->failed) {
            batch_failed(store);
        } else if (store->inserted_count == store->row_count && store->inserted_rejected_count == 0) {
            decide(store, STORE_STORED);
        } else {
            (void)started(store, send_columns(store, "lookup", LOOKUP_COLUMN_COUNT), STATE_LOOKING_UP);
        }
        break;
    case STATE_LOOKING_UP:
        if (!store->failed) {
            decide(store, STORE_STORED);
        } else if (store->failure == SQLSTATE_CONTENTION) {
            batch_failed(store);
        } else {
            lose(store); /* the rows are stored: whatever is wrong, it is not they */
        }
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

static uint64_t read_u64(const char *bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof value; i++) {
        value = value << 8 | (uint8_t)bytes[i];
    }
    return value;
}

static void take_result(struct store *store, const PGresult *result)
{
    const ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
        const char *const sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        const char *const primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
        store->failed = true;
        store->failure = sqlstate_kind(sqlstate);
        if (sqlstate != NULL && primary != NULL) {
            (void)snprintf(store->cause, sizeof store->cause, "%s (SQLSTATE %s)", primary, sqlstate);
        } else {
            (void)snprintf(store->cause, sizeof store->cause, "%s", PQresultErrorMessage(result));
        }
        flatten(store->cause);
        return;
    }
    const int tuples = PQntuples(result);
    if (store->state == STATE_INSERTING && tuples == 1) {
        store->inserted_count = read_u64(PQgetvalue(result, 0, 0));
        store->inserted_rejected_count = read_u64(PQgetvalue(result, 0, 1));
    } else if (store->state == STATE_LOOKING_UP) {
        CHECK(tuples >= 0 && (size_t)tuples <= store->row_count);
        for (int i = 0; i < tuples; i++) {
            store->rejected[store->rejected_count++] = (uint32_t)read_u64(PQgetvalue(result, i, 0)) - 1;
        }
    }
}

static void connect_poll(struct store *store)
{
    switch (PQconnectPoll(store->connection)) {
    case PGRES_POLLING_READING:
        store->interest = PORT_READ;
        break;
    case PGRES_POLLING_WRITING:
    case PGRES_POLLING_ACTIVE:
        store->interest = PORT_WRITE;
        break;
    case PGRES_POLLING_OK:
        (void)started(store,
                      PQsetnonblocking(store->connection, 1) == 0 ? PQsendQuery(store->connection, setup_sql) : 0,
                      STATE_SETTING);
        break;
    case PGRES_POLLING_FAILED:
        set_cause(store, PQerrorMessage(store->connection));
        connect_failed(store);
        break;
    }
}

static void converse(struct store *store)
{
    if (PQconsumeInput(store->connection) == 0 || !flush(store)) {
        set_cause(store, PQerrorMessage(store->connection));
        lose(store);
        return;
    }
    while (store->connection != NULL && PQisBusy(store->connection) == 0) {
        PGresult *const result = PQgetResult(store->connection);
        if (result != NULL) {
            take_result(store, result);
            PQclear(result);
            continue;
        }
        if (store->state != STATE_READY && store->state != STATE_PAUSED) {
            statement_done(store);
        }
        return;
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
    if (store->connection == NULL) {
        return; /* an event that was reported with the one that ended the connection */
    }
    unwatch(store);
    if (store->state == STATE_CONNECTING) {
        connect_poll(store);
    } else {
        converse(store);
    }
    if (store->watched == PORT_NONE) {
        watch(store);
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
    const struct store_host *const host = store_target_host(&store->target);
    struct text cause = text_in(store->cause, sizeof store->cause - 1);
    text_string(&cause, host->name);
    text_string(&cause, ": ");
    text_string(&cause, store->target.error);
    store->cause[cause.used_bytes] = '\0';
    store->failed = false;
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
        set_cause(store, "no answer to the connect");
        connect_failed(store);
        break;
    case STATE_SETTING:
    case STATE_PREPARING:
    case STATE_PREPARING_LOOKUP:
    case STATE_INSERTING:
    case STATE_LOOKING_UP:
        set_cause(store, "no answer to a statement");
        store->failed = false;
        lose(store);
        break;
    case STATE_PAUSED:
        unwatch(store);
        send_batch(store);
        if (store->connection != NULL) {
            watch(store);
        }
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
    drop_connection(store);
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
    if (store->state != STATE_READY) {
        return;
    }
    unwatch(store);
    send_batch(store);
    if (store->connection != NULL) {
        watch(store);
    }
}

void store_forget(struct store *store)
{
    CHECK(!store_up(store));
    store->has_batch = false;
}
