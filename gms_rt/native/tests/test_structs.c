/* Programs that were compiled with an older or a newer header: the library touches what their structures have, no more.
 *
 * Usage: test_structs FAKE_OPENVINO FAKE_DRIVER FOLDER. Behind every structure stands a canary, and in front of the
 * memory's end a sanitizer. */
#define _XOPEN_SOURCE 700 /* realpath */
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bytes.h"
#include "gms_rt.h"

#define CANARY 0xA5
#define ROOM 1024u /* more than the largest structure and its canary */

static const char *openvino, *driver;
static char graph[1024];

/* Memory of which `size` bytes are the structure's, full of canaries. */
static unsigned char *fresh(void)
{
    static unsigned char memory[2 * ROOM];

    memset(memory, CANARY, sizeof memory);
    return memory;
}

static void expect_untouched(const unsigned char *memory, size_t size)
{
    for (size_t i = size; i < 2 * ROOM; i++)
        CHECK(memory[i] == CANARY, "byte %zu behind a structure of %zu was written", i, size);
}

static size_t size_in(const void *structure)
{
    size_t size;

    memcpy(&size, structure, sizeof size);
    return size;
}

typedef gmsrt_status (*init_call)(void *options, size_t size);

static gmsrt_status init_cpu(void *options, size_t size)
{
    return gmsrt_cpu_options_init(options, size);
}

static gmsrt_status init_cuda(void *options, size_t size)
{
    return gmsrt_cuda_options_init(options, size);
}

static gmsrt_status init_bench(void *options, size_t size)
{
    return gmsrt_bench_options_init(options, size);
}

static void test_init(init_call init, size_t known)
{
    unsigned char whole[ROOM], *memory;

    CHECK_OK(init(whole, known));
    for (size_t size = sizeof size; size <= known + 64; size += sizeof(void *)) {
        memory = fresh();
        CHECK_OK(init(memory, size));
        expect_untouched(memory, size);
        CHECK(size_in(memory) == size, "a size of %zu instead of %zu", size_in(memory), size);
        CHECK(memcmp(memory + sizeof size, whole + sizeof size, (size < known ? size : known) - sizeof size) == 0,
              "other defaults for a size of %zu", size);
        for (size_t i = known; i < size; i++) CHECK(memory[i] == 0, "byte %zu is not zero", i);
    }
    CHECK(init(NULL, known) == GMSRT_INVALID_ARGUMENT, "no options");
    memory = fresh();
    CHECK(init(memory, 0) == GMSRT_INVALID_ARGUMENT, "no size");
    expect_untouched(memory, 0);
    CHECK(init(memory, known - 1) == GMSRT_INVALID_ARGUMENT && size_in(memory) == 0, "half a field");
    expect_untouched(memory, sizeof(size_t));
    CHECK(init(fresh(), SIZE_MAX - 7) == GMSRT_INVALID_ARGUMENT, "the length of nothing");
}

static gmsrt_status init_select(void *options, size_t size)
{
    return gmsrt_select_options_init(options, size);
}

static int enqueue(void *user, const gmsrt_cuda_lane *lane)
{
    (void)user;
    CHECK(lane->struct_size == sizeof *lane, "a lane of %u bytes", lane->struct_size);
    return 1;
}

/* Options of every size open a graph, as long as what is behind the known ones is zero. */
static void test_cpu_options(void)
{
    gmsrt_cpu_options whole;
    gmsrt_runner *runner;

    setenv("GMS_RT_OPENVINO", openvino, 1); /* for programs so old that they have no such option */
    for (size_t size = sizeof(size_t); size <= sizeof whole + 64; size += sizeof(void *)) {
        unsigned char *options = malloc(size); /* a sanitizer stands right behind it */

        CHECK(options != NULL, "no memory");
        gmsrt_cpu_options_init(&whole, sizeof whole);
        whole.trial = GMSRT_TRIAL_NEVER;
        memset(options, 0, size);
        memcpy(options, &whole, size < sizeof whole ? size : sizeof whole);
        memcpy(options, &size, sizeof size);
        if (size <= offsetof(gmsrt_cpu_options, trial)) setenv("GMS_RT_TRIAL", "/nowhere/gmsrt-trial", 1);
        /* Without the option of its own, a program gets the default: a trial, whose program is missing here. */
        if (size <= offsetof(gmsrt_cpu_options, trial)) {
            CHECK(gmsrt_open_cpu(graph, (void *)options, &runner) == GMSRT_NO_RUNTIME, "no trial with size %zu", size);
            CHECK(strstr(gmsrt_last_error(), "GMS_RT_TRIAL") != NULL, "%s", gmsrt_last_error());
        } else {
            CHECK_OK(gmsrt_open_cpu(graph, (void *)options, &runner));
            gmsrt_close(runner);
        }
        unsetenv("GMS_RT_TRIAL");
        if (size > sizeof whole) {
            options[size - 1] = 1;
            CHECK(gmsrt_open_cpu(graph, (void *)options, &runner) == GMSRT_INVALID_ARGUMENT && runner == NULL,
                  "an unknown option was ignored");
            CHECK(strstr(gmsrt_last_error(), "does not know") != NULL, "%s", gmsrt_last_error());
        }
        free(options);
    }
    unsetenv("GMS_RT_OPENVINO");
}

static void test_cuda_options(void)
{
    gmsrt_cuda_options whole;
    gmsrt_runner *runner;

    gmsrt_cuda_options_init(&whole, sizeof whole);
    whole.driver = driver;
    whole.height = whole.width = 8;
    whole.enqueue = enqueue;
    for (size_t size = sizeof(size_t); size <= sizeof whole + 64; size += sizeof(void *)) {
        /* The callback is reached, and refuses; without it in the structure the open is refused before. */
        const bool complete = size > offsetof(gmsrt_cuda_options, enqueue);
        unsigned char *options = malloc(size);

        CHECK(options != NULL, "no memory");
        memset(options, 0, size);
        memcpy(options, &whole, size < sizeof whole ? size : sizeof whole);
        memcpy(options, &size, sizeof size);
        CHECK(gmsrt_open_cuda((void *)options, &runner) == (complete ? GMSRT_CALLBACK_FAILED : GMSRT_INVALID_ARGUMENT),
              "size %zu: %s", size, gmsrt_last_error());
        if (size > sizeof whole) {
            options[sizeof whole] = 1;
            CHECK(gmsrt_open_cuda((void *)options, &runner) == GMSRT_INVALID_ARGUMENT, "an unknown option was ignored");
            CHECK(strstr(gmsrt_last_error(), "does not know") != NULL, "%s", gmsrt_last_error());
        }
        free(options);
    }
}

static gmsrt_runner *opened;
static uint8_t images[4 * 4 * 3];

static gmsrt_status give_info(void *result, size_t size)
{
    return gmsrt_get_info(opened, result, size);
}

static gmsrt_status give_processor(void *result, size_t size)
{
    return gmsrt_probe_cpu(openvino, result, size);
}

static gmsrt_status give_device(void *result, size_t size)
{
    return gmsrt_probe_cuda(driver, 0, result, size);
}

static gmsrt_status give_bench(void *result, size_t size)
{
    gmsrt_bench_options options;
    gmsrt_sample sample;

    gmsrt_bench_options_init(&options, sizeof options);
    return gmsrt_bench(opened, images, 1, &options, &sample, 1, result, size);
}

static gmsrt_engine *engine;

static gmsrt_status give_engine(void *result, size_t size)
{
    return gmsrt_engine_get_info(engine, result, size);
}

static gmsrt_status give_class(void *result, size_t size)
{
    return gmsrt_engine_get_class(engine, 0, result, size);
}

static gmsrt_status give_plan(void *result, size_t size)
{
    return gmsrt_engine_get_plan(engine, 0, NULL, result, size);
}

static gmsrt_status give_selected(void *result, size_t size)
{
    return gmsrt_engine_select(engine, NULL, result, size);
}

/* Options of every size choose; those of a newer program must be zero. */
static void test_select_options(void)
{
    const uint32_t sm = 89;
    gmsrt_select_options whole;
    gmsrt_plan plan;

    gmsrt_select_options_init(&whole, sizeof whole);
    whole.device = "cpu";
    whole.sms = &sm;
    whole.sm_count = 1;
    for (size_t size = 2 * sizeof(size_t); size <= sizeof whole + 64; size += sizeof(void *)) {
        unsigned char *options = malloc(size);

        CHECK(options != NULL, "no memory");
        memset(options, 0, size);
        memcpy(options, &whole, size < sizeof whole ? size : sizeof whole);
        memcpy(options, &size, sizeof size);
        CHECK_OK(gmsrt_engine_select(engine, (void *)options, &plan, sizeof plan));
        CHECK(plan.target == GMSRT_TARGET_CPU && plan.fits, "the CPU");
        if (size > sizeof whole) {
            options[size - 1] = 1;
            CHECK(gmsrt_engine_select(engine, (void *)options, &plan, sizeof plan) == GMSRT_INVALID_ARGUMENT &&
                      strstr(gmsrt_last_error(), "does not know") != NULL,
                  "%s", gmsrt_last_error());
        }
        free(options);
    }
}

static void write_engine(const char *folder)
{
    static const char text[] =
        "{\"format\": \"gms-rt-engine\", \"version\": 1, \"name\": \"n\", \"precision\": \"fp32\", \"created\": \"\", "
        "\"gms_rt\": \"0.1.0\", \"height\": 4, \"width\": 4, \"batch\": 1, \"model\": \"model.onnx\", \"files\": {}, "
        "\"source\": {}, \"tokenizer\": {}, \"targets\": [\"cpu\"], \"plans\": [], \"census\": {}, \"gate\": null, "
        "\"execution\": \"f32\", \"rebuild\": \"\"}";
    char path[1100];

    mkdir(folder, 0700);
    snprintf(path, sizeof path, "%s/engine.json", folder);
    write_bytes(path, text, sizeof text - 1);
}

/* A result of every size: no byte behind it is written, and its texts end. `text` is where the first begins, or 0. */
static void test_result(init_call give, size_t known, size_t text)
{
    unsigned char *memory;

    for (size_t size = sizeof size; size <= known + 64; size += sizeof(void *)) {
        memory = fresh();
        CHECK_OK(give(memory, size));
        expect_untouched(memory, size);
        CHECK(size_in(memory) == (size < known ? size : known), "a size of %zu", size_in(memory));
        if (text != 0 && size > text) CHECK(memory[(size < known ? size : known) - 1] == 0, "a text does not end");
        for (size_t i = known; i < size; i++) CHECK(memory[i] == 0, "byte %zu is not zero", i);
    }
    CHECK(give(NULL, known) == GMSRT_INVALID_ARGUMENT, "no result");
    memory = fresh();
    CHECK(give(memory, 0) == GMSRT_INVALID_ARGUMENT, "no size");
    CHECK(give(memory, known - 1) == GMSRT_INVALID_ARGUMENT, "half a field");
    CHECK(give(memory, SIZE_MAX - 7) == GMSRT_INVALID_ARGUMENT, "the length of nothing");
    expect_untouched(memory, 0);
}

/* A bench's options of an older program have one sample as their default. */
static void test_bench_options(void)
{
    gmsrt_bench_options options;
    gmsrt_bench_result result;
    gmsrt_sample samples[3];

    gmsrt_bench_options_init(&options, sizeof options);
    options.iterations = 3;
    CHECK_OK(gmsrt_bench(opened, images, 1, &options, samples, 3, &result, sizeof result));
    CHECK(result.samples == 3 && result.struct_size == sizeof result, "%zu samples", result.samples);
    options.struct_size = offsetof(gmsrt_bench_options, iterations);
    CHECK_OK(gmsrt_bench(opened, images, 1, &options, samples, 3, &result, sizeof result));
    CHECK(result.samples == 1, "%zu samples", result.samples);
    options.struct_size = 0;
    CHECK(gmsrt_bench(opened, images, 1, &options, samples, 3, &result, sizeof result) == GMSRT_INVALID_ARGUMENT,
          "options that were never set");
}

int main(int argc, char **argv)
{
    const bytes model = sound_model();
    gmsrt_cpu_options options;

    CHECK(argc == 4, "usage: test_structs FAKE_OPENVINO FAKE_DRIVER FOLDER");
    openvino = realpath(argv[1], NULL);
    CHECK(openvino != NULL, "%s is not there", argv[1]);
    driver = argv[2];
    snprintf(graph, sizeof graph, "%s/structs.onnx", argv[3]);
    write_bytes(graph, model.data, model.size);
    setenv("XDG_CACHE_HOME", "/dev/null", 1); /* another test may have tried an equal graph */
    CHECK(sizeof(gmsrt_status) == 4 && sizeof(gmsrt_backend) == 4 && sizeof(gmsrt_precision) == 4 &&
              sizeof(gmsrt_mode) == 4 && sizeof(gmsrt_trial) == 4,
          "enumerations of four bytes");
    test_init(init_cpu, sizeof(gmsrt_cpu_options));
    test_init(init_cuda, sizeof(gmsrt_cuda_options));
    test_init(init_bench, sizeof(gmsrt_bench_options));
    test_init(init_select, sizeof(gmsrt_select_options));
    test_cpu_options();
    test_cuda_options();
    gmsrt_cpu_options_init(&options, sizeof options);
    options.openvino = openvino;
    options.trial = GMSRT_TRIAL_NEVER;
    CHECK_OK(gmsrt_open_cpu(graph, &options, &opened));
    test_result(give_info, sizeof(gmsrt_info), offsetof(gmsrt_info, execution));
    test_result(give_processor, sizeof(gmsrt_processor), offsetof(gmsrt_processor, name));
    test_result(give_device, sizeof(gmsrt_device), offsetof(gmsrt_device, name));
    test_result(give_bench, sizeof(gmsrt_bench_result), 0);
    test_bench_options();
    gmsrt_close(opened);
    snprintf(graph, sizeof graph, "%s/structs-engine", argv[3]);
    write_engine(graph);
    CHECK_OK(gmsrt_engine_open(graph, &engine));
    test_result(give_engine, sizeof(gmsrt_engine_info), 0);
    test_result(give_class, sizeof(gmsrt_class), 0);
    test_result(give_plan, sizeof(gmsrt_plan), offsetof(gmsrt_plan, reason));
    test_result(give_selected, sizeof(gmsrt_plan), offsetof(gmsrt_plan, reason));
    test_select_options();
    gmsrt_engine_close(engine);
    gmsrt_engine_close(NULL);
    gmsrt_free(NULL);
    free((void *)(uintptr_t)openvino);
    return checks_passed("test_structs");
}
