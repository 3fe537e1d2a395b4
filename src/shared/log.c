/* SPDX-License-Identifier: MIT */
/* Lines are built in place at the end of the buffer, which is as large as a file may be at most, so that one write
 * never passes the cap of a fresh file. When a write fails, what did not reach the file is kept and tried again each
 * second, with the file opened anew; a buffer that is full by then is counted, lost and begun anew. A line of which
 * only a part reached the file stays alone: a newline goes first, and then the whole line.
 *
 * Standard output gets whole lines in pieces of at most a page, which a pipe takes whole or not at all. */
#include "log.h"

#include <stdio.h>

#include "arena.h"
#include "check.h"
#include "hex.h"
#include "port.h"
#include "text.h"
#include "utf8.h"

#define RETRY_NS UINT64_C(1000000000)

enum { NUMBERED_BYTES = LOG_PATH_BYTES_MAX + LOG_PLACE_BYTES + sizeof ".99" - 1 };

static const char cut_mark[] = " cut=1";
enum { CUT_MARK_BYTES = sizeof cut_mark - 1, SECOND_BYTES = sizeof "2026-11-23T07:21:11." - 1, COPY_BYTES_MAX = 4096 };

const char *log_level_name(enum log_level level)
{
    switch (level) {
    case LOG_ERROR:
        return "error";
    case LOG_WARN:
        return "warn";
    case LOG_INFO:
        return "info";
    case LOG_DEBUG:
        return "debug";
    }
    CHECK(false);
    return "";
}

/* Opening, rotating, writing. */

static void make_folder(const struct log *log)
{
    const char *path = log->options.path;
    const char *slash = strrchr(path, '/');
    if (slash == NULL || slash == path) {
        return;
    }
    char folder[LOG_PATH_BYTES_MAX + 1];
    size_t bytes = (size_t)(slash - path);
    memcpy(folder, path, bytes);
    folder[bytes] = '\0';
    /* When this fails the file cannot be opened either, and that is what gets told. */
    (void)log->port->make_directory(log->port->context, folder);
}

/* Fills `path`: the options' path for place 1, with "-2" before its suffix for place 2, and so on. */
static void choose_path(struct log *log, uint32_t place)
{
    struct span given = span_text(log->options.path);
    size_t suffix_at = given.bytes;
    while (suffix_at > 0 && given.data[suffix_at - 1] != '.' && given.data[suffix_at - 1] != '/') {
        suffix_at--;
    }
    /* The dot of "logs/app.log" begins a suffix; that of ".hidden" or of a folder does not. */
    bool has_suffix = suffix_at > 1 && given.data[suffix_at - 1] == '.' && given.data[suffix_at - 2] != '/';
    suffix_at = has_suffix ? suffix_at - 1 : given.bytes;
    struct text text = text_in(log->path, sizeof log->path - 1);
    text_bytes(&text, span_of(given.data, suffix_at));
    if (place > 1) {
        text_char(&text, '-');
        text_u64(&text, place);
    }
    text_bytes(&text, span_of(given.data + suffix_at, given.bytes - suffix_at));
    CHECK(!text.truncated);
    log->path[text.used_bytes] = '\0';
}

static bool open_file(struct log *log)
{
    make_folder(log);
    uint64_t bytes = 0;
    port_file file = PORT_NONE;
    enum port_result result = PORT_AGAIN;
    for (uint32_t place = 1; place <= LOG_PLACES_MAX && result == PORT_AGAIN; place++) {
        choose_path(log, place);
        result = log->port->open_append(log->port->context, log->path, &file, &bytes);
    }
    if (result != PORT_OK) {
        return false;
    }
    log->file = file;
    log->rotates = bytes != PORT_NO_SIZE;
    if (log->rotates && bytes < log->file_bytes) {
        log->torn = false; /* another file than before, or somebody emptied it */
    }
    log->file_bytes = log->rotates ? bytes : 0;
    return true;
}

static void close_file(struct log *log)
{
    if (log->file != PORT_NONE) {
        log->port->close_file(log->port->context, log->file);
        log->file = PORT_NONE;
    }
}

/* `path` has room for the log's and a number of two digits. */
static void numbered_path(const struct log *log, uint32_t number, char path[NUMBERED_BYTES])
{
    struct text text = text_in(path, NUMBERED_BYTES - 1);
    text_string(&text, log->path);
    if (number > 0) {
        text_char(&text, '.');
        text_u64(&text, number);
    }
    CHECK(!text.truncated);
    path[text.used_bytes] = '\0';
}

/* The file stays ours while it is moved, so that nobody takes it for the fresh one. */
static bool rotate(struct log *log)
{
    char from[NUMBERED_BYTES];
    char to[NUMBERED_BYTES];
    enum port_result result = PORT_OK;
    for (uint32_t number = log->options.file_count - 1; number > 0; number--) {
        numbered_path(log, number - 1, from);
        numbered_path(log, number, to);
        /* Not all numbers are there at first; only the file itself must move. */
        result = log->port->rename(log->port->context, from, to);
    }
    close_file(log);
    return result == PORT_OK && open_file(log);
}

/* How many bytes reached the file; all of them, unless it fails. */
static size_t append(struct log *log, const char *data, size_t bytes)
{
    size_t written = 0;
    if (log->port->append(log->port->context, log->file, data, bytes, &written) == PORT_OK) {
        log->write_count++;
    }
    if (written > 0) {
        log->file_bytes += written;
        log->torn = data[written - 1] != '\n';
    }
    return written;
}

/* Takes bytes from the buffer's front. */
static void drop_lines(struct log *log, size_t bytes)
{
    log->buffer_bytes -= bytes;
    memmove(log->buffer, log->buffer + bytes, log->buffer_bytes);
    log->copied_bytes = log->copied_bytes > bytes ? log->copied_bytes - bytes : 0;
}

static bool write_buffer(struct log *log)
{
    if (log->failing) {
        close_file(log);
        (void)open_file(log);
    }
    if (log->file == PORT_NONE || (log->torn && append(log, "\n", 1) == 0)) {
        return false;
    }
    bool is_full = log->file_bytes > 0 && log->file_bytes + log->buffer_bytes > log->options.file_bytes_max;
    if (log->rotates && is_full && !rotate(log)) {
        return false;
    }
    size_t written = append(log, log->buffer, log->buffer_bytes);
    bool is_whole = written == log->buffer_bytes;
    while (written > 0 && log->buffer[written - 1] != '\n') {
        written--; /* this line is written again */
    }
    drop_lines(log, written);
    return is_whole;
}

static void note_failure(struct log *log)
{
    log->retry_ns = log->port->now_ns(log->port->context) + RETRY_NS;
    if (!log->failing) {
        log->failing = true;
        (void)fprintf(stderr, "postern: the log %s cannot be written: %s\n", log->path,
                      log->port->error_text(log->port->context));
    }
}

static uint64_t count_lines(const char *lines, size_t bytes)
{
    uint64_t count = 0;
    for (size_t index = 0; index < bytes; index++) {
        count += lines[index] == '\n';
    }
    return count;
}

/* How many of the bytes are the whole lines of one piece; the first line is in any case. */
static size_t piece_bytes(const char *lines, size_t bytes)
{
    size_t whole = 0;
    const char *end;
    while ((end = memchr(lines + whole, '\n', bytes - whole)) != NULL) {
        size_t next = (size_t)(end - lines) + 1;
        if (whole > 0 && next > COPY_BYTES_MAX) {
            break;
        }
        whole = next;
    }
    return whole;
}

/* Offers to stdout what it was not offered yet; false when it did not take all of that. */
static bool offer_lines(struct log *log)
{
    bool takes = true;
    while (log->copied_bytes < log->buffer_bytes) {
        const char *lines = log->buffer + log->copied_bytes;
        size_t bytes = piece_bytes(lines, log->buffer_bytes - log->copied_bytes);
        takes = takes && log->port->print(log->port->context, lines, bytes) == bytes;
        log->copies_lost += takes ? 0 : count_lines(lines, bytes);
        log->copied_bytes += bytes;
    }
    return takes;
}

static void copy_lines(struct log *log)
{
    if (offer_lines(log) && log->copies_lost > 0) {
        uint64_t lines = log->copies_lost;
        log->copies_lost = 0;
        log_event(log, LOG_WARN, "stdout_recovered", LOG_U64("lost_lines", lines));
        /* That line too, before the file takes it from the buffer. */
        if (!offer_lines(log)) {
            log->copies_lost += lines;
        }
    }
}

void log_flush(struct log *log)
{
    if (log->options.copy_stdout) {
        copy_lines(log);
    }
    if (log->buffer_bytes == 0 || (log->failing && log->port->now_ns(log->port->context) < log->retry_ns)) {
        return;
    }
    if (!write_buffer(log)) {
        note_failure(log);
        return;
    }
    if (log->failing) {
        uint64_t lost_lines = log->lost_lines;
        log->failing = false;
        log->lost_lines = 0;
        log_event(log, LOG_ERROR, "log_recovered", LOG_U64("lost_lines", lost_lines));
        log_flush(log);
    }
}

void log_open(struct log *log, const struct port *port, struct arena *arena, const struct log_options *options)
{
    CHECK(strlen(options->path) <= LOG_PATH_BYTES_MAX);
    CHECK(options->file_bytes_max >= LOG_LINE_BYTES_MAX && options->file_count >= 2 && options->file_count <= 100);
    *log = (struct log){.port = port, .options = *options, .file = PORT_NONE, .second = INT64_MIN};
    log->buffer_bytes_max =
        options->file_bytes_max < LOG_BUFFER_BYTES_MAX ? (size_t)options->file_bytes_max : LOG_BUFFER_BYTES_MAX;
    log->buffer = arena_take(arena, "log buffer", log->buffer_bytes_max, 1);
    log->recent = arena_take(arena, "latest warnings of the log", LOG_RECENT_LINES, sizeof *log->recent);
    if (!arena_measuring(arena) && !open_file(log)) {
        note_failure(log);
    }
}

void log_reopen(struct log *log)
{
    log_flush(log);
    close_file(log);
    if (!open_file(log)) {
        note_failure(log);
    }
}

void log_close(struct log *log)
{
    log->retry_ns = 0;
    log_flush(log);
    close_file(log);
}

/* Building a line. */

static bool needs_quotes(struct span value)
{
    for (size_t index = 0; index < value.bytes; index++) {
        uint8_t byte = value.data[index];
        if (byte <= ' ' || byte >= 0x7F || byte == '"' || byte == '=' || byte == '\\') {
            return true;
        }
    }
    return value.bytes == 0;
}

/* The length of the character at the start if it is whole, valid and neither ASCII nor a control character; else 0. */
static size_t character_bytes(struct span value)
{
    uint8_t lead = value.data[0];
    size_t bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    bool control = lead == 0xC2 && value.bytes >= 2 && value.data[1] < 0xA0;
    bool good = lead >= 0xC2 && bytes <= value.bytes && utf8_valid(span_of(value.data, bytes)) && !control;
    return good ? bytes : 0;
}

/* What stands for the next character of a quoted value: its text and, returned, how many bytes of the value it takes.
 */
static size_t quote_next(struct span value, struct text *piece)
{
    uint8_t byte = value.data[0];
    if (byte == '"' || byte == '\\') {
        text_char(piece, '\\');
        text_char(piece, (char)byte);
        return 1;
    }
    if (byte >= ' ' && byte < 0x7F) {
        text_char(piece, (char)byte);
        return 1;
    }
    if (byte == '\n' || byte == '\r' || byte == '\t') {
        text_string(piece, byte == '\n' ? "\\n" : byte == '\r' ? "\\r" : "\\t");
        return 1;
    }
    size_t bytes = byte < 0x80 ? 0 : character_bytes(value);
    if (bytes > 0) {
        text_bytes(piece, span_of(value.data, bytes));
        return bytes;
    }
    text_string(piece, "\\x");
    text_char(piece, hex_digit(byte >> 4));
    text_char(piece, hex_digit(byte));
    return 1;
}

/* Writes a value, as much as fits; false when it was cut. */
static bool put_value(struct text *line, struct span value)
{
    size_t room = line->capacity_bytes - line->used_bytes;
    if (!needs_quotes(value)) {
        text_bytes(line, span_of(value.data, value.bytes < room ? value.bytes : room));
        return value.bytes <= room;
    }
    text_char(line, '"');
    size_t at = 0;
    while (at < value.bytes) {
        char piece_memory[4];
        struct text piece = text_in(piece_memory, sizeof piece_memory);
        size_t taken = quote_next(span_of(value.data + at, value.bytes - at), &piece);
        if (line->used_bytes + piece.used_bytes + 1 > line->capacity_bytes) {
            break;
        }
        text_bytes(line, text_span(&piece));
        at += taken;
    }
    text_char(line, '"');
    return at == value.bytes;
}

/* Writes ` key=value`; false when it was cut or left out. */
static bool put_field(struct text *line, const struct log_field *field)
{
    /* The key, a number, or the beginning of a value. */
    enum { FIELD_BYTES_MIN = 24 };
    size_t key_bytes = strlen(field->key);
    if (line->used_bytes + key_bytes + 2 + FIELD_BYTES_MIN > line->capacity_bytes) {
        return false;
    }
    text_char(line, ' ');
    text_bytes(line, span_of(field->key, key_bytes));
    text_char(line, '=');
    switch (field->kind) {
    case LOG_FIELD_SPAN:
        return put_value(line, field->value.span);
    case LOG_FIELD_TEXT:
        return put_value(line, field->value.text == NULL ? (struct span){NULL, 0} : span_text(field->value.text));
    case LOG_FIELD_U64:
        text_u64(line, field->value.u64);
        return true;
    case LOG_FIELD_I64:
        text_i64(line, field->value.i64);
        return true;
    }
    CHECK(false);
    return false;
}

static void put_time(struct log *log, struct text *line)
{
    int64_t unix_ms = log->port->wall_ms(log->port->context);
    unix_ms = unix_ms < 0 ? 0 : unix_ms;
    if (unix_ms / 1000 != log->second) {
        struct text second = text_in(log->second_text, sizeof log->second_text);
        text_rfc3339(&second, unix_ms);
        log->second = unix_ms / 1000;
    }
    int64_t ms = unix_ms % 1000;
    text_bytes(line, span_of(log->second_text, SECOND_BYTES));
    text_char(line, (char)('0' + ms / 100));
    text_char(line, (char)('0' + ms / 10 % 10));
    text_char(line, (char)('0' + ms % 10));
    text_char(line, 'Z');
}

static void keep_recent(struct log *log, struct span line)
{
    struct log_recent *recent = &log->recent[log->recent_count++ % LOG_RECENT_LINES];
    bool is_whole = line.bytes <= sizeof recent->line;
    recent->bytes = is_whole ? line.bytes : utf8_valid_bytes(span_of(line.data, sizeof recent->line));
    memcpy(recent->line, line.data, recent->bytes);
}

/* Makes room for a line. What the file cannot take was offered to stdout by then; the file alone loses it. */
static void make_room(struct log *log)
{
    if (log->buffer_bytes_max - log->buffer_bytes < LOG_LINE_BYTES_MAX) {
        log_flush(log);
    }
    if (log->buffer_bytes_max - log->buffer_bytes < LOG_LINE_BYTES_MAX) {
        uint64_t lines = count_lines(log->buffer, log->buffer_bytes);
        log->lost_lines += lines;
        log->lost_total += lines;
        drop_lines(log, log->buffer_bytes);
    }
}

void log_write(struct log *log, enum log_level level, const struct log_field *fields, size_t field_count)
{
    log->line_counts[level]++;
    make_room(log);
    char *start = log->buffer + log->buffer_bytes;
    struct text line = text_in(start, LOG_LINE_BYTES_MAX - CUT_MARK_BYTES - 1);
    text_string(&line, "ts=");
    put_time(log, &line);
    text_string(&line, " level=");
    text_string(&line, log_level_name(level));
    bool whole = true;
    for (size_t index = 0; index < field_count && whole; index++) {
        whole = put_field(&line, &fields[index]);
    }
    line.capacity_bytes = LOG_LINE_BYTES_MAX;
    if (!whole) {
        text_string(&line, cut_mark);
    }
    if (level <= LOG_WARN) {
        keep_recent(log, text_span(&line));
    }
    text_char(&line, '\n');
    log->buffer_bytes += line.used_bytes;
}
