/* An engine folder: opened, described, its files given after they were compared. Which of its parts fits a machine is
 * engine_plan.c's. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

#define MAX_MANIFEST ((size_t)4 << 20)
#define MAX_CERTIFICATE ((size_t)64 << 20)
#define THRESHOLD 0.5 /* gms_rt.infer's */

static char *join(const char *folder, const char *name)
{
    const size_t size = strlen(folder) + strlen(name) + 2;
    char *path = malloc(size);

    if (path == NULL)
        gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for a path");
    else
        snprintf(path, size, "%s/%s", folder, name);
    return path;
}

/* What the certificate says. One that is not there, or not whole, is a fact about the engine and not a failure. */
static void read_certificate(gmsrt_engine *engine)
{
    char *path = join(engine->folder, "parity.json"), *bytes = NULL;
    const char *problem, *verdict, *about, *format;
    gmsrt_json *value = NULL;
    gmsrt_status status;
    int64_t version;
    size_t size;

    gmsrt_hold_error(true);
    engine->info.certificate = GMSRT_CERTIFICATE_NONE;
    status = path != NULL ? gmsrt_read_file(path, MAX_CERTIFICATE, &bytes, &size, engine->certificate_sha256)
                          : GMSRT_OUT_OF_MEMORY;
    if (status == GMSRT_OK) value = gmsrt_json_read(bytes, size, &problem);
    gmsrt_hold_error(false);
    free(bytes);
    free(path);
    if (status == GMSRT_NOT_FOUND) return;
    engine->info.certificate = GMSRT_CERTIFICATE_DAMAGED;
    format = gmsrt_json_text(value, "format");
    verdict = gmsrt_json_text(value, "verdict");
    about = gmsrt_json_text(gmsrt_json_member(value, "engine"), "manifest_sha256");
    if (format != NULL && strcmp(format, "gms-rt-parity") == 0 && verdict != NULL && about != NULL &&
        gmsrt_json_whole(gmsrt_json_member(value, "version"), 1, 1, &version)) {
        const gmsrt_json *summary = gmsrt_json_member(value, "summary");

        if (strcmp(about, engine->sha256) != 0) {
            engine->info.certificate = GMSRT_CERTIFICATE_FOREIGN;
        } else if (strcmp(verdict, "pass") == 0 || strcmp(verdict, "fail") == 0) {
            engine->info.certificate =
                strcmp(verdict, "pass") == 0 ? GMSRT_CERTIFICATE_PASSED : GMSRT_CERTIFICATE_FAILED;
            engine->info.dice_mean = gmsrt_json_number(gmsrt_json_member(summary, "mean"));
            engine->info.dice_min = gmsrt_json_number(gmsrt_json_member(summary, "min"));
        }
    }
    gmsrt_json_free(value);
}

static gmsrt_status read_manifest(gmsrt_engine *engine)
{
    char *path = join(engine->folder, "engine.json"), *bytes = NULL;
    const char *problem = "";
    gmsrt_status status;
    size_t size;

    if (path == NULL) return GMSRT_OUT_OF_MEMORY;
    status = gmsrt_read_file(path, MAX_MANIFEST, &bytes, &size, engine->sha256);
    if (status == GMSRT_NOT_FOUND) /* whatever the reason, it says what to do */
        gmsrt_fail(status, "%s is not an engine folder (no engine.json); build one: gms-rt build --precision fp16",
                   engine->folder);
    if (status == GMSRT_OK) {
        engine->manifest = gmsrt_json_read(bytes, size, &problem);
        if (engine->manifest == NULL)
            status = gmsrt_fail(GMSRT_BAD_GRAPH, "%s is not JSON as it should be: %s; build or copy the engine again",
                                path, problem);
    }
    free(bytes);
    free(path);
    if (status == GMSRT_OK) status = gmsrt_engine_check(engine);
    return status;
}

gmsrt_status gmsrt_engine_open(const char *folder, gmsrt_engine **engine)
{
    gmsrt_engine *made;
    gmsrt_status status;

    if (engine != NULL) *engine = NULL;
    if (folder == NULL || engine == NULL)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_engine_open: a null pointer");
    if (folder[0] == '\0') return gmsrt_fail(GMSRT_NOT_FOUND, "gmsrt_engine_open: the name of the folder is empty");
    made = calloc(1, sizeof *made);
    if (made != NULL) made->folder = malloc(strlen(folder) + 1);
    if (made == NULL || made->folder == NULL) {
        free(made);
        return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for an engine");
    }
    strcpy(made->folder, folder);
    status = read_manifest(made);
    if (status != GMSRT_OK) {
        gmsrt_engine_close(made);
        return status;
    }
    read_certificate(made);
    made->info.threshold = THRESHOLD;
    made->info.sha256 = made->sha256;
    made->info.certificate_sha256 = made->certificate_sha256;
    *engine = made;
    return GMSRT_OK;
}

void gmsrt_engine_close(gmsrt_engine *engine)
{
    if (engine == NULL) return;
    gmsrt_json_free(engine->manifest);
    free(engine->folder);
    free(engine);
}

gmsrt_status gmsrt_engine_get_info(const gmsrt_engine *engine, gmsrt_engine_info *info, size_t size)
{
    const gmsrt_layout layout = {sizeof *info, 0, 0};
    gmsrt_status status;

    if (engine == NULL) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_engine_get_info: a null pointer");
    if ((status = gmsrt_struct_room(info, size, "gmsrt_engine_info")) != GMSRT_OK) return status;
    gmsrt_struct_give(info, size, &engine->info, layout);
    return GMSRT_OK;
}

static gmsrt_code code_of(const gmsrt_json *value, const char *key, gmsrt_code absent)
{
    const gmsrt_json *code = gmsrt_json_member(value, key);
    gmsrt_code found;

    if (code == NULL) return absent;
    found.value = gmsrt_json_text(code, "value");
    found.scheme = gmsrt_json_text(code, "scheme");
    found.meaning = gmsrt_json_text(code, "meaning");
    return found;
}

static uint32_t colour_of(const gmsrt_json *value)
{
    uint32_t colour = 0;

    if (value == NULL) return 0xFF4040;
    if (value->kind == GMSRT_JSON_TEXT) return (uint32_t)strtoul(value->text + 1, NULL, 16);
    for (const gmsrt_json *part = value->first; part != NULL; part = part->next)
        colour = colour << 8 | (uint32_t)strtoul(part->text, NULL, 10);
    return colour;
}

gmsrt_status gmsrt_engine_get_class(const gmsrt_engine *engine, uint32_t index, gmsrt_class *result, size_t size)
{
    /* As gms_rt.classes has them: what the region is depends on the model, so these claim no more than a region. */
    static const gmsrt_code none = {"", "", ""};
    static const gmsrt_code category = {"309825002", "SCT", "Spatial and Relational Concept"};
    static const gmsrt_code type = {"111099", "DCM", "Selected region"};
    const gmsrt_layout layout = {sizeof *result, 0, 0};
    const gmsrt_json *value;
    gmsrt_class found;
    gmsrt_status status;

    if (engine == NULL) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_engine_get_class: a null pointer");
    if ((status = gmsrt_struct_room(result, size, "gmsrt_class")) != GMSRT_OK) return status;
    if (index >= engine->info.classes)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "there is no class %u, this engine has %u", index,
                          engine->info.classes);
    value = engine->classes != NULL ? engine->classes->first : NULL;
    while (index-- > 0) value = value->next;
    memset(&found, 0, sizeof found);
    found.name = value != NULL ? gmsrt_json_text(value, "name") : "Segmented region";
    found.description = gmsrt_json_text(value, "description");
    if (found.description == NULL) found.description = "";
    found.category = code_of(value, "category", category);
    found.type = code_of(value, "type", type);
    found.type_modifier = code_of(value, "type_modifier", none);
    found.anatomy = code_of(value, "anatomy", none);
    found.anatomy_modifier = code_of(value, "anatomy_modifier", none);
    found.colour = colour_of(gmsrt_json_member(value, "colour"));
    gmsrt_struct_give(result, size, &found, layout);
    return GMSRT_OK;
}

/* The hash that the manifest has for a file. A plan's own counts before one in `files`, as in the package. */
static const char *hash_of(const gmsrt_engine *engine, const char *file)
{
    const gmsrt_json *last = NULL;

    for (const gmsrt_json *plan = engine->plans != NULL ? engine->plans->first : NULL; plan != NULL; plan = plan->next)
        if (strcmp(gmsrt_json_text(plan, "file"), file) == 0) last = plan;
    return last != NULL ? gmsrt_json_text(last, "sha256") : gmsrt_json_text(engine->files, file);
}

gmsrt_status gmsrt_engine_read(const gmsrt_engine *engine, const char *file, void **bytes, size_t *size)
{
    const char *wanted;
    char hex[65], *path, *content;
    size_t length = 0;
    gmsrt_status status;

    if (bytes != NULL) *bytes = NULL;
    if (size != NULL) *size = 0;
    if (engine == NULL || file == NULL || bytes == NULL || size == NULL)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_engine_read: a null pointer");
    wanted = hash_of(engine, file);
    if (wanted == NULL)
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s/%.255s is not listed in engine.json; build the engine again",
                          engine->folder, file);
    path = join(engine->folder, file);
    if (path == NULL) return GMSRT_OUT_OF_MEMORY;
    status = gmsrt_read_file(path, SIZE_MAX / 2, &content, &length, hex);
    if (status == GMSRT_OK && strcmp(hex, wanted) != 0) {
        free(content);
        status =
            gmsrt_fail(GMSRT_BAD_GRAPH,
                       "%s was changed since it was built (its hash differs); build or copy the engine again", path);
    }
    free(path);
    if (status != GMSRT_OK) return status;
    *bytes = content;
    *size = length;
    return GMSRT_OK;
}

void gmsrt_free(void *bytes)
{
    free(bytes);
}
