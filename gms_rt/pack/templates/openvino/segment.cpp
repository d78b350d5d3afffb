// Segments one picture with OpenVINO: HEIGHT*WIDTH*3 bytes of RGB on standard input, HEIGHT*WIDTH bytes of
// probability (0 to 255) on standard output. Not for clinical use.
#include <algorithm>
#include <cstdio>
#include <openvino/openvino.hpp>

int main() {
    const ov::Shape shape{@@batch@@, @@height@@, @@width@@, 3};
    ov::Core core;
    auto model = core.compile_model(MODEL_FOLDER "/model.xml", "CPU", {{"INFERENCE_PRECISION_HINT", "@@execution@@"}});
    ov::Tensor image(ov::element::u8, shape);
    std::fill_n(image.data<uint8_t>(), image.get_byte_size(), 0);
    const size_t bytes = shape[1] * shape[2] * shape[3];
    if (std::fread(image.data<uint8_t>(), 1, bytes, stdin) != bytes) return std::fputs("too few bytes\n", stderr), 1;
    auto request = model.create_infer_request();
    request.set_input_tensor(image);
    request.infer();
    std::fwrite(request.get_output_tensor().data<uint8_t>(), 1, shape[1] * shape[2], stdout);
}
