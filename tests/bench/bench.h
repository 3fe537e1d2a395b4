/* SPDX-License-Identifier: MIT */
/* What the programs of the benchmark have in common: options, the clock, the CPU time of the programs they watch, and
 * the one message all of them send.
 *
 * These programs run on Linux on loopback, end at the first mistake with one line on stderr, and print one JSON line.
 * Memory: taken once at start, given back by the end of the process. Thread: one. */
#ifndef POSTERN_BENCH_BENCH_H
#define POSTERN_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { BENCH_WATCH_MAX = 8, BENCH_ID_DIGITS = 9, BENCH_SECOND_NS = 1000000000 };

_Noreturn void bench_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* One "--name value" of the command line; exactly one of the pointers is set. */
struct bench_option {
    const char *name; /* without the dashes */
    const char **text;
    double *number;
};

/* Fills what the options point at; ends the program on an unknown name, a missing value or a bad number. */
void bench_options(int argc, char **argv, const struct bench_option *options, size_t option_count);

uint64_t bench_now_ns(void);
void *bench_memory(size_t count, size_t bytes_each); /* zeroed */

/* A connected, non-blocking stream socket on loopback (or still connecting), from a source address of 127/8 that
 * `spread` selects, so that tens of thousands of connections do not run out of ports. */
int bench_connect(unsigned port, unsigned spread);

/* When message `number` (from 0) of an open loop is due after the loop's start: number x interval_ns, moved back onto a
 * grid of grid_ns (0: none). With a grid, messages come in small bursts and their sender wakes less often. */
uint64_t bench_due_ns(double number, double interval_ns, uint64_t grid_ns);

/* CPU time of other processes, all their threads, user and system, to the nanosecond. */
struct bench_watch {
    size_t count;
    long pids[BENCH_WATCH_MAX];
    int32_t clocks[BENCH_WATCH_MAX];
    uint64_t begin_ns[BENCH_WATCH_MAX];
    uint64_t used_ns[BENCH_WATCH_MAX];
};

/* `pids`: decimal, comma between, or NULL. */
void bench_watch_open(struct bench_watch *watch, const char *pids);
void bench_watch_self(struct bench_watch *watch);
void bench_watch_begin(struct bench_watch *watch);
void bench_watch_end(struct bench_watch *watch);
/* Writes {"PID":microseconds,…} */
void bench_watch_print(const struct bench_watch *watch, FILE *out);

/* The client's message: {"type":"…","content":{…},"id":"{run}-{nine digits}"}, always the same length. */
struct bench_message {
    char *data;
    size_t bytes;
    size_t content_offset;
    size_t content_bytes;
    size_t id_offset; /* of the id without its quotes */
    size_t id_bytes;
    size_t digits_offset;
};

void bench_message_make(struct bench_message *message, const char *type, const char *run, size_t bytes);
void bench_digits(char *nine, uint64_t value);

#endif
