/* Opening in other ways: from memory, with a limit of time, with a way to cancel it, and what the log hears of it.
 *
 * Usage: test_open FAKE_OPENVINO FOLDER. Nothing here depends on how fast the machine is: the fake OpenVINO waits until it
 * is told to go on. */
#define _XOPEN_SOURCE 700 /* realpath */
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bytes.h"
#include "gms_rt.h"

#define PIXELS 4u

static struct {
    const char *(*mistake)(void);
    int (*live)(void);
    void (*reset)(void);
    void (*port)(int, unsigned, int, const int64_t *);
    void (*hold)(int);
    int (*held)(void);
} fake;

static char openvino[4096], graph[4200], folder[4096];

static gmsrt_cpu_options options_of_fake(gmsrt_trial trial)
{
    gmsrt_cpu_options options;

    gmsrt_cpu_options_init(&options, sizeof options);
    options.openvino = openvino;
    options.trial = trial;
    return options;
}

static void start(void)
{
    const int64_t input[4] = {1, 2, 2, 3}, output[4] = {1, 2, 2, 1};

    fake.reset();
    fake.port(0, 0, 4, input);
    fake.port(1, 0, 4, output);
}

static void nap(void)
{
    const struct timespec moment = {0, 2000000};

    nanosleep(&moment, NULL);
}

/* What was given up ends some time after it may. */
static void expect_clean(void)
{
    for (int i = 0; i < 30000 && fake.live() != 0; i++) nap();
    CHECK(fake.mistake()[0] == '\0', "%s", fake.mistake());
    CHECK(fake.live() == 0, "%d objects are left", fake.live());
    CHECK(waitpid(-1, NULL, WNOHANG) == -1, "a child is left");
}

static void expect_runner(gmsrt_runner *runner)
{
    const uint8_t image[PIXELS * 3] = {1, 2, 3, 40, 50, 60, 7, 8, 9, 100, 110, 120};
    uint8_t mask[PIXELS];

    CHECK_OK(gmsrt_infer(runner, image, 1, mask));
    for (size_t i = 0; i < PIXELS; i++) CHECK(mask[i] == 255 - image[3 * i], "pixel %zu is %u", i, mask[i]);
}

static void test_memory(void)
{
    bytes model = sound_model(), outside, tensor = {0}, entry = {0};
    gmsrt_cpu_options options = options_of_fake(GMSRT_TRIAL_NEVER);
    gmsrt_runner *runner = NULL;
    gmsrt_info info;
    uint8_t *copy = malloc(model.size); /* a sanitizer stands behind it */

    start();
    CHECK(copy != NULL, "no memory");
    memcpy(copy, model.data, model.size);
    for (int trial = 0; trial < 3; trial++) {
        options.trial = trial == 0 ? GMSRT_TRIAL_NEVER : trial == 1 ? GMSRT_TRIAL_ALWAYS : GMSRT_TRIAL_AUTO;
        CHECK_OK(gmsrt_open_cpu_memory(copy, model.size, &options, NULL));
        CHECK_OK(gmsrt_open_cpu_memory(copy, model.size, &options, &runner));
        memset(copy, 0xA5, model.size); /* it is the caller's again */
        expect_runner(runner);
        CHECK_OK(gmsrt_get_info(runner, &info, sizeof info));
        CHECK(info.height == 2 && info.width == 2 && strcmp(info.execution, "f32") == 0, "%s", info.execution);
        gmsrt_close(runner);
        memcpy(copy, model.data, model.size);
    }
    expect_clean();
    /* The trial's process gets the very bytes: it says how it ended. */
    options.trial = GMSRT_TRIAL_ALWAYS;
    setenv("FAKE_OPENVINO_DOES", "11", 1);
    CHECK(gmsrt_open_cpu_memory(copy, model.size, &options, &runner) == GMSRT_BAD_GRAPH && runner == NULL, "no crash");
    CHECK(strstr(gmsrt_last_error(), "the graph in memory: OpenVINO fake crashed on this graph") != NULL, "%s",
          gmsrt_last_error());
    unsetenv("FAKE_OPENVINO_DOES");
    options.batch = 5;
    CHECK(gmsrt_open_cpu_memory(copy, model.size, &options, &runner) == GMSRT_INVALID_ARGUMENT, "a batch of its own");
    CHECK(strstr(gmsrt_last_error(), "the graph in memory: a batch of 5") != NULL, "%s", gmsrt_last_error());
    options.batch = 0;
    options.trial = GMSRT_TRIAL_NEVER;
    for (size_t size = 0; size < model.size; size++) {
        uint8_t *part = malloc(size + 1);

        CHECK(part != NULL, "no memory");
        memcpy(part, model.data, size);
        part = realloc(part, size > 0 ? size : 1);
        CHECK(gmsrt_open_cpu_memory(part, size, &options, &runner) == GMSRT_BAD_GRAPH, "%zu bytes are a graph", size);
        free(part);
    }
    CHECK(gmsrt_open_cpu_memory(NULL, 10, &options, &runner) == GMSRT_INVALID_ARGUMENT, "no graph");
    add_text(&entry, 1, "location");
    add_text(&entry, 2, "memory"); /* whatever the library calls it itself */
    add_number(&tensor, 14, 1);
    add_message(&tensor, 13, &entry);
    outside = make_node("Relu", "a", "b");
    outside = make_graph(&outside);
    add_message(&outside, 5, &tensor);
    outside = make_model(&outside);
    CHECK(gmsrt_open_cpu_memory(outside.data, outside.size, &options, &runner) == GMSRT_BAD_GRAPH, "weights elsewhere");
    CHECK(strstr(gmsrt_last_error(), "has its weights in 'memory', and memory has no files") != NULL, "%s",
          gmsrt_last_error());
    free(copy);
    expect_clean();
}

static pthread_t caller;
static int asked;

static int cancel_after(void *user)
{
    CHECK(pthread_equal(pthread_self(), caller), "asked on another thread");
    return ++asked > *(int *)user;
}

/* An open that is given up while OpenVINO is held, in this process or in the trial's. */
static void expect_given_up(gmsrt_cpu_options options, gmsrt_status status, bool from_memory, bool with_runner)
{
    const bytes model = sound_model();
    gmsrt_runner *unset = (gmsrt_runner *)&options, *runner = unset;
    gmsrt_runner **wanted = with_runner ? &runner : NULL;
    const gmsrt_status got = from_memory ? gmsrt_open_cpu_memory(model.data, model.size, &options, wanted)
                                         : gmsrt_open_cpu(graph, &options, wanted);

    CHECK(got == status, "%s: %s", gmsrt_status_name(got), gmsrt_last_error());
    CHECK(strstr(gmsrt_last_error(), status == GMSRT_CANCELLED ? "was cancelled" : "took longer than") != NULL, "%s",
          gmsrt_last_error());
    CHECK(runner == (with_runner ? NULL : unset), "a runner of a failure");
}

static void test_given_up(void)
{
    int after = 3;

    caller = pthread_self();
    for (int round = 0; round < 8; round++) {
        const bool memory = round & 1, cancel = round & 2, in_trial = round & 4;
        gmsrt_cpu_options options = options_of_fake(in_trial ? GMSRT_TRIAL_ALWAYS : GMSRT_TRIAL_NEVER);

        start();
        asked = 0;
        if (cancel) {
            options.cancelled = cancel_after;
            options.user = &after;
        } else {
            options.timeout_ms = 60;
        }
        if (in_trial)
            setenv("FAKE_OPENVINO_DOES", "hang", 1);
        else
            fake.hold(1);
        expect_given_up(options, cancel ? GMSRT_CANCELLED : GMSRT_TIMED_OUT, memory, true);
        CHECK(!cancel || asked == after + 1, "asked %d times", asked);
        if (in_trial) {
            expect_given_up(options, cancel ? GMSRT_CANCELLED : GMSRT_TIMED_OUT, memory, false);
            unsetenv("FAKE_OPENVINO_DOES");
        } else {
            CHECK(fake.held() == 1 && fake.live() > 0, "nothing is at work");
            fake.hold(0); /* now it goes on, and everything of it goes away */
        }
        expect_clean();
    }
}

static int never(void *user)
{
    ++*(int *)user;
    return 0;
}

/* With limits that are not reached an open is as any other. */
static void test_in_time(void)
{
    gmsrt_cpu_options options = options_of_fake(GMSRT_TRIAL_ALWAYS);
    gmsrt_runner *runner = NULL;
    int count = 0;

    start();
    options.timeout_ms = 3600000;
    options.cancelled = never;
    options.user = &count;
    CHECK_OK(gmsrt_open_cpu(graph, &options, &runner));
    expect_runner(runner);
    gmsrt_close(runner);
    CHECK_OK(gmsrt_open_cpu(graph, &options, NULL));
    options.batch = 7;
    CHECK(gmsrt_open_cpu(graph, &options, &runner) == GMSRT_INVALID_ARGUMENT && runner == NULL, "a batch of its own");
    CHECK(strstr(gmsrt_last_error(), "a batch of 7 was asked for") != NULL, "%s", gmsrt_last_error());
    options.batch = 0;
    CHECK(gmsrt_open_cpu("/nowhere.onnx", &options, &runner) == GMSRT_NOT_FOUND, "%s", gmsrt_last_error());
    CHECK(strstr(gmsrt_last_error(), "/nowhere.onnx") != NULL, "%s", gmsrt_last_error());
    expect_clean();
}

static struct {
    int infos, warnings;
    char text[8192];
    gmsrt_status within;
} heard;

static void hear(void *user, gmsrt_log_level level, const char *message)
{
    gmsrt_runner *runner;
    gmsrt_cpu_options options = options_of_fake(GMSRT_TRIAL_NEVER);

    CHECK(user == &heard && strchr(message, '\n') == NULL, "%s", message);
    heard.infos += level == GMSRT_LOG_INFO;
    heard.warnings += level == GMSRT_LOG_WARNING;
    snprintf(heard.text + strlen(heard.text), sizeof heard.text - strlen(heard.text), "%s\n", message);
    heard.within = gmsrt_set_log(NULL, NULL);
    /* It must not log, and does not: that would never end. */
    if (heard.infos == 1 && gmsrt_open_cpu(graph, &options, &runner) == GMSRT_OK) gmsrt_close(runner);
}

static void expect_heard(const char *words)
{
    CHECK(strstr(heard.text, words) != NULL, "'%s' is not in the log: %s", words, heard.text);
}

static void test_log(void)
{
    gmsrt_cpu_options options = options_of_fake(GMSRT_TRIAL_ALWAYS);
    gmsrt_runner *runner = NULL;
    char cache[4300];
    int before;

    start();
    memset(&heard, 0, sizeof heard);
    CHECK_OK(gmsrt_set_log(hear, &heard));
    CHECK_OK(gmsrt_open_cpu(graph, &options, &runner));
    gmsrt_close(runner);
    CHECK(heard.infos == 2 && heard.warnings == 0, "%s", heard.text);
    CHECK(heard.within == GMSRT_INVALID_ARGUMENT, "the callback may change itself");
    expect_heard("was opened and run in a process of its own");
    expect_heard("compiled now): OpenVINO fake");
    /* A cache that others can write is not used. */
    snprintf(cache, sizeof cache, "%s/open-cache", folder);
    mkdir(cache, 0700);
    CHECK(chmod(cache, 0777) == 0, "chmod");
    options = options_of_fake(GMSRT_TRIAL_NEVER);
    options.cache = cache;
    CHECK_OK(gmsrt_open_cpu(graph, &options, &runner));
    gmsrt_close(runner);
    expect_heard("is not used: others than you can write there");
    CHECK(heard.warnings == 1, "%s", heard.text);
    rmdir(cache);
    /* An open on another thread, which is given up. */
    options = options_of_fake(GMSRT_TRIAL_NEVER);
    options.timeout_ms = 30;
    fake.hold(1);
    CHECK(gmsrt_open_cpu(graph, &options, &runner) == GMSRT_TIMED_OUT, "%s", gmsrt_last_error());
    expect_heard("it goes on until it is done");
    CHECK_OK(gmsrt_set_log(NULL, NULL));
    before = heard.infos;
    fake.hold(0);
    expect_clean();
    options.timeout_ms = 0;
    CHECK_OK(gmsrt_open_cpu(graph, &options, &runner));
    gmsrt_close(runner);
    CHECK(heard.infos == before, "heard after the end: %s", heard.text);
}

static void *open_often(void *data)
{
    gmsrt_cpu_options options = options_of_fake(GMSRT_TRIAL_NEVER);

    (void)data;
    for (int i = 0; i < 40; i++) {
        gmsrt_runner *runner;

        options.timeout_ms = i % 2 ? 3600000 : 0;
        CHECK_OK(gmsrt_open_cpu(graph, &options, &runner));
        gmsrt_close(runner);
    }
    return NULL;
}

static void count(void *user, gmsrt_log_level level, const char *message)
{
    (void)level;
    (void)message;
    __atomic_add_fetch((int *)user, 1, __ATOMIC_RELAXED);
}

/* Many threads open and log while the callback is changed; the old one is not running when the change returns. */
static void test_threads(void)
{
    pthread_t threads[4];

    start();
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, open_often, NULL) == 0, "no thread");
    for (int i = 0; i < 200; i++) {
        int *counter = calloc(1, sizeof *counter);

        CHECK(counter != NULL, "no memory");
        CHECK_OK(gmsrt_set_log(count, counter));
        if (i % 50 == 0) nap();
        CHECK_OK(gmsrt_set_log(NULL, NULL));
        free(counter); /* nobody uses it any more */
    }
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    expect_clean();
}

int main(int argc, char **argv)
{
    const bytes whole = sound_model();
    void *library;

    CHECK(argc == 3, "usage: test_open FAKE_OPENVINO FOLDER");
    CHECK(realpath(argv[1], openvino) != NULL && realpath(argv[2], folder) != NULL, "%s is not there", argv[1]);
    snprintf(graph, sizeof graph, "%s/open.onnx", folder);
    write_bytes(graph, whole.data, whole.size);
    setenv("XDG_CACHE_HOME", folder, 1);
    unsetenv("GMS_RT_TRIAL");
    library = dlopen(openvino, RTLD_NOW | RTLD_LOCAL);
    CHECK(library != NULL, "%s", dlerror());
    *(void **)&fake.mistake = dlsym(library, "fake_openvino_mistake");
    *(void **)&fake.live = dlsym(library, "fake_openvino_live");
    *(void **)&fake.reset = dlsym(library, "fake_openvino_reset");
    *(void **)&fake.port = dlsym(library, "fake_openvino_port");
    *(void **)&fake.hold = dlsym(library, "fake_openvino_hold");
    *(void **)&fake.held = dlsym(library, "fake_openvino_held");
    test_memory();
    test_given_up();
    test_in_time();
    test_log();
    test_threads();
    return checks_passed("test_open (fake OpenVINO)");
}
