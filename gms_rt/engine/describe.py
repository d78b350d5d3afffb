"""What an engine folder contains, which of its files were changed, what it costs to run, and where it runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from gms_rt.engine.fits import Fit, engine_fits
from gms_rt.engine.manifest import EngineManifest, read_manifest, rebuild_command, verify_files
from gms_rt.engine.trust import plan_trust
from gms_rt.errors import GmsError
from gms_rt.graph.count import stages
from gms_rt.graph.read import read_graph


@dataclasses.dataclass(frozen=True)
class EngineDescription:
    """An engine folder, looked at on this machine."""

    manifest: EngineManifest
    files: dict[str, int]  # bytes by name; 0 for one that the manifest names and that is not there
    changed: list[str]  # what is wrong with the files, one line each
    stages: list[dict[str, Any]]  # nodes, FLOP and parameters by stage; empty where a file was changed
    fits: list[dict[str, Any]]  # every way to run it, and why it does not run here
    broken: bool  # nothing in it runs here, because of a file that is missing or was changed
    trust: list[dict[str, Any]]  # for each plan whether it is loaded unasked, and why
    rebuild: str  # the command that builds an engine of this kind here


def describe_engine(folder: Path) -> EngineDescription:
    """Look at an engine folder; a file that was changed is a line of the description, not an error."""
    manifest = read_manifest(folder)
    changed, damage = [], {}
    named = [*manifest.files, *(plan.file for plan in manifest.plans)]
    for name in dict.fromkeys([*named, manifest.model]):
        try:
            verify_files(folder, manifest, [name])
        except GmsError as error:
            changed.append(error.line())
            damage[name] = error.what
    ways = engine_fits(manifest)
    fits = [_way(way, damage.get(way.plan.file if way.plan else manifest.model, "")) for way in ways]
    there = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    return EngineDescription(
        manifest,
        {path.name: path.stat().st_size for path in there} | {n: 0 for n in named if not (folder / n).is_file()},
        changed,
        [] if changed else stages(read_graph(folder / manifest.graph)),
        fits,
        any(way.fits for way in ways) and not any(fit["fits"] for fit in fits),
        [dataclasses.asdict(plan_trust(folder, plan)) for plan in manifest.plans],
        rebuild_command(folder, manifest),
    )


def _way(fit: Fit, damage: str) -> dict[str, Any]:
    """One way to run the engine; what does not fit anyway does not fail for its file."""
    reason = fit.reason or damage
    return {"target": fit.target, "plan": fit.plan.file if fit.plan else None, "fits": not reason, "reason": reason}
