/* SPDX-License-Identifier: MIT */
/* Columns of fixed width, numbers to the right. */
#include "plan.h"

#include "amqp_link.h"

enum { LINK_COUNT = 2 };

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

static void write_number(struct text *text, size_t number)
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

void plan_write(struct text *text, const struct arena *arena, size_t program_bytes, size_t port_bytes)
{
    write_padded(text, span_text("what"), WHAT_COLUMNS, false);
    write_padded(text, span_text("count"), NUMBER_COLUMNS, true);
    write_padded(text, span_text("bytes each"), NUMBER_COLUMNS, true);
    write_padded(text, span_text("bytes"), NUMBER_COLUMNS, true);
    text_char(text, '\n');
    for (size_t index = 0; index < arena->row_count; index++) {
        const struct arena_row *row = &arena->rows[index];
        write_row(text, row->what, row->count, row->bytes_each, row->bytes);
    }
    write_row(text, "the program's own record", 1, program_bytes, program_bytes);
    write_row(text, "sockets, poller and worker (port)", 1, port_bytes, port_bytes);
    write_row(text, "the AMQP library's buffers", LINK_COUNT, AMQP_LINK_LIBRARY_BYTES,
              (size_t)LINK_COUNT * AMQP_LINK_LIBRARY_BYTES);
    size_t total_bytes = arena->used_bytes + program_bytes + port_bytes + LINK_COUNT * (size_t)AMQP_LINK_LIBRARY_BYTES;
    write_padded(text, span_text("total"), WHAT_COLUMNS + 2 * NUMBER_COLUMNS, false);
    write_number(text, total_bytes);
    text_char(text, '\n');
}
