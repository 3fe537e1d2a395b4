/* SPDX-License-Identifier: MIT */
/* The message's schema: what a client sends, what stands in the queue, and the rules of their names.
 *
 * A client's message is {"type":…,"content":…,"id":…}; the queue's body is {"client_id":…,"type":…,"content":…,
 * "id":…,"gateway":…,"received_at":…}. Members beyond these are ignored. `content` is kept byte for byte.
 *
 * Invariant: each span of a result obeys the rules below, so that it can be written into JSON, a routing key or a log
 * as it is. Memory: spans point into the text or into `json`, and live until the next json_parse. Thread: any one. */
#ifndef POSTERN_SHARED_ENVELOPE_H
#define POSTERN_SHARED_ENVELOPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "limits.h"
#include "span.h"

struct json;
struct text;

enum envelope_error {
    ENVELOPE_OK,
    ENVELOPE_BAD_JSON,        /* not strict JSON; json says what and where */
    ENVELOPE_BAD_MESSAGE,     /* JSON, but no object */
    ENVELOPE_BAD_TYPE,        /* no `type`, or not of its form */
    ENVELOPE_BAD_CONTENT,     /* no `content`; envelope_parse leaves this to its caller, who knows the type */
    ENVELOPE_BAD_ID,          /* `id` is there and not of its form */
    ENVELOPE_BAD_CLIENT_ID,   /* a body's `client_id` is absent or not of its form */
    ENVELOPE_BAD_GATEWAY,     /* a body's `gateway` is there and not of its form */
    ENVELOPE_BAD_RECEIVED_AT, /* a body's `received_at` is there and no RFC 3339 time of the years 1970 to 9999 */
    ENVELOPE_NUL_CONTENT      /* a body's `content` holds \u0000, which jsonb cannot; never from envelope_parse */
};

struct envelope {
    struct span type;
    struct span id;      /* empty: none given */
    struct span content; /* the JSON value, byte for byte */
    bool has_content;
};

struct envelope_body {
    struct span client_id;
    struct span type;
    struct span content;
    struct span id;      /* empty: none */
    struct span gateway; /* empty: none (a foreign body) */
    int64_t received_unix_ms;
    bool has_received_at;
};

/* Parses a client's message. A missing `content` is no error here (see has_content). After an error other than
 * ENVELOPE_BAD_JSON and ENVELOPE_BAD_MESSAGE, `id` and `type` still hold what was given and of good form, so that the
 * answer can name it. */
enum envelope_error envelope_parse(struct json *json, struct span text, struct envelope *out);

/* Writes the queue's body. The caller gives valid spans; id and gateway are left out when empty, received_at when
 * has_received_at is false. A body that does not fit leaves text->truncated set. */
void envelope_write_body(struct text *text, const struct envelope_body *body);

/* How many bytes envelope_write_body writes at most beyond the content. */
enum {
    ENVELOPE_BODY_OVERHEAD_BYTES_MAX =
        sizeof("{\"client_id\":\"\",\"type\":\"\",\"content\":,\"id\":\"\",\"gateway\":\"\",\"received_at\":\"\"}") -
        1 + CLIENT_ID_BYTES_MAX + MESSAGE_TYPE_BYTES_MAX + MESSAGE_ID_BYTES_MAX + GATEWAY_ID_BYTES_MAX +
        sizeof("2026-11-23T07:21:11.839Z") - 1
};

/* Parses a queue's body, ours or another publisher's (client_id, type and content are enough). After an error other
 * than ENVELOPE_BAD_JSON and ENVELOPE_BAD_MESSAGE, client_id, type and id still hold what was of good form. */
enum envelope_error envelope_parse_body(struct json *json, struct span text, struct envelope_body *out);

/* The error's code in the protocol ("bad_json"; static) and its sentence (static). */
const char *envelope_error_code(enum envelope_error error);
const char *envelope_error_text(enum envelope_error error);

/* The sentence with its place where there is one: "not JSON: a member's name is given twice, at byte 17". At most
 * ENVELOPE_DESCRIPTION_BYTES_MAX bytes of ASCII without quotes or backslashes. */
enum { ENVELOPE_DESCRIPTION_BYTES_MAX = 160 };
void envelope_describe(struct text *text, enum envelope_error error, const struct json *json);

/* 1 to CLIENT_ID_BYTES_MAX of A-Z a-z 0-9 . _ ~ - */
bool client_id_valid(struct span id);
/* 1 to MESSAGE_TYPE_BYTES_MAX of a-z 0-9 _ . - */
bool message_type_valid(struct span type);
/* 1 to MESSAGE_ID_BYTES_MAX of printable ASCII (blank to ~) without quotes or backslashes. */
bool message_id_valid(struct span id);
/* 1 to GATEWAY_ID_BYTES_MAX of A-Z a-z 0-9 . _ - */
bool gateway_id_valid(struct span id);

#endif
