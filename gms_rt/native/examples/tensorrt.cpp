// Segment raw RGB images of the network's size on an NVIDIA GPU, with TensorRT's own API.
//
//     c++ -std=c++17 tensorrt.cpp $(pkg-config --cflags --libs gms_rt) -lnvinfer -o segment-gpu
//     ./segment-gpu engines/busi-fp16 < images.rgb > masks.gray
//
// gms_rt finds the plan that fits this GPU and this TensorRT, refuses one that nobody vouches for, and gives the bytes
// only after it has compared their hash: TensorRT deserialises nothing else. TensorRT then runs inside two callbacks;
// gms_rt owns stream, memory, warm-up, CUDA graph and copies. The CUDA runtime's headers come with TensorRT's.
#include <NvInfer.h>

#include <cstdio>
#include <cstdlib>
#include <gms_rt.hpp>
#include <memory>

namespace
{

class Logger : public nvinfer1::ILogger
{
    void log(Severity severity, const char *message) noexcept override
    {
        if (severity <= Severity::kWARNING) std::fprintf(stderr, "TensorRT: %s\n", message);
    }
};

// TensorRT keeps the first logger that it is given, so there is one, and it lives as long as the program.
Logger logger;

// A plan with an execution context for every lane. It must live until the runner is closed.
struct Network {
    std::unique_ptr<nvinfer1::IRuntime> runtime;
    std::unique_ptr<nvinfer1::ICudaEngine> engine;
    std::vector<std::unique_ptr<nvinfer1::IExecutionContext>> contexts;
    nvinfer1::Dims4 shape;
};

Network load(const gms_rt::Bytes &plan, const gmsrt_engine_info &info, std::uint32_t lanes)
{
    Network network;

    network.shape =
        nvinfer1::Dims4(static_cast<int>(info.batch), static_cast<int>(info.height), static_cast<int>(info.width), 3);
    network.runtime.reset(nvinfer1::createInferRuntime(logger));
    if (network.runtime) network.engine.reset(network.runtime->deserializeCudaEngine(plan.data(), plan.size()));
    if (!network.engine) throw std::runtime_error("TensorRT does not take the plan");
    for (std::uint32_t lane = 0; lane < lanes; lane++) {
        network.contexts.emplace_back(network.engine->createExecutionContext());
        if (!network.contexts.back()) throw std::runtime_error("TensorRT has no memory for a context");
    }
    return network;
}

// Called once for each lane: the addresses never change, so they are bound here.
int prepare(void *user, const gmsrt_cuda_lane *lane)
{
    const Network &network = *static_cast<Network *>(user);
    nvinfer1::IExecutionContext &context = *network.contexts[lane->index];
    void *const images = reinterpret_cast<void *>(static_cast<std::uintptr_t>(lane->images));
    void *const masks = reinterpret_cast<void *>(static_cast<std::uintptr_t>(lane->masks));

    return context.setInputShape("image", network.shape) && context.setTensorAddress("image", images) &&
                   context.setTensorAddress("mask", masks)
               ? 0
               : 1;
}

// Called to warm up, and to capture the CUDA graph that is replayed from then on.
int enqueue(void *user, const gmsrt_cuda_lane *lane)
{
    const Network &network = *static_cast<Network *>(user);

    return network.contexts[lane->index]->enqueueV3(static_cast<cudaStream_t>(lane->stream)) ? 0 : 1;
}

// A kernel that does not end holds what it uses, and freeing that would wait for it: then the process ends at once.
void infer(gms_rt::Runner &runner, const std::uint8_t *images, std::uint8_t *masks)
{
    const gmsrt_status status = gmsrt_infer(runner.get(), images, 1, masks);

    if (status == GMSRT_DEVICE_HUNG) {
        std::fprintf(stderr, "%s\n", gmsrt_last_error());
        std::_Exit(1);
    }
    gms_rt::check(status);
}

void segment(const char *folder)
{
    const std::string version = std::to_string(NV_TENSORRT_MAJOR) + "." + std::to_string(NV_TENSORRT_MINOR) + "." +
                                std::to_string(NV_TENSORRT_PATCH) + "." + std::to_string(NV_TENSORRT_BUILD);
    const gms_rt::Engine engine(folder);
    const gmsrt_engine_info info = engine.info();
    gms_rt::SelectOptions wanted;

    wanted.device = "cuda";
    wanted.tensorrt = version.c_str();
    const gmsrt_plan plan = engine.select(wanted);
    std::fprintf(stderr, "%s: %s on GPU %d, foreground from probability %g\n", info.name, plan.file, plan.gpu,
                 info.threshold);

    gms_rt::CudaOptions options;
    Network network = load(engine.read(plan.file), info, options.lanes);
    options.device = static_cast<std::uint32_t>(plan.gpu);
    options.batch = info.batch;
    options.height = info.height;
    options.width = info.width;
    options.prepare = prepare;
    options.enqueue = enqueue;
    options.user = &network;
    gms_rt::Runner runner = gms_rt::open_cuda(options); // closed before the network goes

    std::vector<std::uint8_t> images(std::size_t{info.height} * info.width * 3), masks(images.size() / 3);
    while (std::fread(images.data(), images.size(), 1, stdin) == 1) {
        infer(runner, images.data(), masks.data());
        if (std::fwrite(masks.data(), masks.size(), 1, stdout) != 1) throw std::runtime_error("cannot write the mask");
    }
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 2) {
        std::fprintf(stderr, "usage: segment-gpu ENGINE < IMAGES > MASKS\n");
        return 2;
    }
    try {
        segment(argv[1]);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
