"""A small graph, and caches of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.precision_graphs import tiny_graph


@pytest.fixture(autouse=True)
def cache_of_builds(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GMS_RT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return tiny_graph(tmp_path)
