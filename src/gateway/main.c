/* SPDX-License-Identifier: MIT */
/* postern-gateway: the one place that knows which port it runs on. Reads the settings, measures the memory, takes it
 * in one block, seals the process so that it can never be more, and turns the loop. What goes wrong before the log is
 * open is one line on stderr. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "amqp_link.h"
#include "decimal.h"
#include "gateway.h"
#include "malloc_block.h"
#include "plan.h"
#include "port_posix.h"

static const char help[] =
    "postern-gateway: takes WebSocket clients' messages to RabbitMQ and tells them what became of each.\n"
    "\n"
    "  postern-gateway            run, with the settings of the environment and of ./.env\n"
    "  postern-gateway --check    print the settings in effect, passwords masked\n"
    "  postern-gateway --plan [RATE [BYTES]]\n"
    "                             print the memory table, and how long an outage the spool covers at so many messages\n"
    "                             a second of so many bytes\n"
    "  postern-gateway --version\n"
    "  postern-gateway --help\n"
    "\n"
    "Every setting is described in .env.template. SIGTERM ends it in good order, SIGHUP reopens the log.\n";

enum command { COMMAND_RUN, COMMAND_CHECK, COMMAND_PLAN };

/* What --plan reckons with where it is not told. */
enum { PLAN_MESSAGE_BYTES = 200, PLAN_RATES_MAX = 4 };

/* All of the program that is not in the arena. */
struct program {
    struct port port;
    struct settings settings;
    struct gateway gateway;
    struct arena arena;
    struct plan plan;
    uint64_t plan_rates[PLAN_RATES_MAX];
    size_t plan_rate_count;
    uint32_t plan_message_bytes;
    char host_name[GATEWAY_ID_BYTES_MAX + 1];
    char error[SETTINGS_ERROR_BYTES_MAX + 1];
    size_t env_bytes;
    union {
        char env[SETTINGS_ENV_BYTES_MAX]; /* while the settings are read */
        char output[SETTINGS_ENV_BYTES_MAX];
    } text;
};

/* Behind the table and behind the settings, as a comment there. */
static const char malloc_is_fixed[] =
    "# Libraries allocate from a block of fixed size; once started the gateway takes no more memory, and where the\n"
    "# kernel has seccomp it cannot.\n";
static const char malloc_is_the_systems[] =
    "# Built with sanitizers: malloc is theirs and asks the system for memory, and the process is not sealed.\n";

_Static_assert((int)PLAN_BYTES_MAX + 512 <= (int)SETTINGS_ENV_BYTES_MAX, "the table fits the output");

static int complain(const char *line)
{
    (void)fprintf(stderr, "postern-gateway: %s\n", line);
    return GATEWAY_EXIT_FAILED;
}

static const char *lookup(void *context, const char *name)
{
    (void)context;
    return getenv(name);
}

static int print(const struct text *text)
{
    bool written = fwrite(text->data, 1, text->used_bytes, stdout) == text->used_bytes && fflush(stdout) == 0;
    return written ? GATEWAY_EXIT_OK : GATEWAY_EXIT_FAILED;
}

/* Opens a port that is just enough to read .env, because how many sockets the real one watches stands there. */
static bool read_env(struct program *program)
{
    const struct port_posix_options options = {.poller = PORT_POSIX_POLL, .watch_max = 1};
    struct port *port = &program->port;
    if (!port_posix_open(port, &options)) {
        (void)complain(port->error_text(port->context));
        return false;
    }
    port->host_name(port->context, program->host_name, sizeof program->host_name);
    bool read = true;
    switch (port->read_file(port->context, ".env", program->text.env, sizeof program->text.env, &program->env_bytes)) {
    case PORT_OK:
        break;
    case PORT_CLOSED: // there is none
        program->env_bytes = 0;
        break;
    case PORT_AGAIN:
    case PORT_FAILED:
        (void)fprintf(stderr, "postern-gateway: .env cannot be read: %s\n", port->error_text(port->context));
        read = false;
        break;
    }
    (void)port_posix_close(port);
    return read;
}

static struct port_posix_options port_options(const struct settings *settings)
{
    struct port_posix_options options = {
        .poller = PORT_POSIX_AUTO, .watch_max = gateway_watch_max(settings), .heap = malloc_block_counters};
    switch (settings->poller) {
    case SETTINGS_POLLER_AUTO: // the port chooses: epoll for more than PORT_POSIX_POLL_WATCHES
        break;
    case SETTINGS_POLLER_POLL:
        options.poller = PORT_POSIX_POLL;
        break;
    case SETTINGS_POLLER_EPOLL:
        options.poller = PORT_POSIX_EPOLL;
        break;
    }
    return options;
}

/* Zero where malloc asks the system. */
static size_t malloc_block_bytes(void)
{
    struct port_heap heap;
    malloc_block_counters(&heap);
    return heap.capacity_bytes;
}

/* All that the process will have, so that the total is what the system shows as its resident memory. */
static void make_plan(struct program *program, const struct port_posix_options *options)
{
    struct plan *plan = &program->plan;
    size_t block_bytes = malloc_block_bytes();
    plan_begin(plan, &program->arena);
    plan_add(plan, "the program's own record", 1, sizeof *program);
    plan_add(plan, "sockets, poller and workers (port)", 1, port_posix_memory_bytes(options));
    if (block_bytes == 0) {
        plan_add(plan, "the AMQP library's buffers", GATEWAY_LINK_COUNT, AMQP_LINK_LIBRARY_BYTES);
        return;
    }
    struct port_posix_image image;
    port_posix_image(&image);
    plan_add(plan, "malloc, for libraries", 1, block_bytes);
    plan_add(plan, "other variables, of libraries too", 1, image.data_bytes - block_bytes - sizeof *program);
    plan_add(plan, "the main thread's stack", 1, image.stack_bytes);
    plan_add(plan, "code and constants (pages of files)", 1, image.file_bytes);
}

/* What is missing for MEMORY_LIMIT; 0: it fits, or there is no limit. */
static size_t bytes_beyond_limit(const struct program *program)
{
    uint64_t limit_bytes = program->settings.memory_limit_bytes;
    size_t total_bytes = plan_total_bytes(&program->plan);
    return limit_bytes > 0 && total_bytes > limit_bytes ? (size_t)(total_bytes - limit_bytes) : 0;
}

static int print_plan(struct program *program)
{
    struct text text = text_in(program->text.output, sizeof program->text.output);
    plan_write(&program->plan, &text);
    if (program->settings.spool_max_bytes > 0) {
        plan_write_spool(&text, gateway_spool_messages(&program->gateway, program->plan_message_bytes),
                         program->plan_message_bytes, program->plan_rates, program->plan_rate_count);
    }
    size_t beyond_bytes = bytes_beyond_limit(program);
    if (beyond_bytes > 0) {
        text_string(&text, "# More than MEMORY_LIMIT, by ");
        text_u64(&text, beyond_bytes);
        text_string(&text, " bytes: the gateway would not start.\n");
    }
    text_string(&text, malloc_block_bytes() > 0 ? malloc_is_fixed : malloc_is_the_systems);
    return print(&text);
}

static void seal(struct gateway *gateway, struct port *port)
{
    if (port->seal(port->context)) {
        log_event(&gateway->log, LOG_INFO, "memory_sealed");
    } else {
        log_event(&gateway->log, malloc_block_bytes() > 0 ? LOG_WARN : LOG_INFO, "memory_not_sealed",
                  LOG_TEXT("reason", port->error_text(port->context)));
    }
    log_flush(&gateway->log);
}

static int run(struct program *program)
{
    struct gateway *gateway = &program->gateway;
    struct port *port = &program->port;
    size_t bytes = program->arena.used_bytes;
    if (malloc_block_bytes() > 0) {
        port_posix_touch_image();
    }
    void *memory = port->memory(port->context, bytes);
    if (memory == NULL) {
        (void)fprintf(stderr, "postern-gateway: %zu bytes of memory are needed and cannot be had: %s\n", bytes,
                      port->error_text(port->context));
        return GATEWAY_EXIT_FAILED;
    }
    arena_begin(&program->arena, memory, bytes);
    gateway_init(gateway, &program->arena, port);
    struct text error = text_in(program->error, sizeof program->error - 1);
    if (!gateway_listen(gateway, &error)) {
        program->error[error.used_bytes] = '\0';
        log_event(&gateway->log, LOG_ERROR, "start_failed", LOG_TEXT("reason", program->error));
        gateway_release(gateway);
        return complain(program->error);
    }
    log_event(&gateway->log, LOG_INFO, "memory_taken", LOG_U64("bytes", plan_total_bytes(&program->plan)),
              LOG_U64("arena_bytes", bytes), LOG_TEXT("poller", port_posix_poller_name(port)));
    seal(gateway, port);
    enum gateway_exit code = gateway_run(gateway);
    if (code != GATEWAY_EXIT_OK) {
        _Exit((int)code); // at once: nothing is closed in good order
    }
    gateway_release(gateway);
    return (int)code;
}

static int measure_and_go(struct program *program, enum command command)
{
    struct port *port = &program->port;
    struct port_posix_options options = port_options(&program->settings);
    if (malloc_block_bytes() > 0) {
        port_posix_warm_up();
    }
    if (!port_posix_open(port, &options)) {
        return complain(port->error_text(port->context));
    }
    arena_measure(&program->arena);
    gateway_init(&program->gateway, &program->arena, port);
    make_plan(program, &options);
    int code;
    if (command == COMMAND_PLAN) {
        code = print_plan(program);
    } else if (bytes_beyond_limit(program) > 0) {
        (void)fprintf(stderr,
                      "postern-gateway: MEMORY_LIMIT=%" PRIu64 ": %zu bytes are needed, %zu more than that; "
                      "--plan shows for what\n",
                      program->settings.memory_limit_bytes, plan_total_bytes(&program->plan),
                      bytes_beyond_limit(program));
        code = GATEWAY_EXIT_SETTINGS;
    } else {
        code = run(program);
    }
    if (!port_posix_close(port)) {
        // The worker is still looking a name up: what exit() cleans up must not go from under it.
        (void)fflush(stdout);
        _Exit(code);
    }
    return code;
}

static int start(struct program *program, enum command command)
{
    if (!read_env(program)) {
        return GATEWAY_EXIT_FAILED;
    }
    const struct settings_sources sources = {
        .lookup = lookup,
        .env_text = span_of(program->text.env, program->env_bytes),
        .env_name = ".env",
        .host_name = program->host_name,
    };
    struct text error = text_in(program->error, sizeof program->error - 1);
    if (!settings_load(&program->settings, SETTINGS_GATEWAY, &sources, &error) ||
        !gateway_configure(&program->gateway, &program->settings, &error)) {
        program->error[error.used_bytes] = '\0';
        (void)complain(program->error);
        return GATEWAY_EXIT_SETTINGS;
    }
    if (command == COMMAND_CHECK) {
        char buffer[16384];
        struct text text = text_in(buffer, sizeof buffer);
        settings_print(&program->settings, &sources, &text);
        text_string(&text, malloc_block_bytes() > 0 ? malloc_is_fixed : malloc_is_the_systems);
        return print(&text);
    }
    return measure_and_go(program, command);
}

/* --plan, and up to two numbers behind it. False: they are none. */
static bool read_plan(struct program *program, size_t count, char **words)
{
    static const uint64_t common_rates[PLAN_RATES_MAX] = {1, 10, 100, 1000};
    uint64_t bytes = PLAN_MESSAGE_BYTES;
    memcpy(program->plan_rates, common_rates, sizeof common_rates);
    program->plan_rate_count = PLAN_RATES_MAX;
    if (count > 0) {
        program->plan_rate_count = 1;
        if (!decimal_parse(span_text(words[0]), 1, 1000000, program->plan_rates)) {
            return false;
        }
    }
    if (count > 1 && !decimal_parse(span_text(words[1]), 1, UINT64_C(1) << 20, &bytes)) {
        return false;
    }
    program->plan_message_bytes = (uint32_t)bytes;
    return count <= 2;
}

int main(int argument_count, char **arguments)
{
    static struct program program;
    enum command command = COMMAND_RUN;
    const char *argument = argument_count == 2 ? arguments[1] : "";
    if (strcmp(argument, "--check") == 0) {
        command = COMMAND_CHECK;
    } else if (argument_count >= 2 && strcmp(arguments[1], "--plan") == 0 &&
               read_plan(&program, (size_t)argument_count - 2, arguments + 2)) {
        command = COMMAND_PLAN;
    } else if (strcmp(argument, "--version") == 0) {
        (void)printf("postern-gateway %s\n", POSTERN_VERSION);
        return GATEWAY_EXIT_OK;
    } else if (strcmp(argument, "--help") == 0) {
        (void)fputs(help, stdout);
        return GATEWAY_EXIT_OK;
    } else if (argument_count != 1) {
        (void)fputs(help, stderr);
        return GATEWAY_EXIT_SETTINGS;
    }
    return start(&program, command);
}
