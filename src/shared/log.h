/* SPDX-License-Identifier: MIT */
/* The program's log: one line an event, `ts=… level=… event=… key=value …` (logfmt).
 *
 *     log_event(log, LOG_INFO, "client_connected", LOG_SPAN("client", id), LOG_U64("connections", count));
 *
 * Lines gather in a buffer and reach the file with log_flush, once a turn of the loop, in one write. A file never
 * grows beyond file_bytes_max: before a write that would pass it, FILE becomes FILE.1, FILE.1 becomes FILE.2 and so
 * on, file_count files in all. A file is one program's alone: where another that runs has FILE, this one writes to
 * FILE-2 or the next that is free (logs/websocket.log, logs/websocket-2.log). What is no regular file (a device, a
 * pipe, a symbolic link as /dev/stdout is one) is neither: it is written to, and never renamed. A log that cannot be
 * written never stops the program: stderr is told once, lines wait in the buffer, what is in it when it is full is lost
 * and counted, and the log tells when it is well again. A standard output that takes nothing (a pipe that nobody
 * empties) never stops it either: its copies are dropped, counted, and told when it takes lines again. Neither of the
 * two loses a line because the other fails. The latest lines at LOG_WARN or above stay in memory too, for who asks what
 * is wrong.
 *
 * Invariant: no line is longer than LOG_LINE_BYTES_MAX, none holds a control character, and each ends in a newline; a
 * value that does not fit is cut. Memory: a buffer and the latest warnings, from the arena. Thread: the loop's. */
#ifndef POSTERN_SHARED_LOG_H
#define POSTERN_SHARED_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "span.h"

struct arena;
struct port;

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

enum { LOG_LEVEL_COUNT = LOG_DEBUG + 1 };

enum {
    LOG_LINE_BYTES_MAX = 2048,
    LOG_PATH_BYTES_MAX = 255, /* as given */
    LOG_BUFFER_BYTES_MAX = 64 * 1024,
    LOG_PLACES_MAX = 1000,       /* programs that can have the same path */
    LOG_PLACE_BYTES = 8,         /* what the place adds to the path, with the terminator */
    LOG_RECENT_LINES = 16,       /* at LOG_WARN or above, kept in memory */
    LOG_RECENT_LINE_BYTES = 512, /* of each; the rest is cut */
};

enum log_field_kind { LOG_FIELD_SPAN, LOG_FIELD_TEXT, LOG_FIELD_U64, LOG_FIELD_I64 };

struct log_field {
    const char *key; /* static; a word of a-z 0-9 _ */
    enum log_field_kind kind;
    union {
        struct span span;
        const char *text; /* NULL is written as nothing between quotes */
        uint64_t u64;
        int64_t i64;
    } value;
};

#define LOG_SPAN(name, given) ((struct log_field){.key = (name), .kind = LOG_FIELD_SPAN, .value = {.span = (given)}})
#define LOG_TEXT(name, given) ((struct log_field){.key = (name), .kind = LOG_FIELD_TEXT, .value = {.text = (given)}})
#define LOG_U64(name, given) ((struct log_field){.key = (name), .kind = LOG_FIELD_U64, .value = {.u64 = (given)}})
#define LOG_I64(name, given) ((struct log_field){.key = (name), .kind = LOG_FIELD_I64, .value = {.i64 = (given)}})

struct log_options {
    const char *path;        /* outlives the log; at most LOG_PATH_BYTES_MAX bytes */
    enum log_level level;    /* lines beyond it are not written */
    uint64_t file_bytes_max; /* at least LOG_LINE_BYTES_MAX */
    uint32_t file_count;     /* 2 to 100 */
    bool copy_stdout;        /* each line also to stdout */
    bool messages;           /* LOG_MESSAGES: see log_messages */
};

struct log_recent {
    size_t bytes;
    char line[LOG_RECENT_LINE_BYTES];
};

struct log {
    const struct port *port;
    struct log_options options;
    char path[LOG_PATH_BYTES_MAX + LOG_PLACE_BYTES]; /* of the file: the options' path, or with its place in it */
    int32_t file;                                    /* a port_file */
    uint64_t file_bytes;
    bool rotates; /* it is a regular file */
    bool torn;    /* its last line is not whole */
    char *buffer; /* buffer_bytes_max */
    size_t buffer_bytes_max;
    size_t buffer_bytes;
    int64_t second; /* whose text is in second_text */
    char second_text[24];
    bool failing;                          /* the last write did not reach the file */
    uint64_t retry_ns;                     /* when it is tried again */
    uint64_t lost_lines;                   /* since it fails */
    uint64_t lost_total;                   /* since start */
    uint64_t write_count;                  /* writes that reached the file */
    size_t copied_bytes;                   /* of the buffer, that were offered to stdout */
    uint64_t copies_lost;                  /* lines, since stdout took the last one */
    uint64_t line_counts[LOG_LEVEL_COUNT]; /* since start, the lost ones too */
    struct log_recent *recent;             /* LOG_RECENT_LINES: line n stands at n modulo that */
    uint64_t recent_count;                 /* that there ever were */
};

/* Takes the buffer and, unless the arena measures, makes the file's folder and opens the file. A file that
 * cannot be opened is told on stderr and tried again. */
void log_open(struct log *log, const struct port *port, struct arena *arena, const struct log_options *options);

/* Writes what has gathered; the last call before the program's end too. */
void log_flush(struct log *log);

/* Closes the file and opens its path anew (SIGHUP: someone else moved it away). Flushes first. */
void log_reopen(struct log *log);

/* Flushes and closes; events after it are lost. */
void log_close(struct log *log);

static inline bool log_enabled(const struct log *log, enum log_level level)
{
    return level <= log->options.level;
}

/* A line at LOG_WARN or above, without its newline, by its number: from the latest, recent_count - 1, back to
 * LOG_RECENT_LINES before that. */
static inline struct span log_recent_line(const struct log *log, uint64_t number)
{
    const struct log_recent *recent = &log->recent[number % LOG_RECENT_LINES];
    return span_of(recent->line, recent->bytes);
}

/* Whether each message's stages are logged (LOG_MESSAGES=1). */
static inline bool log_messages(const struct log *log)
{
    return log->options.messages;
}

/* The level's name: "error", "warn", "info", "debug". */
const char *log_level_name(enum log_level level);

/* Writes one line; fields[0] is the event. Use log_event. */
void log_write(struct log *log, enum log_level level, const struct log_field *fields, size_t field_count);

/* One event with any number of fields, none too. The fields are not evaluated when the level is off. `name` is a word
 * of a-z 0-9 _. */
#define log_event(to, of_level, name, ...)                                                                             \
    do {                                                                                                               \
        struct log *log_event_to_ = (to);                                                                              \
        if (log_enabled(log_event_to_, (of_level))) {                                                                  \
            const struct log_field log_event_fields_[] = {LOG_TEXT("event", (name)), __VA_ARGS__};                     \
            log_write(log_event_to_, (of_level), log_event_fields_,                                                    \
                      sizeof log_event_fields_ / sizeof log_event_fields_[0]);                                         \
        }                                                                                                              \
    } while (0)

#endif
