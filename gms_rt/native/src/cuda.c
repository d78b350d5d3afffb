/* The CUDA backend: CUDA-graph replay over the driver API, opened at run time.
 *
 * A lane is a stream with its own buffers and its own graph. One inference is: copy to the device, graph launch, copy
 * back, with an event before, between and after; the copies stay outside the graph so that they can be timed. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cuda_driver.h"

#define WAIT_MS 60000u
#define SPIN_MS 20.0 /* as the driver does; what takes longer loses nothing by a short sleep */

typedef struct cuda_lane {
    gmsrt_cuda_lane seen; /* what the callbacks see */
    gmsrt_cu_stream stream;
    gmsrt_cu_pointer images;
    gmsrt_cu_pointer masks;
    uint8_t *host_images; /* pinned */
    uint8_t *host_masks;
    gmsrt_cu_event before, sent, computed, received;
    gmsrt_cu_exec exec;
    double enqueue; /* host milliseconds of the launch */
} cuda_lane;

typedef struct cuda_state {
    gmsrt_cuda cu;
    gmsrt_cuda_options options;
    int device;
    gmsrt_cu_context context; /* primary, retained */
    bool used_callbacks;
    int lost;  /* atomic: the code that ended the context */
    bool hung; /* atomic: something on the device does not end */
    char notice[sizeof((gmsrt_info *)NULL)->notice];
    uint32_t lane_count;
    cuda_lane lanes[GMSRT_MAX_LANES];
    size_t image_bytes, mask_bytes; /* of one image */
} cuda_state;

/* gmsrt_cu_failed for an opened runner: remembers when the context is gone. */
static gmsrt_status lane_failed(cuda_state *state, unsigned code, const char *what)
{
    if (gmsrt_cu_ends_context(code)) __atomic_store_n(&state->lost, (int)code, __ATOMIC_RELEASE);
    return gmsrt_cu_failed(&state->cu, code, what);
}

static bool is_hung(const cuda_state *state)
{
    return __atomic_load_n(&state->hung, __ATOMIC_ACQUIRE);
}

/* Wait for an event, or for a whole stream where it is NULL, at most for wait_ms: then the code is NOT_READY. */
static unsigned wait_for(cuda_state *state, gmsrt_cu_stream stream, gmsrt_cu_event event)
{
    const gmsrt_cuda *cu = &state->cu;
    const double start = gmsrt_now(), limit = state->options.wait_ms;
    const struct timespec moment = {0, 100000};

    if (is_hung(state)) return GMSRT_CU_NOT_READY;
    if (limit <= 0) return event != NULL ? cu->cuEventSynchronize(event) : cu->cuStreamSynchronize(stream);
    for (;;) {
        const unsigned code = event != NULL ? cu->cuEventQuery(event) : cu->cuStreamQuery(stream);
        const double waited = gmsrt_now() - start;

        if (code != GMSRT_CU_NOT_READY) return code;
        if (waited >= limit) {
            __atomic_store_n(&state->hung, true, __ATOMIC_RELEASE);
            return code;
        }
        if (waited < SPIN_MS)
            sched_yield();
        else
            nanosleep(&moment, NULL);
    }
}

static gmsrt_status hung_status(const cuda_state *state)
{
    return gmsrt_fail(GMSRT_DEVICE_HUNG,
                      "the device gave no result within %u ms (wait_ms): a kernel does not end; close this "
                      "runner and end the process",
                      state->options.wait_ms);
}

/* The status of a wait. */
static gmsrt_status wait_failed(cuda_state *state, unsigned code, const char *what)
{
    return code == GMSRT_CU_NOT_READY ? hung_status(state) : lane_failed(state, code, what);
}

/* Free whatever a lane has; errors are of no use any more. */
static void free_lane(const gmsrt_cuda *cu, cuda_lane *lane)
{
    if (lane->before != NULL) cu->cuEventDestroy_v2(lane->before);
    if (lane->sent != NULL) cu->cuEventDestroy_v2(lane->sent);
    if (lane->computed != NULL) cu->cuEventDestroy_v2(lane->computed);
    if (lane->received != NULL) cu->cuEventDestroy_v2(lane->received);
    if (lane->host_images != NULL) cu->cuMemFreeHost(lane->host_images);
    if (lane->host_masks != NULL) cu->cuMemFreeHost(lane->host_masks);
    if (lane->images != 0) cu->cuMemFree_v2(lane->images);
    if (lane->masks != 0) cu->cuMemFree_v2(lane->masks);
    if (lane->stream != NULL) cu->cuStreamDestroy_v2(lane->stream);
    memset(lane, 0, sizeof *lane);
}

static void free_state(cuda_state *state)
{
    const gmsrt_cuda *cu = &state->cu;
    gmsrt_cu_context popped;

    /* Whatever frees memory of a device that hangs waits for it, and so would a destructor that release calls. */
    if (state->context != NULL && !is_hung(state)) {
        /* Without the context nothing can be freed one by one; releasing the context takes everything along. */
        const bool pushed = cu->cuCtxPushCurrent_v2(state->context) == GMSRT_CU_SUCCESS;

        for (uint32_t i = 0; pushed && i < state->lane_count; i++) {
            if (state->lanes[i].stream != NULL) cu->cuStreamSynchronize(state->lanes[i].stream);
            if (state->lanes[i].exec != NULL) cu->cuGraphExecDestroy(state->lanes[i].exec);
        }
        if (state->used_callbacks && state->options.release != NULL) state->options.release(state->options.user);
        for (uint32_t i = 0; pushed && i < state->lane_count; i++) free_lane(cu, &state->lanes[i]);
        if (pushed) cu->cuCtxPopCurrent_v2(&popped);
        cu->cuDevicePrimaryCtxRelease_v2(state->device);
    }
    free(state);
}

static gmsrt_status call_enqueue(cuda_state *state, const cuda_lane *lane)
{
    const int result = state->options.enqueue(state->options.user, &lane->seen);

    if (result == 0) return GMSRT_OK;
    return gmsrt_fail(GMSRT_CALLBACK_FAILED, "enqueue on lane %u returned %d", lane->seen.index, result);
}

/* Queue one inference and wait for it. */
static gmsrt_status run_once(cuda_state *state, cuda_lane *lane)
{
    const gmsrt_status status = call_enqueue(state, lane);
    const unsigned code = wait_for(state, lane->stream, NULL);

    if (status != GMSRT_OK) return status;
    return code == GMSRT_CU_SUCCESS ? GMSRT_OK : wait_failed(state, code, "the warm-up failed");
}

static gmsrt_status warm_up(cuda_state *state, cuda_lane *lane)
{
    const gmsrt_cuda *cu = &state->cu;
    const size_t bytes = state->options.batch * state->image_bytes;
    gmsrt_status status = GMSRT_OK;
    unsigned code;

    memset(lane->host_images, 0, bytes);
    code = cu->cuMemcpyHtoDAsync_v2(lane->images, lane->host_images, bytes, lane->stream);
    if (code != GMSRT_CU_SUCCESS) return lane_failed(state, code, "the first copy to the device failed");
    for (uint32_t i = 0; status == GMSRT_OK && i < state->options.warmup; i++) status = run_once(state, lane);
    return status;
}

/* Capture a lane's graph. `empty` where enqueue queued nothing on the lane's stream: then it is wrong without, too. */
static gmsrt_status capture(cuda_state *state, cuda_lane *lane, bool *empty)
{
    const gmsrt_cuda *cu = &state->cu;
    gmsrt_cu_graph graph = NULL;
    gmsrt_status status;
    size_t nodes = 0;
    unsigned code = cu->cuStreamBeginCapture_v2(lane->stream, GMSRT_CU_CAPTURE_THREAD_LOCAL);

    if (code != GMSRT_CU_SUCCESS) return lane_failed(state, code, "the capture of a CUDA graph cannot begin");
    lane->seen.capturing = 1;
    status = call_enqueue(state, lane);
    lane->seen.capturing = 0;
    code = cu->cuStreamEndCapture(lane->stream, &graph); /* also after a failure: it frees the stream */
    if (status == GMSRT_OK && code != GMSRT_CU_SUCCESS)
        status = lane_failed(state, code, "the capture of a CUDA graph failed");
    if (status == GMSRT_OK) {
        code = graph != NULL ? cu->cuGraphGetNodes(graph, NULL, &nodes) : GMSRT_CU_SUCCESS;
        if (code != GMSRT_CU_SUCCESS)
            status = lane_failed(state, code, "the captured CUDA graph cannot be read");
        else if (nodes == 0) { /* it would replay nothing and leave the former mask in place */
            *empty = true;
            status = gmsrt_fail(GMSRT_CALLBACK_FAILED, "enqueue on lane %u queued nothing on the lane's stream",
                                lane->seen.index);
        }
    }
    if (status == GMSRT_OK) {
        code = cu->cuGraphInstantiateWithFlags(&lane->exec, graph, 0);
        if (code != GMSRT_CU_SUCCESS) {
            lane->exec = NULL;
            status = lane_failed(state, code, "the CUDA graph cannot be instantiated");
        }
    }
    if (graph != NULL) cu->cuGraphDestroy(graph);
    if (status != GMSRT_OK) return status;
    code = cu->cuGraphLaunch(lane->exec, lane->stream);
    if (code == GMSRT_CU_SUCCESS) code = wait_for(state, lane->stream, NULL);
    return code == GMSRT_CU_SUCCESS ? GMSRT_OK : wait_failed(state, code, "the first launch of the CUDA graph failed");
}

/* Capture, or go on without any graph where that fails and the options allow it. */
static gmsrt_status capture_if_possible(cuda_state *state, cuda_lane *lane)
{
    const gmsrt_cuda *cu = &state->cu;
    bool empty = false;
    const gmsrt_status status = capture(state, lane, &empty);

    if (status == GMSRT_OK || empty || state->options.use_graph != GMSRT_GRAPH_AUTO || is_hung(state) ||
        __atomic_load_n(&state->lost, __ATOMIC_ACQUIRE) != 0)
        return status;
    snprintf(state->notice, sizeof state->notice, "no CUDA graph, every inference is queued anew: %s",
             gmsrt_last_error());
    state->options.use_graph = GMSRT_GRAPH_NEVER;
    wait_for(state, lane->stream, NULL); /* whatever a failed first launch left */
    for (uint32_t i = 0; i < state->lane_count; i++) {
        if (state->lanes[i].exec != NULL) cu->cuGraphExecDestroy(state->lanes[i].exec);
        state->lanes[i].exec = NULL;
    }
    return run_once(state, lane); /* what was tried in vain must not have spoiled it */
}

static gmsrt_status open_lane(cuda_state *state, uint32_t index)
{
    const gmsrt_cuda *cu = &state->cu;
    cuda_lane *lane = &state->lanes[index];
    const size_t images = state->options.batch * state->image_bytes;
    const size_t masks = state->options.batch * state->mask_bytes;
    void *host_images = NULL, *host_masks = NULL;
    gmsrt_status status;
    unsigned code = cu->cuStreamCreate(&lane->stream, GMSRT_CU_STREAM_NON_BLOCKING);

    if (code == GMSRT_CU_SUCCESS) code = cu->cuMemAlloc_v2(&lane->images, images);
    if (code == GMSRT_CU_SUCCESS) code = cu->cuMemAlloc_v2(&lane->masks, masks);
    if (code == GMSRT_CU_SUCCESS) code = cu->cuMemHostAlloc(&host_images, images, 0);
    if (code == GMSRT_CU_SUCCESS) lane->host_images = host_images;
    if (code == GMSRT_CU_SUCCESS) code = cu->cuMemHostAlloc(&host_masks, masks, 0);
    if (code == GMSRT_CU_SUCCESS) lane->host_masks = host_masks;
    if (code == GMSRT_CU_SUCCESS) code = cu->cuEventCreate(&lane->before, GMSRT_CU_EVENT_DEFAULT);
    if (code == GMSRT_CU_SUCCESS) code = cu->cuEventCreate(&lane->sent, GMSRT_CU_EVENT_DEFAULT);
    if (code == GMSRT_CU_SUCCESS) code = cu->cuEventCreate(&lane->computed, GMSRT_CU_EVENT_DEFAULT);
    if (code == GMSRT_CU_SUCCESS) code = cu->cuEventCreate(&lane->received, GMSRT_CU_EVENT_DEFAULT);
    if (code != GMSRT_CU_SUCCESS) return lane_failed(state, code, "stream and buffers of a lane cannot be created");

    lane->seen.index = index;
    lane->seen.struct_size = sizeof lane->seen;
    lane->seen.stream = lane->stream;
    lane->seen.images = lane->images;
    lane->seen.masks = lane->masks;
    state->used_callbacks = true;
    if (state->options.prepare != NULL) {
        const int result = state->options.prepare(state->options.user, &lane->seen);

        if (result != 0) return gmsrt_fail(GMSRT_CALLBACK_FAILED, "prepare of lane %u returned %d", index, result);
    }
    status = warm_up(state, lane);
    if (status == GMSRT_OK && state->options.use_graph != GMSRT_GRAPH_NEVER) status = capture_if_possible(state, lane);
    return status;
}

static gmsrt_status cuda_enter(gmsrt_runner *runner)
{
    cuda_state *state = runner->state;
    const int lost = __atomic_load_n(&state->lost, __ATOMIC_ACQUIRE);
    unsigned code;

    if (is_hung(state)) return hung_status(state);
    if (lost != 0)
        return gmsrt_cu_failed(&state->cu, (unsigned)lost, "the device was lost in an earlier call; close this runner");
    code = state->cu.cuCtxPushCurrent_v2(state->context);
    return code == GMSRT_CU_SUCCESS ? GMSRT_OK : lane_failed(state, code, "the device's context cannot be entered");
}

static void cuda_leave(gmsrt_runner *runner)
{
    cuda_state *state = runner->state;
    gmsrt_cu_context popped;

    state->cu.cuCtxPopCurrent_v2(&popped);
}

static gmsrt_status cuda_submit(gmsrt_runner *runner, uint32_t index, const uint8_t *images, size_t count, bool alone)
{
    cuda_state *state = runner->state;
    const gmsrt_cuda *cu = &state->cu;
    cuda_lane *lane = &state->lanes[index];
    const size_t batch = state->options.batch;
    gmsrt_status status = GMSRT_OK;
    unsigned code;
    double start;

    (void)alone;
    memcpy(lane->host_images, images, count * state->image_bytes);
    if (count < batch) memset(lane->host_images + count * state->image_bytes, 0, (batch - count) * state->image_bytes);
    code = cu->cuEventRecord(lane->before, lane->stream);
    if (code == GMSRT_CU_SUCCESS)
        code = cu->cuMemcpyHtoDAsync_v2(lane->images, lane->host_images, batch * state->image_bytes, lane->stream);
    if (code == GMSRT_CU_SUCCESS) code = cu->cuEventRecord(lane->sent, lane->stream);
    start = gmsrt_now();
    if (code == GMSRT_CU_SUCCESS) {
        if (lane->exec != NULL)
            code = cu->cuGraphLaunch(lane->exec, lane->stream);
        else
            status = call_enqueue(state, lane);
    }
    lane->enqueue = gmsrt_now() - start;
    if (status == GMSRT_OK) {
        if (code == GMSRT_CU_SUCCESS) code = cu->cuEventRecord(lane->computed, lane->stream);
        if (code == GMSRT_CU_SUCCESS)
            code = cu->cuMemcpyDtoHAsync_v2(lane->host_masks, lane->masks, batch * state->mask_bytes, lane->stream);
        if (code == GMSRT_CU_SUCCESS) code = cu->cuEventRecord(lane->received, lane->stream);
        if (code != GMSRT_CU_SUCCESS) status = lane_failed(state, code, "the inference cannot be queued");
    }
    /* Leave the lane idle: nothing may still read its buffers. */
    if (status != GMSRT_OK) wait_for(state, lane->stream, NULL);
    return status;
}

static gmsrt_status cuda_finish(gmsrt_runner *runner, uint32_t index, uint8_t *masks, size_t count,
                                gmsrt_sample *sample)
{
    cuda_state *state = runner->state;
    const gmsrt_cuda *cu = &state->cu;
    cuda_lane *lane = &state->lanes[index];
    float h2d = 0, compute = 0, d2h = 0;
    unsigned code = wait_for(state, lane->stream, lane->received);

    if (code == GMSRT_CU_SUCCESS && sample != NULL) {
        code = cu->cuEventElapsedTime(&h2d, lane->before, lane->sent);
        if (code == GMSRT_CU_SUCCESS) code = cu->cuEventElapsedTime(&compute, lane->sent, lane->computed);
        if (code == GMSRT_CU_SUCCESS) code = cu->cuEventElapsedTime(&d2h, lane->computed, lane->received);
    }
    if (code != GMSRT_CU_SUCCESS) {
        const gmsrt_status status = wait_failed(state, code, "the inference failed on the device");

        wait_for(state, lane->stream, NULL);
        return status;
    }
    if (masks != NULL) memcpy(masks, lane->host_masks, count * state->mask_bytes);
    if (sample != NULL) {
        sample->h2d = (double)h2d;
        sample->compute = (double)compute;
        sample->d2h = (double)d2h;
        sample->enqueue = lane->enqueue;
        sample->total = sample->h2d + sample->compute + sample->d2h;
    }
    return GMSRT_OK;
}

static void cuda_close(gmsrt_runner *runner)
{
    free_state(runner->state);
}

static const gmsrt_backend_hooks cuda_hooks = {cuda_submit, cuda_finish, cuda_enter, cuda_leave, cuda_close};

static gmsrt_status check_options(const gmsrt_cuda_options *options)
{
    if (options->enqueue == NULL) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "the enqueue callback is missing");
    if (!gmsrt_shape_is_sane(options->batch, options->height, options->width))
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "batch %u, height %u, width %u: give positive sizes within reason",
                          options->batch, options->height, options->width);
    if (options->lanes < 1 || options->lanes > GMSRT_MAX_LANES)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "%u lanes were asked for; give 1 to %u", options->lanes,
                          GMSRT_MAX_LANES);
    if (options->warmup < 1 || options->warmup > 1000)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "%u warm-up runs were asked for; give 1 to 1000", options->warmup);
    if (options->use_graph < GMSRT_GRAPH_NEVER || options->use_graph > GMSRT_GRAPH_ALWAYS)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "use_graph is %d; give 0, 1 or 2", options->use_graph);
    return GMSRT_OK;
}

static gmsrt_status open_state(cuda_state *state, const char *driver, gmsrt_info *info)
{
    const gmsrt_cuda_options *options = &state->options;
    const gmsrt_cuda *cu = &state->cu;
    gmsrt_cu_context popped;
    gmsrt_device about;
    int count = 0;
    unsigned code;
    gmsrt_status status = gmsrt_cu_start(driver, options->device, &state->cu, &state->device, &count);

    memset(&about, 0, sizeof about);
    if (status == GMSRT_OK) status = gmsrt_cu_describe(cu, state->device, &about);
    if (status != GMSRT_OK) return status;
    code = cu->cuDevicePrimaryCtxRetain(&state->context, state->device);
    if (code != GMSRT_CU_SUCCESS) {
        state->context = NULL;
        return gmsrt_cu_failed(cu, code, "the device's primary context cannot be retained");
    }
    code = cu->cuCtxPushCurrent_v2(state->context);
    if (code != GMSRT_CU_SUCCESS) return gmsrt_cu_failed(cu, code, "the device's context cannot be entered");
    state->mask_bytes = (size_t)options->height * options->width;
    state->image_bytes = state->mask_bytes * 3;
    while (status == GMSRT_OK && state->lane_count < options->lanes) status = open_lane(state, state->lane_count++);
    cu->cuCtxPopCurrent_v2(&popped);

    memcpy(info->device, about.name, sizeof about.name);
    snprintf(info->runtime, sizeof info->runtime, "CUDA driver %u.%u", about.driver / 1000, about.driver % 1000 / 10);
    info->batch = options->batch;
    info->height = options->height;
    info->width = options->width;
    info->lanes = options->lanes;
    info->graphs = options->use_graph != GMSRT_GRAPH_NEVER ? options->lanes : 0;
    memcpy(info->notice, state->notice, sizeof info->notice);
    return status;
}

static gmsrt_cuda_options default_options(void)
{
    gmsrt_cuda_options options;

    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.batch = 1;
    options.lanes = 1;
    options.warmup = 2;
    options.use_graph = GMSRT_GRAPH_AUTO;
    options.wait_ms = WAIT_MS;
    return options;
}

gmsrt_status gmsrt_cuda_options_init(gmsrt_cuda_options *options, size_t size)
{
    const gmsrt_cuda_options defaults = default_options();

    return gmsrt_struct_init(options, size, &defaults, sizeof defaults, "gmsrt_cuda_options");
}

gmsrt_status gmsrt_open_cuda(const gmsrt_cuda_options *options, gmsrt_runner **runner)
{
    const double start = gmsrt_now();
    gmsrt_cuda_options taken = default_options();
    cuda_state *state;
    gmsrt_info info;
    gmsrt_status status;

    if (runner != NULL) *runner = NULL;
    if (options == NULL || runner == NULL) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_open_cuda: a null pointer");
    if ((status = gmsrt_struct_take(&taken, sizeof taken, options, "gmsrt_cuda_options")) != GMSRT_OK) return status;
    options = &taken;
    if ((status = check_options(options)) != GMSRT_OK) return status;
    state = calloc(1, sizeof *state);
    if (state == NULL) return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for a runner");
    state->options = *options;
    state->options.driver = NULL; /* read only during this call */
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    info.backend = GMSRT_CUDA;
    status = open_state(state, options->driver, &info);
    info.open_ms = gmsrt_now() - start;
    if (status == GMSRT_OK) status = gmsrt_runner_create(&cuda_hooks, state, &info, runner);
    if (status != GMSRT_OK) {
        gmsrt_hold_error(true);
        free_state(state);
        gmsrt_hold_error(false);
    }
    return status;
}
