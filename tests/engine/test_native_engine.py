"""The C library's reading of an engine folder against the package's: the same values, the same choice."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from support.native_build import check_structures, compiler, fake, run
from support.native_engine import Code, EngineInfo, NativeEngine, NativeError, Plan, SegmentClass, SelectOptions, Wanted
from support.trees import ROOT

from gms_rt.artifacts import sha256_bytes, sha256_file
from gms_rt.class_lists import values_from_classes
from gms_rt.classes import Code as PythonCode
from gms_rt.classes import SegmentClass as PythonClass
from gms_rt.engine import fits, select
from gms_rt.engine.manifest import MANIFEST, read_manifest
from gms_rt.engine.select import LoadOptions
from gms_rt.errors import DeviceError, GmsError
from gms_rt.infer.options import InferOptions
from gms_rt.runtime.arithmetic import CpuArithmetic
from gms_rt.runtime.device import Cpu, Gpu, Machine, parse_device
from gms_rt.runtime.library import load_library

GOLDEN = ROOT / "tests/golden"
BAD_GRAPH, NOT_FOUND, NO_DEVICE = 3, 2, 5
THRESHOLD = 0.5
DELETE = object()
FREE = ("source", "tokenizer", "census", "gate", "notes")  # tables whose content nobody reads here


def manifest_values(**changes: Any) -> dict[str, Any]:
    value = json.loads((GOLDEN / "engine-v1" / MANIFEST).read_text())
    return value | changes


def write(folder: Path, value: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST).write_text(value if isinstance(value, str) else json.dumps(value))
    return folder


def plan_values(**changes: Any) -> dict[str, Any]:
    return {
        "target": "tensorrt",
        "file": "tensorrt.plan",
        "sha256": "0" * 64,
        "bytes": 3,
        "sm": 89,
        "version": "10.13.3.9",
        "build_seconds": 1.5,
        "driver": None,
    } | changes


@pytest.mark.parametrize("folder", [GOLDEN / "engine-v1", GOLDEN / "signature-v1/engine"])
def test_golden_folders_say_the_same(folder: Path) -> None:
    manifest = read_manifest(folder)
    with NativeEngine(folder) as engine:
        info = engine.info
        for name in ("name", "precision", "execution", "fallback", "created", "gms_rt", "model"):
            assert getattr(info, name).decode() == getattr(manifest, name), name
        assert (info.height, info.width, info.batch) == (manifest.height, manifest.width, manifest.batch)
        assert info.sha256.decode() == sha256_file(folder / MANIFEST)
        assert info.plans == len(manifest.plans) + ("cpu" in manifest.targets)
        assert info.threshold == THRESHOLD
        for index, plan in enumerate(manifest.plans):
            found = engine.plan(index)
            assert (found.file.decode(), found.sha256.decode(), found.version.decode(), found.sm, found.bytes) == (
                plan.file,
                plan.sha256,
                plan.version,
                plan.sm,
                plan.bytes,
            )
            assert found.fits == 0 and found.gpu == -1 and found.reason == b""
        last = engine.plan(info.plans - 1)
        assert (last.target, last.file.decode()) == (0, manifest.model)
        with pytest.raises(NativeError, match="there is no plan"):
            engine.plan(info.plans)


def test_the_threshold_is_that_of_infer() -> None:
    assert InferOptions().threshold == THRESHOLD


def test_certificates(tmp_path: Path) -> None:
    signed = GOLDEN / "signature-v1/engine"
    folder = tmp_path / "engine"
    shutil.copytree(signed, folder)
    certificate = {
        "format": "gms-rt-parity",
        "version": 1,
        "engine": {"manifest_sha256": sha256_file(folder / MANIFEST)},
        "summary": {"mean": 0.9991, "min": 0.97},
        "verdict": "pass",
    }

    def look(value: Any) -> tuple[int, float, float]:
        path = folder / "parity.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        with NativeEngine(folder) as engine:
            info = engine.info
            assert info.certificate_sha256.decode() == sha256_file(path)
            return info.certificate, info.dice_mean, info.dice_min

    assert look(certificate) == (1, 0.9991, 0.97)
    assert look(certificate | {"verdict": "fail"}) == (2, 0.9991, 0.97)
    assert look(certificate | {"engine": {"manifest_sha256": "0" * 64}}) == (3, 0, 0)
    for damaged in (
        "{",
        "[]",
        certificate | {"format": "x"},
        certificate | {"version": 2},
        certificate | {"verdict": "maybe"},
        certificate | {"verdict": 1},
        certificate | {"engine": []},
        "[" * 5000,
    ):
        assert look(damaged) == (4, 0, 0)
    (folder / "parity.json").unlink()
    with NativeEngine(folder) as engine:
        assert engine.info.certificate == 0 and engine.info.certificate_sha256 == b""


COMMA = """
import locale, sys
from pathlib import Path
from support.native_engine import NativeEngine
locale.setlocale(locale.LC_NUMERIC, "comma")
assert locale.localeconv()["decimal_point"] == ","
with NativeEngine(Path(sys.argv[1])) as engine:
    print(repr(engine.info.dice_mean), repr(engine.info.dice_min))
"""


def test_numbers_are_read_alike_in_every_language(tmp_path: Path) -> None:
    """A desktop program sets the user's language, and in many a decimal comma."""
    localedef = shutil.which("localedef")
    if localedef is None or not Path("/usr/share/i18n/locales/de_DE").exists():
        pytest.skip("no sources of locales")
    run([localedef, "-c", "-i", "de_DE", "-f", "UTF-8", str(tmp_path / "comma")])
    folder = shutil.copytree(GOLDEN / "signature-v1/engine", tmp_path / "engine")
    certificate = {"format": "gms-rt-parity", "version": 1, "verdict": "pass", "summary": {"mean": 0.9991, "min": 0.97}}
    certificate |= {"engine": {"manifest_sha256": sha256_file(folder / MANIFEST)}}
    (folder / "parity.json").write_text(json.dumps(certificate))
    env = {**os.environ, "LOCPATH": str(tmp_path), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-c", COMMA, str(folder)]
    said = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert said.stdout == "0.9991 0.97\n", said.stderr


def test_a_folder_without_a_name_is_not_the_root() -> None:
    library, handle = load_library(), ctypes.c_void_p(1)
    assert library.gmsrt_engine_open(b"", ctypes.byref(handle)) == NOT_FOUND and not handle.value
    assert b"the name of the folder is empty" in library.gmsrt_last_error()


def test_classes(tmp_path: Path) -> None:
    lesion = PythonCode("52988006", "SCT", "Lesion")
    left = PythonCode("7771000", "SCT", "Left")
    breast = PythonCode("76752008", "SCT", "Breast")
    classes = (
        PythonClass("Läsion", kind=lesion, anatomy=breast, anatomy_modifier=left, colour=(1, 2, 255)),
        PythonClass("Other", description="what remains", kind_modifier=left, kind=lesion),
    )

    def told(found: SegmentClass) -> PythonClass:
        def code(value: Code) -> PythonCode | None:
            texts = [value.value.decode(), value.scheme.decode(), value.meaning.decode()]
            return PythonCode(*texts) if texts[0] else None

        colour = found.colour
        category, kind = code(found.category), code(found.type)
        assert category is not None and kind is not None
        return PythonClass(
            found.name.decode(),
            category,
            kind,
            code(found.anatomy),
            (colour >> 16, colour >> 8 & 255, colour & 255),
            found.description.decode(),
            code(found.type_modifier),
            code(found.anatomy_modifier),
        )

    for listed in (classes, classes[:1], ()):
        folder = write(tmp_path / "engine", manifest_values(classes=values_from_classes(listed)))
        expected = read_manifest(folder).segment_classes
        with NativeEngine(folder) as engine:
            assert engine.info.classes == len(expected)
            assert tuple(told(engine.segment_class(i)) for i in range(len(expected))) == expected
            with pytest.raises(NativeError, match="there is no class"):
                engine.segment_class(len(expected))


# Where C refuses what the package takes, and why that is right.
STRICTER = re.compile(
    r"twice|UTF-8|too many|nested|escape is not valid|a value is expected|names a file outside|impossible number in a "
    r"plan|another type than expected: 'plans'"  # which the package takes for none where it is 0 or false
)


def verdicts(folder: Path) -> tuple[str, str]:
    """What Python and C say of a folder; "" for nothing wrong."""
    here = there = ""
    try:
        read_manifest(folder)
    except GmsError as error:
        here = error.line()
    try:
        NativeEngine(folder).close()
    except NativeError as error:
        there = str(error)
        assert error.status in (BAD_GRAPH, NOT_FOUND)
    return here, there


def same_verdict(folder: Path) -> None:
    here, there = verdicts(folder)
    if here:
        assert there, f"C takes what Python refuses: {here}"
    elif there:
        assert STRICTER.search(there), f"C refuses what Python takes: {there}"


VALUES = (None, True, 0, -1, 1, 1.5, "", "x", "../x", "cpu", "f32", "a\nb", [], ["x"], {}, {"x": 1}, 10**30, 16385)


def test_changed_manifests_are_refused_alike(tmp_path: Path) -> None:
    plan = plan_values(device=None)
    region = {
        "name": "a",
        "description": "",
        "category": {"value": "1", "scheme": "SCT", "meaning": "m"},
        "type": {"value": "1", "scheme": "SCT", "meaning": "m"},
        "type_modifier": {"value": "1", "scheme": "SCT", "meaning": "m"},
        "colour": "#ff4040",
    }
    whole = manifest_values(plans=[plan], classes=[region], fallback="f32")
    folder = write(tmp_path / "engine", whole)
    assert verdicts(folder) == ("", "")

    def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [path, *(p for key, each in inner if key not in FREE for p in places(each, (*path, key)))]

    def changed(path: tuple[Any, ...], new: Any) -> Any:
        copy = json.loads(json.dumps(whole))
        if not path:
            return new
        at = copy
        for key in path[:-1]:
            at = at[key]
        if new is DELETE:
            del at[path[-1]]
        else:
            at[path[-1]] = new
        return copy

    tried = 0
    for path in places(whole):
        for new in (*VALUES, *([DELETE] if path else [])):
            same_verdict(write(folder, changed(path, new)))
            tried += 1
        if path and isinstance(path[-1], str):
            copy = changed(path, DELETE)
            at = copy
            for key in path[:-1]:
                at = at[key]
            if isinstance(at, dict):
                at["a new key"] = 1
                same_verdict(write(folder, copy))
    assert tried > 500


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "null",
        "[]",
        "{",
        "{}}",
        '{"a": 1,}',
        '{"a" 1}',
        "{'a': 1}",
        '{"a": 01}',
        '{"a": .5}',
        '{"a": 1.}',
        '{"a": 1e}',
        '{"a": +1}',
        '{"a": -}',
        '{"a": NaN}',
        '{"a": tru}',
        '{"a": "\\x"}',
        '{"a": "\\u12"}',
        '{"a": "\\ud800"}',
        '{"a": "\\udc00\\ud800"}',
        '{"a": "\t"}',
        '{"a": "',
        '{"a": "\\',
        '{"format": "gms-rt-engine", "format": "gms-rt-engine"}',
        "[" * 100000,
        '{"a":' * 100000,
        "9" * 5000,
        "{" + ",".join(f'"{i}":0' for i in range(5000)) + "}",
        "[" + "0," * 400000 + "0]",
    ],
)
def test_what_is_not_json_is_refused(tmp_path: Path, text: str) -> None:
    here, there = verdicts(write(tmp_path / "engine", text))
    assert here and there


NOT_TEXT = [
    b"\xef\xbb\xbf{}",
    b'{"a": "\xff"}',
    b'{"a": "\xc0\xaf"}',
    b'{"a": "\xed\xa0\x80"}',
    b'{"a": "\xf4\x90\x80\x80"}',
    b'{"a": "\xe2\x82"}',
    b"{\0}",
]


@pytest.mark.parametrize("data", NOT_TEXT)
def test_bytes_that_are_not_text_are_refused(tmp_path: Path, data: bytes) -> None:
    folder = write(tmp_path / "engine", "")
    (folder / MANIFEST).write_bytes(data)
    here, there = verdicts(folder)
    assert here and there


def test_truncated_manifests_are_refused(tmp_path: Path) -> None:
    text = json.dumps(manifest_values(plans=[plan_values()]))
    folder = write(tmp_path / "engine", text)
    for end in [*range(0, len(text), 7), len(text) - 1]:
        (folder / MANIFEST).write_text(text[:end])
        with pytest.raises(NativeError):
            NativeEngine(folder)


def test_texts_are_decoded(tmp_path: Path) -> None:
    name = 'Lunge "links" \\ é € 𝄞 /'
    for ascii_only in (True, False):
        text = json.dumps(manifest_values(name=name), ensure_ascii=ascii_only).replace("/", "\\/")
        with NativeEngine(write(tmp_path / "engine", text)) as engine:
            assert engine.info.name.decode() == name


def test_files_are_given_as_they_were_built(tmp_path: Path) -> None:
    plan, model = bytes(range(256)) * 999, b"a graph"
    values = manifest_values(
        plans=[plan_values(file="a.plan", sha256=sha256_bytes(plan))],
        files={"model.onnx": sha256_bytes(model), "empty": sha256_bytes(b"")},
    )
    folder = write(tmp_path / "engine", values)
    (folder / "a.plan").write_bytes(plan)
    (folder / "model.onnx").write_bytes(model)
    (folder / "empty").write_bytes(b"")
    (folder / "stray").write_bytes(b"x")
    with NativeEngine(folder) as engine:
        assert engine.read("a.plan") == plan and engine.read("model.onnx") == model and engine.read("empty") == b""
        for name, message in (("stray", "not listed"), ("../engine/a.plan", "not listed"), ("", "not listed")):
            with pytest.raises(NativeError, match=message):
                engine.read(name)
        # A link is its content: stores of models keep one file for many folders.
        (tmp_path / "store").write_bytes(plan)
        (folder / "a.plan").unlink()
        (folder / "a.plan").symlink_to(tmp_path / "store")
        assert engine.read("a.plan") == plan
        (tmp_path / "store").write_bytes(plan[:-1] + b"!")
        with pytest.raises(NativeError, match="was changed since it was built"):
            engine.read("a.plan")
        (tmp_path / "store").unlink()
        with pytest.raises(NativeError, match="is missing"):
            engine.read("a.plan")
        # Neither a pipe, which would wait for ever, nor what never ends.
        for special in ("pipe", "/dev/zero", "folder"):
            (folder / "a.plan").unlink()
            if special == "pipe":
                os.mkfifo(folder / "a.plan")
            elif special == "folder":
                (folder / "a.plan").mkdir()
            else:
                (folder / "a.plan").symlink_to(special)
            with pytest.raises(NativeError, match="is not a file"):
                engine.read("a.plan")
            if special == "folder":
                (folder / "a.plan").rmdir()


def test_what_was_hashed_is_what_is_given(tmp_path: Path) -> None:
    """A file that changes all the time is given as it was built, or not at all."""
    good, bad = b"g" * 500_000, b"b" * 500_000
    folder = write(tmp_path / "engine", manifest_values(files={"model.onnx": sha256_bytes(good)}))
    path, stop, taken = folder / "model.onnx", threading.Event(), 0

    def change() -> None:
        while not stop.is_set():
            for content in (bad, good):
                path.write_bytes(content)

    path.write_bytes(good)
    thread = threading.Thread(target=change)
    thread.start()
    try:
        with NativeEngine(folder) as engine:
            for _ in range(200):
                try:
                    assert engine.read("model.onnx") == good
                    taken += 1
                except NativeError as error:
                    assert "was changed" in str(error)
    finally:
        stop.set()
        thread.join()
    path.write_bytes(good)
    with NativeEngine(folder) as engine:
        assert engine.read("model.onnx") == good


class Fakes:
    """The fake OpenVINO, whose CPU can be told to have bf16."""

    def __init__(self) -> None:
        self.openvino = fake("openvino")
        self._library = ctypes.CDLL(str(self.openvino))
        self._library.fake_openvino_reset()

    def bf16(self, there: bool) -> None:
        self._library.fake_openvino_bf16(int(there))


def machine(sms: tuple[int, ...], names: tuple[str, ...] = ()) -> Machine:
    gpus = tuple(Gpu(i, names[i] if names else f"GPU {i}", sm, 1 << 30) for i, sm in enumerate(sms))
    return Machine(Cpu("cpu", "x86_64", 1, ()), gpus, "13.0" if gpus else None, "" if gpus else "no driver", {})


def python_choice(folder: Path, wanted: Wanted, bf16: bool, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package's choice as (file, GPU, notice?), or the error."""
    versions = {"tensorrt": wanted.tensorrt, "tensorrt-rtx": wanted.tensorrt_rtx}
    monkeypatch.setattr(fits, "probe", lambda: machine(wanted.sms or ()))
    monkeypatch.setattr(fits, "tensorrt_version", lambda flavour: versions[flavour])
    monkeypatch.setattr(fits, "cpu_arithmetic", lambda: CpuArithmetic(False, bf16, ("FP32",), "cpu"))
    how = LoadOptions(device=wanted.device, trust_plans=wanted.trust_plans)
    try:
        choice = select._choose(folder, read_manifest(folder), how, *parse_device(wanted.device))
    except DeviceError:
        return None
    return choice.fit.plan.file if choice.fit.plan else "cpu", choice.fit.gpu, bool(choice.notice)


def native_choice(folder: Path, wanted: Wanted) -> Any:
    with NativeEngine(folder) as engine:
        try:
            found = engine.select(wanted)
        except NativeError as error:
            assert error.status == NO_DEVICE and "cannot run" in str(error)
            return None
        file = found.file.decode() if found.target else "cpu"
        return file, found.gpu if found.target else None, bool(found.reason)


def test_the_choice_is_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler()
    fakes, dice = Fakes(), random.Random(7)
    state = tmp_path / "state"
    (state / "plans").mkdir(parents=True, mode=0o700)
    state.chmod(0o700)
    monkeypatch.setenv("GMS_RT_STATE", str(state))
    seen: dict[Any, int] = {}
    for round_number in range(800):
        plans = [
            plan_values(
                target=(flavour := dice.choice(["tensorrt", "tensorrt-rtx"])),
                file=f"{i}.plan",
                sha256=f"{dice.randrange(4)}" * 64,
                sm=dice.choice([80, 87, 89]),
                version=dice.choice(["10.3.0", "1.7.1", {"tensorrt": "10.3.0", "tensorrt-rtx": "1.7.1"}[flavour]]),
            )
            for i in range(dice.randrange(4))
        ]
        for digit in "0123":
            entry = state / "plans" / (digit * 64 + ".json")
            entry.unlink(missing_ok=True)
            if dice.random() < 0.5:
                entry.write_text("{}")
        values = manifest_values(
            plans=plans,
            targets=dice.choice([["cpu"], ["tensorrt"], ["cpu", "tensorrt-rtx"], []]),
            execution=dice.choice(["f32", "bf16", "f16"]),
            fallback=dice.choice(["", "f32"]),
        )
        folder = write(tmp_path / "engine", values)
        wanted = Wanted(
            device=dice.choice([None, None, None, "cpu", "cuda", "cuda:0", "cuda:1", "cuda:7"]),
            sms=tuple(dice.choice([80, 87, 89]) for _ in range(dice.randrange(4))),
            tensorrt=dice.choice([None, "10.3.0", "10.3.0", "unknown"]),
            tensorrt_rtx=dice.choice([None, "1.7.1", "1.7.1", "1.8.0"]),
            openvino=fakes.openvino,
            trust_plans=dice.random() < 0.3,
        )
        bf16 = dice.random() < 0.5
        fakes.bf16(bf16)
        expected = python_choice(folder, wanted, bf16, monkeypatch)
        assert native_choice(folder, wanted) == expected, (round_number, values["plans"], wanted)
        kind = "none" if expected is None else "cpu" if expected[0] == "cpu" else "plan"
        seen[kind, bool(expected and expected[2])] = seen.get((kind, bool(expected and expected[2])), 0) + 1
    assert set(seen) == {("none", False), ("cpu", False), ("cpu", True), ("plan", False)} and min(seen.values()) >= 5


@pytest.mark.parametrize("folder", [GOLDEN / "engine-v1", GOLDEN / "signature-v1/engine"])
def test_the_choice_for_golden_folders(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GMS_RT_STATE", str(tmp_path / "none"))
    for trusted in (False, True):
        for sms in ((), (80,), (80, 89)):
            wanted = Wanted(sms=sms, tensorrt_rtx="1.7.1.116", trust_plans=trusted)
            assert native_choice(folder, wanted) == python_choice(folder, wanted, False, monkeypatch)


def test_a_state_folder_that_others_can_write_vouches_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    (state / "plans").mkdir(parents=True, mode=0o700)
    state.chmod(0o700)
    monkeypatch.setenv("GMS_RT_STATE", str(state))
    (state / "plans" / ("0" * 64 + ".json")).write_text("{}")
    folder = write(tmp_path / "engine", manifest_values(plans=[plan_values()], targets=["tensorrt"]))
    wanted = Wanted(sms=(89,), tensorrt="10.13.3.9")
    assert native_choice(folder, wanted) == ("tensorrt.plan", 0, False)
    for part in (state, state / "plans"):
        part.chmod(0o777)
        assert native_choice(folder, wanted) is None
        assert python_choice(folder, wanted, False, monkeypatch) is None
        part.chmod(0o700)
    monkeypatch.setenv("GMS_RT_STATE", "state")  # relative: whatever folder one works in could vouch
    monkeypatch.chdir(tmp_path)
    assert native_choice(folder, wanted) is None
    assert python_choice(folder, wanted, False, monkeypatch) is None


def test_reasons_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GMS_RT_STATE", str(tmp_path / "none"))
    folder = write(tmp_path / "engine", manifest_values(plans=[plan_values()], targets=["cpu", "tensorrt"]))
    cases = [
        (Wanted(sms=()), "there is no GPU"),
        (Wanted(sms=(80,)), "built for SM89, this machine has SM80"),
        (Wanted(sms=(89,), device="cuda:3"), "there is no GPU 3, this machine has 1"),
        (Wanted(sms=(89,)), "needs tensorrt, which this program does not have"),
        (Wanted(sms=(89,), tensorrt="9.9"), "built with tensorrt 10.13.3.9, this program has 9.9"),
        (Wanted(sms=(89,), tensorrt="10.13.3.9"), "was not built on this machine"),
        (Wanted(sms=None, driver=Path("/nowhere/libcuda.so.1")), "no CUDA driver"),
    ]
    with NativeEngine(folder) as engine:
        for wanted, reason in cases:
            plan = engine.plan(0, wanted)
            assert reason in plan.reason.decode() and plan.fits == 0
            with pytest.raises(NativeError, match="cannot run on cuda") as raised:
                engine.select(dataclasses.replace(wanted, device=wanted.device or "cuda"))
            assert f"(tensorrt.plan: {plan.reason.decode()})" in str(raised.value)
        chosen = engine.select(Wanted(sms=(89,), tensorrt="10.13.3.9"))
        assert chosen.target == 0 and "running the CPU graph" in chosen.reason.decode()
        assert engine.select(None).target == 0
        for device in ("gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "", "cuda:99999999999999999999"):
            with pytest.raises(NativeError, match="unknown device"):
                engine.select(Wanted(device=device))


def test_the_driver_is_asked(tmp_path: Path) -> None:
    compiler()
    folder = write(tmp_path / "engine", manifest_values(plans=[plan_values(sm=80)], targets=["tensorrt"]))
    with NativeEngine(folder) as engine:
        plan = engine.plan(0, Wanted(sms=None, driver=fake("cuda"), tensorrt="10.13.3.9", trust_plans=True))
        told = plan.reason.decode()
        assert plan.fits == 1 or "this machine has SM" in told


def test_of_several_gpus_a_plan_takes_the_one_it_was_timed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler()
    library = ctypes.CDLL(str(fake("cuda")))
    library.fake_cuda_reset()
    library.fake_cuda_devices(3)  # of one compute capability
    monkeypatch.setattr(fits, "probe", lambda: machine((80, 80, 80), ("Fake GPU", "Fake GPU 1", "Fake GPU 2")))
    monkeypatch.setattr(fits, "tensorrt_version", lambda flavour: "10.13.3.9")
    monkeypatch.setattr(fits, "driver_problem", lambda flavour, machine: "")
    try:
        for timed_on, device, gpu in (
            ("Fake GPU 1", None, 1),
            ("Fake GPU 2", "cuda", 2),
            ("Fake GPU 2", "cuda:1", 1),
            ("another", None, 0),
            (None, None, 0),
        ):
            plan = plan_values(sm=80, device=timed_on)
            folder = write(tmp_path / "engine", manifest_values(plans=[plan], targets=["tensorrt"]))
            how = LoadOptions(device=device, trust_plans=True)
            choice = select._choose(folder, read_manifest(folder), how, *parse_device(device))
            wanted = Wanted(device, None, "10.13.3.9", driver=fake("cuda"), trust_plans=True)
            with NativeEngine(folder) as engine:
                assert engine.select(wanted).gpu == choice.fit.gpu == gpu
    finally:
        library.fake_cuda_reset()


def test_structures_have_the_size_of_the_header(tmp_path: Path) -> None:
    pairs = {
        "gmsrt_engine_info": EngineInfo,
        "gmsrt_code": Code,
        "gmsrt_class": SegmentClass,
        "gmsrt_plan": Plan,
        "gmsrt_select_options": SelectOptions,
    }
    check_structures(pairs, tmp_path)
