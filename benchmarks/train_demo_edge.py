"""Recreate the bundled model's edge student: `python benchmarks/train_demo_edge.py --out gms_rt/demo/edge`.

The phantoms that the bundled model was trained on are drawn into a folder, `gms-rt distill` trains the student on them
with the bundled model as its teacher, and the student is exported. Student and teacher are judged on phantoms that
neither was trained on. A stopped run goes on. `--judge` trains nothing: it judges the student that is there, and writes
its card.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from gms_rt.artifacts import write_bytes, write_json
from gms_rt.cli.main import run
from gms_rt.config import read_toml
from gms_rt.data.reference_pictures import phantom_pictures
from gms_rt.demo.bundled import DEMO_RUN
from gms_rt.demo.phantoms import phantom
from gms_rt.demo.seeds import HELD_OUT_SEEDS, TRAINING_SEEDS
from gms_rt.export.fuse import graph_from_run
from gms_rt.metrics import dice
from gms_rt.model.any_run import load_any_run
from gms_rt.model.student import Student, student_flop
from gms_rt.model.student_run import load_student, save_student
from gms_rt.scan.mask import FOREGROUND
from gms_rt.statistics import bootstrap

SIZE = 224
DICE_WANTED = 0.93
JUDGED = "held_out"  # what its tables in config.toml begin with
COPIED = ("classes.json",)
SETTINGS = ["epochs=18", "batch=16", "warmup=1", "average=0.99", "flip=horizontal", "rotate=20", "latent_weight=0",
            "validate_every=3", "threads=1"]  # fmt: skip


def draw(folder: Path) -> None:
    """The training phantoms as a data set without test cases."""
    names = [f"phantom-{seed:04}" for seed in TRAINING_SEEDS]
    for name, seed in zip(names, TRAINING_SEEDS, strict=True):
        drawn = phantom(seed, SIZE, SIZE)
        for part, pixels in (("images", drawn.rgb[..., ::-1]), ("masks", drawn.mask)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / part / f"{name}.png"), pixels)
    write_json(folder / "split.json", {"train": names, "test": []})


def distilled(work: Path) -> Path:
    """The student's run, by the product's own command."""
    data, out = work / "data", work / "run"
    if not (data / "split.json").is_file():
        draw(data)
    words = ["distill", str(DEMO_RUN), "--data", str(data), "--splits", str(data / "split.json"), "--out", str(out)]
    words += ["--cache", str(work / "cache"), "--budget-gflop", "0.07"]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    words += ["--resume"] if (out / "last.pt").is_file() else []
    if run(words):
        raise SystemExit("distilling failed")
    return out


def validation_dice(run_folder: Path) -> float:
    """The best mean Dice on the phantoms that were kept from training: that of the weights that were kept."""
    with (run_folder / "metrics.csv").open(newline="") as stream:
        return max(float(row["validation_dice"]) for row in csv.DictReader(stream) if row["validation_dice"])


def held_out(student: Student) -> dict[str, dict[str, Any]]:
    """Dice of the student and its teacher on phantoms that neither was trained on, and how far apart they are."""
    drawn = [phantom(seed, SIZE, SIZE) for seed in HELD_OUT_SEEDS]
    lesions = np.array([bool(each.mask.any()) for each in drawn])
    tables: dict[str, dict[str, Any]] = {JUDGED: {"phantoms": len(drawn), "with_lesion": int(lesions.sum())}}
    scores = {}
    for name, model in (("student", student), ("teacher", load_any_run(DEMO_RUN))):
        masks = [model.segment(torch.from_numpy(each.rgb[None]))[0].numpy() >= FOREGROUND for each in drawn]
        found = np.array([dice(mask, each.mask) for mask, each in zip(masks, drawn, strict=True)])
        scores[name] = found[lesions]
        tables[f"{JUDGED}_{name}"] = {
            **_with_interval(scores[name]),
            "median": round(float(np.median(scores[name])), 4),
            "minimum": round(float(scores[name].min()), 4),
            "missed": int((scores[name] == 0).sum()),
            "empty_kept_empty": int((found[~lesions] == 1).sum()),
        }
    return {**tables, f"{JUDGED}_difference": _with_interval(scores["student"] - scores["teacher"])}


def _with_interval(values: np.ndarray) -> dict[str, Any]:
    """The mean of some cases and its 95 % interval."""
    interval = bootstrap(values)
    return {"mean": round(float(values.mean()), 4), "low": round(interval.low, 4), "high": round(interval.high, 4)}


def model_card(student: Student, tables: dict[str, Any]) -> str:
    """What the student is, how good, and how it came to be."""
    parameters = sum(p.numel() for p in student.parameters())
    judged, apart = tables[JUDGED], tables[f"{JUDGED}_difference"]
    empty = judged["phantoms"] - judged["with_lesion"]

    def row(name: str) -> str:
        one = tables[f"{JUDGED}_{name}"]
        scores = (
            f"{one['mean']:.4f} ({one['low']:.4f} to {one['high']:.4f}) | {one['median']:.4f} | {one['minimum']:.4f}"
        )
        return f"| {name} | {scores} | {one['missed']} | {one['empty_kept_empty']} of {empty} |"

    return f"""# The bundled model's edge student

A small network of the whole, from picture to mask, that [the bundled demonstration model](../model/MODEL_CARD.md)
taught ([how](../../../docs/edge.md)). **Not for clinical use**: it has seen synthetic phantoms alone, never a patient.

| | |
|---|---|
| network | width {student.shape.width}, blocks {student.shape.blocks}, {parameters:,} parameters |
| operations per picture | {student_flop(student.shape) / 1e9:.3f} GFLOP |
| input | {SIZE}x{SIZE} RGB, uint8 |

## Measured

On {judged["phantoms"]} phantoms that neither student nor teacher was trained on (PyTorch, FP32, {SIZE}x{SIZE}). Dice is
over the {judged["with_lesion"]} of them that have a lesion, with its 95 % interval; a missed lesion counts as 0.

| Dice of | mean | median | minimum | missed | empty and left so |
|---|---|---|---|---|---|
{row("student")}
{row("teacher")}

Student minus teacher, case by case: {apart["mean"]:+.4f} ({apart["low"]:+.4f} to {apart["high"]:+.4f}).
The weights were chosen by the {len(TRAINING_SEEDS) // 10} phantoms that were kept from training; there the student has
{tables["validation"]["dice_mean"]:.4f}.

## Made by

`python benchmarks/train_demo_edge.py --out gms_rt/demo/edge`: `gms-rt distill` on {len(TRAINING_SEEDS):,} phantoms of
`gms_rt/demo/phantoms.py` that also trained its teacher, a tenth of them kept for validation, and no other data;
`{" ".join(SETTINGS)}`.
With `--judge` the same command measures the student that is there. Weights and graph are under this project's licence;
the installed package has the graph alone.
"""


def main() -> None:
    """Train, export, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the run folder to write")
    parser.add_argument("--work", type=Path, default=Path("build/train-demo-edge"), help="phantoms and training state")
    parser.add_argument("--judge", action="store_true", help="judge the student in --out, and train nothing")
    options = parser.parse_args()
    out = options.out
    torch.set_num_threads(1)
    if not options.judge:
        train(options.work, out)
    student, tables = load_student(out), read_toml(out / "config.toml")
    tables |= held_out(student)
    save_student(out, student, {name: table for name, table in tables.items() if name not in ("run", "student")})
    write_bytes(out / "MODEL_CARD.md", model_card(student, tables).encode())
    found = tables[f"{JUDGED}_student"]["mean"]
    print(f"held-out Dice {found:.4f}")
    if found < DICE_WANTED:
        raise SystemExit(f"missed: Dice {DICE_WANTED} is wanted")


def train(work: Path, out: Path) -> None:
    """A student's run and graph, made anew."""
    source = distilled(work)
    tables = read_toml(source / "config.toml")
    tables = {name: table for name, table in tables.items() if name not in ("run", "student")}
    tables["data"] |= {"folder": "phantoms"}  # where they were drawn says nothing
    out.mkdir(parents=True, exist_ok=True)
    save_student(out, load_student(source), {**tables, "validation": {"dice_mean": round(validation_dice(source), 4)}})
    for name in COPIED:
        write_bytes(out / name, (source / name).read_bytes())
    reference = replace(phantom_pictures(SIZE, SIZE), source="phantoms, which this model is for", synthetic=False)
    graph_from_run(out, out / "demo-edge.onnx", pictures=reference)


if __name__ == "__main__":
    main()
