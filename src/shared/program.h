/* SPDX-License-Identifier: MIT */
/* How both programs begin and end: the command line, .env, the settings, and the exit code.
 *
 * Invariant: what goes wrong before the log is open is one line on stderr; it begins with the program's name, and says
 * what to do. Memory: the caller's struct, which main() keeps. Thread: the main one, at start. */
#ifndef POSTERN_SHARED_PROGRAM_H
#define POSTERN_SHARED_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "limits.h"
#include "port.h"
#include "settings.h"
#include "span.h"

enum program_exit {
    PROGRAM_EXIT_OK = 0,       /* drained after SIGTERM; or what was asked for is printed */
    PROGRAM_EXIT_FAILED = 1,   /* could not start, or was told twice to stop */
    PROGRAM_EXIT_SETTINGS = 2, /* a setting or the command line is wrong: starting again does not help */
};

enum program_command {
    PROGRAM_RUN,
    PROGRAM_CHECK, /* print the settings in effect */
    PROGRAM_PLAN,  /* print the memory table */
    PROGRAM_END,   /* --help or --version was answered, or the command line was refused */
};

struct program {
    const char *name;
    const char *help;
    enum settings_program whose;
    size_t plan_words_max;
    enum program_exit code; /* main()'s return value, from whatever was done last */
    struct settings settings;
    struct settings_sources sources; /* for settings_print; env_text is good only while the settings are loaded */
    char host_name[GATEWAY_ID_BYTES_MAX + 1];
    char error[SETTINGS_ERROR_BYTES_MAX + 1];
    char text[SETTINGS_ENV_BYTES_MAX]; /* the .env file while the settings are loaded, then free for output */
};

/* `name` and `help`, which is all that --help prints, are static; up to plan_words_max words may stand behind --plan.
 */
void program_begin(struct program *program, const char *name, enum settings_program whose, const char *help,
                   size_t plan_words_max);

/* What the command line asks for. The words behind --plan are main()'s to judge, from arguments[2] on. */
enum program_command program_command(struct program *program, int argument_count, char **arguments);

/* Reads .env through the port and loads the settings. False: it complained. */
bool program_load(struct program *program, struct port *port);

/* The program's one block of memory, from the port. NULL: it complained. */
void *program_memory(struct program *program, struct port *port, size_t bytes);

/* Says what is wrong as one line on stderr; false, for `return program_complain(…)`. */
bool program_complain(struct program *program, enum program_exit code, const char *line);

/* To standard output; sets the code. */
void program_print(struct program *program, struct span text);

/* What --check prints: the settings in effect, then `note`, comment lines. */
void program_print_settings(struct program *program, const char *note);

#endif
