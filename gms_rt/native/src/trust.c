/* Which plans this user's builds made: an entry for each in the user's state folder, which nobody else can write.
 *
 * As gms_rt/engine/state.py and trust.py have it. A plan is code, and whoever writes it also writes its hash into
 * engine.json: the hash says that it is whole, never that it is harmless. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine.h"

/* $GMS_RT_STATE, else $XDG_STATE_HOME/gms-rt, else ~/.local/state/gms-rt. */
static bool find_state(char *folder, size_t size, char *why, size_t room)
{
    const char *named = gmsrt_environment("GMS_RT_STATE"), *state = gmsrt_environment("XDG_STATE_HOME");
    const char *home = gmsrt_environment("HOME");
    int length;

    if (named != NULL && named[0] != '/') { /* else whatever folder one works in could vouch for its plans */
        snprintf(why, room, "GMS_RT_STATE is not an absolute path");
        return false;
    }
    if (named != NULL)
        length = snprintf(folder, size, "%s", named);
    else if (state != NULL && state[0] == '/')
        length = snprintf(folder, size, "%s/gms-rt", state);
    else
        length = snprintf(folder, size, "%s/.local/state/gms-rt", home != NULL ? home : "");
    if ((named == NULL && (state == NULL || state[0] != '/') && home == NULL) || length >= (int)size) {
        snprintf(why, room, "there is no home folder");
        return false;
    }
    return true;
}

static bool is_hash(const char *text)
{
    return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

/* Whether a folder is this user's alone; one that is not there is nobody's. */
static bool is_safe(const char *folder, bool *absent, char *why, size_t room)
{
    struct stat about;

    *absent = lstat(folder, &about) != 0;
    if (*absent) return false;
    if (S_ISDIR(about.st_mode) && about.st_uid == geteuid() && (about.st_mode & (S_IWGRP | S_IWOTH)) == 0) return true;
    snprintf(why, room, "%.200s %s", folder,
             S_ISDIR(about.st_mode) ? "can be written by others than you" : "is not a folder");
    return false;
}

bool gmsrt_is_own_plan(const char *sha256, char *why, size_t size)
{
    char root[4096], folder[4096 + 8], entry[4096 + 80];
    struct stat about;
    bool absent = false;

    why[0] = '\0';
    if (!is_hash(sha256) || !find_state(root, sizeof root, why, size)) return false;
    snprintf(folder, sizeof folder, "%s/plans", root);
    if (!is_safe(root, &absent, why, size) || !is_safe(folder, &absent, why, size)) return false;
    snprintf(entry, sizeof entry, "%s/%s.json", folder, sha256);
    return stat(entry, &about) == 0 && S_ISREG(about.st_mode);
}
