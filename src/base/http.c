/* SPDX-License-Identifier: MIT */
/* The scan is a state machine over single bytes that only knows where lines end; it is what stands between a slow or
 * hostile sender and the parser, which then goes over the whole head once, line by line. */
#include "http.h"

#include <string.h>

#include "check.h"
#include "hex.h"

enum scan_state {
    SCAN_START,        /* before the first byte */
    SCAN_REQUEST_LINE, /* within it */
    SCAN_LINE_END,     /* after its CR, or a field's */
    SCAN_LINE_START,
    SCAN_FIELD,
    SCAN_LAST, /* after the CR of the empty line */
    SCAN_OVER
};

/* RFC 9110 section 5.6.2. */
static bool is_token_char(uint8_t byte)
{
    if ((byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z')) {
        return true;
    }
    return byte != 0 && strchr("!#$%&'*+-.^_`|~", byte) != NULL;
}

static bool is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\t';
}

/* The state after `byte`; SCAN_OVER when it cannot stand there. The head's last byte is judged by the caller. */
static enum scan_state scan_step(enum scan_state state, uint8_t byte)
{
    switch (state) {
    case SCAN_START:
        return is_token_char(byte) ? SCAN_REQUEST_LINE : SCAN_OVER;
    case SCAN_REQUEST_LINE:
        if (byte == '\r') {
            return SCAN_LINE_END;
        }
        return http_is_visible(byte) || byte == ' ' ? SCAN_REQUEST_LINE : SCAN_OVER;
    case SCAN_LINE_END:
        return byte == '\n' ? SCAN_LINE_START : SCAN_OVER;
    case SCAN_LINE_START:
        if (byte == '\r') {
            return SCAN_LAST;
        }
        return is_token_char(byte) ? SCAN_FIELD : SCAN_OVER;
    case SCAN_FIELD:
        if (byte == '\r') {
            return SCAN_LINE_END;
        }
        return http_is_visible(byte) || is_blank(byte) || byte >= 0x80 ? SCAN_FIELD : SCAN_OVER;
    case SCAN_LAST:
    case SCAN_OVER:
        break;
    }
    return SCAN_OVER;
}

enum http_progress http_scan(struct http_scan *scan, struct span input, size_t head_bytes_max)
{
    CHECK(head_bytes_max <= UINT16_MAX && scan->state != SCAN_OVER && input.bytes >= scan->scanned_bytes);
    enum scan_state state = (enum scan_state)scan->state;
    size_t end = input.bytes < head_bytes_max ? input.bytes : head_bytes_max;
    size_t index = scan->scanned_bytes;
    enum http_progress progress = HTTP_MORE;
    while (index < end && state != SCAN_OVER) {
        uint8_t byte = input.data[index++];
        bool is_end = state == SCAN_LAST && byte == '\n';
        state = scan_step(state, byte);
        if (state == SCAN_OVER) {
            progress = is_end ? HTTP_WHOLE : HTTP_GARBAGE;
        }
    }
    if (state != SCAN_OVER && index == head_bytes_max) {
        progress = HTTP_TOO_LONG;
        state = SCAN_OVER;
    }
    scan->scanned_bytes = (uint16_t)index;
    scan->state = (uint8_t)state;
    return progress;
}

static uint8_t lower(uint8_t byte)
{
    return byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte + 32) : byte;
}

bool http_is_word(struct span word, const char *text)
{
    if (word.bytes != strlen(text)) {
        return false;
    }
    for (size_t index = 0; index < word.bytes; index++) {
        if (lower(word.data[index]) != (uint8_t)text[index]) {
            return false;
        }
    }
    return true;
}

static struct span trim(struct span value)
{
    while (value.bytes > 0 && is_blank(value.data[0])) {
        value = span_of(value.data + 1, value.bytes - 1);
    }
    while (value.bytes > 0 && is_blank(value.data[value.bytes - 1])) {
        value.bytes--;
    }
    return value;
}

/* How many bytes stand before the first `byte`; all when there is none. */
static size_t bytes_before(struct span input, uint8_t byte)
{
    const uint8_t *found = input.bytes == 0 ? NULL : memchr(input.data, byte, input.bytes);
    return found == NULL ? input.bytes : (size_t)(found - input.data);
}

static struct span skip(struct span input, size_t bytes)
{
    return span_of(input.data + bytes, input.bytes - bytes);
}

bool http_list_holds(struct span list, const char *word)
{
    while (list.bytes > 0) {
        size_t bytes = bytes_before(list, ',');
        if (http_is_word(trim(span_of(list.data, bytes)), word)) {
            return true;
        }
        list = skip(list, bytes < list.bytes ? bytes + 1 : bytes);
    }
    return false;
}

/* Takes the line at the front of `rest`; the scan has seen that each ends in CRLF. */
static struct span take_line(struct span *rest)
{
    size_t bytes = bytes_before(*rest, '\r');
    CHECK(bytes + 2 <= rest->bytes);
    struct span line = span_of(rest->data, bytes);
    *rest = skip(*rest, bytes + 2);
    return line;
}

const char *http_read_request_line(struct span *head, struct http_request_line *line)
{
    struct span rest = take_line(head);
    size_t method_bytes = bytes_before(rest, ' ');
    line->method = span_of(rest.data, method_bytes);
    if (method_bytes == rest.bytes) {
        return "The request line has no target.";
    }
    for (size_t index = 0; index < method_bytes; index++) {
        if (!is_token_char(rest.data[index])) {
            return "The method is not a token.";
        }
    }
    rest = skip(rest, method_bytes + 1);
    size_t target_bytes = bytes_before(rest, ' ');
    if (target_bytes == 0 || target_bytes == rest.bytes) {
        return "The request line has no target or no version.";
    }
    line->target = span_of(rest.data, target_bytes);
    struct span version = skip(rest, target_bytes + 1);
    if (version.bytes != 8 || memcmp(version.data, "HTTP/", 5) != 0 || version.data[6] != '.') {
        return "The request line does not end with a version of HTTP.";
    }
    uint8_t minor = version.data[7];
    if (version.data[5] != '1' || minor < '0' || minor > '9') {
        return "Only HTTP/1.1 is spoken here.";
    }
    line->minor_version = (uint8_t)(minor - '0');
    return NULL;
}

/* The scan has seen to the characters of values, and that no line begins with a blank. */
bool http_next_field(struct span *head, struct http_field *field, const char **error)
{
    struct span line = take_line(head);
    *error = NULL;
    if (line.bytes == 0) {
        return false;
    }
    size_t name_bytes = bytes_before(line, ':');
    if (name_bytes == line.bytes) {
        *error = "A header line has no colon.";
        return false;
    }
    for (size_t index = 0; index < name_bytes; index++) {
        if (!is_token_char(line.data[index])) {
            *error = "A header's name is not a token.";
            return false;
        }
    }
    if (name_bytes == 0) {
        *error = "A header has no name.";
        return false;
    }
    *field = (struct http_field){.name = span_of(line.data, name_bytes), .value = trim(skip(line, name_bytes + 1))};
    return true;
}

const char *http_read_target(struct span target, struct span *path, struct span *query)
{
    static const char *const schemes[] = {"http://", "https://", "ws://", "wss://"};
    for (size_t index = 0; index < target.bytes; index++) {
        uint8_t byte = target.data[index];
        bool is_escape = byte == '%';
        if (byte == '#' || (is_escape && (index + 2 >= target.bytes || hex_value(target.data[index + 1]) < 0 ||
                                          hex_value(target.data[index + 2]) < 0))) {
            return "The target is not a valid path.";
        }
    }
    for (size_t index = 0; index < sizeof schemes / sizeof schemes[0]; index++) {
        size_t scheme_bytes = strlen(schemes[index]);
        if (target.bytes > scheme_bytes && http_is_word(span_of(target.data, scheme_bytes), schemes[index])) {
            target = skip(target, scheme_bytes);
            size_t to_path = bytes_before(target, '/');
            size_t to_query = bytes_before(target, '?');
            target = skip(target, to_path < to_query ? to_path : to_query);
            break;
        }
    }
    size_t path_bytes = bytes_before(target, '?');
    *path = span_of(target.data, path_bytes);
    *query = path_bytes == target.bytes ? span_of(NULL, 0) : skip(target, path_bytes + 1);
    if (path_bytes == 0) {
        *path = span_text("/");
    }
    return path->data[0] == '/' ? NULL : "The target does not begin with '/'.";
}

bool http_host_valid(struct span host)
{
    for (size_t index = 0; index < host.bytes; index++) {
        if (!http_is_visible(host.data[index]) || strchr("/?#@,", host.data[index]) != NULL) {
            return false;
        }
    }
    return true;
}

const char *http_status_phrase(uint16_t status)
{
    static const struct {
        uint16_t status;
        const char *phrase;
    } phrases[] = {{200, "OK"},
                   {400, "Bad Request"},
                   {404, "Not Found"},
                   {405, "Method Not Allowed"},
                   {408, "Request Timeout"},
                   {426, "Upgrade Required"},
                   {431, "Request Header Fields Too Large"},
                   {500, "Internal Server Error"},
                   {503, "Service Unavailable"}};
    for (size_t index = 0; index < sizeof phrases / sizeof phrases[0]; index++) {
        if (phrases[index].status == status) {
            return phrases[index].phrase;
        }
    }
    return "Refused";
}
