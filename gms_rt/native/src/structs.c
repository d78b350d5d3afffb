/* Structures that may grow: a program and the library may have been compiled with different headers.
 *
 * The caller's size says how much of it may be touched. Every field that is ever added is a multiple of a pointer's size
 * or comes in a pair, so a size of some header never cuts a number. */
#include <string.h>

#include "internal.h"

#define MAX_SIZE 4096u /* what is larger is not a size but something that was never set */

/* A copy of the name with what the message needs; false if the size cannot be one of some header. */
static gmsrt_status check_size(size_t size, const char *name)
{
    if (size >= sizeof(size_t) && size <= MAX_SIZE && size % sizeof(void *) == 0) return GMSRT_OK;
    return gmsrt_fail(GMSRT_INVALID_ARGUMENT,
                      "%zu is not the size of a %s; give sizeof(%s), options through their _init", size, name, name);
}

gmsrt_status gmsrt_struct_init(void *to, size_t size, const void *defaults, size_t known, const char *name)
{
    gmsrt_status status;

    if (to == NULL) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "%s: a null pointer", name);
    if ((status = check_size(size, name)) != GMSRT_OK) {
        if (size >= sizeof size) memset(to, 0, sizeof size); /* a size that every call refuses */
        return status;
    }
    memset(to, 0, size);
    memcpy(to, defaults, size < known ? size : known);
    memcpy(to, &size, sizeof size);
    return GMSRT_OK;
}

gmsrt_status gmsrt_struct_take(void *to, size_t known, const void *from, const char *name)
{
    const unsigned char *bytes = from;
    gmsrt_status status;
    size_t size;

    memcpy(&size, from, sizeof size);
    if ((status = check_size(size, name)) != GMSRT_OK) return status;
    for (size_t i = known; i < size; i++)
        if (bytes[i] != 0)
            return gmsrt_fail(
                GMSRT_INVALID_ARGUMENT,
                "%s sets an option that this library does not know (byte %zu of %zu, known are %zu); update "
                "libgms_rt, or leave the option at zero",
                name, i, size, known);
    memcpy(to, from, size < known ? size : known);
    return GMSRT_OK;
}

gmsrt_status gmsrt_struct_room(const void *to, size_t size, const char *name)
{
    if (to == NULL) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "%s: a null pointer", name);
    return check_size(size, name);
}

void gmsrt_struct_give(void *to, size_t size, const void *from, gmsrt_layout layout)
{
    const size_t written = size < layout.size ? size : layout.size;

    memcpy(to, from, written);
    memset((unsigned char *)to + written, 0, size - written);
    memcpy(to, &written, sizeof written);
    /* A text that is cut ends all the same. */
    if (written > layout.text && written < layout.text_end) ((unsigned char *)to)[written - 1] = '\0';
}
