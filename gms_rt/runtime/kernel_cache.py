"""The GPU kernels that TensorRT-RTX compiled for a plan, kept for its next start.

A plan of TensorRT-RTX has no finished kernels: they are compiled when it is opened, each time. What was compiled is
kept in one file per plan, TensorRT-RTX and GPU: a line that names the format, the SHA-256 of the rest, and the rest.
The hash is compared before TensorRT sees a byte, and a folder that others can write is not used. Nothing here fails:
without a file the kernels are compiled again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from gms_rt.artifacts import only_ours, sha256_json, write_bytes
from gms_rt.errors import GmsError

_FORMAT = b"gms-rt-kernels 1\n"


@dataclass(frozen=True)
class KeptKernels:
    """The kernels of one plan; `stack` is the TensorRT-RTX and the GPU that they are for."""

    folder: Path  # the user's own
    plan: str  # SHA-256 of the plan, as it was compared when the plan was read

    def read(self, stack: str) -> bytes:
        """The kept kernels; nothing where there are none, or where somebody else may have written them."""
        try:
            if not self._is_ours():
                return b""
            with os.fdopen(os.open(self._path(stack), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
                about = os.fstat(stream.fileno())
                if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
                    return b""
                content = stream.read()
        except OSError:
            return b""
        start = len(_FORMAT) + hashlib.sha256().digest_size
        kernels = content[start:]
        good = content[:start] == _FORMAT + hashlib.sha256(kernels).digest()
        return kernels if good else b""

    def write(self, stack: str, kernels: bytes) -> None:
        """Keep kernels, whole or not at all."""
        with contextlib.suppress(OSError, GmsError):
            if self._is_ours():
                write_bytes(self._path(stack), _FORMAT + hashlib.sha256(kernels).digest() + kernels)

    def _path(self, stack: str) -> Path:
        return self.folder / f"{sha256_json({'plan': self.plan, 'stack': stack})}.kernels"

    def _is_ours(self) -> bool:
        """Whether nobody else can put files into the folder."""
        about = self.folder.lstat()
        return stat.S_ISDIR(about.st_mode) and only_ours(about)
