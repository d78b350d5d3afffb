/* Segment PGM or PPM images with the CPU graph of an engine folder, and write each mask at its image's size, as PNG or PGM.
 * A mask is that of `gms-rt infer`, on x86-64 byte for byte: the library resizes as the Python package does there, and
 * writes the PNG of both.
 *
 *     cc segment.c $(pkg-config --cflags --libs gms_rt) -o segment
 *     GMS_RT_OPENVINO=/path/to/libopenvino_c.so ./segment engines/busi-int8 scan.ppm mask.png [scan2.ppm mask2.png ...] */
#include <gms_rt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* PNG where the name ends so, else PGM. */
static int write_mask(const char *path, const image *mask)
{
    const uint32_t height = (uint32_t)mask->height, width = (uint32_t)mask->width;
    const int is_png = strlen(path) > 4 && strcmp(path + strlen(path) - 4, ".png") == 0;
    unsigned char *png = NULL;
    const unsigned char *bytes = mask->pixels;
    size_t room, size = mask->size;
    FILE *file;
    int good = 1;

    if (is_png) {
        room = gmsrt_png_room(height, width);
        png = malloc(room > 0 ? room : 1);
        bytes = png;
        good = png != NULL && gmsrt_png_from_mask(mask->pixels, height, width, png, room, &size) == GMSRT_OK;
    }
    file = good ? fopen(path, "wb") : NULL;
    if (file != NULL) {
        good = is_png || fprintf(file, "P5\n%d %d\n255\n", mask->width, mask->height) > 0;
        good = good && fwrite(bytes, 1, size, file) == size;
        good = fclose(file) == 0 && good;
    }
    free(png);
    return file != NULL && good;
}

/* One image to its mask; `input` and `map` are of the network's size and are used again. */
static int segment(gmsrt_runner *runner, image *input, image *map, const char *from, const char *to)
{
    image scan = {0}, mask;
    int status = 0;

    if (!read_image(from, &scan)) status = fail(from, "not an 8-bit binary PGM or PPM image");
    mask = make_image(scan.width, scan.height, 1);
    if (status == 0 && mask.pixels == NULL) status = fail(from, "no memory");
    if (status == 0 && (!prepare(&scan, input) || gmsrt_infer(runner, input->pixels, 1, map->pixels) != GMSRT_OK ||
                        gmsrt_mask_from_levels(map->pixels, (uint32_t)map->height, (uint32_t)map->width, THRESHOLD,
                                               mask.pixels, (uint32_t)mask.height, (uint32_t)mask.width) != GMSRT_OK))
        status = fail(from, gmsrt_last_error());
    if (status == 0 && !write_mask(to, &mask)) status = fail(to, "cannot be written");
    free(mask.pixels);
    free(scan.pixels);
    return status;
}

int main(int argc, char **argv)
{
    gmsrt_info info = {0};
    gmsrt_runner *runner = NULL;
    image input, map;
    int status = 0;

    if (argc < 4 || argc % 2 != 0)
        return fail("usage", "segment ENGINE IMAGE.ppm MASK.png [IMAGE.ppm MASK.png ...]") + 1;
    if (gmsrt_open_cpu(argv[1], NULL, &runner) != GMSRT_OK || gmsrt_get_info(runner, &info, sizeof info) != GMSRT_OK)
        return fail("segment", gmsrt_last_error());
    input = make_image((int)info.width, (int)info.height, 3);
    map = make_image((int)info.width, (int)info.height, 1);
    if (input.pixels == NULL || map.pixels == NULL) status = fail(argv[1], "no memory");
    for (int next = 2; status == 0 && next < argc; next += 2)
        status = segment(runner, &input, &map, argv[next], argv[next + 1]);
    gmsrt_close(runner);
    free(input.pixels);
    free(map.pixels);
    return status;
}
