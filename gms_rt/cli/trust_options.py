"""The options of every verb that loads an engine: what the user vouches for, and how a GPU runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., object])


def plans_option(command: _Command) -> _Command:
    """Add `--trust-plans` to a verb."""
    return click.option(
        "--trust-plans", is_flag=True, help="Load TensorRT plans whoever built them: a plan is a program."
    )(command)


def trust_options(command: _Command) -> _Command:
    """Add `--trust-plans` and `--trust-device` to a verb."""
    device = click.option(
        "--trust-device",
        is_flag=True,
        help="Do not run the reference pictures first where device or runtime differ from the certificate's.",
    )
    return plans_option(device(command))


def graph_option(command: _Command) -> _Command:
    """Add `--cuda-graph` to a verb."""
    return click.option(
        "--cuda-graph",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        show_default=True,
        help="Replay a TensorRT plan as a CUDA graph: where it can be captured, always (else fail), or never.",
    )(command)
