/* engine.json as the Python package checks it (gms_rt/engine/manifest.py): anyone can have written it, so what is not
 * known is refused, and every value has the type that later code expects. */
#include <string.h>

#include "engine.h"

#define FORMAT "gms-rt-engine"
#define VERSION 1 /* the newest that is read */
#define MAX_SIDE 16384
#define MAX_CLASSES 255u

typedef struct field {
    const char *name;
    gmsrt_json_kind kind;
    bool optional;
} field;

static const field manifest_fields[] = {{"name", GMSRT_JSON_TEXT, false},        {"precision", GMSRT_JSON_TEXT, false},
                                        {"created", GMSRT_JSON_TEXT, false},     {"gms_rt", GMSRT_JSON_TEXT, false},
                                        {"height", GMSRT_JSON_NUMBER, false},    {"width", GMSRT_JSON_NUMBER, false},
                                        {"batch", GMSRT_JSON_NUMBER, false},     {"model", GMSRT_JSON_TEXT, false},
                                        {"files", GMSRT_JSON_OBJECT, false},     {"source", GMSRT_JSON_OBJECT, false},
                                        {"tokenizer", GMSRT_JSON_OBJECT, false}, {"targets", GMSRT_JSON_ARRAY, false},
                                        {"plans", GMSRT_JSON_ARRAY, true},       {"census", GMSRT_JSON_OBJECT, false},
                                        {"gate", GMSRT_JSON_OBJECT, false},      {"execution", GMSRT_JSON_TEXT, false},
                                        {"rebuild", GMSRT_JSON_TEXT, false},     {"notes", GMSRT_JSON_ARRAY, true},
                                        {"fallback", GMSRT_JSON_TEXT, true},     {"classes", GMSRT_JSON_ARRAY, true},
                                        {"format", GMSRT_JSON_TEXT, false},      {"version", GMSRT_JSON_NUMBER, false},
                                        {NULL, GMSRT_JSON_NULL, false}};

static const field plan_fields[] = {{"target", GMSRT_JSON_TEXT, false},
                                    {"file", GMSRT_JSON_TEXT, false},
                                    {"sha256", GMSRT_JSON_TEXT, false},
                                    {"bytes", GMSRT_JSON_NUMBER, false},
                                    {"sm", GMSRT_JSON_NUMBER, false},
                                    {"version", GMSRT_JSON_TEXT, false},
                                    {"build_seconds", GMSRT_JSON_NUMBER, false},
                                    {"driver", GMSRT_JSON_TEXT, true},
                                    {"device", GMSRT_JSON_TEXT, true},
                                    {NULL, GMSRT_JSON_NULL, false}};

static const field class_fields[] = {{"name", GMSRT_JSON_TEXT, false},
                                     {"description", GMSRT_JSON_TEXT, true},
                                     {"category", GMSRT_JSON_OBJECT, true},
                                     {"type", GMSRT_JSON_OBJECT, true},
                                     {"type_modifier", GMSRT_JSON_OBJECT, true},
                                     {"anatomy", GMSRT_JSON_OBJECT, true},
                                     {"anatomy_modifier", GMSRT_JSON_OBJECT, true},
                                     {"colour", GMSRT_JSON_TEXT, true},
                                     {NULL, GMSRT_JSON_NULL, false}};

static const field code_fields[] = {{"value", GMSRT_JSON_TEXT, false},
                                    {"scheme", GMSRT_JSON_TEXT, false},
                                    {"meaning", GMSRT_JSON_TEXT, false},
                                    {NULL, GMSRT_JSON_NULL, false}};

static gmsrt_status refuse(const gmsrt_engine *engine, const char *what, const char *key)
{
    return gmsrt_fail(GMSRT_BAD_GRAPH, "%s/engine.json %s%s%s%s; build the engine again", engine->folder, what,
                      key != NULL ? " '" : "", key != NULL ? key : "", key != NULL ? "'" : "");
}

/* null stands for a value that is not there, where the package writes it so. */
static bool may_be_null(const char *name)
{
    return strcmp(name, "gate") == 0 || strcmp(name, "plans") == 0 || strcmp(name, "driver") == 0 ||
           strcmp(name, "device") == 0;
}

/* Whether an object has the fields of a table, of their types, and no others. */
static gmsrt_status check_fields(const gmsrt_engine *engine, const gmsrt_json *value, const field *fields)
{
    for (const gmsrt_json *member = value->first; member != NULL; member = member->next) {
        const field *known = fields;

        while (known->name != NULL && strcmp(known->name, member->key) != 0) known++;
        if (known->name == NULL) return refuse(engine, "has the unknown key", member->key);
        if (member->kind == GMSRT_JSON_NULL && may_be_null(known->name)) continue;
        /* A colour is a text or three numbers. */
        if (strcmp(known->name, "colour") == 0 && member->kind == GMSRT_JSON_ARRAY) continue;
        if (member->kind != known->kind)
            return refuse(engine, "has a value of another type than expected:", member->key);
    }
    for (const field *known = fields; known->name != NULL; known++)
        if (!known->optional && gmsrt_json_member(value, known->name) == NULL)
            return refuse(engine, "lacks the key", known->name);
    return GMSRT_OK;
}

bool gmsrt_is_plain_name(const char *name)
{
    const size_t length = strlen(name);

    if (length == 0 || length > 255 || name[0] == '.') return false;
    for (size_t i = 0; i < length; i++) {
        const unsigned char c = (unsigned char)name[i];

        if (c < 0x20 || c == 0x7F || c == '/' || c == '\\') return false;
        if (c == 0xC2 && (unsigned char)name[i + 1] < 0xA0) return false; /* U+0080 to U+009F */
    }
    return true;
}

static bool is_one_of(const char *word, const char *const *words)
{
    while (*words != NULL && strcmp(*words, word) != 0) words++;
    return *words != NULL;
}

static gmsrt_status check_format(gmsrt_engine *engine)
{
    const gmsrt_json *manifest = engine->manifest, *version = gmsrt_json_member(manifest, "version");
    const char *format = gmsrt_json_text(manifest, "format");
    int64_t number;

    if (format == NULL || strcmp(format, FORMAT) != 0) return refuse(engine, "is not a file of this kind:", FORMAT);
    if (!gmsrt_json_whole(version, 1, VERSION, &number))
        return gmsrt_fail(GMSRT_BAD_GRAPH,
                          "%s/engine.json is %s version %.20s, this library reads up to version %d; update gms-rt, or "
                          "build the engine again",
                          engine->folder, FORMAT, gmsrt_json_is(version, GMSRT_JSON_NUMBER) ? version->text : "unknown",
                          VERSION);
    return GMSRT_OK;
}

static gmsrt_status check_plan(gmsrt_engine *engine, const gmsrt_json *plan)
{
    gmsrt_status status;
    int64_t number;

    if (!gmsrt_json_is(plan, GMSRT_JSON_OBJECT)) return refuse(engine, "has a plan that is not a table", NULL);
    if ((status = check_fields(engine, plan, plan_fields)) != GMSRT_OK) return status;
    if (!gmsrt_json_whole(gmsrt_json_member(plan, "bytes"), 0, INT64_MAX, &number))
        return refuse(engine, "has an impossible number in a plan:", "bytes");
    if (!gmsrt_json_whole(gmsrt_json_member(plan, "sm"), 0, 100000, &number))
        return refuse(engine, "has an impossible number in a plan:", "sm");
    if (!gmsrt_is_plain_name(gmsrt_json_text(plan, "file")))
        return refuse(engine, "names a file outside its folder, or one that no file can have", NULL);
    if (gmsrt_target_of(gmsrt_json_text(plan, "target")) <= GMSRT_TARGET_CPU)
        return refuse(engine, "has the unknown target", gmsrt_json_text(plan, "target"));
    return GMSRT_OK;
}

static size_t count_characters(const char *text)
{
    size_t count = 0;

    for (; *text != '\0'; text++) count += ((unsigned char)*text & 0xC0) != 0x80;
    return count;
}

/* A text that DICOM can hold: not blank unless that is allowed, not too long, no control character or backslash. */
static bool is_dicom_text(const char *text, size_t most, bool may_be_empty)
{
    bool blank = true;

    for (size_t i = 0; text[i] != '\0'; i++) {
        const unsigned char c = (unsigned char)text[i];

        if (c < 0x20 || c == 0x7F || c == '\\') return false;
        if (c == 0xC2 && (unsigned char)text[i + 1] < 0xA0) return false;
        blank = blank && c == ' ';
    }
    return (may_be_empty || !blank) && count_characters(text) <= most;
}

static bool is_colour(const gmsrt_json *value)
{
    int64_t part;

    if (value == NULL) return true;
    if (value->kind == GMSRT_JSON_TEXT)
        return value->text[0] == '#' && strlen(value->text) == 7 &&
               strspn(value->text + 1, "0123456789abcdefABCDEF") == 6;
    if (value->count != 3) return false;
    for (const gmsrt_json *each = value->first; each != NULL; each = each->next)
        if (!gmsrt_json_whole(each, 0, 255, &part)) return false;
    return true;
}

static gmsrt_status check_class(const gmsrt_engine *engine, const gmsrt_json *value)
{
    static const char *const codes[] = {"category", "type", "type_modifier", "anatomy", "anatomy_modifier"};
    const char *description;
    gmsrt_status status;

    if (!gmsrt_json_is(value, GMSRT_JSON_OBJECT)) return refuse(engine, "has a class that is not a table", NULL);
    if ((status = check_fields(engine, value, class_fields)) != GMSRT_OK) return status;
    description = gmsrt_json_text(value, "description");
    if (!is_dicom_text(gmsrt_json_text(value, "name"), 64, false) ||
        (description != NULL && !is_dicom_text(description, 1024, true)))
        return refuse(engine, "has a class with a name or description that DICOM cannot hold", NULL);
    for (int i = 0; i < 5; i++) {
        const gmsrt_json *code = gmsrt_json_member(value, codes[i]);

        if (code == NULL) continue;
        if ((status = check_fields(engine, code, code_fields)) != GMSRT_OK) return status;
        if (!is_dicom_text(gmsrt_json_text(code, "value"), 16, false) ||
            !is_dicom_text(gmsrt_json_text(code, "scheme"), 16, false) ||
            !is_dicom_text(gmsrt_json_text(code, "meaning"), 64, false))
            return refuse(engine, "has a class with a code that DICOM cannot hold:", codes[i]);
    }
    for (int i = 1; i < 5; i++) /* a modifier needs what it modifies, which stands before it */
        if (strstr(codes[i], "_modifier") != NULL && gmsrt_json_member(value, codes[i]) != NULL &&
            gmsrt_json_member(value, codes[i - 1]) == NULL)
            return refuse(engine, "has a class with a modifier of nothing:", codes[i]);
    if (!is_colour(gmsrt_json_member(value, "colour")))
        return refuse(engine, "has a class with a colour that is none", NULL);
    return GMSRT_OK;
}

static gmsrt_status check_classes(gmsrt_engine *engine)
{
    gmsrt_status status = GMSRT_OK;

    if (engine->classes == NULL) return GMSRT_OK;
    if (engine->classes->count > MAX_CLASSES) return refuse(engine, "has more than 255 classes", NULL);
    for (const gmsrt_json *each = engine->classes->first; each != NULL && status == GMSRT_OK; each = each->next) {
        status = check_class(engine, each);
        for (const gmsrt_json *other = engine->classes->first; other != each && status == GMSRT_OK; other = other->next)
            if (strcmp(gmsrt_json_text(other, "name"), gmsrt_json_text(each, "name")) == 0)
                status = refuse(engine, "has two classes with the name", gmsrt_json_text(each, "name"));
    }
    return status;
}

static gmsrt_status check_files(const gmsrt_engine *engine)
{
    for (const gmsrt_json *file = engine->files->first; file != NULL; file = file->next) {
        if (file->kind != GMSRT_JSON_TEXT) return refuse(engine, "has a hash that is not a text:", file->key);
        if (!gmsrt_is_plain_name(file->key))
            return refuse(engine, "names a file outside its folder, or one that no file can have", NULL);
    }
    if (!gmsrt_is_plain_name(engine->info.model))
        return refuse(engine, "names a file outside its folder, or one that no file can have", NULL);
    return GMSRT_OK;
}

/* The numbers and lists, of which the types are right. */
static gmsrt_status take_values(gmsrt_engine *engine)
{
    static const char *const sides[] = {"height", "width", "batch"};
    const gmsrt_json *manifest = engine->manifest;
    uint32_t *const numbers[] = {&engine->info.height, &engine->info.width, &engine->info.batch};

    for (int i = 0; i < 3; i++) {
        int64_t number;

        if (!gmsrt_json_whole(gmsrt_json_member(manifest, sides[i]), 1, MAX_SIDE, &number))
            return refuse(engine, "has an impossible size:", sides[i]);
        *numbers[i] = (uint32_t)number;
    }
    engine->info.name = gmsrt_json_text(manifest, "name");
    engine->info.precision = gmsrt_json_text(manifest, "precision");
    engine->info.execution = gmsrt_json_text(manifest, "execution");
    engine->info.fallback = gmsrt_json_text(manifest, "fallback");
    if (engine->info.fallback == NULL) engine->info.fallback = "";
    engine->info.created = gmsrt_json_text(manifest, "created");
    engine->info.gms_rt = gmsrt_json_text(manifest, "gms_rt");
    engine->info.model = gmsrt_json_text(manifest, "model");
    engine->files = gmsrt_json_member(manifest, "files");
    engine->targets = gmsrt_json_member(manifest, "targets");
    engine->plans = gmsrt_json_member(manifest, "plans");
    if (gmsrt_json_is(engine->plans, GMSRT_JSON_NULL)) engine->plans = NULL;
    engine->classes = gmsrt_json_member(manifest, "classes");
    if (engine->classes != NULL && engine->classes->count == 0) engine->classes = NULL;
    return GMSRT_OK;
}

gmsrt_status gmsrt_engine_check(gmsrt_engine *engine)
{
    static const char *const precisions[] = {"fp32", "fp16", "bf16", "int8", NULL};
    gmsrt_status status;

    if (!gmsrt_json_is(engine->manifest, GMSRT_JSON_OBJECT)) return refuse(engine, "is not a JSON object", NULL);
    if ((status = check_format(engine)) != GMSRT_OK) return status;
    if ((status = check_fields(engine, engine->manifest, manifest_fields)) != GMSRT_OK) return status;
    if ((status = take_values(engine)) != GMSRT_OK) return status;
    if (!is_one_of(engine->info.precision, precisions))
        return refuse(engine, "has the unknown precision", engine->info.precision);
    if ((status = check_files(engine)) != GMSRT_OK) return status;
    for (const gmsrt_json *plan = engine->plans != NULL ? engine->plans->first : NULL; plan != NULL; plan = plan->next)
        if ((status = check_plan(engine, plan)) != GMSRT_OK) return status;
    for (const gmsrt_json *target = engine->targets->first; target != NULL; target = target->next) {
        if (target->kind != GMSRT_JSON_TEXT || gmsrt_target_of(target->text) < 0)
            return refuse(engine, "has the unknown target", target->kind == GMSRT_JSON_TEXT ? target->text : NULL);
        if (gmsrt_target_of(target->text) == GMSRT_TARGET_CPU) engine->ways = 1;
    }
    engine->plan_count = engine->plans != NULL ? engine->plans->count : 0;
    engine->ways += engine->plan_count;
    engine->info.plans = engine->ways;
    engine->info.classes = engine->classes != NULL ? engine->classes->count : 1;
    return check_classes(engine);
}
