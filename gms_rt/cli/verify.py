"""`gms-rt verify`: is an engine folder still what its author signed?"""

from __future__ import annotations

from pathlib import Path

import click

from gms_rt.cli.console import Console
from gms_rt.errors import UsageError


@click.command("verify")
@click.argument("engine", type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), help="The author's public key  [default: the trusted keys]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(engine: Path, key: Path | None, as_json: bool) -> None:
    """Check the signature of an engine folder, and every file against it.

    A file that was changed, added or removed since is named, with exit code 1.

    \b
    Example:
      gms-rt verify engines/busi-fp16 --key ward.key.pub
    """
    from gms_rt.engine.keys import read_public_key, trusted_keys
    from gms_rt.engine.signature import read_signature, verify_signature

    keys = trusted_keys() if key is None else [read_public_key(key)]
    if not keys:
        raise UsageError("no key is trusted", where="gms-rt verify", fix="name the author's public key with --key")
    author = read_signature(engine).key
    chosen = next((known for known in keys if known.raw == author), keys[0])
    found = verify_signature(engine, chosen)
    value = {"engine": str(engine), "key": chosen.fingerprint, "files": [file.name for file in found.files]}
    Console(json=as_json).result(
        value, f"{engine}: {len(found.files)} files are as key {chosen.fingerprint} signed them"
    )
