/* SPDX-License-Identifier: MIT */
/* The inside of the simulated port, shared by its files. Memory: the owner's block. Thread: one. */
#ifndef POSTERN_PORT_SIM_INSIDE_H
#define POSTERN_PORT_SIM_INSIDE_H

#include "check.h"
#include "port_sim.h"

enum {
    SIM_LINKS_MAX = 96,
    SIM_STREAM_BYTES = 32768, /* both sockets' buffers and the wire between */
    SIM_PIECES_MAX = 32,
    SIM_EVENTS_MAX = 2048,
    SIM_FILES_MAX = 80,
    SIM_FILE_PAGES_MAX = 512,
    SIM_PAGES_MAX = 2400,
    SIM_PAGE_BYTES = 4096,
    SIM_PAGE_SECTORS = SIM_PAGE_BYTES / SIM_SECTOR_BYTES,
    SIM_PATH_BYTES = 96,
    SIM_HANDLE_LISTENER = 3,
    SIM_HANDLE_LOG = 4,
    SIM_HANDLE_FILES = 1000, /* and above */
    SIM_HANDLE_LINKS = 10,   /* and above */
    SIM_WATCHES_MAX = SIM_LINKS_MAX + 1
};

/* ---- clock ---- */

struct sim_event {
    uint64_t due_ns;
    uint64_t order; /* of events at the same time */
    void (*run)(void *context, uint64_t argument);
    void *context;
    uint64_t argument;
};

/* ---- network ---- */

/* Bytes up to `end` that arrive together. */
struct sim_piece {
    uint64_t end;
    uint64_t due_ns;
    uint64_t sent_ns;
    uint64_t known_bytes; /* had been read when these surely were not made yet, */
    uint64_t read_bytes;  /* and when they were sent */
};

/* One direction. Positions count bytes from the link's beginning. */
struct sim_stream {
    uint64_t written;
    uint64_t arrived;
    uint64_t taken;
    struct sim_piece pieces[SIM_PIECES_MAX]; /* on their way or arrived and not taken; a ring */
    uint32_t piece_first;
    uint32_t piece_count;
    uint64_t last_due_ns;
    uint64_t end_due_ns; /* of the end, once it was written */
    bool is_end_written;
    bool has_end_arrived;
    bool is_scheduled; /* an arrival is */
    bool was_short;    /* the last send took less than all */
    uint8_t bytes[SIM_STREAM_BYTES];
};

enum sim_link_state { SIM_LINK_FREE, SIM_LINK_CONNECTING, SIM_LINK_OPEN, SIM_LINK_RESET };

struct sim_link {
    enum sim_link_state state;
    uint32_t generation;
    bool is_near_alive; /* the program has a handle, or will get one by accept */
    bool is_far_alive;
    bool is_from_near;
    bool is_waiting_accept;
    uint64_t accept_order;
    uint64_t patience_ns; /* 0: without end */
    bool is_waited_for;   /* an event of its patience is scheduled */
    bool is_cut;
    bool is_watched;
    uint32_t interest;
    uint64_t token;
    uint64_t clean_known_bytes; /* read by the program when its last whole send was through */
    uint16_t peer_port;
    struct sim_stream up;   /* from the program */
    struct sim_stream down; /* to it */
};

/* ---- disk ---- */

struct sim_page {
    uint8_t cache[SIM_PAGE_BYTES];
    uint8_t disk[SIM_PAGE_BYTES];
    uint8_t dirty; /* sectors that the next good sync writes */
    uint8_t stale; /* sectors that a failed sync threw away: the cache shows them, the disk has not got them */
};

enum { SIM_NO_PAGE = 0xFFFF };

struct sim_file {
    char path[SIM_PATH_BYTES];
    bool is_there;
    bool is_name_synced; /* is_there outlives a power cut */
    bool is_locked;
    uint64_t bytes;
    uint64_t synced_bytes;
    uint16_t pages[SIM_FILE_PAGES_MAX];
};

struct sim_disk {
    struct sim_file files[SIM_FILES_MAX];
    uint32_t file_count;
    struct sim_page pages[SIM_PAGES_MAX];
    uint32_t page_count;
};

/* ---- workers ---- */

struct sim_lane {
    struct port_job *jobs[PORT_JOBS_MAX]; /* submitted and not done, in order */
    size_t job_count;
    size_t out_count; /* with those that are done and were not handed back */
};

/* ---- all of it ---- */

struct sim {
    struct port port;
    const struct sim_handler *handler;
    void *context;
    struct sim_weather weather;
    uint64_t random[2]; /* the world's, and the program's own */
    uint64_t hash;
    const char *error;
    uint64_t calls_left; /* until the crash; 0: none */
    bool is_blocking_allowed;
    uint64_t unreadable_count; /* opens and reads at start that are going to fail */
    bool is_on_worker;
    uint32_t signals;
    bool is_woken;
    void *memory;
    size_t memory_bytes;

    uint64_t now_ns;
    int64_t wall_shift_ms;
    uint64_t next_order;
    struct sim_event events[SIM_EVENTS_MAX]; /* a heap */
    size_t event_count;

    struct sim_link links[SIM_LINKS_MAX];
    uint32_t link_end; /* behind the last that was ever used */
    bool is_listening;
    bool is_listener_watched;
    uint32_t listener_interest;
    uint64_t listener_token;

    struct sim_lane lanes[PORT_LANE_COUNT];
    struct port_job *finished[PORT_JOBS_MAX * PORT_LANE_COUNT];
    size_t finished_count;
    uint32_t worker_generation; /* one for each life of the machine */

    struct sim_disk disk;
};

/* Each port call begins with it. */
void sim_enter(struct sim *sim);
enum port_result sim_fail(struct sim *sim, const char *error);
void sim_misuse(struct sim *sim, const char *what);

/* Runs what is due now; and time passes to the next event, at most to `until_ns`. False: nothing is due before. */
void sim_run_due(struct sim *sim);
bool sim_step(struct sim *sim, uint64_t until_ns);

void sim_clock_functions(struct port *port);
void sim_net_functions(struct port *port);
void sim_file_functions(struct port *port);
void sim_worker_functions(struct port *port);
size_t sim_ready(struct sim *sim, struct port_event *events, size_t event_max);
void sim_net_end(struct sim *sim, enum sim_death death);
void sim_disk_begin(struct sim *sim);
void sim_disk_end(struct sim *sim, enum sim_death death);
void sim_worker_end(struct sim *sim);

/* The disk under the files. */
struct sim_file *sim_file_find(struct sim *sim, const char *path);
struct sim_file *sim_file_make(struct sim *sim, const char *path);
void sim_file_write(struct sim *sim, struct sim_file *file, uint64_t offset, const uint8_t *data, size_t bytes);
void sim_file_read(struct sim *sim, const struct sim_file *file, uint64_t offset, uint8_t *buffer, size_t bytes);
void sim_file_sync(struct sim *sim, struct sim_file *file);
void sim_file_lose(struct sim *sim, struct sim_file *file);

#endif
