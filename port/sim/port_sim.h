/* SPDX-License-Identifier: MIT */
/* The simulated port: a machine, its network, its disk and its clock, all driven by one seed.
 *
 * Time stands still while the program runs and jumps to the next event while it waits, so that an idle hour costs
 * nothing. The far ends of all connections are the owner's: it is told of what comes and moves bytes itself. Everything
 * that can differ between two runs (delays, how many bytes a call moves, which faults strike) is drawn from the seed,
 * in an order that depends on nothing but the calls made; so the same seed gives the same run on every machine.
 *
 * A call of the program is a point where it can be killed: sim_crash_after counts calls down, and on_crash then leaves
 * by longjmp. Not counted are wake and the calls that have no effect here: print, seal, heap, read_file, error_text,
 * names and addresses. sim_end_machine puts the machine into the state that a kill or a power cut leaves: connections
 * are gone, and of what was written and not synced each sector is there, is not, or is torn, on its own.
 *
 * Invariants: events run only while the program waits, or while the owner lets time pass; nothing depends on addresses,
 * word size or byte order. Memory: one block of the owner's, with tables of fixed size. Where the program can be told
 * that there is no more it is told (links; sim_connect gives none either); more events, files, pages, bytes of a file
 * or of a path than there is room for end the process by CHECK, because a run that went on without would prove nothing.
 * Thread: one. */
#ifndef POSTERN_PORT_SIM_H
#define POSTERN_PORT_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "port.h"

struct sim;

enum {
    SIM_US = 1000,
    SIM_MS = 1000000, /* ns */
    SIM_LISTENER_PORT = 8000,
    SIM_SECTOR_BYTES = 512
};
#define SIM_S (UINT64_C(1000000000)) /* ns */

/* What a fault's chance is counted in: parts of a million. */
enum { SIM_ALWAYS = 1000000 };

/* How the machine treats the program. All zero: fast, and without a fault. */
struct sim_weather {
    /* Network. */
    uint64_t delay_ns_min; /* of a piece of bytes, each way */
    uint64_t delay_ns_max;
    uint32_t partial_ppm;       /* a send or receive moves only a part of what it could */
    uint32_t connect_fails_ppm; /* the program's connect is refused */
    uint32_t accept_fails_ppm;  /* there is no handle for a newcomer */
    /* Disk. */
    uint32_t write_fails_ppm;
    uint32_t sync_fails_ppm;
    uint32_t read_fails_ppm;   /* of more than a page at once; while the program starts, now and then of anything */
    uint32_t folder_fails_ppm; /* making, listing, locking, syncing a folder; preallocating */
    /* Worker and loop. */
    uint64_t job_ns_min; /* between submission and run, and again between run and return */
    uint64_t job_ns_max;
    uint32_t stall_ppm; /* a turn of the loop takes up to stall_ns_max */
    uint64_t stall_ns_max;
    uint32_t resolve_fails_ppm;
};

/* What the owner hears of a link's far end. */
enum sim_news {
    SIM_OPENED,   /* the program accepted, or the connect arrived */
    SIM_REFUSED,  /* nobody listens; the link is gone */
    SIM_READABLE, /* bytes came */
    SIM_WRITABLE, /* there is room again after sim_send took less than all */
    SIM_ENDED,    /* the program ended its side, after all its bytes */
    SIM_RESET     /* the connection is gone */
};

/* How a connect of the program is met. */
enum sim_welcome { SIM_TAKE, SIM_REFUSE, SIM_IGNORE };

enum sim_death { SIM_KILLED, SIM_POWER_CUT };

struct sim_handler {
    /* The program connects to an address; SIM_TAKE makes `link` the owner's too. */
    enum sim_welcome (*on_connect)(void *context, uint32_t link, const struct port_address *address);
    void (*on_news)(void *context, uint32_t link, enum sim_news news);
    /* The program sent: the truth at its own door, before anything arrives. At least one byte, alive for the call. */
    void (*on_near_sent)(void *context, uint32_t link, const uint8_t *data, size_t bytes);
    /* The program closed its end, or ended with it open. What it receives nobody is told; see sim_knowledge. */
    void (*on_near_closed)(void *context, uint32_t link);
    /* A turn is over: all that it had to say was said. */
    void (*on_turn)(void *context);
    /* The program's log; alive for the call. */
    void (*on_log)(void *context, const uint8_t *lines, size_t bytes);
    /* A note for the trace; `what` lives for the call. */
    void (*on_note)(void *context, const char *what, uint64_t a, uint64_t b);
    /* The program is to end here; does not return. */
    void (*on_crash)(void *context);
    /* The program broke the port's contract; does not return. */
    void (*on_misuse)(void *context, const char *what);
};

/* ---- the machine ---- */

size_t sim_memory_bytes(void);
/* Begins anew in the block; the handler and the weather stay alive. */
struct sim *sim_begin(void *memory, uint64_t seed, const struct sim_handler *handler, void *context);
struct port *sim_port(struct sim *sim);
struct sim_weather *sim_weather(struct sim *sim);

/* Memory for the program's next start: what port->memory will give. */
void sim_give_memory(struct sim *sim, void *memory, size_t bytes);

uint64_t sim_now_ns(const struct sim *sim);
/* The wall clock jumps by so much. */
void sim_shift_wall(struct sim *sim, int64_t shift_ms);
/* Runs events up to a time, while no program runs. */
void sim_pass(struct sim *sim, uint64_t until_ns);
/* Calls `run` at a time. */
void sim_at(struct sim *sim, uint64_t due_ns, void (*run)(void *context, uint64_t argument), void *context,
            uint64_t argument);

void sim_signal(struct sim *sim, uint32_t signals);
/* The program crashes in its calls-th call from now, on the loop or on the worker. 0: not. */
void sim_crash_after(struct sim *sim, uint64_t calls);
/* From now on storage may only be touched by the worker; until sim_allow_blocking(sim, true). */
void sim_allow_blocking(struct sim *sim, bool is_allowed);
/* After a crash, or the program's own end. */
void sim_end_machine(struct sim *sim, enum sim_death death);

/* Into the trace, and its hash. */
void sim_note(struct sim *sim, const char *what, uint64_t a, uint64_t b);
void sim_note_bytes(struct sim *sim, const uint8_t *bytes, size_t count);
uint64_t sim_hash(const struct sim *sim);

/* ---- chance ---- */

uint64_t sim_random(struct sim *sim);
uint64_t sim_between(struct sim *sim, uint64_t low, uint64_t high); /* both included */
/* The same, with all orders of magnitude alike. */
uint64_t sim_magnitude(struct sim *sim, uint64_t low, uint64_t high);
bool sim_chance(struct sim *sim, uint32_t ppm);

/* ---- the far ends ---- */

/* Connects to the program; SIM_OPENED or SIM_REFUSED follows. UINT32_MAX: no link is left. */
uint32_t sim_connect(struct sim *sim);
/* Takes what there is room for; SIM_WRITABLE follows when it was not all. */
size_t sim_send(struct sim *sim, uint32_t index, const void *data, size_t bytes);
/* Gives at most what one send of the program brought; 0: nothing is there. */
size_t sim_receive(struct sim *sim, uint32_t index, void *buffer, size_t bytes);
/* What the program had read of the far end's bytes when it made the next byte that sim_receive gives: at least up to
 * where it was when its last whole send before was through, and at most up to where it was when it sent the byte. */
void sim_knowledge(const struct sim *sim, uint32_t index, uint64_t *at_least, uint64_t *at_most);
/* How many of the far end's bytes the program has read. */
uint64_t sim_near_read_bytes(const struct sim *sim, uint32_t index);
/* The program has bytes to send that did not fit, as far as can be seen from outside. */
bool sim_near_is_stuffed(const struct sim *sim, uint32_t index);
/* Ends our side in good order; all of it; or lets nothing through any more, with nobody told. After SIM_ENDED or
 * SIM_RESET too a link is to be closed, and is dead then. */
void sim_finish(struct sim *sim, uint32_t index);
void sim_close(struct sim *sim, uint32_t index);
void sim_reset(struct sim *sim, uint32_t index);
void sim_cut(struct sim *sim, uint32_t index);

/* ---- the disk ---- */

/* Bytes of all files in a folder. */
uint64_t sim_folder_bytes(const struct sim *sim, const char *folder);

#endif
