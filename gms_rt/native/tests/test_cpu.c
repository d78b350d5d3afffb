/* The CPU backend against a fake OpenVINO in which every call is made to fail once.
 *
 * Usage: test_cpu FAKE_OPENVINO FOLDER. The folder is writable; graph files of various kinds of damage go there. */
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "gms_rt.h"

#define IMAGES 7u
#define PIXELS 4u

static struct {
    int (*calls)(void);
    const char *(*call)(int);
    const char *(*mistake)(void);
    int (*live)(void);
    void (*fail)(int, int);
    void (*fail_later)(int);
    void (*reset)(void);
    void (*port)(int, unsigned, int, const int64_t *);
    void (*counts)(size_t, size_t);
    void (*bf16)(int);
    void (*f16)(int);
    const char *(*properties)(void);
} fake;

static const char *openvino;
static char graph[1024];
static uint8_t images[IMAGES * PIXELS * 3];

static gmsrt_cpu_options options_of_fake(void)
{
    gmsrt_cpu_options options;

    gmsrt_cpu_options_init(&options, sizeof options);
    options.openvino = openvino;
    options.trial = GMSRT_TRIAL_NEVER; /* trials are tested in test_trial.c */
    return options;
}

static void set_shape(int64_t batch)
{
    const int64_t input[4] = {batch, 2, 2, 3}, output[4] = {batch, 2, 2, 1};

    fake.port(0, 0, 4, input);
    fake.port(1, 0, 4, output);
}

static void expect_masks(const uint8_t *masks, size_t count)
{
    for (size_t i = 0; i < count * PIXELS; i++) CHECK(masks[i] == 255 - images[3 * i], "pixel %zu is %u", i, masks[i]);
}

static void expect_clean(void)
{
    CHECK(fake.mistake()[0] == '\0', "%s", fake.mistake());
    CHECK(fake.live() == 0, "%d objects are left", fake.live());
}

static void test_results(void)
{
    for (uint32_t batch = 1; batch <= 3; batch++)
        for (uint32_t lanes = 1; lanes <= 3; lanes++) {
            gmsrt_cpu_options options = options_of_fake();
            gmsrt_runner *runner;
            gmsrt_info info = {0};

            fake.reset();
            set_shape(batch);
            options.lanes = lanes;
            CHECK_OK(gmsrt_open_cpu(graph, &options, &runner));
            CHECK_OK(gmsrt_get_info(runner, &info, sizeof info));
            CHECK(info.batch == batch && info.height == 2 && info.width == 2 && info.lanes == lanes, "wrong shape");
            CHECK(strcmp(info.execution, "f32") == 0 && strcmp(info.device, "Fake CPU") == 0 && info.threads == 2,
                  "wrong info");
            for (size_t count = 0; count <= IMAGES; count++) {
                uint8_t masks[IMAGES * PIXELS];

                memset(masks, 1, sizeof masks);
                CHECK_OK(gmsrt_infer(runner, images, count, masks));
                expect_masks(masks, count);
            }
            for (uint32_t used = 1; used <= lanes; used++) {
                uint8_t masks[IMAGES * PIXELS];

                CHECK_OK(gmsrt_set_lanes(runner, used));
                CHECK_OK(gmsrt_get_info(runner, &info, sizeof info));
                CHECK(info.used_lanes == used, "%u lanes used", info.used_lanes);
                CHECK_OK(gmsrt_infer(runner, images, IMAGES, masks));
                expect_masks(masks, IMAGES);
            }
            CHECK(gmsrt_set_lanes(runner, lanes + 1) == GMSRT_INVALID_ARGUMENT, "too many lanes");
            CHECK(gmsrt_set_lanes(runner, 0) == GMSRT_INVALID_ARGUMENT, "no lanes");
            gmsrt_close(runner);
            expect_clean();
        }
}

static void expect_properties(const gmsrt_cpu_options *options, const char *expected)
{
    gmsrt_runner *runner;

    CHECK_OK(gmsrt_open_cpu(graph, options, &runner));
    CHECK(strcmp(fake.properties(), expected) == 0, "%s", fake.properties());
    gmsrt_close(runner);
    expect_clean();
}

static void test_options(void)
{
    gmsrt_cpu_options options = options_of_fake();
    gmsrt_runner *runner;
    gmsrt_info info = {0};

    fake.reset();
    expect_properties(&options, "INFERENCE_PRECISION_HINT=f32;PERFORMANCE_HINT=LATENCY;NUM_STREAMS=1;");
    options.threads = 3;
    options.lanes = 2;
    expect_properties(&options, "INFERENCE_PRECISION_HINT=f32;PERFORMANCE_HINT=LATENCY;NUM_STREAMS=2;"
                                "INFERENCE_NUM_THREADS=3;");
    options = options_of_fake();
    options.mode = GMSRT_THROUGHPUT;
    expect_properties(&options, "INFERENCE_PRECISION_HINT=f32;PERFORMANCE_HINT=THROUGHPUT;");
    CHECK_OK(gmsrt_open_cpu(graph, &options, &runner));
    CHECK_OK(gmsrt_get_info(runner, &info, sizeof info));
    CHECK(info.lanes == 3, "OpenVINO's optimum is 3, not %u", info.lanes);
    gmsrt_close(runner);

    options = options_of_fake();
    options.precision = GMSRT_BF16;
    CHECK(gmsrt_open_cpu(graph, &options, &runner) == GMSRT_UNSUPPORTED, "bf16 on a CPU without");
    CHECK(strstr(gmsrt_last_error(), "Fake CPU") != NULL, "%s", gmsrt_last_error());
    fake.bf16(1);
    expect_properties(&options, "INFERENCE_PRECISION_HINT=bf16;PERFORMANCE_HINT=LATENCY;NUM_STREAMS=1;");
    options.precision = GMSRT_F16; /* BF16 is another arithmetic */
    CHECK(gmsrt_open_cpu(graph, &options, &runner) == GMSRT_UNSUPPORTED, "f16 on a CPU without");
    CHECK(strstr(gmsrt_last_error(), "no f16 arithmetic") != NULL, "%s", gmsrt_last_error());
    fake.bf16(0);
    fake.f16(1);
    expect_properties(&options, "INFERENCE_PRECISION_HINT=f16;PERFORMANCE_HINT=LATENCY;NUM_STREAMS=1;");

    fake.reset();
    set_shape(-1);
    options = options_of_fake();
    options.batch = 5;
    CHECK_OK(gmsrt_open_cpu(graph, &options, &runner));
    CHECK_OK(gmsrt_get_info(runner, &info, sizeof info));
    CHECK(info.batch == 5, "batch %u", info.batch);
    gmsrt_close(runner);
    set_shape(2);
    CHECK(gmsrt_open_cpu(graph, &options, &runner) == GMSRT_INVALID_ARGUMENT, "batch 5 of a graph with 2");
    expect_clean();
}

/* The only file of a folder, and its size; "" if there is none. */
static long only_file(const char *folder, char path[1200])
{
    DIR *opened = opendir(folder);
    const struct dirent *entry;
    struct stat about = {0};

    CHECK(opened != NULL, "no folder %s", folder);
    path[0] = '\0';
    while ((entry = readdir(opened)) != NULL) {
        if (entry->d_name[0] == '.' && (entry->d_name[1] == '\0' || entry->d_name[1] == '.')) continue;
        CHECK(path[0] == '\0', "a second file %s in %s", entry->d_name, folder);
        snprintf(path, 1200, "%s/%s", folder, entry->d_name);
        CHECK(stat(path, &about) == 0, "no %s", path);
    }
    closedir(opened);
    return (long)about.st_size;
}

static void empty(const char *folder)
{
    char command[2400];

    snprintf(command, sizeof command, "rm -rf '%s' && mkdir -m 700 '%s'", folder, folder);
    CHECK(system(command) == 0, "cannot empty %s", folder);
}

/* Open, look at the masks, close; whether the compiled graph was imported. */
static bool imports(const gmsrt_cpu_options *options)
{
    uint8_t masks[IMAGES * PIXELS];
    gmsrt_runner *runner;
    gmsrt_info info = {0};
    bool imported;

    CHECK_OK(gmsrt_open_cpu(graph, options, &runner));
    imported = strncmp(fake.properties(), "imported;", 9) == 0;
    CHECK_OK(gmsrt_get_info(runner, &info, sizeof info));
    CHECK(info.batch == 2 && info.height == 2 && info.width == 2 && strcmp(info.execution, "f32") == 0 &&
              info.lanes == (options->lanes > 0 ? options->lanes : 1),
          "wrong info");
    CHECK_OK(gmsrt_infer(runner, images, IMAGES, masks));
    expect_masks(masks, IMAGES);
    gmsrt_close(runner);
    expect_clean();
    return imported;
}

static void test_cache(const char *root)
{
    gmsrt_cpu_options options = options_of_fake();
    uint8_t whole[4096], damaged[4096];
    char folder[1100], path[1200], old[1200];
    const struct timespec long_ago[2] = {{1000, 0}, {1000, 0}};
    struct stat about;
    long size;
    FILE *file;

    fake.reset();
    set_shape(2);
    snprintf(folder, sizeof folder, "%s/compiled", root);
    empty(folder);
    options.cache = folder;
    options.lanes = 2;
    options.threads = 3;
    CHECK(!imports(&options), "imported from nowhere");
    size = only_file(folder, path);
    CHECK(size > 160 && size < (long)sizeof whole, "%ld bytes", size);
    CHECK(stat(path, &about) == 0 && (about.st_mode & 0777) == 0600, "mode %o", (unsigned)about.st_mode);
    CHECK(imports(&options), "compiled again");
    CHECK(strcmp(fake.properties(), "imported;INFERENCE_PRECISION_HINT=f32;PERFORMANCE_HINT=LATENCY;NUM_STREAMS=2;"
                                    "INFERENCE_NUM_THREADS=3;") == 0,
          "%s", fake.properties());
    setenv("XDG_CACHE_HOME", "/dev/null", 1); /* that it passed is not remembered for the user */
    options.trial = GMSRT_TRIAL_AUTO;         /* the trial does not keep what it compiles */
    CHECK(imports(&options), "compiled again after a trial");
    options.trial = GMSRT_TRIAL_ALWAYS;
    CHECK(!imports(&options), "doubts and a cache");
    options.trial = GMSRT_TRIAL_NEVER;

    /* Any bit, any length: OpenVINO never sees it, and the graph is compiled and kept again. */
    file = fopen(path, "rb");
    CHECK(file != NULL && fread(whole, 1, sizeof whole, file) == (size_t)size && fclose(file) == 0, "cannot read");
    for (long bit = 0; bit < 8 * size; bit += 7) { /* each byte, another bit each time */
        memcpy(damaged, whole, (size_t)size);
        damaged[bit / 8] ^= (uint8_t)(1u << bit % 8);
        write_bytes(path, damaged, (size_t)size);
        CHECK(!imports(&options), "bit %ld", bit);
        CHECK(bit % 8 != 0 || imports(&options), "not kept again after bit %ld", bit);
    }
    for (long length = 0; length < size; length += 5) {
        write_bytes(path, whole, (size_t)length);
        CHECK(!imports(&options), "length %ld", length);
    }
    memcpy(damaged, whole, (size_t)size);
    write_bytes(path, damaged, (size_t)size + 1);
    CHECK(!imports(&options), "one byte more");
    CHECK(imports(&options), "not kept again");

    /* Another graph, and another option, are other files; a file of one is nothing to the other. */
    options.threads = 2;
    CHECK(!imports(&options), "another number of threads");
    options.threads = 3;
    empty(folder);
    CHECK(!imports(&options), "emptied");
    size = only_file(folder, path);
    snprintf(old, sizeof old, "%s/%064d.blob", folder, 0);
    CHECK(rename(path, old) == 0, "rename");
    options.threads = 2;
    CHECK(!imports(&options), "another file");
    CHECK(unlink(old) == 0, "unlink");
    only_file(folder, path);
    write_bytes(path, whole, (size_t)size); /* sound, and of other options */
    CHECK(!imports(&options), "a file of other options");

    /* What was not used for longest makes room; parts that nobody finishes go. */
    file = fopen(old, "wb");
    CHECK(file != NULL && ftruncate(fileno(file), (off_t)2 << 30) == 0 && fclose(file) == 0, "no sparse file");
    CHECK(utimensat(AT_FDCWD, old, long_ago, 0) == 0, "utimensat");
    snprintf(old, sizeof old, "%s/.part-1-1-left", folder);
    write_bytes(old, "x", 1);
    CHECK(utimensat(AT_FDCWD, old, long_ago, 0) == 0, "utimensat");
    CHECK(unlink(path) == 0, "unlink");
    CHECK(!imports(&options), "no file");
    only_file(folder, path);
    CHECK(imports(&options), "the new one went");

    /* Places and files that are not this user's alone. */
    CHECK(chmod(path, 0666) == 0, "chmod");
    CHECK(!imports(&options), "a file that others may write to");
    CHECK(imports(&options), "not replaced");
    CHECK(chmod(folder, 0770) == 0, "chmod");
    CHECK(!imports(&options), "a folder that others may write to");
    CHECK(chmod(folder, 0700) == 0, "chmod");
    snprintf(old, sizeof old, "%s/elsewhere.blob", root);
    CHECK(rename(path, old) == 0 && symlink(old, path) == 0, "link");
    CHECK(!imports(&options), "a link");
    CHECK(lstat(path, &about) == 0 && S_ISREG(about.st_mode) && unlink(old) == 0, "the link is still there");
    CHECK(unlink(path) == 0 && mkdir(path, 0700) == 0, "mkdir");
    CHECK(!imports(&options), "a folder instead of a file");
    CHECK(rmdir(path) == 0, "rmdir");
    CHECK(mkfifo(path, 0600) == 0, "mkfifo");
    CHECK(!imports(&options) && imports(&options), "a pipe instead of a file");
}

/* Every call fails once: with a cache, whatever fails there costs nothing but time. */
static void test_cache_failures(const char *root)
{
    gmsrt_cpu_options options = options_of_fake();
    char folder[1100];

    snprintf(folder, sizeof folder, "%s/compiled", root);
    options.cache = folder;
    for (int call = 1; call < 60; call++) {
        gmsrt_runner *runner = NULL;
        gmsrt_status status;
        const char *name;

        fake.reset();
        set_shape(2);
        if (call % 2) empty(folder);
        fake.fail(call / 2 + 1, -1);
        status = gmsrt_open_cpu(graph, &options, &runner);
        name = fake.calls() > call / 2 ? fake.call(call / 2) : "none";
        if (strcmp(name, "ov_core_import_model") == 0 || strcmp(name, "ov_core_set_property") == 0 ||
            strcmp(name, "ov_compiled_model_export_model") == 0)
            CHECK(status == GMSRT_OK, "a failing %s: %s", name, gmsrt_last_error());
        gmsrt_close(runner);
        expect_clean();
    }
}

static void test_arguments(void)
{
    const gmsrt_cpu_options good = options_of_fake();
    gmsrt_cpu_options bad;
    gmsrt_runner *runner;
    gmsrt_info info = {0};
    uint8_t masks[PIXELS];
    gmsrt_sample sample;
    gmsrt_bench_result result;
    gmsrt_bench_options bench = {sizeof bench, 0.0, 0.0, 1};

    fake.reset();
#define REFUSED(status, change)                                                                                        \
    bad = good;                                                                                                        \
    change;                                                                                                            \
    runner = (gmsrt_runner *)&bad;                                                                                     \
    CHECK(gmsrt_open_cpu(graph, &bad, &runner) == status && runner == NULL, "%s: %s", #change, gmsrt_last_error());    \
    CHECK(gmsrt_last_error()[0] != '\0', "no message for %s", #change)
    REFUSED(GMSRT_INVALID_ARGUMENT, bad.struct_size = 0);
    REFUSED(GMSRT_INVALID_ARGUMENT, bad.precision = (gmsrt_precision)9);
    REFUSED(GMSRT_INVALID_ARGUMENT, bad.mode = (gmsrt_mode)-1);
    REFUSED(GMSRT_INVALID_ARGUMENT, bad.lanes = 1000);
    REFUSED(GMSRT_INVALID_ARGUMENT, bad.threads = 1000000);
    REFUSED(GMSRT_INVALID_ARGUMENT, bad.batch = 1000000);
    REFUSED(GMSRT_INVALID_ARGUMENT, bad.cache = "/nowhere");
    REFUSED(GMSRT_INVALID_ARGUMENT, bad.trial = (gmsrt_trial)7);
    REFUSED(GMSRT_INVALID_ARGUMENT, bad.trial_seconds = 100000000);
    REFUSED(GMSRT_NO_RUNTIME, bad.openvino = "/nowhere/libopenvino_c.so");
    REFUSED(GMSRT_NO_RUNTIME, bad.openvino = "libc.so.6"); /* a library, but not OpenVINO */
#undef REFUSED
    CHECK(gmsrt_open_cpu(NULL, &good, &runner) == GMSRT_INVALID_ARGUMENT, "no graph");
    CHECK(gmsrt_open_cpu(NULL, &good, NULL) == GMSRT_INVALID_ARGUMENT, "neither");
    fake.reset();
    CHECK_OK(gmsrt_open_cpu(graph, &good, NULL)); /* only looked at */
    CHECK(fake.calls() == 0, "OpenVINO was asked");

    CHECK_OK(gmsrt_open_cpu(graph, &good, &runner));
    CHECK(gmsrt_infer(NULL, images, 1, masks) == GMSRT_INVALID_ARGUMENT, "no runner");
    CHECK(gmsrt_infer(runner, NULL, 1, masks) == GMSRT_INVALID_ARGUMENT, "no images");
    CHECK(gmsrt_infer(runner, images, 1, NULL) == GMSRT_INVALID_ARGUMENT, "no masks");
    CHECK(gmsrt_infer(runner, images, SIZE_MAX, masks) == GMSRT_INVALID_ARGUMENT, "too many images");
    CHECK(gmsrt_get_info(NULL, &info, sizeof info) == GMSRT_INVALID_ARGUMENT, "no runner");
    CHECK(gmsrt_get_info(runner, NULL, sizeof info) == GMSRT_INVALID_ARGUMENT, "no info");
    CHECK(gmsrt_get_info(runner, &info, 0) == GMSRT_INVALID_ARGUMENT, "no size");
    CHECK(gmsrt_set_lanes(NULL, 1) == GMSRT_INVALID_ARGUMENT, "no runner");
    CHECK(gmsrt_bench(runner, images, 1, NULL, &sample, 1, &result, sizeof result) == GMSRT_INVALID_ARGUMENT,
          "no options");
    CHECK(gmsrt_bench(runner, images, 1, &bench, NULL, 1, &result, sizeof result) == GMSRT_INVALID_ARGUMENT,
          "no samples");
    CHECK(gmsrt_bench(runner, images, 1, &bench, &sample, 0, &result, sizeof result) == GMSRT_INVALID_ARGUMENT,
          "no room");
    CHECK(gmsrt_bench(runner, images, 0, &bench, &sample, 1, &result, sizeof result) == GMSRT_INVALID_ARGUMENT,
          "no image");
    CHECK(gmsrt_bench(runner, images, SIZE_MAX, &bench, &sample, 1, &result, sizeof result) == GMSRT_INVALID_ARGUMENT,
          "too many");
    CHECK(gmsrt_bench(runner, images, 1, &bench, &sample, 1, NULL, sizeof result) == GMSRT_INVALID_ARGUMENT,
          "no result");
    bench.seconds = -1;
    CHECK(gmsrt_bench(runner, images, 1, &bench, &sample, 1, &result, sizeof result) == GMSRT_INVALID_ARGUMENT,
          "negative time");
    bench.seconds = 0.0 / (double)info.batch; /* not a number: the info was never filled */
    CHECK(gmsrt_bench(runner, images, 1, &bench, &sample, 1, &result, sizeof result) == GMSRT_INVALID_ARGUMENT,
          "no time");
    gmsrt_close(runner);
    gmsrt_close(NULL);
    CHECK(gmsrt_abi_version() == GMSRT_ABI_VERSION, "ABI");
    CHECK(gmsrt_version()[0] != '\0', "version");
    for (int status = GMSRT_OK; status <= GMSRT_CANCELLED; status++)
        CHECK(strncmp(gmsrt_status_name((gmsrt_status)status), "GMSRT_", 6) == 0 &&
                  strcmp(gmsrt_status_name((gmsrt_status)status), "GMSRT_?") != 0,
              "status %d has no name", status);
    CHECK(strcmp(gmsrt_status_name((gmsrt_status)99), "GMSRT_?") == 0, "a name for no status");
    expect_clean();
}

static void expect_misfit(const char *words)
{
    const gmsrt_cpu_options options = options_of_fake();
    gmsrt_runner *runner;

    CHECK(gmsrt_open_cpu(graph, &options, &runner) == GMSRT_BAD_GRAPH && runner == NULL, "accepted: %s", words);
    CHECK(strstr(gmsrt_last_error(), words) != NULL, "%s does not say %s", gmsrt_last_error(), words);
    expect_clean();
    fake.reset();
}

/* Graphs that are valid and foreign. */
static void test_foreign(void)
{
    static const int64_t rgb[6] = {1, 2, 2, 3, 1, 1}, one[6] = {1, 2, 2, 1, 1, 1};

    fake.reset();
    fake.counts(2, 1);
    expect_misfit("2 inputs and 1 outputs");
    fake.counts(1, 0);
    expect_misfit("1 inputs and 0 outputs");
    fake.port(0, 3, 4, rgb);
    expect_misfit("the input is not uint8");
    fake.port(1, 3, 4, one);
    expect_misfit("the output is not uint8");
    fake.port(0, 0, 4, one);
    expect_misfit("the input is uint8 [1, 2, 2, 1]");
    fake.port(0, 0, 3, rgb);
    expect_misfit("the input is uint8 [1, 2, 2]");
    fake.port(0, 0, 6, rgb);
    expect_misfit("the input is uint8 [1, 2, 2, 3, …]");
    fake.port(0, 0, -1, rgb);
    expect_misfit("of no fixed rank");
    fake.port(1, 0, 4, rgb);
    expect_misfit("the output is uint8 [1, 2, 2, 3]");
    fake.port(1, 0, 0, one);
    expect_misfit("the output is uint8 []");
    fake.port(0, 0, 4, (const int64_t[]){1, -1, 2, 3});
    expect_misfit("[1, ?, 2, 3]");
    fake.port(1, 0, 4, (const int64_t[]){1, 2, 3, 1});
    expect_misfit("[1, 2, 3, 1]");
    fake.port(1, 0, 4, (const int64_t[]){2, 2, 2, 1});
    expect_misfit("[2, 2, 2, 1]");
    fake.port(0, 0, 4, (const int64_t[]){1, 1000000, 1000000, 3});
    expect_misfit("too large");
    fake.port(0, 0, 4, (const int64_t[]){INT64_MAX, INT64_MAX, INT64_MAX, 3});
    expect_misfit("too large");
    fake.port(0, 0, 4, (const int64_t[]){1, 0, 2, 3});
    expect_misfit("[1, ?, 2, 3]");
    fake.port(1, 0, 3, one); /* an output without the channel dimension is allowed */
    {
        const gmsrt_cpu_options options = options_of_fake();
        gmsrt_runner *runner;

        CHECK_OK(gmsrt_open_cpu(graph, &options, &runner));
        gmsrt_close(runner);
    }
    expect_clean();
}

static void expect_file(const char *path, gmsrt_status status, const char *words)
{
    const gmsrt_cpu_options options = options_of_fake();
    gmsrt_runner *runner;

    CHECK(gmsrt_open_cpu(path, &options, &runner) == status && runner == NULL, "%s: %s", path, gmsrt_last_error());
    CHECK(strstr(gmsrt_last_error(), words) != NULL, "%s does not say %s", gmsrt_last_error(), words);
    CHECK(fake.calls() == 0, "OpenVINO was asked about %s", path);
}

/* Files that never reach OpenVINO. */
static void test_files(const char *folder)
{
    const bytes whole = sound_model();
    char path[1024];

    fake.reset();
    snprintf(path, sizeof path, "%s/absent.onnx", folder);
    expect_file(path, GMSRT_NOT_FOUND, "absent.onnx");
    expect_file(folder, GMSRT_NOT_FOUND, "no engine.json");
    expect_file("", GMSRT_NOT_FOUND, "");
    expect_file("/dev/null", GMSRT_BAD_GRAPH, "not a file");
    snprintf(path, sizeof path, "%s/pipe.onnx", folder);
    CHECK(mkfifo(path, 0600) == 0, "no pipe");
    expect_file(path, GMSRT_BAD_GRAPH, "not a file");
    unlink(path);

    snprintf(path, sizeof path, "%s/damaged.onnx", folder);
    write_bytes(path, "", 0);
    expect_file(path, GMSRT_BAD_GRAPH, "is empty");
    write_bytes(path, "<!DOCTYPE html><html>Not found</html>", 37);
    expect_file(path, GMSRT_BAD_GRAPH, "not an ONNX file");
    write_bytes(path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", 56);
    expect_file(path, GMSRT_BAD_GRAPH, "not an ONNX file");
    write_bytes(path, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12);
    expect_file(path, GMSRT_BAD_GRAPH, "not an ONNX file");
    write_bytes(path, "\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 10);
    expect_file(path, GMSRT_BAD_GRAPH, "cut short");
    write_bytes(path, "\x08\x08\x42\x00", 4);
    expect_file(path, GMSRT_BAD_GRAPH, "no graph");
    for (size_t size = 1; size < whole.size; size++) {
        write_bytes(path, whole.data, size);
        expect_file(path, GMSRT_BAD_GRAPH, "not an ONNX file");
    }
    expect_clean();
}

static void write_engine(const char *folder, const char *manifest)
{
    char path[1100];

    snprintf(path, sizeof path, "%s/engine.json", folder);
    write_bytes(path, manifest, strlen(manifest));
}

static void expect_execution(const char *folder, const gmsrt_cpu_options *options, const char *execution)
{
    gmsrt_runner *runner;
    gmsrt_info info = {0};

    CHECK_OK(gmsrt_open_cpu(folder, options, &runner));
    CHECK_OK(gmsrt_get_info(runner, &info, sizeof info));
    CHECK(strcmp(info.execution, execution) == 0, "%s instead of %s", info.execution, execution);
    gmsrt_close(runner);
}

/* The arithmetic that an engine was built for, unless another is asked for. */
static void test_execution(const char *folder, const char *f32, const char *bf16, const char *judged_in_both,
                           const char *f16)
{
    gmsrt_cpu_options options = options_of_fake();
    gmsrt_runner *runner;

    fake.reset();
    fake.bf16(1);
    write_engine(folder, f32);
    expect_execution(folder, &options, "f32");
    write_engine(folder, bf16);
    expect_execution(folder, &options, "bf16");
    options.precision = GMSRT_F32;
    expect_execution(folder, &options, "f32");
    options.precision = GMSRT_AS_BUILT;
    fake.bf16(0);
    CHECK(gmsrt_open_cpu(folder, &options, &runner) == GMSRT_UNSUPPORTED, "%s", gmsrt_last_error());
    CHECK(strstr(gmsrt_last_error(), "no bf16 arithmetic") != NULL, "%s", gmsrt_last_error());
    write_engine(folder, judged_in_both);
    expect_execution(folder, &options, "f32");
    options.precision = GMSRT_BF16;
    CHECK(gmsrt_open_cpu(folder, &options, &runner) == GMSRT_UNSUPPORTED, "bf16 was asked for");
    options.precision = GMSRT_AS_BUILT;
    fake.bf16(1);
    expect_execution(folder, &options, "bf16");
    fake.bf16(0);
    write_engine(folder, f16);
    expect_execution(folder, &options, "f32"); /* the same graph, where the CPU has no f16 */
    fake.f16(1);
    expect_execution(folder, &options, "f16");
    options.precision = GMSRT_F32;
    expect_execution(folder, &options, "f32");
    fake.f16(0);
    options.precision = GMSRT_F16;
    CHECK(gmsrt_open_cpu(folder, &options, &runner) == GMSRT_UNSUPPORTED, "f16 was asked for");
}

static void test_processor(void)
{
    gmsrt_processor about = {0};

    fake.reset();
    CHECK(gmsrt_probe_cpu(openvino, NULL, sizeof about) == GMSRT_INVALID_ARGUMENT, "no result");
    CHECK(gmsrt_probe_cpu("/nowhere/libopenvino_c.so", &about, sizeof about) == GMSRT_NO_RUNTIME, "no OpenVINO");
    CHECK_OK(gmsrt_probe_cpu(openvino, &about, sizeof about));
    CHECK(about.struct_size == sizeof about && !about.f16 && !about.bf16, "FP32 only");
    CHECK(strcmp(about.name, "Fake CPU") == 0 && strncmp(about.runtime, "OpenVINO ", 9) == 0, "%s", about.runtime);
    fake.bf16(1);
    CHECK_OK(gmsrt_probe_cpu(openvino, &about, sizeof about));
    CHECK(!about.f16 && about.bf16, "%s", about.capabilities);
    fake.bf16(0);
    fake.f16(1);
    CHECK_OK(gmsrt_probe_cpu(openvino, &about, sizeof about));
    CHECK(about.f16 && !about.bf16 && strcmp(about.capabilities, "FP32 FP16 INT8") == 0, "%s", about.capabilities);
    CHECK(gmsrt_probe_cpu(openvino, &about, 4) == GMSRT_INVALID_ARGUMENT, "another size");
    fake.reset();
    fake.fail(1, -1); /* ov_core_create */
    CHECK(gmsrt_probe_cpu(openvino, &about, sizeof about) == GMSRT_NO_RUNTIME, "OpenVINO does not start");
    fake.reset();
    fake.f16(1);
    fake.fail(2, -1); /* the name */
    CHECK_OK(gmsrt_probe_cpu(openvino, &about, sizeof about));
    CHECK(about.name[0] == '\0' && about.f16, "what it does not tell is empty");
    expect_clean();
}

/* Engine folders whose files are not what engine.json says. */
static void test_engine(const char *root)
{
    /* SHA-256 of the model below, of 63 zeros, and of no byte, as sha256sum gives them. */
#define HASH "39c7fecaedf4582fc69b569f6a718bf6723a53ad3edd131a12e6531d51def86e"
#define HASH_ZEROS "c7723fa1e0127975e49e62e753db53924c1bd84b8ac1ac08df78d09270f3d971"
#define HASH_EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    const bytes whole = sound_model();
    static const unsigned char zeros[63] = {0};
#define HEAD "{\"format\": \"gms-rt-engine\", \"version\": 1, \"execution\": \"f32\", "
#define MODEL "\"model\": \"m.onnx\""
#define FILES "\"files\": {\"m.onnx\": \"" HASH "\"}"
    static const char good[] =
        "{\"notes\": [1, {\"model\": \"x\"}], \"format\": \"gms-rt-engine\", " MODEL
        ",\n \"a\": null, \"version\" : 1, \"files\": {\"note\": \"0\", \"m.onnx\": \"" HASH
        "\", \"m.onnx.data\": \"" HASH_ZEROS "\", \"m.onnx.more\": \"" HASH_EMPTY "\"}, \"execution\": \"f32\"}";
    static const char *const bad[][2] = {
        {"", "damaged"},
        {"[]", "damaged"},
        {"{}", "damaged"},
        {HEAD MODEL "}", "damaged"},
        {HEAD FILES ", \"model\": \"../m.onnx\"}", "damaged"},
        {HEAD FILES ", \"model\": \"\"}", "damaged"},
        {HEAD FILES ", \"model\": 3}", "damaged"},
        {"{\"format\": gms-rt-engine, \"version\": 1, " FILES ", " MODEL "}", "damaged"},
        {HEAD "\"files\": 3, " MODEL "}", "damaged"},
        {HEAD "\"files\": [], " MODEL "}", "damaged"},
        {HEAD "\"files\": {}, " MODEL "}", "does not list"},
        {HEAD "\"files\": {\"m.onnx.data\": \"" HASH_ZEROS "\"}, " MODEL "}", "does not list"},
        {HEAD "\"files\": {\"m.onnx\": \"" HASH_ZEROS "\"}, " MODEL "}", "hash differs"},
        {HEAD "\"files\": {\"m.onnx\": \"" HASH "\", \"m.onnx2\": \"0\"}, " MODEL "}", "m.onnx2 is missing"},
        {HEAD "\"files\": {\"m.onnx\": \"" HASH "\", \"m.onnx/../x\": \"0\"}, " MODEL "}", "not a file of the folder"},
        {HEAD FILES ", " FILES ", " MODEL "}", "damaged"},
        {HEAD FILES ", " MODEL ", \"model\": \"other.onnx\"}", "damaged"},
        {HEAD FILES ", " MODEL ", \"mode\\u006c\": \"other.onnx\"}", "damaged"},
        {HEAD FILES ", " MODEL "} {}", "damaged"},
        {"{\"version\": 1, \"execution\": \"f32\", " FILES ", " MODEL "}", "not a gms-rt-engine file"},
        {"{\"format\": \"gms-rt-run\", \"version\": 1, " FILES ", " MODEL "}", "not a gms-rt-engine file"},
        {"{\"format\": [\"gms-rt-engine\"], \"version\": 1, " FILES ", " MODEL "}", "not a gms-rt-engine file"},
        {"{\"format\": \"gms-rt-engine\", " FILES ", " MODEL "}", "no version"},
        {"{\"format\": \"gms-rt-engine\", \"version\": 0, " FILES ", " MODEL "}", "no version"},
        {"{\"format\": \"gms-rt-engine\", \"version\": true, " FILES ", " MODEL "}", "no version"},
        {"{\"format\": \"gms-rt-engine\", \"version\": 99999999999999999999, " FILES ", " MODEL "}", "no version"},
        {"{\"format\": \"gms-rt-engine\", \"version\": 2, " FILES ", " MODEL "}",
         "version 2, this library reads up to"},
        {"{\"format\": \"gms-rt-engine\", \"version\": 1, " FILES ", " MODEL "}", "neither f32 nor bf16"},
        {"{\"format\": \"gms-rt-engine\", \"version\": 1, \"execution\": \"f64\", " FILES ", " MODEL "}",
         "neither f32 nor bf16 nor f16"},
    };
    const gmsrt_cpu_options options = options_of_fake();
    char folder[1000], path[1100], deep[500];
    gmsrt_runner *runner;

    fake.reset();
    snprintf(folder, sizeof folder, "%s/engine", root);
    mkdir(folder, 0700);
    snprintf(path, sizeof path, "%s/m.onnx.data", folder);
    write_bytes(path, zeros, sizeof zeros);
    snprintf(path, sizeof path, "%s/m.onnx.more", folder);
    write_bytes(path, "", 0);
    snprintf(path, sizeof path, "%s/m.onnx", folder);
    write_bytes(path, whole.data, whole.size);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_engine(folder, bad[i][0]);
        expect_file(folder, GMSRT_BAD_GRAPH, bad[i][1]);
    }
    memset(deep, '[', sizeof deep - 1);
    memcpy(deep, "{\"a\":", 5);
    deep[sizeof deep - 1] = '\0';
    write_engine(folder, deep);
    expect_file(folder, GMSRT_BAD_GRAPH, "damaged");
    for (size_t length = 0; length < sizeof good - 1; length++) {
        char part[sizeof good];

        memcpy(part, good, length);
        part[length] = '\0';
        write_engine(folder, part);
        expect_file(folder, GMSRT_BAD_GRAPH, "engine.json");
    }
    write_engine(folder, good);
    CHECK_OK(gmsrt_open_cpu(folder, &options, &runner));
    gmsrt_close(runner);
    test_execution(folder, HEAD FILES ", " MODEL "}",
                   "{\"format\": \"gms-rt-engine\", \"version\": 1, " FILES ", " MODEL ", \"execution\": \"bf16\"}",
                   "{\"format\": \"gms-rt-engine\", \"version\": 1, \"fallback\": \"f32\", " FILES ", " MODEL
                   ", \"execution\": \"bf16\"}",
                   "{\"format\": \"gms-rt-engine\", \"version\": 1, " FILES ", " MODEL ", \"execution\": \"f16\"}");
    write_engine(folder, good);
    fake.reset();
    for (size_t i = 0; i < whole.size; i++) { /* one bit anywhere */
        bytes changed = whole;

        changed.data[i] ^= 1;
        write_bytes(path, changed.data, changed.size);
        expect_file(folder, GMSRT_BAD_GRAPH, "hash differs");
    }
    unlink(path);
    expect_file(folder, GMSRT_BAD_GRAPH, "is missing");
    expect_clean();
}

static int scenario(bool *opened, int *before_close)
{
    gmsrt_bench_options bench = {sizeof bench, 0.0, 0.0, 4};
    gmsrt_sample samples[4];
    gmsrt_bench_result result;
    uint8_t masks[IMAGES * PIXELS];
    gmsrt_cpu_options options = options_of_fake();
    gmsrt_runner *runner = NULL;
    gmsrt_status status;
    int failures = 0;

#define STEP(call)                                                                                                     \
    status = (call);                                                                                                   \
    if (status != GMSRT_OK) {                                                                                          \
        failures++;                                                                                                    \
        CHECK(strstr(gmsrt_last_error(), "made to fail with -1") != NULL, "%s", gmsrt_last_error());                   \
    }
    options.lanes = 2;
    STEP(gmsrt_open_cpu(graph, &options, &runner))
    *opened = status == GMSRT_OK;
    CHECK((runner != NULL) == *opened, "runner and status disagree");
    if (*opened) {
        STEP(gmsrt_infer(runner, images, IMAGES, masks))
        if (status == GMSRT_OK) expect_masks(masks, IMAGES);
        STEP(gmsrt_infer(runner, images, 1, masks))
        if (status == GMSRT_OK) expect_masks(masks, 1);
        STEP(gmsrt_bench(runner, images, 3, &bench, samples, 4, &result, sizeof result))
        CHECK((result.samples == 4) == (status == GMSRT_OK), "%zu samples", result.samples);
        STEP(gmsrt_infer(runner, images, IMAGES, masks))
        if (status == GMSRT_OK) expect_masks(masks, IMAGES);
    }
    *before_close = fake.calls();
    gmsrt_close(runner);
#undef STEP
    return failures;
}

static void test_failures(void)
{
    int total, before_close;
    bool opened;

    fake.reset();
    set_shape(-1); /* so that the batch is set, too */
    CHECK(scenario(&opened, &before_close) == 0 && opened, "%s", gmsrt_last_error());
    total = before_close;
    CHECK(total > 80, "only %d calls", total);
    expect_clean();
    for (int call = 1; call <= total; call++) {
        const char *name;
        int failures;

        fake.reset();
        set_shape(-1);
        fake.fail(call, -1);
        failures = scenario(&opened, &before_close);
        name = fake.call(call - 1);
        /* Names and versions are only descriptions; frees cannot fail. */
        if (strstr(name, "get_property") == NULL && strstr(name, "version") == NULL && strstr(name, "free") == NULL)
            CHECK(failures > 0, "call %d (%s) failed unnoticed", call, name);
        CHECK(failures <= 1, "%d failures after one at %s", failures, name);
        expect_clean();
    }
}

/* When all goes wrong, the message is the first failure's, and everything is waited for. */
static void test_first_message(void)
{
    gmsrt_cpu_options options = options_of_fake();
    uint8_t masks[IMAGES * PIXELS];
    gmsrt_runner *runner;

    fake.reset();
    options.lanes = 3;
    CHECK_OK(gmsrt_open_cpu(graph, &options, &runner));
    fake.fail(4, -1); /* three starts, then the first wait */
    fake.fail_later(-2);
    CHECK(gmsrt_infer(runner, images, IMAGES, masks) == GMSRT_RUNTIME_FAILED, "%s", gmsrt_last_error());
    CHECK(strstr(gmsrt_last_error(), "with -1") != NULL, "%s", gmsrt_last_error());
    CHECK(gmsrt_infer(runner, NULL, 1, masks) == GMSRT_INVALID_ARGUMENT, "no images");
    CHECK(strstr(gmsrt_last_error(), "null pointer") != NULL, "a later failure has no message of its own: %s",
          gmsrt_last_error());
    fake.fail(0, 0);
    fake.fail_later(0);
    CHECK_OK(gmsrt_infer(runner, images, IMAGES, masks));
    expect_masks(masks, IMAGES);
    gmsrt_close(runner);
    expect_clean();
}

typedef struct worker {
    pthread_t thread;
    gmsrt_runner *runner;
} worker;

static void *work(void *data)
{
    worker *w = data;

    for (int i = 0; i < 100; i++) {
        uint8_t masks[IMAGES * PIXELS];
        gmsrt_info info = {0};

        memset(masks, 1, sizeof masks);
        CHECK_OK(gmsrt_infer(w->runner, images, 1 + (size_t)i % IMAGES, masks));
        expect_masks(masks, 1 + (size_t)i % IMAGES);
        if (i % 16 == 0) CHECK_OK(gmsrt_set_lanes(w->runner, 1 + (uint32_t)i / 16 % 3));
        if (i % 32 == 31) {
            gmsrt_bench_options bench = {sizeof bench, 0.0, 0.0, 6};
            gmsrt_sample samples[6];
            gmsrt_bench_result result;

            CHECK_OK(gmsrt_bench(w->runner, images, 2, &bench, samples, 6, &result, sizeof result));
        }
        CHECK_OK(gmsrt_get_info(w->runner, &info, sizeof info));
    }
    return NULL;
}

static void test_threads(void)
{
    worker workers[4];
    gmsrt_cpu_options options = options_of_fake();
    gmsrt_runner *runner;

    fake.reset();
    set_shape(2);
    options.lanes = 3;
    CHECK_OK(gmsrt_open_cpu(graph, &options, &runner));
    for (int i = 0; i < 4; i++) {
        workers[i].runner = runner;
        CHECK(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0, "no thread");
    }
    for (int i = 0; i < 4; i++) pthread_join(workers[i].thread, NULL);
    gmsrt_close(runner);
    expect_clean();
}

static const char *absolute(const char *path)
{
    static char result[4096];
    size_t used;

    if (path[0] == '/') return path;
    CHECK(getcwd(result, 2048) != NULL, "no current folder");
    used = strlen(result);
    snprintf(result + used, sizeof result - used, "/%s", path);
    return result;
}

int main(int argc, char **argv)
{
    const bytes whole = sound_model();
    void *library;

    CHECK(argc == 3, "usage: test_cpu FAKE_OPENVINO FOLDER");
    openvino = absolute(argv[1]); /* a trial takes no relative path */
    snprintf(graph, sizeof graph, "%s/whole.onnx", argv[2]);
    write_bytes(graph, whole.data, whole.size);
    library = dlopen(openvino, RTLD_NOW | RTLD_LOCAL);
    CHECK(library != NULL, "%s", dlerror());
    *(void **)&fake.calls = dlsym(library, "fake_openvino_calls");
    *(void **)&fake.call = dlsym(library, "fake_openvino_call");
    *(void **)&fake.mistake = dlsym(library, "fake_openvino_mistake");
    *(void **)&fake.live = dlsym(library, "fake_openvino_live");
    *(void **)&fake.fail = dlsym(library, "fake_openvino_fail");
    *(void **)&fake.fail_later = dlsym(library, "fake_openvino_fail_later");
    *(void **)&fake.reset = dlsym(library, "fake_openvino_reset");
    *(void **)&fake.port = dlsym(library, "fake_openvino_port");
    *(void **)&fake.counts = dlsym(library, "fake_openvino_counts");
    *(void **)&fake.bf16 = dlsym(library, "fake_openvino_bf16");
    *(void **)&fake.f16 = dlsym(library, "fake_openvino_f16");
    *(void **)&fake.properties = dlsym(library, "fake_openvino_properties");
    for (size_t i = 0; i < sizeof images; i++) images[i] = (uint8_t)(i * 37 + 11);

    test_arguments();
    test_files(argv[2]);
    test_engine(argv[2]);
    test_foreign();
    test_options();
    test_processor();
    test_cache(argv[2]);
    test_cache_failures(argv[2]);
    test_results();
    test_threads();
    test_failures();
    test_first_message();
    return checks_passed("test_cpu (fake OpenVINO)");
}
