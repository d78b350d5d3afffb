/* A mask in numbers, and how decided the model was: what a row of `gms-rt infer`'s cases.csv says.
 *
 * Rows are taken as runs of foreground, and regions are joined from a row to the next, so that memory grows with the
 * width alone: what is remembered of the rows above is which of the last row's runs are of one region. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define MOST_PIXELS ((uint64_t)1 << 32) /* so that sums of places fit */

/* Foreground of one row: first pixel, the one behind the last, and which set of runs it belongs to. */
typedef struct run {
    uint32_t first, end, set;
} run;

typedef struct row {
    run *runs;
    uint32_t count;
} row;

/* Runs of a row of `width` pixels; at most (width + 1) / 2. */
static void find_runs(const uint8_t *pixels, uint32_t width, row *found)
{
    uint32_t x = 0;
    uint64_t eight;

    found->count = 0;
    for (;;) {
        const uint8_t *end;

        while (width - x >= sizeof eight) {
            memcpy(&eight, pixels + x, sizeof eight);
            if (eight != 0) break;
            x += (uint32_t)sizeof eight;
        }
        while (x < width && pixels[x] == 0) x++;
        if (x == width) return;
        end = memchr(pixels + x, 0, width - x);
        found->runs[found->count].first = x;
        x = end == NULL ? width : (uint32_t)(end - pixels);
        found->runs[found->count++].end = x;
    }
}

/* The set's representative; the way to it is halved for those who come later. */
static uint32_t find_set(uint32_t *parents, uint32_t set)
{
    while (parents[set] != set) set = parents[set] = parents[parents[set]];
    return set;
}

/* Join the runs of a row with those above that they touch, corners included; how many sets became one with another.
 * The sets above are 0..`sets`; each run begins as a set of its own behind them. */
static uint32_t join_rows(const row *above, const row *here, uint32_t sets, uint32_t *parents)
{
    uint32_t joined = 0, first = 0;

    for (uint32_t i = 0; i < sets + here->count; i++) parents[i] = i;
    for (uint32_t i = 0; i < here->count; i++) {
        while (first < above->count && above->runs[first].end < here->runs[i].first) first++;
        for (uint32_t j = first; j < above->count && above->runs[j].first <= here->runs[i].end; j++) {
            const uint32_t a = find_set(parents, above->runs[j].set), b = find_set(parents, sets + i);

            if (a == b) continue;
            parents[a > b ? a : b] = a > b ? b : a;
            joined++;
        }
    }
    return joined;
}

/* Number the sets that the row's runs are of from 0 on; how many there are. */
static uint32_t number_sets(row *here, uint32_t sets, uint32_t *parents, uint32_t *numbers)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < here->count; i++) numbers[find_set(parents, sets + i)] = UINT32_MAX;
    for (uint32_t i = 0; i < here->count; i++) {
        uint32_t *number = &numbers[find_set(parents, sets + i)];

        if (*number == UINT32_MAX) *number = count++;
        here->runs[i].set = *number;
    }
    return count;
}

/* Sums over a mask's foreground. */
typedef struct sums {
    uint64_t area, x, y, regions;
    uint32_t left, right, top, bottom; /* right and bottom are behind the last */
} sums;

static void add_row(sums *of, const row *here, uint32_t y)
{
    for (uint32_t i = 0; i < here->count; i++) {
        const uint64_t first = here->runs[i].first, end = here->runs[i].end, length = end - first;

        of->area += length;
        of->x += (first + end - 1) * length / 2; /* one of the two is even */
        of->y += y * length;
    }
    if (here->count == 0) return;
    if (of->regions == 0 || here->runs[0].first < of->left) of->left = here->runs[0].first;
    if (here->runs[here->count - 1].end > of->right) of->right = here->runs[here->count - 1].end;
    if (of->bottom == 0) of->top = y;
    of->bottom = y + 1;
}

static gmsrt_status sum_mask(const uint8_t *mask, uint32_t height, uint32_t width, sums *of)
{
    const size_t most = (size_t)width / 2 + 1;
    run *runs = malloc(2 * most * sizeof *runs);
    uint32_t *parents = malloc(4 * most * sizeof *parents), sets = 0;
    row above = {runs, 0}, here = {runs + most, 0};

    if (runs == NULL || parents == NULL) {
        free(runs);
        free(parents);
        return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory to measure a mask");
    }
    for (uint32_t y = 0; y < height; y++) {
        const row last = above;

        find_runs(mask + (size_t)y * width, width, &here);
        add_row(of, &here, y);
        of->regions += here.count;
        of->regions -= join_rows(&above, &here, sets, parents);
        sets = number_sets(&here, sets, parents, parents + 2 * most);
        above = here;
        here = last;
    }
    free(runs);
    free(parents);
    return GMSRT_OK;
}

gmsrt_status gmsrt_measure_mask(const uint8_t *mask, uint32_t height, uint32_t width, gmsrt_measures *result,
                                size_t size)
{
    const gmsrt_layout layout = {sizeof *result, 0, 0};
    gmsrt_measures found = {.struct_size = sizeof found};
    sums of = {0};
    gmsrt_status status;

    if ((status = gmsrt_struct_room(result, size, "gmsrt_measures")) != GMSRT_OK) return status;
    if (mask == NULL) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_measure_mask: a null pointer");
    if (height < 1 || width < 1 || height > INT32_MAX || width > INT32_MAX || (uint64_t)height * width > MOST_PIXELS)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT,
                          "a mask of %u by %u pixels; each side must be 1 to 2^31 - 1, the whole 2^32 at most", width,
                          height);
    if ((status = sum_mask(mask, height, width, &of)) != GMSRT_OK) return status;
    found.area = of.area;
    found.regions = of.regions;
    if (of.area > 0) {
        found.x = of.left;
        found.y = of.top;
        found.width = of.right - of.left;
        found.height = of.bottom - of.top;
        found.centre_x = (double)of.x / (double)of.area;
        found.centre_y = (double)of.y / (double)of.area;
    }
    gmsrt_struct_give(result, size, &found, layout);
    return GMSRT_OK;
}

/* How far a level is from the threshold, of how far it could be on its side of it: in the floats of the package. */
static double margin_of(uint32_t level, double threshold)
{
    const float value = (float)level / 255.0f, at = (float)threshold;

    return (double)(value >= at ? (value - at) / (float)(1.0 - threshold) : (at - value) / at);
}

gmsrt_status gmsrt_confidence(const uint8_t *levels, size_t count, double threshold, double *confidence)
{
    uint64_t counts[256] = {0}, all[2] = {0}; /* of the pixels concerned, and of the others */
    double margins[2] = {0};
    uint64_t eight;
    size_t i = 0;
    int which;

    if (levels == NULL || confidence == NULL)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_confidence: a null pointer");
    if (count == 0) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_confidence: no pixels");
    if (!(threshold > 0 && threshold < 1))
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "threshold %g is not between 0 and 1", threshold);
    while (i < count) {
        if (count - i >= sizeof eight) {
            memcpy(&eight, levels + i, sizeof eight);
            if (eight == levels[i] * UINT64_C(0x0101010101010101)) { /* most of an image is decided */
                counts[levels[i]] += sizeof eight;
                i += sizeof eight;
                continue;
            }
        }
        counts[levels[i++]]++;
    }
    for (uint32_t level = 0; level < 256; level++) {
        which = (float)level / 255.0f >= (float)(threshold / 5) ? 0 : 1;
        all[which] += counts[level];
        margins[which] += (double)counts[level] * margin_of(level, threshold);
    }
    which = all[0] > 0 ? 0 : 1;
    *confidence = margins[which] / (double)all[which];
    return GMSRT_OK;
}
