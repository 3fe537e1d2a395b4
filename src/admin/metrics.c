/* SPDX-License-Identifier: MIT */
/* The format is simple enough to be written as it goes; only label values need escapes. A bucket counts all that is
 * at most its bound, so the counts are summed up while they are written. */
#include "metrics.h"

#include "check.h"
#include "text.h"
#include "utf8.h"

static void write_value(struct text *out, uint64_t value, unsigned digits)
{
    uint64_t unit = 1;
    for (unsigned digit = 0; digit < digits; digit++) {
        unit *= 10;
    }
    text_u64(out, value / unit);
    if (value % unit == 0) {
        return;
    }
    text_char(out, '.');
    for (uint64_t rest = value % unit; rest > 0; rest %= unit) {
        unit /= 10;
        text_char(out, (char)('0' + rest / unit));
    }
}

static void write_label_value(struct text *out, struct span value)
{
    bool is_valid = utf8_valid(value);
    for (size_t index = 0; index < value.bytes; index++) {
        char byte = (char)value.data[index];
        if (!is_valid && value.data[index] >= 0x80) {
            byte = '?';
        }
        if (byte == '\n') {
            text_string(out, "\\n");
            continue;
        }
        if (byte == '\\' || byte == '"') {
            text_char(out, '\\');
        }
        text_char(out, byte);
    }
}

void metrics_begin(struct metrics *metrics, const char *name, enum metrics_kind kind, const char *help)
{
    static const char *const kinds[] = {
        [METRICS_COUNTER] = " counter\n", [METRICS_GAUGE] = " gauge\n", [METRICS_HISTOGRAM] = " histogram\n"};
    metrics->name = name;
    metrics->digits = METRICS_WHOLE;
    text_string(metrics->out, "# HELP ");
    text_string(metrics->out, name);
    text_char(metrics->out, ' ');
    text_string(metrics->out, help);
    text_string(metrics->out, "\n# TYPE ");
    text_string(metrics->out, name);
    text_string(metrics->out, kinds[kind]);
}

void metrics_write(struct metrics *metrics, uint64_t value, const struct metrics_label *labels, size_t label_count)
{
    struct text *out = metrics->out;
    text_string(out, metrics->name);
    for (size_t index = 0; index < label_count; index++) {
        text_char(out, index == 0 ? '{' : ',');
        text_string(out, labels[index].name);
        text_string(out, "=\"");
        write_label_value(out, labels[index].value);
        text_char(out, '"');
    }
    text_string(out, label_count > 0 ? "} " : " ");
    write_value(out, value, metrics->digits);
    text_char(out, '\n');
}

static void write_one(struct metrics *metrics, const char *name, enum metrics_kind kind, const char *help,
                      uint64_t value, unsigned digits)
{
    metrics_begin(metrics, name, kind, help);
    metrics_unit(metrics, digits);
    metrics_write(metrics, value, NULL, 0);
}

void metrics_count(struct metrics *metrics, const char *name, const char *help, uint64_t value)
{
    write_one(metrics, name, METRICS_COUNTER, help, value, METRICS_WHOLE);
}

void metrics_gauge(struct metrics *metrics, const char *name, const char *help, uint64_t value)
{
    write_one(metrics, name, METRICS_GAUGE, help, value, METRICS_WHOLE);
}

void metrics_count_ms(struct metrics *metrics, const char *name, const char *help, uint64_t value_ms)
{
    write_one(metrics, name, METRICS_COUNTER, help, value_ms, METRICS_MS);
}

void metrics_gauge_ms(struct metrics *metrics, const char *name, const char *help, uint64_t value_ms)
{
    write_one(metrics, name, METRICS_GAUGE, help, value_ms, METRICS_MS);
}

static void write_suffixed(struct metrics *metrics, const char *suffix)
{
    text_string(metrics->out, metrics->name);
    text_string(metrics->out, suffix);
}

void metrics_histogram(struct metrics *metrics, const char *name, const char *help,
                       const struct metrics_histogram *histogram)
{
    CHECK(histogram->bound_count <= METRICS_BOUNDS_MAX);
    uint64_t count = 0;
    metrics_begin(metrics, name, METRICS_HISTOGRAM, help);
    for (size_t index = 0; index <= histogram->bound_count; index++) {
        count += histogram->counts[index];
        write_suffixed(metrics, "_bucket{le=\"");
        if (index < histogram->bound_count) {
            write_value(metrics->out, histogram->bounds[index], histogram->digits);
        } else {
            text_string(metrics->out, "+Inf");
        }
        text_string(metrics->out, "\"} ");
        text_u64(metrics->out, count);
        text_char(metrics->out, '\n');
    }
    write_suffixed(metrics, "_sum ");
    write_value(metrics->out, histogram->sum, histogram->digits);
    text_char(metrics->out, '\n');
    write_suffixed(metrics, "_count ");
    text_u64(metrics->out, count);
    text_char(metrics->out, '\n');
}
