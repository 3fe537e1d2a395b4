/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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
    port_file file = PORT_NONE;
    uint64_t size_bytes = 99;
    assert_int_equal(port->open_append(port->context, "log", &file, &size_bytes), PORT_OK);
    assert_int_equal(size_bytes, 0);
    assert_int_equal(port->append(port->context, file, "one\n", 4), PORT_OK);
    assert_int_equal(port->append(port->context, file, "", 0), PORT_OK);
    assert_contents(port, "log", "one\n");
    port->close_file(port->context, file);
    assert_int_equal(port->open_append(port->context, "log", &file, &size_bytes), PORT_OK);
    assert_int_equal(size_bytes, 4);
    assert_int_equal(truncate("log", 2), 0); /* even when another made it shorter */
    assert_int_equal(port->append(port->context, file, "two\n", 4), PORT_OK);
    port->close_file(port->context, file);
    assert_contents(port, "log", "ontwo\n");
}

static void test_append_failures(void **state)
{
    struct port *port = *state;
    port_file file = PORT_NONE;
    uint64_t size_bytes = 0;
    assert_failed(port, port->open_append(port->context, "none/log", &file, &size_bytes),
                  "open: No such file or directory");
    assert_failed(port, port->open_append(port->context, ".", &file, &size_bytes), "open: Is a directory");
    assert_int_equal(port->open_append(port->context, "/dev/full", &file, &size_bytes), PORT_OK);
    assert_failed(port, port->append(port->context, file, "x", 1), "write: No space left on device");
    port->close_file(port->context, file);
}

static void test_read_file_holds_its_capacity(void **state)
{
    struct port *port = *state;
    char buffer[8];
    size_t bytes = 99;
    assert_int_equal(port->read_file(port->context, "none", buffer, 4, &bytes), PORT_CLOSED);
    assert_int_equal(port->replace_file(port->context, "four", "abcd", 4), PORT_OK);
    memset(buffer, '#', sizeof buffer);
    assert_int_equal(port->read_file(port->context, "four", buffer, 4, &bytes), PORT_OK);
    assert_int_equal(bytes, 4);
    assert_memory_equal(buffer, "abcd####", 8);
    assert_failed(port, port->read_file(port->context, "four", buffer, 3, &bytes), "read: the file is too large");
    assert_int_equal(buffer[4], '#');
    assert_int_equal(port->replace_file(port->context, "empty", NULL, 0), PORT_OK);
    assert_int_equal(port->read_file(port->context, "empty", buffer, 4, &bytes), PORT_OK);
    assert_int_equal(bytes, 0);
    assert_int_equal(port->read_file(port->context, "empty", buffer, 0, &bytes), PORT_OK);
    assert_failed(port, port->read_file(port->context, ".", buffer, 4, &bytes), "read: Is a directory");
    assert_failed(port, port->read_file(port->context, "four/x", buffer, 4, &bytes), "open: Not a directory");
}

static void test_replace_file_replaces_whole(void **state)
{
    struct port *port = *state;
    assert_int_equal(port->make_directory(port->context, "sub"), PORT_OK);
    assert_int_equal(port->replace_file(port->context, "sub/state", "a longer text", 13), PORT_OK);
    assert_contents(port, "sub/state", "a longer text");
    assert_int_equal(port->replace_file(port->context, "sub/state", "short", 5), PORT_OK);
    assert_contents(port, "sub/state", "short");
    assert_int_equal(access("sub/state.new", F_OK), -1); /* nothing is left beside it */
    char absolute[128];
    snprintf(absolute, sizeof absolute, "%s/state", folder);
    assert_int_equal(port->replace_file(port->context, absolute, "abs", 3), PORT_OK);
    assert_contents(port, "state", "abs");
}

static void test_what_a_crash_left_beside_is_overwritten(void **state)
{
    struct port *port = *state;
    assert_int_equal(port->replace_file(port->context, "state.new", "half of something long", 22), PORT_OK);
    assert_int_equal(port->replace_file(port->context, "state", "short", 5), PORT_OK);
    assert_contents(port, "state", "short");
}

static void test_replace_file_failures_keep_the_old_one(void **state)
{
    struct port *port = *state;
    assert_failed(port, port->replace_file(port->context, "none/state", "x", 1), "write: No such file or directory");
    assert_int_equal(port->replace_file(port->context, "kept", "old", 3), PORT_OK);
    assert_int_equal(port->make_directory(port->context, "kept.new"), PORT_OK); /* in the way */
    assert_failed(port, port->replace_file(port->context, "kept", "new", 3), "write: Is a directory");
    assert_contents(port, "kept", "old");
    assert_int_equal(port->make_directory(port->context, "taken"), PORT_OK);
    assert_failed(port, port->replace_file(port->context, "taken", "x", 1), "rename: Is a directory");
    assert_int_equal(access("taken.new", F_OK), -1);
    char name[5000];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_failed(port, port->replace_file(port->context, name, "x", 1), "open: File name too long");
}

static void test_rename(void **state)
{
    struct port *port = *state;
    assert_int_equal(port->replace_file(port->context, "a", "1", 1), PORT_OK);
    assert_int_equal(port->replace_file(port->context, "b", "2", 1), PORT_OK);
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
    assert_int_equal(port->replace_file(port->context, "file", "x", 1), PORT_OK);
    assert_failed(port, port->make_directory(port->context, "file"), "make directory: Not a directory");
    assert_failed(port, port->make_directory(port->context, "file/sub"), "make directory: Not a directory");
}

#define in_folder(test) cmocka_unit_test_setup_teardown(test, enter_folder, leave_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_folder(test_append_goes_to_the_end),
        in_folder(test_append_failures),
        in_folder(test_read_file_holds_its_capacity),
        in_folder(test_replace_file_replaces_whole),
        in_folder(test_what_a_crash_left_beside_is_overwritten),
        in_folder(test_replace_file_failures_keep_the_old_one),
        in_folder(test_rename),
        in_folder(test_make_directory_with_parents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
