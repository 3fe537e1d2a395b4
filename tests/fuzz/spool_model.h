/* SPDX-License-Identifier: MIT */
/* A second reading of a spool's segment, straight from the prose of doc/spool-format.md, for comparison: the whole
 * segment is there, numbers are put together byte by byte, and the CRC goes bit by bit.
 *
 * Pure. Memory: the caller's. Thread: any one. */
#ifndef POSTERN_TESTS_SPOOL_MODEL_H
#define POSTERN_TESTS_SPOOL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "span.h"

struct spool_model_header {
    uint64_t number;
    uint64_t first_sequence;
    uint64_t released;
    uint64_t salt;
};

/* Conditions 1 to 4; a header of zeros is not valid either. */
bool spool_model_header(struct span segment, struct spool_model_header *header);

enum spool_model_kind { SPOOL_MODEL_MESSAGE, SPOOL_MODEL_MARK, SPOOL_MODEL_TOO_LONG };

enum { SPOOL_MODEL_RECORDS_MAX = 64 };

struct spool_model_record {
    enum spool_model_kind kind;
    uint64_t sequence; /* a mark's: R */
    uint64_t salt;
    size_t offset;
    struct span payload;
};

struct spool_model {
    size_t count;
    struct spool_model_record records[SPOOL_MODEL_RECORDS_MAX];
    uint64_t begin_sequence; /* of the first valid header of a message; 0: none */
    size_t tail_offset;      /* behind the last valid record */
    bool has_end;            /* the end stands there, or the segment ends */
};

/* All records that conditions 5 to 9 let be; sequence_end is the first sequence of the segment behind this. Of a header
 * that is damaged the first sequence is 1, released and salt are 0. */
void spool_model_read(struct spool_model *model, struct span segment, size_t payload_bytes_max,
                      const struct spool_model_header *header, uint64_t sequence_end);

/* Whether a message of that sequence and payload stands anywhere in the segment, with both checksums right. */
bool spool_model_holds(struct span segment, uint64_t sequence, struct span payload);

/* The next place at or behind *offset where a header's checksum is right, of a message or a mark, whatever the others
 * say; *offset goes behind it. False: there is none. */
bool spool_model_next(struct span segment, size_t *offset, struct spool_model_record *record);

#endif
