/* engine.json: which file of an engine folder is the graph, whether it is still the one that was built, and which
 * arithmetic it was built for.
 *
 * A walk over the JSON text that understands just enough: the members "format", "version", "model" (a name),
 * "execution", "fallback" and "files" (names and SHA-256) of the outermost object; everything else is stepped over. A
 * member that is there twice is refused, because another reader would take the other one. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define MAX_MANIFEST ((size_t)4 << 20)
#define MAX_DEPTH 64
#define FORMAT "gms-rt-engine"
#define VERSION 1 /* the newest that is read */

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

/* The members that are read, as they stand in the text; start is NULL for one that is not there. */
typedef struct members {
    span format, version, model, execution, fallback, files;
} members;

static span *member_of(members *m, span key)
{
    if (is(key, "format")) return &m->format;
    if (is(key, "version")) return &m->version;
    if (is(key, "model")) return &m->model;
    if (is(key, "execution")) return &m->execution;
    if (is(key, "fallback")) return &m->fallback;
    return is(key, "files") ? &m->files : NULL;
}

/* The outermost members; false if it is not a JSON object, or has one of them twice. */
static bool read_members(text t, members *m)
{
    span key, value, *wanted;

    memset(m, 0, sizeof *m);
    if (!take(&t, '{')) return false;
    do {
        if (!take_string(&t, &key) || !take(&t, ':')) return false;
        if (memchr(key.start, '\\', key.length) != NULL) return false; /* one of them in other letters */
        skip_space(&t);
        value.start = t.at;
        if (!skip_value(&t, 0)) return false;
        value.length = (size_t)(t.at - value.start);
        wanted = member_of(m, key);
        if (wanted == NULL) continue;
        if (wanted->start != NULL) return false;
        *wanted = value;
    } while (take(&t, ','));
    if (!take(&t, '}')) return false;
    skip_space(&t);
    return t.at == t.end;
}

/* What stands between the quotes of a string; nothing for any other value. */
static span between_quotes(span value)
{
    const span nothing = {NULL, 0};

    if (value.length < 2 || *value.start != '"') return nothing;
    value.start++;
    value.length -= 2;
    return value;
}

static bool is_number(span found)
{
    for (size_t i = 0; i < found.length; i++)
        if (found.start[i] < '0' || found.start[i] > '9') return false;
    return found.length > 0 && found.length < 10;
}

/* Whether it is a manifest of this library's kind, and for which arithmetic. */
static gmsrt_status check_members(const char *folder, const members *m, gmsrt_built *built)
{
    const span execution = between_quotes(m->execution);

    if (!is(between_quotes(m->format), FORMAT))
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s/engine.json is not a %s file; build or copy the engine again", folder,
                          FORMAT);
    if (!is_number(m->version) || strtol(m->version.start, NULL, 10) < 1)
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s/engine.json has no version; build or copy the engine again", folder);
    if (strtol(m->version.start, NULL, 10) > VERSION)
        return gmsrt_fail(GMSRT_BAD_GRAPH,
                          "%s/engine.json is %s version %.*s, this library reads up to version %d; update gms-rt, or "
                          "build the engine again",
                          folder, FORMAT, (int)m->version.length, m->version.start, VERSION);
    if (m->files.start == NULL || *m->files.start != '{' || !is_name(between_quotes(m->model)))
        return gmsrt_fail(GMSRT_BAD_GRAPH,
                          "%s/engine.json is damaged or not an engine's; build or copy the engine again", folder);
    built->precision = is(execution, "bf16") ? GMSRT_BF16 : is(execution, "f16") ? GMSRT_F16 : GMSRT_F32;
    built->falls_back = built->precision == GMSRT_F16 || is(between_quotes(m->fallback), "f32");
    if (built->precision == GMSRT_F32 && !is(execution, "f32"))
        return gmsrt_fail(
            GMSRT_BAD_GRAPH,
            "%s/engine.json asks for an execution that is neither f32 nor bf16 nor f16; build the engine again",
            folder);
    return GMSRT_OK;
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
static gmsrt_status check_folder(const char *folder, text manifest, char *path, size_t size, gmsrt_files *known,
                                 gmsrt_built *built)
{
    bool listed = false;
    members found;
    span model, name, hash;
    text files;
    gmsrt_status status;

    if (!read_members(manifest, &found))
        return gmsrt_fail(GMSRT_BAD_GRAPH,
                          "%s/engine.json is damaged or not an engine's; build or copy the engine again", folder);
    if ((status = check_members(folder, &found, built)) != GMSRT_OK) return status;
    model = between_quotes(found.model);
    files.at = found.files.start + 1; /* behind the brace */
    files.end = found.files.start + found.files.length;
    if (snprintf(path, size, "%s/%.*s", folder, (int)model.length, model.start) >= (int)size)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "the path of the engine is too long");
    if (gmsrt_files_add(known, model.start, model.length) == NULL) /* the first, wherever it is listed */
        return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for the files of %s", folder);
    while (take_string(&files, &name) && take(&files, ':') && take_string(&files, &hash)) {
        if (name.length >= model.length && memcmp(name.start, model.start, model.length) == 0) {
            if ((status = check_file(folder, name, hash, known)) != GMSRT_OK) return status;
            listed = listed || name.length == model.length;
        }
        if (!take(&files, ',')) break;
    }
    if (!listed)
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s/engine.json does not list the graph; build the engine again", folder);
    return GMSRT_OK;
}

gmsrt_status gmsrt_graph_of_engine(const char *folder, char *path, size_t size, gmsrt_files *files, gmsrt_built *built)
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
    status = check_folder(folder, manifest, path, size, files, built);
    free(content);
    return status;
}
