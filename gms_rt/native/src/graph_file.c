/* Find the graph and look at the ONNX file before a parser sees it: at the outermost layer here, then at all of it.
 *
 * An ONNX file is a protobuf message; its outer fields carry their lengths. A truncated copy, an empty file, a page of
 * HTML or another format fails this walk. OpenVINO takes a file for ONNX if it begins with three different known
 * fields, and else tries its other formats on it, which print and guess: so that much is asked here, too. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "internal.h"

#define ONNX_GRAPH_FIELD 7u
#define LEADING_FIELDS 3u
#define WIRE_VARINT 0u
#define WIRE_FIXED64 1u
#define WIRE_LENGTH 2u
#define WIRE_FIXED32 5u

/* -1: the file ends or the number is too long. */
static int read_varint(FILE *file, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        const int byte = getc(file);

        if (byte == EOF) return -1;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) return 0;
    }
    return -1;
}

/* Whether a ModelProto has this field with this wire type. */
static bool is_model_field(uint64_t field, unsigned wire)
{
    switch (field) {
    case 1: /* ir_version */
    case 5: /* model_version */ return wire == WIRE_VARINT;
    case 2: /* producer_name */
    case 3: /* producer_version */
    case 4: /* domain */
    case 6: /* doc_string */
    case ONNX_GRAPH_FIELD:
    case 8:  /* opset_import */
    case 14: /* metadata_props */
    case 20: /* training_info */
    case 25: /* functions */ return wire == WIRE_LENGTH;
    default: return false;
    }
}

/* What is wrong with the file, or NULL. */
static const char *complaint(FILE *file, uint64_t size)
{
    bool has_graph = false;
    uint32_t seen = 0; /* the leading fields, a bit each */
    unsigned fields = 0;

    if (size == 0) return "is empty";
    for (;;) {
        const off_t at = ftello(file);
        uint64_t tag, length = 0;

        if (at < 0) return "cannot be read";
        if ((uint64_t)at == size) break;
        if (read_varint(file, &tag) != 0 || tag >> 3 == 0 || tag >> 3 > 0x1fffffff) return "is not an ONNX file";
        if (fields++ < LEADING_FIELDS) {
            if (!is_model_field(tag >> 3, (unsigned)(tag & 7u)) || (seen & (1u << (tag >> 3))) != 0)
                return "is not an ONNX file";
            seen |= 1u << (tag >> 3);
        }
        switch (tag & 7u) {
        case WIRE_VARINT:
            if (read_varint(file, &length) != 0) return "is not an ONNX file or is cut short";
            length = 0;
            break;
        case WIRE_FIXED64: length = 8; break;
        case WIRE_FIXED32: length = 4; break;
        case WIRE_LENGTH:
            if (read_varint(file, &length) != 0) return "is not an ONNX file or is cut short";
            if (tag >> 3 == ONNX_GRAPH_FIELD && length > 0) has_graph = true;
            break;
        default: return "is not an ONNX file";
        }
        if (length > size - (uint64_t)ftello(file)) return "is not an ONNX file or is cut short";
        if (length > 0 && fseeko(file, (off_t)length, SEEK_CUR) != 0) return "cannot be read";
    }
    if (!has_graph) return "is not an ONNX file: it holds no graph";
    return fields >= LEADING_FIELDS ? NULL : "is not an ONNX file or is cut short";
}

/* The path of the graph's file; an engine folder's files are verified and listed. */
static gmsrt_status locate(const char *graph, char *found, size_t size, gmsrt_files *files)
{
    const char *slash = strrchr(graph, '/'), *name = slash != NULL ? slash + 1 : graph;
    struct stat about;

    if (stat(graph, &about) == 0 && S_ISDIR(about.st_mode)) return gmsrt_graph_of_engine(graph, found, size, files);
    if (strlen(graph) >= size || strlen(name) >= GMSRT_MAX_FILE_NAME)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "the path of the graph is too long");
    strcpy(found, graph);
    if (!gmsrt_files_add(files, name, strlen(name), NULL)) return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory");
    return GMSRT_OK;
}

gmsrt_status gmsrt_find_graph(const char *graph, char **path, gmsrt_files *files)
{
    char found[4096];
    struct stat about;
    const char *wrong;
    FILE *file;
    gmsrt_status status;
    bool vouched;

    *path = NULL;
    memset(files, 0, sizeof *files);
    if ((status = locate(graph, found, sizeof found, files)) != GMSRT_OK) return status;
    vouched = files->items[0].hex[0] != '\0';
    /* Looked at before it is opened: opening a pipe would wait for a writer. */
    if (stat(found, &about) != 0)
        return gmsrt_fail(GMSRT_NOT_FOUND, "%s: %s; give an .onnx file or an engine folder", found, strerror(errno));
    if (!S_ISREG(about.st_mode))
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s is not a file; give an .onnx file or an engine folder", found);
    file = fopen(found, "rb");
    if (file == NULL) return gmsrt_fail(GMSRT_NOT_FOUND, "%s: %s", found, strerror(errno));
    wrong = complaint(file, (uint64_t)about.st_size);
    fclose(file);
    if (wrong != NULL) return gmsrt_fail(GMSRT_BAD_GRAPH, "%s %s; export or copy it again", found, wrong);
    if ((status = gmsrt_check_onnx(found, files)) != GMSRT_OK) return status;
    for (size_t i = 0; vouched && i < files->count; i++)
        if (files->items[i].hex[0] == '\0')
            return gmsrt_fail(GMSRT_BAD_GRAPH,
                              "%s has its weights in '%s', which engine.json does not list; build the "
                              "engine again",
                              found, files->items[i].name);
    *path = malloc(strlen(found) + 1);
    if (*path == NULL) return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for a path");
    strcpy(*path, found);
    return GMSRT_OK;
}
