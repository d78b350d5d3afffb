"""The frozen teacher, or the average of several: soft masks and mask latents of pictures, as fast as this machine can.

On a GPU torch computes; on a CPU OpenVINO does, from the run's own graph, in BF16 where the CPU has it; torch again
where OpenVINO is not installed. Which it was stands in `made_by`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gms_rt.arrays import F32, U8
from gms_rt.artifacts import sha256_json
from gms_rt.errors import UsageError
from gms_rt.model.kind import teacher_sha256, tokenizer_values
from gms_rt.model.run import check_run, load_run, model_shape
from gms_rt.model.size import trained_size
from gms_rt.scan.flips import mean_over_flips
from gms_rt.train.device import forward_type

F16 = NDArray[np.float16]
Answer = Callable[[U8], tuple[U8, F16]]
_BATCH = 16
_GPU_BATCH = 64  # at first: halved where memory is short


@dataclass(frozen=True)
class TeacherFacts:
    """What a teacher is."""

    run: Path
    size: int  # side of its pictures
    latent_channels: int  # of a mask latent
    sha256: str  # of its weights and its tokenizer's
    also: tuple[TeacherFacts, ...] = ()  # others, whose average with it is what is said
    each: tuple[str, ...] = ()  # with others, or flips: the hash of every run
    flips: str = "none"  # over which soft masks are averaged


@dataclass(frozen=True)
class Teacher:
    """A teacher, ready to answer."""

    answer: Answer  # uint8 N×H×W×3 pictures to soft masks uint8 N×H×W and scaled mask latents N×C×h×w
    made_by: str  # what computes


def teacher_facts(run: Path, also: tuple[Path, ...] = ()) -> TeacherFacts:
    """What a run is as a teacher, or several together, without opening a tokenizer."""
    check_run(run)
    first = TeacherFacts(run, trained_size(run), model_shape(run).latent_channels, teacher_sha256(run))
    if not also:
        return first
    others = tuple(teacher_facts(other) for other in also)
    known = tokenizer_values(run)
    for other in others:
        if other.size != first.size or tokenizer_values(other.run) != known:
            raise UsageError(
                f"cannot teach together with {run}: another tokenizer, or pictures of another size",
                where=other.run,
                fix="name runs that were trained with one tokenizer at one size",
            )
    every = tuple(one.sha256 for one in (first, *others))
    if len(set(every)) < len(every):
        raise UsageError("one of the teachers is named twice", where="--also", fix="name each run once")
    return replace(first, sha256=sha256_json(every), also=others, each=every)


def with_flips(facts: TeacherFacts, flips: str) -> TeacherFacts:
    """The same teacher, whose soft masks are averaged over these flips."""
    if flips == "none":
        return facts
    return replace(facts, flips=flips, sha256=sha256_json([facts.sha256, flips]), each=facts.each or (facts.sha256,))


def open_teacher(facts: TeacherFacts, device: str) -> Teacher:
    """Open a teacher for this device."""
    teacher = _open_all(facts, device)
    if facts.flips == "none":
        return teacher

    def answer(images: U8) -> tuple[U8, F16]:
        told: list[F16] = []

        def masks(views: U8) -> U8:
            soft, latents = teacher.answer(views)
            told.append(latents[: len(images)])  # the first views are the pictures as they are
            return soft

        return np.rint(mean_over_flips(masks, images, facts.flips)).astype(np.uint8), told[0]

    return Teacher(answer, f"{teacher.made_by}, mean over flips: {facts.flips}")


def _open_all(facts: TeacherFacts, device: str) -> Teacher:
    every = [_open_one(one, device) for one in (facts, *facts.also)]
    if len(every) == 1:
        return every[0]

    def answer(images: U8) -> tuple[U8, F16]:
        masks, latents = zip(*(teacher.answer(images) for teacher in every), strict=True)
        return np.rint(_mean(masks)).astype(np.uint8), _mean(latents).astype(np.float16)

    return Teacher(answer, f"average of {len(every)}, {every[0].made_by}")


def _mean(parts: Sequence[NDArray[Any]]) -> F32:
    return np.asarray(np.mean([part.astype(np.float32) for part in parts], axis=0), np.float32)


def _open_one(facts: TeacherFacts, device: str) -> Teacher:
    if device == "cpu" and _has_openvino():
        return _openvino(facts)
    return _torch(facts, torch.device(device))


def _has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None


def _openvino(facts: TeacherFacts) -> Teacher:
    from gms_rt.engine.request import BuildRequest
    from gms_rt.engine.source import read_source
    from gms_rt.graph.run import Session
    from gms_rt.precision.ranges import with_outputs
    from gms_rt.runtime.arithmetic import cpu_arithmetic

    graph = read_source(BuildRequest(source=facts.run, batch=1)).graph
    execution = "bf16" if cpu_arithmetic().bf16 else "f32"
    session = Session(with_outputs(graph, [latent_tensor(graph)]), execution=execution)

    def answer(images: U8) -> tuple[U8, F16]:
        found = [[part.copy() for part in session.outputs(image[None])] for image in images]
        masks, latents = zip(*found, strict=True)
        return np.concatenate(masks)[..., 0], np.concatenate(latents).astype(np.float16)

    return Teacher(answer, f"OpenVINO {execution}")


def latent_tensor(graph: Any) -> str:
    """The tensor in which a fused graph holds the mask latent: what its decoder takes."""
    made = {name for node in graph.nodes if not node.name.startswith("decoder/") for name in node.output}
    drawn = [node for node in graph.nodes if node.name.startswith("decoder/")]
    taken = dict.fromkeys(name for node in drawn for name in node.input if name in made)
    # What decoders share with the stages before them are shapes; the latent alone has four dimensions.
    found = [str(name) for name in taken if len(graph.shape.get(name, ())) == 4]
    if len(found) != 1:
        raise UsageError(
            f"has {len(found)} tensors between latent mapping model and decoder, where one was expected",
            where="the teacher's graph",
            fix="set latent_weight=0",
        )
    return found[0]


def _torch(facts: TeacherFacts, device: torch.device) -> Teacher:
    gms = load_run(facts.run).to(device)
    half = forward_type("auto", device)

    @torch.no_grad()
    def told(images: U8) -> tuple[U8, F16]:
        with torch.autocast(device.type, dtype=half, enabled=half != torch.float32):
            mapped = gms.map(gms.encode_levels(torch.from_numpy(images).to(device)))
            drawn = gms.probability(mapped)
        masks = (drawn.float()[:, 0] * 255).round().to(torch.uint8).cpu().numpy()
        return masks, mapped.float().cpu().numpy().astype(np.float16)

    answer = _in_batches(told, _GPU_BATCH if device.type == "cuda" else _BATCH)
    return Teacher(answer, f"torch {str(half).removeprefix('torch.')} on {device.type}")


def _in_batches(told: Answer, fits: int) -> Answer:
    """The same answer, a batch at a time: a smaller one wherever the GPU's memory does not hold it."""

    def answer(images: U8) -> tuple[U8, F16]:
        nonlocal fits
        parts: list[tuple[U8, F16]] = []
        done = 0
        while done < len(images):
            try:
                parts.append(told(images[done : done + fits]))
                done += len(parts[-1][0])
                continue
            except torch.cuda.OutOfMemoryError:
                if fits == 1:
                    raise
            fits //= 2  # not above, where the error still holds on to what it could not finish
            torch.cuda.empty_cache()
        masks, latents = zip(*parts, strict=True)
        return np.concatenate(masks), np.concatenate(latents)

    return answer
