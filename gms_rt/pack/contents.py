"""An engine, read and verified once for all the folders that are made of it."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt.arrays import U8
from gms_rt.artifacts import sha256_file
from gms_rt.engine.golden import Golden, read_golden
from gms_rt.engine.manifest import (
    CERTIFICATE,
    GOLDEN,
    MANIFEST,
    STEERED,
    EngineManifest,
    Plan,
    read_manifest,
    read_verified,
    verify_files,
)
from gms_rt.engine.select import load
from gms_rt.errors import UsageError
from gms_rt.graph.graph import Graph
from gms_rt.graph.read import graph_facts, read_graph
from gms_rt.precision.gate import GATE_MEAN, GATE_MIN
from gms_rt.runtime.binding import check_graph
from gms_rt.telemetry import quiet_module

_LIMIT = 8  # pictures that travel: enough to tell a wrong answer, few enough to read


@dataclass(frozen=True)
class EngineContents:
    """An engine folder whose files are what its manifest says."""

    folder: Path
    manifest: EngineManifest
    golden: Golden  # at most a few of the engine's reference pictures
    answers: U8  # what the engine itself answers to them on this machine's CPU
    answered_by: str  # which runtime and arithmetic gave them, in words
    certificate: dict[str, Any] | None  # parity.json, where there is one

    @functools.cached_property
    def onnx(self) -> bytes:
        """The typed graph."""
        return read_verified(self.folder, self.manifest, self.manifest.graph)

    @functools.cached_property
    def graph(self) -> Graph:
        """The typed graph in memory."""
        return read_graph(self.folder / self.manifest.graph)

    @functools.cached_property
    def any_batch(self) -> bool:
        """Whether the graph takes any number of images at once."""
        return graph_facts(self.folder / self.manifest.graph).batch is None

    @property
    def batch(self) -> int:
        """Images per inference."""
        return self.manifest.batch

    @property
    def name(self) -> str:
        """The engine's name, of characters that every host takes."""
        kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in self.manifest.name)
        return kept.strip("-.") or "engine"

    @functools.cached_property
    def identity(self) -> dict[str, str]:
        """What tells this engine from every other."""
        source = self.manifest.source
        return {
            "gms_rt_engine": self.manifest.name,
            "gms_rt_version": self.manifest.gms_rt,
            "gms_rt_precision": self.manifest.precision,
            "gms_rt_execution": self.manifest.execution,
            "gms_rt_manifest_sha256": sha256_file(self.folder / MANIFEST),
            "gms_rt_source": str(source.get("name", "")),
            "gms_rt_source_sha256": str(source.get("sha256", "")),
            "gms_rt_notice": "Not for clinical use.",
        }

    @property
    def labels(self) -> list[str]:
        """The names of the mask's classes."""
        return [each.name for each in self.manifest.segment_classes]

    def plans(self, target: str) -> list[Plan]:
        """The plans of a target."""
        return [plan for plan in self.manifest.plans if plan.target == target]

    def write_ir(self, place: Path) -> None:
        """Write the CPU's form as `place` (NAME.xml) and NAME.bin, with the engine's identity in it."""
        openvino = quiet_module("openvino")
        core = openvino.Core()
        if self.manifest.model == STEERED:
            model = core.read_model(
                read_verified(self.folder, self.manifest, STEERED),
                openvino.Tensor(np.frombuffer(read_verified(self.folder, self.manifest, f"{STEERED}.bin"), np.uint8)),
            )
        else:
            model = core.read_model(self.onnx)
        for key, value in self.identity.items():
            model.set_rt_info(value, ["gms_rt", key.removeprefix("gms_rt_")])
        place.parent.mkdir(parents=True, exist_ok=True)
        openvino.save_model(model, str(place), compress_to_fp16=False)

    def write_golden(self, place: Path) -> None:
        """Write the pictures, the reference's answers and the engine's own."""
        gate = self.manifest.gate or {}
        arrays: dict[str, Any] = {
            "images": self.golden.images,
            "probabilities": self.golden.probabilities,
            "answers": self.answers,
            "names": np.array(self.golden.names),
            "origin": np.array(self.golden.origin),
            "answered_by": np.array(self.answered_by),
            "gate": np.array([gate.get("gate_mean", GATE_MEAN), gate.get("gate_min", GATE_MIN)], np.float64),
            "synthetic": np.array(self.golden.synthetic),
            "source": np.array(self.golden.source),
        }
        with place.open("wb") as stream:
            np.savez_compressed(stream, **arrays)


def engine_contents(folder: Path) -> EngineContents:
    """Read an engine, verify its files, and let it answer to its own reference pictures."""
    manifest = read_manifest(folder)
    verify_files(folder, manifest, list(manifest.files))
    if "cpu" not in manifest.targets:
        raise UsageError(
            "has no graph for a CPU, which every folder is checked with",
            where=folder,
            fix="build it with --target cpu as well",
        )
    if not (folder / GOLDEN).is_file():
        raise UsageError(
            "has no reference pictures (golden.npz), so no host's answer could be compared",
            where=folder,
            fix="export or adopt the graph with --reference, and build it again",
        )
    golden = read_golden(folder / GOLDEN)
    golden = golden.part(range(min(_LIMIT, len(golden.images))))
    check_graph(folder)  # in a process of its own, before anything opens it here
    with load(folder, device="cpu", trust_device=True) as engine:
        answers = engine.runner.infer(golden.images)
        info = engine.runner.info
    path = folder / CERTIFICATE
    certificate = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    by = f"OpenVINO {quiet_module('openvino').get_version().split('-')[0]}, {info.execution}, on {info.device}"
    return EngineContents(folder, manifest, golden, answers, by, certificate)
