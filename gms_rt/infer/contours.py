"""A mask as polygons: GeoJSON's shapes in pixels, and in millimetres where the spacing is known.

Vertices are centres of the region's border pixels (the first pixel's centre is 0, 0; x to the right, y down). The first
ring of a polygon is its outline, the others are its holes, whose vertices are the pixels around the hole.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8


def contours(mask: U8, spacing: tuple[float, float] | None = None) -> dict[str, Any]:
    """A GeoJSON-like collection with one polygon for each region."""
    found, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    features = []
    links = tree[0] if tree is not None else np.zeros((0, 4), np.int32)
    for index, (_, _, child, parent) in enumerate(links):
        if parent >= 0:
            continue
        rings = [_ring(found[index])]
        while child >= 0:
            rings.append(_ring(found[child]))
            child = links[child][0]
        features.append(_feature(rings, spacing))
    return {
        "type": "FeatureCollection",
        "units": "pixel",
        "width": mask.shape[1],
        "height": mask.shape[0],
        "spacing_mm": {"row": spacing[0], "column": spacing[1]} if spacing else None,
        "features": features,
    }


def _ring(points: NDArray[np.int32]) -> list[list[int]]:
    # GeoJSON closes a ring by its first point and needs at least four points; a single pixel repeats itself.
    ring = [[int(x), int(y)] for x, y in points[:, 0]]
    ring += [ring[0]] * max(1, 4 - len(ring))
    return ring


def _feature(rings: list[list[list[int]]], spacing: tuple[float, float] | None) -> dict[str, Any]:
    properties: dict[str, Any] = {"class": "foreground"}
    if spacing:
        row, column = spacing
        properties["coordinates_mm"] = [[[round(x * column, 4), round(y * row, 4)] for x, y in ring] for ring in rings]
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": rings}, "properties": properties}
