/* The CPU backend: OpenVINO through its C API, opened at run time.
 *
 * A lane is an infer request with its own input and output tensor. Images are copied into the tensor and masks out of
 * it: that costs some microseconds per megapixel, keeps OpenVINO's alignment, and leaves no pointer to the caller's
 * memory behind. */
#define _XOPEN_SOURCE 700 /* sigaltstack */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "openvino.h"

typedef struct cpu_lane {
    ov_infer_request_t *request;
    ov_tensor_t *input;
    ov_tensor_t *output;
    uint8_t *images;
    uint8_t *masks;
    double start;   /* of the inference */
    double enqueue; /* duration of the asynchronous start */
    double compute; /* duration, when it was run within submit */
    double h2d;
    bool done;
} cpu_lane;

typedef struct cpu_state {
    gmsrt_openvino ov;
    ov_core_t *core;
    ov_compiled_model_t *compiled;
    void *blob; /* what the compiled graph was imported from, where it was */
    uint32_t lane_count;
    cpu_lane lanes[GMSRT_MAX_LANES];
    size_t image_bytes; /* of one image */
    size_t mask_bytes;
    size_t batch;
} cpu_state;

/* A property's value in the caller's buffer; "" if OpenVINO does not tell. */
static void read_property(const cpu_state *state, const char *key, char *text, size_t size)
{
    const gmsrt_openvino *ov = &state->ov;
    char *value = NULL;
    const int code = state->compiled != NULL ? ov->ov_compiled_model_get_property(state->compiled, key, &value)
                                             : ov->ov_core_get_property(state->core, "CPU", key, &value);

    gmsrt_copy_text(text, size, code == 0 ? value : "");
    if (code == 0 && value != NULL) ov->ov_free(value);
}

static uint32_t read_count(const cpu_state *state, const char *key)
{
    char text[32];

    read_property(state, key, text, sizeof text);
    return (uint32_t)strtoul(text, NULL, 10);
}

/* Names and values in turn, with room for the texts of numbers. */
typedef struct properties {
    const char *pairs[8];
    char streams[16], threads[16];
} properties;

/* What is asked of OpenVINO; how many of the pairs' texts are used. */
static size_t choose_properties(const gmsrt_cpu_options *options, properties *wanted)
{
    const bool throughput = options->mode == GMSRT_THROUGHPUT;
    const uint32_t streams = options->lanes > 0 ? options->lanes : throughput ? 0 : 1;
    const char **pairs = wanted->pairs;
    size_t used = 0;

    memset(wanted, 0, sizeof *wanted);
    snprintf(wanted->streams, sizeof wanted->streams, "%u", streams);
    snprintf(wanted->threads, sizeof wanted->threads, "%u", options->threads);
    pairs[used++] = "INFERENCE_PRECISION_HINT";
    pairs[used++] = options->precision == GMSRT_BF16 ? "bf16" : options->precision == GMSRT_F16 ? "f16" : "f32";
    pairs[used++] = "PERFORMANCE_HINT";
    pairs[used++] = throughput ? "THROUGHPUT" : "LATENCY";
    if (streams > 0) {
        pairs[used++] = "NUM_STREAMS";
        pairs[used++] = wanted->streams;
    }
    if (options->threads > 0) {
        pairs[used++] = "INFERENCE_NUM_THREADS";
        pairs[used++] = wanted->threads;
    }
    return used;
}

static gmsrt_status compile(cpu_state *state, const char *path, const ov_model_t *model,
                            const gmsrt_cpu_options *options)
{
    properties wanted;
    const char **pairs = wanted.pairs;
    const size_t used = choose_properties(options, &wanted);
    /* OpenVINO reads only the first `used` of the variable arguments. */
    const int code =
        state->ov.ov_core_compile_model(state->core, model, "CPU", used, &state->compiled, pairs[0], pairs[1], pairs[2],
                                        pairs[3], pairs[4], pairs[5], pairs[6], pairs[7]);

    if (code != 0) {
        char what[512];

        state->compiled = NULL;
        snprintf(what, sizeof what, "%s: OpenVINO cannot compile this graph", path);
        return gmsrt_ov_failed(&state->ov, GMSRT_BAD_GRAPH, code, what);
    }
    return GMSRT_OK;
}

static gmsrt_status open_lane(cpu_state *state, cpu_lane *lane)
{
    const gmsrt_openvino *ov = &state->ov;
    size_t input_bytes = 0, output_bytes = 0;
    void *images = NULL, *masks = NULL;
    int code = ov->ov_compiled_model_create_infer_request(state->compiled, &lane->request);

    if (code == 0) code = ov->ov_infer_request_get_input_tensor(lane->request, &lane->input);
    if (code == 0) code = ov->ov_infer_request_get_output_tensor(lane->request, &lane->output);
    if (code == 0) code = ov->ov_tensor_get_byte_size(lane->input, &input_bytes);
    if (code == 0) code = ov->ov_tensor_get_byte_size(lane->output, &output_bytes);
    if (code == 0) code = ov->ov_tensor_data(lane->input, &images);
    if (code == 0) code = ov->ov_tensor_data(lane->output, &masks);
    if (code != 0) return gmsrt_ov_failed(ov, GMSRT_RUNTIME_FAILED, code, "OpenVINO cannot prepare an inference");
    if (input_bytes != state->batch * state->image_bytes || output_bytes != state->batch * state->mask_bytes)
        return gmsrt_fail(GMSRT_RUNTIME_FAILED, "OpenVINO's tensors have %zu and %zu bytes instead of %zu and %zu",
                          input_bytes, output_bytes, state->batch * state->image_bytes,
                          state->batch * state->mask_bytes);
    lane->images = images;
    lane->masks = masks;
    return GMSRT_OK;
}

static void free_state(cpu_state *state)
{
    const gmsrt_openvino *ov = &state->ov;

    for (uint32_t i = 0; i < state->lane_count; i++) {
        if (state->lanes[i].input != NULL) ov->ov_tensor_free(state->lanes[i].input);
        if (state->lanes[i].output != NULL) ov->ov_tensor_free(state->lanes[i].output);
        if (state->lanes[i].request != NULL) ov->ov_infer_request_free(state->lanes[i].request);
    }
    if (state->compiled != NULL) ov->ov_compiled_model_free(state->compiled);
    if (state->core != NULL) ov->ov_core_free(state->core);
    free(state->blob);
    free(state);
}

static gmsrt_status cpu_submit(gmsrt_runner *runner, uint32_t index, const uint8_t *images, size_t count, bool alone)
{
    cpu_state *state = runner->state;
    cpu_lane *lane = &state->lanes[index];
    const double start = gmsrt_now();
    int code;

    memcpy(lane->images, images, count * state->image_bytes);
    if (count < state->batch)
        memset(lane->images + count * state->image_bytes, 0, (state->batch - count) * state->image_bytes);
    lane->start = gmsrt_now();
    lane->h2d = lane->start - start;
    /* Alone, the calling thread works itself: no hand-over between threads. */
    code =
        alone ? state->ov.ov_infer_request_infer(lane->request) : state->ov.ov_infer_request_start_async(lane->request);
    lane->compute = gmsrt_now() - lane->start;
    lane->enqueue = alone ? 0.0 : lane->compute;
    lane->done = alone;
    if (code != 0) return gmsrt_ov_failed(&state->ov, GMSRT_RUNTIME_FAILED, code, "the inference failed");
    return GMSRT_OK;
}

static gmsrt_status cpu_finish(gmsrt_runner *runner, uint32_t index, uint8_t *masks, size_t count, gmsrt_sample *sample)
{
    cpu_state *state = runner->state;
    cpu_lane *lane = &state->lanes[index];
    double computed;

    if (!lane->done) {
        const int code = state->ov.ov_infer_request_wait(lane->request);

        if (code != 0) return gmsrt_ov_failed(&state->ov, GMSRT_RUNTIME_FAILED, code, "the inference failed");
        lane->compute = gmsrt_now() - lane->start;
    }
    computed = gmsrt_now();
    if (masks != NULL) memcpy(masks, lane->masks, count * state->mask_bytes);
    if (sample != NULL) {
        sample->h2d = lane->h2d;
        sample->compute = lane->compute;
        sample->d2h = gmsrt_now() - computed;
        sample->enqueue = lane->enqueue;
        sample->total = sample->h2d + sample->compute + sample->d2h;
    }
    return GMSRT_OK;
}

static void cpu_close(gmsrt_runner *runner)
{
    free_state(runner->state);
}

static const gmsrt_backend_hooks cpu_hooks = {cpu_submit, cpu_finish, NULL, NULL, cpu_close};

/* Load OpenVINO, find out what it and the CPU are, and whether that has the arithmetic. An engine that falls
 * back runs in f32 where there is none: its graph is the same, and was judged in f32 or is closer to its reference. The
 * caller's own wish is refused. */
static gmsrt_status start(cpu_state *state, gmsrt_cpu_options *options, bool falls_back, gmsrt_info *info)
{
    const gmsrt_openvino *ov = &state->ov;
    gmsrt_processor about;
    const gmsrt_status status = gmsrt_ov_load(options->openvino, &state->ov);
    int code;

    if (status != GMSRT_OK) return status;
    if ((code = ov->ov_core_create(&state->core)) != 0)
        return gmsrt_ov_failed(ov, GMSRT_NO_RUNTIME, code, "OpenVINO does not start");
    gmsrt_ov_describe(ov, state->core, &about);
    gmsrt_copy_text(info->device, sizeof info->device, about.name);
    gmsrt_copy_text(info->runtime, sizeof info->runtime, about.runtime);
    if ((options->precision == GMSRT_BF16 && !about.bf16) || (options->precision == GMSRT_F16 && !about.f16)) {
        if (falls_back) {
            options->precision = GMSRT_F32;
            return GMSRT_OK;
        }
        return gmsrt_fail(GMSRT_UNSUPPORTED, "this CPU (%s) has no %s arithmetic; use f32", info->device,
                          options->precision == GMSRT_F16 ? "f16" : "bf16");
    }
    return GMSRT_OK;
}

/* The compiled graph as it was kept; false if there is none that can be used. */
static bool take_compiled(cpu_state *state, const gmsrt_cache *cache, const gmsrt_cpu_options *options,
                          gmsrt_info *info)
{
    properties wanted;
    const size_t used = choose_properties(options, &wanted);

    if (cache->folder < 0) return false;
    /* The C API has no properties for an import: it takes those of the core. */
    for (size_t i = 0; i < used; i += 2)
        if (state->ov.ov_core_set_property(state->core, "CPU", wanted.pairs[i], wanted.pairs[i + 1]) != 0) return false;
    state->compiled = gmsrt_cache_find(cache, &state->ov, state->core, info, &state->blob);
    return state->compiled != NULL;
}

static gmsrt_status read_and_compile(cpu_state *state, const char *path, const gmsrt_files *files,
                                     const gmsrt_cpu_options *options, gmsrt_info *info)
{
    const gmsrt_openvino *ov = &state->ov;
    ov_model_t *model = NULL;
    gmsrt_status status;
    const bool ir = files->bytes == NULL && gmsrt_is_ir(path);
    char constants[4096 + 8];
    int code;

    if (ir && !gmsrt_ir_constants(path, constants, sizeof constants))
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "the path of the graph is too long");
    code = files->bytes != NULL
               ? ov->ov_core_read_model_from_memory_buffer(state->core, files->bytes, files->size, NULL, &model)
               : ov->ov_core_read_model(state->core, path, ir ? constants : NULL, &model);
    if (code != 0) {
        char what[512];

        snprintf(what, sizeof what, "%s: OpenVINO cannot read this graph", path);
        return gmsrt_ov_failed(ov, GMSRT_BAD_GRAPH, code, what);
    }
    status = gmsrt_ov_fit_model(ov, state->core, path, model, options->batch, info);
    if (status == GMSRT_OK) status = compile(state, path, model, options);
    ov->ov_model_free(model);
    return status;
}

/* The lanes of the compiled graph, after OpenVINO was asked what it made of the options. */
static gmsrt_status open_lanes(cpu_state *state, const gmsrt_cpu_options *options, gmsrt_info *info)
{
    gmsrt_status status = GMSRT_OK;

    read_property(state, "INFERENCE_PRECISION_HINT", info->execution, sizeof info->execution);
    info->threads = read_count(state, "INFERENCE_NUM_THREADS");
    info->lanes = options->lanes > 0 ? options->lanes : 1;
    if (options->lanes == 0 && options->mode == GMSRT_THROUGHPUT)
        info->lanes = read_count(state, "OPTIMAL_NUMBER_OF_INFER_REQUESTS");
    if (info->lanes < 1) info->lanes = 1;
    if (info->lanes > GMSRT_MAX_LANES) info->lanes = GMSRT_MAX_LANES;
    state->batch = info->batch;
    state->mask_bytes = (size_t)info->height * info->width;
    state->image_bytes = state->mask_bytes * 3;
    state->lane_count = info->lanes;
    for (uint32_t i = 0; i < state->lane_count && status == GMSRT_OK; i++) status = open_lane(state, &state->lanes[i]);
    return status;
}

static gmsrt_status open_graph(cpu_state *state, const char *path, gmsrt_files *files, const gmsrt_cpu_options *options,
                               gmsrt_info *info, bool *kept)
{
    gmsrt_status status = GMSRT_OK;
    char abilities[512] = "";
    gmsrt_cache cache;

    if (options->cache != NULL) read_property(state, "OPTIMIZATION_CAPABILITIES", abilities, sizeof abilities);
    gmsrt_cache_open(&cache, path, files, options, info, abilities);
    *kept = take_compiled(state, &cache, options, info);
    if (!*kept) status = read_and_compile(state, path, files, options, info);
    if (status == GMSRT_OK) status = open_lanes(state, options, info);
    if (status == GMSRT_OK && !*kept) gmsrt_cache_keep(&cache, &state->ov, state->compiled, path, files, info);
    gmsrt_cache_close(&cache);
    return status;
}

/* What was done and cannot be seen from outside. */
static void log_opened(const gmsrt_info *info, const char *path, bool kept, gmsrt_precision built)
{
    if (built == GMSRT_BF16 || built == GMSRT_F16) {
        const char *word = built == GMSRT_F16 ? "f16" : "bf16";

        if (strcmp(info->execution, word) != 0)
            gmsrt_log(GMSRT_LOG_WARNING, "%s was built to run in %s, which OpenVINO does not have on %s: it runs in %s",
                      path, word, info->device, info->execution);
    }
    gmsrt_log(GMSRT_LOG_INFO, "opened %s in %.0f ms (%s): %s on %s, %s, %u lanes", path, info->open_ms,
              kept ? "compiled before" : "compiled now", info->runtime, info->device, info->execution, info->lanes);
}

static gmsrt_status stopped(const char *path)
{
    return gmsrt_fail(GMSRT_CANCELLED, "%s: opening it was given up", path);
}

gmsrt_status gmsrt_cpu_open_now(const gmsrt_source *source, const gmsrt_cpu_options *given, gmsrt_runner **runner)
{
    const double began = gmsrt_now();
    double trial;
    gmsrt_cpu_options options = *given;
    gmsrt_built built;
    gmsrt_info info;
    cpu_state *state = NULL;
    gmsrt_files files;
    stack_t signals;
    char *path = NULL;
    gmsrt_status status;
    bool opened = false, kept = false, as_built;
    /* OpenVINO gives the calling thread a signal stack of its own, and frees it with the runtime: after runtimes that
     * were not closed in reverse order a signal would be handled on freed memory. */
    const bool known = sigaltstack(NULL, &signals) == 0;

    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    info.backend = GMSRT_CPU;
    status = source->bytes != NULL ? gmsrt_take_graph(source->path, source->bytes, source->size, &path, &files, &built)
                                   : gmsrt_find_graph(source->path, &path, &files, &built);
    as_built = options.precision == GMSRT_AS_BUILT;
    if (as_built) options.precision = built.precision;
    if (status == GMSRT_OK && (runner != NULL || options.trial != GMSRT_TRIAL_NEVER)) {
        state = calloc(1, sizeof *state);
        status = state != NULL ? start(state, &options, as_built && built.falls_back, &info)
                               : gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory");
        trial = gmsrt_now();
        if (status == GMSRT_OK)
            status = gmsrt_try_graph(path, &files, &options, state->ov.file, info.runtime, info.device);
        trial = gmsrt_now() - trial;
        if (status == GMSRT_OK && gmsrt_is_stopped()) status = stopped(path);
        if (status == GMSRT_OK && runner != NULL) {
            status = open_graph(state, path, &files, &options, &info, &kept);
            /* OpenVINO reads the files by their names: they must still be those that were hashed and tried. */
            if (status == GMSRT_OK) status = gmsrt_files_same(&files, path);
            info.open_ms = gmsrt_now() - began - trial;
            if (status == GMSRT_OK) status = gmsrt_runner_create(&cpu_hooks, state, &info, runner);
            opened = status == GMSRT_OK;
        }
    }
    if (opened) log_opened(&info, path, kept, as_built ? built.precision : GMSRT_F32);
    gmsrt_files_free(&files);
    free(path);
    if (!opened && state != NULL) free_state(state);
    if (known) sigaltstack(&signals, NULL);
    return status;
}
