"""docs/compare.md from the values of compare.json alone, so that a committed page can be made again and tested.

What was measured before under other conditions stands in a table of its own, never mixed with what had equal time.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from gms_rt.artifacts import read_json, write_bytes
from gms_rt.evaluate.published_systems import BY_KEY
from paper.cells import NAMES
from paper.systems import GMS, STUDENT
from paper.writing import markdown

_NOT_RUN = "not run"
_HEADER = ("model", "trained for", "DSC (95 %)", "HD95", "parameters", "GFLOP", "FP32 ms", "INT8 ms", "INT8 gate",
           "FP32, INT8 MB")  # fmt: skip


def write_page(values: dict[str, Any], page: Path, root: Path) -> None:
    """The page, from the values and from the results that the project keeps."""
    write_bytes(page, page_text(values, root).encode())


def page_text(values: dict[str, Any], root: Path) -> str:
    """The page in Markdown."""
    minutes = f"{values['minutes']:g} minutes"
    parts = [
        "# Why not a UNet?",
        "",
        "Made by `benchmarks/paper/run --compare`; do not edit. [Dice](glossary.md#dice) in percent (DSC), [HD95]"
        "(training.md#evaluation) in pixels at 224x224 over the cases where both masks have pixels, all on the test "
        "part that no training saw. Research software, not for clinical use.",
        "",
        "## At equal time",
        "",
        f"Each training may use {minutes} of wall time on the same machine ({values['machine']}, device "
        f"{values['device']}), reading and encoding included: the same split, views, validation cases and metrics for "
        f"every model, none started from weights of this task. GMS uses the frozen tokenizer {values['tokenizer']}, "
        "which was trained before on other pictures; the others start from random weights. The student trains for as "
        "long again, on top of its teacher's time; what its teacher says of the pictures is computed before. "
        "Parameters are those that were trained, in brackets all of the graph. FP32 and INT8 are engines of this "
        "program, one image, batch 1, timed turn by turn; the gate says how near the INT8 masks are to the FP32 masks.",
        "",
    ]
    parts += (
        [f"Settings of every recipe that knows them: {', '.join(values['settings'])}.", ""]
        if values["settings"]
        else []
    )
    parts += [f"Tested on every {values['every']}th case alone.", ""] if values["every"] > 1 else []
    for name, found in values["data"].items():
        parts += [f"### {NAMES[name]}", ""]
        if found["why"]:
            parts += [f"Not run: {found['why']}.", ""]
            continue
        parts += [markdown(_HEADER, [_row(system, row) for system, row in found["rows"].items()]), ""]
        parts += [f"{reading_of_rows(found['rows'])}", "", *_elsewhere_lines(name, found.get("elsewhere") or {})]
    parts += ["## What GMS is for", "", verdict_of_data(values["data"]), ""]
    settings = "".join(f" --set {setting}" for setting in values["settings"])
    command = f"benchmarks/paper/run --compare --data data/ --tokenizer onnx:weights/{values['tokenizer']}{settings}"
    command += f" --minutes {values['minutes']:g}"
    parts += ["## Measured before, under other conditions", "", *earlier_lines(root), ""]
    parts += [
        "## Run it",
        "",
        "```text",
        f"{command} --plan",
        command,
        "```",
        "",
        "With `--plan` it says how long it will take. The paper's own tables, with the published numbers of every "
        "system and trained on one data set and tested on another, come from `benchmarks/paper/run --table 1` to `5`.",
    ]
    return "\n".join(_wrapped(part) for part in parts).rstrip() + "\n"


def _elsewhere_lines(name: str, told: dict[str, Any]) -> list[str]:
    if not told:
        return []
    title = f"Trained on {NAMES[name]}, tested on every case of {NAMES[told['data']]}, from another centre"
    if told["why"]:
        return [f"{title}: not run, {told['why']}.", ""]
    body = [
        [_name(key), row["why"] or _NOT_RUN, ""]
        if row["dsc"] is None
        else [_name(key), _score(row["dsc"], row["low"], row["high"]), _hd95(row)]
        for key, row in told["rows"].items()
    ]
    return [f"{title}:", "", markdown(("model", "DSC (95 %)", "HD95"), body), ""]


def _name(system: str) -> str:
    return "GMS, edge student" if system == STUDENT else BY_KEY[system].title


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
    title = _name(system)
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


def reading_of_rows(rows: dict[str, Any]) -> str:
    """What a data set's rows say, in sentences: who is best, whether that is more than noise, who is fastest."""
    there = {key: row for key, row in rows.items() if row["dsc"] is not None}
    if len(there) < 2 or GMS not in there:
        return "Too little was run here to compare."
    best = max(there, key=lambda key: there[key]["dsc"])
    gms = there[GMS]
    lines = []
    if best == GMS:
        second = max((key for key in there if key != GMS), key=lambda key: there[key]["dsc"])
        apart = there[second]["high"] < gms["low"]
        lines.append(f"GMS has the highest DSC, {_title(second)} comes next; {_apart(apart)}")
    else:
        apart = gms["high"] < there[best]["low"]
        gap = there[best]["dsc"] - gms["dsc"]
        name = "The edge student" if best == STUDENT else _title(best)
        lines.append(f"{name} has the highest DSC, {gap:.1f} above GMS; {_apart(apart)}")
    times = {key: _fastest(row) for key, row in there.items() if _fastest(row) is not None}
    if GMS in times and len(times) > 1:
        first = min(times, key=lambda key: times[key] or 0.0)
        factor = (times[GMS] or 0.0) / (times[first] or 1.0)
        lines.append(
            "GMS has the fastest engine." if first == GMS else f"The fastest engine is that of {_title(first)}, "
            f"{_times(factor)} as fast as GMS's fastest."
        )  # fmt: skip
    return " ".join(lines)


def verdict_of_data(data: dict[str, Any]) -> str:
    """What follows from the tables; nothing where nothing was run."""
    won, lost = [], []
    for name, found in data.items():
        there = {key: row for key, row in found["rows"].items() if row["dsc"] is not None and key != STUDENT}
        if GMS not in there or len(there) < 2:
            continue
        best = max(there, key=lambda key: there[key]["dsc"])
        (won if best == GMS else lost).append(NAMES[name])
    if not won and not lost:
        return (
            "Nothing follows yet: no data set has both GMS and another model trained at equal time. The rows above say "
            "what was not run."
        )
    lines = []
    if won:
        lines.append(f"At this effort GMS has the highest DSC on {_joined(won)}.")
    if lost:
        lines.append(f"On {_joined(lost)} another model has the higher DSC for the same time.")
    lines += _of_students(data)
    lines.append("An interval that overlaps another decides nothing; more time may change the order.")
    return " ".join(lines)


def _of_students(data: dict[str, Any]) -> list[str]:
    """What the edge students lose against their teachers, and how much faster they are."""
    lost, gained = [], []
    for name, found in data.items():
        teacher, student = (found["rows"].get(key, {}) for key in (GMS, STUDENT))
        if teacher.get("dsc") is None or student.get("dsc") is None:
            continue
        lost.append(f"{student['dsc'] - teacher['dsc']:+.1f} on {NAMES[name]}")
        times = _fastest(teacher), _fastest(student)
        if times[0] and times[1]:
            gained.append(f"{times[0] / times[1]:.0f} on {NAMES[name]}")
    if not lost:
        return []
    line = f"The edge student's DSC differs from its teacher's by {_joined(lost)}"
    if gained:
        line += f"; in the time of one image of its teacher's fastest engine, its own does {_joined(gained)}"
    return [f"{line}."]


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


def _fastest(row: dict[str, Any]) -> float | None:
    engines = row.get("engines", {})
    passed = ["fp32", *(["int8"] if str(engines.get("gate", "")).startswith("pass") else [])]
    times = [engines[p]["median_ms"] for p in passed if "median_ms" in engines.get(p, {})]
    return min(times) if times else None


def _times(factor: float) -> str:
    return f"{factor:.1f} times" if factor < 10 else f"{factor:.0f} times"


def _apart(apart: bool) -> str:
    return "their 95 % intervals do not overlap." if apart else "their 95 % intervals overlap, so that decides nothing."


def _title(key: str) -> str:
    return "the edge student" if key == STUDENT else BY_KEY[key].title


def _joined(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
