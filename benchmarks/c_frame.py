"""`segment.c`, the C example, over the same images: its time from file to mask beside the package's.

It reads uncompressed PPM and writes PGM without syncing, one image after the other on one thread of its own: less than
`gms-rt infer` does for a file, and what the library costs an integrator.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gms_rt.engine.select import load
from gms_rt.runtime.library import find_openvino, load_library

ROUNDS = 5


def c_frame(engine: str, paths: list[Path], root: Path) -> dict[str, Any]:
    """Milliseconds from file to mask: a run over all images less one over the first, so that the start is no part."""
    program = _compiled(root / "segment")
    pairs: list[str] = []
    for number, path in enumerate(paths):
        scan = root / f"{number}.ppm"
        cv2.imwrite(str(scan), cv2.imread(str(path), cv2.IMREAD_COLOR))
        pairs += [str(scan), str(root / f"{number}.pgm")]
    spent = []
    for _ in range(ROUNDS):
        whole, start = _seconds(program, engine, pairs), _seconds(program, engine, pairs[:2])
        spent.append((whole - start) / (len(paths) - 1))
    with load(engine) as opened:
        for number in range(0, len(paths), max(1, len(paths) // 20)):
            image = cv2.imread(str(root / f"{number}.ppm"), cv2.IMREAD_COLOR)[..., ::-1]
            mask = cv2.imread(str(root / f"{number}.pgm"), cv2.IMREAD_UNCHANGED)
            if not np.array_equal(mask, opened(np.ascontiguousarray(image))):
                raise SystemExit(f"{paths[number].name}: the C program's mask differs from the engine's own")
    return {"images": len(paths), "file_to_mask_ms": [round(1000 * seconds, 4) for seconds in sorted(spent)]}


def _compiled(program: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit("a C compiler is needed: cc")
    native = Path(__file__).resolve().parents[1] / "gms_rt/native"
    source = native / "examples/segment.c"
    subprocess.run(
        [compiler, "-O2", f"-I{native / 'include'}", str(source), _library(), "-o", str(program)], check=True
    )
    return program


def _library() -> str:
    return str(Path(load_library()._name).resolve())


def _seconds(program: Path, engine: str, pairs: list[str]) -> float:
    # Loaded before it is looked for: in the package's folder it does not lie under the name that the program asks for.
    environment = {**os.environ, "GMS_RT_OPENVINO": str(find_openvino()), "LD_PRELOAD": _library()}
    start = time.perf_counter()
    done = subprocess.run([str(program), engine, *pairs], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"segment.c failed: {done.stderr.strip()}")
    return time.perf_counter() - start
