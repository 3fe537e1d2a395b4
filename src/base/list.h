/* SPDX-License-Identifier: MIT */
/* A doubly linked list whose links live in its members.
 *
 * Invariant: an unlinked node points at itself or is zero; a linked one is in exactly one list. O(1) everything.
 * Memory: the members'. Thread: its owner's. */
#ifndef POSTERN_BASE_LIST_H
#define POSTERN_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list_node {
    struct list_node *previous;
    struct list_node *next;
};

struct list {
    struct list_node head;
};

#define LIST_OWNER(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

static inline void list_init(struct list *list)
{
    list->head.previous = &list->head;
    list->head.next = &list->head;
}

static inline bool list_empty(const struct list *list)
{
    return list->head.next == &list->head;
}

static inline bool list_linked(const struct list_node *node)
{
    return node->next != NULL && node->next != node;
}

static inline void list_append(struct list *list, struct list_node *node)
{
    node->previous = list->head.previous;
    node->next = &list->head;
    list->head.previous->next = node;
    list->head.previous = node;
}

static inline void list_remove(struct list_node *node)
{
    if (list_linked(node)) {
        node->previous->next = node->next;
        node->next->previous = node->previous;
    }
    node->previous = NULL;
    node->next = NULL;
}

static inline struct list_node *list_first(const struct list *list)
{
    return list_empty(list) ? NULL : list->head.next;
}

#endif
