/* Opening a graph on the CPU: the caller's options, and an open that can be given up.
 *
 * OpenVINO cannot be interrupted while it reads and compiles. An open with a limit of time or a way to cancel it runs on
 * a thread of its own: the trial's process is ended at once, but what OpenVINO has begun goes on there, and is released
 * when it is done. Everything that thread needs is a copy, because the caller may have gone. */
#define _XOPEN_SOURCE 700
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cpu.h"

#define STEP 20.0      /* milliseconds between two questions to the caller */
#define FAREWELL 500.0 /* in which an open that was given up may still end by itself */

static __thread const bool *stop_flag; /* of the open that this thread is at; NULL: it cannot be given up */

bool gmsrt_may_stop(void)
{
    return stop_flag != NULL;
}

bool gmsrt_is_stopped(void)
{
    return stop_flag != NULL && __atomic_load_n(stop_flag, __ATOMIC_ACQUIRE);
}

/* An open on a thread of its own. The last of the two that leaves frees it. */
typedef struct job {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool stop;      /* atomic: the caller has given up */
    bool done;      /* the thread has ended its work */
    bool abandoned; /* the caller is gone */
    gmsrt_source source;
    gmsrt_cpu_options options;
    char *texts[3]; /* copies of path, openvino, cache */
    void *bytes;    /* a copy of a graph in memory */
    bool wants_runner;
    gmsrt_runner *runner;
    gmsrt_status status;
    char message[1024];
} job;

static gmsrt_cpu_options default_options(void)
{
    gmsrt_cpu_options options;

    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.precision = GMSRT_AS_BUILT;
    return options;
}

gmsrt_status gmsrt_cpu_options_init(gmsrt_cpu_options *options, size_t size)
{
    const gmsrt_cpu_options defaults = default_options();

    return gmsrt_struct_init(options, size, &defaults, sizeof defaults, "gmsrt_cpu_options");
}

static gmsrt_status check_options(const gmsrt_cpu_options *options)
{
    struct stat about;

    if (options->precision != GMSRT_F32 && options->precision != GMSRT_BF16 && options->precision != GMSRT_F16 &&
        options->precision != GMSRT_AS_BUILT)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT,
                          "precision %d is neither GMSRT_AS_BUILT nor GMSRT_F32 nor GMSRT_BF16 nor GMSRT_F16",
                          (int)options->precision);
    if (options->mode != GMSRT_LATENCY && options->mode != GMSRT_THROUGHPUT)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "mode %d is neither GMSRT_LATENCY nor GMSRT_THROUGHPUT",
                          (int)options->mode);
    if (options->lanes > GMSRT_MAX_LANES)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "%u lanes were asked for, at most %u can be open", options->lanes,
                          GMSRT_MAX_LANES);
    if (options->threads > 4096) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "%u threads are too many", options->threads);
    if (options->batch > GMSRT_MAX_BATCH)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "batch %u is too large, at most %u", options->batch, GMSRT_MAX_BATCH);
    if (options->trial != GMSRT_TRIAL_AUTO && options->trial != GMSRT_TRIAL_ALWAYS &&
        options->trial != GMSRT_TRIAL_NEVER)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT,
                          "trial %d is neither GMSRT_TRIAL_AUTO nor GMSRT_TRIAL_ALWAYS nor GMSRT_TRIAL_NEVER",
                          (int)options->trial);
    if (options->trial_seconds > 1000000)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "a trial of %u seconds is too long", options->trial_seconds);
    if (options->cache != NULL && (stat(options->cache, &about) != 0 || !S_ISDIR(about.st_mode)))
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "the cache %s is not a folder; create it", options->cache);
    return GMSRT_OK;
}

static void free_job(job *j)
{
    for (int i = 0; i < 3; i++) free(j->texts[i]);
    free(j->bytes);
    pthread_cond_destroy(&j->changed);
    pthread_mutex_destroy(&j->mutex);
    free(j);
}

static void *run_job(void *data)
{
    job *j = data;
    bool abandoned;

    stop_flag = &j->stop;
    j->status = gmsrt_cpu_open_now(&j->source, &j->options, j->wants_runner ? &j->runner : NULL);
    stop_flag = NULL;
    if (j->status != GMSRT_OK) gmsrt_copy_text(j->message, sizeof j->message, gmsrt_last_error());
    pthread_mutex_lock(&j->mutex);
    j->done = true;
    abandoned = j->abandoned;
    pthread_cond_signal(&j->changed);
    pthread_mutex_unlock(&j->mutex);
    if (abandoned) {
        gmsrt_log(GMSRT_LOG_INFO, "an open that was given up has ended and is released");
        gmsrt_close(j->runner);
        free_job(j);
    }
    return NULL;
}

/* Copy a text into the job; NULL stays NULL. */
static bool keep_text(job *j, int index, const char **text)
{
    if (*text == NULL) return true;
    j->texts[index] = malloc(strlen(*text) + 1);
    if (j->texts[index] == NULL) return false;
    *text = strcpy(j->texts[index], *text);
    return true;
}

static job *make_job(const gmsrt_source *source, const gmsrt_cpu_options *options, bool wants_runner)
{
    job *j = calloc(1, sizeof *j);
    bool good;

    if (j == NULL) return NULL;
    pthread_mutex_init(&j->mutex, NULL);
    gmsrt_condition_init(&j->changed);
    j->source = *source;
    j->options = *options;
    j->wants_runner = wants_runner;
    good =
        keep_text(j, 0, &j->source.path) && keep_text(j, 1, &j->options.openvino) && keep_text(j, 2, &j->options.cache);
    if (good && source->bytes != NULL) {
        j->bytes = malloc(source->size);
        good = j->bytes != NULL;
        if (good) j->source.bytes = memcpy(j->bytes, source->bytes, source->size);
    }
    if (good) return j;
    free_job(j);
    return NULL;
}

static bool start_thread(job *j)
{
    sigset_t all, before;
    pthread_t thread;
    bool started;

    sigfillset(&all); /* the program's signals are for its own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    started = pthread_create(&thread, NULL, run_job, j) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started) pthread_detach(thread);
    return started;
}

/* Wait for the job, the mutex held, at most so many milliseconds; whether it is done. */
static bool wait_for(job *j, double milliseconds)
{
    const struct timespec end = gmsrt_moment_after(milliseconds);

    if (!j->done) pthread_cond_timedwait(&j->changed, &j->mutex, &end);
    return j->done;
}

/* Wait until the job is done, or the caller or the time gives it up; a status other than OK then. An abandoned job is the
 * thread's own, and may be gone already. */
static gmsrt_status wait_or_stop(job *j, double began, bool *abandoned)
{
    const gmsrt_cpu_options *options = &j->options;
    gmsrt_status given_up = GMSRT_OK;

    pthread_mutex_lock(&j->mutex);
    while (!wait_for(j, STEP)) {
        pthread_mutex_unlock(&j->mutex); /* the callback may take its time */
        if (options->cancelled != NULL && options->cancelled(options->user) != 0) given_up = GMSRT_CANCELLED;
        if (options->timeout_ms > 0 && gmsrt_now() - began > options->timeout_ms) given_up = GMSRT_TIMED_OUT;
        pthread_mutex_lock(&j->mutex);
        if (given_up != GMSRT_OK) break;
    }
    if (given_up != GMSRT_OK) {
        const double end = gmsrt_now() + FAREWELL;

        __atomic_store_n(&j->stop, true, __ATOMIC_RELEASE);
        while (!j->done && gmsrt_now() < end) wait_for(j, STEP);
        j->abandoned = !j->done;
    }
    *abandoned = j->abandoned;
    pthread_mutex_unlock(&j->mutex);
    return given_up;
}

static gmsrt_status open_in_thread(const gmsrt_source *source, const gmsrt_cpu_options *options, gmsrt_runner **runner,
                                   double began)
{
    job *j = make_job(source, options, runner != NULL);
    gmsrt_status status, given_up;
    bool abandoned = false;

    if (j == NULL) return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory to open a graph");
    if (!start_thread(j)) {
        free_job(j);
        return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no thread to open a graph on");
    }
    given_up = wait_or_stop(j, began, &abandoned);
    if (given_up == GMSRT_CANCELLED)
        status = gmsrt_fail(given_up, "%s: opening it was cancelled", source->path);
    else if (given_up == GMSRT_TIMED_OUT)
        status = gmsrt_fail(given_up, "%s: opening it took longer than %u ms; raise timeout_ms", source->path,
                            options->timeout_ms);
    else if ((status = j->status) != GMSRT_OK)
        gmsrt_fail(status, "%s", j->message);
    if (abandoned) {
        gmsrt_log(GMSRT_LOG_WARNING, "%s was given up while OpenVINO was at work: it goes on until it is done",
                  source->path);
        return status;
    }
    if (status == GMSRT_OK && runner != NULL)
        *runner = j->runner;
    else
        gmsrt_close(j->runner);
    free_job(j);
    return status;
}

static gmsrt_status open_source(const gmsrt_source *source, const gmsrt_cpu_options *given, gmsrt_runner **runner)
{
    const double began = gmsrt_now();
    gmsrt_cpu_options options = default_options();
    gmsrt_status status = GMSRT_OK;

    if (given != NULL) status = gmsrt_struct_take(&options, sizeof options, given, "gmsrt_cpu_options");
    if (status == GMSRT_OK) status = check_options(&options);
    if (status != GMSRT_OK) return status;
    if (options.timeout_ms == 0 && options.cancelled == NULL) return gmsrt_cpu_open_now(source, &options, runner);
    return open_in_thread(source, &options, runner, began);
}

gmsrt_status gmsrt_open_cpu(const char *graph, const gmsrt_cpu_options *options, gmsrt_runner **runner)
{
    const gmsrt_source source = {graph, NULL, 0};

    if (runner != NULL) *runner = NULL;
    if (graph == NULL) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_open_cpu: a null pointer");
    return open_source(&source, options, runner);
}

gmsrt_status gmsrt_open_cpu_memory(const void *graph, size_t size, const gmsrt_cpu_options *options,
                                   gmsrt_runner **runner)
{
    const gmsrt_source source = {"the graph in memory", graph, size};

    if (runner != NULL) *runner = NULL;
    if (graph == NULL) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_open_cpu_memory: a null pointer");
    return open_source(&source, options, runner);
}
