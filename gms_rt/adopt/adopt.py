"""`graph_from_foreign`: somebody else's ONNX file in; our graph, and a reference next to it, out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gms_rt.adopt.answers import OriginalModel
from gms_rt.adopt.foreign import foreign_model
from gms_rt.adopt.options import AdoptOptions
from gms_rt.adopt.wrap import wrapped_graph
from gms_rt.arrays import U8
from gms_rt.artifacts import check_writable
from gms_rt.classes import SegmentClass
from gms_rt.data.reference_pictures import phantom_pictures, reference_from_place
from gms_rt.engine.golden import Golden, write_golden_file
from gms_rt.errors import GmsError, UsageError
from gms_rt.graph.count import work_from_graph
from gms_rt.graph.graph import Graph
from gms_rt.graph.join import describe_graph
from gms_rt.graph.run import Session
from gms_rt.graph.write import write_graph
from gms_rt.runtime.binding import check_graph

_LEVELS = 2  # of 255, by which rounding may differ
_SHARE = 1e-3  # of the pixels that may differ by more: where a mask hangs on the last digit


@dataclass(frozen=True)
class AdoptedGraph:
    """What was written, and how well it answers as the model itself does."""

    graph: Path
    golden: Path
    height: int
    width: int
    channels: int  # that the model takes: 1 (grey) or 3
    gflop: float  # per picture
    runtime: str  # that the reference is of
    pictures: str  # which pictures the reference is of, in words
    count: int  # how many
    synthetic: bool  # drawn, because none were named
    largest_difference: int  # in levels of 255, between the wrapped graph and the model as it came


def graph_from_foreign(
    model: Path,
    out: Path,
    options: AdoptOptions,
    *,
    reference: Path | None = None,
    classes: Sequence[SegmentClass] = (),
    runtime: str = "openvino",
) -> AdoptedGraph:
    """Adopt a model: `out`, with `<out>.golden.npz` next to it.

    `reference` names pictures whose masks by the model as it came are stored; phantoms are drawn where it is None.
    """
    if out.exists() and out.samefile(model):
        raise UsageError("is the model itself", where=f"--out {out}", fix="choose another name")
    check_writable(out)
    foreign = foreign_model(model, options)
    graph = wrapped_graph(foreign, options)
    about = {"kind": "adopted", "name": model.name, "sha256": foreign.sha256, **options.numbers}
    describe_graph(graph.model, out.stem, {}, about, classes)
    height, width = foreign.height, foreign.width
    if reference is None:
        pictures = phantom_pictures(height, width, "no pictures were named")
    else:
        pictures = reference_from_place(reference, height, width)
    _try(graph, out.name)  # before OpenVINO opens it in this process
    original = OriginalModel(foreign, options, runtime)
    levels = original.levels(pictures.images)
    largest = _compare(Session(graph).probabilities(pictures.images), levels, model)
    origin = f"{original.runtime} FP32 of {model.name} as it came"
    golden = Golden(
        pictures.images, levels, pictures.truth, tuple(pictures.names), origin, "", pictures.synthetic, pictures.source
    )
    place = out.with_suffix(".golden.npz")
    write_golden_file(place, golden)
    write_graph(graph, out, check=True)
    return AdoptedGraph(
        graph=out,
        golden=place,
        height=height,
        width=width,
        channels=foreign.channels,
        gflop=work_from_graph(graph).flop / options.batch / 1e9,
        runtime=original.runtime,
        pictures=pictures.source,
        count=len(levels),
        synthetic=pictures.synthetic,
        largest_difference=largest,
    )


def _try(graph: Graph, name: str) -> None:
    """Let OpenVINO open and run a graph in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, name)
        write_graph(graph, place)
        check_graph(place)


def _compare(ours: U8, theirs: U8, model: Path) -> int:
    """The largest difference in levels; refuse a graph that does not answer as the model does."""
    gap = np.abs(ours.astype(np.int16) - theirs)
    share = float(np.mean(gap > _LEVELS))
    if share > _SHARE:
        raise GmsError(
            f"the wrapped graph does not answer as the model does: {share:.2%} of the pixels differ by more than "
            f"{_LEVELS} of 255 levels, at most by {int(gap.max())}",
            where=model,
            fix="try another --runtime; if it stays so, please report it with the model",
        )
    return int(gap.max())
