/* SPDX-License-Identifier: MIT */
/* URLs, as libpq reads them, and what is said of those that it does not understand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "store_postgres.h"
#include "store_target.h"

static char error[256];

static const char *error_of(const char *url)
{
    struct store_target target;
    assert_false(store_postgres_read_url(url, &target, error, sizeof error));
    return error;
}

static void lists_are_read(void **state)
{
    (void)state;
    struct store_target target;
    assert_true(store_postgres_read_url("postgresql://u:p@/d?host=a,b&hostaddr=10.0.0.1,::1&port=1,2", &target, error,
                                        sizeof error));
    assert_int_equal(target.host_count, 2);
    assert_string_equal(target.hosts[1].name, "b");
    assert_string_equal(target.hosts[1].address, "::1");
    assert_int_equal(target.hosts[1].port, 2);
    assert_non_null(strstr(error_of("postgresql://a/d?hostaddr=10.0.0.1,10.0.0.2"), "as many of those as hosts"));
}

static void errors_say_what_is_wrong_without_the_password(void **state)
{
    (void)state;
    assert_string_equal(error_of("mysql://u:SECRET@h/d"), "it does not begin with postgresql://");
    assert_string_equal(error_of("postgresql://u:SECRET%@h/d"), "invalid percent-encoded token: \"***\"");
    assert_string_equal(error_of("postgresql://u:SECRET@[::1/d"),
                        "end of string reached when looking for matching \"]\" in IPv6 host address in URI: \"***\"");
    assert_string_equal(error_of("postgresql://u:p@h/d?SECRET"),
                        "missing key/value separator \"=\" in URI query parameter: \"***\"");
    assert_null(strstr(error_of("postgresql://u:SECRET@SECRET@h/d"), "SECRET"));
    assert_null(strstr(error_of("postgresql://u:SECRET/SECRET@h/d"), "SECRET"));
}

/* A quote of the password's own ends nothing. */
static void a_password_with_quotes_is_masked_whole(void **state)
{
    (void)state;
    static const char *const passwords[] = {"SE\"CRET", "\"SECRET", "SECRET\"", "\"SECRET\"", "SE: \"CRET"};
    for (size_t i = 0; i < sizeof passwords / sizeof passwords[0]; i++) {
        char url[64];
        (void)snprintf(url, sizeof url, "postgresql://u:%s@[::1/d", passwords[i]);
        assert_null(strstr(error_of(url), "SE"));
        assert_null(strstr(error, "CRET"));
        assert_non_null(strstr(error, "in URI: \"***\""));
    }
}

/* The quote that would end it is beyond what an error holds. */
static void a_long_url_is_masked(void **state)
{
    (void)state;
    char url[1024] = "postgresql://u:SECRET@[::1/";
    memset(url + strlen(url), 'd', sizeof url - strlen(url) - 1);
    url[sizeof url - 1] = '\0';
    assert_non_null(strstr(error_of(url), "in URI: \"***\""));
    assert_null(strstr(error, "SECRET"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_are_read),
        cmocka_unit_test(errors_say_what_is_wrong_without_the_password),
        cmocka_unit_test(a_password_with_quotes_is_masked_whole),
        cmocka_unit_test(a_long_url_is_masked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
