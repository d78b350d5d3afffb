"""Recreate the bundled demonstration model: `python benchmarks/train_demo.py --out gms_rt/demo/model`.

Phantoms are drawn, a small autoencoder learns to redraw them and their masks, is frozen, and a latent mapping model
learns to turn image latents into mask latents: first on cached latents, then through the frozen decoder with Dice.
Everything follows from fixed seeds. Each phase leaves a file in `--work`, so that a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from draw_samples import draw_samples
from torch import Tensor
from torch.nn import functional as F

from gms_rt.artifacts import write_bytes, write_json
from gms_rt.class_lists import CLASSES, classes_value
from gms_rt.classes import SegmentClass
from gms_rt.data.reference_pictures import phantom_pictures
from gms_rt.demo.phantoms import phantom
from gms_rt.demo.seeds import HELD_OUT_SEEDS, TRAINING_SEEDS
from gms_rt.export.fuse import graph_from_run
from gms_rt.metrics import dice
from gms_rt.model.diffusers_tokenizer import wrap_autoencoder
from gms_rt.model.gms import Gms
from gms_rt.model.lmm import LatentMapper, LmmConfig
from gms_rt.model.run import save_run
from gms_rt.train.losses import dice_loss, latent_loss

SIZE = 224
DICE_WANTED, ROUND_TRIP_WANTED = 0.93, 0.985
WEIGHT_FILES = ("tokenizer/diffusion_pytorch_model.safetensors", "lmm.safetensors", "demo.onnx")
LESION = SegmentClass("Phantom lesion (demonstration)", description="Lesion of a drawn phantom. Not for clinical use.")
AUTOENCODER = {
    "encoder_block_out_channels": (32, 32, 32, 32),
    "decoder_block_out_channels": (32, 32, 32, 32),
    "num_encoder_blocks": (0, 1, 2, 2),
    "num_decoder_blocks": (2, 2, 1, 0),
    "latent_channels": 4,
}
MAPPER = LmmConfig(latent_channels=4, width=16, multipliers=(1, 2, 4, 4), groups=8, deep_supervision=False)


@dataclass(frozen=True)
class Plan:
    """How long each phase is; the defaults made the bundled model."""

    phantoms: int = len(TRAINING_SEEDS)
    tokenizer_steps: int = 900
    latent_steps: int = 900
    finish_steps: int = 600
    seed: int = 7


@dataclass(frozen=True)
class Cases:
    """Phantoms in memory: uint8 N×H×W×3 and N×H×W."""

    images: np.ndarray
    masks: np.ndarray


def draw(seeds: range) -> Cases:
    """The phantoms of these seeds at network size."""
    drawn = [phantom(seed, SIZE, SIZE) for seed in seeds]
    return Cases(np.stack([p.rgb for p in drawn]), np.stack([p.mask for p in drawn]))


def as_input(pixels: np.ndarray) -> Tensor:
    """uint8 N×H×W×3 or N×H×W to float N×3×H×W in [0, 1]."""
    values = torch.from_numpy(np.ascontiguousarray(pixels)).float().div(255)
    stacked = values.permute(0, 3, 1, 2) if pixels.ndim == 4 else values[:, None].expand(-1, 3, -1, -1)
    return stacked.contiguous(memory_format=torch.channels_last)


def optimise(
    name: str, model: torch.nn.Module, steps: int, rate: float, loss_at: Callable[[int], Tensor], work: Path
) -> None:
    """AdamW with warm-up and cosine; goes on from its own checkpoint. `loss_at(step)` depends on the step alone."""
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=rate, weight_decay=1e-4)
    checkpoint, first = work / f"{name}.pt", 0
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        first = int(saved["step"])
    start = time.monotonic()
    for step in range(first, steps):
        shape = min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimiser.param_groups:
            group["lr"] = rate * shape
        loss = loss_at(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        done = step + 1
        if done % 50 == 0 or done == steps:
            seconds = time.monotonic() - start
            print(f"{name}: step {done} of {steps}, loss {loss.item():.4f}, {seconds:.0f} s", flush=True)
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": done}
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)


def train_autoencoder(cases: Cases, plan: Plan, work: Path) -> AutoencoderTiny:
    """Teach an AutoencoderTiny to redraw crops of phantoms and of their masks, half of each."""
    torch.manual_seed(plan.seed)
    autoencoder = AutoencoderTiny(**AUTOENCODER).to(memory_format=torch.channels_last)
    crop = 96

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng([plan.seed, 1, step])
        images, masks = [], []
        for case in rng.integers(0, len(cases.images), 8):
            y, x = rng.integers(0, SIZE - crop, 2)
            images.append(_flipped(cases.images[case, y : y + crop, x : x + crop], rng))
            y, x = _near_border(cases.masks[case], crop, rng)
            masks.append(_flipped(cases.masks[case, y : y + crop, x : x + crop], rng))
        pixels = torch.cat([as_input(np.stack(images)), as_input(np.stack(masks))]) * 2 - 1
        latent = autoencoder.encode(pixels).latents
        redrawn = autoencoder.decode(latent).sample
        image_error, mask_error = (redrawn - pixels).split(8)
        coarse = F.avg_pool2d(image_error, 4)
        return (
            0.5 * image_error.abs().mean()
            + coarse.abs().mean()
            + mask_error.abs().mean()
            + mask_error.square().mean()
            + 1e-3 * F.relu(latent.abs() - 3).square().mean()
        )

    optimise("tokenizer", autoencoder, plan.tokenizer_steps, 2e-3, loss_at, work)
    return autoencoder


def _flipped(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    for axis in (0, 1):
        if rng.random() < 0.5:
            pixels = np.flip(pixels, axis)
    return pixels


def _near_border(mask: np.ndarray, crop: int, rng: np.random.Generator) -> tuple[int, int]:
    """A crop's corner; for a mask with a lesion, mostly one with some of its border."""
    rows, columns = np.nonzero(mask)
    if len(rows) == 0 or rng.random() < 0.15:
        return int(rng.integers(0, SIZE - crop)), int(rng.integers(0, SIZE - crop))
    near = rng.integers(0, len(rows))
    y = rows[near] - rng.integers(0, crop)
    x = columns[near] - rng.integers(0, crop)
    return int(np.clip(y, 0, SIZE - crop)), int(np.clip(x, 0, SIZE - crop))


def frozen(autoencoder: AutoencoderTiny, cases: Cases, source: str) -> Gms:
    """Freeze the autoencoder with a scale that gives image latents unit spread, and join an untrained mapper."""
    with torch.no_grad():
        latents = autoencoder.encode(as_input(cases.images[:32]) * 2 - 1).latents
    autoencoder.register_to_config(scaling_factor=round(1 / float(latents.std()), 5))
    tokenizer = wrap_autoencoder(autoencoder, "taesd", source)
    return Gms(tokenizer, LatentMapper(MAPPER).to(memory_format=torch.channels_last))


def in_batches(count: int, size: int = 16) -> Iterator[slice]:
    """Slices that cover `count`."""
    return (slice(i, min(i + size, count)) for i in range(0, count, size))


@torch.no_grad()
def encoded(gms: Gms, pixels: np.ndarray) -> Tensor:
    """Scaled latents of many images or masks."""
    latents = [gms.encode(as_input(pixels[part])) for part in in_batches(len(pixels))]
    return torch.cat(latents).contiguous(memory_format=torch.channels_last)


def train_mapper(gms: Gms, cases: Cases, plan: Plan, work: Path) -> None:
    """Latent-only steps, then steps with Dice on the drawn mask."""
    torch.manual_seed(plan.seed + 1)
    gms.mapper.load_state_dict(LatentMapper(MAPPER).state_dict())
    cache = work / "latents.pt"
    if cache.is_file():
        source, target = torch.load(cache, weights_only=True)
    else:
        source, target = encoded(gms, cases.images), encoded(gms, cases.masks)
        torch.save((source, target), cache)

    def latent_at(step: int) -> Tensor:
        chosen = torch.from_numpy(np.random.default_rng([plan.seed, 2, step]).integers(0, len(source), 16))
        return latent_loss(gms.map(source[chosen]), target[chosen])

    def dice_at(step: int) -> Tensor:
        chosen = np.random.default_rng([plan.seed, 3, step]).integers(0, len(source), 8)
        mapped = gms.map(source[chosen])
        truth = as_input(cases.masks[chosen])[:, :1]
        return dice_loss(gms.probability(mapped), truth) + 0.5 * latent_loss(mapped, target[chosen])

    optimise("lmm", gms.mapper, plan.latent_steps, 2e-3, latent_at, work)
    optimise("finish", gms.mapper, plan.finish_steps, 6e-4, dice_at, work)


@torch.no_grad()
def held_out(gms: Gms, cases: Cases) -> dict[str, Any]:
    """Dice of the whole pipeline and of masks through the tokenizer and back, on phantoms never trained on."""
    segmented = torch.cat([gms.segment(torch.from_numpy(cases.images[p])) for p in in_batches(len(cases.images))])
    returned = torch.cat([gms.probability(gms.encode(as_input(cases.masks[p]))) for p in in_batches(len(cases.masks))])
    with_lesion = cases.masks.any(axis=(1, 2))
    scores = np.array([dice(a >= 128, b) for a, b in zip(segmented.numpy(), cases.masks, strict=True)])
    trips = np.array([dice(a >= 0.5, b) for a, b in zip(returned[:, 0].numpy(), cases.masks, strict=True)])
    return {
        "phantoms": len(scores),
        "with_lesion": int(with_lesion.sum()),
        "dice_mean": round(float(scores[with_lesion].mean()), 4),
        "dice_median": round(float(np.median(scores[with_lesion])), 4),
        "dice_minimum": round(float(scores[with_lesion].min()), 4),
        "empty_kept_empty": int((scores[~with_lesion] == 1).sum()),
        "round_trip_mean": round(float(trips[with_lesion].mean()), 4),
        "round_trip_minimum": round(float(trips[with_lesion].min()), 4),
    }


def model_card(scores: dict[str, Any], plan: Plan, gms: Gms, out: Path) -> str:
    """What the model is, how good, and how it came to be."""
    mapper = sum(p.numel() for p in gms.mapper.parameters())
    tokenizer = sum(p.numel() for p in gms.tokenizer.parameters())
    size = sum((out / f).stat().st_size for f in WEIGHT_FILES) / 2**20
    empty = scores["phantoms"] - scores["with_lesion"]
    return f"""# The bundled demonstration model

Segments bright and dark lesions in synthetic, ultrasound-like phantoms. **Not for clinical use**: it has never seen
a patient.

| | |
|---|---|
| tokenizer | AutoencoderTiny, {tokenizer:,} parameters, 4 latent channels at 1/8, scale {gms.tokenizer.spec.scale} |
| latent mapping model | width {MAPPER.width}, multipliers {MAPPER.multipliers}, {mapper:,} parameters |
| input | 224x224 RGB, uint8 |
| weights and graph | {size:.1f} MiB |

## Measured

On {scores["phantoms"]} phantoms that nothing was trained on (PyTorch, FP32, 224x224). Dice is over the
{scores["with_lesion"]} of them that have a lesion.

| Dice of | mean | median | minimum |
|---|---|---|---|
| the segmentation | {scores["dice_mean"]:.4f} | {scores["dice_median"]:.4f} | {scores["dice_minimum"]:.4f} |
| masks through the tokenizer and back | {scores["round_trip_mean"]:.4f} | | {scores["round_trip_minimum"]:.4f} |

Of the {empty} phantoms without a lesion, {scores["empty_kept_empty"]} came out empty.

## Made by

`python benchmarks/train_demo.py --out gms_rt/demo/model`, from {plan.phantoms:,} phantoms of `gms_rt/demo/phantoms.py`
and no other data: {plan.tokenizer_steps:,} steps for the tokenizer, {plan.latent_steps:,} on latents,
{plan.finish_steps:,} with Dice through the frozen decoder, seed {plan.seed}. Weights and graph are under this
project's licence.
"""


def main() -> None:
    """Train, judge, export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the run folder to write; samples go next to it")
    parser.add_argument("--work", type=Path, default=Path("build/train-demo"), help="checkpoints of each phase")
    options = parser.parse_args()
    torch.set_num_threads(2)
    plan, out = Plan(), options.out
    options.work.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    cases = draw(TRAINING_SEEDS[: plan.phantoms])
    print(f"drew {plan.phantoms} phantoms, {time.monotonic() - start:.0f} s", flush=True)
    autoencoder = train_autoencoder(cases, plan, options.work)
    gms = frozen(autoencoder, cases, "tokenizer")
    train_mapper(gms, cases, plan, options.work)
    scores = held_out(gms, draw(HELD_OUT_SEEDS))
    autoencoder.save_pretrained(out / "tokenizer")
    save_run(out, gms, {"training": asdict(plan), "held_out": scores})
    write_json(out / CLASSES, classes_value([LESION]))
    reference = replace(phantom_pictures(224, 224), source="phantoms, which this model is for", synthetic=False)
    graph_from_run(out, out / "demo.onnx", pictures=reference)
    write_bytes(out / "MODEL_CARD.md", model_card(scores, plan, gms, out).encode())
    draw_samples(out.parent)
    print(json.dumps(scores, indent=2))
    if scores["dice_mean"] < DICE_WANTED or scores["round_trip_mean"] < ROUND_TRIP_WANTED:
        raise SystemExit(f"missed: Dice {DICE_WANTED} and round trip {ROUND_TRIP_WANTED} are wanted")


if __name__ == "__main__":
    main()
