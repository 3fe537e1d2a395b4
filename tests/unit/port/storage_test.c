/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "port_fixture.h"

/* Each test works in an empty folder of its own, which is the working directory. */
static char folder[64];
static char earlier[1024];

static int enter_folder(void **state)
{
    snprintf(folder, sizeof folder, "/tmp/postern-storage-test-XXXXXX");
    if (getcwd(earlier, sizeof earlier) == NULL || mkdtemp(folder) == NULL || chdir(folder) != 0) {
        return -1;
    }
    return open_port(state);
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *position)
{
    (void)status;
    (void)kind;
    (void)position;
    return remove(path);
}

static int leave_folder(void **state)
{
    close_port(state);
    return chdir(earlier) != 0 || nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS) != 0 ? -1 : 0;
}

static void assert_failed(struct port *port, enum port_result result, const char *text)
{
    assert_int_equal(result, PORT_FAILED);
    assert_string_equal(port->error_text(port->context), text);
}

static port_file create(struct port *port, const char *path)
{
    port_file file = PORT_NONE;
    uint64_t size_bytes = 99;
    assert_int_equal(port->open_file(port->context, path, true, &file, &size_bytes), PORT_OK);
    assert_int_equal(size_bytes, 0);
    return file;
}

static void test_open_makes_a_file_only_when_asked(void **state)
{
    struct port *port = *state;
    port_file file = PORT_NONE;
    uint64_t size_bytes = 99;
    assert_int_equal(port->open_file(port->context, "a", false, &file, &size_bytes), PORT_CLOSED);
    assert_int_equal(access("a", F_OK), -1);
    file = create(port, "a");
    assert_int_equal(port->write_at(port->context, file, 0, "four", 4), PORT_OK);
    port->close_file(port->context, file);
    assert_int_equal(port->open_file(port->context, "a", false, &file, &size_bytes), PORT_OK);
    assert_int_equal(size_bytes, 4);
    port->close_file(port->context, file);
    assert_int_equal(port->open_file(port->context, "a", true, &file, &size_bytes), PORT_OK);
    assert_int_equal(size_bytes, 4); /* and it is not emptied */
    port->close_file(port->context, file);
    assert_failed(port, port->open_file(port->context, "none/a", true, &file, &size_bytes),
                  "open: No such file or directory");
    assert_failed(port, port->open_file(port->context, "a/b", false, &file, &size_bytes), "open: Not a directory");
    assert_failed(port, port->open_file(port->context, ".", false, &file, &size_bytes), "open: Is a directory");
}

static void test_reads_and_writes_at_offsets(void **state)
{
    struct port *port = *state;
    port_file file = create(port, "a");
    char buffer[16];
    assert_int_equal(port->write_at(port->context, file, 4, "efgh", 4), PORT_OK);
    assert_int_equal(port->write_at(port->context, file, 0, "abcd", 4), PORT_OK);
    assert_int_equal(port->write_at(port->context, file, 3, "", 0), PORT_OK);
    assert_int_equal(port->write_at(port->context, file, 2, "CDEF", 4), PORT_OK);
    assert_int_equal(port->read_at(port->context, file, 0, buffer, 8), PORT_OK);
    assert_memory_equal(buffer, "abCDEFgh", 8);
    assert_int_equal(port->read_at(port->context, file, 5, buffer, 2), PORT_OK);
    assert_memory_equal(buffer, "Fg", 2);
    assert_int_equal(port->sync_file(port->context, file), PORT_OK);
    port->close_file(port->context, file);
}

static void test_a_read_beyond_the_end_says_so(void **state)
{
    struct port *port = *state;
    port_file file = create(port, "a");
    char buffer[16];
    assert_int_equal(port->write_at(port->context, file, 0, "abcd", 4), PORT_OK);
    assert_int_equal(port->read_at(port->context, file, 0, buffer, 5), PORT_CLOSED);
    assert_int_equal(port->read_at(port->context, file, 4, buffer, 1), PORT_CLOSED);
    assert_int_equal(port->read_at(port->context, file, 400, buffer, 1), PORT_CLOSED);
    assert_int_equal(port->read_at(port->context, file, 400, buffer, 0), PORT_OK);
    port->close_file(port->context, file);
}

static void test_preallocated_space_is_there_and_zero(void **state)
{
    struct port *port = *state;
    port_file file = create(port, "a");
    struct stat status;
    uint8_t buffer[4096];
    assert_int_equal(port->write_at(port->context, file, 0, "abcd", 4), PORT_OK);
    assert_int_equal(port->preallocate(port->context, file, 1024 * 1024), PORT_OK);
    assert_int_equal(stat("a", &status), 0);
    assert_int_equal(status.st_size, 1024 * 1024);
    assert_true(status.st_blocks * 512 >= 1024 * 1024);
    assert_int_equal(port->read_at(port->context, file, 1024 * 1024 - sizeof buffer, buffer, sizeof buffer), PORT_OK);
    for (size_t i = 0; i < sizeof buffer; i++) {
        assert_int_equal(buffer[i], 0);
    }
    assert_int_equal(port->preallocate(port->context, file, 1000), PORT_OK); /* never shorter */
    assert_int_equal(stat("a", &status), 0);
    assert_int_equal(status.st_size, 1024 * 1024);
    assert_int_equal(port->read_at(port->context, file, 0, buffer, 4), PORT_OK);
    assert_memory_equal(buffer, "abcd", 4);
    port->close_file(port->context, file);
}

static void test_failures_have_their_reason(void **state)
{
    struct port *port = *state;
    port_file file = PORT_NONE;
    uint64_t size_bytes = 0;
    char buffer[4];
    assert_int_equal(port->open_file(port->context, "/dev/full", false, &file, &size_bytes), PORT_OK);
    assert_failed(port, port->write_at(port->context, file, 0, "x", 1), "write: No space left on device");
    assert_failed(port, port->preallocate(port->context, file, 4096), "preallocate: No such device");
    assert_failed(port, port->sync_file(port->context, file), "sync: Invalid argument");
    port->close_file(port->context, file);
    assert_int_equal(port->open_file(port->context, "/proc/self/mem", false, &file, &size_bytes), PORT_OK);
    assert_failed(port, port->read_at(port->context, file, 0, buffer, 4), "read: Input/output error");
    port->close_file(port->context, file);
}

/* The kernel writes what fits within the limit of a file's size, and only the next call fails. */
static void test_a_write_that_ends_short_is_a_failure(void **state)
{
    struct port *port = *state;
    port_file file = create(port, "a");
    struct rlimit earlier_limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &earlier_limit), 0);
    struct rlimit limit = {6, earlier_limit.rlim_max};
    void (*earlier_action)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    enum port_result result = port->write_at(port->context, file, 0, "0123456789", 10);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &earlier_limit), 0);
    signal(SIGXFSZ, earlier_action);
    assert_failed(port, result, "write: File too large");
    char buffer[6];
    assert_int_equal(port->read_at(port->context, file, 0, buffer, 6), PORT_OK);
    assert_memory_equal(buffer, "012345", 6);
    port->close_file(port->context, file);
}

struct names {
    size_t count;
    bool has_file;
    bool has_folder;
};

static void on_name(void *argument, const char *name)
{
    struct names *names = argument;
    names->count++;
    names->has_file = names->has_file || strcmp(name, "file") == 0;
    names->has_folder = names->has_folder || strcmp(name, "folder") == 0;
}

static void test_list_remove_and_sync_a_directory(void **state)
{
    struct port *port = *state;
    struct names names = {0};
    assert_int_equal(port->list_directory(port->context, ".", on_name, &names), PORT_OK);
    assert_int_equal(names.count, 0);
    port->close_file(port->context, create(port, "file"));
    assert_int_equal(port->make_directory(port->context, "folder"), PORT_OK);
    assert_int_equal(port->list_directory(port->context, ".", on_name, &names), PORT_OK);
    assert_int_equal(names.count, 2);
    assert_true(names.has_file && names.has_folder);
    assert_int_equal(port->sync_directory(port->context, "."), PORT_OK);
    assert_int_equal(port->remove_file(port->context, "file"), PORT_OK);
    assert_int_equal(access("file", F_OK), -1);
    assert_failed(port, port->remove_file(port->context, "file"), "remove: No such file or directory");
    assert_failed(port, port->remove_file(port->context, "folder"), "remove: Is a directory");
    assert_failed(port, port->list_directory(port->context, "none", on_name, &names),
                  "list the folder: No such file or directory");
    assert_failed(port, port->sync_directory(port->context, "none"), "sync the folder: No such file or directory");
}

static void test_a_lock_is_held_by_one(void **state)
{
    struct port *port = *state;
    port_file first = PORT_NONE;
    port_file second = PORT_NONE;
    assert_int_equal(port->lock_file(port->context, "lock", &first), PORT_OK);
    assert_int_equal(port->lock_file(port->context, "lock", &second), PORT_AGAIN);
    pid_t child = fork();
    if (child == 0) {
        _exit(port->lock_file(port->context, "lock", &second) == PORT_AGAIN ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    port->close_file(port->context, first);
    assert_int_equal(port->lock_file(port->context, "lock", &second), PORT_OK);
    port->close_file(port->context, second);
    assert_failed(port, port->lock_file(port->context, "none/lock", &first), "open: No such file or directory");
}

/* What a kill leaves behind: the file, but no lock. */
static void test_a_lock_ends_with_its_holder(void **state)
{
    struct port *port = *state;
    int ends[2];
    char byte;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        port_file file = PORT_NONE;
        bool locked = port->lock_file(port->context, "lock", &file) == PORT_OK;
        _exit(!locked || write(ends[1], "l", 1) != 1 || pause() == 0 ? 1 : 2);
    }
    assert_int_equal(read(ends[0], &byte, 1), 1);
    port_file file = PORT_NONE;
    assert_int_equal(port->lock_file(port->context, "lock", &file), PORT_AGAIN);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(port->lock_file(port->context, "lock", &file), PORT_OK);
    port->close_file(port->context, file);
    close(ends[0]);
    close(ends[1]);
}

struct task {
    struct port_job job;
    struct port *port;
    enum port_result written;
    enum port_result synced;
    enum port_result failed;
    char error[64];
};

static void run_on_storage(struct port_job *job)
{
    struct task *task = job->context;
    struct port *port = task->port;
    port_file file = PORT_NONE;
    uint64_t size_bytes = 0;
    task->failed = port->open_file(port->context, "none/a", true, &file, &size_bytes);
    (void)snprintf(task->error, sizeof task->error, "%s", port->error_text(port->context));
    if (port->open_file(port->context, "a", true, &file, &size_bytes) == PORT_OK) {
        task->written = port->write_at(port->context, file, 0, "abcd", 4);
        task->synced = port->sync_file(port->context, file);
        port->close_file(port->context, file);
    }
}

static void test_the_worker_may_use_it(void **state)
{
    struct port *port = *state;
    struct task task = {.port = port, .written = PORT_FAILED, .synced = PORT_FAILED};
    task.job = (struct port_job){.run = run_on_storage, .context = &task};
    assert_true(port->submit_job(port->context, &task.job));
    const struct port_job *back = NULL;
    while ((back = port->finished_job(port->context)) == NULL) {
        struct port_event event;
        (void)port->wait(port->context, &event, 1, PATIENCE_MS);
    }
    assert_ptr_equal(back, &task.job);
    assert_int_equal(task.written, PORT_OK);
    assert_int_equal(task.synced, PORT_OK);
    assert_int_equal(task.failed, PORT_FAILED);
    assert_string_equal(task.error, "open: No such file or directory");
}

#define in_folder(test) cmocka_unit_test_setup_teardown(test, enter_folder, leave_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_folder(test_open_makes_a_file_only_when_asked), in_folder(test_reads_and_writes_at_offsets),
        in_folder(test_a_read_beyond_the_end_says_so),     in_folder(test_preallocated_space_is_there_and_zero),
        in_folder(test_failures_have_their_reason),        in_folder(test_a_write_that_ends_short_is_a_failure),
        in_folder(test_list_remove_and_sync_a_directory),  in_folder(test_a_lock_is_held_by_one),
        in_folder(test_a_lock_ends_with_its_holder),       in_folder(test_the_worker_may_use_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
