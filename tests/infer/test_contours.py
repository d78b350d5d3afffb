"""Polygons that are exactly the mask: drawn back to the same pixels, of the same area, valid, in QuPath's form."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from gms_rt.classes import SegmentClass
from gms_rt.infer.contours import contours

MASKS = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 255]))
CORNERS = np.ones((3, 3))


def polygons(feature: dict[str, Any]) -> list[list[list[list[int]]]]:
    geometry = feature["geometry"]
    return [geometry["coordinates"]] if geometry["type"] == "Polygon" else list(geometry["coordinates"])


def drawn(shapes: dict[str, Any], of: str | None = None) -> Any:
    """The pixels inside by the even-odd rule: each vertical side of a ring switches all that is right of it."""
    inside = np.zeros((shapes["height"], shapes["width"]), bool)
    for feature in shapes["features"]:
        if of is None or feature["properties"]["classification"]["name"] == of:
            for polygon in polygons(feature):
                for ring in polygon:
                    for (x, y), (right, bottom) in itertools.pairwise(ring):
                        if x == right:
                            inside[min(y, bottom) : max(y, bottom), x:] ^= True
    return inside


def area(ring: list[list[int]]) -> float:
    return sum(x * b - a * y for (x, y), (a, b) in itertools.pairwise(ring)) / 2


@settings(max_examples=300, deadline=None)
@given(MASKS)
def test_polygons_are_the_mask(mask: Any) -> None:
    shapes = contours(mask)
    assert np.array_equal(drawn(shapes), mask != 0)
    assert len(shapes["features"]) == ndimage.label(mask, CORNERS)[1]
    parts = [polygon for feature in shapes["features"] for polygon in polygons(feature)]
    assert len(parts) == ndimage.label(mask)[1]
    # Outlines turn one way and holes the other, so that the sum is what is covered.
    assert sum(area(ring) for polygon in parts for ring in polygon) == np.count_nonzero(mask)
    assert all(area(polygon[0]) > 0 for polygon in parts)
    assert all(area(hole) < 0 for polygon in parts for hole in polygon[1:])
    sides: Counter[Any] = Counter()
    for polygon in parts:
        for ring in polygon:
            assert ring[0] == ring[-1] and len(ring) >= 5
            points = [tuple(point) for point in ring[:-1]]
            assert len(set(points)) == len(points), "a ring that meets itself"
            for (x, y), (a, b) in itertools.pairwise(ring):
                assert (x == a) != (y == b)
                steps = range(min(y, b), max(y, b)) if x == a else range(min(x, a), max(x, a))
                sides.update(("|", x, step) if x == a else ("-", step, y) for step in steps)
            # Every vertex is a turn.
            turns = zip(ring[:-1], ring[1:], [*ring[2:], ring[1]], strict=True)
            assert all((x == a) != (a == c) for (x, _), (a, _), (c, _) in turns)
    assert set(sides.values()) <= {1}


@settings(max_examples=200, deadline=None)
@given(MASKS)
def test_polygons_are_valid_for_shapely(mask: Any) -> None:
    shapely = pytest.importorskip("shapely.geometry", reason="shapely is not installed")
    for feature in contours(mask)["features"]:
        shape = shapely.shape(feature["geometry"])
        assert shape.is_valid
        assert all(part.exterior.is_ccw for part in getattr(shape, "geoms", [shape]))
    assert sum(shapely.shape(f["geometry"]).area for f in contours(mask)["features"]) == np.count_nonzero(mask)


def mask_of(*rows: str) -> Any:
    return np.array([[255 * (c == "#") for c in row] for row in rows], np.uint8)


@pytest.mark.parametrize(
    ("rows", "kind", "rings"),
    [
        (["#"], "Polygon", [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]]),
        ([".....", ".###.", "....."], "Polygon", [[[1, 1], [4, 1], [4, 2], [1, 2], [1, 1]]]),
        (["#.", ".#"], "MultiPolygon", None),
        ([".#", "#."], "MultiPolygon", None),
        (["###", "#.#", "##."], "Polygon", None),  # a hole that opens at a corner only
    ],
)
def test_known_shapes(rows: list[str], kind: str, rings: Any) -> None:
    (feature,) = contours(mask_of(*rows))["features"]
    assert feature["geometry"]["type"] == kind
    if rings is not None:
        found = feature["geometry"]["coordinates"]
        assert len(found) == len(rings)
        start = found[0].index(rings[0][0])
        assert [*found[0][start:-1], *found[0][: start + 1]] == rings[0]


def test_a_hole_that_touches_the_outline_is_a_hole() -> None:
    (feature,) = contours(mask_of("###", "#.#", "##."))["features"]
    outline, hole = feature["geometry"]["coordinates"]
    assert (area(outline), area(hole)) == (8, -1)


def test_the_form_is_qupaths() -> None:
    shapes = json.loads(json.dumps(contours(mask_of("#"), None, [SegmentClass("Cyst", colour=(1, 2, 3))])))
    assert shapes["type"] == "FeatureCollection"
    assert (shapes["version"], shapes["coordinates"], shapes["units"]) == (2, "pixel corners", "pixel")
    (feature,) = shapes["features"]
    assert feature["type"] == "Feature"
    assert feature["properties"] == {
        "objectType": "annotation",
        "classification": {"name": "Cyst", "color": [1, 2, 3]},
        "class": "Cyst",
    }


@settings(deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)))
def test_each_value_of_a_label_map_is_its_class(labels: Any) -> None:
    names = ["one", "two", "three"]
    shapes = contours(labels, None, [SegmentClass(name) for name in names])
    for value, name in enumerate(names, 1):
        assert np.array_equal(drawn(shapes, name), labels == value)


def test_polygons_in_millimetres_follow_the_spacing() -> None:
    mask = mask_of(".........", "...####..", "...####..", "#........", ".#.......")
    shapes = contours(mask, (0.5, 0.1))
    assert shapes["spacing_mm"] == {"row": 0.5, "column": 0.1}
    for feature in shapes["features"]:
        mm = feature["properties"]["coordinates_mm"]
        parts = [mm] if feature["geometry"]["type"] == "Polygon" else mm
        expected = [[[[round(x * 0.1, 4), round(y * 0.5, 4)] for x, y in r] for r in p] for p in polygons(feature)]
        assert parts == expected
    assert {feature["geometry"]["type"] for feature in shapes["features"]} == {"Polygon", "MultiPolygon"}
