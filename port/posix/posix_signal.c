/* SPDX-License-Identifier: MIT */
/* A handler only marks what came and wakes the loop, so a signal is never lost between a look and a wait. A handler has
 * no argument of ours: `owner` is the one static variable of the port. A signal that is deferred is blocked, so the
 * kernel keeps it, for the first process of a container too, where one without a handler would be thrown away. */
#include "posix.h"

#include "check.h"

static _Atomic(struct posix *) owner;

static const int handled[POSIX_SIGNALS] = {SIGTERM, SIGINT, SIGHUP, SIGPIPE};

static void on_signal(int number)
{
    struct posix *posix = atomic_load(&owner);
    if (posix != NULL) {
        (void)atomic_fetch_or(&posix->signals,
                              number == SIGHUP ? (unsigned)PORT_SIGNAL_REOPEN : (unsigned)PORT_SIGNAL_STOP);
        posix_wake(posix);
    }
}

static void change_mask(int how)
{
    sigset_t set;
    (void)sigemptyset(&set);
    for (size_t index = 0; index < POSIX_SIGNALS; index++) {
        (void)sigaddset(&set, handled[index]);
    }
    CHECK(pthread_sigmask(how, &set, NULL) == 0);
}

bool posix_signal_open(struct posix *posix, bool defers)
{
    struct posix *none = NULL;
    if (defers) {
        change_mask(SIG_BLOCK);
        return true;
    }
    if (!atomic_compare_exchange_strong(&owner, &none, posix)) {
        return true; /* another port of this process has them */
    }
    posix->owns_signals = true;
    for (size_t index = 0; index < POSIX_SIGNALS; index++) {
        struct sigaction action = {.sa_flags = SA_RESTART};
        (void)sigfillset(&action.sa_mask);
        action.sa_handler = handled[index] == SIGPIPE ? SIG_IGN : on_signal;
        if (sigaction(handled[index], &action, &posix->previous_actions[index]) != 0) {
            (void)posix_failed(posix, "sigaction");
            return false;
        }
    }
    change_mask(SIG_UNBLOCK);
    return true;
}

void posix_signal_close(struct posix *posix)
{
    if (!posix->owns_signals) {
        return;
    }
    for (size_t index = 0; index < POSIX_SIGNALS; index++) {
        (void)sigaction(handled[index], &posix->previous_actions[index], NULL);
    }
    posix->owns_signals = false;
    atomic_store(&owner, NULL);
}
