/* SPDX-License-Identifier: MIT */
/* A short list, written twice: once for what blocks, once for what does not. */
#include "readiness.h"

#include "check.h"

void readiness_begin(struct readiness *readiness)
{
    readiness->count = 0;
}

struct text readiness_add(struct readiness *readiness, const char *code, bool is_blocking)
{
    CHECK(readiness->count < READINESS_FINDINGS_MAX);
    struct readiness_finding *finding = &readiness->findings[readiness->count];
    finding->code = code;
    finding->is_blocking = is_blocking;
    return text_in(finding->sentence, sizeof finding->sentence);
}

void readiness_end(struct readiness *readiness, const struct text *sentence)
{
    CHECK(!sentence->truncated);
    readiness->findings[readiness->count++].sentence_bytes = sentence->used_bytes;
}

bool readiness_is_ready(const struct readiness *readiness)
{
    for (size_t index = 0; index < readiness->count; index++) {
        if (readiness->findings[index].is_blocking) {
            return false;
        }
    }
    return true;
}

static void write_list(const struct readiness *readiness, struct text *page, bool is_blocking)
{
    bool is_first = true;
    text_char(page, '[');
    for (size_t index = 0; index < readiness->count; index++) {
        const struct readiness_finding *finding = &readiness->findings[index];
        if (finding->is_blocking != is_blocking) {
            continue;
        }
        text_string(page, is_first ? "{\"code\":\"" : ",{\"code\":\"");
        text_string(page, finding->code);
        text_string(page, "\",\"text\":");
        text_json_string(page, span_of(finding->sentence, finding->sentence_bytes));
        text_char(page, '}');
        is_first = false;
    }
    text_char(page, ']');
}

void readiness_write(const struct readiness *readiness, struct text *page)
{
    text_string(page, readiness_is_ready(readiness) ? "\"ready\":true" : "\"ready\":false");
    text_string(page, ",\"reasons\":");
    write_list(readiness, page, true);
    text_string(page, ",\"warnings\":");
    write_list(readiness, page, false);
}

uint16_t readiness_page(const struct readiness *readiness, struct text *page)
{
    text_char(page, '{');
    readiness_write(readiness, page);
    text_string(page, "}\n");
    return readiness_is_ready(readiness) ? 200 : 503;
}
