"""Kernels of a few lines, for tests on a real GPU: work for the lanes of a CUDA runner that needs no TensorRT."""

from __future__ import annotations

import ctypes

import numpy as np

from gms_rt.arrays import U8
from gms_rt.errors import DeviceError
from gms_rt.runtime.binding import NativeRunner
from gms_rt.runtime.cuda import CudaLane, LaneCalls, probe_cuda
from gms_rt.runtime.options import CudaSettings

SIDE = 64
_PTX = b"""
.version 7.0
.target sm_72
.address_size 64
.visible .entry invert(.param .u64 images, .param .u64 masks, .param .u32 count)
{ .reg .u64 %a<6>; .reg .u32 %r<8>; .reg .pred %p; .reg .u16 %h<3>;
  ld.param.u64 %a1,[images]; ld.param.u64 %a2,[masks]; ld.param.u32 %r5,[count];
  mov.u32 %r1,%ctaid.x; mov.u32 %r2,%ntid.x; mov.u32 %r3,%tid.x; mad.lo.u32 %r4,%r1,%r2,%r3;
  setp.ge.u32 %p,%r4,%r5; @%p ret;
  cvt.u64.u32 %a3,%r4; mul.lo.u64 %a4,%a3,3; add.u64 %a1,%a1,%a4; add.u64 %a2,%a2,%a3;
  ld.global.u8 %h1,[%a1]; not.b16 %h2,%h1; st.global.u8 [%a2],%h2; ret; }
.visible .entry illegal(.param .u64 images, .param .u64 masks, .param .u32 count)
{ .reg .u64 %a; .reg .u32 %r; mov.u64 %a,4096; mov.u32 %r,7; st.global.u32 [%a],%r; ret; }
.visible .entry spin(.param .u64 images, .param .u64 masks, .param .u32 count)
{ .reg .u64 %t<4>; .reg .u32 %c; .reg .pred %p; mov.u64 %t1,%globaltimer;
  ld.param.u32 %c,[count]; cvt.u64.u32 %t2,%c; mul.lo.u64 %t2,%t2,1000000;
L: mov.u64 %t3,%globaltimer; sub.u64 %t3,%t3,%t1; setp.lt.u64 %p,%t3,%t2; @%p bra L; ret; }
"""


def no_gpu() -> str:
    """Why there is no GPU to test on, or ""."""
    try:
        probe_cuda()
    except DeviceError as error:
        return str(error)
    return ""


def inverted(images: U8) -> U8:
    """What `Work` makes of images: their red, inverted."""
    return np.invert(images[..., 0])


class Work:
    """Launches `invert` on a lane's stream, and before it, where asked, a kernel that spins or one that is wrong."""

    def __init__(self, batch: int = 1) -> None:
        self.cuda = ctypes.CDLL("libcuda.so.1")
        self.count = batch * SIDE * SIDE
        self.spin_milliseconds = 0
        self.illegal = False
        self._functions: dict[str, ctypes.c_void_p] = {}

    def open(self, **settings: object) -> NativeRunner:
        """A runner that does this work."""
        about = CudaSettings(**{"height": SIDE, "width": SIDE} | settings)  # type: ignore[arg-type]
        return NativeRunner.open_cuda(about, LaneCalls(self.enqueue, self.prepare))

    def prepare(self, lane: CudaLane) -> None:
        """Load the kernels into the current context, once."""
        if self._functions:
            return
        module = ctypes.c_void_p()
        self._check(self.cuda.cuModuleLoadData(ctypes.byref(module), _PTX))
        for name in ("invert", "illegal", "spin"):
            self._functions[name] = ctypes.c_void_p()
            self._check(self.cuda.cuModuleGetFunction(ctypes.byref(self._functions[name]), module, name.encode()))

    def enqueue(self, lane: CudaLane) -> None:
        """Queue the work."""
        if self.spin_milliseconds:
            self._launch("spin", lane, self.spin_milliseconds, threads=1)
        if self.illegal:
            self._launch("illegal", lane, 1, threads=1)
        self._launch("invert", lane, self.count)

    def _launch(self, name: str, lane: CudaLane, count: int, threads: int = 256) -> None:
        values = (ctypes.c_uint64(lane.images), ctypes.c_uint64(lane.masks), ctypes.c_uint32(count))
        pointers = (ctypes.c_void_p * 3)(*(ctypes.addressof(value) for value in values))
        blocks = 1 if threads == 1 else -(-count // threads)
        stream = ctypes.c_void_p(lane.stream)
        function = self._functions[name]
        self._check(self.cuda.cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, 0, stream, pointers, None))

    @staticmethod
    def _check(code: int) -> None:
        if code:
            raise RuntimeError(f"the driver answers {code}")
