/* A tensor of the file: its sizes make sense, and as many bytes are there as they ask for, here or in a file beside. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "onnx_check.h"

#define MAX_DIMS 64u
#define MAX_ELEMENTS ((uint64_t)1 << 40)
#define MAX_FILES 65536u

/* TensorProto */
enum {
    FIELD_DIMS = 1,
    FIELD_TYPE = 2,
    FIELD_SEGMENT = 3,
    FIELD_FLOATS = 4,
    FIELD_INT32S = 5,
    FIELD_STRINGS = 6,
    FIELD_INT64S = 7,
    FIELD_RAW = 9,
    FIELD_DOUBLES = 10,
    FIELD_UINT64S = 11,
    FIELD_EXTERNAL = 13,
    FIELD_LOCATION = 14
};
enum { FIELD_KEY = 1, FIELD_VALUE = 2 }; /* StringStringEntryProto */
enum { OUTSIDE = 1 };                    /* TensorProto.DataLocation */

/* Bits of an element by TensorProto.DataType, and the field that holds the elements where they are not raw. */
static const struct element {
    uint8_t bits, field;
} elements[] = {
    {0, 0},
    {32, FIELD_FLOATS},   /* FLOAT */
    {8, FIELD_INT32S},    /* UINT8 */
    {8, FIELD_INT32S},    /* INT8 */
    {16, FIELD_INT32S},   /* UINT16 */
    {16, FIELD_INT32S},   /* INT16 */
    {32, FIELD_INT32S},   /* INT32 */
    {64, FIELD_INT64S},   /* INT64 */
    {0, FIELD_STRINGS},   /* STRING */
    {8, FIELD_INT32S},    /* BOOL */
    {16, FIELD_INT32S},   /* FLOAT16 */
    {64, FIELD_DOUBLES},  /* DOUBLE */
    {32, FIELD_UINT64S},  /* UINT32 */
    {64, FIELD_UINT64S},  /* UINT64 */
    {64, FIELD_FLOATS},   /* COMPLEX64 */
    {128, FIELD_DOUBLES}, /* COMPLEX128 */
    {16, FIELD_INT32S},   /* BFLOAT16 */
    {8, FIELD_INT32S},    /* FLOAT8E4M3FN */
    {8, FIELD_INT32S},    /* FLOAT8E4M3FNUZ */
    {8, FIELD_INT32S},    /* FLOAT8E5M2 */
    {8, FIELD_INT32S},    /* FLOAT8E5M2FNUZ */
    {4, FIELD_INT32S},    /* UINT4 */
    {4, FIELD_INT32S},    /* INT4 */
    {4, FIELD_INT32S},    /* FLOAT4E2M1 */
    {8, FIELD_INT32S},    /* FLOAT8E8M0 */
};

typedef struct tensor {
    uint64_t type, location, count; /* count: product of the dims */
    uint32_t dims;
    bool has_raw;
    uint64_t raw;       /* bytes */
    uint64_t stored;    /* typed elements */
    uint32_t stored_in; /* their field; 0: none */
    char place[GMSRT_MAX_FILE_NAME];
    uint64_t offset, length; /* of outside data */
    bool has_length;
} tensor;

static bool add_dim(tensor *t, uint64_t dim)
{
    if (++t->dims > MAX_DIMS || dim > MAX_ELEMENTS) return false; /* a negative one is huge here */
    if (dim != 0 && t->count > MAX_ELEMENTS / dim) return false;
    t->count *= dim;
    return true;
}

/* Elements of a typed field, packed or not. */
static bool count_typed(gmsrt_check *check, const gmsrt_field *field, tensor *t)
{
    const uint64_t size = field->number == FIELD_FLOATS ? 4 : field->number == FIELD_DOUBLES ? 8 : 0;
    const uint64_t bytes = field->body.end - field->body.at;
    gmsrt_span rest = field->body;
    uint64_t ignored;

    if (t->stored_in != 0 && t->stored_in != field->number) return false;
    t->stored_in = field->number;
    if (field->number == FIELD_STRINGS) {
        t->stored++;
        return field->wire == GMSRT_WIRE_LENGTH;
    }
    if (size > 0) {
        t->stored += bytes / size;
        return field->wire != GMSRT_WIRE_VARINT && bytes % size == 0;
    }
    if (field->wire == GMSRT_WIRE_VARINT) {
        t->stored++;
        return true;
    }
    for (; rest.at < rest.end; t->stored++)
        if (!gmsrt_next_varint(&check->reader, &rest, &ignored)) return false;
    return field->wire == GMSRT_WIRE_LENGTH;
}

static bool read_number(const char *text, uint64_t *value)
{
    char *end;

    if (text[0] < '0' || text[0] > '9' || strlen(text) > 18) return false;
    *value = strtoull(text, &end, 10);
    return *end == '\0';
}

/* One key and value of the description of outside data. */
static bool read_external(gmsrt_check *check, gmsrt_span rest, tensor *t)
{
    char key[32] = "", value[GMSRT_MAX_FILE_NAME] = "";
    gmsrt_field field;
    gmsrt_step step;

    while ((step = gmsrt_next_field(&check->reader, &rest, &field)) == GMSRT_STEP_FIELD) {
        if (field.wire != GMSRT_WIRE_LENGTH) continue;
        if (field.number == FIELD_KEY && !gmsrt_read_text(&check->reader, field.body, key, sizeof key)) return false;
        if (field.number == FIELD_VALUE && !gmsrt_read_text(&check->reader, field.body, value, sizeof value))
            return false;
    }
    if (strcmp(key, "location") == 0) strcpy(t->place, value);
    if (strcmp(key, "offset") == 0) return read_number(value, &t->offset) && step == GMSRT_STEP_END;
    if (strcmp(key, "length") == 0) {
        t->has_length = true;
        return read_number(value, &t->length) && step == GMSRT_STEP_END;
    }
    return step == GMSRT_STEP_END;
}

static bool read_tensor(gmsrt_check *check, gmsrt_span rest, tensor *t)
{
    gmsrt_field field;
    gmsrt_step step;
    uint64_t dim;

    memset(t, 0, sizeof *t);
    t->count = 1;
    while ((step = gmsrt_next_field(&check->reader, &rest, &field)) == GMSRT_STEP_FIELD) {
        switch (field.number) {
        case FIELD_DIMS:
            if (field.wire != GMSRT_WIRE_VARINT && field.wire != GMSRT_WIRE_LENGTH) return false;
            if (field.wire == GMSRT_WIRE_VARINT && !add_dim(t, field.value)) return false;
            while (field.body.at < field.body.end)
                if (!gmsrt_next_varint(&check->reader, &field.body, &dim) || !add_dim(t, dim)) return false;
            break;
        case FIELD_TYPE: t->type = field.value; break;
        case FIELD_LOCATION: t->location = field.value; break;
        case FIELD_RAW:
            t->has_raw = true;
            t->raw = field.body.end - field.body.at;
            break;
        case FIELD_FLOATS:
        case FIELD_INT32S:
        case FIELD_STRINGS:
        case FIELD_INT64S:
        case FIELD_DOUBLES:
        case FIELD_UINT64S:
            if (!count_typed(check, &field, t)) return false;
            break;
        case FIELD_EXTERNAL:
            if (field.wire != GMSRT_WIRE_LENGTH || !read_external(check, field.body, t)) return false;
            break;
        case FIELD_SEGMENT: return false; /* nobody writes tensors in pieces */
        default: break;
        }
    }
    return step == GMSRT_STEP_END;
}

/* A path that stays below the folder. */
static bool stays_inside(const char *place)
{
    if (place[0] == '\0' || place[0] == '/' || strchr(place, '\\') != NULL) return false;
    for (const char *part = place; part != NULL; part = strchr(part, '/')) {
        part += *part == '/';
        if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0')) return false;
    }
    return true;
}

static bool check_outside(gmsrt_check *check, const tensor *t, uint64_t bytes, const char *what)
{
    char path[4096];
    struct stat about;
    uint64_t size;

    if (!stays_inside(t->place))
        return gmsrt_complain(check, "%s has its data in '%s', outside the graph's folder", what, t->place);
    if (snprintf(path, sizeof path, "%s/%s", check->folder, t->place) >= (int)sizeof path || stat(path, &about) != 0 ||
        !S_ISREG(about.st_mode))
        return gmsrt_complain(check, "%s has its data in '%s', which is not there; copy that file too", what, t->place);
    size = (uint64_t)about.st_size;
    if (t->offset > size || (t->has_length ? t->length : bytes) > size - t->offset ||
        (t->has_length && t->length != bytes))
        return gmsrt_complain(check, "%s wants %llu bytes of '%s', which does not hold them", what,
                              (unsigned long long)bytes, t->place);
    if (!gmsrt_files_add(check->files, t->place, strlen(t->place), NULL)) {
        check->out_of_memory = true;
        return false;
    }
    return check->files->count <= MAX_FILES || gmsrt_complain(check, "has its data in too many files");
}

bool gmsrt_check_tensor(gmsrt_check *check, gmsrt_span span, const char *what)
{
    const struct element *element;
    uint64_t bytes;
    tensor t;

    if (!read_tensor(check, span, &t)) return gmsrt_complain(check, "%s has impossible sizes or damaged data", what);
    if (t.type == 0 || t.type >= sizeof elements / sizeof *elements)
        return gmsrt_complain(check, "%s has the unknown type %llu", what, (unsigned long long)t.type);
    element = &elements[t.type];
    bytes = (t.count * element->bits + 7) / 8;
    if (t.location == OUTSIDE) {
        if (element->bits == 0 || t.has_raw || t.stored_in != 0)
            return gmsrt_complain(check, "%s has its data both inside and outside", what);
        return check_outside(check, &t, bytes, what);
    }
    if (t.has_raw) {
        if (element->bits == 0 || t.raw != bytes || t.stored_in != 0)
            return gmsrt_complain(check, "%s holds %llu bytes, its sizes ask for %llu", what, (unsigned long long)t.raw,
                                  (unsigned long long)bytes);
        return true;
    }
    if (t.stored_in != 0 && t.stored_in != element->field)
        return gmsrt_complain(check, "%s holds its data as another type than its own", what);
    if (element->bits == 4) t.count = (t.count + 1) / 2;                     /* two in one number */
    if (element->bits == 64 && element->field == FIELD_FLOATS) t.count *= 2; /* real and imaginary */
    if (element->bits == 128) t.count *= 2;
    if (t.stored != t.count)
        return gmsrt_complain(check, "%s holds %llu values, its sizes ask for %llu", what, (unsigned long long)t.stored,
                              (unsigned long long)t.count);
    return true;
}
