"""The figures: parameters of every system (SVG), and figure 2, chosen cases by every system trained here (PNG).

The case of a data set is the one whose true lesion is nearest the median size among the test cases: chosen by the truth
alone, before any model is asked, unless the call names another.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gms_rt import metrics
from gms_rt.arrays import U8
from gms_rt.artifacts import write_bytes, write_json
from gms_rt.data.layouts import Case, recognise
from gms_rt.data.reading import read_case, read_mask
from gms_rt.errors import UsageError
from gms_rt.evaluate.choice import chosen_cases
from gms_rt.evaluate.gallery import draw_contours
from gms_rt.evaluate.published_systems import SYSTEMS
from gms_rt.model.kind import weights_file
from gms_rt.scan import resize_image
from gms_rt.scan.encode import encode_picture
from paper.cells import NAMES
from paper.jobs import run_of
from paper.order import Folder, Order
from paper.systems import title_of

_SIDE, _GAP, _HEAD, _LEFT = 224, 6, 28, 120  # pixels of figure 2
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_COLOURS = {"CNN": "#4878a8", "Transformer": "#8a63a8", "Generative": "#b0783c"}


def write_figures(order: Order, cases: Mapping[str, str]) -> list[Path]:
    """Both figures as far as there is something to draw; `cases` names the case of a data set."""
    counted = {system.key: trained_parameters(order, system.key) for system in SYSTEMS}
    files = [order.out / "parameters.svg", order.out / "parameters.json"]
    write_bytes(files[0], parameter_figure(counted).encode())
    write_json(files[1], {s.key: {"published_millions": s.parameters, "here": counted[s.key]} for s in SYSTEMS})
    return [*files, *_write_masks(order, cases)]


def trained_parameters(order: Order, system: str, name: str = "*") -> int | None:
    """How many numbers a system learned here, from its weights; None where it was not trained."""
    for run in sorted((order.work / "train" / system).glob(name)):
        if (run / "config.toml").is_file() and weights_file(run).is_file():
            return parameters_in_file(weights_file(run))
    return None


def parameters_in_file(path: Path) -> int:
    """The numbers in a safetensors file, what batch normalisation counts left out."""
    with path.open("rb") as stream:
        head = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    shapes = [value["shape"] for name, value in head.items() if name != "__metadata__" and not name.endswith(_BUFFERS)]
    return sum(math.prod(shape) for shape in shapes)


def parameter_figure(counted: Mapping[str, int | None]) -> str:
    """Bars of the published parameters on a logarithmic scale; a mark where a model was trained here."""
    shown = [system for system in SYSTEMS if system.parameters]
    low, high, left, width, row = 0.03, 500.0, 130, 470, 24
    height = row * len(shown) + 50

    def at(millions: float) -> float:
        return left + width * math.log(max(millions, low) / low) / math.log(high / low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{height}" font-family="sans-serif" '
        'font-size="12"><title>Trainable parameters, millions: bars published, marks trained here</title>',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for tick in (0.1, 1, 10, 100):
        parts.append(f'<line x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="8" y2="{height - 34}" stroke="#ddd"/>')
        parts.append(f'<text x="{at(tick):.1f}" y="{height - 20}" text-anchor="middle">{tick:g} M</text>')
    for number, system in enumerate(shown):
        y = 12 + row * number
        assert system.parameters is not None
        end, here = at(system.parameters), counted.get(system.key)
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(system.title)}</text>')
        parts.append(
            f'<rect x="{left}" y="{y + 2}" width="{end - left:.1f}" height="14" fill="{_COLOURS[system.kind]}"/>'
        )
        text = f"{system.parameters:g} M" + (f" (here {here / 1e6:.3g} M)" if here else "")
        parts.append(f'<text x="{end + 6:.1f}" y="{y + 13}">{text}</text>')
        if here:
            x = at(here / 1e6)
            parts.append(f'<path d="M{x:.1f} {y} v18" stroke="black" stroke-width="2"/>')
    parts.append(
        f'<text x="{left}" y="{height - 4}" fill="#555">bars: published; black marks: counted in what was trained here'
        "</text></svg>"
    )
    return "\n".join(parts) + "\n"


def case_of_folder(folder: Folder, wanted: str | None) -> Case:
    """The case that figure 2 shows of a data set."""
    data = recognise(folder.path)
    if wanted is not None:
        found = [case for case in data.cases if case.name == wanted]
        if not found:
            raise UsageError(f"{folder.key} has no case {wanted}", where="--case", fix="name one of its cases")
        return found[0]
    cases, _ = chosen_cases(data, "test", file=folder.splits)
    sizes = np.array([np.count_nonzero(mask) / mask.size for mask in map(read_mask, cases)])
    return cases[int(np.argmin(np.abs(sizes - np.median(sizes[sizes > 0] if sizes.any() else sizes))))]


def _write_masks(order: Order, wanted: Mapping[str, str]) -> list[Path]:
    """Figure 2, and beside it which cases it shows and the Dice of each."""
    from gms_rt.train.predict import segmenter_from_run

    trained: dict[str, dict[str, Path]] = {}
    for name in order.data:
        runs = {key: run_of(key, name, order) for key in order.systems}
        trained[name] = {k: r for k, r in runs.items() if (r / "config.toml").is_file() and weights_file(r).is_file()}
    columns = [key for key in order.systems if any(key in found for found in trained.values())]
    if not columns:
        return []
    rows, told = [], []
    for name in (n for n in order.data if trained[n]):
        case = case_of_folder(order.data[name], wanted.get(name))
        image, truth = read_case(case)
        panels, scores = [_panel(image)], {}
        for key in columns:
            run = trained[name].get(key)
            if run is None:
                panels.append(np.full((_SIDE, _SIDE, 3), 235, np.uint8))
                continue
            found = segmenter_from_run(run, device=order.device)(image)
            scores[key] = round(metrics.dice(found, truth), 4)
            panels.append(draw_contours(_panel(image), truth, found))
        rows.append((NAMES[name], panels))
        told.append({"data": name, "case": case.name, "dice": scores})
    heads = ["image", *(title_of(key) for key in columns)]
    files = [order.out / "figure-2.png", order.out / "figure-2.json"]
    write_bytes(files[0], encode_picture(".png", _sheet(heads, rows)))
    value: dict[str, Any] = {"truth": "green", "prediction": "yellow", "rows": told}
    write_json(files[1], value)
    return files


def _panel(image: U8) -> U8:
    return np.ascontiguousarray(resize_image(image, _SIDE, _SIDE))


def _sheet(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[U8]]]) -> U8:
    step = _SIDE + _GAP
    sheet = np.full((_HEAD + step * len(rows), _LEFT + step * len(heads), 3), 255, np.uint8)

    def write(text: str, x: int, y: int) -> None:
        cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)

    for column, head in enumerate(heads):
        write(head, _LEFT + step * column + 4, _HEAD - 9)
    for row, (name, panels) in enumerate(rows):
        top = _HEAD + step * row
        write(name[:14], 4, top + _SIDE // 2)
        for column, panel in enumerate(panels):
            left = _LEFT + step * column
            sheet[top : top + _SIDE, left : left + _SIDE] = panel
    return sheet
