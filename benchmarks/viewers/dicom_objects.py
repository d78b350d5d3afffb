"""DICOM SEG, fractional SEG and report of every DICOM image below some folders, with made-up masks: a table of counts.

    python benchmarks/viewers/dicom_objects.py FOLDER …

Each object is judged by dciodvfy (Debian's dicom3tools) and read back by highdicom; pixels must be those written.
Errors that are faults of the source's own identifiers, which an object must repeat, are counted apart. Nothing is
downloaded: the folders can be those of test files in packages, such as pydicom's `data/test_files`.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt.artifacts import sha256_file
from gms_rt.errors import GmsError
from gms_rt.infer.dicom_report import write_dicom_report
from gms_rt.infer.dicom_seg import write_probability_seg, write_seg
from gms_rt.infer.result import Maker, SourceResult
from gms_rt.scan.dicom import read_header

MAKER = Maker("corpus", "0" * 64, "0", options={"dicom_seg": True})
WRITERS = {"DICOM SEG": write_seg, "fractional": write_probability_seg, "report": write_dicom_report}
INHERITED = ("Illegal root for UID", "StudyInstanceUID has same value as FrameOfReferenceUID")


def errors_of(path: Path) -> list[str]:
    """What dciodvfy holds against an object."""
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace")
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


def result_of(header: Any, path: Path) -> SourceResult:
    """Random masks and probabilities for an image."""
    shape = (max(1, int(header.get("NumberOfFrames") or 1)), int(header.Rows), int(header.Columns))
    levels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    labels = (levels > 180).astype(np.uint8)
    return SourceResult([path], sha256_file(path), labels, [], MAKER, "corpus", levels, headers=[header])


def same_pixels(path: Path, kind: str, result: SourceResult) -> bool:
    """Whether highdicom reads what was written, each frame by its reference to the source."""
    import highdicom

    if kind == "report":
        return bool(highdicom.sr.srread(path).content.get_planar_roi_measurement_groups())
    seg = highdicom.seg.segread(path)
    wanted = result.labels if kind == "DICOM SEG" else result.probabilities
    assert wanted is not None
    for pixels, group in zip(seg.pixel_array.reshape(wanted.shape), seg.PerFrameFunctionalGroupsSequence, strict=True):
        reference = group.DerivationImageSequence[0].SourceImageSequence[0]
        if not np.array_equal(pixels, wanted[int(reference.get("ReferencedFrameNumber", 1)) - 1]):
            return False
    return True


def main(folders: list[str]) -> None:
    """Count, and print."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    counts: Counter[tuple[str, str]] = Counter()
    reasons: Counter[str] = Counter()
    columns = ("tried", "refused", "invalid", "source's identifiers", "other pixels")
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "object.dcm"
        for path in sorted(p for folder in folders for p in Path(folder).rglob("*") if p.is_file()):
            try:
                header = read_header(path)
                result = result_of(header, path)
            except Exception:  # noqa: S112 (not an image)
                continue
            for kind, write in WRITERS.items():
                counts[kind, "tried"] += 1
                out.unlink(missing_ok=True)
                try:
                    write(out, result)
                except GmsError as error:
                    counts[kind, "refused"] += 1
                    reasons[error.what] += 1
                    continue
                found = errors_of(out)
                own = [error for error in found if any(text in error for text in INHERITED)]
                counts[kind, "invalid"] += len(found) > len(own)
                counts[kind, "source's identifiers"] += bool(own)
                counts[kind, "other pixels"] += not same_pixels(out, kind, result)
    print("| object |", " | ".join(columns), "|\n|---|" + "---|" * len(columns))
    for kind in WRITERS:
        print(f"| {kind} |", " | ".join(str(counts[kind, column]) for column in columns), "|")
    for reason, count in reasons.most_common():
        print(f"{count} refused: {reason}")


if __name__ == "__main__":
    main(sys.argv[1:])
