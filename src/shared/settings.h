/* SPDX-License-Identifier: MIT */
/* Every setting of both programs, in one table: name, type, unit, default, range, help. It reads the environment and a
 * .env file, refuses with one line what is wrong, and makes `.env.template`, doc/settings.md and the manual pages'
 * lists.
 *
 * A value comes from the environment, else from .env, else it is the default; an empty value counts as none. Only the
 * program's own settings are judged, but a name that nobody knows is refused wherever .env is read.
 *
 * Invariant: after settings_load returned true, each field of the program is in its range. Memory: the caller's struct;
 * it holds no pointer. Thread: any one, at start. */
#ifndef POSTERN_SHARED_SETTINGS_H
#define POSTERN_SHARED_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "limits.h"
#include "log.h"
#include "span.h"

struct port;
struct text;

/* Whose a setting is; some belong to both. SETTINGS_COMPOSE: only docker-compose reads it. */
enum settings_program { SETTINGS_GATEWAY = 1, SETTINGS_PROCESSOR = 2, SETTINGS_COMPOSE = 4 };

enum settings_heartbeat_mode { SETTINGS_HEARTBEAT_PING, SETTINGS_HEARTBEAT_MESSAGE };
enum settings_session_policy { SETTINGS_SESSION_REJECT, SETTINGS_SESSION_TAKEOVER, SETTINGS_SESSION_TAKEOVER_STALE };
enum settings_queue_type { SETTINGS_QUEUE_QUORUM, SETTINGS_QUEUE_CLASSIC };
enum settings_spool_full { SETTINGS_SPOOL_BUSY, SETTINGS_SPOOL_DROP_OLDEST };
enum settings_poller { SETTINGS_POLLER_AUTO, SETTINGS_POLLER_POLL, SETTINGS_POLLER_EPOLL };

enum {
    SETTINGS_TEXT_BYTES_MAX = 1023, /* any value */
    SETTINGS_DIR_BYTES_MAX = 255,   /* a folder */
    SETTINGS_COUNT_MAX = 64,
    SETTINGS_ERROR_BYTES_MAX = 2048,
    SETTINGS_ENV_BYTES_MAX = 64 * 1024, /* a .env file */
};

/* Texts are terminated. Fields of the other program are zero. */
struct settings {
    /* The gateway's. */
    char listen_address[64]; /* LISTEN_ADDRESS; a numeric address */
    uint32_t port;
    char gateway_id[GATEWAY_ID_BYTES_MAX + 1];
    uint32_t max_connections;
    uint32_t max_message_bytes;
    uint32_t handshake_timeout_ms;
    uint32_t heartbeat_interval_s;
    uint32_t heartbeat_timeout_s;
    enum settings_heartbeat_mode heartbeat_mode;
    enum settings_session_policy session_policy;
    char routes[SETTINGS_TEXT_BYTES_MAX + 1];
    uint32_t outbox_messages;
    uint64_t outbox_bytes;
    uint32_t publish_window;
    char spool_dir[SETTINGS_DIR_BYTES_MAX + 1];
    uint64_t spool_max_bytes; /* 0: no spool */
    enum settings_spool_full spool_full;
    uint32_t send_queue_bytes;
    uint32_t drain_ms;
    uint64_t memory_limit_bytes; /* 0: none */
    enum settings_poller poller;

    /* The processor's. */
    char database_url[SETTINGS_TEXT_BYTES_MAX + 1];
    char processor_queue[QUEUE_NAME_BYTES_MAX + 1];
    uint32_t processor_batch;
    uint32_t processor_batch_ms;
    uint32_t processor_prefetch;

    /* Both programs'. */
    char admin_address[64];                         /* ADMIN_ADDRESS or PROCESSOR_ADMIN_ADDRESS; a numeric address */
    uint32_t admin_port;                            /* ADMIN_PORT or PROCESSOR_ADMIN_PORT; 0: no admin pages */
    char rabbitmq_url[SETTINGS_TEXT_BYTES_MAX + 1]; /* one or several, separated by commas */
    enum settings_queue_type queue_type;
    uint32_t amqp_heartbeat_s;
    char log_file[LOG_PATH_BYTES_MAX + 1]; /* GATEWAY_LOG_FILE or PROCESSOR_LOG_FILE */
    enum log_level log_level;
    uint64_t log_max_bytes;
    uint32_t log_files;
    bool log_messages;
    bool log_stdout;

    /* Where each value came from, for settings_print. */
    enum settings_program program;
    uint32_t origins[SETTINGS_COUNT_MAX];
};

struct settings_sources {
    /* The environment: the value of a name, or NULL. */
    const char *(*lookup)(void *context, const char *name);
    void *context;
    const struct port *port; /* judges the addresses */
    struct span env_text;    /* the .env file's bytes; empty where there is none */
    const char *env_name;    /* what to call it in messages: ".env" */
    const char *host_name;   /* GATEWAY_ID's default */
};

/* Fills `settings` for one program. False: `error` holds one line without a newline that names where, the setting, its
 * value (secrets masked) and what is allowed: ".env:12: PORT=99999 is out of range: 1 to 65535". */
bool settings_load(struct settings *settings, enum settings_program program, const struct settings_sources *sources,
                   struct text *error);

/* What --check prints: a line for each of the program's settings with its value and where that came from. Secrets and
 * passwords within URLs are masked. 16 KiB are enough. */
void settings_print(const struct settings *settings, const struct settings_sources *sources, struct text *out);

/* A URL, or several separated by commas, with each password as ***; for logs too. */
void settings_mask_url(struct text *out, struct span url);

/* The whole of `.env.template`, the table in doc/settings.md, and what a program's manual page lists, in mdoc; 32 KiB
 * are enough for each. */
void settings_template(struct text *out);
void settings_markdown(struct text *out);
void settings_manual(struct text *out, enum settings_program program);

#endif
