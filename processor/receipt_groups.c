/* SPDX-License-Identifier: MIT */
/* A short list, searched from the group used last: a batch nearly always comes from one or two gateways. */
#include "receipt_groups.h"

#include "arena.h"
#include "check.h"

#define GATEWAY_PREFIX "gateway."

void receipt_groups_init(struct receipt_groups *groups, struct arena *arena,
                         void (*send)(void *context, struct span reply_to, struct span body, size_t count),
                         void *context)
{
    uint8_t *const buffers = arena_take(arena, "receipts", RECEIPT_GROUPS, RECEIPT_BATCH_BYTES);
    if (arena_measuring(arena)) {
        return;
    }
    *groups = (struct receipt_groups){.send = send, .context = context};
    for (size_t i = 0; i < RECEIPT_GROUPS; i++) {
        groups->groups[i].buffer = buffers + i * RECEIPT_BATCH_BYTES;
    }
}

static void send_group(struct receipt_groups *groups, struct receipt_group *group)
{
    groups->send(groups->context, span_of(group->reply_to, group->reply_to_bytes), receipt_batch_end(&group->batch),
                 group->count);
}

static struct receipt_group *begin_group(struct receipt_groups *groups, struct span reply_to)
{
    if (groups->used_count == RECEIPT_GROUPS) {
        receipt_groups_flush(groups);
    }
    struct receipt_group *const group = &groups->groups[groups->used_count++];
    receipt_batch_begin(&group->batch, group->buffer, RECEIPT_BATCH_BYTES);
    memcpy(group->reply_to, reply_to.data, reply_to.bytes);
    group->reply_to_bytes = reply_to.bytes;
    group->count = 0;
    return group;
}

static struct receipt_group *group_of(struct receipt_groups *groups, struct span reply_to)
{
    for (size_t i = groups->used_count; i-- > 0;) {
        struct receipt_group *const group = &groups->groups[i];
        if (span_equal(span_of(group->reply_to, group->reply_to_bytes), reply_to)) {
            return group;
        }
    }
    return begin_group(groups, reply_to);
}

void receipt_groups_add(struct receipt_groups *groups, struct span reply_to, const struct receipt *receipt)
{
    const size_t prefix_bytes = sizeof GATEWAY_PREFIX - 1;
    if (reply_to.bytes <= prefix_bytes || reply_to.bytes > REPLY_TO_BYTES_MAX ||
        memcmp(reply_to.data, GATEWAY_PREFIX, prefix_bytes) != 0) {
        return;
    }
    struct receipt_group *const group = group_of(groups, reply_to);
    if (receipt_batch_add(&group->batch, receipt)) {
        group->count++;
        return;
    }
    send_group(groups, group);
    receipt_batch_begin(&group->batch, group->buffer, RECEIPT_BATCH_BYTES);
    CHECK(receipt_batch_add(&group->batch, receipt));
    group->count = 1;
}

void receipt_groups_flush(struct receipt_groups *groups)
{
    for (size_t i = 0; i < groups->used_count; i++) {
        send_group(groups, &groups->groups[i]);
    }
    groups->used_count = 0;
}
