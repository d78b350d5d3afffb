"""Other segmentation models next to a GMS engine, on the same pictures and machine: `python benchmarks/baselines.py`.

Each baseline is trained here, from scratch, on the pictures of `--data` (images/ and masks/) or on phantoms, exported
to ONNX, and then timed turn by turn with the engines, in one run; Dice is against the truth of pictures that none was
trained on. The training is short and has the same limit for all: the figures compare cost, and accuracy at equal
effort, not what each model could reach. A model that was trained is kept in `--work`, and trained again when the
settings or the data differ.

Needs torch, onnxruntime and MONAI (`pip install monai einops`), for this script alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt import metrics
from gms_rt.artifacts import atomic_path, write_json
from gms_rt.bench.run import BenchOptions, bench
from gms_rt.bench.subjects import fit_images
from gms_rt.data.layouts import recognise
from gms_rt.data.reading import read_case
from gms_rt.demo.phantoms import phantom
from gms_rt.demo.seeds import BASELINE_TEST_SEEDS, BASELINE_TRAINING_SEEDS
from gms_rt.engine.select import load
from gms_rt.errors import GmsError
from gms_rt.peers.client import Peer
from gms_rt.report import write_report
from gms_rt.report.assemble import report_from_bench
from gms_rt.report.model import Report
from gms_rt.runtime.device import probe
from gms_rt.scan import resize_image
from gms_rt.scan.mask import FOREGROUND, resize_mask

BATCH, RATE = 8, 1e-3
EXAMPLES = """examples:
  python benchmarks/baselines.py --engine engines/demo-fp32 --engine engines/demo-int8
  python benchmarks/baselines.py --engine engines/busi --data data/busi --minutes 30 --steps 4000
  python benchmarks/baselines.py --engine engines/demo-int8 --models depthwise-unet-50k --steps 20 --out try/
"""


class DepthwiseUnet(nn.Module):
    """A U-Net of about 50 thousand parameters: depthwise convolutions, six levels, additions as skips.

    Its size is that of the smallest published medical models (EGE-UNet and its kin); it is not one of them.
    """

    WIDTHS = (12, 24, 40, 56, 72, 96)

    def __init__(self) -> None:
        super().__init__()
        pairs = list(zip((3, *self.WIDTHS[:-1]), self.WIDTHS, strict=True))
        self.down = nn.ModuleList(self._block(a, b) for a, b in pairs)
        self.up = nn.ModuleList(self._block(b, a) for a, b in reversed(pairs[1:]))
        self.head = nn.Conv2d(self.WIDTHS[0], 1, 1)

    @staticmethod
    def _block(before: int, after: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(before, before, 3, padding=1, groups=before, bias=False),
            nn.Conv2d(before, after, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 5, padding=2, groups=after, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Logits N×1×H×W of N×3×H×W images in [0, 1]; sides must divide by 32."""
        skips: list[Tensor] = []
        value = image
        for level, block in enumerate(self.down):
            value = block(value if level == 0 else F.max_pool2d(value, 2))
            skips.append(value)
        skips.pop()
        for block in self.up:
            value = F.interpolate(block(value), scale_factor=2.0, mode="bilinear") + skips.pop()
        return self.head(value)


class WithSigmoid(nn.Module):
    """A model and a sigmoid after it, so that the exported graph gives probabilities."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities N×1×H×W."""
        return torch.sigmoid(self.model(image))


def _unet() -> nn.Module:
    from monai.networks.nets import UNet

    return UNet(2, 3, 1, channels=(32, 64, 128, 256, 512), strides=(2, 2, 2, 2), num_res_units=2, norm="BATCH")


def _swin_unetr() -> nn.Module:
    from monai.networks.nets import SwinUNETR

    return SwinUNETR(3, 1, feature_size=24, spatial_dims=2)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "monai-unet": _unet,
    "monai-swin-unetr": _swin_unetr,
    "depthwise-unet-50k": DepthwiseUnet,
}


@dataclasses.dataclass(frozen=True)
class Cases:
    """Pictures and true masks: uint8 N×H×W×3 and N×H×W of 0 and 255."""

    images: np.ndarray
    masks: np.ndarray


def phantom_cases(seeds: range, size: int) -> Cases:
    """Phantoms of these seeds."""
    drawn = [phantom(seed, size, size) for seed in seeds]
    return Cases(np.stack([p.rgb for p in drawn]), np.stack([p.mask for p in drawn]))


def folder_cases(data: Path, size: int, test: int) -> tuple[Cases, Cases]:
    """Training and test cases of a data set: a fixed shuffle, the last `test` held out."""
    pairs = [read_case(case) for case in recognise(data).cases]
    if len(pairs) <= test:
        raise SystemExit(f"{data}: {len(pairs)} pairs of image and mask are too few for {test} test cases")
    order = np.random.default_rng(0).permutation(len(pairs))
    stacked = np.stack([resize_image(image, size, size) for image, _ in pairs])[order]
    truth = np.stack([resize_mask(mask, size, size) for _, mask in pairs])[order]
    return Cases(stacked[:-test], truth[:-test]), Cases(stacked[-test:], truth[-test:])


def train(model: nn.Module, cases: Cases, steps: int, seconds: float) -> dict[str, Any]:
    """Fit with AdamW, cosine decay, flips, and Dice plus cross entropy, until `steps` or `seconds` are over."""
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE * 3, total_steps=steps)
    start = said = time.monotonic()
    done, loss = 0, torch.zeros(())
    while done < steps and time.monotonic() - start < seconds:
        chosen = generator.integers(0, len(cases.images), BATCH)
        images, masks = cases.images[chosen], cases.masks[chosen]
        if generator.random() < 0.5:
            images, masks = images[:, :, ::-1], masks[:, :, ::-1]
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
        truth = torch.from_numpy(np.ascontiguousarray(masks)).float()[:, None] / 255
        logits = model(pixels)
        soft = torch.sigmoid(logits)
        overlap = 2 * (soft * truth).sum((1, 2, 3)) + 1
        dice = overlap / (soft.sum((1, 2, 3)) + truth.sum((1, 2, 3)) + 1)
        loss = 1 - dice.mean() + F.binary_cross_entropy_with_logits(logits, truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        done += 1
        if time.monotonic() - said > 15:
            said = time.monotonic()
            left = f"{said - start:.0f} of at most {seconds:.0f} s"
            print(f"  step {done} of {steps}, {left}, loss {loss.item():.3f}", flush=True)
    return {"steps": done, "seconds": round(time.monotonic() - start, 1), "loss": round(loss.item(), 4)}


def export(model: nn.Module, path: Path, size: int) -> None:
    """Write the model as ONNX: float N×3×H×W in, probability N×1×H×W out."""
    # The exporter warns about its own internals, and about a missing torchvision, which is not needed here.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            WithSigmoid(model).eval(), (torch.zeros(1, 3, size, size),), dynamo=True, opset_version=18, verbose=False
        )
    with atomic_path(path) as part:
        part.write_bytes(program.model_proto.SerializeToString())


def engine_dice(folder: Path, cases: Cases) -> float:
    """Mean Dice of an engine to the truth."""
    with load(folder) as engine:
        info = engine.runner.info
        produced = engine.runner.infer(fit_images(cases.images, info.height, info.width))
    return _dice(produced, cases.masks)


def peer_dice(path: Path, cases: Cases) -> float:
    """Mean Dice of an exported baseline to the truth."""
    with Peer("onnx", path, path.stem) as peer:
        return _dice(peer.infer(fit_images(cases.images, peer.info.height, peer.info.width)), cases.masks)


def _dice(produced: np.ndarray, masks: np.ndarray) -> float:
    return float(
        np.mean([metrics.dice(p >= FOREGROUND, m >= FOREGROUND) for p, m in zip(produced, masks, strict=True)])
    )


def with_truth(report: Report, dices: dict[str, float], how: str) -> Report:
    """The report with Dice on the test pictures next to every latency."""
    assert report.bench is not None
    rows = tuple(dataclasses.replace(m, truth_dice=dices[m.name]) for m in report.bench.measured)
    return dataclasses.replace(
        report, bench=dataclasses.replace(report.bench, measured=rows), notes=(*report.notes, how)
    )


def _kept(record: Path, model: Path, settings: dict[str, Any]) -> bool:
    """Whether a model of the same settings is already there."""
    if not (record.is_file() and model.is_file()):
        return False
    return json.loads(record.read_text()).get("settings") == settings


def main() -> None:
    """Train, export, measure, report."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--engine", type=Path, action="append", required=True, help="GMS engine folder; repeatable")
    parser.add_argument(
        "--data", type=Path, help="data set folder, such as one with images/ and masks/ (default: phantoms)"
    )
    parser.add_argument("--out", type=Path, help="report folder (default: benchmarks/results/<device>/baselines)")
    parser.add_argument("--work", type=Path, default=Path("build/baselines"), help="where the models are kept")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=400, help="training steps per model, at most (400)")
    parser.add_argument("--minutes", type=float, default=3, help="training time per model, at most (3)")
    parser.add_argument("--train", type=int, default=600, help="phantoms to train on")
    parser.add_argument("--test", type=int, default=60, help="pictures to test on")
    parser.add_argument("--seconds", type=float, default=3.0, help="timed, per engine and model")
    options = parser.parse_args()
    if options.data:
        training, test = folder_cases(options.data, options.size, options.test)
    else:
        training = phantom_cases(BASELINE_TRAINING_SEEDS[: options.train], options.size)
        test = phantom_cases(BASELINE_TEST_SEEDS[: options.test], options.size)
    paths, efforts = [], {}
    for name in options.models:
        path = options.work / f"{name}.onnx"
        record = path.with_suffix(".json")
        settings = {"steps": options.steps, "minutes": options.minutes, "size": options.size, "train": options.train}
        settings["data"] = str(options.data.resolve()) if options.data else "phantoms"
        if not _kept(record, path, settings):
            print(f"{name}: training", flush=True)
            torch.manual_seed(0)
            model = MODELS[name]()
            effort = train(model, training, options.steps, options.minutes * 60)
            export(model, path, options.size)
            write_json(record, {**effort, "settings": settings})
        efforts[name] = json.loads(record.read_text())
        effort = efforts[name]
        print(f"{name}: {effort['steps']} steps in {effort['seconds']:.0f} s, loss {effort['loss']}", flush=True)
        paths.append(path)
    order = BenchOptions(
        tuple(options.engine),
        against=tuple(map(str, paths)),
        seconds=options.seconds,
        sweep=False,
    )
    try:
        run = bench(order, lambda text: print(text, flush=True))
    except GmsError as error:
        raise SystemExit(error.line()) from error
    report = report_from_bench(run, title=f"GMS and other segmentation models on {probe().name}")
    dices = {p.stem: peer_dice(p, test) for p in paths}
    dices |= {m.name: engine_dice(Path(m.source), test) for m in report.measured() if m.kind == "engine"}
    source = f"the folder {options.data.name}" if options.data else "phantoms"
    trained = "; ".join(f"{name} {e['steps']} steps in {e['seconds']:.0f} s" for name, e in efforts.items())
    how = (
        f"Dice to the truth: {len(test.images)} held-out pictures of {source}. Baselines were trained here from "
        f"scratch, {options.steps} steps or {options.minutes:g} minutes, whichever ended first: {trained}. They "
        "compare cost, and accuracy at that small equal effort, not what each model could reach; the GMS engines come "
        "trained."
    )
    target = options.out or Path("benchmarks/results") / probe().name / "baselines"
    for file in write_report(with_truth(report, dices, how), target):
        print(f"wrote {file}")


if __name__ == "__main__":
    main()
