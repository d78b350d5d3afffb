/* Who uses which lane: an infer call takes one lane, and more if they are free; a bench takes all of them.
 *
 * A call that holds a lane never waits for another, so calls cannot block each other for ever. A call that waits for
 * all lanes stops newcomers, so it cannot starve. */
#include "internal.h"

static uint32_t take_free(gmsrt_runner *runner, uint64_t wanted, uint32_t *taken)
{
    uint32_t count = 0;

    for (uint32_t lane = 0; lane < runner->limit && count < wanted; lane++) {
        if (!runner->busy[lane]) {
            runner->busy[lane] = true;
            taken[count++] = lane;
        }
    }
    runner->held += count;
    return count;
}

uint32_t gmsrt_lanes_take(gmsrt_runner *runner, uint64_t wanted, uint32_t *taken)
{
    uint32_t count = 0;

    pthread_mutex_lock(&runner->mutex);
    for (;;) {
        if (!runner->alone && runner->waiting == 0) count = take_free(runner, wanted > 0 ? wanted : 1, taken);
        if (count > 0) break;
        pthread_cond_wait(&runner->changed, &runner->mutex);
    }
    pthread_mutex_unlock(&runner->mutex);
    return count;
}

uint32_t gmsrt_lanes_take_all(gmsrt_runner *runner)
{
    uint32_t count;

    pthread_mutex_lock(&runner->mutex);
    runner->waiting++;
    while (runner->alone || runner->held > 0) pthread_cond_wait(&runner->changed, &runner->mutex);
    runner->waiting--;
    runner->alone = true;
    count = runner->limit;
    pthread_mutex_unlock(&runner->mutex);
    return count;
}

void gmsrt_lanes_give(gmsrt_runner *runner, const uint32_t *taken, uint32_t count)
{
    pthread_mutex_lock(&runner->mutex);
    for (uint32_t i = 0; i < count; i++) runner->busy[taken[i]] = false;
    runner->held -= count;
    pthread_cond_broadcast(&runner->changed);
    pthread_mutex_unlock(&runner->mutex);
}

void gmsrt_lanes_give_all(gmsrt_runner *runner)
{
    pthread_mutex_lock(&runner->mutex);
    runner->alone = false;
    pthread_cond_broadcast(&runner->changed);
    pthread_mutex_unlock(&runner->mutex);
}

uint32_t gmsrt_lanes_limit(gmsrt_runner *runner, uint32_t limit)
{
    pthread_mutex_lock(&runner->mutex);
    if (limit > 0) {
        runner->limit = limit;
        pthread_cond_broadcast(&runner->changed);
    }
    limit = runner->limit;
    pthread_mutex_unlock(&runner->mutex);
    return limit;
}
