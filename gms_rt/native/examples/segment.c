/* Segment one PGM or PPM image with the CPU graph of an engine folder, and write the mask as PGM at the image's size.
 *
 *     cc segment.c $(pkg-config --cflags --libs gms_rt) -o segment
 *     GMSRT_OPENVINO=/path/to/libopenvino_c.so ./segment engines/busi-int8 scan.ppm mask.pgm
 *
 * Resizing is bilinear with the pixel centres of OpenCV's default. */
#include <gms_rt.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct image {
    int width, height, channels;
    unsigned char *pixels;
} image;

/* A number of the header; comments run from # to the end of the line. */
static int read_number(FILE *file)
{
    int value = 0, c = getc(file);

    while (c == '#' || c == ' ' || c == '\t' || c == '\r' || c == '\n') {
        if (c == '#')
            while (c != '\n' && c != EOF) c = getc(file);
        c = getc(file);
    }
    if (c < '0' || c > '9') return -1;
    for (; c >= '0' && c <= '9' && value < 100000; c = getc(file)) value = value * 10 + (c - '0');
    return value;
}

static int read_image(const char *path, image *result)
{
    FILE *file = fopen(path, "rb");
    size_t size;
    int kind, good;

    if (file == NULL) return 0;
    kind = getc(file) == 'P' ? getc(file) : EOF;
    result->channels = kind == '6' ? 3 : 1;
    result->width = read_number(file);
    result->height = read_number(file);
    good = (kind == '5' || kind == '6') && result->width > 0 && result->width < 65536 && result->height > 0 &&
           result->height < 65536 && read_number(file) == 255;
    if (good) {
        size = (size_t)result->width * (size_t)result->height * (size_t)result->channels;
        result->pixels = malloc(size);
        good = result->pixels != NULL && fread(result->pixels, 1, size, file) == size;
    }
    fclose(file);
    return good;
}

/* `channels` values a pixel out; a grey image gives its value for each of them. */
static void resize(const image *from, unsigned char *to, int width, int height, int channels)
{
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < channels; c++) {
                double sx = (x + 0.5) * from->width / width - 0.5, sy = (y + 0.5) * from->height / height - 0.5;
                sx = sx < 0 ? 0 : sx > from->width - 1 ? from->width - 1 : sx;
                sy = sy < 0 ? 0 : sy > from->height - 1 ? from->height - 1 : sy;
                const int x0 = (int)sx, y0 = (int)sy;
                const int x1 = x0 + 1 < from->width ? x0 + 1 : x0, y1 = y0 + 1 < from->height ? y0 + 1 : y0;
                const int channel = from->channels == 3 ? c : 0;
#define AT(X, Y)                                                                                                       \
    from->pixels[((size_t)(Y) * (size_t)from->width + (size_t)(X)) * (size_t)from->channels + (size_t)channel]
                const double top = AT(x0, y0) + (sx - x0) * (AT(x1, y0) - AT(x0, y0));
                const double bottom = AT(x0, y1) + (sx - x0) * (AT(x1, y1) - AT(x0, y1));
#undef AT
                to[((size_t)y * (size_t)width + (size_t)x) * (size_t)channels + (size_t)c] =
                    (unsigned char)(top + (sy - y0) * (bottom - top) + 0.5);
            }
}

int main(int argc, char **argv)
{
    image scan = {0, 0, 0, NULL}, map = {0, 0, 1, NULL};
    gmsrt_info info = {0};
    gmsrt_runner *runner = NULL;
    unsigned char *input = NULL, *mask = NULL;
    FILE *file = NULL;
    int done = 0;

    if (argc != 4) return fprintf(stderr, "usage: segment ENGINE IMAGE.ppm MASK.pgm\n"), 2;
    if (!read_image(argv[2], &scan)) {
        fprintf(stderr, "%s: not an 8-bit binary PGM or PPM image\n", argv[2]);
    } else if (gmsrt_open_cpu(argv[1], NULL, &runner) != GMSRT_OK || gmsrt_get_info(runner, &info) != GMSRT_OK) {
        fprintf(stderr, "%s\n", gmsrt_last_error());
    } else {
        const size_t pixels = (size_t)info.height * info.width;
        const size_t size = (size_t)scan.width * (size_t)scan.height;
        map.width = (int)info.width;
        map.height = (int)info.height;
        input = calloc(info.batch * pixels, 3);
        map.pixels = malloc(pixels);
        mask = malloc(size);
        if (input != NULL && map.pixels != NULL && mask != NULL) {
            resize(&scan, input, map.width, map.height, 3);
            if (gmsrt_infer(runner, input, 1, map.pixels) == GMSRT_OK) {
                resize(&map, mask, scan.width, scan.height, 1);
                for (size_t i = 0; i < size; i++) mask[i] = mask[i] >= 128 ? 255 : 0;
                file = fopen(argv[3], "wb");
                done = file != NULL && fprintf(file, "P5\n%d %d\n255\n", scan.width, scan.height) > 0 &&
                       fwrite(mask, 1, size, file) == size;
                if (file != NULL) done = fclose(file) == 0 && done;
                if (!done) fprintf(stderr, "%s: cannot be written\n", argv[3]);
            } else {
                fprintf(stderr, "%s\n", gmsrt_last_error());
            }
        }
    }
    gmsrt_close(runner);
    free(scan.pixels);
    free(map.pixels);
    free(input);
    free(mask);
    return done ? 0 : 1;
}
