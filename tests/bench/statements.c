/* SPDX-License-Identifier: MIT */
/* Ways to store batches, beside each other: why the processor does it as it does (processor/store.c).
 *
 *     unnest     INSERT ... SELECT FROM unnest of binary arrays, prepared; a batch out on each of --flight connections
 *     pipelined  the same with --flight batches out on one connection
 *     staged     COPY into a temporary table and INSERT ... SELECT from there; a connection for each in flight
 *     copy       COPY straight into `messages`, which knows neither repeats nor windows: the limit
 *
 * Each batch is a transaction of its own. The database must be migrated; what was in `messages` is removed first. */
#include "bench.h"

#include <libpq-fe.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "column.h"

enum { FLIGHT_MAX = 8, COLUMNS = 6, CONNECTION_DIGITS = 2 };

#define VERDICT                                                                                                        \
    "CASE WHEN t.type IS NULL THEN 'stored' "                                                                          \
    "WHEN t.accepts_from <= t.accepts_until AND c.clock >= t.accepts_from AND c.clock < t.accepts_until THEN "         \
    "'stored' "                                                                                                        \
    "WHEN t.accepts_from > t.accepts_until AND (c.clock >= t.accepts_from OR c.clock < t.accepts_until) THEN "         \
    "'stored' "                                                                                                        \
    "ELSE 'rejected' END "
#define INSERT                                                                                                         \
    "INSERT INTO messages (client_id, message_id, type, content, gateway, received_at, status) "                       \
    "SELECT b.client_id, b.message_id, b.type, b.content, b.gateway, b.received_at, " VERDICT
#define JOINED                                                                                                         \
    "CROSS JOIN LATERAL (SELECT coalesce(b.received_at, now())::time) AS c (clock) "                                   \
    "LEFT JOIN message_types t ON t.type = b.type ORDER BY b.ordinal "                                                 \
    "ON CONFLICT (client_id, message_id) DO NOTHING RETURNING status"
#define COUNTED(insert) "WITH inserted AS (" insert ") SELECT count(*), " COUNT_REJECTED " FROM inserted"
#define COUNT_REJECTED "count(*) FILTER (WHERE status = 'rejected')"

static const char unnest_sql[] = COUNTED(
    INSERT "FROM unnest($1::text[], $2::text[], $3::text[], $4::jsonb[], $5::text[], $6::timestamptz[]) "
           "WITH ORDINALITY AS b (client_id, message_id, type, content, gateway, received_at, ordinal) " JOINED);
static const char staged_sql[] = COUNTED(INSERT "FROM staged b " JOINED) "; COMMIT";
static const char staging_sql[] =
    "CREATE TEMPORARY TABLE staged (client_id text, message_id text, type text, content jsonb, gateway text, "
    "received_at timestamptz, ordinal bigint GENERATED ALWAYS AS IDENTITY) ON COMMIT DELETE ROWS";

static const Oid parameter_types[COLUMNS] = {COLUMN_TEXT_ARRAY,  COLUMN_TEXT_ARRAY, COLUMN_TEXT_ARRAY,
                                             COLUMN_JSONB_ARRAY, COLUMN_TEXT_ARRAY, COLUMN_TIMESTAMPTZ_ARRAY};
static const uint32_t element_types[COLUMNS] = {COLUMN_TEXT,  COLUMN_TEXT, COLUMN_TEXT,
                                                COLUMN_JSONB, COLUMN_TEXT, COLUMN_TIMESTAMPTZ};

enum way { UNNEST, PIPELINED, STAGED, COPY, WAYS };
static const char *const way_names[WAYS] = {"unnest", "pipelined", "staged", "copy"};

/* One connection, with a thread of its own. */
struct lane {
    pthread_t thread;
    PGconn *connection;
    enum way way;
    size_t flight; /* batches out on it */
    size_t batch_rows;
    uint64_t end_ns;
    uint64_t stored_count;
    uint64_t made_count;
    char client_id[32];
    struct bench_message message;
    struct column columns[COLUMNS];
    char *text; /* a batch for COPY */
    size_t text_bytes;
};

static void expect(struct lane *lane, PGresult *result, ExecStatusType wanted)
{
    if (PQresultStatus(result) != wanted) {
        bench_die("%s: %s", way_names[lane->way], PQerrorMessage(lane->connection));
    }
    PQclear(result);
}

static void run_sql(struct lane *lane, const char *sql)
{
    expect(lane, PQexec(lane->connection, sql), PGRES_COMMAND_OK);
}

static struct span next_id(struct lane *lane)
{
    bench_digits(lane->message.data + lane->message.digits_offset, ++lane->made_count);
    return span_of(lane->message.data + lane->message.id_offset, lane->message.id_bytes);
}

static struct span content_of(const struct lane *lane)
{
    return span_of(lane->message.data + lane->message.content_offset, lane->message.content_bytes);
}

static void send_unnest(struct lane *lane)
{
    const char *values[COLUMNS];
    int lengths[COLUMNS];
    int formats[COLUMNS];
    for (size_t i = 0; i < COLUMNS; i++) {
        column_begin(&lane->columns[i]);
    }
    for (size_t row = 0; row < lane->batch_rows; row++) {
        bool added = column_add_text(&lane->columns[0], span_text(lane->client_id)) &&
                     column_add_text(&lane->columns[1], next_id(lane)) &&
                     column_add_text(&lane->columns[2], span_text("text")) &&
                     column_add_jsonb(&lane->columns[3], content_of(lane)) &&
                     column_add_text(&lane->columns[4], span_text("gw-22000")) &&
                     column_add_time(&lane->columns[5], INT64_C(1795418471839));
        if (!added) {
            bench_die("a batch of %zu rows does not fit", lane->batch_rows);
        }
    }
    for (size_t i = 0; i < COLUMNS; i++) {
        column_end(&lane->columns[i]);
        values[i] = (const char *)lane->columns[i].data;
        lengths[i] = (int)lane->columns[i].used_bytes;
        formats[i] = 1;
    }
    if (PQsendQueryPrepared(lane->connection, "insert", COLUMNS, values, lengths, formats, 1) != 1 ||
        (lane->way == PIPELINED && PQpipelineSync(lane->connection) != 1)) {
        bench_die("%s: %s", way_names[lane->way], PQerrorMessage(lane->connection));
    }
}

static void await_unnest(struct lane *lane)
{
    expect(lane, PQgetResult(lane->connection), PGRES_TUPLES_OK);
    PQclear(PQgetResult(lane->connection));
    if (lane->way == PIPELINED) {
        expect(lane, PQgetResult(lane->connection), PGRES_PIPELINE_SYNC);
    }
    lane->stored_count += lane->batch_rows;
}

static void write_copy(struct lane *lane)
{
    size_t used = 0;
    for (size_t row = 0; row < lane->batch_rows; row++) {
        struct span id = next_id(lane);
        struct span content = content_of(lane);
        int bytes = snprintf(lane->text + used, lane->text_bytes - used,
                             "%s\t%.*s\ttext\t%.*s\tgw-22000\t2026-11-23T07:21:11.839Z%s\n", lane->client_id,
                             (int)id.bytes, (const char *)id.data, (int)content.bytes, (const char *)content.data,
                             lane->way == COPY ? "\tstored" : "");
        used += (size_t)bytes;
    }
    if (PQputCopyData(lane->connection, lane->text, (int)used) != 1 || PQputCopyEnd(lane->connection, NULL) != 1) {
        bench_die("COPY: %s", PQerrorMessage(lane->connection));
    }
    expect(lane, PQgetResult(lane->connection), PGRES_COMMAND_OK);
    PQclear(PQgetResult(lane->connection));
}

static void copy_batch(struct lane *lane)
{
    static const char columns[] = "(client_id, message_id, type, content, gateway, received_at";
    char sql[256];
    (void)snprintf(sql, sizeof sql,
                   lane->way == COPY ? "COPY messages %s, status) FROM STDIN" : "BEGIN; COPY staged %s) FROM STDIN",
                   columns);
    expect(lane, PQexec(lane->connection, sql), PGRES_COPY_IN);
    write_copy(lane);
    if (lane->way == STAGED) {
        run_sql(lane, staged_sql);
    }
    lane->stored_count += lane->batch_rows;
}

static void *work(void *context)
{
    struct lane *lane = context;
    size_t out_count = 0;
    bool goes_on = true;
    while (goes_on || out_count > 0) {
        goes_on = bench_now_ns() < lane->end_ns;
        if (lane->way == STAGED || lane->way == COPY) {
            copy_batch(lane);
            continue;
        }
        while (goes_on && out_count < lane->flight) {
            send_unnest(lane);
            out_count++;
        }
        if (out_count > 0) {
            await_unnest(lane);
            out_count--;
        }
    }
    return NULL;
}

static void carve(struct lane *lane, struct arena *arena)
{
    for (size_t i = 0; i < COLUMNS; i++) {
        size_t each = COLUMN_ELEMENT_BYTES + COLUMN_JSONB_BYTES + 64 + lane->message.bytes;
        column_init(&lane->columns[i], arena, "column", COLUMN_HEADER_BYTES + lane->batch_rows * each,
                    element_types[i]);
    }
}

static void lane_open(struct lane *lane, const char *url, const char *run, size_t bytes)
{
    bench_message_make(&lane->message, "text", run, bytes);
    struct arena arena;
    arena_measure(&arena);
    carve(lane, &arena);
    size_t arena_bytes = arena.used_bytes + ARENA_ALIGN_BYTES;
    char *memory = bench_memory(1, arena_bytes);
    size_t skew = (uintptr_t)memory % ARENA_ALIGN_BYTES;
    arena_begin(&arena, memory + (skew == 0 ? 0 : ARENA_ALIGN_BYTES - skew), arena.used_bytes);
    carve(lane, &arena);
    lane->text_bytes = lane->batch_rows * (lane->message.bytes + 128);
    lane->text = bench_memory(1, lane->text_bytes);
    lane->connection = PQconnectdb(url);
    if (PQstatus(lane->connection) != CONNECTION_OK) {
        bench_die("%s", PQerrorMessage(lane->connection));
    }
    run_sql(lane, staging_sql);
    expect(lane, PQprepare(lane->connection, "insert", unnest_sql, COLUMNS, parameter_types), PGRES_COMMAND_OK);
}

/* A way that left rows out would be the fastest. */
static void check_rows(struct lane *lane, uint64_t stored_count)
{
    if (lane->way == PIPELINED && PQexitPipelineMode(lane->connection) != 1) {
        bench_die("%s", PQerrorMessage(lane->connection));
    }
    PGresult *result = PQexec(lane->connection, "SELECT count(*) FROM messages WHERE status = 'stored'");
    if (PQntuples(result) != 1 || strtoull(PQgetvalue(result, 0, 0), NULL, 10) != stored_count) {
        bench_die("%llu rows were stored, and the table says otherwise", (unsigned long long)stored_count);
    }
    PQclear(result);
}

int main(int argc, char **argv)
{
    static struct lane lanes[FLIGHT_MAX];
    double seconds = 2;
    double bytes = 128;
    double batch = 500;
    double flight = 1;
    const char *url = NULL;
    const char *run = "bare";
    const char *name = "unnest";
    const struct bench_option options[] = {
        {"url", &url, NULL},       {"seconds", NULL, &seconds},
        {"bytes", NULL, &bytes},   /* of the client's message whose row is stored */
        {"batch", NULL, &batch},   /* rows a transaction */
        {"flight", NULL, &flight}, /* batches at the database at once */
        {"way", &name, NULL},      {"run", &run, NULL},
    };
    bench_options(argc, argv, options, sizeof options / sizeof options[0]);
    enum way way = UNNEST;
    while (way < WAYS && strcmp(way_names[way], name) != 0) {
        way++;
    }
    if (url == NULL || batch < 1 || flight < 1 || flight > FLIGHT_MAX || way == WAYS) {
        bench_die("--url is needed; --flight is 1 to %d, --way unnest, pipelined, staged or copy", FLIGHT_MAX);
    }
    size_t lane_count = way == PIPELINED ? 1 : (size_t)flight;
    for (size_t i = 0; i < lane_count; i++) {
        lanes[i] =
            (struct lane){.way = way, .flight = way == PIPELINED ? (size_t)flight : 1, .batch_rows = (size_t)batch};
        (void)snprintf(lanes[i].client_id, sizeof lanes[i].client_id, "bare-%0*zu", CONNECTION_DIGITS, i);
        lane_open(&lanes[i], url, run, (size_t)bytes);
    }
    run_sql(&lanes[0], "TRUNCATE messages");
    if (way == PIPELINED && PQenterPipelineMode(lanes[0].connection) != 1) {
        bench_die("this libpq has no pipeline mode");
    }
    uint64_t begin_ns = bench_now_ns();
    for (size_t i = 0; i < lane_count; i++) {
        lanes[i].end_ns = begin_ns + (uint64_t)(seconds * BENCH_SECOND_NS);
        if (pthread_create(&lanes[i].thread, NULL, work, &lanes[i]) != 0) {
            bench_die("no thread");
        }
    }
    uint64_t stored_count = 0;
    for (size_t i = 0; i < lane_count; i++) {
        (void)pthread_join(lanes[i].thread, NULL);
        stored_count += lanes[i].stored_count;
    }
    double took = (double)(bench_now_ns() - begin_ns) / BENCH_SECOND_NS;
    check_rows(&lanes[0], stored_count);
    (void)printf("{\"seconds\":%.6f,\"rows\":%llu,\"rows_rate\":%.1f}\n", took, (unsigned long long)stored_count,
                 (double)stored_count / took);
    return 0;
}
