"""GMS, its edge student and other systems at equal wall time, as models and as engines: the work, and its values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gms_rt import __version__
from gms_rt.evaluate.published_systems import PAIRS
from paper.cells import found_in_cross, found_in_test
from paper.engines import building, distilling, engine_values, timing
from paper.figures import trained_parameters
from paper.jobs import Job, can_train, crossing, testing, training
from paper.order import Order
from paper.runner import machine_text, read_record
from paper.systems import GMS, STUDENT

COMPARED = ("busi", "glas", "ham10000")


def compared_jobs(order: Order) -> list[Job]:
    """Train, test, build and time everything that is compared."""
    return [job for name in COMPARED if name in order.data for job in _jobs_of(name, order)]


def _jobs_of(name: str, order: Order) -> Iterator[Job]:
    folder, systems = order.data[name], _systems(order)
    for system in systems:
        yield distilling(folder, order) if system == STUDENT else training(system, folder, order)
        yield testing(system, folder, order)
        yield building(system, folder, order)
        if (far := _foreign(name)) in order.data:
            yield crossing(system, folder, order.data[far], order)
    yield timing(systems, folder, order)


def _foreign(name: str) -> str:
    """The data set of another centre that a model of this one is tested on; nothing for most."""
    return dict(PAIRS).get(name, "")


def _systems(order: Order) -> list[str]:
    """GMS and its student first, then the others in the order given."""
    others = [key for key in order.systems if key != GMS and can_train(key)]
    return [GMS, STUDENT, *others] if GMS in order.systems else others


def comparison(order: Order) -> dict[str, Any]:
    """All values, plain."""
    return {
        "gms_rt": __version__,
        "minutes": order.minutes,
        "machine": machine_text(),
        "device": order.device,
        "tokenizer": Path(order.tokenizer).name if ":" in order.tokenizer else order.tokenizer,
        "settings": list(order.settings),
        "every": order.every,
        "data": {name: _data_values(name, order) for name in COMPARED},
    }


def _data_values(name: str, order: Order) -> dict[str, Any]:
    if name not in order.data:
        return {"why": "no data (not in the folder)", "rows": {}}
    systems = _systems(order)
    rows: dict[str, Any] = {}
    for system in dict.fromkeys((*systems, *order.systems)):
        found = found_in_test(system, name, order)
        row: dict[str, Any] = asdict(found)
        if found.dsc is not None:
            minutes = read_record(order.work, f"train/{system}/{name}").minutes
            row["minutes"] = round(minutes, 1)
            row["trained_parameters"] = trained_parameters(order, system, name)
            row["engines"] = engine_values(system, systems, name, order)
        rows[system] = row
    return {"why": "", "rows": rows, "elsewhere": _elsewhere(name, systems, order)}


def _elsewhere(name: str, systems: list[str], order: Order) -> dict[str, Any]:
    """The same models on the data of another centre, where the paper has one."""
    far = _foreign(name)
    if not far:
        return {}
    if far not in order.data:
        return {"data": far, "why": "no data (not in the folder)", "rows": {}}
    rows = {system: asdict(found_in_cross(system, name, far, order)) for system in systems}
    return {"data": far, "why": "", "rows": rows}
