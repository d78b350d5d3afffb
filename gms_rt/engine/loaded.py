"""An engine folder, loaded: images of any size in, masks at source size out."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TypeVar

from gms_rt.engine.manifest import EngineManifest
from gms_rt.runtime.base import Runner
from gms_rt.scan.segmenter import Segmenter

_Engine = TypeVar("_Engine", bound="Engine")


class Engine(Segmenter):
    """A loaded engine; call it with an image, or give `batch` many. Use it as a context manager.

    It may be called from many threads. Images are uint8, H×W or H×W×3 (RGB); masks are uint8 with 0 and 255.
    """

    def __init__(self, folder: Path, manifest: EngineManifest, runner: Runner, *, notice: str = "") -> None:
        super().__init__(runner.infer, manifest.height, manifest.width)
        self.folder = folder
        self.manifest = manifest
        self.runner = runner
        self.notice = notice  # why a plan that fits was not taken, or f16 was not; or ""

    def close(self) -> None:
        """Release the runner; a second call does nothing."""
        self.runner.close()

    def __enter__(self: _Engine) -> _Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        info = self.runner.info
        return f"<Engine {self.manifest.name}: {self.manifest.precision} on {info.device}, {info.execution}>"
