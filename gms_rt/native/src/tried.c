/* Which graphs passed their trial: an empty file each, named by a hash, in the user's cache folder.
 *
 * An empty file is whole as soon as it is there, so nothing can be half written, and processes that write the same one
 * at once do not disturb each other. The folder is used only if it belongs to this user and nobody else may write to
 * it; without such a folder nothing is remembered. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

bool gmsrt_is_own(int file)
{
    struct stat about;

    return fstat(file, &about) == 0 && about.st_uid == geteuid() && (about.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* A folder within a folder, made where it is absent; the outer one is closed. -1 if it is not safe. */
static int enter(int outer, const char *name)
{
    int inner = -1;

    if (outer < 0) return -1;
    mkdirat(outer, name, 0700);
    inner = openat(outer, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    close(outer);
    if (inner < 0 || gmsrt_is_own(inner)) return inner;
    close(inner);
    return -1;
}

/* $XDG_CACHE_HOME/gms-rt/tried, else $HOME/.cache/gms-rt/tried; -1 if there is no such place. */
static int open_folder(void)
{
    const char *chosen = gmsrt_environment("XDG_CACHE_HOME"), *home = gmsrt_environment("HOME");
    char base[4096];

    if (chosen != NULL && chosen[0] == '/') {
        if (snprintf(base, sizeof base, "%s", chosen) >= (int)sizeof base) return -1;
    } else if (home == NULL || home[0] != '/' || snprintf(base, sizeof base, "%s/.cache", home) >= (int)sizeof base) {
        return -1;
    }
    mkdir(base, 0700);
    return enter(enter(open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC), "gms-rt"), "tried");
}

bool gmsrt_was_tried(const char *key)
{
    const int folder = open_folder();
    struct stat about;
    bool found;

    if (folder < 0) return false;
    found =
        fstatat(folder, key, &about, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(about.st_mode) && about.st_uid == geteuid();
    close(folder);
    return found;
}

bool gmsrt_remember_tried(const char *key)
{
    const int folder = open_folder();
    int file;

    if (folder < 0) return false;
    file = openat(folder, key, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file >= 0) close(file);
    close(folder);
    return file >= 0 || errno == EEXIST;
}
