"""A real Orthanc (Debian's orthanc and orthanc-dicomweb) sends a study here and fetches the masks."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from support import dicom_files
from support.infer_engine import brightness_engine
from support.serve_server import Running, Setup, picture, running
from support.trees import ROOT

from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases
from gms_rt.infer.sources import with_series

pytest.importorskip("highdicom")
PAGE = (ROOT / "docs/serve.md").read_text()
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
ORTHANC = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
pytestmark = pytest.mark.skipif(
    ORTHANC is None or not PLUGIN.exists() or shutil.which("curl") is None,
    reason="orthanc, orthanc-dicomweb or curl is not installed",
)


class Orthanc:
    """Its REST interface."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"

    def ask(self, path: str, body: bytes | None = None) -> Any:
        with urllib.request.urlopen(self.address + path, body, timeout=60) as answer:
            return json.loads(answer.read())

    def file(self, instance: str) -> bytes:
        with urllib.request.urlopen(f"{self.address}/instances/{instance}/file", timeout=60) as answer:
            return bytes(answer.read())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("dicomweb")
    with running(folder / "brightness", Setup(keep=folder / "kept")) as found:
        yield found


@pytest.fixture(scope="module")
def orthanc(server: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    folder, port = tmp_path_factory.mktemp("orthanc"), free_port()
    settings = {
        "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"), "Plugins": [str(PLUGIN)],
        "HttpPort": port, "DicomServerEnabled": False, "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
    }  # fmt: skip
    (block,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    settings |= json.loads(block.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}"))
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(ORTHANC), str(folder / "orthanc.json")], stdout=log, stderr=log, cwd=folder)
    try:
        made, end = Orthanc(port), time.monotonic() + 60
        while True:
            try:
                made.ask("/system")
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, (folder / "log").read_text()[-2000:]
                assert time.monotonic() < end
                time.sleep(0.1)
        yield made
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_orthanc_sends_a_series_and_fetches_its_masks(server: Running, orthanc: Orthanc, tmp_path: Path) -> None:
    slices = np.stack([picture(n, 40, 50)[..., 0] for n in range(12)]).astype(np.uint16)
    for path in dicom_files.series(tmp_path / "scans", slices, PatientID="P-77"):
        sent = orthanc.ask("/instances", path.read_bytes())
    source = pydicom.dcmread(path)
    for line in (line for line in PAGE.splitlines() if line.startswith("curl http://127.0.0.1:8042/")):
        line = line.replace("http://127.0.0.1:8042", orthanc.address)
        line = line.replace("RESOURCE", sent["ParentStudy"]).replace("STUDY", source.StudyInstanceUID)
        done = subprocess.run([*shlex.split(line), "-sS", "--fail", "--noproxy", "*"], capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
    series = [orthanc.ask(f"/series/{name}") for name in orthanc.ask("/series")]
    (made,) = [each for each in series if each["MainDicomTags"]["Modality"] == "SEG"]
    assert made["ParentStudy"] == sent["ParentStudy"]
    (tmp_path / "got.dcm").write_bytes(orthanc.file(made["Instances"][0]))
    got = pydicom.dcmread(tmp_path / "got.dcm")
    assert got.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    with OutFolder(tmp_path / "out") as held, brightness_engine(tmp_path / "brightness") as engine:
        run_cases(with_series(find_sources([str(tmp_path / "scans")])), InferJob(engine, held, InferOptions()))
    (ours,) = [pydicom.dcmread(path) for path in (tmp_path / "out/dicom").rglob("*.dcm")]
    assert np.array_equal(got.pixel_array, ours.pixel_array)
    assert got.pixel_array.any()
