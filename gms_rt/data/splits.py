"""Which cases train, validate and test: by name, from lists or from a seed.

Validation cases are always taken from train, so that no test case has a say in training. Lists come from a file
(JSON, or the official pickle), from the data set's own layout, or are drawn from a seed (80 % train, 20 % test).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt.artifacts import read_json, write_json
from gms_rt.data.layouts import Dataset, case_name
from gms_rt.data.names_pickle import read_plain_pickle
from gms_rt.errors import UsageError

PARTS = ("train", "validation", "test")
TEST_SHARE = 0.2
_SEED_TEST, _SEED_VALIDATION = 0x7465, 0x7661


@dataclass(frozen=True)
class Split:
    """Names of cases; `source` says where the lists come from."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    source: str

    def part(self, name: str) -> tuple[str, ...]:
        """The names of one part; `all` is everything."""
        if name == "all":
            return self.train + self.validation + self.test
        if name not in PARTS:
            raise UsageError(f"unknown part '{name}'", where="--split", fix=f"use one of {', '.join(PARTS)}, all")
        names: tuple[str, ...] = getattr(self, name)
        return names


def split_dataset(
    dataset: Dataset,
    *,
    file: Path | None = None,
    seed: int = 0,
    validation: float = 0.1,
    test: float = TEST_SHARE,
    training: bool = True,
) -> Split:
    """Split a data set: by `file`, else by lists in its folder, else from the seed.

    With `training` a split that leaves nothing to train on is refused.
    """
    lists, source = _lists(dataset, file)
    if not lists:
        names = [case.name for case in dataset.cases]
        kept, drawn = _drawn(names, test, [seed, _SEED_TEST])
        lists, source = {"train": kept, "test": drawn}, f"drawn with seed {seed}, {test:.0%} test"
    train, given = lists["train"], lists.get("validation", ())
    _check(dataset, [train, given, lists["test"]], source)
    if not given and validation > 0:
        train, given = _drawn(train, validation, [seed, _SEED_VALIDATION])
        source += f"; validation drawn from train with seed {seed}, {validation:.0%}"
    if training and not train:
        raise UsageError("no cases are left for training", where=source, fix="give more cases or a smaller share")
    return Split(tuple(train), tuple(given), tuple(lists["test"]), source)


def read_lists(path: Path) -> dict[str, tuple[str, ...]]:
    """The lists of a split file: `{"train": […], "test": […]}`, or the official `{"train": {"name_list": […]}}`.

    A file that has only a test list is one, too: other data to test on.
    """
    if not path.is_file():
        what = "is not a split file" if path.exists() else "there is no such split file"
        raise UsageError(what, where=path, fix='give JSON: {"train": [names], "test": [names]}')
    content: Any = read_plain_pickle(path) if path.suffix in (".pkl", ".pickle") else read_json(path)
    if not isinstance(content, dict):
        raise UsageError("has no train and test lists", where=path)
    found = {}
    for part, keys in (("train", ("train",)), ("validation", ("validation", "val")), ("test", ("test",))):
        value = next((content[key] for key in keys if key in content), None)
        if isinstance(value, dict):
            value = value.get("name_list")
        if value is None:
            continue
        if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
            raise UsageError(f"its '{part}' is not a list of names", where=path)
        found[part] = tuple(case_name(name) for name in value)
    if "test" not in found:
        raise UsageError("lacks a 'test' list", where=path)
    return {"train": (), **found}


def write_split(path: Path, split: Split) -> None:
    """Write a split as JSON that `read_lists` reads."""
    write_json(path, {"source": split.source, **{part: list(split.part(part)) for part in PARTS}})


def lists_fit(dataset: Dataset, lists: dict[str, tuple[str, ...]]) -> bool:
    """Whether every listed name is a case of this data set."""
    names = {case.name for case in dataset.cases}
    return all(name in names for part in lists.values() for name in part)


def _lists(dataset: Dataset, file: Path | None) -> tuple[dict[str, tuple[str, ...]], str]:
    if file is not None:
        return read_lists(file), file.name
    for name in ("split.json", "splits.json"):
        if (dataset.root / name).is_file():
            return read_lists(dataset.root / name), name
    for path in sorted(dataset.root.glob("*.pkl")):
        return read_lists(path), path.name
    return dict(dataset.lists), f"the lists of {dataset.layout}"


def _drawn(names: Sequence[str], share: float, seed: list[int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names that stay and those that are drawn, both sorted."""
    if not 0 <= share < 1:
        raise UsageError(f"a share of {share} is not between 0 and 1")
    ordered = sorted(names)
    count = round(share * len(ordered))
    count = max(1, count) if share > 0 and len(ordered) > 1 else count
    chosen = set(np.random.default_rng(seed).permutation(len(ordered))[:count].tolist())
    return (
        tuple(name for i, name in enumerate(ordered) if i not in chosen),
        tuple(name for i, name in enumerate(ordered) if i in chosen),
    )


def _check(dataset: Dataset, lists: Iterable[Sequence[str]], source: str) -> None:
    known = {case.name for case in dataset.cases}
    seen: set[str] = set()
    for names in lists:
        missing = [name for name in names if name not in known]
        if missing:
            shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
            raise UsageError(
                f"{len(missing)} of {len(names)} listed cases are not in {dataset.root}: {shown}",
                where=source,
                fix="compare the names with gms-rt data check",
            )
        repeated = seen & set(names)
        if repeated or len(set(names)) != len(names):
            shown = ", ".join(sorted(repeated)[:3]) or "a name twice in one list"
            raise UsageError(f"a case is listed twice: {shown}", where=source, fix="list each case in one part only")
        seen |= set(names)
