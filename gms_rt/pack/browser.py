"""A browser: one HTML page with the model and ONNX Runtime Web in it, which segments offline.

The page allows itself no connection at all, so no picture leaves the machine. ONNX Runtime Web comes from npm by name,
into the user's cache, or from a folder that the user names.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gms_rt.artifacts import atomic_path, make_folder
from gms_rt.engine.user_cache import cache_root
from gms_rt.errors import GmsError, UsageError
from gms_rt.pack.contents import EngineContents
from gms_rt.pack.host import Host, PackOptions, template, write_template

ORT_WEB = "1.30.0"  # the version that the page is tested with
_SCRIPT, _WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
_INSIDE = "package/dist"  # where both are in the package
_SECONDS = 600


def _write(contents: EngineContents, folder: Path, options: PackOptions) -> Mapping[str, str]:
    parts = ort_web_folder(options.ort_web)
    golden = contents.golden
    about = {
        "name": contents.name,
        "batch": contents.batch,
        "height": contents.manifest.height,
        "width": contents.manifest.width,
        "pictures": len(golden.images),
        "classes": contents.labels,
    }
    values = {
        "name": contents.name,
        "about": json.dumps(about).replace("<", "\\u003c"),
        "script": _text((parts / _SCRIPT).read_bytes()),
        "wasm": _text((parts / _WASM).read_bytes()),
        "model": _text(contents.onnx),
        "images": _text(golden.images.tobytes()),
        "answers": _text(contents.answers.tobytes()),
        "reference": _text(golden.probabilities.tobytes()),
    }
    write_template("browser/index.html", folder / "index.html", values)
    return {
        "steps": template("browser/steps.md"),
        "check": template("browser/check.md"),
        "ort_web": ORT_WEB if options.ort_web is None else "named folder's",
    }


def ort_web_folder(named: Path | None) -> Path:
    """The folder with ONNX Runtime Web's two files, fetched if nobody named one and it is not in the cache."""
    folder = named or cache_root() / "web" / f"onnxruntime-web-{ORT_WEB}"
    found = next((place for place in (folder, folder / "dist") if all((place / n).is_file() for n in _NAMES)), None)
    if found is not None:
        return found
    if named is not None:
        raise UsageError(
            f"has no {' and '.join(_NAMES)}", where=f"--ort-web {named}", fix="name onnxruntime-web's dist/"
        )
    _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    offline = f"or unpack it elsewhere and name its folder: --ort-web DIR (npm pack onnxruntime-web@{ORT_WEB})"
    if shutil.which("npm") is None:
        raise GmsError("onnxruntime-web comes from npm, which is not installed", where="--for browser", fix=offline)
    with tempfile.TemporaryDirectory() as place:
        command = ["npm", "pack", f"onnxruntime-web@{ORT_WEB}", "--silent", "--ignore-scripts"]
        try:
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise GmsError("npm did not answer", where="--for browser", fix=f"try again, {offline}") from error
        archive = next(Path(place).glob("*.tgz"), None)
        if done.returncode or archive is None:
            reason = (done.stderr or done.stdout).strip().splitlines()[:1] or ["no reason given"]
            raise GmsError(f"npm gave no onnxruntime-web ({reason[0]})", where="--for browser", fix=offline)
        make_folder(folder)
        with tarfile.open(archive) as opened:
            for name in _NAMES:
                member = opened.extractfile(f"{_INSIDE}/{name}")
                if member is None:
                    raise GmsError(f"onnxruntime-web has no {name}", where="--for browser", fix=offline)
                with atomic_path(folder / name) as part:
                    part.write_bytes(member.read())


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


_NAMES = (_SCRIPT, _WASM)
HOST = Host("browser", "a browser", _write, tried=True, refused=("bf16",))
