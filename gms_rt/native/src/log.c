/* What happens in the library, for the program's own log. One callback for the process; a program that sets none pays for
 * one read of a pointer.
 *
 * Calls share the lock, so messages of several threads do not wait for each other; a change waits for calls under way, so
 * the old callback is not running any more when gmsrt_set_log returns. */
#include <stdarg.h>

#include "internal.h"

static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static gmsrt_log_callback callback; /* read without the lock only to see that there is none */
static void *callback_user;
static __thread bool inside; /* this thread is in the callback */

gmsrt_status gmsrt_set_log(gmsrt_log_callback called, void *user)
{
    if (inside) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_set_log was called by the log's own callback");
    pthread_rwlock_wrlock(&lock);
    __atomic_store_n(&callback, called, __ATOMIC_RELEASE);
    callback_user = user;
    pthread_rwlock_unlock(&lock);
    return GMSRT_OK;
}

void gmsrt_log(gmsrt_log_level level, const char *format, ...)
{
    char text[1024], message[1024];
    va_list arguments;

    if (inside || __atomic_load_n(&callback, __ATOMIC_ACQUIRE) == NULL) return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    gmsrt_copy_text(message, sizeof message, text);
    pthread_rwlock_rdlock(&lock);
    if (callback != NULL) {
        inside = true;
        callback(callback_user, level, message);
        inside = false;
    }
    pthread_rwlock_unlock(&lock);
}
