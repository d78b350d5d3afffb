"""What is applied to views: how often, how far, and at which size, beside what the recipe says."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.phantom_folders import write_picture

from gms_rt.arrays import U8
from gms_rt.data.layouts import recognise
from gms_rt.scan.mask import resize_mask
from gms_rt.train.augment import ViewChoice, apply_choice, augment, draw_choice
from gms_rt.train.recipe import TrainingRecipe, load_recipe
from gms_rt.train.samples import Samples

DRAWS = 4000
NEAR = 0.032  # four standard deviations of a share of one half among so many draws


def choices(recipe: TrainingRecipe) -> list[ViewChoice]:
    return [draw_choice(recipe, np.random.default_rng([7, number])) for number in range(DRAWS)]


def fills(values: list[float], low: float, high: float) -> bool:
    """Whether values lie in the range, spread over it evenly: a Kolmogorov distance, and both ends."""
    inside = (np.sort(values) - low) / (high - low)
    even = np.arange(1, len(inside) + 1) / len(inside)
    return bool(inside[0] > 0 and inside[-1] < 1 and np.abs(inside - even).max() < 2 / len(inside) ** 0.5)


@pytest.mark.parametrize("name", ["official", "fast", "paper"])
def test_choices_have_the_shares_and_ranges_of_the_recipe(name: str) -> None:
    recipe = load_recipe(name)
    drawn = choices(recipe)
    for kind in ("across", "along"):
        assert np.mean([getattr(choice, kind) for choice in drawn]) == pytest.approx(recipe.flip_share, abs=NEAR)
    turns = Counter(choice.quarters for choice in drawn)
    for quarters in (1, 2, 3):
        assert turns[quarters] / DRAWS == pytest.approx(recipe.quarter_turns / 4, abs=NEAR)
    moved, coloured = ([choice for choice in drawn if getattr(choice, kind)] for kind in ("moved", "coloured"))
    assert len(moved) / DRAWS == pytest.approx(recipe.move_share, abs=NEAR)
    assert len(coloured) / DRAWS == pytest.approx(recipe.colour_share, abs=NEAR)
    assert fills([choice.angle for choice in moved], -recipe.rotate, recipe.rotate)
    if recipe.shift:
        for axis in (0, 1):
            assert fills([choice.shift[axis] for choice in moved], -recipe.shift, recipe.shift)
    if recipe.scale:
        assert fills([choice.factor for choice in moved], 1 - recipe.scale, 1 + recipe.scale)
    if recipe.zoom > 1:
        logarithm = float(np.log(recipe.zoom))
        assert fills([float(np.log(choice.factor)) for choice in moved], -logarithm, logarithm)
    for kind in ("hue", "saturation", "value", "contrast"):
        most = getattr(recipe, kind)
        found = [getattr(choice, kind) for choice in coloured]
        assert fills(found, -most, most) if most else not any(found)
    orders = Counter(choice.order for choice in coloured)
    assert set(orders) == set(itertools.permutations(range(4)))


def test_the_official_shares_are_the_official_programs() -> None:
    """Flips .5 each, quarter turns .5; colours .1 at .2; shift .15, scale .1, rotate 20 at .4."""
    recipe = load_recipe("official")
    assert (recipe.flip, recipe.flip_share, recipe.quarter_turns) == ("both", 0.5, 0.5)
    assert (recipe.colour_share, recipe.value, recipe.contrast, recipe.saturation, recipe.hue) == (0.2, *[0.1] * 4)
    assert (recipe.move_share, recipe.shift, recipe.scale, recipe.rotate, recipe.zoom) == (0.4, 0.15, 0.1, 20, 1)


@pytest.mark.parametrize("where", ["size", "native"])
def test_pictures_are_flipped_and_turned_as_often_as_the_recipe_says(where: str) -> None:
    recipe = TrainingRecipe(flip="both", flip_share=0.3, quarter_turns=0.6, augment_at=where)  # type: ignore[arg-type]
    picture = np.arange(12 * 12 * 3, dtype=np.uint8).reshape(12, 12, 3)
    mask = np.where(np.arange(144).reshape(12, 12) < 50, 255, 0).astype(np.uint8)
    ways = {}
    for quarters, across, along in itertools.product(range(4), (False, True), (False, True)):
        turned = [np.rot90(part, quarters)[:: -1 if along else 1, :: -1 if across else 1] for part in (picture, mask)]
        chance = (0.6 / 4 + (0.4 if quarters == 0 else 0)) * (0.3 if across else 0.7) * (0.3 if along else 0.7)
        key = turned[0].tobytes()
        ways[key] = (ways.get(key, (0.0, b""))[0] + chance, turned[1].tobytes())
    assert len(ways) == 8, "the symmetries of a square"
    found: Counter[bytes] = Counter()
    for number in range(DRAWS):
        view, cut = augment(picture, mask, recipe, np.random.default_rng([3, number]))
        found[view.tobytes()] += 1
        assert cut.tobytes() == ways[view.tobytes()][1], "the mask goes with its image"
    assert set(found) == set(ways)
    for key, (chance, _) in ways.items():
        assert found[key] / DRAWS == pytest.approx(chance, abs=NEAR)


def test_pictures_are_moved_and_coloured_as_often_as_the_recipe_says() -> None:
    recipe = load_recipe("official", ["flip=none", "quarter_turns=0"])
    rng = np.random.default_rng(0)
    picture = rng.integers(20, 236, (16, 20, 3), np.uint8)
    ramp = np.where(np.arange(20) < 10, 0, 255)[None].repeat(16, axis=0).astype(np.uint8)
    moved = coloured = 0
    for number in range(DRAWS):
        choice = draw_choice(recipe, np.random.default_rng([5, number]))
        view, mask = apply_choice(picture, ramp, recipe, choice)
        moved += not np.array_equal(mask, ramp)
        changed = not np.array_equal(view, picture)
        assert changed or not choice.moved, "a moved picture is another one"
        if changed and not choice.moved:
            assert choice.coloured
            coloured += 1
    # Small moves leave so small a mask as it is; colours are seen on the pictures that stay.
    assert 0.3 < moved / DRAWS <= recipe.move_share + NEAR
    assert coloured / DRAWS == pytest.approx(recipe.colour_share * (1 - recipe.move_share), abs=NEAR)


def test_earlier_recipes_keep_their_views() -> None:
    """The numbers of the first version are drawn first, in its order."""
    recipe = replace(load_recipe("fast"), flip="both")
    for seed in range(50):
        rng = np.random.default_rng(seed)
        turn, zoom, dx, dy = rng.uniform(-1, 1, 4)
        across, along = rng.random(2) < 0.5
        hue, saturation, value, contrast = rng.uniform(-1, 1, 4)
        choice = draw_choice(recipe, np.random.default_rng(seed))
        assert (choice.quarters, choice.moved, choice.coloured) == (0, True, True)
        assert (choice.across, choice.along) == (across, along)
        assert (choice.angle, choice.factor) == (recipe.rotate * turn, recipe.zoom**zoom)
        assert choice.shift == (recipe.shift * dx, recipe.shift * dy)
        assert (choice.hue, choice.saturation) == (recipe.hue * hue, recipe.saturation * saturation)
        assert (choice.value, choice.contrast) == (recipe.value * value, recipe.contrast * contrast)


def test_jitter_is_brightness_contrast_saturation_and_hue_in_the_drawn_order() -> None:
    recipe = TrainingRecipe(colours="jitter", value=1.0)
    picture = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    mask = np.zeros((9, 11), np.uint8)

    def view(**values: float | tuple[int, ...]) -> U8:
        choice = replace(ViewChoice(coloured=True), **values)  # type: ignore[arg-type]
        return apply_choice(picture, mask, recipe, choice)[0]

    def near(found: U8, wanted: np.ndarray) -> bool:
        return bool(np.abs(found.astype(float) - np.clip(wanted, 0, 255)).max() <= 0.51)

    plain = picture.astype(float)
    grey = plain @ [0.299, 0.587, 0.114]
    assert near(view(), plain)
    assert near(view(value=0.1), plain * 1.1)
    assert near(view(contrast=-0.1), grey.mean() + (plain - grey.mean()) * 0.9)
    assert near(view(saturation=0.1), grey[..., None] + (plain - grey[..., None]) * 1.1)
    third = view(hue=1 / 3)  # red becomes green, green blue, blue red
    assert near(third, np.roll(plain, 1, axis=2)) or np.abs(third.astype(int) - np.roll(picture, 1, axis=2)).max() <= 1
    first, last = view(value=0.5, contrast=-0.5), view(value=0.5, contrast=-0.5, order=(1, 0, 2, 3))
    assert np.abs(first.astype(int) - last).max() > 5


def test_views_are_made_at_native_size_or_after_resizing(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (40, 60, 3), np.uint8)
    mask = np.where(rng.random((40, 60)) < 0.5, 255, 0).astype(np.uint8)
    write_picture(tmp_path / "images" / "a.png", picture)
    write_picture(tmp_path / "masks" / "a.png", mask)
    cases = recognise(tmp_path).cases
    still = ["size=16", "flip=none", "quarter_turns=0", "move_share=0", "colour_share=0"]
    official = load_recipe("official", still)
    view, cut = Samples(cases, official).view(0, 1)
    assert np.array_equal(view, cv2.resize(picture, (16, 16), interpolation=cv2.INTER_LINEAR))
    assert np.array_equal(cut, cv2.resize(mask, (16, 16), interpolation=cv2.INTER_NEAREST))
    first = Samples(cases, replace(official, augment_at="size"))
    assert all(np.array_equal(a, b) for a, b in zip(first.view(0, 1), (view, cut), strict=True))
    averaged = Samples(cases, replace(official, image_resize="area", mask_resize="half"))
    assert np.array_equal(averaged.view(0, 1)[0], cv2.resize(picture, (16, 16), interpolation=cv2.INTER_AREA))
    assert np.array_equal(averaged.view(0, 1)[1], resize_mask(mask, 16, 16))
    for samples in (first, averaged, Samples(cases, official)):
        plain = samples.plain(0)
        assert np.array_equal(plain[0], averaged.view(0, 1)[0]), "validation is resized as infer resizes"
        assert np.array_equal(plain[1], averaged.view(0, 1)[1])
    turned = replace(official, quarter_turns=1.0)
    numbers = range(1, 30)
    drawn = [draw_choice(turned, np.random.default_rng([0, 0x76696577, n, 0])).quarters for n in numbers]
    wanted = [cv2.resize(np.rot90(picture, q), (16, 16), interpolation=cv2.INTER_LINEAR) for q in drawn]
    given = Samples(cases, turned)
    assert set(drawn) == {0, 1, 2, 3}
    assert all(np.array_equal(given.view(0, n)[0], w) for n, w in zip(numbers, wanted, strict=True))


def test_what_does_not_fit_into_memory_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gms_rt.train import samples

    for number in range(3):
        write_picture(tmp_path / "images" / f"{number}.png", np.full((20, 30, 3), number, np.uint8))
        write_picture(tmp_path / "masks" / f"{number}.png", np.zeros((20, 30), np.uint8))
    read = []
    real = samples.read_case
    monkeypatch.setattr(samples, "read_case", lambda case: read.append(case.name) or real(case))
    monkeypatch.setattr(samples, "_room", lambda: 2 * 20 * 30 * 4)
    given = Samples(recognise(tmp_path).cases, load_recipe("official", ["size=16"]))
    views = [[given.view(case, number)[0].tobytes() for case in range(3)] for number in (1, 1)]
    assert views[0] == views[1]
    assert read == ["0", "1", "2", "2"]
