"""What a model's file does not say of itself: how it takes pictures, and what its output means."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gms_rt.errors import UsageError

LAYOUTS = ("auto", "nchw", "nhwc")
ACTIVATIONS = ("sigmoid", "softmax", "argmax", "none", "labels")
COLOURS = ("rgb", "bgr")
RUNTIMES = ("openvino", "onnxruntime")
# What a picture's grey is made of where a model has one channel (BT.601, as Pillow and OpenCV have it).
GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class AdoptOptions:
    """How a model is to be used."""

    # What its output is. sigmoid, softmax: logits that still need it. argmax: scores of which the largest wins; the
    # probability is the sigmoid of the chosen classes' lead over the others, at or above one half just where they win.
    # none: probabilities of 0 to 1. labels: class numbers.
    activation: str
    mean: tuple[float, ...] = (0.0,)  # taken from pixel / scale; one number, or one per channel in the model's order
    std: tuple[float, ...] = (1.0,)  # what that is divided by
    scale: float = 255.0  # what grey levels of 0 to 255 are divided by first
    # Instead of mean and std: each channel's own mean and deviation over the picture (MONAI's NormalizeIntensity).
    z_score: bool = False
    colour: str = "rgb"  # the order of the model's channels, or bgr
    layout: str = "auto"  # of input and output: nchw or nhwc; auto: told by where the 1 or 3 channels stand
    channels: tuple[int, ...] = ()  # classes that are foreground; none: all but class 0, or the only one there is
    output: str = ""  # which output it is, where there are several
    size: tuple[int, int] | None = None  # height and width, where the file leaves them open
    batch: int = 1  # images at once

    def __post_init__(self) -> None:
        for where, value, known in (
            ("--activation", self.activation, ACTIVATIONS),
            ("--layout", self.layout, LAYOUTS),
            ("--colour", self.colour, COLOURS),
        ):
            if value not in known:
                raise UsageError(f"unknown value '{value}'", where=where, fix=f"use {', '.join(known)}")
        for where, values in (("--mean", self.mean), ("--std", self.std), ("--scale", (self.scale,))):
            if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
                raise UsageError("is neither one number nor three", where=where, fix="write 0.485,0.456,0.406")
            if where != "--mean" and not all(value > 0 for value in values):
                raise UsageError("must be above zero", where=where)
        if self.z_score and (self.mean != (0.0,) or self.std != (1.0,)):
            raise UsageError(
                "takes each picture's own mean and deviation", where="--z-score", fix="leave out the other"
            )
        if self.batch < 1:
            raise UsageError(f"{self.batch} images are too few", where="--batch", fix="give 1 or more")
        if any(channel < 0 for channel in self.channels):
            raise UsageError("classes are counted from 0", where="--channel")

    @property
    def numbers(self) -> dict[str, object]:
        """What goes into the graph's description, so that anyone can see what was done."""
        colours: dict[str, object] = {"scale": self.scale, "colour": self.colour}
        own: dict[str, object] = {"z_score": True} if self.z_score else {"mean": [*self.mean], "std": [*self.std]}
        return {"activation": self.activation, **colours, **own, "channels": [*self.channels]}
