/* gmsrt-trial: open a graph as its caller would, run it once on zeros, say how it went.
 *
 *     gmsrt-trial ABI SECONDS PRECISION MODE THREADS LANES BATCH MEGABYTES HOST GRAPH OPENVINO CACHE FILE
 *
 * Started by libgms_rt before it opens a graph, so that a graph on which OpenVINO crashes ends this process and not the
 * caller's. The verdict goes to standard output: the number of a gmsrt_status, a space, its message. No verdict means a
 * crash. Of the arguments the library gives, "" stands for NULL; MEGABYTES is the size of the graph's files, HOST the
 * caller's process; CACHE is not used: a trial compiles what it is given. FILE is "3" for a graph in memory, which is
 * that open file; GRAPH is its name for messages then.
 *
 * This is a guard against mistakes and crashes, not a sandbox: code that runs here has the rights of the user. The limits
 * below only keep a bad graph from taking more of the machine than a good one could. */
#if defined(__linux__)
#define _GNU_SOURCE /* close_range through syscall, RLIMIT_AS, the machine's memory */
#endif
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/prctl.h>
#include <sys/syscall.h>
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

/* A sanitizer reserves more address space than any machine has. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LIMITS_MEMORY 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LIMITS_MEMORY 0
#else
#define LIMITS_MEMORY 1
#endif
#else
#define LIMITS_MEMORY 1
#endif

static void set_limit(int what, rlim_t most)
{
    struct rlimit limit;

    if (getrlimit(what, &limit) != 0) return;
    if (limit.rlim_max == RLIM_INFINITY || limit.rlim_max > most) limit.rlim_max = most;
    if (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > limit.rlim_max) limit.rlim_cur = limit.rlim_max;
    setrlimit(what, &limit);
}

/* Processor time: all processors for all of the time. Address space: the machine's memory, what the graph's files can
 * become, and what is reserved but never used: by OpenVINO some GB, by every thread its stack and its heap. */
static void set_limits(unsigned seconds, uint64_t megabytes)
{
    const long found = sysconf(_SC_NPROCESSORS_ONLN);
    const uint64_t processors = found > 0 ? (uint64_t)found : 1;

    set_limit(RLIMIT_CORE, 0);
    set_limit(RLIMIT_CPU, (rlim_t)((seconds + 10u) * processors));
#if defined(__linux__)
    if (LIMITS_MEMORY && sizeof(void *) >= 8) {
        const uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

        set_limit(RLIMIT_AS, (rlim_t)(memory + ((8192 + 64 * megabytes + 512 * processors) << 20)));
    }
#else
    (void)megabytes;
#endif
}

/* Leave no core file, get no more rights by starting a program, end with the host, or some time even if nobody waits,
 * and be the first to be killed where memory runs out. */
static void be_modest(unsigned seconds, uint64_t megabytes, pid_t host)
{
    const int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    alarm(seconds + 1);
    set_limits(seconds, megabytes);
#if defined(__linux__)
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
#endif
    if (getppid() != host && getppid() != 0) _exit(1); /* it had ended before; 0: it is in another namespace */
    if (file >= 0) {
        put(file, "1000");
        close(file);
    }
}

/* Close every file but the standard streams and one other. */
static void close_others(int kept)
{
    struct rlimit limit;

#if defined(SYS_close_range)
    if (syscall(SYS_close_range, 3u, (unsigned)kept - 1, 0u) == 0 || kept == 3)
        if (syscall(SYS_close_range, (unsigned)kept + 1, ~0u, 0u) == 0) return;
#endif
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > 65536) limit.rlim_cur = 65536;
    for (int file = 3; file < (int)limit.rlim_cur; file++)
        if (file != kept) close(file);
}

/* Standard output kept for the verdict alone: what a runtime prints goes to standard error. Files that the host has
 * left open are closed. */
static int keep_output(void)
{
    const int verdict = fcntl(1, F_DUPFD_CLOEXEC, 3);

    dup2(2, 1);
    close_others(verdict);
    return verdict;
}

/* All bytes of an open file; NULL if there is no memory for them. */
static void *map_file(int file, size_t *size)
{
    struct stat about;
    void *bytes;

    if (fstat(file, &about) != 0 || about.st_size <= 0) return NULL;
    *size = (size_t)about.st_size;
    bytes = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, file, 0);
    return bytes != MAP_FAILED ? bytes : NULL;
}

static gmsrt_status run_once(const char *graph, const void *bytes, size_t size, const gmsrt_cpu_options *options)
{
    gmsrt_runner *runner = NULL;
    gmsrt_info info = {0};
    uint8_t *images, *masks;
    size_t pixels;
    gmsrt_status status =
        bytes != NULL ? gmsrt_open_cpu_memory(bytes, size, options, &runner) : gmsrt_open_cpu(graph, options, &runner);

    if (status == GMSRT_OK) status = gmsrt_get_info(runner, &info, sizeof info);
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
    uint32_t numbers[9];
    gmsrt_status status;
    void *bytes = NULL;
    size_t size = 0;
    int verdict;

    if (argc != 14) {
        fputs("gmsrt-trial is a part of libgms_rt, which starts it to try a graph\n", stderr);
        return 2;
    }
    for (int i = 0; i < 9; i++) numbers[i] = (uint32_t)strtoul(argv[i + 1], NULL, 10);
    be_modest(numbers[1], numbers[7], (pid_t)numbers[8]);
    if (strcmp(argv[13], "3") == 0 && (bytes = map_file(3, &size)) == NULL)
        return end(1, GMSRT_OUT_OF_MEMORY, "no memory to try the graph in memory");
    verdict = keep_output();
    if (numbers[0] != gmsrt_abi_version())
        return end(verdict, GMSRT_NO_RUNTIME,
                   "gmsrt-trial is of another version than libgms_rt.so; install both again");
    gmsrt_cpu_options_init(&options, sizeof options);
    options.precision = (gmsrt_precision)numbers[2];
    options.mode = (gmsrt_mode)numbers[3];
    options.threads = numbers[4];
    options.lanes = numbers[5];
    options.batch = numbers[6];
    options.trial = GMSRT_TRIAL_NEVER;
    options.openvino = argv[11][0] != '\0' ? argv[11] : NULL;
    status = run_once(argv[10], bytes, size, &options);
    return end(verdict, status, status == GMSRT_OK ? "" : gmsrt_last_error());
}
