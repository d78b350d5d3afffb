/* OpenVINO's C library: opened at run time, and its failures as statuses. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "openvino.h"

gmsrt_status gmsrt_ov_load(const char *path, gmsrt_openvino *ov)
{
    static const char fix[] = "install it (pip install openvino) and give the path of its libopenvino_c.so, "
                              "also as GMSRT_OPENVINO";
    const char *chosen = path != NULL ? path : getenv("GMSRT_OPENVINO");
    void *library;

    if (chosen == NULL || chosen[0] == '\0') chosen = "libopenvino_c.so";
    /* Never closed: its threads and static objects outlive a runner. */
    library = dlopen(chosen, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) return gmsrt_fail(GMSRT_NO_RUNTIME, "OpenVINO cannot be loaded: %s; %s", dlerror(), fix);
#define RESOLVE(name, result, arguments)                                                                               \
    *(void **)&ov->name = dlsym(library, #name);                                                                       \
    if (ov->name == NULL)                                                                                              \
        return gmsrt_fail(GMSRT_NO_RUNTIME, "%s has no function %s; it is not OpenVINO 2025.2 or newer", chosen, #name);
    GMSRT_OPENVINO_FUNCTIONS(RESOLVE)
#undef RESOLVE
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
