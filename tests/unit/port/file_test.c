/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
    snprintf(folder, sizeof folder, "/tmp/postern-file-test-XXXXXX");
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

static void assert_contents(struct port *port, const char *path, const char *expected)
{
    char buffer[256];
    size_t bytes = 0;
    assert_int_equal(port->read_file(port->context, path, buffer, sizeof buffer, &bytes), PORT_OK);
    assert_int_equal(bytes, strlen(expected));
    assert_memory_equal(buffer, expected, bytes);
}

static void test_append_goes_to_the_end(void **state)
{
    struct port *port = *state;
    size_t written = 99;
    port_file file = PORT_NONE;
    uint64_t size_bytes = 99;
    assert_int_equal(port->open_append(port->context, "log", &file, &size_bytes), PORT_OK);
    assert_int_equal(size_bytes, 0);
    assert_int_equal(port->append(port->context, file, "one\n", 4, &written), PORT_OK);
    assert_int_equal(written, 4);
    assert_int_equal(port->append(port->context, file, "", 0, &written), PORT_OK);
    assert_contents(port, "log", "one\n");
    port->close_file(port->context, file);
    assert_int_equal(port->open_append(port->context, "log", &file, &size_bytes), PORT_OK);
    assert_int_equal(size_bytes, 4);
    assert_int_equal(truncate("log", 2), 0); /* even when another made it shorter */
    assert_int_equal(port->append(port->context, file, "two\n", 4, &written), PORT_OK);
    port->close_file(port->context, file);
    assert_contents(port, "log", "ontwo\n");
}

static void test_append_takes_the_file_for_one_alone(void **state)
{
    struct port *port = *state;
    size_t written = 99;
    port_file first = PORT_NONE;
    port_file second = PORT_NONE;
    uint64_t size_bytes = 0;
    assert_int_equal(port->open_append(port->context, "log", &first, &size_bytes), PORT_OK);
    assert_int_equal(port->open_append(port->context, "log", &second, &size_bytes), PORT_AGAIN);
    assert_string_equal(port->error_text(port->context), "lock: Resource temporarily unavailable");
    /* It goes with the file, not with the name. */
    assert_int_equal(port->append(port->context, first, "one\n", 4, &written), PORT_OK);
    assert_int_equal(port->rename(port->context, "log", "log.1"), PORT_OK);
    assert_int_equal(port->open_append(port->context, "log", &second, &size_bytes), PORT_OK);
    assert_int_equal(size_bytes, 0);
    port->close_file(port->context, second);
    assert_int_equal(port->open_append(port->context, "log.1", &second, &size_bytes), PORT_AGAIN);
    port->close_file(port->context, first);
    assert_int_equal(port->open_append(port->context, "log.1", &second, &size_bytes), PORT_OK);
    assert_int_equal(size_bytes, 4);
    port->close_file(port->context, second);
    /* A device is everybody's. */
    assert_int_equal(port->open_append(port->context, "/dev/null", &first, &size_bytes), PORT_OK);
    assert_int_equal(size_bytes, PORT_NO_SIZE);
    assert_int_equal(port->open_append(port->context, "/dev/null", &second, &size_bytes), PORT_OK);
    port->close_file(port->context, first);
    port->close_file(port->context, second);
}

/* As /dev/stdout is one: to rename it would not move the file. */
static void test_append_through_a_link_is_everybodys(void **state)
{
    struct port *port = *state;
    port_file first = PORT_NONE;
    port_file second = PORT_NONE;
    uint64_t size_bytes = 0;
    assert_int_equal(symlink("log", "link"), 0);
    assert_int_equal(port->open_append(port->context, "link", &first, &size_bytes), PORT_OK);
    assert_int_equal(size_bytes, PORT_NO_SIZE);
    assert_int_equal(port->open_append(port->context, "link", &second, &size_bytes), PORT_OK);
    port->close_file(port->context, first);
    port->close_file(port->context, second);
}

/* Neither for a reader nor for room. */
static void test_append_never_waits_for_a_pipe(void **state)
{
    struct port *port = *state;
    static const char page[100000];
    port_file file = PORT_NONE;
    uint64_t size_bytes = 0;
    size_t written = 0;
    assert_int_equal(mkfifo("pipe", 0600), 0);
    (void)alarm(60);
    assert_failed(port, port->open_append(port->context, "pipe", &file, &size_bytes),
                  "open: it is a socket, or a pipe that nobody reads");
    int reader = open("pipe", O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    assert_int_equal(port->open_append(port->context, "pipe", &file, &size_bytes), PORT_OK);
    assert_int_equal(size_bytes, PORT_NO_SIZE);
    assert_failed(port, port->append(port->context, file, page, sizeof page, &written),
                  "write: Resource temporarily unavailable");
    assert_in_range(written, 4096, sizeof page - 1);
    (void)alarm(0);
    port->close_file(port->context, file);
    (void)close(reader);
}

static void rotate_again_and_again(struct port *port)
{
    for (int round = 0; round < 5000; round++) {
        port_file file = PORT_NONE;
        uint64_t size_bytes = 0;
        if (port->open_append(port->context, "log", &file, &size_bytes) == PORT_OK) {
            (void)port->rename(port->context, "log", "log.1");
            port->close_file(port->context, file);
        }
    }
}

/* Another process moves the file away between our open and our lock: then it is not what we get. */
static void test_append_takes_the_file_of_that_name(void **state)
{
    struct port *port = *state;
    pid_t other = fork();
    assert_true(other >= 0);
    if (other == 0) {
        rotate_again_and_again(port);
        _exit(0);
    }
    unsigned taken_count = 0;
    int status = 0;
    while (waitpid(other, &status, WNOHANG) == 0) {
        port_file file = PORT_NONE;
        uint64_t size_bytes = 0;
        if (port->open_append(port->context, "log", &file, &size_bytes) == PORT_OK) {
            struct stat opened;
            struct stat named;
            assert_int_equal(fstat(file, &opened), 0);
            assert_int_equal(stat("log", &named), 0);
            assert_int_equal(named.st_ino, opened.st_ino);
            port->close_file(port->context, file);
            taken_count++;
        }
    }
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(taken_count > 0);
}

static void test_append_failures(void **state)
{
    struct port *port = *state;
    size_t written = 99;
    port_file file = PORT_NONE;
    uint64_t size_bytes = 0;
    assert_failed(port, port->open_append(port->context, "none/log", &file, &size_bytes),
                  "open: No such file or directory");
    assert_failed(port, port->open_append(port->context, ".", &file, &size_bytes), "open: Is a directory");
    assert_int_equal(port->open_append(port->context, "/dev/full", &file, &size_bytes), PORT_OK);
    assert_failed(port, port->append(port->context, file, "x", 1, &written), "write: No space left on device");
    assert_int_equal(written, 0);
    port->close_file(port->context, file);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

static void test_read_file_holds_its_capacity(void **state)
{
    struct port *port = *state;
    char buffer[8];
    size_t bytes = 99;
    assert_int_equal(port->read_file(port->context, "none", buffer, 4, &bytes), PORT_CLOSED);
    write_file("four", "abcd");
    memset(buffer, '#', sizeof buffer);
    assert_int_equal(port->read_file(port->context, "four", buffer, 4, &bytes), PORT_OK);
    assert_int_equal(bytes, 4);
    assert_memory_equal(buffer, "abcd####", 8);
    assert_failed(port, port->read_file(port->context, "four", buffer, 3, &bytes), "read: the file is too large");
    assert_int_equal(buffer[4], '#');
    write_file("empty", "");
    assert_int_equal(port->read_file(port->context, "empty", buffer, 4, &bytes), PORT_OK);
    assert_int_equal(bytes, 0);
    assert_int_equal(port->read_file(port->context, "empty", buffer, 0, &bytes), PORT_OK);
    assert_failed(port, port->read_file(port->context, ".", buffer, 4, &bytes), "read: Is a directory");
    assert_failed(port, port->read_file(port->context, "four/x", buffer, 4, &bytes), "open: Not a directory");
}

static void test_rename(void **state)
{
    struct port *port = *state;
    write_file("a", "1");
    write_file("b", "2");
    assert_int_equal(port->rename(port->context, "a", "b"), PORT_OK);
    assert_contents(port, "b", "1");
    assert_failed(port, port->rename(port->context, "a", "c"), "rename: No such file or directory");
}

static void test_make_directory_with_parents(void **state)
{
    struct port *port = *state;
    struct stat status;
    assert_int_equal(port->make_directory(port->context, "one/two/three"), PORT_OK);
    assert_int_equal(stat("one/two/three", &status), 0);
    assert_true(S_ISDIR(status.st_mode));
    assert_int_equal(port->make_directory(port->context, "one/two/three"), PORT_OK);
    assert_int_equal(port->make_directory(port->context, "one//four/"), PORT_OK);
    assert_int_equal(stat("one/four", &status), 0);
    assert_int_equal(port->make_directory(port->context, "/"), PORT_OK);
    assert_int_equal(port->make_directory(port->context, "."), PORT_OK);
    write_file("file", "x");
    assert_failed(port, port->make_directory(port->context, "file"), "make directory: Not a directory");
    assert_failed(port, port->make_directory(port->context, "file/sub"), "make directory: Not a directory");
}

/* Standard output is a pipe that nobody empties: what fits is written, and nothing waits. */
static void test_print_never_waits(void **state)
{
    struct port *port = *state;
    static char page[100000];
    static char back[sizeof page];
    int ends[2];
    memset(page, 'p', sizeof page);
    assert_int_equal(pipe(ends), 0);
    (void)fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    assert_true(dup2(ends[1], STDOUT_FILENO) >= 0);
    size_t whole = port->print(port->context, page, 10);
    size_t part = port->print(port->context, page, sizeof page);
    size_t none = port->print(port->context, page, sizeof page);
    ssize_t taken = read(ends[0], back, sizeof back);
    size_t again = port->print(port->context, "x", 1);
    (void)close(ends[0]);
    size_t broken = port->print(port->context, "x", 1);
    assert_true(dup2(saved, STDOUT_FILENO) >= 0);
    (void)close(saved);
    (void)close(ends[1]);
    assert_int_equal(whole, 10);
    assert_in_range(part, 4096, sizeof page - 1);
    assert_int_equal(none, 0);
    assert_int_equal(taken, (ssize_t)(10 + part));
    assert_int_equal(again, 1);
    assert_int_equal(broken, 0);
}

#define in_folder(test) cmocka_unit_test_setup_teardown(test, enter_folder, leave_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_folder(test_append_goes_to_the_end),
        in_folder(test_append_takes_the_file_for_one_alone),
        in_folder(test_append_takes_the_file_of_that_name),
        in_folder(test_append_through_a_link_is_everybodys),
        in_folder(test_append_never_waits_for_a_pipe),
        in_folder(test_append_failures),
        in_folder(test_read_file_holds_its_capacity),
        in_folder(test_print_never_waits),
        in_folder(test_rename),
        in_folder(test_make_directory_with_parents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
