/* What the fake runtimes share: every call is recorded, one call can be made to fail, mistakes of the caller are kept.
 *
 * Included by each fake, so that each library has its own record. The control functions are exported under a prefix. */
#ifndef GMSRT_TEST_FAKE_H
#define GMSRT_TEST_FAKE_H

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FAKE_API __attribute__((visibility("default")))
#define FAKE_LOG 4096

static pthread_mutex_t fake_mutex = PTHREAD_MUTEX_INITIALIZER;
static const char *fake_log[FAKE_LOG];
static int fake_call_count;
static int fake_failing_call; /* from 1; 0: none */
static int fake_failing_code;
static int fake_later_code; /* what all calls after the failing one answer; 0: they work */
static int fake_live;       /* objects made and not yet freed */
static char fake_first_mistake[256];

/* Record a call under the lock; the code it shall fail with, or 0. */
static int fake_enter(const char *name)
{
    pthread_mutex_lock(&fake_mutex);
    if (fake_call_count < FAKE_LOG) fake_log[fake_call_count] = name;
    fake_call_count++;
    if (fake_failing_call == 0 || fake_call_count < fake_failing_call) return 0;
    return fake_call_count == fake_failing_call ? fake_failing_code : fake_later_code;
}

static int fake_leave(int code)
{
    pthread_mutex_unlock(&fake_mutex);
    return code;
}

/* Long enough for another thread to come between. */
static void fake_pause(void)
{
    const struct timespec moment = {0, 20000};

    nanosleep(&moment, NULL);
}

/* A misuse that a real runtime might punish with undefined behaviour. */
static int fake_mistake(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int fake_mistake(const char *format, ...)
{
    if (fake_first_mistake[0] == '\0') {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(fake_first_mistake, sizeof fake_first_mistake, format, arguments);
        va_end(arguments);
    }
    return 1;
}

static void fake_reset_record(void)
{
    fake_call_count = 0;
    fake_failing_call = 0;
    fake_failing_code = fake_later_code = 0;
    fake_first_mistake[0] = '\0';
}

#define FAKE_CONTROLS(prefix)                                                                                          \
    FAKE_API int prefix##_calls(void);                                                                                 \
    FAKE_API const char *prefix##_call(int index);                                                                     \
    FAKE_API const char *prefix##_mistake(void);                                                                       \
    FAKE_API int prefix##_live(void);                                                                                  \
    FAKE_API void prefix##_fail(int call, int code);                                                                   \
    FAKE_API void prefix##_fail_later(int code);                                                                       \
    FAKE_API void prefix##_reset(void);                                                                                \
    int prefix##_calls(void)                                                                                           \
    {                                                                                                                  \
        pthread_mutex_lock(&fake_mutex);                                                                               \
        return fake_leave(fake_call_count);                                                                            \
    }                                                                                                                  \
    const char *prefix##_call(int index)                                                                               \
    {                                                                                                                  \
        return index >= 0 && index < fake_call_count && index < FAKE_LOG ? fake_log[index] : "";                       \
    }                                                                                                                  \
    const char *prefix##_mistake(void)                                                                                 \
    {                                                                                                                  \
        return fake_first_mistake;                                                                                     \
    }                                                                                                                  \
    int prefix##_live(void)                                                                                            \
    {                                                                                                                  \
        pthread_mutex_lock(&fake_mutex);                                                                               \
        return fake_leave(fake_live);                                                                                  \
    }                                                                                                                  \
    /* After the failing call, all others fail, too, with this code. */                                                \
    void prefix##_fail_later(int code)                                                                                 \
    {                                                                                                                  \
        pthread_mutex_lock(&fake_mutex);                                                                               \
        fake_later_code = code;                                                                                        \
        fake_leave(0);                                                                                                 \
    }                                                                                                                  \
    /* Fail the call-th call from now (1 is the next one). */                                                          \
    void prefix##_fail(int call, int code)                                                                             \
    {                                                                                                                  \
        pthread_mutex_lock(&fake_mutex);                                                                               \
        fake_failing_call = call > 0 ? fake_call_count + call : 0;                                                     \
        fake_failing_code = code;                                                                                      \
        fake_leave(0);                                                                                                 \
    }

#endif
