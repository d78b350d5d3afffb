/* SHA-256 with the SHA instructions of 64-bit Arm processors, where they have them. */
#include "internal.h"

#if defined(__aarch64__) && defined(__GNUC__) && !defined(__clang__)
#include <arm_neon.h>
#include <sys/auxv.h>

bool gmsrt_sha256_has_fast(void)
{
    return (getauxval(AT_HWCAP) & (1ul << 6)) != 0; /* HWCAP_SHA2 */
}

/* The words of the next four rounds, from those of the sixteen before. */
#define NEXT(w0, w1, w2, w3) w0 = vsha256su1q_u32(vsha256su0q_u32(w0, w1), w2, w3)

#define FOUR_ROUNDS(number, words)                                                                                     \
    do {                                                                                                               \
        const uint32x4_t sum = vaddq_u32(words, vld1q_u32(gmsrt_sha256_constants + 4 * (number)));                     \
        const uint32x4_t before = abcd;                                                                                \
        abcd = vsha256hq_u32(abcd, efgh, sum);                                                                         \
        efgh = vsha256h2q_u32(efgh, before, sum);                                                                      \
    } while (0)

#define LOAD(number) vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(data + 16 * (number))))

/* "crypto" is what every GCC calls the set that has them; the AES of that set is never used. */
__attribute__((target("+crypto"))) void gmsrt_sha256_fast(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    uint32x4_t abcd = vld1q_u32(state), efgh = vld1q_u32(state + 4);

    for (; blocks > 0; blocks--, data += 64) {
        const uint32x4_t abcd_before = abcd, efgh_before = efgh;
        uint32x4_t w0 = LOAD(0), w1 = LOAD(1), w2 = LOAD(2), w3 = LOAD(3);

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
        abcd = vaddq_u32(abcd, abcd_before);
        efgh = vaddq_u32(efgh, efgh_before);
    }
    vst1q_u32(state, abcd);
    vst1q_u32(state + 4, efgh);
}

#elif !defined(__x86_64__) || !(defined(__GNUC__) || defined(__clang__))

bool gmsrt_sha256_has_fast(void)
{
    return false;
}

void gmsrt_sha256_fast(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    gmsrt_sha256_plain(state, data, blocks);
}

#endif
