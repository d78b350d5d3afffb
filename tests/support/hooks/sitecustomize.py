"""For processes of tests: a file named poison ends the process that opens it, one named slow takes a while."""

from __future__ import annotations

import os
import sys
import time
from typing import Any


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not isinstance(arguments[0], (str, os.PathLike)):
        return
    name = os.fspath(arguments[0])
    name = name.rpartition("/")[2] if isinstance(name, str) else ""
    if name.startswith("poison") and name.endswith(".png"):
        os._exit(99)
    if name.startswith("slow") and name.endswith(".png") and arguments[1] == "rb":
        time.sleep(0.1)


if __name__ == "sitecustomize":  # not where the search for doctests imports it, into the process of the tests
    sys.addaudithook(_on_event)
