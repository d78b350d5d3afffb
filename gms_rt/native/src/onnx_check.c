/* The structural check of an ONNX file: a walk over the whole graph before a runtime sees it.
 *
 * OpenVINO's reader trusts a graph in many places, and a node without its weights can end the process. What is asked
 * here needs no knowledge of shapes: every node has an operator and as many inputs and outputs as that takes, reads
 * only what is there before it, and every tensor has the bytes that its sizes ask for. The walk holds the names in
 * memory, nothing else, and goes `GMSRT_MAX_DEPTH` graphs deep. What passes is tried in a process of its own, see
 * trial.c. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "onnx_check.h"

enum { MODEL_GRAPH = 7 };
enum { GRAPH_NODE = 1, GRAPH_INITIALIZER = 5, GRAPH_INPUT = 11, GRAPH_OUTPUT = 12, GRAPH_SPARSE = 15 };
enum { NODE_INPUT = 1, NODE_OUTPUT = 2, NODE_NAME = 3, NODE_OPERATOR = 4, NODE_ATTRIBUTE = 5, NODE_DOMAIN = 7 };
enum { ATTRIBUTE_T = 5, ATTRIBUTE_G = 6, ATTRIBUTE_TENSORS = 10, ATTRIBUTE_GRAPHS = 11 };
enum { VALUE_NAME = 1, TENSOR_NAME = 8, SPARSE_VALUES = 1, SPARSE_INDICES = 2 };

static bool check_graph(gmsrt_check *check, gmsrt_span graph);

bool gmsrt_complain(gmsrt_check *check, const char *format, ...)
{
    va_list arguments;

    if (check->complaint[0] != '\0') return false;
    va_start(arguments, format);
    vsnprintf(check->complaint, sizeof check->complaint, format, arguments);
    va_end(arguments);
    return false;
}

/* The next field that is length-delimited; others are stepped over. A damaged message ends the walk like its end. */
static bool next_part(gmsrt_check *check, gmsrt_span *rest, gmsrt_field *field)
{
    gmsrt_step step;

    do {
        step = gmsrt_next_field(&check->reader, rest, field);
    } while (step == GMSRT_STEP_FIELD && field->wire != GMSRT_WIRE_LENGTH);
    if (step == GMSRT_STEP_BROKEN) gmsrt_complain(check, "is damaged: its graph is cut short or overwritten");
    return step == GMSRT_STEP_FIELD;
}

static bool is_sound(const gmsrt_check *check)
{
    return check->complaint[0] == '\0' && !check->out_of_memory;
}

/* A name into check->text. */
static bool read_name(gmsrt_check *check, gmsrt_span span)
{
    if (gmsrt_read_text(&check->reader, span, check->text, sizeof check->text)) return true;
    return gmsrt_complain(check, "has a name of %llu bytes", (unsigned long long)(span.end - span.at));
}

/* The name of a tensor or value into check->text; "" if it has none. */
static bool read_name_within(gmsrt_check *check, gmsrt_span message, uint32_t number)
{
    gmsrt_span found = {0, 0};
    gmsrt_field field;

    while (next_part(check, &message, &field))
        if (field.number == number) found = field.body;
    return is_sound(check) && read_name(check, found);
}

static bool add_name(gmsrt_check *check)
{
    if (gmsrt_names_add(&check->names, check->text)) return true;
    check->out_of_memory = true;
    return false;
}

typedef struct node {
    char name[128], operator[64], domain[32];
    char what[256]; /* "node 'x' (Conv)" */
    unsigned inputs, outputs;
} node;

/* Cut to what a message can hold. */
static void read_short(gmsrt_check *check, gmsrt_span span, char *text, size_t size)
{
    if (span.end - span.at >= size) span.end = span.at + size - 1;
    if (!gmsrt_read_text(&check->reader, span, text, size)) text[0] = '\0';
}

static bool check_count(gmsrt_check *check, const node *n, unsigned count, unsigned low, unsigned high,
                        const char *kind)
{
    char wanted[40];

    if (count >= low && (high == GMSRT_ANY || count <= high)) return true;
    if (high == GMSRT_ANY)
        snprintf(wanted, sizeof wanted, "at least %u", low);
    else if (low == high)
        snprintf(wanted, sizeof wanted, "%u", low);
    else
        snprintf(wanted, sizeof wanted, high == low + 1 ? "%u or %u" : "%u to %u", low, high);
    return gmsrt_complain(check, "%s has %u %s%s, needs %s", n->what, count, kind, count == 1 ? "" : "s", wanted);
}

/* The node's words and counts. */
static bool read_node(gmsrt_check *check, gmsrt_span message, uint64_t number, node *n)
{
    gmsrt_field field;

    memset(n, 0, sizeof *n);
    while (next_part(check, &message, &field)) {
        switch (field.number) {
        case NODE_INPUT: n->inputs++; break;
        case NODE_OUTPUT: n->outputs++; break;
        case NODE_NAME: read_short(check, field.body, n->name, sizeof n->name); break;
        case NODE_OPERATOR: read_short(check, field.body, n->operator, sizeof n->operator); break;
        case NODE_DOMAIN: read_short(check, field.body, n->domain, sizeof n->domain); break;
        default: break;
        }
    }
    if (n->name[0] == '\0') snprintf(n->name, sizeof n->name, "number %llu", (unsigned long long)number);
    snprintf(n->what, sizeof n->what, "node '%s' (%s)", n->name, n->operator);
    if (n->operator[0] == '\0') return gmsrt_complain(check, "node '%s' has no operator", n->name);
    if (n->outputs == 0) return gmsrt_complain(check, "%s has no output", n->what);
    return is_sound(check);
}

/* Every input that is named is known; the first `needed` are named. */
static bool check_inputs(gmsrt_check *check, gmsrt_span message, const node *n, unsigned needed)
{
    gmsrt_field field;
    unsigned index = 0;

    while (next_part(check, &message, &field)) {
        if (field.number != NODE_INPUT) continue;
        if (!read_name(check, field.body)) return false;
        if (check->text[0] == '\0' && index < needed)
            return gmsrt_complain(check, "%s leaves out its input %u", n->what, index + 1);
        if (check->text[0] != '\0' && !gmsrt_names_has(&check->names, check->text))
            return gmsrt_complain(check, "%s reads '%.200s', which nothing before it makes", n->what, check->text);
        index++;
    }
    return is_sound(check);
}

static bool check_attributes(gmsrt_check *check, gmsrt_span message, const node *n, bool standard)
{
    gmsrt_field attribute, field;

    while (next_part(check, &message, &attribute)) {
        gmsrt_span rest = attribute.body;

        if (attribute.number != NODE_ATTRIBUTE) continue;
        if (standard && !gmsrt_check_attribute(check, attribute.body, n->what)) return false;
        while (next_part(check, &rest, &field)) {
            if ((field.number == ATTRIBUTE_T || field.number == ATTRIBUTE_TENSORS) &&
                !gmsrt_check_tensor(check, field.body, n->what))
                return false;
            if ((field.number == ATTRIBUTE_G || field.number == ATTRIBUTE_GRAPHS) && !check_graph(check, field.body))
                return false;
        }
    }
    return is_sound(check);
}

static bool add_outputs(gmsrt_check *check, gmsrt_span message, const node *n)
{
    gmsrt_field field;

    while (next_part(check, &message, &field)) {
        if (field.number != NODE_OUTPUT) continue;
        if (!read_name(check, field.body)) return false;
        if (check->text[0] == '\0') continue; /* nobody wants this one */
        if (gmsrt_names_has_here(&check->names, check->text))
            return gmsrt_complain(check, "%s makes '%.200s', which is there already", n->what, check->text);
        if (!add_name(check)) return false;
    }
    return is_sound(check);
}

static bool check_node(gmsrt_check *check, gmsrt_span message, uint64_t number)
{
    const gmsrt_operator *limits = NULL;
    bool standard;
    node n;

    if (!read_node(check, message, number, &n)) return false;
    standard = n.domain[0] == '\0' || strcmp(n.domain, "ai.onnx") == 0;
    if (standard) limits = gmsrt_find_operator(n.operator);
    if (limits != NULL && (!check_count(check, &n, n.inputs, limits->min_inputs, limits->max_inputs, "input") ||
                           !check_count(check, &n, n.outputs, 1, limits->max_outputs, "output")))
        return false;
    return check_inputs(check, message, &n, limits != NULL ? limits->min_inputs : 0) &&
           check_attributes(check, message, &n, standard) && add_outputs(check, message, &n);
}

/* A constant of the graph: checked as a tensor, its name becomes known. */
static bool check_initializer(gmsrt_check *check, gmsrt_span message)
{
    char what[160];

    if (!read_name_within(check, message, TENSOR_NAME)) return false;
    snprintf(what, sizeof what, "the constant '%.120s'", check->text);
    if (!gmsrt_names_has_here(&check->names, check->text) && !add_name(check)) return false; /* or an input's default */
    return gmsrt_check_tensor(check, message, what);
}

static bool check_sparse(gmsrt_check *check, gmsrt_span message)
{
    gmsrt_field field;

    while (next_part(check, &message, &field)) {
        if (field.number == SPARSE_VALUES && !check_initializer(check, field.body)) return false;
        if (field.number == SPARSE_INDICES && !gmsrt_check_tensor(check, field.body, "the index of a sparse constant"))
            return false;
    }
    return is_sound(check);
}

/* Inputs and constants first, wherever in the message they stand; then the nodes in order, then the outputs. */
static bool check_parts(gmsrt_check *check, gmsrt_span graph)
{
    uint64_t nodes = 0, outputs = 0;
    gmsrt_field field;
    gmsrt_span rest;

    for (rest = graph; next_part(check, &rest, &field);) {
        bool good = true;

        if (field.number == GRAPH_INPUT) good = read_name_within(check, field.body, VALUE_NAME) && add_name(check);
        if (field.number == GRAPH_INITIALIZER) good = check_initializer(check, field.body);
        if (field.number == GRAPH_SPARSE) good = check_sparse(check, field.body);
        if (!good) return false;
    }
    for (rest = graph; is_sound(check) && next_part(check, &rest, &field);)
        if (field.number == GRAPH_NODE && !check_node(check, field.body, ++nodes)) return false;
    for (rest = graph; is_sound(check) && next_part(check, &rest, &field);) {
        if (field.number != GRAPH_OUTPUT) continue;
        outputs++;
        if (!read_name_within(check, field.body, VALUE_NAME)) return false;
        if (!gmsrt_names_has(&check->names, check->text))
            return gmsrt_complain(check, "has the output '%.200s', which nothing makes", check->text);
    }
    if (outputs == 0) return gmsrt_complain(check, "has a graph without an output");
    return is_sound(check);
}

static bool check_graph(gmsrt_check *check, gmsrt_span graph)
{
    bool good;

    if (check->depth == GMSRT_MAX_DEPTH) return gmsrt_complain(check, "has graphs within graphs without end");
    check->depth++;
    gmsrt_names_enter(&check->names);
    good = check_parts(check, graph);
    gmsrt_names_leave(&check->names);
    check->depth--;
    return good;
}

static bool check_model(gmsrt_check *check)
{
    gmsrt_span model = {0, check->reader.size}, graph = {0, 0};
    gmsrt_field field;

    while (next_part(check, &model, &field)) {
        if (field.number != MODEL_GRAPH) continue;
        if (graph.end != 0) return gmsrt_complain(check, "holds two graphs");
        graph = field.body;
    }
    return is_sound(check) && check_graph(check, graph);
}

gmsrt_status gmsrt_check_onnx(const char *path, gmsrt_files *files)
{
    gmsrt_check *check = calloc(1, sizeof *check);
    gmsrt_status status = GMSRT_OK;
    char *folder = malloc(strlen(path) + 2);
    struct stat about;

    if (check == NULL || folder == NULL) {
        free(check);
        free(folder);
        return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory to check %s", path);
    }
    strcpy(folder, path);
    if (strrchr(folder, '/') != NULL)
        strrchr(folder, '/')[1] = '\0';
    else
        strcpy(folder, ".");
    check->folder = folder;
    check->files = files;
    check->reader.file = open(path, O_RDONLY | O_CLOEXEC);
    if (check->reader.file < 0 || fstat(check->reader.file, &about) != 0) {
        status = gmsrt_fail(GMSRT_NOT_FOUND, "%s cannot be read", path);
    } else {
        check->reader.size = (uint64_t)about.st_size;
        if (!check_model(check))
            status = check->out_of_memory
                         ? gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory to check %s", path)
                         : gmsrt_fail(GMSRT_BAD_GRAPH, "%s: %s; export or copy it again", path, check->complaint);
    }
    if (check->reader.file >= 0) close(check->reader.file);
    gmsrt_names_free(&check->names);
    free(check);
    free(folder);
    return status;
}
