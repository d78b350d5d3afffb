"""A student that computes in training as its INT8 engine will: quantisation-aware training.

`fake_quantised` folds the normalisations and rounds what goes into every convolution but the first, as
`gms_rt.precision.int8` writes it for a CPU: activations, none of which is negative, to 255 steps up to a learned range;
weights to 64 steps on each side of zero, one scale per output channel. Gradients pass through the rounding as if it
were not there, and what is clipped moves the range. The first convolution sees pixels and is not quantised; its input
is whole grey levels anyway.

    ranges = observed_ranges(student, batches)
    quantised = fake_quantised(student, ranges)     # train this one, with a small learning rate
    student, ranges = plain_student(quantised)
    save_student(folder, student, tables, ranges=ranges)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.errors import ConfigError
from gms_rt.model.student import Convolution, Student
from gms_rt.model.student_folding import convolutions, fold_student, unfold_student

STEPS = 255  # of an activation
WEIGHT_STEPS = 64  # of a weight on one side of zero, as `gms_rt.precision.recipe.WEIGHT_LEVELS`
_SHARE = 0.9999  # of the values in a batch that an observed range takes in
_SMALLEST = 1e-6  # a range


class QuantisedConv2d(nn.Conv2d):
    """A convolution whose input and weights are rounded as in INT8."""

    def __init__(self, plain: nn.Conv2d, high: float) -> None:
        assert isinstance(plain.padding, tuple) and plain.bias is not None
        shape = plain.in_channels, plain.out_channels, plain.kernel_size
        super().__init__(*shape, plain.stride, plain.padding)  # type: ignore[arg-type]
        self.weight = plain.weight
        self.bias = plain.bias
        self.high = nn.Parameter(torch.tensor(float(high), device=plain.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve what INT8 keeps of x."""
        return F.conv2d(self.rounded_input(x), self.rounded_weight(), self.bias, self.stride, self.padding)

    def rounded_input(self, x: Tensor) -> Tensor:
        """x in whole steps up to the range."""
        high = self.high.clamp(min=_SMALLEST)
        clipped = torch.minimum(x.clamp(min=0), high)
        step = (high / STEPS).detach()
        return clipped + (torch.round(clipped / step) * step - clipped).detach()

    def rounded_weight(self) -> Tensor:
        """The weights in whole steps, whose size is that of the largest weight of an output channel."""
        weight = self.weight.detach()
        peak = weight.abs().amax(dim=(1, 2, 3), keepdim=True)
        step = torch.where(peak > 0, peak, torch.ones_like(peak)) / WEIGHT_STEPS
        rounded = torch.round(weight / step).clamp(-WEIGHT_STEPS, WEIGHT_STEPS) * step
        return self.weight + (rounded - weight)


def quantised_names(student: Student) -> list[str]:
    """The convolutions that INT8 takes in: all but the first, in the order in which they run."""
    return list(convolutions(student))[1:]


@torch.no_grad()
def observed_ranges(student: Student, batches: Iterable[Tensor]) -> dict[str, float]:
    """What goes into each convolution at most, over batches of N×3×H×W pixels; a start for the learned ranges."""
    found = dict.fromkeys(quantised_names(student), 0.0)
    layers = convolutions(student)

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def look(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            values = given[0].detach().float().flatten()
            place = max(1, int(values.numel() * _SHARE))
            found[name] = max(found[name], float(values.kthvalue(place).values))

        return layers[name].register_forward_pre_hook(look)

    handles = [watch(name) for name in found]
    training = student.training
    student.eval()
    try:
        for pixels in batches:
            student(pixels)
    finally:
        student.train(training)
        for handle in handles:
            handle.remove()
    return {name: max(high, _SMALLEST) for name, high in found.items()}


def fake_quantised(student: Student, ranges: Mapping[str, float]) -> Student:
    """A copy that computes as INT8 will, with these ranges to start from; it takes gradients like any student."""
    result = fold_student(student)
    names = quantised_names(student)
    if set(names) != set(ranges):
        wrong = sorted(set(names) ^ set(ranges))
        raise ConfigError(f"the ranges do not fit this student ({', '.join(wrong[:3])})", fix="observe them again")
    for name in names:
        layer = result.get_submodule(name)
        if isinstance(layer, Convolution):
            layer.conv = QuantisedConv2d(layer.conv, ranges[name])
        else:
            result.mask = QuantisedConv2d(result.mask, ranges[name])
    return result


def plain_student(quantised: Student) -> tuple[Student, dict[str, float]]:
    """A student without roundings, as a run folder holds it, and the ranges that were learned."""
    ranges: dict[str, float] = {}
    for name, layer in convolutions(quantised).items():
        conv = layer.conv if isinstance(layer, Convolution) else layer
        if isinstance(conv, QuantisedConv2d):
            ranges[name] = max(float(conv.high.detach()), _SMALLEST)
    return unfold_student(quantised), ranges
