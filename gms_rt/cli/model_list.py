"""`gms-rt train --list-models`: the registry of comparators as text."""

from __future__ import annotations

import textwrap

_WIDTH = 100


def model_list_text() -> str:
    """Every comparator with its paper and its parameters, and notes on how it differs from what was published."""
    from gms_rt.cli.console import table
    from gms_rt.cli.extras import train_extra

    train_extra("the list of models")
    from gms_rt.model.comparators.network import million_parameters
    from gms_rt.model.comparators.registry import COMPARATORS

    rows, notes = [], []
    for facts in COMPARATORS:
        published = "-" if facts.published is None else f"{facts.published:g}"
        here = f"{million_parameters(facts):.3g}" if facts.installed else "-"
        rows.append([facts.name, str(facts.year), published, here, facts.paper])
        install = "" if facts.installed else "not installed: pip install 'gms-rt[comparators]'"
        if note := "; ".join(filter(None, (install, facts.note))):
            notes.append(textwrap.fill(f"{facts.name}: {note}", _WIDTH, subsequent_indent="  "))
    header = ["model", "year", "published M", "here M", "paper"]
    said = "Million parameters, as the GMS paper's table 1 states them and as counted here at 224x224."
    return "\n".join([table(rows, header=header), "", said, *notes])
