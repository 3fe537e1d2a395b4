/* SPDX-License-Identifier: MIT */
/* What is not as it should be, as found at one moment, and whether the program can do its work all the same.
 *
 *     {"ready":false,"reasons":[{"code":"draining","text":"the gateway was told to stop"}],"warnings":[]}
 *
 * Memory: the caller's. Thread: any one. */
#ifndef POSTERN_ADMIN_READINESS_H
#define POSTERN_ADMIN_READINESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text.h"

enum { READINESS_FINDINGS_MAX = 8, READINESS_SENTENCE_BYTES = 160 };

struct readiness_finding {
    const char *code; /* static; a word of a-z _ */
    bool is_blocking; /* a reason not to be ready; else a warning */
    char sentence[READINESS_SENTENCE_BYTES];
    size_t sentence_bytes;
};

struct readiness {
    struct readiness_finding findings[READINESS_FINDINGS_MAX];
    size_t count;
};

void readiness_begin(struct readiness *readiness);

/* Begins a sentence, which the caller writes, and readiness_end closes. */
struct text readiness_add(struct readiness *readiness, const char *code, bool is_blocking);
void readiness_end(struct readiness *readiness, const struct text *sentence);

static inline void readiness_say(struct readiness *readiness, const char *code, bool is_blocking, const char *sentence)
{
    struct text text = readiness_add(readiness, code, is_blocking);
    text_string(&text, sentence);
    readiness_end(readiness, &text);
}

bool readiness_is_ready(const struct readiness *readiness);

/* Writes the object's members, without its braces. */
void readiness_write(const struct readiness *readiness, struct text *page);

/* Writes the page /readyz and returns its HTTP status. */
uint16_t readiness_page(const struct readiness *readiness, struct text *page);

#endif
