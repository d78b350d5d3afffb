/* A mask as PNG, without a compression library: 8-bit grey, no filters, deflate with one code for all masks.
 *
 * A mask is runs, and a row is nearly the row above. So a piece of a row is said either as more of the pixel before it
 * (distance 1) or as what stands above it (distance one row), and only what is neither is said pixel by pixel. That needs
 * no search. The code has short words for what masks are made of, and long ones for the rest. The same pixels give the same
 * bytes on every machine and with every version of OpenCV. */
#include <string.h>

#include "internal.h"

#define MOST_BYTES ((uint64_t)1 << 30) /* of rows, for the length of their chunk has 31 bits */
#define FARTHEST 32768u                /* that deflate looks back */
#define SHORTEST 3u
#define LONGEST 258u
#define FRAME 57u /* signature, IHDR, and what is around the data in IDAT and IEND */
#define WRAP 6u   /* zlib's head and sum */
#define TABLE 64u /* how the code is told, at most */
#define END 256u  /* the word behind the last pixel */
#define WORDS 286u
#define MOST_SUMMED (1u << 24) /* bytes whose weighted sum fits */

/* How many bits a word has: 257 to 284 are lengths of up to 257, 285 is 258. Together exactly all that can be said. */
static uint32_t bits_of_word(uint32_t word)
{
    if (word == 285) return 2;
    if (word == 0) return 3;
    if (word == 255) return 4;
    if (word == END) return 13;
    if (word < END) return 14;
    return word < 269 ? 8 : 5;
}

/* Bits in the order of deflate: from the least significant of each byte. */
typedef struct bits {
    uint8_t *at;
    uint64_t held;
    uint32_t count;
} bits;

/* What a picture is written with: the words, and how a row is looked back. */
typedef struct mask_writer {
    bits to;
    uint16_t words[WORDS]; /* the first bit is the least significant */
    uint8_t sizes[WORDS];
    uint32_t row, row_more; /* a row's distance: its group, and what is said within the group */
    uint32_t row_bits;      /* of that */
} mask_writer;

static void put_bits(bits *to, uint32_t value, uint32_t count)
{
    to->held |= (uint64_t)value << to->count;
    for (to->count += count; to->count >= 8; to->count -= 8) {
        *to->at++ = (uint8_t)to->held;
        to->held >>= 8;
    }
}

/* Words are numbered by size, then by value (RFC 1951, 3.2.2). */
static void make_words(const uint8_t *sizes, uint32_t count, uint16_t *words)
{
    uint32_t next = 0;

    for (uint32_t size = 1; size <= 15; size++, next <<= 1)
        for (uint32_t word = 0; word < count; word++) {
            uint32_t turned = next << (16 - size);

            if (sizes[word] != size) continue;
            turned = (turned & 0x5555) << 1 | (turned >> 1 & 0x5555);
            turned = (turned & 0x3333) << 2 | (turned >> 2 & 0x3333);
            turned = (turned & 0x0F0F) << 4 | (turned >> 4 & 0x0F0F);
            words[word] = (uint16_t)((turned & 0x00FF) << 8 | turned >> 8);
            next++;
        }
}

/* The number of the highest bit that is set; `value` is not 0. */
static uint32_t highest_bit(uint32_t value)
{
    uint32_t bit = 0;

    while (value >>= 1) bit++;
    return bit;
}

/* Tell the code: sizes of words, then of the two distances, each group's first and the row's. */
static void put_table(mask_writer *out)
{
    /* Sizes are words of a code of their own, 16 means "the last one three to six times more". */
    static const uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    static const uint8_t size_sizes[19] = {5, 5, 4, 4, 4, 4, 0, 0, 4, 0, 0, 0, 0, 4, 4, 0, 1, 0, 0};
    uint16_t size_words[19];
    uint8_t sizes[WORDS + 30] = {0};
    const uint32_t count = WORDS + out->row + 1;

    make_words(size_sizes, 19, size_words);
    memcpy(sizes, out->sizes, WORDS);
    sizes[WORDS] = sizes[WORDS + out->row] = 1;
    put_bits(&out->to, WORDS - 257, 5);
    put_bits(&out->to, out->row, 5);
    put_bits(&out->to, 18 - 4, 4); /* all but 15 */
    for (uint32_t i = 0; i < 18; i++) put_bits(&out->to, size_sizes[order[i]], 3);
    for (uint32_t i = 0, same; i < count; i += same) {
        for (same = 0; i > 0 && same < 6 && i + same < count && sizes[i + same] == sizes[i - 1]; same++) continue;
        if (same >= 3) {
            put_bits(&out->to, size_words[16], size_sizes[16]);
            put_bits(&out->to, same - 3, 2);
        } else {
            put_bits(&out->to, size_words[sizes[i]], size_sizes[sizes[i]]);
            same = 1;
        }
    }
}

static void start_writing(mask_writer *out, uint8_t *at, uint32_t width)
{
    const uint32_t distance = width < FARTHEST ? width : 1; /* less one; distances come in groups of two */

    out->to = (bits){at, 0, 0};
    for (uint32_t word = 0; word < WORDS; word++) out->sizes[word] = (uint8_t)bits_of_word(word);
    make_words(out->sizes, WORDS, out->words);
    out->row_bits = distance < 4 ? 0 : highest_bit(distance) - 1;
    out->row = 2 * out->row_bits + (distance >> out->row_bits);
    out->row_more = distance & ((1u << out->row_bits) - 1);
    put_bits(&out->to, 5, 3); /* one block, the last one, with a code of its own */
    put_table(out);
}

static void put_word(mask_writer *out, uint32_t word)
{
    put_bits(&out->to, out->words[word], out->sizes[word]);
}

/* "`length` more bytes as the one before, or as a row before." Lengths come in groups of four words. */
static void put_match(mask_writer *out, uint32_t length, bool as_above)
{
    const uint32_t l = length - SHORTEST, extra = l < 8 ? 0 : highest_bit(l) - 2;

    if (length == LONGEST) {
        put_word(out, 285);
    } else {
        put_word(out, 257 + 4 * extra + (l >> extra));
        put_bits(&out->to, l & ((1u << extra) - 1), extra);
    }
    put_bits(&out->to, as_above, 1);
    if (as_above) put_bits(&out->to, out->row_more, out->row_bits);
}

/* How many bytes of two places are the same, of at most `count`. */
static uint32_t same_bytes(const uint8_t *a, const uint8_t *b, uint32_t count)
{
    uint32_t same = 0;
    uint64_t first, second;

    while (count - same >= sizeof first) {
        memcpy(&first, a + same, sizeof first);
        memcpy(&second, b + same, sizeof second);
        if (first != second) break;
        same += (uint32_t)sizeof first;
    }
    while (same < count && a[same] == b[same]) same++;
    return same;
}

static void put_run(mask_writer *out, uint32_t length, bool as_above)
{
    while (length > 0) {
        /* What is left must not be too short for a match. */
        uint32_t piece = length < LONGEST ? length : LONGEST;

        if (length > LONGEST && length - piece < SHORTEST) piece = length - SHORTEST;
        put_match(out, piece, as_above);
        length -= piece;
    }
}

/* Say the next bytes, of which `more` are as the one before them and `same` as a row before, as whichever goes on longer.
 * How many that was: 0 where neither is long enough. */
static uint32_t put_longer(mask_writer *out, uint32_t more, uint32_t same)
{
    const uint32_t length = more >= same ? more : same;

    if (length < SHORTEST) return 0;
    put_run(out, length, more < same);
    return length;
}

/* A row, with its filter byte of 0 before it; `above` is NULL where it cannot be looked back at. */
static void put_row(mask_writer *out, const uint8_t *pixels, const uint8_t *above, uint32_t width)
{
    const uint32_t zeros = pixels[0] != 0 ? 0 : 1 + same_bytes(pixels + 1, pixels, width - 1);
    uint32_t x = 0, more, same, said;

    more = above == NULL || above[width - 1] != 0 ? 0 : 1 + zeros;
    same = above == NULL ? 0 : 1 + same_bytes(pixels, above, width);
    if ((said = put_longer(out, more, same)) > 0)
        x = said - 1;
    else
        put_word(out, 0);
    while (x < width) {
        more = x == 0 ? zeros : same_bytes(pixels + x, pixels + x - 1, width - x);
        same = above == NULL ? 0 : same_bytes(pixels + x, above + x, width - x);
        if ((said = put_longer(out, more, same)) > 0)
            x += said;
        else
            put_word(out, pixels[x++]);
    }
}

/* Adler-32 over bytes, run by run. */
static void add_to_sum(uint32_t sum[2], const uint8_t *pixels, uint32_t count)
{
    const uint64_t prime = 65521;
    uint64_t plain = 0, weighted = 0; /* at most 255 * count * (count + 1) / 2, with a count of up to MOST_SUMMED */

    for (uint32_t x = 0, same; x < count; x += same) {
        const uint64_t left = count - x;

        same = 1 + same_bytes(pixels + x + 1, pixels + x, count - x - 1);
        plain += (uint64_t)pixels[x] * same;
        weighted += pixels[x] * (same * (2 * left - same + 1) / 2);
    }
    sum[1] = (uint32_t)((sum[1] + (uint64_t)count * sum[0] + weighted) % prime);
    sum[0] = (uint32_t)((sum[0] + plain) % prime);
}

/* The same over a row and its filter byte of 0. */
static void add_row_to_sum(uint32_t sum[2], const uint8_t *pixels, uint32_t width)
{
    sum[1] = (sum[1] + sum[0]) % 65521;
    for (uint32_t x = 0; x < width; x += MOST_SUMMED)
        add_to_sum(sum, pixels + x, width - x < MOST_SUMMED ? width - x : MOST_SUMMED);
}

static uint32_t crc_of(const uint8_t *bytes, size_t count)
{
    static const uint32_t table[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
                                       0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                       0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        crc = table[crc & 15] ^ crc >> 4;
        crc = table[crc & 15] ^ crc >> 4;
    }
    return ~crc;
}

static uint8_t *put_number(uint8_t *at, uint32_t value)
{
    for (int shift = 24; shift >= 0; shift -= 8) *at++ = (uint8_t)(value >> shift);
    return at;
}

/* A chunk whose data stand in their place already; where the next one begins. */
static uint8_t *end_chunk(uint8_t *chunk, const char *type, size_t size)
{
    put_number(chunk, (uint32_t)size);
    memcpy(chunk + 4, type, 4);
    return put_number(chunk + 8 + size, crc_of(chunk + 4, size + 4));
}

/* zlib's form of the mask; where it ends. */
static uint8_t *put_data(uint8_t *at, const uint8_t *mask, uint32_t height, uint32_t width)
{
    mask_writer out;
    uint32_t sum[2] = {1, 0};

    at[0] = 0x78; /* deflate, looking back as far as it can */
    at[1] = 0x01; /* the quickest level, and a check of both */
    start_writing(&out, at + 2, width);
    for (uint32_t y = 0; y < height; y++) {
        const uint8_t *pixels = mask + (size_t)y * width;

        put_row(&out, pixels, y > 0 && width < FARTHEST ? pixels - width : NULL, width);
        add_row_to_sum(sum, pixels, width);
    }
    put_word(&out, END);
    put_bits(&out.to, 0, 7); /* the last byte is full */
    return put_number(out.to.at, sum[1] << 16 | sum[0]);
}

static gmsrt_status check_size(uint32_t height, uint32_t width)
{
    if (height < 1 || width < 1 || (uint64_t)height * ((uint64_t)width + 1) > MOST_BYTES)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT,
                          "a mask of %u by %u pixels has no PNG; each side must be 1 or more, and "
                          "height * (width + 1) 2^30 at most",
                          width, height);
    return GMSRT_OK;
}

size_t gmsrt_png_room(uint32_t height, uint32_t width)
{
    if (check_size(height, width) != GMSRT_OK) return 0;
    /* Nothing takes more than pixels one by one. */
    return FRAME + WRAP + TABLE + (size_t)(((uint64_t)height * (width + 1) * 14 + 13 + 7) / 8);
}

gmsrt_status gmsrt_png_from_mask(const uint8_t *mask, uint32_t height, uint32_t width, uint8_t *png, size_t room,
                                 size_t *size)
{
    static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    gmsrt_status status;
    uint8_t *at = png, *end;

    if (mask == NULL || png == NULL || size == NULL)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_png_from_mask: a null pointer");
    if ((status = check_size(height, width)) != GMSRT_OK) return status;
    if (room < gmsrt_png_room(height, width))
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "room for %zu bytes, a PNG of %u by %u pixels may need %zu", room,
                          width, height, gmsrt_png_room(height, width));
    memcpy(at, signature, sizeof signature);
    at += sizeof signature;
    put_number(put_number(at + 8, width), height);
    memcpy(at + 16, "\x08\x00\x00\x00", 5); /* 8 bits, grey; deflate, filters by row, no interlace */
    at = end_chunk(at, "IHDR", 13);
    end = put_data(at + 8, mask, height, width);
    at = end_chunk(at, "IDAT", (size_t)(end - at) - 8);
    at = end_chunk(at, "IEND", 0);
    *size = (size_t)(at - png);
    return GMSRT_OK;
}
