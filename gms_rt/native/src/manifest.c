/* engine.json for gmsrt_open_cpu: which file of an engine folder is the graph, whether it is still the one that was built,
 * and which arithmetic it was built for.
 *
 * Only the members "format", "version", "model", "execution", "fallback" and "files" count; the whole manifest is judged
 * by gmsrt_engine_open (engine_manifest.c). A member that is there twice is refused, because another reader would take
 * the other one. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

#define MAX_MANIFEST ((size_t)4 << 20)
#define FORMAT "gms-rt-engine"
#define VERSION 1 /* the newest that is read */

static gmsrt_status damaged(const char *folder)
{
    return gmsrt_fail(GMSRT_BAD_GRAPH, "%s/engine.json is damaged or not an engine's; build or copy the engine again",
                      folder);
}

static bool is(const char *text, const char *word)
{
    return text != NULL && strcmp(text, word) == 0;
}

/* Whether it is a manifest of this library's kind, and for which arithmetic. */
static gmsrt_status check_members(const char *folder, const gmsrt_json *manifest, gmsrt_built *built)
{
    const gmsrt_json *version = gmsrt_json_member(manifest, "version");
    const char *execution = gmsrt_json_text(manifest, "execution"), *model = gmsrt_json_text(manifest, "model");
    int64_t number;

    if (!is(gmsrt_json_text(manifest, "format"), FORMAT))
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s/engine.json is not a %s file; build or copy the engine again", folder,
                          FORMAT);
    if (!gmsrt_json_whole(version, 1, INT64_MAX, &number))
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s/engine.json has no version; build or copy the engine again", folder);
    if (number > VERSION)
        return gmsrt_fail(GMSRT_BAD_GRAPH,
                          "%s/engine.json is %s version %lld, this library reads up to version %d; update gms-rt, or "
                          "build the engine again",
                          folder, FORMAT, (long long)number, VERSION);
    if (!gmsrt_json_is(gmsrt_json_member(manifest, "files"), GMSRT_JSON_OBJECT) || model == NULL ||
        !gmsrt_is_plain_name(model))
        return damaged(folder);
    built->precision = is(execution, "bf16") ? GMSRT_BF16 : is(execution, "f16") ? GMSRT_F16 : GMSRT_F32;
    built->falls_back = built->precision == GMSRT_F16 || is(gmsrt_json_text(manifest, "fallback"), "f32");
    if (built->precision == GMSRT_F32 && !is(execution, "f32"))
        return gmsrt_fail(
            GMSRT_BAD_GRAPH,
            "%s/engine.json asks for an execution that is neither f32 nor bf16 nor f16; build the engine again",
            folder);
    return GMSRT_OK;
}

static gmsrt_status check_file(const char *folder, const gmsrt_json *listed, gmsrt_files *known)
{
    char path[4096];
    gmsrt_file *file;

    if (!gmsrt_is_plain_name(listed->key) ||
        snprintf(path, sizeof path, "%s/%s", folder, listed->key) >= (int)sizeof path)
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s/engine.json lists a name that is not a file of the folder", folder);
    file = gmsrt_files_add(known, listed->key, strlen(listed->key));
    if (file == NULL) return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for the files of %s", folder);
    if (!gmsrt_file_hash(file, path) && errno == ENOENT)
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s is missing; build or copy the engine again", path);
    if (listed->kind != GMSRT_JSON_TEXT || file->hex[0] == '\0' || strcmp(listed->text, file->hex) != 0)
        return gmsrt_fail(GMSRT_BAD_GRAPH,
                          "%s was changed since it was built (its hash differs); build or copy the engine again", path);
    return GMSRT_OK;
}

/* Check the graph and its outside weights ("model.onnx", "model.onnx.data", …) and give the graph's path. */
static gmsrt_status check_folder(const char *folder, const gmsrt_json *manifest, char *path, size_t size,
                                 gmsrt_files *known, gmsrt_built *built)
{
    const gmsrt_json *files = gmsrt_json_member(manifest, "files");
    const char *model = gmsrt_json_text(manifest, "model");
    gmsrt_status status = check_members(folder, manifest, built);
    bool listed = false;

    if (status != GMSRT_OK) return status;
    if (snprintf(path, size, "%s/%s", folder, model) >= (int)size)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "the path of the engine is too long");
    if (gmsrt_files_add(known, model, strlen(model)) == NULL) /* the first, wherever it is listed */
        return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for the files of %s", folder);
    for (const gmsrt_json *file = files->first; file != NULL; file = file->next) {
        if (strncmp(file->key, model, strlen(model)) != 0) continue;
        if ((status = check_file(folder, file, known)) != GMSRT_OK) return status;
        listed = listed || strcmp(file->key, model) == 0;
    }
    if (!listed)
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s/engine.json does not list the graph; build the engine again", folder);
    return GMSRT_OK;
}

gmsrt_status gmsrt_graph_of_engine(const char *folder, char *path, size_t size, gmsrt_files *files, gmsrt_built *built)
{
    const char *problem;
    gmsrt_json *manifest;
    char *content, hex[65];
    size_t length;
    gmsrt_status status;

    if (snprintf(path, size, "%s/engine.json", folder) >= (int)size)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "the path of the engine is too long");
    status = gmsrt_read_file(path, MAX_MANIFEST, &content, &length, hex);
    if (status == GMSRT_NOT_FOUND)
        gmsrt_fail(status, "%s is not an engine folder (no engine.json); give one, or an .onnx file", folder);
    if (status != GMSRT_OK) return status;
    manifest = gmsrt_json_read(content, length, &problem);
    free(content);
    status = gmsrt_json_is(manifest, GMSRT_JSON_OBJECT) && manifest->count > 0
                 ? check_folder(folder, manifest, path, size, files, built)
                 : damaged(folder);
    gmsrt_json_free(manifest);
    return status;
}
