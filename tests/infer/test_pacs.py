"""The commands of docs/pacs.md, against a small PACS on this machine (DCMTK's dcmqrscp)."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from support.trees import ROOT

PAGE = (ROOT / "docs" / "pacs.md").read_text()
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
TOOLS = ("dcmqrscp", "findscu", "getscu", "movescu", "storescp", "storescu")
SAMPLE = ROOT / "gms_rt/demo/samples/12-grey.dcm"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason="DCMTK is not installed"),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Place:
    """A folder with a PACS next to it that has one study, and the page's commands as they are typed there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pacs, self.own = folder, free_port(), free_port()
        self.header = pydicom.dcmread(SAMPLE)
        (folder / "db").mkdir()
        self.run("mkdir")
        (folder / "pacs.cfg").write_text(
            f"NetworkTCPPort = {self.pacs}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
            f"HostTable BEGIN\ngmsrt = (GMSRT, 127.0.0.1, {self.own})\nHostTable END\n"
            "VendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\nPACS {folder}/db RW (100, 1024mb) ANY\nAETable END\n"
        )
        self.started = [subprocess.Popen(["dcmqrscp", "-c", str(folder / "pacs.cfg")])]
        wait_for(self.pacs)
        subprocess.run(["storescu", "-aec", "PACS", "127.0.0.1", str(self.pacs), str(SAMPLE)], check=True)

    def words(self, start: str) -> list[str]:
        """The page's one command that begins so, for this place."""
        line = next(line for line in LINES if line.startswith(start)).removesuffix(" &")
        for name, value in {
            "pacs.example 104": f"127.0.0.1 {self.pacs}",
            "11112": str(self.own),
            "StudyInstanceUID=STUDY": f"StudyInstanceUID={self.header.StudyInstanceUID}",
            "SeriesInstanceUID=SERIES": f"SeriesInstanceUID={self.header.SeriesInstanceUID}",
        }.items():
            line = line.replace(name, value)
        return shlex.split(line)

    def run(self, start: str) -> str:
        done = subprocess.run(self.words(start), cwd=self.folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr


def wait_for(port: int) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on {port}")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    try:
        yield made
    finally:
        for process in made.started:
            process.terminate()
            process.wait(timeout=20)


def test_the_page_has_the_commands_that_are_tried_here() -> None:
    assert {shlex.split(line)[0] for line in LINES} == {"gms-rt", "mkdir", *TOOLS} - {"dcmqrscp"}


def test_a_series_is_found_fetched_segmented_and_sent_back(place: Place) -> None:
    pytest.importorskip("highdicom")
    study, series = place.header.StudyInstanceUID, place.header.SeriesInstanceUID
    assert study in place.run("findscu -S -aet GMSRT -aec PACS pacs.example 104 -k QueryRetrieveLevel=STUDY")
    assert series in place.run("findscu -S -aet GMSRT -aec PACS pacs.example 104 -k QueryRetrieveLevel=SERIES")
    place.run("getscu")
    assert len(list((place.folder / "scans").iterdir())) == 1
    infer = ["-m", "gms_rt", *place.words("gms-rt infer scans")[1:]]
    build = ["-m", "gms_rt", "build", "--precision", "fp16", "--target", "cpu", "--quiet", "--gate-images", "4"]
    build += ["--calib-images", "4"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for arguments in (build, infer):
        subprocess.run([sys.executable, *arguments], cwd=place.folder, env=environment, check=True, timeout=300)
    written = list((place.folder / "results" / "dicom").iterdir())
    assert len(written) == 1
    place.run("storescu")
    kept = [pydicom.dcmread(path) for path in (place.folder / "db").glob("SG_*")]
    assert [(seg.StudyInstanceUID, seg.PatientID) for seg in kept] == [(study, place.header.PatientID)]


def test_a_pacs_that_sends_fills_the_inbox(place: Place) -> None:
    place.started.append(subprocess.Popen(place.words("storescp"), cwd=place.folder))
    wait_for(place.own)
    place.run("movescu")
    arrived = list((place.folder / "inbox").rglob("*.dcm"))
    assert [pydicom.dcmread(path).SOPInstanceUID for path in arrived] == [place.header.SOPInstanceUID]
    assert arrived[0].parent.name.startswith("study")
