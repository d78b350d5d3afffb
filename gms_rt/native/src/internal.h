/* What the parts of the library share: the runner, the backend's hooks, lanes, errors, time. */
#ifndef GMSRT_INTERNAL_H
#define GMSRT_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>

#include "gms_rt.h"

#define GMSRT_MAX_LANES 64u
#define GMSRT_MAX_SIDE 32768u
#define GMSRT_MAX_BATCH 4096u
#define GMSRT_MAX_BYTES ((uint64_t)1 << 32) /* of one lane's images */

/* error.c: keep the message for this thread and return the status. */
gmsrt_status gmsrt_fail(gmsrt_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* While held, this thread keeps the message it has: clean-up after a failure must not hide the cause. */
void gmsrt_hold_error(bool held);
/* Copies with truncation at a whole character; control characters become spaces. */
void gmsrt_copy_text(char *to, size_t size, const char *from);

/* clock.c: milliseconds of a monotonic clock. */
double gmsrt_now(void);

/* graph_file.c: turn a file or engine folder into the path of a plausible ONNX file. `path` must be freed. */
gmsrt_status gmsrt_find_graph(const char *graph, char **path);

/* manifest.c: the path of an engine folder's graph, after its hashes were compared with engine.json. */
gmsrt_status gmsrt_graph_of_engine(const char *folder, char *path, size_t size);

/* sha256.c: of the rest of a file, in lower-case hex; false if it cannot be read. */
bool gmsrt_sha256(FILE *file, char hex[65]);

/* What a backend does for one lane. submit copies `count` (1..batch) images in and starts; finish waits and copies the
 * masks out. Between the two a lane is in flight. With alone the backend may run the inference within submit.
 * finish(masks = NULL) only waits. After a failed submit the lane is idle. */
typedef struct gmsrt_backend_hooks {
    gmsrt_status (*submit)(gmsrt_runner *runner, uint32_t lane, const uint8_t *images, size_t count, bool alone);
    gmsrt_status (*finish)(gmsrt_runner *runner, uint32_t lane, uint8_t *masks, size_t count, gmsrt_sample *sample);
    gmsrt_status (*enter)(gmsrt_runner *runner); /* may be NULL; before any submit on this thread */
    void (*leave)(gmsrt_runner *runner);
    void (*close)(gmsrt_runner *runner); /* frees `state` */
} gmsrt_backend_hooks;

struct gmsrt_runner {
    const gmsrt_backend_hooks *hooks;
    void *state;
    gmsrt_info info;
    /* lanes.c */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint32_t limit;   /* lanes in use */
    uint32_t held;    /* lanes taken */
    uint32_t waiting; /* calls that wait for all lanes */
    bool alone;       /* one call holds everything */
    bool busy[GMSRT_MAX_LANES];
};

/* runner.c: a runner around hooks and state; takes `state` only on success. */
gmsrt_status gmsrt_runner_create(const gmsrt_backend_hooks *hooks, void *state, const gmsrt_info *info,
                                 gmsrt_runner **runner);
bool gmsrt_shape_is_sane(uint64_t batch, uint64_t height, uint64_t width);

/* lanes.c: up to `wanted` lanes (at least one, waits for it); release gives them back. */
uint32_t gmsrt_lanes_take(gmsrt_runner *runner, uint64_t wanted, uint32_t *taken);
uint32_t gmsrt_lanes_take_all(gmsrt_runner *runner);
void gmsrt_lanes_give(gmsrt_runner *runner, const uint32_t *taken, uint32_t count);
void gmsrt_lanes_give_all(gmsrt_runner *runner);
uint32_t gmsrt_lanes_limit(gmsrt_runner *runner, uint32_t limit); /* 0: only read */

#endif
