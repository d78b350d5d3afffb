"""Verbs that need torch check for it first, so that its absence is one line."""

from __future__ import annotations

import importlib.util

from gms_rt.errors import MissingExtraError


def train_extra(feature: str) -> None:
    """Raise unless the packages of the 'train' extra are there."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "safetensors")):
        raise MissingExtraError(feature, "train")
