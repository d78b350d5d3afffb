/* A mask's measures against a plain flood fill, its PNG through an inflater of its own, the confidence against the formula.
 *
 * Buffers are exactly as large as the header says, so that a sanitizer sees a step outside them.
 * tests/runtime/test_masks.py compares with OpenCV and Pillow. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "check.h"
#include "gms_rt.h"

static uint32_t noise_state = 1;

static uint32_t below(uint32_t count)
{
    noise_state = noise_state * 1664525u + 1013904223u;
    return (noise_state >> 8) % count;
}

/* Blobs, noise, rows that repeat, labels, nothing: whatever `kind` says. */
static uint8_t *make_mask(uint32_t height, uint32_t width, uint32_t kind)
{
    const size_t pixels = (size_t)height * width;
    uint8_t *mask = malloc(pixels);
    const uint32_t middle = below(width), radius = 1 + below(width / 2 + 1);

    CHECK(mask != NULL, "no memory");
    for (size_t i = 0; i < pixels; i++) {
        const uint32_t x = (uint32_t)(i % width), y = (uint32_t)(i / width);
        const uint32_t off = x > middle ? x - middle : middle - x;

        switch (kind) {
        case 0: mask[i] = 0; break;
        case 1: mask[i] = 255; break;
        case 2: mask[i] = below(2) ? 255 : 0; break;
        case 3: mask[i] = below(20) ? 0 : 255; break;
        case 4: mask[i] = off + below(2) <= radius / 2 + y % 7 ? 255 : 0; break;
        case 5: mask[i] = (uint8_t)below(256); break;
        case 6: mask[i] = (x / 3 + y / 2) % 2 ? 255 : 0; break;
        default: mask[i] = (uint8_t)(x * 5 / width * (y * 3 / height)); break;
        }
    }
    return mask;
}

/* ---- measures */

static void fill(uint8_t *left, uint32_t height, uint32_t width, size_t *stack, size_t from)
{
    size_t held = 1;

    stack[0] = from;
    left[from] = 0;
    while (held > 0) {
        const size_t at = stack[--held];
        const int64_t x = (int64_t)(at % width), y = (int64_t)(at / width);

        for (int64_t down = -1; down <= 1; down++)
            for (int64_t right = -1; right <= 1; right++) {
                const size_t next = (size_t)((y + down) * width + x + right);

                if (y + down < 0 || y + down >= height || x + right < 0 || x + right >= width || !left[next]) continue;
                left[next] = 0;
                stack[held++] = next;
            }
    }
}

static void test_measures(const uint8_t *mask, uint32_t height, uint32_t width)
{
    const size_t pixels = (size_t)height * width;
    uint8_t *left = malloc(pixels);
    size_t *stack = malloc(pixels * sizeof *stack);
    uint64_t area = 0, regions = 0, sum_x = 0, sum_y = 0;
    uint32_t low_x = width, low_y = height, high_x = 0, high_y = 0;
    gmsrt_measures found;

    CHECK(left != NULL && stack != NULL, "no memory");
    memcpy(left, mask, pixels);
    for (size_t i = 0; i < pixels; i++) {
        const uint32_t x = (uint32_t)(i % width), y = (uint32_t)(i / width);

        if (mask[i] == 0) continue;
        area++;
        sum_x += x;
        sum_y += y;
        if (x < low_x) low_x = x;
        if (y < low_y) low_y = y;
        if (x >= high_x) high_x = x + 1;
        if (y >= high_y) high_y = y + 1;
        if (!left[i]) continue;
        regions++;
        fill(left, height, width, stack, i);
    }
    CHECK_OK(gmsrt_measure_mask(mask, height, width, &found, sizeof found));
    CHECK(found.struct_size == sizeof found, "%zu", found.struct_size);
    CHECK(found.area == area, "%llu, not %llu", (unsigned long long)found.area, (unsigned long long)area);
    CHECK(found.regions == regions, "%llu, not %llu", (unsigned long long)found.regions, (unsigned long long)regions);
    if (area == 0) {
        CHECK(found.x == 0 && found.y == 0 && found.width == 0 && found.height == 0, "a box around nothing");
        CHECK(found.centre_x == 0 && found.centre_y == 0, "a centre of nothing");
    } else {
        CHECK(found.x == low_x && found.width == high_x - low_x, "%u, %u wide", found.x, found.width);
        CHECK(found.y == low_y && found.height == high_y - low_y, "%u, %u high", found.y, found.height);
        CHECK(found.centre_x == (double)sum_x / (double)area, "%g", found.centre_x);
        CHECK(found.centre_y == (double)sum_y / (double)area, "%g", found.centre_y);
    }
    free(left);
    free(stack);
}

static void test_measures_of_other_headers(void)
{
    const uint8_t mask[4] = {0, 1, 1, 0};
    struct {
        gmsrt_measures known;
        uint64_t later;
    } newer;
    gmsrt_measures older;

    memset(&older, 0xA5, sizeof older);
    CHECK_OK(gmsrt_measure_mask(mask, 2, 2, &older, offsetof(gmsrt_measures, regions)));
    CHECK(older.area == 2 && older.regions == UINT64_C(0xA5A5A5A5A5A5A5A5), "written behind what is known");
    memset(&newer, 0xA5, sizeof newer);
    CHECK_OK(gmsrt_measure_mask(mask, 2, 2, &newer.known, sizeof newer));
    CHECK(newer.known.regions == 1 && newer.later == 0, "what is not known is zero");
}

/* ---- PNG */

static uint32_t number_at(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static uint32_t crc_of(const uint8_t *bytes, size_t count)
{
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0xEDB88320u : crc >> 1;
    }
    return ~crc;
}

typedef struct stream {
    const uint8_t *bytes;
    size_t size, bit;
} stream;

static uint32_t take(stream *from, uint32_t count)
{
    uint32_t value = 0;

    for (uint32_t i = 0; i < count; i++, from->bit++) {
        CHECK(from->bit / 8 < from->size, "the data end early");
        value |= (uint32_t)(from->bytes[from->bit / 8] >> (from->bit % 8) & 1) << i;
    }
    return value;
}

/* The next symbol of a code that is told by its sizes; a code with a gap or an overlap does not come to an end here. */
static uint32_t take_symbol(stream *from, const uint8_t *sizes, uint32_t count)
{
    uint32_t code = 0, first = 0;

    for (uint32_t size = 1; size <= 15; size++) {
        uint32_t of_size = 0;

        code |= take(from, 1);
        for (uint32_t i = 0; i < count; i++) {
            if (sizes[i] != size) continue;
            if (code == first + of_size) return i;
            of_size++;
        }
        first = (first + of_size) << 1;
        code <<= 1;
    }
    CHECK(false, "no symbol of the code");
    return 0;
}

/* Whether a code says everything that its bits can say: inflaters refuse others. */
static void check_complete(const uint8_t *sizes, uint32_t count)
{
    uint32_t said = 0;

    for (uint32_t i = 0; i < count; i++)
        if (sizes[i] > 0) said += 1u << (15 - sizes[i]);
    CHECK(said == 1u << 15, "%u of %u", said, 1u << 15);
}

static uint32_t take_more(stream *from, uint32_t group, uint32_t groups)
{
    const uint32_t bits = group < 2 * groups ? 0 : group / groups - 1;

    return (group < 2 * groups ? group : (groups + group % groups) << bits) + take(from, bits);
}

/* One block with a code of its own (RFC 1951, 3.2.7), of `count` bytes. */
static void inflate(stream *from, uint8_t *to, size_t count)
{
    static const uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint8_t size_sizes[19] = {0}, sizes[320] = {0};
    uint32_t words, distances, told;
    size_t made = 0;

    CHECK(take(from, 1) == 1 && take(from, 2) == 2, "not the last block, or without its code");
    words = take(from, 5) + 257;
    distances = take(from, 5) + 1;
    told = take(from, 4) + 4;
    CHECK(words <= 286 && distances <= 30, "%u words, %u distances", words, distances);
    for (uint32_t i = 0; i < told; i++) size_sizes[order[i]] = (uint8_t)take(from, 3);
    check_complete(size_sizes, 19);
    for (uint32_t i = 0; i < words + distances;) {
        const uint32_t symbol = take_symbol(from, size_sizes, 19);
        uint32_t times = symbol == 16 ? 3 + take(from, 2) : 1;

        CHECK(symbol <= 16 && (symbol < 16 || i > 0) && i + times <= words + distances, "symbol %u", symbol);
        for (; times > 0; times--, i++) sizes[i] = symbol == 16 ? sizes[i - 1] : (uint8_t)symbol;
    }
    check_complete(sizes, words);
    check_complete(sizes + words, distances);
    for (;;) {
        const uint32_t symbol = take_symbol(from, sizes, words);
        uint32_t length;
        size_t distance;

        if (symbol == 256) break;
        if (symbol < 256) {
            CHECK(made < count, "too much");
            to[made++] = (uint8_t)symbol;
            continue;
        }
        length = symbol == 285 ? 258 : 3 + take_more(from, symbol - 257, 4);
        distance = 1 + take_more(from, take_symbol(from, sizes + words, distances), 2);
        CHECK(distance <= made && distance <= 32768 && length <= count - made, "%u from %zu", length, distance);
        for (; length > 0; length--, made++) to[made] = to[made - distance];
    }
    CHECK(made == count, "%zu bytes, not %zu", made, count);
}

static void test_png(const uint8_t *mask, uint32_t height, uint32_t width)
{
    static const uint8_t head[] = {0x89, 'P', 'N', 'G', '\r', '\n', 26, '\n', 0, 0, 0, 13, 'I', 'H', 'D', 'R'};
    static const uint8_t kind[] = {8, 0, 0, 0, 0}, tail[] = {0, 0, 0, 0, 'I', 'E', 'N', 'D', 0xAE, 0x42, 0x60, 0x82};
    const size_t room = gmsrt_png_room(height, width), rows = (size_t)height * (width + 1);
    uint8_t *png = malloc(room), *made = malloc(rows);
    uint32_t a = 1, b = 0;
    size_t size = 0, data;
    stream from = {NULL, 0, 0};

    CHECK(png != NULL && made != NULL, "no memory");
    CHECK_OK(gmsrt_png_from_mask(mask, height, width, png, room, &size));
    CHECK(size <= room && size > 57, "%zu bytes of %zu", size, room);
    CHECK(memcmp(png, head, sizeof head) == 0 && number_at(png + 16) == width && number_at(png + 20) == height, "head");
    CHECK(memcmp(png + 24, kind, sizeof kind) == 0 && number_at(png + 29) == crc_of(png + 12, 17), "kind");
    data = number_at(png + 33);
    CHECK(data + 57 == size && memcmp(png + 37, "IDAT", 4) == 0, "%zu of %zu bytes are data", data, size);
    CHECK(number_at(png + 41 + data) == crc_of(png + 37, data + 4), "the sum of the data");
    CHECK(memcmp(png + 45 + data, tail, sizeof tail) == 0, "tail");
    CHECK((png[41] << 8 | png[42]) % 31 == 0 && (png[41] & 15) == 8, "zlib's head");
    from.bytes = png + 43;
    from.size = data - 6;
    inflate(&from, made, rows);
    CHECK((from.bit + 7) / 8 == from.size, "%zu bits of %zu bytes", from.bit, from.size);
    for (size_t i = 0; i < rows; i++) {
        CHECK(made[i] == (i % (width + 1) == 0 ? 0 : mask[i - i / (width + 1) - 1]), "byte %zu is %u", i, made[i]);
        a = (a + made[i]) % 65521;
        b = (b + a) % 65521;
    }
    CHECK(number_at(png + 41 + data - 4) == (b << 16 | a), "zlib's sum");
    CHECK(gmsrt_png_from_mask(mask, height, width, png, room - 1, &size) == GMSRT_INVALID_ARGUMENT, "a byte too few");
    free(png);
    free(made);
}

/* ---- confidence */

static void test_confidence(const uint8_t *levels, size_t count, double threshold)
{
    double sums[2] = {0, 0}, found = -1;
    size_t counts[2] = {0, 0};

    for (size_t i = 0; i < count; i++) {
        const double value = levels[i] / 255.0;
        const int which = value >= threshold / 5 ? 0 : 1;

        counts[which]++;
        sums[which] += value >= threshold ? (value - threshold) / (1 - threshold) : (threshold - value) / threshold;
    }
    CHECK_OK(gmsrt_confidence(levels, count, threshold, &found));
    CHECK(fabs(found - (counts[0] ? sums[0] / (double)counts[0] : sums[1] / (double)counts[1])) < 1e-5, "%g", found);
}

static void test_refusals(void)
{
    const uint8_t mask[4] = {0, 255, 0, 0};
    uint8_t png[512];
    gmsrt_measures found;
    double value;
    size_t size;

    CHECK(gmsrt_measure_mask(NULL, 2, 2, &found, sizeof found) == GMSRT_INVALID_ARGUMENT, "no mask");
    CHECK(gmsrt_measure_mask(mask, 2, 2, NULL, sizeof found) == GMSRT_INVALID_ARGUMENT, "no result");
    CHECK(gmsrt_measure_mask(mask, 2, 2, &found, 3) == GMSRT_INVALID_ARGUMENT, "no size of a result");
    CHECK(gmsrt_measure_mask(mask, 0, 2, &found, sizeof found) == GMSRT_INVALID_ARGUMENT, "no height");
    CHECK(gmsrt_measure_mask(mask, 2, UINT32_MAX, &found, sizeof found) == GMSRT_INVALID_ARGUMENT, "too wide");
    CHECK(gmsrt_measure_mask(mask, 1u << 17, 1u << 17, &found, sizeof found) == GMSRT_INVALID_ARGUMENT, "too large");
    CHECK(gmsrt_confidence(NULL, 4, 0.5, &value) == GMSRT_INVALID_ARGUMENT, "no levels");
    CHECK(gmsrt_confidence(mask, 4, 0.5, NULL) == GMSRT_INVALID_ARGUMENT, "no result");
    CHECK(gmsrt_confidence(mask, 0, 0.5, &value) == GMSRT_INVALID_ARGUMENT, "no pixels");
    CHECK(gmsrt_confidence(mask, 4, 0, &value) == GMSRT_INVALID_ARGUMENT, "threshold 0");
    CHECK(gmsrt_confidence(mask, 4, 1, &value) == GMSRT_INVALID_ARGUMENT, "threshold 1");
    CHECK(gmsrt_confidence(mask, 4, NAN, &value) == GMSRT_INVALID_ARGUMENT, "threshold NaN");
    CHECK(gmsrt_png_room(0, 2) == 0 && gmsrt_png_room(2, 0) == 0, "a side of 0");
    CHECK(gmsrt_png_room(1, 1u << 30) == 0 && gmsrt_png_room(UINT32_MAX, UINT32_MAX) == 0, "too large");
    CHECK(gmsrt_png_room(1, (1u << 30) - 1) > 1u << 30, "the largest");
    CHECK(gmsrt_png_from_mask(NULL, 2, 2, png, sizeof png, &size) == GMSRT_INVALID_ARGUMENT, "no mask");
    CHECK(gmsrt_png_from_mask(mask, 2, 2, NULL, sizeof png, &size) == GMSRT_INVALID_ARGUMENT, "no room");
    CHECK(gmsrt_png_from_mask(mask, 2, 2, png, sizeof png, NULL) == GMSRT_INVALID_ARGUMENT, "no size");
    CHECK(gmsrt_png_from_mask(mask, 2, 0, png, sizeof png, &size) == GMSRT_INVALID_ARGUMENT, "no width");
}

int main(void)
{
    static const uint32_t wide[] = {1, 2, 3, 4, 7, 8, 9, 255, 256, 257, 258, 259, 260, 515, 518, 32767, 32768, 70000};

    for (uint32_t round = 0; round < 160; round++) {
        const uint32_t width = round % 4 ? 1 + below(60) : wide[round / 4 % (sizeof wide / sizeof *wide)];
        const uint32_t height = width > 1000 ? 1 + below(4) : 1 + below(40);
        uint8_t *mask = make_mask(height, width, round % 8);

        test_measures(mask, height, width);
        test_png(mask, height, width);
        test_confidence(mask, (size_t)height * width, (1 + below(99)) / 100.0);
        free(mask);
    }
    test_measures_of_other_headers();
    test_refusals();
    return checks_passed("masks");
}
