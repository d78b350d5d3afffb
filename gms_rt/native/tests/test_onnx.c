/* The structural check of a graph on messages made by hand, sound ones and such as are broken in one place.
 *
 * Usage: test_onnx FOLDER. No runtime is opened: the graphs are only checked, never tried. */
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "gms_rt.h"

static char path[1024], beside[1024];

static gmsrt_status check_file(void)
{
    gmsrt_cpu_options options;

    gmsrt_cpu_options_default(&options);
    options.trial = GMSRT_TRIAL_NEVER;
    return gmsrt_open_cpu(path, &options, NULL);
}

/* words: what the message says; NULL: the graph is sound. */
static void expect_graph(const bytes *graph, const char *words)
{
    const bytes model = make_model(graph);

    write_bytes(path, model.data, model.size);
    if (words == NULL) {
        CHECK_OK(check_file());
        return;
    }
    CHECK(check_file() == GMSRT_BAD_GRAPH, "accepted: %s", words);
    CHECK(strstr(gmsrt_last_error(), words) != NULL, "'%s' does not say '%s'", gmsrt_last_error(), words);
    CHECK(strstr(gmsrt_last_error(), "graph.onnx") != NULL, "'%s' does not name the file", gmsrt_last_error());
}

static void expect_node(const bytes *node, const char *words)
{
    const bytes graph = make_graph(node);

    expect_graph(&graph, words);
}

static void test_nodes(void)
{
    static const struct {
        const char *type, *inputs, *outputs, *words;
    } cases[] = {
        {"Relu", "a", "b", NULL},
        {"NotOfTheTable", "a a a", "b", NULL},
        {"Conv", "a a", "b", NULL},
        {"Conv", "a a a", "b", NULL},
        {"Conv", "a a -", "b", NULL},
        {"Resize", "a - a", "b", NULL},
        {"Concat", "a a a a a", "b", NULL},
        {"Split", "a", "c - b", NULL},
        {"Conv", "a", "b", "node 'the/node' (Conv) has 1 input, needs 2 or 3"},
        {"Conv", "", "b", "has 0 inputs, needs 2 or 3"},
        {"Conv", "a a a a", "b", "has 4 inputs, needs 2 or 3"},
        {"Conv", "a -", "b", "leaves out its input 2"},
        {"Pad", "a", "b", "has 1 input, needs 2 to 4"}, /* since opset 11 */
        {"Relu", "a a", "b", "has 2 inputs, needs 1;"},
        {"Clip", "a a a a", "b", "has 4 inputs, needs 1 to 3"},
        {"Concat", "", "b", "has 0 inputs, needs at least 1"},
        {"Relu", "a", "b c", "has 2 outputs, needs 1;"},
        {"Relu", "a", "", "has no output"},
        {"Relu", "missing", "b", "reads 'missing', which nothing before it makes"},
        {"Relu", "b", "b", "reads 'b', which nothing before it makes"},
        {"Relu", "a", "a", "makes 'a', which is there already"},
        {"Relu", "a", "c", "has the output 'b', which nothing makes"},
        {"", "a", "b", "has no operator"},
    };
    bytes node, two = {0}, second, graph;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        node = make_node(cases[i].type, cases[i].inputs, cases[i].outputs);
        expect_node(&node, cases[i].words);
    }
    node = make_node("Conv", "a", "b");
    add_text(&node, 7, "com.example"); /* another domain's operator of that name */
    expect_node(&node, NULL);
    node = make_node("Relu", "a", "c"); /* in order, and not */
    second = make_node("Relu", "c", "b");
    add_message(&two, 1, &node);
    graph = make_graph(&second);
    add_raw(&two, graph.data, graph.size);
    expect_graph(&two, NULL);
    add_message(&graph, 1, &node);
    expect_graph(&graph, "reads 'c'");
    memset(&graph, 0, sizeof graph);
    add_value(&graph, 11, "a");
    expect_graph(&graph, "without an output");
}

static void expect_attribute(const char *type, const char *name, unsigned kind, int count, const int64_t *values,
                             const char *words)
{
    bytes node = make_node(type, "a a", "b"), attribute = {0};

    add_text(&attribute, 1, name);
    for (int i = 0; i < count; i++) add_number(&attribute, kind == 2 ? 3 : 8, (uint64_t)values[i]);
    add_number(&attribute, 20, kind);
    add_message(&node, 5, &attribute);
    expect_node(&node, words);
}

static void test_attributes(void)
{
    expect_attribute("Conv", "strides", 7, 2, (const int64_t[]){2, 1}, NULL);
    expect_attribute("Conv", "strides", 7, 2, (const int64_t[]){0, 1}, "has strides = 0");
    expect_attribute("Conv", "dilations", 7, 2, (const int64_t[]){1, -1}, "has dilations = -1");
    expect_attribute("Conv", "pads", 7, 4, (const int64_t[]){1, -1, 0, 0}, NULL);
    expect_attribute("Conv", "kernel_shape", 7, 1, (const int64_t[]){INT64_MIN}, "kernel_shape");
    expect_attribute("Conv", "group", 2, 1, (const int64_t[]){0}, "has group = 0");
    expect_attribute("Conv", "group", 7, 1, (const int64_t[]){1}, "group that is not a number");
    expect_attribute("Conv", "strides", 2, 1, (const int64_t[]){1}, "strides that is not a list");
    expect_attribute("Other", "perm", 7, 4, (const int64_t[]){0, 3, 1, 2}, NULL);
    expect_attribute("Other", "perm", 7, 3, (const int64_t[]){0, 1, 1}, "no permutation");
    expect_attribute("Other", "perm", 7, 3, (const int64_t[]){0, 1, 3}, "no permutation");
    expect_attribute("Other", "perm", 7, 2, (const int64_t[]){0, 64}, "has perm = 64");
    expect_attribute("Other", "anything", 7, 2, (const int64_t[]){0, 64}, NULL);
}

/* A Constant node with such a tensor, or the constant "w" of the graph. */
static void expect_tensor(const bytes *tensor, const char *words)
{
    bytes node = make_node("Constant", "", "b"), attribute = {0}, graph, named = *tensor;

    add_text(&attribute, 1, "value");
    add_message(&attribute, 5, tensor);
    add_number(&attribute, 20, 4);
    add_message(&node, 5, &attribute);
    expect_node(&node, words);
    node = make_node("Add", "a w", "b");
    graph = make_graph(&node);
    add_text(&named, 8, "w");
    add_message(&graph, 5, &named);
    expect_graph(&graph, words);
}

static bytes make_tensor(unsigned type, int count, const int64_t *dims)
{
    bytes tensor = {0};

    for (int i = 0; i < count; i++) add_number(&tensor, 1, (uint64_t)dims[i]);
    add_number(&tensor, 2, type);
    return tensor;
}

static void test_tensors(void)
{
    static const uint8_t zeros[64] = {0};
    static const int64_t shape[] = {2, 3}, nothing[] = {0, 3};
    static const struct {
        unsigned type;
        size_t raw;
        const char *words;
    } raw[] = {
        {1, 24, NULL},
        {1, 23, "holds 23 bytes, its sizes ask for 24"},
        {1, 25, "holds 25 bytes"},
        {1, 0, "holds 0 bytes"},
        {2, 6, NULL},
        {7, 48, NULL},
        {10, 12, NULL},
        {16, 12, NULL},
        {22, 3, NULL}, /* two in a byte */
        {22, 6, "ask for 3"},
        {8, 6, "holds 6 bytes"}, /* strings are never raw */
        {0, 6, "unknown type 0"},
        {99, 6, "unknown type 99"},
    };
    bytes tensor;

    for (size_t i = 0; i < sizeof raw / sizeof *raw; i++) {
        tensor = make_tensor(raw[i].type, 2, shape);
        add_data(&tensor, 9, zeros, raw[i].raw);
        expect_tensor(&tensor, raw[i].words);
    }
    tensor = make_tensor(1, 2, shape);
    expect_tensor(&tensor, "holds 0 values, its sizes ask for 6");
    add_data(&tensor, 4, zeros, 24);
    expect_tensor(&tensor, NULL);
    add_data(&tensor, 4, zeros, 4);
    expect_tensor(&tensor, "holds 7 values");
    tensor = make_tensor(1, 2, shape);
    add_data(&tensor, 10, zeros, 48);
    expect_tensor(&tensor, "another type");
    tensor = make_tensor(7, 2, shape);
    add_data(&tensor, 7, zeros, 6); /* six packed zeros */
    expect_tensor(&tensor, NULL);
    tensor = make_tensor(7, 1, shape);
    add_number(&tensor, 7, 5);
    add_number(&tensor, 7, 6);
    expect_tensor(&tensor, NULL);
    tensor = make_tensor(1, 2, nothing);
    expect_tensor(&tensor, NULL);
    tensor = make_tensor(1, 0, NULL);
    add_data(&tensor, 9, zeros, 4);
    expect_tensor(&tensor, NULL);
    tensor = make_tensor(1, 1, (const int64_t[]){-1});
    expect_tensor(&tensor, "impossible sizes");
    tensor = make_tensor(1, 3, (const int64_t[]){1 << 20, 1 << 20, 1 << 20});
    expect_tensor(&tensor, "impossible sizes");
    tensor = make_tensor(1, 2, (const int64_t[]){INT64_MAX, INT64_MAX});
    expect_tensor(&tensor, "impossible sizes");
}

static void expect_outside(const char *place, const char *offset, const char *length, const char *words)
{
    bytes tensor = make_tensor(1, 1, (const int64_t[]){4});
    const char *const pairs[3][2] = {{"location", place}, {"offset", offset}, {"length", length}};

    add_number(&tensor, 14, 1);
    for (int i = 0; i < 3; i++) {
        bytes pair = {0};

        if (pairs[i][1] == NULL) continue;
        add_text(&pair, 1, pairs[i][0]);
        add_text(&pair, 2, pairs[i][1]);
        add_message(&tensor, 13, &pair);
    }
    expect_tensor(&tensor, words);
}

static void test_outside(void)
{
    static const uint8_t data[32] = {0};

    write_bytes(beside, data, sizeof data);
    expect_outside("graph.data", NULL, NULL, NULL);
    expect_outside("graph.data", "16", "16", NULL);
    expect_outside("./graph.data", "16", NULL, NULL);
    expect_outside("graph.data", "17", NULL, "wants 16 bytes of 'graph.data'");
    expect_outside("graph.data", "33", "0", "does not hold them");
    expect_outside("graph.data", "0", "12", "does not hold them");
    expect_outside("graph.data", "-1", NULL, "damaged");
    expect_outside("graph.data", "99999999999999999999", NULL, "damaged");
    expect_outside("graph.data", "999999999999999999", "16", "does not hold them");
    expect_outside("absent.data", NULL, NULL, "'absent.data', which is not there");
    expect_outside(".", NULL, NULL, "which is not there");
    expect_outside("", NULL, NULL, "outside the graph's folder");
    expect_outside(NULL, NULL, NULL, "outside the graph's folder");
    expect_outside("/etc/passwd", NULL, NULL, "outside the graph's folder");
    expect_outside("../graph.data", NULL, NULL, "outside the graph's folder");
    expect_outside("x/../../graph.data", NULL, NULL, "outside the graph's folder");
    expect_outside("x/..", NULL, NULL, "outside the graph's folder");
    expect_outside("*/_ORT_MEM_ADDR_/*", "4096", "16", "which is not there"); /* an address in memory, to some */
    unlink(beside);
}

/* Graphs within nodes read what is around them, and nobody outside reads what is in them. */
static void test_scopes(void)
{
    bytes inner_node = make_node("Relu", "a", "y"), inner = {0}, node = make_node("If", "a", "b"), attribute = {0};
    bytes graph, deep, after = make_node("Relu", "y", "z");

    add_message(&inner, 1, &inner_node);
    add_value(&inner, 12, "y");
    add_text(&attribute, 1, "then_branch");
    add_message(&attribute, 6, &inner);
    add_number(&attribute, 20, 5);
    add_message(&node, 5, &attribute);
    expect_node(&node, NULL);
    graph = make_graph(&node);
    add_message(&graph, 1, &after);
    expect_graph(&graph, "reads 'y'");

    deep = make_node("Relu", "a", "b");
    for (int i = 0; i < 40; i++) {
        bytes outer = make_node("If", "a", "b"), level;

        level = make_graph(&deep);
        memset(&attribute, 0, sizeof attribute);
        add_message(&attribute, 6, &level);
        add_message(&outer, 5, &attribute);
        deep = outer;
    }
    expect_node(&deep, "graphs within graphs");
}

static void expect_function(const char *type, const char *inputs, const char *output, const char *words)
{
    bytes function = {0}, body = make_node(type, inputs, "y"), node = make_node("Own", "a", "b"), graph, model;

    add_text(&node, 7, "own");
    add_text(&function, 1, "Own");
    add_text(&function, 4, "x");
    add_text(&function, 5, output);
    add_message(&function, 7, &body);
    add_text(&function, 10, "own");
    graph = make_graph(&node);
    model = make_model(&graph);
    add_message(&model, 25, &function);
    write_bytes(path, model.data, model.size);
    if (words == NULL)
        CHECK_OK(check_file());
    else
        CHECK(check_file() == GMSRT_BAD_GRAPH && strstr(gmsrt_last_error(), words) != NULL, "%s", gmsrt_last_error());
}

static void test_functions(void)
{
    expect_function("Relu", "x", "y", NULL);
    expect_function("Conv", "x", "y", "has 1 input, needs 2 or 3");
    expect_function("Relu", "a", "y", "reads 'a', which nothing before it makes");
    expect_function("Relu", "x", "z", "a function with the output 'z'");
}

/* Each byte of a sound file changed to each of some values: a status, never a crash. */
static void test_damage(void)
{
    static const uint8_t values[] = {0x00, 0x01, 0x0a, 0x12, 0x7f, 0x80, 0xff};
    bytes tensor = make_tensor(1, 1, (const int64_t[]){2}), node = make_node("Conv", "a w", "b"), graph, model;
    int sound = 0;

    add_text(&tensor, 8, "w");
    add_data(&tensor, 9, "\0\0\0\0\0\0\0", 8);
    graph = make_graph(&node);
    add_message(&graph, 5, &tensor);
    model = make_model(&graph);
    for (size_t i = 0; i < model.size; i++)
        for (size_t v = 0; v < sizeof values; v++) {
            const uint8_t kept = model.data[i];
            gmsrt_status status;

            model.data[i] = values[v];
            write_bytes(path, model.data, model.size);
            model.data[i] = kept;
            status = check_file();
            CHECK(status == GMSRT_OK || status == GMSRT_BAD_GRAPH, "%s", gmsrt_last_error());
            sound += status == GMSRT_OK;
        }
    CHECK(sound > 0, "nothing is left of the graph");
    add_message(&model, 7, &graph);
    write_bytes(path, model.data, model.size);
    CHECK(check_file() == GMSRT_BAD_GRAPH && strstr(gmsrt_last_error(), "two graphs") != NULL, "two graphs");
}

int main(int argc, char **argv)
{
    CHECK(argc == 2, "usage: test_onnx FOLDER");
    snprintf(path, sizeof path, "%s/graph.onnx", argv[1]);
    snprintf(beside, sizeof beside, "%s/graph.data", argv[1]);
    test_nodes();
    test_attributes();
    test_tensors();
    test_outside();
    test_scopes();
    test_functions();
    test_damage();
    unlink(path);
    return checks_passed("test_onnx");
}
