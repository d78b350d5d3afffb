/* From what the caller gives, a graph's file or an engine folder, to the graph's file and all the files it consists of. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "internal.h"

/* The path of the graph's file; an engine folder's files are verified and listed. */
static gmsrt_status locate(const char *graph, char *found, size_t size, gmsrt_files *files, gmsrt_built *built)
{
    const char *slash = strrchr(graph, '/'), *name = slash != NULL ? slash + 1 : graph;
    struct stat about;

    if (stat(graph, &about) == 0 && S_ISDIR(about.st_mode))
        return gmsrt_graph_of_engine(graph, found, size, files, built);
    if (strlen(graph) >= size || strlen(name) >= GMSRT_MAX_FILE_NAME)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "the path of the graph is too long");
    strcpy(found, graph);
    if (gmsrt_files_add(files, name, strlen(name)) == NULL) return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory");
    return GMSRT_OK;
}

gmsrt_status gmsrt_find_graph(const char *graph, char **path, gmsrt_files *files, gmsrt_built *built)
{
    char found[4096];
    gmsrt_status status;
    bool hashed;

    *path = NULL;
    built->precision = GMSRT_F32;
    built->falls_back = false;
    memset(files, 0, sizeof *files);
    if ((status = locate(graph, found, sizeof found, files, built)) != GMSRT_OK) return status;
    hashed = files->items[0].hex[0] != '\0';
    status = gmsrt_is_ir(found) ? gmsrt_read_ir(found, files) : gmsrt_read_onnx(found, files);
    if (status != GMSRT_OK) return status;
    for (size_t i = 0; hashed && i < files->count; i++)
        if (files->items[i].hex[0] == '\0')
            return gmsrt_fail(GMSRT_BAD_GRAPH,
                              "%s has its weights in '%s', which engine.json does not list; build the engine again",
                              found, files->items[i].name);
    *path = malloc(strlen(found) + 1);
    if (*path == NULL) return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for a path");
    strcpy(*path, found);
    return GMSRT_OK;
}

gmsrt_status gmsrt_take_graph(const char *name, const void *bytes, size_t size, char **path, gmsrt_files *files,
                              gmsrt_built *built)
{
    gmsrt_sha256_state sum;
    gmsrt_file *file;

    built->precision = GMSRT_F32;
    built->falls_back = false;
    memset(files, 0, sizeof *files);
    *path = malloc(strlen(name) + 1);
    file = gmsrt_files_add(files, "memory", strlen("memory"));
    if (*path == NULL || file == NULL) return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for %s", name);
    strcpy(*path, name);
    files->bytes = bytes;
    files->size = size;
    file->size = size;
    if (size >= 5 && memcmp(bytes, "<?xml", 5) == 0)
        return gmsrt_fail(GMSRT_BAD_GRAPH,
                          "%s is OpenVINO's form of a graph, whose constants are in another file; open the engine's "
                          "folder instead",
                          name);
    gmsrt_sha256_start(&sum);
    gmsrt_sha256_add(&sum, bytes, size);
    gmsrt_sha256_end(&sum, file->hex);
    return gmsrt_read_onnx(name, files);
}
