"""HAM10000 by the centre its pictures come from, so that a model is judged where it was not trained.

    python benchmarks/by_centre.py folders ham10000/ --metadata HAM10000_metadata.csv \\
        --splits ham10000.json --out centres/
    python benchmarks/by_centre.py lesions results/ham10000/ --metadata HAM10000_metadata.csv \\
        --splits ham10000.json

`folders` writes two data sets of links: `vienna`, with `vienna.json` (train: its cases of the train list; test: its
cases of the test list), and `queensland`, all cases. Pictures of lesions that are in Vienna's train list as well are
left out of both tests. A model's home is then Vienna, and `gms-rt eval --matrix vienna/ queensland/` judges it away.
For a student that may see pictures from away, without their masks, `queensland-pictures` has those of half of the
lesions there, and `queensland.json` says which cases these are (train) and which are left to judge by (test).

`lesions` says what an evaluation on the whole test list owes to lesions of which other pictures are in the train list.

The metadata are those that HAM10000's authors publish, with the columns lesion_id, image_id and dataset.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from gms_rt.artifacts import sha256_bytes, write_json
from gms_rt.data.layouts import Case, Dataset, recognise
from gms_rt.data.splits import read_lists
from gms_rt.evaluate.case_result import read_cases
from gms_rt.evaluate.summary import describe_values

VIENNA = ("vidir_molemax", "vidir_modern", "vienna_dias")  # the column dataset; the other, rosendahl, is Queensland's


def main(words: Sequence[str] | None = None) -> int:
    """Write the folders, or print what known lesions give."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("folders", "lesions"))
    parser.add_argument("source", type=Path, help="folders: the data set; lesions: the folder of an evaluation")
    parser.add_argument("--metadata", type=Path, required=True, help="CSV with lesion_id, image_id and dataset")
    parser.add_argument("--splits", type=Path, required=True, help="names of the train and test cases")
    parser.add_argument("--out", type=Path, help="folder to write, or a JSON file of what is printed")
    options = parser.parse_args(words)
    with options.metadata.open(newline="", encoding="utf-8") as stream:
        rows = {row["image_id"]: (row["lesion_id"], row["dataset"] in VIENNA) for row in csv.DictReader(stream)}
    lists = read_lists(options.splits)
    unknown = [name for part in ("train", "test") for name in lists[part] if name not in rows]
    if unknown:
        parser.error(
            f"{options.metadata} has no row for {len(unknown)} names of {options.splits}, such as {unknown[0]}"
        )
    if options.what == "folders":
        found = split_by_centre(recognise(options.source), lists, rows, options.out)
    else:
        found = by_lesions(options.source, lists, rows)
    print(json.dumps(found, indent=2))
    if options.out:
        write_json(options.out / "centres.json" if options.what == "folders" else options.out, found)
    return 0


def split_by_centre(
    data: Dataset, lists: Mapping[str, Sequence[str]], rows: Mapping[str, tuple[str, bool]], out: Path | None
) -> dict[str, Any]:
    """Two data sets of links, and how many cases they hold."""
    train = [name for name in lists["train"] if rows[name][1]]
    seen = {rows[name][0] for name in train}
    test = [name for name in lists["test"] if rows[name][1] and rows[name][0] not in seen]
    away = [case.name for case in data.cases if not rows[case.name][1] and rows[case.name][0] not in seen]
    if out is not None:
        for folder, names in (("vienna", [*train, *test]), ("queensland", away)):
            link_cases(data.named(names), out / folder)
        write_json(out / "vienna.json", {"train": train, "test": test})
        shown, hidden = ([name for name in away if is_shown(rows[name][0]) is which] for which in (True, False))
        write_json(out / "queensland.json", {"train": shown, "test": hidden})
        for case in data.named(shown):
            link_file(case.image, out / "queensland-pictures")
    return {"vienna": {"train": len(train), "test": len(test)}, "queensland": {"test": len(away)}}


def is_shown(lesion: str) -> bool:
    """Whether a lesion is of the half whose pictures may be seen: by its name's hash, the same everywhere."""
    return int(sha256_bytes(lesion.encode()), 16) % 2 == 0


def link_cases(cases: Sequence[Case], folder: Path) -> None:
    """A data set of links to these cases."""
    for case in cases:
        for part, files in (("images", (case.image,)), ("masks", case.masks)):
            for file in files:
                link_file(file, folder / part)


def link_file(file: Path, folder: Path) -> None:
    """A link to this file in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / file.name
    if not link.is_symlink():
        link.symlink_to(file.resolve())


def by_lesions(
    evaluation: Path, lists: Mapping[str, Sequence[str]], rows: Mapping[str, tuple[str, bool]]
) -> dict[str, Any]:
    """Dice at 224x224 of all cases, of those whose lesion has a picture in the train list, and of the others."""
    seen = {rows[name][0] for name in lists["train"]}
    cases = read_cases(evaluation)
    known, new = ([case for case in cases if (rows[case.name][0] in seen) is there] for there in (True, False))
    parts = {"all": cases, "lesion in train": known, "new lesion": new}
    return {
        name: {"cases": len(part), "dice": describe_values([c.dice_224 for c in part])} for name, part in parts.items()
    }


if __name__ == "__main__":
    raise SystemExit(main())
