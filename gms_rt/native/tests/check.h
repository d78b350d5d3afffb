/* The least a C test needs: a check that says where it failed, and a count for the end. */
#ifndef GMSRT_TEST_CHECK_H
#define GMSRT_TEST_CHECK_H

#include <stdio.h>
#include <stdlib.h>

static int checks_made;

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        __atomic_add_fetch(&checks_made, 1, __ATOMIC_RELAXED);                                                         \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s does not hold: ", __FILE__, __LINE__, #condition);                              \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fputc('\n', stderr);                                                                                       \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define CHECK_OK(call)                                                                                                 \
    do {                                                                                                               \
        const gmsrt_status check_status = (call);                                                                      \
        CHECK(check_status == GMSRT_OK, "%s, %s", gmsrt_status_name(check_status), gmsrt_last_error());                \
    } while (0)

static inline int checks_passed(const char *name)
{
    printf("%s: %d checks passed\n", name, checks_made);
    return 0;
}

#endif
