"""Any file: what is not read is named as what it is, and what may not be read does not go missing."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gms_rt.errors import InputError, UsageError
from gms_rt.infer.sources import find_sources
from gms_rt.scan.reader import fetch, is_scan


@pytest.mark.parametrize(("name", "start", "words"), [
    ("a.gif", b"GIF89a", "is a GIF picture, which is not supported; save it as PNG or TIFF"),
    ("a.png", b"8BPS\0\1", "is a Photoshop file"),
    ("a.heic", b"\0\0\0\x18ftypheic", "is a HEIC picture"),
    ("a.jpg", b"\0\0\0\x1cftypavif", "is an AVIF picture"),
    ("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n", "is a JPEG 2000 picture"),
    ("a.jxl", b"\xff\x0a\xfa", "is a JPEG XL picture"),
    ("a.pdf", b"%PDF-1.7", "is a PDF document"),
    ("a.svg", b"<?xml version='1.0'?>\n<svg xmlns=''>", "is an SVG drawing"),
    ("a.png", b"<!doctype html><html>", "is a text file in XML or HTML, which is not supported"),
    ("a.exr", b"v/1\x01", "is an OpenEXR picture"),
    ("a.nrrd", b"NRRD0004\n", "is an NRRD volume, which is not supported; convert it to NIfTI or DICOM"),
    ("a.mha", b"ObjectType = Image\n", "is a MetaImage volume"),
    ("a.pgm", b"P5\n4 4\n255\n", "is a Netpbm picture"),
    ("a.svs", b"II*\0", "is a whole-slide image, which is not supported; save the region"),
    ("a.mrxs", b"\xff\xd8\xff\xe0", "is a whole-slide image"),
    ("a.dcm", b"PK\x03\x04", "is a ZIP archive, which is not supported; unpack it first"),
    ("a.bin", b"\1\2\3\4", "is not a PNG, JPEG, TIFF, BMP or WebP picture"),
])  # fmt: skip
def test_a_format_that_is_not_read_is_not_called_damaged(name: str, start: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(start + bytes(300))
    with pytest.raises(InputError) as caught:
        fetch(path).open()
    assert caught.value.line().startswith(words)
    assert "damaged" not in caught.value.line()


@pytest.mark.parametrize(("ending", "change", "words"), [
    (".bmp", (30, b"\x06"), "of a kind that is not supported"),
    (".png", (40, b"\xff\xff\xff\xff"), "is a damaged PNG"),
])  # fmt: skip
def test_kinds_that_are_not_supported_are_told_from_damage(
    ending: str, change: tuple[int, bytes], words: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a{ending}"
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    data[change[0] : change[0] + len(change[1])] = change[1]
    path.write_bytes(data)
    with pytest.raises(InputError, match=words):
        list(fetch(path).open().frames)


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Without root's right to read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def study() -> Iterator[Path]:
    """A folder that everyone may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    for name in ("open.png", "closed.png", "closed", "notes.md", "locked/a.png", "listed/b.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(folder / name, "PNG")
    for name, mode in (("closed.png", 0), ("closed", 0), ("locked", 0), ("listed", 0o444)):
        (folder / name).chmod(mode)
    if os.geteuid() == 0:
        os.chown(folder / "listed", 65534, 65534)
    yield folder
    for name in ("locked", "listed"):
        (folder / name).chmod(0o755)
    shutil.rmtree(folder)


def test_what_may_not_be_read_is_a_case_with_its_reason(study: Path) -> None:
    with nobody():
        found = find_sources([str(study)])
        reasons = {}
        for source in found.sources:
            try:
                fetch(source.path)
            except InputError as error:
                reasons[source.name] = error.what
    assert [source.name for source in found.sources] == ["closed", "closed.png", "listed/b.png", "locked", "open.png"]
    assert reasons == {
        "closed": "cannot be read (Permission denied)",
        "closed.png": "cannot be read (Permission denied)",
        "listed/b.png": "cannot be read (Permission denied)",
        "locked": "is a folder that cannot be read",
    }
    assert found.skipped == 1


def test_names_in_folders_that_may_not_be_entered(study: Path) -> None:
    names = study / "names.txt"
    names.write_text("locked/a.png\nopen.png\n")
    with nobody():
        assert [source.name for source in find_sources([str(names)]).sources] == ["locked/a.png", "open.png"]
    names.chmod(0)
    with nobody(), pytest.raises(UsageError, match="cannot be read"):
        find_sources([str(names)])


def test_a_file_that_is_gone_is_not_a_scan(tmp_path: Path) -> None:
    assert not is_scan(tmp_path / "gone")
