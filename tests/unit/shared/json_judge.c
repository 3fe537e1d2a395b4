/* SPDX-License-Identifier: MIT */
/* Reads documents from standard input, each behind its length (four bytes, the least first), and answers each with a
 * line: "- <error> <offset>", or "+ " and the document as the nodes show it: strings in hexadecimal, no blanks. */
#include <stdio.h>

#include "arena.h"
#include "json.h"

enum { DOCUMENT_BYTES_MAX = 65536 };

static _Alignas(ARENA_ALIGN_BYTES) uint8_t memory[2 * 1024 * 1024];
static uint8_t document[DOCUMENT_BYTES_MAX];

static void print_node(struct json *json, size_t node);

static void print_children(struct json *json, size_t node)
{
    for (size_t child = json_first(json, node); child != JSON_NONE; child = json_next(json, child)) {
        print_node(json, child);
        (void)putchar(',');
    }
}

static void print_node(struct json *json, size_t node)
{
    struct span raw = json_raw(json, node);
    switch (json_kind(json, node)) {
    case JSON_KIND_OBJECT:
        (void)printf("{%zu:", json_child_count(json, node));
        print_children(json, node);
        (void)putchar('}');
        return;
    case JSON_KIND_ARRAY:
        (void)printf("[%zu:", json_child_count(json, node));
        print_children(json, node);
        (void)putchar(']');
        return;
    case JSON_KIND_STRING: {
        struct span string = json_string(json, node);
        (void)putchar('"');
        for (size_t index = 0; index < string.bytes; index++) {
            (void)printf("%02x", (unsigned)string.data[index]);
        }
        return;
    }
    case JSON_KIND_NUMBER:
    case JSON_KIND_TRUE:
    case JSON_KIND_FALSE:
    case JSON_KIND_NULL:
        (void)fwrite(raw.data, 1, raw.bytes, stdout);
        return;
    }
}

int main(void)
{
    struct arena arena;
    struct json json;
    const struct siphash_key key = {{1, 2}};
    arena_begin(&arena, memory, sizeof memory);
    json_init(&json, &arena, DOCUMENT_BYTES_MAX, &key);
    uint8_t head[4];
    while (fread(head, 1, sizeof head, stdin) == sizeof head) {
        size_t bytes = (size_t)head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
        if (bytes > sizeof document || fread(document, 1, bytes, stdin) != bytes) {
            return 1;
        }
        enum json_error error = json_parse(&json, span_of(document, bytes));
        if (error == JSON_OK) {
            (void)fputs("+ ", stdout);
            print_node(&json, 0);
            (void)printf(" %d\n", json.has_nul ? 1 : 0);
        } else {
            (void)printf("- %d %zu\n", (int)error, json.error_offset);
        }
    }
    return 0;
}
