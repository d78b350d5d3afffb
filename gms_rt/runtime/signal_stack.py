"""Keep a thread's own signal stack while OpenVINO starts.

OpenVINO's CPU plugin gives the thread that loads it a signal stack, and frees that stack with the plugin. Of two
plugins that do not end in reverse order the first one leaves freed memory behind, and the next signal is handled there:
Ctrl-C would end the process, or spoil its memory. So every core comes from `cpu_core`; the C library does the same for
its runners.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

from gms_rt.telemetry import quiet_module


class SignalStack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = [("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def cpu_core() -> Any:
    """OpenVINO's core with its CPU plugin loaded, and this thread's signal stack as it was before."""
    core = quiet_module("openvino").Core()
    with keep_signal_stack():
        core.get_property("CPU", "FULL_DEVICE_NAME")  # the first question loads the plugin
    return core


def signal_stack() -> SignalStack | None:
    """This thread's signal stack; None where the system does not tell."""
    found = SignalStack()
    try:
        known = ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
    except (AttributeError, OSError):
        return None
    return found if known else None


@contextlib.contextmanager
def keep_signal_stack() -> Iterator[None]:
    """Give this thread its signal stack back at the end."""
    before = signal_stack()
    try:
        yield
    finally:
        if before is not None:
            ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)
