"""The model of an archive's workers follows from its service times where those can be worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from support.benchmark_scripts import benchmark_script


@pytest.fixture(scope="module")
def model() -> Any:
    return benchmark_script("scale_model")


def test_workers_count_until_a_station_is_full(model: Any) -> None:
    costs = model.Costs(work=0.05, record=0.0002, moved=5e5, link=1.25e9, delay=0.02)
    rows = [model.simulate(count, costs, chunks_each=20) for count in (1, 10, 100, 1000)]
    assert [row["images_per_second"] for row in rows] == pytest.approx([20, 200, 2000, 2500], rel=0.05)
    assert [model.bottleneck(row) for row in rows] == ["workers", "workers", "workers", "storage"]
    assert rows[-1]["workers_busy"] < 0.2


def test_the_one_who_gives_out_work_is_a_limit_too(model: Any) -> None:
    costs = model.Costs(work=0.05, record=0.001, moved=1e4, link=1.25e9, delay=0.0)
    row = model.simulate(200, costs, chunks_each=20)
    assert row["images_per_second"] == pytest.approx(1000, rel=0.02)
    assert model.bottleneck(row) == "driver"
