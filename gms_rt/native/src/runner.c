/* The public calls on an opened runner: the same for every backend. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#ifndef GMSRT_VERSION
#define GMSRT_VERSION "0.1.0"
#endif

uint32_t gmsrt_abi_version(void)
{
    return GMSRT_ABI_VERSION;
}

const char *gmsrt_version(void)
{
    return GMSRT_VERSION;
}

bool gmsrt_shape_is_sane(uint64_t batch, uint64_t height, uint64_t width)
{
    return batch >= 1 && batch <= GMSRT_MAX_BATCH && height >= 1 && height <= GMSRT_MAX_SIDE && width >= 1 &&
           width <= GMSRT_MAX_SIDE && batch * height * width * 3 <= GMSRT_MAX_BYTES;
}

gmsrt_status gmsrt_runner_create(const gmsrt_backend_hooks *hooks, void *state, const gmsrt_info *info,
                                 gmsrt_runner **runner)
{
    gmsrt_runner *made = calloc(1, sizeof *made);

    if (made == NULL) return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for a runner");
    if (pthread_mutex_init(&made->mutex, NULL) != 0) {
        free(made);
        return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for a lock");
    }
    if (pthread_cond_init(&made->changed, NULL) != 0) {
        pthread_mutex_destroy(&made->mutex);
        free(made);
        return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for a lock");
    }
    made->hooks = hooks;
    made->state = state;
    made->info = *info;
    made->limit = info->lanes;
    *runner = made;
    return GMSRT_OK;
}

void gmsrt_close(gmsrt_runner *runner)
{
    if (runner == NULL) return;
    if (gmsrt_async_is_calling(runner->async)) { /* the thread would wait for its own end */
        gmsrt_log(GMSRT_LOG_WARNING, "gmsrt_close was called by a callback of the same runner: it stays open");
        return;
    }
    gmsrt_async_stop(runner->async);
    runner->hooks->close(runner);
    pthread_cond_destroy(&runner->changed);
    pthread_mutex_destroy(&runner->mutex);
    free(runner);
}

gmsrt_status gmsrt_get_info(const gmsrt_runner *runner, gmsrt_info *info, size_t size)
{
    const gmsrt_layout layout = {sizeof *info, offsetof(gmsrt_info, execution),
                                 offsetof(gmsrt_info, notice) + sizeof info->notice};
    gmsrt_info found;
    gmsrt_status status;

    if (runner == NULL) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_get_info: a null pointer");
    if ((status = gmsrt_struct_room(info, size, "gmsrt_info")) != GMSRT_OK) return status;
    found = runner->info;
    found.used_lanes = gmsrt_lanes_limit((gmsrt_runner *)runner, 0);
    gmsrt_struct_give(info, size, &found, layout);
    return GMSRT_OK;
}

gmsrt_status gmsrt_set_lanes(gmsrt_runner *runner, uint32_t lanes)
{
    if (runner == NULL) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_set_lanes: a null pointer");
    if (lanes < 1 || lanes > runner->info.lanes)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "%u lanes were asked for, %u are open; give 1 to %u", lanes,
                          runner->info.lanes, runner->info.lanes);
    gmsrt_lanes_limit(runner, lanes);
    return GMSRT_OK;
}

static gmsrt_status enter(gmsrt_runner *runner)
{
    return runner->hooks->enter != NULL ? runner->hooks->enter(runner) : GMSRT_OK;
}

static void leave(gmsrt_runner *runner)
{
    if (runner->hooks->leave != NULL) runner->hooks->leave(runner);
}

/* Batches go to the lanes in turn; a lane's former batch is finished before it gets the next. */
static gmsrt_status infer_on(gmsrt_runner *runner, const uint32_t *lanes, uint32_t lane_count, const uint8_t *images,
                             size_t count, uint8_t *masks)
{
    const size_t batch = runner->info.batch;
    const size_t pixels = (size_t)runner->info.height * runner->info.width;
    const size_t steps = (count + batch - 1) / batch;
    size_t submitted = 0, finished = 0;
    gmsrt_status status = GMSRT_OK;

    while (finished < steps) {
        const bool room = status == GMSRT_OK && submitted < steps && submitted - finished < lane_count;

        if (room) {
            const size_t first = submitted * batch;
            const size_t many = count - first < batch ? count - first : batch;

            status = runner->hooks->submit(runner, lanes[submitted % lane_count], images + first * pixels * 3, many,
                                           lane_count == 1);
            if (status == GMSRT_OK) submitted++;
            gmsrt_hold_error(status != GMSRT_OK);
        } else if (finished < submitted) {
            const size_t first = finished * batch;
            const size_t many = count - first < batch ? count - first : batch;
            /* After a failure the others are only waited for, and the first message is the one to keep. */
            uint8_t *target = status == GMSRT_OK ? masks + first * pixels : NULL;
            const gmsrt_status ended = runner->hooks->finish(runner, lanes[finished % lane_count], target, many, NULL);

            if (status == GMSRT_OK) status = ended;
            gmsrt_hold_error(status != GMSRT_OK);
            finished++;
        } else {
            break; /* failed and nothing in flight */
        }
    }
    gmsrt_hold_error(false);
    return status;
}

gmsrt_status gmsrt_infer(gmsrt_runner *runner, const uint8_t *images, size_t count, uint8_t *masks)
{
    uint32_t lanes[GMSRT_MAX_LANES];
    uint32_t lane_count;
    gmsrt_status status;

    if (runner == NULL || ((images == NULL || masks == NULL) && count > 0))
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_infer: a null pointer");
    if (count == 0) return GMSRT_OK;
    if (count > SIZE_MAX / 3 / runner->info.height / runner->info.width - runner->info.batch)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "%zu images do not fit into memory", count);
    lane_count = gmsrt_lanes_take(runner, (count + runner->info.batch - 1) / runner->info.batch, lanes);
    status = enter(runner);
    if (status == GMSRT_OK) {
        status = infer_on(runner, lanes, lane_count, images, count, masks);
        leave(runner);
    }
    gmsrt_lanes_give(runner, lanes, lane_count);
    return status;
}

/* Inferences over a ring of whole batches until the time and the count are reached. samples may be NULL. */
static gmsrt_status bench_on(gmsrt_runner *runner, uint32_t lane_count, const uint8_t *ring, size_t ring_batches,
                             double seconds, size_t iterations, gmsrt_sample *samples, size_t capacity, size_t *done,
                             double *wall_seconds)
{
    const size_t batch = runner->info.batch;
    const size_t pixels = (size_t)runner->info.height * runner->info.width;
    const double start = gmsrt_now();
    size_t submitted = 0, finished = 0;
    bool stop = false;
    gmsrt_status status = GMSRT_OK;

    *done = 0;
    for (;;) {
        if (!stop && status == GMSRT_OK && submitted - finished < lane_count) {
            stop = submitted >= capacity || (submitted >= iterations && gmsrt_now() - start >= seconds * 1e3);
            if (!stop) {
                const uint8_t *images = ring + (submitted % ring_batches) * batch * pixels * 3;

                status =
                    runner->hooks->submit(runner, (uint32_t)(submitted % lane_count), images, batch, lane_count == 1);
                if (status == GMSRT_OK) submitted++;
                gmsrt_hold_error(status != GMSRT_OK);
            }
        } else if (finished < submitted) {
            gmsrt_sample sample;
            uint8_t *masks = (uint8_t *)ring + ring_batches * batch * pixels * 3;
            const gmsrt_status ended = runner->hooks->finish(runner, (uint32_t)(finished % lane_count),
                                                             status == GMSRT_OK ? masks : NULL, batch, &sample);

            if (status == GMSRT_OK) status = ended;
            gmsrt_hold_error(status != GMSRT_OK);
            if (status == GMSRT_OK) {
                if (samples != NULL) samples[finished] = sample;
                *done = finished + 1;
            }
            finished++;
        } else {
            break;
        }
    }
    gmsrt_hold_error(false);
    *wall_seconds = (gmsrt_now() - start) * 1e-3;
    return status;
}

gmsrt_status gmsrt_bench_options_init(gmsrt_bench_options *options, size_t size)
{
    const gmsrt_bench_options defaults = {sizeof defaults, 0.0, 0.0, 1};

    return gmsrt_struct_init(options, size, &defaults, sizeof defaults, "gmsrt_bench_options");
}

static gmsrt_status bench(gmsrt_runner *runner, const uint8_t *images, size_t count, const gmsrt_bench_options *given,
                          gmsrt_sample *samples, size_t capacity, gmsrt_bench_result *result)
{
    size_t image_bytes, ring_batches, ring_images, ignored;
    gmsrt_bench_options taken = {sizeof taken, 0.0, 0.0, 1};
    const gmsrt_bench_options *options = &taken;
    uint8_t *ring;
    uint32_t lane_count;
    gmsrt_status status;

    if (runner == NULL || images == NULL || given == NULL || samples == NULL)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_bench: a null pointer");
    if ((status = gmsrt_struct_take(&taken, sizeof taken, given, "gmsrt_bench_options")) != GMSRT_OK) return status;
    if (count == 0 || capacity == 0)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_bench: needs at least one image and room for one sample");
    /* Written so that a NaN is refused too. */
    if (!(options->seconds >= 0 && options->seconds <= 1e9 && options->warmup_seconds >= 0 &&
          options->warmup_seconds <= 1e9))
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_bench: times must be between 0 and 1e9 seconds");
    image_bytes = (size_t)runner->info.height * runner->info.width * 3;
    if (count > SIZE_MAX / 2 / image_bytes - runner->info.batch)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "%zu images do not fit into memory", count);

    /* Whole batches, so that every timed copy is of full size; room for one batch of masks behind them. */
    ring_batches = (count + runner->info.batch - 1) / runner->info.batch;
    ring_images = ring_batches * runner->info.batch;
    ring = malloc(ring_images * image_bytes + runner->info.batch * image_bytes / 3);
    if (ring == NULL) return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory for %zu images", ring_images);
    for (size_t i = 0; i < ring_images; i++)
        memcpy(ring + i * image_bytes, images + (i % count) * image_bytes, image_bytes);

    lane_count = gmsrt_lanes_take_all(runner);
    status = enter(runner);
    if (status == GMSRT_OK) {
        if (options->warmup_seconds > 0)
            status = bench_on(runner, lane_count, ring, ring_batches, options->warmup_seconds, lane_count, NULL,
                              SIZE_MAX, &ignored, &result->warmup_seconds);
        if (status == GMSRT_OK)
            status = bench_on(runner, lane_count, ring, ring_batches, options->seconds,
                              options->iterations > 0 ? options->iterations : 1, samples, capacity, &result->samples,
                              &result->wall_seconds);
        leave(runner);
    }
    gmsrt_lanes_give_all(runner);
    free(ring);
    result->lanes = lane_count;
    result->batch = runner->info.batch;
    return status;
}

gmsrt_status gmsrt_bench(gmsrt_runner *runner, const uint8_t *images, size_t count, const gmsrt_bench_options *options,
                         gmsrt_sample *samples, size_t capacity, gmsrt_bench_result *result, size_t size)
{
    const gmsrt_layout layout = {sizeof *result, 0, 0};
    gmsrt_bench_result found;
    gmsrt_status status = gmsrt_struct_room(result, size, "gmsrt_bench_result");

    if (status != GMSRT_OK) return status;
    memset(&found, 0, sizeof found);
    status = bench(runner, images, count, options, samples, capacity, &found);
    gmsrt_struct_give(result, size, &found, layout);
    return status;
}
