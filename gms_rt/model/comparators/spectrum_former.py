"""The transformer between a diffusion and what a picture says, which compares the two by their frequencies.

A block has two attentions. In the first, the diffusion's features ask and the picture's answer; in the second, what
came of it asks and the diffusion's answer. Queries and keys are taken to frequencies over the grid; the table of their
products is filtered there (the neural band-pass filter: from each entry's place in the table and the step's number,
how much of it passes), brought back, and says how the values are mixed. The step scales and shifts the result, and two
linear layers end the attention. There is no softmax.

The Fourier transform of a small grid of a fixed size is a matrix, so that the exported graph needs no operator for it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.model.comparators.layers import ChannelNorm

_FILTERS, _LAYERS = 16, 3  # channels and convolutions of the band-pass filter
_WIDEN = 4  # of the two linear layers


class SpectrumFormer(nn.Module):
    """Blocks of a width between features of the diffusion and of the picture, on a square grid of a fixed side."""

    def __init__(self, diffused: int, told: int, width: int, blocks: int, side: int, deep: int) -> None:
        super().__init__()
        self.of_diffusion, self.of_picture = nn.Conv2d(diffused, width, 1), nn.Conv2d(told, width, 1)
        self.blocks = nn.ModuleList(_Block(width, side, deep) for _ in range(blocks))
        self.back = nn.Conv2d(width, diffused, 1)

    def forward(self, diffused: Tensor, picture: Tensor, step: Tensor) -> Tensor:
        """The diffusion's features with what the picture says of them."""
        asked, found = self.of_diffusion(diffused), self.of_picture(picture)
        for block in self.blocks:
            found = block(asked, found, step)
        refined: Tensor = diffused + self.back(found)
        return refined


class _Block(nn.Module):
    """Diffusion asks picture, and the other way round."""

    def __init__(self, width: int, side: int, deep: int) -> None:
        super().__init__()
        self.there, self.back = _Attention(width, side, deep), _Attention(width, side, deep)

    def forward(self, diffused: Tensor, picture: Tensor, step: Tensor) -> Tensor:
        blended = picture + self.there(diffused, picture, step)
        mixed: Tensor = blended + self.back(blended, diffused, step)
        return mixed


class _Attention(nn.Module):
    """One asks, one answers, by filtered frequencies."""

    def __init__(self, width: int, side: int, deep: int) -> None:
        super().__init__()
        self.norm_asking, self.norm_answering = ChannelNorm(width), ChannelNorm(width)
        self.query, self.key, self.value = (nn.Conv2d(width, width, 1, bias=False) for _ in range(3))
        self.filter = BandPass(side * side, deep)
        self.spectra = GridSpectra(side)
        self.scale = 1 / (side * side * width**0.5)
        self.norm, self.step = ChannelNorm(width), nn.Linear(deep, 2 * width)
        self.first, self.second = nn.Conv2d(width, _WIDEN * width, 1), nn.Conv2d(_WIDEN * width, width, 1)

    def forward(self, asking: Tensor, answering: Tensor, step: Tensor) -> Tensor:
        asked, answers = self.norm_asking(asking), self.norm_answering(answering)
        query, key, value = (
            layer(x).flatten(2).transpose(1, 2)  # N×positions×channels
            for layer, x in ((self.query, asked), (self.key, answers), (self.value, answers))
        )
        shares = self.spectra.filtered(query, key * self.scale, self.filter(step))
        mixed = (shares @ value).transpose(1, 2).reshape(answering.shape)
        scale, shift = self.step(step)[:, :, None, None].chunk(2, dim=1)
        refined: Tensor = self.second(F.gelu(self.first(self.norm(mixed) * (1 + scale) + shift)))
        return refined


class BandPass(nn.Module):
    """From the step: how much of each entry of a table of frequencies passes, N×entries×entries from 0 to 1.

    The table's places are what it sees first, so that it does not depend on the picture.
    """

    def __init__(self, entries: int, deep: int) -> None:
        super().__init__()
        place = torch.linspace(-1, 1, entries)
        self.register_buffer("places", torch.stack(torch.meshgrid(place, place, indexing="ij"))[None], persistent=False)
        inputs = (2, *[_FILTERS] * (_LAYERS - 1))
        self.convs = nn.ModuleList(nn.Conv2d(each, _FILTERS, 3, padding=1) for each in inputs)
        self.norms = nn.ModuleList(ChannelNorm(_FILTERS) for _ in inputs)
        self.steps = nn.ModuleList(nn.Linear(deep, 2 * _FILTERS) for _ in inputs)
        self.last = nn.Conv2d(_FILTERS, 1, 1)

    def forward(self, step: Tensor) -> Tensor:
        """The shares of a step's features N×deep."""
        x = self.get_buffer("places").expand(len(step), -1, -1, -1)
        for conv, norm, told in zip(self.convs, self.norms, self.steps, strict=True):
            scale, shift = told(step)[:, :, None, None].chunk(2, dim=1)
            x = F.relu(norm(conv(x)) * (1 + scale) + shift)
        return torch.sigmoid(self.last(x))[:, 0]


class GridSpectra(nn.Module):
    """The discrete Fourier transform over the positions of a square grid, as a matrix of cosines and one of sines."""

    def __init__(self, side: int) -> None:
        super().__init__()
        number = np.arange(side)
        wave = np.exp(-2j * np.pi * np.outer(number, number) / side) / side**0.5
        whole = np.kron(wave, wave)
        for name, part in (("_even", whole.real), ("_odd", whole.imag)):
            self.register_buffer(name, torch.from_numpy(part.astype(np.float32)), persistent=False)

    def filtered(self, query: Tensor, key: Tensor, passes: Tensor) -> Tensor:
        """Products of all queries with all keys, N×positions×positions, of whose spectrum a share passes.

        Where all of it passes, they are the plain products. What is not real in the end is left out.
        """
        even, odd = self.get_buffer("_even"), self.get_buffer("_odd")
        query_even, query_odd = even @ query, odd @ query
        key_even, key_odd = (even @ key).transpose(1, 2), (odd @ key).transpose(1, 2)
        real = (query_even @ key_even - query_odd @ key_odd) * passes
        other = (query_even @ key_odd + query_odd @ key_even) * passes
        # Back over both axes with the conjugate, even - i odd; both matrices are symmetric.
        return (even @ real + odd @ other) @ even + (even @ other - odd @ real) @ odd
