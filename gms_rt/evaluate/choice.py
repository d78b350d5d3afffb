"""Which cases an evaluation takes: a part of the split, every Nth by sorted name."""

from __future__ import annotations

from pathlib import Path

from gms_rt.data.layouts import Case, Dataset
from gms_rt.data.splits import PARTS, lists_fit, read_lists, split_dataset
from gms_rt.errors import UsageError


def chosen_cases(
    dataset: Dataset, part: str, *, file: Path | None = None, run: Path | None = None, every: int = 1
) -> tuple[list[Case], str]:
    """The cases and where their list comes from.

    A split file wins; then the lists that a run was trained with, so that nothing it has seen is taken for test; then
    the data set's own or drawn lists.
    """
    if part not in (*PARTS, "all"):
        raise UsageError(f"unknown part '{part}'", where="--split", fix=f"use one of {', '.join(PARTS)}, all")
    own = run / "split.json" if run is not None else None
    if part == "all":
        names, source = tuple(case.name for case in dataset.cases), "every case"
    elif file is None and own is not None and own.is_file() and lists_fit(dataset, read_lists(own)):
        names, source = read_lists(own).get(part, ()), f"{own} (as trained)"
    else:
        split = split_dataset(dataset, file=file, validation=0 if part == "test" else 0.1, training=False)
        names, source = split.part(part), split.source
    picked = dataset.named(sorted(names))[::every]
    if not picked:
        raise UsageError(f"the part '{part}' has no case", where=dataset.root, fix="choose another --split")
    return picked, source
