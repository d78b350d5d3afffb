/* An OpenVINO C library on nothing, for tests: any file is a model of the shape that the test has set.
 *
 * One inference writes, for every pixel, the red byte with all bits turned. An asynchronous inference runs only when
 * it is waited for, so an input that is overwritten too early shows as a wrong result. */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../src/openvino_api.h"
#include "fake.h"

#define UINT8_NUMBER 77u /* no release of OpenVINO uses it: nothing may depend on the number */

typedef struct port {
    unsigned type;
    int rank;
    int64_t dims[8]; /* -1: free */
} port;

struct ov_core {
    char properties[256];
};
struct ov_model {
    port ports[2];
};
struct ov_compiled_model {
    port ports[2];
    char precision[16], threads[16];
    const char *imported_from; /* as OpenVINO does, it keeps no copy of its weights */
};
struct ov_tensor {
    uint8_t *data;
    size_t bytes;
    int references;
};
struct ov_infer_request {
    struct ov_tensor *tensors[2];
    bool running;
};
struct ov_output_const_port {
    port what;
};

static port set_ports[2] = {{UINT8_NUMBER, 4, {1, 2, 2, 3, 0, 0, 0, 0}}, {UINT8_NUMBER, 4, {1, 2, 2, 1, 0, 0, 0, 0}}};
static size_t set_inputs = 1, set_outputs = 1;
static bool has_bf16, has_f16;
static int inferences_held; /* atomic: they do not end */
static char message[64];
static char properties[512];

FAKE_CONTROLS(fake_openvino)

void fake_openvino_reset(void)
{
    static const port input = {UINT8_NUMBER, 4, {1, 2, 2, 3, 0, 0, 0, 0}};
    static const port output = {UINT8_NUMBER, 4, {1, 2, 2, 1, 0, 0, 0, 0}};

    pthread_mutex_lock(&fake_mutex);
    fake_reset_record();
    set_ports[0] = input;
    set_ports[1] = output;
    set_inputs = set_outputs = 1;
    has_bf16 = has_f16 = false;
    message[0] = properties[0] = '\0';
    fake_leave(0);
}

/* The shape of the models that are read from now on; which: 0 input, 1 output; type 0 means uint8. */
FAKE_API void fake_openvino_port(int which, unsigned type, int rank, const int64_t *dims);
void fake_openvino_port(int which, unsigned type, int rank, const int64_t *dims)
{
    set_ports[which].type = type != 0 ? type : UINT8_NUMBER;
    set_ports[which].rank = rank;
    for (int i = 0; i < rank && i < 8; i++) set_ports[which].dims[i] = dims[i];
}

FAKE_API void fake_openvino_counts(size_t inputs, size_t outputs);
void fake_openvino_counts(size_t inputs, size_t outputs)
{
    set_inputs = inputs;
    set_outputs = outputs;
}

FAKE_API void fake_openvino_bf16(int there);
void fake_openvino_bf16(int there)
{
    has_bf16 = there != 0;
}

FAKE_API void fake_openvino_f16(int there);
void fake_openvino_f16(int there)
{
    has_f16 = there != 0;
}

/* While held, no inference ends. */
FAKE_API void fake_openvino_hold_inferences(int now);
void fake_openvino_hold_inferences(int now)
{
    __atomic_store_n(&inferences_held, now, __ATOMIC_RELEASE);
}

/* "KEY=value;" of the last compilation. */
FAKE_API const char *fake_openvino_properties(void);
const char *fake_openvino_properties(void)
{
    return properties;
}

static int answer(int code)
{
    if (code != 0) snprintf(message, sizeof message, "made to fail\nwith %d", code);
    return fake_leave(code);
}

static void *make(size_t size)
{
    fake_live++;
    return calloc(1, size);
}

static void drop(void *object)
{
    fake_live--;
    free(object);
}

static char *make_text(const char *text)
{
    char *copy = make(strlen(text) + 1);

    strcpy(copy, text);
    return copy;
}

#define OPENVINO(result, name, parameters)                                                                             \
    FAKE_API result name parameters;                                                                                   \
    result name parameters

OPENVINO(int, ov_get_openvino_version, (gmsrt_ov_version * version))
{
    const int code = fake_enter("ov_get_openvino_version");

    if (code == 0) {
        version->build = make_text("fake");
        version->description = make_text("fake");
    }
    return answer(code);
}

OPENVINO(void, ov_version_free, (gmsrt_ov_version * version))
{
    fake_enter("ov_version_free");
    drop((char *)version->build);
    drop((char *)version->description);
    fake_leave(0);
}

OPENVINO(const char *, ov_get_error_info, (int code))
{
    return code == 0 ? "success" : "general error";
}

OPENVINO(const char *, ov_get_last_err_msg, (void))
{
    const char *text = NULL;

    pthread_mutex_lock(&fake_mutex);
    if (message[0] != '\0') text = make_text(message);
    fake_leave(0);
    return text;
}

OPENVINO(void, ov_free, (const char *text))
{
    pthread_mutex_lock(&fake_mutex);
    drop((char *)text);
    fake_leave(0);
}

OPENVINO(int, ov_core_create, (ov_core_t * *core))
{
    const int code = fake_enter("ov_core_create");

    if (code == 0) *core = make(sizeof **core);
    return answer(code);
}

OPENVINO(void, ov_core_free, (ov_core_t * core))
{
    fake_enter("ov_core_free");
    drop(core);
    fake_leave(0);
}

OPENVINO(int, ov_core_get_property, (const ov_core_t *core, const char *device, const char *key, char **value))
{
    const int code = fake_enter("ov_core_get_property");

    if (core == NULL || strcmp(device, "CPU") != 0) fake_mistake("a property of %s", device);
    if (code == 0)
        *value = make_text(strcmp(key, "FULL_DEVICE_NAME") == 0 ? "Fake CPU"
                           : has_bf16                           ? "FP32 INT8 BF16"
                           : has_f16                            ? "FP32 FP16 INT8"
                                                                : "FP32");
    return answer(code);
}

/* Whether this process is kept as the trial should be: files 60 and 900 of the host closed, limits set, no new rights. */
static bool is_kept_short(void)
{
    struct rlimit core, processor;

    if (getrlimit(RLIMIT_CORE, &core) != 0 || getrlimit(RLIMIT_CPU, &processor) != 0) return false;
    return fcntl(60, F_GETFD) == -1 && fcntl(900, F_GETFD) == -1 && core.rlim_max == 0 &&
           processor.rlim_cur != RLIM_INFINITY && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
}

/* What a test has asked for in the environment, for the program that tries a graph: it has no other way in. */
static void misbehave(const char *path)
{
    const char *what = getenv("FAKE_OPENVINO_DOES");

    if (what == NULL) return;
    if (strcmp(what, "print") == 0) {
        for (int i = 0; i < 20000; i++) printf("0 \nnoise on standard output %d\n", i);
        fflush(stdout);
        fprintf(stderr, "a line of\033[31m noise\n");
    } else if (strcmp(what, "hang") == 0) {
        for (;;) pause();
    } else if (strcmp(what, "replace") == 0) { /* the file that is read, by one that lies next to it */
        char other[1100];

        snprintf(other, sizeof other, "%s.other", path);
        rename(other, path);
    } else if (strcmp(what, "look") == 0) {
        if (!is_kept_short()) _exit(8);
    } else if (strcmp(what, "exit") == 0) {
        fputs("last words", stderr);
        _exit(7);
    } else { /* the number of a signal */
        const int number = atoi(what);

        fputs("last words", stderr);
        signal(number, SIG_DFL); /* a sanitizer would make an exit of it */
        raise(number);
    }
}

static pthread_cond_t hold_changed = PTHREAD_COND_INITIALIZER;
static int hold_wanted, hold_count;

/* Whether reading a model waits until the test lets go, and how many are waiting. */
FAKE_API void fake_openvino_hold(int hold);
void fake_openvino_hold(int hold)
{
    pthread_mutex_lock(&fake_mutex);
    hold_wanted = hold;
    pthread_cond_broadcast(&hold_changed);
    pthread_mutex_unlock(&fake_mutex);
}

FAKE_API int fake_openvino_held(void);
int fake_openvino_held(void)
{
    int count;

    pthread_mutex_lock(&fake_mutex);
    count = hold_count;
    pthread_mutex_unlock(&fake_mutex);
    return count;
}

static void wait_while_held(void)
{
    pthread_mutex_lock(&fake_mutex);
    hold_count++;
    while (hold_wanted) pthread_cond_wait(&hold_changed, &fake_mutex);
    hold_count--;
    pthread_mutex_unlock(&fake_mutex);
}

/* Whether bytes stand somewhere in a text that may have zeros. */
static bool has_word(const char *text, size_t size, const char *word)
{
    const size_t length = strlen(word);

    for (size_t i = 0; i + length <= size; i++)
        if (memcmp(text + i, word, length) == 0) return true;
    return false;
}

static int read_model(const char *name, const port *input, const port *output, ov_model_t **model)
{
    const int code = fake_enter(name);

    if (code == 0) {
        *model = make(sizeof **model);
        (*model)->ports[0] = *input;
        (*model)->ports[1] = *output;
    }
    return answer(code);
}

OPENVINO(int, ov_core_read_model, (const ov_core_t *core, const char *path, const char *weights, ov_model_t **model))
{
    (void)core;
    if (weights != NULL || path[0] == '\0') fake_mistake("a model with separate weights");
    misbehave(path);
    wait_while_held();
    return read_model("ov_core_read_model", &set_ports[0], &set_ports[1], model);
}

OPENVINO(int, ov_core_read_model_from_memory_buffer,
         (const ov_core_t *core, const char *text, size_t size, const ov_tensor_t *weights, ov_model_t **model))
{
    static const port one = {UINT8_NUMBER, 1, {1, 0, 0, 0, 0, 0, 0, 0}};

    (void)core;
    if (weights != NULL || size < 16) fake_mistake("an odd model in memory");
    if (!has_word(text, size, "Identity")) { /* not the one that only tells a type */
        misbehave("memory");
        wait_while_held();
        return read_model("ov_core_read_model_from_memory_buffer", &set_ports[0], &set_ports[1], model);
    }
    return read_model("ov_core_read_model_from_memory_buffer", &one, &one, model);
}

OPENVINO(void, ov_model_free, (ov_model_t * model))
{
    fake_enter("ov_model_free");
    drop(model);
    fake_leave(0);
}

OPENVINO(int, ov_model_inputs_size, (const ov_model_t *model, size_t *count))
{
    const int code = fake_enter("ov_model_inputs_size");

    (void)model;
    if (code == 0) *count = set_inputs;
    return answer(code);
}

OPENVINO(int, ov_model_outputs_size, (const ov_model_t *model, size_t *count))
{
    const int code = fake_enter("ov_model_outputs_size");

    (void)model;
    if (code == 0) *count = set_outputs;
    return answer(code);
}

static int get_port(const char *name, const port *what, ov_output_const_port_t **result)
{
    const int code = fake_enter(name);

    if (code == 0) {
        *result = make(sizeof **result);
        (*result)->what = *what;
    }
    return answer(code);
}

OPENVINO(int, ov_model_const_input, (const ov_model_t *model, ov_output_const_port_t **result))
{
    return get_port("ov_model_const_input", &model->ports[0], result);
}

OPENVINO(int, ov_model_const_output, (const ov_model_t *model, ov_output_const_port_t **result))
{
    return get_port("ov_model_const_output", &model->ports[1], result);
}

OPENVINO(void, ov_output_const_port_free, (ov_output_const_port_t * what))
{
    fake_enter("ov_output_const_port_free");
    drop(what);
    fake_leave(0);
}

OPENVINO(int, ov_port_get_element_type, (const ov_output_const_port_t *what, unsigned *type))
{
    const int code = fake_enter("ov_port_get_element_type");

    if (code == 0) *type = what->what.type;
    return answer(code);
}

OPENVINO(int, ov_port_get_partial_shape, (const ov_output_const_port_t *what, gmsrt_ov_partial_shape *shape))
{
    const int code = fake_enter("ov_port_get_partial_shape");
    const int rank = what->what.rank;

    if (code != 0) return answer(code);
    shape->rank.min = rank < 0 ? 0 : rank;
    shape->rank.max = rank;
    shape->dims = make(sizeof *shape->dims * 8);
    for (int i = 0; i < rank && i < 8; i++) {
        shape->dims[i].min = what->what.dims[i] < 0 ? 0 : what->what.dims[i];
        shape->dims[i].max = what->what.dims[i];
    }
    return answer(0);
}

OPENVINO(int, ov_partial_shape_create, (int64_t rank, const gmsrt_ov_dimension *dims, gmsrt_ov_partial_shape *shape))
{
    const int code = fake_enter("ov_partial_shape_create");

    if (code == 0) {
        shape->rank.min = shape->rank.max = rank;
        shape->dims = make(sizeof *dims * (size_t)rank);
        memcpy(shape->dims, dims, sizeof *dims * (size_t)rank);
    }
    return answer(code);
}

OPENVINO(void, ov_partial_shape_free, (gmsrt_ov_partial_shape * shape))
{
    fake_enter("ov_partial_shape_free");
    drop(shape->dims);
    shape->dims = NULL;
    fake_leave(0);
}

OPENVINO(int, ov_model_reshape_single_input, (const ov_model_t *model, gmsrt_ov_partial_shape shape))
{
    const int code = fake_enter("ov_model_reshape_single_input");
    ov_model_t *changed = (ov_model_t *)model;

    if (code == 0) changed->ports[0].dims[0] = changed->ports[1].dims[0] = shape.dims[0].min;
    return answer(code);
}

OPENVINO(int, ov_core_compile_model,
         (const ov_core_t *core, const ov_model_t *model, const char *device, size_t count,
          ov_compiled_model_t **compiled, ...))
{
    const int code = fake_enter("ov_core_compile_model");
    va_list arguments;

    (void)core;
    if (strcmp(device, "CPU") != 0) fake_mistake("compiled for %s", device);
    if (code != 0) return answer(code);
    *compiled = make(sizeof **compiled);
    memcpy((*compiled)->ports, model->ports, sizeof model->ports);
    strcpy((*compiled)->threads, "2");
    properties[0] = '\0';
    va_start(arguments, compiled);
    for (size_t i = 0; i < count / 2; i++) {
        const char *key = va_arg(arguments, const char *);
        const char *value = va_arg(arguments, const char *);
        const size_t used = strlen(properties);

        snprintf(properties + used, sizeof properties - used, "%s=%s;", key, value);
        if (strcmp(key, "INFERENCE_PRECISION_HINT") == 0)
            snprintf((*compiled)->precision, sizeof(*compiled)->precision, "%s", value);
        if (strcmp(key, "INFERENCE_NUM_THREADS") == 0)
            snprintf((*compiled)->threads, sizeof(*compiled)->threads, "%s", value);
    }
    va_end(arguments);
    return answer(0);
}

/* Properties of the core are those of an import. */
OPENVINO(int, ov_core_set_property, (const ov_core_t *core, const char *device, ...))
{
    const int code = fake_enter("ov_core_set_property");
    ov_core_t *changed = (ov_core_t *)core;
    const size_t used = strlen(changed->properties);
    const char *key;
    va_list arguments;

    if (strcmp(device, "CPU") != 0) fake_mistake("a property for %s", device);
    if (code != 0) return answer(code);
    va_start(arguments, device);
    key = va_arg(arguments, const char *);
    snprintf(changed->properties + used, sizeof changed->properties - used, "%s=%s;", key,
             va_arg(arguments, const char *));
    va_end(arguments);
    return answer(0);
}

/* What is exported: the compiled graph and a sum of its bytes. */
typedef struct exported {
    struct ov_compiled_model compiled;
    unsigned sum;
} exported;

static unsigned sum_of(const exported *whole)
{
    unsigned sum = 2166136261u;

    for (size_t i = 0; i < sizeof whole->compiled; i++) sum = (sum ^ ((const uint8_t *)whole)[i]) * 16777619u;
    return sum;
}

OPENVINO(int, ov_compiled_model_export_model, (const ov_compiled_model_t *compiled, const char *path))
{
    const int code = fake_enter("ov_compiled_model_export_model");
    exported whole;
    FILE *file;

    if (code != 0) return answer(code);
    memset(&whole, 0, sizeof whole);
    whole.compiled = *compiled;
    whole.sum = sum_of(&whole);
    file = fopen(path, "wb");
    if (file == NULL) return answer(-1);
    fwrite(&whole, sizeof whole, 1, file);
    fclose(file);
    return answer(0);
}

OPENVINO(int, ov_core_import_model,
         (const ov_core_t *core, const char *content, size_t size, const char *device, ov_compiled_model_t **compiled))
{
    const int code = fake_enter("ov_core_import_model");
    exported whole;

    if (strcmp(device, "CPU") != 0) fake_mistake("imported for %s", device);
    if (code != 0) return answer(code);
    memset(&whole, 0, sizeof whole);
    if (size == sizeof whole) memcpy(&whole, content, size);
    if (size != sizeof whole || whole.sum != sum_of(&whole)) {
        fake_mistake("a damaged graph of %zu bytes was imported", size);
        return answer(-1);
    }
    *compiled = make(sizeof **compiled);
    **compiled = whole.compiled;
    (*compiled)->imported_from = content;
    snprintf(properties, sizeof properties, "imported;%s", core->properties);
    return answer(0);
}

OPENVINO(void, ov_compiled_model_free, (ov_compiled_model_t * compiled))
{
    exported whole;

    fake_enter("ov_compiled_model_free");
    if (compiled->imported_from != NULL) {
        memcpy(&whole, compiled->imported_from, sizeof whole);
        if (whole.sum != sum_of(&whole)) fake_mistake("what was imported did not stay as it was");
    }
    drop(compiled);
    fake_leave(0);
}

OPENVINO(int, ov_compiled_model_get_property, (const ov_compiled_model_t *compiled, const char *key, char **value))
{
    const int code = fake_enter("ov_compiled_model_get_property");

    if (code == 0) {
        if (strcmp(key, "INFERENCE_PRECISION_HINT") == 0)
            *value = make_text(compiled->precision);
        else
            *value = make_text(strcmp(key, "INFERENCE_NUM_THREADS") == 0 ? compiled->threads : "3");
    }
    return answer(code);
}

OPENVINO(int, ov_compiled_model_create_infer_request,
         (const ov_compiled_model_t *compiled, ov_infer_request_t **request))
{
    const int code = fake_enter("ov_compiled_model_create_infer_request");

    if (code != 0) return answer(code);
    *request = make(sizeof **request);
    for (int which = 0; which < 2; which++) {
        struct ov_tensor *tensor = make(sizeof *tensor);

        tensor->bytes = 1;
        for (int i = 0; i < compiled->ports[which].rank; i++) tensor->bytes *= (size_t)compiled->ports[which].dims[i];
        tensor->data = make(tensor->bytes);
        tensor->references = 1;
        (*request)->tensors[which] = tensor;
    }
    return answer(0);
}

static void free_tensor(struct ov_tensor *tensor)
{
    if (--tensor->references == 0) {
        drop(tensor->data);
        drop(tensor);
    }
}

OPENVINO(void, ov_infer_request_free, (ov_infer_request_t * request))
{
    fake_enter("ov_infer_request_free");
    if (request->running) fake_mistake("a request freed while it runs");
    free_tensor(request->tensors[0]);
    free_tensor(request->tensors[1]);
    drop(request);
    fake_leave(0);
}

static int get_tensor(const char *name, struct ov_tensor *tensor, ov_tensor_t **result)
{
    const int code = fake_enter(name);

    if (code == 0) {
        tensor->references++;
        *result = tensor;
    }
    return answer(code);
}

OPENVINO(int, ov_infer_request_get_input_tensor, (const ov_infer_request_t *request, ov_tensor_t **tensor))
{
    return get_tensor("ov_infer_request_get_input_tensor", request->tensors[0], tensor);
}

OPENVINO(int, ov_infer_request_get_output_tensor, (const ov_infer_request_t *request, ov_tensor_t **tensor))
{
    return get_tensor("ov_infer_request_get_output_tensor", request->tensors[1], tensor);
}

OPENVINO(void, ov_tensor_free, (ov_tensor_t * tensor))
{
    fake_enter("ov_tensor_free");
    free_tensor(tensor);
    fake_leave(0);
}

OPENVINO(int, ov_tensor_data, (const ov_tensor_t *tensor, void **data))
{
    const int code = fake_enter("ov_tensor_data");

    if (code == 0) *data = tensor->data;
    return answer(code);
}

OPENVINO(int, ov_tensor_get_byte_size, (const ov_tensor_t *tensor, size_t *bytes))
{
    const int code = fake_enter("ov_tensor_get_byte_size");

    if (code == 0) *bytes = tensor->bytes;
    return answer(code);
}

static void compute(ov_infer_request_t *request)
{
    for (size_t i = 0; i < request->tensors[1]->bytes; i++)
        request->tensors[1]->data[i] = (uint8_t)(255 - request->tensors[0]->data[3 * i]);
}

OPENVINO(int, ov_infer_request_infer, (ov_infer_request_t * request))
{
    int code;

    pthread_mutex_lock(&fake_mutex);
    if (request->running) fake_mistake("two inferences at once on a request");
    request->running = true;
    pthread_mutex_unlock(&fake_mutex);
    do fake_pause();
    while (__atomic_load_n(&inferences_held, __ATOMIC_ACQUIRE));
    code = fake_enter("ov_infer_request_infer");
    request->running = false;
    if (code == 0) compute(request);
    return answer(code);
}

OPENVINO(int, ov_infer_request_start_async, (ov_infer_request_t * request))
{
    const int code = fake_enter("ov_infer_request_start_async");

    if (request->running) fake_mistake("an inference on a running request");
    if (code == 0) request->running = true;
    return answer(code);
}

OPENVINO(int, ov_infer_request_wait, (ov_infer_request_t * request))
{
    int code;

    fake_pause();
    code = fake_enter("ov_infer_request_wait");

    if (!request->running) fake_mistake("waiting for a request that does not run");
    if (code == 0) compute(request);
    request->running = false;
    return answer(code);
}
