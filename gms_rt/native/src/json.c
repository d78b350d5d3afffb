/* JSON as RFC 8259 has it, for files that anyone can have written.
 *
 * One allocation for all values and one for all texts, both bounded by the file's size. What Python's reader takes and
 * the standard does not (NaN), or takes silently (a member twice: which one counts?), is refused. */
#define _XOPEN_SOURCE 700 /* newlocale, uselocale */
#include "json.h"

#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 64
#define MAX_VALUES ((size_t)1 << 18)
#define MAX_MEMBERS 4096u /* of one object, because each key is compared with those before it */

typedef struct tree {
    gmsrt_json root; /* the first value: what the caller has */
    char *texts;
} tree;

typedef struct reader {
    const unsigned char *at, *end;
    gmsrt_json *values;
    size_t used, room;
    char *text; /* where the next one goes */
    const char *problem;
} reader;

static bool wrong(reader *r, const char *problem)
{
    if (r->problem == NULL) r->problem = problem;
    return false;
}

static void skip_space(reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\r' || *r->at == '\n')) r->at++;
}

static bool take(reader *r, char wanted)
{
    skip_space(r);
    if (r->at == r->end || *r->at != (unsigned char)wanted) return false;
    r->at++;
    return true;
}

static void put_character(reader *r, uint32_t c)
{
    if (c < 0x80) {
        *r->text++ = (char)c;
    } else if (c < 0x800) {
        *r->text++ = (char)(0xC0 | c >> 6);
        *r->text++ = (char)(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        *r->text++ = (char)(0xE0 | c >> 12);
        *r->text++ = (char)(0x80 | (c >> 6 & 0x3F));
        *r->text++ = (char)(0x80 | (c & 0x3F));
    } else {
        *r->text++ = (char)(0xF0 | c >> 18);
        *r->text++ = (char)(0x80 | (c >> 12 & 0x3F));
        *r->text++ = (char)(0x80 | (c >> 6 & 0x3F));
        *r->text++ = (char)(0x80 | (c & 0x3F));
    }
}

static bool take_hex(reader *r, uint32_t *value)
{
    *value = 0;
    if (r->end - r->at < 4) return false;
    for (int i = 0; i < 4; i++) {
        const unsigned char c = *r->at++;
        uint32_t digit;

        if (c >= '0' && c <= '9')
            digit = c - (uint32_t)'0';
        else if (c >= 'a' && c <= 'f')
            digit = c - (uint32_t)'a' + 10;
        else if (c >= 'A' && c <= 'F')
            digit = c - (uint32_t)'A' + 10;
        else
            return false;
        *value = *value << 4 | digit;
    }
    return true;
}

/* What stands behind a backslash. */
static bool take_escape(reader *r)
{
    static const char names[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    const char *found;
    uint32_t c, low;

    if (r->at == r->end) return false;
    if (*r->at != 'u') {
        found = *r->at != '\0' ? strchr(names, *r->at++) : NULL;
        if (found == NULL) return false;
        *r->text++ = means[found - names];
        return true;
    }
    r->at++;
    if (!take_hex(r, &c) || c == 0 || (c >= 0xDC00 && c < 0xE000)) return false;
    if (c >= 0xD800 && c < 0xDC00) {
        if (r->end - r->at < 2 || r->at[0] != '\\' || r->at[1] != 'u') return false;
        r->at += 2;
        if (!take_hex(r, &low) || low < 0xDC00 || low >= 0xE000) return false;
        c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    }
    put_character(r, c);
    return true;
}

/* One character of more than seven bits, which must be well-formed UTF-8. */
static bool take_utf8(reader *r)
{
    const unsigned char first = *r->at++;
    const int more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
    uint32_t c = first & (0x3Fu >> more);

    if (first < 0xC2 || first > 0xF4 || r->end - r->at < more) return false;
    for (int i = 0; i < more; i++) {
        if ((*r->at & 0xC0) != 0x80) return false;
        c = c << 6 | (*r->at++ & 0x3Fu);
    }
    if ((more == 2 && c < 0x800) || (more == 3 && c < 0x10000) || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000))
        return false;
    put_character(r, c);
    return true;
}

static bool take_text(reader *r, const char **found)
{
    if (!take(r, '"')) return wrong(r, "a text is expected");
    *found = r->text;
    while (r->at < r->end && *r->at != '"') {
        if (*r->at < 0x20) return wrong(r, "a text has a control character");
        if (*r->at == '\\') {
            r->at++;
            if (!take_escape(r)) return wrong(r, "an escape is not valid");
        } else if (*r->at >= 0x80) {
            if (!take_utf8(r)) return wrong(r, "it is not UTF-8");
        } else {
            *r->text++ = (char)*r->at++;
        }
    }
    if (r->at == r->end) return wrong(r, "a text does not end");
    r->at++;
    *r->text++ = '\0';
    return true;
}

static size_t count_digits(reader *r)
{
    const unsigned char *start = r->at;

    while (r->at < r->end && *r->at >= '0' && *r->at <= '9') r->at++;
    return (size_t)(r->at - start);
}

static bool take_number(reader *r, gmsrt_json *value)
{
    const unsigned char *start = r->at;
    bool good, zero;

    if (r->at < r->end && *r->at == '-') r->at++;
    zero = r->at < r->end && *r->at == '0';
    good = zero ? r->at++ < r->end : count_digits(r) > 0;
    if (good && r->at < r->end && *r->at == '.') {
        r->at++;
        good = count_digits(r) > 0;
    }
    if (good && r->at < r->end && (*r->at == 'e' || *r->at == 'E')) {
        r->at++;
        if (r->at < r->end && (*r->at == '+' || *r->at == '-')) r->at++;
        good = count_digits(r) > 0;
    }
    if (!good) return wrong(r, "a value is expected");
    value->kind = GMSRT_JSON_NUMBER;
    value->text = r->text;
    memcpy(r->text, start, (size_t)(r->at - start));
    r->text += r->at - start;
    *r->text++ = '\0';
    return true;
}

static bool take_word(reader *r, const char *word)
{
    const size_t length = strlen(word);

    if ((size_t)(r->end - r->at) < length || memcmp(r->at, word, length) != 0) return false;
    r->at += length;
    return true;
}

static gmsrt_json *new_value(reader *r)
{
    return r->used < r->room ? &r->values[r->used++] : NULL;
}

static bool take_value(reader *r, gmsrt_json *value, int depth);

/* The members of an object or the elements of an array, behind its bracket. */
static bool take_members(reader *r, gmsrt_json *value, int depth)
{
    const bool object = value->kind == GMSRT_JSON_OBJECT;
    const char closing = object ? '}' : ']';
    gmsrt_json *last = NULL;

    if (take(r, closing)) return true;
    do {
        gmsrt_json *member = new_value(r);

        if (member == NULL || (object && value->count == MAX_MEMBERS)) return wrong(r, "it has too many values");
        if (object) {
            if (!take_text(r, &member->key)) return false;
            if (gmsrt_json_member(value, member->key) != NULL) return wrong(r, "a member is there twice");
            if (!take(r, ':')) return wrong(r, "a colon is expected");
        }
        if (!take_value(r, member, depth + 1)) return false;
        if (last != NULL)
            last->next = member;
        else
            value->first = member;
        last = member;
        value->count++;
    } while (take(r, ','));
    return take(r, closing) || wrong(r, object ? "a comma or } is expected" : "a comma or ] is expected");
}

static bool take_value(reader *r, gmsrt_json *value, int depth)
{
    skip_space(r);
    if (r->at == r->end) return wrong(r, "it ends too early");
    if (depth > MAX_DEPTH) return wrong(r, "it is nested too deeply");
    switch (*r->at) {
    case '{':
    case '[':
        value->kind = *r->at++ == '{' ? GMSRT_JSON_OBJECT : GMSRT_JSON_ARRAY;
        return take_members(r, value, depth);
    case '"': value->kind = GMSRT_JSON_TEXT; return take_text(r, &value->text);
    case 't': value->text = "true"; break;
    case 'f': value->text = "false"; break;
    case 'n': value->text = "null"; break;
    default: return take_number(r, value);
    }
    value->kind = *value->text == 'n' ? GMSRT_JSON_NULL : GMSRT_JSON_BOOL;
    return take_word(r, value->text) || wrong(r, "a value is expected");
}

gmsrt_json *gmsrt_json_read(const char *bytes, size_t size, const char **problem)
{
    reader r = {(const unsigned char *)bytes, (const unsigned char *)bytes + size, NULL, 1, 1, NULL, NULL};
    gmsrt_json *root;
    tree *made;

    /* Every value but the first stands behind one of these. */
    for (size_t i = 0; i < size; i++) r.room += bytes[i] == ',' || bytes[i] == '[' || bytes[i] == '{';
    *problem = "it has too many values";
    if (r.room > MAX_VALUES) return NULL;
    made = calloc(1, sizeof *made + r.room * sizeof *r.values);
    if (made != NULL) made->texts = malloc(2 * size + 2); /* a decoded text, or a number and its end, is no longer */
    *problem = "there is no memory for it";
    if (made == NULL || made->texts == NULL) {
        free(made);
        return NULL;
    }
    root = &made->root;
    r.values = (gmsrt_json *)(made + 1);
    r.text = made->texts;
    if (take_value(&r, root, 0)) {
        skip_space(&r);
        if (r.at == r.end) return root;
        wrong(&r, "something stands behind its end");
    }
    *problem = r.problem;
    gmsrt_json_free(root);
    return NULL;
}

void gmsrt_json_free(gmsrt_json *root)
{
    tree *made = (tree *)root; /* its first member */

    if (made == NULL) return;
    free(made->texts);
    free(made);
}

const gmsrt_json *gmsrt_json_member(const gmsrt_json *value, const char *key)
{
    if (!gmsrt_json_is(value, GMSRT_JSON_OBJECT)) return NULL;
    for (const gmsrt_json *member = value->first; member != NULL; member = member->next)
        if (strcmp(member->key, key) == 0) return member;
    return NULL;
}

const char *gmsrt_json_text(const gmsrt_json *value, const char *key)
{
    const gmsrt_json *member = gmsrt_json_member(value, key);

    return gmsrt_json_is(member, GMSRT_JSON_TEXT) ? member->text : NULL;
}

bool gmsrt_json_is(const gmsrt_json *value, gmsrt_json_kind kind)
{
    return value != NULL && value->kind == kind;
}

bool gmsrt_json_whole(const gmsrt_json *value, int64_t low, int64_t high, int64_t *number)
{
    char *end;

    if (!gmsrt_json_is(value, GMSRT_JSON_NUMBER) || value->text[strcspn(value->text, ".eE")] != '\0') return false;
    errno = 0;
    *number = strtoll(value->text, &end, 10);
    return errno == 0 && *end == '\0' && *number >= low && *number <= high;
}

double gmsrt_json_number(const gmsrt_json *value)
{
    /* JSON's point, whatever the program's language has. */
    const locale_t plain = gmsrt_json_is(value, GMSRT_JSON_NUMBER) ? newlocale(LC_NUMERIC_MASK, "C", (locale_t)0) : 0;
    double number = 0.0;

    if (plain != (locale_t)0) {
        const locale_t before = uselocale(plain);

        number = strtod(value->text, NULL);
        uselocale(before);
        freelocale(plain);
    }
    return number;
}
