/* SPDX-License-Identifier: MIT */
/* First the .env file is read whole into one raw value a row, so that its syntax and its names are judged whoever
 * reads it; then each row of the program takes the environment's value, the file's or the default, and is judged by
 * its type. What concerns two settings at once comes last. */
#include "settings.h"

#include "amqp_url.h"
#include "check.h"
#include "decimal.h"
#include "envelope.h"
#include "port.h"
#include "settings_table.h"
#include "text.h"
#include "utf8.h"

/* What the .env file says, a place for each row of the table. */
struct raw {
    uint32_t line; /* 0: not there */
    size_t bytes;
    char value[SETTINGS_TEXT_BYTES_MAX + 1];
};

struct loader {
    struct settings *settings;
    const struct settings_sources *sources;
    struct text *error;
    struct raw raws[SETTINGS_COUNT_MAX];
};

/* A value on its way into its field. */
struct given {
    const struct setting *row;
    struct span value;
    uint32_t origin;
};

static void write_place(const struct loader *loader, uint32_t origin)
{
    if (origin == SETTINGS_FROM_ENVIRONMENT || origin == SETTINGS_FROM_DEFAULT) {
        text_string(loader->error, origin == SETTINGS_FROM_DEFAULT ? "default" : "environment");
    } else {
        text_string(loader->error, loader->sources->env_name);
        text_char(loader->error, ':');
        text_u64(loader->error, origin);
    }
    text_string(loader->error, ": ");
}

/* A value for a message: secrets masked, control characters replaced, cut. */
static void write_value(struct text *out, const struct setting *row, struct span value)
{
    enum { SHOWN_BYTES_MAX = 200 };
    char masked_memory[2 * SETTINGS_TEXT_BYTES_MAX];
    struct text masked = text_in(masked_memory, sizeof masked_memory);
    if (row->secret) {
        text_string(&masked, "***");
    } else if (row->type == SETTING_BROKERS || row->type == SETTING_DATABASE) {
        settings_mask_url(&masked, value);
    } else {
        text_bytes(&masked, value);
    }
    struct span shown = text_span(&masked);
    if (shown.bytes > SHOWN_BYTES_MAX) {
        shown.bytes = utf8_valid_bytes(span_of(shown.data, SHOWN_BYTES_MAX)); /* no half of a character */
    }
    for (size_t index = 0; index < shown.bytes; index++) {
        uint8_t byte = shown.data[index];
        text_bytes(out, byte < ' ' || byte == 0x7F ? span_text("?") : span_of(&byte, 1));
    }
    text_string(out, shown.bytes < masked.used_bytes ? "..." : "");
}

/* Begins the error line: "place: NAME=value". */
static void write_given(const struct loader *loader, const struct given *given)
{
    write_place(loader, given->origin);
    text_string(loader->error, given->row->name);
    text_char(loader->error, '=');
    write_value(loader->error, given->row, given->value);
}

/* "place: NAME=value<middle><range>" */
static bool refuse(const struct loader *loader, const struct given *given, const char *middle)
{
    write_given(loader, given);
    text_string(loader->error, middle);
    settings_write_range(loader->error, given->row);
    return false;
}

static void *field_of(struct settings *settings, const struct setting *row)
{
    return (char *)settings + row->offset;
}

static void put_integer(struct settings *settings, const struct setting *row, uint64_t value)
{
    if (row->field_bytes == sizeof(uint32_t)) {
        uint32_t narrow = (uint32_t)value;
        memcpy(field_of(settings, row), &narrow, sizeof narrow);
    } else {
        CHECK(row->field_bytes == sizeof value);
        memcpy(field_of(settings, row), &value, sizeof value);
    }
}

static bool take_number(const struct loader *loader, const struct given *given)
{
    const struct setting *row = given->row;
    struct span digits = given->value;
    uint64_t unit = 1;
    if (row->type == SETTING_BYTES && digits.bytes > 1) {
        uint8_t upper = digits.data[digits.bytes - 1] & 0xDF;
        unit = upper == 'K' ? 1024U : upper == 'M' ? 1024U * 1024 : upper == 'G' ? 1024U * 1024 * 1024 : 1;
        digits.bytes -= unit == 1 ? 0 : 1;
    }
    size_t digit_count = 0;
    while (digit_count < digits.bytes && digits.data[digit_count] >= '0' && digits.data[digit_count] <= '9') {
        digit_count++;
    }
    if (digit_count == 0 || digit_count < digits.bytes || (digits.data[0] == '0' && digits.bytes > 1)) {
        return refuse(loader, given,
                      row->type == SETTING_BYTES ? " is not a whole number, or one with K, M or G: "
                                                 : " is not a whole number: ");
    }
    uint64_t value;
    if (!decimal_parse(digits, 0, UINT64_MAX / unit, &value) || value * unit < row->min || value * unit > row->max) {
        return refuse(loader, given, " is out of range: ");
    }
    put_integer(loader->settings, row, value * unit);
    return true;
}

static bool take_text(const struct loader *loader, const struct given *given)
{
    const struct setting *row = given->row;
    if (given->value.bytes > row->max) {
        return refuse(loader, given, " is too long: ");
    }
    if (row->form != NULL && !row->form(given->value)) {
        return refuse(loader, given, " is not what it must be: ");
    }
    char *field = field_of(loader->settings, row);
    memcpy(field, given->value.data, given->value.bytes);
    field[given->value.bytes] = '\0';
    return true;
}

static bool parse_address(const struct loader *loader, const char *text, uint32_t port, struct port_address *address)
{
    const struct port *machine = loader->sources->port;
    return machine->parse_address(machine->context, text, (uint16_t)port, address);
}

static bool take_address(const struct loader *loader, const struct given *given)
{
    struct port_address address;
    if (!take_text(loader, given)) {
        return false;
    }
    return parse_address(loader, field_of(loader->settings, given->row), 0, &address) ||
           refuse(loader, given, " is not what it must be: ");
}

static bool take_choice(const struct loader *loader, const struct given *given)
{
    size_t index = settings_choice_index(given->row->choices, given->value);
    if (index == SIZE_MAX) {
        return refuse(loader, given, " is none of: ");
    }
    unsigned value = (unsigned)index;
    memcpy(field_of(loader->settings, given->row), &value, sizeof value);
    return true;
}

static bool take_boolean(const struct loader *loader, const struct given *given)
{
    bool on = span_is(given->value, "1");
    if (!on && !span_is(given->value, "0")) {
        return refuse(loader, given, " is not ");
    }
    memcpy(field_of(loader->settings, given->row), &on, sizeof on);
    return true;
}

static bool take_brokers(const struct loader *loader, const struct given *given)
{
    struct amqp_brokers brokers;
    enum amqp_url_error error = amqp_url_parse(given->value, &brokers, NULL);
    if (error != AMQP_URL_OK) {
        write_given(loader, given);
        text_string(loader->error, " is wrong: ");
        text_string(loader->error, amqp_url_error_text(error));
        return false;
    }
    return take_text(loader, given);
}

static bool begins_with(struct span text, const char *prefix)
{
    size_t bytes = strlen(prefix);
    return text.bytes >= bytes && memcmp(text.data, prefix, bytes) == 0;
}

static bool take_database(const struct loader *loader, const struct given *given)
{
    if (!begins_with(given->value, "postgresql://") && !begins_with(given->value, "postgres://")) {
        return refuse(loader, given, " is not a PostgreSQL URL: ");
    }
    return take_text(loader, given);
}

static bool has_control(struct span value)
{
    for (size_t index = 0; index < value.bytes; index++) {
        if (value.data[index] < ' ' || value.data[index] == 0x7F) {
            return true;
        }
    }
    return false;
}

/* Judges a value and puts it into its field. */
static bool take_given(const struct loader *loader, const struct given *given)
{
    if (!utf8_valid(given->value) || has_control(given->value)) {
        write_place(loader, given->origin);
        text_string(loader->error, given->row->name);
        text_string(loader->error, " holds a control character or is not UTF-8");
        return false;
    }
    switch (given->row->type) {
    case SETTING_INTEGER:
    case SETTING_BYTES:
        return take_number(loader, given);
    case SETTING_TEXT:
        return take_text(loader, given);
    case SETTING_ADDRESS:
        return take_address(loader, given);
    case SETTING_CHOICE:
        return take_choice(loader, given);
    case SETTING_BOOLEAN:
        return take_boolean(loader, given);
    case SETTING_BROKERS:
        return take_brokers(loader, given);
    case SETTING_DATABASE:
        return take_database(loader, given);
    }
    CHECK(false);
    return false;
}

/* Reading .env. */

static struct span environment(const struct loader *loader, const char *name)
{
    const char *value = loader->sources->lookup(loader->sources->context, name);
    return value == NULL ? (struct span){NULL, 0} : span_text(value);
}

/* What ${NAME} stands for: the environment's value, else that of an earlier line. */
static struct span look_up_variable(void *context, struct span name)
{
    const struct loader *loader = context;
    char terminated[128];
    if (name.bytes >= sizeof terminated) {
        return (struct span){NULL, 0};
    }
    memcpy(terminated, name.data, name.bytes);
    terminated[name.bytes] = '\0';
    struct span value = environment(loader, terminated);
    size_t row = settings_find(name);
    if (value.data != NULL || row == settings_table_count || loader->raws[row].line == 0) {
        return value;
    }
    return span_of(loader->raws[row].value, loader->raws[row].bytes);
}

static unsigned upper(uint8_t byte)
{
    return byte >= 'a' && byte <= 'z' ? byte - 32U : byte;
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* How many characters must be added, dropped, changed or swapped with their neighbour to make b of a (optimal string
 * alignment); large when a name is too long to compare. */
static unsigned distance(struct span a, struct span b)
{
    enum { NAME_BYTES_MAX = 48 };
    if (a.bytes > NAME_BYTES_MAX || b.bytes > NAME_BYTES_MAX) {
        return UINT32_MAX;
    }
    unsigned rows[3][NAME_BYTES_MAX + 1];
    unsigned *before = rows[0];
    unsigned *last = rows[1];
    unsigned *row = rows[2];
    for (unsigned column = 0; column <= b.bytes; column++) {
        before[column] = column;
        last[column] = column;
    }
    for (size_t i = 1; i <= a.bytes; i++) {
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b.bytes; j++) {
            unsigned changed = upper(a.data[i - 1]) == upper(b.data[j - 1]) ? 0 : 1;
            row[j] = least(least(last[j] + 1, row[j - 1] + 1), last[j - 1] + changed);
            if (i > 1 && j > 1 && upper(a.data[i - 1]) == upper(b.data[j - 2]) &&
                upper(a.data[i - 2]) == upper(b.data[j - 1])) {
                row[j] = least(row[j], before[j - 2] + 1);
            }
        }
        unsigned *oldest = before;
        before = last;
        last = row;
        row = oldest;
    }
    return last[b.bytes];
}

static bool refuse_name(const struct loader *loader, const struct settings_line *line)
{
    write_place(loader, line->number);
    text_bytes(loader->error, line->name);
    text_string(loader->error, " is not a setting");
    unsigned best_distance = UINT32_MAX;
    const char *best = NULL;
    for (size_t row = 0; row < settings_table_count; row++) {
        unsigned found = distance(line->name, span_text(settings_table[row].name));
        if (found < best_distance) {
            best_distance = found;
            best = settings_table[row].name;
        }
    }
    /* A third of the name may differ. */
    if (best != NULL && best_distance <= line->name.bytes / 3) {
        text_string(loader->error, "; did you mean ");
        text_string(loader->error, best);
        text_char(loader->error, '?');
    }
    return false;
}

static bool take_line(struct loader *loader, const struct settings_line *line)
{
    size_t row = settings_find(line->name);
    if (row == settings_table_count) {
        /* docker-compose's and docker's own names are theirs to judge. */
        bool foreign = begins_with(line->name, "COMPOSE_") || begins_with(line->name, "DOCKER_");
        return foreign || refuse_name(loader, line);
    }
    struct raw *raw = &loader->raws[row];
    if (raw->line != 0) {
        write_place(loader, line->number);
        text_bytes(loader->error, line->name);
        text_string(loader->error, " is set a second time; the first is in line ");
        text_u64(loader->error, raw->line);
        return false;
    }
    raw->line = line->number;
    raw->bytes = line->value_bytes;
    memcpy(raw->value, line->value, line->value_bytes);
    return true;
}

static bool read_env(struct loader *loader)
{
    struct settings_reader reader = {.text = loader->sources->env_text, .lookup = look_up_variable, .context = loader};
    struct settings_line line;
    for (;;) {
        char sentence_memory[256];
        struct text sentence = text_in(sentence_memory, sizeof sentence_memory);
        switch (settings_read(&reader, &line, &sentence)) {
        case SETTINGS_READ_END:
            return true;
        case SETTINGS_READ_BAD:
            write_place(loader, line.number);
            text_bytes(loader->error, text_span(&sentence));
            return false;
        case SETTINGS_READ_LINE:
            if (!take_line(loader, &line)) {
                return false;
            }
            break;
        }
    }
}

/* Filling the program's fields. */

static bool load_row(const struct loader *loader, size_t index)
{
    const struct setting *row = &settings_table[index];
    const struct raw *raw = &loader->raws[index];
    struct given given = {row, environment(loader, row->name), SETTINGS_FROM_ENVIRONMENT};
    if (given.value.bytes == 0 && raw->bytes > 0) {
        given.value = span_of(raw->value, raw->bytes);
        given.origin = raw->line;
    }
    if (given.value.bytes == 0 && row->default_text != NULL) {
        given.value = span_text(row->default_text);
        given.origin = SETTINGS_FROM_DEFAULT;
    }
    if (given.value.bytes == 0) {
        if (row->required) {
            text_string(loader->error, "environment: ");
            text_string(loader->error, row->name);
            text_string(loader->error, " is not set; it has no default: ");
            settings_write_range(loader->error, row);
            return false;
        }
        loader->settings->origins[index] = SETTINGS_FROM_DEFAULT;
        return true;
    }
    loader->settings->origins[index] = given.origin;
    return take_given(loader, &given);
}

/* The defaults that the table cannot hold. */
static bool fill_computed(const struct loader *loader, enum settings_program program)
{
    struct settings *settings = loader->settings;
    if (program == SETTINGS_GATEWAY && settings->gateway_id[0] == '\0') {
        const struct given given = {&settings_table[settings_find(span_text("GATEWAY_ID"))],
                                    span_text(loader->sources->host_name), SETTINGS_FROM_DEFAULT};
        if (!gateway_id_valid(given.value)) {
            text_string(loader->error, "default: GATEWAY_ID is not set, and the host's name cannot stand for it: ");
            settings_write_range(loader->error, given.row);
            return false;
        }
        return take_given(loader, &given);
    }
    if (program == SETTINGS_PROCESSOR && settings->processor_prefetch == 0) {
        settings->processor_prefetch = 4 * settings->processor_batch;
    }
    return true;
}

static uint32_t origin_of(const struct loader *loader, const char *name)
{
    return loader->settings->origins[settings_find(span_text(name))];
}

/* Begins the line about two settings: "place: NAME=value". */
static void write_number(const struct loader *loader, const char *name, uint64_t value)
{
    write_place(loader, origin_of(loader, name));
    text_string(loader->error, name);
    text_char(loader->error, '=');
    text_u64(loader->error, value);
}

/* "place: NAME=value must be at least <floor> (<why>)", where NAME's own range is kept. */
static bool refuse_pair(const struct loader *loader, const char *name, uint64_t value, uint64_t floor, const char *why)
{
    write_number(loader, name, value);
    text_string(loader->error, " must be at least ");
    text_u64(loader->error, floor);
    text_string(loader->error, ": ");
    text_string(loader->error, why);
    return false;
}

/* Whether who listens at `one` has the port of `other` too: it is the same address, or all of them. An IPv6 listener
 * for all addresses takes IPv4 as well. */
static bool takes_port_of(const struct port_address *one, const struct port_address *other)
{
    static const struct port_address all;
    if (memcmp(one->bytes, all.bytes, sizeof all.bytes) == 0) {
        return one->v6 || !other->v6;
    }
    return one->v6 == other->v6 && memcmp(one->bytes, other->bytes, sizeof one->bytes) == 0;
}

static bool check_ports(const struct loader *loader)
{
    const struct settings *settings = loader->settings;
    struct port_address clients;
    struct port_address pages;
    CHECK(parse_address(loader, settings->listen_address, settings->port, &clients));
    CHECK(parse_address(loader, settings->admin_address, settings->admin_port, &pages));
    if (clients.port != pages.port || (!takes_port_of(&clients, &pages) && !takes_port_of(&pages, &clients))) {
        return true;
    }
    /* What was written is named, not what is a default. */
    bool is_clients = origin_of(loader, "ADMIN_PORT") == SETTINGS_FROM_DEFAULT;
    write_number(loader, is_clients ? "PORT" : "ADMIN_PORT", settings->port);
    text_string(loader->error, is_clients ? " is ADMIN_PORT" : " is PORT");
    text_string(loader->error, " too, and LISTEN_ADDRESS and ADMIN_ADDRESS overlap: choose another");
    return false;
}

static bool check_pairs(const struct loader *loader, enum settings_program program)
{
    const struct settings *settings = loader->settings;
    /* A message's frame in the outbox: the body around the content, its ids and its route. */
    enum { MESSAGE_OVERHEAD_BYTES = 1024 };
    uint64_t outbox_floor = 4 * ((uint64_t)settings->max_message_bytes + MESSAGE_OVERHEAD_BYTES);
    if (program == SETTINGS_GATEWAY && settings->outbox_bytes < outbox_floor) {
        return refuse_pair(loader, "OUTBOX_BYTES", settings->outbox_bytes, outbox_floor,
                           "4 x (MAX_MESSAGE_BYTES + 1024)");
    }
    if (program == SETTINGS_PROCESSOR && settings->processor_prefetch < settings->processor_batch) {
        return refuse_pair(loader, "PROCESSOR_PREFETCH", settings->processor_prefetch, settings->processor_batch,
                           "PROCESSOR_BATCH");
    }
    return program != SETTINGS_GATEWAY || check_ports(loader);
}

bool settings_load(struct settings *settings, enum settings_program program, const struct settings_sources *sources,
                   struct text *error)
{
    struct loader loader = {.settings = settings, .sources = sources, .error = error};
    memset(settings, 0, sizeof *settings);
    settings->program = program;
    if (!read_env(&loader)) {
        return false;
    }
    for (size_t row = 0; row < settings_table_count; row++) {
        if ((settings_table[row].programs & (uint32_t)program) != 0 && !load_row(&loader, row)) {
            return false;
        }
    }
    return fill_computed(&loader, program) && check_pairs(&loader, program);
}
