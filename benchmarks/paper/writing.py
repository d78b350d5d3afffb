"""Tables as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gms_rt import __version__
from gms_rt.artifacts import write_bytes, write_json
from paper.cells import Found
from paper.tables import PaperTable, ReconstructionTable

_KEYS = {"DSC": "dsc", "IoU": "iou", "HD95": "hd95"}


def write_tables(tables: Sequence[PaperTable | ReconstructionTable], notes: Sequence[str], out: Path) -> list[Path]:
    """`tables.md` and `tables.json` with all, and a CSV of each."""
    parts = ["# The paper's tables", "", *(line for note in notes for line in (f"- {note}",)), ""]
    for table in tables:
        parts += [f"## {table.title}", "", markdown_of_table(table), ""]
    page, values = out / "tables.md", out / "tables.json"
    write_bytes(page, ("\n".join(parts).rstrip() + "\n").encode())
    write_json(values, {"gms_rt": __version__, "notes": list(notes), "tables": {t.key: asdict(t) for t in tables}})
    written = [page, values]
    for table in tables:
        path = out / f"table-{table.key}.csv"
        write_bytes(path, csv_of_table(table).encode())
        written.append(path)
    return written


def markdown_of_table(table: PaperTable | ReconstructionTable) -> str:
    """A table in Markdown."""
    if isinstance(table, ReconstructionTable):
        header = ["data", "tokenizer", "cases", "mask DSC", "mask IoU", "PSNR dB", "SSIM"]
        keys = ("cases", "mask_dsc", "mask_iou", "psnr", "ssim")
        body = [
            [row["data"], row["tokenizer"], *([row["why"], "", "", "", ""] if "why" in row else _plain(row, keys))]
            for row in table.rows
        ]
        return markdown(header, body)
    header = [*table.labels, "source", *(f"{group} {name}" for group in table.groups for name in table.measures)]
    body = [
        [*row.labels, row.source, *(text for cell in row.cells for text in _cell(cell, table.measures))]
        for row in table.rows
    ]
    return markdown(header, body)


def markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Rows of text as a Markdown table; a bar in a cell is escaped."""
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)


def csv_of_table(table: PaperTable | ReconstructionTable) -> str:
    """A table as CSV, one number a column."""
    text = io.StringIO()
    if isinstance(table, ReconstructionTable):
        keys = ("data", "tokenizer", "source", "cases", "mask_dsc", "mask_iou", "psnr", "ssim", "why")
        rows = csv.DictWriter(text, keys, lineterminator="\n")
        rows.writeheader()
        rows.writerows(table.rows)
        return text.getvalue()
    fields = [f for f in Found.__dataclass_fields__ if f != "machine"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*table.labels, "source", *(f"{group} {field}" for group in table.groups for field in fields)])
    for row in table.rows:
        cells = [asdict(cell) for cell in row.cells]
        values = ["" if cell[field] is None else cell[field] for cell in cells for field in fields]
        writer.writerow([*row.labels, row.source, *values])
    return text.getvalue()


def _cell(cell: Found, measures: Sequence[str]) -> list[str]:
    """A group's columns as text; the reason stands in the first where there are no numbers."""
    if cell.dsc is None and cell.why:
        return [cell.why, *[""] * (len(measures) - 1)]
    texts = []
    for name in measures:
        value = getattr(cell, _KEYS[name])
        text = "" if value is None else f"{value:.2f}"
        if name == "DSC" and cell.low is not None:
            text += f" ({cell.low:.1f}-{cell.high:.1f})"
        if name == "HD95" and cell.hd95_all is not None and cell.hd95_all != value:
            text += f" ({cell.hd95_all:.2f})"
        texts.append(text)
    return texts


def _plain(row: dict[str, Any], keys: Sequence[str]) -> list[str]:
    return ["" if row[key] is None else f"{row[key]:g}" for key in keys]
