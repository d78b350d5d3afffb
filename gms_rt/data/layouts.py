"""Which images and masks a folder holds, and how they belong together: `recognise(folder)`.

Known layouts: BUSI, GlaS, HAM10000, BUS and Kvasir-Instrument as their sites ship them, the official preprocessed
layout, and any pair of folders `images/` (pictures or DICOM files) and `masks/` (pictures). Names of cases are those
of the paper's lists: `benign (1)` of BUSI is `benign_1`. Nothing is decoded here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from gms_rt.errors import UsageError
from gms_rt.scan.dicom import DICOM_SUFFIXES
from gms_rt.scan.reader import PICTURE_SUFFIXES

_IMAGES = (*PICTURE_SUFFIXES, *DICOM_SUFFIXES)  # masks are pictures
_MASK_ENDING = re.compile(r"[ _-](mask|masks|segmentation|seg|anno|gt|label)([ _-]?\d+)?$", re.IGNORECASE)
_PAIRS = (("images", "masks"), ("image", "mask"), ("imgs", "masks"), ("images", "labels"))


@dataclass(frozen=True)
class Case:
    """One image and its masks; several masks of one image are lesions of the same picture."""

    name: str
    image: Path
    masks: tuple[Path, ...]
    group: str = ""  # benign, malignant, normal, …, where the layout says so


@dataclass(frozen=True)
class Dataset:
    """The cases of a folder, sorted by name. `lists` are the splits that the layout itself has."""

    name: str
    layout: str
    root: Path
    cases: tuple[Case, ...]
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    without_mask: tuple[Path, ...] = ()
    without_image: tuple[Path, ...] = ()

    def named(self, names: Iterable[str]) -> list[Case]:
        """The cases of these names, in their order."""
        by_name = {case.name: case for case in self.cases}
        return [by_name[name] for name in names]


def recognise(folder: Path) -> Dataset:
    """Find a folder's layout and list its cases; a folder that only wraps the data set is looked into."""
    if not folder.is_dir():
        raise UsageError(
            "is not a folder", where=folder, fix="name a folder with images/ and masks/; see gms-rt data list"
        )
    found = _known(folder)
    if found is not None:
        return found
    inside = [data for data in map(_known, _inside(folder)) if data is not None]
    if len(inside) == 1:
        return inside[0]
    if inside:
        names = ", ".join(data.root.name for data in inside)
        raise UsageError(f"has several data sets ({names})", where=folder, fix="name one of them")
    raise UsageError(
        "has no layout this program knows",
        where=folder,
        fix="put pictures into images/ and masks of the same names into masks/; see gms-rt data list",
    )


def _known(root: Path) -> Dataset | None:
    return next((data for reader in (_busi, _ham10000, _glas, _bus, _paired) if (data := reader(root))), None)


def found_below(root: Path) -> dict[Path, Dataset]:
    """The data sets in the folders directly below `root`."""
    if not root.is_dir():
        raise UsageError("is not a folder", where=root)
    found = {}
    for folder in sorted(child for child in root.iterdir() if child.is_dir()):
        try:
            found[folder] = recognise(folder)
        except UsageError:  # other things may lie there too
            continue
    return found


def _inside(folder: Path) -> list[Path]:
    level = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    return level if len(level) <= 8 else []


def _busi(root: Path) -> Dataset | None:
    groups = [root / name for name in ("benign", "malignant", "normal") if (root / name).is_dir()]
    if len(groups) < 2:
        return None
    files = [path for group in groups for path in _files(group)]
    return _match("busi", "BUSI as shipped", root, files, files, group=lambda path: path.parent.name)


def _ham10000(root: Path) -> Dataset | None:
    masks_at = [child for child in _inside(root) if "segmentation" in child.name.lower()]
    images_at = [child for child in _inside(root) if "images" in child.name.lower()]
    if not masks_at or not images_at:
        return None
    images = [path for child in images_at for path in _files(child, deep=True)]
    masks = [path for child in masks_at for path in _files(child, deep=True)]
    return _match("ham10000", "HAM10000 as shipped", root, images, masks)


def _glas(root: Path) -> Dataset | None:
    files = _files(root)
    if not any(path.stem.lower().endswith("_anno") for path in files):
        return None
    found = _match("glas", "GlaS as shipped", root, files, files)
    lists = {
        "train": tuple(c.name for c in found.cases if c.name.startswith("train")),
        "test": tuple(c.name for c in found.cases if c.name.startswith("test")),
    }
    return replace(found, lists=lists if all(lists.values()) else {})


def _bus(root: Path) -> Dataset | None:
    images, masks = _child(root, "original"), _child(root, "gt")
    if images is None or masks is None:
        return None
    return _match("bus", "BUS as shipped", root, _files(images), _files(masks))


def _paired(root: Path) -> Dataset | None:
    for left, right in _PAIRS:
        images, masks = _child(root, left), _child(root, right)
        if images is None or masks is None:
            continue
        layout = f"{images.name}/ and {masks.name}/"
        found = _match(root.resolve().name, layout, root, _files(images, _IMAGES, deep=True), _files(masks, deep=True))
        lists = {part: _read_names(root / f"{part}.txt") for part in ("train", "test")}
        return replace(found, lists=lists if all(lists.values()) else {})
    return None


def _read_names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return tuple(case_name(line.strip()) for line in lines if line.strip())


def _child(root: Path, name: str) -> Path | None:
    return next((child for child in sorted(root.iterdir()) if child.is_dir() and child.name.lower() == name), None)


def _files(folder: Path, suffixes: tuple[str, ...] = PICTURE_SUFFIXES, *, deep: bool = False) -> list[Path]:
    paths = folder.rglob("*") if deep else folder.iterdir()
    return sorted(p for p in paths if p.suffix.lower() in suffixes and not p.name.startswith(".") and p.is_file())


def case_name(file_name: str) -> str:
    """A case's name from a file's name: without its ending, and `benign (1)` becomes `benign_1`.

    >>> case_name("benign (12).png"), case_name("ISIC_0024306.jpg")
    ('benign_12', 'ISIC_0024306')
    """
    path = Path(file_name)
    stem = path.stem if path.suffix.lower() in _IMAGES else path.name
    return re.sub(r"\s*\((\d+)\)", r"_\1", stem).strip()


def _match(
    name: str,
    layout: str,
    root: Path,
    images: list[Path],
    masks: list[Path],
    group: Callable[[Path], str] = lambda path: "",
) -> Dataset:
    """Join images and masks by name. Where both lie in one folder, the ending tells which is which."""
    together = images is masks
    if together:
        masks = [path for path in masks if _MASK_ENDING.search(path.stem)]
        taken = set(masks)
        images = [path for path in images if path not in taken]
    by_name: dict[str, Path] = {}
    for path in images:
        key = case_name(path.name)
        if key in by_name:
            raise UsageError(f"two images are named {key}", where=path, fix=f"rename one; the other is {by_name[key]}")
        by_name[key] = path
    belonging: dict[str, list[Path]] = {key: [] for key in by_name}
    unmatched = []
    for path in masks:
        exact = case_name(path.name)
        key = exact if exact in by_name and not together else case_name(_MASK_ENDING.sub("", path.stem))
        if key in belonging:
            belonging[key].append(path)
        else:
            unmatched.append(path)
    cases = tuple(
        Case(key, by_name[key], tuple(found), group(by_name[key])) for key, found in sorted(belonging.items()) if found
    )
    if not cases:
        raise UsageError(
            f"no image has a mask of its name ({len(images)} images, {len(masks)} masks)",
            where=root,
            fix="give image and mask the same name, or add _mask to the mask's",
        )
    without = tuple(by_name[key] for key, found in sorted(belonging.items()) if not found)
    return Dataset(name, layout, root, cases, {}, without, tuple(unmatched))
