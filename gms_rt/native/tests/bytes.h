/* Protobuf by hand: messages and small ONNX graphs for the tests, sound or broken in one place. */
#ifndef GMSRT_TEST_BYTES_H
#define GMSRT_TEST_BYTES_H

#include <stdint.h>
#include <string.h>

#include "check.h"

typedef struct bytes {
    size_t size;
    uint8_t data[8192];
} bytes;

static inline void add_raw(bytes *to, const void *data, size_t size)
{
    CHECK(to->size + size <= sizeof to->data, "a test's message is too long");
    if (size > 0) memcpy(to->data + to->size, data, size);
    to->size += size;
}

static inline void add_varint(bytes *to, uint64_t value)
{
    do {
        const uint8_t byte = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));

        add_raw(to, &byte, 1);
        value >>= 7;
    } while (value > 0);
}

static inline void add_number(bytes *to, unsigned field, uint64_t value)
{
    add_varint(to, field << 3);
    add_varint(to, value);
}

static inline void add_data(bytes *to, unsigned field, const void *data, size_t size)
{
    add_varint(to, field << 3 | 2);
    add_varint(to, size);
    add_raw(to, data, size);
}

static inline void add_text(bytes *to, unsigned field, const char *text)
{
    add_data(to, field, text, strlen(text));
}

static inline void add_message(bytes *to, unsigned field, const bytes *message)
{
    add_data(to, field, message->data, message->size);
}

/* A node; `inputs` and `outputs` are separated by spaces, "-" is one that is left out. */
static inline bytes make_node(const char *type, const char *inputs, const char *outputs)
{
    bytes node = {0};

    for (unsigned field = 1; field <= 2; field++) {
        const char *at = field == 1 ? inputs : outputs;

        while (*at != '\0') {
            const size_t length = strcspn(at, " ");

            add_data(&node, field, at, *at == '-' ? 0 : length);
            at += length + (at[length] == ' ');
        }
    }
    add_text(&node, 3, "the/node");
    add_text(&node, 4, type);
    return node;
}

static inline void add_value(bytes *graph, unsigned field, const char *name)
{
    bytes value = {0};

    add_text(&value, 1, name);
    add_message(graph, field, &value);
}

/* A whole model around a graph. */
static inline bytes make_model(const bytes *graph)
{
    bytes model = {0}, opset = {0};

    add_number(&model, 1, 8);
    add_number(&opset, 2, 13);
    add_message(&model, 8, &opset);
    add_text(&model, 2, "test");
    add_message(&model, 7, graph);
    return model;
}

/* The input "a", one node, the output "b". */
static inline bytes make_graph(const bytes *node)
{
    bytes graph = {0};

    add_message(&graph, 1, node);
    add_text(&graph, 2, "graph");
    add_value(&graph, 11, "a");
    add_value(&graph, 12, "b");
    return graph;
}

/* A sound model, always the same bytes. */
static inline bytes sound_model(void)
{
    const bytes node = make_node("Relu", "a", "b"), graph = make_graph(&node);

    return make_model(&graph);
}

static inline void write_bytes(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");

    CHECK(file != NULL && fwrite(data, 1, size, file) == size && fclose(file) == 0, "cannot write %s", path);
}

#endif
