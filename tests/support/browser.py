"""Chromium for tests, driven by its own protocol over two pipes: no driver, no port, no other package.

Keys, clicks and drops are real ones. What a page asks of the network and writes to its console is kept.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update"),
    *("--disable-background-networking", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe"),
    *("--disable-extensions", "--no-proxy-server", "--hide-scrollbars", "--force-color-profile=srgb"),
)
# The browser reads commands from descriptor 3 and answers on 4.
_AS_3_AND_4 = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(text), fcntl.F_DUPFD, 10) for text in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_SECONDS = 120.0  # for one answer or one wait, on machines that do much else
_KEYS = {
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35, "Tab": 9, "Enter": 13,
    "Delete": 46, "Escape": 27, " ": 32,
}  # fmt: skip


class Page:
    """One tab, with storage that no other tab shares."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._context = browser.call("Target.createBrowserContext")["browserContextId"]  # storage of its own
        target = browser.call("Target.createTarget", url="about:blank", browserContextId=self._context)["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.requests: list[str] = []
        self.complaints: list[str] = []
        browser.listeners[self._session] = self._heard
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol."""
        return self._browser.call(method, self._session, **parameters)

    def _heard(self, method: str, told: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"].get("exception", told["exceptionDetails"])))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")

    def open(self, address: str) -> None:
        """Go to an address and wait until it is loaded."""
        self.call("Page.navigate", url=address)
        self.wait(f"location.href.startsWith({json.dumps(address)}) && document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """What an expression (of a promise, what it resolves to) is, as JSON."""
        done = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            raise AssertionError(done["exceptionDetails"].get("exception", {}).get("description", done))
        return done["result"].get("value")

    def wait(self, expression: str) -> Any:
        """The value of an expression once it is true."""
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            found = self.value(expression)
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"never true: {expression}\n{self.value('document.body.innerText')}")

    def text(self, selector: str) -> str:
        """The visible text of an element."""
        return str(self.value(f"document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str) -> None:
        """A click with the mouse in the middle of an element."""
        place = f"document.querySelector({json.dumps(selector)})"
        x, y = self.value(
            f"(() => {{ const e = {place}; e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, *keys: str, shift: bool = False) -> None:
        """Keys, one after the other."""
        for key in keys:
            code = _KEYS.get(key, ord(key.upper()) if len(key) == 1 and key.isalnum() else 0)
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            shared = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
            self.call("Input.dispatchKeyEvent", type="keyDown", **shared, **({"text": text} if text else {}))
            self.call("Input.dispatchKeyEvent", type="keyUp", **shared)

    def write(self, text: str) -> None:
        """Text into what has the focus."""
        self.call("Input.insertText", text=text)

    def drop(self, paths: Sequence[Path], selector: str = "main") -> None:
        """Drop files or folders of the disk onto an element."""
        place = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        x, y = self.value(
            f"(() => {{ const r = {place}; return [r.x + r.width / 2, r.y + Math.min(r.height, 200) / 2] }})()"
        )
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def choose(self, selector: str, paths: Sequence[Path]) -> None:
        """What choosing files in the dialog of an input does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def downloads(self, folder: Path) -> None:
        """Let what the page saves go into a folder."""
        self._browser.call(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), browserContextId=self._context
        )

    def look(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """The size of the window, and what the person's system is set to."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def shot(self, whole: bool = False) -> bytes:
        """A picture of the window, or of the whole page, as PNG."""
        shown = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(shown["data"])


class Browser:
    """A browser's protocol: numbered commands out, answers and events in, each ended by a zero byte."""

    def __init__(self, out: int, back: int) -> None:
        self._out = out
        self._back = os.fdopen(back, "rb")
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._news = threading.Condition()
        self._ended = False
        self.listeners: dict[str, Any] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        with self._news:
            assert self._news.wait_for(lambda: number in self._answers or self._ended, _SECONDS), f"no answer: {method}"
            assert number in self._answers, f"the browser ended at {method}"
            answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _listen(self) -> None:
        rest = b""
        while piece := self._back.raw.read(65536):  # type: ignore[attr-defined]
            *whole, rest = (rest + piece).split(b"\0")
            for each in whole:
                message = json.loads(each)
                if "id" in message:
                    with self._news:
                        self._answers[message["id"]] = message
                        self._news.notify_all()
                elif listener := self.listeners.get(message.get("sessionId", "")):
                    listener(message["method"], message["params"])
        with self._news:
            self._ended = True
            self._news.notify_all()
        self._back.close()


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with an empty profile in a folder, until the block ends."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    command = [sys.executable, "-c", _AS_3_AND_4, str(theirs_in), str(theirs_out), str(CHROMIUM), *_FLAGS]
    process = subprocess.Popen(
        [*command, f"--user-data-dir={folder / 'profile'}", "about:blank"],
        pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    pipes = Browser(ours_out, ours_in)
    try:
        yield pipes
        pipes.call("Browser.close")
    finally:
        os.close(ours_out)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
