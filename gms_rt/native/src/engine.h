/* An engine folder as the parts of the library see it. */
#ifndef GMSRT_ENGINE_H
#define GMSRT_ENGINE_H

#include "internal.h"
#include "json.h"

struct gmsrt_engine {
    char *folder;
    gmsrt_json *manifest;
    const gmsrt_json *files, *plans, *classes, *targets; /* of the manifest */
    uint32_t ways;                                       /* plans, and the CPU's graph */
    uint32_t plan_count;
    gmsrt_engine_info info;
    char sha256[65], certificate_sha256[65];
};

/* engine_file.c: the bytes of a regular file, at most `most` of them, with a zero byte behind them; hashed as they are
 * given. *bytes is NULL after a failure. */
gmsrt_status gmsrt_read_file(const char *path, size_t most, char **bytes, size_t *size, char hex[65]);

/* engine_manifest.c: whether the manifest is one, and what it says. */
gmsrt_status gmsrt_engine_check(gmsrt_engine *engine);
/* A plain file name of printable characters. */
bool gmsrt_is_plain_name(const char *name);

/* engine_plan.c: which target a name stands for; -1: none. */
gmsrt_target gmsrt_target_of(const char *name);

/* trust.c: whether this user's builds made the plan with this hash; `why` says what is in the way. */
bool gmsrt_is_own_plan(const char *sha256, char *why, size_t size);

#endif
