/* SPDX-License-Identifier: MIT */
/* Numbers are written two digits a division. A JSON string is copied in runs: eight bytes at a time while all are
 * plain ASCII, whole characters where they are not, and only what must be escaped one by one. A date is computed from
 * the day number alone, in years that begin in March so that the leap day comes last (Hinnant, "chrono-compatible
 * low-level date algorithms"). */
#include "text.h"

#include "hex.h"
#include "utf8.h"

static const char digit_pairs[] = "00010203040506070809"
                                  "10111213141516171819"
                                  "20212223242526272829"
                                  "30313233343536373839"
                                  "40414243444546474849"
                                  "50515253545556575859"
                                  "60616263646566676869"
                                  "70717273747576777879"
                                  "80818283848586878889"
                                  "90919293949596979899";

void text_bytes(struct text *text, struct span bytes)
{
    if (bytes.bytes > text->capacity_bytes - text->used_bytes) {
        text->truncated = true;
        return;
    }
    if (bytes.bytes > 0) {
        memcpy(text->data + text->used_bytes, bytes.data, bytes.bytes);
        text->used_bytes += bytes.bytes;
    }
}

void text_string(struct text *text, const char *string)
{
    text_bytes(text, span_text(string));
}

void text_char(struct text *text, char character)
{
    if (text->used_bytes == text->capacity_bytes) {
        text->truncated = true;
        return;
    }
    text->data[text->used_bytes++] = character;
}

/* Writes the digits so that they end at `end`; returns where they begin. */
static char *digits_before(char *end, uint64_t value)
{
    while (value >= 100) {
        end -= 2;
        memcpy(end, digit_pairs + value % 100 * 2, 2);
        value /= 100;
    }
    if (value >= 10) {
        end -= 2;
        memcpy(end, digit_pairs + value * 2, 2);
    } else {
        *--end = (char)('0' + value);
    }
    return end;
}

enum { U64_DIGITS_MAX = 20 };

void text_u64(struct text *text, uint64_t value)
{
    char digits[U64_DIGITS_MAX];
    char *end = digits + sizeof digits;
    char *start = digits_before(end, value);
    text_bytes(text, span_of(start, (size_t)(end - start)));
}

void text_i64(struct text *text, int64_t value)
{
    char digits[1 + U64_DIGITS_MAX];
    char *end = digits + sizeof digits;
    uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    char *start = digits_before(end, magnitude);
    if (value < 0) {
        *--start = '-';
    }
    text_bytes(text, span_of(start, (size_t)(end - start)));
}

static void put_pair(char *at, uint32_t value)
{
    memcpy(at, digit_pairs + (size_t)value * 2, 2);
}

void text_rfc3339(struct text *text, int64_t unix_ms)
{
    enum { DAY_MS = 86400000 };
    const int64_t last_ms = INT64_C(253402300799999); /* 9999-12-31T23:59:59.999Z */
    uint64_t ms = unix_ms < 0 ? 0 : (uint64_t)(unix_ms > last_ms ? last_ms : unix_ms);

    uint32_t day = (uint32_t)(ms / DAY_MS) + 719468; /* days since 0000-03-01 */
    uint32_t era = day / 146097;                     /* of 400 years */
    uint32_t day_of_era = day % 146097;
    uint32_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    uint32_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    uint32_t march_month = (5 * day_of_year + 2) / 153; /* 0 is March */
    uint32_t month = march_month < 10 ? march_month + 3 : march_month - 9;
    uint32_t year = era * 400 + year_of_era + (month <= 2 ? 1 : 0);

    uint32_t day_ms = (uint32_t)(ms % DAY_MS);
    uint32_t milliseconds = day_ms % 1000;
    uint32_t seconds = day_ms / 1000;

    char out[] = "0000-00-00T00:00:00.000Z";
    put_pair(out, year / 100);
    put_pair(out + 2, year % 100);
    put_pair(out + 5, month);
    put_pair(out + 8, day_of_year - (153 * march_month + 2) / 5 + 1);
    put_pair(out + 11, seconds / 3600);
    put_pair(out + 14, seconds / 60 % 60);
    put_pair(out + 17, seconds % 60);
    out[20] = (char)('0' + milliseconds / 100);
    put_pair(out + 21, milliseconds % 100);
    text_bytes(text, span_of(out, sizeof out - 1));
}

/* True when all eight bytes stand for themselves in a JSON string: ASCII from 0x20 without '"' and '\'. */
static bool plain_word(const uint8_t *bytes)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    const uint64_t highs = UINT64_C(0x8080808080808080);
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    uint64_t quote = word ^ (ones * '"');
    uint64_t backslash = word ^ (ones * '\\');
    /* A borrow can only mark a byte above one that is marked rightly: "any marked" is exact. */
    uint64_t marks = word | (word - ones * 0x20) | (quote - ones) | (backslash - ones);
    return (marks & highs) == 0;
}

static bool plain_byte(uint8_t byte)
{
    return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

/* How many leading bytes of the `bytes` can be copied as they are. */
static size_t plain_run_bytes(const uint8_t *data, size_t bytes)
{
    size_t at = 0;
    for (;;) {
        while (bytes - at >= 8 && plain_word(data + at)) {
            at += 8;
        }
        while (at < bytes && plain_byte(data[at])) {
            at++;
        }
        if (at == bytes || data[at] < 0x80) {
            return at;
        }
        size_t wide = at + 1;
        while (wide < bytes && data[wide] >= 0x80) {
            wide++;
        }
        size_t valid = utf8_valid_bytes(span_of(data + at, wide - at));
        at += valid;
        if (at < wide) {
            return at;
        }
    }
}

static void json_escape(struct text *text, uint8_t byte)
{
    static const uint8_t replacement[] = {0xEF, 0xBF, 0xBD}; /* U+FFFD */
    static const char letters[] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
    char out[6] = {'\\', (char)byte, '0', '0', 0, 0};
    size_t out_bytes = 2;
    if (byte >= 0x80) {
        memcpy(out, replacement, sizeof replacement);
        out_bytes = sizeof replacement;
    } else if (byte < sizeof letters && letters[byte] != 0) {
        out[1] = letters[byte];
    } else if (byte < 0x20) {
        out[1] = 'u';
        out[4] = hex_digit(byte >> 4);
        out[5] = hex_digit(byte);
        out_bytes = 6;
    }
    text_bytes(text, span_of(out, out_bytes));
}

void text_json_string(struct text *text, struct span bytes)
{
    struct text whole = text_in(text->data + text->used_bytes, text->capacity_bytes - text->used_bytes);
    text_char(&whole, '"');
    size_t at = 0;
    while (at < bytes.bytes && !whole.truncated) {
        size_t run_bytes = plain_run_bytes(bytes.data + at, bytes.bytes - at);
        text_bytes(&whole, span_of(bytes.data + at, run_bytes));
        at += run_bytes;
        if (at < bytes.bytes) {
            json_escape(&whole, bytes.data[at]);
            at++;
        }
    }
    text_char(&whole, '"');
    if (whole.truncated) {
        text->truncated = true;
    } else {
        text->used_bytes += whole.used_bytes;
    }
}
