/* SHA-256 with the SHA instructions of x86 processors, where they have them. sha256_arm.c does the same for Arm, and
 * stands in on machines that are neither. */
#include "internal.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <cpuid.h>
#include <immintrin.h>

bool gmsrt_sha256_has_fast(void)
{
    static int known; /* 1: no, 2: yes; asking a virtual machine's processor takes microseconds */
    int answer = __atomic_load_n(&known, __ATOMIC_RELAXED);

    if (answer == 0) {
        const unsigned ssse3 = 1u << 9, sse41 = 1u << 19, sha = 1u << 29;
        unsigned a, b, c, d;

        answer = 1;
        if (__get_cpuid(1, &a, &b, &c, &d) && (c & ssse3) != 0 && (c & sse41) != 0 &&
            __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & sha) != 0)
            answer = 2;
        __atomic_store_n(&known, answer, __ATOMIC_RELAXED);
    }
    return answer == 2;
}

/* The words of the next four rounds, from those of the sixteen before. */
#define NEXT(w0, w1, w2, w3)                                                                                           \
    w0 = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8(w3, w2, 4)), w3)

#define FOUR_ROUNDS(number, words)                                                                                     \
    do {                                                                                                               \
        const __m128i sum = _mm_add_epi32(                                                                             \
            words, _mm_loadu_si128((const __m128i *)(const void *)(gmsrt_sha256_constants + 4 * (number))));           \
        cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);                                                                 \
        abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));                                        \
    } while (0)

#define LOAD(number) _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)(data + 16 * (number))), order)

/* The instructions keep the eight words a to h as two vectors, abef and cdgh. */
__attribute__((target("sha,sse4.1"))) void gmsrt_sha256_fast(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    const __m128i order = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    const __m128i cdab = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)state), 0xb1);
    const __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)(state + 4)), 0x1b);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8), cdgh = _mm_blend_epi16(efgh, cdab, 0xf0), feba, dchg;

    for (; blocks > 0; blocks--, data += 64) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w0 = LOAD(0), w1 = LOAD(1), w2 = LOAD(2), w3 = LOAD(3);

        FOUR_ROUNDS(0, w0);
        FOUR_ROUNDS(1, w1);
        FOUR_ROUNDS(2, w2);
        FOUR_ROUNDS(3, w3);
        for (int i = 4; i < 16; i += 4) {
            NEXT(w0, w1, w2, w3);
            FOUR_ROUNDS(i, w0);
            NEXT(w1, w2, w3, w0);
            FOUR_ROUNDS(i + 1, w1);
            NEXT(w2, w3, w0, w1);
            FOUR_ROUNDS(i + 2, w2);
            NEXT(w3, w0, w1, w2);
            FOUR_ROUNDS(i + 3, w3);
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    feba = _mm_shuffle_epi32(abef, 0x1b);
    dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)(void *)state, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(void *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

#endif
