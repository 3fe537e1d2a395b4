/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "routes.h"

static struct routes routes;
static char error_buffer[512];

static bool parse(const char *setting)
{
    struct text error = text_in(error_buffer, sizeof error_buffer - 1);
    bool parsed = routes_parse(&routes, span_text(setting), &error);
    error_buffer[error.used_bytes] = '\0';
    assert_int_equal(parsed, error.used_bytes == 0);
    return parsed;
}

static void expect_queue(const char *type, const char *queue)
{
    struct route route = routes_find(&routes, span_text(type));
    assert_int_equal(route.target, ROUTE_QUEUE);
    assert_true(span_is(routes_queue(&routes, route.queue_index), queue));
}

static void the_default_setting(void **state)
{
    (void)state;
    assert_true(parse("text,voice,video -> messages"));
    assert_int_equal(routes.queue_count, 1);
    expect_queue("text", "messages");
    expect_queue("voice", "messages");
    expect_queue("video", "messages");
    assert_int_equal(routes_find(&routes, span_text("ping")).target, ROUTE_PING);
    assert_int_equal(routes_find(&routes, span_text("pong")).target, ROUTE_PONG);
    assert_int_equal(routes_find(&routes, span_text("tex")).target, ROUTE_UNKNOWN);
    assert_int_equal(routes_find(&routes, span_text("text2")).target, ROUTE_UNKNOWN);
    assert_int_equal(routes_find(&routes, span_text("")).target, ROUTE_UNKNOWN);
}

static void several_rules_and_a_default(void **state)
{
    (void)state;
    assert_true(parse(" a , b->q1;c ->  q2 ;; * -> rest; d->q1;"));
    assert_int_equal(routes.queue_count, 3);
    expect_queue("a", "q1");
    expect_queue("b", "q1");
    expect_queue("c", "q2");
    expect_queue("d", "q1");
    expect_queue("anything", "rest");
    assert_int_equal(routes_find(&routes, span_text("ping")).target, ROUTE_PING);
    char longer[MESSAGE_TYPE_BYTES_MAX + 2];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    expect_queue(longer, "rest");
}

static void wrong_settings_say_why(void **state)
{
    (void)state;
    static const struct {
        const char *setting;
        const char *part;
    } cases[] = {
        {"", "no type"},
        {" ; ", "no type"},
        {"text", "has no"},
        {"text ->", "queue's name \"\""},
        {"-> q", "the type \"\""},
        {"a,,b -> q", "the type \"\""},
        {"Text -> q", "\"Text\" is not"},
        {"te xt -> q", "\"te xt\" is not"},
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa -> q", "is not 1 to 32"},
        {"a -> q; b, a -> r", "\"a\" is routed twice"},
        {"* -> q; * -> q", "\"*\" is routed twice"},
        {"ping -> q", "the gateway's own"},
        {"a -> two words", "two words"},
        {"a -> amq.direct", "amq."},
        {"a -> q -> r", "q -> r"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        assert_false(parse(cases[index].setting));
        if (strstr(error_buffer, cases[index].part) == NULL) {
            fail_msg("%s: %s", cases[index].setting, error_buffer);
        }
    }
}

static void ceilings_are_refused_and_not_passed(void **state)
{
    (void)state;
    char setting[4096];
    for (int count = ROUTES_TYPES_MAX - 2; count <= ROUTES_TYPES_MAX - 1; count++) {
        int at = 0;
        for (int index = 0; index < count; index++) {
            at += snprintf(setting + at, sizeof setting - (size_t)at, "%st%d", index == 0 ? "" : ",", index);
        }
        (void)snprintf(setting + at, sizeof setting - (size_t)at, " -> q");
        // Two places are the handlers'.
        assert_int_equal(parse(setting), count == ROUTES_TYPES_MAX - 2);
    }
    for (int count = ROUTES_QUEUES_MAX; count <= ROUTES_QUEUES_MAX + 1; count++) {
        int at = 0;
        for (int index = 0; index < count; index++) {
            at += snprintf(setting + at, sizeof setting - (size_t)at, "t%d -> q%d;", index, index);
        }
        assert_int_equal(parse(setting), count == ROUTES_QUEUES_MAX);
    }
    memset(setting, 'q', sizeof setting);
    memcpy(setting, "a->", 3);
    setting[3 + QUEUE_NAME_BYTES_MAX] = '\0';
    assert_true(parse(setting));
    setting[3 + QUEUE_NAME_BYTES_MAX] = 'q';
    setting[4 + QUEUE_NAME_BYTES_MAX] = '\0';
    assert_false(parse(setting));
}

static void every_type_of_a_full_table_is_found(void **state)
{
    (void)state;
    char setting[4096];
    int at = 0;
    for (int index = 0; index < ROUTES_TYPES_MAX - 2; index++) {
        at += snprintf(setting + at, sizeof setting - (size_t)at, "type-%d -> q%d;", index, index % ROUTES_QUEUES_MAX);
    }
    assert_true(parse(setting));
    for (int index = 0; index < ROUTES_TYPES_MAX - 2; index++) {
        char type[32];
        char queue[32];
        (void)snprintf(type, sizeof type, "type-%d", index);
        (void)snprintf(queue, sizeof queue, "q%d", index % ROUTES_QUEUES_MAX);
        expect_queue(type, queue);
    }
}

static void a_queue_is_found_by_its_name(void **state)
{
    (void)state;
    assert_true(parse("a -> first; b -> second; c -> first"));
    assert_int_equal(routes_queue_index(&routes, span_text("first")), 0);
    assert_int_equal(routes_queue_index(&routes, span_text("second")), 1);
    assert_int_equal(routes_queue_index(&routes, span_text("firs")), routes.queue_count);
    assert_int_equal(routes_queue_index(&routes, span_text("")), routes.queue_count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_default_setting),
        cmocka_unit_test(several_rules_and_a_default),
        cmocka_unit_test(wrong_settings_say_why),
        cmocka_unit_test(ceilings_are_refused_and_not_passed),
        cmocka_unit_test(every_type_of_a_full_table_is_found),
        cmocka_unit_test(a_queue_is_found_by_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
