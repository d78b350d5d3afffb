/* Frames to RGB: every format, region and stride against a plain formula, and no byte between the rows is touched.
 *
 * Under AddressSanitizer what is between the rows and behind the last one cannot be read. tests/runtime/test_frames.py
 * compares with OpenCV. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "gms_rt.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

#define PADDING 0xEE

typedef struct plane {
    uint8_t *bytes;
    size_t rows, row, stride;
} plane;

static uint32_t noise_state = 1;

static uint8_t noise(void)
{
    noise_state = noise_state * 1664525u + 1013904223u;
    return (uint8_t)(noise_state >> 24);
}

/* Rows of noise; the memory ends with the last row, and the padding before that is poisoned. */
static plane make_plane(size_t rows, size_t row, size_t padding)
{
    plane made = {NULL, rows, row, row + padding};

    made.bytes = malloc((rows - 1) * made.stride + row);
    CHECK(made.bytes != NULL, "no memory");
    for (size_t y = 0; y < rows; y++) {
        for (size_t x = 0; x < row; x++) made.bytes[y * made.stride + x] = noise();
        if (y + 1 < rows && padding > 0) {
            memset(made.bytes + y * made.stride + row, PADDING, padding);
            ASAN_POISON_MEMORY_REGION(made.bytes + y * made.stride + row, padding);
        }
    }
    return made;
}

static void free_plane(plane *of)
{
    ASAN_UNPOISON_MEMORY_REGION(of->bytes, (of->rows - 1) * of->stride + of->row);
    free(of->bytes);
}

static int in_byte(double value)
{
    return value < 0 ? 0 : value > 255 ? 255 : (int)(value + 0.5);
}

/* The standards' formula in floating point; OpenCV's rounded coefficients differ from it by at most one step. */
static void colour_of(const gmsrt_frame *frame, int y, int u, int v, int rgb[3])
{
    const double red = frame->matrix == GMSRT_BT709 ? 0.2126 : 0.299;
    const double blue = frame->matrix == GMSRT_BT709 ? 0.0722 : 0.114, green = 1 - red - blue;
    const bool full = frame->range == GMSRT_FULL;
    const double light = full ? y : (y < 16 ? 0 : y - 16) * 255.0 / 219, scale = full ? 1 : 255.0 / 224;

    rgb[0] = in_byte(light + 2 * (1 - red) * scale * (v - 128));
    rgb[1] = in_byte(light - 2 * (1 - red) * red / green * scale * (v - 128) -
                     2 * (1 - blue) * blue / green * scale * (u - 128));
    rgb[2] = in_byte(light + 2 * (1 - blue) * scale * (u - 128));
}

static void expected_pixel(const gmsrt_frame *frame, uint32_t x, uint32_t y, int rgb[3])
{
    static const int bytes[] = {3, 3, 4, 4, 1};
    const uint8_t *first = frame->planes[0] + y * frame->strides[0];

    if (frame->format == GMSRT_NV12) {
        const uint8_t *pair = frame->planes[1] + y / 2 * frame->strides[1] + x / 2 * 2;

        colour_of(frame, first[x], pair[0], pair[1], rgb);
    } else if (frame->format == GMSRT_I420) {
        colour_of(frame, first[x], frame->planes[1][y / 2 * frame->strides[1] + x / 2],
                  frame->planes[2][y / 2 * frame->strides[2] + x / 2], rgb);
    } else {
        const int size = bytes[frame->format], reversed = frame->format == GMSRT_BGR || frame->format == GMSRT_BGRA;
        const uint8_t *pixel = first + x * (uint32_t)size;

        for (int c = 0; c < 3; c++) rgb[c] = size == 1 ? pixel[0] : pixel[reversed ? 2 - c : c];
    }
}

static void expect_region(const gmsrt_frame *frame, size_t gap)
{
    const size_t width = frame->region_width > 0 ? frame->region_width : frame->width;
    const size_t height = frame->region_height > 0 ? frame->region_height : frame->height;
    const int tolerance = frame->format >= GMSRT_NV12 ? 1 : 0;
    plane to = make_plane(height, width * 3, gap);

    CHECK_OK(gmsrt_rgb_from_frame(frame, to.bytes, gap > 0 ? to.stride : 0));
    for (size_t y = 0; y < height; y++)
        for (size_t x = 0; x < width; x++) {
            int rgb[3];

            expected_pixel(frame, frame->x + (uint32_t)x, frame->y + (uint32_t)y, rgb);
            for (int c = 0; c < 3; c++) {
                const int is = to.bytes[y * to.stride + 3 * x + (size_t)c];

                CHECK(abs(is - rgb[c]) <= tolerance, "format %d, pixel %zu %zu: %d is %d instead of %d", frame->format,
                      x, y, c, is, rgb[c]);
            }
        }
    ASAN_UNPOISON_MEMORY_REGION(to.bytes, (to.rows - 1) * to.stride + to.row);
    for (size_t y = 0; y + 1 < height; y++)
        for (size_t x = 0; x < gap; x++)
            CHECK(to.bytes[y * to.stride + to.row + x] == PADDING, "written between the rows");
    free_plane(&to);
}

/* One frame of a format and size, all of it and some regions. */
static void test_frame(gmsrt_format format, uint32_t width, uint32_t height, size_t padding)
{
    static const size_t bytes[] = {3, 3, 4, 4, 1, 1, 1};
    const size_t columns = (width + 1) / 2, rows = (height + 1) / 2;
    plane planes[3] = {{NULL, 0, 0, 0}, {NULL, 0, 0, 0}, {NULL, 0, 0, 0}};
    int count = 1;
    gmsrt_frame frame;

    CHECK_OK(gmsrt_frame_init(&frame, sizeof frame));
    frame.format = format;
    frame.width = width;
    frame.height = height;
    planes[0] = make_plane(height, width * bytes[format], padding);
    if (format == GMSRT_NV12) planes[count++] = make_plane(rows, 2 * columns, padding);
    if (format == GMSRT_I420)
        for (; count < 3; count++) planes[count] = make_plane(rows, columns, padding + (size_t)count);
    for (int i = 0; i < count; i++) {
        frame.planes[i] = planes[i].bytes;
        frame.strides[i] = planes[i].stride;
    }
    for (int kind = 0; kind < (format >= GMSRT_NV12 ? 4 : 1); kind++) {
        frame.matrix = kind / 2;
        frame.range = kind % 2;
        frame.x = frame.y = frame.region_width = frame.region_height = 0;
        expect_region(&frame, 0);
        expect_region(&frame, 5);
        for (int turn = 0; turn < 6; turn++) {
            frame.x = noise() % width;
            frame.y = noise() % height;
            frame.region_width = 1 + noise() % (width - frame.x);
            frame.region_height = 1 + noise() % (height - frame.y);
            expect_region(&frame, turn % 2 ? 3 : 0);
        }
    }
    for (int i = 0; i < count; i++) free_plane(&planes[i]);
}

static void refused(const gmsrt_frame *frame, size_t stride, const char *said)
{
    static uint8_t rgb[64 * 64 * 3];

    CHECK(gmsrt_rgb_from_frame(frame, rgb, stride) == GMSRT_INVALID_ARGUMENT, "%s", said);
    CHECK(strstr(gmsrt_last_error(), said) != NULL, "%s", gmsrt_last_error());
}

static gmsrt_frame sound_frame(void)
{
    static const uint8_t bytes[64 * 64];
    gmsrt_frame frame;

    CHECK_OK(gmsrt_frame_init(&frame, sizeof frame));
    frame.format = GMSRT_NV12;
    frame.width = 33;
    frame.height = 31;
    for (int i = 0; i < 2; i++) {
        frame.planes[i] = bytes;
        frame.strides[i] = 34;
    }
    return frame;
}

#define REFUSED(change, said)                                                                                          \
    do {                                                                                                               \
        gmsrt_frame frame = sound_frame();                                                                             \
        change;                                                                                                        \
        refused(&frame, 0, said);                                                                                      \
    } while (0)

static void test_refusals(void)
{
    uint8_t rgb[33 * 31 * 3];
    gmsrt_frame sound = sound_frame();

    CHECK_OK(gmsrt_rgb_from_frame(&sound, rgb, 0));
    CHECK(gmsrt_rgb_from_frame(NULL, rgb, 0) == GMSRT_INVALID_ARGUMENT, "no frame");
    CHECK(gmsrt_rgb_from_frame(&sound, NULL, 0) == GMSRT_INVALID_ARGUMENT, "no room");
    refused(&sound, 33 * 3 - 1, "rows of the result are 98 bytes apart, a row of 33 pixels needs 99");
    refused(&sound, SIZE_MAX, "rows of the result");
    REFUSED(frame.struct_size = 0, "gmsrt_frame");
    REFUSED(frame.format = -1, "-1 is not a gmsrt_format");
    REFUSED(frame.format = 7, "7 is not a gmsrt_format");
    REFUSED(frame.matrix = 2, "matrix 2 is neither GMSRT_BT601 nor GMSRT_BT709");
    REFUSED(frame.range = -1, "range -1 is neither GMSRT_LIMITED nor GMSRT_FULL");
    REFUSED(frame.reserved = 1, "reserved is 1");
    REFUSED(frame.width = 0, "a frame of 0 by 31 pixels");
    REFUSED(frame.height = 40000, "a frame of 33 by 40000 pixels");
    REFUSED(frame.x = 1, "an empty region of 0 by 0 pixels");
    REFUSED(frame.region_width = 5, "an empty region of 5 by 0 pixels");
    REFUSED((frame.region_width = 33, frame.region_height = 32), "the region 33 by 32 at (0, 0) is not inside");
    REFUSED((frame.x = 33, frame.region_width = frame.region_height = 1),
            "at (33, 0) is not inside the frame 33 by 31");
    REFUSED((frame.y = 4000000000u, frame.region_width = frame.region_height = 1), "is not inside");
    REFUSED((frame.x = 2, frame.region_width = 4294967295u, frame.region_height = 1), "is not inside");
    REFUSED(frame.planes[1] = NULL, "plane 1 of a GMSRT_NV12 frame is a null pointer");
    REFUSED(frame.strides[0] = 32,
            "plane 0 of a GMSRT_NV12 frame has a stride of 32 bytes, a row of 33 pixels needs 33");
    REFUSED(frame.strides[1] = 33,
            "plane 1 of a GMSRT_NV12 frame has a stride of 33 bytes, a row of 33 pixels needs 34");
    REFUSED(frame.strides[1] = SIZE_MAX, "plane 1 has a stride of");
    REFUSED(frame.format = GMSRT_I420, "plane 2 of a GMSRT_I420 frame is a null pointer");
    REFUSED(frame.format = GMSRT_BGRA, "a row of 33 pixels needs 132");
}

int main(void)
{
    for (gmsrt_format format = GMSRT_RGB; format <= GMSRT_I420; format++)
        for (uint32_t size = 0; size < 6; size++)
            for (size_t padding = 0; padding < 40; padding += 13)
                test_frame(format, size < 2 ? 1 + size : 5 + 7 * size, size < 3 ? 1 + size : 23 - 2 * size, padding);
    test_refusals();
    return checks_passed("test_frames");
}
