"""The peers of a bench: from the names of `--against` to opened peers, and how good their masks are."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt import metrics
from gms_rt.bench.results import Measured
from gms_rt.bench.subjects import fit_images
from gms_rt.engine.golden import Golden
from gms_rt.errors import GmsError, UsageError
from gms_rt.peers import GRAPH_KINDS, TORCH_KINDS
from gms_rt.peers.client import Peer
from gms_rt.scan.mask import FOREGROUND

NAMES = (*TORCH_KINDS, *GRAPH_KINDS)


@dataclass(frozen=True)
class PeerOptions:
    """What the peers of one bench open, and how."""

    run: Path | None = None  # the trained run, for torch
    graph: Path | None = None  # the fused graph, for ONNX Runtime and OpenVINO
    threads: int = 0  # CPU threads (0: the runtime's choice)
    device: str | None = None  # "cpu" or "cuda[:N]"
    size: tuple[int, int] = (224, 224)  # height and width for those that have none of their own


def open_peers(
    wanted: Sequence[str],
    stack: contextlib.ExitStack,
    options: PeerOptions,
    *,
    lost: list[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Peer]:
    """Open peers by name: torch needs a run folder, a runtime alone the fused graph, `RUNTIME:FILE.onnx` has its model.

    A model without a runtime is ONNX Runtime's.

    A wrong name or file is the user's mistake and raised before any is opened; a peer that breaks down by itself is
    left out, with a sentence in `lost`, where that is given.
    """
    chosen = [_chosen(name, options) for name in wanted]
    for _, _, label in chosen:
        if [c[2] for c in chosen].count(label) > 1:
            raise UsageError(f"'{label}' is named twice", where="--against", fix="name each peer once")
    place = options.device if options.device and options.device.startswith("cuda") else "cpu"
    peers: list[Peer] = []
    for kind, path, label in chosen:
        if progress:
            slow = " (compiling may take minutes)" if kind == "torch-compile" else ""
            progress(f"opening {label}{slow}")
        try:
            peer = Peer(kind, path, label, threads=options.threads, device=place, size=options.size)
            peers.append(stack.enter_context(peer))
        except UsageError:
            raise
        except GmsError as error:
            if lost is None:
                raise
            lost.append(f"{label} could not be measured: {error.what}")
    return peers


def _chosen(name: str, options: PeerOptions) -> tuple[str, Path, str]:
    """What a name of --against means: kind, file or folder, label."""
    if name in TORCH_KINDS:
        if options.run is None:
            raise UsageError(
                f"'{name}' needs the trained run that the engine was built from",
                where="--against",
                fix="name it with --run runs/NAME",
            )
        return name, options.run, name
    runtime, named, file = name.partition(":")
    if name in GRAPH_KINDS:
        graph = options.graph
        if graph is None:
            raise UsageError(f"'{name}' needs an engine or a graph", where="--against", fix="add --engine DIR")
        if not graph.is_file():
            raise UsageError("is not a file", where=graph, fix="name the exported graph with --graph FILE.onnx")
        return name, graph, name
    if runtime not in GRAPH_KINDS:
        runtime, named, file = "onnxruntime", "", name
    path = Path(file)
    if path.suffix != ".onnx":
        raise UsageError(
            f"'{name}' is neither a peer nor a model",
            where="--against",
            fix=f"choose among {', '.join(NAMES)} or name a FILE.onnx",
        )
    if not path.is_file():
        raise UsageError("is not a file", where=path, fix="name an ONNX segmentation model")
    return runtime, path, f"{path.stem}-{runtime}" if named else path.stem


def with_dice(measured: Measured, peer: Peer, golden: Golden | None) -> Measured:
    """A peer's row with its masks judged: against the FP32 reference if it is the same model, and the truth."""
    changed = dataclasses.replace(measured, parameters=peer.parameters)
    if golden is None:
        return changed
    produced = peer.infer(fit_images(golden.images, peer.info.height, peer.info.width))
    size = golden.probabilities.shape[1:]
    masks = [_fitted(p >= FOREGROUND, size) for p in produced]
    if measured.name in NAMES:
        changed = dataclasses.replace(changed, reference_dice=_mean_dice(masks, golden.probabilities >= FOREGROUND))
    if golden.truth is not None:
        changed = dataclasses.replace(changed, truth_dice=_mean_dice(masks, golden.truth))
    return changed


def _mean_dice(masks: list[NDArray[Any]], references: NDArray[Any]) -> float:
    return float(np.mean([metrics.dice(m, r) for m, r in zip(masks, references, strict=True)]))


def _fitted(mask: NDArray[np.bool_], size: tuple[int, ...]) -> NDArray[Any]:
    """A mask at another size, by the nearest pixel."""
    import cv2

    plain = mask.astype(np.uint8)
    if plain.shape == size:
        return plain
    return np.asarray(cv2.resize(plain, (size[1], size[0]), interpolation=cv2.INTER_NEAREST), np.uint8)
