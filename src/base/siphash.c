/* SPDX-License-Identifier: MIT */
/* Two rounds for each word of eight bytes, four at the end; the last word holds what is left and the length. */
#include "siphash.h"

struct sip {
    uint64_t v0, v1, v2, v3;
};

static uint64_t rotate(uint64_t word, unsigned bits)
{
    return word << bits | word >> (64 - bits);
}

static void sip_round(struct sip *sip)
{
    sip->v0 += sip->v1;
    sip->v1 = rotate(sip->v1, 13) ^ sip->v0;
    sip->v0 = rotate(sip->v0, 32);
    sip->v2 += sip->v3;
    sip->v3 = rotate(sip->v3, 16) ^ sip->v2;
    sip->v0 += sip->v3;
    sip->v3 = rotate(sip->v3, 21) ^ sip->v0;
    sip->v2 += sip->v1;
    sip->v1 = rotate(sip->v1, 17) ^ sip->v2;
    sip->v2 = rotate(sip->v2, 32);
}

static void sip_word(struct sip *sip, uint64_t word)
{
    sip->v3 ^= word;
    sip_round(sip);
    sip_round(sip);
    sip->v0 ^= word;
}

/* The little-endian word of the next `bytes` bytes, at most eight. */
static uint64_t load(const uint8_t *data, size_t bytes)
{
    uint64_t word = 0;
    for (size_t at = 0; at < bytes; at++) {
        word |= (uint64_t)data[at] << (8 * at);
    }
    return word;
}

uint64_t siphash(const struct siphash_key *key, struct span bytes)
{
    struct sip sip = {
        key->words[0] ^ UINT64_C(0x736f6d6570736575),
        key->words[1] ^ UINT64_C(0x646f72616e646f6d),
        key->words[0] ^ UINT64_C(0x6c7967656e657261),
        key->words[1] ^ UINT64_C(0x7465646279746573),
    };
    size_t at = 0;
    for (; bytes.bytes - at >= 8; at += 8) {
        sip_word(&sip, load(bytes.data + at, 8));
    }
    size_t left = bytes.bytes - at;
    uint64_t last = (uint64_t)bytes.bytes << 56;
    if (left > 0) {
        last |= load(bytes.data + at, left);
    }
    sip_word(&sip, last);
    sip.v2 ^= 0xFF;
    sip_round(&sip);
    sip_round(&sip);
    sip_round(&sip);
    sip_round(&sip);
    return sip.v0 ^ sip.v1 ^ sip.v2 ^ sip.v3;
}
