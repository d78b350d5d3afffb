"""The fake CUDA driver, with a copy that stands for a network."""

from __future__ import annotations

import ctypes

import numpy as np

from gms_rt.runtime.cuda import CudaLane
from support.native_build import fake

HEIGHT, WIDTH = 4, 6


class FakeDriver:
    """The fake driver, with the copy that stands for a network: the first bytes of the images are the masks."""

    def __init__(self) -> None:
        self.path = fake("cuda")
        self.library = ctypes.CDLL(str(self.path))
        self.library.fake_cuda_mistake.restype = ctypes.c_char_p
        self.library.fake_cuda_call.restype = ctypes.c_char_p
        copy = self.library.cuMemcpyDtoDAsync_v2
        copy.argtypes = [ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p]
        self.copy = copy

    def assert_clean(self) -> None:
        assert self.library.fake_cuda_mistake() == b""
        assert self.library.fake_cuda_live() == 0
        assert self.library.fake_cuda_contexts() == 0

    def enqueue(self, batch: int = 1, height: int = HEIGHT, width: int = WIDTH):  # type: ignore[no-untyped-def]
        def call(lane: CudaLane) -> None:
            assert self.copy(lane.masks, lane.images, batch * height * width, lane.stream) == 0

        return call


def expected(rgb: np.ndarray, batch: int) -> np.ndarray:
    count, height, width, _ = rgb.shape
    padded = np.zeros((-(-count // batch) * batch, height, width, 3), np.uint8)
    padded[:count] = rgb
    flat = padded.reshape(-1, batch * height * width * 3)[:, : batch * height * width]
    return flat.reshape(-1, height, width)[:count]
