"""An engine that is served: who it is, its queue, and whether its golden pictures come out right on this device."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt import __version__
from gms_rt.arrays import U8
from gms_rt.artifacts import read_json
from gms_rt.class_lists import values_from_classes
from gms_rt.engine.drift import gate_from_certificate
from gms_rt.engine.golden import read_golden
from gms_rt.engine.loaded import Engine
from gms_rt.engine.manifest import CERTIFICATE, GOLDEN, rebuild_command
from gms_rt.errors import GateError, GmsError
from gms_rt.infer.channel import Budget
from gms_rt.infer.dicom_seg import seg_available
from gms_rt.infer.options import InferOptions
from gms_rt.infer.outputs import OutFolder
from gms_rt.infer.predict import Predictor
from gms_rt.infer.run import InferJob
from gms_rt.parity.certificate import read_certificate
from gms_rt.precision.gate import Gate, judge
from gms_rt.serve.counters import Counters
from gms_rt.serve.limits import ServeLimits
from gms_rt.serve.queue import EngineQueue, QueueSettings

_LARGE_BYTES = 1 << 30


class ServedModel:
    """An open engine with its queue. It owns the engine: `close` closes both."""

    def __init__(
        self, name: str, engine: Engine, options: InferOptions, limits: ServeLimits, counters: Counters
    ) -> None:
        self.name = name
        self.engine = engine
        # What makes results is what makes those of `infer` with the same options: names and UIDs are the same too.
        self.options = dataclasses.replace(options, dicom_seg=seg_available())
        self.predictor = Predictor(engine, self.options)
        job = InferJob(engine, OutFolder(Path()), self.options)  # that is never run
        self.fingerprint = job.fingerprint
        self.maker = job.maker
        self.key = job.key
        self.certificate = self.maker.certificate
        self.compared = _certificate_value(engine.folder, self.fingerprint)
        info = engine.runner.info
        batch = 1 if self.options.tile else max(1, info.batch)
        self.ahead = max(1, info.lanes) * batch  # images that the engine works on at the same time
        settings = QueueSettings(name, batch, max(1, info.lanes), limits.images, limits.batch_wait)
        self.queue = EngineQueue(self.predictor, settings, counters)
        counters.name_engine(name, engine.manifest.precision, info.device)
        self.large = Budget(_LARGE_BYTES)  # of images whose float maps would fill the memory together
        self._batched: Engine | None = None
        self.batch_notice = ""  # why batches are not used
        self.notice = ""  # what a user should know of the golden pictures

    @property
    def identity(self) -> dict[str, Any]:
        """Who made a result, as answers have it."""
        manifest, info = self.engine.manifest, self.engine.runner.info
        return {
            "name": self.name,
            "engine": manifest.name,
            "precision": manifest.precision,
            "manifest_sha256": self.fingerprint,
            "certificate_sha256": self.certificate,
            "certificate": self.compared,
            "device": info.device,
            "backend": info.backend,
            "execution": info.execution,
            "height": manifest.height,
            "width": manifest.width,
            "classes": values_from_classes(manifest.segment_classes),
            "gms_rt": __version__,
        }

    def gain_from_batches(self, batched: Engine) -> None:
        """Use the same engine opened for several images at once, from as many on as it is faster with.

        It is left out, and closed, where it never is, or where its golden pictures are not equal to the other's.
        """
        images = read_golden(self.engine.folder / GOLDEN).images
        most = batched.runner.info.batch
        together = np.resize(images, (most, *images.shape[1:]))
        one, many = _seconds(self.predictor, together[:1]), _seconds(Predictor(batched, self.options), together)
        least = int(many / one) + 1
        if least > most:
            reason = f"{most} images take {1e3 * many:.1f} ms together, {1e3 * one * most:.1f} ms one after the other"
        elif not np.array_equal(batched.runner.infer(images), self.engine.runner.infer(images)):
            reason = "its masks are not those of one image at a time"
        else:
            self._batched = batched
            self.ahead = max(self.ahead, most)
            self.queue.use_batches(Predictor(batched, self.options), most, max(2, least))
            return
        batched.close()
        self.batch_notice = f"batches of {most} are not used: {reason}"

    def check_golden(self) -> None:
        """Run the engine's golden pictures here; raise `GateError` where their masks miss the certificate's gate.

        Pictures that were drawn because nothing else was known must run, but no verdict rests on them.
        """
        folder = self.engine.folder
        golden = read_golden(folder / GOLDEN)
        found = self.engine.runner.infer(golden.images)
        if golden.synthetic:
            self.notice = "its golden pictures are synthetic: they ran, and no verdict rests on them"
            return
        verdict = judge(found, golden.probabilities, _gate(folder))
        if not verdict.passed:
            raise GateError(
                f"its golden pictures do not come out right on this device: {verdict.failure()}",
                where=folder,
                fix=f"rebuild: {rebuild_command(folder, self.engine.manifest)}",
            )

    def close(self) -> None:
        """Work off what waits, then close the engine."""
        self.queue.close()
        self.engine.close()
        if self._batched is not None:
            self._batched.close()


def _certificate_value(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """What the engine's certificate says, in short; None where there is none that can be read."""
    try:
        found = read_certificate(folder / CERTIFICATE)
        return {
            "verdict": found["verdict"],
            "about_this": found["engine"].get("manifest_sha256") == fingerprint,
            "compared": str(found["compared"]["in_words"]),
            "cases": len(found["cases"]),
            "dice_mean": float(found["summary"]["mean"]),
            "dice_min": float(found["summary"]["min"]),
            "gate": {"mean": float(found["gate"]["mean"]), "min": float(found["gate"]["min"])},
            "created": str(found["created"]),
        }
    except (GmsError, KeyError, TypeError, ValueError, OSError):
        return None  # `gms-rt parity` says what is wrong with it


def _gate(folder: Path) -> Gate:
    """The gate that the engine's certificate passed, else the usual one."""
    try:
        certificate = read_json(folder / CERTIFICATE) if (folder / CERTIFICATE).is_file() else {}
    except GmsError:
        certificate = {}  # damaged: `gms-rt parity` says so
    return gate_from_certificate(certificate) or Gate()


def _seconds(predictor: Predictor, images: U8) -> float:
    """The shortest of some times for these images at once."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        predictor.predict(list(images))
        times.append(time.perf_counter() - start)
    return min(times)
