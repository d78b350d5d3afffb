"""`gms-rt serve`: engines as an HTTP service on this machine, with a page."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from gms_rt.cli.console import Console
from gms_rt.cli.infer import open_engine
from gms_rt.cli.trust_options import graph_option, trust_options
from gms_rt.engine.select import LoadOptions
from gms_rt.errors import MissingExtraError, UsageError
from gms_rt.infer.options import InferOptions
from gms_rt.infer.tuning import tuned_process
from gms_rt.runtime.device import parse_device
from gms_rt.runtime.options import GraphUse

if TYPE_CHECKING:
    from gms_rt.serve.model import ServedModel

_EPILOG = """\b
Examples:
  gms-rt serve                                 the newest engine that fits, at http://127.0.0.1:8000
  gms-rt serve engines/busi-int8 engines/ham-fp16
  gms-rt serve --host 0.0.0.0 --host-name ward7.example --token-file token --tls-cert c.pem --tls-key k.pem
  curl --data-binary @scan.png -H 'Accept: image/png' http://127.0.0.1:8000/v1/segment > mask.png

\b
Exit codes:
  0  ended by SIGTERM or Ctrl-C, everything that was taken is answered
  1  failed
  2  wrong usage
  3  the golden pictures do not come out right on this device
  4  the engine does not fit this device
"""
_MIB = 1 << 20


@click.command("serve", epilog=_EPILOG)
@click.argument("engines", nargs=-1)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen at; beyond loopback needs a token."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0 takes a free one."
)
@click.option("--host-name", "host_names", multiple=True, help="A name under which clients reach it; * is any.")
@click.option("--origin", "origins", multiple=True, help="A web page of others that may ask: https://viewer.example.")
@click.option("--token-file", type=click.Path(), help="File whose first line clients must send as bearer token.")
@click.option("--tls-cert", type=click.Path(), help="Certificate in PEM, with its chain.")
@click.option("--tls-key", type=click.Path(), help="Private key in PEM.")
@click.option("--keep", type=click.Path(), help="Keep results in this folder  [default: nothing is stored].")
@click.option("--device", help="Device to run on: cpu, cuda or cuda:N  [default: a GPU if the engine fits one].")
@trust_options
@graph_option
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads of each engine  [default: all cores].")
@click.option(
    "--lanes", type=click.IntRange(1), default=1, show_default=True, help="Inferences at the same time, each engine."
)
@click.option(
    "--batch",
    type=click.IntRange(0),
    default=0,
    help="Images of different requests in one inference, if the engine leaves that open and is faster so.",
)
@click.option("--batch-wait", type=float, default=0.0, show_default=True, help="Seconds to wait for a batch to fill.")
@click.option(
    "--threshold", type=float, default=0.5, show_default=True, help="Lowest probability that counts as foreground."
)
@click.option("--tta", is_flag=True, help="Average over flips of each image.")
@click.option("--tile", type=int, default=0, help="Segment large images in tiles of this many pixels.")
@click.option("--largest", is_flag=True, help="Keep only the largest region of each mask.")
@click.option("--fill-holes", is_flag=True, help="Fill holes inside regions of the mask.")
@click.option("--min-area", type=int, default=0, help="Remove regions with fewer pixels than this.")
@click.option(
    "--requests", type=int, default=64, show_default=True, help="Requests taken and not yet answered; more get 429."
)
@click.option(
    "--workers", type=int, default=0, help="Threads that decode and write  [default: twice the engine's, at least 4]."
)
@click.option(
    "--timeout", type=float, default=30.0, show_default=True, help="Seconds in which a request is answered or dropped."
)
@click.option("--max-mib", type=int, default=256, show_default=True, help="Size of a request in MiB.")
@click.option("--max-pixels", type=int, default=25_000_000, show_default=True, help="Pixels of one image.")
@click.option("--max-frames", type=int, default=2000, show_default=True, help="Images in one request.")
@click.option("--quiet", is_flag=True, help="No access log.")
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON on stdout, one object per line.")
def command(
    engines: tuple[str, ...],
    host: str,
    port: int,
    host_names: tuple[str, ...],
    origins: tuple[str, ...],
    token_file: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    keep: str | None,
    device: str | None,
    trust_plans: bool,
    trust_device: bool,
    cuda_graph: GraphUse,
    threads: int,
    lanes: int,
    batch: int,
    batch_wait: float,
    quiet: bool,
    as_json: bool,
    **rest: Any,
) -> int:
    """Serve engines over HTTP. Not for clinical use.

    ENGINES are engine folders; without one, the newest in engines/ that fits this device. It speaks its own
    /v1/segment, KServe v2 and what 3D Slicer's MONAI Label extension asks for, and shows a page at /.
    It is ready once each engine's golden pictures have come out right on this device. Nothing is stored without --keep.

    \b
    gms-rt serve
    """
    try:
        from gms_rt.serve.counters import Counters
        from gms_rt.serve.guard import LOOPBACK, GuardSettings
        from gms_rt.serve.kept import check_keep
        from gms_rt.serve.limits import ServeLimits
        from gms_rt.serve.model import ServedModel
        from gms_rt.serve.server import HttpServer, ServerSettings, check_exposure, token_from_file
        from gms_rt.serve.service import Service
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("gms_rt"):
            raise
        raise MissingExtraError("gms-rt serve", "serve") from error
    console = Console(json=as_json, quiet=False)
    parse_device(device)
    mib = rest.pop("max_mib")
    limits = ServeLimits(
        max_bytes=mib * _MIB,
        all_bytes=max(1024, 2 * mib) * _MIB,
        batch_wait=batch_wait,
        **{name: rest.pop(name) for name in ("requests", "workers", "timeout", "max_pixels", "max_frames")},
    )
    options = InferOptions(**rest)
    token = None if token_file is None else token_from_file(Path(token_file))
    guard = GuardSettings((*LOOPBACK, host, *(name.lower() for name in host_names)), origins, token)
    where = ServerSettings(host, port, _path(tls_cert), _path(tls_key))
    check_exposure(guard, where)
    if keep is not None:
        check_keep(Path(keep))
    if token is not None and tls_cert is None and host not in LOOPBACK:
        console.note(
            "the token and the scans travel unencrypted: give --tls-cert and --tls-key, or put a proxy before it"
        )
    mode: Literal["latency", "throughput"] = "throughput" if lanes > 1 else "latency"
    how = LoadOptions(device, threads, lanes, mode, 0, "auto", trust_plans, trust_device, cuda_graph)
    counters = Counters()
    models: list[ServedModel] = []
    with tuned_process():
        try:
            for name in engines or (None,):
                opened = open_engine(console, name, how)
                label = _label(opened.folder, [model.name for model in models])
                models.append(ServedModel(label, opened, options, limits, counters))
                if batch > max(1, opened.runner.info.batch):
                    more = dataclasses.replace(how, batch=batch)
                    models[-1].gain_from_batches(open_engine(console, str(opened.folder), more))
                    if models[-1].batch_notice:
                        console.note(f"{label}: {models[-1].batch_notice}")
            service = Service(models, limits, counters, keep=_path(keep))
            server = HttpServer(service, guard, where)
        except BaseException:
            for model in models:
                model.close()
            raise
        with _logged_to_stderr(quiet):
            _say(console, "listening", server.address, models)
            server.run(lambda: _say(console, "ready", server.address, models))
    return 0


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _label(folder: Path, taken: list[str]) -> str:
    """The engine's folder is its name for clients."""
    name = folder.resolve().name
    if name in taken:
        raise UsageError("is the name of two engines", where=name, fix="rename one of the folders")
    return name


def _say(console: Console, event: str, address: str, models: list[ServedModel]) -> None:
    if console.json:
        value = {"event": event, "address": address, "engines": [model.identity for model in models]}
        click.echo(json.dumps(value, ensure_ascii=False))
        return
    names = ", ".join(f"{m.name} ({m.identity['precision']} on {m.identity['device']})" for m in models)
    if event == "listening":
        console.say(f"{names}\nlistening at {address}; Ctrl-C ends it")
        return
    for model in models:
        if model.notice:
            console.note(f"{model.name}: {model.notice}")
    console.say("ready: the golden pictures ran on this device. Not for clinical use.")


@contextmanager
def _logged_to_stderr(quiet: bool) -> Iterator[None]:
    """One JSON object per request and plain lines for failures, on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("gms_rt.serve")
    before = logger.propagate, logger.level
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.ERROR if quiet else logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before[0]
        logger.setLevel(before[1])
