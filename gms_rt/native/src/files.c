/* The files that a graph consists of, with their hashes where they are known. The graph itself comes first. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static gmsrt_file *find(const gmsrt_files *files, const char *name, size_t length)
{
    /* Tensors of one file mostly follow each other, so the last is looked at first. */
    for (size_t i = files->count; i-- > 0;)
        if (strncmp(files->items[i].name, name, length) == 0 && files->items[i].name[length] == '\0')
            return &files->items[i];
    return NULL;
}

bool gmsrt_files_add(gmsrt_files *files, const char *name, size_t length, const char *hex)
{
    gmsrt_file *moved;

    if (length >= GMSRT_MAX_FILE_NAME) return false;
    if (find(files, name, length) != NULL) return true;
    if (files->count == files->room) {
        const size_t room = files->room > 0 ? 2 * files->room : 4;

        moved = realloc(files->items, room * sizeof *moved);
        if (moved == NULL) return false;
        files->items = moved;
        files->room = room;
    }
    moved = &files->items[files->count++];
    memcpy(moved->name, name, length);
    moved->name[length] = '\0';
    strcpy(moved->hex, hex != NULL ? hex : "");
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
