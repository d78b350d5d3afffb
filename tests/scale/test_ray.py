"""An archive on a Ray cluster of two nodes: the results of `infer`, each source once, whatever dies."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.scale_runs import HOOKS, results, setup, table
from support.trees import ROOT

from gms_rt.infer import OutFolder
from gms_rt.infer.journal import earlier_entries
from gms_rt.scale.chunk import ChunkResult
from gms_rt.scale.places import find_archive
from gms_rt.scale.run import ScaleJob, scale_cases
from gms_rt.telemetry import forbid_telemetry

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the ray extra is not installed"),
    pytest.mark.filterwarnings("ignore"),  # of Ray and what it imports
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with a core for workers each; the first is the head."""
    forbid_telemetry()
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "RAY_DATA_DISABLE_PROGRESS_BARS")}
    paths = [str(HOOKS), str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    os.environ |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    import ray

    made = two_nodes()
    ray.init(address=made.address, log_to_driver=False, configure_logging=False)
    yield made
    ray.shutdown()
    made.shutdown()
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def two_nodes() -> Any:
    """Ray gives a node half a minute to start, which a busy machine may not have; then there is nothing to test."""
    from ray.cluster_utils import Cluster

    one: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20}
    for _ in range(2):
        made = Cluster()
        try:
            made.add_node(**one, include_dashboard=False)
            made.second = made.add_node(**one)
            return made
        except Exception as error:
            reason = error
            made.shutdown()
    pytest.skip(f"Ray does not start here: {reason}")


def scaled(
    engine: Path, scans: Path, out: Path, *, on_chunk: Callable[..., None] | None = None, **job: Any
) -> dict[str, Any]:
    """A run on the cluster."""
    from gms_rt.scale.ray_data import RayBackend

    with OutFolder(out) as held, RayBackend(setup(engine, out), 2, 0.0, None) as backend:
        return scale_cases(find_archive(str(scans)), ScaleJob(held, on_chunk=on_chunk, **job), backend)


def test_two_nodes_write_what_infer_writes_even_if_an_actor_dies(
    cluster: Any, engine: Path, scans: Path, plain: Path, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_first(result: ChunkResult, done: int, total: int) -> None:
        worker = int(result.worker.rpartition(":")[2])
        if not killed and Path(f"/proc/{worker}").exists():  # the poisoned file may have ended it already
            killed.append(worker)
            os.kill(worker, signal.SIGKILL)

    poisoned = tmp_path / "archive"
    shutil.copytree(scans, poisoned)
    (poisoned / "a/poison.png").write_bytes(b"x")
    value = scaled(engine, poisoned, tmp_path / "out", on_chunk=kill_first)
    assert killed
    assert results(tmp_path / "out") == results(plain)
    rows = {row["source"]: row for row in table(tmp_path / "out")}
    assert "ended the process that read it" in rows.pop("a/poison.png")["error"]
    assert list(rows.values()) == table(plain)
    assert value["failed"] == 2
    names = [entry.source for entry in earlier_entries(tmp_path / "out")]
    assert len(names) == len(set(names)) == 15

    import pyarrow.parquet

    typed = pyarrow.parquet.read_table(tmp_path / "out/cases.parquet").to_pylist()
    assert [row["area_px"] for row in typed if row["status"] == "ok"] == [
        int(row["area_px"]) for row in table(plain) if row["status"] == "ok"
    ]


def test_a_driver_that_is_killed_goes_on_where_it_was(
    cluster: Any, engine: Path, scans: Path, plain: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "gms_rt", "scale", "infer", scans, "--engine", engine, "--out", out]
    command += ["--backend", "ray", "--address", cluster.address, "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        while not earlier_entries(out):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.01)
        process.kill()
    before = {entry.source for entry in earlier_entries(out)}
    assert 0 < len(before) < 14
    value = scaled(engine, scans, out, resume=True)
    assert value["sources_done_before"] == len(before - {"b/empty.png"})
    assert results(out) == results(plain)
    assert table(out) == table(plain)


def test_a_cluster_that_runs_here_is_not_joined_unasked(
    cluster: Any, engine: Path, scans: Path, plain: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "gms_rt", "scale", "infer", scans, "--engine", engine, "--out", tmp_path / "out"]
    done = subprocess.run([*command, "--backend", "ray", "--workers", "1"], capture_output=True)
    assert done.returncode == 5, "one file is empty"
    assert results(tmp_path / "out") == results(plain)


def test_a_node_that_dies_loses_and_doubles_nothing(
    cluster: Any, engine: Path, scans: Path, plain: Path, tmp_path: Path
) -> None:
    killed: list[str] = []

    def kill_node(result: ChunkResult, done: int, total: int) -> None:
        if not killed:
            killed.append(result.worker)
            cluster.remove_node(cluster.second, allow_graceful=False)

    scaled(engine, scans, tmp_path / "out", on_chunk=kill_node)
    assert killed
    assert results(tmp_path / "out") == results(plain)
    assert table(tmp_path / "out") == table(plain)
    names = [entry.source for entry in earlier_entries(tmp_path / "out")]
    assert len(names) == len(set(names)) == 14
