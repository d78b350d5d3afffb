/* Protobuf's wire format, see protobuf.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protobuf.h"

bool gmsrt_reader_open(gmsrt_reader *reader, const char *path)
{
    struct stat about;

    reader->memory = NULL;
    reader->file = open(path, O_RDONLY | O_CLOEXEC);
    if (reader->file < 0) return false;
    if (fstat(reader->file, &about) != 0) {
        close(reader->file);
        return false;
    }
    reader->size = (uint64_t)about.st_size;
    reader->window_at = reader->window = 0;
    return true;
}

void gmsrt_reader_open_memory(gmsrt_reader *reader, const char *bytes, size_t size)
{
    reader->file = -1;
    reader->memory = bytes;
    reader->size = size;
    reader->window_at = reader->window = 0;
}

void gmsrt_reader_close(gmsrt_reader *reader)
{
    if (reader->file >= 0) close(reader->file);
}

/* Bring the byte at `at` into the window. */
static bool fill(gmsrt_reader *reader, uint64_t at)
{
    ssize_t got;

    if (at >= reader->size) return false;
    if (at >= reader->window_at && at - reader->window_at < reader->window) return true;
    if (reader->memory != NULL) {
        const uint64_t left = reader->size - at;

        reader->window_at = at;
        reader->window = left < sizeof reader->bytes ? (size_t)left : sizeof reader->bytes;
        memcpy(reader->bytes, reader->memory + at, reader->window);
        return true;
    }
    do {
        got = pread(reader->file, reader->bytes, sizeof reader->bytes, (off_t)at);
    } while (got < 0 && errno == EINTR);
    reader->window_at = at;
    reader->window = got > 0 ? (size_t)got : 0;
    return got > 0;
}

/* At most ten bytes and 64 bits. */
static bool next_varint(gmsrt_reader *reader, gmsrt_span *rest, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte;

        if (rest->at >= rest->end || !fill(reader, rest->at)) return false;
        byte = reader->bytes[rest->at++ - reader->window_at];
        if (shift == 63 && byte > 1) return false;
        *value |= (uint64_t)(byte & 0x7fu) << shift;
        if ((byte & 0x80u) == 0) return true;
    }
    return false;
}

gmsrt_step gmsrt_next_field(gmsrt_reader *reader, gmsrt_span *rest, gmsrt_field *field)
{
    uint64_t tag, length;

    if (rest->at == rest->end) return GMSRT_STEP_END;
    if (!next_varint(reader, rest, &tag) || tag >> 3 == 0 || tag >> 3 > 0x1fffffff) return GMSRT_STEP_BROKEN;
    field->number = (uint32_t)(tag >> 3);
    field->wire = (unsigned)(tag & 7u);
    field->value = length = 0;
    switch (field->wire) {
    case GMSRT_WIRE_VARINT:
        if (!next_varint(reader, rest, &field->value)) return GMSRT_STEP_BROKEN;
        break;
    case GMSRT_WIRE_FIXED64: length = 8; break;
    case GMSRT_WIRE_FIXED32: length = 4; break;
    case GMSRT_WIRE_LENGTH:
        if (!next_varint(reader, rest, &length)) return GMSRT_STEP_BROKEN;
        break;
    default: return GMSRT_STEP_BROKEN; /* groups are not part of ONNX */
    }
    if (length > rest->end - rest->at) return GMSRT_STEP_BROKEN;
    field->body.at = rest->at;
    field->body.end = rest->at += length;
    return GMSRT_STEP_FIELD;
}

bool gmsrt_read_text(gmsrt_reader *reader, gmsrt_span span, char *text, size_t size)
{
    if (span.end - span.at >= size) return false;
    while (span.at < span.end) {
        size_t offset, count;

        if (!fill(reader, span.at)) return false;
        offset = (size_t)(span.at - reader->window_at);
        count = reader->window - offset;
        if (count > span.end - span.at) count = (size_t)(span.end - span.at);
        memcpy(text, reader->bytes + offset, count);
        text += count;
        span.at += count;
    }
    *text = '\0';
    return true;
}
