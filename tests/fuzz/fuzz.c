/* SPDX-License-Identifier: MIT */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guard_page.h"

enum { SIZE_WHOLE = 255, SIZES_SMALL = 128, NOTE_HEAD_BYTES = 13, SHOWN_BYTES = 64 };

const struct fuzz_cuts fuzz_whole = {.sizes = {SIZE_WHOLE, SIZE_WHOLE, SIZE_WHOLE, SIZE_WHOLE}};
const struct fuzz_cuts fuzz_single = {.sizes = {0, 0, 0, 0}};

struct span fuzz_input(const uint8_t *data, size_t bytes)
{
    return span_of(data, bytes < FUZZ_INPUT_BYTES_MAX ? bytes : FUZZ_INPUT_BYTES_MAX);
}

struct span fuzz_take(struct span *input, size_t bytes)
{
    struct span taken = span_of(input->data, bytes < input->bytes ? bytes : input->bytes);
    *input = taken.bytes == 0 ? *input : span_of(input->data + taken.bytes, input->bytes - taken.bytes);
    return taken;
}

uint8_t fuzz_byte(struct span *input)
{
    struct span taken = fuzz_take(input, 1);
    return taken.bytes == 0 ? 0 : taken.data[0];
}

uint8_t *fuzz_guarded(struct span bytes)
{
    static struct guard_page guard;
    if (guard.mapping == NULL) {
        guard_page_open(&guard, 16 * (size_t)FUZZ_INPUT_BYTES_MAX);
    }
    return guard_page_put(&guard, bytes.data, bytes.bytes);
}

/* ---- pieces ---- */

struct fuzz_cuts fuzz_take_cuts(struct span *input)
{
    struct fuzz_cuts cuts = fuzz_whole;
    for (size_t i = 0; i < FUZZ_CUTS; i++) {
        cuts.sizes[i] = fuzz_byte(input);
    }
    return cuts;
}

size_t fuzz_cut(struct fuzz_cuts *cuts, size_t left)
{
    size_t size = cuts->sizes[cuts->index % FUZZ_CUTS];
    cuts->index++;
    size_t bytes = size == SIZE_WHOLE ? left : size < SIZES_SMALL ? size + 1 : (size - SIZES_SMALL + 2) * SIZES_SMALL;
    return bytes < left ? bytes : left;
}

/* ---- traces ---- */

void fuzz_trace_begin(struct fuzz_trace *trace)
{
    trace->used_bytes = 0;
}

static void put_number(struct fuzz_trace *trace, uint64_t number, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        trace->bytes[trace->used_bytes++] = (uint8_t)(number >> (8 * i));
    }
}

void fuzz_note(struct fuzz_trace *trace, unsigned what, uint64_t number, struct span data)
{
    CHECK(what <= UINT8_MAX && sizeof trace->bytes - trace->used_bytes >= NOTE_HEAD_BYTES + data.bytes);
    put_number(trace, what, 1);
    put_number(trace, number, 8);
    put_number(trace, data.bytes, 4);
    if (data.bytes > 0) {
        memcpy(trace->bytes + trace->used_bytes, data.data, data.bytes);
        trace->used_bytes += data.bytes;
    }
}

static uint64_t read_number(const uint8_t *at, size_t bytes)
{
    uint64_t number = 0;
    for (size_t i = 0; i < bytes; i++) {
        number |= (uint64_t)at[i] << (8 * i);
    }
    return number;
}

static void print_trace(const char *name, const struct fuzz_trace *trace)
{
    (void)fprintf(stderr, "%s:\n", name);
    for (size_t at = 0; at < trace->used_bytes;) {
        size_t bytes = (size_t)read_number(trace->bytes + at + 9, 4);
        (void)fprintf(stderr, "  %u %llu %zu:", (unsigned)trace->bytes[at],
                      (unsigned long long)read_number(trace->bytes + at + 1, 8), bytes);
        at += NOTE_HEAD_BYTES;
        for (size_t i = 0; i < bytes && i < SHOWN_BYTES; i++) {
            uint8_t byte = trace->bytes[at + i];
            (void)fprintf(stderr, byte > ' ' && byte < 0x7F && byte != '\\' ? "%c" : "\\x%02x", (unsigned)byte);
        }
        (void)fprintf(stderr, bytes > SHOWN_BYTES ? "...\n" : "\n");
        at += bytes;
    }
}

void fuzz_expect_same(const struct fuzz_trace *one, const struct fuzz_trace *other)
{
    bool is_same = span_equal(span_of(one->bytes, one->used_bytes), span_of(other->bytes, other->used_bytes));
    if (!is_same) {
        print_trace("one", one);
        print_trace("the other", other);
    }
    CHECK(is_same);
}

/* ---- UTF-8 ---- */

enum fuzz_utf8 fuzz_utf8(struct span text)
{
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    for (size_t at = 0; at < text.bytes;) {
        uint8_t lead = text.data[at++];
        size_t more = lead < 0x80 ? 0 : lead >> 5 == 0x06 ? 1 : lead >> 4 == 0x0E ? 2 : lead >> 3 == 0x1E ? 3 : 4;
        if (more == 4) {
            return FUZZ_UTF8_BAD;
        }
        /* Between which two code points this character is, whatever follows a cut. */
        uint32_t low = more == 0 ? lead : lead & (0x3FU >> more);
        uint32_t high = low;
        for (size_t i = 0; i < more; i++) {
            bool is_there = at + i < text.bytes;
            if (is_there && text.data[at + i] >> 6 != 2) {
                return FUZZ_UTF8_BAD;
            }
            low = low << 6 | (is_there ? text.data[at + i] & 0x3FU : 0);
            high = high << 6 | (is_there ? text.data[at + i] & 0x3FU : 0x3F);
        }
        if (high < least[more] || low > 0x10FFFF || (low >= 0xD800 && high <= 0xDFFF)) {
            return FUZZ_UTF8_BAD;
        }
        if (text.bytes - at < more) {
            return FUZZ_UTF8_CUT;
        }
        at += more;
    }
    return FUZZ_UTF8_WHOLE;
}
