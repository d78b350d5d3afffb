"""The validation part of a run: pictures with true masks that had no part in its weights, except which were kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gms_rt.config import read_toml
from gms_rt.data.layouts import Case, recognise
from gms_rt.data.splits import read_lists
from gms_rt.errors import GmsError
from gms_rt.scan.choose import evenly


@dataclass(frozen=True)
class ValidationPart:
    """Cases of the data that a run was trained on."""

    cases: tuple[Case, ...] = ()
    name: str = ""  # of the data's folder
    why: str = ""  # why there are none


def validation_part(run: Path, limit: int) -> ValidationPart:
    """At most `limit` of a run's validation cases, evenly chosen; where there are none, why."""
    try:
        told = read_toml(run / "config.toml").get("data", {})
        folder = told.get("folder") if isinstance(told, dict) else None
        if not isinstance(folder, str) or not folder:
            return ValidationPart(why="the run does not say what it was trained on")
        names = read_lists(run / "split.json").get("validation", ())
        if not names:
            return ValidationPart(why="the run has no validation pictures")
        cases = recognise(Path(folder)).named(evenly(names, limit))
        return ValidationPart(tuple(cases), Path(folder).name)
    except KeyError as error:
        return ValidationPart(why=f"the run's validation picture {error.args[0]} is not in its data")
    except (GmsError, OSError) as error:
        return ValidationPart(why=f"the run's data cannot be read: {error}")
