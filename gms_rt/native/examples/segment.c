/* Segment one PGM or PPM image with the CPU graph of an engine folder, and write the mask as PGM at the image's size.
 * Resizing is bilinear, as OpenCV's default.
 *
 *     cc segment.c $(pkg-config --cflags --libs gms_rt) -o segment
 *     GMS_RT_OPENVINO=/path/to/libopenvino_c.so ./segment engines/busi-int8 scan.ppm mask.pgm */
#include <gms_rt.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct image {
    int width, height, channels;
    size_t size;
    unsigned char *pixels;
} image;

static image make_image(int width, int height, int channels)
{
    const size_t size = (size_t)width * (size_t)height * (size_t)channels;
    return (image){width, height, channels, size, malloc(size)};
}

/* A number of the header; comments run from # to the end of the line. */
static int read_number(FILE *file)
{
    char mark[2];
    int value;
    while (fscanf(file, " %1[#]%*[^\n]", mark) == 1) continue;
    return fscanf(file, "%6d", &value) == 1 && value < 65536 ? value : -1;
}

static int read_image(const char *path, image *result)
{
    FILE *file = fopen(path, "rb");
    int kind, width, height, good;

    if (file == NULL) return 0;
    kind = getc(file) == 'P' ? getc(file) : EOF;
    width = read_number(file);
    height = read_number(file);
    good = (kind == '5' || kind == '6') && width > 0 && height > 0 && read_number(file) == 255 && getc(file) != EOF;
    if (good) *result = make_image(width, height, kind == '6' ? 3 : 1);
    good = good && result->pixels != NULL && fread(result->pixels, 1, result->size, file) == result->size;
    fclose(file);
    return good;
}

/* A value of an image; beyond an edge the edge goes on, and a grey image has the same in every channel. */
static double value_at(const image *i, int x, int y, int channel)
{
    const size_t row = (size_t)(y < 0 ? 0 : y < i->height ? y : i->height - 1);
    const size_t column = (size_t)(x < 0 ? 0 : x < i->width ? x : i->width - 1);

    return i->pixels[(row * (size_t)i->width + column) * (size_t)i->channels + (size_t)(channel % i->channels)];
}

static void resize(const image *from, image *to)
{
    for (size_t i = 0; i < to->size; i++) {
        const size_t width = (size_t)to->width, pixel = i / (size_t)to->channels;
        const double sx = ((double)(pixel % width) + 0.5) * from->width / to->width - 0.5;
        const double sy = ((double)(pixel / width) + 0.5) * from->height / to->height - 0.5;
        const int x = (int)(sx + 1) - 1, y = (int)(sy + 1) - 1, c = (int)(i % (size_t)to->channels);
        const double above = value_at(from, x, y, c) * (x + 1 - sx) + value_at(from, x + 1, y, c) * (sx - x);
        const double below = value_at(from, x, y + 1, c) * (x + 1 - sx) + value_at(from, x + 1, y + 1, c) * (sx - x);
        to->pixels[i] = (unsigned char)(above * (y + 1 - sy) + below * (sy - y) + 0.5);
    }
}

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    return 1;
}

int main(int argc, char **argv)
{
    gmsrt_info info = {0};
    gmsrt_runner *runner = NULL;
    image scan, input, map, mask;
    FILE *file;

    if (argc != 4) return fail("usage", "segment ENGINE IMAGE.ppm MASK.pgm") + 1;
    if (!read_image(argv[2], &scan)) return fail(argv[2], "not an 8-bit binary PGM or PPM image");
    if (gmsrt_open_cpu(argv[1], NULL, &runner) != GMSRT_OK || gmsrt_get_info(runner, &info, sizeof info) != GMSRT_OK)
        return fail("segment", gmsrt_last_error());
    input = make_image((int)info.width, (int)info.height, 3); /* the network's size */
    map = make_image((int)info.width, (int)info.height, 1);
    mask = make_image(scan.width, scan.height, 1);
    if (input.pixels == NULL || map.pixels == NULL || mask.pixels == NULL) return fail(argv[2], "no memory");
    resize(&scan, &input);
    if (gmsrt_infer(runner, input.pixels, 1, map.pixels) != GMSRT_OK) return fail("segment", gmsrt_last_error());
    gmsrt_close(runner);
    resize(&map, &mask);
    for (size_t i = 0; i < mask.size; i++) mask.pixels[i] = mask.pixels[i] >= 128 ? 255 : 0;
    file = fopen(argv[3], "wb");
    if (file == NULL || fprintf(file, "P5\n%d %d\n255\n", mask.width, mask.height) < 0 ||
        fwrite(mask.pixels, 1, mask.size, file) != mask.size || fclose(file) != 0)
        return fail(argv[3], "cannot be written");
    return 0; /* the images go with the process */
}
