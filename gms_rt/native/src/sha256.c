/* SHA-256 (FIPS 180-4) of a file, with the processor's own instructions for it where it has them. */
#include <stdio.h>
#include <string.h>

#include "internal.h"

const uint32_t gmsrt_sha256_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t value, unsigned by)
{
    return value >> by | value << (32 - by);
}

/* One round; the names of the eight words move on by the order of the arguments, so that no word is ever copied. */
#define ROUND(a, b, c, d, e, f, g, h, i)                                                                               \
    do {                                                                                                               \
        const uint32_t first = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + (g ^ (e & (f ^ g))) +              \
                               gmsrt_sha256_constants[i] + words[i];                                                   \
        d += first;                                                                                                    \
        h = first + (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) | (c & (a | b)));                        \
    } while (0)

static void digest_block(uint32_t state[8], const uint8_t block[64])
{
    uint32_t words[64];
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];

    for (int i = 0; i < 16; i++)
        words[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
                   block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        const uint32_t before = words[i - 15], last = words[i - 2];

        words[i] = words[i - 16] + (rotate(before, 7) ^ rotate(before, 18) ^ before >> 3) + words[i - 7] +
                   (rotate(last, 17) ^ rotate(last, 19) ^ last >> 10);
    }
    for (int i = 0; i < 64; i += 8) {
        ROUND(a, b, c, d, e, f, g, h, i);
        ROUND(h, a, b, c, d, e, f, g, i + 1);
        ROUND(g, h, a, b, c, d, e, f, i + 2);
        ROUND(f, g, h, a, b, c, d, e, i + 3);
        ROUND(e, f, g, h, a, b, c, d, i + 4);
        ROUND(d, e, f, g, h, a, b, c, i + 5);
        ROUND(c, d, e, f, g, h, a, b, i + 6);
        ROUND(b, c, d, e, f, g, h, a, i + 7);
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

void gmsrt_sha256_plain(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    for (size_t i = 0; i < blocks; i++) digest_block(state, data + 64 * i);
}

static void digest(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    if (gmsrt_sha256_has_fast())
        gmsrt_sha256_fast(state, data, blocks);
    else
        gmsrt_sha256_plain(state, data, blocks);
}

void gmsrt_sha256_start(gmsrt_sha256_state *sum)
{
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

    memcpy(sum->words, start, sizeof start);
    sum->total = 0;
}

void gmsrt_sha256_add(gmsrt_sha256_state *sum, const void *data, size_t size)
{
    const uint8_t *bytes = data;

    while (size > 0) {
        const size_t used = (size_t)(sum->total % 64), room = 64 - used;
        const size_t part = used == 0 && size >= 64 ? size / 64 * 64 : size < room ? size : room;

        sum->total += part;
        if (part >= 64) {
            digest(sum->words, bytes, part / 64);
        } else {
            memcpy(sum->block + used, bytes, part);
            if (used + part == 64) digest(sum->words, sum->block, 1);
        }
        bytes += part;
        size -= part;
    }
}

void gmsrt_sha256_end(gmsrt_sha256_state *sum, char hex[65])
{
    static const char digits[] = "0123456789abcdef";
    static const uint8_t filling[64] = {0x80};
    const uint64_t bits = sum->total * 8;
    uint8_t length[8];

    for (int i = 0; i < 8; i++) length[i] = (uint8_t)(bits >> (56 - 8 * i));
    gmsrt_sha256_add(sum, filling, 1 + (size_t)((119 - sum->total % 64) % 64));
    gmsrt_sha256_add(sum, length, sizeof length);
    for (int i = 0; i < 64; i++) hex[i] = digits[sum->words[i / 8] >> (28 - 4 * (i % 8)) & 15];
    hex[64] = '\0';
}

bool gmsrt_sha256(FILE *file, char hex[65])
{
    gmsrt_sha256_state sum;
    uint8_t buffer[65536];
    size_t count;

    gmsrt_sha256_start(&sum);
    while ((count = fread(buffer, 1, sizeof buffer, file)) > 0) gmsrt_sha256_add(&sum, buffer, count);
    gmsrt_sha256_end(&sum, hex);
    return !ferror(file);
}
