"""What is segmented and how results are named: order, links, hidden files, lists, collisions."""

from __future__ import annotations

import io
import itertools
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.dicom_files import dataset, save

from gms_rt.errors import UsageError
from gms_rt.infer.outputs import ENDINGS, OutFolder, frame_name
from gms_rt.infer.sources import find_sources, result_names


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names_of(*inputs: object, **options: bool) -> list[str]:
    return [source.name for source in find_sources([str(i) for i in inputs], **options).sources]


def test_a_folder_is_searched_in_the_order_of_names(tmp_path: Path) -> None:
    touch(tmp_path, "b.PNG", "a/2.jpeg", "a/10.tif", "c.nii.gz", "d.mp4", "notes.txt", "table.csv")
    found = find_sources([str(tmp_path)])
    assert [s.name for s in found.sources] == ["a/10.tif", "a/2.jpeg", "b.PNG", "c.nii.gz", "d.mp4"]
    assert found.skipped == 2
    assert found.root == tmp_path
    assert [s.stem for s in found.sources] == ["a/10", "a/2", "b", "c", "d"]


def test_dicom_without_an_ending_is_found_and_the_mediums_index_is_not(tmp_path: Path) -> None:
    import numpy as np

    save(dataset(np.zeros((4, 4), np.uint8)), tmp_path / "IM0001")
    (tmp_path / "DICOMDIR").write_bytes((tmp_path / "IM0001").read_bytes())
    touch(tmp_path, "README")
    assert names_of(tmp_path) == ["IM0001"]


def test_hidden_files_link_loops_and_dead_links_are_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.png", ".hidden.png", ".git/y.png")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "a/self.png").symlink_to(tmp_path / "a/self.png")
    (tmp_path / "a/dead.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a/x.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert names_of(tmp_path) == ["a/x.png", "b.png"]


def test_a_former_output_is_no_input(tmp_path: Path) -> None:
    touch(tmp_path, "x.png", "out/.gms-rt.lock", "out/masks/x.png")
    assert names_of(tmp_path) == ["x.png"]


def test_files_folders_globs_and_doubles(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.png", "a/y.png", "b/z.dat", "b/deep/x.png")
    assert names_of(tmp_path / "a/y.png", tmp_path / "a") == ["y.png", "x.png"]
    assert names_of(tmp_path / "b/z.dat", tmp_path / "a") == ["b/z.dat", "a/x.png", "a/y.png"]
    assert names_of(tmp_path / "**/x.png") == ["a/x.png", "b/deep/x.png"]
    assert names_of(tmp_path / "a/x.png", tmp_path / "a/../a/x.png") == ["x.png"]


def test_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/x.png", "a/two\nlines.png")
    (tmp_path / "list.txt").write_bytes(b"a/x.png\r\n\na/gone.png\n")
    assert names_of(tmp_path / "list.txt") == ["x.png", "gone.png"]
    monkeypatch.chdir(tmp_path)
    stdin = io.TextIOWrapper(io.BytesIO(b"a/two\nlines.png\0a/x.png\0"))
    monkeypatch.setattr("sys.stdin", stdin)
    assert names_of("-") == ["two\nlines.png", "x.png"]


@pytest.mark.parametrize(("given", "words"), [
    ([], "nothing to segment"),
    (["nowhere.png"], "no such file"),
    (["*.nothing"], "matches no file"),
])  # fmt: skip
def test_mistakes_say_what_to_do(given: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=words):
        find_sources(given)


def test_an_unreadable_folder_becomes_a_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/x.png", "b.png")
    scan = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr("os.scandir", refusing)
    assert names_of(tmp_path) == ["a", "b.png"]


def test_collisions_keep_the_ending_in_any_order() -> None:
    names = ["x.png", "x.jpg", "x.png.jpg", "y.tif", "y.frame-00001.png", "v.nii.gz", "v.nii"]
    expected = result_names(names)
    assert len(set(expected.values())) == len(names)
    assert expected["y.tif"] == "y"
    assert expected["x.png.jpg"] == "x.png.jpg"
    for order in itertools.islice(itertools.permutations(names), 0, None, 97):
        assert result_names(order) == expected


NAMES = st.lists(
    st.tuples(st.sampled_from(["", "a/", "a/b/"]), st.text("xy.", min_size=1, max_size=3), st.sampled_from(
        [".png", ".jpg", ".nii.gz", ".nii", ".frame-00001.png", ""]
    )).map("".join), unique=True, max_size=12,
)  # fmt: skip


@given(NAMES)
def test_no_two_sources_share_a_name(names: list[str]) -> None:
    results = result_names(names)
    frames = {frame_name(stem, frame) for stem in results.values() for frame in (None, 1)}
    assert len(frames) == 2 * len(names)
    assert result_names(names, keep_suffix=True) == {name: name for name in names}


@example("0" * 250, None)
@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=260),
       st.sampled_from([None, 1, 123456]))  # fmt: skip
def test_every_name_fits_the_file_system(stem: str, frame: int | None) -> None:
    name = frame_name(f"folder/{stem}", frame)
    base = name.removeprefix("folder/")
    out = OutFolder(Path("out"))
    assert all(len(os.fsencode(out.path(kind, name).name)) <= 255 for kind in ENDINGS)
    # Tables and journals tell of a frame's own files by its name.
    for kind in ("masks", "overlays", "contours", "probabilities"):
        assert out.path(kind, name) == out.root / f"{kind}/{name}{ENDINGS[kind]}"
    if len(os.fsencode(stem)) < 230:
        assert base.startswith(stem)


def test_long_names_that_differ_at_the_end_stay_apart() -> None:
    assert frame_name("n" * 254 + "a", None) != frame_name("n" * 254 + "b", None)
