"""From what a build starts with (the bundled model, a run, a graph) to a fused graph in memory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gms_rt.artifacts import sha256_file
from gms_rt.class_lists import classes_from_file, classes_from_run, classes_from_values
from gms_rt.classes import SegmentClass
from gms_rt.demo.bundled import demo_graph
from gms_rt.engine.manifest import is_engine
from gms_rt.engine.request import BuildRequest
from gms_rt.errors import ArtifactError, GmsError, MissingExtraError, UsageError
from gms_rt.graph.finite import check_weights
from gms_rt.graph.graph import Graph
from gms_rt.graph.read import GraphFacts, graph_facts, read_graph
from gms_rt.model.hub_graph import graph_from_hub, is_hub_graph
from gms_rt.model.kind import weights_file
from gms_rt.model.size import run_size
from gms_rt.progress import OnProgress, silent
from gms_rt.runtime.binding import check_graph


@dataclass(frozen=True)
class SourceGraph:
    """A fused graph to build from."""

    path: Path
    sha256: str
    graph: Graph  # with its batch fixed
    any_batch: bool  # it was exported for any number of images, and none was asked for
    about: dict[str, Any]  # for the manifest: kind is "bundled", "run" or "graph"
    classes: tuple[SegmentClass, ...] = ()  # of its mask; none where nobody said

    @property
    def bundled(self) -> bool:
        """Whether it is the model that comes with the package."""
        return bool(self.about["kind"] == "bundled")

    @property
    def reference(self) -> Path:
        """Where the exporter left pictures and what PyTorch made of them."""
        return self.path.with_suffix(".golden.npz")


def read_source(request: BuildRequest, progress: OnProgress = silent) -> SourceGraph:
    """The fused graph of a request, exported first where the source is a run."""
    path, about = _graph_file(request, progress)
    check_graph(path)  # before onnx and OpenVINO read it in this process
    facts = graph_facts(path)
    if facts.batch is not None and request.batch not in (None, facts.batch):
        raise UsageError(
            f"{request.batch} was asked for, but the graph was exported for {facts.batch}",
            where="--batch",
            fix=f"export it again with --batch {request.batch} or --batch 1-{request.batch}",
        )
    any_batch = facts.batch is None and request.batch is None
    classes = _classes(request, path, facts)
    graph = read_graph(path, batch=request.batch)
    check_weights(graph, path)
    return SourceGraph(path, facts.sha256, graph, any_batch, about, classes)


def _classes(request: BuildRequest, graph: Path, facts: GraphFacts) -> tuple[SegmentClass, ...]:
    """The classes of the mask: those asked for, else the run's own, else what the graph says."""
    if request.classes is not None:
        return classes_from_file(request.classes)
    run = graph.parent if request.source is None else request.source  # the bundled graph stands in its run
    own = classes_from_run(run) if run.is_dir() else ()
    text = facts.metadata.get("gms_rt.classes")
    if own or text is None:
        return own
    where = f"{graph}: metadata gms_rt.classes"
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError("is not JSON", where=where, fix="export the graph again, or give --classes") from error
    return classes_from_values(values, where=where, error=ArtifactError)


def _graph_file(request: BuildRequest, progress: OnProgress) -> tuple[Path, dict[str, Any]]:
    source = request.source
    if source is not None and is_engine(source):
        raise UsageError("is already an engine", where=source, fix="give the run or graph it was built from")
    if source is not None and is_hub_graph(source):
        progress("from the hub", 0, 1)
        graph = graph_from_hub(source)
        if request.size is not None:
            raise UsageError("a graph already has its size", where="--size")
        return graph, {"kind": "graph", "hub": str(source)}
    if source is not None and source.is_dir():
        return _graph_of_run(source, request.size, progress), {"kind": "run", "run": source.resolve().name}
    if source is not None and not source.exists():
        raise UsageError("does not exist", where=source, fix="give a run folder or a graph (.onnx)")
    if request.size is not None:
        raise UsageError("a graph already has its size", where="--size", fix="export it again with that size")
    return (demo_graph(), {"kind": "bundled"}) if source is None else (source, {"kind": "graph"})


def _graph_of_run(run: Path, size: str | None, progress: OnProgress) -> Path:
    """The run's graph of this size: the one exported from these very weights, else a new export."""
    height, width = run_size(run, size)
    graph, weights = run / f"fused-{height}x{width}.onnx", weights_file(run)
    if graph.is_file() and weights.is_file() and _exported_from(graph) == sha256_file(weights):
        return graph
    try:
        from gms_rt.export.fuse import graph_from_run
        from gms_rt.export.options import ExportOptions
    except ImportError as error:
        raise MissingExtraError("building from a run", "train") from error
    progress("export", 0, 1)
    return graph_from_run(run, graph, ExportOptions(height, width))


def _exported_from(graph: Path) -> str | None:
    """The hash of the weights that a graph was exported from, as it says itself."""
    try:
        value = json.loads(graph_facts(graph).metadata["gms_rt.source"])["sha256"]
    except (GmsError, ValueError, LookupError, TypeError):  # damaged in whatever way: it is exported again
        return None
    return value if isinstance(value, str) else None
