"""An engine, an archive whose files take long, and what one ordinary run makes of it: the same for every backend."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.scale_runs import archive, mean_engine, plain_run


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mean_engine(tmp_path_factory.mktemp("scale") / "engine")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tmp_path_factory.mktemp("archive"), prefix="slow")


@pytest.fixture(scope="module")
def plain(engine: Path, scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_run(engine, scans, tmp_path_factory.mktemp("plain") / "out")
