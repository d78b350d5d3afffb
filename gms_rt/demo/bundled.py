"""What comes with the package: the demonstration model and its edge student (runs and fused graphs), and samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gms_rt.errors import ArtifactError

_HERE = Path(__file__).parent
DEMO_RUN = _HERE / "model"
EDGE_RUN = _HERE / "edge"  # a small student of that model
SAMPLE_SCANS = _HERE / "samples"
SAMPLE_TRUTHS = _HERE / "samples-truth"  # a folder of their own, so that segmenting the samples never meets a mask


@dataclass(frozen=True)
class Sample:
    """A bundled scan and its true mask, a PNG of the scan's size and name."""

    scan: Path
    truth: Path


def demo_graph() -> Path:
    """The bundled model's graph."""
    return _present(DEMO_RUN / "demo.onnx")


def edge_graph() -> Path:
    """The graph of its edge student."""
    return _present(EDGE_RUN / "demo-edge.onnx")


def samples() -> list[Sample]:
    """The bundled samples, in order of name."""
    return [Sample(scan, SAMPLE_TRUTHS / f"{scan.stem}.png") for scan in sorted(SAMPLE_SCANS.iterdir())]


def _present(path: Path) -> Path:
    if not path.is_file():
        raise ArtifactError("the bundled model is missing", where=path, fix="install gms-rt again")
    return path
