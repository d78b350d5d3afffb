/* The contract of a graph: one input of uint8 N*H*W*3, one output of uint8 N*H*W*1 or N*H*W. */
#include <string.h>

#include "openvino.h"

/* An ONNX model "b = Identity(a)", a: uint8 [1]. Its element type is this OpenVINO's number for uint8. */
static const char uint8_model[] = "\x08\x08"         /* IR version 8 */
                                  "\x42\x02\x10\x0d" /* opset 13 */
                                  "\x3a\x37"         /* graph */
                                  "\x0a\x10\x0a\x01\x61\x12\x01\x62\x22\x08Identity"
                                  "\x12\x01p"
                                  "\x5a\x0f\x0a\x01\x61\x12\x0a\x0a\x08\x08\x02\x12\x04\x0a\x02\x08\x01"
                                  "\x62\x0f\x0a\x01\x62\x12\x0a\x0a\x08\x08\x02\x12\x04\x0a\x02\x08\x01";

/* Shape and element type of the only input or output. */
typedef struct port_facts {
    unsigned element_type;
    int64_t rank; /* -1: not fixed */
    gmsrt_ov_dimension dims[4];
} port_facts;

static gmsrt_status read_port(const gmsrt_openvino *ov, const ov_model_t *model, bool input, port_facts *facts)
{
    const char *what = input ? "the graph's input cannot be read" : "the graph's output cannot be read";
    ov_output_const_port_t *port = NULL;
    gmsrt_ov_partial_shape shape = {{0, 0}, NULL};
    int code = input ? ov->ov_model_const_input(model, &port) : ov->ov_model_const_output(model, &port);

    memset(facts, 0, sizeof *facts);
    if (code == 0) code = ov->ov_port_get_element_type(port, &facts->element_type);
    if (code == 0) code = ov->ov_port_get_partial_shape(port, &shape);
    if (code == 0) {
        facts->rank = shape.rank.min == shape.rank.max ? shape.rank.min : -1;
        for (int64_t i = 0; i < facts->rank && i < 4; i++) facts->dims[i] = shape.dims[i];
        ov->ov_partial_shape_free(&shape);
    }
    if (port != NULL) ov->ov_output_const_port_free(port);
    return code == 0 ? GMSRT_OK : gmsrt_ov_failed(ov, GMSRT_BAD_GRAPH, code, what);
}

static gmsrt_status find_uint8(const gmsrt_openvino *ov, const ov_core_t *core, unsigned *uint8_type)
{
    ov_model_t *model = NULL;
    port_facts facts;
    gmsrt_status status;
    const int code = ov->ov_core_read_model_from_memory_buffer(core, uint8_model, sizeof uint8_model - 1, NULL, &model);

    if (code != 0) return gmsrt_ov_failed(ov, GMSRT_NO_RUNTIME, code, "this OpenVINO cannot read ONNX");
    status = read_port(ov, model, true, &facts);
    *uint8_type = facts.element_type;
    ov->ov_model_free(model);
    return status;
}

static bool is_fixed(gmsrt_ov_dimension dimension)
{
    return dimension.min == dimension.max && dimension.min > 0;
}

static bool fits_channels(const port_facts *facts, int64_t channels)
{
    return is_fixed(facts->dims[3]) && facts->dims[3].min == channels;
}

static gmsrt_status describe_misfit(const char *path, const port_facts *facts, bool input, bool is_uint8)
{
    char shape[160] = "of no fixed rank";

    if (facts->rank >= 0) {
        int at = snprintf(shape, sizeof shape, "[");

        for (int64_t i = 0; i < facts->rank && i < 4; i++) {
            const char *comma = i == 0 ? "" : ", ";

            if (is_fixed(facts->dims[i]))
                at += snprintf(shape + at, sizeof shape - (size_t)at, "%s%lld", comma, (long long)facts->dims[i].min);
            else
                at += snprintf(shape + at, sizeof shape - (size_t)at, "%s?", comma);
        }
        snprintf(shape + at, sizeof shape - (size_t)at, facts->rank > 4 ? ", …]" : "]");
    }
    return gmsrt_fail(GMSRT_BAD_GRAPH, "%s: the %s is %s %s, it must be uint8 %s", path, input ? "input" : "output",
                      is_uint8 ? "uint8" : "not uint8 but another type,", shape,
                      input ? "[N, height, width, 3]" : "[N, height, width, 1] of the input's N, height and width");
}

gmsrt_status gmsrt_ov_fit_model(const gmsrt_openvino *ov, const ov_core_t *core, const char *path, ov_model_t *model,
                                uint32_t wanted_batch, gmsrt_info *info)
{
    size_t inputs = 0, outputs = 0;
    unsigned uint8_type = 0;
    port_facts in, out;
    gmsrt_status status = find_uint8(ov, core, &uint8_type);
    int counted;

    if (status != GMSRT_OK) return status;
    counted = ov->ov_model_inputs_size(model, &inputs);
    if (counted == 0) counted = ov->ov_model_outputs_size(model, &outputs);
    if (counted != 0)
        return gmsrt_ov_failed(ov, GMSRT_BAD_GRAPH, counted, "inputs and outputs of the graph cannot be read");
    if (inputs != 1 || outputs != 1)
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s has %zu inputs and %zu outputs, it must have one of each", path, inputs,
                          outputs);
    if ((status = read_port(ov, model, true, &in)) != GMSRT_OK) return status;
    if (in.rank != 4 || in.element_type != uint8_type || !is_fixed(in.dims[1]) || !is_fixed(in.dims[2]) ||
        !fits_channels(&in, 3))
        return describe_misfit(path, &in, true, in.element_type == uint8_type);
    if (!is_fixed(in.dims[0])) {
        const int64_t batch = wanted_batch > 0 ? (int64_t)wanted_batch : 1;
        gmsrt_ov_dimension dims[4] = {{batch, batch}, in.dims[1], in.dims[2], in.dims[3]};
        gmsrt_ov_partial_shape shape = {{0, 0}, NULL};
        int code = ov->ov_partial_shape_create(4, dims, &shape);

        if (code == 0) {
            code = ov->ov_model_reshape_single_input(model, shape);
            ov->ov_partial_shape_free(&shape);
        }
        if (code != 0) return gmsrt_ov_failed(ov, GMSRT_BAD_GRAPH, code, "the graph cannot take this batch size");
        in.dims[0] = dims[0];
    } else if (wanted_batch != 0 && in.dims[0].min != (int64_t)wanted_batch) {
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "%s: a batch of %u was asked for, the graph's is fixed at %lld", path,
                          wanted_batch, (long long)in.dims[0].min);
    }
    if (!gmsrt_shape_is_sane((uint64_t)in.dims[0].min, (uint64_t)in.dims[1].min, (uint64_t)in.dims[2].min))
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s: an input of %lld x %lld x %lld x 3 is too large", path,
                          (long long)in.dims[0].min, (long long)in.dims[1].min, (long long)in.dims[2].min);
    if ((status = read_port(ov, model, false, &out)) != GMSRT_OK) return status;
    if (out.element_type != uint8_type || (out.rank != 3 && !(out.rank == 4 && fits_channels(&out, 1))))
        return describe_misfit(path, &out, false, out.element_type == uint8_type);
    for (int i = 0; i < 3; i++)
        if (!is_fixed(out.dims[i]) || out.dims[i].min != in.dims[i].min)
            return describe_misfit(path, &out, false, true);
    info->batch = (uint32_t)in.dims[0].min;
    info->height = (uint32_t)in.dims[1].min;
    info->width = (uint32_t)in.dims[2].min;
    return GMSRT_OK;
}
