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

/* openvino_graph.c: check the contract of the graph, give a free batch dimension its size, fill in the shape. */
gmsrt_status gmsrt_ov_fit_model(const gmsrt_openvino *ov, const ov_core_t *core, const char *path, ov_model_t *model,
                                uint32_t wanted_batch, gmsrt_info *info);

#endif
