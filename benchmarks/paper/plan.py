"""How long the work will take, said before it begins: trainings by the clock, the rest by what was measured so far."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from gms_rt.data.layouts import recognise
from gms_rt.data.splits import split_dataset
from paper.jobs import Job
from paper.order import Folder, Order
from paper.runner import read_record

_PAPER_EPOCHS = 1000  # of the recipe paper
_GUESS = 1.0  # seconds per image, until the same model was tested here


@dataclass(frozen=True)
class Estimate:
    """One job's time."""

    job: Job
    minutes: float | None  # that are left; None: not known
    basis: str  # what that rests on


def estimates(jobs: Sequence[Job], order: Order) -> list[Estimate]:
    """Each job's time that is left."""
    return [_estimate(job, order) for job in jobs]


def _estimate(job: Job, order: Order) -> Estimate:
    record = read_record(order.work, job.key)
    if record.state == "done" and job.result.exists():
        return Estimate(job, 0.0, f"done in {record.minutes:.1f} min")
    if job.images is not None:
        count, seconds = _test_images(job, order), _seconds(job, order)
        basis = f"{count} images, {seconds or _GUESS:.2f} s each" + ("" if seconds else " (a guess)")
        return Estimate(job, count * (seconds or _GUESS) / 60, basis)
    if job.trained_on is None:
        return Estimate(job, None, "not measured")
    if not job.minutes:
        return _by_epochs(job, job.trained_on, order)
    return Estimate(job, max(0.0, job.minutes - record.minutes), "by the clock")


def _by_epochs(job: Job, folder: Folder, order: Order) -> Estimate:
    """The time of a training by epochs, from the images per second that this system reached here."""
    told = [setting.partition("=")[2] for setting in order.settings if setting.startswith("epochs=")]
    images = len(split_dataset(recognise(folder.path), file=folder.splits).train)
    epochs = job.trainings * int(told[-1] if told else _PAPER_EPOCHS)
    work = f"{epochs} epochs of {images} images"
    rate = _images_per_second(job, order)
    if rate is None:
        return Estimate(job, None, f"{work}, not known before the first epoch; --minutes gives a limit")
    spent = read_record(order.work, job.key).minutes
    return Estimate(job, max(0.0, epochs * images / rate / 60 - spent), f"{work}, {rate:.2f} images/s measured")


def _images_per_second(job: Job, order: Order) -> float | None:
    """The median over the epochs of this system's trainings here."""
    found = []
    for path in sorted((order.work / "train" / job.system).glob("*/metrics.csv")):
        found += [float(row["images_per_second"]) for row in csv.DictReader(path.read_text().splitlines())]
    return statistics.median(found) if found else None


def _test_images(job: Job, order: Order) -> int:
    folder = job.images
    assert folder is not None
    data = recognise(folder.path)
    crossed = job.key.startswith("cross/")  # every case of the other folder
    names = [case.name for case in data.cases] if crossed else _test_part(folder)
    return -(-len(names) // order.every)


def _test_part(folder: Folder) -> tuple[str, ...]:
    return split_dataset(recognise(folder.path), file=folder.splits, validation=0, training=False).test


def _seconds(job: Job, order: Order) -> float | None:
    """Per image, from any test of the same system here; twice what the model itself took, for reading and measuring."""
    for path in sorted((order.work / "test" / job.system).glob("*/summary.json")) if job.system else ():
        seconds = json.loads(path.read_text()).get("seconds_per_image_median")
        if seconds:
            return 2 * float(seconds)
    return None


def plan_text(found: Sequence[Estimate], absent: Sequence[str]) -> str:
    """The plan as text, with the hours of all."""
    lines = []
    for each in found:
        time = "?" if each.minutes is None else f"{each.minutes:.1f}"
        lines.append(f"{time:>8} min  {each.job.title}  ({each.basis})")
    known = sum(each.minutes or 0.0 for each in found)
    unknown = sum(each.minutes is None for each in found)
    lines += [f"not possible: {text}" for text in absent]
    lines.append(f"{len(found)} jobs, {'at least ' * bool(unknown)}{known / 60:.1f} hours on this machine")
    return "\n".join(lines)
