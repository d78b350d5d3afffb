/* Look at an ONNX file before a parser does: is it one, and which other files have its weights?
 *
 * An ONNX file is a protobuf message whose fields carry their lengths. A truncated copy, an empty file, a page of HTML
 * or another format fails this walk. OpenVINO takes a file for ONNX if it begins with three different known fields, and
 * else tries its other formats on it, which print and guess: so that much is asked here, too.
 *
 * A tensor may name another file for its data. Every tensor is found, wherever one can stand, because these files are
 * hashed together with the graph, and because the name decides which file a runtime opens. Only a plain path below the
 * graph's folder is accepted: no absolute path, no "..", and no '*', which to OpenVINO marks an address in the memory
 * of this process in place of a file.
 *
 * Nothing else is asked about the graph: the trial shows whether OpenVINO can run it, see trial.c. The walk goes forward
 * through the file once, skips all data, and keeps one span for each level of messages. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "internal.h"
#include "protobuf.h"

#define MAX_DEPTH 100u /* of messages within messages, as in protobuf's own parsers */
#define MAX_FILES 4096u
#define LEADING_FIELDS 3u

/* The messages that tensors are in, at once or some levels deeper. */
typedef enum message { OTHER, MODEL, TRAINING, GRAPH, FUNCTION, NODE, ATTRIBUTE, SPARSE, TENSOR } message;

/* tests/runtime/test_onnx_file.py compares this with the definitions in the onnx package. */
static const struct part {
    uint8_t within, field, what;
} parts[] = {
    {MODEL, 7, GRAPH},       {MODEL, 20, TRAINING},     {MODEL, 25, FUNCTION},  {TRAINING, 1, GRAPH},
    {TRAINING, 2, GRAPH},    {GRAPH, 1, NODE},          {GRAPH, 5, TENSOR},     {GRAPH, 15, SPARSE},
    {FUNCTION, 7, NODE},     {FUNCTION, 11, ATTRIBUTE}, {NODE, 5, ATTRIBUTE},   {ATTRIBUTE, 5, TENSOR},
    {ATTRIBUTE, 6, GRAPH},   {ATTRIBUTE, 10, TENSOR},   {ATTRIBUTE, 11, GRAPH}, {ATTRIBUTE, 22, SPARSE},
    {ATTRIBUTE, 23, SPARSE}, {SPARSE, 1, TENSOR},       {SPARSE, 2, TENSOR},
};

enum { TENSOR_EXTERNAL = 13, TENSOR_LOCATION = 14, LOCATION_EXTERNAL = 1 };
enum { ENTRY_KEY = 1, ENTRY_VALUE = 2 };

typedef struct walk {
    const char *path;
    gmsrt_files *files; /* outside weights are added */
    gmsrt_reader reader;
    struct level {
        message what;
        gmsrt_span rest;
    } levels[MAX_DEPTH];
} walk;

static gmsrt_status not_onnx(const walk *w, const char *why)
{
    return gmsrt_fail(GMSRT_BAD_GRAPH, "%s %s; export or copy it again", w->path, why);
}

static gmsrt_status damaged(const walk *w)
{
    return not_onnx(w, "is damaged: its graph is cut short or overwritten");
}

/* Whether a ModelProto has this field with this wire type. */
static bool is_model_field(const gmsrt_field *field)
{
    switch (field->number) {
    case 1: /* ir_version */
    case 5: /* model_version */ return field->wire == GMSRT_WIRE_VARINT;
    case 2:  /* producer_name */
    case 3:  /* producer_version */
    case 4:  /* domain */
    case 6:  /* doc_string */
    case 7:  /* graph */
    case 8:  /* opset_import */
    case 14: /* metadata_props */
    case 20: /* training_info */
    case 25: /* functions */ return field->wire == GMSRT_WIRE_LENGTH;
    default: return false;
    }
}

static message message_of(message within, const gmsrt_field *field)
{
    if (field->wire != GMSRT_WIRE_LENGTH) return OTHER;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i].within == within && parts[i].field == field->number) return (message)parts[i].what;
    return OTHER;
}

/* Names joined by single slashes, none of them "." or "..", without what a runtime could take for something else. */
static bool is_plain_path(const char *place)
{
    for (;;) {
        const size_t length = strcspn(place, "/");

        if (length == 0 || strncmp(place, "..", length) == 0) return false; /* "." too */
        for (size_t i = 0; i < length; i++)
            if (place[i] == '*' || place[i] == '\\' || (unsigned char)place[i] < 0x20) return false;
        if (place[length] == '\0') return true;
        place += length + 1;
    }
}

/* The file that a tensor names: there, and on the list from now on. */
static gmsrt_status add_outside(walk *w, gmsrt_span span)
{
    char text[GMSRT_MAX_FILE_NAME], path[4096 + GMSRT_MAX_FILE_NAME];
    const char *slash = strrchr(w->path, '/'), *place = text;
    const int folder = slash != NULL ? (int)(slash - w->path) + 1 : 0;
    struct stat about;
    gmsrt_file *file;

    if (!gmsrt_read_text(&w->reader, span, text, sizeof text) || strlen(text) != span.end - span.at)
        return not_onnx(w, "has weights in a file whose name is too long or damaged");
    if (strncmp(place, "./", 2) == 0) place += 2;
    if (!is_plain_path(place))
        return gmsrt_fail(GMSRT_BAD_GRAPH,
                          "%s has weights in '%s', which is not a plain path below the graph's folder; export it again "
                          "with its weights in one file next to it",
                          w->path, text);
    if (w->files->bytes != NULL)
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s has its weights in '%s', and memory has no files; open it as a file",
                          w->path, place);
    if (gmsrt_files_has(w->files, place)) return GMSRT_OK;
    snprintf(path, sizeof path, "%.*s%s", folder, w->path, place);
    if (stat(path, &about) != 0 || !S_ISREG(about.st_mode))
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s has weights in '%s', which is not there; copy that file too", w->path,
                          place);
    if (w->files->count == MAX_FILES) return not_onnx(w, "has weights in too many files");
    file = gmsrt_files_add(w->files, place, strlen(place));
    if (file == NULL) return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory to read %s", w->path);
    gmsrt_file_see(file, &about);
    return GMSRT_OK;
}

/* One key and value of a tensor's external data; of a field that is there twice the last counts. */
static gmsrt_status read_entry(walk *w, gmsrt_span rest, bool *located)
{
    gmsrt_span key = {0, 0}, value = {0, 0};
    gmsrt_field field;
    gmsrt_step step;
    char text[sizeof "location"];

    while ((step = gmsrt_next_field(&w->reader, &rest, &field)) == GMSRT_STEP_FIELD) {
        if (field.wire == GMSRT_WIRE_LENGTH && field.number == ENTRY_KEY) key = field.body;
        if (field.wire == GMSRT_WIRE_LENGTH && field.number == ENTRY_VALUE) value = field.body;
    }
    if (step == GMSRT_STEP_BROKEN) return damaged(w);
    if (!gmsrt_read_text(&w->reader, key, text, sizeof text) || strcmp(text, "location") != 0) return GMSRT_OK;
    *located = true;
    return add_outside(w, value);
}

/* Every location counts, also that of a tensor which does not say that its data is outside. */
static gmsrt_status read_tensor(walk *w, gmsrt_span rest)
{
    bool outside = false, located = false;
    gmsrt_status status = GMSRT_OK;
    gmsrt_field field;
    gmsrt_step step;

    while ((step = gmsrt_next_field(&w->reader, &rest, &field)) == GMSRT_STEP_FIELD) {
        if (field.number == TENSOR_LOCATION && field.wire == GMSRT_WIRE_VARINT)
            outside = (uint32_t)field.value == LOCATION_EXTERNAL;
        if (field.number == TENSOR_EXTERNAL && field.wire == GMSRT_WIRE_LENGTH)
            status = read_entry(w, field.body, &located);
        if (status != GMSRT_OK) return status;
    }
    if (step == GMSRT_STEP_BROKEN) return damaged(w);
    return outside && !located ? not_onnx(w, "has weights in another file but does not name it") : GMSRT_OK;
}

static gmsrt_status read_model(walk *w)
{
    bool has_graph = false;
    uint32_t seen = 0; /* the leading fields, a bit each */
    unsigned fields = 0, depth = 1;
    gmsrt_status status;

    w->levels[0] = (struct level){MODEL, {0, w->reader.size}};
    while (depth > 0) {
        struct level *level = &w->levels[depth - 1];
        gmsrt_field field;
        const gmsrt_step step = gmsrt_next_field(&w->reader, &level->rest, &field);
        message what;

        if (step == GMSRT_STEP_END) {
            depth--;
            continue;
        }
        if (step == GMSRT_STEP_BROKEN)
            return depth > 1 ? damaged(w) : not_onnx(w, "is not an ONNX file or is cut short");
        if (depth == 1 && fields++ < LEADING_FIELDS) {
            if (!is_model_field(&field) || (seen & 1u << field.number) != 0) return not_onnx(w, "is not an ONNX file");
            seen |= 1u << field.number;
        }
        what = message_of(level->what, &field);
        has_graph = has_graph || (level->what == MODEL && what == GRAPH && field.body.at < field.body.end);
        if (what == TENSOR) {
            if ((status = read_tensor(w, field.body)) != GMSRT_OK) return status;
        } else if (what != OTHER) {
            if (depth == MAX_DEPTH) return not_onnx(w, "has graphs within graphs without end");
            w->levels[depth++] = (struct level){what, field.body};
        }
    }
    if (!has_graph) return not_onnx(w, "is not an ONNX file: it has no graph");
    return fields < LEADING_FIELDS ? not_onnx(w, "is not an ONNX file or is cut short") : GMSRT_OK;
}

/* The file's size, after it was noted which file on the disk it is. */
static gmsrt_status look_at_file(const char *path, gmsrt_files *files, uint64_t *size)
{
    struct stat about;

    /* Looked at before it is opened: opening a pipe would wait for a writer. */
    if (stat(path, &about) != 0)
        return gmsrt_fail(GMSRT_NOT_FOUND, "%s: %s; give an .onnx file or an engine folder", path, strerror(errno));
    if (!S_ISREG(about.st_mode))
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s is not a file; give an .onnx file or an engine folder", path);
    if (!gmsrt_file_see(&files->items[0], &about))
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s was changed while it was being opened; open it again", path);
    *size = (uint64_t)about.st_size;
    return GMSRT_OK;
}

gmsrt_status gmsrt_read_onnx(const char *path, gmsrt_files *files)
{
    uint64_t size = files->size;
    gmsrt_status status = files->bytes != NULL ? GMSRT_OK : look_at_file(path, files, &size);
    walk *w;

    if (status != GMSRT_OK) return status;
    if (size == 0) return gmsrt_fail(GMSRT_BAD_GRAPH, "%s is empty; export or copy it again", path);
    w = malloc(sizeof *w);
    if (w == NULL) return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory to read %s", path);
    w->path = path;
    w->files = files;
    if (files->bytes != NULL) {
        gmsrt_reader_open_memory(&w->reader, files->bytes, files->size);
        status = read_model(w);
    } else if (gmsrt_reader_open(&w->reader, path)) {
        status = read_model(w);
        gmsrt_reader_close(&w->reader);
    } else {
        status = gmsrt_fail(GMSRT_NOT_FOUND, "%s: %s", path, strerror(errno));
    }
    free(w);
    return status;
}
