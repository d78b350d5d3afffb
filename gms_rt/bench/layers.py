"""The layers of the engines of a bench: their time, the type they really run in, and their distance to FP32.

A profile takes some twenty inferences, three loads of the engine, and memory for what every layer puts out. So unless
it is asked for, engines that take long are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gms_rt.arrays import U8
from gms_rt.bench.results import EngineLayers, LayerRow, Measured, StageTime
from gms_rt.bench.subjects import fit_images
from gms_rt.engine.layer_profile import EngineProfile
from gms_rt.engine.layers import ProfileOptions, profile_engine
from gms_rt.errors import GmsError

_CHEAP = 250.0  # milliseconds of an inference


@dataclass(frozen=True)
class LayerOptions:
    """Which engines are profiled, and how they are opened."""

    wanted: bool | None = None  # all, none, or by default those that do not take long
    device: str | None = None
    trust_plans: bool = False


def layers_of_engines(
    measured: Sequence[Measured], images: U8, options: LayerOptions, say: Callable[[str], None]
) -> tuple[tuple[EngineLayers, ...], str]:
    """The layers of each timed engine, and why some are not there."""
    engines = [m for m in measured if m.kind == "engine"]
    if options.wanted is False or not engines:
        return (), "not asked for" if engines else ""
    found, missing = [], []
    for m in engines:
        if options.wanted is None and m.total.median > _CHEAP:
            missing.append(f"{m.name}: an inference takes {m.total.median:.0f} ms; --layers profiles it all the same")
            continue
        say(f"layers of {m.name}")
        try:
            found.append(_profiled(m, images, options))
        except GmsError as error:  # it was timed, and keeps its place in the report
            missing.append(f"{m.name}: {error.what}")
    return tuple(found), "; ".join(missing)


def _profiled(m: Measured, images: U8, options: LayerOptions) -> EngineLayers:
    device = "cpu" if m.backend == "cpu" else options.device
    shown = fit_images(images[:1], *m.size[:2])
    profile = profile_engine(Path(m.source), ProfileOptions(shown, None, device, options.trust_plans))
    return engine_layers(m.name, profile)


def engine_layers(name: str, profile: EngineProfile) -> EngineLayers:
    """A profile as a bench keeps it, under the name that the engine has in it."""
    return EngineLayers(
        name,
        profile.device,
        profile.milliseconds,
        tuple(StageTime(stage, ms) for stage, ms in profile.stages.items()),
        tuple(
            LayerRow(each.name, each.stage, each.kind, each.arithmetic, each.milliseconds, each.gflop, each.distance)
            for each in profile.layers
        ),
        profile.worth,
        profile.timed,
        profile.compared,
    )
