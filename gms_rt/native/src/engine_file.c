/* The content of a file, read once: what is hashed is what is given, whatever happens to the file meanwhile.
 *
 * A link is followed, as stores of models use them: only the content counts. What is not a regular file is refused
 * before it is read: a pipe would wait for a writer, and a device never ends. */
#define _XOPEN_SOURCE 700 /* O_NONBLOCK with O_CLOEXEC */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine.h"

static gmsrt_status read_opened(int file, const char *path, size_t most, char **bytes, size_t *size)
{
    struct stat about;
    size_t room;

    if (fstat(file, &about) != 0) return gmsrt_fail(GMSRT_NOT_FOUND, "%s cannot be read: %s", path, strerror(errno));
    if (!S_ISREG(about.st_mode)) return gmsrt_fail(GMSRT_NOT_FOUND, "%s is not a file", path);
    if (about.st_size < 0 || (uint64_t)about.st_size > most)
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s has %lld bytes, at most %zu are read", path, (long long)about.st_size,
                          most);
    room = (size_t)about.st_size;
    *bytes = malloc(room + 1);
    if (*bytes == NULL) return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for the %zu bytes of %s", room, path);
    *size = 0;
    while (*size < room) {
        const ssize_t got = read(file, *bytes + *size, room - *size);

        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return gmsrt_fail(GMSRT_NOT_FOUND, "%s cannot be read: %s", path, strerror(errno));
        if (got == 0) break; /* it has become shorter: the hash will tell */
        *size += (size_t)got;
    }
    (*bytes)[*size] = '\0';
    return GMSRT_OK;
}

gmsrt_status gmsrt_read_file(const char *path, size_t most, char **bytes, size_t *size, char hex[65])
{
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    gmsrt_sha256_state sum;
    gmsrt_status status;

    *bytes = NULL;
    if (file < 0) return gmsrt_fail(GMSRT_NOT_FOUND, "%s %s", path, errno == ENOENT ? "is missing" : strerror(errno));
    status = read_opened(file, path, most, bytes, size);
    close(file);
    if (status != GMSRT_OK) {
        free(*bytes);
        *bytes = NULL;
        return status;
    }
    gmsrt_sha256_start(&sum);
    gmsrt_sha256_add(&sum, *bytes, *size);
    gmsrt_sha256_end(&sum, hex);
    return GMSRT_OK;
}
