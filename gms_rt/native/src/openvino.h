/* What the CPU backend consists of, besides cpu.c. */
#ifndef GMSRT_OPENVINO_H
#define GMSRT_OPENVINO_H

#include "internal.h"
#include "openvino_api.h"

/* openvino.c: open the library, `path` as in gmsrt_cpu_options.openvino; it is never closed. */
gmsrt_status gmsrt_ov_load(const char *path, gmsrt_openvino *ov);
/* A failed OpenVINO call, with OpenVINO's own message. That one is per process, so under concurrent failures it may be
 * another thread's; the status and `what` are always this call's. */
gmsrt_status gmsrt_ov_failed(const gmsrt_openvino *ov, gmsrt_status status, int code, const char *what);

/* openvino_processor.c: what OpenVINO says about this CPU; what it does not tell is empty. */
void gmsrt_ov_describe(const gmsrt_openvino *ov, const ov_core_t *core, gmsrt_processor *about);

/* openvino_graph.c: check the contract of the graph, give a free batch dimension its size, fill in the shape. */
gmsrt_status gmsrt_ov_fit_model(const gmsrt_openvino *ov, const ov_core_t *core, const char *path, ov_model_t *model,
                                uint32_t wanted_batch, gmsrt_info *info);

/* cache.c: compiled graphs, kept from one open to the next. */
typedef struct gmsrt_cache {
    int folder; /* -1: nothing is looked up or kept */
    char key[65];
} gmsrt_cache;
/* The cache of the options, for this graph; `info` says what would run it here. Closed by gmsrt_cache_close. */
void gmsrt_cache_open(gmsrt_cache *cache, const char *path, gmsrt_files *files, const gmsrt_cpu_options *options,
                      const gmsrt_info *info, const char *abilities);
/* The compiled graph, and its shape in `info`; NULL if there is none that is whole. OpenVINO works on the weights in
 * `blob` for as long as the compiled graph and its requests live: free it after them. */
ov_compiled_model_t *gmsrt_cache_find(const gmsrt_cache *cache, const gmsrt_openvino *ov, const ov_core_t *core,
                                      gmsrt_info *info, void **blob);
/* Keep it if that can be done; that it cannot be is no failure. */
void gmsrt_cache_keep(const gmsrt_cache *cache, const gmsrt_openvino *ov, const ov_compiled_model_t *compiled,
                      const char *path, const gmsrt_files *files, const gmsrt_info *info);
void gmsrt_cache_close(gmsrt_cache *cache);

#endif
