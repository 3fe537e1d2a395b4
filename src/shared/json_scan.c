/* SPDX-License-Identifier: MIT */
/* Strings are read by words of eight bytes as long as these hold nothing of note; a string that was not all ASCII is
 * then checked as UTF-8 whole. */
#include "json_scan.h"

#include "hex.h"
#include "utf8.h"

static inline bool is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

static inline bool is_letter(uint8_t byte)
{
    uint8_t lower = byte | 0x20;
    return lower >= 'a' && lower <= 'z';
}

static enum json_error fail_at(struct json_scan *scan, size_t offset, enum json_error error)
{
    scan->at = offset;
    return error;
}

void json_scan_blanks(struct json_scan *scan)
{
    size_t at = scan->at;
    while (at < scan->bytes) {
        uint8_t byte = scan->data[at];
        if (byte != ' ' && byte != '\n' && byte != '\r' && byte != '\t') {
            break;
        }
        at++;
    }
    scan->at = at;
}

/* Four hexadecimal digits as a number, or -1. */
static int32_t hex4(const uint8_t *digits)
{
    int32_t value = 0;
    for (size_t index = 0; index < 4; index++) {
        int digit = hex_value(digits[index]);
        if (digit < 0) {
            return -1;
        }
        value = value * 16 + digit;
    }
    return value;
}

/* How many of the next bytes are plain: no quote, backslash or control character, and ASCII. Whole words only. */
static inline size_t plain_bytes(const uint8_t *data, size_t bytes)
{
    size_t plain = 0;
    while (bytes - plain >= 8) {
        uint64_t word;
        memcpy(&word, data + plain, 8);
        if (!json_word_plain(word)) {
            break;
        }
        plain += 8;
    }
    return plain;
}

/* Passes over the escape at scan->at. */
static enum json_error scan_escape(struct json_scan *scan)
{
    size_t start = scan->at;
    size_t left = scan->bytes - start;
    if (left < 2) {
        return fail_at(scan, scan->bytes, JSON_END);
    }
    const uint8_t *escape = scan->data + start;
    if (escape[1] != 'u') {
        if (escape[1] == '\0' || strchr("\"\\/bfnrt", escape[1]) == NULL) {
            return fail_at(scan, start, JSON_ESCAPE);
        }
        scan->at += 2;
        return JSON_OK;
    }
    int32_t unit = left < 6 ? -1 : hex4(escape + 2);
    if (unit < 0) {
        return fail_at(scan, start, JSON_ESCAPE);
    }
    scan->at += 6;
    scan->has_nul = scan->has_nul || unit == 0;
    if (unit < 0xD800 || unit > 0xDFFF) {
        return JSON_OK;
    }
    int32_t second = unit > 0xDBFF || left < 12 || escape[6] != '\\' || escape[7] != 'u' ? -1 : hex4(escape + 8);
    if (second < 0xDC00 || second > 0xDFFF) {
        return fail_at(scan, start, JSON_SURROGATE);
    }
    scan->at += 6;
    return JSON_OK;
}

enum json_error json_scan_string(struct json_scan *scan)
{
    size_t start = scan->at + 1;
    bool ascii = true;
    scan->escaped = false;
    scan->at = start;
    for (;;) {
        scan->at += plain_bytes(scan->data + scan->at, scan->bytes - scan->at);
        size_t word_end = scan->bytes - scan->at < 8 ? scan->bytes : scan->at + 8;
        uint8_t byte = 0x20;
        for (; scan->at < word_end; scan->at++) {
            byte = scan->data[scan->at];
            if (byte < 0x20 || byte == '"' || byte == '\\') {
                break;
            }
            ascii = ascii && byte < 0x80;
        }
        if (scan->at == scan->bytes) {
            return JSON_END;
        }
        if (scan->at == word_end) {
            continue;
        }
        if (byte == '"') {
            break;
        }
        if (byte < 0x20) {
            return JSON_CONTROL;
        }
        scan->escaped = true;
        enum json_error error = scan_escape(scan);
        if (error != JSON_OK) {
            return error;
        }
    }
    if (!ascii) {
        struct span raw = span_of(scan->data + start, scan->at - start);
        size_t valid_bytes = utf8_valid_bytes(raw);
        if (valid_bytes != raw.bytes) {
            return fail_at(scan, start + valid_bytes, JSON_UTF8);
        }
    }
    scan->at++;
    return JSON_OK;
}

/* Passes over digits; false when there is none. */
static bool pass_digits(struct json_scan *scan)
{
    size_t start = scan->at;
    while (scan->at < scan->bytes && is_digit(scan->data[scan->at])) {
        scan->at++;
    }
    return scan->at > start;
}

/* Passes over one byte if it is one of two. */
static bool pass_either(struct json_scan *scan, uint8_t a, uint8_t b)
{
    if (scan->at == scan->bytes || (scan->data[scan->at] != a && scan->data[scan->at] != b)) {
        return false;
    }
    scan->at++;
    return true;
}

/* Passes over a number (RFC 8259 section 6); false at the first byte that cannot be part of one. */
static bool pass_number(struct json_scan *scan)
{
    (void)pass_either(scan, '-', '-');
    if (!pass_either(scan, '0', '0') && !pass_digits(scan)) {
        return false;
    }
    if (pass_either(scan, '.', '.') && !pass_digits(scan)) {
        return false;
    }
    if (pass_either(scan, 'e', 'E')) {
        (void)pass_either(scan, '+', '-');
        return pass_digits(scan);
    }
    return true;
}

static bool pass_word(struct json_scan *scan, const char *word)
{
    for (; *word != '\0'; word++, scan->at++) {
        if (scan->at == scan->bytes || scan->data[scan->at] != (uint8_t)*word) {
            return false;
        }
    }
    return true;
}

enum json_error json_scan_primitive(struct json_scan *scan)
{
    uint8_t first = scan->data[scan->at];
    bool number = first == '-' || is_digit(first);
    bool good = number         ? pass_number(scan)
                : first == 't' ? pass_word(scan, "true")
                : first == 'f' ? pass_word(scan, "false")
                               : pass_word(scan, "null");
    if (good && scan->at < scan->bytes) {
        /* What could only go on with the word or the number spoils it; anything else is for the grammar to judge. */
        uint8_t next = scan->data[scan->at];
        good = !is_digit(next) && !is_letter(next) && next != '+' && next != '-' && next != '.' && next != '_';
    }
    if (good) {
        return JSON_OK;
    }
    return scan->at == scan->bytes ? JSON_END : number ? JSON_NUMBER : JSON_LITERAL;
}

/* Writes a character in UTF-8 and gives its length. */
static size_t put_utf8(char *to, uint32_t character)
{
    if (character < 0x80) {
        to[0] = (char)character;
        return 1;
    }
    static const uint8_t lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    size_t bytes = character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
    for (size_t index = bytes; index-- > 1; character >>= 6) {
        to[index] = (char)(0x80 | (character & 0x3F));
    }
    to[0] = (char)(lead[bytes] | character);
    return bytes;
}

size_t json_decode(const uint8_t *from, size_t bytes, char *to)
{
    static const char names[] = "\"\\/bfnrt";
    static const char values[] = "\"\\/\b\f\n\r\t";
    size_t written = 0;
    for (size_t at = 0; at < bytes;) {
        if (from[at] != '\\') {
            to[written++] = (char)from[at++];
            continue;
        }
        uint8_t escape = from[at + 1];
        at += 2;
        if (escape != 'u') {
            to[written++] = values[strchr(names, escape) - names];
            continue;
        }
        uint32_t character = (uint32_t)hex4(from + at);
        at += 4;
        if (character >= 0xD800 && character <= 0xDBFF) {
            character = 0x10000 + ((character - 0xD800) << 10) + ((uint32_t)hex4(from + at + 2) - 0xDC00);
            at += 6;
        }
        written += put_utf8(to + written, character);
    }
    return written;
}
