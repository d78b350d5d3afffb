/* Random options, sizes and damaged graph files for a bounded time: nothing may crash, whatever the status is.
 *
 * Usage: fuzz SECONDS SEED OPENVINO GRAPH FOLDER [FAKE_DRIVER]. OPENVINO may be the fake library or a real one, GRAPH
 * is the file that is cut and changed. The seed is printed, so that a crash can be repeated. A real OpenVINO is known to
 * crash on some changed graphs: what reaches it here was tried in a process of its own before, every time. The fake one
 * is mostly asked without a trial, because its failures are set within this process. */
#include <dlfcn.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "../src/cuda_api.h"
#include "../src/internal.h"
#include "bytes.h"
#include "check.h"

#define MAX_GRAPH (1u << 20)
#define BYTES (64u * 64u * 3u * 8u)

static uint64_t state;
static unsigned (*copy_device)(gmsrt_cu_pointer, gmsrt_cu_pointer, size_t, void *);
static void (*fail_driver)(int, int);
static void (*reset_driver)(void);
static void (*fail_openvino)(int, int);
static void (*reset_openvino)(void);
static uint8_t images[BYTES], masks[BYTES];
static long opened, refused;

static uint32_t any(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16);
}

static uint32_t below(uint32_t limit)
{
    return any() % limit;
}

/* Mostly small numbers, sometimes the ends of the range. */
static uint32_t number(void)
{
    switch (below(8)) {
    case 0: return any();
    case 1: return UINT32_MAX - below(3);
    case 2: return 0;
    default: return below(9);
    }
}

static double duration(void)
{
    static const double odd[] = {0.0, -1.0, 1e-9, 1e300, 1e-3};

    return odd[below(5)];
}

static void use(gmsrt_runner *runner, gmsrt_status status)
{
    gmsrt_info info = {0};
    gmsrt_sample samples[8];
    gmsrt_bench_result result;
    gmsrt_bench_options bench;
    gmsrt_status ignored;
    size_t room;

    if (runner == NULL) {
        refused += status != GMSRT_OK; /* a graph may be asked about only, without a runner */
        CHECK(status == GMSRT_OK || gmsrt_last_error()[0] != '\0', "a refusal without a message");
        return;
    }
    opened++;
    ignored = gmsrt_get_info(runner, &info, below((uint32_t)sizeof info + 1));
    CHECK_OK(gmsrt_get_info(runner, &info, sizeof info));
    room = BYTES / ((size_t)info.height * info.width * 3);
    ignored = gmsrt_set_lanes(runner, number());
    if (room > 0) {
        ignored = gmsrt_infer(runner, images, below((uint32_t)(room < 20 ? room : 20) + 1), masks);
        ignored = gmsrt_infer(runner, below(4) ? images : NULL, below(2), below(4) ? masks : NULL);
        gmsrt_bench_options_init(&bench, sizeof bench);
        bench.seconds = below(3) ? 0.0 : duration();
        bench.warmup_seconds = below(3) ? 0.0 : duration();
        if (bench.warmup_seconds > 1e-3 && bench.warmup_seconds <= 1e9) bench.warmup_seconds = 0.0;
        bench.iterations = number();
        ignored = gmsrt_bench(runner, images, below((uint32_t)(room < 20 ? room : 20) + 1), &bench, samples, below(9),
                              &result, sizeof result);
    }
    for (uint32_t left = room > 0 ? below(5) : 0; left > 0; left--) {
        const size_t count = below((uint32_t)(room < 4 ? room : 4) + 1);
        const int64_t time = below(3) ? -1 : (int64_t)below(2), other = below(3) ? -1 : (int64_t)any();
        gmsrt_ticket ticket = 0;

        ignored = gmsrt_wait(runner, (gmsrt_ticket)other, 0);
        ignored = gmsrt_submit(runner, images, count, masks, NULL, NULL, &ticket);
        if (left == 1 && time >= 0) break; /* the close waits for it */
        if (ignored == GMSRT_OK && gmsrt_wait(runner, ticket, time) == GMSRT_TIMED_OUT)
            ignored = gmsrt_wait(runner, ticket, -1);
    }
    (void)ignored;
    gmsrt_close(runner);
}

/* A copy of the graph with a random tail cut off, bytes changed, or a part repeated. */
static uint8_t damaged[2 * MAX_GRAPH];
static size_t damaged_size;

static void damage(const uint8_t *graph, size_t size, const char *path)
{
    uint8_t *const copy = damaged;
    size_t length = size;
    FILE *file;

    memcpy(copy, graph, size);
    switch (below(5)) {
    case 0: length = below((uint32_t)size + 1); break;
    case 1:
        for (uint32_t i = 0; i <= below(8); i++) copy[below((uint32_t)size)] = (uint8_t)any();
        break;
    case 2: copy[below((uint32_t)size)] ^= (uint8_t)(1u << below(8)); break;
    case 3: {
        const size_t at = below((uint32_t)size), part = below((uint32_t)(size - at) + 1);
        memmove(copy + at + part, copy + at, size - at);
        length = size + part;
        break;
    }
    default: break; /* whole */
    }
    damaged_size = length;
    file = fopen(path, "wb");
    CHECK(file != NULL && fwrite(copy, 1, length, file) == length && fclose(file) == 0, "cannot write %s", path);
}

static char manifest[512];

/* Sometimes another size of the options that stand at the beginning of a block of 4096 bytes. */
static void resize(size_t *size)
{
    if (below(8) == 0) *size = below(3) ? 8 * below(513) : number();
}

/* An engine folder as it was built. */
static void make_engine(const char *folder, const uint8_t *graph, size_t size)
{
    char path[1100], hex[65];
    FILE *file;

    mkdir(folder, 0700);
    snprintf(path, sizeof path, "%s/model.onnx", folder);
    file = fopen(path, "w+b");
    CHECK(file != NULL && fwrite(graph, 1, size, file) == size, "cannot write %s", path);
    rewind(file);
    CHECK(gmsrt_sha256(file, hex) && fclose(file) == 0, "cannot read %s", path);
    snprintf(manifest, sizeof manifest,
             "{\"format\": \"gms-rt-engine\", \"version\": 1, \"execution\": \"f32\", \"model\": \"model.onnx\", "
             "\"files\": {\"model.onnx\": \"%s\"}}",
             hex);
    snprintf(path, sizeof path, "%s/engine.json", folder);
    file = fopen(path, "wb");
    CHECK(file != NULL && fputs(manifest, file) >= 0 && fclose(file) == 0, "cannot write %s", path);
}

static int sometimes(void *user)
{
    return --*(int *)user < 0;
}

static void fuzz_cpu(const char *openvino, const uint8_t *graph, size_t size, const char *folder)
{
    const bool real = fail_openvino == NULL;
    char path[1024], engine[1024], inner[1100];
    const char *const places[] = {path, path, path, engine, engine, engine, "", "/dev/zero"};
    union {
        gmsrt_cpu_options cpu;
        uint8_t bytes[4096];
    } options;
    gmsrt_runner *runner = NULL;
    gmsrt_status status;
    int left = (int)below(20);

    snprintf(path, sizeof path, "%s/fuzz.onnx", folder);
    damage(graph, size, path);
    snprintf(engine, sizeof engine, "%s/fuzz-engine", folder);
    snprintf(inner, sizeof inner, "%s/%s", engine, below(8) ? "model.onnx" : "engine.json");
    make_engine(engine, graph, size);
    if (strstr(inner, "engine.json") != NULL)
        damage((const uint8_t *)manifest, strlen(manifest), inner);
    else if (below(3))
        damage(graph, size, inner);
    memset(&options, 0, sizeof options);
    gmsrt_cpu_options_init(&options.cpu, below(2) ? sizeof options.cpu : sizeof options);
    options.cpu.openvino = openvino;
    options.cpu.trial = real || below(32) == 0 ? GMSRT_TRIAL_ALWAYS : GMSRT_TRIAL_NEVER;
    if (below(2)) {
        options.cpu.precision = (gmsrt_precision)(below(6) ? below(4) : number());
        options.cpu.mode = (gmsrt_mode)(below(6) ? below(2) : number());
        options.cpu.threads = below(2) ? 0 : number() % 5000;
        options.cpu.lanes = below(2) ? below(4) : number();
        options.cpu.batch = below(2) ? 0 : number();
        if (below(8) == 0) {
            options.cpu.cancelled = sometimes;
            options.cpu.user = &left;
        }
        if (below(8) == 0) options.cpu.timeout_ms = below(2) ? 1 + below(50) : number();
        resize(&options.cpu.struct_size);
        if (below(4) == 0) options.cpu.cache = below(4) ? folder : below(2) ? "" : "/nowhere";
        if (below(8) == 0 && !real) options.cpu.trial = (gmsrt_trial)number();
        if (below(8) == 0) options.cpu.trial_seconds = number();
        if (options.cpu.trial_seconds < 100)
            options.cpu.trial_seconds = 0; /* a busy machine is no fault of the graph */
        /* A real OpenVINO would start so many threads for true. */
        if (fail_openvino == NULL && options.cpu.threads > 4) options.cpu.threads = 4;
        if (fail_openvino == NULL && options.cpu.lanes > 4 && options.cpu.lanes < 65) options.cpu.lanes = 4;
    }
    if (reset_openvino != NULL) {
        reset_openvino();
        if (below(2)) fail_openvino(1 + (int)below(60), -1);
    }
    if (below(3) == 0) {
        uint8_t *exact = malloc(damaged_size + 1); /* a sanitizer stands behind it */

        CHECK(exact != NULL, "no memory");
        memcpy(exact, damaged, damaged_size);
        exact = realloc(exact, damaged_size > 0 ? damaged_size : 1);
        status =
            gmsrt_open_cpu_memory(exact, damaged_size, below(10) ? &options.cpu : NULL, below(20) ? &runner : NULL);
        free(exact);
    } else {
        status = gmsrt_open_cpu(places[below(8)], below(10) ? &options.cpu : NULL, below(20) ? &runner : NULL);
    }
    use(runner, status);
}

/* A damaged file whose tensors name other files, only looked at. */
static void fuzz_outside(const char *folder)
{
    static bytes model;
    char path[1024];
    gmsrt_cpu_options options;

    if (model.size == 0) {
        bytes entry = {0}, tensor = {0}, attribute = {0}, node = make_node("If", "a", "b"), graph;

        add_text(&entry, 1, "location");
        add_text(&entry, 2, "fuzz.onnx");
        add_number(&tensor, 14, 1);
        add_message(&tensor, 13, &entry);
        graph = make_graph(&node);
        add_message(&graph, 5, &tensor);
        add_message(&attribute, 6, &graph);
        add_message(&attribute, 10, &tensor);
        add_message(&node, 5, &attribute);
        graph = make_graph(&node);
        model = make_model(&graph);
    }
    snprintf(path, sizeof path, "%s/fuzz.onnx", folder);
    damage(model.data, model.size, path);
    gmsrt_cpu_options_init(&options, sizeof options);
    options.trial = GMSRT_TRIAL_NEVER;
    use(NULL, gmsrt_open_cpu(path, &options, NULL));
}

/* An engine.json of pieces in a random order, only looked at. What it lists is never a reason to open anything else. */
static void fuzz_manifest(const uint8_t *graph, size_t size, const char *folder)
{
    static const char *const pieces[] = {"{",
                                         "}",
                                         "[",
                                         "]",
                                         ",",
                                         ":",
                                         "\"",
                                         "\\",
                                         "\\\"",
                                         "null",
                                         "-1e9",
                                         "1",
                                         "2",
                                         "99999999999",
                                         " ",
                                         "\n",
                                         "\"format\": \"gms-rt-engine\",",
                                         "\"version\": 1,",
                                         "\"version\": 2,",
                                         "\"execution\": \"bf16\",",
                                         "\"execution\": \"f16\",",
                                         "\"execution\": \"f32\",",
                                         "\"model\": \"model.onnx\",",
                                         "\"model\": \"../x\",",
                                         "\"model\": \"\",",
                                         "\"files\": {",
                                         "\"files\": {}",
                                         "\"model.onnx\": \"",
                                         "\"model.onnx.data\": \"0\",",
                                         "\"mode\\u006c\": 1,"};
    char engine[1024], path[1100], text[4096];
    gmsrt_cpu_options options;
    size_t used = 0;
    FILE *file;

    snprintf(engine, sizeof engine, "%s/fuzz-engine", folder);
    make_engine(engine, graph, size);
    if (below(2)) used = (size_t)snprintf(text, sizeof text, "%.*s", (int)below(sizeof manifest), manifest);
    for (uint32_t i = below(30); i > 0; i--) {
        const char *piece =
            below(6) ? pieces[below(sizeof pieces / sizeof *pieces)] : manifest + below(sizeof manifest);

        used += (size_t)snprintf(text + used, sizeof text - used, "%.100s", piece);
    }
    if (below(4) == 0) { /* deep */
        memset(text + used, '[', 200);
        used += 200;
    }
    if (used > 0 && below(4) == 0) text[below((uint32_t)used)] = (char)any();
    snprintf(path, sizeof path, "%s/engine.json", engine);
    file = fopen(path, "wb");
    CHECK(file != NULL && fwrite(text, 1, used, file) == used && fclose(file) == 0, "cannot write %s", path);
    gmsrt_cpu_options_init(&options, sizeof options);
    options.trial = GMSRT_TRIAL_NEVER;
    use(NULL, gmsrt_open_cpu(engine, &options, NULL));
}

/* A whole engine folder whose manifest or certificate is damaged: described, judged and read, whatever it says. */
static void fuzz_engine(const char *folder)
{
    static const char whole[] =
        "{\"format\": \"gms-rt-engine\", \"version\": 1, \"name\": \"\\u00e9\\ud834\\udd1e\", \"precision\": \"int8\", "
        "\"created\": \"\", \"gms_rt\": \"0.1.0\", \"height\": 64, \"width\": 64, \"batch\": 1, \"model\": "
        "\"engine.json\", "
        "\"files\": {\"engine.json\": \"00\", \"empty\": "
        "\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"}, \"source\": {}, \"tokenizer\": {}, "
        "\"targets\": [\"cpu\", \"tensorrt\"], \"plans\": [{\"target\": \"tensorrt\", \"file\": \"a.plan\", "
        "\"sha256\": "
        "\"00\", \"bytes\": 1, \"sm\": 89, \"version\": \"10\", \"build_seconds\": 1.5e0, \"driver\": null}], "
        "\"census\": "
        "{}, \"gate\": null, \"execution\": \"f32\", \"rebuild\": \"\", \"notes\": [], \"classes\": [{\"name\": \"a\", "
        "\"type\": {\"value\": \"1\", \"scheme\": \"SCT\", \"meaning\": \"m\"}, \"colour\": [1, 2, 3]}, {\"name\": "
        "\"b\", \"colour\": \"#ff4040\"}]}";
    static const char certificate[] =
        "{\"format\": \"gms-rt-parity\", \"version\": 1, \"engine\": {\"manifest_sha256\": "
        "\"0\"}, \"summary\": {\"mean\": 1, \"min\": 1e-3}, \"verdict\": \"pass\"}";
    static const char *const devices[] = {NULL, "cpu", "cuda", "cuda:1", "cuda:", "x"};
    static const char *const files[] = {"engine.json", "empty", "a.plan", "../engine.json", ""};
    const uint32_t sms[] = {89, number(), number()};
    char engine_folder[1024], path[1100];
    gmsrt_select_options options;
    gmsrt_engine *engine = NULL;
    gmsrt_engine_info info;
    gmsrt_status ignored;
    gmsrt_class class;
    gmsrt_plan plan;
    void *content;
    size_t size;

    snprintf(engine_folder, sizeof engine_folder, "%s/fuzz-whole", folder);
    mkdir(engine_folder, 0700);
    snprintf(path, sizeof path, "%s/parity.json", engine_folder);
    damage((const uint8_t *)certificate, sizeof certificate - 1, path);
    snprintf(path, sizeof path, "%s/engine.json", engine_folder);
    damage((const uint8_t *)whole, sizeof whole - 1, path);
    if (gmsrt_engine_open(engine_folder, &engine) != GMSRT_OK) {
        CHECK(engine == NULL && gmsrt_last_error()[0] != '\0', "a refusal without a message");
        refused++;
        return;
    }
    opened++;
    CHECK_OK(gmsrt_engine_get_info(engine, &info, sizeof info));
    CHECK(info.name != NULL && info.height > 0 && info.classes > 0, "a part is missing");
    for (uint32_t i = 0; i < info.classes; i++) {
        CHECK_OK(gmsrt_engine_get_class(engine, i, &class, sizeof class));
        CHECK(class.name[0] != '\0' && class.colour <= 0xFFFFFF, "a class without a name");
    }
    gmsrt_select_options_init(&options, sizeof options);
    options.device = devices[below(6)];
    options.tensorrt = below(2) ? "10" : NULL;
    options.sms = sms;
    options.sm_count = below(4);
    options.trust_plans = below(2);
    for (uint32_t i = 0; i < info.plans; i++) {
        ignored = gmsrt_engine_get_plan(engine, i, below(2) ? &options : NULL, &plan, sizeof plan);
        if (ignored == GMSRT_OK) CHECK(plan.file[0] != '\0' && strchr(plan.file, '/') == NULL, "%s", plan.file);
    }
    ignored = gmsrt_engine_select(engine, &options, &plan, sizeof plan);
    for (int i = 0; i < 5; i++) {
        ignored = gmsrt_engine_read(engine, files[i], &content, &size);
        CHECK(ignored == GMSRT_OK || (content == NULL && size == 0), "bytes of a failure");
        gmsrt_free(content);
    }
    gmsrt_engine_close(engine);
}

static uint32_t side(void)
{
    return below(3) ? 1 + below(9) : 1 + below(70);
}

/* Random sizes, with a sanitizer right behind source and result. */
static void fuzz_resize(void)
{
    const uint32_t high = side(), wide = side(), to_high = below(4) ? side() : high, to_wide = below(4) ? side() : wide;
    const uint32_t channels = below(2) ? 1 : 3;
    const double threshold = below(9) ? 0.5 : duration();
    uint8_t *from = malloc((size_t)high * wide * channels), *to = malloc((size_t)to_high * to_wide * channels);
    float *values = malloc((size_t)to_high * to_wide * sizeof *values);
    gmsrt_status ignored;

    CHECK(from != NULL && to != NULL && values != NULL, "no memory");
    for (size_t i = 0; i < (size_t)high * wide * channels; i++) from[i] = (uint8_t)any();
    CHECK_OK(gmsrt_resize_image(from, high, wide, channels, to, to_high, to_wide));
    CHECK_OK(gmsrt_resize_mask(from, high, wide, to, to_high, to_wide));
    CHECK_OK(gmsrt_resize_probability(from, high, wide, values, to_high, to_wide));
    for (size_t i = 0; i < (size_t)to_high * to_wide; i++)
        CHECK(values[i] >= 0 && values[i] <= 1, "%g", (double)values[i]);
    ignored = gmsrt_mask_from_levels(from, high, wide, threshold, to, to_high, to_wide);
    ignored = gmsrt_resize_image(from, number(), 0, number(), to, number(), number());
    CHECK(ignored == GMSRT_INVALID_ARGUMENT, "an image without a width");
    free(from);
    free(to);
    free(values);
}

/* A mask of any bytes: its PNG fits where the library says, and nothing behind it is touched. */
static void fuzz_mask(void)
{
    const uint32_t high = side(), wide = side(), kinds = 1 + below(4);
    const size_t pixels = (size_t)high * wide, room = gmsrt_png_room(high, wide);
    uint8_t *mask = malloc(pixels), *png = malloc(room);
    gmsrt_measures found;
    gmsrt_status ignored;
    double confidence;
    size_t size;

    CHECK(mask != NULL && png != NULL, "no memory");
    for (size_t i = 0; i < pixels; i++) {
        const uint8_t noise = (uint8_t)any();

        mask[i] = kinds == 1 ? noise : kinds == 2 ? (noise & 1 ? 255 : 0) : i > 0 && noise % 16 ? mask[i - 1] : noise;
    }
    CHECK_OK(gmsrt_measure_mask(mask, high, wide, &found, sizeof found));
    CHECK(found.area <= pixels && found.regions <= found.area && found.x + found.width <= wide, "measures");
    CHECK(found.area == 0 || (found.centre_y >= found.y && found.centre_y < found.y + found.height), "centre");
    CHECK_OK(gmsrt_png_from_mask(mask, high, wide, png, room, &size));
    CHECK(size <= room, "%zu bytes of %zu", size, room);
    CHECK_OK(gmsrt_confidence(mask, pixels, 0.5, &confidence));
    CHECK(confidence >= 0 && confidence <= 1, "%g", confidence);
    ignored = gmsrt_confidence(mask, pixels, duration(), &confidence);
    ignored = gmsrt_png_from_mask(mask, 0, number(), png, number(), &size);
    CHECK(ignored == GMSRT_INVALID_ARGUMENT, "a mask without a height");
    free(mask);
    free(png);
}

static uint32_t lane_bytes;

static int enqueue(void *user, const gmsrt_cuda_lane *lane)
{
    (void)user;
    if (below(30) == 0) return -1;
    return (int)copy_device(lane->masks, lane->images, lane_bytes, lane->stream);
}

/* A frame of random geometry: what it may read and write is memory of just that size, or it is refused. */
static void fuzz_frame(void)
{
    static const uint32_t sizes[] = {3, 3, 4, 4, 1, 1, 1};
    uint8_t *planes[3] = {NULL, NULL, NULL}, *rgb = NULL;
    gmsrt_frame frame;
    size_t stride;

    CHECK(gmsrt_frame_init(&frame, sizeof frame) == GMSRT_OK, "no frame");
    frame.format = below(9) > 0 ? (gmsrt_format)below(7) : (gmsrt_format)any();
    frame.matrix = (gmsrt_matrix)below(2);
    frame.range = (gmsrt_range)(below(20) > 0 ? below(2) : any());
    frame.width = 1 + below(40);
    frame.height = 1 + below(40);
    frame.x = below(3) > 0 ? 0 : number();
    frame.y = below(3) > 0 ? 0 : number();
    frame.region_width = below(3) > 0 ? 0 : number();
    frame.region_height = frame.region_width == 0 && below(4) > 0 ? 0 : number();
    for (uint32_t i = 0; i < 3; i++) {
        const bool halved = i > 0;
        const size_t pixel = frame.format < 0 || frame.format > GMSRT_I420 ? 1
                             : halved && frame.format == GMSRT_NV12        ? 2
                                                                           : sizes[frame.format];
        const size_t row = (halved ? (frame.width + 1) / 2 : frame.width) * pixel;
        const size_t rows = halved ? (frame.height + 1) / 2 : frame.height;

        frame.strides[i] = row + below(5);
        planes[i] = malloc((rows - 1) * frame.strides[i] + row); /* not a byte behind the last row */
        CHECK(planes[i] != NULL, "no memory");
        memset(planes[i], (int)below(256), (rows - 1) * frame.strides[i] + row);
        frame.planes[i] = planes[i];
        if (below(30) == 0) frame.strides[i] = below(2) ? SIZE_MAX - below(9) : below((uint32_t)row);
        if (below(50) == 0) frame.planes[i] = NULL;
    }
    stride = frame.region_width > 0 ? (size_t)frame.region_width * 3 : (size_t)frame.width * 3;
    if (stride <= 40 * 3 && frame.region_height <= 40) {
        const size_t rows = frame.region_height > 0 ? frame.region_height : frame.height;

        rgb = malloc(rows * stride);
        CHECK(rgb != NULL, "no memory");
        if (gmsrt_rgb_from_frame(&frame, rgb, below(2) ? stride : 0) == GMSRT_OK)
            opened++;
        else
            refused++;
    } else {
        CHECK(gmsrt_rgb_from_frame(&frame, images, 0) == GMSRT_INVALID_ARGUMENT, "a region outside its frame");
        refused++;
    }
    free(rgb);
    for (int i = 0; i < 3; i++) free(planes[i]);
}

static void fuzz_cuda(const char *driver)
{
    static const int codes[] = {2, 719, 901, 214, 100, 77};
    union {
        gmsrt_cuda_options cuda;
        uint8_t bytes[4096];
    } options;
    gmsrt_runner *runner = NULL;
    gmsrt_status status;

    memset(&options, 0, sizeof options);
    gmsrt_cuda_options_init(&options.cuda, below(2) ? sizeof options.cuda : sizeof options);
    options.cuda.driver = driver;
    options.cuda.enqueue = below(20) ? enqueue : NULL;
    options.cuda.device = below(8) ? 0 : number();
    options.cuda.batch = below(4) ? 1 + below(4) : number();
    options.cuda.height = below(4) ? 1 + below(64) : number();
    options.cuda.width = below(4) ? 1 + below(64) : number();
    options.cuda.lanes = below(4) ? 1 + below(4) : number();
    options.cuda.warmup = below(4) ? 1 + below(3) : number();
    options.cuda.use_graph = (gmsrt_graph_use)(below(8) ? below(3) : number());
    resize(&options.cuda.struct_size);
    lane_bytes = options.cuda.batch * options.cuda.height * options.cuda.width;
    reset_driver();
    if (below(2)) fail_driver(1 + (int)below(80), codes[below(6)]);
    status = gmsrt_open_cuda(below(20) ? &options.cuda : NULL, below(20) ? &runner : NULL);
    use(runner, status);
}

int main(int argc, char **argv)
{
    static uint8_t graph[MAX_GRAPH];
    long rounds = 0;
    size_t size;
    time_t end;
    FILE *file;
    void *library;

    CHECK(argc == 6 || argc == 7, "usage: fuzz SECONDS SEED OPENVINO GRAPH FOLDER [FAKE_DRIVER]");
    state = strtoull(argv[2], NULL, 10) * 2654435761u + 88172645463325252u;
    file = fopen(argv[4], "rb");
    CHECK(file != NULL, "cannot read %s", argv[4]);
    size = fread(graph, 1, sizeof graph, file);
    fclose(file);
    CHECK(size > 8, "%s is too small", argv[4]);
    for (size_t i = 0; i < sizeof images; i++) images[i] = (uint8_t)any();
    setenv("XDG_CACHE_HOME", argv[5], 1); /* nothing of this is remembered */
    library = dlopen(argv[3], RTLD_NOW | RTLD_LOCAL);
    CHECK(library != NULL, "%s", dlerror());
    *(void **)&fail_openvino = dlsym(library, "fake_openvino_fail");
    *(void **)&reset_openvino = dlsym(library, "fake_openvino_reset");
    if (argc == 7) {
        library = dlopen(argv[6], RTLD_NOW | RTLD_LOCAL);
        CHECK(library != NULL, "%s", dlerror());
        *(void **)&copy_device = dlsym(library, "cuMemcpyDtoDAsync_v2");
        *(void **)&fail_driver = dlsym(library, "fake_cuda_fail");
        *(void **)&reset_driver = dlsym(library, "fake_cuda_reset");
    }
    printf("fuzz: seed %s\n", argv[2]);
    fflush(stdout);
    for (end = time(NULL) + strtol(argv[1], NULL, 10); time(NULL) < end; rounds++) {
        if (argc == 7 && below(2))
            fuzz_cuda(argv[6]);
        else if (below(2))
            fuzz_outside(argv[5]);
        else if (below(2))
            fuzz_manifest(graph, size, argv[5]);
        else if (below(2))
            fuzz_engine(argv[5]);
        else if (below(2))
            fuzz_resize();
        else if (below(2))
            fuzz_mask();
        else if (below(2))
            fuzz_frame();
        else
            fuzz_cpu(argv[3], graph, size, argv[5]);
    }
    printf("fuzz: %ld rounds, %ld opened, %ld refused, no crash\n", rounds, opened, refused);
    return 0;
}
