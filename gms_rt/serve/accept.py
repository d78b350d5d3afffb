"""Which of our formats a client prefers, from its Accept header (RFC 9110, 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence

from gms_rt.serve.refusals import NotAcceptableError


def preferred_format(accept: str | None, ours: Sequence[str]) -> str:
    """The first of ours with the highest quality; without a header the first of all.

    >>> preferred_format("image/png;q=0.5, application/json", ["application/json", "image/png"])
    'application/json'
    """
    if not accept or not accept.strip():
        return ours[0]
    ranges = [_range(text) for text in accept.split(",")[:64] if text.strip()]
    best, quality = "", 0.0
    for each in ours:
        rank = _quality(each, ranges)
        if rank > quality:
            best, quality = each, rank
    if not best:
        raise NotAcceptableError("no answer in a format that the client accepts", fix=f"ask for {', '.join(ours)}")
    return best


def _range(text: str) -> tuple[str, float]:
    kind, *parameters = [part.strip().lower() for part in text.split(";")]
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = min(max(float(value), 0.0), 1.0)
            except ValueError:
                quality = 0.0
    return kind, quality


def _quality(kind: str, ranges: list[tuple[str, float]]) -> float:
    """The quality of the narrowest range that contains it."""
    for wanted in (kind, kind.split("/")[0] + "/*", "*/*"):
        for name, quality in ranges:
            if name == wanted:
                return quality
    return 0.0
