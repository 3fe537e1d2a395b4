/* SPDX-License-Identifier: MIT */
/* What Postern asks of the machine under it: a clock, random bytes, memory, stream sockets with a poller, files, and
 * a worker thread for each kind of work that can block. All else in the program is pure and gets time and bytes as
 * arguments.
 *
 * A port is this struct of functions and the context they take; a program receives it at start and names no
 * operating system anywhere else. port/posix holds the real one, over poll() or epoll.
 *
 * Invariants: no call but `resolve` and those on storage blocks, and `wait` blocks for at most its timeout. A handle is
 * used by one owner, in one thread at a time, and is dead after its close. Thread: all calls come from the loop's
 * thread, except `wake` (any) and the body of a job (a worker), which may call `resolve`, what is on storage,
 * `close_file` and `error_text`. Memory: the port's own is fixed at start. */
#ifndef POSTERN_PORT_H
#define POSTERN_PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How a transfer ends: progress, try later, or dead. */
enum port_result {
    PORT_OK,     /* progress: at least one byte, or the thing asked for */
    PORT_AGAIN,  /* nothing now: wait until the poller says ready */
    PORT_CLOSED, /* the peer ended its side in good order */
    PORT_FAILED  /* dead, or refused; `error_text` says why */
};

/* A socket and a file. On POSIX the file descriptor, so that an adapter whose library owns a descriptor (libpq) can
 * have it watched. */
typedef int32_t port_socket;
typedef int32_t port_file;
enum { PORT_NONE = -1 };

enum { PORT_ADDRESS_TEXT_BYTES = 56 }; /* "[v6]:port" and a terminator */

struct port_address {
    uint8_t bytes[16]; /* network order; an IPv4 address uses the first four */
    uint16_t port;     /* host order */
    bool v6;
};

/* What the poller watches for and reports. PORT_HANGUP is always reported: the stream is dead in both directions, and
 * no earlier. A peer that ended only its own side is no hangup, whatever the interest: its end is read, with
 * PORT_READ, as the PORT_CLOSED behind the last of its bytes. */
enum { PORT_READ = 1, PORT_WRITE = 2, PORT_HANGUP = 4 };

struct port_event {
    uint64_t token; /* as given to watch_add */
    uint32_t ready; /* PORT_READ | PORT_WRITE | PORT_HANGUP */
};

/* What the world asked the program to do since the last look. */
enum { PORT_SIGNAL_STOP = 1, PORT_SIGNAL_REOPEN = 2 };

/* Jobs of one lane run one after another, each lane on a thread of its own: a name that does not resolve, for as long
 * as the network is away, must not hold up what is to be synced just then. */
enum port_lane {
    PORT_LANE_STORAGE, /* reads, writes and syncs */
    PORT_LANE_NAMES,   /* names that become addresses */
    PORT_LANE_COUNT
};

/* Work for a worker thread. The submitter owns it and leaves it alone until it is handed back. */
struct port_job {
    void (*run)(struct port_job *job); /* on the lane's worker */
    void *context;
    enum port_lane lane;
};

/* The fixed block that libraries' allocations (malloc) come from. */
struct port_heap {
    size_t capacity_bytes; /* 0: there is none, malloc asks the system; the rest is then 0 too */
    size_t used_bytes;     /* now, headers included */
    size_t peak_bytes;     /* the most there ever was */
    uint64_t refused_count;
};

struct port {
    void *context;

    /* Monotonic time in nanoseconds since some start; never goes back. */
    uint64_t (*now_ns)(void *context);
    /* Unix time in milliseconds; may jump. */
    int64_t (*wall_ms)(void *context);
    /* Fills `bytes` bytes with cryptographically strong random. Cannot fail after start. */
    void (*random)(void *context, void *buffer, size_t bytes);
    /* One zeroed block of memory, page-aligned and already touched, so that too little memory fails here and not
     * later; NULL when there is none. Lives as long as the program. */
    void *(*memory)(void *context, size_t bytes);
    /* Tells how it stands with the libraries' block. */
    void (*heap)(void *context, struct port_heap *heap);
    /* Forbids the whole process, for good, to get more memory from the system or to give any back: whoever tries ends
     * the program. After everything is set up; `memory` must not be called any more. False when it cannot be
     * (error_text says why): all goes on as before, only without that guard. */
    bool (*seal)(void *context);
    /* Asks that `count` sockets and files may be open at once. False when the machine allows fewer. */
    bool (*reserve_handles)(void *context, size_t count);
    /* Text for the last PORT_FAILED of this thread, without newline; static or overwritten by the next failure. */
    const char *(*error_text)(void *context);
    /* PORT_SIGNAL_* seen since the last call. */
    uint32_t (*signals)(void *context);

    /* Stream sockets: non-blocking, close-on-exec, no delay (Nagle off). */
    enum port_result (*listen)(void *context, const struct port_address *address, port_socket *socket);
    /* PORT_FAILED means that this machine has no handle or memory for one more. The listener is well and the
     * newcomer still waits in its queue, so the poller goes on reporting it: stop watching the listener for a while.
     * A newcomer that gave up in the queue is passed over in silence. */
    enum port_result (*accept)(void *context, port_socket listener, port_socket *socket, struct port_address *peer);
    /* Begins a connect (PORT_OK: begun); the socket becomes writable when it is decided, then `connected` tells how
     * (PORT_AGAIN: not yet decided). */
    enum port_result (*connect)(void *context, const struct port_address *address, port_socket *socket);
    enum port_result (*connected)(void *context, port_socket socket);
    /* `bytes` is not 0. A connection that was reset is PORT_FAILED, never PORT_CLOSED. */
    enum port_result (*receive)(void *context, port_socket socket, void *buffer, size_t bytes, size_t *received_bytes);
    enum port_result (*send)(void *context, port_socket socket, const void *data, size_t bytes, size_t *sent_bytes);
    /* For how long what was sent may wait for the peer's machine to take it; after that the stream is dead
     * (PORT_HANGUP, PORT_FAILED). So a peer whose machine is gone without a word is found by sending to it. Until it is
     * set, and where a system cannot be told, the system's own patience holds, which may be a quarter of an hour. */
    void (*set_patience)(void *context, port_socket socket, uint32_t patience_ms);
    /* Ends our side's sending; what the peer still sends can be read. */
    void (*shutdown_send)(void *context, port_socket socket);
    void (*close_socket)(void *context, port_socket socket);
    /* The address a listener is bound to (its port when 0 was asked for). */
    enum port_result (*local_address)(void *context, port_socket socket, struct port_address *address);

    /* The poller, level-triggered. A watched socket is removed before it is closed. `watch_add` is PORT_FAILED when
     * more sockets than the port was made for are watched. Interest may be 0; PORT_HANGUP is
     * then still reported, at every wait until the socket is removed. */
    enum port_result (*watch_add)(void *context, port_socket socket, uint32_t interest, uint64_t token);
    void (*watch_change)(void *context, port_socket socket, uint32_t interest);
    void (*watch_remove)(void *context, port_socket socket);
    /* Waits until something is ready, a signal, a finished job or a wake came, or timeout_ms has passed (-1: for
     * ever). Returns how many events were written: of event_max up to 256 that are asked for, all or one less when more
     * are ready (a wake may take a place), and those come in the next waits, before the ones that were told. */
    size_t (*wait)(void *context, struct port_event *events, size_t event_max, int64_t timeout_ms);
    void (*wake)(void *context);

    /* Standard output: writes what it takes without waiting, from the front, and returns how many bytes that were. */
    size_t (*print)(void *context, const void *data, size_t bytes);

    /* Files. Paths are UTF-8 with '/'. */

    /* Opens for writing at the end, and makes the file if it is missing; neither this nor `append` waits for whoever
     * reads a pipe. A regular file is the caller's alone until its close: PORT_AGAIN when another has it (error_text
     * says so). Where the path itself names none (a device, a pipe, a symbolic link), size_bytes is PORT_NO_SIZE: that
     * is everybody's, and not to be renamed. */
    enum port_result (*open_append)(void *context, const char *path, port_file *file, uint64_t *size_bytes);
    /* Writes all of it. After PORT_FAILED the first written_bytes stand in the file. */
    enum port_result (*append)(void *context, port_file file, const void *data, size_t bytes, size_t *written_bytes);
    /* Reads a whole file of at most capacity_bytes; PORT_CLOSED when there is no such file, PORT_FAILED when it cannot
     * be read or is larger. */
    enum port_result (*read_file)(void *context, const char *path, void *buffer, size_t capacity_bytes,
                                  size_t *read_bytes);
    enum port_result (*rename)(void *context, const char *from, const char *to);
    /* With its parents; what it makes outlives a power cut. PORT_OK when it is there already. */
    enum port_result (*make_directory)(void *context, const char *path);
    void (*close_file)(void *context, port_file file);

    /* Storage: files that are read and written at offsets and outlive a power cut once they are synced. These block:
     * they are called at start and stop, and in jobs. */

    /* Opens for reading and writing. PORT_CLOSED when there is no such file and `create` is false. */
    enum port_result (*open_file)(void *context, const char *path, bool create, port_file *file, uint64_t *size_bytes);
    /* Makes the file at least size_bytes long, its space reserved and zero where nothing was written. */
    enum port_result (*preallocate)(void *context, port_file file, uint64_t size_bytes);
    /* Reads all of it; PORT_CLOSED when the file ends before. */
    enum port_result (*read_at)(void *context, port_file file, uint64_t offset, void *buffer, size_t bytes);
    /* Writes all of it. After PORT_FAILED any part may stand in the file. */
    enum port_result (*write_at)(void *context, port_file file, uint64_t offset, const void *data, size_t bytes);
    /* What was written stays there, whatever happens to the machine's power. After PORT_FAILED nothing is known of
     * what was written since the last sync, and a later PORT_OK says nothing about it. */
    enum port_result (*sync_file)(void *context, port_file file);
    /* The same for the names in a directory: made, removed, renamed. */
    enum port_result (*sync_directory)(void *context, const char *path);
    enum port_result (*remove_file)(void *context, const char *path);
    /* Tells the name of each thing in a directory, in any order. */
    enum port_result (*list_directory)(void *context, const char *path,
                                       void (*on_name)(void *argument, const char *name), void *argument);
    /* Makes the file if it is missing and locks it until its close or the program's end. PORT_AGAIN: another has it. */
    enum port_result (*lock_file)(void *context, const char *path, port_file *file);

    /* Names to addresses; blocks, so only in a job. Returns how many (0: error_text says why). */
    size_t (*resolve)(void *context, const char *host, uint16_t port, struct port_address *addresses,
                      size_t address_max);
    /* Hands a job to its lane's worker; false when PORT_JOBS_MAX of that lane are out. A finished job comes back once
     * from `finished_job`, those of a lane in the order of submission; NULL when none is finished. */
    bool (*submit_job)(void *context, struct port_job *job);
    struct port_job *(*finished_job)(void *context);

    /* "127.0.0.1:8000" or "[::1]:8000", terminated; and back (numeric only, port 0 to 65535). */
    void (*format_address)(void *context, const struct port_address *address, char text[PORT_ADDRESS_TEXT_BYTES]);
    bool (*parse_address)(void *context, const char *host, uint16_t port, struct port_address *address);

    /* The machine's name, terminated, cut to capacity. */
    void (*host_name)(void *context, char *buffer, size_t capacity_bytes);
};

enum { PORT_JOBS_MAX = 16 };

#define PORT_NO_SIZE UINT64_MAX /* of what open_append opened */

#endif
