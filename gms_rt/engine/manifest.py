"""`engine.json`, the manifest of an engine folder: every file with its hash; what it does not know is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gms_rt.artifacts import check_format, read_json, restore_folder, sha256_bytes, sha256_file, write_json
from gms_rt.class_lists import classes_from_values
from gms_rt.classes import DEFAULT_CLASSES, SegmentClass
from gms_rt.errors import ArtifactError
from gms_rt.precision import PRECISIONS, TARGETS
from gms_rt.precision.gate import GATE_FLOOR, GATE_MEAN, usual_minimum

MANIFEST = "engine.json"
# The typed graph, and the form of it that a CPU opens where single nodes keep f32, with its constants next to it.
MODEL, STEERED = "model.onnx", "model.xml"
GOLDEN, CERTIFICATE = "golden.npz", "parity.json"  # the reference and the certificate, in folders that have them
ENGINE_FORMAT = "gms-rt-engine"
ENGINE_VERSION = 1

# What the fields of a manifest must be; anyone can have written it.
_TEXT = ("name", "created", "gms_rt", "model", "execution", "rebuild", "fallback")
_TABLES = ("files", "source", "tokenizer", "census")
_KINDS: dict[str, Any] = {
    **dict.fromkeys(_TEXT, str),
    **dict.fromkeys(_TABLES, dict),
    **dict.fromkeys(("targets", "notes", "classes"), list),
    "gate": (dict, type(None)),
}
_PLAN_KINDS: dict[str, Any] = {
    **dict.fromkeys(("target", "file", "sha256", "version"), str),
    **dict.fromkeys(("sm", "bytes"), int),
    "build_seconds": (int, float),
    **dict.fromkeys(("driver", "device"), (str, type(None))),
    "judged": (dict, type(None)),
}
_JUDGED_KINDS: dict[str, Any] = {
    **dict.fromkeys(("mean", "minimum"), (int, float)),
    **dict.fromkeys(("arithmetic", "how"), str),
    "data": dict,
    "images": int,
}


@dataclass(frozen=True)
class Plan:
    """One device's serialised engine inside an engine folder."""

    target: str  # "tensorrt" or "tensorrt-rtx"
    file: str
    sha256: str
    bytes: int
    sm: int  # compute capability times ten: 80, 89
    version: str  # of the TensorRT that built it
    build_seconds: float
    driver: str | None = None  # of the machine that built it, where there was one
    device: str | None = None  # the GPU or board whose kernels were timed for it; None for plans built ahead of time
    # The accuracy check of its typed graph, emulated on a CPU; None in FP32, without pictures, in earlier versions.
    judged: dict[str, Any] | None = None


@dataclass(frozen=True)
class EngineManifest:
    """`engine.json`: what the folder contains, from what it was made, and what was really built."""

    name: str  # of the folder it was built as
    precision: str  # fp32, fp16, bf16 or int8
    created: str  # date and time in UTC, ISO 8601
    gms_rt: str  # version of the program that built it
    height: int  # of the network's input, in pixels
    width: int
    batch: int  # images per inference; a CPU graph may take others
    model: str  # the CPU's graph, a file of the folder
    files: dict[str, str]  # SHA-256 of every file but the plans, which have their own, and what is written later
    source: dict[str, Any]  # what it was built from: kind, name, sha256, recipe_key
    tokenizer: dict[str, Any]  # the exporter's description of the tokenizer
    targets: list[str]  # what it was built for: cpu, tensorrt, tensorrt-rtx
    plans: list[Plan]
    census: dict[str, Any]  # layer counts by type: of the typed graph, of what this CPU executes, of each plan
    gate: dict[str, Any] | None  # the accuracy check made at the build, where there was one
    execution: str  # the arithmetic asked of the CPU runtime: "f32", "bf16" or "f16"
    rebuild: str  # the command that built this engine, as its builder wrote it; advice comes from `rebuild_command`
    notes: list[str] = field(default_factory=list)  # what a user should know
    fallback: str = ""  # "f32" where the gate holds in that too, for a CPU without the arithmetic of `execution`
    # What the mask's values stand for, as `classes_from_values` reads it; empty where nobody said.
    classes: list[dict[str, Any]] = field(default_factory=list)
    format: str = ENGINE_FORMAT
    version: int = ENGINE_VERSION

    @property
    def graph(self) -> str:
        """The file of the graph in ONNX, whatever it is that a CPU opens."""
        return MODEL if self.model == STEERED else self.model

    @property
    def flips(self) -> str | None:
        """What the graph averages over by itself, if it does."""
        told = self.source.get("graph_source")
        found = told.get("flips") if isinstance(told, dict) else None
        return found if isinstance(found, str) else None

    @property
    def segment_classes(self) -> tuple[SegmentClass, ...]:
        """The classes of the mask, in the order of its values; one region without a meaning where nobody said."""
        return classes_from_values(self.classes, where=f"{MANIFEST}: classes") if self.classes else DEFAULT_CLASSES


def write_manifest(folder: Path, manifest: EngineManifest) -> None:
    """Write `engine.json` into an engine folder."""
    value = dataclasses.asdict(manifest)
    for later in ("classes", "fallback"):
        if not value[later]:
            del value[later]  # programs from before there was such a key refuse what they do not know
    for plan in value["plans"]:
        for later in ("device", "judged"):
            if plan[later] is None:
                del plan[later]  # likewise
    write_json(folder / MANIFEST, value)


def read_manifest(folder: Path) -> EngineManifest:
    """Read and check `engine.json`; hashes are checked by `verify_files`."""
    restore_folder(folder)
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtifactError(
            "is not an engine folder (no engine.json)",
            where=folder,
            fix="build one: gms-rt build --precision fp16",
        )
    data = read_json(path)
    check_format(data, ENGINE_FORMAT, ENGINE_VERSION, where=path, fix="build the engine again")
    plans = data.pop("plans", None)
    try:
        manifest = EngineManifest(plans=[Plan(**plan) for plan in plans or []], **data)
    except TypeError as error:
        raise ArtifactError(f"has missing or unknown keys ({error})", where=path, fix="build it again") from error
    _check_types(manifest, path)
    return manifest


def _check_types(manifest: EngineManifest, path: Path) -> None:
    sizes = (manifest.height, manifest.width, manifest.batch)
    fix = "build the engine again"
    wrong = [name for name, kind in _KINDS.items() if not _is(getattr(manifest, name), kind)]
    wrong += [
        f"{name} of a plan"
        for plan in manifest.plans
        for name, kind in _PLAN_KINDS.items()
        if not _is(getattr(plan, name), kind)
    ]
    wrong += [
        f"{name} of what judged a plan"
        for plan in manifest.plans
        if isinstance(plan.judged, dict)
        for name, kind in _JUDGED_KINDS.items()
        if not _is(plan.judged.get(name), kind)
    ]
    if isinstance(manifest.files, dict) and not all(isinstance(digest, str) for digest in manifest.files.values()):
        wrong.append("a hash in files")
    if not all(_is(size, int) and 0 < size <= 16384 for size in sizes):
        raise ArtifactError(f"has impossible sizes {sizes}", where=path, fix=fix)
    if wrong:
        raise ArtifactError(f"has values of another type than expected ({', '.join(wrong)})", where=path, fix=fix)
    if not _is(manifest.precision, str):
        raise ArtifactError("has a precision that is not text", where=path, fix=fix)
    names = [manifest.model, *manifest.files, *(plan.file for plan in manifest.plans)]
    if not all(name.isprintable() and name and Path(name).name == name for name in names):
        raise ArtifactError("names a file outside its folder, or one that no file can have", where=path, fix=fix)
    if manifest.precision not in PRECISIONS:
        raise ArtifactError(f"has unknown precision {manifest.precision!r}", where=path)
    if manifest.classes:
        classes_from_values(manifest.classes, where=f"{path}: classes", error=ArtifactError)
    unknown = [name for name in manifest.targets if name not in TARGETS]
    unknown += [plan.target for plan in manifest.plans if plan.target not in TARGETS or plan.target == "cpu"]
    if unknown:
        raise ArtifactError(f"has unknown target {unknown[0]!r}", where=path, fix=fix)


def _is(value: object, kind: Any) -> bool:
    """Whether a value has a type; in Python `true` and `false` are also whole numbers, in a manifest they are not."""
    return isinstance(value, kind) and not isinstance(value, bool)


def graph_bytes(folder: Path, manifest: EngineManifest) -> int:
    """Size of the graph that a CPU runs, with its weights where they lie in a file of their own."""
    return sum((folder / name).stat().st_size for name in manifest.files if name.startswith(manifest.model))


def rebuild_command(folder: Path, manifest: EngineManifest) -> str:
    """The command that builds an engine of this kind in this place, from fields of known values only.

    What the manifest says in its own words is never advice: a manifest can come from anyone. RUN, GRAPH.onnx and
    IMAGES stand for what only the user can name.
    """
    kind = manifest.source.get("kind")
    source = [] if kind == "bundled" else ["RUN"] if kind == "run" else ["GRAPH.onnx"]
    words = ["gms-rt", "build", *source, "--precision", manifest.precision]
    if manifest.targets:
        words += ["--target", ",".join(manifest.targets)]
    # Full TensorRT builds for the GPU that it sees; only the other flavour is told which.
    sms = sorted({plan.sm for plan in manifest.plans if plan.target == "tensorrt-rtx"})
    if sms:
        words += ["--sm", ",".join(map(str, sms))]
    if manifest.precision == "int8" and kind != "bundled":
        words += ["--calib", "IMAGES"]
    words += _gate_options(manifest.gate or {})
    return " ".join([*words, "--out", shlex.quote(str(folder))])


def _gate_options(gate: dict[str, Any]) -> list[str]:
    """The options of a gate that is not the usual one; what is not a share is left out."""
    coverage = gate.get("gate_coverage")
    usual = {
        "gate_mean": GATE_MEAN,
        "gate_min": usual_minimum(coverage if _is_share(coverage) else None),
        "gate_coverage": None,
        "gate_floor": GATE_FLOOR,
    }
    asked = {name: gate.get(name) for name in usual}
    return [
        word
        for name, value in asked.items()
        if _is_share(value) and value != usual[name] and (name != "gate_floor" or _is_share(coverage))
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]


def _is_share(value: object) -> bool:
    return _is(value, (int, float)) and 0 <= float(value) <= 1  # type: ignore[arg-type]


def verify_files(folder: Path, manifest: EngineManifest, names: list[str] | None = None) -> None:
    """Compare files with their recorded hashes; a changed or absent one is refused by name."""
    hashes = _hashes(manifest)
    for name in hashes if names is None else names:
        path = folder / name
        with _named(path, manifest):
            digest = sha256_file(path) if name in hashes else ""
        _compare(path, manifest, digest, hashes.get(name))


def read_verified(folder: Path, manifest: EngineManifest, name: str) -> bytes:
    """The bytes of a file that has the recorded hash: read once, so that what was checked is what is used."""
    with _named(folder / name, manifest):
        content = (folder / name).read_bytes()
    _compare(folder / name, manifest, sha256_bytes(content), _hashes(manifest).get(name))
    return content


def _hashes(manifest: EngineManifest) -> dict[str, str]:
    return manifest.files | {plan.file: plan.sha256 for plan in manifest.plans}


@contextlib.contextmanager
def _named(path: Path, manifest: EngineManifest) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fix = f"rebuild: {rebuild_command(path.parent, manifest)}"
        raise ArtifactError(f"cannot be read ({error.strerror})", where=path, fix=fix) from error


def _compare(path: Path, manifest: EngineManifest, found: str, recorded: str | None) -> None:
    if recorded is None or found != recorded:
        what = "is not listed in engine.json" if recorded is None else "was changed since it was built (hash differs)"
        raise ArtifactError(what, where=path, fix=f"rebuild: {rebuild_command(path.parent, manifest)}")


def is_engine(folder: Path) -> bool:
    """Whether a folder claims to be an engine."""
    return (folder / MANIFEST).is_file()


def newest_engines(root: Path) -> list[Path]:
    """Engine folders below `root`, the newest first."""
    if not root.is_dir():
        return []
    found = [child for child in root.iterdir() if not child.name.startswith(".") and is_engine(child)]
    return sorted(found, key=lambda child: (child / MANIFEST).stat().st_mtime_ns, reverse=True)
