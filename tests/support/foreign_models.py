"""Segmentation networks of other libraries, taught phantoms for a moment and exported as their users export them."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gms_rt.demo.phantoms import phantom

SIZE = 64


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters print and warn about their own insides."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def phantom_batch(seeds: range, size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Pictures N×3×H×W of 0 to 255, and masks N×1×H×W of 0 and 1."""
    drawn = [phantom(seed, size, size) for seed in seeds]
    images = np.stack([each.rgb for each in drawn]).transpose(0, 3, 1, 2)
    masks = np.stack([each.mask for each in drawn])[:, None] > 0
    return torch.from_numpy(images.astype(np.float32)), torch.from_numpy(masks.astype(np.float32))


def teach(network: nn.Module, prepare: Any, logit: Any, *, steps: int = 40, size: int = SIZE) -> nn.Module:
    """Train for a moment: `prepare` makes inputs of grey levels, `logit` one N×1×H×W logit of the output."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small layers: several would only wait for each other
    images, masks = phantom_batch(range(900_000, 900_032), size)
    inputs = prepare(images)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    order = np.random.default_rng(0)
    network.train()
    for _ in range(steps):
        chosen = torch.from_numpy(order.choice(len(inputs), 8, replace=False))
        optimiser.zero_grad()
        wrong = nn.functional.binary_cross_entropy_with_logits(logit(network(inputs[chosen])), masks[chosen])
        wrong.backward()
        optimiser.step()
    torch.set_num_threads(threads)
    return network.eval()


def export(network: nn.Module, path: Path, shape: tuple[int, ...], **options: Any) -> Path:
    """Write an ONNX file by torch's exporter; `dynamo=False` is the one that most files out there come from."""
    with quiet(), torch.no_grad():
        torch.onnx.export(network, (torch.zeros(shape),), str(path), **{"dynamo": False, "opset_version": 17} | options)
    return path
