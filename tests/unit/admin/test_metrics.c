/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "metrics.h"
#include "text.h"

static char buffer[4096];
static struct text out;
static struct metrics metrics;

static int begin(void **state)
{
    (void)state;
    out = text_in(buffer, sizeof buffer - 1);
    metrics = (struct metrics){.out = &out};
    return 0;
}

static const char *written(void)
{
    assert_false(out.truncated);
    buffer[out.used_bytes] = '\0';
    return buffer;
}

static void families_of_one(void **state)
{
    (void)state;
    metrics_count(&metrics, "a_total", "What it is.", UINT64_MAX);
    metrics_gauge(&metrics, "b", "Another.", 0);
    assert_string_equal(written(), "# HELP a_total What it is.\n# TYPE a_total counter\n"
                                   "a_total 18446744073709551615\n"
                                   "# HELP b Another.\n# TYPE b gauge\nb 0\n");
}

static void labels_are_escaped(void **state)
{
    (void)state;
    metrics_begin(&metrics, "a_total", METRICS_COUNTER, "x");
    metrics_add(&metrics, 7, METRICS_LABEL("route", span_text("a\\b\"c\nd \xc3\xa9")),
                METRICS_LABEL("stage", span_text("")));
    metrics_add(&metrics, 8, METRICS_LABEL("route", span_text("\xc3(")));
    const char *samples = strstr(written(), "counter\n") + strlen("counter\n");
    assert_string_equal(samples, "a_total{route=\"a\\\\b\\\"c\\nd \xc3\xa9\",stage=\"\"} 7\n"
                                 "a_total{route=\"?(\"} 8\n");
}

static void values_have_their_point(void **state)
{
    (void)state;
    static const struct {
        uint64_t value_ms;
        const char *text;
    } rows[] = {{0, "0"},    {1, "0.001"},    {10, "0.01"},    {120, "0.12"},
                {1000, "1"}, {1005, "1.005"}, {61500, "61.5"}, {1795644916510, "1795644916.51"}};
    for (size_t index = 0; index < sizeof rows / sizeof rows[0]; index++) {
        (void)begin(state);
        metrics_gauge_ms(&metrics, "a_seconds", "x", rows[index].value_ms);
        const char *sample = strstr(written(), "\na_seconds ") + strlen("\na_seconds ");
        assert_memory_equal(sample, rows[index].text, strlen(rows[index].text));
        assert_string_equal(sample + strlen(rows[index].text), "\n");
    }
}

static void a_histogram_sums_up(void **state)
{
    (void)state;
    static const uint64_t bounds[] = {1000000, 5000000, 2000000000};
    struct metrics_histogram histogram = {.bounds = bounds, .bound_count = 3, .digits = METRICS_NS};
    static const uint64_t seen[] = {0, 1000000, 1000001, 5000000, 2000000001, 3};
    for (size_t index = 0; index < sizeof seen / sizeof seen[0]; index++) {
        metrics_observe(&histogram, seen[index]);
    }
    metrics_histogram(&metrics, "a_seconds", "x", &histogram);
    assert_string_equal(written(), "# HELP a_seconds x\n# TYPE a_seconds histogram\n"
                                   "a_seconds_bucket{le=\"0.001\"} 3\n"
                                   "a_seconds_bucket{le=\"0.005\"} 5\n"
                                   "a_seconds_bucket{le=\"2\"} 5\n"
                                   "a_seconds_bucket{le=\"+Inf\"} 6\n"
                                   "a_seconds_sum 2.007000005\n"
                                   "a_seconds_count 6\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(families_of_one, begin),
        cmocka_unit_test_setup(labels_are_escaped, begin),
        cmocka_unit_test_setup(values_have_their_point, begin),
        cmocka_unit_test_setup(a_histogram_sums_up, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
