"""`gms-rt parity`: certify an engine's masks against the FP32 reference; `parity verify`: compute it again."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import click

from gms_rt.cli.console import Console, table
from gms_rt.cli.trust_options import plans_option
from gms_rt.errors import GateError, GmsError, UsageError
from gms_rt.precision.gate import GATE_MEAN, GATE_MIN, Gate

_EXAMPLES = """\b
Examples:
  gms-rt parity engines/busi-int8
  gms-rt parity engines/busi-int8 --data scans/ --reference runs/busi
  gms-rt parity verify engines/busi-int8/parity.json"""


class _EngineOrVerb(click.Group):
    """A group whose first word may also be an engine folder."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            args = ["certify", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # `parity` alone and `parity --json` mean the newest engine.
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
            args = ["certify", *args]
        return super().parse_args(ctx, args)


@click.group("parity", cls=_EngineOrVerb, epilog=_EXAMPLES)
def command() -> None:
    """Certify that an engine's masks equal the reference: gms-rt parity ENGINE.

    Every case of the engine's golden.npz (or of --data) is compared with the FP32 reference on this device; the
    certificate is written as parity.json into the engine's folder. Exit code 3 if the gate is not met, 1 if only drawn
    pictures are known, on which no verdict rests.
    """


@command.command("certify")
@click.argument("engine", type=click.Path(path_type=Path), required=False)
@click.option("--data", type=click.Path(path_type=Path), help="Scans (or images/ and masks/) instead of golden.npz.")
@click.option("--reference", type=click.Path(path_type=Path), help="With --data: the run, or its FP32 graph.")
@click.option("--limit", type=click.IntRange(1), default=200, show_default=True, help="With --data: most scans taken.")
@click.option(
    "--gate-mean", type=click.FloatRange(0, 1), default=GATE_MEAN, show_default=True, help="Lowest mean Dice allowed."
)
@click.option(
    "--gate-min",
    type=click.FloatRange(0, 1),
    default=GATE_MIN,
    show_default=True,
    help="Lowest Dice allowed for any scan.",
)
@click.option("--device", help="Device to run on: cpu, cuda or cuda:N.")
@plans_option
@click.option("--out", type=click.Path(path_type=Path), help="Write the certificate here.")
@click.option("--json", "as_json", is_flag=True, help="Print the certificate as JSON.")
def certify_command(engine: Path | None, as_json: bool, device: str | None, out: Path | None, **given: Any) -> None:
    """Certify ENGINE (by default the newest)."""
    from gms_rt.engine.select import ENGINES, newest_that_fits
    from gms_rt.parity.reference import ReferenceData, write_certificate

    data, original = given["data"], given["reference"]
    if (data is None) != (original is None):
        raise UsageError(
            "--data and --reference belong together",
            where="parity",
            fix="name the scans and the run (or FP32 graph) that the engine was built from",
        )
    folder = engine or newest_that_fits(ENGINES, device, trust_plans=given["trust_plans"])
    reference = None if data is None else ReferenceData(data, original, given["limit"])
    gate = Gate(given["gate_mean"], given["gate_min"])
    certificate, path = write_certificate(
        folder, reference, gate=gate, device=device, out=out, trust_plans=given["trust_plans"]
    )
    console, text, reasons = Console(json=as_json), _screen(certificate, path), "; ".join(certificate["reasons"] or [])
    if path is None:
        fix = "name scans of its kind: gms-rt parity ENGINE --data SCANS --reference RUN"
        console.fail(certificate, text, GmsError(f"there is no verdict: {reasons}", where=folder, fix=fix))
    if certificate["verdict"] != "pass":
        console.fail(certificate, text, GateError(reasons, where=folder, fix="build with a higher precision"))
    console.result(certificate, text)


@command.command("verify")
@click.argument("certificate", type=click.Path(path_type=Path))
@click.option("--engine", type=click.Path(path_type=Path), help="The engine, if the certificate is in another folder.")
@click.option("--device", help="Device to run on: cpu, cuda or cuda:N.")
@plans_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def verify_command(certificate: Path, as_json: bool, **given: Any) -> int:
    """Compute CERTIFICATE again and say whether it holds; exit code 3 if not."""
    from gms_rt.parity.verify import verify_certificate

    found = verify_certificate(certificate, **given)
    value = dataclasses.asdict(found)
    if not math.isfinite(found.largest_dice_difference):
        value["largest_dice_difference"] = None
    lines = [f"{certificate}: {'holds' if found.holds else 'does NOT hold'} (verdict: {found.verdict})"]
    Console(json=as_json).result(value, "\n".join([*lines, *(f"  {line}" for line in found.differences)]))
    return 0 if found.holds else GateError.exit_code


def _screen(certificate: dict[str, Any], path: Path | None) -> str:
    from gms_rt.report.text import score

    summary = certificate["summary"]
    cases = sorted(certificate["cases"], key=lambda case: case["dice"])[:10]
    truth = "truth_dice" in cases[0]
    rows = [
        [c["name"], score(c["dice"]), str(c["flipped"]), "inf" if c["hd95"] is None else f"{c['hd95']:.2f}"]
        + ([score(c["truth_dice"]), score(c["truth_dice_reference"])] if truth else [])
        for c in cases
    ]
    header = ["case (lowest first)", "Dice", "flipped", "HD95 px"] + (["truth", "reference"] if truth else [])
    interval = summary["interval"]
    return "\n".join(
        [
            certificate["compared"]["in_words"],
            "",
            table(rows, header=header),
            "",
            f"mean Dice {score(summary['mean'])} (95 % interval {score(interval['low'])}-{score(interval['high'])}), "
            f"lowest {score(summary['min'])} ({summary['worst']}), "
            f"{summary['flipped']} of {summary['pixels']} pixels flipped, {len(certificate['cases'])} cases",
            f"gate: mean >= {certificate['gate']['mean']}, lowest >= {certificate['gate']['min']}: "
            f"{'NO VERDICT' if path is None else certificate['verdict'].upper()}",
            *([] if path is None else [f"wrote {path}"]),
        ]
    )
