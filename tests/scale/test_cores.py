"""Workers that nobody gives cores to take different ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gms_rt.scale.cores import claim_cores


def test_no_two_workers_have_the_same_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 0, 1, 2, 7})
    claims = [claim_cores(2, tmp_path) for _ in range(3)]
    assert [claim and claim.cores for claim in claims] == [(0, 1), (2, 3), None]
    assert claims[0] is not None
    claims[0].release()
    again = claim_cores(2, tmp_path)
    assert again is not None
    assert again.cores == (0, 1)


def test_a_folder_that_others_can_write_is_not_trusted(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert claim_cores(1, tmp_path) is None
