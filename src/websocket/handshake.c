/* SPDX-License-Identifier: MIT */
/* The parser goes once over the whole header and notes the fields it knows by counting how often each came and where.
 * The verdicts follow at the end, syntax first, so that 426 is only said to well-formed HTTP. */
#include "handshake.h"

#include <string.h>

#include "base64.h"
#include "check.h"
#include "digest.h"
#include "http.h"

/* What a request says, as it is read. */
struct draft {
    struct http_request_line line;
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

static void note_field(struct draft *draft, const struct http_field *field)
{
    if (http_is_word(field->name, "host")) {
        draft->host = field->value;
        draft->host_count++;
    } else if (http_is_word(field->name, "upgrade")) {
        draft->upgrade_websocket = draft->upgrade_websocket || http_list_holds(field->value, "websocket");
    } else if (http_is_word(field->name, "connection")) {
        draft->connection_upgrade = draft->connection_upgrade || http_list_holds(field->value, "upgrade");
    } else if (http_is_word(field->name, "sec-websocket-key")) {
        draft->key = field->value;
        draft->key_count++;
    } else if (http_is_word(field->name, "sec-websocket-version")) {
        draft->version = field->value;
        draft->version_count++;
    } else if (http_is_word(field->name, "origin")) {
        draft->origin_count++;
    } else if (http_is_word(field->name, "content-length")) {
        draft->has_body = draft->has_body || !span_is(field->value, "0");
    } else if (http_is_word(field->name, "transfer-encoding")) {
        draft->has_body = true;
    }
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
    if (draft->host_count > 1 || (draft->host_count == 0 && draft->line.minor_version > 0) ||
        !http_host_valid(draft->host)) {
        return refuse(refusal, HANDSHAKE_STATUS_BAD_REQUEST, "There must be exactly one valid Host header.");
    }
    if (!draft->upgrade_websocket || !draft->connection_upgrade) {
        return refuse(refusal, HANDSHAKE_STATUS_UPGRADE_REQUIRED, "This port speaks WebSocket only.");
    }
    if (!span_is(draft->line.method, "GET") || draft->line.minor_version == 0) {
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
    const char *error = http_read_target(draft->line.target, &request->path, &request->query);
    if (error != NULL) {
        return refuse(refusal, HANDSHAKE_STATUS_BAD_REQUEST, error);
    }
    request->key = draft->key;
    return true;
}

bool handshake_parse(struct span header, struct handshake_request *request, struct handshake_refusal *refusal)
{
    struct draft draft = {.host_count = 0};
    struct span rest = header;
    const char *error = http_read_request_line(&rest, &draft.line);
    struct http_field field;
    while (error == NULL && http_next_field(&rest, &field, &error)) {
        note_field(&draft, &field);
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

void handshake_write_refusal(struct text *out, uint16_t status, struct span reason)
{
    char buffer[HANDSHAKE_REASON_BYTES_MAX + 1];
    struct text body = text_in(buffer, sizeof buffer);
    if (reason.bytes == 0) {
        reason = span_text(http_status_phrase(status));
    }
    for (size_t index = 0; index < reason.bytes && body.used_bytes < HANDSHAKE_REASON_BYTES_MAX; index++) {
        if (http_is_visible(reason.data[index]) || reason.data[index] == ' ') {
            text_char(&body, (char)reason.data[index]);
        }
    }
    text_char(&body, '\n');
    CHECK(status >= 400 && status <= 599);
    text_string(out, "HTTP/1.1 ");
    text_u64(out, status);
    text_char(out, ' ');
    text_string(out, http_status_phrase(status));
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
