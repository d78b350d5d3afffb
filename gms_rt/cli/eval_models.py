"""What `gms-rt eval` evaluates, and how: the options of one call, a run or an engine as a model, the cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gms_rt.artifacts import check_apart, sha256_file
from gms_rt.cli.console import Console
from gms_rt.errors import UsageError
from gms_rt.model.kind import weights_file
from gms_rt.scan.flips import infer_over_flips
from gms_rt.scan.segmenter import Segmenter

if TYPE_CHECKING:
    from gms_rt.data.layouts import Case
    from gms_rt.evaluate.dataset import Evaluation, Judge
    from gms_rt.evaluate.measure import Scale


@dataclass(frozen=True)
class EvalOptions:
    """What holds for every evaluation of one call."""

    part: str | None  # None: test
    every: int
    scale: Scale
    flips: str | None  # to average over
    gallery: int
    device: str | None
    console: Console

    def judge(self, facts: dict[str, Any], progress: Callable[[int, str], None]) -> Judge:
        """How the library is to measure."""
        from gms_rt.evaluate.dataset import Judge

        return Judge(self.scale, self.gallery, facts, progress)


@dataclass(frozen=True)
class EvalModel:
    """What is evaluated, and the facts about it for the summary."""

    segmenter: Segmenter
    facts: dict[str, Any]
    run: Path | None = None
    name: str = ""  # of its folder

    def over_flips(self, which: str | None) -> Segmenter:
        """The model, averaged over these flips if any are asked for."""
        if which is None:
            return self.segmenter
        height, width = self.segmenter.height, self.segmenter.width
        return Segmenter(infer_over_flips(self.segmenter.infer, which, height, width), height, width)


def model_from_run(run: Path, device: str | None) -> EvalModel:
    """A run, in PyTorch."""
    from gms_rt.cli.extras import train_extra

    train_extra("the evaluation of a run")
    from gms_rt.train.device import torch_device
    from gms_rt.train.predict import segmenter_from_run

    segmenter = segmenter_from_run(run, device=torch_device(device or "cpu"))
    facts = {"run": str(run), "weights_sha256": sha256_file(weights_file(run))}
    return EvalModel(segmenter, facts, run, run.resolve().name)


@contextmanager
def engine_model(folder: Path, device: str | None, trust: dict[str, bool]) -> Iterator[EvalModel]:
    """An engine, loaded until the end of the block."""
    from gms_rt.engine.select import load

    with load(folder, device=device, trust_plans=trust["trust_plans"], trust_device=trust["trust_device"]) as engine:
        manifest = engine.manifest
        facts = {
            "engine": str(folder),
            "precision": manifest.precision,
            "device": engine.runner.info.device,
            "model_sha256": manifest.files.get(manifest.model),
            **({"graph_flips": manifest.flips} if manifest.flips else {}),
        }
        yield EvalModel(engine, facts, name=folder.resolve().name)


def numbered_labels(names: list[str]) -> list[str]:
    """Names for rows and folders: those that occur more than once are numbered."""
    plain = ["".join(c if c.isalnum() or c in "-_." else "_" for c in name) for name in names]
    return [
        f"{name}-{1 + plain[:place].count(name)}" if plain.count(name) > 1 else name for place, name in enumerate(plain)
    ]


def untrained_cases(
    data: Path, lists: Path | None, models: Sequence[EvalModel], options: EvalOptions, out: Path
) -> tuple[list[Case], dict[str, Any]]:
    """The cases that none of the models was trained on, and the facts about the choice for the summary."""
    from gms_rt.data.layouts import recognise
    from gms_rt.evaluate.choice import chosen_cases

    part = options.part or "test"
    dataset = recognise(data)
    check_apart(out, dataset.root)
    cases, source = chosen_cases(dataset, part, file=lists, run=models[0].run, every=options.every)
    for other in models[1:]:
        theirs, _ = chosen_cases(dataset, part, file=lists, run=other.run, every=options.every)
        if [case.name for case in theirs] != [case.name for case in cases]:
            raise UsageError(
                f"{models[0].name} and {other.name} keep different cases for the part '{part}'",
                where="--average",
                fix="train them on the same lists, or name the cases with --splits",
            )
    chosen = {"data": dataset.name, "split": part, "every": options.every, "split_source": source}
    return cases, {"tta": options.flips is not None, "flips": options.flips, **chosen}


def evaluate_model(data: Path, lists: Path | None, model: EvalModel, options: EvalOptions, out: Path) -> Evaluation:
    """One model's evaluation, into its folder."""
    from gms_rt.evaluate.dataset import evaluate

    segmenter = model.over_flips(options.flips)
    cases, chosen = untrained_cases(data, lists, (model,), options, out)
    facts = {**model.facts, **chosen}
    with options.console.progress(f"eval {chosen['data']}", len(cases)) as bar:
        return evaluate(cases, segmenter, out, options.judge(facts, bar.advance))
