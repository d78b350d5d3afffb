/* Images and probability maps at another size, to the bit as the Python package has them.
 *
 * The package resizes with OpenCV, and trained its models so: an image by area where it shrinks in both directions, else
 * bilinearly; a probability map bilinearly, before the threshold. OpenCV's arithmetic is repeated here, step by step,
 * because a rounding that differs moves the border of a mask: bytes are interpolated with weights of 11 bits, areas in
 * floats that are not fused, and floats as the Intel library in OpenCV's wheels for x86-64 does it, fused, along rows
 * first. tests/runtime/test_native_resize.py compares each with the installed OpenCV.
 *
 * Compiled without contraction of floating point: a fused operation is written as one. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define MAX_IMAGE_SIDE 65535u
#define WEIGHT_ONE 2048 /* of bytes: 11 bits */

/* Of one source cell in one result: how much of it. */
typedef struct part {
    uint32_t from, to;
    float share;
} part;

/* Between which two sources a result lies, and how far from the first. */
typedef struct place {
    uint32_t first, second;
    float along;
} place;

/* Where a result lies in the sources, as the float path has it: rounded only when it is a fraction. */
static void find_places(uint32_t size, uint32_t to_size, place *places)
{
    const double scale = (double)size / to_size;

    for (uint32_t i = 0; i < to_size; i++) {
        const double at = (i + 0.5) * scale - 0.5, below = floor(at);
        place *p = &places[i];

        p->along = (float)(at - below);
        p->first = below < 0 ? 0 : (uint32_t)below;
        if (below < 0) p->along = 0;
        if (p->first + 1 >= size) {
            p->first = size - 1;
            p->along = 0;
        }
        p->second = p->first + 1 < size ? p->first + 1 : p->first;
    }
}

/* The same as the path for bytes has it: a float all the time, and at the lower and upper edge not zero. */
static void find_byte_places(uint32_t size, uint32_t to_size, bool horizontal, place *places)
{
    const double scale = 1.0 / ((double)to_size / size);

    for (uint32_t i = 0; i < to_size; i++) {
        const float at = (float)((i + 0.5) * scale - 0.5);
        const float below = floorf(at);
        const int64_t first = (int64_t)below;
        place *p = &places[i];

        p->along = at - below;
        if (horizontal && (first < 0 || first + 1 >= (int64_t)size)) p->along = 0;
        p->first = first < 0 ? 0 : first < (int64_t)size ? (uint32_t)first : size - 1;
        p->second = first + 1 < 0 ? 0 : first + 1 < (int64_t)size ? (uint32_t)(first + 1) : size - 1;
    }
}

static int32_t weight_of(float share)
{
    return (int32_t)lrintf(share * WEIGHT_ONE);
}

/* One row of bytes along x, with the weights still in it. */
static void stretch_row(const uint8_t *row, uint32_t channels, const place *places, uint32_t width, int32_t *result)
{
    for (uint32_t x = 0; x < width; x++) {
        const int32_t second = weight_of(places[x].along), first = weight_of(1.0f - places[x].along);
        const uint8_t *a = row + (size_t)places[x].first * channels, *b = row + (size_t)places[x].second * channels;

        for (uint32_t c = 0; c < channels; c++) *result++ = a[c] * first + b[c] * second;
    }
}

typedef struct shape {
    uint32_t height, width, channels, to_height, to_width;
} shape;

/* Bilinear, of bytes. */
static gmsrt_status stretch(const uint8_t *image, shape s, uint8_t *result)
{
    const size_t row = (size_t)s.to_width * s.channels;
    place *places = malloc(((size_t)s.to_width + s.to_height) * sizeof *places), *rows = places + s.to_width;
    int32_t *buffers = malloc(2 * row * sizeof *buffers), *above = buffers, *below = buffers + row;
    int64_t has_above = -1, has_below = -1;

    if (places == NULL || buffers == NULL) {
        free(places);
        free(buffers);
        return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory to resize an image");
    }
    find_byte_places(s.width, s.to_width, true, places);
    find_byte_places(s.height, s.to_height, false, rows);
    for (uint32_t y = 0; y < s.to_height; y++) {
        const int32_t second = weight_of(rows[y].along), first = weight_of(1.0f - rows[y].along);
        const size_t pitch = (size_t)s.width * s.channels;
        uint8_t *to = result + y * row;

        if (has_below == rows[y].first && has_above != rows[y].first) { /* what was below is above now */
            int32_t *swapped = above;

            above = below;
            below = swapped;
            has_above = has_below;
            has_below = -1;
        }
        if (has_above != rows[y].first)
            stretch_row(image + rows[y].first * pitch, s.channels, places, s.to_width, above);
        if (has_below != rows[y].second)
            stretch_row(image + rows[y].second * pitch, s.channels, places, s.to_width, below);
        has_above = rows[y].first;
        has_below = rows[y].second;
        for (size_t i = 0; i < row; i++)
            to[i] = (uint8_t)((((first * (above[i] >> 4)) >> 16) + ((second * (below[i] >> 4)) >> 16) + 2) >> 2);
    }
    free(places);
    free(buffers);
    return GMSRT_OK;
}

static uint8_t byte_of(float value)
{
    const long rounded = lrintf(value);

    return (uint8_t)(rounded < 0 ? 0 : rounded > 255 ? 255 : rounded);
}

/* Whole cells: the mean of each. */
static void average_cells(const uint8_t *image, shape s, uint8_t *result)
{
    const uint32_t high = s.height / s.to_height, wide = s.width / s.to_width;
    const float scale = 1.0f / (float)(high * wide);

    for (uint32_t y = 0; y < s.to_height; y++)
        for (uint32_t x = 0; x < s.to_width; x++)
            for (uint32_t c = 0; c < s.channels; c++) {
                int32_t sum = 0;

                for (uint32_t sy = 0; sy < high; sy++) {
                    const uint8_t *cell =
                        image + (((size_t)y * high + sy) * s.width + (size_t)x * wide) * s.channels + c;

                    for (uint32_t sx = 0; sx < wide; sx++) sum += cell[(size_t)sx * s.channels];
                }
                *result++ = high == 2 && wide == 2 ? (uint8_t)((sum + 2) >> 2) : byte_of((float)sum * scale);
            }
}

/* Which sources are in which result, in order; how many parts. `parts` has room for 2 * size. */
static size_t find_parts(uint32_t size, uint32_t to_size, part *parts)
{
    const double scale = 1.0 / ((double)to_size / size);
    size_t used = 0;

    for (uint32_t i = 0; i < to_size; i++) {
        const double begin = i * scale, end = begin + scale;
        const double cell = scale < size - begin ? scale : size - begin;
        int64_t first = (int64_t)ceil(begin), last = (int64_t)floor(end);

        if (last > (int64_t)size - 1) last = (int64_t)size - 1;
        if (first > last) first = last;
        if ((double)first - begin > 1e-3)
            parts[used++] = (part){(uint32_t)(first - 1), i, (float)(((double)first - begin) / cell)};
        for (int64_t from = first; from < last; from++) parts[used++] = (part){(uint32_t)from, i, (float)(1.0 / cell)};
        if (end - (double)last > 1e-3) {
            double rest = end - (double)last;

            if (rest > 1) rest = 1;
            if (rest > cell) rest = cell;
            parts[used++] = (part){(uint32_t)last, i, (float)(rest / cell)};
        }
    }
    return used;
}

/* Shares of cells, along rows and then down. */
static gmsrt_status average(const uint8_t *image, shape s, uint8_t *result)
{
    const size_t row = (size_t)s.to_width * s.channels;
    part *across = malloc(2 * ((size_t)s.width + s.height) * sizeof *across), *down = across + 2 * (size_t)s.width;
    float *sums = calloc(2 * row, sizeof *sums), *line = sums + row;
    size_t across_count, down_count;

    if (across == NULL || sums == NULL) {
        free(across);
        free(sums);
        return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory to resize an image");
    }
    across_count = find_parts(s.width, s.to_width, across);
    down_count = find_parts(s.height, s.to_height, down);
    for (size_t j = 0; j < down_count; j++) {
        const uint8_t *from = image + (size_t)down[j].from * s.width * s.channels;

        memset(line, 0, row * sizeof *line);
        for (size_t i = 0; i < across_count; i++)
            for (uint32_t c = 0; c < s.channels; c++) {
                const float product = (float)from[(size_t)across[i].from * s.channels + c] * across[i].share;

                line[(size_t)across[i].to * s.channels + c] += product;
            }
        for (size_t i = 0; i < row; i++) {
            const float product = down[j].share * line[i];

            sums[i] += product;
        }
        if (j + 1 == down_count || down[j + 1].to != down[j].to) {
            for (size_t i = 0; i < row; i++) *result++ = byte_of(sums[i]);
            memset(sums, 0, row * sizeof *sums);
        }
    }
    free(across);
    free(sums);
    return GMSRT_OK;
}

static gmsrt_status check_sizes(const void *from, const void *to, shape s)
{
    if (from == NULL || to == NULL) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_resize: a null pointer");
    if (s.channels != 1 && s.channels != 3)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "%u channels; give 1 or 3", s.channels);
    if (s.height < 1 || s.width < 1 || s.to_height < 1 || s.to_width < 1 || s.height > MAX_IMAGE_SIDE ||
        s.width > MAX_IMAGE_SIDE || s.to_height > MAX_IMAGE_SIDE || s.to_width > MAX_IMAGE_SIDE)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "%u x %u to %u x %u: give sides of 1 to %u", s.width, s.height,
                          s.to_width, s.to_height, MAX_IMAGE_SIDE);
    return GMSRT_OK;
}

gmsrt_status gmsrt_resize_image(const uint8_t *image, uint32_t height, uint32_t width, uint32_t channels,
                                uint8_t *result, uint32_t to_height, uint32_t to_width)
{
    const shape s = {height, width, channels, to_height, to_width};
    const gmsrt_status status = check_sizes(image, result, s);

    if (status != GMSRT_OK) return status;
    if (height == to_height && width == to_width) {
        memcpy(result, image, (size_t)height * width * channels);
        return GMSRT_OK;
    }
    if (height < to_height || width < to_width) return stretch(image, s, result);
    if (height % to_height != 0 || width % to_width != 0) return average(image, s, result);
    average_cells(image, s, result);
    return GMSRT_OK;
}

gmsrt_status gmsrt_resize_mask(const uint8_t *mask, uint32_t height, uint32_t width, uint8_t *result,
                               uint32_t to_height, uint32_t to_width)
{
    const gmsrt_status status = gmsrt_resize_image(mask, height, width, 1, result, to_height, to_width);

    if (status != GMSRT_OK || (height == to_height && width == to_width && mask == result)) return status;
    for (size_t i = 0; i < (size_t)to_height * to_width; i++) result[i] = result[i] >= 128 ? 255 : 0;
    return GMSRT_OK;
}

/* Rows of probabilities at the size of the source, given to `take` one after the other. */
typedef struct rows_of {
    float *values; /* NULL: a mask is wanted */
    uint8_t *mask;
    float threshold;
} rows_of;

static void take_row(const rows_of *to, const float *row, size_t y, uint32_t width)
{
    if (to->values != NULL)
        memcpy(to->values + y * width, row, width * sizeof *row);
    else
        for (uint32_t x = 0; x < width; x++) to->mask[y * width + x] = row[x] >= to->threshold ? 255 : 0;
}

static void stretch_levels(const uint8_t *levels, const float *values, const place *places, uint32_t width, float *row)
{
    for (uint32_t x = 0; x < width; x++) {
        const float a = values[levels[places[x].first]], b = values[levels[places[x].second]];

        row[x] = fmaf(b - a, places[x].along, a);
    }
}

/* A single row or column, which the Intel library leaves to OpenCV's own arithmetic: products and their sum, not fused. */
static float mix(float a, float b, float along)
{
    const float first = a * (1.0f - along), second = b * along;

    return first + second;
}

static void stretch_thin(const uint8_t *levels, shape s, const float *values, const place *places, place at, float *row)
{
    const uint8_t *above = levels + (size_t)at.first * s.width, *below = levels + (size_t)at.second * s.width;

    for (uint32_t x = 0; x < s.to_width; x++) {
        const place p = places[x];

        row[x] = mix(mix(values[above[p.first]], values[above[p.second]], p.along),
                     mix(values[below[p.first]], values[below[p.second]], p.along), at.along);
    }
}

static gmsrt_status stretch_map(const uint8_t *levels, shape s, const rows_of *to)
{
    const bool same = s.height == s.to_height && s.width == s.to_width, thin = s.height == 1 || s.width == 1;
    place *places = malloc(((size_t)s.to_width + s.to_height) * sizeof *places), *rows = places + s.to_width;
    float *buffers = malloc(3 * (size_t)s.to_width * sizeof *buffers), *above = buffers, *below, *row, values[256];

    if (places == NULL || buffers == NULL) {
        free(places);
        free(buffers);
        return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory to resize a probability map");
    }
    below = buffers + s.to_width;
    row = below + s.to_width;
    for (int i = 0; i < 256; i++) values[i] = (float)i / 255.0f;
    if (thin) {
        find_byte_places(s.width, s.to_width, true, places);
        find_byte_places(s.height, s.to_height, false, rows);
    } else {
        find_places(s.width, s.to_width, places);
        find_places(s.height, s.to_height, rows);
    }
    for (uint32_t y = 0; y < s.to_height; y++) {
        if (same) {
            for (uint32_t x = 0; x < s.width; x++) row[x] = values[levels[(size_t)y * s.width + x]];
        } else if (thin) {
            stretch_thin(levels, s, values, places, rows[y], row);
        } else {
            stretch_levels(levels + (size_t)rows[y].first * s.width, values, places, s.to_width, above);
            stretch_levels(levels + (size_t)rows[y].second * s.width, values, places, s.to_width, below);
            for (uint32_t x = 0; x < s.to_width; x++) row[x] = fmaf(below[x] - above[x], rows[y].along, above[x]);
        }
        take_row(to, row, y, s.to_width);
    }
    free(places);
    free(buffers);
    return GMSRT_OK;
}

gmsrt_status gmsrt_resize_probability(const uint8_t *levels, uint32_t height, uint32_t width, float *result,
                                      uint32_t to_height, uint32_t to_width)
{
    const shape s = {height, width, 1, to_height, to_width};
    const rows_of to = {result, NULL, 0};
    const gmsrt_status status = check_sizes(levels, result, s);

    return status == GMSRT_OK ? stretch_map(levels, s, &to) : status;
}

gmsrt_status gmsrt_mask_from_levels(const uint8_t *levels, uint32_t height, uint32_t width, double threshold,
                                    uint8_t *mask, uint32_t to_height, uint32_t to_width)
{
    const shape s = {height, width, 1, to_height, to_width};
    const rows_of to = {NULL, mask, (float)threshold};
    const gmsrt_status status = check_sizes(levels, mask, s);

    if (status != GMSRT_OK) return status;
    if (!(threshold > 0 && threshold < 1))
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "threshold %g is not between 0 and 1", threshold);
    return stretch_map(levels, s, &to);
}
