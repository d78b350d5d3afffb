"""Calibration and gate images: found in folders and lists, read as infer reads them, never the same twice."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from support.dicom_files import dataset, save
from support.infer_engine import SIZE, brightness_engine
from support.precision_graphs import scenes

from gms_rt.arrays import U8
from gms_rt.errors import UsageError
from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases
from gms_rt.precision.images import ImageSet, check_disjoint, halves, read_images
from gms_rt.scan.video import VideoWriter


def deep_scene(seed: int, bits: int) -> np.ndarray:
    """A dark scene in the low `bits` of 16, as detectors store them."""
    grey = scenes(1, seed=seed)[0].mean(axis=2)
    return np.asarray(grey / 255 * (2**bits - 1), np.uint16)


def deep_scans(folder: Path, first: int) -> Path:
    """Two 16-bit pictures, two DICOM files, one of them without a suffix and one of several frames."""
    folder.mkdir()
    assert cv2.imwrite(str(folder / "twelve.png"), deep_scene(first, 12))
    colour = np.dstack([deep_scene(first + n, 10) for n in (1, 2, 3)])
    assert cv2.imwrite(str(folder / "ten.tif"), colour)
    save(dataset(deep_scene(first + 4, 12), "CT", RescaleIntercept=-1024, RescaleSlope=1), folder / "IM0001")
    loop = np.stack([scenes(1, seed=first + n)[0].mean(axis=2).astype(np.uint8) for n in (5, 6)])
    save(dataset(loop, "USMF", frames=2), folder / "loop.dcm")
    return folder


def seen_by_infer(scan: Path, out: Path) -> U8:
    """What the engine is given for a scan's first frame."""
    engine = brightness_engine(out / "engine")
    compute, given = engine.runner.infer, []

    def record(images: U8) -> U8:
        given.append(images[0].copy())
        return compute(images)

    engine.runner.infer = record  # type: ignore[method-assign]
    with OutFolder(out / "masks") as held:
        job = InferJob(engine, held, InferOptions(dicom_seg=False), workers=1)
        assert run_cases(find_sources([str(scan)]), job).failed == 0
    return given[0]


def test_deep_pictures_and_dicom_are_calibrated_and_gated_on_the_pixels_that_infer_sees(tmp_path: Path) -> None:
    calibration = read_images(deep_scans(tmp_path / "calibration", 0), SIZE, SIZE)
    gate = read_images(deep_scans(tmp_path / "gate", 20), SIZE, SIZE, skip=frozenset(calibration.each_sha256()))
    for found, name in ((calibration, "calibration"), (gate, "gate")):
        assert len(found.images) == 4
        for scan, image in zip(sorted((tmp_path / name).iterdir()), found.images, strict=True):
            assert np.array_equal(image, seen_by_infer(scan, tmp_path / f"infer-{name}-{scan.name}"))
            assert int(image.max()) - int(image.min()) > 150, "near black is how such pictures were once calibrated"
    check_disjoint(calibration, gate)


def test_a_list_of_deep_scans_reads_as_their_folder(tmp_path: Path) -> None:
    folder = deep_scans(tmp_path / "scans", 0)
    listed = tmp_path / "calib.txt"
    listed.write_text("\n".join(f"scans/{name}" for name in ("IM0001", "loop.dcm", "ten.tif", "twelve.png")))
    assert np.array_equal(read_images(listed, SIZE, SIZE).images, read_images(folder, SIZE, SIZE).images)
    assert len(read_images(folder / "IM0001", SIZE, SIZE).images) == 1


def test_a_video_gives_its_first_frame(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "clip.mp4", 64, 48, 10)
    for number in (1, 2, 3):
        writer.put(number, np.full((48, 64, 3), 60 * number, np.uint8))
    writer.close()
    (only,) = read_images(tmp_path, 48, 64).images
    assert abs(int(only.mean()) - 60) < 10


def test_webp_is_still_read(tmp_path: Path) -> None:
    scene = scenes(1, seed=3)[0]
    assert cv2.imwrite(str(tmp_path / "scene.webp"), scene[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101])
    assert np.array_equal(read_images(tmp_path, *scene.shape[:2]).images[0], scene)


def test_images_from_folder_and_list(tmp_path: Path) -> None:
    for number, image in enumerate(scenes(5)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    (tmp_path / "notes.md").write_text("not an image")
    both = read_images(tmp_path, 32, 48)
    assert both.images.shape == (5, 32, 48, 3)
    listed = tmp_path / "list.txt"
    listed.write_text("# chosen\n3.png\n1.png\n")
    some = read_images(listed, 32, 48)
    assert np.array_equal(some.images[1], both.images[1])
    assert len(read_images(tmp_path, 32, 48, limit=2).images) == 2
    rest = read_images(tmp_path, 32, 48, skip=frozenset(some.each_sha256()))
    assert len(rest.images) == 3
    check_disjoint(some, rest)
    with pytest.raises(UsageError, match="2 gate images are also calibration images"):
        check_disjoint(some, both)


def test_image_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_images(tmp_path / "absent", 8, 8)
    with pytest.raises(UsageError, match="has no images"):
        read_images(tmp_path, 8, 8)
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(UsageError, match=r"bad\.png: is not a PNG.*remove it from the folder or list"):
        read_images(tmp_path, 8, 8)


def test_halves_never_share_an_image() -> None:
    images = scenes(6)
    first, rest = halves(ImageSet(np.concatenate([images, images[:1]]), "s"))
    check_disjoint(first, rest)
    assert (len(first.images), len(rest.images)) == (3, 4)
    with pytest.raises(UsageError, match="same image again"):
        halves(ImageSet(np.repeat(images[:1], 3, axis=0), "s"))


def test_set_hash_ignores_order() -> None:
    images = scenes(4)
    assert ImageSet(images, "a").sha256 == ImageSet(images[::-1], "b").sha256
    assert ImageSet(images, "a").sha256 != ImageSet(images[:3], "a").sha256
