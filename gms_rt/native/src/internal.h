/* What the parts of the library share: the runner, the backend's hooks, lanes, errors, time. */
#ifndef GMSRT_INTERNAL_H
#define GMSRT_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#include "gms_rt.h"

#define GMSRT_MAX_LANES 64u
#define GMSRT_MAX_SIDE 32768u
#define GMSRT_MAX_BATCH 4096u
#define GMSRT_MAX_BYTES ((uint64_t)1 << 32) /* of one lane's images */

/* log.c: tell the program's log, if it has one, what a status does not say. */
void gmsrt_log(gmsrt_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* cpu_open.c: whether the open that this thread is at can be given up, and whether it was. */
bool gmsrt_may_stop(void);
bool gmsrt_is_stopped(void);

/* error.c: keep the message for this thread and return the status. */
gmsrt_status gmsrt_fail(gmsrt_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* While held, this thread keeps the message it has: clean-up after a failure must not hide the cause. */
void gmsrt_hold_error(bool held);
/* Copies with truncation at a whole character; control characters become spaces. */
void gmsrt_copy_text(char *to, size_t size, const char *from);

/* structs.c: structures of the header as a program of another version has them. `name` is the type's.
 * init: fill the caller's options with defaults. take: the caller's options over the defaults that `to` has; nothing
 * behind their size is read. room: whether a result may be written. give: write it, at most `size` bytes. */
typedef struct gmsrt_layout {
    size_t size;           /* of the structure in this library */
    size_t text, text_end; /* where its texts begin and end */
} gmsrt_layout;
gmsrt_status gmsrt_struct_init(void *to, size_t size, const void *defaults, size_t known, const char *name);
gmsrt_status gmsrt_struct_take(void *to, size_t known, const void *from, const char *name);
gmsrt_status gmsrt_struct_room(const void *to, size_t size, const char *name);
void gmsrt_struct_give(void *to, size_t size, const void *from, gmsrt_layout layout);

/* environment.c: a variable's value; NULL where it is unset or empty, or must not be followed (a setuid program). */
const char *gmsrt_environment(const char *name);

/* clock.c: milliseconds of a monotonic clock; a condition whose timed waits follow one, where the system has that; and
 * the moment in so many milliseconds that such a wait ends at. */
double gmsrt_now(void);
int gmsrt_condition_init(pthread_cond_t *condition);
struct timespec gmsrt_moment_after(double milliseconds);

/* sha256.c: of bytes in pieces, and of the rest of a file (false if it cannot be read); lower-case hex. */
typedef struct gmsrt_sha256_state {
    uint32_t words[8];
    uint8_t block[64];
    uint64_t total;
} gmsrt_sha256_state;
void gmsrt_sha256_start(gmsrt_sha256_state *sum);
void gmsrt_sha256_add(gmsrt_sha256_state *sum, const void *data, size_t size);
void gmsrt_sha256_end(gmsrt_sha256_state *sum, char hex[65]);
bool gmsrt_sha256(FILE *file, char hex[65]);
/* Blocks of 64 bytes: in plain C, and with the processor's instructions (sha256_x86.c, sha256_arm.c), only where it has them. */
extern const uint32_t gmsrt_sha256_constants[64];
void gmsrt_sha256_plain(uint32_t state[8], const uint8_t *data, size_t blocks);
bool gmsrt_sha256_has_fast(void);
void gmsrt_sha256_fast(uint32_t state[8], const uint8_t *data, size_t blocks);

/* files.c: the files of a graph, named as seen from its folder; the graph first, then its outside weights by name. */
#define GMSRT_MAX_FILE_NAME 512u
struct stat;
typedef struct gmsrt_file {
    char name[GMSRT_MAX_FILE_NAME];
    char hex[65]; /* SHA-256; "": not known yet */
    bool seen;    /* what follows is known: a file that differs in any of it was changed or replaced */
    uint64_t device, inode, size;
    int64_t written[2], touched[2]; /* seconds and nanoseconds */
} gmsrt_file;
typedef struct gmsrt_files {
    gmsrt_file *items;
    size_t count, room;
    const char *bytes; /* of a graph in memory, which has no file; NULL: they are on the disk */
    size_t size;
} gmsrt_files;
bool gmsrt_files_has(const gmsrt_files *files, const char *name);
/* The file of this name, added if it is not there. NULL: no memory, or the name is too long. */
gmsrt_file *gmsrt_files_add(gmsrt_files *files, const char *name, size_t length);
/* Note which file on the disk this is; false if another one was noted before. */
bool gmsrt_file_see(gmsrt_file *file, const struct stat *about);
/* Read the file's hash; false with errno, ESTALE for a file that is not the one seen before. */
bool gmsrt_file_hash(gmsrt_file *file, const char *path);
/* Read the files whose hash is not known. */
gmsrt_status gmsrt_files_hash(gmsrt_files *files, const char *graph);
/* Fail if one of the files is no longer the one that was seen: what was read or tried is not what is there now. */
gmsrt_status gmsrt_files_same(const gmsrt_files *files, const char *graph);
void gmsrt_files_free(gmsrt_files *files);

/* What an engine was built for; f32 and no more for a file. */
typedef struct gmsrt_built {
    gmsrt_precision precision;
    bool falls_back; /* it may run in f32 on a CPU without that arithmetic: f16 always, bf16 if engine.json says so */
} gmsrt_built;

/* graph_file.c: turn a file or engine folder into the path of a graph's file, and list its files; those of an
 * engine folder have their hashes. `path` and `files` must be freed, also after a failure. */
gmsrt_status gmsrt_find_graph(const char *graph, char **path, gmsrt_files *files, gmsrt_built *built);
/* The same for a graph in memory, all of whose weights are in it; `name` is what messages call it. */
gmsrt_status gmsrt_take_graph(const char *name, const void *bytes, size_t size, char **path, gmsrt_files *files,
                              gmsrt_built *built);

/* manifest.c: the path of an engine folder's graph, and its files, after their hashes were compared with engine.json. */
gmsrt_status gmsrt_graph_of_engine(const char *folder, char *path, size_t size, gmsrt_files *files, gmsrt_built *built);

/* onnx_file.c: whether it is an ONNX file, or ONNX in memory where `files` says so; the files with its outside weights
 * are added to `files`. */
gmsrt_status gmsrt_read_onnx(const char *path, gmsrt_files *files);

/* ir_file.c: whether a path names a graph in OpenVINO's own form, the path of its constants (false: too long), and
 * whether it is one; the file of its constants is added to `files`. */
bool gmsrt_is_ir(const char *path);
bool gmsrt_ir_constants(const char *path, char *found, size_t size);
gmsrt_status gmsrt_read_ir(const char *path, gmsrt_files *files);

/* trial.c: run the graph once in a process of its own, unless it is remembered that this was done. `openvino` is the
 * file of the library, `runtime` and `device` are what would run the graph here. */
gmsrt_status gmsrt_try_graph(const char *path, gmsrt_files *files, const gmsrt_cpu_options *options,
                             const char *openvino, const char *runtime, const char *device);

/* tried.c: graphs that passed their trial, by a key; nothing is remembered where there is no safe place for it. */
bool gmsrt_was_tried(const char *key);
bool gmsrt_remember_tried(const char *key);
/* Whether an opened file or folder is this user's, and nobody else may write to it. */
bool gmsrt_is_own(int file);

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

/* async.c: the queue of a runner and its threads; NULL: nothing was submitted. stop waits for what was. */
typedef struct gmsrt_async gmsrt_async;
void gmsrt_async_stop(gmsrt_async *async);
bool gmsrt_async_is_calling(const gmsrt_async *async); /* whether this thread is in one of its callbacks */

struct gmsrt_runner {
    const gmsrt_backend_hooks *hooks;
    void *state;
    gmsrt_info info;
    gmsrt_async *async; /* guarded by the mutex */
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
