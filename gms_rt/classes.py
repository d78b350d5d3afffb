"""What a mask's regions are: name, codes and colour of each class, as results of every format carry them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """A coded concept as DICOM writes it."""

    value: str
    scheme: str  # SCT for SNOMED CT, DCM for DICOM's own
    meaning: str


@dataclass(frozen=True)
class SegmentClass:
    """One class of a mask. The first class has the value 1 in label maps; 0 is background."""

    name: str
    category: Code = Code("309825002", "SCT", "Spatial and Relational Concept")
    kind: Code = Code("111099", "DCM", "Selected region")
    anatomy: Code | None = None
    colour: tuple[int, int, int] = (255, 64, 64)  # sRGB, 0-255
    description: str = ""
    kind_modifier: Code | None = None
    anatomy_modifier: Code | None = None  # such as the side


# What the region is depends on what a model was trained for, so these codes claim no more than a region.
DEFAULT_CLASSES = (SegmentClass("Segmented region"),)
