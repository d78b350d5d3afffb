/* gms_rt.h: run a fused segmentation graph on a CPU or an NVIDIA GPU, from C or C++.
 *
 *     gmsrt_cpu_options options;
 *     gmsrt_runner *runner = NULL;
 *     gmsrt_info info;
 *
 *     gmsrt_cpu_options_init(&options, sizeof options);
 *     if (gmsrt_open_cpu("engines/busi-int8", &options, &runner) != GMSRT_OK) {
 *         fprintf(stderr, "%s\n", gmsrt_last_error());
 *         return 1;
 *     }
 *     if (gmsrt_get_info(runner, &info, sizeof info) != GMSRT_OK)
 *         return 1;                                   // info.height, info.width: the network's size
 *     // images: n * height * width * 3 bytes RGB;  masks: n * height * width bytes, probability 0..255
 *     if (gmsrt_infer(runner, images, n, masks) != GMSRT_OK)
 *         fprintf(stderr, "%s\n", gmsrt_last_error());
 *     gmsrt_close(runner);
 *
 * The library never prints, never exits and never changes signal handlers;
 * opening a graph for the CPU may start a child process (see gmsrt_open_cpu). Every function that can fail returns a
 * gmsrt_status; gmsrt_last_error() then says in one line what was wrong and how to fix it. OpenVINO and the CUDA
 * driver are opened at run time: a program linked with this library starts on machines that have neither.
 *
 * Ownership: option structures, strings, images, masks and sample arrays belong to the caller and are only read or
 * written during the call (exception: the CUDA callbacks and their `user` pointer, see gmsrt_cuda_options). A runner
 * belongs to the library from a successful gmsrt_open_* until gmsrt_close.
 *
 * Structures that may grow begin with their size. Options are filled by gmsrt_*_options_init(&options, sizeof options);
 * results are written by calls whose last argument is sizeof result. A program that was compiled with an older header
 * gives a smaller size: no byte behind it is read or written, and options that it does not know have their defaults. A
 * program with a newer header than the library gives a larger one: results are zero behind what the library knows, and
 * options there must be zero (what gmsrt_*_options_init leaves), else the call fails and says so. gmsrt_sample never
 * grows, because arrays consist of it.
 *
 * Threads: every function may be called from any thread. All functions that take a runner may be called on the same
 * runner at the same time, except gmsrt_close, which must be the last call on it.
 *
 * Callbacks return to the library: no C++ exception and no longjmp may leave one, whichever it is.
 *
 * The shared library stays loaded after dlclose: threads of it, or of a runtime, may still be at work.
 *
 * Processes: a runner does not survive fork(). The new process has its memory, but none of its threads, and must not
 * call any function with it, not even gmsrt_close: it forgets the runner, or calls exec. Open runners after the fork.
 *
 * Environment: GMS_RT_OPENVINO, GMS_RT_TRIAL, XDG_CACHE_HOME and HOME are read, and by gmsrt_engine_select GMS_RT_STATE
 * and XDG_STATE_HOME; all are ignored in a program that has more rights than its caller (setuid). GMS_RT_TRIAL,
 * GMS_RT_STATE, and a GMS_RT_OPENVINO that is not a plain file name, must be absolute.
 */
#ifndef GMS_RT_H
#define GMS_RT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__) || defined(__clang__)
#define GMSRT_API __attribute__((visibility("default")))
#else
#define GMSRT_API
#endif

/* The compiler warns where a status is not looked at. */
#if defined(__cplusplus) && __cplusplus >= 201703L
#define GMSRT_NODISCARD [[nodiscard]]
#elif defined(__GNUC__) || defined(__clang__)
#define GMSRT_NODISCARD __attribute__((warn_unused_result))
#else
#define GMSRT_NODISCARD
#endif

/* Raised when a structure or function below changes incompatibly; equal to the SOVERSION of the shared library. */
#define GMSRT_ABI_VERSION 3

/* Every enumeration is an int32_t, whatever the compiler would make of it. */
typedef int32_t gmsrt_status;
enum {
    GMSRT_OK = 0,
    GMSRT_INVALID_ARGUMENT = 1, /* a null pointer, a size or an option that is not valid */
    GMSRT_NOT_FOUND = 2,        /* the graph file is not there or cannot be read */
    GMSRT_BAD_GRAPH = 3,        /* damaged or changed since it was built, neither ONNX nor OpenVINO's form, or not
                                   uint8 N*H*W*3 to uint8 N*H*W*1 */
    GMSRT_NO_RUNTIME = 4,       /* OpenVINO, the CUDA driver or gmsrt-trial is not installed, or too old */
    GMSRT_NO_DEVICE = 5,        /* the driver is there, the device is not */
    GMSRT_UNSUPPORTED = 6,      /* this device cannot do what the options ask for */
    GMSRT_OUT_OF_MEMORY = 7,    /* host or device memory */
    GMSRT_CALLBACK_FAILED = 8,  /* a CUDA callback returned non-zero */
    GMSRT_RUNTIME_FAILED = 9,   /* OpenVINO or the driver refused a call; the runner stays usable */
    GMSRT_DEVICE_LOST = 10,     /* the device's context is gone for all runners of this process, open or new: close
                                   them; only a new process can use the device again */
    GMSRT_TIMED_OUT = 11,       /* it took longer than the caller wanted to wait */
    GMSRT_CANCELLED = 12,       /* the caller's own callback ended it, or the runner is being closed */
    GMSRT_BUSY = 13,            /* as much is under way as can be: wait for some of it, or drop this one */
    GMSRT_DEVICE_BUSY = 14,     /* another process has the device for itself (exclusive compute mode) */
    GMSRT_DEVICE_HUNG = 15      /* no result within wait_ms: a kernel does not end. What the runner has on the device
                                   stays there, after gmsrt_close too, as freeing would wait; end the process */
};

typedef int32_t gmsrt_backend;
enum { GMSRT_CPU = 0, GMSRT_CUDA = 1 };

/* Arithmetic of a CPU runner. A graph with quantised nodes runs those in int8 under any of them. */
typedef int32_t gmsrt_precision;
enum {
    GMSRT_F32 = 0,
    GMSRT_BF16 = 1,
    GMSRT_AS_BUILT = 2, /* what the engine.json of an engine folder says; f32 where the CPU lacks that and the engine
                           may run so (f16 always, bf16 if its gate was met in f32 too); f32 for an .onnx file */
    GMSRT_F16 = 3
};

typedef int32_t gmsrt_mode;
enum {
    GMSRT_LATENCY = 0,   /* one image as fast as possible: all threads work on it */
    GMSRT_THROUGHPUT = 1 /* many images as fast as possible: several lanes work at the same time */
};

/* Whether a graph is first opened and run in a process of its own, so that one on which OpenVINO crashes or never ends
 * gives a status and leaves the calling process alone. */
typedef int32_t gmsrt_trial;
enum {
    GMSRT_TRIAL_AUTO = 0,   /* once; that it passed is remembered in $XDG_CACHE_HOME or ~/.cache, in gms-rt/tried */
    GMSRT_TRIAL_ALWAYS = 1, /* every time, whatever is remembered */
    GMSRT_TRIAL_NEVER = 2   /* for graphs that you trust: a malformed one can crash the calling process */
};

/* Whether a CUDA runner replays a captured graph or queues every inference again. */
typedef int32_t gmsrt_graph_use;
enum {
    GMSRT_GRAPH_NEVER = 0,
    GMSRT_GRAPH_AUTO =
        1, /* where a graph can be captured; where that fails it opens without, and info.notice says why */
    GMSRT_GRAPH_ALWAYS = 2 /* where it cannot be captured, opening fails */
};

/* An opened graph on a device. */
typedef struct gmsrt_runner gmsrt_runner;

/* Options of gmsrt_open_cpu. Fill with gmsrt_cpu_options_init, then change what you need. */
typedef struct gmsrt_cpu_options {
    size_t struct_size;        /* set by gmsrt_cpu_options_init */
    const char *openvino;      /* libopenvino_c.so; NULL: $GMS_RT_OPENVINO, else the system's loader searches */
    const char *cache;         /* folder for compiled graphs, must exist; NULL: no cache. See README.md, "Trust" */
    gmsrt_precision precision; /* default GMSRT_AS_BUILT */
    gmsrt_mode mode;           /* default GMSRT_LATENCY */
    uint32_t threads;          /* 0: OpenVINO's choice (the physical cores) */
    uint32_t lanes;            /* inferences in flight; 0: one for latency, OpenVINO's optimum for throughput */
    uint32_t batch;            /* only for a graph with a free batch size; 0: the graph's own, or 1 */
    gmsrt_trial trial;         /* default GMSRT_TRIAL_AUTO */
    uint32_t trial_seconds;    /* a trial that takes longer has failed; 0: 600 */
    /* The whole open fails with GMSRT_TIMED_OUT after so many milliseconds, looked at about every 20; 0: no limit. */
    uint32_t timeout_ms;
    /* Asked about every 20 ms on the calling thread while the graph is opened; other than 0 ends the open with
     * GMSRT_CANCELLED. NULL: it cannot be cancelled. See gmsrt_open_cpu. */
    int (*cancelled)(void *user);
    void *user; /* for `cancelled` */
} gmsrt_cpu_options;

/* One lane of a CUDA runner, as the callbacks see it. Addresses and stream never change while the runner is open. */
typedef struct gmsrt_cuda_lane {
    uint32_t index;       /* 0 .. lanes-1 */
    uint32_t struct_size; /* of this library's gmsrt_cuda_lane */
    void *stream;         /* CUstream: non-blocking, belongs to this lane alone */
    uint64_t images;      /* CUdeviceptr: batch * height * width * 3 bytes */
    uint64_t masks;       /* CUdeviceptr: batch * height * width bytes */
    uint32_t capturing;   /* 1 while this call of enqueue is captured: what it queues runs at each replay */
    uint32_t reserved;
} gmsrt_cuda_lane;

/* Options of gmsrt_open_cuda. The callbacks are called with the device's primary context current, on the thread that
 * is inside the library; zero means success. `user` and the callbacks must stay valid until gmsrt_close returns. */
typedef struct gmsrt_cuda_options {
    size_t struct_size; /* set by gmsrt_cuda_options_init */
    const char *driver; /* NULL: libcuda.so.1 */
    uint32_t device;    /* ordinal */
    uint32_t batch;     /* shape of one inference; default batch 1; height and width have no default */
    uint32_t height;
    uint32_t width;
    uint32_t lanes;            /* default 1 */
    uint32_t warmup;           /* runs before the capture, at least 1; default 2 */
    gmsrt_graph_use use_graph; /* default GMSRT_GRAPH_AUTO. Without a graph enqueue is called for every inference, on
                                  the calling thread, for one lane never concurrently, for different lanes possibly
                                  concurrently */
    uint32_t wait_ms;          /* a result that takes longer means GMSRT_DEVICE_HUNG; default 60000; 0: wait for ever */
    /* Optional, called once per lane before its warm-up: bind addresses, create the execution context. */
    int (*prepare)(void *user, const gmsrt_cuda_lane *lane);
    /* Queue one inference from lane->images to lane->masks on lane->stream. No synchronisation: it is captured. */
    int (*enqueue)(void *user, const gmsrt_cuda_lane *lane);
    /* Optional, called exactly once, by gmsrt_close or a failing gmsrt_open_cuda, after the last use of the lanes and
     * before their memory goes, if prepare or enqueue was ever called; not after GMSRT_DEVICE_HUNG: they are in use. */
    void (*release)(void *user);
    void *user;
} gmsrt_cuda_options;

/* What a runner is and how it really executes. */
typedef struct gmsrt_info {
    size_t struct_size; /* bytes that the library has written, at most the caller's */
    gmsrt_backend backend;
    uint32_t batch, height, width;
    uint32_t lanes;      /* opened */
    uint32_t used_lanes; /* in use, see gmsrt_set_lanes */
    uint32_t threads;    /* CPU: as reported by OpenVINO; CUDA: 0 */
    uint32_t graphs;     /* CUDA: captured graphs; CPU: 0 */
    double open_ms;      /* time from the call of gmsrt_open_* to its return, without a trial */
    char execution[16];  /* CPU: "f32", "bf16", "f16"; CUDA: "" (the plan decides) */
    char device[128];
    char runtime[128]; /* "OpenVINO …" or "CUDA driver …" */
    char notice[256];  /* what a user should know: why there is no CUDA graph; "" */
} gmsrt_info;

/* A CUDA device as the driver describes it. */
typedef struct gmsrt_device {
    size_t struct_size;  /* bytes that the library has written, at most the caller's */
    uint32_t count;      /* devices on this machine */
    uint32_t sm;         /* compute capability: 80 for 8.0 */
    uint32_t driver;     /* CUDA version of the driver: 13010 for 13.1 */
    uint32_t integrated; /* 1: shares memory with the host, as a Jetson does */
    uint64_t memory;     /* bytes */
    char name[128];
} gmsrt_device;

/* This machine's CPU as OpenVINO describes it. */
typedef struct gmsrt_processor {
    size_t struct_size; /* bytes that the library has written, at most the caller's */
    uint32_t f16;       /* 1: OpenVINO computes in f16 on it, GMSRT_F16 can be asked for */
    uint32_t bf16;      /* 1: the same for GMSRT_BF16 */
    char name[128];
    char runtime[128];      /* "OpenVINO …" */
    char capabilities[256]; /* in OpenVINO's words: "FP32 FP16 INT8 …". INT8 there says that it takes quantised graphs,
                               not that it computes them in int8: on Arm it does not */
} gmsrt_processor;

/* One timed inference of `batch` images, milliseconds. total = h2d + compute + d2h. It never grows. */
typedef struct gmsrt_sample {
    double total;
    double compute; /* CPU: the inference; CUDA: between events around the launch */
    double h2d;     /* CPU: copy into the runtime's tensor; CUDA: between events around the copy */
    double d2h;
    double enqueue; /* host time of the launch; 0 where the call returns only with the result */
} gmsrt_sample;

/* Options of gmsrt_bench. Fill with gmsrt_bench_options_init: no warm-up, no minimum of time, one sample. */
typedef struct gmsrt_bench_options {
    size_t struct_size; /* set by gmsrt_bench_options_init */
    double warmup_seconds;
    double seconds;    /* at least this long … */
    size_t iterations; /* … and at least so many samples; a full array ends it earlier: then call again with what
                           is left of both */
} gmsrt_bench_options;

typedef struct gmsrt_bench_result {
    size_t struct_size;    /* bytes that the library has written, at most the caller's */
    size_t samples;        /* written to the caller's array, in the order of their start */
    double wall_seconds;   /* first start to last end */
    double warmup_seconds; /* really spent */
    uint32_t lanes;        /* used */
    uint32_t batch;
} gmsrt_bench_result;

/* ABI of the loaded library: compare with GMSRT_ABI_VERSION. Never fails. */
GMSRT_API uint32_t gmsrt_abi_version(void);

/* "0.1.0"; static storage. */
GMSRT_API const char *gmsrt_version(void);

/* "GMSRT_OK", …; static storage; "GMSRT_?" for a number that is not a status. */
GMSRT_API const char *gmsrt_status_name(gmsrt_status status);

/* The message of this thread's last failed call, one line; "" if none failed. Valid until this thread's next call. */
GMSRT_API const char *gmsrt_last_error(void);

typedef int32_t gmsrt_log_level;
enum { GMSRT_LOG_INFO = 0, GMSRT_LOG_WARNING = 1 };

/* One line, without a line break, valid during the call. */
typedef void (*gmsrt_log_callback)(void *user, gmsrt_log_level level, const char *message);

/* Hear what no status says: what was opened how and how fast, an arithmetic that fell back, a cache that was not used. One
 * callback for the process; NULL ends it. It is called on whichever thread is in the library, also one of the library's
 * own, by several at once, and must not call functions of this library that could log. When gmsrt_set_log returns the
 * former callback is not running any more and will not be called again. Failures are not logged: they are statuses. It
 * fails only within the callback itself. */
GMSRT_API gmsrt_status gmsrt_set_log(gmsrt_log_callback callback, void *user);

/* Fill options with their defaults: gmsrt_cpu_options_init(&options, sizeof options). Not more than `size` bytes are
 * written; what a newer program has behind the options that this library knows becomes zero. It fails only for a null
 * pointer, or a size that is not a multiple of the size of a pointer or is above 4096; such options cannot be used. */
GMSRT_API gmsrt_status gmsrt_cpu_options_init(gmsrt_cpu_options *options, size_t size);
GMSRT_API gmsrt_status gmsrt_cuda_options_init(gmsrt_cuda_options *options, size_t size);
GMSRT_API gmsrt_status gmsrt_bench_options_init(gmsrt_bench_options *options, size_t size);

/* Open a graph on the CPU. `graph` is an engine folder, an .onnx file, or an .xml file: OpenVINO's own form, in which an
 * engine keeps a graph of which single nodes run in f32, with its constants next to it in NAME.xml.bin. Of a folder, the
 * files of the CPU's graph are compared with the hashes in its engine.json; of a file nothing vouches for the content. A
 * manifest of another format or of a newer version is refused, and so is a graph or a file with weights that the manifest
 * does not list. A file that is neither form, or has weights in a file outside the graph's folder, is refused. The program
 * gmsrt-trial, which is next to this library (or where $GMS_RT_TRIAL says), then opens and runs the graph in a process of
 * its own, as often as options->trial asks; only then OpenVINO opens it here. With GMSRT_TRIAL_NEVER a malformed graph
 * can crash the calling process (see README.md, "Trust"). The trial finds crashes; it is no sandbox.
 * `options` may be NULL. With a NULL `runner` the graph is only tried, and nothing stays open.
 * With timeout_ms or `cancelled` the graph is opened on a thread of the library's own, with all signals blocked. An open
 * that is given up ends its trial at once; what OpenVINO has begun cannot be interrupted, goes on on that thread and is
 * released when it is done. Then the memory of an open is in use for longer than the call, and a program that ends
 * meanwhile ends that thread too: leave with _exit, as with any thread that is at work.
 * The trial is a child process: it is started with posix_spawn, waited for, and gone when the call returns; no signal
 * handler is set, and a host may ignore SIGCHLD. Files that are changed or replaced during the call are an error.
 * On failure *runner is NULL and nothing stays allocated. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_open_cpu(const char *graph, const gmsrt_cpu_options *options,
                                                      gmsrt_runner **runner);

/* The same for the bytes of an .onnx file whose weights are all in it, such as gmsrt_engine_read gives of an engine whose
 * info.model is one. (An engine whose model is model.xml is opened by its folder.) Of bytes nobody knows what they were
 * built for: GMSRT_AS_BUILT is f32, so give options->precision after info.execution. The bytes are not used any more when
 * the call returns. The trial's process gets them through a file without a name. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_open_cpu_memory(const void *graph, size_t size,
                                                             const gmsrt_cpu_options *options, gmsrt_runner **runner);

/* Open a CUDA runner: primary context, then for every lane a stream, device and pinned memory, prepare, warm-up and
 * the capture of a graph around enqueue. The calling thread's current context is the same afterwards. A capture that
 * fails is not the end, see gmsrt_graph_use; what makes it fail is an enqueue that allocates or synchronises. Other
 * threads may use the device meanwhile.
 * On failure *runner is NULL, release has been called where due, and nothing stays allocated. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_open_cuda(const gmsrt_cuda_options *options, gmsrt_runner **runner);

/* Ask OpenVINO for the CPU and its arithmetic without opening a graph. `openvino` as in gmsrt_cpu_options. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_probe_cpu(const char *openvino, gmsrt_processor *result, size_t size);

/* Ask the driver for a device without opening anything on it. `driver` as in gmsrt_cuda_options. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_probe_cuda(const char *driver, uint32_t device, gmsrt_device *result,
                                                        size_t size);

GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_get_info(const gmsrt_runner *runner, gmsrt_info *info, size_t size);

/* Use only the first `lanes` of the opened lanes from now on (1 .. info.lanes). Calls under way are not disturbed. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_set_lanes(gmsrt_runner *runner, uint32_t lanes);

/* Segment `count` images, any count, none included; several are in flight where several lanes are free. Waits for a lane
 * if none is free. If it fails, the contents of `masks` are unspecified and no work on them is left behind. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_infer(gmsrt_runner *runner, const uint8_t *images, size_t count,
                                                   uint8_t *masks);

/* Time inferences over `count` images in turn (at least one batch is formed by repeating them). Waits until it has the
 * runner alone; concurrent gmsrt_infer calls wait until it is done. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_bench(gmsrt_runner *runner, const uint8_t *images, size_t count,
                                                   const gmsrt_bench_options *options, gmsrt_sample *samples,
                                                   size_t capacity, gmsrt_bench_result *result, size_t size);

/* Release everything; NULL is allowed. No other call on this runner may be under way or follow: closing twice is freeing
 * twice. What was submitted is run first. */
GMSRT_API void gmsrt_close(gmsrt_runner *runner);

/* ---- Engine folders -------------------------------------------------------------------------------------------------
 *
 * What an engine folder is, which of its parts fits this machine, and the bytes of its files after they were compared:
 * for programs that load a TensorRT plan themselves, and for anyone who wants the name of a class.
 *
 *     gmsrt_engine *engine = NULL;
 *     gmsrt_select_options options;
 *     gmsrt_plan plan;
 *     void *bytes;
 *     size_t size;
 *
 *     gmsrt_select_options_init(&options, sizeof options);
 *     options.tensorrt = "10.13.3.9";                 // the TensorRT that this program is linked with
 *     if (gmsrt_engine_open("engines/busi-int8", &engine) != GMSRT_OK ||
 *         gmsrt_engine_select(engine, &options, &plan, sizeof plan) != GMSRT_OK)
 *         return fail(gmsrt_last_error());
 *     if (plan.target == GMSRT_TARGET_TENSORRT && gmsrt_engine_read(engine, plan.file, &bytes, &size) == GMSRT_OK) {
 *         cuda_engine = runtime->deserializeCudaEngine(bytes, size);   // bytes that have the manifest's SHA-256
 *         gmsrt_free(bytes);
 *     }
 *     gmsrt_engine_close(engine);
 *
 * An engine may be used by many threads at once; gmsrt_engine_close must be the last call on it. Texts in the structures
 * below belong to the engine and are valid until then. */

/* An engine folder whose manifest was read and checked. */
typedef struct gmsrt_engine gmsrt_engine;

typedef int32_t gmsrt_target;
enum { GMSRT_TARGET_CPU = 0, GMSRT_TARGET_TENSORRT = 1, GMSRT_TARGET_TENSORRT_RTX = 2 };

/* What parity.json says: whether the engine's masks met the gate against its reference when it was certified. */
typedef int32_t gmsrt_certificate;
enum {
    GMSRT_CERTIFICATE_NONE = 0,    /* the folder has none */
    GMSRT_CERTIFICATE_PASSED = 1,  /* it is about this engine.json, and the gate was met */
    GMSRT_CERTIFICATE_FAILED = 2,  /* it is about this engine.json, and the gate was not met */
    GMSRT_CERTIFICATE_FOREIGN = 3, /* it is about another engine.json: it says nothing about this one */
    GMSRT_CERTIFICATE_DAMAGED = 4  /* it cannot be read as a certificate */
};

typedef struct gmsrt_engine_info {
    size_t struct_size;            /* bytes that the library has written, at most the caller's */
    uint32_t height, width, batch; /* of the network's input; a CPU graph may take other batches */
    uint32_t plans;                /* ways to run it, see gmsrt_engine_get_plan */
    uint32_t classes;              /* see gmsrt_engine_get_class; at least one */
    gmsrt_certificate certificate;
    double threshold; /* the probability from which a pixel is foreground in this package's masks */
    double dice_mean; /* of the certificate's cases, the mean and the worst; 0 without one that is about this engine */
    double dice_min;
    const char *name;               /* as it was built */
    const char *precision;          /* "fp32", "fp16", "bf16", "int8" */
    const char *execution;          /* the arithmetic that is asked of the CPU: "f32", "bf16", "f16" */
    const char *fallback;           /* "f32" where its gate was met in that too; else "" */
    const char *created;            /* date and time in UTC, ISO 8601 */
    const char *gms_rt;             /* the version of the program that built it */
    const char *model;              /* the CPU's graph, a file of the folder */
    const char *sha256;             /* of engine.json; hex, as every hash here */
    const char *certificate_sha256; /* of parity.json; "" without one */
} gmsrt_engine_info;

/* A coded concept as DICOM writes it; all "" where there is none. It never grows. */
typedef struct gmsrt_code {
    const char *value;
    const char *scheme; /* "SCT" for SNOMED CT, "DCM" for DICOM's own */
    const char *meaning;
} gmsrt_code;

/* A class of the mask: the first has the value 1 in label maps. An engine that names none has one region. */
typedef struct gmsrt_class {
    size_t struct_size; /* bytes that the library has written, at most the caller's */
    const char *name;
    const char *description; /* "" without one */
    gmsrt_code category, type, type_modifier, anatomy, anatomy_modifier;
    uint32_t colour; /* 0xRRGGBB */
    uint32_t reserved;
} gmsrt_class;

/* A way to run an engine: a TensorRT plan, or the CPU's graph. */
typedef struct gmsrt_plan {
    size_t struct_size; /* bytes that the library has written, at most the caller's */
    gmsrt_target target;
    uint32_t sm;         /* of a plan: the compute capability it was built for, 89 for 8.9; CPU: 0 */
    uint64_t bytes;      /* of a plan, as the manifest says; CPU: 0 */
    const char *file;    /* of the folder: give it to gmsrt_engine_read, or the folder to gmsrt_open_cpu */
    const char *sha256;  /* as the manifest has it */
    const char *version; /* of the TensorRT that built the plan; CPU: "" */
    const char *device;  /* the GPU or board whose kernels were timed for it, or "" */
    int32_t gpu;         /* the GPU that it fits, by the driver's number; -1: none, or the CPU, or not asked */
    uint32_t fits;       /* 1: it can run here; 0 with a reason, or if it was not asked */
    uint32_t untrusted;  /* 1: it would fit, but neither was it built here nor did the caller vouch for it */
    uint32_t reserved;
    char reason[512]; /* why it does not fit; of a CPU graph that was selected: why a plan that would fit was not */
} gmsrt_plan;

/* What a plan may run on. Fill with gmsrt_select_options_init, then say what your program has. */
typedef struct gmsrt_select_options {
    size_t struct_size;       /* set by gmsrt_select_options_init */
    const char *device;       /* "cpu", "cuda" or "cuda:N"; NULL: a GPU if a trusted plan fits one, else the CPU */
    const char *tensorrt;     /* the version of your program's TensorRT; NULL: it has none, its plans do not fit */
    const char *tensorrt_rtx; /* the same for TensorRT for RTX */
    const char *driver;       /* NULL: libcuda.so.1 */
    const char *openvino;     /* as in gmsrt_cpu_options; asked only where the engine needs bf16 */
    const uint32_t *sms;      /* compute capabilities of the GPUs in the driver's order; NULL: the driver is asked */
    uint32_t sm_count;
    uint32_t trust_plans; /* 1: plans are taken whoever built them. A plan is code: it can do all that you can */
} gmsrt_select_options;

GMSRT_API gmsrt_status gmsrt_select_options_init(gmsrt_select_options *options, size_t size);

/* Read and check a folder's engine.json. Refused are: what is not JSON, or has a member twice; another format or a newer
 * version; keys that this version does not know, missing ones, values of another type; sizes above 16384; names of files
 * that are not plain names. No file but engine.json and parity.json is read. On failure *engine is NULL. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_engine_open(const char *folder, gmsrt_engine **engine);

GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_engine_get_info(const gmsrt_engine *engine, gmsrt_engine_info *info,
                                                             size_t size);

GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_engine_get_class(const gmsrt_engine *engine, uint32_t index,
                                                              gmsrt_class *result, size_t size);

/* A way to run the engine, 0 to info.plans - 1: plans in the manifest's order, then the CPU's graph if it was built for
 * one. With `options` it also says whether that fits this machine; with NULL nothing is asked. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_engine_get_plan(const gmsrt_engine *engine, uint32_t index,
                                                             const gmsrt_select_options *options, gmsrt_plan *plan,
                                                             size_t size);

/* The way that the Python package would take: the first that fits, plans before the CPU. A plan fits a GPU of its
 * compute capability and the TensorRT version that built it; of several such GPUs it gets the one whose name is its
 * `device`, else the first (with options->sms always the first). It is trusted if this user's `gms-rt build` made it or
 * options->trust_plans says so (signatures are checked by the Python package only). A CPU graph that asks for bf16 fits
 * where OpenVINO has that, or where the engine may fall back; any other fits, and gmsrt_open_cpu tells where there is no
 * OpenVINO. Whether the driver is new enough for your program's TensorRT, TensorRT tells. GMSRT_NO_DEVICE with all
 * reasons if none fits. `options` may be NULL: then only the CPU's graph can fit. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_engine_select(const gmsrt_engine *engine,
                                                           const gmsrt_select_options *options, gmsrt_plan *plan,
                                                           size_t size);

/* The content of a file that the manifest lists, if it has the manifest's SHA-256. It is read once, and the bytes that
 * were hashed are the bytes that are given: what happens to the file later does not matter. Free with gmsrt_free. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_engine_read(const gmsrt_engine *engine, const char *file, void **bytes,
                                                         size_t *size);

/* Free what gmsrt_engine_read gave; NULL is allowed. */
GMSRT_API void gmsrt_free(void *bytes);

/* Release an engine and its texts; NULL is allowed. */
GMSRT_API void gmsrt_engine_close(gmsrt_engine *engine);

/* ---- Images of another size -----------------------------------------------------------------------------------------
 *
 * To the bit as the Python package has them with OpenCV's wheels on x86-64 (on other processors OpenCV itself rounds a
 * little differently; these do not). From a scan to its mask, as `gms-rt infer` goes:
 *
 *     gmsrt_resize_image(scan, height, width, 3, input, info.height, info.width);     // RGB, as the model was trained
 *     gmsrt_infer(runner, input, 1, levels);
 *     gmsrt_mask_from_levels(levels, info.height, info.width, 0.5, mask, height, width);
 *
 * All are contiguous, with sides of 1 to 65535; source and result must not overlap. */

/* An image of 1 or 3 channels: the average of areas where it shrinks in both directions, else bilinear. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_resize_image(const uint8_t *image, uint32_t height, uint32_t width,
                                                          uint32_t channels, uint8_t *result, uint32_t to_height,
                                                          uint32_t to_width);

/* A mask of 0 and 255: a pixel that is foreground by half or more stays foreground. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_resize_mask(const uint8_t *mask, uint32_t height, uint32_t width,
                                                         uint8_t *result, uint32_t to_height, uint32_t to_width);

/* Probabilities of 0 to 1 at the size of the scan, from levels of 0 to 255 as gmsrt_infer gives them: bilinear. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_resize_probability(const uint8_t *levels, uint32_t height, uint32_t width,
                                                                float *result, uint32_t to_height, uint32_t to_width);

/* The mask of 0 and 255 at the size of the scan: 255 where the probability there is `threshold` or more. The
 * threshold lies between 0 and 1, neither of them included. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_mask_from_levels(const uint8_t *levels, uint32_t height, uint32_t width,
                                                              double threshold, uint8_t *mask, uint32_t to_height,
                                                              uint32_t to_width);

/* --- A mask's measures and file --------------------------------------------------------------------------------------
 *
 * What a row of `gms-rt infer`'s cases.csv says about a mask, and its PNG: the same numbers, the same bytes. Masks and
 * levels are contiguous; they are only read. Threads: any, nothing is shared. */

/* Foreground is every pixel that is not 0. Pixels that touch, be it at a corner, are of one region. */
typedef struct gmsrt_measures {
    size_t struct_size; /* written by gmsrt_measure_mask */
    uint64_t area;      /* pixels */
    uint64_t regions;
    uint32_t x, y, width, height; /* the smallest box around it; all 0 for an empty mask */
    double centre_x, centre_y;    /* mean place; the centres of pixels are whole numbers */
} gmsrt_measures;

/* Measure a mask with sides of 1 to 2^31 - 1, of up to 2^32 pixels. Memory is taken for a few rows, not for the mask. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_measure_mask(const uint8_t *mask, uint32_t height, uint32_t width,
                                                          gmsrt_measures *result, size_t size);

/* How decided the model was about an image, from its levels as gmsrt_infer gives them: the mean distance of the
 * probability from the threshold, 0 where every pixel sits on it and 1 where every pixel is fully decided, over the
 * pixels whose probability is at least a fifth of the threshold, or over all pixels where there is none. It is not the
 * probability that the mask is right. The threshold lies between 0 and 1, neither of them included. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_confidence(const uint8_t *levels, size_t count, double threshold,
                                                        double *confidence);

/* Bytes that a mask's PNG may need, whatever is in the mask; 0 for a size that gmsrt_png_from_mask refuses: a side of 0,
 * or height * (width + 1) over 2^30. */
GMSRT_API size_t gmsrt_png_room(uint32_t height, uint32_t width);

/* A mask as the bytes of a PNG file, 8-bit grey: `room` bytes at `png`, gmsrt_png_room of them or more, of which *size are
 * the file. The same pixels are always the same bytes. Meant for masks: it packs runs, and makes other images larger than
 * they were. `png` must not overlap the mask. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_png_from_mask(const uint8_t *mask, uint32_t height, uint32_t width,
                                                           uint8_t *png, size_t room, size_t *size);

/* --- Frames of cameras and decoders --------------------------------------------------------------------------------- */

/* Bytes of a pixel in memory, or planes. NV12 and I420 have a chroma sample for two by two pixels. */
typedef int32_t gmsrt_format;
enum {
    GMSRT_RGB = 0,
    GMSRT_BGR = 1,  /* OpenCV's order */
    GMSRT_RGBA = 2, /* the fourth byte is not looked at */
    GMSRT_BGRA = 3,
    GMSRT_GRAY = 4,
    GMSRT_NV12 = 5, /* planes: Y, then U and V in turn; hardware decoders */
    GMSRT_I420 = 6  /* planes: Y, U, V; FFmpeg's yuv420p */
};

/* How Y, U and V were made of colours; other formats do not need it. The frame does not say it, its source does: a
 * decoder's colorspace and color_range. Without either, video is limited, and BT.601 below 720 lines, BT.709 above. */
typedef int32_t gmsrt_matrix;
enum { GMSRT_BT601 = 0, GMSRT_BT709 = 1 };
typedef int32_t gmsrt_range;
enum {
    GMSRT_LIMITED = 0, /* Y 16..235, "tv" */
    GMSRT_FULL = 1     /* 0..255, "pc", JPEG */
};

/* A frame in the caller's memory, and the region of it that is wanted. Fill with gmsrt_frame_init. */
typedef struct gmsrt_frame {
    size_t struct_size; /* set by gmsrt_frame_init */
    gmsrt_format format;
    gmsrt_matrix matrix;
    gmsrt_range range;
    uint32_t reserved;                    /* 0 */
    uint32_t width, height;               /* of the whole frame, each 1 to 32768; odd ones, too */
    uint32_t x, y;                        /* of the region's first pixel, from the top left; odd ones, too */
    uint32_t region_width, region_height; /* with x and y all 0: the whole frame */
    const uint8_t *planes[3];
    size_t strides[3]; /* bytes from a row to the next; what is between the rows is not read */
} gmsrt_frame;

GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_frame_init(gmsrt_frame *frame, size_t size);

/* The frame's region as RGB, region_height rows of region_width * 3 bytes; `stride` bytes from a row to the next, 0: no
 * gap. The same bytes as OpenCV's cvtColor gives, for NV12 and I420 in BT.601, limited (COLOR_YUV2RGB_NV12); the other
 * three follow their standards in the same integers, rounded. Chroma is not interpolated. Nothing is allocated. `rgb` must
 * not overlap the planes.
 * Threads: any, it shares nothing. A frame that does not fit its planes is GMSRT_INVALID_ARGUMENT, with what is wrong. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_rgb_from_frame(const gmsrt_frame *frame, uint8_t *rgb, size_t stride);

/* --- Inferences that the caller does not wait for ---------------------------------------------------------------------
 *
 * Submit hands an inference to threads of the runner, one for each lane, which the first submit starts. Nothing is
 * allocated after that. Images, masks and `user` stay the caller's and must be left alone until the inference is done:
 * until the callback was called, or gmsrt_wait has returned its result. */

/* A submitted inference; never 0. */
typedef uint64_t gmsrt_ticket;

/* Submitted inferences of one runner that are not done, or done and not waited for: at most this many. */
#define GMSRT_MAX_JOBS 64u

/* Called on a thread of the runner when an inference is done: the masks are written, or `status` and `message` (valid
 * during the call) say why not. Until it returns, the lane's thread does nothing else. It may submit, also the next frame
 * into the same memory. It cannot wait for an inference of the same runner (gmsrt_wait is GMSRT_INVALID_ARGUMENT) nor close
 * that (gmsrt_close does nothing). */
typedef void (*gmsrt_done)(void *user, gmsrt_status status, const char *message);

/* Segment `count` images, at least one, as gmsrt_infer does, and return at once. Give `done`, `ticket` or both. Without
 * room for another inference it is GMSRT_BUSY, and nothing was submitted: a camera's program drops the frame, others wait
 * for a ticket. Inferences are taken from the queue in the order of their submission; with one lane they also end in it,
 * with several two that are next to each other may begin and end the other way round. While gmsrt_close waits, a callback's
 * submit is GMSRT_CANCELLED. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_submit(gmsrt_runner *runner, const uint8_t *images, size_t count,
                                                    uint8_t *masks, gmsrt_done done, void *user, gmsrt_ticket *ticket);

/* Wait until a submitted inference is done (and its callback has returned), at most so long; negative: for ever, 0: only
 * ask. Gives the inference's own status and message, once: the ticket is no longer valid then. GMSRT_TIMED_OUT leaves the
 * ticket valid and the inference running. gmsrt_close waits for whatever was submitted. */
GMSRT_NODISCARD GMSRT_API gmsrt_status gmsrt_wait(gmsrt_runner *runner, gmsrt_ticket ticket, int64_t milliseconds);

#ifdef __cplusplus
}
#endif

#endif /* GMS_RT_H */
