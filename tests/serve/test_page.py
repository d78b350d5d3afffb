"""The page, in a real browser by a person's own actions: what it shows is what the service answers.

Accessibility is judged by axe-core out of a wheel that `scripts/test` fetches on a throwaway machine; by hand:
`python -m pip download --no-deps --dest build/clients axe-playwright-python`.
"""

from __future__ import annotations

import base64
import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from support.browser import CHROMIUM, Browser, Page, browser
from support.dicom_files import dataset, save, series
from support.serve_server import Running, Setup, picture, png, running
from support.trees import ROOT

from gms_rt.parity.certificate import FORMAT as CERTIFICATE_FORMAT
from gms_rt.serve.guard import GuardSettings
from gms_rt.serve.limits import ServeLimits

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")]

TOKEN = "a-token-of-more-than-16"
ALL_DONE = (
    "document.querySelectorAll('#cases li').length >= %d && [...document.querySelectorAll('#cases li')]"
    ".every((row) => ['done', 'partly', 'failed'].includes(row.dataset.state))"
)
# What is drawn over the image: one character a pixel, 1 where it is not clear.
DRAWN = """(() => {
  const canvas = document.getElementById('overlay');
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let text = '';
  for (let at = 3; at < data.length; at += 4) text += data[at] ? '1' : '0';
  return { width: canvas.width, height: canvas.height, text };
})()"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as pipes:
        yield pipes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("page") / "brightness") as found:
        yield found


@pytest.fixture
def page(chromium: Browser, server: Running) -> Page:
    return opened(chromium, server.port)


def opened(chromium: Browser, port: int) -> Page:
    page = Page(chromium)
    page.look(1280, 900)
    page.open(f"http://127.0.0.1:{port}/")
    page.wait("document.getElementById('health').textContent !== 'connecting'")
    return page


def picture_file(folder: Path, seed: int = 1) -> Path:
    path = folder / f"scan{seed}.png"
    path.write_bytes(png(picture(seed)))
    return path


def stack(folder: Path, slices: int = 6) -> list[Path]:
    """A CT series with the most foreground in its fourth slice."""
    pixels = np.zeros((slices, 60, 70), np.uint16)
    for index in range(slices):
        cv2.circle(pixels[index], (30, 30), 20 - 4 * abs(index - 3), 4000, -1)
    return series(folder, pixels, WindowCenter=2048, WindowWidth=4096)


def drawn(page: Page) -> np.ndarray[Any, Any]:
    found = page.value(DRAWN)
    return np.array([int(sign) for sign in found["text"]], bool).reshape(found["height"], found["width"])


def mask_of(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)) > 0


def saved(folder: Path, name: str) -> bytes:
    end = time.monotonic() + 60
    while not (folder / name).exists():
        assert time.monotonic() < end, [path.name for path in folder.iterdir()]
        time.sleep(0.05)
    return (folder / name).read_bytes()


def numbers(page: Page, table: str = "#numbers") -> dict[str, str]:
    rows = f"[...document.querySelectorAll('{table} tr')]"
    found = page.value(f"{rows}.map((row) => [row.firstChild.textContent, row.lastChild.textContent])")
    return dict(found)


def test_what_is_dropped_is_shown_with_the_mask_of_the_service(page: Page, server: Running, tmp_path: Path) -> None:
    path = picture_file(tmp_path)
    assert "Not for clinical use" in page.text("header")
    page.drop([path])
    page.wait(ALL_DONE % 1)
    page.wait("document.getElementById('overlay').width === 120")
    mask = mask_of(server.segment(path.read_bytes(), Accept="image/png").body)
    assert mask.any()
    assert np.array_equal(drawn(page), mask)
    answer = server.segment(path.read_bytes()).json()
    (frame,) = answer["sources"][0]["frames"]
    shown = numbers(page)
    assert shown["Area"] == f"{frame['area_px']:,} px"
    assert shown["Area in mm²"].startswith("not known")
    assert shown["Regions"] == str(frame["components"])
    assert f"{frame['confidence']:.3f}" in page.text("#headline")
    assert f"{frame['area_px']:,} px marked" in page.text("#cases")
    engine = numbers(page, "#engine")
    assert engine["Name"] == "brightness"
    assert engine["SHA-256"] == answer["engine"]["manifest_sha256"]
    assert list(numbers(page, "#times")) == [
        "Decode", "Wait for the engine", "Inference", "Measure and write", "All, seen from here",
    ]  # fmt: skip
    assert "There is none" in page.text("#certificate")
    rings = [ring for each in frame["contours"]["features"] for ring in each["geometry"]["coordinates"]]
    assert page.value("document.querySelector('#contour .line').getAttribute('d')").count("M") >= len(rings) > 0


def test_the_image_itself_is_drawn(page: Page, tmp_path: Path) -> None:
    path = picture_file(tmp_path)
    page.choose("#files", [path])
    page.wait(ALL_DONE % 1)
    page.wait("document.getElementById('image').width === 120")
    data = page.value("document.getElementById('image').toDataURL('image/png')").partition(",")[2]
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(shown.astype(int) - picture(1)).mean() < 4  # it travels as JPEG


def test_a_dropped_folder_is_one_series_with_its_volume(page: Page, server: Running, tmp_path: Path) -> None:
    folder = tmp_path / "study" / "ct"
    stack(folder)
    (folder / "read.me").write_text("hello")
    page.drop([tmp_path / "study"])
    page.wait(ALL_DONE % 1)
    page.wait("document.getElementById('overlay').width === 70")
    assert page.value("document.querySelectorAll('#cases li').length") == 1
    assert page.text("#cases").splitlines() == ["ct, series 3", "marked in 6 of 6"]
    assert page.text("#told") == "1 file that is not a scan left out."
    assert page.text("#frame-text") == "4 of 6"  # it opens where most is marked
    shown = numbers(page)
    assert shown["Distance of slices"] == "2.5 mm"
    area = float(shown["Area in mm²"].split()[0].replace(",", ""))
    pixels = int(shown["Area"].split()[0].replace(",", ""))
    assert area == pytest.approx(pixels * 0.4)
    assert np.count_nonzero(drawn(page)) == pixels
    assert "Volume" in page.text("#headline")


def test_what_is_not_one_series_is_several_scans(page: Page, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    stack(folder / "a", 3)
    stack(folder / "b", 2)
    loop = np.stack([picture(n, 40, 50)[..., 0] for n in range(3)])
    save(dataset(loop, "USMF", frames=3), folder / "loop.dcm")
    picture_file(folder)
    page.drop([folder])
    page.wait(ALL_DONE % 4)
    states = dict(zip(*[iter(page.text("#cases").splitlines())] * 2, strict=True))
    assert states.keys() == {"a, series 3", "b, series 3", "loop.dcm", "scan1.png"}
    assert states["loop.dcm"].endswith("of 3")


def test_all_of_it_works_with_keys(page: Page, tmp_path: Path) -> None:
    page.press("Tab")
    assert page.value("document.activeElement.className") == "skip"
    page.press("Tab")
    assert page.value("document.activeElement.id") == "pick-files"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.value(outline) == "solid"
    stack(tmp_path / "ct")
    page.drop([tmp_path / "ct", picture_file(tmp_path)])
    page.wait(ALL_DONE % 2)
    seen = []
    for _ in range(25):
        page.press("Tab")
        seen.append(page.value("document.activeElement.id || document.activeElement.textContent"))
        assert seen[-1] == "main" or page.value(outline) == "solid", seen
        if seen[-1] == "ZIP":
            break
    wanted = (
        "pick-folder",
        "clear",
        "cases",
        "again",
        "remove",
        "viewport",
        "frame",
        "opacity",
        "outline",
        "larger",
        "JSON",
    )
    assert [name for name in seen if name in wanted] == list(wanted)

    page.value("document.getElementById('cases').focus()")
    first = page.text("#case-title")
    page.press("End")
    page.press("Home")
    assert page.text("#case-title") in (first, "ct, series 3", "scan1.png")
    names = page.value("[...document.querySelectorAll('#cases .name')].map((name) => name.textContent)")
    page.press("Home", *["ArrowDown"] * names.index("ct, series 3"))
    assert page.text("#case-title") == "ct, series 3"
    page.press("Enter")
    assert page.value("document.activeElement.id") == "viewport"
    page.press("Home")
    assert page.text("#frame-text") == "1 of 6"
    page.press("ArrowRight", "ArrowRight")
    page.wait("document.getElementById('frame-text').innerText === '3 of 6'")
    page.press("End", "ArrowLeft")
    assert page.text("#frame-text") == "5 of 6"
    page.press("m")
    assert page.text("#opacity-text") == "0 %"
    page.press("m", "]")
    assert page.text("#opacity-text") == "55 %"
    assert page.value("getComputedStyle(document.getElementById('overlay')).opacity") == "0.55"
    page.press("c")
    assert page.value("getComputedStyle(document.getElementById('contour')).display") == "none"
    width = page.value("document.getElementById('stage').clientWidth")
    page.press("+")
    assert page.value("document.getElementById('stage').clientWidth") > width
    page.press("0")
    assert page.value("document.getElementById('stage').clientWidth") == width
    page.value("document.getElementById('cases').focus()")
    page.press("Delete")
    assert page.value("document.querySelectorAll('#cases li').length") == 1


def test_each_slice_has_its_own_mask(page: Page, server: Running, tmp_path: Path) -> None:
    stack(tmp_path / "ct")
    page.choose("#folder", [tmp_path / "ct"])
    page.wait(ALL_DONE % 1)
    page.wait("document.getElementById('overlay').width === 70")
    sizes = []
    for number in range(1, 7):
        page.value(
            f"(f => {{ f.value = {number}; f.dispatchEvent(new Event('input')) }})(document.getElementById('frame'))"
        )
        pixels = int(numbers(page)["Area"].split()[0].replace(",", ""))
        counted = f"({DRAWN}).text.replaceAll('0', '').length"
        page.wait(f"{counted} === {pixels}")
        sizes.append(pixels)
    assert sizes[:4] == sorted(set(sizes[:4]))
    assert sizes[3:] == sorted(set(sizes[3:]), reverse=True)


def test_what_is_saved_is_what_the_service_makes(page: Page, server: Running, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    out = tmp_path / "saved"
    out.mkdir()
    page.downloads(out)
    path = save(dataset(picture(3)[..., 0]), tmp_path / "us.dcm")
    page.drop([path])
    page.wait(ALL_DONE % 1)
    names = page.value("[...document.querySelectorAll('#export-buttons button')].map((each) => each.textContent)")
    assert names == ["PNG", "GeoJSON", "DICOM SEG", "JSON", "ZIP"]
    for number in range(1, len(names) + 1):
        page.value("document.getElementById('export-told').textContent = ''")
        page.click(f"#export-buttons button:nth-child({number})")
        page.wait("document.getElementById('export-told').textContent.endsWith('is saved.')")
    answer = server.segment(path.read_bytes()).json()
    assert saved(out, "us.png") == server.segment(path.read_bytes(), Accept="image/png").body
    frame = answer["sources"][0]["frames"][0]
    assert json.loads(saved(out, "us.geojson")) == frame["contours"]
    theirs = pydicom.dcmread(io.BytesIO(server.segment(path.read_bytes(), Accept="application/dicom").body))
    assert pydicom.dcmread(io.BytesIO(saved(out, "us.seg.dcm"))).PixelData == theirs.PixelData
    ours = json.loads(saved(out, "us.json"))
    assert ours["sources"][0]["frames"] == [frame | {"case": "us"}]  # the page sends the name of the file
    assert ours["engine"] == answer["engine"]
    assert saved(out, "us.zip").startswith(b"PK")


def test_a_series_is_saved_as_nifti(page: Page, server: Running, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    page.downloads(tmp_path)
    stack(tmp_path / "ct")
    page.drop([tmp_path / "ct"])
    page.wait(ALL_DONE % 1)
    buttons = "[...document.querySelectorAll('#export-buttons button')]"
    page.value(f"{buttons}.find((each) => each.textContent === 'NIfTI').click()")
    page.wait("document.getElementById('export-told').textContent.endsWith('is saved.')")
    saved(tmp_path, "ct-series-3_dseg.nii.gz")
    volume = nibabel.load(tmp_path / "ct-series-3_dseg.nii.gz")
    assert np.count_nonzero(np.asanyarray(volume.dataobj).any(axis=(0, 1))) == 6


def test_failures_are_told_in_words_and_others_go_on(page: Page, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(png(picture(1))[:200])
    (tmp_path / "letter.txt").write_text("Dear colleague")
    page.drop([broken, tmp_path / "letter.txt", picture_file(tmp_path)])
    page.wait(ALL_DONE % 3)
    assert page.text("#count") == "1 of 3 done, 2 failed"
    assert page.text("#message-title") == "This scan cannot be segmented"
    assert "truncated" in page.text("#message-what")
    assert page.text("#message-fix").startswith("What to do: ")
    page.click("#cases li:nth-child(2)")
    assert page.text("#message-title") == "This is not a scan that can be read"
    assert "PNG" in page.text("#message-fix")
    page.click("#cases li:nth-child(3)")
    assert page.value("document.getElementById('message').hidden")
    page.wait("/more scans ready|px marked/.test(document.getElementById('live').textContent)")  # told a moment later
    page.click("#clear")
    assert page.value("document.querySelectorAll('#cases li').length") == 0
    assert page.value("document.activeElement.id") == "pick-files"


def test_a_pasted_picture_is_segmented(page: Page, tmp_path: Path) -> None:
    data = base64.b64encode(png(picture(2))).decode()
    page.value(
        f"""(() => {{
        const bytes = Uint8Array.from(atob('{data}'), (sign) => sign.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], 'image.png', {{ type: 'image/png' }}));
        document.dispatchEvent(new ClipboardEvent('paste', {{ clipboardData: transfer, bubbles: true }}));
        }})()"""
    )
    page.wait(ALL_DONE % 1)
    assert page.text("#cases").startswith("pasted picture.png\n")


def test_a_token_is_asked_for_once_and_kept_for_the_tab(chromium: Browser, tmp_path: Path) -> None:
    setup = Setup(guard=GuardSettings(token=TOKEN))
    with running(tmp_path / "engine", setup) as server:
        page = opened(chromium, server.port)
        page.drop([picture_file(tmp_path, 1), picture_file(tmp_path, 2)])
        page.wait("document.getElementById('token-dialog').open")
        page.write("not-the-token-of-it")
        page.press("Enter")
        page.wait("document.getElementById('token-told').textContent.startsWith('That token is not right')")
        page.write(TOKEN)
        page.press("Enter")
        page.wait(ALL_DONE % 2)
        assert page.text("#count") == "2 of 2 done"
        assert page.value("Object.entries(sessionStorage)") == [["gms-rt-token", TOKEN]]
        page.value("sessionStorage.clear()")
        page.drop([picture_file(tmp_path, 3), picture_file(tmp_path, 4)])
        page.wait("document.getElementById('token-dialog').open")
        page.press("Escape")
        page.wait(ALL_DONE % 4)
        assert page.text("#count") == "2 of 4 done, 2 failed"
        assert "asks for a token" in page.text("#cases")


def test_it_waits_as_long_as_a_busy_service_says(chromium: Browser, tmp_path: Path) -> None:
    setup = Setup(limits=ServeLimits(requests=1), engine={"seconds": 0.3})
    with running(tmp_path / "engine", setup) as server:
        page = opened(chromium, server.port)
        page.drop([picture_file(tmp_path, seed) for seed in range(1, 7)])
        page.wait(ALL_DONE % 6)
        assert page.text("#count") == "6 of 6 done"
        assert any("429" in text for text in page.complaints)  # it was turned away at least once


def test_few_uploads_are_on_their_way_at_a_time(chromium: Browser, tmp_path: Path, server: Running) -> None:
    flying = most = 0
    lock = threading.Lock()

    class Between(BaseHTTPRequestHandler):
        """A proxy that counts."""

        def _pass(self) -> None:
            nonlocal flying, most
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            counted = self.path.startswith("/v1")
            with lock:
                flying += counted
                most = max(most, flying)
            time.sleep(0.05 * counted)
            kind = {"Content-Type": self.headers["Content-Type"]} if body else {}
            answer = server.ask(self.command, self.path, body or None, **kind)
            with lock:
                flying -= counted
            self.send_response(answer.status)
            for name in ("Content-Type", "Content-Security-Policy"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = _pass

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Between) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        try:
            page = opened(chromium, proxy.server_port)
            page.drop([picture_file(tmp_path, seed) for seed in range(1, 13)])
            page.wait(ALL_DONE % 12)
        finally:
            proxy.shutdown()
            thread.join()
    assert page.text("#count") == "12 of 12 done"
    assert 1 < most <= 3


def test_what_is_too_large_is_told_before_it_is_sent(chromium: Browser, tmp_path: Path) -> None:
    with running(tmp_path / "engine", Setup(limits=ServeLimits(max_bytes=2000))) as server:
        page = opened(chromium, server.port)
        (tmp_path / "large.png").write_bytes(png(picture(1)) + bytes(3000))
        page.drop([tmp_path / "large.png"])
        page.wait(ALL_DONE % 1)
        assert page.text("#message-title") == "This is too large for the service"
        assert "takes 2 kB at a time" in page.text("#message-what")
        assert not [address for address in page.requests if "/v1/segment" in address]


def test_a_service_that_ends_is_told_and_tried_again(chromium: Browser, tmp_path: Path) -> None:
    with running(tmp_path / "engine") as server:
        page = opened(chromium, server.port)
        assert page.text("#health") == "ready"
    page.drop([picture_file(tmp_path)])
    page.wait(ALL_DONE % 1)
    assert page.text("#message-title") == "The service cannot be reached"
    page.wait("document.getElementById('health').textContent === 'not reached'")


def test_it_says_what_the_certificate_compared(chromium: Browser, tmp_path: Path) -> None:
    from support.infer_engine import brightness_engine

    from gms_rt.artifacts import sha256_file
    from gms_rt.engine.manifest import MANIFEST

    folder = tmp_path / "certified"
    brightness_engine(folder).close()
    certificate = {
        "format": CERTIFICATE_FORMAT, "version": 1, "created": "2026-01-02T03:04:05+00:00",
        "engine": {"manifest_sha256": sha256_file(folder / MANIFEST)}, "reference": {}, "verdict": "pass",
        "compared": {"in_words": "fp16 engine on a test against PyTorch FP32"}, "gate": {"mean": 0.99, "min": 0.95},
        "summary": {"mean": 0.9987, "min": 0.9876}, "cases": [{}, {}],
    }  # fmt: skip
    (folder / "parity.json").write_text(json.dumps(certificate))
    with running(folder) as server:
        page = opened(chromium, server.port)
        page.drop([picture_file(tmp_path)])
        page.wait(ALL_DONE % 1)
    text = page.text("#certificate")
    assert "passed" in text
    assert "Compared: fp16 engine on a test against PyTorch FP32." in text
    shown = numbers(page, "#certificate")
    assert shown["Dice to the reference"] == "mean 0.9987, lowest 0.9876"
    assert shown["Images compared"] == "2"
    assert shown["SHA-256"] == sha256_file(folder / "parity.json")


def test_nothing_leaves_the_service_and_nothing_is_stored(page: Page, server: Running, tmp_path: Path) -> None:
    stack(tmp_path / "ct")
    page.drop([tmp_path / "ct", picture_file(tmp_path)])
    page.wait(ALL_DONE % 2)
    here = f"http://127.0.0.1:{server.port}/"
    assert len(page.requests) > 8
    assert all(address.startswith((here, "data:image/", "blob:" + here)) for address in page.requests)
    assert page.complaints == []
    stored = "[localStorage.length, sessionStorage.length, document.cookie, location.href]"
    assert page.value(stored) == [0, 0, "", here]
    assert page.value("indexedDB.databases().then((found) => found.length)") == 0
    assert page.value("caches.keys().then((found) => found.length)") == 0
    assert "scan1" not in page.value("document.title")
    for address in page.requests:
        if "/v1/segment" in address:
            assert address.endswith("?images=true&model=brightness")


@pytest.mark.parametrize("width", [320, 390, 820, 1280])
def test_nothing_is_cut_off_at_any_width(page: Page, tmp_path: Path, width: int) -> None:
    page.look(width, 800, phone=width < 500)
    for filled in (False, True):
        if filled:
            stack(tmp_path / "ct")
            page.drop([tmp_path / "ct"])
            page.wait(ALL_DONE % 1)
        assert page.value("document.documentElement.scrollWidth") <= width
        boxes = "[...document.querySelectorAll('button, select, input, h2, td, .warning')].filter(e => e.offsetParent)"
        assert page.value(f"{boxes}.every(e => e.getBoundingClientRect().right <= {width})")
        page.value("scrollTo(0, document.body.scrollHeight)")
        top = page.value("document.querySelector('.warning').getBoundingClientRect().top")
        assert 0 <= top < 60  # always in sight


def axe() -> str | None:
    """axe-core as the wheel of axe-playwright-python holds it, which `scripts/test` fetches on a throwaway machine."""
    wheels = sorted((ROOT / "build/clients").glob("axe_playwright_python-*.whl"))
    if not wheels:
        return None
    with zipfile.ZipFile(wheels[-1]) as wheel:
        return wheel.read(next(name for name in wheel.namelist() if name.endswith("axe.min.js"))).decode()


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing(page: Page, tmp_path: Path, dark: bool) -> None:
    source = axe()
    if source is None:
        pytest.skip("no wheel of axe-playwright-python in build/clients")
    page.value(source + ";0")

    def violations() -> Any:
        found = "r.violations.map(v => [v.id, v.nodes.map(n => n.html.slice(0, 200))])"
        return page.value(f"axe.run(document, {{resultTypes: ['violations']}}).then(r => {found})")

    page.look(1280, 900, dark=dark)
    assert violations() == []
    stack(tmp_path / "ct")
    (tmp_path / "broken.png").write_bytes(png(picture(1))[:200])
    page.drop([tmp_path / "ct", tmp_path / "broken.png"])
    page.wait(ALL_DONE % 2)
    for number in (1, 2):
        page.click(f"#cases li:nth-child({number})")
        assert violations() == []
    page.look(390, 800, dark=dark, phone=True)
    assert violations() == []
    page.value("document.getElementById('keys-dialog').showModal()")
    assert violations() == []
    page.value("document.getElementById('keys-dialog').close(); document.getElementById('token-dialog').showModal()")
    assert violations() == []
