"""The edge student: a whole GMS pipeline in one small network, from pixels to mask logits.

Pixels are unshuffled, so that the first convolution already works on an eighth of the grid; residual blocks follow at
strides 8, 16 and 32; on the way back a 1x1 convolution and a pixel shuffle bring each level to the one above it, which
it is added to. The mask decoder is one 3x3 convolution and a pixel shuffle by 8, like the linear decoder with which
`gms-rt train` draws mask latents. Everything is convolution, batch normalisation, ReLU, addition and pixel shuffle:
normalisation folds away, activations are not negative, and all channels are multiples of 16.

In training a second head predicts the teacher's mask latent; it is not exported. Pixels are float tensors in [0, 1],
as for `Gms`; the mask is a probability once `sigmoid` has been taken of the logits.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.errors import ConfigError, GmsError, UsageError

STRIDES = (8, 16, 32)  # of the levels
UNSHUFFLE = 4  # pixels along each side that become channels of the first convolution, whose own stride is 2
_MULTIPLE = 16  # of all channels: what the matrix units of CPUs and GPUs take at once
_WIDEST = 512
# Blocks by level, from few to many. The widest network comes first, then the deepest of that width.
_BLOCKS = ((1, 1, 1), (1, 1, 2), (1, 2, 2), (2, 2, 2), (2, 2, 3), (2, 3, 3), (2, 3, 4), (2, 4, 4), (3, 4, 4))
_FEWEST = 3  # index in `_BLOCKS` of the fewest blocks for widths above `_THIN`
_THIN = 32


@dataclass(frozen=True)
class StudentShape:
    """The shape of a student."""

    size: int = 224  # of the pictures it is trained on, in pixels: a multiple of 32
    width: int = 32  # channels at stride 8, twice as many at 16 and four times at 32: a multiple of 16
    blocks: tuple[int, ...] = (2, 2, 2)  # residual blocks at strides 8, 16 and 32, on the way down
    merge_blocks: int = 1  # residual blocks at strides 16 and 8, on the way back
    unshuffle: int = UNSHUFFLE  # pixels along each side that become channels; 4 is the only one yet
    context: bool = False  # at stride 32 every position also sees the mean over all positions
    latent_channels: int = 0  # of the teacher's mask latent, which a second head predicts in training; 0: no such head
    latent_stride: int = 8  # pixels per position of that latent, along each side: 4, 8, 16 or 32

    def __post_init__(self) -> None:
        fits = (
            self.width > 0
            and self.width % _MULTIPLE == 0
            and len(self.blocks) == len(STRIDES)
            and min((*self.blocks, self.merge_blocks)) >= 0
            and self.unshuffle == UNSHUFFLE
            and self.latent_channels >= 0
            and self.latent_stride in (STRIDES[0] // 2, *STRIDES)
        )
        if not fits:
            raise ConfigError(
                f"a student cannot have the shape {asdict(self)}",
                fix=f"give a width in multiples of {_MULTIPLE}, blocks for strides {STRIDES}, a latent stride of 4 to "
                "32",
            )
        check_student_size(self.size, self.size)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at strides 8, 16 and 32."""
        return tuple(self.width * stride // STRIDES[0] for stride in STRIDES)

    def to_values(self) -> dict[str, Any]:
        """Plain values for `config.toml`."""
        return asdict(self)


class Taught(NamedTuple):
    """What a student says in training."""

    logits: Tensor  # N×1×H×W
    latent: Tensor | None  # the teacher's scaled mask latent as predicted, on its own grid; None: no such head
    features: tuple[Tensor, ...]  # at strides 8, 16 and 32, what the masks are drawn from; not negative


def check_student_size(height: int, width: int) -> None:
    """Refuse a size that the levels do not divide."""
    if min(height, width) < STRIDES[-1] or height % STRIDES[-1] or width % STRIDES[-1]:
        raise UsageError(
            f"{height}x{width} does not fit a student", where="--size", fix=f"use multiples of {STRIDES[-1]}"
        )


class Convolution(nn.Module):
    """A convolution with batch normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and normalise."""
        normalised: Tensor = self.norm(self.conv(x))
        return normalised


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a way around them; nothing that leaves it is negative."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = Convolution(channels, channels)
        self.second = Convolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Refine x."""
        return F.relu(x + self.second(F.relu(self.first(x))))


class Context(nn.Module):
    """Every position takes in the mean over all of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = Convolution(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Add what the whole picture says."""
        return F.relu(x + self.mix(x.mean(dim=(2, 3), keepdim=True)))


class Merge(nn.Module):
    """A level brought to the grid above it and added there."""

    def __init__(self, below: int, above: int, blocks: int) -> None:
        super().__init__()
        self.lift = Convolution(below, 4 * above, 1)
        self.blocks = nn.Sequential(*(ResidualBlock(above) for _ in range(blocks)))

    def forward(self, below: Tensor, above: Tensor) -> Tensor:
        """What both levels know, on the finer grid."""
        merged: Tensor = self.blocks(F.relu(above + F.pixel_shuffle(self.lift(below), 2)))
        return merged


class LatentHead(nn.Module):
    """Features to the teacher's mask latent."""

    def __init__(self, shape: StudentShape) -> None:
        super().__init__()
        # A latent grid finer than the finest level is drawn from it by a pixel shuffle.
        self.level = STRIDES.index(max(shape.latent_stride, STRIDES[0]))
        self.finer = STRIDES[self.level] // shape.latent_stride
        self.conv = nn.Conv2d(shape.widths[self.level], shape.latent_channels * self.finer**2, 3, padding=1)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """The latent."""
        return F.pixel_shuffle(self.conv(features[self.level]), self.finer)


class Student(nn.Module):
    """A network of the whole: N×3×H×W pixels in [0, 1] to N×1×H×W mask logits."""

    def __init__(self, shape: StudentShape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or StudentShape()
        widths = shape.widths
        self.stem = Convolution(3 * shape.unshuffle**2, widths[0], stride=STRIDES[0] // shape.unshuffle)
        self.downs = nn.ModuleList(Convolution(a, b, stride=2) for a, b in itertools.pairwise(widths))
        self.levels = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(count)))
            for width, count in zip(widths, shape.blocks, strict=True)
        )
        self.context: nn.Module = Context(widths[-1]) if shape.context else nn.Identity()
        self.merges = nn.ModuleList(Merge(b, a, shape.merge_blocks) for a, b in itertools.pairwise(widths))
        self.mask = nn.Conv2d(widths[0], STRIDES[0] ** 2, 3, padding=1)
        self.latent = LatentHead(shape) if shape.latent_channels else None

    def forward(self, pixels: Tensor) -> Tensor:
        """Mask logits."""
        return self._logits(self.features(pixels)[0])

    def taught(self, pixels: Tensor) -> Taught:
        """Everything that a teacher can be compared with, from one pass."""
        features = self.features(pixels)
        latent = self.latent(features) if self.latent is not None else None
        return Taught(self._logits(features[0]), latent, features)

    def features(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The features at strides 8, 16 and 32 after the way back, finest first."""
        return self.features_from_stem(self.stem(F.pixel_unshuffle(pixels, self.shape.unshuffle)))

    def features_from_stem(self, first: Tensor) -> tuple[Tensor, ...]:
        """The same of what the first convolution gives."""
        found = [self.levels[0](F.relu(first))]
        for down, level in zip(self.downs, itertools.islice(self.levels, 1, None), strict=True):
            found.append(level(F.relu(down(found[-1]))))
        found[-1] = self.context(found[-1])
        for number in reversed(range(len(self.merges))):
            found[number] = self.merges[number](found[number + 1], found[number])
        return tuple(found)

    def _logits(self, finest: Tensor) -> Tensor:
        return F.pixel_shuffle(self.mask(finest), STRIDES[0])

    @torch.no_grad()
    def segment(self, images: Tensor) -> Tensor:
        """uint8 N×H×W×3 images to uint8 N×H×W probabilities: what the exported graph computes."""
        check_student_size(*images.shape[1:3])
        probability = torch.sigmoid(self(images.to(torch.float32).permute(0, 3, 1, 2) / 255))
        return (probability * 255).round().to(torch.uint8)[:, 0]


def student_flop(shape: StudentShape) -> int:
    """Floating-point operations for one picture of a student's exported graph, as `gms-rt inspect` counts them."""
    positions = [(shape.size // stride) ** 2 for stride in STRIDES]
    widths, finest = shape.widths, positions[0]

    def block(level: int) -> int:
        return 2 * 9 * widths[level] ** 2 * positions[level]

    products = 9 * widths[0] * finest * (3 * shape.unshuffle**2 + STRIDES[0] ** 2)  # the first and the last
    products += sum(count * block(level) for level, count in enumerate(shape.blocks))
    for level, (above, below) in enumerate(itertools.pairwise(widths)):
        products += 9 * above * below * positions[level + 1]  # down
        products += below * 4 * above * positions[level + 1] + shape.merge_blocks * block(level)  # and back
    return 2 * (products + (widths[-1] ** 2 if shape.context else 0))


def student_shape(gflop: float, size: int, like: StudentShape | None = None) -> StudentShape:
    """The best shape whose operations fit a budget in GFLOP, for pictures of this size.

    The widest, and of that width the one with the most blocks: a CPU or GPU runs few wide layers faster than many thin
    ones. `like` gives everything but size, width and blocks.
    """
    best, smallest = None, 0
    for shape in _ladder(replace(like or StudentShape(), size=size)):
        flop = student_flop(shape)
        smallest = smallest or flop
        if flop <= gflop * 1e9:
            best = shape
        elif shape.blocks == _fewest(shape.width):
            break  # nothing wider fits
    if best is None:
        raise GmsError(
            f"no student for {size}x{size} pictures fits {gflop:g} GFLOP",
            fix=f"give at least {-(-smallest // 10**6) / 1000:g} GFLOP",
        )
    return best


def _ladder(like: StudentShape) -> list[StudentShape]:
    """Every shape that is considered, from narrow to wide and of each width from shallow to deep."""
    return [
        replace(like, width=width, blocks=blocks)
        for width in range(_MULTIPLE, _WIDEST + 1, _MULTIPLE)
        for blocks in _BLOCKS[_BLOCKS.index(_fewest(width)) :]
    ]


def _fewest(width: int) -> tuple[int, ...]:
    return _BLOCKS[0] if width <= _THIN else _BLOCKS[_FEWEST]
