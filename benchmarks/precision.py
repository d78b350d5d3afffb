"""INT8 of this project against other quantisers: the same graph, the same pictures, judged on pictures no build saw.

    python benchmarks/precision.py GRAPH.onnx --calib LIST --unseen LIST [--out NAME]
    python benchmarks/precision.py --demo
    python benchmarks/precision.py GRAPH.onnx --latency-only

Every method gets the same pictures: a sixth to take ranges from, and those that look at what they cost (this project's
search and gate, NNCF's accuracy control) the rest to look at. Each build runs in a process of its own with a limit of
CPU time, because other work on the machine would count against a limit of the clock. Then all results are opened at
once, asked for the masks of unseen pictures and timed in turn; a ratio is to the FP32 graph in OpenVINO, by medians of
one interleaved run. Dice is to the masks of the FP32 graph.

    pip install nncf nvidia-modelopt onnx_graphsurgeon polygraphy onnxruntime    (what is missing: a line in the table)

Writes NAME.json and NAME.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gms_rt.demo.bundled import demo_graph
from gms_rt.demo.seeds import CALIBRATION_SEEDS, GATE_SEEDS, SEARCH_SEEDS, UNSEEN_SEEDS
from gms_rt.engine.images import phantoms
from gms_rt.graph.graph import INPUT
from gms_rt.graph.read import graph_size, read_graph
from gms_rt.graph.run import Session
from gms_rt.graph.write import write_graph
from gms_rt.precision.gate import Gate, judge
from gms_rt.precision.images import ImageSet, read_images
from gms_rt.runtime.device import package_version, probe

Images = np.ndarray
PICTURES = 396  # as many as `gms-rt build` takes of a folder


@dataclass(frozen=True)
class Task:
    """What a method is given."""

    graph: Path  # with a batch of one
    calibration: Images
    validation: Images  # for methods that look at what they cost
    out: Path  # folder of the result
    seconds: float  # of CPU time that it may take


def ours(task: Task) -> None:
    """This project: `gms-rt build --precision int8 --calib`."""
    from gms_rt.engine.build import build_engine
    from gms_rt.engine.request import BuildRequest

    calibration = ImageSet(task.calibration, "calibration")
    request = BuildRequest(task.graph, task.out / "engine", "int8", ("cpu",), force=True)
    if len(task.validation) < 90:  # random weights: no mask to keep, one calibration and no search
        judges, gate = ImageSet(task.validation, "gate"), Gate(0.0, 0.0)
        request = replace(request, calibration=calibration, gate_images=judges, gate=gate, calibrator="minmax")
    else:  # dealt out so that `sixths` takes ranges from the calibration pictures
        parts = np.array_split(task.validation, 5)
        count = min(len(task.calibration), *map(len, parts))
        rows = [image for i in range(count) for image in (task.calibration[i], *(part[i] for part in parts))]
        request = replace(request, calibration=ImageSet(np.stack(rows), "calibration, search, gate"))
    build_engine(request)


def nncf_quantize(task: Task) -> None:
    """NNCF's `quantize` with its defaults."""
    _nncf(task)


def nncf_mixed(task: Task) -> None:
    """NNCF's `quantize` with its mixed preset: asymmetric activations."""
    import nncf

    _nncf(task, preset=nncf.QuantizationPreset.MIXED)


def nncf_accuracy_control(task: Task) -> None:
    """NNCF's `quantize_with_accuracy_control`: layers go back until the mean Dice drops by no more than 0.007."""
    import nncf
    import openvino

    checked = task.validation[:: -(-len(task.validation) // 100)]  # it asks for them again and again
    reference = Session(read_graph(task.graph)).probabilities(checked)

    def mean_dice(model: Any, items: Iterable[Any]) -> tuple[float, list[float]]:
        rows = list(items)
        masks = np.stack([np.asarray(model({INPUT: rows[i][None]})[0])[0, :, :, 0] for i in range(len(rows))])
        numbers = [next(i for i, v in enumerate(checked) if np.array_equal(v, row)) for row in rows]
        dice = judge(masks, reference[numbers], Gate()).dice
        return float(dice.mean()), [float(value) for value in dice]

    made = nncf.quantize_with_accuracy_control(
        openvino.Core().read_model(task.graph),
        nncf.Dataset(list(task.calibration), lambda image: {INPUT: image[None]}),
        nncf.Dataset(list(checked)),
        mean_dice,
        max_drop=0.007,
        subset_size=len(task.calibration),
    )
    openvino.save_model(made, task.out / "model.xml", compress_to_fp16=False)


def _nncf(task: Task, **options: Any) -> None:
    import nncf
    import openvino

    data = nncf.Dataset(list(task.calibration), lambda image: {INPUT: image[None]})
    made = nncf.quantize(openvino.Core().read_model(task.graph), data, subset_size=len(task.calibration), **options)
    openvino.save_model(made, task.out / "model.xml", compress_to_fp16=False)


def ort_default(task: Task) -> None:
    """ONNX Runtime's `quantize_static`, Q/DQ, weights per channel, every kind of node that it quantises."""
    _ort(task)


def ort_convolutions(task: Task) -> None:
    """ONNX Runtime's `quantize_static`, Q/DQ, weights per channel, convolutions only."""
    _ort(task, op_types_to_quantize=["Conv", "ConvTranspose"])


def _ort(task: Task, **options: Any) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter(task.calibration)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.rest, None)
            return None if image is None else {INPUT: image[None]}

    prepared = task.out / "prepared.onnx"
    quant_pre_process(str(task.graph), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared), str(task.out / "model.onnx"), Reader(), per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, **options,
    )  # fmt: skip


def modelopt(task: Task) -> None:
    """NVIDIA ModelOpt's ONNX quantiser (max), its calibration on the CPU, the rest FP32."""
    from modelopt.onnx.quantization import quantize

    quantize(
        str(task.graph), quantize_mode="int8", calibration_data={INPUT: task.calibration}, calibration_method="max",
        calibration_eps=["cpu"], calibration_shapes=f"{INPUT}:{'x'.join(map(str, task.calibration[:1].shape))}",
        high_precision_dtype="fp32", output_path=str(task.out / "model.onnx"),
    )  # fmt: skip


METHODS: dict[str, Callable[[Task], None]] = {
    "gms-rt": ours,
    "nncf quantize": nncf_quantize,
    "nncf quantize, mixed": nncf_mixed,
    "nncf with accuracy control": nncf_accuracy_control,
    "onnxruntime": ort_default,
    "onnxruntime, convolutions only": ort_convolutions,
    "modelopt": modelopt,
}


class OnnxRuntime:
    """A graph in ONNX Runtime, asked as `Session` is."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def probabilities(self, images: Images) -> Images:
        """The graph's answer to N images."""
        return np.stack([self._session.run(None, {INPUT: image[None]})[0][0, :, :, 0] for image in images])


class OpenVino:
    """A model file in OpenVINO, with no option but the arithmetic."""

    def __init__(self, path: Path, execution: str = "f32") -> None:
        import openvino

        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": execution, "ENABLE_CPU_PINNING": False}
        self._request = openvino.Core().compile_model(path, "CPU", config).create_infer_request()

    def probabilities(self, images: Images) -> Images:
        """The graph's answer to N images."""
        found = np.empty(images.shape[:3], np.uint8)
        for number, image in enumerate(images):
            self._request.infer({INPUT: image[None]})
            found[number] = self._request.get_output_tensor(0).data[0, :, :, 0]
        return found


def opened(name: str, out: Path) -> dict[str, Any]:
    """A method's result, ready to run: by row of the table."""
    folder = out / "engine"
    if folder.is_dir():
        ways = dict.fromkeys(["f32", json.loads((folder / "engine.json").read_text())["execution"]])
        return {f"{name}, i8+{way}": OpenVino(folder / "model.onnx", way) for way in ways}
    if (out / "model.xml").is_file():
        return {f"{name}, in OpenVINO": OpenVino(out / "model.xml")}
    found: dict[str, Any] = {}
    for runtime, kind in (("ONNX Runtime", OnnxRuntime), ("OpenVINO", OpenVino)):
        try:
            found[f"{name}, in {runtime}"] = kind(out / "model.onnx")
        except Exception as error:  # what a runtime refuses is a result too
            print(f"{name} in {runtime}: {_reason(error)}", flush=True)
    return found


def built(name: str, task: Task, arguments: list[str]) -> dict[str, Any]:
    """Run a method in a process of its own; what it took, or why there is no result."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, __file__, *arguments, "--method", name]
    log = task.out / "log.txt"
    task.out.mkdir(parents=True, exist_ok=True)
    limits = (int(task.seconds), int(task.seconds) + 5)
    with log.open("w") as file:
        code = subprocess.run(
            command,
            stdout=file,
            stderr=file,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, limits),
        ).returncode
    why = "" if code == 0 else (log.read_text().strip().splitlines() or [f"exit {code}"])[-1][:200]
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        why = f"not done after {task.seconds:.0f} s of CPU time"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    return {"seconds": round(time.perf_counter() - start, 1), "cpu_seconds": round(spent, 1), "failed": why}


def judged(sessions: dict[str, Any], unseen: Images, graph: Path, accuracy: bool, rounds: int) -> list[dict[str, Any]]:
    """Dice of each session to the FP32 masks, and its latency as a share of FP32's."""
    fp32 = OpenVino(graph)
    sessions = {"fp32, in OpenVINO": fp32, **sessions}
    rows: list[dict[str, Any]] = [{"name": name} for name in sessions]
    if accuracy:
        reference = fp32.probabilities(unseen)
        for row, session in zip(rows, sessions.values(), strict=True):
            dice = judge(session.probabilities(unseen), reference, Gate()).dice
            row |= {
                "mean": round(float(dice.mean()), 4),
                "lowest": round(float(dice.min()), 4),
                "percentile_5": round(float(np.quantile(dice, 0.05)), 4),
            }
    samples: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(rounds + 1):
        for name, session in sessions.items():
            image = unseen[number % len(unseen)][None]
            session.probabilities(image)
            for _ in range(5 if number else 1):
                start = time.perf_counter()
                session.probabilities(image)
                if number:
                    samples[name].append(time.perf_counter() - start)
    for row in rows:
        row["ratio"] = round(float(np.median(samples[row["name"]]) / np.median(samples["fp32, in OpenVINO"])), 3)
    return rows


def pictures(options: argparse.Namespace, graph: Path) -> tuple[Images, Images, Images]:
    """Calibration, validation and unseen pictures, disjoint."""
    size = graph_size(graph)
    if options.demo:
        drawn = phantoms(GATE_SEEDS, *size).images, phantoms(SEARCH_SEEDS, *size).images
        unseen = phantoms(UNSEEN_SEEDS, *size).images
        return phantoms(CALIBRATION_SEEDS, *size).images, np.concatenate(drawn), unseen
    if options.latency_only:
        few = phantoms(CALIBRATION_SEEDS[:12], *size).images
        return few[:4], few[4:8], few[8:]
    every = read_images(options.calib, *size, limit=PICTURES).images
    first = np.arange(len(every)) % 6 == 0
    return every[first], every[~first], read_images(options.unseen, *size, limit=options.unseen_images).images


def markdown(result: dict[str, Any]) -> str:
    """The result as a page."""
    lines = [
        f"# INT8 by several quantisers: {result['name']}",
        "",
        f"{result['device']}, {result['cores']} cores; {result['pictures']}.",
        "Dice is to the FP32 graph's masks. Latency is a share of the FP32 graph's in OpenVINO, medians of one",
        "interleaved run on a machine that others used too; build time is CPU time of the whole process.",
        "",
        "| quantiser | Dice mean | lowest | 5th percentile | latency / FP32 | build, CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        dice = [f"{row[key]:.4f}" if key in row else "" for key in ("mean", "lowest", "percentile_5")]
        spent = f"{row['cpu_seconds']:.0f}" if "cpu_seconds" in row else ""
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else row["failed"].replace("|", "/")
        lines.append(f"| {row['name']} | {' | '.join(dice)} | {ratio} | {spent} |")
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return "\n".join([*lines, "", f"{versions}; {result['command']}", ""])


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("graph", type=Path, nargs="?", help="a fused graph")
    parser.add_argument("--demo", action="store_true", help="the bundled model and phantoms")
    parser.add_argument("--calib", type=Path, help="folder or list of pictures to calibrate, search and validate on")
    parser.add_argument("--unseen", type=Path, help="folder or list of pictures that no build sees")
    parser.add_argument("--unseen-images", type=int, default=100, help="at most so many of them, evenly chosen")
    parser.add_argument("--latency-only", action="store_true", help="random weights: no Dice, phantoms to calibrate on")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--limit", type=float, default=900.0, help="CPU seconds that a build may take (default: 900)")
    parser.add_argument("--rounds", type=int, default=12, help="interleaved rounds of timing (default: 12)")
    parser.add_argument("--work", type=Path, default=Path("build/precision-bench"), help="where results are kept")
    parser.add_argument("--keep", action="store_true", help="take what an earlier run built in --work")
    parser.add_argument("--out", type=Path, help="NAME.json and NAME.md (default: benchmarks/results/precision-MODEL)")
    parser.add_argument("--method", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Build with every method, judge and time the results."""
    options = parsed(arguments)
    source = demo_graph() if options.demo else options.graph
    if source is None or not (options.demo or options.latency_only or (options.calib and options.unseen)):
        print("give a graph with --calib and --unseen, a graph with --latency-only, or --demo", file=sys.stderr)
        return 2
    name = "demo" if options.demo else source.stem
    work = options.work / name
    work.mkdir(parents=True, exist_ok=True)
    graph = work / "fp32.onnx"
    if options.method is None or not graph.is_file():
        write_graph(read_graph(source, batch=1), graph)
    calibration, validation, unseen = pictures(options, graph)

    def task(method: str) -> Task:
        return Task(graph, calibration, validation, work / method.replace(" ", "-").replace(",", ""), options.limit)

    if options.method is not None:
        METHODS[options.method](task(options.method))
        return 0
    facts: dict[str, dict[str, Any]] = {}
    for method in options.methods:
        place = task(method).out / "built.json"
        if not (options.keep and place.is_file()):
            print(f"{method} …", flush=True)
            facts[method] = built(method, task(method), arguments)
            place.write_text(json.dumps(facts[method]))
        facts[method] = json.loads(place.read_text())
        print(f"{method}: {facts[method]}", flush=True)
    sessions: dict[str, Any] = {}
    of: dict[str, str] = {}
    for method in options.methods:
        if not facts[method]["failed"]:
            found = opened(method, task(method).out)
            sessions |= found
            of |= dict.fromkeys(found, method)
    rows = judged(sessions, unseen, graph, not options.latency_only, options.rounds)
    rows = [row | facts.get(of.get(row["name"], ""), {}) for row in rows]
    rows += [{"name": method, **facts[method]} for method in options.methods if facts[method]["failed"]]
    machine = probe()
    result = {
        "name": name,
        "device": machine.name,
        "cores": machine.cpu.cores,
        "pictures": f"{len(calibration) + len(validation)} pictures for every build, {len(unseen)} unseen for judging",
        "versions": {p: v for p in ("openvino", "nncf", "onnxruntime", "nvidia-modelopt") if (v := package_version(p))},
        "command": "benchmarks/precision.py",
        "rows": rows,
    }
    out = options.out or Path("benchmarks/results") / f"precision-{name}"
    out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    out.with_suffix(".md").write_text(markdown(result))
    print(markdown(result))
    return 0


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    sys.exit(main(sys.argv[1:]))
