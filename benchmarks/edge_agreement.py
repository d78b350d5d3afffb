"""Dice of a student's or an engine's masks to those of its teachers, on the test cases, at the network's size.

    python benchmarks/edge_agreement.py ham10000/ --splits ham10000.json --teacher runs/seed0 --teacher runs/seed1 \\
        --flips both --keep teacher.npz --model runs/edge --model engines/edge-int8 [--device cuda] --out agreement.json

The teachers' mask is where the mean of their probabilities, over flips if any are named, is a half or more: what
`gms-rt eval --average --tta` judges. `--keep` writes these masks, or reads them where the file exists, so that another
machine goes on without the teachers. How good masks are, `gms-rt eval` says; this only says how much alike they are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from gms_rt.arrays import U8
from gms_rt.artifacts import write_json
from gms_rt.cli.eval_models import engine_model, model_from_run
from gms_rt.data.layouts import Case, recognise
from gms_rt.evaluate.choice import chosen_cases
from gms_rt.evaluate.summary import describe_values
from gms_rt.metrics import dice
from gms_rt.scan.flips import FLIPS
from gms_rt.scan.mask import FOREGROUND
from gms_rt.scan.reader import first_image
from gms_rt.scan.segmenter import Segmenter

NO_TRUST = {"trust_plans": False, "trust_device": False}


def main() -> int:
    """Ask the teachers, or read what they said; compare; print; write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--splits", type=Path, help="names of the test cases")
    parser.add_argument("--split", default="test", help="test, or all where the folder holds test cases alone")
    parser.add_argument("--teacher", type=Path, action="append", default=[], help="a run; repeat it for their average")
    parser.add_argument("--flips", choices=sorted(FLIPS), help="over which the teachers are averaged")
    parser.add_argument("--keep", type=Path, help="file of the teachers' masks")
    parser.add_argument("--model", type=Path, action="append", default=[], help="a run or an engine folder; repeatable")
    parser.add_argument("--device", default="cpu", help="of teachers and runs")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cases, _ = chosen_cases(recognise(options.data), options.split, file=options.splits)
    found: dict[str, Any] = {"command": "python benchmarks/edge_agreement.py " + " ".join(sys.argv[1:])}
    names, masks = taught(options, cases)
    found |= {"teachers": names, "cases": len(cases)}
    with ExitStack() as opened:
        for path in options.model:
            is_run = (path / "config.toml").is_file()
            model = (
                model_from_run(path, options.device)
                if is_run
                else opened.enter_context(engine_model(path, None, NO_TRUST))
            )
            own = drawn([model.segmenter], cases)
            agreed = [dice(mine, theirs) for mine, theirs in zip(own, masks, strict=True)]
            found.setdefault("models", {})[str(path)] = describe_values(agreed)
    print(json.dumps(found, indent=2))
    if options.out:
        write_json(options.out, found)
    return 0


def taught(options: argparse.Namespace, cases: Sequence[Case]) -> tuple[list[str], U8]:
    """Who the teachers are, with their flips, and their masks."""
    known = [case.name for case in cases]
    if options.keep and options.keep.is_file():
        with np.load(options.keep, allow_pickle=False) as kept:
            if kept["cases"].tolist() != known:
                raise SystemExit(f"{options.keep}: holds other cases; name another file")
            shape = tuple(kept["shape"])
            return kept["teachers"].tolist(), np.unpackbits(kept["masks"], count=int(np.prod(shape))).reshape(shape)
    if not options.teacher:
        raise SystemExit("name a --teacher, or the --keep of an earlier call")
    models = [model_from_run(run, options.device) for run in options.teacher]
    names = [f"{model.name} ({model.facts['weights_sha256']})" for model in models] + [f"flips: {options.flips}"]
    masks = drawn([model.over_flips(options.flips) for model in models], cases)
    if options.keep:
        np.savez_compressed(
            options.keep, cases=known, teachers=names, shape=masks.shape, masks=np.packbits(masks.astype(bool))
        )
    return names, masks


def drawn(models: Sequence[Segmenter], cases: Sequence[Case]) -> U8:
    """The masks (0 and 1) of all cases, of the mean of these models."""
    masks = []
    for case in cases:
        image = first_image(case.image)
        masks.append(np.mean([np.asarray(model.levels(image), np.float32) for model in models], axis=0) >= FOREGROUND)
    return np.stack(masks).astype(np.uint8)


if __name__ == "__main__":
    raise SystemExit(main())
