/* SPDX-License-Identifier: MIT */
/* Sizes follow from the settings here, in one place; each part then takes its memory in a fixed order, first from an
 * arena that measures and then for real. */
#include "gateway.h"

#include <string.h>

#include "answers.h"
#include "check.h"
#include "clients.h"
#include "frame.h"
#include "loop.h"
#include "message.h"
#include "spool.h"
#include "spool_format.h"

static const char program[] = "postern-gateway";

/* The largest read whose worst case fits a given part of the outbox; 0 when not even the smallest does. */
static uint32_t read_bytes_within(const struct settings *settings, size_t message_max, size_t bytes_max)
{
    for (uint32_t read_bytes = GATEWAY_READ_BYTES_MAX; read_bytes >= SERVER_PIECE_BYTES;
         read_bytes -= SERVER_PIECE_BYTES) {
        size_t message_count = clients_read_message_count(read_bytes);
        size_t content_bytes = clients_read_content_bytes(read_bytes, settings->max_message_bytes);
        if (message_count <= message_max &&
            content_bytes + message_count * (size_t)OUTBOX_OVERHEAD_BYTES_MAX <= bytes_max) {
            return read_bytes;
        }
    }
    return 0;
}

/* The pressure rule: a client is read only when all that one read can bring fits the outbox. Reads are sized for half
 * of it, so that they go on while it still has much to deliver; a very small outbox may have to be empty first. */
static uint32_t choose_read_bytes(const struct settings *settings)
{
    size_t bytes_max = (size_t)settings->outbox_bytes;
    uint32_t read_bytes = read_bytes_within(settings, settings->outbox_messages / 2, bytes_max / 2);
    return read_bytes > 0 ? read_bytes : read_bytes_within(settings, settings->outbox_messages, bytes_max);
}

static bool parse_brokers(struct gateway *gateway, struct text *error)
{
    size_t offset = 0;
    enum amqp_url_error fault = amqp_url_parse(span_text(gateway->settings->rabbitmq_url), &gateway->brokers, &offset);
    if (fault == AMQP_URL_OK) {
        return true;
    }
    text_string(error, "RABBITMQ_URL=");
    settings_mask_url(error, span_text(gateway->settings->rabbitmq_url));
    text_string(error, ": ");
    text_string(error, amqp_url_error_text(fault));
    text_string(error, ", at character ");
    text_u64(error, offset + 1);
    return false;
}

static bool parse_routes(struct gateway *gateway, struct text *error)
{
    char cause_buffer[512];
    struct text cause = text_in(cause_buffer, sizeof cause_buffer);
    if (!routes_parse(&gateway->routes, span_text(gateway->settings->routes), &cause)) {
        text_string(error, "ROUTES=");
        text_string(error, gateway->settings->routes);
        text_string(error, ": ");
        text_bytes(error, text_span(&cause));
        return false;
    }
    for (size_t index = 0; index < gateway->routes.queue_count; index++) {
        gateway->queues[index] = routes_queue(&gateway->routes, index);
    }
    return true;
}

/* The stage holds what two reads of clients can bring, so that one can be promised while another is written; and the
 * disk two full stages, so that there is something to spool to. */
static bool configure_spool(struct gateway *gateway, struct text *error)
{
    const struct settings *settings = gateway->settings;
    size_t read_bytes = gateway->read_content_bytes + gateway->read_message_count * OUTBOX_OVERHEAD_BYTES_MAX;
    gateway->spool = (struct outbox_spool){
        .directory = settings->spool_dir,
        .bytes_max = settings->spool_max_bytes,
        .segment_bytes = SPOOL_SEGMENT_BYTES,
        .stage_bytes = 2 * (read_bytes + settings->max_message_bytes + OUTBOX_OVERHEAD_BYTES_MAX),
        .drops_oldest = settings->spool_full == SETTINGS_SPOOL_DROP_OLDEST,
    };
    uint64_t least_bytes = SPOOL_SEGMENTS_MIN * (uint64_t)SPOOL_SEGMENT_BYTES;
    struct outbox_spool least = gateway->spool;
    least.bytes_max = least_bytes;
    while (outbox_spool_room_bytes(&least, settings->max_message_bytes) < 2 * least.stage_bytes) {
        least.bytes_max += SPOOL_SEGMENT_BYTES;
    }
    if (settings->spool_max_bytes == 0 || settings->spool_max_bytes >= least.bytes_max) {
        return true;
    }
    text_string(error, "SPOOL_MAX_BYTES=");
    text_u64(error, settings->spool_max_bytes);
    text_string(error, " is too small for OUTBOX_BYTES and MAX_MESSAGE_BYTES: at least ");
    text_u64(error, least.bytes_max);
    text_string(error, ", or 0 for no spool");
    return false;
}

bool gateway_configure(struct gateway *gateway, const struct settings *settings, struct text *error)
{
    memset(gateway, 0, sizeof *gateway);
    gateway->settings = settings;
    if (!parse_brokers(gateway, error) || !parse_routes(gateway, error)) {
        return false;
    }
    gateway->heartbeat = (struct heartbeat_settings){
        .interval_ms = settings->heartbeat_interval_s * UINT64_C(1000),
        .timeout_ms = settings->heartbeat_timeout_s * UINT64_C(1000),
    };
    gateway->read_bytes = choose_read_bytes(settings);
    if (gateway->read_bytes == 0) {
        text_string(error, "OUTBOX_MESSAGES=");
        text_u64(error, settings->outbox_messages);
        text_string(error, " and OUTBOX_BYTES=");
        text_u64(error, settings->outbox_bytes);
        text_string(error, " are too small for MAX_MESSAGE_BYTES=");
        text_u64(error, settings->max_message_bytes);
        text_string(error, ": they must hold what one small read of a client can bring");
        return false;
    }
    gateway->read_message_count = clients_read_message_count(gateway->read_bytes);
    gateway->read_content_bytes = clients_read_content_bytes(gateway->read_bytes, settings->max_message_bytes);
    if (!configure_spool(gateway, error)) {
        return false;
    }
    size_t queue_bytes = settings->send_queue_bytes - FRAME_SEND_HEADER_BYTES_MAX;
    gateway->downlink_message_max =
        settings->max_message_bytes < queue_bytes ? settings->max_message_bytes : queue_bytes;
    return true;
}

static void init_log(struct gateway *gateway, struct arena *arena)
{
    const struct settings *settings = gateway->settings;
    const struct log_options options = {
        .path = settings->log_file,
        .level = settings->log_level,
        .file_bytes_max = settings->log_max_bytes,
        .file_count = settings->log_files,
        .copy_stdout = settings->log_stdout,
        .messages = settings->log_messages,
    };
    log_open(&gateway->log, gateway->port, arena, &options);
}

static uint32_t connection_max(const struct settings *settings)
{
    return settings->max_connections + GATEWAY_SPARE_CONNECTIONS;
}

static void init_server(struct gateway *gateway, struct arena *arena)
{
    const struct settings *settings = gateway->settings;
    uint32_t connections = connection_max(settings);
    size_t message_bytes = message_buffer_bytes(settings->max_message_bytes);
    size_t buffer_bytes = message_bytes > GATEWAY_HEADER_BYTES_MAX ? message_bytes : GATEWAY_HEADER_BYTES_MAX;
    uint32_t buffers = (uint32_t)(GATEWAY_BUFFERS_BYTES / buffer_bytes);
    buffers = buffers < GATEWAY_BUFFERS_MIN ? GATEWAY_BUFFERS_MIN : buffers;
    uint32_t slow_bytes =
        settings->send_queue_bytes > GATEWAY_SLOW_BYTES ? settings->send_queue_bytes : GATEWAY_SLOW_BYTES;
    const struct server_options options = {
        .port = gateway->port,
        .token_tag = LOOP_TAG_SERVER,
        .connection_max = connections,
        .buffer_count = buffers < connections ? buffers : connections,
        .message_bytes_max = settings->max_message_bytes,
        .header_bytes_max = GATEWAY_HEADER_BYTES_MAX,
        .read_bytes = gateway->read_bytes,
        .chunk_count = connections + SERVER_CHUNKS_RESERVED + slow_bytes / GATEWAY_CHUNK_BYTES,
        .chunk_bytes = GATEWAY_CHUNK_BYTES,
        .send_queue_bytes = settings->send_queue_bytes,
        .handshake_timeout_ms = settings->handshake_timeout_ms,
        .stall_timeout_ms = (uint32_t)gateway->heartbeat.timeout_ms,
        .patience_ms = (uint32_t)(gateway->heartbeat.interval_ms + gateway->heartbeat.timeout_ms),
    };
    server_init(&gateway->server, arena, &options, &clients_handler, gateway, gateway->now_ms);
}

static void init_outbox(struct gateway *gateway, struct arena *arena)
{
    const struct settings *settings = gateway->settings;
    const struct outbox_options options = {
        .program = program,
        .gateway_id = settings->gateway_id,
        .brokers = &gateway->brokers,
        .heartbeat_s = settings->amqp_heartbeat_s,
        .token = loop_token(LOOP_TAG_OUTBOX),
        .queues = gateway->queues,
        .queue_count = gateway->routes.queue_count,
        .queue_type = settings->queue_type == SETTINGS_QUEUE_QUORUM ? "quorum" : "classic",
        .message_count_max = settings->outbox_messages,
        .bytes_max = (size_t)settings->outbox_bytes,
        .content_bytes_max = settings->max_message_bytes,
        .window_count_max = settings->publish_window,
        .spool = gateway->spool.bytes_max > 0 ? &gateway->spool : NULL,
    };
    gateway->outbox = outbox_init(arena, gateway->port, &gateway->log, &options, &answers_outbox_handler, gateway);
}

static void init_downlink(struct gateway *gateway, struct arena *arena)
{
    const struct settings *settings = gateway->settings;
    const struct downlink_options options = {
        .program = program,
        .gateway_id = settings->gateway_id,
        .brokers = &gateway->brokers,
        .heartbeat_s = settings->amqp_heartbeat_s,
        .token = loop_token(LOOP_TAG_DOWNLINK),
        .message_bytes_max =
            gateway->downlink_message_max > RECEIPT_BATCH_BYTES ? gateway->downlink_message_max : RECEIPT_BATCH_BYTES,
    };
    downlink_init(&gateway->downlink, arena, gateway->port, &gateway->log, &gateway->sessions, &options,
                  &answers_downlink_handler, gateway);
}

void gateway_init(struct gateway *gateway, struct arena *arena, struct port *port)
{
    gateway->port = port;
    gateway->now_ms = port->now_ns(port->context) / 1000000;
    gateway->wall_ms = port->wall_ms(port->context);
    gateway->start_ms = gateway->now_ms;
    gateway->start_wall_ms = gateway->wall_ms;
    struct {
        struct siphash_key sessions;
        struct siphash_key json;
    } keys;
    port->random(port->context, &keys, sizeof keys);

    init_log(gateway, arena);
    session_table_init(&gateway->sessions, arena, gateway->settings->max_connections, keys.sessions);
    json_init(&gateway->json, arena, gateway->settings->max_message_bytes, &keys.json);
    init_server(gateway, arena);
    init_outbox(gateway, arena);
    init_downlink(gateway, arena);
    reports_init(gateway, arena);
    gateway->arena_bytes = arena->used_bytes;
}

uint64_t gateway_spool_messages(const struct gateway *gateway, uint32_t content_bytes)
{
    if (gateway->spool.bytes_max == 0) {
        return 0;
    }
    const struct outbox_message like = {.client_id = span_text("device-000000017"),
                                        .id = span_text("1795449192-00017"),
                                        .type = span_text("text"),
                                        .content = span_of(NULL, content_bytes)};
    return outbox_spool_messages(&gateway->spool, &like, gateway->queues[0], span_text(gateway->settings->gateway_id));
}

size_t gateway_watch_max(const struct settings *settings)
{
    return (size_t)connection_max(settings) + LOOP_LINK_WATCHES + (settings->admin_port > 0 ? ADMIN_WATCHES : 0);
}

static bool open_spool(struct gateway *gateway, struct text *error)
{
    char cause_buffer[512];
    struct text cause = text_in(cause_buffer, sizeof cause_buffer);
    if (outbox_open(gateway->outbox, &cause)) {
        return true;
    }
    text_string(error, "SPOOL_DIR=");
    text_string(error, gateway->settings->spool_dir);
    text_string(error, ": ");
    text_bytes(error, text_span(&cause));
    return false;
}

static void complain_of_port(struct gateway *gateway, struct text *error, const char *port_name, uint32_t port,
                             const char *address_name, const char *address)
{
    text_string(error, port_name);
    text_u64(error, port);
    text_string(error, address_name);
    text_string(error, address);
    text_string(error, "): cannot listen: ");
    text_string(error, gateway->port->error_text(gateway->port->context));
    text_string(error, "; see that the address is this machine's and that nothing else has the port");
}

static bool listen_for_admin(struct gateway *gateway, struct text *error)
{
    const struct settings *settings = gateway->settings;
    struct port *port = gateway->port;
    struct port_address address;
    if (settings->admin_port == 0) {
        return true;
    }
    CHECK(port->parse_address(port->context, settings->admin_address, (uint16_t)settings->admin_port, &address));
    if (!admin_listen(&gateway->admin, &address)) {
        complain_of_port(gateway, error, "ADMIN_PORT=", settings->admin_port,
                         " (ADMIN_ADDRESS=", settings->admin_address);
        return false;
    }
    return true;
}

bool gateway_listen(struct gateway *gateway, struct text *error)
{
    const struct settings *settings = gateway->settings;
    struct port *port = gateway->port;
    struct port_address address;
    size_t handle_count = gateway_watch_max(settings) + GATEWAY_SPARE_HANDLES;
    if (!port->reserve_handles(port->context, handle_count)) {
        text_string(error, "MAX_CONNECTIONS=");
        text_u64(error, settings->max_connections);
        text_string(error, ": the machine does not allow ");
        text_u64(error, handle_count);
        text_string(error, " open files (ulimit -n, or LimitNOFILE= of its unit): ");
        text_string(error, port->error_text(port->context));
        text_string(error, "; allow more, or lower MAX_CONNECTIONS");
        return false;
    }
    if (!open_spool(gateway, error)) {
        return false;
    }
    CHECK(port->parse_address(port->context, settings->listen_address, (uint16_t)settings->port, &address));
    if (!server_listen(&gateway->server, &address)) {
        complain_of_port(gateway, error, "PORT=", settings->port, " (LISTEN_ADDRESS=", settings->listen_address);
        return false;
    }
    if (!listen_for_admin(gateway, error)) {
        return false;
    }
    char text[PORT_ADDRESS_TEXT_BYTES];
    if (server_local_address(&gateway->server, &address)) {
        port->format_address(port->context, &address, text);
        log_event(&gateway->log, LOG_INFO, "gateway_started", LOG_TEXT("gateway", settings->gateway_id),
                  LOG_TEXT("address", text), LOG_TEXT("version", POSTERN_VERSION),
                  LOG_U64("max_connections", settings->max_connections), LOG_U64("read_bytes", gateway->read_bytes));
    }
    if (admin_local_address(&gateway->admin, &address)) {
        port->format_address(port->context, &address, text);
        log_event(&gateway->log, LOG_INFO, "admin_listening", LOG_TEXT("address", text));
    }
    // The outbox follows when the downlink's queue stands (answers.c).
    downlink_start(&gateway->downlink, gateway->now_ms);
    return true;
}

void gateway_release(struct gateway *gateway)
{
    admin_close(&gateway->admin);
    downlink_release(&gateway->downlink);
    outbox_release(gateway->outbox);
    log_close(&gateway->log);
}
