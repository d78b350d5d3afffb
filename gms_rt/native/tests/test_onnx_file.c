/* What is asked of an ONNX file before OpenVINO sees it, on messages made by hand: where weights outside the file may be,
 * and that no byte of it is believed.
 *
 * Usage: test_onnx_file FOLDER. No runtime is opened: the files are only looked at, never tried. */
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "gms_rt.h"

static char path[1024], data[1024], folder[1024];

static gmsrt_status look(const bytes *model)
{
    gmsrt_cpu_options options;

    write_bytes(path, model->data, model->size);
    gmsrt_cpu_options_init(&options, sizeof options);
    options.trial = GMSRT_TRIAL_NEVER;
    return gmsrt_open_cpu(path, &options, NULL);
}

/* words: what the message says; NULL: the file is accepted. */
static void expect(const bytes *model, const char *words)
{
    const gmsrt_status status = look(model);

    if (words == NULL) {
        CHECK_OK(status);
        return;
    }
    CHECK(status == GMSRT_BAD_GRAPH, "accepted: %s", words);
    CHECK(strstr(gmsrt_last_error(), words) != NULL, "'%s' does not say '%s'", gmsrt_last_error(), words);
    CHECK(strstr(gmsrt_last_error(), "graph.onnx") != NULL, "'%s' does not name the file", gmsrt_last_error());
}

static void add_entry(bytes *tensor, const char *key, const void *value, size_t size)
{
    bytes entry = {0};

    add_text(&entry, 1, key);
    add_data(&entry, 2, value, size);
    add_message(tensor, 13, &entry);
}

static bytes make_tensor(const char *place)
{
    bytes tensor = {0};

    add_number(&tensor, 1, 4);
    add_number(&tensor, 2, 1);
    add_text(&tensor, 8, "w");
    add_number(&tensor, 14, 1);
    if (place != NULL) add_entry(&tensor, "location", place, strlen(place));
    add_entry(&tensor, "length", "16", 2);
    return tensor;
}

static bytes around(unsigned field, const bytes *message)
{
    bytes outer = {0};

    add_message(&outer, field, message);
    return outer;
}

/* A sound model with one more field in its graph. */
static bytes model_with(unsigned field, const bytes *message)
{
    const bytes node = make_node("Relu", "a", "b");
    bytes graph = make_graph(&node);

    add_message(&graph, field, message);
    return make_model(&graph);
}

static void expect_tensor(const bytes *tensor, const char *words)
{
    const bytes model = model_with(5, tensor);

    expect(&model, words);
}

static void expect_place(const char *place, const char *words)
{
    const bytes tensor = make_tensor(place);

    expect_tensor(&tensor, words);
}

static void test_places(void)
{
    static const char *const refused[] = {
        "",
        "/etc/passwd",
        "..",
        "../graph.data",
        "x/../../graph.data",
        "x/..",
        "./../x",
        ".",
        "./.",
        "././graph.data",
        ".//graph.data",
        "below/./..graph.data...",
        "./below//..graph.data...",
        "x/",
        "x//graph.data",
        "\\x",
        "..\\x",
        "*/_ORT_MEM_ADDR_/*",
        "*",
        "x*",
        "x/*/y.data",
        "graph.\ndata",
    };
    char name[600];

    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        expect_place(refused[i], "not a plain path below the graph's folder");
    expect_place("graph.data", NULL);
    expect_place("./graph.data", NULL);
    expect_place("below/..graph.data...", NULL);
    expect_place("absent.data", "'absent.data', which is not there; copy that file too");
    expect_place("below", "which is not there");
    expect_place(NULL, "does not name it");
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    expect_place(name, "too long");
}

/* Bytes that only a foreign writer makes. */
static void test_odd_tensors(void)
{
    bytes tensor = make_tensor("graph.data"), entry = {0};

    add_entry(&tensor, "location", "..", 2); /* of two the one or the other may count */
    expect_tensor(&tensor, "not a plain path");
    tensor = (bytes){0};
    add_entry(&tensor, "location", "/etc/passwd", 11); /* without saying that the data is outside */
    expect_tensor(&tensor, "not a plain path");
    tensor = (bytes){0};
    add_entry(&tensor, "location", "graph.data\0/x", 13);
    expect_tensor(&tensor, "too long or damaged");
    tensor = (bytes){0};
    add_text(&entry, 2, ".."); /* the value before the key, and each of them twice */
    add_text(&entry, 1, "offset");
    add_text(&entry, 2, "graph.data");
    add_text(&entry, 1, "location");
    add_message(&tensor, 13, &entry);
    expect_tensor(&tensor, NULL);
    add_text(&entry, 2, "..");
    add_message(&tensor, 13, &entry);
    expect_tensor(&tensor, "not a plain path");
    tensor = (bytes){0};
    add_entry(&tensor, "location of nothing that anybody knows", "..", 2);
    expect_tensor(&tensor, NULL);
    tensor = (bytes){0};
    add_number(&tensor, 14, (uint64_t)1 << 32 | 1); /* to a reader of 32 bits the same as 1 */
    expect_tensor(&tensor, "does not name it");
    tensor = (bytes){0};
    add_number(&tensor, 14, 0);
    expect_tensor(&tensor, NULL);
    tensor = (bytes){0};
    add_raw(&tensor, "\x6a\x05\x0a\x7f", 4);
    expect_tensor(&tensor, "cut short or overwritten");
}

/* Every message that a tensor can stand in. */
static void test_everywhere(void)
{
    const bytes tensor = make_tensor(".."), sound = make_node("Relu", "a", "b"), whole = make_graph(&sound);
    static const unsigned tensors[] = {5, 10}, graphs[] = {6, 11}, sparses[] = {22, 23};

    for (unsigned part = 1; part <= 2; part++) {
        const bytes sparse = around(part, &tensor);
        bytes model = model_with(15, &sparse);

        expect(&model, "not a plain path");
        for (int i = 0; i < 2; i++) {
            const bytes attribute = around(sparses[i], &sparse), node = around(5, &attribute);

            model = model_with(1, &node);
            expect(&model, "not a plain path");
        }
    }
    for (int i = 0; i < 2; i++) {
        const bytes attribute = around(tensors[i], &tensor), node = around(5, &attribute), graph = around(1, &node);
        const bytes holder = around(graphs[i], &graph), outer = around(5, &holder), body = around(7, &node);
        const bytes defaults = around(11, &attribute), training = around((unsigned)i + 1, &graph);
        bytes model = model_with(1, &node);

        expect(&model, "not a plain path");
        model = model_with(1, &outer);
        expect(&model, "not a plain path");
        model = make_model(&whole);
        add_message(&model, 25, &body);
        expect(&model, "not a plain path");
        model = make_model(&whole);
        add_message(&model, 25, &defaults);
        expect(&model, "not a plain path");
        model = make_model(&whole);
        add_message(&model, 20, &training);
        expect(&model, "not a plain path");
        model = make_model(&whole);
        add_message(&model, 7, &graph); /* a second graph: a parser joins them */
        expect(&model, "not a plain path");
    }
}

static void test_depth(void)
{
    bytes node = make_node("Relu", "a", "b");

    for (int i = 0; i < 40; i++) {
        const bytes graph = make_graph(&node), attribute = around(6, &graph), model = make_model(&graph);

        expect(&model, i < 33 ? NULL : "graphs within graphs");
        node = around(5, &attribute);
    }
}

/* Numbers of more than 64 bits, fields of no number, groups. */
static void test_numbers(void)
{
    static const struct {
        const char *bytes;
        size_t size;
        bool sound;
    } cases[] = {
        {"\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, true},      /* -1 */
        {"\x30\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 11, true},      /* 0, at length */
        {"\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11, false},     /* 65 bits */
        {"\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x81\x00", 12, false}, /* eleven bytes */
        {"\xb0\x80\x80\x80\x80\x80\x00\x01", 8, true},                   /* the tag at length */
        {"\x80\x80\x80\x80\x10\x01", 6, false},                          /* a tag of more than 32 bits */
        {"\x00\x01", 2, false},                                          /* field 0 */
        {"\x33\x34", 2, false},                                          /* a group */
        {"\x32\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, false},     /* a length of 2^64 - 1 */
        {"\x31\x01\x02\x03\x04\x05\x06\x07\x08", 9, true},               /* 64 bits */
        {"\x31\x01\x02\x03\x04\x05\x06\x07", 8, false},
        {"\x35\x01\x02\x03\x04", 5, true}, /* 32 bits */
        {"\x35\x01\x02\x03", 4, false},
    };
    const bytes node = make_node("Relu", "a", "b");

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bytes graph = make_graph(&node), model;

        add_raw(&graph, cases[i].bytes, cases[i].size);
        model = make_model(&graph);
        expect(&model, cases[i].sound ? NULL : "cut short or overwritten");
    }
}

/* More files than any exporter makes are refused; as many as allowed are found quickly, in whatever order. */
static void test_many_files(void)
{
    static uint8_t big[512 * 1024];
    const bytes sound = sound_model();
    gmsrt_cpu_options options;
    size_t size = sound.size;

    memcpy(big, sound.data, size);
    for (int i = 0; i < 5000; i++) { /* names of one file: a folder that links to itself would do the same */
        char place[64];
        bytes tensor, graph, model = {0};

        snprintf(place, sizeof place, "many/%04d", (i * 2503) % 5000);
        tensor = make_tensor(place);
        graph = around(5, &tensor);
        add_message(&model, 7, &graph);
        memcpy(big + size, model.data, model.size);
        size += model.size;
    }
    write_bytes(path, big, size);
    gmsrt_cpu_options_init(&options, sizeof options);
    options.trial = GMSRT_TRIAL_NEVER;
    CHECK(gmsrt_open_cpu(path, &options, NULL) == GMSRT_BAD_GRAPH, "accepted");
    CHECK(strstr(gmsrt_last_error(), "too many files") != NULL, "%s", gmsrt_last_error());
}

/* Each byte changed to each of some values, and each tail cut off: a status, never a crash. */
static void test_damage(void)
{
    static const uint8_t values[] = {0x00, 0x01, 0x0a, 0x12, 0x7f, 0x80, 0xff};
    const bytes tensor = make_tensor("graph.data"), attribute = around(5, &tensor), node = around(5, &attribute);
    bytes model = model_with(1, &node);
    int sound = 0;

    for (size_t i = 0; i < model.size; i++) {
        bytes part = model;

        part.size = i;
        if (i > 0) expect(&part, "not an ONNX file");
        for (size_t v = 0; v < sizeof values; v++) {
            const uint8_t kept = model.data[i];
            gmsrt_status status;

            model.data[i] = values[v];
            status = look(&model);
            model.data[i] = kept;
            CHECK(status == GMSRT_OK || status == GMSRT_BAD_GRAPH, "%s", gmsrt_last_error());
            sound += status == GMSRT_OK;
        }
    }
    CHECK(sound > 0, "nothing is left of the graph");
}

int main(int argc, char **argv)
{
    char name[1100];

    CHECK(argc == 2, "usage: test_onnx_file FOLDER");
    snprintf(path, sizeof path, "%s/graph.onnx", argv[1]);
    snprintf(data, sizeof data, "%s/graph.data", argv[1]);
    snprintf(folder, sizeof folder, "%s/below", argv[1]);
    mkdir(folder, 0700);
    write_bytes(data, "0123456789abcdef", 16);
    snprintf(name, sizeof name, "%s/..graph.data...", folder);
    write_bytes(name, "0123456789abcdef", 16);
    test_places();
    test_odd_tensors();
    test_everywhere();
    test_depth();
    test_numbers();
    test_damage();
    unlink(name);
    rmdir(folder);
    /* A thousand names of one file each, by links. */
    snprintf(folder, sizeof folder, "%s/many", argv[1]);
    mkdir(folder, 0700);
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "%s/%04d", folder, i);
        CHECK(symlink("../graph.data", name) == 0, "no link %s", name);
    }
    test_many_files();
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "%s/%04d", folder, i);
        unlink(name);
    }
    rmdir(folder);
    unlink(data);
    unlink(path);
    return checks_passed("test_onnx_file");
}
