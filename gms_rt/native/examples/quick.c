/* quick ENGINE WIDTH HEIGHT < image.rgb > mask.gray */
#include <gms_rt.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    const uint32_t width = argc == 4 ? (uint32_t)atoi(argv[2]) : 0, height = argc == 4 ? (uint32_t)atoi(argv[3]) : 0;
    const size_t pixels = (size_t)width * height;
    unsigned char *rgb = malloc(pixels * 3 + 1), *mask = malloc(pixels + 1), *input, *levels;
    gmsrt_runner *runner = NULL;
    gmsrt_info info;

    if (rgb == NULL || mask == NULL || fread(rgb, 1, pixels * 3, stdin) != pixels * 3) return 2;
    if (gmsrt_open_cpu(argv[1], NULL, &runner) != GMSRT_OK) goto failed;     /* an engine folder, or an .onnx file */
    if (gmsrt_get_info(runner, &info, sizeof info) != GMSRT_OK) goto failed; /* the network's size */
    input = malloc((size_t)info.height * info.width * 3);
    levels = malloc((size_t)info.height * info.width);
    if (input == NULL || levels == NULL) return 2;
    if (gmsrt_resize_image(rgb, height, width, 3, input, info.height, info.width) != GMSRT_OK) goto failed;
    if (gmsrt_infer(runner, input, 1, levels) != GMSRT_OK) goto failed; /* probabilities, 0 to 255 */
    if (gmsrt_mask_from_levels(levels, info.height, info.width, 0.5, mask, height, width) != GMSRT_OK) goto failed;
    fwrite(mask, 1, pixels, stdout); /* 0 or 255, at the image's size */
    gmsrt_close(runner);
    return 0;

failed:
    fprintf(stderr, "%s\n", gmsrt_last_error()); /* one line: what was wrong, where, and how to fix it */
    return 1;
}
