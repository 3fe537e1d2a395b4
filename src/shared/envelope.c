/* SPDX-License-Identifier: MIT */
/* One pass over the members of the top object; each known member is judged as it is met, and the first one that is
 * wrong, in the order of the enumeration, is the error. Names are compared after json has decoded them, so a name
 * written with escapes is the same name. */
#include "envelope.h"

#include "check.h"
#include "json.h"
#include "text.h"

/* A set of the 128 ASCII characters, a bit each. */
struct charset {
    uint64_t words[2];
};

static inline bool in_charset(const struct charset *set, uint8_t byte)
{
    return byte < 128 && (set->words[byte >> 6] >> (byte & 63) & 1) != 0;
}

#define BIT(character) ((uint64_t)1 << ((character)&63))
#define DIGITS ((uint64_t)0x3FF << ('0' & 63))
#define LOWERS ((uint64_t)0x3FFFFFF << ('a' & 63))
#define UPPERS ((uint64_t)0x3FFFFFF << ('A' & 63))

static const struct charset client_id_set = {{DIGITS | BIT('.') | BIT('-'), LOWERS | UPPERS | BIT('_') | BIT('~')}};
static const struct charset message_type_set = {{DIGITS | BIT('.') | BIT('-'), LOWERS | BIT('_')}};
static const struct charset gateway_id_set = {{DIGITS | BIT('.') | BIT('-'), LOWERS | UPPERS | BIT('_')}};
/* Blank to ~ without quotes and backslashes. */
static const struct charset message_id_set = {{UINT64_MAX << 32 & ~BIT('"'), (UINT64_MAX >> 1) & ~BIT('\\')}};

static bool valid(struct span text, size_t bytes_max, const struct charset *set)
{
    if (text.bytes == 0 || text.bytes > bytes_max) {
        return false;
    }
    for (size_t index = 0; index < text.bytes; index++) {
        if (!in_charset(set, text.data[index])) {
            return false;
        }
    }
    return true;
}

bool client_id_valid(struct span id)
{
    return valid(id, CLIENT_ID_BYTES_MAX, &client_id_set);
}

bool message_type_valid(struct span type)
{
    return valid(type, MESSAGE_TYPE_BYTES_MAX, &message_type_set);
}

bool message_id_valid(struct span id)
{
    return valid(id, MESSAGE_ID_BYTES_MAX, &message_id_set);
}

bool gateway_id_valid(struct span id)
{
    return valid(id, GATEWAY_ID_BYTES_MAX, &gateway_id_set);
}

/* The first error in the order of the enumeration wins. */
static void note(enum envelope_error *error, enum envelope_error found)
{
    if (*error == ENVELOPE_OK || found < *error) {
        *error = found;
    }
}

/* Takes a member that must be a string of a certain form into `out`, or notes the error. */
static void take_text(struct json *json, size_t value, bool (*form)(struct span), struct span *out,
                      enum envelope_error *error, enum envelope_error wrong)
{
    struct span text = json_kind(json, value) == JSON_KIND_STRING ? json_string(json, value) : (struct span){NULL, 0};
    if (form(text)) {
        *out = text;
    } else {
        note(error, wrong);
    }
}

static enum envelope_error parse_object(struct json *json, struct span text)
{
    if (json_parse(json, text) != JSON_OK) {
        return ENVELOPE_BAD_JSON;
    }
    return json_kind(json, 0) == JSON_KIND_OBJECT ? ENVELOPE_OK : ENVELOPE_BAD_MESSAGE;
}

enum envelope_error envelope_parse(struct json *json, struct span text, struct envelope *out)
{
    *out = (struct envelope){.has_content = false};
    enum envelope_error error = parse_object(json, text);
    if (error != ENVELOPE_OK) {
        return error;
    }
    bool has_type = false;
    for (size_t name = json_first(json, 0); name != JSON_NONE;) {
        struct span member = json_string(json, name);
        size_t value = json_next(json, name);
        if (span_is(member, "type")) {
            has_type = true;
            take_text(json, value, message_type_valid, &out->type, &error, ENVELOPE_BAD_TYPE);
        } else if (span_is(member, "content")) {
            out->content = json_raw(json, value);
            out->has_content = true;
        } else if (span_is(member, "id")) {
            take_text(json, value, message_id_valid, &out->id, &error, ENVELOPE_BAD_ID);
        }
        name = json_next(json, value);
    }
    if (!has_type) {
        note(&error, ENVELOPE_BAD_TYPE);
    }
    return error;
}

void envelope_write_body(struct text *text, const struct envelope_body *body)
{
    text_string(text, "{\"client_id\":\"");
    text_bytes(text, body->client_id);
    text_string(text, "\",\"type\":\"");
    text_bytes(text, body->type);
    text_string(text, "\",\"content\":");
    text_bytes(text, body->content);
    if (body->id.bytes > 0) {
        text_string(text, ",\"id\":\"");
        text_bytes(text, body->id);
        text_char(text, '"');
    }
    if (body->gateway.bytes > 0) {
        text_string(text, ",\"gateway\":\"");
        text_bytes(text, body->gateway);
        text_char(text, '"');
    }
    if (body->has_received_at) {
        text_string(text, ",\"received_at\":\"");
        text_rfc3339(text, body->received_unix_ms);
        text_char(text, '"');
    }
    text_char(text, '}');
}

/* Reads `count` digits at `at` as a number from min to max. */
static bool read_digits(struct span text, size_t at, size_t count, unsigned min, unsigned max, unsigned *value)
{
    *value = 0;
    if (text.bytes < at + count) {
        return false;
    }
    for (size_t index = at; index < at + count; index++) {
        if (text.data[index] < '0' || text.data[index] > '9') {
            return false;
        }
        *value = *value * 10 + (text.data[index] - '0');
    }
    return *value >= min && *value <= max;
}

static bool byte_is(struct span text, size_t at, char a, char b)
{
    return at < text.bytes && (text.data[at] == (uint8_t)a || text.data[at] == (uint8_t)b);
}

/* Days from 1970-01-01 to a date of the Gregorian calendar; years are counted from March, so that the leap day ends
 * one. */
static int64_t days_from(unsigned year, unsigned month, unsigned day)
{
    unsigned march_year = month <= 2 ? year - 1 : year;
    unsigned march_month = month <= 2 ? month + 9 : month - 3;
    int64_t leaps = (int64_t)march_year / 4 - march_year / 100 + march_year / 400;
    return (int64_t)march_year * 365 + leaps + (march_month * 153 + 2) / 5 + day - 1 - 719468;
}

static unsigned month_days(unsigned year, unsigned month)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap ? 1U : 0U);
}

/* 9999-12-31T23:59:59.999Z */
#define UNIX_MS_MAX INT64_C(253402300799999)

/* RFC 3339 section 5.6, with any offset and any number of decimals; those beyond milliseconds are cut. A leap second
 * counts as the first one of the next minute. */
static bool parse_rfc3339(struct span text, int64_t *unix_ms)
{
    unsigned year;
    unsigned month;
    unsigned day;
    unsigned hour;
    unsigned minute;
    unsigned second;
    if (!read_digits(text, 0, 4, 1970, 9999, &year) || !byte_is(text, 4, '-', '-') ||
        !read_digits(text, 5, 2, 1, 12, &month) || !byte_is(text, 7, '-', '-') ||
        !read_digits(text, 8, 2, 1, month_days(year, month), &day) || !byte_is(text, 10, 'T', 't') ||
        !read_digits(text, 11, 2, 0, 23, &hour) || !byte_is(text, 13, ':', ':') ||
        !read_digits(text, 14, 2, 0, 59, &minute) || !byte_is(text, 16, ':', ':') ||
        !read_digits(text, 17, 2, 0, 60, &second)) {
        return false;
    }
    size_t at = 19;
    unsigned ms = 0;
    if (byte_is(text, at, '.', '.')) {
        unsigned digit;
        size_t first = ++at;
        for (unsigned weight = 100; read_digits(text, at, 1, 0, 9, &digit); at++, weight /= 10) {
            ms += digit * weight;
        }
        if (at == first) {
            return false;
        }
    }
    int64_t offset_minutes = 0;
    if (!byte_is(text, at, 'Z', 'z')) {
        unsigned offset_hour;
        unsigned offset_minute;
        if (!byte_is(text, at, '+', '-') || !read_digits(text, at + 1, 2, 0, 23, &offset_hour) ||
            !byte_is(text, at + 3, ':', ':') || !read_digits(text, at + 4, 2, 0, 59, &offset_minute)) {
            return false;
        }
        offset_minutes = (int64_t)offset_hour * 60 + offset_minute;
        offset_minutes = text.data[at] == '-' ? -offset_minutes : offset_minutes;
        at += 5;
    }
    int64_t minutes = (days_from(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    *unix_ms = (minutes * 60 + second) * 1000 + ms;
    return at + 1 == text.bytes && *unix_ms >= 0 && *unix_ms <= UNIX_MS_MAX;
}

static void take_received_at(struct json *json, size_t value, struct envelope_body *out, enum envelope_error *error)
{
    out->has_received_at =
        json_kind(json, value) == JSON_KIND_STRING && parse_rfc3339(json_string(json, value), &out->received_unix_ms);
    if (!out->has_received_at) {
        note(error, ENVELOPE_BAD_RECEIVED_AT);
    }
}

enum envelope_error envelope_parse_body(struct json *json, struct span text, struct envelope_body *out)
{
    *out = (struct envelope_body){.has_received_at = false};
    enum envelope_error error = parse_object(json, text);
    if (error != ENVELOPE_OK) {
        return error;
    }
    bool has_client_id = false;
    bool has_type = false;
    size_t content = JSON_NONE;
    for (size_t name = json_first(json, 0); name != JSON_NONE;) {
        struct span member = json_string(json, name);
        size_t value = json_next(json, name);
        if (span_is(member, "client_id")) {
            has_client_id = true;
            take_text(json, value, client_id_valid, &out->client_id, &error, ENVELOPE_BAD_CLIENT_ID);
        } else if (span_is(member, "type")) {
            has_type = true;
            take_text(json, value, message_type_valid, &out->type, &error, ENVELOPE_BAD_TYPE);
        } else if (span_is(member, "content")) {
            content = value;
            out->content = json_raw(json, value);
        } else if (span_is(member, "id")) {
            take_text(json, value, message_id_valid, &out->id, &error, ENVELOPE_BAD_ID);
        } else if (span_is(member, "gateway")) {
            take_text(json, value, gateway_id_valid, &out->gateway, &error, ENVELOPE_BAD_GATEWAY);
        } else if (span_is(member, "received_at")) {
            take_received_at(json, value, out, &error);
        }
        name = json_next(json, value);
    }
    if (!has_client_id) {
        note(&error, ENVELOPE_BAD_CLIENT_ID);
    }
    if (!has_type) {
        note(&error, ENVELOPE_BAD_TYPE);
    }
    if (content == JSON_NONE) {
        note(&error, ENVELOPE_BAD_CONTENT);
    } else if (json_holds_nul(json, content)) {
        note(&error, ENVELOPE_NUL_CONTENT);
    }
    return error;
}

const char *envelope_error_code(enum envelope_error error)
{
    switch (error) {
    case ENVELOPE_OK:
        return "ok";
    case ENVELOPE_BAD_JSON:
        return "bad_json";
    case ENVELOPE_BAD_MESSAGE:
        return "bad_message";
    case ENVELOPE_BAD_TYPE:
        return "bad_type";
    case ENVELOPE_BAD_CONTENT:
        return "bad_content";
    case ENVELOPE_BAD_ID:
        return "bad_id";
    case ENVELOPE_BAD_CLIENT_ID:
        return "bad_client_id";
    case ENVELOPE_BAD_GATEWAY:
        return "bad_gateway";
    case ENVELOPE_BAD_RECEIVED_AT:
        return "bad_received_at";
    case ENVELOPE_NUL_CONTENT:
        return "nul_content";
    }
    CHECK(false);
    return "";
}

const char *envelope_error_text(enum envelope_error error)
{
    switch (error) {
    case ENVELOPE_OK:
        return "the message is good";
    case ENVELOPE_BAD_JSON:
        return "not JSON";
    case ENVELOPE_BAD_MESSAGE:
        return "a message is a JSON object";
    case ENVELOPE_BAD_TYPE:
        return "type must be a string of 1 to 32 of a-z 0-9 _ . -";
    case ENVELOPE_BAD_CONTENT:
        return "content is missing";
    case ENVELOPE_BAD_ID:
        return "id must be a string of 1 to 64 printable ASCII characters without quotes or backslashes";
    case ENVELOPE_BAD_CLIENT_ID:
        return "client_id must be a string of 1 to 64 of A-Z a-z 0-9 . _ ~ -";
    case ENVELOPE_BAD_GATEWAY:
        return "gateway must be a string of 1 to 63 of A-Z a-z 0-9 . _ -";
    case ENVELOPE_BAD_RECEIVED_AT:
        return "received_at must be an RFC 3339 time of the years 1970 to 9999";
    case ENVELOPE_NUL_CONTENT:
        return "content holds the character U+0000, which the database cannot store";
    }
    CHECK(false);
    return "";
}

_Static_assert(MESSAGE_TYPE_BYTES_MAX == 32 && MESSAGE_ID_BYTES_MAX == 64 && CLIENT_ID_BYTES_MAX == 64 &&
                   GATEWAY_ID_BYTES_MAX == 63,
               "the sentences above name them");

void envelope_describe(struct text *text, enum envelope_error error, const struct json *json)
{
    text_string(text, envelope_error_text(error));
    if (error == ENVELOPE_BAD_JSON) {
        text_string(text, ": ");
        text_string(text, json_error_text(json->error));
        text_string(text, ", at byte ");
        text_u64(text, json->error_offset);
    }
}
