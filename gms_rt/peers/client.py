"""A peer: another runtime in a process of its own, used like a runner.

The measuring side never imports a peer's framework; it speaks JSON lines with `gms_rt.peers.server`.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from gms_rt.arrays import U8
from gms_rt.artifacts import sha256_bytes, sha256_file
from gms_rt.errors import GmsError, MissingExtraError, UsageError
from gms_rt.peers import TORCH_KINDS
from gms_rt.peers.child import child_environment, peak_resident_bytes
from gms_rt.runtime.base import RunnerInfo, Timings
from gms_rt.runtime.device import probe

MODULE = "gms_rt.peers.server"
# torch.compile may need minutes on a small machine; what takes longer hangs.
OPEN_SECONDS, ANSWER_SECONDS = 1200.0, 600.0
P = TypeVar("P", bound="Peer")


class Peer:
    """One peer process. Use it as a context manager.

    `what` is a torch kind, which opens the run at `path`, or a graph kind, which opens an ONNX model. `size` is the
    height and width for those that have none of their own. `load_ms` is without starting Python, `first_ms` the first
    inference.
    """

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
        if what in TORCH_KINDS and not _importable("torch"):
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
            env=child_environment(),
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
        self.load_ms: float = about["load_ms"]
        self.first_ms: float = about["first_ms"]
        self.peak_bytes = peak_resident_bytes(self._process.pid)

    @property
    def pid(self) -> int:
        """The number of the peer's process."""
        return self._process.pid

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

    def __enter__(self: P) -> P:
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


def _folder_hash(folder: Path) -> str:
    files = sorted(p for p in folder.glob("*") if p.is_file())
    return sha256_bytes("".join(f"{p.name} {sha256_file(p)}\n" for p in files).encode())


def _importable(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None
