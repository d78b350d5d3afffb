"""A mask as polygons: GeoJSON that QuPath imports as annotations, in pixels, and in millimetres where spacing is known.

Vertices are corners of pixels: the first pixel reaches from 0, 0 to 1, 1; x to the right, y down. So a polygon covers
its pixels and no more, and its area is their number. A feature is one region of one class: a Polygon, or a MultiPolygon
where parts touch at corners only. Rings are simple, outlines turn counter-clockwise and holes clockwise in the sense of
RFC 7946 (as if y pointed up). Each turn of the outline is a vertex, as exact as the mask.

Version 1 of the format had centres of border pixels as vertices, and no `version`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.classes import DEFAULT_CLASSES, SegmentClass

FORMAT, VERSION = "gms-rt-contours", 2

Ring = list[tuple[int, int]]  # y, x; the first point is not repeated
Polygon = list[Ring]  # the outline, then the holes


def contours(
    mask: U8, spacing: tuple[float, float] | None = None, classes: Sequence[SegmentClass] = DEFAULT_CLASSES
) -> dict[str, Any]:
    """A GeoJSON collection with a feature for each region.

    With one class every value but 0 is the class; with several, the value k is the k-th class.
    """
    features = []
    for value, each in enumerate(classes, 1):
        chosen = mask != 0 if len(classes) == 1 else mask == value
        features += [_feature(region, each, spacing) for region in _regions(np.asarray(chosen, np.uint8))]
    return {
        "type": "FeatureCollection",
        "format": FORMAT,
        "version": VERSION,
        "units": "pixel",
        "coordinates": "pixel corners",
        "width": mask.shape[1],
        "height": mask.shape[0],
        "spacing_mm": {"row": spacing[0], "column": spacing[1]} if spacing else None,
        "features": features,
    }


def _regions(mask: U8) -> list[list[Polygon]]:
    """The polygons of each region: pixels that touch at sides are a polygon, at sides or corners a region."""
    if not mask.any():
        return []
    count, parts = cv2.connectedComponents(mask, connectivity=4)
    # One part is one region.
    regions = parts if count == 2 else cv2.connectedComponents(mask, connectivity=8)[1]
    polygons: dict[int, Polygon] = {}
    region_of: dict[int, int] = {}
    holes: dict[int, list[Ring]] = defaultdict(list)
    for ring in _rings(mask):
        y, x = min(ring)  # the uppermost turn, and of those the leftmost: what is right below it is inside the ring
        outline = bool(mask[y, x])
        part = int(parts[y, x] if outline else parts[y - 1, x])
        after = ring[(ring.index((y, x)) + 1) % len(ring)]
        # From that turn a ring goes right or down; right is counter-clockwise, as if y pointed up.
        turned = ring if (after[0] == y) == outline else ring[::-1]
        if outline:
            polygons[part] = [turned]
            region_of[part] = int(regions[y, x])
        else:
            holes[part].append(turned)
    found: dict[int, list[Polygon]] = defaultdict(list)
    for part in sorted(polygons):
        found[region_of[part]].append(polygons[part] + holes[part])
    return [found[region] for region in sorted(found)]


def _rings(mask: U8) -> Iterator[Ring]:
    """The boundaries between foreground and background as simple rings of the points where they turn.

    Between pixels, boundaries turn where one or three of the four pixels around a point are foreground, and twice
    where two are that lie across. In a row of points the turns are joined in pairs by horizontal sides, in a column by
    vertical ones, so that a ring follows a side of each kind in turn.
    """
    left, top, width, height = cv2.boundingRect(mask)
    padded = np.pad(mask[top : top + height, left : left + width] != 0, 1)
    above_left, above_right = padded[:-1, :-1], padded[:-1, 1:]
    below_left, below_right = padded[1:, :-1], padded[1:, 1:]
    odd = above_left ^ above_right ^ below_left ^ below_right
    across = (above_left == below_right) & (above_right == below_left) & (above_left != above_right)
    y, x = np.nonzero(odd | across)
    twice = across[y, x]
    # Of two turns in one point the first has the side to the left. The other side of that turn belongs to the same
    # pixel: it goes up for the pixel above on the left, down for the pixel below on the left.
    falling = above_left[y, x]
    times = 1 + twice
    y, x = np.repeat(y, times), np.repeat(x, times)
    second = np.concatenate([[False], (y[1:] == y[:-1]) & (x[1:] == x[:-1])])
    lower = np.where(np.repeat(twice, times), second == np.repeat(falling, times), False)
    beside = _partners(np.lexsort((second, x, y)))
    along = _partners(np.lexsort((lower, y, x)))
    points = list(zip((y + top).tolist(), (x + left).tolist(), strict=True))
    taken = bytearray(len(points))
    for start in range(len(points)):
        if taken[start]:
            continue
        ring, turn = [], start
        while not taken[turn]:
            other = beside[turn]
            taken[turn] = taken[other] = 1
            ring += [points[turn], points[other]]
            turn = along[other]
        if len(set(ring)) == len(ring):
            yield ring
        else:
            yield from _simple(ring)


def _partners(order: NDArray[Any]) -> list[int]:
    partner = np.empty_like(order)
    partner[order[::2]], partner[order[1::2]] = order[1::2], order[::2]
    pairs: list[int] = partner.tolist()
    return pairs


def _simple(ring: Ring) -> Iterator[Ring]:
    """A ring that meets itself in points, as rings that do not."""
    path: Ring = []
    at: dict[tuple[int, int], int] = {}
    for point in ring:
        if point in at:
            first = at[point]
            loop = path[first:]
            for passed in loop:
                del at[passed]
            del path[first:]
            yield loop
        at[point] = len(path)
        path.append(point)
    yield path


def _feature(region: list[Polygon], each: SegmentClass, spacing: tuple[float, float] | None) -> dict[str, Any]:
    polygons = [[[[x, y] for y, x in [*ring, ring[0]]] for ring in polygon] for polygon in region]
    properties: dict[str, Any] = {
        "objectType": "annotation",
        "classification": {"name": each.name, "color": list(each.colour)},
        "class": each.name,
    }
    if spacing:
        row, column = spacing
        scaled = [
            [[[round(x * column, 4), round(y * row, 4)] for x, y in ring] for ring in polygon] for polygon in polygons
        ]
        properties["coordinates_mm"] = scaled[0] if len(scaled) == 1 else scaled
    geometry = (
        {"type": "Polygon", "coordinates": polygons[0]}
        if len(polygons) == 1
        else {"type": "MultiPolygon", "coordinates": polygons}
    )
    return {"type": "Feature", "geometry": geometry, "properties": properties}
