"""The latent mapping model: the paper's size, wiring and attention, whatever its configuration."""

from __future__ import annotations

import pytest
import torch

from gms_rt.errors import ConfigError
from gms_rt.model.lmm import Attention, LatentMapper, LmmConfig
from gms_rt.train.losses import dice_loss, latent_loss


def test_the_papers_model_has_its_parameters():
    assert sum(p.numel() for p in LatentMapper().parameters()) == 1_564_976


@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize(
    ("channels", "width", "multipliers"), [(4, 16, (1, 2, 4, 4)), (32, 16, (1, 2)), (3, 32, (2, 1, 3))]
)
def test_output_has_the_latents_shape(deep, channels, width, multipliers):
    torch.manual_seed(0)
    mapper = LatentMapper(LmmConfig(channels, width, multipliers, 8, deep)).eval()
    latent = torch.randn(2, channels, 6, 10)
    out = mapper(latent)
    assert out.shape == latent.shape
    supervised = mapper.supervised_latents(latent)
    assert torch.equal(supervised[0], out)
    assert len(supervised) == (len(multipliers) - 1 if deep else 1)
    assert all(s.shape == latent.shape for s in supervised)


def test_the_deepest_head_is_there_but_not_supervised():
    mapper = LatentMapper(LmmConfig(width=16))
    sum(s.square().mean() for s in mapper.supervised_latents(torch.randn(1, 4, 4, 4))).backward()
    untouched = {name.split(".")[1] for name, p in mapper.named_parameters() if p.grad is None}
    assert untouched == {"0"}
    assert all(p.grad is not None for p in mapper.heads[1].parameters())


def test_attention_is_softmax_over_all_positions():
    torch.manual_seed(1)
    attention = Attention(16, 8)
    x = torch.randn(1, 16, 3, 5)
    h = attention.norm(x)[0].flatten(1)
    query, key, value = (
        part.weight[:, :, 0, 0] @ h + part.bias[:, None] for part in (attention.query, attention.key, attention.value)
    )
    mixed = value @ torch.softmax(query.T @ key / 16**0.5, dim=1).T
    expected = x + attention.out(mixed.reshape(1, 16, 3, 5))
    assert torch.allclose(attention(x), expected, atol=1e-5)


def test_attention_in_bf16_differs_by_its_rounding_alone_while_training():
    """In training it is computed another way; outputs and gradients are those of float32, rounded."""
    torch.manual_seed(2)
    attention = Attention(32, 16)
    x = torch.randn(2, 32, 7, 9)
    upstream = torch.randn_like(x)
    found = {}
    for kind in ("training", "full"):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "training"):
            out = attention(x) - x
        found[kind] = [out.detach().float(), *torch.autograd.grad(out.float(), list(attention.parameters()), upstream)]
    for rounded, full in zip(found["training"], found["full"], strict=True):
        assert (rounded - full).norm() < 0.03 * full.norm() + 0.01  # the keys' bias has no gradient
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        evaluated = (attention(x) - x).float()
    assert (found["training"][0] - evaluated).norm() < 0.01 * evaluated.norm()


@pytest.mark.parametrize(
    "wrong", [{"latent_channels": 0}, {"width": 24}, {"multipliers": (1,)}, {"multipliers": (0, 2)}, {"groups": 0}]
)
def test_an_impossible_shape_is_refused(wrong):
    with pytest.raises(ConfigError):
        LmmConfig(**wrong)


def test_losses():
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, :, :4] = 1
    assert dice_loss(mask, mask).item() == pytest.approx(0, abs=1e-6)  # the second pair is empty, and agrees
    assert dice_loss(1 - mask, mask).item() > 0.95
    assert latent_loss(mask, mask + 2).item() == pytest.approx(4)
