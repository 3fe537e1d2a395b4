/* SPDX-License-Identifier: MIT */
/* What is written out of the table: the effective settings, the template, the Markdown table and the manual pages'
 * lists. The first is itself right .env text: the origin stands in a comment. */
#include "check.h"
#include "settings.h"
#include "settings_table.h"
#include "text.h"

static struct span span_from(struct span text, size_t at)
{
    return span_of(text.data + at, text.bytes - at);
}

/* Where `needle` begins in `text`; text.bytes when it does not. */
static size_t find(struct span text, const char *needle)
{
    size_t bytes = strlen(needle);
    for (size_t at = 0; at + bytes <= text.bytes; at++) {
        if (memcmp(text.data + at, needle, bytes) == 0) {
            return at;
        }
    }
    return text.bytes;
}

static size_t find_last(struct span text, uint8_t byte)
{
    size_t at = text.bytes;
    while (at > 0 && text.data[at - 1] != byte) {
        at--;
    }
    return at == 0 ? text.bytes : at - 1;
}

/* The first value of `password` or `sslpassword` in a URL's query, whose parameters are parted by &, or in what is no
 * URL (libpq's "host=h password = p"), where it is taken to go on to the end. At the end, and empty, if there is none.
 */
static struct span find_password(struct span query, bool is_url)
{
    static const char name[] = "password";
    size_t at = 0;
    while ((at += find(span_from(query, at), name)) < query.bytes) {
        at += sizeof name - 1;
        while (at < query.bytes && query.data[at] == ' ') {
            at++;
        }
        if (at < query.bytes && query.data[at] == '=') {
            struct span value = span_from(query, at + 1);
            return is_url ? span_of(value.data, find(value, "&")) : value;
        }
    }
    return span_from(query, query.bytes);
}

static void mask_query(struct text *out, struct span query, bool is_url)
{
    while (query.bytes > 0) {
        struct span value = find_password(query, is_url);
        size_t clear_bytes = (size_t)(value.data - query.data);
        text_bytes(out, span_of(query.data, clear_bytes));
        text_string(out, value.bytes > 0 ? "***" : "");
        query = span_from(query, clear_bytes + value.bytes);
    }
}

/* What stands around the login's password; at the text's end what is not there. */
struct login {
    size_t colon;
    size_t at_sign;
};

/* From the first colon to the last @, for a password that is wrong may hold an @, a slash or a question mark. Only what
 * stands within the query's own passwords belongs to no login. */
static struct login find_login(struct span text, bool is_url)
{
    struct login login = {.colon = text.bytes, .at_sign = text.bytes};
    size_t query_at = is_url ? find(text, "?") : 0;
    size_t at = 0;
    while (at < text.bytes) {
        struct span value = find_password(span_from(text, at > query_at ? at : query_at), is_url);
        struct span clear = span_of(text.data + at, (size_t)(value.data - text.data) - at);
        size_t colon = find(clear, ":");
        size_t at_sign = find_last(clear, '@');
        login.colon = login.colon == text.bytes && colon < clear.bytes ? at + colon : login.colon;
        login.at_sign = at_sign < clear.bytes ? at + at_sign : login.at_sign;
        at += clear.bytes + value.bytes;
    }
    return login;
}

void settings_mask_url(struct text *out, struct span url)
{
    while (url.bytes > 0) {
        size_t authority = find(url, "://");
        authority += authority == url.bytes ? 0 : 3;
        /* This URL ends in front of the last comma before the next scheme. A password with a comma or a slash in it,
         * which is wrong, is masked all the same: up to the last @. */
        struct span one = url;
        struct span rest = span_from(url, authority);
        size_t next_scheme = find(rest, "://");
        if (next_scheme < rest.bytes) {
            size_t comma = find_last(span_of(rest.data, next_scheme), ',');
            one.bytes = comma < next_scheme ? authority + comma : url.bytes;
        }
        bool is_url = authority < url.bytes;
        authority = is_url ? authority : 0;
        struct login login = find_login(span_of(one.data + authority, one.bytes - authority), is_url);
        if (login.colon < login.at_sign && authority + login.at_sign < one.bytes) {
            mask_query(out, span_of(one.data, authority + login.colon + 1), is_url);
            text_string(out, "***");
            mask_query(out, span_from(one, authority + login.at_sign), is_url);
        } else {
            mask_query(out, one, is_url);
        }
        url = span_from(url, one.bytes);
    }
}

/* A value (which holds no control characters) as it stands in .env: in quotes where it would not come through without.
 */
static void write_value(struct text *out, const char *value)
{
    if (strpbrk(value, " #$'\"\\") == NULL) {
        text_string(out, value);
    } else if (strchr(value, '\'') == NULL) {
        text_char(out, '\'');
        text_string(out, value);
        text_char(out, '\'');
    } else {
        text_char(out, '"');
        for (; *value != '\0'; value++) {
            text_string(out, *value == '"' || *value == '\\' || *value == '$' ? "\\" : "");
            text_char(out, *value);
        }
        text_char(out, '"');
    }
}

static void write_text(struct text *out, const struct setting *row, const char *value)
{
    char masked_memory[2 * SETTINGS_TEXT_BYTES_MAX + 1];
    struct text masked = text_in(masked_memory, sizeof masked_memory - 1);
    if (row->secret) {
        text_string(&masked, "***");
    } else if (row->type == SETTING_BROKERS || row->type == SETTING_DATABASE) {
        settings_mask_url(&masked, span_text(value));
    } else {
        text_string(&masked, value);
    }
    masked_memory[masked.used_bytes] = '\0';
    write_value(out, masked_memory);
}

static void write_effective(struct text *out, const struct settings *settings, const struct setting *row)
{
    const char *field = (const char *)settings + row->offset;
    uint64_t wide = 0;
    uint32_t narrow = 0;
    bool on = false;
    switch (row->type) {
    case SETTING_INTEGER:
    case SETTING_BYTES:
        if (row->field_bytes == sizeof wide) {
            memcpy(&wide, field, sizeof wide);
        } else {
            memcpy(&narrow, field, sizeof narrow);
            wide = narrow;
        }
        text_u64(out, wide);
        return;
    case SETTING_CHOICE:
        memcpy(&narrow, field, sizeof narrow);
        text_bytes(out, settings_choice_name(row->choices, narrow));
        return;
    case SETTING_BOOLEAN:
        memcpy(&on, field, sizeof on);
        text_char(out, on ? '1' : '0');
        return;
    case SETTING_TEXT:
    case SETTING_ADDRESS:
    case SETTING_BROKERS:
    case SETTING_DATABASE:
        write_text(out, row, field);
        return;
    }
    CHECK(false);
}

void settings_print(const struct settings *settings, const struct settings_sources *sources, struct text *out)
{
    for (size_t index = 0; index < settings_table_count; index++) {
        const struct setting *row = &settings_table[index];
        if ((row->programs & (uint32_t)settings->program) == 0) {
            continue;
        }
        text_string(out, row->name);
        text_char(out, '=');
        write_effective(out, settings, row);
        uint32_t origin = settings->origins[index];
        if (origin == SETTINGS_FROM_DEFAULT || origin == SETTINGS_FROM_ENVIRONMENT) {
            text_string(out, origin == SETTINGS_FROM_DEFAULT ? " # default" : " # environment");
        } else {
            text_string(out, " # ");
            text_string(out, sources->env_name);
            text_char(out, ':');
            text_u64(out, origin);
        }
        text_char(out, '\n');
    }
}

/* The title of the settings that belong to these programs. */
static const char *group_title(uint32_t programs)
{
    switch (programs) {
    case SETTINGS_GATEWAY | SETTINGS_PROCESSOR:
        return "Gateway and processor";
    case SETTINGS_GATEWAY:
        return "Gateway";
    case SETTINGS_PROCESSOR:
        return "Processor";
    case SETTINGS_COMPOSE:
        return "docker-compose only";
    default:
        CHECK(false);
        return "";
    }
}

static bool begins_group(size_t index)
{
    return index == 0 || settings_table[index].programs != settings_table[index - 1].programs;
}

/* The line above a setting's own: its range, and what its default is. */
static void template_note(struct text *out, const struct setting *row)
{
    text_string(out, "# ");
    settings_write_range(out, row);
    text_string(out, row->required ? "; no default, for example:" : "; default:");
    if (row->default_text == NULL && !row->required) {
        text_char(out, ' ');
        text_string(out, row->default_note);
    }
    text_char(out, '\n');
}

/* docker-compose has no defaults of its own, so its settings stand without a #. */
static void template_line(struct text *out, const struct setting *row)
{
    const char *value = row->default_text != NULL ? row->default_text : row->required ? row->default_note : "";
    text_string(out, "\n# ");
    text_string(out, row->help);
    text_char(out, '\n');
    if (row->programs != SETTINGS_COMPOSE) {
        template_note(out, row);
        text_char(out, '#');
    }
    text_string(out, row->name);
    text_char(out, '=');
    write_value(out, value);
    text_char(out, '\n');
}

void settings_template(struct text *out)
{
    text_string(out,
                "# Postern's settings. Copy this file to .env and take the # from the lines you want to change.\n"
                "# The environment wins over .env, and an empty value counts as none. Sizes may be written as\n"
                "# 64K, 8M or 1G. The syntax is docker-compose's: quotes, comments, ${NAME} and ${NAME:-default}.\n");
    for (size_t index = 0; index < settings_table_count; index++) {
        const struct setting *row = &settings_table[index];
        if (begins_group(index)) {
            text_string(out, "\n\n# ---- ");
            text_string(out, group_title(row->programs));
            text_string(out, " ----\n");
        }
        template_line(out, row);
    }
}

/* Text for a cell of a Markdown table. */
static void write_cell(struct text *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '|' || *text == '*' || *text == '_') {
            text_char(out, '\\');
        }
        text_char(out, *text);
    }
}

void settings_markdown(struct text *out)
{
    for (size_t index = 0; index < settings_table_count; index++) {
        const struct setting *row = &settings_table[index];
        if (begins_group(index)) {
            text_string(out, index == 0 ? "**" : "\n**");
            text_string(out, group_title(row->programs));
            text_string(out, "**\n\n| Setting | Default | Range | What it is |\n|---|---|---|---|\n");
        }
        text_string(out, "| `");
        text_string(out, row->name);
        text_string(out, row->default_text == NULL ? "` | " : "` | `");
        write_cell(out, row->default_text != NULL ? "" : row->required ? "none" : row->default_note);
        text_string(out, row->default_text == NULL ? "" : row->default_text);
        text_string(out, row->default_text == NULL ? " | " : "` | ");
        char range_memory[512];
        struct text range = text_in(range_memory, sizeof range_memory - 1);
        if (row->programs != SETTINGS_COMPOSE) {
            settings_write_range(&range, row);
        }
        range_memory[range.used_bytes] = '\0';
        write_cell(out, range_memory);
        text_string(out, " | ");
        write_cell(out, row->help);
        text_string(out, " |\n");
    }
}

/* A line of text in a manual page: what mdoc would take for its own is escaped. */
static void manual_line(struct text *out, const char *line)
{
    text_string(out, line[0] == '.' || line[0] == '\'' ? "\\&" : "");
    for (; *line != '\0'; line++) {
        text_string(out, *line == '\\' ? "\\e" : "");
        if (*line != '\\') {
            text_char(out, *line);
        }
    }
    text_char(out, '\n');
}

void settings_manual(struct text *out, enum settings_program program)
{
    for (size_t index = 0; index < settings_table_count; index++) {
        const struct setting *row = &settings_table[index];
        if ((row->programs & (uint32_t)program) == 0) {
            continue;
        }
        text_string(out, ".It Ev ");
        text_string(out, row->name);
        text_char(out, '\n');
        manual_line(out, row->help);
        char line_memory[1024];
        struct text line = text_in(line_memory, sizeof line_memory - 1);
        text_char(&line, '(');
        settings_write_range(&line, row);
        text_string(&line, row->required ? "; no default)" : "; default: ");
        if (!row->required) {
            text_string(&line, row->default_text != NULL ? row->default_text : row->default_note);
            text_char(&line, ')');
        }
        line_memory[line.used_bytes] = '\0';
        manual_line(out, line_memory);
    }
}
