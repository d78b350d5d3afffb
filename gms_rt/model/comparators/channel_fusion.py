"""Skips that see each other, channel by channel, in a transformer: UCTransNet's channel-wise cross fusion.

Tokens are patches of each skip on one common grid. Attention is between channels: a skip's channels ask, and the
channels of all of them answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.model.comparators.layers import ChannelNorm, ConvNormReLU

_HEADS, _WIDEN = 4, 4
_DROP = 0.1


class _ChannelAttention(nn.Module):
    """The channels of each skip attend to those of all."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        total = sum(widths)
        self.queries = nn.ModuleList(nn.Conv2d(width, _HEADS * width, 1, bias=False) for width in widths)
        self.key = nn.Conv2d(total, _HEADS * total, 1, bias=False)
        self.value = nn.Conv2d(total, _HEADS * total, 1, bias=False)
        self.outs = nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for width in widths)
        self.scale = total**-0.5
        self.drop = nn.Dropout(_DROP)

    def forward(self, tokens: list[Tensor], every: Tensor) -> list[Tensor]:
        """What each skip takes from all."""
        keys, values = self._heads(self.key(every)), self._heads(self.value(every))
        found = []
        for query, out, token in zip(self.queries, self.outs, tokens, strict=True):
            scores = self._heads(query(token)) @ keys.transpose(-2, -1) * self.scale
            # Normalised over each head's whole map, as instance normalisation does.
            middle = scores.mean(dim=(2, 3), keepdim=True)
            spread = (scores - middle).square().mean(dim=(2, 3), keepdim=True)
            chances = self.drop(((scores - middle) * torch.rsqrt(spread + 1e-5)).softmax(dim=-1))
            found.append(out((chances @ values).mean(dim=1).reshape(token.shape)))
        return found

    def _heads(self, x: Tensor) -> Tensor:
        """N×heads×channels×positions."""
        count, channels, high, wide = x.shape
        return x.reshape(count, _HEADS, channels // _HEADS, high * wide)


class _Layer(nn.Module):
    """Attention between all skips, and two linear layers for each."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ChannelNorm(width) for width in widths)
        self.norm_all = ChannelNorm(sum(widths))
        self.attention = _ChannelAttention(widths)
        self.feeds = nn.ModuleList(
            nn.Sequential(
                ChannelNorm(width), nn.Conv2d(width, _WIDEN * width, 1), nn.GELU(), nn.Dropout(_DROP),
                nn.Conv2d(_WIDEN * width, width, 1), nn.Dropout(_DROP),
            )
            for width in widths
        )  # fmt: skip

    def forward(self, tokens: list[Tensor]) -> list[Tensor]:
        """Refine the tokens."""
        normal = [norm(token) for norm, token in zip(self.norms, tokens, strict=True)]
        taken = self.attention(normal, self.norm_all(torch.cat(tokens, dim=1)))
        tokens = [token + more for token, more in zip(tokens, taken, strict=True)]
        return [token + feed(token) for feed, token in zip(self.feeds, tokens, strict=True)]


class ChannelFusion(nn.Module):
    """Skips on the way to each other and back: as many, of the same sizes, each with what it took from all."""

    def __init__(self, widths: Sequence[int], patches: Sequence[int], grid: int, layers: int) -> None:
        super().__init__()
        self._patches = tuple(patches)  # pixels of each skip along a side of a token
        self.embeds = nn.ModuleList(nn.Conv2d(w, w, patch, patch) for w, patch in zip(widths, patches, strict=True))
        self.places = nn.ParameterList(nn.Parameter(torch.zeros(1, width, grid, grid)) for width in widths)
        self.layers = nn.ModuleList(_Layer(widths) for _ in range(layers))
        self.norms = nn.ModuleList(ChannelNorm(width) for width in widths)
        self.rebuilds = nn.ModuleList(ConvNormReLU(width, width, 1) for width in widths)

    def fuse(self, skips: list[Tensor]) -> list[Tensor]:
        """The skips, each with what it took from all."""
        tokens = [embed(skip) + place for embed, skip, place in zip(self.embeds, skips, self.places, strict=True)]
        for layer in self.layers:
            tokens = layer(tokens)
        found = []
        ways = zip(skips, tokens, self.norms, self.rebuilds, self._patches, strict=True)
        for skip, token, norm, rebuild, patch in ways:
            found.append(skip + rebuild(F.interpolate(norm(token), scale_factor=float(patch))))
        return found
