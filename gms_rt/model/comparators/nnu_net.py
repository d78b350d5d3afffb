"""nnU-Net: the network of its own package, as its own planner lays it out for the pictures of a training.

nnU-Net is a method more than a network: it looks at a data set and derives network, patches, batches and training. Here
the package's planner is given the data as this project's trainer sees them (2D, three channels, all of one size), and
what it plans is built by the package's own class: the number of scales, channels, kernels and strides. Pictures are
normalised as planned (z-score of each picture and channel), all scales but the coarsest are trained, with the package's
weights.

What is not nnU-Net's own: optimiser, schedule, epochs, batches and views are this project's, the same for every
comparator. Its five folds, mirrored predictions and tiles are left out. Logits of coarser scales are brought to full
size, where nnU-Net brings the truth to theirs.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.errors import GmsError

_DATASET = "Dataset001_pictures"
_CHANNELS, _CLASSES = ("red", "green", "blue"), ("background", "foreground")
_READER = "NaturalImage2DIO"
_TINY = 1e-5  # below the deviation of a picture with one pixel that differs


def plan_from_nnunet(size: int) -> dict[str, Any]:
    """nnU-Net's plan of the 2D network for pictures of this size: its own words for class and arguments."""
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

    with tempfile.TemporaryDirectory() as folder, _folders(Path(folder)), contextlib.redirect_stdout(io.StringIO()):
        for kind in ("raw", "preprocessed"):
            (Path(folder) / kind / _DATASET).mkdir(parents=True)
        _write(Path(folder) / "raw" / _DATASET / "dataset.json", _dataset())
        _write(Path(folder) / "preprocessed" / _DATASET / "dataset_fingerprint.json", _fingerprint(size))
        plans = ExperimentPlanner(_DATASET).plan_experiment()
    found: dict[str, Any] = plans["configurations"]["2d"]
    if found["normalization_schemes"] != ["ZScoreNormalization"] * len(_CHANNELS):
        raise GmsError(
            f"nnU-Net plans the normalization {found['normalization_schemes']}, which is not known here",
            fix="install nnunetv2 2.8",
        )
    if list(found["patch_size"]) != [size, size]:
        high, wide = found["patch_size"]
        raise GmsError(
            f"nnU-Net plans patches of {high}x{wide} for pictures of {size}x{size}, and this project trains on whole "
            "pictures",
            where="--set size",
            fix=f"use size={high}",
        )
    return found


class NNUNet(nn.Module):
    """The network that nnU-Net plans for pictures of one size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        plan = plan_from_nnunet(size)["architecture"]
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

        network: nn.Module = get_network_from_plans(
            plan["network_class_name"], plan["arch_kwargs"], plan["_kw_requires_import"], len(_CHANNELS), len(_CLASSES),
            deep_supervision=True,
        )  # fmt: skip
        self.network = named_once(network)

    def forward(self, pixels: Tensor) -> Tensor:
        """Mask logits."""
        return self._logits(pixels)[0]

    def supervised(self, pixels: Tensor) -> tuple[tuple[float, Tensor], ...]:
        """The logits of every scale but the coarsest at full size, each worth half of the one before."""
        every = self._logits(pixels)
        kept = every[:-1] or every
        total = sum(0.5**number for number in range(len(kept)))
        full = (F.interpolate(each, size=pixels.shape[-2:], mode="bilinear") for each in kept[1:])
        return tuple((0.5**number / total, each) for number, each in enumerate((kept[0], *full)))

    def _logits(self, pixels: Tensor) -> list[Tensor]:
        """Of each scale that has an output, from fine to coarse: softmax over two classes is sigmoid of their gap."""
        middle = pixels.mean(dim=(2, 3), keepdim=True)
        spread = (pixels - middle).square().mean(dim=(2, 3), keepdim=True).sqrt()
        found = self.network((pixels - middle) / spread.clamp(min=_TINY))
        return [each[:, 1:] - each[:, :1] for each in found]


def named_once(network: nn.Module) -> nn.Module:
    """The same network with one name for each weight: the package gives several, and a file of weights takes one.

    A block calls its layers by `all_modules` alone, and a decoder keeps its encoder without calling it.
    """
    for part in list(network.modules()):
        again = ("conv", "norm", "dropout", "nonlin") if hasattr(part, "all_modules") else ()
        for name in (*again, *(("encoder",) if part is getattr(network, "decoder", None) else ())):
            if name in part._modules:
                delattr(part, name)
    if len(network.state_dict()) != len(list(network.parameters())):
        raise GmsError("the network of this nnunetv2 gives its weights several names", fix="install nnunetv2 2.8")
    return network


def _dataset() -> dict[str, Any]:
    """A data set as nnU-Net describes it; the planner does not open the file."""
    return {
        "channel_names": {str(number): name for number, name in enumerate(_CHANNELS)},
        "labels": {name: number for number, name in enumerate(_CLASSES)},
        "numTraining": 1,  # decides nnU-Net's batch size alone, which is not used
        "file_ending": ".png",
        "overwrite_image_reader_writer": _READER,
        "dataset": {"any": {"images": ["any_0000.png"], "label": "any.png"}},
    }


def _fingerprint(size: int) -> dict[str, Any]:
    """What nnU-Net measures of a data set, where every picture has this size."""
    return {
        "spacings": [[999.0, 1.0, 1.0]],  # as its reader of pictures says: one slice, far from any other
        "shapes_after_crop": [[1, size, size]],
        "median_relative_size_after_cropping": 1.0,
        "foreground_intensity_properties_per_channel": {},  # CT alone is normalised by them
    }


def _write(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value), encoding="utf-8")


@contextlib.contextmanager
def _folders(root: Path) -> Iterator[None]:
    """nnU-Net finds its folders by environment variables alone."""
    names = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed", "nnUNet_results": "results"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: str(root / part) for name, part in names.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
