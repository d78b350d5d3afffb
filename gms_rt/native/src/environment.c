/* The environment, which a program with more rights than its caller (setuid, capabilities) must not follow. */
#if defined(__linux__)
#define _GNU_SOURCE /* secure_getenv */
#endif
#include <stdlib.h>

#include "internal.h"

const char *gmsrt_environment(const char *name)
{
#if defined(__linux__)
    const char *value = secure_getenv(name);
#else
    const char *value = getenv(name);
#endif
    return value != NULL && value[0] != '\0' ? value : NULL;
}
