"""Which cluster the workers are on: one of this machine alone unless another is named."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.scale_runs import setup

from gms_rt.errors import GmsError, UsageError
from gms_rt.scale.ray_data import RayBackend


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a stand-in for Ray was asked to start or join."""
    calls: list[dict[str, Any]] = []
    ray, data = ModuleType("ray"), ModuleType("ray.data")
    members = {
        "is_initialized": lambda: False,
        "init": lambda **options: calls.append(options),
        "cluster_resources": lambda: {"CPU": 4.0},
        "shutdown": lambda: None,
        "data": data,
    }
    for name, value in members.items():
        setattr(ray, name, value)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", data)
    return calls


def test_without_an_address_no_other_cluster_is_joined(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    with RayBackend(setup(tmp_path, tmp_path), 0, 0.0, None) as backend:
        assert (backend.workers, backend.cores_per_worker) == (2, 2)
    assert asked[0]["address"] == "local" and asked[0]["num_cpus"] >= 1


def test_with_an_address_that_cluster_is_joined(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    with RayBackend(setup(tmp_path, tmp_path), 0, 0.0, "auto"):
        pass
    assert asked[0]["address"] == "auto" and "num_cpus" not in asked[0]


@pytest.mark.parametrize(
    ("address", "kind", "told"),
    [
        (None, GmsError, "Ray does not start on this machine"),
        ("ray://h:1", UsageError, "ray://h:1: there is no cluster"),
    ],
)
def test_a_cluster_that_does_not_start_is_one_line(
    asked: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    address: str | None,
    kind: type[GmsError],
    told: str,
    tmp_path: Path,
) -> None:
    def fails(**options: Any) -> None:
        raise Exception("The current node timed out during startup.")  # as Ray does

    monkeypatch.setattr(sys.modules["ray"], "init", fails)
    with pytest.raises(kind, match=told), RayBackend(setup(tmp_path, tmp_path), 0, 0.0, address):
        pass
