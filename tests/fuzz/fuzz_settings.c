/* SPDX-License-Identifier: MIT */
/* A .env file, for either program. What is refused is told in one line; what is taken is in its ranges, and what
 * --check prints of it, read as a .env file, gives the same settings. Passwords of brokers are not in it. ROUTES goes
 * to its own reader.
 *
 * Input: the program, and which variables the environment has; then the file, which ends at an unreadable page. */
#include <string.h>

#include "amqp_url.h"
#include "envelope.h"
#include "fuzz.h"
#include "port.h"
#include "routes.h"
#include "settings.h"
#include "settings_table.h"
#include "text.h"

enum { IS_PROCESSOR = 1, PRINT_BYTES = 16 * 1024 };

/* Each is there when the input's bit says so; the values are any that come up in practice. */
static const struct variable {
    const char *name;
    const char *value;
    uint8_t bit;
} variables[] = {
    {"DATABASE_URL", "postgresql://postern:secret@db/postern", 2},
    {"RABBITMQ_URL", "amqp://postern:secret@a,amqp://b/%2Fv", 4},
    {"PORT", "", 8},
    {"HOME", "/home", 16},
    {"GATEWAY_ID", "box-1", 32},
    {"OUTBOX_BYTES", "256K", 64},
};

static const char *look_up(void *context, const char *name)
{
    const uint8_t *bits = context;
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
        if ((*bits & variables[i].bit) != 0 && strcmp(variables[i].name, name) == 0) {
            return variables[i].value;
        }
    }
    return NULL;
}

/* Not what an address is, but enough to tell two texts apart. */
static bool parse_address(void *context, const char *host, uint16_t port, struct port_address *address)
{
    (void)context;
    *address = (struct port_address){.port = port, .v6 = strchr(host, ':') != NULL};
    size_t bytes = strlen(host);
    memcpy(address->bytes, host, bytes < sizeof address->bytes ? bytes : sizeof address->bytes);
    return strspn(host, "0123456789abcdefABCDEF.:") == bytes;
}

static const struct port machine = {.parse_address = parse_address};

static bool load(struct settings *settings, uint8_t *bits, struct span env_text)
{
    static char memory[SETTINGS_ERROR_BYTES_MAX];
    enum settings_program program = (*bits & IS_PROCESSOR) != 0 ? SETTINGS_PROCESSOR : SETTINGS_GATEWAY;
    const struct settings_sources sources = {.lookup = look_up,
                                             .context = bits,
                                             .port = &machine,
                                             .env_text = env_text,
                                             .env_name = ".env",
                                             .host_name = "host-1"};
    struct text error = text_in(memory, sizeof memory);
    bool is_good = settings_load(settings, program, &sources, &error);
    CHECK(is_good == (error.used_bytes == 0) && !error.truncated);
    for (size_t i = 0; i < error.used_bytes; i++) {
        CHECK((uint8_t)memory[i] >= ' ' && memory[i] != 0x7F); /* one line */
    }
    CHECK(fuzz_utf8(text_span(&error)) == FUZZ_UTF8_WHOLE);
    return is_good;
}

/* ---- ranges ---- */

static uint64_t number_in(const struct settings *settings, const struct setting *row)
{
    uint64_t wide = 0;
    uint32_t narrow = 0;
    const char *field = (const char *)settings + row->offset;
    if (row->field_bytes == sizeof wide) {
        memcpy(&wide, field, sizeof wide);
        return wide;
    }
    memcpy(&narrow, field, sizeof narrow);
    return narrow;
}

static void check_row(const struct settings *settings, const struct setting *row)
{
    const char *field = (const char *)settings + row->offset;
    switch (row->type) {
    case SETTING_INTEGER:
    case SETTING_BYTES:
        CHECK(number_in(settings, row) >= row->min && number_in(settings, row) <= row->max);
        return;
    case SETTING_CHOICE:
        CHECK(settings_choice_name(row->choices, (size_t)number_in(settings, row)).bytes > 0);
        return;
    case SETTING_BOOLEAN:
        return;
    case SETTING_TEXT:
    case SETTING_ADDRESS:
    case SETTING_BROKERS:
    case SETTING_DATABASE:
        CHECK(memchr(field, '\0', row->field_bytes) != NULL && field[0] != '\0');
        CHECK(row->form == NULL || row->form(span_text(field)));
        CHECK(fuzz_utf8(span_text(field)) == FUZZ_UTF8_WHOLE);
        return;
    }
}

static void check_ranges(const struct settings *settings)
{
    for (size_t i = 0; i < settings_table_count; i++) {
        if ((settings_table[i].programs & (uint32_t)settings->program) != 0) {
            check_row(settings, &settings_table[i]);
        }
    }
    CHECK(settings->processor_prefetch >= settings->processor_batch);
    CHECK(settings->outbox_bytes >= (uint64_t)settings->max_message_bytes * 4);
}

/* ---- what --check prints ---- */

/* The same brokers, but for their passwords. */
static void check_masked(const char *url, const char *masked)
{
    static struct amqp_brokers given;
    static struct amqp_brokers shown;
    CHECK(amqp_url_parse(span_text(url), &given, NULL) == AMQP_URL_OK);
    CHECK(amqp_url_parse(span_text(masked), &shown, NULL) == AMQP_URL_OK && shown.count == given.count);
    for (size_t i = 0; i < given.count; i++) {
        CHECK(strcmp(given.at[i].host, shown.at[i].host) == 0 && given.at[i].port == shown.at[i].port);
        CHECK(strcmp(given.at[i].user, shown.at[i].user) == 0 && strcmp(given.at[i].vhost, shown.at[i].vhost) == 0);
        const char *password = given.at[i].password;
        bool is_none = password[0] == '\0' || strcmp(password, "guest") == 0;
        CHECK(strcmp(shown.at[i].password, "***") == 0 || (is_none && strcmp(shown.at[i].password, password) == 0));
    }
}

static struct text print(const struct settings *settings, char memory[PRINT_BYTES])
{
    const struct settings_sources sources = {.env_name = ".env", .host_name = "host-1"};
    struct text out = text_in(memory, PRINT_BYTES);
    settings_print(settings, &sources, &out);
    CHECK(!out.truncated);
    return out;
}

/* Masking does not trust a URL to be right: what follows "password=", and what stands before an @ in a vhost, may be
 * taken for a password too. */
static bool is_mask_exact(const char *url)
{
    bool in_vhost = false;
    for (const char *at = url; *at != '\0'; at++) {
        if (strncmp(at, "://", 3) == 0) {
            in_vhost = false;
            at += 2;
        } else if (*at == '/') {
            in_vhost = true;
        } else if (*at == '@' && in_vhost) {
            return false;
        }
    }
    return strstr(url, "password=") == NULL;
}

/* Nor does it trust that one URL stands there, with one password at most, and "password=" only in its query; what it
 * hides of such a text may hide more when it is printed again. */
static bool has_outside_query(const char *url, const char *part)
{
    const char *found = strstr(url, part);
    const char *query = strchr(url, '?');
    return strstr(url, "://") != NULL && found != NULL && (query == NULL || found < query);
}

static bool has_twice(const char *text, const char *part)
{
    const char *first = strstr(text, part);
    return first != NULL && strstr(first + 1, part) != NULL;
}

static void check_printed(const struct settings *settings)
{
    static char memory[PRINT_BYTES];
    static char memory_again[PRINT_BYTES];
    static struct settings again;
    uint8_t bits = settings->program == SETTINGS_PROCESSOR ? IS_PROCESSOR : 0;
    struct text printed = print(settings, memory);
    if (!is_mask_exact(settings->rabbitmq_url) || has_twice(settings->database_url, "://") ||
        has_twice(settings->database_url, "password=") || has_outside_query(settings->database_url, "password=")) {
        return;
    }
    CHECK(load(&again, &bits, text_span(&printed)));
    check_masked(settings->rabbitmq_url, again.rabbitmq_url);
    memcpy(again.origins, settings->origins, sizeof again.origins);
    struct text printed_again = print(&again, memory_again);
    CHECK(span_equal(text_span(&printed), text_span(&printed_again)));
}

/* ---- single values ---- */

static void check_routes(struct span setting)
{
    static struct routes routes;
    static char memory[SETTINGS_ERROR_BYTES_MAX];
    struct text error = text_in(memory, sizeof memory);
    bool is_good = routes_parse(&routes, setting, &error);
    CHECK(is_good == (error.used_bytes == 0));
    if (!is_good) {
        return;
    }
    CHECK(routes.queue_count <= ROUTES_QUEUES_MAX && routes.type_count <= ROUTES_TYPES_MAX);
    for (size_t i = 0; i < routes.type_count; i++) {
        struct span type = span_of(routes.types[i].name, routes.types[i].name_bytes);
        struct route route = routes_find(&routes, type);
        CHECK(message_type_valid(type) && route.target == routes.types[i].route.target);
        CHECK(route.target != ROUTE_QUEUE || route.queue_index < routes.queue_count);
    }
    for (size_t i = 0; i < routes.queue_count; i++) {
        struct span queue = routes_queue(&routes, i);
        CHECK(queue.bytes >= 1 && queue.bytes <= QUEUE_NAME_BYTES_MAX && queue.data[queue.bytes] == '\0');
    }
}

static void check_url(struct span text)
{
    static struct amqp_brokers brokers;
    static char memory[4 * FUZZ_INPUT_BYTES_MAX];
    struct text masked = text_in(memory, sizeof memory);
    size_t offset = 0;
    enum amqp_url_error error = amqp_url_parse(text, &brokers, &offset);
    CHECK(offset <= text.bytes && amqp_url_error_text(error)[0] != '\0');
    settings_mask_url(&masked, text);
    CHECK(!masked.truncated);
    if (error != AMQP_URL_OK) {
        return;
    }
    CHECK(brokers.count >= 1 && brokers.count <= AMQP_BROKERS_MAX);
    for (size_t i = 0; i < brokers.count; i++) {
        const struct amqp_broker *broker = &brokers.at[i];
        CHECK(broker->port > 0 && broker->host[0] != '\0' && strlen(broker->host) <= AMQP_HOST_BYTES_MAX);
        CHECK(strlen(broker->user) <= AMQP_USER_BYTES_MAX && strlen(broker->password) <= AMQP_PASSWORD_BYTES_MAX);
        CHECK(strlen(broker->vhost) <= AMQP_VHOST_BYTES_MAX);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct settings settings;
    struct span text = fuzz_input(data, bytes);
    uint8_t bits = fuzz_byte(&text);
    text.data = fuzz_guarded(text);
    if (load(&settings, &bits, text)) {
        check_ranges(&settings);
        check_printed(&settings);
        check_routes(span_text(settings.routes));
    }
    check_routes(text);
    check_url(text);
    return 0;
}
