// As much of TensorRT's C++ API as examples/tensorrt.cpp calls, written for the tests: no text of NVIDIA's is in it.
// NvInfer.cpp is the library: a plan is the word "plan", a space and a text, and an inference copies the first bytes of
// the images to the masks.
#ifndef GMSRT_TEST_NVINFER_H
#define GMSRT_TEST_NVINFER_H

#include <cstddef>
#include <cstdint>

#define NV_TENSORRT_MAJOR 10
#define NV_TENSORRT_MINOR 13
#define NV_TENSORRT_PATCH 3
#define NV_TENSORRT_BUILD 9

typedef struct CUstream_st *cudaStream_t;

namespace nvinfer1
{

class Dims4
{
  public:
    Dims4() : d{}
    {
    }
    Dims4(std::int64_t d0, std::int64_t d1, std::int64_t d2, std::int64_t d3) : nbDims(4), d{d0, d1, d2, d3}
    {
    }
    std::int32_t nbDims = 4;
    std::int64_t d[8];
};

class ILogger
{
  public:
    enum class Severity : std::int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
    virtual void log(Severity severity, const char *message) noexcept = 0;
    virtual ~ILogger() = default;
};

class IExecutionContext
{
  public:
    virtual ~IExecutionContext() = default;
    virtual bool setInputShape(const char *name, const Dims4 &dims) noexcept = 0;
    virtual bool setTensorAddress(const char *name, void *data) noexcept = 0;
    virtual bool enqueueV3(cudaStream_t stream) noexcept = 0;
};

class ICudaEngine
{
  public:
    virtual ~ICudaEngine() = default;
    virtual IExecutionContext *createExecutionContext() noexcept = 0;
};

class IRuntime
{
  public:
    virtual ~IRuntime() = default;
    virtual ICudaEngine *deserializeCudaEngine(const void *blob, std::size_t size) noexcept = 0;
};

IRuntime *createInferRuntime(ILogger &logger) noexcept;

} // namespace nvinfer1

#endif
