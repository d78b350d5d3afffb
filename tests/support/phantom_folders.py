"""Small folders for tests: a data set of phantoms, a tokenizer with random weights, and one that keeps pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


def write_vq(folder: Path) -> str:
    """A tiny frozen autoencoder with a codebook."""
    import torch
    from diffusers import VQModel

    torch.manual_seed(0)
    VQModel(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        norm_num_groups=4,
        latent_channels=3,
        num_vq_embeddings=16,
    ).save_pretrained(folder)
    return f"vq:{folder}"


def write_pair(folder: Path) -> str:
    """A pair of ONNX graphs whose latents are the grey means of each 4x4 patch's quarters."""
    from onnx import helper

    weight = np.repeat(_quarters(), 3, axis=1) / 12
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[4, 4])
    return _write_pair(folder, [node], {"w": weight}, [-1, 1])


def write_deep_pair(folder: Path) -> str:
    """The same latents from three convolutions, whose inner channels hold more than the latents take from them."""
    from onnx import helper

    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 0.4, (8, 3, 3, 3)), rng.normal(0, 0.4, (8, 8, 2, 2))
    last = np.zeros((4, 8, 2, 2))
    # The first channel of each is the grey mean; it is never negative, so it passes the rectifiers.
    first[0], first[0, :, 1, 1] = 0, 1 / 3
    second[0], second[0, 0] = 0, 1 / 4
    for channel, (row, column) in enumerate(np.ndindex(2, 2)):
        last[channel, 0, row, column] = 1
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "last"], ["y"], strides=[2, 2]),
    ]
    weights = {"first": first, "second": second, "last": last}
    return _write_pair(folder, nodes, {name: w.astype(np.float32) for name, w in weights.items()}, [0, 1])


def _quarters() -> np.ndarray:
    quarters = np.zeros((4, 1, 4, 4), np.float32)
    for channel, (row, column) in enumerate(np.ndindex(2, 2)):
        quarters[channel, 0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 1
    return quarters


def _write_pair(folder: Path, encoder: list[Any], weights: dict[str, np.ndarray], image_range: list[int]) -> str:
    """A pair whose decoder draws quarters."""
    import onnx
    from onnx import helper

    from support.graphs import FLOAT, model_of

    drawn = {"w": np.repeat(_quarters(), 3, axis=1)}
    decoder = [helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[4, 4])]
    folder.mkdir(parents=True, exist_ok=True)
    for name, nodes, constants, channels in (
        ("encoder", encoder, weights, (3, 4)),
        ("decoder", decoder, drawn, (4, 3)),
    ):
        ends = [("x", FLOAT, ["n", channels[0], "h", "w"])], [("y", FLOAT, ["n", channels[1], "k", "l"])]
        onnx.save(model_of(nodes, *ends, constants, name=name, ir_version=9), folder / f"{name}.onnx")
    facts = {"latent_channels": 4, "downsample": 4, "scale_factor": 1.5, "image_range": image_range}
    (folder / "tokenizer.json").write_text(json.dumps(facts))
    return f"onnx:{folder}"
