/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "guard_page.h"
#include "port_posix.h"
#include "settings.h"
#include "text.h"
#include "utf8.h"

enum { NAMES_MAX = 8 };

/* A small environment: NAME=value texts. */
static const char *environment[NAMES_MAX];
static struct settings settings;
static struct port port;
static char error_memory[SETTINGS_ERROR_BYTES_MAX];
static struct guard_page guard;

static const char *look_up(void *context, const char *name)
{
    (void)context;
    size_t bytes = strlen(name);
    for (size_t index = 0; index < NAMES_MAX && environment[index] != NULL; index++) {
        if (strncmp(environment[index], name, bytes) == 0 && environment[index][bytes] == '=') {
            return environment[index] + bytes + 1;
        }
    }
    return NULL;
}

static struct settings_sources sources_of(const char *env)
{
    return (struct settings_sources){.lookup = look_up,
                                     .port = &port,
                                     .env_text = span_of(guard_page_put(&guard, env, strlen(env)), strlen(env)),
                                     .env_name = ".env",
                                     .host_name = "host-1"};
}

/* Loads with one value in the environment at most; the error line, or "" when there is none. */
static const char *load(enum settings_program program, const char *env, const char *variable)
{
    environment[0] = variable;
    environment[1] = program == SETTINGS_PROCESSOR && variable != NULL && strncmp(variable, "DATABASE_URL", 12) == 0
                         ? NULL
                         : "DATABASE_URL=postgresql://127.0.0.1/postern";
    if (variable == NULL) {
        environment[0] = environment[1];
        environment[1] = NULL;
    }
    struct settings_sources sources = sources_of(env);
    struct text error = text_in(error_memory, sizeof error_memory - 1);
    bool good = settings_load(&settings, program, &sources, &error);
    assert_false(error.truncated);
    error_memory[error.used_bytes] = '\0';
    assert_int_equal(good, error.used_bytes == 0);
    assert_null(strchr(error_memory, '\n'));
    return error_memory;
}

static void defaults_are_those_of_the_product(void **state)
{
    (void)state;
    assert_string_equal(load(SETTINGS_GATEWAY, "", NULL), "");
    assert_string_equal(settings.listen_address, "0.0.0.0");
    assert_int_equal(settings.port, 8000);
    assert_string_equal(settings.gateway_id, "host-1");
    assert_string_equal(settings.rabbitmq_url, "amqp://guest:guest@127.0.0.1:5672");
    assert_int_equal(settings.max_connections, 1024);
    assert_int_equal(settings.max_message_bytes, 16384);
    assert_int_equal(settings.handshake_timeout_ms, 10000);
    assert_int_equal(settings.heartbeat_interval_s, 30);
    assert_int_equal(settings.heartbeat_timeout_s, 10);
    assert_int_equal(settings.heartbeat_mode, SETTINGS_HEARTBEAT_PING);
    assert_int_equal(settings.session_policy, SETTINGS_SESSION_REJECT);
    assert_string_equal(settings.routes, "text,voice,video -> messages");
    assert_int_equal(settings.queue_type, SETTINGS_QUEUE_QUORUM);
    assert_int_equal(settings.outbox_messages, 8192);
    assert_true(settings.outbox_bytes == UINT64_C(8) << 20);
    assert_int_equal(settings.publish_window, 1024);
    assert_int_equal(settings.send_queue_bytes, 65536);
    assert_int_equal(settings.drain_ms, 5000);
    assert_int_equal(settings.poller, SETTINGS_POLLER_AUTO);
    assert_int_equal(settings.amqp_heartbeat_s, 10);
    assert_string_equal(settings.log_file, "logs/websocket.log");
    assert_int_equal(settings.log_level, LOG_INFO);
    assert_true(settings.log_max_bytes == UINT64_C(10) << 20);
    assert_int_equal(settings.log_files, 5);
    assert_false(settings.log_messages || settings.log_stdout);
    assert_string_equal(settings.database_url, "");
    assert_int_equal(settings.processor_batch, 0);

    assert_string_equal(load(SETTINGS_PROCESSOR, "", NULL), "");
    assert_string_equal(settings.database_url, "postgresql://127.0.0.1/postern");
    assert_string_equal(settings.processor_queue, "messages");
    assert_int_equal(settings.processor_batch, 500);
    assert_int_equal(settings.processor_batch_ms, 20);
    assert_int_equal(settings.processor_prefetch, 2000);
    assert_string_equal(settings.log_file, "logs/message_processor.log");
    assert_int_equal(settings.port, 0);
    assert_int_equal(settings.origins[0], 0);
}

static void every_type_is_read(void **state)
{
    (void)state;
    static const char env[] = "PORT=9000\nOUTBOX_BYTES=1G\nSEND_QUEUE_BYTES=8k\nMAX_MESSAGE_BYTES=1M\nLOG_MESSAGES=1\n"
                              "HEARTBEAT_MODE=message\nSESSION_POLICY=takeover-stale\nQUEUE_TYPE=classic\n"
                              "POLLER=epoll\nLOG_LEVEL=debug\nLOG_MAX_BYTES=16384\nGATEWAY_ID=gw-1.site_2\n"
                              "LISTEN_ADDRESS=::1\nDRAIN_MS=0\nROUTES=text -> a; * -> b\n"
                              "RABBITMQ_URL=amqp://a:b@one,amqp://a:b@two:5673/%2F\n";
    assert_string_equal(load(SETTINGS_GATEWAY, env, NULL), "");
    assert_int_equal(settings.port, 9000);
    assert_true(settings.outbox_bytes == UINT64_C(1) << 30);
    assert_int_equal(settings.send_queue_bytes, 8192);
    assert_int_equal(settings.max_message_bytes, 1 << 20);
    assert_true(settings.log_messages);
    assert_int_equal(settings.heartbeat_mode, SETTINGS_HEARTBEAT_MESSAGE);
    assert_int_equal(settings.session_policy, SETTINGS_SESSION_TAKEOVER_STALE);
    assert_int_equal(settings.queue_type, SETTINGS_QUEUE_CLASSIC);
    assert_int_equal(settings.poller, SETTINGS_POLLER_EPOLL);
    assert_int_equal(settings.log_level, LOG_DEBUG);
    assert_true(settings.log_max_bytes == 16384);
    assert_string_equal(settings.gateway_id, "gw-1.site_2");
    assert_string_equal(settings.listen_address, "::1");
    assert_int_equal(settings.drain_ms, 0);
    assert_string_equal(settings.routes, "text -> a; * -> b");
    assert_string_equal(settings.rabbitmq_url, "amqp://a:b@one,amqp://a:b@two:5673/%2F");
}

static void the_environment_wins_and_empty_is_none(void **state)
{
    (void)state;
    assert_string_equal(load(SETTINGS_GATEWAY, "PORT=9000\n", "PORT=9001"), "");
    assert_int_equal(settings.port, 9001);
    assert_string_equal(load(SETTINGS_GATEWAY, "PORT=9000\n", "PORT="), "");
    assert_int_equal(settings.port, 9000);
    assert_string_equal(load(SETTINGS_GATEWAY, "PORT=\n", "PORT="), "");
    assert_int_equal(settings.port, 8000);
}

static void errors_name_place_name_value_and_range(void **state)
{
    (void)state;
    static const struct {
        const char *env;
        const char *variable;
        const char *error;
    } cases[] = {
        {"\n\n# c\nPORT=99999\n", NULL, ".env:4: PORT=99999 is out of range: 1 to 65535"},
        {"PORT=0", NULL, ".env:1: PORT=0 is out of range: 1 to 65535"},
        {"", "PORT=65536", "environment: PORT=65536 is out of range: 1 to 65535"},
        {"", "PORT=18446744073709551616", "environment: PORT=18446744073709551616 is out of range: 1 to 65535"},
        {"", "PORT=-1", "environment: PORT=-1 is not a whole number: 1 to 65535"},
        {"", "PORT=+1", "environment: PORT=+1 is not a whole number: 1 to 65535"},
        {"", "PORT=8000 ", "environment: PORT=8000  is not a whole number: 1 to 65535"},
        {"", "PORT=8k", "environment: PORT=8k is not a whole number: 1 to 65535"},
        {"", "PORT=08000", "environment: PORT=08000 is not a whole number: 1 to 65535"},
        {"", "PORT=0x50", "environment: PORT=0x50 is not a whole number: 1 to 65535"},
        {"", "HEARTBEAT_INTERVAL=4000", "environment: HEARTBEAT_INTERVAL=4000 is out of range: 1 to 3600 s"},
        {"", "OUTBOX_BYTES=2G", "environment: OUTBOX_BYTES=2G is out of range: 256K to 1G bytes"},
        {"", "OUTBOX_BYTES=18446744073709551615K",
         "environment: OUTBOX_BYTES=18446744073709551615K is out of range: 256K to 1G bytes"},
        /* Which would be 1M in 64 bits. */
        {"", "OUTBOX_BYTES=18014398509483008K",
         "environment: OUTBOX_BYTES=18014398509483008K is out of range: 256K to 1G bytes"},
        {"", "OUTBOX_BYTES=K",
         "environment: OUTBOX_BYTES=K is not a whole number, or one with K, M or G: 256K to 1G bytes"},
        {"", "OUTBOX_BYTES=8MB",
         "environment: OUTBOX_BYTES=8MB is not a whole number, or one with K, M or G: 256K to 1G bytes"},
        {"", "OUTBOX_BYTES=1.5M",
         "environment: OUTBOX_BYTES=1.5M is not a whole number, or one with K, M or G: 256K to 1G bytes"},
        {"LOG_MESSAGES=yes", NULL, ".env:1: LOG_MESSAGES=yes is not 0 or 1"},
        {"HEARTBEAT_MODE=pong", NULL, ".env:1: HEARTBEAT_MODE=pong is none of: ping, message"},
        {"HEARTBEAT_MODE=PING", NULL, ".env:1: HEARTBEAT_MODE=PING is none of: ping, message"},
        {"HEARTBEAT_MODE=ping|message", NULL, ".env:1: HEARTBEAT_MODE=ping|message is none of: ping, message"},
        {"GATEWAY_ID=a/b", NULL, ".env:1: GATEWAY_ID=a/b is not what it must be: 1 to 63 of A-Z a-z 0-9 . _ -"},
        {"LISTEN_ADDRESS=localhost", NULL,
         ".env:1: LISTEN_ADDRESS=localhost is not what it must be: a numeric IPv4 or IPv6 address"},
        {"LISTEN_ADDRESS=1.2.3", NULL,
         ".env:1: LISTEN_ADDRESS=1.2.3 is not what it must be: a numeric IPv4 or IPv6 address"},
        {"", "ADMIN_ADDRESS=300.1.1.1",
         "environment: ADMIN_ADDRESS=300.1.1.1 is not what it must be: a numeric IPv4 or IPv6 address"},
        {"", "ADMIN_ADDRESS=1::2::3",
         "environment: ADMIN_ADDRESS=1::2::3 is not what it must be: a numeric IPv4 or IPv6 address"},
        {"", "RABBITMQ_URL=amqp://u:sec ret@host",
         "environment: RABBITMQ_URL=amqp://u:***@host is wrong: a URL holds no blank (in user, password or vhost it is "
         "written %20)"},
        {"", "RABBITMQ_URL=http://u:secret@host", NULL},
        {"", "ROUTES=a\nb", "environment: ROUTES holds a control character or is not UTF-8"},
        {"", "ROUTES=\xff", "environment: ROUTES holds a control character or is not UTF-8"},
        {"OUTBOX_BYTES=256K\nMAX_MESSAGE_BYTES=1M\n", NULL,
         ".env:1: OUTBOX_BYTES=262144 must be at least 4198400: 4 x (MAX_MESSAGE_BYTES + 1024)"},
        {"MAX_CONECTIONS=5", NULL, ".env:1: MAX_CONECTIONS is not a setting; did you mean MAX_CONNECTIONS?"},
        {"port=5", NULL, ".env:1: port is not a setting; did you mean PORT?"},
        {"PROT=5", NULL, ".env:1: PROT is not a setting; did you mean PORT?"},
        {"HEARTBEAT_TIMOUT=5", NULL, ".env:1: HEARTBEAT_TIMOUT is not a setting; did you mean HEARTBEAT_TIMEOUT?"},
        {"SOMETHING_ELSE=5", NULL, ".env:1: SOMETHING_ELSE is not a setting"},
        {"A_NAME_THAT_IS_MUCH_LONGER_THAN_ANY_NAME_A_SETTING_HAS=5", NULL,
         ".env:1: A_NAME_THAT_IS_MUCH_LONGER_THAN_ANY_NAME_A_SETTING_HAS is not a setting"},
        {"PORT=1\nPORT=2", NULL, ".env:2: PORT is set a second time; the first is in line 1"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        const char *error = load(SETTINGS_GATEWAY, cases[index].env, cases[index].variable);
        if (cases[index].error == NULL) {
            assert_non_null(strstr(error, "environment: RABBITMQ_URL=http://u:***@host is wrong: "));
        } else {
            assert_string_equal(error, cases[index].error);
        }
    }
}

static void two_listeners_do_not_share_a_port(void **state)
{
    (void)state;
    static const struct {
        const char *env;
        const char *error;
    } cases[] = {
        {"PORT=8081", ".env:1: PORT=8081 is ADMIN_PORT too"},
        {"\nADMIN_PORT=8000", ".env:2: ADMIN_PORT=8000 is PORT too"},
        {"PORT=9000\nADMIN_PORT=9000\nLISTEN_ADDRESS=10.0.0.1", NULL},
        {"PORT=9000\nADMIN_PORT=9000\nLISTEN_ADDRESS=127.0.0.1", ".env:2: ADMIN_PORT=9000 is PORT too"},
        {"PORT=9000\nADMIN_PORT=9000\nLISTEN_ADDRESS=10.0.0.1\nADMIN_ADDRESS=0.0.0.0", ".env:2: ADMIN_PORT"},
        {"PORT=9000\nADMIN_PORT=9000\nLISTEN_ADDRESS=::", ".env:2: ADMIN_PORT"},
        {"PORT=9000\nADMIN_PORT=9000\nADMIN_ADDRESS=::", ".env:2: ADMIN_PORT"},
        {"PORT=9000\nADMIN_PORT=9000\nADMIN_ADDRESS=::1", NULL},
        {"PORT=9000\nADMIN_PORT=9000\nLISTEN_ADDRESS=::1\nADMIN_ADDRESS=0:0::1", ".env:2: ADMIN_PORT"},
        {"PORT=9000\nADMIN_PORT=0\n", NULL},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        const char *error = load(SETTINGS_GATEWAY, cases[index].env, NULL);
        if (cases[index].error == NULL) {
            assert_string_equal(error, "");
        } else if (strncmp(error, cases[index].error, strlen(cases[index].error)) != 0) {
            fail_msg("%s: %s", cases[index].env, error);
        }
    }
    assert_string_equal(load(SETTINGS_GATEWAY, "PORT=8081", NULL),
                        ".env:1: PORT=8081 is ADMIN_PORT too, and LISTEN_ADDRESS and ADMIN_ADDRESS overlap: choose "
                        "another");
    assert_string_equal(load(SETTINGS_PROCESSOR, "PORT=8082", NULL), "");
}

static void each_program_is_judged_by_its_own_settings(void **state)
{
    (void)state;
    static const char env[] = "PROCESSOR_BATCH=none\nPORT=8000\n";
    assert_string_equal(load(SETTINGS_GATEWAY, env, NULL), "");
    assert_string_equal(load(SETTINGS_PROCESSOR, env, NULL),
                        ".env:1: PROCESSOR_BATCH=none is not a whole number: 1 to 10000 messages");
    static const char other[] = "PORT=none\nRABBITMQ_DEFAULT_USER=a\nPOSTGRES_PASSWORD='b c'\nCOMPOSE_FILE=x.yml\n"
                                "DOCKER_BUILDKIT=1\n";
    assert_string_equal(load(SETTINGS_PROCESSOR, other, NULL), "");
    assert_string_equal(load(SETTINGS_GATEWAY, "PROCESSOR_ADMIN_ADDRESS=300.1.1.1", NULL), "");
    assert_string_equal(load(SETTINGS_PROCESSOR, "PROCESSOR_ADMIN_ADDRESS=300.1.1.1", NULL),
                        ".env:1: PROCESSOR_ADMIN_ADDRESS=300.1.1.1 is not what it must be: "
                        "a numeric IPv4 or IPv6 address");
    /* But a name that nobody knows is wrong whoever reads it. */
    assert_string_equal(load(SETTINGS_PROCESSOR, "MAX_CONECTION=1", NULL),
                        ".env:1: MAX_CONECTION is not a setting; did you mean MAX_CONNECTIONS?");
}

static void the_database_must_be_named(void **state)
{
    (void)state;
    assert_string_equal(load(SETTINGS_PROCESSOR, "", "DATABASE_URL="),
                        "environment: DATABASE_URL is not set; it has no default: "
                        "postgresql://user:password@host:5432/database");
    assert_string_equal(load(SETTINGS_PROCESSOR, "", "DATABASE_URL=mysql://u:secret@h/d"),
                        "environment: DATABASE_URL=mysql://u:***@h/d is not a PostgreSQL URL: "
                        "postgresql://user:password@host:5432/database");
    assert_string_equal(load(SETTINGS_PROCESSOR, "", "DATABASE_URL=postgres://h/d"), "");
    assert_string_equal(load(SETTINGS_PROCESSOR, "PROCESSOR_PREFETCH=10", NULL),
                        ".env:1: PROCESSOR_PREFETCH=10 must be at least 500: PROCESSOR_BATCH");
    assert_string_equal(load(SETTINGS_PROCESSOR, "PROCESSOR_BATCH=7", NULL), "");
    assert_int_equal(settings.processor_prefetch, 28);
}

static void a_host_name_that_is_no_gateway_id_is_refused(void **state)
{
    (void)state;
    environment[0] = NULL;
    struct settings_sources sources = sources_of("");
    sources.host_name = "my host";
    struct text error = text_in(error_memory, sizeof error_memory);
    assert_false(settings_load(&settings, SETTINGS_GATEWAY, &sources, &error));
    assert_true(span_is(text_span(&error), "default: GATEWAY_ID is not set, and the host's name cannot stand for it: "
                                           "1 to 63 of A-Z a-z 0-9 . _ -"));
}

/* The syntax of .env; ROUTES takes any text. */
static void env_lines_are_read_as_docker_compose_does(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        const char *value;
    } cases[] = {
        {"ROUTES=a", "a"},
        {"ROUTES=a\r", "a"},
        {"\xef\xbb\xbfROUTES=a", "a"},
        {"  ROUTES = a b \t", "a b"},
        {"export ROUTES=a", "a"},
        {"export\tROUTES=a", "a"},
        {"ROUTES=a # comment", "a"},
        {"ROUTES=a#b", "a#b"},
        {"ROUTES=a\t#b", "a"},
        {"ROUTES='a # b'", "a # b"},
        {"ROUTES='a $HOME \\n \"'  # c", "a $HOME \\n \""},
        {"ROUTES=\"a # b\"", "a # b"},
        {"ROUTES=\"\\\\ \\\" \\$ '\"", "\\ \" $ '"},
        {"ROUTES=a\"b'c", "a\"b'c"},
        {"ROUTES=a\\nb", "a\\nb"},
        {"ROUTES=a=b", "a=b"},
        {"ROUTES=$NAME", "value"},
        {"ROUTES=x${NAME}y$NAME", "xvalueyvalue"},
        {"ROUTES=\"x${NAME}\"", "xvalue"},
        {"ROUTES='${NAME}'", "${NAME}"},
        {"ROUTES=${NAME:-other}", "value"},
        {"ROUTES=${NONE:-other one}", "other one"},
        {"ROUTES=${NONE-other}", "other"},
        {"ROUTES=${EMPTY:-other}", "other"},
        {"ROUTES=a${EMPTY-other}", "a"},
        {"ROUTES=${NONE:-}a", "a"},
        {"ROUTES=$$NAME", "$NAME"},
        {"ROUTES=a ${EMPTY} b", "a  b"},
        {"POSTGRES_USER=me\nROUTES=${POSTGRES_USER}", "me"},
        {"GATEWAY_ID=g\nROUTES=\"${GATEWAY_ID}\"", "g"},
        {"\n\n   \n# ROUTES=b\n   # x\nROUTES=a\n\n", "a"},
        {"ROUTES=caf\xc3\xa9", "caf\xc3\xa9"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        environment[0] = "NAME=value";
        environment[1] = "EMPTY=";
        environment[2] = NULL;
        struct settings_sources sources = sources_of(cases[index].line);
        struct text error = text_in(error_memory, sizeof error_memory);
        if (!settings_load(&settings, SETTINGS_GATEWAY, &sources, &error)) {
            fail_msg("%s: %.*s", cases[index].line, (int)error.used_bytes, error_memory);
        }
        assert_string_equal(settings.routes, cases[index].value);
    }
}

static void wrong_env_lines_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        const char *error;
    } cases[] = {
        {"ROUTES", ".env:1: not of the form NAME=value"},
        {"ROUTES: a", ".env:1: not of the form NAME=value"},
        {"=a", ".env:1: not of the form NAME=value"},
        {"\n1A=b", ".env:2: not of the form NAME=value"},
        {"A-B=c", ".env:1: not of the form NAME=value"},
        {"export", ".env:1: not of the form NAME=value"},
        {"export =a", ".env:1: not of the form NAME=value"},
        {"ROUTES='a", ".env:1: a ' without a second one"},
        {"ROUTES=\"a", ".env:1: a \" without a second one"},
        {"ROUTES=\"a\\\"", ".env:1: a \" without a second one"},
        {"ROUTES=\"a\nb\"", ".env:1: a \" without a second one"},
        {"ROUTES='a'b", ".env:1: something behind the closing quote"},
        {"ROUTES='a'#b", ".env:1: something behind the closing quote"},
        {"ROUTES=\"a\\q\"", ".env:1: an escape other than \\\\ \\\" \\$ \\n \\r \\t"},
        {"ROUTES=\"a\\", ".env:1: an escape other than \\\\ \\\" \\$ \\n \\r \\t"},
        {"ROUTES=\"a\\nb\"", ".env:1: ROUTES holds a control character or is not UTF-8"},
        {"ROUTES=$", ".env:1: a $ that names no variable; write $$ for a dollar sign"},
        {"ROUTES=5$ ", ".env:1: a $ that names no variable; write $$ for a dollar sign"},
        {"ROUTES=${}", ".env:1: a $ that names no variable; write $$ for a dollar sign"},
        {"ROUTES=${NAME", ".env:1: a form of ${...} other than ${NAME}, ${NAME-default} and ${NAME:-default}"},
        {"ROUTES=${NAME:?x}", ".env:1: a form of ${...} other than ${NAME}, ${NAME-default} and ${NAME:-default}"},
        {"ROUTES=${NAME+x}", ".env:1: a form of ${...} other than ${NAME}, ${NAME-default} and ${NAME:-default}"},
        {"ROUTES=${NONE:-x", ".env:1: a ${ without its }"},
        {"ROUTES=${NONE:-$NAME}", ".env:1: a ${ without its }"},
        {"ROUTES=$NONE", ".env:1: ${NONE} is not set"},
        {"ROUTES=$GATEWAY_ID\nGATEWAY_ID=a", ".env:1: ${GATEWAY_ID} is not set"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        assert_string_equal(load(SETTINGS_GATEWAY, cases[index].line, "NAME=value"), cases[index].error);
    }
    struct settings_sources sources = sources_of("");
    struct text error = text_in(error_memory, sizeof error_memory);
    sources.env_text = (struct span)SPAN("PORT=1\nROUTES=a\0b\n");
    assert_false(settings_load(&settings, SETTINGS_GATEWAY, &sources, &error));
    assert_true(span_is(text_span(&error), ".env:2: a zero byte"));
}

static void long_values_are_refused_or_fit(void **state)
{
    (void)state;
    static char env[SETTINGS_TEXT_BYTES_MAX + 32];
    for (size_t bytes = SETTINGS_TEXT_BYTES_MAX - 1; bytes <= SETTINGS_TEXT_BYTES_MAX + 1; bytes++) {
        size_t name_bytes = (size_t)snprintf(env, sizeof env, "ROUTES=");
        memset(env + name_bytes, 'a', bytes);
        env[name_bytes + bytes] = '\0';
        const char *error = load(SETTINGS_GATEWAY, env, NULL);
        assert_string_equal(error, bytes <= SETTINGS_TEXT_BYTES_MAX ? "" : ".env:1: ROUTES is longer than 1023 bytes");
        /* The same from the environment; the message shows only its beginning. */
        error = load(SETTINGS_GATEWAY, "", env);
        assert_int_equal(error[0] != '\0', bytes > SETTINGS_TEXT_BYTES_MAX);
        assert_true(strlen(error) < 300);
    }
    static const char name[] = "GATEWAY_LOG_FILE=";
    memcpy(env, name, sizeof name);
    memset(env + sizeof name - 1, 'p', 256);
    env[sizeof name - 1 + 256] = '\0';
    assert_non_null(strstr(load(SETTINGS_GATEWAY, "", env), "... is too long: 1 to 255 bytes"));
    env[sizeof name - 1 + 255] = '\0';
    assert_string_equal(load(SETTINGS_GATEWAY, "", env), "");
}

static const char *masked(const char *url)
{
    static char memory[1024];
    struct text text = text_in(memory, sizeof memory - 1);
    settings_mask_url(&text, span_text(url));
    memory[text.used_bytes] = '\0';
    return memory;
}

static void passwords_within_urls_are_masked(void **state)
{
    (void)state;
    assert_string_equal(masked("amqp://user:secret@host:5672/v"), "amqp://user:***@host:5672/v");
    assert_string_equal(masked("amqp://user@host"), "amqp://user@host");
    assert_string_equal(masked("amqp://host:5672/v"), "amqp://host:5672/v");
    assert_string_equal(masked("amqp://:secret@host"), "amqp://:***@host");
    assert_string_equal(masked("amqp://u:s1@h1,amqp://u:s2@h2"), "amqp://u:***@h1,amqp://u:***@h2");
    assert_string_equal(masked("amqp://h1,amqp://u:s2@h2"), "amqp://h1,amqp://u:***@h2");
    assert_string_equal(masked("postgresql://u:s@h1:1,h2:2/db?x=1"), "postgresql://u:***@h1:1,h2:2/db?x=1");
    assert_string_equal(masked("postgresql://h/db?password=s&user=u"), "postgresql://h/db?password=***&user=u");
    assert_string_equal(masked("postgresql://h/db?user=u&password=s"), "postgresql://h/db?user=u&password=***");
    assert_string_equal(masked("postgresql://u:a@h/db?password=b&sslpassword=c"),
                        "postgresql://u:***@h/db?password=***&sslpassword=***");
    /* An @ or a colon of the query's password is none of the login's. */
    assert_string_equal(masked("postgresql://h/db?user=u&password=TOP@SECRET"),
                        "postgresql://h/db?user=u&password=***");
    assert_string_equal(masked("postgresql://h:5432/db?password=TOP@SECRET&sslpassword=@&user=u"),
                        "postgresql://h:5432/db?password=***&sslpassword=***&user=u");
    assert_string_equal(masked("postgresql://u:a@h:5432/db?password=TOP@SECRET"),
                        "postgresql://u:***@h:5432/db?password=***");
    assert_string_equal(masked("postgresql://h/db?password=TOP:SECRET&user=a@b"),
                        "postgresql://h/db?password=***&user=a@b");
    /* libpq's other form, which is refused. */
    assert_string_equal(masked("host=h:1 password=TOP@SEC&RET"), "host=h:1 password=***");
    assert_string_equal(masked("user=passwords password = 'TOP SECRET'"), "user=passwords password =***");
    /* Passwords that should have been percent-encoded stay hidden too. */
    assert_string_equal(masked("postgresql://u:s?e@cr?et@h/db?x=1"), "postgresql://u:***@h/db?x=1");
    assert_string_equal(masked("amqp://u:se@cr@et@h"), "amqp://u:***@h");
    assert_string_equal(masked("amqp://u:se/cr,et@h/v"), "amqp://u:***@h/v");
    assert_string_equal(masked("user:secret@host"), "user:***@host");
    assert_string_equal(masked(""), "");
}

/* A value is cut in the error, and not within a character. */
static void shown_values_end_with_a_character(void **state)
{
    (void)state;
    char variable[512];
    for (size_t blanks = 0; blanks < 4; blanks++) {
        struct text text = text_in(variable, sizeof variable - 1);
        text_string(&text, "SPOOL_DIR=");
        for (size_t i = 0; i < blanks; i++) {
            text_char(&text, 'x');
        }
        while (text.used_bytes < 400) {
            text_string(&text, "\xF0\x9F\x92\xA7");
        }
        variable[text.used_bytes] = '\0';
        const char *error = load(SETTINGS_GATEWAY, "", variable);
        const char *dots = strstr(error, "... is too long");
        assert_non_null(dots);
        assert_true(utf8_valid(span_of(error, (size_t)(dots - error))));
    }
}

static void what_is_printed_can_be_read_again(void **state)
{
    (void)state;
    static char printed[16 * 1024];
    static char again[16 * 1024];
    assert_string_equal(load(SETTINGS_GATEWAY, "\nPORT=9000\nLOG_MESSAGES=1\nPOLLER=poll\n", "DRAIN_MS=7"), "");
    struct settings_sources sources = sources_of("");
    struct text text = text_in(printed, sizeof printed - 1);
    settings_print(&settings, &sources, &text);
    assert_false(text.truncated);
    printed[text.used_bytes] = '\0';
    assert_non_null(strstr(printed, "\nPORT=9000 # .env:2\n"));
    assert_non_null(strstr(printed, "\nLOG_MESSAGES=1 # .env:3\n"));
    assert_non_null(strstr(printed, "\nPOLLER=poll # .env:4\n"));
    assert_non_null(strstr(printed, "\nDRAIN_MS=7 # environment\n"));
    assert_non_null(strstr(printed, "\nOUTBOX_BYTES=8388608 # default\n"));
    assert_non_null(strstr(printed, "\nGATEWAY_ID=host-1 # default\n"));
    assert_non_null(strstr(printed, "RABBITMQ_URL=amqp://guest:***@127.0.0.1:5672 # default\n"));
    assert_null(strstr(printed, "PROCESSOR"));
    assert_null(strstr(printed, "POSTGRES"));
    struct settings before = settings;
    assert_string_equal(load(SETTINGS_GATEWAY, printed, NULL), "");
    assert_int_equal(settings.port, before.port);
    assert_int_equal(settings.drain_ms, before.drain_ms);
    assert_string_equal(settings.routes, before.routes);
    struct text second = text_in(again, sizeof again);
    settings_print(&settings, &sources, &second);
    assert_false(second.truncated);

    assert_string_equal(load(SETTINGS_PROCESSOR, "", "DATABASE_URL=postgresql://u:secret@h/d"), "");
    text = text_in(printed, sizeof printed - 1);
    settings_print(&settings, &sources, &text);
    printed[text.used_bytes] = '\0';
    assert_non_null(strstr(printed, "DATABASE_URL=postgresql://u:***@h/d # environment\n"));
    assert_non_null(strstr(printed, "PROCESSOR_PREFETCH=2000 # default\n"));
    assert_null(strstr(printed, "secret"));
}

static void what_is_printed_has_its_quotes(void **state)
{
    (void)state;
    static char printed[16 * 1024];
    static const char *const folders[] = {"a # b", "it's", "$HOME", "c:\\d", "\"q\" and '$x' \\ #", " blank "};
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        char variable[64];
        (void)snprintf(variable, sizeof variable, "SPOOL_DIR=%s", folders[i]);
        assert_string_equal(load(SETTINGS_GATEWAY, "", variable), "");
        struct settings_sources sources = sources_of("");
        struct text text = text_in(printed, sizeof printed - 1);
        settings_print(&settings, &sources, &text);
        assert_false(text.truncated);
        printed[text.used_bytes] = '\0';
        assert_string_equal(load(SETTINGS_GATEWAY, printed, NULL), "");
        assert_string_equal(settings.spool_dir, folders[i]);
    }
}

static const char *read_source(const char *name)
{
    static char contents[64 * 1024];
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/%s", POSTERN_SOURCE_DIR, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fail_msg("%s is missing", path);
    }
    size_t bytes = fread(contents, 1, sizeof contents - 1, file);
    (void)fclose(file);
    contents[bytes] = '\0';
    return contents;
}

static void the_template_is_made_from_the_table(void **state)
{
    (void)state;
    static char made[32 * 1024];
    struct text text = text_in(made, sizeof made - 1);
    settings_template(&text);
    assert_false(text.truncated);
    made[text.used_bytes] = '\0';
    if (strcmp(read_source(".env.template"), made) != 0) {
        fail_msg(".env.template differs from the table: run settings_table template > .env.template");
    }
}

/* Compares what stands between two lines of a document with what was made. */
static void expect_between(const char *name, const char *from, const char *to, const struct text *made)
{
    assert_false(made->truncated);
    const char *start = strstr(read_source(name), from);
    assert_non_null(start);
    start += strlen(from);
    const char *end = strstr(start, to);
    assert_non_null(end);
    if ((size_t)(end - start) != made->used_bytes || memcmp(start, made->data, made->used_bytes) != 0) {
        fail_msg("%s differs from the table: put between its settings marks what settings_table prints", name);
    }
}

static void the_documents_have_the_table(void **state)
{
    (void)state;
    static char made[32 * 1024];
    struct text text = text_in(made, sizeof made);
    settings_markdown(&text);
    expect_between("doc/settings.md", "<!-- settings -->\n", "<!-- /settings -->", &text);
    text = text_in(made, sizeof made);
    settings_manual(&text, SETTINGS_GATEWAY);
    expect_between("doc/man/postern-gateway.1", ".\\\" settings\n", ".\\\" /settings", &text);
    text = text_in(made, sizeof made);
    settings_manual(&text, SETTINGS_PROCESSOR);
    expect_between("doc/man/postern-processor.1", ".\\\" settings\n", ".\\\" /settings", &text);
}

/* Every line of the template, with its # taken away, loads for both programs, and gives the defaults. */
static void the_template_loads(void **state)
{
    (void)state;
    static char env[32 * 1024];
    size_t bytes = 0;
    unsigned settings_count = 0;
    const char *at = read_source(".env.template");
    while (*at != '\0') {
        size_t line_bytes = strcspn(at, "\n");
        size_t skipped = at[0] == '#' && at[1] >= 'A' && at[1] <= 'Z' ? 1 : 0;
        bool setting = at[skipped] >= 'A' && at[skipped] <= 'Z';
        settings_count += setting ? 1 : 0;
        memcpy(env + bytes, at + skipped, line_bytes - skipped);
        bytes += line_bytes - skipped;
        env[bytes++] = '\n';
        at += line_bytes + (at[line_bytes] == '\n' ? 1 : 0);
    }
    env[bytes] = '\0';
    assert_true(settings_count > 35);
    assert_string_equal(load(SETTINGS_GATEWAY, env, "UNUSED="), "");
    assert_int_equal(settings.port, 8000);
    assert_string_equal(settings.routes, "text,voice,video -> messages");
    assert_string_equal(load(SETTINGS_PROCESSOR, env, "DATABASE_URL="), "");
    assert_string_equal(settings.database_url, "postgresql://postern:postern@127.0.0.1:5432/postern");
}

static int open_machine(void **state)
{
    (void)state;
    assert_true(port_posix_open(&port, &(struct port_posix_options){.poller = PORT_POSIX_POLL, .watch_max = 1}));
    guard_page_open(&guard, SETTINGS_ENV_BYTES_MAX);
    return 0;
}

static int close_machine(void **state)
{
    (void)state;
    (void)port_posix_close(&port); // false where the machine held a worker up for longer than the port waits
    guard_page_close(&guard);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_the_product),
        cmocka_unit_test(every_type_is_read),
        cmocka_unit_test(the_environment_wins_and_empty_is_none),
        cmocka_unit_test(errors_name_place_name_value_and_range),
        cmocka_unit_test(two_listeners_do_not_share_a_port),
        cmocka_unit_test(each_program_is_judged_by_its_own_settings),
        cmocka_unit_test(the_database_must_be_named),
        cmocka_unit_test(a_host_name_that_is_no_gateway_id_is_refused),
        cmocka_unit_test(env_lines_are_read_as_docker_compose_does),
        cmocka_unit_test(wrong_env_lines_are_refused),
        cmocka_unit_test(long_values_are_refused_or_fit),
        cmocka_unit_test(shown_values_end_with_a_character),
        cmocka_unit_test(passwords_within_urls_are_masked),
        cmocka_unit_test(what_is_printed_can_be_read_again),
        cmocka_unit_test(what_is_printed_has_its_quotes),
        cmocka_unit_test(the_template_is_made_from_the_table),
        cmocka_unit_test(the_documents_have_the_table),
        cmocka_unit_test(the_template_loads),
    };
    return cmocka_run_group_tests(tests, open_machine, close_machine);
}
