/* SPDX-License-Identifier: MIT */
/* The inside of the POSIX port: its state, and the pieces that port_posix.c puts together.
 *
 * Invariant: one mapping holds this struct, the tables of the poller and the workers' stacks, each above a guard page.
 * Thread: the loop's, but for what says otherwise. */
#ifndef POSTERN_PORT_POSIX_INTERNAL_H
#define POSTERN_PORT_POSIX_INTERNAL_H

#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>

#include "port_posix.h"

enum {
    POSIX_ERROR_TEXT_BYTES = 256,
    POSIX_BLOCKS_MAX = 64,              /* what `memory` gave, so that close can give it back */
    POSIX_NAMES_STACK_BYTES = 262144,   /* the resolver of a C library takes up to 70 KiB of it */
    POSIX_STORAGE_STACK_BYTES = 131072, /* the least that a thread may have on 64-bit ARM; it makes system calls */
    POSIX_MAIN_STACK_BYTES = 262144,    /* touched at start; 94 KiB were ever used (start and all) */
    POSIX_SIGNALS = 4,                  /* the ones handled */
    POSIX_OTHER_HANDLES_MAX = 1024,     /* open but not watched: files, listeners set aside, what was inherited */
    POSIX_HANDLES_OWN = 8               /* standard input, output and error, and the port's own */
};

/* A ring with one writer and one reader, on different threads. */
struct posix_ring {
    struct port_job *jobs[PORT_JOBS_MAX];
    atomic_size_t put_count;
    atomic_size_t taken_count;
};

struct posix_worker {
    struct posix *posix;
    pthread_t thread;
    sem_t work; /* as many posts as jobs put, and one to stop */
    sem_t told; /* by the thread: that it runs, and later that it takes no more jobs */
    atomic_bool stopping;
    struct posix_ring submitted; /* loop to worker */
    struct posix_ring finished;  /* worker to loop */
    size_t out_count;            /* submitted and not yet back at the loop */
    bool running;
    char error[POSIX_ERROR_TEXT_BYTES];
};

/* Watched sockets stand densely in `polls` from index 1 (0 is the wake-up), each with its token beside it. */
struct posix_poller {
    bool epoll;
    int epoll_fd;
    struct pollfd *polls;
    uint64_t *tokens;
    uint32_t *index_by_fd; /* 0: not watched */
    size_t handle_max;     /* entries in index_by_fd */
    size_t watch_max;
    size_t watch_count;
    size_t scan_index; /* poll: where the next look at the results begins, so that none starves */
};

struct posix_block {
    void *memory;
    size_t bytes;
};

struct posix {
    void *mapping;
    size_t mapping_bytes;
    struct posix_poller poller;
    struct posix_worker workers[PORT_LANE_COUNT];
    int wake_read_fd;
    int wake_write_fd;
    atomic_bool wake_pending; /* a byte is, or will at once be, in the pipe */
    atomic_uint signals;      /* PORT_SIGNAL_* seen and not yet asked for */
    bool owns_signals;
    bool sealed;
    void (*heap)(struct port_heap *heap); /* NULL: malloc asks the system */
    struct sigaction previous_actions[POSIX_SIGNALS];
    struct posix_block blocks[POSIX_BLOCKS_MAX];
    size_t block_count;
    char loop_error[POSIX_ERROR_TEXT_BYTES];
};

/* Notes "what: reason" as this thread's error text, with errno's reason. Returns PORT_FAILED. Any thread. */
enum port_result posix_failed(struct posix *posix, const char *what);
/* The same with a reason in words. */
enum port_result posix_failed_because(struct posix *posix, const char *what, const char *reason);

/* posix_wake.c: makes a `wait` that blocks, or the next one, return. Any thread, signal handlers too. */
bool posix_wake_open(struct posix *posix);
void posix_wake_close(struct posix *posix);
void posix_wake(void *context);
/* After wake_read_fd was found readable: forgets the wake-ups. */
void posix_wake_clear(struct posix *posix);

/* posix_signal.c */
bool posix_signal_open(struct posix *posix, bool defers);
void posix_signal_close(struct posix *posix);

/* posix_seal.c */
bool posix_seal(void *context);

/* posix_worker.c. `stack` is not used by anything else until after close. */
bool posix_worker_open(struct posix *posix, enum port_lane lane, void *stack, size_t stack_bytes);
/* The worker whose thread this is; NULL on the loop's. */
struct posix_worker *posix_worker_self(void);
/* Ends all of them. False when a job runs and goes on running: its worker ends after it, on its own. */
bool posix_workers_close(struct posix *posix);
bool posix_submit_job(void *context, struct port_job *job);
struct port_job *posix_finished_job(void *context);

/* posix_poller.c. The tables stand in `memory`, zeroed, of posix_poller_bytes(watch_max). */
size_t posix_poller_bytes(size_t watch_max);
bool posix_poller_open(struct posix *posix, enum port_posix_poller kind, size_t watch_max, void *memory);
void posix_poller_close(struct posix *posix);
enum port_result posix_watch_add(void *context, port_socket socket, uint32_t interest, uint64_t token);
void posix_watch_change(void *context, port_socket socket, uint32_t interest);
void posix_watch_remove(void *context, port_socket socket);
size_t posix_wait(void *context, struct port_event *events, size_t event_max, int64_t timeout_ms);

/* posix_epoll.c; on systems without epoll, opening it fails. */
bool posix_epoll_open(struct posix *posix);
void posix_epoll_close(struct posix *posix);
bool posix_epoll_add(struct posix *posix, int fd, short poll_events);
void posix_epoll_change(struct posix *posix, int fd, short poll_events);
void posix_epoll_remove(struct posix *posix, int fd);
size_t posix_epoll_wait(struct posix *posix, struct port_event *events, size_t event_max, int timeout_ms);

/* posix_address.c */
struct sockaddr;
struct sockaddr_storage;
size_t posix_address_to_native(const struct port_address *address, struct sockaddr_storage *native);
bool posix_address_from_native(const struct sockaddr *native, struct port_address *address);
void posix_format_address(void *context, const struct port_address *address, char text[PORT_ADDRESS_TEXT_BYTES]);
bool posix_parse_address(void *context, const char *host, uint16_t port, struct port_address *address);
size_t posix_resolve(void *context, const char *host, uint16_t port, struct port_address *addresses,
                     size_t address_max);

/* posix_socket.c, posix_file.c, posix_storage.c: fill their part of the table. */
void posix_socket_functions(struct port *port);
void posix_file_functions(struct port *port);
void posix_storage_functions(struct port *port);

/* posix_file.c: open, close-on-exec and not given up because of a signal; -1 with errno. */
int posix_open_file(const char *path, int flags);
/* posix_storage.c: the names in a directory are on the disk; false with errno. */
bool posix_sync_directory(const char *path);

/* posix_storage.c: locks a file until its close, without waiting; false with errno, EWOULDBLOCK when another has it. */
bool posix_lock(int fd);

#endif
