/* The part of the CUDA driver API that is used, declared here so that building needs no CUDA header.
 *
 * tests/conformance_cuda.c compares every line with cuda.h where one is installed. Names carry the _v2 with which the
 * driver library exports them. */
#ifndef GMSRT_CUDA_API_H
#define GMSRT_CUDA_API_H

#include <stddef.h>

typedef struct CUctx_st *gmsrt_cu_context;
typedef struct CUstream_st *gmsrt_cu_stream;
typedef struct CUevent_st *gmsrt_cu_event;
typedef struct CUgraph_st *gmsrt_cu_graph;
typedef struct CUgraphExec_st *gmsrt_cu_exec;
typedef struct CUgraphNode_st *gmsrt_cu_node;
typedef unsigned long long gmsrt_cu_pointer;

enum {
    GMSRT_CU_SUCCESS = 0,
    GMSRT_CU_OUT_OF_MEMORY = 2,
    GMSRT_CU_NOT_INITIALIZED = 3,
    GMSRT_CU_DEINITIALIZED = 4,
    GMSRT_CU_DEVICE_UNAVAILABLE = 46,
    GMSRT_CU_NO_DEVICE = 100,
    GMSRT_CU_INVALID_DEVICE = 101,
    GMSRT_CU_ECC_UNCORRECTABLE = 214,
    GMSRT_CU_NVLINK_UNCORRECTABLE = 220,
    GMSRT_CU_CONTAINED = 226,
    GMSRT_CU_NOT_READY = 600,
    GMSRT_CU_ILLEGAL_ADDRESS = 700,
    GMSRT_CU_LAUNCH_TIMEOUT = 702,
    GMSRT_CU_CONTEXT_IS_DESTROYED = 709,
    GMSRT_CU_ASSERT = 710,
    GMSRT_CU_HARDWARE_STACK_ERROR = 714,
    GMSRT_CU_ILLEGAL_INSTRUCTION = 715,
    GMSRT_CU_MISALIGNED_ADDRESS = 716,
    GMSRT_CU_INVALID_ADDRESS_SPACE = 717,
    GMSRT_CU_INVALID_PC = 718,
    GMSRT_CU_LAUNCH_FAILED = 719,
    GMSRT_CU_TENSOR_MEMORY_LEAK = 721,
    GMSRT_CU_SYSTEM_NOT_READY = 802,
    GMSRT_CU_CAPTURE_INVALIDATED = 901,
    GMSRT_CU_UNKNOWN = 999
};

#define GMSRT_CU_STREAM_NON_BLOCKING 1u
#define GMSRT_CU_CAPTURE_THREAD_LOCAL 1u
#define GMSRT_CU_EVENT_DEFAULT 0u
#define GMSRT_CU_ATTRIBUTE_INTEGRATED 18u
#define GMSRT_CU_ATTRIBUTE_MAJOR 75u
#define GMSRT_CU_ATTRIBUTE_MINOR 76u

/* X(name, arguments): all of them return a CUresult. */
#define GMSRT_CUDA_FUNCTIONS(X)                                                                                        \
    X(cuGetErrorName, (unsigned, const char **))                                                                       \
    X(cuGetErrorString, (unsigned, const char **))                                                                     \
    X(cuInit, (unsigned))                                                                                              \
    X(cuDriverGetVersion, (int *))                                                                                     \
    X(cuDeviceGetCount, (int *))                                                                                       \
    X(cuDeviceGet, (int *, int))                                                                                       \
    X(cuDeviceGetName, (char *, int, int))                                                                             \
    X(cuDeviceGetAttribute, (int *, unsigned, int))                                                                    \
    X(cuDeviceTotalMem_v2, (size_t *, int))                                                                            \
    X(cuDevicePrimaryCtxRetain, (gmsrt_cu_context *, int))                                                             \
    X(cuDevicePrimaryCtxRelease_v2, (int))                                                                             \
    X(cuCtxPushCurrent_v2, (gmsrt_cu_context))                                                                         \
    X(cuCtxPopCurrent_v2, (gmsrt_cu_context *))                                                                        \
    X(cuMemAlloc_v2, (gmsrt_cu_pointer *, size_t))                                                                     \
    X(cuMemFree_v2, (gmsrt_cu_pointer))                                                                                \
    X(cuMemHostAlloc, (void **, size_t, unsigned))                                                                     \
    X(cuMemFreeHost, (void *))                                                                                         \
    X(cuMemcpyHtoDAsync_v2, (gmsrt_cu_pointer, const void *, size_t, gmsrt_cu_stream))                                 \
    X(cuMemcpyDtoHAsync_v2, (void *, gmsrt_cu_pointer, size_t, gmsrt_cu_stream))                                       \
    X(cuStreamCreate, (gmsrt_cu_stream *, unsigned))                                                                   \
    X(cuStreamDestroy_v2, (gmsrt_cu_stream))                                                                           \
    X(cuStreamSynchronize, (gmsrt_cu_stream))                                                                          \
    X(cuStreamQuery, (gmsrt_cu_stream))                                                                                \
    X(cuStreamBeginCapture_v2, (gmsrt_cu_stream, unsigned))                                                            \
    X(cuStreamEndCapture, (gmsrt_cu_stream, gmsrt_cu_graph *))                                                         \
    X(cuGraphGetNodes, (gmsrt_cu_graph, gmsrt_cu_node *, size_t *))                                                    \
    X(cuGraphInstantiateWithFlags, (gmsrt_cu_exec *, gmsrt_cu_graph, unsigned long long))                              \
    X(cuGraphDestroy, (gmsrt_cu_graph))                                                                                \
    X(cuGraphExecDestroy, (gmsrt_cu_exec))                                                                             \
    X(cuGraphLaunch, (gmsrt_cu_exec, gmsrt_cu_stream))                                                                 \
    X(cuEventCreate, (gmsrt_cu_event *, unsigned))                                                                     \
    X(cuEventDestroy_v2, (gmsrt_cu_event))                                                                             \
    X(cuEventRecord, (gmsrt_cu_event, gmsrt_cu_stream))                                                                \
    X(cuEventSynchronize, (gmsrt_cu_event))                                                                            \
    X(cuEventQuery, (gmsrt_cu_event))                                                                                  \
    X(cuEventElapsedTime, (float *, gmsrt_cu_event, gmsrt_cu_event))

typedef struct gmsrt_cuda {
#define GMSRT_CU_MEMBER(name, arguments) unsigned(*name) arguments;
    GMSRT_CUDA_FUNCTIONS(GMSRT_CU_MEMBER)
#undef GMSRT_CU_MEMBER
} gmsrt_cuda;

#endif
