/* What the CUDA backend consists of, besides cuda.c. */
#ifndef GMSRT_CUDA_DRIVER_H
#define GMSRT_CUDA_DRIVER_H

#include "cuda_api.h"
#include "internal.h"

/* Open the driver, `path` as in gmsrt_cuda_options.driver, and get a device and the number of devices. */
gmsrt_status gmsrt_cu_start(const char *path, uint32_t ordinal, gmsrt_cuda *cu, int *device, int *count);

gmsrt_status gmsrt_cu_describe(const gmsrt_cuda *cu, int device, gmsrt_device *result);

/* A failed call, with the driver's own message. */
gmsrt_status gmsrt_cu_failed(const gmsrt_cuda *cu, unsigned code, const char *what);

/* After such a code the context answers every call with an error. */
bool gmsrt_cu_ends_context(unsigned code);

#endif
