/* SPDX-License-Identifier: MIT */
/* What is not seen through the handshake's tests, which go through the scan and the whole grammar. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "guard_page.h"
#include "http.h"

static struct guard_page guard;

static int open_guard(void **state)
{
    (void)state;
    guard_page_open(&guard, 8192);
    return 0;
}

static int close_guard(void **state)
{
    (void)state;
    guard_page_close(&guard);
    return 0;
}

static struct span put(const char *text)
{
    return span_of(guard_page_put(&guard, text, strlen(text)), strlen(text));
}

static void a_request_is_read_in_order(void **state)
{
    (void)state;
    struct span head = put("HEAD /a?b HTTP/1.0\r\nOne:  1 \t\r\nTwo:\r\ntwo: a:b, C\r\n\r\n");
    struct http_scan scan = {0, 0};
    assert_int_equal(http_scan(&scan, head, 1024), HTTP_WHOLE);
    assert_int_equal(scan.scanned_bytes, head.bytes);

    struct http_request_line line;
    assert_null(http_read_request_line(&head, &line));
    assert_true(span_is(line.method, "HEAD") && span_is(line.target, "/a?b"));
    assert_int_equal(line.minor_version, 0);
    static const struct {
        const char *name;
        const char *value;
    } fields[] = {{"One", "1"}, {"Two", ""}, {"two", "a:b, C"}};
    struct http_field field;
    const char *error;
    for (size_t index = 0; index < 3; index++) {
        assert_true(http_next_field(&head, &field, &error));
        assert_true(span_is(field.name, fields[index].name) && span_is(field.value, fields[index].value));
    }
    assert_true(http_list_holds(field.value, "c") && !http_list_holds(field.value, "a"));
    assert_false(http_next_field(&head, &field, &error));
    assert_null(error);
    assert_int_equal(head.bytes, 0);
}

static void a_field_that_is_none_says_why(void **state)
{
    (void)state;
    static const char *const lines[] = {"name\r\n\r\n", ": value\r\n\r\n", "na me: value\r\n\r\n"};
    for (size_t index = 0; index < sizeof lines / sizeof lines[0]; index++) {
        struct span head = put(lines[index]);
        struct http_field field;
        const char *error = NULL;
        assert_false(http_next_field(&head, &field, &error));
        assert_non_null(error);
    }
}

static void a_target_is_cut(void **state)
{
    (void)state;
    static const struct {
        const char *target;
        const char *path; /* NULL: refused */
        const char *query;
    } rows[] = {
        {"/", "/", ""},           {"/a/b?c=d?e", "/a/b", "c=d?e"},
        {"/?", "/", ""},          {"http://x", "/", ""},
        {"WS://x:1/a", "/a", ""}, {"http://x?q", "/", "q"},
        {"a", NULL, NULL},        {"*", NULL, NULL},
        {"/%4", NULL, NULL},      {"/%4g", NULL, NULL},
        {"/%4A", "/%4A", ""},     {"/#", NULL, NULL},
    };
    for (size_t index = 0; index < sizeof rows / sizeof rows[0]; index++) {
        struct span path;
        struct span query;
        const char *error = http_read_target(put(rows[index].target), &path, &query);
        assert_int_equal(error == NULL, rows[index].path != NULL);
        if (error == NULL) {
            assert_true(span_is(path, rows[index].path) && span_is(query, rows[index].query));
        }
    }
}

static void statuses_have_their_phrases(void **state)
{
    (void)state;
    assert_string_equal(http_status_phrase(404), "Not Found");
    assert_string_equal(http_status_phrase(418), "Refused");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_read_in_order),
        cmocka_unit_test(a_field_that_is_none_says_why),
        cmocka_unit_test(a_target_is_cut),
        cmocka_unit_test(statuses_have_their_phrases),
    };
    return cmocka_run_group_tests(tests, open_guard, close_guard);
}
