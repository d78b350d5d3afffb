"""`gms-rt import-official`: an official GMS checkpoint becomes a run folder."""

from __future__ import annotations

from pathlib import Path

import click

from gms_rt.artifacts import sha256_file
from gms_rt.cli.console import Console
from gms_rt.errors import UsageError


@click.command("import-official")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--tokenizer", required=True, metavar="NAME",
    help="Frozen autoencoder: a preset (sd-vae, sd-vae-ft-mse, sdxl-vae, taesd, vq), sd-vae:SOURCE, taesd:SOURCE, "
    "vq:SOURCE (a folder or a hub id), onnx:FOLDER or compvis:FILE.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Run folder to write.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(checkpoint: Path, tokenizer: str, out: Path, as_json: bool) -> None:
    """Turn a checkpoint of the official GMS training into a run.

    The tokenizer must be the one the checkpoint was trained with, or one of the same latent space.

    \b
    Examples:
      gms-rt import-official best_model.pth --tokenizer sd-vae --out runs/official
      gms-rt import-official best_model.pth --tokenizer onnx:weights/vaelight --out runs/official
    """
    from gms_rt.cli.extras import train_extra

    train_extra("import-official")
    from gms_rt.model.gms import Gms
    from gms_rt.model.loading import load_tokenizer
    from gms_rt.model.official import load_official
    from gms_rt.model.run import save_run

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError("already exists", where=f"--out {out}", fix="name a new folder")
    official = load_official(checkpoint)
    console = Console(json=as_json)
    gms = Gms(load_tokenizer(tokenizer, note=console.note), official.mapper)
    save_run(out, gms, {"origin": {"checkpoint": checkpoint.name, "sha256": sha256_file(checkpoint)}})
    parameters = sum(p.numel() for p in official.mapper.parameters())
    facts = {
        "run": str(out),
        "keys": official.keys,
        "duplicates": official.duplicates,
        "parameters": parameters,
        "tokenizer": gms.tokenizer.spec.to_json(),
    }
    text = (
        f"wrote {out}: {parameters:,} parameters, all {official.keys} keys accounted for "
        f"({official.duplicates} stored twice); next: gms-rt export {out}"
    )
    console.result(facts, text)
