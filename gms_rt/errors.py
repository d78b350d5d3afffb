"""Every error a user can meet, one root, one line each.

    GmsError                     1  something failed
    ├── UsageError               2  a wrong option, path or value
    │   ├── ConfigError          2  a configuration file or key
    │   └── MissingExtraError    2  an optional dependency is not installed
    ├── ArtifactError            1  a run, graph or engine folder that is damaged or foreign
    ├── InputError               1  an image that cannot be segmented
    │   ├── NoImageError         1  a valid file without an image: skipped by a run, not failed
    │   └── TooLargeError        1  more pixels, frames or bytes than are allowed
    ├── NativeError              1  the C library refused or failed
    ├── GateError                3  the accuracy gate is not met
    ├── DeviceError              4  an engine that does not fit this device
    └── CasesFailedError         5  some cases failed, the rest are written

A message says what is wrong, where, and how to fix it. The number is the process's exit code.
"""

from __future__ import annotations


class GmsError(Exception):
    """Root of all errors; `what` went wrong, `where`, and the `fix`."""

    exit_code = 1
    told = False  # whether a JSON object on standard output has said it already

    def __init__(self, what: str, *, where: object = None, fix: str | None = None) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.fix = fix
        super().__init__(self.line())

    def line(self) -> str:
        """The whole message as one line (control characters in names are escaped)."""
        text = self.what if self.where is None else f"{self.where}: {self.what}"
        if self.fix:
            text = f"{text}; {self.fix}"
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def reason_from_error(error: BaseException) -> str:
    """The first line of a foreign error's message, or its type where it has none.

    >>> reason_from_error(ValueError("bad header\\nand a page of advice")), reason_from_error(EOFError())
    ('bad header', 'EOFError')
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def line_from_error(error: BaseException) -> str:
    """The whole message of a foreign error in one line, or its type where it has none.

    >>> line_from_error(ValueError("bad header\\nat byte 3")), line_from_error(EOFError())
    ('bad header at byte 3', 'EOFError')
    """
    return " ".join(str(error).split()) or type(error).__name__


class UsageError(GmsError):
    """A wrong option, path or value."""

    exit_code = 2


class ConfigError(UsageError):
    """An unknown key or a bad value in a configuration file or a `--set`."""


class MissingExtraError(UsageError):
    """An optional dependency that is not installed, with the exact install line."""

    def __init__(self, feature: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f"{feature} needs the '{extra}' extra", fix=f"run: pip install 'gms-rt[{extra}]'")


class ArtifactError(GmsError):
    """A run, graph or engine that is damaged, foreign or newer than this program."""


class InputError(GmsError):
    """An image that cannot be segmented."""


class NoImageError(InputError):
    """A valid file that has no image to segment (a report, a plan, a waveform); a run skips it."""


class TooLargeError(InputError):
    """An image, or what it comes in, that is larger than the limits allow."""


class NativeError(GmsError):
    """The C library refused or failed."""


class GateError(GmsError):
    """The accuracy gate is not met."""

    exit_code = 3


class DeviceError(GmsError):
    """An engine that does not fit this device."""

    exit_code = 4


class CasesFailedError(GmsError):
    """Some cases failed, the rest are written."""

    exit_code = 5
