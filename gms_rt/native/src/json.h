/* JSON as a tree. Strict: UTF-8, no member twice, no zero byte in a text, bounded depth and size. */
#ifndef GMSRT_JSON_H
#define GMSRT_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum gmsrt_json_kind {
    GMSRT_JSON_NULL,
    GMSRT_JSON_BOOL,
    GMSRT_JSON_NUMBER,
    GMSRT_JSON_TEXT,
    GMSRT_JSON_ARRAY,
    GMSRT_JSON_OBJECT
} gmsrt_json_kind;

typedef struct gmsrt_json {
    gmsrt_json_kind kind;
    const char *key;  /* in an object; else NULL */
    const char *text; /* of a text, decoded; of a number as it stands; "true" or "false" */
    struct gmsrt_json *first, *next;
    uint32_t count; /* members or elements */
} gmsrt_json;

/* The tree of a file's bytes, freed with one gmsrt_json_free; NULL with what is wrong in `problem`. */
gmsrt_json *gmsrt_json_read(const char *bytes, size_t size, const char **problem);
void gmsrt_json_free(gmsrt_json *root);

/* A member of an object; NULL where `value` is NULL or not an object, or has no such member. */
const gmsrt_json *gmsrt_json_member(const gmsrt_json *value, const char *key);
/* The text of a member, NULL where there is none or it is not a text. */
const char *gmsrt_json_text(const gmsrt_json *value, const char *key);
bool gmsrt_json_is(const gmsrt_json *value, gmsrt_json_kind kind);
/* Whether it is a whole number without a fraction or exponent, of `low` to `high`. */
bool gmsrt_json_whole(const gmsrt_json *value, int64_t low, int64_t high, int64_t *number);
/* Any number; 0 for what is none. */
double gmsrt_json_number(const gmsrt_json *value);

#endif
