/* SPDX-License-Identifier: MIT */
/* The table. Its order is the order of everything made from it: --check, `.env.template`, the README. */
#include "settings_table.h"

#include "envelope.h"
#include "text.h"

#define FIELD(member) .offset = offsetof(struct settings, member), .field_bytes = sizeof(((struct settings *)0)->member)

#define INTEGER(member, setting_unit, default_value, low, high)                                                        \
    .type = SETTING_INTEGER, .unit = (setting_unit), .default_text = (default_value), .min = (low), .max = (high),     \
    FIELD(member)
#define BYTES(member, default_value, low, high)                                                                        \
    .type = SETTING_BYTES, .unit = "bytes", .default_text = (default_value), .min = (low), .max = (high), FIELD(member)
#define TEXT(member, default_value)                                                                                    \
    .type = SETTING_TEXT, .unit = "", .default_text = (default_value),                                                 \
    .max = sizeof(((struct settings *)0)->member) - 1, FIELD(member)
#define ADDRESS(member, default_value)                                                                                 \
    .type = SETTING_ADDRESS, .unit = "", .default_text = (default_value),                                              \
    .max = sizeof(((struct settings *)0)->member) - 1, FIELD(member)
#define CHOICE(member, default_value, all)                                                                             \
    .type = SETTING_CHOICE, .unit = "", .default_text = (default_value), .choices = (all), FIELD(member)
#define BOOLEAN(member, default_value)                                                                                 \
    .type = SETTING_BOOLEAN, .unit = "", .default_text = (default_value), FIELD(member)
#define COMPOSE(default_value)                                                                                         \
    .type = SETTING_TEXT, .unit = "", .default_text = (default_value), .max = SETTINGS_TEXT_BYTES_MAX,                 \
    .programs = SETTINGS_COMPOSE

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

const struct setting settings_table[] = {
    {.name = "RABBITMQ_URL",
     .type = SETTING_BROKERS,
     .unit = "",
     .default_text = "amqp://guest:guest@127.0.0.1:5672",
     .max = SETTINGS_TEXT_BYTES_MAX,
     FIELD(rabbitmq_url),
     .programs = SETTINGS_GATEWAY | SETTINGS_PROCESSOR,
     .help = "Where RabbitMQ is: one amqp:// URL, or several with commas between, tried one after the other."},
    {.name = "QUEUE_TYPE",
     CHOICE(queue_type, "quorum", "quorum|classic"),
     .programs = SETTINGS_GATEWAY | SETTINGS_PROCESSOR,
     .help = "The type of a queue that does not exist yet; one that exists is used as it is."},
    {.name = "AMQP_HEARTBEAT",
     INTEGER(amqp_heartbeat_s, "s", "10", 1, 600),
     .programs = SETTINGS_GATEWAY | SETTINGS_PROCESSOR,
     .help = "Heartbeat asked of RabbitMQ; a link that is silent for twice as long is dead."},
    {.name = "LOG_LEVEL",
     CHOICE(log_level, "info", "error|warn|info|debug"),
     .programs = SETTINGS_GATEWAY | SETTINGS_PROCESSOR,
     .help = "The least important lines that are logged."},
    {.name = "LOG_MAX_BYTES",
     BYTES(log_max_bytes, "10M", 16 * KIB, 1 * GIB),
     .programs = SETTINGS_GATEWAY | SETTINGS_PROCESSOR,
     .help = "A log file never grows beyond this; the next one is begun first."},
    {.name = "LOG_FILES",
     INTEGER(log_files, "files", "5", 2, 100),
     .programs = SETTINGS_GATEWAY | SETTINGS_PROCESSOR,
     .help = "How many log files are kept, the present one counted."},
    {.name = "LOG_MESSAGES",
     BOOLEAN(log_messages, "0"),
     .programs = SETTINGS_GATEWAY | SETTINGS_PROCESSOR,
     .help = "1 logs each message's stages."},
    {.name = "LOG_STDOUT",
     BOOLEAN(log_stdout, "0"),
     .programs = SETTINGS_GATEWAY | SETTINGS_PROCESSOR,
     .help = "1 copies each log line to standard output."},

    {.name = "LISTEN_ADDRESS",
     ADDRESS(listen_address, "0.0.0.0"),
     .programs = SETTINGS_GATEWAY,
     .help = "The address the gateway listens on for WebSocket clients."},
    {.name = "PORT",
     INTEGER(port, "", "8000", 1, 65535),
     .programs = SETTINGS_GATEWAY,
     .help = "The TCP port for WebSocket clients."},
    {.name = "GATEWAY_ID",
     TEXT(gateway_id, NULL),
     .default_note = "the host's name",
     .form = gateway_id_valid,
     .form_text = "1 to 63 of A-Z a-z 0-9 . _ -",
     .programs = SETTINGS_GATEWAY,
     .help = "This gateway's name, unlike any other's on the same RabbitMQ."},
    {.name = "MAX_CONNECTIONS",
     INTEGER(max_connections, "clients", "1024", 1, 200000),
     .programs = SETTINGS_GATEWAY,
     .help = "How many clients may be connected at once."},
    {.name = "MAX_MESSAGE_BYTES",
     BYTES(max_message_bytes, "16384", 256, 1 * MIB),
     .programs = SETTINGS_GATEWAY,
     .help = "The longest message a client may send; a longer one closes its connection with 1009."},
    {.name = "HANDSHAKE_TIMEOUT_MS",
     INTEGER(handshake_timeout_ms, "ms", "10000", 100, 600000),
     .programs = SETTINGS_GATEWAY,
     .help = "How long a client may take for the WebSocket handshake."},
    {.name = "HEARTBEAT_INTERVAL",
     INTEGER(heartbeat_interval_s, "s", "30", 1, 3600),
     .programs = SETTINGS_GATEWAY,
     .help = "A client that was silent for so long is asked for a sign of life."},
    {.name = "HEARTBEAT_TIMEOUT",
     INTEGER(heartbeat_timeout_s, "s", "10", 1, 3600),
     .programs = SETTINGS_GATEWAY,
     .help = "How long a client may take for that sign before it is closed with 1001, or to take anything of what "
             "waits for it before it is closed with 1008."},
    {.name = "HEARTBEAT_MODE",
     CHOICE(heartbeat_mode, "ping", "ping|message"),
     .programs = SETTINGS_GATEWAY,
     .help = "Ask with a WebSocket ping, or with the message {\"type\":\"ping\"} for older clients."},
    {.name = "SESSION_POLICY",
     CHOICE(session_policy, "reject", "reject|takeover|takeover-stale"),
     .programs = SETTINGS_GATEWAY,
     .help = "When a client id connects again: refuse the newcomer, close the older one, or that only if it has been "
             "silent for HEARTBEAT_INTERVAL."},
    {.name = "ROUTES",
     TEXT(routes, "text,voice,video -> messages"),
     .programs = SETTINGS_GATEWAY,
     .help = "Which message types go to which queue; several routes are separated by a semicolon, and * stands for all "
             "other types."},
    {.name = "OUTBOX_MESSAGES",
     INTEGER(outbox_messages, "messages", "8192", 64, 1048576),
     .programs = SETTINGS_GATEWAY,
     .help = "How many messages the gateway holds until RabbitMQ has confirmed them."},
    {.name = "OUTBOX_BYTES",
     BYTES(outbox_bytes, "8M", 256 * KIB, 1 * GIB),
     .programs = SETTINGS_GATEWAY,
     .help = "How many bytes these messages may have together."},
    {.name = "PUBLISH_WINDOW",
     INTEGER(publish_window, "messages", "1024", 1, 65535),
     .programs = SETTINGS_GATEWAY,
     .help = "How many messages may be on their way to RabbitMQ without a confirm."},
    {.name = "SPOOL_DIR",
     TEXT(spool_dir, "spool"),
     .programs = SETTINGS_GATEWAY,
     .help = "The folder for messages that RabbitMQ cannot take now; one gateway's alone, made if it is missing."},
    {.name = "SPOOL_MAX_BYTES",
     BYTES(spool_max_bytes, "64M", 0, 4 * GIB),
     .programs = SETTINGS_GATEWAY,
     .help = "How much of the disk these messages may take, reserved at start (--plan says how long an outage that "
             "covers); 0 keeps them in memory alone, and then they do not outlive the gateway."},
    {.name = "SPOOL_FULL",
     CHOICE(spool_full, "busy", "busy|drop-oldest"),
     .programs = SETTINGS_GATEWAY,
     .help = "When that is full: stop reading clients and tell them so, or drop the oldest messages, of which each is "
             "logged and its client told."},
    {.name = "SEND_QUEUE_BYTES",
     BYTES(send_queue_bytes, "64K", 4 * KIB, 16 * MIB),
     .programs = SETTINGS_GATEWAY,
     .help = "What may wait for one client to read it; a client with more is closed as too slow."},
    {.name = "DRAIN_MS",
     INTEGER(drain_ms, "ms", "5000", 0, 600000),
     .programs = SETTINGS_GATEWAY,
     .help = "After SIGTERM the clients are told within this time, spread evenly, and the outbox is emptied."},
    {.name = "MEMORY_LIMIT",
     BYTES(memory_limit_bytes, "0", 0, 64 * GIB),
     .programs = SETTINGS_GATEWAY,
     .help = "The gateway does not start if its memory, the total of --plan, would be more than this; 0 is no limit."},
    {.name = "POLLER",
     CHOICE(poller, "auto", "auto|poll|epoll"),
     .programs = SETTINGS_GATEWAY,
     .help = "How sockets are waited for; auto takes epoll where there is one and many connections are allowed."},
    {.name = "ADMIN_ADDRESS",
     ADDRESS(admin_address, "127.0.0.1"),
     .programs = SETTINGS_GATEWAY,
     .help = "The address of the gateway's admin pages: health, metrics, and a live page for people."},
    {.name = "ADMIN_PORT",
     INTEGER(admin_port, "", "8081", 0, 65535),
     .programs = SETTINGS_GATEWAY,
     .help = "Their TCP port; 0 serves none."},
    {.name = "GATEWAY_LOG_FILE",
     TEXT(log_file, "logs/websocket.log"),
     .programs = SETTINGS_GATEWAY,
     .help = "The gateway's log file; its folder is made if it is missing."},

    {.name = "DATABASE_URL",
     .type = SETTING_DATABASE,
     .unit = "",
     .default_note = "postgresql://postern:postern@127.0.0.1:5432/postern",
     .max = SETTINGS_TEXT_BYTES_MAX,
     FIELD(database_url),
     .required = true,
     .programs = SETTINGS_PROCESSOR,
     .help = "Where PostgreSQL is; alembic reads it too."},
    {.name = "PROCESSOR_QUEUE",
     TEXT(processor_queue, "messages"),
     .programs = SETTINGS_PROCESSOR,
     .help = "The queue the processor consumes; dead letters go to the queue of that name with .dead behind it."},
    {.name = "PROCESSOR_BATCH",
     INTEGER(processor_batch, "messages", "500", 1, 10000),
     .programs = SETTINGS_PROCESSOR,
     .help = "The most messages stored in one transaction."},
    {.name = "PROCESSOR_BATCH_MS",
     INTEGER(processor_batch_ms, "ms", "20", 0, 10000),
     .programs = SETTINGS_PROCESSOR,
     .help = "How long a message waits at most for its batch to fill."},
    {.name = "PROCESSOR_PREFETCH",
     INTEGER(processor_prefetch, "messages", NULL, 1, 65535),
     .default_note = "four times PROCESSOR_BATCH",
     .programs = SETTINGS_PROCESSOR,
     .help = "How many messages RabbitMQ hands out ahead of their acknowledgement; not less than PROCESSOR_BATCH."},
    {.name = "PROCESSOR_ADMIN_ADDRESS",
     ADDRESS(admin_address, "127.0.0.1"),
     .programs = SETTINGS_PROCESSOR,
     .help = "The address of the processor's admin pages: health and metrics."},
    {.name = "PROCESSOR_ADMIN_PORT",
     INTEGER(admin_port, "", "8082", 0, 65535),
     .programs = SETTINGS_PROCESSOR,
     .help = "Their TCP port; 0 serves none."},
    {.name = "PROCESSOR_LOG_FILE",
     TEXT(log_file, "logs/message_processor.log"),
     .programs = SETTINGS_PROCESSOR,
     .help = "The processor's log file; its folder is made if it is missing."},

    {.name = "COMPOSE_PROJECT_NAME", COMPOSE("postern"), .help = "The name docker-compose gives to all it makes."},
    {.name = "RABBITMQ_DEFAULT_USER",
     COMPOSE("postern"),
     .help = "The user that RabbitMQ's volume is made with; of letters, digits and - . _ ~ as it stands in a URL."},
    {.name = "RABBITMQ_DEFAULT_PASS",
     COMPOSE("postern"),
     .secret = true,
     .help = "That user's password, of the same characters; a later change counts only once RabbitMQ is told too."},
    {.name = "RABBITMQ_MANAGEMENT_PORT", COMPOSE("15672"), .help = "The host's port for RabbitMQ's pages."},
    {.name = "POSTGRES_USER",
     COMPOSE("postern"),
     .help = "The user that PostgreSQL's volume is made with; of the same characters."},
    {.name = "POSTGRES_PASSWORD",
     COMPOSE("postern"),
     .secret = true,
     .help = "That user's password, of the same characters; a later change counts only once PostgreSQL is told too."},
    {.name = "POSTGRES_DB", COMPOSE("postern"), .help = "The database that PostgreSQL's volume is made with."},
    {.name = "LOCUST_PORT", COMPOSE("8089"), .help = "The host's port for Locust's page."},
};

const size_t settings_table_count = sizeof settings_table / sizeof settings_table[0];

_Static_assert(sizeof settings_table / sizeof settings_table[0] <= SETTINGS_COUNT_MAX,
               "origins[] has a place for each");
_Static_assert(sizeof(enum settings_poller) == sizeof(unsigned) && sizeof(enum log_level) == sizeof(unsigned) &&
                   sizeof(enum settings_queue_type) == sizeof(unsigned) &&
                   sizeof(enum settings_spool_full) == sizeof(unsigned) &&
                   sizeof(enum settings_heartbeat_mode) == sizeof(unsigned) &&
                   sizeof(enum settings_session_policy) == sizeof(unsigned),
               "a choice is stored as an unsigned");

size_t settings_find(struct span name)
{
    size_t row = 0;
    while (row < settings_table_count && !span_is(name, settings_table[row].name)) {
        row++;
    }
    return row;
}

/* The next name of "a|b|c" from *at on; false when there is none. */
static bool next_choice(const char *choices, size_t *at, struct span *name)
{
    if (choices[*at] == '\0') {
        return false;
    }
    size_t bytes = strcspn(choices + *at, "|");
    *name = span_of(choices + *at, bytes);
    *at += bytes + (choices[*at + bytes] == '|' ? 1 : 0);
    return true;
}

size_t settings_choice_index(const char *choices, struct span name)
{
    struct span choice;
    size_t at = 0;
    for (size_t index = 0; next_choice(choices, &at, &choice); index++) {
        if (span_equal(choice, name)) {
            return index;
        }
    }
    return SIZE_MAX;
}

struct span settings_choice_name(const char *choices, size_t index)
{
    struct span choice = {NULL, 0};
    size_t at = 0;
    for (size_t passed = 0; passed <= index && next_choice(choices, &at, &choice); passed++) {
    }
    return choice;
}

void settings_write_bytes(struct text *out, uint64_t bytes)
{
    static const char suffixes[] = {'G', 'M', 'K'};
    uint64_t unit = GIB;
    for (size_t index = 0; index < sizeof suffixes; index++, unit /= 1024) {
        if (bytes >= unit && bytes % unit == 0) {
            text_u64(out, bytes / unit);
            text_char(out, suffixes[index]);
            return;
        }
    }
    text_u64(out, bytes);
}

static void write_choices(struct text *out, const char *choices)
{
    struct span choice;
    size_t at = 0;
    for (size_t index = 0; next_choice(choices, &at, &choice); index++) {
        text_string(out, index == 0 ? "" : ", ");
        text_bytes(out, choice);
    }
}

void settings_write_range(struct text *out, const struct setting *setting)
{
    switch (setting->type) {
    case SETTING_INTEGER:
        text_u64(out, setting->min);
        text_string(out, " to ");
        text_u64(out, setting->max);
        text_string(out, setting->unit[0] == '\0' ? "" : " ");
        text_string(out, setting->unit);
        return;
    case SETTING_BYTES:
        settings_write_bytes(out, setting->min);
        text_string(out, " to ");
        settings_write_bytes(out, setting->max);
        text_string(out, " bytes");
        return;
    case SETTING_CHOICE:
        write_choices(out, setting->choices);
        return;
    case SETTING_BOOLEAN:
        text_string(out, "0 or 1");
        return;
    case SETTING_ADDRESS:
        text_string(out, "a numeric IPv4 or IPv6 address");
        return;
    case SETTING_BROKERS:
        text_string(out, "amqp://user:password@host:5672/vhost");
        return;
    case SETTING_DATABASE:
        text_string(out, "postgresql://user:password@host:5432/database");
        return;
    case SETTING_TEXT:
        break;
    }
    if (setting->form_text != NULL) {
        text_string(out, setting->form_text);
    } else {
        text_string(out, "1 to ");
        text_u64(out, setting->max);
        text_string(out, " bytes");
    }
}
