"""Recipes, views, cached latents, schedule: what a training is fed with."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.phantom_folders import write_phantoms, write_tokenizer

from gms_rt.data.layouts import recognise
from gms_rt.data.splits import split_dataset
from gms_rt.errors import ConfigError, UsageError
from gms_rt.metrics import dice
from gms_rt.model.gms import Gms
from gms_rt.model.loading import load_tokenizer
from gms_rt.runtime.device import cpu_from_files
from gms_rt.train.augment import augment
from gms_rt.train.batches import Batch, BatchSource, CachedBatches, LiveBatches, ReadAhead
from gms_rt.train.device import readers
from gms_rt.train.latents import INDEX, cached_latents
from gms_rt.train.linear_decoder import draw_linear, fit_linear_decoder, linear_decoder_loss
from gms_rt.train.loop import train
from gms_rt.train.recipe import TrainingRecipe, load_recipe, recipe_names
from gms_rt.train.request import TrainingRequest
from gms_rt.train.samples import Samples, mask_tensor
from gms_rt.train.schedule import Schedule
from gms_rt.train.start import first_weights
from gms_rt.train.view_readers import ViewReaders
from gms_rt.train.views_ahead import case_numbers

SMALL = ("size=32", "width=8", "groups=4", "multipliers=[1,2]", "views=3", "batch=4")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantoms(tmp_path_factory.mktemp("data"), 40)


def samples(phantoms: Path, *settings: str, count: int = 40) -> Samples:
    return Samples(recognise(phantoms).cases[:count], load_recipe("fast", [*SMALL, *settings]))


def model(tokenizer: str, recipe: TrainingRecipe) -> Gms:
    frozen = load_tokenizer(tokenizer)
    return Gms(frozen, first_weights(recipe, frozen.spec.channels).mapper)


def test_recipes_are_what_the_paper_and_the_program_say() -> None:
    assert recipe_names() == ["diffusion", "fast", "official", "official-ham10000", "paper", "pixels"]
    paper, official = load_recipe("paper"), load_recipe("official")
    for recipe in (paper, official):
        assert (recipe.epochs, recipe.batch, recipe.lr, recipe.size, recipe.anneal) == (1000, 8, 2e-3, 224, "epoch")
        assert (recipe.precision, recipe.dice_smooth, recipe.latent_weight) == ("fp32", 1e-5, 1)
    assert (paper.loss, paper.decoded, paper.latent_epochs) == ("both", "output", 0)
    assert (official.loss, official.decoded, official.deep_supervision, official.last_batch) == (
        "both",
        "all",
        True,
        "drop",
    )
    assert (official.warmup, official.warmup_moves) == (5, "epoch")
    assert (official.latent_noise, official.latent_noise_scaled) == (0.5, False)
    assert (official.augment_at, official.image_resize, official.mask_resize) == ("native", "bilinear", "nearest")
    assert load_recipe("official-ham10000") == replace(official, epochs=150)


def test_a_recipe_can_be_based_on_another(tmp_path: Path) -> None:
    file = tmp_path / "glas.toml"
    file.write_text('base = "official-ham10000"\nquarter_turns = 1\nsketch = 0.5\n')
    wanted = replace(load_recipe("official"), epochs=150, quarter_turns=1.0, linear_decoder=0.5)
    assert load_recipe(str(file)) == wanted
    file.write_text('base = "glas"\n')
    with pytest.raises(ConfigError, match=r"glas.toml: unknown base 'glas'; name one of diffusion, fast, official"):
        load_recipe(str(file))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["epoch=3"], "unknown key 'epoch'; did you mean 'epochs'"),
        (["lr=fast"], "is not of type float"),
        (["batch=0"], "batch is 0"),
        (["views=0"], "latent_epochs need cached views"),
        (["views=2", "latent_noise=0.5"], "cached views have no posterior"),
        (["quarter_turns=1.5"], r"quarter_turns is 1.5; give a share"),
        (["flip_share=-1"], "flip_share is -1"),
        (["scale=1"], "scale is 1"),
        (["dice_smooth=0"], "dice_smooth is 0"),
        (["loss=everything"], "is not one of"),
    ],
)
def test_bad_settings_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("fast", settings)
    with pytest.raises(ConfigError, match="unknown recipe 'quick'; use diffusion, fast, official, official-ham10000"):
        load_recipe("quick")


def test_a_view_moves_image_and_mask_together() -> None:
    recipe = load_recipe("fast", ["hue=0", "saturation=0", "value=0", "contrast=0", "rotate=90"])
    mask = np.zeros((64, 64), np.uint8)
    mask[10:30, 20:50] = 255
    image = np.repeat(mask[..., None], 3, axis=2)
    moved = 0
    for seed in range(30):
        view, cut = augment(image, mask, recipe, np.random.default_rng(seed))
        assert set(np.unique(cut)) <= {0, 255}
        assert np.mean((view[..., 0] >= 128) != (cut > 0)) == 0
        moved += not np.array_equal(cut, mask)
    assert moved == 30


def test_colour_leaves_the_mask_and_plain_recipes_leave_everything() -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8)
    still = TrainingRecipe(flip="none")
    same, cut = augment(image, mask, still, np.random.default_rng(1))
    assert np.array_equal(same, image)
    assert np.array_equal(cut, mask)
    coloured, cut = augment(image, mask, TrainingRecipe(flip="none", hue=0.1, value=0.3), np.random.default_rng(1))
    assert not np.array_equal(coloured, image)
    assert np.array_equal(cut, mask)


def test_views_repeat_and_differ(phantoms: Path) -> None:
    first, again = samples(phantoms), samples(phantoms)
    assert np.array_equal(first.view(3, 5)[0], again.view(3, 5)[0])
    assert not np.array_equal(first.view(3, 5)[0], first.view(3, 6)[0])
    assert not np.array_equal(first.view(3, 5)[0], samples(phantoms, "seed=1").view(3, 5)[0])


def test_the_key_of_earlier_versions_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("latent_epochs = 3\nviews = 2\nsketch = 0.5\n")
    assert load_recipe(str(tmp_path / "mine.toml")).linear_decoder == 0.5
    assert load_recipe("fast", ["sketch=0"]) == load_recipe("fast", ["linear_decoder=0"])
    with pytest.raises(ConfigError, match="linear_decoder is negative"):
        load_recipe("fast", [" sketch = -1"])


def test_cached_latents_are_the_encoders(phantoms: Path, tokenizer: str, tmp_path: Path) -> None:
    given = samples(phantoms)
    gms = model(tokenizer, given.recipe)
    cache = cached_latents(gms, given, tmp_path)
    image, target, mask = cache.batch([0, 35, 7], [0, 2, 1])
    for row, (case, view) in enumerate([(0, 0), (35, 2), (7, 1)]):
        picture, truth = given.view(case, view) if view else given.plain(case)
        with torch.no_grad():
            pixels = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
            drawn = torch.from_numpy(truth)[None, None].repeat(1, 3, 1, 1) / 255
            assert torch.allclose(image[row : row + 1], gms.encode(pixels), atol=2e-3, rtol=2e-3)
            assert torch.allclose(target[row : row + 1], gms.encode(drawn), atol=2e-3, rtol=2e-3)
        assert np.array_equal(mask[row, 0].numpy() * 255, truth)


def test_the_cache_is_memory_mapped_hashed_and_resumed(phantoms: Path, tokenizer: str, tmp_path: Path) -> None:
    given = samples(phantoms)
    gms = model(tokenizer, given.recipe)
    cached_latents(gms, given, tmp_path)
    files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("*.npy")}
    assert len(files) == 6, "two shards of images, masks and pixels"
    cache = cached_latents(gms, given, tmp_path)
    assert all(path.stat().st_mtime_ns == made for path, (_, made) in files.items()), "nothing is made twice"
    path, (content, _) = next((p, c) for p, c in files.items() if p.name == "00000.images.npy")
    with path.open("r+b") as stream:  # what is mapped shows what the file says now
        stream.seek(-np.load(path).nbytes, os.SEEK_END)
        stream.write(bytes(64))
    assert not cache.batch([0], [0])[0].flatten()[:32].any()
    path.write_bytes(content)
    broken, lost = tmp_path / "00000.masks.npy", tmp_path / "00001.images.npy"
    data = bytearray(broken.read_bytes())
    data[-1] ^= 1
    broken.write_bytes(data)
    lost.unlink()
    cached_latents(gms, given, tmp_path)
    assert all(path.read_bytes() == content for path, (content, _) in files.items())


def test_another_cache_is_made_for_other_settings_or_pictures(phantoms: Path, tokenizer: str, tmp_path: Path) -> None:
    def key(given: Samples) -> str:
        cached_latents(model(tokenizer, given.recipe), given, tmp_path)
        return str(json.loads((tmp_path / INDEX).read_text())["key"])

    base = key(samples(phantoms, count=4))
    assert key(samples(phantoms, "lr=0.1", "latent_epochs=9", count=4)) == base, "not what the latents depend on"
    settings = ("rotate=1", "seed=5", "views=2", "size=40", "quarter_turns=0.5", "mask_resize=nearest")
    others = {key(samples(phantoms, setting, count=4)) for setting in settings}
    assert len(others | {base, key(samples(phantoms, count=3))}) == 8
    assert len(list(tmp_path.glob("*.npy"))) == 3, "old arrays do not pile up"


def test_every_epoch_takes_each_case_once(phantoms: Path) -> None:
    schedule = Schedule(load_recipe("fast", SMALL), 10)
    assert schedule.batches == 3
    orders = []
    for epoch in range(3):
        numbers = np.concatenate([case_numbers(schedule, epoch * 3 + batch) for batch in range(3)])
        assert sorted(numbers.tolist()) == list(range(10))
        orders.append(numbers.tolist())
    assert orders[0] != orders[1]


def test_the_last_cases_of_an_epoch_are_kept_or_dropped(phantoms: Path) -> None:
    drop = Schedule(load_recipe("fast", [*SMALL, "last_batch=drop"]), 10)
    assert (drop.batches, drop.images) == (2, 8)
    assert [len(case_numbers(drop, step)) for step in range(4)] == [4, 4, 4, 4]
    keep = Schedule(load_recipe("fast", SMALL), 10)
    assert (keep.batches, keep.images) == (3, 10)
    few = Schedule(load_recipe("fast", [*SMALL, "last_batch=drop"]), 3)
    assert (few.batches, few.images, len(case_numbers(few, 0))) == (1, 3, 3)


def test_both_sources_give_the_same_kind_of_batch(phantoms: Path, tokenizer: str, tmp_path: Path) -> None:
    given = samples(phantoms, count=8)
    gms = model(tokenizer, given.recipe)
    schedule = Schedule(given.recipe, 8)
    live = LiveBatches(gms, given, schedule, torch.device("cpu"))
    cached = CachedBatches(cached_latents(gms, given, tmp_path), given, schedule)
    for step in (0, 1, 5):
        a, b = live.batch(step), cached.batch(step)
        assert a.names == b.names
        for left, right in ((a.image, b.image), (a.target, b.target), (a.mask, b.mask)):
            assert left.shape == right.shape
    assert torch.equal(live.batch(5).image, live.batch(5).image)
    live.close()


def test_the_learning_rate_warms_up_and_anneals() -> None:
    paper = Schedule(load_recipe("paper", ["epochs=10"]), 16)
    rates = [paper.place(step).lr for step in range(paper.steps)]
    assert rates[0] == rates[1] == 2e-3, "per epoch"
    assert rates == sorted(rates, reverse=True)
    assert rates[10] == pytest.approx(1e-3)
    fast = Schedule(load_recipe("fast", ["latent_epochs=10", "epochs=4"]), 16)
    rates = [fast.place(step).lr for step in range(fast.steps)]
    assert rates[0] == pytest.approx(2e-3 / 4)
    assert max(rates[:20]) == pytest.approx(2e-3)
    assert rates[19] < 2e-4
    assert max(rates[20:]) <= 4e-4
    assert [fast.place(step).phase for step in (0, 19, 20, 27)] == ["latent", "latent", "image", "image"]
    assert all(math.isfinite(rate) and rate > 0 for rate in rates)
    # As the official scheduler moves: nothing in the first epoch, a quarter more in each, a cosine after the fifth.
    official = Schedule(load_recipe("official", ["epochs=105"]), 16)
    rates = [official.place(2 * epoch).lr / 2e-3 for epoch in range(105)]
    assert rates[:6] == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])
    assert rates[55] == pytest.approx(0.5)
    assert all(official.place(2 * epoch + 1).lr == official.place(2 * epoch).lr for epoch in range(105))


def write_variational(folder: Path, *, quant: bool = True) -> str:
    """A tiny autoencoder with a posterior; `quant`: behind a quantisation convolution, as Stable Diffusion's."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        sample_size=32,
        use_quant_conv=quant,
        use_post_quant_conv=quant,
    ).save_pretrained(folder)
    return f"sd-vae:{folder}"


@pytest.mark.parametrize("quant", [True, False])
def test_posterior_noise_comes_with_its_share(phantoms: Path, tmp_path: Path, quant: bool) -> None:
    tiny = ["size=32", "width=8", "groups=4", "multipliers=[1,2]", "batch=2", "epochs=20"]
    recipe = load_recipe("official", tiny)
    given = Samples(recognise(phantoms).cases[:4], recipe)
    gms = model(write_variational(tmp_path / "kl", quant=quant), recipe)
    source = LiveBatches(gms, given, Schedule(recipe, 4), torch.device("cpu"))
    scaled = LiveBatches(gms, given, Schedule(replace(recipe, latent_noise_scaled=True), 4), torch.device("cpu"))
    noisy = 0
    for step in range(20):
        batch = source.batch(step)
        assert torch.equal(batch.image, source.batch(step).image), "the same step draws the same noise"
        numbers = case_numbers(Schedule(recipe, 4), step)
        plain = np.stack([given.view(int(n), step // 2 + 1)[0] for n in numbers])
        with torch.no_grad():
            clean = gms.encode(torch.from_numpy(plain).permute(0, 3, 1, 2) / 255)
        noise = batch.image - clean
        noisy += not torch.allclose(noise, torch.zeros(()), atol=1e-4)
        assert torch.allclose(scaled.batch(step).image - clean, noise * gms.tokenizer.spec.scale, atol=1e-4)
    source.close()
    scaled.close()
    assert gms.tokenizer.spec.scale == pytest.approx(0.18215)
    assert 5 <= noisy <= 15


def test_noise_needs_a_posterior(tokenizer: str, phantoms: Path, tmp_path: Path) -> None:
    recipe = load_recipe("official", ["size=32", "epochs=1"])
    dataset = recognise(phantoms)
    split = split_dataset(dataset, validation=0.2)
    with pytest.raises(UsageError, match=r"taesd encodes to a point.*--set latent_noise=0"):
        train(TrainingRequest(dataset, split, load_tokenizer(tokenizer), recipe, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["live", "cached"])
def test_a_gpu_gets_the_same_batches(
    phantoms: Path, tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    given = samples(phantoms, "epochs=2", "latent_epochs=0")
    gms, schedule, cpu = model(tokenizer, given.recipe), Schedule(given.recipe, len(given)), torch.device("cpu")
    if kind == "live":
        plain = LiveBatches(gms, given, schedule, cpu)
        monkeypatch.setattr("gms_rt.train.views_ahead.readers", lambda device, batch: (8, 5))
        ahead: BatchSource = LiveBatches(gms, given, schedule, cpu)
    else:
        cached = CachedBatches(cached_latents(gms, given, tmp_path), given, schedule)
        plain, ahead = cached, ReadAhead(cached, schedule)
        monkeypatch.setattr(Batch, "pinned", lambda self: self)  # there is no GPU to pin for
    for step in range(schedule.steps):
        one, other = plain.batch(step), ahead.batch(step)
        assert one.names == other.names
        for name in ("image", "target", "mask"):
            assert torch.equal(getattr(one, name), getattr(other, name))
    plain.close()
    ahead.close()


def test_a_gpu_is_read_for_by_several() -> None:
    assert readers(torch.device("cpu"), 8) == (2, 1)
    count, steps = readers(torch.device("cuda"), 8)
    assert count == min(8, cpu_from_files().cores)
    assert steps * 8 >= 4 * count


def test_processes_read_the_views_that_threads_read(phantoms: Path) -> None:
    given = samples(phantoms, "size=32", "rotate=30.0")
    asked = [(number, view) for number in range(4) for view in (1, 2)]
    found = []
    for processes in (False, True):
        reading = ViewReaders(given, 2, processes=processes)
        found.append([future.result(60) for future in [reading.ask(*one) for one in asked]])
        reading.close()
    for (image, mask), (other_image, other_mask) in zip(*found, strict=True):
        assert np.array_equal(image, other_image)
        assert np.array_equal(mask, other_mask)


def test_the_linear_decoder_draws_masks_from_latents_that_hold_them(phantoms: Path) -> None:
    data = samples(phantoms, "size=64")
    masks = mask_tensor([data.plain(number)[1] for number in range(len(data))])
    # Latents of stride 4 with four channels: the quarters of each patch.
    latents = torch.nn.functional.pixel_unshuffle(torch.nn.functional.avg_pool2d(masks, 2), 2) * 3 - 1
    fitted = fit_linear_decoder(latents[:30], masks[:30])
    assert fitted is not None
    drawn = draw_linear(latents[30:], fitted)
    assert drawn.shape == masks[30:].shape
    found = [dice(d[0].numpy() >= 0.5, m[0].numpy() >= 0.5) for d, m in zip(drawn, masks[30:], strict=True)]
    assert np.mean(found) > 0.95
    right, wrong = (linear_decoder_loss(latents[30 + turn : 34 + turn], fitted, masks[30:34]) for turn in (0, 4))
    assert float(right) < 0.5 * float(wrong)


def test_latents_that_say_nothing_of_the_mask_get_no_linear_decoder() -> None:
    drawn = torch.Generator().manual_seed(0)
    latents = torch.randn(8, 4, 8, 8, generator=drawn)
    masks = (torch.rand(8, 1, 32, 32, generator=drawn) < 0.2).float()
    assert fit_linear_decoder(latents, masks) is None
    assert fit_linear_decoder(latents, torch.zeros_like(masks)) is None


def test_cached_and_live_batches_give_examples_for_the_linear_decoder(
    phantoms: Path, tokenizer: str, tmp_path: Path
) -> None:
    data = samples(phantoms, count=6)
    gms = model(tokenizer, data.recipe)
    schedule = Schedule(data.recipe, len(data))
    live = LiveBatches(gms, data, schedule, torch.device("cpu"))
    cached = CachedBatches(cached_latents(gms, data, tmp_path), data, schedule)
    for source in (live, cached):
        latents, masks = source.examples()
        assert len(latents) == len(masks) == 6
        assert masks.shape[-1] == latents.shape[-1] * gms.tokenizer.spec.stride
        source.close()
