"""The `gms-rt` command: a list of verbs, each imported only when it is called.

Every error of this project becomes one line and its exit code; with `--json` also one JSON object. A request to end
(SIGTERM, SIGHUP) ends a verb as Ctrl-C does.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
from pathlib import Path

import click

from gms_rt import __version__
from gms_rt.cli.console import failure_value
from gms_rt.errors import GmsError, line_from_error
from gms_rt.interrupts import END_REQUESTS, set_handlers
from gms_rt.telemetry import forbid_telemetry

# The order of a first day with the tool. One line each: `--help` must not import the verbs.
VERBS = {
    "demo": "Build, segment, time and prove the bundled model.",
    "build": "Build an engine from a run, a graph or the bundled model.",
    "infer": "Segment files and folders with an engine.",
    "serve": "Serve engines over HTTP, with a page.",
    "scale": "Segment an archive with many workers or a cluster.",
    "bench": "Measure engines on this machine; write a latency report.",
    "parity": "Certify that an engine's masks equal the reference.",
    "inspect": "Show what an engine folder contains and where it runs.",
    "sign": "Vouch for an engine folder with your key.",
    "verify": "Check that an engine folder is what its author signed.",
    "keys": "Make keys, and say whose signed engines are loaded.",
    "data": "Recognise, check and prepare data sets.",
    "train": "Train a latent mapping model.",
    "distill": "Teach a small student what a trained run knows.",
    "eval": "Evaluate runs and engines on a data set.",
    "ablate": "Train and evaluate over a grid of losses or tokenizers.",
    "export": "Fuse a trained run into one ONNX graph.",
    "import-official": "Turn an official GMS checkpoint into a run.",
    "adopt": "Wrap another segmentation model (ONNX) so that every verb takes it.",
    "pack": "Write an engine as a ready-made folder for another host.",
    "doctor": "List what this machine has and what it lacks.",
}

EXIT_CODES = """\b
Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  accuracy gate not met
  4  engine does not fit this device
  5  some cases failed, the rest are written
  130  interrupted"""


class Verbs(click.Group):
    """A group whose commands live in one module each."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in their order."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb's module and take its `command`."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"gms_rt.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a verb, or suggest the nearest."""
        import difflib

        if args and args[0] not in VERBS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "see gms-rt --help"
            raise click.UsageError(f"no such verb '{args[0]}'; {hint}", ctx)
        return super().resolve_command(ctx, args)


@click.command(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.version_option(__version__, prog_name="gms-rt", message="%(prog)s %(version)s")
def cli() -> None:
    """Generative Medical Segmentation on real devices. Not for clinical use.

    \b
    A first day:
      gms-rt demo                          build, segment, time and prove the bundled model
      gms-rt build --precision fp16        an engine for this machine
      gms-rt infer folder/                 masks for a folder of scans
      gms-rt bench                         a latency report
    """


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit."""
    arguments = sys.argv[1:] if args is None else args
    _open_standard_streams()
    # A closed pipe (| head) ends the program as it does any other.
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    set_handlers(END_REQUESTS, signal.default_int_handler)
    sys.exit(_flushed(run(arguments), arguments))


def run(arguments: list[str]) -> int:
    """Run the command line, print any error as one line, and return the exit code."""
    forbid_telemetry()
    try:
        result = cli.main(args=arguments, prog_name="gms-rt", standalone_mode=False)
    except click.UsageError as error:
        usage = error.ctx.command_path if error.ctx else "gms-rt"
        return _fail(f"{error.format_message().rstrip('.')}; see {usage} --help", 2, arguments)
    except (click.exceptions.Abort, KeyboardInterrupt):
        return _fail("interrupted; run the same command again to go on", 130, arguments)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code, arguments)
    except GmsError as error:
        if os.environ.get("GMS_RT_DEBUG"):
            raise
        return _fail(error.line(), error.exit_code, arguments, told=error.told)
    except OSError as error:  # standard output that takes nothing (a full disk), or what no verb has foreseen
        if os.environ.get("GMS_RT_DEBUG"):
            raise
        return _fail(_os_error(error), 1, arguments)
    return result if isinstance(result, int) else 0


def _os_error(error: OSError) -> str:
    reason = error.strerror or line_from_error(error)
    where = "an output stream" if error.filename is None else os.fsdecode(error.filename)
    return GmsError(f"cannot be read or written ({reason})", where=where).line()


def _open_standard_streams() -> None:
    """Streams that whoever started the program has closed lead nowhere: else the next file opened takes their place."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - open as long as the process


def _flushed(code: int, arguments: list[str]) -> int:
    """The exit code, once standard output has taken everything; what it refuses now would be an error at exit."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or _fail(_os_error(error), 1, arguments)
    return code


def _fail(line: str, code: int, arguments: list[str], *, told: bool = False) -> int:
    if "--json" in arguments and not told:
        with contextlib.suppress(OSError):
            click.echo(json.dumps(failure_value(line, code), ensure_ascii=False))
    with contextlib.suppress(OSError):  # nobody can read it; the exit code still tells
        click.echo(f"gms-rt: {line}", err=True)
    return code
