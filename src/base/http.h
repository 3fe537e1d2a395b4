/* SPDX-License-Identifier: MIT */
/* The head of an HTTP/1.x request (RFC 9112, with the grammar of RFC 9110), for whoever serves HTTP: bytes in, values
 * out.
 *
 * Reading has two steps. `http_scan` looks at each byte once, as it arrives, and says when the head is whole or can no
 * longer become one; then the request line and the fields are read in one pass. The grammar is taken strictly: CRLF
 * alone ends a line, folded lines and blanks before a colon are refused, and so is every character that RFC 9110 does
 * not allow in its place. Errors are static sentences.
 *
 * Memory: the caller's; what is read points into the head it gave. Thread: any. */
#ifndef POSTERN_BASE_HTTP_H
#define POSTERN_BASE_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "span.h"

/* How far the search for the head's end has come: zero at the start, kept between reads. */
struct http_scan {
    uint16_t scanned_bytes; /* of the head, from its beginning */
    uint8_t state;
};

enum http_progress {
    HTTP_MORE,     /* all bytes looked at, the head is not whole yet */
    HTTP_WHOLE,    /* the head is scan->scanned_bytes long; what follows is not part of it */
    HTTP_TOO_LONG, /* longer than head_bytes_max: 431 */
    HTTP_GARBAGE   /* a byte that no head can hold here: 400 */
};

/* Looks at the bytes of `input` (all of the head received so far, from its first byte) that were not looked at yet.
 * head_bytes_max: at most 65535. After anything but HTTP_MORE the scan is over. */
enum http_progress http_scan(struct http_scan *scan, struct span input, size_t head_bytes_max);

struct http_request_line {
    struct span method;
    struct span target; /* as sent; http_read_target takes it apart */
    uint8_t minor_version;
};

struct http_field {
    struct span name;
    struct span value; /* without the blanks around it */
};

/* Takes the request line off `head`, which http_scan has measured. NULL: it is well-formed HTTP/1.x. */
const char *http_read_request_line(struct span *head, struct http_request_line *line);

/* Takes the next field off what is left of the head. False: there is no more, or *error says what is wrong with it. */
bool http_next_field(struct span *head, struct http_field *field, const char **error);

/* Cuts a target into path and query (without the '?'; empty when there is none); nothing is percent-decoded. A client
 * may also send the whole URI. NULL: the path begins with '/'. */
const char *http_read_target(struct span target, struct span *path, struct span *query);

/* Whether the value of a Host header can be one. */
bool http_host_valid(struct span host);

/* Compares without case; `text` is in lower case. */
bool http_is_word(struct span word, const char *text);
/* Whether a comma-separated list holds the word. */
bool http_list_holds(struct span list, const char *word);

/* "Not Found", for the statuses that are answered with here. */
const char *http_status_phrase(uint16_t status);

static inline bool http_is_visible(uint8_t byte)
{
    return byte > 0x20 && byte < 0x7f;
}

#endif
