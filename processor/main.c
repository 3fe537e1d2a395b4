/* SPDX-License-Identifier: MIT */
/* postern-processor: the one place that knows which port it runs on. Reads the settings, measures the memory, takes it
 * in one block, and turns the loop. What goes wrong before the log is open is one line on stderr. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "port_posix.h"
#include "processor.h"
#include "text.h"

static const char help[] =
    "postern-processor: stores messages from RabbitMQ in PostgreSQL and tells the gateways what became of each.\n"
    "\n"
    "  postern-processor            run, with the settings of the environment and of ./.env\n"
    "  postern-processor --check    print the settings in effect, passwords masked\n"
    "  postern-processor --version\n"
    "  postern-processor --help\n"
    "\n"
    "The database needs its tables first: alembic upgrade head. Every setting is described in .env.template.\n"
    "SIGTERM ends it in good order, SIGHUP reopens the log.\n";

/* All of the program that is not in the arena. */
struct program {
    struct port port;
    struct settings settings;
    struct processor processor;
    struct arena arena;
    char host_name[GATEWAY_ID_BYTES_MAX + 1];
    char error[SETTINGS_ERROR_BYTES_MAX + 1];
    char env[SETTINGS_ENV_BYTES_MAX];
    char output[SETTINGS_ENV_BYTES_MAX];
};

static const char *lookup(void *context, const char *name)
{
    (void)context;
    return getenv(name);
}

static int print(struct span text)
{
    const bool written = fwrite(text.data, 1, text.bytes, stdout) == text.bytes && fflush(stdout) == 0;
    return written ? PROCESSOR_EXIT_OK : PROCESSOR_EXIT_FAILED;
}

static int complain(const char *line, enum processor_exit code)
{
    (void)fprintf(stderr, "postern-processor: %s\n", line);
    return (int)code;
}

/* Fills program->env; false: complained. */
static bool read_env(struct program *program, size_t *env_bytes)
{
    struct port *const port = &program->port;
    switch (port->read_file(port->context, ".env", program->env, sizeof program->env, env_bytes)) {
    case PORT_OK:
        return true;
    case PORT_CLOSED: /* there is none */
        *env_bytes = 0;
        return true;
    case PORT_AGAIN:
    case PORT_FAILED:
        break;
    }
    (void)fprintf(stderr, "postern-processor: .env cannot be read: %s\n", port->error_text(port->context));
    return false;
}

static int run(struct program *program)
{
    struct port *const port = &program->port;
    arena_measure(&program->arena);
    processor_init(&program->processor, &program->arena, port, &program->settings);
    const size_t bytes = program->arena.used_bytes;
    void *const memory = port->memory(port->context, bytes);
    if (memory == NULL) {
        (void)fprintf(stderr, "postern-processor: %zu bytes of memory are needed and cannot be had: %s\n", bytes,
                      port->error_text(port->context));
        return PROCESSOR_EXIT_FAILED;
    }
    arena_begin(&program->arena, memory, bytes);
    processor_init(&program->processor, &program->arena, port, &program->settings);
    if (!processor_listen(&program->processor, program->error, sizeof program->error)) {
        log_event(&program->processor.log, LOG_ERROR, "start_failed", LOG_TEXT("reason", program->error));
        processor_release(&program->processor);
        return complain(program->error, PROCESSOR_EXIT_FAILED);
    }
    const enum processor_exit code = processor_run(&program->processor);
    if (code != PROCESSOR_EXIT_OK) {
        _Exit((int)code); /* at once: nothing is closed in good order */
    }
    processor_release(&program->processor);
    return (int)code;
}

static int load_and_go(struct program *program, bool check_only)
{
    struct port *const port = &program->port;
    size_t env_bytes;
    port->host_name(port->context, program->host_name, sizeof program->host_name);
    if (!read_env(program, &env_bytes)) {
        return PROCESSOR_EXIT_FAILED;
    }
    const struct settings_sources sources = {.lookup = lookup,
                                             .env_text = span_of(program->env, env_bytes),
                                             .env_name = ".env",
                                             .host_name = program->host_name};
    struct text error = text_in(program->error, sizeof program->error - 1);
    if (!settings_load(&program->settings, SETTINGS_PROCESSOR, &sources, &error)) {
        program->error[error.used_bytes] = '\0';
        return complain(program->error, PROCESSOR_EXIT_SETTINGS);
    }
    if (!processor_check(&program->settings, program->error, sizeof program->error)) {
        return complain(program->error, PROCESSOR_EXIT_SETTINGS);
    }
    if (!check_only) {
        return run(program);
    }
    struct text output = text_in(program->output, sizeof program->output);
    settings_print(&program->settings, &sources, &output);
    text_string(&output, "# libpq allocates as it needs: the processor's memory is not sealed.\n");
    return print(text_span(&output));
}

int main(int argument_count, char **arguments)
{
    static struct program program;
    const char *const argument = argument_count > 1 ? arguments[1] : "";
    if (argument_count > 2 || (argument_count == 2 && strcmp(argument, "--check") != 0 &&
                               strcmp(argument, "--version") != 0 && strcmp(argument, "--help") != 0)) {
        (void)fputs(help, stderr);
        return PROCESSOR_EXIT_SETTINGS;
    }
    if (strcmp(argument, "--help") == 0) {
        return print(span_text(help));
    }
    if (strcmp(argument, "--version") == 0) {
        return print(span_text("postern-processor " POSTERN_VERSION "\n"));
    }
    const struct port_posix_options options = {.poller = PORT_POSIX_AUTO, .watch_max = PROCESSOR_WATCHES};
    if (!port_posix_open(&program.port, &options)) {
        return complain(program.port.error_text(program.port.context), PROCESSOR_EXIT_FAILED);
    }
    const int code = load_and_go(&program, strcmp(argument, "--check") == 0);
    if (!port_posix_close(&program.port)) {
        /* The worker is still looking a name up: what exit() cleans up must not go from under it. */
        (void)fflush(stdout);
        _Exit(code);
    }
    return code;
}
