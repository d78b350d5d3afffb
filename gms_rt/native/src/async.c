/* Inferences that the caller does not wait for: submitted to a queue, run by one thread for each lane.
 *
 * Jobs, their messages and the threads are made by the first submit of a runner; after that nothing is allocated. A job
 * is named by its place and how often that was used, so an old ticket is never taken for a newer job. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define MESSAGE_SIZE 1024

typedef enum job_state { FREE, QUEUED, RUNNING, DONE } job_state;

typedef struct job {
    job_state state;
    uint64_t uses; /* of this place */
    const uint8_t *images;
    size_t count;
    uint8_t *masks;
    gmsrt_done done;
    void *user;
    bool wanted; /* somebody has its ticket */
    gmsrt_status status;
    char message[MESSAGE_SIZE]; /* of a failure */
} job;

struct gmsrt_async {
    gmsrt_runner *runner;
    pthread_mutex_t mutex;
    pthread_cond_t work, changed; /* for the threads; for those who wait */
    bool stopping;
    uint32_t queue[GMSRT_MAX_JOBS]; /* places of jobs in their order */
    uint32_t first, queued;
    uint32_t thread_count;
    pthread_t threads[GMSRT_MAX_LANES];
    job jobs[GMSRT_MAX_JOBS];
};

static __thread const gmsrt_async *calling; /* whose callback this thread is in */

bool gmsrt_async_is_calling(const gmsrt_async *async)
{
    return async != NULL && calling == async;
}

/* Run the job with the lock given up; the lock is held again at the end. */
static void run_job(gmsrt_async *async, job *current)
{
    gmsrt_status status;

    pthread_mutex_unlock(&async->mutex);
    status = gmsrt_infer(async->runner, current->images, current->count, current->masks);
    current->message[0] = '\0';
    if (status != GMSRT_OK) gmsrt_copy_text(current->message, sizeof current->message, gmsrt_last_error());
    if (current->done != NULL) {
        calling = async;
        current->done(current->user, status, current->message);
        calling = NULL;
    }
    pthread_mutex_lock(&async->mutex);
    current->status = status;
    current->state = current->wanted ? DONE : FREE;
    pthread_cond_broadcast(&async->changed);
}

static void *work(void *argument)
{
    gmsrt_async *async = argument;

    pthread_mutex_lock(&async->mutex);
    for (;;) {
        job *next;

        while (async->queued == 0 && !async->stopping) pthread_cond_wait(&async->work, &async->mutex);
        if (async->queued == 0) break; /* what was submitted is still run before the end */
        next = &async->jobs[async->queue[async->first]];
        async->first = (async->first + 1) % GMSRT_MAX_JOBS;
        async->queued--;
        next->state = RUNNING;
        run_job(async, next);
    }
    pthread_mutex_unlock(&async->mutex);
    return NULL;
}

void gmsrt_async_stop(gmsrt_async *async)
{
    if (async == NULL) return;
    pthread_mutex_lock(&async->mutex);
    async->stopping = true;
    pthread_cond_broadcast(&async->work);
    pthread_mutex_unlock(&async->mutex);
    for (uint32_t i = 0; i < async->thread_count; i++) pthread_join(async->threads[i], NULL);
    pthread_cond_destroy(&async->changed);
    pthread_cond_destroy(&async->work);
    pthread_mutex_destroy(&async->mutex);
    free(async);
}

/* The threads see none of the host's signals: its handlers run in threads that it knows. */
static gmsrt_status start_threads(gmsrt_async *async)
{
    const uint32_t wanted = async->runner->info.lanes;
    sigset_t all, before;
    int code = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (async->thread_count < wanted && code == 0) {
        code = pthread_create(&async->threads[async->thread_count], NULL, work, async);
        if (code == 0) async->thread_count++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (async->thread_count > 0) return GMSRT_OK; /* fewer threads than lanes are slower, no more */
    return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no thread for asynchronous inferences: %s", strerror(code));
}

static gmsrt_status make_async(gmsrt_runner *runner, gmsrt_async **made)
{
    gmsrt_async *async = calloc(1, sizeof *async);
    gmsrt_status status;

    if (async == NULL) return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for asynchronous inferences");
    async->runner = runner;
    if (pthread_mutex_init(&async->mutex, NULL) != 0) {
        free(async);
        return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for a lock");
    }
    if (pthread_cond_init(&async->work, NULL) != 0) {
        pthread_mutex_destroy(&async->mutex);
        free(async);
        return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for a lock");
    }
    if (gmsrt_condition_init(&async->changed) != 0) {
        pthread_cond_destroy(&async->work);
        pthread_mutex_destroy(&async->mutex);
        free(async);
        return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for a lock");
    }
    if ((status = start_threads(async)) != GMSRT_OK) {
        gmsrt_async_stop(async);
        return status;
    }
    *made = async;
    return GMSRT_OK;
}

static gmsrt_status async_of(gmsrt_runner *runner, gmsrt_async **async)
{
    gmsrt_status status = GMSRT_OK;

    pthread_mutex_lock(&runner->mutex);
    if (runner->async == NULL) status = make_async(runner, &runner->async);
    *async = runner->async;
    pthread_mutex_unlock(&runner->mutex);
    return status;
}

static gmsrt_ticket ticket_of(uint32_t place, uint64_t uses)
{
    return uses * GMSRT_MAX_JOBS + place + 1; /* never 0 */
}

gmsrt_status gmsrt_submit(gmsrt_runner *runner, const uint8_t *images, size_t count, uint8_t *masks, gmsrt_done done,
                          void *user, gmsrt_ticket *ticket)
{
    gmsrt_async *async;
    gmsrt_status status;
    uint32_t place = 0;
    job *next;

    if (ticket != NULL) *ticket = 0;
    if (runner == NULL || images == NULL || masks == NULL || count == 0)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_submit: a null pointer, or no image");
    if (done == NULL && ticket == NULL)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_submit: give a callback or room for a ticket, or both");
    if ((status = async_of(runner, &async)) != GMSRT_OK) return status;
    pthread_mutex_lock(&async->mutex);
    if (async->stopping) { /* a callback that submits the next one each time would keep it open for ever */
        pthread_mutex_unlock(&async->mutex);
        return gmsrt_fail(GMSRT_CANCELLED, "the runner is being closed: nothing more can be submitted");
    }
    while (place < GMSRT_MAX_JOBS && async->jobs[place].state != FREE) place++;
    if (place == GMSRT_MAX_JOBS) {
        pthread_mutex_unlock(&async->mutex);
        return gmsrt_fail(GMSRT_BUSY, "%u inferences are submitted and not yet done or waited for", GMSRT_MAX_JOBS);
    }
    next = &async->jobs[place];
    next->state = QUEUED;
    next->uses++;
    next->images = images;
    next->count = count;
    next->masks = masks;
    next->done = done;
    next->user = user;
    next->wanted = ticket != NULL;
    if (ticket != NULL) *ticket = ticket_of(place, next->uses);
    async->queue[(async->first + async->queued++) % GMSRT_MAX_JOBS] = place;
    pthread_cond_signal(&async->work);
    pthread_mutex_unlock(&async->mutex);
    return GMSRT_OK;
}

gmsrt_status gmsrt_wait(gmsrt_runner *runner, gmsrt_ticket ticket, int64_t milliseconds)
{
    const uint32_t place = (uint32_t)((ticket - 1) % GMSRT_MAX_JOBS);
    const int64_t limit = milliseconds < 0 ? 0 : milliseconds > INT32_MAX ? INT32_MAX : milliseconds; /* 24 days */
    const struct timespec end = gmsrt_moment_after((double)limit);
    bool late = milliseconds == 0;
    char message[MESSAGE_SIZE] = "";
    gmsrt_async *async;
    gmsrt_status status;
    job *of;

    if (runner == NULL) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_wait: a null pointer");
    pthread_mutex_lock(&runner->mutex);
    async = runner->async;
    pthread_mutex_unlock(&runner->mutex);
    if (ticket == 0 || async == NULL)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_wait: this runner has given no such ticket");
    if (gmsrt_async_is_calling(async)) /* it would wait for itself, or hold up what it waits for */
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_wait was called by a callback of the same runner");
    of = &async->jobs[place];
    pthread_mutex_lock(&async->mutex);
    for (;;) {
        if (of->state == FREE || !of->wanted || ticket_of(place, of->uses) != ticket) {
            pthread_mutex_unlock(&async->mutex);
            return gmsrt_fail(GMSRT_INVALID_ARGUMENT,
                              "gmsrt_wait: this runner has given no such ticket, or it was waited for before");
        }
        if (of->state == DONE) break;
        if (late) {
            pthread_mutex_unlock(&async->mutex);
            return gmsrt_fail(GMSRT_TIMED_OUT, "the inference was not done within %lld ms; it goes on",
                              (long long)milliseconds);
        }
        if (milliseconds < 0)
            pthread_cond_wait(&async->changed, &async->mutex);
        else
            late = pthread_cond_timedwait(&async->changed, &async->mutex, &end) == ETIMEDOUT;
    }
    status = of->status;
    if (status != GMSRT_OK) memcpy(message, of->message, sizeof message);
    of->state = FREE;
    pthread_mutex_unlock(&async->mutex);
    return status == GMSRT_OK ? GMSRT_OK : gmsrt_fail(status, "%s", message);
}
