/* The CUDA backend against a driver: the fake one, where every call is made to fail once, or a real one.
 *
 * Usage: test_cuda DRIVER. The enqueue callback copies within device memory, so the same results are expected from
 * both: the masks of a batch are the first batch * height * width bytes of its images. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "../src/cuda_api.h"
#include "check.h"
#include "gms_rt.h"

#define HEIGHT 3u
#define WIDTH 5u
#define PIXELS (HEIGHT * WIDTH)
#define IMAGES 7u

typedef unsigned (*copy_fn)(gmsrt_cu_pointer, gmsrt_cu_pointer, size_t, void *);

static struct {
    copy_fn copy;
    int (*calls)(void);
    const char *(*call)(int);
    const char *(*mistake)(void);
    int (*live)(void);
    void (*fail)(int, int);
    void (*reset)(void);
    int (*contexts)(void);
    int (*depth)(void);
    int (*pending)(void);
    void (*hang)(bool);
} driver;

typedef struct user {
    uint32_t batch;
    int prepared, enqueued, released;
    int fail_enqueue; /* the call that returns 7 */
    bool idle;        /* queue nothing */
    bool spoil;       /* wait within the capture */
    int captured;     /* calls that were told that they are captured */
    unsigned (*wait)(void *);
} user;

static const char *driver_path;
static uint8_t images[IMAGES * PIXELS * 3];

static int prepare(void *data, const gmsrt_cuda_lane *lane)
{
    user *u = data;

    CHECK(lane->stream != NULL && lane->images != 0 && lane->masks != 0, "lane %u is not ready", lane->index);
    u->prepared++;
    return 0;
}

static int enqueue(void *data, const gmsrt_cuda_lane *lane)
{
    user *u = data;
    const int number = __atomic_add_fetch(&u->enqueued, 1, __ATOMIC_RELAXED);

    if (lane->capturing) u->captured++;
    if (number == u->fail_enqueue) return 7;
    if (u->idle) return 0;
    if (u->spoil && u->wait != NULL) u->wait(lane->stream);
    return (int)driver.copy(lane->masks, lane->images, u->batch * PIXELS, lane->stream);
}

static void release(void *data)
{
    ((user *)data)->released++;
}

static gmsrt_cuda_options options_for(user *u, uint32_t batch, uint32_t lanes)
{
    gmsrt_cuda_options options;

    gmsrt_cuda_options_init(&options, sizeof options);
    options.driver = driver_path;
    options.batch = batch;
    options.height = HEIGHT;
    options.width = WIDTH;
    options.lanes = lanes;
    options.prepare = prepare;
    options.enqueue = enqueue;
    options.release = release;
    options.user = u;
    memset(u, 0, sizeof *u);
    u->batch = batch;
    return options;
}

/* The mask bytes of `count` images in batches, the last one padded with zeros. */
static void expect_masks(const uint8_t *masks, size_t count, size_t batch)
{
    uint8_t padded[IMAGES * PIXELS * 3];

    for (size_t first = 0; first < count; first += batch) {
        const size_t many = count - first < batch ? count - first : batch;

        memset(padded, 0, sizeof padded);
        memcpy(padded, images + first * PIXELS * 3, many * PIXELS * 3);
        CHECK(memcmp(masks + first * PIXELS, padded, many * PIXELS) == 0, "masks of batch at %zu differ", first);
    }
}

static void expect_clean(void)
{
    if (driver.mistake == NULL) return;
    CHECK(driver.mistake()[0] == '\0', "%s", driver.mistake());
    CHECK(driver.live() == 0, "%d objects are left", driver.live());
    CHECK(driver.contexts() == 0, "the context is still held");
    CHECK(driver.depth() == 0, "a context is still current");
}

static void test_results(void)
{
    for (gmsrt_graph_use use_graph = GMSRT_GRAPH_NEVER; use_graph <= GMSRT_GRAPH_ALWAYS; use_graph++)
        for (uint32_t batch = 1; batch <= 3; batch++)
            for (uint32_t lanes = 1; lanes <= 3; lanes++) {
                user u;
                gmsrt_cuda_options options = options_for(&u, batch, lanes);
                gmsrt_runner *runner;
                gmsrt_info info = {0};

                options.use_graph = use_graph;
                CHECK_OK(gmsrt_open_cuda(&options, &runner));
                CHECK_OK(gmsrt_get_info(runner, &info, sizeof info));
                CHECK(info.lanes == lanes && info.batch == batch && info.backend == GMSRT_CUDA, "wrong info");
                CHECK(info.graphs == (use_graph ? lanes : 0), "%u graphs", info.graphs);
                CHECK(info.notice[0] == '\0', "a notice: %s", info.notice);
                CHECK(u.captured == (use_graph ? (int)lanes : 0), "%d captured", u.captured);
                CHECK(u.prepared == (int)lanes, "%d lanes prepared", u.prepared);
                for (size_t count = 0; count <= IMAGES; count++) {
                    uint8_t masks[IMAGES * PIXELS];
                    const int before = u.enqueued;

                    memset(masks, 1, sizeof masks);
                    CHECK_OK(gmsrt_infer(runner, images, count, masks));
                    expect_masks(masks, count, batch);
                    CHECK(use_graph == 0 || u.enqueued == before, "a replay called enqueue");
                }
                CHECK(u.released == 0, "released early");
                gmsrt_close(runner);
                CHECK(u.released == 1, "released %d times", u.released);
                expect_clean();
            }
}

static void test_order(void)
{
    static const char *const expected[] = {
        "cuCtxPushCurrent_v2", "cuEventRecord",        "cuMemcpyHtoDAsync_v2", "cuEventRecord", "cuGraphLaunch",
        "cuEventRecord",       "cuMemcpyDtoHAsync_v2", "cuEventRecord",        "cuEventQuery",  "cuCtxPopCurrent_v2",
    };
    uint8_t masks[PIXELS];
    user u;
    gmsrt_cuda_options options = options_for(&u, 1, 1);
    gmsrt_runner *runner;
    int first;

    driver.reset();
    CHECK_OK(gmsrt_open_cuda(&options, &runner));
    first = driver.calls();
    CHECK_OK(gmsrt_infer(runner, images, 1, masks));
    CHECK(driver.calls() - first == 10, "%d calls per inference", driver.calls() - first);
    for (int i = 0; i < 10; i++)
        CHECK(strcmp(driver.call(first + i), expected[i]) == 0, "call %d is %s", i, driver.call(first + i));
    gmsrt_close(runner);
    expect_clean();
}

static void test_bench(void)
{
    gmsrt_bench_options bench = {sizeof bench, 0.001, 0.0, 20};
    gmsrt_sample samples[20];
    gmsrt_bench_result result;
    user u;
    gmsrt_cuda_options options = options_for(&u, 2, 2);
    gmsrt_runner *runner;

    CHECK_OK(gmsrt_open_cuda(&options, &runner));
    CHECK_OK(gmsrt_bench(runner, images, 3, &bench, samples, 20, &result, sizeof result));
    CHECK(result.samples == 20 && result.lanes == 2 && result.batch == 2, "%zu samples", result.samples);
    CHECK(result.wall_seconds > 0 && result.warmup_seconds > 0, "no wall time");
    for (int i = 0; i < 20; i++) {
        CHECK(samples[i].h2d > 0 && samples[i].compute > 0 && samples[i].d2h > 0 && samples[i].enqueue >= 0,
              "sample %d has an empty part", i);
        CHECK(samples[i].total == samples[i].h2d + samples[i].compute + samples[i].d2h, "sample %d: wrong sum", i);
    }
    CHECK_OK(gmsrt_bench(runner, images, 1, &bench, samples, 5, &result, sizeof result));
    CHECK(result.samples == 5, "%zu samples in an array of 5", result.samples);
    gmsrt_close(runner);
    expect_clean();
}

static int failing_call;

/* The call that was made to fail. */
static const char *last_name(void)
{
    return driver.call(failing_call - 1);
}

/* Everything once; each step goes on even if an earlier one failed. The number of calls that returned a failure. */
static int scenario(bool *opened, int *before_close)
{
    gmsrt_bench_options bench = {sizeof bench, 0.0, 0.0, 4};
    gmsrt_sample samples[4];
    gmsrt_bench_result result;
    gmsrt_device device = {0};
    uint8_t masks[IMAGES * PIXELS];
    user u;
    gmsrt_cuda_options options = options_for(&u, 2, 2);
    gmsrt_runner *runner = NULL;
    gmsrt_status status;
    int failures = 0;

#define STEP(call)                                                                                                     \
    status = (call);                                                                                                   \
    if (status != GMSRT_OK) {                                                                                          \
        failures++;                                                                                                    \
        CHECK(gmsrt_last_error()[0] != '\0', "no message for %s", gmsrt_status_name(status));                          \
        CHECK(driver.depth() == 0, "a context is left on the thread's stack");                                         \
        CHECK(driver.pending() == 0 || strncmp(last_name(), "cuStreamSync", 12) == 0, "work is left on a stream");     \
    }
    STEP(gmsrt_probe_cuda(driver_path, 0, &device, sizeof device))
    STEP(gmsrt_open_cuda(&options, &runner))
    *opened = status == GMSRT_OK;
    CHECK((runner != NULL) == *opened, "runner and status disagree");
    if (*opened) {
        gmsrt_info info = {0};

        CHECK_OK(gmsrt_get_info(runner, &info, sizeof info));
        CHECK((info.notice[0] != '\0') == (info.graphs == 0), "%u graphs, notice: %s", info.graphs, info.notice);
        failures += info.graphs == 0; /* a capture that failed is told of */
        STEP(gmsrt_infer(runner, images, IMAGES, masks))
        if (status == GMSRT_OK) expect_masks(masks, IMAGES, 2);
        STEP(gmsrt_bench(runner, images, 3, &bench, samples, 4, &result, sizeof result))
        CHECK((result.samples == 4) == (status == GMSRT_OK), "%zu samples", result.samples);
        STEP(gmsrt_infer(runner, images, 1, masks))
        if (status == GMSRT_OK) expect_masks(masks, 1, 2);
    }
    *before_close = driver.calls();
    gmsrt_close(runner);
    CHECK(u.released == (u.prepared > 0), "released %d times", u.released);
#undef STEP
    return failures;
}

/* One failure at every call of the scenario, of every kind. */
static void test_failures(void)
{
    static const int codes[] = {GMSRT_CU_OUT_OF_MEMORY,
                                GMSRT_CU_LAUNCH_FAILED,
                                GMSRT_CU_CAPTURE_INVALIDATED,
                                GMSRT_CU_ECC_UNCORRECTABLE,
                                GMSRT_CU_NO_DEVICE,
                                GMSRT_CU_DEVICE_UNAVAILABLE,
                                GMSRT_CU_UNKNOWN,
                                12345};
    bool opened;
    int total, before_close;

    driver.reset();
    CHECK(scenario(&opened, &before_close) == 0 && opened, "the scenario fails by itself: %s", gmsrt_last_error());
    total = driver.calls();
    CHECK(total > 100, "only %d calls", total);
    expect_clean();
    for (size_t c = 0; c < sizeof codes / sizeof *codes; c++)
        for (int call = 1; call <= total; call++) {
            const char *name;
            int failures;

            driver.reset();
            driver.fail(call, codes[c]);
            failing_call = call;
            failures = scenario(&opened, &before_close);
            name = driver.call(call - 1);
            /* Clean-up has nobody to report to; everything else must. */
            if (call <= before_close && strstr(name, "Pop") == NULL && strstr(name, "Destroy") == NULL)
                CHECK(failures > 0, "call %d (%s) failed with %d unnoticed", call, name, codes[c]);
            if (failures > 0 && codes[c] == GMSRT_CU_OUT_OF_MEMORY)
                CHECK(failures == 1 || !opened, "%d failures after one at %s", failures, name);
            expect_clean();
        }
    driver.reset();
}

static void test_messages(void)
{
    uint8_t masks[PIXELS];
    user u;
    gmsrt_cuda_options options = options_for(&u, 1, 1);
    gmsrt_runner *runner;

    /* A lost device stays lost, says so, and can be closed. */
    driver.reset();
    CHECK_OK(gmsrt_open_cuda(&options, &runner));
    driver.fail(5, GMSRT_CU_LAUNCH_FAILED);
    CHECK(gmsrt_infer(runner, images, 1, masks) == GMSRT_DEVICE_LOST, "%s", gmsrt_last_error());
    CHECK(strstr(gmsrt_last_error(), "CUDA_ERROR_LAUNCH_FAILED") != NULL, "%s", gmsrt_last_error());
    CHECK(gmsrt_infer(runner, images, 1, masks) == GMSRT_DEVICE_LOST, "%s", gmsrt_last_error());
    CHECK(strstr(gmsrt_last_error(), "close this runner") != NULL, "%s", gmsrt_last_error());
    gmsrt_close(runner);
    expect_clean();

    /* Memory that runs out is not the end. */
    driver.reset();
    CHECK_OK(gmsrt_open_cuda(&options, &runner));
    driver.fail(5, GMSRT_CU_OUT_OF_MEMORY);
    CHECK(gmsrt_infer(runner, images, 1, masks) == GMSRT_OUT_OF_MEMORY, "%s", gmsrt_last_error());
    CHECK_OK(gmsrt_infer(runner, images, 1, masks));
    expect_masks(masks, 1, 1);
    gmsrt_close(runner);
    expect_clean();

    /* What ends the context is told as such, with what helps; what only says that others use the device is not. */
    {
        static const struct {
            int code;
            gmsrt_status status;
        } known[] = {
            {GMSRT_CU_NVLINK_UNCORRECTABLE, GMSRT_DEVICE_LOST}, {GMSRT_CU_TENSOR_MEMORY_LEAK, GMSRT_DEVICE_LOST},
            {GMSRT_CU_SYSTEM_NOT_READY, GMSRT_DEVICE_LOST},     {GMSRT_CU_UNKNOWN, GMSRT_DEVICE_LOST},
            {GMSRT_CU_ILLEGAL_ADDRESS, GMSRT_DEVICE_LOST},      {GMSRT_CU_DEVICE_UNAVAILABLE, GMSRT_DEVICE_BUSY},
        };

        for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
            driver.reset();
            CHECK_OK(gmsrt_open_cuda(&options, &runner));
            driver.fail(5, known[i].code);
            CHECK(gmsrt_infer(runner, images, 1, masks) == known[i].status, "%d: %s", known[i].code,
                  gmsrt_last_error());
            CHECK((strstr(gmsrt_last_error(), "only a new process") != NULL) == (known[i].status == GMSRT_DEVICE_LOST),
                  "%d: %s", known[i].code, gmsrt_last_error());
            CHECK((gmsrt_infer(runner, images, 1, masks) == GMSRT_OK) == (known[i].status == GMSRT_DEVICE_BUSY),
                  "%d: %s", known[i].code, gmsrt_last_error());
            gmsrt_close(runner);
            expect_clean();
        }
    }

    /* At open: a device that another process has for itself, and a machine whose NVSwitch is not up yet. */
    driver.reset();
    for (int call = 1;; call++) {
        driver.reset();
        driver.fail(call, GMSRT_CU_DEVICE_UNAVAILABLE);
        CHECK(gmsrt_open_cuda(&options, &runner) == GMSRT_DEVICE_BUSY && runner == NULL, "%s", gmsrt_last_error());
        if (strcmp(driver.call(call - 1), "cuDevicePrimaryCtxRetain") == 0) break;
    }
    CHECK(strstr(gmsrt_last_error(), "another process") != NULL, "%s", gmsrt_last_error());
    driver.reset();
    driver.fail(1, GMSRT_CU_SYSTEM_NOT_READY);
    CHECK(gmsrt_open_cuda(&options, &runner) == GMSRT_NO_DEVICE && runner == NULL, "%s", gmsrt_last_error());
    CHECK(strstr(gmsrt_last_error(), "nvidia-fabricmanager") != NULL, "%s", gmsrt_last_error());
    driver.reset();
    driver.fail(1, GMSRT_CU_NOT_INITIALIZED); /* what the driver says in a fork */
    CHECK(gmsrt_open_cuda(&options, &runner) == GMSRT_RUNTIME_FAILED && runner == NULL, "%s", gmsrt_last_error());
    CHECK(strstr(gmsrt_last_error(), "fork") != NULL, "%s", gmsrt_last_error());
    expect_clean();

    /* No device. */
    driver.reset();
    driver.fail(1, GMSRT_CU_NO_DEVICE);
    CHECK(gmsrt_open_cuda(&options, &runner) == GMSRT_NO_DEVICE && runner == NULL, "%s", gmsrt_last_error());
    options.device = 3;
    driver.reset();
    CHECK(gmsrt_open_cuda(&options, &runner) == GMSRT_NO_DEVICE && runner == NULL, "%s", gmsrt_last_error());
    CHECK(strstr(gmsrt_last_error(), "0 to 0") != NULL, "%s", gmsrt_last_error());
}

static void test_callbacks(void)
{
    gmsrt_runner *runner;
    user u;
    gmsrt_cuda_options options;

    for (int call = 1; call <= 6; call++) { /* two warm-ups and a capture on two lanes */
        options = options_for(&u, 1, 2);
        options.use_graph = GMSRT_GRAPH_ALWAYS;
        u.fail_enqueue = call;
        CHECK(gmsrt_open_cuda(&options, &runner) == GMSRT_CALLBACK_FAILED && runner == NULL, "call %d", call);
        CHECK(strstr(gmsrt_last_error(), "returned 7") != NULL, "%s", gmsrt_last_error());
        CHECK(u.released == 1, "released %d times", u.released);
        expect_clean();
    }
    options = options_for(&u, 1, 1);
    u.idle = true;
    CHECK(gmsrt_open_cuda(&options, &runner) == GMSRT_CALLBACK_FAILED, "an empty capture was accepted");
    CHECK(strstr(gmsrt_last_error(), "queued nothing") != NULL, "%s", gmsrt_last_error());
    expect_clean();

    options = options_for(&u, 1, 1);
    options.use_graph = 0;
    CHECK_OK(gmsrt_open_cuda(&options, &runner));
    u.fail_enqueue = u.enqueued + 1;
    {
        uint8_t masks[PIXELS];

        CHECK(gmsrt_infer(runner, images, 1, masks) == GMSRT_CALLBACK_FAILED, "%s", gmsrt_last_error());
        CHECK_OK(gmsrt_infer(runner, images, 1, masks));
        expect_masks(masks, 1, 1);
    }
    gmsrt_close(runner);
    expect_clean();
}

/* A runner that could not capture: it says so, has no graph at all, and its masks are right. */
static void expect_without_graph(const gmsrt_cuda_options *options, user *u, const char *why)
{
    uint8_t masks[IMAGES * PIXELS];
    gmsrt_runner *runner;
    gmsrt_info info = {0};

    CHECK_OK(gmsrt_open_cuda(options, &runner));
    CHECK_OK(gmsrt_get_info(runner, &info, sizeof info));
    CHECK(info.graphs == 0, "%u graphs", info.graphs);
    CHECK(strstr(info.notice, "no CUDA graph") != NULL && strstr(info.notice, why) != NULL, "notice: %s", info.notice);
    memset(&info, 'x', sizeof info);
    CHECK_OK(
        gmsrt_get_info(runner, &info, offsetof(gmsrt_info, notice) + 8)); /* of a header that has less room for it */
    CHECK(strlen(info.notice) == 7, "a text that was cut does not end: %.20s", info.notice);
    u->fail_enqueue = 0;
    memset(masks, 1, sizeof masks);
    CHECK_OK(gmsrt_infer(runner, images, IMAGES, masks));
    expect_masks(masks, IMAGES, options->batch);
    gmsrt_close(runner);
    CHECK(u->released == 1, "released %d times", u->released);
    expect_clean();
}

/* An enqueue that waits for its own stream spoils the capture; so does one that refuses to be captured. */
static void test_spoiled_capture(unsigned (*wait)(void *))
{
    user u;
    gmsrt_cuda_options options = options_for(&u, 1, 2);
    gmsrt_runner *runner;

    u.spoil = true;
    u.wait = wait;
    options.use_graph = GMSRT_GRAPH_ALWAYS;
    CHECK(gmsrt_open_cuda(&options, &runner) != GMSRT_OK && runner == NULL, "a spoiled capture was accepted");
    CHECK(strstr(gmsrt_last_error(), "capture") != NULL || strstr(gmsrt_last_error(), "enqueue") != NULL, "%s",
          gmsrt_last_error());
    expect_clean();
    options = options_for(&u, 1, 2);
    u.spoil = true;
    u.wait = wait;
    expect_without_graph(&options, &u, "");
    for (int call = 3; call <= 6; call += 3) { /* the capture on the first lane, and that on the second */
        options = options_for(&u, 2, 2);
        u.fail_enqueue = call;
        expect_without_graph(&options, &u, "returned 7");
    }
    /* It is tried once more, not for ever: a callback that fails without a graph, too, is an error. */
    options = options_for(&u, 1, 1);
    options.warmup = 1;
    u.fail_enqueue = 1;
    CHECK(gmsrt_open_cuda(&options, &runner) == GMSRT_CALLBACK_FAILED && runner == NULL, "%s", gmsrt_last_error());
    expect_clean();
}

/* A kernel that does not end: the call comes back, nothing waits for the device any more, and close returns. */
static void test_hang(void)
{
    for (gmsrt_graph_use use_graph = GMSRT_GRAPH_NEVER; use_graph <= GMSRT_GRAPH_AUTO; use_graph++)
        for (int at_open = 0; at_open <= 1; at_open++) {
            uint8_t masks[IMAGES * PIXELS];
            gmsrt_bench_options bench = {sizeof bench, 0.0, 0.0, 4};
            gmsrt_sample samples[4];
            gmsrt_bench_result result;
            user u;
            gmsrt_cuda_options options = options_for(&u, 1, 2);
            gmsrt_runner *runner;

            driver.reset();
            options.wait_ms = 30;
            options.use_graph = use_graph;
            if (at_open) {
                driver.hang(true);
                CHECK(gmsrt_open_cuda(&options, &runner) == GMSRT_DEVICE_HUNG && runner == NULL, "%s",
                      gmsrt_last_error());
            } else {
                CHECK_OK(gmsrt_open_cuda(&options, &runner));
                driver.hang(true);
                CHECK(gmsrt_infer(runner, images, IMAGES, masks) == GMSRT_DEVICE_HUNG, "%s", gmsrt_last_error());
                CHECK(strstr(gmsrt_last_error(), "30 ms") != NULL, "%s", gmsrt_last_error());
                CHECK(gmsrt_infer(runner, images, 1, masks) == GMSRT_DEVICE_HUNG, "%s", gmsrt_last_error());
                CHECK(gmsrt_bench(runner, images, 1, &bench, samples, 4, &result, sizeof result) == GMSRT_DEVICE_HUNG,
                      "%s", gmsrt_last_error());
                CHECK(strstr(gmsrt_last_error(), "end the process") != NULL, "%s", gmsrt_last_error());
                gmsrt_close(runner);
            }
            CHECK(driver.depth() == 0, "a context is still current");
            CHECK(u.released == 0, "release was called while the lanes are in use");
            CHECK(driver.mistake()[0] == '\0', "%s", driver.mistake());
            driver.hang(false);
            expect_clean();
        }
    driver.reset();
}

static void test_arguments(void)
{
    user u;
    const gmsrt_cuda_options good = options_for(&u, 1, 1);
    gmsrt_cuda_options bad;
    gmsrt_runner *runner = (gmsrt_runner *)&u;
    gmsrt_device device = {0};

#define REFUSED(change)                                                                                                \
    bad = good;                                                                                                        \
    change;                                                                                                            \
    runner = (gmsrt_runner *)&u;                                                                                       \
    CHECK(gmsrt_open_cuda(&bad, &runner) == GMSRT_INVALID_ARGUMENT && runner == NULL, "accepted: %s", #change)
    REFUSED(bad.struct_size = 8);
    REFUSED(bad.use_graph = -1);
    REFUSED(bad.batch = 0);
    REFUSED(bad.height = 0);
    REFUSED(bad.width = 0xffffffffu);
    REFUSED(bad.batch = 4096; bad.height = 32768; bad.width = 32768);
    REFUSED(bad.lanes = 0);
    REFUSED(bad.lanes = 65);
    REFUSED(bad.warmup = 0);
    REFUSED(bad.use_graph = 3);
    REFUSED(bad.enqueue = NULL);
#undef REFUSED
    CHECK(gmsrt_open_cuda(NULL, &runner) == GMSRT_INVALID_ARGUMENT, "no options");
    CHECK(gmsrt_open_cuda(&good, NULL) == GMSRT_INVALID_ARGUMENT, "no runner");
    CHECK(gmsrt_probe_cuda(driver_path, 0, NULL, sizeof device) == GMSRT_INVALID_ARGUMENT, "no result");
    CHECK(gmsrt_probe_cuda("/nowhere/libcuda.so", 0, &device, sizeof device) == GMSRT_NO_RUNTIME, "no driver");
    CHECK(strstr(gmsrt_last_error(), "/nowhere/libcuda.so") != NULL, "%s", gmsrt_last_error());
    CHECK_OK(gmsrt_probe_cuda(driver_path, 0, &device, sizeof device));
    CHECK(device.count >= 1 && device.sm >= 50 && device.name[0] != '\0' && device.memory > 0, "an empty description");
}

typedef struct worker {
    pthread_t thread;
    gmsrt_runner *runner;
    int rounds;
} worker;

static void *work(void *data)
{
    worker *w = data;

    for (int i = 0; i < w->rounds; i++) {
        uint8_t masks[IMAGES * PIXELS];

        memset(masks, 1, sizeof masks);
        CHECK_OK(gmsrt_infer(w->runner, images, IMAGES, masks));
        expect_masks(masks, IMAGES, 2);
        if (i % 16 == 0) CHECK_OK(gmsrt_set_lanes(w->runner, 1 + (uint32_t)i % 3));
        if (i % 32 == 31) {
            gmsrt_bench_options bench = {sizeof bench, 0.0, 0.0, 6};
            gmsrt_sample samples[6];
            gmsrt_bench_result result;

            CHECK_OK(gmsrt_bench(w->runner, images, 2, &bench, samples, 6, &result, sizeof result));
        }
    }
    return NULL;
}

static void test_threads(void)
{
    worker workers[4];
    user u;
    gmsrt_cuda_options options = options_for(&u, 2, 3);
    gmsrt_runner *runner;

    CHECK_OK(gmsrt_open_cuda(&options, &runner));
    for (int i = 0; i < 4; i++) {
        workers[i].runner = runner;
        workers[i].rounds = 100;
        CHECK(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0, "no thread");
    }
    for (int i = 0; i < 4; i++) pthread_join(workers[i].thread, NULL);
    gmsrt_close(runner);
    expect_clean();
}

static void *symbol(void *library, const char *name)
{
    return dlsym(library, name);
}

int main(int argc, char **argv)
{
    void *library;
    unsigned (*wait)(void *);

    CHECK(argc == 2, "usage: test_cuda DRIVER");
    driver_path = argv[1];
    library = dlopen(driver_path, RTLD_NOW | RTLD_LOCAL);
    CHECK(library != NULL, "%s", dlerror());
    *(void **)&driver.copy = symbol(library, "cuMemcpyDtoDAsync_v2");
    *(void **)&driver.calls = symbol(library, "fake_cuda_calls");
    *(void **)&driver.call = symbol(library, "fake_cuda_call");
    *(void **)&driver.mistake = symbol(library, "fake_cuda_mistake");
    *(void **)&driver.live = symbol(library, "fake_cuda_live");
    *(void **)&driver.fail = symbol(library, "fake_cuda_fail");
    *(void **)&driver.reset = symbol(library, "fake_cuda_reset");
    *(void **)&driver.contexts = symbol(library, "fake_cuda_contexts");
    *(void **)&driver.depth = symbol(library, "fake_cuda_depth");
    *(void **)&driver.pending = symbol(library, "fake_cuda_pending");
    *(void **)&driver.hang = symbol(library, "fake_cuda_hang");
    *(void **)&wait = symbol(library, "cuStreamSynchronize");
    for (size_t i = 0; i < sizeof images; i++) images[i] = (uint8_t)(i * 37 + 11);

    test_arguments();
    test_results();
    test_bench();
    test_callbacks();
    test_spoiled_capture(wait);
    test_threads();
    if (driver.fail != NULL) {
        test_order();
        test_failures();
        test_messages();
        test_hang();
    }
    return checks_passed(driver.fail != NULL ? "test_cuda (fake driver)" : "test_cuda (real driver)");
}
