/* How many inputs and outputs the operators take that segmentation networks are made of, over all opsets since 7. */
#include <stdlib.h>
#include <string.h>

#include "onnx_check.h"

#define ANY GMSRT_ANY

/* Sorted by name. */
static const gmsrt_operator operators[] = {
    {"Abs", 1, 1, 1},
    {"Add", 2, 2, 1},
    {"And", 2, 2, 1},
    {"ArgMax", 1, 1, 1},
    {"ArgMin", 1, 1, 1},
    {"Attention", 3, 7, 4},
    {"AveragePool", 1, 1, 1},
    {"BatchNormalization", 5, 5, 5},
    {"BitShift", 2, 2, 1},
    {"Cast", 1, 1, 1},
    {"CastLike", 2, 2, 1},
    {"Ceil", 1, 1, 1},
    {"Celu", 1, 1, 1},
    {"CenterCropPad", 2, 2, 1},
    {"Clip", 1, 3, 1},
    {"Concat", 1, ANY, 1},
    {"Constant", 0, 0, 1},
    {"ConstantOfShape", 1, 1, 1},
    {"Conv", 2, 3, 1},
    {"ConvInteger", 2, 4, 1},
    {"ConvTranspose", 2, 3, 1},
    {"Cos", 1, 1, 1},
    {"CumSum", 2, 2, 1},
    {"DeformConv", 3, 5, 1},
    {"DepthToSpace", 1, 1, 1},
    {"DequantizeLinear", 2, 3, 1},
    {"Div", 2, 2, 1},
    {"Dropout", 1, 3, 2},
    {"DynamicQuantizeLinear", 1, 1, 3},
    {"Einsum", 1, ANY, 1},
    {"Elu", 1, 1, 1},
    {"Equal", 2, 2, 1},
    {"Erf", 1, 1, 1},
    {"Exp", 1, 1, 1},
    {"Expand", 2, 2, 1},
    {"EyeLike", 1, 1, 1},
    {"Flatten", 1, 1, 1},
    {"Floor", 1, 1, 1},
    {"Gather", 2, 2, 1},
    {"GatherElements", 2, 2, 1},
    {"GatherND", 2, 2, 1},
    {"Gelu", 1, 1, 1},
    {"Gemm", 2, 3, 1},
    {"GlobalAveragePool", 1, 1, 1},
    {"GlobalLpPool", 1, 1, 1},
    {"GlobalMaxPool", 1, 1, 1},
    {"Greater", 2, 2, 1},
    {"GreaterOrEqual", 2, 2, 1},
    {"GridSample", 2, 2, 1},
    {"GroupNormalization", 3, 3, 1},
    {"HardSigmoid", 1, 1, 1},
    {"HardSwish", 1, 1, 1},
    {"Identity", 1, 1, 1},
    {"If", 1, 1, ANY},
    {"InstanceNormalization", 3, 3, 1},
    {"IsInf", 1, 1, 1},
    {"IsNaN", 1, 1, 1},
    {"LRN", 1, 1, 1},
    {"LayerNormalization", 2, 3, 3},
    {"LeakyRelu", 1, 1, 1},
    {"Less", 2, 2, 1},
    {"LessOrEqual", 2, 2, 1},
    {"Log", 1, 1, 1},
    {"LogSoftmax", 1, 1, 1},
    {"Loop", 0, ANY, ANY}, /* its first two may be left out */
    {"LpNormalization", 1, 1, 1},
    {"LpPool", 1, 1, 1},
    {"MatMul", 2, 2, 1},
    {"MatMulInteger", 2, 4, 1},
    {"Max", 1, ANY, 1},
    {"MaxPool", 1, 1, 2},
    {"Mean", 1, ANY, 1},
    {"MeanVarianceNormalization", 1, 1, 1},
    {"Min", 1, ANY, 1},
    {"Mish", 1, 1, 1},
    {"Mod", 2, 2, 1},
    {"Mul", 2, 2, 1},
    {"Neg", 1, 1, 1},
    {"NonZero", 1, 1, 1},
    {"Not", 1, 1, 1},
    {"OneHot", 3, 3, 1},
    {"Or", 2, 2, 1},
    {"PRelu", 2, 2, 1},
    {"Pad", 1, 4, 1},
    {"Pow", 2, 2, 1},
    {"QLinearConv", 8, 9, 1},
    {"QLinearMatMul", 8, 8, 1},
    {"QuantizeLinear", 2, 3, 1},
    {"RMSNormalization", 2, 2, 1},
    {"Range", 3, 3, 1},
    {"Reciprocal", 1, 1, 1},
    {"ReduceL1", 1, 2, 1},
    {"ReduceL2", 1, 2, 1},
    {"ReduceLogSum", 1, 2, 1},
    {"ReduceLogSumExp", 1, 2, 1},
    {"ReduceMax", 1, 2, 1},
    {"ReduceMean", 1, 2, 1},
    {"ReduceMin", 1, 2, 1},
    {"ReduceProd", 1, 2, 1},
    {"ReduceSum", 1, 2, 1},
    {"ReduceSumSquare", 1, 2, 1},
    {"Relu", 1, 1, 1},
    {"Reshape", 2, 2, 1},
    {"Resize", 1, 4, 1},
    {"Round", 1, 1, 1},
    {"Scan", 0, ANY, ANY}, /* the first of opset 8 may be left out */
    {"ScatterElements", 3, 3, 1},
    {"ScatterND", 3, 3, 1},
    {"Selu", 1, 1, 1},
    {"Shape", 1, 1, 1},
    {"Shrink", 1, 1, 1},
    {"Sigmoid", 1, 1, 1},
    {"Sign", 1, 1, 1},
    {"Sin", 1, 1, 1},
    {"Size", 1, 1, 1},
    {"Slice", 1, 5, 1},
    {"Softmax", 1, 1, 1},
    {"Softplus", 1, 1, 1},
    {"Softsign", 1, 1, 1},
    {"SpaceToDepth", 1, 1, 1},
    {"Split", 1, 2, ANY},
    {"Sqrt", 1, 1, 1},
    {"Squeeze", 1, 2, 1},
    {"Sub", 2, 2, 1},
    {"Sum", 1, ANY, 1},
    {"Tan", 1, 1, 1},
    {"Tanh", 1, 1, 1},
    {"ThresholdedRelu", 1, 1, 1},
    {"Tile", 2, 2, 1},
    {"TopK", 1, 2, 2},
    {"Transpose", 1, 1, 1},
    {"Trilu", 1, 2, 1},
    {"Unsqueeze", 1, 2, 1},
    {"Upsample", 1, 2, 1},
    {"Where", 3, 3, 1},
    {"Xor", 2, 2, 1},
};

/* What was an attribute first and became an input later. */
static const struct {
    const char *name;
    uint16_t opset, min_inputs;
} later[] = {
    {"Pad", 11, 2}, {"Slice", 10, 3}, {"TopK", 10, 2}, {"Unsqueeze", 13, 2}, {"Upsample", 9, 2},
};

unsigned gmsrt_min_inputs(const gmsrt_operator *limits, uint64_t opset)
{
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        if (opset >= later[i].opset && strcmp(limits->name, later[i].name) == 0) return later[i].min_inputs;
    return limits->min_inputs;
}

static int compare(const void *name, const void *operator)
{
    return strcmp(name, ((const gmsrt_operator *)operator)->name);
}

const gmsrt_operator *gmsrt_find_operator(const char *name)
{
    return bsearch(name, operators, sizeof operators / sizeof *operators, sizeof *operators, compare);
}
