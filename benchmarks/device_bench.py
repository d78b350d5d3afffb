"""What the device scripts share: build engines, measure them with peers in one run, and tell what did not work.

`benchmarks/gpu/run` and `benchmarks/cpu/run` are the commands. Whatever fails on a device is a line in the diary, with
its reason, and ends in the report; the rest goes on.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from gms_rt.bench.run import BenchOptions, bench
from gms_rt.engine.build import build_engine
from gms_rt.engine.request import BuildRequest
from gms_rt.engine.select import load
from gms_rt.errors import GmsError
from gms_rt.peers import TORCH_KINDS
from gms_rt.precision.gate import Gate
from gms_rt.precision.images import ImageSet
from gms_rt.precision.recipe import PrecisionRecipe
from gms_rt.report.assemble import report_from_bench
from gms_rt.report.model import Report
from gms_rt.runtime.device import Machine, parse_device
from gms_rt.runtime.tensorrt_module import tensorrt_installed
from gms_rt.telemetry import quiet_module

T = TypeVar("T")


@dataclass
class Diary:
    """What worked and what did not, for the report."""

    say: Callable[[str], None]
    worked: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def attempt(self, what: str, call: Callable[[], T]) -> T | None:
        """Do one thing; a failure is a line in the diary and None, not the end."""
        self.say(what)
        try:
            value = call()
        except GmsError as error:
            self.failed.append(f"{what}: {error.line()}")
        except Exception as error:  # an unknown device may fail in unknown ways; the report tells
            self.failed.append(f"{what}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        else:
            self.worked.append(what)
            return value
        self.say(f"  {self.failed[-1]}")
        return None


@dataclass(frozen=True)
class Subject:
    """One model to bench: its fused graph, its run for the PyTorch peers, its pictures for INT8."""

    graph: Path
    run: Path | None
    calibration: ImageSet
    gate_images: ImageSet
    gate: Gate = field(default_factory=Gate)
    calibrator: str = "auto"
    recipe: PrecisionRecipe | None = None
    note: str = ""  # what the model is, for the report


@dataclass(frozen=True)
class Settings:
    """How a subject is benched on one device."""

    device: str
    precisions: tuple[str, ...]
    engines: Path
    peers: tuple[str, ...]
    seconds: float
    rounds: int
    title: str
    threads: int = 0
    sweep: bool = True


def device_of(machine: Machine, asked: str | None) -> str:
    """Where to run: what was asked, else the first GPU, else the processor."""
    wanted = asked or ("cuda:0" if machine.gpus else "cpu")
    return "cuda:0" if wanted == "cuda" else wanted


def gpu_number(device: str) -> int:
    """The number of a "cuda:N"."""
    return parse_device(device)[1] or 0


def targets_for(machine: Machine, device: str) -> list[str]:
    """The builders for a device: every TensorRT flavour that is installed on a GPU, the processor's otherwise."""
    if device == "cpu":
        return ["cpu"]
    if not machine.gpus:
        raise GmsError(f"this machine has no GPU ({machine.driver_note})", fix="run with --device cpu")
    if gpu_number(device) not in [gpu.index for gpu in machine.gpus]:
        raise GmsError(f"there is no {device}, GPUs here: {len(machine.gpus)}", fix="run with --device cuda:0")
    found = [t for t in ("tensorrt", "tensorrt-rtx") if tensorrt_installed(t)]
    if not found:
        raise GmsError(
            f"no TensorRT for {machine.gpus[0].name} is installed",
            fix="pip install 'gms-rt[tensorrt-rtx]' (SM75 to SM89, SM120), 'gms-rt[tensorrt]', or on a Jetson the "
            "JetPack's own in a venv with --system-site-packages",
        )
    return found


def peers_for(run: Path | None, device: str, wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of the wanted peers that can be opened here, and why others cannot."""
    chosen, absent = [], []
    torch_peers = [name for name in wanted if name in TORCH_KINDS]
    if torch_peers:
        reason = _no_torch(run, device)
        if reason:
            absent.append(f"PyTorch peers: {reason}")
        else:
            chosen += [name for name in torch_peers if name != "torch-compile"]
            if "torch-compile" in torch_peers:
                missing = _no_compiler(device)
                if missing:
                    absent.append(f"torch-compile: {missing}")
                else:
                    chosen.append("torch-compile")
    if "onnxruntime" in wanted:
        if importlib.util.find_spec("onnxruntime") is None:
            absent.append("ONNX Runtime: onnxruntime is not installed")
        else:
            onnxruntime = quiet_module("onnxruntime")
            if device != "cpu" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                absent.append("ONNX Runtime: the installed build has no CUDA (pip install onnxruntime-gpu)")
            else:
                chosen.append("onnxruntime")
    return chosen, absent


def _no_torch(run: Path | None, device: str) -> str:
    if run is None:
        return "name the trained run with --run"
    for name in ("torch", "diffusers", "safetensors"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed (pip install 'gms-rt[train]')"
    if device == "cpu":
        return ""
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        return (
            f"this PyTorch {torch.__version__} "
            + (f"is built for CUDA {built}, but cannot use the GPU" if built else "has no CUDA (a CPU build)")
            + "; install the build for this device"
        )
    return ""


def _no_compiler(device: str) -> str:
    # Inductor compiles C++ on a processor, and Triton on a GPU, which itself needs a C compiler.
    if device != "cpu" and importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if not any(map(shutil.which, ("c++", "g++", "clang++") if device == "cpu" else ("cc", "gcc", "clang"))):
        return "there is no C compiler (apt-get install build-essential)"
    return ""


def build_all(subject: Subject, settings: Settings, machine: Machine, diary: Diary) -> list[Path]:
    """One engine for each precision and builder; the folders of those that load here."""
    engines = []
    device = settings.device
    for precision in settings.precisions:
        choose = partial(targets_for, machine, device)
        for target in diary.attempt(f"choose builders for {precision}", choose) or []:
            folder = settings.engines / f"{subject.graph.stem}-{precision}-{target}"
            request = BuildRequest(
                subject.graph,
                folder,
                precision,
                targets=(target,),
                sms=() if target == "cpu" else (_sm(machine, device),),
                calibration=subject.calibration,
                gate_images=subject.gate_images,
                gate=subject.gate,
                calibrator=subject.calibrator,
                recipe=subject.recipe if precision == "int8" else None,
            )
            build = partial(build_engine, request, _phases(diary))
            if diary.attempt(f"build {folder.name}", build) and diary.attempt(
                f"open {folder.name} on {device}", partial(_opened, folder, device)
            ):
                engines.append(folder)
    return engines


def _phases(diary: Diary) -> Callable[..., None]:
    # A line a phase: a build on a small board takes minutes, and silence looks like a hang.
    said: list[str] = []

    def progress(phase: str, *_: Any) -> None:
        if phase not in said[-1:]:
            said.append(phase)
            diary.say(f"  {phase}")

    return progress


def _sm(machine: Machine, device: str) -> int:
    return next(gpu.sm for gpu in machine.gpus if gpu.index == gpu_number(device))


def _opened(folder: Path, device: str) -> bool:
    with load(folder, device=device):
        return True


def measure(subject: Subject, settings: Settings, engines: list[Path], diary: Diary) -> Report | None:
    """The report of all engines with as many peers as run; one that breaks down is left out and named in it."""
    peers, absent = peers_for(subject.run, settings.device, settings.peers)
    diary.failed += absent
    for line in absent:
        diary.say(f"  {line}")
    for chosen in dict.fromkeys([tuple(peers), ()]):
        order = BenchOptions(
            tuple(engines),
            against=chosen,
            run=subject.run,
            graph=subject.graph,
            device=settings.device,
            seconds=settings.seconds,
            rounds=settings.rounds,
            threads=settings.threads,
            sweep=settings.sweep,
        )
        run = diary.attempt(f"measure with {', '.join(chosen) or 'no peer'}", partial(bench, order, diary.say))
        if run is not None:
            return report_from_bench(run, title=settings.title)
    return None


def with_diary(report: Report, subject: Subject, diary: Diary) -> Report:
    """The report with what the model is, what worked and what did not."""
    notes = (
        *((subject.note,) if subject.note else ()),
        *report.notes,
        *(f"Worked: {line}" for line in diary.worked),
        *(f"Did not work: {line}" for line in diary.failed),
    )
    return dataclasses.replace(report, notes=notes)
