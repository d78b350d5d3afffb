"""What lanes and CUDA graphs of the C library are worth on a GPU, without TensorRT: a network of PyTorch in its place.

    python benchmarks/gpu/lanes.py [--device 0] [--side 224] [--seconds 0.3] [--out lanes.json]

A small network (three convolutions, FP16, channels-last) is enqueued on the lanes' streams as a plan would be, with
and without a captured graph, in one, two and four lanes. Its masks are compared with PyTorch's own before anything is
timed. It says how the runner behaves on a card, nothing about TensorRT's speed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from gms_rt.artifacts import write_json
from gms_rt.runtime.binding import NativeRunner
from gms_rt.runtime.cuda import CudaLane, LaneCalls
from gms_rt.runtime.device import probe
from gms_rt.runtime.options import CudaSettings


class DeviceBytes:
    """Bytes in a lane's memory on the device, as PyTorch reads them without a copy."""

    def __init__(self, pointer: int, shape: tuple[int, ...]) -> None:
        self.__cuda_array_interface__ = {"data": (pointer, False), "shape": shape, "typestr": "|u1", "version": 3}


def network(device: str) -> nn.Module:
    """The same three convolutions every time."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.SiLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.SiLU(),
        nn.Conv2d(64, 1, 3, padding=1), nn.Sigmoid(),
    )  # fmt: skip
    return net.to(device).half().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def masks_of(net: nn.Module, images: Tensor) -> Tensor:
    """uint8 probabilities of uint8 images."""
    with torch.inference_mode():
        levels: Tensor = net(images.permute(0, 3, 1, 2).to(torch.float16) / 255) * 255
        return levels.round().to(torch.uint8).squeeze(1)


def enqueuer(net: nn.Module, side: int, device: str) -> Callable[[CudaLane], None]:
    """Puts one inference on a lane's stream."""

    def enqueue(lane: CudaLane) -> None:
        with torch.cuda.stream(torch.cuda.ExternalStream(lane.stream)):
            images = torch.as_tensor(DeviceBytes(lane.images, (1, side, side, 3)), device=device)
            masks = torch.as_tensor(DeviceBytes(lane.masks, (1, side, side)), device=device)
            masks.copy_(masks_of(net, images))

    return enqueue


def row(options: argparse.Namespace, net: nn.Module, lanes: int, graph: bool) -> dict[str, Any]:
    """Median microseconds of one setting, and how far its masks are from PyTorch's."""
    device, side = f"cuda:{options.device}", options.side
    images = np.random.default_rng(1).integers(0, 256, (5, side, side, 3), np.uint8)
    wanted = np.concatenate([masks_of(net, torch.from_numpy(i[None]).to(device)).cpu().numpy() for i in images])
    settings = CudaSettings(
        device=options.device, height=side, width=side, lanes=lanes, cuda_graph="always" if graph else "never"
    )
    with NativeRunner.open_cuda(settings, LaneCalls(enqueuer(net, side, device))) as runner:
        found = np.zeros(wanted.shape, np.uint8)
        runner.infer(images, found)
        timed = runner.bench(images, seconds=options.seconds, iterations=20, warmup=0.05)
        median = {
            name: round(float(np.median(getattr(timed, name))) * 1e3, 1) for name in ("total", "compute", "enqueue")
        }
        return {
            "lanes": lanes,
            "graphs": runner.info.graphs,
            "largest_difference": int(np.abs(found.astype(int) - wanted).max()),
            "median_us": median,
            "images_per_second": round(timed.images_per_second),
        }


def main() -> int:
    """Time every setting; exit code 1 where masks differ by more than a level."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    machine = probe()
    if options.device >= len(machine.gpus):
        parser.error(f"there is no CUDA device {options.device} here: {machine.driver_note or 'see gms-rt doctor'}")
    net = network(f"cuda:{options.device}")
    rows = [row(options, net, lanes, graph) for graph in (False, True) for lanes in (1, 2, 4)]
    found = {"gpu": machine.gpus[options.device].name, "cuda": machine.driver, "torch": torch.__version__, "rows": rows}
    print(json.dumps(found, indent=2))
    if options.out:
        write_json(options.out, found)
    return int(any(one["largest_difference"] > 1 for one in rows))


if __name__ == "__main__":
    sys.exit(main())
