/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "amqp_url.h"
#include "guard_page.h"

static enum amqp_url_error parse(const char *text, struct amqp_brokers *brokers, size_t *offset)
{
    struct guard_page guard;
    guard_page_open(&guard, 4096);
    size_t bytes = strlen(text);
    const uint8_t *data = guard_page_put(&guard, text, bytes);
    enum amqp_url_error error = amqp_url_parse(span_of(data, bytes), brokers, offset);
    guard_page_close(&guard);
    return error;
}

static void test_right_urls(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        const char *host;
        uint16_t port;
        const char *user;
        const char *password;
        const char *vhost;
    } rows[] = {
        {"amqp://localhost", "localhost", 5672, "guest", "guest", "/"},
        {"amqp://localhost/", "localhost", 5672, "guest", "guest", "/"},
        {"amqp://localhost/%2f", "localhost", 5672, "guest", "guest", "/"},
        {"amqp://u:p@10.0.0.1:1/v", "10.0.0.1", 1, "u", "p", "v"},
        {"amqp://u@host:65535/v", "host", 65535, "u", "", "v"},
        {"amqp://u:@host", "host", 5672, "u", "", "/"},
        {"amqp://a%40b:c%3Ad%2Fe%25@h-1.example/x%2Fy", "h-1.example", 5672, "a@b", "c:d/e%", "x/y"},
        {"amqp://u:p@ss@host", "host", 5672, "u", "p@ss", "/"},
        {"amqp://u:p:q@host", "host", 5672, "u", "p:q", "/"},
        {"amqp://[::1]", "::1", 5672, "guest", "guest", "/"},
        {"amqp://u:p@[fe80::1]:5673/v", "fe80::1", 5673, "u", "p", "v"},
        {"  amqp://host\t", "host", 5672, "guest", "guest", "/"},
        {"amqp://%C3%BC:p@host", "host", 5672, "\xc3\xbc", "p", "/"},
        {"amqp://u:sec%20ret@host", "host", 5672, "u", "sec ret", "/"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct amqp_brokers brokers;
        assert_int_equal(parse(rows[i].url, &brokers, NULL), AMQP_URL_OK);
        assert_int_equal(brokers.count, 1);
        assert_string_equal(brokers.at[0].host, rows[i].host);
        assert_int_equal(brokers.at[0].port, rows[i].port);
        assert_string_equal(brokers.at[0].user, rows[i].user);
        assert_string_equal(brokers.at[0].password, rows[i].password);
        assert_string_equal(brokers.at[0].vhost, rows[i].vhost);
    }
}

static void test_lists(void **state)
{
    (void)state;
    struct amqp_brokers brokers;
    assert_int_equal(parse("amqp://a:b@one:1/x, amqp://two ,amqp://c:d@three/", &brokers, NULL), AMQP_URL_OK);
    assert_int_equal(brokers.count, 3);
    assert_string_equal(brokers.at[0].host, "one");
    assert_string_equal(brokers.at[1].host, "two");
    assert_string_equal(brokers.at[1].user, "guest");
    assert_string_equal(brokers.at[2].host, "three");
    assert_string_equal(brokers.at[2].user, "c");
    char many[512] = "amqp://h";
    for (size_t i = 1; i < AMQP_BROKERS_MAX; i++) {
        strcat(many, ",amqp://h");
    }
    assert_int_equal(parse(many, &brokers, NULL), AMQP_URL_OK);
    assert_int_equal(brokers.count, AMQP_BROKERS_MAX);
    strcat(many, ",amqp://h");
    assert_int_equal(parse(many, &brokers, NULL), AMQP_URL_TOO_MANY);
}

static void test_wrong_urls_are_told_with_their_place(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        enum amqp_url_error error;
        size_t offset;
    } rows[] = {
        {"", AMQP_URL_EMPTY, 0},
        {"amqp://a,", AMQP_URL_EMPTY, 9},
        {"amqp://a,,amqp://b", AMQP_URL_EMPTY, 9},
        {"amqps://a", AMQP_URL_SCHEME, 0},
        {"localhost:5672", AMQP_URL_SCHEME, 0},
        {"amqp:/a", AMQP_URL_SCHEME, 0},
        {"amqp://a,http://b", AMQP_URL_SCHEME, 9},
        {"amqp://", AMQP_URL_HOST, 7},
        {"amqp:///v", AMQP_URL_HOST, 7},
        {"amqp://u:p@", AMQP_URL_HOST, 11},
        {"amqp://u:p@:5672", AMQP_URL_HOST, 11},
        {"amqp://ho st", AMQP_URL_HOST, 9},
        {"amqp://host%41", AMQP_URL_HOST, 11},
        {"amqp://[::1", AMQP_URL_HOST, 7},
        {"amqp://[]", AMQP_URL_HOST, 7},
        {"amqp://[::g]", AMQP_URL_HOST, 10},
        {"amqp://host:", AMQP_URL_PORT, 11},
        {"amqp://host:0", AMQP_URL_PORT, 11},
        {"amqp://host:65536", AMQP_URL_PORT, 11},
        {"amqp://host:123456", AMQP_URL_PORT, 11},
        {"amqp://host:5a", AMQP_URL_PORT, 11},
        {"amqp://[::1]5672", AMQP_URL_PORT, 12},
        {"amqp://u:sec ret@host", AMQP_URL_BLANK, 12},
        {"amqp://u\t:p@host", AMQP_URL_BLANK, 8},
        {"amqp://u:p@host/a b", AMQP_URL_BLANK, 17},
        {"amqp://u%4:p@host", AMQP_URL_PERCENT, 8},
        {"amqp://u:p%@host", AMQP_URL_PERCENT, 10},
        {"amqp://u:p%00@host", AMQP_URL_PERCENT, 10},
        {"amqp://host/%2", AMQP_URL_PERCENT, 12},
        {"amqp://host/%zz", AMQP_URL_PERCENT, 12},
        {"amqp://host/a/b", AMQP_URL_VHOST, 13},
        {"amqp://host/a?heartbeat=5", AMQP_URL_VHOST, 13},
        {"amqp://host//", AMQP_URL_VHOST, 12},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct amqp_brokers brokers;
        size_t offset = 999;
        enum amqp_url_error error = parse(rows[i].url, &brokers, &offset);
        if (error != rows[i].error || offset != rows[i].offset) {
            fail_msg("%s: error %d at %zu", rows[i].url, (int)error, offset);
        }
        assert_true(strlen(amqp_url_error_text(error)) > 10);
    }
}

static void test_parts_have_their_ceilings(void **state)
{
    (void)state;
    static const struct {
        const char *format;
        size_t bytes_max;
    } rows[] = {{"amqp://%s", AMQP_HOST_BYTES_MAX},
                {"amqp://%s@h", AMQP_USER_BYTES_MAX},
                {"amqp://u:%s@h", AMQP_PASSWORD_BYTES_MAX},
                {"amqp://h/%s", AMQP_VHOST_BYTES_MAX}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (size_t over = 0; over < 2; over++) {
            char part[512];
            char url[600];
            struct amqp_brokers brokers;
            memset(part, 'a', sizeof part);
            part[rows[i].bytes_max + over] = '\0';
            const char *hole = strstr(rows[i].format, "%s");
            snprintf(url, sizeof url, "%.*s%s%s", (int)(hole - rows[i].format), rows[i].format, part, hole + 2);
            assert_int_equal(parse(url, &brokers, NULL), over == 0 ? AMQP_URL_OK : AMQP_URL_TOO_LONG);
        }
    }
}

/* No cut of a URL reads beyond its end, and none but a whole one names a host it did not hold. */
static void test_every_prefix_is_read_within_its_end(void **state)
{
    (void)state;
    static const char url[] = "amqp://us%40er:pa%3Ass@[fe80::1]:5673/v%2Fh,amqp://other:99/x";
    for (size_t bytes = 0; bytes < sizeof url; bytes++) {
        char cut[sizeof url] = {0};
        struct amqp_brokers brokers;
        size_t offset = 0;
        memcpy(cut, url, bytes);
        if (parse(cut, &brokers, &offset) == AMQP_URL_OK) {
            assert_in_range(brokers.count, 1, 2);
        } else {
            assert_true(offset <= bytes);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right_urls),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_wrong_urls_are_told_with_their_place),
        cmocka_unit_test(test_parts_have_their_ceilings),
        cmocka_unit_test(test_every_prefix_is_read_within_its_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
