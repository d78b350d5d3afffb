/* The values that a node may read: a set of names in nested scopes, the innermost last. */
#include <stdlib.h>
#include <string.h>

#include "onnx_check.h"

#define BUCKETS 4096u /* a power of two; graphs have some hundred to some ten thousand names */
#define NONE UINT32_MAX

struct gmsrt_name {
    size_t text; /* where it begins in the texts */
    uint32_t hash;
    uint32_t next; /* older name of the same bucket */
    uint32_t scope;
};

static uint32_t hash_of(const char *text)
{
    uint32_t hash = 2166136261u; /* FNV-1a */

    for (; *text != '\0'; text++) hash = (hash ^ (uint8_t)*text) * 16777619u;
    return hash;
}

static const struct gmsrt_name *find(const gmsrt_names *names, const char *text)
{
    const uint32_t hash = hash_of(text);

    if (names->buckets == NULL) return NULL;
    for (uint32_t i = names->buckets[hash % BUCKETS]; i != NONE; i = names->items[i].next)
        if (names->items[i].hash == hash && strcmp(names->texts + names->items[i].text, text) == 0)
            return &names->items[i];
    return NULL;
}

bool gmsrt_names_has(const gmsrt_names *names, const char *text)
{
    return find(names, text) != NULL;
}

bool gmsrt_names_has_here(const gmsrt_names *names, const char *text)
{
    const struct gmsrt_name *found = find(names, text);

    return found != NULL && found->scope == names->scope;
}

/* The array with room for `wanted` more items, or NULL where there is no memory; it doubles. */
static void *grow(void *array, size_t *room, size_t used, size_t wanted, size_t item)
{
    size_t larger = *room > 0 ? *room : 1024;
    void *moved;

    while (larger - used < wanted) {
        if (larger > SIZE_MAX / 2 / item) return NULL;
        larger *= 2;
    }
    if (larger == *room) return array;
    moved = realloc(array, larger * item);
    if (moved != NULL) *room = larger;
    return moved;
}

bool gmsrt_names_add(gmsrt_names *names, const char *text)
{
    const size_t length = strlen(text) + 1;
    struct gmsrt_name *item;
    void *moved;

    if (names->buckets == NULL) {
        names->buckets = malloc(BUCKETS * sizeof *names->buckets);
        if (names->buckets == NULL) return false;
        for (size_t i = 0; i < BUCKETS; i++) names->buckets[i] = NONE;
    }
    if (names->count == NONE) return false;
    if ((moved = grow(names->items, &names->room, names->count, 1, sizeof *item)) == NULL) return false;
    names->items = moved;
    if ((moved = grow(names->texts, &names->text_room, names->text_used, length, 1)) == NULL) return false;
    names->texts = moved;
    item = &names->items[names->count];
    item->text = names->text_used;
    item->hash = hash_of(text);
    item->scope = names->scope;
    item->next = names->buckets[item->hash % BUCKETS];
    names->buckets[item->hash % BUCKETS] = names->count++;
    memcpy(names->texts + names->text_used, text, length);
    names->text_used += length;
    return true;
}

void gmsrt_names_enter(gmsrt_names *names)
{
    names->scope++;
}

void gmsrt_names_leave(gmsrt_names *names)
{
    /* The newest name of a bucket is its first, so taking names away in reverse order restores the chains. */
    while (names->count > 0 && names->items[names->count - 1].scope == names->scope) {
        const struct gmsrt_name *last = &names->items[--names->count];

        names->buckets[last->hash % BUCKETS] = last->next;
        names->text_used = last->text;
    }
    names->scope--;
}

void gmsrt_names_free(gmsrt_names *names)
{
    free(names->buckets);
    free(names->items);
    free(names->texts);
}
