/* SPDX-License-Identifier: MIT */
/* The list of pages, and readiness: whether messages can be taken, and what else is the matter. RabbitMQ being away is
 * no reason not to be ready, as long as there is room for what comes. */
#include "reports.h"

#include "check.h"
#include "gateway.h"
#include "loop.h"
#include "metrics_program.h"
#include "page.h"
#include "readiness.h"
#include "spool.h"

static void write_policy(struct reports *reports, uint32_t port)
{
    struct text policy = text_in(reports->policy, sizeof reports->policy - 1);
    text_string(&policy, "default-src 'none'; img-src data:; style-src 'sha256-");
    text_string(&policy, page_style_hash);
    text_string(&policy, "'; script-src 'sha256-");
    text_string(&policy, page_script_hash);
    text_string(&policy, "'; connect-src 'self' ws://*:");
    text_u64(&policy, port);
    text_string(&policy, "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    CHECK(!policy.truncated);
    reports->policy[policy.used_bytes] = '\0';
}

void reports_init(struct gateway *gateway, struct arena *arena)
{
    struct reports *reports = &gateway->reports;
    const struct admin_page pages[REPORTS_PAGES] = {
        {.path = "/",
         .content_type = "text/html; charset=utf-8",
         .policy = reports->policy,
         .constant = span_of(page_html, page_html_bytes)},
        {.path = "/healthz", .content_type = "text/plain; charset=utf-8", .write = reports_health},
        {.path = "/readyz", .content_type = "application/json", .write = reports_readiness},
        {.path = "/metrics", .content_type = "text/plain; version=0.0.4; charset=utf-8", .write = reports_metrics},
        {.path = "/status.json", .content_type = "application/json", .write = reports_status},
    };
    memcpy(reports->pages, pages, sizeof pages);
    write_policy(reports, gateway->settings->port);
    gateway->counts.turn_ns = metrics_turns();
    const struct admin_options options = {
        .port = gateway->port,
        .log = &gateway->log,
        .pages = reports->pages,
        .page_count = REPORTS_PAGES,
        .context = gateway,
        .token = loop_token(LOOP_TAG_ADMIN),
    };
    admin_init(&gateway->admin, arena, &options, gateway->settings->admin_port > 0);
}

uint16_t reports_health(void *context, struct text *page)
{
    (void)context;
    text_string(page, "ok\n");
    return 200;
}

/* ---- Readiness ---- */

static void find_broker(struct gateway *gateway, struct readiness *readiness)
{
    if (amqp_link_blocked(outbox_link(gateway->outbox))) {
        readiness_say(readiness, "broker_blocked", false, "RabbitMQ is in an alarm and takes no messages");
    } else if (!outbox_ready(gateway->outbox)) {
        readiness_say(readiness, "broker_away", false,
                      "RabbitMQ takes no messages: there is no connection to publish on");
    }
    if (amqp_link_state(gateway->downlink.link) != AMQP_LINK_READY) {
        readiness_say(
            readiness, "downlink_away", false,
            "receipts of the processor and messages to clients do not come: there is no connection to consume on");
    }
}

void reports_find(struct gateway *gateway, struct readiness *readiness)
{
    const struct spool_counters *spool = outbox_spool_counters(gateway->outbox);
    readiness_begin(readiness);
    if (drain_running(&gateway->drain)) {
        readiness_say(readiness, "draining", true, "the gateway was told to stop: it lets nobody in and takes nothing");
    }
    if (gateway->pressure_since_ms != 0) {
        struct text sentence = readiness_add(readiness, "full", true);
        text_string(&sentence, spool == NULL ? "the outbox is full, and clients have not been read for "
                                             : "outbox and spool are full, and clients have not been read for ");
        text_u64(&sentence, (gateway->now_ms - gateway->pressure_since_ms) / 1000);
        text_string(&sentence, " s");
        readiness_end(readiness, &sentence);
    }
    find_broker(gateway, readiness);
    if (downlink_is_shared(&gateway->downlink)) {
        readiness_say(readiness, "gateway_id_shared", false,
                      "another gateway has this GATEWAY_ID, and takes receipts and messages for clients here");
    }
    if (spool != NULL && spool->is_failing) {
        readiness_say(readiness, "spool_failing", false, "messages cannot be written to SPOOL_DIR; the log says why");
    }
    if (gateway->log.failing) {
        readiness_say(readiness, "log_failing", false, "the log's file cannot be written; standard error says why");
    }
    if (gateway->sessions.count == gateway->sessions.capacity) {
        readiness_say(readiness, "max_connections", false,
                      "MAX_CONNECTIONS clients are connected: newcomers are refused");
    }
}

uint16_t reports_readiness(void *context, struct text *page)
{
    struct readiness readiness;
    reports_find(context, &readiness);
    return readiness_page(&readiness, page);
}
