/* SPDX-License-Identifier: MIT */
/* What PostgreSQL takes of the rows of `messages` when nothing is in front of it: COPY in batches, each its own
 * transaction, with the same columns and the same indexes. The limit that the processor's rate is put beside. The
 * database must be migrated; what was in `messages` is removed first. */
#include "bench.h"

#include <libpq-fe.h>
#include <string.h>

struct rows {
    PGconn *connection;
    struct bench_message message;
    const char *run;
    char *batch; /* as COPY text */
    size_t batch_bytes;
    size_t row_bytes;
    size_t digits_offset; /* in a row */
    size_t batch_rows;
    uint64_t made_count;
};

static void run_sql(struct rows *rows, const char *sql, ExecStatusType wanted)
{
    PGresult *result = PQexec(rows->connection, sql);
    if (PQresultStatus(result) != wanted) {
        bench_die("%s: %s", sql, PQerrorMessage(rows->connection));
    }
    PQclear(result);
}

static void batch_make(struct rows *rows)
{
    size_t capacity = rows->message.bytes + 256;
    char *row = bench_memory(1, capacity);
    const char *id = rows->message.data + rows->message.id_offset;
    int bytes = snprintf(row, capacity, "%s-17\t%.*s\ttext\t%.*s\tstored\tgw-22000\t2026-11-23T07:21:11.839Z\n",
                         rows->run, (int)rows->message.id_bytes, id, (int)rows->message.content_bytes,
                         rows->message.data + rows->message.content_offset);
    rows->row_bytes = (size_t)bytes;
    rows->digits_offset = strlen(rows->run) + 4 + rows->message.id_bytes - BENCH_ID_DIGITS;
    rows->batch_bytes = rows->row_bytes * rows->batch_rows;
    rows->batch = bench_memory(rows->batch_rows, rows->row_bytes);
    for (size_t i = 0; i < rows->batch_rows; i++) {
        memcpy(rows->batch + i * rows->row_bytes, row, rows->row_bytes);
    }
}

static void copy_batch(struct rows *rows)
{
    for (size_t i = 0; i < rows->batch_rows; i++) {
        bench_digits(rows->batch + i * rows->row_bytes + rows->digits_offset, ++rows->made_count);
    }
    run_sql(rows, "COPY messages (client_id, message_id, type, content, status, gateway, received_at) FROM STDIN",
            PGRES_COPY_IN);
    if (PQputCopyData(rows->connection, rows->batch, (int)rows->batch_bytes) != 1 ||
        PQputCopyEnd(rows->connection, NULL) != 1) {
        bench_die("COPY: %s", PQerrorMessage(rows->connection));
    }
    PGresult *result;
    while ((result = PQgetResult(rows->connection)) != NULL) {
        if (PQresultStatus(result) != PGRES_COMMAND_OK) {
            bench_die("COPY: %s", PQerrorMessage(rows->connection));
        }
        PQclear(result);
    }
}

int main(int argc, char **argv)
{
    static struct rows rows = {.run = "bare"};
    double seconds = 3;
    double bytes = 128;
    double batch = 500;
    const char *url = NULL;
    const struct bench_option options[] = {
        {"url", &url, NULL},      {"seconds", NULL, &seconds},
        {"bytes", NULL, &bytes}, /* of the client's message whose row is stored */
        {"batch", NULL, &batch}, /* rows a transaction */
        {"run", &rows.run, NULL},
    };
    bench_options(argc, argv, options, sizeof options / sizeof options[0]);
    rows.batch_rows = (size_t)batch;
    if (url == NULL || rows.batch_rows == 0) {
        bench_die("--url is needed, and --batch begins at 1");
    }
    bench_message_make(&rows.message, "text", rows.run, (size_t)bytes);
    batch_make(&rows);
    rows.connection = PQconnectdb(url);
    if (PQstatus(rows.connection) != CONNECTION_OK) {
        bench_die("%s", PQerrorMessage(rows.connection));
    }
    run_sql(&rows, "TRUNCATE messages", PGRES_COMMAND_OK);

    struct bench_watch watch;
    char backend[32];
    (void)snprintf(backend, sizeof backend, "%d", PQbackendPID(rows.connection));
    bench_watch_open(&watch, backend);
    bench_watch_begin(&watch);
    uint64_t begin_ns = bench_now_ns();
    uint64_t end_ns = begin_ns + (uint64_t)(seconds * 1e9);
    while (bench_now_ns() < end_ns) {
        copy_batch(&rows);
    }
    double took = (double)(bench_now_ns() - begin_ns) / 1e9;
    bench_watch_end(&watch);
    (void)printf("{\"seconds\":%.6f,\"rows\":%llu,\"rows_rate\":%.1f,\"backend_cpu_us\":%.1f}\n", took,
                 (unsigned long long)rows.made_count, (double)rows.made_count / took,
                 (double)watch.used_ns[0] / 1000.0);
    PQfinish(rows.connection);
    return 0;
}
