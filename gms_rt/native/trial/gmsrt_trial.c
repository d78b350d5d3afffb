/* gmsrt-trial: open a graph as its caller would, run it once on zeros, say how it went.
 *
 *     gmsrt-trial ABI SECONDS PRECISION MODE THREADS LANES BATCH GRAPH OPENVINO CACHE
 *
 * Started by libgms_rt before it opens a graph, so that a graph on which OpenVINO crashes ends this process and not the
 * caller's. The verdict goes to standard output: the number of a gmsrt_status, a space, its message. No verdict means a
 * crash. Of the arguments the library gives, "" stands for NULL; CACHE is not used: a trial compiles what it is given. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/prctl.h>
#endif

#include "gms_rt.h"

/* Write it all; a failure does not matter, because then the caller is gone. */
static void put(int file, const char *text)
{
    size_t left = strlen(text);

    while (left > 0) {
        const ssize_t done = write(file, text, left);

        if (done <= 0) return;
        text += done;
        left -= (size_t)done;
    }
}

static int end(int file, gmsrt_status status, const char *message)
{
    char text[1200];

    snprintf(text, sizeof text - 1, "%d %s", (int)status, message);
    strcat(text, "\n");
    put(file, text);
    /* Not exit: what runs at exit was not asked about, and may wait for a thread of a runtime. */
    _exit(status == GMSRT_OK ? 0 : 1);
}

/* Leave no core file, end some time even if nobody waits, and be the first to be killed where memory runs out. */
static void be_modest(unsigned seconds)
{
    const struct rlimit none = {0, 0};
    const int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    setrlimit(RLIMIT_CORE, &none);
#if defined(__linux__)
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
#endif
    if (file >= 0) {
        put(file, "1000");
        close(file);
    }
    alarm(seconds + 10);
}

/* Standard output kept for the verdict alone: what a runtime prints goes to standard error. Files that the host has
 * left open are closed. */
static int keep_output(void)
{
    const int verdict = fcntl(1, F_DUPFD_CLOEXEC, 3);

    dup2(2, 1);
    for (int file = 3; file < 1024; file++)
        if (file != verdict) close(file);
    return verdict;
}

static gmsrt_status run_once(const char *graph, const gmsrt_cpu_options *options)
{
    gmsrt_runner *runner = NULL;
    gmsrt_info info = {0};
    uint8_t *images, *masks;
    size_t pixels;
    gmsrt_status status = gmsrt_open_cpu(graph, options, &runner);

    if (status == GMSRT_OK) status = gmsrt_get_info(runner, &info);
    if (status != GMSRT_OK) return status;
    pixels = (size_t)info.batch * info.height * info.width;
    images = calloc(pixels, 3);
    masks = malloc(pixels);
    if (images != NULL && masks != NULL)
        status = gmsrt_infer(runner, images, info.batch, masks);
    else
        status = GMSRT_OUT_OF_MEMORY;
    free(images);
    free(masks);
    if (status == GMSRT_OK) gmsrt_close(runner);
    return status;
}

int main(int argc, char **argv)
{
    gmsrt_cpu_options options;
    uint32_t numbers[7];
    gmsrt_status status;
    int verdict;

    if (argc != 11) {
        fputs("gmsrt-trial is a part of libgms_rt, which starts it to try a graph\n", stderr);
        return 2;
    }
    for (int i = 0; i < 7; i++) numbers[i] = (uint32_t)strtoul(argv[i + 1], NULL, 10);
    be_modest(numbers[1]);
    verdict = keep_output();
    if (numbers[0] != gmsrt_abi_version())
        return end(verdict, GMSRT_NO_RUNTIME,
                   "gmsrt-trial is of another version than libgms_rt.so; install both again");
    gmsrt_cpu_options_default(&options);
    options.precision = (gmsrt_precision)numbers[2];
    options.mode = (gmsrt_mode)numbers[3];
    options.threads = numbers[4];
    options.lanes = numbers[5];
    options.batch = numbers[6];
    options.trial = GMSRT_TRIAL_NEVER;
    options.openvino = argv[9][0] != '\0' ? argv[9] : NULL;
    status = run_once(argv[8], &options);
    return end(verdict, status, status == GMSRT_OK ? "" : gmsrt_last_error());
}
