/* SPDX-License-Identifier: MIT */
/* Each function reads one thing at reader->at and says whether it was right. The decoded characters of all strings
 * stand one after another in `decoded`; an object's names are remembered there to be compared with each other. */
#include "strict_json.h"

#include <string.h>

#include "limits.h"

enum { NAMES_MAX = FUZZ_INPUT_BYTES_MAX / 2 };

struct reader {
    const uint8_t *text;
    size_t bytes;
    size_t at;
    struct fuzz_trace *trace;
    bool has_nul;
    bool has_duplicate;
    size_t decoded_bytes;
    size_t name_count;
};

static uint8_t decoded[FUZZ_INPUT_BYTES_MAX];
static struct span names[NAMES_MAX];

static bool read_value(struct reader *reader, size_t depth);

static int peek(const struct reader *reader)
{
    return reader->at < reader->bytes ? reader->text[reader->at] : -1;
}

static bool meet(struct reader *reader, int byte)
{
    bool is_there = peek(reader) == byte;
    reader->at += is_there;
    return is_there;
}

static void skip_blanks(struct reader *reader)
{
    while (meet(reader, ' ') || meet(reader, '\n') || meet(reader, '\r') || meet(reader, '\t')) {
    }
}

static void note(struct reader *reader, enum strict_json_note what, uint64_t number, struct span data)
{
    if (reader->trace != NULL) {
        fuzz_note(reader->trace, what, number, data);
    }
}

/* ---- strings ---- */

static void put(struct reader *reader, unsigned byte)
{
    decoded[reader->decoded_bytes++] = (uint8_t)byte;
}

static void put_character(struct reader *reader, uint32_t character)
{
    if (character < 0x80) {
        put(reader, character);
    } else if (character < 0x800) {
        put(reader, 0xC0 + character / 64);
        put(reader, 0x80 + character % 64);
    } else if (character < 0x10000) {
        put(reader, 0xE0 + character / 4096);
        put(reader, 0x80 + character / 64 % 64);
        put(reader, 0x80 + character % 64);
    } else {
        put(reader, 0xF0 + character / 262144);
        put(reader, 0x80 + character / 4096 % 64);
        put(reader, 0x80 + character / 64 % 64);
        put(reader, 0x80 + character % 64);
    }
}

static bool read_hex(struct reader *reader, uint32_t *unit)
{
    static const char digits[] = "0123456789abcdefABCDEF";
    *unit = 0;
    for (size_t i = 0; i < 4; i++) {
        int byte = peek(reader);
        const char *digit = byte <= 0 ? NULL : strchr(digits, byte);
        if (digit == NULL) {
            return false;
        }
        uint32_t value = (uint32_t)(digit - digits);
        *unit = *unit * 16 + (value < 16 ? value : value - 6);
        reader->at++;
    }
    return true;
}

static bool read_unicode_escape(struct reader *reader)
{
    uint32_t unit;
    uint32_t second;
    if (!read_hex(reader, &unit) || (unit >= 0xDC00 && unit <= 0xDFFF)) {
        return false;
    }
    if (unit >= 0xD800 && unit <= 0xDBFF) {
        if (!meet(reader, '\\') || !meet(reader, 'u') || !read_hex(reader, &second) || second < 0xDC00 ||
            second > 0xDFFF) {
            return false;
        }
        unit = 0x10000 + (unit - 0xD800) * 1024 + (second - 0xDC00);
    }
    reader->has_nul = reader->has_nul || unit == 0;
    put_character(reader, unit);
    return true;
}

static bool read_escape(struct reader *reader)
{
    static const char escapes[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";
    if (meet(reader, 'u')) {
        return read_unicode_escape(reader);
    }
    int byte = peek(reader);
    const char *escape = byte <= 0 ? NULL : strchr(escapes, byte);
    if (escape == NULL) {
        return false;
    }
    put(reader, (unsigned char)meanings[escape - escapes]);
    reader->at++;
    return true;
}

static bool read_string(struct reader *reader, struct span *string)
{
    size_t start = reader->at;
    size_t first = reader->decoded_bytes;
    if (!meet(reader, '"')) {
        return false;
    }
    while (!meet(reader, '"')) {
        int byte = peek(reader);
        if (byte < ' ') {
            return false;
        }
        reader->at++;
        if (byte != '\\') {
            put(reader, (unsigned)byte);
        } else if (!read_escape(reader)) {
            return false;
        }
    }
    *string = span_of(decoded + first, reader->decoded_bytes - first);
    note(reader, STRICT_JSON_STRING, reader->at - start, *string);
    return fuzz_utf8(span_of(reader->text + start, reader->at - start)) == FUZZ_UTF8_WHOLE;
}

/* ---- numbers and words ---- */

static bool read_digits(struct reader *reader)
{
    size_t start = reader->at;
    while (peek(reader) >= '0' && peek(reader) <= '9') {
        reader->at++;
    }
    return reader->at > start;
}

static bool read_number(struct reader *reader)
{
    (void)meet(reader, '-');
    if (!meet(reader, '0') && !read_digits(reader)) {
        return false;
    }
    if (meet(reader, '.') && !read_digits(reader)) {
        return false;
    }
    if (meet(reader, 'e') || meet(reader, 'E')) {
        (void)(meet(reader, '+') || meet(reader, '-'));
        return read_digits(reader);
    }
    return true;
}

static bool read_word(struct reader *reader, const char *word)
{
    for (; *word != '\0'; word++) {
        if (!meet(reader, *word)) {
            return false;
        }
    }
    return true;
}

/* ---- containers ---- */

static bool is_new_name(const struct reader *reader, size_t first, struct span name)
{
    for (size_t i = first; i < reader->name_count; i++) {
        if (span_equal(names[i], name)) {
            return false;
        }
    }
    return true;
}

static bool read_member_name(struct reader *reader, size_t first)
{
    struct span name;
    skip_blanks(reader);
    if (!read_string(reader, &name)) {
        return false;
    }
    reader->has_duplicate = reader->has_duplicate || !is_new_name(reader, first, name);
    CHECK(reader->name_count < NAMES_MAX);
    names[reader->name_count++] = name;
    skip_blanks(reader);
    return meet(reader, ':');
}

static bool read_container(struct reader *reader, size_t depth, bool is_object)
{
    int end = is_object ? '}' : ']';
    size_t first_name = reader->name_count;
    size_t start = reader->at++;
    size_t count = 0;
    if (depth == JSON_DEPTH_MAX) {
        return false;
    }
    skip_blanks(reader);
    if (!meet(reader, end)) {
        do {
            if ((is_object && !read_member_name(reader, first_name)) || !read_value(reader, depth + 1)) {
                return false;
            }
            count++;
            skip_blanks(reader);
        } while (meet(reader, ','));
        if (!meet(reader, end)) {
            return false;
        }
    }
    reader->name_count = first_name;
    note(reader, is_object ? STRICT_JSON_OBJECT : STRICT_JSON_ARRAY, count,
         span_of(reader->text + start, reader->at - start));
    return true;
}

static bool read_value(struct reader *reader, size_t depth)
{
    skip_blanks(reader);
    size_t start = reader->at;
    int first = peek(reader);
    struct span string;
    if (first == '{' || first == '[') {
        return read_container(reader, depth, first == '{');
    }
    if (first == '"') {
        return read_string(reader, &string);
    }
    bool is_right = first == 't'   ? read_word(reader, "true")
                    : first == 'f' ? read_word(reader, "false")
                    : first == 'n' ? read_word(reader, "null")
                                   : read_number(reader);
    note(reader, STRICT_JSON_OTHER, 0, span_of(reader->text + start, reader->at - start));
    return is_right;
}

enum strict_json_verdict strict_json(struct span text, struct fuzz_trace *trace, bool *has_nul)
{
    struct reader reader = {.text = text.data, .bytes = text.bytes, .trace = trace};
    CHECK(text.bytes <= FUZZ_INPUT_BYTES_MAX);
    if (trace != NULL) {
        fuzz_trace_begin(trace);
    }
    bool is_right = read_value(&reader, 0);
    skip_blanks(&reader);
    *has_nul = reader.has_nul;
    if (!is_right || reader.at < reader.bytes) {
        return STRICT_JSON_WRONG;
    }
    return reader.has_duplicate ? STRICT_JSON_DUPLICATE : STRICT_JSON_RIGHT;
}
