"""How much of an engine's speed is left from files to written masks.

    python benchmarks/infer_pipeline.py --engine engines/demo-fp16 --count 500

Makes mixed images (JPEG, PNG, BMP, 16-bit TIFF, DICOM, 200 to 1000 pixels), measures the engine alone, the whole run,
and the engine alone again, and checks some masks against the engine's own. Prints one JSON object.

    python benchmarks/infer_pipeline.py --images $GMS_RT_DATA/ham10000/images [--engine EDGE] [--before REVISION]

measures the frame around an engine of a millisecond or two, on files that are there already: files a second with masks
and tables, processor time per file, memory at 500, 1,000 and 2,000 files, the steps of one file one by one. `--before`
does the same with an earlier revision of gms-rt, taken from git, in turn, and compares every pixel of the masks.
Without `--engine` a network with random weights stands in (`edge_graph.py`). The results go to `--out`, by default
`benchmarks/results/<device>/infer-edge.json`. Every run is a process of its own.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from c_frame import c_frame
from PIL import Image

from gms_rt.artifacts import write_json
from gms_rt.engine.build import build_engine
from gms_rt.engine.loaded import Engine
from gms_rt.engine.request import BuildRequest
from gms_rt.engine.select import load
from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases
from gms_rt.runtime.arithmetic import cpu_arithmetic
from gms_rt.runtime.device import package_version, probe
from gms_rt.runtime.library import LIBRARY_VARIABLE, load_library

ROOT = Path(__file__).resolve().parents[1]
# A script with the code of PYTHONPATH: an editable install would put its own tree before it.
CHILD = """
import os, runpy, sys
sys.path[0] = os.path.dirname(sys.argv[1])  # not the working folder
sys.meta_path = [one for one in sys.meta_path if not type(one).__module__.startswith(("_editable", "__editable"))]
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
COUNTS = (500, 1000, 2000)
STEP_FILES = 100
PACKAGES = ("openvino", "opencv-python-headless", "pillow", "numpy")
KINDS = ("jpg", "jpg", "jpg", "jpg", "png", "png", "bmp", "tif", "dcm", "dcm")


def scan(rng: np.random.Generator, colour: bool) -> Any:
    """A smooth picture with a bright region and speckle."""
    height, width = (int(n) for n in rng.integers(200, 1000, 2))
    coarse = rng.integers(0, 160, (8, 8, 3 if colour else 1), np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, -1)
    centre, axes = (width // 2, height // 3), (width // 6, height // 8)
    image = cv2.ellipse(np.ascontiguousarray(image), centre, axes, 30, 0, 360, (250,) * image.shape[2], -1)
    image = image.reshape(height, width, -1)
    noisy = image + rng.normal(0, 6, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def write_scans(folder: Path, count: int) -> None:
    """Mixed files, always the same ones."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for index in range(count):
        kind = KINDS[index % len(KINDS)]
        image = scan(rng, colour=index % 3 == 0 and kind != "tif")
        flat = image[..., 0] if image.shape[2] == 1 else image
        path = folder / f"{index:05}.{kind}"
        if kind == "dcm":
            write_dicom(path, flat)
        elif kind == "tif":
            Image.fromarray(flat.astype(np.uint16) * 11).save(path)
        else:
            Image.fromarray(flat).save(path)


def write_dicom(path: Path, image: Any) -> None:
    """A secondary capture."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID, made.Modality = generate_uid(), generate_uid(), "OT"
    made.Rows, made.Columns = image.shape[:2]
    made.SamplesPerPixel = 1 if image.ndim == 2 else 3
    made.PhotometricInterpretation = "MONOCHROME2" if image.ndim == 2 else "RGB"
    if image.ndim == 3:
        made.PlanarConfiguration = 0
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    data = image.tobytes()
    made.PixelData = data + b"\0" * (len(data) % 2)
    made["PixelData"].VR = "OB"
    made.save_as(path, enforce_file_format=True)


def engine_rate(engine: Engine, seconds: float) -> float:
    """Images per second of the engine alone."""
    info = engine.runner.info
    images = np.random.default_rng(1).integers(0, 256, (8, info.height, info.width, 3), np.uint8)
    return engine.runner.bench(images, seconds=seconds).images_per_second


def earlier_code(revision: str, folder: Path) -> Path:
    """The package as it was at a revision."""
    packed = subprocess.run(["git", "archive", revision, "gms_rt"], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def run_child(code: Path, *arguments: object) -> dict[str, Any]:
    """One measurement in a process that has this code, and this version's C library."""
    # What a run has written stays until the end of all: for minutes after many files were deleted, ext4 makes new ones
    # at several times the cost, and the next run would be charged for the last one's results.
    environment = os.environ | {"PYTHONPATH": str(code), LIBRARY_VARIABLE: load_library()._name}
    command = [sys.executable, "-c", CHILD, str(Path(__file__).with_name("infer_child.py")), *map(str, arguments)]
    result = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)}\n{result.stderr}")
    value: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    if Path(value.pop("code")).resolve().parents[2] != code.resolve():
        raise SystemExit(f"the process did not take its code from {code}")
    return value


def equal_masks(one: Path, other: Path) -> int:
    """How many masks there are; all of them are the same in both folders, pixel by pixel."""
    names = sorted(path.name for path in one.iterdir())
    if names != sorted(path.name for path in other.iterdir()):
        raise SystemExit("the runs made different files")
    for name in names:
        if not np.array_equal(np.asarray(Image.open(one / name)), np.asarray(Image.open(other / name))):
            raise SystemExit(f"{name}: the masks differ")
    return len(names)


def measure_frame(arguments: argparse.Namespace, engine: str, root: Path) -> dict[str, Any]:
    """All measurements of the frame, of both versions in turn."""
    before, counts = arguments.before, sorted(arguments.counts)
    paths = sorted(path for path in arguments.images.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    listed = root / "files.txt"
    listed.write_text("".join(f"{path.resolve()}\n" for path in paths[: counts[-1]]))
    codes = {"now": ROOT} if before is None else {before: earlier_code(before, root / "before"), "now": ROOT}
    numbers = itertools.count()

    def measured(code: Path, count: int, *more: object) -> dict[str, Any]:
        given = ("--engine", engine, "--list", listed, "--root", root / f"run-{next(numbers)}")
        return run_child(code, *given, "--count", count, *more)

    versions: dict[str, Any] = {
        name: {"waterfall_ms": measured(code, STEP_FILES, "--waterfall")["steps"], "runs": []}
        for name, code in codes.items()
    }
    for turn, count in enumerate([*counts[:-1], *[counts[-1]] * arguments.rounds]):
        for name, code in codes.items():
            keep = ("--keep", root / name.replace("/", "-")) if turn == len(counts) - 1 else ()
            versions[name]["runs"].append(measured(code, count, *keep))
    for name, code in codes.items():
        versions[name]["all_results"] = measured(code, counts[0], "--all-results")
    for found in versions.values():
        longest = [run for run in found["runs"] if run["files"] == found["runs"][-1]["files"]]
        best = max(longest, key=lambda run: run["files_per_second"])
        alone = statistics.median(rate["images_per_second"] for run in longest for rate in run["engine_alone"])
        found["files_per_second"] = statistics.median(run["files_per_second"] for run in longest)
        found["best_files_per_second"] = best["files_per_second"]
        found["engine_alone_per_second"] = alone
        found["share_of_engine"] = round(found["files_per_second"] / alone, 4)
        found["cpu_ms_per_file"] = min(run["cpu_ms_per_file"]["sum"] for run in longest)
        found["engine_cpu_ms"] = min(rate["cpu_ms_per_image"] for run in longest for rate in run["engine_alone"])
        found["engine_share_of_cpu"] = round(found["engine_cpu_ms"] / found["cpu_ms_per_file"], 4)
        found["peak_rss_mib"] = {run["files"]: run["peak_rss_mib"] for run in found["runs"]}
    report: dict[str, Any] = {"images": len(listed.read_text().splitlines()), "versions_compared": versions}
    (root / "c").mkdir()
    report["segment_c"] = c_frame(engine, paths[: counts[0]], root / "c")
    if before is not None:
        report["equal_masks"] = equal_masks(root / before.replace("/", "-"), root / "now")
    return report


def frame_report(arguments: argparse.Namespace) -> None:
    """Measure the frame, write the report, print its figures."""
    machine = probe()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        engine = arguments.engine
        if engine is None:
            import onnx
            from edge_graph import edge_graph

            onnx.save(edge_graph(), root / "edge.onnx")
            precision = "bf16" if cpu_arithmetic().bf16 else "fp32"
            request = BuildRequest(root / "edge.onnx", precision=precision, targets=("cpu",), out=root / "edge")
            engine = str(build_engine(request).folder)
        with load(engine, mode="throughput") as opened:
            about = {
                "name": opened.manifest.name if arguments.engine else "stand-in with random weights",
                "execution": opened.runner.info.execution,
                "lanes": opened.runner.info.lanes,
            }
        load_before = os.getloadavg()[0]
        report = {
            "device": machine.processor,
            "cores": len(os.sched_getaffinity(0)),
            "versions": {
                name: package_version(name) for name in ("openvino", "opencv-python-headless", "pillow", "numpy")
            },
            "engine": about,
            "load_before": round(load_before, 2),
            "command": f"python benchmarks/infer_pipeline.py {' '.join(arguments.shown)}",
            **measure_frame(arguments, engine, root),
        }
    out = arguments.out or Path("benchmarks/results") / machine.name / "infer-edge.json"
    write_json(out, report)
    for name, found in report["versions_compared"].items():
        steps = ", ".join(f"{step} {ms:.3f}" for step, ms in found["waterfall_ms"].items())
        print(
            f"{name}: {found['files_per_second']:.0f} files/s, {100 * found['share_of_engine']:.0f} % of the engine "
            f"alone ({found['engine_alone_per_second']:.0f}/s); processor time per file {found['cpu_ms_per_file']:.2f} "
            f"ms, the engine's own {found['engine_cpu_ms']:.2f}; MiB at most {found['peak_rss_mib']}\n  ms: {steps}"
        )
    told = ", ".join(f"{ms:.3f}" for ms in report["segment_c"]["file_to_mask_ms"])
    print(f"segment.c, one image after the other: {told} ms from file to mask\n{out}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine")
    parser.add_argument("--images", type=Path, help="measure the frame around a fast engine on these files")
    parser.add_argument("--before", help="with --images: an earlier revision to compare with")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="with --images: files in a run")
    parser.add_argument("--rounds", type=int, default=3, help="with --images: runs over the most files")
    parser.add_argument("--out", type=Path, help="with --images: the report")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--no-dicom-seg", action="store_true")
    arguments = parser.parse_args()
    if arguments.images is not None:
        data = os.environ.get("GMS_RT_DATA")
        arguments.shown = [text.replace(data, "$GMS_RT_DATA") if data else text for text in sys.argv[1:]]
        frame_report(arguments)
        return
    if arguments.engine is None:
        parser.error("give --engine, or --images")
    with tempfile.TemporaryDirectory() as temporary, load(arguments.engine, mode="throughput") as engine:
        root = Path(temporary)
        write_scans(root / "scans", arguments.count)
        found = find_sources([str(root / "scans")])
        before = engine_rate(engine, arguments.seconds)
        options = InferOptions(dicom_seg=not arguments.no_dicom_seg)
        with OutFolder(root / "out") as out:
            start = time.perf_counter()
            summary = run_cases(found, InferJob(engine, out, options))
            seconds = time.perf_counter() - start
        after = engine_rate(engine, arguments.seconds)
        if summary.failed:
            raise SystemExit(f"{summary.failed} cases failed")
        for path in sorted((root / "scans").glob("*.jpg"))[:20]:
            mask = cv2.imread(str(root / "out/masks" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
            if not np.array_equal(mask, engine(np.asarray(Image.open(path)))):
                raise SystemExit(f"{path.name}: the mask differs from the engine's own")
        alone = (before + after) / 2
        report = {
            "machine": probe().name,
            "cores": probe().cpu.cores,
            "engine": engine.manifest.name,
            "execution": engine.runner.info.execution,
            "lanes": engine.runner.info.lanes,
            "images": arguments.count,
            "engine_images_per_second": [round(before, 2), round(after, 2)],
            "pipeline_images_per_second": round(arguments.count / seconds, 2),
            "share_of_engine": round(arguments.count / seconds / alone, 4),
            "stages": summary.stages,
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
        print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
