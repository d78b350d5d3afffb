"""INT8 of this project against other quantisers, in one command: `python benchmarks/precision.py`.

    python benchmarks/precision.py                                      every model with every system
    python benchmarks/precision.py --models demo --systems gms-rt "nncf quantize"
    python benchmarks/precision.py --retime                             only the latencies again, on an idle machine
    python benchmarks/precision.py --graph GRAPH.onnx --calib LIST --unseen LIST

Models: the bundled one, the official HAM10000 model (with GMS_RT_DATA), and the architecture with the SD-VAE, whose
weights are random: latency only. Every system gets the same graph and the same pictures (`quantisers.py`). Dice is to
the masks of the FP32 graph, on pictures that no build saw. A ratio is to the FP32 graph in OpenVINO, by medians of one
interleaved run of all systems in one process.

Each system on each model is a cell with a file of its own in --work: what is there is not done again, so a run that was
stopped goes on. A build runs in a process of its own and may take --limit minutes of processor time, which other work
on the machine does not count against, and ten times as long by the clock; "not finished in N minutes" is a result.
What the other systems need (`precision-peers.txt`) is installed into an environment in --work.

Writes README.md, and for each model a JSON file, to --out.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from models import data_folder, ham10000_graph, sdvae_graph, split_cases
from quantisers import SYSTEMS, Images, OpenVino, Task, opened, reason, without_folders

from gms_rt import __version__
from gms_rt.artifacts import sha256_file, write_json
from gms_rt.bench.device_state import load_between, snapshot
from gms_rt.demo.bundled import demo_graph
from gms_rt.demo.seeds import CALIBRATION_SEEDS, GATE_SEEDS, SEARCH_SEEDS, UNSEEN_SEEDS
from gms_rt.engine.images import phantoms
from gms_rt.graph.read import graph_size, read_graph
from gms_rt.graph.write import write_graph
from gms_rt.precision.gate import Gate, judge
from gms_rt.precision.images import read_images
from gms_rt.runtime.device import probe

HERE = Path(__file__).resolve().parent
PICTURES, UNSEEN = 396, 100  # as many as `gms-rt build` takes of a folder; and for judging
HANGS = 10  # times the limit, by the clock: a process that waits for something takes no processor time
BUSY = 10.0  # percent of the processor that other programs may take before a latency is marked
FP32 = "fp32, in OpenVINO"
ABOUT = {
    "demo": "the bundled model, on phantoms",
    "ham10000": "the official HAM10000 model with the vaelight tokenizer, on HAM10000 (test split for judging)",
    "sdvae": "the architecture with the SD-VAE at 224×224, random weights: latency only",
}
PACKAGES = ("openvino", "nncf", "onnxruntime", "nvidia-modelopt", "onnx")


@dataclass(frozen=True)
class Place:
    """Where the parts of one model lie below --work."""

    folder: Path

    @property
    def graph(self) -> Path:
        """The FP32 graph with a batch of one."""
        return self.folder / "fp32.onnx"

    @property
    def pictures(self) -> Path:
        """Calibration, validation and unseen pictures."""
        return self.folder / "pictures.npz"

    @property
    def latency(self) -> Path:
        """The interleaved timing of everything that can be opened."""
        return self.folder / "latency.json"

    def system(self, name: str) -> Path:
        """What one system makes."""
        return self.folder / name.replace(" ", "-").replace(",", "")

    def cell(self, name: str) -> Path:
        """The result of one system."""
        return self.folder / f"{self.system(name).name}.json"


def prepare(model: str, place: Place, options: argparse.Namespace) -> None:
    """Graph and pictures of a model, disjoint sets, made once."""
    place.folder.mkdir(parents=True, exist_ok=True)
    if place.graph.is_file() and place.pictures.is_file():
        return

    def say(text: str) -> None:
        print(f"{model}: {text}", flush=True)

    make = {"ham10000": ham10000_graph, "sdvae": sdvae_graph}
    source = make[model](place.folder, say)[0] if model in make else options.graph if options.graph else demo_graph()
    write_graph(read_graph(source, batch=1), place.graph)
    calibration, validation, unseen = pictures(model, place, options)
    with place.pictures.open("wb") as file:
        np.savez(file, calibration=calibration, validation=validation, unseen=unseen)


def pictures(model: str, place: Place, options: argparse.Namespace) -> tuple[Images, Images, Images]:
    """Calibration, validation and unseen pictures."""
    size = graph_size(place.graph)
    if model == "demo":
        looked_at = [phantoms(seeds, *size).images for seeds in (GATE_SEEDS, SEARCH_SEEDS)]
        unseen = phantoms(UNSEEN_SEEDS, *size).images
        return phantoms(CALIBRATION_SEEDS, *size).images, np.concatenate(looked_at), unseen
    if model == "sdvae":
        few = phantoms(CALIBRATION_SEEDS[:8], *size).images
        return few[:2], few[2:4], few[4:]
    if model == "ham10000":
        data = data_folder(model)
        every, unseen = (split_cases(data, model, part, count)[0] for part, count in
                         (("train", PICTURES), ("test", UNSEEN)))  # fmt: skip
    else:
        every = read_images(options.calib, *size, limit=PICTURES).images
        unseen = read_images(options.unseen, *size, limit=UNSEEN).images
    first = np.arange(len(every)) % 6 == 0
    return every[first], every[~first], unseen


def environment(options: argparse.Namespace) -> str:
    """The Python that has the other systems, made at the first call; this one with --no-setup."""
    if options.no_setup:
        return sys.executable
    folder = options.work / "peers"
    wanted = (HERE / "precision-peers.txt").read_text()
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f"installing the other quantisers into {folder}", flush=True)
        venv.create(folder, with_pip=True)
        site = next((folder / "lib").glob("python*/site-packages"))
        here = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        (site / "this.pth").write_text("\n".join(here) + "\n")
        words = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run([*words, "-r", HERE / "precision-peers.txt"], check=False, timeout=900)
        if done.returncode:
            print("not everything could be installed: what is missing is a line in the table", flush=True)
        else:
            stamp.write_text(wanted)
    return str(python)


def run_cell(model: str, system: str, python: str, options: argparse.Namespace) -> None:
    """Build with one system and judge what it made; nothing where that has been done with these pictures."""
    place = Place(options.work / model)
    inputs = {"graph": sha256_file(place.graph), "pictures": sha256_file(place.pictures)}
    earlier = json.loads(place.cell(system).read_text()) if place.cell(system).is_file() else {}
    late = earlier.get("late") and earlier.get("limit", 0) < options.limit  # it may take longer now
    if earlier.get("inputs") == inputs and not late and system not in options.again:
        return
    print(f"{model}: {system} …", flush=True)
    place.system(system).mkdir(parents=True, exist_ok=True)
    cell: dict[str, Any] = {"model": model, "system": system, "inputs": inputs, "limit": options.limit, "rows": {}}
    cell |= child([python, __file__, "--work", str(options.work), "--build", model, system], place.system(system),
                  options.limit)  # fmt: skip
    if not cell["failed"]:
        done = child([python, __file__, "--work", str(options.work), "--judge", model, system], place.system(system),
                     options.limit)  # fmt: skip
        found = place.system(system) / "rows.json"
        cell["rows"] = json.loads(found.read_text()) if not done["failed"] else {}
        cell["failed"] = f"cannot be judged: {done['failed']}" if done["failed"] else ""
    write_json(place.cell(system), cell)
    print(
        f"{model}: {system}: {cell['failed'] or cell['rows']} ({cell['cpu_seconds']} s of processor time)", flush=True
    )


def child(command: list[str], folder: Path, minutes: float) -> dict[str, Any]:
    """Run a process within a limit; what it took, or why there is no result."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    state, seconds = snapshot(), math.ceil(minutes * 60)
    log, why, late = folder / "log.txt", "", False
    with log.open("w") as file:
        try:
            code = subprocess.run(
                command, stdout=file, stderr=file, check=False, timeout=HANGS * seconds,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5)),
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            code, late, why = 1, True, f"not finished in {HANGS * minutes:g} minutes by the clock"
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        late, why = True, f"not finished in {minutes:g} minutes of processor time"
    elif code and not late:
        said = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        why = without_folders(said[-1])[:160] if said else f"ended with code {code}"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(spent, 1),
        "others_percent": load_between(state, snapshot()).others,
        "failed": why,
        "late": late,
    }


def build(model: str, system: str, options: argparse.Namespace) -> None:
    """In a process of its own: make what a system makes."""
    place = Place(options.work / model)
    with np.load(place.pictures) as sets:
        SYSTEMS[system](Task(place.graph, sets["calibration"], sets["validation"], place.system(system)))


def rate(model: str, system: str, options: argparse.Namespace) -> None:
    """In a process of its own: Dice of what a system made to the FP32 graph's masks, by row."""
    place = Place(options.work / model)
    with np.load(place.pictures) as sets:
        unseen = sets["unseen"]
    sessions, refused = opened(system, place.system(system))
    rows: dict[str, Any] = {name: {"failed": why} for name, why in refused.items()}
    rows |= {name: {} for name in sessions}
    if model != "sdvae":
        reference = OpenVino(place.graph).probabilities(unseen)
        for name, session in sessions.items():
            dice = judge(session.probabilities(unseen), reference, Gate()).dice
            rows[name] = {
                "mean": round(float(dice.mean()), 4),
                "percentile_5": round(float(np.quantile(dice, 0.05)), 4),
                "lowest": round(float(dice.min()), 4),
            }
    write_json(place.system(system) / "rows.json", rows)


def time_all(model: str, options: argparse.Namespace) -> None:
    """Latency of everything that was made for a model, in turn, in this process, next to the FP32 graph."""
    place = Place(options.work / model)
    with np.load(place.pictures) as sets:
        unseen = sets["unseen"]
    sessions: dict[str, Any] = {FP32: OpenVino(place.graph)}
    for system in SYSTEMS:
        cell = json.loads(place.cell(system).read_text()) if place.cell(system).is_file() else {"failed": "absent"}
        if not cell["failed"]:
            sessions |= opened(system, place.system(system))[0]
    before, end = snapshot(), time.monotonic() + options.seconds
    samples: dict[str, list[float]] = {name: [] for name in sessions}
    number = 0
    while number < 3 or (number <= options.rounds and time.monotonic() < end):
        for name, session in sessions.items():
            image = unseen[number % len(unseen)][None]
            for again in range(4):
                start = time.perf_counter()
                session.probabilities(image)
                if number and again:  # the first round and each first answer warm up
                    samples[name].append((time.perf_counter() - start) * 1e3)
        number += 1
    middle = {name: float(np.median(times)) for name, times in samples.items()}
    load = load_between(before, snapshot())
    write_json(place.latency, {
        "rows": {n: {"median_ms": round(ms, 2), "ratio": round(ms / middle[FP32], 3)} for n, ms in middle.items()},
        "rounds": number - 1,
        "others_percent": load.others,
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    })  # fmt: skip


def result(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Everything known about a model, one row for each result or for each system without one."""
    place = Place(options.work / model)
    timed = json.loads(place.latency.read_text()) if place.latency.is_file() else {"rows": {}}
    rows: list[dict[str, Any]] = [{"name": FP32, **timed["rows"].get(FP32, {})}]
    for system in SYSTEMS:
        if not place.cell(system).is_file():
            continue
        cell = json.loads(place.cell(system).read_text())
        spent = {"cpu_seconds": cell["cpu_seconds"]}
        if cell["failed"]:
            rows.append({"name": system, "failed": cell["failed"], **spent})
        rows += [{"name": n, **r, **timed["rows"].get(n, {}), **spent} for n, r in cell["rows"].items()]
    with np.load(place.pictures) as sets:
        counts = {name: len(sets[name]) for name in ("calibration", "validation", "unseen")}
    timing = {key: timed.get(key) for key in ("rounds", "others_percent", "when")}
    return {"model": model, "about": ABOUT.get(model, model), "pictures": counts, "timing": timing, "rows": rows}


def table(found: dict[str, Any]) -> list[str]:
    """One model's part of the page."""
    counts, timing = found["pictures"], found["timing"]
    lines = [f"## {found['model']}", "", f"{found['about'][0].upper()}{found['about'][1:]}."]
    if found["model"] != "sdvae":
        lines.append(f"{counts['calibration']} pictures for ranges, {counts['validation']} more for those that look at "
                     f"what they cost, {counts['unseen']} unseen for judging.")  # fmt: skip
    if timing["rounds"]:
        busy = timing["others_percent"]
        marked = busy is None or busy > BUSY
        note = f"**on a busy machine (other programs took {busy} % of it): not final**" if marked else "machine idle"
        lines.append(f"Latency: {timing['rounds']} interleaved rounds, {timing['when'][:10]}, {note}.")
    else:
        lines.append("Latency was not measured.")
    lines += ["", "| quantiser | Dice mean | 5th percentile | lowest | latency / FP32 | ms | build, CPU s |",
              "|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in found["rows"]:
        dice = [f"{row[key]:.4f}" if key in row else "" for key in ("mean", "percentile_5", "lowest")]
        spent = f"{row['cpu_seconds']:.0f}" if "cpu_seconds" in row else ""
        if "failed" in row:
            lines.append(f"| {row['name']} | {row['failed'].replace('|', '/')} | | | | | {spent} |")
        else:
            ratio = [f"{row['ratio']:.2f}", f"{row['median_ms']:.1f}"] if "ratio" in row else ["", ""]
            lines.append(f"| {row['name']} | {' | '.join(dice)} | {' | '.join(ratio)} | {spent} |")
    return [*lines, ""]


def page(results: list[dict[str, Any]], versions: dict[str, str]) -> str:
    """All results as Markdown."""
    machine = probe()
    lines = [
        "# INT8 by several quantisers",
        "",
        f"{machine.name}, {machine.cpu.cores} cores; "
        + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        "Made by `python benchmarks/precision.py`; each system works with its defaults unless its name says otherwise.",
        "Dice is to the FP32 graph's masks, on pictures that no build saw. Latency is a share of the FP32 graph's in",
        "OpenVINO, by medians of one interleaved run. Build time is the processor time of the build's own process.",
        "",
    ]  # fmt: skip
    return "\n".join([*lines, *(line for found in results for line in table(found))]).rstrip() + "\n"


def versions(python: str) -> dict[str, str]:
    """What took part, in the other systems' environment."""
    code = "import importlib.metadata as m, json, sys\nprint(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    found = {"gms-rt": __version__}
    for name in PACKAGES:
        done = subprocess.run([python, "-c", code, name], capture_output=True, text=True, check=False)
        found |= json.loads(done.stdout) if not done.returncode else {}
    return found


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(ABOUT), choices=list(ABOUT))
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--graph", type=Path, help="a fused graph of your own, in place of --models")
    parser.add_argument("--calib", type=Path, help="with --graph: pictures to calibrate, search and validate on")
    parser.add_argument("--unseen", type=Path, help="with --graph: pictures that no build sees")
    parser.add_argument("--limit", type=float, default=15.0, help="minutes of processor time for a build (default: 15)")
    parser.add_argument("--rounds", type=int, default=20, help="interleaved rounds of timing (default: 20)")
    parser.add_argument("--seconds", type=float, default=120.0, help="for the rounds of a model (default: 120)")
    parser.add_argument("--retime", action="store_true", help="measure the latencies again")
    parser.add_argument("--cells-only", action="store_true", help="build and judge, measure no latency")
    parser.add_argument("--page-only", action="store_true", help="only write what the cells say")
    parser.add_argument("--again", nargs="+", default=[], choices=list(SYSTEMS), help="systems to build with again")
    parser.add_argument("--no-setup", action="store_true", help="install nothing: use what this Python has")
    parser.add_argument("--work", type=Path, default=Path("build/precision-bench"), help="where the cells are kept")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/precision"), help="folder of the results")
    for part in ("--build", "--judge"):
        parser.add_argument(part, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--time", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Every cell that is missing, then the latencies, then the page."""
    options = parsed(arguments)
    options.work = options.work.resolve()
    for part, work in ((options.build, build), (options.judge, rate)):
        if part:
            try:
                work(*part, options)
            except Exception as error:  # the last line of the log is what the table says
                print(f"{type(error).__name__}: {reason(error)}", flush=True)
                return 1
            return 0
    if options.time:
        time_all(options.time, options)
        return 0
    if options.graph and not (options.calib and options.unseen):
        print("--graph needs --calib and --unseen", file=sys.stderr)
        return 2
    models = [options.graph.stem] if options.graph else options.models
    python = environment(options)
    if options.page_only:
        models = [model for model in models if Place(options.work / model).pictures.is_file()]
    for model in models if not options.page_only else ():
        prepare(model, Place(options.work / model), options)
        for system in options.systems:
            run_cell(model, system, python, options)
    for model in models if not (options.cells_only or options.page_only) else ():
        place = Place(options.work / model)
        cells = [place.cell(system).stat().st_mtime for system in SYSTEMS if place.cell(system).is_file()]
        if options.retime or not place.latency.is_file() or place.latency.stat().st_mtime < max(cells):
            print(f"{model}: timing …", flush=True)
            words = [python, __file__, "--work", str(options.work), "--time", model]
            subprocess.run([*words, "--rounds", str(options.rounds), "--seconds", str(options.seconds)], check=True)
    results = [result(model, options) for model in models]
    for found in results:
        write_json(options.out / f"{found['model']}.json", found)
    (options.out / "README.md").write_text(page(results, versions(python)))
    print((options.out / "README.md").read_text())
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    sys.exit(main(sys.argv[1:]))
