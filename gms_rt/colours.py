"""Colours as screens show them (sRGB) and as DICOM stores them (CIELab, three 16-bit numbers).

The white point is D65, sRGB's own. ICC's profile connection space, which DICOM names, has D50; but the readers that
people open results with (3D Slicer by dcmqi, OHIF by dcmjs, highdicom) convert without adaptation, and with D65 they
show the colour that was asked for.
"""

from __future__ import annotations

_WHITE = (0.95047, 1.0, 1.08883)
_XYZ_FROM_RGB = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_RGB_FROM_XYZ = (
    (3.2404542, -1.5371385, -0.4985314),
    (-0.9692660, 1.8760108, 0.0415560),
    (0.0556434, -0.2040259, 1.0572252),
)
_EPSILON, _KAPPA = 216 / 24389, 24389 / 27

Rgb = tuple[int, int, int]
Triple = tuple[float, float, float]


def cielab_from_rgb(colour: Rgb) -> tuple[int, int, int]:
    """DICOM's three numbers of 16 bits (L* of 0 to 100, a* and b* of -128 to 127) for an sRGB colour of 0 to 255.

    >>> cielab_from_rgb((255, 255, 255)), cielab_from_rgb((0, 0, 0))
    ((65535, 32896, 32896), (0, 32896, 32896))
    """
    x, y, z = _product(_XYZ_FROM_RGB, [_linear(part / 255) for part in colour])
    fx, fy, fz = (_cube_root(value / white) for value, white in zip((x, y, z), _WHITE, strict=True))
    lightness, a, b = 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)
    return _word(lightness / 100), _word((a + 128) / 255), _word((b + 128) / 255)


def rgb_from_cielab(value: tuple[int, int, int]) -> Rgb:
    """The sRGB colour nearest to DICOM's three numbers; what no screen can show is cut off.

    >>> rgb_from_cielab(cielab_from_rgb((255, 64, 64)))
    (255, 64, 64)
    """
    lightness, a, b = value[0] / 655.35, value[1] / 257 - 128, value[2] / 257 - 128
    fy = (lightness + 16) / 116
    xyz = [_cube(f) * white for f, white in zip((fy + a / 500, fy, fy - b / 200), _WHITE, strict=True)]
    red, green, blue = (round(255 * _companded(min(1.0, max(0.0, part)))) for part in _product(_RGB_FROM_XYZ, xyz))
    return red, green, blue


def hex_from_rgb(colour: Rgb) -> str:
    """The colour as web pages and our class files write it.

    >>> hex_from_rgb((255, 64, 64))
    '#ff4040'
    """
    return "#" + "".join(f"{part:02x}" for part in colour)


def _product(matrix: tuple[Triple, Triple, Triple], vector: list[float]) -> list[float]:
    return [sum(m * v for m, v in zip(row, vector, strict=True)) for row in matrix]


def _linear(part: float) -> float:
    return ((part + 0.055) / 1.055) ** 2.4 if part > 0.04045 else part / 12.92


def _companded(part: float) -> float:
    return 1.055 * part ** (1 / 2.4) - 0.055 if part > 0.0031308 else 12.92 * part


def _cube_root(ratio: float) -> float:
    return float(ratio ** (1 / 3)) if ratio > _EPSILON else (_KAPPA * ratio + 16) / 116


def _cube(root: float) -> float:
    return root**3 if root**3 > _EPSILON else (116 * root - 16) / _KAPPA


def _word(share: float) -> int:
    return min(65535, max(0, round(share * 65535)))
