"""One frozen dataclass a stage, from TOML and `key=value` overrides; unknown keys and wrong types are refused."""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from gms_rt.errors import ConfigError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, with its name in every complaint."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"is not valid TOML ({error})", where=path) from error


def configured(kind: type[T], values: Mapping[str, Any], *, where: object = "options") -> T:
    """An instance of a frozen dataclass from plain values.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Gate:
    ...     mean: float = 0.99
    >>> configured(Gate, {"mean": 0.9})
    Gate(mean=0.9)
    """
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            fix = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(fields)}"
            raise ConfigError(f"unknown key '{key}'", where=where, fix=fix)
    return kind(**{key: _fitted(value, hints[key], f"{where}: {key}") for key, value in values.items()})


def with_overrides(config: T, settings: Iterable[str]) -> T:
    """A copy of `config` with `key=value` settings applied, values read as TOML (bare words are strings)."""
    values: dict[str, Any] = {}
    for setting in settings:
        key, sign, text = setting.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"'{setting}' is not key=value", where="--set")
        values[key.strip()] = _literal(text.strip())
    checked = configured(type(config), values, where="--set") if values else config
    return dataclasses.replace(config, **{k: getattr(checked, k) for k in values})  # type: ignore[type-var]


def _literal(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _fitted(value: Any, hint: Any, where: str) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        origin = typing.get_origin(option) or option
        if origin is typing.Literal:
            if value in typing.get_args(option):
                return value
            names = ", ".join(map(repr, typing.get_args(option)))
            raise ConfigError(f"{value!r} is not one of {names}", where=where)
        if option is types.NoneType and value is None:
            return None
        if origin is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if origin is Path and isinstance(value, (str, Path)):
            return Path(value)
        if origin is tuple and isinstance(value, (list, tuple)):
            inner = typing.get_args(option)
            return tuple(_fitted(v, inner[0], where) for v in value) if inner else tuple(value)
        if isinstance(origin, type) and isinstance(value, origin) and isinstance(value, bool) == (origin is bool):
            return value
    names = " or ".join(getattr(option, "__name__", str(option)) for option in options)
    raise ConfigError(f"{value!r} is not of type {names}", where=where)
