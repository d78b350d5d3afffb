"""The models that were trained as engines: exported, built as FP32 and INT8, tested as INT8, and timed turn by turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from gms_rt.artifacts import read_json, write_bytes
from gms_rt.data.layouts import recognise
from gms_rt.data.splits import split_dataset
from gms_rt.distill.recipe import DistillRecipe
from gms_rt.engine.manifest import MANIFEST, graph_bytes, read_manifest
from gms_rt.errors import GmsError
from gms_rt.report.json import report_from_json
from paper.jobs import Job, one_command, run_of
from paper.order import Folder, Order
from paper.systems import GMS, STUDENT, VIEWS, Command, Done, clock_settings

_STUDENTS = {field.name for field in fields(DistillRecipe)}  # settings of a training that distilling knows, too
_NO_GATE = (0, 3, 5)  # 3: INT8 does not hold the gate, which the page says


def distilling(folder: Folder, order: Order) -> Job:
    """The edge student of GMS, by the usual recipe, for as long as its teacher."""
    out = run_of(STUDENT, folder.key, order)
    lists = ("--splits", str(folder.splits)) if folder.splits else ()
    chosen = (*VIEWS[folder.key], *clock_settings(order), *order.settings)
    settings = tuple(word for setting in chosen if _for_student(setting) for word in ("--set", setting))
    command = ("distill", str(run_of(GMS, folder.key, order)), "--data", str(folder.path), *lists, *settings)
    return Job(
        f"train/{STUDENT}/{folder.key}",
        f"distill the edge student on {folder.key}",
        one_command((*command, "--device", order.device, "--out", str(out), "--resume")),
        out / "config.toml",
        minutes=order.minutes,
        needs=f"train/{GMS}/{folder.key}",
    )


def _for_student(setting: str) -> bool:
    """Whether a setting of a training is one of distilling, too."""
    return setting.partition("=")[0] in _STUDENTS


def building(system: str, folder: Folder, order: Order) -> Job:
    """A trained system as two engines, and the INT8 engine on the test part."""
    run, place = run_of(system, folder.key, order), _place(order, system, folder.key)
    graph, lists = place / f"{system}.onnx", ("--splits", str(folder.splits)) if folder.splits else ()
    every = ("--every", str(order.every)) if order.every > 1 else ()
    tested = ("eval", str(folder.path), "--engine", str(engine_folder(order, system, folder.key, "int8")))
    paired = ("--compare", str(order.work / "test" / system / folder.key))
    commands: list[Command] = [
        ("export", str(run), "--out", str(graph)),
        ("build", str(graph), "--precision", "fp32", "--target", "cpu", "--out",
         str(engine_folder(order, system, folder.key, "fp32"))),
        ("build", str(graph), "--precision", "int8", "--target", "cpu", "--calib", str(place / "calibration.txt"),
         "--out", str(engine_folder(order, system, folder.key, "int8"))),
        (*tested, *lists, *every, *paired, "--out", str(place / "int8-test")),
    ]  # fmt: skip

    def next_command(done: Sequence[Done]) -> Command | None:
        if len(done) == 3 and not (engine_folder(order, system, folder.key, "int8") / MANIFEST).is_file():
            return None  # the gate let no INT8 engine be
        if len(done) == 2:
            _write_calibration(folder, place / "calibration.txt")
        return commands[len(done)] if len(done) < len(commands) else None

    return Job(
        f"engines/{system}/{folder.key}",
        f"build {system} of {folder.key} as FP32 and INT8",
        next_command,
        engine_folder(order, system, folder.key, "fp32") / MANIFEST,
        needs=f"test/{system}/{folder.key}",
        allowed=_NO_GATE,
    )


def timing(systems: Sequence[str], folder: Folder, order: Order) -> Job:
    """All engines of a data set in rounds that take turns."""
    out = _report(systems, folder.key, order)

    def next_command(done: Sequence[Done]) -> Command | None:
        built = [
            engine_folder(order, system, folder.key, precision)
            for system in systems
            for precision in ("fp32", "int8")
            if (engine_folder(order, system, folder.key, precision) / MANIFEST).is_file()
        ]
        if done or not built:
            return None
        engines = tuple(word for path in built for word in ("--engine", str(path)))
        return ("bench", *engines, "--no-sweep", "--no-layers", "--device", "cpu", "--out", str(out))

    return Job(
        f"bench/{folder.key}/{'+'.join(systems)}",
        f"time the engines of {folder.key}",
        next_command,
        out / "report.json",
        allowed=_NO_GATE,
    )


def engine_values(system: str, systems: Sequence[str], name: str, order: Order) -> dict[str, Any]:
    """What is known of a system's engines, plain values; nothing where none was built."""
    found: dict[str, Any] = {}
    for precision in ("fp32", "int8"):
        folder = engine_folder(order, system, name, precision)
        if not (folder / MANIFEST).is_file():
            continue
        manifest = read_manifest(folder)
        found[precision] = {"megabytes": round(graph_bytes(folder, manifest) / 1e6, 3)}
    if "fp32" in found and "int8" not in found:
        found["gate"] = "not met: no INT8 engine"
    report = _report(systems, name, order) / "report.json"
    if report.is_file():
        _add_times(found, system, report)
    compared = _place(order, system, name) / "int8-test" / "comparison.json"
    if compared.is_file():
        dice = read_json(compared)["dice_224"]
        found["int8_minus_fp32"] = {"dice": dice["difference"], "interval95": dice["interval95"]}
    return found


def _add_times(found: dict[str, Any], system: str, report: Path) -> None:
    told = report_from_json(report)
    found["measured"] = {"device": told.identity.device, "created": told.created}
    for measured in told.measured():
        owner, _, precision = measured.name.rpartition("-")
        if owner != system or precision not in found:
            continue
        found[precision]["median_ms"] = round(measured.total.median, 3)
        found[precision]["cov_percent"] = round(measured.total.cov, 1)
        if precision == "fp32":
            found["parameters"], found["flop"] = measured.parameters, measured.flop
            continue
        parity = told.parity_of(measured.name)
        found["gate"] = f"{parity.verdict}" + ("" if parity.mean is None else f", Dice to FP32 {parity.mean:.4f}")


def engine_folder(order: Order, system: str, name: str, precision: str) -> Path:
    """Where an engine is; its name is what a report calls it."""
    return _place(order, system, name) / f"{system}-{precision}"


def _place(order: Order, system: str, name: str) -> Path:
    return order.work / "engines" / name / system


def _report(systems: Sequence[str], name: str, order: Order) -> Path:
    return order.work / "bench" / name / "+".join(systems)


def _write_calibration(folder: Folder, path: Path) -> None:
    """The pictures that INT8 is calibrated and judged on: training cases alone."""
    data = recognise(folder.path)
    names = split_dataset(data, file=folder.splits).train
    if not names:
        raise GmsError("has no training cases to calibrate with", where=folder.path)
    write_bytes(path, "".join(f"{case.image.resolve()}\n" for case in data.named(names)).encode())
