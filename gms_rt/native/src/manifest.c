/* engine.json: which file of an engine folder is the graph, and whether it is still the one that was built.
 *
 * A walk over the JSON text that understands just enough: the members "model" (a name) and "files" (names and SHA-256)
 * of the outermost object; everything else is stepped over. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define MAX_MANIFEST ((size_t)4 << 20)
#define MAX_DEPTH 64

typedef struct text {
    const char *at;
    const char *end;
} text;

typedef struct span {
    const char *start;
    size_t length;
} span;

static void skip_space(text *t)
{
    while (t->at < t->end && (*t->at == ' ' || *t->at == '\t' || *t->at == '\r' || *t->at == '\n')) t->at++;
}

static bool take(text *t, char wanted)
{
    skip_space(t);
    if (t->at == t->end || *t->at != wanted) return false;
    t->at++;
    return true;
}

/* A string as it stands between its quotes: escapes are stepped over, not decoded. */
static bool take_string(text *t, span *found)
{
    if (!take(t, '"')) return false;
    found->start = t->at;
    while (t->at < t->end && *t->at != '"') t->at += *t->at == '\\' && t->at + 1 < t->end ? 2 : 1;
    if (t->at >= t->end) return false;
    found->length = (size_t)(t->at - found->start);
    t->at++;
    return true;
}

static bool skip_value(text *t, int depth)
{
    span ignored;

    skip_space(t);
    if (t->at == t->end || depth > MAX_DEPTH) return false;
    if (*t->at == '"') return take_string(t, &ignored);
    if (*t->at == '{' || *t->at == '[') {
        const bool object = *t->at == '{';
        const char closing = object ? '}' : ']';

        t->at++;
        if (take(t, closing)) return true;
        do {
            if (object && (!take_string(t, &ignored) || !take(t, ':'))) return false;
            if (!skip_value(t, depth + 1)) return false;
        } while (take(t, ','));
        return take(t, closing);
    }
    for (ignored.start = t->at; t->at < t->end && strchr(",]} \t\r\n", *t->at) == NULL; t->at++) {
    }
    return t->at > ignored.start;
}

static bool is(span found, const char *word)
{
    return found.length == strlen(word) && memcmp(found.start, word, found.length) == 0;
}

/* A plain file name: no escapes, no folders. */
static bool is_name(span name)
{
    return name.length > 0 && name.length < 200 && name.start[0] != '.' &&
           memchr(name.start, '/', name.length) == NULL && memchr(name.start, '\\', name.length) == NULL &&
           memchr(name.start, '\0', name.length) == NULL;
}

/* The outermost members; false if it is not such a manifest. files is left before its first name. */
static bool read_members(text t, span *model, text *files)
{
    bool has_model = false, has_files = false;
    span key;

    if (!take(&t, '{')) return false;
    do {
        if (!take_string(&t, &key) || !take(&t, ':')) return false;
        skip_space(&t);
        if (is(key, "files") && !has_files) {
            has_files = true;
            *files = t;
            if (!take(files, '{') || !skip_value(&t, 0)) return false;
        } else if (is(key, "model") && !has_model) {
            has_model = true;
            if (!take_string(&t, model)) return false;
        } else if (!skip_value(&t, 0)) {
            return false;
        }
    } while (take(&t, ','));
    return take(&t, '}') && has_model && has_files && is_name(*model);
}

static gmsrt_status check_file(const char *folder, span name, span hash, gmsrt_files *known)
{
    char path[4096];
    gmsrt_file *file;

    if (!is_name(name) ||
        snprintf(path, sizeof path, "%s/%.*s", folder, (int)name.length, name.start) >= (int)sizeof path)
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s/engine.json lists a name that is not a file of the folder", folder);
    file = gmsrt_files_add(known, name.start, name.length);
    if (file == NULL) return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for the files of %s", folder);
    if (!gmsrt_file_hash(file, path) && errno == ENOENT)
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s is missing; build or copy the engine again", path);
    if (!is(hash, file->hex))
        return gmsrt_fail(GMSRT_BAD_GRAPH,
                          "%s was changed since it was built (its hash differs); build or copy the engine again", path);
    return GMSRT_OK;
}

/* Check the graph and its outside weights ("model.onnx", "model.onnx.data", …) and give the graph's path. */
static gmsrt_status check_folder(const char *folder, text manifest, char *path, size_t size, gmsrt_files *known)
{
    bool listed = false;
    span model = {NULL, 0}, name, hash;
    text files = {NULL, NULL};

    if (!read_members(manifest, &model, &files))
        return gmsrt_fail(GMSRT_BAD_GRAPH,
                          "%s/engine.json is damaged or not an engine's; build or copy the engine again", folder);
    if (snprintf(path, size, "%s/%.*s", folder, (int)model.length, model.start) >= (int)size)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "the path of the engine is too long");
    if (gmsrt_files_add(known, model.start, model.length) == NULL) /* the first, wherever it is listed */
        return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for the files of %s", folder);
    while (take_string(&files, &name) && take(&files, ':') && take_string(&files, &hash)) {
        if (name.length >= model.length && memcmp(name.start, model.start, model.length) == 0) {
            const gmsrt_status status = check_file(folder, name, hash, known);

            if (status != GMSRT_OK) return status;
            listed = listed || name.length == model.length;
        }
        if (!take(&files, ',')) break;
    }
    if (!listed)
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s/engine.json does not list the graph; build the engine again", folder);
    return GMSRT_OK;
}

gmsrt_status gmsrt_graph_of_engine(const char *folder, char *path, size_t size, gmsrt_files *files)
{
    char *content;
    text manifest;
    size_t length;
    FILE *file;
    gmsrt_status status;

    if (snprintf(path, size, "%s/engine.json", folder) >= (int)size)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "the path of the engine is too long");
    file = fopen(path, "rb");
    if (file == NULL)
        return gmsrt_fail(GMSRT_NOT_FOUND, "%s is not an engine folder (no engine.json); give one, or an .onnx file",
                          folder);
    content = malloc(MAX_MANIFEST);
    length = content != NULL ? fread(content, 1, MAX_MANIFEST, file) : 0;
    fclose(file);
    if (content == NULL) return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for %s", path);
    manifest.at = content;
    manifest.end = content + length;
    status = check_folder(folder, manifest, path, size, files);
    free(content);
    return status;
}
