"""A plan is native code: it is loaded only where this machine built it or the user vouches for it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.plan_engines import PLAN, FakeRunner, plan_engine, use_fakes
from support.small_builds import build, needs_rtx
from support.trees import ROOT

from gms_rt.artifacts import sha256_bytes
from gms_rt.engine import select, trust
from gms_rt.engine.manifest import read_manifest
from gms_rt.engine.state import state_root
from gms_rt.errors import ArtifactError, DeviceError, GmsError
from gms_rt.runtime.options import CudaSettings

CODE = sha256_bytes(b"native code")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_fakes(monkeypatch)
    monkeypatch.setenv("GMS_RT_STATE", str(tmp_path / "home/state"))
    return tmp_path / "home/state"


def test_a_foreign_plan_is_not_loaded_and_the_first_line_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = plan_engine(tmp_path / "e")
    with caplog.at_level(logging.WARNING), select.load(folder) as engine:
        assert engine.runner.info.backend == "cpu"
    assert [runner.content for runner in FakeRunner.opened] == [None]
    assert engine.notice == caplog.messages[0]
    assert engine.notice == (
        f"{folder}: plan {PLAN} was not built on this machine and is not signed by a trusted key: "
        "running the CPU graph; trust it with --trust-plans (trust_plans=True), or rebuild: "
        f"gms-rt build GRAPH.onnx --precision fp32 --target cpu,tensorrt-rtx --sm 89 --out {folder}"
    )


def test_a_foreign_plan_that_was_asked_for_is_an_error_with_both_ways_out(tmp_path: Path) -> None:
    folder = plan_engine(tmp_path / "e")
    for bad in (
        lambda: select.load(folder, device="cuda"),
        lambda: select.load(plan_engine(tmp_path / "g", targets=[])),
    ):
        with pytest.raises(
            DeviceError, match=r"not built on this machine.*--trust-plans.*rebuild: gms-rt build"
        ) as found:
            bad()
        assert found.value.exit_code == 4
    assert FakeRunner.opened == []
    with pytest.raises(DeviceError, match="not built on this machine"):
        select.newest_that_fits(tmp_path, "cuda")
    assert select.newest_that_fits(tmp_path, "cuda", trust_plans=True).parent == tmp_path


def test_the_users_word_or_an_own_build_loads_it(tmp_path: Path, state: Path) -> None:
    folder = plan_engine(tmp_path / "e")
    with select.load(folder, trust_plans=True) as engine:
        assert FakeRunner.opened[-1].content == b"native code" and engine.notice == ""
    assert trust.remember_plan(folder, CODE) == ""
    with select.load(folder) as engine:
        assert FakeRunner.opened[-1].content == b"native code" and engine.notice == ""
    assert (state.stat().st_mode & 0o777, (state / "plans").stat().st_mode & 0o777) == (0o700, 0o700)
    assert list((state / "plans").iterdir()) == [state / "plans" / f"{CODE}.json"]


def test_trust_is_in_bytes_and_not_in_a_name(tmp_path: Path) -> None:
    """A plan in the place of the one that was built here, with its hash in engine.json: refused either way."""
    folder = plan_engine(tmp_path / "e")
    trust.remember_plan(folder, CODE)
    (folder / PLAN).write_bytes(b"other code!")
    for how in ({}, {"trust_plans": True}):
        with pytest.raises(ArtifactError, match="was changed since it was built"):
            select.load(folder, **how)  # type: ignore[arg-type]
    other = plan_engine(tmp_path / "other", content=b"other code!")
    with select.load(other) as engine:
        assert engine.runner.info.backend == "cpu"
    assert all(runner.content is None for runner in FakeRunner.opened)


def test_a_plan_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes whose hash was compared are those that are loaded, whatever stands in the file by then."""
    folder = plan_engine(tmp_path / "e")
    compare = select.read_verified

    def swap(*arguments: object) -> bytes:
        content = compare(*arguments)  # type: ignore[arg-type]
        (folder / PLAN).write_bytes(b"swapped in between")
        return content

    monkeypatch.setattr(select, "read_verified", swap)
    with select.load(folder, trust_plans=True):
        assert FakeRunner.opened[-1].content == b"native code"


@pytest.mark.parametrize("place", ["", "plans"])
def test_a_state_folder_that_others_can_write_vouches_for_nothing(tmp_path: Path, state: Path, place: str) -> None:
    folder = plan_engine(tmp_path / "e")
    trust.remember_plan(folder, CODE)
    (state / place).chmod(0o777)
    with select.load(folder) as engine:
        assert engine.runner.info.backend == "cpu" and "can be written by others" in engine.notice
    assert "can be written by others" in trust.remember_plan(folder, CODE)
    (state / place).chmod(0o700)
    if os.geteuid() == 0:
        os.chown(state / place, 12345, -1)
        with select.load(folder) as engine:
            assert engine.runner.info.backend == "cpu"


def test_looking_makes_no_state_folder(tmp_path: Path, state: Path) -> None:
    folder = plan_engine(tmp_path / "e")
    assert not trust.plan_trust(folder, read_manifest(folder).plans[0]).trusted
    assert not state.exists()


def test_where_the_state_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    assert state_root() == Path(os.environ["GMS_RT_STATE"])
    monkeypatch.delenv("GMS_RT_STATE")
    assert state_root() == Path("/x/gms-rt")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert state_root() == Path.home() / ".local/state/gms-rt"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert state_root() == Path.home() / ".local/state/gms-rt"


def test_without_the_extra_a_signature_counts_for_nothing_and_says_which(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    folder = plan_engine(tmp_path / "e")
    (folder / "engine.sig.json").write_text("{}")
    (state / "keys").mkdir(parents=True, mode=0o700)
    (state / "keys/a.pem").write_text("a key")
    with select.load(folder) as engine:
        assert engine.runner.info.backend == "cpu" and "pip install 'gms-rt[signing]'" in engine.notice
    trust.remember_plan(folder, CODE)
    with select.load(folder) as engine:  # an own plan needs no signature
        assert engine.runner.info.backend == "tensorrt-rtx"


def test_the_folder_one_works_in_cannot_vouch_for_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = plan_engine(tmp_path / "download/e")
    (tmp_path / "download/state/plans").mkdir(parents=True)
    (tmp_path / f"download/state/plans/{CODE}.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "download")
    monkeypatch.setenv("GMS_RT_STATE", "state")
    with select.load(folder) as engine:
        assert engine.runner.info.backend == "cpu" and "is not an absolute path" in engine.notice
    with pytest.raises(GmsError, match="is not an absolute path"):
        trust.trusted_keys()


def test_the_command_line_says_it_first(tmp_path: Path) -> None:
    folder = plan_engine(tmp_path / "e")
    cv2.imwrite(str(tmp_path / "scan.png"), np.zeros((20, 20, 3), np.uint8))
    program = (
        "import pytest, sys; from support.plan_engines import use_fakes; use_fakes(pytest.MonkeyPatch());"
        "from gms_rt.cli.main import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-u", "-c", program, "infer", tmp_path / "scan.png", "--engine", folder]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), *sys.path])}
    said = []
    for more in ([], ["--trust-plans"]):
        done = subprocess.run(
            [*command, *more, "--out", tmp_path / f"out{len(more)}"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True,
        )  # fmt: skip
        said.append(done.stdout.splitlines()[0])
    assert said[0].startswith(f"{folder}: plan {PLAN} was not built on this machine")
    assert said[1].startswith("engine: ")


def test_the_keywords_of_load_are_the_fields_of_its_options() -> None:
    options = select.LoadOptions(device="cpu", lanes=2)
    assert select.LoadOptions(**options.keywords()) == options
    with pytest.raises(TypeError, match="trust_everything"):
        select.load("e", trust_everything=True)  # type: ignore[call-arg]


@needs_rtx
def test_a_build_vouches_for_its_plan_and_builds_a_foreign_one_again(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = build(graph, tmp_path / "e", "fp32", ("cpu", "tensorrt-rtx"), sms=(89,))
    assert trust.plan_trust(tmp_path / "e", manifest.plans[0]).trusted
    monkeypatch.setenv("GMS_RT_STATE", str(tmp_path / "another machine"))
    assert not trust.plan_trust(tmp_path / "e", manifest.plans[0]).trusted
    again = build(graph, tmp_path / "e", "fp32", ("cpu", "tensorrt-rtx"), sms=(89,))
    assert trust.plan_trust(tmp_path / "e", again.plans[0]).trusted


def test_a_plan_that_cannot_be_captured_is_told_of_and_the_switch_reaches_the_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    class Uncaptured(FakeRunner):
        def __init__(self, plan: Path, flavour: str, settings: CudaSettings, **options: Any) -> None:
            super().__init__(plan, **options)
            asked.append(settings.cuda_graph)
            self.info.details["notice"] = "no CUDA graph, every inference is queued anew: it allocates"

    monkeypatch.setattr("gms_rt.runtime.tensorrt.TensorRtRunner", Uncaptured)
    folder = plan_engine(tmp_path / "e")
    with caplog.at_level(logging.WARNING), select.load(folder, trust_plans=True) as engine:
        assert engine.notice == f"{folder}: no CUDA graph, every inference is queued anew: it allocates"
    assert engine.notice in caplog.messages
    select.load(folder, trust_plans=True, cuda_graph="never").close()
    assert asked == ["auto", "never"]
