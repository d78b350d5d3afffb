"""The whole way of the bundled model inside the emulated system, each verb run and judged; facts go to one JSON file.

A check that has passed for the same source is not run again, so that a walk that was interrupted goes on. Nothing is
timed: an emulator's speed says nothing about a processor's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gms_rt.telemetry import quiet_module

Facts = dict[str, Any]
NATIVE = Path("/check/native")
SAMPLES = Path("/check/source/gms_rt/demo/samples")
FEW = ("--calib-images", "2", "--gate-images", "2")
TAKEN = ("03-square.png", "12-grey.dcm")


class Failed(Exception):
    """A check did not hold."""


def hold(condition: object, what: str) -> None:
    """End the check unless this holds."""
    if not condition:
        raise Failed(what)


def run(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a program that must end with this exit code."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    print(f"$ {' '.join(map(str, words))}\n{done.stdout}{done.stderr}", flush=True)
    hold(done.returncode == code, f"exit code {done.returncode} instead of {code}: {done.stderr.strip()[-600:]}")
    return done


def verb(*words: str | Path, code: int = 0) -> Any:
    """The JSON that a verb of gms-rt prints."""
    return json.loads(run("gms-rt", *words, "--json", code=code).stdout)


def runtime() -> Facts:
    """What OpenVINO itself says of this CPU, and what `doctor` makes of the machine."""
    openvino = quiet_module("openvino")

    core = openvino.Core()
    capabilities = sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    machine = verb("doctor")["machine"]
    hold(machine["cpu"]["architecture"] == "aarch64", "this is not aarch64")
    return {"openvino_capabilities": capabilities, "processor": machine["cpu"], "board": machine.get("board")}


def build_fp16() -> Facts:
    """An FP16 engine; what its convolutions run in is what the manifest says, and FP16 only where the CPU has it."""
    openvino = quiet_module("openvino")

    built = verb("build", "--precision", "fp16", "--target", "cpu", *FEW, "--force", "--out", "engines/fp16")
    manifest = built["manifest"]
    layers = manifest["census"]["cpu"]["layers"]["Convolution"]
    able = "FP16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if manifest["execution"] == "f16":
        hold(able, "f16 was asked of a CPU without FP16")
        hold(layers.get("f16", 0) > layers.get("f32", 0), f"f16 was asked and the convolutions run as {layers}")
    else:
        hold("f16" not in layers, f"{manifest['execution']} was asked and the convolutions run as {layers}")
        hold(any("FP16" in note for note in manifest["notes"]), "no note says that FP16 is not computed in")
    certificate = built["certificate"]  # against the PyTorch FP32 masks of the bundled reference
    hold(certificate["verdict"] == "pass", f"the certificate says {certificate['verdict']}")
    hold(manifest["gate"]["passed"] and manifest["gate"]["images"] == 2, "the gate did not judge two images")
    return {
        "f16": asked_for_f16() if able else None,  # an emulator's times decide nothing about what is faster
        "execution": manifest["execution"],
        "convolutions": layers,
        "notes": manifest["notes"],
        "gate": {name: manifest["gate"][name] for name in ("mean", "minimum", "images")},
        "certificate": certificate["verdict"],
        "certificate_dice": {name: round(certificate["summary"][name], 5) for name in ("mean", "min")},
    }


def asked_for_f16() -> Facts:
    """The engine's graph in f16, whatever the build chose: what its convolutions run in, and how its mask differs."""
    import cv2

    from gms_rt.graph.read import read_graph
    from gms_rt.graph.run import Session
    from gms_rt.metrics import dice
    from gms_rt.scan.mask import mask_from_levels
    from gms_rt.scan.segmenter import prepare_image

    graph = read_graph(Path("engines/fp16/model.onnx"), batch=1)
    _, height, width = graph.size
    picture = prepare_image(cv2.cvtColor(cv2.imread(str(SAMPLES / TAKEN[0])), cv2.COLOR_BGR2RGB), height, width)[None]
    half = Session(graph, execution="f16")
    layers = half.executed_layers()["Convolution"]
    hold(set(layers) == {"f16"}, f"f16 was asked and the convolutions run as {layers}")
    masks = [mask_from_levels(session.probabilities(picture)[0]) for session in (half, Session(graph))]
    found = dice(*masks)
    hold(found >= 0.95, f"Dice of the f16 mask to that of f32 is {found:.4f}")
    return {"convolutions": layers, "dice_to_f32": round(found, 5)}


def refuse_int8() -> Facts:
    """INT8 is refused before calibration where OpenVINO runs no INT8 convolution."""
    done = run("gms-rt", "build", "--precision", "int8", "--target", "cpu", "--out", "engines/int8", code=4)
    hold("runs no convolution in INT8 on this CPU" in done.stderr, "the refusal has another reason")
    hold(not Path("engines/int8").exists(), "a refused build left a folder")
    return {"exit_code": 4, "said": done.stderr.strip()}


def infer() -> Facts:
    """Masks of a picture and a DICOM file."""
    shutil.rmtree("segmented", ignore_errors=True)
    run("gms-rt", "infer", *(SAMPLES / name for name in TAKEN), "--engine", "engines/fp16", "--out", "segmented")
    summary = json.loads(Path("segmented/summary.json").read_text())
    masks = sorted(path.name for path in Path("segmented/masks").rglob("*") if path.is_file())
    hold(len(masks) == len(TAKEN), f"masks: {masks}")
    return {"masks": masks, "failed": summary.get("failed", 0)}


def bench() -> Facts:
    """The timing loop runs and writes its report; the times are an emulator's and are not kept."""
    run("gms-rt", "bench", "--engine", "engines/fp16", "--seconds", "0.5", "--rounds", "1", "--warmup", "0",
        "--no-sweep", "--no-certify", "--out", "reports/report.json")  # fmt: skip
    report = json.loads(Path("reports/report.json").read_text())
    return {"device": report["identity"]["device"]}


def segment_in_c() -> Facts:
    """The C example writes a mask with the same engine."""
    import cv2

    openvino = quiet_module("openvino")

    (library,) = Path(openvino.__file__).parent.glob("libs/libopenvino_c.so*")
    cv2.imwrite("scan.ppm", cv2.imread(str(SAMPLES / TAKEN[0])))
    run("env", f"GMS_RT_OPENVINO={library}", NATIVE / "tests/segment", "engines/fp16", "scan.ppm", "mask.pgm")
    mask, scan = (cv2.imread(name, cv2.IMREAD_GRAYSCALE) for name in ("mask.pgm", "scan.ppm"))
    hold(mask is not None and mask.shape == scan.shape and mask.any(), "no mask, an empty one, or one of another size")
    return {"foreground_pixels": int((mask > 127).sum())}


def demo() -> Facts:
    """The demo goes on without INT8, says so, and ends with a report."""
    shutil.rmtree("demo", ignore_errors=True)
    found = verb("demo", "--out", "demo", "--seconds", "0.5", *FEW)
    names = [engine["name"] for engine in found["engines"]]
    hold(names == ["demo-fp16", "demo-edge-fp16"], "other engines than the two of FP16 were built")
    hold("INT8 was left out" in found["left_out"], "the demo does not say that INT8 was left out")
    hold(Path("demo/report.html").is_file(), "the demo wrote no report")
    return {"device": found["device"], "left_out": found["left_out"], "segmented": found["samples"]["segmented"],
            "mean_dice_to_truth": found["samples"]["mean_dice_to_truth"],
            "certificate": found["engines"][0]["verdict"]}  # fmt: skip


CHECKS: tuple[Callable[[], Facts], ...] = (
    runtime, build_fp16, refuse_int8, infer, segment_in_c, bench, demo,
)  # fmt: skip


def main() -> int:
    """Run what has not passed yet; 1 at the first check that does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--key", required=True, help="names the source")
    asked = parser.parse_args()
    place = Path("/check/walk") / asked.cpu
    place.mkdir(parents=True, exist_ok=True)
    os.chdir(place)
    kept = json.loads(asked.out.read_text()) if asked.out.is_file() else {}
    passed = kept["passed"] if kept.get("key") == asked.key else {}
    for check in CHECKS:
        if check.__name__ in passed:
            continue
        print(f"== {check.__name__}", flush=True)
        try:
            passed[check.__name__] = check()
        except Failed as failure:
            print(f"{check.__name__} failed: {failure}", file=sys.stderr)
            return 1
        asked.out.write_text(json.dumps({"key": asked.key, "passed": passed}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
