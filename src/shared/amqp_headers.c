/* SPDX-License-Identifier: MIT */
/* Method: a field table is entries of a short name, a kind and a value whose size the kind tells, or a length in front
 * of it; so that tables and arrays within it are stepped over whole. Kinds as RabbitMQ has them (its AMQP 0-9-1 errata,
 * section 3). */
#include "amqp_headers.h"

enum { CONTENT_TYPE_FLAG = 0x80, CONTENT_ENCODING_FLAG = 0x40, HEADERS_FLAG = 0x20, MORE_FLAGS = 1 };

static uint64_t number_at(const uint8_t *at, size_t bytes)
{
    uint64_t number = 0;
    for (size_t i = 0; i < bytes; i++) {
        number = number << 8 | at[i];
    }
    return number;
}

bool amqp_headers_split(struct span properties, uint8_t *copy, struct span *rest, struct span *table)
{
    *rest = span_of(copy, properties.bytes);
    *table = span_of(NULL, 0);
    const uint8_t *data = properties.data;
    if (properties.bytes < 2 || (data[1] & MORE_FLAGS) != 0) {
        return false;
    }
    size_t start = 2;
    for (unsigned flag = CONTENT_TYPE_FLAG; flag >= CONTENT_ENCODING_FLAG; flag >>= 1) {
        if ((data[0] & flag) != 0) {
            start += start < properties.bytes ? (size_t)data[start] + 1 : 1;
        }
    }
    if ((data[0] & HEADERS_FLAG) == 0) {
        memcpy(copy, data, properties.bytes);
        return true;
    }
    if (start > properties.bytes || properties.bytes - start < 4) {
        return false;
    }
    size_t left = properties.bytes - start - 4;
    uint64_t table_bytes = number_at(data + start, 4);
    if (table_bytes > left) {
        return false;
    }
    size_t after = left - (size_t)table_bytes;
    memcpy(copy, data, start);
    copy[0] = (uint8_t)(copy[0] & ~HEADERS_FLAG);
    memcpy(copy + start, data + start + 4 + table_bytes, after);
    memcpy(copy + start + after, data + start + 4, (size_t)table_bytes);
    *rest = span_of(copy, start + after);
    *table = span_of(copy + start + after, (size_t)table_bytes);
    return true;
}

/* How long a value of this kind is, without the length in front of it where there is one; -1: no such kind. */
static int value_bytes(uint8_t kind, bool *has_length)
{
    *has_length = false;
    switch (kind) {
    case 'V':
        return 0;
    case 't':
    case 'b':
    case 'B':
        return 1;
    case 's':
    case 'u':
        return 2;
    case 'I':
    case 'i':
    case 'f':
        return 4;
    case 'D':
        return 5;
    case 'l':
    case 'L':
    case 'd':
    case 'T':
        return 8;
    case 'S':
    case 'x':
    case 'A':
    case 'F':
        *has_length = true;
        return 0;
    default:
        return -1;
    }
}

/* Fills the header from its value; false for a kind that is not reported. */
static bool read_value(struct amqp_header *header, uint8_t kind, struct span value)
{
    header->kind = AMQP_HEADER_INTEGER;
    header->text = span_of(NULL, 0);
    uint64_t number = value.bytes <= 8 ? number_at(value.data, value.bytes) : 0;
    switch (kind) {
    case 'S':
    case 'x':
        header->kind = AMQP_HEADER_TEXT;
        header->text = value;
        header->integer = 0;
        return true;
    case 'T':
        header->kind = AMQP_HEADER_TIMESTAMP;
        header->integer = (int64_t)number;
        return true;
    case 'b':
        header->integer = (int64_t)(number & 0x7f) - (int64_t)(number & 0x80);
        return true;
    case 's':
        header->integer = (int16_t)number;
        return true;
    case 'I':
        header->integer = (int32_t)number;
        return true;
    case 'B':
    case 'u':
    case 'i':
    case 'l':
        header->integer = (int64_t)number;
        return true;
    default:
        return false;
    }
}

bool amqp_headers_read(struct span table, struct amqp_header headers[AMQP_HEADERS_MAX], size_t *header_count)
{
    *header_count = 0;
    size_t at = 0;
    while (at < table.bytes) {
        size_t name_bytes = table.data[at++];
        if (table.bytes - at < name_bytes + 1) {
            return false;
        }
        struct span name = span_of(table.data + at, name_bytes);
        at += name_bytes;
        uint8_t kind = table.data[at++];
        bool has_length = false;
        int fixed_bytes = value_bytes(kind, &has_length);
        uint64_t bytes = fixed_bytes < 0 ? 0 : (uint64_t)fixed_bytes;
        if (fixed_bytes < 0 || (has_length && table.bytes - at < 4)) {
            return false;
        }
        if (has_length) {
            bytes = number_at(table.data + at, 4);
            at += 4;
        }
        if (table.bytes - at < bytes) {
            return false;
        }
        struct span value = span_of(table.data + at, (size_t)bytes);
        at += (size_t)bytes;
        if (*header_count < AMQP_HEADERS_MAX && read_value(&headers[*header_count], kind, value)) {
            headers[*header_count].name = name;
            (*header_count)++;
        }
    }
    return true;
}
