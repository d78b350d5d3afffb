"""First-stage checkpoints in the CompVis layout, renamed into diffusers' AutoencoderKL."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gms_rt.errors import ArtifactError, MissingExtraError, UsageError
from gms_rt.model.checkpoint import load_tensors
from gms_rt.model.diffusers_tokenizer import DiffusersTokenizer, wrap_autoencoder
from gms_rt.telemetry import quiet_module

SD_SCALE = 0.18215
_PREFIX = "first_stage_model."
# Pattern in the CompVis layout, and its name in diffusers'. The decoder's levels count the other way round there.
_RENAMES: list[tuple[str, str]] = [
    (r"^(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out."),
    (r"^(encoder|decoder)\.mid\.block_1\.", r"\1.mid_block.resnets.0."),
    (r"^(encoder|decoder)\.mid\.block_2\.", r"\1.mid_block.resnets.1."),
    (r"^(encoder|decoder)\.mid\.attn_1\.norm\.", r"\1.mid_block.attentions.0.group_norm."),
    (r"^(encoder|decoder)\.mid\.attn_1\.([qkv])\.", r"\1.mid_block.attentions.0.to_\2."),
    (r"^(encoder|decoder)\.mid\.attn_1\.proj_out\.", r"\1.mid_block.attentions.0.to_out.0."),
    (r"^encoder\.down\.(\d+)\.block\.", r"encoder.down_blocks.\1.resnets."),
    (r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
    (r"^decoder\.up\.(\d+)\.block\.", r"decoder.up_blocks.\1.resnets."),
    (r"^decoder\.up\.(\d+)\.upsample\.", r"decoder.up_blocks.\1.upsamplers.0."),
    (r"\.nin_shortcut\.", r".conv_shortcut."),
]


def load_compvis(source: str) -> DiffusersTokenizer:
    """Load the autoencoder of a checkpoint, alone or inside a whole Stable Diffusion checkpoint."""
    try:
        diffusers = quiet_module("diffusers")
    except ImportError as error:
        raise MissingExtraError("the tokenizer 'compvis'", "train") from error
    path = Path(source)
    if not path.is_file():
        raise UsageError("is not a file", where=path, fix="give a checkpoint: compvis:FILE.ckpt")
    weights = load_tensors(path)
    if any(name.startswith(_PREFIX) for name in weights):
        weights = {k.removeprefix(_PREFIX): v for k, v in weights.items() if k.startswith(_PREFIX)}
    weights = {k: v for k, v in weights.items() if k.startswith(("encoder.", "decoder.", "quant_conv", "post_quant"))}
    if "encoder.conv_in.weight" not in weights or "post_quant_conv.weight" not in weights:
        raise ArtifactError("contains no autoencoder in the CompVis layout (no encoder.conv_in)", where=path)
    autoencoder = diffusers.AutoencoderKL(**_configuration(weights))
    missing, unexpected = autoencoder.load_state_dict(to_diffusers(weights), strict=False)
    if missing or unexpected:
        raise ArtifactError(f"does not fit: missing {sorted(missing)}, unexpected {sorted(unexpected)}", where=path)
    return wrap_autoencoder(autoencoder, "compvis", source)


def to_diffusers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under diffusers' names; attention's 1x1 convolutions become linear layers."""
    levels = 1 + max(int(m[1]) for k in weights if (m := re.match(r"decoder\.up\.(\d+)\.", k)))
    renamed = {}
    for name, value in weights.items():
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        level = re.match(r"(decoder\.up_blocks\.)(\d+)(\..*)", name)
        if level:
            name = f"{level[1]}{levels - 1 - int(level[2])}{level[3]}"
        linear = ".attentions.0.to_" in name and value.ndim == 4
        renamed[name] = value[:, :, 0, 0] if linear else value
    return {name: value.to(torch.float32) for name, value in renamed.items()}


def _configuration(weights: dict[str, Tensor]) -> dict[str, Any]:
    """Read the architecture off the weights' shapes."""
    levels = sorted({int(m[1]) for k in weights if (m := re.match(r"encoder\.down\.(\d+)\.", k))})
    blocks = {int(m[1]) for k in weights if (m := re.match(r"encoder\.down\.0\.block\.(\d+)\.", k))}
    widths = tuple(weights[f"encoder.down.{level}.block.0.conv2.weight"].shape[0] for level in levels)
    return {
        "in_channels": weights["encoder.conv_in.weight"].shape[1],
        "out_channels": weights["decoder.conv_out.weight"].shape[0],
        "down_block_types": ("DownEncoderBlock2D",) * len(levels),
        "up_block_types": ("UpDecoderBlock2D",) * len(levels),
        "block_out_channels": widths,
        "layers_per_block": len(blocks),
        "latent_channels": weights["post_quant_conv.weight"].shape[0],
        "scaling_factor": SD_SCALE,
    }
