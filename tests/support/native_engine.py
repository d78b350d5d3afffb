"""The C library's engine calls as ctypes sees them; the package reads engines itself and has no use for them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

from gms_rt.runtime.library import load_library


class EngineInfo(ctypes.Structure):
    """gmsrt_engine_info."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        *((name, ctypes.c_uint32) for name in ("height", "width", "batch", "plans", "classes")),
        ("certificate", ctypes.c_int32),
        *((name, ctypes.c_double) for name in ("threshold", "dice_mean", "dice_min")),
        *(
            (name, ctypes.c_char_p)
            for name in (
                *("name", "precision", "execution", "fallback", "created", "gms_rt", "model", "sha256"),
                "certificate_sha256",
            )
        ),
    )


class Code(ctypes.Structure):
    """gmsrt_code."""

    _fields_ = tuple((name, ctypes.c_char_p) for name in ("value", "scheme", "meaning"))


class SegmentClass(ctypes.Structure):
    """gmsrt_class."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        *((name, Code) for name in ("category", "type", "type_modifier", "anatomy", "anatomy_modifier")),
        ("colour", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )


class Plan(ctypes.Structure):
    """gmsrt_plan."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("target", ctypes.c_int32),
        ("sm", ctypes.c_uint32),
        ("bytes", ctypes.c_uint64),
        *((name, ctypes.c_char_p) for name in ("file", "sha256", "version", "device")),
        ("gpu", ctypes.c_int32),
        *((name, ctypes.c_uint32) for name in ("fits", "untrusted", "reserved")),
        ("reason", ctypes.c_char * 512),
    )


class SelectOptions(ctypes.Structure):
    """gmsrt_select_options."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        *((name, ctypes.c_char_p) for name in ("device", "tensorrt", "tensorrt_rtx", "driver", "openvino")),
        ("sms", ctypes.POINTER(ctypes.c_uint32)),
        ("sm_count", ctypes.c_uint32),
        ("trust_plans", ctypes.c_uint32),
    )


class NativeError(Exception):
    """A status that is not zero, with the library's message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Wanted:
    """What a program has and asks for."""

    device: str | None = None
    sms: tuple[int, ...] | None = ()  # None: the driver is asked
    tensorrt: str | None = None
    tensorrt_rtx: str | None = None
    openvino: Path | None = None
    driver: Path | None = None
    trust_plans: bool = False


class NativeEngine:
    """An engine folder, opened by the C library."""

    def __init__(self, folder: Path) -> None:
        self._library = load_library()
        for name in ("open", "get_info", "get_class", "get_plan", "select", "read"):
            function = getattr(self._library, f"gmsrt_engine_{name}")
            function.restype = ctypes.c_int32
        self._handle = ctypes.c_void_p()
        self._check(self._library.gmsrt_engine_open(str(folder).encode(), ctypes.byref(self._handle)))

    def close(self) -> None:
        """Release it; texts of its structures are gone then."""
        self._library.gmsrt_engine_close.restype = None
        self._library.gmsrt_engine_close(self._handle)
        self._handle = ctypes.c_void_p()

    def __enter__(self) -> NativeEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def info(self) -> EngineInfo:
        """What it is."""
        found = EngineInfo()
        self._check(self._library.gmsrt_engine_get_info(self._handle, ctypes.byref(found), self._size(found)))
        return found

    def segment_class(self, index: int) -> SegmentClass:
        """One class of the mask."""
        found = SegmentClass()
        at = ctypes.c_uint32(index)
        self._check(self._library.gmsrt_engine_get_class(self._handle, at, ctypes.byref(found), self._size(found)))
        return found

    def plan(self, index: int, wanted: Wanted | None = None) -> Plan:
        """One way to run it, and whether it fits where that is asked."""
        found, at = Plan(), ctypes.c_uint32(index)
        options = None if wanted is None else ctypes.byref(self._options(wanted))
        self._check(
            self._library.gmsrt_engine_get_plan(self._handle, at, options, ctypes.byref(found), self._size(found))
        )
        return found

    def select(self, wanted: Wanted | None) -> Plan:
        """The way that is taken."""
        found = Plan()
        options = None if wanted is None else ctypes.byref(self._options(wanted))
        self._check(self._library.gmsrt_engine_select(self._handle, options, ctypes.byref(found), self._size(found)))
        return found

    def read(self, name: str) -> bytes:
        """The verified content of a file."""
        content, size = ctypes.c_void_p(), ctypes.c_size_t()
        self._check(
            self._library.gmsrt_engine_read(self._handle, name.encode(), ctypes.byref(content), ctypes.byref(size))
        )
        try:
            return ctypes.string_at(content, size.value)
        finally:
            self._library.gmsrt_free.restype = None
            self._library.gmsrt_free(content)

    def _options(self, wanted: Wanted) -> SelectOptions:
        options = SelectOptions()
        self._check(self._library.gmsrt_select_options_init(ctypes.byref(options), self._size(options)))
        for name in ("device", "tensorrt", "tensorrt_rtx", "openvino", "driver"):
            value = getattr(wanted, name)
            setattr(options, name, None if value is None else str(value).encode())
        if wanted.sms is not None:
            options.sms = (ctypes.c_uint32 * max(len(wanted.sms), 1))(*wanted.sms)
            options.sm_count = len(wanted.sms)
        options.trust_plans = int(wanted.trust_plans)
        return options

    @staticmethod
    def _size(value: ctypes.Structure) -> ctypes.c_size_t:
        return ctypes.c_size_t(ctypes.sizeof(value))

    def _check(self, status: int) -> None:
        if status != 0:
            raise NativeError(status, self._library.gmsrt_last_error().decode())
