"""Whose plans this machine runs: those it built, those of an author it trusts, those its user vouches for.

A TensorRT plan is native code, and whoever writes it also writes its hash into `engine.json`. So the hash says that a
plan is whole, never that it is harmless. What this user's builds made is remembered by hash in the user's state folder,
which nobody else can write.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from gms_rt.artifacts import write_json
from gms_rt.engine.manifest import Plan
from gms_rt.errors import GmsError

_FIX = "name another with GMS_RT_STATE"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class PlanTrust:
    """Whether a plan may be loaded, and why."""

    file: str
    trusted: bool
    reason: str  # completes "the plan …": "was built on this machine"


def state_root() -> Path:
    """Where it is kept what this user's builds made and whom the user trusts; `GMS_RT_STATE` moves it."""
    named = os.environ.get("GMS_RT_STATE")
    if named:
        return Path(named)
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local/state") / "gms-rt"


def state_folder(name: str, *, make: bool = True) -> Path:
    """A folder of the state folder, made for this user alone; one that others can write is refused."""
    root = state_root()
    try:
        if make:
            root.parent.mkdir(parents=True, exist_ok=True)
        for folder in (root, root / name):
            if make:
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=0o700)
            if make or folder.exists():
                _check_own(folder)
    except OSError as error:
        raise GmsError(f"cannot be used ({error.strerror})", where=root, fix=_FIX) from error
    return root / name


def _check_own(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise GmsError("is not a folder", where=folder, fix=_FIX)
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise GmsError("can be written by others than you", where=folder, fix=f"chmod 700 {folder}, if it is yours")


def remember_plan(folder: Path, sha256: str) -> str:
    """Remember that this user built a plan; why that could not be done, or ""."""
    try:
        write_json(state_folder("plans") / f"{sha256}.json", {"engine": str(folder.absolute())})
    except (GmsError, OSError) as error:
        return str(error)
    return ""


def plan_trust(folder: Path, plan: Plan) -> PlanTrust:
    """Whether a plan of this folder may be loaded without the user's word for it. Its bytes are compared later."""
    if not (folder / plan.file).is_file():
        return PlanTrust(plan.file, False, "is missing")
    try:
        if _SHA256.fullmatch(plan.sha256) and (state_folder("plans", make=False) / f"{plan.sha256}.json").is_file():
            return PlanTrust(plan.file, True, "was built on this machine")
    except GmsError as error:
        return PlanTrust(plan.file, False, f"cannot be trusted: {error.line()}")
    return PlanTrust(plan.file, False, "was not built on this machine and is not signed by a trusted key")
