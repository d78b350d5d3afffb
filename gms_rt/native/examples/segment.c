/* Segment one PGM or PPM image with the CPU graph of an engine folder, and write the mask as PGM at the image's size.
 * The mask is that of `gms-rt infer`, byte for byte: the library resizes as the Python package does.
 *
 *     cc segment.c $(pkg-config --cflags --libs gms_rt) -o segment
 *     GMS_RT_OPENVINO=/path/to/libopenvino_c.so ./segment engines/busi-int8 scan.ppm mask.pgm */
#include <gms_rt.h>
#include <stdio.h>
#include <stdlib.h>

#define THRESHOLD 0.5 /* probability from which a pixel is foreground, as in gms-rt infer */

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

/* An image at the network's size, as RGB; a grey one has the same in every channel. */
static int prepare(const image *scan, image *input)
{
    const image small = make_image(input->width, input->height, scan->channels);
    const int good =
        small.pixels != NULL &&
        gmsrt_resize_image(scan->pixels, (uint32_t)scan->height, (uint32_t)scan->width, (uint32_t)scan->channels,
                           small.pixels, (uint32_t)small.height, (uint32_t)small.width) == GMSRT_OK;

    for (size_t i = 0; good && i < input->size; i++) input->pixels[i] = small.pixels[scan->channels == 3 ? i : i / 3];
    free(small.pixels);
    return good;
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
    if (!prepare(&scan, &input) || gmsrt_infer(runner, input.pixels, 1, map.pixels) != GMSRT_OK ||
        gmsrt_mask_from_levels(map.pixels, info.height, info.width, THRESHOLD, mask.pixels, (uint32_t)mask.height,
                               (uint32_t)mask.width) != GMSRT_OK)
        return fail("segment", gmsrt_last_error());
    gmsrt_close(runner);
    file = fopen(argv[3], "wb");
    if (file == NULL || fprintf(file, "P5\n%d %d\n255\n", mask.width, mask.height) < 0 ||
        fwrite(mask.pixels, 1, mask.size, file) != mask.size || fclose(file) != 0)
        return fail(argv[3], "cannot be written");
    return 0; /* the images go with the process */
}
