/* OpenVINO's C library: opened at run time, and its failures as statuses. */
#if defined(__linux__)
#define _GNU_SOURCE /* dladdr */
#elif defined(__APPLE__)
#define _DARWIN_C_SOURCE
#endif
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "openvino.h"

/* A path that depends on the current folder is made absolute by it once: it stays the same file after a chdir. A plain
 * name is left to the system's loader. NULL: no such path. */
static const char *absolute(const char *path, char *text, size_t size)
{
    size_t used;

    if (path[0] == '/' || strchr(path, '/') == NULL) return path;
    if (getcwd(text, size) == NULL) return NULL;
    used = strlen(text);
    return snprintf(text + used, size - used, "/%s", path) < (int)(size - used) ? text : NULL;
}

gmsrt_status gmsrt_ov_load(const char *path, gmsrt_openvino *ov)
{
    static const char fix[] = "install it (pip install openvino) and give the path of its libopenvino_c.so, "
                              "also as GMS_RT_OPENVINO";
    const char *chosen = path != NULL && path[0] != '\0' ? path : gmsrt_environment("GMS_RT_OPENVINO");
    char text[4096];
    Dl_info place;
    void *library;

    if (chosen == NULL) chosen = "libopenvino_c.so";
    if (chosen != path && chosen[0] != '/' && strchr(chosen, '/') != NULL)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "GMS_RT_OPENVINO is '%s'; give an absolute path", chosen);
    chosen = absolute(chosen, text, sizeof text);
    if (chosen == NULL) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "the path of OpenVINO is too long");
    /* Never closed: its threads and static objects outlive a runner. */
    library = dlopen(chosen, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) return gmsrt_fail(GMSRT_NO_RUNTIME, "OpenVINO cannot be loaded: %s; %s", dlerror(), fix);
#define RESOLVE(name, result, arguments)                                                                               \
    *(void **)&ov->name = dlsym(library, #name);                                                                       \
    if (ov->name == NULL)                                                                                              \
        return gmsrt_fail(GMSRT_NO_RUNTIME, "%s has no function %s; it is not OpenVINO 2025.2 or newer", chosen, #name);
    GMSRT_OPENVINO_FUNCTIONS(RESOLVE)
#undef RESOLVE
    ov->file = dladdr(*(void **)&ov->ov_core_create, &place) != 0 ? place.dli_fname : NULL;
    return GMSRT_OK;
}

/* OpenVINO's words without the lines that name its own source files, as one line. */
static void plain_words(const char *words, char *text, size_t size)
{
    size_t used = 0;

    text[0] = '\0';
    while (*words != '\0') {
        const size_t length = strcspn(words, "\n");
        const bool internal = strncmp(words, "Exception from ", 15) == 0 || strncmp(words, "Check '", 7) == 0;

        if (length > 0 && !internal && used + length + 2 < size) {
            if (used > 0) text[used++] = ' ';
            memcpy(text + used, words, length);
            used += length;
            text[used] = '\0';
        }
        words += length + (words[length] == '\n');
    }
}

gmsrt_status gmsrt_ov_failed(const gmsrt_openvino *ov, gmsrt_status status, int code, const char *what)
{
    const char *words = ov->ov_get_last_err_msg();
    char text[800] = "";

    if (words != NULL) plain_words(words, text, sizeof text);
    if (text[0] != '\0')
        gmsrt_fail(status, "%s: %s", what, text);
    else
        gmsrt_fail(status, "%s: %s (%d)", what, ov->ov_get_error_info(code), code);
    if (words != NULL) ov->ov_free(words);
    return status;
}
