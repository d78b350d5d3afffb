"""The official preprocessed layout keeps its split in a pickle: read here without running anything.

Only strings, numbers and the built-in containers come out. A pickle that names any function or class, or wants to
build an object, is refused before it is called.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from gms_rt.errors import InputError, line_from_error

_LIMIT = 64 * 2**20
_CONTAINERS = {"set": set, "frozenset": frozenset, "list": list, "dict": dict, "tuple": tuple}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in ("builtins", "__builtin__") and name in _CONTAINERS:
            return _CONTAINERS[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_plain_pickle(path: Path) -> Any:
    """The plain values in a pickle."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=path) from error
    if len(data) > _LIMIT:
        raise InputError(f"is too large for a list of names ({len(data)} bytes)", where=path)
    try:
        return _PlainUnpickler(io.BytesIO(data)).load()
    except Exception as error:  # a hostile pickle can raise anything at all while it is parsed
        raise InputError(
            f"is refused: not a pickle of plain names ({line_from_error(error)})",
            where=path,
            fix='write the split as JSON: {"train": [names], "test": [names]}',
        ) from error
