"""Small GMS pipelines with random weights, one for each kind of tokenizer; imports torch and diffusers when called."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gms_rt.model.gms import Gms

KINDS = ("taesd", "sd-vae", "vq")
KL = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (32, 32),
    "norm_num_groups": 16,
}


def small_gms(kind: str) -> Gms:
    """The pipeline of a tokenizer kind, always with the same weights."""
    import diffusers
    import torch

    from gms_rt.model.diffusers_tokenizer import wrap_autoencoder
    from gms_rt.model.gms import Gms
    from gms_rt.model.lmm import LatentMapper, LmmConfig

    torch.manual_seed(11)
    if kind == "taesd":
        wide = {"encoder_block_out_channels": (8,) * 3, "decoder_block_out_channels": (8,) * 3}
        autoencoder = diffusers.AutoencoderTiny(**wide, num_encoder_blocks=(0, 1, 1), num_decoder_blocks=(1, 1, 0))
    elif kind == "sd-vae":
        autoencoder = diffusers.AutoencoderKL(**KL, latent_channels=4, scaling_factor=0.18215, shift_factor=0.1)
    else:
        autoencoder = diffusers.VQModel(**KL, latent_channels=3, num_vq_embeddings=32, scaling_factor=0.5)
    tokenizer = wrap_autoencoder(autoencoder, kind, "tiny")
    return Gms(tokenizer, LatentMapper(LmmConfig(tokenizer.spec.channels, 16, (1, 2), 8))).eval()
