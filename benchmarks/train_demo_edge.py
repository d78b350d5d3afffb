"""Recreate the bundled model's edge student: `python benchmarks/train_demo_edge.py --out gms_rt/demo/edge`.

The phantoms that the bundled model was trained on are drawn into a folder, `gms-rt distill` trains the student on them
with the bundled model as its teacher, and the student is exported. A stopped run goes on.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import cv2

from gms_rt.artifacts import write_bytes, write_json
from gms_rt.cli.main import run
from gms_rt.config import read_toml
from gms_rt.data.reference_pictures import phantom_pictures
from gms_rt.demo.bundled import DEMO_RUN
from gms_rt.demo.phantoms import phantom
from gms_rt.demo.seeds import TRAINING_SEEDS
from gms_rt.export.fuse import graph_from_run
from gms_rt.model.student import Student, student_flop
from gms_rt.model.student_run import load_student, save_student

SIZE = 224
DICE_WANTED = 0.93
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


def model_card(dice: float, student: Student) -> str:
    """What the student is, how good, and how it came to be."""
    parameters = sum(p.numel() for p in student.parameters())
    return f"""# The bundled model's edge student

A small network of the whole, from picture to mask, that [the bundled demonstration model](../model/MODEL_CARD.md)
taught ([how](../../../docs/edge.md)). **Not for clinical use**: it has seen synthetic phantoms alone, never a patient.

| | |
|---|---|
| network | width {student.shape.width}, blocks {student.shape.blocks}, {parameters:,} parameters |
| operations per picture | {student_flop(student.shape) / 1e9:.3f} GFLOP |
| input | {SIZE}x{SIZE} RGB, uint8 |

## Measured

Mean Dice {dice:.4f} on the {len(TRAINING_SEEDS) // 10} phantoms that were kept from training. The weights were chosen
by it, so it flatters them a little. `gms-rt demo` measures the student and its teacher on phantoms that neither has
seen.

## Made by

`python benchmarks/train_demo_edge.py --out gms_rt/demo/edge`: `gms-rt distill` on {len(TRAINING_SEEDS):,} phantoms of
`gms_rt/demo/phantoms.py` that also trained its teacher, a tenth of them kept for validation, and no other data;
`{" ".join(SETTINGS)}`. Weights and graph are under this project's licence; the installed package has the graph alone.
"""


def main() -> None:
    """Train, judge, export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the run folder to write")
    parser.add_argument("--work", type=Path, default=Path("build/train-demo-edge"), help="phantoms and training state")
    options = parser.parse_args()
    out = options.out
    source = distilled(options.work)
    student = load_student(source)
    dice = validation_dice(source)
    tables = read_toml(source / "config.toml")
    tables = {name: table for name, table in tables.items() if name not in ("run", "student")}
    tables["data"] |= {"folder": "phantoms"}  # where they were drawn says nothing
    out.mkdir(parents=True, exist_ok=True)
    save_student(out, student, {**tables, "validation": {"dice_mean": round(dice, 4)}})
    for name in COPIED:
        write_bytes(out / name, (source / name).read_bytes())
    reference = replace(phantom_pictures(SIZE, SIZE), source="phantoms, which this model is for", synthetic=False)
    graph_from_run(out, out / "demo-edge.onnx", pictures=reference)
    write_bytes(out / "MODEL_CARD.md", model_card(dice, student).encode())
    print(f"validation Dice {dice:.4f}")
    if dice < DICE_WANTED:
        raise SystemExit(f"missed: Dice {DICE_WANTED} is wanted")


if __name__ == "__main__":
    main()
