/* What the CPU backend's two parts share: cpu_open.c takes the options, cpu.c opens and runs. */
#ifndef GMSRT_CPU_H
#define GMSRT_CPU_H

#include "internal.h"

/* A graph: a file or an engine folder, or bytes, which then have a name for messages. */
typedef struct gmsrt_source {
    const char *path;
    const void *bytes; /* NULL: `path` is a file or a folder */
    size_t size;
} gmsrt_source;

/* cpu.c: open it on this thread; the options are whole and valid. Without a `runner` it is only tried. */
gmsrt_status gmsrt_cpu_open_now(const gmsrt_source *source, const gmsrt_cpu_options *options, gmsrt_runner **runner);

#endif
