"""For processes of tests: a file named poison ends the process that opens it, one named slow takes a while."""

import os
import sys
import time


def _open(event: str, arguments: tuple) -> None:
    if event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        name = os.path.basename(os.fspath(arguments[0]))
        if isinstance(name, str) and name.startswith("poison") and name.endswith(".png"):
            os._exit(99)
        if isinstance(name, str) and name.startswith("slow") and name.endswith(".png") and arguments[1] == "rb":
            time.sleep(0.1)


sys.addaudithook(_open)
