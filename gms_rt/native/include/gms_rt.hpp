// gms_rt.hpp: gms_rt.h with owners that release, values instead of out pointers, and exceptions. C++17, header only.
//
//     gms_rt::Runner runner = gms_rt::open_cpu("engines/busi-int8");
//     const gmsrt_info info = runner.info();                     // info.height, info.width: the network's size
//     std::vector<std::uint8_t> masks = runner.infer(images, n); // images: n * height * width * 3 bytes RGB
//
// A failure is a gms_rt::Error with the library's status and its one line of text. Exceptions, because a constructor
// that cannot open has nothing else to say it with, C++17 has no std::expected, and a status that is forgotten in medical
// software is worse than a program that ends. What is no failure is a result: submit() without room, wait() without an
// answer yet. A program without exceptions calls gms_rt.h itself, and get() gives every handle.
//
// Threads: as gms_rt.h says. Owners are moved, never copied; one that was moved from may only be destroyed or assigned.
#ifndef GMS_RT_HPP
#define GMS_RT_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "gms_rt.h"

namespace gms_rt
{

// What failed: its status, and the library's message as what().
class Error : public std::runtime_error
{
  public:
    Error(gmsrt_status status, const std::string &message) : std::runtime_error(message), status_(status)
    {
    }

    [[nodiscard]] gmsrt_status status() const noexcept
    {
        return status_;
    }

  private:
    gmsrt_status status_;
};

// Throw for every status but GMSRT_OK.
inline void check(gmsrt_status status)
{
    if (status != GMSRT_OK) throw Error(status, gmsrt_last_error());
}

// The C structures with their defaults filled in; fields are set as in C.
struct CpuOptions : gmsrt_cpu_options {
    CpuOptions() : gmsrt_cpu_options{}
    {
        check(gmsrt_cpu_options_init(this, sizeof(gmsrt_cpu_options)));
    }
};

struct CudaOptions : gmsrt_cuda_options {
    CudaOptions() : gmsrt_cuda_options{}
    {
        check(gmsrt_cuda_options_init(this, sizeof(gmsrt_cuda_options)));
    }
};

struct SelectOptions : gmsrt_select_options {
    SelectOptions() : gmsrt_select_options{}
    {
        check(gmsrt_select_options_init(this, sizeof(gmsrt_select_options)));
    }
};

struct Frame : gmsrt_frame {
    Frame() : gmsrt_frame{}
    {
        check(gmsrt_frame_init(this, sizeof(gmsrt_frame)));
    }
};

// The frame's region as RGB without gaps; `rgb` is made to fit, and keeps its memory from frame to frame.
inline void rgb_from_frame(const gmsrt_frame &frame, std::vector<std::uint8_t> &rgb)
{
    const bool whole = frame.x == 0 && frame.y == 0 && frame.region_width == 0 && frame.region_height == 0;
    const std::size_t width = whole ? frame.width : frame.region_width;
    const std::size_t height = whole ? frame.height : frame.region_height;

    if (width > 32768 || height > 32768) throw Error(GMSRT_INVALID_ARGUMENT, "a side of the frame is above 32768");
    rgb.resize(width * height * 3 + 1); // never empty: an empty region is refused by the call
    check(gmsrt_rgb_from_frame(&frame, rgb.data(), 0));
    rgb.pop_back();
}

// An RGB image of another size, as the Python package resizes it.
[[nodiscard]] inline std::vector<std::uint8_t> resize_image(const std::vector<std::uint8_t> &rgb, std::uint32_t height,
                                                            std::uint32_t width, std::uint32_t to_height,
                                                            std::uint32_t to_width)
{
    if (rgb.size() / 3 != std::size_t{height} * width)
        throw Error(GMSRT_INVALID_ARGUMENT, std::to_string(rgb.size()) + " bytes are not an RGB image of " +
                                                std::to_string(width) + " by " + std::to_string(height));
    std::vector<std::uint8_t> result(std::size_t{to_height} * to_width * 3 + 1); // never empty
    check(gmsrt_resize_image(rgb.data(), height, width, 3, result.data(), to_height, to_width));
    result.pop_back();
    return result;
}

// What gms_rt.h's checks of a mask need: as many bytes as pixels.
inline void check_mask(const std::vector<std::uint8_t> &mask, std::uint32_t height, std::uint32_t width)
{
    if (mask.empty() || mask.size() != std::uint64_t{height} * width)
        throw Error(GMSRT_INVALID_ARGUMENT, std::to_string(mask.size()) + " bytes are not a mask of " +
                                                std::to_string(width) + " by " + std::to_string(height));
}

// A mask's area, regions, box and centre.
[[nodiscard]] inline gmsrt_measures measure_mask(const std::vector<std::uint8_t> &mask, std::uint32_t height,
                                                 std::uint32_t width)
{
    gmsrt_measures result{};

    check_mask(mask, height, width);
    check(gmsrt_measure_mask(mask.data(), height, width, &result, sizeof result));
    return result;
}

// A mask as the bytes of a PNG file.
[[nodiscard]] inline std::vector<std::uint8_t> png_from_mask(const std::vector<std::uint8_t> &mask,
                                                             std::uint32_t height, std::uint32_t width)
{
    std::size_t size = 0;

    check_mask(mask, height, width);
    std::vector<std::uint8_t> png(gmsrt_png_room(height, width) + 1); // never empty: such a size is refused by the call
    check(gmsrt_png_from_mask(mask.data(), height, width, png.data(), png.size() - 1, &size));
    png.resize(size);
    return png;
}

// A graph that is open on a device. Closed with the last owner; inferences that were submitted are waited for.
class Runner
{
  public:
    // Takes over what gmsrt_open_* gave.
    explicit Runner(gmsrt_runner *runner) noexcept : runner_(runner)
    {
    }

    [[nodiscard]] gmsrt_info info() const
    {
        gmsrt_info found{};

        check(gmsrt_get_info(runner_.get(), &found, sizeof found));
        return found;
    }

    void infer(const std::uint8_t *images, std::size_t count, std::uint8_t *masks)
    {
        check(gmsrt_infer(runner_.get(), images, count, masks));
    }

    // `count` images into new memory. The vector must have that many images.
    [[nodiscard]] std::vector<std::uint8_t> infer(const std::vector<std::uint8_t> &images, std::size_t count = 1)
    {
        const gmsrt_info about = info();
        const std::size_t pixels = std::size_t{about.height} * about.width;

        if (count > images.size() / (pixels * 3))
            throw Error(GMSRT_INVALID_ARGUMENT, std::to_string(images.size()) + " bytes are fewer than " +
                                                    std::to_string(count) + " images of " + std::to_string(pixels * 3) +
                                                    " bytes");
        std::vector<std::uint8_t> masks(count * pixels);
        infer(images.data(), count, masks.data());
        return masks;
    }

    // The foreground of one RGB image of any size, at its size, 0 or 255: the mask of `gms-rt infer`.
    [[nodiscard]] std::vector<std::uint8_t> mask(const std::vector<std::uint8_t> &rgb, std::uint32_t height,
                                                 std::uint32_t width, double threshold = 0.5)
    {
        const gmsrt_info about = info();
        const std::vector<std::uint8_t> levels = infer(resize_image(rgb, height, width, about.height, about.width));
        std::vector<std::uint8_t> result(rgb.size() / 3);

        check(
            gmsrt_mask_from_levels(levels.data(), about.height, about.width, threshold, result.data(), height, width));
        return result;
    }

    // Submit, for wait(); nothing where as much is under way as can be: drop the frame, or wait for another.
    [[nodiscard]] std::optional<gmsrt_ticket> submit(const std::uint8_t *images, std::size_t count, std::uint8_t *masks)
    {
        gmsrt_ticket ticket = 0;
        const gmsrt_status status = gmsrt_submit(runner_.get(), images, count, masks, nullptr, nullptr, &ticket);

        if (status == GMSRT_BUSY) return std::nullopt;
        check(status);
        return ticket;
    }

    // Submit, with a call when it is done. The call must not throw: it comes from C. False: no room. A call that submits
    // the next one itself does so with gmsrt_submit and what get() gave: this owner may be on its way to its end.
    [[nodiscard]] bool submit(const std::uint8_t *images, std::size_t count, std::uint8_t *masks, gmsrt_done done,
                              void *user)
    {
        const gmsrt_status status = gmsrt_submit(runner_.get(), images, count, masks, done, user, nullptr);

        if (status == GMSRT_BUSY) return false;
        check(status);
        return true;
    }

    // Whether it is done within that time; its failure is thrown here.
    [[nodiscard]] bool wait_for(gmsrt_ticket ticket, std::chrono::milliseconds time)
    {
        const std::int64_t milliseconds = time.count() > 0 ? std::int64_t{time.count()} : 0;
        const gmsrt_status status = gmsrt_wait(runner_.get(), ticket, milliseconds);

        if (status == GMSRT_TIMED_OUT) return false;
        check(status);
        return true;
    }

    void wait(gmsrt_ticket ticket)
    {
        check(gmsrt_wait(runner_.get(), ticket, -1));
    }

    void set_lanes(std::uint32_t lanes)
    {
        check(gmsrt_set_lanes(runner_.get(), lanes));
    }

    [[nodiscard]] gmsrt_runner *get() const noexcept
    {
        return runner_.get();
    }

  private:
    struct Close {
        void operator()(gmsrt_runner *runner) const noexcept
        {
            gmsrt_close(runner);
        }
    };
    std::unique_ptr<gmsrt_runner, Close> runner_;
};

[[nodiscard]] inline Runner open_cpu(const std::string &graph, const gmsrt_cpu_options &options = CpuOptions())
{
    gmsrt_runner *runner = nullptr;

    check(gmsrt_open_cpu(graph.c_str(), &options, &runner));
    return Runner(runner);
}

[[nodiscard]] inline Runner open_cuda(const gmsrt_cuda_options &options)
{
    gmsrt_runner *runner = nullptr;

    check(gmsrt_open_cuda(&options, &runner));
    return Runner(runner);
}

// The content of an engine's file, as it was compared with the manifest.
class Bytes
{
  public:
    // Takes over what gmsrt_engine_read gave.
    Bytes(void *bytes, std::size_t size) noexcept : bytes_(bytes), size_(size)
    {
    }

    [[nodiscard]] const void *data() const noexcept
    {
        return bytes_.get();
    }

    [[nodiscard]] std::size_t size() const noexcept
    {
        return size_;
    }

  private:
    struct Free {
        void operator()(void *bytes) const noexcept
        {
            gmsrt_free(bytes);
        }
    };
    std::unique_ptr<void, Free> bytes_;
    std::size_t size_;
};

// An engine folder whose manifest was read and checked. Texts in what it gives are valid as long as it is.
class Engine
{
  public:
    explicit Engine(const std::string &folder)
    {
        gmsrt_engine *engine = nullptr;

        check(gmsrt_engine_open(folder.c_str(), &engine));
        engine_.reset(engine);
    }

    [[nodiscard]] gmsrt_engine_info info() const
    {
        gmsrt_engine_info found{};

        check(gmsrt_engine_get_info(engine_.get(), &found, sizeof found));
        return found;
    }

    [[nodiscard]] std::vector<gmsrt_class> classes() const
    {
        std::vector<gmsrt_class> found(info().classes);

        for (std::uint32_t i = 0; i < found.size(); i++)
            check(gmsrt_engine_get_class(engine_.get(), i, &found[i], sizeof found[i]));
        return found;
    }

    // All ways to run it, and whether each fits what `options` say.
    [[nodiscard]] std::vector<gmsrt_plan> plans(const gmsrt_select_options &options = SelectOptions()) const
    {
        std::vector<gmsrt_plan> found(info().plans);

        for (std::uint32_t i = 0; i < found.size(); i++)
            check(gmsrt_engine_get_plan(engine_.get(), i, &options, &found[i], sizeof found[i]));
        return found;
    }

    // The way that the Python package would take.
    [[nodiscard]] gmsrt_plan select(const gmsrt_select_options &options = SelectOptions()) const
    {
        gmsrt_plan found{};

        check(gmsrt_engine_select(engine_.get(), &options, &found, sizeof found));
        return found;
    }

    [[nodiscard]] Bytes read(const std::string &file) const
    {
        void *bytes = nullptr;
        std::size_t size = 0;

        check(gmsrt_engine_read(engine_.get(), file.c_str(), &bytes, &size));
        return Bytes(bytes, size);
    }

    [[nodiscard]] gmsrt_engine *get() const noexcept
    {
        return engine_.get();
    }

  private:
    struct Close {
        void operator()(gmsrt_engine *engine) const noexcept
        {
            gmsrt_engine_close(engine);
        }
    };
    std::unique_ptr<gmsrt_engine, Close> engine_;
};

} // namespace gms_rt

#endif // GMS_RT_HPP
