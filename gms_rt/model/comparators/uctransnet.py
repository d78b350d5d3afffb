"""UCTransNet: UNet whose skips first see each other, channel by channel, in a transformer, and are then weighed.

Tokens are patches of each skip on one common grid. Attention is between channels: a skip's channels ask, and the
channels of all four answer.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.model.comparators.layers import ChannelNorm, ConvNormReLU

_WIDTHS = (64, 128, 256, 512)
_PATCHES = (16, 8, 4, 2)  # pixels of each skip along a side of a token
_STRIDE = 16  # pixels of the picture along a side of a token
_LAYERS, _HEADS, _WIDEN = 4, 4, 4
_DROP = 0.1


class _ChannelAttention(nn.Module):
    """The channels of each skip attend to those of all."""

    def __init__(self) -> None:
        super().__init__()
        total = sum(_WIDTHS)
        self.queries = nn.ModuleList(nn.Conv2d(width, _HEADS * width, 1, bias=False) for width in _WIDTHS)
        self.key = nn.Conv2d(total, _HEADS * total, 1, bias=False)
        self.value = nn.Conv2d(total, _HEADS * total, 1, bias=False)
        self.outs = nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for width in _WIDTHS)
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

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ChannelNorm(width) for width in _WIDTHS)
        self.norm_all = ChannelNorm(sum(_WIDTHS))
        self.attention = _ChannelAttention()
        self.feeds = nn.ModuleList(
            nn.Sequential(
                ChannelNorm(width), nn.Conv2d(width, _WIDEN * width, 1), nn.GELU(), nn.Dropout(_DROP),
                nn.Conv2d(_WIDEN * width, width, 1), nn.Dropout(_DROP),
            )
            for width in _WIDTHS
        )  # fmt: skip

    def forward(self, tokens: list[Tensor]) -> list[Tensor]:
        """Refine the tokens."""
        normal = [norm(token) for norm, token in zip(self.norms, tokens, strict=True)]
        taken = self.attention(normal, self.norm_all(torch.cat(tokens, dim=1)))
        tokens = [token + more for token, more in zip(tokens, taken, strict=True)]
        return [token + feed(token) for feed, token in zip(self.feeds, tokens, strict=True)]


class _Up(nn.Module):
    """A skip, its channels weighed by what the skip and the way up say of them, joined with the way up."""

    def __init__(self, below: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.by_skip, self.by_below = nn.Linear(skip, skip), nn.Linear(below, skip)
        self.blocks = _two(below + skip, outputs)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """The scale above."""
        below = F.interpolate(below, scale_factor=2.0)
        said = self.by_skip(skip.mean(dim=(2, 3))) + self.by_below(below.mean(dim=(2, 3)))
        weighed = F.relu(skip * torch.sigmoid(said / 2)[:, :, None, None])
        joined: Tensor = self.blocks(torch.cat([weighed, below], dim=1))
        return joined


class UCTransNet(nn.Module):
    """The network for pictures of one size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        grid = size // _STRIDE
        self.first = ConvNormReLU(3, _WIDTHS[0])
        downs = [*itertools.pairwise(_WIDTHS), (_WIDTHS[-1], _WIDTHS[-1])]
        self.downs = nn.ModuleList(_two(a, b) for a, b in downs)
        self.embeds = nn.ModuleList(nn.Conv2d(w, w, patch, patch) for w, patch in zip(_WIDTHS, _PATCHES, strict=True))
        self.places = nn.ParameterList(nn.Parameter(torch.zeros(1, width, grid, grid)) for width in _WIDTHS)
        self.layers = nn.ModuleList(_Layer() for _ in range(_LAYERS))
        self.norms = nn.ModuleList(ChannelNorm(width) for width in _WIDTHS)
        self.rebuilds = nn.ModuleList(ConvNormReLU(width, width, 1) for width in _WIDTHS)
        outputs = (_WIDTHS[0], *_WIDTHS[:-1])
        scales = zip((*outputs[1:], _WIDTHS[-1]), _WIDTHS, outputs, strict=True)
        self.ups = nn.ModuleList(_Up(below, skip, given) for below, skip, given in scales)
        self.head = nn.Conv2d(_WIDTHS[0], 1, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Mask logits."""
        found = [self.first(pixels)]
        for down in self.downs:
            found.append(down(F.max_pool2d(found[-1], 2)))
        x = found.pop()
        tokens = [embed(skip) + place for embed, skip, place in zip(self.embeds, found, self.places, strict=True)]
        for layer in self.layers:
            tokens = layer(tokens)
        for number in reversed(range(len(self.ups))):
            seen = F.interpolate(self.norms[number](tokens[number]), scale_factor=float(_PATCHES[number]))
            x = self.ups[number](x, found[number] + self.rebuilds[number](seen))
        logits: Tensor = self.head(x)
        return logits


def _two(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(ConvNormReLU(inputs, outputs), ConvNormReLU(outputs, outputs))
