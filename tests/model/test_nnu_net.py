"""nnU-Net by its own package: what it plans for our pictures, and how its network becomes a comparator."""

from __future__ import annotations

import os

import pytest
import torch

from gms_rt.errors import GmsError
from gms_rt.model.comparators.network import Comparator
from gms_rt.model.comparators.registry import comparator_facts

pytest.importorskip("nnunetv2", reason="needs the 'comparators' extra")

from gms_rt.model.comparators.nnu_net import named_once, plan_from_nnunet


def test_the_plan_is_the_published_network_and_leaves_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_raw", "/mine")
    monkeypatch.delenv("nnUNet_results", raising=False)
    plan = plan_from_nnunet(224)
    assert os.environ.get("nnUNet_raw") == "/mine"  # noqa: SIM112 - its own name
    assert "nnUNet_results" not in os.environ
    assert list(plan["architecture"]["arch_kwargs"]["features_per_stage"]) == [32, 64, 128, 256, 512, 512]
    assert plan["architecture"]["network_class_name"].endswith("PlainConvUNet")


def test_every_weight_has_one_name_and_the_network_says_the_same() -> None:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    plan = plan_from_nnunet(32)["architecture"]
    parts = plan["network_class_name"], plan["arch_kwargs"], plan["_kw_requires_import"]
    network = get_network_from_plans(*parts, 3, 2, deep_supervision=True).eval()
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        before, named = network(pixels), len(network.state_dict())
        after = named_once(network)(pixels)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert len(network.state_dict()) == len(list(network.parameters())) < named


def test_a_size_that_nnunet_would_pad_is_refused() -> None:
    with pytest.raises(GmsError, match=r"320x320 for pictures of 288x288.*use size=320"):
        plan_from_nnunet(288)


def test_every_scale_but_the_coarsest_is_trained_and_brightness_is_normalised_away() -> None:
    torch.manual_seed(5)
    comparator = Comparator(comparator_facts("nnu-net"), 32).eval()
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        said = comparator.supervised(pixels)
        plain = comparator(pixels)
        assert torch.equal(said[0][1], plain)
        assert torch.allclose(comparator(0.5 * pixels + 0.2), plain, atol=1e-3)
    weights = [weight for weight, _ in said]
    assert weights == [pytest.approx(2 / 3), pytest.approx(1 / 3)], "three outputs, of which the coarsest is left out"
    assert {tuple(logits.shape) for _, logits in said} == {(2, 1, 32, 32)}
