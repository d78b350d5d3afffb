"""A repository for the Hugging Face hub: model card, configuration, the FP32 graph and its reference.

What is shared is the graph that engines are built from, not the engine: whoever loads it builds for his own device,
with `gms-rt build hf:OWNER/NAME`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from gms_rt.artifacts import sha256_file, write_json
from gms_rt.errors import UsageError
from gms_rt.model.hub_graph import CONFIG, GRAPH, GRAPH_GOLDEN, HUB_FORMAT, HUB_VERSION
from gms_rt.pack.contents import EngineContents
from gms_rt.pack.host import (
    Host,
    PackOptions,
    fill_template,
    installed_version,
    shared_values,
    template,
    write_template,
)


def _write(contents: EngineContents, folder: Path, options: PackOptions) -> Mapping[str, str]:
    graph, golden = _graph(contents, options)
    shutil.copyfile(graph, folder / GRAPH)
    files = [GRAPH]
    if golden.is_file():
        shutil.copyfile(golden, folder / GRAPH_GOLDEN)
        files.append(GRAPH_GOLDEN)
    manifest = contents.manifest
    write_json(
        folder / CONFIG,
        {
            "format": HUB_FORMAT,
            "version": HUB_VERSION,
            "model_type": "gms-rt",
            "graph": GRAPH,
            "files": {name: sha256_file(folder / name) for name in files},
            "image_size": [manifest.height, manifest.width],
            "input": "uint8 N×H×W×3 RGB",
            "output": "uint8 N×H×W×1, probability × 255",
            "id2label": {"0": "background"} | {str(n): name for n, name in enumerate(contents.labels, 1)},
            "gms_rt": contents.identity,
        },
    )
    (folder / ".gitattributes").write_text("*.onnx filter=lfs diff=lfs merge=lfs -text\n", encoding="utf-8")
    values = shared_values(contents) | {
        "onnxruntime": installed_version("onnxruntime", "1.22.0"),
        "licence_key": "other" if options.licence is not None else "apache-2.0",
        "labels": ", ".join(contents.labels),
    }
    write_template("onnxruntime/client.py", folder / "client.py", values)
    return values | {
        "steps": template("huggingface/steps.md"),
        "front": fill_template(template("huggingface/front.md"), values),
    }


def _graph(contents: EngineContents, options: PackOptions) -> tuple[Path, Path]:
    """The FP32 graph that the engine was built from, and its reference."""
    if options.graph is None:
        raise UsageError(
            "shares the FP32 graph, which an engine does not hold",
            where="--for huggingface",
            fix="name it: --graph GRAPH.onnx",
        )
    graph = options.graph
    if not graph.is_file() or sha256_file(graph) != contents.manifest.source.get("sha256"):
        raise UsageError("is not the graph that this engine was built from", where=f"--graph {graph}")
    if graph.with_name(f"{graph.name}.data").is_file():
        raise UsageError("keeps its weights in a second file, which is not shared", where=f"--graph {graph}")
    return graph, graph.with_suffix(".golden.npz")


HOST = Host("huggingface", "the Hugging Face hub", _write, tried=True)
