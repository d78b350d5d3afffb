/* Submitted inferences against a fake OpenVINO whose inferences can be held: results, order, limits, time, threads.
 *
 * Usage: test_async FAKE_OPENVINO FOLDER. */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bytes.h"
#include "gms_rt.h"

#define PIXELS 4u
#define IMAGES 5u

static struct {
    int (*calls)(void);
    const char *(*mistake)(void);
    int (*live)(void);
    void (*fail)(int, int);
    void (*reset)(void);
    void (*hold)(int);
} fake;

static const char *openvino;
static char graph[1024];
static uint8_t images[IMAGES * PIXELS * 3];

static gmsrt_runner *make_runner(uint32_t lanes)
{
    gmsrt_cpu_options options;
    gmsrt_runner *runner = NULL;

    CHECK_OK(gmsrt_cpu_options_init(&options, sizeof options));
    options.openvino = openvino;
    options.trial = GMSRT_TRIAL_NEVER;
    options.lanes = lanes;
    CHECK_OK(gmsrt_open_cpu(graph, &options, &runner));
    return runner;
}

static gmsrt_runner *open_runner(uint32_t lanes)
{
    fake.reset();
    return make_runner(lanes);
}

static void close_clean(gmsrt_runner *runner)
{
    gmsrt_close(runner);
    CHECK(fake.mistake()[0] == '\0', "%s", fake.mistake());
    CHECK(fake.live() == 0, "%d objects are left", fake.live());
}

static void expect_masks(const uint8_t *masks, size_t first, size_t count)
{
    for (size_t i = 0; i < count * PIXELS; i++)
        CHECK(masks[i] == 255 - images[3 * (first * PIXELS + i)], "pixel %zu is %u", i, masks[i]);
}

static double now(void)
{
    struct timespec moment;

    clock_gettime(CLOCK_MONOTONIC, &moment);
    return (double)moment.tv_sec * 1e3 + (double)moment.tv_nsec * 1e-6;
}

static void test_results(void)
{
    for (uint32_t lanes = 1; lanes <= 3; lanes++) {
        gmsrt_runner *runner = open_runner(lanes);
        gmsrt_ticket tickets[IMAGES];
        uint8_t masks[IMAGES][PIXELS], all[IMAGES * PIXELS];

        for (size_t i = 0; i < IMAGES; i++)
            CHECK_OK(gmsrt_submit(runner, images + i * PIXELS * 3, 1, masks[i], NULL, NULL, &tickets[i]));
        for (size_t i = IMAGES; i-- > 0;) {
            CHECK_OK(gmsrt_wait(runner, tickets[i], -1));
            expect_masks(masks[i], i, 1);
            CHECK(gmsrt_wait(runner, tickets[i], -1) == GMSRT_INVALID_ARGUMENT, "a ticket was taken twice");
        }
        CHECK_OK(gmsrt_submit(runner, images, IMAGES, all, NULL, NULL, &tickets[0]));
        CHECK_OK(gmsrt_wait(runner, tickets[0], 60000));
        expect_masks(all, 0, IMAGES);
        close_clean(runner);
    }
}

static void rest_a_moment(void)
{
    const struct timespec moment = {0, 1000000};

    nanosleep(&moment, NULL);
}

typedef struct calls {
    gmsrt_runner *runner;
    uint8_t masks[PIXELS];
    int left; /* submissions that the callback makes itself */
    int done; /* atomic */
    gmsrt_status status;
    char message[200];
} calls;

static void count_call(void *user, gmsrt_status status, const char *message)
{
    calls *of = user;

    of->status = status;
    snprintf(of->message, sizeof of->message, "%s", message);
    if (of->left-- > 0) CHECK_OK(gmsrt_submit(of->runner, images, 1, of->masks, count_call, of, NULL));
    __atomic_add_fetch(&of->done, 1, __ATOMIC_RELEASE);
}

static void expect_calls(calls *of, int count)
{
    while (__atomic_load_n(&of->done, __ATOMIC_ACQUIRE) < count) rest_a_moment();
    CHECK(of->done == count, "%d calls instead of %d", of->done, count);
}

static void test_callbacks(void)
{
    gmsrt_runner *runner = open_runner(2);
    calls of = {runner, {0}, 99, 0, GMSRT_BUSY, ""};
    gmsrt_ticket ticket = 0;

    CHECK_OK(gmsrt_submit(runner, images, 1, of.masks, count_call, &of, NULL));
    expect_calls(&of, 100);
    CHECK(of.status == GMSRT_OK && of.message[0] == '\0', "%s", of.message);
    expect_masks(of.masks, 0, 1);
    of.left = of.done = 0;
    CHECK_OK(gmsrt_submit(runner, images, 1, of.masks, count_call, &of, &ticket));
    CHECK_OK(gmsrt_wait(runner, ticket, -1));
    CHECK(__atomic_load_n(&of.done, __ATOMIC_ACQUIRE) == 1, "the wait ended before the callback");
    close_clean(runner);
}

static void test_time(void)
{
    gmsrt_runner *runner = open_runner(1);
    gmsrt_ticket ticket;
    uint8_t masks[PIXELS];
    double start;

    fake.hold(1);
    CHECK_OK(gmsrt_submit(runner, images, 1, masks, NULL, NULL, &ticket));
    CHECK(gmsrt_wait(runner, ticket, 0) == GMSRT_TIMED_OUT, "done at once");
    start = now();
    CHECK(gmsrt_wait(runner, ticket, 30) == GMSRT_TIMED_OUT, "done though held");
    CHECK(now() - start >= 30, "waited %f ms", now() - start);
    CHECK(strstr(gmsrt_last_error(), "30 ms") != NULL, "%s", gmsrt_last_error());
    fake.hold(0);
    CHECK_OK(gmsrt_wait(runner, ticket, INT64_MAX));
    expect_masks(masks, 0, 1);
    close_clean(runner);
}

static void test_limit(void)
{
    static uint8_t masks[GMSRT_MAX_JOBS + 1][PIXELS];
    gmsrt_runner *runner = open_runner(2);
    gmsrt_ticket tickets[GMSRT_MAX_JOBS + 1];

    for (int turn = 0; turn < 3; turn++) {
        fake.hold(1);
        for (uint32_t i = 0; i < GMSRT_MAX_JOBS; i++)
            CHECK_OK(gmsrt_submit(runner, images + i % IMAGES * PIXELS * 3, 1, masks[i], NULL, NULL, &tickets[i]));
        CHECK(gmsrt_submit(runner, images, 1, masks[GMSRT_MAX_JOBS], NULL, NULL, &tickets[GMSRT_MAX_JOBS]) ==
                  GMSRT_BUSY,
              "one more than there is room for");
        CHECK(tickets[GMSRT_MAX_JOBS] == 0, "a ticket for nothing");
        fake.hold(0);
        CHECK_OK(gmsrt_wait(runner, tickets[0], -1));
        CHECK_OK(gmsrt_submit(runner, images, 1, masks[GMSRT_MAX_JOBS], NULL, NULL, &tickets[GMSRT_MAX_JOBS]));
        CHECK(gmsrt_wait(runner, tickets[0], 0) == GMSRT_INVALID_ARGUMENT, "the old ticket is the new inference");
        for (uint32_t i = 1; i <= GMSRT_MAX_JOBS; i++) {
            CHECK_OK(gmsrt_wait(runner, tickets[i], -1));
            expect_masks(masks[i], i == GMSRT_MAX_JOBS ? 0 : i % IMAGES, 1);
        }
    }
    close_clean(runner);
}

static void test_failures(void)
{
    gmsrt_runner *runner = open_runner(1);
    calls of = {runner, {0}, 0, 0, GMSRT_OK, ""};
    gmsrt_ticket ticket;

    fake.fail(1, -7);
    CHECK_OK(gmsrt_submit(runner, images, 1, of.masks, count_call, &of, &ticket));
    CHECK(gmsrt_wait(runner, ticket, -1) == GMSRT_RUNTIME_FAILED, "a failure was lost");
    CHECK(strstr(gmsrt_last_error(), "the inference failed") != NULL, "%s", gmsrt_last_error());
    CHECK(of.status == GMSRT_RUNTIME_FAILED && strcmp(of.message, gmsrt_last_error()) == 0, "%s", of.message);
    CHECK_OK(gmsrt_submit(runner, images, 1, of.masks, NULL, NULL, &ticket));
    CHECK_OK(gmsrt_wait(runner, ticket, -1));
    expect_masks(of.masks, 0, 1);
    close_clean(runner);
}

static void test_arguments(void)
{
    gmsrt_runner *runner = open_runner(1), *other;
    gmsrt_ticket ticket = 9;
    uint8_t masks[PIXELS];

    CHECK(gmsrt_wait(runner, 1, 0) == GMSRT_INVALID_ARGUMENT, "a ticket before any");
    CHECK(gmsrt_submit(NULL, images, 1, masks, NULL, NULL, &ticket) == GMSRT_INVALID_ARGUMENT && ticket == 0,
          "no runner");
    CHECK(gmsrt_submit(runner, NULL, 1, masks, NULL, NULL, &ticket) == GMSRT_INVALID_ARGUMENT, "no images");
    CHECK(gmsrt_submit(runner, images, 1, NULL, NULL, NULL, &ticket) == GMSRT_INVALID_ARGUMENT, "no masks");
    CHECK(gmsrt_submit(runner, images, 0, masks, NULL, NULL, &ticket) == GMSRT_INVALID_ARGUMENT, "no image");
    CHECK(gmsrt_submit(runner, images, 1, masks, NULL, NULL, NULL) == GMSRT_INVALID_ARGUMENT, "nobody would hear");
    CHECK(gmsrt_wait(NULL, 1, 0) == GMSRT_INVALID_ARGUMENT, "no runner");
    CHECK_OK(gmsrt_submit(runner, images, SIZE_MAX / 2, masks, NULL, NULL, &ticket));
    CHECK(gmsrt_wait(runner, ticket, -1) == GMSRT_INVALID_ARGUMENT, "more images than memory");
    CHECK_OK(gmsrt_submit(runner, images, 1, masks, NULL, NULL, &ticket));
    other = make_runner(1);
    CHECK(gmsrt_wait(other, ticket, 0) == GMSRT_INVALID_ARGUMENT, "another runner's ticket");
    gmsrt_close(other);
    CHECK_OK(gmsrt_wait(runner, ticket, -1));
    CHECK(gmsrt_wait(runner, 0, -1) == GMSRT_INVALID_ARGUMENT, "ticket 0");
    CHECK(gmsrt_wait(runner, UINT64_MAX, -1) == GMSRT_INVALID_ARGUMENT, "a ticket of nobody");
    close_clean(runner);
}

/* What was submitted is done before a runner is closed. */
static void test_close(void)
{
    for (int turn = 0; turn < 20; turn++) {
        gmsrt_runner *runner = open_runner(1 + (uint32_t)turn % 3);
        calls of[10];

        memset(of, 0, sizeof of);
        for (int i = 0; i < 10; i++) CHECK_OK(gmsrt_submit(runner, images, 1, of[i].masks, count_call, &of[i], NULL));
        close_clean(runner);
        for (int i = 0; i < 10; i++) CHECK(of[i].done == 1 && of[i].status == GMSRT_OK, "%s", of[i].message);
    }
}

typedef struct endless {
    gmsrt_runner *runner;
    uint8_t masks[PIXELS];
    gmsrt_ticket ticket; /* of another inference */
    int turns;           /* atomic */
    gmsrt_status submitted, waited;
} endless;

static void submit_again(void *user, gmsrt_status status, const char *message)
{
    endless *of = user;

    CHECK(status == GMSRT_OK, "%s", message);
    if (of->ticket != 0) {
        of->waited = gmsrt_wait(of->runner, of->ticket, 60000);
        of->ticket = 0;
    }
    gmsrt_close(of->runner); /* must do nothing */
    __atomic_add_fetch(&of->turns, 1, __ATOMIC_RELEASE);
    of->submitted = gmsrt_submit(of->runner, images, 1, of->masks, submit_again, of, NULL);
}

/* A callback that submits the next inference each time does not keep gmsrt_close from ending, and one that waits or closes
 * within itself is refused. */
static void test_close_ends_a_chain(void)
{
    for (uint32_t lanes = 1; lanes <= 2; lanes++) {
        gmsrt_runner *runner = open_runner(lanes);
        endless of = {runner, {0}, 0, 0, GMSRT_OK, GMSRT_OK};
        uint8_t masks[PIXELS];
        gmsrt_ticket ticket;

        fake.hold(1);
        CHECK_OK(gmsrt_submit(runner, images, 1, of.masks, submit_again, &of, NULL));
        CHECK_OK(gmsrt_submit(runner, images, 1, masks, NULL, NULL, &of.ticket));
        ticket = of.ticket;
        fake.hold(0);
        while (__atomic_load_n(&of.turns, __ATOMIC_ACQUIRE) < 5) rest_a_moment();
        CHECK_OK(gmsrt_wait(runner, ticket, -1));
        close_clean(runner);
        CHECK(of.waited == GMSRT_INVALID_ARGUMENT, "a callback waited: %s", gmsrt_status_name(of.waited));
        CHECK(of.submitted == GMSRT_CANCELLED, "submitted while it was closed: %s", gmsrt_status_name(of.submitted));
    }
}

/* A signal for the process is not taken by a thread of the library. */
static void test_signals(void)
{
    gmsrt_runner *runner = open_runner(2);
    gmsrt_ticket ticket;
    uint8_t masks[PIXELS];
    sigset_t mine, before;
    const struct timespec moment = {0, 20000000};
    int got = 0;

    CHECK_OK(gmsrt_submit(runner, images, 1, masks, NULL, NULL, &ticket));
    CHECK_OK(gmsrt_wait(runner, ticket, -1));
    sigemptyset(&mine);
    sigaddset(&mine, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &mine, &before);
    kill(getpid(), SIGUSR1); /* would end the process in a thread that does not block it */
    nanosleep(&moment, NULL);
    CHECK(sigwait(&mine, &got) == 0 && got == SIGUSR1, "signal %d", got);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close_clean(runner);
}

static void *work(void *argument)
{
    gmsrt_runner *runner = argument;
    uint8_t masks[4][PIXELS];
    gmsrt_ticket tickets[4];

    for (int turn = 0; turn < 60; turn++) {
        for (int i = 0; i < 4; i++)
            CHECK_OK(gmsrt_submit(runner, images + i * (int)PIXELS * 3, 1, masks[i], NULL, NULL, &tickets[i]));
        if (turn % 8 == 0) {
            uint8_t own[IMAGES * PIXELS];

            CHECK_OK(gmsrt_infer(runner, images, IMAGES, own));
            expect_masks(own, 0, IMAGES);
        }
        for (int i = 0; i < 4; i++) {
            gmsrt_status status;

            do status = gmsrt_wait(runner, tickets[i], turn % 3 - 1);
            while (status == GMSRT_TIMED_OUT);
            CHECK(status == GMSRT_OK, "%s", gmsrt_last_error());
            expect_masks(masks[i], (size_t)i, 1);
        }
    }
    return NULL;
}

static void test_threads(void)
{
    gmsrt_runner *runner = open_runner(3);
    pthread_t threads[6];

    for (int i = 0; i < 6; i++) CHECK(pthread_create(&threads[i], NULL, work, runner) == 0, "no thread");
    for (int i = 0; i < 6; i++) pthread_join(threads[i], NULL);
    close_clean(runner);
}

int main(int argc, char **argv)
{
    const bytes whole = sound_model();
    void *library;

    CHECK(argc == 3, "usage: test_async FAKE_OPENVINO FOLDER");
    openvino = argv[1];
    snprintf(graph, sizeof graph, "%s/async.onnx", argv[2]);
    write_bytes(graph, whole.data, whole.size);
    library = dlopen(openvino, RTLD_NOW | RTLD_LOCAL);
    CHECK(library != NULL, "%s", dlerror());
    *(void **)&fake.calls = dlsym(library, "fake_openvino_calls");
    *(void **)&fake.mistake = dlsym(library, "fake_openvino_mistake");
    *(void **)&fake.live = dlsym(library, "fake_openvino_live");
    *(void **)&fake.fail = dlsym(library, "fake_openvino_fail");
    *(void **)&fake.reset = dlsym(library, "fake_openvino_reset");
    *(void **)&fake.hold = dlsym(library, "fake_openvino_hold_inferences");
    for (size_t i = 0; i < sizeof images; i++) images[i] = (uint8_t)(i * 37 + 11);

    test_results();
    test_callbacks();
    test_time();
    test_limit();
    test_failures();
    test_arguments();
    test_close();
    test_close_ends_a_chain();
    test_signals();
    test_threads();
    return checks_passed("test_async (fake OpenVINO)");
}
