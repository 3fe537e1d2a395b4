/* SPDX-License-Identifier: MIT */
/* A port whose storage fails when the test says so, and that can lose its power.
 *
 * It wraps a real port: what is written stands in real files, at once. Besides it remembers all that was written since
 * the file's last good sync; a power cut then decides for each sector of each of these writes on its own whether it
 * reached the disk, and puts the files into that state. Jobs do not run on a thread but when the test says so, one
 * after another, so that every run of a test is the same. One at a time: the state is also the functions'. */
#ifndef POSTERN_TESTS_FAULTY_FILES_H
#define POSTERN_TESTS_FAULTY_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "port.h"

enum faulty_operation {
    FAULTY_OPEN,
    FAULTY_PREALLOCATE,
    FAULTY_READ,
    FAULTY_WRITE,
    FAULTY_SYNC,
    FAULTY_SYNC_DIRECTORY,
    FAULTY_REMOVE,
    FAULTY_LIST,
    FAULTY_LOCK,
    FAULTY_OPERATIONS
};

enum faulty_cut {
    FAULTY_CUT_KEEPS, /* a process ends: all that was written is there, until the power is cut before its sync */
    FAULTY_CUT_LOSES, /* all that was not synced */
    FAULTY_CUT_TEARS  /* each sector on its own */
};

struct faulty_rule {
    uint64_t from;        /* the operations from .. from + count - 1 of their kind fail */
    uint64_t count;       /* 0: none */
    const char *reason;   /* "Input/output error" */
    size_t written_bytes; /* of a write: so much of it is done before it fails */
};

struct faulty_files {
    struct port port; /* for the code under test */
    struct port real;
    struct faulty_rule rules[FAULTY_OPERATIONS];
    uint64_t counts[FAULTY_OPERATIONS]; /* done so far, the failed ones too */
    uint64_t change_count;              /* writes, syncs, and what else changes the disk */
    uint64_t power_until;               /* after so many of these nothing works any more; 0: no end */
    uint64_t written_bytes;
    uint64_t random;
    const char *reason; /* for error_text; NULL: the real one's */
    struct port_job *jobs[PORT_JOBS_MAX];
    size_t job_count;
    struct port_job *finished[PORT_JOBS_MAX];
    size_t finished_count;
    bool is_held; /* for the test's loop: jobs are to wait */
};

void faulty_files_open(struct faulty_files *faulty, const struct port *real, uint64_t seed);
void faulty_files_close(struct faulty_files *faulty);

/* From the next operation of that kind on, after `skip` more, `count` of them fail. */
void faulty_fail(struct faulty_files *faulty, enum faulty_operation operation, uint64_t skip, uint64_t count,
                 const char *reason);
void faulty_heal(struct faulty_files *faulty);

/* Runs the jobs that were submitted; they come back from the port's finished_job. */
void faulty_work(struct faulty_files *faulty);

static inline bool faulty_is_dead(const struct faulty_files *faulty)
{
    return faulty->power_until != 0 && faulty->change_count >= faulty->power_until;
}

/* The power is cut; what was submitted is forgotten, and all files are closed. Then there is power again. */
void faulty_cut_power(struct faulty_files *faulty, enum faulty_cut cut);

#endif
