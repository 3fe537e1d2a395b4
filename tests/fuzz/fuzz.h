/* SPDX-License-Identifier: MIT */
/* What the fuzzers have in common. Each is one file with LLVMFuzzerTestOneInput, which libFuzzer calls with inputs of
 * its own making, and replay.c with the files of the corpus. A property that does not hold is a CHECK that fails.
 *
 * An input's first bytes are decisions, each fuzzer's own (the comment at its top says which); where it feeds a stream,
 * FUZZ_CUTS of them say how that is cut into pieces. The rest is the stream. */
#ifndef POSTERN_TESTS_FUZZ_H
#define POSTERN_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "check.h"
#include "span.h"

enum {
    FUZZ_INPUT_BYTES_MAX = 4096, /* ./dev fuzz makes none that are longer */
    FUZZ_CUTS = 4,
    FUZZ_TRACE_BYTES_MAX = 256 * 1024
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* The input, cut to FUZZ_INPUT_BYTES_MAX. */
struct span fuzz_input(const uint8_t *data, size_t bytes);
/* Takes the first byte off, or up to `bytes` of them; 0, or fewer, where the input has no more. */
uint8_t fuzz_byte(struct span *input);
struct span fuzz_take(struct span *input, size_t bytes);

/* A copy whose end lies at an unreadable page, for as long as no other is asked for. */
uint8_t *fuzz_guarded(struct span bytes);

/* How a stream is cut: pieces of these sizes, over and over. */
struct fuzz_cuts {
    uint8_t sizes[FUZZ_CUTS];
    size_t index;
};
extern const struct fuzz_cuts fuzz_whole;  /* in one piece */
extern const struct fuzz_cuts fuzz_single; /* byte by byte */
struct fuzz_cuts fuzz_take_cuts(struct span *input);
/* The next piece's bytes: 1 to `left`, of which there is at least one. */
size_t fuzz_cut(struct fuzz_cuts *cuts, size_t left);

/* What was observed, written down so that two runs can be compared. */
struct fuzz_trace {
    size_t used_bytes;
    uint8_t bytes[FUZZ_TRACE_BYTES_MAX];
};
void fuzz_trace_begin(struct fuzz_trace *trace);
void fuzz_note(struct fuzz_trace *trace, unsigned what, uint64_t number, struct span data);
/* Ends the program, with both printed, where they differ. */
void fuzz_expect_same(const struct fuzz_trace *one, const struct fuzz_trace *other);

/* UTF-8 judged by code points, and not by ranges of bytes as base/utf8.c does. */
enum fuzz_utf8 {
    FUZZ_UTF8_WHOLE,
    FUZZ_UTF8_CUT, /* it may be going on */
    FUZZ_UTF8_BAD
};
enum fuzz_utf8 fuzz_utf8(struct span text);

#endif
