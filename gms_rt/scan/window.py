"""Deep pixel values to 8 bit: a stated window, and the choice as text for the record."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import F64, U8
from gms_rt.errors import InputError

LOW, HIGH = 0.5, 99.5  # percentiles: robust against a few burnt-in or dead pixels
_SAMPLE = 100_000


def to_8bit(values: NDArray[Any], low: float, high: float) -> U8:
    """Values between `low` and `high` spread over 0-255; a window of no width gives black, NaN and infinity too.

    >>> to_8bit(np.array([0, 50, 100, 900]), 0, 100).tolist()
    [0, 128, 255, 255]
    """
    if not high > low:
        return np.zeros(values.shape, np.uint8)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
        if not (known := np.isfinite(scaled)).all():
            scaled = np.where(known, scaled, _beyond_float32(values, low, high))
    return np.asarray(np.rint(np.clip(scaled, 0, 255)), np.uint8)


def _beyond_float32(values: NDArray[Any], low: float, high: float) -> F64:
    """The same for values or windows that float32 does not hold; 0 for what is no number."""
    wide = values.astype(np.float64)
    share = (wide / 4 - low / 4) / (high / 4 - low / 4)  # a quarter, so that no difference is infinite
    return np.where(np.isfinite(wide), np.nan_to_num(255 * share, nan=0.0), 0.0)


def percentiles(values: NDArray[Any], ignore: float | None = None) -> tuple[float, float]:
    """The window that holds all but the lowest and highest half percent; `ignore` is a padding value left out.

    NaN and infinity are left out too.

    Of many values a hundred thousand or so are looked at, evenly spaced, always the same ones.
    """
    flat = values.reshape(-1)
    if values.dtype.kind == "f" and not (known := np.isfinite(flat)).all():
        flat = flat[known]
        if not flat.size:
            raise InputError("has only pixels that are NaN or infinite")
    if ignore is not None and (kept := flat[flat != ignore]).size:
        flat = kept
    flat = flat[:: max(1, flat.size // _SAMPLE)]
    low, high = np.percentile(flat.astype(np.float64), (LOW, HIGH))
    if low == high:  # nearly all pixels are equal: the few others are the picture
        low, high = float(flat.min()), float(flat.max())
    return float(low), float(high)


def by_percentiles(values: NDArray[Any], ignore: float | None = None) -> tuple[U8, str]:
    """Values as 8 bit by percentiles, and the choice as text."""
    low, high = percentiles(values, ignore)
    return to_8bit(values, low, high), percentiles_text(low, high) + gaps_text(values)


def percentiles_text(low: float, high: float) -> str:
    """A window by percentiles, for the record."""
    return f"percentiles {LOW:g}-{HIGH:g}: {low:g} to {high:g}"


def gaps_text(values: NDArray[Any]) -> str:
    """What is said of NaN and infinity, which are shown as background; nothing where there are none."""
    bad = 0 if values.dtype.kind != "f" else int(values.size - np.count_nonzero(np.isfinite(values)))
    return f", {bad} NaN or infinite as background" if bad else ""


def fill_gaps(values: NDArray[Any]) -> NDArray[Any]:
    """Values with NaN and infinity as the lowest value that is neither."""
    if values.dtype.kind != "f" or (known := np.isfinite(values)).all():
        return values
    if not known.any():
        raise InputError("has only pixels that are NaN or infinite")
    return np.where(known, values, values[known].min())
