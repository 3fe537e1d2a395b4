/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "aborts.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

bool aborts(void (*mistake)(void *argument), void *argument)
{
    pid_t child = fork();
    if (child < 0) {
        abort();
    }
    if (child == 0) {
        const struct rlimit no_core = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &no_core);
        (void)signal(SIGABRT, SIG_DFL); /* the test library has a handler of its own */
        int nowhere = open("/dev/null", O_WRONLY);
        (void)dup2(nowhere, STDERR_FILENO);
        mistake(argument);
        _exit(0);
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child) {
        abort();
    }
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}
