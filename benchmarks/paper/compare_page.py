"""docs/compare.md from the values of compare.json alone, so that a committed page can be made again and tested.

Data sets may come from several results, each under its own conditions: time, processor, tokenizer, settings. Rows of
one table always had the same. What was measured before under other conditions stands in a table of its own, never mixed
with what had equal time.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gms_rt.artifacts import read_json, write_bytes
from gms_rt.errors import UsageError
from paper.cells import NAMES
from paper.compare_reading import reading_of_rows, verdict_of_data
from paper.systems import STUDENT, title_of
from paper.writing import markdown

Values = dict[str, Any]  # of one comparison, as its compare.json has them

_NOT_RUN = "not run"
_HEADER = ("model", "trained for", "DSC (95 %)", "HD95", "parameters", "GFLOP", "FP32 ms", "INT8 ms", "INT8 gate",
           "FP32, INT8 MB")  # fmt: skip
_METHOD = (
    "Each training of a data set may use the same wall time on the same machine, reading and encoding included: the "
    "same split, views, validation cases and metrics for every model, none started from weights of this task. GMS uses "
    "a frozen tokenizer, which was trained before on other pictures; the others start from random weights. The student "
    "trains for as long again, on top of its teacher's time; what its teacher says of the pictures is computed before. "
    "Parameters are those that were trained, in brackets all of the graph. FP32 and INT8 are engines of this program, "
    "one image, batch 1, timed turn by turn; the gate says how near the INT8 masks are to the FP32 masks."
)


def write_page(results: Sequence[Values], page: Path, root: Path) -> None:
    """The page, from the values and from the results that the project keeps."""
    write_bytes(page, page_text(results, root).encode())


def page_text(results: Sequence[Values], root: Path) -> str:
    """The page in Markdown."""
    sources = _sources(results)
    data = {name: values["data"][name] for name, values in sources.items()}
    parts = [
        "# Why not a UNet?",
        "",
        "Made by `benchmarks/paper/run --compare`; do not edit. [Dice](glossary.md#dice) in percent (DSC), [HD95]"
        "(training.md#evaluation) in pixels at 224x224 over the cases where both masks have pixels, all on the test "
        "part that no training saw. Research software, not for clinical use.",
        "",
        "## At equal time",
        "",
        _METHOD,
        "",
    ]
    for name, found in data.items():
        parts += [f"### {NAMES[name]}", ""]
        if found["why"]:
            parts += [f"Not run: {found['why']}.", ""]
            continue
        parts += [_conditions(sources[name]), ""]
        parts += [markdown(_HEADER, [_row(system, row) for system, row in found["rows"].items()]), ""]
        parts += [f"{reading_of_rows(found['rows'])}", "", *_elsewhere_lines(name, found.get("elsewhere") or {})]
    parts += ["## What GMS is for", "", verdict_of_data(data), ""]
    parts += ["## Measured before, under other conditions", "", *earlier_lines(root), ""]
    parts += ["## Run it", "", "```text", *_commands(sources), "```", ""]
    parts += [
        "With `--plan` each says how long it will take. The paper's own tables, with the published numbers of every "
        "system and trained on one data set and tested on another, come from `benchmarks/paper/run --table 1` to `5`.",
    ]
    return "\n".join(_wrapped(part) for part in parts).rstrip() + "\n"


def _sources(results: Sequence[Values]) -> dict[str, Values]:
    """The result that each data set's rows come from: the one that has it."""
    found: dict[str, Values] = {}
    for values in results:
        for name, told in values["data"].items():
            if name not in found or not _has_numbers(found[name]["data"][name]):
                found[name] = values
            elif _has_numbers(told):
                raise UsageError(f"two results have {NAMES[name]}", where="--page", fix="name one of them alone")
    return found


def _has_numbers(told: dict[str, Any]) -> bool:
    return any(row["dsc"] is not None for row in told["rows"].values())


def _conditions(values: Values) -> str:
    """What was equal for all rows of a data set."""
    text = f"{values['minutes']:g} minutes each on {values['machine']}, device {values['device']}; tokenizer of GMS: "
    text += f"{values['tokenizer']}."
    if values["settings"]:
        text += f" Settings of every recipe that knows them: {', '.join(values['settings'])}."
    if values["every"] > 1:
        text += f" Tested on every {values['every']}th case alone."
    return f"{text} {values.get('note', '')}".rstrip()


def _commands(sources: dict[str, Values]) -> list[str]:
    """The command of each result that has a part in the page."""
    lines = []
    for values in {id(values): values for values in sources.values()}.values():
        settings = "".join(f" --set {setting}" for setting in values["settings"])
        names = [name for name, source in sources.items() if source is values]
        rows = dict.fromkeys(key for name in names for key in values["data"][name]["rows"] if key != STUDENT)
        line = f"benchmarks/paper/run --compare --data data/ --datasets {' '.join(names)} --systems {' '.join(rows)} "
        line += f"--tokenizer onnx:weights/{values['tokenizer']}{settings} --minutes {values['minutes']:g}"
        lines.append(line)
    return lines


def _elsewhere_lines(name: str, told: dict[str, Any]) -> list[str]:
    if not told:
        return []
    title = f"Trained on {NAMES[name]}, tested on every case of {NAMES[told['data']]}, from another centre"
    if told["why"]:
        return [f"{title}: not run, {told['why']}.", ""]
    body = [
        [title_of(key), row["why"] or _NOT_RUN, ""]
        if row["dsc"] is None
        else [title_of(key), _score(row["dsc"], row["low"], row["high"]), _hd95(row)]
        for key, row in told["rows"].items()
    ]
    return [f"{title}:", "", markdown(("model", "DSC (95 %)", "HD95"), body), ""]


def _score(dsc: float, low: float, high: float) -> str:
    return f"{dsc:.1f} ({low:.1f}-{high:.1f})"


def _hd95(row: dict[str, Any]) -> str:
    text = "-" if row["hd95"] is None else f"{row['hd95']:.1f}"
    if row["hd95_all"] is not None and row["hd95_all"] != row["hd95"]:
        text += f" (misses counted: {row['hd95_all']:.1f})"
    return text


def _wrapped(part: str) -> str:
    """Prose in lines of the project's length; tables, headings and code as they are."""
    if part.startswith(("|", "#", "`", "benchmarks/")):
        return part
    return "\n".join(textwrap.wrap(part, 120, break_long_words=False, break_on_hyphens=False))


def _row(system: str, row: dict[str, Any]) -> list[str]:
    title = title_of(system)
    if row["dsc"] is None:
        return [title, row["why"] or _NOT_RUN, *[""] * (len(_HEADER) - 2)]
    engines = row.get("engines", {})

    def of(precision: str, key: str, digits: int) -> str:
        value = engines.get(precision, {}).get(key)
        return _NOT_RUN if value is None else f"{value:.{digits}f}"

    trained, whole = row.get("trained_parameters"), engines.get("parameters")
    parameters = (f"{trained / 1e6:.3g} M" if trained else "") + (f" ({whole / 1e6:.3g} M)" if whole else "")
    flop = engines.get("flop")
    return [
        title,
        f"{row['minutes']:.0f} min",
        _score(row["dsc"], row["low"], row["high"]),
        _hd95(row),
        parameters,
        f"{flop / 1e9:.3g}" if flop else _NOT_RUN,
        of("fp32", "median_ms", 1),
        of("int8", "median_ms", 1),
        engines.get("gate", _NOT_RUN),
        f"{of('fp32', 'megabytes', 1)}, {of('int8', 'megabytes', 1)}",
    ]


def earlier_lines(root: Path) -> list[str]:
    """Committed results of GMS alone, each with what makes it another condition than the tables above."""
    results = root / "benchmarks" / "results"
    rows = []
    for name, file, how in (
        ("busi", "real-busi.json", "vaelight, 160x160, one core of an AMD EPYC"),
        ("busi", "real-busi-taef2.json", "taef2, 160x160, two cores of an AMD EPYC"),
        ("glas", "real-glas.json", "vaelight, 224x224, one core of an AMD EPYC"),
    ):
        told = read_json(results / file)
        rows.append(_earlier(name, "GMS", how, f"{told['training']['seconds'] / 60:.0f} min", told))
    told = read_json(results / "real-official.json")
    rows.append(_earlier("ham10000", "GMS, the authors' weights", "vaelight for the SD-VAE", "by its authors", told))
    students = read_json(results / "gpu-nvidia-h200" / "ham10000-students.json")["students"]
    for key in ("half-taught", "one-taught"):
        told = students[key]
        title = f"GMS, edge student of {told['gflop']:.2f} GFLOP"
        rows.append(_earlier("ham10000", title, "an H200, shared", f"{told['seconds'] / 60:.0f} min", told))
    header = ("data", "model", "how", "trained for", "DSC (95 %)", "HD95")
    return [
        "These had other machines, sizes and times, some of them a GPU, and no other model beside them: they do not "
        "belong into the tables above and say nothing about which model is better. [Results](results.md#accuracy) has "
        "their commands.",
        "",
        markdown(header, rows),
    ]


def _earlier(name: str, model: str, how: str, time: str, told: dict[str, Any]) -> list[str]:
    dice, hd95 = told["at_224"]["dice"], told["at_224"]["hd95"]
    score = _score(*(100 * value for value in (dice["mean"], *dice["interval95"])))
    return [NAMES[name], model, how, time, score, f"{hd95['mean']:.1f}" if hd95 else "-"]
