"""A comparator becomes the same kind of graph: uint8 picture in, uint8 probability out.

Its layers are named after the network's own modules as far as the exporter tells them, all behind `network/`. Where it
works in a frozen tokenizer's latents, the parts of that which segment are in the graph, too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from gms_rt.classes import SegmentClass
from gms_rt.data.reference_pictures import ReferencePictures
from gms_rt.export.finish import ModelFacts, finish_graph
from gms_rt.export.options import ExportOptions, check_options
from gms_rt.export.torch_to_onnx import ExportStage, check_finite, export_stage
from gms_rt.graph.fold import fold_exactly
from gms_rt.graph.graph import INPUT, OUTPUT, Graph
from gms_rt.graph.join import join_stages, name_pixel_arithmetic
from gms_rt.model.comparators.layers import fold_norms
from gms_rt.model.comparators.network import Comparator, check_comparator_size, mask_probability


def check_comparator(comparator: Comparator, options: ExportOptions) -> None:
    """Refuse to export in a way that does not fit, or weights that are not numbers."""
    check_comparator_size(comparator.facts, comparator.size, options.height, options.width)
    check_options(options)
    check_finite({**dict(comparator.named_parameters()), **dict(comparator.named_buffers())})


class FusedComparator(nn.Module):
    """uint8 N×H×W×3 pictures to uint8 N×H×W×1 probabilities."""

    def __init__(self, comparator: Comparator) -> None:
        super().__init__()
        self.network = fold_norms(comparator.network)

    def forward(self, images: Tensor) -> Tensor:
        """Segment. The casts come first and last: TensorRT lets nothing else touch uint8."""
        pixels = images.to(torch.float32).permute(0, 3, 1, 2) / 255
        levels = (mask_probability(self.network, pixels) * 255).round()
        return levels.permute(0, 2, 3, 1).to(torch.uint8)


def graph_from_comparator(
    comparator: Comparator,
    out: Path,
    *,
    source: dict[str, str],
    options: ExportOptions | None = None,
    pictures: ReferencePictures | None = None,
    classes: Sequence[SegmentClass] = (),
) -> Path:
    """Export a comparator in memory.

    `pictures` replaces the phantoms as reference, `source` says where it comes from, `classes` what its mask shows.
    """
    options = options or ExportOptions(comparator.size, comparator.size)
    check_comparator(comparator, options)
    comparator.eval()
    picture = torch.zeros(options.example_batch, options.height, options.width, 3, dtype=torch.uint8)
    stage = ExportStage("network", FusedComparator(comparator), (picture,))
    graph = Graph(join_stages([export_stage(stage, options.opset, options.network_batch)], INPUT, OUTPUT))
    fold_exactly(graph)
    name_pixel_arithmetic(graph.model)
    about = {**source, "comparator": json.dumps({"model": comparator.facts.name, "size": comparator.size})}
    tokenizer = {} if comparator.tokenizer is None else comparator.tokenizer.told_in_graph()
    finish_graph(graph, comparator, out, options, ModelFacts(about, classes, tokenizer), pictures)
    return out
