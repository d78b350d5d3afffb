"""What this machine has: processor, GPUs through the driver library, installed runtimes. Nothing here can fail.

Absent things are reported as absent. No framework is imported: versions come from package metadata, GPUs from the
driver library itself, the board from `gms_rt.runtime.board`.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from gms_rt.errors import UsageError
from gms_rt.runtime.arm_cores import cores_from_cpuinfo
from gms_rt.runtime.board import ROOT, Board, board_from_files
from gms_rt.runtime.kernel_files import kernel_text

_SM_MAJOR, _SM_MINOR, _INTEGRATED = 75, 76, 18  # CUdevice_attribute numbers
_INIT_WORDS = {
    3: "the NVIDIA driver does not work in a fork of a process that uses it",
    100: "the NVIDIA driver lists no GPU; CUDA_VISIBLE_DEVICES may hide it",
    802: "the NVIDIA driver is not ready; on a machine with NVSwitch nvidia-fabricmanager must run",
    803: "the NVIDIA driver and its kernel module are of different versions: restart the machine",
}


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU as its driver describes it."""

    index: int
    name: str
    sm: int  # compute capability times ten
    memory_bytes: int
    bus: str | None = None  # its place on the PCI bus; NVML counts by it
    integrated: bool = False  # whether it is a part of the board's own chip, as on a Jetson


@dataclass(frozen=True)
class Cpu:
    """The processor as the kernel describes it."""

    name: str
    architecture: str
    cores: int
    features: tuple[str, ...]  # flags that matter for speed; what is computed in says `gms_rt.runtime.arithmetic`


@dataclass(frozen=True)
class Machine:
    """All that decides which engine runs here, and how."""

    cpu: Cpu
    gpus: tuple[Gpu, ...]
    driver: str | None  # newest CUDA version the driver supports, "13.0"
    driver_note: str  # why there is no GPU, or ""
    packages: dict[str, str | None]  # installed version by distribution
    board: Board | None = None  # where a device tree or Jetson Linux names one

    @property
    def processor(self) -> str:
        """The processor, and the board that it is on."""
        return f"{self.cpu.name}, {self.board.in_words}" if self.board else self.cpu.name

    @property
    def title(self) -> str:
        """What people call it: the board with its power mode and a GPU plugged into it, else the GPU or processor."""
        return self._joined(self.board.in_words if self.board else "", ", ")

    @property
    def name(self) -> str:
        """A short name for files. It tells boards and power modes apart, so two that differ never share a folder."""
        text = self._joined(self.board.short if self.board else "", " ")
        kept = "".join(c if c.isalnum() else "-" for c in text.lower())
        return "-".join(part for part in kept.split("-") if part)

    def _joined(self, board: str, between: str) -> str:
        """The board, and the first GPU where it is not a part of it; without a board the GPU, else the processor."""
        if not board:
            return self.gpus[0].name if self.gpus else self.cpu.name
        return between.join([board, *(gpu.name for gpu in self.gpus[:1] if not gpu.integrated)])


# Flags that inference can gain from; anything else is noise here.
_FEATURES = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_bf16",
             "amx_int8", "amx_fp16", "asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sve")  # fmt: skip

_PACKAGES = ("openvino", "onnx", "numpy", "opencv-python-headless", "pydicom", "torch", "diffusers", "onnxruntime",
             "tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu13-bindings",
             "tensorrt-rtx-cu12-libs", "tensorrt-rtx-cu12-bindings", "pycuda", "highdicom", "onnxsim",
             "polygraphy")  # fmt: skip


@functools.lru_cache(maxsize=1)
def probe() -> Machine:
    """Look at the machine once."""
    gpus, driver, note = _gpus()
    packages = {name: package_version(name) for name in _PACKAGES}
    return Machine(cpu_from_files(), gpus, driver, note, packages, board_from_files())


def package_version(name: str) -> str | None:
    """The installed version of a distribution, without importing it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_from_files(root: Path = ROOT) -> Cpu:
    """The processor that /proc/cpuinfo below `root` describes; its cores are counted on this machine."""
    text = kernel_text(root / "proc/cpuinfo") or ""  # not Linux: the names below still hold
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    # Arm's "model name" is a placeholder, "ARMv8 Processor rev 1 (v8l)", and newer kernels leave it out.
    name = cores_from_cpuinfo(text) or fields.get("model name") or platform.processor() or platform.machine()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Cpu(name, platform.machine(), usable, tuple(f for f in _FEATURES if f in flags))


def _gpus() -> tuple[tuple[Gpu, ...], str | None, str]:
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return (), None, "no NVIDIA driver (libcuda.so.1 not found)"
    number = ctypes.c_int(0)  # told without a device, too
    driver = None
    if cuda.cuDriverGetVersion(ctypes.byref(number)) == 0:
        driver = f"{number.value // 1000}.{number.value % 1000 // 10}"
    status = cuda.cuInit(0)
    if status:
        return (), driver, _INIT_WORDS.get(status, f"the NVIDIA driver reports error {status} at cuInit")
    count = ctypes.c_int(0)
    cuda.cuDeviceGetCount(ctypes.byref(count))
    gpus = tuple(_gpu(cuda, index) for index in range(count.value))
    return gpus, driver, "" if gpus else "the NVIDIA driver lists no GPU"


def _gpu(cuda: ctypes.CDLL, index: int) -> Gpu:
    device = ctypes.c_int(0)
    cuda.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    cuda.cuDeviceGetName(name, len(name), device)
    memory = ctypes.c_size_t(0)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    numbers = []
    for attribute in (_SM_MAJOR, _SM_MINOR, _INTEGRATED):
        value = ctypes.c_int(0)
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        numbers.append(value.value)
    place = ctypes.create_string_buffer(32)
    bus = None if cuda.cuDeviceGetPCIBusId(place, len(place), device) else place.value.decode()
    major, minor, integrated = numbers
    return Gpu(index, name.value.decode(errors="replace"), major * 10 + minor, memory.value, bus, bool(integrated))


def processor_name(runtime_says: str, machine: Machine | None = None) -> str:
    """The processor's name for reports: the CPU runtime's own word, but on Arm, where it knows none, the kernel's."""
    cpu = (machine or probe()).cpu
    return cpu.name if cpu.architecture in ("aarch64", "arm64") else runtime_says


def parse_device(device: str | None) -> tuple[str | None, int | None]:
    """The kind and number of a `--device` value.

    >>> parse_device("cuda:1")
    ('cuda', 1)
    """
    if device is None:
        return None, None
    match = re.fullmatch(r"(cpu|cuda)(?::(\d+))?", device)
    if not match or (match[1] == "cpu" and match[2]):
        raise UsageError(f"unknown device '{device}'", where="--device", fix="use cpu, cuda or cuda:N")
    return match[1], int(match[2]) if match[2] else None
