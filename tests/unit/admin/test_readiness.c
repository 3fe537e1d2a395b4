/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "readiness.h"

static char buffer[2048];

static const char *page_of(const struct readiness *readiness, uint16_t status)
{
    struct text page = text_in(buffer, sizeof buffer - 1);
    assert_int_equal(readiness_page(readiness, &page), status);
    assert_false(page.truncated);
    buffer[page.used_bytes] = '\0';
    return buffer;
}

static void nothing_is_the_matter(void **state)
{
    (void)state;
    struct readiness readiness;
    readiness_begin(&readiness);
    assert_string_equal(page_of(&readiness, 200), "{\"ready\":true,\"reasons\":[],\"warnings\":[]}\n");
}

static void a_warning_is_no_reason(void **state)
{
    (void)state;
    struct readiness readiness;
    readiness_begin(&readiness);
    readiness_say(&readiness, "broker_away", false, "it is \"away\"");
    assert_string_equal(page_of(&readiness, 200), "{\"ready\":true,\"reasons\":[],\"warnings\":"
                                                  "[{\"code\":\"broker_away\",\"text\":\"it is \\\"away\\\"\"}]}\n");
}

static void reasons_and_warnings_stand_apart(void **state)
{
    (void)state;
    struct readiness readiness;
    readiness_begin(&readiness);
    readiness_say(&readiness, "a", false, "1");
    struct text sentence = readiness_add(&readiness, "b", true);
    text_string(&sentence, "for ");
    text_u64(&sentence, 12);
    readiness_end(&readiness, &sentence);
    readiness_say(&readiness, "c", true, "3");
    assert_false(readiness_is_ready(&readiness));
    assert_string_equal(page_of(&readiness, 503),
                        "{\"ready\":false,\"reasons\":[{\"code\":\"b\",\"text\":\"for 12\"},{\"code\":\"c\",\"text\":"
                        "\"3\"}],\"warnings\":[{\"code\":\"a\",\"text\":\"1\"}]}\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_the_matter),
        cmocka_unit_test(a_warning_is_no_reason),
        cmocka_unit_test(reasons_and_warnings_stand_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
