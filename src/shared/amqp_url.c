/* SPDX-License-Identifier: MIT */
/* Method: cut the list at commas, and each URL from its left: scheme, then the authority up to '/', in it the last '@'
 * ends user and password, then host, port and vhost. Each part is percent-decoded by itself into its fixed field, so
 * that an encoded separator is never taken for a real one. */
#include "amqp_url.h"

#include "hex.h"

/* Where the parser is: the part of `text` that is left to read. */
struct cursor {
    const uint8_t *start; /* of the whole list */
    size_t offset;        /* of the error, from start */
};

static enum amqp_url_error fail(struct cursor *cursor, const uint8_t *at, enum amqp_url_error error)
{
    cursor->offset = at == NULL ? 0 : (size_t)(at - cursor->start);
    return error;
}

/* The first `wanted` in the span, or its end. */
static size_t find(struct span span, uint8_t wanted)
{
    size_t i = 0;
    while (i < span.bytes && span.data[i] != wanted) {
        i++;
    }
    return i;
}

static struct span from(struct span span, size_t start)
{
    return span_of(span.data + start, span.bytes - start);
}

static enum amqp_url_error decode(struct cursor *cursor, struct span part, char *out, size_t bytes_max)
{
    size_t used = 0;
    for (size_t i = 0; i < part.bytes; i++) {
        uint8_t c = part.data[i];
        if (c == '%') {
            int high = i + 2 < part.bytes ? hex_value(part.data[i + 1]) : -1;
            int low = i + 2 < part.bytes ? hex_value(part.data[i + 2]) : -1;
            if (high < 0 || low < 0 || high + low == 0) {
                return fail(cursor, part.data + i, AMQP_URL_PERCENT);
            }
            c = (uint8_t)(high * 16 + low);
            i += 2;
        } else if (c == ' ' || c == '\t') {
            return fail(cursor, part.data + i, AMQP_URL_BLANK);
        }
        if (used == bytes_max) {
            return fail(cursor, part.data, AMQP_URL_TOO_LONG);
        }
        out[used++] = (char)c;
    }
    out[used] = '\0';
    return AMQP_URL_OK;
}

static bool is_host_character(uint8_t c, bool is_v6)
{
    if ((c >= '0' && c <= '9') || c == '.') {
        return true;
    }
    if (is_v6) {
        return c == ':' || hex_value(c) >= 0;
    }
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
}

static enum amqp_url_error parse_host(struct cursor *cursor, struct span *rest, struct amqp_broker *broker)
{
    bool is_v6 = rest->bytes > 0 && rest->data[0] == '[';
    struct span host = is_v6 ? from(*rest, 1) : *rest;
    host.bytes = find(host, is_v6 ? ']' : ':');
    size_t used = host.bytes + (is_v6 ? 2 : 0);
    if (host.bytes == 0 || used > rest->bytes) {
        return fail(cursor, rest->data, AMQP_URL_HOST);
    }
    if (host.bytes > AMQP_HOST_BYTES_MAX) {
        return fail(cursor, host.data, AMQP_URL_TOO_LONG);
    }
    for (size_t i = 0; i < host.bytes; i++) {
        if (!is_host_character(host.data[i], is_v6)) {
            return fail(cursor, host.data + i, AMQP_URL_HOST);
        }
    }
    memcpy(broker->host, host.data, host.bytes);
    broker->host[host.bytes] = '\0';
    *rest = from(*rest, used);
    return AMQP_URL_OK;
}

static enum amqp_url_error parse_port(struct cursor *cursor, struct span rest, struct amqp_broker *broker)
{
    broker->port = AMQP_PORT_DEFAULT;
    if (rest.bytes == 0) {
        return AMQP_URL_OK;
    }
    uint32_t port = 0;
    bool is_good = rest.data[0] == ':' && rest.bytes > 1 && rest.bytes <= 6;
    for (size_t i = 1; is_good && i < rest.bytes; i++) {
        is_good = rest.data[i] >= '0' && rest.data[i] <= '9';
        port = port * 10 + (uint32_t)(rest.data[i] - '0');
    }
    if (!is_good || port == 0 || port > 65535) {
        return fail(cursor, rest.data, AMQP_URL_PORT);
    }
    broker->port = (uint16_t)port;
    return AMQP_URL_OK;
}

static enum amqp_url_error parse_login(struct cursor *cursor, struct span login, struct amqp_broker *broker)
{
    size_t colon = find(login, ':');
    struct span user = span_of(login.data, colon);
    enum amqp_url_error error = decode(cursor, user, broker->user, AMQP_USER_BYTES_MAX);
    if (error != AMQP_URL_OK) {
        return error;
    }
    struct span password = colon < login.bytes ? from(login, colon + 1) : from(login, login.bytes);
    return decode(cursor, password, broker->password, AMQP_PASSWORD_BYTES_MAX);
}

static enum amqp_url_error parse_vhost(struct cursor *cursor, struct span path, struct amqp_broker *broker)
{
    for (size_t i = 0; i < path.bytes; i++) {
        if (path.data[i] == '/' || path.data[i] == '?' || path.data[i] == '#') {
            return fail(cursor, path.data + i, AMQP_URL_VHOST);
        }
    }
    return decode(cursor, path, broker->vhost, AMQP_VHOST_BYTES_MAX);
}

static enum amqp_url_error parse_one(struct cursor *cursor, struct span url, struct amqp_broker *broker)
{
    static const char SCHEME[] = "amqp://";
    static const struct amqp_broker DEFAULTS = {
        .port = AMQP_PORT_DEFAULT, .user = "guest", .password = "guest", .vhost = "/"};
    *broker = DEFAULTS;
    size_t scheme_bytes = sizeof SCHEME - 1;
    if (url.bytes == 0) {
        return fail(cursor, url.data, AMQP_URL_EMPTY);
    }
    if (url.bytes < scheme_bytes || memcmp(url.data, SCHEME, scheme_bytes) != 0) {
        return fail(cursor, url.data, AMQP_URL_SCHEME);
    }
    struct span rest = from(url, scheme_bytes);
    size_t slash = find(rest, '/');
    struct span authority = span_of(rest.data, slash);
    enum amqp_url_error error = AMQP_URL_OK;
    if (slash + 1 < rest.bytes) {
        error = parse_vhost(cursor, from(rest, slash + 1), broker);
    }
    size_t at = authority.bytes;
    while (at > 0 && authority.data[at - 1] != '@') {
        at--;
    }
    if (error == AMQP_URL_OK && at > 0) {
        error = parse_login(cursor, span_of(authority.data, at - 1), broker);
        authority = from(authority, at);
    }
    if (error == AMQP_URL_OK) {
        error = parse_host(cursor, &authority, broker);
    }
    return error == AMQP_URL_OK ? parse_port(cursor, authority, broker) : error;
}

static struct span trim(struct span span)
{
    while (span.bytes > 0 && (span.data[0] == ' ' || span.data[0] == '\t')) {
        span = from(span, 1);
    }
    while (span.bytes > 0 && (span.data[span.bytes - 1] == ' ' || span.data[span.bytes - 1] == '\t')) {
        span.bytes--;
    }
    return span;
}

enum amqp_url_error amqp_url_parse(struct span text, struct amqp_brokers *brokers, size_t *offset)
{
    struct cursor cursor = {text.data, 0};
    struct span rest = text;
    enum amqp_url_error error = AMQP_URL_OK;
    bool is_last = false;
    brokers->count = 0;
    while (error == AMQP_URL_OK && !is_last) {
        size_t comma = find(rest, ',');
        is_last = comma == rest.bytes;
        struct span url = trim(span_of(rest.data, comma));
        if (brokers->count == AMQP_BROKERS_MAX) {
            error = fail(&cursor, url.data, AMQP_URL_TOO_MANY);
        } else {
            error = parse_one(&cursor, url, &brokers->at[brokers->count]);
            brokers->count++;
        }
        if (!is_last) {
            rest = from(rest, comma + 1);
        }
    }
    if (offset != NULL) {
        *offset = cursor.offset;
    }
    return error;
}

const char *amqp_url_error_text(enum amqp_url_error error)
{
    switch (error) {
    case AMQP_URL_OK:
        return "is right";
    case AMQP_URL_EMPTY:
        return "a URL is missing: write amqp://user:password@host:5672/vhost";
    case AMQP_URL_TOO_MANY:
        return "more than 8 brokers are named";
    case AMQP_URL_SCHEME:
        return "a URL must begin with amqp://";
    case AMQP_URL_HOST:
        return "no host, or a host with a character that no host has (an IPv6 address stands in brackets; an '@', ':' "
               "or '/' in user or password is written %40, %3A or %2F)";
    case AMQP_URL_PORT:
        return "the port must be 1 to 65535";
    case AMQP_URL_BLANK:
        return "a URL holds no blank (in user, password or vhost it is written %20)";
    case AMQP_URL_PERCENT:
        return "'%' must be followed by two hexadecimal digits, and not by 00 (a '%' itself is written %25)";
    case AMQP_URL_VHOST:
        return "a vhost must not hold '/', '?' or '#' (write %2F, %3F or %23; options after '?' are settings here)";
    case AMQP_URL_TOO_LONG:
        return "host, user, password or vhost is too long";
    }
    return "unknown";
}
