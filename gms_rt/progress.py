"""How long work tells its caller how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

OnProgress: TypeAlias = Callable[[str, int, int], None]  # called with the phase, the steps done, and the steps in all


def silent(phase: str, done: int, total: int) -> None:
    """For work that nobody watches."""
