/* This machine's CPU as OpenVINO describes it: its name, and the arithmetic that OpenVINO computes in on it. */
#define _XOPEN_SOURCE 700 /* sigaltstack */
#include <signal.h>
#include <stddef.h>
#include <string.h>

#include "openvino.h"

static void read_property(const gmsrt_openvino *ov, const ov_core_t *core, const char *key, char *text, size_t size)
{
    char *value = NULL;
    const int code = ov->ov_core_get_property(core, "CPU", key, &value);

    gmsrt_copy_text(text, size, code == 0 ? value : "");
    if (code == 0 && value != NULL) ov->ov_free(value);
}

/* Whether a word stands in a text of words between spaces. */
static bool has_word(const char *text, const char *word)
{
    const size_t length = strlen(word);

    while (*text != '\0') {
        const size_t next = strcspn(text, " ");

        if (next == length && memcmp(text, word, length) == 0) return true;
        text += next;
        text += strspn(text, " ");
    }
    return false;
}

void gmsrt_ov_describe(const gmsrt_openvino *ov, const ov_core_t *core, gmsrt_processor *about)
{
    gmsrt_ov_version version = {NULL, NULL};

    memset(about, 0, sizeof *about);
    about->struct_size = sizeof *about;
    read_property(ov, core, "FULL_DEVICE_NAME", about->name, sizeof about->name);
    read_property(ov, core, "OPTIMIZATION_CAPABILITIES", about->capabilities, sizeof about->capabilities);
    about->f16 = has_word(about->capabilities, "FP16");
    about->bf16 = has_word(about->capabilities, "BF16");
    if (ov->ov_get_openvino_version(&version) == 0) {
        char text[sizeof about->runtime];

        snprintf(text, sizeof text, "OpenVINO %s", version.build != NULL ? version.build : "");
        gmsrt_copy_text(about->runtime, sizeof about->runtime, text);
        ov->ov_version_free(&version);
    }
}

gmsrt_status gmsrt_probe_cpu(const char *openvino, gmsrt_processor *result, size_t size)
{
    const gmsrt_layout layout = {sizeof *result, offsetof(gmsrt_processor, name),
                                 offsetof(gmsrt_processor, capabilities) + sizeof result->capabilities};
    gmsrt_processor found;
    gmsrt_openvino ov;
    ov_core_t *core = NULL;
    stack_t signals;
    /* OpenVINO changes the calling thread's signal stack (see gmsrt_open_cpu). */
    const bool known = sigaltstack(NULL, &signals) == 0;
    gmsrt_status status;
    int code;

    if ((status = gmsrt_struct_room(result, size, "gmsrt_processor")) != GMSRT_OK) return status;
    if ((status = gmsrt_ov_load(openvino, &ov)) != GMSRT_OK) return status;
    code = ov.ov_core_create(&core);
    if (code == 0) {
        gmsrt_ov_describe(&ov, core, &found);
        gmsrt_struct_give(result, size, &found, layout);
        ov.ov_core_free(core);
    } else {
        status = gmsrt_ov_failed(&ov, GMSRT_NO_RUNTIME, code, "OpenVINO does not start");
    }
    if (known) sigaltstack(&signals, NULL);
    return status;
}
