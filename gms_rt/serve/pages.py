"""The page at `/` and its files, which are part of the package: they are found by their names and nothing else."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from gms_rt.serve.refusals import UnknownError

_FOLDER = Path(__file__).parent / "page"
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}
# Nothing from elsewhere, nothing inline; results are shown from data: and blob: addresses.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Pages:
    """The files of the page, read once."""

    def __init__(self) -> None:
        self._files = {
            path.name: (path.read_bytes(), _KINDS[path.suffix])
            for path in sorted(_FOLDER.iterdir())
            if path.is_file() and path.suffix in _KINDS
        }

    async def page(self, request: Request) -> Response:
        """The page, or one of its files by name."""
        name = request.path_params.get("name", "index.html")
        if name not in self._files:
            raise UnknownError("there is no such file")
        body, kind = self._files[name]
        return Response(body, headers={"Content-Security-Policy": _POLICY}, media_type=kind)
