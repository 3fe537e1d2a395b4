/* SPDX-License-Identifier: MIT */
/* What digest.c needs of wolfCrypt, in the order that the library asks for: its build options, then the rest. */
#ifndef POSTERN_BASE_WOLFCRYPT_H
#define POSTERN_BASE_WOLFCRYPT_H

#include <wolfssl/options.h>

#include <wolfssl/wolfcrypt/sha.h>

#endif
