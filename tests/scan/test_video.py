"""Videos in and out: order, times, shape of pixels, files that end early."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from gms_rt.errors import InputError
from gms_rt.scan.frame import MAX_PIXELS
from gms_rt.scan.mp4_times import set_frame_times
from gms_rt.scan.video import VideoWriter, frame_rate, read_video

UNEVEN = [0, 0.04, 0.08, 0.5, 0.54, 1.3, 1.31, 2.0]


def written(path: Path, times: list[float | None], *, rate: float = 25.0) -> Path:
    writer = VideoWriter(path, 64, 48, rate)
    for number, time in enumerate(times, 1):
        writer.put(number, np.full((48, 64, 3), 20 + 25 * number % 200, np.uint8), time)
    writer.close()
    return path


def test_video_frames_come_in_order_and_are_written_in_order(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    writer = VideoWriter(path, 64, 48, 12.5)
    shades = list(range(20, 220, 20))
    for number in [2, 1, 4, 3, *range(len(shades), 4, -1)]:
        writer.put(number, None if number == 3 else np.full((48, 64, 3), shades[number - 1], np.uint8))
    writer.close()
    frames = list(read_video(path).frames)
    seen = [float(frame.image.mean()) for frame in frames]
    assert [frame.number for frame in frames] == list(range(1, len(shades)))
    assert np.abs(np.array(seen) - [s for s in shades if s != 60]).max() < 4
    assert frame_rate(path) == pytest.approx(12.5)


def test_a_damaged_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(bytes(3000))
    with pytest.raises(InputError, match="video"):
        read_video(path)


def seen_times(path: Path) -> list[float]:
    """As OpenCV's own reader has them."""
    capture = cv2.VideoCapture(str(path))
    times = []
    while capture.read()[0]:
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    return times


def test_frames_keep_uneven_times_from_file_to_file(tmp_path: Path) -> None:
    path = written(tmp_path / "uneven.mp4", list(UNEVEN))
    assert seen_times(path) == pytest.approx(UNEVEN, abs=1e-4)
    frames = list(read_video(path).frames)
    assert [frame.time for frame in frames] == pytest.approx(UNEVEN, abs=1e-4)
    again = VideoWriter(tmp_path / "again.mp4", 64, 48, frame_rate(path))
    for frame in reversed(frames):
        again.put(frame.number, frame.image, frame.time)
    again.close()
    copies = list(read_video(tmp_path / "again.mp4").frames)
    assert [frame.time for frame in copies] == pytest.approx(UNEVEN, abs=1e-4)
    for frame, copy in zip(frames, copies, strict=True):
        assert abs(float(frame.image.mean()) - float(copy.image.mean())) < 4


def test_a_missing_frame_leaves_the_others_where_they_are(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "gap.mp4", 64, 48, 10.0)
    for number in range(1, 6):
        image = None if number == 3 else np.full((48, 64, 3), 30 * number, np.uint8)
        writer.put(number, image, (number - 1) / 10)
    writer.close()
    assert seen_times(tmp_path / "gap.mp4") == pytest.approx([0, 0.1, 0.3, 0.4], abs=1e-4)


def test_even_times_and_none_leave_the_file_as_it_was_written(tmp_path: Path) -> None:
    even = written(tmp_path / "even.mp4", [number / 25 for number in range(8)])
    none = written(tmp_path / "none.mp4", [None] * 8)
    assert even.read_bytes() == none.read_bytes()
    assert seen_times(even) == pytest.approx([number / 25 for number in range(8)])


def test_a_file_of_another_build_is_left_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp4", [None] * 8)
    whole = path.read_bytes()
    for data, times in ((whole, UNEVEN[:7]), (whole[:200], UNEVEN), (b"", UNEVEN), (whole, [0.0] * 8), (whole, [])):
        path.write_bytes(data)
        assert not set_frame_times(path, times, 0.1)
        assert path.read_bytes() == data


def with_aspect(path: Path, code: int) -> None:
    """Write a pixel aspect ratio into the MPEG-4 stream's own header (ISO 14496-2, table 6-12)."""
    data = bytearray(path.read_bytes())
    place = data.index(b"\0\0\1\x20") + 4
    bits = "".join(f"{byte:08b}" for byte in data[place : place + 8])
    start = 10 + (7 if bits[9] == "1" else 0)
    changed = bits[:start] + f"{code:04b}" + bits[start + 4 :]
    data[place : place + 8] = int(changed, 2).to_bytes(8, "big")
    path.write_bytes(data)


@pytest.mark.parametrize(("code", "size", "ratio"), [
    (2, (48, 70), "1.091:1"), (3, (53, 64), "0.9091:1"), (4, (48, 93), "1.455:1"), (1, (48, 64), None),
])  # fmt: skip
def test_pixels_are_made_square(code: int, size: tuple[int, int], ratio: str | None, tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp4", [None] * 8)
    with_aspect(path, code)
    frames = list(read_video(path).frames)
    assert {frame.image.shape[:2] for frame in frames} == {size}
    expected = f"8 bit as stored, pixels of {ratio} made square" if ratio else "8 bit as stored"
    assert {frame.window for frame in frames} == {expected}
    with pytest.raises(InputError, match="max-pixels"):
        read_video(path, max_pixels=size[0] * size[1] - 1)
    assert size[0] * size[1] < MAX_PIXELS
