/* The files that a graph consists of, with their hashes where they are known. The graph itself comes first. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* Where a name stands or belongs; the graph is the first, the others are sorted. */
static size_t find(const gmsrt_files *files, const char *name, size_t length, bool *found)
{
    size_t low = 1, high = files->count;

    *found =
        files->count > 0 && strlen(files->items[0].name) == length && memcmp(files->items[0].name, name, length) == 0;
    if (*found || files->count == 0) return 0;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const char *other = files->items[middle].name;
        int order = strncmp(other, name, length);

        if (order == 0) order = other[length] != '\0';
        *found = order == 0;
        if (*found) return middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool gmsrt_files_has(const gmsrt_files *files, const char *name)
{
    bool found;

    find(files, name, strlen(name), &found);
    return found;
}

bool gmsrt_files_add(gmsrt_files *files, const char *name, size_t length, const char *hex)
{
    bool found;
    const size_t at = find(files, name, length, &found);
    gmsrt_file *file;

    if (length >= GMSRT_MAX_FILE_NAME) return false;
    if (!found && files->count == files->room) {
        const size_t room = files->room > 0 ? 2 * files->room : 4;
        gmsrt_file *moved = realloc(files->items, room * sizeof *moved);

        if (moved == NULL) return false;
        files->items = moved;
        files->room = room;
    }
    file = files->items + at;
    if (!found) {
        memmove(file + 1, file, (files->count++ - at) * sizeof *file);
        memcpy(file->name, name, length);
        file->name[length] = '\0';
        file->hex[0] = '\0';
    }
    if (hex != NULL) strcpy(file->hex, hex);
    return true;
}

gmsrt_status gmsrt_files_hash(gmsrt_files *files, const char *graph)
{
    const char *slash = strrchr(graph, '/');
    const int folder = slash != NULL ? (int)(slash - graph) + 1 : 0;

    for (size_t i = 0; i < files->count; i++) {
        char path[4096 + GMSRT_MAX_FILE_NAME];
        FILE *file;
        bool read;

        if (files->items[i].hex[0] != '\0') continue;
        snprintf(path, sizeof path, "%.*s%s", folder, graph, files->items[i].name);
        file = fopen(path, "rb");
        if (file == NULL) return gmsrt_fail(GMSRT_NOT_FOUND, "%s: %s", path, strerror(errno));
        read = gmsrt_sha256(file, files->items[i].hex);
        fclose(file);
        if (!read) return gmsrt_fail(GMSRT_NOT_FOUND, "%s cannot be read", path);
    }
    return GMSRT_OK;
}

void gmsrt_files_free(gmsrt_files *files)
{
    free(files->items);
    memset(files, 0, sizeof *files);
}
