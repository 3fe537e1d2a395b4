/* SPDX-License-Identifier: MIT */
/* The corpus says by its names what is right: y_*.json is, and n_<error>_*.json is refused with that error. Every text
 * ends at an unreadable page. compare_json.py adds Python as a second judge. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "aborts.h"
#include "arena.h"
#include "guard_page.h"
#include "json.h"
#include "limits.h"

enum { DOCUMENT_BYTES_MAX = 32768 };

static _Alignas(ARENA_ALIGN_BYTES) uint8_t memory[1024 * 1024];
static struct guard_page guard;
static const struct siphash_key key = {{0x0123456789abcdef, 0xfedcba9876543210}};

static void open_json(struct json *json, size_t text_bytes_max)
{
    struct arena arena;
    memset(memory, 0, sizeof memory);
    arena_begin(&arena, memory, sizeof memory);
    json_init(json, &arena, text_bytes_max, &key);
}

static enum json_error parse(struct json *json, const void *data, size_t bytes)
{
    return json_parse(json, span_of(guard_page_put(&guard, data, bytes), bytes));
}

static enum json_error parse_text(struct json *json, const char *text)
{
    return parse(json, text, strlen(text));
}

static const struct {
    const char *name;
    enum json_error error;
} errors[] = {
    {"empty", JSON_EMPTY},         {"syntax", JSON_SYNTAX},   {"end", JSON_END},
    {"trailing", JSON_TRAILING},   {"literal", JSON_LITERAL}, {"number", JSON_NUMBER},
    {"control", JSON_CONTROL},     {"escape", JSON_ESCAPE},   {"surrogate", JSON_SURROGATE},
    {"duplicate", JSON_DUPLICATE}, {"depth", JSON_DEPTH},     {"utf8", JSON_UTF8},
};

/* What the file's name promises. */
static enum json_error promised(const char *name)
{
    if (strncmp(name, "y_", 2) == 0) {
        return JSON_OK;
    }
    for (size_t index = 0; index < sizeof errors / sizeof errors[0]; index++) {
        size_t bytes = strlen(errors[index].name);
        if (strncmp(name, "n_", 2) == 0 && strncmp(name + 2, errors[index].name, bytes) == 0 &&
            name[2 + bytes] == '_') {
            return errors[index].error;
        }
    }
    fail_msg("%s promises nothing", name);
    return JSON_OK;
}

static size_t read_document(const char *name, uint8_t *document)
{
    char path[1024];
    (void)snprintf(path, sizeof path, POSTERN_SOURCE_DIR "/tests/unit/shared/json/%s", name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t bytes = fread(document, 1, DOCUMENT_BYTES_MAX, file);
    assert_true(feof(file));
    (void)fclose(file);
    return bytes;
}

/* Calls `visit` for each file of the corpus; returns how many. */
static size_t each_document(void (*visit)(struct json *json, const char *name, const uint8_t *data, size_t bytes))
{
    static uint8_t document[DOCUMENT_BYTES_MAX];
    struct json json;
    open_json(&json, DOCUMENT_BYTES_MAX);
    DIR *folder = opendir(POSTERN_SOURCE_DIR "/tests/unit/shared/json");
    assert_non_null(folder);
    size_t count = 0;
    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        if (strstr(entry->d_name, ".json") != NULL) {
            visit(&json, entry->d_name, document, read_document(entry->d_name, document));
            count++;
        }
    }
    (void)closedir(folder);
    return count;
}

static void judge(struct json *json, const char *name, const uint8_t *data, size_t bytes)
{
    enum json_error error = parse(json, data, bytes);
    if (error != promised(name) || json->error != error) {
        fail_msg("%s: %s at %zu", name, json_error_text(error), json->error_offset);
    }
    assert_true((json->node_count > 0) == (error == JSON_OK));
    assert_true(json->error_offset <= bytes);
}

static void corpus_is_judged_as_named(void **state)
{
    (void)state;
    assert_true(each_document(judge) > 500);
}

static void judge_prefixes(struct json *json, const char *name, const uint8_t *data, size_t bytes)
{
    if (promised(name) != JSON_OK || strchr("[{\"", data[0]) == NULL) {
        return;
    }
    while (bytes > 0 && strchr(" \t\r\n", data[bytes - 1]) != NULL) {
        bytes--;
    }
    for (size_t prefix = 0; prefix<bytes; prefix += bytes> 300 ? 13 : 1) {
        if (parse(json, data, prefix) == JSON_OK) {
            fail_msg("%s: its first %zu bytes are taken", name, prefix);
        }
    }
}

static void no_prefix_of_a_bracketed_document_is_one(void **state)
{
    (void)state;
    (void)each_document(judge_prefixes);
}

/* The word by words scan of strings: each special byte at each place of strings of each length up to three words. */
static void strings_are_scanned_alike_at_every_place(void **state)
{
    (void)state;
    struct json json;
    open_json(&json, 64);
    for (size_t length = 1; length <= 24; length++) {
        for (size_t place = 0; place < length; place++) {
            for (unsigned byte = 0; byte < 256; byte++) {
                char text[32];
                memset(text, 'x', sizeof text);
                text[0] = '"';
                text[1 + place] = (char)byte;
                text[1 + length] = '"';
                enum json_error expected = byte < 0x20    ? JSON_CONTROL
                                           : byte == '"'  ? JSON_TRAILING
                                           : byte == '\\' ? JSON_ESCAPE
                                           : byte >= 0x80 ? JSON_UTF8
                                                          : JSON_OK;
                if (byte == '\\' && place == length - 1) {
                    expected = JSON_END;
                }
                assert_int_equal(parse(&json, text, length + 2), expected);
                if (expected != JSON_OK && expected != JSON_TRAILING && expected != JSON_END) {
                    /* A lead byte fails where its character breaks off. */
                    assert_in_range(json.error_offset, place + 1, place + 2);
                }
            }
        }
    }
}

static void errors_name_their_place(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t offset;
    } cases[] = {
        {"", 0},
        {"  ", 2},
        {"[1 2]", 3},
        {"{\"a\" 1}", 5},
        {"{\"a\":1,}", 7},
        {"[1,]", 3},
        {"[01]", 2},
        {"[1.]", 3},
        {"[truex]", 5},
        {"[nul]", 4},
        {"{\"a\":1,\"b\":2,\"a\":3}", 13},
        {"{\"a\":1,\"\\u0061\":3}", 7},
        {"[\"abc", 5},
        {"[\"ab\\qc\"]", 4},
        {"[\"ab\\ud800\"]", 4},
        {"[\"ab\nc\"]", 4},
        {"[\"ab\xff\"]", 4},
        {"{} x", 3},
        {"[1}", 2},
        {"{1:2}", 1},
        {"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", 32},
    };
    struct json json;
    open_json(&json, 256);
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        assert_int_not_equal(parse_text(&json, cases[index].text), JSON_OK);
        if (json.error_offset != cases[index].offset) {
            fail_msg("%s: at %zu, not %zu", cases[index].text, json.error_offset, cases[index].offset);
        }
    }
    for (int error = JSON_OK; error <= JSON_DEPTH; error++) {
        assert_true(strlen(json_error_text((enum json_error)error)) > 5);
    }
}

static void assert_span(struct span span, const char *text)
{
    assert_int_equal(span.bytes, strlen(text));
    assert_memory_equal(span.data, text, span.bytes);
}

static void members_and_values_are_found(void **state)
{
    (void)state;
    struct json json;
    open_json(&json, 256);
    assert_int_equal(
        parse_text(&json, " {\"a\" : [1, {\"x\":null}, \"s\"], \"\\u0062\": -1.5e3 ,\"c\":{}, \"d\":true} "), JSON_OK);
    assert_int_equal(json_kind(&json, 0), JSON_KIND_OBJECT);
    assert_int_equal(json_child_count(&json, 0), 4);
    size_t a = json_member(&json, 0, "a");
    assert_int_equal(json_kind(&json, a), JSON_KIND_ARRAY);
    assert_span(json_raw(&json, a), "[1, {\"x\":null}, \"s\"]");
    assert_int_equal(json_child_count(&json, a), 3);
    size_t element = json_first(&json, a);
    assert_int_equal(json_kind(&json, element), JSON_KIND_NUMBER);
    assert_span(json_raw(&json, element), "1");
    element = json_next(&json, element);
    assert_int_equal(json_kind(&json, element), JSON_KIND_OBJECT);
    assert_int_equal(json_kind(&json, json_member(&json, element, "x")), JSON_KIND_NULL);
    assert_true(json_member(&json, element, "a") == JSON_NONE);
    element = json_next(&json, element);
    assert_span(json_raw(&json, element), "\"s\"");
    assert_span(json_string(&json, element), "s");
    assert_true(json_next(&json, element) == JSON_NONE);
    assert_span(json_raw(&json, json_member(&json, 0, "b")), "-1.5e3");
    size_t c = json_member(&json, 0, "c");
    assert_span(json_raw(&json, c), "{}");
    assert_true(json_first(&json, c) == JSON_NONE);
    assert_int_equal(json_kind(&json, json_member(&json, 0, "d")), JSON_KIND_TRUE);
    assert_true(json_member(&json, 0, "e") == JSON_NONE);
    assert_true(json_member(&json, a, "a") == JSON_NONE);
    assert_true(json_next(&json, 0) == JSON_NONE);
    assert_span(json_raw(&json, 0), "{\"a\" : [1, {\"x\":null}, \"s\"], \"\\u0062\": -1.5e3 ,\"c\":{}, \"d\":true}");

    assert_int_equal(parse_text(&json, " false "), JSON_OK);
    assert_int_equal(json.node_count, 1);
    assert_int_equal(json_kind(&json, 0), JSON_KIND_FALSE);
    assert_span(json_raw(&json, 0), "false");
}

static void escapes_are_decoded(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *decoded;
        size_t bytes;
    } cases[] = {
        {"\"plain\"", "plain", 5},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t", 8},
        {"\"a\\u0000b\"", "a\0b", 3},
        {"\"\\u0041\\u00e9\\u20AC\"", "A\xc3\xa9\xe2\x82\xac", 6},
        {"\"\\uD83D\\uDE00\\udbff\\udfff\\ud800\\udc00\"", "\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf\xf0\x90\x80\x80", 12},
        {"\"\\u007f\\u0080\\u07ff\\u0800\\uffff\"", "\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf", 11},
        {"\"\xc3\xa9\\n\xe2\x82\xac\"", "\xc3\xa9\n\xe2\x82\xac", 6},
        {"\"\\\\u0041\"", "\\u0041", 6},
        {"\"\"", "", 0},
    };
    struct json json;
    open_json(&json, 128);
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        assert_int_equal(parse_text(&json, cases[index].text), JSON_OK);
        for (int again = 0; again < 2; again++) {
            struct span string = json_string(&json, 0);
            assert_int_equal(string.bytes, cases[index].bytes);
            assert_memory_equal(string.data, cases[index].decoded, string.bytes);
        }
        assert_span(json_raw(&json, 0), cases[index].text);
    }
}

static void nul_is_found_where_it_is(void **state)
{
    (void)state;
    struct json json;
    open_json(&json, 128);
    assert_int_equal(
        parse_text(&json, "{\"a\":[\"x\\n\",{\"b\":\"\\u0000\"}],\"c\":\"\\u0001\",\"d\":{\"\\u0000\":1},\"e\":[]}"),
        JSON_OK);
    assert_true(json.has_nul);
    assert_true(json_holds_nul(&json, 0));
    assert_true(json_holds_nul(&json, json_member(&json, 0, "a")));
    assert_false(json_holds_nul(&json, json_member(&json, 0, "c")));
    assert_true(json_holds_nul(&json, json_member(&json, 0, "d")));
    assert_false(json_holds_nul(&json, json_member(&json, 0, "e")));
    assert_int_equal(parse_text(&json, "{\"a\":\"\\\\u0000\"}"), JSON_OK);
    assert_false(json.has_nul);
    assert_false(json_holds_nul(&json, 0));
}

/* The documents with the most nodes for their length, at exactly the length that was asked for. */
static void densest_documents_fit(void **state)
{
    (void)state;
    static char text[1024];
    for (size_t bytes = 1; bytes <= 400; bytes++) {
        struct json json;
        open_json(&json, bytes);
        memset(text, '1', bytes);
        assert_int_equal(parse(&json, text, bytes), JSON_OK);
        assert_int_equal(parse(&json, text, bytes + 1), JSON_TOO_LONG);
        assert_int_equal(json.error_offset, bytes);
        if (bytes < 3) {
            continue;
        }
        for (size_t at = 0; at < bytes; at++) {
            text[at] = at % 2 == 0 ? ',' : '1';
        }
        text[0] = '[';
        text[bytes - 1] = ']';
        if (text[bytes - 2] == ',') {
            text[bytes - 2] = '1';
        }
        assert_int_equal(parse(&json, text, bytes), JSON_OK);
        assert_true(json.node_count <= json.node_count_max);
    }
}

static void deepest_and_widest_document_fits(void **state)
{
    (void)state;
    static char text[4096];
    size_t bytes = 0;
    for (int depth = 0; depth < JSON_DEPTH_MAX - 1; depth++) {
        text[bytes++] = '[';
    }
    for (int sibling = 0; sibling < 1000; sibling++) {
        bytes += (size_t)snprintf(text + bytes, sizeof text - bytes, sibling == 0 ? "[]" : ",[]");
    }
    for (int depth = 0; depth < JSON_DEPTH_MAX - 1; depth++) {
        text[bytes++] = ']';
    }
    struct json json;
    open_json(&json, bytes);
    assert_int_equal(parse(&json, text, bytes), JSON_OK);
    assert_int_equal(json.node_count, 1000 + JSON_DEPTH_MAX - 1);
    /* And a cut one, where jsmn makes more nodes than a right document of that length has. */
    memset(text, '[', sizeof text);
    open_json(&json, JSON_DEPTH_MAX);
    assert_int_equal(parse(&json, text, JSON_DEPTH_MAX), JSON_END);
    open_json(&json, 64);
    assert_int_equal(parse(&json, text, 64), JSON_DEPTH);
}

/* Names of two letters: as many members as an object of this length can have. */
static void widest_objects_are_checked(void **state)
{
    (void)state;
    static char text[16384];
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    size_t bytes = 0;
    text[bytes++] = '{';
    size_t count = 0;
    while (bytes + 8 < sizeof text) {
        bytes += (size_t)snprintf(text + bytes, sizeof text - bytes, "\"%c%c\":1,", letters[count / 62 % 62],
                                  letters[count % 62]);
        count++;
    }
    text[bytes - 1] = '}';
    struct json json;
    open_json(&json, bytes);
    assert_int_equal(parse(&json, text, bytes), JSON_OK);
    assert_int_equal(json_child_count(&json, 0), count);
    /* Any one of them changed to its neighbour's name is found. */
    for (size_t member = 0; member + 1 < count; member += 97) {
        char *name = text + 2 + member * 7;
        char kept = name[1];
        char kept_first = name[0];
        name[0] = name[7];
        name[1] = name[8];
        assert_int_equal(parse(&json, text, bytes), JSON_DUPLICATE);
        assert_int_equal(json.error_offset, 1 + (member + 1) * 7);
        name[0] = kept_first;
        name[1] = kept;
    }
}

static void every_pair_of_few_names_is_compared(void **state)
{
    (void)state;
    struct json json;
    open_json(&json, 1024);
    for (size_t count = 2; count <= 20; count++) {
        for (size_t first = 0; first < count; first++) {
            for (size_t second = first + 1; second < count; second++) {
                char text[512] = "{";
                size_t bytes = 1;
                for (size_t member = 0; member < count; member++) {
                    size_t name = member == second ? first : member;
                    bytes += (size_t)snprintf(text + bytes, sizeof text - bytes, "\"%s%02zu\":0,",
                                              member == second && second % 2 == 0 ? "\\u006e" : "n", name);
                }
                text[bytes - 1] = '}';
                assert_int_equal(parse(&json, text, bytes), JSON_DUPLICATE);
            }
        }
    }
}

static void measuring_takes_what_carving_takes(void **state)
{
    (void)state;
    struct arena arena;
    struct json json;
    arena_measure(&arena);
    json_init(&json, &arena, 16384, NULL);
    size_t bytes = arena.used_bytes;
    assert_true(bytes < (size_t)16384 * 16);
    arena_begin(&arena, memory, bytes);
    json_init(&json, &arena, 16384, &key);
    assert_int_equal(arena.used_bytes, bytes);
}

static void foreign_node(void *argument)
{
    (void)json_kind(argument, 1);
}

static void a_node_that_is_not_there_ends_the_program(void **state)
{
    (void)state;
    struct json json;
    open_json(&json, 16);
    assert_int_equal(parse_text(&json, "1"), JSON_OK);
    assert_true(aborts(foreign_node, &json));
}

static int open_guard(void **state)
{
    (void)state;
    guard_page_open(&guard, DOCUMENT_BYTES_MAX);
    return 0;
}

static int close_guard(void **state)
{
    (void)state;
    guard_page_close(&guard);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(corpus_is_judged_as_named),
        cmocka_unit_test(no_prefix_of_a_bracketed_document_is_one),
        cmocka_unit_test(strings_are_scanned_alike_at_every_place),
        cmocka_unit_test(errors_name_their_place),
        cmocka_unit_test(members_and_values_are_found),
        cmocka_unit_test(escapes_are_decoded),
        cmocka_unit_test(nul_is_found_where_it_is),
        cmocka_unit_test(densest_documents_fit),
        cmocka_unit_test(deepest_and_widest_document_fits),
        cmocka_unit_test(widest_objects_are_checked),
        cmocka_unit_test(every_pair_of_few_names_is_compared),
        cmocka_unit_test(measuring_takes_what_carving_takes),
        cmocka_unit_test(a_node_that_is_not_there_ends_the_program),
    };
    return cmocka_run_group_tests(tests, open_guard, close_guard);
}
