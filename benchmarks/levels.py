"""Which levels of the encoder help, pooled and normalised how: small trainings at equal effort, on validation cases.

    GMS_RT_DATA=/data python benchmarks/levels.py busi taef2 [CHOICE ...] [--device cuda] [--out levels.json]

A CHOICE is LEVELS:POOLING[:NORMALISATION], such as `1,2,4:average` or `2,4:both:group`; a bare `none` is the latent
alone. The normalisation is `fixed` (what the product does), `group` (a group normalisation per level) or `raw`.
All levels of all views are encoded once, with both poolings; every choice then takes its channels, the same batches in
the same order, and as many steps. Validation cases are carved from the training list; the test list is not read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from gms_rt.data.layouts import recognise
from gms_rt.metrics import dice
from gms_rt.model.gms import Gms, pooled_channels
from gms_rt.model.lmm import LatentMapper, LmmConfig
from gms_rt.model.loading import load_tokenizer
from gms_rt.scan.mask import FOREGROUND
from gms_rt.train.latents import encode, encode_masks
from gms_rt.train.linear_decoder import fit_linear_decoder, linear_decoder_loss
from gms_rt.train.losses import latent_loss
from gms_rt.train.recipe import load_recipe
from gms_rt.train.samples import Samples, mask_tensor

CHOICES = ["none", "1,2,4:average", "1,2,4:max", "1,2,4:both", "2,4:average", "4:average", "1,2,4,8:average",
           "1,2,4:average:group", "1,2,4:average:raw"]  # fmt: skip
AUGMENTATION = ["flip=horizontal", "rotate=20", "shift=0.1", "zoom=1.3", "contrast=0.3"]
WIDTH, MULTIPLIERS, GROUPS, BATCH, RATE = 16, (1, 2, 4), 8, 8, 2e-3


@dataclass(frozen=True)
class Encoded:
    """Everything that the trainings take."""

    gms: Gms  # with all levels
    images: Tensor  # cases × views × channels × height × width, float16
    targets: Tensor  # mask latents alike
    masks: Tensor  # cases × views × 1 × height × width of 0 and 1
    held: list[tuple[Tensor, Any]]  # encoded validation images, and their masks
    linear: Tensor | None  # the linear decoder

    def channels(self, levels: tuple[int, ...], pooling: str) -> list[int]:
        """Where the channels of a choice are."""
        config = self.gms.mapper.config
        start, found = config.latent_channels, list(range(config.latent_channels))
        for level, count in zip(config.levels, config.level_channels, strict=True):
            half = count // 2 if level < self.gms.tokenizer.spec.stride else count
            first = {"average": start, "both": start, "max": start + count - half}[pooling]
            if level in levels:
                found += range(first, start + count if pooling == "both" else first + half)
            start += count
        return found


class GroupInput(nn.Module):
    """A level through a group normalisation of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8 if channels % 8 == 0 else 1, channels)
        self.mix = nn.Conv2d(channels, WIDTH, 1, bias=False)
        nn.init.kaiming_normal_(self.mix.weight, mode="fan_in", nonlinearity="linear")

    def forward(self, level: Tensor) -> Tensor:
        """What the level adds."""
        mixed: Tensor = self.mix(self.norm(level))
        return mixed


def main() -> int:
    """Encode, train each choice, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["busi", "glas", "ham10000"])
    parser.add_argument("tokenizer", help="a folder of GMS_RT_DATA/weights")
    parser.add_argument("choices", nargs="*", default=CHOICES)
    parser.add_argument("--cases", type=int, default=200, help="to train on")
    parser.add_argument("--held", type=int, default=80, help="to validate on")
    parser.add_argument("--views", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    began = time.monotonic()
    encoded = encode_all(options)
    facts = {key: value for key, value in vars(options).items() if key not in ("choices", "out")}
    found: dict[str, Any] = {**facts, "encode_seconds": round(time.monotonic() - began, 1), "rows": []}
    for choice in options.choices:
        for seed in range(options.seeds):
            found["rows"].append(row := trained(encoded, choice, seed, options))
            print(json.dumps(row), flush=True)
            if options.out:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps(found, indent=2) + "\n")
    return 0


@torch.no_grad()
def encode_all(options: argparse.Namespace) -> Encoded:
    """Encode all views with all levels and both poolings."""
    root = Path(os.environ["GMS_RT_DATA"])
    tokenizer = load_tokenizer(f"onnx:{root / 'weights' / options.tokenizer}")
    levels = tuple(sorted(tokenizer.latent_and_inner(torch.zeros(1, 3, 64, 64))[1]))
    gms = model(tokenizer, levels, "both", 0).to(options.device)
    names = json.loads((root / "splits" / f"{options.data}.json").read_text())["train"]
    order = np.random.default_rng(0).permutation(len(names))
    parts = order[: options.cases], order[options.cases : options.cases + options.held]
    recipe = load_recipe("fast", [f"size={options.size}", *AUGMENTATION])
    dataset = recognise(root / options.data)
    samples, held = (Samples(dataset.named([names[i] for i in part]), recipe) for part in parts)
    pairs = [samples.view(n, v) if v else samples.plain(n) for n in range(len(samples)) for v in range(options.views)]
    images = encode(gms, [image for image, _ in pairs]).half()
    targets, masks = encode_masks(gms, [mask for _, mask in pairs]), mask_tensor([mask for _, mask in pairs])
    plain = [held.plain(n) for n in range(len(held))]
    views = [tensor.unflatten(0, (-1, options.views)).to(options.device) for tensor in (images, targets, masks)]
    linear = fit_linear_decoder(targets[:: options.views], masks[:: options.views])
    validation = [(encode(gms, [image]).to(options.device), mask) for image, mask in plain]
    return Encoded(gms, *views, validation, None if linear is None else linear.to(options.device))


def model(tokenizer: Any, levels: tuple[int, ...], pooling: Any, seed: int) -> Gms:
    """A small model whose first weights follow from the seed."""
    torch.manual_seed(seed)
    shape = LmmConfig(tokenizer.spec.channels, WIDTH, MULTIPLIERS, GROUPS, levels=levels, pooling=pooling,
                      level_channels=pooled_channels(tokenizer, levels, pooling))  # fmt: skip
    return Gms(tokenizer, LatentMapper(shape)).eval()


def trained(encoded: Encoded, choice: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train one choice and validate it."""
    listed, pooling, normalisation = (*(choice if choice != "none" else ":").split(":"), "average", "fixed")[:3]
    levels = tuple(int(level) for level in listed.split(",") if level)
    gms = model(encoded.gms.tokenizer, levels, pooling or "average", seed)
    mapper = gms.mapper
    images = encoded.images[:, :, encoded.channels(levels, pooling or "average")]
    if normalisation == "group":
        mapper.levels = nn.ModuleList(GroupInput(count) for count in mapper.config.level_channels)
    elif normalisation == "fixed" and levels:
        mapper.fit_levels(images[:32, 0].float().cpu())
    mapper.to(options.device)
    optimiser = torch.optim.AdamW(mapper.parameters(), lr=RATE)
    draw = np.random.default_rng(seed)
    batches = len(images) // BATCH
    steps, began = options.epochs * batches, time.monotonic()
    average = {name: value.clone() for name, value in mapper.state_dict().items()}
    for step in range(steps):
        if step % batches == 0:
            order = draw.permutation(len(images))
        cases = order[step % batches * BATCH :][:BATCH]
        views = draw.integers(0, images.shape[1], BATCH)
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 50) * 0.5 * (1 + np.cos(np.pi * step / steps))
        target, mask = encoded.targets[cases, views], encoded.masks[cases, views]
        outputs = mapper.train().supervised_latents(images[cases, views].float())
        loss = 0.1 * torch.stack([latent_loss(output, target) for output in outputs]).sum()
        if encoded.linear is not None:
            loss += torch.stack([linear_decoder_loss(output, encoded.linear, mask) for output in outputs]).sum()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(mapper.parameters(), 1)
        optimiser.step()
        decay = min(0.998, (1 + step) / (10 + step))
        now = mapper.state_dict()
        torch._foreach_lerp_([average[name] for name in now], list(now.values()), 1 - decay)
    mapper.load_state_dict(average)
    picked = encoded.channels(levels, pooling or "average")
    return {
        "choice": choice,
        "seed": seed,
        "dice": round(validated(gms, encoded, picked), 4),
        "parameters": sum(parameter.numel() for parameter in mapper.parameters()),
        "steps": steps,
        "seconds": round(time.monotonic() - began, 1),
    }


@torch.no_grad()
def validated(gms: Gms, encoded: Encoded, channels: list[int]) -> float:
    """Mean Dice of the validation cases at the network's size."""
    gms.eval()
    found = []
    for image, mask in encoded.held:
        drawn = gms.draw_levels(gms.map(image[:, channels]))[0, ..., 0].cpu().numpy()
        found.append(dice(drawn >= FOREGROUND, mask))
    return float(np.mean(found))


if __name__ == "__main__":
    raise SystemExit(main())
