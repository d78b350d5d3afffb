"""A step as one CUDA graph gives what the step gives. Needs a GPU."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.train.replay import Replay

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def test_replayed_losses_and_gradients_are_the_functions_own() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.PReLU(), nn.Conv2d(8, 1, 1)).cuda()
    weights = list(net.parameters())

    def derive(what: str, image: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        found = net(image)
        loss = F.mse_loss(found, image[:, :1]) if what == "square" else found.abs().mean()
        return loss.detach(), torch.autograd.grad(loss, weights, allow_unused=True)

    replay = Replay(derive)
    optimiser = torch.optim.SGD(weights, lr=0.1)
    for step in range(12):  # two shapes and two losses by turns, with weights that move
        what, count = ("square", "plain")[step % 2], (4, 3)[step // 2 % 2]
        image = torch.rand(count, 3, 16, 16, device="cuda")
        expected, wanted = derive(what, image)
        loss, gradients = replay(what, image)
        assert torch.allclose(loss, expected, rtol=1e-4, atol=1e-6)
        for parameter, gradient, want in zip(weights, gradients, wanted, strict=True):
            assert gradient is not None and want is not None
            assert torch.allclose(gradient, want, rtol=1e-3, atol=1e-5)
            parameter.grad = gradient
        optimiser.step()


def test_what_cannot_be_recorded_is_said_once_and_computed() -> None:
    def waits(image: Tensor) -> Tensor:
        return image * float(image.sum())  # a value that the processor waits for

    replay = Replay(waits)
    image = torch.arange(4.0, device="cuda")
    with pytest.warns(UserWarning, match="cannot be one CUDA graph"):
        first = replay(image)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = replay(image + 1)
    assert first.tolist() == [0, 6, 12, 18]
    assert second.tolist() == [10, 20, 30, 40]
