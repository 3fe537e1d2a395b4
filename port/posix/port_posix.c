/* SPDX-License-Identifier: MIT */
/* Opening takes one mapping for all that the port needs, then the wake-up, the poller, the workers and the signals,
 * each of which can be closed whether it was opened or not; closing takes the same steps back, and leaves the last ones
 * out while a job runs. */
#include "port_posix.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "posix.h"

enum { LINE_BYTES = 64 };

/* This thread's text: a worker's, or the loop's. */
static char *own_error(struct posix *posix)
{
    struct posix_worker *worker = posix_worker_self();
    return worker != NULL ? worker->error : posix->loop_error;
}

enum port_result posix_failed_because(struct posix *posix, const char *what, const char *reason)
{
    (void)snprintf(own_error(posix), POSIX_ERROR_TEXT_BYTES, "%s: %s", what, reason);
    return PORT_FAILED;
}

enum port_result posix_failed(struct posix *posix, const char *what)
{
    char buffer[128];
    return posix_failed_because(posix, what, strerror_r(errno, buffer, sizeof buffer));
}

static const char *error_text(void *context)
{
    if (context == NULL) {
        return "the machine has too little memory for the port's tables";
    }
    return own_error(context);
}

static uint64_t now_ns(void *context)
{
    (void)context;
    struct timespec now;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int64_t wall_ms(void *context)
{
    (void)context;
    struct timespec now;
    CHECK(clock_gettime(CLOCK_REALTIME, &now) == 0);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void random_bytes(void *context, void *buffer, size_t bytes)
{
    (void)context;
    uint8_t *out = buffer;
    while (bytes > 0) {
        ssize_t got = getrandom(out, bytes, 0);
        CHECK(got >= 0 || errno == EINTR);
        if (got > 0) {
            out += got;
            bytes -= (size_t)got;
        }
    }
}

/* Zeroed, and written once so that every page is there. */
static void *map_touched(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return NULL;
    }
    memset(memory, 0, bytes);
    return memory;
}

static void *memory(void *context, size_t bytes)
{
    struct posix *posix = context;
    CHECK(bytes > 0 && !posix->sealed);
    if (posix->block_count == POSIX_BLOCKS_MAX) {
        (void)posix_failed_because(posix, "memory", "too many blocks");
        return NULL;
    }
    void *block = map_touched(bytes);
    if (block == NULL) {
        (void)posix_failed(posix, "memory");
        return NULL;
    }
    posix->blocks[posix->block_count++] = (struct posix_block){block, bytes};
    return block;
}

static void heap(void *context, struct port_heap *counters)
{
    const struct posix *posix = context;
    *counters = (struct port_heap){0};
    if (posix->heap != NULL) {
        posix->heap(counters);
    }
}

static bool reserve_handles(void *context, size_t count)
{
    struct posix *posix = context;
    struct rlimit limit;
    rlim_t wanted = (rlim_t)count + POSIX_HANDLES_OWN;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        (void)posix_failed(posix, "read the limit of open files");
        return false;
    }
    if (limit.rlim_cur >= wanted) {
        return true;
    }
    limit.rlim_cur = wanted;
    if (limit.rlim_max < wanted) {
        limit.rlim_max = wanted; /* for the administrator only */
    }
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        (void)posix_failed(posix, "raise the limit of open files");
        return false;
    }
    return true;
}

static uint32_t signals(void *context)
{
    struct posix *posix = context;
    return atomic_exchange(&posix->signals, 0);
}

static void host_name(void *context, char *buffer, size_t capacity_bytes)
{
    (void)context;
    CHECK(capacity_bytes > 0);
    char name[256] = "";
    if (gethostname(name, sizeof name - 1) != 0 || name[0] == '\0') {
        memcpy(name, "localhost", sizeof "localhost");
    }
    (void)snprintf(buffer, capacity_bytes, "%s", name);
}

/* Where everything stands in the one mapping. */
struct layout {
    size_t page_bytes;
    size_t stack_at[PORT_LANE_COUNT]; /* each behind one guard page */
    size_t state_at;
    size_t tables_at;
    size_t bytes;
};

static const size_t stack_bytes[PORT_LANE_COUNT] = {
    [PORT_LANE_STORAGE] = POSIX_STORAGE_STACK_BYTES,
    [PORT_LANE_NAMES] = POSIX_NAMES_STACK_BYTES,
};

static struct layout lay_out(const struct port_posix_options *options)
{
    struct layout layout = {.page_bytes = (size_t)sysconf(_SC_PAGESIZE)};
    size_t state_bytes = (sizeof(struct posix) + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
    for (size_t lane = 0; lane < PORT_LANE_COUNT; lane++) {
        layout.stack_at[lane] = layout.state_at + layout.page_bytes;
        layout.state_at = layout.stack_at[lane] + stack_bytes[lane];
    }
    layout.tables_at = layout.state_at + state_bytes;
    size_t end = layout.tables_at + posix_poller_bytes(options->watch_max);
    layout.bytes = (end + layout.page_bytes - 1) / layout.page_bytes * layout.page_bytes;
    return layout;
}

size_t port_posix_memory_bytes(const struct port_posix_options *options)
{
    return lay_out(options).bytes;
}

static const struct port functions = {
    .now_ns = now_ns,
    .wall_ms = wall_ms,
    .random = random_bytes,
    .memory = memory,
    .heap = heap,
    .seal = posix_seal,
    .reserve_handles = reserve_handles,
    .error_text = error_text,
    .signals = signals,
    .watch_add = posix_watch_add,
    .watch_change = posix_watch_change,
    .watch_remove = posix_watch_remove,
    .wait = posix_wait,
    .wake = posix_wake,
    .resolve = posix_resolve,
    .submit_job = posix_submit_job,
    .finished_job = posix_finished_job,
    .format_address = posix_format_address,
    .parse_address = posix_parse_address,
    .host_name = host_name,
};

static bool open_worker(struct posix *posix, enum port_lane lane, const struct layout *layout)
{
    uint8_t *stack = (uint8_t *)posix->mapping + layout->stack_at[lane];
    if (mprotect(stack - layout->page_bytes, layout->page_bytes, PROT_NONE) != 0) {
        (void)posix_failed(posix, "guard a worker's stack");
        return false;
    }
    return posix_worker_open(posix, lane, stack, stack_bytes[lane]);
}

bool port_posix_open(struct port *port, const struct port_posix_options *options)
{
    CHECK(options->watch_max > 0);
    *port = functions;
    posix_socket_functions(port);
    posix_file_functions(port);
    posix_storage_functions(port);

    struct layout layout = lay_out(options);
    uint8_t *mapping = map_touched(layout.bytes);
    if (mapping == NULL) {
        return false;
    }
    struct posix *posix = (void *)(mapping + layout.state_at);
    posix->mapping = mapping;
    posix->mapping_bytes = layout.bytes;
    posix->heap = options->heap;
    posix->poller.epoll_fd = PORT_NONE;
    posix->wake_read_fd = PORT_NONE;
    posix->wake_write_fd = PORT_NONE;
    port->context = posix;

    uint8_t first_random; /* blocks until the machine has gathered enough, so that it never fails later */
    if (getrandom(&first_random, sizeof first_random, 0) != sizeof first_random) {
        (void)posix_failed(posix, "random bytes");
        return false;
    }
    return posix_wake_open(posix) &&
           posix_poller_open(posix, options->poller, options->watch_max, mapping + layout.tables_at) &&
           open_worker(posix, PORT_LANE_STORAGE, &layout) && open_worker(posix, PORT_LANE_NAMES, &layout) &&
           posix_signal_open(posix, options->defers_signals);
}

bool port_posix_close(struct port *port)
{
    struct posix *posix = port->context;
    if (posix == NULL) {
        return true;
    }
    posix_signal_close(posix);
    posix_poller_close(posix);
    if (!posix_workers_close(posix)) {
        port->context = NULL;
        return false;
    }
    posix_wake_close(posix);
    port->context = NULL;
    if (posix->sealed) {
        return true;
    }
    while (posix->block_count > 0) {
        struct posix_block block = posix->blocks[--posix->block_count];
        (void)munmap(block.memory, block.bytes);
    }
    (void)munmap(posix->mapping, posix->mapping_bytes);
    return true;
}

const char *port_posix_poller_name(const struct port *port)
{
    const struct posix *posix = port->context;
    return posix->poller.epoll ? "epoll" : "poll";
}
