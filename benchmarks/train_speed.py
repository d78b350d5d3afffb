"""Images per second of the recipes `paper` and `fast`, measured in one run on the same machine.

    python benchmarks/train_speed.py [--tokenizer NAME] [--size 224] [--out benchmarks/results/train-speed.json]

Speed does not depend on what the weights are, so the default tokenizer is a Stable-Diffusion VAE of random weights, and
the pictures are phantoms. Every phase is timed through `gms_rt.train.loop.train` itself. The rate of `fast` is that of
its whole schedule on `--cases` cases: encoding all views, all latent epochs, and the epochs through the decoder.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from gms_rt.data.layouts import Dataset, recognise
from gms_rt.data.splits import Split
from gms_rt.demo.phantoms import phantom
from gms_rt.model.loading import load_tokenizer
from gms_rt.runtime.device import probe
from gms_rt.train.loop import train
from gms_rt.train.recipe import TrainingRecipe, load_recipe
from gms_rt.train.request import TrainingRequest

TARGET = 10.0


def main() -> int:
    """Measure, print, write; exit code 1 where `fast` misses its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", help="as of gms-rt train; default: a Stable-Diffusion VAE of random weights")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--cases", type=int, default=517, help="the data set whose schedule is computed")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = compare_recipes(options, Path(name))
    print(json.dumps(found, indent=2))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if found["fast_over_paper"] >= TARGET else 1


def compare_recipes(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Time both recipes on phantoms."""
    dataset = phantoms(folder / "data", 2 * options.batch)
    name = options.tokenizer or stable_diffusion(folder / "vae")
    shared = [f"size={options.size}", f"batch={options.batch}", f"threads={options.threads}", "validation=0"]
    shared += ["validate_every=1000", "save_seconds=1e9"]
    paper, _ = rates(dataset, name, load_recipe("paper", [*shared, "epochs=1"]), folder / "paper")
    quick, encoded = rates(
        dataset, name, load_recipe("fast", [*shared, "latent_epochs=5", "epochs=1", "views=2"]), folder / "fast"
    )
    fast = load_recipe("fast")
    schedule = {"cases": options.cases, "views": fast.views, "latent": fast.latent_epochs, "decoded": fast.epochs}
    given = "".join(f" --{k} {v}" for k, v in vars(options).items() if v is not None and k != "out")
    images = options.cases * (fast.latent_epochs + fast.epochs)
    seconds = options.cases * (
        fast.views / encoded + fast.latent_epochs / quick["latent"] + fast.epochs / quick["image"]
    )
    return {
        "command": f"python benchmarks/train_speed.py{given}",
        "machine": {
            "processor": probe().cpu.name,
            "threads": options.threads or torch.get_num_threads(),
        },
        "tokenizer": options.tokenizer or "AutoencoderKL of Stable Diffusion, random weights",
        "size": options.size,
        "batch": options.batch,
        "paper_images_per_second": round(paper["image"], 4),
        "fast": {
            "views_encoded_per_second": round(encoded, 4),
            "latent_images_per_second": round(quick["latent"], 4),
            "decoded_images_per_second": round(quick["image"], 4),
            "schedule": schedule,
            "images_per_second": round(images / seconds, 4),
        },
        "fast_over_paper": round(images / seconds / paper["image"], 2),
        "latent_step_over_paper": round(quick["latent"] / paper["image"], 2),
        "target": TARGET,
    }


def rates(dataset: Dataset, tokenizer: str, recipe: TrainingRecipe, out: Path) -> tuple[dict[str, float], float]:
    """Images per second of each phase (the fastest epoch), and views encoded per second."""
    split = Split(tuple(case.name for case in dataset.cases), (), (), "all cases train")
    began, encoded = time.perf_counter(), [0.0]

    def note(stage: str, done: int, total: int, note: str) -> None:
        if stage == "encode":
            encoded[0] = done / (time.perf_counter() - began)

    frozen = load_tokenizer(tokenizer)
    began = time.perf_counter()
    train(TrainingRequest(dataset, split, frozen, recipe, out), note)
    found: dict[str, float] = {}
    for row in csv.DictReader((out / "metrics.csv").read_text().splitlines()):
        found[row["phase"]] = max(found.get(row["phase"], 0.0), float(row["images_per_second"]))
    return found, encoded[0]


def phantoms(folder: Path, count: int) -> Dataset:
    """A data set of phantoms."""
    for number in range(count):
        case = phantom(number, 224, 224)
        for kind, pixels in (("images", case.rgb[..., ::-1]), ("masks", case.mask)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / kind / f"{number}.png"), pixels)
    return recognise(folder)


def stable_diffusion(folder: Path) -> str:
    """An autoencoder of the size that Stable Diffusion has."""
    from diffusers import AutoencoderKL

    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
    ).save_pretrained(folder)
    return f"sd-vae:{folder}"


if __name__ == "__main__":
    raise SystemExit(main())
