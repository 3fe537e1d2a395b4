/* SPDX-License-Identifier: MIT */
/* When to ask a silent client whether it is there, and when to give it up: a pure decision.
 *
 * Any byte from the client is life. Silence counts from the last byte or from `heartbeat_reset`, whichever is later:
 * the time in which the gateway does not read a client is not the client's. The answer's time counts from the ping
 * itself and not from when it was due, so a loop that was late never costs a client its slot, as long as what has come
 * by then is received before this is asked.
 *
 * All times are monotonic milliseconds. Memory: the caller's. Thread: any one. */
#ifndef POSTERN_SESSION_HEARTBEAT_H
#define POSTERN_SESSION_HEARTBEAT_H

#include <stdbool.h>
#include <stdint.h>

struct heartbeat_settings {
    uint64_t interval_ms; /* silence before a ping */
    uint64_t timeout_ms;  /* further silence before the end */
};

struct heartbeat {
    uint64_t mark_ms; /* when the ping went out, or from when silence counts at the earliest */
    bool pinged;
};

enum heartbeat_action {
    HEARTBEAT_WAIT,     /* look again at due_ms */
    HEARTBEAT_PING,     /* send a ping now and look again at due_ms */
    HEARTBEAT_TIMED_OUT /* the client is gone; due_ms means nothing */
};

struct heartbeat_decision {
    enum heartbeat_action action;
    uint64_t due_ms;
};

/* Silence counts from now: at the start, and when a client is read again. */
void heartbeat_reset(struct heartbeat *heartbeat, uint64_t now_ms);

/* Decides. receive_ms is when the last byte came. */
struct heartbeat_decision heartbeat_decide(struct heartbeat *heartbeat, const struct heartbeat_settings *settings,
                                           uint64_t receive_ms, uint64_t now_ms);

#endif
