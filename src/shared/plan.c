/* SPDX-License-Identifier: MIT */
/* Columns of fixed width, numbers to the right. */
#include "plan.h"

#include <string.h>

#include "check.h"

enum { WHAT_COLUMNS = 36, NUMBER_COLUMNS = 14, DIGITS_MAX = 20 };

static void write_padded(struct text *text, struct span content, size_t columns, bool to_the_right)
{
    size_t blanks = content.bytes < columns ? columns - content.bytes : 0;
    if (!to_the_right) {
        text_bytes(text, content);
    }
    for (size_t index = 0; index < blanks; index++) {
        text_char(text, ' ');
    }
    if (to_the_right) {
        text_bytes(text, content);
    }
}

static void write_number(struct text *text, uint64_t number)
{
    char digits[DIGITS_MAX];
    struct text written = text_in(digits, sizeof digits);
    text_u64(&written, number);
    write_padded(text, text_span(&written), NUMBER_COLUMNS, true);
}

static void write_row(struct text *text, const char *what, size_t count, size_t bytes_each, size_t bytes)
{
    write_padded(text, span_text(what), WHAT_COLUMNS, false);
    write_number(text, count);
    write_number(text, bytes_each);
    write_number(text, bytes);
    text_char(text, '\n');
}

void plan_begin(struct plan *plan, const struct arena *arena)
{
    memset(plan, 0, sizeof *plan);
    plan->arena = arena;
}

void plan_add(struct plan *plan, const char *what, size_t count, size_t bytes_each)
{
    CHECK(plan->part_count < PLAN_PARTS_MAX);
    plan->parts[plan->part_count++] = (struct plan_part){what, count, bytes_each};
}

size_t plan_total_bytes(const struct plan *plan)
{
    size_t total_bytes = plan->arena->used_bytes;
    for (size_t index = 0; index < plan->part_count; index++) {
        total_bytes += plan->parts[index].count * plan->parts[index].bytes_each;
    }
    return total_bytes;
}

void plan_write(const struct plan *plan, struct text *text)
{
    write_padded(text, span_text("what"), WHAT_COLUMNS, false);
    write_padded(text, span_text("count"), NUMBER_COLUMNS, true);
    write_padded(text, span_text("bytes each"), NUMBER_COLUMNS, true);
    write_padded(text, span_text("bytes"), NUMBER_COLUMNS, true);
    text_char(text, '\n');
    for (size_t index = 0; index < plan->arena->row_count; index++) {
        const struct arena_row *row = &plan->arena->rows[index];
        write_row(text, row->what, row->count, row->bytes_each, row->bytes);
    }
    for (size_t index = 0; index < plan->part_count; index++) {
        const struct plan_part *part = &plan->parts[index];
        write_row(text, part->what, part->count, part->bytes_each, part->count * part->bytes_each);
    }
    write_padded(text, span_text("total"), WHAT_COLUMNS + 2 * NUMBER_COLUMNS, false);
    write_number(text, plan_total_bytes(plan));
    text_char(text, '\n');
}

static void write_line(struct text *text, const char *before, uint64_t number, const char *behind, uint64_t value)
{
    char what_buffer[WHAT_COLUMNS + 2 * NUMBER_COLUMNS];
    struct text what = text_in(what_buffer, sizeof what_buffer);
    text_string(&what, before);
    text_u64(&what, number);
    text_string(&what, behind);
    write_padded(text, text_span(&what), WHAT_COLUMNS + 2 * NUMBER_COLUMNS, false);
    write_number(text, value);
    text_char(text, '\n');
}

void plan_write_spool(struct text *text, uint64_t message_count, uint32_t message_bytes, const uint64_t *rates,
                      size_t rate_count)
{
    write_line(text, "messages of ", message_bytes, " bytes that the spool holds", message_count);
    for (size_t index = 0; index < rate_count; index++) {
        write_line(text, "minutes of outage at ", rates[index], " a second", message_count / rates[index] / 60);
    }
}
