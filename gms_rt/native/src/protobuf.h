/* Read a protobuf message from a file, field by field, through a small window: no message is kept in memory, and
 * no number in the file is used before it was compared with the end of its message. */
#ifndef GMSRT_PROTOBUF_H
#define GMSRT_PROTOBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GMSRT_WIRE_VARINT 0u
#define GMSRT_WIRE_FIXED64 1u
#define GMSRT_WIRE_LENGTH 2u
#define GMSRT_WIRE_FIXED32 5u

typedef struct gmsrt_reader {
    int file;
    const char *memory; /* instead of a file; NULL: a file */
    uint64_t size;
    uint64_t window_at;
    size_t window; /* bytes in it */
    uint8_t bytes[32768];
} gmsrt_reader;

/* Open a file for reading; false with errno if it cannot be. */
bool gmsrt_reader_open(gmsrt_reader *reader, const char *path);
/* Read bytes instead, which must stay where they are. */
void gmsrt_reader_open_memory(gmsrt_reader *reader, const char *bytes, size_t size);
void gmsrt_reader_close(gmsrt_reader *reader);

/* A part of the file: a message or a string. */
typedef struct gmsrt_span {
    uint64_t at;
    uint64_t end;
} gmsrt_span;

typedef struct gmsrt_field {
    uint32_t number;
    unsigned wire;
    uint64_t value;  /* of a varint */
    gmsrt_span body; /* of a length-delimited field, or the bytes of a fixed one */
} gmsrt_field;

typedef enum gmsrt_step { GMSRT_STEP_FIELD, GMSRT_STEP_END, GMSRT_STEP_BROKEN } gmsrt_step;

/* The next field of a message; `rest` moves behind it. */
gmsrt_step gmsrt_next_field(gmsrt_reader *reader, gmsrt_span *rest, gmsrt_field *field);

/* Copy a span that fits into `size` bytes with a zero behind it; false if it does not or cannot be read. */
bool gmsrt_read_text(gmsrt_reader *reader, gmsrt_span span, char *text, size_t size);

#endif
