/* SPDX-License-Identifier: MIT */
/* Strict JSON (RFC 8259): a document is right whole, or refused with the byte where it goes wrong.
 *
 * Beyond the grammar it refuses what two readers could read in two ways: text that is not UTF-8, surrogate escapes
 * that are not a pair, a member's name given twice in one object (names are compared after their escapes are
 * decoded), and nesting deeper than JSON_DEPTH_MAX. Numbers of any length and any root value are right.
 *
 * Invariant: work is linear in the document's bytes, whatever the document says. Between a json_parse that returned
 * JSON_OK and the next one, nodes 0 (the root) to node_count - 1 stand in the order of the text and point into it.
 * Memory: from the arena, about 14 bytes for each byte of text_bytes_max. Thread: its owner's. */
#ifndef POSTERN_SHARED_JSON_H
#define POSTERN_SHARED_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "siphash.h"
#include "span.h"

struct arena;

enum json_error {
    JSON_OK,
    JSON_EMPTY,     /* nothing but blanks */
    JSON_TOO_LONG,  /* more than text_bytes_max */
    JSON_SYNTAX,    /* not what the grammar allows here */
    JSON_END,       /* the text ends within a value */
    JSON_TRAILING,  /* more than blanks after the value */
    JSON_LITERAL,   /* a word other than true, false, null */
    JSON_NUMBER,    /* not a number of RFC 8259 section 6 */
    JSON_CONTROL,   /* a control character in a string */
    JSON_ESCAPE,    /* an escape that does not exist */
    JSON_SURROGATE, /* half of a surrogate pair */
    JSON_UTF8,      /* not UTF-8 (RFC 3629) */
    JSON_DUPLICATE, /* a member's name for the second time */
    JSON_DEPTH      /* deeper than JSON_DEPTH_MAX */
};

enum json_kind {
    JSON_KIND_OBJECT,
    JSON_KIND_ARRAY,
    JSON_KIND_STRING,
    JSON_KIND_NUMBER,
    JSON_KIND_TRUE,
    JSON_KIND_FALSE,
    JSON_KIND_NULL
};

enum { JSON_TEXT_BYTES_MAX = 256 * 1024 * 1024 };

/* No node: the end of a list of children. */
#define JSON_NONE SIZE_MAX

struct json_node; /* in json.c */

struct json {
    struct span text;        /* the document last parsed; the caller's */
    size_t node_count;       /* 0 after an error */
    enum json_error error;   /* what json_parse returned last */
    size_t error_offset;     /* where that is, in bytes from 0 */
    bool has_nul;            /* a string of the document holds \u0000 */
    struct json_node *nodes; /* node_count_max */
    size_t node_count_max;
    uint32_t *slots; /* for finding names given twice: slot_count_max, a power of two */
    size_t slot_count_max;
    char *decoded; /* strings without their escapes, at the offset they have in the text */
    size_t text_bytes_max;
    struct siphash_key hash_key;
};

/* Takes memory for documents of up to text_bytes_max bytes (at most JSON_TEXT_BYTES_MAX). `hash_key` is random and
 * secret, so that no client can choose names that collide; it is not looked at while the arena measures. */
void json_init(struct json *json, struct arena *arena, size_t text_bytes_max, const struct siphash_key *hash_key);

/* Parses one document. `text` must stay as it is for as long as the nodes are used. */
enum json_error json_parse(struct json *json, struct span text);

/* A sentence for people, without a full stop and without the place: "a member's name is given twice". */
const char *json_error_text(enum json_error error);

/* Nodes. An object's children are name, value, name, value …; a name is a string node. */
enum json_kind json_kind(const struct json *json, size_t node);
/* The value as it stands in the text; a string with its quotes. */
struct span json_raw(const struct json *json, size_t node);
/* How many elements an array or members an object has; 0 for others. */
size_t json_child_count(const struct json *json, size_t node);
/* The first child, and what follows a node within its parent; JSON_NONE at the end. */
size_t json_first(const struct json *json, size_t node);
size_t json_next(const struct json *json, size_t node);
/* The value of the object's member of that name; JSON_NONE where there is none or where the node is no object. */
size_t json_member(struct json *json, size_t object, const char *name);

/* A string node's characters in UTF-8, escapes decoded (\u0000 gives a zero byte). Points into the text or into
 * memory of `json`, and lives until the next json_parse. */
struct span json_string(struct json *json, size_t node);

/* True when a string anywhere in the node's value (names too) holds \u0000. */
bool json_holds_nul(struct json *json, size_t node);

#endif
