"""The published rows of every system are those of the paper's tables."""

from __future__ import annotations

import pytest

from gms_rt.evaluate.published import CROSS, GMS
from gms_rt.evaluate.published_systems import BY_KEY, DATASETS, PAIRS, SYSTEMS, systems_of_table
from gms_rt.model.comparators.registry import COMPARATORS


def test_every_system_of_the_tables_is_there_in_their_order() -> None:
    assert [s.title for s in systems_of_table(1)] == [
        "UNet", "MultiResUNet", "ACC-UNet", "nnUNet", "EGE-UNet", "SwinUNet", "SME-SwinUNet", "UCTransNet",
        "MedSegDiff-V2", "SDSeg", "GSS", "GMS",
    ]  # fmt: skip
    assert [s.title for s in systems_of_table(3)][7:10] == ["UCTransNet", "MixStyle", "DSU"]
    assert len(list(systems_of_table(3))) == len(SYSTEMS) == len(BY_KEY) == 14


def test_every_comparator_has_its_row_with_its_parameters() -> None:
    named = [facts for facts in COMPARATORS if facts.name in BY_KEY]
    assert {facts.name for facts in COMPARATORS} - {facts.name for facts in named} == {"depthwise-unet", "basic-unet"}
    for facts in named:
        assert (BY_KEY[facts.name].title, BY_KEY[facts.name].parameters) == (facts.title, facts.published)


def test_gms_stands_there_once() -> None:
    assert BY_KEY["gms"].results is GMS
    assert BY_KEY["gms"].cross is CROSS


@pytest.mark.parametrize(
    ("key", "name", "numbers"),
    [
        ("unet", "bus", (81.50, 70.77, 17.68)),
        ("nnu-net", "kvasir-instrument", (93.95, 90.20, 8.51)),
        ("gss", "ham10000", (92.92, 87.98, 11.29)),
        ("swin-unet", "glas", (86.44, 76.89, 19.63)),
    ],
)
def test_numbers_stand_at_their_data_set(key: str, name: str, numbers: tuple[float, ...]) -> None:
    assert BY_KEY[key].results[name] == numbers


def test_numbers_are_plausible_where_the_paper_s_are() -> None:
    """IoU is below DSC; a mean IoU cannot be above the DSC's own, which a slip of columns would break."""
    for system in SYSTEMS:
        assert set(system.cross) == set(PAIRS)
        for name in system.results:
            dsc, iou, hd95 = system.results[name]
            assert name in DATASETS
            assert iou is not None
            assert 55 < iou < dsc < 100
            assert hd95 < 40
    assert BY_KEY["deeplabv3-dsu"].cross["bus", "busi"] == (56.70, None, 95.31)
