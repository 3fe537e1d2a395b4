/* SPDX-License-Identifier: MIT */
/* A client's HTTP header. The scan must say the same however the header arrives, and that it is whole exactly where a
 * reading line by line says so; the parser's verdict may not depend on the case of the fields' names; every answer is
 * whole HTTP within its size. The query of a good request goes to the reader of its `receipts`.
 *
 * Input: the cuts; how long a header may be (times 16, and 64); then the stream. */
#include <stdlib.h>
#include <string.h>

#include "base64.h"
#include "fuzz.h"
#include "handshake.h"
#include "http.h"
#include "receipts.h"

enum { LENGTH_UNIT_BYTES = 16, LENGTH_LEAST_BYTES = 64, STATUSES = 3 };

/* ---- the scan ---- */

struct verdict {
    enum http_progress progress;
    size_t scanned_bytes;
};

static struct verdict scan_in(struct span stream, size_t header_bytes_max, struct fuzz_cuts cuts)
{
    static uint8_t arrived[FUZZ_INPUT_BYTES_MAX];
    struct http_scan scan = {0};
    struct verdict verdict = {HTTP_MORE, 0};
    memset(arrived, '\n', sizeof arrived);
    size_t bytes = 0;
    while (bytes < stream.bytes && verdict.progress == HTTP_MORE) {
        size_t piece = fuzz_cut(&cuts, stream.bytes - bytes);
        memcpy(arrived + bytes, stream.data + bytes, piece);
        bytes += piece;
        verdict.progress = http_scan(&scan, span_of(arrived, bytes), header_bytes_max);
        verdict.scanned_bytes = scan.scanned_bytes;
        CHECK(scan.scanned_bytes <= header_bytes_max && scan.scanned_bytes <= bytes);
        CHECK(verdict.progress != HTTP_MORE || scan.scanned_bytes == bytes);
    }
    return verdict;
}

static bool is_token(uint8_t byte)
{
    return byte > ' ' && byte < 0x7F && strchr("\"(),/:;<=>?@[\\]{}", byte) == NULL;
}

/* Where the empty line ends, with good lines before it; 0: nowhere. */
static size_t find_end(struct span stream)
{
    size_t at = 0;
    for (size_t line = 0;; line++) {
        size_t start = at;
        while (at + 1 < stream.bytes && !(stream.data[at] == '\r' && stream.data[at + 1] == '\n')) {
            uint8_t byte = stream.data[at];
            bool is_inner = at > start && (byte == ' ' || (line > 0 && (byte == '\t' || byte >= 0x80)));
            bool is_visible = byte > ' ' && byte < 0x7F;
            if (at == start ? !is_token(byte) : !is_visible && !is_inner) {
                return 0;
            }
            at++;
        }
        if (at + 1 >= stream.bytes) {
            return 0;
        }
        at += 2;
        if (at - start == 2) {
            return line == 0 ? 0 : at;
        }
    }
}

/* ---- the answers ---- */

/* A whole response: a header that ends once, and a body as long as it says. */
static void check_response(struct span response, size_t body_bytes_max)
{
    static const char length_name[] = "Content-Length: ";
    char text[HANDSHAKE_RESPONSE_BYTES_MAX + 1];
    CHECK(response.bytes <= HANDSHAKE_RESPONSE_BYTES_MAX);
    memcpy(text, response.data, response.bytes);
    text[response.bytes] = '\0';
    CHECK(strlen(text) == response.bytes && strncmp(text, "HTTP/1.1 ", 9) == 0);
    size_t header_bytes = find_end(response);
    CHECK(header_bytes > 0);
    const char *length = strstr(text, length_name);
    size_t body_bytes = length == NULL ? 0 : strtoul(length + sizeof length_name - 1, NULL, 10);
    CHECK(body_bytes <= body_bytes_max && header_bytes + body_bytes == response.bytes);
}

static void check_refusal(uint16_t status, struct span reason)
{
    char buffer[HANDSHAKE_RESPONSE_BYTES_MAX];
    struct text out = text_in(buffer, sizeof buffer);
    handshake_write_refusal(&out, status, reason);
    CHECK(!out.truncated);
    check_response(text_span(&out), HANDSHAKE_REASON_BYTES_MAX + 1);
}

static void check_query(struct span query)
{
    static const char none[] = "&receipts=none";
    static uint8_t joined[FUZZ_INPUT_BYTES_MAX + sizeof none];
    uint8_t mask = 0;
    bool is_good = receipts_parse(query, &mask);
    CHECK(!is_good || (mask & ~(unsigned)RECEIPTS_DEFAULT) == 0);
    if (query.bytes > 0) {
        memcpy(joined, query.data, query.bytes);
    }
    memcpy(joined + query.bytes, none, sizeof none - 1);
    CHECK(receipts_parse(span_of(joined, query.bytes + sizeof none - 1), &mask) == is_good);
    CHECK(!is_good || mask == 0); /* the last one counts */
}

static void check_request(struct span header, const struct handshake_request *request)
{
    uint8_t key[16];
    char buffer[HANDSHAKE_RESPONSE_BYTES_MAX];
    struct text out = text_in(buffer, sizeof buffer);
    CHECK(memcmp(header.data, "GET ", 4) == 0);
    CHECK(request->path.bytes > 0 && request->path.data[0] == '/');
    CHECK(memchr(request->path.data, '?', request->path.bytes) == NULL);
    CHECK(request->key.bytes == HANDSHAKE_KEY_BYTES && base64_decode(request->key, key, sizeof key));
    handshake_write_accept(&out, request->key);
    CHECK(!out.truncated);
    check_response(text_span(&out), 0);
    check_query(request->query);
}

/* ---- the parser ---- */

/* The other case for each letter of a field's name. */
static void turn_names(uint8_t *header, size_t bytes)
{
    bool in_name = false;
    for (size_t at = 0; at < bytes; at++) {
        in_name = (in_name || (at > 0 && header[at - 1] == '\n')) && header[at] != ':';
        uint8_t upper = header[at] & 0xDF;
        header[at] ^= in_name && upper >= 'A' && upper <= 'Z' ? 0x20 : 0;
    }
}

static void check_header(struct span stream)
{
    static uint8_t turned[FUZZ_INPUT_BYTES_MAX];
    struct handshake_request request = {.path = {NULL, 0}};
    struct handshake_request turned_request = {.path = {NULL, 0}};
    struct handshake_refusal refusal = {0};
    struct handshake_refusal turned_refusal = {0};
    memcpy(turned, stream.data, stream.bytes);
    turn_names(turned, stream.bytes);
    struct span header = span_of(fuzz_guarded(stream), stream.bytes);
    bool is_good = handshake_parse(header, &request, &refusal);
    CHECK(handshake_parse(span_of(turned, stream.bytes), &turned_request, &turned_refusal) == is_good);
    CHECK(span_equal(request.path, turned_request.path) && span_equal(request.query, turned_request.query));
    CHECK(span_equal(request.key, turned_request.key));
    if (is_good) {
        check_request(header, &request);
        return;
    }
    CHECK(refusal.status == turned_refusal.status && refusal.reason == turned_refusal.reason);
    CHECK(refusal.status == HANDSHAKE_STATUS_BAD_REQUEST || refusal.status == HANDSHAKE_STATUS_UPGRADE_REQUIRED);
    check_refusal(refusal.status, span_text(refusal.reason));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const uint16_t statuses[STATUSES] = {400, 426, 599};
    struct span stream = fuzz_input(data, bytes);
    struct fuzz_cuts cuts = fuzz_take_cuts(&stream);
    size_t header_bytes_max = LENGTH_LEAST_BYTES + (size_t)fuzz_byte(&stream) * LENGTH_UNIT_BYTES;
    struct verdict whole = scan_in(stream, header_bytes_max, fuzz_whole);
    const struct fuzz_cuts ways[] = {fuzz_single, cuts};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        struct verdict cut = scan_in(stream, header_bytes_max, ways[i]);
        CHECK(cut.progress == whole.progress && cut.scanned_bytes == whole.scanned_bytes);
    }
    size_t end = find_end(stream);
    bool is_whole = end > 0 && end <= header_bytes_max;
    CHECK(is_whole == (whole.progress == HTTP_WHOLE) && (!is_whole || end == whole.scanned_bytes));
    CHECK(whole.progress != HTTP_TOO_LONG || whole.scanned_bytes == header_bytes_max);
    if (is_whole) {
        check_header(span_of(stream.data, end));
    }
    check_refusal(statuses[cuts.sizes[0] % STATUSES], stream);
    return 0;
}
