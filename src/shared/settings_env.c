/* SPDX-License-Identifier: MIT */
/* Reads a .env file as docker-compose does: NAME=value lines, `export` before the name, # comments, single quotes
 * (literal), double quotes (escapes), and outside single quotes $NAME, ${NAME}, ${NAME:-default} and ${NAME-default}.
 * Where docker-compose's versions differ or guess, this refuses: a name without a value, a value over several lines,
 * an unknown escape or form of ${…}, and a variable that is not set. */
#include "settings_table.h"
#include "text.h"

/* The line being read, and what is read out of it. */
struct cursor {
    const struct settings_reader *reader;
    struct span line;
    size_t at;
    struct text value;
    struct text *error;
};

static bool is_name_start(uint8_t byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || byte == '_';
}

static bool is_name_byte(uint8_t byte)
{
    return is_name_start(byte) || (byte >= '0' && byte <= '9');
}

static bool is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\t';
}

/* The byte at the cursor; 0 at the line's end (a line holds no zero byte). */
static uint8_t peek(const struct cursor *cursor)
{
    return cursor->at < cursor->line.bytes ? cursor->line.data[cursor->at] : 0;
}

static void skip_blanks(struct cursor *cursor)
{
    while (is_blank(peek(cursor))) {
        cursor->at++;
    }
}

static bool refuse(struct cursor *cursor, const char *sentence)
{
    text_string(cursor->error, sentence);
    return false;
}

/* The name at the cursor, possibly empty. */
static struct span take_name(struct cursor *cursor)
{
    size_t start = cursor->at;
    if (is_name_start(peek(cursor))) {
        while (is_name_byte(peek(cursor))) {
            cursor->at++;
        }
    }
    return span_of(cursor->line.data + start, cursor->at - start);
}

/* Takes $NAME, ${NAME}, ${NAME-default}, ${NAME:-default} or $$, from the $ on. */
static bool take_variable(struct cursor *cursor)
{
    cursor->at++;
    if (peek(cursor) == '$') {
        cursor->at++;
        text_char(&cursor->value, '$');
        return true;
    }
    bool braces = peek(cursor) == '{';
    cursor->at += braces ? 1 : 0;
    struct span name = take_name(cursor);
    if (name.bytes == 0) {
        return refuse(cursor, "a $ that names no variable; write $$ for a dollar sign");
    }
    struct span found = cursor->reader->lookup(cursor->reader->context, name);
    if (braces && peek(cursor) != '}') {
        bool empty_too = peek(cursor) == ':';
        cursor->at += empty_too ? 1 : 0;
        if (peek(cursor) != '-') {
            return refuse(cursor, "a form of ${...} other than ${NAME}, ${NAME-default} and ${NAME:-default}");
        }
        size_t start = ++cursor->at;
        while (peek(cursor) != '}' && peek(cursor) != '$' && peek(cursor) != 0) {
            cursor->at++;
        }
        if (found.data == NULL || (empty_too && found.bytes == 0)) {
            found = span_of(cursor->line.data + start, cursor->at - start);
        }
    }
    if (braces && peek(cursor) != '}') {
        return refuse(cursor, "a ${ without its }");
    }
    cursor->at += braces ? 1 : 0;
    if (found.data == NULL) {
        text_string(cursor->error, "${");
        text_bytes(cursor->error, name);
        return refuse(cursor, "} is not set");
    }
    text_bytes(&cursor->value, found);
    return true;
}

static bool take_single_quoted(struct cursor *cursor)
{
    size_t start = ++cursor->at;
    while (peek(cursor) != '\'') {
        if (peek(cursor) == 0) {
            return refuse(cursor, "a ' without a second one");
        }
        cursor->at++;
    }
    text_bytes(&cursor->value, span_of(cursor->line.data + start, cursor->at - start));
    cursor->at++;
    return true;
}

static bool take_escape(struct cursor *cursor)
{
    uint8_t escape = ++cursor->at < cursor->line.bytes ? cursor->line.data[cursor->at] : 0;
    switch (escape) {
    case '\\':
    case '"':
    case '$':
        text_char(&cursor->value, (char)escape);
        break;
    case 'n':
        text_char(&cursor->value, '\n');
        break;
    case 'r':
        text_char(&cursor->value, '\r');
        break;
    case 't':
        text_char(&cursor->value, '\t');
        break;
    default:
        return refuse(cursor, "an escape other than \\\\ \\\" \\$ \\n \\r \\t");
    }
    cursor->at++;
    return true;
}

static bool take_double_quoted(struct cursor *cursor)
{
    cursor->at++;
    while (peek(cursor) != '"') {
        uint8_t byte = peek(cursor);
        if (byte == 0) {
            return refuse(cursor, "a \" without a second one");
        }
        if (byte == '\\' || byte == '$') {
            if (!(byte == '$' ? take_variable(cursor) : take_escape(cursor))) {
                return false;
            }
            continue;
        }
        text_char(&cursor->value, (char)byte);
        cursor->at++;
    }
    cursor->at++;
    return true;
}

/* Up to the end or to a # behind a blank; blanks at the end do not count. */
static bool take_unquoted(struct cursor *cursor)
{
    size_t end = cursor->value.used_bytes;
    while (peek(cursor) != 0) {
        uint8_t byte = peek(cursor);
        if (byte == '#' && (cursor->at == 0 || is_blank(cursor->line.data[cursor->at - 1]))) {
            cursor->at = cursor->line.bytes;
            break;
        }
        if (byte == '$') {
            if (!take_variable(cursor)) {
                return false;
            }
            end = cursor->value.used_bytes;
            continue;
        }
        text_char(&cursor->value, (char)byte);
        cursor->at++;
        end = is_blank(byte) ? end : cursor->value.used_bytes;
    }
    cursor->value.used_bytes = end;
    return true;
}

static bool take_value(struct cursor *cursor)
{
    skip_blanks(cursor);
    uint8_t first = peek(cursor);
    if (first != '\'' && first != '"') {
        return take_unquoted(cursor);
    }
    if (!(first == '"' ? take_double_quoted(cursor) : take_single_quoted(cursor))) {
        return false;
    }
    size_t quote_end = cursor->at;
    skip_blanks(cursor);
    if (peek(cursor) == 0 || (peek(cursor) == '#' && cursor->at > quote_end)) {
        return true;
    }
    return refuse(cursor, "something behind the closing quote");
}

/* Takes NAME=value; the line is neither empty nor a comment. */
static bool take_line(struct cursor *cursor, struct settings_line *line)
{
    line->name = take_name(cursor);
    if (span_is(line->name, "export") && is_blank(peek(cursor))) {
        skip_blanks(cursor);
        line->name = take_name(cursor);
    }
    skip_blanks(cursor);
    if (line->name.bytes == 0 || peek(cursor) != '=') {
        return refuse(cursor, "not of the form NAME=value");
    }
    cursor->at++;
    cursor->value = text_in(line->value, SETTINGS_TEXT_BYTES_MAX);
    if (!take_value(cursor)) {
        return false;
    }
    if (cursor->value.truncated) {
        text_bytes(cursor->error, line->name);
        text_string(cursor->error, " is longer than ");
        text_u64(cursor->error, SETTINGS_TEXT_BYTES_MAX);
        return refuse(cursor, " bytes");
    }
    line->value_bytes = cursor->value.used_bytes;
    return true;
}

/* The next line without its end; false when there is none. */
static bool next_line(struct settings_reader *reader, struct span *line)
{
    if (reader->at >= reader->text.bytes) {
        return false;
    }
    const uint8_t *start = reader->text.data + reader->at;
    size_t left = reader->text.bytes - reader->at;
    const uint8_t *newline = memchr(start, '\n', left);
    size_t bytes = newline == NULL ? left : (size_t)(newline - start);
    reader->at += bytes + (newline == NULL ? 0 : 1);
    reader->number++;
    static const uint8_t mark[] = {0xEF, 0xBB, 0xBF}; /* some editors put this byte order mark first */
    if (reader->number == 1 && bytes >= sizeof mark && memcmp(start, mark, sizeof mark) == 0) {
        start += sizeof mark;
        bytes -= sizeof mark;
    }
    bytes -= bytes > 0 && start[bytes - 1] == '\r' ? 1 : 0;
    *line = span_of(start, bytes);
    return true;
}

enum settings_read settings_read(struct settings_reader *reader, struct settings_line *line, struct text *error)
{
    struct cursor cursor = {.reader = reader, .error = error};
    while (next_line(reader, &cursor.line)) {
        cursor.at = 0;
        line->number = reader->number;
        if (cursor.line.bytes > 0 && memchr(cursor.line.data, 0, cursor.line.bytes) != NULL) {
            (void)refuse(&cursor, "a zero byte");
            return SETTINGS_READ_BAD;
        }
        skip_blanks(&cursor);
        if (peek(&cursor) != 0 && peek(&cursor) != '#') {
            return take_line(&cursor, line) ? SETTINGS_READ_LINE : SETTINGS_READ_BAD;
        }
    }
    return SETTINGS_READ_END;
}
