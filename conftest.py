"""For all tests and doctests: what they leave in the user's cache and state goes to folders of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gms_rt.runtime.signal_stack import keep_signal_stack, signal_stack
from gms_rt.telemetry import forbid_telemetry

forbid_telemetry()  # whatever tests import
# Torch's threads wait for each other asleep: awake they keep a busy machine's cores from those that they wait for.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Graphs that a test has tried, and plans that it has built, are not remembered for the user."""
    names = ("XDG_CACHE_HOME", "XDG_STATE_HOME", "PIP_CACHE_DIR", "GMS_RT_CACHE")
    before = {name: os.environ.get(name) for name in names}
    # Packages that tests install come from where they always do.
    kept = before["PIP_CACHE_DIR"] or str(Path(before["XDG_CACHE_HOME"] or Path.home() / ".cache") / "pip")
    os.environ |= {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")), "PIP_CACHE_DIR": kept}
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    os.environ.pop("GMS_RT_CACHE", None)
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(autouse=True)
def own_signal_stack() -> Iterator[None]:
    """A test that leaves OpenVINO's signal stack behind fails: a later one might handle a signal on freed memory."""
    before = signal_stack()
    with keep_signal_stack():
        yield
        after = signal_stack()
    same = (after and after.pointer) == (before and before.pointer)
    assert same, "OpenVINO was opened without gms_rt.runtime.signal_stack.cpu_core"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where processes share the tests, files with slow ones come first: else one process works on at the end alone."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)
