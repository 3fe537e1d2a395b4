/* SPDX-License-Identifier: MIT */
/* A port for fuzzers, in memory and the same at every run: a clock that stands, random bytes that are not, a log that
 * is looked at and thrown away, jobs that are done when they are submitted, and storage of a few files. Sockets are a
 * fuzzer's own.
 *
 * Thread: one; there is one such port. */
#ifndef POSTERN_TESTS_FUZZ_PORT_H
#define POSTERN_TESTS_FUZZ_PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "port.h"

enum { FUZZ_FILES = 12, FUZZ_FILE_BYTES = 1024 };

/* The spool's files, by their number: 00000.segment and so on. */
struct fuzz_file {
    bool is_there;
    size_t bytes;
    uint8_t data[FUZZ_FILE_BYTES];
};
extern struct fuzz_file fuzz_files[FUZZ_FILES];

struct fuzz_port_counts {
    size_t write_count; /* to storage */
    size_t open_count;  /* files that are open now, the log's and the lock too */
};
extern struct fuzz_port_counts fuzz_port_counts;

/* What its random bytes are made of; a fuzzer sets it for each input, to anything but 0. */
extern uint64_t fuzz_port_seed;

/* The port, without sockets; no job is under way, nothing is open. The files stay as they are. */
struct port fuzz_port(void);

#endif
