"""Layouts as the sites ship them, merged masks, and case names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.phantom_folders import write_phantoms, write_picture

from gms_rt.data.layouts import Dataset, found_below, recognise
from gms_rt.data.reading import read_case, read_mask
from gms_rt.errors import InputError, UsageError
from gms_rt.scan.reader import first_image

GREY = np.full((20, 30), 90, np.uint8)
COLOUR = np.full((20, 30, 3), (10, 20, 30), np.uint8)


def square(top: int, value: int = 255) -> np.ndarray:
    mask = np.zeros((20, 30), np.uint8)
    mask[top : top + 4, 5:9] = value
    return mask


def busi(root: Path) -> None:
    base = root / "Dataset_BUSI_with_GT"
    for group, masks in (("benign", 2), ("malignant", 1), ("normal", 1)):
        write_picture(base / group / f"{group} (1).png", COLOUR)
        for number in range(masks):
            ending = "_mask" if number == 0 else f"_mask_{number}"
            write_picture(
                base / group / f"{group} (1){ending}.png", square(2 + 8 * number, 0 if group == "normal" else 255)
            )


def glas(root: Path) -> None:
    for name in ("train_1", "train_2", "testA_1", "testB_1"):
        write_picture(root / "Warwick QU Dataset" / f"{name}.bmp", COLOUR)
        write_picture(root / "Warwick QU Dataset" / f"{name}_anno.bmp", square(2, 3) + square(10, 1))


def ham10000(root: Path) -> None:
    for part, name in (("1", "ISIC_0024306"), ("2", "ISIC_0029306")):
        write_picture(root / f"HAM10000_images_part_{part}" / f"{name}.jpg", COLOUR)
        masks = root / "HAM10000_segmentations_lesion_tschandl"
        write_picture(masks / f"{name}_segmentation.png", square(3))


def bus(root: Path) -> None:
    for name in ("000001", "000002"):
        write_picture(root / "BUS" / "original" / f"{name}.png", GREY)
        write_picture(root / "BUS" / "GT" / f"{name}.png", square(3))


def kvasir(root: Path) -> None:
    for name in ("abc", "def"):
        write_picture(root / "kvasir-instrument" / "images" / f"{name}.jpg", COLOUR)
        write_picture(root / "kvasir-instrument" / "masks" / f"{name}.png", square(3))
    (root / "kvasir-instrument" / "train.txt").write_text("abc\n")
    (root / "kvasir-instrument" / "test.txt").write_text("def\n")


def found(root: Path, write: object) -> Dataset:
    assert callable(write)
    write(root)
    return recognise(root)


def test_busi_as_shipped(tmp_path: Path) -> None:
    data = found(tmp_path, busi)
    assert [(c.name, c.group, len(c.masks)) for c in data.cases] == [
        ("benign_1", "benign", 2),
        ("malignant_1", "malignant", 1),
        ("normal_1", "normal", 1),
    ]
    merged = read_mask(data.cases[0])
    assert np.array_equal(merged, square(2) | square(10))
    assert not read_mask(data.cases[2]).any()


def test_glas_as_shipped(tmp_path: Path) -> None:
    data = found(tmp_path, glas)
    assert data.lists == {"train": ("train_1", "train_2"), "test": ("testA_1", "testB_1")}
    assert np.array_equal(read_mask(data.cases[0]), square(2) | square(10)), "each gland is foreground"


@pytest.mark.parametrize(
    ("write", "names"),
    [(ham10000, ["ISIC_0024306", "ISIC_0029306"]), (bus, ["000001", "000002"]), (kvasir, ["abc", "def"])],
)
def test_other_layouts(tmp_path: Path, write: object, names: list[str]) -> None:
    data = found(tmp_path, write)
    assert [case.name for case in data.cases] == names
    for case in data.cases:
        image, mask = read_case(case)
        assert image.shape == (20, 30, 3)
        assert np.array_equal(mask, square(3))


def test_kvasir_brings_its_lists(tmp_path: Path) -> None:
    assert found(tmp_path, kvasir).lists == {"train": ("abc",), "test": ("def",)}


def test_any_pair_of_folders_and_what_has_no_partner(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "x", 3)
    write_picture(tmp_path / "x" / "images" / "lonely.png", COLOUR)
    write_picture(tmp_path / "x" / "masks" / "stray.png", GREY)
    data = recognise(tmp_path / "x")
    assert (data.name, len(data.cases)) == ("x", 3)
    assert [path.name for path in data.without_mask] == ["lonely.png"]
    assert [path.name for path in data.without_image] == ["stray.png"]
    assert list(found_below(tmp_path)) == [tmp_path / "x"]
    assert recognise(tmp_path).root == tmp_path / "x", "one wrapping folder is looked through"
    write_phantoms(tmp_path / "y", 1)
    with pytest.raises(UsageError, match=r"several data sets \(x, y\)"):
        recognise(tmp_path)


def test_what_is_no_data_set_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"images/ and masks"):
        recognise(tmp_path)
    with pytest.raises(UsageError, match="is not a folder"):
        recognise(tmp_path / "absent")
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(UsageError, match="no image has a mask"):
        recognise(tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    write_phantoms(tmp_path, 1)
    write_picture(tmp_path / "images" / "case_00.jpg", COLOUR)
    with pytest.raises(UsageError, match="two images are named case_00"):
        recognise(tmp_path)


def test_masks_of_many_kinds(tmp_path: Path) -> None:
    write_phantoms(tmp_path, 1)
    path = tmp_path / "masks" / "case_00.png"
    truth = np.zeros((48, 64), bool)
    truth[5:20, 5:20] = True
    labels = truth.astype(np.uint8) * 2
    palette = Image.fromarray(labels).convert("P")
    palette.putpalette([0, 0, 0] * 3)
    rgba = np.dstack([truth * 255] * 3 + [np.full_like(truth, 255, np.uint8)]).astype(np.uint8)
    noisy = np.where(truth, 240, 11).astype(np.uint8)
    for picture in (
        Image.fromarray(truth),
        Image.fromarray(labels),
        palette,
        Image.fromarray(rgba),
        Image.fromarray(noisy),
        Image.fromarray(labels.astype(np.uint16)),
    ):
        picture.save(path)
        assert np.array_equal(read_mask(recognise(tmp_path).cases[0]) > 0, truth), picture.mode


def test_pictures_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    write_phantoms(tmp_path, 2)
    path = tmp_path / "images" / "case_00.png"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match="truncated PNG"):
        first_image(path)
    path.write_bytes(b"<svg/>")
    with pytest.raises(InputError, match="is an SVG drawing, which is not supported"):
        first_image(path)
    mask = tmp_path / "masks" / "case_00.png"
    whole = mask.read_bytes()
    for data, words in ((whole[:-60], "cannot be read"), (b"<svg/>", "is not a picture")):
        mask.write_bytes(data)
        with pytest.raises(InputError, match=words):
            read_mask(recognise(tmp_path).cases[0])
    write_picture(tmp_path / "masks" / "case_01.png", GREY)
    with pytest.raises(InputError, match="its mask is 30x20, the image 64x48"):
        read_case(recognise(tmp_path).cases[1])


def test_deep_pictures_and_dicom_are_read_as_infer_reads_them(tmp_path: Path) -> None:
    from support.dicom_files import dataset, save

    deep = (np.arange(600, dtype=np.uint16).reshape(20, 30) * 5).copy()
    write_picture(tmp_path / "images" / "a.png", deep)
    save(dataset(deep, "CT", RescaleIntercept=-1024, RescaleSlope=1), tmp_path / "images" / "b.dcm")
    for name in "ab":
        write_picture(tmp_path / "masks" / f"{name}.png", square(2))
    found = recognise(tmp_path)
    assert [case.name for case in found.cases] == ["a", "b"]
    for case in found.cases:
        image, mask = read_case(case)
        assert np.array_equal(image, first_image(case.image))
        assert image.shape == (20, 30, 3)
        assert image.max() == 255
        assert np.array_equal(mask, square(2))
