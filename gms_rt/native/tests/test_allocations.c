/* No inference allocates: this program's own malloc counts, also for the library and all of its threads.
 *
 * Usage: test_allocations OPENVINO FOLDER. With the fake OpenVINO nothing may be allocated; a real one allocates itself,
 * and what is counted with it is only printed. */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "gms_rt.h"

#define TURNS 500
#define PIXELS 4u

static unsigned long allocations; /* atomic */

#if defined(__GLIBC__)
#define SEEN_BY_ALL __attribute__((visibility("default")))
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void *aligned_alloc(size_t alignment, size_t size); /* of C11 */

static void count(void)
{
    __atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
}

SEEN_BY_ALL void *malloc(size_t size)
{
    count();
    return __libc_malloc(size);
}

SEEN_BY_ALL void *calloc(size_t number, size_t size)
{
    count();
    return __libc_calloc(number, size);
}

SEEN_BY_ALL void *realloc(void *old, size_t size)
{
    count();
    return __libc_realloc(old, size);
}

SEEN_BY_ALL void *aligned_alloc(size_t alignment, size_t size)
{
    count();
    return __libc_memalign(alignment, size);
}

SEEN_BY_ALL int posix_memalign(void **result, size_t alignment, size_t size)
{
    count();
    *result = __libc_memalign(alignment, size);
    return *result != NULL ? 0 : ENOMEM;
}
#endif

static unsigned long counted(void)
{
    return __atomic_load_n(&allocations, __ATOMIC_RELAXED);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int calls;

static void done(void *user, gmsrt_status status, const char *message)
{
    (void)user;
    CHECK(status == GMSRT_OK, "%s", message);
    pthread_mutex_lock(&mutex);
    calls++;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&mutex);
}

static void infer(gmsrt_runner *runner, const uint8_t *images, uint8_t *masks)
{
    CHECK_OK(gmsrt_infer(runner, images, 3, masks));
}

static void submit_and_wait(gmsrt_runner *runner, const uint8_t *images, uint8_t *masks)
{
    gmsrt_ticket tickets[2];

    for (int i = 0; i < 2; i++) CHECK_OK(gmsrt_submit(runner, images, 1, masks + i * 4, NULL, NULL, &tickets[i]));
    for (int i = 0; i < 2; i++) CHECK_OK(gmsrt_wait(runner, tickets[i], 60000));
}

static void submit_with_callback(gmsrt_runner *runner, const uint8_t *images, uint8_t *masks)
{
    pthread_mutex_lock(&mutex);
    calls = 0;
    pthread_mutex_unlock(&mutex);
    CHECK_OK(gmsrt_submit(runner, images, 1, masks, done, NULL, NULL));
    pthread_mutex_lock(&mutex);
    while (calls == 0) pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(gmsrt_runner *runner, const uint8_t *images, uint8_t *masks);
    } ways[] = {{"gmsrt_infer", infer},
                {"gmsrt_submit and gmsrt_wait", submit_and_wait},
                {"gmsrt_submit with a callback", submit_with_callback}};
    const bytes whole = sound_model();
    static uint8_t images[3 * PIXELS * 3], masks[3 * PIXELS];
    gmsrt_cpu_options options;
    gmsrt_runner *runner;
    char graph[1024];
    unsigned long before;

    CHECK(argc == 3, "usage: test_allocations OPENVINO FOLDER");
    snprintf(graph, sizeof graph, "%s/allocations.onnx", argv[2]);
    write_bytes(graph, whole.data, whole.size);
    CHECK_OK(gmsrt_cpu_options_init(&options, sizeof options));
    options.openvino = argv[1];
    options.trial = GMSRT_TRIAL_NEVER;
    options.lanes = 2;
    before = counted();
    CHECK_OK(gmsrt_open_cpu(graph, &options, &runner));
#if defined(__GLIBC__)
    CHECK(counted() > before, "the counter does not count");
#else
    printf("left out: nothing is counted without glibc\n");
#endif
    for (size_t way = 0; way < sizeof ways / sizeof *ways; way++) {
        ways[way].run(runner, images, masks); /* the first one makes the threads */
        before = counted();
        for (int turn = 0; turn < TURNS; turn++) ways[way].run(runner, images, masks);
        CHECK(counted() == before, "%s allocated %lu times in %d turns", ways[way].name, counted() - before, TURNS);
    }
    gmsrt_close(runner);
    return checks_passed("test_allocations");
}
