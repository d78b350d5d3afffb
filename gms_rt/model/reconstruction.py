"""A tokenizer alone: pictures to latents and back, with nothing between. What a perfect latent could still lose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from gms_rt.arrays import F32, U8
from gms_rt.model.tokenizer import Tokenizer

Reconstruct = Callable[[U8], F32]  # N×H×W×3 levels of 0-255 to N×H×W×3 values, 0 to 1 where nothing overshoots


def reconstruction_from_tokenizer(tokenizer: Tokenizer, device: str = "cpu") -> Reconstruct:
    """Encode and decode pictures; the scaling of latents cancels, so it is left out."""
    tokenizer = tokenizer.to(device)
    low, high = tokenizer.spec.image_range

    @torch.no_grad()
    def reconstruct(pictures: U8) -> F32:
        pixels = torch.from_numpy(pictures).to(device).float().permute(0, 3, 1, 2) / 255
        decoded = tokenizer.decode(tokenizer.encode(pixels * (high - low) + low))
        return np.asarray(((decoded - low) / (high - low)).permute(0, 2, 3, 1).cpu().numpy(), np.float32)

    return reconstruct
