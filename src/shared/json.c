/* SPDX-License-Identifier: MIT */
/* jsmn finds the tokens; a walk over them and over every byte between them is the judge.
 *
 * jsmn takes much that is not JSON (`{"a" 1}`, `[1 2]`, `01`, `truex`), so nothing it says is believed. The walk goes
 * through the text by the grammar, with a stack of JSON_DEPTH_MAX containers, and demands at each value the token that
 * begins there. Where jsmn stopped early the walk comes to the same
 * place, and says what is wrong there. What jsmn's strict mode refuses and RFC 8259 does not, a number or a word as
 * the whole document, the walk makes a node for itself.
 *
 * When the walk leaves an object, it compares the members' names: a few with each other, many through a table hashed
 * with a secret key.
 *
 * After the walk two fields of a token have another meaning than jsmn's: `parent` is the next sibling (-1: none), and
 * `size` is the count of children, or for a string the length without escapes (TEXT_PLAIN, TEXT_ESCAPED). */
#include "json.h"

#define JSMN_STATIC
#define JSMN_STRICT
#define JSMN_PARENT_LINKS
#include <jsmn.h>

#include "arena.h"
#include "check.h"
#include "json_scan.h"
#include "limits.h"
#include "number.h"

struct json_node {
    jsmntok_t token;
};

enum { TEXT_PLAIN = -1, TEXT_ESCAPED = -2 };

/* Up to this many members are compared without a table. */
enum { MEMBERS_COMPARED_MAX = 16 };

struct level {
    size_t container;
    int last; /* child; -1: none yet */
    int count;
    bool object;
};

struct walk {
    struct json *json;
    struct json_scan in; /* its place is the walk's; after an error the place of that */
    size_t token_count;
    size_t token_index; /* the next one to meet */
    size_t depth;
    struct level levels[JSON_DEPTH_MAX];
};

static size_t slot_count_for(size_t text_bytes_max)
{
    /* A member takes at least five bytes: `"":1,`. Half of the slots stay empty. */
    return (size_t)number_power_of_two(2 * (text_bytes_max / 5 + 1));
}

void json_init(struct json *json, struct arena *arena, size_t text_bytes_max, const struct siphash_key *hash_key)
{
    CHECK(text_bytes_max > 0 && text_bytes_max <= JSON_TEXT_BYTES_MAX);
    /* A right document has at most (bytes + 1) / 2 nodes. One that is cut within containers can have more, half a node
     * for each of them, and the walk must be able to come to its end. */
    *json = (struct json){.text_bytes_max = text_bytes_max,
                          .node_count_max = (text_bytes_max + 1) / 2 + JSON_DEPTH_MAX,
                          .slot_count_max = slot_count_for(text_bytes_max)};
    json->nodes = arena_take(arena, "JSON nodes", json->node_count_max, sizeof *json->nodes);
    json->slots = arena_take(arena, "JSON name table", json->slot_count_max, sizeof *json->slots);
    json->decoded = arena_take(arena, "JSON strings", text_bytes_max, 1);
    if (!arena_measuring(arena)) {
        json->hash_key = *hash_key;
    }
}

static jsmntok_t *token_at(const struct json *json, size_t node)
{
    return &json->nodes[node].token;
}

enum json_kind json_kind(const struct json *json, size_t node)
{
    CHECK(node < json->node_count);
    const jsmntok_t *token = token_at(json, node);
    if (token->type != JSMN_PRIMITIVE) {
        return token->type == JSMN_OBJECT  ? JSON_KIND_OBJECT
               : token->type == JSMN_ARRAY ? JSON_KIND_ARRAY
                                           : JSON_KIND_STRING;
    }
    uint8_t first = json->text.data[token->start];
    return first == 't'   ? JSON_KIND_TRUE
           : first == 'f' ? JSON_KIND_FALSE
           : first == 'n' ? JSON_KIND_NULL
                          : JSON_KIND_NUMBER;
}

struct span json_raw(const struct json *json, size_t node)
{
    CHECK(node < json->node_count);
    const jsmntok_t *token = token_at(json, node);
    size_t quote = token->type == JSMN_STRING ? 1 : 0;
    return span_of(json->text.data + token->start - quote, (size_t)(token->end - token->start) + 2 * quote);
}

size_t json_child_count(const struct json *json, size_t node)
{
    const jsmntok_t *token = token_at(json, node);
    return token->type == JSMN_OBJECT || token->type == JSMN_ARRAY ? (size_t)token->size : 0;
}

size_t json_first(const struct json *json, size_t node)
{
    return json_child_count(json, node) == 0 ? JSON_NONE : node + 1;
}

size_t json_next(const struct json *json, size_t node)
{
    int next = token_at(json, node)->parent;
    return next < 0 ? JSON_NONE : (size_t)next;
}

size_t json_member(struct json *json, size_t object, const char *name)
{
    CHECK(object < json->node_count);
    if (token_at(json, object)->type != JSMN_OBJECT) {
        return JSON_NONE;
    }
    for (size_t child = json_first(json, object); child != JSON_NONE; child = json_next(json, json_next(json, child))) {
        if (span_is(json_string(json, child), name)) {
            return json_next(json, child);
        }
    }
    return JSON_NONE;
}

struct span json_string(struct json *json, size_t node)
{
    jsmntok_t *token = token_at(json, node);
    CHECK(token->type == JSMN_STRING);
    const uint8_t *raw = json->text.data + token->start;
    size_t raw_bytes = (size_t)(token->end - token->start);
    if (token->size == TEXT_PLAIN) {
        return span_of(raw, raw_bytes);
    }
    char *decoded = json->decoded + token->start;
    if (token->size == TEXT_ESCAPED) {
        token->size = (int)json_decode(raw, raw_bytes, decoded);
    }
    return span_of(decoded, (size_t)token->size);
}

bool json_holds_nul(struct json *json, size_t node)
{
    CHECK(node < json->node_count);
    if (!json->has_nul) {
        return false;
    }
    int end = token_at(json, node)->end;
    for (size_t index = node; index < json->node_count && token_at(json, index)->start <= end; index++) {
        if (token_at(json, index)->type == JSMN_STRING) {
            struct span string = json_string(json, index);
            if (string.bytes > 0 && memchr(string.data, 0, string.bytes) != NULL) {
                return true;
            }
        }
    }
    return false;
}

static bool names_equal(struct json *json, size_t a, size_t b)
{
    return span_equal(json_string(json, a), json_string(json, b));
}

/* A number from 0 to 63 that differs for most names that differ. */
static unsigned name_mark(struct span name)
{
    if (name.bytes == 0) {
        return 0;
    }
    size_t mixed =
        name.bytes * 31 + (size_t)name.data[0] * 7 + (size_t)name.data[name.bytes / 2] * 3 + name.data[name.bytes - 1];
    return (unsigned)(mixed % 64);
}

/* The later one of two members with one name, or JSON_NONE. A name is compared with those before it only if one of
 * them had the same mark. */
static size_t find_duplicate_among_few(struct json *json, size_t object)
{
    uint64_t marks = 0;
    for (size_t name = json_first(json, object); name != JSON_NONE; name = json_next(json, json_next(json, name))) {
        uint64_t mark = (uint64_t)1 << name_mark(json_string(json, name));
        if ((marks & mark) != 0) {
            for (size_t before = json_first(json, object); before != name;
                 before = json_next(json, json_next(json, before))) {
                if (names_equal(json, before, name)) {
                    return name;
                }
            }
        }
        marks |= mark;
    }
    return JSON_NONE;
}

static size_t find_duplicate_by_hash(struct json *json, size_t object)
{
    size_t mask = (size_t)number_power_of_two(2 * json_child_count(json, object));
    CHECK(mask <= json->slot_count_max);
    memset(json->slots, 0, mask * sizeof *json->slots);
    mask--;
    for (size_t name = json_first(json, object); name != JSON_NONE; name = json_next(json, json_next(json, name))) {
        size_t slot = (size_t)siphash(&json->hash_key, json_string(json, name)) & mask;
        for (; json->slots[slot] != 0; slot = (slot + 1) & mask) {
            /* A name is never node 0, so 0 is an empty slot. */
            if (names_equal(json, json->slots[slot], name)) {
                return name;
            }
        }
        json->slots[slot] = (uint32_t)name;
    }
    return JSON_NONE;
}

static enum json_error fail_at(struct walk *walk, size_t offset, enum json_error error)
{
    walk->in.at = offset;
    return error;
}

static enum json_error check_names(struct walk *walk, size_t object)
{
    struct json *json = walk->json;
    size_t count = json_child_count(json, object);
    size_t duplicate = count < 2                       ? JSON_NONE
                       : count <= MEMBERS_COMPARED_MAX ? find_duplicate_among_few(json, object)
                                                       : find_duplicate_by_hash(json, object);
    return duplicate == JSON_NONE ? JSON_OK
                                  : fail_at(walk, (size_t)token_at(json, duplicate)->start - 1, JSON_DUPLICATE);
}

/* Skips blanks; the byte behind them, or -1 at the end of the text. */
static inline int next_byte(struct walk *walk)
{
    size_t at = walk->in.at;
    if (at < walk->in.bytes && walk->in.data[at] > ' ') {
        return walk->in.data[at];
    }
    json_scan_blanks(&walk->in);
    return walk->in.at == walk->in.bytes ? -1 : walk->in.data[walk->in.at];
}

/* The next token, if it is of that type and begins at that byte; else NULL. */
static inline jsmntok_t *meet_token(struct walk *walk, jsmntype_t type, size_t start)
{
    jsmntok_t *token = token_at(walk->json, walk->token_index);
    if (walk->token_index >= walk->token_count || token->type != type || token->start != (int)start) {
        return NULL;
    }
    walk->token_index++;
    return token;
}

/* Takes the string whose opening quote comes next. */
static inline enum json_error take_string(struct walk *walk)
{
    size_t quote = walk->in.at;
    jsmntok_t *token = meet_token(walk, JSMN_STRING, quote + 1);
    if (token != NULL && json_scan_plain(&walk->in, (size_t)token->end)) {
        token->size = TEXT_PLAIN;
        return JSON_OK;
    }
    enum json_error error = json_scan_string(&walk->in);
    if (error != JSON_OK) {
        return error;
    }
    if (token == NULL || token->end != (int)walk->in.at - 1) {
        return fail_at(walk, quote, JSON_SYNTAX);
    }
    token->size = walk->in.escaped ? TEXT_ESCAPED : TEXT_PLAIN;
    return JSON_OK;
}

/* Takes a number or a word. */
static enum json_error take_primitive(struct walk *walk)
{
    size_t start = walk->in.at;
    enum json_error error = json_scan_primitive(&walk->in);
    if (error != JSON_OK) {
        return error;
    }
    if (walk->token_count == 0) { /* the whole document */
        *token_at(walk->json, 0) = (jsmntok_t){JSMN_PRIMITIVE, (int)start, (int)walk->in.at, 0, -1};
        walk->token_count = 1;
    }
    jsmntok_t *token = meet_token(walk, JSMN_PRIMITIVE, start);
    if (token == NULL && walk->in.at == walk->in.bytes) {
        return JSON_END; /* jsmn makes no token of a number that nothing follows */
    }
    return token == NULL || token->end != (int)walk->in.at ? JSON_SYNTAX : JSON_OK;
}

/* Enters the container whose opening bracket comes next. */
static enum json_error open_container(struct walk *walk, jsmntype_t type)
{
    if (walk->depth == JSON_DEPTH_MAX) {
        return JSON_DEPTH;
    }
    size_t container = walk->token_index;
    if (meet_token(walk, type, walk->in.at) == NULL) {
        return JSON_SYNTAX;
    }
    walk->levels[walk->depth++] = (struct level){container, -1, 0, type == JSMN_OBJECT};
    walk->in.at++;
    return JSON_OK;
}

/* Leaves the innermost container, whose closing bracket comes next. */
static enum json_error close_container(struct walk *walk)
{
    struct level *level = &walk->levels[--walk->depth];
    jsmntok_t *token = token_at(walk->json, level->container);
    if (token->end != (int)walk->in.at + 1) {
        return JSON_SYNTAX;
    }
    walk->in.at++;
    token->size = level->count;
    if (level->last >= 0) {
        token_at(walk->json, (size_t)level->last)->parent = -1;
    }
    return level->object ? check_names(walk, level->container) : JSON_OK;
}

/* Hangs the next token behind the innermost container's last child. */
static inline void link_child(struct walk *walk)
{
    struct level *level = &walk->levels[walk->depth - 1];
    if (level->last >= 0) {
        token_at(walk->json, (size_t)level->last)->parent = (int)walk->token_index;
    }
    level->last = (int)walk->token_index;
}

/* Takes a member's name and the colon behind it. */
static inline enum json_error take_name(struct walk *walk)
{
    int byte = next_byte(walk);
    if (byte != '"') {
        return byte < 0 ? JSON_END : JSON_SYNTAX;
    }
    link_child(walk);
    enum json_error error = take_string(walk);
    if (error != JSON_OK) {
        return error;
    }
    byte = next_byte(walk);
    if (byte != ':') {
        return byte < 0 ? JSON_END : JSON_SYNTAX;
    }
    walk->in.at++;
    return JSON_OK;
}

/* Takes a value, or of a container only the opening bracket: `opened` tells. */
static inline enum json_error take_value(struct walk *walk, bool *opened)
{
    int first = next_byte(walk);
    if (walk->depth > 0) {
        walk->levels[walk->depth - 1].count++;
        link_child(walk);
    }
    *opened = first == '{' || first == '[';
    if (first == '"') {
        return take_string(walk);
    }
    if (*opened) {
        return open_container(walk, first == '{' ? JSMN_OBJECT : JSMN_ARRAY);
    }
    if (first == '-' || (first >= '0' && first <= '9') || first == 't' || first == 'f' || first == 'n') {
        return take_primitive(walk);
    }
    bool letter = (first >= 'a' && first <= 'z') || (first >= 'A' && first <= 'Z');
    return first < 0 ? JSON_END : letter ? JSON_LITERAL : JSON_SYNTAX;
}

/* Takes what stands behind a value, up to a comma or to the end of the outermost container. */
static inline enum json_error take_separator(struct walk *walk)
{
    while (walk->depth > 0) {
        int byte = next_byte(walk);
        if (byte == ',') {
            walk->in.at++;
            return JSON_OK;
        }
        if (byte != (walk->levels[walk->depth - 1].object ? '}' : ']')) {
            return byte < 0 ? JSON_END : JSON_SYNTAX;
        }
        enum json_error error = close_container(walk);
        if (error != JSON_OK) {
            return error;
        }
    }
    return JSON_OK;
}

static enum json_error take_document(struct walk *walk)
{
    do {
        bool opened;
        enum json_error error = take_value(walk, &opened);
        if (error != JSON_OK) {
            return error;
        }
        if (!opened || next_byte(walk) == (walk->levels[walk->depth - 1].object ? '}' : ']')) {
            error = take_separator(walk);
        }
        if (error == JSON_OK && walk->depth > 0 && walk->levels[walk->depth - 1].object) {
            error = take_name(walk);
        }
        if (error != JSON_OK) {
            return error;
        }
    } while (walk->depth > 0);
    return next_byte(walk) < 0 ? JSON_OK : JSON_TRAILING;
}

/* Parses a text that is not too long; json->error_offset is set after an error. */
static enum json_error parse(struct json *json)
{
    struct walk walk;
    walk.json = json;
    walk.in = (struct json_scan){.data = json->text.data, .bytes = json->text.bytes};
    walk.token_index = 0;
    walk.depth = 0;
    if (next_byte(&walk) < 0) {
        json->error_offset = walk.in.at;
        return JSON_EMPTY;
    }
    jsmn_parser parser;
    jsmn_init(&parser);
    (void)jsmn_parse(&parser, (const char *)json->text.data, json->text.bytes, &json->nodes->token,
                     (unsigned)json->node_count_max);
    walk.token_count = parser.toknext;
    enum json_error error = take_document(&walk);
    if (error != JSON_OK) {
        json->error_offset = walk.in.at;
        return error;
    }
    CHECK(walk.token_index == walk.token_count);
    token_at(json, 0)->parent = -1;
    json->node_count = walk.token_count;
    json->has_nul = walk.in.has_nul;
    return JSON_OK;
}

enum json_error json_parse(struct json *json, struct span text)
{
    json->text = text;
    json->node_count = 0;
    json->has_nul = false;
    json->error_offset = 0;
    if (text.bytes > json->text_bytes_max) {
        json->error_offset = json->text_bytes_max;
        json->error = JSON_TOO_LONG;
    } else {
        json->error = parse(json);
    }
    return json->error;
}

const char *json_error_text(enum json_error error)
{
    switch (error) {
    case JSON_OK:
        return "right JSON";
    case JSON_EMPTY:
        return "there is no value";
    case JSON_TOO_LONG:
        return "the document is too long";
    case JSON_SYNTAX:
        return "this character cannot stand here";
    case JSON_END:
        return "the document ends too early";
    case JSON_TRAILING:
        return "something follows the value";
    case JSON_LITERAL:
        return "a word other than true, false or null";
    case JSON_NUMBER:
        return "not a number";
    case JSON_CONTROL:
        return "a control character in a string";
    case JSON_ESCAPE:
        return "an escape that does not exist";
    case JSON_SURROGATE:
        return "half of a surrogate pair";
    case JSON_UTF8:
        return "not UTF-8";
    case JSON_DUPLICATE:
        return "a member's name is given twice";
    case JSON_DEPTH:
        return "nested too deeply";
    }
    CHECK(false);
    return "";
}
