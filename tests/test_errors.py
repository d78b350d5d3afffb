"""One line, an exit code, nothing a terminal would obey."""

from __future__ import annotations

import re

import pytest

from gms_rt import errors

DRAWN = dict(re.findall(r"(\w+Error)\s+(\d)", errors.__doc__ or ""))


def test_the_drawn_hierarchy_is_the_real_one() -> None:
    classes = {
        name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and kind is not errors.annotations
    }
    assert {name: str(kind.exit_code) for name, kind in classes.items()} == DRAWN
    assert all(issubclass(kind, errors.GmsError) for kind in classes.values())


def test_a_message_names_the_place_the_fault_and_the_fix() -> None:
    error = errors.UsageError("is not a folder", where="a/b", fix="give a folder")
    assert str(error) == "a/b: is not a folder; give a folder"


@pytest.mark.parametrize("name", ["two\nlines", "bell\x07", "colour\x1b[31m", "lone\udce9"])
def test_control_characters_in_names_are_escaped(name: str) -> None:
    line = errors.InputError("cannot be read", where=name).line()
    assert line.isprintable()
    line.encode()


def test_a_missing_extra_gives_the_install_line() -> None:
    error = errors.MissingExtraError("training", "train")
    assert "pip install 'gms-rt[train]'" in error.line()
    assert error.exit_code == 2
