"""What is wrong with a data set before anyone trains on it: `check_dataset(dataset, split)`.

Problems: images without mask, masks without image, unreadable files, masks of another size. Remarks: empty masks,
pictures that look alike (within a part, or across train and test, where they make results too good), and how much of
each picture is foreground.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

from gms_rt.arrays import U8
from gms_rt.artifacts import sha256_bytes
from gms_rt.data.layouts import Case, Dataset
from gms_rt.data.reading import read_mask
from gms_rt.data.splits import PARTS, Split
from gms_rt.errors import InputError
from gms_rt.scan.reader import first_image

# Two pictures look alike if at most this many of 64 bits differ and their thumbnails correlate at least so well.
NEAR_BITS = 6
NEAR_CORRELATION = 0.97


@dataclass(frozen=True)
class Alike:
    """Two cases with the same or nearly the same picture."""

    first: str
    second: str
    first_part: str
    second_part: str
    identical: bool
    correlation: float

    @property
    def crosses(self) -> bool:
        """Whether one of them is in test and the other is not."""
        return (self.first_part == "test") != (self.second_part == "test")


@dataclass(frozen=True)
class Findings:
    """What was found; names are cases, or paths where there is no case."""

    dataset: str
    layout: str
    cases: int
    parts: dict[str, int]
    split: str
    groups: dict[str, int]
    without_mask: list[str]
    without_image: list[str]
    unreadable: dict[str, str]
    mis_sized: dict[str, str]
    empty_masks: list[str]
    alike: list[Alike]
    foreground: dict[str, dict[str, float]]
    sizes: dict[str, int]

    @property
    def problems(self) -> int:
        """How many things must be fixed before training."""
        return len(self.without_mask) + len(self.without_image) + len(self.unreadable) + len(self.mis_sized)

    def to_json(self) -> dict[str, Any]:
        """The findings as JSON."""
        crossing = sum(pair.crosses for pair in self.alike)
        return {**asdict(self), "problems": self.problems, "alike_across_train_and_test": crossing}

    def text(self) -> str:
        """The findings as text."""
        lines = [
            f"{self.dataset} ({self.layout}): {self.cases} cases, "
            + ", ".join(f"{count} {part}" for part, count in self.parts.items())
            + f"; split: {self.split}"
        ]
        if self.groups:
            lines.append("groups: " + ", ".join(f"{count} {name}" for name, count in self.groups.items()))
        for title, names in (
            ("images without mask", self.without_mask),
            ("masks without image", self.without_image),
            ("unreadable", [f"{name}: {why}" for name, why in self.unreadable.items()]),
            ("mask of another size", [f"{name}: {why}" for name, why in self.mis_sized.items()]),
            ("empty masks", self.empty_masks),
        ):
            lines.append(f"{title}: {len(names)}" + "".join(f"\n  {name}" for name in names[:10]))
            lines += [f"  … and {len(names) - 10} more"] if len(names) > 10 else []
        crossing = [pair for pair in self.alike if pair.crosses]
        lines.append(f"pictures that look alike: {len(self.alike)} pairs, {len(crossing)} across train and test")
        lines += [f"  {p.first} ({p.first_part}) and {p.second} ({p.second_part})" for p in crossing[:10]]
        for part, share in self.foreground.items():
            low, mean, high = share["min"], share["mean"], share["max"]
            lines.append(f"foreground in {part}: mean {mean:.1%}, smallest {low:.1%}, largest {high:.1%}")
        return "\n".join(lines)


def check_dataset(dataset: Dataset, split: Split, progress: Callable[[int], None] | None = None) -> Findings:
    """Read every case and report what is wrong."""
    part_of = {name: part for part in PARTS for name in split.part(part)}
    unreadable: dict[str, str] = {}
    mis_sized: dict[str, str] = {}
    empty: list[str] = []
    shares: dict[str, list[float]] = {part: [] for part in PARTS}
    sizes: Counter[str] = Counter()
    looks: list[tuple[str, str, int, U8]] = []
    for case in dataset.cases:
        part = part_of.get(case.name, "unused")
        try:
            image, mask = first_image(case.image), read_mask(case)
        except InputError as error:
            unreadable[case.name] = error.line()
        else:
            sizes[f"{image.shape[1]}x{image.shape[0]}"] += 1
            if image.shape[:2] != mask.shape:
                mis_sized[case.name] = f"image {image.shape[1]}x{image.shape[0]}, mask {mask.shape[1]}x{mask.shape[0]}"
            if not mask.any():
                empty.append(case.name)
            shares.setdefault(part, []).append(float((mask > 0).mean()))
            looks.append(_look(case, image))
        if progress is not None:
            progress(1)
    return Findings(
        dataset=dataset.name,
        layout=dataset.layout,
        cases=len(dataset.cases),
        parts={part: len(split.part(part)) for part in PARTS},
        split=split.source,
        groups=dict(sorted(Counter(case.group for case in dataset.cases if case.group).items())),
        without_mask=[str(path) for path in dataset.without_mask],
        without_image=[str(path) for path in dataset.without_image],
        unreadable=unreadable,
        mis_sized=mis_sized,
        empty_masks=empty,
        alike=_alike(looks, part_of),
        foreground={part: {"mean": float(np.mean(s)), "min": min(s), "max": max(s)} for part, s in shares.items() if s},
        sizes=dict(sizes.most_common(20)),
    )


def perceptual_hash(grey: U8) -> int:
    """64 bits of a picture's coarse structure: whether each low cosine frequency lies above their median."""
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _look(case: Case, image: U8) -> tuple[str, str, int, U8]:
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    thumbnail = np.asarray(cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA), np.uint8)
    return (
        case.name,
        sha256_bytes(image.tobytes() + str(image.shape).encode()),
        perceptual_hash(grey),
        thumbnail,
    )


def _alike(looks: list[tuple[str, str, int, U8]], part_of: dict[str, str]) -> list[Alike]:
    hashes = np.array([look[2] for look in looks], np.uint64)
    pairs = []
    for i in range(len(looks) - 1):
        different = hashes[i + 1 :] ^ hashes[i]
        bits = np.unpackbits(different.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)
        for j in (np.flatnonzero(bits <= NEAR_BITS) + i + 1).tolist():
            identical = looks[i][1] == looks[j][1]
            correlation = 1.0 if identical else _correlation(looks[i][3], looks[j][3])
            if correlation >= NEAR_CORRELATION:
                a, b = looks[i][0], looks[j][0]
                parts = part_of.get(a, "unused"), part_of.get(b, "unused")
                pairs.append(Alike(a, b, *parts, identical, round(correlation, 4)))
    return pairs


def _correlation(a: U8, b: U8) -> float:
    left, right = (x.astype(np.float64).ravel() - x.mean() for x in (a, b))
    scale = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / scale if scale > 0 else 0.0
