"""The engine that is already where a build goes: is it the same, can it grow, or is the place taken?"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from gms_rt.engine.golden import Golden, read_golden
from gms_rt.engine.manifest import GOLDEN, EngineManifest, is_engine, read_manifest, verify_files
from gms_rt.engine.tensorrt import timed_on
from gms_rt.engine.trust import plan_trust
from gms_rt.errors import GmsError, UsageError
from gms_rt.runtime.device import probe
from gms_rt.runtime.tensorrt_module import load_tensorrt


def existing_engine(out: Path) -> EngineManifest | None:
    """The engine at a place; None where nothing is, or one that is built again because it is damaged or newer."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not is_engine(out):
        raise UsageError("exists and is not an engine", where=out, fix="choose another --out")
    try:
        return read_manifest(out)
    except GmsError:
        return None


def has_recipe(engine: EngineManifest, key: str) -> bool:
    """Whether an engine was built from this very graph, these images and this gate."""
    return engine.source.get("recipe_key") == key


def has_reference(engine: EngineManifest, out: Path, reference: Golden | None) -> bool:
    """Whether an engine has the reference pictures that it would get now; its graph may be exported anew."""
    there = engine.files.get(GOLDEN)
    if reference is None or there is None:
        return (there is None) == (reference is None)
    if reference.sha256:
        return there == reference.sha256
    have = read_golden(out / GOLDEN)  # a part is in a file of its own
    return np.array_equal(have.images, reference.images) and np.array_equal(have.probabilities, reference.probabilities)


def is_complete(engine: EngineManifest, out: Path, targets: Collection[str], plans: list[tuple[str, int]]) -> bool:
    """Whether an engine has all targets and plans (flavour, SM) of the installed TensorRT, unchanged and trusted."""
    versions = {flavour: str(load_tensorrt(flavour, f"building for {flavour}").__version__) for flavour, _ in plans}
    # A plan that would not be loaded is built again, which is the advice for it.
    # So is one whose kernels were chosen on another board or in another power mode, where others may win.
    have = {
        (plan.target, plan.sm, plan.version)
        for plan in engine.plans
        if plan_trust(out, plan).trusted and plan.device in (None, timed_on(probe(), plan.sm))
    }
    if not set(targets) <= set(engine.targets) or any((f, sm, versions[f]) not in have for f, sm in plans):
        return False
    try:
        verify_files(out, engine)
    except GmsError:
        return False
    return True
