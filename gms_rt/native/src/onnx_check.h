/* What the parts of the structural check share, see onnx_check.c. */
#ifndef GMSRT_ONNX_CHECK_H
#define GMSRT_ONNX_CHECK_H

#include "internal.h"
#include "protobuf.h"

#define GMSRT_MAX_NAME 4096u
#define GMSRT_MAX_DEPTH 16u /* of graphs within nodes */

typedef struct gmsrt_names {
    uint32_t *buckets;
    struct gmsrt_name *items;
    uint32_t count;
    size_t room;
    char *texts;
    size_t text_used, text_room;
    uint32_t scope;
} gmsrt_names;

/* onnx_names.c. add: false where there is no memory. has_here: in the innermost scope. */
bool gmsrt_names_has(const gmsrt_names *names, const char *text);
bool gmsrt_names_has_here(const gmsrt_names *names, const char *text);
bool gmsrt_names_add(gmsrt_names *names, const char *text);
void gmsrt_names_enter(gmsrt_names *names);
void gmsrt_names_leave(gmsrt_names *names);
void gmsrt_names_free(gmsrt_names *names);

/* One check of one file. The first complaint ends it. */
typedef struct gmsrt_check {
    gmsrt_reader reader;
    gmsrt_names names;
    const char *folder;   /* of the graph: outside weights are found from there */
    gmsrt_files *files;   /* outside weights are added */
    uint32_t depth;       /* of graphs within nodes */
    uint64_t opset;       /* version of the standard operators */
    bool out_of_memory;   /* the reason is this, and no complaint */
    char complaint[1024]; /* "node 'x' (Conv) has …" */
    char text[GMSRT_MAX_NAME];
} gmsrt_check;

/* Keep what is wrong; false, so that a check can return it. The first words stay. */
bool gmsrt_complain(gmsrt_check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* onnx_check.c, for its parts. Nothing was complained of, and memory sufficed: */
bool gmsrt_is_sound(const gmsrt_check *check);
/* The next field that is length-delimited; others are stepped over. A damaged message ends the walk like its end. */
bool gmsrt_next_part(gmsrt_check *check, gmsrt_span *rest, gmsrt_field *field);
/* A name into check->text, and from there to the known ones. */
bool gmsrt_read_name(gmsrt_check *check, gmsrt_span span);
bool gmsrt_add_name(gmsrt_check *check);
/* Cut to what a message can hold. */
void gmsrt_read_short(gmsrt_check *check, gmsrt_span span, char *text, size_t size);
bool gmsrt_is_standard(const char *domain);
bool gmsrt_check_graph(gmsrt_check *check, gmsrt_span graph);

/* onnx_node.c: the number-th NodeProto; its outputs are known from then on. */
bool gmsrt_check_node(gmsrt_check *check, gmsrt_span message, uint64_t number);

/* onnx_tensor.c: a TensorProto. `what` names it in a complaint. */
bool gmsrt_check_tensor(gmsrt_check *check, gmsrt_span tensor, const char *what);

/* onnx_operators.c: how many inputs and outputs a standard operator takes; NULL where it is not in the table. */
typedef struct gmsrt_operator {
    const char *name;
    uint16_t min_inputs, max_inputs; /* the first min_inputs must not be left out; GMSRT_ANY: no limit */
    uint16_t max_outputs;
} gmsrt_operator;
#define GMSRT_ANY UINT16_MAX
const gmsrt_operator *gmsrt_find_operator(const char *name);
/* min_inputs as this version of the operators has it. */
unsigned gmsrt_min_inputs(const gmsrt_operator *limits, uint64_t opset);

/* onnx_attribute.c: an AttributeProto of a standard operator. Graphs and tensors in it are the caller's part. */
bool gmsrt_check_attribute(gmsrt_check *check, gmsrt_span attribute, const char *what);

#endif
