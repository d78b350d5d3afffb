/* The CUDA driver: opened at run time, its devices described, its failures as statuses. */
#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

#include "cuda_driver.h"

static gmsrt_status load_driver(const char *path, gmsrt_cuda *cu)
{
    const char *chosen = path != NULL ? path : "libcuda.so.1";
    void *library = dlopen(chosen, RTLD_NOW | RTLD_LOCAL); /* never closed: others in the process may use it */

    if (library == NULL)
        return gmsrt_fail(GMSRT_NO_RUNTIME, "no CUDA driver: %s; install NVIDIA's driver or use the CPU", dlerror());
#define RESOLVE(name, arguments)                                                                                       \
    *(void **)&cu->name = dlsym(library, #name);                                                                       \
    if (cu->name == NULL)                                                                                              \
        return gmsrt_fail(GMSRT_NO_RUNTIME, "%s has no function %s; CUDA 11.4 or newer is needed", chosen, #name);
    GMSRT_CUDA_FUNCTIONS(RESOLVE)
#undef RESOLVE
    return GMSRT_OK;
}

bool gmsrt_cu_ends_context(unsigned code)
{
    switch (code) {
    case GMSRT_CU_DEINITIALIZED:
    case GMSRT_CU_ECC_UNCORRECTABLE:
    case GMSRT_CU_NVLINK_UNCORRECTABLE:
    case GMSRT_CU_CONTAINED:
    case GMSRT_CU_ILLEGAL_ADDRESS:
    case GMSRT_CU_LAUNCH_TIMEOUT:
    case GMSRT_CU_CONTEXT_IS_DESTROYED:
    case GMSRT_CU_ASSERT:
    case GMSRT_CU_HARDWARE_STACK_ERROR:
    case GMSRT_CU_ILLEGAL_INSTRUCTION:
    case GMSRT_CU_MISALIGNED_ADDRESS:
    case GMSRT_CU_INVALID_ADDRESS_SPACE:
    case GMSRT_CU_INVALID_PC:
    case GMSRT_CU_LAUNCH_FAILED:
    case GMSRT_CU_TENSOR_MEMORY_LEAK:
    case GMSRT_CU_SYSTEM_NOT_READY:
    case GMSRT_CU_UNKNOWN: return true;
    default: return false;
    }
}

gmsrt_status gmsrt_cu_failed(const gmsrt_cuda *cu, unsigned code, const char *what)
{
    const char *name = NULL, *words = NULL, *fix = "";
    gmsrt_status status = GMSRT_RUNTIME_FAILED;

    if (code == GMSRT_CU_OUT_OF_MEMORY) status = GMSRT_OUT_OF_MEMORY;
    if (code == GMSRT_CU_NO_DEVICE || code == GMSRT_CU_INVALID_DEVICE) status = GMSRT_NO_DEVICE;
    if (code == GMSRT_CU_NOT_INITIALIZED)
        fix = "; a fork of a process that uses CUDA cannot use it: the new process must start afresh, with exec";
    if (code == GMSRT_CU_DEVICE_UNAVAILABLE) {
        status = GMSRT_DEVICE_BUSY;
        fix = "; another process has the device for itself: end it, or leave the exclusive compute mode";
    }
    if (gmsrt_cu_ends_context(code)) {
        status = GMSRT_DEVICE_LOST;
        fix = "; only a new process can use the device again";
    }
    cu->cuGetErrorName(code, &name);
    cu->cuGetErrorString(code, &words);
    return gmsrt_fail(status, "%s: %s (%u), %s%s", what, name != NULL ? name : "unknown CUDA error", code,
                      words != NULL ? words : "no description", fix);
}

gmsrt_status gmsrt_cu_start(const char *path, uint32_t ordinal, gmsrt_cuda *cu, int *device, int *count)
{
    gmsrt_status status = load_driver(path, cu);
    unsigned code;

    if (status != GMSRT_OK) return status;
    if ((code = cu->cuInit(0)) == GMSRT_CU_SYSTEM_NOT_READY) /* nothing is lost yet: it may start later */
        return gmsrt_fail(GMSRT_NO_DEVICE,
                          "the CUDA driver is not ready (%u); on a machine with NVSwitch start "
                          "nvidia-fabricmanager, then a new process",
                          code);
    if (code != GMSRT_CU_SUCCESS) return gmsrt_cu_failed(cu, code, "the CUDA driver does not start");
    if ((code = cu->cuDeviceGetCount(count)) != GMSRT_CU_SUCCESS)
        return gmsrt_cu_failed(cu, code, "the CUDA driver does not tell its devices");
    if (*count < 1) return gmsrt_fail(GMSRT_NO_DEVICE, "the CUDA driver finds no device");
    if (ordinal >= (uint32_t)*count)
        return gmsrt_fail(GMSRT_NO_DEVICE, "there is no CUDA device %u; this machine has 0 to %d", ordinal, *count - 1);
    if ((code = cu->cuDeviceGet(device, (int)ordinal)) != GMSRT_CU_SUCCESS)
        return gmsrt_cu_failed(cu, code, "the CUDA device cannot be used");
    return GMSRT_OK;
}

gmsrt_status gmsrt_cu_describe(const gmsrt_cuda *cu, int device, gmsrt_device *result)
{
    int major = 0, minor = 0, integrated = 0, driver = 0;
    size_t memory = 0;
    char name[sizeof result->name] = "";
    unsigned code = cu->cuDeviceGetName(name, (int)sizeof name - 1, device);

    if (code == GMSRT_CU_SUCCESS) code = cu->cuDeviceGetAttribute(&major, GMSRT_CU_ATTRIBUTE_MAJOR, device);
    if (code == GMSRT_CU_SUCCESS) code = cu->cuDeviceGetAttribute(&minor, GMSRT_CU_ATTRIBUTE_MINOR, device);
    if (code == GMSRT_CU_SUCCESS) code = cu->cuDeviceGetAttribute(&integrated, GMSRT_CU_ATTRIBUTE_INTEGRATED, device);
    if (code == GMSRT_CU_SUCCESS) code = cu->cuDeviceTotalMem_v2(&memory, device);
    if (code == GMSRT_CU_SUCCESS) code = cu->cuDriverGetVersion(&driver);
    if (code != GMSRT_CU_SUCCESS) return gmsrt_cu_failed(cu, code, "the CUDA device does not describe itself");
    result->sm = (uint32_t)(major * 10 + minor);
    result->driver = (uint32_t)driver;
    result->integrated = integrated != 0;
    result->memory = memory;
    gmsrt_copy_text(result->name, sizeof result->name, name);
    return GMSRT_OK;
}

gmsrt_status gmsrt_probe_cuda(const char *driver, uint32_t device, gmsrt_device *result, size_t size)
{
    const gmsrt_layout layout = {sizeof *result, offsetof(gmsrt_device, name),
                                 offsetof(gmsrt_device, name) + sizeof result->name};
    gmsrt_cuda cu;
    gmsrt_device found;
    int handle = 0, count = 0;
    gmsrt_status status = gmsrt_struct_room(result, size, "gmsrt_device");

    if (status != GMSRT_OK) return status;
    memset(&found, 0, sizeof found);
    status = gmsrt_cu_start(driver, device, &cu, &handle, &count);
    if (status == GMSRT_OK) status = gmsrt_cu_describe(&cu, handle, &found);
    if (status != GMSRT_OK) return status;
    found.count = (uint32_t)count;
    gmsrt_struct_give(result, size, &found, layout);
    return GMSRT_OK;
}
