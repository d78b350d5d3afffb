"""The user's state folder: what this user's builds made, and whom the user trusts. Nobody else can write it."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from gms_rt.artifacts import only_ours
from gms_rt.errors import GmsError

_FIX = "name another with GMS_RT_STATE"


def state_root() -> Path:
    """Where it is kept what this user's builds made and whom the user trusts; `GMS_RT_STATE` moves it."""
    named = os.environ.get("GMS_RT_STATE")
    if named:
        if not Path(named).is_absolute():  # else whatever folder one works in could vouch for its plans
            raise GmsError("is not an absolute path", where=f"GMS_RT_STATE={named}", fix="name a folder of your own")
        return Path(named)
    home = os.environ.get("XDG_STATE_HOME", "")
    if Path(home).is_absolute():
        return Path(home) / "gms-rt"
    try:
        return Path.home() / ".local/state/gms-rt"
    except RuntimeError as error:
        raise GmsError("there is no home folder", where="~/.local/state/gms-rt", fix=_FIX) from error


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
    if not only_ours(found):
        raise GmsError("can be written by others than you", where=folder, fix=f"chmod 700 {folder}, if it is yours")
