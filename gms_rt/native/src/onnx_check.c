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

enum { MODEL_GRAPH = 7, MODEL_OPSET = 8, MODEL_FUNCTION = 25 };
enum { OPSET_DOMAIN = 1, OPSET_VERSION = 2 };
enum { FUNCTION_INPUT = 4, FUNCTION_OUTPUT = 5, FUNCTION_NODE = 7 };
enum { GRAPH_NODE = 1, GRAPH_INITIALIZER = 5, GRAPH_INPUT = 11, GRAPH_OUTPUT = 12, GRAPH_SPARSE = 15 };
enum { VALUE_NAME = 1, TENSOR_NAME = 8, SPARSE_VALUES = 1, SPARSE_INDICES = 2 };

bool gmsrt_complain(gmsrt_check *check, const char *format, ...)
{
    va_list arguments;

    if (check->complaint[0] != '\0') return false;
    va_start(arguments, format);
    vsnprintf(check->complaint, sizeof check->complaint, format, arguments);
    va_end(arguments);
    return false;
}

bool gmsrt_next_part(gmsrt_check *check, gmsrt_span *rest, gmsrt_field *field)
{
    gmsrt_step step;

    do {
        step = gmsrt_next_field(&check->reader, rest, field);
    } while (step == GMSRT_STEP_FIELD && field->wire != GMSRT_WIRE_LENGTH);
    if (step == GMSRT_STEP_BROKEN) gmsrt_complain(check, "is damaged: its graph is cut short or overwritten");
    return step == GMSRT_STEP_FIELD;
}

bool gmsrt_is_sound(const gmsrt_check *check)
{
    return check->complaint[0] == '\0' && !check->out_of_memory;
}

bool gmsrt_read_name(gmsrt_check *check, gmsrt_span span)
{
    if (gmsrt_read_text(&check->reader, span, check->text, sizeof check->text)) return true;
    return gmsrt_complain(check, "has a name of %llu bytes", (unsigned long long)(span.end - span.at));
}

/* The name of a tensor or value into check->text; "" if it has none. */
static bool read_name_within(gmsrt_check *check, gmsrt_span message, uint32_t number)
{
    gmsrt_span found = {0, 0};
    gmsrt_field field;

    while (gmsrt_next_part(check, &message, &field))
        if (field.number == number) found = field.body;
    return gmsrt_is_sound(check) && gmsrt_read_name(check, found);
}

bool gmsrt_add_name(gmsrt_check *check)
{
    if (gmsrt_names_add(&check->names, check->text)) return true;
    check->out_of_memory = true;
    return false;
}

void gmsrt_read_short(gmsrt_check *check, gmsrt_span span, char *text, size_t size)
{
    if (span.end - span.at >= size) span.end = span.at + size - 1;
    if (!gmsrt_read_text(&check->reader, span, text, size)) text[0] = '\0';
}

bool gmsrt_is_standard(const char *domain)
{
    return domain[0] == '\0' || strcmp(domain, "ai.onnx") == 0;
}

/* A constant of the graph: checked as a tensor, its name becomes known. */
static bool check_initializer(gmsrt_check *check, gmsrt_span message)
{
    char what[160];

    if (!read_name_within(check, message, TENSOR_NAME)) return false;
    snprintf(what, sizeof what, "the constant '%.120s'", check->text);
    if (!gmsrt_names_has_here(&check->names, check->text) && !gmsrt_add_name(check))
        return false; /* or an input's default */
    return gmsrt_check_tensor(check, message, what);
}

static bool check_sparse(gmsrt_check *check, gmsrt_span message)
{
    gmsrt_field field;

    while (gmsrt_next_part(check, &message, &field)) {
        if (field.number == SPARSE_VALUES && !check_initializer(check, field.body)) return false;
        if (field.number == SPARSE_INDICES && !gmsrt_check_tensor(check, field.body, "the index of a sparse constant"))
            return false;
    }
    return gmsrt_is_sound(check);
}

/* Inputs and constants first, wherever in the message they stand; then the nodes in order, then the outputs. */
static bool check_parts(gmsrt_check *check, gmsrt_span graph)
{
    uint64_t nodes = 0, outputs = 0;
    gmsrt_field field;
    gmsrt_span rest;

    for (rest = graph; gmsrt_next_part(check, &rest, &field);) {
        bool good = true;

        if (field.number == GRAPH_INPUT)
            good = read_name_within(check, field.body, VALUE_NAME) && gmsrt_add_name(check);
        if (field.number == GRAPH_INITIALIZER) good = check_initializer(check, field.body);
        if (field.number == GRAPH_SPARSE) good = check_sparse(check, field.body);
        if (!good) return false;
    }
    for (rest = graph; gmsrt_is_sound(check) && gmsrt_next_part(check, &rest, &field);)
        if (field.number == GRAPH_NODE && !gmsrt_check_node(check, field.body, ++nodes)) return false;
    for (rest = graph; gmsrt_is_sound(check) && gmsrt_next_part(check, &rest, &field);) {
        if (field.number != GRAPH_OUTPUT) continue;
        outputs++;
        if (!read_name_within(check, field.body, VALUE_NAME)) return false;
        if (!gmsrt_names_has(&check->names, check->text))
            return gmsrt_complain(check, "has the output '%.200s', which nothing makes", check->text);
    }
    if (outputs == 0) return gmsrt_complain(check, "has a graph without an output");
    return gmsrt_is_sound(check);
}

bool gmsrt_check_graph(gmsrt_check *check, gmsrt_span graph)
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

/* A function of the model's own: like a graph, but its inputs and outputs are bare names and it sees nothing else. */
static bool check_function(gmsrt_check *check, gmsrt_span function)
{
    uint64_t nodes = 0;
    gmsrt_field field;
    gmsrt_span rest;

    gmsrt_names_enter(&check->names);
    for (rest = function; gmsrt_next_part(check, &rest, &field);)
        if (field.number == FUNCTION_INPUT && !(gmsrt_read_name(check, field.body) && gmsrt_add_name(check)))
            return false;
    for (rest = function; gmsrt_is_sound(check) && gmsrt_next_part(check, &rest, &field);)
        if (field.number == FUNCTION_NODE && !gmsrt_check_node(check, field.body, ++nodes)) return false;
    for (rest = function; gmsrt_is_sound(check) && gmsrt_next_part(check, &rest, &field);) {
        if (field.number != FUNCTION_OUTPUT) continue;
        if (!gmsrt_read_name(check, field.body)) return false;
        if (!gmsrt_names_has(&check->names, check->text))
            return gmsrt_complain(check, "has a function with the output '%.200s', which nothing makes", check->text);
    }
    gmsrt_names_leave(&check->names);
    return gmsrt_is_sound(check);
}

/* The version of the standard operators; joined graphs may name several, the highest counts. */
static void read_opset(gmsrt_check *check, gmsrt_span message)
{
    char domain[32] = "";
    uint64_t version = 0;
    gmsrt_field field;

    while (gmsrt_next_field(&check->reader, &message, &field) == GMSRT_STEP_FIELD) {
        if (field.number == OPSET_DOMAIN && field.wire == GMSRT_WIRE_LENGTH)
            gmsrt_read_short(check, field.body, domain, sizeof domain);
        if (field.number == OPSET_VERSION) version = field.value;
    }
    if (gmsrt_is_standard(domain) && version > check->opset) check->opset = version;
}

static bool check_model(gmsrt_check *check)
{
    gmsrt_span rest = {0, check->reader.size}, graph = {0, 0};
    gmsrt_field field;

    while (gmsrt_next_part(check, &rest, &field)) {
        if (field.number == MODEL_OPSET) read_opset(check, field.body);
        if (field.number != MODEL_GRAPH) continue;
        if (graph.end != 0) return gmsrt_complain(check, "holds two graphs");
        graph = field.body;
    }
    rest.at = 0;
    while (gmsrt_is_sound(check) && gmsrt_next_part(check, &rest, &field))
        if (field.number == MODEL_FUNCTION && !check_function(check, field.body)) return false;
    return gmsrt_is_sound(check) && gmsrt_check_graph(check, graph);
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
