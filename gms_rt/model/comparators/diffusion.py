"""The noise of a diffusion: how much of it a step has, how it is added, and what is left without it."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn


class NoiseSchedule(nn.Module):
    """Steps from 0, which has little noise, to the last, which is nearly nothing else."""

    def __init__(self, steps: int, first: float, last: float, rise: Literal["even", "root"] = "even") -> None:
        """`first` and `last` are the variances that these steps add; between them they, or their roots, rise evenly."""
        super().__init__()
        power = 2 if rise == "root" else 1
        added = np.linspace(first ** (1 / power), last ** (1 / power), steps) ** power
        kept = np.cumprod(1 - added)
        # Buffers that follow from the numbers above are not kept with the weights.
        for name, values in (("_signal", np.sqrt(kept)), ("_noise", np.sqrt(1 - kept))):
            self.register_buffer(name, torch.from_numpy(values.astype(np.float32)), persistent=False)
        self.steps = steps

    def noisy(self, clean: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """What is clean with as much noise as these steps have."""
        signal, strength = self._at(step)
        return signal * clean + strength * noise

    def clean(self, noisy: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """What is left of the noisy without this noise."""
        signal, strength = self._at(step)
        return (noisy - strength * noise) / signal

    def noise_beside(self, noisy: Tensor, clean: Tensor, step: Tensor) -> Tensor:
        """The noise that the noisy has beside what is clean."""
        signal, strength = self._at(step)
        return (noisy - signal * clean) / strength

    def _at(self, step: Tensor) -> tuple[Tensor, Tensor]:
        signal, noise = (self.get_buffer(name)[step][:, None, None, None] for name in ("_signal", "_noise"))
        return signal, noise


def stored_noise(*shape: int) -> Tensor:
    """Normal noise of this shape, the same in every program and on every machine."""
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
