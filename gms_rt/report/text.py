"""How figures are written, the same in every rendering."""

from __future__ import annotations

from gms_rt.bench.results import Measured

MARKS = {"pass": "pass", "fail": "FAIL", "none": "not certified", "stale": "certificate out of date"}


def milliseconds(value: float | None) -> str:
    """Three significant digits, without a unit.

    >>> [milliseconds(v) for v in (0.01234, 9.126, 84.25, 1622.4, None)]
    ['0.012', '9.13', '84.2', '1622', '–']
    """
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.3f}"


def score(value: float | None) -> str:
    """A Dice with four digits, never rounded up to one.

    >>> [score(v) for v in (1.0, 0.99998, 0.93216, None)]
    ['1.0000', '0.9999', '0.9322', '–']
    """
    if value is None:
        return "–"
    # A mask with a flipped pixel must not read as equal.
    return f"{value if value >= 1 else min(value, 0.9999):.4f}"


def size(count: int | None) -> str:
    """Bytes as MiB or GiB.

    >>> [size(v) for v in (3 * 2**20, 5 * 2**30, None)]
    ['3 MiB', '5.0 GiB', '–']
    """
    if count is None:
        return "–"
    return f"{count / 2**20:.0f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"


def rate(value: float | None) -> str:
    """Images per second.

    >>> [rate(v) for v in (0.617, 12.34, 250.6)]
    ['0.62', '12.3', '251']
    """
    return milliseconds(value)


def arithmetic_name(kind: str) -> str:
    """The type in which a layer runs: OpenVINO says u8 or i8 by the sign of what goes in.

    >>> [arithmetic_name(kind) for kind in ("u8", "i8", "bf16", "")]
    ['int8', 'int8', 'bf16', 'unknown']
    """
    return "int8" if kind in ("u8", "i8") else kind or "unknown"


def layer_name(name: str, width: int = 30) -> str:
    """A layer's name as it fits over a bar, without what OpenVINO appends for a bias that it adds apart.

    >>> layer_name("encoder/conv/WithoutBiases"), layer_name("lmm/view_19/quantise_abcd_acdb_lmm/conv_33")
    ('encoder/conv', 'lmm/view_19/qua…db_lmm/conv_33')
    """
    plain = name.removesuffix("/WithoutBiases")
    if len(plain) <= width:
        return plain
    half = width // 2
    return f"{plain[:half]}…{plain[half + 1 - width :]}"


def distance(value: float | None) -> str:
    """A relative distance.

    >>> [distance(v) for v in (0.0123, 0.0, None)]
    ['1.2 %', '0', '–']
    """
    if value is None:
        return "–"
    return "0" if value == 0 else f"{value * 100:.2g} %"


def ratio(value: float) -> str:
    """A speed-up.

    >>> ratio(2.514)
    '2.51×'
    """
    return f"{value:.2f}×" if value < 10 else f"{value:.1f}×"


def energy(joules: float | None) -> str:
    """Energy per image.

    >>> [energy(v) for v in (0.0123, 12.34, None)]
    ['12 mJ', '12.3 J', '–']
    """
    return "–" if joules is None else f"{joules * 1000:.0f} mJ" if joules < 10 else f"{joules:.1f} J"


def energy_source(measured: Measured) -> str:
    """Where the energy figure comes from, with the idle draw, or why there is none."""
    found = measured.energy
    if found.joules_per_image is None:
        return f"energy: {found.why}" if found.why else ""
    idle = f"{found.idle_watts:.1f} W idle" if found.idle_watts is not None else found.why or "idle draw not measured"
    return f"{measured.name}: {found.watts:.1f} W while it ran, idle draw included ({idle}); {found.source}"
