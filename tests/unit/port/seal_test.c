/* SPDX-License-Identifier: MIT */
/* The seal, in child processes, because it cannot be undone. Where the kernel has no seccomp (qemu-user), it must say
 * so and change nothing. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "port_fixture.h"

enum { UNAVAILABLE = 77, RETURNED = 1, WORKED = 42, FAILED = 43 };

/* Stands for a program whose malloc asks for nothing: the children below do not allocate once they are sealed. */
static void some_block(struct port_heap *heap)
{
    *heap = (struct port_heap){.capacity_bytes = 4096, .used_bytes = 64, .peak_bytes = 128, .refused_count = 3};
}

static const struct port_posix_options with_block = {
    .poller = PORT_POSIX_POLL, .watch_max = WATCH_MAX, .heap = some_block};

static void open_sealed(struct port *port)
{
    const struct rlimit no_core = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &no_core);
    if (!port_posix_open(port, &with_block)) {
        _exit(FAILED);
    }
    if (!port->seal(port->context)) {
        _exit(strncmp(port->error_text(port->context), "seccomp: ", 9) == 0 ? UNAVAILABLE : FAILED);
    }
}

/* The status of a child that seals itself and runs `act`. */
static int status_of(void (*act)(struct port *port))
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct port port;
        open_sealed(&port);
        act(&port);
        _exit(RETURNED);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

/* The kernel itself says so, asked without the port: ENOSYS or EINVAL where it has no seccomp or no filters, EFAULT
 * where it has them and only misses the filter. */
static bool kernel_has_filters(void)
{
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, NULL) != 0 && errno == EFAULT;
}

static bool unavailable(int status)
{
    bool is_unavailable = WIFEXITED(status) && WEXITSTATUS(status) == UNAVAILABLE;
    assert_true(!is_unavailable || !kernel_has_filters()); /* otherwise seal() failed where it could have worked */
    return is_unavailable;
}

static void assert_killed(void (*act)(struct port *port))
{
    int status = status_of(act);
    if (!unavailable(status)) {
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGSYS);
    }
}

static void call_mmap(struct port *port)
{
    (void)port;
    (void)mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void call_munmap(struct port *port)
{
    (void)port;
    (void)munmap(NULL, 4096);
}

static void call_mremap(struct port *port)
{
    (void)port;
    (void)mremap(NULL, 4096, 8192, MREMAP_MAYMOVE);
}

static void call_brk(struct port *port)
{
    (void)port;
    (void)syscall(SYS_brk, 0);
}

static void call_shmat(struct port *port)
{
    (void)port;
    (void)shmat(-1, NULL, 0);
}

static void grow_on_the_worker(struct port_job *job)
{
    (void)job;
    call_mmap(NULL);
}

static void grow_in_a_job(struct port *port)
{
    static struct port_job job = {.run = grow_on_the_worker, .context = NULL};
    (void)port->submit_job(port->context, &job);
    struct port_event event;
    for (int wait = 0; wait < 10 && port->finished_job(port->context) == NULL; wait++) {
        (void)port->wait(port->context, &event, 1, PATIENCE_MS);
    }
}

static void test_growing_ends_the_process(void **state)
{
    (void)state;
    assert_killed(call_mmap);
    assert_killed(call_munmap);
    assert_killed(call_mremap);
    assert_killed(call_brk);
    assert_killed(call_shmat);
    assert_killed(grow_in_a_job);
}

static void do_nothing(struct port_job *job)
{
    (void)job;
}

/* Sockets, files, random bytes, jobs: what a loop goes on to do. */
static void go_on(struct port *port)
{
    static struct port_job job = {.run = do_nothing, .context = NULL};
    struct port_address address;
    port_socket listener = PORT_NONE;
    port_socket client = PORT_NONE;
    struct port_event event;
    uint8_t bytes[16];
    size_t count = 0;
    bool worked = port->parse_address(port->context, "127.0.0.1", 0, &address) &&
                  port->listen(port->context, &address, &listener) == PORT_OK &&
                  port->local_address(port->context, listener, &address) == PORT_OK &&
                  port->connect(port->context, &address, &client) == PORT_OK &&
                  port->watch_add(port->context, listener, PORT_READ, 1) == PORT_OK &&
                  port->wait(port->context, &event, 1, PATIENCE_MS) == 1 && port->submit_job(port->context, &job) &&
                  port->read_file(port->context, "/proc/self/no-such-file", bytes, sizeof bytes, &count) == PORT_CLOSED;
    port->random(port->context, bytes, sizeof bytes);
    port->watch_remove(port->context, listener);
    port->close_socket(port->context, listener);
    port->close_socket(port->context, client);
    _exit(worked ? WORKED : FAILED);
}

static void test_all_else_goes_on(void **state)
{
    (void)state;
    int status = status_of(go_on);
    if (!unavailable(status)) {
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), WORKED);
    }
}

static void test_a_program_without_its_own_malloc_is_not_sealed(void **state)
{
    struct port *port = *state;
    assert_false(port->seal(port->context));
    assert_string_equal(port->error_text(port->context), "seal: malloc asks the system for memory");
    struct port_heap heap = {.used_bytes = 1};
    port->heap(port->context, &heap);
    assert_int_equal(heap.capacity_bytes, 0);
    assert_int_equal(heap.used_bytes, 0);
    assert_non_null(port->memory(port->context, 4096)); /* still */
}

static void test_tells_of_the_block(void **state)
{
    (void)state;
    struct port port;
    assert_true(port_posix_open(&port, &with_block));
    struct port_heap heap;
    port.heap(port.context, &heap);
    assert_int_equal(heap.capacity_bytes, 4096);
    assert_int_equal(heap.used_bytes, 64);
    assert_int_equal(heap.peak_bytes, 128);
    assert_int_equal(heap.refused_count, 3);
    port_posix_close(&port);
}

static uint8_t variables[300000];

static void test_the_image_has_code_and_variables(void **state)
{
    (void)state;
    struct port_posix_image image;
    memset(variables, 1, sizeof variables);
    port_posix_image(&image);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    assert_true(image.data_bytes > sizeof variables && image.data_bytes % page == 0);
    assert_true(image.file_bytes > 262144 && image.file_bytes % page == 0); /* the C library alone is more */
    assert_true(image.stack_bytes >= 65536);
}

static void test_touching_changes_nothing(void **state)
{
    (void)state;
    memset(variables, 7, sizeof variables);
    port_posix_warm_up();
    port_posix_touch_image();
    for (size_t at = 0; at < sizeof variables; at++) {
        assert_int_equal(variables[at], 7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_growing_ends_the_process),
        cmocka_unit_test(test_all_else_goes_on),
        cmocka_unit_test_setup_teardown(test_a_program_without_its_own_malloc_is_not_sealed, open_port, close_port),
        cmocka_unit_test(test_tells_of_the_block),
        cmocka_unit_test(test_the_image_has_code_and_variables),
        cmocka_unit_test(test_touching_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
