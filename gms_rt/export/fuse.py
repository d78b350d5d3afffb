"""A run becomes one graph: encoder, latent mapping and decoder fused, uint8 picture in, uint8 probability out.

The stages are exported one by one, so that every node's name tells where it belongs, joined, folded (exactly) and
written with the reference results of the PyTorch pipeline beside it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gms_rt.arrays import U8
from gms_rt.artifacts import atomic_path, sha256_file
from gms_rt.demo.phantoms import phantom
from gms_rt.demo.seeds import REFERENCE_SEEDS
from gms_rt.errors import UsageError
from gms_rt.export.onnx_graph import Stage, describe, export_stage, join, name_edges, write_graph
from gms_rt.graph.fold import fold
from gms_rt.model.gms import Gms
from gms_rt.model.run import WEIGHTS, load_run

OPSETS = (18, 21)


class EncoderStage(nn.Module):
    """uint8 N×H×W×3 to scaled latents. The cast comes first: TensorRT lets nothing else read uint8."""

    def __init__(self, gms: Gms) -> None:
        super().__init__()
        self.gms = gms

    def forward(self, image: Tensor) -> Tensor:
        """Encode pictures."""
        return self.gms.encode(image.to(torch.float32).permute(0, 3, 1, 2) / 255)


class MapperStage(nn.Module):
    """Scaled image latents to scaled mask latents."""

    def __init__(self, gms: Gms) -> None:
        super().__init__()
        self.gms = gms

    def forward(self, latent: Tensor) -> Tensor:
        """Map latents."""
        return self.gms.map(latent)


class DecoderStage(nn.Module):
    """Scaled mask latents to uint8 N×H×W×1; the cast comes last."""

    def __init__(self, gms: Gms) -> None:
        super().__init__()
        self.gms = gms

    def forward(self, latent: Tensor) -> Tensor:
        """Draw masks."""
        return (self.gms.probability(latent) * 255).round().permute(0, 2, 3, 1).to(torch.uint8)


def graph_from_run(
    run: Path, out: Path, *, height: int = 224, width: int = 224, batch: tuple[int, int] = (1, 1), opset: int = 18
) -> Path:
    """Export a run folder to `out` with `<out>.golden.npz` beside it; the graph's path."""
    gms = load_run(run)
    source = {"kind": "run", "name": run.resolve().name, "sha256": sha256_file(run / WEIGHTS)}
    return graph_from_model(gms, out, source=source, height=height, width=width, batch=batch, opset=opset)


def graph_from_model(
    gms: Gms,
    out: Path,
    *,
    source: dict[str, str],
    height: int = 224,
    width: int = 224,
    batch: tuple[int, int] = (1, 1),
    opset: int = 18,
    golden: tuple[U8, U8 | None, list[str]] | None = None,
) -> Path:
    """Export a model in memory; `golden` (images, truth, names) replaces the phantoms as reference pictures."""
    _check(gms, height, width, batch, opset)
    spec, low = gms.tokenizer.spec, max(batch[0], min(2, batch[1]))
    grid = (low, spec.channels, height // spec.stride, width // spec.stride)
    stages = [
        Stage("encoder", EncoderStage(gms), torch.zeros(low, height, width, 3, dtype=torch.uint8)),
        Stage("lmm", MapperStage(gms), torch.zeros(grid)),
        Stage("decoder", DecoderStage(gms), torch.zeros(grid)),
    ]
    gms.eval()
    model = join([export_stage(stage, opset, batch) for stage in stages], "image", "mask")
    fold(model)
    name_edges(model)
    # Where the tokenizer lay on this machine is nobody's business; its name and hash are.
    place = Path(spec.source)
    named = replace(spec, source=place.name if place.is_absolute() else spec.source)
    describe(model, out.stem, replace(named, sha256=gms.tokenizer.weights_sha256()).to_json(), dict(source))
    images, truth, names = golden if golden is not None else golden_phantoms(height, width)
    write_golden(gms, out.with_suffix(".golden.npz"), images, truth, names)
    write_graph(model, out)
    return out


def golden_phantoms(height: int, width: int) -> tuple[U8, U8, list[str]]:
    """The reference pictures of a graph: phantoms that nothing was trained on."""
    drawn = [phantom(seed, height, width) for seed in REFERENCE_SEEDS]
    names = [f"phantom-{seed}" for seed in REFERENCE_SEEDS]
    return np.stack([p.rgb for p in drawn]), np.stack([p.mask for p in drawn]), names


def write_golden(gms: Gms, path: Path, images: U8, truth: U8 | None, names: list[str]) -> None:
    """Write pictures and what PyTorch in FP32 makes of them, the reference for every later engine."""
    probabilities = np.concatenate([gms.segment(torch.from_numpy(image[None])).numpy() for image in images])
    arrays = {"images": images, "probabilities": probabilities, "names": np.array(names)}
    if truth is not None:
        arrays["truth"] = truth
    with atomic_path(path) as part, part.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def _check(gms: Gms, height: int, width: int, batch: tuple[int, int], opset: int) -> None:
    stride = gms.tokenizer.spec.stride
    if height < stride or width < stride or height % stride or width % stride:
        raise UsageError(
            f"{height}x{width} does not fit this tokenizer", where="--size", fix=f"use multiples of {stride}"
        )
    if not 1 <= batch[0] <= batch[1]:
        raise UsageError(f"{batch[0]}-{batch[1]} is no batch range", where="--batch", fix="give 1 or 1-8")
    if opset not in OPSETS:
        raise UsageError(f"{opset} is not supported", where="--opset", fix="use 18 (widest reach) or 21")
