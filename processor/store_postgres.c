/* SPDX-License-Identifier: MIT */
/* The only file that knows libpq, and of it only the calls that do not block: PQconnectStart with a numeric address,
 * PQsend..., PQflush, PQconsumeInput, PQisBusy, PQgetResult once that says no. */
#include "store_postgres.h"

#include <libpq-fe.h>

#include "check.h"
#include "column.h"
#include "store_target.h"

enum { PARAMETERS_MAX = 16 };

void store_postgres_init(struct store_postgres *postgres, struct port *port, uint64_t token, uint64_t *numbers,
                         size_t number_max)
{
    *postgres = (struct store_postgres){.port = port, .token = token, .watched = PORT_NONE, .number_max = number_max};
    postgres->numbers = numbers;
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

/* ---- The URL ---- */

/* Passwords stand only in what libpq quotes of a URL, which is the URL or a part of it, behind a colon and up to the
 * message's last quote: one in between is the password's own. Quotes before it hold what libpq expected ("]"). */
static void copy_masked(const char *message, char *error, size_t error_bytes)
{
    const char *const colon = strstr(message, ": \"");
    const char *const open = strchr(colon == NULL ? message : colon, '"');
    if (open == NULL) {
        (void)snprintf(error, error_bytes, "%s", message);
        return;
    }
    const char *const close = strrchr(open, '"');
    (void)snprintf(error, error_bytes, "%.*s\"***\"%s", (int)(open - message), message, close == open ? "" : close + 1);
}

static const char *option_value(const PQconninfoOption *options, const char *keyword)
{
    for (; options != NULL && options->keyword != NULL; options++) {
        if (strcmp(options->keyword, keyword) == 0) {
            return options->val != NULL && options->val[0] != '\0' ? options->val : NULL;
        }
    }
    return NULL;
}

bool store_postgres_read_url(const char *url, struct store_target *target, char *error, size_t error_bytes)
{
    if (strncmp(url, "postgresql://", 13) != 0 && strncmp(url, "postgres://", 11) != 0) {
        (void)snprintf(error, error_bytes, "it does not begin with postgresql://");
        return false;
    }
    char *message = NULL;
    PQconninfoOption *const options = PQconninfoParse(url, &message);
    if (options == NULL) {
        copy_masked(message == NULL ? "out of memory" : message, error, error_bytes);
        PQfreemem(message);
        flatten(error);
        return false;
    }
    PQconninfoOption *const defaults = PQconndefaults();
    const char *host = option_value(options, "host");
    const char *address = option_value(options, "hostaddr");
    const char *port = option_value(options, "port");
    host = host == NULL ? option_value(defaults, "host") : host;
    address = address == NULL ? option_value(defaults, "hostaddr") : address;
    port = port == NULL ? option_value(defaults, "port") : port;
    const bool good = store_target_init(target, host, address, port);
    PQconninfoFree(options);
    PQconninfoFree(defaults);
    if (!good) {
        (void)snprintf(error, error_bytes,
                       "it must name up to %d hosts, with one port of 1 to 65535 or as many as hosts, and where it has "
                       "hostaddr too, as many of those as hosts; in a password, @ is written %%40 and / %%2F",
                       STORE_HOSTS_MAX);
    }
    return good;
}

/* ---- The watch ---- */

static void unwatch(struct store_postgres *postgres)
{
    if (postgres->watched != PORT_NONE) {
        postgres->port->watch_remove(postgres->port->context, postgres->watched);
        postgres->watched = PORT_NONE;
    }
}

static void watch(struct store_postgres *postgres)
{
    const int descriptor = PQsocket(postgres->connection);
    if (descriptor < 0) {
        return; /* gone within this call, whose answer says so */
    }
    const enum port_result result =
        postgres->port->watch_add(postgres->port->context, descriptor, postgres->interest, postgres->token);
    CHECK(result == PORT_OK); /* the port was opened for all our sockets */
    postgres->watched = descriptor;
}

/* ---- Connecting ---- */

static void set_cause(struct store_postgres *postgres, const char *text)
{
    (void)snprintf(postgres->cause, sizeof postgres->cause, "%s", text);
    flatten(postgres->cause);
}

static bool lost(struct store_postgres *postgres)
{
    set_cause(postgres, postgres->connection == NULL ? "out of memory" : PQerrorMessage(postgres->connection));
    postgres->failed = false;
    return false;
}

static void ignore_notice(void *context, const char *message)
{
    (void)context;
    (void)message;
}

bool store_postgres_connect(struct store_postgres *postgres, const char *url, const struct store_target *target)
{
    CHECK(postgres->connection == NULL);
    const struct store_host *const host = store_target_host(target);
    char address[PORT_ADDRESS_TEXT_BYTES];
    char port[8] = "";
    memcpy(address, host->address, sizeof address);
    if (!host->by_libpq) {
        store_target_address(target, postgres->port, address);
    }
    /* One host of several must be named to libpq, which would else try its whole list. */
    const bool is_named = address[0] != '\0' || (host->name[0] != '\0' && target->host_count > 1);
    if (is_named) {
        (void)snprintf(port, sizeof port, "%u", (unsigned)host->port);
    }
    /* What stands before dbname the URL may change; what stands after it, not. Empty values count as none. */
    const char *const keywords[] = {
        "fallback_application_name", "gssencmode", "dbname", "client_encoding", "host", "hostaddr", "port", NULL};
    const char *const values[] = {"postern-processor",        "disable", url,  "UTF8",
                                  is_named ? host->name : "", address,   port, NULL};
    postgres->connection = PQconnectStartParams(keywords, values, 1);
    if (postgres->connection == NULL || PQstatus(postgres->connection) == CONNECTION_BAD) {
        return lost(postgres);
    }
    (void)PQsetNoticeProcessor(postgres->connection, ignore_notice, NULL);
    postgres->is_connecting = true;
    postgres->is_asked = false;
    postgres->interest = PORT_WRITE; /* at first as if PQconnectPoll had said WRITING, says its manual */
    watch(postgres);
    return true;
}

static enum store_postgres_event go_on_connecting(struct store_postgres *postgres)
{
    switch (PQconnectPoll(postgres->connection)) {
    case PGRES_POLLING_READING:
        postgres->interest = PORT_READ;
        return STORE_POSTGRES_NOTHING;
    case PGRES_POLLING_WRITING:
    case PGRES_POLLING_ACTIVE:
        postgres->interest = PORT_WRITE;
        return STORE_POSTGRES_NOTHING;
    case PGRES_POLLING_OK:
        if (PQsetnonblocking(postgres->connection, 1) != 0) {
            break;
        }
        postgres->is_connecting = false;
        postgres->interest = PORT_READ;
        return STORE_POSTGRES_CONNECTED;
    case PGRES_POLLING_FAILED:
        break;
    }
    (void)lost(postgres);
    return STORE_POSTGRES_LOST;
}

void store_postgres_close(struct store_postgres *postgres)
{
    if (postgres->connection != NULL) {
        unwatch(postgres);
        PQfinish(postgres->connection);
        postgres->connection = NULL;
    }
}

/* ---- Statements ---- */

/* Sends what libpq holds. */
static bool flush(struct store_postgres *postgres)
{
    const int left = PQflush(postgres->connection);
    postgres->interest = left > 0 ? PORT_READ | PORT_WRITE : PORT_READ;
    return left >= 0;
}

/* After the call that gave libpq a statement. */
static bool begin(struct store_postgres *postgres, int sent)
{
    postgres->is_asked = true;
    postgres->failed = false;
    postgres->number_count = 0;
    if (sent == 0 || !flush(postgres)) {
        return lost(postgres);
    }
    watch(postgres);
    return true;
}

bool store_postgres_run(struct store_postgres *postgres, const char *sql)
{
    unwatch(postgres);
    return begin(postgres, PQsendQuery(postgres->connection, sql));
}

bool store_postgres_prepare(struct store_postgres *postgres, const char *name, const char *sql, const uint32_t *types,
                            size_t type_count)
{
    Oid oids[PARAMETERS_MAX];
    CHECK(type_count <= PARAMETERS_MAX);
    for (size_t i = 0; i < type_count; i++) {
        oids[i] = types[i];
    }
    unwatch(postgres);
    return begin(postgres, PQsendPrepare(postgres->connection, name, sql, (int)type_count, oids));
}

bool store_postgres_execute(struct store_postgres *postgres, const char *name, const struct column *columns,
                            size_t column_count)
{
    const char *values[PARAMETERS_MAX];
    int lengths[PARAMETERS_MAX];
    int formats[PARAMETERS_MAX];
    CHECK(column_count <= PARAMETERS_MAX);
    for (size_t i = 0; i < column_count; i++) {
        values[i] = (const char *)columns[i].data;
        lengths[i] = (int)columns[i].used_bytes;
        formats[i] = 1;
    }
    unwatch(postgres);
    return begin(postgres,
                 PQsendQueryPrepared(postgres->connection, name, (int)column_count, values, lengths, formats, 1));
}

static uint64_t read_u64(const char *bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof value; i++) {
        value = value << 8 | (uint8_t)bytes[i];
    }
    return value;
}

static void take_numbers(struct store_postgres *postgres, const PGresult *result)
{
    const int rows = PQntuples(result);
    const int columns = PQnfields(result);
    for (int row = 0; row < rows; row++) {
        for (int column = 0; column < columns; column++) {
            CHECK(postgres->number_count < postgres->number_max);
            CHECK(PQgetlength(result, row, column) == (int)sizeof(uint64_t));
            postgres->numbers[postgres->number_count++] = read_u64(PQgetvalue(result, row, column));
        }
    }
}

static void take_error(struct store_postgres *postgres, const PGresult *result)
{
    const char *const sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *const primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    postgres->failed = true;
    postgres->kind = sqlstate_kind(sqlstate);
    if (sqlstate != NULL && primary != NULL) {
        (void)snprintf(postgres->cause, sizeof postgres->cause, "%s (SQLSTATE %s)", primary, sqlstate);
        flatten(postgres->cause);
    } else {
        set_cause(postgres, PQresultErrorMessage(result));
    }
}

static enum store_postgres_event converse(struct store_postgres *postgres)
{
    if (PQconsumeInput(postgres->connection) == 0 || !flush(postgres)) {
        (void)lost(postgres);
        return STORE_POSTGRES_LOST;
    }
    while (PQisBusy(postgres->connection) == 0) {
        PGresult *const result = PQgetResult(postgres->connection);
        if (result == NULL) {
            const bool was_asked = postgres->is_asked;
            postgres->is_asked = false;
            return was_asked ? STORE_POSTGRES_ANSWERED : STORE_POSTGRES_NOTHING;
        }
        const ExecStatusType status = PQresultStatus(result);
        if (status == PGRES_TUPLES_OK) {
            take_numbers(postgres, result);
        } else if (status != PGRES_COMMAND_OK) {
            take_error(postgres, result);
        }
        PQclear(result);
    }
    return STORE_POSTGRES_NOTHING;
}

enum store_postgres_event store_postgres_on_event(struct store_postgres *postgres)
{
    unwatch(postgres);
    const enum store_postgres_event event = postgres->is_connecting ? go_on_connecting(postgres) : converse(postgres);
    if (event == STORE_POSTGRES_NOTHING && PQstatus(postgres->connection) == CONNECTION_BAD) {
        (void)lost(postgres);
        return STORE_POSTGRES_LOST;
    }
    if (event != STORE_POSTGRES_LOST) {
        watch(postgres);
    }
    return event;
}

const char *store_postgres_host(const struct store_postgres *postgres)
{
    return PQhost(postgres->connection);
}

const char *store_postgres_port(const struct store_postgres *postgres)
{
    return PQport(postgres->connection);
}

const char *store_postgres_database(const struct store_postgres *postgres)
{
    return PQdb(postgres->connection);
}
