"""What the jobs found, or why there is nothing: one result a cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gms_rt.artifacts import read_json
from gms_rt.data.known import KNOWN
from paper.jobs import ABLATED, can_train
from paper.order import Order
from paper.runner import Record, read_record
from paper.systems import GMS, STUDENT, missing_model

# More than any table prints: what is rounded twice may differ from what is rounded once.
_DIGITS = 4
NAMES = {known.key: known.title for known in KNOWN}


@dataclass(frozen=True)
class Found:
    """The numbers of a cell in the published units, or the reason why there are none."""

    dsc: float | None = None
    low: float | None = None  # 95 % interval of the DSC
    high: float | None = None
    iou: float | None = None
    hd95: float | None = None  # over hits
    hd95_all: float | None = None  # with the diagonal for a miss or a false alarm
    cases: int = 0
    minutes: float | None = None  # of training
    machine: str = ""
    why: str = ""  # there are no numbers


def found_in_summary(summary: dict[str, Any], record: Record | None = None) -> Found:
    """The numbers at 224x224 of a summary of gms-rt eval."""
    at, cases = summary["at_224"], summary["cases"]

    def mean(name: str, factor: float = 1.0) -> float | None:
        return round(factor * at[name]["mean"], _DIGITS) if at.get(name) else None

    low, high = (round(100 * end, _DIGITS) for end in at["dice"]["interval95"]) if at["dice"] else (None, None)
    return Found(
        mean("dice", 100),
        low,
        high,
        mean("iou", 100),
        mean("hd95"),
        mean("hd95_penalised"),
        cases["all"] - cases["failed"],
        round(record.minutes, 1) if record and record.done else None,
        record.machine if record else "",
    )


def found_in_test(system: str, name: str, order: Order) -> Found:
    """A cell of tables 1 and 2."""
    if why := _impossible(system, order, name):
        return Found(why=why)
    summary = order.work / "test" / system / name / "summary.json"
    return _found(order, f"test/{system}/{name}", f"train/{system}/{name}", lambda: read_json(summary))


def found_in_cross(system: str, source: str, target: str, order: Order) -> Found:
    """A cell of table 3."""
    if why := _impossible(system, order, source, target):
        return Found(why=why)
    path = order.work / "cross" / system / f"{source}-{target}" / "matrix.json"
    return _found(
        order,
        f"cross/{system}/{source}-{target}",
        f"train/{system}/{source}",
        lambda: next(iter(read_json(path).values())),
    )


def found_in_ablation(grid: str, cell: str, name: str, order: Order) -> Found:
    """A cell of tables 4 and 5."""
    assert name in ABLATED
    if why := _impossible(GMS, order, name):
        return Found(why=why)
    if grid == "tokenizer" and len(order.tokenizers) < 2:
        return Found(why="not asked for: --tokenizers names one alone")
    path = order.work / f"ablate-{grid}" / name / "ablation.json"
    key = f"ablate-{grid}/{name}"
    return _found(order, key, key, lambda: read_json(path)["cells"][cell])


def found_in_reconstruction(folder: str, safe: str, order: Order) -> tuple[dict[str, Any] | None, str]:
    """What a tokenizer lost of a data set, or why that is not known."""
    record = read_record(order.work, f"reconstruct/{safe}/{folder}")
    if record.state != "done":
        return None, _reason(record)
    return read_json(order.work / "reconstruct" / safe / folder / "reconstruction.json"), ""


def _impossible(system: str, order: Order, *names: str) -> str:
    missing = [name for name in names if order.folder(name) is None]
    if missing:
        return f"no data ({', '.join(missing)} not in the folder)"
    if system == STUDENT:
        return _impossible(GMS, order)
    if not can_train(system):
        return missing_model(system)
    return "" if system in order.systems else "not asked for"


def _found(order: Order, key: str, trained: str, summary: Any) -> Found:
    record = read_record(order.work, key)
    if record.state == "done":
        return found_in_summary(summary(), read_record(order.work, trained))
    before = read_record(order.work, trained)
    return Found(why=_reason(before if before.state == "failed" else record))


def _reason(record: Record) -> str:
    return {"failed": f"failed: {record.why}", "begun": "not finished"}.get(record.state, "not run")
