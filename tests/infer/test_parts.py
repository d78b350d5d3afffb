"""The steps between a probability map and its files: clean-up, confidence, measures, tiles, flips."""

from __future__ import annotations

import csv
import io
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from support.infer_engine import SIZE, brightness_engine

from gms_rt.errors import UsageError
from gms_rt.infer.channel import Budget, Channel
from gms_rt.infer.confidence import confidence
from gms_rt.infer.measure import COLUMNS, CaseTable, as_text, measure_mask
from gms_rt.infer.options import InferOptions
from gms_rt.infer.outputs import draw_overlay
from gms_rt.infer.postprocess import clean_mask, fill_holes, keep_regions
from gms_rt.infer.predict import Predictor
from gms_rt.infer.tiles import predict_in_tiles, starts
from gms_rt.runtime.masks import png_of_mask
from gms_rt.scan.flips import infer_over_flips
from gms_rt.scan.segmenter import Segmenter
from gms_rt.spreadsheet import text_from_cell

MASKS = hnp.arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.sampled_from([0, 255]))
CORNERS = np.ones((3, 3))


@given(MASKS)
def test_holes_are_filled_as_scipy_fills_them(mask: Any) -> None:
    assert np.array_equal(fill_holes(mask) != 0, ndimage.binary_fill_holes(mask != 0))


@given(MASKS, st.integers(0, 6))
def test_regions_are_chosen_by_size(mask: Any, least: int) -> None:
    labels, count = ndimage.label(mask, CORNERS)
    areas = np.bincount(labels.reshape(-1), minlength=count + 1)
    expected = np.isin(labels, [i for i in range(1, count + 1) if areas[i] >= least])
    assert np.array_equal(keep_regions(mask, largest=False, min_area=least) != 0, expected)
    largest = keep_regions(mask, largest=True, min_area=0)
    assert np.count_nonzero(largest) == (areas[1:].max() if count else 0)
    assert ndimage.label(largest, CORNERS)[1] <= 1


@given(MASKS)
def test_nothing_is_changed_unasked(mask: Any) -> None:
    assert clean_mask(mask) is mask


def test_confidence_means_what_it_says() -> None:
    assert confidence(np.zeros((4, 4), np.uint8)) == 1.0
    assert confidence(np.full((4, 4), 255, np.uint8)) == 1.0
    assert confidence(np.full((4, 4), 128, np.uint8)) < 0.01
    sure = np.zeros((10, 10), np.uint8)
    sure[2:5, 2:5] = 255
    unsure = sure.copy()
    unsure[5:7, 2:5] = 120
    assert confidence(unsure) < confidence(sure) == 1.0
    # Background far from the threshold does not dilute it.
    assert confidence(np.pad(unsure, 50)) == confidence(unsure)


@given(hnp.arrays(np.uint8, (5, 5)), st.floats(0.05, 0.95))
def test_confidence_lies_between_0_and_1(probability: Any, threshold: float) -> None:
    assert 0 <= confidence(probability, threshold) <= 1


@given(MASKS)
def test_measures_agree_with_scipy(mask: Any) -> None:
    row = measure_mask(mask, (0.5, 2.0))
    assert row["area_px"] == np.count_nonzero(mask)
    assert row["area_mm2"] == row["area_px"]
    assert row["components"] == ndimage.label(mask, CORNERS)[1]
    assert row["status"] == ("ok" if mask.any() else "empty")
    if mask.any():
        y, x = ndimage.center_of_mass(mask)
        assert (row["centroid_x"], row["centroid_y"]) == pytest.approx((x, y), abs=0.006)
        left, top, width, height = map(int, row["bbox"].split())
        rows, columns = np.nonzero(mask)
        assert (left, top) == (columns.min(), rows.min())
        assert (left + width - 1, top + height - 1) == (columns.max(), rows.max())


@given(st.text(max_size=30), st.text(max_size=30))
def test_the_table_keeps_every_name(case: str, error: str) -> None:
    case, error = (t.encode("utf-8", "ignore").decode() for t in (case, error))
    stream = io.StringIO(newline="")
    CaseTable(stream).add({"case": case, "error": error, "area_px": 3, "status": "ok"})
    header, row = csv.reader(io.StringIO(stream.getvalue(), newline=""))
    assert tuple(header) == COLUMNS
    assert (text_from_cell(row[0]), text_from_cell(row[COLUMNS.index("error")])) == (case, error)
    assert row[COLUMNS.index("area_px")] == "3"


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0.png", "+1.png", "-1.png", "@SUM(A1).png", "\t=1.png", "\r=1.png"])
def test_a_spreadsheet_computes_nothing_from_a_name(name: str) -> None:
    stream = io.StringIO(newline="")
    CaseTable(stream).add({"case": name, "source": name, "centroid_x": -1.5, "error": f"{name} is damaged"})
    _, row = csv.reader(io.StringIO(stream.getvalue(), newline=""))
    assert row[COLUMNS.index("centroid_x")] == "-1.5", "numbers stay numbers"
    assert [row[COLUMNS.index(column)] for column in ("case", "source", "error")] == [
        f"'{name}", f"'{name}", f"'{name} is damaged"
    ]  # fmt: skip


def test_names_that_are_no_unicode_are_shown() -> None:
    assert as_text(b"caf\xe9.png".decode("utf-8", "surrogateescape")) == "caf\\xe9.png"


def test_overlay_marks_the_mask_only() -> None:
    image, mask = np.full((60, 60), 100, np.uint8), np.zeros((60, 60), np.uint8)
    mask[20:40, 20:40] = 255
    shown = draw_overlay(image, mask)
    assert (shown[:15] == 100).all()
    assert shown[30, 30, 0] > shown[30, 30, 1]
    assert image.max() == 100


@given(MASKS)
def test_mask_files_are_the_same_bytes_every_time_and_hold_the_mask(mask: Any) -> None:
    data = png_of_mask(mask)
    assert data == png_of_mask(mask.copy())
    assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), mask)


@given(st.integers(1, 3000), st.integers(32, 400), st.floats(0, 0.75))
def test_tiles_cover_everything_with_the_overlap(length: int, tile: int, overlap: float) -> None:
    begins = starts(length, tile, overlap)
    assert begins[0] == 0
    assert begins[-1] == max(0, length - tile)
    steps = np.diff(begins)
    assert (steps > 0).all()
    assert (steps <= max(1, round(tile * (1 - overlap))) + 1).all()


@pytest.mark.parametrize("shape", [(300, 401), (64, 500), (40, 30), (1, 1), (64, 64)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.7])
def test_tiling_a_pixelwise_model_changes_nothing(shape: tuple[int, int], overlap: float) -> None:
    image = np.random.default_rng(5).integers(0, 256, shape, np.uint8)
    result = predict_in_tiles(image, Segmenter(lambda images: images[..., 0], 64, 64), 64, overlap)
    assert result.shape == shape
    assert np.abs(result.astype(int) - image).max() <= 1


def test_blending_leaves_no_seam() -> None:
    # A model that is wrong near its tile's edges: blended, the error is far smaller than the step it makes.
    error = np.zeros((64, 64), np.uint8)
    error[:, :4] = error[:, -4:] = 100
    wrong = Segmenter(lambda images: np.stack([error] * len(images)), 64, 64)
    result = predict_in_tiles(np.zeros((64, 600), np.uint8), wrong, 64, 0.5)
    assert result[:, 70:530].max() < 15


def test_tiles_of_another_size_than_the_network(tmp_path: Path) -> None:
    engine = brightness_engine(tmp_path)
    image = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (300, 260, 3), np.uint8), (0, 0), 12)
    (result,) = Predictor(engine, InferOptions(tile=128)).predict([image])
    assert result.shape == (300, 260)
    assert np.abs(result.astype(int) - image.mean(-1)).max() < 6
    assert engine.runner.info.height == SIZE


def test_flips_are_averaged_and_flipped_back(tmp_path: Path) -> None:
    engine = brightness_engine(tmp_path)
    images = np.random.default_rng(2).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    plain = Predictor(engine, InferOptions()).predict(list(images))
    flipped = Predictor(engine, InferOptions(tta=True)).predict(list(images))
    assert all(np.array_equal(a, b) for a, b in zip(plain, flipped, strict=True))

    # A model that answers only on the left: averaged over flips, every side has its share.
    def left(images: Any) -> Any:
        maps = np.zeros(images.shape[:3], np.uint8)
        maps[:, : SIZE // 2, : SIZE // 2] = 200
        return maps

    engine.runner.infer = left  # type: ignore[method-assign]
    (averaged,) = Predictor(engine, InferOptions(tta=True)).predict([images[0]])
    assert np.allclose(averaged, 50)
    (mirrored,) = Predictor(engine, InferOptions(tta=True, flips="horizontal")).predict([images[0]])
    assert np.allclose(mirrored[: SIZE // 2], 100)
    assert not mirrored[SIZE // 2 :].any()


def test_quarter_turns_are_averaged_and_turned_back(tmp_path: Path) -> None:
    engine = brightness_engine(tmp_path)
    image = np.random.default_rng(3).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    plain = Predictor(engine, InferOptions()).predict([image])
    turned = Predictor(engine, InferOptions(tta=True, flips="quarter-turns")).predict([image])
    assert np.array_equal(plain[0], turned[0]), "a model without a sense of direction draws the same"

    seen: list[bytes] = []

    def strip_at_the_top(images: Any) -> Any:
        seen.extend(one.tobytes() for one in images)
        maps = np.zeros(images.shape[:3], np.uint8)
        maps[:, : SIZE // 4] = 80
        return maps

    engine.runner.infer = strip_at_the_top  # type: ignore[method-assign]
    (averaged,) = Predictor(engine, InferOptions(tta=True, flips="quarter-turns")).predict([image])
    views = [np.rot90(side, turns) for side in (image, image[:, ::-1]) for turns in range(4)]
    assert {np.ascontiguousarray(view).tobytes() for view in views} == set(seen), "each of the eight views once"
    assert len(seen) == 8
    # What a strip at the top gives: two of eight views put it along each border, and corners get both borders' share.
    assert np.allclose(averaged[0, SIZE // 2], 20)
    assert np.allclose(averaged[SIZE // 2, [0, -1]], 20)
    assert np.allclose(averaged[0, 0], 40)
    assert not averaged[SIZE // 2, SIZE // 2]


def test_quarter_turns_of_a_model_that_is_not_square_are_refused() -> None:
    def infer(images: Any) -> Any:
        return images[..., 0]

    with pytest.raises(UsageError, match="32x48") as refused:
        infer_over_flips(infer, "quarter-turns", 32, 48)
    assert "--flips both" in str(refused.value)
    image = np.random.default_rng(4).integers(0, 256, (1, 32, 48, 3), np.uint8)
    for which in ("both", "horizontal"):
        assert np.allclose(infer_over_flips(infer, which, 32, 48)(image), image[..., 0])


@pytest.mark.parametrize("options", [
    {"threshold": 0.0}, {"threshold": 1.0}, {"tile": 8}, {"overlap": 0.9}, {"min_area": -1}, {"refer_below": 2.0},
    {"max_pixels": 0}, {"flips": "both"}, {"tta": True, "flips": "vertical"}, {"threshold": float("nan")},
])  # fmt: skip
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        InferOptions(**options)


def test_the_key_follows_what_decides_the_files() -> None:
    key = InferOptions().key("engine")
    assert InferOptions(refer_below=0.5, max_pixels=5).key("engine") == key
    assert InferOptions(threshold=0.4).key("engine") != key
    assert InferOptions().key("other") != key


def test_a_channel_is_bounded_and_ends() -> None:
    channel: Channel[int] = Channel(2)
    taken: list[int] = []
    reader = threading.Thread(
        target=lambda: taken.extend(x for batch in iter(lambda: channel.get(3), []) for x in batch)
    )
    assert channel.put(1)
    assert channel.put(2)
    blocked = threading.Thread(target=channel.put, args=(3,))
    blocked.start()
    blocked.join(0.05)
    assert blocked.is_alive()
    reader.start()
    blocked.join(5)
    channel.close()
    reader.join(5)
    assert taken == [1, 2, 3]
    channel.cancel()
    assert not channel.put(4)
    assert channel.get() == []


def test_a_channel_waits_for_what_is_coming_and_no_longer() -> None:
    channel: Channel[int] = Channel(8)
    coming = 3
    gatherer = threading.Thread(target=channel.gather, args=(8, lambda: coming, 60.0))
    gatherer.start()
    for number in (1, 2):
        assert channel.put(number)
        gatherer.join(0.05)
        assert gatherer.is_alive()
    assert channel.put(3)
    gatherer.join(5)
    assert not gatherer.is_alive()
    channel.gather(2, lambda: 100, 60.0)  # as many as are wanted are there
    channel.gather(8, lambda: 100, 0.01)  # the others do not come in time
    assert channel.get(8) == [1, 2, 3]
    channel.gather(8, lambda: 0, 60.0)  # nothing is coming


@pytest.mark.parametrize("end", ["close", "cancel"])
def test_nobody_gathers_from_a_channel_that_has_ended(end: str) -> None:
    channel: Channel[int] = Channel(8)
    gatherer = threading.Thread(target=channel.gather, args=(8, lambda: 5, 60.0))
    gatherer.start()
    gatherer.join(0.05)
    assert gatherer.is_alive()
    getattr(channel, end)()
    gatherer.join(5)
    assert not gatherer.is_alive()


def test_a_budget_lets_one_large_frame_through_alone() -> None:
    budget = Budget(10)
    assert budget.take(50)
    waiting = threading.Thread(target=budget.take, args=(1,))
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    budget.give(50)
    waiting.join(5)
    assert not waiting.is_alive()
    budget.cancel()
    assert not budget.take(1)
