/* SPDX-License-Identifier: MIT */
/* The spool's format, in bytes: segment headers, records, and the search for records in a segment that may be damaged
 * in any way. doc/spool-format.md is its prose; the conditions named here are numbered there.
 *
 * Invariants: a walk goes forward only, and within the segment; it gives messages by rising sequences and marks by
 * rising R, each whole and with right checksums, whatever the bytes are. Pure: it knows no file. Memory: the caller's.
 * Thread: any one. */
#ifndef POSTERN_OUTBOX_SPOOL_FORMAT_H
#define POSTERN_OUTBOX_SPOOL_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "span.h"

enum {
    SPOOL_VERSION = 1,
    SPOOL_SEGMENT_BYTES = 2 * 1024 * 1024, /* of a gateway's spool; a test may choose less */
    SPOOL_SEGMENT_HEADER_BYTES = 64,
    SPOOL_RECORD_HEADER_BYTES = 32,
    SPOOL_RECORD_ALIGN_BYTES = 8,
    SPOOL_PAYLOAD_BYTES_MAX = 1536 * 1024,
    SPOOL_END_BYTES = 32,            /* of zeros, behind the last record */
    SPOOL_BATCH_BYTES = 1024 * 1024, /* of records in one write at most; or one record that is longer */
};

/* What a record with this payload takes. */
#define SPOOL_RECORD_BYTES(payload_bytes)                                                                              \
    (((size_t)(payload_bytes) + SPOOL_RECORD_HEADER_BYTES + SPOOL_RECORD_ALIGN_BYTES - 1) / SPOOL_RECORD_ALIGN_BYTES * \
     SPOOL_RECORD_ALIGN_BYTES)

struct spool_header {
    uint32_t version;
    uint32_t segment_bytes;
    uint64_t number;
    uint64_t first_sequence;
    uint64_t released;
    uint64_t salt;
};

enum spool_header_kind {
    SPOOL_HEADER_VALID,
    SPOOL_HEADER_UNUSED,        /* all zero: the segment was never begun */
    SPOOL_HEADER_OTHER_VERSION, /* whole, but not of this version or of this size */
    SPOOL_HEADER_DAMAGED
};

void spool_header_write(uint8_t bytes[SPOOL_SEGMENT_HEADER_BYTES], const struct spool_header *header);
enum spool_header_kind spool_header_read(const uint8_t bytes[SPOOL_SEGMENT_HEADER_BYTES], uint32_t segment_bytes,
                                         struct spool_header *header);

bool spool_is_zero(const uint8_t *bytes, size_t count);

/* Puts the header before, and the padding behind, a payload of 1 to SPOOL_PAYLOAD_BYTES_MAX bytes that stands at
 * `record` + SPOOL_RECORD_HEADER_BYTES. Returns the record's bytes. It belongs to no segment yet. */
size_t spool_record_write(uint8_t *record, uint64_t sequence, size_t payload_bytes);
/* From now on it belongs to the segment that was begun with this salt. */
void spool_record_bind(uint8_t *record, uint64_t salt);

/* Writes a mark: all up to and including `released` is released. */
void spool_mark_write(uint8_t record[SPOOL_RECORD_HEADER_BYTES], uint64_t salt, uint64_t released);

/* A message's record that spool_record_write made. */
struct span spool_record_payload(const uint8_t *record);

/* A walk through one segment. */
struct spool_scan {
    uint32_t segment_bytes;
    uint32_t payload_bytes_max; /* that the caller's buffer can hold, with the record's header */
    uint32_t offset;            /* where the next record is looked for */
    uint32_t tail_offset;       /* behind the last valid record */
    uint64_t begin_sequence;    /* of the first valid header of a message; 0: none so far */
    uint64_t sequence_min;      /* the next message's, at least (condition 7) */
    uint64_t sequence_end;      /* the next segment's first (condition 9); UINT64_MAX where there is none */
    uint64_t salt;              /* the segment's; 0: not known, and then that of the first record header */
    uint64_t released;          /* of the header and of the marks so far */
    bool is_tail_clean;         /* the end stands at tail_offset, or the segment ends there */
};

enum spool_found {
    SPOOL_FOUND_MESSAGE,
    SPOOL_FOUND_MARK,
    SPOOL_FOUND_TOO_LONG, /* a valid header of a message beyond payload_bytes_max; it is passed over */
    SPOOL_FOUND_MORE,     /* the caller has to bring the segment's bytes from `offset` on */
    SPOOL_FOUND_END       /* of the segment */
};

struct spool_record {
    uint64_t sequence; /* a mark's: R */
    uint32_t offset;
    uint32_t payload_bytes;
    struct span payload;
    bool is_behind_hole; /* what lies between this and the valid record before it is no record */
};

/* Begins behind the segment's header, of which first sequence, released and salt count; 1, 0 and 0 where it is
 * damaged. */
void spool_scan_begin(struct spool_scan *scan, uint32_t segment_bytes, uint32_t payload_bytes_max,
                      const struct spool_header *header, uint64_t sequence_end);

/* Finds the next valid record. `bytes` stand in the segment at bytes_offset, which is not behind scan->offset. After
 * SPOOL_FOUND_MORE the caller brings at least what one record of payload_bytes_max takes, or all to the segment's end;
 * so it may bring the first piece by being asked for it. */
enum spool_found spool_scan_next(struct spool_scan *scan, uint32_t bytes_offset, struct span bytes,
                                 struct spool_record *record);

#endif
