/* The CPU backend: OpenVINO through its C API, opened at run time.
 *
 * A lane is an infer request with its own input and output tensor. Images are copied into the tensor and masks out of
 * it: that costs some microseconds a megapixel, keeps OpenVINO's alignment, and leaves no pointer to the caller's
 * memory behind. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "internal.h"
#include "openvino_api.h"

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
    uint32_t lane_count;
    cpu_lane lanes[GMSRT_MAX_LANES];
    size_t image_bytes; /* of one image */
    size_t mask_bytes;
    size_t batch;
} cpu_state;

/* An ONNX model "b = Identity(a)", a: uint8 [1]. Its element type is this OpenVINO's number for uint8. */
static const char uint8_model[] = "\x08\x08"         /* IR version 8 */
                                  "\x42\x02\x10\x0d" /* opset 13 */
                                  "\x3a\x37"         /* graph */
                                  "\x0a\x10\x0a\x01\x61\x12\x01\x62\x22\x08Identity"
                                  "\x12\x01p"
                                  "\x5a\x0f\x0a\x01\x61\x12\x0a\x0a\x08\x08\x02\x12\x04\x0a\x02\x08\x01"
                                  "\x62\x0f\x0a\x01\x62\x12\x0a\x0a\x08\x08\x02\x12\x04\x0a\x02\x08\x01";

static gmsrt_status load_openvino(const char *path, gmsrt_openvino *ov)
{
    static const char fix[] = "install it (pip install openvino) and give the path of its libopenvino_c.so, "
                              "also as GMSRT_OPENVINO";
    const char *chosen = path != NULL ? path : getenv("GMSRT_OPENVINO");
    void *library;

    if (chosen == NULL || chosen[0] == '\0') chosen = "libopenvino_c.so";
    /* Never closed: its threads and static objects outlive a runner. */
    library = dlopen(chosen, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) return gmsrt_fail(GMSRT_NO_RUNTIME, "OpenVINO cannot be loaded: %s; %s", dlerror(), fix);
#define RESOLVE(name, result, arguments)                                                                               \
    *(void **)&ov->name = dlsym(library, #name);                                                                       \
    if (ov->name == NULL)                                                                                              \
        return gmsrt_fail(GMSRT_NO_RUNTIME, "%s has no function %s; it is not OpenVINO 2025.2 or newer", chosen, #name);
    GMSRT_OPENVINO_FUNCTIONS(RESOLVE)
#undef RESOLVE
    return GMSRT_OK;
}

/* OpenVINO's words without the lines that name its own source files, as one line. */
static void plain_words(const char *words, char *text, size_t size)
{
    size_t used = 0;

    text[0] = '\0';
    while (*words != '\0') {
        const size_t length = strcspn(words, "\n");
        const bool internal = strncmp(words, "Exception from ", 15) == 0 || strncmp(words, "Check '", 7) == 0;

        if (length > 0 && !internal && used + length + 2 < size) {
            if (used > 0) text[used++] = ' ';
            memcpy(text + used, words, length);
            used += length;
            text[used] = '\0';
        }
        words += length + (words[length] == '\n');
    }
}

/* A failed OpenVINO call, with OpenVINO's own words. They are per process there, so under concurrent failures the
 * words may be another thread's; the status and `what` are always this call's. */
static gmsrt_status ov_failed(const gmsrt_openvino *ov, gmsrt_status status, int code, const char *what)
{
    const char *words = ov->ov_get_last_err_msg();
    char text[800] = "";

    if (words != NULL) plain_words(words, text, sizeof text);
    if (text[0] != '\0')
        gmsrt_fail(status, "%s: %s", what, text);
    else
        gmsrt_fail(status, "%s: %s (%d)", what, ov->ov_get_error_info(code), code);
    if (words != NULL) ov->ov_free(words);
    return status;
}

/* Shape and element type of the only input or output. */
typedef struct port_facts {
    unsigned element_type;
    int64_t rank; /* -1: not fixed */
    gmsrt_ov_dimension dims[4];
} port_facts;

static gmsrt_status read_port(const gmsrt_openvino *ov, const ov_model_t *model, bool input, port_facts *facts)
{
    const char *what = input ? "the graph's input cannot be read" : "the graph's output cannot be read";
    ov_output_const_port_t *port = NULL;
    gmsrt_ov_partial_shape shape = {{0, 0}, NULL};
    int code = input ? ov->ov_model_const_input(model, &port) : ov->ov_model_const_output(model, &port);

    memset(facts, 0, sizeof *facts);
    if (code == 0) code = ov->ov_port_get_element_type(port, &facts->element_type);
    if (code == 0) code = ov->ov_port_get_partial_shape(port, &shape);
    if (code == 0) {
        facts->rank = shape.rank.min == shape.rank.max ? shape.rank.min : -1;
        for (int64_t i = 0; i < facts->rank && i < 4; i++) facts->dims[i] = shape.dims[i];
        ov->ov_partial_shape_free(&shape);
    }
    if (port != NULL) ov->ov_output_const_port_free(port);
    return code == 0 ? GMSRT_OK : ov_failed(ov, GMSRT_BAD_GRAPH, code, what);
}

static gmsrt_status find_uint8(const gmsrt_openvino *ov, const ov_core_t *core, unsigned *uint8_type)
{
    ov_model_t *model = NULL;
    port_facts facts;
    gmsrt_status status;
    const int code = ov->ov_core_read_model_from_memory_buffer(core, uint8_model, sizeof uint8_model - 1, NULL, &model);

    if (code != 0) return ov_failed(ov, GMSRT_NO_RUNTIME, code, "this OpenVINO cannot read ONNX");
    status = read_port(ov, model, true, &facts);
    *uint8_type = facts.element_type;
    ov->ov_model_free(model);
    return status;
}

static bool is_fixed(gmsrt_ov_dimension dimension)
{
    return dimension.min == dimension.max && dimension.min > 0;
}

static bool fits_channels(const port_facts *facts, int64_t channels)
{
    return is_fixed(facts->dims[3]) && facts->dims[3].min == channels;
}

static gmsrt_status describe_misfit(const char *path, const port_facts *facts, bool input, bool is_uint8)
{
    char shape[160] = "of no fixed rank";

    if (facts->rank >= 0) {
        int at = snprintf(shape, sizeof shape, "[");

        for (int64_t i = 0; i < facts->rank && i < 4; i++) {
            const char *comma = i == 0 ? "" : ", ";

            if (is_fixed(facts->dims[i]))
                at += snprintf(shape + at, sizeof shape - (size_t)at, "%s%lld", comma, (long long)facts->dims[i].min);
            else
                at += snprintf(shape + at, sizeof shape - (size_t)at, "%s?", comma);
        }
        snprintf(shape + at, sizeof shape - (size_t)at, facts->rank > 4 ? ", …]" : "]");
    }
    return gmsrt_fail(GMSRT_BAD_GRAPH, "%s: the %s is %s %s, wanted is uint8 %s", path, input ? "input" : "output",
                      is_uint8 ? "uint8" : "not uint8 but another type,", shape,
                      input ? "[N, height, width, 3]" : "[N, height, width, 1] of the input's N, height and width");
}

/* Check the contract of the graph and give a free batch dimension its size. */
static gmsrt_status fit_model(const cpu_state *state, const char *path, ov_model_t *model, uint32_t wanted_batch,
                              gmsrt_info *info)
{
    const gmsrt_openvino *ov = &state->ov;
    size_t inputs = 0, outputs = 0;
    unsigned uint8_type = 0;
    port_facts in, out;
    gmsrt_status status = find_uint8(ov, state->core, &uint8_type);
    int counted;

    if (status != GMSRT_OK) return status;
    counted = ov->ov_model_inputs_size(model, &inputs);
    if (counted == 0) counted = ov->ov_model_outputs_size(model, &outputs);
    if (counted != 0) return ov_failed(ov, GMSRT_BAD_GRAPH, counted, "inputs and outputs of the graph cannot be read");
    if (inputs != 1 || outputs != 1)
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s has %zu inputs and %zu outputs, wanted is one of each", path, inputs,
                          outputs);
    if ((status = read_port(ov, model, true, &in)) != GMSRT_OK) return status;
    if (in.rank != 4 || in.element_type != uint8_type || !is_fixed(in.dims[1]) || !is_fixed(in.dims[2]) ||
        !fits_channels(&in, 3))
        return describe_misfit(path, &in, true, in.element_type == uint8_type);
    if (!is_fixed(in.dims[0])) {
        const int64_t batch = wanted_batch > 0 ? (int64_t)wanted_batch : 1;
        gmsrt_ov_dimension dims[4] = {{batch, batch}, in.dims[1], in.dims[2], in.dims[3]};
        gmsrt_ov_partial_shape shape = {{0, 0}, NULL};
        int code = ov->ov_partial_shape_create(4, dims, &shape);

        if (code == 0) {
            code = ov->ov_model_reshape_single_input(model, shape);
            ov->ov_partial_shape_free(&shape);
        }
        if (code != 0) return ov_failed(ov, GMSRT_BAD_GRAPH, code, "the graph cannot take this batch size");
        in.dims[0] = dims[0];
    } else if (wanted_batch != 0 && in.dims[0].min != (int64_t)wanted_batch) {
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "%s: batch %u was asked, the graph's is fixed at %lld", path,
                          wanted_batch, (long long)in.dims[0].min);
    }
    if (!gmsrt_shape_is_sane((uint64_t)in.dims[0].min, (uint64_t)in.dims[1].min, (uint64_t)in.dims[2].min))
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s: an input of %lld x %lld x %lld x 3 is too large", path,
                          (long long)in.dims[0].min, (long long)in.dims[1].min, (long long)in.dims[2].min);
    if ((status = read_port(ov, model, false, &out)) != GMSRT_OK) return status;
    if (out.element_type != uint8_type || (out.rank != 3 && !(out.rank == 4 && fits_channels(&out, 1))))
        return describe_misfit(path, &out, false, out.element_type == uint8_type);
    for (int i = 0; i < 3; i++)
        if (!is_fixed(out.dims[i]) || out.dims[i].min != in.dims[i].min)
            return describe_misfit(path, &out, false, true);
    info->batch = (uint32_t)in.dims[0].min;
    info->height = (uint32_t)in.dims[1].min;
    info->width = (uint32_t)in.dims[2].min;
    return GMSRT_OK;
}

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

static gmsrt_status compile(cpu_state *state, const char *path, const ov_model_t *model,
                            const gmsrt_cpu_options *options)
{
    const bool throughput = options->mode == GMSRT_THROUGHPUT;
    const uint32_t streams = options->lanes > 0 ? options->lanes : throughput ? 0 : 1;
    char stream_text[16], thread_text[16];
    const char *pairs[10] = {
        "INFERENCE_PRECISION_HINT",
        options->precision == GMSRT_BF16 ? "bf16" : "f32",
        "PERFORMANCE_HINT",
        throughput ? "THROUGHPUT" : "LATENCY",
    };
    size_t used = 4;
    int code;

    snprintf(stream_text, sizeof stream_text, "%u", streams);
    snprintf(thread_text, sizeof thread_text, "%u", options->threads);
    if (streams > 0) {
        pairs[used++] = "NUM_STREAMS";
        pairs[used++] = stream_text;
    }
    if (options->threads > 0) {
        pairs[used++] = "INFERENCE_NUM_THREADS";
        pairs[used++] = thread_text;
    }
    if (options->cache != NULL) {
        pairs[used++] = "CACHE_DIR";
        pairs[used++] = options->cache;
    }
    /* OpenVINO reads only the first `used` of the variable arguments. */
    code =
        state->ov.ov_core_compile_model(state->core, model, "CPU", used, &state->compiled, pairs[0], pairs[1], pairs[2],
                                        pairs[3], pairs[4], pairs[5], pairs[6], pairs[7], pairs[8], pairs[9]);
    if (code != 0) {
        char what[512];

        state->compiled = NULL;
        snprintf(what, sizeof what, "%s: OpenVINO cannot compile this graph", path);
        return ov_failed(&state->ov, GMSRT_BAD_GRAPH, code, what);
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
    if (code != 0) return ov_failed(ov, GMSRT_RUNTIME_FAILED, code, "OpenVINO cannot prepare an inference");
    if (input_bytes != state->batch * state->image_bytes || output_bytes != state->batch * state->mask_bytes)
        return gmsrt_fail(GMSRT_RUNTIME_FAILED, "OpenVINO's tensors hold %zu and %zu bytes, expected are %zu and %zu",
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
    if (code != 0) return ov_failed(&state->ov, GMSRT_RUNTIME_FAILED, code, "the inference failed");
    return GMSRT_OK;
}

static gmsrt_status cpu_finish(gmsrt_runner *runner, uint32_t index, uint8_t *masks, size_t count, gmsrt_sample *sample)
{
    cpu_state *state = runner->state;
    cpu_lane *lane = &state->lanes[index];
    double computed;

    if (!lane->done) {
        const int code = state->ov.ov_infer_request_wait(lane->request);

        if (code != 0) return ov_failed(&state->ov, GMSRT_RUNTIME_FAILED, code, "the inference failed");
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

static gmsrt_status check_options(const gmsrt_cpu_options *options)
{
    struct stat about;

    if (options->struct_size != sizeof *options)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT,
                          "gmsrt_cpu_options has %zu bytes, wanted are %zu; call gmsrt_cpu_options_default first",
                          options->struct_size, sizeof *options);
    if (options->precision != GMSRT_F32 && options->precision != GMSRT_BF16)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "precision %d is neither GMSRT_F32 nor GMSRT_BF16",
                          (int)options->precision);
    if (options->mode != GMSRT_LATENCY && options->mode != GMSRT_THROUGHPUT)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "mode %d is neither GMSRT_LATENCY nor GMSRT_THROUGHPUT",
                          (int)options->mode);
    if (options->lanes > GMSRT_MAX_LANES)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "%u lanes asked, at most %u can be open", options->lanes,
                          GMSRT_MAX_LANES);
    if (options->threads > 4096) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "%u threads are too many", options->threads);
    if (options->batch > GMSRT_MAX_BATCH)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "batch %u is too large, at most %u", options->batch, GMSRT_MAX_BATCH);
    if (options->trial != GMSRT_TRIAL_AUTO && options->trial != GMSRT_TRIAL_ALWAYS &&
        options->trial != GMSRT_TRIAL_NEVER)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT,
                          "trial %d is neither GMSRT_TRIAL_AUTO nor GMSRT_TRIAL_ALWAYS nor GMSRT_TRIAL_NEVER",
                          (int)options->trial);
    if (options->trial_seconds > 1000000)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "a trial of %u seconds is too long", options->trial_seconds);
    if (options->cache != NULL && (stat(options->cache, &about) != 0 || !S_ISDIR(about.st_mode)))
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "the cache %s is not a folder; create it", options->cache);
    return GMSRT_OK;
}

/* Load OpenVINO and find out what it and the CPU are. */
static gmsrt_status start(cpu_state *state, const gmsrt_cpu_options *options, gmsrt_info *info)
{
    const gmsrt_openvino *ov = &state->ov;
    gmsrt_ov_version version = {NULL, NULL};
    const gmsrt_status status = load_openvino(options->openvino, &state->ov);
    int code;

    if (status != GMSRT_OK) return status;
    if ((code = ov->ov_core_create(&state->core)) != 0)
        return ov_failed(ov, GMSRT_NO_RUNTIME, code, "OpenVINO does not start");
    read_property(state, "FULL_DEVICE_NAME", info->device, sizeof info->device);
    if (options->precision == GMSRT_BF16) {
        char abilities[512];

        read_property(state, "OPTIMIZATION_CAPABILITIES", abilities, sizeof abilities);
        if (strstr(abilities, "BF16") == NULL)
            return gmsrt_fail(GMSRT_UNSUPPORTED, "this CPU (%s) has no bf16 arithmetic; use f32", info->device);
    }
    if (ov->ov_get_openvino_version(&version) == 0) {
        char text[sizeof info->runtime];

        snprintf(text, sizeof text, "OpenVINO %s", version.build != NULL ? version.build : "");
        gmsrt_copy_text(info->runtime, sizeof info->runtime, text);
        ov->ov_version_free(&version);
    }
    return GMSRT_OK;
}

static gmsrt_status open_graph(cpu_state *state, const char *path, const gmsrt_cpu_options *options, gmsrt_info *info)
{
    const gmsrt_openvino *ov = &state->ov;
    ov_model_t *model = NULL;
    gmsrt_status status;
    int code;

    code = ov->ov_core_read_model(state->core, path, NULL, &model);
    if (code != 0) {
        char what[512];

        snprintf(what, sizeof what, "%s: OpenVINO cannot read this graph", path);
        return ov_failed(ov, GMSRT_BAD_GRAPH, code, what);
    }
    status = fit_model(state, path, model, options->batch, info);
    if (status == GMSRT_OK) status = compile(state, path, model, options);
    ov->ov_model_free(model);
    if (status != GMSRT_OK) return status;

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

void gmsrt_cpu_options_default(gmsrt_cpu_options *options)
{
    if (options == NULL) return;
    memset(options, 0, sizeof *options);
    options->struct_size = sizeof *options;
}

gmsrt_status gmsrt_open_cpu(const char *graph, const gmsrt_cpu_options *options, gmsrt_runner **runner)
{
    const double began = gmsrt_now();
    double trial;
    gmsrt_cpu_options defaults;
    gmsrt_info info;
    cpu_state *state = NULL;
    gmsrt_files files;
    char *path = NULL;
    gmsrt_status status;
    bool opened = false;

    if (runner != NULL) *runner = NULL;
    if (graph == NULL) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_open_cpu: a null pointer");
    gmsrt_cpu_options_default(&defaults);
    if (options == NULL) options = &defaults;
    if ((status = check_options(options)) != GMSRT_OK) return status;

    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    info.backend = GMSRT_CPU;
    status = gmsrt_find_graph(graph, &path, &files);
    if (status == GMSRT_OK && (runner != NULL || options->trial != GMSRT_TRIAL_NEVER)) {
        state = calloc(1, sizeof *state);
        status = state != NULL ? start(state, options, &info) : gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory");
        trial = gmsrt_now();
        if (status == GMSRT_OK) status = gmsrt_try_graph(path, &files, options, info.runtime, info.device);
        trial = gmsrt_now() - trial;
        if (status == GMSRT_OK && runner != NULL) {
            status = open_graph(state, path, options, &info);
            info.open_ms = gmsrt_now() - began - trial;
            if (status == GMSRT_OK) status = gmsrt_runner_create(&cpu_hooks, state, &info, runner);
            opened = status == GMSRT_OK;
        }
    }
    gmsrt_files_free(&files);
    free(path);
    if (!opened && state != NULL) free_state(state);
    return status;
}
