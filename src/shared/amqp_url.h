/* SPDX-License-Identifier: MIT */
/* RABBITMQ_URL: where the brokers are and who we are to them, one URL or several with commas between.
 *
 *     amqp://user:password@host:5672/vhost,amqp://user:password@other/vhost
 *
 * User, password and vhost are percent-decoded (RFC 3986 section 2.1); without them they are guest, guest and "/",
 * and the port is 5672. The vhost "/" is what "amqp://host", "amqp://host/" and "amqp://host/%2F" name. IPv6 addresses
 * stand in brackets.
 *
 * Invariant: a list that parsed holds 1 to AMQP_BROKERS_MAX brokers, all texts terminated. Memory: the caller's.
 * Thread: any one. */
#ifndef POSTERN_SHARED_AMQP_URL_H
#define POSTERN_SHARED_AMQP_URL_H

#include <stddef.h>
#include <stdint.h>

#include "span.h"

enum {
    AMQP_BROKERS_MAX = 8,
    AMQP_HOST_BYTES_MAX = 253,     /* a DNS name */
    AMQP_USER_BYTES_MAX = 127,     /* a broker's user */
    AMQP_PASSWORD_BYTES_MAX = 255, /* its password */
    AMQP_VHOST_BYTES_MAX = 255,    /* an AMQP short string */
    AMQP_PORT_DEFAULT = 5672
};

struct amqp_broker {
    uint16_t port;
    char host[AMQP_HOST_BYTES_MAX + 1];
    char user[AMQP_USER_BYTES_MAX + 1];
    char password[AMQP_PASSWORD_BYTES_MAX + 1];
    char vhost[AMQP_VHOST_BYTES_MAX + 1];
};

struct amqp_brokers {
    size_t count;
    struct amqp_broker at[AMQP_BROKERS_MAX];
};

enum amqp_url_error {
    AMQP_URL_OK,
    AMQP_URL_EMPTY,    /* no URL, or nothing between two commas */
    AMQP_URL_TOO_MANY, /* more than AMQP_BROKERS_MAX */
    AMQP_URL_SCHEME,   /* not amqp:// (amqps:// is not supported) */
    AMQP_URL_HOST,     /* no host, a bad character in it, or an unclosed '[' */
    AMQP_URL_PORT,     /* not 1 to 65535 */
    AMQP_URL_BLANK,    /* within user, password or vhost */
    AMQP_URL_PERCENT,  /* '%' without two hexadecimal digits, or %00 */
    AMQP_URL_VHOST,    /* a second '/' (write it %2F), '?' or '#' */
    AMQP_URL_TOO_LONG  /* host, user, password or vhost longer than the ceilings above */
};

/* Parses the whole list. On an error `offset` (may be NULL) is where in `text` it stands, and `brokers` is
 * undefined. The error's text is a sentence for the person who wrote the setting; it never holds the password. */
enum amqp_url_error amqp_url_parse(struct span text, struct amqp_brokers *brokers, size_t *offset);
const char *amqp_url_error_text(enum amqp_url_error error);

#endif
