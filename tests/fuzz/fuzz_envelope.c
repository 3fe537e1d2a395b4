/* SPDX-License-Identifier: MIT */
/* A client's message and a queue's body. What is taken obeys the rules of its parts, read here once more from the
 * protocol; what is written of it is read back the same, by the processor (envelope_parse_body) and from the outbox's
 * parcels; sentences stay within their bounds.
 *
 * Input: when it came (8 bytes); which parts are left out; then the text. */
#include <string.h>

#include "arena.h"
#include "envelope.h"
#include "fuzz.h"
#include "json.h"
#include "parcel.h"
#include "text.h"

enum { BODY_BYTES_MAX = FUZZ_INPUT_BYTES_MAX + ENVELOPE_BODY_OVERHEAD_BYTES_MAX, PARCEL_BYTES = BODY_BYTES_MAX + 1024 };
enum { HAS_GATEWAY = 1, HAS_RECEIVED_AT = 2, HAS_MADE_ID = 4 };

#define UNIX_MS_MAX INT64_C(253402300799999)

static const char lowers[] = "abcdefghijklmnopqrstuvwxyz0123456789_.-";
static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789_.-ABCDEFGHIJKLMNOPQRSTUVWXYZ";

static struct json json;

static void start(void)
{
    static _Alignas(ARENA_ALIGN_BYTES) uint8_t memory[256 * 1024];
    static const struct siphash_key key = {{1, 2}};
    struct arena arena;
    arena_begin(&arena, memory, sizeof memory);
    json_init(&json, &arena, BODY_BYTES_MAX, &key);
}

static bool is_made_of(struct span text, const char *characters, const char *more, size_t bytes_max)
{
    for (size_t i = 0; i < text.bytes; i++) {
        if (text.data[i] == 0 || (strchr(characters, text.data[i]) == NULL && strchr(more, text.data[i]) == NULL)) {
            return false;
        }
    }
    return text.bytes >= 1 && text.bytes <= bytes_max;
}

static bool is_id(struct span text)
{
    for (size_t i = 0; i < text.bytes; i++) {
        if (text.data[i] < 0x20 || text.data[i] > 0x7E || text.data[i] == '"' || text.data[i] == '\\') {
            return false;
        }
    }
    return text.bytes >= 1 && text.bytes <= 64;
}

/* The rules, on any text at all. */
static void check_rules(struct span text)
{
    CHECK(client_id_valid(text) == is_made_of(text, letters, "~", 64));
    CHECK(message_type_valid(text) == is_made_of(text, lowers, "", 32));
    CHECK(gateway_id_valid(text) == is_made_of(text, letters, "", 63));
    CHECK(message_id_valid(text) == is_id(text));
}

static void check_sentence(enum envelope_error error)
{
    char memory[ENVELOPE_DESCRIPTION_BYTES_MAX];
    struct text text = text_in(memory, sizeof memory);
    envelope_describe(&text, error, &json);
    CHECK(!text.truncated && text.used_bytes > 0 && envelope_error_code(error)[0] != '\0');
    for (size_t i = 0; i < text.used_bytes; i++) {
        CHECK(memory[i] >= ' ' && memory[i] <= '~' && memory[i] != '"' && memory[i] != '\\');
    }
}

static bool lies_in(struct span part, struct span whole)
{
    return part.data >= whole.data && part.data + part.bytes <= whole.data + whole.bytes;
}

/* The body as it would stand in the queue, and back. Its spans may point into json, whose text changes: so all of them
 * are compared by copies. */
struct copy {
    uint8_t memory[BODY_BYTES_MAX];
    size_t used_bytes;
};

static struct span keep(struct copy *copy, struct span span)
{
    CHECK(span.bytes <= sizeof copy->memory - copy->used_bytes);
    uint8_t *at = copy->memory + copy->used_bytes;
    if (span.bytes > 0) {
        memcpy(at, span.data, span.bytes);
    }
    copy->used_bytes += span.bytes;
    return span_of(at, span.bytes);
}

static struct envelope_body kept_body(struct copy *copy, const struct envelope_body *body)
{
    struct envelope_body kept = *body;
    copy->used_bytes = 0;
    kept.client_id = keep(copy, body->client_id);
    kept.type = keep(copy, body->type);
    kept.content = keep(copy, body->content);
    kept.id = keep(copy, body->id);
    kept.gateway = keep(copy, body->gateway);
    return kept;
}

static void check_equal(const struct envelope_body *one, const struct envelope_body *other)
{
    CHECK(span_equal(one->client_id, other->client_id) && span_equal(one->type, other->type));
    CHECK(span_equal(one->content, other->content) && span_equal(one->id, other->id));
    CHECK(span_equal(one->gateway, other->gateway) && one->has_received_at == other->has_received_at);
    CHECK(!one->has_received_at || one->received_unix_ms == other->received_unix_ms);
}

static void check_written(const struct envelope_body *body, bool has_nul)
{
    static uint8_t memory[BODY_BYTES_MAX];
    struct envelope_body again;
    struct text text = text_in(memory, body->content.bytes + ENVELOPE_BODY_OVERHEAD_BYTES_MAX);
    envelope_write_body(&text, body);
    CHECK(!text.truncated);
    enum envelope_error error = envelope_parse_body(&json, text_span(&text), &again);
    CHECK(error == (has_nul ? ENVELOPE_NUL_CONTENT : ENVELOPE_OK));
    check_equal(body, &again);
}

/* Any bytes at all: the parts of a parcel are all of it. */
static void check_opened(struct span bytes)
{
    struct parcel parcel;
    if (parcel_open(bytes, &parcel)) {
        CHECK(parcel.queue.data == bytes.data + PARCEL_HEAD_BYTES && parcel.queue.bytes > 0);
        CHECK(parcel.client_id.bytes > 0 && parcel.client_id.bytes <= CLIENT_ID_BYTES_MAX);
        CHECK(parcel.type.bytes > 0 && parcel.type.bytes <= MESSAGE_TYPE_BYTES_MAX);
        CHECK(parcel.id.bytes > 0 && parcel.id.bytes <= PARCEL_ID_BYTES_MAX && parcel.body.bytes > 0);
        CHECK(parcel.body.bytes < bytes.bytes && parcel.body.data + parcel.body.bytes == bytes.data + bytes.bytes);
    }
}

static void check_parcel(const struct envelope_body *body, bool is_id_made)
{
    static uint8_t bytes[PARCEL_BYTES];
    const struct parcel parcel = {.received_wall_ms = body->received_unix_ms,
                                  .queue = span_text("messages"),
                                  .client_id = body->client_id,
                                  .type = body->type,
                                  .id = body->id.bytes > 0 ? body->id : span_text("gw-1.1.1"),
                                  .is_id_made = is_id_made};
    struct parcel opened;
    size_t used_bytes = parcel_pack(bytes, sizeof bytes, &parcel, body);
    CHECK(parcel_open(span_of(fuzz_guarded(span_of(bytes, used_bytes)), used_bytes), &opened));
    CHECK(opened.received_wall_ms == parcel.received_wall_ms && opened.is_id_made == is_id_made);
    CHECK(span_equal(opened.queue, parcel.queue) && span_equal(opened.client_id, parcel.client_id));
    CHECK(span_equal(opened.type, parcel.type) && span_equal(opened.id, parcel.id));
    uint8_t memory[BODY_BYTES_MAX];
    struct text text = text_in(memory, sizeof memory);
    envelope_write_body(&text, body);
    CHECK(span_equal(opened.body, text_span(&text)));
    for (size_t cut = 0; cut < used_bytes; cut += 1 + used_bytes / 16) {
        CHECK(!parcel_open(span_of(bytes, cut), &opened)); /* what is cut is none */
    }
}

static void check_message(struct span text, int64_t unix_ms, uint8_t parts)
{
    static struct copy copy;
    struct envelope message;
    enum envelope_error error = envelope_parse(&json, text, &message);
    check_sentence(error);
    CHECK(message.type.bytes == 0 || is_made_of(message.type, lowers, "", 32));
    CHECK(message.id.bytes == 0 || is_id(message.id));
    CHECK(message.has_content == (message.content.bytes > 0));
    CHECK(!message.has_content || lies_in(message.content, text));
    if (error != ENVELOPE_OK || !message.has_content) {
        return;
    }
    CHECK(message.type.bytes > 0);
    const struct envelope_body body = {.client_id = span_text("dev-7"),
                                       .type = message.type,
                                       .content = message.content,
                                       .id = message.id,
                                       .gateway = span_text((parts & HAS_GATEWAY) != 0 ? "gw-1" : ""),
                                       .received_unix_ms = unix_ms,
                                       .has_received_at = (parts & HAS_RECEIVED_AT) != 0};
    const struct envelope_body kept = kept_body(&copy, &body);
    bool has_nul = json_parse(&json, kept.content) == JSON_OK && json.has_nul;
    CHECK(json.error == JSON_OK);
    check_written(&kept, has_nul);
    check_parcel(&kept, (parts & HAS_MADE_ID) != 0);
}

static void check_body(struct span text)
{
    static struct copy copy;
    struct envelope_body body;
    enum envelope_error error = envelope_parse_body(&json, text, &body);
    check_sentence(error);
    CHECK(body.client_id.bytes == 0 || is_made_of(body.client_id, letters, "~", 64));
    CHECK(body.type.bytes == 0 || is_made_of(body.type, lowers, "", 32));
    CHECK(body.id.bytes == 0 || is_id(body.id));
    CHECK(body.gateway.bytes == 0 || is_made_of(body.gateway, letters, "", 63));
    CHECK(body.content.bytes == 0 || lies_in(body.content, text));
    if (error != ENVELOPE_OK) {
        return;
    }
    CHECK(body.client_id.bytes > 0 && body.type.bytes > 0 && body.content.bytes > 0);
    CHECK(!body.has_received_at || (body.received_unix_ms >= 0 && body.received_unix_ms <= UNIX_MS_MAX));
    const struct envelope_body kept = kept_body(&copy, &body);
    check_written(&kept, false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (json.nodes == NULL) {
        start();
    }
    struct span text = fuzz_input(data, bytes);
    uint64_t unix_ms = 0;
    for (size_t i = 0; i < sizeof unix_ms; i++) {
        unix_ms = unix_ms << 8 | fuzz_byte(&text);
    }
    uint8_t parts = fuzz_byte(&text);
    text.data = fuzz_guarded(text);
    check_rules(text);
    check_opened(text);
    check_message(text, (int64_t)(unix_ms % (uint64_t)(UNIX_MS_MAX + 1)), parts);
    check_body(text);
    return 0;
}
