"""Programs that are not ours read our DICOM SEG: dcmjs (the parser of OHIF and Cornerstone) and dcmqi (3D Slicer's).

`npm install dcmjs` somewhere and NODE_PATH=…/node_modules, or `pip install dcmqi`; without them the tests are skipped.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.dicom_results import CYST, LESION, SHAPE, enhanced, header, labels_of, result_of, series
from support.trees import ROOT

from gms_rt.infer.dicom_seg import write_seg

pytest.importorskip("highdicom", reason="DICOM SEG needs highdicom")
nibabel = pytest.importorskip("nibabel", reason="dcmqi's output is read by nibabel")

SOURCES = {
    "CT series": series([0, 5, 10, 15]),
    "CT series with gaps": series([0, 5, 25, 30]),
    "CT series without a frame of reference": series([0, 5, 10], FrameOfReferenceUID=""),
    "enhanced CT": [enhanced([0, 5, 10])],
    "ultrasound": [header("US")],
    "ultrasound loop": [header("USMF", 5)],
    "mammogram": [header("MG")],
}


def frames_of(headers: list[Any]) -> int:
    return len(headers) if len(headers) > 1 else int(headers[0].get("NumberOfFrames") or 1)


def images_of(headers: list[Any]) -> list[dict[str, Any]]:
    """The frames of a source as a viewer knows them."""
    found = []
    for index in range(frames_of(headers)):
        source = headers[index] if len(headers) > 1 else headers[0]
        groups = source.get("PerFrameFunctionalGroupsSequence")
        shared = source.get("SharedFunctionalGroupsSequence")
        place = groups[index].PlanePositionSequence[0] if groups else source
        turn = shared[0].PlaneOrientationSequence[0] if shared else source
        frame = f"&frame={index}" if len(headers) == 1 and frames_of(headers) > 1 else ""
        found.append({
            "id": f"wadors:{source.SOPInstanceUID}{frame}", "sop": source.SOPInstanceUID,
            "series": source.SeriesInstanceUID, "frameOfReference": source.get("FrameOfReferenceUID") or None,
            "rows": SHAPE[0], "columns": SHAPE[1],
            "position": [float(v) for v in place.get("ImagePositionPatient") or []] or None,
            "orientation": [float(v) for v in turn.get("ImageOrientationPatient") or []] or None,
        })  # fmt: skip
    return found


def has_dcmjs() -> bool:
    if shutil.which("node") is None:
        return False
    return subprocess.run(["node", "-e", "require('dcmjs')"], capture_output=True).returncode == 0


@pytest.mark.parametrize("name", SOURCES)
def test_dcmjs_reads_the_same_pixels_names_and_colours(name: str, tmp_path: Path) -> None:
    if not has_dcmjs():
        pytest.skip("node does not find dcmjs (npm install dcmjs, NODE_PATH)")
    headers = SOURCES[name]
    labels = labels_of(frames_of(headers), 2)
    write_seg(tmp_path / "seg.dcm", result_of(headers, labels, classes=(LESION, CYST)))
    (tmp_path / "images.json").write_text(json.dumps(images_of(headers)))
    script = ROOT / "benchmarks/viewers/dcmjs_labels.cjs"
    files = [tmp_path / "seg.dcm", tmp_path / "images.json", tmp_path / "labels.raw"]
    done = subprocess.run(["node", script, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.fromfile(files[-1], "<u2").reshape(labels.shape), labels)
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["maps"] == 1
    assert [(s["label"], s["type"]) for s in said["segments"]] == [("Lesion", "4147007"), ("Cyst", "367643001")]
    assert np.abs(np.subtract([s["colour"] for s in said["segments"]], [LESION.colour, CYST.colour])).max() <= 2


@pytest.mark.parametrize("name", ["CT series", "enhanced CT"])
def test_dcmqi_reads_the_same_pixels(name: str, tmp_path: Path) -> None:
    tool = shutil.which("segimage2itkimage")
    if tool is None:
        pytest.skip("dcmqi is not installed (pip install dcmqi)")
    headers = SOURCES[name]
    labels = labels_of(frames_of(headers), 2)
    write_seg(tmp_path / "seg.dcm", result_of(headers, labels, classes=(LESION, CYST)))
    command = [tool, "--inputDICOM", tmp_path / "seg.dcm", "--outputDirectory", tmp_path, "--outputType", "nii"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for number in (1, 2):
        volume = np.asarray(nibabel.load(tmp_path / f"{number}.nii.gz").dataobj)
        assert np.array_equal(volume.transpose(2, 1, 0) != 0, labels == number)
    described = json.loads((tmp_path / "meta.json").read_text())
    assert [item["SegmentLabel"] for group in described["segmentAttributes"] for item in group] == ["Lesion", "Cyst"]
