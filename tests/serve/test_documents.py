"""The examples of `docs/serve.md` run as they stand, against a service with the bundled model's name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from support import dicom_files
from support.serve_server import Running, picture, png, running
from support.trees import ROOT

PAGE = (ROOT / "docs/serve.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("documents") / "demo-fp16") as found:
        yield found


def run(server: Running, folder: Path, command: list[str]) -> str:
    (folder / "scan.png").write_bytes(png(picture(1)))
    here = [text.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}") for text in command]
    assert here != command
    done = subprocess.run(
        here, cwd=folder, capture_output=True, text=True, timeout=60, env=os.environ | {"NO_PROXY": "127.0.0.1"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


CURL = [
    line for block in blocks("sh") for line in block.splitlines() if line.startswith("curl ") and ":8042" not in line
]  # test_dicomweb_orthanc.py runs those of Orthanc


@pytest.mark.parametrize("line", CURL)
def test_the_examples_with_curl(server: Running, tmp_path: Path, line: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    run(server, tmp_path, ["bash", "-c", line.replace("curl ", "curl -sS --fail ", 1)])
    written = tmp_path / line.rpartition("> ")[2]
    assert written.stat().st_size > 50
    if written.suffix == ".png":
        assert cv2.imread(str(written), cv2.IMREAD_UNCHANGED).shape == (90, 120)


@pytest.mark.parametrize("block", blocks("python"))
def test_the_examples_in_python(server: Running, tmp_path: Path, block: str) -> None:
    if "tritonclient" in block:
        pytest.importorskip("tritonclient.http")
    if "dicomweb_client" in block:
        pytest.importorskip("dicomweb_client")
        pytest.importorskip("highdicom")
        dicom_files.save(dicom_files.dataset(picture(2)), tmp_path / "scans/one.dcm")
    out = run(server, tmp_path, [sys.executable, "-W", "ignore", "-c", block])
    if "dicomweb_client" in block:
        assert out == "1 segmented\n"
        return
    assert "tritonclient" in block or re.fullmatch(r"ok \d+ [\d.]+\n", out)


def test_there_are_examples() -> None:
    assert len(CURL) >= 2
    assert len(blocks("python")) >= 2


def test_every_reason_of_a_refusal_is_in_the_table() -> None:
    from gms_rt.errors import InputError, TooLargeError, UsageError
    from gms_rt.serve.app import MethodError
    from gms_rt.serve.refusals import RefusedError, status_from_error

    kinds = [*RefusedError.__subclasses__(), InputError, TooLargeError, UsageError]
    assert MethodError in kinds
    for kind in kinds:
        error = kind("x", 1) if kind.__name__ == "BusyError" else kind("x")
        status, reason = status_from_error(error)
        row = next((line for line in PAGE.splitlines() if line.startswith("| ") and f"`{reason}`" in line), None)
        assert row is not None, reason
        assert str(status) in row
