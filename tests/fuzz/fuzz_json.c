/* SPDX-License-Identifier: MIT */
/* A document, judged by json.c and by the second reading in strict_json.c: both must take the same documents and see
 * the same values in them. What text_json_string writes of any bytes must be JSON whose string they are.
 *
 * Input: the length that documents may have (times 16, 255: any); then the document, which ends at an unreadable page.
 */
#include "arena.h"
#include "fuzz.h"
#include "json.h"
#include "jsonb.h"
#include "strict_json.h"
#include "text.h"

enum { LENGTH_ANY = 255, LENGTH_UNIT_BYTES = 16, TEXT_BYTES_MAX = 8 * FUZZ_INPUT_BYTES_MAX };

static struct json json;

static void start(void)
{
    static _Alignas(ARENA_ALIGN_BYTES) uint8_t memory[1024 * 1024];
    static const struct siphash_key key = {{0x0706050403020100U, 0x0F0E0D0C0B0A0908U}};
    struct arena arena;
    arena_begin(&arena, memory, sizeof memory);
    json_init(&json, &arena, TEXT_BYTES_MAX, &key);
}

/* As strict_json.c writes it down. */
static void note_node(struct fuzz_trace *trace, size_t node)
{
    struct span raw = json_raw(&json, node);
    size_t child_count = json_child_count(&json, node);
    size_t counted = 0;
    for (size_t child = json_first(&json, node); child != JSON_NONE; child = json_next(&json, child)) {
        note_node(trace, child);
        counted++;
    }
    switch (json_kind(&json, node)) {
    case JSON_KIND_OBJECT:
        CHECK(counted == 2 * child_count);
        fuzz_note(trace, STRICT_JSON_OBJECT, child_count, raw);
        break;
    case JSON_KIND_ARRAY:
        CHECK(counted == child_count);
        fuzz_note(trace, STRICT_JSON_ARRAY, child_count, raw);
        break;
    case JSON_KIND_STRING:
        CHECK(counted == 0);
        fuzz_note(trace, STRICT_JSON_STRING, raw.bytes, json_string(&json, node));
        break;
    case JSON_KIND_NUMBER:
    case JSON_KIND_TRUE:
    case JSON_KIND_FALSE:
    case JSON_KIND_NULL:
        CHECK(counted == 0);
        fuzz_note(trace, STRICT_JSON_OTHER, 0, raw);
        break;
    }
}

/* The members of the root, by their names. */
static void check_members(void)
{
    if (json_kind(&json, 0) != JSON_KIND_OBJECT) {
        CHECK(json_member(&json, 0, "content") == JSON_NONE);
        return;
    }
    for (size_t name = json_first(&json, 0); name != JSON_NONE; name = json_next(&json, json_next(&json, name))) {
        char terminated[64];
        struct span characters = json_string(&json, name);
        if (characters.bytes < sizeof terminated) {
            struct text text = text_in(terminated, sizeof terminated - 1);
            text_bytes(&text, characters);
            terminated[text.used_bytes] = '\0';
            bool is_cut = strlen(terminated) != characters.bytes; /* a zero byte */
            CHECK(is_cut || json_member(&json, 0, terminated) == json_next(&json, name));
        }
    }
}

static void check_document(struct span document, size_t bytes_max)
{
    static struct fuzz_trace expected;
    static struct fuzz_trace got;
    bool has_nul;
    json.text_bytes_max = bytes_max;
    struct span text = span_of(fuzz_guarded(document), document.bytes);
    enum json_error error = json_parse(&json, text);
    CHECK(json.error == error && json.error_offset <= document.bytes && json_error_text(error)[0] != '\0');
    CHECK((error == JSON_TOO_LONG) == (document.bytes > bytes_max));
    if (error == JSON_TOO_LONG) {
        return;
    }
    enum strict_json_verdict verdict = strict_json(text, &expected, &has_nul);
    CHECK((verdict == STRICT_JSON_RIGHT) == (error == JSON_OK));
    CHECK(verdict != STRICT_JSON_DUPLICATE || error == JSON_DUPLICATE);
    if (error != JSON_OK) {
        CHECK(json.node_count == 0);
        return;
    }
    fuzz_trace_begin(&got);
    note_node(&got, 0);
    fuzz_expect_same(&expected, &got);
    CHECK(json.has_nul == has_nul && json_holds_nul(&json, 0) == has_nul);
    check_members();
    bool has_exponent =
        memchr(document.data, 'e', document.bytes) != NULL || memchr(document.data, 'E', document.bytes) != NULL;
    CHECK(jsonb_numbers_fit(&json, 0) || has_exponent); /* the digits of a whole input are not too many */
}

static void check_written(struct span bytes)
{
    static char memory[TEXT_BYTES_MAX];
    struct text text = text_in(memory, sizeof memory);
    json.text_bytes_max = TEXT_BYTES_MAX;
    text_json_string(&text, bytes);
    CHECK(!text.truncated && json_parse(&json, text_span(&text)) == JSON_OK && json.node_count == 1);
    struct span read_back = json_string(&json, 0);
    CHECK(fuzz_utf8(read_back) == FUZZ_UTF8_WHOLE);
    CHECK(span_equal(read_back, bytes) == (fuzz_utf8(bytes) == FUZZ_UTF8_WHOLE));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (json.nodes == NULL) {
        start();
    }
    struct span document = fuzz_input(data, bytes);
    uint8_t length = fuzz_byte(&document);
    check_document(document, length == LENGTH_ANY ? FUZZ_INPUT_BYTES_MAX : (size_t)length * LENGTH_UNIT_BYTES);
    check_written(document);
    return 0;
}
