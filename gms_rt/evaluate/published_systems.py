"""Every system in the paper's tables 1 to 3 (Huo et al., Generative Medical Segmentation), with its published numbers.

DSC and IoU in percent, HD95 in pixels at 224x224, parameters in millions that are trained. MixStyle and DSU stand in
table 3 alone and without parameters. Systems are named as `gms-rt train --model` names them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gms_rt.evaluate.published import CROSS, GMS, Numbers

DATASETS = ("bus", "busi", "glas", "ham10000", "kvasir-instrument")  # tables 1 and 2, in their order
PAIRS = (("busi", "bus"), ("bus", "busi"))  # table 3: trained on, tested on


@dataclass(frozen=True)
class PublishedSystem:
    """One row of the tables."""

    key: str  # the model's name in `gms-rt train --model`; gms is this project's own
    title: str  # as the paper writes it
    kind: str  # CNN, Transformer, Generative, or Domain generalization
    parameters: float | None  # millions
    results: dict[str, Numbers]  # by data set
    cross: dict[tuple[str, str], Numbers]  # by where it was trained and tested


def _row(key: str, title: str, kind: str, parameters: float | None, numbers: str) -> PublishedSystem:
    """A system from its numbers in the order of the tables: three for each data set, then two for each pair."""
    values = [float(word) for word in numbers.split()]
    results = {}
    if len(values) > 2 * len(PAIRS):
        each = iter(values[: 3 * len(DATASETS)])
        results = {name: Numbers(next(each), next(each), next(each)) for name in DATASETS}
    last = iter(values[-2 * len(PAIRS) :])
    cross = {pair: Numbers(next(last), None, next(last)) for pair in PAIRS}
    return PublishedSystem(key, title, kind, parameters, results, cross)


_CNN, _TRANSFORMER, _GENERATIVE, _DOMAIN = "CNN", "Transformer", "Generative", "Domain generalization"
SYSTEMS = (
    _row("unet", "UNet", _CNN, 14.0,
         "81.50 70.77 17.68  72.27 63.00 35.42  87.99 80.01 18.45  92.24 86.93 13.74  93.82 89.23 8.71 "
         "62.99 47.26  53.83 96.81"),
    _row("multiresunet", "MultiResUNet", _CNN, 7.3,
         "80.41 70.33 19.22  72.43 62.59 34.19  88.34 80.34 17.42  92.74 87.60 13.02  92.31 87.03 9.49 "
         "61.53 53.97  56.25 94.31"),
    _row("acc-unet", "ACC-UNet", _CNN, 16.8,
         "83.40 73.51 16.49  77.19 68.51 25.49  88.60 80.84 17.14  93.20 88.44 10.83  93.91 89.73 8.74 "
         "64.60 42.87  47.80 135.24"),
    _row("nnu-net", "nnUNet", _CNN, 20.6,
         "85.71 78.68 11.43  79.45 70.99 22.13  87.25 78.24 20.07  93.83 89.32 9.43  93.95 90.20 8.51 "
         "78.39 20.53  59.13 89.32"),
    _row("ege-unet", "EGE-UNet", _CNN, 0.05,
         "72.79 61.96 27.73  75.17 60.23 29.51  83.25 71.31 28.79  93.90 88.50 10.01  92.65 86.30 9.04 "
         "69.04 34.63  54.46 105.23"),
    _row("swin-unet", "SwinUNet", _TRANSFORMER, 27.2,
         "80.37 69.75 20.49  76.06 66.10 28.69  86.44 76.89 19.63  93.51 88.68 10.46  92.02 85.83 9.15 "
         "78.38 21.94  57.47 91.63"),
    _row("sme-swin-unet", "SME-SwinUNet", _TRANSFORMER, 169.8,
         "78.87 67.13 22.19  73.93 62.70 30.45  83.72 72.77 26.23  92.71 87.21 12.53  93.32 88.27 8.91 "
         "74.78 25.81  58.28 91.26"),
    _row("uctransnet", "UCTransNet", _TRANSFORMER, 66.4,
         "83.44 73.74 16.33  76.55 67.50 25.46  87.17 78.80 20.79  93.45 88.73 10.91  93.27 88.48 8.84 "
         "72.76 28.47  56.94 94.32"),
    _row("medsegdiff-v2", "MedSegDiff-V2", _GENERATIVE, 129.4,
         "83.23 74.36 17.02  71.32 62.73 38.47  86.82 77.05 19.96  92.28 87.02 13.02  92.29 87.21 9.06 "
         "69.56 32.51  55.21 98.57"),
    _row("sdseg", "SDSeg", _GENERATIVE, 329.0,
         "82.47 73.45 20.53  72.76 63.52 36.79  86.76 76.23 21.41  92.54 87.53 12.29  91.23 86.54 9.38 "
         "74.03 26.32  57.03 94.61"),
    _row("gss", "GSS", _GENERATIVE, 49.8,
         "84.86 77.58 22.42  79.56 71.22 28.20  87.41 79.17 19.81  92.92 87.98 11.29  93.66 89.15 7.25 "
         "68.74 35.74  58.72 92.57"),
    _row("deeplabv3-mixstyle", "MixStyle", _DOMAIN, None, "73.07 26.52  57.97 93.54"),
    _row("deeplabv3-dsu", "DSU", _DOMAIN, None, "66.15 40.03  56.70 95.31"),
    PublishedSystem("gms", "GMS", _GENERATIVE, 1.5, GMS, CROSS),
)  # fmt: skip
BY_KEY = {system.key: system for system in SYSTEMS}


def systems_of_table(number: int) -> Iterator[PublishedSystem]:
    """The rows of table 1, 2 or 3, in the paper's order."""
    order = {"deeplabv3-mixstyle": "uctransnet", "deeplabv3-dsu": "uctransnet"}  # table 3 names them behind this one
    if number < 3:
        yield from (system for system in SYSTEMS if system.results)
        return
    for system in SYSTEMS:
        if system.key not in order:
            yield system
        yield from (BY_KEY[key] for key, before in order.items() if before == system.key)
