/* Attributes whose values a runtime divides or indexes by: an impossible one is named before it gets there. */
#include <string.h>

#include "onnx_check.h"

#define MAX_VALUES 64u /* of a short list: no tensor has so many dimensions */

/* AttributeProto */
enum { FIELD_NAME = 1, FIELD_I = 3, FIELD_INTS = 8, FIELD_TYPE = 20 };
/* AttributeProto.AttributeType */
enum { TYPE_INT = 2, TYPE_INTS = 7 };

typedef enum shape { INT, INTS, PERMUTATION } shape;

/* Attributes that mean the same in every operator of the standard domain that has them. */
static const struct rule {
    const char *name;
    shape shape;
    int64_t low, high;
} rules[] = {
    {"kernel_shape", INTS, 1, INT32_MAX},
    {"strides", INTS, 1, INT32_MAX},
    {"dilations", INTS, 1, INT32_MAX},
    {"pads", INTS, INT32_MIN, INT32_MAX},
    {"group", INT, 1, INT32_MAX},
    {"num_groups", INT, 1, INT32_MAX},
    {"blocksize", INT, 1, INT32_MAX},
    {"perm", PERMUTATION, 0, MAX_VALUES - 1},
    {"axis", INT, -64, 63},
    {"axes", INTS, -64, 63},
    {"output_padding", INTS, 0, INT32_MAX},
    {"output_shape", INTS, 0, INT32_MAX},
    {"to", INT, 1, 64},
};

typedef struct values {
    int64_t items[MAX_VALUES];
    size_t count;
    uint64_t type;
} values;

static bool add_value(values *found, uint64_t value)
{
    if (found->count == MAX_VALUES) return false;
    memcpy(&found->items[found->count++], &value, sizeof value); /* two's complement, as it is stored */
    return true;
}

/* The numbers of an attribute, packed or not; false where there are too many or it is damaged. */
static bool read_values(gmsrt_check *check, gmsrt_span rest, values *found)
{
    gmsrt_field field;
    gmsrt_step step;

    found->count = 0;
    found->type = 0;
    while ((step = gmsrt_next_field(&check->reader, &rest, &field)) == GMSRT_STEP_FIELD) {
        const bool number = field.number == FIELD_I || field.number == FIELD_INTS;

        if (number && field.wire == GMSRT_WIRE_VARINT) {
            if (!add_value(found, field.value)) return false;
        } else if (field.number == FIELD_INTS && field.wire == GMSRT_WIRE_LENGTH) {
            while (field.body.at < field.body.end) {
                uint64_t value;

                if (!gmsrt_next_varint(&check->reader, &field.body, &value) || !add_value(found, value)) return false;
            }
        } else if (field.number == FIELD_TYPE && field.wire == GMSRT_WIRE_VARINT) {
            found->type = field.value;
        }
    }
    return step == GMSRT_STEP_END;
}

static bool is_permutation(const values *found)
{
    uint64_t seen = 0;

    for (size_t i = 0; i < found->count; i++) {
        const uint64_t bit = (uint64_t)1 << found->items[i];

        if (found->items[i] >= (int64_t)found->count || (seen & bit) != 0) return false;
        seen |= bit;
    }
    return true;
}

static bool check_values(gmsrt_check *check, gmsrt_span attribute, const struct rule *rule, const char *what)
{
    const uint64_t type = rule->shape == INT ? TYPE_INT : TYPE_INTS;
    values found;

    if (!read_values(check, attribute, &found))
        return gmsrt_complain(check, "%s has an attribute %s that is damaged or too long", what, rule->name);
    /* Files of the first ONNX versions have no type. */
    if ((found.type != 0 && found.type != type) || (rule->shape == INT && found.count > 1))
        return gmsrt_complain(check, "%s has an attribute %s that is not %s", what, rule->name,
                              rule->shape == INT ? "a number" : "a list of numbers");
    for (size_t i = 0; i < found.count; i++)
        if (found.items[i] < rule->low || found.items[i] > rule->high)
            return gmsrt_complain(check, "%s has %s = %lld, which makes no sense", what, rule->name,
                                  (long long)found.items[i]);
    if (rule->shape == PERMUTATION && !is_permutation(&found))
        return gmsrt_complain(check, "%s has a perm that is no permutation", what);
    return true;
}

bool gmsrt_check_attribute(gmsrt_check *check, gmsrt_span attribute, const char *what)
{
    gmsrt_span rest = attribute;
    gmsrt_field field;
    char name[32] = "";
    gmsrt_step step;

    while ((step = gmsrt_next_field(&check->reader, &rest, &field)) == GMSRT_STEP_FIELD)
        /* A name that is too long for the buffer is none of the rules'. */
        if (field.number == FIELD_NAME && field.wire == GMSRT_WIRE_LENGTH &&
            !gmsrt_read_text(&check->reader, field.body, name, sizeof name))
            name[0] = '\0';
    if (step == GMSRT_STEP_BROKEN) return gmsrt_complain(check, "%s has a damaged attribute", what);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (strcmp(name, rules[i].name) == 0) return check_values(check, attribute, &rules[i], what);
    return true;
}
