"""Configuration: strict keys, strict types, helpful words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gms_rt.config import config_from_values, read_toml, with_overrides
from gms_rt.errors import ConfigError, UsageError


@dataclass(frozen=True)
class Recipe:
    rate: float = 1e-3
    steps: int = 10
    name: str = "fast"
    mode: Literal["min", "max"] = "min"
    folder: Path | None = None
    sizes: tuple[int, ...] = ()
    deep: bool = False


def test_values_of_the_right_type_arrive() -> None:
    recipe = config_from_values(Recipe, {"rate": 1, "folder": "runs", "sizes": [1, 2], "mode": "max", "deep": True})
    assert recipe == Recipe(rate=1.0, folder=Path("runs"), sizes=(1, 2), mode="max", deep=True)
    assert isinstance(recipe.rate, float)


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'step'.*did you mean 'steps'"):
        config_from_values(Recipe, {"step": 1}, where="recipe.toml")


@pytest.mark.parametrize(
    ("key", "value"),
    [("steps", "ten"), ("steps", True), ("steps", 1.5), ("deep", 1), ("mode", "mean"), ("sizes", ["a"]), ("name", 3)],
)
def test_a_wrong_type_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        config_from_values(Recipe, {key: value})


def test_overrides_read_toml_and_bare_words() -> None:
    recipe = with_overrides(Recipe(), ["steps = 20", "name=slow", "sizes=[3, 4]", "rate=1e-4"])
    assert recipe == Recipe(rate=1e-4, steps=20, name="slow", sizes=(3, 4))


def test_an_override_without_a_sign_is_refused() -> None:
    with pytest.raises(ConfigError, match="not key=value"):
        with_overrides(Recipe(), ["steps"])


@given(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_overrides_survive_a_round_trip(steps: int, rate: float, deep: bool) -> None:
    recipe = with_overrides(Recipe(), [f"steps={steps}", f"rate={rate!r}", f"deep={str(deep).lower()}"])
    assert recipe == Recipe(steps=steps, rate=rate, deep=deep)


def test_files_are_named_in_complaints(tmp_path: Path) -> None:
    broken = tmp_path / "recipe.toml"
    broken.write_text("steps = ")
    with pytest.raises(ConfigError, match=r"recipe\.toml"):
        read_toml(broken)
    with pytest.raises(UsageError, match=r"absent\.toml: cannot be read"):
        read_toml(tmp_path / "absent.toml")
