"""Bodies of several parts (multipart/form-data, multipart/related), read from a whole body of bounded size.

Strict where leniency would be a way around a limit: a part without an end, a head without an end, and more parts than
are allowed are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gms_rt.errors import TooLargeError, UsageError

_HEAD = 8192  # bytes of one part's head
_BOUNDARY = re.compile(r'boundary="?([^";,]{1,200})"?', re.IGNORECASE)
_PARAMETER = re.compile(r';\s*([\w*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))')


@dataclass(frozen=True)
class Part:
    """One part: what its head says, and its content."""

    data: bytes
    name: str = ""  # of the form's field
    filename: str | None = None
    kind: str = ""  # its Content-Type
    headers: dict[str, str] = field(default_factory=dict)


def parts_from_body(body: bytes, content_type: str, most: int) -> list[Part]:
    """The parts of a body, at most so many.

    >>> body = b'--x\\r\\nContent-Disposition: form-data; name="a"\\r\\n\\r\\nhello\\r\\n--x--\\r\\n'
    >>> [(part.name, part.data) for part in parts_from_body(body, "multipart/form-data; boundary=x", 9)]
    [('a', b'hello')]
    """
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise _bad("has no boundary in its Content-Type")
    mark = b"--" + found[1].strip().encode("latin-1", "replace")
    place = 0 if body.startswith(mark) else body.find(b"\r\n" + mark) + 2
    if place == 1:  # find said -1
        raise _bad("does not contain its boundary")
    place += len(mark)
    parts: list[Part] = []
    while body[place : place + 2] != b"--":
        if body[place : place + 2] != b"\r\n":
            raise _bad("has a boundary that is not alone on its line")
        if len(parts) == most:
            raise TooLargeError(f"has more than {most} parts", fix="send fewer files at a time")
        start = place + 2
        if body[start : start + 2] == b"\r\n":
            head, content = b"", start + 2
        else:
            end = body.find(b"\r\n\r\n", start, start + _HEAD)
            if end < 0:
                raise _bad("has a part whose head does not end")
            head, content = body[start:end], end + 4
        end = body.find(b"\r\n" + mark, content)
        if end < 0:
            raise _bad("is cut off")
        parts.append(_part(head, body[content:end]))
        place = end + 2 + len(mark)
    return parts


def _part(head: bytes, data: bytes) -> Part:
    headers = {}
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon:
            raise _bad("has a part with a broken head")
        headers[name.strip().lower()] = value.strip()
    # Quoted strings of form-data have %22 for a quote; a backslash is part of the name, as browsers send it.
    said = {key.lower(): quoted or plain for key, quoted, plain in _PARAMETER.findall(
        ";" + headers.get("content-disposition", "").partition(";")[2]
    )}  # fmt: skip
    return Part(data, said.get("name", ""), said.get("filename"), headers.get("content-type", ""), headers)


def _bad(what: str) -> UsageError:
    return UsageError(what, where="multipart body", fix="send it as a browser or curl -F does")
