"""One report, four renderings: complete, safe, offline, and the same facts in each."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from support.bench_runner import ThresholdRunner, engine_folder, golden_images, opener
from support.trees import ROOT

from gms_rt.artifacts import write_json
from gms_rt.bench.latency import TimingOptions, measure
from gms_rt.bench.proof import proof_from_folder
from gms_rt.bench.results import (
    Ceiling,
    DeviceReading,
    EngineLayers,
    LayerRow,
    Load,
    Measured,
    Roofline,
    RooflineRow,
    StageTime,
    SweepPoint,
    Waterfall,
    WaterfallStep,
)
from gms_rt.engine.golden import read_golden
from gms_rt.errors import ArtifactError, UsageError
from gms_rt.parity.certificate import certificate_from_engine
from gms_rt.report import write_report
from gms_rt.report.assemble import bench_report, case_card, golden_gallery
from gms_rt.report.certificates import parity_from_proof
from gms_rt.report.csv import csv_from_report
from gms_rt.report.html import html_from_report
from gms_rt.report.json import json_from_report, report_from_json
from gms_rt.report.markdown import markdown_from_report
from gms_rt.report.model import Card, Command, Gallery, Picture, Report
from gms_rt.report.schema import report_schema

NASTY = "<script>alert(1)</script>|\"'&"
LAYERS = EngineLayers(
    "good", "a processor", 3.5, (StageTime("encoder", 1.5), StageTime("decoder", 2.0)),
    (
        LayerRow("decoder/far", "decoder", "Convolution", "u8", 1.25, 0.5, 0.0321),
        LayerRow(NASTY, "encoder", "", "", 1.5, 0.25, 0.001),
        LayerRow("decoder/near", "decoder", "Convolution", "bf16", 0.745, 0.5, 0.0),
        LayerRow("decoder/short", "decoder", "Reorder", "f32", 0.005, 0.0, None),
    ),
    ("decoder/far",), "a clock", NASTY,
)  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Report:
    """Two engines, one with wrong masks, every section filled, hostile names."""
    root = tmp_path_factory.mktemp("engines")
    folders = [engine_folder(root / name) for name in ("good", "wrong")]
    runners = {"good": ThresholdRunner(delay=0.001), "wrong": ThresholdRunner(delay=0.002, shift=3)}
    result = measure(folders, TimingOptions(seconds=0.1, warmup=0, rounds=3, cold=False), opener=opener(**runners))
    galleries = []
    for folder in folders:
        shift = 3 if folder.name == "wrong" else 0
        with opener(**{folder.name: ThresholdRunner(shift=shift)})(folder) as engine:
            golden = read_golden(folder / "golden.npz")
            write_json(folder / "parity.json", certificate_from_engine(engine, golden))
            galleries.append(golden_gallery(folder.name, golden, engine.runner.infer(golden.images), limit=2))
    galleries.append(Gallery(NASTY, (Card(NASTY, (Picture(NASTY, "data:image/png;base64,AAAA"),)),), prominent=True))
    steps = (WaterfallStep("decode", 1.0), WaterfallStep("engine", 2.0, True))
    # Fixed surroundings, so that a busy test machine does not change what is expected.
    result = dataclasses.replace(
        result,
        load=Load(1.0, 0.0),
        warnings=(),
        state=(DeviceReading("load average", "0.1", "0.2"), DeviceReading("power mode", None, None, "no nvpmodel")),
        sweep=(SweepPoint("good", 1, 1, 1.0, 1.1, 990.0), SweepPoint("good", 1, 2, 1.6, 1.8, 1250.0)),
        layers=(LAYERS,),
        layers_why=f"wrong: {NASTY}",
        waterfalls=(Waterfall("good", NASTY, (64, 48), steps, 5),),
        roofline=Roofline(
            (Ceiling("copy", 20.0, "GB/s", "a copy"),),
            (RooflineRow("good", 1.0, 2.0, 100.0, 200.0, "f32", 0.5, 0.5, "arithmetic"),),
        ),
    )
    return bench_report(result, title=NASTY, galleries=galleries, commands=[Command(NASTY, "gms-rt bench")])


class _Page(HTMLParser):
    """Collects tags, and notices whether they nest."""

    VOID = ("meta", "img", "br", "rect", "line", "circle", "polyline", "input", "link")

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def _page(text: str) -> _Page:
    page = _Page()
    page.feed(text)
    assert page.stack == []
    return page


def _validator():
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(report_schema())
    return jsonschema.Draft202012Validator(report_schema())


def test_json_follows_its_schema(report):
    value = json.loads(json_from_report(report))
    validator = _validator()
    assert list(validator.iter_errors(value)) == []
    # The schema is no formality: each of these breaks it.
    for change in ({"surprise": 1}, {"title": 5}, {"parity": {}}, {"identity": None}, {"bench": {}}):
        assert list(validator.iter_errors(value | change)), change


def test_json_comes_back(report, tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json_from_report(report))
    again = report_from_json(path)
    assert json.loads(json_from_report(again)) == json.loads(path.read_text())
    assert again.bench == report.bench
    assert again.parity == report.parity


PUBLISHED = sorted(
    path
    for path in (ROOT / "benchmarks/results").rglob("*.json")
    if json.loads(path.read_text()).get("format") == "gms-rt-report"
)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_reports_are_still_read(path):
    found = report_from_json(path)
    assert found.measured()
    assert json.loads(json_from_report(found)) == json.loads(path.read_text())
    for text in (html_from_report(found), markdown_from_report(found), csv_from_report(found)):
        assert found.measured()[0].name in text


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_reports_follow_the_schema(path):
    assert list(_validator().iter_errors(json.loads(path.read_text()))) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 99}, "version 99"),
        ({"format": "other"}, "not a gms-rt-report"),
        ({"surprise": 1}, "unknown"),
        ({"title": 5}, "not of type str"),
        ({"parity": {}}, "not of type list"),
        ({"bench": []}, "not an object"),
        ({"identity": None}, "not of type Identity"),
    ],
)
def test_foreign_json_is_refused_by_name(report, tmp_path, change, words):
    value = json.loads(json_from_report(report)) | change
    path = tmp_path / "r.json"
    path.write_text(json.dumps(value))
    with pytest.raises(ArtifactError, match=words):
        report_from_json(path)


def test_csv_has_one_line_an_engine_and_the_verdict_beside_the_latency(report):
    rows = list(csv.DictReader(io.StringIO(csv_from_report(report))))
    assert [row["name"] for row in rows] == ["good", "wrong", "good", "good"]
    assert [row["parity"] for row in rows] == ["pass", "fail", "pass", "pass"]
    points = [row for row in rows if row["kind"] == "sweep"]
    assert [(row["batch"], row["lanes"], row["images_per_second"]) for row in points] == [
        ("1", "1", "990"), ("1", "2", "1250")
    ]  # fmt: skip
    rows = [row for row in rows if row["kind"] == "engine"]
    for row, measured in zip(rows, report.measured(), strict=True):
        assert float(row["latency_median_ms"]) == pytest.approx(measured.total.median, rel=1e-5)
        assert "too short" in row["warnings"]


def test_markdown_tables_are_whole_and_hostile_names_harmless(report):
    text = markdown_from_report(report)
    # Only inside the code block, which shows text as it is.
    assert "<script" not in re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in block.strip().splitlines()}
        assert len(counts) == 1
    assert "FAIL" in text
    assert "too short" in text
    assert "gms-rt bench" in text


def test_html_is_self_contained_and_escapes_names(report):
    page = _page(html_from_report(report))
    assert [t for t, _ in page.tags if t in ("script", "link", "iframe", "object", "embed", "base")] == []
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("data:", "#"))
    assert "url(" not in html_from_report(report)
    assert any(NASTY in text for text in page.text)


def test_layers_are_in_every_rendering_with_their_types_and_the_short_ones_folded(report):
    page = html_from_report(report)
    assert '<section id="layers"' in page
    section = page[page.index('<section id="layers"') :].split("</section>")[0]
    assert "encoder 43 %" in section and "decoder 57 %" in section
    assert "Worth a better type" in section and "<b>decoder/far</b>" in section
    # The longest first on one side, the farthest first on the other; what does not differ is not among the farthest.
    time, far = section.split("Where the values leave FP32")
    assert time.index("1.50 ms, unknown") < time.index("1.25 ms, int8") < time.index("0.74 ms, bf16")
    assert "3.2 %, int8" in far and "0.1 %, unknown" in far and "0, bf16" not in far
    assert 'fill="var(--s1)"' in far and "decoder/short" not in section and "1 more take less than 0.01 ms" in section
    text = markdown_from_report(report)
    assert "## Layers: good" in text and "| decoder/far | decoder | Convolution | int8 | 1.25 | 0.50 | 3.2 % |" in text
    assert "- worth a better type: decoder/far" in text and "- layers below 0.01 ms each, not shown: 1" in text
    rows = json.loads(json_from_report(report))["bench"]["layers"][0]["layers"]
    assert [row["name"] for row in rows] == [row.name for row in LAYERS.layers], "the machine gets all of them"


def test_a_report_without_layers_is_as_it_always_was(report):
    bare = dataclasses.replace(report, bench=dataclasses.replace(report.bench, layers=(), layers_why=""))
    value = json.loads(json_from_report(bare))
    assert not {"layers", "layers_why"} & value["bench"].keys() and list(_validator().iter_errors(value)) == []
    assert 'id="layers"' not in html_from_report(bare) and "## Layers" not in markdown_from_report(bare)


def test_html_says_in_every_place_that_masks_are_wrong(report):
    text = html_from_report(report)
    assert text.count("FAIL") >= 2
    assert re.search(r"wrong: mean Dice [\d.]+ is below", text)


def test_html_pictures_have_alternatives_and_regions_can_be_reached(report):
    page = _page(html_from_report(report))
    images = [a for t, a in page.tags if t == "img"]
    assert len(images) == 2 * 2 * 4 + 1
    assert all(a["alt"] for a in images)
    charts = [a for t, a in page.tags if t == "svg" and a.get("class") == "chart"]
    assert len(charts) == 8
    assert all(a["role"] == "group" and a["aria-label"] for a in charts)
    marks = [a for t, a in page.tags if t == "g" and a.get("class") == "mark"]
    assert all(a["role"] == "img" and a["aria-label"] for a in marks)
    reached = [a["aria-label"] for a in marks if a.get("tabindex") == "0"]
    # Medians, distribution, curve, waterfall and cases: each chart has values that the keyboard reaches.
    for words in ("good: median", "% within", "batch 1, 2 streams", "decode: 1.00 ms", "Dice 1.0000"):
        assert any(words in label for label in reached), words
    regions = [a for _, a in page.tags if a.get("role") == "region"]
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in regions)
    identifiers = [a["id"] for _, a in page.tags if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    anchors = [a["href"][1:] for t, a in page.tags if t == "a"]
    assert set(anchors) <= set(identifiers)


def test_an_engine_without_certificate_is_marked_everywhere(tmp_path):
    folder = engine_folder(tmp_path / "bare")
    result = measure([folder], TimingOptions(seconds=0.05, rounds=1, cold=False), opener=opener())
    bare = bench_report(result)
    assert bare.parity[0].verdict == "none"
    assert "none" in csv_from_report(bare)
    for text in (markdown_from_report(bare), html_from_report(bare)):
        assert "not certified" in text
    assert json.loads(json_from_report(bare))["parity"][0]["verdict"] == "none"


def _verdict(measured: Measured) -> str:
    return parity_from_proof(proof_from_folder(measured)).verdict


def test_a_certificate_of_another_build_device_or_arithmetic_is_stale(tmp_path):
    folder = engine_folder(tmp_path / "e")
    with opener()(folder) as engine:
        certificate = certificate_from_engine(engine, read_golden(folder / "golden.npz"))
    write_json(folder / "parity.json", certificate)
    (measured,) = measure([folder], TimingOptions(seconds=0.02, rounds=1, cold=False), opener=opener()).measured
    assert _verdict(measured) == "pass"
    for change in ({"identity": "0" * 64}, {"device": "another"}, {"execution": "bf16"}):
        assert _verdict(dataclasses.replace(measured, **change)) == "stale"
    for broken in (
        {},
        {key: value for key, value in certificate.items() if key != "gate"},
        certificate | {"summary": {}},
    ):
        (folder / "parity.json").write_text(json.dumps(broken))
        assert _verdict(measured) == "none"


def test_a_noisy_machine_stands_at_the_top(report):
    assert report.bench is not None
    noisy = dataclasses.replace(report.bench, warnings=("noisy machine: other programs used 50 % of the processor",))
    for text in (html_from_report(bench_report(noisy)), markdown_from_report(bench_report(noisy))):
        assert "noisy machine" in text
    assert "noisy machine" in csv_from_report(bench_report(noisy))


def test_a_report_with_nothing_but_a_gallery_renders(tmp_path):
    images, truth = golden_images(count=2)
    cards = tuple(case_card(f"c{i}", images[i], truth[i], truth=truth[i]) for i in range(2))
    bare = bench_report(
        measure([engine_folder(tmp_path / "e")], TimingOptions(seconds=0.02, rounds=1, cold=False), opener=opener())
    )
    bare = dataclasses.replace(bare, bench=None, parity=(), headline=(), galleries=(Gallery("Samples", cards),))
    page = _page(html_from_report(bare))
    assert len([t for t, _ in page.tags if t == "img"]) == 8
    assert markdown_from_report(bare).startswith("# ")
    assert len(csv_from_report(bare).splitlines()) == 1


def test_targets_are_chosen_by_ending(report, tmp_path):
    written = write_report(report, tmp_path / "out")
    assert sorted(p.name for p in written) == ["report.csv", "report.html", "report.json", "report.md"]
    assert write_report(report, tmp_path / "one.html") == [tmp_path / "one.html"]
    with pytest.raises(UsageError, match=r"\.pdf"):
        write_report(report, tmp_path / "one.pdf")
    assert not list(tmp_path.glob("*.pdf"))


def test_pictures_decode_to_what_was_drawn():
    import base64

    import cv2

    images, truth = golden_images(count=1)
    card = case_card("c", images[0], np.zeros_like(truth[0]), reference=truth[0])
    data = base64.b64decode(card.pictures[-1].data.partition(",")[2])
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    # All of the disc is missing, so its middle has the colour of a missed pixel (blue over red).
    blue, _, red = (int(v) for v in decoded[16, 16])
    assert blue > red + 80
    assert {f.label: f.value for f in card.facts}["Dice to FP32"] == "0.0000"


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update"),
    *("--disable-background-networking", "--disable-sync", "--enable-logging=stderr", "--v=0"),
)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_a_browser_shows_it_without_complaint(report, tmp_path):
    page = write_report(report, tmp_path / "report.html")[0]
    profile = tmp_path / "profile"
    dump = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert "CONSOLE" not in dump.stderr
    assert "Refused to" not in dump.stderr
    # Only the deliberately broken picture may lack pixels; a page without scripts cannot be asked, so look at it.
    shot = tmp_path / "shot.png"
    subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", f"--screenshot={shot}", "--window-size=1200,3000",
         page.as_uri()],
        capture_output=True, timeout=600, check=True,
    )  # fmt: skip
    import cv2

    pixels = cv2.imread(str(shot)).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 200
    pdf = tmp_path / "report.pdf"
    subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", f"--print-to-pdf={pdf}", page.as_uri()],
        capture_output=True,
        timeout=600,
        check=True,
    )
    assert Path(pdf).read_bytes()[:5] == b"%PDF-"
