"""Comparators that learn in their own way: SDSeg and GSS between the halves of a frozen tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.mask_learning import loss_left, squares
from support.phantom_folders import write_pair, write_vq

from gms_rt.errors import ArtifactError, UsageError
from gms_rt.model.comparators.denoiser import Denoiser, DenoiserShape
from gms_rt.model.comparators.diffusion import NoiseSchedule, stored_noise
from gms_rt.model.comparators.network import Comparator
from gms_rt.model.comparators.registry import comparator_facts
from gms_rt.model.comparators.run import load_comparator, save_comparator
from gms_rt.model.loading import load_tokenizer
from gms_rt.model.tokenizer import Tokenizer

SIDE = 32
NARROW = {
    "sdseg": {"_WIDTH": 16, "_MULTIPLIERS": (1, 2), "_BLOCKS": 1, "_HEADS": 2, "_DROPOUT": 0.0},
    "gss": {"_WIDTHS": (8, 8, 8, 8), "_BLOCKS": (1, 1, 1, 1), "_GATHERED": 16, "_MIXED": 32, "_LAST": 32, "_HEADS": 2},
}
WRITE = {"sdseg": write_pair, "gss": write_vq}


@pytest.fixture(params=sorted(NARROW))
def made(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Comparator:
    name: str = request.param
    for constant, value in NARROW[name].items():
        monkeypatch.setattr(f"gms_rt.model.comparators.{name}.{constant}", value)
    torch.manual_seed(1)
    tokenizer = load_tokenizer(WRITE[name](tmp_path / "tokenizer"))
    return Comparator(comparator_facts(name), SIDE, tokenizer)


def test_the_tokenizer_stays_as_it_is_and_outside_of_the_run(made: Comparator, tmp_path: Path) -> None:
    tokenizer = made.tokenizer
    assert isinstance(tokenizer, Tokenizer)
    before = tokenizer.weights_sha256()
    trained = [weight for weight in made.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3)
    made.train()
    loss = made.training_loss(*squares(SIDE))
    assert loss is not None
    loss.backward()
    optimiser.step()
    assert tokenizer.weights_sha256() == before
    weights = made.state_dict()
    assert weights and not any("tokenizer" in name for name in weights)
    assert made.parameter_count == sum(weight.numel() for weight in trained)
    save_comparator(tmp_path / "run", made)
    images = (squares(SIDE)[0].permute(0, 2, 3, 1) * 255).round().to(torch.uint8)
    loaded = load_comparator(tmp_path / "run")
    assert torch.equal(loaded.segment(images), made.eval().segment(images))
    named = tmp_path / "run" / "tokenizer.json"
    named.write_text(named.read_text().replace(before, "0" * 64))
    with pytest.raises(ArtifactError, match="changed since then"):
        load_comparator(tmp_path / "run")


def test_a_picture_has_one_mask_whatever_is_beside_it(made: Comparator) -> None:
    pixels, _ = squares(SIDE)
    made.eval()
    with torch.no_grad():
        together = made.network.probability(pixels)
        alone = torch.cat([made.network.probability(pixels[number : number + 1]) for number in range(4)])
        assert torch.allclose(together, alone, atol=1e-4)
        assert together.shape == (4, 1, SIDE, SIDE) and together.min() >= 0 and together.max() <= 1
        assert torch.allclose(torch.sigmoid(made(pixels)), together.clamp(1e-4, 1 - 1e-4), atol=1e-6)


def test_it_learns_the_masks_of_a_few_pictures(made: Comparator) -> None:
    pixels, masks = squares(SIDE)
    assert loss_left(made, pixels, masks, 30) < 0.7


@pytest.mark.parametrize(("name", "given"), [("sdseg", False), ("gss", False), ("unet", True)])
def test_a_tokenizer_goes_with_the_models_that_need_one(name: str, given: bool, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_pair(tmp_path)) if given else None
    with pytest.raises(UsageError, match="has no tokenizer" if given else "needs a frozen tokenizer"):
        Comparator(comparator_facts(name), SIDE, tokenizer)


def test_gss_needs_a_codebook(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no codebook"):
        Comparator(comparator_facts("gss"), SIDE, load_tokenizer(write_pair(tmp_path)))


def test_noise_is_added_and_taken_out() -> None:
    schedule = NoiseSchedule(1000, 0.0015, 0.0155, "root")
    clean, noise, step = torch.rand(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([0, 500, 999])
    noisy = schedule.noisy(clean, noise, step)
    assert torch.allclose(schedule.clean(noisy, noise, step), clean, atol=1e-4)
    far = (noisy - noise).flatten(1).abs().mean(dim=1)
    assert far[0] > far[1] > far[2] and far[2] < 0.05, "the last step is nearly noise"
    assert torch.equal(stored_noise(2, 3), stored_noise(2, 3))


def test_a_denoiser_takes_grids_of_any_side_and_its_step_s_number() -> None:
    torch.manual_seed(3)
    denoiser = Denoiser(DenoiserShape(2, 2, 16, (1, 2, 2), 1, 2, 0.0)).eval()
    for weight in denoiser.parameters():  # its last layers give nothing at first
        torch.nn.init.normal_(weight, std=0.1)
    with torch.no_grad():
        for side in (7, 8, 1):
            found = [denoiser(torch.ones(1, 2, side, 9), torch.tensor([step])) for step in (0, 900)]
            assert found[0].shape == (1, 2, side, 9)
            assert (found[0] - found[1]).abs().max() > 1e-3


def test_the_weights_of_sdseg_s_denoiser_keep_their_names() -> None:
    """Runs of it were written before a denoiser had several shapes."""
    with torch.device("meta"):
        weights = Denoiser(DenoiserShape(8, 4, 32, (1, 2), 1, 2, 0.0)).state_dict()
    assert {name.partition(".")[0] for name in weights} == {
        "step", "first", "downs", "middle", "behind", "ups", "norm", "head",
    }  # fmt: skip
    parts = {name.removeprefix("downs.1.block.") for name in weights if name.startswith("downs.1.block.")}
    layers = ("norm", "conv", "told", "second", "out")
    assert parts == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert weights["downs.1.block.told.weight"].shape == (2 * 32, 4 * 32)
    assert weights["downs.0.attention.qkv.weight"].shape == (3 * 32, 32, 1, 1)


def test_codes_are_drawn_as_the_latents_that_they_stand_for(tmp_path: Path) -> None:
    from gms_rt.model.diffusers_tokenizer import nearest_codes

    tokenizer = load_tokenizer(write_vq(tmp_path / "vq"))
    assert tokenizer.codebook is not None
    latent = tokenizer.encode(torch.rand(2, 3, 16, 24) * 2 - 1)
    codes = nearest_codes(latent, tokenizer.codebook)
    assert codes.shape == (2, 4, 6)
    assert torch.allclose(tokenizer.decode_codes(codes), tokenizer.decode(latent), atol=1e-5)
    other = load_tokenizer(write_pair(tmp_path / "pair"))
    assert other.codebook is None
    with pytest.raises(UsageError, match="no codebook"):
        other.decode_codes(codes)


@pytest.mark.parametrize("write", [write_pair, write_vq])
def test_a_trainable_encoder_starts_as_the_frozen_one(write: Callable[[Path], str], tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write(tmp_path))
    encoder = tokenizer.trainable_encoder()
    image = torch.rand(1, 3, 16, 16)
    assert torch.allclose(encoder(image), tokenizer.latent_mean(image))
    assert all(weight.requires_grad for weight in encoder.parameters()) and list(encoder.parameters())
    encoder(image).sum().backward()
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(0.1)
    assert not torch.allclose(encoder(image), tokenizer.latent_mean(image)), "a copy, not the frozen one"
