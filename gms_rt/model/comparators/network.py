"""A comparator as the rest of the program sees it: pixels in [0, 1] to mask logits, like a student.

A network is a module that takes N×3×H×W pixels and gives N×1×H×W logits. One that its paper trains with further
outputs has a method `supervised`, which gives (weight, logits) of each, the result first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gms_rt.errors import UsageError
from gms_rt.model.comparators.registry import ComparatorFacts

Supervised = tuple[tuple[float, Tensor], ...]


class Comparator(nn.Module):
    """A network by its entry in the registry, for pictures of a size."""

    def __init__(self, facts: ComparatorFacts, size: int) -> None:
        super().__init__()
        check_comparator_size(facts, size, size, size)
        self.facts, self.size = facts, size
        self.network = facts.network(size)

    def forward(self, pixels: Tensor) -> Tensor:
        """Mask logits N×1×H×W of N×3×H×W pixels."""
        logits: Tensor = self.network(pixels)
        return logits

    def supervised(self, pixels: Tensor) -> Supervised:
        """What is compared with the ground truth in training: (weight, logits), the result first."""
        several = getattr(self.network, "supervised", None)
        found: Supervised = several(pixels) if several is not None else ((1.0, self(pixels)),)
        return found

    @property
    def parameter_count(self) -> int:
        """How many numbers are learned."""
        return sum(parameter.numel() for parameter in self.parameters())

    @torch.no_grad()
    def segment(self, images: Tensor) -> Tensor:
        """uint8 N×H×W×3 images to uint8 N×H×W probabilities: what the exported graph computes."""
        check_comparator_size(self.facts, self.size, *images.shape[1:3])
        probability = torch.sigmoid(self(images.to(torch.float32).permute(0, 3, 1, 2) / 255))
        return (probability * 255).round().to(torch.uint8)[:, 0]


def check_comparator_size(facts: ComparatorFacts, size: int, height: int, width: int) -> None:
    """Refuse pictures that do not fit a network made for this size."""
    multiple = facts.multiple
    if min(height, width) < multiple or height % multiple or width % multiple:
        raise UsageError(
            f"{height}x{width} does not fit {facts.title}", where="--size", fix=f"use multiples of {multiple}"
        )
    if facts.fixed_size and (height, width) != (size, size):
        raise UsageError(
            f"{height}x{width} does not fit {facts.title}, whose weights are for {size}x{size}",
            where="--size",
            fix=f"leave it away, or train it with --set size={height}",
        )


def million_parameters(facts: ComparatorFacts, size: int = 224) -> float:
    """How many numbers a model learns, counted without making them."""
    with torch.device("meta"):
        return Comparator(facts, size).parameter_count / 1e6
