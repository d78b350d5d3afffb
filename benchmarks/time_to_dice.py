"""Minutes until a recipe's model reaches a validation Dice, for two or more recipes on the same data.

    python benchmarks/time_to_dice.py busi/ --tokenizer onnx:taef2/ --splits busi.json --targets 0.6,0.65,0.7 \\
        --recipe fast,validate_every=5 --recipe paper --minutes 120 --work runs/time-to-dice [--out RESULT.json]

Every recipe trains through `gms_rt.train.loop.train` into WORK/RECIPE, one after another, until every target is
reached, `--minutes` have been spent on it, or it is finished. The same command again goes on where it was stopped, and
skips what is done. What counts: encoding the cache, steps and validation; not loading the program, nor encoding the
validation cases, which is the same for all. A target is reached when the validation Dice is first as high at the end of
an epoch. Validation cases are carved from train, as always; the test cases are never read. Compare recipes on a machine
that does nothing else, and with the schedule that each would be used with: `paper` anneals over its 1000 epochs.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from gms_rt.artifacts import write_json
from gms_rt.data.layouts import recognise
from gms_rt.data.splits import split_dataset
from gms_rt.model.loading import load_tokenizer
from gms_rt.runtime.device import probe
from gms_rt.train.device import torch_device
from gms_rt.train.loop import train
from gms_rt.train.recipe import load_recipe
from gms_rt.train.request import TrainingRequest

ENCODING = "encoding.json"  # seconds spent on the cache, which `metrics.csv` does not count, and how far it is
LOOK_SECONDS = 2.0  # how often `metrics.csv` is read while training


class _EnoughError(Exception):
    """Every target is reached, or the time is spent."""


@dataclass
class Clock:
    """Watches one training from its progress, and ends it when it has shown enough."""

    folder: Path
    targets: tuple[float, ...]
    limit: float  # seconds

    def __post_init__(self) -> None:
        file = self.folder / ENCODING
        known = json.loads(file.read_text()) if file.is_file() else {"seconds": 0.0, "views": 0}
        self.encoding, self.encoded = float(known["seconds"]), int(known["views"])
        self._seen = self._looked = time.monotonic()

    def start(self) -> None:
        """Training begins now."""
        self._seen = time.monotonic()

    def note(self, stage: str, done: int, total: int, note: str) -> None:
        """A piece of work is done."""
        now = time.monotonic()
        if stage == "encode" and done > self.encoded:  # what is there already is only looked at
            self.encoding, self.encoded = self.encoding + now - self._seen, done
            write_json(self.folder / ENCODING, {"seconds": self.encoding, "views": self.encoded})
        self._seen = now
        if stage == "train" and now - self._looked > LOOK_SECONDS:
            self._looked = now
            if self.has_enough():
                raise _EnoughError

    def curve(self) -> list[tuple[float, float]]:
        """Seconds and validation Dice at the end of each validated epoch."""
        file = self.folder / "metrics.csv"
        rows = csv.DictReader(file.read_text().splitlines()) if file.is_file() else []
        return [
            (self.encoding + float(row["seconds"]), float(row["validation_dice"]))
            for row in rows
            if row["validation_dice"]
        ]

    def reached(self) -> dict[str, float | None]:
        """Seconds to each target, or None where it was not reached within the limit."""
        curve = [(seconds, dice) for seconds, dice in self.curve() if seconds <= self.limit]
        return {f"{t:g}": next((s for s, dice in curve if dice >= t), None) for t in self.targets}

    def has_enough(self) -> bool:
        """Whether nothing more can be learned from going on."""
        curve = self.curve()
        return bool(curve) and (curve[-1][0] >= self.limit or None not in self.reached().values())


def main() -> int:
    """Train, compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tokenizer", required=True, help="as of gms-rt train")
    parser.add_argument("--splits", type=Path)
    parser.add_argument("--recipe", action="append", required=True, help="NAME[,KEY=VALUE...]; repeat it")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="KEY=VALUE of all recipes")
    parser.add_argument("--targets", required=True, help="validation Dice, separated by commas")
    parser.add_argument("--minutes", type=float, default=120.0, help="at most, per recipe")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--work", type=Path, required=True, help="run folders; the same command again goes on")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    targets = tuple(float(target) for target in options.targets.split(","))
    rows = {spec: measure(options, spec, targets) for spec in options.recipe}
    found = {
        "command": "python benchmarks/time_to_dice.py " + " ".join(sys.argv[1:]),
        "machine": {"processor": probe().cpu.name, "threads": torch.get_num_threads(), "device": options.device},
        "minutes_at_most": options.minutes,
        "recipes": rows,
        "ratios": ratios(rows),
    }
    print(json.dumps({**found, "recipes": {k: {**v, "curve": len(v["curve"])} for k, v in rows.items()}}, indent=2))
    if options.out:
        write_json(options.out, found)
    return 0


def measure(options: argparse.Namespace, spec: str, targets: tuple[float, ...]) -> dict[str, Any]:
    """Train one recipe until it has shown enough."""
    name, *settings = spec.split(",")
    recipe = load_recipe(name, [*options.settings, *settings])
    folder = options.work / "".join(c if c.isalnum() or c in "-_." else "_" for c in spec)
    folder.mkdir(parents=True, exist_ok=True)
    clock = Clock(folder, targets, options.minutes * 60)
    dataset = recognise(options.data)
    split = split_dataset(dataset, file=options.splits, seed=recipe.seed, validation=recipe.validation)
    if not clock.has_enough():
        run(options, TrainingRequest(dataset, split, load_tokenizer(options.tokenizer), recipe, folder), clock)
    curve = clock.curve()
    return {
        "recipe": recipe.to_values(),
        "cases": {"train": len(split.train), "validation": len(split.validation)},
        "encoding_seconds": round(clock.encoding, 3),
        "minutes_to": {t: None if s is None else round(s / 60, 4) for t, s in clock.reached().items()},
        "best_validation_dice": round(max((dice for _, dice in curve), default=0.0), 4),
        "minutes_spent": round(curve[-1][0] / 60, 4) if curve else 0.0,
        "curve": [[round(seconds, 3), round(dice, 4)] for seconds, dice in curve],
    }


def run(options: argparse.Namespace, request: TrainingRequest, clock: Clock) -> None:
    """Train, or go on, and stop when the clock says so."""
    clock.start()
    try:
        train(replace(request, device=torch_device(options.device), resume=True), clock.note)
    except _EnoughError:
        print(f"{request.out}: enough after {clock.curve()[-1][0] / 60:.1f} minutes", file=sys.stderr)


def ratios(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Per target: how many times longer the last recipe takes than each of the others, where both reached it."""
    *others, last = rows
    found: dict[str, dict[str, float | None]] = {}
    for target, slow in rows[last]["minutes_to"].items():
        for other in others:
            fast = rows[other]["minutes_to"][target]
            found.setdefault(target, {})[f"{last} / {other}"] = round(slow / fast, 2) if fast and slow else None
    return found


if __name__ == "__main__":
    raise SystemExit(main())
