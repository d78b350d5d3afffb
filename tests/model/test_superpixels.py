"""Superpixels: centres are means, colours part them, and nothing but their borders is drawn."""

from __future__ import annotations

import pytest
import torch

from gms_rt.model.comparators import superpixels
from gms_rt.model.comparators.superpixels import draw_superpixel_borders

YELLOW = torch.tensor([1.0, 1.0, 0.0]).view(3, 1)


def drawn(pixels: torch.Tensor) -> torch.Tensor:
    """Where borders are."""
    return (draw_superpixel_borders(pixels) != pixels).any(dim=1)


@pytest.mark.parametrize("size", [32, 45])
def test_borders_follow_the_colours_and_the_rest_stays(size: int) -> None:
    edge = 18  # off the grid of cells
    pixels = torch.zeros(1, 3, size, size)
    pixels[:, 0, :, :edge] = 0.8
    pixels[:, 2, :, edge:] = 0.8
    result = draw_superpixel_borders(pixels)
    assert result.shape == pixels.shape
    marked = drawn(pixels)[0]
    assert marked[:, edge - 1 : edge + 1].all()
    assert 0.1 < marked.float().mean() < 0.9
    assert (result[0][:, marked] == YELLOW).all()
    assert torch.equal(result[0][:, ~marked], pixels[0][:, ~marked])


def test_a_centre_moves_to_the_mean_of_its_pixels() -> None:
    torch.manual_seed(3)
    side, cells = 4, superpixels._CELLS
    features = torch.rand(2, 5, cells * side, cells * side)
    centres = torch.rand(2, 5, cells, cells)
    chosen = superpixels._chosen(features, centres, side)
    assert torch.equal(chosen.sum(dim=1), torch.ones(2, cells * side, cells * side))
    labels = superpixels._labels(chosen, side)[:, 0].long()
    moved = superpixels._moved(features, centres, chosen, side)
    for picture in range(2):
        for number in range(cells**2):
            own = features[picture][:, labels[picture] == number]
            row, column = divmod(number, cells)
            wanted = own.mean(dim=1) if own.shape[1] else centres[picture, :, row, column]
            assert torch.allclose(moved[picture, :, row, column], wanted, atol=1e-5)


def test_a_pixel_belongs_to_the_nearest_of_the_nine_centres_around_its_cell() -> None:
    torch.manual_seed(4)
    side, cells = 2, superpixels._CELLS
    features, centres = torch.rand(1, 5, cells * side, cells * side), torch.rand(1, 5, cells, cells)
    labels = superpixels._labels(superpixels._chosen(features, centres, side), side)[0, 0]
    for row, column in ((0, 0), (7, 12), (19, 19), (10, 0)):
        near = {
            r * cells + c: (features[0, :, row, column] - centres[0, :, r, c]).square().sum().item()
            for r in range(cells)
            for c in range(cells)
            if abs(r - row // side) <= 1 and abs(c - column // side) <= 1
        }
        assert labels[row, column] == min(near, key=near.__getitem__)
