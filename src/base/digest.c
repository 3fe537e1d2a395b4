/* SPDX-License-Identifier: MIT */
/* The only file that uses wolfCrypt. Its state stands on the stack; its results are checked, because a library built
 * without SHA-1 says so only there. */
#include "digest.h"

#include "check.h"
#include "wolfcrypt.h"

_Static_assert(DIGEST_SHA1_BYTES == (int)WC_SHA_DIGEST_SIZE, "the library writes as much as the caller gives room for");

void digest_sha1(struct span bytes, uint8_t digest[DIGEST_SHA1_BYTES])
{
    wc_Sha sha;
    CHECK(bytes.bytes <= UINT32_MAX);
    CHECK(wc_InitSha(&sha) == 0);
    CHECK(bytes.bytes == 0 || wc_ShaUpdate(&sha, bytes.data, (word32)bytes.bytes) == 0);
    CHECK(wc_ShaFinal(&sha, digest) == 0);
    wc_ShaFree(&sha);
}
