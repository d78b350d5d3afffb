// Segments one picture with ONNX Runtime: HEIGHT*WIDTH*3 bytes of RGB on standard input, HEIGHT*WIDTH bytes of
// probability (0 to 255) on standard output. Not for clinical use.
#include <array>
#include <cstdint>
#include <cstdio>
#include <onnxruntime_cxx_api.h>
#include <vector>

int main() {
    const std::array<int64_t, 4> shape{@@batch@@, @@height@@, @@width@@, 3};
    Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "segment");
    Ort::Session session(env, MODEL_FOLDER "/model.onnx", Ort::SessionOptions{});
    const size_t pixels = shape[1] * shape[2];
    std::vector<uint8_t> image(shape[0] * pixels * 3);
    if (std::fread(image.data(), 1, pixels * 3, stdin) != pixels * 3) return std::fputs("too few bytes\n", stderr), 1;
    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    auto input = Ort::Value::CreateTensor<uint8_t>(memory, image.data(), image.size(), shape.data(), shape.size());
    const char *in = "image", *out = "mask";
    auto answer = session.Run(Ort::RunOptions{}, &in, &input, 1, &out, 1);
    std::fwrite(answer[0].GetTensorData<uint8_t>(), 1, pixels, stdout);
}
