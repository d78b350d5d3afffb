"""A run becomes one graph: encoder, latent mapping and decoder fused, uint8 picture in, uint8 probability out.

The stages are exported one by one, so that every node's name tells where it belongs, joined, folded (exactly) and
written with the reference results of the PyTorch pipeline in a file next to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from gms_rt.artifacts import sha256_file
from gms_rt.class_lists import classes_from_run
from gms_rt.classes import SegmentClass
from gms_rt.data.reference_pictures import ReferencePictures, reference_from_place, reference_from_run
from gms_rt.errors import UsageError
from gms_rt.export.comparator import check_comparator, graph_from_comparator
from gms_rt.export.finish import ModelFacts, finish_graph
from gms_rt.export.options import ExportOptions, check_options
from gms_rt.export.student import check_student, graph_from_student
from gms_rt.export.torch_to_onnx import ExportStage, check_finite, export_stage
from gms_rt.graph.fold import fold_exactly
from gms_rt.graph.graph import INPUT, OUTPUT, Graph
from gms_rt.graph.join import join_stages, name_pixel_arithmetic
from gms_rt.model.any_run import load_any_run
from gms_rt.model.comparators.network import Comparator
from gms_rt.model.gms import Gms
from gms_rt.model.kind import weights_file
from gms_rt.model.student import Student
from gms_rt.model.student_run import ranges_from_run


class PipelinePart(nn.Module):
    """One step of the pipeline as a module."""

    def __init__(self, gms: Gms, step: str) -> None:
        super().__init__()
        self.gms, self.step = gms, step

    def forward(self, value: Tensor, *more: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Take the step."""
        result: Tensor | tuple[Tensor, ...] = getattr(self.gms, self.step)(value, *more)
        return result


def graph_from_run(
    run: Path, out: Path, options: ExportOptions | None = None, *, pictures: ReferencePictures | None = None
) -> Path:
    """Export a run folder to `out` with `<out>.golden.npz` next to it; returns the graph's path.

    Without `pictures` the reference is what `options` names, else validation pictures of the run's own data.
    """
    options = options or ExportOptions()
    model = load_any_run(run)
    _check(model, options)  # before reference pictures are read
    if pictures is None and options.reference is not None:
        pictures = reference_from_place(options.reference, options.height, options.width)
    pictures = pictures or reference_from_run(run, options.height, options.width)
    source = {"kind": "run", "name": run.resolve().name, "sha256": sha256_file(weights_file(run))}
    classes = classes_from_run(run)
    if isinstance(model, Student):
        learned = ranges_from_run(run)
        return graph_from_student(
            model, out, source=source, options=options, pictures=pictures, classes=classes, ranges=learned
        )
    if isinstance(model, Comparator):
        return graph_from_comparator(model, out, source=source, options=options, pictures=pictures, classes=classes)
    return graph_from_gms(model, out, source=source, options=options, pictures=pictures, classes=classes)


def graph_from_gms(
    gms: Gms,
    out: Path,
    *,
    source: dict[str, str],
    options: ExportOptions | None = None,
    pictures: ReferencePictures | None = None,
    classes: Sequence[SegmentClass] = (),
) -> Path:
    """Export a model in memory.

    `pictures` replaces the phantoms as reference, `source` says where it comes from, `classes` what its mask shows.
    """
    options = options or ExportOptions()
    _check(gms, options)
    height, width, batch = options.height, options.width, options.network_batch
    spec, low = gms.tokenizer.spec, options.example_batch
    picture = torch.zeros(low, height, width, 3, dtype=torch.uint8)
    encoded = tuple(
        torch.zeros(low, channels, height // spec.stride, width // spec.stride) for channels in gms.mapper.config.parts
    )
    stages = [
        ExportStage("encoder", PipelinePart(gms, "encode_parts"), (picture,), len(encoded)),
        ExportStage("lmm", PipelinePart(gms, "map_parts"), encoded),
        ExportStage("decoder", PipelinePart(gms, "draw_levels"), encoded[:1]),
    ]
    gms.eval()
    graph = Graph(join_stages([export_stage(stage, options.opset, batch) for stage in stages], INPUT, OUTPUT))
    fold_exactly(graph)
    name_pixel_arithmetic(graph.model)
    finish_graph(graph, gms, out, options, ModelFacts(source, classes, gms.tokenizer.told_in_graph()), pictures)
    return out


def _check(model: Gms | Student | Comparator, options: ExportOptions) -> None:
    if isinstance(model, Student):
        check_student(model, options)
        return
    if isinstance(model, Comparator):
        check_comparator(model, options)
        return
    stride = model.tokenizer.spec.stride
    height, width = options.height, options.width
    if height < stride or width < stride or height % stride or width % stride:
        raise UsageError(
            f"{height}x{width} does not fit this tokenizer", where="--size", fix=f"use multiples of {stride}"
        )
    check_options(options)
    check_finite(model.state_dict())
