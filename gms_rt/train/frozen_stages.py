"""The frozen stages of training, encoder and decoder without gradients: by torch, or on a CPU by OpenVINO.

OpenVINO computes them from the graphs that an export makes of them, in f32: its latents differ from torch's by less
than a cache stores. Seen at 224x224 on two cores of an idle Xeon with AMX, milliseconds a picture by torch, f32 and
bf16: vaelight 5.6, 2.8 and 1.3; taef2 126, 77 and 11. `stages_for` takes it where the work is worth the seconds of an
export, for a training as a whole, so that a resumed training computes as the one before. A stage that cannot be
exported, or does not come out alike, is torch's.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from gms_rt.errors import ConfigError
from gms_rt.export.fuse import PipelinePart
from gms_rt.export.options import ExportOptions
from gms_rt.export.torch_to_onnx import ExportStage, export_stage
from gms_rt.graph.graph import INPUT, OUTPUT, Graph
from gms_rt.graph.join import join_stages
from gms_rt.graph.run import Session
from gms_rt.model.gms import Gms
from gms_rt.runtime.arithmetic import cpu_arithmetic, lacks_bf16

# Pixels to encode: below, as for some hundred pictures of 224x224, torch is done before an export is.
WORTH_AN_EXPORT = 30_000_000
# Distance from torch's result, as a share of its size, at most; 1e-6 and 0.01 are usual.
_ALIKE = {"f32": 1e-3, "bf16": 0.1}
_NEEDED = ("openvino", "onnx", "onnxscript")
_Stage = Callable[[Tensor], Tensor]


class FrozenStages(Protocol):
    """What of `Gms` training needs without gradients, by its names."""

    @property
    def device(self) -> torch.device:
        """Where they take their input."""

    def encode_levels(self, images: Tensor) -> Tensor:
        """What the mapper takes, of uint8 N×H×W×3 images."""

    def encode_masks(self, masks: Tensor) -> Tensor:
        """Scaled latents alone, of masks as uint8 N×H×W×3 images."""

    def draw_levels(self, latent: Tensor) -> Tensor:
        """uint8 N×H×W×1 of scaled mask latents."""


def stages_for(gms: Gms, pictures: int, size: int, threads: int = 0) -> FrozenStages:
    """Who computes the frozen stages of a training that encodes so many pictures of this size."""
    worth = gms.device.type == "cpu" and pictures * size * size >= WORTH_AN_EXPORT
    return RuntimeStages(gms, size, threads) if worth and not _missing() else gms


def bf16_stages(gms: Gms, size: int, threads: int = 0) -> FrozenStages:
    """The same in BF16, for views; refused where that is not to be had."""
    why = _missing() or (lacks_bf16(cpu_arithmetic()) if gms.device.type == "cpu" else "it encodes on a GPU")
    if why:
        raise ConfigError(f"the encoder cannot compute in bf16: {why}", where="recipe", fix="set encode_in=fp32")
    return RuntimeStages(gms, size, threads, "bf16")


def _missing() -> str:
    """What is not installed, in words, or nothing."""
    absent = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    return f"{' and '.join(absent)} not installed" if absent else ""


class RuntimeStages:
    """The frozen stages by OpenVINO, each exported when it is first needed."""

    def __init__(self, gms: Gms, size: int, threads: int = 0, execution: str = "f32") -> None:
        self._gms, self._size, self._threads, self._execution = gms, size, threads, execution
        self.device = gms.device

    def encode_levels(self, images: Tensor) -> Tensor:
        """What the mapper takes, of uint8 N×H×W×3 images."""
        return self._encoder(images)

    def encode_masks(self, masks: Tensor) -> Tensor:
        """Scaled latents alone, of masks as uint8 N×H×W×3 images."""
        return self._encoder(masks)[:, : self._gms.tokenizer.spec.channels]

    def draw_levels(self, latent: Tensor) -> Tensor:
        """uint8 N×H×W×1 of scaled mask latents."""
        return self._decoder(latent)

    @cached_property
    def _encoder(self) -> _Stage:
        drawn = torch.Generator().manual_seed(0)
        picture = torch.randint(256, (1, self._size, self._size, 3), dtype=torch.uint8, generator=drawn)
        return self._faster("encode_levels", picture)

    @cached_property
    def _decoder(self) -> _Stage:
        spec = self._gms.tokenizer.spec
        side = self._size // spec.stride
        drawn = torch.Generator().manual_seed(0)
        return self._faster("draw_levels", torch.randn(1, spec.channels, side, side, generator=drawn))

    @torch.no_grad()
    def _faster(self, step: str, example: Tensor) -> _Stage:
        """A step by OpenVINO, or by torch where that cannot be."""
        by_torch: _Stage = getattr(self._gms, step)
        try:
            with torch.random.fork_rng(devices=[]):
                stage = ExportStage(step, PipelinePart(self._gms.eval(), step), (example,))
                model = join_stages([export_stage(stage, ExportOptions().opset, (1, 1))], INPUT, OUTPUT)
            found = _by_runtime(Session(Graph(model), execution=self._execution, threads=self._threads))
            ours, theirs = found(example).float(), by_torch(example).float()
        except Exception:  # whatever an exporter or a runtime does not know of a foreign tokenizer
            return by_torch
        alike = (ours - theirs).norm() <= _ALIKE[self._execution] * theirs.norm() + 1e-6
        return found if ours.shape == theirs.shape and bool(alike) else by_torch


def _by_runtime(session: Session) -> _Stage:
    def stage(batch: Tensor) -> Tensor:
        found: list[Any] = [session.outputs(one[None].contiguous().numpy())[0].copy() for one in batch]
        return torch.cat([torch.from_numpy(each) for each in found])

    return stage
