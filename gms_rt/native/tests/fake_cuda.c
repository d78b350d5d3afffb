/* A CUDA driver on host memory, for tests. It is as lazy as a real one is asynchronous: what is queued on a stream
 * runs only when somebody waits for it, so a forgotten wait shows as a wrong result. It checks the order of calls:
 * a current context, no waiting or allocating within a capture, events recorded before they are read, every object
 * freed once. Device memory is host memory with its address inverted, so that nobody reads it directly by accident. */
#include <stdint.h>

#include "../src/cuda_api.h"
#include "fake.h"

#define CUDA_INVALID_VALUE 1
#define CUDA_INVALID_CONTEXT 201
#define CUDA_INVALID_HANDLE 400
#define CUDA_STREAM_CAPTURE_UNSUPPORTED 900
#define MAX_OPS 256
#define MAX_BLOCKS 1024

typedef enum op_kind { COPY, RECORD } op_kind;

typedef struct op {
    op_kind kind;
    void *to;
    const void *from;
    size_t bytes;
    struct CUevent_st *event;
} op;

struct CUgraph_st {
    op ops[MAX_OPS];
    size_t count;
};
struct CUgraphExec_st {
    struct CUgraph_st body;
};
struct CUstream_st {
    op ops[MAX_OPS];
    size_t count;
    struct CUgraph_st *capture;
    bool spoiled; /* a capture that a forbidden call invalidated */
};
struct CUevent_st {
    struct CUstream_st *stream;
    double milliseconds;
    bool recorded, reached;
};
struct CUctx_st {
    int references;
};

static struct CUctx_st primary;
static bool started;
static int poison;       /* after a fatal error every call answers so */
static bool push_failed; /* then nobody can free what is in the context */
static int capturing;    /* streams in capture */
static bool hanging;     /* what is queued never ends */
static int devices = 1;
static int pending; /* what is queued on all streams */
static double device_clock;
static struct {
    void *memory;
    size_t bytes;
    bool pinned, taken, freed_in_vain;
} blocks[MAX_BLOCKS];

static __thread struct CUctx_st *current[8];
static __thread int depth;

static void *objects[MAX_BLOCKS];

static void *make(size_t size)
{
    for (int i = 0; i < MAX_BLOCKS; i++) {
        if (objects[i] == NULL) {
            fake_live++;
            return objects[i] = calloc(1, size);
        }
    }
    abort();
}

static void drop(void *object)
{
    for (int i = 0; i < MAX_BLOCKS; i++) {
        if (objects[i] == object && object != NULL) {
            objects[i] = NULL;
            fake_live--;
            free(object);
            return;
        }
    }
    fake_mistake("an object destroyed that was not made, or twice");
}

/* What a context takes along when it goes. */
static void drop_all(void)
{
    for (int i = 0; i < MAX_BLOCKS; i++) {
        if (objects[i] != NULL) drop(objects[i]);
        if (blocks[i].taken) {
            free(blocks[i].memory);
            if (!blocks[i].freed_in_vain) fake_live--;
            blocks[i].taken = false;
        }
    }
}

static bool is_fatal(int code)
{
    switch (code) {
    case GMSRT_CU_LAUNCH_FAILED:
    case GMSRT_CU_ILLEGAL_ADDRESS:
    case GMSRT_CU_ECC_UNCORRECTABLE:
    case GMSRT_CU_NVLINK_UNCORRECTABLE:
    case GMSRT_CU_TENSOR_MEMORY_LEAK:
    case GMSRT_CU_UNKNOWN: return true;
    default: return false;
    }
}

/* Record the call; a code other than 0 is the answer. */
static int begin(const char *name, bool needs_context)
{
    const int code = fake_enter(name);

    if (code != 0) {
        if (is_fatal(code)) poison = code;
        return code;
    }
    if (poison != 0) return poison;
    if (!started && strcmp(name, "cuInit") != 0) {
        fake_mistake("%s before cuInit", name);
        return CUDA_INVALID_VALUE;
    }
    if (needs_context && (depth == 0 || current[depth - 1] != &primary || primary.references == 0)) {
        fake_mistake("%s without the context", name);
        return CUDA_INVALID_CONTEXT;
    }
    return 0;
}

static unsigned end(int code)
{
    return (unsigned)fake_leave(code);
}

static void run(const op *work)
{
    if (work->kind == COPY) memcpy(work->to, work->from, work->bytes);
    device_clock += 0.25;
    if (work->kind == RECORD) {
        work->event->milliseconds = device_clock;
        work->event->reached = true;
    }
}

static void flush(struct CUstream_st *stream)
{
    for (size_t i = 0; i < stream->count; i++) run(&stream->ops[i]);
    pending -= (int)stream->count;
    stream->count = 0;
}

static int queue(struct CUstream_st *stream, op work)
{
    if (stream == NULL) return fake_mistake("work on the default stream"), CUDA_INVALID_HANDLE;
    if (stream->capture != NULL) {
        if (stream->capture->count == MAX_OPS) return GMSRT_CU_OUT_OF_MEMORY;
        stream->capture->ops[stream->capture->count++] = work;
        return 0;
    }
    if (stream->count == MAX_OPS) flush(stream);
    stream->ops[stream->count++] = work;
    pending++;
    return 0;
}

/* Where device memory really is; NULL and a mistake if [pointer, pointer + bytes) is not inside one block. */
static void *device_memory(gmsrt_cu_pointer pointer, size_t bytes)
{
    const uintptr_t at = (uintptr_t)~pointer;

    for (int i = 0; i < MAX_BLOCKS; i++) {
        const uintptr_t start = (uintptr_t)blocks[i].memory;
        if (blocks[i].taken && !blocks[i].pinned && at >= start && at + bytes <= start + blocks[i].bytes)
            return (void *)at;
    }
    fake_mistake("a copy outside device memory");
    return NULL;
}

static bool is_pinned(const void *memory, size_t bytes)
{
    const uintptr_t at = (uintptr_t)memory;

    for (int i = 0; i < MAX_BLOCKS; i++) {
        const uintptr_t start = (uintptr_t)blocks[i].memory;
        if (blocks[i].taken && blocks[i].pinned && at >= start && at + bytes <= start + blocks[i].bytes) return true;
    }
    fake_mistake("an asynchronous copy with memory that is not pinned");
    return false;
}

static void *allocate(size_t bytes, bool pinned)
{
    for (int i = 0; i < MAX_BLOCKS; i++) {
        if (!blocks[i].taken) {
            blocks[i].memory = malloc(bytes > 0 ? bytes : 1);
            blocks[i].bytes = bytes;
            blocks[i].pinned = pinned;
            blocks[i].taken = true;
            blocks[i].freed_in_vain = false;
            memset(blocks[i].memory, 0xA5, bytes);
            fake_live++;
            return blocks[i].memory;
        }
    }
    return NULL;
}

static int release(const void *memory, bool pinned, int code)
{
    for (int i = 0; i < MAX_BLOCKS; i++) {
        if (blocks[i].taken && blocks[i].memory == memory && blocks[i].pinned == pinned) {
            if (code != 0) {
                if (!blocks[i].freed_in_vain) fake_live--;
                blocks[i].freed_in_vain = true; /* the context takes it along */
                return code;
            }
            free(blocks[i].memory);
            blocks[i].taken = false;
            fake_live--;
            return 0;
        }
    }
    fake_mistake("memory freed that was not allocated, or twice");
    return CUDA_INVALID_VALUE;
}

FAKE_CONTROLS(fake_cuda)

void fake_cuda_reset(void)
{
    pthread_mutex_lock(&fake_mutex);
    fake_reset_record();
    poison = 0;
    pending = 0;
    push_failed = false;
    started = false;
    hanging = false;
    devices = 1;
    fake_leave(0);
}

/* The number of GPUs; all share the one context of this fake. */
FAKE_API void fake_cuda_devices(int count);
void fake_cuda_devices(int count)
{
    pthread_mutex_lock(&fake_mutex);
    devices = count;
    fake_leave(0);
}

/* From now on nothing that is queued ends; a real driver would then wait for ever in what is a mistake here. With
 * false everything ends, and what was left behind goes with the context. */
FAKE_API void fake_cuda_hang(bool hang);
void fake_cuda_hang(bool hang)
{
    pthread_mutex_lock(&fake_mutex);
    if (hanging && !hang) {
        drop_all();
        pending = primary.references = 0;
    }
    hanging = hang;
    fake_leave(0);
}

/* References to the primary context. */
FAKE_API int fake_cuda_contexts(void);
int fake_cuda_contexts(void)
{
    pthread_mutex_lock(&fake_mutex);
    return fake_leave(primary.references);
}

/* What is queued on streams and waits for somebody. */
FAKE_API int fake_cuda_pending(void);
int fake_cuda_pending(void)
{
    pthread_mutex_lock(&fake_mutex);
    return fake_leave(pending);
}

/* Contexts on the calling thread's stack. */
FAKE_API int fake_cuda_depth(void);
int fake_cuda_depth(void)
{
    return depth;
}

#define DRIVER(name, parameters)                                                                                       \
    FAKE_API unsigned name parameters;                                                                                 \
    unsigned name parameters

DRIVER(cuGetErrorName, (unsigned code, const char **text))
{
    switch (code) {
    case GMSRT_CU_OUT_OF_MEMORY: *text = "CUDA_ERROR_OUT_OF_MEMORY"; return 0;
    case GMSRT_CU_LAUNCH_FAILED: *text = "CUDA_ERROR_LAUNCH_FAILED"; return 0;
    case GMSRT_CU_ECC_UNCORRECTABLE: *text = "CUDA_ERROR_ECC_UNCORRECTABLE"; return 0;
    case GMSRT_CU_CAPTURE_INVALIDATED: *text = "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"; return 0;
    case GMSRT_CU_NO_DEVICE: *text = "CUDA_ERROR_NO_DEVICE"; return 0;
    case GMSRT_CU_DEVICE_UNAVAILABLE: *text = "CUDA_ERROR_DEVICE_UNAVAILABLE"; return 0;
    default: *text = NULL; return CUDA_INVALID_VALUE; /* as the driver does for a number it does not know */
    }
}

DRIVER(cuGetErrorString, (unsigned code, const char **text))
{
    return cuGetErrorName(code, text);
}

DRIVER(cuInit, (unsigned flags))
{
    const int code = begin("cuInit", false);

    if (code == 0) started = true;
    if (flags != 0) fake_mistake("cuInit with flags");
    return end(code);
}

DRIVER(cuDriverGetVersion, (int *version))
{
    const int code = begin("cuDriverGetVersion", false);

    *version = 13010;
    return end(code);
}

DRIVER(cuDeviceGetCount, (int *count))
{
    const int code = begin("cuDeviceGetCount", false);

    if (code == 0) *count = devices;
    return end(code);
}

DRIVER(cuDeviceGet, (int *device, int ordinal))
{
    const int code = begin("cuDeviceGet", false);

    if (code == 0) *device = ordinal;
    return end(code != 0 ? code : ordinal >= 0 && ordinal < devices ? 0 : GMSRT_CU_INVALID_DEVICE);
}

DRIVER(cuDeviceGetName, (char *name, int size, int device))
{
    const int code = begin("cuDeviceGetName", false);

    if (code == 0 && device == 0) snprintf(name, (size_t)size, "Fake GPU");
    if (code == 0 && device != 0) snprintf(name, (size_t)size, "Fake GPU %d", device);
    return end(code);
}

DRIVER(cuDeviceGetAttribute, (int *value, unsigned attribute, int device))
{
    const int code = begin("cuDeviceGetAttribute", false);

    (void)device;
    if (code == 0) {
        *value = 0;
        if (attribute == GMSRT_CU_ATTRIBUTE_MAJOR) *value = 8;
    }
    return end(code);
}

DRIVER(cuDeviceTotalMem_v2, (size_t *bytes, int device))
{
    const int code = begin("cuDeviceTotalMem_v2", false);

    (void)device;
    if (code == 0) *bytes = (size_t)1 << 30;
    return end(code);
}

DRIVER(cuDevicePrimaryCtxRetain, (gmsrt_cu_context * context, int device))
{
    const int code = begin("cuDevicePrimaryCtxRetain", false);

    (void)device;
    if (code == 0) {
        primary.references++;
        *context = &primary;
    }
    return end(code);
}

DRIVER(cuDevicePrimaryCtxRelease_v2, (int device))
{
    int code = begin("cuDevicePrimaryCtxRelease_v2", false);

    (void)device;
    if (primary.references == 0)
        fake_mistake("the primary context released too often");
    else
        primary.references--;
    if (primary.references == 0) {
        poison = 0; /* a new context starts afresh */
        if (fake_live != 0 && !push_failed) fake_mistake("%d objects left behind in the context", fake_live);
        drop_all();
        pending = 0;
        push_failed = false;
    }
    return end(code);
}

DRIVER(cuCtxPushCurrent_v2, (gmsrt_cu_context context))
{
    const int code = begin("cuCtxPushCurrent_v2", false);

    if (code == 0) {
        if (depth == 8) return end(GMSRT_CU_OUT_OF_MEMORY);
        current[depth++] = context;
    } else {
        push_failed = true;
    }
    return end(code);
}

DRIVER(cuCtxPopCurrent_v2, (gmsrt_cu_context * context))
{
    int code = fake_enter("cuCtxPopCurrent_v2");

    if (depth == 0) {
        fake_mistake("a context popped that was not pushed");
        return end(CUDA_INVALID_CONTEXT);
    }
    *context = current[--depth]; /* even a failing pop must not leave this thread's stack in disorder */
    return end(code);
}

DRIVER(cuMemAlloc_v2, (gmsrt_cu_pointer * pointer, size_t bytes))
{
    int code = begin("cuMemAlloc_v2", true);

    if (code == 0 && capturing > 0) code = CUDA_STREAM_CAPTURE_UNSUPPORTED;
    if (code == 0) *pointer = ~(gmsrt_cu_pointer)(uintptr_t)allocate(bytes, false);
    return end(code);
}

DRIVER(cuMemFree_v2, (gmsrt_cu_pointer pointer))
{
    const int code = begin("cuMemFree_v2", true);

    if (hanging) fake_mistake("freeing memory of a device that hangs");
    return end(release((void *)(uintptr_t)~pointer, false, code));
}

DRIVER(cuMemHostAlloc, (void **memory, size_t bytes, unsigned flags))
{
    const int code = begin("cuMemHostAlloc", true);

    (void)flags;
    if (code == 0) *memory = allocate(bytes, true);
    return end(code);
}

DRIVER(cuMemFreeHost, (void *memory))
{
    return end(release(memory, true, begin("cuMemFreeHost", true)));
}

DRIVER(cuMemcpyHtoDAsync_v2, (gmsrt_cu_pointer to, const void *from, size_t bytes, gmsrt_cu_stream stream))
{
    int code = begin("cuMemcpyHtoDAsync_v2", true);
    op work = {COPY, NULL, from, bytes, NULL};

    if (code == 0 && (work.to = device_memory(to, bytes)) == NULL) code = CUDA_INVALID_VALUE;
    if (code == 0 && !is_pinned(from, bytes)) code = CUDA_INVALID_VALUE;
    return end(code != 0 ? code : queue(stream, work));
}

DRIVER(cuMemcpyDtoHAsync_v2, (void *to, gmsrt_cu_pointer from, size_t bytes, gmsrt_cu_stream stream))
{
    int code = begin("cuMemcpyDtoHAsync_v2", true);
    op work = {COPY, to, NULL, bytes, NULL};

    if (code == 0 && (work.from = device_memory(from, bytes)) == NULL) code = CUDA_INVALID_VALUE;
    if (code == 0 && !is_pinned(to, bytes)) code = CUDA_INVALID_VALUE;
    return end(code != 0 ? code : queue(stream, work));
}

/* Not called by the library: the work that the tests' enqueue callbacks put on a stream. */
DRIVER(cuMemcpyDtoDAsync_v2, (gmsrt_cu_pointer to, gmsrt_cu_pointer from, size_t bytes, gmsrt_cu_stream stream))
{
    int code = begin("cuMemcpyDtoDAsync_v2", true);
    op work = {COPY, NULL, NULL, bytes, NULL};

    if (code == 0 && (work.to = device_memory(to, bytes)) == NULL) code = CUDA_INVALID_VALUE;
    if (code == 0 && (work.from = device_memory(from, bytes)) == NULL) code = CUDA_INVALID_VALUE;
    return end(code != 0 ? code : queue(stream, work));
}

DRIVER(cuStreamCreate, (gmsrt_cu_stream * stream, unsigned flags))
{
    int code = begin("cuStreamCreate", true);

    if (flags != GMSRT_CU_STREAM_NON_BLOCKING) fake_mistake("a stream that waits for the default stream");
    if (code == 0) {
        *stream = make(sizeof **stream);
    }
    return end(code);
}

DRIVER(cuStreamDestroy_v2, (gmsrt_cu_stream stream))
{
    const int code = begin("cuStreamDestroy_v2", true);

    if (stream->capture != NULL) fake_mistake("a stream destroyed within a capture");
    if (stream->count > 0 && poison == 0) fake_mistake("a stream destroyed with work on it");
    pending -= (int)stream->count;
    drop(stream);
    return end(code);
}

DRIVER(cuStreamSynchronize, (gmsrt_cu_stream stream))
{
    const int code = begin("cuStreamSynchronize", true);

    if (hanging) fake_mistake("waiting for what does not end");
    if (stream->capture != NULL) {
        stream->spoiled = true;
        return end(CUDA_STREAM_CAPTURE_UNSUPPORTED);
    }
    if (poison == 0) {
        flush(stream); /* also where the call fails: the work was there already */
    } else {
        pending -= (int)stream->count;
        stream->count = 0;
    }
    return end(code);
}

DRIVER(cuStreamQuery, (gmsrt_cu_stream stream))
{
    const int code = begin("cuStreamQuery", true);

    if (stream->capture != NULL) {
        stream->spoiled = true;
        return end(CUDA_STREAM_CAPTURE_UNSUPPORTED);
    }
    if (hanging) return end(code != 0 ? code : stream->count > 0 ? GMSRT_CU_NOT_READY : 0);
    if (poison == 0) {
        flush(stream);
    } else {
        pending -= (int)stream->count;
        stream->count = 0;
    }
    return end(code);
}

DRIVER(cuStreamBeginCapture_v2, (gmsrt_cu_stream stream, unsigned mode))
{
    const int code = begin("cuStreamBeginCapture_v2", true);

    if (mode != GMSRT_CU_CAPTURE_THREAD_LOCAL) fake_mistake("a capture that disturbs other threads");
    if (stream->capture != NULL) fake_mistake("a capture within a capture");
    if (stream->count > 0) fake_mistake("a capture on a stream with work on it");
    if (code == 0) {
        stream->capture = make(sizeof *stream->capture);
        stream->spoiled = false;
        capturing++;
    }
    return end(code);
}

DRIVER(cuStreamEndCapture, (gmsrt_cu_stream stream, gmsrt_cu_graph *graph))
{
    int code = begin("cuStreamEndCapture", true);

    *graph = NULL;
    if (stream->capture == NULL) {
        if (poison == 0) fake_mistake("the end of a capture that did not begin");
        return end(code != 0 ? code : CUDA_INVALID_HANDLE);
    }
    capturing--;
    if (code == 0 && stream->spoiled) code = GMSRT_CU_CAPTURE_INVALIDATED;
    if (code == 0) {
        *graph = stream->capture;
    } else {
        drop(stream->capture);
    }
    stream->capture = NULL;
    return end(code);
}

DRIVER(cuGraphGetNodes, (gmsrt_cu_graph graph, gmsrt_cu_node *nodes, size_t *count))
{
    const int code = begin("cuGraphGetNodes", false);

    if (nodes != NULL) fake_mistake("the fake has no nodes to give");
    if (code == 0) *count = graph->count;
    return end(code);
}

DRIVER(cuGraphInstantiateWithFlags, (gmsrt_cu_exec * exec, gmsrt_cu_graph graph, unsigned long long flags))
{
    const int code = begin("cuGraphInstantiateWithFlags", true);

    (void)flags;
    if (code == 0) {
        *exec = make(sizeof **exec);
        (*exec)->body = *graph;
    }
    return end(code);
}

DRIVER(cuGraphDestroy, (gmsrt_cu_graph graph))
{
    const int code = begin("cuGraphDestroy", false);

    drop(graph);
    return end(code);
}

DRIVER(cuGraphExecDestroy, (gmsrt_cu_exec exec))
{
    const int code = begin("cuGraphExecDestroy", false);

    drop(exec);
    return end(code);
}

DRIVER(cuGraphLaunch, (gmsrt_cu_exec exec, gmsrt_cu_stream stream))
{
    int code = begin("cuGraphLaunch", true);

    for (size_t i = 0; code == 0 && i < exec->body.count; i++) code = queue(stream, exec->body.ops[i]);
    return end(code);
}

DRIVER(cuEventCreate, (gmsrt_cu_event * event, unsigned flags))
{
    const int code = begin("cuEventCreate", true);

    if (flags != GMSRT_CU_EVENT_DEFAULT) fake_mistake("an event without times");
    if (code == 0) {
        *event = make(sizeof **event);
    }
    return end(code);
}

DRIVER(cuEventDestroy_v2, (gmsrt_cu_event event))
{
    const int code = begin("cuEventDestroy_v2", true);

    drop(event);
    return end(code);
}

DRIVER(cuEventRecord, (gmsrt_cu_event event, gmsrt_cu_stream stream))
{
    const int code = begin("cuEventRecord", true);
    op work = {RECORD, NULL, NULL, 0, event};

    if (code != 0) return end(code);
    event->recorded = true;
    event->reached = false;
    event->stream = stream;
    return end(queue(stream, work));
}

DRIVER(cuEventSynchronize, (gmsrt_cu_event event))
{
    int code;

    fake_pause();
    code = begin("cuEventSynchronize", true);
    if (hanging) fake_mistake("waiting for what does not end");
    if (code != 0) return end(code);
    if (!event->recorded) {
        fake_mistake("waiting for an event that was not recorded");
        return end(CUDA_INVALID_HANDLE);
    }
    flush(event->stream);
    return end(0);
}

DRIVER(cuEventQuery, (gmsrt_cu_event event))
{
    int code;

    fake_pause();
    code = begin("cuEventQuery", true);
    if (code != 0) return end(code);
    if (!event->recorded) {
        fake_mistake("asking for an event that was not recorded");
        return end(CUDA_INVALID_HANDLE);
    }
    if (hanging) return end(event->reached ? 0 : GMSRT_CU_NOT_READY);
    flush(event->stream);
    return end(0);
}

DRIVER(cuEventElapsedTime, (float *milliseconds, gmsrt_cu_event start, gmsrt_cu_event stop))
{
    const int code = begin("cuEventElapsedTime", true);

    if (code == 0 && (!start->reached || !stop->reached)) {
        fake_mistake("reading events that are not reached");
        return end(CUDA_INVALID_HANDLE);
    }
    if (code == 0) *milliseconds = (float)(stop->milliseconds - start->milliseconds);
    return end(code);
}
