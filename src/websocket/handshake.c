/* SPDX-License-Identifier: MIT */
/* The scan is a state machine over single bytes that only knows where lines end; it is what stands between a slow or
 * hostile sender and the parser. The parser goes once over the whole header, line by line, and notes the fields it
 * knows by counting how often each came and where. The verdicts follow at the end, syntax first, so that 426 is only
 * said to well-formed HTTP. */
#include "handshake.h"

#include <string.h>

#include "base64.h"
#include "check.h"
#include "digest.h"
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

enum { MINOR_VERSION_OTHER = -1 };

/* What a request says, as it is read. */
struct draft {
    struct span method;
    struct span target;
    int minor_version; /* of HTTP/1.x */
    bool upgrade_websocket;
    bool connection_upgrade;
    bool has_body;
    struct span host;
    struct span key;
    struct span version;
    unsigned host_count;
    unsigned origin_count;
    unsigned key_count;
    unsigned version_count;
};

/* RFC 9110 section 5.6.2. */
static bool is_token_char(uint8_t byte)
{
    if ((byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z')) {
        return true;
    }
    return byte != 0 && strchr("!#$%&'*+-.^_`|~", byte) != NULL;
}

static bool is_visible(uint8_t byte)
{
    return byte > 0x20 && byte < 0x7f;
}

static bool is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\t';
}

/* The state after `byte`; SCAN_OVER when it cannot stand there. The header's last byte is judged by the caller. */
static enum scan_state scan_step(enum scan_state state, uint8_t byte)
{
    switch (state) {
    case SCAN_START:
        return is_token_char(byte) ? SCAN_REQUEST_LINE : SCAN_OVER;
    case SCAN_REQUEST_LINE:
        if (byte == '\r') {
            return SCAN_LINE_END;
        }
        return is_visible(byte) || byte == ' ' ? SCAN_REQUEST_LINE : SCAN_OVER;
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
        return is_visible(byte) || is_blank(byte) || byte >= 0x80 ? SCAN_FIELD : SCAN_OVER;
    case SCAN_LAST:
    case SCAN_OVER:
        break;
    }
    return SCAN_OVER;
}

enum handshake_progress handshake_scan(struct handshake_scan *scan, struct span input, size_t header_bytes_max)
{
    CHECK(header_bytes_max <= UINT16_MAX && scan->state != SCAN_OVER && input.bytes >= scan->scanned_bytes);
    enum scan_state state = (enum scan_state)scan->state;
    size_t end = input.bytes < header_bytes_max ? input.bytes : header_bytes_max;
    size_t index = scan->scanned_bytes;
    enum handshake_progress progress = HANDSHAKE_MORE;
    while (index < end && state != SCAN_OVER) {
        uint8_t byte = input.data[index++];
        bool is_end = state == SCAN_LAST && byte == '\n';
        state = scan_step(state, byte);
        if (state == SCAN_OVER) {
            progress = is_end ? HANDSHAKE_WHOLE : HANDSHAKE_GARBAGE;
        }
    }
    if (state != SCAN_OVER && index == header_bytes_max) {
        progress = HANDSHAKE_TOO_LONG;
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

/* Compares without case; `text` is in lower case. */
static bool is_word(struct span word, const char *text)
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

/* Whether a comma-separated list holds the word. */
static bool list_holds(struct span list, const char *word)
{
    while (list.bytes > 0) {
        size_t bytes = bytes_before(list, ',');
        if (is_word(trim(span_of(list.data, bytes)), word)) {
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

static const char *read_request_line(struct span line, struct draft *draft)
{
    size_t method_bytes = bytes_before(line, ' ');
    draft->method = span_of(line.data, method_bytes);
    if (method_bytes == line.bytes) {
        return "The request line has no target.";
    }
    for (size_t index = 0; index < method_bytes; index++) {
        if (!is_token_char(line.data[index])) {
            return "The method is not a token.";
        }
    }
    line = skip(line, method_bytes + 1);
    size_t target_bytes = bytes_before(line, ' ');
    if (target_bytes == 0 || target_bytes == line.bytes) {
        return "The request line has no target or no version.";
    }
    draft->target = span_of(line.data, target_bytes);
    struct span version = skip(line, target_bytes + 1);
    if (version.bytes != 8 || memcmp(version.data, "HTTP/", 5) != 0 || version.data[6] != '.') {
        return "The request line does not end with a version of HTTP.";
    }
    uint8_t minor = version.data[7];
    if (version.data[5] != '1' || minor < '0' || minor > '9') {
        return "Only HTTP/1.1 is spoken here.";
    }
    draft->minor_version = minor - '0';
    return NULL;
}

static void note_field(struct draft *draft, struct span name, struct span value)
{
    if (is_word(name, "host")) {
        draft->host = value;
        draft->host_count++;
    } else if (is_word(name, "upgrade")) {
        draft->upgrade_websocket = draft->upgrade_websocket || list_holds(value, "websocket");
    } else if (is_word(name, "connection")) {
        draft->connection_upgrade = draft->connection_upgrade || list_holds(value, "upgrade");
    } else if (is_word(name, "sec-websocket-key")) {
        draft->key = value;
        draft->key_count++;
    } else if (is_word(name, "sec-websocket-version")) {
        draft->version = value;
        draft->version_count++;
    } else if (is_word(name, "origin")) {
        draft->origin_count++;
    } else if (is_word(name, "content-length")) {
        draft->has_body = draft->has_body || !span_is(value, "0");
    } else if (is_word(name, "transfer-encoding")) {
        draft->has_body = true;
    }
}

/* The scan has seen to the characters of values, and that no line begins with a blank. */
static const char *read_field(struct span line, struct draft *draft)
{
    size_t name_bytes = bytes_before(line, ':');
    if (name_bytes == line.bytes) {
        return "A header line has no colon.";
    }
    for (size_t index = 0; index < name_bytes; index++) {
        if (!is_token_char(line.data[index])) {
            return "A header's name is not a token.";
        }
    }
    if (name_bytes == 0) {
        return "A header has no name.";
    }
    note_field(draft, span_of(line.data, name_bytes), trim(skip(line, name_bytes + 1)));
    return NULL;
}

/* Cuts the target into path and query. A client may also send the whole URI (RFC 6455 section 4.2.1). */
static const char *read_target(struct span target, struct handshake_request *request)
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
        if (target.bytes > scheme_bytes && is_word(span_of(target.data, scheme_bytes), schemes[index])) {
            target = skip(target, scheme_bytes);
            size_t to_path = bytes_before(target, '/');
            size_t to_query = bytes_before(target, '?');
            target = skip(target, to_path < to_query ? to_path : to_query);
            break;
        }
    }
    size_t path_bytes = bytes_before(target, '?');
    request->path = span_of(target.data, path_bytes);
    request->query = path_bytes == target.bytes ? span_of(NULL, 0) : skip(target, path_bytes + 1);
    if (path_bytes == 0) {
        request->path = span_text("/");
    }
    return request->path.data[0] == '/' ? NULL : "The target does not begin with '/'.";
}

static bool host_valid(struct span host)
{
    for (size_t index = 0; index < host.bytes; index++) {
        if (!is_visible(host.data[index]) || strchr("/?#@,", host.data[index]) != NULL) {
            return false;
        }
    }
    return true;
}

static bool refuse(struct handshake_refusal *refusal, uint16_t status, const char *reason)
{
    *refusal = (struct handshake_refusal){status, reason};
    return false;
}

/* What RFC 6455 section 4.2.1 asks of well-formed HTTP. */
static bool judge(const struct draft *draft, struct handshake_request *request, struct handshake_refusal *refusal)
{
    uint8_t key[16];
    if (draft->host_count > 1 || (draft->host_count == 0 && draft->minor_version > 0) || !host_valid(draft->host)) {
        return refuse(refusal, HANDSHAKE_STATUS_BAD_REQUEST, "There must be exactly one valid Host header.");
    }
    if (!draft->upgrade_websocket || !draft->connection_upgrade) {
        return refuse(refusal, HANDSHAKE_STATUS_UPGRADE_REQUIRED, "This port speaks WebSocket only.");
    }
    if (!span_is(draft->method, "GET") || draft->minor_version == 0) {
        return refuse(refusal, HANDSHAKE_STATUS_BAD_REQUEST, "A WebSocket begins with GET and HTTP/1.1.");
    }
    if (draft->has_body) {
        return refuse(refusal, HANDSHAKE_STATUS_BAD_REQUEST, "A WebSocket handshake has no body.");
    }
    if (draft->version_count > 1 || draft->key_count > 1 || draft->origin_count > 1) {
        return refuse(refusal, HANDSHAKE_STATUS_BAD_REQUEST, "A header came twice that may come once.");
    }
    if (!span_is(draft->version, "13")) {
        return refuse(refusal, HANDSHAKE_STATUS_UPGRADE_REQUIRED, "Only version 13 of WebSocket is spoken here.");
    }
    if (!base64_decode(draft->key, key, sizeof key)) {
        return refuse(refusal, HANDSHAKE_STATUS_BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64.");
    }
    const char *error = read_target(draft->target, request);
    if (error != NULL) {
        return refuse(refusal, HANDSHAKE_STATUS_BAD_REQUEST, error);
    }
    request->key = draft->key;
    return true;
}

bool handshake_parse(struct span header, struct handshake_request *request, struct handshake_refusal *refusal)
{
    struct draft draft = {.minor_version = MINOR_VERSION_OTHER};
    struct span rest = header;
    const char *error = read_request_line(take_line(&rest), &draft);
    struct span line = take_line(&rest);
    while (error == NULL && line.bytes > 0) {
        error = read_field(line, &draft);
        line = take_line(&rest);
    }
    if (error != NULL) {
        return refuse(refusal, HANDSHAKE_STATUS_BAD_REQUEST, error);
    }
    return judge(&draft, request, refusal);
}

/* The Sec-WebSocket-Accept that answers `key` (RFC 6455 section 1.3). */
static void accept_key(struct span key, char accept[HANDSHAKE_ACCEPT_BYTES])
{
    static const char magic[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    uint8_t joined[HANDSHAKE_KEY_BYTES + sizeof magic - 1];
    uint8_t digest[DIGEST_SHA1_BYTES];
    CHECK(key.bytes == HANDSHAKE_KEY_BYTES);
    memcpy(joined, key.data, HANDSHAKE_KEY_BYTES);
    memcpy(joined + HANDSHAKE_KEY_BYTES, magic, sizeof magic - 1);
    digest_sha1(span_of(joined, sizeof joined), digest);
    _Static_assert(HANDSHAKE_ACCEPT_BYTES == BASE64_TEXT_BYTES(DIGEST_SHA1_BYTES), "a SHA-1 in base64");
    base64_encode(span_of(digest, sizeof digest), accept);
}

void handshake_write_accept(struct text *out, struct span key)
{
    char accept[HANDSHAKE_ACCEPT_BYTES];
    accept_key(key, accept);
    text_string(out, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Accept: ");
    text_bytes(out, span_of(accept, sizeof accept));
    text_string(out, "\r\n\r\n");
}

static const char *status_phrase(uint16_t status)
{
    static const struct {
        uint16_t status;
        const char *phrase;
    } phrases[] = {{400, "Bad Request"},
                   {401, "Unauthorized"},
                   {403, "Forbidden"},
                   {404, "Not Found"},
                   {408, "Request Timeout"},
                   {426, "Upgrade Required"},
                   {429, "Too Many Requests"},
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

void handshake_write_refusal(struct text *out, uint16_t status, struct span reason)
{
    char buffer[HANDSHAKE_REASON_BYTES_MAX + 1];
    struct text body = text_in(buffer, sizeof buffer);
    if (reason.bytes == 0) {
        reason = span_text(status_phrase(status));
    }
    for (size_t index = 0; index < reason.bytes && body.used_bytes < HANDSHAKE_REASON_BYTES_MAX; index++) {
        if (is_visible(reason.data[index]) || reason.data[index] == ' ') {
            text_char(&body, (char)reason.data[index]);
        }
    }
    text_char(&body, '\n');
    CHECK(status >= 400 && status <= 599);
    text_string(out, "HTTP/1.1 ");
    text_u64(out, status);
    text_char(out, ' ');
    text_string(out, status_phrase(status));
    if (status == HANDSHAKE_STATUS_UPGRADE_REQUIRED) {
        text_string(out, "\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\nSec-WebSocket-Version: 13");
    } else {
        text_string(out, "\r\nConnection: close");
    }
    text_string(out, "\r\nContent-Type: text/plain\r\nContent-Length: ");
    text_u64(out, body.used_bytes);
    text_string(out, "\r\n\r\n");
    text_bytes(out, text_span(&body));
}
