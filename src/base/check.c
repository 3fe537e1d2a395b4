/* SPDX-License-Identifier: MIT */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>

void check_failed(const char *condition, const char *file, int line)
{
    (void)fprintf(stderr, "postern: internal error: %s does not hold at %s:%d\n", condition, file, line);
    abort();
}
