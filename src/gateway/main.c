/* SPDX-License-Identifier: MIT */
/* postern-gateway: the one place that knows which port it runs on. Reads the settings, measures the memory, takes it
 * in one block, seals the process so that it can never be more, and turns the loop. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "amqp_link.h"
#include "decimal.h"
#include "gateway.h"
#include "malloc_block.h"
#include "plan.h"
#include "port_posix.h"
#include "program.h"

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
    "Every setting is described in .env.template and in postern-gateway(1). SIGTERM ends it in good order, SIGHUP\n"
    "reopens the log. Exit codes: 0 ended in good order, 1 could not start or was told twice to stop, 2 a setting or\n"
    "the command line is wrong.\n";

/* What --plan reckons with where it is not told. */
enum { PLAN_MESSAGE_BYTES = 200, PLAN_RATES_MAX = 4, PLAN_WORDS_MAX = 2 };

/* All of the program that is not in the arena. */
struct process {
    struct program program;
    struct port port;
    struct gateway gateway;
    struct arena arena;
    struct plan plan;
    uint64_t plan_rates[PLAN_RATES_MAX];
    size_t plan_rate_count;
    uint32_t plan_message_bytes;
};

/* Behind the table and behind the settings, as a comment there. */
static const char malloc_is_fixed[] =
    "# Libraries allocate from a block of fixed size; once started the gateway takes no more memory, and where the\n"
    "# kernel has seccomp it cannot.\n";
static const char malloc_is_the_systems[] =
    "# Built with sanitizers: malloc is theirs and asks the system for memory, and the process is not sealed.\n";

_Static_assert((int)PLAN_BYTES_MAX + 512 <= (int)SETTINGS_ENV_BYTES_MAX, "the table fits the output");

/* Opens a port that is just enough to read .env, because how many sockets the real one watches stands there. Who is
 * told to stop meanwhile stops as soon as it runs. */
static bool load(struct process *process)
{
    const struct port_posix_options options = {.poller = PORT_POSIX_POLL, .watch_max = 1, .defers_signals = true};
    struct port *port = &process->port;
    struct program *program = &process->program;
    if (!port_posix_open(port, &options)) {
        return program_complain(program, PROGRAM_EXIT_FAILED, port->error_text(port->context));
    }
    bool loaded = program_load(program, port);
    (void)port_posix_close(port);
    if (!loaded) {
        return false;
    }
    struct text error = text_in(program->error, sizeof program->error - 1);
    if (gateway_configure(&process->gateway, &program->settings, &error)) {
        return true;
    }
    program->error[error.used_bytes] = '\0';
    return program_complain(program, PROGRAM_EXIT_SETTINGS, program->error);
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
static void make_plan(struct process *process, const struct port_posix_options *options)
{
    struct plan *plan = &process->plan;
    size_t block_bytes = malloc_block_bytes();
    plan_begin(plan, &process->arena);
    plan_add(plan, "the program's own record", 1, sizeof *process);
    plan_add(plan, "sockets, poller and workers (port)", 1, port_posix_memory_bytes(options));
    if (block_bytes == 0) {
        plan_add(plan, "the AMQP library's buffers", GATEWAY_LINK_COUNT, AMQP_LINK_LIBRARY_BYTES);
        return;
    }
    struct port_posix_image image;
    port_posix_image(&image);
    plan_add(plan, "malloc, for libraries", 1, block_bytes);
    plan_add(plan, "other variables, of libraries too", 1, image.data_bytes - block_bytes - sizeof *process);
    plan_add(plan, "the main thread's stack", 1, image.stack_bytes);
    plan_add(plan, "code and constants (pages of files)", 1, image.file_bytes);
}

/* What is missing for MEMORY_LIMIT; 0: it fits, or there is no limit. */
static size_t bytes_beyond_limit(const struct process *process)
{
    uint64_t limit_bytes = process->program.settings.memory_limit_bytes;
    size_t total_bytes = plan_total_bytes(&process->plan);
    return limit_bytes > 0 && total_bytes > limit_bytes ? (size_t)(total_bytes - limit_bytes) : 0;
}

static void print_plan(struct process *process)
{
    struct program *program = &process->program;
    struct text text = text_in(program->text, sizeof program->text);
    plan_write(&process->plan, &text);
    if (program->settings.spool_max_bytes > 0) {
        plan_write_spool(&text, gateway_spool_messages(&process->gateway, process->plan_message_bytes),
                         process->plan_message_bytes, process->plan_rates, process->plan_rate_count);
    }
    size_t beyond_bytes = bytes_beyond_limit(process);
    if (beyond_bytes > 0) {
        text_string(&text, "# More than MEMORY_LIMIT, by ");
        text_u64(&text, beyond_bytes);
        text_string(&text, " bytes: the gateway would not start.\n");
    }
    text_string(&text, malloc_block_bytes() > 0 ? malloc_is_fixed : malloc_is_the_systems);
    program_print(program, text_span(&text));
}

static void complain_of_limit(struct process *process)
{
    struct program *program = &process->program;
    struct text line = text_in(program->error, sizeof program->error - 1);
    text_string(&line, "MEMORY_LIMIT=");
    text_u64(&line, program->settings.memory_limit_bytes);
    text_string(&line, ": ");
    text_u64(&line, plan_total_bytes(&process->plan));
    text_string(&line, " bytes are needed, ");
    text_u64(&line, bytes_beyond_limit(process));
    text_string(&line, " more than that; --plan shows for what");
    program->error[line.used_bytes] = '\0';
    (void)program_complain(program, PROGRAM_EXIT_SETTINGS, program->error);
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

static void run(struct process *process)
{
    struct program *program = &process->program;
    struct gateway *gateway = &process->gateway;
    struct port *port = &process->port;
    size_t bytes = process->arena.used_bytes;
    if (malloc_block_bytes() > 0) {
        port_posix_touch_image();
    }
    void *memory = program_memory(program, port, bytes);
    if (memory == NULL) {
        return;
    }
    arena_begin(&process->arena, memory, bytes);
    gateway_init(gateway, &process->arena, port);
    struct text error = text_in(program->error, sizeof program->error - 1);
    if (!gateway_listen(gateway, &error)) {
        program->error[error.used_bytes] = '\0';
        log_event(&gateway->log, LOG_ERROR, "start_failed", LOG_TEXT("reason", program->error));
        gateway_release(gateway);
        (void)program_complain(program, PROGRAM_EXIT_FAILED, program->error);
        return;
    }
    log_event(&gateway->log, LOG_INFO, "memory_taken", LOG_U64("bytes", plan_total_bytes(&process->plan)),
              LOG_U64("arena_bytes", bytes), LOG_TEXT("poller", port_posix_poller_name(port)));
    seal(gateway, port);
    program->code = gateway_run(gateway);
    if (program->code != PROGRAM_EXIT_OK) {
        _Exit((int)program->code); // at once: nothing is closed in good order
    }
    gateway_release(gateway);
}

static void measure_and_go(struct process *process, enum program_command command)
{
    struct program *program = &process->program;
    struct port *port = &process->port;
    struct port_posix_options options = port_options(&program->settings);
    if (malloc_block_bytes() > 0) {
        port_posix_warm_up();
    }
    if (!port_posix_open(port, &options)) {
        (void)program_complain(program, PROGRAM_EXIT_FAILED, port->error_text(port->context));
        return;
    }
    arena_measure(&process->arena);
    gateway_init(&process->gateway, &process->arena, port);
    make_plan(process, &options);
    if (command == PROGRAM_PLAN) {
        print_plan(process);
    } else if (bytes_beyond_limit(process) > 0) {
        complain_of_limit(process);
    } else if (command == PROGRAM_CHECK) {
        program_print_settings(program, malloc_block_bytes() > 0 ? malloc_is_fixed : malloc_is_the_systems);
    } else {
        run(process);
    }
    if (!port_posix_close(port)) {
        // The worker is still looking a name up: what exit() cleans up must not go from under it.
        (void)fflush(stdout);
        _Exit((int)program->code);
    }
}

/* Up to two numbers behind --plan. */
static bool read_plan(struct process *process, size_t count, char **words)
{
    static const uint64_t common_rates[PLAN_RATES_MAX] = {1, 10, 100, 1000};
    uint64_t bytes = PLAN_MESSAGE_BYTES;
    memcpy(process->plan_rates, common_rates, sizeof common_rates);
    process->plan_rate_count = PLAN_RATES_MAX;
    if (count > 0) {
        process->plan_rate_count = 1;
        if (!decimal_parse(span_text(words[0]), 1, 1000000, process->plan_rates)) {
            return program_complain(&process->program, PROGRAM_EXIT_SETTINGS,
                                    "--plan RATE: messages a second, 1 to 1000000");
        }
    }
    if (count > 1 && !decimal_parse(span_text(words[1]), 1, UINT64_C(1) << 20, &bytes)) {
        return program_complain(&process->program, PROGRAM_EXIT_SETTINGS,
                                "--plan RATE BYTES: bytes of one message, 1 to 1048576");
    }
    process->plan_message_bytes = (uint32_t)bytes;
    return true;
}

int main(int argument_count, char **arguments)
{
    static struct process process;
    struct program *program = &process.program;
    program_begin(program, "postern-gateway", SETTINGS_GATEWAY, help, PLAN_WORDS_MAX);
    enum program_command command = program_command(program, argument_count, arguments);
    if (command == PROGRAM_PLAN && !read_plan(&process, (size_t)argument_count - 2, arguments + 2)) {
        command = PROGRAM_END;
    }
    if (command != PROGRAM_END && load(&process)) {
        measure_and_go(&process, command);
    }
    return (int)program->code;
}
