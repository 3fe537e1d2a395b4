/* SPDX-License-Identifier: MIT */
/* The log writes through the machine's port into a folder of the test's own; the clock stands still, and calls can be
 * made to fail. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
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

#include "arena.h"
#include "log.h"
#include "port.h"
#include "port_posix.h"
#include "utf8.h"

static _Alignas(ARENA_ALIGN_BYTES) uint8_t memory[128 * 1024];
static struct port machine; /* as it is */
static struct port port;    /* as the log sees it */
static char folder[256];
static char path[300];
static char contents[256 * 1024];

static int64_t wall_ms;
static uint64_t now_ns;
static bool append_fails;
static size_t append_torn_bytes; /* what the next failing append writes all the same */
static bool open_fails;
static bool rename_fails;

static int64_t test_wall_ms(void *context)
{
    (void)context;
    return wall_ms;
}

static uint64_t test_now_ns(void *context)
{
    (void)context;
    return now_ns;
}

static enum port_result test_append(void *context, port_file file, const void *data, size_t bytes,
                                    size_t *written_bytes)
{
    if (append_fails) {
        size_t torn_bytes = append_torn_bytes < bytes ? append_torn_bytes : bytes;
        append_torn_bytes = 0;
        (void)machine.append(context, file, data, torn_bytes, written_bytes);
        return PORT_FAILED;
    }
    return machine.append(context, file, data, bytes, written_bytes);
}

static enum port_result test_open_append(void *context, const char *file_path, port_file *file, uint64_t *size_bytes)
{
    return open_fails ? PORT_FAILED : machine.open_append(context, file_path, file, size_bytes);
}

static enum port_result test_rename(void *context, const char *from, const char *to)
{
    return rename_fails ? PORT_FAILED : machine.rename(context, from, to);
}

static const char *test_error_text(void *context)
{
    (void)context;
    return "no space left";
}

static struct log_options options(uint64_t file_bytes_max, uint32_t file_count)
{
    return (struct log_options){
        .path = path, .level = LOG_INFO, .file_bytes_max = file_bytes_max, .file_count = file_count};
}

static void open_log(struct log *log, uint64_t file_bytes_max, uint32_t file_count)
{
    struct arena arena;
    struct log_options chosen = options(file_bytes_max, file_count);
    memset(memory, 0, sizeof memory);
    arena_begin(&arena, memory, sizeof memory);
    log_open(log, &port, &arena, &chosen);
}

/* The file's text, terminated; NULL when there is no file. */
static const char *read_text(const char *file_path)
{
    FILE *file = fopen(file_path, "rb");
    if (file == NULL) {
        return NULL;
    }
    size_t bytes = fread(contents, 1, sizeof contents - 1, file);
    (void)fclose(file);
    contents[bytes] = '\0';
    return contents;
}

static const char *read_log(void)
{
    return read_text(path);
}

static const char *numbered(unsigned number)
{
    static char name[320];
    (void)snprintf(name, sizeof name, number == 0 ? "%s" : "%s.%u", path, number);
    return name;
}

static long file_bytes(const char *file_path)
{
    struct stat info;
    return stat(file_path, &info) == 0 ? (long)info.st_size : -1;
}

static int set_up(void **state)
{
    (void)state;
    static const char root[] = "/tmp/postern-log-XXXXXX";
    memcpy(folder, root, sizeof root);
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/test.log", folder);
    port = machine;
    port.wall_ms = test_wall_ms;
    port.now_ns = test_now_ns;
    port.append = test_append;
    port.open_append = test_open_append;
    port.rename = test_rename;
    port.error_text = test_error_text;
    wall_ms = 1795418471839;
    now_ns = 1000;
    append_fails = false;
    append_torn_bytes = 0;
    open_fails = false;
    rename_fails = false;
    return 0;
}

static void remove_folder(const char *name)
{
    DIR *directory = opendir(name);
    assert_non_null(directory);
    for (const struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        char inner[600];
        (void)snprintf(inner, sizeof inner, "%s/%s", name, entry->d_name);
        if (unlink(inner) != 0) {
            remove_folder(inner);
        }
    }
    (void)closedir(directory);
    assert_int_equal(rmdir(name), 0);
}

static int tear_down(void **state)
{
    (void)state;
    remove_folder(folder);
    return 0;
}

/* Standard error goes into a file while `act` runs; returns its text. */
static const char *stderr_of(void (*act)(struct log *), struct log *log)
{
    char captured[300];
    (void)snprintf(captured, sizeof captured, "%s/stderr", folder);
    (void)fflush(stderr);
    int kept = dup(STDERR_FILENO);
    int file = open(captured, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(kept >= 0 && file >= 0 && dup2(file, STDERR_FILENO) >= 0);
    act(log);
    (void)fflush(stderr);
    assert_true(dup2(kept, STDERR_FILENO) >= 0);
    (void)close(kept);
    (void)close(file);
    return read_text(captured);
}

static void lines_are_logfmt(void **state)
{
    (void)state;
    struct log log;
    open_log(&log, 65536, 2);
    log_event(&log, LOG_INFO, "started");
    wall_ms += 1161;
    log_event(&log, LOG_WARN, "client_connected", LOG_SPAN("client", span_text("dev-7")), LOG_U64("seq", UINT64_MAX),
              LOG_I64("offset", -5), LOG_TEXT("reason", "why"));
    wall_ms = 0;
    log_event(&log, LOG_ERROR, "clock");
    log_flush(&log);
    assert_string_equal(read_log(), "ts=2026-11-23T07:21:11.839Z level=info event=started\n"
                                    "ts=2026-11-23T07:21:13.000Z level=warn event=client_connected client=dev-7 "
                                    "seq=18446744073709551615 offset=-5 reason=why\n"
                                    "ts=1970-01-01T00:00:00.000Z level=error event=clock\n");
    log_close(&log);
}

static void values_are_quoted_where_they_must_be(void **state)
{
    (void)state;
    static const struct {
        struct span value;
        const char *written;
    } cases[] = {
        {SPAN("plain"), "plain"},
        {SPAN("a-b_c.d~e/f:g@h{}[],;"), "a-b_c.d~e/f:g@h{}[],;"},
        {SPAN(""), "\"\""},
        {SPAN("two words"), "\"two words\""},
        {SPAN("a=b"), "\"a=b\""},
        {SPAN("say \"hi\""), "\"say \\\"hi\\\"\""},
        {SPAN("back\\slash"), "\"back\\\\slash\""},
        {SPAN("line\nbreak\r\ttab"), "\"line\\nbreak\\r\\ttab\""},
        {SPAN("nul\0bell\x07 del\x7f"), "\"nul\\x00bell\\x07 del\\x7f\""},
        {SPAN("esc\x1b[31m"), "\"esc\\x1b[31m\""},
        {SPAN("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"), "\"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\""},
        {SPAN("\xc3"), "\"\\xc3\""},
        {SPAN("\xff\xfe"), "\"\\xff\\xfe\""},
        {SPAN("\xe2\x82x"), "\"\\xe2\\x82x\""},
        {SPAN("\xed\xa0\x80"), "\"\\xed\\xa0\\x80\""},
        {SPAN("\xc2\x85\xc2\x9b\xc2\xa0"), "\"\\xc2\\x85\\xc2\\x9b\xc2\xa0\""},
    };
    struct log log;
    open_log(&log, 65536, 2);
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        log_event(&log, LOG_INFO, "e", LOG_SPAN("value", cases[index].value));
    }
    log_event(&log, LOG_INFO, "e", LOG_TEXT("value", NULL));
    log_flush(&log);
    const char *text = read_log();
    assert_non_null(text);
    static const char start[] = "ts=2026-11-23T07:21:11.839Z level=info event=e value=";
    for (size_t index = 0; index <= sizeof cases / sizeof cases[0]; index++) {
        const char *written = index < sizeof cases / sizeof cases[0] ? cases[index].written : "\"\"";
        assert_memory_equal(text, start, sizeof start - 1);
        text += sizeof start - 1;
        assert_memory_equal(text, written, strlen(written));
        text += strlen(written);
        assert_int_equal(*text++, '\n');
    }
    assert_int_equal(*text, '\0');
    log_close(&log);
}

static void a_level_that_is_off_costs_nothing(void **state)
{
    (void)state;
    struct log log;
    uint64_t evaluated = 0;
    open_log(&log, 65536, 2);
    log_event(&log, LOG_DEBUG, "unseen", LOG_U64("evaluated", ++evaluated));
    assert_int_equal(evaluated, 0);
    log_event(&log, LOG_INFO, "seen", LOG_U64("evaluated", ++evaluated));
    assert_int_equal(evaluated, 1);
    log_flush(&log);
    assert_null(strstr(read_log(), "unseen"));
    assert_false(log_enabled(&log, LOG_DEBUG));
    assert_true(log_enabled(&log, LOG_ERROR));
    log_close(&log);
}

static void long_lines_are_cut_at_a_character(void **state)
{
    (void)state;
    static char value[6000];
    struct log log;
    open_log(&log, 65536, 2);
    for (size_t kind = 0; kind < 4; kind++) {
        /* Letters, two-byte characters from an even and from an odd place, escapes. */
        static const char *const pairs[] = {"xx", "\xc3\xa9", "\xc3\xa9", "\n\n"};
        for (size_t at = 0; at < sizeof value; at++) {
            value[at] = pairs[kind][at % 2];
        }
        log_event(&log, LOG_INFO, kind == 2 ? "odd" : "even_", LOG_SPAN("value", span_of(value, sizeof value)),
                  LOG_TEXT("lost", "never seen"));
        log_event(&log, LOG_INFO, "next");
    }
    log_flush(&log);
    const char *text = read_log();
    for (size_t kind = 0; kind < 4; kind++) {
        const char *end = strchr(text, '\n');
        size_t bytes = (size_t)(end - text) + 1;
        assert_in_range(bytes, LOG_LINE_BYTES_MAX - 4, LOG_LINE_BYTES_MAX);
        static const char *const tails[] = {"xx cut=1", "\xc3\xa9\" cut=1", "\xc3\xa9\" cut=1", "\\n\" cut=1"};
        assert_memory_equal(end - strlen(tails[kind]), tails[kind], strlen(tails[kind]));
        text = strchr(end + 1, '\n') + 1;
    }
    assert_null(strstr(read_log(), "never seen"));
    log_close(&log);
}

static void a_line_of_too_many_fields_is_cut_between_them(void **state)
{
    (void)state;
    static struct log_field fields[300];
    struct log log;
    open_log(&log, 65536, 2);
    fields[0] = LOG_TEXT("event", "many");
    for (size_t index = 1; index < 300; index++) {
        fields[index] = LOG_U64("number", 18446744073709551615U);
    }
    log_write(&log, LOG_INFO, fields, 300);
    log_flush(&log);
    const char *text = read_log();
    assert_in_range(strlen(text), LOG_LINE_BYTES_MAX - 48, LOG_LINE_BYTES_MAX);
    static const char tail[] = " number=18446744073709551615 cut=1\n";
    assert_string_equal(text + strlen(text) - strlen(tail), tail);
    log_close(&log);
}

static void a_flush_is_one_write(void **state)
{
    (void)state;
    struct log log;
    open_log(&log, 1 << 20, 2);
    log_flush(&log);
    assert_int_equal(log.write_count, 0);
    for (int line = 0; line < 100; line++) {
        log_event(&log, LOG_INFO, "line");
    }
    assert_int_equal(file_bytes(path), 0);
    log_flush(&log);
    assert_int_equal(log.write_count, 1);
    log_flush(&log);
    assert_int_equal(log.write_count, 1);
    /* More than the buffer holds reaches the file by itself. */
    for (int line = 0; line < 3000; line++) {
        log_event(&log, LOG_INFO, "line");
    }
    assert_true(log.write_count >= 2 && log.lost_total == 0);
    log_close(&log);
    size_t lines = 0;
    for (const char *at = strchr(read_log(), '\n'); at != NULL; at = strchr(at + 1, '\n')) {
        lines++;
    }
    assert_int_equal(lines, 3100);
}

/* No file grows beyond the cap, there are as many as asked for, and the newest lines are all there in order. */
static void files_are_capped_and_rotated(void **state)
{
    (void)state;
    struct log log;
    enum { CAP = 5000, FILES = 4 };
    open_log(&log, CAP, FILES);
    unsigned written = 0;
    for (unsigned turn = 0; turn < 400; turn++) {
        for (unsigned line = 0; line <= turn % 7; line++) {
            log_event(&log, LOG_INFO, "line", LOG_U64("number", ++written));
        }
        log_flush(&log);
        for (unsigned number = 0; number <= FILES; number++) {
            assert_true(file_bytes(numbered(number)) <= CAP);
        }
    }
    log_close(&log);
    assert_int_equal(log.lost_total, 0);
    assert_int_equal(file_bytes(numbered(FILES)), -1);
    unsigned expected = 0;
    for (unsigned number = FILES; number-- > 0;) {
        const char *text = read_text(numbered(number));
        assert_non_null(text);
        assert_true(number == 0 || strlen(text) > CAP - 1000);
        for (const char *at = strstr(text, "number="); at != NULL; at = strstr(at + 1, "number=")) {
            unsigned found = (unsigned)strtoul(at + 7, NULL, 10);
            assert_true(expected == 0 || found == expected);
            expected = found + 1;
        }
    }
    assert_int_equal(expected, written + 1);
}

static void a_file_that_is_too_long_at_the_start_is_rotated(void **state)
{
    (void)state;
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (int line = 0; line < 1000; line++) {
        (void)fputs("earlier\n", file);
    }
    (void)fclose(file);
    struct log log;
    open_log(&log, 4096, 2);
    log_event(&log, LOG_INFO, "first");
    log_close(&log);
    assert_int_equal(file_bytes(numbered(1)), 8000);
    assert_non_null(strstr(read_log(), "event=first"));
    assert_null(strstr(read_log(), "earlier"));
}

static void an_earlier_file_is_continued(void **state)
{
    (void)state;
    struct log log;
    open_log(&log, 4096, 2);
    log_event(&log, LOG_INFO, "first");
    log_close(&log);
    open_log(&log, 4096, 2);
    log_event(&log, LOG_INFO, "second");
    log_close(&log);
    assert_non_null(strstr(read_log(), "event=first\nts="));
    assert_non_null(strstr(read_log(), "event=second\n"));
}

static const char *text_beside(const char *name)
{
    static char beside[400];
    (void)snprintf(beside, sizeof beside, "%s/%s", folder, name);
    return read_text(beside);
}

static void open_second_log(struct log *log, uint8_t *of_memory, uint64_t file_bytes_max)
{
    struct arena arena;
    struct log_options chosen = options(file_bytes_max, 3);
    arena_begin(&arena, of_memory, LOG_BUFFER_BYTES_MAX + ARENA_ALIGN_BYTES);
    log_open(log, &port, &arena, &chosen);
}

static _Alignas(ARENA_ALIGN_BYTES) uint8_t second_memory[LOG_BUFFER_BYTES_MAX + ARENA_ALIGN_BYTES];

/* The second program takes another name, with files of its own to rotate, and the name is free again after it. */
static void programs_with_the_same_path_have_a_file_each(void **state)
{
    (void)state;
    enum { CAP = 4096 };
    struct log first;
    struct log second;
    open_log(&first, CAP, 3);
    open_second_log(&second, second_memory, CAP);
    for (int line = 0; line < 100; line++) { /* more than one file of each */
        log_event(&first, LOG_INFO, "first");
        log_event(&second, LOG_INFO, "second");
        log_flush(&first);
        log_flush(&second);
    }
    static const char *const names_first[] = {"test.log", "test.log.1"};
    static const char *const names_second[] = {"test-2.log", "test-2.log.1"};
    for (size_t index = 0; index < 2; index++) {
        const char *text = text_beside(names_first[index]);
        assert_true(text != NULL && strstr(text, "first") != NULL && strstr(text, "second") == NULL);
        text = text_beside(names_second[index]);
        assert_true(text != NULL && strstr(text, "second") != NULL && strstr(text, "first") == NULL);
    }
    log_close(&first);
    open_log(&first, CAP, 3);
    log_event(&first, LOG_INFO, "again");
    log_reopen(&second);
    log_event(&second, LOG_INFO, "reopened");
    log_close(&first);
    log_close(&second);
    assert_non_null(strstr(text_beside("test.log"), "event=again"));
    assert_non_null(strstr(text_beside("test-2.log"), "event=reopened"));
    assert_null(text_beside("test-3.log"));
}

static void the_second_name_stands_before_the_suffix(void **state)
{
    (void)state;
    static const char *const names[][2] = {
        {"plain", "plain-2"}, {".hidden", ".hidden-2"}, {"a.b.log", "a.b-2.log"}, {"d.d/plain", "d.d/plain-2"}};
    for (size_t index = 0; index < sizeof names / sizeof names[0]; index++) {
        struct log first;
        struct log second;
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[index][0]);
        open_log(&first, 4096, 2);
        open_second_log(&second, second_memory, 4096);
        log_event(&second, LOG_INFO, "second");
        log_close(&second);
        log_close(&first);
        const char *text = text_beside(names[index][1]);
        assert_true(text != NULL && strstr(text, "event=second") != NULL);
    }
}

static void the_folder_is_made(void **state)
{
    (void)state;
    struct log log;
    (void)snprintf(path, sizeof path, "%s/logs/test.log", folder);
    open_log(&log, 4096, 2);
    log_event(&log, LOG_INFO, "made");
    log_close(&log);
    assert_non_null(strstr(read_log(), "event=made"));
}

static void reopening_begins_a_file_at_the_path(void **state)
{
    (void)state;
    struct log log;
    open_log(&log, 4096, 2);
    log_event(&log, LOG_INFO, "before");
    char moved[320];
    (void)snprintf(moved, sizeof moved, "%s/moved", folder);
    assert_int_equal(rename(path, moved), 0);
    log_reopen(&log);
    log_event(&log, LOG_INFO, "after");
    log_close(&log);
    assert_non_null(strstr(read_text(moved), "event=before"));
    assert_null(strstr(read_text(moved), "event=after"));
    assert_non_null(strstr(read_log(), "event=after"));
}

static size_t occurrences(const char *text, const char *wanted)
{
    size_t count = 0;
    for (const char *at = strstr(text, wanted); at != NULL; at = strstr(at + 1, wanted)) {
        count++;
    }
    return count;
}

static void flush_and_flush_again(struct log *log)
{
    for (int second = 0; second < 5; second++) {
        log_event(log, LOG_INFO, "during");
        log_flush(log);
        now_ns += 1100000000;
    }
}

static void a_full_disk_is_told_once_and_survived(void **state)
{
    (void)state;
    struct log log;
    open_log(&log, 1 << 20, 2);
    log_event(&log, LOG_INFO, "before");
    log_flush(&log);
    append_fails = true;
    append_torn_bytes = 10;
    const char *told = stderr_of(flush_and_flush_again, &log);
    char expected[512];
    (void)snprintf(expected, sizeof expected, "postern: the log %s cannot be written: no space left\n", path);
    assert_string_equal(told, expected);
    assert_true(log.failing);
    append_fails = false;
    log_event(&log, LOG_INFO, "well");
    log_flush(&log);
    assert_false(log.failing);
    assert_int_equal(log.lost_total, 0);
    const char *text = read_log();
    assert_int_equal(occurrences(text, "event=during\n"), 5);
    assert_non_null(strstr(text, "event=before\nts=2026-11\nts=")); /* the torn beginning stays alone */
    assert_non_null(strstr(text, "event=well\n"));
    assert_non_null(strstr(text, "event=log_recovered lost_lines=0\n"));
    log_close(&log);
}

/* What was written of the lines before the disk was full is not written again. */
static void a_line_stands_in_the_file_once(void **state)
{
    (void)state;
    struct log log;
    open_log(&log, 1 << 20, 2);
    for (uint64_t line = 0; line < 9; line++) {
        log_event(&log, LOG_INFO, "line", LOG_U64("n", line));
    }
    size_t line_bytes = log.buffer_bytes / 9;
    append_fails = true;
    for (size_t lines = 2; lines <= 4; lines += 2) {
        append_torn_bytes = lines * line_bytes + (lines == 2 ? 10 : 0); /* within a line, and between two */
        (void)stderr_of(log_flush, &log);
        now_ns += 1100000000;
    }
    append_fails = false;
    log_flush(&log);
    log_close(&log);
    const char *text = read_log();
    assert_int_equal(occurrences(text, "event=line n="), 9);
    for (unsigned line = 0; line < 9; line++) {
        char ending[16];
        (void)snprintf(ending, sizeof ending, " n=%u\nts=", line);
        assert_int_equal(occurrences(text, ending), 1);
    }
    assert_int_equal(occurrences(text, "\n\n"), 0);
    assert_int_equal(occurrences(text, "\nts=2026-11\n"), 1);
}

/* SIGHUP while the disk is full. */
static void a_torn_line_stays_alone_when_the_file_is_reopened(void **state)
{
    (void)state;
    for (int moved_away = 0; moved_away < 2; moved_away++) {
        struct log log;
        open_log(&log, 1 << 20, 2);
        log_event(&log, LOG_INFO, "before");
        log_flush(&log);
        log_event(&log, LOG_INFO, "during");
        append_fails = true;
        append_torn_bytes = 10;
        (void)stderr_of(log_flush, &log);
        assert_true(moved_away == 0 || rename(path, numbered(9)) == 0);
        log_reopen(&log);
        append_fails = false;
        now_ns += 1100000000;
        log_close(&log);
        const char *text = read_log();
        assert_int_equal(occurrences(text, "event=before\nts=2026-11\nts=2026"), moved_away == 0);
        assert_memory_equal(text, "ts=", 3);
        assert_int_equal(occurrences(text, "event=during\n"), 1);
        assert_int_equal(unlink(path), 0);
    }
}

static void fill_and_overflow(struct log *log)
{
    log_flush(log);
    for (uint64_t line = 0; line < 3000; line++) {
        log_event(log, LOG_INFO, "flood", LOG_U64("n", line));
    }
}

static void what_does_not_fit_while_the_disk_is_full_is_counted(void **state)
{
    (void)state;
    struct log log;
    open_log(&log, 1 << 20, 2);
    append_fails = true;
    assert_true(strlen(stderr_of(fill_and_overflow, &log)) > 0);
    uint64_t lost = log.lost_lines;
    assert_true(lost > 1000 && lost < 3000);
    assert_true(log.lost_total == lost);
    append_fails = false;
    now_ns += 2000000000;
    log_flush(&log);
    char expected[64];
    (void)snprintf(expected, sizeof expected, "event=log_recovered lost_lines=%llu\n", (unsigned long long)lost);
    const char *text = read_log();
    assert_non_null(strstr(text, expected));
    assert_int_equal(occurrences(text, "event=flood"), 3000 - lost);
    assert_non_null(strstr(text, " n=2999\n")); /* the newest are kept */
    assert_int_equal(log.lost_lines, 0);
    log_close(&log);
}

static void a_failed_write_is_not_tried_again_at_once(void **state)
{
    (void)state;
    struct log log;
    open_log(&log, 1 << 20, 2);
    log_event(&log, LOG_INFO, "line");
    append_fails = true;
    (void)stderr_of(log_flush, &log);
    append_fails = false;
    log_flush(&log);
    assert_int_equal(log.write_count, 0);
    now_ns += 999000000;
    log_flush(&log);
    assert_int_equal(log.write_count, 0);
    now_ns += 2000000;
    log_flush(&log);
    assert_true(log.write_count > 0);
    log_close(&log);
}

static void open_and_write(struct log *log)
{
    open_log(log, 4096, 2);
    log_event(log, LOG_INFO, "early");
    log_flush(log);
}

static void a_log_that_cannot_be_opened_is_opened_later(void **state)
{
    (void)state;
    struct log log;
    /* A file stands where the folder should be. */
    char outer[280];
    (void)snprintf(outer, sizeof outer, "%s/a", folder);
    (void)snprintf(path, sizeof path, "%s/b/test.log", outer);
    FILE *obstacle = fopen(outer, "wb");
    assert_non_null(obstacle);
    (void)fclose(obstacle);
    assert_non_null(strstr(stderr_of(open_and_write, &log), "cannot be written"));
    assert_true(log.failing);
    assert_int_equal(unlink(outer), 0);
    now_ns += 2000000000;
    log_flush(&log);
    assert_non_null(strstr(read_log(), "event=early\n"));
    assert_non_null(strstr(read_log(), "event=log_recovered"));
    log_close(&log);
}

static void write_much(struct log *log)
{
    for (int line = 0; line < 200; line++) {
        log_event(log, LOG_INFO, "line");
        log_flush(log);
    }
}

static void the_cap_holds_when_files_cannot_be_renamed(void **state)
{
    (void)state;
    struct log log;
    open_log(&log, 4096, 3);
    rename_fails = true;
    assert_true(strlen(stderr_of(write_much, &log)) > 0);
    assert_true(file_bytes(path) <= 4096);
    assert_true(log.lost_total > 0);
    rename_fails = false;
    now_ns += 2000000000;
    log_event(&log, LOG_INFO, "well");
    log_flush(&log);
    log_close(&log);
    assert_true(file_bytes(path) <= 4096 && file_bytes(numbered(1)) <= 4096);
    assert_non_null(strstr(read_log(), "log_recovered"));
}

/* /dev/null as the log, and /dev/stdout, which leads to a device or to a file. */
static void what_is_no_regular_file_is_never_renamed(void **state)
{
    (void)state;
    char target[300];
    (void)snprintf(target, sizeof target, "%s/target", folder);
    const char *const targets[] = {"/dev/null", target};
    for (size_t index = 0; index < 2; index++) {
        struct log log;
        struct stat named;
        assert_int_equal(symlink(targets[index], path), 0);
        open_log(&log, 4096, 3);
        write_much(&log);
        log_reopen(&log);
        write_much(&log);
        log_close(&log);
        assert_int_equal(log.lost_total, 0);
        assert_int_equal(lstat(path, &named), 0);
        assert_true(S_ISLNK(named.st_mode));
        assert_int_equal(lstat(numbered(1), &named), -1);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(occurrences(read_text(target), "event=line\n"), 400);
}

static void a_pipe_without_a_reader_holds_nobody_up(void **state)
{
    (void)state;
    struct log log;
    assert_int_equal(mkfifo(path, 0600), 0);
    (void)alarm(60);
    port.error_text = machine.error_text;
    assert_non_null(strstr(stderr_of(open_and_write, &log),
                           "cannot be written: open: it is a socket, or a pipe that nobody reads\n"));
    int reader = open(path, O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    now_ns += 2000000000;
    log_flush(&log);
    ssize_t bytes = read(reader, contents, sizeof contents - 1);
    assert_true(bytes > 0);
    contents[bytes] = '\0';
    assert_non_null(strstr(contents, "event=early\n"));
    assert_non_null(strstr(contents, "event=log_recovered"));
    (void)stderr_of(fill_and_overflow, &log); /* more than a pipe holds */
    (void)alarm(0);
    log_close(&log);
    (void)close(reader);
}

static void measuring_takes_what_opening_takes(void **state)
{
    (void)state;
    struct arena arena;
    struct log log;
    struct log_options chosen = options(1 << 20, 2);
    arena_measure(&arena);
    log_open(&log, &port, &arena, &chosen);
    assert_int_equal(arena.row_count, 2);
    assert_int_equal(arena.rows[0].bytes, LOG_BUFFER_BYTES_MAX);
    assert_int_equal(arena.rows[1].count, LOG_RECENT_LINES);
    assert_int_equal(file_bytes(path), -1);
}

static void the_latest_warnings_stay_in_memory(void **state)
{
    (void)state;
    struct log log;
    char long_text[LOG_RECENT_LINE_BYTES * 2];
    open_log(&log, 1 << 20, 2);
    log_event(&log, LOG_INFO, "usual");
    assert_int_equal(log.recent_count, 0);
    log_event(&log, LOG_WARN, "first", LOG_TEXT("cause", "a \"word\""));
    log_event(&log, LOG_ERROR, "second");
    log_event(&log, LOG_DEBUG, "off");
    assert_int_equal(log.recent_count, 2);
    struct span first = log_recent_line(&log, 0);
    static const char end_of_first[] = "Z level=warn event=first cause=\"a \\\"word\\\"\"";
    assert_memory_equal(first.data + first.bytes - (sizeof end_of_first - 1), end_of_first, sizeof end_of_first - 1);
    for (uint64_t number = 0; number < LOG_RECENT_LINES; number++) {
        log_event(&log, LOG_WARN, "again", LOG_U64("number", number));
    }
    assert_int_equal(log.recent_count, 2 + LOG_RECENT_LINES);
    for (uint64_t number = 0; number < LOG_RECENT_LINES; number++) {
        char end[32];
        struct span line = log_recent_line(&log, 2 + number);
        int bytes = snprintf(end, sizeof end, "event=again number=%u", (unsigned)number);
        assert_memory_equal(line.data + line.bytes - bytes, end, (size_t)bytes);
    }
    // A line that is too long for its place is cut between characters.
    for (size_t at = 0; at + 2 < sizeof long_text; at += 2) {
        memcpy(long_text + at, "\xc3\xa9", 3);
    }
    log_event(&log, LOG_WARN, "long", LOG_TEXT("text", long_text));
    struct span cut = log_recent_line(&log, 2 + LOG_RECENT_LINES);
    assert_in_range(cut.bytes, LOG_RECENT_LINE_BYTES - 1, LOG_RECENT_LINE_BYTES);
    assert_true(utf8_valid(cut));
    assert_int_equal(log.line_counts[LOG_ERROR], 1);
    assert_int_equal(log.line_counts[LOG_WARN], 2 + LOG_RECENT_LINES);
    assert_int_equal(log.line_counts[LOG_INFO], 1);
    assert_int_equal(log.line_counts[LOG_DEBUG], 0);
    log_close(&log);
}

static char printed[256 * 1024];
static size_t printed_bytes;
static size_t print_room_bytes; /* how much stdout takes, in whole pieces */

static size_t test_print(void *context, const void *data, size_t bytes)
{
    (void)context;
    if (bytes > print_room_bytes) {
        return 0;
    }
    print_room_bytes -= bytes;
    memcpy(printed + printed_bytes, data, bytes);
    printed_bytes += bytes;
    printed[printed_bytes] = '\0';
    return bytes;
}

static void open_copied_log(struct log *log)
{
    open_log(log, 1 << 20, 2);
    log->options.copy_stdout = true;
    port.print = test_print;
    printed_bytes = 0;
    print_room_bytes = SIZE_MAX;
}

static void stdout_gets_the_same_lines(void **state)
{
    (void)state;
    struct log log;
    open_copied_log(&log);
    for (uint64_t line = 0; line < 1000; line++) {
        log_event(&log, LOG_INFO, "line", LOG_U64("n", line));
        if (line % 70 == 0) {
            log_flush(&log);
        }
    }
    append_fails = true; /* what waits in the buffer for the file is printed once all the same */
    (void)stderr_of(log_flush, &log);
    log_flush(&log);
    append_fails = false;
    log_close(&log);
    assert_non_null(strstr(read_log(), "event=log_recovered"));
    assert_int_equal(file_bytes(path), printed_bytes);
    assert_memory_equal(contents, printed, printed_bytes);
}

static void overflow_with_a_warning(struct log *log)
{
    fill_and_overflow(log);
    log_event(log, LOG_WARN, "seen");
}

static void a_file_that_fails_takes_nothing_from_others(void **state)
{
    (void)state;
    struct log log;
    open_copied_log(&log);
    append_fails = true;
    (void)stderr_of(overflow_with_a_warning, &log);
    log_flush(&log);
    assert_true(log.lost_total > 0);
    assert_int_equal(occurrences(printed, "event=flood"), 3000);
    assert_int_equal(occurrences(printed, "event=seen\n"), 1);
    assert_null(strstr(printed, "stdout_recovered"));
    assert_int_equal(log.recent_count, 1);
    append_fails = false;
    log_close(&log);
}

static void a_stdout_that_takes_nothing_stops_nothing(void **state)
{
    (void)state;
    struct log log;
    open_copied_log(&log);
    print_room_bytes = 0;
    for (int line = 0; line < 5; line++) {
        log_event(&log, LOG_INFO, "unheard");
        log_flush(&log);
    }
    assert_int_equal(printed_bytes, 0);
    print_room_bytes = SIZE_MAX;
    log_event(&log, LOG_INFO, "heard");
    log_flush(&log);
    log_flush(&log);
    log_close(&log);
    assert_null(strstr(printed, "unheard"));
    assert_non_null(strstr(printed, "event=heard\n"));
    assert_int_equal(occurrences(printed, "level=warn event=stdout_recovered lost_lines=5\n"), 1);
    assert_int_equal(occurrences(read_log(), "level=warn event=stdout_recovered lost_lines=5\n"), 1);
}

static void a_stdout_that_does_not_hear_of_its_loss_is_told_again(void **state)
{
    (void)state;
    struct log log;
    open_copied_log(&log);
    print_room_bytes = 0;
    log_event(&log, LOG_INFO, "unheard");
    log_flush(&log);
    print_room_bytes = sizeof "ts=2026-11-23T07:21:11.839Z level=info event=heard\n" - 1;
    log_event(&log, LOG_INFO, "heard");
    log_flush(&log);
    assert_null(strstr(printed, "stdout_recovered"));
    print_room_bytes = SIZE_MAX;
    log_event(&log, LOG_INFO, "heard");
    log_close(&log);
    assert_int_equal(occurrences(printed, "event=heard\n"), 2);
    assert_int_equal(occurrences(printed, "event=stdout_recovered lost_lines=2\n"), 1);
    assert_int_equal(occurrences(read_log(), "event=stdout_recovered"), 2);
}

static int open_machine(void **state)
{
    (void)state;
    const struct port_posix_options chosen = {.poller = PORT_POSIX_POLL, .watch_max = 4};
    return port_posix_open(&machine, &chosen) ? 0 : -1;
}

static int close_machine(void **state)
{
    (void)state;
    port_posix_close(&machine);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(lines_are_logfmt),
        TEST(values_are_quoted_where_they_must_be),
        TEST(a_level_that_is_off_costs_nothing),
        TEST(long_lines_are_cut_at_a_character),
        TEST(a_line_of_too_many_fields_is_cut_between_them),
        TEST(a_flush_is_one_write),
        TEST(files_are_capped_and_rotated),
        TEST(a_file_that_is_too_long_at_the_start_is_rotated),
        TEST(an_earlier_file_is_continued),
        TEST(programs_with_the_same_path_have_a_file_each),
        TEST(the_second_name_stands_before_the_suffix),
        TEST(the_folder_is_made),
        TEST(reopening_begins_a_file_at_the_path),
        TEST(a_full_disk_is_told_once_and_survived),
        TEST(a_line_stands_in_the_file_once),
        TEST(a_torn_line_stays_alone_when_the_file_is_reopened),
        TEST(what_does_not_fit_while_the_disk_is_full_is_counted),
        TEST(a_failed_write_is_not_tried_again_at_once),
        TEST(a_log_that_cannot_be_opened_is_opened_later),
        TEST(the_cap_holds_when_files_cannot_be_renamed),
        TEST(what_is_no_regular_file_is_never_renamed),
        TEST(a_pipe_without_a_reader_holds_nobody_up),
        TEST(stdout_gets_the_same_lines),
        TEST(a_file_that_fails_takes_nothing_from_others),
        TEST(a_stdout_that_takes_nothing_stops_nothing),
        TEST(a_stdout_that_does_not_hear_of_its_loss_is_told_again),
        TEST(the_latest_warnings_stay_in_memory),
        TEST(measuring_takes_what_opening_takes),
    };
    return cmocka_run_group_tests(tests, open_machine, close_machine);
}
