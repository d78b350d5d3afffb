"""A comparator as the rest of the program sees it: pixels in [0, 1] to mask logits, like a student.

A network is a module that takes N×3×H×W pixels and gives N×1×H×W logits. One that its paper trains with further
outputs has a method `supervised`, which gives (weight, logits) of each, the result first.

One that does not learn by its logits is a `LearnsItsOwnWay` instead: it says what is minimised, and draws the mask. One
that does so in the latents of a frozen tokenizer takes that behind the size; a tokenizer's weights are no part of the
network's.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from gms_rt.errors import UsageError
from gms_rt.model.comparators.registry import ComparatorFacts
from gms_rt.model.diffusers_tokenizer import published_shape
from gms_rt.model.tokenizer import Tokenizer

Supervised = tuple[tuple[float, Tensor], ...]
_SURE = 1e-4  # a drawn probability's distance from 0 and 1 where a logit is made of it


@runtime_checkable
class LearnsItsOwnWay(Protocol):
    """A network that is not trained by comparing its logits with the mask."""

    def training_loss(self, pixels: Tensor, masks: Tensor) -> Tensor:
        """What a step minimises, of N×3×H×W pixels and N×1×H×W masks of 0 and 1."""

    def probability(self, pixels: Tensor) -> Tensor:
        """The mask N×1×H×W in [0, 1]."""


class Comparator(nn.Module):
    """A network by its entry in the registry, for pictures of a size, and the tokenizer that it needs, if it does."""

    def __init__(self, facts: ComparatorFacts, size: int, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        check_comparator_size(facts, size, size, size)
        self.facts, self.size = facts, size
        self.network = facts.network(size, tokenizer)
        frozen = [name for name, module in self.named_modules() if isinstance(module, Tokenizer)]
        if frozen:
            _leave_out(self, tuple(f"{name}." for name in frozen))

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The frozen tokenizer in it; None where it needs none."""
        return next((module for module in self.modules() if isinstance(module, Tokenizer)), None)

    def forward(self, pixels: Tensor) -> Tensor:
        """Mask logits N×1×H×W of N×3×H×W pixels."""
        if isinstance(self.network, LearnsItsOwnWay):
            return torch.logit(self.network.probability(pixels).float(), eps=_SURE)
        logits: Tensor = self.network(pixels)
        return logits

    def training_loss(self, pixels: Tensor, masks: Tensor) -> Tensor | None:
        """What a step minimises; None where that is the distance of the logits from the mask."""
        return self.network.training_loss(pixels, masks) if isinstance(self.network, LearnsItsOwnWay) else None

    def supervised(self, pixels: Tensor) -> Supervised:
        """What is compared with the ground truth in training: (weight, logits), the result first."""
        several = getattr(self.network, "supervised", None)
        found: Supervised = several(pixels) if several is not None else ((1.0, self(pixels)),)
        return found

    @property
    def parameter_count(self) -> int:
        """How many numbers are learned."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    @torch.no_grad()
    def segment(self, images: Tensor) -> Tensor:
        """uint8 N×H×W×3 images to uint8 N×H×W probabilities: what the exported graph computes."""
        check_comparator_size(self.facts, self.size, *images.shape[1:3])
        probability = mask_probability(self.network, images.to(torch.float32).permute(0, 3, 1, 2) / 255)
        return (probability * 255).round().to(torch.uint8)[:, 0]


def mask_probability(network: nn.Module, pixels: Tensor) -> Tensor:
    """The mask N×1×H×W in [0, 1] that a network finds in N×3×H×W pixels."""
    return network.probability(pixels) if isinstance(network, LearnsItsOwnWay) else torch.sigmoid(network(pixels))


def _leave_out(comparator: nn.Module, frozen: tuple[str, ...]) -> None:
    """Keep a tokenizer's weights out of what is saved, averaged and loaded: they never change."""

    def drop(module: nn.Module, weights: dict[str, Any], prefix: str, _: object) -> None:
        for name in [name for name in weights if name.removeprefix(prefix).startswith(frozen)]:
            del weights[name]

    def not_missing(module: nn.Module, problems: Any) -> None:
        problems.missing_keys[:] = [name for name in problems.missing_keys if not name.startswith(frozen)]

    comparator.register_state_dict_post_hook(drop)  # type: ignore[no-untyped-call]
    comparator.register_load_state_dict_post_hook(not_missing)  # type: ignore[no-untyped-call]


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
        tokenizer = None if facts.tokenizer is None else published_shape(facts.tokenizer)
        return Comparator(facts, size, tokenizer).parameter_count / 1e6
