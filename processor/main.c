/* SPDX-License-Identifier: MIT */
/* postern-processor: the one place that knows which port it runs on. Reads the settings, measures the memory, takes it
 * in one block, and turns the loop. */
#include <stdio.h>
#include <stdlib.h>

#include "amqp_link.h"
#include "arena.h"
#include "plan.h"
#include "port_posix.h"
#include "processor.h"
#include "program.h"
#include "text.h"

static const char help[] =
    "postern-processor: stores messages from RabbitMQ in PostgreSQL and tells the gateways what became of each.\n"
    "\n"
    "  postern-processor            run, with the settings of the environment and of ./.env\n"
    "  postern-processor --check    print the settings in effect, passwords masked\n"
    "  postern-processor --plan     print the memory table; it asks for DATABASE_URL as the start does\n"
    "  postern-processor --version\n"
    "  postern-processor --help\n"
    "\n"
    "The database needs its tables first: alembic upgrade head. Every setting is described in .env.template and in\n"
    "postern-processor(1). SIGTERM ends it in good order, SIGHUP reopens the log. Exit codes: 0 ended in good order,\n"
    "1 could not start or was told twice to stop, 2 a setting or the command line is wrong.\n";

/* Behind the settings and behind the table, as a comment there. */
static const char libpq_is_exempt[] =
    "# libpq allocates as it needs, and the process is not sealed: the contents of a batch are there once more while\n"
    "# it is stored, and so are the code and the variables of the libraries.\n";

/* All of the program that is not in the arena. */
struct process {
    struct program program;
    struct port port;
    struct processor processor;
    struct arena arena;
    struct plan plan;
};

static void print_plan(struct process *process, const struct port_posix_options *options)
{
    struct program *program = &process->program;
    struct plan *plan = &process->plan;
    plan_begin(plan, &process->arena);
    plan_add(plan, "the program's own record", 1, sizeof *process);
    plan_add(plan, "sockets, poller and workers (port)", 1, port_posix_memory_bytes(options));
    plan_add(plan, "the AMQP library's buffers", PROCESSOR_LINK_COUNT, AMQP_LINK_LIBRARY_BYTES);
    plan_add(plan, "libpq: the contents of a batch", 1, PROCESSOR_BATCH_BYTES);
    struct text text = text_in(program->text, sizeof program->text);
    plan_write(plan, &text);
    text_string(&text, libpq_is_exempt);
    program_print(program, text_span(&text));
}

static void run(struct process *process)
{
    struct program *program = &process->program;
    struct port *port = &process->port;
    size_t bytes = process->arena.used_bytes;
    void *memory = program_memory(program, port, bytes);
    if (memory == NULL) {
        return;
    }
    arena_begin(&process->arena, memory, bytes);
    processor_init(&process->processor, &process->arena, port, &program->settings);
    if (!processor_listen(&process->processor, program->error, sizeof program->error)) {
        log_event(&process->processor.log, LOG_ERROR, "start_failed", LOG_TEXT("reason", program->error));
        processor_release(&process->processor);
        (void)program_complain(program, PROGRAM_EXIT_FAILED, program->error);
        return;
    }
    program->code = processor_run(&process->processor);
    if (program->code != PROGRAM_EXIT_OK) {
        _Exit((int)program->code); /* at once: nothing is closed in good order */
    }
    processor_release(&process->processor);
}

static void load_and_go(struct process *process, enum program_command command, const struct port_posix_options *options)
{
    struct program *program = &process->program;
    if (!program_load(program, &process->port)) {
        return;
    }
    if (!processor_check(&program->settings, program->error, sizeof program->error)) {
        (void)program_complain(program, PROGRAM_EXIT_SETTINGS, program->error);
        return;
    }
    if (command == PROGRAM_CHECK) {
        program_print_settings(program, libpq_is_exempt);
        return;
    }
    arena_measure(&process->arena);
    processor_init(&process->processor, &process->arena, &process->port, &program->settings);
    if (command == PROGRAM_PLAN) {
        print_plan(process, options);
    } else {
        run(process);
    }
}

int main(int argument_count, char **arguments)
{
    static struct process process;
    struct program *program = &process.program;
    struct port *port = &process.port;
    program_begin(program, "postern-processor", SETTINGS_PROCESSOR, help, 0);
    enum program_command command = program_command(program, argument_count, arguments);
    if (command == PROGRAM_END) {
        return (int)program->code;
    }
    const struct port_posix_options options = {.poller = PORT_POSIX_AUTO, .watch_max = PROCESSOR_WATCHES};
    if (!port_posix_open(port, &options)) {
        (void)program_complain(program, PROGRAM_EXIT_FAILED, port->error_text(port->context));
        return (int)program->code;
    }
    load_and_go(&process, command, &options);
    if (!port_posix_close(port)) {
        /* The worker is still looking a name up: what exit() cleans up must not go from under it. */
        (void)fflush(stdout);
        _Exit((int)program->code);
    }
    return (int)program->code;
}
