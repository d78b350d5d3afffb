"""Read somebody else's ONNX file: one picture in, one map out, whatever it is called.

What cannot be adopted is refused with its reason: several inputs, volumes, quantised graphs, other operators than
ONNX's own, control flow. What can is brought to one form: FP32, opset 18 or later, sizes fixed, functions inlined,
constants folded, batch norms in the convolutions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt.adopt.options import AdoptOptions
from gms_rt.artifacts import sha256_bytes
from gms_rt.errors import ArtifactError, UsageError, reason_from_error
from gms_rt.graph.finite import check_weights
from gms_rt.graph.graph import INPUT, OUTPUT, Graph
from gms_rt.graph.simplify import simplify_graph

_OPSET = 18  # what the exporter writes: JetPack 6 reads it
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
              "ConvInteger", "MatMulInteger")  # fmt: skip
_CONTROL = ("If", "Loop", "Scan")


@dataclass(frozen=True)
class ForeignModel:
    """A model that can be wrapped: its graph in one form, and the file as it came."""

    graph: Graph  # FP32, sizes fixed, one input and one output
    original: Any  # the same model with its sizes fixed and nothing else changed
    nchw: bool  # its input is N×C×H×W, else N×H×W×C
    channels: int  # of the input: 1 or 3
    height: int  # of the input, in pixels
    width: int
    sha256: str  # of the file

    @property
    def input(self) -> str:
        """The name of its input."""
        return str(self.graph.model.graph.input[0].name)

    @property
    def output(self) -> str:
        """The name of its output."""
        return str(self.graph.model.graph.output[0].name)


def foreign_model(path: Path, options: AdoptOptions) -> ForeignModel:
    """Read a file and make it ready to be wrapped."""
    import onnx

    model, digest = _read(path)
    _check_operators(model, path)
    entry = _only_input(model, path)
    nchw, channels, size = _input_form(entry, options, path)
    _keep_output(model, options, path)
    _fix_sizes(model, entry, (options.batch, channels, *size) if nchw else (options.batch, *size, channels))
    original = onnx.ModelProto()
    original.CopyFrom(model)
    try:
        plain = onnx.inliner.inline_local_functions(model) if model.functions else model
        if _opset(plain) < _OPSET:
            plain = onnx.version_converter.convert_version(plain, _OPSET)
        _as_fp32(plain)
        graph = simplify_graph(plain)
        onnx.checker.check_model(graph.model, full_check=True)
    except Exception as error:  # onnx's errors have no common root
        fix = "export it again with opset 18 and fixed sizes"
        raise ArtifactError(f"cannot be read ({reason_from_error(error)})", where=path, fix=fix) from error
    _check_graph(graph, path)
    return ForeignModel(graph, original, nchw, channels, *size, digest)


def _read(path: Path) -> tuple[Any, str]:
    import onnx
    from onnx.external_data_helper import load_external_data_for_model

    if not path.is_file():
        raise UsageError("is not a file", where=path, fix="give a model in ONNX's format")
    data = path.read_bytes()
    try:
        model = onnx.ModelProto.FromString(data)
        load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # not a protobuf, weights absent or outside the folder
        raise ArtifactError(f"is not a valid ONNX model ({reason_from_error(error)})", where=path) from error
    return model, sha256_bytes(data)


def _check_operators(model: Any, path: Path) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for node in nodes:
        if node.op_type in _QUANTISED:
            raise UsageError("is quantised already", where=path, fix="give the FP32 model; gms-rt build quantises it")
        if node.domain not in ("", "ai.onnx") and (node.domain, node.op_type) not in own:
            what = f"uses the operator {node.domain}.{node.op_type}, which is not one of ONNX's own"
            raise UsageError(what, where=path, fix="export it for any runtime, without optimising it for one")


def _only_input(model: Any, path: Path) -> Any:
    from onnx import TensorProto

    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise UsageError(f"has {len(inputs)} inputs ({names}); a picture is one", where=path)
    (entry,) = inputs
    kind = entry.type.tensor_type
    dims = [_text(dim) for dim in kind.shape.dim]
    ours = [value.name for value in model.graph.output] == [OUTPUT] and entry.name == INPUT
    if ours and kind.elem_type == TensorProto.UINT8:
        raise UsageError("is a graph of gms-rt's kind already", where=path, fix=f"run: gms-rt build {path}")
    if len(dims) != 4:
        what = f"takes {'×'.join(dims) or 'no shape'}, not pictures of N×C×H×W or N×H×W×C"
        raise UsageError(what, where=f"{path}: input {entry.name}", fix="only models of 2-D pictures can be adopted")
    if kind.elem_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        name = TensorProto.DataType.Name(kind.elem_type)
        raise UsageError(f"is of type {name}, not float", where=f"{path}: input {entry.name}")
    # Whoever reads on finds it first; constants may be listed as inputs by old exporters.
    del model.graph.input[:]
    model.graph.input.append(entry)
    return model.graph.input[0]


def _text(dim: Any) -> str:
    return str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?"


def _input_form(entry: Any, options: AdoptOptions, path: Path) -> tuple[bool, int, tuple[int, int]]:
    """Whether channels come first, how many there are, and height and width."""
    where = f"{path}: input {entry.name}"
    batch, *dims = [int(dim.dim_value) if dim.HasField("dim_value") else 0 for dim in entry.type.tensor_type.shape.dim]
    first, last = dims[0] in (1, 3), dims[2] in (1, 3)
    if options.layout == "auto" and first == last:
        raise UsageError("does not tell where its channels are", where=where, fix="say it with --layout nchw or nhwc")
    nchw = first if options.layout == "auto" else options.layout == "nchw"
    channels, size = (dims[0], dims[1:]) if nchw else (dims[2], dims[:2])
    channels = channels or 3
    if channels not in (1, 3):
        what = f"has {channels} channels in the layout {'nchw' if nchw else 'nhwc'}; a picture has 1 or 3"
        raise UsageError(what, where=where)
    if max(len(options.mean), len(options.std)) > channels:
        raise UsageError(f"has {channels} channel", where=where, fix="give one number with --mean and --std")
    if batch and batch != options.batch:
        raise UsageError(f"takes {batch} images at once", where=where, fix=f"say --batch {batch}")
    wanted = options.size or (size[0], size[1])
    if not all(wanted):
        raise UsageError(
            "leaves its size open", where=where, fix="say it with --size, as it was trained: 256 or 256x320"
        )
    if any(known and known != asked for known, asked in zip(size, wanted, strict=True)):
        raise UsageError(f"is {size[0]}×{size[1]}", where=where, fix="leave out --size")
    return nchw, channels, (wanted[0], wanted[1])


def _keep_output(model: Any, options: AdoptOptions, path: Path) -> None:
    outputs = {value.name: value for value in model.graph.output}
    if options.output and options.output not in outputs:
        raise UsageError(f"has no output '{options.output}'", where=path, fix=f"it has {', '.join(outputs)}")
    if not options.output and len(outputs) != 1:
        names = ", ".join(outputs)
        raise UsageError(f"has {len(outputs)} outputs", where=path, fix=f"name one with --output: {names}")
    chosen = outputs[options.output or next(iter(outputs))]
    kept = type(chosen)()
    kept.CopyFrom(chosen)
    del model.graph.output[:]
    model.graph.output.append(kept)


def _fix_sizes(model: Any, entry: Any, shape: tuple[int, ...]) -> None:
    """State the input's sizes; those of everything else follow and are inferred again."""
    for dim, size in zip(entry.type.tensor_type.shape.dim, shape, strict=True):
        dim.Clear()
        dim.dim_value = size
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")


def _opset(model: Any) -> int:
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


def _as_fp32(model: Any) -> None:
    """Make every FP16 constant, Cast and port FP32; values stay what they are."""
    from onnx import TensorProto, numpy_helper

    half, single = TensorProto.FLOAT16, TensorProto.FLOAT
    for tensor in model.graph.initializer:
        if tensor.data_type == half:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == half:
                attribute.i = single
            if attribute.HasField("t") and attribute.t.data_type == half:
                values = numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = single


def _check_graph(graph: Graph, path: Path) -> None:
    for node in graph.nodes:
        if node.op_type in _CONTROL:
            what = f"has control flow that is not fixed ({node.op_type} '{node.name}')"
            raise UsageError(what, where=path, fix="export it with fixed sizes, or simplify it with onnxsim")
    check_weights(graph, path)
    output = graph.model.graph.output[0].name
    if output not in graph.shape:
        raise UsageError("the size of its output is not known before it runs", where=path, fix="export fixed sizes")
    if math.prod(graph.shape[output]) == 0:
        raise UsageError("its output is empty", where=path)
