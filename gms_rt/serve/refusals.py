"""Why a request is not done. Each has a word for the counters and a status that HTTP knows."""

from __future__ import annotations

import errno

from gms_rt.errors import GmsError, InputError, TooLargeError, UsageError


class RefusedError(GmsError):
    """A request that is not done, through no fault of the image."""

    reason = "refused"
    status = 400
    retry_after: int | None = None  # seconds


class BusyError(RefusedError):
    """There is no room: come back later."""

    reason = "busy"
    status = 429

    def __init__(self, what: str, retry_after: int, *, where: object = None) -> None:
        super().__init__(what, where=where, fix=f"try again in {retry_after} s")
        self.retry_after = retry_after


class LateError(RefusedError):
    """The deadline is past, or nobody waits for the answer any more."""

    reason = "late"
    status = 504


class ClosedError(RefusedError):
    """The service is not ready yet, or it is ending."""

    reason = "closed"
    status = 503
    retry_after = 5


class NotAcceptableError(RefusedError):
    """A format is asked for in which there is no answer."""

    reason = "not_acceptable"
    status = 406


class UnsupportedError(RefusedError):
    """A body of a kind that is not read."""

    reason = "unsupported"
    status = 415


class ForbiddenError(RefusedError):
    """A request from a place that may not ask."""

    reason = "forbidden"
    status = 403


class UnauthorisedError(RefusedError):
    """A request without the right token."""

    reason = "unauthorised"
    status = 401


class SlowError(RefusedError):
    """A body that does not come."""

    reason = "slow"
    status = 408


class FullError(RefusedError):
    """No room on the disk for what a request needs there, or for what is to be kept."""

    reason = "full"
    status = 507


class UnknownError(RefusedError):
    """A name that nothing has."""

    reason = "unknown"
    status = 404


def status_from_error(error: BaseException) -> tuple[int, str]:
    """The HTTP status of an error and its word for the counters.

    >>> status_from_error(TooLargeError("has 900 megapixels"))
    (413, 'too_large')
    """
    if isinstance(error, RefusedError):
        return error.status, error.reason
    if isinstance(error, TooLargeError):
        return 413, "too_large"
    if isinstance(error, InputError):
        return 422, "bad_image"
    if isinstance(error, UsageError):
        return 400, "bad_request"
    return 500, "failed"


def told_error(error: BaseException) -> BaseException:
    """The error as a client is told it: a full disk, wherever it was met, is a `FullError`.

    >>> told_error(OSError(errno.ENOSPC, "No space left on device")).reason
    'full'
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return FullError("the disk of the service is full", fix="have space freed there, and send it again")
        cause = cause.__cause__
    return error


def forget_frames(error: BaseException | None) -> None:
    """Let go of the frames that an error came through, with all that they hold: they may refer to the error again."""
    seen: set[int] = set()
    left = [error]
    while left:  # causes may go round in a circle
        each = left.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            left += [each.__cause__, each.__context__]
