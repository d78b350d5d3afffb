"""A student becomes the same kind of graph: uint8 picture in, uint8 probability out.

Three things are written otherwise than they were trained, with the same results:
- pixel unshuffle and the 3x3 convolution behind it are one convolution of 12 rows by 3 blocks of 4 pixels. A row of
  pixels is a row of such blocks as it lies in memory, so that nothing has to be moved;
- a pixel shuffle takes its channels in blocks (DCR), which in the layout that CPUs and GPUs compute in are copies of
  whole rows of channels; the convolution before it has its outputs in that order;
- the probability is taken and rounded on the coarse grid, and only then are the pixels put in their places.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gms_rt.classes import SegmentClass
from gms_rt.data.reference_pictures import ReferencePictures
from gms_rt.export.finish import ModelFacts, finish_graph
from gms_rt.export.options import ExportOptions, check_options
from gms_rt.export.torch_to_onnx import ExportStage, check_finite, export_stage
from gms_rt.graph.fold import fold_exactly
from gms_rt.graph.graph import INPUT, LEARNED_RANGES, OUTPUT, Graph, attribute
from gms_rt.graph.join import join_stages, name_pixel_arithmetic
from gms_rt.model.student import STRIDES, Student, check_student_size
from gms_rt.model.student_folding import convolutions, fold_student

# Where the parts of a student belong among the stages that every fused graph has.
_STAGES = {"stem": "encoder", "downs": "encoder", "levels": "encoder", "context": "lmm", "merges": "lmm"}
_NAME = "student"  # what the names of its tensors begin with


def check_student(student: Student, options: ExportOptions) -> None:
    """Refuse to export in a way that does not fit, or weights that are not numbers."""
    check_student_size(options.height, options.width)
    check_options(options)
    check_finite(student.state_dict())


class FusedStudent(nn.Module):
    """uint8 N×H×W×3 pictures to uint8 N×H×W×1 probabilities."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = fold_student(student)
        self.block = student.shape.unshuffle
        self.stem = _stem_on_rows(self.student.stem.conv, self.block)

    def forward(self, images: Tensor) -> Tensor:
        """Segment. The casts come first and last: TensorRT lets nothing else touch uint8."""
        count, height, width, _ = images.shape
        rows = images.to(torch.float32).reshape(count, height, width // self.block, 3 * self.block)
        finest = self.student.features_from_stem(self.stem(rows.permute(0, 3, 1, 2)))[0]
        levels = (torch.sigmoid(self.student.mask(finest)) * 255).round()
        side, (_, _, high, wide) = STRIDES[0], levels.shape
        blocks = levels.permute(0, 2, 3, 1).reshape(count, high, wide, side, side)
        return blocks.permute(0, 1, 3, 2, 4).reshape(count, height, width, 1).to(torch.uint8)


def graph_from_student(
    student: Student,
    out: Path,
    *,
    source: dict[str, str],
    options: ExportOptions | None = None,
    pictures: ReferencePictures | None = None,
    classes: Sequence[SegmentClass] = (),
    ranges: Mapping[str, float] | None = None,
) -> Path:
    """Export a student in memory.

    `pictures` replaces the phantoms as reference, `source` says where it comes from, `classes` what its mask shows,
    `ranges` what each convolution takes at most, as it was learned: the graph carries them for INT8.
    """
    options = options or ExportOptions()
    check_student(student, options)
    student.eval()
    picture = torch.zeros(options.example_batch, options.height, options.width, 3, dtype=torch.uint8)
    stage = ExportStage(_NAME, FusedStudent(student), (picture,))
    model = join_stages([export_stage(stage, options.opset, options.network_batch)], INPUT, OUTPUT)
    graph = Graph(model)
    fold_exactly(graph)
    _name_layers(graph, list(convolutions(student)))
    _shuffle_blocks(graph)
    name_pixel_arithmetic(graph.model)
    about = {**source, "student": json.dumps(student.shape.to_values())}
    carried = _carried_ranges(graph, ranges or {})
    finish_graph(graph, student, out, options, ModelFacts(about, classes, properties=carried), pictures)
    return out


def _stem_on_rows(conv: nn.Conv2d, block: int) -> nn.Conv2d:
    """The first convolution on grey levels of 0 to 255, whose channels are the pixels of a block of a row."""
    outputs, stride, side = conv.out_channels, conv.stride[0], conv.kernel_size[0]
    assert conv.bias is not None
    result = nn.Conv2d(3 * block, outputs, (side * block, side), (stride * block, stride), (block, 1))
    # Channels are colour, row and column of the pixel in its block, as pixel unshuffle has them.
    weight = conv.weight.detach().double().reshape(outputs, 3, block, block, side, side) / 255
    result.weight.data = weight.permute(0, 3, 1, 4, 2, 5).reshape(result.weight.shape).float()
    result.bias = nn.Parameter(conv.bias.detach().clone())
    return result


def _name_layers(graph: Graph, names: Sequence[str]) -> None:
    """Name each convolution as in the student, behind its stage, and what follows it, values too, after that stage."""
    ran = iter(names)
    where, renamed = "encoder", dict[str, str]()
    for node in graph.nodes:
        for place, value in enumerate(node.input):
            node.input[place] = renamed.get(value, value)
        if node.op_type == "Conv":
            name = next(ran)
            where = _STAGES.get(name.partition(".")[0], "decoder")
            node.name = f"{where}/{name}"
        else:
            node.name = f"{where}/{node.name.partition('/')[2]}"
        for place, value in enumerate(node.output):
            if value.startswith(f"{_NAME}/"):
                renamed[value] = node.output[place] = f"{where}/{value.partition('/')[2]}"
    graph.refresh()
    assert next(ran, None) is None, "the graph has fewer convolutions than the student"


def _shuffle_blocks(graph: Graph) -> None:
    """Let every DepthToSpace take its channels in blocks, and the convolution before it give them so."""
    from onnx import numpy_helper

    for node in graph.nodes:
        if node.op_type != "DepthToSpace" or attribute(node, "mode", b"DCR") == b"DCR":
            continue
        conv, size = graph.producer[node.input[0]], attribute(node, "blocksize", 0) ** 2
        for name in conv.input[1:]:
            values = graph.constant(name)
            order = np.arange(len(values)).reshape(-1, size).T.reshape(-1)
            graph.initialisers[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[order]), name))
        _mode(node).s = b"DCR"
    graph.refresh()


def _carried_ranges(graph: Graph, ranges: Mapping[str, float]) -> dict[str, str]:
    """What the graph's description says of what each quantised convolution takes at most."""
    if not ranges:
        return {}
    taken = {node.name.partition("/")[2]: node.input[0] for node in graph.nodes if node.op_type == "Conv"}
    highest = {taken[name]: high for name, high in ranges.items()}
    return {LEARNED_RANGES: json.dumps(highest)}


def _mode(node: Any) -> Any:
    return next(each for each in node.attribute if each.name == "mode")
