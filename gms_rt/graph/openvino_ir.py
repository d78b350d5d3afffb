"""OpenVINO's own form of a graph, in which single nodes can be kept in f32 where the others run in bf16 or f16.

An ONNX file cannot say that, and neither can OpenVINO's C API: `INFERENCE_PRECISION_HINT` is for the whole graph. In
OpenVINO's form a layer can have the attribute `precise` (its `DisableFP16Compression`), and its CPU plugin leaves such
a layer the type it has, under bf16 too. What OpenVINO fuses into a convolution must have the same type: a bias, the sum
of a residual, an activation. So these are marked along with it.
"""

from __future__ import annotations

import tempfile
import xml.etree.ElementTree as Xml
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from gms_rt.errors import GmsError
from gms_rt.graph.graph import Graph
from gms_rt.telemetry import quiet_module

_COMPUTING = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
_FUSED = ("Add", "Subtract", "Multiply", "ReLU", "PReLU", "Sigmoid", "Tanh", "Clamp", "Swish", "HSwish", "Elu", "Gelu",
          "Mish")  # fmt: skip


@dataclass(frozen=True)
class IrModel:
    """A graph in OpenVINO's form: the document, and the constants that it points into."""

    xml: bytes
    constants: bytes


class IrGraph:
    """A graph that was brought into OpenVINO's form once, to be marked in many ways."""

    def __init__(self, graph: Graph) -> None:
        openvino = quiet_module("openvino")
        self._names = {node.name for node in graph.nodes}
        try:
            model = openvino.Core().read_model(graph.bytes())
        except RuntimeError as error:
            raise GmsError(f"OpenVINO cannot read the graph ({str(error).strip().splitlines()[-1]})") from error
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder, "graph.xml")
            openvino.serialize(model, str(place))
            self._xml, self._constants = place.read_bytes(), place.with_suffix(".bin").read_bytes()

    def keeping(self, nodes: Collection[str]) -> IrModel:
        """The graph with these of its ONNX nodes, and what is fused into them, marked to stay as they are typed."""
        root = Xml.fromstring(self._xml)  # noqa: S314 - OpenVINO wrote it, in this process
        layers = {layer.get("id", ""): layer for layer in root.iterfind("layers/layer")}
        takers: dict[str, list[str]] = {}
        for edge in root.iterfind("edges/edge"):
            taker = edge.get("to-layer", "")
            if layers[taker].get("type") != "ShapeOf":  # shapes are folded away
                takers.setdefault(edge.get("from-layer", ""), []).append(taker)
        wanted = set(nodes)
        marked = {number for number, layer in layers.items() if self._node_of(layer.get("name", "")) in wanted}
        waiting = [number for number in marked if layers[number].get("type") in _COMPUTING]
        while waiting:
            following = takers.get(waiting.pop(), [])
            # What several layers take ends a fusion.
            if len(following) == 1 and layers[following[0]].get("type") in _FUSED:
                marked.add(following[0])
                waiting.append(following[0])
        for number in marked:
            layer = layers[number]
            info = layer.find("rt_info")
            if info is None:
                info = Xml.Element("rt_info")
                layer.insert(0, info)
            Xml.SubElement(info, "attribute", {"name": "precise", "version": "0"})
        return IrModel(b'<?xml version="1.0"?>\n' + Xml.tostring(root), self._constants)

    def _node_of(self, layer: str) -> str:
        """The ONNX node that a layer is, or is a part of: `conv/WithoutBiases` is a part of `conv`."""
        while layer not in self._names and "/" in layer:
            layer = layer.rpartition("/")[0]
        return layer


def write_ir(model: IrModel, place: Path) -> None:
    """Write NAME.xml, and its constants as NAME.xml.bin, where the C library looks for them."""
    place.write_bytes(model.xml)
    place.with_name(f"{place.name}.bin").write_bytes(model.constants)
