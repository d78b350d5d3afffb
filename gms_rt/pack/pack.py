"""`pack_engine`: one folder per host, each complete in itself.

Every folder holds LICENSE, README.md, the engine's manifest and certificate, `golden.npz`, `check.py`,
`segment_picture.py` and `client.py`; the host adds the model in its form, configuration and examples.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gms_rt.artifacts import atomic_folder, check_apart, check_writable, write_json
from gms_rt.engine.manifest import CERTIFICATE, GOLDEN, MANIFEST
from gms_rt.errors import UsageError
from gms_rt.pack.contents import EngineContents, engine_contents
from gms_rt.pack.host import Host, PackOptions, fill_template, shared_values, template

LICENCE = "LICENSE"
_UNKNOWN_LICENCE = (
    "`LICENSE` is that of gms-rt, for the programs in this folder. Nobody named the model's own licence (`gms-rt pack "
    "--licence FILE` does): ask whoever trained it before you pass it on."
)


@dataclass(frozen=True)
class HostFolder:
    """A folder that was written."""

    host: str
    folder: Path
    files: int
    bytes: int


def pack_engine(engine: Path, hosts: Sequence[Host], out: Path, options: PackOptions | None = None) -> list[HostFolder]:
    """Write `out/HOST` for each host; each is whole or absent, and replaces an older one."""
    options = options or PackOptions()
    check_writable(out)
    check_apart(out, engine)
    if options.licence is not None and not options.licence.is_file():
        raise UsageError("is not a file", where=f"--licence {options.licence}")
    contents = engine_contents(engine)
    for host in hosts:
        host.check(contents)
    written = []
    for host in hosts:
        place = out / host.name
        with atomic_folder(place) as folder:
            _write_shared(contents, folder, options)
            values = dict(shared_values(contents)) | dict(host.write(contents, folder, options))
            _write_readme(host, contents, folder, values, options)
            if "check" not in values:  # else the host has a check of its own
                _write_programs(contents, folder)
        files = [path for path in place.rglob("*") if path.is_file()]
        written.append(HostFolder(host.name, place, len(files), sum(path.stat().st_size for path in files)))
    return written


def _write_shared(contents: EngineContents, folder: Path, options: PackOptions) -> None:
    bundled = contents.manifest.source.get("kind") == "bundled"
    if options.licence is not None and not bundled:
        shutil.copyfile(options.licence, folder / LICENCE)
    else:
        (folder / LICENCE).write_text(template(f"shared/{LICENCE}"), encoding="utf-8")
    shutil.copyfile(contents.folder / MANIFEST, folder / MANIFEST)
    if contents.certificate is not None:
        write_json(folder / CERTIFICATE, contents.certificate)
    contents.write_golden(folder / GOLDEN)


def _write_programs(contents: EngineContents, folder: Path) -> None:
    for name in ("check.py", "segment_picture.py"):
        (folder / name).write_text(fill_template(template(f"shared/{name}"), shared_values(contents)), encoding="utf-8")


def _write_readme(
    host: Host, contents: EngineContents, folder: Path, values: dict[str, str], options: PackOptions
) -> None:
    certificate = contents.certificate or {}
    summary = certificate.get("summary") or {}
    verdict = (
        f"{str(certificate.get('verdict', '')).upper()}: mean Dice {summary.get('mean', float('nan')):.4f}, lowest "
        f"{summary.get('min', float('nan')):.4f} (`parity.json`)"
        if certificate
        else "there is none: nobody has certified this engine (`gms-rt parity ENGINE`)"
    )
    bundled = contents.manifest.source.get("kind") == "bundled"
    named = bundled or options.licence is not None
    identity = json.dumps(contents.identity, indent=2, ensure_ascii=False)
    about = values | {
        "title": host.title,
        "identity": identity,
        "classes": ", ".join(contents.labels),
        "verdict": verdict,
        "pictures": f"{len(contents.answers)} of {contents.golden.source or 'the reference pictures'}",
        "answered_by": contents.answered_by,
        "origin": contents.golden.origin,
        "licence": "See `LICENSE`." if named else _UNKNOWN_LICENCE,
        "tried": ""
        if host.tried
        else "**Not run here:** this folder was made from the documented schemas of its host; "
        "nobody has run it with gms-rt's tests. Run `check.py` before you trust it.\n\n",
    }
    for part in ("steps", "check"):
        about[part] = fill_template(values.get(part) or template(f"shared/{part}.md"), about).rstrip() + "\n"
    text = values.get("front", "") + fill_template(template("shared/README.md"), about)
    (folder / "README.md").write_text(text, encoding="utf-8")
