/* SPDX-License-Identifier: MIT */
/* The environment comes from the C library, .env from the port. */
#include "program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

bool program_complain(struct program *program, enum program_exit code, const char *line)
{
    (void)fprintf(stderr, "%s: %s\n", program->name, line);
    program->code = code;
    return false;
}

void program_print(struct program *program, struct span text)
{
    bool written = fwrite(text.data, 1, text.bytes, stdout) == text.bytes && fflush(stdout) == 0;
    program->code = written ? PROGRAM_EXIT_OK : PROGRAM_EXIT_FAILED;
}

void program_begin(struct program *program, const char *name, enum settings_program whose, const char *help,
                   size_t plan_words_max)
{
    program->name = name;
    program->help = help;
    program->whose = whose;
    program->plan_words_max = plan_words_max;
    program->code = PROGRAM_EXIT_OK;
}

static enum program_command refuse(struct program *program, const char *word, const char *why)
{
    struct text line = text_in(program->error, sizeof program->error - 1);
    text_string(&line, word);
    text_string(&line, why);
    text_string(&line, ": --help shows what can be asked for");
    program->error[line.used_bytes] = '\0';
    (void)program_complain(program, PROGRAM_EXIT_SETTINGS, program->error);
    return PROGRAM_END;
}

enum program_command program_command(struct program *program, int argument_count, char **arguments)
{
    if (argument_count < 2) {
        return PROGRAM_RUN;
    }
    const char *option = arguments[1];
    size_t word_count = (size_t)argument_count - 2;
    bool is_plan = strcmp(option, "--plan") == 0;
    bool is_check = strcmp(option, "--check") == 0;
    bool is_version = strcmp(option, "--version") == 0;
    bool is_help = strcmp(option, "--help") == 0 || strcmp(option, "-h") == 0;
    if (!is_plan && !is_check && !is_version && !is_help) {
        return refuse(program, option, " is no option");
    }
    if (word_count > (is_plan ? program->plan_words_max : 0)) {
        return refuse(program, option,
                      is_plan && program->plan_words_max > 0 ? " takes fewer words" : " takes no word");
    }
    if (is_plan || is_check) {
        return is_plan ? PROGRAM_PLAN : PROGRAM_CHECK;
    }
    if (is_help) {
        program_print(program, span_text(program->help));
        return PROGRAM_END;
    }
    struct text line = text_in(program->text, sizeof program->text);
    text_string(&line, program->name);
    text_string(&line, " " POSTERN_VERSION "\n");
    program_print(program, text_span(&line));
    return PROGRAM_END;
}

static const char *lookup(void *context, const char *name)
{
    (void)context;
    return getenv(name);
}

/* Fills program->text. */
static bool read_env(struct program *program, struct port *port, size_t *env_bytes)
{
    *env_bytes = 0;
    switch (port->read_file(port->context, ".env", program->text, sizeof program->text, env_bytes)) {
    case PORT_OK:
        return true;
    case PORT_CLOSED: // there is none
        *env_bytes = 0;
        return true;
    case PORT_AGAIN:
    case PORT_FAILED:
        break;
    }
    struct text line = text_in(program->error, sizeof program->error - 1);
    text_string(&line, ".env cannot be read: ");
    text_string(&line, port->error_text(port->context));
    program->error[line.used_bytes] = '\0';
    return program_complain(program, PROGRAM_EXIT_FAILED, program->error);
}

bool program_load(struct program *program, struct port *port)
{
    size_t env_bytes;
    port->host_name(port->context, program->host_name, sizeof program->host_name);
    if (!read_env(program, port, &env_bytes)) {
        return false;
    }
    program->sources = (struct settings_sources){
        .lookup = lookup,
        .port = port,
        .env_text = span_of(program->text, env_bytes),
        .env_name = ".env",
        .host_name = program->host_name,
    };
    struct text error = text_in(program->error, sizeof program->error - 1);
    if (settings_load(&program->settings, program->whose, &program->sources, &error)) {
        return true;
    }
    program->error[error.used_bytes] = '\0';
    return program_complain(program, PROGRAM_EXIT_SETTINGS, program->error);
}

void *program_memory(struct program *program, struct port *port, size_t bytes)
{
    void *memory = port->memory(port->context, bytes);
    if (memory == NULL) {
        struct text line = text_in(program->error, sizeof program->error - 1);
        text_u64(&line, bytes);
        text_string(&line, " bytes of memory are needed and cannot be had (");
        text_string(&line, port->error_text(port->context));
        text_string(&line, "); --plan shows for what");
        program->error[line.used_bytes] = '\0';
        (void)program_complain(program, PROGRAM_EXIT_FAILED, program->error);
    }
    return memory;
}

void program_print_settings(struct program *program, const char *note)
{
    struct text output = text_in(program->text, sizeof program->text);
    settings_print(&program->settings, &program->sources, &output);
    text_string(&output, note);
    program_print(program, text_span(&output));
}
