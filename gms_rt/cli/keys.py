"""`gms-rt keys`: the keys that engines are signed with, and those whose owners the user trusts."""

from __future__ import annotations

from pathlib import Path

import click

from gms_rt.cli.console import Console

_EXAMPLES = """\b
Examples:
  gms-rt keys create ward.key          writes ward.key (keep it) and ward.key.pub (hand it out)
  gms-rt keys trust ward.key.pub
  gms-rt keys list"""

_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


@click.group("keys", epilog=_EXAMPLES)
def command() -> None:
    """Make keys, and say whose signed engines are loaded.

    A TensorRT plan is a program. One in a folder that a trusted key has signed is loaded as if it was built here.
    """


@command.command("create")
@click.argument("file", type=click.Path(path_type=Path))
@_json
def create_command(file: Path, as_json: bool) -> None:
    """Write a new private key to FILE, and its public key to FILE.pub."""
    from gms_rt.engine.keys import create_key

    key = create_key(file)
    text = f"key {key.fingerprint}: {file} signs, keep it to yourself; {file}.pub is for those who trust you"
    Console(json=as_json).result({"key": key.fingerprint, "private": str(file), "public": f"{file}.pub"}, text)


@command.command("trust")
@click.argument("public", type=click.Path(path_type=Path))
@_json
def trust_command(public: Path, as_json: bool) -> None:
    """Trust the owner of the PUBLIC key: plans of engines that they sign are loaded."""
    from gms_rt.engine.keys import read_public_key, trust_key

    key = read_public_key(public)
    place = trust_key(key)
    text = f"key {key.fingerprint} is trusted now; gms-rt keys remove {key.fingerprint} ends that"
    Console(json=as_json).result({"key": key.fingerprint, "file": str(place)}, text)


@command.command("list")
@_json
def list_keys_command(as_json: bool) -> None:
    """List the trusted keys."""
    from gms_rt.engine.keys import trusted_keys

    found = [key.fingerprint for key in trusted_keys()]
    Console(json=as_json).result({"keys": found}, "\n".join(found) or "no key is trusted")


@command.command("remove")
@click.argument("key")
@_json
def remove_command(key: str, as_json: bool) -> None:
    """Trust KEY (its name in the list) no longer."""
    from gms_rt.engine.keys import distrust_key

    distrust_key(key)
    Console(json=as_json).result({"removed": key}, f"key {key} is not trusted any more")
