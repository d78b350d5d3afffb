/* A program of somebody else, for scripts/check-packages: one inference of sevens, and what came out. */
#include <gms_rt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    gmsrt_runner *runner = NULL;
    gmsrt_info info;
    unsigned char *image, *mask;
    size_t pixels, i;

    if (argc != 2 || gmsrt_abi_version() != GMSRT_ABI_VERSION) return 2;
    if (gmsrt_open_cpu(argv[1], NULL, &runner) != GMSRT_OK || gmsrt_get_info(runner, &info, sizeof info) != GMSRT_OK) {
        fprintf(stderr, "%s\n", gmsrt_last_error());
        return 1;
    }
    pixels = (size_t)info.height * info.width;
    image = malloc(pixels * 3);
    mask = malloc(pixels);
    if (image == NULL || mask == NULL) return 1;
    memset(image, 7, pixels * 3);
    if (gmsrt_infer(runner, image, 1, mask) != GMSRT_OK) {
        fprintf(stderr, "%s\n", gmsrt_last_error());
        return 1;
    }
    gmsrt_close(runner);
    for (i = 0; i < pixels; i++) /* the mean over RGB; the fake OpenVINO turns all bits */
        if (mask[i] != 7 && mask[i] != 248) return 3;
    printf("%s on %s: %u by %u\n", info.runtime, info.device, info.height, info.width);
    free(image);
    free(mask);
    return 0;
}
