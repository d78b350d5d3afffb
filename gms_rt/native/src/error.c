/* The last error of each thread, and the names of the statuses. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "internal.h"

#define MESSAGE_SIZE 1024

static __thread char last_message[MESSAGE_SIZE];
static __thread bool message_held;

void gmsrt_hold_error(bool held)
{
    message_held = held;
}

void gmsrt_copy_text(char *to, size_t size, const char *from)
{
    size_t length = 0;

    if (size == 0) return;
    for (; from != NULL && from[length] != '\0' && length + 1 < size; length++) {
        unsigned char c = (unsigned char)from[length];
        to[length] = (c < 0x20 || c == 0x7f) ? ' ' : (char)c;
    }
    if (from != NULL && from[length] != '\0') { /* do not cut a UTF-8 character in two */
        while (length > 0 && ((unsigned char)from[length] & 0xC0) == 0x80) length--;
    }
    while (length > 0 && to[length - 1] == ' ') length--;
    to[length] = '\0';
}

gmsrt_status gmsrt_fail(gmsrt_status status, const char *format, ...)
{
    char text[2 * MESSAGE_SIZE];
    va_list arguments;

    if (message_held) return status;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    gmsrt_copy_text(last_message, sizeof last_message, text);
    return status;
}

const char *gmsrt_last_error(void)
{
    return last_message;
}

const char *gmsrt_status_name(gmsrt_status status)
{
    switch (status) {
    case GMSRT_OK: return "GMSRT_OK";
    case GMSRT_INVALID_ARGUMENT: return "GMSRT_INVALID_ARGUMENT";
    case GMSRT_NOT_FOUND: return "GMSRT_NOT_FOUND";
    case GMSRT_BAD_GRAPH: return "GMSRT_BAD_GRAPH";
    case GMSRT_NO_RUNTIME: return "GMSRT_NO_RUNTIME";
    case GMSRT_NO_DEVICE: return "GMSRT_NO_DEVICE";
    case GMSRT_UNSUPPORTED: return "GMSRT_UNSUPPORTED";
    case GMSRT_OUT_OF_MEMORY: return "GMSRT_OUT_OF_MEMORY";
    case GMSRT_CALLBACK_FAILED: return "GMSRT_CALLBACK_FAILED";
    case GMSRT_RUNTIME_FAILED: return "GMSRT_RUNTIME_FAILED";
    case GMSRT_DEVICE_LOST: return "GMSRT_DEVICE_LOST";
    case GMSRT_TIMED_OUT: return "GMSRT_TIMED_OUT";
    case GMSRT_CANCELLED: return "GMSRT_CANCELLED";
    case GMSRT_BUSY: return "GMSRT_BUSY";
    case GMSRT_DEVICE_BUSY: return "GMSRT_DEVICE_BUSY";
    case GMSRT_DEVICE_HUNG: return "GMSRT_DEVICE_HUNG";
    }
    return "GMSRT_?";
}
