/* One clock for all figures and for all limits of time. */
#include <time.h>

#include "internal.h"

double gmsrt_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

#if defined(__APPLE__) /* whose conditions know no other clock */
#define LIMITS CLOCK_REALTIME
#else
#define LIMITS CLOCK_MONOTONIC
#endif

int gmsrt_condition_init(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    int code = pthread_condattr_init(&attributes);

    if (code != 0) return code;
#if !defined(__APPLE__)
    code = pthread_condattr_setclock(&attributes, LIMITS);
#endif
    if (code == 0) code = pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
    return code;
}

struct timespec gmsrt_moment_after(double milliseconds)
{
    const time_t seconds = (time_t)(milliseconds / 1e3);
    struct timespec moment;

    clock_gettime(LIMITS, &moment);
    moment.tv_nsec += (long)((milliseconds - (double)seconds * 1e3) * 1e6);
    moment.tv_sec += seconds + moment.tv_nsec / 1000000000L;
    moment.tv_nsec %= 1000000000L;
    return moment;
}
