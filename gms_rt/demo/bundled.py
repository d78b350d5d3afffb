"""What comes with the package: the demonstration model (run and fused graph), and samples with their true masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gms_rt.errors import ArtifactError

_HERE = Path(__file__).parent
DEMO_RUN = _HERE / "model"
SAMPLE_SCANS = _HERE / "samples"
SAMPLE_TRUTHS = _HERE / "samples-truth"  # a folder of their own, so that segmenting the samples never meets a mask


@dataclass(frozen=True)
class Sample:
    """A bundled scan and its true mask, a PNG of the scan's size and name."""

    scan: Path
    truth: Path


def demo_graph() -> Path:
    """The bundled model's graph."""
    path = DEMO_RUN / "demo.onnx"
    if not path.is_file():
        raise ArtifactError("the bundled model is missing", where=path, fix="install gms-rt again")
    return path


def samples() -> list[Sample]:
    """The bundled samples, in order of name."""
    return [Sample(scan, SAMPLE_TRUTHS / f"{scan.stem}.png") for scan in sorted(SAMPLE_SCANS.iterdir())]
