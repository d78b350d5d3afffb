// gms_rt.hpp against a fake OpenVINO: owners release exactly once, failures are exceptions with status and message.
//
// Usage: test_cpp FAKE_OPENVINO FOLDER. The folder is writable.
#include "gms_rt.hpp"

#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <type_traits>

// It is C, where {0} is the whole of a structure.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#include "bytes.h"
#pragma GCC diagnostic pop

static_assert(!std::is_copy_constructible_v<gms_rt::Runner> && std::is_nothrow_move_constructible_v<gms_rt::Runner>);
static_assert(!std::is_copy_constructible_v<gms_rt::Engine> && std::is_nothrow_move_constructible_v<gms_rt::Engine>);
static_assert(!std::is_copy_constructible_v<gms_rt::Bytes>);
static_assert(sizeof(gms_rt::CpuOptions) == sizeof(gmsrt_cpu_options));
static_assert(sizeof(gms_rt::Frame) == sizeof(gmsrt_frame));

namespace
{

struct Fake {
    int (*live)();
    const char *(*mistake)();
    void (*fail)(int, int);
    void (*reset)();
    void (*hold)(int);
};

Fake fake;
gms_rt::CpuOptions options;
std::string graph;
const std::vector<std::uint8_t> image{7, 0, 0, 8, 0, 0, 9, 0, 0, 10, 0, 0};

template <typename Call> void expect_error(gmsrt_status status, const char *said, Call call)
{
    try {
        call();
    } catch (const gms_rt::Error &error) {
        CHECK(error.status() == status, "%s", gmsrt_status_name(error.status()));
        CHECK(std::strstr(error.what(), said) != nullptr, "%s", error.what());
        return;
    }
    CHECK(false, "nothing was thrown: %s", said);
}

void expect_clean()
{
    CHECK(fake.mistake()[0] == '\0', "%s", fake.mistake());
    CHECK(fake.live() == 0, "%d objects are left", fake.live());
}

void expect_mask(const std::vector<std::uint8_t> &mask)
{
    CHECK(mask.size() == 4, "%zu pixels", mask.size());
    for (std::size_t i = 0; i < 4; i++) CHECK(mask[i] == 248 - i, "pixel %zu is %u", i, mask[i]);
}

void test_runner()
{
    {
        gms_rt::Runner runner = gms_rt::open_cpu(graph, options);
        const gmsrt_info info = runner.info();

        CHECK(info.height == 2 && info.width == 2 && info.lanes == 1, "%u by %u", info.height, info.width);
        expect_mask(runner.infer(image));
        gms_rt::Runner moved = std::move(runner);
        expect_mask(moved.infer(image));
        moved = gms_rt::open_cpu(graph, options); // closes the former
        moved.set_lanes(1);
        expect_error(GMSRT_INVALID_ARGUMENT, "12 bytes are fewer than 2 images of 12 bytes",
                     [&] { (void)moved.infer(image, 2); });
        expect_error(GMSRT_INVALID_ARGUMENT, "2 lanes", [&] { moved.set_lanes(2); });
        fake.fail(1, -7);
        expect_error(GMSRT_RUNTIME_FAILED, "the inference failed", [&] { (void)moved.infer(image); });
        expect_mask(moved.infer(image));
    }
    expect_clean();
    expect_error(GMSRT_NOT_FOUND, "nothing.onnx", [] { (void)gms_rt::open_cpu("/nowhere/nothing.onnx", options); });
    expect_clean();
}

void done(void *user, gmsrt_status status, const char *message)
{
    CHECK(status == GMSRT_OK, "%s", message);
    __atomic_store_n(static_cast<int *>(user), 1, __ATOMIC_RELEASE);
}

void test_submit()
{
    int called = 0;
    std::vector<std::uint8_t> mask(4), other(4);
    {
        gms_rt::Runner runner = gms_rt::open_cpu(graph, options);
        std::vector<gmsrt_ticket> tickets;

        fake.hold(1);
        while (const auto ticket = runner.submit(image.data(), 1, mask.data())) tickets.push_back(*ticket);
        CHECK(tickets.size() == GMSRT_MAX_JOBS, "%zu tickets", tickets.size());
        CHECK(!runner.submit(image.data(), 1, other.data(), done, &called), "no room");
        CHECK(!runner.wait_for(tickets[0], std::chrono::milliseconds(2)), "done though held");
        fake.hold(0);
        for (const gmsrt_ticket ticket : tickets) runner.wait(ticket);
        expect_mask(mask);
        expect_error(GMSRT_INVALID_ARGUMENT, "ticket", [&] { runner.wait(tickets[0]); });
        CHECK(runner.submit(image.data(), 1, other.data(), done, &called), "no room");
    } // waits for it
    CHECK(__atomic_load_n(&called, __ATOMIC_ACQUIRE) == 1, "closed before the callback");
    expect_mask(other);
    expect_clean();
}

void test_frames()
{
    const std::uint8_t bgr[] = {1, 2, 3, 4, 5, 6, 0xEE, 7, 8, 9, 10, 11, 12, 0xEE};
    std::vector<std::uint8_t> rgb;
    gms_rt::Frame frame;

    frame.format = GMSRT_BGR;
    frame.width = frame.height = 2;
    frame.planes[0] = bgr;
    frame.strides[0] = 7;
    gms_rt::rgb_from_frame(frame, rgb);
    CHECK((rgb == std::vector<std::uint8_t>{3, 2, 1, 6, 5, 4, 9, 8, 7, 12, 11, 10}), "%zu bytes", rgb.size());
    frame.x = frame.y = frame.region_width = frame.region_height = 1;
    gms_rt::rgb_from_frame(frame, rgb);
    CHECK((rgb == std::vector<std::uint8_t>{12, 11, 10}), "%zu bytes", rgb.size());
    frame.region_width = 0;
    expect_error(GMSRT_INVALID_ARGUMENT, "an empty region", [&] { gms_rt::rgb_from_frame(frame, rgb); });
    frame.region_width = 4000000000U;
    expect_error(GMSRT_INVALID_ARGUMENT, "32768", [&] { gms_rt::rgb_from_frame(frame, rgb); });
}

void test_mask()
{
    {
        gms_rt::Runner runner = gms_rt::open_cpu(graph, options);
        const std::vector<std::uint8_t> scan(3 * 6 * 10, 100), bright(3 * 6 * 10, 200);

        CHECK((gms_rt::resize_image(scan, 6, 10, 2, 2) == std::vector<std::uint8_t>(12, 100)), "another grey");
        CHECK((runner.mask(scan, 6, 10) == std::vector<std::uint8_t>(60, 255)), "levels of 155 are foreground");
        CHECK((runner.mask(bright, 6, 10) == std::vector<std::uint8_t>(60, 0)), "levels of 55 are not");
        CHECK((runner.mask(bright, 6, 10, 0.2) == std::vector<std::uint8_t>(60, 255)), "but above 0.2");
        expect_error(GMSRT_INVALID_ARGUMENT, "180 bytes are not an RGB image of 11 by 6",
                     [&] { (void)runner.mask(scan, 6, 11); });
        expect_error(GMSRT_INVALID_ARGUMENT, "", [&] { (void)gms_rt::resize_image(scan, 6, 10, 0, 5); });
    }
    expect_clean();
}

void test_measures_and_file()
{
    const std::vector<std::uint8_t> mask{0, 255, 255, 0, 0, 0};
    const gmsrt_measures found = gms_rt::measure_mask(mask, 2, 3);
    const std::vector<std::uint8_t> png = gms_rt::png_from_mask(mask, 2, 3);

    CHECK(found.area == 2 && found.regions == 1, "%d pixels", static_cast<int>(found.area));
    CHECK(found.x == 1 && found.y == 0 && found.width == 2 && found.height == 1, "%u, %u", found.x, found.y);
    CHECK(png.size() > 8 && png[1] == 'P' && png[png.size() - 5] == 'D', "%d bytes", static_cast<int>(png.size()));
    expect_error(GMSRT_INVALID_ARGUMENT, "6 bytes are not a mask of 3 by 3",
                 [&] { (void)gms_rt::measure_mask(mask, 3, 3); });
    expect_error(GMSRT_INVALID_ARGUMENT, "0 bytes are not a mask of 0 by 0",
                 [] { (void)gms_rt::png_from_mask({}, 0, 0); });
}

void test_engine()
{
    expect_error(GMSRT_NOT_FOUND, "nowhere", [] { gms_rt::Engine engine("/nowhere"); });
}

} // namespace

int main(int argc, char **argv)
{
    CHECK(argc == 3, "usage: test_cpp FAKE_OPENVINO FOLDER");
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    CHECK(library != nullptr, "%s", dlerror());
    fake.live = reinterpret_cast<int (*)()>(dlsym(library, "fake_openvino_live"));
    fake.mistake = reinterpret_cast<const char *(*)()>(dlsym(library, "fake_openvino_mistake"));
    fake.fail = reinterpret_cast<void (*)(int, int)>(dlsym(library, "fake_openvino_fail"));
    fake.reset = reinterpret_cast<void (*)()>(dlsym(library, "fake_openvino_reset"));
    fake.hold = reinterpret_cast<void (*)(int)>(dlsym(library, "fake_openvino_hold_inferences"));
    graph = std::string(argv[2]) + "/cpp.onnx";
    const bytes whole = sound_model();
    write_bytes(graph.c_str(), whole.data, whole.size);
    options.openvino = argv[1];
    options.trial = GMSRT_TRIAL_NEVER;
    fake.reset();

    test_runner();
    test_submit();
    test_frames();
    test_mask();
    test_measures_and_file();
    test_engine();
    return checks_passed("test_cpp (fake OpenVINO)");
}
