/* Compiled only: the declarations in src/openvino_api.h against the headers of an installed OpenVINO.
 *
 * ov_shape.h and others of its headers define the opaque names, so ours are renamed while they are read. */
#define ov_core gmsrt_own_core
#define ov_core_t gmsrt_own_core_t
#define ov_model gmsrt_own_model
#define ov_model_t gmsrt_own_model_t
#define ov_compiled_model gmsrt_own_compiled_model
#define ov_compiled_model_t gmsrt_own_compiled_model_t
#define ov_infer_request gmsrt_own_infer_request
#define ov_infer_request_t gmsrt_own_infer_request_t
#define ov_tensor gmsrt_own_tensor
#define ov_tensor_t gmsrt_own_tensor_t
#define ov_output_const_port gmsrt_own_output_const_port
#define ov_output_const_port_t gmsrt_own_output_const_port_t
#include "../src/openvino_api.h"
#undef ov_core
#undef ov_core_t
#undef ov_model
#undef ov_model_t
#undef ov_compiled_model
#undef ov_compiled_model_t
#undef ov_infer_request
#undef ov_infer_request_t
#undef ov_tensor
#undef ov_tensor_t
#undef ov_output_const_port
#undef ov_output_const_port_t

#include <openvino/c/openvino.h>

#define SAME(type_a, type_b) __builtin_types_compatible_p(type_a, type_b)
#define ASSERT(name, condition) typedef char assert_##name[(condition) ? 1 : -1] __attribute__((unused))

/* Structures: the same members at the same places. */
ASSERT(version_size, sizeof(gmsrt_ov_version) == sizeof(ov_version_t));
ASSERT(version_build, offsetof(gmsrt_ov_version, build) == offsetof(ov_version_t, buildNumber));
ASSERT(version_text, offsetof(gmsrt_ov_version, description) == offsetof(ov_version_t, description));
ASSERT(dimension_size, sizeof(gmsrt_ov_dimension) == sizeof(ov_dimension_t));
ASSERT(dimension_min, offsetof(gmsrt_ov_dimension, min) == offsetof(ov_dimension_t, min));
ASSERT(dimension_max, offsetof(gmsrt_ov_dimension, max) == offsetof(ov_dimension_t, max));
ASSERT(dimension_type, SAME(__typeof__(((ov_dimension_t *)0)->min), int64_t));
ASSERT(shape_size, sizeof(gmsrt_ov_partial_shape) == sizeof(ov_partial_shape_t));
ASSERT(shape_rank, offsetof(gmsrt_ov_partial_shape, rank) == offsetof(ov_partial_shape_t, rank));
ASSERT(shape_dims, offsetof(gmsrt_ov_partial_shape, dims) == offsetof(ov_partial_shape_t, dims));
/* Enumerations: success is 0, and they travel as the integers that are declared. */
ASSERT(success, OK == 0);
ASSERT(status, SAME(ov_status_e, int));
ASSERT(element_type, SAME(ov_element_type_e, unsigned));

/* Functions: the same text as in openvino_api.h, with OpenVINO's own names for the types. */
#define FUNCTION(name, result, ...)                                                                                    \
    typedef result(*type_of_##name) __VA_ARGS__;                                                                       \
    ASSERT(function_##name, SAME(__typeof__(&name), type_of_##name))
#define gmsrt_ov_version ov_version_t
#define gmsrt_ov_dimension ov_dimension_t
#define gmsrt_ov_partial_shape ov_partial_shape_t
#define X(name, result, arguments) FUNCTION(name, result, arguments);
GMSRT_OPENVINO_FUNCTIONS(X)
