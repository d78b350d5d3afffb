"""MedSegDiff-V2: what its parts compute, the published size, its steps, and that it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.mask_learning import loss_left, squares

from gms_rt.errors import UsageError
from gms_rt.model.comparators.medsegdiff_v2 import MedSegDiffV2, UncertainAttention, steps_taken
from gms_rt.model.comparators.network import Comparator
from gms_rt.model.comparators.registry import comparator_facts
from gms_rt.model.comparators.run import load_comparator, save_comparator
from gms_rt.model.comparators.spectrum_former import BandPass, GridSpectra
from gms_rt.train.device import tuned_torch

SIDE = 32
NARROW = {
    "_CONDITION_WIDTHS": (8, 8, 8),
    "_CONDITION_DROPOUT": 0.0,
    "_WIDTH": 16,
    "_MULTIPLIERS": (1, 1, 2),
    "_BLOCKS": 1,
    "_ATTENTIVE": (1,),
    "_FORMER_WIDTH": 16,
}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Comparator:
    for constant, value in NARROW.items():
        monkeypatch.setattr(f"gms_rt.model.comparators.medsegdiff_v2.{constant}", value)
    torch.manual_seed(1)
    return Comparator(comparator_facts("medsegdiff-v2"), SIDE)


def test_the_two_unets_alone_have_the_published_parameters() -> None:
    with torch.device("meta"):
        network = MedSegDiffV2(224)
    parts = dict(network.named_children())
    millions = {name: sum(weight.numel() for weight in part.parameters()) / 1e6 for name, part in parts.items()}
    assert millions["condition"] + millions["denoiser"] == pytest.approx(129.4, abs=0.05)
    assert 0.01 * 129.4 < millions["former"] < 0.02 * 129.4


def test_products_are_filtered_by_their_spectrum() -> None:
    torch.manual_seed(2)
    side, spectra = 5, GridSpectra(5)
    query, key = torch.randn(2, side * side, 3), torch.randn(2, side * side, 3)
    plain = query @ key.transpose(1, 2)
    assert torch.allclose(spectra.filtered(query, key, torch.ones(2, 25, 25)), plain, atol=1e-5)
    passes = torch.rand(2, side * side, side * side)
    table = plain.reshape(2, side, side, side, side)
    spectrum = torch.fft.fftn(table, dim=(1, 2, 3, 4)) * passes.reshape(table.shape)
    expected = torch.fft.ifftn(spectrum, dim=(1, 2, 3, 4)).real.reshape(plain.shape)
    assert torch.allclose(spectra.filtered(query, key, passes), expected, atol=1e-5)
    assert (expected - plain).abs().max() > 0.1


def test_what_passes_is_a_share_and_follows_the_step() -> None:
    torch.manual_seed(3)
    found = BandPass(9, 16)(torch.stack([torch.zeros(16), torch.ones(16)]))
    assert found.shape == (2, 9, 9) and found.min() > 0 and found.max() < 1
    assert (found[0] - found[1]).abs().max() > 1e-3
    assert found[0].std() > 1e-4, "every frequency passes alike"


def test_an_anchor_weighs_what_is_near_it_and_never_less_than_itself() -> None:
    attention = UncertainAttention(1)
    with torch.no_grad():
        attention.weigh.weight.fill_(10)
        attention.weigh.bias.fill_(-5)
        assert attention.smooth.weight.sum() == pytest.approx(1)
        anchor = torch.zeros(1, 1, 9, 9)
        anchor[..., 4, 4] = 1
        weight = attention(torch.ones(1, 4, 9, 9), anchor)[0] - 1
    assert torch.equal(weight, weight[:1].expand(4, -1, -1)), "a position has one weight"
    at, beside, far = (float(weight[0, 4, place]) for place in (4, 5, 8))
    assert at == pytest.approx(float(torch.sigmoid(torch.tensor(5.0))))
    assert at > beside > far == pytest.approx(float(torch.sigmoid(torch.tensor(-5.0))), rel=1e-3)


def test_a_mask_comes_back_by_steps_whose_noise_is_known(made: Comparator, monkeypatch: pytest.MonkeyPatch) -> None:
    network, (pixels, masks), seen = made.network, squares(SIDE), []

    def known(noisy: torch.Tensor, _pixels: torch.Tensor, _told: object, step: torch.Tensor) -> torch.Tensor:
        seen.append(int(step[0]))
        found: torch.Tensor = network.schedule.noise_beside(noisy, masks, step)
        return found

    monkeypatch.setattr(network, "_noise_in", known)
    with torch.no_grad():
        assert torch.allclose(network.probability(pixels), masks, atol=1e-4)
    assert tuple(seen) == steps_taken(4, 1000) == (800, 600, 400, 200)
    step = torch.tensor([100, 300, 500, 900])
    noise = torch.randn(4, 1, SIDE, SIDE)
    noisy = network.schedule.noisy(masks, noise, step)
    assert torch.allclose(network.schedule.noise_beside(noisy, masks, step), noise, atol=1e-4)


def test_it_learns_and_a_picture_has_one_mask(made: Comparator, tmp_path: Path) -> None:
    pixels, masks = squares(SIDE)
    assert loss_left(made, pixels, masks, 15) < 0.7
    assert all(weight.grad is not None for weight in made.parameters())
    with tuned_torch(threads=1):
        made.eval()
        with torch.no_grad():
            together = made.network.probability(pixels)
            alone = torch.cat([made.network.probability(pixels[number : number + 1]) for number in range(4)])
        assert torch.allclose(together, alone, atol=1e-4)
        assert together.shape == masks.shape and together.min() >= 0 and together.max() <= 1
        save_comparator(tmp_path, made)
        images = (pixels.permute(0, 2, 3, 1) * 255).round().to(torch.uint8)
        assert torch.equal(load_comparator(tmp_path).segment(images), made.segment(images))


def test_noise_trains_nothing_of_the_rough_mask_s_last_features(made: Comparator) -> None:
    pixels, masks = squares(SIDE)
    network = made.network.train()
    for weight in network.denoiser.parameters():  # its last layers give nothing at first
        torch.nn.init.normal_(weight, std=0.1)
    told = network.condition(pixels)
    network._noise_in(masks, pixels, told, torch.full((4,), 500)).square().mean().backward()
    last, deepest = network.condition.ups[0], network.condition.downs[-1]
    assert all(weight.grad is None for weight in last.parameters())
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in deepest[0].conv.parameters())


def test_sizes_and_tokenizers_that_do_not_fit_are_refused(made: Comparator) -> None:
    with pytest.raises(UsageError, match="weights are for 32x32"):
        made.segment(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    with pytest.raises(UsageError, match="multiples of 32"):
        Comparator(made.facts, 40)
    with pytest.raises(UsageError, match="has no tokenizer"):
        made.facts.check_tokenizer(True)
