"""Tables 1 to 5 and the supplement's reconstruction in the paper's columns: published rows, and what was run here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gms_rt.evaluate.published import LOSS, TOKENIZER, Numbers
from gms_rt.evaluate.published_systems import DATASETS, PAIRS, systems_of_table
from paper.cells import (
    NAMES,
    Found,
    found_in_ablation,
    found_in_cross,
    found_in_reconstruction,
    found_in_test,
)
from paper.jobs import ABLATED, LOSSES, ONE, safe_name
from paper.order import Order
from paper.systems import GMS

TITLES = {
    "1": "Table 1: two ultrasound data sets",
    "2": "Table 2: three data sets of other kinds",
    "3": "Table 3: trained on one data set, tested on another",
    "4": "Table 4: GMS with one loss and with both",
    "5": "Table 5: GMS with one tokenizer and another",
    "reconstruction": "Supplement: what the tokenizer alone loses",
}
PUBLISHED, HERE = "published", "run here"


@dataclass(frozen=True)
class Row:
    """One row: what it is of, where its numbers come from, and a cell for each group of columns."""

    labels: tuple[str, ...]
    source: str  # PUBLISHED or HERE
    cells: tuple[Found, ...]


@dataclass(frozen=True)
class PaperTable:
    """One table."""

    key: str
    title: str
    labels: tuple[str, ...]  # headings of the labels
    groups: tuple[str, ...]  # data sets, or pairs of them
    measures: tuple[str, ...]  # columns of each group
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class ReconstructionTable:
    """The supplement's table: plain rows, each of a data set and a tokenizer."""

    rows: tuple[dict[str, Any], ...]
    key: str = "reconstruction"
    title: str = TITLES["reconstruction"]


def table_of(key: str, order: Order) -> PaperTable | ReconstructionTable:
    """A table of the paper from what is there."""
    if key in ONE:
        return _of_systems(key, order)
    if key == "3":
        return _of_pairs(order)
    if key in ("4", "5"):
        return _of_ablation(key, order)
    return _of_reconstruction(order)


def _of_systems(key: str, order: Order) -> PaperTable:
    rows = []
    for system in systems_of_table(int(key)):
        labels = (system.kind, system.title, f"{system.parameters:g}" if system.parameters else "")
        rows.append(Row(labels, PUBLISHED, tuple(_published(system.results[name]) for name in ONE[key])))
        cells = tuple(found_in_test(system.key, name, order) for name in ONE[key])
        rows.append(Row((*labels[:2], ""), HERE, cells))
    labels = ("Type", "Model", "Trainable params (M)")
    return PaperTable(key, TITLES[key], labels, tuple(NAMES[n] for n in ONE[key]), ("DSC", "IoU", "HD95"), tuple(rows))


def _of_pairs(order: Order) -> PaperTable:
    rows = []
    for system in systems_of_table(3):
        rows.append(Row((system.title,), PUBLISHED, tuple(_published(system.cross[pair]) for pair in PAIRS)))
        rows.append(Row((system.title,), HERE, tuple(found_in_cross(system.key, *pair, order) for pair in PAIRS)))
    groups = tuple(f"{NAMES[first]} to {NAMES[second]}" for first, second in PAIRS)
    return PaperTable("3", TITLES["3"], ("Model",), groups, ("DSC", "HD95"), tuple(rows))


def _of_ablation(key: str, order: Order) -> PaperTable:
    groups, measures = tuple(NAMES[name] for name in ABLATED), ("DSC", "IoU", "HD95")
    rows = []
    if key == "4":
        words = {"latent": ("yes", ""), "dice": ("", "yes"), "both": ("yes", "yes")}
        for loss in LOSSES:
            rows.append(Row(words[loss], PUBLISHED, tuple(_published(LOSS[loss][name]) for name in ABLATED)))
            cells = tuple(found_in_ablation("loss", loss, name, order) for name in ABLATED)
            rows.append(Row(words[loss], HERE, cells))
        return PaperTable(key, TITLES[key], ("latent loss", "mask loss"), groups, measures, tuple(rows))
    published = {"vq": "VQ-VAE", "sd-vae": "SD-VAE"}
    rows = [Row((published[t],), PUBLISHED, tuple(_published(TOKENIZER[t][n]) for n in ABLATED)) for t in published]
    for tokenizer in order.tokenizers:
        cells = tuple(found_in_ablation("tokenizer", tokenizer, name, order) for name in ABLATED)
        rows.append(Row((tokenizer,), HERE, cells))
    return PaperTable(key, TITLES[key], ("Image tokenizer",), groups, measures, tuple(rows))


def _of_reconstruction(order: Order) -> ReconstructionTable:
    rows: list[dict[str, Any]] = []
    for name in DATASETS:
        for tokenizer in order.tokenizers:
            row: dict[str, Any] = {"data": NAMES[name], "tokenizer": tokenizer, "source": HERE}
            if order.folder(name) is None:
                rows.append({**row, "why": "no data (not in the folder)"})
                continue
            summary, why = found_in_reconstruction(name, safe_name(tokenizer), order)
            if summary is None:
                rows.append({**row, "why": why})
                continue
            mask, image = summary["mask"], summary["image"]
            rows.append(
                {
                    **row,
                    "cases": summary["cases"]["all"] - summary["cases"]["failed"],
                    "mask_dsc": round(100 * mask["dice"]["mean"], 2) if mask["dice"] else None,
                    "mask_iou": round(100 * mask["iou"]["mean"], 2) if mask["iou"] else None,
                    "psnr": round(image["psnr"]["mean"], 2) if image["psnr"] else None,
                    "ssim": round(image["ssim"]["mean"], 4) if image["ssim"] else None,
                }
            )
    return ReconstructionTable(tuple(rows))


def _published(numbers: Numbers) -> Found:
    return Found(dsc=numbers.dsc, iou=numbers.iou, hd95=numbers.hd95)


def notes_of_order(order: Order, tables: Sequence[PaperTable | ReconstructionTable]) -> list[str]:
    """What a reader of the tables has to know."""
    here = [c for t in tables if isinstance(t, PaperTable) for r in t.rows if r.source == HERE for c in r.cells]
    machines = sorted({cell.machine for cell in here if cell.machine})
    effort = (
        f"each training had {order.minutes:g} minutes of wall time (encoding included, and each cell of an ablation), "
        "the paper 1000 epochs on an A100"
        if order.minutes
        else "each training followed the recipe `paper` (1000 epochs unless a setting below says otherwise)"
    )
    lines = [
        "Rows marked *published* are the paper's numbers (Huo et al., Generative Medical Segmentation); they were not "
        "reproduced by being listed. Rows marked *run here* were trained and tested by this program.",
        f"Run here: {effort}; the same split, views, validation cases and metrics for every system"
        + (f"; on {' and '.join(machines)}, device {order.device}" if machines else "")
        + f"; GMS with the tokenizer {order.tokenizer}, which in the paper is the SD-VAE.",
        "DSC with its 95 % interval, IoU in percent. HD95 in pixels at 224x224, over the cases where both masks have "
        "pixels; in brackets, where it differs, with the diagonal for each miss and false alarm. The paper does not "
        "say how it counts a miss.",
        "A cell without numbers says why: no data, not asked for, not run, failed, not installed, or no such model "
        "in this program.",
    ]
    if order.every > 1:
        lines.append(f"Tested on every {order.every}th case alone: intervals are wide.")
    if order.settings:
        lines.append(f"Settings of every training: {', '.join(order.settings)}.")
    gms = [cell for cell in here if cell.dsc is not None]
    return lines if gms else [*lines, f"Nothing was run yet ({GMS} included)."]
