/* SPDX-License-Identifier: MIT */
/* The settings' table, for the files of settings alone. Memory: static, read only. Thread: any. */
#ifndef POSTERN_SHARED_SETTINGS_TABLE_H
#define POSTERN_SHARED_SETTINGS_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "settings.h"
#include "span.h"

enum setting_type {
    SETTING_INTEGER, /* uint32_t */
    SETTING_BYTES,   /* uint32_t or uint64_t; 64K, 8M and 1G are taken too */
    SETTING_TEXT,    /* char[] */
    SETTING_ADDRESS, /* char[]; numeric, IPv4 or IPv6 */
    SETTING_CHOICE,  /* an enum, whose values are the places in `choices` */
    SETTING_BOOLEAN, /* bool; 0 or 1 */
    SETTING_BROKERS, /* char[]; amqp_url.h judges it */
    SETTING_DATABASE /* char[]; a PostgreSQL URL */
};

struct setting {
    const char *name;
    const char *unit;         /* "" where there is none */
    const char *default_text; /* NULL: computed (default_note) or none (required) */
    const char *default_note; /* where the default comes from, or an example where it is required */
    const char *choices;      /* "reject|takeover" */
    const char *help;         /* one sentence */
    bool (*form)(struct span text);
    const char *form_text; /* what `form` takes */
    uint64_t min;
    uint64_t max; /* a text's: in bytes */
    size_t offset;
    size_t field_bytes;
    enum setting_type type;
    uint32_t programs; /* enum settings_program, joined */
    bool required;
    bool secret;
};

extern const struct setting settings_table[];
extern const size_t settings_table_count;

/* The row of that name, or settings_table_count. */
size_t settings_find(struct span name);

/* Where origins[] says a value came from; any other number is its line in .env. */
#define SETTINGS_FROM_DEFAULT UINT32_C(0)
#define SETTINGS_FROM_ENVIRONMENT UINT32_MAX

/* The choice's place in "a|b|c", or SIZE_MAX; and the other way round. */
size_t settings_choice_index(const char *choices, struct span name);
struct span settings_choice_name(const char *choices, size_t index);

/* A size as people write it: 64K, 8M, 100. */
void settings_write_bytes(struct text *out, uint64_t bytes);
/* "1 to 65535", "4K to 16M", "1 to 3600 s", "ping, message", "0 or 1", "up to 255 bytes", … */
void settings_write_range(struct text *out, const struct setting *setting);

/* One NAME=value of a .env file. */
struct settings_line {
    struct span name;
    char value[SETTINGS_TEXT_BYTES_MAX + 1]; /* quotes, escapes and ${NAME} resolved; no terminator needed */
    size_t value_bytes;
    uint32_t number; /* from 1 */
};

struct settings_reader {
    struct span text;
    size_t at;
    uint32_t number;
    /* What ${NAME} stands for; data is NULL when the name is not set. */
    struct span (*lookup)(void *context, struct span name);
    void *context;
};

enum settings_read { SETTINGS_READ_LINE, SETTINGS_READ_END, SETTINGS_READ_BAD };

/* Reads the next NAME=value. After SETTINGS_READ_BAD `error` has a sentence that goes behind "file:line: ", and
 * line->number that line. */
enum settings_read settings_read(struct settings_reader *reader, struct settings_line *line, struct text *error);

#endif
