"""NIfTI volumes in: axes, values that are missing, colours, units, and bytes that changed on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gms_rt.errors import InputError, MissingExtraError
from gms_rt.scan import window
from gms_rt.scan.nifti import read_nifti

VOLUME = np.random.default_rng(1).integers(0, 900, (40, 50, 9)).astype(np.int16)


def saved(volume: Any, path: Path, **header: Any) -> Path:
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(volume, np.diag([0.5, 0.25, 2, 1]))
    image.header.set_xyzt_units(header.get("units", "mm"))
    nibabel.save(image, path)
    return path


def test_nifti_slices_follow_the_third_axis(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    volume = np.zeros((5, 7, 3), np.int16)
    volume[4, 0, 1] = 1000  # x = 4, y = 0
    image = nibabel.Nifti1Image(volume, np.diag([0.5, 0.25, 2, 1]))
    nibabel.save(image, tmp_path / "v.nii.gz")
    reading = read_nifti(tmp_path / "v.nii.gz")
    frames = list(reading.frames)
    assert (reading.multi, len(frames)) == (True, 3)
    assert frames[1].image.shape == (7, 5)
    assert np.argwhere(frames[1].image).tolist() == [[0, 4]]
    assert frames[1].spacing == (0.25, 0.5)
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes((tmp_path / "v.nii.gz").read_bytes()[:90])
    with pytest.raises(InputError):
        list(read_nifti(cut).frames)


def test_nifti_without_nibabel_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'gms-rt\[nifti\]'"):
        read_nifti(tmp_path / "v.nii")


def test_every_flipped_bit_of_compressed_voxels_is_noticed(tmp_path: Path) -> None:
    whole = saved(VOLUME, tmp_path / "v.nii.gz").read_bytes()
    assert len(list(read_nifti(tmp_path / "v.nii.gz").frames)) == 9
    unnoticed = []
    for number in range(40):  # the first bytes are gzip's own: a time and a name, which no checksum covers
        place = 100 + number * (len(whole) - 100) // 40
        bent = bytearray(whole)
        bent[place] ^= 1 << number % 8
        (tmp_path / "bent.nii.gz").write_bytes(bent)
        try:
            list(read_nifti(tmp_path / "bent.nii.gz").frames)
        except InputError:
            continue
        unnoticed.append(place)
    assert not unnoticed


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nan_and_infinity_are_background_with_a_note(ending: str, tmp_path: Path) -> None:
    values = VOLUME.astype(np.float32)
    values[:20] = np.nan
    values[25, 3, 4], values[25, 3, 5] = np.inf, -np.inf
    frames = list(read_nifti(saved(values, tmp_path / f"v{ending}")).frames)
    bad = 20 * 50 * 9 + 2
    assert all(frame.window.endswith(f", whole volume, {bad} NaN or infinite as background") for frame in frames)
    assert not frames[4].image[:, :20].any()
    assert frames[4].image[3, 25] == 0
    low, high = window.percentiles(values.ravel(order="F"))
    finite = window.to_8bit(VOLUME[26:, :, 4].T, low, high)
    assert np.array_equal(frames[4].image[:, 26:], finite)
    with pytest.raises(InputError, match="only pixels that are NaN"):
        list(read_nifti(saved(np.full_like(values, np.nan), tmp_path / f"gone{ending}")).frames)


def test_colours_stay_as_stored(tmp_path: Path) -> None:
    colours = np.random.default_rng(2).integers(0, 256, (5, 7, 2, 3)).astype(np.uint8)
    packed = colours.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    frames = list(read_nifti(saved(packed, tmp_path / "rgb.nii.gz")).frames)
    assert np.array_equal(frames[1].image, colours[:, :, 1].swapaxes(0, 1))
    assert frames[1].window == "8 bit as stored, RGB"


def test_complex_values_are_refused_in_words(tmp_path: Path) -> None:
    path = saved(VOLUME.astype(np.complex64), tmp_path / "c.nii")
    with pytest.raises(InputError, match="complex numbers"):
        read_nifti(path)


@pytest.mark.parametrize(("units", "spacing"), [("mm", (0.25, 0.5)), ("meter", (250, 500)), ("micron", (25e-5, 5e-4))])
def test_spacing_is_in_millimetres_whatever_the_unit(units: str, spacing: tuple[float, float], tmp_path: Path) -> None:
    frame = next(iter(read_nifti(saved(VOLUME, tmp_path / "v.nii", units=units)).frames))
    assert frame.spacing == pytest.approx(spacing)


def test_an_axis_of_one_at_the_end_does_not_matter(tmp_path: Path) -> None:
    assert len(list(read_nifti(saved(VOLUME[..., None, None], tmp_path / "v.nii")).frames)) == 9
    with pytest.raises(InputError, match="5 axes"):
        read_nifti(saved(np.stack([VOLUME, VOLUME], -1)[:, :, :, None], tmp_path / "w.nii"))


def test_other_files_of_the_family_are_named(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    axes = (nibabel.cifti2.ScalarAxis(["a"]), nibabel.cifti2.BrainModelAxis.from_mask(np.ones(4), "CORTEX_LEFT"))
    nibabel.save(nibabel.Cifti2Image(np.zeros((1, 4), np.float32), axes), tmp_path / "x.dscalar.nii")
    with pytest.raises(InputError, match="Cifti2 file, not a volume, which is not supported"):
        read_nifti(tmp_path / "x.dscalar.nii")
