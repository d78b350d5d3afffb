"""A student's batch normalisations taken into its convolutions, and put back as ones that do nothing.

Folded, a student computes the same with fewer steps: this is the form that is exported and that is trained with
quantisation. Put back, it is a student like any other, which a run folder can hold.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from gms_rt.model.student import Convolution, Student


def fold_student(student: Student) -> Student:
    """A copy in eval mode whose convolutions have a bias, and no normalisation behind them."""
    result = copy.deepcopy(student).eval()
    for layer in convolutions(result).values():
        if isinstance(layer, Convolution) and isinstance(layer.norm, nn.BatchNorm2d):
            layer.conv = torch.nn.utils.fusion.fuse_conv_bn_eval(layer.conv, layer.norm)
            layer.norm = nn.Identity()
    return result


@torch.no_grad()
def unfold_student(student: Student) -> Student:
    """A plain student in eval mode that computes what a folded one does, but for rounding."""
    result = Student(student.shape).eval()
    given = convolutions(student)
    for name, layer in convolutions(result).items():
        source = given[name]
        if not isinstance(layer, Convolution):
            # Learned ranges of a quantised one are no part of a plain student.
            layer.load_state_dict({key: source.state_dict()[key] for key in layer.state_dict()})
            continue
        assert isinstance(source, Convolution) and source.conv.bias is not None
        assert isinstance(layer.norm, nn.BatchNorm2d)
        layer.conv.weight.copy_(source.conv.weight)
        # Mean 0 and variance 1 divide by the root of 1 + eps, which the scale takes back.
        layer.norm.weight.fill_((1 + layer.norm.eps) ** 0.5)
        layer.norm.bias.copy_(source.conv.bias)
    if result.latent is not None and student.latent is not None:
        result.latent.load_state_dict(student.latent.state_dict())
    return result


def convolutions(student: Student) -> dict[str, nn.Module]:
    """The convolutions of a student's exported graph by name, in the order in which they run.

    Each is a `Convolution`, but the mask decoder's, which has a bias and no normalisation.
    """
    ran = ["stem", *_blocks(student, "levels.0")]
    for number in range(len(student.downs)):
        ran += [f"downs.{number}", *_blocks(student, f"levels.{number + 1}")]
    ran += ["context.mix"] if student.shape.context else []
    for number in reversed(range(len(student.merges))):
        ran += [f"merges.{number}.lift", *_blocks(student, f"merges.{number}.blocks")]
    return {name: student.get_submodule(name) for name in [*ran, "mask"]}


def _blocks(student: Student, name: str) -> list[str]:
    found = student.get_submodule(name)
    assert isinstance(found, nn.Sequential)
    return [f"{name}.{number}.{part}" for number in range(len(found)) for part in ("first", "second")]
