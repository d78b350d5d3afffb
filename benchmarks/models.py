"""The models that benchmarks measure, made ready in a work folder: the bundled one, the official one, an architecture.

- `demo`: the bundled model, on phantoms.
- `ham10000`: the official skin model with the vaelight tokenizer, from the folder that GMS_RT_DATA names.
- `sdvae`: the architecture with the Stable Diffusion VAE at 224×224, random weights: its latency is real, its masks
  mean nothing.

A graph that is there already is not made again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt import scan
from gms_rt.artifacts import read_json
from gms_rt.demo.seeds import GATE_SEEDS
from gms_rt.engine.images import phantoms
from gms_rt.errors import UsageError
from gms_rt.scan.mask import mask_from_probability

SIZE = 224
RANDOM = "random weights: masks mean nothing, Dice is shown and no pass is claimed"

Say = Callable[[str], None]


def sdvae_graph(work: Path, say: Say) -> tuple[Path, Path]:
    """The Stable Diffusion VAE's architecture around the default latent mapping model, random: its graph and run."""
    import torch
    from diffusers import AutoencoderKL

    from gms_rt.data.reference_pictures import ReferencePictures
    from gms_rt.export.fuse import graph_from_gms
    from gms_rt.export.options import ExportOptions
    from gms_rt.model.gms import Gms
    from gms_rt.model.lmm import LatentMapper
    from gms_rt.model.loading import load_tokenizer
    from gms_rt.model.run import load_run, save_run

    run, graph = work / "run", work / "sdvae-random.onnx"
    if not (run / "tokenizer.json").is_file():
        say("drawing random weights")
        torch.manual_seed(0)
        AutoencoderKL(
            block_out_channels=[128, 256, 512, 512],
            layers_per_block=2,
            latent_channels=4,
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
        ).save_pretrained(work / "tokenizer")
        save_run(run, Gms(load_tokenizer(f"sd-vae:{work / 'tokenizer'}"), LatentMapper()).eval())
    if not graph.is_file():
        say("exporting")
        drawn = phantoms(GATE_SEEDS[:4], SIZE, SIZE)
        names = [f"phantom-{i + 1}" for i in range(len(drawn.images))]
        golden = ReferencePictures(drawn.images, None, names, f"{len(names)} phantoms")
        source = {"kind": "random weights"}
        graph_from_gms(load_run(run), graph, source=source, options=ExportOptions(SIZE, SIZE), pictures=golden)
    return graph, run


def ham10000_graph(work: Path, say: Say) -> tuple[Path, Path]:
    """The official checkpoint with vaelight in place of the SD-VAE: its graph and run."""
    from gms_rt.data.reference_pictures import ReferencePictures
    from gms_rt.export.fuse import graph_from_gms
    from gms_rt.export.options import ExportOptions
    from gms_rt.model.gms import Gms
    from gms_rt.model.loading import load_tokenizer
    from gms_rt.model.official import load_official
    from gms_rt.model.run import load_run, save_run

    data = data_folder("ham10000")
    run, graph = work / "run", work / "ham10000-official.onnx"
    if not (run / "tokenizer.json").is_file():
        official = load_official(data / "weights" / "gms-official-ham10000" / "best_model.pth")
        save_run(run, Gms(load_tokenizer(f"onnx:{data / 'weights' / 'vaelight'}"), official.mapper))
    if not graph.is_file():
        say("exporting")
        images, masks = split_cases(data, "ham10000", "test", 12)
        names = [f"case-{i + 1}" for i in range(len(images))]
        golden = ReferencePictures(images, masks, names, f"{len(names)} pictures of the test split")
        source = {"kind": "official checkpoint", "name": "gms-official-ham10000"}
        graph_from_gms(load_run(run), graph, source=source, options=ExportOptions(SIZE, SIZE), pictures=golden)
    return graph, run


def data_folder(model: str) -> Path:
    """The folder that GMS_RT_DATA names."""
    name = os.environ.get("GMS_RT_DATA")
    if not name:
        fix = "let it name the folder with weights/, splits/ and ham10000/"
        raise UsageError("GMS_RT_DATA is not set", where=model, fix=fix)
    return Path(name)


def split_cases(data: Path, name: str, part: str, count: int, *, step: slice = slice(None)) -> tuple[Any, Any]:
    """Pictures and true masks of a split's part, evenly chosen from those that are there."""
    import cv2

    folder = data / name
    names = read_json(data / "splits" / f"{name}.json")[part][step]
    there = [n for n in sorted(names) if (folder / "images" / f"{n}.jpg").is_file()]
    if len(there) < count:
        raise UsageError(f"holds {len(there)} of the split's pictures, {count} are needed", where=folder)
    images, masks = [], []
    for case in (there[i * len(there) // count] for i in range(count)):
        colour = cv2.imread(str(folder / "images" / f"{case}.jpg"), cv2.IMREAD_COLOR)[:, :, ::-1]
        grey = cv2.imread(str(folder / "masks" / f"{case}.png"), cv2.IMREAD_GRAYSCALE)
        images.append(scan.resize_image(np.ascontiguousarray(colour), SIZE, SIZE))
        masks.append(mask_from_probability(scan.resize_probability(grey, SIZE, SIZE)))
    return np.stack(images), np.stack(masks)
