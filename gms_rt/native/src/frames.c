/* Frames of cameras and decoders as RGB: layouts of pixels, row strides, a region of interest.
 *
 * YUV is converted in integers of 20 binary places. BT.601 in the limited range has OpenCV's coefficients and rounding
 * (COLOR_YUV2RGB_NV12), so the result is the same bit for bit; the other three are the standards' own, rounded to the
 * same places. Chroma is not interpolated: each sample is that of its two by two pixels, counted from the frame's corner,
 * wherever the region begins. */
#include <string.h>

#include "internal.h"

#define PLACES 20

/* R = Y*y + V*rv, G = Y*y + V*gv + U*gu, B = Y*y + U*bu, with Y from its black and U and V from 128. */
typedef struct coefficients {
    int32_t black, y, rv, gv, gu, bu;
} coefficients;

static const coefficients of_matrix[2][2] = {
    /* limited, then full range */
    {{16, 1220542, 1673527, -852492, -409993, 2116026}, {0, 1048576, 1470104, -748826, -360853, 1858077}},
    {{16, 1220945, 1879825, -558796, -223607, 2215014}, {0, 1048576, 1651297, -490864, -196424, 1945738}},
};

/* What a format's planes are: bytes per sample, and whether a sample is of two by two pixels. */
typedef struct plane {
    uint32_t bytes, halved;
} plane;

static const struct layout {
    const char *name;
    uint32_t planes;
    plane of[3];
} layouts[] = {
    [GMSRT_RGB] = {"GMSRT_RGB", 1, {{3, 0}}},
    [GMSRT_BGR] = {"GMSRT_BGR", 1, {{3, 0}}},
    [GMSRT_RGBA] = {"GMSRT_RGBA", 1, {{4, 0}}},
    [GMSRT_BGRA] = {"GMSRT_BGRA", 1, {{4, 0}}},
    [GMSRT_GRAY] = {"GMSRT_GRAY", 1, {{1, 0}}},
    [GMSRT_NV12] = {"GMSRT_NV12", 2, {{1, 0}, {2, 1}}},
    [GMSRT_I420] = {"GMSRT_I420", 3, {{1, 0}, {1, 1}, {1, 1}}},
};

gmsrt_status gmsrt_frame_init(gmsrt_frame *frame, size_t size)
{
    const gmsrt_frame defaults = {.struct_size = sizeof defaults};

    return gmsrt_struct_init(frame, size, &defaults, sizeof defaults, "gmsrt_frame");
}

static gmsrt_status check_plane(const gmsrt_frame *frame, const struct layout *layout, uint32_t index)
{
    const plane what = layout->of[index];
    const uint64_t columns = what.halved ? (frame->width + 1) / 2 : frame->width;
    const uint64_t rows = what.halved ? (frame->height + 1) / 2 : frame->height;

    if (frame->planes[index] == NULL)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "plane %u of a %s frame is a null pointer", index, layout->name);
    if (frame->strides[index] < columns * what.bytes)
        return gmsrt_fail(
            GMSRT_INVALID_ARGUMENT, "plane %u of a %s frame has a stride of %zu bytes, a row of %u pixels needs %llu",
            index, layout->name, frame->strides[index], frame->width, (unsigned long long)(columns * what.bytes));
    if (frame->strides[index] > PTRDIFF_MAX / rows)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "plane %u has a stride of %zu bytes, too much for %u rows", index,
                          frame->strides[index], frame->height);
    return GMSRT_OK;
}

/* The caller's frame, with the region filled in, or what is wrong with it. */
static gmsrt_status take_frame(const gmsrt_frame *given, gmsrt_frame *frame)
{
    const struct layout *layout;
    gmsrt_status status;

    memset(frame, 0, sizeof *frame);
    if ((status = gmsrt_struct_take(frame, sizeof *frame, given, "gmsrt_frame")) != GMSRT_OK) return status;
    if (frame->format < GMSRT_RGB || frame->format > GMSRT_I420)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "%d is not a gmsrt_format", (int)frame->format);
    if (frame->matrix != GMSRT_BT601 && frame->matrix != GMSRT_BT709)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "matrix %d is neither GMSRT_BT601 nor GMSRT_BT709",
                          (int)frame->matrix);
    if (frame->range != GMSRT_LIMITED && frame->range != GMSRT_FULL)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "range %d is neither GMSRT_LIMITED nor GMSRT_FULL",
                          (int)frame->range);
    if (frame->reserved != 0)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "reserved is %u; call gmsrt_frame_init first", frame->reserved);
    if (frame->width < 1 || frame->width > GMSRT_MAX_SIDE || frame->height < 1 || frame->height > GMSRT_MAX_SIDE)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "a frame of %u by %u pixels; each side must be 1 to %u", frame->width,
                          frame->height, GMSRT_MAX_SIDE);
    if (frame->region_width == 0 && frame->region_height == 0 && frame->x == 0 && frame->y == 0) {
        frame->region_width = frame->width;
        frame->region_height = frame->height;
    }
    if (frame->region_width == 0 || frame->region_height == 0)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT,
                          "an empty region of %u by %u pixels; leave x, y and both sizes at zero for the whole frame",
                          frame->region_width, frame->region_height);
    if (frame->x >= frame->width || frame->region_width > frame->width - frame->x || frame->y >= frame->height ||
        frame->region_height > frame->height - frame->y)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "the region %u by %u at (%u, %u) is not inside the frame %u by %u",
                          frame->region_width, frame->region_height, frame->x, frame->y, frame->width, frame->height);
    layout = &layouts[frame->format];
    for (uint32_t i = 0; i < layout->planes && status == GMSRT_OK; i++) status = check_plane(frame, layout, i);
    return status;
}

static uint8_t narrow(int32_t value)
{
    const int32_t whole = value < 0 ? 0 : value >> PLACES;

    return (uint8_t)(whole > 255 ? 255 : whole);
}

/* `u` and `v` are the chroma samples of the row, `step` bytes from one to the next. */
static void row_from_yuv(const gmsrt_frame *frame, const uint8_t *luma, const uint8_t *u, const uint8_t *v, size_t step,
                         uint8_t *rgb)
{
    const coefficients *c = &of_matrix[frame->matrix][frame->range];
    const int32_t half = 1 << (PLACES - 1);

    for (uint32_t i = 0; i < frame->region_width; i++) {
        const uint32_t column = frame->x + i;
        const int32_t above = luma[column] - c->black, bright = (above < 0 ? 0 : above) * c->y;
        const int32_t blue = u[column / 2 * step] - 128, red = v[column / 2 * step] - 128;

        rgb[3 * i] = narrow(bright + half + c->rv * red);
        rgb[3 * i + 1] = narrow(bright + half + c->gv * red + c->gu * blue);
        rgb[3 * i + 2] = narrow(bright + half + c->bu * blue);
    }
}

/* `first` is the byte of red, `last` that of blue. */
static void row_from_pixels(const uint8_t *pixels, uint32_t count, uint32_t bytes, uint32_t first, uint32_t last,
                            uint8_t *rgb)
{
    for (uint32_t i = 0; i < count; i++) {
        rgb[3 * i] = pixels[(size_t)i * bytes + first];
        rgb[3 * i + 1] = pixels[(size_t)i * bytes + (bytes > 1 ? 1 : 0)];
        rgb[3 * i + 2] = pixels[(size_t)i * bytes + last];
    }
}

static void row_from_frame(const gmsrt_frame *frame, uint32_t row, uint8_t *rgb)
{
    const size_t chroma = row / 2;
    const uint8_t *first = frame->planes[0] + row * frame->strides[0];
    const uint8_t *second = frame->planes[1], *third = frame->planes[2];
    const uint32_t bytes = layouts[frame->format].of[0].bytes;

    switch (frame->format) {
    case GMSRT_NV12:
        second += chroma * frame->strides[1];
        row_from_yuv(frame, first, second, second + 1, 2, rgb);
        break;
    case GMSRT_I420:
        row_from_yuv(frame, first, second + chroma * frame->strides[1], third + chroma * frame->strides[2], 1, rgb);
        break;
    case GMSRT_BGR:
    case GMSRT_BGRA: row_from_pixels(first + (size_t)frame->x * bytes, frame->region_width, bytes, 2, 0, rgb); break;
    case GMSRT_GRAY: row_from_pixels(first + frame->x, frame->region_width, 1, 0, 0, rgb); break;
    default: row_from_pixels(first + (size_t)frame->x * bytes, frame->region_width, bytes, 0, 2, rgb); break;
    }
}

gmsrt_status gmsrt_rgb_from_frame(const gmsrt_frame *given, uint8_t *rgb, size_t stride)
{
    gmsrt_frame frame;
    gmsrt_status status;

    if (given == NULL || rgb == NULL) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_rgb_from_frame: a null pointer");
    if ((status = take_frame(given, &frame)) != GMSRT_OK) return status;
    if (stride == 0) stride = (size_t)frame.region_width * 3;
    if (stride < (size_t)frame.region_width * 3 || stride > PTRDIFF_MAX / frame.region_height)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT,
                          "rows of the result are %zu bytes apart, a row of %u pixels needs %zu", stride,
                          frame.region_width, (size_t)frame.region_width * 3);
    for (uint32_t row = 0; row < frame.region_height; row++) row_from_frame(&frame, frame.y + row, rgb + row * stride);
    return GMSRT_OK;
}
