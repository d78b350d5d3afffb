"""The options of every verb that loads an engine: what the user vouches for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., object])


def trust_options(command: _Command) -> _Command:
    """Add `--trust-plans` to a verb."""
    return click.option(
        "--trust-plans", is_flag=True, help="Load TensorRT plans whoever built them: a plan is a program."
    )(command)
