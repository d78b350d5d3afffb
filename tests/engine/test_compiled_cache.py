"""Opening an engine again: compiled graphs come from the user's cache, and a damaged one never changes a mask."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_builds import build

from gms_rt.arrays import U8
from gms_rt.engine import user_cache
from gms_rt.engine.select import load
from gms_rt.precision.gate import Gate


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GMS_RT_CACHE", str(tmp_path / "own"))
    return tmp_path / "own" / "compiled"


@pytest.fixture(params=["fp32", "int8"])
def engine(request: pytest.FixtureRequest, graph: Path, tmp_path: Path, cache: Path) -> Path:
    """A folder built on a small graph; what the build left in the cache is deleted."""
    build(graph, tmp_path / "engine", request.param, ("cpu",), gate=Gate(0.5, 0.1))
    user_cache.clear_caches()
    return tmp_path / "engine"


def masks(engine: Path, **options: Any) -> tuple[U8, dict[str, Any]]:
    """Of some random images; and what the runner says of itself."""
    with load(engine, device="cpu", **options) as opened:
        info = opened.runner.info
        random_images = np.random.default_rng(0).integers(
            0, 256, (3 * info.batch, info.height, info.width, 3), np.uint8
        )
        about = {name: getattr(info, name) for name in ("batch", "height", "width", "execution", "lanes", "threads")}
        return opened.runner.infer(random_images), about


def only(cache: Path) -> Path:
    (blob,) = cache.iterdir()
    return blob


@pytest.mark.parametrize(
    "options",
    [{}, {"threads": 1}, {"lanes": 3, "threads": 2}, {"mode": "throughput"}],
    ids=["", "thread", "lanes", "many"],
)
def test_the_second_open_gives_the_same_bytes(engine: Path, cache: Path, options: dict[str, Any]) -> None:
    fresh = masks(engine, trial="always", **options)
    assert not cache.exists() or not list(cache.iterdir()), "a trial that is wanted every time leaves the cache alone"
    first = masks(engine, **options)
    kept = only(cache)
    assert kept.stat().st_mode & 0o777 == 0o600
    assert cache.stat().st_mode & 0o777 == cache.parent.stat().st_mode & 0o777 == 0o700
    before = (kept.read_bytes(), kept.stat().st_ino)
    second = masks(engine, **options)
    assert (only(cache).read_bytes(), only(cache).stat().st_ino) == before
    for other in (first, second):
        np.testing.assert_array_equal(other[0], fresh[0])
        assert other[1] == fresh[1]


def test_changed_bits_never_change_a_mask(engine: Path, cache: Path) -> None:
    right, _ = masks(engine)
    whole = only(cache).read_bytes()
    places = random.Random(3)
    for place in [0, 20, 100, 150, *(places.randrange(len(whole)) for _ in range(24)), len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << places.randrange(8)
        only(cache).write_bytes(damaged)
        np.testing.assert_array_equal(masks(engine)[0], right)
        assert only(cache).read_bytes() != damaged, f"byte {place}: not compiled again"


def test_a_changed_engine_is_another_entry(engine: Path, cache: Path) -> None:
    masks(engine)
    masks(engine, threads=1)
    assert len(list(cache.iterdir())) == 2


def test_a_folder_of_others_or_none_at_all_costs_only_time(
    engine: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, _ = masks(engine)
    only(cache).unlink()
    cache.chmod(0o777)
    np.testing.assert_array_equal(masks(engine)[0], right)
    assert not list(cache.iterdir())
    monkeypatch.setenv("GMS_RT_CACHE", os.devnull)
    np.testing.assert_array_equal(masks(engine)[0], right)
    monkeypatch.delenv("GMS_RT_CACHE")
    monkeypatch.setattr(Path, "expanduser", _no_home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert user_cache.compiled_graphs() is None
    assert user_cache.cache_contents() == []


def _no_home(self: Path) -> Path:
    raise RuntimeError
