/* SHA-256: the examples of FIPS 180-4, the plain code against the processor's instructions, and bytes in pieces. */
#include <string.h>

#include "../src/internal.h"
#include "check.h"

#define MOST 4096u

static uint64_t random_state = 88172645463325252u;

static uint32_t any(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 16);
}

static void hash(const void *data, size_t size, char hex[65])
{
    gmsrt_sha256_state sum;

    gmsrt_sha256_start(&sum);
    gmsrt_sha256_add(&sum, data, size);
    gmsrt_sha256_end(&sum, hex);
}

static void expect_hash(const char *text, const char *wanted)
{
    char hex[65];

    hash(text, strlen(text), hex);
    CHECK(strcmp(hex, wanted) == 0, "%s: %s instead of %s", text, hex, wanted);
}

/* The hash of all bytes with the plain code alone, filled up as the standard says. */
static void hash_plainly(const uint8_t *data, size_t size, char hex[65])
{
    static uint8_t whole[MOST + 128];
    const size_t blocks = (size + 9 + 63) / 64;
    gmsrt_sha256_state sum;

    memset(whole, 0, sizeof whole);
    memcpy(whole, data, size);
    whole[size] = 0x80;
    for (size_t i = 0; i < 8; i++) whole[64 * blocks - 1 - i] = (uint8_t)((uint64_t)size * 8 >> (8 * i));
    gmsrt_sha256_start(&sum);
    gmsrt_sha256_plain(sum.words, whole, blocks);
    for (size_t i = 0; i < 8; i++) snprintf(hex + 8 * i, 9, "%08x", sum.words[i]);
}

int main(void)
{
    static uint8_t data[MOST];
    char plain[65], fast[65];

    expect_hash("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    expect_hash("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    expect_hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    for (size_t i = 0; i < MOST; i++) data[i] = (uint8_t)any();
    for (size_t size = 0; size < MOST; size += size < 300 ? 1 : 1 + any() % 97) {
        const size_t start = any() % (MOST - size); /* at any address */
        gmsrt_sha256_state sum;

        hash_plainly(data + start, size, plain);
        hash(data + start, size, fast);
        CHECK(strcmp(plain, fast) == 0, "%zu bytes: %s and %s", size, plain, fast);
        gmsrt_sha256_start(&sum);
        for (size_t done = 0; done < size;) {
            const size_t left = size - done, part = any() % 200;

            gmsrt_sha256_add(&sum, data + start + done, part < left ? part : left);
            done += part < left ? part : left;
        }
        gmsrt_sha256_end(&sum, fast);
        CHECK(strcmp(plain, fast) == 0, "%zu bytes in pieces: %s and %s", size, plain, fast);
    }
    for (int i = 0; gmsrt_sha256_has_fast() && i < 2000; i++) { /* from any state */
        uint32_t one[8], other[8];
        const size_t blocks = any() % 8, start = any() % (MOST - 512);

        for (int k = 0; k < 8; k++) one[k] = other[k] = any();
        gmsrt_sha256_plain(one, data + start, blocks);
        gmsrt_sha256_fast(other, data + start, blocks);
        CHECK(memcmp(one, other, sizeof one) == 0, "%zu blocks differ", blocks);
    }
    return checks_passed(gmsrt_sha256_has_fast() ? "test_sha256 (SHA instructions and plain)" : "test_sha256 (plain)");
}
