/* SPDX-License-Identifier: MIT */
/* AMQP 0-9-1 in bytes, for the simulated broker: written by hand after the standard, so that the gateway's codec is
 * judged by another one. A reader that runs over its end says so (is_bad) and gives zeros. */
#ifndef POSTERN_TESTS_SIM_AMQP_BYTES_H
#define POSTERN_TESTS_SIM_AMQP_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "span.h"

enum {
    AMQP_BYTES_METHOD = 1,
    AMQP_BYTES_HEADER = 2,
    AMQP_BYTES_BODY = 3,
    AMQP_BYTES_HEARTBEAT = 8,
    AMQP_BYTES_END = 0xCE
};

/* Class and method. */
#define AMQP_METHOD_ID(class_number, method_number) ((uint32_t)(class_number) << 16 | (uint32_t)(method_number))

struct amqp_reader {
    struct span rest;
    bool is_bad;
};

static inline uint64_t amqp_read(struct amqp_reader *reader, size_t bytes)
{
    uint64_t value = 0;
    if (reader->rest.bytes < bytes) {
        reader->is_bad = true;
        return 0;
    }
    for (size_t i = 0; i < bytes; i++) {
        value = value << 8 | reader->rest.data[i];
    }
    reader->rest = span_of(reader->rest.data + bytes, reader->rest.bytes - bytes);
    return value;
}

static inline struct span amqp_read_bytes(struct amqp_reader *reader, size_t bytes)
{
    if (reader->rest.bytes < bytes) {
        reader->is_bad = true;
        return span_of(NULL, 0);
    }
    struct span read = span_of(reader->rest.data, bytes);
    reader->rest = span_of(reader->rest.data + bytes, reader->rest.bytes - bytes);
    return read;
}

static inline struct span amqp_read_short(struct amqp_reader *reader)
{
    return amqp_read_bytes(reader, (size_t)amqp_read(reader, 1));
}

static inline struct span amqp_read_long(struct amqp_reader *reader)
{
    return amqp_read_bytes(reader, (size_t)amqp_read(reader, 4));
}

struct amqp_writer {
    uint8_t bytes[4096];
    size_t used;
};

static inline void amqp_write(struct amqp_writer *writer, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        writer->bytes[writer->used++] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
    }
}

static inline void amqp_write_bytes(struct amqp_writer *writer, struct span bytes)
{
    if (bytes.bytes > 0) {
        memcpy(writer->bytes + writer->used, bytes.data, bytes.bytes);
        writer->used += bytes.bytes;
    }
}

static inline void amqp_write_short(struct amqp_writer *writer, struct span text)
{
    amqp_write(writer, text.bytes, 1);
    amqp_write_bytes(writer, text);
}

static inline void amqp_write_long(struct amqp_writer *writer, struct span text)
{
    amqp_write(writer, text.bytes, 4);
    amqp_write_bytes(writer, text);
}

#endif
