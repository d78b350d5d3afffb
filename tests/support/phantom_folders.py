"""Small folders for tests: a data set of phantoms, a tokenizer with random weights, and one that keeps pictures."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from gms_rt.demo.phantoms import phantom


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write RGB or grey pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels)


def write_phantoms(folder: Path, count: int = 20, size: tuple[int, int] = (48, 64), first: int = 0) -> Path:
    """`images/` and `masks/` with phantoms of these seeds."""
    for number in range(first, first + count):
        case = phantom(number, *size)
        write_picture(folder / "images" / f"case_{number:02d}.png", case.rgb)
        write_picture(folder / "masks" / f"case_{number:02d}.png", case.mask)
    return folder


def write_tokenizer(folder: Path) -> str:
    """A tiny frozen autoencoder, as `--tokenizer` names it."""
    import torch
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        latent_channels=4,
        upsampling_scaling_factor=2,
    ).save_pretrained(folder)
    return f"taesd:{folder}"


def write_pair(folder: Path) -> str:
    """A pair of ONNX graphs whose latents are the grey means of each 4x4 patch's quarters."""
    import onnx
    from onnx import helper

    from support.graphs import FLOAT, model_of

    quarters = np.zeros((4, 1, 4, 4), np.float32)
    for channel, (row, column) in enumerate(np.ndindex(2, 2)):
        quarters[channel, 0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 1
    for name, operator, weight, channels in (
        ("encoder", "Conv", np.repeat(quarters, 3, axis=1) / 12, (3, 4)),
        ("decoder", "ConvTranspose", np.repeat(quarters, 3, axis=1), (4, 3)),
    ):
        node = helper.make_node(operator, ["x", "w"], ["y"], strides=[4, 4])
        ends = [("x", FLOAT, ["n", channels[0], "h", "w"])], [("y", FLOAT, ["n", channels[1], "k", "l"])]
        model = model_of([node], *ends, {"w": weight}, name=name, ir_version=9)
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(model, folder / f"{name}.onnx")
    facts = {"latent_channels": 4, "downsample": 4, "scale_factor": 1.5, "image_range": [-1, 1]}
    (folder / "tokenizer.json").write_text(json.dumps(facts))
    return f"onnx:{folder}"
