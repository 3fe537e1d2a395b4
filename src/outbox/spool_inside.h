/* SPDX-License-Identifier: MIT */
/* The inside of the spool: its state, and what its files have of each other.
 *
 * Invariants: a job's struct is the worker's while is_out is set; the stage's records that a write has are not moved
 * before it came back. Memory: from the arena. Thread: the loop's, but for the jobs' run functions. */
#ifndef POSTERN_OUTBOX_SPOOL_INSIDE_H
#define POSTERN_OUTBOX_SPOOL_INSIDE_H

#include "port.h"
#include "spool.h"
#include "spool_format.h"

enum {
    SPOOL_PATH_BYTES = SPOOL_DIRECTORY_BYTES_MAX + sizeof("/00000.segment"),
    SPOOL_ERROR_BYTES = 128,
    SPOOL_PAGE_BYTES = 4096, /* what is given up where it cannot be read */
    SPOOL_READ_BYTES_MIN = 256 * 1024,
    SPOOL_NO_SEGMENT = UINT32_MAX
};

enum spool_segment_state {
    SPOOL_SEGMENT_ABSENT,
    SPOOL_SEGMENT_FREE,
    SPOOL_SEGMENT_WRITTEN, /* the one that is appended to */
    SPOOL_SEGMENT_KEPT,    /* holds messages that are not released */
    SPOOL_SEGMENT_STATE_COUNT
};

struct spool_segment {
    uint64_t number;         /* 0: never begun, or not known */
    uint64_t salt;           /* that it was begun with */
    uint64_t first_sequence; /* of the next message, where it has none */
    uint64_t last_sequence;  /* of what is synced; first_sequence - 1 where it has none */
    uint32_t end_offset;     /* behind what is synced */
    uint16_t failure_count;
    uint8_t state;
    bool is_there; /* these two are of use at start alone */
    bool is_header_damaged;
};

/* Records in the order of their sequences, each whole, in a ring. */
struct spool_stage {
    uint8_t *bytes;
    size_t bytes_max;
    size_t start;            /* of the first record */
    size_t end;              /* where the next record goes */
    size_t wrap;             /* where the ring's unused end begins; bytes_max when it has none */
    size_t last;             /* of the last record */
    uint64_t first_sequence; /* of the first record; next_sequence when there is none */
    uint64_t next_sequence;
    size_t record_bytes_max;
};

enum spool_writing {
    SPOOL_WRITING_READY,  /* what comes will be submitted */
    SPOOL_WRITING_OUT,    /* the worker writes */
    SPOOL_WRITING_PAUSED, /* it failed; until retry_ms */
    SPOOL_WRITING_COUNT
};

struct spool_write {
    struct port_job job;
    const struct port *port;
    char path[SPOOL_PATH_BYTES];
    port_file file;       /* PORT_NONE: to be opened */
    port_file file_ended; /* of the segment before; to be closed */
    uint32_t offset;      /* of mark and records */
    uint32_t end_offset;  /* behind them */
    uint64_t last_sequence;
    uint64_t released; /* that this write marks; 0: none */
    uint8_t header[SPOOL_SEGMENT_HEADER_BYTES];
    uint8_t mark[SPOOL_RECORD_HEADER_BYTES];
    struct span records[2];
    bool has_header;
    bool has_mark;
    bool has_end; /* there is room for the end */
    bool is_to_sync;
    bool has_failed;
    char error[SPOOL_ERROR_BYTES];
};

/* A file that is read, and how long it is. */
struct spool_file {
    port_file file;
    uint64_t bytes;
};

struct spool_read {
    struct port_job job;
    const struct port *port;
    char path[SPOOL_PATH_BYTES];
    struct spool_file file; /* PORT_NONE: to be opened */
    port_file file_ended;
    uint8_t *buffer;
    size_t buffer_bytes_max;
    uint32_t offset; /* in the segment, of the buffer */
    size_t bytes;
    size_t unreadable_bytes;
    char error[SPOOL_ERROR_BYTES];
    bool is_gone; /* there is no such file */
    bool is_out;
    bool is_waiting;   /* until retry_ms, because it failed */
    uint64_t retry_ms; /* with is_waiting */
    uint64_t
        retry_wait_ms; /* the last one, doubled after each failure; beyond the bound what cannot be read is given up */

    uint32_t segment_index;      /* that is walked; SPOOL_NO_SEGMENT: none */
    uint32_t file_segment_index; /* whose file is open */
    struct spool_scan scan;
};

struct spool {
    struct port *port;
    struct log *log;
    struct spool_options options;
    const struct spool_handler *handler;
    void *context;
    struct spool_counters counters;

    struct spool_segment *segments; /* by file number; SPOOL_SEGMENTS_MAX */
    uint32_t segment_end;           /* behind the highest that is not absent */
    uint32_t segment_count;         /* that may be written */
    uint32_t free_count;            /* of these, free */
    uint32_t written_index;         /* SPOOL_NO_SEGMENT: the next write begins one */
    uint32_t oldest_index;          /* kept or written, with the lowest sequences; SPOOL_NO_SEGMENT: none */
    uint32_t last_index;            /* begun last: the search for a free one goes on behind it */
    uint64_t next_number;
    port_file lock;

    uint64_t own_sequence;      /* the first of this start */
    uint64_t read_sequence;     /* the next to be read */
    uint64_t released_sequence; /* up to and including */
    uint64_t marked_sequence;   /* up to where the disk knows it */
    uint64_t written_sequence;  /* the last that was ever given to the disk */
    struct spool_stage stage;
    size_t read_stage_at;     /* of the record before read_sequence, while the stage has it */
    struct span read_payload; /* of read_sequence, where the reader stands on it; data is NULL elsewhere */

    enum spool_writing writing;
    struct spool_write write;
    uint64_t retry_ms;
    uint64_t retry_wait_ms; /* after the next failure */
    bool is_written;        /* nothing is to be written, or nothing can be */
    bool is_mark_unsynced;  /* the last write was a mark that may not be on the disk */
    bool is_closing;

    struct spool_read read;
};

/* spool.c */
void spool_segment_path(const struct spool *spool, uint32_t index, char path[SPOOL_PATH_BYTES]);
/* The kept or written segment with the lowest sequences that has one at or above `sequence`. */
uint32_t spool_find_segment(const struct spool *spool, uint64_t sequence);
void spool_set_state(struct spool *spool, uint32_t index, enum spool_segment_state state);
/* A segment that is not written any more: kept, or free if it has no message that is not released. */
void spool_retire(struct spool *spool, uint32_t index);
void spool_note_lost(struct spool *spool, uint64_t first, uint64_t last, const char *cause);

/* spool_stage.c */
void spool_stage_init(struct spool_stage *stage, uint8_t *bytes, size_t bytes_max, size_t record_bytes_max);
/* An empty stage goes on with this sequence. */
void spool_stage_begin(struct spool_stage *stage, uint64_t sequence);
static inline bool spool_stage_is_empty(const struct spool_stage *stage)
{
    return stage->first_sequence == stage->next_sequence;
}
/* Of the ring that cannot be used now, its unused end too. */
size_t spool_stage_bytes(const struct spool_stage *stage);
/* Of the records alone. */
size_t spool_stage_records_bytes(const struct spool_stage *stage);
uint8_t *spool_stage_reserve(struct spool_stage *stage, size_t payload_bytes);
uint64_t spool_stage_append(struct spool_stage *stage, size_t payload_bytes);
/* Where the record behind this one stands; there is one. */
size_t spool_stage_after(const struct spool_stage *stage, size_t at);
/* The first record leaves. */
void spool_stage_pop(struct spool_stage *stage);

/* spool_write.c */
void spool_write_turn(struct spool *spool, uint64_t now_ms);
void spool_write_done(struct spool *spool, uint64_t now_ms);

/* spool_secure.c */
/* Sees to it that what recovery found is on the disk; a segment where that fails is read, and not written on. Blocks.
 */
void spool_secure_segments(struct spool *spool);

/* spool_read.c */
/* Returns when it wants to be called again at the latest. */
uint64_t spool_read_turn(struct spool *spool, uint64_t now_ms);
void spool_read_done(struct spool *spool, uint64_t now_ms);
/* Reads a piece of a segment. What lies behind a short file's end is zero; pages that cannot be read become zeros too,
 * and are counted. Any thread. */
void spool_read_piece(const struct port *port, const struct spool_file *file, uint32_t offset, uint8_t *buffer,
                      size_t bytes, size_t *unreadable_bytes);

#endif
