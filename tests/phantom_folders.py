"""Small folders for tests: a data set of phantoms, and a tiny tokenizer with random weights."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from gms_rt.phantoms import phantom


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
