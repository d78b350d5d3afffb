"""Frozen dataclasses from TOML, JSON and `key=value` overrides; unknown keys and wrong types are refused by name."""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from gms_rt.errors import ConfigError, GmsError, UsageError

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


def config_from_values(
    kind: type[T], values: Mapping[str, Any], *, where: object = "options", error: type[GmsError] = ConfigError
) -> T:
    """An instance of a frozen dataclass from plain values, by its type hints; `error` is raised for what does not fit.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Limits:
    ...     mean: float = 0.99
    >>> config_from_values(Limits, {"mean": 0.9})
    Limits(mean=0.9)
    """
    return typing.cast(T, _Decoder(where, error).instance(kind, values, ""))


def values_as_set(config: Any, later: Collection[str]) -> dict[str, Any]:
    """Plain values of a dataclass; of `later` keys, which earlier versions did not know, only those that are set.

    >>> Size = dataclasses.make_dataclass("Size", [("side", int, 224), ("batch", int, 1)])
    >>> values_as_set(Size(), ["batch"]), values_as_set(Size(batch=2), ["batch"])
    ({'side': 224}, {'side': 224, 'batch': 2})
    """
    unset = {field.name: field.default for field in dataclasses.fields(config) if field.name in later}
    values = dataclasses.asdict(config)
    return {key: value for key, value in values.items() if unset.get(key, dataclasses.MISSING) != value}


def with_overrides(config: T, settings: Iterable[str]) -> T:
    """A copy of `config` with `key=value` settings applied, values read as TOML (bare words are strings)."""
    values: dict[str, Any] = {}
    for setting in settings:
        key, sign, text = setting.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"'{setting}' is not key=value", where="--set")
        values[key.strip()] = _literal(text.strip())
    checked = config_from_values(type(config), values, where="--set") if values else config
    return dataclasses.replace(config, **{k: getattr(checked, k) for k in values})  # type: ignore[type-var]


def _literal(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


@dataclasses.dataclass(frozen=True)
class _Decoder:
    """Plain values to typed ones; whatever does not fit is refused with its path inside `where`."""

    where: object
    error: type[GmsError]

    def instance(self, kind: Any, values: Any, path: str) -> Any:
        if not isinstance(values, Mapping):
            raise self._refused("is not an object", path)
        hints = typing.get_type_hints(kind)
        fields = {f.name: f for f in dataclasses.fields(kind)}
        for key in values:
            if key not in fields:
                near = difflib.get_close_matches(key, fields, n=1)
                fix = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(fields)}"
                raise self._refused(f"unknown key '{key}'", path, fix)
        for name, field in fields.items():
            defaults = (field.default, field.default_factory)
            if name not in values and defaults == (dataclasses.MISSING, dataclasses.MISSING):
                raise self._refused(f"lacks the key '{name}'", path)
        below = f"{path}." if path else ""
        return kind(**{key: self.value(value, hints[key], f"{below}{key}") for key, value in values.items()})

    def value(self, value: Any, hint: Any, path: str) -> Any:
        options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
        for option in options:
            origin = typing.get_origin(option) or option
            if option is types.NoneType:
                if value is None:
                    return None
            elif origin is typing.Literal:
                if value in typing.get_args(option):
                    return value
                names = ", ".join(map(repr, typing.get_args(option)))
                raise self._refused(f"{value!r} is not one of {names}", path)
            elif origin is tuple:
                if isinstance(value, (list, tuple)):
                    inner = typing.get_args(option)[0]
                    return tuple(self.value(item, inner, f"{path}[{i}]") for i, item in enumerate(value))
            elif dataclasses.is_dataclass(origin):
                if value is not None:
                    return self.instance(origin, value, path)
            elif origin is float:
                if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
                    return float(value)
            elif origin is Path:
                if isinstance(value, (str, Path)):
                    return Path(value)
            elif isinstance(value, origin) and isinstance(value, bool) == (origin is bool):
                return value
        names = " or ".join(_type_name(option) for option in options)
        raise self._refused(f"{value!r} is not of type {names}", path)

    def _refused(self, what: str, path: str, fix: str = "") -> GmsError:
        return self.error(what, where=f"{self.where}: {path}" if path else self.where, fix=fix)


def _type_name(hint: Any) -> str:
    if hint is types.NoneType:
        return "None"
    return "list" if typing.get_origin(hint) is tuple else getattr(hint, "__name__", str(hint))
