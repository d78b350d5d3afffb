"""Views on the device: what is drawn, and that picture and masks go through the same warp."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from gms_rt.distill.recipe import DistillRecipe, load_distill_recipe
from gms_rt.distill.views import change_colours, draw_views, warp_pictures
from gms_rt.errors import ConfigError

STILL = DistillRecipe(flip="none", rotate=0, shift=0, zoom=1, hue=0, saturation=0, value=0, contrast=0)


def pictures(count: int = 3) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.random((count, 3, 16, 24)).astype(np.float32))


def test_same_seed_and_step_same_views() -> None:
    how = DistillRecipe()
    first, again, other = draw_views(how, 5, 4), draw_views(how, 5, 4), draw_views(how, 6, 4)
    assert torch.equal(first.warp, again.warp) and torch.equal(first.mix, again.mix)
    assert not torch.equal(first.warp, other.warp)


def test_nothing_drawn_changes_nothing() -> None:
    drawn, given = draw_views(STILL, 0, 3), pictures()
    assert torch.allclose(warp_pictures(given, drawn.warp), given, atol=1e-5)
    assert torch.allclose(change_colours(given, drawn.mix, drawn.contrast), given, atol=1e-5)


def test_flips_are_flips() -> None:
    how = DistillRecipe(**{**STILL.to_values(), "flip": "both", "flip_share": 1.0, "plain_share": 0.0})
    drawn, given = draw_views(how, 0, 3), pictures()
    assert torch.allclose(warp_pictures(given, drawn.warp), given.flip(2, 3), atol=1e-4)


def test_quarter_turns_of_a_square_are_exact() -> None:
    how = DistillRecipe(**{**STILL.to_values(), "quarter_turns": 1.0, "plain_share": 0.0})
    drawn, given = draw_views(how, 1, 8), pictures(8)[..., :16].contiguous()
    turned = warp_pictures(given, drawn.warp)
    quarters = [next(q for q in range(4) if torch.allclose(turned[i], given[i].rot90(q, (1, 2)), atol=1e-3))
                for i in range(8)]  # fmt: skip
    assert len(set(quarters)) > 1


def test_a_share_of_the_views_is_plain_for_the_teachers_latents() -> None:
    drawn = draw_views(DistillRecipe(plain_share=0.5), 0, 400)
    plain = drawn.plain == 1
    assert 120 < int(plain.sum()) < 280
    assert torch.equal(drawn.warp[plain], torch.eye(2, 3).expand(int(plain.sum()), 2, 3))
    assert not (drawn.warp[~plain] == torch.eye(2, 3)).all(dim=(1, 2)).any()
    assert draw_views(DistillRecipe().untaught(), 0, 400).plain.sum() == 0


def test_zoom_and_shift_stay_within_what_was_asked() -> None:
    how = DistillRecipe(**{**STILL.to_values(), "zoom": 1.25, "shift": 0.1, "plain_share": 0.0})
    warp = draw_views(how, 0, 500).warp
    assert 0.79 < float(warp[:, 0, 0].min()) < 0.85 and 1.2 < float(warp[:, 0, 0].max()) < 1.26
    assert 0.18 < float(warp[:, :, 2].abs().max()) <= 0.2  # places run from -1 to 1


def test_colours_are_those_of_opencv() -> None:
    """A change of brightness, and one of saturation about the grey that OpenCV computes."""
    given = 0.3 + 0.3 * pictures(1)
    brighter = change_colours(given, 1.2 * torch.eye(3)[None], torch.ones(1))
    assert torch.allclose(brighter, given * 1.2, atol=1e-6)
    how = DistillRecipe(**{**STILL.to_values(), "saturation": 0.5, "colour_share": 1.0})
    mixed = change_colours(given, (drawn := draw_views(how, 2, 1)).mix, drawn.contrast)[0]
    grey = [
        torch.from_numpy(cv2.cvtColor(part.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY)) for part in (given[0], mixed)
    ]
    assert torch.allclose(grey[0], grey[1], atol=1e-3)
    before, after = given[0] - grey[0], mixed - grey[1]
    factor = float((before * after).sum() / before.square().sum())
    assert torch.allclose(after, factor * before, atol=1e-3)
    assert 0.5 <= factor <= 1.5 and abs(factor - 1) > 0.01


def test_contrast_keeps_the_mean() -> None:
    given = 0.4 + 0.2 * pictures(2)
    changed = change_colours(given, torch.eye(3).expand(2, 3, 3), torch.tensor([0.5, 1.5]))
    assert torch.allclose(changed.mean(dim=(1, 2, 3)), given.mean(dim=(1, 2, 3)), atol=1e-5)
    assert torch.allclose(changed.std(dim=(1, 2, 3)) / given.std(dim=(1, 2, 3)), torch.tensor([0.5, 1.5]), atol=1e-4)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("plain_share=2", "plain_share is 2"),
        ("latent_weight=-1", "latent_weight is negative"),
        ("epochs=0", "no epochs"),
        ("batch=0", "batch is 0"),
        ("widht=3", "widht"),
        ("levels=[1]", "levels"),
    ],
)
def test_recipes_are_checked(setting: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_distill_recipe("edge", [setting])


def test_the_teachers_weight_moves_evenly_to_its_end() -> None:
    how = DistillRecipe(epochs=5, teacher_weight=1.0, teacher_finish=0.2)
    assert [round(how.teaching(epoch), 6) for epoch in range(7)] == [1.0, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2]
    # Where the clock ends the training, it follows the clock: the epochs are many then.
    assert [round(how.teaching(0, spent), 6) for spent in (0.0, 0.5, 1.0, 1.1)] == [1.0, 0.6, 0.2, 0.2]
    with pytest.raises(ConfigError, match="unknown recipe 'egde'"):
        load_distill_recipe("egde")
