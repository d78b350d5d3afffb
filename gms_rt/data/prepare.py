"""Any known layout to the plain one: `images/NAME.png`, `masks/NAME.png` (merged, 0 and 255) and `split.json`.

Pictures keep their size unless one is asked for. Files newer than their sources are left as they are, so that an
interrupted preparation continues.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gms_rt.artifacts import atomic_path, check_apart, write_json
from gms_rt.data.layouts import Case, Dataset
from gms_rt.data.reading import read_case
from gms_rt.data.splits import Split, write_split
from gms_rt.errors import InputError
from gms_rt.scan import resize_image
from gms_rt.scan.encode import encode_picture
from gms_rt.scan.mask import resize_mask


@dataclass
class Prepared:
    """What was written, what was there already, and what failed with its reason."""

    written: int = 0
    kept: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def prepare(
    dataset: Dataset,
    split: Split,
    out: Path,
    *,
    size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Prepared:
    """Write the plain layout; `size` makes every picture a square of this side, in pixels."""
    check_apart(out, dataset.root)
    result = Prepared()
    for case in dataset.cases:
        try:
            if _fresh(case, out, size):
                result.kept += 1
            else:
                _write(case, out, size)
                result.written += 1
        except InputError as error:
            result.failed[case.name] = error.line()
        if progress is not None:
            progress(1)
    write_split(out / "split.json", _without(split, result.failed))
    facts = {"name": dataset.name, "layout": dataset.layout, "size": size, "cases": result.written + result.kept}
    write_json(out / "dataset.json", {**facts, "failed": result.failed})
    return result


def _write(case: Case, out: Path, size: int | None) -> None:
    image, mask = read_case(case)
    if size is not None:
        image = resize_image(image, size, size)
        mask = resize_mask(mask, size, size)
    for path, pixels in zip(_targets(case, out), (image, mask), strict=True):
        with atomic_path(path, durable=False) as part:
            part.write_bytes(encode_picture(".png", pixels))


def _fresh(case: Case, out: Path, size: int | None) -> bool:
    targets = _targets(case, out)
    if size is not None or not all(path.is_file() for path in targets):
        return False
    newest = max(path.stat().st_mtime_ns for path in (case.image, *case.masks))
    return min(path.stat().st_mtime_ns for path in targets) >= newest


def _targets(case: Case, out: Path) -> tuple[Path, Path]:
    return out / "images" / f"{case.name}.png", out / "masks" / f"{case.name}.png"


def _without(split: Split, failed: dict[str, str]) -> Split:
    parts = [
        tuple(name for name in names if name not in failed) for names in (split.train, split.validation, split.test)
    ]
    return Split(parts[0], parts[1], parts[2], split.source)
