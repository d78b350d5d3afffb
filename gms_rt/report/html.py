"""A report as one HTML file that opens offline: styles, charts and pictures are inside, there is no script.

Sections come in the order in which a reader asks: what is the answer, what does it look like, how fast, how sure, on
what, how do I get it again. Empty ones are left out.
"""

from __future__ import annotations

import calendar
import datetime
from collections.abc import Iterator
from html import escape
from importlib import resources

from gms_rt.report import charts
from gms_rt.report.columns import PROVEN, Column
from gms_rt.report.html_bench import bench_sections
from gms_rt.report.html_parts import badge, cell, dot, html_table, panel, section, table_from_columns
from gms_rt.report.model import Card, Fact, Gallery, Parity, Report
from gms_rt.report.text import score

STYLE = "page.css"
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def html_from_report(report: Report) -> str:
    """The report as one HTML page."""
    parts = list(_sections(report))
    links = "".join(f'<a href="#{key}">{escape(title)}</a>' for key, title, _ in parts)
    style = resources.files("gms_rt.report").joinpath(STYLE).read_text(encoding="utf-8")
    return (
        page_head(report.title, style) + '<body><a class="skip" href="#main">Skip to the results</a><div class="page">'
        f'<div class="top"><span class="brand">gms<b>-rt</b></span><nav aria-label="Sections">{links}</nav></div>\n'
        f'<main id="main">{_hero(report)}\n'
        + "\n".join(section(key, title, body) for key, title, body in parts)
        + f"</main>\n<footer>{_footer(report)}</footer></div></body></html>\n"
    )


def page_head(title: str, style: str) -> str:
    """What stands before a page's body."""
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n"
    )


def _hero(report: Report) -> str:
    lead = f'<p class="lead">{escape(report.lead)}</p>' if report.lead else ""
    notice = f'<span class="badge none">{escape(report.notes[0])}</span>' if report.notes else ""
    alerts = "".join(f"<li>{escape(w)}</li>" for w in report.warnings)
    alerts = (
        f'<div class="alerts" role="note"><b>Read these figures with care</b><ul>{alerts}</ul></div>' if alerts else ""
    )
    tiles = "".join(
        f'<div class="tile"><dt>{escape(f.label)}</dt><dd><div class="big {f.tone}">{escape(f.value)}</div>'
        f'<div class="note">{escape(f.note)}</div></dd></div>'
        for f in report.headline
    )
    tiles = f'<dl class="tiles">{tiles}</dl>' if tiles else ""
    return (
        f'<header class="hero"><h1>{_title(report.title)}</h1>{lead}'
        f'<p class="sub">{notice}<span>{escape(report.identity.device)}</span>'
        f"<span>{escape(_day(report.created))}</span></p></header>{tiles}{alerts}"
    )


def _title(text: str) -> str:
    # A name such as demo-fp32 is one word, and stays on one line where it fits.
    return " ".join(f'<span class="word">{escape(w)}</span>' if len(w) < 20 else escape(w) for w in text.split())


def _sections(report: Report) -> Iterator[tuple[str, str, str]]:
    """(anchor, title, body) of every section that has something to say."""
    for index, gallery in enumerate(report.galleries):
        if gallery.prominent and gallery.cards:
            yield f"gallery-{index + 1}", gallery.title, _gallery(gallery)
    if report.bench and report.bench.measured:
        yield from bench_sections(report, report.bench)
    if any(p.mean is not None for p in report.parity):
        yield "parity", "Parity", _parity(report)
    rest = [gallery for gallery in report.galleries if gallery.cards and not gallery.prominent]
    if len(rest) == 1:
        yield "cases", rest[0].title, _gallery(rest[0])
    elif rest:
        yield "cases", "Cases", "".join(f'<h3 class="part">{escape(g.title)}</h3>{_gallery(g)}' for g in rest)
    yield "device", "Device", _identity(report)
    if report.commands:
        yield "reproduce", "Reproduce", _commands(report)
    if report.notes:
        yield "notes", "Notes", f'<ul class="plain">{"".join(f"<li>{escape(n)}</li>" for n in report.notes)}</ul>'


def _gallery(gallery: Gallery) -> str:
    lead = f'<p class="intro">{escape(gallery.lead)}</p>' if gallery.lead else ""
    legend = "".join(f"<li>{dot(f.value)}{escape(f.label)}</li>" for f in gallery.legend)
    legend = f'<ul class="key-list" aria-label="Colours">{legend}</ul>' if legend else ""
    wide = " wide" if max(len(card.pictures) for card in gallery.cards) > 4 else ""
    return f'{lead}{legend}<div class="cards{wide}">{"".join(_card(card) for card in gallery.cards)}</div>'


def _card(card: Card) -> str:
    shots = "".join(
        f'<figure><img src="{escape(p.data)}" alt="{escape(card.title)}: {escape(p.label)}" loading="lazy">'
        f"<figcaption>{escape(p.label)}</figcaption></figure>"
        for p in card.pictures
    )
    count = len(card.pictures)
    subtitle = f'<span class="what">{escape(card.subtitle)}</span>' if card.subtitle else ""
    return (
        f'<article class="case"><header><h3>{escape(card.title)}</h3>{subtitle}</header>'
        f'<div class="shots{" four" if count >= 4 else ""}" style="--n:{count}">{shots}</div>'
        f"{_facts(card.facts)}</article>"
    )


def _facts(facts: tuple[Fact, ...]) -> str:
    if not facts:
        return ""
    items = "".join(f'<div><dt>{escape(f.label)}</dt><dd class="{f.tone}">{escape(f.value)}</dd></div>' for f in facts)
    return f'<dl class="facts">{items}</dl>'


def _parity(report: Report) -> str:
    proven = [p for p in report.parity if p.mean is not None]

    def changed(row: Parity, column: Column[Parity]) -> str | None:
        if column.key == "name" and row.why:
            return f'{cell(row.engine)}<span class="doubt">{escape(row.why)}</span>'
        return badge(row.verdict) if column.key == "verdict" else None

    gates = dict.fromkeys(
        [("mean gate", p.gate_mean) for p in proven if p.gate_mean is not None]
        + [("lowest gate", p.gate_min) for p in proven if p.gate_min is not None]
    )
    strips = [
        (p.engine, f"{len(p.cases)} cases, lowest {score(p.min)}", [(c.name, c.dice) for c in p.cases]) for p in proven
    ]
    words = "".join(f"<li>{escape(p.engine)}: {escape(p.in_words)}</li>" for p in proven if p.in_words)
    cases = [
        [escape(p.engine), escape(c.name), score(c.dice), f"{c.flipped:,}", "∞" if c.hd95 is None else f"{c.hd95:.2f}"]
        for p in proven
        for c in p.cases
    ]
    return (
        '<p class="intro">Does the engine draw the same masks as PyTorch in FP32? Every case is compared on this '
        "device; 1 means pixel for pixel equal.</p>"
        + panel(table_from_columns(PROVEN, proven, "Parity", changed))
        + panel(
            charts.parity_chart(strips, list(gates))
            + f"<details><summary>All {len(cases)} values</summary>"
            + html_table(["engine", "case", "Dice", "flipped pixels", "HD95 px"], cases, "llnnn", "Parity of each case")
            + "</details>",
            "Dice of each case to the reference",
        )
        + f'<ul class="plain" style="margin-top:14px">{words}</ul>'
    )


def _identity(report: Report) -> str:
    def list_of(facts: tuple[Fact, ...]) -> str:
        return html_table([], [[escape(f.label), cell(f.value, f.note)] for f in facts], "kl", "")

    body = '<div class="pair">' + panel(list_of(report.identity.hardware), "Hardware")
    body += panel(list_of(report.identity.software), "Software") + "</div>"
    if report.bench and report.bench.state:
        rows = [
            [escape(r.name), escape(r.before or "absent"), escape(r.after or ("" if r.before else r.why) or "–")]
            for r in report.bench.state
        ]
        load = report.bench.load
        if load.others is not None:
            rows.append(["other programs during the run", "", f"{load.others:.1f} % of all cores"])
        if load.stolen is not None:
            rows.append(["taken by other virtual machines", "", f"{load.stolen:.1f} % of all cores"])
        body += panel(html_table(["", "before", "after"], rows, "lll", "Device state"), "State around the run")
    return body


def _commands(report: Report) -> str:
    items = "".join(
        f'<div class="command"><p>{escape(c.label)}</p><pre tabindex="0"><code>{escape(c.line)}</code></pre></div>'
        for c in report.commands
    )
    return panel(items)


def _footer(report: Report) -> str:
    return f"Written by gms-rt {escape(report.gms_rt)} on {escape(_day(report.created))}. This file is self-contained."


def _day(created: str) -> str:
    try:
        when = datetime.datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{when.day} {calendar.month_name[when.month]} {when.year}, {when:%H:%M} {when.tzname() or ''}".rstrip()
