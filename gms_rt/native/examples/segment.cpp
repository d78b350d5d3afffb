// Segment one binary PPM image with the CPU graph of an engine folder, with the owners and exceptions of gms_rt.hpp.
// The mask is that of `gms-rt infer`, byte for byte, with the engine's own threshold.
//
//     c++ -std=c++17 segment.cpp $(pkg-config --cflags --libs gms_rt) -o segment
//     GMS_RT_OPENVINO=/path/to/libopenvino_c.so ./segment engines/busi-int8 scan.ppm mask.pgm
#include <fstream>
#include <gms_rt.hpp>
#include <iostream>

namespace
{

struct Image {
    std::uint32_t width = 0, height = 0;
    std::vector<std::uint8_t> rgb;
};

Image read_ppm(const std::string &path)
{
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    Image image;
    unsigned most = 0;

    file >> kind >> image.width >> image.height >> most;
    if (!file || kind != "P6" || most != 255 || image.width > 65535 || image.height > 65535)
        throw std::runtime_error(path + " is not an 8-bit binary PPM image");
    file.get();
    image.rgb.resize(std::size_t{image.width} * image.height * 3);
    file.read(reinterpret_cast<char *>(image.rgb.data()), static_cast<std::streamsize>(image.rgb.size()));
    if (!file) throw std::runtime_error(path + " is cut short");
    return image;
}

void segment(const std::string &folder, const std::string &scan, const std::string &result)
{
    const Image image = read_ppm(scan);
    const double threshold = gms_rt::Engine(folder).info().threshold;
    gms_rt::Runner runner = gms_rt::open_cpu(folder);
    const std::vector<std::uint8_t> mask = runner.mask(image.rgb, image.height, image.width, threshold);
    std::ofstream file(result, std::ios::binary);

    file << "P5\n" << image.width << ' ' << image.height << "\n255\n";
    file.write(reinterpret_cast<const char *>(mask.data()), static_cast<std::streamsize>(mask.size()));
    if (!file.flush()) throw std::runtime_error(result + " cannot be written");
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 4) {
        std::cerr << "usage: segment ENGINE IMAGE.ppm MASK.pgm\n";
        return 2;
    }
    try {
        segment(argv[1], argv[2], argv[3]);
    } catch (const std::exception &error) { // a gms_rt::Error, too
        std::cerr << error.what() << '\n';
        return 1;
    }
    return 0;
}
