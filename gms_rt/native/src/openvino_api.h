/* The part of OpenVINO's C API that is used, declared here so that building needs no header of it.
 *
 * tests/conformance_openvino.c compares every line with the headers of an installed OpenVINO. Enumerations are int or unsigned;
 * none of their constants is used except success = 0, because the numbering of element types differs between releases. */
#ifndef GMSRT_OPENVINO_API_H
#define GMSRT_OPENVINO_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ov_core ov_core_t;
typedef struct ov_model ov_model_t;
typedef struct ov_compiled_model ov_compiled_model_t;
typedef struct ov_infer_request ov_infer_request_t;
typedef struct ov_tensor ov_tensor_t;
typedef struct ov_output_const_port ov_output_const_port_t;

typedef struct gmsrt_ov_version {
    const char *build;
    const char *description;
} gmsrt_ov_version;

typedef struct gmsrt_ov_dimension {
    int64_t min;
    int64_t max; /* -1: no limit */
} gmsrt_ov_dimension;

typedef struct gmsrt_ov_partial_shape {
    gmsrt_ov_dimension rank;
    gmsrt_ov_dimension *dims;
} gmsrt_ov_partial_shape;

/* X(name, result, arguments): status-returning functions have the result int. */
#define GMSRT_OPENVINO_FUNCTIONS(X)                                                                                    \
    X(ov_get_openvino_version, int, (gmsrt_ov_version *))                                                              \
    X(ov_version_free, void, (gmsrt_ov_version *))                                                                     \
    X(ov_get_error_info, const char *, (int))                                                                          \
    X(ov_get_last_err_msg, const char *, (void))                                                                       \
    X(ov_free, void, (const char *))                                                                                   \
    X(ov_core_create, int, (ov_core_t **))                                                                             \
    X(ov_core_free, void, (ov_core_t *))                                                                               \
    X(ov_core_get_property, int, (const ov_core_t *, const char *, const char *, char **))                             \
    X(ov_core_read_model, int, (const ov_core_t *, const char *, const char *, ov_model_t **))                         \
    X(ov_core_read_model_from_memory_buffer, int,                                                                      \
      (const ov_core_t *, const char *, size_t, const ov_tensor_t *, ov_model_t **))                                   \
    X(ov_core_compile_model, int,                                                                                      \
      (const ov_core_t *, const ov_model_t *, const char *, size_t, ov_compiled_model_t **, ...))                      \
    X(ov_model_inputs_size, int, (const ov_model_t *, size_t *))                                                       \
    X(ov_model_outputs_size, int, (const ov_model_t *, size_t *))                                                      \
    X(ov_model_const_input, int, (const ov_model_t *, ov_output_const_port_t **))                                      \
    X(ov_model_const_output, int, (const ov_model_t *, ov_output_const_port_t **))                                     \
    X(ov_model_reshape_single_input, int, (const ov_model_t *, gmsrt_ov_partial_shape))                                \
    X(ov_model_free, void, (ov_model_t *))                                                                             \
    X(ov_port_get_element_type, int, (const ov_output_const_port_t *, unsigned *))                                     \
    X(ov_port_get_partial_shape, int, (const ov_output_const_port_t *, gmsrt_ov_partial_shape *))                      \
    X(ov_output_const_port_free, void, (ov_output_const_port_t *))                                                     \
    X(ov_partial_shape_create, int, (int64_t, const gmsrt_ov_dimension *, gmsrt_ov_partial_shape *))                   \
    X(ov_partial_shape_free, void, (gmsrt_ov_partial_shape *))                                                         \
    X(ov_compiled_model_get_property, int, (const ov_compiled_model_t *, const char *, char **))                       \
    X(ov_compiled_model_create_infer_request, int, (const ov_compiled_model_t *, ov_infer_request_t **))               \
    X(ov_compiled_model_free, void, (ov_compiled_model_t *))                                                           \
    X(ov_infer_request_get_input_tensor, int, (const ov_infer_request_t *, ov_tensor_t **))                            \
    X(ov_infer_request_get_output_tensor, int, (const ov_infer_request_t *, ov_tensor_t **))                           \
    X(ov_infer_request_infer, int, (ov_infer_request_t *))                                                             \
    X(ov_infer_request_start_async, int, (ov_infer_request_t *))                                                       \
    X(ov_infer_request_wait, int, (ov_infer_request_t *))                                                              \
    X(ov_infer_request_free, void, (ov_infer_request_t *))                                                             \
    X(ov_tensor_data, int, (const ov_tensor_t *, void **))                                                             \
    X(ov_tensor_get_byte_size, int, (const ov_tensor_t *, size_t *))                                                   \
    X(ov_tensor_free, void, (ov_tensor_t *))

typedef struct gmsrt_openvino {
#define GMSRT_OV_MEMBER(name, result, arguments) result(*name) arguments;
    GMSRT_OPENVINO_FUNCTIONS(GMSRT_OV_MEMBER)
#undef GMSRT_OV_MEMBER
    const char *file; /* where the functions really come from */
} gmsrt_openvino;

#endif
