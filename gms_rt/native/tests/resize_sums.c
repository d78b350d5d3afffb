/* Hashes of resized images, probabilities and masks of random sizes, a line each: the same on every processor.
 *
 * Compiled with ../src/resize.c and ../src/sha256*.c alone, so that it runs without anything else where it is emulated;
 * tests/runtime/test_native_resize.py compares the lines. */
#include <stdio.h>
#include <stdlib.h>

#include "../src/internal.h"
#include "check.h"

#define ROUNDS 300

static uint64_t state = 88172645463325252u;

static uint32_t any(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 20);
}

gmsrt_status gmsrt_fail(gmsrt_status status, const char *format, ...)
{
    (void)format;
    return status;
}

int main(void)
{
    for (int round = 0; round < ROUNDS; round++) {
        const uint32_t high = 1 + any() % 70, wide = 1 + any() % 70, to_high = 1 + any() % 70, to_wide = 1 + any() % 70;
        const uint32_t channels = any() % 2 ? 3 : 1;
        const size_t size = (size_t)high * wide * channels, to_size = (size_t)to_high * to_wide;
        uint8_t *from = malloc(size), *to = malloc(to_size * channels);
        float *values = malloc(to_size * sizeof *values);
        gmsrt_sha256_state sum;
        char hex[65];

        CHECK(from != NULL && to != NULL && values != NULL, "no memory");
        for (size_t i = 0; i < size; i++) from[i] = (uint8_t)(round % 3 == 0 ? 127 + any() % 2 : any());
        gmsrt_sha256_start(&sum);
        CHECK(gmsrt_resize_image(from, high, wide, channels, to, to_high, to_wide) == GMSRT_OK, "an image");
        gmsrt_sha256_add(&sum, to, to_size * channels);
        CHECK(gmsrt_resize_probability(from, high, wide, values, to_high, to_wide) == GMSRT_OK, "probabilities");
        gmsrt_sha256_add(&sum, values, to_size * sizeof *values);
        CHECK(gmsrt_mask_from_levels(from, high, wide, 0.5, to, to_high, to_wide) == GMSRT_OK, "a mask");
        gmsrt_sha256_add(&sum, to, to_size);
        gmsrt_sha256_end(&sum, hex);
        puts(hex);
        free(from);
        free(to);
        free(values);
    }
    return 0;
}
