/* Compiled only: the declarations in src/cuda_api.h against an installed cuda.h. */
#include <cuda.h>

#include "../src/cuda_api.h"

#define SAME(type_a, type_b) __builtin_types_compatible_p(type_a, type_b)
#define ASSERT(name, condition) typedef char assert_##name[(condition) ? 1 : -1] __attribute__((unused))

ASSERT(result, SAME(CUresult, unsigned));
ASSERT(pointer, SAME(CUdeviceptr, gmsrt_cu_pointer));
ASSERT(device, SAME(CUdevice, int));
ASSERT(context, SAME(CUcontext, gmsrt_cu_context));
ASSERT(stream, SAME(CUstream, gmsrt_cu_stream));
ASSERT(event, SAME(CUevent, gmsrt_cu_event));
ASSERT(graph, SAME(CUgraph, gmsrt_cu_graph));
ASSERT(exec, SAME(CUgraphExec, gmsrt_cu_exec));
ASSERT(node, SAME(CUgraphNode, gmsrt_cu_node));

#define CODE(ours, theirs) ASSERT(code_##ours, (int)GMSRT_CU_##ours == (int)theirs)
CODE(SUCCESS, CUDA_SUCCESS);
CODE(OUT_OF_MEMORY, CUDA_ERROR_OUT_OF_MEMORY);
CODE(DEINITIALIZED, CUDA_ERROR_DEINITIALIZED);
CODE(DEVICE_UNAVAILABLE, CUDA_ERROR_DEVICE_UNAVAILABLE);
CODE(NO_DEVICE, CUDA_ERROR_NO_DEVICE);
CODE(INVALID_DEVICE, CUDA_ERROR_INVALID_DEVICE);
CODE(ECC_UNCORRECTABLE, CUDA_ERROR_ECC_UNCORRECTABLE);
#if CUDA_VERSION >= 12080
CODE(CONTAINED, CUDA_ERROR_CONTAINED);
#endif
CODE(NVLINK_UNCORRECTABLE, CUDA_ERROR_NVLINK_UNCORRECTABLE);
CODE(NOT_READY, CUDA_ERROR_NOT_READY);
CODE(ILLEGAL_ADDRESS, CUDA_ERROR_ILLEGAL_ADDRESS);
CODE(LAUNCH_TIMEOUT, CUDA_ERROR_LAUNCH_TIMEOUT);
CODE(CONTEXT_IS_DESTROYED, CUDA_ERROR_CONTEXT_IS_DESTROYED);
CODE(ASSERT, CUDA_ERROR_ASSERT);
CODE(HARDWARE_STACK_ERROR, CUDA_ERROR_HARDWARE_STACK_ERROR);
CODE(ILLEGAL_INSTRUCTION, CUDA_ERROR_ILLEGAL_INSTRUCTION);
CODE(MISALIGNED_ADDRESS, CUDA_ERROR_MISALIGNED_ADDRESS);
CODE(INVALID_ADDRESS_SPACE, CUDA_ERROR_INVALID_ADDRESS_SPACE);
CODE(INVALID_PC, CUDA_ERROR_INVALID_PC);
CODE(LAUNCH_FAILED, CUDA_ERROR_LAUNCH_FAILED);
#if CUDA_VERSION >= 13000
CODE(TENSOR_MEMORY_LEAK, CUDA_ERROR_TENSOR_MEMORY_LEAK);
#endif
CODE(SYSTEM_NOT_READY, CUDA_ERROR_SYSTEM_NOT_READY);
CODE(UNKNOWN, CUDA_ERROR_UNKNOWN);
CODE(CAPTURE_INVALIDATED, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
CODE(STREAM_NON_BLOCKING, CU_STREAM_NON_BLOCKING);
CODE(CAPTURE_THREAD_LOCAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
CODE(EVENT_DEFAULT, CU_EVENT_DEFAULT);
CODE(ATTRIBUTE_INTEGRATED, CU_DEVICE_ATTRIBUTE_INTEGRATED);
CODE(ATTRIBUTE_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
CODE(ATTRIBUTE_MINOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);

/* Where cuda.h maps a plain name to a newer variant, the arguments of that one must still be the same. */
#define FUNCTION(plain, arguments)                                                                                     \
    typedef unsigned(*type_of_##plain) arguments;                                                                      \
    ASSERT(function_##plain, SAME(__typeof__(&plain), type_of_##plain))
#define X(name, arguments) FUNCTION(name, arguments);
GMSRT_CUDA_FUNCTIONS(X)
