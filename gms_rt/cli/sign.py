"""`gms-rt sign`: vouch for an engine folder."""

from __future__ import annotations

from pathlib import Path

import click

from gms_rt.cli.console import Console


@click.command("sign")
@click.argument("engine", type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), required=True, help="Your private key, Ed25519 in PEM.")
@click.option("--trust-plans", is_flag=True, help="Vouch for plans that were not built on this machine, too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(engine: Path, key: Path, trust_plans: bool, as_json: bool) -> None:
    """Sign an engine folder: who trusts your key can load it, plans included.

    Every file of the folder is covered, the certificate too; sign again after a change. `gms-rt keys create` makes a
    key.

    \b
    Example:
      gms-rt sign engines/busi-fp16 --key ward.key
    """
    from gms_rt.engine.keys import read_private_key
    from gms_rt.engine.signature import SIGNATURE
    from gms_rt.engine.trust import sign_engine

    private = read_private_key(key)
    found = sign_engine(engine, private, trust_plans=trust_plans)
    value = {"engine": str(engine), "key": private.public.fingerprint, "files": [file.name for file in found.files]}
    text = f"{engine}: {len(found.files)} files signed by key {private.public.fingerprint}, in {engine / SIGNATURE}"
    Console(json=as_json).result(value, text)
