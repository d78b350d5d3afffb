"""A graph to its file, whole or not at all; large weights go into a second file, `<name>.onnx.data`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gms_rt.artifacts import atomic_path
from gms_rt.graph.graph import Graph

# Above this many bytes weights get a file of their own; ONNX's own limit for one file is 2 GB.
EXTERNAL_BYTES = 256 << 20


def write_graph(graph: Graph, path: Path, *, check: bool = False) -> list[Path]:
    """Write a graph; returns the files written. `check` lets ONNX's checker judge it before it takes its place."""
    import onnx

    if sum(len(tensor.raw_data) for tensor in graph.model.graph.initializer) <= EXTERNAL_BYTES:
        if check:
            onnx.checker.check_model(graph.model, full_check=True)
        with atomic_path(path) as part:
            part.write_bytes(graph.bytes())
        return [path]
    second = _second(path)
    with atomic_path(path) as part, atomic_path(second) as weights:
        weights.unlink()  # ONNX would append to it
        onnx.save(graph.copy().model, part, save_as_external_data=True, location=weights.name, size_threshold=1024)
        if check:
            onnx.checker.check_model(str(part), full_check=True)
        light = onnx.load(part, load_external_data=False)
        _relocate(light, second.name)
        part.write_bytes(light.SerializeToString())
    return [path, second]


def stored_bytes(path: Path) -> int:
    """Size of a graph's file, with that of its second one where it has one."""
    return sum(file.stat().st_size for file in (path, _second(path)) if file.is_file())


def _second(path: Path) -> Path:
    return path.with_name(f"{path.name}.data")


def _relocate(model: Any, location: str) -> None:
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
