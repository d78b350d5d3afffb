"""The words for a case that failed."""

from __future__ import annotations

from pathlib import Path

from gms_rt.errors import InputError
from gms_rt.infer.measure import as_text


def failure_reason(error: BaseException, path: Path) -> str:
    """Why a case failed, without repeating its name."""
    what = error.what if isinstance(error, InputError) else str(error) or type(error).__name__
    fix = getattr(error, "fix", None)
    text = f"{what}; {fix}" if fix else what
    return as_text(text.replace(str(path), path.name))
