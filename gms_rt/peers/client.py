"""Peers as subjects of a bench: each lives in a process of its own and takes its turn like an engine.

The measuring side never imports a peer's framework; it speaks JSON lines with `gms_rt.peers.server`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from gms_rt import metrics
from gms_rt.arrays import U8
from gms_rt.artifacts import sha256_bytes, sha256_file
from gms_rt.bench.cold_start import environment
from gms_rt.bench.results import ColdStart, Measured
from gms_rt.errors import GmsError, MissingExtraError, UsageError
from gms_rt.parity.certificate import THRESHOLD, Golden
from gms_rt.runtime.base import RunnerInfo, Timings
from gms_rt.runtime.device import probe

MODULE = "gms_rt.peers.server"
TORCH = ("torch-eager", "torch-channels-last", "torch-compile")
RUNTIMES = (*TORCH, "onnxruntime")
# torch.compile may need minutes on a small machine; what takes longer hangs.
OPEN_SECONDS, ANSWER_SECONDS = 1200.0, 600.0


class Peer:
    """One peer process. Use it as a context manager."""

    kind = "peer"

    def __init__(
        self,
        what: str,
        path: Path,
        label: str,
        *,
        threads: int = 0,
        device: str = "cpu",
        size: tuple[int, int] = (224, 224),
    ) -> None:
        if what in TORCH and not _importable("torch"):
            raise MissingExtraError(f"a comparison with {what}", "train")
        self.label, self.source = label, str(path)
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._folder = tempfile.TemporaryDirectory(prefix="gms-rt-peer-")
        self._images = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment(),
        )
        try:
            where = str(path.resolve())
            about = self._ask(OPEN_SECONDS, do="open", kind=what, path=where, threads=threads, device=device, size=size)
        except BaseException:
            self.close()
            raise
        self.precision = "fp32" if about["execution"] == "f32" else about["execution"]
        self.identity = sha256_file(path) if path.is_file() else _folder_hash(path)
        self.parameters: int | None = about["parameters"]
        notes = {f"reading {i + 1}": note for i, note in enumerate(about["notes"])}
        self.info = RunnerInfo(
            about["runtime"],
            about["batch"],
            about["height"],
            about["width"],
            about["device"] or probe().cpu.name,
            about["execution"],
            threads=about["threads"],
            details={"runtime": about["runtime"], **notes},
        )
        self.cold = ColdStart(
            about["load_ms"], about["first_ms"], self._peak(), None, why="load time is without starting Python"
        )

    def bench(self, images: U8, *, seconds: float, iterations: int, warmup: float) -> Timings:
        """One round in the peer's own loop."""
        self._send_images(images)
        limit = ANSWER_SECONDS + 10 * (seconds + warmup)
        answer = self._ask(limit, do="bench", seconds=seconds, iterations=iterations, warmup=warmup)
        total = np.array(answer["total"])
        zero = np.zeros(len(total))
        return Timings(total, total, zero, zero, zero, answer["wall_seconds"], answer["warmup_seconds"])

    def infer(self, images: U8) -> U8:
        """Probabilities (0-255) of images of the peer's size."""
        self._send_images(images)
        out = Path(self._folder.name) / "masks.npy"
        self._ask(ANSWER_SECONDS + 20.0 * len(images), do="infer", file=str(out))
        return np.asarray(np.load(out, allow_pickle=False), np.uint8)

    def close(self) -> None:
        """End the process; a second call does nothing."""
        if self._process.stdin and not self._process.stdin.closed:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdout:
                self._process.stdout.close()
            self._log.close()
            self._folder.cleanup()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send_images(self, images: U8) -> None:
        key = images.tobytes()
        if key != self._images:
            path = Path(self._folder.name) / "images.npy"
            np.save(path, images)
            self._ask(ANSWER_SECONDS, do="images", file=str(path))
            self._images = key

    def _ask(self, limit: float, **command: Any) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout  # both were asked for as pipes
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        watch = threading.Timer(limit, end)
        watch.daemon = True
        watch.start()
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        finally:
            watch.cancel()
        if not line:
            raise GmsError(self._last_words(limit if late.is_set() else None), where=self.label)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind = UsageError if answer.get("usage") else GmsError
            raise kind(answer["error"], where=self.label)
        return answer

    def _last_words(self, limit: float | None) -> str:
        if limit is not None:
            return f"the peer gave no answer in {limit / 60:.0f} minutes and was ended"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        status = self._process.returncode
        how = f"by signal {-status}" if status is not None and status < 0 else f"with status {status}"
        self._log.seek(0)
        words = self._log.read().decode(errors="replace").strip().splitlines()
        hint = "; often: out of memory" if status == -9 else ""
        return f"the peer's process ended {how} ({words[-1] if words else 'no message'}{hint})"

    def _peak(self) -> int | None:
        try:
            for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        except OSError:
            pass
        return None


def open_peers(
    wanted: list[str],
    stack: contextlib.ExitStack,
    *,
    run: Path | None,
    graph: Path | None,
    threads: int = 0,
    device: str | None = None,
    size: tuple[int, int] = (224, 224),
    lost: list[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Peer]:
    """Open peers by name: torch needs a run folder, onnxruntime a fused graph, anything else is a path to a model.

    `size` is the height and width for those that have none of their own. A wrong name or file is the user's mistake
    and raised before any is opened; a peer that breaks down by itself is left out, with a sentence in `lost`, where
    that is given.
    """
    chosen = [_chosen(name, run, graph) for name in wanted]
    for _, _, label in chosen:
        if [c[2] for c in chosen].count(label) > 1:
            raise UsageError(f"'{label}' is named twice", where="--against", fix="name each peer once")
    place = device if device and device.startswith("cuda") else "cpu"
    peers: list[Peer] = []
    for what, path, label in chosen:
        if progress:
            slow = " (compiling may take minutes)" if what == "torch-compile" else ""
            progress(f"opening {label}{slow}")
        try:
            peers.append(stack.enter_context(Peer(what, path, label, threads=threads, device=place, size=size)))
        except UsageError:
            raise
        except GmsError as error:
            if lost is None:
                raise
            lost.append(f"{label} could not be measured: {error.what}")
    return peers


def _chosen(name: str, run: Path | None, graph: Path | None) -> tuple[str, Path, str]:
    """What a name of --against means: kind, file or folder, label."""
    if name in TORCH:
        if run is None:
            raise UsageError(
                f"'{name}' needs the trained run that the engine was built from",
                where="--against",
                fix="name it with --run runs/NAME",
            )
        return name, run, name
    if name == "onnxruntime":
        if graph is None:
            raise UsageError("'onnxruntime' needs an engine or a graph", where="--against", fix="add --engine DIR")
        if not graph.is_file():
            raise UsageError("is not a file", where=graph, fix="name the exported graph with --graph FILE.onnx")
        return name, graph, name
    path = Path(name)
    if path.suffix != ".onnx":
        raise UsageError(
            f"'{name}' is neither a peer nor a model",
            where="--against",
            fix=f"choose among {', '.join(RUNTIMES)} or name a FILE.onnx",
        )
    if not path.is_file():
        raise UsageError("is not a file", where=path, fix="name an ONNX segmentation model")
    return "onnx", path, path.stem


def with_dice(measured: Measured, peer: Peer, golden: Golden | None, *, same_model: bool) -> Measured:
    """A peer's row with its masks judged: against the FP32 reference if it is the same model, and the truth."""
    changed = dataclasses.replace(measured, parameters=peer.parameters)
    if golden is None:
        return changed
    from gms_rt.bench.latency import fit_images

    produced = peer.infer(fit_images(golden.images, peer.info.height, peer.info.width))
    size = golden.probabilities.shape[1:]
    masks = [fit_mask(p >= THRESHOLD, size) for p in produced]
    if same_model:
        dices = [metrics.dice(m, r >= THRESHOLD) for m, r in zip(masks, golden.probabilities, strict=True)]
        changed = dataclasses.replace(changed, reference_dice=float(np.mean(dices)))
    if golden.truth is not None:
        dices = [metrics.dice(m, t) for m, t in zip(masks, golden.truth, strict=True)]
        changed = dataclasses.replace(changed, truth_dice=float(np.mean(dices)))
    return changed


def fit_mask(mask: np.ndarray[Any, np.dtype[np.bool_]], size: tuple[int, ...]) -> U8:
    """A mask at another size, by the nearest pixel."""
    import cv2

    plain = mask.astype(np.uint8)
    if plain.shape == size:
        return plain
    return np.asarray(cv2.resize(plain, (size[1], size[0]), interpolation=cv2.INTER_NEAREST), np.uint8)


def _folder_hash(folder: Path) -> str:
    files = sorted(p for p in folder.glob("*") if p.is_file())
    return sha256_bytes("".join(f"{p.name} {sha256_file(p)}\n" for p in files).encode())


def _importable(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None
