/* The files that a graph consists of, with their hashes where they are known. The graph itself comes first.
 *
 * A file is read more than once: its hash here, the graph by the trial and by OpenVINO. Which file on the disk it was is
 * noted at the first look and compared later, so that a file which is replaced or written between two looks is found. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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

gmsrt_file *gmsrt_files_add(gmsrt_files *files, const char *name, size_t length)
{
    bool found;
    const size_t at = find(files, name, length, &found);
    gmsrt_file *file;

    if (length >= GMSRT_MAX_FILE_NAME) return NULL;
    if (!found && files->count == files->room) {
        const size_t room = files->room > 0 ? 2 * files->room : 4;
        gmsrt_file *moved = realloc(files->items, room * sizeof *moved);

        if (moved == NULL) return NULL;
        files->items = moved;
        files->room = room;
    }
    file = files->items + at;
    if (!found) {
        memmove(file + 1, file, (files->count++ - at) * sizeof *file);
        memset(file, 0, sizeof *file);
        memcpy(file->name, name, length);
    }
    return file;
}

/* The place of a file of the graph. */
static void path_of(const gmsrt_file *file, const char *graph, char *path, size_t size)
{
    const char *slash = strrchr(graph, '/');
    const int folder = slash != NULL ? (int)(slash - graph) + 1 : 0;

    snprintf(path, size, "%.*s%s", folder, graph, file->name);
}

bool gmsrt_file_see(gmsrt_file *file, const struct stat *about)
{
    gmsrt_file now = {0};

    now.device = (uint64_t)about->st_dev;
    now.inode = (uint64_t)about->st_ino;
    now.size = (uint64_t)about->st_size;
    now.written[0] = (int64_t)about->st_mtime;
    now.touched[0] = (int64_t)about->st_ctime;
#if defined(__linux__)
    now.written[1] = (int64_t)about->st_mtim.tv_nsec;
    now.touched[1] = (int64_t)about->st_ctim.tv_nsec;
#endif
    if (file->seen)
        return file->device == now.device && file->inode == now.inode && file->size == now.size &&
               memcmp(file->written, now.written, sizeof now.written) == 0 &&
               memcmp(file->touched, now.touched, sizeof now.touched) == 0;
    file->seen = true;
    file->device = now.device;
    file->inode = now.inode;
    file->size = now.size;
    memcpy(file->written, now.written, sizeof now.written);
    memcpy(file->touched, now.touched, sizeof now.touched);
    return true;
}

bool gmsrt_file_hash(gmsrt_file *file, const char *path)
{
    FILE *opened;
    struct stat about;
    bool good;

    if (stat(path, &about) != 0) return false;
    if (!S_ISREG(about.st_mode)) { /* opening a pipe would wait for a writer */
        errno = EINVAL;
        return false;
    }
    opened = fopen(path, "rb");
    if (opened == NULL) return false;
    good = fstat(fileno(opened), &about) == 0;
    if (good && !gmsrt_file_see(file, &about)) {
        errno = ESTALE;
        good = false;
    }
    if (good && !gmsrt_sha256(opened, file->hex)) {
        file->hex[0] = '\0';
        errno = EIO;
        good = false;
    }
    fclose(opened);
    return good;
}

static gmsrt_status changed(const char *path)
{
    return gmsrt_fail(GMSRT_BAD_GRAPH, "%s was changed while it was being opened; open it again when it is complete",
                      path);
}

gmsrt_status gmsrt_files_hash(gmsrt_files *files, const char *graph)
{
    for (size_t i = 0; i < files->count; i++) {
        char path[4096 + GMSRT_MAX_FILE_NAME];

        if (files->items[i].hex[0] != '\0') continue;
        path_of(&files->items[i], graph, path, sizeof path);
        if (gmsrt_file_hash(&files->items[i], path)) continue;
        return errno == ESTALE ? changed(path) : gmsrt_fail(GMSRT_NOT_FOUND, "%s: %s", path, strerror(errno));
    }
    return GMSRT_OK;
}

gmsrt_status gmsrt_files_same(const gmsrt_files *files, const char *graph)
{
    if (files->bytes != NULL) return GMSRT_OK;
    for (size_t i = 0; i < files->count; i++) {
        char path[4096 + GMSRT_MAX_FILE_NAME];
        gmsrt_file file = files->items[i];
        struct stat about;

        path_of(&file, graph, path, sizeof path);
        if (stat(path, &about) != 0 || !gmsrt_file_see(&file, &about)) return changed(path);
    }
    return GMSRT_OK;
}

void gmsrt_files_free(gmsrt_files *files)
{
    free(files->items);
    memset(files, 0, sizeof *files);
}
