"""Pixel arithmetic around a model: grey levels in, levels of a probability out.

    image uint8 N×H×W×3 → [RGB or BGR, grey] → / scale → - mean → / std → the model's layout
    the model's output → N×C×H×W → [at the picture's size] → activation → foreground → × 255, rounded → mask uint8

`answers.py` has the same in numpy, for the model as it came; each adoption compares the two.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gms_rt.adopt.foreign import ForeignModel
from gms_rt.adopt.options import GREY, AdoptOptions
from gms_rt.errors import UsageError
from gms_rt.graph.edit import replace_nodes
from gms_rt.graph.fold import fold_exactly
from gms_rt.graph.graph import INPUT, OUTPUT, Graph
from gms_rt.graph.read import graph_from_model
from gms_rt.graph.simplify import drop_idle_nodes

PREFIX = "model/"  # what the names of the model's own nodes begin with
_BACKWARDS = {"start": 2, "end": -4, "axis": 1, "step": -1}  # three channels, the last first
SMALLEST_DEVIATION = 1e-8  # a picture of one grey is not divided by zero


def wrapped_graph(foreign: ForeignModel, options: AdoptOptions) -> Graph:
    """The model with our input and output around it."""
    import onnx
    from onnx import TensorProto

    model = onnx.compose.add_prefix(foreign.graph.model, PREFIX)
    del model.graph.metadata_props[:]
    for own_node in model.graph.node:  # exporters write there where the source was, on whose machine
        del own_node.metadata_props[:]
        own_node.doc_string = ""
    work = _Wrapping(model, foreign, options)
    own = list(model.graph.node)
    work.begin(f"{PREFIX}{foreign.input}")
    before, work.nodes = work.nodes, []
    work.end(f"{PREFIX}{foreign.output}", foreign.graph)
    replace_nodes(model, [*before, *own, *work.nodes])
    batch, height, width = options.batch, foreign.height, foreign.width
    for ports, name, channels in ((model.graph.input, INPUT, 3), (model.graph.output, OUTPUT, 1)):
        del ports[:]
        shape = [batch, height, width, channels]
        ports.append(onnx.helper.make_tensor_value_info(name, TensorProto.UINT8, shape))
    graph = graph_from_model(model)
    drop_idle_nodes(graph)
    fold_exactly(graph)
    return graph_from_model(graph.model)


def foreground_channels(options: AdoptOptions, count: int) -> tuple[int, ...]:
    """The classes that are foreground, of so many."""
    chosen = options.channels or ((0,) if count == 1 else tuple(range(1, count)))
    wrong = next((channel for channel in chosen if channel >= count), None)
    if wrong is not None:
        raise UsageError(f"there are {count} channels, 0 to {count - 1}", where=f"--channel {wrong}")
    if options.activation == "sigmoid" and count > 1 and not options.channels:
        what = f"its {count} channels are not exclusive, so which are foreground must be said"
        raise UsageError(what, where="--activation sigmoid", fix="name them with --channel")
    if options.activation in ("softmax", "argmax") and not 0 < len(set(chosen)) < count:
        what = f"needs a class that is not foreground, of {count} channels"
        raise UsageError(what, where=f"--activation {options.activation}", fix="use sigmoid, or --channel")
    return tuple(sorted(set(chosen)))


class _Wrapping:
    """Nodes in the making."""

    def __init__(self, model: Any, foreign: ForeignModel, options: AdoptOptions) -> None:
        self.model, self.foreign, self.options = model, foreign, options
        self.nodes: list[Any] = []

    def begin(self, target: str) -> None:
        """From `image` to the model's input."""
        from onnx import TensorProto

        options, channels = self.options, self.foreign.channels
        x = self.node("Cast", "input/cast", [INPUT], to=TensorProto.FLOAT)
        x = self.node("Transpose", "input/channels_first", [x], perm=[0, 3, 1, 2])
        if channels == 1:
            x = self.grey(x)
        elif options.colour == "bgr":
            ends = [self.whole(f"input/bgr_{name}", [value]) for name, value in _BACKWARDS.items()]
            x = self.node("Slice", "input/bgr", [x, *ends])
        if options.z_score:
            x = self.z_score(x)
        else:
            mean, std = (np.broadcast_to(np.asarray(v, np.float64), channels) for v in (options.mean, options.std))
            x = self.affine(x, "input", 1 / (options.scale * std), -mean / std)
        if self.foreign.nchw:
            self.node("Identity", "input/model", [x], output=target)
        else:
            self.node("Transpose", "input/model", [x], perm=[0, 2, 3, 1], output=target)

    def grey(self, x: str) -> str:
        """One channel of three."""
        from onnx import helper

        x = self.node("Mul", "input/shares", [x, self.float("input/shares_by", np.reshape(GREY, (1, 3, 1, 1)))])
        parts = ["input/red", "input/green", "input/blue"]
        self.nodes.append(helper.make_node("Split", [x], parts, "input/split", axis=1, num_outputs=3))
        return self.node("Add", "input/grey", [self.node("Add", "input/red_green", parts[:2]), parts[2]])

    def z_score(self, x: str) -> str:
        """Each channel's own mean and deviation over the picture; scaled first, so that no square is large."""
        x = self.node("Mul", "input/scale", [x, self.float("input/by", 1 / self.options.scale)])
        axes = self.whole("input/axes", [2, 3])
        mean = self.node("ReduceMean", "input/mean", [x, axes], keepdims=1)
        x = self.node("Sub", "input/centre", [x, mean])
        square = self.node(
            "ReduceMean", "input/square_mean", [self.node("Mul", "input/square", [x, x]), axes], keepdims=1
        )
        deviation = self.node("Sqrt", "input/deviation", [square])
        least = self.float("input/least", SMALLEST_DEVIATION)
        return self.node("Div", "input/divide", [x, self.node("Max", "input/bounded", [deviation, least])])

    def end(self, source: str, graph: Graph) -> None:
        """From the model's output to `mask`."""
        from onnx import TensorProto

        x, shape = self.maps(source, graph.shape[self.foreign.output])
        if self.options.activation == "labels":
            x = self.labels(x, graph.dtype[self.foreign.output], shape)
        else:
            size = (self.foreign.height, self.foreign.width)
            x = self.resized(x, shape, size, "linear", coordinate_transformation_mode="half_pixel")
            x = self.probability(x, shape[1], foreground_channels(self.options, shape[1]))
        x = self.node("Mul", "output/levels", [x, self.float("output/by", 255.0)])
        x = self.node("Round", "output/round", [x])
        x = self.node("Transpose", "output/channels_last", [x], perm=[0, 2, 3, 1])
        self.node("Cast", "output/cast", [x], output=OUTPUT, to=TensorProto.UINT8)

    def maps(self, x: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        """The model's output as N×C×H×W."""
        if len(shape) == 3:
            x = self.node("Unsqueeze", "output/unsqueeze", [x, self.whole("output/axis", [1])])
            return x, (shape[0], 1, *shape[1:])
        if len(shape) != 4:
            what = f"is {'×'.join(map(str, shape))}, not a map of N×C×H×W"
            raise UsageError(what, where=f"output {self.foreign.output}", fix="only segmentations can be adopted")
        if self.foreign.nchw or shape[1] == 1 != shape[3]:
            return x, shape
        x = self.node("Transpose", "output/channels_first", [x], perm=[0, 3, 1, 2])
        return x, (shape[0], shape[3], shape[1], shape[2])

    def resized(self, x: str, shape: tuple[int, ...], size: tuple[int, int], mode: str, **how: Any) -> str:
        """Maps at the picture's size."""
        if shape[2:] == size:
            return x
        scales = self.float("output/scales", [1, 1, size[0] / shape[2], size[1] / shape[3]])
        return self.node("Resize", "output/resize", [x, "", scales], mode=mode, **how)

    def probability(self, x: str, count: int, chosen: tuple[int, ...]) -> str:
        """Of the chosen classes together."""
        others = tuple(channel for channel in range(count) if channel not in chosen)
        if self.options.activation == "argmax":
            lead = self.node("Sub", "output/lead", [self.largest(x, count, chosen), self.largest(x, count, others)])
            return self.node("Sigmoid", "output/sigmoid", [lead])
        if self.options.activation == "softmax":
            x = self.node("Softmax", "output/softmax", [x], axis=1)
            x = self.picked(x, count, chosen)
            x = self.node("ReduceSum", "output/sum", [x, self.whole("output/classes", [1])], keepdims=1)
            return self.clamped(x)
        x = self.largest(x, count, chosen)
        if self.options.activation == "sigmoid":
            return self.node("Sigmoid", "output/sigmoid", [x])
        return self.clamped(x)

    def largest(self, x: str, count: int, channels: tuple[int, ...]) -> str:
        """The largest of some channels."""
        x = self.picked(x, count, channels)
        if len(channels) == 1:
            return x
        label = "_".join(map(str, channels[:2]))
        return self.node(
            "ReduceMax", f"output/max_{label}", [x, self.whole(f"output/max_{label}_axis", [1])], keepdims=1
        )

    def picked(self, x: str, count: int, channels: tuple[int, ...]) -> str:
        """Some channels of a map."""
        if channels == tuple(range(count)):
            return x
        label = "_".join(map(str, channels[:2]))
        if channels == tuple(range(channels[0], channels[-1] + 1)):  # a slice: exact folds know it
            ends = [
                self.whole(f"output/from_{label}", [channels[0]]),
                self.whole(f"output/to_{label}", [channels[-1] + 1]),
            ]
            return self.node("Slice", f"output/pick_{label}", [x, *ends, self.whole(f"output/axis_{label}", [1])])
        return self.node("Gather", f"output/pick_{label}", [x, self.whole(f"output/which_{label}", channels)], axis=1)

    def labels(self, x: str, kind: int, shape: tuple[int, ...]) -> str:
        """One where the class number is one of the chosen, else zero."""
        from onnx import TensorProto

        if shape[1] != 1:
            raise UsageError(f"has {shape[1]} channels, labels are one", where=f"output {self.foreign.output}")
        if kind != TensorProto.FLOAT:
            x = self.node("Cast", "output/labels", [x], to=TensorProto.FLOAT)
        size = (self.foreign.height, self.foreign.width)
        x = self.resized(x, shape, size, "nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
        if not self.options.channels:  # class numbers are whole: 1 where above zero
            return self.clamped(x)
        hits = []
        for channel in sorted(set(self.options.channels)):
            label = f"output/is_{channel}"
            same = self.node("Equal", label, [x, self.float(f"{label}_value", float(channel))])
            hits.append(self.node("Cast", f"{label}_cast", [same], to=TensorProto.FLOAT))
        return hits[0] if len(hits) == 1 else self.node("Sum", "output/any", hits)

    def clamped(self, x: str) -> str:
        """Between zero and one."""
        return self.node("Clip", "output/clamp", [x, self.float("output/low", 0.0), self.float("output/high", 1.0)])

    def affine(self, x: str, where: str, gain: Any, offset: Any) -> str:
        """A product and a sum per channel."""
        shape = () if np.ptp(gain) == 0 and np.ptp(offset) == 0 else (1, -1, 1, 1)
        gain, offset = (np.reshape(value if shape else value[0], shape) for value in (gain, offset))
        x = self.node("Mul", f"{where}/gain", [x, self.float(f"{where}/gain_by", gain)])
        if not np.any(offset):
            return x
        return self.node("Add", f"{where}/offset", [x, self.float(f"{where}/offset_by", offset)])

    def node(self, op: str, name: str, inputs: list[str], *, output: str = "", **attributes: Any) -> str:
        """Add a node; its output."""
        from onnx import helper

        made = output or f"{name}/out"
        self.nodes.append(helper.make_node(op, inputs, [made], name, **attributes))
        return made

    def float(self, name: str, value: Any) -> str:
        """Store FP32 numbers."""
        return self._constant(name, np.asarray(value, np.float32))

    def whole(self, name: str, value: Any) -> str:
        """Store whole numbers."""
        return self._constant(name, np.asarray(value, np.int64))

    def _constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self.model.graph.initializer.append(numpy_helper.from_array(value, name))
        return name
