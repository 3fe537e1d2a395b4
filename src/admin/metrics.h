/* SPDX-License-Identifier: MIT */
/* Writes metrics in Prometheus's text format (version 0.0.4), and counts what is to be shown as a histogram.
 *
 *     metrics_count(&metrics, "postern_pings_total", "Pings that came.", count);
 *     metrics_begin(&metrics, "postern_refusals_total", METRICS_COUNTER, "Connections refused, by reason.");
 *     metrics_add(&metrics, count, METRICS_LABEL("reason", span));
 *
 * A value is a whole number with some of its digits behind the point: 1500 milliseconds are (1500, METRICS_MS), and
 * written 1.500. doc/metrics.md lists every metric; a test holds the list against what is written.
 *
 * Invariant: a family's samples follow its head. Memory: the caller's. Thread: any one. */
#ifndef POSTERN_ADMIN_METRICS_H
#define POSTERN_ADMIN_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "span.h"

struct text;

enum metrics_kind { METRICS_COUNTER, METRICS_GAUGE, METRICS_HISTOGRAM };

/* How many digits of a value stand behind the point. */
enum { METRICS_WHOLE = 0, METRICS_MS = 3, METRICS_NS = 9 };

struct metrics_label {
    const char *name;
    struct span value; /* any UTF-8 */
};

#define METRICS_LABEL(label_name, label_value) ((struct metrics_label){(label_name), (label_value)})

struct metrics {
    struct text *out;
    const char *name; /* of the family begun last */
    unsigned digits;  /* behind the point, of its values */
};

/* `help` is one sentence. Values are whole numbers unless metrics_unit says otherwise after it. */
void metrics_begin(struct metrics *metrics, const char *name, enum metrics_kind kind, const char *help);

static inline void metrics_unit(struct metrics *metrics, unsigned digits)
{
    metrics->digits = digits;
}

void metrics_write(struct metrics *metrics, uint64_t value, const struct metrics_label *labels, size_t label_count);

/* A sample with at least one label. */
#define metrics_add(to, value, ...)                                                                                    \
    metrics_write((to), (value), (const struct metrics_label[]){__VA_ARGS__},                                          \
                  sizeof((const struct metrics_label[]){__VA_ARGS__}) / sizeof(struct metrics_label))

/* Families of one sample without labels. */
void metrics_count(struct metrics *metrics, const char *name, const char *help, uint64_t value);
void metrics_gauge(struct metrics *metrics, const char *name, const char *help, uint64_t value);
void metrics_count_ms(struct metrics *metrics, const char *name, const char *help, uint64_t value_ms);
void metrics_gauge_ms(struct metrics *metrics, const char *name, const char *help, uint64_t value_ms);

enum { METRICS_BOUNDS_MAX = 16 };

/* How often something had which size. */
struct metrics_histogram {
    const uint64_t *bounds; /* upper ones, inclusive, rising; static */
    size_t bound_count;     /* at most METRICS_BOUNDS_MAX */
    unsigned digits;        /* behind the point, of its values and bounds */
    uint64_t counts[METRICS_BOUNDS_MAX + 1];
    uint64_t sum;
};

static inline void metrics_observe(struct metrics_histogram *histogram, uint64_t value)
{
    size_t index = 0;
    while (index < histogram->bound_count && value > histogram->bounds[index]) {
        index++;
    }
    histogram->counts[index]++;
    histogram->sum += value;
}

void metrics_histogram(struct metrics *metrics, const char *name, const char *help,
                       const struct metrics_histogram *histogram);

#endif
