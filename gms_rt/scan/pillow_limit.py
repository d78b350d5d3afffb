"""Pillow's own limit on the size of pictures, out of the way where gms-rt has checked the size itself."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

_LOCK = threading.Lock()


@contextlib.contextmanager
def size_checked(pixels: int) -> Iterator[None]:
    """Decode a picture of this many pixels, whose size was checked against `--max-pixels`.

    Pillow refuses to load some formats above a number that is the same for the whole process. For larger pictures only,
    one at a time, that number is lifted meanwhile.
    """
    from PIL import Image

    if Image.MAX_IMAGE_PIXELS is None or pixels <= Image.MAX_IMAGE_PIXELS:
        yield
        return
    with _LOCK:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before
