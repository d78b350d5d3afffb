"""`gms-rt pack`: an engine as ready-made folders for other hosts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from gms_rt.cli.console import Console

_EXAMPLES = """\b
Examples:
  gms-rt pack engines/busi-fp16 --for triton --out served/
  gms-rt pack engines/busi-int8 --for openvino,ovms --out served/ --licence MODEL-LICENSE
  gms-rt pack engines/busi-fp32 --for browser --out page/
  gms-rt pack engines/busi-fp32 --for huggingface --graph busi.onnx --out hub/"""


@click.command("pack", epilog=_EXAMPLES)
@click.argument("engine", type=click.Path(path_type=Path))
@click.option("--for", "hosts", multiple=True, required=True, metavar="HOST[,HOST]", help="openvino, onnxruntime, "
              "triton, ovms, browser, monai-bundle, huggingface, holoscan, deepstream, or all.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write into; each host has one "
              "of its own in it.")  # fmt: skip
@click.option("--licence", type=click.Path(path_type=Path), help="The model's own licence, for LICENSE.")
@click.option("--graph", type=click.Path(path_type=Path), help="For huggingface: the FP32 graph that the engine was "
              "built from.")  # fmt: skip
@click.option("--ort-web", type=click.Path(path_type=Path), metavar="DIR", help="For browser: a folder with "
              "onnxruntime-web's files  [default: from npm, into the user's cache]")  # fmt: skip
@click.option("--batch", type=click.IntRange(1, 1024), default=8, show_default=True, help="For servers: most images "
              "that they may join, where the engine takes any number.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(engine: Path, hosts: tuple[str, ...], out: Path, as_json: bool, **given: Any) -> None:
    """Write ENGINE as a folder for each host: model, configuration, client, README, licence, certificate.

    Pixels go in and probabilities come out as uint8, so the host needs no code before or behind the model. check.py in
    each folder compares the host's answers with the engine's own, byte for byte.
    """
    from gms_rt.pack.host import PackOptions
    from gms_rt.pack.hosts import hosts_from_names
    from gms_rt.pack.pack import pack_engine

    written = pack_engine(engine, hosts_from_names(hosts), out, PackOptions(**given))
    value = {
        "engine": str(engine),
        "folders": [dataclasses.asdict(each) | {"folder": str(each.folder)} for each in written],
    }
    lines = [
        f"wrote {each.folder} ({each.files} files, {each.bytes / 2**20:.1f} MiB); next: see README.md, then check.py"
        for each in written
    ]
    Console(json=as_json).result(value, "\n".join(lines))
